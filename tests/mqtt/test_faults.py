"""Connections cut at every byte of an exchange, and anywhere else: nothing is lost, with QoS 2 nothing is doubled."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

import asyncmg.mqtt_keeping
from asyncmg import Limits, MqttBroker, MqttLimits, mqtt_connect

from .cutting_proxy import Cut, CuttingProxy

TIMEOUT = 60.0
MESSAGES = 10_000
EXCHANGE = 34  # bytes of one message's exchange, each way, at most


def cuts(seed: int) -> Iterator[Cut]:
    """Each byte of the first exchange, each way, with and without a reset; then 150 anywhere; then none."""
    generator = random.Random(seed)
    yield Cut(False, 200, False)  # the first attempt to connect has to succeed
    for count, to_broker, resets in itertools.product(range(EXCHANGE), (True, False), (True, False)):
        yield Cut(to_broker, count, resets)
    for _ in range(150):
        yield Cut(generator.random() < 0.5, int(generator.expovariate(1 / 3000)), generator.random() < 0.5)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect again without much of a pause."""
    monkeypatch.setattr(asyncmg.mqtt_keeping, "_FIRST_DELAY", 0.002)
    monkeypatch.setattr(asyncmg.mqtt_keeping, "_MAX_DELAY", 0.01)


@asynccontextmanager
async def proxies(port: int, seed: int) -> AsyncIterator[tuple[CuttingProxy, CuttingProxy]]:
    """Stand between a broker and its publishers, and its subscribers."""
    async with CuttingProxy(port, cuts(seed)) as first, CuttingProxy(port, cuts(seed + 1)) as second:
        yield first, second
        assert first.cut_count + second.cut_count > 150


async def exchange(port: int, qos: int, version: int, *, in_order: bool = True) -> None:
    """Publish, and receive, all messages over connections that are cut; hold what has come against what was sent.

    Args:
        in_order: the broker keeps the order of what it repeats and what it sends for the first time.
    """
    keeps = {"clean_start": False, "version": version, **({"session_expiry": 600} if version == 5 else {})}
    got: list[int] = []

    async def receive(url: str, subscribed: asyncio.Event) -> None:
        async with mqtt_connect(url, client_id="s", **keeps) as mq:  # type: ignore[arg-type]
            await mq.subscribe("t", qos)
            subscribed.set()
            async for message in mq:
                got.append(int(message.payload))
                if got[-1] == MESSAGES - 1:
                    return

    async def publish(url: str) -> None:
        async with mqtt_connect(url, client_id="p", **keeps) as mq:  # type: ignore[arg-type]
            window: list[asyncio.Future[int]] = []
            for number in range(MESSAGES):
                # At first one at a time, so that each byte of an exchange is cut; then many.
                window.append(asyncio.ensure_future(mq.publish("t", b"%d" % number, qos)))
                if len(window) >= (1 if number < 200 else 40):
                    await asyncio.gather(*window)
                    window.clear()
            await asyncio.gather(*window)

    async with asyncio.timeout(TIMEOUT), proxies(port, qos) as (first, second):
        subscribed = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(receive(second.url, subscribed))
            await subscribed.wait()
            tasks.create_task(publish(first.url))
    if qos == 2:
        assert got == list(range(MESSAGES))
    elif in_order:
        assert list(dict.fromkeys(got)) == list(range(MESSAGES))
    else:
        assert set(got) == set(range(MESSAGES))


@pytest.mark.slow
@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [1, 2])
async def test_nothing_is_lost(qos: int, version: int) -> None:
    limits = Limits(mqtt=MqttLimits(max_queued=MESSAGES))  # a subscriber that is cut off must not lose any by that
    async with MqttBroker(sys_interval=0, limits=limits) as broker:
        await exchange(broker.listen("mqtt://127.0.0.1:0").port, qos, version)
        assert broker.statistics().messages_dropped == 0
