"""What a client receives: acknowledged when it is taken, never twice with QoS 2, bounded, given to who asked for it."""

from __future__ import annotations

import asyncio

import pytest

from asyncmg import BusyError, Limits, LocalProtocolError, MqttLimits, MqttMessage, MqttRefused
from asyncmg.codecs import mqtt as m
from asyncmg.codecs.mqtt_properties import Property
from asyncmg.errors import InvalidPacket
from asyncmg.mqtt_face import MqttClient

from .conftest import FakeBroker, Peer, eventually, running, soon

VERSIONS = pytest.mark.parametrize("version", [4, 5])


async def take(mq: MqttClient) -> MqttMessage:
    message: MqttMessage = await soon(anext(aiter(mq)))
    return message


async def settle(peer: Peer, mq: MqttClient) -> None:
    """All that the peer has sent has been read, and nothing has been said to that."""
    pinged = running(mq.ping())
    await peer.expect_ping()
    await soon(pinged)


@VERSIONS
async def test_acknowledged_when_taken(broker: FakeBroker, version: int) -> None:
    mq, peer = await broker.connect(version=version)
    peer.publish("a", b"0")
    peer.publish("a", b"1", 1, packet_id=7)
    peer.publish("a", b"2", 2, True, packet_id=8)
    await settle(peer, mq)
    message = await take(mq)
    assert (message.topic, message.payload, message.qos, message.retain) == ("a", b"0", 0, False)
    assert (await take(mq)).qos == 1
    await peer.expect_ack(m.PUBACK, 7)
    message = await take(mq)
    assert (message.text, message.qos, message.retain) == ("2", 2, True)
    await peer.expect_ack(m.PUBREC, 8)
    peer.ack(m.PUBREL, 8)
    await peer.expect_ack(m.PUBCOMP, 8)
    peer.ack(m.PUBREL, 8)
    await peer.expect_ack(m.PUBCOMP, 8, 0x92 if version == 5 else 0)


async def test_qos_2_comes_once(broker: FakeBroker) -> None:
    mq, peer = await broker.connect(session_expiry=100, clean_start=False)
    peer.publish("a", b"first", 2, packet_id=1)
    peer.publish("a", b"first", 2, dup=True, packet_id=1)  # waits to be taken
    await settle(peer, mq)
    assert (await take(mq)).text == "first"
    await peer.expect_ack(m.PUBREC, 1)
    peer.publish("a", b"first", 2, dup=True, packet_id=1)  # has been taken
    await peer.expect_ack(m.PUBREC, 1)
    peer.cut()
    peer = await broker.again()
    peer.publish("a", b"first", 2, dup=True, packet_id=1)
    await peer.expect_ack(m.PUBREC, 1)
    peer.ack(m.PUBREL, 1)
    await peer.expect_ack(m.PUBCOMP, 1)
    peer.publish("a", b"second", 2, packet_id=1)
    assert (await take(mq)).text == "second"
    await peer.expect_ack(m.PUBREC, 1)


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_message_that_waits_over_a_reconnection(broker: FakeBroker, qos: int) -> None:
    """It is acknowledged in the connection in which it has been repeated, and is there once."""
    mq, peer = await broker.connect(session_expiry=100, clean_start=False)
    peer.publish("a", b"1", qos, packet_id=5)
    await settle(peer, mq)
    peer.cut()
    peer = await broker.again()
    await settle(peer, mq)
    peer.publish("a", b"1", qos, dup=True, packet_id=5)
    await settle(peer, mq)
    assert (await take(mq)).text == "1"
    await peer.expect_ack(m.PUBACK if qos == 1 else m.PUBREC, 5)
    peer.publish("a", b"2")
    assert (await take(mq)).text == "2"


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_message_taken_without_a_connection(broker: FakeBroker, qos: int) -> None:
    mq, peer = await broker.connect(session_expiry=100, clean_start=False)
    peer.publish("a", b"1", qos, packet_id=5)
    await settle(peer, mq)
    peer.cut()
    await eventually(lambda: not mq.is_connected)
    assert (await take(mq)).text == "1"
    peer = await broker.again()
    await settle(peer, mq)  # nothing is acknowledged before it is repeated
    peer.publish("a", b"1", qos, dup=True, packet_id=5)
    await peer.expect_ack(m.PUBACK if qos == 1 else m.PUBREC, 5)
    peer.publish("a", b"2")
    assert (await take(mq)).text == "2"


