"""Listeners: iteration, limits, and what cannot be listened to."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asyncmg import (
    MG_EV_ACCEPT,
    MG_EV_CLOSE,
    MG_EV_ERROR,
    MG_EV_OPEN,
    MG_EV_READ,
    BusyError,
    Connection,
    InvalidUrl,
    Limits,
    ListenFailed,
    LocalProtocolError,
    NetLimits,
)

from .conftest import Harness, eventually, soon

ROOT = Path(__file__).parents[2]
TCP = "tcp://127.0.0.1:0"


def echo(conn: Connection, ev: int, data: Any) -> None:
    if ev == MG_EV_READ:
        conn.send(conn.read())


async def test_iteration_yields_connections_that_are_iterated(harness: Harness) -> None:
    listener = harness.serve(None, TCP)
    peers = [await harness.peer(listener.port) for _ in range(3)]
    for n, peer in enumerate(peers):
        peer.send(b"%d" % n)
    served: list[list[int]] = []

    async def serve(conn: Connection) -> None:
        events: list[int] = []
        served.append(events)
        async for ev, data in conn:
            events.append(ev)
            echo(conn, ev, data)

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        async for conn in listener:
            group.create_task(serve(conn))
            if len(peers) == len(group._tasks):  # type: ignore[attr-defined]
                break
        for n, peer in enumerate(peers):
            assert await peer.read_exactly(1) == b"%d" % n
            await peer.close()
    assert all(events[:2] == [MG_EV_OPEN, MG_EV_ACCEPT] and events[-1] == MG_EV_CLOSE for events in served)


async def test_iteration_ends_when_the_listener_is_closed(harness: Harness) -> None:
    listener = harness.serve(None, TCP)

    async def iterate() -> list[Connection]:
        return [conn async for conn in listener]

    task = asyncio.create_task(iterate())
    await asyncio.sleep(0.01)
    listener.close()
    assert await soon(task) == []


async def test_connections_that_nobody_took_are_closed_with_the_listener(harness: Harness) -> None:
    listener = harness.serve(None, TCP)
    peer = await harness.peer(listener.port)
    await eventually(lambda: listener._waiting)
    listener.close()
    assert await peer.read_all() == b""
    assert [conn async for conn in listener] == [], "a closed connection is not handed out"


async def test_two_iterators_of_one_listener(harness: Harness) -> None:
    listener = harness.serve(None, TCP)
    first = asyncio.ensure_future(anext(listener))
    await asyncio.sleep(0)
    with pytest.raises(BusyError):
        await asyncio.wait_for(anext(listener), 1)
    await harness.peer(listener.port)
    assert isinstance(await soon(first), Connection)


async def test_a_full_queue_pauses_accepting(harness: Harness) -> None:
    listener = harness.serve(None, TCP, limits=Limits(net=NetLimits(max_accept_queue=2)))
    manager = listener._owner
    for _ in range(5):
        await harness.peer(listener.port)
    await eventually(lambda: len(listener._waiting) == 2)
    await asyncio.sleep(0.02)
    assert len(manager.connections) == 3, "the others wait in the backlog"  # type: ignore[attr-defined]
    taken = [await soon(anext(listener)) for _ in range(5)]
    assert len({conn.id for conn in taken}) == 5


async def test_max_connections_pauses_and_resumes(harness: Harness) -> None:
    listener = harness.serve(echo, TCP, limits=Limits(net=NetLimits(max_connections=2)))
    peers = [await harness.peer(listener.port) for _ in range(4)]
    for peer in peers:
        peer.send(b"x")
    for peer in peers[:2]:
        assert await peer.read_exactly(1) == b"x"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(peers[2].reader.read(1), 0.05)
    for n in (0, 1):
        await peers[n].close()
        assert await peers[n + 2].read_exactly(1) == b"x"


EMFILE = """
import asyncio, resource, socket
from asyncmg import *

LIMITS = Limits(net=NetLimits(accept_retry_delay=0.01))

def handler(conn, ev, data):
    if ev == MG_EV_READ:
        conn.send(conn.read())

async def main():
    errors = []
    async with Manager(handler, error_handler=errors.append, limits=LIMITS) as m:
        listener = m.listen("tcp://127.0.0.1:0")
        first = socket.create_connection(("127.0.0.1", listener.port))
        first.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(first, b"a")
        assert await loop.sock_recv(first, 1) == b"a"
        others = [socket.socket() for _ in range(3)]
        taken = []
        highest = max(sock.fileno() for sock in others)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 4, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        try:
            while True:
                taken.append(socket.socket())
        except OSError:
            pass
        for sock in others:
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", listener.port))
            await loop.sock_sendall(sock, b"b")
        await asyncio.sleep(0.1)
        await loop.sock_sendall(first, b"c")
        assert await loop.sock_recv(first, 1) == b"c", "connections that exist go on"
        assert len(m.connections) == 2
        for sock in taken:
            sock.close()
        for sock in others:
            assert await asyncio.wait_for(loop.sock_recv(sock, 1), 5) == b"b"
        for sock in [first, *others]:
            sock.close()
        assert errors == [] and not listener.is_closing
    print("survived")

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no file limits")
def test_running_out_of_descriptors_is_survived() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EMFILE], cwd=ROOT, capture_output=True, text=True, timeout=9, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "survived\n", "")


