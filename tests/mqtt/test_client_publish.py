"""What a client publishes: handshakes of each QoS, their order over lost connections, queues, what the broker takes."""

from __future__ import annotations

import asyncio

import pytest

from asyncmg import BusyError, ConnectionClosed, DeadlineExceeded, Limits, LocalProtocolError, MqttLimits, MqttRefused
from asyncmg.codecs import mqtt as m
from asyncmg.codecs.mqtt_encode import encode_ack
from asyncmg.codecs.mqtt_properties import Property
from asyncmg.errors import InvalidPacket

from .conftest import FakeBroker, eventually, running, soon

VERSIONS = pytest.mark.parametrize("version", [4, 5])


@VERSIONS
async def test_qos_0_is_sent_and_done(broker: FakeBroker, version: int) -> None:
    mq, peer = await broker.connect(version=version)
    assert await mq.publish("a/b", "text", retain=True) == 0
    packet = await peer.expect(m.Publish)
    assert (packet.topic, packet.payload, packet.qos, packet.retain, packet.dup) == ("a/b", b"text", 0, True, False)
    assert await mq.publish_soon("a", bytearray(b"x")) == 0
    assert (await peer.expect(m.Publish)).payload == b"x"


@VERSIONS
async def test_qos_1_waits_for_puback(broker: FakeBroker, version: int) -> None:
    mq, peer = await broker.connect(version=version)
    work = running(mq.publish("a", b"1", 1))
    packet = await peer.expect(m.Publish)
    assert packet.qos == 1 and not packet.dup and not work.done() and mq.pending == 1
    code = 0x10 if version == 5 else 0
    peer.ack(m.PUBACK, packet.packet_id, code)
    assert await soon(work) == code and mq.pending == 0


@VERSIONS
async def test_qos_2_waits_for_pubcomp(broker: FakeBroker, version: int) -> None:
    mq, peer = await broker.connect(version=version)
    work = running(mq.publish("a", b"1", 2))
    number = (await peer.expect(m.Publish)).packet_id
    code = 0x10 if version == 5 else 0
    peer.ack(m.PUBREC, number, code)
    await peer.expect_ack(m.PUBREL, number)
    assert not work.done()
    peer.ack(m.PUBREC, number)  # once more: released once more
    await peer.expect_ack(m.PUBREL, number)
    peer.ack(m.PUBCOMP, number)
    assert await soon(work) == code and mq.pending == 0


async def test_properties_by_name_and_by_identifier(broker: FakeBroker) -> None:
    mq, peer = await broker.connect()
    await mq.publish("a", b"", properties={"content_type": "x", "user_property": [("k", "v")]})
    await mq.publish("a", b"", properties={Property.CONTENT_TYPE: "y"})
    assert (await peer.expect(m.Publish)).properties() == {
        Property.CONTENT_TYPE: "x",
        Property.USER_PROPERTY: [("k", "v")],
    }
    assert (await peer.expect(m.Publish)).properties() == {Property.CONTENT_TYPE: "y"}
    with pytest.raises(InvalidPacket):
        await mq.publish("a", b"", properties={"no_such_thing": 1})


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_refusal_is_raised(broker: FakeBroker, qos: int) -> None:
    mq, peer = await broker.connect()
    work = running(mq.publish("a", b"1", qos))
    number = (await peer.expect(m.Publish)).packet_id
    peer.ack(m.PUBACK if qos == 1 else m.PUBREC, number, 0x87, {Property.REASON_STRING: "not you"})
    with pytest.raises(MqttRefused, match="not you") as caught:
        await soon(work)
    assert (caught.value.code, caught.value.reason, caught.value.wire_code) == (0x87, "not you", 0x87)
    assert mq.pending == 0


async def test_wrong_arguments_are_told_at_once(broker: FakeBroker) -> None:
    mq, peer = await broker.connect()
    for topic, qos in [("a/#", 0), ("", 1), ("a", 3), ("\0", 2)]:
        with pytest.raises(InvalidPacket):
            await mq.publish(topic, b"", qos)
        with pytest.raises(InvalidPacket):
            mq.publish_soon(topic, b"", qos)
    with pytest.raises(TypeError):
        await mq.publish("a", 7)  # type: ignore[arg-type]
    assert mq.pending == 0
    await mq.publish("a")
    assert (await peer.expect(m.Publish)).payload == b""


