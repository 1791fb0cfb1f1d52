"""The portable MQTT codec (MQTT 3.1.1 and 5.0 chapters 2 and 3): a packet reader in Python alone.

Packets that are there as a whole are read where they lie. Kept between two calls is an incomplete fixed header, at most
four bytes, or one incomplete packet, to which what comes in is added until it is whole: each byte is read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

from asyncmg.errors import ProtocolError, RemoteProtocolError

from . import mqtt as m
from .http import Role
from .mqtt_properties import (
    BY_CLIENT,
    IN_WILL,
    LONG_INTEGER,
    NO_PROPERTIES,
    TRUNCATED,
    Fault,
    Properties,
    Property,
    decode_text,
    read_binary,
    read_properties,
    read_text,
    read_uint16,
    refuse,
)
from .mqtt_topics import SHARE, filter_fault, topic_fault

_ALIAS: Final = Property.TOPIC_ALIAS
_EXPIRY: Final = Property.SESSION_EXPIRY_INTERVAL
_METHOD: Final = Property.AUTHENTICATION_METHOD

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


class PortableMqttCodec:
    """The contract is :class:`asyncmg.codecs.mqtt.MqttCodec`."""

    __slots__ = (
        "_body",
        "_faults",
        "_header",
        "_is_over",
        "_keeps_session",
        "_limits",
        "_missing",
        "_role",
        "_sizes",
        "_topics",
        "error",
        "version",
    )

    def __init__(self, role: Role, limits: m.MqttCodecLimits, version: int = 0) -> None:
        self.error: ProtocolError | None = None
        if role is Role.SERVER:
            version = 0
        elif version not in (4, 5):
            raise ValueError(f"a client knows its protocol level, 4 or 5, not {version}")
        self.version = version
        self._role = role
        self._limits = limits
        self._sizes = _sizes(limits)
        self._faults = _first_bytes(role, version, False)
        self._header = b""  # the beginning of a fixed header
        self._body = bytearray()  # the beginning of a packet whose fixed header has come
        self._missing = 0  # bytes of that packet to come
        self._topics: dict[bytes, str] = {}
        self._keeps_session = False  # the CONNECT has a session expiry interval
        self._is_over = False  # nothing more is read

    @property
    def buffered(self) -> int:
        return len(self._header) + len(self._body)

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
                raise self._too_large(kind, end - position)
            if end > size:
                self._body += data[position:]
                self._missing = end - size
                return
            if kind == 3:
                append(self._read_publish(first, data, start, end))
            else:
                append(self._read_packet(kind, data, start, end))
                if kind == m.DISCONNECT:
                    return
                faults = self._faults
            position = end

    def _too_large(self, kind: int, actual: int) -> RemoteProtocolError:
        limits = self._limits
        name = "max_packet" if kind == m.PUBLISH else "max_connect" if kind in _LARGE else "max_small"
        return m.over_limit("packet", name, getattr(limits, name), actual, m.PACKET_TOO_LARGE)

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

    def _check_topic_size(self, topic: str, size: int, code: int) -> None:
        limits = self._limits
        if size > limits.max_topic_length:
            raise m.over_limit("topic", "max_topic_length", limits.max_topic_length, size, code)
        if size >= limits.max_topic_levels:
            levels = topic.count("/") + 1
            if levels > limits.max_topic_levels:
                raise m.over_limit("depth of a topic", "max_topic_levels", limits.max_topic_levels, levels, code)

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

    def _read_properties(self, data: bytes, position: int, end: int, kind: int) -> tuple[Properties, int]:
        return read_properties(data, position, end, kind, self._limits.max_user_properties)

    # -- other packets -----------------------------------------------------------------------------------------------

    def _read_packet(self, kind: int, data: bytes, start: int, end: int) -> m.Packet:
        if m.PUBACK <= kind <= m.PUBCOMP:
            return self._read_ack(kind, data, start, end)
        if kind in (m.PINGREQ, m.PINGRESP):
            self._expect_end(start, end)
            return m.PING_REQUEST if kind == m.PINGREQ else m.PING_RESPONSE
        if kind == m.SUBSCRIBE:
            return self._read_subscribe(data, start, end)
        if kind == m.UNSUBSCRIBE:
            return self._read_unsubscribe(data, start, end)
        if kind in (m.SUBACK, m.UNSUBACK):
            return self._read_suback(kind, data, start, end)
        if kind == m.CONNECT:
            return self._read_connect(data, start, end)
        if kind == m.CONNACK:
            return self._read_connack(data, start, end)
        return self._read_farewell(kind, data, start, end)

    def _expect_end(self, position: int, end: int) -> None:
        if position != end:
            raise refuse(m.TRAILING_BYTES, self.version)

    def _check_reason(self, kind: int, code: int) -> None:
        codes = m.REASON_CODES[kind] if self.version == 5 else m.REASON_CODES_V311[kind]
        if code not in codes:
            raise refuse(m.BAD_REASON_CODE[kind], self.version)

    def _read_ack(self, kind: int, data: bytes, start: int, end: int) -> m.Ack:
        """Sections 3.4 to 3.7: reason code 0 and a property length of 0 may be left out in 5.0."""
        packet_id = read_uint16(data, start, end, self.version)
        if not packet_id:
            raise refuse(m.ZERO_ACK_ID, self.version)
        position = start + 2
        if position == end:
            return m.Ack(kind, packet_id)
        if self.version == 4:
            raise refuse(m.TRAILING_BYTES, 4)
        code = data[position]
        position += 1
        self._check_reason(kind, code)
        properties = NO_PROPERTIES
        if position < end:
            properties, position = self._read_properties(data, position, end, kind)
            self._expect_end(position, end)
        return m.Ack(kind, packet_id, code, properties)

    def _read_filter(self, data: bytes, position: int, end: int) -> tuple[str, int]:
        name, after = read_text(data, position, end, self.version)
        fault = filter_fault(name, self.version)
        if fault is not None:
            raise refuse(fault, self.version)
        self._check_topic_size(name, after - position - 2, m.TOPIC_FILTER_INVALID)
        return name, after

    def _read_request(self, kind: int, data: bytes, start: int, end: int) -> tuple[int, Properties, int]:
        """Read what SUBSCRIBE and UNSUBSCRIBE begin with."""
        packet_id = read_uint16(data, start, end, self.version)
        if not packet_id:
            raise refuse(m.ZERO_PACKET_ID, self.version)
        if self.version == 5:
            return packet_id, *self._read_properties(data, start + 2, end, kind)
        return packet_id, NO_PROPERTIES, start + 2

    def _read_subscribe(self, data: bytes, start: int, end: int) -> m.Subscribe:
        """Section 3.8."""
        packet_id, properties, position = self._read_request(m.SUBSCRIBE, data, start, end)
        filters = []
        while position < end:
            name, position = self._read_filter(data, position, end)
            if position == end:
                raise refuse(TRUNCATED, self.version)
            options = data[position]
            position += 1
            self._check_options(name, options)
            filters.append((name, options))
        if not filters:
            raise refuse(m.NO_FILTER, self.version)
        return m.Subscribe(packet_id, filters, properties)

    def _check_options(self, name: str, options: int) -> None:
        """5.0 section 3.8.3.1."""
        if self.version == 4:
            if options > 2:
                raise refuse(m.RESERVED_OPTIONS, 4)
        elif options & 0xC0:
            raise refuse(m.RESERVED_OPTIONS, 5)
        elif options & m.OPTION_QOS == 3:
            raise refuse(m.OPTIONS_QOS_3, 5)
        elif options & m.OPTION_RETAIN_HANDLING == m.OPTION_RETAIN_HANDLING:
            raise refuse(m.RETAIN_HANDLING_3, 5)
        elif options & m.OPTION_NO_LOCAL and name.startswith(SHARE):
            raise refuse(m.SHARED_NO_LOCAL, 5)

    def _read_unsubscribe(self, data: bytes, start: int, end: int) -> m.Unsubscribe:
        """Section 3.10."""
        packet_id, properties, position = self._read_request(m.UNSUBSCRIBE, data, start, end)
        filters = []
        while position < end:
            name, position = self._read_filter(data, position, end)
            filters.append(name)
        if not filters:
            raise refuse(m.NO_FILTER_TO_LEAVE, self.version)
        return m.Unsubscribe(packet_id, filters, properties)

    def _read_suback(self, kind: int, data: bytes, start: int, end: int) -> m.Suback | m.Unsuback:
        """Sections 3.9 and 3.11."""
        packet_id = read_uint16(data, start, end, self.version)
        if not packet_id:
            raise refuse(m.ZERO_SUBACK_ID, self.version)
        position = start + 2
        properties = NO_PROPERTIES
        if self.version == 5:
            properties, position = self._read_properties(data, position, end, kind)
        elif kind == m.UNSUBACK:
            self._expect_end(position, end)
            return m.Unsuback(packet_id)
        codes = data[position:end]
        if not codes:
            raise refuse(m.NO_SUBACK_CODE if kind == m.SUBACK else m.NO_UNSUBACK_CODE, self.version)
        for code in codes:
            self._check_reason(kind, code)
        return (m.Suback if kind == m.SUBACK else m.Unsuback)(packet_id, codes, properties)

    def _read_farewell(self, kind: int, data: bytes, start: int, end: int) -> m.Disconnect | m.Auth:
        """DISCONNECT and AUTH (sections 3.14 and 3.15): all may be left out when the reason code is 0."""
        code, properties, position = m.SUCCESS, NO_PROPERTIES, start
        if self.version == 5 and position < end:
            code = data[position]
            position += 1
            peer = Role.CLIENT if self._role is Role.SERVER else Role.SERVER
            if code not in m.REASON_CODES_OF[kind, peer]:
                raise refuse(m.BAD_REASON_CODE[kind], 5)
            if position < end or kind == m.AUTH:
                properties, position = self._read_properties(data, position, end, kind)
        elif kind == m.AUTH and self._role is Role.SERVER:
            raise refuse(m.BAD_REASON_CODE[kind], 5)  # a client has no success to tell
        self._expect_end(position, end)
        if kind == m.AUTH:
            if end > start and _METHOD not in properties:
                raise refuse(m.AUTH_WITHOUT_METHOD, 5)
            return m.Auth(code, properties)
        if _EXPIRY in properties:
            if self._role is Role.CLIENT:
                raise refuse(m.SERVER_EXPIRES_SESSION, 5)
            if properties[_EXPIRY] and not self._keeps_session:
                raise refuse(m.EXPIRY_AFTER_ZERO, 5)
        self._is_over = True
        return m.Disconnect(code, properties)

    def _read_connack(self, data: bytes, start: int, end: int) -> m.Connack:
        """Section 3.2. Servers that know 3.1.1 alone refuse a CONNECT of 5.0 by return code 1 and no properties."""
        if start + 2 > end:
            raise refuse(TRUNCATED, self.version)
        flags, code = data[start], data[start + 1]
        position = start + 2
        if flags & 0xFE:
            raise refuse(m.CONNACK_FLAGS, self.version)
        properties = NO_PROPERTIES
        if self.version == 5:
            if code == 1 and position == end:
                code = m.UNSUPPORTED_VERSION
            else:
                self._check_reason(m.CONNACK, code)
                properties, position = self._read_properties(data, position, end, m.CONNACK)
        else:
            self._check_reason(m.CONNACK, code)
        self._expect_end(position, end)
        if flags and code:
            raise refuse(m.SESSION_OF_REFUSED, self.version)
        self._faults = _first_bytes(self._role, self.version, True)
        return m.Connack(flags == 1, code, properties)

    # -- CONNECT -----------------------------------------------------------------------------------------------------

    def _read_connect(self, data: bytes, start: int, end: int) -> m.Connect:
        """Section 3.1."""
        name, position = read_binary(data, start, end, 0)
        if name != b"MQTT":
            raise refuse(m.BAD_PROTOCOL_NAME, 0)
        if position + 4 > end:
            raise refuse(TRUNCATED, 0)
        version, flags = data[position], data[position + 1]
        if version not in (4, 5):
            raise refuse(m.BAD_PROTOCOL_LEVEL, 0)
        self.version = version
        fault = _connect_flags_fault(flags, version)
        if fault is not None:
            raise refuse(fault, version)
        packet = m.Connect(version, "", flags & 2 == 2, data[position + 2] << 8 | data[position + 3])
        position += 4
        if version == 5:
            packet.properties, position = self._read_properties(data, position, end, m.CONNECT)
            self._keeps_session = bool(packet.properties.get(_EXPIRY))
        client_id, position = read_binary(data, position, end, version)
        limit = self._limits.max_client_id
        if len(client_id) > limit:
            raise m.over_limit("client identifier", "max_client_id", limit, len(client_id), m.CLIENT_IDENTIFIER_INVALID)
        packet.client_id = decode_text(client_id, version)
        if not client_id and version == 4 and not packet.clean_start:
            raise refuse(m.NO_CLIENT_ID, 4)
        if flags & 4:
            position = self._read_will(packet, flags, data, position, end)
        if flags & 0x80:
            packet.username, position = read_text(data, position, end, version)
        if flags & 0x40:
            packet.password, position = read_binary(data, position, end, version)
        self._expect_end(position, end)
        self._faults = _first_bytes(self._role, version, True)
        return packet

    def _read_will(self, packet: m.Connect, flags: int, data: bytes, position: int, end: int) -> int:
        """Sections 3.1.3.2 to 3.1.3.4 of 5.0."""
        version = packet.version
        if version == 5:
            packet.will_properties, position = self._read_properties(data, position, end, IN_WILL)
        topic, after = read_text(data, position, end, version)
        fault = topic_fault(topic)
        if fault is not None:
            raise refuse(fault, version)
        self._check_topic_size(topic, after - position - 2, m.TOPIC_NAME_INVALID)
        packet.will_topic = topic
        packet.will_payload, position = read_binary(data, after, end, version)
        packet.will_qos = flags >> 3 & 3
        packet.will_retain = flags & 0x20 != 0
        return position


_LARGE: Final = frozenset((m.CONNECT, m.SUBSCRIBE, m.UNSUBSCRIBE))


@cache
def _sizes(limits: m.MqttCodecLimits) -> tuple[int, ...]:
    """Return the limit of each type of packet."""
    return tuple(
        limits.max_packet if kind == m.PUBLISH else limits.max_connect if kind in _LARGE else limits.max_small
        for kind in range(16)
    )


def _connect_flags_fault(flags: int, version: int) -> Fault | None:
    """Hold the connect flags (section 3.1.2) against each other."""
    if flags & 1:
        return m.CONNECT_FLAG_RESERVED
    if flags & 0x18 == 0x18:
        return m.WILL_QOS_3
    if not flags & 4:
        if flags & 0x18:
            return m.WILL_QOS_WITHOUT_WILL
        if flags & 0x20:
            return m.WILL_RETAIN_WITHOUT_WILL
    if version == 4 and flags & 0xC0 == 0x40:
        return m.PASSWORD_WITHOUT_USER
    return None
