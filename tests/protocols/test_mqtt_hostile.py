"""Clients that mean harm: whatever they send, memory is bounded and others are served."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from asyncmg import Limits, MqttLimits, NetLimits
from asyncmg.codecs import mqtt as m
from asyncmg.codecs.mqtt_encode import encode_connect, encode_publish, encode_subscribe, encode_unsubscribe
from asyncmg.codecs.mqtt_properties import Property

from .conftest import Harness, eventually
from .mqtt_peer import BrokerHarness, serving

_MEBIBYTE = 1 << 20


@asynccontextmanager
async def bounded(served: BrokerHarness, most: int = 4 * _MEBIBYTE) -> AsyncIterator[None]:
    """What happens inside leaves no more than so many bytes behind, and a client that works goes on working."""
    good = await served.client("good")
    await good.subscribe(("good", 1))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield
        assert await good.publish("good/other", b"x", 1) == m.NO_MATCHING_SUBSCRIBERS
        served.broker.publish("good", b"served", 1)
        assert (await good.message()).payload == b"served"
        await asyncio.sleep(0.05)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < most


async def test_topics_without_end(harness: Harness) -> None:
    async with serving(harness) as served, bounded(served):
        peer = await served.client()
        for number in range(20_000):
            peer.publish_now(f"a/{number}", b"x")
            if number % 500 == 0:
                await peer.expect_nothing()
        await peer.expect_nothing()


async def test_deep_and_long_topics(harness: Harness) -> None:
    async with serving(harness) as served, bounded(served):
        for topic, code in (
            ("/".join("a" * 200), m.TOPIC_NAME_INVALID),
            ("a" * 2000, m.TOPIC_NAME_INVALID),
        ):
            peer = await served.client()
            peer.publish_now(topic, b"x")
            await peer.expect_disconnect(code)
            peer = await served.client()
            peer.send(encode_subscribe(5, 1, [(topic, 0)]))
            await peer.expect_disconnect(m.TOPIC_FILTER_INVALID)
        peer = await served.client()
        deepest = "/".join("a" * 128)
        for topic_filter in ("/".join("+" * 128), "a/" * 100 + "#", deepest):
            assert await peer.subscribe((topic_filter, 0)) == [0]
        peer.publish_now(deepest, b"x")
        assert (await peer.message()).payload == b"x"


async def test_filters_that_all_match(harness: Harness) -> None:
    """Wildcards in every place of a topic: the work grows with what matches, and a message comes once."""
    async with serving(harness) as served, bounded(served):
        peer = await served.client()
        levels = ["a", "+"]
        filters = ["".join(levels[number >> bit & 1] + "/" for bit in range(8)) + "#" for number in range(256)]
        for place in range(0, 256, 64):
            await peer.subscribe(*[(topic_filter, 0) for topic_filter in filters[place : place + 64]])
        for number in range(200):
            peer.publish_now("a/" * 8 + f"{number}", b"x")
            assert (await peer.message()).topic.endswith(f"/{number}")
        await peer.expect_nothing()


async def test_floods_of_subscriptions(harness: Harness) -> None:
    async with serving(harness) as served, bounded(served):
        peer = await served.client()
        for number in range(60):
            filters = [(f"{number}/{place}/+", 0) for place in range(100)]
            codes = await peer.subscribe(*filters)
            assert set(codes) == ({0} if number < 10 else {m.QUOTA_EXCEEDED})
        assert served.broker.statistics().subscriptions == 1001
        for number in range(2000):
            peer.send(encode_subscribe(5, 1, [("x", 0)]) + encode_unsubscribe(5, 2, ["x"]))
            if number % 100 == 99:
                for _ in range(200):
                    await peer.packet()
        await peer.disconnect()
        assert served.broker.statistics().subscriptions == 1


async def test_floods_of_connects(harness: Harness) -> None:
    limits = Limits(net=NetLimits(max_connections=50), mqtt=MqttLimits(connect_timeout=0.2))
    async with serving(harness, limits=limits) as served, bounded(served):
        for _ in range(6):
            peers = [await served.peer() for _ in range(40)]
            for place, peer in enumerate(peers):
                if place % 4 == 0:
                    peer.send(encode_connect(5, f"c{place}")[: place % 9])
                elif place % 4 == 1:
                    peer.send(encode_connect(5, f"c{place}", will_topic="w", will_payload=b"x" * 1000))
                elif place % 4 == 2:
                    peer.send(b"\x10\xff\xff\xff\x7f")
            for peer in peers:
                peer.vanish()
        await eventually(lambda: len(served.broker.clients()) == 1 and served.broker.statistics().sessions == 1)


async def test_sessions_that_nobody_comes_back_for(harness: Harness) -> None:
    limits = MqttLimits(max_sessions=100, max_session_expiry=1)
    async with serving(harness, mqtt=limits) as served, bounded(served):
        refused = 0
        for number in range(150):
            peer = await served.peer()
            connack = await peer.connect(f"c{number}", properties={Property.SESSION_EXPIRY_INTERVAL: 1_000_000})
            if connack.reason_code == 0:
                await peer.subscribe((f"t/{number}", 1))
                await peer.disconnect()
            else:
                assert connack.reason_code == m.QUOTA_EXCEEDED
                refused += 1
        assert refused > 0 or served.broker.statistics().sessions < 100
        await eventually(lambda: served.broker.statistics().sessions == 1)


async def test_huge_properties(harness: Harness) -> None:
    async with serving(harness) as served, bounded(served):
        many = {Property.USER_PROPERTY: [("k", "v")] * 101}
        large = {Property.USER_PROPERTY: [("k" * 60_000, "v" * 60_000)]}
        for wrong, code in (
            (encode_publish(5, "a", b"", properties=many), m.QUOTA_EXCEEDED),
            (encode_subscribe(5, 1, [("a", 0)], many), m.QUOTA_EXCEEDED),
            (encode_subscribe(5, 1, [("a", 0)], large), m.PACKET_TOO_LARGE),
            (encode_connect(5, "x", properties=large), m.PACKET_TOO_LARGE),
        ):
            peer = await served.client()
            peer.send(wrong)
            packet = await peer.expect(m.Disconnect)
            assert packet.reason_code in (code, m.PROTOCOL_ERROR)
            await peer.expect_end()
        for _ in range(50):
            peer = await served.client("same", properties={Property.SESSION_EXPIRY_INTERVAL: 100})
            peer.publish_now("a", b"", properties=large)
            await peer.expect_nothing()


async def test_messages_that_are_never_acknowledged(harness: Harness) -> None:
    limits = MqttLimits(max_queued=100, max_queued_bytes=_MEBIBYTE)
    async with serving(harness, mqtt=limits) as served, bounded(served):
        peer = await served.client("lazy", properties={Property.SESSION_EXPIRY_INTERVAL: 100})
        await peer.subscribe("a")
        for number in range(3000):
            served.broker.publish("a", b"x" * 2000, 1 + number % 2)
        for _ in range(32):
            await peer.message(acknowledges=False)
        await peer.expect_nothing()
        assert served.broker.statistics().messages_dropped == 3000 - 32 - 100


async def test_bytes_one_by_one(harness: Harness) -> None:
    async with serving(harness) as served, bounded(served):
        peer = await served.peer()
        packets = encode_connect(5, "slow") + encode_publish(5, "a", b"x" * 500, 1, packet_id=1)
        for place in range(len(packets)):
            peer.send(packets[place : place + 1])
            await asyncio.sleep(0)
        assert isinstance(await peer.packet(), m.Connack)
        await peer.expect_ack(m.PUBACK, 1)


async def test_a_thousand_small_packets_at_once_keep_nobody_waiting(harness: Harness) -> None:
    async with serving(harness) as served, bounded(served):
        flooder = await served.client()
        good = await served.client()
        stop = False

        async def flood() -> None:
            while not stop:
                flooder.send(b"\x30\x04\x00\x01a\x00" * 2000)
                await asyncio.sleep(0)
                await flooder.peer.writer.drain()

        flooding = asyncio.create_task(flood())
        for _ in range(50):
            await good.expect_nothing()
        stop = True
        await flooding


async def test_garbage(harness: Harness) -> None:
    import random

    generator = random.Random(6)
    async with serving(harness) as served, bounded(served):
        for number in range(200):
            peer = await served.peer(4 + number % 2)
            data = bytearray(encode_connect(peer.version, "g") if number % 4 else b"")
            data += encode_publish(peer.version, "a/b", b"x" * 20, 1, packet_id=3)
            for _ in range(number % 7):
                data[generator.randrange(len(data))] = generator.randrange(256)
            peer.send(bytes(data) + generator.randbytes(number))
            peer.peer.send_eof()
            try:
                await peer.peer.read_all()
            except ConnectionError:
                pass
        await eventually(lambda: len(served.broker.clients()) == 1)
