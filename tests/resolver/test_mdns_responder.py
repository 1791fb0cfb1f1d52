"""The mDNS responder: names taken and defended, when and how it answers, and what it keeps silent about."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from asyncmg.codecs import dns
from asyncmg.codecs.dns import DnsMessage, DnsQuestion, DnsRecord, RecordType, SrvData, TxtData, write_message
from asyncmg.codecs.dns_portable import read_message
from asyncmg.errors import ListenFailed
from asyncmg.mdns import MdnsService, mdns_serve
from asyncmg.resolver import mdns_responder
from asyncmg.resolver.interfaces import Interface
from asyncmg.resolver.mdns_responder import Responder
from asyncmg.resolver.mdns_zone import Offer, Zone, data_bytes, denies, negative, next_label

from .mdns_peers import HERE, REPLY, UNIQUE, FakeEndpoint, FakeSockets, Member, free_port, member, soon

A, AAAA, PTR, SRV, TXT = RecordType.A, RecordType.AAAA, RecordType.PTR, RecordType.SRV, RecordType.TXT
ANY, NSEC = RecordType.ANY, RecordType.NSEC
SERVICE = MdnsService("_http._tcp", 80, "web", {"a": "b"})
EARLY = 0.005  # seconds by which a timer may fire before its time
TICK = 0.1  # between noting when something is sent and sending it, if somebody else gets the processor there


@pytest.fixture
def port() -> int:
    return free_port()


# -- names, on the loopback interface -------------------------------------------------------------------------------


async def test_probes_announcements_goodbye(port: int) -> None:
    async with member(port) as peer:
        async with mdns_serve("printer", services=[SERVICE], interface=HERE, port=port) as shown:
            assert shown.hostname == "printer.local" and shown.service_names == ["web"]
            await soon(lambda: len(peer.of("printer.local", A)) == 2)  # twice, a second apart
            probes = [message for message, _ in peer.heard if not message.is_response]
            assert len(probes) == 3
            assert {(q.name, q.type) for q in probes[0].questions} == {
                ("printer.local", ANY),
                ("web._http._tcp.local", ANY),
            }
            claimed = {(record.name, record.type, record.class_) for record in probes[0].authorities}
            assert ("printer.local", A, dns.IN) in claimed and ("web._http._tcp.local", SRV, dns.IN) in claimed
            first = next(message for message, _ in peer.heard if message.is_response)
            assert first.id == 0 and first.flags == REPLY and not first.questions
            told = {(r.name, r.type): (r.class_, r.ttl) for r in first.answers}
            assert told == {
                ("printer.local", A): (UNIQUE, 120),
                ("1.0.0.127.in-addr.arpa", PTR): (UNIQUE, 120),
                ("web._http._tcp.local", SRV): (UNIQUE, 120),
                ("web._http._tcp.local", TXT): (UNIQUE, 4500),
                ("_http._tcp.local", PTR): (dns.IN, 4500),
                ("_services._dns-sd._udp.local", PTR): (dns.IN, 4500),
            }
            assert shown.answered == 2 and shown.ignored == 0
            peer.heard.clear()
        await soon(lambda: len(peer.records()) == len(told))
        assert {record.ttl for record in peer.records()} == {0}
    assert len(asyncio.all_tasks()) == 1


async def test_a_taken_name_is_left_to_its_owner(port: int) -> None:
    async with mdns_serve("printer", ["192.0.2.1"], [SERVICE], interface=HERE, port=port) as first:
        async with mdns_serve("Printer", ["192.0.2.2"], [SERVICE], interface=HERE, port=port) as second:
            assert first.hostname == "printer.local" and second.hostname == "Printer-2.local"
            # The service's data are others, as its host is; the name goes to who was there first.
            assert first.service_names == ["web"] and second.service_names == ["web-2"]
            async with mdns_serve("printer", ["192.0.2.3"], interface=HERE, port=port) as third:
                assert third.hostname == "printer-3.local"
        with pytest.raises(ListenFailed, match=r"another host has the name printer\.local"):
            async with mdns_serve("printer", ["192.0.2.2"], interface=HERE, port=port, rename=False):
                pass


async def test_the_same_name_twice_at_once(port: int) -> None:
    """Both probe; one of them has to wait, and then takes another name (section 8.2)."""
    one = mdns_serve("printer", ["192.0.2.1"], interface=HERE, port=port)
    two = mdns_serve("printer", ["192.0.2.2"], interface=HERE, port=port)
    await asyncio.gather(one.__aenter__(), two.__aenter__())
    try:
        assert {one.hostname, two.hostname} == {"printer.local", "printer-2.local"}
        assert two.hostname == "printer.local", "the later data wins"
    finally:
        await asyncio.gather(one.__aexit__(None, None, None), two.__aexit__(None, None, None))


def claim(peer: Member, name: str, address: str) -> None:
    peer.say(DnsMessage(0, REPLY, answers=[DnsRecord(name, A, address, 120, UNIQUE)]))


async def test_a_conflict_later(port: int) -> None:
    async with (
        member(port) as peer,
        mdns_serve("printer", ["192.0.2.1"], [SERVICE], interface=HERE, port=port) as shown,
    ):
        claim(peer, "printer.local", "192.0.2.1")  # the same data: no conflict (section 9)
        claim(peer, "other.local", "192.0.2.9")

        def defend(message: DnsMessage) -> list[DnsRecord]:
            if any(question.name == "printer.local" for question in message.questions):
                claim(peer, "printer.local", "192.0.2.9")
            return []

        peer.answer = defend
        claim(peer, "printer.local", "192.0.2.9")
        await soon(lambda: shown.hostname == "printer-2.local" and peer.of("printer-2.local", A))
        assert shown.service_names == ["web"]
        target = await soon(
            lambda: [r.data for r in peer.of("web._http._tcp.local", SRV) if r.data[3] != "printer.local"]
        )
        assert target[-1] == SrvData(0, 0, 80, "printer-2.local")


async def test_a_conflict_later_that_nobody_defends(port: int) -> None:
    """It asks again, nobody has the name: it keeps it."""
    async with member(port) as peer, mdns_serve("printer", ["192.0.2.1"], interface=HERE, port=port) as shown:
        peer.heard.clear()
        claim(peer, "printer.local", "192.0.2.9")
        await soon(lambda: len(peer.questions()) == 3 and peer.of("printer.local", A)[1:])
        assert shown.hostname == "printer.local"


async def test_a_service_loses_its_name(port: int) -> None:
    async with (
        member(port) as peer,
        mdns_serve("printer", ["192.0.2.1"], [SERVICE], interface=HERE, port=port) as shown,
    ):
        other = DnsRecord("web._http._tcp.local", SRV, SrvData(0, 0, 81, "other.local"), 120, UNIQUE)
        defence = DnsMessage(0, REPLY, answers=[other])

        def answer(message: DnsMessage) -> list[DnsRecord]:
            if any(question.name == other.name for question in message.questions):
                peer.say(defence)
            return []

        peer.answer = answer
        peer.say(defence)
        await soon(lambda: shown.service_names == ["web-2"])
        assert shown.hostname == "printer.local"
        # Nobody else's announcement replaces the shared record.
        gone = await soon(lambda: [r for r in peer.of("_http._tcp.local", PTR) if r.ttl == 0])
        assert {record.data for record in gone} == {"web._http._tcp.local"}


async def test_names_lost_without_another(port: int) -> None:
    serving = mdns_serve("printer", ["192.0.2.1"], interface=HERE, port=port, rename=False)
    with pytest.raises(ListenFailed, match="another host has the name"):
        async with member(port) as peer, serving as shown:
            peer.answer = lambda message: claim(peer, "printer.local", "192.0.2.9") or []  # type: ignore[func-returns-value]
            claim(peer, "printer.local", "192.0.2.9")
            async with asyncio.timeout(30):
                await shown.serve_forever()
    with pytest.raises(ListenFailed):  # also when nobody waits for it
        async with (
            member(port) as peer,
            mdns_serve("b", ["192.0.2.1"], interface=HERE, port=port, rename=False) as shown,
        ):
            peer.answer = lambda message: claim(peer, "b.local", "192.0.2.9") or []  # type: ignore[func-returns-value]
            claim(peer, "b.local", "192.0.2.9")
            await soon(lambda: shown._task is not None and shown._task.done())


async def test_somebody_who_has_every_name(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdns_responder, "PROBE_INTERVAL", 0.05)
    async with member(port) as peer:

        def answer(message: DnsMessage) -> list[DnsRecord]:
            for question in message.questions:
                claim(peer, question.name, "192.0.2.9")
            return []

        peer.answer = answer
        with pytest.raises(ListenFailed, match=r"printer-1[56]\.local"):
            async with mdns_serve("printer", ["192.0.2.1"], interface=HERE, port=port):
                pass
    assert len(asyncio.all_tasks()) == 1


async def test_cancelling(port: int) -> None:
    async with member(port) as peer:
        entering = asyncio.create_task(mdns_serve("printer", interface=HERE, port=port).__aenter__())
        await soon(lambda: peer.questions())
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        peer.heard.clear()

        async def serve() -> None:
            async with mdns_serve("printer", interface=HERE, port=port) as shown:
                await shown.serve_forever()

        serving = asyncio.create_task(serve())
        await soon(lambda: peer.of("printer.local", A))
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        await soon(lambda: any(record.ttl == 0 for record in peer.of("printer.local", A)))
    assert len(asyncio.all_tasks()) == 1


async def test_used_once(port: int) -> None:
    shown = mdns_serve("printer", interface=HERE, port=port)
    assert shown.hostname == "printer.local" and shown.answered == shown.ignored == 0
    with pytest.raises(RuntimeError, match="not in use"):
        await shown.serve_forever()
    async with shown:
        assert repr(shown) == "<MdnsResponder printer.local, 0 services>"
    with pytest.raises(RuntimeError, match="has been in use"):
        await shown.__aenter__()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"hostname": "a.b"}, "not the name of a host"),
        ({"hostname": "x" * 64}, "not the name of a host"),
        ({"hostname": ".local"}, "not the name of a host"),
        ({"hostname": "a", "addresses": ["192.0.2.256"]}, "192.0.2.256"),
        ({"hostname": "a", "services": [SERVICE] * 101}, "100 are the most"),
        ({"hostname": "a", "services": [SERVICE, MdnsService("_HTTP._tcp", 81, "WEB")]}, "two services"),
    ],
)
def test_what_cannot_be_served(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        mdns_serve(**arguments)


def test_the_machines_name() -> None:
    assert mdns_serve().hostname.endswith(".local")
    assert mdns_serve("printer.local").hostname == "printer.local"


# -- answers, on sockets that only remember -------------------------------------------------------------------------

PORT = 5353
PEER = ("192.0.2.50", PORT)
LEGACY = ("192.0.2.51", 40000)
NET = Interface("net0", 2, (ipaddress.ip_interface("192.0.2.7/24"),), is_loopback=False, has_multicast=True)


class Rig:
    """A responder whose names are settled."""

    def __init__(self, zone: Zone) -> None:
        self.endpoint = FakeEndpoint(NET)
        self.sockets = FakeSockets(self.endpoint)
        self.responder = Responder(zone, [NET], PORT, read_message)
        self.responder._sockets = self.sockets  # type: ignore[assignment]
        self.responder.is_established = True

    def ask(
        self,
        *questions: tuple[str, int],
        source: Any = PEER,
        known: list[DnsRecord] | None = None,
        flags: int = 0,
        class_: int = dns.IN,
        authorities: list[DnsRecord] | None = None,
    ) -> None:
        asked = [DnsQuestion(*question, class_) for question in questions]
        message = DnsMessage(77, flags, asked, known or [], authorities or [])
        self.receive(write_message(message), source)

    def receive(self, data: bytes, source: Any = PEER) -> None:
        self.responder._receive(data, source, self.endpoint)  # type: ignore[arg-type]

    def names(self) -> list[tuple[str, int]]:
        return [(record.name, record.type) for record, _, _ in self.endpoint.answers()]

    async def is_silent(self) -> bool:
        """Ask for something else, so that what is not answered before that is not answered at all."""
        await asyncio.sleep(mdns_responder.SHARED_DELAY[1] + 0.05)
        return not self.endpoint.sent


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    offers = [Offer("_http._tcp", b"web", 80, TxtData([b"a=b"])), Offer("_http._tcp", b"two", 81, TxtData([b""]))]
    made = Rig(Zone(b"printer", {"net0": ["192.0.2.7", "fd00::7"]}, offers))
    yield made
    await made.responder.close(goodbye=False)
    assert made.sockets.closed


async def test_to_everybody_at_once(rig: Rig) -> None:
    rig.ask(("PRINTER.local", A))
    await soon(lambda: rig.endpoint.sent)
    ((message, peer, _),) = rig.endpoint.sent
    assert peer is None and message.id == 0 and message.flags == REPLY and not message.questions
    assert message.answers == [DnsRecord("printer.local", A, "192.0.2.7", 120, UNIQUE)]
    assert message.additionals == [DnsRecord("printer.local", AAAA, "fd00::7", 120, UNIQUE)]


async def test_any_and_both_services(rig: Rig) -> None:
    rig.ask(("web._http._tcp.local", ANY), ("_http._tcp.local", PTR))
    await soon(lambda: len(rig.names()) == 4)
    assert set(rig.names()) == {
        ("web._http._tcp.local", SRV),
        ("web._http._tcp.local", TXT),
        ("_http._tcp.local", PTR),
    }


async def test_additional_records_of_a_service(rig: Rig) -> None:
    rig.ask(("_http._tcp.local", PTR))
    await soon(lambda: rig.endpoint.sent)
    ((message, _, _),) = rig.endpoint.sent
    assert [record.type for record in message.answers] == [PTR, PTR]
    assert sorted((r.name, r.type) for r in message.additionals) == sorted(
        [(f"{name}._http._tcp.local", kind) for name in ("web", "two") for kind in (SRV, TXT)]
        + [("printer.local", A), ("printer.local", AAAA)]
    )


async def test_what_it_has_not(rig: Rig) -> None:
    rig.ask(("printer.local", TXT))
    await soon(lambda: rig.endpoint.sent)
    ((record, _, _),) = rig.endpoint.answers()
    assert record.type == NSEC and denies(record, TXT) and not denies(record, A)


@pytest.mark.parametrize(
    ("questions", "options"),
    [
        ([("other.local", A)], {}),
        ([("printer.local", A)], {"class_": 3}),
        ([("_http._tcp.local", A)], {}),  # a shared name: somebody else may have it
        ([("printer.local", A)], {"flags": 0x0800}),
        ([("printer.local", A)], {"flags": dns.NAME_ERROR}),
        ([("printer.local", A)], {"flags": dns.RESPONSE}),
        ([], {}),
    ],
)
async def test_silence(rig: Rig, questions: list[tuple[str, int]], options: dict[str, Any]) -> None:
    rig.ask(*questions, **options)
    assert await rig.is_silent()


async def test_silence_towards_others(rig: Rig) -> None:
    rig.sockets.near = False
    rig.ask(("printer.local", A), source=("198.51.100.1", PORT))
    rig.ask(("printer.local", A), source=("198.51.100.1", 4000))
    assert await rig.is_silent() and rig.responder.ignored == 2


async def test_malformed_packets(rig: Rig) -> None:
    data = write_message(DnsMessage(0, 0, [DnsQuestion("printer.local", A)]))
    for length in range(len(data)):
        rig.receive(data[:length])
    rig.receive(data + b"x")
    assert await rig.is_silent() and rig.responder.ignored == len(data) + 1
    rig.receive(data)
    await soon(lambda: rig.endpoint.sent)


async def test_answers_from_a_wrong_port_settle_nothing(rig: Rig) -> None:
    lie = write_message(DnsMessage(0, REPLY, answers=[DnsRecord("printer.local", A, "192.0.2.66", 120)]))
    rig.receive(lie, LEGACY)
    assert rig.responder.ignored == 1 and not rig.responder._disturbed.is_set()
    gone = write_message(DnsMessage(0, REPLY, answers=[DnsRecord("printer.local", A, "192.0.2.66", 0)]))
    rig.receive(gone, PEER)  # whoever had it has just said goodbye
    assert not rig.responder._disturbed.is_set()
    rig.receive(lie, PEER)
    assert rig.responder._disturbed.is_set()


async def test_known_answers(rig: Rig) -> None:
    """Section 7.1: left out when the asker's copy has at least half of its time left."""
    web = DnsRecord("_http._tcp.local", PTR, "Web._http._tcp.local", 2250)
    two = DnsRecord("_http._tcp.local", PTR, "two._http._tcp.local", 2249)
    rig.ask(("_http._tcp.local", PTR), known=[web, two])
    await soon(lambda: rig.endpoint.sent)
    assert [record.data for record, _, _ in rig.endpoint.answers()] == ["two._http._tcp.local"]


