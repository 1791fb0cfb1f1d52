"""Resolver: one question for all who ask it, cancelling, closing, event loops, backends."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
from pathlib import Path
from typing import Any

import pytest

from asyncmg import DnsLimits, NameNotFound, ResolveFailed, Resolver, ResolveTimeout, SrvData
from asyncmg.codecs.dns import DnsMessage, DnsRecord, RecordType, write_message
from asyncmg.limits import DnsLimits as LimitsOfDns
from asyncmg.resolver import service, system
from asyncmg.resolver.answer import Found

from .dns_peer import DnsPeer, Query, a, aaaa, eventually, reply, serving, soon, zone

PATIENT = DnsLimits(timeout=25.0, try_timeout=20.0, max_tries=1)


def resolver(*servers: str, limits: DnsLimits = PATIENT, **kwargs: Any) -> Resolver:
    return Resolver(servers, **{"hosts": "", "backend": "stub", "limits": limits} | kwargs)


class Slow:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.peer: DnsPeer
        self.waiting: list[Query] = []

    def __call__(self, query: Query) -> None:
        self.waiting.append(query)

    def release(self) -> None:
        for query in self.waiting:
            self.peer.transport.sendto(write_message(reply(query, a("a.test"))), query.client)
        self.waiting.clear()


# -- sharing ----------------------------------------------------------------------------------------------------------


async def test_a_thousand_look_ups_of_one_name_are_one_question() -> None:
    slow = Slow()
    async with serving(slow) as slow.peer:
        asker = resolver(slow.peer.address)
        asked = [asyncio.create_task(asker.resolve("A.test" if n % 2 else "a.TEST.")) for n in range(1000)]
        await eventually(lambda: slow.waiting)
        slow.release()
        answers = await soon(asyncio.gather(*asked))
        assert len(slow.peer.asked) == 1 and all(answer == ["192.0.2.1"] for answer in answers)
        answers[0].append("spoiled")
        assert answers[1] == ["192.0.2.1"] and await soon(asker.resolve("a.test")) == ["192.0.2.1"]
        assert len(slow.peer.asked) == 1, "it is kept"


async def test_a_failure_is_shared_and_not_kept() -> None:
    async with serving(lambda query: reply(query, rcode=2)) as peer:
        asker = resolver(peer.address)
        failures = await soon(asyncio.gather(*(asker.resolve("a.test") for _ in range(5)), return_exceptions=True))
        assert len(peer.asked) == 1 and all(type(failure) is ResolveFailed for failure in failures)
        with pytest.raises(ResolveFailed):
            await soon(asker.resolve("a.test"))
        assert len(peer.asked) == 2


async def test_one_of_two_is_cancelled() -> None:
    slow = Slow()
    async with serving(slow) as slow.peer:
        asker = resolver(slow.peer.address)
        first, second = (asyncio.create_task(asker.resolve("a.test")) for _ in range(2))
        await eventually(lambda: slow.waiting)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        slow.release()
        assert await soon(second) == ["192.0.2.1"] and len(slow.peer.asked) == 1


async def test_all_are_cancelled_and_another_asks_anew() -> None:
    slow = Slow()
    async with serving(slow) as slow.peer:
        asker = resolver(slow.peer.address)
        asked = [asyncio.create_task(asker.resolve("a.test")) for _ in range(3)]
        await eventually(lambda: slow.waiting)
        for task in asked:
            task.cancel()
        assert all(
            isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*asked, return_exceptions=True)
        )
        slow.waiting.clear()
        again = asyncio.create_task(asker.resolve("a.test"))
        await eventually(lambda: slow.waiting)
        slow.release()
        assert await soon(again) == ["192.0.2.1"] and len(slow.peer.asked) == 2


async def test_no_more_questions_at_once_than_allowed() -> None:
    slow = Slow()
    async with serving(slow) as slow.peer:
        limits = DnsLimits(timeout=25.0, try_timeout=20.0, max_tries=1, max_queries=3)
        asker = resolver(slow.peer.address, limits=limits)
        asked = [asyncio.create_task(asker.resolve(f"n{n}.test")) for n in range(5)]
        await eventually(lambda: len(slow.waiting) == 3)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(slow.peer.asked) == 3
        for task in asked[:3]:
            task.cancel()
        await eventually(lambda: len(slow.peer.asked) == 5)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def test_the_cache_lives_as_long_as_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(lambda query: reply(query, a("a.test", ttl=10))) as peer:
        asker = resolver(peer.address)
        await soon(asker.resolve("a.test"))
        real = service.time.monotonic
        monkeypatch.setattr(service.time, "monotonic", lambda: real() + 5)
        assert 4 < (await soon(asker.resolve("a.test"))).ttl <= 5.0 and len(peer.asked) == 1
        monkeypatch.setattr(service.time, "monotonic", lambda: real() + 11)
        assert (await soon(asker.resolve("a.test"))).ttl == 10 and len(peer.asked) == 2
        asker.clear_cache()
        await soon(asker.resolve("a.test"))
        assert len(peer.asked) == 3


async def test_services_share_the_load() -> None:
    """One answer, kept; who asks draws anew who is the first (RFC 2782)."""
    records = [DnsRecord("_s._tcp.test", RecordType.SRV, SrvData(1, 50, port, "a.test"), 60) for port in (1, 2)]
    async with serving(zone(*records)) as peer:
        asker = resolver(peer.address)
        firsts = set()
        for _ in range(60):
            (first, second) = await soon(asker.resolve("_s._tcp.test", "SRV"))
            assert isinstance(first, SrvData) and isinstance(second, SrvData) and first != second
            firsts.add(first.port)
        assert firsts == {1, 2} and len(peer.asked) == 1


async def test_a_ttl_of_0_is_not_kept() -> None:
    async with serving(lambda query: reply(query, a("a.test", ttl=0))) as peer:
        asker = resolver(peer.address)
        for count in (1, 2):
            await soon(asker.resolve("a.test"))
            assert len(peer.asked) == count


async def test_addresses() -> None:
    async with serving(zone(a("a.test"), a("a.test", "192.0.2.2"), aaaa("a.test"))) as peer:
        asker = resolver(peer.address)
        assert await soon(asker.addresses("a.test", 4)) == ["192.0.2.1", "192.0.2.2"]
        assert await soon(asker.addresses("a.test", 6)) == ["2001:db8::1"]


async def test_internationalized_names() -> None:
    async with serving(zone(a("xn--bcher-kva.test"))) as peer:
        assert await soon(resolver(peer.address).resolve("bücher.test")) == ["192.0.2.1"]


# -- closing, and event loops -----------------------------------------------------------------------------------------


async def test_close_ends_what_is_under_way() -> None:
    async with serving(lambda query: None) as peer:
        async with resolver(peer.address) as asker:
            asked = [asyncio.create_task(asker.resolve(name)) for name in ("a.test", "a.test", "b.test")]
            await eventually(lambda: len(peer.asked) == 2)
        for task in asked:
            with pytest.raises(ResolveFailed, match="closed"):
                await soon(task)
        await asker.close()
        peer.answer = zone(a("a.test"))
        assert await soon(asker.resolve("a.test")) == ["192.0.2.1"], "it may be used again"
        await asker.close()


async def test_who_is_cancelled_while_it_is_closed_is_cancelled() -> None:
    async with serving(lambda query: None) as peer:
        asker = resolver(peer.address)
        asked = asyncio.create_task(asker.resolve("a.test"))
        await eventually(lambda: peer.asked)
        closing = asyncio.create_task(asker.close())
        await asyncio.sleep(0)
        asked.cancel()
        await soon(closing)
        with pytest.raises(asyncio.CancelledError):
            await asked


def test_two_loops_one_after_the_other() -> None:
    asker = resolver("127.0.0.1")
    loops = []

    async def use(name: str) -> None:
        loops.append(asyncio.get_running_loop())
        async with serving(zone(a(name))) as peer:
            conf = service.fixed([peer.address], [], ndots=1, rotate=False, use_tcp=False)
            asker._config = conf
            assert await soon(asker.resolve(name)) == ["192.0.2.1"]
            assert len(asker._lives) == 1, "what belongs to a closed loop is dropped"

    asyncio.run(use("a.test"))
    asyncio.run(use("b.test"))
    assert len(asker._cache) == 2


# -- backends ---------------------------------------------------------------------------------------------------------


def test_which_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    has = {"aiodns": True}
    monkeypatch.setattr(service, "find_spec", lambda name: has[name] if name in has else real(name))
    monkeypatch.delenv("ASYNCMG_RESOLVER", raising=False)
    servers = ["192.0.2.1"]
    assert Resolver(servers).backend == "aiodns" and Resolver(servers, backend="stub").backend == "stub"
    monkeypatch.setenv("ASYNCMG_RESOLVER", "stub")
    assert Resolver(servers).backend == "stub" and Resolver(servers, backend="system").backend == "system"
    monkeypatch.setenv("ASYNCMG_RESOLVER", "nonsense")
    with pytest.raises(ValueError, match="nonsense"):
        Resolver(servers)
    monkeypatch.setenv("ASYNCMG_RESOLVER", "")
    has["aiodns"] = None  # type: ignore[assignment]
    assert Resolver(servers).backend == "stub"
    with pytest.raises(ImportError, match=r"asyncmg\[dns\]"):
        Resolver(servers, backend="aiodns")
    monkeypatch.setattr(service, "system_servers_path", lambda: None)
    assert Resolver().backend == "system" and Resolver(servers).backend == "stub"
    with pytest.raises(ValueError, match="backend must be one of"):
        Resolver(backend="other")  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        Resolver(["name.test"])
    assert "system" in repr(Resolver())


async def test_the_default_resolver_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_default", None)
    assert service.default_resolver() is service.default_resolver()


async def test_the_servers_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "resolv.conf"
    async with serving(zone(a("x.one.test"))) as peer:
        path.write_text(f"nameserver {peer.address}\nsearch one.test\n")
        monkeypatch.setattr(service, "system_servers_path", lambda: str(path))
        asker = Resolver(hosts="", backend="stub", limits=PATIENT)
        assert await soon(asker.resolve("x")) == ["192.0.2.1"]
        path.write_text(f"nameserver {peer.address}\noptions use-vc timeout:9 attempts:1\n")
        real = service.time.monotonic
        asker._config.__self__._clock = lambda: real() + 6  # type: ignore[attr-defined]
        with pytest.raises(NameNotFound):
            await soon(asker.resolve("x"))
        assert str(peer.asked[-1]) == "tcp A x"


async def test_names_of_local_go_by_multicast(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def query(name: str, kind: int, limits: LimitsOfDns, read: Any) -> Found:
        asked.append((name, kind))
        records = [DnsRecord(name, kind, "192.0.2.5", 60)] if name == "Übung.local" else []
        return Found(DnsMessage(0, 0x8000, answers=records), name, kind, 8)

    monkeypatch.setattr(service, "query_mdns", query)
    async with serving(zone(a("web.svc.cluster.local"))) as peer:
        asker = resolver(peer.address, search=["one.test"])
        for _ in range(2):
            assert await soon(asker.resolve("Übung.local")) == ["192.0.2.5"]
        with pytest.raises(NameNotFound):
            await soon(asker.resolve("none.local."))
        assert asked == [("Übung.local", 1), ("none.local.", 1)] and peer.asked == []
        assert await soon(asker.resolve("web.svc.cluster.local")) == ["192.0.2.1"]


# -- the system's resolver --------------------------------------------------------------------------------------------


class SystemsLoop:
    """Stands in for the loop: what the system says about a name."""

    def __init__(self, outcome: list[str] | Exception | None) -> None:
        self.outcome = outcome

    async def getaddrinfo(self, host: str, port: None, *, family: int, type: int) -> list[Any]:
        if self.outcome is None:
            await asyncio.Event().wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return [(family, type, 6, "", (address, 0)) for address in self.outcome or []]


def system_says(monkeypatch: pytest.MonkeyPatch, outcome: list[str] | Exception | None) -> system.SystemResolver:
    """Return a resolver whose getaddrinfo() ends so; None: not at all."""
    monkeypatch.setattr(system, "asyncio", Asyncio(SystemsLoop(outcome)))
    return system.SystemResolver(PATIENT)


class Asyncio:
    timeout = staticmethod(asyncio.timeout)

    def __init__(self, loop: SystemsLoop) -> None:
        self._loop = loop

    def get_running_loop(self) -> SystemsLoop:
        return self._loop


def deadline(seconds: float = 20.0) -> float:
    return float(service.time.monotonic()) + seconds


async def test_what_the_system_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await system_says(monkeypatch, ["192.0.2.1", "192.0.2.2"]).query("a.test", RecordType.A, deadline())
    assert [record.data for record in found.records] == ["192.0.2.1", "192.0.2.2"] and found.ttl == 0


async def test_what_the_system_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = system_says(monkeypatch, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    found = await absent.query("a.test", RecordType.AAAA, deadline())
    assert found.records == [] and found.rcode == 3
    with pytest.raises(ResolveFailed, match="addresses only"):
        await absent.query("a.test", RecordType.MX, deadline())


async def test_the_system_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ResolveFailed, match="Temporary failure") as caught:
        failing = system_says(monkeypatch, socket.gaierror(socket.EAI_AGAIN, "Temporary failure"))
        await failing.query("a.test", RecordType.A, deadline())
    assert isinstance(caught.value.__cause__, socket.gaierror)
    with pytest.raises(ResolveTimeout):
        await system_says(monkeypatch, None).query("a.test", RecordType.A, deadline(0.05))


async def test_the_system_itself() -> None:
    """A name that every system has, asked past what we know ourselves."""
    asker = Resolver(["192.0.2.1"], hosts="", backend="system")
    found = await soon(asker._life().asker.query("localhost", RecordType.A, deadline()))
    assert [record.data for record in found.records] == ["127.0.0.1"]
    with pytest.raises(ResolveFailed, match="addresses only"):
        await soon(asker.resolve("a.test", "MX"))
