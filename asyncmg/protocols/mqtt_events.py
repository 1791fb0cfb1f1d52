"""The packets of an MQTT connection as raw events: MG_EV_MQTT_OPEN, MG_EV_MQTT_MSG, MG_EV_MQTT_CMD.

What the specification leaves no choice about is answered here: PUBACK, PUBREC, PUBREL, PUBCOMP, and a client's
keep-alive. CONNECT, SUBSCRIBE, UNSUBSCRIBE and PINGREQ are the handler's to answer: it is the broker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from asyncmg.codecs import mqtt as m
from asyncmg.codecs.http import Role
from asyncmg.codecs.mqtt_encode import encode_ack, encode_connect
from asyncmg.codecs.mqtt_properties import NO_PROPERTIES, Fault, Properties, Property, PropertyValue, refuse
from asyncmg.dispatch import EventSink
from asyncmg.errors import BusyError
from asyncmg.events import MG_EV_MQTT_CMD, MG_EV_MQTT_MSG, MG_EV_MQTT_OPEN
from asyncmg.limits import MqttLimits
from asyncmg.mqtt_message import MqttMessage, MqttWill

from .mqtt import MqttProtocol
from .mqtt_flows import OutgoingFlow
from .mqtt_states import MqttState

_OPENING, _CLOSED = MqttState.OPENING, MqttState.CLOSED
_OF_OPENING = frozenset((m.CONNECT, m.AUTH, m.DISCONNECT))

TOO_MANY_RECEIVED = Fault("more messages than receive maximum", m.RECEIVE_MAXIMUM_EXCEEDED, "", "3.3.4-9")


class MqttEvents:
    """The user of a connection whose packets are told as events.

    Args:
        protocol: the connection.
        packet, keep_alive: of a client: its CONNECT.

    Attributes:
        flow: what was sent with QoS 1 and 2 and is not acknowledged. It ends with the connection.
    """

    __slots__ = ("_keep_alive", "_packet", "_protocol", "_unreleased", "_waiting", "flow")

    def __init__(self, protocol: MqttProtocol, packet: bytes = b"", keep_alive: int = 0) -> None:
        self._protocol = protocol
        self._packet = packet
        self._keep_alive = keep_alive
        self._unreleased: set[int] = set()  # packet identifiers of QoS 2 that were received
        self._waiting: deque[tuple[int, bytes]] = deque()  # the peer does not take more now
        self.flow: OutgoingFlow[bytes] = OutgoingFlow()

    def handle_ready(self) -> None:
        if self._packet:
            self._protocol.connect(self._packet, self._keep_alive)

    def handle_packets(self, packets: Sequence[m.Packet]) -> int:
        protocol = self._protocol
        is_server = protocol.role is Role.SERVER
        for place, packet in enumerate(packets):
            if protocol.state is _CLOSED:
                break
            if is_server and protocol.state is _OPENING and packet.type not in _OF_OPENING:
                return place  # no answer may come before CONNACK, and none at all to whoever is refused [MQTT-3.2.0-1]
            if isinstance(packet, m.Publish):
                self._handle_publish(packet)
                continue
            handle = _HANDLERS.get(packet.type)
            if handle is not None:
                handle(self, packet)
            protocol.emit(MG_EV_MQTT_CMD, MqttMessage(packet))
            if isinstance(packet, m.Disconnect):
                protocol.finish()
            elif isinstance(packet, m.Connack) and packet.reason_code:
                protocol.drain()
        return len(packets)

    def _handle_publish(self, packet: m.Publish) -> None:
        protocol = self._protocol
        if packet.raw_properties and protocol.version == 5 and not protocol.resolve_alias(packet):
            return
        if packet.qos == 1:
            protocol.output.write(encode_ack(protocol.version, m.PUBACK, packet.packet_id))
        elif packet.qos == 2:
            unreleased, limit = self._unreleased, protocol.limits.mqtt.receive_maximum
            is_new = packet.packet_id not in unreleased
            if is_new and len(unreleased) >= limit and protocol.version == 5:  # 3.1.1 has no way to tell it
                protocol.refuse(refuse(TOO_MANY_RECEIVED, protocol.version))
                return
            unreleased.add(packet.packet_id)
            protocol.output.write(encode_ack(protocol.version, m.PUBREC, packet.packet_id))
            if not is_new:
                return
        message = MqttMessage(packet)
        protocol.emit(MG_EV_MQTT_MSG, message)
        protocol.emit(MG_EV_MQTT_CMD, message)

    def _handle_connack(self, packet: m.Connack) -> None:
        protocol = self._protocol
        if not packet.reason_code:
            keep_alive = packet.properties.get(Property.SERVER_KEEP_ALIVE, self._keep_alive)
            self.flow.maximum = _number(packet, Property.RECEIVE_MAXIMUM, 65535)
            protocol.peer_max_packet = _number(packet, Property.MAXIMUM_PACKET_SIZE, 0)
            assert isinstance(keep_alive, int)
            protocol.note_accepted(keep_alive)
        protocol.emit(MG_EV_MQTT_OPEN, packet.reason_code)

    def _handle_connect(self, packet: m.Connect) -> None:
        self.flow.maximum = _number(packet, Property.RECEIVE_MAXIMUM, 65535)

    def _handle_puback(self, packet: m.Ack) -> None:
        self.flow.acknowledge(packet.packet_id)
        self._send_waiting()

    def _handle_pubrec(self, packet: m.Ack) -> None:
        if packet.reason_code >= m.UNSPECIFIED_ERROR:
            self._handle_puback(packet)
            return
        code = m.SUCCESS if self.flow.release(packet.packet_id) else m.PACKET_IDENTIFIER_NOT_FOUND
        self._answer(m.PUBREL, packet.packet_id, code)

    def _handle_pubrel(self, packet: m.Ack) -> None:
        known = packet.packet_id in self._unreleased
        self._unreleased.discard(packet.packet_id)
        self._answer(m.PUBCOMP, packet.packet_id, m.SUCCESS if known else m.PACKET_IDENTIFIER_NOT_FOUND)

    def _handle_pubcomp(self, packet: m.Ack) -> None:
        self.flow.complete(packet.packet_id)
        self._send_waiting()

    def _handle_suback(self, packet: m.Suback | m.Unsuback) -> None:
        self.flow.reserved.pop(packet.packet_id, None)

    def _answer(self, kind: int, packet_id: int, code: int) -> None:
        version = self._protocol.version
        self._protocol.output.write(encode_ack(version, kind, packet_id, code if version == 5 else m.SUCCESS))

    def _send_waiting(self) -> None:
        flow = self.flow
        while self._waiting and flow.has_room:
            number, packet = self._waiting.popleft()
            del flow.reserved[number]
            flow.published[number] = packet
            self._protocol.output.write(packet)

    def publish(self, packet: bytes) -> int:
        """Send a PUBLISH with QoS 1 or 2, or keep it until the peer takes one more (5.0 section 4.9).

        Args:
            packet: encoded, with some packet identifier.

        Returns:
            the packet identifier that it gets.

        Raises:
            BusyError: ``max_queued`` messages wait already.
            ConnectionClosed: the connection is closed or draining.
        """
        flow, protocol = self.flow, self._protocol
        limit = protocol.limits.mqtt.max_queued
        if len(self._waiting) >= limit:
            raise BusyError(f"the peer has not acknowledged what was sent before: {limit} messages wait (max_queued)")
        protocol.admit()
        number = flow.take_id()
        packet = with_packet_id(packet, number)
        if flow.has_room and not self._waiting:
            flow.published[number] = packet
            protocol.output.write(packet)
        else:
            flow.reserved[number] = None
            self._waiting.append((number, packet))
        return number

    def handle_writable(self) -> None:
        """Nothing waits here."""

    def handle_end(self) -> None:
        """MG_EV_CLOSE will tell it."""

    def handle_lost(self, error: Exception | None) -> None:
        self.flow.clear()
        self._waiting.clear()

    def handle_shutdown(self) -> None:
        protocol = self._protocol
        protocol.disconnect(m.SERVER_SHUTTING_DOWN if protocol.role is Role.SERVER else m.SUCCESS)


def make_mqtt_events(sink: EventSink, **kwargs: Any) -> MqttProtocol:
    """Make a protocol object whose packets are raw events; takes what :class:`MqttProtocol` takes."""
    protocol = MqttProtocol(sink, **kwargs)
    protocol.user = MqttEvents(protocol)
    return protocol


def connect_packet(
    version: int,
    client_id: str,
    *,
    clean_start: bool,
    keep_alive: int,
    username: str | None = None,
    password: bytes | None = None,
    will: MqttWill | None = None,
    properties: Properties = NO_PROPERTIES,
) -> bytes:
    """Encode a CONNECT.

    Raises:
        InvalidPacket: an argument that it cannot carry.
    """
    if will is None:
        return encode_connect(version, client_id, clean_start, keep_alive, username, password, properties=properties)
    will_properties = dict(will.properties)
    if will.delay:
        will_properties[Property.WILL_DELAY_INTERVAL] = will.delay
    payload = will.payload.encode() if isinstance(will.payload, str) else will.payload
    return encode_connect(
        version,
        client_id,
        clean_start,
        keep_alive,
        username,
        password,
        will.topic,
        payload,
        will.qos,
        will.retain,
        will_properties,
        properties,
    )


def limits_to_tell(limits: MqttLimits, version: int) -> dict[Property, PropertyValue]:
    """Return the properties of CONNECT or CONNACK that tell what we take; 3.1.1 has none."""
    if version != 5:
        return {}
    return {Property.RECEIVE_MAXIMUM: limits.receive_maximum, Property.MAXIMUM_PACKET_SIZE: limits.max_packet}


def with_packet_id(packet: bytes, number: int) -> bytes:
    """Return an encoded PUBLISH of QoS 1 or 2 with another packet identifier."""
    place = 2
    while packet[place - 1] & 128:
        place += 1
    place += 2 + (packet[place] << 8 | packet[place + 1])
    return packet[:place] + number.to_bytes(2, "big") + packet[place + 2 :]


def _number(packet: m.Connect | m.Connack, name: Property, default: int) -> int:
    value = packet.properties.get(name, default)
    assert isinstance(value, int)
    return value


_HANDLERS: dict[int, Callable[..., None]] = {
    m.CONNECT: MqttEvents._handle_connect,
    m.CONNACK: MqttEvents._handle_connack,
    m.PUBACK: MqttEvents._handle_puback,
    m.PUBREC: MqttEvents._handle_pubrec,
    m.PUBREL: MqttEvents._handle_pubrel,
    m.PUBCOMP: MqttEvents._handle_pubcomp,
    m.SUBACK: MqttEvents._handle_suback,
    m.UNSUBACK: MqttEvents._handle_suback,
}
