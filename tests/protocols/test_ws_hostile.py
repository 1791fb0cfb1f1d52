"""WebSocket against peers, users and moments that nobody would wish for."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import trustme

import asyncmg
from asyncmg import (
    MG_EV_CLOSE,
    MG_EV_ERROR,
    MG_EV_HTTP_HDRS,
    MG_EV_HTTP_MSG,
    MG_EV_WS_CTL,
    MG_EV_WS_MSG,
    MG_EV_WS_OPEN,
    BufferLimits,
    ConnectFailed,
    Connection,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    HandshakeFailed,
    HttpLimits,
    Limits,
    Listener,
    LocalProtocolError,
    Manager,
    TlsOpts,
    WebSocket,
    WsLimits,
    WsServer,
    broadcast,
    ws_connect,
    ws_serve,
)
from asyncmg.codecs.ws import FIN, RSV1, TEXT
from asyncmg.codecs.ws_deflate import Deflate

from .conftest import Harness, RawPeer, eventually, soon
from .ws_peer import (
    WHOLE_CLOSE,
    WHOLE_PING,
    WHOLE_PONG,
    WHOLE_TEXT,
    Frame,
    expect_close,
    masked,
    plain,
    read_frame,
    request,
    shake_hands,
)

COMPRESS = "Sec-WebSocket-Extensions: permessage-deflate"


class Room:
    """Upgrades everybody, remembers what happens, and calls a hook for every event behind the upgrade."""

    def __init__(self, hook: Callable[[Connection, int, Any], None] | None = None, **options: Any) -> None:
        self.hook = hook
        self.options = options
        self.conns: list[Connection] = []
        self.messages: list[bytes] = []
        self.events: list[int] = []
        self.errors: list[Exception] = []

    def __call__(self, conn: Connection, ev: int, data: Any) -> None:
        self.events.append(ev)
        if ev == MG_EV_HTTP_MSG:
            conn.ws_upgrade(data, **self.options)
        elif ev == MG_EV_WS_OPEN:
            self.conns.append(conn)
        elif ev == MG_EV_WS_MSG:
            self.messages.append(data.data)
        elif ev == MG_EV_ERROR:
            self.errors.append(data)
        if self.hook is not None and conn.is_websocket:
            self.hook(conn, ev, data)


async def enter(harness: Harness, room: Room, *lines: str, limits: Limits | None = None) -> RawPeer:
    listener = harness.serve(room, limits=limits)
    peer = await harness.peer(listener.port)
    await shake_hands(peer, *lines)
    await eventually(lambda: room.conns)
    return peer


async def stuff(conn: Connection) -> None:
    """Send until the peer, which does not read, is behind."""
    while not conn.protocol.output.is_paused:
        conn.ws_send(b"x" * 1_000_000, 2)
        await asyncio.sleep(0)


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def idle(ws: WebSocket) -> None:
    await ws.wait_closed()


def serve(handler: Any = echo, **options: Any) -> WsServer:
    return ws_serve(handler, "127.0.0.1", 0, **options)


def url(server: WsServer) -> str:
    return f"ws://127.0.0.1:{server.port}/"


# -- the end of a WebSocket, as other tasks see it -------------------------------------------------------------------


@pytest.mark.parametrize("reads", ["recv", "iteration", "stream"])
async def test_a_reader_while_another_task_closes(reads: str) -> None:
    """The closing handshake goes well: so the reader is told, as with the package websockets."""
    async with serve() as server:
        ws = await ws_connect(url(server))

        async def read() -> list[Any]:
            if reads == "iteration":
                return [message async for message in ws]
            if reads == "stream":
                return [piece async for piece in ws.recv_stream()]
            return [await ws.recv()]

        task = asyncio.create_task(read())
        await asyncio.sleep(0)
        await soon(ws.close())
        if reads == "iteration":
            assert await soon(task) == []
        else:
            with pytest.raises(ConnectionClosedOK):
                await soon(task)


async def test_a_reader_of_a_handler_that_returns() -> None:
    """The handler's own task ends it; a reader that it has left behind sees an orderly end."""
    readers: list[asyncio.Task[Any]] = []

    async def handler(ws: WebSocket) -> None:
        readers.append(asyncio.create_task(ws.recv()))
        await asyncio.sleep(0)

    async with serve(handler) as server, ws_connect(url(server)) as ws:
        with pytest.raises(ConnectionClosedOK):
            await soon(ws.recv())
        with pytest.raises(ConnectionClosedOK):
            await soon(readers[0])


