"""The HTTP codecs that obey the contract in asyncmg/codecs/http.py: every test of a codec runs on each of them.

``run`` feeds one and returns its records in a form that does not depend on where the input was split.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from asyncmg.codecs.http import EndOfMessage, HttpCodec, RequestHead, ResponseHead, Role
from asyncmg.codecs.http_native import NativeHttpCodec
from asyncmg.codecs.http_portable import PortableHttpCodec
from asyncmg.core import status
from asyncmg.errors import RemoteProtocolError
from asyncmg.limits import HttpLimits
from asyncmg.messages import Framing, WholeRequest

CODECS: dict[str, Callable[[Role, HttpLimits], HttpCodec]] = {"portable": PortableHttpCodec}
if status().available or os.environ.get("ASYNCMG_REQUIRE_CORE") == "1":
    CODECS["native"] = NativeHttpCodec

Normal = tuple[Any, ...]


def normal_fields(fields: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """Names and values are as sent, but for the case of the coding's name, which says nothing."""
    return tuple(
        (bytes(name), bytes(value).lower() if name.lower() == b"transfer-encoding" else bytes(value))
        for name, value in fields
    )


def normalise(record: object) -> Normal:
    if isinstance(record, RequestHead | WholeRequest):
        return (
            "request",
            record.method,
            record.target,
            record.proto,
            normal_fields(record.fields),
            Framing(record.framing),
            record.content_length,
            record.keep_alive,
            record.expects_continue,
            record.upgrade,
        )
    if isinstance(record, ResponseHead):
        return (
            "response",
            record.method,
            record.status,
            record.reason,
            record.proto,
            normal_fields(record.fields),
            Framing(record.framing),
            record.content_length,
            record.keep_alive,
        )
    if isinstance(record, EndOfMessage):
        return ("end", normal_fields(record.trailers))
    assert isinstance(record, bytes), record
    assert record, "a codec never returns empty content"
    return ("body", record)


def normal_records(record: object) -> list[Normal]:
    """A WholeRequest is the three records that it stands for."""
    if not isinstance(record, WholeRequest):
        return [normalise(record)]
    content: list[Normal] = [("body", record.content)] if record.content else []
    return [normalise(record), *content, ("end", ())]


def drain(codec: HttpCodec, records: list[Normal]) -> RemoteProtocolError | None:
    """Take all records there are now; consecutive content is joined. Returns the error that ended it."""
    while True:
        try:
            record = codec.next_event()
        except RemoteProtocolError as exc:
            return exc
        if record is None:
            return None
        for normal in normal_records(record):
            if normal[0] == "body" and records and records[-1][0] == "body":
                records[-1] = ("body", records[-1][1] + normal[1])
            else:
                records.append(normal)


def feed(
    codec: HttpCodec, pieces: Iterable[bytes], *, eof: bool = False
) -> tuple[list[Normal], RemoteProtocolError | None]:
    """Feed the pieces, and the end of input if ``eof``; return the records and the error, if any."""
    records: list[Normal] = []
    for piece in pieces:
        codec.receive_data(piece)
        error = drain(codec, records)
        if error is not None:
            return records, error
    if eof:
        codec.receive_eof()
        return records, drain(codec, records)
    return records, None


def make(name: str, role: Role, limits: HttpLimits | None = None, expect: Iterable[str] = ()) -> HttpCodec:
    codec = CODECS[name](role, limits or HttpLimits())
    for method in expect:
        codec.expect(method)
    return codec


def run(
    name: str,
    role: Role,
    pieces: Iterable[bytes],
    *,
    eof: bool = False,
    limits: HttpLimits | None = None,
    expect: Iterable[str] = (),
) -> tuple[list[Normal], int | None]:
    """Return the records and the status of the error, None when there was none."""
    records, error = feed(make(name, role, limits, expect), pieces, eof=eof)
    return records, None if error is None else error.wire_code


def assert_stays_failed(codec: HttpCodec, further: bytes) -> None:
    """A ProtocolError is final: nothing comes from behind it, whatever is received."""
    for data in (b"", further, b"\r\n\r\n" + further):
        codec.receive_data(data)
        records: list[Normal] = []
        drain(codec, records)
        assert not records, f"records from behind an error: {records}"


def split_at(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Cut data at these places; values out of range are taken modulo its length."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


def one_by_one(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]
