"""What is the native codec's own: the C functions below it, what it holds, threads. The rest runs on every codec."""

from __future__ import annotations

import ctypes
import os
import random
import re
import sys
import threading
from pathlib import Path

import pytest

import asyncmg.core
from asyncmg.codecs import http_native
from asyncmg.codecs.http import Role, _is_host
from asyncmg.codecs.http_native import ERRORS, NativeHttpCodec
from asyncmg.codecs.http_portable import PortableHttpCodec
from asyncmg.core import Core, CoreUnavailable
from asyncmg.core.records import (
    AMG_HTTP1_CONTENT,
    AMG_HTTP1_END,
    AMG_HTTP1_REQUEST,
    AMG_SERVER,
    HTTP1_LIMITS,
    HTTP1_RECORD,
    HTTP1_STATE,
    http1_limits,
)
from asyncmg.errors import RemoteProtocolError
from asyncmg.limits import HttpLimits
from asyncmg.messages import WholeRequest
from tests.codecs.codec_list import CODECS, Normal, drain, feed
from tests.codecs.vector_file import read_vectors
from tests.fuzz.fuzz_http_differential import make_host

GET = b"GET /index.html HTTP/1.1\r\nHost: localhost:8000\r\nUser-Agent: curl/8.0.1\r\nAccept: */*\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: b\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def core() -> Core:
    if "native" not in CODECS:
        pytest.skip(f"no C core: {asyncmg.core.status().reason}")
    found = asyncmg.core.load()
    if found is None:
        assert os.environ.get("ASYNCMG_REQUIRE_CORE") != "1", asyncmg.core.status().reason
        pytest.skip("the C core is switched off")
    return found


class Reader:
    """amg_http1_read and amg_http1_whole, bare."""

    def __init__(self, core: Core, limits: HttpLimits | None = None) -> None:
        self.http1 = core.http1
        self.limits = http1_limits(limits or HttpLimits())
        self.state = ctypes.create_string_buffer(HTTP1_STATE.size)
        self.records = ctypes.create_string_buffer(HTTP1_RECORD.size * 8)
        self.consumed = ctypes.c_size_t()
        core.http1.init(ctypes.addressof(self.state), AMG_SERVER)

    def read(self, data: bytes) -> list[tuple[int, ...]]:
        scratch = ctypes.create_string_buffer(len(data) + 1)
        count = self.http1.read(
            ctypes.addressof(self.state),
            self.limits,
            data,
            len(data),
            0,
            ctypes.addressof(scratch),
            ctypes.addressof(self.records),
            8,
            ctypes.addressof(self.consumed),
        )
        return list(HTTP1_RECORD.iter_unpack(self.records.raw[: count * HTTP1_RECORD.size]))

    def whole(self, data: bytes) -> tuple[int, tuple[int, ...]]:
        size = self.http1.whole(self.limits, data, len(data), ctypes.addressof(self.records))
        return size, HTTP1_RECORD.unpack_from(self.records)

    @property
    def scanned(self) -> int:
        return HTTP1_STATE.unpack(self.state.raw)[1]


# -- amg_http1_whole ----------------------------------------------------------------------------------------------


def test_whole_agrees_with_read(core: Core) -> None:
    found = 0
    for vector in read_vectors("http_requests.txt"):
        size, whole = Reader(core).whole(vector.data)
        if not size:
            continue
        found += 1
        reader = Reader(core)
        records = reader.read(vector.data[:size])
        assert records[0] == whole, vector.name
        assert reader.consumed.value == size
        kinds = [record[0] for record in records]
        content = vector.data[whole[6] : size]
        assert kinds == [AMG_HTTP1_REQUEST, *[AMG_HTTP1_CONTENT] * bool(content), AMG_HTTP1_END]
        assert records[-1][7] == size
        assert size == whole[6] + whole[9]
    assert found > 60


SIMPLE = [
    GET,
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT http://b/ HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n",
]
NOT_SIMPLE = [
    b"",
    GET[:-1],
    b"\r\n" + GET,
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    CHUNKED + b"0\r\n\r\n",
    UPGRADE,
    b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 8192 + b"\r\n\r\n",
]


@pytest.mark.parametrize("data", SIMPLE)
def test_a_simple_request_is_whole(core: Core, data: bytes) -> None:
    size, _ = Reader(core).whole(data)
    assert size == len(data)
    codec = NativeHttpCodec(Role.SERVER, HttpLimits())
    codec.receive_data(data)
    record = codec.next_event()
    assert isinstance(record, WholeRequest)
    assert record.raw is data, "not copied"
    assert codec.is_between_messages
    assert codec.next_event() is None