async def test_all_known(rig: Rig) -> None:
    rig.ask(("printer.local", A), known=[DnsRecord("printer.local", A, "192.0.2.7", 60)])
    assert await rig.is_silent()


async def test_known_answers_that_go_on(rig: Rig) -> None:
    """Section 7.2: a truncated question is answered when its last known answers may have come."""
    asked = asyncio.get_running_loop().time()
    rig.ask(("_http._tcp.local", PTR), ("printer.local", A), flags=dns.TRUNCATED)
    rig.ask(known=[DnsRecord("_http._tcp.local", PTR, f"{name}._http._tcp.local", 4500) for name in ("web", "two")])
    await soon(lambda: rig.endpoint.sent)
    ((record, _, at),) = rig.endpoint.answers()
    assert (record.name, record.type) == ("printer.local", A)
    assert at - asked >= mdns_responder.MORE_DELAY[0] - EARLY
    assert not rig.responder._held


async def test_truncated_questions_are_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdns_responder, "MAX_WAITING", 3)
    for number in range(5):
        rig.ask(("printer.local", A), flags=dns.TRUNCATED, source=(f"192.0.2.{number + 60}", PORT))
    assert len(rig.responder._held) == 3 and rig.responder.ignored == 2


async def test_a_record_once_a_second(rig: Rig) -> None:
    """Section 6; who asks meanwhile gets it when the second is over."""
    for _ in range(20):
        rig.ask(("printer.local", A))
        await asyncio.sleep(0.01)
    await soon(lambda: len(rig.names()) >= 2)
    times = [at for _, _, at in rig.endpoint.answers()]
    assert min(b - a for a, b in itertools.pairwise(times)) >= mdns_responder.RECORD_INTERVAL - TICK


