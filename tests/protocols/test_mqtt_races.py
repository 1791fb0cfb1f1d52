"""The broker when things happen at the same time: ends while hooks are asked, refusals while messages come, storms."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from asyncmg import BrokerClient, BrokerMessage, BufferLimits, ConnectAttempt, Limits, MqttLimits, NetLimits
from asyncmg.broker.link import Link
from asyncmg.codecs import mqtt as m
from asyncmg.codecs.http import Role
from asyncmg.codecs.mqtt_encode import (
    encode_ack,
    encode_auth,
    encode_connect,
    encode_disconnect,
    encode_publish,
    encode_subscribe,
)
from asyncmg.codecs.mqtt_portable import PortableMqttCodec
from asyncmg.codecs.mqtt_properties import Property
from asyncmg.errors import InvalidPacket

from .conftest import Harness, eventually, soon
from .mqtt_peer import BrokerHarness, serving
from .ws_peer import WHOLE_BINARY, masked, read_frame, shake_hands

FOREVER = {Property.SESSION_EXPIRY_INTERVAL: 1000}
MALFORMED = b"\x36\x05\x00\x01a\x00\x01"  # QoS 3


def loop_errors() -> list[dict[str, Any]]:
    """Return a list of what the loop's exception handler gets from now on."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: found.append(context))
    return found


