"""Router on real connections."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from asyncmg import MG_EV_CLOSE, MG_EV_HTTP_MSG, MG_EV_OPEN, MG_EV_WS_MSG, MG_EV_WS_OPEN, Connection, HttpMessage
from asyncmg.handlers.router import Router

from .conftest import Harness, eventually, soon
from .ws_peer import WHOLE_TEXT, masked, read_frame, shake_hands

GET = "GET {} HTTP/1.1\r\nHost: x\r\n\r\n"


def small_site() -> Router:
    router = Router()

    @router.get("/")
    def home(conn: Connection, message: HttpMessage) -> None:
        conn.reply(200, "home")

    @router.get("/users/{id}")
    async def user(conn: Connection, message: HttpMessage) -> None:
        await asyncio.sleep(0)
        conn.reply(200, {"id": message.params["id"]})

    @router.post("/users")
    def create(conn: Connection, message: HttpMessage) -> None:
        conn.reply(201, message.body_bytes)

    @router.put("/files/{name:path}", stream=True)
    async def upload(conn: Connection, message: HttpMessage) -> None:
        size = 0
        async for chunk in message.stream():
            size += len(chunk)
        conn.reply(200, {"name": message.params["name"], "size": size})

    @router.get("/broken")
    def broken(conn: Connection, message: HttpMessage) -> None:
        raise RuntimeError("broken")

    return router


async def test_a_small_site(harness: Harness) -> None:
    peer = await harness.peer(harness.serve(small_site()).port)
    peer.send("".join(GET.format(target) for target in ("/", "/users/a%2Fb", "/none", "/users", "/broken", "/")))
    replies = [await peer.read_reply() for _ in range(6)]
    assert [(status, body) for status, _, body in replies] == [
        (200, b"home"),
        (200, b'{"id":"a/b"}'),
        (404, b"404 Not Found\n"),
        (405, b"405 Method Not Allowed\n"),
        (500, b"500 Internal Server Error\n"),
        (200, b"home"),
    ]
    assert replies[3][1]["allow"] == "POST, OPTIONS"
    assert [str(error) for error in harness.errors] == ["broken"]

    peer.send("HEAD /users/7 HTTP/1.1\r\nHost: x\r\n\r\nOPTIONS /users/7 HTTP/1.1\r\nHost: x\r\n\r\n")
    status, fields, _ = await peer.read_reply(head=True)
    assert (status, fields["content-length"]) == (200, "10")
    status, fields, _ = await peer.read_reply()
    assert (status, fields["allow"]) == (204, "GET, HEAD, OPTIONS")
    peer.send("POST /users HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
    assert (await peer.read_reply())[::2] == (201, b"abc")


async def test_a_streamed_upload_is_larger_than_what_is_buffered(harness: Harness) -> None:
    peer = await harness.peer(harness.serve(small_site()).port)
    size = 3 << 20  # max_body is 1 MiB
    peer.send(f"PUT /files/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n")
    peer.send(bytes(size))
    assert (await peer.read_reply())[::2] == (200, b'{"name":"a/b","size":%d}' % size)
    peer.send(GET.format("/"))
    assert (await peer.read_reply())[2] == b"home"


@pytest.mark.parametrize(("target", "expected"), [("/none", 404), ("/users/7", 405)])
async def test_content_that_nobody_wants_is_refused_unread(harness: Harness, target: str, expected: int) -> None:
    peer = await harness.peer(harness.serve(small_site()).port)
    peer.send(f"POST {target} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9000000\r\n\r\n")
    status, fields, _ = await peer.read_reply()
    assert (status, fields["connection"]) == (expected, "close")
    assert await peer.read_all() == b""


async def test_websocket_events_go_to_the_fallback(harness: Harness) -> None:
    seen: list[int] = []

    def fallback(conn: Connection, ev: int, data: Any) -> None:
        if ev in (MG_EV_OPEN, MG_EV_WS_OPEN, MG_EV_WS_MSG, MG_EV_CLOSE) and not conn.is_listening:
            seen.append(ev)
        if ev == MG_EV_WS_MSG:
            conn.ws_send(f"fallback {data.text}")

    def own(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_WS_MSG:
            conn.ws_send(f"own {data.text}")

    def app(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.ws_upgrade(data)
        elif ev == MG_EV_WS_MSG:
            conn.ws_send(f"app {data.text}")

    router = Router(fallback)

    @router.get("/ws")
    def plain(conn: Connection, message: HttpMessage) -> None:
        conn.ws_upgrade(message)

    @router.get("/own")
    async def with_own(conn: Connection, message: HttpMessage) -> None:
        conn.ws_upgrade(message)
        conn.set_handler(own)

    router.mount("/app", app)
    listener = harness.serve(router)
    for target, answer in (("/ws", "fallback hello"), ("/own", "own hello"), ("/app/ws", "app hello")):
        peer = await harness.peer(listener.port)
        await shake_hands(peer, target=target)
        peer.send(masked(WHOLE_TEXT, b"hello"))
        assert (await read_frame(peer)).payload.decode() == answer
    assert seen == [MG_EV_OPEN, MG_EV_WS_OPEN, MG_EV_WS_MSG, MG_EV_OPEN, MG_EV_OPEN]


async def test_a_mount_takes_any_handler(harness: Harness) -> None:
    async def app(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            await asyncio.sleep(0)
            conn.reply(200, f"app {data.method} {data.path}")

    router = Router()
    router.mount("/app", app)
    router.mount("/site", small_site())
    peer = await harness.peer(harness.serve(router).port)
    peer.send(GET.format("/app/a%20b"))
    assert (await peer.read_reply())[2] == b"app GET /app/a b"
    peer.send("DELETE /app HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
    assert (await peer.read_reply())[2] == b"app DELETE /app"
    peer.send(GET.format("/site/x"))
    assert (await peer.read_reply())[0] == 404


async def test_a_connection_that_is_gone_is_not_remembered(harness: Harness) -> None:
    router = Router()
    router.mount("/", lambda conn, ev, data: conn.reply(200) if ev == MG_EV_HTTP_MSG else None)
    listener = harness.serve(router)
    for _ in range(3):
        peer = await harness.peer(listener.port)
        peer.send(GET.format("/"))
        await soon(peer.read_reply())
        await peer.close()

    def is_forgotten() -> bool:
        gc.collect()
        return not router._mounted

    await eventually(is_forgotten)
