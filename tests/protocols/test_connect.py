"""Outgoing connections: names, addresses, failures, and asyncmg.connect."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

import asyncmg
from asyncmg import (
    MG_EV_CLOSE,
    MG_EV_CONNECT,
    MG_EV_ERROR,
    MG_EV_OPEN,
    MG_EV_READ,
    MG_EV_RESOLVE,
    ConnectFailed,
    Connection,
    DnsLimits,
    InvalidUrl,
    Limits,
    ManagerClosed,
    NameNotFound,
    NetLimits,
    Resolver,
)
from asyncmg.resolver.hosts import find_addresses
from asyncmg.transports import sockets
from tests.resolver.dns_peer import DnsPeer, a, aaaa, serving, zone

from .conftest import Harness, eventually, soon

PATIENT = DnsLimits(timeout=25.0, try_timeout=20.0)


def stub(peer: DnsPeer, limits: DnsLimits = PATIENT) -> Resolver:
    return Resolver([peer.address], hosts="", backend="stub", limits=limits)


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Recorder:
    def __init__(self) -> None:
        self.events: list[tuple[int, Any]] = []

    def __call__(self, conn: Connection, ev: int, data: Any) -> None:
        self.events.append((ev, data))

    @property
    def names(self) -> list[int]:
        return [ev for ev, _ in self.events]


def echo(conn: Connection, ev: int, data: Any) -> None:
    if ev == MG_EV_READ:
        conn.send(conn.read())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_refused(harness: Harness, host: str) -> None:
    recorder = Recorder()
    port = unused_port()
    conn = harness.manager(recorder).connect(f"tcp://{host}:{port}")
    with pytest.raises(ConnectFailed) as caught:
        await soon(conn.connected())
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    assert recorder.names == [MG_EV_OPEN, MG_EV_RESOLVE, MG_EV_ERROR, MG_EV_CLOSE]
    assert recorder.events[2][1] is caught.value
    assert isinstance(caught.value, OSError) and isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert str(port) in str(caught.value)
    with pytest.raises(ConnectFailed):
        await conn.connected()


async def test_a_name_that_does_not_exist(harness: Harness) -> None:
    async with serving(zone()) as peer:
        for url in ("tcp://nowhere.test:80", "udp://nowhere.test:80", "tcp://nowhere.invalid:80"):
            recorder = Recorder()
            conn = harness.manager(recorder, resolver=stub(peer)).connect(url)
            with pytest.raises(NameNotFound, match=r"no such name: nowhere\.") as caught:
                await soon(conn.connected())
            assert isinstance(caught.value, ConnectFailed) and caught.value.rcode == 3
            await eventually(lambda recorder=recorder: MG_EV_CLOSE in recorder.names)
            assert recorder.names == [MG_EV_OPEN, MG_EV_ERROR, MG_EV_CLOSE]
            assert recorder.events[1][1] is caught.value
        assert sorted(peer.words) == sorted(["udp A nowhere.test", "udp AAAA nowhere.test"] * 2)


async def test_a_name_is_resolved(harness: Harness) -> None:
    listener = harness.serve(echo, "tcp://127.0.0.1:0")
    recorder = Recorder()
    async with serving(zone(a("some.test", "127.0.0.1"))) as peer:
        conn = harness.manager(recorder, resolver=stub(peer)).connect(f"tcp://some.test:{listener.port}")
        await soon(conn.connected())
        assert recorder.events[1] == (MG_EV_RESOLVE, [("127.0.0.1", listener.port)])
        assert conn.remote_addr == ("127.0.0.1", listener.port)
        assert sorted(peer.words) == ["udp A some.test", "udp AAAA some.test"]


@pytest.mark.parametrize("where", ["resolve", "connect"])
async def test_time_out(harness: Harness, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    recorder = Recorder()

    async def hang(*args: Any, **kwargs: Any) -> Any:
        await asyncio.Event().wait()

    if where == "connect":
        monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", hang)
    host = "name.test" if where == "resolve" else "127.0.0.1"
    async with serving(lambda query: None) as peer:
        limits = Limits(net=NetLimits(connect_timeout=0.05))
        conn = harness.manager(recorder, limits=limits, resolver=stub(peer)).connect(f"tcp://{host}:9")
        with pytest.raises(ConnectFailed, match=r"no answer in 0\.05 s") as caught:
            await soon(conn.connected())
        assert isinstance(caught.value.__cause__, TimeoutError)
        await eventually(lambda: MG_EV_CLOSE in recorder.names)


class Attempts:
    """Stands in for connecting one address; tells which attempts were made and which sockets are left."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, outcomes: dict[str, str]) -> None:
        self.made: list[tuple[str, float]] = []
        self.sockets: dict[str, socket.socket] = {}
        loop = asyncio.get_running_loop()
        real = loop.sock_connect

        async def connect(sock: socket.socket, address: Any) -> None:
            host = address[0]
            self.made.append((host, loop.time()))
            self.sockets[host] = sock
            outcome = outcomes[host]
            if outcome == "hang":
                await asyncio.Event().wait()
            elif outcome == "refuse":
                raise ConnectionRefusedError(111, "Connection refused")
            await real(sock, ("127.0.0.1", int(outcome)))

        monkeypatch.setattr(loop, "sock_connect", connect)


