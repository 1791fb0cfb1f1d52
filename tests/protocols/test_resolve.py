"""conn.resolve() and its events; connecting to names of which one family is slow, absent or dead (RFC 8305)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from asyncmg import (
    MG_EV_CLOSE,
    MG_EV_CONNECT,
    MG_EV_ERROR,
    MG_EV_OPEN,
    MG_EV_POLL,
    MG_EV_READ,
    MG_EV_RESOLVE,
    Address,
    ConnectFailed,
    Connection,
    ConnectionClosed,
    DnsLimits,
    InvalidUrl,
    Limits,
    LocalProtocolError,
    NameNotFound,
    NetLimits,
    ResolveFailed,
    Resolver,
)
from asyncmg.codecs.dns import write_message
from asyncmg.resolver.hosts import find_addresses
from asyncmg.transports.sockets import connect_fastest
from tests.resolver.dns_peer import DnsPeer, Query, a, aaaa, reply, serving, zone

from .conftest import Harness, eventually, soon

PATIENT = DnsLimits(timeout=300.0, try_timeout=300.0, resolution_delay=20.0)


class Recorder:
    def __init__(self) -> None:
        self.events: list[tuple[int, Any]] = []

    def __call__(self, conn: Connection, ev: int, data: Any) -> None:
        if ev != MG_EV_POLL:
            self.events.append((ev, data))
        if ev == MG_EV_READ:
            conn.send(conn.read())

    @property
    def names(self) -> list[int]:
        return [ev for ev, _ in self.events]

    @property
    def resolved(self) -> list[Any]:
        return [data for ev, data in self.events if ev == MG_EV_RESOLVE]


@pytest.fixture
async def names() -> AsyncIterator[DnsPeer]:
    """A server of names; those that begin with ``silent`` are not answered."""
    honest = zone(a("a.test", "127.0.0.1"), aaaa("b.test", "::1"), a("c.test", "192.0.2.3"), aaaa("c.test"))
    async with serving(lambda query: None if query.question.name.startswith("silent") else honest(query)) as peer:
        yield peer


def stub(peer: DnsPeer, limits: DnsLimits = PATIENT) -> Resolver:
    return Resolver([peer.address], hosts="", backend="stub", limits=limits)


async def connected(harness: Harness, recorder: Recorder, peer: DnsPeer) -> Connection:
    """Return a connection to an echo server whose Manager resolves with this peer."""
    listener = harness.serve(Recorder(), "tcp://127.0.0.1:0")
    limits = Limits(net=NetLimits(connect_timeout=300.0))  # longer than any test waits
    conn = harness.manager(recorder, resolver=stub(peer), limits=limits).connect(f"tcp://127.0.0.1:{listener.port}")
    await soon(conn.connected())
    recorder.events.clear()
    return conn


# -- conn.resolve() ---------------------------------------------------------------------------------------------------


async def test_resolve_brings_the_addresses(harness: Harness, names: DnsPeer) -> None:
    recorder = Recorder()
    conn = await connected(harness, recorder, names)
    peer = conn.remote_addr
    conn.resolve("tcp://c.test:1234")
    await eventually(lambda: recorder.events)
    ((ev, data),) = recorder.events
    assert ev == MG_EV_RESOLVE and all(isinstance(address, Address) for address in data)
    assert ("2001:db8::1", 1234) in data
    assert conn.remote_addr == peer, "a connection that has a peer keeps it"
    conn.send(b"it lives")
    await eventually(lambda: MG_EV_READ in recorder.names)
    await eventually(lambda: not conn._owner._resolving)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("tcp://a.test:1", ("127.0.0.1", 1)),
        ("udp://b.test:2", ("::1", 2)),
        ("http://a.test", ("127.0.0.1", 80)),
        ("https://[::1]/path", ("::1", 443)),
        ("mqtt://localhost", ("127.0.0.1", 1883)),
        ("tcp://192.0.2.9:9", ("192.0.2.9", 9)),
        ("tcp://a.test", ("127.0.0.1", 0)),
        ("a.test:9", ("127.0.0.1", 9)),
        ("a.test", ("127.0.0.1", 0)),
    ],
)
async def test_forms_of_the_url(harness: Harness, names: DnsPeer, url: str, address: Any) -> None:
    recorder = Recorder()
    conn = await connected(harness, recorder, names)
    conn.resolve(url)
    await eventually(lambda: recorder.resolved)
    assert recorder.resolved[0][0] == address


async def test_a_failure_is_told_and_closes(harness: Harness, names: DnsPeer) -> None:
    recorder = Recorder()
    conn = await connected(harness, recorder, names)
    conn.resolve("tcp://nowhere.test:1")
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    assert recorder.names == [MG_EV_ERROR, MG_EV_CLOSE]
    error = recorder.events[0][1]
    assert isinstance(error, NameNotFound) and isinstance(error, ConnectFailed) and error.name == "nowhere.test"
    with pytest.raises(ConnectionClosed):
        conn.resolve("tcp://a.test:1")
    conn.resolve_cancel()


async def test_bad_urls(harness: Harness, names: DnsPeer) -> None:
    recorder = Recorder()
    conn = await connected(harness, recorder, names)
    for url in ("", "tcp://", "tcp://:80"):
        with pytest.raises(InvalidUrl):
            conn.resolve(url)
    assert not recorder.events and not conn.is_closing


async def test_cancel(harness: Harness, names: DnsPeer) -> None:
    recorder = Recorder()
    conn = await connected(harness, recorder, names)
    conn.resolve_cancel()
    conn.resolve("tcp://silent.test:1")
    await eventually(lambda: names.asked)
    conn.resolve_cancel()
    conn.resolve_cancel()
    await eventually(lambda: not resolving())
    assert not recorder.events and not conn.is_closing
    conn.resolve("tcp://a.test:1")
    await eventually(lambda: recorder.names == [MG_EV_RESOLVE])


def resolving() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("asyncmg-resolve")]


@pytest.mark.parametrize("end", ["close", "drain", "shutdown"])
async def test_the_connection_ends_while_it_resolves(harness: Harness, names: DnsPeer, end: str) -> None:
    recorder = Recorder()
    conn = await connected(harness, recorder, names)
    conn.resolve("tcp://silent.test:1")
    await eventually(lambda: names.asked)
    await soon(conn._owner.shutdown(5)) if end == "shutdown" else getattr(conn, end)()
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    assert recorder.names == [MG_EV_CLOSE]
    await eventually(lambda: not resolving())


async def test_the_last_one_counts(harness: Harness, names: DnsPeer) -> None:
    recorder = Recorder()
    conn = await connected(harness, recorder, names)
    conn.resolve("tcp://silent.test:1")
    conn.resolve("tcp://silenter.test:1")
    conn.resolve("tcp://a.test:2")
    await eventually(lambda: recorder.events)
    await eventually(lambda: not resolving())
    assert recorder.events == [(MG_EV_RESOLVE, [("127.0.0.1", 2)])]


async def test_one_after_the_other_from_the_handler(harness: Harness, names: DnsPeer) -> None:
    seen = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_CONNECT:
            conn.resolve("tcp://a.test:1")
        elif ev == MG_EV_RESOLVE:
            seen.append(data[0])
            if len(seen) in (2, 3):
                conn.resolve(f"tcp://{'b' if len(seen) == 2 else 'a'}.test:{len(seen)}")

    listener = harness.serve(Recorder(), "tcp://127.0.0.1:0")
    conn = harness.manager(handler, resolver=stub(names)).connect(f"tcp://127.0.0.1:{listener.port}")
    await eventually(lambda: len(seen) == 4)
    assert seen[1:] == [("127.0.0.1", 1), ("::1", 2), ("127.0.0.1", 3)] and not conn.is_closing


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", "udp://127.0.0.1:0", "http://127.0.0.1:0"])
async def test_on_a_listener(harness: Harness, names: DnsPeer, url: str) -> None:
    """It has no peer: remote_addr is what was found. When it fails, the listener closes as any connection does."""
    recorder = Recorder()
    listener = harness.manager(recorder, resolver=stub(names)).listen(url)
    listener.resolve("tcp://a.test:7")
    await eventually(lambda: recorder.resolved)
    assert listener.remote_addr == ("127.0.0.1", 7) and not listener.is_closing
    listener.resolve("tcp://nowhere.test:7")
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    assert recorder.names[-2:] == [MG_EV_ERROR, MG_EV_CLOSE]
    assert isinstance(recorder.events[-2][1], NameNotFound)


async def test_udp(harness: Harness, names: DnsPeer) -> None:
    server = harness.manager(Recorder()).listen("udp://127.0.0.1:0").local_addr
    assert server is not None
    recorder = Recorder()
    conn = harness.manager(recorder, resolver=stub(names)).connect(f"udp://a.test:{server.port}")
    await eventually(lambda: MG_EV_CONNECT in recorder.names)
    assert recorder.names == [MG_EV_OPEN, MG_EV_RESOLVE, MG_EV_CONNECT]
    assert recorder.resolved == [[("127.0.0.1", server.port)]]
    conn.resolve("udp://b.test:5")
    await eventually(lambda: len(recorder.resolved) == 2)
    assert recorder.resolved[1] == [("::1", 5)] and conn.remote_addr == ("127.0.0.1", server.port)


async def test_what_is_no_host_name(harness: Harness, names: DnsPeer) -> None:
    recorder = Recorder()
    conn = harness.manager(recorder, resolver=stub(names)).connect(f"tcp://{'x' * 64}.test:1")
    with pytest.raises(ConnectFailed) as caught:
        await soon(conn.connected())
    assert isinstance(caught.value.__cause__, LocalProtocolError)
    conn = harness.manager(recorder, resolver=stub(names)).connect("tcp://[fe80::1%nope]:1")
    with pytest.raises(ResolveFailed, match="fe80::1%nope"):
        await soon(conn.connected())


# -- both families at once (RFC 8305 section 3) -----------------------------------------------------------------------


class Families:
    """Answers for each family of ``x.test`` when it is told to.

    Args:
        answers: by type: addresses; None: not before release(); a number: the response code.
    """

    def __init__(self, **answers: list[str] | int | None) -> None:
        self._answers = {1: answers["A"], 28: answers["AAAA"]}
        self._held: dict[int, Query] = {}
        self.peer: DnsPeer

    def __call__(self, query: Query) -> Any:
        kind = query.question.type
        told = self._answers[kind]
        if told is None:
            self._held[kind] = query
            return None
        return self._reply(query, told)

    def _reply(self, query: Query, told: list[str] | int) -> Any:
        if isinstance(told, int):
            return reply(query, rcode=told)
        make = a if query.question.type == 1 else aaaa
        return reply(query, *(make("x.test", address) for address in told))

    @property
    def is_holding(self) -> bool:
        return bool(self._held)

    def release(self, told: list[str] | int) -> None:
        ((_, query),) = self._held.items()
        self._answers[query.question.type] = told
        self.peer.datagram_received(write_message(query.message), query.client)


async def test_ipv6_addresses_do_not_wait() -> None:
    families = Families(A=None, AAAA=["2001:db8::1"])
    async with serving(families) as families.peer:
        found = await soon(find_addresses(stub(families.peer), "x.test", 80))
        assert found.first == [(socket.AF_INET6, ("2001:db8::1", 80, 0, 0))] and found.late is not None
        await eventually(lambda: families.is_holding)
        families.release(["192.0.2.1"])
        assert await soon(found.late) == [(socket.AF_INET, ("192.0.2.1", 80))]


async def test_ipv4_addresses_wait_for_ipv6_ones() -> None:
    families = Families(A=["192.0.2.1"], AAAA=None)
    async with serving(families) as families.peer:
        finding = asyncio.create_task(find_addresses(stub(families.peer), "x.test", 80))
        await eventually(lambda: families.is_holding and len(families.peer.asked) == 2)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not finding.done()
        families.release(["2001:db8::1"])
        found = await soon(finding)
        assert [address[0] for _, address in found.first] == ["2001:db8::1", "192.0.2.1"] and found.late is None


async def test_ipv4_addresses_do_not_wait_for_long() -> None:
    families = Families(A=["192.0.2.1"], AAAA=None)
    async with serving(families) as families.peer:
        limits = DnsLimits(timeout=25.0, try_timeout=20.0, resolution_delay=0.05)
        found = await soon(find_addresses(stub(families.peer, limits), "x.test", 80))
        assert [address[0] for _, address in found.first] == ["192.0.2.1"] and found.late is not None
        families.release(["2001:db8::1"])
        assert [address[0] for _, address in await soon(found.late)] == ["2001:db8::1"]


@pytest.mark.parametrize(("first", "second"), [("A", "AAAA"), ("AAAA", "A")])
@pytest.mark.parametrize("failure", [3, 2, []])
async def test_one_family_fails_at_once(first: str, second: str, failure: Any) -> None:
    address = "192.0.2.1" if second == "A" else "2001:db8::1"
    families = Families(**{first: failure, second: None})
    async with serving(families) as families.peer:
        finding = asyncio.create_task(find_addresses(stub(families.peer), "x.test", 80))
        await eventually(lambda: families.is_holding and len(families.peer.asked) >= 2)
        families.release([address])
        found = await soon(finding)
        assert [item[0] for _, item in found.first] == [address]
        found.close()


@pytest.mark.parametrize(
    ("six", "four", "rcode", "is_absent"),
    [(3, 3, 3, True), ([], [], 0, True), (2, 3, 2, False), (3, 2, 2, False), (5, 5, 5, False)],
)
async def test_both_fail(six: Any, four: Any, rcode: int, is_absent: bool) -> None:
    """That a server fails says more than that there is nothing."""
    async with serving(Families(A=four, AAAA=six)) as peer:
        with pytest.raises(ResolveFailed) as caught:
            await soon(find_addresses(stub(peer), "x.test", 80))
        assert caught.value.rcode == rcode and isinstance(caught.value, NameNotFound) is is_absent


@pytest.mark.parametrize("when", ["before", "after"])
async def test_cancelling_ends_both(when: str) -> None:
    families = Families(A=None, AAAA=None if when == "before" else ["2001:db8::1"])
    async with serving(families) as families.peer:
        finding = asyncio.create_task(find_addresses(stub(families.peer), "x.test", 80))
        await eventually(lambda: len(families.peer.asked) == 2)
        if when == "before":
            finding.cancel()
            with pytest.raises(asyncio.CancelledError):
                await finding
        else:
            (await soon(finding)).close()
        await eventually(lambda: not resolving())


async def test_localhost_and_addresses_are_not_looked_up() -> None:
    async with serving(zone()) as peer:
        found = await soon(find_addresses(stub(peer), "localhost", 5))
        assert [item[0] for _, item in found.first] == ["127.0.0.1", "::1"]
        found = await soon(find_addresses(stub(peer), "[::1]", 5))
        assert found.first == [(socket.AF_INET6, ("::1", 5, 0, 0))]
        assert peer.asked == []


# -- connecting to addresses of which some come later -----------------------------------------------------------------


class Attempts:
    """Stands in for connecting: tells which addresses were tried, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, port: int, *dead: str, refuses: str = "") -> None:
        self.tried: list[str] = []
        loop = asyncio.get_running_loop()
        real = loop.sock_connect

        async def connect(sock: socket.socket, address: Any) -> None:
            self.tried.append(address[0])
            if address[0] == refuses:
                raise ConnectionRefusedError(111, "Connection refused")
            if address[0] in dead:
                await asyncio.Event().wait()
            await real(sock, ("127.0.0.1", port))

        monkeypatch.setattr(loop, "sock_connect", connect)


