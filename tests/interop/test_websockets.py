"""WebSocket against `websockets` and `aiohttp`, each as client and as server: asyncmg is the other side."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
import trustme

import asyncmg
import asyncmg.core
from asyncmg import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    Deflate,
    HandshakeFailed,
    LimitExceeded,
    Limits,
    TlsOpts,
    WsLimits,
)

try:
    import aiohttp
    import aiohttp.web
    import websockets
    import websockets.asyncio.client
    import websockets.asyncio.server
    import websockets.extensions.permessage_deflate as websockets_deflate
except ImportError as error:  # they are among the test dependencies
    if os.environ.get("ASYNCMG_REQUIRE_PEERS") == "1":
        raise
    pytest.skip(f"not installed: {error.name}", allow_module_level=True)

TIMEOUT = 30.0
LARGE = 3 << 20
LIMITS = Limits(ws=WsLimits(max_message=4 << 20))

# Both sides of every border between forms of a frame's header, and UTF-8 sequences of every length.
MESSAGES: list[str | bytes] = [
    *["", "a", "héllo €, 𝄞", "x" * 125, "x" * 126, "é" * 40_000],
    *[b"", b"\x00", bytes(range(256)), b"\xff" * 65_535, b"\xfe" * 65_536, bytes(range(251)) * (LARGE // 251)],
    "0123456789abcdef" * (LARGE // 16),
]


class Peer(Protocol):
    """A connection of another library, as these tests use it."""

    is_compressing: bool
    subprotocol: str | None

    async def send(self, message: str | bytes) -> None: ...

    async def recv(self) -> str | bytes:
        """Return the next message; PeerClosed when there is none."""

    async def ping(self) -> None:
        """Send a ping and wait for its pong."""

    async def close(self, code: int, reason: str) -> None: ...


@dataclass
class PeerClosedError(Exception):
    code: int
    reason: str


@dataclass(frozen=True)
class Compression:
    """What the other library offers or accepts; bits are of both directions where it can tell."""

    bits: int = 15
    takeover: bool = True


@dataclass(frozen=True)
class Options:
    subprotocols: tuple[str, ...] = ()
    origin: str | None = None
    compression: Compression | None = None


# -- websockets --------------------------------------------------------------------------------------------------------


class WebsocketsPeer:
    def __init__(self, ws: Any) -> None:
        self.ws = ws
        self.is_compressing = bool(ws.protocol.extensions)
        self.subprotocol = ws.subprotocol

    async def send(self, message: Any) -> None:
        await self.ws.send(message)

    async def recv(self) -> str | bytes:
        try:
            message: str | bytes = await self.ws.recv()
        except websockets.ConnectionClosed:
            raise PeerClosedError(self.ws.close_code, self.ws.close_reason) from None
        return message

    async def ping(self) -> None:
        await (await self.ws.ping())

    async def close(self, code: int, reason: str) -> None:
        await self.ws.close(code, reason)


@asynccontextmanager
async def websockets_client(url: str, options: Options) -> AsyncIterator[WebsocketsPeer]:
    extensions = []
    if options.compression is not None:
        takeover = options.compression.takeover
        extensions = [
            websockets_deflate.ClientPerMessageDeflateFactory(
                server_no_context_takeover=not takeover,
                client_no_context_takeover=not takeover,
                server_max_window_bits=options.compression.bits,
                client_max_window_bits=options.compression.bits,
            )
        ]
    async with websockets.asyncio.client.connect(
        url,
        subprotocols=options.subprotocols or None,
        origin=options.origin,
        compression=None,
        extensions=extensions,
        max_size=4 << 20,
        proxy=None,
    ) as ws:
        yield WebsocketsPeer(ws)


@asynccontextmanager
async def websockets_server(handler: Callable[[Peer], Awaitable[None]], options: Options) -> AsyncIterator[str]:
    async def handle(ws: Any) -> None:
        await handler(WebsocketsPeer(ws))

    extensions = []
    if options.compression is not None:
        takeover = options.compression.takeover
        extensions = [
            websockets_deflate.ServerPerMessageDeflateFactory(
                server_no_context_takeover=not takeover,
                client_no_context_takeover=not takeover,
                server_max_window_bits=options.compression.bits,
                client_max_window_bits=options.compression.bits,
            )
        ]
    async with websockets.asyncio.server.serve(
        handle,
        "127.0.0.1",
        0,
        subprotocols=options.subprotocols or None,
        origins=[options.origin] if options.origin else None,
        compression=None,
        extensions=extensions,
        max_size=4 << 20,
    ) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


# -- aiohttp -----------------------------------------------------------------------------------------------------------


class AiohttpPeer:
    def __init__(self, ws: Any) -> None:
        self.ws = ws
        self.is_compressing = bool(ws.compress)
        self.subprotocol = getattr(ws, "protocol", None) or getattr(ws, "ws_protocol", None)

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            await self.ws.send_str(message)
        else:
            await self.ws.send_bytes(message)

    async def recv(self) -> str | bytes:
        message = await self.ws.receive()
        if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            data: str | bytes = message.data
            return data
        code = message.data if message.type is aiohttp.WSMsgType.CLOSE else self.ws.close_code
        raise PeerClosedError(code, message.extra or "")

    async def ping(self) -> None:
        # Its pongs are not told: the echo behind the ping has to do.
        await self.ws.ping(b"from aiohttp")
        await self.send("behind the ping")
        assert await self.recv() == "behind the ping"

    async def close(self, code: int, reason: str) -> None:
        await self.ws.close(code=code, message=reason.encode())


@asynccontextmanager
async def aiohttp_client(url: str, options: Options) -> AsyncIterator[AiohttpPeer]:
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(
            url,
            protocols=options.subprotocols,
            origin=options.origin,
            compress=0 if options.compression is None else options.compression.bits,
            max_msg_size=4 << 20,
        ) as ws:
            yield AiohttpPeer(ws)


@asynccontextmanager
async def aiohttp_server(handler: Callable[[Peer], Awaitable[None]], options: Options) -> AsyncIterator[str]:
    async def handle(request: Any) -> Any:
        if options.origin and request.headers.get("Origin") != options.origin:
            raise aiohttp.web.HTTPForbidden
        ws = aiohttp.web.WebSocketResponse(
            protocols=options.subprotocols, compress=options.compression is not None, max_msg_size=4 << 20
        )
        await ws.prepare(request)
        await handler(AiohttpPeer(ws))
        await ws.close()
        return ws

    application = aiohttp.web.Application()
    application.router.add_get("/", handle)
    runner = aiohttp.web.AppRunner(application, shutdown_timeout=1)
    await runner.setup()
    try:
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


Client = Callable[[str, Options], Any]
Server = Callable[[Callable[[Any], Awaitable[None]], Options], Any]
CLIENTS: dict[str, Client] = {"websockets": websockets_client, "aiohttp": aiohttp_client}
SERVERS: dict[str, Server] = {"websockets": websockets_server, "aiohttp": aiohttp_server}


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Client:
    return CLIENTS[request.param]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Server:
    return SERVERS[request.param]


@pytest.fixture(autouse=True, params=["native", "asyncio"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs on both backends, and with both codecs."""
    if request.param == "native":
        core = asyncmg.core.load()
        if core is None or core.engine is None:
            if os.environ.get("ASYNCMG_REQUIRE_CORE") == "1":
                pytest.fail(f"no C core: {asyncmg.core.status().reason}")
            pytest.skip("no C core")
    else:
        monkeypatch.setenv("ASYNCMG_WS_CODEC", "portable")
    monkeypatch.setenv("ASYNCMG_BACKEND", request.param)


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


