"""``asyncmg demo``: a hub on this machine that shows what the library does, for curl and a browser."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import socket
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from functools import partial
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
    InvalidPacket,
    Limits,
    Listener,
    ListenFailed,
    Manager,
    MqttBroker,
    NetLimits,
    WsMessage,
    broadcast,
    event_name,
)

from . import info, serving
from .topics import MAX_QUEUED, TopicBoard

SITE = Path(__file__).parent / "site"
PAGE = {"/": "index.html", "/style.css": "style.css", "/app.js": "app.js", "/favicon.ico": "files/logo.svg"}
TICK_MS = 1000
FEED_MS = 100  # events of this long go to the watchers in one message
FEED_MAX = 40  # events in one message; the others are counted
TOPICS_MS = 250  # topics that have changed in this time go to the watchers in one message
MQTT_PORT = 1883
# Ctrl-C ends the demo within a second: what is under way gets this long.
LIMITS = Limits(net=replace(NetLimits(), graceful_timeout=0.3))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    serving.add_address_arguments(parser)
    parser.add_argument(
        "--mqtt-port",
        type=serving.port_number,
        help="port for MQTT alone, beside --port, which serves MQTT as well; 0 for any free one "
        f"(default: {MQTT_PORT}, or the next free one)",
    )


def run(options: argparse.Namespace) -> int:
    return serving.run(_serve(options.host, options.port, options.mqtt_port))


async def _serve(host: str, port: int | None, mqtt_port: int | None) -> None:
    origins: list[str | None] = [None]  # the demo's own are added as soon as the port is known: nobody has come by then
    async with Manager(limits=LIMITS) as manager, MqttBroker(manager, origins=origins) as broker:
        hub = Hub(manager, broker)
        listener = serving.listen(partial(broker.listen, handler=hub.handle), host, port)
        origins += _origins(host, listener)
        hub.urls = [serving.url_of(listener, "mqtt")]
        try:
            raw = serving.listen(broker.listen, host, mqtt_port, scheme="mqtt", default=MQTT_PORT)
            hub.urls.insert(0, serving.url_of(raw, "mqtt"))
        except ListenFailed:
            if mqtt_port is not None:
                raise
        manager.timer_add(TICK_MS, hub.tick, repeat=True)
        manager.timer_add(FEED_MS, hub.feed, repeat=True)
        manager.timer_add(TOPICS_MS, hub.tell_topics, repeat=True)
        print(_banner(serving.url_of(listener), hub.urls), flush=True)

        def stop() -> None:
            print("stopping", flush=True)
            hub.stop()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hub.board.read(hub.messages))
            await serving.serve_until_signal(manager, stop)


def _origins(host: str, listener: Listener) -> list[str]:
    """The origins of the demo's own pages, for MQTT in WebSocket; programs may tell one with https."""
    port = serving.url_of(listener).rpartition(":")[2]
    names = {host, "localhost", "127.0.0.1", "[::1]", socket.gethostname()}
    return [f"{scheme}://{name}:{port}" for scheme in ("http", "https") for name in names]


def _banner(url: str, mqtt_urls: list[str]) -> str:
    mqtt = mqtt_urls[0]
    address = mqtt.removeprefix("mqtt://")
    host, _, port = address.rpartition(":")
    return f"""\
asyncmg demo: {url}/ (Ctrl-C stops)

  {url}/            the page: open it in a browser
  {url}/api/status  JSON about this process
  {url}/api/echo    tells what you sent
  {url}/files/...   files: hello.txt, events.json, logo.svg
  {url}/events      server-sent events, one a second
  {url}/live        WebSocket: every event of this process, and the broker's topics, as it happens
  {url}/stream      a chunked stream
  {url}/upload      POST: size and SHA-256 of any amount of data
  {url}/api/mqtt    the MQTT broker: topics, clients, statistics
  {url}/api/publish POST: publishes a message, ?topic=...&qos=...&retain=1

MQTT, 3.1.1 and 5: {" and ".join(mqtt_urls)}; in WebSocket: {url.replace("http", "ws", 1)}/mqtt

  curl {url}/api/status
  curl -d 'hello' '{url}/api/echo?x=1'
  curl -N {url}/events
  curl -N {url}/stream
  head -c 100000000 /dev/zero | curl -T - -X POST {url}/upload
  curl -d '21.5' '{url}/api/publish?topic=room/temperature&retain=1'
  mosquitto_sub -h {host.strip("[]")} -p {port} -v -t '#'
"""