def v4(*hosts: str) -> list[Any]:
    return [(socket.AF_INET, (host, 1)) for host in hosts]


async def late(*hosts: str) -> list[Any]:
    return v4(*hosts)


async def test_late_addresses_join(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = harness.serve(Recorder(), "tcp://127.0.0.1:0")
    attempts = Attempts(monkeypatch, listener.port, "192.0.2.1")
    sock = await soon(connect_fastest(v4("192.0.2.1"), 0.01, asyncio.ensure_future(late("192.0.2.2"))))
    assert attempts.tried == ["192.0.2.1", "192.0.2.2"]
    sock.close()


async def test_late_addresses_do_not_take_the_head_start_away(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = harness.serve(Recorder(), "tcp://127.0.0.1:0")
    attempts = Attempts(monkeypatch, listener.port, "192.0.2.1")
    coming = asyncio.ensure_future(late("192.0.2.2"))
    connecting = asyncio.create_task(connect_fastest(v4("192.0.2.1"), 20.0, coming))
    await soon(coming)
    for _ in range(100):
        await asyncio.sleep(0)
    assert attempts.tried == ["192.0.2.1"]
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting


async def test_late_addresses_begin_at_once_when_the_others_have_failed(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = harness.serve(Recorder(), "tcp://127.0.0.1:0")
    attempts = Attempts(monkeypatch, listener.port, refuses="192.0.2.1")
    coming: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
    connecting = asyncio.create_task(connect_fastest(v4("192.0.2.1"), 20.0, coming))
    await eventually(lambda: attempts.tried)
    coming.set_result(v4("192.0.2.2"))
    (await soon(connecting)).close()
    assert attempts.tried == ["192.0.2.1", "192.0.2.2"]


async def test_a_failure_gives_its_head_start_away(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while an earlier attempt still hangs."""
    listener = harness.serve(Recorder(), "tcp://127.0.0.1:0")
    attempts = Attempts(monkeypatch, listener.port, "192.0.2.1", refuses="192.0.2.2")
    connecting = asyncio.create_task(connect_fastest(v4("192.0.2.1", "192.0.2.2", "192.0.2.3"), 0.3))
    await eventually(lambda: len(attempts.tried) >= 2)
    for _ in range(20):
        await asyncio.sleep(0)
    assert attempts.tried == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    (await soon(connecting)).close()


@pytest.mark.parametrize("end", ["nothing", "failure", "cancelled"])
async def test_late_addresses_that_do_not_come(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    Attempts(monkeypatch, 1, refuses="192.0.2.1")
    coming: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
    connecting = asyncio.create_task(connect_fastest(v4("192.0.2.1"), 20.0, coming))
    await asyncio.sleep(0)
    if end == "nothing":
        coming.set_result([])
    elif end == "failure":
        coming.set_exception(NameNotFound("none"))
    else:
        coming.cancel()
    with pytest.raises(ConnectFailed, match=r"192\.0\.2\.1 port 1: Connection refused"):
        await soon(connecting)


@pytest.mark.parametrize("dead", ["::1", "127.0.0.1"])
async def test_one_family_refuses(harness: Harness, dead: str) -> None:
    """The whole way: names, both families, of which one has nobody at the port."""
    host = "[::1]" if dead == "127.0.0.1" else "127.0.0.1"
    listener = harness.serve(Recorder(), f"tcp://{host}:0")
    async with serving(zone(a("x.test", "127.0.0.1"), aaaa("x.test", "::1"))) as peer:
        recorder = Recorder()
        conn = harness.manager(recorder, resolver=stub(peer)).connect(f"tcp://x.test:{listener.port}")
        await soon(conn.connected())
        assert conn.remote_addr == (host.strip("[]"), listener.port)
        assert recorder.names[:3] == [MG_EV_OPEN, MG_EV_RESOLVE, MG_EV_CONNECT]


async def test_ipv6_refuses_while_ipv4_is_not_known_yet(harness: Harness) -> None:
    listener = harness.serve(Recorder(), "tcp://127.0.0.1:0")
    families = Families(A=None, AAAA=["::1"])
    async with serving(families) as families.peer:
        recorder = Recorder()
        conn = harness.manager(recorder, resolver=stub(families.peer)).connect(f"tcp://x.test:{listener.port}")
        await eventually(lambda: families.is_holding and recorder.resolved)
        assert recorder.resolved == [[("::1", listener.port)]]
        families.release(["127.0.0.1"])
        await soon(conn.connected())
        assert conn.remote_addr == ("127.0.0.1", listener.port)


async def test_all_addresses_of_a_name_refuse(harness: Harness) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    async with serving(zone(a("x.test", "127.0.0.1"), aaaa("x.test", "::1"))) as peer:
        recorder = Recorder()
        conn = harness.manager(recorder, resolver=stub(peer)).connect(f"tcp://x.test:{port}")
        with pytest.raises(ConnectFailed, match=r"127\.0\.0\.1 port .*::1 port |::1 port .*127\.0\.0\.1 port "):
            await soon(conn.connected())
        await eventually(lambda: MG_EV_CLOSE in recorder.names)
        assert recorder.names == [MG_EV_OPEN, MG_EV_RESOLVE, MG_EV_ERROR, MG_EV_CLOSE]
        await eventually(lambda: not resolving())
