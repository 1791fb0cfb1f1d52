"""MQTT control packets to bytes (MQTT 3.1.1 and 5.0 chapter 3): a function for each packet, both roles.

``version`` is 4 or 5. Arguments that would make a packet which the specification forbids raise InvalidPacket, which is
a ValueError. What a receiver allows (maximum packet size, topic aliases, ...) is up to the caller.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from asyncmg.errors import InvalidPacket

from . import mqtt as m
from .http import Role
from .mqtt_properties import (
    IN_WILL,
    NO_PROPERTIES,
    Properties,
    Property,
    write_binary,
    write_properties,
    write_text,
    write_variable,
)
from .mqtt_topics import SHARE, filter_fault, topic_fault

PINGREQ_BYTES: Final = b"\xc0\x00"
PINGRESP_BYTES: Final = b"\xd0\x00"
_ALIAS: Final = Property.TOPIC_ALIAS
_METHOD: Final = Property.AUTHENTICATION_METHOD


def _frame(first: int, body: bytes) -> bytes:
    size = len(body)
    if size < 128:
        return bytes((first, size)) + body
    return bytes((first,)) + write_variable(size) + body


def _check_version(version: int) -> None:
    if version not in (4, 5):
        raise InvalidPacket(f"MQTT has protocol levels 4 and 5, not {version}")


def _check_packet_id(packet_id: int) -> None:
    if not 0 < packet_id < 65536:
        raise InvalidPacket(f"not a packet identifier: {packet_id}")


def _check_reason(kind: int, code: int, version: int) -> None:
    if code not in (m.REASON_CODES if version == 5 else m.REASON_CODES_V311)[kind]:
        raise InvalidPacket(f"not a reason code of a packet of type {kind}: {code:#04x}")


def _properties(version: int, properties: Properties, kind: int) -> bytes:
    """Encode properties with their length; nothing at all in 3.1.1."""
    _check_version(version)
    if version == 4:
        if properties:
            raise InvalidPacket("MQTT 3.1.1 has no properties")
        return b""
    if not properties:
        return b"\0"
    raw = write_properties(properties, kind)
    return write_variable(len(raw)) + raw


# -- PUBLISH ---------------------------------------------------------------------------------------------------------


def _write_topic(topic: str) -> bytes:
    if topic:
        fault = topic_fault(topic)
        if fault is not None:
            raise InvalidPacket(f"{fault.message}: {topic:.60}")
    return write_text(topic)


_write_topic_cached = lru_cache(1024)(_write_topic)
_MAX_CACHED: Final = 256  # characters: the cache holds 1024 names


def _message_properties(version: int, topic: str, properties: bytes | Properties) -> bytes:
    """Encode properties of a PUBLISH with their length; nothing at all in 3.1.1."""
    _check_version(version)
    if version == 4:
        if not topic:
            raise InvalidPacket("empty topic name")
        if properties:
            raise InvalidPacket("MQTT 3.1.1 has no properties")
        return b""
    if isinstance(properties, bytes):
        raw = properties
        if not topic and _ALIAS not in m.Publish("", b"", raw_properties=raw).properties():
            raise InvalidPacket("empty topic name without an alias")
    else:
        raw = write_properties(properties, m.PUBLISH)
        if not topic and _ALIAS not in properties:
            raise InvalidPacket("empty topic name without an alias")
    return write_variable(len(raw)) + raw


def _name(topic: str) -> bytes:
    return _write_topic_cached(topic) if len(topic) <= _MAX_CACHED else _write_topic(topic)


def _middle(version: int, topic: str, properties: bytes | Properties) -> bytes:
    """Like _message_properties(), soon when there are none."""
    if properties or not topic or (version != 4 and version != 5):
        return _message_properties(version, topic, properties)
    return b"" if version == 4 else b"\0"


def encode_publish(
    version: int,
    topic: str,
    payload: bytes,
    qos: int = 0,
    retain: bool = False,
    dup: bool = False,
    packet_id: int = 0,
    properties: bytes | Properties = b"",
) -> bytes:
    """Encode a PUBLISH (section 3.3).

    Args:
        topic: "" when ``properties`` have a topic alias.
        packet_id: 1 to 65535; 0 with QoS 0.
        properties: as bytes, those of a PUBLISH that has been received (``raw_properties``), which are not checked.
    """
    name = _name(topic)
    middle = _middle(version, topic, properties)
    if qos == 0:
        if dup or packet_id:
            raise InvalidPacket("QoS 0 has neither DUP nor a packet identifier")
        first = 0x31 if retain else 0x30
    else:
        if qos != 1 and qos != 2:
            raise InvalidPacket(f"not a QoS: {qos}")
        if not 0 < packet_id < 65536:
            raise InvalidPacket(f"not a packet identifier: {packet_id}")
        middle = packet_id.to_bytes(2, "big") + middle
        first = 0x30 | (0x08 if dup else 0) | qos << 1 | (0x01 if retain else 0)
    size = len(name) + len(middle) + len(payload)
    if size < 128:
        return bytes((first, size)) + name + middle + payload
    return b"".join((bytes((first,)), write_variable(size), name, middle, payload))


def publish_prefix(
    version: int,
    topic: str,
    payload: bytes,
    qos: int,
    retain: bool = False,
    dup: bool = False,
    properties: bytes | Properties = b"",
) -> tuple[bytes, bytes]:
    """Encode a PUBLISH with QoS 1 or 2 for many receivers: what comes in front of the two bytes of its packet
    identifier, and what comes behind them.
    """
    if qos != 1 and qos != 2:
        raise InvalidPacket(f"no QoS with packet identifiers: {qos}")
    name = _name(topic)
    behind = _middle(version, topic, properties) + payload
    first = 0x30 | (0x08 if dup else 0) | qos << 1 | (0x01 if retain else 0)
    return _first_bytes(first, len(name) + 2 + len(behind)) + name, behind


def publish_head(
    version: int, topic: str, size: int, retain: bool = False, properties: bytes | Properties = b""
) -> bytes:
    """Encode a PUBLISH with QoS 0 but for its payload, which has so many bytes."""
    head = _name(topic) + _middle(version, topic, properties)
    return _first_bytes(0x31 if retain else 0x30, len(head) + size) + head


def _first_bytes(first: int, size: int) -> bytes:
    return bytes((first, size)) if size < 128 else bytes((first,)) + write_variable(size)


# -- the other packets -----------------------------------------------------------------------------------------------


def encode_connect(
    version: int,
    client_id: str = "",
    clean_start: bool = True,
    keep_alive: int = 0,
    username: str | None = None,
    password: bytes | None = None,
    will_topic: str | None = None,
    will_payload: bytes = b"",
    will_qos: int = 0,
    will_retain: bool = False,
    will_properties: Properties = NO_PROPERTIES,
    properties: Properties = NO_PROPERTIES,
) -> bytes:
    """Encode a CONNECT (section 3.1); the arguments are the attributes of :class:`asyncmg.codecs.mqtt.Connect`."""
    if not 0 <= keep_alive < 65536:
        raise InvalidPacket(f"not a keep alive: {keep_alive}")
    if version == 4 and not client_id and not clean_start:
        raise InvalidPacket("empty client identifier without a clean session")
    if version == 4 and password is not None and username is None:
        raise InvalidPacket("password without a user name")
    flags = 0x02 if clean_start else 0
    middle = [_properties(version, properties, m.CONNECT), write_text(client_id)]
    if will_topic is not None:
        if will_qos not in (0, 1, 2):
            raise InvalidPacket(f"not a QoS: {will_qos}")
        fault = topic_fault(will_topic)
        if fault is not None:
            raise InvalidPacket(f"{fault.message}: {will_topic:.60}")
        flags |= 0x04 | will_qos << 3 | (0x20 if will_retain else 0)
        middle += [
            _properties(version, will_properties, IN_WILL),
            write_text(will_topic),
            write_binary(will_payload),
        ]
    elif will_qos or will_retain or will_payload or will_properties:
        raise InvalidPacket("no will topic, but something of a will")
    if username is not None:
        flags |= 0x80
        middle.append(write_text(username))
    if password is not None:
        flags |= 0x40
        middle.append(write_binary(password))
    head = b"\0\4MQTT" + bytes((version, flags)) + keep_alive.to_bytes(2, "big")
    return _frame(m.CONNECT << 4, head + b"".join(middle))


def encode_connack(
    version: int, session_present: bool, reason_code: int, properties: Properties = NO_PROPERTIES
) -> bytes:
    """Encode a CONNACK (section 3.2); ``reason_code`` is the return code, 0 to 5, in 3.1.1."""
    _check_reason(m.CONNACK, reason_code, version)
    if session_present and reason_code:
        raise InvalidPacket("session present in a refusal")
    flags = bytes((1 if session_present else 0, reason_code))
    return _frame(m.CONNACK << 4, flags + _properties(version, properties, m.CONNACK))


_ACK_FIRST: Final = {m.PUBACK: b"\x40", m.PUBREC: b"\x50", m.PUBREL: b"\x62", m.PUBCOMP: b"\x70"}


def encode_ack(
    version: int, type: int, packet_id: int, reason_code: int = m.SUCCESS, properties: Properties = NO_PROPERTIES
) -> bytes:
    """Encode a PUBACK, PUBREC, PUBREL or PUBCOMP (sections 3.4 to 3.7), in its shortest form."""
    _check_version(version)
    _check_packet_id(packet_id)
    first = _ACK_FIRST.get(type)
    if first is None:
        raise InvalidPacket(f"not a type of acknowledgement: {type}")
    if not reason_code and not properties:
        return first + b"\2" + packet_id.to_bytes(2, "big")
    if version == 4:
        raise InvalidPacket("MQTT 3.1.1 acknowledges without reason codes and properties")
    _check_reason(type, reason_code, version)
    body = packet_id.to_bytes(2, "big") + bytes((reason_code,))
    if properties:
        body += _properties(version, properties, type)
    return _frame(first[0], body)


def _write_filter(topic_filter: str, version: int) -> bytes:
    fault = filter_fault(topic_filter, version)
    if fault is not None:
        raise InvalidPacket(f"{fault.message}: {topic_filter:.60}")
    return write_text(topic_filter)


def encode_subscribe(
    version: int, packet_id: int, filters: Iterable[tuple[str, int]], properties: Properties = NO_PROPERTIES
) -> bytes:
    """Encode a SUBSCRIBE (section 3.8) of pairs of a topic filter and its options (OPTION_...; QoS in 3.1.1)."""
    _check_packet_id(packet_id)
    head = packet_id.to_bytes(2, "big") + _properties(version, properties, m.SUBSCRIBE)
    out = []
    for topic_filter, options in filters:
        handling = m.OPTION_RETAIN_HANDLING
        most = 2 if version == 4 else 0x2F
        if not 0 <= options <= most or options & m.OPTION_QOS == 3 or options & handling == handling:
            raise InvalidPacket(f"not subscription options: {options:#04x}")
        if options & m.OPTION_NO_LOCAL and topic_filter.startswith(SHARE):
            raise InvalidPacket("shared subscription with no local")
        out.append(_write_filter(topic_filter, version) + bytes((options,)))
    if not out:
        raise InvalidPacket("SUBSCRIBE without a topic filter")
    return _frame(m.SUBSCRIBE << 4 | 2, head + b"".join(out))


def encode_suback(version: int, packet_id: int, reason_codes: bytes, properties: Properties = NO_PROPERTIES) -> bytes:
    """Encode a SUBACK (section 3.9), a byte for each filter."""
    _check_packet_id(packet_id)
    if not reason_codes:
        raise InvalidPacket("SUBACK without a reason code")
    for code in reason_codes:
        _check_reason(m.SUBACK, code, version)
    head = packet_id.to_bytes(2, "big") + _properties(version, properties, m.SUBACK)
    return _frame(m.SUBACK << 4, head + reason_codes)


def encode_unsubscribe(
    version: int, packet_id: int, filters: Iterable[str], properties: Properties = NO_PROPERTIES
) -> bytes:
    """Encode an UNSUBSCRIBE (section 3.10)."""
    _check_packet_id(packet_id)
    head = packet_id.to_bytes(2, "big") + _properties(version, properties, m.UNSUBSCRIBE)
    out = [_write_filter(topic_filter, version) for topic_filter in filters]
    if not out:
        raise InvalidPacket("UNSUBSCRIBE without a topic filter")
    return _frame(m.UNSUBSCRIBE << 4 | 2, head + b"".join(out))


def encode_unsuback(
    version: int, packet_id: int, reason_codes: bytes = b"", properties: Properties = NO_PROPERTIES
) -> bytes:
    """Encode an UNSUBACK (section 3.11), a byte for each filter in 5.0, without any in 3.1.1."""
    _check_packet_id(packet_id)
    if bool(reason_codes) != (version == 5):
        raise InvalidPacket("UNSUBACK has reason codes in 5.0, and none in 3.1.1")
    for code in reason_codes:
        _check_reason(m.UNSUBACK, code, version)
    head = packet_id.to_bytes(2, "big") + _properties(version, properties, m.UNSUBACK)
    return _frame(m.UNSUBACK << 4, head + reason_codes)


def encode_disconnect(
    version: int, reason_code: int = m.SUCCESS, properties: Properties = NO_PROPERTIES, role: Role = Role.CLIENT
) -> bytes:
    """Encode a DISCONNECT (section 3.14); ``role`` is ours. A server sends it in 5.0 only."""
    _check_version(version)
    if version == 4:
        if reason_code or properties or role is Role.SERVER:
            raise InvalidPacket("DISCONNECT of MQTT 3.1.1 is a client's, without reason code and properties")
        return b"\xe0\x00"
    if reason_code not in m.REASON_CODES_OF[m.DISCONNECT, role]:
        raise InvalidPacket(f"not a reason code of a DISCONNECT of a {role}: {reason_code:#04x}")
    if role is Role.SERVER and Property.SESSION_EXPIRY_INTERVAL in properties:
        raise InvalidPacket("session expiry interval in a DISCONNECT of a server")
    if not properties:
        return b"\xe0\x01" + bytes((reason_code,)) if reason_code else b"\xe0\x00"
    return _frame(m.DISCONNECT << 4, bytes((reason_code,)) + _properties(version, properties, m.DISCONNECT))


def encode_auth(version: int, reason_code: int, properties: Properties, role: Role = Role.CLIENT) -> bytes:
    """Encode an AUTH (5.0 section 3.15); ``role`` is ours. ``properties`` have the authentication method."""
    if version != 5:
        raise InvalidPacket("MQTT 3.1.1 has no AUTH")
    if reason_code not in m.REASON_CODES_OF[m.AUTH, role]:
        raise InvalidPacket(f"not a reason code of an AUTH of a {role}: {reason_code:#04x}")
    if _METHOD not in properties:
        if reason_code or properties:
            raise InvalidPacket("AUTH without an authentication method")
        return b"\xf0\x00"
    return _frame(m.AUTH << 4, bytes((reason_code,)) + _properties(version, properties, m.AUTH))
