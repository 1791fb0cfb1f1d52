"""One connection of an MQTT client: what its packets mean (MQTT 3.1.1 and 5.0 chapters 3 and 4).

What outlives connections is the session's (:mod:`.mqtt_session`), what is received the inbox's (:mod:`.mqtt_inbox`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from asyncmg.codecs import mqtt as m
from asyncmg.codecs.mqtt_encode import encode_ack, encode_publish
from asyncmg.codecs.mqtt_properties import Fault, Properties, Property, refuse, write_properties
from asyncmg.codecs.mqtt_topics import SHARE
from asyncmg.errors import ConnectionClosed, LocalProtocolError, MqttRefused, ProtocolError

from .base import Pause
from .mqtt import MqttProtocol
from .mqtt_auth import Authentication, AuthenticationHook
from .mqtt_events import TOO_MANY_RECEIVED, with_packet_id
from .mqtt_inbox import Inbox
from .mqtt_session import ClientSession, refusal
from .mqtt_states import MqttState

_OPEN = MqttState.OPEN
_PAUSE_EVENTS = Pause.EVENTS
_ALIAS = Property.TOPIC_ALIAS

_MAX_UNTOLD: Final = 20
_MAX_INFLIGHT: Final = 60_000  # leaves packet identifiers for SUBSCRIBE and UNSUBSCRIBE

#: What return codes of 3.1.1 (section 3.2.2.3) mean in 5.0.
REASON_OF_RETURN_CODE: Final = {
    1: m.UNSUPPORTED_VERSION,
    2: m.CLIENT_IDENTIFIER_INVALID,
    3: m.SERVER_UNAVAILABLE,
    4: m.BAD_USER_OR_PASSWORD,
    5: m.NOT_AUTHORIZED,
}

UNASKED_SESSION: Final = Fault("session present after a clean start", m.PROTOCOL_ERROR, "3.2.2-1", "3.2.2-2")
WRONG_ANSWER: Final = Fault("acknowledgement of another packet", m.PROTOCOL_ERROR, "3.8.4-2", "3.8.4-2")
WRONG_COUNT: Final = Fault("not one reason code for each topic filter", m.PROTOCOL_ERROR, "3.8.4-5", "3.8.4-6")

P = TypeVar("P", int, str)


class Request:
    """A SUBSCRIBE or UNSUBSCRIBE that waits for its answer; sent again in the next connection when that is lost.

    Args:
        filters: what it is about, with options of a SUBSCRIBE.
        encode: makes the packet for a version and a packet identifier.
        check: raises when this server does not take it.
    """

    __slots__ = ("check", "encode", "filters", "kind", "outcome")

    def __init__(
        self,
        kind: int,
        filters: Sequence[tuple[str, int]],
        encode: Callable[[int, int], bytes],
        check: Callable[[ClientLink], None],
        outcome: asyncio.Future[m.Suback | m.Unsuback],
    ) -> None:
        self.kind = kind
        self.filters = filters
        self.encode = encode
        self.check = check
        self.outcome = outcome


class LinkOwner(Protocol):
    """The client whose connection it is."""

    def handle_open(self, link: ClientLink) -> None:
        """CONNACK has told success; the session has begun."""

    def handle_ending(self, link: ClientLink) -> None:
        """Nothing more can be sent."""


class ClientLink:
    """The user of one connection of a client.

    Args:
        protocol: the connection.
        packet, keep_alive, is_clean: its CONNECT.
        method, hook: of enhanced authentication; "": there is none.
        aliases: use topic aliases when the server takes them.

    Attributes:
        connack: the server's answer; before it has come it is an empty one.
        error: why the connection has ended or has not come about, as far as the server has told.
        is_limited: the server takes not every message.
    """

    __slots__ = (
        "_authentication",
        "_is_clean",
        "_is_paused",
        "_keep_alive",
        "_max_aliases",
        "_owner",
        "_packet",
        "_pings",
        "_requests",
        "_wants_aliases",
        "connack",
        "error",
        "inbox",
        "is_limited",
        "is_over",
        "protocol",
        "session",
    )

    def __init__(
        self,
        protocol: MqttProtocol,
        owner: LinkOwner,
        session: ClientSession,
        inbox: Inbox,
        packet: bytes,
        keep_alive: int,
        *,
        is_clean: bool,
        method: str = "",
        hook: AuthenticationHook | None = None,
        aliases: bool = False,
    ) -> None:
        self.protocol = protocol
        self.session = session
        self.inbox = inbox
        self.connack = m.Connack(False, m.SUCCESS)
        self.error: Exception | None = None
        self.is_limited = False
        self.is_over = False
        self._owner = owner
        self._packet = packet
        self._keep_alive = keep_alive
        self._is_clean = is_clean
        self._authentication = Authentication(protocol, method, hook, self._handle_distrust)
        self._wants_aliases = aliases
        self._max_aliases = 0
        self._is_paused = False
        self._requests: dict[int, Request] = {}
        self._pings: list[asyncio.Future[None]] = []

    # -- the connection's user ---------------------------------------------------------------------------------------

    def handle_ready(self) -> None:
        self.protocol.connect(self._packet, self._keep_alive)

    def handle_packets(self, packets: Sequence[m.Packet]) -> int:
        session, protocol = self.session, self.protocol
        published = session.flow.published
        put = self.inbox.put
        received = session.received
        maximum = protocol.limits.mqtt.receive_maximum if protocol.version == 5 else 65536
        is_acknowledged = False
        for packet in packets:
            if isinstance(packet, m.Publish):
                if packet.raw_properties and not protocol.resolve_alias(packet):
                    break
                if not packet.qos:
                    put(packet)
                elif len(received) >= maximum and not packet.dup and packet.packet_id not in received:
                    # Not of repeated ones: mosquitto 2.0 repeats what it had under way, and begins with what waits,
                    # without counting both together. Whoever refused that would get the same again, for ever.
                    self._refuse(refuse(TOO_MANY_RECEIVED, 5))
                    break
                elif session.admit(packet):
                    put(packet)
            elif packet.type == m.PUBACK and isinstance(packet, m.Ack):
                delivery = published.pop(packet.packet_id, None)
                if delivery is not None:
                    session.finish(delivery, packet.reason_code, packet.properties)
                    is_acknowledged = True
            else:
                _HANDLERS[packet.type](self, packet)
                put = self.inbox.put
                is_acknowledged = True
            if self.is_over:
                break
        if is_acknowledged and not self.is_over:
            self.send_waiting()
        if self.inbox.over or self._is_paused:
            self.consider_reading()
        if session.is_stored:
            session.commit()
        return len(packets)

    def handle_writable(self) -> None:
        """Whoever waits for that waits in flush()."""

    def handle_end(self) -> None:
        """handle_lost() comes soon."""

    def handle_lost(self, error: Exception | None) -> None:
        if self.error is None:
            self.error = error
        self._end()

    def handle_shutdown(self) -> None:
        self.protocol.disconnect()

    def _refuse(self, error: ProtocolError) -> None:
        """The server has broken the protocol."""
        if self.error is None:
            self.error = error
        self.protocol.refuse(error)
        self._end()

    def _end(self) -> None:
        if self.is_over:
            return
        self.is_over = True
        self.session.end(self)
        error = ConnectionClosed("connection lost")
        for waiter in self._pings:
            if not waiter.done():
                waiter.set_exception(error)
        self._authentication.end(error)
        self._owner.handle_ending(self)

    def consider_reading(self) -> None:
        """Stop reading while readers are behind, unless something of ours waits for its answer.

        Whoever waits for an acknowledgement while he handles a message would wait for ever otherwise.
        """
        flow = self.session.flow
        stops = bool(self.inbox.over) and not (flow.published or flow.released or flow.waiting or self._is_asking)
        if stops != self._is_paused:
            self._is_paused = stops
            if stops:
                self.protocol.pause_reading(_PAUSE_EVENTS)
            else:
                self.protocol.resume_reading(_PAUSE_EVENTS)

    @property
    def is_paused(self) -> bool:
        """Nothing is read."""
        return self._is_paused

    @property
    def _is_asking(self) -> bool:
        return bool(self._requests or self._pings) or self._authentication.is_under_way

    # -- opening -----------------------------------------------------------------------------------------------------

    def _handle_connack(self, packet: m.Connack) -> None:
        protocol = self.protocol
        code = packet.reason_code
        if code:
            code = code if protocol.version == 5 else REASON_OF_RETURN_CODE.get(code, m.UNSPECIFIED_ERROR)
            self.error = refusal("the broker has refused the connection", code, packet.properties)
            protocol.drain()
            self._end()
            return
        if packet.session_present and self._is_clean:
            self._refuse(refuse(UNASKED_SESSION, protocol.version))
            return
        self.connack = packet
        fault = self._authentication.handle_connack(packet)
        if fault is not None:
            self._refuse(fault)
            return
        protocol.peer_max_packet = self.told(Property.MAXIMUM_PACKET_SIZE, 0)
        self.is_limited = bool(
            protocol.peer_max_packet
            or self.told(Property.MAXIMUM_QOS, 2) < 2
            or not self.told(Property.RETAIN_AVAILABLE, 1)
        )
        if self._wants_aliases:
            self._max_aliases = min(self.told(Property.TOPIC_ALIAS_MAXIMUM, 0), protocol.limits.mqtt.max_topic_aliases)
        limit = min(protocol.limits.mqtt.max_inflight, _MAX_INFLIGHT)
        if protocol.version == 4:  # its brokers cannot tell; mosquitto 2.0 never answers more than 20 of QoS 2
            limit = min(limit, _MAX_UNTOLD)
        released = self.session.begin(
            self, packet.session_present, min(limit, self.told(Property.RECEIVE_MAXIMUM, 65535))
        )
        protocol.note_accepted(self.told(Property.SERVER_KEEP_ALIVE, self._keep_alive))
        for number in released:
            self.session.write(encode_ack(protocol.version, m.PUBREL, number))
        self._owner.handle_open(self)
        self.send_waiting()

    def told(self, name: Property, default: P) -> P:
        """Return a property of the CONNACK."""
        value = self.connack.properties.get(name, default)
        assert isinstance(value, type(default))
        return value

    # -- sending -----------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self.protocol.state is _OPEN

    def write(self, packet: bytes) -> None:
        """Send a packet, unless the connection has begun to end [MQTT-3.14.4-1]."""
        protocol = self.protocol
        if protocol.state is _OPEN:
            protocol.output.write(packet)

    def send_now(self, topic: str, payload: bytes, retain: bool, properties: Properties | bytes) -> None:
        """Send a message with QoS 0.

        Raises:
            InvalidPacket, LocalProtocolError: the server does not take it.
        """
        protocol = self.protocol
        packet = encode_publish(protocol.version, topic, payload, 0, retain, False, 0, properties)
        if self.is_limited:
            self.check(packet)
        if self._max_aliases:
            self.session.write(self._with_alias(packet, topic))
        elif protocol.state is _OPEN:
            protocol.output.write(packet)

    def check(self, packet: bytes) -> None:
        """Hold a PUBLISH against what the server takes (5.0 sections 3.2.2.3.4 to 3.2.2.3.6).

        Raises:
            LocalProtocolError: with the reason code that the server would tell.
        """
        first = packet[0]
        maximum = self.told(Property.MAXIMUM_QOS, 2)
        if first >> 1 & 3 > maximum:
            raise LocalProtocolError(f"the broker takes QoS {maximum} at most", wire_code=m.QOS_NOT_SUPPORTED)
        if first & 1 and not self.told(Property.RETAIN_AVAILABLE, 1):
            raise LocalProtocolError("the broker retains no messages", wire_code=m.RETAIN_NOT_SUPPORTED)
        self.protocol.check_size(packet)

    def send_waiting(self) -> None:
        """Send what the server takes now: what it has to get again, then what waits."""
        session = self.session
        flow, write = session.flow, session.write
        while (following := flow.next()) is not None:
            number, delivery, again = following
            if not again:
                session.note_numbered(delivery, number)
            packet = delivery.packet
            if self.is_limited:
                try:
                    self.check(packet)
                except LocalProtocolError as exc:
                    flow.published.pop(number)
                    session.fail(delivery, exc)
                    continue
            if again:
                packet = bytes((packet[0] | 8,)) + packet[1:]
            elif self._max_aliases:
                packet = self._with_alias(packet)
            write(with_packet_id(packet, number))

    def _with_alias(self, packet: bytes, topic: str | None = None) -> bytes:
        """Return an encoded PUBLISH of 5.0 with a topic alias, as far as there are any (section 3.3.2.3.4)."""
        place = 2
        while packet[place - 1] & 128:
            place += 1
        after = place + 2 + (packet[place] << 8 | packet[place + 1])
        if topic is None:
            topic = packet[place + 2 : after].decode()
        topic, alias = self.protocol.alias_for(topic, self._max_aliases)
        if not alias:
            return packet
        qos = packet[0] >> 1 & 3
        body = m.Publish("", b"")
        rest = after + (2 if qos else 0)
        size, shift = 0, 0
        while True:  # the length of the properties, which we have written ourselves
            byte = packet[rest]
            rest += 1
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        body.raw_properties = write_properties({_ALIAS: alias}, m.PUBLISH) + packet[rest : rest + size]
        number = int.from_bytes(packet[after : after + 2], "big") if qos else 0
        is_dup = bool(packet[0] & 8)
        retain = bool(packet[0] & 1)
        with_alias = encode_publish(5, topic, packet[rest + size :], qos, retain, is_dup, number, body.raw_properties)
        if 0 < self.protocol.peer_max_packet < len(with_alias):  # the alias has made it too large
            if topic:
                assert self.protocol.sent_aliases is not None
                del self.protocol.sent_aliases[topic]
            return packet
        return with_alias

    # -- acknowledgements --------------------------------------------------------------------------------------------

    def _handle_pubrec(self, packet: m.Ack) -> None:
        number, session = packet.packet_id, self.session
        if packet.reason_code >= m.UNSPECIFIED_ERROR:
            delivery = session.flow.acknowledge(number)
            if delivery is not None:
                session.finish(delivery, packet.reason_code, packet.properties)
            return
        delivery = session.flow.published.get(number)
        if delivery is not None:
            delivery.accepted_with = packet.reason_code
        self._answer(m.PUBREL, number, session.release(number))

    def _handle_pubrel(self, packet: m.Ack) -> None:
        self._answer(m.PUBCOMP, packet.packet_id, self.session.let_go(packet.packet_id))

    def _answer(self, kind: int, number: int, is_known: bool) -> None:
        version = self.protocol.version
        code = m.SUCCESS if is_known or version == 4 else m.PACKET_IDENTIFIER_NOT_FOUND
        self.session.write(encode_ack(version, kind, number, code))

    def _handle_pubcomp(self, packet: m.Ack) -> None:
        delivery = self.session.flow.complete(packet.packet_id)
        if delivery is not None:
            # Whatever it says: PUBREC has told that the message has arrived.
            self.session.finish(delivery, delivery.accepted_with, packet.properties)

    # -- requests ----------------------------------------------------------------------------------------------------

    def ask(self, request: Request) -> None:
        """Send a SUBSCRIBE or UNSUBSCRIBE; when the server does not take it, its outcome says so."""
        flow, protocol = self.session.flow, self.protocol
        number = flow.take_id()
        try:
            request.check(self)
            packet = protocol.check_size(request.encode(protocol.version, number))
        except LocalProtocolError as exc:
            request.outcome.set_exception(exc)
            return
        flow.reserved[number] = None
        self._requests[number] = request
        self.write(packet)
        if self._is_paused:
            self.consider_reading()

    def check_filters(self, filters: Sequence[tuple[str, int]], properties: Properties) -> None:
        """Hold a SUBSCRIBE against what the server takes (5.0 sections 3.2.2.3.11 to 3.2.2.3.13).

        Raises:
            LocalProtocolError: with the reason code that the server would tell.
        """
        if Property.SUBSCRIPTION_IDENTIFIER in properties and not self.told(
            Property.SUBSCRIPTION_IDENTIFIER_AVAILABLE, 1
        ):
            code = m.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED
            raise LocalProtocolError("the broker takes no subscription identifiers", wire_code=code)
        has_wildcards = self.told(Property.WILDCARD_SUBSCRIPTION_AVAILABLE, 1)
        has_shared = self.told(Property.SHARED_SUBSCRIPTION_AVAILABLE, 1)
        if has_wildcards and has_shared:
            return
        for item, _ in filters:
            if not has_wildcards and ("+" in item or "#" in item):
                code = m.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED
                raise LocalProtocolError("the broker takes no wildcards", wire_code=code)
            if not has_shared and item.startswith(SHARE):
                code = m.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
                raise LocalProtocolError("the broker takes no shared subscriptions", wire_code=code)

    def _handle_suback(self, packet: m.Suback | m.Unsuback) -> None:
        number = packet.packet_id
        request = self._requests.pop(number, None)
        self.session.flow.reserved.pop(number, None)
        version = self.protocol.version
        if request is None or request.kind != packet.type:
            self._refuse(refuse(WRONG_ANSWER, version))
        elif len(packet.reason_codes) != len(request.filters) and not (version == 4 and packet.type == m.UNSUBACK):
            self._refuse(refuse(WRONG_COUNT, version))
        elif not request.outcome.done():
            request.outcome.set_result(packet)

    def ping(self) -> asyncio.Future[None]:
        """Send PINGREQ; the future is done when a PINGRESP has come, and cancelled when the connection ends before."""
        answered = self.protocol.loop.create_future()
        self._pings.append(answered)
        if self.is_open:
            self.protocol.ping()
        if self._is_paused:
            self.consider_reading()
        return answered

    def _handle_pingresp(self, packet: m.Pingresp) -> None:
        pings, self._pings = self._pings, []
        for answered in pings:
            if not answered.done():
                answered.set_result(None)

    # -- enhanced authentication (5.0 section 4.12) --------------------------------------------------------------------

    def reauthenticate(self, data: bytes) -> asyncio.Future[None]:
        """Begin to authenticate anew; see :meth:`Authentication.begin_anew`."""
        done = self._authentication.begin_anew(data)
        if self._is_paused:
            self.consider_reading()
        return done

    def _handle_auth(self, packet: m.Auth) -> None:
        error = self._authentication.handle_auth(packet, self.is_open)
        if error is not None:
            self._refuse(error)

    def _handle_distrust(self, error: MqttRefused) -> None:
        self.error = error
        self.protocol.give_up(error)

    # -- the end -----------------------------------------------------------------------------------------------------

    def _handle_disconnect(self, packet: m.Disconnect) -> None:
        if packet.reason_code >= m.UNSPECIFIED_ERROR and self.error is None:
            self.error = refusal("the broker has ended the connection", packet.reason_code, packet.properties)
        self.protocol.finish()
        self._end()

    def disconnect(self, reason_code: int, properties: Properties) -> None:
        """Send DISCONNECT and end the connection behind it.

        Raises:
            InvalidPacket.
        """
        self.protocol.disconnect(reason_code, properties)
        self._end()


_HANDLERS: Final[dict[int, Callable[[ClientLink, Any], None]]] = {
    m.CONNACK: ClientLink._handle_connack,
    m.PUBREC: ClientLink._handle_pubrec,
    m.PUBREL: ClientLink._handle_pubrel,
    m.PUBCOMP: ClientLink._handle_pubcomp,
    m.SUBACK: ClientLink._handle_suback,
    m.UNSUBACK: ClientLink._handle_suback,
    m.PINGRESP: ClientLink._handle_pingresp,
    m.AUTH: ClientLink._handle_auth,
    m.DISCONNECT: ClientLink._handle_disconnect,
}
