"""Normative statements that concern a server (MQTT 5.0, and 3.1.1 where it differs), one test each.

Statements about single packets are the codecs' (tests/vectors); others of a broker's are in test_mqtt_broker.py.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from asyncmg import (
    MG_EV_MQTT_CMD,
    BrokerMessage,
    ConnectAttempt,
    Connection,
    MemoryStore,
    MqttLimits,
    PasswordFile,
    TlsOpts,
)
from asyncmg.broker.passwords import hash_password
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
from asyncmg.codecs.mqtt_properties import Property
from asyncmg.errors import InvalidPacket

from .conftest import Harness, eventually, soon
from .mqtt_peer import MqttPeer, serving
from .ws_peer import WHOLE_BINARY, masked, read_frame, shake_hands

FOREVER = {Property.SESSION_EXPIRY_INTERVAL: 1000}


# -- CONNECT -----------------------------------------------------------------------------------------------------------


async def test_mqtt_3_1_3_8_an_empty_client_identifier(harness: Harness) -> None:
    """[MQTT-3.1.3-6], [MQTT-3.1.3-7]; of 3.1.1 [MQTT-3.1.3-8]: not without a clean session."""
    async with serving(harness) as served:
        peer = await served.peer(4)
        peer.send(b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x00\x00\x00")
        assert await peer.expect(m.Connack) == m.Connack(False, 2)
        await peer.expect_end()
        new = await served.peer(5)
        connack = await new.connect("", clean_start=False)
        assert (connack.reason_code, connack.session_present) == (0, False)
        old = await served.client("", 4)
        assert str(connack.properties[Property.ASSIGNED_CLIENT_IDENTIFIER]) in [
            client.client_id for client in served.broker.clients()
        ]
        assert len(served.broker.clients()) == 2
        await old.expect_nothing()


@pytest.mark.parametrize("version", [4, 5])
async def test_mqtt_3_1_0_2_a_second_connect(harness: Harness, version: int) -> None:
    async with serving(harness) as served:
        peer = await served.client("c", version)
        peer.send(encode_connect(version, "c"))
        if version == 5:
            await peer.expect_disconnect(m.PROTOCOL_ERROR)
        else:
            await peer.expect_end()


@pytest.mark.parametrize("version", [4, 5])
async def test_mqtt_3_1_4_6_nothing_behind_a_refused_connect_is_processed(harness: Harness, version: int) -> None:
    async with serving(harness, authenticate=lambda attempt: False) as served:
        peer = await served.peer(version)
        peer.send(
            encode_connect(version, "c", will_topic="a")
            + encode_publish(version, "a", b"x", 1, retain=True, packet_id=1)
            + encode_subscribe(version, 2, [("a", 0)])
        )
        assert (await peer.expect(m.Connack)).reason_code == (m.BAD_USER_OR_PASSWORD if version == 5 else 4)
        await peer.expect_end()
        statistics = served.broker.statistics()
        assert (statistics.retained_messages, statistics.subscriptions, statistics.messages_received) == (0, 0, 0)


async def test_mqtt_3_1_2_8_a_clean_session_of_3_1_1_ends_with_its_connection(harness: Harness) -> None:
    """3.1.1 [MQTT-3.1.2-6]: state is not reused in any later session."""
    async with serving(harness) as served:
        peer = await served.client("c", 4, clean_start=True)
        await peer.subscribe("a")
        peer.vanish()
        await eventually(lambda: served.broker.statistics().sessions == 0)
        peer = await served.peer(4)
        assert not (await peer.connect("c", clean_start=False)).session_present
        other = await served.peer(4)
        assert (await other.connect("c", clean_start=False)).session_present
        await peer.expect_end()


async def test_mqtt_3_1_4_3_a_take_over_by_a_clean_start_ends_the_session(harness: Harness) -> None:
    """[MQTT-3.1.2-4], [MQTT-3.1.4-3]: the old connection is told, its delayed will is published, once."""
    async with serving(harness) as served:
        watcher = await served.client()
        await watcher.subscribe("w")
        late = {Property.WILL_DELAY_INTERVAL: 100}
        first = await served.client("c", will_topic="w", will_payload=b"1", will_properties=late, properties=FOREVER)
        await first.subscribe(("a", 1))
        served.broker.publish("a", b"x", 1)
        await first.message(acknowledges=False)
        second = await served.peer()
        connack = await second.connect("c", clean_start=True, will_topic="w", will_payload=b"2", properties=FOREVER)
        assert not connack.session_present
        await first.expect_disconnect(m.SESSION_TAKEN_OVER)
        assert (await watcher.message()).payload == b"1"
        assert served.broker.publish("a", b"x", 1) == 0
        await second.expect_nothing()
        await second.disconnect()
        await watcher.expect_nothing()


async def test_mqtt_3_1_3_9_a_client_that_is_back_calls_its_delayed_will_off(harness: Harness) -> None:
    async with serving(harness) as served:
        watcher = await served.client()
        await watcher.subscribe("w")
        late = {Property.WILL_DELAY_INTERVAL: 1}
        first = await served.client("c", will_topic="w", will_properties=late, properties=FOREVER)
        second = await served.client("c", clean_start=False, properties=FOREVER)
        await first.expect_disconnect(m.SESSION_TAKEN_OVER)
        await asyncio.sleep(1.3)
        await watcher.expect_nothing()
        await second.disconnect()


async def test_mqtt_3_1_2_24_no_packet_is_larger_than_the_client_takes(harness: Harness) -> None:
    """A new topic alias makes a packet larger than it would be without: then it goes without."""
    topic = "a/topic/of/some/length"
    async with serving(harness) as served:
        for payload, comes in ((b"x" * 20, True), (b"x" * 30, True), (b"x" * 31, False)):
            for qos in (0, 1):
                whole = encode_publish(5, topic, payload, qos, packet_id=qos)
                limit = len(encode_publish(5, topic, b"x" * 30, qos, packet_id=qos))
                properties = {Property.MAXIMUM_PACKET_SIZE: limit, Property.TOPIC_ALIAS_MAXIMUM: 5}
                peer = await served.client(properties=properties)
                await peer.subscribe((topic, qos))
                served.broker.publish(topic, payload, qos)
                if comes:
                    assert len(whole) <= limit
                    packet = await peer.expect(m.Publish)
                    again = encode_publish(
                        5, packet.topic, payload, qos, packet_id=packet.packet_id, properties=packet.raw_properties
                    )
                    assert len(again) <= limit
                    await peer.acknowledge(packet)
                served.broker.publish(topic, b"small", qos)
                packet = await peer.message()
                assert packet.payload == b"small"
                if not packet.topic:
                    assert packet.properties()[Property.TOPIC_ALIAS] == 1 and len(payload) == 20
                await peer.expect_nothing()
                await peer.disconnect()


async def test_mqtt_3_2_2_19_no_reason_string_that_makes_a_connack_too_large(harness: Harness) -> None:
    async def waits(attempt: ConnectAttempt) -> bool:
        await asyncio.sleep(60)
        return True

    async with serving(harness, authenticate=waits) as served:
        for limit, is_told in ((20, False), (1000, True)):
            peer = await served.peer()
            peer.send(encode_connect(5, "c", properties={Property.MAXIMUM_PACKET_SIZE: limit}) + b"\x00\x00")
            connack = await peer.expect(m.Connack)
            assert connack.reason_code >= 0x80
            assert (Property.REASON_STRING in connack.properties) is is_told


# -- PUBLISH -----------------------------------------------------------------------------------------------------------


async def test_mqtt_3_3_1_5_a_retained_message_that_is_not_kept_takes_the_old_one_along(harness: Harness) -> None:
    """3.1.1 [MQTT-3.3.1-7]: when the new one is discarded there must be no retained message for that topic."""
    store = MemoryStore()
    async with serving(harness, mqtt=MqttLimits(max_retained_bytes=50), store=store) as served:
        peer = await served.client()
        await peer.publish("a", b"old", 1, retain=True)
        await peer.publish("a", b"new" * 100, 1, retain=True)
        assert served.broker.retained("a") == []
        assert served.broker.statistics().retained_bytes == 0
        await peer.subscribe("a")
        await peer.expect_nothing()
    assert list(store.load()[1]) == []


async def test_mqtt_3_3_1_6_an_empty_retained_message_goes_to_subscribers(harness: Harness) -> None:
    """[MQTT-3.3.1-6], [MQTT-3.3.1-7]; 3.1.1 [MQTT-3.3.1-10], [MQTT-3.3.1-11]."""
    async with serving(harness) as served:
        peer = await served.client()
        await peer.subscribe(("a", 2 | m.OPTION_RETAIN_AS_PUBLISHED))
        await peer.publish("b", b"x", retain=True)
        for qos in range(3):
            served.broker.publish("a", b"", qos, retain=True)
            message = await peer.message()
            assert (message.payload, message.retain, message.qos) == (b"", True, qos)
        assert served.broker.retained("a") == []


async def test_mqtt_3_3_2_4_properties_are_passed_on_as_they_came(harness: Harness) -> None:
    """[MQTT-3.3.2-4], -15, -16, -17, -18, -20: in their order, live, retained, and to 3.1.1 none."""
    properties = {
        Property.PAYLOAD_FORMAT_INDICATOR: 1,
        Property.CONTENT_TYPE: "t",
        Property.RESPONSE_TOPIC: "r",
        Property.CORRELATION_DATA: b"\x00\xff",
        Property.USER_PROPERTY: [("a", "1"), ("b", "2"), ("a", "3")],
    }
    async with serving(harness) as served:
        new, old = await served.client(version=5), await served.client(version=4)
        for peer in (new, old):
            await peer.subscribe(("a", 1))
        publisher = await served.client()
        await publisher.publish("a", b"x", 1, retain=True, properties={**properties, Property.TOPIC_ALIAS: 3})
        assert (await new.message()).properties() == properties
        assert (await old.message()).payload == b"x"
        late = await served.client()
        await late.subscribe(("a", 0))
        assert (await late.message()).properties() == properties


@pytest.mark.parametrize("version", [4, 5])
async def test_mqtt_4_6_0_2_acknowledgements_come_in_the_order_of_the_messages(harness: Harness, version: int) -> None:
    """[MQTT-4.6.0-2], [MQTT-4.6.0-3], [MQTT-4.6.0-4], and [MQTT-4.6.0-6] for those who get them."""

    async def slow(client: Any, message: BrokerMessage) -> bool:
        await asyncio.sleep(int(message.payload) % 3 / 1000)
        return True

    for hook in (None, slow):
        async with serving(harness, authorize_publish=hook) as served:
            watcher = await served.client()
            await watcher.subscribe(("a", 1))
            peer = await served.client(version=version)
            for number in range(1, 31):
                peer.publish_now("a", b"%d" % number, 1 + number % 2, number)
            for number in range(1, 31):
                await peer.expect_ack(m.PUBREC if number % 2 else m.PUBACK, number)
            for number in range(1, 31, 2):
                peer.send(encode_ack(version, m.PUBREL, number))
            for number in range(1, 31, 2):
                await peer.expect_ack(m.PUBCOMP, number)
            assert [int((await watcher.message()).payload) for _ in range(30)] == list(range(1, 31))


@pytest.mark.parametrize("version", [4, 5])
async def test_mqtt_4_3_3_10_exactly_once_over_connections(harness: Harness, version: int) -> None:
    """[MQTT-4.3.3-10], [MQTT-4.4.0-1]: a repeated PUBLISH in the next connection is the same message."""
    own: dict[str, Any] = {"clean_start": False, **({"properties": FOREVER} if version == 5 else {})}
    async with serving(harness) as served:
        with served.broker.subscribe("a") as messages:
            peer = await served.client("c", version, **own)
            peer.publish_now("a", b"x", 2, 5)
            await peer.expect_ack(m.PUBREC, 5)
            peer.vanish()
            await eventually(lambda: not served.broker.clients())
            peer = await served.client("c", version, **own)
            peer.publish_now("a", b"x", 2, 5, dup=True)
            await peer.expect_ack(m.PUBREC, 5)
            peer.send(encode_ack(version, m.PUBREL, 5))
            await peer.expect_ack(m.PUBCOMP, 5)
            peer.publish_now("a", b"y", 2, 5)
            await peer.expect_ack(m.PUBREC, 5)
            assert [(await soon(anext(messages))).payload for _ in range(2)] == [b"x", b"y"]
            assert not messages._messages


async def test_a_client_with_3_1_1_may_have_any_number_of_messages_under_way(harness: Harness) -> None:
    """A receive maximum is told in 5.0 only; there are clients that send all they have at once."""
    async with serving(harness, mqtt=MqttLimits(receive_maximum=10)) as served:
        peer = await served.client(version=4)
        for number in range(1, 501):
            peer.publish_now("a", b"x", 2, number)
        for number in range(1, 501):
            await peer.expect_ack(m.PUBREC, number)
            peer.send(encode_ack(4, m.PUBREL, number))
        for number in range(1, 501):
            await peer.expect_ack(m.PUBCOMP, number)


async def test_mqtt_4_4_0_2_a_refused_message_is_done(harness: Harness) -> None:
    async with serving(harness) as served:
        peer = await served.client("c", properties=FOREVER)
        await peer.subscribe("a")
        for qos, kind in ((1, m.PUBACK), (2, m.PUBREC)):
            served.broker.publish("a", b"x", qos)
            packet = await peer.message(acknowledges=False)
            peer.send(encode_ack(5, kind, packet.packet_id, m.QUOTA_EXCEEDED))
            await peer.expect_nothing()
        peer.vanish()
        await eventually(lambda: not served.broker.clients())
        peer = await served.client("c", clean_start=False)
        await peer.expect_nothing()


# -- SUBSCRIBE ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
async def test_mqtt_3_8_4_3_a_subscription_is_replaced(harness: Harness, version: int) -> None:
    """[MQTT-3.8.4-3], [MQTT-3.8.4-4]: one message each, with the new QoS; retained messages come again."""
    async with serving(harness) as served:
        served.broker.publish("a", b"retained", 2, retain=True)
        peer = await served.client(version=version)
        for qos in (2, 0, 1):
            assert await peer.subscribe(("a", qos)) == [qos]
            assert ((packet := await peer.message()).qos, packet.retain) == (qos, True)
            served.broker.publish("a", b"live", 2)
            assert ((packet := await peer.message()).qos, packet.retain) == (qos, False)
            await peer.expect_nothing()
        assert served.broker.statistics().subscriptions == 1


@pytest.mark.parametrize("version", [4, 5])
async def test_mqtt_3_8_4_5_many_filters_in_one_packet_are_like_many_packets(harness: Harness, version: int) -> None:
    async with serving(harness) as served:
        served.broker.publish("a", b"retained", retain=True)
        peer = await served.client(version=version)
        assert await peer.subscribe(("a", 1), ("+", 0), ("a", 2), ("x/#", 1)) == [1, 0, 2, 1]
        for _ in range(3):
            assert (await peer.message()).payload == b"retained"
        assert await peer.unsubscribe("a", "a", "+") == ([0, 0x11, 0] if version == 5 else [])
        assert served.broker.statistics().subscriptions == 1


@pytest.mark.parametrize("version", [4, 5])
async def test_mqtt_4_7_2_1_wildcards_do_not_begin_with_a_dollar(harness: Harness, version: int) -> None:
    """[MQTT-4.7.2-1], [MQTT-4.7.1-2] ("#" stands for the parent as well), [MQTT-4.7.3-4]: no normalization."""
    async with serving(harness) as served:
        for topic_filter, topic, is_match in (
            ("#", "$x/a", False),
            ("+/a", "$x/a", False),
            ("$x/#", "$x/a", True),
            ("$x/+", "$x/a", True),
            ("a/#", "a", True),
            ("a/+", "a", False),
            ("a/+", "a/", True),
            ("+/+", "/a", True),
            ("+", "/a", False),
            ("A", "a", False),
            ("a/b", "a//b", False),
            ("\u00c5", "A\u030a", False),
        ):
            peer = await served.client(version=version)
            await peer.subscribe((topic_filter, 0))
            assert served.broker.publish(topic, b"x") == is_match, (topic_filter, topic)
            if is_match:
                await peer.message()
            await peer.expect_nothing()
            await peer.disconnect()


async def test_mqtt_4_8_2_shared_messages_of_a_session_that_ends_go_to_others(harness: Harness) -> None:
    """[MQTT-4.8.2-4] to [MQTT-4.8.2-6]: QoS 1 goes to another member, QoS 2 under way and what was refused does not."""
    async with serving(harness) as served:
        first = await served.client("1", properties={Property.RECEIVE_MAXIMUM: 4})
        await first.subscribe(("$share/g/a", 2), ("b", 1))
        for number in range(6):
            served.broker.publish("a", b"%d" % number, 1 if number != 1 else 2)
        served.broker.publish("b", b"its own", 1)
        got = [await first.message(acknowledges=False) for _ in range(4)]
        assert [packet.payload for packet in got] == [b"0", b"1", b"2", b"3"]
        second = await served.client("2")
        assert await second.subscribe(("$share/g/a", 2)) == [2]
        await second.expect_nothing()
        first.send(encode_ack(5, m.PUBACK, got[2].packet_id, m.QUOTA_EXCEEDED))
        await first.message(acknowledges=False)
        first.vanish()
        again = [await second.message() for _ in range(4)]
        assert [(packet.payload, packet.dup) for packet in again] == [
            (b"0", False),
            (b"3", False),
            (b"4", False),
            (b"5", False),
        ]
        await second.expect_nothing()
        await second.disconnect()
        assert served.broker.publish("a", b"x", 1) == 0


async def test_shared_messages_of_a_session_that_goes_on_wait_for_it(harness: Harness) -> None:
    async with serving(harness) as served:
        first = await served.client("1", properties=FOREVER)
        await first.subscribe(("$share/g/a", 1))
        served.broker.publish("a", b"x", 1)
        await first.message(acknowledges=False)
        second = await served.client("2")
        await second.subscribe(("$share/g/a", 1))
        first.vanish()
        await eventually(lambda: len(served.broker.clients()) == 1)
        await second.expect_nothing()
        first = await served.client("1", clean_start=False)
        assert (packet := await first.message()).payload == b"x" and packet.dup


async def test_a_filter_that_begins_with_share_is_refused_with_3_1_1(harness: Harness) -> None:
    async with serving(harness) as served:
        peer = await served.client(version=4)
        assert await peer.subscribe(("$share/g/a", 1), ("$share/+/a", 1), ("a", 1)) == [1, 0x80, 1]
        assert served.broker.publish("a", b"x", 1) == 2


# -- DISCONNECT and AUTH -----------------------------------------------------------------------------------------------


async def test_mqtt_3_14_2_2_a_session_that_was_to_end_cannot_be_kept_by_disconnect(harness: Harness) -> None:
    async with serving(harness) as served:
        watcher = await served.client()
        await watcher.subscribe("w")
        peer = await served.client("c", will_topic="w")
        peer.send(encode_disconnect(5, 0, FOREVER))
        await peer.expect_disconnect(m.PROTOCOL_ERROR)
        assert (await watcher.message()).topic == "w"
        await eventually(lambda: served.broker.statistics().sessions == 1)


async def test_mqtt_3_14_4_3_disconnect_takes_the_will_away_for_good(harness: Harness) -> None:
    async with serving(harness) as served:
        watcher = await served.client()
        await watcher.subscribe("w")
        late = {Property.WILL_DELAY_INTERVAL: 1}
        peer = await served.client("c", will_topic="w", will_properties=late, properties={**FOREVER})
        peer.send(encode_disconnect(5, 0, {Property.SESSION_EXPIRY_INTERVAL: 1}) + encode_publish(5, "w", b"no"))
        await peer.expect_end()
        await eventually(lambda: served.broker.statistics().sessions == 1)
        await watcher.expect_nothing()


def auth(code: int, data: bytes, method: str = "m") -> bytes:
    properties = {Property.AUTHENTICATION_METHOD: method, Property.AUTHENTICATION_DATA: data}
    return encode_auth(5, code, properties, Role.CLIENT)


async def asking(attempt: ConnectAttempt) -> Any:
    return await attempt.challenge(b"?") == b"!"


METHOD = {Property.AUTHENTICATION_METHOD: "m", Property.AUTHENTICATION_DATA: b""}


async def authenticated(peer: MqttPeer, client_id: str = "c", **kwargs: Any) -> None:
    peer.send(encode_connect(5, client_id, properties=METHOD, **kwargs))
    await peer.expect(m.Auth)
    peer.send(auth(m.CONTINUE_AUTHENTICATION, b"!"))
    assert (await peer.expect(m.Connack)).reason_code == 0


async def test_mqtt_4_12_1_other_packets_flow_while_a_client_authenticates_again(harness: Harness) -> None:
    async with serving(harness, authenticate=asking) as served:
        peer = await served.peer()
        await authenticated(peer)
        await peer.subscribe(("a", 1))
        peer.send(auth(m.REAUTHENTICATE, b""))
        await peer.expect(m.Auth)
        peer.publish_now("a", b"meanwhile", 1, 9)
        got = [await peer.packet() for _ in range(2)]
        assert {packet.type for packet in got} == {m.PUBLISH, m.PUBACK}
        await peer.expect_nothing()
        peer.send(encode_publish(5, "b", b"x", 1, packet_id=10) + auth(m.CONTINUE_AUTHENTICATION, b"!"))
        assert (await peer.expect(m.Ack)).packet_id == 10
        assert (await peer.expect(m.Auth)).reason_code == m.SUCCESS
        await peer.expect_nothing()
    assert harness.errors == []


async def test_mqtt_4_12_1_1_another_method_ends_the_connection(harness: Harness) -> None:
    """While a client authenticates again: by another method, or twice at once; and AUTH that nobody waits for."""
    async with serving(harness, authenticate=asking) as served:
        for wrong in (
            auth(m.CONTINUE_AUTHENTICATION, b"!", "other"),
            auth(m.REAUTHENTICATE, b""),
        ):
            peer = await served.peer()
            await authenticated(peer)
            peer.send(auth(m.REAUTHENTICATE, b""))
            await peer.expect(m.Auth)
            peer.send(wrong)
            await peer.expect_disconnect(m.PROTOCOL_ERROR)
        for wrong, code in (
            (auth(m.REAUTHENTICATE, b"", "other"), m.PROTOCOL_ERROR),
            (auth(m.CONTINUE_AUTHENTICATION, b""), m.PROTOCOL_ERROR),
        ):
            peer = await served.peer()
            await authenticated(peer)
            peer.send(wrong)
            await peer.expect_disconnect(code)
        await eventually(lambda: not served.broker.clients())
    assert harness.errors == []


async def test_auth_of_the_wrong_kind_before_connack(harness: Harness) -> None:
    async with serving(harness, authenticate=asking) as served:
        peer = await served.peer()
        peer.send(encode_connect(5, "c", properties=METHOD))
        await peer.expect(m.Auth)
        peer.send(auth(m.REAUTHENTICATE, b"!"))
        assert (await peer.expect(m.Connack)).reason_code == m.PROTOCOL_ERROR
        await peer.expect_end()
        assert served.broker.statistics().sessions == 0
    assert harness.errors == []


async def test_mqtt_3_1_2_30_a_client_may_leave_while_it_is_asked(harness: Harness) -> None:
    """Only AUTH and DISCONNECT may come before CONNACK."""
    async with serving(harness, authenticate=asking) as served:
        for leaves in (True, False):
            peer = await served.peer()
            peer.send(encode_connect(5, "c", properties=METHOD, will_topic="w"))
            await peer.expect(m.Auth)
            if leaves:
                peer.send(encode_disconnect(5))
                await peer.expect_end()
            else:
                peer.vanish()
            await eventually(lambda: not served.broker._broker.links)
        assert served.broker.statistics().sessions == 0
    assert harness.errors == []


async def test_mqtt_4_12_0_6_no_auth_without_a_method(harness: Harness) -> None:
    async with serving(harness, authenticate=asking) as served:
        peer = await served.peer()
        assert (await peer.connect("c")).reason_code == m.SERVER_UNAVAILABLE
        await peer.expect_end()


# -- raw events --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
async def test_mqtt_3_2_0_1_no_packet_before_connack_of_raw_events(harness: Harness, version: int) -> None:
    seen: list[int] = []
    gate = asyncio.Event()

    async def session(conn: Connection) -> None:
        async for ev, data in conn:
            if ev == MG_EV_MQTT_CMD:
                seen.append(data.cmd)
                if data.cmd == m.CONNECT:
                    await gate.wait()
                    conn.mqtt_connack(0 if data.packet.client_id == "good" else m.NOT_AUTHORIZED)

    listener = harness.manager(session).mqtt_listen("mqtt://127.0.0.1:0")
    peers = {name: MqttPeer(await harness.peer(listener.port), version) for name in ("good", "bad")}
    for name, peer in peers.items():
        peer.send(encode_connect(version, name) + encode_publish(version, "a", b"x", 1, packet_id=3))
    await eventually(lambda: len(seen) == 2)
    gate.set()
    connack = await peers["good"].expect(m.Connack)
    assert connack.reason_code == 0
    if version == 5:
        assert connack.properties[Property.RECEIVE_MAXIMUM] == MqttLimits().receive_maximum
    await peers["good"].expect_ack(m.PUBACK, 3)
    assert (await peers["bad"].expect(m.Connack)).reason_code == (m.NOT_AUTHORIZED if version == 5 else 5)
    await peers["bad"].expect_end()
    await eventually(lambda: len(seen) == 3)
    assert seen == [m.CONNECT, m.CONNECT, m.PUBLISH]


# -- whatever the connection runs through ------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["mqtts", "https", "wss", "https-ws"])
async def test_protected_listeners(harness: Harness, url: str) -> None:
    """Section 4.2; on a mixed port the first byte decides behind TLS as well."""
    import ssl

    import trustme

    ca = trustme.CA()
    leaf = ca.issue_cert("localhost", "127.0.0.1")
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    tls = TlsOpts(cert=chain, key=leaf.private_key_pem.bytes())
    context = ssl.create_default_context(cadata=ca.cert_pem.bytes().decode())
    scheme, _, tunnel = url.partition("-")
    attempts: list[ConnectAttempt] = []

    def authenticate(attempt: ConnectAttempt) -> bool:
        attempts.append(attempt)
        return True

    async with serving(harness, authenticate=authenticate) as served:
        port = served.broker.listen(f"{scheme}://127.0.0.1:0", tls=tls).port
        raw = await harness.peer(port, ssl=context)
        large = bytes(900_000)
        if scheme == "wss" or tunnel:
            await shake_hands(raw, "Sec-WebSocket-Protocol: mqtt")
            raw.send(masked(WHOLE_BINARY, encode_connect(4, "c") + encode_subscribe(4, 1, [("a", 1)])))
            received = b""
            while len(received) < 4 + 5:
                received += (await read_frame(raw)).payload
            served.broker.publish("a", large, 1)
            whole = len(encode_publish(4, "a", large, 1, packet_id=1))
            while len(received) < 9 + whole:
                received += (await read_frame(raw)).payload
            assert received.endswith(large)
        else:
            peer = MqttPeer(raw)
            await peer.connect("c")
            await peer.subscribe(("a", 1))
            await peer.publish("b", large, 2)
            served.broker.publish("a", large, 1)
            assert (await peer.message()).payload == large
        assert attempts[0].client.is_tls
        assert attempts[0].client.address[0] == "127.0.0.1"
        raw.reset()
        await eventually(lambda: not served.broker._broker.links)
        assert served.broker._broker.addresses == {}


async def test_a_listener_that_is_closed_while_its_connections_go_on(harness: Harness) -> None:
    async with serving(harness) as served:
        listener = served.broker.listen("mqtt://127.0.0.1:0")
        peer = MqttPeer(await harness.peer(listener.port))
        await peer.connect("c")
        await peer.subscribe(("a", 1))
        listener.close()
        other = await served.client()
        assert await other.publish("a", b"x", 1) == 0
        assert (await peer.message()).payload == b"x"


async def test_packets_of_the_largest_size(harness: Harness) -> None:
    async with serving(harness) as served:
        limit = MqttLimits().max_packet
        peer, watcher = await served.client(), await served.client()
        await watcher.subscribe(("a", 2))
        for qos in range(3):
            payload = bytes(limit - len(encode_publish(5, "a", b"", qos, packet_id=min(qos, 1))) - 3)
            await peer.publish("a", payload, qos)
            assert len((await watcher.message()).payload) == len(payload)
        peer.publish_now("a", bytes(limit), 0)
        await peer.expect_disconnect(m.PACKET_TOO_LARGE)
        await watcher.expect_nothing()


async def test_keep_alive_of_a_client_that_is_not_read_from(harness: Harness) -> None:
    """[MQTT-3.1.2-22]: whoever is made to wait, by a hook or a message rate, is not gone."""
    gate = asyncio.Event()

    async def slow(client: Any, message: BrokerMessage) -> bool:
        await gate.wait()
        return True

    async with serving(harness, authorize_publish=slow) as served:
        peer = await served.client(keep_alive=1)
        peer.publish_now("a", b"x", 1, 1)
        for _ in range(20):
            await asyncio.sleep(0.1)
            peer.send(b"\xc0\x00")
        gate.set()
        await peer.expect_ack(m.PUBACK, 1)
        for _ in range(20):
            assert await peer.packet() is m.PING_RESPONSE
        await peer.expect_nothing()


async def test_whoever_asks_and_does_not_take_the_answers_is_not_read_from(harness: Harness) -> None:
    """Output of a client is bounded, whatever it asks for."""
    async with serving(harness) as served:
        peer = await served.client("flood")
        good = await served.client("good")
        link = served.broker._broker.sessions["flood"].link
        assert link is not None
        flood = b"\xc0\x00" * (8 << 20)
        sent, most = len(flood), 0
        peer.send(flood)
        async with asyncio.timeout(30):
            while link.output.unsent <= 1 << 20:
                await asyncio.sleep(0)
        for _ in range(1000):
            await good.expect_nothing()
            most = max(most, link.output.unsent)
        assert 1 << 20 < most < 3 << 19
        answers = 0
        async with asyncio.timeout(30):
            while answers < sent:
                answers += len(await peer.peer.reader.read(1 << 20))
        assert answers == sent


# -- inside the program ------------------------------------------------------------------------------------------------


async def test_what_no_packet_can_carry_is_refused_at_once(harness: Harness) -> None:
    async with serving(harness) as served:
        peer = await served.client()
        await peer.subscribe("#")
        for topic in ("a\ud800", "\u20ac" * 500):
            with pytest.raises(InvalidPacket):
                served.broker.publish(topic, b"x", retain=True)
        with pytest.raises(ValueError, match="max_queued"):
            served.broker.subscribe("a", max_queued=0)
        await peer.expect_nothing()
        assert served.broker.statistics().retained_messages == 0


async def test_subscriptions_inside_the_program_end_with_the_broker(harness: Harness) -> None:
    async with serving(harness) as served:
        messages = served.broker.subscribe("a")
        waiting = asyncio.create_task(anext(messages))
        await asyncio.sleep(0)
        late = served.broker.subscribe("b")
        served.broker.publish("b", b"still taken")
        await served.broker.shutdown(0)
        with pytest.raises(StopAsyncIteration):
            await soon(waiting)
        assert [message.payload async for message in late] == [b"still taken"]
        assert [message async for message in served.broker.subscribe("c")] == []


async def test_a_delayed_will_outlives_its_broker_in_a_store(harness: Harness) -> None:
    store = MemoryStore()
    late = {Property.WILL_DELAY_INTERVAL: 1}
    async with serving(harness, store=store) as served:
        peer = await served.client("c", will_topic="w", will_properties=late, properties=FOREVER)
        peer.vanish()
        await eventually(lambda: not served.broker.clients())
    async with serving(harness, store=store) as served:
        with served.broker.subscribe("w") as messages:
            assert (await soon(anext(messages))).topic == "w"


def test_a_name_that_would_spoil_a_password_file(tmp_path: Path) -> None:
    users = PasswordFile(tmp_path / "users")
    users.set("ann", "secret")
    for name in ("a\x1c", "\x85", "a\u2028", "\n"):
        with pytest.raises(ValueError, match="user name"):
            users.set(name, "x")
    assert len(PasswordFile(tmp_path / "users")) == 1
    assert hash_password("x").startswith("$scrypt$")