@VERSIONS
async def test_window_and_order(broker: FakeBroker, version: int) -> None:
    properties = {Property.RECEIVE_MAXIMUM: 3} if version == 5 else {}
    mq, peer = await broker.connect(properties, version=version, limits=Limits(mqtt=MqttLimits(max_inflight=3)))
    deliveries = [mq.publish_soon("a", str(n), 1 + n % 2) for n in range(20)]
    for n in range(20):
        packet = await peer.expect(m.Publish)
        assert packet.payload == str(n).encode()
        if n >= 2:  # two are held back: one at a time is let through
            if packet.qos == 1:
                peer.ack(m.PUBACK, packet.packet_id)
            else:
                peer.ack(m.PUBREC, packet.packet_id)
                await peer.expect_ack(m.PUBREL, packet.packet_id)
                peer.ack(m.PUBCOMP, packet.packet_id)
        else:
            await asyncio.sleep(0)
    await soon(asyncio.gather(*deliveries[2:]))
    assert mq.pending == 2 and not deliveries[0].is_done


async def test_a_lost_connection_is_gone_on_with(broker: FakeBroker) -> None:
    """Each state of a handshake, in one connection: what is sent again has DUP, in order; what was released is not."""
    mq, peer = await broker.connect(clean_start=False, session_expiry=100)
    work = [running(mq.publish("a", str(n), qos)) for n, qos in enumerate([1, 2, 2, 1, 2])]
    numbers = [(await peer.expect(m.Publish)).packet_id for _ in work]
    peer.ack(m.PUBACK, numbers[3])
    await soon(work[3])
    peer.ack(m.PUBREC, numbers[2])
    await peer.expect_ack(m.PUBREL, numbers[2])
    peer.cut()
    peer = await broker.again()
    released = await peer.expect(m.Ack)
    assert (released.type, released.packet_id) == (m.PUBREL, numbers[2])
    for n in (0, 1, 4):
        packet = await peer.expect(m.Publish)
        assert (packet.payload, packet.packet_id, packet.dup) == (str(n).encode(), numbers[n], True)
    peer.ack(m.PUBCOMP, numbers[2], 0x92)  # it has forgotten it: done all the same
    peer.ack(m.PUBACK, numbers[0])
    peer.ack(m.PUBREC, numbers[1])
    await peer.expect_ack(m.PUBREL, numbers[1])
    peer.cut()
    peer = await broker.again()
    await peer.expect_ack(m.PUBREL, numbers[1])
    assert (await peer.expect(m.Publish)).packet_id == numbers[4]
    peer.ack(m.PUBCOMP, numbers[1])
    peer.ack(m.PUBREC, numbers[4])
    await peer.expect_ack(m.PUBREL, numbers[4])
    peer.ack(m.PUBCOMP, numbers[4])
    assert await soon(asyncio.gather(*work)) == [0] * 5


async def test_a_lost_session_begins_anew(broker: FakeBroker) -> None:
    mq, peer = await broker.connect(limits=Limits(mqtt=MqttLimits(max_inflight=3)))
    deliveries = [mq.publish_soon("a", str(n), qos) for n, qos in enumerate([1, 2, 2, 1])]
    numbers = [(await peer.expect(m.Publish)).packet_id for _ in range(3)]
    peer.ack(m.PUBREC, numbers[1])  # it has arrived
    await peer.expect_ack(m.PUBREL, numbers[1])
    peer.cut()
    peer = await broker.again(session_present=False)
    assert await soon(deliveries[1]) == 0
    packets = [await peer.expect(m.Publish) for _ in range(3)]
    assert [(packet.payload, packet.dup) for packet in packets] == [(b"0", False), (b"2", False), (b"3", False)]
    for packet in packets:
        if packet.qos == 1:
            peer.ack(m.PUBACK, packet.packet_id)
        else:
            peer.ack(m.PUBREC, packet.packet_id)
            await peer.expect_ack(m.PUBREL, packet.packet_id)
            peer.ack(m.PUBCOMP, packet.packet_id)
    assert await soon(asyncio.gather(*deliveries)) == [0] * 4
    assert mq._session.queued_bytes == 0


