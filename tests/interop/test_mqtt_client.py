"""Our MQTT client with brokers of others: mosquitto, aedes, amqtt; and with clients of others through mosquitto."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import asyncmg
from asyncmg import (
    ConnectFailed,
    ConnectionClosed,
    LocalProtocolError,
    MqttClient,
    MqttMessage,
    MqttRefused,
    MqttWill,
    TlsOpts,
)

from .mqtt_peers import (
    CLIENTS,
    TIMEOUT,
    Certificates,
    Job,
    PeerBroker,
    PeerClient,
    Transport,
    aedes_broker,
    amqtt_broker,
    free_ports,
    make_certificates,
    mosquitto_broker,
    mosquitto_options,
    running,
)
from .peers import peer

# Environments of peers are made at the first time.
pytestmark = pytest.mark.timeout(240)

# Both sides of the borders between lengths of a remaining length, and UTF-8 sequences of every length.
TEXTS = ("a", "grüße €, 𝄞", "x" * 111, "x" * 128, "é" * 8_200, "0123456789" * 7_000)
SCHEMES: dict[Transport, str] = {"tcp": "mqtt", "tls": "mqtts", "ws": "ws", "wss": "wss"}
BROKERS: dict[str, Callable[[Path, Certificates], AbstractAsyncContextManager[PeerBroker]]] = {
    "mosquitto": mosquitto_broker,
    "aedes": aedes_broker,
    "amqtt": amqtt_broker,
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def mosquitto(tmp_path: Path, certificates: Certificates) -> AsyncIterator[PeerBroker]:
    async with mosquitto_broker(tmp_path, certificates) as broker:
        yield broker


@asynccontextmanager
async def connected(
    broker: PeerBroker, transport: Transport = "tcp", certificates: Certificates | None = None, **options: Any
) -> AsyncIterator[MqttClient]:
    """Connect our client; a test that waits for ever fails here."""
    url = f"{SCHEMES[transport]}://localhost:{broker.ports[transport]}"
    if transport in ("ws", "wss"):
        url += "/mqtt"
    if transport in ("tls", "wss"):
        assert certificates is not None
        options["tls"] = TlsOpts(ca=certificates.ca.read_bytes())
    async with asyncio.timeout(120), asyncmg.mqtt_connect(url, **options) as mq:
        yield mq


async def take(mq: Any, count: int) -> list[MqttMessage]:
    async with asyncio.timeout(TIMEOUT):
        return [await anext(mq) for _ in range(count)]


def told(message: MqttMessage) -> list[Any]:
    return [message.topic, message.text, message.qos, message.retain]


# -- every broker ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "version"), [("mosquitto", 4), ("mosquitto", 5), ("aedes", 4), ("amqtt", 4)])
async def test_every_broker(name: str, version: int, backend: str, tmp_path: Path, certificates: Certificates) -> None:
    async with BROKERS[name](tmp_path, certificates) as broker:
        for transport in broker.ports:
            async with (
                connected(broker, transport, certificates, version=version, client_id="subscriber") as subscriber,
                connected(broker, transport, certificates, version=version, client_id="publisher") as publisher,
            ):
                assert await subscriber.subscribe("interop/+", qos=2) == (2,)
                for qos in (0, 1, 2):
                    for text in TEXTS:
                        assert await publisher.publish("interop/a", text, qos=qos) == 0
                expected = [
                    ["interop/a", text, 2 if broker.raises_qos else qos, False] for qos in (0, 1, 2) for text in TEXTS
                ]
                assert [told(message) for message in await take(subscriber, len(expected))] == expected


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
async def test_every_client_on_the_other_side(client: PeerClient, mosquitto: PeerBroker, backend: str) -> None:
    port, version = mosquitto.ports["tcp"], client.versions[-1]
    expected = [["interop/a", text, qos, False] for qos in (0, 1, 2) for text in TEXTS]
    async with connected(mosquitto) as mq:
        subscriber = Job("subscribe", port, version, topic="interop/+", count=len(expected), id="subscriber")
        async with client.subscriber(subscriber) as received:
            for _, text, qos, _ in expected:
                await mq.publish("interop/a", text, qos=qos)
            assert await received() == expected
        await mq.subscribe("interop/#", qos=2)
        for qos in (0, 1, 2):
            await client.publish(Job("publish", port, version, qos=(qos,), payloads=TEXTS, id=f"publisher-{qos}"))
        assert [told(message) for message in await take(mq, len(expected))] == expected


# -- mosquitto ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [1, 2])
async def test_many_messages(qos: int, version: int, mosquitto: PeerBroker, backend: str) -> None:
    """Far more than the window of either side: mosquitto's is 20."""
    count = 5000
    async with connected(mosquitto, version=version) as mq:
        await mq.subscribe("many", qos=qos)

        async def publish() -> None:
            pending = []
            for number in range(count):
                pending.append(mq.publish_soon("many", b"%d" % number, qos=qos))
                if len(pending) == 500:
                    for delivery in pending:
                        assert await delivery == 0
                    pending.clear()

        publishing = asyncio.create_task(publish())
        messages = await take(mq, count)
        await publishing
        assert [int(message.payload) for message in messages] == list(range(count))
        assert {message.qos for message in messages} == {qos}
        assert not any(message.dup for message in messages)