@pytest.mark.parametrize("first", ["hang", "refuse"])
async def test_the_second_address_wins(harness: Harness, monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    listener = harness.serve(echo, "tcp://127.0.0.1:0")
    attempts = Attempts(monkeypatch, {"127.0.0.1": first, "127.0.0.2": str(listener.port)})
    addresses = [(socket.AF_INET, (host, 1)) for host in ("127.0.0.1", "127.0.0.2")]
    sock = await soon(sockets.connect_fastest(addresses, 0.05))
    delay = attempts.made[1][1] - attempts.made[0][1]
    assert delay >= 0.045 if first == "hang" else delay < 0.04, "a failure lets the next begin at once"
    assert sock is attempts.sockets["127.0.0.2"] and sock.fileno() >= 0
    await eventually(lambda: attempts.sockets["127.0.0.1"].fileno() == -1)
    sock.close()


async def test_all_addresses_fail(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(monkeypatch, {"127.0.0.1": "refuse", "127.0.0.2": "refuse"})
    with pytest.raises(ConnectFailed, match=r"127\.0\.0\.1 port 1: .*127\.0\.0\.2 port 1: "):
        await soon(sockets.connect_fastest([(socket.AF_INET, (h, 1)) for h in ("127.0.0.1", "127.0.0.2")], 0.05))
    assert all(sock.fileno() == -1 for sock in attempts.sockets.values())


async def test_families_take_turns() -> None:
    records = [*(aaaa("x.test", f"2001:db8::{n}") for n in (1, 2, 3)), a("x.test"), a("x.test", "192.0.2.2")]
    async with serving(zone(*records)) as peer:
        resolver = stub(peer)
        await soon(asyncio.gather(resolver.addresses("x.test", 4), resolver.addresses("x.test", 6)))
        found = await soon(find_addresses(resolver, "x.test", 7))  # both are in the cache
        assert found.late is None
        told = [address[0] for _, address in found.first]
        assert told == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3"]
        assert found.first[:2] == [
            (socket.AF_INET6, ("2001:db8::1", 7, 0, 0)),
            (socket.AF_INET, ("192.0.2.1", 7)),
        ]


async def test_localhost_on_ipv6_only(harness: Harness) -> None:
    listener = harness.serve(echo, "tcp://[::1]:0")
    conn = harness.manager().connect(f"tcp://localhost:{listener.port}")
    await soon(conn.connected())
    assert conn.remote_addr is not None and conn.remote_addr.is_ipv6


@pytest.mark.parametrize("end", ["close", "drain", "shutdown"])
async def test_an_end_while_connecting(harness: Harness, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    attempts = Attempts(monkeypatch, {"127.0.0.1": "hang"})
    recorder = Recorder()
    manager = harness.manager(recorder)
    conn = manager.connect("tcp://127.0.0.1:9")
    waiting = asyncio.create_task(conn.connected())
    await eventually(lambda: attempts.sockets)
    await soon(manager.shutdown(5)) if end == "shutdown" else getattr(conn, end)()
    with pytest.raises(ConnectFailed):
        await soon(waiting)
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    assert recorder.names == [MG_EV_OPEN, MG_EV_RESOLVE, MG_EV_CLOSE]
    await eventually(lambda: attempts.sockets["127.0.0.1"].fileno() == -1)
    assert conn not in manager.connections
    await eventually(lambda: not manager._tasks)


async def test_close_at_once(harness: Harness) -> None:
    recorder = Recorder()
    conn = harness.manager(recorder).connect("tcp://127.0.0.1:9")
    conn.close()
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    await asyncio.sleep(0.01)
    assert recorder.names == [MG_EV_OPEN, MG_EV_CLOSE]


async def test_what_is_sent_before_the_connection_is_made_arrives(harness: Harness) -> None:
    listener = harness.serve(echo, "tcp://127.0.0.1:0")
    recorder = Recorder()
    conn = harness.manager(recorder).connect(f"tcp://127.0.0.1:{listener.port}")
    conn.send(b"early ")
    conn.send(b"bird")
    assert conn.send_len == 10
    await eventually(lambda: conn.recv_len == 10)
    assert conn.read() == b"early bird"
    assert recorder.names[:3] == [MG_EV_OPEN, MG_EV_RESOLVE, MG_EV_CONNECT]


async def test_sent_then_drained_before_the_connection_is_made(harness: Harness) -> None:
    got: list[bytes] = []

    def collect(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_READ:
            got.append(conn.read())

    listener = harness.serve(collect, "tcp://127.0.0.1:0")
    conn = harness.manager().connect(f"tcp://127.0.0.1:{listener.port}")
    conn.send(b"message")
    conn.drain()
    await eventually(lambda: got == [b"message"])
    await eventually(lambda: conn.is_closing)


async def test_connect_as_a_context_manager(harness: Harness) -> None:
    listener = harness.serve(echo, "tcp://127.0.0.1:0")
    async with asyncio.timeout(5), asyncmg.connect(f"tcp://127.0.0.1:{listener.port}") as conn:
        assert conn.is_client and conn.is_writable
        conn.send(b"hello")
        seen = []
        async for ev, _ in conn:
            seen.append(ev)
            if ev == MG_EV_READ:
                break
        assert conn.read() == b"hello"
        assert seen[:3] == [MG_EV_OPEN, MG_EV_RESOLVE, MG_EV_CONNECT]
    assert conn.is_closing and conn.local_addr is None


async def test_leaving_the_context_sends_what_is_queued(harness: Harness) -> None:
    got = bytearray()

    def collect(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_READ:
            got.extend(conn.read())

    listener = harness.serve(collect, "tcp://127.0.0.1:0")
    async with asyncmg.connect(f"tcp://127.0.0.1:{listener.port}") as conn:
        conn.send(bytes(3 << 20))
    await eventually(lambda: len(got) == 3 << 20)


async def test_an_exception_leaves_the_context_at_once(harness: Harness) -> None:
    listener = harness.serve(echo, "tcp://127.0.0.1:0")
    with pytest.raises(KeyError):
        async with asyncmg.connect(f"tcp://127.0.0.1:{listener.port}") as conn:
            raise KeyError("mine")
    assert conn.is_closing
    await eventually(lambda: len(listener._owner.connections) == 1)  # type: ignore[attr-defined]


async def test_the_context_raises_connect_failed() -> None:
    with pytest.raises(ConnectFailed):
        async with asyncmg.connect(f"tcp://127.0.0.1:{unused_port()}"):
            pytest.fail("not reached")


async def test_bad_urls_and_a_closed_manager(harness: Harness) -> None:
    manager = harness.manager()
    for url in ("", "127.0.0.1:80", "tcp://127.0.0.1", "tcp://127.0.0.1:0", "tcp://:80", "tcp://h:65536", "ftp://h:1"):
        with pytest.raises(InvalidUrl) as caught:
            manager.connect(url)
        assert isinstance(caught.value, RuntimeError) and isinstance(caught.value, ValueError)
    with pytest.raises(TypeError):
        manager.connect(None)  # type: ignore[arg-type]
    assert manager.connections == ()
    await soon(manager.shutdown(0))
    with pytest.raises(ManagerClosed):
        manager.connect("tcp://127.0.0.1:9")