async def test_published_without_a_connection(broker: FakeBroker) -> None:
    mq, peer = await broker.connect()
    peer.cut()
    await eventually(lambda: not mq.is_connected)
    first = running(mq.publish("a", b"1", 1))
    second = running(mq.publish("a", b"0", 0))
    with pytest.raises(ConnectionClosed):
        mq.publish_soon("a", b"0", 0)
    with pytest.raises(DeadlineExceeded):
        await mq.publish("late", b"", 1, timeout=0.01)
    peer = await broker.peer()
    assert mq.pending == 1  # what the time-out has ended is withdrawn
    await peer.accept()
    packets = [await peer.expect(m.Publish), await peer.expect(m.Publish)]
    packets.sort(key=lambda packet: packet.qos)
    assert [packet.payload for packet in packets] == [b"0", b"1"]
    peer.ack(m.PUBACK, packets[1].packet_id)
    assert await soon(asyncio.gather(first, second)) == [0, 0]


async def test_a_full_queue(broker: FakeBroker) -> None:
    limits = Limits(mqtt=MqttLimits(max_inflight=1, max_queued=2))
    mq, peer = await broker.connect(limits=limits)
    deliveries = [mq.publish_soon("a", str(n), 1) for n in range(3)]
    with pytest.raises(BusyError):
        mq.publish_soon("a", b"", 1)
    waiting = [running(mq.publish("a", str(n), 1)) for n in range(3, 8)]
    cancelled = running(mq.publish("a", b"never", 1))
    await asyncio.sleep(0.01)
    cancelled.cancel()
    waiting[1].cancel()
    for n in (0, 1, 2, 3, 5, 6, 7):
        packet = await peer.expect(m.Publish)
        assert packet.payload == str(n).encode()
        peer.ack(m.PUBACK, packet.packet_id)
    await soon(asyncio.gather(*deliveries, *(work for n, work in enumerate(waiting) if n != 1)))
    assert mq.pending == 0
    last = running(mq.publish("a", b"", 1))
    peer.ack(m.PUBACK, (await peer.expect(m.Publish)).packet_id)
    await soon(last)


async def test_room_that_nobody_takes_is_the_next_ones(broker: FakeBroker) -> None:
    """Whoever is cancelled when he has just got room leaves it to the next one."""
    mq, _ = await broker.connect(limits=Limits(mqtt=MqttLimits(max_inflight=1, max_queued=1)))
    _, queued = (mq.publish_soon("a", b"", 1) for _ in range(2))
    first, second = (running(mq.publish("a", name, 1)) for name in ("first", "second"))
    await asyncio.sleep(0)
    assert mq._session.withdraw(queued)
    first.cancel()
    await eventually(lambda: mq.pending == 2)
    assert first.cancelled() and [item.packet[-6:] for item in mq._session.flow.waiting] == [b"second"]
    second.cancel()


async def test_room_for_several_at_once(broker: FakeBroker) -> None:
    """Whoever needs no place in the queue, because he may send at once, lets the next one know."""
    mq, peer = await broker.connect(limits=Limits(mqtt=MqttLimits(max_inflight=2, max_queued=1)))
    deliveries = [mq.publish_soon("a", str(n), 1) for n in range(3)]
    waiting = [running(mq.publish("a", str(n), 1)) for n in range(3, 7)]
    for n in (0, 2, 4, 6):
        numbers = []
        for payload in range(n, min(n + 2, 7)):
            packet = await peer.expect(m.Publish)
            assert packet.payload == b"%d" % payload
            numbers.append(packet.packet_id)
        peer.send(*(encode_ack(5, m.PUBACK, number) for number in numbers))
    assert await soon(asyncio.gather(*waiting, *deliveries)) == [0] * 7