@pytest.mark.parametrize("version", [4, 5])
async def test_retained_messages(version: int, mosquitto: PeerBroker, backend: str) -> None:
    async with connected(mosquitto, version=version) as mq:
        for name in ("a", "b", "c"):
            await mq.publish(f"kept/{name}", name, qos=1, retain=True)
        await mq.publish("kept/b", b"", qos=1, retain=True)
        await mq.subscribe("kept/#", qos=1)
        messages = await take(mq, 2)
        assert sorted(told(message) for message in messages) == [["kept/a", "a", 1, True], ["kept/c", "c", 1, True]]
        await mq.unsubscribe("kept/#")
        await mq.publish("kept/a", "not for us", qos=1)
        await mq.subscribe("end")
        await mq.publish("end", "end")
        assert [told(message) for message in await take(mq, 1)] == [["end", "end", 0, False]]


async def test_properties(mosquitto: PeerBroker, backend: str) -> None:
    properties = {
        "payload_format_indicator": 1,
        "message_expiry_interval": 1000,
        "content_type": "text/grüße",
        "response_topic": "answers",
        "correlation_data": b"\0\xff",
        "user_property": [("a", "1"), ("a", "2")],
    }
    async with connected(mosquitto) as mq:
        await mq.subscribe("with", qos=1, identifier=7)
        await mq.publish("with", "properties", qos=1, properties=properties)
        [message] = await take(mq, 1)
        found = {name.name.lower(): value for name, value in message.property_map.items()}
        assert 990 < found.pop("message_expiry_interval") <= 1000
        del properties["message_expiry_interval"]
        found["user_property"] = [tuple(pair) for pair in found["user_property"]]
        identifiers = found.pop("subscription_identifier")
        assert identifiers in (7, [7], (7,))
        assert found == properties


async def test_request_and_response(mosquitto: PeerBroker, backend: str) -> None:
    async with connected(mosquitto, client_id="asks") as asks, connected(mosquitto, client_id="answers") as answers:
        await answers.subscribe("question", qos=1)

        async def answer() -> None:
            async for message in answers:
                await answers.respond(message, message.payload.upper(), qos=1)

        answering = asyncio.create_task(answer())
        for text in ("a", "b"):
            assert (await asks.request("question", text, qos=1, timeout=TIMEOUT)).text == text.upper()
        answering.cancel()
        # mosquitto's own program asks, too.
        answering = asyncio.create_task(answer())
        options = mosquitto_options(Job("publish", mosquitto.ports["tcp"], 5, id="rr"))
        question = ["-t", "question", "-e", "answer/rr", "-m", "what is it", "-q", "1", "-W", "20"]
        async with running(peer("mosquitto_rr"), *options, *question) as process:
            assert await process.rest() == ["WHAT IS IT"]
        answering.cancel()


async def test_aliases(mosquitto: PeerBroker, backend: str) -> None:
    async with connected(mosquitto, aliases=True) as mq:
        await mq.subscribe("alias/#", qos=1)
        topics = [f"alias/{'x' * 100}/{number % 17}" for number in range(100)]
        for number, topic in enumerate(topics):
            await mq.publish(topic, str(number), qos=number % 2)
        messages = await take(mq, 100)
    assert sorted((int(message.text), message.topic) for message in messages) == list(enumerate(topics))