async def test_taken_before_it_is_repeated(broker: FakeBroker) -> None:
    """In the next connection, but before the server has sent it again there."""
    mq, peer = await broker.connect(session_expiry=100, clean_start=False)
    peer.publish("a", b"1", 1, packet_id=5)
    peer.publish("a", b"2", 2, packet_id=6)
    await settle(peer, mq)
    peer.cut()
    peer = await broker.again()
    await eventually(lambda: mq.is_connected)
    assert [(await take(mq)).text for _ in range(2)] == ["1", "2"]
    await settle(peer, mq)
    peer.publish("a", b"1", 1, dup=True, packet_id=5)
    await peer.expect_ack(m.PUBACK, 5)
    peer.publish("a", b"2", 2, dup=True, packet_id=6)
    await peer.expect_ack(m.PUBREC, 6)
    peer.publish("a", b"new", 1, packet_id=5)  # the same identifier, another message
    assert (await take(mq)).text == "new"
    await peer.expect_ack(m.PUBACK, 5)


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_lost_session_is_owed_nothing(broker: FakeBroker, qos: int) -> None:
    mq, peer = await broker.connect(session_expiry=100, clean_start=False)
    peer.publish("a", b"old", qos, packet_id=5)
    await settle(peer, mq)
    peer.cut()
    peer = await broker.again(session_present=False)
    peer.publish("a", b"new", qos, packet_id=5)
    await settle(peer, mq)
    assert (await take(mq)).text == "old"  # it has arrived; there is nobody to be told
    await settle(peer, mq)
    assert (await take(mq)).text == "new"
    await peer.expect_ack(m.PUBACK if qos == 1 else m.PUBREC, 5)


async def test_an_identifier_that_a_skipped_repetition_has_freed(broker: FakeBroker) -> None:
    """QoS 1: what was not repeated in the next connection has nothing to do with the one after that."""
    mq, peer = await broker.connect(session_expiry=100, clean_start=False)
    peer.publish("a", b"1", 1, packet_id=5)
    await settle(peer, mq)
    peer.cut()
    peer = await broker.again()
    await settle(peer, mq)
    peer.cut()
    peer = await broker.again()
    peer.publish("a", b"other", 1, dup=True, packet_id=5)
    await settle(peer, mq)
    assert (await take(mq)).text == "1"
    await settle(peer, mq)
    assert (await take(mq)).text == "other"
    await peer.expect_ack(m.PUBACK, 5)


async def test_a_taken_message_that_is_not_repeated(broker: FakeBroker) -> None:
    """The same for one that was taken without a connection."""
    mq, peer = await broker.connect(session_expiry=100, clean_start=False)
    peer.publish("a", b"1", 1, packet_id=5)
    await settle(peer, mq)
    peer.cut()
    await eventually(lambda: not mq.is_connected)
    assert (await take(mq)).text == "1"
    peer = await broker.again()
    await settle(peer, mq)
    peer.cut()
    peer = await broker.again()
    peer.publish("a", b"other", 1, dup=True, packet_id=5)
    assert (await take(mq)).text == "other"
    await peer.expect_ack(m.PUBACK, 5)


