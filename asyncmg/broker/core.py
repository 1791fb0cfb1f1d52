"""The broker itself: sessions, routing, wills. It knows no socket, and packets only by their meaning."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from asyncmg.codecs import mqtt as m
from asyncmg.limits import Limits

from .fanout import FanOut
from .hooks import HOOK_ERRORS, Hooks, awaited, is_being_cancelled, reason_code
from .message import Delivery, Message
from .retained import RetainedMessages
from .routes import Routes, SharedDelivery
from .session import Session, SessionLink, Subscription
from .store import BrokerStore

_MANY: Final = 4  # targets that are worth a common submission


class Counters:
    """What has happened, for statistics.

    Attributes:
        received: PUBLISH packets that came in.
        delivered: messages handed to sessions.
        dropped: messages that a session did not get: its queue was full, or its client too slow.
        unauthorized: messages and subscriptions that a hook has refused.
        connects, refused: CONNECT packets answered with success, and with anything else.
        max_clients: the most that were connected at once.
    """

    __slots__ = ("connects", "delivered", "dropped", "max_clients", "received", "refused", "unauthorized")

    def __init__(self) -> None:
        self.connects = self.delivered = self.dropped = self.max_clients = 0
        self.received = self.refused = self.unauthorized = 0


class Broker:
    """Routes messages between sessions.

    Args:
        loop: for its clock and timers.
        limits: see :class:`asyncmg.limits.MqttLimits`.
        hooks: see :class:`Hooks`.
        store: None: nothing outlives the broker.
        spawn: runs a coroutine as a task that somebody owns.
        report: takes exceptions of hooks and receivers.

    Attributes:
        sessions: by client identifier.
        connected: how many of them have a connection.
        addresses: connections by address, those without a session included.
        links: of all connections.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        hooks: Hooks,
        store: BrokerStore | None,
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        report: Callable[[Exception], None],
    ) -> None:
        self.loop = loop
        self.limits = limits
        self.hooks = hooks
        self.store = store
        self.spawn = spawn
        self.report = report
        self.routes = Routes()
        self.retained = RetainedMessages(limits.mqtt)
        self.fan_out = FanOut()
        self.counters = Counters()
        self.sessions: dict[str, Session] = {}
        self.connected = 0
        self.addresses: dict[str, int] = {}
        self.links: set[SessionLink] = set()
        self.is_stopping = False
        self._checked: dict[Session, deque[tuple[Message, Subscription]]] = {}  # deliver hooks are under way
        if store is not None:
            self._load(store)

    def _load(self, store: BrokerStore) -> None:
        sessions, messages = store.load()
        for message in messages:
            self.retained.set(message)
        for session in sessions:
            self.sessions[session.client_id] = session
            session.link = None
            session.store = store
            for subscription in tuple(session.subscriptions.values()):
                self.routes.add(subscription)
        for session in tuple(self.sessions.values()):
            self._plan_will(session)
            self._plan_end(session)

    # -- messages ----------------------------------------------------------------------------------------------------

    def publish(self, message: Message, origin: Session | None = None) -> int:
        """Give a message to all who have subscribed to its topic; return how many those are."""
        route = self.routes.find(message.topic)
        if message.retain:
            self._retain(message)
        targets = route.targets
        fan_out = self.fan_out
        count = len(targets)
        if fan_out.messages and fan_out.route is not route:
            fan_out.flush()
        if self.hooks.deliver is not None:
            for target in targets:
                if not (target.no_local and target.session is origin):
                    self._deliver_checked(message, target)
        elif count >= _MANY and message.qos == 0 and route.is_plain and not message.retain and not message.expires_at:
            fan_out.add(route, message)
        else:
            if fan_out.messages:
                fan_out.flush()
            for target in targets:
                if target.no_local and target.session is origin:
                    continue
                self.deliver(message, target)
        self.counters.delivered += count
        if route.groups:
            for group in route.groups:
                chosen = group.choose(message.qos)
                if chosen is not None:
                    count += 1
                    self._deliver_one(message, chosen)
        if route.receivers:
            count += len(route.receivers)
            for receiver in route.receivers:
                try:
                    receiver(message)
                except Exception as exc:
                    self.report(exc)
        return count

    def _retain(self, message: Message) -> None:
        is_kept = self.retained.set(message)
        if self.store is not None:
            self.store.retained_changed(message if is_kept else Message(message.topic, b"", retain=True))

    def deliver(self, message: Message, target: Subscription) -> None:
        """Give a message to a session, with the QoS of its subscription at most."""
        session = target.session
        retain = message.retain and target.retain_as_published
        qos = message.qos if message.qos < target.qos else target.qos
        if qos:
            delivery: Delivery = (message, qos, retain, target.identifiers)
            if target.group is not None:
                delivery = SharedDelivery(delivery)
                delivery.group = target.group
            if not session.deliver(delivery, self.limits.mqtt):
                self.counters.dropped += 1
            return
        link = session.link
        if link is not None:
            link.send_plain(message, retain, target.identifiers)

    def _deliver_one(self, message: Message, target: Subscription) -> None:
        if self.hooks.deliver is not None:
            self._deliver_checked(message, target)
        else:
            self.deliver(message, target)

    def _deliver_checked(self, message: Message, target: Subscription) -> None:
        """Ask the hook first; messages of a session keep their order, however long it takes."""
        session = target.session
        pending = self._checked.get(session)
        if pending is not None:
            if len(pending) < self.limits.mqtt.max_queued:
                pending.append((message, target))
            else:
                session.dropped += 1
                self.counters.dropped += 1
            return
        client = session.client
        if client is None:
            return
        assert self.hooks.deliver is not None
        try:
            answer = self.hooks.deliver(client, message)
            if not inspect.isawaitable(answer):
                if reason_code(answer) == m.SUCCESS and self._is_known(session):
                    self.deliver(message, target)
                return
        except HOOK_ERRORS as exc:
            self.report_hook(exc)
            return
        self._checked[session] = deque()
        self.spawn(self._deliver_later(session, answer, message, target), f"asyncmg-mqtt-deliver-{session.client_id}")

    async def _deliver_later(self, session: Session, answer: Any, message: Message, target: Subscription) -> None:
        hook = self.hooks.deliver
        assert hook is not None
        pending = self._checked[session]
        try:
            while True:
                try:
                    async with asyncio.timeout(self.limits.mqtt.authentication_timeout):
                        verdict = await awaited(answer)
                    if reason_code(verdict) == m.SUCCESS and self._is_known(session):
                        self.deliver(message, target)
                except HOOK_ERRORS as exc:
                    if is_being_cancelled():
                        raise
                    self.report_hook(exc)
                client = session.client
                if not pending or client is None:
                    break
                message, target = pending.popleft()
                try:
                    answer = hook(client, message)
                except HOOK_ERRORS as exc:
                    self.report_hook(exc)
                    answer = False
        finally:
            del self._checked[session]

    def _is_known(self, session: Session) -> bool:
        """Whether a session has not ended while a hook was asked."""
        return self.sessions.get(session.client_id) is session

    def report_hook(self, error: BaseException) -> None:
        """Report what a hook has raised."""
        if isinstance(error, Exception):
            self.report(error)
        else:
            failure = RuntimeError("a hook of the broker was cancelled, or waited for something that was")
            failure.__cause__ = error
            self.report(failure)

    # -- sessions ----------------------------------------------------------------------------------------------------

    def open_session(self, client_id: str, username: str | None, *, clean: bool) -> tuple[Session, bool]:
        """Return the session of a client, and whether it was there; a connection that it has is taken over.

        To be called when the client is authenticated, and :meth:`may_open` has said so.
        """
        session = self.sessions.get(client_id)
        if session is not None:
            link = session.link
            if link is not None:
                link.end_taken_over()
                session = self.sessions.get(client_id)
            if clean and session is not None:
                self.end_session(session)
                session = None
        if session is not None:
            session.stop_timers()
            return session, True
        session = self.sessions[client_id] = Session(client_id, username)
        session.store = self.store
        return session, False

    def may_open(self, client_id: str, username: str | None) -> int:
        """Return the reason code for a client that is authenticated.

        A session belongs to a user: nobody takes it over by knowing its client identifier.
        """
        if self.is_stopping:
            return m.SERVER_BUSY
        session = self.sessions.get(client_id)
        if session is not None:
            return m.SUCCESS if session.username == username else m.CLIENT_IDENTIFIER_INVALID
        return m.SUCCESS if len(self.sessions) < self.limits.mqtt.max_sessions else m.QUOTA_EXCEEDED

    def attach(self, session: Session, link: SessionLink) -> None:
        session.link = link
        self.connected += 1
        counters = self.counters
        counters.connects += 1
        counters.max_clients = max(counters.max_clients, self.connected)
        if self.store is not None:
            self.store.session_changed(session)

    def detach(self, session: Session, link: SessionLink, *, publishes_will: bool) -> None:
        """The session's connection is gone, or about to be."""
        if session.link is not link:
            return
        session.link = None
        self.connected -= 1
        if not publishes_will:
            session.will = None
        self._plan_will(session)
        self._plan_end(session)

    def _plan_will(self, session: Session) -> None:
        delay = min(session.will_delay, session.expiry)
        if session.will is not None and delay > 0:
            session.will_timer = self.loop.call_later(delay, self._publish_will, session)
        else:
            self._publish_will(session)

    def _plan_end(self, session: Session) -> None:
        if session.expiry <= 0:
            self.end_session(session)
        else:
            session.timer = self.loop.call_later(session.expiry, self.end_session, session)

    def _publish_will(self, session: Session) -> None:
        will, session.will = session.will, None
        if will is not None:
            will.start_expiry(self.loop.time())
            self.publish(will, session)
            self.fan_out.flush()

    def end_session(self, session: Session) -> None:
        """A session has expired, or was thrown away: a will that was delayed is published now."""
        session.stop_timers()
        self.routes.remove_all(session)
        if self.sessions.get(session.client_id) is session:
            del self.sessions[session.client_id]
        if session.link is None:
            self._publish_will(session)
        flow = session.flow
        # With QoS 2 others must not get what is under way to this client [MQTT-4.8.2-5].
        left = [item for item in flow.published.values() if item[1] == 1]
        left += flow.waiting
        flow.clear()
        session.queued_bytes = 0
        if self.store is not None:
            self.store.session_ended(session)
        self._share_again(left)

    def _share_again(self, deliveries: Iterable[Delivery]) -> None:
        """Give what the member of a shared subscription has left behind to the others (section 4.8.2)."""
        now = self.loop.time()
        for delivery in deliveries:
            message = delivery[0]
            if isinstance(delivery, SharedDelivery) and not 0.0 < message.expires_at <= now:
                chosen = delivery.group.choose(message.qos)
                if chosen is not None:
                    self._deliver_one(message, chosen)

    def granted_expiry(self, asked: int) -> float:
        """Return for how many seconds a session may live without a connection."""
        return float(min(asked, self.limits.mqtt.max_session_expiry))

    def store_changed(self, session: Session) -> None:
        if self.store is not None:
            self.store.session_changed(session)

    def close(self) -> None:
        """Forget all timers."""
        self.is_stopping = True
        for session in self.sessions.values():
            session.stop_timers()
