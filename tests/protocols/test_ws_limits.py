"""WebSocket limits and time-outs: the right close code, bounded memory, a live server."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import pytest

from asyncmg import (
    MG_EV_CLOSE,
    MG_EV_ERROR,
    MG_EV_WS_CTL,
    MG_EV_WS_MSG,
    BufferLimits,
    ConnectFailed,
    Connection,
    ConnectionClosedOK,
    DeadlineExceeded,
    HandshakeFailed,
    LimitExceeded,
    Limits,
    WsLimits,
)
from asyncmg.codecs.ws_handshake import accept_value

from .conftest import Harness, RawPeer, eventually, soon
from .test_ws_server import Echo, open_peer
from .ws_peer import (
    WHOLE_BINARY,
    WHOLE_CLOSE,
    WHOLE_PING,
    WHOLE_PONG,
    WHOLE_TEXT,
    Frame,
    expect_close,
    masked,
    plain,
    read_frame,
    shake_hands,
)

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


def limits(**values: Any) -> Limits:
    return Limits(ws=WsLimits(**values))


async def test_decompression_bomb(harness: Harness) -> None:
    """wsproto makes one event of it all."""
    echo = Echo(compression=True)
    peer = await open_peer(harness, echo, DEFLATE)
    compressor = zlib.compressobj(9, wbits=-12)
    bomb = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(64)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < 1 << 20
    peer.send(masked(WHOLE_BINARY | 0x40, bomb))
    await expect_close(peer, 1009)
    assert not echo.messages
    [error] = echo.errors
    assert isinstance(error, LimitExceeded) and error.limit == "max_message=1048576" and error.actual == (1 << 20) + 1


async def test_decompression_bomb_in_fragments(harness: Harness) -> None:
    echo = Echo(compression=True, fragments=True)
    peer = await open_peer(harness, echo, DEFLATE, limits=limits(max_message=100_000))
    compressor = zlib.compressobj(9, wbits=-12)
    for i in range(20):
        piece = compressor.compress(bytes(10_000)) + compressor.flush(zlib.Z_SYNC_FLUSH)
        peer.send(masked(0x42 if i == 0 else 0, piece))
    await expect_close(peer, 1009)
    assert sum(len(message.data) for message in echo.messages) <= 100_000


async def test_control_frame_flood(harness: Harness) -> None:
    echo = Echo()
    peer = await open_peer(harness, echo, limits=limits(max_control_frames=10))
    peer.send(masked(WHOLE_PONG, b"") * 5 + masked(WHOLE_PING, b"") * 6)
    for _ in range(5):
        assert await read_frame(peer) == Frame(WHOLE_PONG, b"")
    await expect_close(peer, 1008)
    [error] = echo.errors
    assert isinstance(error, LimitExceeded) and error.limit == "max_control_frames=10"


async def test_pongs_do_not_pile_up_for_a_peer_that_reads_nothing(harness: Harness) -> None:
    """It gets the answer to its last ping (RFC 6455 section 5.5.3)."""
    echo = Echo()
    peer = await open_peer(harness, echo)
    [conn] = echo.conns
    conn.ws_send("x" * (8 << 20))
    await eventually(lambda: conn.protocol.output.is_paused)
    before = conn.send_len
    peer.send(b"".join(masked(WHOLE_PING, b"%d" % i) for i in range(500)))
    await eventually(lambda: echo.events.count(MG_EV_WS_CTL) == 500)
    assert conn.send_len <= before
    assert (await read_frame(peer)).flags == WHOLE_TEXT
    assert await read_frame(peer) == Frame(WHOLE_PONG, b"499")


async def test_keep_alive_pings(harness: Harness) -> None:
    echo = Echo()
    peer = await open_peer(harness, echo, limits=limits(ping_interval=0.02, ping_timeout=10))
    ping = await read_frame(peer)
    assert ping.flags == WHOLE_PING
    assert echo.conns[0].latency == 0.0
    peer.send(masked(WHOLE_PONG, ping.payload))
    await eventually(lambda: echo.conns[0].latency > 0)


async def test_more_than_one_keep_alive_ping(harness: Harness) -> None:
    echo = Echo()
    peer = await open_peer(harness, echo, limits=limits(ping_interval=0.02, ping_timeout=0.02))
    payloads = set()
    while len(payloads) < 3:
        ping = await read_frame(peer)
        peer.send(masked(WHOLE_PONG, ping.payload) * 2)
        if ping.flags != WHOLE_PING:
            return  # the machine has stopped for longer than the time-out
        payloads.add(ping.payload)


async def test_dead_peer(harness: Harness) -> None:
    echo = Echo()
    peer = await open_peer(harness, echo, limits=limits(ping_interval=0.02, ping_timeout=0.05))
    await expect_close(peer, 1011)
    await eventually(lambda: MG_EV_CLOSE in echo.events)
    [error] = echo.errors
    assert isinstance(error, DeadlineExceeded) and error.limit == "ping_timeout"


async def test_no_pings_when_they_are_off(harness: Harness) -> None:
    echo = Echo()
    peer = await open_peer(harness, echo, limits=limits(ping_interval=0, ping_timeout=0.01))
    await asyncio.sleep(0.1)
    peer.send(masked(WHOLE_TEXT, b"x"))
    assert await read_frame(peer) == Frame(WHOLE_TEXT, b"x")


async def test_late_close(harness: Harness) -> None:
    echo = Echo()
    peer = await open_peer(harness, echo, limits=limits(close_timeout=0.05))
    echo.conns[0].ws_close()
    assert (await read_frame(peer)).flags == WHOLE_CLOSE
    await eventually(lambda: MG_EV_CLOSE in echo.events)
    [error] = echo.errors
    assert isinstance(error, DeadlineExceeded) and error.limit == "close_timeout"


async def test_client_does_not_wait_for_ever_for_the_end(harness: Harness) -> None:
    """A server that has answered the close frame, but does not close its TCP connection (RFC 6455 section 7.1.1)."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        [key] = [line[19:] for line in head.split("\r\n") if line.startswith("Sec-WebSocket-Key: ")]
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_value(key).encode() + b"\r\n\r\n"
        )
        assert (await read_frame(RawPeer(reader, writer))).flags == WHOLE_CLOSE
        writer.write(plain(WHOLE_CLOSE, b"\x03\xe8"))
        await reader.read()
        gone.set()
        writer.close()

    gone = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    events: list[int] = []
    manager = harness.manager(lambda conn, ev, data: events.append(ev), limits=limits(close_timeout=1))
    conn = manager.ws_connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    await soon(conn.connected())
    conn.ws_close()
    await eventually(lambda: MG_EV_CLOSE in events)
    assert MG_EV_ERROR not in events and isinstance(conn.protocol.closed(), ConnectionClosedOK)
    await soon(gone.wait())
    server.close()