async def test_receive_maximum(broker: FakeBroker) -> None:
    mq, peer = await broker.connect(limits=Limits(mqtt=MqttLimits(receive_maximum=2)), reconnect=False)
    for n in (1, 2):
        peer.publish("a", b"", 1, packet_id=n)
    assert (await take(mq)).qos == 1
    await peer.expect_ack(m.PUBACK, 1)
    peer.publish("a", b"", 2, packet_id=3)
    peer.publish("a", b"", 1, packet_id=4)
    assert (await peer.expect(m.Disconnect)).reason_code == 0x93
    await peer.expect_end()


async def test_what_was_too_much_is_not_lost(broker: FakeBroker) -> None:
    """The message that went over receive maximum comes again in the next connection, and is new there."""
    limits = Limits(mqtt=MqttLimits(receive_maximum=1))
    mq, peer = await broker.connect(limits=limits, session_expiry=100, clean_start=False)
    peer.publish("a", b"1", 2, packet_id=1)
    peer.publish("a", b"2", 2, packet_id=2)
    assert (await peer.expect(m.Disconnect)).reason_code == 0x93
    peer = await broker.again()
    assert (await take(mq)).text == "1"
    for _ in range(2):
        peer.publish("a", b"1", 2, dup=True, packet_id=1)
        await peer.expect_ack(m.PUBREC, 1)
    peer.ack(m.PUBREL, 1)
    await peer.expect_ack(m.PUBCOMP, 1)
    peer.publish("a", b"2", 2, dup=True, packet_id=2)
    assert (await take(mq)).text == "2"
    await peer.expect_ack(m.PUBREC, 2)


async def test_receive_maximum_is_told(broker: FakeBroker) -> None:
    connecting = running(_client(broker.url))
    peer = await broker.peer()
    connect = await peer.accept()
    limits = MqttLimits()
    assert connect.properties == {
        Property.RECEIVE_MAXIMUM: limits.receive_maximum,
        Property.MAXIMUM_PACKET_SIZE: limits.max_packet,
        Property.TOPIC_ALIAS_MAXIMUM: limits.max_topic_aliases,
    }
    mq = await soon(connecting)
    await mq.disconnect()


async def _client(url: str) -> MqttClient:
    import asyncmg

    return await asyncmg.mqtt_connect(url)


async def test_topic_aliases_of_the_broker(broker: FakeBroker) -> None:
    mq, peer = await broker.connect(reconnect=False)
    peer.publish("a", b"1", properties={Property.TOPIC_ALIAS: 3})
    peer.publish("", b"2", properties={Property.TOPIC_ALIAS: 3, Property.CONTENT_TYPE: "x"})
    assert [(message.topic, message.text) for message in (await take(mq), await take(mq))] == [("a", "1"), ("a", "2")]
    peer.publish("", b"3", properties={Property.TOPIC_ALIAS: 4})
    assert (await peer.expect(m.Disconnect)).reason_code == 0x82
    with pytest.raises(Exception, match="alias"):
        await take(mq)


async def test_reading_stops_and_goes_on(broker: FakeBroker) -> None:
    mq, peer = await broker.connect(limits=Limits(mqtt=MqttLimits(max_received=10)))
    for n in range(1000):
        peer.publish("a", n.to_bytes(2, "big") + bytes(20_000))
    await eventually(lambda: mq.link is not None and mq.link.is_paused)
    for n in range(1000):
        assert (await take(mq)).payload[:2] == n.to_bytes(2, "big")
    assert mq.dropped == 0 and mq.link is not None and not mq.link.is_paused


async def test_a_reader_that_is_behind_may_wait_for_an_acknowledgement(broker: FakeBroker) -> None:
    """The queue is full, and the acknowledgement stands behind what is not read: reading goes on for it."""
    mq, peer = await broker.connect(limits=Limits(mqtt=MqttLimits(max_received=10)))
    for _ in range(100):
        peer.publish("a", bytes(1000))
    await eventually(lambda: mq.link is not None and mq.link.is_paused)
    work = running(mq.publish("b", b"", 1))
    number = (await peer.expect(m.Publish)).packet_id
    for _ in range(2000):
        peer.publish("a", bytes(1000))
    peer.ack(m.PUBACK, number)
    assert await soon(work) == 0
    asked = running(mq.subscribe("c"))
    await peer.grant()
    assert await soon(asked) == (0,)
    assert 0 < mq.dropped < 2100  # of the rest four times as many as are allowed are kept
    for _ in range(40):
        await take(mq)
    await eventually(lambda: mq.link is not None and not mq.link.is_paused)
    assert await soon(_ping(mq, peer)) >= 0


