"""Clients of others with our broker: mosquitto's, paho, aiomqtt, gmqtt, amqtt, mqtt.js."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import asyncmg
from asyncmg import MqttBroker, TlsOpts

from .mqtt_peers import (
    CLIENTS,
    TIMEOUT,
    Certificates,
    Job,
    PeerClient,
    Transport,
    make_certificates,
    mosquitto_options,
    running,
)
from .peers import peer

try:
    import paho.mqtt.client as paho
    import paho.mqtt.packettypes as paho_packets
    import paho.mqtt.properties as paho_properties
    import paho.mqtt.subscribeoptions as paho_options
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
except ImportError as error:  # it is among the test dependencies
    if os.environ.get("ASYNCMG_REQUIRE_PEERS") == "1":
        raise
    pytest.skip(f"not installed: {error.name}", allow_module_level=True)

# Environments of peers are made at the first time.
pytestmark = pytest.mark.timeout(240)

# Both sides of the borders between lengths of a remaining length, and UTF-8 sequences of every length.
TEXTS = ("a", "grüße €, 𝄞", "x" * 111, "x" * 128, "é" * 8_200, "0123456789" * 7_000)
BY_NAME = {client.name: client for client in CLIENTS}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@dataclass
class Running:
    """Our broker, and the ports of its listeners by transport."""

    broker: MqttBroker
    ports: dict[Transport, int]


@asynccontextmanager
async def serving(backend: str, certificates: Certificates, **options: Any) -> AsyncIterator[Running]:
    """Run our broker; at its end no hook may have raised."""
    errors: list[Exception] = []
    tls = TlsOpts(cert=certificates.cert.read_bytes(), key=certificates.key.read_bytes())
    async with MqttBroker(backend=backend, error_handler=errors.append, **options) as broker:  # type: ignore[arg-type]
        assert broker.manager.backend == backend
        ports: dict[Transport, int] = {
            "tcp": broker.listen("mqtt://127.0.0.1:0").port,
            "tls": broker.listen("mqtts://127.0.0.1:0", tls=tls).port,
            "ws": broker.listen("ws://127.0.0.1:0").port,
            "wss": broker.listen("wss://127.0.0.1:0", tls=tls).port,
        }
        yield Running(broker, ports)
        await broker.shutdown(1)
    assert errors == []


def pairs(kind: str) -> list[Any]:
    """All pairs of a client and a version, or a transport."""
    return [
        pytest.param(client, value, id=f"{client.name}-{value}")
        for client in CLIENTS
        for value in getattr(client, kind)
        if value != "tcp"
    ]


# -- every client ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("client", "version"), pairs("versions"))
async def test_every_client(client: PeerClient, version: int, backend: str, certificates: Certificates) -> None:
    async with serving(backend, certificates) as ours:
        await exchange(client, ours.ports["tcp"], version)
        await until(lambda: ours.broker.clients() == [])


@pytest.mark.slow
@pytest.mark.parametrize(("client", "transport"), pairs("transports"))
async def test_every_transport(
    client: PeerClient, transport: Transport, backend: str, certificates: Certificates
) -> None:
    ca = str(certificates.ca) if transport in ("tls", "wss") else None
    async with serving(backend, certificates) as ours:
        await exchange(client, ours.ports[transport], client.versions[-1], transport, ca)


async def exchange(
    client: PeerClient, port: int, version: int, transport: Transport = "tcp", ca: str | None = None
) -> None:
    """Subscribe and publish by the same client, at each QoS."""
    count = 3 * len(TEXTS)
    subscriber = Job("subscribe", port, version, transport, ca, topic="interop/+", count=count, id="subscriber")
    async with client.subscriber(subscriber) as received:
        # mosquitto_pub has one QoS for all.
        for qos in [(0,), (1,), (2,)] if client.name == "mosquitto" else [(0, 1, 2)]:
            await client.publish(
                Job("publish", port, version, transport, ca, qos=qos, payloads=TEXTS, id=f"publisher-{qos[0]}")
            )
        assert await received() == [["interop/a", text, qos, False] for qos in (0, 1, 2) for text in TEXTS]


@pytest.mark.slow
async def test_all_of_them_at_once(backend: str, certificates: Certificates) -> None:
    """Each publishes, each gets what all publish, and so does a subscription inside the program."""
    texts = tuple(f"number {number}" for number in range(20))
    count = len(CLIENTS) * len(texts)
    async with serving(backend, certificates) as ours, AsyncExitStack() as stack:
        port = ours.ports["tcp"]
        inside = stack.enter_context(ours.broker.subscribe("all/#", max_queued=count))
        results = []
        for client in CLIENTS:
            job = Job(
                "subscribe", port, client.versions[-1], topic="all/#", qos=(1,), count=count, id=f"{client.name}-sub"
            )
            results.append(await stack.enter_async_context(client.subscriber(job)))
        async with asyncio.TaskGroup() as tasks:
            for client in CLIENTS:
                job = Job("publish", port, client.versions[0], topic=f"all/{client.name}", qos=(1,), payloads=texts)
                tasks.create_task(client.publish(Job(**{**vars(job), "id": f"{client.name}-pub"})))
        everything = [await received() for received in results]
        async with asyncio.timeout(TIMEOUT):
            got = [await anext(inside) for _ in range(count)]
        everything.append([[m.topic, m.text, m.qos, m.retain] for m in got])
    for received in everything:
        assert len(received) == count
        for client in CLIENTS:  # each one's in its order
            topic = f"all/{client.name}"
            assert [m for m in received if m[0] == topic] == [[topic, text, 1, False] for text in texts]


# -- mosquitto's programs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
async def test_retained_messages(version: int, backend: str, certificates: Certificates) -> None:
    mosquitto = BY_NAME["mosquitto"]
    async with serving(backend, certificates) as ours:
        port = ours.ports["tcp"]
        for name, text in (("a", "one"), ("b", "two"), ("c", "three")):
            await pub(port, version, "-t", f"kept/{name}", "-m", text, "-r", "-q", "1")
        await pub(port, version, "-t", "kept/b", "-n", "-r", "-q", "1")  # no content: it is forgotten
        assert {message.topic: message.text for message in ours.broker.retained("kept/#")} == {
            "kept/a": "one",
            "kept/c": "three",
        }
        async with mosquitto.subscriber(Job("subscribe", port, version, topic="kept/#", qos=(1,), count=2)) as received:
            assert sorted(await received()) == [["kept/a", "one", 1, True], ["kept/c", "three", 1, True]]


async def pub(port: int, version: int, *arguments: str) -> None:
    """Publish by mosquitto_pub."""
    options = mosquitto_options(Job("publish", port, version, id="pub"))
    async with running(peer("mosquitto_pub"), *options, *arguments) as process:
        await process.rest()


async def test_request_and_response(backend: str, certificates: Certificates) -> None:
    """mosquitto_rr asks; our client inside the test answers."""
    async with serving(backend, certificates) as ours:
        port = ours.ports["tcp"]
        async with asyncmg.mqtt_connect(f"mqtt://127.0.0.1:{port}") as mq:
            await mq.subscribe("question", qos=1)

            async def answer() -> None:
                message = await anext(mq)
                await mq.respond(message, message.payload.upper(), qos=1)

            answering = asyncio.create_task(answer())
            options = mosquitto_options(Job("publish", port, 5, id="rr"))
            question = ["-t", "question", "-e", "answer/rr", "-m", "what is it", "-q", "1", "-W", "20"]
            async with running(peer("mosquitto_rr"), *options, *question) as process:
                assert await process.rest() == ["WHAT IS IT"]
            await answering


async def test_last_will(backend: str, certificates: Certificates) -> None:
    """A mosquitto_sub that is killed has its will published; one that ends as it should has not."""
    async with serving(backend, certificates) as ours:
        port = ours.ports["tcp"]
        with ours.broker.subscribe("will/#") as wills:
            for name, is_killed in (("orderly", False), ("killed", True)):
                options = mosquitto_options(Job("subscribe", port, 5, id=name))
                will = ["--will-topic", f"will/{name}", "--will-payload", "gone", "--will-qos", "1", "--will-retain"]
                line_by_line = [peer("stdbuf"), "-oL", peer("mosquitto_sub")]
                async with running(*line_by_line, *options, *will, "-d", "-t", "x", "-C", "1") as process:
                    await process.wait_for("Subscribed")
                    if not is_killed:
                        await pub(port, 5, "-t", "x", "-m", "enough")
                        await process.rest()
            async with asyncio.timeout(TIMEOUT):
                message = await anext(wills)
            assert (message.topic, message.text, message.qos) == ("will/killed", "gone", 1)
        assert [m.topic for m in ours.broker.retained("will/#")] == ["will/killed"]


async def test_statistics_are_published(backend: str, certificates: Certificates) -> None:
    mosquitto = BY_NAME["mosquitto"]
    async with serving(backend, certificates, sys_interval=0.2) as ours:
        job = Job("subscribe", ours.ports["tcp"], 5, topic="$SYS/broker/version", qos=(0,), count=1)
        async with mosquitto.subscriber(job) as received:
            [[topic, text, qos, retain]] = await received()
    assert (topic, qos, retain) == ("$SYS/broker/version", 0, True)
    assert text.startswith("asyncmg ")


@pytest.mark.parametrize("version", [4, 5])
async def test_refused_without_the_password(version: int, backend: str, certificates: Certificates) -> None:
    def authenticate(attempt: Any) -> bool:
        return bool(attempt.client.username == "me" and attempt.password == b"secret")

    async with serving(backend, certificates, authenticate=authenticate) as ours:
        options = mosquitto_options(Job("publish", ours.ports["tcp"], version, id="pub"))
        message = ["-t", "a", "-m", "b", "-q", "1", "-u", "me"]
        async with running(peer("mosquitto_pub"), *options, *message, "-P", "wrong") as process:
            assert await process.end() != 0
            assert "bad user name or password" in process.errors().lower(), process.errors()
        async with running(peer("mosquitto_pub"), *options, *message, "-P", "secret") as process:
            assert await process.end() == 0


# -- paho: what needs a program of its own -----------------------------------------------------------------------------


class Paho:
    """A paho client whose callbacks come to queues of the test's loop."""

    def __init__(self, port: int, client_id: str, *, clean: bool = True, expiry: int = 0, maximum: int = 0) -> None:
        self._loop = asyncio.get_running_loop()
        self.connected: asyncio.Queue[Any] = asyncio.Queue()
        self.subscribed: asyncio.Queue[list[int]] = asyncio.Queue()
        self.disconnected: asyncio.Queue[int] = asyncio.Queue()
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)
        self.client.reconnect_delay_set(60, 60)
        put = self._loop.call_soon_threadsafe
        self.client.on_connect = lambda c, u, flags, code, props: put(self.connected.put_nowait, (flags, code, props))
        self.client.on_subscribe = lambda c, u, mid, codes, props: put(
            self.subscribed.put_nowait, [code.value for code in codes]
        )
        self.client.on_disconnect = lambda c, u, flags, code, props: put(self.disconnected.put_nowait, code.value)
        self.client.on_message = lambda c, u, message: put(self.messages.put_nowait, message)
        self._port, self._clean = port, clean
        self._properties = paho_properties.Properties(paho_packets.PacketTypes.CONNECT)
        if expiry:
            self._properties.SessionExpiryInterval = expiry
        if maximum:
            self._properties.TopicAliasMaximum = maximum

    async def __aenter__(self) -> Paho:
        await asyncio.to_thread(
            self.client.connect, "127.0.0.1", self._port, clean_start=self._clean, properties=self._properties
        )
        self.client.loop_start()
        self.flags, code, self.told = await within(self.connected.get())
        assert not code.is_failure
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.client.disconnect()
        await asyncio.to_thread(self.client.loop_stop)

    async def subscribe(self, topic_filter: str, qos: int, **options: Any) -> list[int]:
        number = options.pop("identifier", None)
        properties = paho_properties.Properties(paho_packets.PacketTypes.SUBSCRIBE)
        if number is not None:
            properties.SubscriptionIdentifier = number
        self.client.subscribe(
            topic_filter, options=paho_options.SubscribeOptions(qos, **options), properties=properties
        )
        return await within(self.subscribed.get())

    async def publish(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False, **properties: Any) -> int:
        given = paho_properties.Properties(paho_packets.PacketTypes.PUBLISH)
        for name, value in properties.items():
            setattr(given, name, value)
        info = self.client.publish(topic, payload, qos, retain, given)
        await asyncio.to_thread(info.wait_for_publish, TIMEOUT)
        assert info.is_published()
        return int(info.rc)

    async def message(self) -> Any:
        return await within(self.messages.get())


