"""One connection of the broker's: what its packets do (MQTT 5.0 and 3.1.1 chapters 3 and 4)."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, cast

from asyncmg.codecs import mqtt as m
from asyncmg.codecs.mqtt_encode import PINGRESP_BYTES, encode_ack, encode_auth, encode_suback, encode_unsuback
from asyncmg.codecs.mqtt_properties import Fault, Property, refuse
from asyncmg.errors import ConnectionClosed, LimitExceeded
from asyncmg.protocols.base import Pause
from asyncmg.protocols.mqtt import MqttProtocol

from .core import Broker
from .hooks import HOOK_ERRORS, Answer, BrokerClient, Verdict, is_being_cancelled, reason_code, refusal_for
from .message import Delivery, Message
from .opening import Opening
from .session import Session
from .subscribing import RetainedDelivery, ask_rest, subscribe

_EXPIRY = Property.MESSAGE_EXPIRY_INTERVAL
_METHOD = Property.AUTHENTICATION_METHOD
_SESSION_EXPIRY = Property.SESSION_EXPIRY_INTERVAL

_GOES_ON, _IS_BUSY, _IS_OVER = range(3)  # what becomes of the packets behind this one

_PUBLISH, _PUBACK = m.PUBLISH, m.PUBACK
_LARGE: Final = 256 << 10  # bytes collected in a turn before they are handed to the transport
_MAX_PLAIN: Final = 1 << 20  # unsent bytes of a slow client above which messages with QoS 0 are dropped
_SPLIT: Final = 1 << 10  # bytes of a payload that all receivers share, instead of getting a copy each
_MIN_ALIASED: Final = 8  # characters of a topic that is worth an alias

UNASKED_AUTH: Final = Fault("AUTH that nobody has asked for", m.PROTOCOL_ERROR, "", "4.12.1-1")
TOO_MANY_RECEIVED: Final = Fault("more messages than receive maximum", m.RECEIVE_MAXIMUM_EXCEEDED, "", "3.3.4-9")


class Link:
    """The user of a connection (:class:`asyncmg.protocols.mqtt.MqttUser`) that belongs to a broker.

    Attributes:
        protocol: the connection.
        output: its output.
        session: of its client; None until CONNECT has been accepted, and from when the connection begins to end.
        client: who it is; None until CONNECT has been accepted.
        alias_maximum: how many topic aliases it is sent.
    """

    __slots__ = (
        "_address",
        "_backlog",
        "_broker",
        "_connect",
        "_is_asking",
        "_next_turn",
        "_opening",
        "_rate",
        "_status",
        "_wants_will",
        "alias_maximum",
        "client",
        "is_plain",
        "output",
        "protocol",
        "session",
        "version",
    )

    def __init__(self, broker: Broker, protocol: MqttProtocol) -> None:
        self._broker = broker
        self.protocol = protocol
        self.output = protocol.output
        self.session: Session | None = None
        self.client: BrokerClient | None = None
        self.alias_maximum = 0
        self.version = 0
        self.is_plain = True  # it takes any packet, without aliases
        self._address: str | None = None  # counted
        self._backlog: deque[RetainedDelivery] | None = None  # to be sent
        self._opening: Opening | None = None
        self._connect: m.Connect | None = None  # with an authentication method
        self._rate = broker.limits.mqtt.max_message_rate
        self._next_turn = 0.0  # of its message rate
        self._status = _GOES_ON
        self._is_asking = False  # a hook
        self._wants_will = True

    @property
    def is_paused(self) -> bool:
        return self.output.is_paused

    # -- life --------------------------------------------------------------------------------------------------------

    def handle_ready(self) -> None:
        broker = self._broker
        broker.links.add(self)
        peer = self.protocol.peername
        if isinstance(peer, tuple):
            address = self._address = str(peer[0])
            count = broker.addresses[address] = broker.addresses.get(address, 0) + 1
            limit = broker.limits.mqtt.max_per_address
            if limit and count > limit:
                self.protocol.drain()

    def _release_address(self) -> None:
        addresses, address = self._broker.addresses, self._address
        if address is not None:
            self._address = None
            addresses[address] -= 1
            if not addresses[address]:
                del addresses[address]

    def handle_packets(self, packets: Sequence[m.Packet]) -> int:
        if self._status != _GOES_ON:
            return self._handle_while_busy(packets) if self._status == _IS_BUSY else len(packets)
        handled = 0
        for packet in packets:
            handled += 1
            if packet.type == _PUBLISH:
                self._handle_publish(cast(m.Publish, packet))
            else:
                _HANDLERS[packet.type](self, packet)
            if self._status != _GOES_ON:
                break
        fan_out = self._broker.fan_out
        if fan_out.messages:
            fan_out.flush()
        return len(packets) if self._status == _IS_OVER else handled

    def _handle_while_busy(self, packets: Sequence[m.Packet]) -> int:
        """Whoever is asked in enhanced authentication may answer, or leave [MQTT-3.1.2-30]; everything else waits."""
        packet = packets[0]
        if self._opening is not None:
            if packet.type == m.AUTH:
                self._opening.handle_auth(cast(m.Auth, packet))
                return 1
            if packet.type == m.DISCONNECT and self.session is None:
                self._handle_disconnect(cast(m.Disconnect, packet))
                return len(packets)
        return 0

    def handle_writable(self) -> None:
        session = self.session
        if session is not None:
            self._send_backlog()
            session.pump(self._broker.loop.time())

    def handle_end(self) -> None:
        """From now on the session is without a connection: what comes for it waits [MQTT-3.14.4-1]."""
        self._status = _IS_OVER
        if self._opening is not None:
            self._opening.cancel()
        self._leave()

    def handle_lost(self, error: Exception | None) -> None:
        self._broker.links.discard(self)
        self.handle_end()

    def handle_shutdown(self) -> None:
        self.end(m.SERVER_SHUTTING_DOWN)

    def _leave(self) -> None:
        self._release_address()
        session, self.session = self.session, None
        if session is not None:
            self._keep_backlog(session)
            self._broker.detach(session, self, publishes_will=self._wants_will)
            self._broker.fan_out.flush()

    def end_taken_over(self) -> None:
        self.end(m.SESSION_TAKEN_OVER)

    def end(self, reason_code: int) -> None:
        """End the connection without the client's doing; its will is published."""
        self._status = _IS_OVER
        self._leave()
        self.protocol.disconnect(reason_code)

    def _refuse(self, fault: Fault) -> None:
        self.protocol.refuse(refuse(fault, self.protocol.version))

    def ask(self, hook: Callable[[], Answer], then: Callable[[Verdict], None], *, blocks: bool = True) -> None:
        """Go on with a hook's answer, now or when it is there; see :meth:`wait_for`."""
        try:
            answer = hook()
            if inspect.isawaitable(answer):
                self.wait_for(answer, then, blocks=blocks)
            else:
                then(answer)
        except HOOK_ERRORS as exc:
            self.fail(exc)

    def wait_for(self, answer: Awaitable[Any], then: Callable[[Any], None], *, blocks: bool = True) -> None:
        """Handle no packet until a hook's answer is there. One that fails, or is late, ends the connection.

        Args:
            blocks: False: packets are handled meanwhile.
        """
        if blocks:
            self._status = _IS_BUSY
            self._is_asking = True
        self.protocol.sink.spawn(self._wait(answer, then, blocks), "asyncmg-mqtt-hook")

    async def _wait(self, answer: Awaitable[Any], then: Callable[[Any], None], blocks: bool) -> None:
        protocol = self.protocol
        try:
            async with asyncio.timeout(self._broker.limits.mqtt.authentication_timeout):
                outcome = await answer
        except HOOK_ERRORS as exc:
            if is_being_cancelled():
                protocol.drain()
                raise
            self.fail(exc)
            return
        if self._status == _IS_OVER:
            return
        if blocks:
            self._is_asking = False
        protocol.output.in_turn = True
        try:
            then(outcome)
            self._broker.fan_out.flush()
        except Exception as exc:
            self.fail(exc)
        finally:
            protocol.output.end_turn()
        if blocks:
            self._go_on()

    def fail(self, error: BaseException) -> None:
        """A hook has failed: nobody gets in, or further, by that."""
        if self._status == _IS_OVER and isinstance(error, ConnectionClosed | asyncio.CancelledError):
            return  # it has waited for a client that is gone
        self._broker.report_hook(error)
        if self._status == _IS_OVER:
            return
        if self.protocol.is_open:
            code = m.IMPLEMENTATION_ERROR
            self.protocol.disconnect(code if self.protocol.version == 5 else m.SUCCESS)
        else:
            self.protocol.reject(m.SERVER_UNAVAILABLE)

    # -- opening -----------------------------------------------------------------------------------------------------

    def _handle_connect(self, packet: m.Connect) -> None:
        self.version = packet.version
        if _METHOD in packet.properties:
            self._connect = packet
        self._opening = Opening(self._broker, self, packet)
        self._opening.begin()

    def begin(self, session: Session, client: BrokerClient, alias_maximum: int) -> None:
        """CONNACK has been sent: the session goes on here."""
        protocol = self.protocol
        self._opening = None
        self.session = session
        self.client = session.client = client
        self.alias_maximum = alias_maximum
        self.is_plain = not alias_maximum and not protocol.peer_max_packet
        self._broker.attach(session, self)
        for number in session.flow.restart(self._in_flight(session)):
            self.output.write(encode_ack(protocol.version, m.PUBREL, number))
        session.pump(self._broker.loop.time())

    def _in_flight(self, session: Session) -> int:
        return min(session.flow.maximum, self._broker.limits.mqtt.max_inflight)

    def end_refused(self, code: int) -> None:
        """Answer CONNECT with a refusal."""
        self._broker.counters.refused += 1
        self.protocol.reject(refusal_for(m.CONNACK, code))

    def _handle_auth(self, packet: m.Auth) -> None:
        """Authenticate again (5.0 section 4.12.1), by the method of the CONNECT."""
        connect = self._connect
        if self._opening is not None:
            self._opening.handle_auth(packet)
        elif connect is None or packet.reason_code != m.REAUTHENTICATE:
            self._refuse(UNASKED_AUTH)
        else:
            self._opening = Opening(self._broker, self, connect)
            self._opening.begin_again(packet)

    def end_again(self, code: int) -> None:
        """The client has authenticated again, or failed to."""
        opening, self._opening = self._opening, None
        if code == m.SUCCESS:
            assert opening is not None
            self.output.write(encode_auth(5, m.SUCCESS, opening.success(), self.protocol.role))
        else:
            if opening is not None:
                opening.cancel()
            known = code in m.REASON_CODES_OF[m.DISCONNECT, self.protocol.role]
            self.protocol.disconnect(code if known else m.NOT_AUTHORIZED)

    # -- received messages -------------------------------------------------------------------------------------------

    def _handle_publish(self, packet: m.Publish) -> None:
        broker, session = self._broker, self.session
        if session is None:
            return
        broker.counters.received += 1
        properties = packet.raw_properties
        expires_at = 0.0
        if properties:
            if (not packet.topic or b"#" in properties) and not self.protocol.resolve_alias(packet):
                return
            properties = packet.raw_properties
            if b"\x02" in properties:
                interval = packet.properties().get(_EXPIRY)
                if isinstance(interval, int):
                    expires_at = broker.loop.time() + interval
        if packet.qos == 2:
            unreleased = session.unreleased
            if packet.packet_id in unreleased:
                self.output.write(encode_ack(self.version, m.PUBREC, packet.packet_id))
                return
            # A client with 3.1.1 cannot be told the limit: it has the packet identifiers for one.
            if len(unreleased) >= broker.limits.mqtt.receive_maximum and self.version == 5:
                self._refuse(TOO_MANY_RECEIVED)
                return
        if self._rate:
            self._count()
        message = Message(
            packet.topic, packet.payload, packet.qos, packet.retain, properties, expires_at, session.client_id
        )
        if packet.topic[0] == "$":  # the broker's own
            self._finish_publish(packet, message, m.NOT_AUTHORIZED)
        elif broker.hooks.publish is None:
            self._finish_publish(packet, message, m.SUCCESS)
        else:
            self._ask_publish(packet, message)

    def _ask_publish(self, packet: m.Publish, message: Message) -> None:
        hook, client = self._broker.hooks.publish, self.client
        assert hook is not None and client is not None

        self.ask(
            lambda: hook(client, message),
            lambda verdict: self._finish_publish(packet, message, reason_code(verdict)),
        )

    def _finish_publish(self, packet: m.Publish, message: Message, code: int) -> None:
        broker, session = self._broker, self.session
        if session is None:
            return
        if code:
            broker.counters.unauthorized += 1
        elif not broker.publish(message, session):
            code = m.NO_MATCHING_SUBSCRIBERS
        qos = packet.qos
        if not qos:
            return
        number = packet.packet_id
        if qos == 1:
            if self.version == 4 or not code:
                answer = b"\x40\x02" + number.to_bytes(2, "big")
            else:
                answer = encode_ack(5, _PUBACK, number, refusal_for(_PUBACK, code))
        else:
            if code < m.UNSPECIFIED_ERROR or self.version == 4:
                session.unreleased[number] = None
                if broker.store is not None:
                    broker.store.message_received(session, number)
            if self.version == 4 or not code:
                answer = b"\x50\x02" + number.to_bytes(2, "big")
            else:
                answer = encode_ack(5, m.PUBREC, number, refusal_for(m.PUBREC, code))
        if broker.store is None:
            self.output.write(answer)
        else:
            broker.store.when_kept(lambda: self._write(answer))

    def _write(self, packet: bytes) -> None:
        if self.session is not None:
            self.output.write(packet)

    def _count(self) -> None:
        """Stop reading for a while when messages come faster than they may."""
        now = self._broker.loop.time()
        self._next_turn = max(self._next_turn, now - 1.0) + 1 / self._rate
        wait = self._next_turn - now
        if wait > 0 and self._status == _GOES_ON:
            self._status = _IS_BUSY
            self.protocol.pause_reading(Pause.BUSY)
            self._broker.loop.call_later(wait, self._go_on)

    def _go_on(self) -> None:
        """What was waited for has come: a hook's answer, the time for the next message; or both."""
        if self._status != _IS_BUSY or self._is_asking:
            return
        wait = self._next_turn - self._broker.loop.time()
        if wait > 0 and self._rate:
            self._broker.loop.call_later(wait, self._go_on)
        else:
            self._status = _GOES_ON
            self.protocol.go_on()

    def _handle_pubrel(self, packet: m.Ack) -> None:
        session = self.session
        if session is None:
            return
        number = packet.packet_id
        code = m.SUCCESS
        if number in session.unreleased:
            del session.unreleased[number]
            if session.store is not None:
                session.store.message_released(session, number)
        elif self.version == 5:
            code = m.PACKET_IDENTIFIER_NOT_FOUND
        self.output.write(encode_ack(self.version, m.PUBCOMP, number, code))

    # -- messages to the client --------------------------------------------------------------------------------------

    def send_plain(self, message: Message, retain: bool, identifiers: tuple[int, ...]) -> None:
        output = self.output
        if output.is_paused and output.unsent > _MAX_PLAIN:
            self._drop()
            return
        if self.is_plain and not identifiers and not message.expires_at:
            head, content = message.parts(self.version, 0, retain)
            if len(content) < _SPLIT:
                output.write(head + content)
            else:
                output.write_pair(head, content)
        else:
            self._write_own(message, 0, retain, 0, identifiers, dup=False)
        if output.size > _LARGE:
            output.flush()

    def _drop(self) -> None:
        session = self.session
        if session is not None:
            session.dropped += 1
        broker = self._broker
        broker.counters.dropped += 1
        if broker.limits.buffers.slow_client == "close" and self._status != _IS_OVER:
            self._status = _IS_OVER
            error = LimitExceeded(
                "the client does not take its messages", limit="slow_client='close'", actual=_MAX_PLAIN
            )
            broker.loop.call_soon(self.protocol.give_up, error)  # not while a message is being given to all

    def send(self, number: int, delivery: Delivery, dup: bool) -> None:
        message, qos, retain, identifiers = delivery
        if self.is_plain and not identifiers and not dup and not message.expires_at:
            head, content = message.parts(self.version, qos, retain)
            if len(content) < _SPLIT:
                self.output.write(head + number.to_bytes(2, "big") + content)
            else:
                self.output.write_pair(head + number.to_bytes(2, "big"), content)
        else:
            self._write_own(message, qos, retain, number, identifiers, dup=dup)
        if self.output.size > _LARGE:
            self.output.flush()

    def _write_own(
        self, message: Message, qos: int, retain: bool, number: int, identifiers: tuple[int, ...], *, dup: bool
    ) -> None:
        """Send a packet that only this client gets."""
        protocol = self.protocol
        encode = functools.partial(
            message.encode,
            self.version,
            qos,
            retain,
            number,
            dup=dup,
            now=self._broker.loop.time(),
            identifiers=identifiers,
        )
        limit = protocol.peer_max_packet
        if self.alias_maximum and len(message.topic) >= _MIN_ALIASED:
            topic, alias = protocol.alias_for(message.topic, self.alias_maximum)
            packet = encode(topic=topic, alias=alias)
            if topic and alias and 0 < limit < len(packet):  # it may go without what a new alias costs
                protocol.forget_alias(topic)
                packet = encode()
        else:
            packet = encode()
        if 0 < limit < len(packet):  # as if it had been delivered [MQTT-3.1.2-25]
            self._skip(number)
        else:
            self.output.write(packet)

    def _skip(self, number: int) -> None:
        self._broker.counters.dropped += 1
        session = self.session
        if session is not None:
            session.dropped += 1
            if number:
                session.flow.acknowledge(number)
                if session.store is not None:
                    session.store.delivery_done(session, number)

    def _handle_puback(self, packet: m.Ack) -> None:
        session = self.session
        if session is None:
            return
        flow = session.flow
        number = packet.packet_id
        if flow.published.pop(number, None) is not None and session.store is not None:
            session.store.delivery_done(session, number)
        if flow.waiting or flow.repeats:
            session.pump(self._broker.loop.time())
        elif self._backlog is not None:
            self._send_backlog()

    def _handle_pubrec(self, packet: m.Ack) -> None:
        session = self.session
        if session is None:
            return
        number = packet.packet_id
        if packet.reason_code >= m.UNSPECIFIED_ERROR:
            self._handle_puback(packet)
            return
        if session.flow.release(number):
            if session.store is not None:
                session.store.delivery_released(session, number)
            self.output.write(b"\x62\x02" + number.to_bytes(2, "big"))
        else:
            code = m.PACKET_IDENTIFIER_NOT_FOUND if self.version == 5 else m.SUCCESS
            self.output.write(encode_ack(self.version, m.PUBREL, number, code))

    def _handle_pubcomp(self, packet: m.Ack) -> None:
        session = self.session
        if session is None:
            return
        if session.flow.complete(packet.packet_id) is not None and session.store is not None:
            session.store.delivery_done(session, packet.packet_id)
        if session.flow.waiting or session.flow.repeats:
            session.pump(self._broker.loop.time())
        elif self._backlog is not None:
            self._send_backlog()

    # -- subscriptions -----------------------------------------------------------------------------------------------

    def _handle_subscribe(self, packet: m.Subscribe) -> None:
        hook = self._broker.hooks.subscribe
        if hook is None:
            self._finish_subscribe(packet, [m.SUCCESS] * len(packet.filters))
            return
        codes: list[int] = []
        client = self.client
        assert client is not None
        try:
            for place, (topic_filter, options) in enumerate(packet.filters):
                answer = hook(client, topic_filter, options & m.OPTION_QOS)
                if inspect.isawaitable(answer):
                    self.wait_for(
                        ask_rest(hook, client, packet, codes, answer, place),
                        lambda codes: self._finish_subscribe(packet, codes),
                    )
                    return
                codes.append(reason_code(answer))
        except HOOK_ERRORS as exc:
            self.fail(exc)
            return
        self._finish_subscribe(packet, codes)

    def _finish_subscribe(self, packet: m.Subscribe, verdicts: Sequence[int]) -> None:
        session = self.session
        if session is None:
            return
        codes, retained = subscribe(self._broker, session, packet, verdicts, self.version)
        self.output.write(encode_suback(self.version, packet.packet_id, codes))
        if retained:
            if self._backlog is None:
                self._backlog = deque()
            self._backlog.extend(retained)
            self._send_backlog()

    def _send_backlog(self) -> None:
        """Send retained messages as the client takes them; those that have been replaced meanwhile it has got.

        They do not go into the session's queue, which may not have room for all.
        """
        backlog, session, broker = self._backlog, self.session, self._broker
        now = broker.loop.time()
        while backlog and session is not None and not self.output.is_paused:
            message, qos, identifiers = backlog[0]
            if qos and not session.flow.is_free:
                return
            backlog.popleft()
            if broker.retained.get(message.topic, now) is not message:
                continue
            if qos:
                session.deliver((message, qos, True, identifiers), broker.limits.mqtt)
            else:
                self.send_plain(message, True, identifiers)
        if not backlog:
            self._backlog = None

    def _keep_backlog(self, session: Session) -> None:
        """The connection ends: retained messages that have not been sent are the session's, as far as it has room."""
        backlog, self._backlog = self._backlog, None
        if backlog and session.expiry > 0:
            for message, qos, identifiers in backlog:
                if qos:
                    session.enqueue((message, qos, True, identifiers), self._broker.limits.mqtt)

    def _handle_unsubscribe(self, packet: m.Unsubscribe) -> None:
        session = self.session
        if session is None:
            return
        codes = bytearray()
        for topic_filter in packet.filters:
            was_there = self._broker.routes.remove(session, topic_filter)
            codes.append(m.SUCCESS if was_there else m.NO_SUBSCRIPTION_EXISTED)
        if session.store is not None:
            self._broker.store_changed(session)
        answer = encode_unsuback(self.version, packet.packet_id, bytes(codes) if self.version == 5 else b"")
        self.output.write(answer)

    # -- the rest ----------------------------------------------------------------------------------------------------

    def _handle_pingreq(self, packet: m.Packet) -> None:
        self.output.write(PINGRESP_BYTES)

    def _handle_disconnect(self, packet: m.Disconnect) -> None:
        session = self.session
        self._status = _IS_OVER
        if session is not None:
            expiry = packet.properties.get(_SESSION_EXPIRY)
            if isinstance(expiry, int):
                session.expiry = self._broker.granted_expiry(expiry)
                self._broker.store_changed(session)
            self._wants_will = packet.reason_code != m.SUCCESS
            self._leave()
        self.protocol.finish()


_HANDLERS: dict[int, Callable[..., None]] = {
    m.CONNECT: Link._handle_connect,
    m.PUBACK: Link._handle_puback,
    m.PUBREC: Link._handle_pubrec,
    m.PUBREL: Link._handle_pubrel,
    m.PUBCOMP: Link._handle_pubcomp,
    m.SUBSCRIBE: Link._handle_subscribe,
    m.UNSUBSCRIBE: Link._handle_unsubscribe,
    m.PINGREQ: Link._handle_pingreq,
    m.DISCONNECT: Link._handle_disconnect,
    m.AUTH: Link._handle_auth,
}
