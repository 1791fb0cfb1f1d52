"""The native DNS codec (RFC 1035 section 4): amg_dns.c of the C core checks a message and writes its names out.

One call of the core reads a whole message. All names and addresses come as one text, in which NULs lie between them:
one decoding and one split for them all, and a name that others point to is one str.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any, Final

from asyncmg.core import CoreUnavailable, load, status
from asyncmg.core.records import (
    AMG_DNS_ADDRESS,
    AMG_DNS_BYTES,
    AMG_DNS_MAX_RECORDS,
    AMG_DNS_MX,
    AMG_DNS_NAME,
    AMG_DNS_NO_ROOM,
    AMG_DNS_REFUSED,
    AMG_DNS_SRV,
    AMG_DNS_STRINGS,
    DNS_CALL,
    DNS_RECORD,
)

from . import dns
from .dns import (
    HEADER,
    SOA_TAIL,
    SRV_HEAD,
    DnsMessage,
    DnsQuestion,
    DnsRecord,
    MxData,
    RecordData,
    SoaData,
    SrvData,
    TxtData,
    refuse,
)

# AMG_DNS_E_ in the order of amg.h.
ERRORS: Final = {
    "AMG_DNS_E_TRUNCATED": dns.TRUNCATED_MESSAGE,
    "AMG_DNS_E_LABEL": dns.BAD_LABEL,
    "AMG_DNS_E_POINTER": dns.BAD_POINTER,
    "AMG_DNS_E_NAME_SIZE": dns.NAME_SIZE,
    "AMG_DNS_E_TOO_MANY": dns.TOO_MANY,
    "AMG_DNS_E_DATA_SIZE": dns.DATA_SIZE,
    "AMG_DNS_E_TRAILING": dns.TRAILING,
}
_ERRORS = (dns.TRUNCATED_MESSAGE, *ERRORS.values())  # by number

_TEXT: Final = 16384  # bytes for names and addresses that are kept
_MOST_TEXT: Final = 3100 * AMG_DNS_MAX_RECORDS
_MAX_INPUT: Final = 1 << 30  # what is behind changes nothing: no 1000 records are as large
_RECORD_SIZE: Final = DNS_RECORD.size
_QUESTIONS, _ANSWERS, _AUTHORITIES, _ADDITIONALS = range(2, 6)  # places in the header

#: ttl, offset, length, type, class_code, name_text, data_text, second_text, shape (amg_dns_record)
_RawRecord = tuple[int, int, int, int, int, int, int, int, int]
_unpack_records: Callable[[Any], Iterator[_RawRecord]] = Struct("=4x3I5HxB").iter_unpack
_TEXTS = frozenset((AMG_DNS_ADDRESS, AMG_DNS_NAME))
_unpack_header = HEADER.unpack_from
_unpack_srv = SRV_HEAD.unpack_from
_unpack_soa = SOA_TAIL.unpack_from
_new = tuple.__new__  # half the time of a NamedTuple's own


class _Workspace:
    """What a call of the core works in. A call takes one for itself: threads never share one."""

    __slots__ = ("at", "read", "records", "text")

    def __init__(self, text_size: int = _TEXT) -> None:
        core = load()
        if core is None:
            raise CoreUnavailable(f"the native codec needs the C core: {status().reason}")
        self.read: Callable[[Any, bytes, int], int] = core.dns.read_call
        records = ctypes.create_string_buffer(_RECORD_SIZE * AMG_DNS_MAX_RECORDS)
        text = ctypes.create_string_buffer(text_size)
        call = ctypes.create_string_buffer(DNS_CALL.size)
        DNS_CALL.pack_into(call, 0, ctypes.addressof(records), AMG_DNS_MAX_RECORDS, ctypes.addressof(text), text_size)
        self.records = memoryview(records).cast("B")
        self.text = memoryview(text).cast("B")
        self.at: Any = ctypes.byref(call)


_spare: list[_Workspace] = []


def read_message(data: bytes) -> DnsMessage:
    """Read one message: :data:`asyncmg.codecs.dns.DnsReader`.

    Raises:
        RemoteProtocolError: it is malformed, or has more than MAX_RECORDS records.
        CoreUnavailable: there is no C core.
    """
    try:
        workspace = _spare.pop()
    except IndexError:
        workspace = _Workspace()
    number = workspace.read(workspace.at, data, min(len(data), _MAX_INPUT))
    if number == AMG_DNS_NO_ROOM:
        _spare.append(workspace)
        workspace = _Workspace(_MOST_TEXT)
        message = _take(workspace, data, workspace.read(workspace.at, data, len(data)))
    elif number >= AMG_DNS_REFUSED:
        _spare.append(workspace)
        raise refuse(_ERRORS[number - AMG_DNS_REFUSED])
    else:
        message = _take(workspace, data, number)
        _spare.append(workspace)
    return message


def _take(workspace: _Workspace, data: bytes, text_size: int) -> DnsMessage:
    """Make a message of what a call has left."""
    number, flags, questions, answers, authorities, additionals = _unpack_header(data)
    texts = str(workspace.text[:text_size], "utf-8", "surrogateescape").split("\0")
    count = questions + answers + authorities + additionals
    raw = _unpack_records(workspace.records[: count * _RECORD_SIZE])
    asked = []
    for _ in range(questions):
        _, _, _, kind, class_, name, _, _, _ = next(raw)
        asked.append(_new(DnsQuestion, (texts[name], kind, class_)))
    records = [
        _new(
            DnsRecord,
            (
                texts[name],
                kind,
                texts[first]
                if shape in _TEXTS
                else data[at : at + size]
                if shape == AMG_DNS_BYTES
                else _structured(data, at, size, shape, texts[first], texts[second]),
                ttl,
                class_,
            ),
        )
        for ttl, at, size, kind, class_, name, first, second, shape in raw
    ]
    behind = answers + authorities
    return _new(DnsMessage, (number, flags, asked, records[:answers], records[answers:behind], records[behind:]))


def _structured(data: bytes, at: int, size: int, shape: int, first: str, second: str) -> RecordData:
    """Make the data of a record that is more than a text."""
    if shape == AMG_DNS_STRINGS:
        strings = []
        end = at + size
        while at < end:
            following = at + 1 + data[at]
            strings.append(data[at + 1 : following])
            at = following
        return TxtData(strings)
    if shape == AMG_DNS_MX:
        return MxData(data[at] << 8 | data[at + 1], first)
    if shape == AMG_DNS_SRV:
        priority, weight, port = _unpack_srv(data, at)
        return SrvData(priority, weight, port, first)
    return SoaData(first, second, *_unpack_soa(data, at + size - 20))
