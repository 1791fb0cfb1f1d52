"""One WebSocket server for the benchmarks: ``ws_peers.py NAME PORT [echo | broadcast | ping SECONDS]``.

``echo`` (default): what comes in goes back. ``broadcast``: it goes to every connection. ``ping``: an echo that sends
keep-alive pings so often. No server compresses; none closes a connection that is idle.

A name of asyncmg says what runs. ``native`` and ``asyncio`` are the Manager's backends, both with the codec in C;
``portable`` and ``wsproto`` are the asyncio backend with that codec, under ASYNCMG_CORE=off. Then comes the kind of
handler: ``sync``, ``async``, either with ``msg`` when only the events that it handles are asked for (all events
otherwise), or ``async for``, which is ``ws_serve``. Then the loop: ``uvloop`` (also where none is named), or ``run()``,
outside asyncio.

A floor parses nothing but the end of the handshake. In a broadcast it sends a frame that it keeps, once for each
connection, by what its name says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

HOST = "127.0.0.1"
BACKLOG = 1024
MAX_CONNECTIONS = 50_000
PACKAGES = ("aiohttp", "cymongoose", "picows", "uvloop", "websockets", "wsproto")

# The reply to the one key that the load sends (RFC 6455 section 1.3).
HANDSHAKE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Mode:
    """What a server does with messages; ``ping_interval`` in seconds, 0: no pings."""

    is_broadcast: bool = False
    ping_interval: float = 0.0

    @property
    def ping_timeout(self) -> float:
        """Not above the interval: picows wants that, and asyncmg sends the next ping when the time of one is over."""
        return self.ping_interval or 20.0


Serve = Callable[[int, Mode], None]


def _run(main: Coroutine[Any, Any, None], loop: str) -> None:
    loop_factory = None
    if loop == "uvloop":
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main)


# -- asyncmg ---------------------------------------------------------------------------------------------------------

Family = Literal["native", "asyncio", "portable", "wsproto"]


def _set_up_asyncmg(family: Family, mode: Mode) -> dict[str, Any]:
    """Choose codecs and backend; return the options of a Manager."""
    is_native = family in ("native", "asyncio")
    os.environ["ASYNCMG_CORE"] = "require" if is_native else "off"
    os.environ["ASYNCMG_WS_CODEC"] = "native" if is_native else family
    os.environ["ASYNCMG_BACKEND"] = "native" if family == "native" else "asyncio"
    from asyncmg import Limits, NetLimits, WsLimits, core

    core.load()  # without the core, only `portable` and `wsproto` are what they say
    ws = WsLimits(ping_interval=mode.ping_interval, ping_timeout=mode.ping_timeout)
    return {"limits": Limits(net=NetLimits(max_connections=MAX_CONNECTIONS), ws=ws)}


def _asyncmg(family: Family, kind: Literal["sync", "async", "sync msg", "async msg"], loop: str) -> Serve:
    """A Manager with a handler of events, plain or async."""

    def serve(port: int, mode: Mode) -> None:
        options = _set_up_asyncmg(family, mode)
        from asyncmg import MG_EV_CLOSE, MG_EV_HTTP_MSG, MG_EV_WS_MSG, MG_EV_WS_OPEN, Manager, broadcast

        connections: set[Any] = set()

        def echo(conn: Any, ev: int, data: Any) -> None:
            if ev == MG_EV_WS_MSG:
                conn.ws_send(data.data, data.flags & 15)
            elif ev == MG_EV_HTTP_MSG:
                conn.ws_upgrade(data)

        def to_all(conn: Any, ev: int, data: Any) -> None:
            if ev == MG_EV_WS_MSG:
                broadcast(connections, data.data)
            elif ev == MG_EV_HTTP_MSG:
                conn.ws_upgrade(data)
            elif ev == MG_EV_WS_OPEN:
                connections.add(conn)
            elif ev == MG_EV_CLOSE:
                connections.discard(conn)

        async def async_echo(conn: Any, ev: int, data: Any) -> None:
            if ev == MG_EV_WS_MSG:
                conn.ws_send(data.data, data.flags & 15)
            elif ev == MG_EV_HTTP_MSG:
                conn.ws_upgrade(data)

        async def async_to_all(conn: Any, ev: int, data: Any) -> None:
            to_all(conn, ev, data)

        handlers = {"sync": (echo, to_all), "async": (async_echo, async_to_all)}
        handler = handlers[kind.split()[0]][mode.is_broadcast]
        if kind.endswith(" msg"):
            options["events"] = [MG_EV_HTTP_MSG, MG_EV_WS_MSG, *([MG_EV_WS_OPEN] if mode.is_broadcast else [])]

        async def main() -> None:
            async with Manager(handler, **options) as manager:
                manager.listen(f"http://{HOST}:{port}")
                await manager.serve_forever()

        if loop == "run()":
            manager = Manager(handler, **options)
            manager.listen(f"http://{HOST}:{port}")
            manager.run()
        else:
            _run(main(), loop)

    return serve


def _asyncmg_face(family: Family, loop: str) -> Serve:
    """``ws_serve`` with ``async for``."""

    def serve(port: int, mode: Mode) -> None:
        options = _set_up_asyncmg(family, mode)
        import asyncmg

        connections: set[Any] = set()

        async def echo(ws: Any) -> None:
            async for message in ws:
                await ws.send(message)

        async def to_all(ws: Any) -> None:
            connections.add(ws)
            try:
                async for message in ws:
                    asyncmg.broadcast(connections, message)
            finally:
                connections.discard(ws)

        handler = to_all if mode.is_broadcast else echo

        async def main() -> None:
            async with asyncmg.ws_serve(handler, HOST, port, compression=False, **options):
                await asyncio.get_running_loop().create_future()

        _run(main(), loop)

    return serve


# -- peers -----------------------------------------------------------------------------------------------------------


def _websockets(package: Literal["websockets", "picows.websockets"], loop: str) -> Serve:
    """websockets, or what picows has with the same interface."""

    def serve(port: int, mode: Mode) -> None:
        if package == "websockets":
            from websockets.asyncio.server import broadcast, serve
        else:
            from picows.websockets.asyncio.server import broadcast, serve

        connections: set[Any] = set()

        async def echo(websocket: Any) -> None:
            async for message in websocket:
                await websocket.send(message)

        async def to_all(websocket: Any) -> None:
            connections.add(websocket)
            try:
                async for message in websocket:
                    broadcast(connections, message)
            finally:
                connections.discard(websocket)

        async def main() -> None:
            async with serve(
                to_all if mode.is_broadcast else echo,
                HOST,
                port,
                compression=None,
                ping_interval=mode.ping_interval or None,
                ping_timeout=mode.ping_timeout,
                backlog=BACKLOG,
            ):
                await asyncio.get_running_loop().create_future()

        _run(main(), loop)

    return serve


def _picows(transports: Literal["aiofastnet", "uvloop"]) -> Serve:
    """picows by its listeners; on transports of aiofastnet, its default, or those of the loop."""

    def serve(port: int, mode: Mode) -> None:
        from picows import WSListener, WSMsgType, ws_create_server

        connections: set[Any] = set()

        class Echo(WSListener):  # type: ignore[misc]
            def on_ws_frame(self, transport: Any, frame: Any) -> None:
                if frame.msg_type == WSMsgType.CLOSE:
                    transport.send_close(frame.get_close_code(), frame.get_close_message())
                    transport.disconnect()
                else:
                    transport.send(frame.msg_type, frame.get_payload_as_memoryview())

        class ToAll(WSListener):  # type: ignore[misc]
            def on_ws_connected(self, transport: Any) -> None:
                connections.add(transport)

            def on_ws_disconnected(self, transport: Any) -> None:
                connections.discard(transport)

            def on_ws_frame(self, transport: Any, frame: Any) -> None:
                if frame.msg_type == WSMsgType.CLOSE:
                    transport.send_close(frame.get_close_code(), frame.get_close_message())
                    transport.disconnect()
                else:
                    kind, message = frame.msg_type, frame.get_payload_as_bytes()
                    for connection in connections:
                        connection.send(kind, message)

        async def main() -> None:
            server = await ws_create_server(
                lambda _: ToAll() if mode.is_broadcast else Echo(),
                HOST,
                port,
                enable_auto_ping=mode.ping_interval > 0,
                auto_ping_idle_timeout=mode.ping_timeout,
                auto_ping_reply_timeout=mode.ping_timeout,
                use_aiofastnet=transports == "aiofastnet",
                backlog=BACKLOG,
            )
            await server.serve_forever()

        _run(main(), "uvloop")

    return serve


def aiohttp(port: int, mode: Mode) -> None:
    import uvloop
    from aiohttp import WSMsgType, web

    connections: set[Any] = set()

    async def handler(request: Any) -> Any:
        ws = web.WebSocketResponse(compress=False, heartbeat=mode.ping_interval or None)
        await ws.prepare(request)
        connections.add(ws)
        try:
            async for message in ws:
                if message.type == WSMsgType.BINARY:
                    # A copy: others may come and go while it waits.
                    for receiver in list(connections) if mode.is_broadcast else (ws,):
                        await receiver.send_bytes(message.data)
                elif message.type == WSMsgType.TEXT:
                    await ws.send_str(message.data)
        finally:
            connections.discard(ws)
        return ws

    app = web.Application()
    app.router.add_get("/", handler)
    web.run_app(
        app,
        host=HOST,
        port=port,
        backlog=BACKLOG,
        print=lambda *_: None,
        access_log=None,
        loop=uvloop.new_event_loop(),
    )


def cymongoose(port: int, mode: Mode) -> None:
    """Mongoose and its binding, polled without asyncio. It has no keep-alive pings."""
    import cymongoose as mongoose

    if mode.ping_interval:
        sys.exit("cymongoose sends no pings")
    connections: set[Any] = set()

    def handler(conn: Any, ev: int, data: Any) -> None:
        if ev == mongoose.MG_EV_WS_MSG:
            message, op = data.data, data.flags & 15
            if mode.is_broadcast:
                for connection in connections:
                    connection.ws_send(message, op)
            else:
                conn.ws_send(message, op)
        elif ev == mongoose.MG_EV_HTTP_MSG:
            conn.ws_upgrade(data)
        elif ev == mongoose.MG_EV_WS_OPEN:
            connections.add(conn)
        elif ev == mongoose.MG_EV_CLOSE:
            connections.discard(conn)

    manager = mongoose.Manager(handler)
    manager.listen(f"http://{HOST}:{port}", http=True)
    while True:
        manager.poll(1000)


async def _serve_protocol(factory: Callable[[], asyncio.Protocol], port: int) -> None:
    server = await asyncio.get_running_loop().create_server(factory, HOST, port, backlog=BACKLOG)
    await server.serve_forever()


def wsproto_bare(port: int, mode: Mode) -> None:
    """The barest server on wsproto: one write for all the messages of a read."""
    from wsproto import ConnectionType, WSConnection
    from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Request, TextMessage

    if mode.ping_interval:
        sys.exit("wsproto sends no pings")
    connections: set[Any] = set()

    class Bare(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.ws = WSConnection(ConnectionType.SERVER)
            self.parts: list[Any] = []
            connections.add(self)

        def connection_lost(self, exc: Exception | None) -> None:
            connections.discard(self)

        def data_received(self, data: bytes) -> None:
            ws, out = self.ws, []
            ws.receive_data(data)
            for event in ws.events():
                if isinstance(event, BytesMessage | TextMessage):
                    self.parts.append(event.data)
                    if event.message_finished:
                        # The event holds a bytearray or a str.
                        message = type(event.data)().join(self.parts) if len(self.parts) > 1 else event.data
                        self.parts.clear()
                        if mode.is_broadcast:
                            for connection in connections:
                                connection.transport.write(connection.ws.send(type(event)(data=message)))
                        else:
                            out.append(ws.send(type(event)(data=message)))
                elif isinstance(event, Request):
                    out.append(ws.send(AcceptConnection()))
                elif isinstance(event, Ping | CloseConnection):
                    out.append(ws.send(event.response()))
            if out:
                self.transport.write(b"".join(out))

    _run(_serve_protocol(Bare, port), "uvloop")


# -- floors ----------------------------------------------------------------------------------------------------------


class Parrot:
    """What a floor does with the bytes of one connection; ``None`` while there is nothing to send.

    Broadcast floors get the same frame again and again: it is unmasked once.
    """

    received = b""
    frame = b""

    def __init__(self, mode: Mode) -> None:
        self.data = b""
        self.has_upgraded = False
        self.is_broadcast = mode.is_broadcast

    def handshake(self, data: bytes) -> bytes | None:
        self.data += data
        if not self.data.endswith(b"\r\n\r\n"):
            return None
        self.data = b""
        self.has_upgraded = True
        return HANDSHAKE

    def publication(self, data: bytes) -> bytes | None:
        """Return the frame for everybody, once all of it is there."""
        data = self.data = self.data + data if self.data else data
        if data == Parrot.received:
            self.data = b""
            return Parrot.frame
        if len(data) < 2:
            return None
        code = data[1] & 127
        head = 2 + {126: 2, 127: 8}.get(code, 0)
        length = int.from_bytes(data[2:head], "big") if code > 125 else code
        if len(data) < head + 4 + length:
            return None
        key = data[head : head + 4]
        payload = bytes(byte ^ key[i & 3] for i, byte in enumerate(data[head + 4 :]))
        Parrot.received, Parrot.frame = data, bytes([data[0], code]) + data[2:head] + payload
        self.data = b""
        return Parrot.frame


def _floor(write: Literal["write", "os.write"]) -> Serve:
    """An asyncio protocol on uvloop."""

    def serve(port: int, mode: Mode) -> None:
        if mode.ping_interval:
            sys.exit("a floor sends no pings")
        connections: set[Any] = set()

        class Floor(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                self.transport = transport
                self.parrot = Parrot(mode)
                self.fd = transport.get_extra_info("socket").fileno()

            def connection_lost(self, exc: Exception | None) -> None:
                connections.discard(self)

            def data_received(self, data: bytes) -> None:
                parrot = self.parrot
                if not parrot.has_upgraded:
                    reply = parrot.handshake(data)
                    if reply:
                        connections.add(self)
                        self.transport.write(reply)
                elif not parrot.is_broadcast:
                    self.transport.write(data)
                elif frame := parrot.publication(data):
                    if write == "write":
                        for connection in connections:
                            connection.transport.write(frame)
                    else:
                        for connection in connections:
                            os.write(connection.fd, frame)

        _run(_serve_protocol(Floor, port), "uvloop")

    return serve


def floor_native(port: int, mode: Mode) -> None:
    """A protocol on our native backend."""
    if mode.ping_interval:
        sys.exit("a floor sends no pings")
    os.environ["ASYNCMG_CORE"] = "require"
    from asyncmg import BaseProtocol, CallbackSink, Limits
    from asyncmg.transports.choice import chosen_backend, make_backend

    sink = CallbackSink(lambda ev, data: None)
    sink.wants = 0
    connections: set[Any] = set()

    class Floor(BaseProtocol):
        __slots__ = ("parrot",)

        def __init__(self) -> None:
            super().__init__(sink)
            self.parrot = Parrot(mode)

        def handle_lost(self, error: Exception | None) -> Exception | None:
            connections.discard(self)
            return super().handle_lost(error)

        def receive_data(self, data: bytes) -> None:
            parrot = self.parrot
            if not parrot.has_upgraded:
                reply = parrot.handshake(data)
                if reply:
                    connections.add(self)
                    self.output.write(reply)
            elif not parrot.is_broadcast:
                self.output.write(data)
            elif frame := parrot.publication(data):
                for connection in connections:
                    connection.output.write(frame)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        backend = make_backend(chosen_backend("native"), loop, Limits())
        with socket.create_server((HOST, port), backlog=BACKLOG) as listening:
            listening.setblocking(False)
            while True:
                sock, _ = await loop.sock_accept(listening)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await backend.open_stream(sock, Floor())

    _run(main(), "uvloop")


SERVERS: dict[str, Serve] = {
    "asyncmg native sync run()": _asyncmg("native", "sync", "run()"),
    "asyncmg native sync uvloop": _asyncmg("native", "sync", "uvloop"),
    "asyncmg native async uvloop": _asyncmg("native", "async", "uvloop"),
    "asyncmg native sync msg": _asyncmg("native", "sync msg", "uvloop"),
    "asyncmg native async msg": _asyncmg("native", "async msg", "uvloop"),
    "asyncmg native async for": _asyncmg_face("native", "uvloop"),
    "asyncmg asyncio sync uvloop": _asyncmg("asyncio", "sync", "uvloop"),
    "asyncmg asyncio async for": _asyncmg_face("asyncio", "uvloop"),
    "asyncmg portable sync uvloop": _asyncmg("portable", "sync", "uvloop"),
    "asyncmg portable async for": _asyncmg_face("portable", "uvloop"),
    "asyncmg wsproto sync uvloop": _asyncmg("wsproto", "sync", "uvloop"),
    "picows uvloop": _picows("aiofastnet"),
    "picows uvloop transports": _picows("uvloop"),
    "picows.websockets uvloop": _websockets("picows.websockets", "uvloop"),
    "websockets uvloop": _websockets("websockets", "uvloop"),
    "websockets stdlib": _websockets("websockets", "stdlib"),
    "aiohttp uvloop": aiohttp,
    "wsproto bare uvloop": wsproto_bare,
    "cymongoose": cymongoose,
    "floor uvloop": _floor("write"),
    "floor os.write": _floor("os.write"),
    "floor native": floor_native,
}
# Its writes may not be taken whole: good enough only for short messages to many connections.
BROADCAST_ONLY = frozenset({"floor os.write"})


def has_raw_echo(name: str) -> bool:
    """Whether frames come back as they were sent, masked."""
    return name.startswith("floor ")


def main() -> None:
    if len(sys.argv) < 3:
        print("\n".join(SERVERS))
        return
    name, port, *mode = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ping_interval = float(mode[1]) if mode[:1] == ["ping"] else 0.0
    try:
        with contextlib.suppress(KeyboardInterrupt):
            SERVERS[name](int(port), Mode(mode[:1] == ["broadcast"], ping_interval))
    except ModuleNotFoundError as exc:
        if exc.name in PACKAGES:
            sys.exit(f"not installed: {exc.name}")
        raise


if __name__ == "__main__":
    main()