async def test_additional_records_once_a_second_too(rig: Rig) -> None:
    rig.ask(("printer.local", A))
    await soon(lambda: rig.endpoint.sent)
    rig.ask(("1.2.0.192.in-addr.arpa", PTR), ("7.2.0.192.in-addr.arpa", PTR))
    await soon(lambda: len(rig.endpoint.sent) == 2)
    if rig.endpoint.sent[1][2] - rig.endpoint.sent[0][2] < 0.9:
        assert rig.endpoint.sent[1][0].additionals == []


async def test_shared_records_wait_a_little(rig: Rig) -> None:
    """Section 6: others may have some too."""
    begin = asyncio.get_running_loop().time()
    rig.ask(("_http._tcp.local", PTR))
    assert not rig.endpoint.sent
    await soon(lambda: rig.endpoint.sent)
    assert rig.endpoint.sent[0][2] - begin >= mdns_responder.SHARED_DELAY[0] - EARLY


async def test_defence_is_quick(rig: Rig) -> None:
    """Section 6: probes are answered after a quarter of a second again."""
    theirs = [DnsRecord("printer.local", A, "192.0.2.9", 120)]
    for _ in range(2):
        rig.ask(("printer.local", ANY), authorities=theirs)
        await asyncio.sleep(0.01)
    await soon(lambda: len(rig.endpoint.sent) == 2)
    distance = rig.endpoint.sent[1][2] - rig.endpoint.sent[0][2]
    assert distance >= mdns_responder.DEFENCE_INTERVAL - TICK


