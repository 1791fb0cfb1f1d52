"""A page served by asyncmg, in a headless Chromium, opens WebSockets to the server that it came from."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

import asyncmg.core
from asyncmg import (
    MG_EV_HTTP_MSG,
    MG_EV_WS_CTL,
    MG_EV_WS_MSG,
    MG_EV_WS_OPEN,
    WEBSOCKET_OP_CLOSE,
    WEBSOCKET_OP_PONG,
    Connection,
    Limits,
    Manager,
    WsLimits,
)

from .browser import Browser
from .peers import peer

pytestmark = pytest.mark.slow

TIMEOUT = 30.0

# start() gives an object that keeps what has come: next() promises a message, `closed` the end.
PAGE = """<!doctype html>
<meta charset="utf-8">
<title>WebSocket</title>
<p id="ready">ready</p>
<script>
function start(path, protocols) {
    const socket = new WebSocket(`ws://${location.host}${path}`, protocols ?? []);
    socket.binaryType = "arraybuffer";
    const messages = [], waiting = [];
    socket.onmessage = ({data}) => { if (waiting.length) waiting.shift()(data); else messages.push(data); };
    return {
        socket,
        send: (data) => socket.send(data),
        next: () => new Promise((found) => { if (messages.length) found(messages.shift()); else waiting.push(found); }),
        opened: new Promise((found) => { socket.onopen = () => found(true); }),
        closed: new Promise((found) => {
            socket.onclose = ({code, reason, wasClean}) => found([code, reason, wasClean]);
        }),
    };
}
</script>
"""

ECHO = """(async () => {
    const it = start("/ws", ["chat.v1", "chat.v2"]);
    await it.opened;
    const results = [it.socket.protocol, it.socket.extensions];
    it.send("héllo €, 𝄞");
    results.push(await it.next());
    it.send("");
    results.push(await it.next());
    it.send(new Uint8Array([0, 1, 254, 255]));
    results.push([...new Uint8Array(await it.next())]);
    // Long ones, that compress well and badly; a browser may send them in fragments.
    const text = "grüße ".repeat(200000);
    it.send(text);
    results.push(await it.next() === text);
    const noise = new Uint8Array(1 << 20);
    for (let at = 0; at < noise.length; at += 65536) crypto.getRandomValues(noise.subarray(at, at + 65536));
    it.send(noise);
    const back = new Uint8Array(await it.next());
    results.push(back.length === noise.length && back.every((octet, at) => octet === noise[at]));
    // Many at once.
    for (let number = 0; number < 500; number++) it.send(`${number}`);
    let inOrder = true;
    for (let number = 0; number < 500; number++) inOrder = await it.next() === `${number}` && inOrder;
    results.push(inOrder);
    it.socket.close(4321, "tschüß");
    results.push(await it.closed);
    return results;
})()"""

CLOSED_BY_SERVER = """(async () => {
    const it = start("/ws");
    await it.opened;
    it.send("close, please");
    return await it.closed;
})()"""

PINGED = """(async () => {
    const it = start("/ws");
    await it.opened;
    it.send("ping me");
    const answer = await it.next();
    it.socket.close();
    return [answer, (await it.closed)[0]];
})()"""

REFUSED = """(async () => {
    const it = start("/other-origin");
    return await Promise.race([it.closed, it.opened]);
})()"""


class Site:
    """Serves the page, and a WebSocket: what comes goes back, but for commands."""

    def __init__(self) -> None:
        self.openings: list[Any] = []
        self.controls: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()

    def handle(self, conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            self.reply(conn, data)
        elif ev == MG_EV_WS_OPEN:
            self.openings.append(data)
        elif ev == MG_EV_WS_MSG and data.data == b"close, please":
            conn.ws_close(4001, "as you wish, grüße")
        elif ev == MG_EV_WS_MSG:
            if data.data == b"ping me":
                conn.ws_ping(b"hello, browser")
            conn.ws_send(data.data, data.flags & 15)
        elif ev == MG_EV_WS_CTL:
            self.controls.put_nowait((data.flags & 15, data.data))

    def reply(self, conn: Connection, request: Any) -> None:
        if request.uri == "/ws":
            here = f"http://{request.header('host')}"
            conn.ws_upgrade(request, subprotocols=["chat.v2", "chat.v1"], origins=[here], compression=True)
        elif request.uri == "/other-origin":
            conn.ws_upgrade(request, origins=["https://other.example"])
        else:
            conn.reply(200, PAGE, {"Content-Type": "text/html"})

    async def control(self, opcode: int) -> bytes:
        """Wait for the next ping, pong or close frame, which has to be this one."""
        seen, payload = await asyncio.wait_for(self.controls.get(), TIMEOUT)
        assert seen == opcode
        return payload


@pytest.mark.timeout(180)
@pytest.mark.parametrize("backend", ["native", "asyncio"])
async def test_a_page_talks(
    backend: Literal["native", "asyncio"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = peer("chromium", "chromium-browser", "google-chrome")
    if backend == "native":
        core = asyncmg.core.load()
        if core is None or core.engine is None:
            if os.environ.get("ASYNCMG_REQUIRE_CORE") == "1":
                pytest.fail(f"no C core: {asyncmg.core.status().reason}")
            pytest.skip("no C core")
    else:
        monkeypatch.setenv("ASYNCMG_WS_CODEC", "portable")

    def aside(function: Callable[..., Any], *arguments: Any) -> Any:
        # The browser's driver blocks, and the server is to run meanwhile.
        return asyncio.to_thread(functools.partial(function, *arguments))

    site = Site()
    limits = Limits(ws=WsLimits(max_message=4 << 20, ping_interval=0))
    async with Manager(site.handle, backend=backend, limits=limits) as manager:
        url = f"http://127.0.0.1:{manager.listen('http://127.0.0.1:0').port}"
        browser = await aside(Browser, program, tmp_path, url)
        try:
            await aside(browser.wait_for, "document.getElementById('ready') && typeof start === 'function'")

            results = await aside(browser.evaluate, ECHO)
            assert results[0] == "chat.v2" and results[1].startswith("permessage-deflate")
            assert results[2:5] == ["héllo €, 𝄞", "", [0, 1, 254, 255]]
            assert results[5:8] == [True, True, True]
            assert results[8] == [4321, "", True]  # what the answer to its close frame says
            assert site.openings[0].header("origin") == url
            assert await site.control(WEBSOCKET_OP_CLOSE) == b"\x10\xe1" + "tschüß".encode()

            assert await aside(browser.evaluate, CLOSED_BY_SERVER) == [4001, "as you wish, grüße", True]
            assert (await site.control(WEBSOCKET_OP_CLOSE))[:2] == b"\x0f\xa1"

            assert await aside(browser.evaluate, PINGED) == ["ping me", 1005]
            assert await site.control(WEBSOCKET_OP_PONG) == b"hello, browser"
            assert await site.control(WEBSOCKET_OP_CLOSE) == b""

            # What was wrong is hidden from the page: it learns that there is no connection.
            assert await aside(browser.evaluate, REFUSED) == [1006, "", False]
            assert len(site.openings) == 3
        finally:
            await aside(browser.__exit__, None, None, None)
