"""AsyncManager: cymongoose's calls, in the loop."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from asyncmg import (
    MG_EV_CONNECT,
    MG_EV_HTTP_MSG,
    MG_EV_MQTT_OPEN,
    MG_EV_OPEN,
    MG_EV_POLL,
    MG_EV_WAKEUP,
    MG_EV_WS_MSG,
    MG_EV_WS_OPEN,
    BusyError,
    Connection,
    Event,
    Limits,
    Manager,
    ManagerClosed,
    MqttBroker,
    NetLimits,
)
from asyncmg.async_manager import AsyncManager

from .conftest import eventually, soon


def answer(conn: Connection, ev: int, data: Any) -> None:
    if ev == MG_EV_HTTP_MSG and data.uri == "/ws":
        conn.ws_upgrade(data)
    elif ev == MG_EV_HTTP_MSG:
        conn.reply(200, f"{data.method} {data.uri}")
    elif ev == MG_EV_WS_MSG:
        conn.ws_send(data.text.upper())


async def test_http_and_websocket() -> None:
    got: list[Any] = []

    def client(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_CONNECT:
            conn.send("GET /path HTTP/1.1\r\nHost: a\r\n\r\n")
        elif ev == MG_EV_HTTP_MSG:
            got.append(data.body_text)

    async def ws_client(conn: Connection, ev: int, data: Any) -> None:
        await asyncio.sleep(0)
        if ev == MG_EV_WS_OPEN:
            conn.ws_send("hello")
        elif ev == MG_EV_WS_MSG:
            got.append(data.text)

    async with AsyncManager(answer) as am:
        assert am.running and isinstance(am.manager, Manager)
        for listener in (am.listen("http://127.0.0.1:0"), am.http_listen("http://127.0.0.1:0")):
            port = listener.local_addr[1]
            am.connect(f"http://127.0.0.1:{port}", client)
            am.http_connect(f"http://127.0.0.1:{port}", handler=client)
            am.ws_connect(f"ws://127.0.0.1:{port}/ws", ws_client)
        await eventually(lambda: len(got) == 6)
        assert sorted(got) == ["GET /path"] * 4 + ["HELLO"] * 2
        assert am.connections == am.manager.connections and len(am.connections) == 14
    assert not am.running


async def test_mqtt() -> None:
    opened: list[Any] = []

    def client(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_MQTT_OPEN:
            opened.append(data)

    async with AsyncManager() as am, MqttBroker() as broker:
        listener = broker.listen("mqtt://127.0.0.1:0")
        am.mqtt_connect(f"mqtt://127.0.0.1:{listener.port}", handler=client, client_id="me", keepalive=5)
        await eventually(lambda: opened == [0])
        assert am.mqtt_listen("mqtt://127.0.0.1:0").port > 0


@pytest.mark.parametrize(
    "use",
    [
        lambda am: am.listen("tcp://127.0.0.1:0"),
        lambda am: am.connect("tcp://127.0.0.1:1"),
        lambda am: am.http_listen("http://127.0.0.1:0"),
        lambda am: am.http_connect("http://127.0.0.1:1"),
        lambda am: am.ws_connect("ws://127.0.0.1:1"),
        lambda am: am.mqtt_connect("mqtt://127.0.0.1:1"),
        lambda am: am.mqtt_listen("mqtt://127.0.0.1:0"),
        lambda am: am.sntp_connect("udp://127.0.0.1:1"),
        lambda am: am.timer_add(1, print),
        lambda am: am.wakeup(1, b""),
        lambda am: am.schedule(print),
        lambda am: am.schedule(asyncio.sleep(0)),
        lambda am: am.manager,
        lambda am: am.connections,
    ],
)
async def test_not_started(use: Any) -> None:
    am = AsyncManager()
    for _ in range(2):
        assert not am.running and "not started" in repr(am)
        with pytest.raises(RuntimeError, match="AsyncManager is not started") as caught:
            use(am)
        assert isinstance(caught.value, ManagerClosed)
        async with am:  # and after it has been left
            assert "connections" in repr(am)


async def test_it_can_be_entered_again_but_not_twice() -> None:
    am = AsyncManager(answer)
    for _ in range(2):
        async with am:
            assert am.listen("http://127.0.0.1:0").local_addr[1]
            with pytest.raises(BusyError):
                await am.__aenter__()
            assert am.running


async def test_wrong_arguments() -> None:
    for options in ({"poll_interval": 0}, {"shutdown_timeout": -1}, {"shutdown_timeout": float("inf")}):
        with pytest.raises(ValueError):
            AsyncManager(**options)  # type: ignore[arg-type]
    assert not AsyncManager(None, 100, None, 30).running


async def test_timers_and_errors() -> None:
    errors: list[Exception] = []
    calls: list[str] = []

    async def later() -> None:
        await asyncio.sleep(0)
        calls.append("async")

    def fail() -> None:
        raise ValueError("timer")

    async with AsyncManager(error_handler=errors.append) as am:
        am.timer_add(1, lambda: calls.append("plain"))
        am.timer_add(1, later, run_now=True)
        am.timer_add(ms=1, callback=fail)
        repeated = am.timer_add(1, lambda: calls.append("again"), repeat=True)
        await eventually(lambda: calls.count("again") > 2 and "async" in calls and "plain" in calls and errors)
        repeated.cancel()
    assert calls.count("plain") == 1 and [str(error) for error in errors] == ["timer"]


async def test_wakeup_and_schedule_from_a_thread() -> None:
    woken: list[bytes] = []
    done: list[Any] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_WAKEUP:
            woken.append(data)

    async def work(value: str) -> None:
        await asyncio.sleep(0)
        done.append((value, threading.current_thread() is threading.main_thread()))

    async with AsyncManager(handler) as am:
        listener = am.listen("tcp://127.0.0.1:0")

        def run() -> None:
            done.append(am.wakeup(listener.id, b"x" * 100_000))
            am.schedule(work("coroutine"))
            am.schedule(lambda: work("function"))
            am.schedule(lambda: done.append("plain"))

        thread = threading.Thread(target=run)
        thread.start()
        await eventually(lambda: len(done) == 4 and woken)
        thread.join(10)
        assert woken == [b"x" * 100_000]
        assert done[0] is True and {("coroutine", True), ("function", True), "plain"} == set(done[1:])


async def test_what_scheduled_work_raises_is_reported() -> None:
    errors: list[Exception] = []

    async def fail() -> None:
        raise ValueError("coroutine")

    async with AsyncManager(error_handler=errors.append) as am:
        am.schedule(fail())
        am.schedule(fail)
        am.schedule(lambda: 1 / 0)
        with pytest.raises(TypeError):
            am.schedule(5)  # type: ignore[arg-type]
        await eventually(lambda: len(errors) == 3)
    assert sorted(type(error).__name__ for error in errors) == ["ValueError", "ValueError", "ZeroDivisionError"]


async def test_leaving_ends_scheduled_work() -> None:
    ended: list[str] = []

    async def wait(name: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(name)

    async with AsyncManager() as am:
        am.schedule(wait("running"))
        await asyncio.sleep(0.01)
        am.schedule(wait("not begun"))  # no warning that it was never awaited
    await eventually(lambda: "running" in ended)


async def test_calls_from_another_thread() -> None:
    result: list[Any] = []
    threads: list[threading.Thread] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_OPEN:  # of the listener, while listen() is under way
            threads.append(threading.current_thread())

    async with AsyncManager(handler) as am:

        def run() -> None:
            try:
                result.append(am.listen("http://127.0.0.1:0").local_addr[1])
                am.timer_add(1, lambda: result.append("timer"))
                am.listen("nonsense")
            except Exception as exc:
                result.append(exc)

        thread = threading.Thread(target=run)
        thread.start()
        await eventually(lambda: len(result) == 3)
        thread.join(10)
        assert {type(item).__name__ for item in result} == {"int", "str", "InvalidUrl"}
        assert threads == [threading.main_thread()]


async def test_poll_on_request() -> None:
    seen: set[int] = set()

    def handler(conn: Connection, ev: int, data: Any) -> None:
        seen.add(ev)

    async with AsyncManager(handler, 1, events=Event) as am:
        am.listen("tcp://127.0.0.1:0")
        await eventually(lambda: MG_EV_POLL in seen)
    seen.clear()
    async with AsyncManager(handler, 1) as am:
        am.listen("tcp://127.0.0.1:0")
        await asyncio.sleep(0.05)
    assert MG_EV_POLL not in seen


async def test_what_is_under_way_gets_time_to_finish() -> None:
    async def slow(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            asked.set()
            await asyncio.sleep(0.1)
            conn.reply(200, "late")

    asked = asyncio.Event()
    async with AsyncManager(slow, shutdown_timeout=20) as am:
        port = am.listen("http://127.0.0.1:0").local_addr[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await soon(asked.wait())
    assert (await soon(reader.read())).endswith(b"late")
    writer.close()
    await writer.wait_closed()


async def test_what_is_under_way_may_use_it_until_its_end() -> None:
    done: list[Any] = []

    async def slow(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            asked.set()
            await leaving.wait()
            await asyncio.sleep(0.01)
            am.schedule(lambda: done.append("scheduled"))
            am.timer_add(0, lambda: done.append("timer"))
            done.append(len(am.connections))
            await asyncio.sleep(0.1)
            conn.reply(200, "late")

    asked, leaving = asyncio.Event(), asyncio.Event()
    errors: list[Exception] = []
    async with AsyncManager(slow, shutdown_timeout=20, error_handler=errors.append) as am:
        port = am.listen("http://127.0.0.1:0").local_addr[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await soon(asked.wait())
        leaving.set()
    assert (await soon(reader.read())).endswith(b"late")
    assert errors == [] and sorted(map(str, done)) == ["1", "scheduled", "timer"]
    assert not am.running
    writer.close()
    await writer.wait_closed()


async def test_shutdown_timeout_bounds_it() -> None:
    async def never(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            asked.set()
            await asyncio.sleep(60)

    async def ask(am: AsyncManager) -> asyncio.StreamWriter:
        port = am.listen("http://127.0.0.1:0").local_addr[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await soon(asked.wait())
        return writer

    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    limits = Limits(net=NetLimits(graceful_timeout=60))  # what the Manager alone would do
    for timeout in (0.05, 0):
        asked.clear()
        async with AsyncManager(never, limits=limits, shutdown_timeout=timeout) as am:
            writer = await ask(am)
            began = loop.time()
        assert loop.time() - began < 15
        writer.transport.abort()
    asked.clear()
    with pytest.raises(KeyError):  # an exception closes at once
        async with AsyncManager(never, limits=limits, shutdown_timeout=60) as am:
            writer = await ask(am)
            began = loop.time()
            raise KeyError
    assert loop.time() - began < 15
    writer.transport.abort()
