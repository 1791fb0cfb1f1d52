"""Async handlers: they begin at once, in the name of a task that waits for them, and get it when they suspend."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from asyncmg import MG_EV_ACCEPT, MG_EV_CLOSE, MG_EV_ERROR, MG_EV_HTTP_MSG, MG_EV_READ, MG_EV_WAKEUP, AsyncmgError
from tests.protocols.conftest import TIMEOUT, Harness, eventually

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST_REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class CreatedTasks:
    """Counts the tasks that are created in a loop."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.loop = asyncio.get_running_loop()
        self.loop.set_task_factory(self.create)

    def create(self, loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> Any:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **kwargs)
        self.names.append(getattr(coro, "__qualname__", ""))
        return task


async def test_a_handler_that_does_not_suspend_makes_no_task(harness: Harness) -> None:
    tasks: set[Any] = set()

    async def handler(conn: Any, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            tasks.add(asyncio.current_task())
            conn.reply(200, "ok")

    listener = harness.serve(handler)
    peer = await harness.peer(listener.port)
    peer.send(REQUEST)
    await peer.read_reply()
    tasks.clear()  # the first event may have come before there was a carrier
    created = CreatedTasks()
    before = len(asyncio.all_tasks())
    for _ in range(50):
        peer.send(REQUEST)
        assert (await peer.read_reply())[2] == b"ok"
    created.loop.set_task_factory(None)
    assert not [name for name in created.names if "asyncmg" in name or "_run" in name]
    await eventually(lambda: len(asyncio.all_tasks()) <= before)
    assert len(tasks) == 1 and None not in tasks
    assert not harness.errors


async def test_the_task_is_the_same_behind_a_suspension(harness: Harness) -> None:
    seen: list[tuple[Any, ...]] = []

    async def handler(conn: Any, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            tasks = [asyncio.current_task()]
            for _ in range(3):
                await asyncio.sleep(0)
                tasks.append(asyncio.current_task())
            await asyncio.sleep(0.001)
            tasks.append(asyncio.current_task())
            seen.append(tuple(tasks))
            conn.reply(200, "ok")

    listener = harness.serve(handler)
    peers = [await harness.peer(listener.port) for _ in range(5)]
    for peer in peers:
        peer.send(REQUEST)
    for peer in peers:
        await peer.read_reply()
    assert len(seen) == 5
    for tasks in seen:
        assert None not in tasks and len(set(tasks)) == 1
    assert len({tasks[0] for tasks in seen}) == 5
    assert not harness.errors


async def answers(harness: Harness, handler: Any, n: int = 1) -> list[bytes]:
    """What n requests on one connection are answered; a handler that raises answers 500."""
    listener = harness.serve(handler)
    peer = await harness.peer(listener.port)
    contents = []
    for _ in range(n):
        peer.send(REQUEST)
        status, _, content = await peer.read_reply()
        contents.append(content if status == 200 else b"%d" % status)
        if status != 200:
            peer = await harness.peer(listener.port)
    return contents


def on_request(work: Any) -> Any:
    """A handler that answers each request with what the coroutine function returns."""

    async def handler(conn: Any, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, str(await work()))

    return handler


async def expire_at_once() -> str:
    try:
        async with asyncio.timeout(0):
            await asyncio.sleep(TIMEOUT)
    except TimeoutError:
        return "expired"
    return "not expired"


async def expire_later() -> str:
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(TIMEOUT)
    except TimeoutError:
        return "expired"
    return "not expired"


async def expire_in_a_bare_yield() -> str:
    try:
        async with asyncio.timeout(0):
            for _ in range(10):
                await asyncio.sleep(0)
    except TimeoutError:
        return "expired"
    return "not expired"


async def not_expiring() -> str:
    async with asyncio.timeout(TIMEOUT):
        await asyncio.sleep(0)
    async with asyncio.timeout(TIMEOUT):
        pass
    return "not expired"


async def wait_for_expiring() -> str:
    try:
        await asyncio.wait_for(asyncio.sleep(TIMEOUT), 0.01)
    except TimeoutError:
        return "expired"
    return "not expired"


async def wait_for_a_result() -> str:
    return await asyncio.wait_for(asyncio.sleep(0.001, "result"), TIMEOUT)


async def task_group() -> str:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.sleep(0.001 * i, str(i))) for i in range(3)]
    return "".join(task.result() for task in tasks)


