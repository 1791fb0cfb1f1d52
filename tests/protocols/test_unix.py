"""Unix sockets: raw and HTTP, and what happens to their paths."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from asyncmg import MG_EV_CONNECT, MG_EV_HTTP_MSG, MG_EV_READ, ConnectFailed, Connection, Listener, ListenFailed

from .conftest import Harness, RawPeer, eventually, soon

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "s")


def echo(conn: Connection, ev: int, data: Any) -> None:
    if ev == MG_EV_READ:
        conn.send(conn.read())


def reply(conn: Connection, ev: int, data: Any) -> None:
    if ev == MG_EV_HTTP_MSG:
        conn.reply(200, data.uri)


async def ask(path: str, data: bytes) -> bytes:
    peer = RawPeer(*await asyncio.open_unix_connection(path))
    peer.send(data)
    peer.send_eof()
    answer = await peer.read_all()
    await peer.close()
    return answer


async def test_raw_stream_both_ways(harness: Harness, path: str) -> None:
    listener = harness.serve(echo, f"unix://{path}")
    assert listener.local_addr == (path, 0) and not listener.local_addr.is_ipv6 and listener.port == 0
    data = os.urandom(1 << 20)
    assert await ask(path, data) == data
    conn = harness.manager().connect(f"unix://{path}")
    await soon(conn.connected())
    assert conn.remote_addr == (path, 0)
    conn.send(b"hello")
    await eventually(lambda: conn.recv_len == 5)
    assert conn.read() == b"hello"


async def test_http(harness: Harness, path: str) -> None:
    harness.serve(reply, f"unix://{path}", http=True)
    answer = await ask(path, b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"/x")

    answers: list[str] = []

    def client(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_CONNECT:
            conn.send(b"GET /y HTTP/1.1\r\nHost: x\r\n\r\n")
        elif ev == MG_EV_HTTP_MSG:
            answers.append(data.body_text)

    harness.manager(client).connect(f"unix://{path}", http=True)
    await eventually(lambda: answers == ["/y"])


async def test_a_stale_path_is_replaced(harness: Harness, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()
    assert os.path.exists(path)
    harness.serve(echo, f"unix://{path}")
    assert await ask(path, b"x") == b"x"


async def test_a_live_path_is_refused_and_goes_on(harness: Harness, path: str) -> None:
    harness.serve(echo, f"unix://{path}")
    with pytest.raises(ListenFailed) as caught:
        harness.serve(echo, f"unix://{path}")
    assert isinstance(caught.value, OSError) and isinstance(caught.value, RuntimeError) and path in str(caught.value)
    assert await ask(path, b"still here") == b"still here"


async def test_a_file_is_not_replaced(harness: Harness, path: str) -> None:
    Path(path).write_text("precious")
    with pytest.raises(ListenFailed):
        harness.serve(echo, f"unix://{path}")
    assert Path(path).read_text() == "precious"


async def test_the_path_is_removed_at_close(harness: Harness, path: str) -> None:
    listener = harness.serve(echo, f"unix://{path}")
    listener.close()
    await eventually(lambda: not os.path.exists(path))
    with pytest.raises(OSError):
        await ask(path, b"")


async def test_the_path_is_removed_at_shutdown(harness: Harness, path: str) -> None:
    manager = harness.manager(echo)
    manager.listen(f"unix://{path}")
    await soon(manager.shutdown(1))
    assert not os.path.exists(path)


async def test_somebody_elses_path_is_left_alone(harness: Harness, path: str) -> None:
    first = harness.serve(echo, f"unix://{path}")
    os.unlink(path)
    harness.serve(lambda conn, ev, data: conn.send(b"second") if ev == MG_EV_READ else None, f"unix://{path}")
    task = first._accept_task
    first.close()
    await eventually(lambda: task is None or task.done())
    await asyncio.sleep(0)
    assert await ask(path, b"x") == b"second"


async def test_a_path_that_is_too_long(harness: Harness, tmp_path: Path) -> None:
    with pytest.raises(ListenFailed, match="too long"):
        harness.serve(echo, f"unix://{tmp_path}/{'x' * 200}")


async def test_a_directory_that_does_not_exist(harness: Harness, tmp_path: Path) -> None:
    with pytest.raises(ListenFailed, match="No such file"):
        harness.serve(echo, f"unix://{tmp_path}/nowhere/s")


async def test_nobody_listens(harness: Harness, path: str) -> None:
    conn = harness.manager().connect(f"unix://{path}")
    with pytest.raises(ConnectFailed) as caught:
        await soon(conn.connected())
    assert path in str(caught.value) and isinstance(caught.value.__cause__, OSError)


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
async def test_abstract_names(harness: Harness) -> None:
    name = f"@asyncmg-test-{os.getpid()}"
    listener = harness.serve(echo, f"unix:{name}")
    assert isinstance(listener, Listener) and listener.local_addr == (name, 0)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect("\0" + name[1:])
    conn = harness.manager().connect(f"unix:{name}")
    await soon(conn.connected())
    assert conn.remote_addr == (name, 0)