@pytest.mark.parametrize("data", NOT_SIMPLE)
def test_anything_else_is_not(core: Core, data: bytes) -> None:
    assert Reader(core).whole(data)[0] == 0


def test_pipelined_requests_are_whole_too(core: Core) -> None:
    post = SIMPLE[1]
    codec = NativeHttpCodec(Role.SERVER, HttpLimits())
    codec.receive_data(GET + post + UPGRADE + b"\x81\x00" + GET)
    records = [codec.next_event(), codec.next_event()]
    assert [record.raw for record in records if isinstance(record, WholeRequest)] == [GET, post]
    head = codec.next_event()
    assert not isinstance(head, WholeRequest)
    assert codec.take_rest() == b"\x81\x00" + GET


# -- amg_http1_read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"", b"GET /" + b"a" * 3000),
        (b"", b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: yyyyyyyy\r\n" * 50),
        (CHUNKED, b"1;" + b"a" * 3000),
        (CHUNKED + b"1\r\na", b"\r\n1;" + b"a" * 3000),
        (CHUNKED + b"0", b"\r\n" + b"X: yyyyyyyyyy\r\n" * 50),
    ],
)
def test_what_is_incomplete_is_scanned_once(core: Core, start: bytes, more: bytes) -> None:
    """Cheap input stays cheap: byte by byte costs no more than at once."""
    reader = Reader(core)
    reader.read(start)
    held = start[reader.consumed.value :]
    for byte in more:
        held += bytes([byte])
        records = reader.read(held)
        assert all(record[0] == AMG_HTTP1_CONTENT for record in records)
        held = held[reader.consumed.value :]
        assert reader.scanned >= len(held) - 2, "a CR, and CRLF behind a chunk, may be looked at again"
    assert len(held) > 600


@pytest.mark.parametrize("which", ["max_request_line", "max_field_line", "max_fields", "max_header_size"])
def test_limits_are_those_of_the_codec(core: Core, which: str) -> None:
    limits = HttpLimits(**{which: 1})
    codec = NativeHttpCodec(Role.SERVER, limits)
    codec.receive_data(GET)
    with pytest.raises(RemoteProtocolError, match=f"{which}=1") as caught:
        codec.next_event()
    portable = PortableHttpCodec(Role.SERVER, limits)
    portable.receive_data(GET)
    with pytest.raises(RemoteProtocolError) as expected:
        portable.next_event()
    assert str(caught.value) == str(expected.value)


def test_limits_are_packed_once(core: Core) -> None:
    assert HTTP1_LIMITS.unpack(http1_limits(HttpLimits())) == (8190, 8192, 32768, 100, 4096, 16384, 16384, 0)
    assert http1_limits(HttpLimits()) is http1_limits(HttpLimits())
    assert HTTP1_LIMITS.unpack(http1_limits(HttpLimits(max_fields=2**40)))[3] == 2**32 - 1


def test_errors_are_those_of_the_header() -> None:
    header = (Path(asyncmg.core.__file__).parent / "amg.h").read_text(encoding="utf-8")
    names = re.findall(r"^    (AMG_E_\w+)", header, re.MULTILINE)
    assert list(ERRORS) == names
    for message, where in ERRORS.values():
        assert message
        assert re.fullmatch(r"91\d\d section [\d.]+", where) or hasattr(HttpLimits(), where)


