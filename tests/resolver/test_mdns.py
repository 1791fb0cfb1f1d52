"""mDNS: asking for names and services of ``.local``; on the loopback interface, on ports that nobody else has."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

import asyncmg.resolver.mdns_socket
import asyncmg.resolver.service
from asyncmg.codecs import dns
from asyncmg.codecs.dns import DnsMessage, DnsRecord, RecordType, SrvData, TxtData, write_message
from asyncmg.codecs.dns_portable import read_message
from asyncmg.errors import ListenFailed, NameNotFound, ResolveFailed
from asyncmg.limits import DnsLimits
from asyncmg.mdns import MdnsService, mdns_browse, mdns_serve, mdns_types
from asyncmg.resolver.answer import Found
from asyncmg.resolver.interfaces import Interface, chosen_interfaces, own_interfaces
from asyncmg.resolver.mdns import Ears, query_mdns
from asyncmg.resolver.mdns_socket import MdnsSockets
from asyncmg.resolver.mdns_zone import negative
from asyncmg.resolver.service import Resolver

from .mdns_peers import HERE, REPLY, UNIQUE, free_port, member, soon

PATIENT = DnsLimits(mdns_timeout=20.0)
BRIEF = DnsLimits(mdns_timeout=0.2)
A, AAAA, PTR, SRV, TXT = RecordType.A, RecordType.AAAA, RecordType.PTR, RecordType.SRV, RecordType.TXT
SERVICE = MdnsService("_http._tcp", 8000, "Mr. Printer", {"path": "/x", "flag": None})


@pytest.fixture
def port() -> int:
    return free_port()


async def query(name: str, kind: int, port: int, limits: DnsLimits = PATIENT) -> Found:
    return await query_mdns(name, kind, limits, read_message, interface=HERE, port=port)


async def until(expected: Any, search: Callable[[], Awaitable[Any]]) -> None:
    """Search until it is found: when the machine stands still, one search may be too short."""
    for _ in range(10):
        found = await search()
        if found == expected:
            return
    assert found == expected


def data_of(found: Found) -> list[Any]:
    return [record.data for record in found.records]


async def test_what_a_responder_answers(port: int) -> None:
    async with mdns_serve("printer", services=[SERVICE], interface="lo", port=port):
        found = await query("Printer.LOCAL", A, port)
        assert data_of(found) == [HERE] and found.rcode == 0 and found.is_final
        assert 0 < found.ttl <= 10, "of legacy answers (RFC 6762 section 6.7)"
        assert data_of(await query("printer.local", AAAA, port)) == ["::1"]
        assert data_of(await query("1.0.0.127.in-addr.arpa", PTR, port)) == ["printer.local"]
        instance = "Mr\\. Printer._http._tcp.local"
        assert data_of(await query("_http._tcp.local", PTR, port)) == [instance]
        assert data_of(await query("_services._dns-sd._udp.local", PTR, port)) == ["_http._tcp.local"]
        assert data_of(await query(instance, SRV, port)) == [SrvData(0, 0, 8000, "printer.local")]
        assert data_of(await query(instance, TXT, port)) == [TxtData([b"path=/x", b"flag"])]


async def test_what_is_not_there(port: int) -> None:
    async with mdns_serve("printer", ["192.0.2.7"], interface=HERE, port=port):
        begin = time.monotonic()
        absent = await query("printer.local", AAAA, port)
        assert not absent.records and absent.rcode == dns.NO_ERROR and 0 < absent.negative_ttl <= 10
        assert time.monotonic() - begin < PATIENT.mdns_timeout / 2, "an NSEC record has said so"
        nobody = await query("scanner.local", A, port, BRIEF)
        assert not nobody.records and nobody.rcode == dns.NAME_ERROR and nobody.negative_ttl == -1


async def test_the_resolver_asks_by_multicast(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = functools.partial(query_mdns, interface=HERE, port=port)
    monkeypatch.setattr(asyncmg.resolver.service, "query_mdns", ask)
    async with mdns_serve("printer", interface=HERE, port=port), Resolver([HERE], limits=BRIEF, hosts="") as resolver:
        assert await resolver.resolve("printer.local") == [HERE]
        with pytest.raises(NameNotFound) as caught:
            await resolver.resolve("scanner.local")
        assert caught.value.rcode == dns.NAME_ERROR


# -- what is believed -----------------------------------------------------------------------------------------------


def record(name: str, kind: int, data: Any, ttl: int = 5, class_: int = UNIQUE) -> DnsRecord:
    return DnsRecord(name, kind, data, ttl, class_)


GOOD = record("a.local", A, "192.0.2.1")


def reply(message: DnsMessage, answers: Sequence[DnsRecord], flags: int = REPLY, number: int | None = None) -> bytes:
    return write_message(DnsMessage(message.id if number is None else number, flags, message.questions, answers))


LIES: dict[str, Callable[[DnsMessage], DnsRecord | bytes]] = {
    "another id": lambda m: reply(m, [record("a.local", A, "192.0.2.66")], number=m.id ^ 1),
    "a query": lambda m: reply(m, [record("a.local", A, "192.0.2.66")], flags=0),
    "an rcode": lambda m: reply(m, [record("a.local", A, "192.0.2.66")], flags=REPLY | dns.NAME_ERROR),
    "an opcode": lambda m: reply(m, [record("a.local", A, "192.0.2.66")], flags=REPLY | 0x0800),
    "malformed": lambda m: reply(m, [record("a.local", A, "192.0.2.66")])[:-1],
    "another name": lambda m: record("b.local", A, "192.0.2.66"),
    "another class": lambda m: record("a.local", A, b"\xc0\0\2\x42", class_=3),
    "gone": lambda m: record("a.local", A, "192.0.2.66", ttl=0),
}


@pytest.mark.parametrize("lie", LIES)
async def test_replies_that_are_not_believed(lie: str, port: int) -> None:
    async with member(port) as peer:
        peer.answer = lambda message: [LIES[lie](message)]
        assert not (await query("a.local", A, port, BRIEF)).records
        await soon(lambda: peer.heard)
        peer.answer = lambda message: [LIES[lie](message), GOOD]
        assert data_of(await query("a.local", A, port)) == ["192.0.2.1"]


async def test_a_reply_from_another_port_is_not_believed(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((HERE, 0))
        async with member(port) as peer:

            def answer(message: DnsMessage) -> Sequence[DnsRecord]:
                other.sendto(reply(message, [GOOD]), peer.heard[-1][1])
                return ()

            peer.answer = answer
            assert not (await query("a.local", A, port, BRIEF)).records


async def test_a_reply_from_elsewhere_is_not_believed(port: int) -> None:
    network = Interface("x", 1, own_interfaces()[0].addresses, is_loopback=False, has_multicast=True)
    ears = Ears(read_message, 7)
    ears.sockets = MdnsSockets([network._replace(addresses=())], port)
    data = write_message(DnsMessage(7, REPLY, answers=[GOOD]))
    ears.receive(data, ("198.51.100.1", port), None)  # type: ignore[arg-type]  # it is not looked at
    assert ears.ignored == 1 and not ears.records


async def test_it_asks_again(port: int) -> None:
    async with member(port) as peer:
        peer.answer = lambda message: [GOOD] if len(peer.heard) > 2 else ()
        assert data_of(await query("a.local", A, port)) == ["192.0.2.1"]
        assert len(peer.heard) == 3
        (question,) = peer.heard[0][0].questions
        assert question == ("a.local", A, dns.IN) and peer.heard[0][0].flags == 0
        assert peer.heard[0][1][1] != port


async def test_an_alias_is_followed(port: int) -> None:
    async with member(port) as peer:
        answers = {"a.local": record("a.local", RecordType.CNAME, "b.local", 9), "b.local": record("b.local", A, HERE)}
        peer.answer = lambda message: [answers[question.name] for question in message.questions]
        found = await query("a.local", A, port)
        assert data_of(found) == [HERE] and found.aliases == ["a.local"] and found.name == "b.local"
        assert found.ttl == 5


async def test_aliases_without_an_end(port: int) -> None:
    async with member(port) as peer:
        peer.answer = lambda message: [record("a.local", RecordType.CNAME, "a.local")]
        with pytest.raises(ResolveFailed, match="aliases"):
            await query("a.local", A, port)


async def test_link_local_addresses_have_their_zone_and_come_last(port: int) -> None:
    async with member(port) as peer:
        both = [record("a.local", AAAA, "fe80::1"), record("a.local", AAAA, "2001:db8::1")]
        peer.answer = lambda message: [reply(message, both)]
        assert data_of(await query("a.local", AAAA, port)) == ["2001:db8::1", "fe80::1%lo"]


async def test_cancelling(port: int) -> None:
    async with member(port) as peer:
        task = asyncio.create_task(query("a.local", A, port))
        await soon(lambda: peer.heard)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(asyncio.all_tasks()) == 1


async def test_no_way_to_ask(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ResolveFailed, match="no network interface"):
        await query_mdns("a.local", A, BRIEF, read_message, interface="nowhere0", port=port)
    with pytest.raises(ResolveFailed, match="no network interface has the address"):
        await query_mdns("a.local", A, BRIEF, read_message, interface="198.51.100.1", port=port)
    with pytest.raises(ValueError, match="no network interface"):
        await mdns_browse("_http._tcp", interface="nowhere0", port=port)
    monkeypatch.setitem(asyncmg.resolver.mdns_socket.GROUPS, socket.AF_INET, "255.255.255.255")  # not permitted
    with pytest.raises(OSError):
        await mdns_browse("_http._tcp", interface=HERE, port=port)
    with pytest.raises(ResolveFailed) as caught:
        await query("a.local", A, port)
    assert isinstance(caught.value.__cause__, OSError)


async def test_ipv6(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systems do not multicast IPv6 on the loopback interface, so it is asked directly."""
    async with mdns_serve("printer", interface="::1", port=port):
        monkeypatch.setitem(asyncmg.resolver.mdns_socket.GROUPS, socket.AF_INET6, "::1")
        found = await query_mdns("printer.local", AAAA, PATIENT, read_message, interface="::1", port=port)
        assert data_of(found) == ["::1"]