class Gate:
    """A hook that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def __call__(self, *args: Any) -> Any:
        self.asked += 1
        return await asyncio.shield(self.answer)


# -- hooks -------------------------------------------------------------------------------------------------------------


async def test_a_connection_that_was_refused_while_it_was_judged_touches_nothing(harness: Harness) -> None:
    async def authenticate(attempt: ConnectAttempt) -> Any:
        return True if attempt.client.username == "first" else await gate()

    gate = Gate()
    async with serving(harness, authenticate=authenticate) as served:
        first = await served.client("c", username="first", properties=FOREVER)
        peer = await served.peer()
        peer.send(encode_connect(5, "c", username="first2", will_topic="w") + b"\x00\x00")
        other = await served.peer()
        other.send(encode_connect(5, "d") + b"\x00\x00")
        assert (await other.expect(m.Connack)).reason_code >= 0x80
        assert (await peer.expect(m.Connack)).reason_code >= 0x80
        assert gate.asked == 2
        gate.answer.set_result(True)
        await first.expect_nothing()
        assert served.broker.statistics().sessions == 1
    assert harness.errors == []


async def test_a_hook_that_is_cancelled_lets_nobody_wait_for_ever(harness: Harness) -> None:
    async def cancelled(*args: Any) -> bool:
        gone = asyncio.get_running_loop().create_future()
        gone.cancel()
        await gone
        return True

    async with serving(harness, authenticate=cancelled) as served:
        peer = await served.peer()
        assert (await peer.connect("c")).reason_code == m.SERVER_UNAVAILABLE
        await peer.expect_end()
    async with serving(harness, authorize_publish=cancelled) as served:
        peer = await served.client("c")
        peer.publish_now("a", b"x", 1, 1)
        await peer.expect_disconnect(m.IMPLEMENTATION_ERROR)
    async with serving(harness, authorize_delivery=cancelled) as served:
        peer = await served.client("c")
        await peer.subscribe("a")
        served.broker.publish("a", b"x")
        await peer.expect_nothing()
        served.broker.publish("a", b"x")
        await peer.expect_nothing()


@pytest.mark.parametrize("is_async", [False, True])
async def test_answers_that_no_packet_can_carry(harness: Harness, is_async: bool) -> None:
    def hook(verdict: Any) -> Any:
        async def later(*args: Any) -> Any:
            await asyncio.sleep(0)
            return verdict

        return later if is_async else lambda *args: verdict

    for verdict in (1, 2, 0x7F, 300, -1):
        async with serving(harness, authorize_subscribe=hook(verdict)) as served:
            peer = await served.client()
            peer.send(encode_subscribe(5, 1, [("a", 2)]))
            await peer.expect_disconnect(m.IMPLEMENTATION_ERROR)
            assert served.broker.publish("a", b"x") == 0
        async with serving(harness, authorize_publish=hook(verdict)) as served:
            peer = await served.client()
            peer.publish_now("a", b"x", 1, 1)
            await peer.expect_disconnect(m.IMPLEMENTATION_ERROR)
        async with serving(harness, authenticate=hook(verdict)) as served:
            peer = await served.peer()
            assert (await peer.connect()).reason_code == m.SERVER_UNAVAILABLE
            await peer.expect_end()
    assert {type(error) for error in harness.errors} == {ValueError}
    # Reason codes that the packet in question does not have: the client is told of the refusal all the same.
    async with serving(harness, authorize_subscribe=hook(m.SERVER_SHUTTING_DOWN)) as served:
        for version, code in ((4, 0x80), (5, m.NOT_AUTHORIZED)):
            peer = await served.client(version=version)
            assert await peer.subscribe("a") == [code]
    async with serving(harness, authorize_publish=hook(m.BANNED)) as served:
        peer = await served.client()
        assert await peer.publish("a", b"x", 1) == m.NOT_AUTHORIZED
        assert await peer.publish("a", b"x", 2) == m.NOT_AUTHORIZED
    async with serving(harness, authenticate=hook(m.SERVER_SHUTTING_DOWN)) as served:
        peer = await served.peer()
        assert (await peer.connect()).reason_code == m.NOT_AUTHORIZED
        await peer.expect_end()


async def test_publishing_inside_hooks_and_receivers(harness: Harness) -> None:
    holder: list[BrokerHarness] = []

    def authorize(client: BrokerClient, message: BrokerMessage) -> bool:
        if message.topic == "ask":
            for number in range(3):
                holder[0].broker.publish("echo", b"%d" % number, number)
        return True

    async with serving(harness, authorize_publish=authorize) as served:
        holder.append(served)
        peers = [await served.client() for _ in range(6)]
        for peer in peers:
            await peer.subscribe("echo", "ask")
        peers[0].publish_now("ask", b"?")
        for peer in peers:
            got = [await peer.message() for _ in range(4)]
            assert [message.payload for message in got] == [b"0", b"1", b"2", b"?"]

        async def answer() -> None:
            with served.broker.subscribe("ping") as messages:
                async for message in messages:
                    served.broker.publish("echo", message.payload)
                    if message.payload == b"9":
                        return

        answering = asyncio.create_task(answer())
        await asyncio.sleep(0)
        for number in range(10):
            served.broker.publish("ping", b"%d" % number)
        await soon(answering)
        for peer in peers:
            assert [(await peer.message()).payload for _ in range(10)] == [b"%d" % number for number in range(10)]


async def test_a_delivery_hook_may_publish(harness: Harness) -> None:
    holder: list[BrokerHarness] = []

    def authorize(client: BrokerClient, message: BrokerMessage) -> bool:
        if message.topic == "a":
            holder[0].broker.publish("b", message.payload)
        return True

    async with serving(harness, authorize_delivery=authorize) as served:
        holder.append(served)
        peer = await served.client()
        await peer.subscribe("a", "b")
        served.broker.publish("a", b"x")
        assert sorted([(await peer.message()).topic for _ in range(2)]) == ["a", "b"]


async def test_a_broker_that_ends_while_hooks_are_asked(harness: Harness) -> None:
    gate = Gate()
    async with serving(harness, authenticate=gate) as served:
        peer = await served.peer()
        peer.send(encode_connect(5, "c"))
        await eventually(lambda: gate.asked)
        await served.broker.shutdown(0)
        await peer.expect_end()
        assert not served.broker._broker.links
    gate.answer.cancel()
    assert harness.errors == []


# -- connections that end ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("way", ["malformed", "alias", "administrator", "unasked"])
async def test_nothing_is_sent_behind_the_end(harness: Harness, version: int, way: str) -> None:
    """[MQTT-3.14.4-1]: while a connection that was ended lingers, its session is without one."""
    errors = loop_errors()
    own: dict[str, Any] = {"clean_start": False, **({"properties": FOREVER} if version == 5 else {})}
    async with serving(harness) as served:
        peer = await served.client("c", version, **own)
        await peer.subscribe(("a", 1), ("b", 0))
        others = [await served.client() for _ in range(5)]
        for other in others:
            await other.subscribe(("b", 0))
        if way == "alias" and version == 5:
            peer.publish_now("", b"x", properties={Property.TOPIC_ALIAS: 1})
        elif way == "administrator":
            served.broker.disconnect("c")
        elif way == "unasked" and version == 5:
            peer.send(encode_auth(5, m.REAUTHENTICATE, {Property.AUTHENTICATION_METHOD: "x"}, Role.CLIENT))
        else:
            peer.send(MALFORMED)
        if version == 5:
            await peer.expect(m.Disconnect)
        await peer.expect_end()
        for number in range(3):  # it has not closed its side
            served.broker.publish("a", b"%d" % number, 1)
            served.broker.publish("b", b"%d" % number, 0)
            await others[0].expect(m.Publish)
        for other in others[1:]:
            for number in range(3):
                assert (await other.message()).payload == b"%d" % number
        again = await served.client("c", version, **own)
        for number in range(3):
            message = await again.message()
            assert (message.payload, message.dup) == (b"%d" % number, False)
        await again.expect_nothing()
    assert errors == []


async def test_an_administrator_with_a_wrong_reason_code(harness: Harness) -> None:
    async with serving(harness) as served:
        peer = await served.client("c")
        with pytest.raises(InvalidPacket):
            served.broker.disconnect("c", 0x77)
        await peer.expect_nothing()
        assert len(served.broker.clients()) == 1
        old = await served.client("d", 4)
        assert served.broker.disconnect("d")
        await old.expect_end()


async def test_a_storm_of_take_overs(harness: Harness) -> None:
    async with serving(harness) as served:
        watcher = await served.client("watcher")
        await watcher.subscribe(("t", 1))
        peers = [await served.peer(4 + number % 2) for number in range(20)]
        for number, peer in enumerate(peers):
            peer.send(
                encode_connect(
                    peer.version,
                    "same",
                    number % 3 == 0,
                    will_topic="w",
                    properties=FOREVER if number % 4 == 1 else m.NO_PROPERTIES,
                )
                + encode_subscribe(peer.version, 1, [("t", 1)])
            )
        await eventually(lambda: served.broker.statistics().connects_accepted == 21)
        assert len(served.broker.clients()) == 2
        assert served.broker.statistics().sessions == 2
        assert served.broker._broker.connected == 2
        served.broker.publish("t", b"x", 1)
        await watcher.message()
        got = 0
        for peer in peers:
            try:
                while True:
                    packet = await peer.packet()
                    got += isinstance(packet, m.Publish)
                    if isinstance(packet, m.Publish):
                        break
            except (EOFError, ConnectionError):
                pass
            peer.vanish()
        assert got == 1
        await eventually(lambda: len(served.broker.clients()) == 1)


async def test_a_session_that_expires_while_its_client_comes_back(harness: Harness) -> None:
    async with serving(harness, mqtt=MqttLimits(max_session_expiry=0.02)) as served:
        for number in range(60):
            peer = await served.client("c", clean_start=False, properties=FOREVER)
            await peer.subscribe(("a", 1))
            assert len(served.broker.clients()) == 1
            assert served.broker.publish("a", b"x", 1) == 1
            await peer.message()
            await peer.disconnect()
            await asyncio.sleep(0.017 + number % 8 / 1000)
        await eventually(lambda: served.broker.statistics().sessions == 0)
        assert served.broker.statistics().subscriptions == 0


async def test_subscriptions_change_while_messages_are_collected(harness: Harness) -> None:
    async with serving(harness) as served:
        peers = [await served.client(f"{number}") for number in range(6)]
        for peer in peers:
            await peer.subscribe(("a", 0))
        busy = peers[0]
        busy.send(
            encode_publish(5, "a", b"0")
            + b"\xa2\x06\x00\x09\x00\x00\x01a"  # UNSUBSCRIBE
            + encode_publish(5, "a", b"1")
            + encode_subscribe(5, 10, [("a", 0), ("+", 0)])
            + encode_publish(5, "a", b"2")
            + encode_publish(5, "a", b"3", retain=True)
            + encode_publish(5, "a", b"4")
            + encode_disconnect(5)
        )
        for peer in peers[1:]:
            assert [(await peer.message()).payload for _ in range(5)] == [b"%d" % number for number in range(5)]
            await peer.expect_nothing()
        got = []
        while True:
            try:
                packet = await busy.packet()
            except EOFError:
                break
            if isinstance(packet, m.Publish):
                got.append(packet.payload)
        assert set(got) <= {b"0", b"2", b"3", b"4"} and got == sorted(got)


async def test_clients_that_come_and_go_leave_nothing_behind(harness: Harness) -> None:
    limits = Limits(mqtt=MqttLimits(max_session_expiry=1), net=NetLimits(linger_idle_timeout=0.2, linger_timeout=0.2))
    async with serving(harness, limits=limits) as served:
        broker = served.broker._broker
        for turn in range(6):
            peers = [await served.client(f"{turn % 2}-{number}", 4 + number % 2) for number in range(40)]
            for number, peer in enumerate(peers):
                peer.send(encode_subscribe(peer.version, 1, [(f"a/{number}", 2), ("all", number % 3)]))
                peer.publish_now("all", b"x" * 100)
            for number, peer in enumerate(peers):
                if number % 3 == 0:
                    peer.send(encode_disconnect(peer.version))
                elif number % 3 == 1:
                    peer.send(MALFORMED)
                peer.vanish() if number % 3 else peer.peer.writer.close()
        await eventually(lambda: not broker.links and not broker.sessions)
        assert (broker.addresses, broker.connected, broker._checked) == ({}, 0, {})
        assert len(broker.routes) == 0 and not broker.fan_out.messages
        broker.routes._found.clear()
        gc.collect()
        await asyncio.sleep(0)
        alive = [item for item in gc.get_objects() if isinstance(item, Link) and item._broker is broker]
        assert alive == []


# -- slow ones ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["wait", "drop", "close"])
async def test_a_websocket_client_that_does_not_read(harness: Harness, policy: Any) -> None:
    """Whatever is done about slow clients: the bytes in a tunnel are those of whole packets."""
    limits = Limits(buffers=BufferLimits(slow_client=policy))
    async with serving(harness, limits=limits) as served:
        port = served.broker.listen("ws://127.0.0.1:0").port
        peer = await harness.peer(port)
        await shake_hands(peer, "Sec-WebSocket-Protocol: mqtt")
        peer.send(masked(WHOLE_BINARY, encode_connect(4, "slow") + encode_subscribe(4, 1, [("a", 1), ("b", 0)])))
        await eventually(lambda: served.broker.statistics().subscriptions == 2)
        for number in range(600):
            served.broker.publish("a", b"%4d" % number + b"x" * 20_000, 1)
            served.broker.publish("b", b"%4d" % number + b"y" * 20_000, 0)
            if not peer.writer.transport.is_closing():
                peer.send(masked(WHOLE_BINARY, b"\xc0\x00"))
            await asyncio.sleep(0)
        codec = PortableMqttCodec(Role.CLIENT, MqttLimits(), 4)
        pings = 0
        try:
            while pings < 600:
                frame = await read_frame(peer)
                if frame.flags != WHOLE_BINARY:
                    break
                for packet in codec.receive_data(frame.payload):
                    pings += packet is m.PING_RESPONSE
                    if isinstance(packet, m.Publish) and packet.qos:
                        peer.send(masked(WHOLE_BINARY, encode_ack(4, m.PUBACK, packet.packet_id)))
                assert codec.error is None, codec.error
        except (EOFError, ConnectionError):
            assert policy == "close"
        assert policy == "close" or pings == 600


async def test_many_retained_messages_with_qos_1_reach_a_slow_reader(harness: Harness) -> None:
    """More than a session's queue holds: they wait where they are."""
    async with serving(harness, mqtt=MqttLimits(max_queued=50, max_inflight=8)) as served:
        for number in range(400):
            served.broker.publish(f"n/{number}", b"x", 1 + number % 2, retain=True)
        peer = await served.client()
        await peer.subscribe(("n/#", 2))
        got = [(await peer.message()).topic for _ in range(400)]
        assert sorted(got) == sorted(f"n/{number}" for number in range(400))
        assert served.broker.statistics().messages_dropped == 0
        await peer.expect_nothing()


async def test_a_session_keeps_the_retained_messages_that_it_has_not_got(harness: Harness) -> None:
    async with serving(harness, mqtt=MqttLimits(max_inflight=2)) as served:
        for number in range(20):
            served.broker.publish(f"n/{number}", b"x", 1, retain=True)
        peer = await served.client("c", properties=FOREVER)
        await peer.subscribe(("n/#", 1))
        for _ in range(2):
            await peer.message(acknowledges=False)
        peer.vanish()
        await eventually(lambda: not served.broker.clients())
        peer = await served.client("c", clean_start=False, properties=FOREVER)
        got = [(await peer.message()).topic for _ in range(20)]
        assert sorted(got) == sorted(f"n/{number}" for number in range(20))