async def test_bytes_in_the_queue_are_limited(broker: FakeBroker) -> None:
    mq, peer = await broker.connect(limits=Limits(mqtt=MqttLimits(max_inflight=1, max_queued_bytes=1000)))
    mq.publish_soon("a", bytes(600), 1)
    mq.publish_soon("a", bytes(600), 1)
    with pytest.raises(BusyError):
        mq.publish_soon("a", bytes(600), 1)
    mq.publish_soon("a", bytes(300), 1)
    for _ in range(3):
        peer.ack(m.PUBACK, (await peer.expect(m.Publish)).packet_id)
    await soon(mq.flush())


async def test_cancelled_when_sent_it_goes_on(broker: FakeBroker) -> None:
    mq, peer = await broker.connect()
    work = running(mq.publish("a", b"1", 2))
    number = (await peer.expect(m.Publish)).packet_id
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert mq.pending == 1
    other = mq.publish_soon("a", b"2", 1)
    assert (await peer.expect(m.Publish)).packet_id != number
    peer.ack(m.PUBREC, number)
    await peer.expect_ack(m.PUBREL, number)
    peer.ack(m.PUBCOMP, number)
    await eventually(lambda: mq.pending == 1)
    assert not other.is_done


async def test_several_may_wait_for_one_delivery(broker: FakeBroker) -> None:
    mq, peer = await broker.connect()
    delivery = mq.publish_soon("a", b"", 1)

    async def wait() -> int:
        return await delivery

    waiters = [running(wait()) for _ in range(3)]
    number = (await peer.expect(m.Publish)).packet_id
    waiters[0].cancel()
    await asyncio.sleep(0)
    assert "under way" in repr(delivery)
    peer.ack(m.PUBACK, number)
    assert await soon(asyncio.gather(*waiters[1:])) == [0, 0]
    assert await delivery == 0 and "done" in repr(delivery)


async def test_what_the_broker_does_not_take(broker: FakeBroker) -> None:
    properties = {Property.MAXIMUM_QOS: 1, Property.RETAIN_AVAILABLE: 0, Property.MAXIMUM_PACKET_SIZE: 50}
    mq, peer = await broker.connect(properties)
    for args, code in [((b"", 2), 0x9B), ((b"", 0, True), 0x9A), ((bytes(50), 1), 0x95), ((bytes(50), 0), 0x95)]:
        with pytest.raises(LocalProtocolError) as caught:
            await mq.publish("a", *args)
        assert caught.value.wire_code in (code, 0)
        with pytest.raises(LocalProtocolError):
            mq.publish_soon("a", *args)
    assert mq.pending == 0
    mq.publish_soon("a", bytes(40), 1)
    assert len((await peer.expect(m.Publish)).payload) == 40


async def test_a_broker_that_takes_less_after_a_reconnection(broker: FakeBroker) -> None:
    mq, peer = await broker.connect()
    deliveries = [mq.publish_soon("a", bytes(size), qos) for size, qos in [(100, 1), (1, 1), (1, 2)]]
    for _ in deliveries:
        await peer.expect(m.Publish)
    peer.cut()
    peer = await broker.again(properties={Property.MAXIMUM_PACKET_SIZE: 50, Property.MAXIMUM_QOS: 1})
    packet = await peer.expect(m.Publish)
    assert packet.dup and len(packet.payload) == 1
    for delivery in (deliveries[0], deliveries[2]):
        with pytest.raises(LocalProtocolError):
            await soon(delivery)
    peer.ack(m.PUBACK, packet.packet_id)
    assert await soon(deliveries[1]) == 0


