"""What an MQTT client asks for in its CONNECT (MQTT 5.0 and 3.1.1 section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from .codecs.mqtt_properties import NO_PROPERTIES, Properties, Property, PropertyValue
from .errors import InvalidPacket
from .limits import MqttLimits
from .mqtt_message import MqttWill
from .protocols.mqtt_events import connect_packet

_OURS: Final = {
    Property.SESSION_EXPIRY_INTERVAL: "session_expiry",
    Property.RECEIVE_MAXIMUM: "MqttLimits.receive_maximum",
    Property.MAXIMUM_PACKET_SIZE: "MqttLimits.max_packet",
    Property.TOPIC_ALIAS_MAXIMUM: "MqttLimits.max_topic_aliases",
    Property.AUTHENTICATION_METHOD: "authenticate",
    Property.AUTHENTICATION_DATA: "authenticate",
}

#: Properties by their identifier, or by its name in lower case, such as ``"content_type"``.
PropertiesArgument = Mapping[Property, PropertyValue] | Mapping[str, PropertyValue] | None

_BY_NAME: Final = {name.name.lower(): name for name in Property}


def properties_of(given: PropertiesArgument) -> Properties:
    """Return properties by identifier.

    Raises:
        InvalidPacket: a name that no property has.
    """
    if not given:
        return NO_PROPERTIES
    found: dict[Property, PropertyValue] = {}
    for name, value in given.items():
        known = _BY_NAME.get(name) if isinstance(name, str) else name
        if known is None:
            raise InvalidPacket(f"there is no property {name!r}")
        found[known] = value
    return found


@dataclass(frozen=True, slots=True)
class MqttOptions:
    """What a client's CONNECT says; see :func:`asyncmg.mqtt_connect`."""

    version: int = 5
    client_id: str = ""
    username: str | None = None
    password: bytes | None = None
    clean_start: bool = True
    session_expiry: int = 0
    keep_alive: int = 60
    will: MqttWill | None = None
    properties: Properties = field(default_factory=dict)
    method: str = ""
    aliases: bool = False

    def connect_packet(self, client_id: str, is_clean: bool, limits: MqttLimits, data: bytes = b"") -> bytes:
        """Encode a CONNECT.

        Raises:
            InvalidPacket: an option that it cannot carry.
        """
        properties = dict(self.properties)
        for name, argument in _OURS.items():
            if name in properties:
                raise InvalidPacket(f"{name.name} of a CONNECT is decided by {argument}")
        if self.version == 5:
            properties[Property.RECEIVE_MAXIMUM] = limits.receive_maximum
            properties[Property.MAXIMUM_PACKET_SIZE] = limits.max_packet
            properties[Property.TOPIC_ALIAS_MAXIMUM] = limits.max_topic_aliases
            if self.session_expiry:
                properties[Property.SESSION_EXPIRY_INTERVAL] = self.session_expiry
            if self.method:
                properties[Property.AUTHENTICATION_METHOD] = self.method
                if data:
                    properties[Property.AUTHENTICATION_DATA] = data
        elif self.method:
            raise InvalidPacket("MQTT 3.1.1 has no enhanced authentication")
        return connect_packet(
            self.version,
            client_id,
            clean_start=is_clean,
            keep_alive=self.keep_alive,
            username=self.username,
            password=self.password,
            will=self.will,
            properties=properties,
        )