async def _ping(mq: MqttClient, peer: Peer) -> float:
    pinged = running(mq.ping())
    answering = running(peer.drain())
    try:
        return await pinged
    finally:
        answering.cancel()


@pytest.mark.parametrize(("policy", "expected"), [("drop_oldest", "56789"), ("drop_newest", "01234")])
async def test_policies(broker: FakeBroker, policy: str, expected: str) -> None:
    mq, peer = await broker.connect(limits=Limits(mqtt=MqttLimits(max_received=5)), queue_policy=policy)
    for n in range(10):
        peer.publish("a", str(n).encode())
    peer.publish("a", b"!", 1, packet_id=1)  # is never dropped
    await settle(peer, mq)
    assert mq.dropped == (6 if policy == "drop_oldest" else 5)
    got = [(await take(mq)).text for _ in range(5 if policy == "drop_oldest" else 6)]
    assert "".join(got) == (expected[1:] + "!" if policy == "drop_oldest" else expected + "!")


async def test_one_reader_at_a_time_and_cancelling(broker: FakeBroker) -> None:
    mq, peer = await broker.connect()
    first = running(anext(aiter(mq)))
    await asyncio.sleep(0)
    with pytest.raises(BusyError):
        await anext(aiter(mq))
    first.cancel()
    await asyncio.sleep(0)
    peer.publish("a", b"1", 1, packet_id=1)
    assert (await take(mq)).text == "1"
    await peer.expect_ack(m.PUBACK, 1)


async def test_the_iteration_ends_in_good_order(broker: FakeBroker) -> None:
    mq, peer = await broker.connect()
    peer.publish("a", b"1")
    await settle(peer, mq)

    async def read() -> list[str]:
        return [message.text async for message in mq]

    work = running(read())
    await asyncio.sleep(0)
    await soon(mq.disconnect())
    assert await soon(work) == ["1"]
    with pytest.raises(StopAsyncIteration):
        await anext(aiter(mq))


# -- subscriptions ---------------------------------------------------------------------------------------------------


async def test_subscribe_and_unsubscribe(broker: FakeBroker) -> None:
    mq, peer = await broker.connect()
    work = running(
        mq.subscribe(["a", ("b/#", 2)], 1, no_local=True, retain_as_published=True, retain_handling=2, identifier=9)
    )
    packet = await peer.grant(1, 0x87)
    assert packet.filters == [("a", 1 | 4 | 8 | 0x20), ("b/#", 2 | 4 | 8 | 0x20)]
    assert packet.properties == {Property.SUBSCRIPTION_IDENTIFIER: [9]}
    assert await soon(work) == (1, 0x87)
    work = running(mq.subscribe(("c", 2)))
    assert (await peer.grant()).filters == [("c", 2)]
    assert await soon(work) == (2,)
    gone = running(mq.unsubscribe("a", "x"))
    assert (await peer.release(0, 0x11)).filters == ["a", "x"]
    assert await soon(gone) == (0, 0x11)
    with pytest.raises(InvalidPacket):
        await mq.subscribe("a/#/b")
    with pytest.raises(InvalidPacket):
        await mq.unsubscribe("")


@VERSIONS
async def test_a_refused_subscription(broker: FakeBroker, version: int) -> None:
    mq, peer = await broker.connect(version=version)
    work = running(mq.subscribe("a"))
    await peer.grant(0x80)
    with pytest.raises(MqttRefused) as caught:
        await soon(work)
    assert caught.value.code == 0x80
    gone = running(mq.unsubscribe("a"))
    await peer.release()
    assert await soon(gone) == ((0,) if version == 5 else ())