async def test_to_the_asker_alone(rig: Rig) -> None:
    """Section 5.4: as it wishes, unless it is time to tell everybody again; not on our own machine (section 15.1)."""
    rig.ask(("printer.local", A), class_=UNIQUE)
    await soon(lambda: rig.endpoint.sent)
    assert rig.endpoint.sent[0][1] is None, "it has not been multicast yet"
    rig.ask(("printer.local", A), class_=UNIQUE)
    message, peer, _ = rig.endpoint.sent[1]
    assert peer == PEER and message.id == 0 and not message.questions
    assert message.answers[0].class_ == UNIQUE and message.answers[0].ttl == 120
    rig.ask(("_http._tcp.local", PTR))
    await soon(lambda: len(rig.endpoint.sent) == 3)
    rig.ask(("_http._tcp.local", PTR), class_=UNIQUE)
    assert len(rig.endpoint.sent) == 3, "shared records wait here too"
    await soon(lambda: len(rig.endpoint.sent) == 4)
    assert rig.endpoint.sent[3][1] == PEER
    rig.sockets.own = True
    rig.ask(("printer.local", A), class_=UNIQUE)
    await soon(lambda: len(rig.endpoint.sent) == 5)
    assert rig.endpoint.sent[4][1] is None


async def test_legacy(rig: Rig) -> None:
    """Section 6.7."""
    rig.ask(("Printer.local", A), source=LEGACY)
    ((message, peer, _),) = rig.endpoint.sent
    assert peer == LEGACY and message.id == 77 and message.questions == [("Printer.local", A, dns.IN)]
    assert message.answers == [DnsRecord("printer.local", A, "192.0.2.7", 10, dns.IN)]
    assert {(record.ttl, record.class_) for record in message.additionals} == {(10, dns.IN)}
    rig.ask(("_http._tcp.local", PTR), source=LEGACY)
    await soon(lambda: len(rig.endpoint.sent) == 2)
    assert rig.endpoint.sent[1][0].flags == REPLY


