"""Messages of QoS 1 and 2 on their way, without I/O (MQTT 5.0 sections 4.3 to 4.6 and 4.9; 3.1.1 sections 4.3 to 4.6).

Both roles send and receive messages in the same way; what is here belongs to the session, so it outlives connections.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Generic, TypeVar

D = TypeVar("D")

MAX_PACKET_ID = 65535

# What most flows have waiting. A deque of their own would be 600 bytes for each connection; this one takes nothing in.
_NOTHING: deque[Any] = deque(maxlen=0)


class OutgoingFlow(Generic[D]):
    """Messages that a peer has not acknowledged, and those that wait for their turn.

    A message, whatever object it is, takes these steps::

        waiting -> published -> (QoS 1) PUBACK
                             -> (QoS 2) PUBREC -> released -> PUBCOMP

    ``begin()``, or ``next()`` for what waits, gives the packet identifier to send it under. When a connection is lost
    ``restart()`` lines up what is unacknowledged: ``next()`` returns that first, in its order [MQTT-4.6.0-1].

    Attributes:
        maximum: how many may be unacknowledged in this connection: Receive Maximum (5.0 section 4.9).
        published: by packet identifier, in the order they were sent: PUBACK or PUBREC is awaited.
        released: PUBCOMP is awaited, in the order of the PUBRECs.
        repeats: published in an earlier connection, and not sent again in this one yet.
        waiting: neither sent nor numbered yet; :meth:`wait` adds to it.
        reserved: packet identifiers in use by SUBSCRIBE and UNSUBSCRIBE. (An empty dict is a third of an empty set.)
    """

    __slots__ = ("_last_id", "maximum", "published", "released", "repeats", "reserved", "waiting")

    def __init__(self, maximum: int = MAX_PACKET_ID) -> None:
        self.maximum = maximum
        self.published: dict[int, D] = {}
        self.released: dict[int, D] = {}
        self.waiting: deque[D] = _NOTHING
        self.reserved: dict[int, None] = {}
        self.repeats: deque[int] = _NOTHING
        self._last_id = 0

    def __len__(self) -> int:
        """How many messages are not done with."""
        return len(self.published) + len(self.released) + len(self.waiting)

    @property
    def has_room(self) -> bool:
        """One more message may be sent now."""
        return len(self.published) + len(self.released) - len(self.repeats) < self.maximum

    @property
    def is_free(self) -> bool:
        """A new message may be sent now: nothing is before it."""
        return not self.waiting and not self.repeats and len(self.published) + len(self.released) < self.maximum

    def take_id(self) -> int:
        """Return a packet identifier that is not in use [MQTT-2.2.1-3]."""
        number = self._last_id
        published, released, reserved = self.published, self.released, self.reserved
        while True:
            number = number + 1 if number < MAX_PACKET_ID else 1
            if number not in published and number not in released and number not in reserved:
                self._last_id = number
                return number

    def begin(self, delivery: D) -> int:
        """Number a message that is sent now."""
        published, released, reserved = self.published, self.released, self.reserved
        number = self._last_id
        while True:  # take_id(), without a call for each message
            number = number + 1 if number < MAX_PACKET_ID else 1
            if number not in published and number not in released and number not in reserved:
                break
        self._last_id = number
        published[number] = delivery
        return number

    def wait(self, delivery: D) -> None:
        """Line a message up behind those that wait."""
        if self.waiting is _NOTHING:
            self.waiting = deque()
        self.waiting.append(delivery)

    def next(self) -> tuple[int, D, bool] | None:
        """Return what to send now: packet identifier, message, and whether it is sent again; None: nothing may be."""
        if not self.has_room:
            return None
        while self.repeats:
            number = self.repeats.popleft()
            delivery = self.published.get(number)
            if delivery is not None:
                return number, delivery, True
        if not self.waiting or len(self.published) + len(self.released) >= self.maximum:
            return None
        delivery = self.waiting.popleft()
        return self.begin(delivery), delivery, False

    def acknowledge(self, number: int) -> D | None:
        """A PUBACK, or a PUBREC that refuses, has come: it is done; None: no such message is under way."""
        return self.published.pop(number, None)

    def release(self, number: int) -> bool:
        """A PUBREC has come: PUBREL is to be sent; False: no such message is under way."""
        delivery = self.published.pop(number, None)
        if delivery is None:
            return number in self.released
        self.released[number] = delivery
        return True

    def complete(self, number: int) -> D | None:
        """A PUBCOMP has come: it is done; None: no such message is under way."""
        return self.released.pop(number, None)

    def restart(self, maximum: int) -> tuple[int, ...]:
        """The session goes on in a new connection: line up what is unacknowledged.

        Returns:
            the packet identifiers to send PUBREL for, now and in this order.
        """
        self.maximum = maximum
        self.repeats = deque(self.published) if self.published else _NOTHING
        return tuple(self.released)

    def forget(self) -> list[D]:
        """The peer has no session any more: what was under way waits again, first of all; return what was released.

        A message whose PUBREC has come has arrived: it must not be sent again.
        """
        done = list(self.released.values())
        if self.published:
            self.waiting = deque((*self.published.values(), *self.waiting))
        self.published.clear()
        self.released.clear()
        self.repeats = _NOTHING
        return done

    def clear(self) -> None:
        self.published.clear()
        self.released.clear()
        self.waiting = self.repeats = _NOTHING
