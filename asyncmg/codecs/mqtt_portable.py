"""The portable MQTT codec (MQTT 3.1.1 and 5.0 chapters 2 and 3): a packet reader in Python alone.

Packets that are there as a whole are read where they lie. Kept between two calls is an incomplete fixed header, at most
four bytes, or one incomplete packet, to which what comes in is added until it is whole: each byte is read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from asyncmg.errors import ProtocolError, RemoteProtocolError
from asyncmg.limits import MqttLimits

from . import mqtt as m
from .http import Role
from .mqtt_bodies import BodyReader
from .mqtt_properties import BY_CLIENT, LONG_INTEGER, TRUNCATED, Fault, Property, decode_text, read_uint16, refuse

_ALIAS: Final = Property.TOPIC_ALIAS

_OF_BOTH: Final = frozenset((m.PUBLISH, m.PUBACK, m.PUBREC, m.PUBREL, m.PUBCOMP))
_OF_CLIENT: Final = _OF_BOTH | {m.CONNECT, m.SUBSCRIBE, m.UNSUBSCRIBE, m.PINGREQ, m.DISCONNECT}
_OF_SERVER: Final = _OF_BOTH | {m.CONNACK, m.SUBACK, m.UNSUBACK, m.PINGRESP}

_FLAG_FAULTS: Final = {
    m.PUBREL: m.PUBREL_FLAGS,
    m.SUBSCRIBE: m.SUBSCRIBE_FLAGS,
    m.UNSUBSCRIBE: m.UNSUBSCRIBE_FLAGS,
    m.DISCONNECT: m.DISCONNECT_FLAGS,
    m.AUTH: m.AUTH_FLAGS,
}
_FAULT_BY_NUMBER: list[Fault] = []  # of a first byte


def _order_fault(kind: int, role: Role, version: int, is_open: bool) -> Fault | None:
    """Tell whether this type of packet may come now."""
    if not is_open:
        if role is Role.SERVER:
            return None if kind == m.CONNECT else m.NOT_CONNECT_FIRST
        if kind == m.DISCONNECT:
            return m.EARLY_DISCONNECT
        may_come = kind == m.CONNACK or (kind == m.AUTH and version == 5)
        return None if may_come else m.NOT_CONNACK_FIRST
    if kind == 0 or (kind == m.AUTH and version == 4):
        return m.RESERVED_TYPE
    if kind == m.CONNECT and role is Role.SERVER:
        return m.SECOND_CONNECT
    if kind == m.CONNACK and role is Role.CLIENT:
        return m.SECOND_CONNACK
    may_come = kind in (_OF_CLIENT if role is Role.SERVER else _OF_SERVER)
    if version == 5:
        may_come = may_come or kind in (m.DISCONNECT, m.AUTH)
    return None if may_come else m.WRONG_DIRECTION


def _first_byte_fault(first: int, role: Role, version: int, is_open: bool) -> Fault | None:
    kind, flags = first >> 4, first & 15
    fault = _order_fault(kind, role, version, is_open)
    if fault is not None:
        return fault
    if kind == m.PUBLISH:
        if flags & 6 == 6:
            return m.QOS_3
        return m.DUP_OF_QOS_0 if flags & 14 == 8 else None
    if flags == (2 if kind in (m.PUBREL, m.SUBSCRIBE, m.UNSUBSCRIBE) else 0):
        return None
    return _FLAG_FAULTS.get(kind, m.BAD_FLAGS)


@cache
def _first_bytes(role: Role, version: int, is_open: bool) -> bytes:
    """Return for each first byte 0, or one more than the number of what is wrong with it."""
    numbers = bytearray()
    for first in range(256):
        fault = _first_byte_fault(first, role, version, is_open)
        if fault is not None and fault not in _FAULT_BY_NUMBER:
            _FAULT_BY_NUMBER.append(fault)
        numbers.append(0 if fault is None else _FAULT_BY_NUMBER.index(fault) + 1)
    return bytes(numbers)


_CACHED_TOPICS: Final = 32  # names of up to 64 bytes that a codec remembers: 5 kB


class PortableMqttCodec(BodyReader):
    """The contract is :class:`asyncmg.codecs.mqtt.MqttCodec`."""

    __slots__ = (
        "_body",
        "_faults",
        "_header",
        "_is_over",
        "_missing",
        "_sizes",
        "_topics",
        "error",
    )

    def __init__(self, role: Role, limits: MqttLimits, version: int = 0) -> None:
        super().__init__(role, limits, version)
        self.error: ProtocolError | None = None
        self._sizes = _sizes(limits)
        self._faults = _first_bytes(role, self.version, False)
        self._header = b""  # the beginning of a fixed header
        self._body = bytearray()  # the beginning of a packet whose fixed header has come
        self._missing = 0  # bytes of that packet to come
        self._topics: dict[bytes, str] = {}
        self._is_over = False  # nothing more is read

    @property
    def buffered(self) -> int:
        return len(self._header) + len(self._body)

    def export(self) -> bytes:
        return b""

    def take(self, records: Any, data: Any) -> Sequence[m.Packet]:
        raise AssertionError("no transport reads in place of this codec")

    def receive_data(self, data: bytes) -> Sequence[m.Packet]:
        packets: list[m.Packet] = []
        try:
            if self._missing:
                piece = data[: self._missing]
                self._body += piece
                self._missing -= len(piece)
                if self._missing:
                    return packets
                whole = bytes(self._body)
                self._body = bytearray()
                self._read(whole, packets)
                data = data[len(piece) :]
            elif self._header:
                data = self._header + data
                self._header = b""
            if data:
                self._read(data, packets)
        except RemoteProtocolError as error:
            self.error = error
            self._is_over = True
        return packets

    def _read(self, data: bytes, packets: list[m.Packet]) -> None:
        """Read the packets that are there as a whole, and keep what is behind them."""
        if self._is_over:
            return
        size = len(data)
        position = 0
        append = packets.append
        sizes, faults = self._sizes, self._faults
        while position < size:
            first = data[position]
            if faults[first]:
                raise refuse(_FAULT_BY_NUMBER[faults[first] - 1], self.version)
            start = position + 2
            if start > size:
                self._header = data[position:]
                return
            length = data[position + 1]
            if length > 127:
                # In 3.1.1 it need not be in its shortest form. In 5.0 [MQTT-1.5.5-1] asks that of senders: those that
                # leave four bytes for it, to be filled in later, are read all the same.
                length &= 127
                while True:
                    if start >= size:
                        self._header = data[position:]
                        return
                    byte = data[start]
                    length |= (byte & 127) << (7 * (start - position - 1))
                    start += 1
                    if byte < 128:
                        break
                    if start - position == 5:
                        raise refuse(LONG_INTEGER, self.version)
            end = start + length
            kind = first >> 4
            if end - position > sizes[kind]:
                raise m.too_large(self._limits, kind, end - position)
            if end > size:
                self._body += data[position:]
                self._missing = end - size
                return
            if kind == 3:
                append(self._read_publish(first, data, start, end))
            else:
                append(self.read_packet(kind, data, start, end))
                if kind == m.DISCONNECT:
                    self._is_over = True
                    return
                if kind in (m.CONNECT, m.CONNACK):
                    faults = self._faults = _first_bytes(self._role, self.version, True)
            position = end

    # -- PUBLISH -----------------------------------------------------------------------------------------------------

    def _read_publish(self, first: int, data: bytes, start: int, end: int) -> m.Publish:
        """Section 3.3."""
        position = start + 2
        if position > end:
            raise refuse(TRUNCATED, self.version)
        begin, position = position, position + (data[start] << 8 | data[start + 1])
        if position > end:
            raise refuse(TRUNCATED, self.version)
        name = data[begin:position]
        topic = self._topics.get(name)
        if topic is None:
            topic = self._read_topic(name)
        packet_id = 0
        if first & 6:
            packet_id = read_uint16(data, position, end, self.version)
            position += 2
            if not packet_id:
                fault = m.ZERO_PACKET_ID if self._role is Role.SERVER else m.ZERO_PACKET_ID_OF_SERVER
                raise refuse(fault, self.version)
        raw = b""
        if self.version == 5:
            if position < end and not data[position]:
                position += 1
                if not name:
                    raise refuse(m.NOTHING_PUBLISHED_TO, 5)
            else:
                raw, position = self._read_message_properties(data, position, end, topic)
        elif not name:
            raise refuse(m.NOTHING_PUBLISHED_TO, 4)
        return m.Publish(topic, data[position:end], first >> 1 & 3, first & 1 == 1, first & 8 == 8, packet_id, raw)

    def _read_topic(self, name: bytes) -> str:
        topic = decode_text(name, self.version)
        if "+" in topic or "#" in topic:
            raise refuse(m.WILDCARD_PUBLISHED, self.version)
        self._check_topic_size(topic, len(name), m.TOPIC_NAME_INVALID)
        if 0 < len(name) <= 64:
            if len(self._topics) == _CACHED_TOPICS:
                self._topics.clear()
            self._topics[name] = topic
        return topic

    def _read_message_properties(self, data: bytes, start: int, end: int, topic: str) -> tuple[bytes, int]:
        """Check the properties of a PUBLISH; return them as they are, and the place behind them."""
        kind = BY_CLIENT if self._role is Role.SERVER else m.PUBLISH
        found, position = self._read_properties(data, start, end, kind)
        if not topic and _ALIAS not in found:
            raise refuse(m.NOTHING_PUBLISHED_TO, 5)
        width = 1  # of the length
        while data[start + width - 1] > 127:
            width += 1
        return data[start + width : position], position


@cache
def _sizes(limits: MqttLimits) -> tuple[int, ...]:
    """Return the limit of each type of packet."""
    return tuple(getattr(limits, m.size_limit(kind)) for kind in range(16))