# -- services -------------------------------------------------------------------------------------------------------


async def test_browsing_finds_all(port: int) -> None:
    twin = MdnsService("_http._tcp", 8001, "Twin")
    other = MdnsService("_ipp._tcp", 631)
    async with (
        mdns_serve("printer", services=[SERVICE, other], interface=HERE, port=port),
        mdns_serve("second", services=[twin], interface=HERE, port=port),
    ):
        first = dataclasses.replace(SERVICE, host="printer.local", addresses=(HERE,))
        second = dataclasses.replace(twin, host="second.local", addresses=(HERE,))
        await until([first, second], lambda: mdns_browse("_http._tcp.local", timeout=0.7, interface=HERE, port=port))
        (ipp,) = await mdns_browse("_ipp._tcp", "printer", timeout=20, interface=HERE, port=port)
        assert ipp == MdnsService("_ipp._tcp", 631, "printer", {}, "printer.local", (HERE,))
        await until(["_http._tcp", "_ipp._tcp"], lambda: mdns_types(timeout=0.7, interface=HERE, port=port))


async def test_what_is_missing_is_asked_for(port: int) -> None:
    """A responder without additional records; its target has no IPv6 address, and it says so."""
    instance = "Plain._http._tcp.local"
    answers = {
        ("_http._tcp.local", PTR): record("_http._tcp.local", PTR, instance, class_=dns.IN),
        (instance, SRV): record(instance, SRV, SrvData(1, 2, 80, "h.local")),
        (instance, TXT): record(instance, TXT, TxtData([b"a=b", b"=no key", b"a=again"])),
        ("h.local", A): record("h.local", A, "192.0.2.9"),
        ("h.local", AAAA): negative("h.local", [A]),
    }
    async with member(port) as peer:
        peer.answer = lambda message: [answers[question.name, question.type] for question in message.questions]
        found = MdnsService("_http._tcp", 80, "Plain", {"a": b"b"}, "h.local", ("192.0.2.9",), 1, 2)
        await until([found], lambda: mdns_browse("_http._tcp", timeout=0.3, interface=HERE, port=port))
        assert set(answers) <= {(q.name, q.type) for q in peer.questions()}
        begin = time.monotonic()
        assert await mdns_browse("_http._tcp", "Plain", timeout=20, interface=HERE, port=port) == [found]
        assert time.monotonic() - begin < 10, "it returns when it is there"