async def failing_task_group() -> str:
    async def fail() -> None:
        raise LookupError

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await asyncio.sleep(TIMEOUT)
    except ExceptionGroup as exc:
        return "failed" if exc.subgroup(LookupError) is not None else "otherwise"
    return "not failed"


async def gathered() -> str:
    return "".join(await asyncio.gather(*(asyncio.sleep(0, str(i)) for i in range(3))))


async def shielded() -> str:
    return await asyncio.shield(asyncio.sleep(0.001, "shielded"))


async def cancelled_future() -> str:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    try:
        await future
    except asyncio.CancelledError:
        return f"cancelled {asyncio.current_task().cancelling()}"  # type: ignore[union-attr]
    return "not cancelled"


async def cancelled_in_the_first_step() -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    try:
        await asyncio.sleep(TIMEOUT)
    except asyncio.CancelledError:
        return f"cancelled {task.cancelling()} {task.uncancel()}"
    return "not cancelled"


async def cancelled_in_the_first_step_before_a_bare_yield() -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        return f"cancelled {task.cancelling()} {task.uncancel()}"
    return "not cancelled"


async def cancelled_in_the_first_step_before_a_shield() -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    inner = asyncio.ensure_future(asyncio.sleep(0.02))
    try:
        await asyncio.shield(inner)
    except asyncio.CancelledError:
        return f"cancelled {task.cancelling()} {task.uncancel()} {inner.cancelled()}"
    return "not cancelled"


async def cancelled_later() -> str:
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    try:
        await asyncio.sleep(TIMEOUT)
    except asyncio.CancelledError:
        return f"cancelled {task.cancelling()} {task.uncancel()}"
    return "not cancelled"


async def cancel_message() -> str:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel, "why")
    try:
        await asyncio.sleep(TIMEOUT)
    except asyncio.CancelledError as exc:
        task.uncancel()
        return str(exc)
    return "not cancelled"


WORKS = {
    expire_at_once: "expired",
    expire_later: "expired",
    expire_in_a_bare_yield: "expired",
    not_expiring: "not expired",
    wait_for_expiring: "expired",
    wait_for_a_result: "result",
    task_group: "012",
    failing_task_group: "failed",
    gathered: "012",
    shielded: "shielded",
    cancelled_future: "cancelled 0",
    cancelled_in_the_first_step: "cancelled 1 0",
    cancelled_in_the_first_step_before_a_bare_yield: "cancelled 1 0",
    cancelled_in_the_first_step_before_a_shield: "cancelled 1 0 False",
    cancelled_later: "cancelled 1 0",
    cancel_message: "why",
}


@pytest.mark.parametrize(
    ("work", "expected"),
    [pytest.param(work, expected, id=work.__name__) for work, expected in WORKS.items()],
)
async def test_what_a_task_can_do(harness: Harness, work: Any, expected: str) -> None:
    # In a task of asyncio's own it is so:
    assert await asyncio.create_task(work()) == expected
    # and in a handler, the first one and those behind it, which find a carrier ready:
    assert await answers(harness, on_request(work), 3) == [expected.encode()] * 3
    assert not harness.errors