async def test_a_port_in_use(harness: Harness) -> None:
    listener = harness.serve(echo, TCP)
    with pytest.raises(ListenFailed, match=str(listener.port)) as caught:
        harness.serve(echo, f"tcp://127.0.0.1:{listener.port}")
    assert isinstance(caught.value, RuntimeError) and isinstance(caught.value, OSError)
    assert isinstance(caught.value.__cause__, OSError) and caught.value.errno == caught.value.__cause__.errno
    peer = await harness.peer(listener.port)
    peer.send(b"x")
    assert await peer.read_exactly(1) == b"x"


@pytest.mark.parametrize("url", ["", "8080", "*", "tcp://127.0.0.1", "ftp://127.0.0.1:1", "tcp://h:99999", "unix://"])
async def test_bad_urls(harness: Harness, url: str) -> None:
    with pytest.raises(InvalidUrl) as caught:
        harness.serve(echo, url)
    assert isinstance(caught.value, RuntimeError) and isinstance(caught.value, ValueError)
    with pytest.raises(TypeError):
        harness.serve(echo, 8080)  # type: ignore[arg-type]


async def test_an_address_that_is_not_ours(harness: Harness) -> None:
    with pytest.raises(ListenFailed):
        harness.serve(echo, "tcp://192.0.2.1:0")


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("tcp://127.0.0.1:0", ["127.0.0.1"]), ("tcp://:0", ["127.0.0.1"]), ("tcp://0.0.0.0:0", ["127.0.0.1"]),
        ("tcp://localhost:0", ["127.0.0.1"]), ("tcp://[::1]:0", ["::1"]), ("tcp://[::]:0", ["::1", "127.0.0.1"]),
    ],
)  # fmt: skip
async def test_where_it_listens(harness: Harness, url: str, hosts: list[str]) -> None:
    listener = harness.serve(echo, url)
    assert 0 < listener.port < 65536 and listener.local_addr is not None
    for host in ("127.0.0.1", "::1"):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as sock:
            sock.setblocking(False)
            connecting = asyncio.get_running_loop().sock_connect(sock, (host, listener.port))
            if host in hosts:
                await soon(connecting)
            else:
                with pytest.raises(OSError):
                    await soon(connecting)


async def test_close_frees_the_port_and_leaves_connections(harness: Harness) -> None:
    seen: list[int] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if conn.is_listening:
            seen.append(ev)
        echo(conn, ev, data)

    listener = harness.serve(handler, TCP)
    port = listener.port
    peer = await harness.peer(port)
    peer.send(b"x")
    assert await peer.read_exactly(1) == b"x"
    listener.close()
    listener.close()
    assert listener.is_closing and not listener.is_listening and listener.local_addr is None and listener.port == 0
    assert seen == [MG_EV_OPEN, MG_EV_CLOSE]
    await eventually(lambda: listener._sock.fileno() == -1)
    peer.send(b"y")
    assert await peer.read_exactly(1) == b"y"
    harness.serve(echo, f"tcp://127.0.0.1:{port}")


async def test_a_listener_carries_no_data(harness: Harness) -> None:
    listener = harness.serve(echo, TCP)
    with pytest.raises(LocalProtocolError):
        listener.send(b"x")
    assert listener.read() == listener.recv_data() == listener.send_data() == b""
    assert not listener.is_writable and not listener.is_readable and listener.recv_len == listener.send_len == 0
    await soon(listener.flush())
    await soon(listener.connected())
    assert listener.remote_addr is None and not listener.is_client and not listener.is_tls and not listener.is_udp
    listener.drain()
    assert listener.is_closing


async def test_a_connection_that_arrives_as_the_listener_closes_is_not_lost(harness: Harness) -> None:
    listener = harness.serve(echo, TCP)
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0.01)  # it is accepting
    with socket.socket() as sock:
        sock.connect(("127.0.0.1", listener.port))
        loop.call_at(loop.time(), listener.close)  # in the turn that sees the connection
        await eventually(lambda: listener._sock.fileno() == -1)
        # Filtered warnings are errors: a socket that nobody owns any more would fail the test.
        import gc

        gc.collect()


async def test_a_reset_before_accept_is_harmless(harness: Harness) -> None:
    listener = harness.serve(echo, TCP)
    for _ in range(10):
        peer = await harness.peer(listener.port)
        peer.reset()
    peer = await harness.peer(listener.port)
    peer.send(b"x")
    assert await peer.read_exactly(1) == b"x"
    assert harness.errors == []


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_listener_that_fails_tells_somebody(harness: Harness, kind: str) -> None:
    seen: list[Any] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if conn.is_listening and ev == MG_EV_ERROR:
            seen.append(data)

    async def handler_async(conn: Connection, ev: int, data: Any) -> None:
        handler(conn, ev, data)

    listener = harness.serve(handler if kind == "sync" else handler_async)
    failure = OSError("broken")
    listener.fail(failure)
    assert (seen if kind == "sync" else harness.errors) == [failure]
    assert not listener.is_listening