async def test_half_a_service_is_none(port: int) -> None:
    async with member(port) as peer:

        def answer(message: DnsMessage) -> Sequence[DnsRecord]:
            names = ["x._http._tcp.local", "y._other._tcp.local", "_http._tcp.local"]
            return [record("_http._tcp.local", PTR, name) for name in names]

        peer.answer = answer
        assert await mdns_browse("_http._tcp", timeout=0.5, interface=HERE, port=port) == []


async def test_records_are_bounded(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncmg.resolver.mdns.MAX_RECORDS", 5)
    ears = Ears(read_message, 7)
    ears.sockets = MdnsSockets(chosen_interfaces(HERE), port)
    answers = [record("a.local", A, f"192.0.2.{number}") for number in range(9)]
    async with member(port) as peer:
        (endpoint,) = peer.sockets.endpoints
        ears.receive(write_message(DnsMessage(7, REPLY, answers=answers)), (HERE, port), endpoint)
    assert len(ears.of("A.local", A)) == 5


def test_text_of_a_service() -> None:
    assert SERVICE.txt == {"path": b"/x", "flag": None}
    assert (SERVICE.text("PATH"), SERVICE.text("flag", "no"), SERVICE.text("none")) == ("/x", "no", "")
    assert MdnsService("_http._tcp.local.", 1).type == "_http._tcp"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"type": "http"}, "not the type"),
        ({"type": "_http._sctp"}, "not the type"),
        ({"port": 65536}, "out of range"),
        ({"weight": -1}, "out of range"),
        ({"name": "x" * 64}, "longer than 63"),
        ({"txt": {"a=b": "c"}}, "not a key"),
        ({"txt": {"": "c"}}, "not a key"),
        ({"txt": {"a": "x" * 254}}, "more than 255"),
    ],
)
def test_services_that_cannot_be(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        MdnsService(**{"type": "_http._tcp", "port": 80, **arguments})


# -- interfaces -----------------------------------------------------------------------------------------------------


def test_interfaces() -> None:
    lo = next(item for item in own_interfaces() if item.is_loopback)
    assert str(lo.addresses[0]) == "127.0.0.1/8" and lo.number == socket.if_nametoindex(lo.name)
    assert chosen_interfaces(lo.name) == [lo]
    (only,) = chosen_interfaces(HERE)
    assert only.name == lo.name and [str(address.ip) for address in only.addresses] == [HERE]
    assert only.of_version(6) == () and only.of_version(4) == only.addresses


def test_loopback_is_for_who_has_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    lo = Interface("lo", 1, (), is_loopback=True, has_multicast=False)
    net = Interface("net0", 2, (), is_loopback=False, has_multicast=True)
    tunnel = Interface("tun0", 3, (), is_loopback=False, has_multicast=False)
    monkeypatch.setattr("asyncmg.resolver.interfaces.own_interfaces", lambda: [lo, net, tunnel])
    assert chosen_interfaces("") == [net]
    monkeypatch.setattr("asyncmg.resolver.interfaces.own_interfaces", lambda: [lo])
    assert chosen_interfaces("") == [lo]


def test_near(port: int) -> None:
    net = Interface("net0", 2, (ipaddress.ip_interface("192.0.2.7/24"),), is_loopback=False, has_multicast=True)
    sockets = MdnsSockets([net], port)
    near = {"192.0.2.9": True, "192.0.3.9": False, "127.0.0.5": True, "fe80::1%net0": True, "2001:db8::1": False}
    assert {address: sockets.is_near((address, port)) for address in near} == near
    own = {"192.0.2.7": True, "192.0.2.9": False, "127.0.0.1": True}
    assert {address: sockets.is_own((address, port)) for address in own} == own


async def test_a_port_that_is_not_shared(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", port))
        with pytest.raises(ListenFailed, match="no multicast") as caught:
            async with mdns_serve("printer", interface=HERE, port=port):
                pass
        assert isinstance(caught.value, OSError) and caught.value.errno
