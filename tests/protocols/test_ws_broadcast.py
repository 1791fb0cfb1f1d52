"""broadcast: one message to many connections, and what becomes of slow ones."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asyncmg import (
    MG_EV_HTTP_MSG,
    MG_EV_WRITE,
    MG_EV_WS_MSG,
    MG_EV_WS_OPEN,
    BufferLimits,
    Connection,
    Limits,
    Manager,
    TlsOpts,
    WsLimits,
    broadcast,
    ws_connect,
    ws_serve,
)

from .conftest import Harness, RawPeer, eventually, soon
from .ws_peer import WHOLE_BINARY, WHOLE_CLOSE, WHOLE_TEXT, Frame, masked, read_frame, shake_hands

LIMITS = Limits(buffers=BufferLimits(stall_timeout=60), ws=WsLimits(max_held=4))


class Room:
    """Everybody who has connected."""

    def __init__(self, harness: Harness, limits: Limits = LIMITS, **options: Any) -> None:
        self.conns: list[Connection] = []
        self.writes: list[int] = []
        self._harness = harness
        self._listener = harness.serve(self, limits=limits, **options)

    def __call__(self, conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.ws_upgrade(data)
        elif ev == MG_EV_WS_OPEN:
            self.conns.append(conn)
        elif ev == MG_EV_WRITE:
            self.writes.append(data)

    async def enter(self, count: int) -> list[RawPeer]:
        peers = []
        for _ in range(count):
            peer = await self._harness.peer(self._listener.port)
            await shake_hands(peer)
            peers.append(peer)
        await eventually(lambda: len(self.conns) >= count)
        return peers


async def stuff(conn: Connection) -> None:
    """Send until the peer, which does not read, is behind."""
    while not conn.protocol.output.is_paused:
        conn.ws_send(b"x" * 1_000_000, 2)
        await conn.protocol.loop.run_in_executor(None, lambda: None)  # a turn of the loop, whichever it is


async def unstuff(peer: RawPeer) -> Frame:
    """Read past what ``stuff`` has sent."""
    while len((frame := await read_frame(peer)).payload) == 1_000_000:
        pass
    return frame


async def test_everybody_gets_it(harness: Harness) -> None:
    room = Room(harness)
    peers = await room.enter(5)
    room.writes.clear()
    assert broadcast(room.conns, "hello") == 5
    assert broadcast(room.conns, b"\x00\xff") == 5
    assert broadcast(iter(room.conns), b"text", 1) == 5
    for peer in peers:
        assert await read_frame(peer) == Frame(WHOLE_TEXT, b"hello")
        assert await read_frame(peer) == Frame(WHOLE_BINARY, b"\x00\xff")
        assert await read_frame(peer) == Frame(WHOLE_TEXT, b"text")
    assert sum(room.writes) == 5 * (7 + 4 + 6)
    assert broadcast([], "nobody") == 0


async def test_order_with_other_messages(harness: Harness) -> None:
    room = Room(harness)
    [peer] = await room.enter(1)
    [conn] = room.conns
    conn.ws_send("1")
    broadcast([conn], "2")
    conn.ws_send("3")
    broadcast([conn], "4")
    assert [(await read_frame(peer)).payload for _ in range(4)] == [b"1", b"2", b"3", b"4"]


async def test_not_to_those_who_are_gone(harness: Harness) -> None:
    room = Room(harness)
    first, second, third = await room.enter(3)
    room.conns[0].close()
    room.conns[1].ws_close()
    assert broadcast(room.conns, "x") == 1
    assert await read_frame(third) == Frame(WHOLE_TEXT, b"x")
    assert (await read_frame(second)).flags == WHOLE_CLOSE
    assert (await read_frame(first)).flags == WHOLE_CLOSE
    await eventually(lambda: room.conns[0].is_ended)
    assert broadcast(room.conns, "x") == 1


async def test_wrong_arguments(harness: Harness) -> None:
    room = Room(harness)
    await room.enter(1)
    for args, kwargs in [(("x", 9), {}), ((b"\xff", 1), {}), (("x",), {"policy": "hope"})]:
        with pytest.raises(ValueError):
            broadcast(room.conns, *args, **kwargs)
    with pytest.raises(TypeError):
        broadcast(room.conns, 7)  # type: ignore[arg-type]


async def test_a_slow_one_loses_the_oldest(harness: Harness) -> None:
    room = Room(harness)
    slow, quick = await room.enter(2)
    await stuff(room.conns[0])
    for i in range(10):
        assert broadcast(room.conns, str(i)) == 2
    assert [(await read_frame(quick)).payload for _ in range(10)] == [b"%d" % i for i in range(10)]
    assert [conn.protocol.sender.dropped for conn in room.conns] == [6, 0]
    assert (await unstuff(slow)).payload == b"6"
    assert [(await read_frame(slow)).payload for _ in range(3)] == [b"7", b"8", b"9"]
    broadcast(room.conns, "caught up")
    assert (await read_frame(slow)).payload == b"caught up"


async def test_a_slow_one_loses_the_newest(harness: Harness) -> None:
    room = Room(harness)
    slow, _ = await room.enter(2)
    await stuff(room.conns[0])
    for i in range(10):
        broadcast(room.conns, str(i), policy="drop_newest")
    assert room.conns[0].protocol.sender.dropped == 6
    assert (await unstuff(slow)).payload == b"0"
    assert [(await read_frame(slow)).payload for _ in range(3)] == [b"1", b"2", b"3"]


async def test_a_slow_one_is_closed(harness: Harness) -> None:
    room = Room(harness)
    slow, quick = await room.enter(2)
    await stuff(room.conns[0])
    assert [broadcast(room.conns, str(i), policy="close") for i in range(6)] == [2, 2, 2, 2, 1, 1]
    assert (await unstuff(slow)).payload == b"0"
    assert [(await read_frame(slow)).payload for _ in range(3)] == [b"1", b"2", b"3"]
    assert await read_frame(slow) == Frame(WHOLE_CLOSE, b"\x03\xf5too slow")
    assert [(await read_frame(quick)).payload for _ in range(6)] == [b"%d" % i for i in range(6)]


async def test_what_is_held_goes_before_what_is_sent(harness: Harness) -> None:
    room = Room(harness)
    [slow] = await room.enter(1)
    [conn] = room.conns
    await stuff(conn)
    broadcast([conn], "held")
    conn.ws_send("sent")
    assert (await unstuff(slow)).payload == b"held"
    assert (await read_frame(slow)).payload == b"sent"


async def test_not_into_a_fragmented_message(harness: Harness) -> None:
    room = Room(harness)
    [peer] = await room.enter(1)
    [conn] = room.conns
    conn.protocol.send_fragment(b"a", 1, is_last=False)
    broadcast([conn], "behind")
    conn.protocol.send_fragment(b"b", 1, is_last=True)
    assert [await read_frame(peer) for _ in range(3)] == [
        Frame(1, b"a"),
        Frame(0x80, b"b"),
        Frame(WHOLE_TEXT, b"behind"),
    ]


async def test_in_a_handler(harness: Harness) -> None:
    """The output of a turn that is being collected, and a broadcast to oneself."""
    conns: list[Connection] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.ws_upgrade(data)
            conns.append(conn)
        elif ev == MG_EV_WS_MSG:
            conn.ws_send("to you")
            broadcast(conns, "to all")
            conn.ws_send("to you again")

    listener = harness.serve(handler)
    first, second = await harness.peer(listener.port), await harness.peer(listener.port)
    await shake_hands(first)
    await shake_hands(second)
    first.send(masked(WHOLE_TEXT, b"x"))
    assert [(await read_frame(first)).payload for _ in range(3)] == [b"to you", b"to all", b"to you again"]
    assert (await read_frame(second)).payload == b"to all"


async def test_clients_mask(harness: Harness) -> None:
    got: list[Any] = []

    async def handler(ws: Any) -> None:
        got.extend([message async for message in ws])

    async with ws_serve(handler, "127.0.0.1", 0) as server:
        address = f"ws://127.0.0.1:{server.port}"
        async with ws_connect(address) as first, ws_connect(address) as second:
            assert broadcast([first, second], "x" * 1000) == 2
    assert got == ["x" * 1000] * 2


async def test_over_tls(harness: Harness) -> None:
    import trustme

    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    opts = TlsOpts(cert=certificate.cert_chain_pems[0].bytes(), key=certificate.private_key_pem.bytes())
    conns: list[Connection] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.ws_upgrade(data)
            conns.append(conn)

    listener = harness.serve(handler, "wss://127.0.0.1:0", tls=opts)
    address = f"wss://localhost:{listener.port}"
    async with ws_connect(address, tls=TlsOpts(ca=authority.cert_pem.bytes())) as ws:
        assert broadcast(conns, "secret") == 1
        assert await soon(ws.recv()) == "secret"


async def test_two_managers(harness: Harness) -> None:
    rooms = [Room(harness), Room(harness)]
    peers = [(await room.enter(2)) for room in rooms]
    conns = [rooms[0].conns[0], rooms[1].conns[0], rooms[0].conns[1], rooms[1].conns[1]]
    assert broadcast(conns, "x") == 4
    for peer in [*peers[0], *peers[1]]:
        assert await read_frame(peer) == Frame(WHOLE_TEXT, b"x")


async def test_one_slow_client_stalls_nobody(harness: Harness) -> None:
    """A thousand large messages: the slow one costs a bounded amount of memory, the others miss none."""
    room = Room(harness)
    _, quick = await room.enter(2)
    payload = b"y" * 50_000
    reading = asyncio.ensure_future(_read(quick, 1000))
    for _ in range(1000):
        broadcast(room.conns, payload)
        await room.conns[1].flush()
    assert await soon(reading) == 1000
    sender = room.conns[0].protocol.sender
    assert sender.dropped > 500
    assert room.conns[1].protocol.sender.dropped == 0
    assert isinstance(room.conns[0]._owner, Manager)
    assert room.conns[0].send_len < 16 << 20


async def _read(peer: RawPeer, count: int) -> int:
    for _ in range(count):
        await read_frame(peer)
    return count
