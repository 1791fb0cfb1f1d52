"""Graceful shutdown: what is under way finishes, the rest ends, nothing is left."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from typing import Any

import pytest

from asyncmg import MG_EV_ACCEPT, MG_EV_CLOSE, MG_EV_HTTP_MSG, MG_EV_OPEN, Connection, Manager, ManagerClosed

from .conftest import Harness, eventually, soon

HTTP = "http://127.0.0.1:0"
GET = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_requests_under_way_finish_and_idle_connections_end(harness: Harness) -> None:
    gate = asyncio.Event()
    begun: list[Connection] = []

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            begun.append(conn)
            if data.method == "GET":
                await gate.wait()
            conn.reply(200, "done")

    manager = harness.manager(handler)
    port = manager.http_listen(HTTP).port
    idle = await harness.peer(port)
    idle.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    await idle.read_reply(head=True)
    busy = await harness.peer(port)
    busy.send(GET)
    await eventually(lambda: len(begun) == 2)
    stopping = asyncio.create_task(manager.shutdown())
    assert await idle.read_all() == b""
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)
    assert not stopping.done()
    gate.set()
    status, fields, body = await busy.read_reply()
    assert (status, fields["connection"], body) == (200, "close", b"done")
    await busy.close()
    await soon(stopping)
    assert manager.connections == () and not manager._tasks and not manager._timers
    with pytest.raises(ManagerClosed):
        manager.listen(HTTP)
    await manager.shutdown()  # again: nothing happens


async def hanging(harness: Harness) -> tuple[Manager, Any, list[int]]:
    seen: list[int] = []

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        seen.append(ev)

    manager = harness.manager(handler)
    peer = await harness.peer(manager.http_listen(HTTP).port)
    peer.send(GET)  # never answered
    await eventually(lambda: MG_EV_HTTP_MSG in seen)
    return manager, peer, seen


async def test_the_deadline_ends_what_hangs(harness: Harness) -> None:
    manager, peer, seen = await hanging(harness)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await soon(manager.shutdown(0.1))
    assert 0.09 < loop.time() - begun < 1
    assert await peer.read_all() == b""
    assert seen[-1] == MG_EV_CLOSE and manager.connections == ()


async def test_a_second_stop_ends_at_once(harness: Harness) -> None:
    manager, _, seen = await hanging(harness)
    serving = asyncio.create_task(manager.serve_forever(handle_signals=False))
    await asyncio.sleep(0)
    manager.stop()
    await asyncio.sleep(0.02)
    assert not serving.done()
    manager.stop()
    async with asyncio.timeout(2):
        await serving
    assert seen[-1] == MG_EV_CLOSE


async def test_a_signal_stops_serve_forever_and_handlers_are_restored(harness: Harness) -> None:
    before = signal.getsignal(signal.SIGTERM)
    manager = harness.manager(lambda *_: None)
    manager.listen(HTTP)
    serving = asyncio.create_task(manager.serve_forever())
    await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    await soon(serving)
    assert signal.getsignal(signal.SIGTERM) == before
    assert manager.connections == ()


async def test_async_with_is_graceful_and_an_exception_immediate(harness: Harness) -> None:
    loop = asyncio.get_running_loop()
    peer = None
    with pytest.raises(KeyError):
        async with Manager(lambda *_: None) as manager:
            peer = await harness.peer(manager.http_listen(HTTP).port)
            peer.send(GET)
            await eventually(lambda: len(manager.connections) == 2)
            begun = loop.time()
            raise KeyError
    assert loop.time() - begun < 1 and manager.connections == ()
    assert peer is not None


@pytest.mark.parametrize("kind", ["sync", "async", "session"])
@pytest.mark.parametrize("timeout", [0, 5])
async def test_close_reaches_every_kind_of_handler(harness: Harness, kind: str, timeout: float) -> None:
    seen: list[int] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if not conn.is_listening:
            seen.append(ev)

    async def handler_async(conn: Connection, ev: int, data: Any) -> None:
        handler(conn, ev, data)

    async def session(conn: Connection) -> None:
        async for ev, data in conn:
            handler(conn, ev, data)

    chosen: Any = {"sync": handler, "async": handler_async, "session": session}[kind]
    manager = harness.manager(chosen)
    listener = manager.listen("tcp://127.0.0.1:0")
    peers = [await harness.peer(listener.port) for _ in range(5)]  # type: ignore[union-attr]
    await eventually(lambda: seen.count(MG_EV_ACCEPT) == 5)
    await soon(manager.shutdown(timeout))
    assert seen.count(MG_EV_CLOSE) == 5 and manager.connections == () and not manager._tasks
    for peer in peers:
        assert await peer.read_all() == b""


async def test_nothing_is_left(harness: Harness) -> None:
    tasks = asyncio.all_tasks()
    stuck = asyncio.Event()

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            await stuck.wait()

    async def round_trip() -> int:
        manager = Manager(handler)
        port = manager.http_listen(HTTP).port
        manager.listen("udp://127.0.0.1:0")
        manager.timer_add(10, lambda: None, repeat=True)
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(GET.encode())
        manager.connect(f"http://127.0.0.1:{port}")
        await eventually(lambda: len(manager.connections) == 5)
        await soon(manager.shutdown(0))
        sock.close()
        assert manager.connections == () and not manager._tasks and not manager._timers
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", port))
        return len(os.listdir("/proc/self/fd"))

    first = await round_trip()
    assert [await round_trip() for _ in range(5)] <= [first] * 5
    assert asyncio.all_tasks() == tasks


async def test_shutdown_from_a_handler(harness: Harness) -> None:
    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, "bye")
            manager.stop()

    manager = harness.manager(handler)
    serving = asyncio.create_task(manager.serve_forever(handle_signals=False))
    reply = await harness.ask(manager.http_listen(HTTP).port, GET)
    assert reply.endswith(b"bye")
    await soon(serving)


@pytest.mark.parametrize("end", ["shutdown", "close"])
async def test_timers_that_handlers_add_meanwhile_end_as_well(harness: Harness, end: str) -> None:
    """Programs for Mongoose connect again by a timer that they set in MG_EV_CLOSE."""
    added: list[Any] = []
    calls: list[int] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_CLOSE:
            added.append(manager.timer_add(0, lambda: calls.append(1), repeat=True))

    manager = harness.manager(handler)
    listener = manager.listen("tcp://127.0.0.1:0")
    await soon(manager.connect(f"tcp://127.0.0.1:{listener.port}").connected())
    if end == "shutdown":
        await soon(manager.shutdown())
        assert len(added) >= 2  # of both ends
    else:
        manager.close()
        assert added  # of the listener
        harness.errors.clear()  # those that come later are told that the manager is closed
    assert not any(timer.active for timer in added) and not manager._timers
    seen = len(calls)
    await asyncio.sleep(0.01)
    assert len(calls) == seen


@pytest.mark.parametrize("scheme", ["tcp", "udp", "http"])
@pytest.mark.parametrize("end", ["close", "drain"])
async def test_a_connection_that_its_first_handler_closes(harness: Harness, scheme: str, end: str) -> None:
    seen: list[int] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        seen.append(ev)
        if ev == MG_EV_OPEN:
            getattr(conn, end)()

    manager = harness.manager(handler)
    manager.connect(f"{scheme}://127.0.0.1:9")
    await eventually(lambda: not manager.connections and not manager._tasks)
    assert seen == [MG_EV_OPEN, MG_EV_CLOSE]  # nothing behind the end
    assert harness.errors == []


async def test_resolving_in_another_loop_is_refused(harness: Harness) -> None:
    async def resolve() -> None:
        conn.resolve("127.0.0.1")

    conn = harness.manager(lambda *_: None).connect("udp://127.0.0.1:9")
    await soon(conn.connected())
    with pytest.raises(RuntimeError, match="another event loop"):
        await asyncio.to_thread(asyncio.run, resolve())
    gc.collect()  # a coroutine that nobody awaits would be told now
    assert harness.errors == []


async def test_cancelling_shutdown_frees_the_backend(harness: Harness) -> None:
    for turns in (0, 1, 2, 3, 5, 8):
        manager, peer, _ = await hanging(harness)
        task = asyncio.create_task(manager.shutdown(0 if turns else 60))
        await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=10)
        # An engine has descriptors of its own.
        await eventually(lambda manager=manager: getattr(manager._backend, "_engine", None) is None)
        await peer.close()
