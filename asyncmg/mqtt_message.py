"""MQTT as users see it: messages, wills, what events carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

# Types of properties, in the numbers of Mongoose; Property says which property has which (MQTT 5.0 section 2.2.2.2).
MQTT_PROP_TYPE_BYTE: Final = 0
MQTT_PROP_TYPE_STRING: Final = 1
MQTT_PROP_TYPE_STRING_PAIR: Final = 2
MQTT_PROP_TYPE_BINARY_DATA: Final = 3
MQTT_PROP_TYPE_VARIABLE_INT: Final = 4
MQTT_PROP_TYPE_INT: Final = 5
MQTT_PROP_TYPE_SHORT: Final = 6

_PUBLISH: Final = 3
_NOTHING: Final[Mapping[Any, Any]] = {}


@dataclass(frozen=True, slots=True)
class MqttWill:
    """What the broker publishes when a client is gone without a word (MQTT 5.0 section 3.1.2.5).

    Attributes:
        topic, payload, qos, retain: as of any message.
        delay: seconds that the broker waits, 5.0 only.
        properties: of the message, 5.0 only.
    """

    topic: str
    payload: bytes | str = b""
    qos: int = 0
    retain: bool = False
    delay: int = 0
    properties: Mapping[Any, Any] = field(default_factory=dict)


class MqttMessage:
    """A PUBLISH, or any other control packet: data of MG_EV_MQTT_MSG and MG_EV_MQTT_CMD.

    Attributes:
        packet: all that the packet says (:mod:`asyncmg.codecs.mqtt`).
    """

    __slots__ = ("packet",)

    def __init__(self, packet: Any) -> None:
        self.packet = packet

    def __repr__(self) -> str:
        return f"<MqttMessage cmd={self.cmd} topic={self.topic!r} {len(self.data)} bytes>"

    @property
    def cmd(self) -> int:
        """Type of the control packet: 1 CONNECT, 2 CONNACK, 3 PUBLISH ... (section 2.1.2)."""
        return int(self.packet.type)

    @property
    def id(self) -> int:
        """Packet identifier; 0 when there is none."""
        return getattr(self.packet, "packet_id", 0)

    @property
    def topic(self) -> str:
        """Topic of a PUBLISH; the first filter of SUBSCRIBE and UNSUBSCRIBE; "" of everything else."""
        packet = self.packet
        if packet.type == _PUBLISH:
            return str(packet.topic)
        filters = self.filters
        return filters[0][0] if filters else ""

    @property
    def data(self) -> bytes:
        """Payload of a PUBLISH; reason codes of SUBACK and UNSUBACK; b"" of everything else."""
        packet = self.packet
        return packet.payload if packet.type == _PUBLISH else getattr(packet, "reason_codes", b"")

    @property
    def payload(self) -> bytes:
        """The same as :attr:`data`."""
        return self.data

    @property
    def text(self) -> str:
        """The payload as UTF-8; bad bytes become surrogates."""
        return self.data.decode("utf-8", "surrogateescape")

    @property
    def qos(self) -> int:
        """QoS of a PUBLISH; what is asked for the first filter of a SUBSCRIBE; 0 of everything else."""
        filters = self.filters
        return filters[0][1] & 3 if filters else getattr(self.packet, "qos", 0)

    @property
    def retain(self) -> bool:
        return getattr(self.packet, "retain", False)

    @property
    def dup(self) -> bool:
        return getattr(self.packet, "dup", False)

    @property
    def ack(self) -> int:
        """Reason code, or return code of 3.1.1, of CONNACK and other acknowledgements; 0 of packets without one."""
        return getattr(self.packet, "reason_code", 0)

    @property
    def filters(self) -> Sequence[tuple[str, int]]:
        """Topic filters of a SUBSCRIBE, each with its options (5.0 section 3.8.3.1), and of an UNSUBSCRIBE, with 0."""
        filters = getattr(self.packet, "filters", ())
        return [item if isinstance(item, tuple) else (item, 0) for item in filters]

    @property
    def property_map(self) -> Mapping[Any, Any]:
        """Properties of MQTT 5 by their identifier (:class:`asyncmg.codecs.mqtt_properties.Property`)."""
        found = getattr(self.packet, "properties", _NOTHING)
        return found() if callable(found) else found

    def properties(self) -> list[dict[str, Any]]:
        """Return the properties of MQTT 5 as dictionaries, in the manner of cymongoose.

        ``id`` is the identifier (section 2.2.2.2); ``iv`` the value of a number, or 0; ``val`` that of a string or
        of binary data, as bytes; ``key`` the name of a user property.
        """
        found: list[dict[str, Any]] = []
        for name, value in self.property_map.items():
            for item in value if isinstance(value, list | tuple) else (value,):
                entry: dict[str, Any] = {"id": int(name), "iv": 0, "key": "", "val": b""}
                if isinstance(item, int):
                    entry["iv"] = int(item)
                elif isinstance(item, tuple):
                    entry["key"], entry["val"] = item[0], item[1].encode()
                else:
                    entry["val"] = item.encode() if isinstance(item, str) else item
                found.append(entry)
        return found
