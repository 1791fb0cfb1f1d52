"""HttpProtocol as a server: what RFC 9112 promises a well-behaved client."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from asyncmg import (
    MG_EV_ACCEPT,
    MG_EV_CLOSE,
    MG_EV_ERROR,
    MG_EV_HTTP_HDRS,
    MG_EV_HTTP_MSG,
    MG_EV_OPEN,
    MG_EV_READ,
    MG_EV_WRITE,
    BusyError,
    Connection,
    ConnectionClosed,
    HttpLimits,
    InvalidHeader,
    Limits,
    LocalProtocolError,
    RemoteProtocolError,
)

from .conftest import Harness, eventually, soon

GET = "GET {} HTTP/1.1\r\nHost: x\r\n\r\n"


def echo(conn: Connection, ev: int, data: Any) -> None:
    if ev == MG_EV_HTTP_MSG:
        conn.reply(200, {"method": data.method, "uri": data.uri, "query": data.query, "body": data.body_text})


async def echo_async(conn: Connection, ev: int, data: Any) -> None:
    await asyncio.sleep(0)
    echo(conn, ev, data)


async def echo_session(conn: Connection) -> None:
    async for ev, data in conn:
        echo(conn, ev, data)


@pytest.mark.parametrize("handler", [echo, echo_async, echo_session])
async def test_keep_alive_and_pipelining_in_order(harness: Harness, handler: Any) -> None:
    listener = harness.serve(handler)
    peer = await harness.peer(listener.port)
    for turn in range(3):
        peer.send(GET.format(f"/{turn}?a=b"))
        status, fields, body = await peer.read_reply()
        assert (status, json.loads(body)["uri"]) == (200, f"/{turn}")
        assert "date" in fields and "server" in fields and "connection" not in fields
    peer.send("".join(GET.format(f"/{n}") for n in range(200)))
    for n in range(200):
        assert json.loads((await peer.read_reply())[2])["uri"] == f"/{n}"


async def test_order_holds_when_later_handlers_are_faster(harness: Harness) -> None:
    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            await asyncio.sleep(0.02 if data.uri == "/slow" else 0)
            conn.reply(200, data.uri)

    peer = await harness.peer(harness.serve(handler).port)
    peer.send(GET.format("/slow") + GET.format("/fast"))
    assert [(await peer.read_reply())[2] for _ in range(2)] == [b"/slow", b"/fast"]


@pytest.mark.parametrize("handler_kind", ["sync", "async"])
async def test_event_order_and_data(harness: Harness, handler_kind: str) -> None:
    seen: list[tuple[int, Any]] = []
    messages: list[Any] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if conn.is_listening:
            return
        seen.append((ev, data if isinstance(data, int | None) else type(data).__name__))
        if ev == MG_EV_HTTP_MSG:
            messages.append(data)
            conn.reply(200, b"ok")

    async def handler_async(conn: Connection, ev: int, data: Any) -> None:
        handler(conn, ev, data)

    listener = harness.serve(handler if handler_kind == "sync" else handler_async)
    peer = await harness.peer(listener.port)
    request = "POST /p?q=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
    peer.send(request)
    await peer.read_reply()
    await peer.close()
    await eventually(lambda: seen[-1][0] == MG_EV_CLOSE)
    events = [ev for ev, _ in seen]
    assert events == [
        MG_EV_OPEN, MG_EV_ACCEPT, MG_EV_HTTP_HDRS, MG_EV_HTTP_MSG, MG_EV_READ, MG_EV_WRITE, MG_EV_CLOSE,
    ]  # fmt: skip
    assert dict(seen)[MG_EV_READ] == len(request)
    assert messages[0].body_bytes == b"abc", "a message owns its bytes: it is whole after the connection has gone"
    assert messages[0].query_var("q") == "1"


async def test_head_204_304_and_http10(harness: Harness) -> None:
    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.reply(int(data.uri[1:]), b"body")

    listener = harness.serve(handler)
    peer = await harness.peer(listener.port)
    peer.send("HEAD /200 HTTP/1.1\r\nHost: x\r\n\r\n")
    status, fields, _ = await peer.read_reply(head=True)
    assert (status, fields["content-length"]) == (200, "4")
    for status in (204, 304):
        peer.send(GET.format(f"/{status}"))
        got, fields, _ = await peer.read_reply()
        assert got == status
        assert "content-length" not in fields and "content-type" not in fields and "transfer-encoding" not in fields
    peer.send(GET.format("/200"))
    assert (await peer.read_reply())[2] == b"body", "nothing of the replies before is left over"

    old = await harness.ask(listener.port, "GET /200 HTTP/1.0\r\n\r\n")
    assert old.endswith(b"\r\n\r\nbody") and b"Connection: close\r\n" in old
    peer = await harness.peer(listener.port)
    for _ in range(2):
        peer.send("GET /200 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (await peer.read_reply())[1]["connection"] == "keep-alive"


async def test_connection_close_and_max_requests(harness: Harness) -> None:
    listener = harness.serve(echo, limits=Limits(http=HttpLimits(max_requests=2)))
    reply = await harness.ask(listener.port, GET.format("/1") + GET.format("/2") + GET.format("/3"))
    assert reply.count(b"HTTP/1.1 200") == 2 and reply.count(b"Connection: close") == 1
    reply = await harness.ask(listener.port, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"Connection: close" in reply


async def test_drain_behind_a_reply_tells_the_client(harness: Harness) -> None:
    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, b"Home page")
            conn.drain()

    reply = await harness.ask(harness.serve(handler).port, GET.format("/"))
    assert b"Connection: close\r\n" in reply and reply.endswith(b"Home page")


async def test_chunked_both_ways_with_trailers(harness: Harness) -> None:
    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, "", {"Transfer-Encoding": "chunked"})
            conn.http_chunk(data.body_bytes)
            conn.http_chunk(repr(data.trailers))
            conn.http_chunk("")

    peer = await harness.peer(harness.serve(handler).port)
    for _ in range(2):
        peer.send(
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            "5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 42\r\n\r\n"
        )
        _, fields, body = await peer.read_reply()
        assert fields["transfer-encoding"] == "chunked" and "content-length" not in fields
        assert body == b"hello![('X-Sum', '42')]"


async def test_stream_to_http10_ends_with_the_connection(harness: Harness) -> None:
    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, "", {"Transfer-Encoding": "chunked"})
            conn.http_chunk("abc")
            conn.http_chunk("")

    reply = await harness.ask(harness.serve(handler).port, "GET / HTTP/1.0\r\n\r\n")
    assert reply.endswith(b"\r\n\r\nabc") and b"chunked" not in reply


async def test_sse_is_valid_and_dead_clients_raise(harness: Harness) -> None:
    clients: list[Connection] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, "", {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
            clients.append(conn)

    peer = await harness.peer(harness.serve(handler).port)
    peer.send(GET.format("/events"))
    await eventually(lambda: clients)
    clients[0].http_sse("update", "two\nlines")
    head = await peer.read_until(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head and b"Content-Length" not in head
    size = int(await peer.read_until(b"\r\n"), 16)
    assert await peer.read_exactly(size) == b"event: update\ndata: two\ndata: lines\n\n"
    await peer.close()
    with pytest.raises(RuntimeError, match="Connection has been closed"):
        async with asyncio.timeout(10):
            while True:  # the client may only have closed its sending side: the first events find out
                clients[0].http_sse("update", "x")
                await asyncio.sleep(0.001)


async def test_expect_100_continue(harness: Harness) -> None:
    listener = harness.serve(echo)
    peer = await harness.peer(listener.port)
    peer.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert await peer.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    peer.send("abc")
    assert json.loads((await peer.read_reply())[2])["body"] == "abc"


async def test_early_reply_refuses_the_content(harness: Harness) -> None:
    messages: list[Any] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_HDRS and data.method == "POST":
            conn.reply(401, b"no")
        elif ev == MG_EV_HTTP_MSG:
            messages.append(data)
            conn.reply(200, b"ok")

    listener = harness.serve(handler)
    peer = await harness.peer(listener.port)
    peer.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n")
    status, fields, _ = await peer.read_reply()
    assert (status, fields["connection"]) == (401, "close")
    assert await peer.read_all() == b""
    # The same while the content is already under way: the reply must not be lost to a reset.
    peer = await harness.peer(listener.port)
    peer.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + bytes(1_000_000))
    assert (await peer.read_reply())[0] == 401
    # And without content the connection goes on, and HTTP_MSG does not follow.
    peer = await harness.peer(listener.port)
    peer.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" + GET.format("/next"))
    assert [(await peer.read_reply())[0] for _ in range(2)] == [401, 200]
    assert [message.uri for message in messages] == ["/next"]


async def test_delayed_reply_from_elsewhere(harness: Harness) -> None:
    held: list[Connection] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            held.append(conn)

    peer = await harness.peer(harness.serve(handler).port)
    peer.send(GET.format("/1") + GET.format("/2"))
    await eventually(lambda: held)
    assert len(held) == 1, "the second request waits for the first reply"
    held[0].reply(200, b"one")
    assert (await peer.read_reply())[2] == b"one"
    assert len(held) == 2
    asyncio.get_running_loop().call_soon(held[1].reply, 200, b"two")
    assert (await peer.read_reply())[2] == b"two"


async def test_half_closed_client_gets_its_reply(harness: Harness) -> None:
    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            await asyncio.sleep(0.02)
            conn.reply(200, b"late")

    peer = await harness.peer(harness.serve(handler).port)
    peer.send(GET.format("/1") + GET.format("/2"))
    peer.send_eof()
    assert (await peer.read_all()).count(b"late") == 2


@pytest.mark.parametrize("where", ["hdrs", "msg", "async msg", "session"])
async def test_a_handler_that_raises_gives_500_and_the_server_lives(harness: Harness, where: str) -> None:
    def fail(conn: Connection, ev: int, data: Any) -> None:
        if ev in (MG_EV_HTTP_HDRS, MG_EV_HTTP_MSG) and data.uri == "/ok":
            if ev == MG_EV_HTTP_MSG:
                conn.reply(200, b"fine")
        elif ev == (MG_EV_HTTP_HDRS if where == "hdrs" else MG_EV_HTTP_MSG):
            raise ZeroDivisionError("boom")

    async def fail_async(conn: Connection, ev: int, data: Any) -> None:
        await asyncio.sleep(0)
        fail(conn, ev, data)

    async def session(conn: Connection) -> None:
        async for ev, data in conn:
            fail(conn, ev, data)

    handlers: dict[str, Any] = {"hdrs": fail, "msg": fail, "async msg": fail_async, "session": session}
    listener = harness.serve(handlers[where])
    peer = await harness.peer(listener.port)
    peer.send(GET.format("/bad"))
    assert (await peer.read_reply())[0] == 500
    assert [str(error) for error in harness.errors] == ["boom"]
    if where == "session":  # its task has ended: nobody would serve the connection
        assert await peer.read_all() == b""
        peer = await harness.peer(listener.port)
    peer.send(GET.format("/ok"))
    assert (await peer.read_reply())[2] == b"fine"


async def test_raising_in_the_middle_of_a_stream_cuts_it(harness: Harness) -> None:
    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, "", {"Transfer-Encoding": "chunked"})
            conn.http_chunk("part")
            asyncio.get_running_loop().call_soon(conn.handle_event, 100, None)
        elif ev == 100:
            raise ZeroDivisionError

    peer = await harness.peer(harness.serve(handler).port)
    peer.send(GET.format("/"))
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await peer.read_reply()


async def test_misuse_raises_and_does_no_harm(harness: Harness) -> None:
    raised: list[type[BaseException]] = []

    def expect(error: type[BaseException], call: Any, *args: Any) -> None:
        with pytest.raises(error):
            call(*args)
        raised.append(error)

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            expect(InvalidHeader, conn.reply, 200, b"", {"X": "a\r\nSet-Cookie: b"})
            expect(ValueError, conn.reply, 200, b"", {"X\n": "a"})
            expect(InvalidHeader, conn.reply, 200, b"abc", {"Content-Length": "4"})
            expect(InvalidHeader, conn.reply, 200, b"abc", {"Transfer-Encoding": "gzip"})
            expect(ValueError, conn.reply, 101)
            expect(TypeError, conn.reply, 200, object())
            expect(LocalProtocolError, conn.http_chunk, b"x")
            conn.reply(200, b"a\0b")
            expect(LocalProtocolError, conn.reply, 200, b"twice")

    peer = await harness.peer(harness.serve(handler).port)
    peer.send(GET.format("/"))
    assert (await peer.read_reply())[2] == b"a\0b"
    assert len(raised) == 8 and not harness.errors


async def test_body_types(harness: Harness) -> None:
    bodies: dict[str, Any] = {
        "/dict": {"ä": 1},
        "/list": [1],
        "/text": "täxt",
        "/html": "<!DOCTYPE html><p>x",
        "/bytes": b"\xff",
        "/none": None,
    }

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, bodies[data.uri])

    peer = await harness.peer(harness.serve(handler).port)
    got = {}
    for uri in bodies:
        peer.send(GET.format(uri))
        _, fields, body = await peer.read_reply()
        got[uri] = (fields.get("content-type"), body)
    assert got == {
        "/dict": ("application/json", '{"ä":1}'.encode()),
        "/list": ("application/json", b"[1]"),
        "/text": ("text/plain; charset=utf-8", "täxt".encode()),
        "/html": ("text/html; charset=utf-8", b"<!DOCTYPE html><p>x"),
        "/bytes": ("text/plain; charset=utf-8", b"\xff"),
        "/none": (None, b""),
    }


async def test_streamed_request_with_back_pressure(harness: Harness) -> None:
    """A reader that waits stops the sender: memory stays bounded, nothing is lost, max_body does not apply."""
    size = 8 << 20
    go = asyncio.Event()
    held: list[int] = []

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_HDRS:
            total = 0
            stream = data.stream()
            total += len(await anext(stream))
            await go.wait()
            async for chunk in stream:
                total += len(chunk)
                held.append(conn.recv_len)
            conn.reply(200, str(total))
        assert ev != MG_EV_HTTP_MSG

    peer = await harness.peer(harness.serve(handler).port)
    peer.send(f"POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n")
    peer.writer.transport.set_write_buffer_limits(high=0)
    sent = 0
    chunk = bytes(64 << 10)

    async def push() -> None:
        nonlocal sent
        while sent < size:
            peer.send(chunk)
            await peer.writer.drain()
            sent += len(chunk)

    pushing = asyncio.create_task(push())
    before = -1
    while sent != before:  # until the pipe is full
        before = sent
        await asyncio.sleep(0.02)
    assert sent < size, "the server must stop reading"
    go.set()
    await soon(pushing)
    assert int((await peer.read_reply())[2]) == size
    assert max(held) <= 256 << 10
    peer.send(GET.format("/up2").replace("GET", "POST").replace("\r\n\r\n", "\r\nContent-Length: 1\r\n\r\nx"))
    assert (await peer.read_reply())[2] == b"1", "the connection goes on"


async def test_stream_taken_twice_is_refused(harness: Harness) -> None:
    refused = asyncio.Event()

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_HDRS:
            first = asyncio.create_task(anext(data.stream()))
            await asyncio.sleep(0)
            with pytest.raises(BusyError):
                data.stream()
            refused.set()
            conn.reply(200, await first)

    peer = await harness.peer(harness.serve(handler).port)
    peer.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n")
    await soon(refused.wait())
    peer.send("y")
    assert (await peer.read_reply())[2] == b"y"


async def test_client_gone_in_the_middle_of_the_content(harness: Harness) -> None:
    """No HTTP_MSG with half a body; the reader of a stream gets an exception."""
    events: list[int] = []
    errors: list[BaseException] = []

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        events.append(ev)
        if ev == MG_EV_HTTP_HDRS and data.uri == "/stream":
            try:
                async for _ in data.stream():
                    pass
            except Exception as exc:
                errors.append(exc)

    listener = harness.serve(handler)
    for uri in ("/buffer", "/stream"):
        for vanish in ("eof", "reset"):
            events.clear()
            peer = await harness.peer(listener.port)
            peer.send(f"POST {uri} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
            await eventually(lambda: MG_EV_HTTP_HDRS in events)
            if vanish == "eof":
                peer.send_eof()
                assert b" 400 " in await peer.read_all()
            else:
                peer.reset()
            await eventually(lambda: MG_EV_CLOSE in events)
            assert MG_EV_HTTP_MSG not in events
            assert MG_EV_ERROR in events
    assert [type(error) for error in errors] == [RemoteProtocolError, ConnectionClosed]


async def test_raw_replies_are_understood(harness: Harness) -> None:
    """Programs for Mongoose write replies by hand; the connection must know where they end."""

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG and data.uri == "/chunked":
            conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            conn.http_chunk("a")
            conn.http_chunk("b")
            conn.http_chunk("")
        elif ev == MG_EV_HTTP_MSG:
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
            conn.send("hi")

    peer = await harness.peer(harness.serve(handler).port)
    peer.send(GET.format("/chunked") + GET.format("/length") + GET.format("/chunked"))
    assert [(await peer.read_reply())[2] for _ in range(3)] == [b"ab", b"hi", b"ab"]


async def test_large_reply_is_linear_and_whole(harness: Harness) -> None:
    body = bytes(range(256)) * (40 << 10)  # 10 MiB

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, body)
            if data.uri == "/drain":
                conn.drain()

    listener = harness.serve(handler)
    for uri in ("/keep", "/drain"):
        peer = await harness.peer(listener.port)
        peer.send(GET.format(uri))
        assert (await peer.read_reply())[2] == body


async def test_upgrade_hands_over_the_bytes(harness: Harness) -> None:
    from asyncmg import StreamProtocol

    got: list[bytes] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            if data.header("Upgrade") is None:
                with pytest.raises(LocalProtocolError):
                    conn.http_upgrade(StreamProtocol)
                conn.reply(400)
            else:
                conn.http_upgrade(StreamProtocol, {"X-Extra": "1"})
        elif ev == MG_EV_READ and not isinstance(data, type(None)) and conn.recv_len:
            got.append(conn.read())
            conn.send(b"echo:" + got[-1])

    peer = await harness.peer(harness.serve(handler).port)
    peer.send(GET.format("/"))
    assert (await peer.read_reply())[0] == 400
    peer.send("GET /up HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\nfirst bytes")
    status, fields, _ = await peer.read_reply()
    assert (status, fields["upgrade"], fields["x-extra"]) == (101, "raw", "1")
    assert await peer.read_exactly(16) == b"echo:first bytes"
    peer.send("more")
    assert await peer.read_exactly(9) == b"echo:more"
    assert b"".join(got) == b"first bytesmore"


async def test_files_in_bounded_pieces(harness: Harness, tmp_path: Any) -> None:
    (tmp_path / "big.bin").write_bytes(bytes(range(256)) * 20_000)
    (tmp_path / "index.html").write_text("<p>hi")

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.serve_dir(data, tmp_path, extra_headers="Cache-Control: max-age=3600")

    peer = await harness.peer(harness.serve(handler).port)
    for method in ("GET", "HEAD"):
        peer.send(f"{method} /big.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        status, fields, body = await peer.read_reply(head=method == "HEAD")
        assert (status, fields["content-length"], fields["cache-control"]) == (200, "5120000", "max-age=3600")
        assert body == (bytes(range(256)) * 20_000 if method == "GET" else b"")
    peer.send(f"GET /big.bin HTTP/1.1\r\nHost: x\r\nIf-None-Match: {fields['etag']}\r\n\r\n" + GET.format("/"))
    assert (await peer.read_reply())[0] == 304
    assert (await peer.read_reply())[2] == b"<p>hi"
    peer.send(GET.format("/../secret") + GET.format("/nothing"))
    assert [(await peer.read_reply())[0] for _ in range(2)] == [400, 404]


async def test_file_that_shrinks_while_being_sent_cuts_the_connection(harness: Harness) -> None:
    def chunks() -> Any:
        yield b"abc"

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, chunks(), {"Content-Length": 10})

    peer = await harness.peer(harness.serve(handler).port)
    peer.send(GET.format("/"))
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await peer.read_reply()