class Hub:
    """The handler of all connections, and what they share."""

    def __init__(self, manager: Manager, broker: MqttBroker) -> None:
        self.manager = manager
        self.broker = broker
        self.board = TopicBoard(broker)
        self.messages = broker.subscribe("#", max_queued=MAX_QUEUED)
        self.urls: list[str] = []  # of the broker
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
        self.behind: set[Connection] = set()  # watchers that get all topics when they take output again
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
            self.behind.discard(conn)

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
                self.behind.add(conn)
        elif uri == "/api/mqtt":
            conn.reply(200, {"urls": self.urls, **self.board.summary(), "topics": self.board.rows()})
        elif uri == "/api/publish":
            self.publish(conn, message)
        elif uri == "/stream":
            await self.send_stream(conn, message)
        elif uri == "/upload":
            conn.reply(405, "405: POST data here\n", {"Allow": "POST, PUT"})
        else:
            conn.reply(404, {"error": "not found", "uri": uri})

    def publish(self, conn: Connection, message: HttpMessage) -> None:
        """Publish the content of a request; the rest is in its query."""
        if message.method != "POST":
            conn.reply(405, "405: POST the payload here\n", {"Allow": "POST"})
            return
        # A page from elsewhere can have a browser POST here; no page can have it hide where it is from.
        if message.header("Origin") not in (None, f"http://{message.host}"):
            conn.reply(403, {"error": "pages of other origins may not publish"})
            return
        topic, qos = message.query_var("topic") or "", message.query_var("qos") or "0"
        try:
            if topic.startswith("$"):
                raise InvalidPacket(f"topics that begin with $ are the broker's own: {topic:.60}")
            if not topic or qos not in ("0", "1", "2"):
                raise InvalidPacket("expected ?topic=...&qos=0, 1 or 2&retain=0 or 1")
            retain = message.query_var("retain") == "1"
            count = self.broker.publish(topic, message.body_bytes, int(qos), retain)
        except InvalidPacket as exc:
            conn.reply(400, {"error": str(exc)})
        else:
            conn.reply(200, {"topic": topic, "receivers": count})

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
        figures = self.figures()
        for name in ("time", "requests", "connections"):
            self.broker.publish(f"demo/{name}", str(figures[name]), retain=True)
        if self.watchers:
            broadcast(self.watchers - self.behind, json.dumps({"mqtt": self.board.summary()}))
        text = json.dumps(figures)
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

    def tell_topics(self) -> None:
        """Send the topics that have changed to all watchers; all topics to those that are new, or were behind."""
        rows = self.board.take_changed()
        now = round(self.board.now, 2)
        self.behind.update(conn for conn in self.watchers if not conn.is_writable)
        if rows:
            broadcast(self.watchers - self.behind, json.dumps({"topics": rows, "now": now}))
        ready = [conn for conn in self.behind if conn.is_writable]
        if not ready:
            return
        self.behind.difference_update(ready)
        texts = [json.dumps({"mqtt": self.board.summary(), "urls": self.urls})]
        for number, portion in enumerate(self.board.portions()):
            texts.append(json.dumps({"topics": portion, "now": now, "is_first": number == 0}))
        for conn in ready:
            with suppress(ConnectionClosed):
                for text in texts:
                    conn.ws_send(text)

    def stop(self) -> None:
        """End the streams, so that their readers know that they have everything."""
        self.is_stopping = True
        self.messages.close()
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
