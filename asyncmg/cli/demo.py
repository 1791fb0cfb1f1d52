"""``asyncmg demo``: a hub on this machine that shows what the library does, for curl and a browser."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from asyncmg import (
    MG_EV_CLOSE,
    MG_EV_HTTP_HDRS,
    MG_EV_HTTP_MSG,
    MG_EV_READ,
    MG_EV_WRITE,
    MG_EV_WS_MSG,
    AsyncmgError,
    Connection,
    ConnectionClosed,
    HttpMessage,
    Limits,
    Manager,
    NetLimits,
    WsMessage,
    broadcast,
    event_name,
)

from . import info, serving

SITE = Path(__file__).parent / "site"
PAGE = {"/": "index.html", "/style.css": "style.css", "/app.js": "app.js", "/favicon.ico": "files/logo.svg"}
TICK_MS = 1000
FEED_MS = 100  # events of this long go to the watchers in one message
FEED_MAX = 40  # events in one message; the others are counted
# Ctrl-C ends the demo within a second: what is under way gets this long.
LIMITS = Limits(net=replace(NetLimits(), graceful_timeout=0.3))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    serving.add_address_arguments(parser)


def run(options: argparse.Namespace) -> int:
    return serving.run(_serve(options.host, options.port))


async def _serve(host: str, port: int | None) -> None:
    async with Manager(limits=LIMITS) as manager:
        hub = Hub(manager)
        url = serving.url_of(serving.listen(manager, host, port, hub.handle))
        manager.timer_add(TICK_MS, hub.tick, repeat=True)
        manager.timer_add(FEED_MS, hub.feed, repeat=True)
        print(_banner(url), flush=True)

        def stop() -> None:
            print("stopping", flush=True)
            hub.stop()

        await serving.serve_until_signal(manager, stop)


def _banner(url: str) -> str:
    return f"""\
asyncmg demo: {url}/ (Ctrl-C stops)

  {url}/            the page: open it in a browser
  {url}/api/status  JSON about this process
  {url}/api/echo    tells what you sent
  {url}/files/...   files: hello.txt, events.json, logo.svg
  {url}/events      server-sent events, one a second
  {url}/live        WebSocket: every event of this process, as it happens
  {url}/stream      a chunked stream
  {url}/upload      POST: size and SHA-256 of any amount of data

  curl {url}/api/status
  curl -d 'hello' '{url}/api/echo?x=1'
  curl -N {url}/events
  curl -N {url}/stream
  head -c 100000000 /dev/zero | curl -T - -X POST {url}/upload