async def within(awaitable: Any) -> Any:
    async with asyncio.timeout(TIMEOUT):
        return await awaitable


async def until(condition: Any) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.02)


async def test_properties_go_through(backend: str, certificates: Certificates) -> None:
    async with serving(backend, certificates) as ours, Paho(ours.ports["tcp"], "a") as a:
        assert await a.subscribe("with/#", 2, identifier=7) == [2]
        await a.publish(
            "with/properties",
            bytes(range(256)),
            2,
            PayloadFormatIndicator=0,
            MessageExpiryInterval=1000,
            ContentType="image/grüße",
            ResponseTopic="answers",
            CorrelationData=b"\0\xff",
            UserProperty=[("a", "1"), ("a", "2")],
        )
        message = await a.message()
    assert (message.topic, message.payload, message.qos) == ("with/properties", bytes(range(256)), 2)
    told = message.properties
    assert 990 < told.MessageExpiryInterval <= 1000
    assert (told.ContentType, told.ResponseTopic, told.CorrelationData) == ("image/grüße", "answers", b"\0\xff")
    assert (told.UserProperty, told.SubscriptionIdentifier) == ([("a", "1"), ("a", "2")], [7])


async def test_session_waits_for_its_client(backend: str, certificates: Certificates) -> None:
    async with serving(backend, certificates) as ours:
        port = ours.ports["tcp"]
        async with Paho(port, "sleeper", clean=False, expiry=600) as sleeper:
            assert not sleeper.flags.session_present
            assert await sleeper.subscribe("news", 2) == [2]
        await until(lambda: ours.broker.clients() == [])
        async with Paho(port, "other") as other:
            for number in range(50):
                await other.publish("news", b"%d" % number, 1 + number // 25)
        async with Paho(port, "sleeper", clean=False, expiry=600) as sleeper:
            assert sleeper.flags.session_present
            messages = [await sleeper.message() for _ in range(50)]
            assert [(m.payload, m.qos) for m in messages] == [(b"%d" % n, 1 + n // 25) for n in range(50)]
            await sleeper.subscribe("end", 0)
            await sleeper.publish("end", b"")
            assert (await sleeper.message()).topic == "end"  # there was nothing twice


async def test_taken_over(backend: str, certificates: Certificates) -> None:
    async with serving(backend, certificates) as ours:
        async with Paho(ours.ports["tcp"], "twin") as first:
            async with Paho(ours.ports["tcp"], "twin") as second:
                assert await within(first.disconnected.get()) == 0x8E
                await second.subscribe("x", 1)
                await second.publish("x", b"still here")
                assert (await second.message()).payload == b"still here"


async def test_shared_subscription(backend: str, certificates: Certificates) -> None:
    async with serving(backend, certificates) as ours, AsyncExitStack() as stack:
        port = ours.ports["tcp"]
        workers = [await stack.enter_async_context(Paho(port, f"worker-{number}")) for number in range(3)]
        for worker in workers:
            assert await worker.subscribe("$share/team/jobs/#", 1) == [1]
        boss = await stack.enter_async_context(Paho(port, "boss"))
        for number in range(60):
            await boss.publish("jobs/one", b"%d" % number)
        await until(lambda: sum(worker.messages.qsize() for worker in workers) == 60)
        shares = [worker.messages.qsize() for worker in workers]
        assert min(shares) > 0  # the work is divided
        done = [int((await worker.message()).payload) for worker in workers for _ in range(worker.messages.qsize())]
        assert sorted(done) == list(range(60))


async def test_options_of_a_subscription(backend: str, certificates: Certificates) -> None:
    async with (
        serving(backend, certificates) as ours,
        Paho(ours.ports["tcp"], "a") as a,
        Paho(ours.ports["tcp"], "b") as b,
    ):
        await b.publish("kept", b"old", retain=True)
        await a.subscribe("kept", 1, noLocal=True, retainAsPublished=True, retainHandling=2)
        await a.publish("kept", b"my own")
        await b.publish("kept", b"new", retain=True)
        message = await a.message()
        assert (message.payload, message.retain) == (b"new", True)
        await a.subscribe("kept", 1)
        message = await a.message()
        assert (message.payload, message.retain) == (b"new", True)
        await b.publish("kept", b"newer", retain=True)
        message = await a.message()
        assert (message.payload, message.retain) == (b"newer", False)


async def test_many_messages_both_ways(backend: str, certificates: Certificates) -> None:
    """More than any window: flow control of both sides."""
    count = 1000
    async with serving(backend, certificates) as ours, Paho(ours.ports["tcp"], "a") as a:
        await a.subscribe("echo", 2)
        infos = [a.client.publish("echo", b"%d" % number, 2) for number in range(count)]
        got = [int((await a.message()).payload) for _ in range(count)]
        assert got == list(range(count))
        await asyncio.to_thread(infos[-1].wait_for_publish, TIMEOUT)


# -- one port for all --------------------------------------------------------------------------------------------------


async def test_http_and_mqtt_on_one_port(backend: str, certificates: Certificates, tmp_path: Path) -> None:
    def handler(conn: asyncmg.Connection, ev: int, data: Any) -> None:
        if ev == asyncmg.MG_EV_HTTP_MSG:
            conn.reply(200, "here is HTTP\n")

    async with serving(backend, certificates) as ours:
        port = ours.broker.listen("http://127.0.0.1:0", handler).port
        async with running(peer("curl"), "-sS", "--max-time", "20", f"http://127.0.0.1:{port}/") as process:
            assert await process.rest() == ["here is HTTP"]
        await exchange(BY_NAME["mosquitto"], port, 5)
        await exchange(BY_NAME["paho"], port, 5, "ws")