async def test_client_refuses_a_wrong_answer(harness: Harness) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        # The key is not ours to know: this answer is wrong, and refused.
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    manager = harness.manager(lambda *args: None)
    with pytest.raises(HandshakeFailed) as caught:
        async with manager.ws_connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"):
            pass
    assert caught.value.status == 101
    server.close()


async def test_late_handshake(harness: Harness) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    events: list[Any] = []
    manager = harness.manager(lambda conn, ev, data: events.append((ev, data)), limits=limits(handshake_timeout=0.05))
    with pytest.raises(ConnectFailed):
        async with manager.ws_connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"):
            pass
    [error] = [data for ev, data in events if ev == MG_EV_ERROR]
    assert isinstance(error, DeadlineExceeded) and error.limit == "handshake_timeout"
    server.close()


async def test_slow_handler_slows_the_peer_down(harness: Harness) -> None:
    """What is queued is bounded: reading stops."""
    go_on = asyncio.Event()
    count = 0

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        nonlocal count
        if ev == MG_EV_WS_MSG:
            await go_on.wait()
            count += 1
        elif ev == 11:
            conn.ws_upgrade(data)

    manager = harness.manager(handler, limits=Limits(buffers=BufferLimits(max_queued_events=8)))
    listener = manager.listen("http://127.0.0.1:0")
    peer = await harness.peer(listener.port)  # type: ignore[union-attr]
    await shake_hands(peer)
    frame = masked(WHOLE_BINARY, b"x" * 4000)
    for _ in range(5000):
        peer.send(frame)
    [conn] = [conn for conn in manager.connections if conn.is_websocket]
    await eventually(lambda: conn.is_full)
    queued = len(conn._queue._events)  # type: ignore[union-attr]
    assert queued < 300
    go_on.set()
    await eventually(lambda: count == 5000)


async def test_a_thousand_tiny_fragments(harness: Harness) -> None:
    echo = Echo()
    peer = await open_peer(harness, echo)
    peer.send(masked(1, b"x") + masked(0, b"x") * 5000 + masked(0x80, b"x"))
    assert await read_frame(peer) == Frame(WHOLE_TEXT, b"x" * 5002)
