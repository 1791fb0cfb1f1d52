"""Data types and properties of MQTT (MQTT 5.0 sections 1.5 and 2.2.2; strings are those of 3.1.1 section 1.5.3).

Everything is read from a packet that is there as a whole: ``data[position:end]``, and nothing behind ``end`` is looked
at. What is wrong is raised as the RemoteProtocolError of a :class:`Fault`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType
from typing import Final, NamedTuple, cast

from asyncmg.errors import InvalidPacket, LimitExceeded, RemoteProtocolError


class Fault(NamedTuple):
    """Something that a receiver refuses.

    Attributes:
        code: reason code of MQTT 5.0.
        in_v4, in_v5: where the rule stands, in 3.1.1 and in 5.0: the number of a statement ("3.3.1-4") or of a section.
    """

    message: str
    code: int
    in_v4: str
    in_v5: str


def refuse(fault: Fault, version: int) -> RemoteProtocolError:
    """Return the error for a fault; version 0: it is not known, rules are those of 5.0."""
    name, rule = ("3.1.1", fault.in_v4) if version == 4 else ("5.0", fault.in_v5)
    section = f"[MQTT-{rule}]" if "-" in rule else f"section {rule}"
    return RemoteProtocolError(fault.message, wire_code=fault.code, section=f"MQTT {name} {section}")


def too_many_user_properties(limit: int, actual: int) -> LimitExceeded:
    return LimitExceeded(
        "too many user properties", limit=f"max_user_properties={limit}", actual=actual, wire_code=0x97
    )


TRUNCATED: Final = Fault("a field goes beyond its packet", 0x81, "4.8.0-1", "4.13.1-1")
NOT_UTF8: Final = Fault("string is not UTF-8", 0x81, "1.5.3-1", "1.5.4-1")
NUL_IN_STRING: Final = Fault("U+0000 in a string", 0x81, "1.5.3-2", "1.5.4-2")
LONG_INTEGER: Final = Fault("variable byte integer of more than four bytes", 0x81, "2.2.3", "1.5.5")
PADDED_INTEGER: Final = Fault("variable byte integer not in its shortest form", 0x81, "", "1.5.5-1")
BAD_LENGTH: Final = Fault("property length beyond the packet", 0x81, "", "2.2.2.1")
UNKNOWN_PROPERTY: Final = Fault("unknown property", 0x81, "", "2.2.2.2")
MISPLACED_PROPERTY: Final = Fault("property not allowed in this packet", 0x81, "", "2.2.2.2")
REPEATED_PROPERTY: Final = Fault("property more than once", 0x82, "", "2.2.2.2")
IDENTIFIER_OF_CLIENT: Final = Fault("subscription identifier from a client", 0x82, "", "3.3.4-6")
WILDCARD_IN_RESPONSE_TOPIC: Final = Fault("wildcard in a response topic", 0x82, "", "3.3.2-14")
DATA_WITHOUT_METHOD: Final = Fault("authentication data without a method", 0x82, "", "3.1.2.11.10")


class Property(IntEnum):
    """Identifiers of properties (MQTT 5.0 section 2.2.2.2)."""

    PAYLOAD_FORMAT_INDICATOR = 1
    MESSAGE_EXPIRY_INTERVAL = 2
    CONTENT_TYPE = 3
    RESPONSE_TOPIC = 8
    CORRELATION_DATA = 9
    SUBSCRIPTION_IDENTIFIER = 11
    SESSION_EXPIRY_INTERVAL = 17
    ASSIGNED_CLIENT_IDENTIFIER = 18
    SERVER_KEEP_ALIVE = 19
    AUTHENTICATION_METHOD = 21
    AUTHENTICATION_DATA = 22
    REQUEST_PROBLEM_INFORMATION = 23
    WILL_DELAY_INTERVAL = 24
    REQUEST_RESPONSE_INFORMATION = 25
    RESPONSE_INFORMATION = 26
    SERVER_REFERENCE = 28
    REASON_STRING = 31
    RECEIVE_MAXIMUM = 33
    TOPIC_ALIAS_MAXIMUM = 34
    TOPIC_ALIAS = 35
    MAXIMUM_QOS = 36
    RETAIN_AVAILABLE = 37
    USER_PROPERTY = 38
    MAXIMUM_PACKET_SIZE = 39
    WILDCARD_SUBSCRIPTION_AVAILABLE = 40
    SUBSCRIPTION_IDENTIFIER_AVAILABLE = 41
    SHARED_SUBSCRIPTION_AVAILABLE = 42


#: Subscription identifiers and user properties are lists, also of one.
PropertyValue = int | str | bytes | Sequence[int] | Sequence[tuple[str, str]]
Properties = Mapping[Property, PropertyValue]

NO_PROPERTIES: Final[Properties] = MappingProxyType({})

BYTE: Final = 1
UINT16: Final = 2
UINT32: Final = 4
VARIABLE: Final = 5  # variable byte integer
BINARY: Final = 6
TEXT: Final = 7
PAIR: Final = 8

# Where a property may stand: the types of packets (section 2.1.2), the will of a CONNECT, and the PUBLISH of a client.
IN_WILL: Final = 0
BY_CLIENT: Final = 16
_CONNECT, _CONNACK, _PUBLISH, _SUBSCRIBE, _DISCONNECT, _AUTH = 1, 2, 3, 8, 14, 15
_REASONS = (_CONNACK, 4, 5, 6, 7, 9, 11, _DISCONNECT, _AUTH)
_PUBLISHED = (_PUBLISH, BY_CLIENT)
_MESSAGE = (*_PUBLISHED, IN_WILL)
_EVERYWHERE = (*_MESSAGE, _CONNECT, _SUBSCRIBE, 10, *_REASONS)

MAX_VARIABLE: Final = 268_435_455


class Rule(NamedTuple):
    """One property.

    Attributes:
        type: BYTE to PAIR.
        packets: the packets it may stand in, IN_WILL and BY_CLIENT.
        may_repeat: its values are a list.
        least, most: of a number.
        fault: what is told of a number outside of them.
    """

    property: Property
    type: int
    packets: frozenset[int]
    may_repeat: bool
    least: int
    most: int
    fault: Fault


_TOP = {BYTE: 255, UINT16: 65535, UINT32: 2**32 - 1, VARIABLE: MAX_VARIABLE}


def _rule(
    name: Property, kind: int, packets: Sequence[int], where: str, *, least: int = 0, most: int = -1, code: int = 0x82
) -> tuple[int, Rule]:
    repeats = name in (Property.USER_PROPERTY, Property.SUBSCRIPTION_IDENTIFIER)
    words = name.name.lower().replace("_", " ")
    fault = Fault(f"{words} out of range", code, "", where)
    return int(name), Rule(
        name, kind, frozenset(packets), repeats, least, _TOP.get(kind, 0) if most < 0 else most, fault
    )


_BOTH = (_CONNECT, _CONNACK)

RULES: Final = dict(
    (
        _rule(Property.PAYLOAD_FORMAT_INDICATOR, BYTE, _MESSAGE, "3.3.2.3.2", most=1),
        _rule(Property.MESSAGE_EXPIRY_INTERVAL, UINT32, _MESSAGE, "3.3.2.3.3"),
        _rule(Property.CONTENT_TYPE, TEXT, _MESSAGE, "3.3.2.3.9"),
        _rule(Property.RESPONSE_TOPIC, TEXT, _MESSAGE, "3.3.2.3.5"),
        _rule(Property.CORRELATION_DATA, BINARY, _MESSAGE, "3.3.2.3.6"),
        _rule(Property.SUBSCRIPTION_IDENTIFIER, VARIABLE, (_PUBLISH, _SUBSCRIBE), "3.8.2.1.2", least=1),
        _rule(Property.SESSION_EXPIRY_INTERVAL, UINT32, (*_BOTH, _DISCONNECT), "3.1.2.11.2"),
        _rule(Property.ASSIGNED_CLIENT_IDENTIFIER, TEXT, (_CONNACK,), "3.2.2.3.7"),
        _rule(Property.SERVER_KEEP_ALIVE, UINT16, (_CONNACK,), "3.2.2.3.14"),
        _rule(Property.AUTHENTICATION_METHOD, TEXT, (*_BOTH, _AUTH), "3.1.2.11.9"),
        _rule(Property.AUTHENTICATION_DATA, BINARY, (*_BOTH, _AUTH), "3.1.2.11.10"),
        _rule(Property.REQUEST_PROBLEM_INFORMATION, BYTE, (_CONNECT,), "3.1.2.11.7", most=1),
        _rule(Property.WILL_DELAY_INTERVAL, UINT32, (IN_WILL,), "3.1.3.2.2"),
        _rule(Property.REQUEST_RESPONSE_INFORMATION, BYTE, (_CONNECT,), "3.1.2.11.6", most=1),
        _rule(Property.RESPONSE_INFORMATION, TEXT, (_CONNACK,), "3.2.2.3.15"),
        _rule(Property.SERVER_REFERENCE, TEXT, (_CONNACK, _DISCONNECT), "3.2.2.3.16"),
        _rule(Property.REASON_STRING, TEXT, _REASONS, "3.2.2.3.9"),
        _rule(Property.RECEIVE_MAXIMUM, UINT16, _BOTH, "3.1.2.11.3", least=1),
        _rule(Property.TOPIC_ALIAS_MAXIMUM, UINT16, _BOTH, "3.1.2.11.5"),
        # 0x94: Topic Alias invalid
        _rule(Property.TOPIC_ALIAS, UINT16, _PUBLISHED, "3.3.2-8", least=1, code=0x94),
        _rule(Property.MAXIMUM_QOS, BYTE, (_CONNACK,), "3.2.2.3.4", most=1),
        _rule(Property.RETAIN_AVAILABLE, BYTE, (_CONNACK,), "3.2.2.3.5", most=1),
        _rule(Property.USER_PROPERTY, PAIR, _EVERYWHERE, "3.1.2.11.8"),
        _rule(Property.MAXIMUM_PACKET_SIZE, UINT32, _BOTH, "3.1.2.11.4", least=1),
        _rule(Property.WILDCARD_SUBSCRIPTION_AVAILABLE, BYTE, (_CONNACK,), "3.2.2.3.11", most=1),
        _rule(Property.SUBSCRIPTION_IDENTIFIER_AVAILABLE, BYTE, (_CONNACK,), "3.2.2.3.12", most=1),
        _rule(Property.SHARED_SUBSCRIPTION_AVAILABLE, BYTE, (_CONNACK,), "3.2.2.3.13", most=1),
    )
)

# A look-up of a member costs 75 ns in Python 3.11.
_METHOD: Final = Property.AUTHENTICATION_METHOD
_DATA: Final = Property.AUTHENTICATION_DATA
_IDENTIFIER: Final = Property.SUBSCRIPTION_IDENTIFIER
_USER: Final = Property.USER_PROPERTY
_RESPONSE_TOPIC: Final = Property.RESPONSE_TOPIC


# -- reading ---------------------------------------------------------------------------------------------------------


def read_uint16(data: bytes, position: int, end: int, version: int) -> int:
    if position + 2 > end:
        raise refuse(TRUNCATED, version)
    return data[position] << 8 | data[position + 1]


def decode_text(field: bytes, version: int) -> str:
    """Decode a string without its length (5.0 section 1.5.4)."""
    try:
        text = field.decode()
    except UnicodeDecodeError:
        raise refuse(NOT_UTF8, version) from None
    if "\0" in text:
        raise refuse(NUL_IN_STRING, version)
    return text


def read_binary(data: bytes, position: int, end: int, version: int) -> tuple[bytes, int]:
    """Read binary data (5.0 section 1.5.6); return it, and the place behind it."""
    start = position + 2
    if start > end:
        raise refuse(TRUNCATED, version)
    stop = start + (data[position] << 8 | data[position + 1])
    if stop > end:
        raise refuse(TRUNCATED, version)
    return data[start:stop], stop


def read_text(data: bytes, position: int, end: int, version: int) -> tuple[str, int]:
    field, position = read_binary(data, position, end, version)
    return decode_text(field, version), position


def read_variable(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Read a variable byte integer (section 1.5.5), which has to be in its shortest form [MQTT-1.5.5-1]."""
    value = shift = 0
    while True:
        if position >= end:
            raise refuse(TRUNCATED, 5)
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
        if shift == 28:
            raise refuse(LONG_INTEGER, 5)
    if shift and not byte:
        raise refuse(PADDED_INTEGER, 5)
    return value, position


