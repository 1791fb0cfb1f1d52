"""What the demo shows of its MQTT broker: the last message of each topic, who is connected, statistics. All bounded."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import Any, Final

from asyncmg import BrokerSubscription, MqttBroker, MqttMessage

MAX_TOPICS: Final = 500  # shown; of more, those that have been silent for the longest time are forgotten
MAX_ROWS: Final = 100  # topics in one message to the page
MAX_CLIENTS: Final = 50  # shown
MAX_QUEUED: Final = 20_000  # messages that wait to be counted
MAX_RUN: Final = 500  # messages counted in one turn of the loop
MAX_PREVIEW: Final = 100  # characters of a payload


class Topic:
    """The last message of a topic, as far as it is shown."""

    __slots__ = ("at", "count", "qos", "retain", "size", "text")

    def __init__(self) -> None:
        self.count = 0

    def note(self, message: MqttMessage, now: float) -> None:
        self.count += 1
        self.at = now
        self.qos = message.qos
        self.retain = message.retain
        self.size = len(message.payload)
        self.text = preview(message.payload)

    def row(self, name: str) -> dict[str, Any]:
        """Return it for the page; ``text`` is None of a payload that is not text, ``at`` seconds since the start."""
        return {
            "topic": name,
            "text": self.text,
            "size": self.size,
            "qos": self.qos,
            "retain": self.retain,
            "count": self.count,
            "at": round(self.at, 2),
        }


class TopicBoard:
    """Keeps a row for each topic. Rows that have changed are taken in small portions: however many messages come in
    between, a topic is told once, and as it is by then.

    Args:
        broker: whose messages they are.

    Attributes:
        forgotten: topics that there was no room for.
    """

    def __init__(self, broker: MqttBroker) -> None:
        self._broker = broker
        self._started = time.monotonic()
        self._topics: dict[str, Topic] = {}  # the one that was silent for the longest time first
        self._changed: dict[str, None] = {}
        self.forgotten = 0

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    async def read(self, messages: BrokerSubscription) -> None:
        """Note all messages of a subscription, until it is closed."""
        count = 0
        async for message in messages:
            self.note(message)
            count += 1
            if count % MAX_RUN == 0:  # the iteration does not suspend while messages wait
                await asyncio.sleep(0)

    def note(self, message: MqttMessage) -> None:
        name = message.topic
        topic = self._topics.pop(name, None)
        if topic is None:
            topic = Topic()
            if len(self._topics) >= MAX_TOPICS:
                silent = next(iter(self._topics))
                del self._topics[silent]
                self._changed.pop(silent, None)
                self.forgotten += 1
        topic.note(message, self.now)
        self._topics[name] = topic
        self._changed[name] = None

    def take_changed(self) -> list[dict[str, Any]]:
        """Return the rows that have changed and are to be told now; the others wait for the next time."""
        names = list(self._changed)[:MAX_ROWS]
        for name in names:
            del self._changed[name]
        return [self._topics[name].row(name) for name in names]

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows."""
        return [topic.row(name) for name, topic in self._topics.items()]

    def portions(self) -> list[list[dict[str, Any]]]:
        """Return all rows, in portions of one message each; at least one."""
        rows = self.rows()
        return [rows[at : at + MAX_ROWS] for at in range(0, max(len(rows), 1), MAX_ROWS)]

    def summary(self) -> dict[str, Any]:
        """Return the figures of the broker and who is connected."""
        clients = self._broker.clients()
        return {
            "statistics": {**asdict(self._broker.statistics()), "topics": len(self._topics)},
            "forgotten": self.forgotten,
            "clients": [
                {
                    "client_id": client.client_id,
                    "username": client.username,
                    "address": str(client.address[0]) if client.address else "",
                    "version": "5.0" if client.version == 5 else "3.1.1",
                }
                for client in clients[:MAX_CLIENTS]
            ],
        }


def preview(payload: bytes) -> str | None:
    """Return the beginning of a payload that is text, None of any other."""
    head = payload[: 4 * MAX_PREVIEW]
    try:
        text = head.decode("utf-8", "strict")
    except UnicodeDecodeError as exc:
        # What is cut may end within a character.
        if len(head) == len(payload) or exc.start < len(head) - 3:
            return None
        text = head[: exc.start].decode("utf-8")
    if any(not char.isprintable() and char not in "\t\r\n" for char in text):
        return None
    return text if len(text) <= MAX_PREVIEW else f"{text[:MAX_PREVIEW]}…"
