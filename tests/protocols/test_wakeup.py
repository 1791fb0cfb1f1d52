"""Manager.wakeup: messages to a connection, from any thread."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

from asyncmg import MG_EV_ACCEPT, MG_EV_WAKEUP, Connection, ManagerClosed

from .conftest import Harness, eventually, soon


class Receiver:
    """Keeps the WAKEUP data of the accepted connection."""

    def __init__(self) -> None:
        self.conns: list[Connection] = []
        self.data: list[Any] = []

    def __call__(self, conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_ACCEPT:
            self.conns.append(conn)
        elif ev == MG_EV_WAKEUP:
            self.data.append(data)


async def connect(harness: Harness, handler: Any, receiver: Receiver, **kwargs: Any) -> tuple[Any, int]:
    manager = harness.manager(handler, **kwargs)
    listener = manager.listen("tcp://127.0.0.1:0")
    await harness.peer(listener.port)  # type: ignore[union-attr]
    await eventually(lambda: receiver.conns)
    return manager, receiver.conns[0].id


@pytest.mark.parametrize("kind", ["sync", "async", "session"])
async def test_a_thousand_from_threads_none_lost_order_kept(harness: Harness, kind: str) -> None:
    receiver = Receiver()

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        receiver(conn, ev, data)

    async def session(conn: Connection) -> None:
        async for ev, data in conn:
            receiver(conn, ev, data)

    manager, target = await connect(
        harness, {"sync": receiver, "async": handler, "session": session}[kind], receiver, enable_wakeup=True
    )
    results: list[bool] = []

    def send(sender: int) -> None:
        results.extend(manager.wakeup(target, b"%d:%d" % (sender, n)) for n in range(250))

    threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    await eventually(lambda: len(receiver.data) == 1000)
    for thread in threads:
        thread.join()
    assert results == [True] * 1000
    for sender in range(4):
        own = [data for data in receiver.data if data.startswith(b"%d:" % sender)]
        assert own == [b"%d:%d" % (sender, n) for n in range(250)]


async def test_any_size_arrives_whole(harness: Harness) -> None:
    receiver = Receiver()
    manager, target = await connect(harness, receiver, receiver, enable_wakeup=True)
    big = os.urandom(1 << 20)
    for data in (b"", b"x", big, bytearray(b"array"), memoryview(b"view")):
        assert manager.wakeup(target, data) is True
    assert manager.wakeup(target) is True
    await eventually(lambda: len(receiver.data) == 6)
    assert receiver.data == [b"", b"x", big, b"array", b"view", b""]
    assert all(type(data) is bytes for data in receiver.data)


async def test_data_is_copied(harness: Harness) -> None:
    receiver = Receiver()
    manager, target = await connect(harness, receiver, receiver, enable_wakeup=True)
    data = bytearray(b"before")
    manager.wakeup(target, data)
    data[:] = b"after!"
    await eventually(lambda: receiver.data)
    assert receiver.data == [b"before"]


async def test_it_wakes_a_sleeping_loop(harness: Harness) -> None:
    receiver = Receiver()
    woken = asyncio.Event()

    def handler(conn: Connection, ev: int, data: Any) -> None:
        receiver(conn, ev, data)
        if ev == MG_EV_WAKEUP:
            woken.set()

    manager, target = await connect(harness, handler, receiver, enable_wakeup=True)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    timer = threading.Timer(0.05, manager.wakeup, (target, b"now"))
    timer.start()
    await soon(woken.wait())
    timer.join()
    assert loop.time() - begun < 1


async def test_refusals(harness: Harness) -> None:
    receiver = Receiver()
    manager, target = await connect(harness, receiver, receiver, enable_wakeup=True)
    assert manager.wakeup_id > 0
    assert manager.wakeup(0, b"x") is False
    assert manager.wakeup(target + 1000, b"x") is False
    for wrong in ("text", 5, None):
        with pytest.raises(TypeError):
            manager.wakeup(target, wrong)
    receiver.conns[0].close()
    await eventually(lambda: receiver.conns[0].local_addr is None)
    assert manager.wakeup(target, b"x") is False
    await soon(manager.shutdown(0))
    with pytest.raises(ManagerClosed, match="Manager has been freed") as caught:
        manager.wakeup(target, b"x")
    assert isinstance(caught.value, RuntimeError)
    await asyncio.sleep(0)
    assert receiver.data == []


async def test_it_is_off_by_default(harness: Harness) -> None:
    receiver = Receiver()
    manager, target = await connect(harness, receiver, receiver)
    assert manager.wakeup_id == 0 and manager.wakeup(target, b"x") is False
    assert harness.manager().wakeup(1, b"") is False


async def test_a_connection_that_closes_meanwhile_gets_nothing(harness: Harness) -> None:
    receiver = Receiver()
    manager, target = await connect(harness, receiver, receiver, enable_wakeup=True)
    receiver.conns[0].close()
    assert manager.wakeup(target, b"late") in (True, False)
    await eventually(lambda: receiver.conns[0].local_addr is None)
    await asyncio.sleep(0.01)
    assert receiver.data in ([], [b"late"]) and harness.errors == []
