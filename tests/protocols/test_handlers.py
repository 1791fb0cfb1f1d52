"""Handlers: their kinds, how they are changed, and what happens when they raise."""

from __future__ import annotations

import asyncio
import functools
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asyncmg import (
    MG_EV_ACCEPT,
    MG_EV_CLOSE,
    MG_EV_CONNECT,
    MG_EV_OPEN,
    MG_EV_READ,
    MG_EV_WAKEUP,
    MG_EV_WRITE,
    BusyError,
    Connection,
    Manager,
)

from .conftest import Harness, eventually, soon

ROOT = Path(__file__).parents[2]
TCP = "tcp://127.0.0.1:0"


def shout(conn: Connection, ev: int, data: Any) -> None:
    if ev == MG_EV_READ:
        conn.send(conn.read().upper())


class PlainCallable:
    def __call__(self, conn: Connection, ev: int, data: Any) -> None:
        shout(conn, ev, data)

    def method(self, conn: Connection, ev: int, data: Any) -> None:
        shout(conn, ev, data)

    async def async_method(self, conn: Connection, ev: int, data: Any) -> None:
        shout(conn, ev, data)

    async def session(self, conn: Connection) -> None:
        async for ev, data in conn:
            shout(conn, ev, data)


class AsyncCallable:
    async def __call__(self, conn: Connection, ev: int, data: Any) -> None:
        await asyncio.sleep(0)
        shout(conn, ev, data)


async def with_prefix(prefix: bytes, conn: Connection, ev: int, data: Any) -> None:
    if ev == MG_EV_READ:
        conn.send(conn.read().upper())


@pytest.mark.parametrize(
    "handler",
    [
        PlainCallable(), PlainCallable().method, PlainCallable().async_method, PlainCallable().session, AsyncCallable(),
        functools.partial(with_prefix, b""), functools.partial(functools.partial(with_prefix, b"")),
        lambda conn, ev, data: shout(conn, ev, data),
    ],
)  # fmt: skip
async def test_every_callable_serves(harness: Harness, handler: Any) -> None:
    peer = await harness.peer(harness.serve(handler, TCP).port)
    peer.send(b"abc")
    assert await peer.read_exactly(3) == b"ABC"
    assert harness.errors == []


@pytest.mark.parametrize("wrong", [5, "handler", object()])
async def test_a_handler_must_be_callable(harness: Harness, wrong: Any) -> None:
    manager = harness.manager()
    with pytest.raises(TypeError):
        Manager(wrong)
    with pytest.raises(TypeError):
        manager.listen(TCP, wrong)
    with pytest.raises(TypeError):
        manager.connect("tcp://127.0.0.1:9", wrong)
    listener = manager.listen(TCP)
    with pytest.raises(TypeError):
        listener.set_handler(wrong)
    assert manager.connections == (listener,), "nothing is left of what failed"


async def test_own_handler_and_default(harness: Harness) -> None:
    seen: list[str] = []
    manager = harness.manager(lambda conn, ev, data: seen.append("default") if ev == MG_EV_ACCEPT else None)
    own = lambda conn, ev, data: seen.append("own") if ev == MG_EV_ACCEPT else None  # noqa: E731
    with_own, without = manager.listen(TCP, own), manager.listen(TCP)
    assert with_own.handler is own and without.handler is None
    for listener, expected in ((with_own, "own"), (without, "default")):
        await harness.peer(listener.port)  # type: ignore[union-attr]
        await eventually(lambda expected=expected: seen and seen[-1] == expected)
    with_own.set_handler(None)
    await harness.peer(with_own.port)  # type: ignore[union-attr]
    await eventually(lambda: seen == ["own", "default", "default"])
    without.set_handler(own)
    await harness.peer(without.port)  # type: ignore[union-attr]
    await eventually(lambda: seen[-1] == "own")


