"""HttpProtocol as a client: raw requests as in the seeds, parsed responses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import asyncmg
from asyncmg import (
    MG_EV_CLOSE,
    MG_EV_CONNECT,
    MG_EV_ERROR,
    MG_EV_HTTP_HDRS,
    MG_EV_HTTP_MSG,
    BufferLimits,
    Connection,
    ConnectionClosed,
    DeadlineExceeded,
    HttpMessage,
    Limits,
    RemoteProtocolError,
    StreamProtocol,
)

from .conftest import Harness, soon

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def canned(harness: Harness, *replies: bytes, ends: bool = True) -> int:
    """Serve fixed bytes, one piece per received piece of request; return the port."""
    waiting = list(replies)

    async def session(conn: Connection) -> None:
        async for ev, _ in conn:
            if ev == asyncmg.MG_EV_READ:
                conn.read()
                if waiting:
                    conn.send(waiting.pop(0))
                if not waiting and ends:
                    conn.drain()

    return harness.serve(session, "tcp://127.0.0.1:0").port


async def collect(harness: Harness, port: int, *requests: bytes, limits: Limits | None = None) -> list[tuple[int, Any]]:
    """Connect, send all at once, return all events."""
    manager = harness.manager(**({"limits": limits} if limits else {}))
    seen: list[tuple[int, Any]] = []

    async def run() -> None:
        async with manager.connect(f"http://127.0.0.1:{port}") as conn:
            for request in requests:
                conn.send(request)
            async for ev, data in conn:
                seen.append((ev, data))

    await soon(run())
    return seen


def messages(seen: list[tuple[int, Any]]) -> list[HttpMessage]:
    return [data for ev, data in seen if ev == MG_EV_HTTP_MSG]


def errors(seen: list[tuple[int, Any]]) -> list[Exception]:
    return [data for ev, data in seen if ev == MG_EV_ERROR]


async def test_response_fields(harness: Harness) -> None:
    port = canned(harness, b"HTTP/1.1 404 Not Here\r\nContent-Length: 3\r\nX-A: 1\r\n\r\nabc")
    seen = await collect(harness, port, GET)
    (message,) = messages(seen)
    assert (message.status(), message.reason, message.proto) == (404, "Not Here", "HTTP/1.1")
    assert (message.method, message.uri) == ("HTTP/1.1", "404"), "as Mongoose shows responses"
    assert message.header("x-a") == "1" and message.body_bytes == b"abc"
    assert [ev for ev, _ in seen][-1] == MG_EV_CLOSE and not errors(seen)


@pytest.mark.parametrize(
    ("request_line", "reply", "body"),
    [
        (b"GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"GET", b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"GET", b"HTTP/1.0 200 OK\r\n\r\nold", b"old"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b""),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", b""),
        (
            b"GET",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
            b"x",
        ),
    ],
)
async def test_framings(harness: Harness, request_line: bytes, reply: bytes, body: bytes) -> None:
    seen = await collect(harness, canned(harness, reply), request_line + GET[3:])
    (message,) = messages(seen)
    assert message.body_bytes == body
    assert not errors(seen)


async def test_pipelined_methods_are_remembered(harness: Harness) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
    port = canned(harness, head + head + b"body" + head)
    seen = await collect(harness, port, b"HEAD" + GET[3:] + GET + b"HEAD" + GET[3:])
    assert [message.body_bytes for message in messages(seen)] == [b"", b"body", b""]


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"nonsense\r\n\r\n",
    ],
)
async def test_broken_responses_are_errors_never_messages(harness: Harness, reply: bytes) -> None:
    seen = await collect(harness, canned(harness, reply), GET)
    assert not messages(seen)
    assert [type(error) for error in errors(seen)] == [RemoteProtocolError]


async def test_no_response_at_all(harness: Harness) -> None:
    seen = await collect(harness, canned(harness, b""), GET)
    assert [type(error) for error in errors(seen)] == [ConnectionClosed]


async def test_response_without_a_request(harness: Harness) -> None:
    def greet(conn: Connection, ev: int, data: Any) -> None:
        if ev == asyncmg.MG_EV_ACCEPT:
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    seen = await collect(harness, harness.serve(greet, "tcp://127.0.0.1:0").port)
    assert [type(error) for error in errors(seen)] == [RemoteProtocolError]


async def test_silence_has_an_end(harness: Harness) -> None:
    limits = Limits(buffers=BufferLimits(stall_timeout=0.1))
    for reply in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"):
        seen = await collect(harness, canned(harness, reply, ends=False), GET, limits=limits)
        assert [type(error) for error in errors(seen)] == [DeadlineExceeded]


async def test_streamed_response_and_truncation(harness: Harness) -> None:
    size = 3 << 20

    def serve(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG and data.uri == "/whole":
            conn.reply(200, bytes(size))
        elif ev == MG_EV_HTTP_MSG:
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
            conn.drain()

    port = harness.serve(serve).port
    for uri, expected in (("/whole", size), ("/cut", 3)):
        async with asyncmg.connect(f"http://127.0.0.1:{port}") as conn:
            conn.send(f"GET {uri} HTTP/1.1\r\nHost: x\r\n\r\n")
            total = 0
            failure: Exception | None = None
            async for ev, data in conn:
                if ev == MG_EV_HTTP_HDRS:
                    try:
                        async for chunk in data.stream():
                            total += len(chunk)
                    except RemoteProtocolError as exc:
                        failure = exc
                    break
                assert ev != MG_EV_HTTP_MSG
            assert total == expected
            assert (failure is not None) == (uri == "/cut")


async def test_sync_handler_as_in_the_seeds(harness: Harness) -> None:
    done = asyncio.get_running_loop().create_future()

    def serve(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, data.header("Authorization") or "")

    def client(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_CONNECT:
            conn.send(b"GET /api/data HTTP/1.1\r\nHost: api.example.com\r\n")
            conn.http_basic_auth("user", "pass")
            conn.send(b"\r\n")
        elif ev == MG_EV_HTTP_MSG:
            done.set_result((data.status(), data.body_text))
            conn.close()

    port = harness.serve(serve).port
    harness.manager(client).connect(f"http://127.0.0.1:{port}", http=True)
    assert await soon(done) == (200, "Basic dXNlcjpwYXNz")


async def test_keep_alive_requests_one_after_the_other(harness: Harness) -> None:
    def serve(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, data.uri)

    port = harness.serve(serve).port
    async with asyncmg.connect(f"http://127.0.0.1:{port}") as conn:
        for n in range(5):
            conn.send(f"GET /{n} HTTP/1.1\r\nHost: x\r\n\r\n")
            async for ev, data in conn:
                if ev == MG_EV_HTTP_MSG:
                    assert data.body_text == f"/{n}"
                    break


async def test_upgrade_as_a_client(harness: Harness) -> None:
    def serve(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.http_upgrade(StreamProtocol)
            conn.send(b"first")
        elif ev == asyncmg.MG_EV_READ and isinstance(conn.protocol, StreamProtocol) and conn.recv_len:
            conn.send(conn.read().upper())

    port = harness.serve(serve).port
    got = b""
    async with asyncmg.connect(f"http://127.0.0.1:{port}") as conn:
        conn.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n")
        async for ev, data in conn:
            if ev == MG_EV_HTTP_MSG:
                assert data.status() == 101
                conn.http_upgrade(StreamProtocol)
                conn.send(b"hello")
            elif ev == asyncmg.MG_EV_READ and isinstance(conn.protocol, StreamProtocol):
                got += conn.read()
                if got.endswith(b"HELLO"):
                    break
    assert got == b"firstHELLO"