def _read_value(data: bytes, position: int, end: int, rule: Rule) -> tuple[PropertyValue, int]:
    kind = rule.type
    if kind <= UINT32:
        stop = position + kind  # BYTE, UINT16 and UINT32 are their sizes
        if stop > end:
            raise refuse(TRUNCATED, 5)
        number = int.from_bytes(data[position:stop], "big")
    elif kind == VARIABLE:
        number, stop = read_variable(data, position, end)
    elif kind == BINARY:
        return read_binary(data, position, end, 5)
    else:
        text, stop = read_text(data, position, end, 5)
        if kind == PAIR:
            second, stop = read_text(data, stop, end, 5)
            return cast(PropertyValue, (text, second)), stop
        if rule.property is _RESPONSE_TOPIC and ("+" in text or "#" in text):
            raise refuse(WILDCARD_IN_RESPONSE_TOPIC, 5)
        return text, stop
    if not rule.least <= number <= rule.most:
        raise refuse(rule.fault, 5)
    return number, stop


def read_properties(
    data: bytes, position: int, end: int, packet: int, max_user_properties: int
) -> tuple[Properties, int]:
    """Read a property length and the properties behind it (section 2.2.2); return them, and the place behind them.

    Args:
        packet: type of the packet, IN_WILL or BY_CLIENT.
    """
    length, position = read_variable(data, position, end)
    if not length:
        return NO_PROPERTIES, position
    stop = position + length
    if stop > end:
        raise refuse(BAD_LENGTH, 5)
    return parse_properties(data, position, stop, packet, max_user_properties), stop


