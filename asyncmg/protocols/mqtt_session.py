"""What an MQTT client keeps over its connections: messages on their way, both ways (MQTT 5.0 section 4.1, 4.3 to 4.6).

A session has at most one connection at a time, its link. What must be on disk is written there before the packets that
depend on it leave: ``write`` collects those of a loop turn, and one transaction goes before them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Final, Protocol

from asyncmg.codecs import mqtt as m
from asyncmg.codecs.mqtt_properties import NO_PROPERTIES, Properties, Property
from asyncmg.errors import MqttRefused, StoreFailed
from asyncmg.limits import MqttLimits
from asyncmg.mqtt_store import Change, MqttStore

from .mqtt_flows import OutgoingFlow

_PUBACK, _PUBREC = b"\x40\x02", b"\x50\x02"
_ADD, _NUMBER, _RELEASE, _DONE, _RESTART, _TAKE, _LET_GO, _NAME = Change

Packets = Callable[[bytes], object]


def refusal(what: str, code: int, properties: Properties = NO_PROPERTIES) -> MqttRefused:
    """Return the error for a reason code of 0x80 or more."""
    reason = properties.get(Property.REASON_STRING, "")
    reference = properties.get(Property.SERVER_REFERENCE, "")
    return MqttRefused(what, code, str(reason), str(reference))


class Delivery:
    """A message on its way to the broker: what ``publish_soon`` returns.

    ``await delivery`` waits until the handshake of its QoS is done and returns the reason code: 0, or 0x10 when nobody
    has subscribed. Nobody has to wait; a connection that is lost meanwhile does not matter. Cancelling is safe: the
    message goes on.

    Raises (when awaited):
        MqttRefused: the broker has refused the message.
        LocalProtocolError: after a reconnection the broker takes no such message any more.
        ConnectionClosed, MqttRefused, StoreFailed: the client has ended before.

    Attributes:
        reason_code: -1 until it is done.
        error: why it will never be done, or has been refused.
        packet: encoded, with some packet identifier; b"" when it is done.
    """

    __slots__ = ("_waiters", "accepted_with", "error", "packet", "reason_code", "serial")

    def __init__(self, packet: bytes) -> None:
        self.packet = packet
        self.reason_code = -1
        self.error: Exception | None = None
        self.serial = 0  # in the store
        self.accepted_with = 0  # reason code of a PUBREC
        self._waiters: tuple[asyncio.Future[None], ...] = ()

    def __repr__(self) -> str:
        state = self.error or ("under way" if self.reason_code < 0 else f"done: {self.reason_code:#04x}")
        return f"<Delivery {state}>"

    @property
    def is_done(self) -> bool:
        return self.reason_code >= 0 or self.error is not None

    def __await__(self) -> Generator[Any, Any, int]:
        if self.reason_code < 0 and self.error is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters = (*self._waiters, waiter)
            try:
                yield from waiter
            finally:
                if self._waiters:
                    self._waiters = tuple(other for other in self._waiters if other is not waiter)
        if self.error is not None:
            raise self.error.with_traceback(None)  # it may be raised for many
        return self.reason_code

    def finish(self, reason_code: int, properties: Properties = NO_PROPERTIES) -> None:
        if reason_code >= m.UNSPECIFIED_ERROR:
            self.error = refusal("the broker has refused a message", reason_code, properties)
        self.reason_code = reason_code
        self.packet = b""
        if self._waiters:
            self._wake()

    def fail(self, error: Exception) -> None:
        self.error = error
        self.packet = b""
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


#: Of messages with QoS 0: they have been handed over.
DELIVERED: Final = Delivery(b"")
DELIVERED.reason_code = 0


class Link(Protocol):
    """The connection that a session has now."""

    def write(self, packet: bytes) -> None:
        """Send a packet, unless the connection has begun to end."""


class ClientSession:
    """Messages of QoS 1 and 2 that are not done with.

    Args:
        loop: for the end of a turn.
        limits: queues.
        store: None: in memory only. It is open already.
        handle_failure: called when the store fails.

    Attributes:
        flow: messages to the broker.
        unacked: received messages of QoS 1 and 2 that wait to be taken, by packet identifier.
        unreleased: packet identifiers of QoS 2 that have been taken and whose PUBREL has not come: a PUBLISH with one
            of them is the same message [MQTT-4.3.3-10].
        received: packet identifiers of this connection that are not done with; only these may be acknowledged in it.
        queued_bytes: of the packets in ``flow.waiting``.
        write: send a packet in this connection; nothing is sent when there is none.
    """

    __slots__ = (
        "_changes",
        "_commit_is_due",
        "_copies",
        "_handle_failure",
        "_held",
        "_last_serial",
        "_limits",
        "_link",
        "_loop",
        "_room_waiters",
        "_store",
        "_taken",
        "flow",
        "queued_bytes",
        "received",
        "unacked",
        "unreleased",
        "write",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: MqttLimits,
        store: MqttStore | None,
        handle_failure: Callable[[Exception], None],
    ) -> None:
        self.flow: OutgoingFlow[Delivery] = OutgoingFlow()
        self.unacked: dict[int, m.Publish] = {}
        self.unreleased: set[int] = set()
        self.received: set[int] = set()
        self.queued_bytes = 0
        self.write: Packets = _send_nothing
        self._taken: set[int] = set()  # of QoS 1, taken without a connection: a repetition gets its PUBACK at once
        self._copies: dict[int, int] = {}  # how many readers have not taken a message; absent: one
        self._link: Link | None = None
        self._loop = loop
        self._limits = limits
        self._store = store
        self._handle_failure = handle_failure
        self._changes: list[tuple[Change, int, Any]] = []
        self._held: list[bytes] = []  # packets that leave behind the next transaction
        self._commit_is_due = False
        self._last_serial = 0
        self._room_waiters: deque[asyncio.Future[None]] = deque()

    # -- the store ---------------------------------------------------------------------------------------------------

    @property
    def is_stored(self) -> bool:
        return self._store is not None

    def load(self, client_id: str, version: int) -> str:
        """Take in what the store has; return the client identifier.

        Raises:
            ValueError, StoreFailed.
        """
        assert self._store is not None
        stored = self._store.open(client_id, version)
        flow = self.flow
        for message in stored.messages:
            delivery = Delivery(message.packet)
            delivery.serial = self._last_serial = message.serial
            if not message.packet_id:
                flow.wait(delivery)
                self.queued_bytes += len(message.packet)
            else:
                (flow.released if message.is_released else flow.published)[message.packet_id] = delivery
        self.unreleased.update(stored.unreleased)
        return stored.client_id

    def note_name(self, client_id: str) -> None:
        """The server has assigned a client identifier."""
        self._note(_NAME, 0, client_id)

    def _note(self, change: Change, number: int, value: Any = 0) -> None:
        if self._store is not None:
            self._changes.append((change, number, value))
            self._commit_soon()

    def _hold(self, packet: bytes) -> None:
        self._held.append(packet)
        self._commit_soon()

    def _commit_soon(self) -> None:
        if not self._commit_is_due:
            self._commit_is_due = True
            self._loop.call_soon(self._commit_later)

    def _commit_later(self) -> None:
        self._commit_is_due = False
        self.commit()

    def commit(self) -> None:
        """Write what has changed, then send what has been held for it."""
        if self._changes and self._store is not None:
            changes, self._changes = self._changes, []
            try:
                self._store.write(changes)
            except Exception as exc:
                self._held.clear()
                error = exc
                if not isinstance(exc, StoreFailed):
                    error = StoreFailed(f"the store of a session failed: {exc}")
                    error.__cause__ = exc
                self._handle_failure(error)
                return
        if self._held:
            held, self._held = self._held, []
            if self._link is not None:
                self._link.write(b"".join(held))

    def close(self) -> None:
        """The client has ended.

        Raises:
            StoreFailed.
        """
        self.commit()
        store, self._store = self._store, None
        if store is not None:
            store.close()

    # -- connections -------------------------------------------------------------------------------------------------

    def begin(self, link: Link, session_present: bool, maximum: int) -> tuple[int, ...]:
        """A connection is open; return the packet identifiers to send PUBREL for.

        Args:
            maximum: the server's receive maximum.
        """
        self._link = link
        self.write = self._hold if self._store is not None else link.write
        if session_present:
            return self.flow.restart(maximum)
        # The server has no session: what waits to be taken has arrived, but there is nobody to be told.
        for delivery in self.flow.forget():
            delivery.finish(m.SUCCESS)
        self.queued_bytes = sum(len(delivery.packet) for delivery in self.flow.waiting)
        for kept in (self.unacked, self.unreleased, self._taken, self._copies):
            kept.clear()
        self._note(_RESTART, 0)
        return self.flow.restart(maximum)

    def end(self, link: Link) -> None:
        """The connection is gone. What was received is acknowledged in the next one, when the server repeats it."""
        if self._link is not link:
            return
        self._link = None
        self.write = _send_nothing
        self._held.clear()
        self.flow.reserved.clear()
        # A message of an earlier connection that has not been repeated in this one may never be: by the time of the
        # next connection its identifier can be another's.
        self._taken.clear()
        for number, packet in tuple(self.unacked.items()):
            if packet.qos == 1 and number not in self.received:
                del self.unacked[number]
                self._copies.pop(number, None)
        self.received.clear()

    # -- messages to the broker --------------------------------------------------------------------------------------

    def is_full(self, size: int) -> bool:
        """Whether one more message, of so many bytes, has to wait outside of the queue."""
        waiting, limits = self.flow.waiting, self._limits
        return bool(waiting) and (
            len(waiting) >= limits.max_queued or self.queued_bytes + size > limits.max_queued_bytes
        )

    def add(self, packet: bytes) -> Delivery:
        """Queue a message."""
        delivery = Delivery(packet)
        self.flow.wait(delivery)
        self.queued_bytes += len(packet)
        if self._store is not None:
            delivery.serial = self._last_serial = self._last_serial + 1
            self._note(_ADD, delivery.serial, packet)
        return delivery

    def withdraw(self, delivery: Delivery) -> bool:
        """Take a message out of the queue; False: it has been sent already."""
        if delivery.is_done or delivery not in self.flow.waiting:
            return False
        self.flow.waiting.remove(delivery)
        self._left_queue(delivery)
        self._note(_DONE, delivery.serial)
        return True

    def _left_queue(self, delivery: Delivery) -> None:
        self.queued_bytes -= len(delivery.packet)
        if self._room_waiters:
            self.pass_room_on()

    def note_numbered(self, delivery: Delivery, number: int) -> None:
        """A message leaves the queue and is sent for the first time."""
        self._left_queue(delivery)
        if self._store is not None:
            self._note(_NUMBER, delivery.serial, number)

    def finish(self, delivery: Delivery, reason_code: int, properties: Properties) -> None:
        delivery.finish(reason_code, properties)
        if self._store is not None:
            self._note(_DONE, delivery.serial)

    def fail(self, delivery: Delivery, error: Exception) -> None:
        """The server takes no such message."""
        delivery.fail(error)
        self._note(_DONE, delivery.serial)

    def release(self, number: int) -> bool:
        """A PUBREC has come; False: for no message of ours."""
        delivery = self.flow.published.get(number)
        if delivery is not None:
            self._note(_RELEASE, delivery.serial)
        return self.flow.release(number)

    def abandon(self, error: Exception) -> None:
        """The client has ended: nothing is sent any more."""
        flow = self.flow
        for delivery in (*flow.published.values(), *flow.released.values(), *flow.waiting):
            delivery.fail(error)
        flow.clear()
        waiters, self._room_waiters = self._room_waiters, deque()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)

    @property
    def has_room(self) -> bool:
        """Nobody waits for room."""
        return not self._room_waiters and not self.is_full(0)

    async def wait_for_room(self, size: int) -> None:
        """Wait until a message of so many bytes has room in the queue; then call pass_room_on(). Cancelling is safe."""
        waiters = self._room_waiters
        while self.is_full(size) or waiters:
            waiter = self._loop.create_future()
            waiters.append(waiter)
            try:
                await waiter
                return  # woken in turn: the place is ours
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self.pass_room_on()  # the place is another's
                raise
            finally:
                if waiter in waiters:
                    waiters.remove(waiter)

    def pass_room_on(self) -> None:
        """Wake the next one who waits for room, if there is any."""
        waiters = self._room_waiters
        while waiters and not self.is_full(0):
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    # -- messages from the broker ------------------------------------------------------------------------------------

    def admit(self, packet: m.Publish) -> bool:
        """Decide whether a message of QoS 1 or 2 is new; what is known already is acknowledged if that is due."""
        number = packet.packet_id
        if packet.qos == 1:
            if packet.dup:
                known = self.unacked.get(number)
                if known is not None and known.qos == 1:
                    self.received.add(number)
                    return False
                if number in self._taken:
                    self._taken.discard(number)
                    self.write(_PUBACK + number.to_bytes(2, "big"))
                    return False
        elif number in self.unreleased:
            self.received.add(number)
            self.write(_PUBREC + number.to_bytes(2, "big"))
            return False
        else:
            known = self.unacked.get(number)
            if known is not None and known.qos == 2:
                self.received.add(number)
                return False
        self.received.add(number)
        self.unacked[number] = packet
        if self._copies:
            self._copies.pop(number, None)
        return True

    def share(self, packet: m.Publish, readers: int) -> None:
        """Several readers get a message: it is acknowledged when all have taken it."""
        if readers != 1 and self.unacked.get(packet.packet_id) is packet:
            self._copies[packet.packet_id] = readers

    def take(self, packet: m.Publish) -> None:
        """A message of QoS 1 or 2 is given to its reader: acknowledge it, in the connection that it came in."""
        number = packet.packet_id
        if self.unacked.get(number) is not packet:  # of a session that is lost, or its identifier is another's by now
            return
        if self._copies:
            left = self._copies.pop(number, 1) - 1
            if left:
                self._copies[number] = left
                return
        del self.unacked[number]
        if packet.qos == 1:
            if number in self.received:
                self.received.discard(number)
                self.write(_PUBACK + number.to_bytes(2, "big"))
            else:
                self._taken.add(number)
            return
        self.unreleased.add(number)
        self._note(_TAKE, number)
        if number in self.received:
            self.write(_PUBREC + number.to_bytes(2, "big"))

    def let_go(self, number: int) -> bool:
        """A PUBREL has come; False: for no message that we know."""
        self.received.discard(number)
        if number not in self.unreleased:
            return False
        self.unreleased.discard(number)
        self._note(_LET_GO, number)
        return True


def _send_nothing(packet: bytes) -> None:
    """There is no connection: what is owed is sent when the server asks for it again."""
