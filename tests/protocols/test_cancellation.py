"""Cancelling every public coroutine at its wait: nothing is lost, nothing leaks."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from typing import Any

import pytest

import asyncmg
from asyncmg import MG_EV_ACCEPT, MG_EV_CONNECT, MG_EV_READ, Connection, ManagerClosed

from .conftest import Harness, eventually, soon

TCP = "tcp://127.0.0.1:0"


async def cancel(task: asyncio.Task[Any]) -> None:
    await asyncio.sleep(0.01)  # it is waiting by now
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)


async def next_of(source: Any) -> Any:
    return await anext(source)


async def pair(harness: Harness) -> tuple[Connection, Connection]:
    accepted: list[Connection] = []
    listener = harness.serve(lambda conn, ev, _: accepted.append(conn) if ev == MG_EV_ACCEPT else None, TCP)
    conn = harness.manager().connect(f"tcp://127.0.0.1:{listener.port}")
    await soon(conn.connected())
    await eventually(lambda: accepted)
    return conn, accepted[0]


async def hang(*args: Any, **kwargs: Any) -> None:
    await asyncio.Event().wait()


async def test_flush(harness: Harness) -> None:
    conn, other = await pair(harness)
    sent = 0
    while conn.is_writable or sent < 32 << 20:
        conn.send(bytes(1 << 20))
        sent += 1 << 20
        await asyncio.sleep(0)
        if conn.send_len > 4 << 20:
            break
    await cancel(asyncio.create_task(conn.flush()))
    waiting = asyncio.create_task(conn.flush())
    got = 0
    while got < sent:
        await eventually(lambda: other.recv_len)
        got += len(other.read())
    assert got == sent
    await soon(waiting)


async def test_connected(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = harness.serve(lambda *_: None, TCP)
    loop = asyncio.get_running_loop()
    gate, real = asyncio.Event(), loop.sock_connect

    async def late(*args: Any) -> None:
        await gate.wait()
        await real(*args)

    monkeypatch.setattr(loop, "sock_connect", late)
    conn = harness.manager().connect(f"tcp://127.0.0.1:{listener.port}")
    await cancel(asyncio.create_task(conn.connected()))
    other = asyncio.create_task(conn.connected())
    gate.set()
    await soon(other)
    assert conn.is_writable, "the connection goes on"


async def test_iteration_of_events(harness: Harness) -> None:
    conn, other = await pair(harness)
    seen = []
    while not seen or seen[-1] != MG_EV_CONNECT:
        seen.append((await soon(anext(conn)))[0])
    await cancel(asyncio.create_task(next_of(conn)))
    task = asyncio.create_task(next_of(conn))
    await asyncio.sleep(0)
    conn.handle_event(MG_EV_READ, 1)  # the event is there ...
    task.cancel()  # ... when its reader is cancelled
    try:
        event = await task
    except asyncio.CancelledError:
        event = await soon(anext(conn))
    assert event == (MG_EV_READ, 1)
    other.send(b"abc")
    assert await soon(anext(conn)) == (MG_EV_READ, 3)


async def test_iteration_of_a_listener(harness: Harness) -> None:
    listener = harness.serve(None, TCP)
    await cancel(asyncio.create_task(next_of(listener)))
    task = asyncio.create_task(next_of(listener))
    await asyncio.sleep(0)
    await harness.peer(listener.port)
    while not listener._waiting and not task.done():
        await asyncio.sleep(0)
    task.cancel()
    try:
        conn = await task
    except asyncio.CancelledError:
        conn = await soon(anext(listener))
    assert isinstance(conn, Connection)


async def test_serve_forever(harness: Harness) -> None:
    before = signal.getsignal(signal.SIGINT)
    manager = harness.manager(lambda *_: None)
    listener = manager.listen(TCP)
    await cancel(asyncio.create_task(manager.serve_forever()))
    assert signal.getsignal(signal.SIGINT) == before
    await harness.peer(listener.port)  # type: ignore[union-attr]
    await eventually(lambda: len(manager.connections) == 2)  # the manager goes on until it is closed


async def test_shutdown(harness: Harness) -> None:
    async def handler(conn: Connection, ev: int, data: Any) -> None:
        """Never answers."""

    manager = harness.manager(handler)
    peer = await harness.peer(manager.http_listen("http://127.0.0.1:0").port)
    peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await eventually(lambda: len(manager.connections) == 2)
    await asyncio.sleep(0.01)
    await cancel(asyncio.create_task(manager.shutdown(60)))
    assert await peer.read_all() == b"", "it closes at once"
    await eventually(lambda: not manager.connections and not manager._tasks)
    with pytest.raises(ManagerClosed):
        manager.listen(TCP)


@pytest.mark.parametrize("entry", ["connection", "function"])
async def test_entering_a_connection(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, entry: str, variant: str
) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", hang)
    gc.collect()  # what tests before this one have left
    tasks, descriptors = asyncio.all_tasks(), len(os.listdir("/proc/self/fd"))
    manager = harness.manager()

    async def enter() -> None:
        url = "tcp://127.0.0.1:9"
        async with manager.connect(url) if entry == "connection" else asyncmg.connect(url):
            pytest.fail("not reached")

    await cancel(asyncio.create_task(enter()))
    await eventually(lambda: not manager.connections and asyncio.all_tasks() == tasks)
    # The manager that the harness still has keeps its engine.
    engines = int(variant == "native" and entry == "connection")
    await eventually(lambda: len(os.listdir("/proc/self/fd")) == descriptors + engines)


async def test_inside_a_connection(harness: Harness) -> None:
    listener = harness.serve(lambda *_: None, TCP)
    inside = asyncio.Event()

    async def use() -> None:
        async with asyncmg.connect(f"tcp://127.0.0.1:{listener.port}"):
            inside.set()
            await hang()

    task = asyncio.create_task(use())
    await soon(inside.wait())
    await cancel(task)
    await eventually(lambda: len(listener._owner.connections) == 1)  # type: ignore[attr-defined]


async def test_a_handler_that_is_cancelled_by_the_end(harness: Harness) -> None:
    cancelled: list[int] = []

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_ACCEPT:
            try:
                await hang()
            except asyncio.CancelledError:
                cancelled.append(1)
                raise

    manager = harness.manager(handler)
    listener = manager.listen(TCP)
    await harness.peer(listener.port)  # type: ignore[union-attr]
    await eventually(lambda: len(manager.connections) == 2 and manager.connections[1].local_addr)
    await asyncio.sleep(0.01)
    await soon(manager.shutdown(0))
    assert cancelled == [1] and not manager._tasks and harness.errors == []
