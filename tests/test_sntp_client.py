"""sntp_time(): one server or several, the best answer, what goes wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncmg
from asyncmg import (
    Address,
    InvalidUrl,
    KissOfDeath,
    Manager,
    NameNotFound,
    Resolver,
    SntpFailed,
    SntpLimits,
    SntpSource,
    SntpTime,
)
from asyncmg.codecs import sntp
from asyncmg.codecs.sntp import SntpPacket, to_timestamp, write_packet
from asyncmg.codecs.sntp_portable import read_packet
from asyncmg.sntp_client import best_of, sntp_time

QUICK = SntpLimits(try_timeout=0.1, retry_interval=0.01)
SECOND = 10**9


def clock(offset: float = 0.0, **kwargs: Any) -> SntpSource:
    return SntpSource(now=lambda: time.time_ns() + round(offset * SECOND), **kwargs)


@asynccontextmanager
async def serving(*sources: SntpSource, host: str = "127.0.0.1") -> AsyncIterator[list[str]]:
    """Run a server for each source; yield ``host:port`` of each."""
    async with Manager() as manager:
        servers = [manager.sntp_listen(f"sntp://{host}:0", source=source) for source in sources]
        yield [str(server.local_addr) for server in servers]


class Peer(asyncio.DatagramProtocol):
    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        self.answer = answer
        self.received = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received += 1
        reply = self.answer(data)
        if reply is not None:
            self.transport.sendto(reply, addr)


@asynccontextmanager
async def answering(answer: Callable[[bytes], bytes | None]) -> AsyncIterator[tuple[Peer, str]]:
    loop = asyncio.get_running_loop()
    transport, peer = await loop.create_datagram_endpoint(lambda: Peer(answer), local_addr=("127.0.0.1", 0))
    try:
        yield peer, f"127.0.0.1:{transport.get_extra_info('sockname')[1]}"
    finally:
        transport.close()


def kiss(code: bytes) -> Callable[[bytes], bytes]:
    return lambda data: write_packet(
        SntpPacket(3, mode=sntp.SERVER, reference_id=code, originate=read_packet(data).transmit)
    )


async def soon(awaitable: Awaitable[Any]) -> Any:
    async with asyncio.timeout(30):
        return await awaitable


async def test_what_is_told() -> None:
    source = clock(100.0, stratum=1, reference_id=b"PPS", leap=2, root_delay=0.25, root_dispersion=0.5, precision=-4)
    async with serving(source) as (server,):
        told = await soon(sntp_time(server))
    assert 99 < told.offset < 101 and 0 <= told.delay < 5
    assert told.stratum == 1 and told.reference == "PPS" and told.leap == 2
    assert (told.root_delay, told.root_dispersion, told.precision) == (0.25, 0.5, 0.0625)
    assert str(told.server) == server and isinstance(told.server, Address)
    assert abs(told.ns - time.time_ns() - 100 * SECOND) < 20 * SECOND
    assert told.datetime.tzinfo is UTC and abs(told.datetime.timestamp() * SECOND - told.ns) < 1000
    assert told.root_distance == told.delay / 2 + 0.125 + 0.5 + 0.0625
    first = told.now()
    assert told.ns <= first <= told.now()
    assert asyncmg.sntp_time is sntp_time


@pytest.mark.parametrize("form", ["{}", "sntp://{}", "udp://{}"])
async def test_forms_of_a_server(form: str) -> None:
    async with serving(clock()) as (server,):
        assert (await soon(sntp_time(form.format(server)))).stratum == 10


async def test_ipv6() -> None:
    async with serving(clock(), host="[::1]") as (server,):
        told = await soon(sntp_time(server))
        assert told.server.is_ipv6 and str(told.server) == server
        port = told.server.port
        # localhost has two addresses; nobody answers at one of them
        assert (await soon(sntp_time(f"localhost:{port}", limits=QUICK))).server.is_ipv6


async def test_the_clock_before_and_behind() -> None:
    async with serving(clock(-50.0)) as (server,):
        assert -51 < (await soon(sntp_time(server))).offset < -49


async def test_beyond_2036() -> None:
    years = 20 * 365 * 86_400
    async with serving(clock(years)) as (server,):
        told = await soon(sntp_time(server))
    assert abs(told.offset - years) < 5 and told.datetime.year >= 2046


async def test_the_one_that_is_wrong_is_dropped() -> None:
    async with serving(clock(), clock(3600.0), clock(0.001)) as servers:
        told = await soon(sntp_time(*servers))
    assert abs(told.offset) < 5 and str(told.server) != servers[1]


async def test_servers_that_fail_do_not_matter_while_one_answers() -> None:
    async with serving(clock()) as (server,), answering(lambda data: None) as (_, dead):
        told = await soon(sntp_time(dead, server, "nowhere.invalid", limits=QUICK))
        assert str(told.server) == server


async def test_nobody_answers() -> None:
    async with answering(lambda data: None) as (silent, dead), answering(kiss(b"DENY")) as (rude, refusing):
        with pytest.raises(SntpFailed) as caught:
            await soon(sntp_time(dead, refusing, "nowhere.invalid", limits=QUICK))
        assert silent.received == 3 and rude.received == 1, "who says no is not asked again"
    failures = caught.value.failures
    assert isinstance(failures[dead], TimeoutError)
    assert isinstance(failures[refusing], KissOfDeath) and failures[refusing].code == "DENY"
    assert isinstance(failures["nowhere.invalid:123"], NameNotFound)
    assert isinstance(caught.value, OSError) and caught.value.__cause__ in failures.values()
    assert dead in str(caught.value)


async def test_a_clock_that_is_not_synchronized_may_be_so_at_the_next_try() -> None:
    def answer(data: bytes) -> bytes:
        now = to_timestamp(time.time_ns())
        leap = 3 if peer.received < 3 else 0
        return write_packet(
            SntpPacket(leap, 4, sntp.SERVER, 2, originate=read_packet(data).transmit, receive=now, transmit=now)
        )

    async with answering(answer) as (peer, server):
        assert (await soon(sntp_time(server, limits=QUICK))).stratum == 2
        assert peer.received == 3


async def test_timeout() -> None:
    async with answering(lambda data: None) as (_, dead):
        with pytest.raises(SntpFailed) as caught:
            await soon(sntp_time(dead, timeout=0.05))
    assert isinstance(caught.value.failures[dead], TimeoutError)


async def test_cancelling_ends_all_questions() -> None:
    async with answering(lambda data: None) as (peer, dead):
        task = asyncio.create_task(sntp_time(dead, dead.replace("127.0.0.1", "localhost")))
        async with asyncio.timeout(30):
            while not peer.received:
                await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(30):
            while any(task.get_name().startswith("asyncmg-sntp") for task in asyncio.all_tasks()):
                await asyncio.sleep(0.001)


async def test_a_name_with_several_addresses(tmp_path: Any) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 clock.example\n127.0.0.2 clock.example\n127.0.0.3 clock.example\n")
    resolver = Resolver(["127.0.0.1"], hosts=hosts, backend="stub")
    async with serving(clock(), host="127.0.0.2") as (server,):
        port = server.rpartition(":")[2]
        told = await soon(sntp_time(f"clock.example:{port}", resolver=resolver, limits=QUICK))
        assert told.server.ip == "127.0.0.2"
        with pytest.raises(SntpFailed) as caught:
            await soon(
                sntp_time(
                    f"clock.example:{port}",
                    resolver=resolver,
                    limits=SntpLimits(try_timeout=0.05, retry_interval=0.01, max_addresses=1),
                )
            )
        assert list(caught.value.failures) == [f"127.0.0.1:{port}"]


async def test_wrong_arguments() -> None:
    with pytest.raises(TypeError):
        await sntp_time()
    for server in ("http://x", "a b", "sntp://", "x:99999"):
        with pytest.raises(InvalidUrl):
            await sntp_time(server)


def told(offset: float, delay: float, dispersion: float = 0.0) -> SntpTime:
    return SntpTime(offset, delay, 0, Address("127.0.0.1", 1), 2, 0, "", 0.0, dispersion, 0.0, 0)


def test_the_best_is_the_one_with_the_shortest_round_trip() -> None:
    assert best_of([told(0.2, 0.5), told(0.01, 0.1), told(0.0, 0.3)]).offset == 0.01


def test_the_majority_wins_over_a_short_round_trip() -> None:
    assert best_of([told(9.0, 0.001), told(0.0, 0.4), told(0.1, 0.4)]).offset in (0.0, 0.1)


def test_of_two_that_contradict_the_surer_one() -> None:
    assert best_of([told(9.0, 0.5), told(0.0, 0.01)]).offset == 0.0


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0, 10), st.floats(0, 10)), min_size=1, max_size=8))
def test_the_best_is_always_one_of_them(samples: list[tuple[float, float, float]]) -> None:
    answers = [told(*sample) for sample in samples]
    best = best_of(answers)
    assert best in answers
    # As many agree with it as with anybody: at one of its interval's points as many intervals overlap as anywhere.
    edges = [a.offset + side * a.root_distance for a in answers for side in (-1, 1)]

    def overlaps(edge: float) -> int:
        return sum(abs(a.offset - edge) <= a.root_distance + 1e-6 for a in answers)

    within = [edge for edge in edges if abs(best.offset - edge) <= best.root_distance + 1e-6]
    assert max(map(overlaps, within)) == max(map(overlaps, edges))
