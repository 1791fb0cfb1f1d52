"""Bodies of MQTT control packets but PUBLISH (MQTT 3.1.1 and 5.0 chapter 3), read in Python.

The portable codec refuses here what the specification forbids. The native codec has refused it before, and builds its
packets here: but for PUBLISH and plain acknowledgements they are few on any connection.
"""

from __future__ import annotations

from typing import Final

from asyncmg.limits import MqttLimits

from . import mqtt as m
from .http import Role
from .mqtt_properties import (
    IN_WILL,
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

_EXPIRY: Final = Property.SESSION_EXPIRY_INTERVAL
_METHOD: Final = Property.AUTHENTICATION_METHOD


class BodyReader:
    """Reads one side of a connection.

    Args:
        role: which side we are.
        version: 4 or 5; of a server 0 until a CONNECT tells it.

    Raises:
        ValueError: the version of a client is another.
    """

    __slots__ = ("_keeps_session", "_limits", "_role", "version")

    def __init__(self, role: Role, limits: MqttLimits, version: int) -> None:
        if role is Role.SERVER:
            version = 0
        elif version not in (4, 5):
            raise ValueError(f"a client knows its protocol level, 4 or 5, not {version}")
        self.version = version
        self._role = role
        self._limits = limits
        self._keeps_session = False  # the CONNECT has a session expiry interval

    def read_packet(self, kind: int, data: bytes, start: int, end: int) -> m.Packet:
        """Read the body ``data[start:end]`` of a packet of this type, PUBLISH excepted.

        Raises:
            RemoteProtocolError: there is something wrong with it.
        """
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

    def _check_topic_size(self, topic: str, size: int, code: int) -> None:
        limits = self._limits
        if size > limits.max_topic_length:
            raise m.topic_too_large(limits, size, code)
        if size >= limits.max_topic_levels:
            levels = topic.count("/") + 1
            if levels > limits.max_topic_levels:
                raise m.topic_too_deep(limits, levels, code)

    def _read_properties(self, data: bytes, position: int, end: int, kind: int) -> tuple[Properties, int]:
        return read_properties(data, position, end, kind, self._limits.max_user_properties)

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
        if len(client_id) > self._limits.max_client_id:
            raise m.client_id_too_large(self._limits, len(client_id))
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