async def test_a_cancellation_that_is_taken_back_hurts_no_other_connection(harness: Harness) -> None:
    async def handler(conn: Any, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG and data.uri == "/cancel":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            task.uncancel()
            conn.reply(200, "ok")
        elif ev == MG_EV_HTTP_MSG:
            try:
                await asyncio.sleep(0.005)
            except asyncio.CancelledError:
                conn.reply(500, "cancelled")
                raise
            conn.reply(200, "ok")

    listener = harness.serve(handler)
    one, two = await harness.peer(listener.port), await harness.peer(listener.port)
    for _ in range(3):
        one.send(REQUEST.replace(b"/ ", b"/cancel "))
        two.send(REQUEST)
        assert (await one.read_reply())[0] == 200
        assert (await two.read_reply())[0] == 200
    assert not harness.errors


async def test_a_cancelled_task_that_goes_on_closes_its_connection(harness: Harness) -> None:
    closed = []

    async def handler(conn: Any, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(TIMEOUT)
        elif ev == MG_EV_CLOSE:
            closed.append(conn.id)

    listener = harness.serve(handler)
    for i in range(3):
        await harness.ask(listener.port, REQUEST)
        async with asyncio.timeout(1):
            while len(closed) <= i:
                await asyncio.sleep(0.001)
    assert (await harness.peer(listener.port)) is not None


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


@pytest.mark.parametrize("suspends", [False, True])
async def test_contextvars_belong_to_a_connection(harness: Harness, suspends: bool) -> None:
    seen: dict[int, list[str]] = {}

    async def handler(conn: Any, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            seen.setdefault(conn.id, []).append(VARIABLE.get())
            VARIABLE.set(f"{conn.id}")
            if suspends:
                await asyncio.sleep(0.001)
            assert VARIABLE.get() == f"{conn.id}"
            conn.reply(200, "ok")
            VARIABLE.set(f"again {conn.id}")

    listener = harness.serve(handler)
    peers = [await harness.peer(listener.port) for _ in range(4)]
    for _ in range(3):
        for peer in peers:
            peer.send(REQUEST)
        for peer in peers:
            await peer.read_reply()
    await eventually(lambda: all(len(values) == 3 for values in seen.values()))
    assert len(seen) == 4
    assert all(values == ["unset", f"again {conn_id}", f"again {conn_id}"] for conn_id, values in seen.items())
    assert VARIABLE.get() == "unset"
    assert not harness.errors


@pytest.mark.parametrize("when", ["before", "behind", "both"])
async def test_an_exception_is_reported_once(harness: Harness, when: str) -> None:
    async def handler(conn: Any, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            if when != "before":
                await asyncio.sleep(0.001)
            raise LookupError(when)

    assert await answers(harness, handler, 3) == [b"500"] * 3
    assert [str(error) for error in harness.errors] == [when] * 3


@pytest.mark.parametrize("suspends", [False, True])
async def test_a_cancelled_error_of_something_else_is_a_handlers_error(harness: Harness, suspends: bool) -> None:
    async def handler(conn: Any, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            future = asyncio.get_running_loop().create_future()
            if suspends:
                asyncio.get_running_loop().call_later(0.001, future.cancel)
            else:
                future.cancel()
            await future

    assert await answers(harness, handler, 2) == [b"500"] * 2
    assert [type(error) for error in harness.errors] == [AsyncmgError] * 2
    assert isinstance(harness.errors[0].__cause__, asyncio.CancelledError)


@pytest.mark.parametrize("suspends", [False, True])
async def test_what_a_handler_causes_itself_comes_behind_it(harness: Harness, suspends: bool) -> None:
    order: dict[int, list[Any]] = {}

    async def handler(conn: Any, ev: int, data: Any) -> None:
        events = order.setdefault(conn.id, [])
        events.append(("begin", ev))
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, "ok")
            if suspends:
                await asyncio.sleep(0)
            if data.uri == "/close":
                conn.close()
            elif data.uri == "/error":
                conn.error("by the handler")
            else:
                conn.drain()
            if suspends:
                await asyncio.sleep(0.002)
        events.append(("end", ev))

    listener = harness.serve(handler)
    for uri in (b"/close", b"/drain", b"/error"):
        order.clear()
        peer = await harness.peer(listener.port)
        peer.send(REQUEST.replace(b"/ ", uri + b" "))
        await eventually(lambda: any(("end", MG_EV_CLOSE) in events for events in order.values()))
        (events,) = order.values()
        names = [ev for what, ev in events if what == "begin"]
        assert events == [(what, ev) for ev in names for what in ("begin", "end")]
        assert names[0] != MG_EV_CLOSE and names[-1] == MG_EV_CLOSE and names.count(MG_EV_CLOSE) == 1
        assert (MG_EV_ERROR in names) == (uri == b"/error")
        await peer.close()
    assert not harness.errors


async def test_events_of_one_connection_wait_for_its_handler(harness: Harness) -> None:
    running = 0
    order: list[int] = []

    async def handler(conn: Any, ev: int, data: Any) -> None:
        nonlocal running
        running += 1
        assert running == 1
        if ev == MG_EV_WAKEUP:
            order.append(int(data))
            if int(data) % 3:
                await asyncio.sleep(0)
        running -= 1

    manager = harness.manager(handler, enable_wakeup=True)
    listener = manager.listen("tcp://127.0.0.1:0")
    await harness.peer(listener.port)
    await eventually(lambda: len(manager.connections) == 2)
    conn_id = max(conn.id for conn in manager.connections)
    for i in range(200):
        manager.wakeup(conn_id, b"%d" % i)
        if i % 7 == 0:
            await asyncio.sleep(0)
    await eventually(lambda: len(order) == 200)
    assert order == list(range(200))
    assert not harness.errors


async def test_a_slow_handler_holds_up_nobody_else(harness: Harness) -> None:
    release = asyncio.Event()

    async def handler(conn: Any, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            if data.uri == "/slow":
                await release.wait()
            conn.reply(200, data.uri)

    listener = harness.serve(handler)
    slow, quick = await harness.peer(listener.port), await harness.peer(listener.port)
    slow.send(REQUEST.replace(b"/ ", b"/slow "))
    for _ in range(5):
        quick.send(REQUEST)
        assert (await quick.read_reply())[2] == b"/"
    release.set()
    assert (await slow.read_reply())[2] == b"/slow"


async def test_a_thousand_handlers_suspend_in_one_turn(harness: Harness) -> None:
    release = asyncio.Event()
    began: set[int] = set()
    ended: Counter[int] = Counter()
    tasks: set[Any] = set()

    async def handler(conn: Any, ev: int, data: Any) -> None:
        if ev == MG_EV_WAKEUP:
            began.add(conn.id)
            tasks.add(asyncio.current_task())
            await release.wait()
            assert asyncio.current_task() in tasks
            ended[conn.id] += 1

    manager = harness.manager(handler, enable_wakeup=True)
    listener = manager.listen("tcp://127.0.0.1:0")
    peers = [await harness.peer(listener.port) for _ in range(1000)]
    await eventually(lambda: len(manager.connections) == 1001)
    ids = [conn.id for conn in manager.connections if conn is not listener]
    for conn_id in ids:
        manager.wakeup(conn_id)
    await eventually(lambda: len(began) == 1000)
    assert len(tasks) == 1000
    release.set()
    await eventually(lambda: len(ended) == 1000)
    assert set(ended.values()) == {1} and set(ended) == set(ids)
    assert len(peers) == 1000 and not harness.errors


@pytest.mark.parametrize("timeout", [0, 0.05])
async def test_shutdown_while_handlers_are_suspended(harness: Harness, timeout: float) -> None:
    seen: list[str] = []

    async def handler(conn: Any, ev: int, data: Any) -> None:
        if ev == MG_EV_READ:
            begun.append(conn)
            try:
                await asyncio.sleep(TIMEOUT)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise
            finally:
                seen.append("end")

    begun: list[Any] = []
    manager = harness.manager(handler)
    listener = manager.listen("tcp://127.0.0.1:0")
    peers = [await harness.peer(listener.port) for _ in range(10)]
    for peer in peers:
        peer.send(b"x")
    await eventually(lambda: len(begun) == 10)
    async with asyncio.timeout(TIMEOUT):
        await manager.shutdown(timeout)
    assert sorted(seen) == ["cancelled"] * 10 + ["end"] * 10
    assert not [task for task in asyncio.all_tasks() if "asyncmg" in task.get_name()]


async def test_close_events_reach_async_handlers_at_the_end(harness: Harness) -> None:
    seen: list[str] = []

    async def handler(conn: Any, ev: int, data: Any) -> None:
        if ev == MG_EV_CLOSE and conn is not listener:
            seen.append("begin")
            await asyncio.sleep(0.01)
            seen.append("end")

    manager = harness.manager(handler)
    listener = manager.listen("tcp://127.0.0.1:0")
    for _ in range(5):
        await harness.peer(listener.port)
    await eventually(lambda: len(manager.connections) == 6)
    await manager.shutdown(0)
    assert seen == ["begin"] * 5 + ["end"] * 5


async def test_sleep_0_lets_others_run(harness: Harness) -> None:
    done = False
    turns = 0

    async def handler(conn: Any, ev: int, data: Any) -> None:
        nonlocal turns
        if ev == MG_EV_HTTP_MSG and data.uri == "/busy":
            while not done:
                turns += 1
                await asyncio.sleep(0)
            conn.reply(200, "ok")
        elif ev == MG_EV_HTTP_MSG:
            conn.reply(200, "quick")

    listener = harness.serve(handler)
    busy, quick = await harness.peer(listener.port), await harness.peer(listener.port)
    busy.send(REQUEST.replace(b"/ ", b"/busy "))
    await eventually(lambda: turns)
    for _ in range(5):
        quick.send(REQUEST)
        assert (await quick.read_reply())[2] == b"quick"
    done = True
    assert (await busy.read_reply())[2] == b"ok"


# -- kinds of handlers -----------------------------------------------------------------------------------------------


async def plain_handler(conn: Any, ev: int, data: Any) -> None:
    if ev == MG_EV_HTTP_MSG:
        await asyncio.sleep(0)
        conn.reply(200, "ok")


async def prefixed(prefix: str, conn: Any, ev: int, data: Any) -> None:
    assert prefix == "prefix"
    await plain_handler(conn, ev, data)


class WithMethod:
    async def handle(self, conn: Any, ev: int, data: Any) -> None:
        await plain_handler(conn, ev, data)

    @staticmethod
    async def handle_static(conn: Any, ev: int, data: Any) -> None:
        await plain_handler(conn, ev, data)


class CallableObject:
    async def __call__(self, conn: Any, ev: int, data: Any) -> None:
        await plain_handler(conn, ev, data)


async def defaults(conn: Any, ev: int = 0, data: Any = None) -> None:
    await plain_handler(conn, ev, data)


HANDLERS = {
    "function": plain_handler,
    "partial": functools.partial(prefixed, "prefix"),
    "partial of partial": functools.partial(functools.partial(prefixed), "prefix"),
    "bound method": WithMethod().handle,
    "static method": WithMethod.handle_static,
    "partial of a method": functools.partial(WithMethod().handle),
    "callable object": CallableObject(),
    "partial of an object": functools.partial(CallableObject()),
}


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
async def test_kinds_of_async_handlers(harness: Harness, handler: Any) -> None:
    assert await answers(harness, handler, 3) == [b"ok"] * 3
    assert not harness.errors


async def test_a_lambda_that_returns_a_coroutine_is_refused_once_an_event(harness: Harness) -> None:
    handler = lambda conn, ev, data: plain_handler(conn, ev, data)  # noqa: E731
    assert await answers(harness, handler, 2) == [b"500"] * 2
    assert harness.errors
    assert all(isinstance(error, TypeError) and "async def" in str(error) for error in harness.errors)


async def test_a_lambda_that_returns_a_task_is_a_plain_handler(harness: Harness) -> None:
    tasks = []
    handler = lambda conn, ev, data: tasks.append(asyncio.ensure_future(plain_handler(conn, ev, data)))  # noqa: E731
    assert await answers(harness, handler, 3) == [b"ok"] * 3
    await asyncio.wait(tasks)


@pytest.mark.parametrize("kind", ["future", "value", "raises"])
async def test_what_is_marked_as_a_coroutine_function(harness: Harness, kind: str) -> None:
    # Decorators do this: the call returns an awaitable that is no coroutine, or nothing to wait for, or it raises.
    class Marked:
        def __call__(self, conn: Any, ev: int, data: Any) -> Any:
            if kind == "raises" and ev == MG_EV_HTTP_MSG:
                raise LookupError("at once")
            if kind == "value":
                if ev == MG_EV_HTTP_MSG:
                    conn.reply(200, "ok")
                return 7
            return asyncio.ensure_future(plain_handler(conn, ev, data))

    handler: Any = Marked()
    if sys.version_info >= (3, 12):
        import inspect

        handler = inspect.markcoroutinefunction(handler)
        from asyncmg.dispatch import HandlerKind, handler_kind

        if handler_kind(handler) is not HandlerKind.ASYNC:
            pytest.skip("this Python's mark is not on the class")
    else:
        pytest.skip("inspect.markcoroutinefunction came with Python 3.12")
    assert await answers(harness, handler, 2) == [b"500" if kind == "raises" else b"ok"] * 2


# -- events caused by others -------------------------------------------------------------------------------------------


async def two_connections(harness: Harness, handler: Any) -> tuple[Any, Any, Any]:
    manager = harness.manager(handler, enable_wakeup=True)
    listener = manager.listen("tcp://127.0.0.1:0")
    for _ in range(2):
        await harness.peer(listener.port)
    await eventually(lambda: len(manager.connections) == 3)
    one, two = (conn for conn in manager.connections if conn is not listener)
    for _ in range(3):
        await asyncio.sleep(0)
    return manager, one, two


@pytest.mark.parametrize("suspends", [False, True])
async def test_events_caused_by_a_users_task(harness: Harness, suspends: bool) -> None:
    seen: list[Any] = []

    async def handler(conn: Any, ev: int, data: Any) -> None:
        if ev == MG_EV_ERROR:
            seen.append(asyncio.current_task())
            if suspends:
                await asyncio.sleep(0.001)
            seen.append(asyncio.current_task())

    _, one, two = await two_connections(harness, handler)
    mine = asyncio.current_task()
    one.error("by a task")
    assert asyncio.current_task() is mine
    async with asyncio.timeout(TIMEOUT):
        await asyncio.sleep(0)
    two.error("by a task")
    two.close()
    assert asyncio.current_task() is mine
    await eventually(lambda: len(seen) == 4)
    assert mine not in seen and None not in seen
    assert not harness.errors


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        pytest.param(False, False, id="none suspends"),
        pytest.param(True, False, id="outer suspends"),
        pytest.param(False, True, id="inner suspends"),
        pytest.param(True, True, id="both suspend"),
    ],
)
async def test_a_handler_causes_another_connections_event(harness: Harness, outer: bool, inner: bool) -> None:
    seen: list[str] = []
    tasks: dict[str, set[Any]] = {"outer": set(), "inner": set()}

    async def handler(conn: Any, ev: int, data: Any) -> None:
        if ev == MG_EV_WAKEUP:
            tasks["outer"].add(asyncio.current_task())
            two.error("by the other's handler")
            tasks["outer"].add(asyncio.current_task())
            if outer:
                await asyncio.sleep(0.005)
            tasks["outer"].add(asyncio.current_task())
            seen.append("outer")
        elif ev == MG_EV_ERROR:
            tasks["inner"].add(asyncio.current_task())
            if inner:
                await asyncio.sleep(0.001)
            tasks["inner"].add(asyncio.current_task())
            seen.append("inner")

    manager, one, two = await two_connections(harness, handler)
    manager.wakeup(one.id)
    async with asyncio.timeout(1):
        while len(seen) < 2:
            await asyncio.sleep(0.001)
    assert sorted(seen) == ["inner", "outer"]
    assert len(tasks["outer"]) == len(tasks["inner"]) == 1
    if outer and inner:
        assert tasks["outer"] != tasks["inner"]
    await eventually(lambda: len(manager.connections) == 2)
    assert not harness.errors


async def test_a_handler_causes_events_of_many_others(harness: Harness) -> None:
    ended: Counter[int] = Counter()

    async def handler(conn: Any, ev: int, data: Any) -> None:
        if ev == MG_EV_WAKEUP:
            for other in manager.connections:
                if other is not conn and other is not listener:
                    other.error("by the first")
            await asyncio.sleep(0.002)
            ended[conn.id] += 1
        elif ev == MG_EV_ERROR:
            await asyncio.sleep(0.001)
            ended[conn.id] += 1

    manager = harness.manager(handler, enable_wakeup=True)
    listener = manager.listen("tcp://127.0.0.1:0")
    for _ in range(20):
        await harness.peer(listener.port)
    await eventually(lambda: len(manager.connections) == 21)
    ids = [conn.id for conn in manager.connections if conn is not listener]
    manager.wakeup(ids[0])
    async with asyncio.timeout(1):
        while len(ended) < 20:
            await asyncio.sleep(0.001)
    assert set(ended.values()) == {1}
    assert not harness.errors


async def test_contextvars_of_a_handler_do_not_reach_the_connection_it_touches(harness: Harness) -> None:
    seen: list[str] = []

    async def handler(conn: Any, ev: int, data: Any) -> None:
        if ev == MG_EV_WAKEUP:
            VARIABLE.set("of the first")
            two.error("by the other's handler")
        elif ev == MG_EV_ERROR:
            seen.append(VARIABLE.get())

    manager, one, two = await two_connections(harness, handler)
    manager.wakeup(one.id)
    await eventually(lambda: seen)
    assert seen == ["unset"]


async def test_accept_may_suspend(harness: Harness) -> None:
    async def handler(conn: Any, ev: int, data: Any) -> None:
        if ev == MG_EV_ACCEPT:
            await asyncio.sleep(0.001)
        await plain_handler(conn, ev, data)

    assert await answers(harness, handler, 3) == [b"ok"] * 3
    assert not harness.errors


# -- whole programs ----------------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, gc, sys
from asyncmg import MG_EV_CLOSE, MG_EV_HTTP_MSG, Manager
import uvloop

kind, suspends, loop = sys.argv[1], sys.argv[2] == "suspends", sys.argv[3]

async def handler(conn, ev, data):
    if ev == MG_EV_CLOSE and kind == "clean":
        await asyncio.sleep(0)
    if ev == MG_EV_HTTP_MSG:
        if suspends:
            await asyncio.sleep(0.001)
        if kind == "SystemExit":
            raise SystemExit(7)
        if kind == "KeyboardInterrupt":
            raise KeyboardInterrupt
        if data.uri == "/stuck":
            await asyncio.sleep(100)
        conn.reply(200, "ok")

async def main():
    async with Manager(handler) as manager:
        listener = manager.listen("http://127.0.0.1:0")
        writers = []
        for i in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writers.append(writer)
            writer.write(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n" * 3)
            data = await reader.readuntil(b"ok")
            writer.write(b"GET /stuck HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
            await asyncio.sleep(0.02)
            if i == 2:
                writer.close()
        if kind == "close":
            manager.close()
            await asyncio.sleep(0.05)
        else:
            await manager.shutdown(0)
        for writer in writers:
            writer.close()
            try:
                await writer.wait_closed()
            except OSError:
                pass

try:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        runner.run(main())
finally:
    gc.collect()
print("end")
"""


def run_program(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, *arguments]
        if arguments[0] in ("clean", "close")
        else [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=9,
        check=False,
        env={**os.environ, "PYTHONTRACEMALLOC": "0"},
    )


@pytest.mark.parametrize("loop", ["stdlib", "uvloop"])
@pytest.mark.parametrize("suspends", ["suspends", "does not"])
@pytest.mark.parametrize("kind", ["clean", "close"])
def test_nothing_is_left_behind(kind: str, suspends: str, loop: str) -> None:
    result = run_program(kind, suspends, loop)
    lines = [line for line in result.stderr.splitlines() if "Executing <" not in line]  # slow callbacks of debug mode
    assert (result.returncode, result.stdout, lines) == (0, "end\n", []), result.stderr


@pytest.mark.parametrize("loop", ["stdlib", "uvloop"])
@pytest.mark.parametrize("suspends", ["suspends", "does not"])
@pytest.mark.parametrize(("kind", "code"), [("SystemExit", 7), ("KeyboardInterrupt", -2)])
def test_the_end_of_the_program_is_not_swallowed(kind: str, code: int, suspends: str, loop: str) -> None:
    result = run_program(kind, suspends, loop)
    assert result.returncode in (code, 130 if code < 0 else code), result.stderr
    assert "end" not in result.stdout
    assert "never awaited" not in result.stderr and "was destroyed" not in result.stderr