async def test_legacy_answers_that_do_not_fit() -> None:
    offers = [Offer("_http._tcp", b"%03d" % n + b"x" * 50, 80, TxtData([b"a=" + b"b" * 200])) for n in range(60)]
    rig = Rig(Zone(b"printer", {"net0": ["192.0.2.7"]}, offers))
    rig.ask(("_http._tcp.local", PTR), source=LEGACY)
    await soon(lambda: rig.endpoint.sent)
    ((message, _, _),) = rig.endpoint.sent
    assert message.is_truncated and 0 < len(message.answers) < 60 and not message.additionals
    assert len(write_message(message)) <= 1400
    rig.ask(("_http._tcp.local", PTR))
    await soon(lambda: len(rig.endpoint.answers()) == len(message.answers) + 60)
    assert len(rig.endpoint.sent) > 2 and all(len(write_message(m)) <= 1400 for m, _, _ in rig.endpoint.sent)
    await rig.responder.close(goodbye=False)


async def test_waiting_answers_are_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdns_responder, "MAX_WAITING", 3)
    for _ in range(5):
        rig.ask(("_http._tcp.local", PTR), source=LEGACY)
    assert rig.responder.ignored == 2
    await soon(lambda: len(rig.endpoint.sent) == 3)


async def test_nothing_while_the_names_are_not_ours(rig: Rig) -> None:
    rig.ask(("_http._tcp.local", PTR))
    rig.ask(("_http._tcp.local", PTR), source=LEGACY)
    rig.responder.is_established = False
    rig.ask(("printer.local", A))
    assert await rig.is_silent()


