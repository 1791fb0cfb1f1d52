"""Streams out: iterators, async iterators, events, parts, lines of JSON; and who looks at replies before they leave."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from asyncmg import (
    MG_EV_CLOSE,
    MG_EV_HTTP_HDRS,
    MG_EV_HTTP_MSG,
    BufferLimits,
    Connection,
    ConnectionClosed,
    Cookie,
    HttpLimits,
    HttpMessage,
    InvalidHeader,
    Limits,
    LocalProtocolError,
    ReplyDraft,
)

from .conftest import Harness, eventually, soon

GET = "GET {} HTTP/1.1\r\nHost: x\r\n\r\n"


def on_message(reply: Any) -> Any:
    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            reply(conn, data)

    return handler


# -- iterators -----------------------------------------------------------------------------------------------------


async def numbers(count: int) -> AsyncIterator[str | bytes]:
    for number in range(count):
        yield f"{number} " if number % 2 else b"%d " % number
        await asyncio.sleep(0)


def plain_numbers(count: int) -> Iterator[str | bytes]:
    for number in range(count):
        yield f"{number} " if number % 2 else b"%d " % number


EXPECTED = b"".join(b"%d " % number for number in range(500))


@pytest.mark.parametrize("make", [numbers, plain_numbers])
async def test_iterators_as_bodies(harness: Harness, make: Any) -> None:
    def reply(conn: Connection, message: HttpMessage) -> None:
        conn.reply(200, make(500), {"Content-Length": len(EXPECTED)} if message.uri == "/length" else None)

    peer = await harness.peer(harness.serve(on_message(reply)).port)
    peer.send(GET.format("/") + GET.format("/length") + "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" + GET.format("/"))
    status, fields, body = await peer.read_reply()
    assert (status, fields["transfer-encoding"], body) == (200, "chunked", EXPECTED)
    assert fields["content-type"] == "text/plain; charset=utf-8"
    status, fields, body = await peer.read_reply()
    assert (status, fields["content-length"], body) == (200, str(len(EXPECTED)), EXPECTED)
    assert (await peer.read_reply(head=True))[1]["transfer-encoding"] == "chunked"
    assert (await peer.read_reply())[2] == EXPECTED


@pytest.mark.parametrize("make", [numbers, plain_numbers])
async def test_iterators_to_a_client_without_chunks(harness: Harness, make: Any) -> None:
    listener = harness.serve(on_message(lambda conn, message: conn.reply(200, make(500))))
    raw = await harness.ask(listener.port, "GET / HTTP/1.0\r\n\r\n")
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head and b"Connection: close" in head and body == EXPECTED


@pytest.mark.parametrize("length", [3, 100])
@pytest.mark.parametrize("make", [numbers, plain_numbers])
async def test_another_length_than_announced_cuts_the_connection(harness: Harness, make: Any, length: int) -> None:
    listener = harness.serve(on_message(lambda conn, message: conn.reply(200, make(10), {"Content-Length": length})))
    peer = await harness.peer(listener.port)
    peer.send(GET.format("/"))
    if length == 100:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await peer.read_reply()
    else:
        try:
            assert len(await peer.read_all()) < 300  # never a byte more than was announced
        except ConnectionResetError:
            pass


class Broken(Exception):
    pass


async def test_an_iterator_that_raises_cuts_the_connection(harness: Harness) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"abc"
        raise Broken

    def plainly_broken() -> Iterator[bytes]:
        yield b"abc"
        raise Broken

    async def not_bytes() -> AsyncIterator[Any]:
        yield 7

    bodies = {"/a": broken, "/b": plainly_broken, "/c": not_bytes}
    listener = harness.serve(on_message(lambda conn, message: conn.reply(200, bodies[message.uri]())))
    for uri in bodies:
        peer = await harness.peer(listener.port)
        peer.send(GET.format(uri))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await peer.read_reply()


async def test_the_iterator_is_closed_when_the_client_leaves(harness: Harness) -> None:
    closed: list[str] = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(10_000)
        finally:
            await asyncio.sleep(0)
            closed.append("async")

    def plainly_endless() -> Iterator[bytes]:
        try:
            while True:
                yield bytes(10_000)
        finally:
            closed.append("plain")

    async def idle() -> AsyncIterator[bytes]:
        try:
            yield b"x"
            await asyncio.get_running_loop().create_future()
        finally:
            closed.append("idle")

    bodies = {"/async": endless, "/plain": plainly_endless, "/idle": idle}
    listener = harness.serve(on_message(lambda conn, message: conn.reply(200, bodies[message.uri]())))
    for uri in bodies:
        peer = await harness.peer(listener.port)
        peer.send(GET.format(uri))
        await peer.read_until(b"\r\n\r\n")
        peer.reset()
    await eventually(lambda: sorted(closed) == ["async", "idle", "plain"])


async def test_an_iterator_for_a_connection_that_is_closed_is_closed_too(harness: Harness) -> None:
    closed: list[str] = []
    kept: list[Connection] = []

    async def body() -> AsyncIterator[bytes]:
        closed.append("begun")
        yield b""

    class Watched:
        def __init__(self) -> None:
            self.source = body()

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self.source

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            kept.append(conn)
        elif ev == MG_EV_CLOSE:
            closed.append("closed")

    peer = await harness.peer(harness.serve(handler).port)
    peer.send(GET.format("/"))
    await eventually(lambda: kept)
    peer.reset()
    await eventually(lambda: closed == ["closed"])
    with pytest.raises(ConnectionClosed):
        kept[0].reply(200, Watched())
    with pytest.raises(ConnectionClosed):
        kept[0].reply_stream("text/plain")
    assert closed == ["closed"]  # it was not begun


@pytest.mark.parametrize("make", ["async", "plain"])
async def test_a_slow_reader_holds_up_the_iterator(harness: Harness, make: str) -> None:
    taken = 0

    def pieces() -> Iterator[bytes]:
        nonlocal taken
        while taken < 4000:
            taken += 1
            yield bytes(65_536)

    async def async_pieces() -> AsyncIterator[bytes]:
        for piece in pieces():
            yield piece

    conns: list[Connection] = []

    def reply(conn: Connection, message: HttpMessage) -> None:
        conns.append(conn)
        conn.reply(200, pieces() if make == "plain" else async_pieces())

    peer = await harness.peer(harness.serve(on_message(reply)).port)
    peer.send(GET.format("/"))
    await eventually(lambda: conns and conns[0].send_len > 0)
    before = -1
    while taken != before:  # until nothing more is taken
        before = taken
        await asyncio.sleep(0.2)
    assert taken < 1000  # what the kernels hold, not 256 MiB
    assert conns[0].send_len < 1 << 20


async def test_an_iterator_that_is_cancelled_from_within_cuts_the_connection(harness: Harness) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        cancelled = asyncio.get_running_loop().create_future()
        cancelled.cancel()
        await cancelled

    peer = await harness.peer(harness.serve(on_message(lambda conn, message: conn.reply(200, body()))).port)
    peer.send(GET.format("/"))
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await peer.read_reply()


async def test_an_iterator_that_yields_none_is_not_at_its_end(harness: Harness) -> None:
    listener = harness.serve(on_message(lambda conn, message: conn.reply(200, iter([b"one", None, b"two"]))))
    peer = await harness.peer(listener.port)
    peer.send(GET.format("/"))
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await peer.read_reply()


async def test_an_iterator_of_nothing_leaves_others_their_turns(harness: Harness) -> None:
    taken = 0

    def nothing() -> Iterator[bytes]:
        nonlocal taken
        while taken < 1_000_000:
            taken += 1
            yield b""

    def reply(conn: Connection, message: HttpMessage) -> None:
        conn.reply(200, nothing() if message.uri == "/nothing" else b"quick")

    listener = harness.serve(on_message(reply))
    first, second = await harness.peer(listener.port), await harness.peer(listener.port)
    first.send(GET.format("/nothing"))
    await first.read_until(b"\r\n\r\n")
    second.send(GET.format("/"))
    assert (await second.read_reply())[2] == b"quick"
    assert taken < 1_000_000
    first.reset()


async def test_a_broken_end_of_a_reply_without_chunks_is_a_reset(harness: Harness) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"abc"
        await go_on.wait()
        raise Broken

    go_on = asyncio.Event()
    peer = await harness.peer(harness.serve(on_message(lambda conn, message: conn.reply(200, broken()))).port)
    peer.send("GET / HTTP/1.0\r\n\r\n")
    await peer.read_until(b"abc")
    go_on.set()
    with pytest.raises(ConnectionResetError):
        await peer.read_all()


async def test_what_closing_an_iterator_raises_is_reported(harness: Harness) -> None:
    class Body:
        def __init__(self) -> None:
            self.is_closed = False

        def __aiter__(self) -> Body:
            return self

        async def __anext__(self) -> bytes:
            return bytes(1000)

        async def aclose(self) -> None:
            self.is_closed = True
            raise Broken

    bodies: list[Body] = []

    def reply(conn: Connection, message: HttpMessage) -> None:
        bodies.append(Body())
        conn.reply(200 if message.uri == "/" else 204, bodies[-1])

    listener = harness.serve(on_message(reply))
    for method, uri in (("HEAD", "/"), ("GET", "/none"), ("GET", "/")):
        peer = await harness.peer(listener.port)
        peer.send(f"{method} {uri} HTTP/1.1\r\nHost: x\r\n\r\n")
        await peer.read_until(b"\r\n\r\n")
        peer.reset()
    await eventually(lambda: len(bodies) == 3 and all(body.is_closed for body in bodies))
    await eventually(lambda: len(harness.errors) == 3)
    assert all(isinstance(error, Broken) for error in harness.errors)


async def test_a_stop_waits_for_what_iterators_have_to_finish(harness: Harness) -> None:
    finished: list[str] = []

    async def body() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(100)
                await asyncio.sleep(0)
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            finished.append("all")

    manager = harness.manager(on_message(lambda conn, message: conn.reply(200, body())))
    listener = manager.listen("http://127.0.0.1:0")
    peer = await harness.peer(listener.port)
    peer.send(GET.format("/"))
    await peer.read_until(b"\r\n\r\n")
    await soon(manager.shutdown(0))
    assert finished == ["all"]


# -- streams that the user sends -----------------------------------------------------------------------------------


async def test_events(harness: Harness) -> None:
    def reply(conn: Connection, message: HttpMessage) -> None:
        conn.reply_stream("text/event-stream", headers={"Cache-Control": "no-cache"})
        assert conn.http_sse("tick", "one\ntwo\r\nthree\rfour", event_id="7", retry=1500)
        assert conn.http_sse("", "plain")
        assert conn.http_sse("", comment="a\nb")
        assert conn.http_sse("", event_id="8")
        assert conn.http_sse("", "")
        with pytest.raises(InvalidHeader):
            conn.http_sse("a\nb", "x")
        with pytest.raises(InvalidHeader):
            conn.http_sse("", "x", event_id="1\r2")
        conn.http_end()

    peer = await harness.peer(harness.serve(on_message(reply)).port)
    peer.send(GET.format("/"))
    status, fields, body = await peer.read_reply()
    assert (status, fields["content-type"], fields["cache-control"]) == (200, "text/event-stream", "no-cache")
    assert body.decode().split("\n\n") == [
        "event: tick\nid: 7\nretry: 1500\ndata: one\ndata: two\ndata: three\ndata: four",
        "data: plain",
        ": a\n: b",
        "id: 8",
        "data: ",
        "",
    ]


async def test_a_silent_stream_of_events_gets_comments(harness: Harness) -> None:
    def reply(conn: Connection, message: HttpMessage) -> None:
        if message.uri == "/events":
            conn.reply(200, "", {"Content-Type": "text/event-stream"})  # as the seeds begin one
            conn.http_sse("", "first")
        else:
            conn.reply(200, "next")

    limits = Limits(http=HttpLimits(sse_ping_interval=0.05))
    conns: list[Connection] = []
    handler = on_message(lambda conn, message: (conns.append(conn), reply(conn, message)))
    peer = await harness.peer(harness.serve(handler, limits=limits).port)
    peer.send(GET.format("/events"))
    await peer.read_until(b"data: first\n\n\r\n")
    for _ in range(3):
        assert await peer.read_until(b":\n\n\r\n") == b"3\r\n:\n\n\r\n"
    conns[0].http_end()
    assert (await peer.read_until(b"0\r\n\r\n")).endswith(b"0\r\n\r\n")
    peer.send(GET.format("/next"))  # and no comment in what follows
    assert (await peer.read_reply())[2] == b"next"


async def test_an_event_in_pieces_gets_no_comment_into_it(harness: Harness) -> None:
    conns: list[Connection] = []

    def reply(conn: Connection, message: HttpMessage) -> None:
        conns.append(conn)
        conn.reply_stream("text/event-stream")
        conn.http_chunk("data: hel")

    limits = Limits(http=HttpLimits(sse_ping_interval=0.01))
    peer = await harness.peer(harness.serve(on_message(reply), limits=limits).port)
    peer.send(GET.format("/"))
    await peer.read_until(b"data: hel")
    await asyncio.sleep(0.1)  # ten intervals in which no comment may come
    conns[0].http_chunk("lo\n\n")
    assert await peer.read_until(b"lo\n\n\r\n") == b"\r\n4\r\nlo\n\n\r\n"
    assert await peer.read_until(b":\n\n\r\n") == b"3\r\n:\n\n\r\n"
    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
    conns[0].drain()
    await peer.read_all()
    await asyncio.sleep(0.05)  # and none behind the end
    assert problems == []


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Host", "Content-Type", "Set-Cookie"])
async def test_what_cannot_be_a_trailer(harness: Harness, name: str) -> None:
    def reply(conn: Connection, message: HttpMessage) -> None:
        conn.reply_stream("text/plain")
        with pytest.raises(InvalidHeader, match="trailer"):
            conn.http_end({name: "1"})
        conn.http_end({"X-Fine": "1"})

    peer = await harness.peer(harness.serve(on_message(reply)).port)
    peer.send(GET.format("/"))
    assert (await peer.read_until(b"X-Fine: 1\r\n\r\n")).endswith(b"\r\n\r\n0\r\nX-Fine: 1\r\n\r\n")


async def test_what_is_no_content(harness: Harness) -> None:
    def reply(conn: Connection, message: HttpMessage) -> None:
        for headers in ("A: b\r\n\r\nxx", "no colon", "A: b\r\n\r\nC: d"):
            with pytest.raises(InvalidHeader):
                conn.reply(200, "", headers)
        closed: list[str] = []

        class Body:
            def __iter__(self) -> Body:
                return self

            def __next__(self) -> bytes:
                raise StopIteration

            def close(self) -> None:
                closed.append("closed")

        with pytest.raises(InvalidHeader):
            conn.reply(200, Body(), {"Content-Length": "abc"})
        assert closed == ["closed"]
        conn.reply_stream("text/plain")
        with pytest.raises(TypeError):
            conn.http_chunk(5)  # type: ignore[arg-type]
        conn.http_end()

    peer = await harness.peer(harness.serve(on_message(reply)).port)
    peer.send(GET.format("/"))
    assert (await peer.read_reply())[2] == b""


async def test_raw_bytes_do_not_get_into_a_reply_that_is_being_made(harness: Harness) -> None:
    seen: list[str] = []

    def reply(conn: Connection, message: HttpMessage) -> None:
        conn.reply(200, numbers(3))
        with pytest.raises(LocalProtocolError, match="iterator"):
            conn.send("raw")
        seen.append("refused")

    peer = await harness.peer(harness.serve(on_message(reply)).port)
    peer.send(GET.format("/"))
    assert (await peer.read_reply())[2] == b"0 1 2 " and seen == ["refused"]


async def test_lines_of_json_and_trailers(harness: Harness) -> None:
    values = [{"a": 1}, [1, "ü\n"], None, 3.5]

    def reply(conn: Connection, message: HttpMessage) -> None:
        conn.reply_stream("application/x-ndjson", 201)
        for value in values:
            assert conn.http_ndjson(value)
        conn.http_end({"X-Count": len(values)})

    peer = await harness.peer(harness.serve(on_message(reply)).port)
    peer.send(GET.format("/"))
    raw = await peer.read_until(b"X-Count: 4\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 201 ") and raw.endswith(b"\r\n0\r\nX-Count: 4\r\n\r\n")
    peer.send("GET / HTTP/1.0\r\n\r\n")
    body = (await peer.read_all()).partition(b"\r\n\r\n")[2]
    assert [json.loads(line) for line in body.splitlines()] == values


async def test_parts(harness: Harness) -> None:
    def reply(conn: Connection, message: HttpMessage) -> None:
        conn.reply_stream("multipart/x-mixed-replace")
        for number in range(0 if message.uri == "/none" else 3):
            assert conn.http_part(b"frame %d" % number, "image/jpeg", {"X-Number": number})
        conn.http_chunk("")  # the same as http_end()

    peer = await harness.peer(harness.serve(on_message(reply)).port)
    peer.send(GET.format("/") + GET.format("/none"))
    _, fields, body = await peer.read_reply()
    kind, _, boundary = fields["content-type"].partition("; boundary=")
    assert kind == "multipart/x-mixed-replace" and len(boundary) == 32
    delimiter = b"--" + boundary.encode()
    first, *parts, last = body.split(delimiter)
    assert (first, last) == (b"", b"--\r\n")
    assert parts == [
        b"\r\nContent-Type: image/jpeg\r\nX-Number: %d\r\nContent-Length: 7\r\n\r\nframe %d\r\n" % (number, number)
        for number in range(3)
    ]
    _, fields, body = await peer.read_reply()
    assert body == b"--%b--\r\n" % fields["content-type"].partition("; boundary=")[2].encode()


async def test_parts_that_do_not_replace_each_other(harness: Harness) -> None:
    def reply(conn: Connection, message: HttpMessage) -> None:
        conn.reply_stream("multipart/mixed; boundary=mine")
        conn.http_part("one", "text/plain")
        conn.http_part("two", "text/html")
        conn.http_end()

    peer = await harness.peer(harness.serve(on_message(reply)).port)
    peer.send(GET.format("/"))
    assert (await peer.read_reply())[2] == (
        b"--mine\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\none\r\n"
        b"--mine\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\ntwo\r\n--mine--\r\n"
    )


async def test_parts_whose_heads_go_ahead(harness: Harness) -> None:
    def reply(conn: Connection, message: HttpMessage) -> None:
        conn.reply_stream('multipart/x-mixed-replace; boundary="mine"')
        for number in range(3):
            assert conn.http_part(b"frame %d" % number)
        with pytest.raises(LocalProtocolError, match="header of the first"):
            conn.http_part(b"other", "image/png")
        conn.http_end()

    peer = await harness.peer(harness.serve(on_message(reply)).port)
    peer.send(GET.format("/"))
    _, fields, body = await peer.read_reply()
    assert fields["content-type"] == 'multipart/x-mixed-replace; boundary="mine"'
    head = b"--mine\r\nContent-Type: image/jpeg\r\n\r\n"
    frames = b"".join(b"frame %d\r\n%b" % (number, head) for number in range(3))
    assert body == head + frames + b"\r\n--mine--\r\n"


async def test_what_may_not_be_sent_on_a_stream(harness: Harness) -> None:
    seen: list[str] = []

    def reply(conn: Connection, message: HttpMessage) -> None:
        for early in (lambda: conn.http_chunk("x"), conn.http_end, lambda: conn.http_part("x")):
            with pytest.raises(LocalProtocolError):
                early()
        conn.reply_stream("text/plain")
        with pytest.raises(LocalProtocolError):
            conn.http_part("x")  # not a multipart stream
        with pytest.raises(LocalProtocolError):
            conn.reply(200, "again")
        with pytest.raises(LocalProtocolError):
            conn.add_reply_filter(Watcher([]))
        conn.http_chunk("x")
        conn.http_end()
        with pytest.raises(LocalProtocolError):
            conn.http_end()
        seen.append("all")

    peer = await harness.peer(harness.serve(on_message(reply)).port)
    peer.send(GET.format("/"))
    assert (await peer.read_reply())[2] == b"x" and seen == ["all"]


@pytest.mark.parametrize("policy", ["drop", "close"])
async def test_slow_readers_of_a_stream(harness: Harness, policy: Any) -> None:
    buffers = BufferLimits(slow_client=policy, send_high_water=64 << 10)
    conns: list[Connection] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.reply_stream("multipart/x-mixed-replace")
            conns.append(conn)

    peer = await harness.peer(harness.serve(handler, limits=Limits(buffers=buffers)).port)
    peer.send(GET.format("/"))
    await eventually(lambda: conns)
    dropped = 0
    for _ in range(2000):
        try:
            dropped += not conns[0].http_part(bytes(20_000))
        except ConnectionClosed:
            break
        assert conns[0].send_len < 200_000
        await asyncio.sleep(0)
    assert conns[0].is_closing == (policy == "close")
    assert (dropped > 100) == (policy == "drop")


# -- conveniences --------------------------------------------------------------------------------------------------


async def test_redirects_and_cookies(harness: Harness) -> None:
    def reply(conn: Connection, message: HttpMessage) -> None:
        if message.uri == "/ascii":
            conn.redirect("https://example.com/a?b=%20c", 307, {"X-A": "b"}, cookies={"seen": "1"})
        elif message.uri == "/unicode":
            conn.redirect("/ü ä")
        elif message.uri == "/bad":
            with pytest.raises(InvalidHeader):
                conn.redirect("/a\r\nSet-Cookie: x=y")
            with pytest.raises(ValueError, match="not a redirect"):
                conn.redirect("/", 200)
            with pytest.raises(InvalidHeader):
                conn.reply(200, "", cookies={"a": "b; Path=/"})
            conn.reply(200, "still there")
        else:
            conn.reply_json(
                message.cookies,
                headers={"X-A": "b"},
                cookies={
                    "id": Cookie("7", max_age=60, path="/a", domain="example.com", secure=True, same_site="Lax"),
                    "old": None,
                },
            )

    peer = await harness.peer(harness.serve(on_message(reply)).port)
    peer.send("".join(GET.format(uri) for uri in ("/ascii", "/unicode", "/bad")))
    status, fields, body = await peer.read_reply()
    assert (status, fields["location"], fields["x-a"], body) == (307, "https://example.com/a?b=%20c", "b", b"")
    assert fields["set-cookie"].startswith("seen=1")
    assert (await peer.read_reply())[1]["location"] == "/%C3%BC%20%C3%A4"
    assert (await peer.read_reply())[2] == b"still there"
    peer.send("GET / HTTP/1.1\r\nHost: x\r\nCookie: a=1; b=2\r\nCookie: c=3; a=4\r\n\r\n")
    head = (await peer.read_until(b"\r\n\r\n")).decode()
    cookies = [line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("Set-Cookie: ")]
    assert cookies[0].startswith("id=7;") and cookies[1].startswith("old=;")
    assert {"Max-Age=60", "Path=/a", "Domain=example.com", "Secure", "SameSite=Lax"} <= set(cookies[0].split("; "))
    assert await peer.read_exactly(25) == b'{"a":"1","b":"2","c":"3"}'


async def test_what_a_message_knows_of_its_target(harness: Harness) -> None:
    seen: list[Any] = []

    def reply(conn: Connection, message: HttpMessage) -> None:
        query = message.query_params
        seen.append((message.url, message.path, message.host, dict(query), query.all("a"), message.params))
        conn.reply(200)

    peer = await harness.peer(harness.serve(on_message(reply)).port)
    peer.send(GET.format("/%C3%BC?a=1&b=x+y%26&a=2&c") + "GET http://other:80/p?q HTTP/1.1\r\nHost: x\r\n\r\n")
    for _ in range(2):
        await peer.read_reply()
    assert seen == [
        ("/%C3%BC?a=1&b=x+y%26&a=2&c", "/ü", "x", {"a": "1", "b": "x y&", "c": ""}, ["1", "2"], {}),
        ("/p?q", "/p", "other:80", {"q": ""}, [], {}),
    ]


# -- filters -------------------------------------------------------------------------------------------------------


class Watcher:
    """Notes what it is told."""

    def __init__(self, log: list[Any], name: str = "") -> None:
        self.log = log
        self.name = name

    def begin_reply(self, message: HttpMessage, draft: ReplyDraft) -> None:
        self.log.append((self.name + "begin", message.uri, draft.status, draft.body, draft.streams, draft.length))
        draft.set_header("X-Seen", (draft.header("X-Seen") or "") + (self.name or "yes"))

    def end_reply(self, message: HttpMessage, status: int, size: int, is_complete: bool) -> None:
        self.log.append((self.name + "end", message.uri, status, size, is_complete))


async def test_filters_see_every_kind_of_reply(harness: Harness) -> None:
    log: list[Any] = []

    def reply(conn: Connection, message: HttpMessage) -> None:
        watcher = Watcher(log)
        conn.add_reply_filter(watcher)
        conn.add_reply_filter(watcher)
        if message.uri == "/whole":
            conn.reply(200, {"a": 1})
        elif message.uri == "/stream":
            conn.reply_stream("text/plain")
            conn.http_chunk("abc")
            conn.http_end()
        elif message.uri == "/iterator":
            conn.reply(200, iter([b"ab", b"c"]), {"Content-Length": 3})
        elif message.uri == "/raw":
            conn.send("HTTP/1.1 203 X\r\nContent-Length: 2\r\n\r\nhi")
        else:
            raise Broken

    peer = await harness.peer(harness.serve(on_message(reply)).port)
    uris = ["/whole", "/stream", "/iterator", "/raw", "/error"]
    peer.send("".join(map(GET.format, uris)))
    replies = [await peer.read_reply() for _ in uris]
    assert [r[0] for r in replies] == [200, 200, 200, 203, 500]
    assert ["x-seen" in r[1] for r in replies] == [True, True, True, False, True]
    assert log == [
        ("begin", "/whole", 200, b'{"a":1}', False, None),
        ("end", "/whole", 200, 7, True),
        ("begin", "/stream", 200, b"", True, None),
        ("end", "/stream", 200, 3, True),
        ("begin", "/iterator", 200, b"", True, 3),
        ("end", "/iterator", 200, 3, True),
        ("end", "/raw", 203, 2, True),
        ("begin", "/error", 500, b"500 Internal Server Error\n", False, None),
        ("end", "/error", 500, 26, True),
    ]


async def test_filters_see_refusals_and_may_spoil_only_their_own_reply(
    harness: Harness,
) -> None:
    class Spoils(Watcher):
        def begin_reply(self, message: HttpMessage, draft: ReplyDraft) -> None:
            draft.headers.append(("Bad\r\nName", "x"))

    log: list[Any] = []
    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_HDRS:
            conn.add_reply_filter(Spoils([]) if data.uri == "/spoil" else Watcher(log))
        elif ev == MG_EV_HTTP_MSG:
            conn.reply(200, "fine")

    listener = harness.serve(handler, limits=Limits(http=HttpLimits(max_body=10)))
    peer = await harness.peer(listener.port)
    peer.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
    status, fields, _ = await peer.read_reply()
    assert (status, fields["x-seen"]) == (413, "yes")
    assert [entry[0] for entry in log] == ["begin", "end"]
    peer = await harness.peer(listener.port)
    peer.send(GET.format("/spoil"))
    assert b"HTTP/1.1 4" not in await peer.read_all()  # not the client's fault
    assert [type(error) for error in harness.errors] == [InvalidHeader]
    assert [type(problem["exception"]) for problem in problems] == [InvalidHeader]


async def test_a_filter_knows_a_stream_however_its_header_is_written(harness: Harness) -> None:
    log: list[Any] = []

    def reply(conn: Connection, message: HttpMessage) -> None:
        conn.add_reply_filter(Watcher(log))
        conn.reply(200, "one", {"transfer-encoding": " Chunked "})
        conn.http_end()

    peer = await harness.peer(harness.serve(on_message(reply)).port)
    peer.send(GET.format("/"))
    assert (await peer.read_reply())[2] == b"one"
    assert log == [("begin", "/", 200, b"one", True, None), ("end", "/", 200, 3, True)]


async def test_filters_are_asked_from_the_inside_and_hear_of_broken_ends(harness: Harness) -> None:
    log: list[Any] = []
    conns: list[Connection] = []

    def reply(conn: Connection, message: HttpMessage) -> None:
        conns.append(conn)
        for name in ("outer ", "inner "):
            conn.add_reply_filter(Watcher(log, name))
        if message.uri == "/stream":
            conn.reply_stream("text/plain")
            conn.http_chunk("abc")

    listener = harness.serve(on_message(reply))
    for uri, status, size in (("/stream", 200, 3), ("/none", 0, 0)):
        log.clear()
        peer = await harness.peer(listener.port)
        peer.send(GET.format(uri))
        if status:
            assert b"X-Seen: inner outer" in await peer.read_until(b"\r\n\r\n")
        else:
            await eventually(lambda: len(conns) == 2)
        peer.reset()
        await eventually(lambda: any("end" in entry[0] for entry in log))
        ends = [entry for entry in log if "end" in entry[0]]
        assert ends == [(f"{name} end", uri, status, size, False) for name in ("inner", "outer")]


class Gzip:
    """Compresses, whole and streamed."""

    def __init__(self) -> None:
        self._compress = zlib.compressobj(wbits=31)

    def begin_reply(self, message: HttpMessage, draft: ReplyDraft) -> None:
        draft.set_header("Content-Encoding", "gzip")
        if draft.streams:
            draft.encoder = self
        else:
            draft.body = gzip.compress(draft.body)

    def encode(self, data: bytes) -> bytes:
        return self._compress.compress(data) + self._compress.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._compress.flush()

    def end_reply(self, message: HttpMessage, status: int, size: int, is_complete: bool) -> None:
        pass


async def test_a_filter_may_change_the_content(harness: Harness) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"compressible " * 10

    def reply(conn: Connection, message: HttpMessage) -> None:
        conn.add_reply_filter(Gzip())
        if message.uri == "/whole":
            conn.reply(200, b"compressible " * 1000, {"Content-Length": 13_000})
        elif message.uri == "/length":
            conn.reply(200, chunks(), {"Content-Length": 13_000})
        else:
            conn.reply_stream("text/event-stream")
            conn.http_chunk(b"compressible " * 1000)
            conn.http_end()

    peer = await harness.peer(harness.serve(on_message(reply)).port)
    uris = ["/whole", "/length", "/stream", "/whole"]
    peer.send("".join(map(GET.format, uris)))
    for uri in uris:
        status, fields, body = await peer.read_reply()
        assert status == 200 and fields["content-encoding"] == "gzip" and len(body) < 13_000, uri
        assert gzip.decompress(body) == b"compressible " * 1000


async def test_a_filter_that_raises_harms_nobody(harness: Harness) -> None:
    class Raises(Watcher):
        def begin_reply(self, message: HttpMessage, draft: ReplyDraft) -> None:
            raise Broken

        end_reply = begin_reply  # type: ignore[assignment]

    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))

    def reply(conn: Connection, message: HttpMessage) -> None:
        conn.add_reply_filter(Raises([]))
        conn.reply(200, "fine")

    peer = await harness.peer(harness.serve(on_message(reply)).port)
    peer.send(GET.format("/") * 2)
    for _ in range(2):
        assert (await peer.read_reply())[2] == b"fine"
    assert [type(p["exception"]) for p in problems] == [Broken, TypeError] * 2


async def test_an_async_body_goes_on_while_others_are_served(harness: Harness) -> None:
    go_on = asyncio.Event()

    async def waits() -> AsyncIterator[bytes]:
        yield b"one"
        await go_on.wait()
        yield b"two"

    def reply(conn: Connection, message: HttpMessage) -> None:
        conn.reply(200, waits() if message.uri == "/wait" else b"quick")

    listener = harness.serve(on_message(reply), limits=replace(Limits()))
    first, second = await harness.peer(listener.port), await harness.peer(listener.port)
    first.send(GET.format("/wait"))
    await first.read_until(b"one")
    second.send(GET.format("/"))
    assert (await second.read_reply())[2] == b"quick"
    go_on.set()
    assert await soon(first.read_until(b"0\r\n\r\n")) == b"\r\n3\r\ntwo\r\n0\r\n\r\n"
