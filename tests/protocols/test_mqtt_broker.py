"""The broker: sessions, messages, retained messages, wills, subscriptions, as clients see them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from asyncmg import BufferLimits, Limits, MemoryStore, MqttLimits
from asyncmg.codecs import mqtt as m
from asyncmg.codecs.mqtt_encode import encode_ack, encode_connect
from asyncmg.codecs.mqtt_properties import Property
from asyncmg.errors import InvalidPacket

from .conftest import Harness, eventually, soon
from .mqtt_peer import MqttPeer, serving

FOREVER = {Property.SESSION_EXPIRY_INTERVAL: 1000}


@pytest.mark.parametrize("version", [4, 5])
async def test_messages_come_with_the_lower_qos_of_both(harness: Harness, version: int) -> None:
    async with serving(harness) as served:
        publisher = await served.client("p", version)
        for granted in range(3):
            subscriber = await served.client(f"s{granted}", 9 - version)
            assert await subscriber.subscribe(("a/+", granted)) == [granted]
            for qos in range(3):
                await publisher.publish("a/b", b"x%d" % qos, qos)
                message = await subscriber.message()
                assert (message.topic, message.payload, message.qos) == ("a/b", b"x%d" % qos, min(qos, granted))
                assert (message.retain, message.dup) == (False, False)
            await subscriber.disconnect()


async def test_what_connack_tells(harness: Harness) -> None:
    async with serving(harness, mqtt=MqttLimits(max_session_expiry=60, max_topic_aliases=3)) as served:
        peer = await served.peer()
        connack = await peer.connect(properties={Property.SESSION_EXPIRY_INTERVAL: 0xFFFFFFFF})
        told = dict(connack.properties)
        assert str(told.pop(Property.ASSIGNED_CLIENT_IDENTIFIER)).startswith("auto-")
        assert told == {
            Property.SESSION_EXPIRY_INTERVAL: 60,
            Property.RECEIVE_MAXIMUM: 100,
            Property.MAXIMUM_PACKET_SIZE: 1 << 20,
            Property.TOPIC_ALIAS_MAXIMUM: 3,
        }
        old = await served.peer(4)
        assert await old.connect() == m.Connack(False, 0)
        assert {client.version for client in served.broker.clients()} == {4, 5}


@pytest.mark.parametrize("version", [4, 5])
async def test_nobody_subscribed_is_told_with_version_5(harness: Harness, version: int) -> None:
    async with serving(harness) as served:
        peer = await served.client(version=version)
        wanted = m.NO_MATCHING_SUBSCRIBERS if version == 5 else 0
        assert await peer.publish("a", b"x", 1) == wanted
        assert await peer.publish("a", b"x", 2) == wanted


async def test_a_repeated_qos_2_message_is_routed_once(harness: Harness) -> None:
    async with serving(harness) as served:
        peer = await served.client()
        await peer.subscribe(("a", 0))
        for dup in (False, True):
            peer.publish_now("a", b"x", 2, 7, dup=dup)
        assert (await peer.message()).payload == b"x"
        for _ in range(2):
            await peer.expect_ack(m.PUBREC, 7)
        for code in (0, m.PACKET_IDENTIFIER_NOT_FOUND):
            peer.send(encode_ack(5, m.PUBREL, 7))
            assert (await peer.expect_ack(m.PUBCOMP, 7)).reason_code == code
        await peer.expect_nothing()


async def test_an_unknown_pubrec_is_told_so(harness: Harness) -> None:
    async with serving(harness) as served:
        peer = await served.client()
        peer.send(encode_ack(5, m.PUBREC, 7))
        assert (await peer.expect_ack(m.PUBREL, 7)).reason_code == m.PACKET_IDENTIFIER_NOT_FOUND
        peer.send(encode_ack(5, m.PUBACK, 8) + encode_ack(5, m.PUBCOMP, 9))
        await peer.expect_nothing()


# -- retained ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
async def test_the_last_retained_message_greets_a_subscriber(harness: Harness, version: int) -> None:
    async with serving(harness) as served:
        peer = await served.client(version=version)
        for qos, payload in enumerate((b"old", b"older", b"new")):
            await peer.publish("a/b", payload, qos, retain=True)
        await peer.publish("a/c", b"gone", retain=True)
        await peer.publish("a/c", b"", retain=True)
        await peer.publish("b", b"of no interest", retain=True)
        await peer.subscribe(("a/#", 1))
        message = await peer.message()
        assert (message.topic, message.payload, message.qos, message.retain) == ("a/b", b"new", 1, True)
        await peer.expect_nothing()


async def test_a_live_message_has_its_retain_flag_only_if_asked_for(harness: Harness) -> None:
    async with serving(harness) as served:
        peer = await served.client()
        await peer.subscribe(("plain", 0), ("as/published", m.OPTION_RETAIN_AS_PUBLISHED))
        for topic, flag in (("plain", False), ("as/published", True)):
            peer.publish_now(topic, b"x", retain=True)
            assert (await peer.message()).retain is flag
        peer.publish_now("as/published", b"x")
        assert (await peer.message()).retain is False


async def test_retain_handling(harness: Harness) -> None:
    async with serving(harness) as served:
        peer = await served.client()
        await peer.publish("a", b"x", retain=True)
        for handling, comes in ((0x20, False), (0x10, False), (0x00, True), (0x00, True)):
            await peer.subscribe(("a", handling))
            if comes:
                assert (await peer.message()).payload == b"x"
            await peer.expect_nothing()
        await peer.unsubscribe("a")
        await peer.subscribe(("a", 0x10))
        assert (await peer.message()).payload == b"x"


async def test_retained_messages_are_bounded(harness: Harness) -> None:
    async with serving(harness, mqtt=MqttLimits(max_retained=3, max_retained_bytes=100)) as served:
        for number in range(5):
            served.broker.publish(f"n/{number}", b"x", retain=True)
        assert [message.topic for message in served.broker.retained("n/#")] == ["n/2", "n/1", "n/0"]
        served.broker.publish("n/0", b"x" * 200, retain=True)
        assert served.broker.retained("n/0") == []
        served.broker.publish("n/1", b"", retain=True)
        assert served.broker.statistics().retained_messages == 1


async def test_more_retained_messages_than_a_client_takes_at_once(harness: Harness) -> None:
    async with serving(harness) as served:
        for number in range(300):
            served.broker.publish(f"n/{number}", b"x" * 20_000, number % 3, retain=True)
        peer = await served.client()
        await peer.subscribe("n/#")
        await asyncio.sleep(0.2)  # it does not read: that is the point
        got = [await peer.message() for _ in range(300)]
        assert {message.topic for message in got} == {f"n/{number}" for number in range(300)}


# -- wills -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
async def test_a_will_is_published_when_a_client_vanishes(harness: Harness, version: int) -> None:
    async with serving(harness) as served:
        watcher = await served.client()
        await watcher.subscribe("will/#")
        for end, comes in (("vanish", True), ("disconnect", False), ("protocol error", True)):
            peer = await served.client(
                "w", version, will_topic="will/w", will_payload=end.encode(), will_qos=1, will_retain=end == "vanish"
            )
            if end == "vanish":
                peer.vanish()
            elif end == "disconnect":
                await peer.disconnect()
            else:
                peer.send(encode_connect(version, "again"))
            if comes:
                message = await watcher.message()
                assert (message.payload, message.qos) == (end.encode(), 1)
        await watcher.expect_nothing()
        assert served.broker.retained("will/w")[0].payload == b"vanish"


async def test_disconnect_with_will(harness: Harness) -> None:
    async with serving(harness) as served:
        watcher = await served.client()
        await watcher.subscribe("w")
        peer = await served.client(will_topic="w", will_payload=b"x")
        await peer.disconnect(m.DISCONNECT_WITH_WILL)
        assert (await watcher.message()).payload == b"x"


async def test_a_delayed_will_is_called_off_by_coming_back(harness: Harness) -> None:
    async with serving(harness) as served:
        watcher = await served.client()
        await watcher.subscribe("w")
        for _ in range(2):
            peer = await served.client(
                "c",
                clean_start=False,
                will_topic="w",
                will_properties={Property.WILL_DELAY_INTERVAL: 1},
                properties=FOREVER,
            )
            peer.vanish()
            await eventually(lambda: len(served.broker.clients()) == 1)
        await watcher.expect_nothing()
        assert (await soon(watcher.message())).topic == "w"
        await watcher.expect_nothing()


async def test_a_delayed_will_comes_at_once_when_the_session_ends(harness: Harness) -> None:
    async with serving(harness) as served:
        watcher = await served.client()
        await watcher.subscribe("w")
        late = {Property.WILL_DELAY_INTERVAL: 1000}
        peer = await served.client("c", will_topic="w", will_properties=late, properties=FOREVER)
        peer.vanish()
        await eventually(lambda: len(served.broker.clients()) == 1)
        await watcher.expect_nothing()
        await served.client("c", clean_start=True)
        assert (await watcher.message()).topic == "w"


async def test_an_expired_session_takes_its_will_along(harness: Harness) -> None:
    async with serving(harness) as served:
        watcher = await served.client()
        await watcher.subscribe("w")
        properties = {Property.SESSION_EXPIRY_INTERVAL: 1}
        late = {Property.WILL_DELAY_INTERVAL: 1000, Property.MESSAGE_EXPIRY_INTERVAL: 50, Property.CONTENT_TYPE: "t"}
        peer = await served.client("c", will_topic="w", will_properties=late, properties=properties)
        peer.vanish()
        message = await watcher.message()
        assert message.properties()[Property.CONTENT_TYPE] == "t"
        assert Property.WILL_DELAY_INTERVAL not in message.properties()
        assert served.broker.statistics().sessions == 1


# -- sessions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
async def test_a_session_gets_what_came_meanwhile(harness: Harness, version: int) -> None:
    own: dict[str, Any] = {"clean_start": False}
    if version == 5:
        own["properties"] = FOREVER
    async with serving(harness) as served:
        peer = await served.client("c", version, **own)
        await peer.subscribe("a/#")
        await peer.disconnect()
        publisher = await served.client()
        for number in range(100):
            await publisher.publish("a/b", b"%d" % number, 1 + number % 2)
        await publisher.publish("a/b", b"lost", 0)
        peer = await served.peer(version)
        assert (await peer.connect("c", **own)).session_present
        numbers: list[int] = []
        released = 0
        while len(numbers) < 100 or released < 50:
            packet = await peer.packet()
            if isinstance(packet, m.Publish):
                numbers.append(int(packet.payload))
                assert not packet.dup
                peer.send(encode_ack(version, m.PUBACK if packet.qos == 1 else m.PUBREC, packet.packet_id))
            elif isinstance(packet, m.Ack) and packet.type == m.PUBREL:
                released += 1
                peer.send(encode_ack(version, m.PUBCOMP, packet.packet_id))
        assert numbers == list(range(100))
        await peer.disconnect()
        peer = await served.peer(version)
        assert not (await peer.connect("c", clean_start=True)).session_present
        assert await publisher.publish("a/b", b"x", 1) == m.NO_MATCHING_SUBSCRIBERS


async def test_unacknowledged_messages_are_sent_again_in_their_order(harness: Harness) -> None:
    async with serving(harness) as served:
        peer = await served.client("c", properties=FOREVER)
        await peer.subscribe("a")
        for number in range(6):
            served.broker.publish("a", b"%d" % number, 1 + number % 2)
        first = [await peer.message(acknowledges=False) for _ in range(6)]
        peer.send(encode_ack(5, m.PUBACK, first[2].packet_id) + encode_ack(5, m.PUBREC, first[3].packet_id))
        await peer.expect_ack(m.PUBREL, first[3].packet_id)
        peer.vanish()
        await eventually(lambda: not served.broker.clients())
        peer = await served.client("c", clean_start=False, properties=FOREVER)
        await peer.expect_ack(m.PUBREL, first[3].packet_id)
        again = [await peer.message() for _ in range(4)]
        assert [(packet.packet_id, packet.payload) for packet in again] == [
            (first[number].packet_id, b"%d" % number) for number in (0, 1, 4, 5)
        ]
        assert all(packet.dup for packet in again)
        peer.send(encode_ack(5, m.PUBCOMP, first[3].packet_id))
        await peer.expect_nothing()


async def test_a_smaller_receive_maximum_holds_for_what_is_sent_again(harness: Harness) -> None:
    async with serving(harness) as served:
        peer = await served.client("c", properties=FOREVER)
        await peer.subscribe(("a", 1))
        for number in range(8):
            served.broker.publish("a", b"%d" % number, 1)
        for _ in range(8):
            await peer.message(acknowledges=False)
        peer.vanish()
        await eventually(lambda: not served.broker.clients())
        narrow = {**FOREVER, Property.RECEIVE_MAXIMUM: 2}
        peer = await served.client("c", clean_start=False, properties=narrow)
        for number in range(0, 8, 2):
            pair = [await peer.message(acknowledges=False) for _ in range(2)]
            assert [packet.payload for packet in pair] == [b"%d" % number, b"%d" % (number + 1)]
            await peer.expect_nothing()
            for packet in pair:
                await peer.acknowledge(packet)


async def test_a_client_that_comes_twice_takes_its_session_over(harness: Harness) -> None:
    async with serving(harness) as served:
        first = await served.client("c", properties=FOREVER, will_topic="w")
        await first.subscribe(("a", 1))
        watcher = await served.client()
        await watcher.subscribe("w")
        second = await served.peer()
        assert (await second.connect("c", clean_start=False, properties=FOREVER)).session_present
        await first.expect_disconnect(m.SESSION_TAKEN_OVER)
        assert (await watcher.message()).topic == "w"
        await watcher.publish("a", b"x", 1)
        assert (await second.message()).payload == b"x"
        assert len(served.broker.clients()) == 2


async def test_the_queue_of_a_session_is_bounded(harness: Harness) -> None:
    for policy, kept in (("drop_newest", [0, 1, 2]), ("drop_oldest", [7, 8, 9])):
        async with serving(harness, mqtt=MqttLimits(max_queued=3, on_full_queue=policy)) as served:  # type: ignore[arg-type]
            peer = await served.client("c", properties=FOREVER)
            await peer.subscribe(("a", 1))
            await peer.disconnect()
            for number in range(10):
                served.broker.publish("a", b"%d" % number, 1)
            assert served.broker.statistics().messages_dropped == 7
            peer = await served.client("c", clean_start=False)
            assert [int((await peer.message()).payload) for _ in kept] == kept
            await peer.expect_nothing()


async def test_the_bytes_of_a_queue_are_bounded(harness: Harness) -> None:
    async with serving(harness, mqtt=MqttLimits(max_queued_bytes=5000)) as served:
        peer = await served.client("c", properties=FOREVER)
        await peer.subscribe(("a", 1))
        await peer.disconnect()
        for number in range(10):
            served.broker.publish("a", b"%d" % number * 2000, 1)
        peer = await served.client("c", clean_start=False)
        for number in range(2):
            assert (await peer.message()).payload[:1] == b"%d" % number
        await peer.expect_nothing()
        served.broker.publish("a", b"again", 1)
        assert (await peer.message()).payload == b"again"


async def test_disconnect_can_shorten_the_life_of_a_session(harness: Harness) -> None:
    async with serving(harness) as served:
        peer = await served.client("c", properties=FOREVER)
        await peer.disconnect(0, {Property.SESSION_EXPIRY_INTERVAL: 0})
        await eventually(lambda: served.broker.statistics().sessions == 0)


async def test_sessions_outlive_a_broker_in_a_store(harness: Harness) -> None:
    store = MemoryStore()
    async with serving(harness, store=store) as served:
        peer = await served.client("c", properties=FOREVER)
        await peer.subscribe(("a", 2))
        served.broker.publish("a", b"0", 2)
        served.broker.publish("kept", b"retained", retain=True)
        await peer.message(acknowledges=False)
        await peer.disconnect()
        served.broker.publish("a", b"1", 1)
        await served.client("d")  # which has no session that outlives it
    async with serving(harness, store=store) as served:
        assert served.broker.statistics().sessions == 1
        assert served.broker.retained("kept")[0].payload == b"retained"
        peer = await served.peer()
        assert (await peer.connect("c", clean_start=False, properties=FOREVER)).session_present
        assert [(await peer.message()).payload for _ in range(2)] == [b"0", b"1"]
        assert served.broker.publish("a", b"2", 1) == 1
        assert (await peer.message()).payload == b"2"


async def test_messages_expire_in_the_queue(harness: Harness) -> None:
    async with serving(harness) as served:
        peer = await served.client("c", properties=FOREVER)
        await peer.subscribe(("a", 1))
        await peer.disconnect()
        served.broker.publish("a", b"short", 1, properties={Property.MESSAGE_EXPIRY_INTERVAL: 1})
        served.broker.publish("a", b"long", 1, properties={Property.MESSAGE_EXPIRY_INTERVAL: 100})
        served.broker.publish("r", b"short", 0, retain=True, properties={Property.MESSAGE_EXPIRY_INTERVAL: 1})
        await asyncio.sleep(1.2)
        peer = await served.client("c", clean_start=False)
        message = await peer.message()
        assert message.payload == b"long"
        left = message.properties()[Property.MESSAGE_EXPIRY_INTERVAL]
        assert isinstance(left, int) and 0 < left <= 99
        assert served.broker.retained("r") == []
        await peer.expect_nothing()


# -- subscriptions -----------------------------------------------------------------------------------------------------


async def test_a_shared_subscription_goes_round(harness: Harness) -> None:
    async with serving(harness) as served:
        peers = [await served.client(f"m{number}", properties=FOREVER) for number in range(3)]
        for peer in peers:
            assert await peer.subscribe(("$share/group/a/+", 1)) == [1]
        alone = await served.client("alone")
        await alone.subscribe(("a/b", 0))
        for number in range(6):
            served.broker.publish("a/b", b"%d" % number, 1)
        got = [[int((await peer.message()).payload) for _ in range(2)] for peer in peers]
        assert sorted(number for pair in got for number in pair) == list(range(6))
        assert [int((await alone.message()).payload) for _ in range(6)] == list(range(6))
        peers[0].vanish()
        await eventually(lambda: len(served.broker.clients()) == 3)
        for number in range(4):
            served.broker.publish("a/b", b"%d" % number, 1)
        for peer in peers[1:]:
            for _ in range(2):
                await peer.message()
            assert await peer.unsubscribe("$share/group/a/+") == [0]
        served.broker.publish("a/b", b"for the one that is away", 1)
        back = await served.client("m0", clean_start=False)
        assert (await back.message()).payload == b"for the one that is away"


async def test_no_local(harness: Harness) -> None:
    async with serving(harness) as served:
        first, second = await served.client("1"), await served.client("2")
        await first.subscribe(("a", 1 | m.OPTION_NO_LOCAL))
        assert await first.publish("a", b"own", 1) in (0, m.NO_MATCHING_SUBSCRIBERS)
        await second.publish("a", b"other", 1)
        assert (await first.message()).payload == b"other"


async def test_subscription_identifiers_of_all_that_match(harness: Harness) -> None:
    async with serving(harness) as served:
        peer = await served.client()
        await peer.subscribe(("a/#", 0), properties={Property.SUBSCRIPTION_IDENTIFIER: [7]})
        await peer.subscribe(("a/+", 2), properties={Property.SUBSCRIPTION_IDENTIFIER: [300]})
        await peer.subscribe(("b", 0))
        properties = {Property.USER_PROPERTY: [("k", "v")], Property.CONTENT_TYPE: "t"}
        served.broker.publish("a/b", b"x", 2, properties=properties)
        message = await peer.message()
        assert message.qos == 2
        assert sorted(message.properties()[Property.SUBSCRIPTION_IDENTIFIER]) == [7, 300]  # type: ignore[arg-type]
        assert message.properties()[Property.CONTENT_TYPE] == "t"
        assert message.properties()[Property.USER_PROPERTY] == [("k", "v")]
        await peer.expect_nothing()


@pytest.mark.parametrize("version", [4, 5])
async def test_unsubscribing(harness: Harness, version: int) -> None:
    async with serving(harness) as served:
        peer = await served.client(version=version)
        await peer.subscribe("a", "b/#")
        codes = await peer.unsubscribe("a", "never")
        assert codes == ([0, m.NO_SUBSCRIPTION_EXISTED] if version == 5 else [])
        assert served.broker.publish("a", b"x") == 0
        assert served.broker.publish("b/c/d", b"x") == 1
        assert (await peer.message()).topic == "b/c/d"


async def test_too_many_subscriptions(harness: Harness) -> None:
    async with serving(harness, mqtt=MqttLimits(max_subscriptions=2)) as served:
        for version, refusal in ((5, m.QUOTA_EXCEEDED), (4, 0x80)):
            peer = await served.client(version=version)
            assert await peer.subscribe("a", "b", "c", "a") == [2, 2, refusal, 2]
            await peer.unsubscribe("a")
            assert await peer.subscribe("c") == [2]


async def test_dollar_topics_are_the_brokers(harness: Harness) -> None:
    async with serving(harness, sys_interval=0.05) as served:
        peer = await served.client()
        await peer.subscribe(("#", 0), ("+/x", 0))
        assert await peer.publish("$x", b"1", 1) == m.NOT_AUTHORIZED
        assert await peer.publish("$x/x", b"1", 2) == m.NOT_AUTHORIZED
        await peer.publish("$x", b"1")
        await peer.expect_nothing()
        await eventually(lambda: served.broker.retained("$SYS/broker/clients/connected")[0].payload == b"1")
        await peer.subscribe(("$SYS/broker/clients/connected", 0))
        message = await peer.message()
        assert (message.topic, message.payload, message.retain) == ("$SYS/broker/clients/connected", b"1", True)
        await served.client()
        assert (await peer.message()).payload == b"2"


async def test_many_subscribers_get_all_in_order(harness: Harness) -> None:
    async with serving(harness) as served:
        peers = [await served.client(version=4 + number % 2) for number in range(12)]
        for number, peer in enumerate(peers):
            await peer.subscribe(("a/#", number % 3))
        publisher = await served.client()
        for number in range(60):
            publisher.publish_now("a/b" if number % 4 else "a/c", b"%d" % number, 0)
        for number in range(60, 90):
            await publisher.publish("a/b", b"%d" % number, 1)
        for peer in peers:
            assert [int((await peer.message()).payload) for _ in range(90)] == list(range(90))
            await peer.expect_nothing()
        assert served.broker.statistics().messages_dropped == 0


# -- limits of one connection ------------------------------------------------------------------------------------------


async def test_topic_aliases_of_a_client(harness: Harness) -> None:
    async with serving(harness, mqtt=MqttLimits(max_topic_aliases=2)) as served:
        watcher = await served.client()
        await watcher.subscribe(("a/#", 0))
        peer = await served.client()
        peer.publish_now("a/1", b"1", properties={Property.TOPIC_ALIAS: 1})
        peer.publish_now("", b"2", properties={Property.TOPIC_ALIAS: 1})
        peer.publish_now("", b"3", properties={Property.TOPIC_ALIAS: 1, Property.CONTENT_TYPE: "t"})
        peer.publish_now("a/2", b"4", properties={Property.TOPIC_ALIAS: 1, Property.CONTENT_TYPE: "t"})
        peer.publish_now("", b"5", properties={Property.TOPIC_ALIAS: 1})
        got = [await watcher.message() for _ in range(5)]
        assert [(packet.topic, packet.payload) for packet in got] == [
            ("a/1", b"1"),
            ("a/1", b"2"),
            ("a/1", b"3"),
            ("a/2", b"4"),
            ("a/2", b"5"),
        ]
        assert got[2].properties() == {Property.CONTENT_TYPE: "t"}
        peer.publish_now("", b"x", properties={Property.TOPIC_ALIAS: 2})
        await peer.expect_disconnect(m.PROTOCOL_ERROR)
        peer = await served.client()
        peer.publish_now("a", b"x", properties={Property.TOPIC_ALIAS: 3})
        await peer.expect_disconnect(m.TOPIC_ALIAS_INVALID)


async def test_topic_aliases_of_the_broker(harness: Harness) -> None:
    async with serving(harness) as served:
        peer = await served.client(properties={Property.TOPIC_ALIAS_MAXIMUM: 1})
        await peer.subscribe(("a/#", 1))
        got = []
        for number, topic in enumerate(("a/long/topic", "a/long/topic", "a/another/topic", "a/long/topic")):
            served.broker.publish(topic, b"x", number % 2)
            message = await peer.message()
            got.append((message.topic, message.properties().get(Property.TOPIC_ALIAS)))
        assert got == [("a/long/topic", 1), ("", 1), ("a/another/topic", None), ("", 1)]


async def test_what_is_too_large_for_a_client_is_not_sent(harness: Harness) -> None:
    async with serving(harness) as served:
        peer = await served.client(properties={Property.MAXIMUM_PACKET_SIZE: 100})
        await peer.subscribe(("a", 2))
        for qos in range(3):
            served.broker.publish("a", b"x" * 200, qos)
            served.broker.publish("a", b"small", qos)
            assert (await peer.message()).payload == b"small"
        assert served.broker.statistics().messages_dropped == 3


async def test_receive_maximum_of_the_client(harness: Harness) -> None:
    async with serving(harness) as served:
        peer = await served.client(properties={Property.RECEIVE_MAXIMUM: 2})
        await peer.subscribe(("a", 2))
        for number in range(5):
            served.broker.publish("a", b"%d" % number, 2)
        got = [await peer.message(acknowledges=False) for _ in range(2)]
        await peer.expect_nothing()
        peer.send(encode_ack(5, m.PUBREC, got[0].packet_id))
        await peer.expect_ack(m.PUBREL, got[0].packet_id)
        await peer.expect_nothing()
        peer.send(encode_ack(5, m.PUBCOMP, got[0].packet_id))
        assert (await peer.message(acknowledges=False)).payload == b"2"
        peer.send(encode_ack(5, m.PUBREC, got[1].packet_id, m.QUOTA_EXCEEDED))
        assert (await peer.message(acknowledges=False)).payload == b"3"


async def test_receive_maximum_of_the_broker(harness: Harness) -> None:
    async with serving(harness, mqtt=MqttLimits(receive_maximum=2)) as served:
        peer = await served.client()
        for number in (1, 2, 3):
            peer.publish_now("a", b"x", 2, number)
        for number in (1, 2):
            await peer.expect_ack(m.PUBREC, number)
        await peer.expect_disconnect(m.RECEIVE_MAXIMUM_EXCEEDED)


@pytest.mark.parametrize("version", [4, 5])
async def test_a_silent_client_is_gone(harness: Harness, version: int) -> None:
    async with serving(harness) as served:
        peer = await served.client(version=version, keep_alive=1)
        lively = await served.client(version=version, keep_alive=1)
        for _ in range(8):
            await asyncio.sleep(0.25)
            await lively.expect_nothing()
        if version == 5:
            await peer.expect_disconnect(m.KEEP_ALIVE_TIMEOUT)
        else:
            await peer.expect_end()
        await lively.expect_nothing()


async def test_a_client_that_says_nothing_at_all(harness: Harness) -> None:
    async with serving(harness, mqtt=MqttLimits(connect_timeout=0.1)) as served:
        peer = await served.peer()
        await peer.expect_end()


async def test_a_slow_reader_loses_messages_and_stalls_nobody(harness: Harness) -> None:
    async with serving(harness) as served:
        slow, lively = await served.client(), await served.client()
        for peer in (slow, lively):
            await peer.subscribe(("a", 0))
        got = 0
        for number in range(400):
            served.broker.publish("a", b"%4d" % number + b"x" * 50_000)
            if number % 4 == 3:
                for _ in range(4):
                    assert int((await lively.message()).payload[:4]) == got
                    got += 1
        dropped = served.broker.statistics().messages_dropped
        assert 0 < dropped < 400
        rest = [int((await slow.message()).payload[:4]) for _ in range(400 - dropped)]
        assert rest == sorted(rest)
        await slow.expect_nothing()


async def test_a_slow_reader_can_be_closed_instead(harness: Harness) -> None:
    limits = Limits(buffers=BufferLimits(slow_client="close"))
    async with serving(harness, limits=limits) as served:
        slow = await served.client()
        await slow.subscribe(("a", 0))
        for _ in range(400):
            served.broker.publish("a", b"x" * 50_000)
            await asyncio.sleep(0)
        await eventually(lambda: not served.broker.clients())


async def test_more_messages_per_second_than_allowed_wait(harness: Harness) -> None:
    async with serving(harness, mqtt=MqttLimits(max_message_rate=50)) as served:
        peer = await served.client()
        begun = asyncio.get_running_loop().time()
        for number in range(1, 101):
            peer.publish_now("a", b"x", 1, number)
        for number in range(1, 101):
            await peer.expect_ack(m.PUBACK, number)
        assert asyncio.get_running_loop().time() - begun >= 0.9
        await peer.expect_nothing()


async def test_connections_from_one_address_are_bounded(harness: Harness) -> None:
    async with serving(harness, mqtt=MqttLimits(max_per_address=2)) as served:
        first = await served.client()
        await served.client()
        await (await served.peer()).expect_end()
        await first.disconnect()
        await served.client()
        assert len(served.broker.clients()) == 2


async def test_sessions_are_bounded(harness: Harness) -> None:
    async with serving(harness, mqtt=MqttLimits(max_sessions=2)) as served:
        kept = await served.client("kept", properties=FOREVER)
        await kept.disconnect()
        await served.client("b")
        peer = await served.peer()
        assert (await peer.connect("c")).reason_code == m.QUOTA_EXCEEDED
        await peer.expect_end()
        await served.client("kept", clean_start=False)


# -- ends --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
async def test_wrong_packets_end_a_connection_and_no_other(harness: Harness, version: int) -> None:
    async with serving(harness) as served:
        other = await served.client()
        for wrong, code in (
            (encode_connect(version, "x"), m.PROTOCOL_ERROR),
            (b"\x30\x00", m.MALFORMED_PACKET),
            (b"\x36\x05\x00\x01a\x00\x01", m.MALFORMED_PACKET),
            (b"\x20\x02\x00\x00", m.PROTOCOL_ERROR),
            (b"\x30\xff\xff\xff\x7f", m.PACKET_TOO_LARGE),
        ):
            peer = await served.client(version=version)
            peer.send(wrong)
            if version == 5:
                await peer.expect_disconnect(code)
            else:
                await peer.expect_end()
        await other.expect_nothing()


async def test_wrong_first_packets(harness: Harness) -> None:
    async with serving(harness) as served:
        for data, answer in (
            (b"GET / HTTP/1.1\r\n\r\n", b""),
            (b"\xc0\x00", b""),
            (b"\x10\x0c\x00\x04MQTT\x03\x02\x00\x00\x00\x00", b"\x20\x02\x00\x01"),
            (encode_connect(4, "a" * 300), b"\x20\x02\x00\x02"),
        ):
            peer = await served.peer()
            peer.send(data)
            assert await peer.peer.read_all() == answer
        assert served.broker.statistics().sessions == 0


async def test_stopping_tells_the_clients(harness: Harness) -> None:
    async with serving(harness) as served:
        new, old = await served.client(version=5), await served.client(version=4)
        stopping = asyncio.create_task(served.broker.shutdown())
        await new.expect_disconnect(m.SERVER_SHUTTING_DOWN)
        await old.expect_end()
        for peer in (new, old):
            await peer.peer.close()
        await soon(stopping)
        with pytest.raises(OSError):
            await served.peer()


async def test_an_administrator_ends_a_connection(harness: Harness) -> None:
    async with serving(harness) as served:
        peer = await served.client("c")
        assert not served.broker.disconnect("nobody")
        assert served.broker.disconnect("c")
        await peer.expect_disconnect(m.ADMINISTRATIVE_ACTION)


# -- inside the program ------------------------------------------------------------------------------------------------


async def test_publishing_and_subscribing_inside_the_program(harness: Harness) -> None:
    async with serving(harness) as served:
        peer = await served.client()
        await peer.subscribe(("out/#", 1))
        with served.broker.subscribe("in/+", max_queued=3) as messages:
            assert served.broker.publish("out/x", "täxt", 2, properties={Property.CONTENT_TYPE: "t"}) == 1
            message = await peer.message()
            assert (message.payload.decode(), message.qos) == ("täxt", 1)
            for number in range(5):
                await peer.publish("in/x", b"%d" % number, 2)
            got = [await soon(anext(messages)) for _ in range(3)]
            assert [item.payload for item in got] == [b"2", b"3", b"4"]
            assert (got[0].topic, got[0].qos, messages.dropped) == ("in/x", 2, 2)
            waiting = asyncio.create_task(anext(messages))
            await asyncio.sleep(0)
            waiting.cancel()
            await peer.publish("in/y", b"5")
            assert (await soon(anext(messages))).topic == "in/y"
        with pytest.raises(StopAsyncIteration):
            await soon(anext(messages))
        assert await peer.publish("in/x", b"x", 1) == m.NO_MATCHING_SUBSCRIBERS


async def test_wrong_arguments_inside_the_program(harness: Harness) -> None:
    async with serving(harness) as served:
        broker = served.broker
        for topic in ("", "a/#", "+", "a\0", "x" * 2000):
            with pytest.raises(InvalidPacket):
                broker.publish(topic, b"x")
        with pytest.raises(InvalidPacket):
            broker.publish("a", b"x", 3)
        with pytest.raises(InvalidPacket):
            broker.publish("a", b"x", properties={Property.TOPIC_ALIAS: 0})
        with pytest.raises(TypeError):
            broker.publish("a", 5)  # type: ignore[arg-type]
        for topic_filter in ("", "a/#/b", "a+", "$share/g/a"):
            with pytest.raises(InvalidPacket):
                broker.subscribe(topic_filter)


async def test_two_brokers_in_one_program(harness: Harness) -> None:
    async with serving(harness) as first, serving(harness) as second:
        peers: list[MqttPeer] = []
        for served in (first, second):
            peer = await served.client("same")
            await peer.subscribe(("a", 0))
            peers.append(peer)
        first.broker.publish("a", b"1")
        second.broker.publish("a", b"2")
        assert [(await peer.message()).payload for peer in peers] == [b"1", b"2"]
    assert replace(MqttLimits(), max_retained=0).max_retained == 0
