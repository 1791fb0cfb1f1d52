"""A message on its way through the broker: encoded once for each kind of receiver, not once for each receiver."""

from __future__ import annotations

from typing import Final

from asyncmg.codecs import mqtt as m
from asyncmg.codecs.mqtt_encode import encode_publish, publish_head, publish_prefix
from asyncmg.codecs.mqtt_properties import (
    Properties,
    Property,
    PropertyValue,
    parse_properties,
    write_properties,
)

_EXPIRY: Final = Property.MESSAGE_EXPIRY_INTERVAL
_IDENTIFIER: Final = Property.SUBSCRIPTION_IDENTIFIER
_ALIAS: Final = Property.TOPIC_ALIAS


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
        properties = self.properties if version == 5 else b""
        if qos:
            parts = publish_prefix(version, self.topic, self.payload, qos, retain, properties=properties)
        else:
            head = publish_head(version, self.topic, len(self.payload), retain, properties)
            parts = (head, self.payload)
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