async def test_a_probe_that_loses_waits(rig: Rig) -> None:
    """Section 8.2: for a second, in which the other host may take the name."""
    rig.responder.is_established = False
    claiming = asyncio.create_task(rig.responder.claim())
    try:
        await soon(lambda: rig.endpoint.sent)
        theirs = [DnsRecord("printer.local", A, "192.0.2.99", 120)]
        rig.ask(("printer.local", ANY), authorities=theirs)
        assert rig.responder._has_lost
        lost = asyncio.get_running_loop().time()
        sent = len(rig.endpoint.sent)
        await soon(lambda: len(rig.endpoint.sent) > sent)
        assert rig.endpoint.sent[sent][2] - lost >= mdns_responder.DEFER_INTERVAL - TICK
        assert not rig.endpoint.sent[sent][0].is_response, "it asks again"
        await soon(lambda: rig.responder.is_established)
        assert rig.responder.zone.host == "printer.local", "nobody has taken it"
    finally:
        claiming.cancel()


# -- records --------------------------------------------------------------------------------------------------------


def test_labels() -> None:
    assert next_label(b"a") == b"a-2" and next_label(b"a-2") == b"a-3" and next_label(b"a-9") == b"a-10"
    assert next_label(b"x" * 63) == b"x" * 61 + b"-2"
    assert next_label("ü".encode() * 31) == "ü".encode() * 30 + b"-2", "no half of a character"


