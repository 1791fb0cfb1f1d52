"""ws_connect, ws_serve and WebSocket: what users of coroutines see."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trustme

import asyncmg
from asyncmg import (
    BusyError,
    ConnectFailed,
    Connection,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    Deflate,
    HandshakeFailed,
    HttpMessage,
    InvalidUrl,
    Limits,
    LocalProtocolError,
    TlsOpts,
    WebSocket,
    WsLimits,
    WsServer,
    ws_connect,
    ws_serve,
)

from .conftest import RawPeer, eventually, soon
from .ws_peer import WHOLE_CLOSE, WHOLE_TEXT, Frame, masked, read_frame, shake_hands


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


def serve(handler: Any = echo, **options: Any) -> WsServer:
    return ws_serve(handler, "127.0.0.1", 0, **options)


def url(server: WsServer, path: str = "/") -> str:
    return f"ws://127.0.0.1:{server.port}{path}"


async def test_echo() -> None:
    async with serve() as server, ws_connect(url(server)) as ws:
        for message in ["grüße", b"\x00\xff", "", b"", "x" * 200_000, b"y" * 200_000]:
            await ws.send(message)
            assert await soon(ws.recv()) == message
        await ws.send(bytearray(b"a"))
        await ws.send(memoryview(b"b"))
        assert [await soon(ws.recv()), await soon(ws.recv())] == [b"a", b"b"]
        assert ws.is_open and ws.close_code is None and ws.close_reason is None
        assert ws.remote_addr is not None and ws.remote_addr.port == server.port and ws.local_addr is not None
    assert not ws.is_open and ws.close_code == 1000 and ws.close_reason == ""
    with pytest.raises(ConnectionClosedOK):
        await ws.recv()
    with pytest.raises(ConnectionClosedOK):
        await ws.send("x")
    assert [message async for message in ws] == []


async def test_awaited() -> None:
    server = await serve()
    ws = await ws_connect(url(server))
    await ws.send("x")
    assert await soon(ws.recv()) == "x"
    await ws.close(3000, "done")
    assert ws.close_code == 3000
    server.close()
    await soon(server.wait_closed())


async def test_many_messages_in_flight() -> None:
    async with serve() as server, ws_connect(url(server), compression=False) as ws:

        async def send() -> None:
            for i in range(2000):
                await ws.send(str(i))

        sending = asyncio.create_task(send())
        assert [await soon(ws.recv()) for _ in range(2000)] == [str(i) for i in range(2000)]
        await sending


async def test_path_and_request() -> None:
    seen: list[Any] = []

    async def handler(ws: WebSocket, path: str) -> None:  # as in older releases of websockets
        seen.append((path, ws.path, ws.request.header("X-A"), ws.request.header("Authorization")))

    async with serve(handler) as server:
        async with ws_connect(url(server, "/a?b=c").replace("//", "//me:pw@"), headers={"X-A": "1"}) as ws:
            with pytest.raises(ConnectionClosedOK) as caught:
                await soon(ws.recv())
            assert caught.value.code == 1000
    assert seen == [("/a?b=c", "/a?b=c", "1", "Basic bWU6cHc=")]
    assert ws.request.status() == 101


async def test_fragments_out() -> None:
    async def fragments() -> AsyncIterator[str]:
        for part in ["a", "ü" * 40_000, "", "c"]:
            await asyncio.sleep(0)
            yield part

    async with serve() as server, ws_connect(url(server)) as ws:
        await ws.send(fragments())
        assert await soon(ws.recv()) == "a" + "ü" * 40_000 + "c"
        await ws.send([b"x", b"y"])
        assert await soon(ws.recv()) == b"xy"
        await ws.send(iter(()))  # no fragment: no message
        await ws.send("still alive")
        assert await soon(ws.recv()) == "still alive"


async def test_other_messages_wait_for_a_fragmented_one() -> None:
    go_on = asyncio.Event()

    async def fragments() -> AsyncIterator[str]:
        yield "a"
        await go_on.wait()
        yield "b"

    async with serve() as server, ws_connect(url(server)) as ws:
        first = asyncio.create_task(ws.send(fragments()))
        await asyncio.sleep(0)
        second = asyncio.create_task(ws.send("whole"))
        third = asyncio.create_task(ws.send(["c", "d"]))
        await asyncio.sleep(0.01)
        assert not second.done()
        with pytest.raises(LocalProtocolError):
            ws.conn.ws_send("in between")
        go_on.set()
        await soon(asyncio.gather(first, second, third))
        assert sorted([await soon(ws.recv()) for _ in range(3)]) == ["ab", "cd", "whole"]


async def test_a_fragmented_message_that_is_cut_short() -> None:
    async def fragments() -> AsyncIterator[str]:
        yield "a"
        raise KeyError("source is broken")

    async with serve() as server, ws_connect(url(server)) as ws:
        with pytest.raises(KeyError):
            await ws.send(fragments())
        with pytest.raises(ConnectionClosedError):
            await ws.send("x")
        await soon(ws.wait_closed())


async def test_what_is_no_message() -> None:
    async with serve() as server, ws_connect(url(server)) as ws:
        for wrong in (7, None, {"a": 1}):
            with pytest.raises(TypeError):
                await ws.send(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await ws.send(["a", b"b"])


@pytest.mark.parametrize("compression", [True, False])
async def test_fragments_in(compression: bool) -> None:
    async with serve(compression=compression) as server, ws_connect(url(server)) as ws:
        text = "üß" * 50_000
        await ws.send(text)
        pieces = [piece async for piece in ws.recv_stream()]
        assert "".join(pieces) == text
        assert compression or len(pieces) > 1
        await ws.send(b"whole")
        assert [piece async for piece in ws.recv_stream()] == [b"whole"]


async def test_the_rest_of_a_stream_that_is_left_is_dropped() -> None:
    async with serve(compression=False) as server, ws_connect(url(server)) as ws:
        await ws.send("x" * 300_000)
        await ws.send("next")
        stream = ws.recv_stream()
        await soon(anext(stream))
        await stream.aclose()
        assert [piece async for piece in stream] == []
        assert await soon(ws.recv()) == "next"


async def test_ping() -> None:
    async with serve() as server, ws_connect(url(server)) as ws:
        assert ws.latency == 0.0
        latency = await soon(await ws.ping())
        assert latency > 0 and ws.latency == latency
        await soon(await ws.ping("named"))
        first, second = await ws.ping(b"1"), await ws.ping(b"2")
        with pytest.raises(LocalProtocolError):
            await ws.ping(b"2")
        await soon(asyncio.gather(first, second))


async def test_ping_that_is_never_answered() -> None:
    async with serve() as server:
        ws = await ws_connect(url(server))
        waiter = await ws.ping()
        ws.conn.close()
        with pytest.raises(ConnectionClosed):
            await soon(waiter)


async def test_two_receivers() -> None:
    async with serve() as server, ws_connect(url(server)) as ws:
        first = asyncio.create_task(ws.recv())
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await ws.recv()
        await ws.send("x")
        assert await soon(first) == "x"


async def test_cancelled_recv_loses_nothing() -> None:
    async with serve() as server, ws_connect(url(server)) as ws:
        for i in range(20):
            receiving = asyncio.create_task(ws.recv())
            await asyncio.sleep(0)
            await ws.send(str(i))
            if i % 2:
                await asyncio.sleep(0.002)
            receiving.cancel()
            try:
                got = await receiving
            except asyncio.CancelledError:
                got = await soon(ws.recv())
            assert got == str(i)


async def test_cancelled_in_the_middle_of_a_message() -> None:
    cancelled = asyncio.Event()

    async def handler(ws: WebSocket) -> None:
        receiving = asyncio.ensure_future(ws.recv())
        await eventually(lambda: ws._partial)
        receiving.cancel()
        await asyncio.wait([receiving])
        cancelled.set()
        await ws.send(await ws.recv())

    async with serve(handler) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        peer = RawPeer(reader, writer)
        await shake_hands(peer)
        peer.send(masked(1, b"a"))
        await soon(cancelled.wait())
        peer.send(masked(0x80, b"b"))
        assert await read_frame(peer) == Frame(WHOLE_TEXT, b"ab")
        writer.close()


async def _connections(server: WsServer, count: int) -> list[WebSocket]:
    await eventually(lambda: len(server.connections) == count)
    return list(server.connections)


async def test_handler_that_raises() -> None:
    errors: list[Exception] = []

    async def handler(ws: WebSocket) -> None:
        raise KeyError("x")

    async with serve(handler, error_handler=errors.append) as server, ws_connect(url(server)) as ws:
        with pytest.raises(ConnectionClosedError) as caught:
            await soon(ws.recv())
        assert caught.value.code == 1011 and caught.value.received == (1011, "")
    assert [type(error) for error in errors] == [KeyError]


async def test_server_stops_gracefully() -> None:
    errors: list[Exception] = []
    async with serve(error_handler=errors.append) as server:
        ws = await ws_connect(url(server))
        receiving = asyncio.create_task(ws.recv())
        await asyncio.sleep(0)
    with pytest.raises(ConnectionClosedOK) as caught:
        await soon(receiving)
    assert caught.value.code == 1001
    assert not server.connections and not errors


async def test_peer_that_vanishes() -> None:
    ended: list[Exception] = []

    async def handler(ws: WebSocket) -> None:
        try:
            async for _ in ws:
                pass
        except ConnectionClosed as exc:
            ended.append(exc)

    async with serve(handler) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        peer = RawPeer(reader, writer)
        await shake_hands(peer)
        peer.send(masked(WHOLE_TEXT, b"x"))
        writer.close()
        await eventually(lambda: ended)
    [error] = ended
    assert isinstance(error, ConnectionClosedError) and error.code == 1006


async def test_close_while_nobody_reads() -> None:
    """What the peer has sent fills the queue: its close frame is read all the same."""

    async def flood(ws: WebSocket) -> None:
        for _ in range(2000):
            await ws.send(b"x" * 1000)
        await ws.wait_closed()

    async with serve(flood, compression=False) as server:
        ws = await ws_connect(url(server), limits=Limits(ws=WsLimits(max_queued=2)))
        await eventually(lambda: ws.protocol.is_full)
        await soon(ws.close())
        assert ws.close_code == 1000
        assert await ws.recv() == b"x" * 1000  # what had come before


async def test_subprotocols_and_origins() -> None:
    async with serve(subprotocols=["a", "b"], origins=["https://good.example"]) as server:
        async with ws_connect(url(server), subprotocols=["b", "c"], origin="https://good.example") as ws:
            assert ws.subprotocol == "b"
        with pytest.raises(HandshakeFailed) as caught:
            await ws_connect(url(server), origin="https://evil.example")
        assert caught.value.status == 403 and b"origin" in caught.value.body
        with pytest.raises(HandshakeFailed):
            await ws_connect(url(server))


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_process_request(asynchronous: bool) -> None:
    def check(conn: Connection, request: HttpMessage) -> Any:
        if request.path == "/health":
            conn.reply(200, "fine\n")
        elif request.header("Authorization") != "Bearer x":
            conn.reply(401, "who are you?\n", {"WWW-Authenticate": "Bearer"})

    async def check_later(conn: Connection, request: HttpMessage) -> None:
        await asyncio.sleep(0.001)
        check(conn, request)

    async with serve(process_request=check_later if asynchronous else check) as server:
        async with ws_connect(url(server), headers={"Authorization": "Bearer x"}) as ws:
            await ws.send("x")
            assert await soon(ws.recv()) == "x"
        with pytest.raises(HandshakeFailed) as caught:
            await ws_connect(url(server))
        assert caught.value.status == 401 and ("WWW-Authenticate", "Bearer") in caught.value.headers
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        peer = RawPeer(reader, writer)
        peer.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await peer.read_reply())[::2] == (200, b"fine\n")
        writer.close()


async def test_process_request_that_raises() -> None:
    errors: list[Exception] = []

    async def check(conn: Connection, request: HttpMessage) -> None:
        raise KeyError("x")

    async with serve(process_request=check, error_handler=errors.append) as server:
        with pytest.raises(HandshakeFailed) as caught:
            await ws_connect(url(server))
        assert caught.value.status == 500
    assert [type(error) for error in errors] == [KeyError]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (True, True),
        (True, False),
        (False, True),
        (Deflate(window_bits=9, peer_window_bits=15), Deflate(window_bits=15, peer_window_bits=9)),
        (Deflate(context_takeover=False), Deflate(peer_context_takeover=False, threshold=0)),
        (Deflate(peer_context_takeover=False, level=1, memory_level=9), True),
    ],
)
async def test_compression(ours: bool | Deflate, theirs: bool | Deflate) -> None:
    async with serve(compression=theirs) as server, ws_connect(url(server), compression=ours) as ws:
        assert (ws.protocol._deflate is not None) == bool(ours and theirs)
        for message in ["", "a", "again and again " * 100, b"\x00" * 100_000, "again and again " * 100, b""]:
            await ws.send(message)
            assert await soon(ws.recv()) == message
        await ws.send(["again ", "and ", "again"])
        assert await soon(ws.recv()) == "again and again"


async def test_tls() -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    async with serve(tls=context) as server:
        address = f"wss://localhost:{server.port}/"
        async with ws_connect(address, tls=TlsOpts(ca=authority.cert_pem.bytes())) as ws:
            await ws.send("secret " * 20_000)
            assert await soon(ws.recv()) == "secret " * 20_000
        with pytest.raises(ConnectFailed):
            await ws_connect(address)


async def test_nobody_listens() -> None:
    async with serve() as server:
        address = url(server)
    with pytest.raises(ConnectFailed):
        await ws_connect(address)
    with pytest.raises(InvalidUrl):
        ws_connect("tcp://127.0.0.1:1")


async def test_timeout() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    with pytest.raises(ConnectFailed):
        await ws_connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=0.05)
    server.close()


async def test_cancelled_connect() -> None:
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        connecting.cancel()
        await reader.read()
        gone.set()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    connecting = asyncio.ensure_future(_entered(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    with pytest.raises(asyncio.CancelledError):
        await connecting
    await soon(gone.wait())
    server.close()


async def _entered(address: str) -> None:
    async with ws_connect(address):
        raise AssertionError("there is no server")


async def test_reconnect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncmg.ws_client._FIRST_DELAY", 0.001)
    count = 0

    async def handler(ws: WebSocket) -> None:
        nonlocal count
        count += 1
        await ws.send(str(count))
        if count % 2:
            ws.conn.close()  # without a word

    refused = 0

    def check(conn: Connection, request: HttpMessage) -> None:
        nonlocal refused
        if count == 2 and refused < 2:
            refused += 1
            conn.reply(503, "come back\n")

    got: list[str | bytes] = []
    async with serve(handler, process_request=check) as server, asyncio.timeout(20):
        async for ws in ws_connect(url(server)):
            try:
                got.append(await ws.recv())
            except ConnectionClosed:
                continue
            if len(got) == 4:
                break
        assert got == ["1", "2", "3", "4"] and refused == 2
        await ws.close()

        with pytest.raises(HandshakeFailed):  # not one that another try would mend
            async for _ in ws_connect(url(server), headers={"Sec-WebSocket-Extensions2": "x"}, origin="x"):
                count = 2
                refused = 0
                monkeypatch.setattr("asyncmg.ws_client._TRANSIENT", frozenset())


async def test_entered_twice() -> None:
    async with serve() as server:
        connector = ws_connect(url(server))
        async with connector:
            with pytest.raises(BusyError):
                await connector.__aenter__()
        async with connector as ws:  # one after the other is fine
            assert ws.is_open


async def test_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head)
        if b"Proxy-Authorization" not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        host, _, port = head.split()[1].decode().rpartition(":")
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for name in ("HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://me:pw@127.0.0.1:{port}")
    async with serve() as target:
        async with ws_connect(url(target)) as ws:
            await ws.send("through")
            assert await soon(ws.recv()) == "through"
        assert seen[0].startswith(f"CONNECT 127.0.0.1:{target.port} HTTP/1.1\r\n".encode())
        with pytest.raises(HandshakeFailed) as caught:
            await ws_connect(url(target), proxy=f"http://127.0.0.1:{port}")
        assert caught.value.status == 407
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with ws_connect(url(target)) as ws:
            await ws.send("straight")
            assert await soon(ws.recv()) == "straight"
        async with ws_connect(url(target), proxy=None) as ws:
            pass
        assert len(seen) == 2
        with pytest.raises(InvalidUrl):
            ws_connect(url(target), proxy="socks5://127.0.0.1:1")
    server.close()


async def test_connections_of_a_server() -> None:
    async with serve() as server:
        async with ws_connect(url(server)), ws_connect(url(server)):
            assert len(await _connections(server, 2)) == 2
            asyncmg.broadcast(server.connections, "to all")
        await _connections(server, 0)


async def test_close_frame_without_a_code() -> None:
    async with serve() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        peer = RawPeer(reader, writer)
        await shake_hands(peer)
        [ws] = await _connections(server, 1)
        peer.send(masked(WHOLE_CLOSE))
        assert await read_frame(peer) == Frame(WHOLE_CLOSE, b"")
        await soon(ws.wait_closed())
        assert ws.close_code == 1005
        writer.close()