"""


class Hub:
    """The handler of all connections, and what they share."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self.facts = info.collect()
        self.started = time.monotonic()
        self.requests = 0
        self.counted = 0  # requests at the last tick
        self.rates: deque[int] = deque(maxlen=60)  # requests per tick, the last minute
        self.skipped = 0  # ticks not sent, because their reader was behind
        self.subscribers: set[Connection] = set()
        self.watchers: set[Connection] = set()  # WebSocket connections that see every event
        self.noted: list[dict[str, Any]] = []  # events for them, since the last feed
        self.left_out = 0
        self.is_stopping = False

    async def handle(self, conn: Connection, ev: int, data: Any) -> None:
        if self.watchers:
            self.note(conn, ev, data)
        if ev == MG_EV_HTTP_HDRS:
            self.requests += 1
            if data.uri == "/upload" and data.method in ("POST", "PUT"):
                await self.receive_upload(conn, data)
        elif ev == MG_EV_HTTP_MSG:
            with suppress(ConnectionClosed):  # who has left needs no answer
                await self.answer(conn, data)
        elif ev == MG_EV_CLOSE:
            self.subscribers.discard(conn)
            self.watchers.discard(conn)

    async def answer(self, conn: Connection, message: HttpMessage) -> None:
        uri = message.uri
        if uri in PAGE:
            conn.serve_file(message, SITE / PAGE[uri], "Cache-Control: no-cache\r\n")
        elif uri.startswith("/files/"):
            conn.serve_dir(message, SITE, "Cache-Control: no-cache\r\n")
        elif uri == "/api/status":
            conn.reply(200, {"process": self.figures(), **self.facts})
        elif uri == "/api/echo":
            conn.reply(200, echo(message))
        elif uri == "/events":
            self.subscribe(conn, message)
        elif uri == "/live":
            # Only the page that this server has sent may watch (RFC 6455 section 10.2), and programs, which name none.
            if conn.ws_upgrade(message, origins=[f"http://{message.host}", None], compression=True):
                self.watchers.add(conn)
        elif uri == "/stream":
            await self.send_stream(conn, message)
        elif uri == "/upload":
            conn.reply(405, "405: POST data here\n", {"Allow": "POST, PUT"})
        else:
            conn.reply(404, {"error": "not found", "uri": uri})

    async def receive_upload(self, conn: Connection, message: HttpMessage) -> None:
        """Read content of any size, piece by piece, at the pace at which it is hashed."""
        size, digest, began = 0, hashlib.sha256(), time.monotonic()
        try:
            async for chunk in message.stream():
                size += len(chunk)
                digest.update(chunk)
        except AsyncmgError:
            return  # the client left, broke the message or stalled: it has its answer, if it can have one
        seconds = round(time.monotonic() - began, 3)
        conn.reply(200, {"size": size, "sha256": digest.hexdigest(), "seconds": seconds})

    async def send_stream(self, conn: Connection, message: HttpMessage) -> None:
        """Ten chunks in a second; fewer when the demo stops."""
        conn.reply(200, "", {"Content-Type": "text/plain; charset=utf-8", "Transfer-Encoding": "chunked"})
        for number in range(1, 11):
            if self.is_stopping or message.method == "HEAD":
                break
            conn.http_chunk(f"chunk {number} of 10\n")
            await conn.flush()
            await asyncio.sleep(0.1)
        conn.http_chunk("")

    def subscribe(self, conn: Connection, message: HttpMessage) -> None:
        """Begin a stream of events; :meth:`tick` goes on with it."""
        conn.reply(200, "", {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        if message.method == "HEAD" or self.is_stopping:
            conn.http_chunk("")
        else:
            self.subscribers.add(conn)
            conn.http_sse("begin", json.dumps({**self.figures(), "rates": list(self.rates)}), retry=1000)

    def tick(self) -> None:
        """Send the figures to every subscriber. One that is behind misses a tick; one that is gone is forgotten."""
        self.rates.append(self.requests - self.counted)
        self.counted = self.requests
        text = json.dumps(self.figures())
        for conn in tuple(self.subscribers):
            if not conn.is_writable and not conn.is_closing:
                self.skipped += 1
                continue
            try:
                conn.http_sse("tick", text)
            except ConnectionClosed:
                self.subscribers.discard(conn)

    def note(self, conn: Connection, ev: int, data: Any) -> None:
        """Keep an event for the watchers; of their own connections only what they say: the feed would feed itself."""
        if conn in self.watchers and ev not in (MG_EV_WS_MSG, MG_EV_CLOSE):
            return
        if len(self.noted) >= FEED_MAX:
            self.left_out += 1
        else:
            self.noted.append({"conn": conn.id, "event": event_name(ev), "data": describe(ev, data)})

    def feed(self) -> None:
        """Send the events since the last time to all watchers, in one message that is framed once."""
        if not self.noted:
            return
        text = json.dumps({"events": self.noted, "left_out": self.left_out})
        self.noted, self.left_out = [], 0
        broadcast(self.watchers, text)

    def stop(self) -> None:
        """End the streams, so that their readers know that they have everything."""
        self.is_stopping = True
        for conn in tuple(self.subscribers):
            with suppress(ConnectionClosed):
                conn.http_chunk("")
        self.subscribers.clear()

    def figures(self) -> dict[str, Any]:
        return {
            "time": time.strftime("%H:%M:%S"),
            "uptime": round(time.monotonic() - self.started, 1),
            "connections": sum(not conn.is_listening for conn in self.manager.connections),
            "requests": self.requests,
            "rate": self.rates[-1] if self.rates else 0,
            "subscribers": len(self.subscribers),
            "watchers": len(self.watchers),
            "skipped": self.skipped,
        }


def describe(ev: int, data: Any) -> str:
    """Tell an event's data in a few words."""
    if isinstance(data, HttpMessage):
        return f"{data.method} {data.uri}"[:80]
    if isinstance(data, WsMessage):
        return data.data[:120].decode("utf-8", "replace")
    if ev in (MG_EV_READ, MG_EV_WRITE):
        return f"{data} bytes"
    return "" if data is None else str(data)[:120]


def echo(message: HttpMessage) -> dict[str, Any]:
    """Tell a request back."""
    return {
        "method": message.method,
        "uri": message.uri,
        "query": message.query,
        "headers": message.headers(),
        "body_size": len(message.body_bytes),
        "body": message.body_bytes.decode("utf-8", "replace"),
    }
