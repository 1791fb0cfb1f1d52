"""Retained messages (MQTT 5.0 section 3.3.1.3)."""

from __future__ import annotations

from collections.abc import Iterator

from asyncmg.codecs.mqtt_topics import TopicTree
from asyncmg.limits import MqttLimits

from .message import Message


class RetainedMessages:
    """The last retained message of each topic.

    Attributes:
        size: bytes of topics, payloads and properties.
    """

    def __init__(self, limits: MqttLimits) -> None:
        self._limits = limits
        self._messages: dict[str, Message] = {}
        self._names: TopicTree[str] = TopicTree()
        self.size = 0

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(tuple(self._messages.values()))

    def set(self, message: Message) -> bool:
        """Keep a message in the place of its topic's; one without payload takes that away.

        Returns:
            False: there is no room; the old one is gone all the same [MQTT-3.3.1-7 of 3.1.1].
        """
        topic = message.topic
        before = self._messages.get(topic)
        if not message.payload:
            if before is not None:
                self._remove(before)
            return True
        limits = self._limits
        size = self.size + message.size - (before.size if before is not None else 0)
        if (before is None and len(self._messages) >= limits.max_retained) or size > limits.max_retained_bytes:
            if before is not None:
                self._remove(before)
            return False
        if before is None:
            self._names.insert(topic, topic)
        self._messages[topic] = message
        self.size = size
        return True

    def _remove(self, message: Message) -> None:
        del self._messages[message.topic]
        self._names.remove(message.topic, message.topic)
        self.size -= message.size

    def get(self, topic: str, now: float) -> Message | None:
        """Return the message of a topic, unless it has expired."""
        message = self._messages.get(topic)
        if message is not None and 0.0 < message.expires_at <= now:
            self._remove(message)
            return None
        return message

    def match(self, topic_filter: str, now: float) -> list[Message]:
        """Return the messages of all topics that a filter matches."""
        if "+" in topic_filter or "#" in topic_filter:
            names = self._names.match_filter(topic_filter)
        else:
            names = [topic_filter]
        return [message for name in names if (message := self.get(name, now)) is not None]
