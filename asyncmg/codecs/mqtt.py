"""MQTT control packets (MQTT 3.1.1 and 5.0 chapter 3): the contract of the codecs, packets, reason codes, refusals.

A codec reads one side of a connection. ``receive_data`` takes bytes as they come and returns the packets that are
complete by now. It holds each packet against all that the specification says of a packet by itself, of its direction
and of the order CONNECT, CONNACK, DISCONNECT. What concerns a session (packet identifiers in use, receive maximum,
maximum of topic aliases, the authentication exchange, ...) is left to its user.

Strings that the peer marks as UTF-8 by payload format indicator 1 are not read: that check is the application's, or a
broker's choice (5.0 section 3.3.2.3.2; 0x99).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, Protocol

from asyncmg.errors import LimitExceeded, ProtocolError
from asyncmg.limits import MqttLimits

from .http import Role
from .mqtt_properties import NO_PROPERTIES, Fault, Properties, parse_properties

V311: Final = 4  # protocol levels (section 3.1.2.2)
V5: Final = 5

# Types of control packets (section 2.1.2; 2.2.1 of 3.1.1).
CONNECT: Final = 1
CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
PUBREC: Final = 5
PUBREL: Final = 6
PUBCOMP: Final = 7
SUBSCRIBE: Final = 8
SUBACK: Final = 9
UNSUBSCRIBE: Final = 10
UNSUBACK: Final = 11
PINGREQ: Final = 12
PINGRESP: Final = 13
DISCONNECT: Final = 14
AUTH: Final = 15

# Subscription options (5.0 section 3.8.3.1); of 3.1.1 there is the QoS only.
OPTION_QOS: Final = 0x03
OPTION_NO_LOCAL: Final = 0x04
OPTION_RETAIN_AS_PUBLISHED: Final = 0x08
OPTION_RETAIN_HANDLING: Final = 0x30  # 0x00: send retained messages, 0x10: if the subscription is new, 0x20: do not

# Reason codes (5.0 section 2.4).
SUCCESS: Final = 0x00
DISCONNECT_WITH_WILL: Final = 0x04
NO_MATCHING_SUBSCRIBERS: Final = 0x10
NO_SUBSCRIPTION_EXISTED: Final = 0x11
CONTINUE_AUTHENTICATION: Final = 0x18
REAUTHENTICATE: Final = 0x19
UNSPECIFIED_ERROR: Final = 0x80
MALFORMED_PACKET: Final = 0x81
PROTOCOL_ERROR: Final = 0x82
IMPLEMENTATION_ERROR: Final = 0x83
UNSUPPORTED_VERSION: Final = 0x84
CLIENT_IDENTIFIER_INVALID: Final = 0x85
BAD_USER_OR_PASSWORD: Final = 0x86
NOT_AUTHORIZED: Final = 0x87
SERVER_UNAVAILABLE: Final = 0x88
SERVER_BUSY: Final = 0x89
BANNED: Final = 0x8A
SERVER_SHUTTING_DOWN: Final = 0x8B
BAD_AUTHENTICATION_METHOD: Final = 0x8C
KEEP_ALIVE_TIMEOUT: Final = 0x8D
SESSION_TAKEN_OVER: Final = 0x8E
TOPIC_FILTER_INVALID: Final = 0x8F
TOPIC_NAME_INVALID: Final = 0x90
PACKET_IDENTIFIER_IN_USE: Final = 0x91
PACKET_IDENTIFIER_NOT_FOUND: Final = 0x92
RECEIVE_MAXIMUM_EXCEEDED: Final = 0x93
TOPIC_ALIAS_INVALID: Final = 0x94
PACKET_TOO_LARGE: Final = 0x95
MESSAGE_RATE_TOO_HIGH: Final = 0x96
QUOTA_EXCEEDED: Final = 0x97
ADMINISTRATIVE_ACTION: Final = 0x98
PAYLOAD_FORMAT_INVALID: Final = 0x99
RETAIN_NOT_SUPPORTED: Final = 0x9A
QOS_NOT_SUPPORTED: Final = 0x9B
USE_ANOTHER_SERVER: Final = 0x9C
SERVER_MOVED: Final = 0x9D
SHARED_SUBSCRIPTIONS_NOT_SUPPORTED: Final = 0x9E
CONNECTION_RATE_EXCEEDED: Final = 0x9F
MAXIMUM_CONNECT_TIME: Final = 0xA0
SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED: Final = 0xA1
WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED: Final = 0xA2

_PUBLISHED = frozenset((0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99))
_RELEASED = frozenset((0, 0x92))

#: The reason codes of a packet, by type: in 5.0, and return codes in 3.1.1.
REASON_CODES: Final = {
    CONNACK: frozenset((0, *range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, *range(0x99, 0x9E), 0x9F)),
    PUBACK: _PUBLISHED,
    PUBREC: _PUBLISHED,
    PUBREL: _RELEASED,
    PUBCOMP: _RELEASED,
    SUBACK: frozenset((0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2)),
    UNSUBACK: frozenset((0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91)),
}
REASON_CODES_V311: Final = {CONNACK: frozenset(range(6)), SUBACK: frozenset((0, 1, 2, 0x80))}
#: Reason codes of DISCONNECT and AUTH, by type and by who sends them (sections 3.14.2.1, 3.15.2.1; 0x8C: section 2.4).
REASON_CODES_OF: Final = {
    (DISCONNECT, Role.CLIENT): frozenset((0, 4, *range(0x80, 0x84), 0x90, *range(0x93, 0x9A))),
    (DISCONNECT, Role.SERVER): frozenset(
        (0, *range(0x80, 0x84), 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, *range(0x93, 0xA3))
    ),
    (AUTH, Role.CLIENT): frozenset((0x18, 0x19)),
    (AUTH, Role.SERVER): frozenset((0, 0x18)),
}


# -- packets ---------------------------------------------------------------------------------------------------------


class _Packet:
    """Compares by its fields. A slotted class costs a third of a frozen dataclass to build."""

    __slots__: tuple[str, ...] = ()
    __hash__ = None  # type: ignore[assignment]  # its fields can be changed

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"


class Connect(_Packet):
    """CONNECT (section 3.1).

    Attributes:
        client_id: "": the server chooses one.
        clean_start: Clean Session in 3.1.1.
        keep_alive: seconds; 0: off.
        will_topic: None: there is no will.
        username, password: None: not given.
    """

    __slots__ = (
        "clean_start",
        "client_id",
        "keep_alive",
        "password",
        "properties",
        "username",
        "version",
        "will_payload",
        "will_properties",
        "will_qos",
        "will_retain",
        "will_topic",
    )
    type: ClassVar = CONNECT

    def __init__(
        self,
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
    ) -> None:
        self.version = version
        self.client_id = client_id
        self.clean_start = clean_start
        self.keep_alive = keep_alive
        self.username = username
        self.password = password
        self.will_topic = will_topic
        self.will_payload = will_payload
        self.will_qos = will_qos
        self.will_retain = will_retain
        self.will_properties = will_properties
        self.properties = properties


class Connack(_Packet):
    """CONNACK (section 3.2); ``reason_code`` is the return code in 3.1.1."""

    __slots__ = ("properties", "reason_code", "session_present")
    type: ClassVar = CONNACK

    def __init__(self, session_present: bool, reason_code: int, properties: Properties = NO_PROPERTIES) -> None:
        self.session_present = session_present
        self.reason_code = reason_code
        self.properties = properties


class Publish(_Packet):
    """PUBLISH (section 3.3).

    Attributes:
        topic: "" in 5.0 when there is a topic alias for it.
        packet_id: 0 with QoS 0.
        raw_properties: as they came, without their length, and held against the specification: a broker passes them on.
    """

    __slots__ = ("dup", "packet_id", "payload", "qos", "raw_properties", "retain", "topic")
    type: ClassVar = PUBLISH

    def __init__(
        self,
        topic: str,
        payload: bytes,
        qos: int = 0,
        retain: bool = False,
        dup: bool = False,
        packet_id: int = 0,
        raw_properties: bytes = b"",
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.dup = dup
        self.packet_id = packet_id
        self.raw_properties = raw_properties

    def properties(self) -> Properties:
        raw = self.raw_properties
        return parse_properties(raw, 0, len(raw), PUBLISH, len(raw)) if raw else NO_PROPERTIES


class Ack(_Packet):
    """PUBACK, PUBREC, PUBREL or PUBCOMP (sections 3.4 to 3.7), by its ``type``."""

    __slots__ = ("packet_id", "properties", "reason_code", "type")

    def __init__(
        self, type: int, packet_id: int, reason_code: int = SUCCESS, properties: Properties = NO_PROPERTIES
    ) -> None:
        self.type = type
        self.packet_id = packet_id
        self.reason_code = reason_code
        self.properties = properties


class Subscribe(_Packet):
    """SUBSCRIBE (section 3.8); ``filters`` are pairs of a topic filter and its options."""

    __slots__ = ("filters", "packet_id", "properties")
    type: ClassVar = SUBSCRIBE

    def __init__(
        self, packet_id: int, filters: Sequence[tuple[str, int]], properties: Properties = NO_PROPERTIES
    ) -> None:
        self.packet_id = packet_id
        self.filters = filters
        self.properties = properties


class Suback(_Packet):
    """SUBACK (section 3.9); a byte of ``reason_codes`` for each filter."""

    __slots__ = ("packet_id", "properties", "reason_codes")
    type: ClassVar[int] = SUBACK

    def __init__(self, packet_id: int, reason_codes: bytes, properties: Properties = NO_PROPERTIES) -> None:
        self.packet_id = packet_id
        self.reason_codes = reason_codes
        self.properties = properties


class Unsubscribe(_Packet):
    """UNSUBSCRIBE (section 3.10)."""

    __slots__ = ("filters", "packet_id", "properties")
    type: ClassVar = UNSUBSCRIBE

    def __init__(self, packet_id: int, filters: Sequence[str], properties: Properties = NO_PROPERTIES) -> None:
        self.packet_id = packet_id
        self.filters = filters
        self.properties = properties


class Unsuback(_Packet):
    """UNSUBACK (section 3.11); a byte of ``reason_codes`` for each filter, none at all in 3.1.1."""

    __slots__ = ("packet_id", "properties", "reason_codes")
    type: ClassVar = UNSUBACK

    def __init__(self, packet_id: int, reason_codes: bytes = b"", properties: Properties = NO_PROPERTIES) -> None:
        self.packet_id = packet_id
        self.reason_codes = reason_codes
        self.properties = properties


class Pingreq(_Packet):
    """PINGREQ (section 3.12)."""

    __slots__ = ()
    type: ClassVar = PINGREQ


class Pingresp(_Packet):
    """PINGRESP (section 3.13)."""

    __slots__ = ()
    type: ClassVar = PINGRESP


class Disconnect(_Packet):
    """DISCONNECT (section 3.14)."""

    __slots__ = ("properties", "reason_code")
    type: ClassVar = DISCONNECT

    def __init__(self, reason_code: int = SUCCESS, properties: Properties = NO_PROPERTIES) -> None:
        self.reason_code = reason_code
        self.properties = properties


class Auth(_Packet):
    """AUTH (5.0 section 3.15)."""

    __slots__ = ("properties", "reason_code")
    type: ClassVar = AUTH

    def __init__(self, reason_code: int = SUCCESS, properties: Properties = NO_PROPERTIES) -> None:
        self.reason_code = reason_code
        self.properties = properties


Packet = (
    Connect
    | Connack
    | Publish
    | Ack
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)

#: All PINGREQ and PINGRESP that are read are these.
PING_REQUEST: Final = Pingreq()
PING_RESPONSE: Final = Pingresp()


# -- codecs ----------------------------------------------------------------------------------------------------------


class MqttCodec(Protocol):
    """Reads one direction of one connection.

    Attributes:
        error: None until the peer has broken the specification or a limit; ``wire_code`` is the reason code for it.
            Final: the packets before it have been returned, and nothing more is read. Likewise nothing is read behind
            a DISCONNECT [MQTT-3.14.4-1].
        buffered: bytes kept of a packet that is not complete; never more than the limit of its type.
        version: 4 or 5; of a server 0 until a CONNECT has told it.
    """

    error: ProtocolError | None
    version: int

    @property
    def buffered(self) -> int: ...

    def receive_data(self, data: bytes) -> Sequence[Packet]:
        """Read what has come in; never raises. Sizes are refused as soon as a fixed header tells them."""

    def export(self) -> bytes:
        """Return what the engine needs to read packets from here on; b"": it cannot, or nothing more is to be read."""

    def take(self, records: Any, data: Any) -> Sequence[Packet]:
        """Make packets of what the engine has read: its records, and what their places are in."""


#: Makes a codec: role (which side *we* are), limits (it keeps those up to ``max_user_properties``), and the version:
#: 0 for a server, that of its CONNECT for a client.
MqttCodecFactory = Callable[[Role, MqttLimits, int], MqttCodec]


def over_limit(what: str, name: str, value: int, actual: int, code: int) -> LimitExceeded:
    return LimitExceeded(f"{what} too large", limit=f"{name}={value}", actual=actual, wire_code=code)


def size_limit(kind: int) -> str:
    """Return the name of the limit for the size of a packet of this type."""
    if kind == PUBLISH:
        return "max_packet"
    return "max_connect" if kind in (CONNECT, SUBSCRIBE, UNSUBSCRIBE) else "max_small"


def too_large(limits: MqttLimits, kind: int, actual: int) -> LimitExceeded:
    name = size_limit(kind)
    return over_limit("packet", name, getattr(limits, name), actual, PACKET_TOO_LARGE)


def topic_too_large(limits: MqttLimits, size: int, code: int) -> LimitExceeded:
    return over_limit("topic", "max_topic_length", limits.max_topic_length, size, code)


def topic_too_deep(limits: MqttLimits, levels: int, code: int) -> LimitExceeded:
    return over_limit("depth of a topic", "max_topic_levels", limits.max_topic_levels, levels, code)


def client_id_too_large(limits: MqttLimits, size: int) -> LimitExceeded:
    return over_limit("client identifier", "max_client_id", limits.max_client_id, size, CLIENT_IDENTIFIER_INVALID)


# -- refusals: every codec says the same -----------------------------------------------------------------------------

RESERVED_TYPE: Final = Fault("reserved type of packet", 0x81, "2.2.1", "2.1.2")
BAD_FLAGS: Final = Fault("wrong flags in a fixed header", 0x81, "2.2.2-2", "2.1.3-1")
PUBREL_FLAGS: Final = Fault("wrong flags of a PUBREL", 0x81, "3.6.1-1", "3.6.1-1")
SUBSCRIBE_FLAGS: Final = Fault("wrong flags of a SUBSCRIBE", 0x81, "3.8.1-1", "3.8.1-1")
UNSUBSCRIBE_FLAGS: Final = Fault("wrong flags of an UNSUBSCRIBE", 0x81, "3.10.1-1", "3.10.1-1")
DISCONNECT_FLAGS: Final = Fault("wrong flags of a DISCONNECT", 0x81, "3.14.1-1", "3.14.1-1")
AUTH_FLAGS: Final = Fault("wrong flags of an AUTH", 0x81, "", "3.15.1-1")
QOS_3: Final = Fault("QoS 3", 0x81, "3.3.1-4", "3.3.1-4")
DUP_OF_QOS_0: Final = Fault("DUP with QoS 0", 0x81, "3.3.1-2", "3.3.1-2")
NOT_CONNECT_FIRST: Final = Fault("first packet is not a CONNECT", 0x82, "3.1.0-1", "3.1.0-1")
SECOND_CONNECT: Final = Fault("second CONNECT", 0x82, "3.1.0-2", "3.1.0-2")
NOT_CONNACK_FIRST: Final = Fault("packet before the CONNACK", 0x82, "3.2.0-1", "3.2.0-1")
EARLY_DISCONNECT: Final = Fault("DISCONNECT before the CONNACK", 0x82, "3.2.0-1", "3.14.0-1")
SECOND_CONNACK: Final = Fault("second CONNACK", 0x82, "3.2", "3.2.0-2")
WRONG_DIRECTION: Final = Fault("packet that only the other side may send", 0x82, "2.2.1", "2.1.2")
TRAILING_BYTES: Final = Fault("bytes behind the last field of a packet", 0x81, "4.8.0-1", "4.13.1-1")
ZERO_PACKET_ID: Final = Fault("packet identifier 0", 0x82, "2.3.1-1", "2.2.1-3")
ZERO_PACKET_ID_OF_SERVER: Final = Fault("packet identifier 0", 0x82, "2.3.1-1", "2.2.1-4")
ZERO_ACK_ID: Final = Fault("packet identifier 0 acknowledged", 0x82, "2.3.1-6", "2.2.1-5")
ZERO_SUBACK_ID: Final = Fault("packet identifier 0 acknowledged", 0x82, "2.3.1-7", "2.2.1-6")

BAD_PROTOCOL_NAME: Final = Fault("protocol name is not MQTT", 0x84, "3.1.2-1", "3.1.2-1")
BAD_PROTOCOL_LEVEL: Final = Fault("unsupported protocol level", 0x84, "3.1.2-2", "3.1.2-2")
CONNECT_FLAG_RESERVED: Final = Fault("reserved connect flag set", 0x81, "3.1.2-3", "3.1.2-3")
WILL_QOS_WITHOUT_WILL: Final = Fault("will QoS without a will", 0x81, "3.1.2-13", "3.1.2-11")
WILL_QOS_3: Final = Fault("will QoS 3", 0x81, "3.1.2-14", "3.1.2-12")
WILL_RETAIN_WITHOUT_WILL: Final = Fault("will retain without a will", 0x81, "3.1.2-15", "3.1.2-13")
PASSWORD_WITHOUT_USER: Final = Fault("password without a user name", 0x81, "3.1.2-22", "")
NO_CLIENT_ID: Final = Fault("empty client identifier without a clean session", 0x85, "3.1.3-8", "")
CONNACK_FLAGS: Final = Fault("reserved connect acknowledge flags set", 0x81, "3.2.2.1", "3.2.2-1")
SESSION_OF_REFUSED: Final = Fault("session present in a refusal", 0x82, "3.2.2-4", "3.2.2-6")

WILDCARD_PUBLISHED: Final = Fault("wildcard in a topic name", 0x90, "3.3.2-2", "3.3.2-2")
NOTHING_PUBLISHED_TO: Final = Fault("empty topic name without an alias", 0x82, "4.7.3-1", "3.3.2.1")
NO_FILTER: Final = Fault("SUBSCRIBE without a topic filter", 0x82, "3.8.3-3", "3.8.3-2")
RESERVED_OPTIONS: Final = Fault("reserved subscription options", 0x81, "3-8.3-4", "3.8.3-5")
OPTIONS_QOS_3: Final = Fault("subscription with QoS 3", 0x82, "", "3.8.3.1")
RETAIN_HANDLING_3: Final = Fault("subscription with retain handling 3", 0x82, "", "3.8.3.1")
SHARED_NO_LOCAL: Final = Fault("shared subscription with no local", 0x82, "", "3.8.3-4")
NO_FILTER_TO_LEAVE: Final = Fault("UNSUBSCRIBE without a topic filter", 0x82, "3.10.3-2", "3.10.3-2")
NO_SUBACK_CODE: Final = Fault("SUBACK without a reason code", 0x82, "3.8.4-5", "3.8.4-6")
NO_UNSUBACK_CODE: Final = Fault("UNSUBACK without a reason code", 0x82, "", "3.11.3")
SERVER_EXPIRES_SESSION: Final = Fault("session expiry interval in a DISCONNECT of a server", 0x82, "", "3.14.2-2")
EXPIRY_AFTER_ZERO: Final = Fault(
    "session expiry interval in a DISCONNECT after 0 in the CONNECT", 0x82, "", "3.14.2.2.2"
)
AUTH_WITHOUT_METHOD: Final = Fault("AUTH without an authentication method", 0x82, "", "3.15.2.2.2")

#: A reason code that the packet, by its type, cannot have.
BAD_REASON_CODE: Final = {
    CONNACK: Fault("reserved reason code in a CONNACK", 0x82, "3.2.2.3", "3.2.2-8"),
    PUBACK: Fault("reserved reason code in a PUBACK", 0x82, "", "3.4.2-1"),
    PUBREC: Fault("reserved reason code in a PUBREC", 0x82, "", "3.5.2-1"),
    PUBREL: Fault("reserved reason code in a PUBREL", 0x82, "", "3.6.2-1"),
    PUBCOMP: Fault("reserved reason code in a PUBCOMP", 0x82, "", "3.7.2-1"),
    SUBACK: Fault("reserved reason code in a SUBACK", 0x82, "3.9.3-2", "3.9.3-2"),
    UNSUBACK: Fault("reserved reason code in an UNSUBACK", 0x82, "", "3.11.3-2"),
    DISCONNECT: Fault("reserved reason code in a DISCONNECT", 0x82, "", "3.14.2-1"),
    AUTH: Fault("reserved reason code in an AUTH", 0x82, "", "3.15.2-1"),
}
