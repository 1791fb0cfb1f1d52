"""What the broker keeps of a client beyond a connection (MQTT 5.0 section 4.1)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from asyncmg.limits import MqttLimits
from asyncmg.protocols.mqtt_flows import OutgoingFlow
from asyncmg.protocols.output import Output

from .hooks import BrokerClient
from .message import Delivery, Message


class DeliveryStore(Protocol):
    """The part of a broker's store that sessions use: see :mod:`.store`."""

    def delivery_queued(self, session: Session, delivery: Delivery) -> None: ...

    def delivery_dropped(self, session: Session) -> None: ...

    def delivery_sent(self, session: Session, number: int, delivery: Delivery) -> None: ...

    def delivery_released(self, session: Session, number: int) -> None: ...

    def delivery_done(self, session: Session, number: int) -> None: ...

    def message_received(self, session: Session, packet_id: int) -> None: ...

    def message_released(self, session: Session, packet_id: int) -> None: ...

    def when_kept(self, callback: Callable[[], None]) -> None: ...


class SessionLink(Protocol):
    """The connection that a session has."""

    def send(self, number: int, delivery: Delivery, dup: bool) -> None:
        """Send a message with QoS 1 or 2."""

    def send_plain(self, message: Message, retain: bool, identifiers: tuple[int, ...]) -> None:
        """Send a message with QoS 0, or drop it."""

    def end_taken_over(self) -> None:
        """The session goes on in another connection."""

    def handle_shutdown(self) -> None:
        """The broker ends."""

    @property
    def is_paused(self) -> bool:
        """The peer does not take our output."""

    @property
    def is_plain(self) -> bool:
        """Its client takes any packet, without topic aliases."""

    @property
    def version(self) -> int:
        """4 or 5."""

    @property
    def output(self) -> Output:
        """Where packets go."""


class Session:
    """A client's session.

    Attributes:
        client: who has connected last; None: nobody since the broker was started.
        username: whose it is; nobody else can take it over.
        flow: messages to the client with QoS 1 and 2.
        unreleased: packet identifiers of received messages with QoS 2 whose PUBREL has not come.
        subscriptions: by topic filter, ``$share`` included.
        expiry: seconds that it lives without a connection.
        link: its connection.
        will: what is published when the connection ends without DISCONNECT; ``will_delay`` in seconds.
        timer, will_timer: end it, and publish its will, while there is no connection.
        queued_bytes: of messages that wait in ``flow``.
        dropped: messages that it did not get: its queue was full, or its client too slow.
    """

    __slots__ = (
        "client",
        "client_id",
        "dropped",
        "expiry",
        "flow",
        "link",
        "queued_bytes",
        "store",
        "subscriptions",
        "timer",
        "unreleased",
        "username",
        "will",
        "will_delay",
        "will_timer",
    )

    def __init__(self, client_id: str, username: str | None) -> None:
        self.client: BrokerClient | None = None
        self.client_id = client_id
        self.username = username
        self.store: DeliveryStore | None = None
        self.flow: OutgoingFlow[Delivery] = OutgoingFlow()
        self.unreleased: dict[int, None] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self.expiry = 0.0
        self.link: SessionLink | None = None
        self.will: Message | None = None
        self.will_delay = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.will_timer: asyncio.TimerHandle | None = None
        self.queued_bytes = 0
        self.dropped = 0

    def deliver(self, delivery: Delivery, limits: MqttLimits) -> bool:
        """Send a message with QoS 1 or 2, or queue it; False: the queue is full, and this one, or another, is lost."""
        link = self.link
        flow = self.flow
        if (  # flow.is_free, and the client takes our output
            link is not None
            and not flow.waiting
            and not flow.repeats
            and len(flow.published) + len(flow.released) < flow.maximum
            and not link.output.is_paused
        ):
            number = flow.begin(delivery)
            if self.store is not None:
                self.store.delivery_sent(self, number, delivery)
            link.send(number, delivery, False)
            return True
        return self.enqueue(delivery, limits)

    def enqueue(self, delivery: Delivery, limits: MqttLimits) -> bool:
        waiting = self.flow.waiting
        size = delivery[0].size
        is_kept = True
        while len(waiting) >= limits.max_queued or (waiting and self.queued_bytes + size > limits.max_queued_bytes):
            is_kept = False
            self.dropped += 1
            if limits.on_full_queue == "drop_newest":
                return False
            self.queued_bytes -= waiting.popleft()[0].size
            if self.store is not None:
                self.store.delivery_dropped(self)
        self.flow.wait(delivery)
        self.queued_bytes += size
        if self.store is not None:
            self.store.delivery_queued(self, delivery)
        return is_kept

    def pump(self, now: float) -> None:
        """Send what waits, as far as the client takes it."""
        link, flow = self.link, self.flow
        if link is None:
            return
        while not link.is_paused:
            before = len(flow.waiting)
            following = flow.next()
            if following is None:
                break
            number, delivery, dup = following
            if len(flow.waiting) < before:
                self.queued_bytes -= delivery[0].size
                if self.store is not None:
                    self.store.delivery_sent(self, number, delivery)
                if 0.0 < delivery[0].expires_at <= now:
                    flow.acknowledge(number)
                    if self.store is not None:
                        self.store.delivery_done(self, number)
                    continue
            link.send(number, delivery, dup)

    def stop_timers(self) -> None:
        for timer in (self.timer, self.will_timer):
            if timer is not None:
                timer.cancel()
        self.timer = self.will_timer = None


class SubscriptionGroup(Protocol):
    """The members of a shared subscription (:mod:`.routes`)."""

    def choose(self, qos: int) -> Subscription | None:
        """Return whose turn it is."""


class Subscription:
    """A client's subscription, or what several of them that match a topic come to.

    Attributes:
        topic_filter: with ``$share``; "" of several.
        qos: granted.
        no_local, retain_as_published: options (5.0 section 3.8.3.1).
        identifiers: none, one, or those of several.
        group: of a shared one.
    """

    __slots__ = (
        "group",
        "identifiers",
        "no_local",
        "qos",
        "retain_as_published",
        "session",
        "topic_filter",
    )

    def __init__(
        self,
        session: Session,
        topic_filter: str,
        qos: int = 0,
        *,
        no_local: bool = False,
        retain_as_published: bool = False,
        identifiers: tuple[int, ...] = (),
    ) -> None:
        self.session = session
        self.topic_filter = topic_filter
        self.qos = qos
        self.no_local = no_local
        self.retain_as_published = retain_as_published
        self.identifiers = identifiers
        self.group: SubscriptionGroup | None = None

    @property
    def is_plain(self) -> bool:
        """Its messages are those of everybody."""
        return not self.no_local and not self.identifiers
