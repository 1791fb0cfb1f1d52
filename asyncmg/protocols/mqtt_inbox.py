"""Received messages of an MQTT client on their way to whoever reads them: queues with an end, and who gets what.

Messages of a subscription with a reader of its own go to that, all others to the general queue. Where the broker tells
by subscription identifiers which subscriptions a message is for (MQTT 5.0 section 3.3.2.3.8) it goes by those,
otherwise by the filters that match.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Literal

from asyncmg.codecs import mqtt as m
from asyncmg.codecs.mqtt_properties import Property
from asyncmg.codecs.mqtt_topics import matches, split_share
from asyncmg.errors import BusyError, MqttRefused
from asyncmg.mqtt_message import MqttMessage

from .mqtt_session import ClientSession

QueuePolicy = Literal["wait", "drop_oldest", "drop_newest"]

_PATIENCE: Final = 4  # times max_received, then messages of QoS 0 are dropped in any case
_MAX_CACHED: Final = 1024  # topics whose readers are known
_IDENTIFIER: Final = Property.SUBSCRIPTION_IDENTIFIER


class MessageQueue:
    """Received messages for one reader: ``async for message in queue``.

    Attributes:
        filters: topic filters as they match, without ``$share``; none: it is the general queue.
        identifier: of the subscription; 0: it has none.
        is_over: there are more than should be.
    """

    __slots__ = ("_error", "_has_ended", "_inbox", "_limit", "_messages", "_waiter", "filters", "identifier", "is_over")

    def __init__(self, inbox: Inbox, filters: Sequence[str] = ()) -> None:
        self.filters = tuple(split_share(item)[1] for item in filters)
        self.identifier = 0
        self.is_over = False
        self._inbox = inbox
        self._limit = inbox.limit
        self._messages: deque[m.Publish] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None  # told once, behind the messages
        self._has_ended = False

    def __len__(self) -> int:
        """How many messages wait."""
        return len(self._messages)

    def put(self, packet: m.Publish) -> None:
        """Append a message, or drop one, as the policy says."""
        messages = self._messages
        if len(messages) >= self._limit and not self._make_room(packet):
            return
        messages.append(packet)
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def _make_room(self, packet: m.Publish) -> bool:
        """There are ``max_received`` messages: drop one; or none, and reading stops; False: it is the new one."""
        inbox, messages = self._inbox, self._messages
        is_far_over = len(messages) >= _PATIENCE * self._limit
        if inbox.policy == "wait" or is_far_over:
            if not self.is_over:
                self.is_over = True
                inbox.over += 1
            if not is_far_over:
                return True
        elif inbox.policy == "drop_oldest":
            for place, old in enumerate(messages):
                if old.qos == 0:
                    del messages[place]
                    inbox.dropped += 1
                    return True
        if packet.qos:
            return True
        inbox.dropped += 1
        return False

    def __aiter__(self) -> MessageQueue:
        return self

    async def __anext__(self) -> MqttMessage:
        """Return the next message. Cancelling is safe: no message is lost.

        Raises:
            BusyError: another coroutine is waiting for the next one.
            MqttRefused: the broker has not renewed a subscription after a reconnection; told once.
            ConnectionClosed, MqttRefused, StoreFailed: the client has ended, but not by ``disconnect()``.
        """
        messages = self._messages
        while not messages:
            if self._error is not None:
                error = self._error
                if not self._has_ended:
                    self._error = None
                raise error.with_traceback(None)
            if self._has_ended:
                raise StopAsyncIteration
            if self._waiter is not None:
                raise BusyError("another coroutine is waiting for these messages")
            waiter = self._waiter = self._inbox.loop.create_future()
            try:
                await waiter
            finally:
                if self._waiter is waiter:
                    self._waiter = None
        packet = messages.popleft()
        if self.is_over and len(messages) <= self._limit // 2:
            self._ease()
        if packet.qos:
            self._inbox.session.take(packet)
        return MqttMessage(packet)

    def _ease(self) -> None:
        if self.is_over:
            self.is_over = False
            self._inbox.over -= 1
            self._inbox.handle_room()

    def tell(self, error: Exception) -> None:
        """Raise an error for the reader, behind the messages that are there."""
        self._error = error
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """No more messages come."""
        self._has_ended = True
        self._error = error
        self._wake()

    def discard(self) -> None:
        """Nobody reads any more: what waits is done with."""
        messages, self._messages = self._messages, deque()
        for packet in messages:
            if packet.qos:
                self._inbox.session.take(packet)
        self._ease()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Inbox:
    """All queues of a client.

    Args:
        handle_room: called when a queue that was over its limit is so no more.

    Attributes:
        put: give a message to its readers.
        over: how many queues have more messages than they should.
        dropped: messages of QoS 0 that were dropped.
    """

    __slots__ = (
        "_by_identifier",
        "_queues",
        "_readers",
        "_responses",
        "dropped",
        "general",
        "handle_room",
        "limit",
        "loop",
        "over",
        "policy",
        "put",
        "response_topic",
        "session",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        session: ClientSession,
        limit: int,
        policy: QueuePolicy,
        handle_room: Callable[[], None],
    ) -> None:
        self.loop = loop
        self.session = session
        self.limit = limit
        self.policy = policy
        self.handle_room = handle_room
        self.over = 0
        self.dropped = 0
        self.response_topic = ""
        self._responses: Callable[[m.Publish], None] | None = None
        self._queues: list[MessageQueue] = []
        self._by_identifier: dict[int, MessageQueue] = {}
        self._readers: dict[str, tuple[MessageQueue, ...]] = {}  # by topic, as they were found
        self.general = MessageQueue(self)
        self.put: Callable[[m.Publish], None] = self.general.put

    def expect_responses(self, topic: str, handle: Callable[[m.Publish], None]) -> None:
        """Messages of this topic are for ``request()``."""
        self.response_topic = topic
        self._responses = handle
        self.put = self._route

    def add(self, queue: MessageQueue) -> None:
        self._queues.append(queue)
        if queue.identifier:
            self._by_identifier[queue.identifier] = queue
        self._readers.clear()
        self.put = self._route

    def remove(self, queue: MessageQueue) -> None:
        self._queues.remove(queue)
        self._by_identifier.pop(queue.identifier, None)
        self._readers.clear()
        if not self._queues and self._responses is None:
            self.put = self.general.put
        queue.discard()

    def free_identifier(self) -> int:
        """Return a subscription identifier that no queue has."""
        number = 1
        while number in self._by_identifier:
            number += 1
        return number

    def has_identifier(self, number: int) -> bool:
        return number in self._by_identifier

    def _route(self, packet: m.Publish) -> None:
        if self._responses is not None and packet.topic == self.response_topic:
            self._responses(packet)
            return
        queues: Sequence[MessageQueue] = ()
        if packet.raw_properties and self._by_identifier:
            queues = self._named(packet)
        if not queues:
            found = self._readers.get(packet.topic)
            if found is None:
                found = self._find(packet.topic)
            queues = found
        if packet.qos:
            self.session.share(packet, len(queues))
        for queue in queues:
            queue.put(packet)

    def _named(self, packet: m.Publish) -> Sequence[MessageQueue]:
        """Return the queues that the subscription identifiers name."""
        raw = packet.raw_properties
        if len(raw) == 2 and raw[0] == _IDENTIFIER:
            queue = self._by_identifier.get(raw[1])
            return () if queue is None else (queue,)
        numbers = packet.properties().get(_IDENTIFIER, ())
        assert isinstance(numbers, list | tuple)
        return [self._by_identifier[number] for number in numbers if number in self._by_identifier]

    def _find(self, topic: str) -> tuple[MessageQueue, ...]:
        # A queue with an identifier gets what names it: a broker may send another copy for an overlapping subscription.
        found = tuple(
            queue
            for queue in self._queues
            if not queue.identifier and any(matches(item, topic) for item in queue.filters)
        )
        if len(self._readers) >= _MAX_CACHED:
            self._readers.clear()
        result = self._readers[topic] = found or (self.general,)
        return result

    def queues_of(self, topic_filter: str) -> list[MessageQueue]:
        """Return the readers of a subscription."""
        plain = split_share(topic_filter)[1]
        return [queue for queue in self._queues if plain in queue.filters] or [self.general]

    def refuse(self, topic_filter: str, error: MqttRefused) -> None:
        """A subscription has not been renewed: its readers are told."""
        for queue in self.queues_of(topic_filter):
            queue.tell(error)

    def end(self, error: Exception | None) -> None:
        """The client has ended; what has been received can still be read."""
        for queue in (self.general, *self._queues):
            queue.end(error)
