"""SNTP connections: a client's events, and the server (RFC 4330)."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from asyncmg import (
    MG_EV_CLOSE,
    MG_EV_CONNECT,
    MG_EV_ERROR,
    MG_EV_OPEN,
    MG_EV_READ,
    MG_EV_RESOLVE,
    MG_EV_SNTP_TIME,
    MG_EV_WRITE,
    ConnectFailed,
    Connection,
    ConnectionClosed,
    DeadlineExceeded,
    InvalidUrl,
    KissOfDeath,
    Limits,
    LocalProtocolError,
    Manager,
    RemoteProtocolError,
    SntpLimits,
    SntpSource,
)
from asyncmg.codecs import sntp
from asyncmg.codecs.sntp import SntpPacket, to_timestamp, write_packet
from asyncmg.codecs.sntp_portable import read_packet

from .conftest import Harness, eventually, soon

QUICK = Limits(sntp=SntpLimits(try_timeout=0.05, retry_interval=0.01))
YEAR = 365 * 86_400 * 10**9


class Recorder:
    def __init__(self) -> None:
        self.events: list[tuple[int, Any]] = []

    def __call__(self, conn: Connection, ev: int, data: Any) -> None:
        self.events.append((ev, data))

    @property
    def names(self) -> list[int]:
        return [ev for ev, _ in self.events]

    def data(self, ev: int) -> Any:
        return next(data for seen, data in self.events if seen == ev)


class FakeServer(asyncio.DatagramProtocol):
    """Answers each datagram with what a function makes of it; keeps what it got."""

    def __init__(self, answer: Callable[[bytes], list[bytes]]) -> None:
        self.answer = answer
        self.received: list[bytes] = []
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append(data)
        for reply in self.answer(data):
            self.transport.sendto(reply, addr)

    @property
    def url(self) -> str:
        host, port = self.transport.get_extra_info("sockname")[:2]
        return f"sntp://{host}:{port}"


FakeServers = Callable[[Callable[[bytes], list[bytes]]], Awaitable[FakeServer]]


@pytest.fixture
async def fake_server() -> AsyncIterator[FakeServers]:
    servers = []

    async def make(answer: Callable[[bytes], list[bytes]]) -> FakeServer:
        loop = asyncio.get_running_loop()
        _, server = await loop.create_datagram_endpoint(lambda: FakeServer(answer), local_addr=("127.0.0.1", 0))
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.transport.close()


def good_reply(data: bytes, **changes: Any) -> bytes:
    now = to_timestamp(time.time_ns())
    packet = SntpPacket(
        mode=sntp.SERVER, stratum=2, reference_id=b"\x7f\0\0\1", originate=read_packet(data).transmit, receive=now,
        transmit=now,
    )  # fmt: skip
    return write_packet(packet._replace(**changes))


def sntp_url(conn: Connection) -> str:
    assert conn.local_addr is not None
    return f"sntp://{conn.local_addr}"


# -- the client -----------------------------------------------------------------------------------------------------


async def test_the_events_of_one_question(harness: Harness) -> None:
    future = time.time_ns() + YEAR
    source = SntpSource(now=lambda: time.time_ns() + YEAR)
    server = harness.manager().sntp_listen("sntp://127.0.0.1:0", source=source)
    recorder = Recorder()
    conn = harness.manager(recorder).sntp_connect(sntp_url(server))
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    assert recorder.names == [
        MG_EV_OPEN, MG_EV_RESOLVE, MG_EV_CONNECT, MG_EV_WRITE, MG_EV_SNTP_TIME, MG_EV_READ, MG_EV_CLOSE,
    ]  # fmt: skip
    told = recorder.data(MG_EV_SNTP_TIME)
    assert type(told) is int and future // 10**6 - 1000 <= told <= (time.time_ns() + YEAR) // 10**6 + 1000
    assert conn.is_closing and not harness.errors


async def test_connect_and_listen_know_the_scheme(harness: Harness) -> None:
    server = harness.manager().listen("sntp://127.0.0.1:0")
    recorder = Recorder()
    harness.manager(recorder).connect(sntp_url(server))
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    assert MG_EV_SNTP_TIME in recorder.names
    assert server.protocol.answered == 1 and server.is_listening and server.is_udp


async def test_asking_again_keeps_the_connection(harness: Harness) -> None:
    server = harness.manager().sntp_listen("sntp://127.0.0.1:0")
    times: list[int] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_CONNECT:
            conn.sntp_request()  # programs for Mongoose may: it does not ask twice
        elif ev == MG_EV_SNTP_TIME:
            times.append(data)
            if len(times) < 3:
                conn.sntp_request()

    conn = harness.manager(handler).sntp_connect(sntp_url(server))
    await eventually(lambda: conn.is_ended)
    assert len(times) == 3 == server.protocol.answered
    with pytest.raises(ConnectionClosed):
        conn.sntp_request()


async def test_async_handlers_and_iterators(harness: Harness) -> None:
    server = harness.manager().sntp_listen("sntp://127.0.0.1:0")
    times: list[int] = []

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_SNTP_TIME:
            await asyncio.sleep(0.01)  # the connection waits until this is done
            times.append(data)
            if len(times) == 1:
                conn.sntp_request()

    conn = harness.manager(handler).sntp_connect(sntp_url(server))
    await eventually(lambda: conn.is_ended)
    assert len(times) == 2

    seen = []
    async with asyncio.timeout(10):
        async for ev, _ in harness.manager().sntp_connect(sntp_url(server)):
            seen.append(ev)
    assert MG_EV_SNTP_TIME in seen and seen[-1] == MG_EV_CLOSE


async def test_silence_is_an_error(harness: Harness, fake_server: FakeServers) -> None:
    server = await fake_server(lambda data: [])
    recorder = Recorder()
    harness.manager(recorder, limits=QUICK).sntp_connect(server.url)
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    error = recorder.data(MG_EV_ERROR)
    assert isinstance(error, DeadlineExceeded) and isinstance(error, TimeoutError)
    assert len(server.received) == 3 and len(set(server.received)) == 3, "each try has a timestamp of its own"
    assert MG_EV_SNTP_TIME not in recorder.names


async def test_the_third_try_succeeds(harness: Harness, fake_server: FakeServers) -> None:
    server = await fake_server(lambda data: [good_reply(data)] if len(server.received) == 3 else [])
    recorder = Recorder()
    harness.manager(recorder, limits=QUICK).sntp_connect(server.url)
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    assert MG_EV_SNTP_TIME in recorder.names and MG_EV_ERROR not in recorder.names


@pytest.mark.parametrize(
    "spoof",
    [
        lambda data: good_reply(data, originate=1),
        lambda data: good_reply(data, originate=0),
        lambda data: good_reply(data, mode=sntp.CLIENT),
        lambda data: good_reply(data, mode=5),
        lambda data: good_reply(data, version=3),
        lambda data: data,
        lambda data: b"",
        lambda data: good_reply(data)[:47],
        lambda data: os.urandom(48),
        lambda data: bytes(48),
        lambda data: good_reply(data) + b"x",
        lambda data: bytes(2000),
        lambda data: good_reply(data, stratum=0, reference_id=b"DENY", originate=7),
    ],
)
async def test_what_is_no_reply_does_not_count(
    harness: Harness, fake_server: FakeServers, spoof: Callable[[bytes], bytes]
) -> None:
    server = await fake_server(lambda data: [spoof(data), good_reply(data, stratum=3)])
    recorder = Recorder()
    harness.manager(recorder).sntp_connect(server.url)
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    assert recorder.names.count(MG_EV_SNTP_TIME) == 1 and MG_EV_ERROR not in recorder.names
    assert abs(recorder.data(MG_EV_SNTP_TIME) - time.time() * 1000) < 5000


async def test_a_late_reply_is_not_taken_for_that_of_the_next_try(harness: Harness, fake_server: FakeServers) -> None:
    def answer(data: bytes) -> list[bytes]:
        return [good_reply(server.received[0], receive=to_timestamp(1), transmit=to_timestamp(1))] if later() else []

    def later() -> bool:
        return len(server.received) > 1

    server = await fake_server(answer)
    recorder = Recorder()
    harness.manager(recorder, limits=QUICK).sntp_connect(server.url)
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    assert isinstance(recorder.data(MG_EV_ERROR), DeadlineExceeded)


async def test_a_datagram_from_another_port_does_not_count(harness: Harness, fake_server: FakeServers) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))

        def answer(data: bytes) -> list[bytes]:
            other.sendto(good_reply(data, receive=1 << 32, transmit=1 << 32), client.protocol.sockname)
            return []

        server = await fake_server(answer)
        recorder = Recorder()
        client = harness.manager(recorder, limits=QUICK).sntp_connect(server.url)
        await eventually(lambda: MG_EV_CLOSE in recorder.names)
    assert MG_EV_SNTP_TIME not in recorder.names and len(server.received) == 3


@pytest.mark.parametrize("code", ["DENY", "RSTR", "RATE", "INIT"])
async def test_kiss_of_death(harness: Harness, fake_server: FakeServers, code: str) -> None:
    server = await fake_server(lambda data: [good_reply(data, stratum=0, leap=3, reference_id=code.encode())])
    recorder = Recorder()
    harness.manager(recorder).sntp_connect(server.url)
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    error = recorder.data(MG_EV_ERROR)
    assert isinstance(error, KissOfDeath) and error.code == code and error.section
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"leap": 3}, "not synchronized"),
        ({"stratum": 16}, "stratum"),
        ({"transmit": 0}, "timestamp"),
        ({"receive": 0}, "timestamp"),
        ({"root_dispersion": 16 << 16}, "distance"),
        ({"root_delay": 32 << 16}, "distance"),
        ({"transmit": to_timestamp(10**18)}, "before it was received"),
    ],
)
async def test_a_server_that_does_not_know_the_time(
    harness: Harness, fake_server: FakeServers, changes: dict[str, int], told: str
) -> None:
    server = await fake_server(lambda data: [good_reply(data, **changes)])
    recorder = Recorder()
    harness.manager(recorder).sntp_connect(server.url)
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    error = recorder.data(MG_EV_ERROR)
    assert isinstance(error, RemoteProtocolError) and told in str(error)
    assert MG_EV_SNTP_TIME not in recorder.names


async def test_nobody_there(harness: Harness) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    recorder = Recorder()
    harness.manager(recorder, limits=QUICK).sntp_connect(f"sntp://127.0.0.1:{port}")
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    assert isinstance(recorder.data(MG_EV_ERROR), (ConnectFailed, DeadlineExceeded))


@pytest.mark.parametrize("end", ["close", "drain", "shutdown"])
async def test_an_end_while_asking(harness: Harness, fake_server: FakeServers, end: str) -> None:
    server = await fake_server(lambda data: [])
    recorder = Recorder()
    manager = harness.manager(recorder)
    conn = manager.sntp_connect(server.url)
    await eventually(lambda: server.received)
    await soon(manager.shutdown(5)) if end == "shutdown" else getattr(conn, end)()
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    assert MG_EV_ERROR not in recorder.names and conn not in manager.connections


async def test_wrong_urls_and_connections(harness: Harness) -> None:
    manager = harness.manager(Recorder())
    for url in ("http://127.0.0.1:1", "tcp://127.0.0.1:1", "mqtt://127.0.0.1"):
        with pytest.raises(InvalidUrl):
            manager.sntp_connect(url)
        with pytest.raises(InvalidUrl):
            manager.sntp_listen(url)
    conn = manager.listen("udp://127.0.0.1:0")
    with pytest.raises(LocalProtocolError):
        conn.sntp_request()


def test_outside_asyncio_as_programs_for_mongoose_do() -> None:
    times: list[int] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_SNTP_TIME:
            times.append(data)

    with Manager(handler) as manager:
        server = manager.listen("sntp://127.0.0.1:0")
        manager.sntp_connect(sntp_url(server))
        end = time.monotonic() + 20
        while not times and time.monotonic() < end:
            manager.poll(10)
    assert len(times) == 1 and abs(times[0] - time.time() * 1000) < 5000


# -- the server -----------------------------------------------------------------------------------------------------


class Asker(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: list[bytes] = []

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append(data)


@asynccontextmanager
async def asking(server: Connection) -> AsyncIterator[tuple[asyncio.DatagramTransport, Asker]]:
    assert server.local_addr is not None
    address = (server.local_addr.ip, server.local_addr.port)
    transport, peer = await asyncio.get_running_loop().create_datagram_endpoint(Asker, remote_addr=address)
    yield transport, peer
    transport.close()


@pytest.mark.parametrize("version", [1, 2, 3, 4])
async def test_a_reply_in_full(harness: Harness, version: int) -> None:
    at = 2_250_000_000 * 10**9  # in 2041, era 1
    source = SntpSource(
        now=lambda: at, stratum=1, reference_id=b"GPS", leap=1, root_delay=0.5, root_dispersion=0.25, precision=-10
    )
    server = harness.manager().sntp_listen("sntp://127.0.0.1:0", source=source)
    async with asking(server) as (transport, peer):
        transport.sendto(write_packet(SntpPacket(version=version, poll=6, transmit=0x1122334455667788)))
        await eventually(lambda: peer.received)
        assert read_packet(peer.received[0]) == SntpPacket(
            1, version, sntp.SERVER, 1, 6, -10, 1 << 15, 1 << 14, b"GPS\0", to_timestamp(at), 0x1122334455667788,
            to_timestamp(at), to_timestamp(at),
        )  # fmt: skip
        assert sntp.from_timestamp(read_packet(peer.received[0]).transmit, at - 20 * YEAR) == at


async def test_what_gets_no_answer(harness: Harness) -> None:
    server = harness.manager().sntp_listen("sntp://127.0.0.1:0")
    async with asking(server) as (transport, peer):
        request = SntpPacket(transmit=1)
        useless = [write_packet(request._replace(mode=mode)) for mode in (0, 1, 2, 4, 5, 6, 7)]
        useless += [write_packet(request._replace(version=version)) for version in (0, 5, 6, 7)]
        useless += [write_packet(request)[:47], b"x", bytes(1500), write_packet(request) + b"abc"]
        for data in useless:
            transport.sendto(data)
        transport.sendto(write_packet(request._replace(transmit=99)))
        await eventually(lambda: peer.received)
        assert len(peer.received) == 1 and read_packet(peer.received[0]).originate == 99
        assert server.protocol.dropped == len(useless)


async def test_never_more_bytes_than_came_in(harness: Harness) -> None:
    server = harness.manager().sntp_listen("sntp://127.0.0.1:0")
    async with asking(server) as (transport, peer):
        transport.sendto(write_packet(SntpPacket(transmit=1)) + bytes(20))  # with a MAC, or so
        await eventually(lambda: peer.received)
        assert len(peer.received[0]) == 48


async def test_who_asks_too_often_is_told_so_then_ignored(harness: Harness) -> None:
    limits = Limits(sntp=SntpLimits(max_rate=2))
    server = harness.manager(limits=limits).sntp_listen("sntp://127.0.0.1:0")
    async with asking(server) as (transport, peer):
        for number in range(1, 31):
            transport.sendto(write_packet(SntpPacket(transmit=number)))
            await asyncio.sleep(0)
        await eventually(lambda: server.protocol.answered + server.protocol.refused == 30)
        await eventually(lambda: any(read_packet(data).kiss_code for data in peer.received))
        replies = [read_packet(data) for data in peer.received]
        kisses = [reply for reply in replies if reply.kiss_code]
        assert all(kiss.kiss_code == "RATE" and kiss.originate for kiss in kisses)
        assert len(replies) - len(kisses) >= 4, "twice the rate at once"
        assert len(replies) < 30 and server.protocol.refused


def test_rates_are_remembered_of_so_many_addresses_only() -> None:
    from asyncmg.protocols.sntp import _Rates, _Verdict

    rates = _Rates(1.0, 3)
    verdicts = [rates.ask("a", 0.0) for _ in range(4)]
    assert verdicts == [_Verdict.ANSWER, _Verdict.ANSWER, _Verdict.REFUSE, _Verdict.IGNORE]
    assert rates.ask("a", 0.5) is _Verdict.IGNORE
    assert rates.ask("a", 1.0) is _Verdict.ANSWER, "a token a second"
    assert rates.ask("a", 1.1) is _Verdict.REFUSE, "once a second"
    for address in "bcd":
        assert rates.ask(address, 1.2) is _Verdict.ANSWER
    assert len(rates._clients) == 3
    assert rates.ask("a", 1.2) is _Verdict.ANSWER, "forgotten"


async def test_events_do_not_pile_up_where_nobody_takes_them(harness: Harness) -> None:
    limits = Limits(sntp=SntpLimits(max_rate=1e6))
    server = harness.manager(limits=limits).sntp_listen("sntp://127.0.0.1:0")
    async with asking(server) as (transport, peer):
        for number in range(1, 201):
            transport.sendto(write_packet(SntpPacket(transmit=number)))
            await eventually(lambda number=number: len(peer.received) == number)
    server.close()
    events = []
    async with asyncio.timeout(20):
        async for ev, _ in server:
            events.append(ev)
    assert events == [MG_EV_OPEN, MG_EV_READ, MG_EV_WRITE, MG_EV_CLOSE]


@pytest.mark.parametrize("wrong", [1e18, None, ZeroDivisionError()])
async def test_a_source_that_fails_is_reported_and_the_server_goes_on(harness: Harness, wrong: Any) -> None:
    told: list[Any] = [wrong, 10**18, wrong, 10**18, 10**18]

    def now() -> Any:
        value = told.pop(0)
        if isinstance(value, Exception):
            raise value
        return value

    server = harness.manager(lambda *_: None).sntp_listen("sntp://127.0.0.1:0", source=SntpSource(now=now))
    async with asking(server) as (transport, peer):
        transport.sendto(write_packet(SntpPacket(transmit=1)))
        await eventually(lambda: server.protocol.dropped == 1)
        transport.sendto(write_packet(SntpPacket(transmit=2)))  # only the second look at the clock fails
        await eventually(lambda: len(peer.received) == 1)
        assert read_packet(peer.received[0]).transmit == to_timestamp(10**18)
        transport.sendto(write_packet(SntpPacket(transmit=3)))
        await eventually(lambda: len(peer.received) == 2)
    await eventually(lambda: len(harness.errors) == 2)
    kind = type(wrong) if isinstance(wrong, Exception) else TypeError
    assert [type(error) for error in harness.errors] == [kind, kind]
    assert server.protocol.answered == 2 and not server.is_closing


async def test_the_handler_sees_what_is_answered(harness: Harness) -> None:
    recorder = Recorder()
    server = harness.manager().sntp_listen("udp://[::1]:0", recorder)
    async with asking(server) as (transport, peer):
        transport.sendto(write_packet(SntpPacket(transmit=1)))
        await eventually(lambda: peer.received)
        assert recorder.names == [MG_EV_OPEN, MG_EV_READ, MG_EV_WRITE]
        server.close()
        await eventually(lambda: MG_EV_CLOSE in recorder.names)


@pytest.mark.parametrize(
    "wrong",
    [
        {"stratum": 0}, {"stratum": 16}, {"leap": 4}, {"leap": -1}, {"reference_id": b"12345"}, {"precision": 1},
        {"precision": -129}, {"root_delay": -1.0}, {"root_delay": 40_000.0}, {"root_dispersion": 70_000.0},
    ],
)  # fmt: skip
def test_sources_that_cannot_be_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        SntpSource(**wrong)
