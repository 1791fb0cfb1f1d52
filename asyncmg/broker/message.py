"""A message on its way through the broker: encoded once for each kind of receiver, not once for each receiver."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from asyncmg.codecs import mqtt as m
from asyncmg.codecs.mqtt_encode import encode_publish
from asyncmg.codecs.mqtt_properties import (
    Properties,
    Property,
    PropertyValue,
    parse_properties,
    write_properties,
    write_text,
    write_variable,
)

_EXPIRY: Final = Property.MESSAGE_EXPIRY_INTERVAL
_IDENTIFIER: Final = Property.SUBSCRIPTION_IDENTIFIER
_ALIAS: Final = Property.TOPIC_ALIAS
_MAX_REMEMBERED: Final = 256  # characters


@lru_cache(1024)
def _remembered_name(topic: str) -> bytes:
    return write_text(topic)


def _name(topic: str) -> bytes:
    """Encode a topic that has been checked; short ones are remembered."""
    return _remembered_name(topic) if len(topic) <= _MAX_REMEMBERED else write_text(topic)


def _properties(raw: bytes) -> bytes:
    return write_variable(len(raw)) + raw if raw else b"\0"


class Message:
    """What was published.

    Attributes:
        properties: of MQTT 5, encoded, without topic alias.
        expires_at: loop time; 0.0: never.
        publisher: the client identifier; "": the broker itself, or the program around it.
    """

    __slots__ = (
        "_key",
        "_parts",
        "expires_at",
        "payload",
        "properties",
        "publisher",
        "qos",
        "retain",
        "topic",
    )

    def __init__(
        self,
        topic: str,
        payload: bytes,
        qos: int = 0,
        retain: bool = False,
        properties: bytes = b"",
        expires_at: float = 0.0,
        publisher: str = "",
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = properties
        self.expires_at = expires_at
        self.publisher = publisher
        self._key = 0  # which packet has been made last: nearly all receivers want the same
        self._parts = (b"", b"")

    @property
    def size(self) -> int:
        """Bytes that it counts for in queues."""
        return len(self.topic) + len(self.payload) + len(self.properties)

    def start_expiry(self, now: float) -> None:
        """The message is published now: its message expiry interval begins (5.0 section 3.3.2.3.3)."""
        raw = self.properties
        if raw:
            interval = parse_properties(raw, 0, len(raw), m.PUBLISH, len(raw)).get(_EXPIRY)
            if isinstance(interval, int):
                self.expires_at = now + interval

    def parts(self, version: int, qos: int, retain: bool) -> tuple[bytes, bytes]:
        """Return a packet that is sent for the first time in two parts: with QoS 1 and 2 the packet identifier belongs
        between them. The second one is shared by all who get it.
        """
        key = version + (qos << 4) + (8 if retain else 0)
        if key == self._key:
            return self._parts
        head, content = _name(self.topic), self.payload
        if qos:
            if version == 5:
                content = _properties(self.properties) + content
            size = len(head) + 2 + len(content)
        else:
            if version == 5:
                head += _properties(self.properties)
            size = len(head) + len(content)
        first = 0x30 | qos << 1 | (0x01 if retain else 0)
        if size < 128:
            parts = (bytes((first, size)) + head, content)
        else:
            parts = (bytes((first,)) + write_variable(size) + head, content)
        self._key, self._parts = key, parts
        return parts

    def encode(
        self,
        version: int,
        qos: int,
        retain: bool,
        packet_id: int = 0,
        *,
        dup: bool = False,
        now: float = 0.0,
        identifiers: tuple[int, ...] = (),
        topic: str | None = None,
        alias: int = 0,
    ) -> bytes:
        """Return a packet for one receiver.

        Args:
            now: loop time; the message expiry interval that is told is what is left [MQTT-3.3.2-6].
            identifiers: of the subscriptions that it matches.
            topic, alias: "" and an alias that the receiver knows; default: the topic.
        """
        name = self.topic if topic is None else topic
        properties: bytes | Properties = self.properties if version == 5 else b""
        if version == 5 and (identifiers or alias or self.expires_at):
            raw = self.properties
            own: dict[Property, PropertyValue] = dict(parse_properties(raw, 0, len(raw), m.PUBLISH, len(raw)))
            if self.expires_at:
                own[_EXPIRY] = max(0, round(self.expires_at - now))
            if identifiers:
                own[_IDENTIFIER] = identifiers
            if alias:
                own[_ALIAS] = alias
            properties = own if alias else write_properties(own, m.PUBLISH)
        return encode_publish(version, name, self.payload, qos, retain, dup, packet_id, properties)


#: What a session has to deliver: the message, its QoS there, the retain flag, and subscription identifiers.
Delivery = tuple[Message, int, bool, tuple[int, ...]]