def parse_properties(data: bytes, position: int, end: int, packet: int, max_user_properties: int) -> Properties:
    """Read properties without their length."""
    found: dict[Property, PropertyValue] = {}
    users: list[tuple[str, str]] = []
    identifiers: list[int] = []
    while position < end:
        rule = RULES.get(data[position])
        if rule is None:
            raise refuse(UNKNOWN_PROPERTY, 5)
        name = rule.property
        if packet not in rule.packets:
            by_client = name is _IDENTIFIER and packet == BY_CLIENT
            raise refuse(IDENTIFIER_OF_CLIENT if by_client else MISPLACED_PROPERTY, 5)
        if name in found and not (name is _USER or (name is _IDENTIFIER and packet == _PUBLISH)):
            raise refuse(REPEATED_PROPERTY, 5)
        value, position = _read_value(data, position + 1, end, rule)
        if name is _USER:
            users.append(cast(tuple[str, str], value))
            if len(users) > max_user_properties:
                raise too_many_user_properties(max_user_properties, len(users))
            value = users
        elif name is _IDENTIFIER:
            identifiers.append(cast(int, value))
            value = identifiers
        found[name] = value
    if _DATA in found and _METHOD not in found:
        raise refuse(DATA_WITHOUT_METHOD, 5)
    return found


