"""Programs without asyncio: poll() and run(), as programs for Mongoose use them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncmg import (
    MG_EV_ACCEPT,
    MG_EV_CLOSE,
    MG_EV_CONNECT,
    MG_EV_HTTP_MSG,
    MG_EV_OPEN,
    MG_EV_POLL,
    MG_EV_READ,
    MG_EV_WAKEUP,
    BusyError,
    Connection,
    Manager,
    ManagerClosed,
)

ROOT = Path(__file__).parents[2]
TCP = "tcp://127.0.0.1:0"


def reply(conn: Connection, ev: int, data: Any) -> None:
    if ev == MG_EV_HTTP_MSG:
        conn.reply(200, "hello " + data.uri)


def poll_until(manager: Manager, condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, "it does not come true"
        manager.poll(20)


def port_of(conn: Connection) -> int:
    assert conn.local_addr is not None
    return conn.local_addr.port


@contextlib.contextmanager
def polling(manager: Manager) -> Iterator[threading.Thread]:
    """Poll in a thread of its own, as users of Mongoose bindings do."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            manager.poll(50)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(5)
        assert not thread.is_alive()


def http_get(port: int, target: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
        return answer


def test_server_and_client_in_the_main_thread() -> None:
    answers: list[str] = []

    def client(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_CONNECT:
            conn.send("GET /poll HTTP/1.1\r\nHost: x\r\n\r\n")
        elif ev == MG_EV_HTTP_MSG:
            answers.append(data.body_text)
            conn.close()

    before = threading.enumerate()
    with Manager(reply) as manager:
        port = port_of(manager.listen("http://127.0.0.1:0"))
        manager.connect(f"http://127.0.0.1:{port}", client)
        poll_until(manager, lambda: answers)
        assert threading.enumerate() == before, "no thread of our own"
    assert answers == ["hello /poll"]


def test_async_handlers_work_under_poll() -> None:
    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_READ:
            await asyncio.sleep(0.01)
            conn.send(conn.read().upper())

    with Manager(handler) as manager, socket.socket() as sock:
        sock.connect(("127.0.0.1", port_of(manager.listen(TCP))))
        sock.sendall(b"quiet")
        sock.setblocking(False)
        got = b""

        def received() -> bool:
            nonlocal got
            with contextlib.suppress(BlockingIOError):
                got += sock.recv(100)
            return got == b"QUIET"

        poll_until(manager, received)


def test_poll_in_a_thread_and_everything_else_in_another() -> None:
    fired = threading.Event()
    woken: list[Any] = []
    accepted: list[Connection] = []

    def raw(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_ACCEPT:
            accepted.append(conn)
        elif ev == MG_EV_WAKEUP:
            woken.append(data)
            conn.send(data)

    manager = Manager(reply, enable_wakeup=True)
    with polling(manager):
        names = {thread.name for thread in threading.enumerate()}
        port = port_of(manager.listen("http://127.0.0.1:0"))
        assert b"hello /1" in http_get(port, "/1")
        listener = manager.listen(TCP, raw)
        with socket.create_connection(("127.0.0.1", port_of(listener)), timeout=5) as sock:
            while not accepted:
                time.sleep(0.001)
            assert manager.wakeup(accepted[0].id, b"woken")
            assert sock.recv(100) == b"woken"
        timer = manager.timer_add(5, fired.set, repeat=True)
        assert fired.wait(5)
        timer.cancel()
        with pytest.raises(RuntimeError, match="poll"):
            manager.close()
        with pytest.raises(RuntimeError):
            manager.listen(f"http://127.0.0.1:{port}")
        assert {thread.name for thread in threading.enumerate()} == names
    manager.close()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_calls_from_many_threads_between_and_during_polls() -> None:
    manager = Manager(lambda *_: None)
    ports: list[int] = []
    with polling(manager):

        def listen() -> None:
            ports.extend(port_of(manager.listen(TCP)) for _ in range(20))

        threads = [threading.Thread(target=listen) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert len(set(ports)) == 80 and len(manager.connections) == 80
    manager.close()


def test_poll_returns_at_its_time_out() -> None:
    with Manager(reply) as manager:
        manager.listen("http://127.0.0.1:0")
        manager.poll(0)
        for timeout in (0, 60):
            begun = time.monotonic()
            manager.poll(timeout)
            assert timeout / 1000 - 0.002 <= time.monotonic() - begun < timeout / 1000 + 0.5


def test_poll_returns_early_when_something_happens() -> None:
    fired: list[int] = []
    with Manager(lambda *_: None) as manager:
        listener = manager.listen(TCP)
        manager.poll(0)
        begun = time.monotonic()
        manager.timer_add(20, lambda: fired.append(1))
        manager.poll(5000)
        assert fired == [1] and 0.015 < time.monotonic() - begun < 2
        with socket.create_connection(("127.0.0.1", port_of(listener))):
            begun = time.monotonic()
            manager.poll(5000)
            assert time.monotonic() - begun < 2


def test_poll_is_not_reentrant() -> None:
    caught: list[Exception] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_ACCEPT:
            for forbidden in (manager.poll, manager.close):
                try:
                    forbidden()
                except RuntimeError as exc:
                    caught.append(exc)

    with Manager(handler) as manager:
        with socket.create_connection(("127.0.0.1", port_of(manager.listen(TCP)))):
            poll_until(manager, lambda: caught)
        assert isinstance(caught[0], BusyError) and "not reentrant" in str(caught[0])
        assert "poll() is active" in str(caught[1])


def test_two_threads_cannot_poll() -> None:
    manager = Manager(lambda *_: None)
    manager.listen(TCP)
    with polling(manager):
        caught = False
        for _ in range(1000):
            try:
                manager.poll(0)
            except BusyError:
                caught = True
                break
        assert caught
    manager.close()


def test_poll_and_run_inside_a_running_loop_are_refused() -> None:
    async def main() -> None:
        async with Manager() as manager:
            for forbidden in (manager.poll, manager.run):
                with pytest.raises(RuntimeError):
                    forbidden()

    asyncio.run(main())

    async def other() -> None:
        with pytest.raises(RuntimeError):
            outside.poll(0)
        with pytest.raises(RuntimeError):
            outside.listen(TCP)

    outside = Manager()
    outside.poll(0)
    asyncio.run(other())
    outside.close()


def test_poll_events_come_only_when_asked_for() -> None:
    for events in (None, [MG_EV_POLL, MG_EV_OPEN]):
        seen: list[int] = []
        with Manager(lambda conn, ev, data, seen=seen: seen.append(ev), events=events) as manager:
            manager.listen(TCP)
            for _ in range(3):
                manager.poll(0)
            assert seen == ([MG_EV_OPEN] if events is None else [MG_EV_OPEN, MG_EV_POLL, MG_EV_POLL, MG_EV_POLL])


def test_close() -> None:
    seen: list[int] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if not conn.is_listening:
            seen.append(ev)

    descriptors = len(os.listdir("/proc/self/fd"))
    manager = Manager(handler)
    listener = manager.listen(TCP)
    port = port_of(listener)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        poll_until(manager, lambda: MG_EV_ACCEPT in seen)
        manager.close()
        assert sock.recv(10) == b""
    manager.close()
    assert seen[-1] == MG_EV_CLOSE and listener.is_closing and manager.connections == ()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    for forbidden in (
        manager.poll, manager.run, lambda: manager.listen(TCP), lambda: manager.connect("tcp://127.0.0.1:9"),
        lambda: manager.timer_add(1, print), lambda: manager.wakeup(1, b""),
    ):  # fmt: skip
        with pytest.raises(ManagerClosed, match="Manager has been freed") as caught:
            forbidden()
        assert isinstance(caught.value, RuntimeError)
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # for what is in TIME_WAIT
        again.bind(("127.0.0.1", port))


def test_close_of_a_manager_that_was_never_used() -> None:
    manager = Manager(lambda *_: None)
    manager.close()
    manager.close()
    with pytest.raises(ManagerClosed):
        manager.poll()


def test_context_manager_closes_after_an_exception() -> None:
    with pytest.raises(KeyError), Manager() as manager:
        listener = manager.listen(TCP)
        raise KeyError
    assert listener.is_closing
    with pytest.raises(ManagerClosed):
        manager.poll()


RUN = """
import signal, sys, threading
from asyncmg import *

def handler(conn, ev, data):
    if ev == MG_EV_HTTP_MSG:
        conn.reply(200, "ok")

before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
manager = Manager(handler)
listener = manager.listen("http://127.0.0.1:0")
manager.timer_add(0, lambda: print(listener.port, flush=True))
manager.run()
assert before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
assert threading.enumerate() == [threading.main_thread()]
try:
    manager.poll()
except RuntimeError as exc:
    print("closed", exc, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_stops_on_a_signal(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", RUN], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            assert http_get(port, "/").endswith(b"ok")
            process.send_signal(number)
            out, err = process.communicate(timeout=5)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")
    assert out == "closed Manager has been freed\n"


def test_run_can_be_stopped_by_a_handler_and_sends_poll_events() -> None:
    seen: list[int] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        seen.append(ev)
        if seen.count(MG_EV_POLL) == 3:
            manager.stop()

    manager = Manager(handler, events=[MG_EV_POLL])
    manager.listen(TCP)
    manager.run(10)
    assert seen.count(MG_EV_POLL) == 3


def test_a_handler_that_wants_to_exit_costs_nobody_else_an_event() -> None:
    exits: list[int] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            if not exits:
                exits.append(conn.id)
                raise SystemExit(3)
            conn.reply(200, "ok")

    with Manager(handler) as manager:
        port = port_of(manager.listen("http://127.0.0.1:0"))
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(4)]
            for peer in peers:
                peer.settimeout(5)
            poll_until(manager, lambda: len(manager.connections) == 5)
            for peer in peers:
                peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            with pytest.raises(SystemExit):
                for _ in range(100):
                    manager.poll(50)
            answered = 0
            for _ in range(40):
                manager.poll(10)
            for peer in peers:
                peer.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    answered += peer.recv(1000).startswith(b"HTTP/1.1 200")
            assert answered == 3
