"""MQTT verbs of a connection, for raw events: a client's, and what a handler answers that is a broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncmg.codecs import mqtt as m
from asyncmg.codecs.http import Role
from asyncmg.codecs.mqtt_encode import (
    PINGRESP_BYTES,
    encode_publish,
    encode_suback,
    encode_subscribe,
    encode_unsuback,
    encode_unsubscribe,
)
from asyncmg.codecs.mqtt_properties import NO_PROPERTIES, Properties
from asyncmg.errors import ConnectionClosed, LocalProtocolError
from asyncmg.protocols.mqtt import MqttProtocol
from asyncmg.protocols.mqtt_events import MqttEvents, limits_to_tell


class MqttVerbs:
    """``mqtt_pub``, ``mqtt_sub``, ``mqtt_ping`` ...; mixed into Connection.

    All raise ConnectionClosed when the connection is closed, LocalProtocolError when it is no MQTT connection with raw
    events or not open yet, and InvalidPacket (a ValueError) of arguments that no packet can carry.
    """

    __slots__ = ()

    protocol: Any

    def _mqtt(self, *, opening: bool = False) -> tuple[MqttProtocol, MqttEvents]:
        protocol = self.protocol
        if getattr(self, "is_closing", False) or getattr(protocol, "is_draining", False):
            raise ConnectionClosed("Connection has been closed")
        if not isinstance(protocol, MqttProtocol) or not isinstance(protocol.user, MqttEvents):
            raise LocalProtocolError("not an MQTT connection: use mqtt_connect() or mqtt_listen()")
        if not opening and not protocol.is_open:
            raise LocalProtocolError("not open yet: wait for MG_EV_MQTT_OPEN, or answer the CONNECT")
        return protocol, protocol.user

    def mqtt_pub(
        self,
        topic: str,
        message: str | bytes,
        qos: int = 0,
        retain: bool = False,
        *,
        properties: Properties = NO_PROPERTIES,
    ) -> int:
        """Publish a message (section 3.3). A message of QoS 1 or 2 ends with the connection, acknowledged or not.

        Args:
            topic: without wildcards.
            message: a str is sent as UTF-8.
            properties: 5.0 only.

        Returns:
            the packet identifier; 0 with QoS 0. MG_EV_MQTT_CMD with PUBACK (4) or PUBCOMP (7) has the same.

        Raises:
            BusyError: too many messages wait for the peer's acknowledgements.
        """
        protocol, user = self._mqtt()
        payload = message.encode() if isinstance(message, str) else bytes(memoryview(message))
        if not qos:
            protocol.publish(topic, payload, retain, properties)
            return 0
        packet = encode_publish(protocol.version, topic, payload, qos, retain, False, 1, properties)
        return user.publish(protocol.check_size(packet))

    def mqtt_sub(self, topic: str, qos: int = 0, *, options: int = 0, properties: Properties = NO_PROPERTIES) -> int:
        """Subscribe (section 3.8); MG_EV_MQTT_CMD with SUBACK (9) tells what is granted.

        Args:
            topic: a filter.
            qos: the highest one that is wanted.
            options: further ones, 5.0 only (OPTION_NO_LOCAL ... of :mod:`asyncmg.codecs.mqtt`).

        Returns:
            the packet identifier, which the SUBACK has as well.
        """
        protocol, user = self._mqtt()
        number = user.flow.take_id()
        protocol.send(encode_subscribe(protocol.version, number, ((topic, qos | options),), properties))
        user.flow.reserved[number] = None
        return number

    def mqtt_unsub(self, topic: str, *, properties: Properties = NO_PROPERTIES) -> int:
        """Unsubscribe (section 3.10); return the packet identifier, which the UNSUBACK (11) has as well."""
        protocol, user = self._mqtt()
        number = user.flow.take_id()
        protocol.send(encode_unsubscribe(protocol.version, number, (topic,), properties))
        user.flow.reserved[number] = None
        return number

    def mqtt_ping(self) -> None:
        """Send PINGREQ. Keep-alive pings need no call."""
        protocol, _ = self._mqtt()
        if protocol.role is Role.SERVER:
            raise LocalProtocolError("only clients send PINGREQ")
        protocol.ping()

    def mqtt_pong(self) -> None:
        """Answer a PINGREQ."""
        protocol, _ = self._mqtt()
        protocol.send(PINGRESP_BYTES)

    def mqtt_disconnect(self, reason_code: int = m.SUCCESS, properties: Properties = NO_PROPERTIES) -> None:
        """Send DISCONNECT (section 3.14) and close behind it; a server with 3.1.1 just closes."""
        protocol, _ = self._mqtt(opening=True)
        protocol.disconnect(reason_code, properties)

    def mqtt_connack(
        self, reason_code: int = m.SUCCESS, session_present: bool = False, properties: Properties = NO_PROPERTIES
    ) -> None:
        """Answer a CONNECT (section 3.2); unless ``reason_code`` is 0 the connection is closed behind it.

        Args:
            reason_code: of 5.0; a client with 3.1.1 gets the return code that comes nearest.
            properties: 5.0 only. Receive maximum and maximum packet size are told without being named here.
        """
        protocol, _ = self._mqtt(opening=True)
        if protocol.role is not Role.SERVER or protocol.is_open or not protocol.version:
            raise LocalProtocolError("there is no CONNECT to answer")
        if reason_code:
            protocol.reject(reason_code, properties)
        else:
            told = {**limits_to_tell(protocol.limits.mqtt, protocol.version), **properties}
            protocol.accept(session_present, told, protocol.asked_keep_alive)

    def mqtt_suback(self, packet_id: int, reason_codes: Sequence[int], properties: Properties = NO_PROPERTIES) -> None:
        """Answer a SUBSCRIBE (section 3.9), with a reason code for each filter: the QoS granted, or 0x80 and above.

        A client with 3.1.1 gets 0x80 for any of those.
        """
        protocol, _ = self._mqtt()
        if protocol.version == 4:
            reason_codes = [min(code, m.UNSPECIFIED_ERROR) for code in reason_codes]
        protocol.send(encode_suback(protocol.version, packet_id, bytes(reason_codes), properties))

    def mqtt_unsuback(
        self, packet_id: int, reason_codes: Sequence[int] = (), properties: Properties = NO_PROPERTIES
    ) -> None:
        """Answer an UNSUBSCRIBE (section 3.11) with a reason code for each filter; a client with 3.1.1 gets none."""
        protocol, _ = self._mqtt()
        codes = bytes(reason_codes) if protocol.version == 5 else b""
        protocol.send(encode_unsuback(protocol.version, packet_id, codes, properties))
