"""Where a broker keeps what outlives it: sessions with their messages, and retained messages.

The broker works on its own objects in memory and tells a store what changes. A durable store writes that down and makes
the objects anew in :meth:`BrokerStore.load`; PUBACK and PUBREC are sent when :meth:`BrokerStore.when_kept` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from .message import Delivery, Message
from .session import Session


class BrokerStore(Protocol):
    """What a broker tells, in the order it happens; nothing of it may wait. Times of messages are loop times."""

    def load(self) -> tuple[Iterable[Session], Iterable[Message]]:
        """Return the sessions, without links, and the retained messages; called once, before anything else."""

    def session_changed(self, session: Session) -> None:
        """A session has begun, or its subscriptions, expiry or owner have changed."""

    def session_ended(self, session: Session) -> None:
        """A session and all its messages are gone."""

    def delivery_queued(self, session: Session, delivery: Delivery) -> None:
        """A message with QoS 1 or 2 waits, behind those that do."""

    def delivery_dropped(self, session: Session) -> None:
        """The first message that waited is dropped."""

    def delivery_sent(self, session: Session, number: int, delivery: Delivery) -> None:
        """A message has got a packet identifier; if it waited, it was the first one that did."""

    def delivery_released(self, session: Session, number: int) -> None:
        """PUBREC has come."""

    def delivery_done(self, session: Session, number: int) -> None:
        """The last acknowledgement has come."""

    def message_received(self, session: Session, packet_id: int) -> None:
        """A message with QoS 2 has come, and has been routed."""

    def message_released(self, session: Session, packet_id: int) -> None:
        """Its PUBREL has come."""

    def retained_changed(self, message: Message) -> None:
        """A retained message has come; one without payload takes its topic's away."""

    def when_kept(self, callback: Callable[[], None]) -> None:
        """Call back when all that has been told before is safe."""


class MemoryStore:
    """Keeps sessions and retained messages from one broker of this process to the next."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._retained: dict[str, Message] = {}

    def load(self) -> tuple[Iterable[Session], Iterable[Message]]:
        return tuple(self._sessions.values()), tuple(self._retained.values())

    def session_changed(self, session: Session) -> None:
        self._sessions[session.client_id] = session

    def session_ended(self, session: Session) -> None:
        self._sessions.pop(session.client_id, None)

    def delivery_queued(self, session: Session, delivery: Delivery) -> None:
        """The session has it."""

    def delivery_dropped(self, session: Session) -> None:
        """The session has it no more."""

    def delivery_sent(self, session: Session, number: int, delivery: Delivery) -> None:
        """The session has it."""

    def delivery_released(self, session: Session, number: int) -> None:
        """The session has it."""

    def delivery_done(self, session: Session, number: int) -> None:
        """The session has it."""

    def message_received(self, session: Session, packet_id: int) -> None:
        """The session has it."""

    def message_released(self, session: Session, packet_id: int) -> None:
        """The session has it."""

    def retained_changed(self, message: Message) -> None:
        if message.payload:
            self._retained[message.topic] = message
        else:
            self._retained.pop(message.topic, None)

    def when_kept(self, callback: Callable[[], None]) -> None:
        callback()