async def test_will(mosquitto: PeerBroker, backend: str) -> None:
    async with connected(mosquitto) as watch:
        await watch.subscribe("will/#", qos=1)
        for name, code in (("orderly", 0), ("with-will", 4)):
            will = MqttWill(f"will/{name}", b"gone", 1)
            async with connected(mosquitto, client_id=name, will=will) as mq:
                await mq.disconnect(code)
        [message] = await take(watch, 1)
        assert told(message) == ["will/with-will", "gone", 1, False]


async def test_session_waits_for_us(mosquitto: PeerBroker, backend: str) -> None:
    async with connected(mosquitto, client_id="sleeper", session_expiry=600) as mq:
        assert not mq.session_present
        await mq.subscribe("news", qos=2)
    async with connected(mosquitto) as other:
        for number in range(50):
            await other.publish("news", str(number), qos=1 + number // 25)
    async with connected(mosquitto, client_id="sleeper", session_expiry=600, clean_start=False) as mq:
        assert mq.session_present
        messages = await take(mq, 50)
        assert [(message.text, message.qos) for message in messages] == [(str(n), 1 + n // 25) for n in range(50)]


async def test_taken_over(mosquitto: PeerBroker, backend: str) -> None:
    """mosquitto closes the connection without a word; with ``reconnect`` the two would take turns."""
    async with connected(mosquitto, client_id="twin", reconnect=False) as first:
        async with connected(mosquitto, client_id="twin") as second:
            with pytest.raises(ConnectionClosed):
                await take(first, 1)
            await second.ping()


@pytest.mark.parametrize("version", [4, 5])
async def test_refused(version: int, tmp_path: Path, certificates: Certificates, backend: str) -> None:
    passwords = tmp_path / "passwords"
    async with running(peer("mosquitto_passwd"), "-c", "-b", passwords, "me", "secret") as process:
        await process.rest()
    passwords.chmod(0o644)
    more = f"password_file {passwords}\n"
    async with mosquitto_broker(tmp_path, certificates, more) as broker:
        with pytest.raises(MqttRefused) as refused:
            async with connected(broker, version=version, username="me", password="wrong"):
                pass
        assert refused.value.code in (0x86, 0x87)
        async with connected(broker, version=version, username="me", password="secret") as mq:
            await mq.ping()


async def test_other_authority(mosquitto: PeerBroker, tmp_path: Path, backend: str) -> None:
    with pytest.raises(ConnectFailed, match="certificate"):
        async with connected(mosquitto, "tls", make_certificates(tmp_path)):
            pass


async def test_maximum_packet_size(tmp_path: Path, certificates: Certificates, backend: str) -> None:
    async with mosquitto_broker(tmp_path, certificates, "max_packet_size 2000\n") as broker:
        async with connected(broker) as mq:
            with pytest.raises(LocalProtocolError):
                await mq.publish("large", b"x" * 2000, qos=1)
            assert await mq.publish("small", b"x" * 1900, qos=1) in (0, 0x10)


@pytest.mark.parametrize("version", [4, 5])
async def test_broker_goes_away_and_comes_back(
    version: int, tmp_path: Path, certificates: Certificates, backend: str
) -> None:
    """It forgets everything: subscriptions are made again, and what was published meanwhile comes then."""
    ports = free_ports(4)
    async with mosquitto_broker(tmp_path, certificates, ports=ports) as broker:
        url = f"mqtt://localhost:{broker.ports['tcp']}"
        mq = await asyncmg.mqtt_connect(url, version=version, client_id="stays")
        await mq.subscribe("kept/#", qos=1)
        await mq.publish("kept/a", "first", qos=1)
        assert [told(message) for message in await take(mq, 1)] == [["kept/a", "first", 1, False]]
    try:
        async with asyncio.timeout(TIMEOUT):
            while mq.is_connected:
                await asyncio.sleep(0.01)
        pending = [mq.publish_soon(f"kept/{number}", str(number), qos=1 + number % 2) for number in range(20)]
        async with mosquitto_broker(tmp_path, certificates, ports=ports):
            async with asyncio.timeout(90):
                for delivery in pending:
                    await delivery
            await mq.publish("kept/end", "end", qos=2)
            messages = await take(mq, 21)
            assert {message.text for message in messages} == {*map(str, range(20)), "end"}
            await mq.disconnect()
    finally:
        await mq.disconnect()