async def echo_peer(peer: Peer) -> None:
    try:
        while True:
            await peer.send(await peer.recv())
    except PeerClosedError:
        pass


def url_of(server: Any) -> str:
    return f"ws://127.0.0.1:{server.port}/"


class Ends:
    """How the handler of a server saw its connection end."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Any] = asyncio.Queue()

    async def next(self) -> Any:
        return await asyncio.wait_for(self.queue.get(), TIMEOUT)


COMPRESSIONS = [
    pytest.param(Compression(), id="15 bits"),
    pytest.param(Compression(bits=10), id="10 bits"),
    pytest.param(Compression(takeover=False), id="no takeover"),
    pytest.param(Compression(bits=9, takeover=False), id="9 bits, no takeover"),
]
DEFLATES = [
    pytest.param(Deflate(), id="default"),
    pytest.param(Deflate(window_bits=15, peer_window_bits=15, threshold=0), id="15 bits"),
    pytest.param(Deflate(window_bits=9, peer_window_bits=9), id="9 bits"),
    pytest.param(Deflate(context_takeover=False, peer_context_takeover=False), id="no takeover"),
]


# -- asyncmg as the server -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [Options(), Options(compression=Compression())], ids=["plain", "compressed"])
async def test_our_echo(client: Client, options: Options) -> None:
    async with asyncmg.ws_serve(echo, "127.0.0.1", 0, limits=LIMITS) as server:
        async with asyncio.timeout(TIMEOUT), client(url_of(server), options) as peer:
            assert peer.is_compressing == (options.compression is not None)
            for message in MESSAGES:
                await peer.send(message)
                assert await peer.recv() == message


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("deflate", DEFLATES)
async def test_our_compression_meets_theirs(client: Client, compression: Compression, deflate: Deflate) -> None:
    async with asyncmg.ws_serve(echo, "127.0.0.1", 0, compression=deflate, limits=LIMITS) as server:
        async with (
            asyncio.timeout(TIMEOUT),
            client(url_of(server), Options(compression=compression)) as peer,
        ):
            assert peer.is_compressing
            for message in [*MESSAGES[:-2], "again and again " * 50, "again and again " * 50, os.urandom(100_000)]:
                await peer.send(message)
                assert await peer.recv() == message


async def test_compression_that_we_do_not_want(client: Client) -> None:
    async with asyncmg.ws_serve(echo, "127.0.0.1", 0, compression=False) as server:
        async with asyncio.timeout(TIMEOUT), client(url_of(server), Options(compression=Compression())) as peer:
            assert not peer.is_compressing
            await peer.send("x" * 1000)
            assert await peer.recv() == "x" * 1000


@pytest.mark.parametrize("compression", [None, Compression()], ids=["plain", "compressed"])
async def test_fragments_from_websockets(compression: Compression | None) -> None:
    pieces: list[str | bytes] = []

    async def handler(ws: Any) -> None:
        async for piece in ws.recv_stream():
            pieces.append(piece)
        assert "".join(map(str, pieces)) == "häppchen" * 3
        assert await ws.recv() == b"abc" * 1000
        await ws.send("done")

    async with asyncmg.ws_serve(handler, "127.0.0.1", 0) as server:
        async with (
            asyncio.timeout(TIMEOUT),
            websockets_client(url_of(server), Options(compression=compression)) as peer,
        ):
            await peer.send(["häp", "pchenhäpp", "", "chenhäppchen"])

            async def fragments() -> AsyncIterator[bytes]:
                for _ in range(10):
                    yield b"abc" * 100
                    await peer.ping()

            await peer.send(fragments())
            assert await peer.recv() == "done"
    assert len(pieces) > 1


@pytest.mark.parametrize("compression", [None, Compression()], ids=["plain", "compressed"])
async def test_fragments_from_us(client: Client, compression: Compression | None) -> None:
    async def handler(ws: Any) -> None:
        async def fragments() -> AsyncIterator[bytes]:
            for number in range(20):
                yield bytes([number]) * 5000
                if number % 5 == 0:
                    await ws.ping()

        await ws.send(fragments())
        await ws.send(["t", "é", "xt" * 100])
        await ws.send("whole")
        assert await ws.recv() == "received"

    async with asyncmg.ws_serve(handler, "127.0.0.1", 0) as server:
        async with asyncio.timeout(TIMEOUT), client(url_of(server), Options(compression=compression)) as peer:
            assert await peer.recv() == b"".join(bytes([number]) * 5000 for number in range(20))
            assert await peer.recv() == "té" + "xt" * 100
            assert await peer.recv() == "whole"
            await peer.send("received")


async def test_pings_of_both_sides(client: Client) -> None:
    latencies = []

    async def handler(ws: Any) -> None:
        # aiohttp answers while it receives: it is waiting for this message then.
        pong = await ws.ping(b"are you there?")
        await ws.send("go on")
        latencies.append(await pong)
        latencies.append(ws.latency)
        await echo(ws)

    async with asyncmg.ws_serve(handler, "127.0.0.1", 0) as server:
        async with asyncio.timeout(TIMEOUT), client(url_of(server), Options()) as peer:
            assert await peer.recv() == "go on"
            await peer.ping()
    assert len(latencies) == 2 and 0 < latencies[0] == latencies[1] < TIMEOUT


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (1000, "", ConnectionClosedOK),
        (1001, "I am off", ConnectionClosedOK),
        (4321, "grüße " * 10, ConnectionClosedError),
        (3000, "x" * 123, ConnectionClosedError),
    ],
)
async def test_closed_by_the_client(client: Client, code: int, reason: str, kind: type[ConnectionClosed]) -> None:
    ends = Ends()

    async def handler(ws: Any) -> None:
        try:
            await ws.recv()
        except ConnectionClosed as closed:
            ends.queue.put_nowait((closed, ws.close_code, ws.close_reason))

    async with asyncmg.ws_serve(handler, "127.0.0.1", 0) as server:
        async with asyncio.timeout(TIMEOUT), client(url_of(server), Options()) as peer:
            await peer.close(code, reason)
            closed, close_code, close_reason = await ends.next()
    assert type(closed) is kind
    assert (closed.code, closed.reason) == (closed.received.code, closed.received.reason) == (code, reason)
    assert closed.sent.code == code
    assert (close_code, close_reason) == (code, reason)


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "maintenance"), (4000, "bye, ünd tschüß")])
async def test_closed_by_our_server(client: Client, code: int, reason: str) -> None:
    async def handler(ws: Any) -> None:
        await ws.send("last words")
        await ws.close(code, reason)

    async with asyncmg.ws_serve(handler, "127.0.0.1", 0) as server:
        async with asyncio.timeout(TIMEOUT), client(url_of(server), Options()) as peer:
            assert await peer.recv() == "last words"
            with pytest.raises(PeerClosedError) as closed:
                await peer.recv()
    assert closed.value == PeerClosedError(code, reason)


async def test_a_handler_that_raises_closes_with_1011(client: Client) -> None:
    async def handler(ws: Any) -> None:
        raise ZeroDivisionError("on purpose")

    errors: list[Exception] = []
    async with asyncmg.ws_serve(handler, "127.0.0.1", 0, error_handler=errors.append) as server:
        async with asyncio.timeout(TIMEOUT), client(url_of(server), Options()) as peer:
            with pytest.raises(PeerClosedError) as closed:
                await peer.recv()
    assert closed.value.code == 1011
    assert [type(error) for error in errors] == [ZeroDivisionError]


async def test_a_message_over_our_limit_closes_with_1009(client: Client) -> None:
    ends = Ends()

    async def handler(ws: Any) -> None:
        try:
            await ws.recv()
        except ConnectionClosed as closed:
            ends.queue.put_nowait(closed)

    limits = Limits(ws=WsLimits(max_message=1000))
    async with asyncmg.ws_serve(handler, "127.0.0.1", 0, limits=limits) as server:
        async with asyncio.timeout(TIMEOUT), client(url_of(server), Options(compression=Compression())) as peer:
            await peer.send("x" * 1001)
            with pytest.raises(PeerClosedError) as their_end:
                await peer.recv()
        our_end = await ends.next()
    assert their_end.value.code == 1009
    assert our_end.sent.code == 1009 and isinstance(our_end.__cause__, LimitExceeded)


async def test_subprotocol_of_our_server(client: Client) -> None:
    seen = []

    async def handler(ws: Any) -> None:
        seen.append(ws.subprotocol)
        await echo(ws)

    async with asyncmg.ws_serve(handler, "127.0.0.1", 0, subprotocols=["mqtt", "chat.v2", "chat.v1"]) as server:
        async with asyncio.timeout(TIMEOUT):
            async with client(url_of(server), Options(subprotocols=("chat.v1", "chat.v2", "other"))) as peer:
                assert peer.subprotocol == "chat.v2"
            async with client(url_of(server), Options(subprotocols=("unknown",))) as peer:
                assert peer.subprotocol is None
            async with client(url_of(server), Options()) as peer:
                assert peer.subprotocol is None
    assert seen == ["chat.v2", "", ""]


async def test_origins_of_our_server(client: Client) -> None:
    async with asyncmg.ws_serve(echo, "127.0.0.1", 0, origins=["https://here.example"]) as server:
        async with asyncio.timeout(TIMEOUT):
            async with client(url_of(server), Options(origin="https://here.example")) as peer:
                await peer.send("hello")
                assert await peer.recv() == "hello"
            for origin in ("https://evil.example", None):
                with pytest.raises((websockets.InvalidStatus, aiohttp.WSServerHandshakeError)) as refused:
                    async with client(url_of(server), Options(origin=origin)):
                        pass
                error = refused.value
                status = error.response.status_code if isinstance(error, websockets.InvalidStatus) else error.status
                assert status == 403


async def test_a_request_that_our_server_answers_itself(client: Client) -> None:
    def process_request(conn: Any, request: Any) -> None:
        if request.uri != "/ws":
            conn.reply(404, "no WebSocket here\n")

    async with asyncmg.ws_serve(echo, "127.0.0.1", 0, process_request=process_request) as server:
        async with asyncio.timeout(TIMEOUT):
            async with client(url_of(server) + "ws", Options()) as peer:
                await peer.send("hello")
                assert await peer.recv() == "hello"
            with pytest.raises((websockets.InvalidStatus, aiohttp.WSServerHandshakeError), match="404"):
                async with client(url_of(server) + "other", Options()):
                    pass


# -- asyncmg as the client -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
async def test_their_echo(server: Server, compressed: bool) -> None:
    async with asyncio.timeout(TIMEOUT), server(echo_peer, Options(compression=Compression())) as url:
        async with asyncmg.ws_connect(url, compression=compressed, limits=LIMITS, proxy=None) as ws:
            for message in MESSAGES:
                await ws.send(message)
                assert await ws.recv() == message


@pytest.mark.parametrize("compression", [None, *COMPRESSIONS])
@pytest.mark.parametrize("deflate", DEFLATES)
async def test_their_compression_meets_ours(server: Server, compression: Compression | None, deflate: Deflate) -> None:
    compressing = []

    async def handler(peer: Peer) -> None:
        compressing.append(peer.is_compressing)
        await echo_peer(peer)

    async with asyncio.timeout(TIMEOUT), server(handler, Options(compression=compression)) as url:
        async with asyncmg.ws_connect(url, compression=deflate, limits=LIMITS, proxy=None) as ws:
            for message in [*MESSAGES[:-2], "again and again " * 50, "again and again " * 50, os.urandom(100_000)]:
                await ws.send(message)
                assert await ws.recv() == message
    assert compressing == [compression is not None]


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
async def test_our_fragments_to_their_server(server: Server, compressed: bool) -> None:
    async with asyncio.timeout(TIMEOUT), server(echo_peer, Options(compression=Compression())) as url:
        async with asyncmg.ws_connect(url, compression=compressed, proxy=None) as ws:

            async def fragments() -> AsyncIterator[str]:
                for number in range(20):
                    yield f"teil {number} " * 300
                    await (await ws.ping())  # a control frame between fragments, and its answer

            await ws.send(fragments())
            assert await ws.recv() == "".join(f"teil {number} " * 300 for number in range(20))
            await ws.send([b"a", b"", b"bc"])
            assert await ws.recv() == b"abc"


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
async def test_fragments_of_a_websockets_server(compressed: bool) -> None:
    async def handler(peer: WebsocketsPeer) -> None:
        async def fragments() -> AsyncIterator[str]:
            for _ in range(10):
                yield "müsli " * 100
                await peer.ping()

        await peer.send(fragments())
        await peer.send([b"abc", b"def"])
        await echo_peer(peer)

    async with asyncio.timeout(TIMEOUT), websockets_server(handler, Options(compression=Compression())) as url:
        async with asyncmg.ws_connect(url, compression=compressed, proxy=None) as ws:
            pieces = [piece async for piece in ws.recv_stream()]
            assert "".join(map(str, pieces)) == "müsli " * 1000
            assert len(pieces) > 1
            assert await ws.recv() == b"abcdef"


async def test_our_client_pings(server: Server) -> None:
    async with asyncio.timeout(TIMEOUT), server(echo_peer, Options()) as url:
        async with asyncmg.ws_connect(url, proxy=None) as ws:
            assert ws.latency == 0
            assert 0 < await (await ws.ping()) == ws.latency < TIMEOUT
            assert 0 < await (await ws.ping("named")) < TIMEOUT


async def test_pings_of_their_server(server: Server) -> None:
    done = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.ping()
        done.set()
        await echo_peer(peer)

    async with asyncio.timeout(TIMEOUT), server(handler, Options()) as url:
        async with asyncmg.ws_connect(url, proxy=None) as ws:
            if server is aiohttp_server:
                await ws.send(await ws.recv())
            await done.wait()


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "leaving"), (4999, "grüße " * 10), (3000, "x" * 123)])
async def test_closed_by_our_client(server: Server, code: int, reason: str) -> None:
    ends = Ends()

    async def handler(peer: Peer) -> None:
        try:
            await peer.recv()
        except PeerClosedError as closed:
            ends.queue.put_nowait(closed)

    async with asyncio.timeout(TIMEOUT), server(handler, Options()) as url:
        async with asyncmg.ws_connect(url, proxy=None) as ws:
            await ws.close(code, reason)
            assert await ends.next() == PeerClosedError(code, reason)
            # websockets answers with our code, aiohttp with 1000.
            assert ws.close_code == (1000 if server is aiohttp_server else code)
            with pytest.raises(ConnectionClosed) as closed:
                await ws.send("too late")
            assert (closed.value.sent.code, closed.value.sent.reason) == (code, reason)


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (1000, "", ConnectionClosedOK),
        (1001, "maintenance", ConnectionClosedOK),
        (1013, "try again later", ConnectionClosedError),
        (4000, "bye, ünd tschüß", ConnectionClosedError),
    ],
)
async def test_closed_by_their_server(server: Server, code: int, reason: str, kind: type[ConnectionClosed]) -> None:
    async def handler(peer: Peer) -> None:
        await peer.send("last words")
        await peer.close(code, reason)

    async with asyncio.timeout(TIMEOUT), server(handler, Options()) as url:
        async with asyncmg.ws_connect(url, proxy=None) as ws:
            assert await ws.recv() == "last words"
            with pytest.raises(ConnectionClosed) as closed:
                await ws.recv()
            assert type(closed.value) is kind
            assert (closed.value.code, closed.value.reason) == (ws.close_code, ws.close_reason) == (code, reason)
            assert closed.value.received.code == closed.value.sent.code == code


async def test_iteration_ends_when_their_server_closes(server: Server) -> None:
    async def handler(peer: Peer) -> None:
        for number in range(100):
            await peer.send(f"{number}")

    async with asyncio.timeout(TIMEOUT), server(handler, Options()) as url:
        async with asyncmg.ws_connect(url, proxy=None) as ws:
            assert [message async for message in ws] == [f"{number}" for number in range(100)]


async def test_a_message_over_our_clients_limit(server: Server) -> None:
    ends = Ends()

    async def handler(peer: Peer) -> None:
        await peer.send("x" * 1001)
        try:
            await peer.recv()
        except PeerClosedError as closed:
            ends.queue.put_nowait(closed.code)

    async with asyncio.timeout(TIMEOUT), server(handler, Options()) as url:
        async with asyncmg.ws_connect(url, limits=Limits(ws=WsLimits(max_message=1000)), proxy=None) as ws:
            with pytest.raises(ConnectionClosedError) as closed:
                await ws.recv()
            assert isinstance(closed.value.__cause__, LimitExceeded)
            assert await ends.next() == 1009


async def test_subprotocol_of_their_server(server: Server) -> None:
    options = Options(subprotocols=("chat.v2", "chat.v1"))
    async with asyncio.timeout(TIMEOUT), server(echo_peer, options) as url:
        async with asyncmg.ws_connect(url, subprotocols=["other", "chat.v1"], proxy=None) as ws:
            assert ws.subprotocol == "chat.v1"


async def test_an_origin_that_their_server_checks(server: Server) -> None:
    async with asyncio.timeout(TIMEOUT), server(echo_peer, Options(origin="https://here.example")) as url:
        async with asyncmg.ws_connect(url, origin="https://here.example", proxy=None) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"
        with pytest.raises(HandshakeFailed) as refused:
            async with asyncmg.ws_connect(url, origin="https://evil.example", proxy=None):
                pass
        assert refused.value.status == 403


async def test_a_handshake_that_their_server_refuses() -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(TIMEOUT))

        def process_request(connection: Any, request: Any) -> Any:
            return connection.respond(401, f"who are you? {request.path}\n")

        server = await stack.enter_async_context(
            websockets.asyncio.server.serve(
                lambda ws: ws.wait_closed(), "127.0.0.1", 0, process_request=process_request
            )
        )
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(HandshakeFailed, match="401") as refused:
            async with asyncmg.ws_connect(f"ws://127.0.0.1:{port}/secret?x=1", proxy=None):
                pass
        assert refused.value.status == 401
        assert refused.value.body == b"who are you? /secret?x=1\n"


async def test_a_page_is_no_websocket() -> None:
    async with asyncio.timeout(TIMEOUT), aiohttp_server(echo_peer, Options()) as url:
        with pytest.raises(HandshakeFailed) as refused:
            async with asyncmg.ws_connect(url + "nothing/here", proxy=None):
                pass
        assert refused.value.status == 404


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("localhost", "127.0.0.1")


async def test_our_wss_server(authority: trustme.CA, certificate: trustme.LeafCert) -> None:
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    tls = TlsOpts(cert=chain, key=certificate.private_key_pem.bytes())
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    async with asyncmg.ws_serve(echo, "127.0.0.1", 0, tls=tls, limits=LIMITS) as server:
        url = f"wss://localhost:{server.port}/"
        async with asyncio.timeout(TIMEOUT):
            async with websockets.asyncio.client.connect(url, ssl=context, proxy=None, max_size=4 << 20) as ws:
                for message in MESSAGES:
                    await ws.send(message)
                    assert await ws.recv() == message


async def test_their_wss_server(authority: trustme.CA, certificate: trustme.LeafCert) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)

    async def handler(ws: Any) -> None:
        await echo_peer(WebsocketsPeer(ws))

    serve = websockets.asyncio.server.serve(handler, "127.0.0.1", 0, ssl=context, max_size=4 << 20)
    async with asyncio.timeout(TIMEOUT), serve as server:
        url = f"wss://localhost:{server.sockets[0].getsockname()[1]}/"
        tls = TlsOpts(ca=authority.cert_pem.bytes())
        async with asyncmg.ws_connect(url, tls=tls, limits=LIMITS, proxy=None) as ws:
            for message in MESSAGES:
                await ws.send(message)
                assert await ws.recv() == message
        with pytest.raises(asyncmg.ConnectFailed, match="certificate"):
            async with asyncmg.ws_connect(url, proxy=None):
                pass