async def test_requests_are_sent_again(broker: FakeBroker) -> None:
    """A SUBSCRIBE whose answer was lost, one that waits, one that was cancelled, an UNSUBSCRIBE."""
    mq, peer = await broker.connect()
    first = running(mq.subscribe("a", 1))
    cancelled = running(mq.subscribe("never"))
    await peer.expect(m.Subscribe)
    await peer.expect(m.Subscribe)
    cancelled.cancel()
    peer.cut()
    await eventually(lambda: not mq.is_connected)
    assert not mq._session.flow.reserved  # packet identifiers
    second = running(mq.subscribe("b"))
    peer = await broker.again(session_present=False)
    assert [(await peer.grant()).filters for _ in range(2)] == [[("a", 1)], [("b", 0)]]
    assert await soon(asyncio.gather(first, second)) == [(1,), (0,)]
    gone = running(mq.unsubscribe("a"))
    await peer.expect(m.Unsubscribe)
    peer.cut()
    peer = await broker.again(session_present=False)
    assert (await peer.grant()).filters == [("b", 0)]  # what is still wanted
    assert (await peer.release()).filters == ["a"]
    assert await soon(gone) == (0,)


async def test_subscriptions_are_renewed_when_the_session_is_lost(broker: FakeBroker) -> None:
    mq, peer = await broker.connect()
    for topic, identifier in (("a", None), ("b", None), ("c", 7)):
        work = running(mq.subscribe(topic, 1, identifier=identifier))
        await peer.grant()
        await soon(work)
    peer.cut()
    peer = await broker.again(session_present=True)
    await settle(peer, mq)
    peer.cut()
    peer = await broker.again(session_present=False)
    first = await peer.expect(m.Subscribe)  # is lost, and sent again once
    assert first.filters == [("a", 1), ("b", 1)]
    peer.cut()
    peer = await broker.again(session_present=False)
    assert (await peer.grant(0x87, 1)).filters == [("a", 1), ("b", 1)]
    assert (await peer.grant()).properties == {Property.SUBSCRIPTION_IDENTIFIER: [7]}
    await settle(peer, mq)
    peer.publish("b", b"1")
    with pytest.raises(MqttRefused, match="'a'"):
        for _ in range(2):
            await take(mq)
    peer.publish("b", b"2")
    texts = {(await take(mq)).text}
    assert texts <= {"1", "2"}
    peer.cut()
    peer = await broker.again(session_present=False)
    assert (await peer.grant()).filters == [("b", 1)]


async def test_answers_that_do_not_fit(broker: FakeBroker) -> None:
    for answer in (b"\x90\x04\x00\x63\x00\x00", b"\x90\x05\x00\x01\x00\x00\x00", b"\xb0\x04\x00\x01\x00\x00"):
        mq, peer = await broker.connect(reconnect=False)
        work = running(mq.subscribe("a"))
        assert (await peer.expect(m.Subscribe)).packet_id == 1
        peer.send(answer)
        assert (await peer.expect(m.Disconnect)).reason_code == 0x82
        with pytest.raises(Exception, match=r"acknowledgement of another packet|one reason code"):
            await soon(work)


async def test_what_the_broker_does_not_take(broker: FakeBroker) -> None:
    properties = {
        Property.WILDCARD_SUBSCRIPTION_AVAILABLE: 0,
        Property.SHARED_SUBSCRIPTION_AVAILABLE: 0,
        Property.SUBSCRIPTION_IDENTIFIER_AVAILABLE: 0,
        Property.MAXIMUM_PACKET_SIZE: 60,
    }
    mq, peer = await broker.connect(properties)
    for topic, code, options in [
        ("a/#", 0xA2, {}),
        ("+", 0xA2, {}),
        ("$share/x/a", 0x9E, {}),
        ("a", 0xA1, {"identifier": 1}),
        ("a" * 60, 0, {}),
    ]:
        with pytest.raises(LocalProtocolError) as caught:
            await mq.subscribe(topic, **options)
        assert caught.value.wire_code == code or code == 0
    entering = running(mq.subscription("a").__aenter__())
    assert (await peer.grant()).properties == {}
    await soon(entering)


