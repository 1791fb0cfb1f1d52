"""Authentication, CORS, compression and access logs on real connections, alone and together."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import logging
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from asyncmg import (
    MG_EV_HTTP_HDRS,
    MG_EV_HTTP_MSG,
    MG_EV_WS_MSG,
    Connection,
    HttpMessage,
)
from asyncmg.handlers.access_log import access_log
from asyncmg.handlers.auth import require_basic, require_bearer
from asyncmg.handlers.compress import compress
from asyncmg.handlers.cors import cors
from asyncmg.handlers.router import Router

from .conftest import Harness, RawPeer, eventually
from .ws_peer import WHOLE_TEXT, masked, read_frame, shake_hands

TEXT = "a text that repeats itself. " * 200
ME = f"Authorization: Basic {base64.b64encode(b'me:secret').decode()}\r\n"
USERS = {"me": "secret"}

Log = Callable[[], list[dict[str, Any]]]


def get(target: str = "/", *lines: str, method: str = "GET") -> str:
    return f"{method} {target} HTTP/1.1\r\nHost: x\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    caplog.set_level(logging.INFO, "asyncmg.access")
    return lambda: [json.loads(record.getMessage()) for record in caplog.records if record.name == "asyncmg.access"]


class App:
    """A handler, plain or async, that notes the requests that reach it."""

    def __init__(self, is_async: bool) -> None:
        self.seen: list[tuple[int, str, bytes]] = []
        self.handler: Any = self.later if is_async else self.take

    def take(self, conn: Connection, ev: int, data: Any) -> None:
        if ev in (MG_EV_HTTP_HDRS, MG_EV_HTTP_MSG):
            self.seen.append((ev, data.uri, data.body_bytes))
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, data.params.get("user", TEXT))

    async def later(self, conn: Connection, ev: int, data: Any) -> None:
        await asyncio.sleep(0)
        self.take(conn, ev, data)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("checks_async", [False, True])
async def test_auth_keeps_refused_content_from_the_handler(
    harness: Harness, is_async: bool, checks_async: bool
) -> None:
    async def check(user: str, password: str) -> bool:
        await asyncio.sleep(0)
        return (user, password) == ("me", "secret")

    app = App(is_async)
    listener = harness.serve(require_basic(app.handler, check if checks_async else USERS))
    peer = await harness.peer(listener.port)
    peer.send(get() + get("/", ME.strip()) + get())  # pipelined: each is checked on its own
    status, fields, _ = await peer.read_reply()
    assert (status, fields["www-authenticate"]) == (401, 'Basic realm="asyncmg", charset="UTF-8"')
    assert (await peer.read_reply())[::2] == (200, b"me")
    assert (await peer.read_reply())[0] == 401
    assert [ev for ev, _, _ in app.seen] == [MG_EV_HTTP_HDRS, MG_EV_HTTP_MSG]

    peer.send(get("/up", "Content-Length: 6") + "secret")
    status, fields, _ = await peer.read_reply()
    assert (status, fields["connection"]) == (401, "close")
    assert await peer.read_all() == b""
    peer = await harness.peer(listener.port)
    peer.send(get("/up", "Content-Length: 6", ME.strip()) + "secret")
    assert (await peer.read_reply())[0] == 200
    assert app.seen[2:] == [(MG_EV_HTTP_HDRS, "/up", b""), (MG_EV_HTTP_MSG, "/up", b"secret")]


async def test_a_check_that_raises_is_a_500(harness: Harness) -> None:
    async def check(token: str) -> bool:
        raise OSError("no database")

    app = App(False)
    peer = await harness.peer(harness.serve(require_bearer(app.handler, check)).port)
    peer.send(get("/", "Authorization: Bearer x"))
    assert (await peer.read_reply())[0] == 500
    assert app.seen == []
    assert [str(error) for error in harness.errors] == ["no database"]


@pytest.mark.parametrize("is_async", [False, True])
async def test_cors(harness: Harness, is_async: bool) -> None:
    app = App(is_async)
    peer = await harness.peer(harness.serve(cors(app.handler, "https://page.example", credentials=True)).port)
    preflight = get("/", "Origin: https://page.example", "Access-Control-Request-Method: PUT", method="OPTIONS")
    peer.send(preflight + get("/", "Origin: https://page.example") + get("/", "Origin: https://other.example"))
    status, fields, _ = await peer.read_reply()
    assert status == 204
    assert fields["access-control-allow-origin"] == "https://page.example"
    assert fields["access-control-allow-headers"] == "Authorization, Content-Type"
    status, fields, body = await peer.read_reply()
    assert (status, body.decode()) == (200, TEXT)
    assert fields["access-control-allow-origin"] == "https://page.example"
    assert (fields["access-control-allow-credentials"], fields["vary"]) == ("true", "Origin")
    status, fields, _ = await peer.read_reply()
    assert status == 200 and fields["vary"] == "Origin"
    assert not any(name.startswith("access-control") for name in fields)
    assert len(app.seen) == 4, "the preflight request was answered in front of the handler"


async def streams(conn: Connection, ev: int, data: Any) -> None:
    """Replies of every kind."""
    if ev != MG_EV_HTTP_MSG:
        return
    if data.uri == "/chunks":
        conn.reply(200, "first ", {"Transfer-Encoding": "chunked"})
        conn.http_chunk("second")
        conn.http_chunk("")
    elif data.uri == "/sse":
        conn.reply_stream("text/event-stream")
        conn.http_sse("", "one")
    elif data.uri == "/iterator":

        async def pieces() -> AsyncIterator[str]:
            for number in range(300):
                yield f"line {number}\n"

        conn.reply(200, pieces(), {"Content-Length": "2590"})
    elif data.uri == "/file":
        conn.serve_file(data, __file__)
    elif data.uri == "/small":
        conn.reply(200, "small")
    elif data.uri == "/early":
        conn.reply(200, TEXT, {"ETag": '"1"', "Connection": "close"})
    else:
        conn.reply(200, TEXT, {"ETag": '"1"'})


async def test_compression(harness: Harness) -> None:
    peer = await harness.peer(harness.serve(compress(streams)).port)

    async def ask(target: str, *lines: str, method: str = "GET") -> tuple[dict[str, str], bytes]:
        peer.send(get(target, *lines, method=method))
        status, fields, body = await peer.read_reply(head=method == "HEAD")
        assert status == 200
        return fields, body

    fields, body = await ask("/", "Accept-Encoding: gzip")
    assert gzip.decompress(body).decode() == TEXT
    assert (fields["content-encoding"], fields["vary"], fields["etag"]) == ("gzip", "Accept-Encoding", 'W/"1"')
    head, _ = await ask("/", "Accept-Encoding: gzip", method="HEAD")
    assert {**head, "date": ""} == {**fields, "date": ""}, "HEAD tells what GET would"
    fields, body = await ask("/")
    assert (body.decode(), fields["vary"], fields["etag"]) == (TEXT, "Accept-Encoding", '"1"')
    assert "content-encoding" not in fields
    fields, body = await ask("/small", "Accept-Encoding: gzip")
    assert body == b"small" and "content-encoding" not in fields
    fields, body = await ask("/file", "Accept-Encoding: gzip")
    assert body == Path(__file__).read_bytes() and "content-encoding" not in fields
    assert int(fields["content-length"]) == len(body)
    fields, body = await ask("/chunks", "Accept-Encoding: gzip")
    assert gzip.decompress(body) == b"first second" and fields["transfer-encoding"] == "chunked"
    fields, body = await ask("/iterator", "Accept-Encoding: gzip")
    assert gzip.decompress(body).decode() == "".join(f"line {number}\n" for number in range(300))
    assert "content-length" not in fields
    fields, body = await ask("/iterator")
    assert (fields["content-length"], len(body)) == ("2590", 2590)


async def test_compressed_events_leave_at_once(harness: Harness) -> None:
    connections: list[Connection] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            connections.append(conn)
            conn.reply_stream("text/event-stream")

    peer = await harness.peer(harness.serve(compress(handler)).port)
    peer.send(get("/", "Accept-Encoding: gzip"))
    await peer.read_until(b"\r\n\r\n")
    decoder = zlib.decompressobj(31)
    for number in range(3):
        connections[0].http_sse("", str(number))
        chunk = await peer.read_exactly(int(await peer.read_until(b"\r\n"), 16) + 2)
        assert decoder.decompress(chunk[:-2]) == f"data: {number}\n\n".encode()
    connections[0].http_end()
    chunk = await peer.read_exactly(int(await peer.read_until(b"\r\n"), 16) + 2)
    decoder.decompress(chunk[:-2])
    assert decoder.eof
    assert await peer.read_until(b"\r\n\r\n") == b"0\r\n\r\n"


@pytest.mark.parametrize("is_async", [False, True])
async def test_access_log(harness: Harness, log: Log, is_async: bool) -> None:
    app = App(is_async)
    listener = harness.serve(access_log(app.handler, "json"))
    peer = await harness.peer(listener.port)
    peer.send(get("/a?b=c", "User-Agent: test") + get("/head", method="HEAD"))
    await peer.read_reply()
    await peer.read_reply(head=True)
    await eventually(lambda: len(log()) == 2)
    first, second = log()
    assert (first["method"], first["target"], first["proto"]) == ("GET", "/a?b=c", "HTTP/1.1")
    assert (first["status"], first["size"], first["complete"]) == (200, len(TEXT), True)
    assert (first["remote"], first["user_agent"], first["referer"]) == ("127.0.0.1", "test", None)
    assert first["duration_ms"] >= 0
    assert (second["method"], second["size"], second["connection"]) == ("HEAD", 0, first["connection"])

    peer.send("GET  /two-spaces HTTP/1.1\r\n\r\n")  # after two good ones
    assert (await peer.read_reply())[0] == 400
    await eventually(lambda: len(log()) == 3)
    assert [log()[2][key] for key in ("status", "method", "target", "remote")] == [400, None, None, "127.0.0.1"]

    peer = await harness.peer(listener.port)
    peer.send(get("/large", "Content-Length: 9999999", method="POST"))
    assert (await peer.read_reply())[0] == 413
    await eventually(lambda: len(log()) == 4)
    assert [log()[3][key] for key in ("status", "method", "target")] == [413, "POST", "/large"]
    await harness.end()
    assert len(log()) == 4, "one line each"


async def test_access_log_of_streams_upgrades_and_broken_replies(harness: Harness, log: Log) -> None:
    connections: list[Connection] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_WS_MSG:
            conn.ws_send(data.data)
        if ev != MG_EV_HTTP_MSG:
            return
        connections.append(conn)
        if data.uri == "/ws":
            conn.ws_upgrade(data)
        elif data.uri == "/stream":
            conn.reply_stream("text/plain")
            conn.http_chunk("12345")

    listener = harness.serve(access_log(handler, "json"))

    async def begin(target: str) -> RawPeer:
        count = len(connections)
        peer = await harness.peer(listener.port)
        peer.send(get(target))
        await eventually(lambda: len(connections) > count)
        return peer

    peer = await begin("/stream")
    await peer.read_until(b"12345")
    assert log() == [], "the reply is not over"
    connections[-1].http_chunk("678")
    connections[-1].http_end()
    await eventually(lambda: len(log()) == 1)
    assert [log()[0][key] for key in ("status", "size", "complete")] == [200, 8, True]

    peer = await begin("/stream")
    await peer.read_until(b"12345")
    peer.reset()
    await eventually(lambda: len(log()) == 2)
    assert [log()[1][key] for key in ("status", "size", "complete")] == [200, 5, False]

    peer = await begin("/never")
    peer.reset()
    await eventually(lambda: len(log()) == 3)
    assert [log()[2][key] for key in ("target", "status", "complete")] == ["/never", None, False]

    peer = await harness.peer(listener.port)
    await shake_hands(peer, target="/ws")
    peer.send(masked(WHOLE_TEXT, b"hello"))
    assert (await read_frame(peer)).payload == b"hello"
    assert [log()[3][key] for key in ("target", "status", "complete")] == ["/ws", 101, True]
    await peer.close()
    await harness.end()
    assert len(log()) == 4


async def test_all_together(harness: Harness, log: Log) -> None:
    private = Router()

    @private.get("/private/{user}")
    async def page(conn: Connection, message: HttpMessage) -> None:
        conn.reply(200, message.params["user"] + TEXT)

    @private.put("/private/{name}", stream=True)
    async def upload(conn: Connection, message: HttpMessage) -> None:
        size = sum([len(chunk) async for chunk in message.stream()])
        conn.reply(200, {"size": size})

    router = Router()
    router.get("/")(lambda conn, message: conn.reply(200, TEXT))
    router.mount("/private", require_basic(private, USERS))
    app = access_log(cors(compress(router), "https://page.example"), "json")
    peer = await harness.peer(harness.serve(app).port)
    asked = ("Accept-Encoding: gzip", "Origin: https://page.example")
    peer.send(get("/", *asked) + get("/private/x", *asked) + get("/private/x", ME.strip(), *asked))
    status, fields, body = await peer.read_reply()
    assert gzip.decompress(body).decode() == TEXT
    assert fields["vary"] == "Accept-Encoding, Origin"
    status, fields, _ = await peer.read_reply()
    assert (status, fields["access-control-allow-origin"]) == (401, "https://page.example")
    status, fields, body = await peer.read_reply()
    assert gzip.decompress(body).decode() == "me" + TEXT, "the path does not say who the user is"
    peer.send(get("/private/x", "Content-Length: 2000000", ME.strip(), method="PUT"))
    peer.send(bytes(2000000))
    assert (await peer.read_reply())[::2] == (200, b'{"size":2000000}')
    await eventually(lambda: len(log()) == 4)
    assert [(line["status"], line["user"]) for line in log()] == [(200, None), (401, None), (200, "me"), (200, "me")]
    assert log()[2]["size"] == len(body)
    assert harness.errors == []
