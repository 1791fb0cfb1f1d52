"""StreamProtocol: raw TCP, its flow control in both directions, and its ends."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest

from asyncmg import (
    MG_EV_ACCEPT,
    MG_EV_CLOSE,
    MG_EV_CONNECT,
    MG_EV_ERROR,
    MG_EV_OPEN,
    MG_EV_READ,
    MG_EV_RESOLVE,
    MG_EV_WAKEUP,
    MG_EV_WRITE,
    BufferLimits,
    Connection,
    ConnectionClosed,
    DeadlineExceeded,
    LimitExceeded,
    Limits,
)

from .conftest import Harness, RawPeer, eventually, soon

TCP = "tcp://127.0.0.1:0"


class Recorder:
    """A plain handler that keeps what the accepted connections tell."""

    def __init__(self) -> None:
        self.events: list[tuple[int, Any]] = []
        self.conns: list[Connection] = []

    def __call__(self, conn: Connection, ev: int, data: Any) -> None:
        if conn.is_listening:
            return
        if conn not in self.conns:
            self.conns.append(conn)
        self.events.append((ev, data))

    @property
    def names(self) -> list[int]:
        return [ev for ev, _ in self.events]

    def error(self) -> Any:
        return next(data for ev, data in self.events if ev == MG_EV_ERROR)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def accepted(harness: Harness, limits: Limits | None = None) -> tuple[Recorder, Connection, RawPeer]:
    """Connect a raw peer to a listener that does nothing by itself."""
    recorder = Recorder()
    listener = harness.serve(recorder, TCP, limits=limits)
    peer = await harness.peer(listener.port)
    await eventually(lambda: MG_EV_ACCEPT in recorder.names)
    return recorder, recorder.conns[0], peer


async def send_until_stuck(conn: Connection, chunk: bytes = bytes(1 << 16)) -> int:
    """Send until flush() has to wait, which a peer that does not read makes it do; return the number of bytes."""
    sent = 0
    while True:
        conn.send(chunk)
        sent += len(chunk)
        try:
            await asyncio.wait_for(conn.flush(), 0.1)
        except TimeoutError:
            return sent


def echo(conn: Connection, ev: int, data: Any) -> None:
    if ev == MG_EV_READ:
        conn.send(conn.read())


async def echo_async(conn: Connection, ev: int, data: Any) -> None:
    await asyncio.sleep(0)
    if ev == MG_EV_READ:
        conn.send(conn.read())
        await conn.flush()


async def echo_session(conn: Connection) -> None:
    async for ev, _ in conn:
        if ev == MG_EV_READ:
            conn.send(conn.read())
            await conn.flush()


@pytest.mark.parametrize("handler", [echo, echo_async, echo_session])
async def test_echo(harness: Harness, handler: Any) -> None:
    peer = await harness.peer(harness.serve(handler, TCP).port)
    for word in (b"one", b"two", b"three"):
        peer.send(word)
        assert await peer.read_exactly(len(word)) == word
    big = os.urandom(3 << 20)
    peer.send(big)
    assert await peer.read_exactly(len(big)) == big
    peer.send_eof()
    assert await peer.read_all() == b""
    assert harness.errors == []


async def test_recv_data_looks_and_read_takes(harness: Harness) -> None:
    _, conn, peer = await accepted(harness)
    assert (conn.recv_len, conn.is_readable, conn.read(), conn.recv_data()) == (0, False, b"", b"")
    peer.send(b"hello world")
    await eventually(lambda: conn.recv_len == 11)
    assert conn.is_readable
    assert conn.recv_data(5) == b"hello" and conn.recv_data() == b"hello world" and conn.recv_data(0) == b""
    assert conn.recv_len == 11, "looking takes nothing"
    assert conn.read(6) == b"hello " and conn.recv_len == 5
    assert conn.read(0) == b"" and conn.recv_len == 5
    assert conn.read(100) == b"world" and conn.recv_len == 0 and not conn.is_readable
    peer.send(b"again")
    await eventually(lambda: conn.recv_len)
    assert conn.read() == b"again"


async def test_send_accepts_text_and_buffers_and_refuses_the_rest(harness: Harness) -> None:
    _, conn, peer = await accepted(harness)
    for data in ("é", b"b", bytearray(b"a"), memoryview(b"m")):
        conn.send(data)
    assert conn.send_data() == "ébam".encode() and conn.send_len == 5
    assert conn.send_data(2) == "é".encode()
    assert await peer.read_exactly(5) == "ébam".encode()
    assert conn.send_data() == b""
    for wrong in (5, None, [1]):
        with pytest.raises(TypeError):
            conn.send(wrong)  # type: ignore[arg-type]


async def test_properties_in_every_phase(harness: Harness) -> None:
    server = Recorder()
    listener = harness.serve(server, TCP)
    assert listener.is_listening and listener.local_addr == ("127.0.0.1", listener.port)
    conn = harness.manager(lambda *_: None).connect(f"tcp://127.0.0.1:{listener.port}")
    assert conn.is_client and not conn.is_listening and not conn.is_udp and not conn.is_tls and not conn.is_websocket
    assert conn.local_addr is None and conn.remote_addr is None
    assert not conn.is_writable and not conn.is_closing and not conn.is_draining

    await soon(conn.connected())
    await eventually(lambda: server.conns)
    other = server.conns[0]
    assert conn.remote_addr == listener.local_addr == other.local_addr
    assert conn.local_addr == other.remote_addr
    assert conn.local_addr is not None and not conn.local_addr.is_ipv6
    assert not other.is_client and not other.is_listening
    assert conn.is_writable and not conn.is_full and not conn.is_readable and not conn.is_closing
    assert conn.recv_size == BufferLimits().max_recv_buffer and conn.send_size == BufferLimits().max_send_buffer
    assert conn.id > 0 and other.id != listener.id

    conn.close()
    assert conn.is_closing
    await eventually(lambda: MG_EV_CLOSE in server.names)
    for closed in (conn, other):
        await eventually(lambda closed=closed: "closed" in repr(closed))
        assert closed.local_addr is None and closed.remote_addr is None
        assert (closed.recv_len, closed.send_len, closed.recv_size, closed.send_size) == (0, 0, 0, 0)
        assert closed.is_closing
        assert not any((closed.is_writable, closed.is_readable, closed.is_full, closed.is_draining, closed.is_tls))
        assert closed.read() == closed.recv_data() == closed.send_data() == b""
        for verb in (lambda c=closed: c.send(b"x"), lambda c=closed: c.error("x"), lambda c=closed: c.tls_init()):
            with pytest.raises(RuntimeError, match="Connection has been closed") as caught:
                verb()
            assert isinstance(caught.value, ConnectionClosed)
        with pytest.raises(ConnectionClosed):
            await closed.flush()
        closed.close()
        closed.drain()  # nothing happens


async def test_order_of_events_and_counts(harness: Harness) -> None:
    server, client = Recorder(), Recorder()

    def serve(conn: Connection, ev: int, data: Any) -> None:
        server(conn, ev, data)
        echo(conn, ev, data)

    listener = harness.serve(serve, TCP)
    conn = harness.manager(client).connect(f"tcp://127.0.0.1:{listener.port}")
    await soon(conn.connected())
    conn.send(b"12345")
    await eventually(lambda: conn.recv_len == 5)
    conn.close()
    await eventually(lambda: MG_EV_CLOSE in client.names and MG_EV_CLOSE in server.names)
    assert server.events == [
        (MG_EV_OPEN, None), (MG_EV_ACCEPT, None), (MG_EV_READ, 5), (MG_EV_WRITE, 5), (MG_EV_CLOSE, None),
    ]  # fmt: skip
    assert client.events == [
        (MG_EV_OPEN, None), (MG_EV_RESOLVE, [("127.0.0.1", listener.port)]), (MG_EV_CONNECT, None),
        (MG_EV_WRITE, 5), (MG_EV_READ, 5), (MG_EV_CLOSE, None),
    ]  # fmt: skip


async def test_counts_add_up(harness: Harness) -> None:
    recorder, conn, peer = await accepted(harness)
    data = os.urandom(700_000)
    peer.send(data)
    await eventually(lambda: conn.recv_len == len(data))
    conn.send(conn.read())
    assert await peer.read_exactly(len(data)) == data
    for ev in (MG_EV_READ, MG_EV_WRITE):
        assert sum(n for seen, n in recorder.events if seen == ev) == len(data)


async def test_one_turn_leaves_in_one_write(harness: Harness) -> None:
    recorder, conn, peer = await accepted(harness)
    for _ in range(100):
        conn.send(b"ab")
    await peer.read_exactly(200)
    assert [n for ev, n in recorder.events if ev == MG_EV_WRITE] == [200]


# -- back-pressure of what comes in ---------------------------------------------------------------------------------


async def test_a_full_receive_buffer_stops_the_sender_and_nothing_is_lost(harness: Harness) -> None:
    limits = Limits(buffers=BufferLimits(max_recv_buffer=1 << 16))
    _, conn, peer = await accepted(harness, limits)
    data = os.urandom(1 << 20) * 24  # more than the kernel's buffers of both ends hold
    peer.send(data)
    await eventually(lambda: conn.is_full)
    held = conn.recv_len
    assert (1 << 16) <= held <= (1 << 16) + (1 << 18)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(peer.writer.drain(), 0.2)
    assert conn.recv_len == held, "nothing more is read while the buffer is full"
    received = bytearray(conn.read())
    assert not conn.is_full
    while len(received) < len(data):
        await eventually(lambda: conn.recv_len)
        received += conn.read()
        assert len(received) <= len(data)
    assert received == data


async def test_reading_a_part_resumes_only_below_the_limit(harness: Harness) -> None:
    _, conn, peer = await accepted(harness, Limits(buffers=BufferLimits(max_recv_buffer=1000)))
    peer.send(bytes(1500))
    await eventually(lambda: conn.is_full and conn.recv_len == 1500)
    conn.read(500)
    assert conn.is_full
    conn.read(1)
    assert not conn.is_full


async def test_a_full_event_queue_stops_reading_until_events_are_taken(harness: Harness) -> None:
    gate = asyncio.Event()
    seen: list[tuple[int, Any]] = []
    conns: list[Connection] = []

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        conns.append(conn)
        await gate.wait()
        seen.append((ev, data))

    manager = harness.manager(handler, enable_wakeup=True, limits=Limits(buffers=BufferLimits(max_queued_events=4)))
    listener = manager.listen(TCP)
    peer = await harness.peer(listener.port)  # type: ignore[union-attr]
    await eventually(lambda: conns)
    for n in range(10):
        assert manager.wakeup(conns[0].id, b"%d" % n)
    await eventually(lambda: conns[0].is_full)
    peer.send(b"late")
    await asyncio.sleep(0.05)  # the bytes are here by now, and must not be read
    assert conns[0].recv_len == 0
    gate.set()
    await eventually(lambda: (MG_EV_READ, 4) in seen)
    assert not conns[0].is_full
    assert [data for ev, data in seen if ev == MG_EV_WAKEUP] == [b"%d" % n for n in range(10)]


# -- back-pressure of what goes out ---------------------------------------------------------------------------------


async def test_flush_waits_for_the_peer_and_nothing_is_lost(harness: Harness) -> None:
    _, conn, peer = await accepted(harness)
    assert conn.is_writable
    sent = await send_until_stuck(conn)
    assert not conn.is_writable and conn.send_len >= BufferLimits().send_high_water
    waiting = asyncio.create_task(conn.flush())
    await asyncio.sleep(0)
    assert not waiting.done()
    await peer.read_exactly(sent)
    await soon(waiting)
    assert conn.is_writable and conn.send_len == 0


async def test_flush_returns_at_once_when_there_is_room(harness: Harness) -> None:
    _, conn, peer = await accepted(harness)
    conn.send(b"x")
    await soon(conn.flush())
    assert conn.send_len == 0
    assert await peer.read_exactly(1) == b"x"


async def test_flush_of_what_was_sent_before_the_connection_was_made(harness: Harness) -> None:
    server = Recorder()
    listener = harness.serve(server, TCP)
    conn = harness.manager().connect(f"tcp://127.0.0.1:{listener.port}")
    conn.send(bytes(BufferLimits().send_high_water))
    await soon(conn.flush())
    await eventually(lambda: server.conns and server.conns[0].recv_len == BufferLimits().send_high_water)


async def test_flush_fails_when_the_connection_ends(harness: Harness) -> None:
    _, conn, peer = await accepted(harness)
    await send_until_stuck(conn)
    waiting = asyncio.create_task(conn.flush())
    await asyncio.sleep(0)
    peer.reset()
    with pytest.raises(ConnectionClosed) as caught:
        await soon(waiting)
    assert caught.value.__cause__ is not None


async def test_close_wakes_flush(harness: Harness) -> None:
    _, conn, _ = await accepted(harness)
    await send_until_stuck(conn)
    waiting = asyncio.create_task(conn.flush())
    await asyncio.sleep(0)
    conn.close()
    with pytest.raises(ConnectionClosed):
        await soon(waiting)


async def test_max_send_buffer_gives_the_connection_up(harness: Harness) -> None:
    limits = Limits(buffers=BufferLimits(max_send_buffer=1 << 20))
    recorder, conn, _ = await accepted(harness, limits)
    await send_until_stuck(conn)
    with pytest.raises(ConnectionClosed) as caught:
        for _ in range(64):
            conn.send(bytes(1 << 16))
    assert isinstance(caught.value.__cause__, LimitExceeded)
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    assert recorder.names[-2:] == [MG_EV_ERROR, MG_EV_CLOSE]
    assert "max_send_buffer" in recorder.error().limit and recorder.error().actual > 1 << 20


async def test_slow_client_drop_is_counted(harness: Harness) -> None:
    limits = Limits(buffers=BufferLimits(slow_client="drop"))
    _, conn, peer = await accepted(harness, limits)
    sent = await send_until_stuck(conn)
    for _ in range(10):
        conn.send(b"dropped")
    assert conn.protocol.output.dropped == 10
    await peer.read_exactly(sent)
    await eventually(lambda: conn.is_writable)
    conn.send(b"kept")
    assert await peer.read_exactly(4) == b"kept", "what follows is whole again"


async def test_slow_client_close(harness: Harness) -> None:
    limits = Limits(buffers=BufferLimits(slow_client="close"))
    recorder, conn, _ = await accepted(harness, limits)
    await send_until_stuck(conn)
    with pytest.raises(ConnectionClosed):
        for _ in range(3):
            conn.send(bytes(1 << 16))
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    assert "send_high_water" in recorder.error().limit


@pytest.mark.parametrize("goes_on_sending", [False, True])
async def test_a_peer_that_takes_nothing_is_closed(harness: Harness, goes_on_sending: bool) -> None:
    limits = Limits(buffers=BufferLimits(stall_timeout=0.4, rate_grace=0.1))
    recorder, conn, _ = await accepted(harness, limits)
    await send_until_stuck(conn)
    async with asyncio.timeout(3):
        while MG_EV_CLOSE not in recorder.names:
            if goes_on_sending and not conn.is_closing:
                conn.send(b"tick")
            await asyncio.sleep(0.02)
    assert isinstance(recorder.error(), DeadlineExceeded) and recorder.error().limit == "stall_timeout"


async def test_a_peer_below_the_minimum_rate_is_closed(harness: Harness) -> None:
    limits = Limits(buffers=BufferLimits(min_rate=1e12, rate_grace=0.1))
    recorder, conn, peer = await accepted(harness, limits)
    conn.send(bytes(64 << 20))
    async with asyncio.timeout(5):
        while MG_EV_ERROR not in recorder.names:
            await peer.reader.read(1 << 10)
            await asyncio.sleep(0.005)
    assert recorder.error().limit == "min_rate"


# -- ends -----------------------------------------------------------------------------------------------------------


async def test_drain_sends_everything_then_ends_in_order(harness: Harness) -> None:
    data = os.urandom(5 << 20)
    states: list[bool] = []

    def handler(conn: Connection, ev: int, _: Any) -> None:
        if ev == MG_EV_ACCEPT:
            conn.send(data)
            conn.drain()
            states.append(conn.is_draining)
            with pytest.raises(ConnectionClosed):
                conn.send(b"late")

    listener = harness.serve(handler, TCP)
    peer = await harness.peer(listener.port)
    assert await peer.read_all() == data
    assert states == [True] and harness.errors == []


@pytest.mark.parametrize("end", ["close", "drain"])
async def test_ends_are_orderly_and_free_the_descriptor(harness: Harness, end: str) -> None:
    recorder = Recorder()
    listener = harness.serve(recorder, TCP)
    before = 0
    for turn in range(20):
        if turn == 1:  # a loop may keep a descriptor of its own after the first connection
            before = open_descriptors()
        peer = await harness.peer(listener.port)
        peer.send(b"bye")
        await eventually(lambda: recorder.conns and recorder.conns[-1].recv_len == 3)
        recorder.conns[-1].send(b"last words")
        getattr(recorder.conns[-1], end)()
        assert await peer.read_all() == b"last words", "no reset"
        await peer.close()
        await eventually(lambda turn=turn: recorder.names.count(MG_EV_CLOSE) == turn + 1)
    await eventually(lambda: open_descriptors() <= before)
    assert MG_EV_ERROR not in recorder.names


async def test_close_does_not_wait_for_a_peer_that_takes_nothing(harness: Harness) -> None:
    recorder, conn, _ = await accepted(harness)
    await send_until_stuck(conn)
    conn.close()
    async with asyncio.timeout(1):
        await eventually(lambda: MG_EV_CLOSE in recorder.names)


async def test_close_in_every_first_event(harness: Harness) -> None:
    for when in (MG_EV_OPEN, MG_EV_ACCEPT):
        recorder = Recorder()

        def handler(conn: Connection, ev: int, data: Any, when: int = when, recorder: Recorder = recorder) -> None:
            recorder(conn, ev, data)
            if ev == when and not conn.is_listening:
                conn.close()

        assert await harness.ask(harness.serve(handler, TCP).port, b"") == b""
        await eventually(lambda recorder=recorder: MG_EV_CLOSE in recorder.names)
        assert recorder.names.count(MG_EV_CLOSE) == 1 and MG_EV_ERROR not in recorder.names


@pytest.mark.parametrize("kind", ["sync", "async", "session"])
async def test_a_peer_that_half_closes_gets_its_answer(harness: Harness, kind: str) -> None:
    async def slow(conn: Connection, ev: int, _: Any) -> None:
        if ev == MG_EV_READ:
            await asyncio.sleep(0.05)
            conn.send(b"answer to " + conn.read())

    async def session(conn: Connection) -> None:
        async for ev, data in conn:
            await slow(conn, ev, data)

    def plain(conn: Connection, ev: int, _: Any) -> None:
        if ev == MG_EV_READ:
            conn.send(b"answer to " + conn.read())

    handler = {"sync": plain, "async": slow, "session": session}[kind]
    peer = await harness.peer(harness.serve(handler, TCP).port)
    peer.send(b"question")
    peer.send_eof()
    assert await peer.read_all() == b"answer to question"


async def test_a_session_that_returns_drains(harness: Harness) -> None:
    async def session(conn: Connection) -> None:
        conn.send(b"hello and goodbye")

    assert await harness.ask(harness.serve(session, TCP).port, b"") == b"hello and goodbye"


async def test_error_gives_error_then_close(harness: Harness) -> None:
    recorder, conn, peer = await accepted(harness)
    conn.error("enough")
    assert await peer.read_all() == b""
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    assert recorder.names[-2:] == [MG_EV_ERROR, MG_EV_CLOSE]
    assert str(recorder.error()) == "enough"


async def test_a_reset_by_the_peer_is_an_error_with_its_cause(harness: Harness) -> None:
    recorder, _, peer = await accepted(harness)
    peer.reset()
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    assert recorder.names[-2:] == [MG_EV_ERROR, MG_EV_CLOSE]
    assert isinstance(recorder.error(), ConnectionClosed) and isinstance(recorder.error().__cause__, OSError)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_send_in_the_first_event(harness: Harness, kind: str) -> None:
    def greet(conn: Connection, ev: int, _: Any) -> None:
        if ev == MG_EV_ACCEPT:
            conn.send(b"220 hello")
        elif ev == MG_EV_CONNECT:
            conn.send(b"hi")

    async def greet_async(conn: Connection, ev: int, data: Any) -> None:
        greet(conn, ev, data)

    handler = greet if kind == "sync" else greet_async
    listener = harness.serve(handler, TCP)
    assert await (await harness.peer(listener.port)).read_exactly(9) == b"220 hello"

    received = asyncio.get_running_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.set_result(await reader.readexactly(2))
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    harness.manager(handler).connect(f"tcp://127.0.0.1:{port}")
    assert await soon(received) == b"hi"
    server.close()
    await server.wait_closed()


async def test_many_connections_do_not_mix(harness: Harness) -> None:
    listener = harness.serve(echo_async, TCP)

    async def talk(n: int) -> None:
        peer = await harness.peer(listener.port)
        for turn in range(5):
            word = b"%d-%d;" % (n, turn)
            peer.send(word)
            assert await peer.read_exactly(len(word)) == word

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for n in range(200):
            group.create_task(talk(n))


async def test_ipv6(harness: Harness) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    seen: list[Connection] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_ACCEPT:
            seen.append(conn)
        echo(conn, ev, data)

    listener = harness.serve(handler, "tcp://[::1]:0")
    assert listener.local_addr is not None and listener.local_addr.is_ipv6
    conn = harness.manager().connect(f"tcp://[::1]:{listener.port}")
    await soon(conn.connected())
    conn.send(b"six")
    await eventually(lambda: conn.recv_len == 3)
    assert seen[0].remote_addr == conn.local_addr and conn.remote_addr == ("::1", listener.port)