def test_negative_records() -> None:
    record = negative("a.local", [A, SRV])
    assert record.data == b"\x01a\x05local\0" + b"\0\x05" + b"\x40\0\0\0\x40"
    told = {kind: denies(record, kind) for kind in (A, AAAA, SRV, TXT, 255, 300)}
    assert told == {A: False, AAAA: True, SRV: False, TXT: True, 255: True, 300: False}
    pointed = record._replace(data=b"\xc0\x0c\0\x01\x40")
    assert not denies(pointed, A) and denies(pointed, AAAA)
    for data in (b"", b"\x01", b"\0", b"\0\0", b"\0\0\x05\x40", b"\0\1\1\x40", b"\x3fabc", "text"):
        assert not denies(record._replace(data=data), AAAA)


def test_which_probe_wins() -> None:
    """The example of section 8.2.1, and what is ours."""
    zone = Zone(b"MyPrinter", {"a": ["169.254.99.200"], "b": ["10.0.0.1"]}, [])
    theirs = [DnsRecord("MyPrinter.local", A, "169.254.200.50", 120)]
    assert zone.loses(theirs, "myprinter.local", "a")
    assert not zone.loses([DnsRecord("myprinter.local", A, "169.254.9.9", 120)], "myprinter.local", "a")
    assert not zone.loses(zone.claims("a", "myprinter.local"), "myprinter.local", "b"), "our own, from elsewhere"
    more = [*zone.claims("a", "myprinter.local"), DnsRecord("myprinter.local", TXT, TxtData([b"x"]), 120)]
    assert zone.loses(more, "myprinter.local", "a"), "who has more"
    assert data_bytes(DnsRecord("x", SRV, SrvData(1, 2, 3, "a.b"), 0, UNIQUE)) == b"\0\1\0\2\0\3\1a\1b\0"


def test_which_records_contradict() -> None:
    zone = Zone(b"a", {"x": ["192.0.2.1"]}, [])
    for record, later, before in (
        (DnsRecord("A.local", A, "192.0.2.2", 1), True, True),
        (DnsRecord("a.local", A, "192.0.2.1", 1), False, False),
        (DnsRecord("a.local", TXT, TxtData([b""]), 1), False, True),
        (DnsRecord("b.local", A, "192.0.2.2", 1), False, False),
        (negative("a.local", [A]), False, False),
        (DnsRecord("1.2.0.192.in-addr.arpa", PTR, "b.local", 1), False, False),
    ):
        assert zone.conflicts(record, any_type=False) == later, record
        assert zone.conflicts(record, any_type=True) == before, record
