"""aiodns as the one who asks: the same answers and the same exceptions as those of our own stub resolver."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import Any

import pytest

from asyncmg import DnsLimits, MxData, NameNotFound, ResolveFailed, Resolver, ResolveTimeout, SoaData, SrvData, TxtData
from asyncmg.codecs import dns
from asyncmg.codecs.dns import DnsRecord, RecordType

from .dns_peer import a, aaaa, cname, eventually, free_udp_port, reply, serving, soon, zone

pytest.importorskip("aiodns")

PATIENT = DnsLimits(timeout=25.0, try_timeout=20.0, max_tries=1)
RECORDS = [
    a("a.test"),
    a("a.test", "192.0.2.2", 30),
    aaaa("a.test"),
    aaaa("a.test", "::ffff:192.0.2.1"),
    DnsRecord("a.test", RecordType.MX, MxData(20, "m2.test"), 60),
    DnsRecord("a.test", RecordType.MX, MxData(10, "m1.test"), 60),
    DnsRecord("a.test", RecordType.TXT, TxtData(["ü".encode()]), 60),
    DnsRecord("a.test", RecordType.TXT, TxtData([b""]), 60),
    DnsRecord("_s._tcp.a.test", RecordType.SRV, SrvData(1, 2, 3, "a.test"), 60),
    DnsRecord("a.test", RecordType.NS, "ns.a.test", 60),
    DnsRecord("a.test", RecordType.SOA, SoaData("ns.test", "h.test", 1, 2, 3, 4, 5), 60),
    DnsRecord("1.2.0.192.in-addr.arpa", RecordType.PTR, "a.test", 60),
    cname("alias.test", "other.test"),
    cname("other.test", "a.test", 40),
    cname("loose.test", "nowhere.test"),
]
QUESTIONS = [
    *(("a.test", kind) for kind in ("A", "AAAA", "MX", "TXT", "NS", "SOA", "SRV", "PTR", "CNAME")),
    ("_s._tcp.a.test", "SRV"),
    ("192.0.2.1", "PTR"),
    ("alias.test", "A"),
    ("alias.test", "CNAME"),
    ("alias.test", "MX"),
    ("loose.test", "A"),
    ("none.test", "A"),
]


def resolver(*servers: str, limits: DnsLimits = PATIENT, **kwargs: Any) -> Resolver:
    return Resolver(servers, **{"hosts": "", "backend": "aiodns", "limits": limits} | kwargs)


async def outcome(asker: Resolver, name: str, kind: str) -> Any:
    try:
        told = await soon(asker.resolve(name, kind))
    except ResolveFailed as exc:
        return type(exc), str(exc), exc.rcode, exc.name
    return sorted(map(str, told)), told.name, told.type, told.ttl, told.aliases


@pytest.mark.parametrize("use_tcp", [False, True])
async def test_the_same_answers_as_those_of_the_stub(use_tcp: bool) -> None:
    async with serving(zone(*RECORDS)) as peer:
        async with resolver(peer.address, use_tcp=use_tcp) as ares:
            stub = resolver(peer.address, backend="stub", use_tcp=use_tcp)
            for name, kind in QUESTIONS:
                assert await outcome(ares, name, kind) == await outcome(stub, name, kind), (name, kind)
            assert all(query.is_tcp is use_tcp for query in peer.asked)


async def test_the_strings_of_a_text_stay_apart() -> None:
    """What c-ares tells of a TXT record is one string: that is asked for by the stub resolver."""
    text = TxtData([b"x" * 255, b"", b"yy"])
    async with serving(zone(DnsRecord("a.test", RecordType.TXT, text, 60))) as peer:
        async with resolver(peer.address) as ares:
            assert (await soon(ares.resolve("a.test", "TXT"))) == [text]


async def test_truncated() -> None:
    def answer(query: Any) -> Any:
        return reply(query, a("a.test")) if query.is_tcp else reply(query, flags=dns.TRUNCATED)

    async with serving(answer) as peer, resolver(peer.address) as ares:
        assert await soon(ares.resolve("a.test")) == ["192.0.2.1"]


@pytest.mark.parametrize("rcode", [2, 4, 5])
async def test_a_server_that_cannot_help(rcode: int) -> None:
    async with serving(lambda query: reply(query, rcode=rcode)) as peer, resolver(peer.address) as ares:
        with pytest.raises(ResolveFailed, match=r"cannot resolve a\.test") as caught:
            await soon(ares.resolve("a.test"))
        assert caught.value.rcode == rcode and not isinstance(caught.value, NameNotFound)


async def test_nobody_at_the_port() -> None:
    async with resolver(f"127.0.0.1:{free_udp_port()}") as ares:
        with pytest.raises(ResolveFailed):
            await soon(ares.resolve("a.test"))


async def test_time_out_and_cancelling() -> None:
    async with serving(lambda query: None) as peer:
        async with resolver(peer.address, limits=DnsLimits(timeout=0.2, try_timeout=20.0)) as ares:
            begun = time.monotonic()
            with pytest.raises(ResolveTimeout):
                await soon(ares.resolve("a.test"))
            assert time.monotonic() - begun < 15
        async with resolver(peer.address) as ares:
            asked = asyncio.create_task(ares.resolve("b.test"))
            await eventually(lambda: len(peer.asked) >= 2)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked


async def test_close_ends_what_is_under_way() -> None:
    async with serving(lambda query: None) as peer:
        async with resolver(peer.address) as ares:
            asked = asyncio.create_task(ares.resolve("a.test"))
            await eventually(lambda: peer.asked)
        with pytest.raises(ResolveFailed, match="closed"):
            await soon(asked)


async def test_types_that_it_does_not_know() -> None:
    async with serving(zone(DnsRecord("a.test", RecordType.NSEC, b"\0\0\1\x40", 60))) as peer:
        async with resolver(peer.address) as ares:
            assert await soon(ares.resolve("a.test", "NSEC")) == [b"\0\0\1\x40"]
            # Without a configuration of ours, it asks servers that only c-ares knows.
            asker = ares._life().asker
            asker._config = type(asker._config())  # type: ignore[attr-defined]
            with pytest.raises(ResolveFailed, match="cannot look up NSEC"):
                await soon(ares.resolve("b.test", "NSEC"))


async def test_a_configuration_that_changes() -> None:
    async with serving(zone(a("a.test"))) as one, serving(zone(a("b.test"))) as two:
        async with resolver(one.address) as ares:
            assert await soon(ares.resolve("a.test")) == ["192.0.2.1"]
            other = resolver(two.address, backend="stub")._config
            ares._config = other
            ares._life().asker._config = other  # type: ignore[attr-defined]
            assert await soon(ares.resolve("b.test")) == ["192.0.2.1"]
            assert one.words == ["udp A a.test"] and two.words == ["udp A b.test"]


def test_two_loops_one_after_the_other() -> None:
    async def use() -> None:
        async with serving(zone(a("a.test"))) as peer, resolver(peer.address) as ares:
            assert await soon(ares.resolve("a.test")) == ["192.0.2.1"]

    asyncio.run(use())
    asyncio.run(use())


_TOO_LATE = """
import asyncio, socket, time
from asyncmg import DnsLimits, Resolver, ResolveTimeout

sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", 0))


async def main():
    limits = DnsLimits(timeout=0.2, try_timeout=0.4, max_tries=1)
    resolver = Resolver([f"127.0.0.1:{sock.getsockname()[1]}"], backend="aiodns", limits=limits)
    try:
        await resolver.resolve("a.test")
    except ResolveTimeout:
        print("no answer")


asyncio.run(main())
time.sleep(1.5)  # c-ares gives up meanwhile, and has nobody to tell
sock.close()
"""


def test_what_nobody_waits_for_is_not_answered_into_a_closed_loop() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", _TOO_LATE], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (0, "no answer\n", "")
