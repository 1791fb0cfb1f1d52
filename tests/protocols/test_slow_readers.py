"""Peers that take their time: no reply is cut, whatever the server does meanwhile."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

from asyncmg import MG_EV_HTTP_MSG, Connection, HttpLimits, Limits, Listener, NetLimits

from .conftest import TIMEOUT, Harness, eventually, soon

GET = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"
BIG = b"x" * (8 << 20)


def slow_peer(port: int) -> socket.socket:
    """A socket that holds little."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    peer.connect(("127.0.0.1", port))
    peer.setblocking(False)
    return peer


async def read_all(peer: socket.socket) -> bytes:
    data = bytearray()
    async with asyncio.timeout(TIMEOUT):
        while piece := await asyncio.get_running_loop().sock_recv(peer, 1 << 18):
            data += piece
    return bytes(data)


def handler(conn: Connection, ev: int, data: Any) -> None:
    if ev == MG_EV_HTTP_MSG:
        conn.reply(200, BIG if data.uri == "/big" else b"ok")


async def test_a_graceful_stop_lets_the_last_reply_be_taken(harness: Harness) -> None:
    loop = asyncio.get_running_loop()
    manager = harness.manager(handler)
    listener = manager.listen("http://127.0.0.1:0")
    assert isinstance(listener, Listener)
    with slow_peer(listener.port) as peer:
        await loop.sock_sendall(peer, GET % b"/big")
        await eventually(lambda: any(conn.send_len for conn in manager.connections))
        await loop.sock_sendall(peer, GET % b"/next" * 2)
        stopping = asyncio.create_task(manager.shutdown(TIMEOUT))
        await asyncio.sleep(0.05)
        assert BIG in await read_all(peer)
        await soon(stopping)


async def test_the_idle_deadline_waits_for_the_reader(harness: Harness) -> None:
    loop = asyncio.get_running_loop()
    listener = harness.serve(handler, limits=Limits(http=HttpLimits(keepalive_timeout=1.0)))
    with slow_peer(listener.port) as peer:
        await loop.sock_sendall(peer, GET % b"/")
        await soon(loop.sock_recv(peer, 4096))
        await loop.sock_sendall(peer, GET % b"/big")
        await asyncio.sleep(1.5)
        received = bytearray()
        while not received.endswith(BIG[:1000]) or len(received) < len(BIG):
            piece = await soon(loop.sock_recv(peer, 1 << 18))
            assert piece, "closed in the middle of the reply"
            received += piece
        await loop.sock_sendall(peer, GET % b"/")
        assert (await soon(loop.sock_recv(peer, 4096))).startswith(b"HTTP/1.1 200")


async def test_news_of_a_backlog_may_be_older_than_the_backlog(harness: Harness) -> None:
    """A reader catches up in the same turn in which another connection's handler sends it more than it can take."""
    loop = asyncio.get_running_loop()
    conns: dict[str, Connection] = {}

    def serve(conn: Connection, ev: int, data: Any) -> None:
        if ev != MG_EV_HTTP_MSG:
            return
        conns[data.uri] = conn
        if data.uri == "/slow":
            conn.reply(200, b"", {"Transfer-Encoding": "chunked"})
            return
        slow = conns["/slow"]
        slow.http_chunk(BIG)
        slow.http_chunk(b"")
        slow.protocol.output.flush()
        slow.drain()
        conn.reply(200, "ok")

    limits = Limits(net=NetLimits(linger_idle_timeout=0.5))
    listener = harness.serve(serve, limits=limits)
    with slow_peer(listener.port) as slow, slow_peer(listener.port) as other:
        await loop.sock_sendall(slow, GET % b"/slow")
        await eventually(lambda: "/slow" in conns)
        conn = conns["/slow"]
        while conn.send_len < 80_000 or not conn.protocol.output.is_paused:
            conn.http_chunk(b"y" * 32768)
            conn.protocol.output.flush()
            await asyncio.sleep(0.002)
        other.send(GET % b"/go")
        received = bytearray()
        end = time.monotonic() + 0.3
        while time.monotonic() < end:  # the server's loop stands still: both have news for it then
            try:
                received += slow.recv(1 << 20)
            except BlockingIOError:
                time.sleep(0.005)
        await asyncio.sleep(1.0)
        received += await read_all(slow)
    assert received.endswith(b"\r\n0\r\n\r\n") and received.count(b"x") >= len(BIG)


async def test_a_raw_reply_leaves_the_one_before_alone(harness: Harness) -> None:
    def serve(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG and data.uri == "/plain":
            conn.reply(200, "one")
        elif ev == MG_EV_HTTP_MSG:
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo")
            conn.drain()

    chunked = b"POST /plain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    raw = await harness.ask(harness.serve(serve).port, chunked + GET % b"/raw")
    assert raw.endswith(b"two") and b"Connection" not in raw


async def test_listeners_share_the_places(harness: Harness) -> None:
    manager = harness.manager(lambda *_: None, limits=Limits(net=NetLimits(max_connections=6)))
    listeners = [manager.listen("tcp://127.0.0.1:0") for _ in range(3)]
    for listener in listeners:
        assert isinstance(listener, Listener)
        for _ in range(6):
            await harness.peer(listener.port)
    accepted = lambda: sum(not conn.is_listening for conn in manager.connections)  # noqa: E731
    await eventually(lambda: accepted() >= 6)
    await asyncio.sleep(0.1)
    assert accepted() <= 6 + 2, "one at the door of each other listener, no more"
