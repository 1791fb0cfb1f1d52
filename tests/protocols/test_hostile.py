"""What a review by hostile eyes found: each of these once went wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import trustme

from asyncmg import (
    MG_EV_CLOSE,
    MG_EV_ERROR,
    MG_EV_HTTP_HDRS,
    MG_EV_HTTP_MSG,
    BufferLimits,
    Connection,
    Limits,
    StreamProtocol,
    TlsOpts,
)

from .conftest import Harness, eventually, soon

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_pipelining_without_reading_does_not_fill_the_memory(harness: Harness) -> None:
    conns: list[Connection] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conns.append(conn)
            conn.reply(200, bytes(1 << 20))

    peer = await harness.peer(harness.serve(handler).port, limit=1)
    peer.send(GET * 100)
    await eventually(lambda: conns and conns[0].send_len > 0)
    before = -1
    while len(conns) != before:
        before = len(conns)
        await asyncio.sleep(0.02)
    assert len(conns) < 30 and conns[0].send_len < 4 << 20
    total = 0
    while total < 100 << 20:  # and once the peer reads, everything comes
        chunk = await soon(peer.reader.read(1 << 20))
        assert chunk
        total += len(chunk)
    assert len(conns) == 100


async def test_no_plaintext_while_an_async_handler_sets_up_tls(harness: Harness) -> None:
    seen: list[int] = []

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        seen.append(ev)
        await asyncio.sleep(0.01)
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, b"secret")

    certificate = trustme.CA().issue_cert("127.0.0.1")
    tls = TlsOpts(
        cert=b"".join(blob.bytes() for blob in certificate.cert_chain_pems), key=certificate.private_key_pem.bytes()
    )
    listener = harness.serve(handler, "https://127.0.0.1:0", tls=tls)
    reply = await harness.ask(listener.port, GET)
    assert b"HTTP/1.1" not in reply
    await eventually(lambda: MG_EV_CLOSE in seen)
    assert MG_EV_HTTP_HDRS not in seen and MG_EV_ERROR in seen


@pytest.mark.parametrize("kind", ["async", "session"])
async def test_something_cancelled_inside_a_handler_is_its_error(harness: Harness, kind: str) -> None:
    async def fail() -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            await fail()

    async def session(conn: Connection) -> None:
        async for ev, data in conn:
            await handler(conn, ev, data)

    peer = await harness.peer(harness.serve(handler if kind == "async" else session).port)
    peer.send(GET)
    assert (await peer.read_reply())[0] == 500
    assert len(harness.errors) == 1


async def test_reply_json_does_not_split_headers(harness: Harness) -> None:
    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.reply_json([1], headers="X: a\x85Set-Cookie: evil=1\r\nContent-Type: text/evil")

    peer = await harness.peer(harness.serve(handler).port)
    peer.send(GET)
    _, fields, body = await peer.read_reply()
    assert "set-cookie" not in fields and fields["content-type"] == "application/json" and body == b"[1]"


async def test_a_file_that_grows_is_sent_as_announced(harness: Harness, tmp_path: Any) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(bytes(4 << 20))

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.serve_file(data, path)

    peer = await harness.peer(harness.serve(handler).port, limit=1 << 16)
    peer.send(GET)
    await peer.read_until(b"\r\n\r\n")
    with path.open("ab") as file:
        file.write(b"x" * 100_000)
    assert await peer.read_exactly(4 << 20) == bytes(4 << 20)
    peer.send(GET)
    assert (await peer.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200"), "nothing of the rest is left over"


async def test_a_tunnel_of_connect_is_handed_over(harness: Harness) -> None:
    async def proxy(conn: Connection) -> None:
        async for ev, _ in conn:
            if ev == 7 and conn.read():
                conn.send(b"HTTP/1.1 200 OK\r\n\r\ntunnel")

    port = harness.serve(proxy, "tcp://127.0.0.1:0").port
    manager = harness.manager()
    got = b""

    async def tunnel() -> None:
        nonlocal got
        async with manager.connect(f"http://127.0.0.1:{port}") as conn:
            conn.send(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
            async for ev, _ in conn:
                if ev == MG_EV_HTTP_MSG:
                    conn.http_upgrade(StreamProtocol)
                elif isinstance(conn.protocol, StreamProtocol):
                    got += conn.read()
                    if got:
                        return

    await soon(tunnel())
    assert got == b"tunnel"


async def test_a_stalled_peer_is_found_while_the_program_keeps_sending(harness: Harness) -> None:
    ended = asyncio.Event()

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, "", {"Transfer-Encoding": "chunked"})
            manager = harness._managers[0]
            manager.timer_add(5, lambda: conn.is_closing or conn.http_chunk(bytes(50_000)), repeat=True)
        elif ev == MG_EV_CLOSE:
            ended.set()

    limits = Limits(buffers=BufferLimits(stall_timeout=0.3, rate_grace=0.1, max_send_buffer=1 << 30))
    peer = await harness.peer(harness.serve(handler, limits=limits).port, limit=1)
    peer.send(GET)
    await soon(ended.wait())
