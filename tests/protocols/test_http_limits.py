"""Limits, time-outs and refusals: the right status, one clean reply, an orderly close, a live server."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from asyncmg import (
    MG_EV_CLOSE,
    MG_EV_ERROR,
    MG_EV_HTTP_HDRS,
    MG_EV_HTTP_MSG,
    BufferLimits,
    Connection,
    DeadlineExceeded,
    HttpLimits,
    LimitExceeded,
    Limits,
    NetLimits,
    RemoteProtocolError,
)

from .conftest import Harness, RawPeer, eventually

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
LARGE = b"x" * (4 << 20)


class Recorder:
    """A handler that answers and remembers."""

    def __init__(self) -> None:
        self.events: list[int] = []
        self.errors: list[Exception] = []

    def __call__(self, conn: Connection, ev: int, data: Any) -> None:
        self.events.append(ev)
        if ev == MG_EV_ERROR:
            self.errors.append(data)
        elif ev == MG_EV_HTTP_MSG:
            conn.reply(200, b"ok")


REFUSED = {
    "content-length and transfer-encoding": (
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "repeated content-length": (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    "signed content-length": (POST + b"Content-Length: +3\r\n\r\nabc", 400),
    "signed chunk size": (POST + b"Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n", 400),
    "chunk size overflow": (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n", 400),
    "no crlf behind a chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n", 400),
    "bare lf": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "bare cr": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", 400),
    "nul": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", 400),
    "space before colon": (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
    "obs-fold": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
    "http/0.9": (b"GET /\r\n\r\n", 400),
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)) + b"\r\n\r\n", 400),
    "announced content too large": (POST + b"Content-Length: 2000000\r\n\r\n" + LARGE, 413),
    "chunked content too large": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n200000\r\n" + LARGE[: 2 << 20] + b"\r\n0\r\n\r\n", 413),
    "target too long": (b"GET /" + LARGE[:9000] + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    "target without end": (b"GET /" + LARGE, 414),
    "field too long": (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + LARGE[:9000] + b"\r\n\r\n", 431),
    "header too long": (b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"A: " + LARGE[:8000] + b"\r\n") * 5 + b"\r\n", 431),
    "too many fields": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100 + b"\r\n", 431),
    "expect other": (POST + b"Content-Length: 3\r\nExpect: tea\r\n\r\n", 417),
    "transfer-encoding other": (POST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
    "http/2.0": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
async def test_refused_with_one_clean_reply(harness: Harness, name: str) -> None:
    data, expected = REFUSED[name]
    recorder = Recorder()
    listener = harness.serve(recorder)
    peer = await harness.peer(listener.port)
    peer.send(GET + data + GET)  # what stands before is answered, what stands behind never
    status, _, _ = await peer.read_reply()
    assert status == 200
    status, fields, body = await peer.read_reply()
    assert (status, fields["connection"]) == (expected, "close")
    assert body.startswith(str(expected).encode())
    peer.send_eof()
    assert await peer.read_all() == b"", "exactly one reply, and no reset that eats it"
    await eventually(lambda: MG_EV_CLOSE in recorder.events)
    assert len(recorder.errors) == 1
    assert isinstance(recorder.errors[0], RemoteProtocolError)
    assert recorder.errors[0].wire_code == expected
    assert recorder.events.count(MG_EV_HTTP_MSG) == 1
    again = await harness.peer(listener.port)
    again.send(GET)
    assert (await again.read_reply())[0] == 200, "the server lives"


async def test_413_comes_before_the_content(harness: Harness) -> None:
    peer = await harness.peer(harness.serve(Recorder()).port)
    peer.send(POST + b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n")
    assert (await peer.read_reply())[0] == 413


FAST = Limits(
    net=NetLimits(linger_idle_timeout=0.1, linger_timeout=0.3),
    http=HttpLimits(header_timeout=0.15, keepalive_timeout=0.15),
    buffers=BufferLimits(stall_timeout=0.15, rate_grace=0.15, min_rate=1000),
)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", 408),
        (b"GET / HT", 408),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", 408),
        (POST + b"Content-Length: 10\r\n\r\n", 408),
        (POST + b"Content-Length: 10\r\n\r\nabc", 408),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nab", 408),
    ],
)
async def test_who_is_silent_gets_408(harness: Harness, sent: bytes, status: int) -> None:
    recorder = Recorder()
    peer = await harness.peer(harness.serve(recorder, limits=FAST).port)
    peer.send(sent)
    got, fields, _ = await peer.read_reply()
    assert (got, fields["connection"]) == (status, "close")
    assert await peer.read_all() == b""
    assert isinstance(recorder.errors[0], DeadlineExceeded)


async def test_a_slow_header_is_not_saved_by_dripping(harness: Harness) -> None:
    peer = await harness.peer(harness.serve(Recorder(), limits=FAST).port)
    begun = time.monotonic()

    async def drip() -> None:
        peer.send(b"GET /")
        for _ in range(500):  # nothing of it is wrong, it is just never complete
            peer.send(b"x")
            await asyncio.sleep(0.01)

    dripping = asyncio.create_task(drip())
    try:
        assert (await peer.read_reply())[0] == 408
        assert time.monotonic() - begun < 5
    finally:
        dripping.cancel()


async def test_a_slow_body_is_not_saved_by_dripping(harness: Harness) -> None:
    peer = await harness.peer(harness.serve(Recorder(), limits=FAST).port)
    peer.send(POST + b"Content-Length: 1000\r\n\r\n")

    async def drip() -> None:
        for _ in range(1000):
            peer.send(b"x")
            await asyncio.sleep(0.01)

    dripping = asyncio.create_task(drip())
    try:
        assert (await peer.read_reply())[0] == 408
    finally:
        dripping.cancel()


async def test_idle_keep_alive_is_closed_silently(harness: Harness) -> None:
    recorder = Recorder()
    peer = await harness.peer(harness.serve(recorder, limits=FAST).port)
    peer.send(GET)
    assert (await peer.read_reply())[0] == 200
    assert await peer.read_all() == b""
    await eventually(lambda: MG_EV_CLOSE in recorder.events)
    assert not recorder.errors


async def test_a_delayed_reply_has_no_time_out_of_ours(harness: Harness) -> None:
    held: list[Connection] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            held.append(conn)

    peer = await harness.peer(harness.serve(handler, limits=FAST).port)
    peer.send(GET)
    await eventually(lambda: held)
    await asyncio.sleep(0.4)  # longer than every limit: nothing to wait for, nothing may happen
    held[0].reply(200, b"at last")
    assert (await peer.read_reply())[2] == b"at last"


async def test_a_client_that_does_not_read_is_closed(harness: Harness) -> None:
    recorder = Recorder()

    def handler(conn: Connection, ev: int, data: Any) -> None:
        recorder.events.append(ev)
        if ev == MG_EV_ERROR:
            recorder.errors.append(data)
        elif ev == MG_EV_HTTP_MSG:
            conn.reply(200, LARGE * 4)

    peer = await harness.peer(harness.serve(handler, limits=FAST).port, limit=1)
    peer.send(GET)
    await eventually(lambda: MG_EV_CLOSE in recorder.events)
    assert isinstance(recorder.errors[0], DeadlineExceeded)


async def test_a_slow_reader_that_keeps_the_pace_gets_everything(harness: Harness) -> None:
    body = LARGE

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, body, {"Connection": "close"})

    limits = Limits(buffers=BufferLimits(stall_timeout=1, rate_grace=0.1, min_rate=1000), net=FAST.net)
    peer = await harness.peer(harness.serve(handler, limits=limits).port, limit=1 << 16)
    peer.send(GET)
    await peer.read_until(b"\r\n\r\n")
    total = 0
    while chunk := await peer.reader.read(256 << 10):
        total += len(chunk)
        await asyncio.sleep(0.02)
    assert total == len(body)


async def test_one_byte_chunks_cost_little(harness: Harness) -> None:
    recorder = Recorder()
    peer = await harness.peer(harness.serve(recorder).port)
    peer.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n")
    assert (await peer.read_reply())[0] == 200
    assert len(recorder.events) < 50


async def test_pipelined_requests_are_held_as_bytes_and_bounded(harness: Harness) -> None:
    """While a reply is due, input beyond a bound stays in the kernel: the sender is stopped."""
    held: list[Connection] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            if not held:
                held.append(conn)
            else:
                conn.reply(200, b"")

    peer = await harness.peer(harness.serve(handler).port)
    peer.writer.transport.set_write_buffer_limits(high=0)
    count = 400_000

    async def push() -> None:
        for _ in range(count // 1000):
            peer.send(GET * 1000)
            await peer.writer.drain()

    pushing = asyncio.create_task(push())
    await eventually(lambda: held and held[0].recv_len > 64 << 10)
    before = -1
    while held[0].recv_len != before:
        before = held[0].recv_len
        await asyncio.sleep(0.02)
    assert before < 1 << 20 and not pushing.done()
    pushing.cancel()
    peer.reset()


async def test_a_busy_pipeline_lets_others_through(harness: Harness) -> None:
    listener = harness.serve(Recorder(), limits=Limits(http=HttpLimits(max_requests=1_000_000)))
    busy, other = await harness.peer(listener.port), await harness.peer(listener.port)
    busy.send(GET * 3000)
    drain = asyncio.create_task(_read_forever(busy))
    other.send(GET)
    assert (await other.read_reply())[0] == 200
    assert drain.get_name() and not drain.done(), "the other was served while the pipeline was being worked on"
    drain.cancel()


async def _read_forever(peer: RawPeer) -> None:
    for _ in range(3000):
        await peer.read_reply()


async def test_peer_vanishes_at_every_byte(harness: Harness) -> None:
    """Whatever has been sent, by reset or by an orderly end: one MG_EV_CLOSE each, never half a message."""
    request = POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: x\r\n\r\n"
    recorder = Recorder()
    listener = harness.serve(recorder)
    for end in range(0, len(request), 2):
        for vanish in ("reset", "close"):
            recorder.events.clear()
            peer = await harness.peer(listener.port)
            peer.send(request[:end])
            if vanish == "reset":
                await asyncio.sleep(0)
                peer.reset()
            else:
                await peer.close()
            await eventually(lambda: MG_EV_CLOSE in recorder.events)
            assert recorder.events.count(MG_EV_CLOSE) == 1
            assert MG_EV_HTTP_MSG not in recorder.events
    assert not harness.errors


async def test_limit_of_a_stream_taken_by_the_handler_is_its_own(harness: Harness) -> None:
    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_HDRS:
            total = 0
            async for chunk in data.stream():
                total += len(chunk)
            conn.reply(200, str(total))

    peer = await harness.peer(harness.serve(handler).port)
    peer.send(POST + b"Content-Length: %d\r\n\r\n" % len(LARGE) + LARGE)
    assert (await peer.read_reply())[2] == str(len(LARGE)).encode()


async def test_errors_tell_limit_and_value(harness: Harness) -> None:
    recorder = Recorder()
    listener = harness.serve(recorder, limits=Limits(http=HttpLimits(max_body=10)))
    await harness.ask(listener.port, POST + b"Content-Length: 11\r\nConnection: close\r\n\r\n")
    error = recorder.errors[0]
    assert isinstance(error, LimitExceeded)
    assert (error.limit, error.actual, error.wire_code) == ("max_body=10", 11, 413)