# -- writing ---------------------------------------------------------------------------------------------------------


def write_variable(number: int) -> bytes:
    """Encode a variable byte integer (section 1.5.5)."""
    if number < 128:
        return bytes((number,))
    if number < 16384:
        return bytes((number & 127 | 128, number >> 7))
    if number > MAX_VARIABLE:
        raise InvalidPacket(f"more than a variable byte integer can tell: {number}")
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def write_binary(value: bytes) -> bytes:
    if len(value) > 65535:
        raise InvalidPacket(f"binary data and strings have at most 65535 bytes, this one {len(value)}")
    return len(value).to_bytes(2, "big") + value


def write_text(text: str) -> bytes:
    if "\0" in text:
        raise InvalidPacket("U+0000 in a string")
    try:
        return write_binary(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidPacket("a surrogate in a string") from error


def _write_value(rule: Rule, value: object) -> bytes:
    kind = rule.type
    if kind == TEXT and isinstance(value, str):
        if rule.property is _RESPONSE_TOPIC and ("+" in value or "#" in value):
            raise InvalidPacket("wildcard in a response topic")
        return write_text(value)
    if kind == BINARY and isinstance(value, bytes):
        return write_binary(value)
    if kind == PAIR and isinstance(value, tuple) and [type(part) for part in value] == [str, str]:
        return write_text(value[0]) + write_text(value[1])
    if kind <= VARIABLE and isinstance(value, int):
        if not rule.least <= value <= rule.most:
            raise InvalidPacket(f"{rule.fault.message}: {int(value)}")
        return write_variable(value) if kind == VARIABLE else value.to_bytes(kind, "big")
    raise InvalidPacket(f"{rule.property.name} cannot be {value!r:.60}")


def write_properties(properties: Properties, packet: int) -> bytes:
    """Encode properties without their length.

    Raises:
        InvalidPacket: one that is not allowed in this packet (type, IN_WILL or BY_CLIENT), or whose value is not.
    """
    if _DATA in properties and _METHOD not in properties:
        raise InvalidPacket("authentication data without a method")
    out = []
    for name, value in properties.items():
        rule = RULES.get(name)
        if rule is None or packet not in rule.packets:
            raise InvalidPacket(f"property {name!r} is not allowed in a packet of type {packet}")
        values: Sequence[object] = (value,)
        if rule.may_repeat:
            if not isinstance(value, (list, tuple)):
                raise InvalidPacket(f"{rule.property.name} is a list, not {value!r:.60}")
            if name == _IDENTIFIER and packet == _SUBSCRIBE and len(value) > 1:
                raise InvalidPacket("a SUBSCRIBE has one subscription identifier")
            values = value
        mark = bytes((name,))
        for item in values:
            out.append(mark + _write_value(rule, item))
    return b"".join(out)