async def test_topic_aliases(broker: FakeBroker) -> None:
    mq, peer = await broker.connect({Property.TOPIC_ALIAS_MAXIMUM: 2}, aliases=True)
    told = []
    for topic, qos in [("a", 0), ("a", 1), ("b", 2), ("a", 0), ("c", 1), ("b", 0)]:
        mq.publish_soon(topic, topic, qos, properties={"content_type": "t"})
        packet = await peer.expect(m.Publish)
        found = packet.properties()
        assert found[Property.CONTENT_TYPE] == "t" and packet.payload == topic.encode()
        told.append((packet.topic, found.get(Property.TOPIC_ALIAS)))
    assert told == [("a", 1), ("", 1), ("b", 2), ("", 1), ("c", None), ("", 2)]
    peer.cut()  # in another connection they mean nothing
    peer = await broker.again(properties={Property.TOPIC_ALIAS_MAXIMUM: 2})
    for topic in "abc":
        packet = await peer.expect(m.Publish)
        assert packet.topic == topic and packet.dup and Property.TOPIC_ALIAS not in packet.properties()
    mq.publish_soon("b", b"")
    packet = await peer.expect(m.Publish)
    assert (packet.topic, packet.properties()[Property.TOPIC_ALIAS]) == ("b", 1)


async def test_an_alias_must_not_make_a_packet_too_large(broker: FakeBroker) -> None:
    mq, peer = await broker.connect({Property.TOPIC_ALIAS_MAXIMUM: 9, Property.MAXIMUM_PACKET_SIZE: 50}, aliases=True)
    for size, alias in [(45, None), (42, 1), (45, None), (42, 1)]:
        mq.publish_soon("a", bytes(size - 1))
        packet = await peer.expect(m.Publish)
        assert len(packet.payload) == size - 1 and packet.properties().get(Property.TOPIC_ALIAS) == alias


async def test_nothing_is_sent_behind_a_disconnect(broker: FakeBroker) -> None:
    """[MQTT-3.14.4-1]: what a reader takes after we have refused the broker is not acknowledged there."""
    mq, peer = await broker.connect(reconnect=False)
    reading = running(anext(mq))
    await asyncio.sleep(0)
    peer.publish("a", b"", 1, packet_id=1)
    peer.send(bytes(2))  # a reserved type of packet
    assert (await soon(reading)).qos == 1
    sent = await soon(peer._reader.read(-1))
    assert sent[:1] == b"\xe0" and sent[1] == len(sent) - 2


async def test_a_broker_that_does_not_read(broker: FakeBroker) -> None:
    """QoS 0 waits for room; nothing is lost when there is some again."""
    mq, peer = await broker.connect(limits=Limits(mqtt=MqttLimits(max_queued_bytes=100_000)))
    count = 0

    async def publish() -> None:
        nonlocal count
        for n in range(400):
            await mq.publish("a", n.to_bytes(2, "big") + bytes(50_000))
            count += 1

    work = running(publish())
    assert mq.link is not None
    output = mq.link.protocol.output
    await eventually(lambda: output.is_paused)
    assert count < 400
    with pytest.raises(BusyError):
        for _ in range(100):
            mq.publish_soon("a", bytes(100_000))
            await asyncio.sleep(0)
    for n in range(count):
        assert (await peer.expect(m.Publish)).payload[:2] == n.to_bytes(2, "big")
    reading = running(peer.drain())
    await soon(work)
    assert count == 400
    reading.cancel()


async def test_the_end_tells_whoever_waits(broker: FakeBroker) -> None:
    mq, peer = await broker.connect(limits=Limits(mqtt=MqttLimits(max_inflight=1, max_queued=1)))
    work = [running(mq.publish("a", b"", 1)) for _ in range(3)]  # sent, queued, outside
    await peer.expect(m.Publish)
    await soon(mq.disconnect())
    assert (await peer.expect(m.Disconnect)).reason_code == 0
    await peer.expect_end()
    for task in work:
        with pytest.raises(ConnectionClosed):
            await soon(task)
    for qos in (0, 1):
        with pytest.raises(ConnectionClosed):
            await mq.publish("a", b"", qos)
        with pytest.raises(ConnectionClosed):
            mq.publish_soon("a", b"", qos)
    assert mq.pending == 0


async def test_leaving_waits_for_what_is_under_way(broker: FakeBroker) -> None:
    mq, peer = await broker.connect()
    mq.publish_soon("a", b"", 1)
    closing = running(mq.close())
    number = (await peer.expect(m.Publish)).packet_id
    assert not closing.done()
    peer.ack(m.PUBACK, number)
    await peer.expect(m.Disconnect)
    await soon(closing)