def test_hosts_are_what_python_says_they_are(core: Core) -> None:
    chance = random.Random(6)
    reader = Reader(core)
    seen = {True: 0, False: 0}
    for _ in range(20_000):
        host = make_host(chance).encode()
        size, _ = reader.whole(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        assert bool(size) == _is_host(host.strip(b" \t")), host
        seen[bool(size)] += 1
    assert min(seen.values()) > 500, seen


# -- the codec ----------------------------------------------------------------------------------------------------


def held_by(codec: NativeHttpCodec) -> int:
    """Bytes of a codec and of what is its own."""
    shared = {"_limits", "_packed_limits", "_queue", "_pieces", "_methods", "_role"}
    values = [getattr(codec, name) for name in codec.__slots__ if name not in shared]
    lists = [getattr(codec, name) for name in ("_queue", "_pieces", "_methods")]
    own = [value for value in lists if not any(value is empty for empty in EMPTY)]
    own += [value for value in values if isinstance(value, bytes | bytearray) and value]
    return sys.getsizeof(codec) + sum(map(sys.getsizeof, own))


EMPTY = (http_native._NO_RECORDS, http_native._NO_PIECES, http_native._NO_METHODS)


@pytest.mark.parametrize(
    "data",
    [b"", GET, GET * 30, CHUNKED + b"1\r\na\r\n" * 1000 + b"0\r\nT: u\r\n\r\n", SIMPLE[1] * 3, UPGRADE],
    ids=["new", "GET", "pipelined", "chunked", "POST", "upgrade"],
)
def test_an_idle_codec_holds_nothing(core: Core, data: bytes) -> None:
    codec = NativeHttpCodec(Role.SERVER, HttpLimits())
    for pieces in ([data], [data[:20], data[20:]]):
        _, error = feed(codec, pieces)
        assert error is None
        assert codec.is_between_messages
        assert held_by(codec) < 300
    assert not any(EMPTY)


def test_what_was_read_is_not_kept_for_what_is_left(core: Core) -> None:
    codec = NativeHttpCodec(Role.SERVER, HttpLimits())
    feed(codec, [GET * 1000 + GET[:50]])
    assert codec.buffered == 50
    assert held_by(codec) < 600


def test_content_is_the_receivers_own(core: Core) -> None:
    chunked = CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    first, second = (NativeHttpCodec(Role.SERVER, HttpLimits()) for _ in range(2))
    first.receive_data(chunked)
    second.receive_data(chunked.replace(b"hello", b"HELLO"))
    first.next_event()
    second.next_event()
    content = [first.next_event(), second.next_event()]
    assert content == [b"hello world", b"HELLO world"]
    first.receive_data(chunked.replace(b"world", b"WORLD"))
    assert [normal for normal in drained(first) if normal[0] == "body"] == [("body", b"hello WORLD")]
    assert content == [b"hello world", b"HELLO world"]


def drained(codec: NativeHttpCodec) -> list[Normal]:
    records: list[Normal] = []
    assert drain(codec, records) is None
    return records


def test_chunks_of_several_requests_in_one_read(core: Core) -> None:
    words = (b"abc", b"", b"de")
    requests = [CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in word) + b"0\r\n\r\n" for word in words]
    codec = NativeHttpCodec(Role.SERVER, HttpLimits())
    codec.receive_data(b"".join(requests))
    assert [normal[1] for normal in drained(codec) if normal[0] == "body"] == [b"abc", b"de"]


@pytest.mark.parametrize("size", [1 << 16, (1 << 20) + 7, 3 << 20])
def test_much_at_once(core: Core, size: int) -> None:
    data = CHUNKED + (b"400\r\n" + b"x" * 1024 + b"\r\n") * (size // 1024) + b"0\r\n\r\n" + GET * (size // len(GET))
    codec = NativeHttpCodec(Role.SERVER, HttpLimits())
    codec.receive_data(data)
    records = drained(codec)
    assert len(records[1][1]) == size // 1024 * 1024
    assert sum(normal[0] == "request" for normal in records) == 1 + size // len(GET)
    assert codec.is_between_messages
    assert codec.buffered == 0


def test_what_comes_while_records_are_waiting(core: Core) -> None:
    codec = NativeHttpCodec(Role.SERVER, HttpLimits())
    codec.receive_data(GET * 3 + GET[:10])
    assert codec.next_event()
    for place in range(10, len(GET)):
        codec.receive_data(GET[place : place + 1])
    assert codec.buffered == 3 * len(GET)
    assert len([normal for normal in drained(codec) if normal[0] == "request"]) == 3
    assert codec.is_between_messages


def test_threads_do_not_disturb_each_other(core: Core) -> None:
    """Two managers may run in two threads: what a call works in is its own."""
    failures: list[object] = []

    def work(number: int) -> None:
        word = b"%d" % number * 50
        codec = NativeHttpCodec(Role.SERVER, HttpLimits())
        message = CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in word) + b"0\r\n\r\n"
        message += b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n" % number + word
        for _ in range(300):
            records, error = feed(codec, [message[:70], message[70:]])
            contents = [normal[1] for normal in records if normal[0] == "body"]
            if error or contents != [word, word] or records[-3][2] != f"/{number}":
                failures.append((number, error, records))
                return

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failures == []


def test_without_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCMG_CORE", "off")
    monkeypatch.setattr(http_native, "_spare", [])
    with pytest.raises(CoreUnavailable, match="switched off"):
        NativeHttpCodec(Role.SERVER, HttpLimits())