@pytest.mark.parametrize("before", ["sync", "async"])
@pytest.mark.parametrize("after", ["sync", "async"])
async def test_set_handler_at_run_time(harness: Harness, before: str, after: str) -> None:
    conns: list[Connection] = []

    def echo(mark: bytes, conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_ACCEPT:
            conns.append(conn)
        if ev == MG_EV_READ:
            conn.send(mark + conn.read())

    async def echo_async(mark: bytes, conn: Connection, ev: int, data: Any) -> None:
        await asyncio.sleep(0)
        echo(mark, conn, ev, data)

    kinds = {"sync": echo, "async": echo_async}
    peer = await harness.peer(harness.serve(functools.partial(kinds[before], b"1"), TCP).port)
    peer.send(b"a")
    assert await peer.read_exactly(2) == b"1a"
    second = functools.partial(kinds[after], b"2")
    conns[0].set_handler(second)
    assert conns[0].handler is second
    peer.send(b"b")
    assert await peer.read_exactly(2) == b"2b"
    conns[0].set_handler(None)
    peer.send(b"c")
    peer.send_eof()
    assert await peer.read_all() in (b"1c", b""), "the listener's handler is not the Manager's default"


async def test_a_sync_handler_can_hand_over_to_a_session(harness: Harness) -> None:
    async def session(conn: Connection) -> None:
        async for ev, data in conn:
            shout(conn, ev, data)

    def first(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_ACCEPT:
            conn.set_handler(session)

    peer = await harness.peer(harness.serve(first, TCP).port)
    peer.send(b"abc")
    assert await peer.read_exactly(3) == b"ABC"


async def test_a_session_cannot_take_over_from_an_async_handler_nor_be_replaced(harness: Harness) -> None:
    conns: list[Connection] = []

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        conns.append(conn)

    async def session(conn: Connection) -> None:
        conns.append(conn)
        async for _ in conn:
            pass

    await harness.peer(harness.serve(handler, TCP).port)
    await eventually(lambda: conns)
    with pytest.raises(BusyError):
        conns[0].set_handler(session)
    conns.clear()
    await harness.peer(harness.serve(session, TCP).port)
    await eventually(lambda: conns)
    with pytest.raises(BusyError):
        conns[0].set_handler(handler)


async def test_two_readers_are_refused(harness: Harness) -> None:
    listener = harness.serve(shout, TCP)
    conn = harness.manager().connect(f"tcp://127.0.0.1:{listener.port}")
    await soon(conn.connected())
    seen: list[int] = []

    async def read() -> None:
        async for ev, _ in conn:
            seen.append(ev)

    first = asyncio.create_task(read())
    await eventually(lambda: MG_EV_CONNECT in seen)
    with pytest.raises(BusyError):
        await anext(conn)
    conn.send(b"x")
    await eventually(lambda: MG_EV_READ in seen)  # the first reader goes on
    conn.close()
    await soon(first)
    with pytest.raises(StopAsyncIteration):
        await anext(conn)


async def test_without_any_handler_nothing_breaks(harness: Harness) -> None:
    listener = harness.serve(shout, TCP)
    conn = harness.manager().connect(f"tcp://127.0.0.1:{listener.port}")
    await soon(conn.connected())
    conn.send(b"x")
    await eventually(lambda: conn.recv_len == 1)


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("event", [MG_EV_OPEN, MG_EV_ACCEPT, MG_EV_READ, MG_EV_WRITE, MG_EV_WAKEUP, MG_EV_CLOSE])
async def test_an_exception_in_every_event(harness: Harness, kind: str, event: int) -> None:
    seen: list[int] = []
    conns: list[Connection] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if conn.is_listening:
            return
        conns.append(conn)
        seen.append(ev)
        if ev == event:
            raise ValueError("mine")
        shout(conn, ev, data)

    async def handler_async(conn: Connection, ev: int, data: Any) -> None:
        handler(conn, ev, data)

    manager = harness.manager(handler if kind == "sync" else handler_async, enable_wakeup=True)
    listener = manager.listen(TCP)
    peer = await harness.peer(listener.port)  # type: ignore[union-attr]
    await eventually(lambda: MG_EV_ACCEPT in seen)
    manager.wakeup(conns[0].id, b"")
    peer.send(b"x")
    if event != MG_EV_READ:
        assert await peer.read_exactly(1) == b"X", "the connection goes on"
    else:
        await eventually(lambda: harness.errors)
    await peer.close()
    await eventually(lambda: MG_EV_CLOSE in seen)
    await eventually(lambda: harness.errors)
    assert [str(error) for error in harness.errors] == ["mine"]
    peer = await harness.peer(listener.port)  # type: ignore[union-attr]
    await eventually(lambda: seen.count(MG_EV_ACCEPT) == 2)


@pytest.mark.parametrize("kind", ["sync", "async", "session"])
async def test_without_an_error_handler_it_is_logged_once(
    harness: Harness, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_READ:
            raise ValueError("told to the log")

    async def handler_async(conn: Connection, ev: int, data: Any) -> None:
        handler(conn, ev, data)

    async def session(conn: Connection) -> None:
        async for ev, data in conn:
            handler(conn, ev, data)

    chosen: Any = {"sync": handler, "async": handler_async, "session": session}[kind]
    manager = harness.manager(chosen, error_handler=None)
    listener = manager.listen(TCP)
    peer = await harness.peer(listener.port)  # type: ignore[union-attr]
    peer.send(b"x")
    await eventually(lambda: caplog.records)
    await peer.close()
    await eventually(lambda: manager.connections == (listener,))
    assert len(caplog.records) == 1
    record = caplog.records[0]
    assert (record.name, record.levelno) == ("asyncmg.manager", logging.ERROR)
    assert record.exc_info is not None and "told to the log" in record.getMessage()


async def test_an_error_handler_that_raises_is_logged(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_READ:
            conn.send(conn.read())
            raise ValueError("first")

    def broken(error: Exception) -> None:
        raise KeyError("second")

    listener = harness.manager(handler, error_handler=broken).listen(TCP)
    peer = await harness.peer(listener.port)  # type: ignore[union-attr]
    for _ in range(2):
        peer.send(b"x")
        assert await peer.read_exactly(1) == b"x"
    text = caplog.text
    assert "second" in text and "first" in text


async def test_a_session_that_raises_ends_its_connection(harness: Harness) -> None:
    async def session(conn: Connection) -> None:
        conn.send(b"so far")
        raise ValueError("session")

    assert await harness.ask(harness.serve(session, TCP).port, b"") == b"so far"
    await eventually(lambda: [str(error) for error in harness.errors] == ["session"])


async def test_a_session_may_send_to_a_connection_that_has_gone(harness: Harness) -> None:
    ended = asyncio.Event()

    async def session(conn: Connection) -> None:
        try:
            async for ev, _ in conn:
                if ev == MG_EV_CLOSE:
                    conn.send(b"too late")
        finally:
            ended.set()

    peer = await harness.peer(harness.serve(session, TCP).port)
    await peer.close()
    await soon(ended.wait())
    await asyncio.sleep(0.01)
    assert harness.errors == [], "ConnectionClosed after the end is no error of the handler"


# -- the rest ---------------------------------------------------------------------------------------------------------


async def test_event_mask(harness: Harness) -> None:
    seen: list[int] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if not conn.is_listening:
            seen.append(ev)
        shout(conn, ev, data)

    listener = harness.manager(handler, events=[MG_EV_READ]).listen(TCP)
    peer = await harness.peer(listener.port)  # type: ignore[union-attr]
    peer.send(b"x")
    assert await peer.read_exactly(1) == b"X"
    await peer.close()
    await eventually(lambda: MG_EV_CLOSE in seen)
    assert seen == [MG_EV_READ, MG_EV_CLOSE], "CLOSE is always delivered"


async def test_close_is_delivered_to_an_async_handler_that_has_seen_nothing_before(harness: Harness) -> None:
    seen: list[int] = []

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        seen.append(ev)

    manager = harness.manager(handler, events=[MG_EV_READ])
    listener = manager.listen(TCP)
    await harness.peer(listener.port)  # type: ignore[union-attr]
    await eventually(lambda: len(manager.connections) == 2 and manager.connections[1].local_addr)
    await soon(manager.shutdown(0))
    assert seen == [MG_EV_CLOSE] and manager.connections == () and harness.errors == []


async def test_userdata_and_repr(harness: Harness) -> None:
    seen: list[Any] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if conn.is_listening:
            return
        if ev == MG_EV_OPEN:
            assert conn.userdata is None
            conn.userdata = {"n": 0}
        conn.userdata["n"] += 1
        seen.append((ev, conn, repr(conn)))

    listener = harness.serve(handler, TCP)
    assert repr(listener).startswith(f"<Listener id={listener.id} 127.0.0.1:")
    peer = await harness.peer(listener.port)
    await peer.close()
    await eventually(lambda: seen and seen[-1][0] == MG_EV_CLOSE)
    conn = seen[0][1]
    assert conn.userdata["n"] == len(seen) == 3
    assert seen[1][2].startswith(f"<Connection id={conn.id} 127.0.0.1:{listener.port}")
    assert repr(conn) == "<Connection closed>"
    listener.close()
    assert repr(listener) == "<Listener closed>"


INTERRUPT = """
import socket
from asyncmg import *

def handler(conn, ev, data):
    if ev == MG_EV_ACCEPT:
        raise {what}

manager = Manager({handler}, error_handler=lambda exc: print("error handler", repr(exc)))
listener = manager.listen("tcp://127.0.0.1:0")
sock = socket.create_connection(("127.0.0.1", listener.port))
try:
    for _ in range(50):
        manager.poll(20)
except KeyboardInterrupt:
    print("interrupted")
manager.close()
sock.close()
"""
ASYNC = """
async def handler_async(conn, ev, data):
    handler(conn, ev, data)
"""


@pytest.mark.parametrize("handler", ["handler", "handler_async"])
@pytest.mark.parametrize(("what", "code", "out"), [("KeyboardInterrupt", 0, "interrupted\n"), ("SystemExit(7)", 7, "")])
def test_keyboard_interrupt_and_system_exit_get_through(handler: str, what: str, code: int, out: str) -> None:
    program = INTERRUPT.format(what=what, handler=handler).replace("manager = ", ASYNC + "\nmanager = ", 1)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=8, check=False
    )
    assert (done.returncode, done.stdout) == (code, out), done.stderr
