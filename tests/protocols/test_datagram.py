"""DatagramProtocol: UDP listeners and clients."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest

from asyncmg import (
    MG_EV_CLOSE,
    MG_EV_CONNECT,
    MG_EV_ERROR,
    MG_EV_OPEN,
    MG_EV_READ,
    MG_EV_RESOLVE,
    MG_EV_WRITE,
    BufferLimits,
    Connection,
    ConnectionClosed,
    Limits,
)

from .conftest import Harness, eventually, soon

UDP = "udp://127.0.0.1:0"


class UdpPeer(asyncio.DatagramProtocol):
    """A peer that keeps the datagrams it gets."""

    def __init__(self) -> None:
        self.received: list[bytes] = []

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append(data)


async def open_peer(port: int, host: str = "127.0.0.1") -> tuple[asyncio.DatagramTransport, UdpPeer]:
    loop = asyncio.get_running_loop()
    return await loop.create_datagram_endpoint(UdpPeer, remote_addr=(host, port))


def listen(harness: Harness, handler: Any, url: str = UDP, **kwargs: Any) -> tuple[Connection, int]:
    conn = harness.manager(handler, **kwargs).listen(url)
    assert conn.local_addr is not None
    return conn, conn.local_addr.port


def answer(conn: Connection, ev: int, data: Any) -> None:
    if ev == MG_EV_READ:
        assert data == conn.recv_len
        assert conn.remote_addr is not None
        peeked = conn.recv_data()
        conn.send(b"%d " % conn.remote_addr.port + conn.read())
        assert peeked and conn.recv_len == 0


async def answer_async(conn: Connection, ev: int, data: Any) -> None:
    if ev == MG_EV_READ:
        await asyncio.sleep(0.001)  # others arrive meanwhile
        answer(conn, ev, data)


async def answer_session(conn: Connection) -> None:
    async for ev, data in conn:
        await answer_async(conn, ev, data)


@pytest.mark.parametrize("handler", [answer, answer_async, answer_session])
async def test_each_read_belongs_to_its_datagram_and_sender(harness: Harness, handler: Any) -> None:
    _, port = listen(harness, handler)
    peers = [await open_peer(port) for _ in range(4)]
    for turn in range(5):
        for n, (transport, _) in enumerate(peers):
            transport.sendto(b"%d-%d" % (n, turn))
    for n, (transport, peer) in enumerate(peers):
        await eventually(lambda peer=peer: len(peer.received) == 5)
        own = transport.get_extra_info("sockname")[1]
        assert peer.received == [b"%d %d-%d" % (own, n, turn) for turn in range(5)]
        transport.close()
    assert harness.errors == []


async def test_events_and_properties_of_a_listener(harness: Harness) -> None:
    seen: list[tuple[int, Any]] = []
    conn, port = listen(harness, lambda conn, ev, data: seen.append((ev, data)))
    assert conn.is_udp and conn.is_listening and not conn.is_client and not conn.is_tls
    assert conn.local_addr == ("127.0.0.1", port) and conn.remote_addr is None
    with pytest.raises(ConnectionClosed):
        conn.send(b"to nobody")
    transport, peer = await open_peer(port)
    transport.sendto(b"abc")
    await eventually(lambda: (MG_EV_READ, 3) in seen)
    conn.send(b"answer")
    await eventually(lambda: peer.received == [b"answer"])
    conn.close()
    await eventually(lambda: (MG_EV_CLOSE, None) in seen)
    assert seen == [(MG_EV_OPEN, None), (MG_EV_READ, 3), (MG_EV_WRITE, 6), (MG_EV_CLOSE, None)]
    assert conn.is_closing and conn.local_addr is None and conn.remote_addr is None
    with pytest.raises(ConnectionClosed):
        conn.send(b"x")
    transport.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", port))  # the port is free


async def test_a_datagram_that_is_not_read_does_not_stay(harness: Harness) -> None:
    seen: list[bytes] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_READ:
            seen.append(conn.recv_data())

    conn, port = listen(harness, handler)
    transport, _ = await open_peer(port)
    transport.sendto(b"one")
    transport.sendto(b"two")
    await eventually(lambda: seen == [b"one", b"two"])
    await eventually(lambda: conn.recv_len == 0)
    transport.close()


async def test_read_of_a_part_forgets_the_rest(harness: Harness) -> None:
    seen: list[bytes] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_READ:
            seen.extend((conn.recv_data(2), conn.read(3), conn.read()))

    _, port = listen(harness, handler)
    transport, _ = await open_peer(port)
    transport.sendto(b"abcdef")
    await eventually(lambda: len(seen) == 3)
    assert seen == [b"ab", b"abc", b""]
    transport.close()


async def test_a_burst_over_the_limit_is_dropped_and_counted(harness: Harness) -> None:
    gate = asyncio.Event()
    seen: list[bytes] = []

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_READ:
            seen.append(conn.read())
            await gate.wait()

    limits = Limits(buffers=BufferLimits(max_datagrams=4))
    conn, port = listen(harness, handler, limits=limits)
    transport, _ = await open_peer(port)
    transport.sendto(b"0")
    await eventually(lambda: seen)
    for n in range(1, 10):
        transport.sendto(b"%d" % n)
    await eventually(lambda: conn.protocol.dropped == 5)
    gate.set()
    await eventually(lambda: len(seen) == 5)
    assert seen == [b"0", b"1", b"2", b"3", b"4"], "the oldest are kept, in order"
    transport.sendto(b"after")
    await eventually(lambda: seen[-1] == b"after")
    transport.close()


async def test_client(harness: Harness) -> None:
    seen: list[tuple[int, Any]] = []
    got: list[bytes] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        seen.append((ev, data))
        if ev == MG_EV_READ:
            got.append(conn.read())

    _, port = listen(harness, lambda conn, ev, data: conn.send(conn.read()) if ev == MG_EV_READ else None)
    conn = harness.manager(handler).connect(f"udp://127.0.0.1:{port}")
    assert conn.is_udp and conn.is_client and not conn.is_listening
    conn.send(b"early")  # before the socket is open
    await soon(conn.connected())
    assert conn.remote_addr == ("127.0.0.1", port)
    conn.send(b"later")
    await soon(conn.flush())
    await eventually(lambda: got == [b"early", b"later"])
    conn.drain()
    await eventually(lambda: seen[-1][0] == MG_EV_CLOSE)
    events = [ev for ev, _ in seen]
    assert events[:4] == [MG_EV_OPEN, MG_EV_RESOLVE, MG_EV_CONNECT, MG_EV_WRITE] and events[-1] == MG_EV_CLOSE
    assert sorted(events[4:-1]) == [MG_EV_READ, MG_EV_READ, MG_EV_WRITE]


async def test_client_as_an_iterator(harness: Harness) -> None:
    _, port = listen(harness, answer)
    async with asyncio.timeout(5), harness.manager().connect(f"udp://127.0.0.1:{port}") as conn:
        for word in (b"a", b"b"):
            conn.send(word)
        words = []
        async for ev, _ in conn:
            if ev == MG_EV_READ:
                words.append(conn.read().split()[1])
                if len(words) == 2:
                    break
    assert words == [b"a", b"b"]


async def test_a_closed_port_is_an_error_then_the_end(harness: Harness) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    seen: list[tuple[int, Any]] = []
    conn = harness.manager(lambda conn, ev, data: seen.append((ev, data))).connect(f"udp://127.0.0.1:{port}")
    await soon(conn.connected())
    conn.send(b"anybody?")
    await eventually(lambda: seen[-1][0] == MG_EV_CLOSE)
    assert [ev for ev, _ in seen[-2:]] == [MG_EV_ERROR, MG_EV_CLOSE]
    assert isinstance(seen[-2][1], ConnectionClosed) and isinstance(seen[-2][1].__cause__, ConnectionRefusedError)


async def test_a_listener_survives_a_peer_that_is_gone(harness: Harness) -> None:
    seen: list[int] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        seen.append(ev)
        if ev == MG_EV_READ:
            for _ in range(3):
                conn.send(conn.recv_data())

    conn, port = listen(harness, handler)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.sendto(b"x", ("127.0.0.1", port))
    await eventually(lambda: MG_EV_READ in seen)
    transport, peer = await open_peer(port)
    transport.sendto(b"here")
    await eventually(lambda: len(peer.received) == 3)
    assert MG_EV_ERROR not in seen and not conn.is_closing
    transport.close()


async def test_empty_datagrams_are_datagrams(harness: Harness) -> None:
    seen: list[Any] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_READ:
            seen.append(data)
            conn.send(b"")

    _, port = listen(harness, handler)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.setblocking(False)
        peer.connect(("127.0.0.1", port))
        peer.send(b"")
        await eventually(lambda: seen == [0])
        loop = asyncio.get_running_loop()
        assert await asyncio.wait_for(loop.sock_recv(peer, 10), 2) == b"", "the empty answer was sent"


async def test_large_datagrams_stay_whole(harness: Harness) -> None:
    _, port = listen(harness, lambda conn, ev, data: conn.send(conn.read()) if ev == MG_EV_READ else None)
    transport, peer = await open_peer(port)
    data = os.urandom(60 << 10)
    transport.sendto(data)
    await eventually(lambda: peer.received == [data])
    transport.close()


async def test_a_datagram_too_large_for_udp_does_not_vanish_silently(harness: Harness) -> None:
    seen: list[tuple[int, Any]] = []
    conn = harness.manager(lambda conn, ev, data: seen.append((ev, data))).connect("udp://127.0.0.1:9")
    await soon(conn.connected())
    conn.send(bytes(70_000))
    await eventually(lambda: any(ev == MG_EV_ERROR for ev, _ in seen))


async def test_ipv6(harness: Harness) -> None:
    _, port = listen(harness, answer, "udp://[::1]:0")
    transport, peer = await open_peer(port, "::1")
    transport.sendto(b"six")
    own = transport.get_extra_info("sockname")[1]
    await eventually(lambda: peer.received == [b"%d six" % own])
    transport.close()


@pytest.mark.parametrize("end", ["close", "drain"])
async def test_a_listener_closed_at_once_ends_once(harness: Harness, end: str) -> None:
    seen: list[int] = []
    manager = harness.manager(lambda conn, ev, data: seen.append(ev))
    conn = manager.listen(UDP)
    assert conn.local_addr is not None
    port = conn.local_addr.port
    getattr(conn, end)()
    await soon(manager.shutdown(0))
    assert seen == [MG_EV_OPEN, MG_EV_CLOSE]
    await asyncio.sleep(0.02)
    assert seen == [MG_EV_OPEN, MG_EV_CLOSE]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", port))


async def test_a_client_closed_at_once_ends_once(harness: Harness) -> None:
    seen: list[int] = []
    conn = harness.manager(lambda conn, ev, data: seen.append(ev)).connect("udp://127.0.0.1:9")
    conn.close()
    await eventually(lambda: MG_EV_CLOSE in seen)
    await asyncio.sleep(0.02)
    assert seen == [MG_EV_OPEN, MG_EV_CLOSE]


async def test_a_manager_closed_at_once_frees_the_socket(harness: Harness) -> None:
    manager = harness.manager(lambda *_: None)
    conn = manager.listen(UDP)
    assert conn.local_addr is not None
    port = conn.local_addr.port
    manager.close()
    await asyncio.sleep(0.02)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", port))


async def test_close_within_a_datagram_drops_the_waiting_ones(harness: Harness) -> None:
    seen: list[int] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        seen.append(ev)
        if ev == MG_EV_READ:
            conn.close()

    _, port = listen(harness, handler)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for _ in range(3):
            peer.sendto(b"x", ("127.0.0.1", port))
    await eventually(lambda: MG_EV_CLOSE in seen)
    assert seen == [MG_EV_OPEN, MG_EV_READ, MG_EV_CLOSE]