async def test_many_tasks_close_at_once() -> None:
    async with serve() as server:
        ws = await ws_connect(url(server))
        await soon(asyncio.gather(*(ws.close(1000 + i % 2) for i in range(10))))
        await soon(ws.close())
        assert ws.close_code == 1000


async def test_close_cancelled_at_once_closes_all_the_same() -> None:
    async with serve() as server:
        ws = await ws_connect(url(server))
        task = asyncio.create_task(ws.close(3001, "x"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await soon(ws.wait_closed())
        assert ws.close_code == 3001


# -- cancelled receivers ---------------------------------------------------------------------------------------------


async def test_cancelled_stream_before_its_first_piece_loses_nothing() -> None:
    async with serve() as server, ws_connect(url(server)) as ws:

        async def read() -> list[Any]:
            return [piece async for piece in ws.recv_stream()]

        task = asyncio.create_task(read())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ws.send("first")
        await ws.send("second")
        assert [await soon(ws.recv()), await soon(ws.recv())] == ["first", "second"]


async def test_receive_behind_a_stream_that_was_left() -> None:
    async with serve() as server, ws_connect(url(server)) as ws:
        await ws.send(["a", "b", "c"])
        await ws.send("next")
        async for _ in ws.recv_stream():
            break
        assert await soon(ws.recv()) == "next"


async def test_receivers_cancelled_all_the_time_lose_nothing() -> None:
    count = 300

    async def handler(ws: WebSocket) -> None:
        for number in range(count):
            await ws.send(str(number))
            if number % 7 == 0:
                await asyncio.sleep(0)
        await ws.wait_closed()

    async with serve(handler) as server, ws_connect(url(server)) as ws:
        got: list[Any] = []
        turn = 0
        async with asyncio.timeout(30):
            while len(got) < count:
                turn += 1
                task = asyncio.create_task(ws.recv())
                for _ in range(turn % 4):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    got.append(await task)
                except asyncio.CancelledError:
                    pass
        assert got == [str(number) for number in range(count)]


# -- what is sent between fragments ----------------------------------------------------------------------------------


@pytest.mark.parametrize("between", ["ping", "pong", "their ping"])
async def test_broadcast_is_held_behind_a_fragmented_message_whatever_is_sent(harness: Harness, between: str) -> None:
    """Control frames go between fragments, broadcast messages do not (RFC 6455 section 5.4)."""
    room = Room()
    peer = await enter(harness, room)
    [conn] = room.conns
    conn.protocol.send_fragment(b"a", 1, is_last=False)
    broadcast([conn], "behind")
    if between == "ping":
        conn.ws_ping(b"p")
    elif between == "pong":
        conn.ws_send(b"p", 10)
    else:
        peer.send(masked(WHOLE_PING, b"p"))
        await eventually(lambda: MG_EV_WS_CTL in room.events)
    conn.protocol.send_fragment(b"b", 1, is_last=True)
    flags = WHOLE_PING if between == "ping" else WHOLE_PONG
    assert [await read_frame(peer) for _ in range(4)] == [
        Frame(1, b"a"),
        Frame(flags, b"p"),
        Frame(0x80, b"b"),
        Frame(WHOLE_TEXT, b"behind"),
    ]


async def test_nothing_but_the_close_frame_behind_a_message_that_is_cut_short(harness: Harness) -> None:
    room = Room()
    peer = await enter(harness, room)
    [conn] = room.conns
    conn.protocol.send_fragment(b"a", 1, is_last=False)
    broadcast([conn], "behind")
    conn.ws_close(1011)
    assert await read_frame(peer) == Frame(1, b"a")
    assert (await read_frame(peer)).flags == WHOLE_CLOSE


async def test_broadcast_passes_over_a_client_in_a_fragmented_message() -> None:
    """One connection that cannot take it keeps nobody else from getting it."""
    got: list[Any] = []

    async def collect(ws: WebSocket) -> None:
        async for message in ws:
            got.append(message)

    async with serve(collect) as server, ws_connect(url(server)) as busy, ws_connect(url(server)) as free:
        busy.protocol.send_fragment(b"a", 1, is_last=False)
        broadcast([busy, free], "x")
        busy.protocol.send_fragment(b"b", 1, is_last=True)
        await eventually(lambda: "x" in got and "ab" in got)


async def test_broadcast_to_whoever_has_gone(harness: Harness) -> None:
    room = Room()
    listener = harness.serve(room)
    peers = [await harness.peer(listener.port) for _ in range(4)]
    for peer in peers:
        await shake_hands(peer)
    await eventually(lambda: len(room.conns) == 4)
    peers[0].reset()
    room.conns[1].close()
    room.conns[2].ws_close()
    for _ in range(3):
        broadcast(room.conns, "x" * 1000)
    assert (await read_frame(peers[3])).payload == b"x" * 1000
    await eventually(lambda: room.events.count(MG_EV_CLOSE) >= 2)
    assert broadcast(room.conns, "y") <= 2


async def test_broadcast_while_upgrading(harness: Harness) -> None:
    """What is broadcast in WS_OPEN, and right behind ws_upgrade(), comes behind the 101."""

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            assert broadcast([conn], "too early") == 0
            conn.ws_upgrade(data)
            broadcast([conn], "behind")
        elif ev == MG_EV_WS_OPEN:
            broadcast([conn], "in open")

    peer = await harness.peer(harness.serve(handler).port)
    await shake_hands(peer)
    assert [(await read_frame(peer)).payload for _ in range(2)] == [b"in open", b"behind"]


# -- shutdown in the middle of a handshake ---------------------------------------------------------------------------


async def test_upgrade_while_the_server_stops() -> None:
    """A handshake that is completed behind the begin of a graceful stop delays it by no more than others do."""
    gate = asyncio.Event()
    asked = asyncio.Event()

    async def process(conn: Connection, message: Any) -> None:
        asked.set()
        await gate.wait()

    server = serve(process_request=process)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    peer = RawPeer(reader, writer)
    try:
        peer.send(request())
        await soon(asked.wait())
        server.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gate.set()
        status, _, _ = await peer.read_reply()
        if status == 101:
            frame = await read_frame(peer)
            assert frame.flags == WHOLE_CLOSE
            peer.send(masked(WHOLE_CLOSE, frame.payload))
        else:
            assert status == 503
        await peer.read_all()
        writer.close()
        await soon(server.wait_closed())
    finally:
        writer.transport.abort()
        await server.manager.shutdown(0)


async def test_client_handshake_while_its_manager_stops(harness: Harness) -> None:
    gate = asyncio.Event()
    asked = asyncio.Event()

    async def process(conn: Connection, message: Any) -> None:
        asked.set()
        await gate.wait()

    async with serve(process_request=process) as server:
        client = harness.manager(lambda conn, ev, data: None)
        client.ws_connect(url(server))
        await soon(asked.wait())
        stopping = asyncio.create_task(client.shutdown(30))
        await asyncio.sleep(0)
        gate.set()
        await soon(stopping)


async def test_shutdown_while_requests_come_in(harness: Harness) -> None:
    """Handshakes that are half there, and connections that are just open, do not outlive the time given."""
    room = Room()
    manager = harness.manager(room, limits=Limits(ws=WsLimits(close_timeout=0.2)))
    listener = manager.listen("http://127.0.0.1:0")
    assert isinstance(listener, Listener)
    whole = request()
    for number in range(10):
        (await harness.peer(listener.port)).send(whole[: len(whole) * number // 9])
    await eventually(lambda: room.conns)
    await soon(manager.shutdown(2))
    assert not manager.connections


async def test_graceful_stop_while_a_handler_takes_nothing() -> None:
    """The queue is full; the peer answers our close frame at once, and is heard."""

    async def handler(ws: WebSocket) -> None:
        await ws.wait_closed()
        outcome.append(ws.protocol.closed())

    outcome: list[ConnectionClosed] = []
    server = serve(handler, limits=Limits(ws=WsLimits(close_timeout=2)))
    peer = RawPeer(*await asyncio.open_connection("127.0.0.1", server.port))
    try:
        await shake_hands(peer)
        peer.send(masked(WHOLE_TEXT, b"x") * 100)
        await eventually(lambda: any(ws.protocol.is_full for ws in server.connections))
        server.close()
        frame = await read_frame(peer)
        peer.send(masked(WHOLE_CLOSE, frame.payload))
        assert await peer.read_all() == b""
        peer.writer.close()
        await soon(server.wait_closed())
        assert isinstance(outcome[0], ConnectionClosedOK)
    finally:
        peer.writer.transport.abort()
        await server.manager.shutdown(0)


# -- deadlines of HTTP ------------------------------------------------------------------------------------------------


async def test_deadlines_of_http_end_with_it(harness: Harness) -> None:
    room = Room()
    limits = Limits(
        http=HttpLimits(header_timeout=0.2, keepalive_timeout=0.2, max_requests=1),
        buffers=BufferLimits(stall_timeout=0.3, rate_grace=0.1),
    )
    listener = harness.serve(room, limits=limits)
    first, second = await harness.peer(listener.port), await harness.peer(listener.port)
    await shake_hands(first)
    # Slowly, so that the deadline of the head is armed.
    whole = request()
    second.send(whole[:20])
    await asyncio.sleep(0.05)
    second.send(whole[20:])
    await second.read_until(b"\r\n\r\n")
    await asyncio.sleep(0.8)
    for peer in (first, second):
        peer.send(masked(WHOLE_PING, b"still there"))
        assert await read_frame(peer) == Frame(WHOLE_PONG, b"still there")
    assert not room.errors


# -- what handlers do --------------------------------------------------------------------------------------------------

_VERBS: dict[str, Callable[[Connection], Any]] = {
    "close": lambda conn: conn.close(),
    "drain": lambda conn: conn.drain(),
    "ws_close": lambda conn: conn.ws_close(3000, "hook"),
    "error": lambda conn: conn.error("hook"),
    "send": lambda conn: conn.ws_send("hook"),
    "ping": lambda conn: conn.ws_ping(),
    "raise": lambda conn: 1 // 0,
    "upgrade": lambda conn: conn.ws_upgrade(None),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("verb", _VERBS)
@pytest.mark.parametrize("when", [MG_EV_WS_OPEN, MG_EV_WS_MSG, MG_EV_WS_CTL, MG_EV_ERROR, MG_EV_CLOSE])
async def test_every_verb_in_every_event(harness: Harness, when: int, verb: str) -> None:
    """Whatever a handler does, the connection ends, MG_EV_CLOSE comes once and last."""
    busy: list[int] = []

    def hook(conn: Connection, ev: int, data: Any) -> None:
        if ev == when and not busy:
            busy.append(ev)
            try:
                _VERBS[verb](conn)
            except (ConnectionClosed, LocalProtocolError):
                pass

    room = Room(hook)
    listener = harness.serve(room, limits=Limits(ws=WsLimits(close_timeout=1)))
    peer = await harness.peer(listener.port)
    # A message, a ping, garbage for MG_EV_ERROR; all in one segment with the request.
    peer.send(request().encode() + masked(WHOLE_TEXT, b"m") + masked(WHOLE_PING, b"p") + b"\xff\xff")
    await eventually(lambda: room.events)
    await asyncio.wait([asyncio.ensure_future(peer.reader.read(-1))], timeout=5)
    peer.writer.transport.abort()
    await eventually(lambda: MG_EV_CLOSE in room.events)
    assert room.events.count(MG_EV_CLOSE) == 1
    assert room.events[-1] == MG_EV_CLOSE
    assert not harness.errors or verb == "raise"


@pytest.mark.parametrize("verb", ["close", "drain", "ws_close", "error", "send"])
async def test_every_verb_when_the_peer_closes(harness: Harness, verb: str) -> None:
    def hook(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_WS_CTL and data.opcode == 8:
            _VERBS[verb](conn)

    room = Room(hook)
    peer = await enter(harness, room)
    peer.send(masked(WHOLE_CLOSE, b"\x03\xe8"))
    await soon(peer.reader.read(-1))
    peer.writer.transport.abort()
    await eventually(lambda: MG_EV_CLOSE in room.events)
    assert room.events.count(MG_EV_CLOSE) == 1
    assert not harness.errors


async def test_headers_that_cannot_be_given_leave_nobody_without_a_reply() -> None:
    async def process(conn: Connection, message: Any) -> None:
        await asyncio.sleep(0)

    errors: list[Exception] = []
    headers = {"Upgrade": "x"}
    try:
        server = serve(process_request=process, extra_headers=headers, error_handler=errors.append)
    except LocalProtocolError:
        return  # still better: told where the mistake is
    peer = RawPeer(*await asyncio.open_connection("127.0.0.1", server.port))
    try:
        peer.send(request())
        assert (await peer.read_reply())[0] == 500
        assert len(errors) == 1
    finally:
        peer.writer.transport.abort()
        await server.manager.shutdown(0)


async def test_upgrade_twice(harness: Harness) -> None:
    """The second one is an error of the program's; the connection goes on."""
    seen: list[Exception] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.ws_upgrade(data)
            try:
                conn.ws_upgrade(data)
            except LocalProtocolError as exc:
                seen.append(exc)
            conn.ws_send("one")

    peer = await harness.peer(harness.serve(handler).port)
    await shake_hands(peer)
    assert (await read_frame(peer)).payload == b"one"
    assert len(seen) == 1


async def test_upgrade_with_an_old_request(harness: Harness) -> None:
    old: list[Any] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev != MG_EV_HTTP_MSG:
            return
        if not old:
            old.append(data)
            conn.reply(200, "first")
            return
        with pytest.raises(LocalProtocolError):
            conn.ws_upgrade(old[0])
        conn.reply(200, "second")

    peer = await harness.peer(harness.serve(handler).port)
    peer.send(request() * 2)
    assert [(await peer.read_reply())[2] for _ in range(2)] == [b"first", b"second"]
    assert not harness.errors


async def test_upgrade_before_the_request_is_complete(harness: Harness) -> None:
    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_HDRS:
            with pytest.raises(LocalProtocolError):
                conn.ws_upgrade(data)
        elif ev == MG_EV_HTTP_MSG:
            conn.ws_upgrade(data)

    peer = await harness.peer(harness.serve(handler).port)
    await shake_hands(peer, "Content-Length: 3", behind=b"abc" + masked(WHOLE_PING, b"x"))
    assert (await read_frame(peer)) == Frame(WHOLE_PONG, b"x")
    assert not harness.errors


async def test_nothing_is_read_behind_a_refused_request(harness: Harness) -> None:
    room = Room()
    listener = harness.serve(room)
    raw = await harness.ask(
        listener.port, request(leave_out="Sec-WebSocket-Key") + "GET /next HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    assert raw.startswith(b"HTTP/1.1 400") and raw.count(b"HTTP/1.1") == 1
    assert room.events.count(MG_EV_HTTP_MSG) == 1


@pytest.mark.parametrize("how", ["half-close", "reset"])
async def test_client_gone_while_the_upgrade_waits(harness: Harness, how: str) -> None:
    gate = asyncio.Event()
    ended = asyncio.Event()
    events: list[int] = []

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        events.append(ev)
        if ev == MG_EV_HTTP_MSG:
            await gate.wait()
            try:
                conn.ws_upgrade(data)
                conn.ws_send("hello")
            except ConnectionClosed:
                pass
        elif ev == MG_EV_CLOSE:
            ended.set()

    peer = await harness.peer(harness.serve(handler).port)
    peer.send(request())
    await eventually(lambda: MG_EV_HTTP_MSG in events)
    if how == "reset":
        peer.reset()
    else:
        peer.send_eof()
    await asyncio.sleep(0.05)
    gate.set()
    await soon(ended.wait())
    assert not harness.errors


# -- peers -------------------------------------------------------------------------------------------------------------


async def test_all_messages_in_front_of_a_close_frame_and_the_end(harness: Harness) -> None:
    """More than one turn handles, then the close frame and the end of the stream, all at once."""
    room = Room()
    peer = await enter(harness, room)
    count = 3000
    peer.send(b"".join(masked(WHOLE_TEXT, b"%d" % i) for i in range(count)) + masked(WHOLE_CLOSE, b"\x03\xe8"))
    peer.send_eof()
    await eventually(lambda: MG_EV_CLOSE in room.events)
    assert len(room.messages) == count
    assert not room.errors


async def test_all_messages_in_front_of_the_end_of_a_stream(harness: Harness) -> None:
    room = Room()
    peer = await enter(harness, room)
    count = 3000
    peer.send(b"".join(masked(WHOLE_TEXT, b"%d" % i) for i in range(count)))
    peer.send_eof()
    await eventually(lambda: MG_EV_CLOSE in room.events)
    assert len(room.messages) == count


def _tls() -> tuple[TlsOpts, ssl.SSLContext]:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    opts = TlsOpts(cert=certificate.cert_chain_pems[0].bytes(), key=certificate.private_key_pem.bytes())
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return opts, context


async def test_all_messages_in_front_of_a_close_frame_and_the_end_of_tls(harness: Harness) -> None:
    opts, context = _tls()
    room = Room()
    listener = harness.serve(room, "wss://127.0.0.1:0", tls=opts)
    peer = await harness.peer(listener.port, ssl=context, server_hostname="localhost")
    await shake_hands(peer)
    count = 3000
    peer.send(b"".join(masked(WHOLE_TEXT, b"%d" % i) for i in range(count)) + masked(WHOLE_CLOSE, b"\x03\xe8"))
    peer.writer.close()
    await eventually(lambda: MG_EV_CLOSE in room.events)
    assert len(room.messages) == count


async def test_close_while_the_peer_reads_nothing(harness: Harness) -> None:
    room = Room()
    await enter(harness, room, limits=Limits(ws=WsLimits(close_timeout=0.3)))
    [conn] = room.conns
    await stuff(conn)
    conn.ws_close()
    await eventually(lambda: MG_EV_CLOSE in room.events)
    assert len(room.errors) == 1


async def test_an_answered_close_frame_is_not_missed(harness: Harness) -> None:
    """The peer has answered, but does not take the rest of our output: that is another failure than no answer."""
    room = Room()
    limits = Limits(ws=WsLimits(close_timeout=0.3), buffers=BufferLimits(stall_timeout=1))
    peer = await enter(harness, room, limits=limits)
    [conn] = room.conns
    await stuff(conn)
    conn.ws_close()
    peer.send(masked(WHOLE_CLOSE, b"\x03\xe8"))
    await eventually(lambda: conn.protocol.received_close is not None)
    await eventually(lambda: MG_EV_CLOSE in room.events)
    assert not any("no close frame" in str(error) for error in room.errors)


async def test_pings_do_not_release_what_is_held(harness: Harness) -> None:
    """``max_held`` bounds what is kept for a peer that reads nothing, whatever else is sent to it."""
    room = Room()
    await enter(harness, room, limits=Limits(ws=WsLimits(max_held=4)))
    [conn] = room.conns
    await stuff(conn)
    before = conn.send_len
    for number in range(8):
        for _ in range(4):
            broadcast([conn], b"y" * 100_000)
        conn.ws_ping(b"%d" % number)
    assert conn.send_len - before < 1_000_000


async def test_a_waiting_sender_when_the_connection_ends() -> None:
    """One that waits for room is told how it ended."""
    limits = Limits(ws=WsLimits(close_timeout=0.3))
    outcome: list[BaseException] = []

    async def handler(ws: WebSocket) -> None:
        try:
            while True:
                await ws.send(b"x" * 1_000_000)
        except ConnectionClosed as exc:
            outcome.append(exc)

    async with serve(handler, limits=limits) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        peer = RawPeer(reader, writer)
        peer.send(request())
        await peer.read_until(b"\r\n\r\n")
        await eventually(lambda: any(ws.protocol.output.is_paused for ws in server.connections))
        peer.reset()
        await eventually(lambda: outcome)
    assert isinstance(outcome[0], ConnectionClosedError)


async def test_send_when_the_buffer_is_full_says_so_as_documented() -> None:
    """Many tasks send to a peer that reads nothing: each is told by ConnectionClosedError."""
    limits = Limits(buffers=BufferLimits(max_send_buffer=4 << 20))
    done = asyncio.Event()
    outcomes: list[Any] = []

    async def handler(ws: WebSocket) -> None:
        sends = (ws.send(b"x" * 1_000_000) for _ in range(40))
        outcomes.extend(await asyncio.gather(*sends, return_exceptions=True))
        done.set()

    async with serve(handler, limits=limits) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        peer = RawPeer(reader, writer)
        peer.send(request())
        await peer.read_until(b"\r\n\r\n")
        await soon(done.wait())
        writer.transport.abort()
    bad = [exc for exc in outcomes if exc is not None and not isinstance(exc, ConnectionClosedError)]
    assert not bad


async def test_ping_waiters_when_the_connection_ends(harness: Harness) -> None:
    async with serve() as server:
        ws = await ws_connect(url(server))
        waiters = [await ws.ping(str(i)) for i in range(5)]
        ws.conn.close()
        await soon(ws.wait_closed())
        for waiter in waiters:
            if not waiter.done() or waiter.exception() is None:
                await soon(waiter)
        with pytest.raises(ConnectionClosed):
            await ws.ping()


async def test_a_pong_behind_our_close_frame() -> None:
    """A ping that was sent before is answered before the peer's close frame comes: its waiter is told."""
    async with serve() as server:
        ws = await ws_connect(url(server))
        waiter = await ws.ping()
        await soon(ws.close())
        assert await soon(waiter) > 0
        assert ws.latency > 0


async def test_wrong_data_of_a_ping_changes_nothing(harness: Harness) -> None:
    room = Room()
    peer = await enter(harness, room)
    [conn] = room.conns
    for _ in range(20):
        with pytest.raises((TypeError, LocalProtocolError)):
            conn.ws_ping(5)  # type: ignore[arg-type]
        with pytest.raises((TypeError, LocalProtocolError)):
            conn.ws_ping([1, 2])  # type: ignore[arg-type]
    conn.ws_ping(b"good")
    assert await read_frame(peer) == Frame(WHOLE_PING, b"good")


async def test_final_blocks_one_behind_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bytes of input must not cost a decompressor, and a copy of all that follows."""
    made: list[int] = []
    make = zlib.decompressobj

    def count(*args: Any) -> Any:
        made.append(1)
        return make(*args)

    deflate = Deflate().accept([("permessage-deflate", [])])
    assert deflate is not None
    monkeypatch.setattr(zlib, "decompressobj", count)
    try:
        deflate[1].decompress(b"\x03\x00" * (32 << 10), 1 << 20, is_last=False)
    except asyncmg.ProtocolError:
        pass
    assert len(made) < 1000


@pytest.mark.parametrize("fragments", [False, True])
@pytest.mark.parametrize("lines", [(), (COMPRESS,)], ids=["plain", "deflate"])
@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("excess", [0, 1])
async def test_max_message_exactly(
    harness: Harness, fragments: bool, lines: tuple[str, ...], pieces: int, excess: int
) -> None:
    limit = 3000
    room = Room(fragments=fragments, compression=bool(lines))
    peer = await enter(harness, room, *lines, limits=Limits(ws=WsLimits(max_message=limit)))
    content = b"x" * (limit + excess)
    if lines:
        made = Deflate().accept([("permessage-deflate", [])])
        assert made is not None
        content = made[1].compress(content)
    size = -(-len(content) // pieces)
    parts = [content[i : i + size] for i in range(0, len(content), size)]
    for number, part in enumerate(parts):
        flags = 0 if number else TEXT | (RSV1 if lines else 0)
        peer.send(masked(flags | (FIN if number == len(parts) - 1 else 0), part))
    if excess:
        await expect_close(peer, 1009)
    else:
        await eventually(lambda: sum(map(len, room.messages)) == limit)
        assert not room.errors


async def test_a_flood_of_tiny_frames_keeps_nobody_waiting(harness: Harness) -> None:
    room = Room()
    listener = harness.serve(room)
    bad, good = await harness.peer(listener.port), await harness.peer(listener.port)
    await shake_hands(bad)
    await shake_hands(good)
    flood = masked(WHOLE_TEXT, b"x") * 20_000

    async def attack() -> None:
        while True:
            bad.send(flood)
            await bad.writer.drain()

    task = asyncio.create_task(attack())
    try:
        for number in range(30):
            good.send(masked(WHOLE_PING, b"%d" % number))
            assert (await read_frame(good)).payload == b"%d" % number
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# -- connecting --------------------------------------------------------------------------------------------------------


_NAMES = {"long": "a" * 64, "empty label": "a..b", "not ascii": "b\u00fccher.invalid", "both": "\u00fc" * 70}


@pytest.mark.parametrize("name", _NAMES)
async def test_names_that_cannot_be_resolved(name: str) -> None:
    with pytest.raises((ConnectFailed, asyncmg.InvalidUrl)):
        await soon(ws_connect(f"ws://{_NAMES[name]}:1/", proxy=None))


async def test_a_name_that_is_not_ascii_through_a_proxy() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        with pytest.raises((ConnectFailed, asyncmg.InvalidUrl)):
            await soon(ws_connect("ws://b\u00fccher.invalid/", proxy=f"http://127.0.0.1:{port}"))


async def test_a_path_that_is_not_ascii() -> None:
    """It is encoded, or the URL is refused as such."""
    async with serve() as server:
        try:
            async with ws_connect(f"ws://127.0.0.1:{server.port}/gr\u00fc\u00dfe") as ws:
                assert ws.is_open
        except asyncmg.InvalidUrl:
            pass


_PROXY_ANSWERS = {
    "silence": b"",
    "garbage": b"\x00\xff" * 100 + b"\r\n\r\n",
    "endless": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000,
    "more": b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101 Switching\r\n\r\n",
    "refused": b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
    "odd status": b"HTTP/1.1 2000 OK\r\n\r\n",
    "bare newlines": b"HTTP/1.1 200 OK\n\n",
}


@pytest.mark.parametrize("name", _PROXY_ANSWERS)
async def test_proxies_that_misbehave(name: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(_PROXY_ANSWERS[name])
        writer.write_eof()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        with pytest.raises(ConnectFailed):
            await soon(ws_connect("ws://example.invalid/", proxy=f"http://127.0.0.1:{port}"))


async def test_refusal_with_a_large_body() -> None:
    """What the server has answered is told, even when it says too much."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 100)
        try:
            await reader.read()
        except OSError:
            pass
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(HandshakeFailed) as caught:
            await soon(ws_connect(f"ws://127.0.0.1:{port}/", proxy=None))
        assert caught.value.status == 403


async def test_connect_cancelled_at_every_step() -> None:
    async with serve() as server:
        opened = 0
        for turns in range(60):
            task = asyncio.create_task(ws_connect(url(server))._connect())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                ws = await soon(task)
            except asyncio.CancelledError:
                continue
            opened += 1
            await soon(ws.close())
        await eventually(lambda: not server.connections)
        await eventually(lambda: len(server.manager.connections) == 1)


async def test_reconnect_left_in_every_way() -> None:
    async with serve() as server:
        async with asyncio.timeout(10):
            async for ws in ws_connect(url(server)):
                await ws.send("x")
                break
            with pytest.raises(ZeroDivisionError):
                async for _ in ws_connect(url(server)):
                    raise ZeroDivisionError

            async def iterate() -> None:
                async for ws in ws_connect(url(server)):
                    await ws.recv()

            task = asyncio.create_task(iterate())
            await eventually(lambda: server.connections)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        del ws
        await eventually(lambda: not server.connections)


async def test_server_that_ignores_the_window_that_it_was_asked_for() -> None:
    """The offer is a wish (RFC 7692 section 7.1.2.1): websockets, browsers and curl live with a whole window."""
    from asyncmg.codecs.ws_handshake import accept_value

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = next(line.split(": ")[1] for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key"))
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_value(key).encode() + b"\r\n"
            b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n" + plain(WHOLE_TEXT, b"hello")
        )
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        ws = await soon(ws_connect(f"ws://127.0.0.1:{port}/", proxy=None))
        assert await soon(ws.recv()) == "hello"
        ws.conn.close()
        await soon(ws.wait_closed())


async def test_localhost_and_ipv6() -> None:
    async with ws_serve(echo, "localhost", 0) as server, ws_connect(f"ws://localhost:{server.port}") as ws:
        await ws.send("x")
        assert await soon(ws.recv()) == "x"
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    async with ws_serve(echo, "::1", 0) as server, ws_connect(f"ws://[::1]:{server.port}/x") as ws:
        await ws.send("x")
        assert await soon(ws.recv()) == "x"


def test_poll_mode() -> None:
    """Both sides in one plain loop, as programs for Mongoose do it."""
    log: list[Any] = []

    def server(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.ws_upgrade(data)
        elif ev == MG_EV_WS_MSG:
            conn.ws_send(data.text)
            broadcast([conn], "all")

    def client(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_WS_OPEN:
            conn.ws_send("hello")
            conn.ws_ping()
        elif ev == MG_EV_WS_MSG:
            log.append(data.text)
        elif ev == MG_EV_WS_CTL and data.opcode == 10:
            conn.ws_close(1000, "done")
        elif ev == MG_EV_CLOSE:
            log.append("closed")

    manager = Manager()
    try:
        listener = manager.http_listen("ws://127.0.0.1:0", server)
        conn = manager.ws_connect(f"ws://127.0.0.1:{listener.port}/", client)
        deadline = time.monotonic() + 10
        while log[-1:] != ["closed"] and time.monotonic() < deadline:
            manager.poll(100)
        assert log == ["hello", "all", "closed"]
        assert conn.latency > 0
    finally:
        manager.close()
