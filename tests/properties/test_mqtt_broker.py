"""The broker against a model: sessions, subscriptions, retained messages and wills, in any order, on our own clock."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asyncmg.broker.core import Broker
from asyncmg.broker.hooks import Hooks
from asyncmg.broker.message import Delivery, Message
from asyncmg.broker.session import Session
from asyncmg.broker.subscribing import subscribe
from asyncmg.codecs import mqtt as m
from asyncmg.codecs.mqtt_topics import matches
from asyncmg.limits import Limits, MqttLimits

CLIENTS = "abc"
TOPICS = ("t", "t", "t/u", "$x")
FILTERS = ("t", "t/#", "+/u", "#", "w")


class Got(NamedTuple):
    topic: str
    payload: bytes
    qos: int
    retain: bool


class Clock:
    """What a broker needs of a loop."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Timer:
        timer = Timer(lambda: callback(*args))
        heapq.heappush(self._timers, (self.now + delay, next(self._numbers), timer))
        return timer

    def advance(self, until: float) -> None:
        while self._timers and self._timers[0][0] <= until:
            self.now, _, timer = heapq.heappop(self._timers)
            if not timer.is_cancelled:
                timer.callback()
        self.now = until


class Timer:
    def __init__(self, callback: Callable[[], Any]) -> None:
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeOutput:
    is_paused = False


class FakeLink:
    """A connection that takes what it is sent, and acknowledges when it is told to."""

    is_paused = False
    is_plain = False
    version = 5

    def __init__(self, machine: BrokerMachine, session: Session, has_will: bool) -> None:
        self.output = FakeOutput()
        self.machine = machine
        self.session = session
        self.wants_will = has_will
        self.got: list[Got] = []
        self.unacknowledged: dict[int, Delivery] = {}

    def send(self, number: int, delivery: Delivery, dup: bool) -> None:
        message, qos, retain, _ = delivery
        assert number not in self.unacknowledged
        assert len(self.unacknowledged) < self.machine.broker.limits.mqtt.max_inflight
        self.unacknowledged[number] = delivery
        assert dup is (number in self.machine.clients[self.session.client_id].under_way)
        if not dup:
            self.machine.clients[self.session.client_id].under_way[number] = None
            self.got.append(Got(message.topic, message.payload, qos, retain))

    def send_plain(self, message: Message, retain: bool, identifiers: tuple[int, ...]) -> None:
        self.got.append(Got(message.topic, message.payload, 0, retain))

    def end_taken_over(self) -> None:
        self.machine.leave(self.session.client_id, publishes_will=True)

    def handle_shutdown(self) -> None:
        raise AssertionError


@dataclass
class Client:
    """What the model knows of a client with a session."""

    link: FakeLink | None = None
    expiry: int = 0
    ends_at: float = 0.0
    will_at: float = 0.0
    will: Message | None = None
    will_delay: int = 0
    subscriptions: dict[str, tuple[int, bool, bool]] = field(default_factory=dict)  # QoS, no local, as published
    owed: list[Got] = field(default_factory=list)  # with QoS 1 and 2, since the session began
    taken: int = 0  # of them
    plain: list[Got] = field(default_factory=list)  # with QoS 0, in this connection
    under_way: dict[int, None] = field(default_factory=dict)


class BrokerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        limits = Limits(mqtt=MqttLimits(max_inflight=3))
        self.errors: list[Exception] = []
        self.broker = Broker(
            cast(Any, self.clock), limits, Hooks(), None, cast(Any, None), cast(Any, self.errors.append)
        )
        self.clients: dict[str, Client] = {}
        self.retained: dict[str, Message] = {}
        self.numbers = itertools.count()

    # -- the model -----------------------------------------------------------------------------------------------------

    def expect(self, message: Message, origin: str) -> None:
        if message.retain:
            self.retained[message.topic] = message
            if not message.payload:
                del self.retained[message.topic]
        for client_id, client in self.clients.items():
            found = [
                options
                for topic_filter, options in client.subscriptions.items()
                if matches(topic_filter, message.topic)
            ]
            if not found or (client_id == origin and all(no_local for _, no_local, _ in found)):
                continue
            qos = min(message.qos, max(qos for qos, _, _ in found))
            retain = message.retain and any(as_published for _, _, as_published in found)
            self.expect_one(client, Got(message.topic, message.payload, qos, retain))

    def expect_one(self, client: Client, got: Got) -> None:
        if got.qos:
            client.owed.append(got)
        elif client.link is not None:
            client.plain.append(got)

    def leave(self, client_id: str, *, publishes_will: bool) -> None:
        """The connection ends, in the broker and in the model."""
        client = self.clients[client_id]
        link = client.link
        assert link is not None
        self.check(client)
        client.taken += len([got for got in link.got if got.qos])
        client.plain.clear()
        client.link = None
        will, now = client.will, self.clock.now
        if not publishes_will:
            client.will = None
        elif will is not None and min(client.will_delay, client.expiry) == 0:
            client.will = None
            self.expect(will, client_id)
        client.will_at = now + client.will_delay
        client.ends_at = now + client.expiry
        self.broker.detach(link.session, link, publishes_will=publishes_will)
        if client.expiry == 0:
            del self.clients[client_id]

    def expire(self, until: float) -> None:
        """Wills and ends of sessions up to a time, in their order."""
        while True:
            due: list[tuple[float, str, str]] = []
            for client_id, client in self.clients.items():
                if client.link is None:
                    due.append((client.ends_at, "end", client_id))
                    if client.will is not None and client.will_at < client.ends_at:
                        due.append((client.will_at, "will", client_id))
            if not due or min(due)[0] > until:
                return
            _, what, client_id = min(due)
            client = self.clients[client_id]
            if what == "end":
                del self.clients[client_id]
            will, client.will = client.will, None
            if will is not None:
                self.expect(will, client_id)

    def check(self, client: Client) -> None:
        """What a connection has got is what it had to get, so far."""
        link = client.link
        assert link is not None
        got = [item for item in link.got if item.qos]
        assert got == client.owed[client.taken : client.taken + len(got)]
        if len(link.unacknowledged) < 3:
            assert client.taken + len(got) == len(client.owed)
        assert [item for item in link.got if not item.qos] == client.plain

    # -- what happens --------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """No two things happen at the same time."""
        until = self.clock.now + 0.001
        self.expire(until)
        self.clock.advance(until)

    @rule(seconds=st.sampled_from((1, 1, 2, 4, 8)))
    def wait(self, seconds: int) -> None:
        until = self.clock.now + seconds
        self.expire(until)
        self.clock.advance(until)

    @rule(
        client_id=st.sampled_from(CLIENTS),
        clean=st.sampled_from((False, False, False, True)),
        expiry=st.sampled_from((6, 6, 3, 0)),
        will_delay=st.sampled_from((None, 0, 2, 5)),
    )
    def connect(self, client_id: str, clean: bool, expiry: int, will_delay: int | None) -> None:
        self.tick()
        session, is_present = self.broker.open_session(client_id, None, clean=clean)
        client = self.clients.get(client_id)
        if client is not None and clean:
            del self.clients[client_id]
            if client.will is not None:
                self.expect(client.will, client_id)
            client = None
        assert is_present is (client is not None)
        if client is None:
            client = self.clients[client_id] = Client()
        client.expiry = expiry
        session.expiry = float(expiry)
        client.will = session.will = None
        if will_delay is not None:
            client.will = session.will = Message("w", b"%d" % next(self.numbers), 1)
            client.will_delay = will_delay
            session.will_delay = will_delay
        link = client.link = FakeLink(self, session, will_delay is not None)
        self.broker.attach(session, link)
        assert not session.flow.restart(3)
        session.pump(self.clock.now)

    def connected(self) -> list[str]:
        return [client_id for client_id, client in self.clients.items() if client.link is not None]

    @precondition(lambda self: self.connected())
    @rule(data=st.data(), is_orderly=st.booleans())
    def disconnect(self, data: Any, is_orderly: bool) -> None:
        self.tick()
        if connected := self.connected():
            self.leave(data.draw(st.sampled_from(connected)), publishes_will=not is_orderly)

    @precondition(lambda self: self.connected())
    @rule(
        data=st.data(),
        topic_filter=st.sampled_from(FILTERS),
        qos=st.integers(0, 2),
        no_local=st.booleans(),
        as_published=st.booleans(),
        handling=st.integers(0, 2),
    )
    def subscribe(
        self, data: Any, topic_filter: str, qos: int, no_local: bool, as_published: bool, handling: int
    ) -> None:
        self.tick()
        if not (connected := self.connected()):
            return
        client = self.clients[data.draw(st.sampled_from(connected))]
        assert client.link is not None
        session = client.link.session
        options = qos | no_local * m.OPTION_NO_LOCAL | as_published * m.OPTION_RETAIN_AS_PUBLISHED | handling << 4
        codes, retained = subscribe(self.broker, session, m.Subscribe(1, [(topic_filter, options)]), [0], 5)
        assert codes == bytes((qos,))
        wanted = []
        if handling == 0 or (handling == 1 and topic_filter not in client.subscriptions):
            wanted = [message for topic, message in self.retained.items() if matches(topic_filter, topic)]
        assert {id(message) for message, _, _ in retained} == {id(message) for message in wanted}
        client.subscriptions[topic_filter] = (qos, no_local, as_published)

    @precondition(lambda self: self.connected())
    @rule(data=st.data(), topic_filter=st.sampled_from(FILTERS))
    def unsubscribe(self, data: Any, topic_filter: str) -> None:
        self.tick()
        if connected := self.connected():
            client = self.clients[data.draw(st.sampled_from(connected))]
            assert client.link is not None
            was_there = self.broker.routes.remove(client.link.session, topic_filter)
            assert was_there is (client.subscriptions.pop(topic_filter, None) is not None)

    @rule(
        topic=st.sampled_from(TOPICS),
        qos=st.integers(0, 2),
        retain=st.booleans(),
        is_empty=st.sampled_from((False, False, True)),
        origin=st.sampled_from(("", *CLIENTS)),
        count=st.sampled_from((1, 1, 6)),
    )
    def publish(self, topic: str, qos: int, retain: bool, is_empty: bool, origin: str, count: int) -> None:
        self.tick()
        for _ in range(count):
            payload = b"" if is_empty else b"%d" % next(self.numbers)
            if retain and not payload:
                self.retained.setdefault(topic, Message(topic, b"x"))
            message = Message(topic, payload, qos, retain)
            self.expect(message, origin)
            self.broker.publish(message, self.broker.sessions.get(origin))
        self.broker.fan_out.flush()

    @precondition(lambda self: self.connected())
    @rule(data=st.data(), count=st.integers(1, 4))
    def acknowledge(self, data: Any, count: int) -> None:
        self.tick()
        if connected := self.connected():
            client = self.clients[data.draw(st.sampled_from(connected))]
            for _ in range(count):
                self.acknowledge_one(client)

    def acknowledge_one(self, client: Client) -> None:
        link = client.link
        assert link is not None
        if link.unacknowledged:
            number = next(iter(link.unacknowledged))
            _, qos, _, _ = link.unacknowledged.pop(number)
            del client.under_way[number]
            flow = link.session.flow
            if qos == 2:
                assert flow.release(number)
                assert flow.complete(number) is not None
            else:
                assert flow.acknowledge(number) is not None
            link.session.pump(self.clock.now)

    @invariant()
    def the_broker_is_as_the_model(self) -> None:
        assert self.errors == []
        assert self.broker.sessions.keys() == self.clients.keys()
        assert self.broker.connected == len(self.connected())
        assert len(self.broker.routes) == sum(len(client.subscriptions) for client in self.clients.values())
        assert {message.topic: message.payload for message in self.broker.retained} == {
            topic: message.payload for topic, message in self.retained.items()
        }
        for client in self.clients.values():
            if client.link is not None:
                self.check(client)

    def teardown(self) -> None:
        for client in self.clients.values():
            if client.link is not None:
                while client.link.unacknowledged:
                    self.acknowledge_one(client)
                self.check(client)
                assert len(client.link.session.flow) == 0
                assert client.link.session.queued_bytes == 0


TestBroker = BrokerMachine.TestCase
TestBroker.settings = settings(max_examples=5 * settings().max_examples, stateful_step_count=60)
