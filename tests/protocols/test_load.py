"""Many connections, at once and one after the other: nothing breaks, nothing grows."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import tracemalloc
from typing import Any

import pytest

from asyncmg import MG_EV_HTTP_MSG, Connection, Limits, NetLimits

from .conftest import Harness, eventually

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def handler(conn: Connection, ev: int, data: Any) -> None:
    if ev == MG_EV_HTTP_MSG:
        conn.reply(200, b"ok")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.slow
async def test_a_thousand_connections_at_once(harness: Harness) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    listener = harness.serve(handler)
    peers = await asyncio.gather(*(harness.peer(listener.port) for _ in range(1000)))
    for _ in range(2):
        for peer in peers:
            peer.send(GET)
        replies = await asyncio.gather(*(peer.read_reply() for peer in peers))
        assert {status for status, _, _ in replies} == {200}


@pytest.mark.slow
async def test_ten_thousand_connections_one_after_the_other(harness: Harness) -> None:
    listener = harness.serve(handler, limits=Limits(net=NetLimits(linger_timeout=1)))
    manager = harness._managers[0]

    async def ask(count: int) -> None:
        for n in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            # A third each: the client closes, the server closes, the client resets.
            writer.write(GET if n % 3 else GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
            if n % 3 == 2:
                writer.transport.abort()
            else:
                writer.close()
                await writer.wait_closed()
        await eventually(lambda: len(manager.connections) == 1)
        gc.collect()

    await ask(500)
    tasks, files = len(asyncio.all_tasks()), descriptors()
    tracemalloc.start()
    try:
        await ask(200)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        await ask(9_000)
        tracemalloc.start()
        base, _ = tracemalloc.get_traced_memory()
        await ask(300)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - base < max(64 << 10, 2 * before)
    # A connection leaves the table one loop turn before its task is gone and its socket closed.
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
    await eventually(lambda: descriptors() <= files + 1)
    await eventually(lambda: len(manager._tasks) <= 1 and len(manager._timers) == 0)


@pytest.mark.slow
async def test_well_behaved_clients_are_served_while_others_misbehave(harness: Harness) -> None:
    listener = harness.serve(handler)
    loop = asyncio.get_running_loop()

    async def misbehave(n: int) -> None:
        while True:
            peer = await harness.peer(listener.port)
            if n % 3 == 0:
                peer.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 3000)
            elif n % 3 == 1:
                peer.send(GET * 300)
            else:
                peer.send(b"GET /" + b"x" * 100_000)
            await asyncio.sleep(0.01)
            peer.reset()

    crowd = [asyncio.create_task(misbehave(n)) for n in range(9)]
    peer = await harness.peer(listener.port)
    times = []
    try:
        for _ in range(200):
            begun = loop.time()
            peer.send(GET)
            assert (await peer.read_reply())[0] == 200
            times.append(loop.time() - begun)
    finally:
        for task in crowd:
            task.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
    # A bound against starvation, not a measure of speed: seconds would mean that somebody was forgotten.
    assert sorted(times)[-2] < 2.0
