"""MQTT over a connection's life (MQTT 3.1.1 and 5.0): packets in runs, keep-alive, limits, refusals, orderly ends.

What the packets of a connection mean is its user's: raw events (:mod:`.mqtt_events`), a client, a broker. Both roles
are here, and both versions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from asyncmg.codecs import mqtt as m
from asyncmg.codecs.choice import mqtt_codec
from asyncmg.codecs.http import Role
from asyncmg.codecs.mqtt_encode import PINGREQ_BYTES, encode_connack, encode_disconnect, encode_publish
from asyncmg.codecs.mqtt_properties import (
    NO_PROPERTIES,
    Fault,
    Properties,
    Property,
    read_variable,
    refuse,
    write_properties,
)
from asyncmg.dispatch import EventSink
from asyncmg.errors import ConnectionClosed, DeadlineExceeded, LocalProtocolError, ProtocolError
from asyncmg.events import MG_EV_ERROR
from asyncmg.transports.native_sockets import NativeTransport

from .base import BaseProtocol, Pause, Phase
from .mqtt_states import MQTT, MqttState

# Members looked up once: through their class that takes Python 3.11 75 ns each.
_PHASE_OPEN, _PHASE_LINGERING, _PHASE_CLOSED = Phase.OPEN, Phase.LINGERING, Phase.CLOSED
_NEW, _OPENING, _OPEN, _CLOSED = MqttState
_SERVER = Role.SERVER
_BUSY = Pause.BUSY
_ALIAS = Property.TOPIC_ALIAS

_MAX_RUN: Final = 512  # packets handled per loop turn, then it is the others' turn
_GRACE: Final = 1.5  # of the keep-alive interval: then the client is gone [MQTT-3.1.2-22]
_MAX_UNSENT: Final = 1 << 20  # bytes of output that a client has not taken: above it its packets are not read

UNKNOWN_ALIAS: Final = Fault("topic alias that has no topic", m.PROTOCOL_ERROR, "", "3.3.2.3.4")
ALIAS_OVER_MAXIMUM: Final = Fault("topic alias over the maximum", m.TOPIC_ALIAS_INVALID, "", "3.3.2-9")

#: Return codes of a CONNACK of 3.1.1 (section 3.2.2.3) for the reason codes of 5.0; of others: 3, server unavailable.
RETURN_CODES: Final = {
    m.SUCCESS: 0,
    m.UNSUPPORTED_VERSION: 1,
    m.CLIENT_IDENTIFIER_INVALID: 2,
    m.BAD_USER_OR_PASSWORD: 4,
    m.NOT_AUTHORIZED: 5,
    m.BANNED: 5,
    m.BAD_AUTHENTICATION_METHOD: 5,
}


def return_code(version: int, reason_code: int) -> int:
    """Return what a CONNACK says for a reason code of 5.0."""
    return reason_code if version == 5 else RETURN_CODES.get(reason_code, 3)


class MqttUser(Protocol):
    """What gives the packets of a connection their meaning."""

    def handle_ready(self) -> None:
        """The connection can carry data: a client sends CONNECT."""

    def handle_packets(self, packets: Sequence[m.Packet]) -> int:
        """Act on packets; return how many: fewer than there are when it is busy; ``go_on()`` tells that it is not."""

    def handle_writable(self) -> None:
        """The peer takes our output again."""

    def handle_end(self) -> None:
        """The connection begins to end, whoever wants it: nothing more is to be sent. It may be told again."""

    def handle_lost(self, error: Exception | None) -> None:
        """The connection is gone."""

    def handle_shutdown(self) -> None:
        """A graceful stop begins."""


class MqttProtocol(BaseProtocol):
    """One MQTT connection, in either role.

    Args:
        user: see :class:`MqttUser`; the attribute is set later when it needs the protocol object itself.
        version: of a client: 4 (3.1.1) or 5.
        codec: makes the object that reads packets; default: the native codec where there is one.
        sink, role, limits, loop, ...: see :class:`BaseProtocol`.

    Attributes:
        version: of a server 0 until CONNECT has come.
        state: see :class:`MqttState`.
        peer_max_packet: bytes; what is larger must not be sent (5.0 section 3.1.2.11.4); 0: anything.
    """

    __slots__ = (
        "_aliases",
        "_codec",
        "_heard_at",
        "_ping_since",
        "_unread",
        "_written",
        "asked_keep_alive",
        "keep_alive",
        "peer_max_packet",
        "sent_aliases",
        "state",
        "user",
        "version",
    )

    alpn = ("mqtt",)

    def __init__(
        self,
        sink: EventSink,
        *,
        user: MqttUser | None = None,
        version: int = 0,
        codec: m.MqttCodecFactory | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(sink, **kwargs)
        self._codec = (codec or mqtt_codec())(self.role, self.limits.mqtt, version)
        self.user: MqttUser = user if user is not None else _NOBODY
        self.version = version
        self.state = _NEW
        self.keep_alive = 0  # seconds
        self.asked_keep_alive = 0  # of the peer's CONNECT
        self.peer_max_packet = 0
        self._heard_at = 0.0
        self._ping_since = 0.0  # a client's ping has not been answered by anything
        self._written = 0  # bytes, at the last look
        self._unread: tuple[m.Packet, ...] = ()  # received, and left for later
        self._aliases: dict[int, str] | None = None  # of topics the peer has named
        self.sent_aliases: dict[str, int] | None = None  # that we have told the peer

    # -- receiving ---------------------------------------------------------------------------------------------------

    def handle_ready(self) -> None:
        now = self._heard_at = self.loop.time()
        self.deadlines.set("connect", now + self.limits.mqtt.connect_timeout, self._handle_late)
        self.user.handle_ready()

    def _handle_late(self) -> None:
        limit = self.limits.mqtt.connect_timeout
        if self.state is not _NEW and self.role is _SERVER:
            self.give_up(DeadlineExceeded("CONNECT is not answered", limit="authentication_timeout"))
            return
        what = "CONNECT" if self.state is _NEW else "CONNACK"
        self.give_up(DeadlineExceeded(f"no {what} in {limit} s", limit="connect_timeout"))

    @property
    def is_open(self) -> bool:
        """CONNACK has told success, and the connection has not begun to end."""
        return self.state is _OPEN and self.phase is _PHASE_OPEN

    @property
    def is_opening(self) -> bool:
        return self.role is not _SERVER and self.state in (_NEW, _OPENING)

    @property
    def lingers(self) -> bool:
        return self.role is _SERVER  # what the peer has sent behind must not reset our last packet away

    def receive_data(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        if self.state is _CLOSED:
            return
        self._receive(self._codec.receive_data(data), len(data))

    def packets_received(self, records: Any, arena: Any, size: int) -> None:
        """Like ``data_received``, of a transport that reads packets (:meth:`NativeTransport.begin_packets`)."""
        if self.phase is not _PHASE_OPEN:
            if self.phase is _PHASE_LINGERING:
                self._extend_linger()
            return
        self._heard_at = self.loop.time()
        if self.state is _CLOSED:
            return
        self.output.in_turn = True
        try:
            self._receive(self._codec.take(records, arena), size)
        finally:
            self.output.end_turn()

    def _receive(self, packets: Sequence[m.Packet], size: int) -> None:
        if self._unread:  # the transport has not stopped at once
            self._unread += tuple(packets)
        else:
            self._handle_packets(packets)
        output = self.output
        if output.is_paused and self.role is _SERVER and output.unsent > _MAX_UNSENT:
            self.pause_reading(Pause.CONTENT)  # whoever asks and asks must take the answers
        if self.phase is not _PHASE_CLOSED:
            self.report_read(size)

    def _handle_packets(self, packets: Sequence[m.Packet]) -> None:
        """Give packets to the user; more than enough for one turn are left for the next one."""
        if self.state is _NEW and packets and self.role is _SERVER:
            self._take_connect(packets[0])
        if len(packets) > _MAX_RUN:
            rest = tuple(packets[_MAX_RUN:])
            packets = packets[:_MAX_RUN]
        else:
            rest = ()
        if packets:
            handled = self.user.handle_packets(packets)
            if handled < len(packets):
                self._unread = (*packets[handled:], *rest)
                self.pause_reading(_BUSY)
                return
        if self.state is _CLOSED:
            return
        if rest:
            self._unread = rest
            self.pause_reading(_BUSY)
            self.loop.call_soon(self.go_on)
        elif self._codec.error is not None:
            self.refuse(self._codec.error)

    def _take_connect(self, connect: m.Packet) -> None:
        """The codec has seen to it that a server's first packet is a CONNECT."""
        assert isinstance(connect, m.Connect)
        self.state = MQTT[self.state, "connect"]
        self.version = connect.version
        self.asked_keep_alive = connect.keep_alive
        limits = self.limits.mqtt
        wait = limits.connect_timeout + limits.authentication_timeout  # a hook that is too slow is told so before that
        self.deadlines.set("connect", self.loop.time() + wait, self._handle_late)
        if connect.version == 5:
            limit = connect.properties.get(Property.MAXIMUM_PACKET_SIZE, 0)
            assert isinstance(limit, int)
            self.peer_max_packet = limit

    def go_on(self) -> None:
        """The user is not busy any more, or it is our turn again."""
        packets, self._unread = self._unread, ()
        if self.phase is not _PHASE_OPEN or self.state is _CLOSED:
            return
        self.output.in_turn = True
        try:
            self._handle_packets(packets)
        finally:
            self.output.end_turn()
        if not self._unread:
            if self.peer_has_closed and self.phase is _PHASE_OPEN:
                self.handle_eof()
            else:
                self._heard_at = self.loop.time()  # what came meanwhile, if only a ping, has not been read yet
                self.resume_reading(_BUSY)

    def resolve_alias(self, packet: m.Publish) -> bool:
        """Put a topic in the place of a topic alias, and remember new ones (5.0 section 3.3.2.3.4); False: refused.

        The alias is taken out of the packet's properties: it means nothing to others.
        """
        raw = packet.raw_properties
        if len(raw) == 3 and raw[0] == _ALIAS:
            alias, packet.raw_properties = raw[1] << 8 | raw[2], b""
        else:
            properties = dict(packet.properties())
            value = properties.pop(_ALIAS, 0)
            assert isinstance(value, int)
            if not value:
                return True
            alias = value
            packet.raw_properties = write_properties(properties, m.PUBLISH)
        if alias > self.limits.mqtt.max_topic_aliases:
            self.refuse(refuse(ALIAS_OVER_MAXIMUM, 5))
            return False
        aliases = self._aliases
        if aliases is None:
            aliases = self._aliases = {}
        if packet.topic:
            aliases[alias] = packet.topic
            return True
        topic = aliases.get(alias)
        if topic is None:
            self.refuse(refuse(UNKNOWN_ALIAS, 5))
            return False
        packet.topic = topic
        return True

    # -- opening -----------------------------------------------------------------------------------------------------

    def connect(self, packet: bytes, keep_alive: int) -> None:
        """Send a client's CONNECT; its CONNACK is awaited for ``connect_timeout``.

        Args:
            packet: encoded.
            keep_alive: seconds, of the packet.
        """
        self.state = MQTT[self.state, "connect"]
        self.keep_alive = keep_alive
        self.deadlines.set("connect", self.loop.time() + self.limits.mqtt.connect_timeout, self._handle_late)
        self.send(packet)

    def accept(
        self, session_present: bool = False, properties: Properties = NO_PROPERTIES, keep_alive: int = 0
    ) -> None:
        """Send a CONNACK with success.

        Args:
            keep_alive: seconds after one and a half times of which a silent client is gone; 0: never.
        """
        packet = encode_connack(self.version, session_present, m.SUCCESS, properties)
        self.note_accepted(keep_alive)
        self.output.write(packet)

    def note_accepted(self, keep_alive: int) -> None:
        """CONNACK with success has been sent, or has come: packets flow, and keep-alive begins."""
        self.state = MQTT[self.state, "accept"]
        self.deadlines.clear("connect")
        if isinstance(self.transport, NativeTransport):
            self.transport.begin_packets(self._codec.export)
        if self.role is not _SERVER:
            self.sink.switch_protocol(self)  # whoever waits until it is connected goes on
        elif self._unread:
            self.loop.call_soon(self.go_on)
        self.keep_alive = keep_alive
        if keep_alive:
            interval = keep_alive * _GRACE if self.role is _SERVER else keep_alive / 2
            self.deadlines.set("keep alive", self.loop.time() + interval, self._check_keep_alive)

    def reject(self, reason_code: int, properties: Properties = NO_PROPERTIES) -> None:
        """Answer a CONNECT with a CONNACK that refuses, and end the connection [MQTT-3.2.2-7].

        Args:
            reason_code: of 5.0; for 3.1.1 the return code that comes nearest.
        """
        if self.state is not _OPENING:
            return
        version = self.version
        code = return_code(version, reason_code)
        self.output.write(encode_connack(version, False, code, properties if version == 5 else NO_PROPERTIES))
        self._end("refuse")

    # -- keep-alive --------------------------------------------------------------------------------------------------

    def _check_keep_alive(self) -> None:
        if self.state is not _OPEN or self.phase is not _PHASE_OPEN:
            return
        now = self.loop.time()
        if self.role is _SERVER:
            # Whoever we do not read from cannot prove that he is there.
            heard_at = now if self._paused else self._heard_at
            due = heard_at + self.keep_alive * _GRACE
            if due <= now:
                message = f"nothing received in {self.keep_alive * _GRACE} s"
                self.refuse(
                    DeadlineExceeded(message, limit="keep alive", wire_code=m.KEEP_ALIVE_TIMEOUT),
                    tells=self.version == 5,
                )
                return
        else:
            interval = self.keep_alive / 2
            if self._heard_at + interval <= now or self._written == self.output.written:
                self.ping()
            self._written = self.output.written
            due = now + interval
        self.deadlines.set("keep alive", due, self._check_keep_alive)

    def ping(self) -> None:
        """Send a client's PINGREQ; unless something comes back in ``ping_timeout`` the connection is given up."""
        self.output.write(PINGREQ_BYTES)
        if not self._ping_since:
            self._ping_since = self.loop.time()
            self.deadlines.set("ping", self._ping_since + self.limits.mqtt.ping_timeout, self._check_peer)

    def _check_peer(self) -> None:
        since, self._ping_since = self._ping_since, 0.0
        if self._heard_at < since and not self._paused:
            limit = self.limits.mqtt.ping_timeout
            self.give_up(DeadlineExceeded(f"no answer to a ping in {limit} s", limit="ping_timeout"))

    # -- sending -----------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> bool:
        """Send packets as they are. A CONNACK among them that begins the bytes is seen."""
        if self.state is _OPENING and self.role is _SERVER and data[:1] == b"\x20" and len(data) >= 4:
            size, place = read_variable(data, 1, len(data))
            if size >= 2 and data[place + 1] == m.SUCCESS:
                self.note_accepted(self.asked_keep_alive)
            elif size >= 2:
                self.output.write(data)
                self._end("refuse")
                return True
        return super().send(data)

    def admit(self) -> bool:
        if self.state is _CLOSED:
            raise ConnectionClosed("Connection has been closed")
        return super().admit()

    def alias_for(self, topic: str, maximum: int) -> tuple[str, int]:
        """Return the topic to send, "" when the peer knows its alias, and the alias; 0: it gets none.

        Args:
            maximum: how many aliases the peer takes, and we want to use.
        """
        aliases = self.sent_aliases
        if aliases is None:
            aliases = self.sent_aliases = {}
        alias = aliases.get(topic, 0)
        if alias:
            return "", alias
        if len(aliases) < maximum:
            alias = aliases[topic] = len(aliases) + 1
        return topic, alias

    def forget_alias(self, topic: str) -> None:
        """The packet that was to tell the newest alias is not sent."""
        if self.sent_aliases is not None:
            del self.sent_aliases[topic]

    def check_size(self, packet: bytes) -> bytes:
        """Return a packet that the peer takes.

        Raises:
            LocalProtocolError: it is larger than its maximum packet size [MQTT-3.1.2-24], [MQTT-3.2.2-15].
        """
        if 0 < self.peer_max_packet < len(packet):
            raise LocalProtocolError(f"a packet of {len(packet)} bytes: the peer takes {self.peer_max_packet} at most")
        return packet

    def publish(self, topic: str, payload: bytes, retain: bool, properties: bytes | Properties = b"") -> None:
        """Send a message with QoS 0.

        Raises:
            ConnectionClosed, LocalProtocolError (too large), InvalidPacket.
        """
        packet = encode_publish(self.version, topic, payload, 0, retain, properties=properties)
        if self.peer_max_packet:
            self.check_size(packet)
        output = self.output
        if output.is_paused or output.size >= output.high_water or self.phase is not _PHASE_OPEN:
            self.send(packet)
        else:
            output.write(packet)

    def handle_writable(self) -> None:
        self.resume_reading(Pause.CONTENT)
        self.user.handle_writable()

    # -- the end -----------------------------------------------------------------------------------------------------

    def _end(self, cause: str) -> None:
        """Nothing more is sent behind what is collected; the connection ends when that has left."""
        self._leave(cause)
        self._unread = ()
        self.deadlines.clear("keep alive")
        self.deadlines.clear("ping")
        self.deadlines.clear("connect")
        super().drain()

    def _leave(self, cause: str) -> None:
        self.state = MQTT[self.state, cause]
        self.user.handle_end()

    def refuse(self, error: ProtocolError | DeadlineExceeded, *, tells: bool = True) -> None:
        """The peer broke the protocol or a limit: tell it why, as far as its version can be told, and end.

        MG_EV_ERROR comes when what came before has been handled.
        """
        if self.state is _CLOSED:
            return
        self._unread = ()
        if tells and self.phase is _PHASE_OPEN:
            packet = self._farewell(error.wire_code or m.UNSPECIFIED_ERROR, str(error))
            if packet:
                self.output.write(packet)
        self._leave("close")
        self.deadlines.clear("keep alive")

        def fail() -> None:
            if self.phase is _PHASE_OPEN:
                self.emit(MG_EV_ERROR, error)
                self._end("close")

        self.deadlines.set("refuse", self.loop.time() + self.limits.mqtt.connect_timeout, fail)
        self.sink.when_handled(fail)

    def _farewell(self, code: int, text: str) -> bytes:
        """Return the packet that tells why the connection ends; b"": this peer cannot be told."""
        reason: Properties = {Property.REASON_STRING: text[:256]}
        if self.state is _OPEN:
            if self.version != 5:
                return b""
            if code not in m.REASON_CODES_OF[m.DISCONNECT, self.role]:
                code = m.UNSPECIFIED_ERROR
            packet = encode_disconnect(5, code, reason, self.role)
            if 0 < self.peer_max_packet < len(packet):
                packet = encode_disconnect(5, code, NO_PROPERTIES, self.role)
            return packet
        if self.role is not _SERVER:
            return b""
        version = self._codec.version
        if version == 0:  # a level that nobody knows: all understand this [MQTT-3.1.2-2 of 3.1.1]
            return encode_connack(4, False, 1) if code == m.UNSUPPORTED_VERSION else b""
        if version == 4:
            return encode_connack(4, False, return_code(4, code)) if code == m.CLIENT_IDENTIFIER_INVALID else b""
        code = code if code in m.REASON_CODES[m.CONNACK] else m.UNSPECIFIED_ERROR
        packet = encode_connack(5, False, code, reason)
        return encode_connack(5, False, code) if 0 < self.peer_max_packet < len(packet) else packet

    def disconnect(self, reason_code: int = m.SUCCESS, properties: Properties = NO_PROPERTIES) -> None:
        """Send DISCONNECT, as far as version and role have one, and end the connection behind it.

        Raises:
            InvalidPacket: not a reason code, or properties, of a DISCONNECT of this role.
        """
        if self.phase is not _PHASE_OPEN or self.state is _CLOSED:
            self.drain()
            return
        if self.state is _OPEN and (self.version == 5 or self.role is not _SERVER):
            if self.version == 4:
                reason_code, properties = m.SUCCESS, NO_PROPERTIES
            self.output.write(encode_disconnect(self.version, reason_code, properties, self.role))
        self._end("close")

    def finish(self) -> None:
        """DISCONNECT has come: nothing more is sent, and the connection ends [MQTT-3.14.4-1]."""
        if self.phase is _PHASE_OPEN:
            self._end("close")

    def give_up(self, error: Exception) -> None:
        """The peer does not answer, or the session goes on elsewhere: end without a word."""
        if self.phase is not _PHASE_CLOSED:
            self._leave("close")
            self.fail(error)

    def shutdown(self) -> None:
        self.user.handle_shutdown()

    def drain(self) -> None:
        """Flush, then close; a client says DISCONNECT first."""
        if self.state is _OPEN and self.role is not _SERVER and self.phase is _PHASE_OPEN:
            self.disconnect()
        else:
            if self.phase is _PHASE_OPEN:
                self._leave("close")
            super().drain()

    def handle_eof(self) -> None:
        if not self._unread:  # otherwise go_on() sees to it
            super().drain()

    def handle_lost(self, error: Exception | None) -> Exception | None:
        packets, self._unread = self._unread, ()
        if packets and self.state is not _CLOSED:  # they have arrived before the end
            self.user.handle_packets(packets)
        self.state = MQTT[self.state, "close"]
        self.user.handle_lost(error)
        self.user = _NOBODY
        return error


class _Nobody:
    """The user of a connection that has none yet, or none any more."""

    def handle_ready(self) -> None:
        """There is nobody."""

    def handle_packets(self, packets: Sequence[m.Packet]) -> int:
        return len(packets)

    def handle_writable(self) -> None:
        """There is nobody."""

    def handle_end(self) -> None:
        """There is nobody."""

    def handle_lost(self, error: Exception | None) -> None:
        """There is nobody."""

    def handle_shutdown(self) -> None:
        """There is nobody."""


_NOBODY: Final = _Nobody()