async def test_a_subscription_with_a_reader(broker: FakeBroker) -> None:
    mq, peer = await broker.connect()
    granted = running(peer.grant())
    async with mq.subscription("s/+", qos=1) as messages:
        assert (await granted).properties == {Property.SUBSCRIPTION_IDENTIFIER: [1]} and messages.codes == (1,)
        with pytest.raises(BusyError):
            await mq.subscription("s/+").__aenter__()
        peer.publish("s/1", b"1", 1, packet_id=1, properties={Property.SUBSCRIPTION_IDENTIFIER: [1]})
        peer.publish("other", b"2")
        peer.publish("s/3", b"3", 1, packet_id=3, properties={Property.SUBSCRIPTION_IDENTIFIER: [4, 1]})
        assert (await take(mq)).text == "2"
        got = [await soon(anext(messages)) for _ in range(2)]
        assert [message.text for message in got] == ["1", "3"]
        await peer.expect_ack(m.PUBACK, 1)
        await peer.expect_ack(m.PUBACK, 3)
        peer.publish("s/1", b"left", 1, packet_id=4, properties={Property.SUBSCRIPTION_IDENTIFIER: [1]})
        await settle(peer, mq)
        leaving = running(peer.release())
    assert (await leaving).filters == ["s/+"]
    await peer.expect_ack(m.PUBACK, 4)  # nobody reads it any more: done with
    peer.publish("s/1", b"general")
    assert (await take(mq)).text == "general"


async def test_overlapping_readers(broker: FakeBroker) -> None:
    """Without identifiers filters decide; a message for two is acknowledged when both have taken it."""
    mq, peer = await broker.connect(version=4)
    granting = running(peer.grant())
    async with mq.subscription("s/#", qos=1) as wide:
        await granting
        granting = running(peer.grant())
        async with mq.subscription(["s/1", "t"], qos=1) as narrow:
            await granting
            peer.publish("s/1", b"both", 1, packet_id=1)
            peer.publish("s/2", b"wide")
            peer.publish("t", b"narrow")
            assert [(await soon(anext(wide))).text for _ in range(2)] == ["both", "wide"]
            await settle(peer, mq)
            assert [(await soon(anext(narrow))).text for _ in range(2)] == ["both", "narrow"]
            await peer.expect_ack(m.PUBACK, 1)
            releasing = running(peer.release())
        await releasing
        releasing = running(peer.release())
    await releasing


async def test_copies_of_a_broker_that_sends_one_for_each_subscription(broker: FakeBroker) -> None:
    mq, peer = await broker.connect()
    work = running(mq.subscribe("s/1"))
    await peer.grant()
    await soon(work)
    granting = running(peer.grant())
    async with mq.subscription("s/#") as messages:
        await granting
        peer.publish("s/1", b"1", properties={Property.SUBSCRIPTION_IDENTIFIER: [1]})
        peer.publish("s/1", b"1")
        assert (await take(mq)).text == "1"
        assert (await soon(anext(messages))).text == "1" and len(messages) == 0
        releasing = running(peer.release())
    await releasing


async def test_leaving_a_subscription_without_a_connection(broker: FakeBroker) -> None:
    mq, peer = await broker.connect()
    granting = running(peer.grant())
    async with mq.subscription("s"):
        await granting
        peer.cut()
        await eventually(lambda: not mq.is_connected)
    peer = await broker.again(session_present=True)
    assert (await peer.release()).filters == ["s"]
