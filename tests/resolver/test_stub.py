"""The stub resolver and servers that lie, refuse, cut off, or say nothing. Each with both codecs, on each loop."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from asyncmg import DnsLimits, MxData, NameNotFound, ResolveFailed, Resolver, ResolveTimeout, SoaData, SrvData, TxtData
from asyncmg.codecs import dns
from asyncmg.codecs.dns import DnsMessage, DnsQuestion, DnsRecord, RecordType, write_message, write_query
from asyncmg.codecs.dns_portable import read_message
from asyncmg.resolver.config import ResolvConf, server_address
from asyncmg.resolver.stub import StubResolver
from asyncmg.transports.exchange import ask_datagram

from .dns_peer import Answer, Query, a, cname, eventually, free_udp_port, reply, serving, soa, soon, zone

pytestmark = pytest.mark.usefixtures("codec")

PATIENT = DnsLimits(timeout=25.0, try_timeout=20.0, max_tries=1)
QUICK = DnsLimits(timeout=20.0, try_timeout=0.1, max_tries=2)
STUBBORN = DnsLimits(timeout=25.0, try_timeout=0.2, max_tries=100)


def resolver(*servers: str, limits: DnsLimits = PATIENT, **kwargs: Any) -> Resolver:
    return Resolver(servers, hosts="", backend="stub", limits=limits, **kwargs)


def good(query: Query) -> DnsMessage:
    return reply(query, a(query.question.name))


def once(*answers: Answer) -> Answer:
    """Answer each time in another way; the last one stays."""
    left = list(answers)
    return lambda query: (left.pop(0) if len(left) > 1 else left[0])(query)


# -- honest servers ---------------------------------------------------------------------------------------------------

RECORDS = [
    a("a.test"),
    a("a.test", "192.0.2.2"),
    DnsRecord("a.test", RecordType.AAAA, "2001:db8::1", 60),
    DnsRecord("a.test", RecordType.MX, MxData(20, "m2.test"), 60),
    DnsRecord("a.test", RecordType.MX, MxData(10, "m1.test"), 60),
    DnsRecord("a.test", RecordType.TXT, TxtData([b"x" * 255, b"", "ü".encode()]), 60),
    DnsRecord("_s._tcp.a.test", RecordType.SRV, SrvData(1, 2, 3, "a.test"), 60),
    DnsRecord("a.test", RecordType.NS, "ns.a.test", 60),
    DnsRecord("a.test", RecordType.SOA, SoaData("ns.test", "h.test", 1, 2, 3, 4, 5), 60),
    DnsRecord("1.2.0.192.in-addr.arpa", RecordType.PTR, "a.test", 60),
    DnsRecord("alias.test", RecordType.CNAME, "other.test", 60),
    DnsRecord("other.test", RecordType.CNAME, "a.test", 30),
]


@pytest.mark.parametrize("use_tcp", [False, True])
async def test_every_type(use_tcp: bool) -> None:
    async with serving(zone(*RECORDS)) as peer:
        ask = resolver(peer.address, use_tcp=use_tcp).resolve
        assert await soon(ask("a.test")) == ["192.0.2.1", "192.0.2.2"]
        assert await soon(ask("A.TEST.", "aaaa")) == ["2001:db8::1"]
        assert await soon(ask("a.test", "MX")) == [MxData(10, "m1.test"), MxData(20, "m2.test")]
        assert (await soon(ask("a.test", "TXT")))[0] == TxtData([b"x" * 255, b"", "ü".encode()])
        assert await soon(ask("_s._tcp.a.test", "SRV")) == [SrvData(1, 2, 3, "a.test")]
        assert await soon(ask("a.test", "NS")) == ["ns.a.test"]
        assert await soon(ask("a.test", "SOA")) == [SoaData("ns.test", "h.test", 1, 2, 3, 4, 5)]
        assert await soon(ask("192.0.2.1", "PTR")) == ["a.test"]
        assert await soon(ask("alias.test", "CNAME")) == ["other.test"]
        told = await soon(ask("alias.test"))
        assert told == ["192.0.2.1", "192.0.2.2"] and told.aliases == ("alias.test", "other.test")
        assert told.name == "a.test" and told.type == RecordType.A and told.ttl == 30
        assert all(query.is_tcp is use_tcp and query.has_edns for query in peer.asked)
        assert all(query.message.flags == dns.RECURSION_DESIRED for query in peer.asked)


async def test_ipv6() -> None:
    async with serving(once(lambda query: reply(query, flags=dns.TRUNCATED), good), "::1") as peer:
        assert await soon(resolver(peer.address).resolve("a.test")) == ["192.0.2.1"]
        assert peer.words == ["udp A a.test", "tcp A a.test"]


async def test_ids_and_ports_differ() -> None:
    async with serving(good) as peer:
        asker = resolver(peer.address)
        await soon(asyncio.gather(*(asker.resolve(f"n{n}.test") for n in range(40))))
        assert len({query.message.id for query in peer.asked}) > 35
        assert len({query.client[1] for query in peer.asked}) > 35


async def test_random_case() -> None:
    async with serving(good) as peer:
        asker = resolver(peer.address, random_case=True)
        name = "abcdefghijklmnopqrstuvwxyz.test"
        await soon(asker.resolve(name))
        asker.clear_cache()
        await soon(asker.resolve(name))
        asked = [query.question.name for query in peer.asked]
        assert asked[0] != asked[1] and {one.lower() for one in asked} == {name}


async def test_aliases_that_the_server_does_not_follow() -> None:
    """It answers with one alias at a time, as servers without recursion do; the end is cached under the first name."""
    chain = {"a.test": "b.test", "b.test": "C.test"}

    def answer(query: Query) -> DnsMessage:
        name = query.question.name
        ttl = {"a.test": 50, "b.test": 30}.get(name, 40)
        return reply(query, cname(name, chain[name], ttl) if name in chain else a(name, ttl=ttl))

    async with serving(answer) as peer:
        asker = resolver(peer.address)
        told = await soon(asker.resolve("a.test"))
        assert told == ["192.0.2.1"] and told.aliases == ("a.test", "b.test") and told.name == "C.test"
        assert told.ttl == 30 and len(peer.asked) == 3
        assert await soon(asker.resolve("a.test")) == told and len(peer.asked) == 3


@pytest.mark.parametrize("step", [lambda n: n + 1, lambda n: 1 - n])
async def test_aliases_without_an_end(step: Callable[[int], int]) -> None:
    def answer(query: Query) -> DnsMessage:
        name = query.question.name
        return reply(query, cname(name, f"{step(int(name[1:-5]))}.test".join(("n", ""))))

    async with serving(answer) as peer:
        with pytest.raises(ResolveFailed, match="aliases") as caught:
            await soon(resolver(peer.address).resolve("n0.test"))
        assert type(caught.value) is ResolveFailed and caught.value.name
        assert len(peer.asked) <= 10


# -- replies that are not believed ------------------------------------------------------------------------------------


def lies(query: Query) -> dict[str, Any]:
    """Every way in which a datagram may claim to be the reply."""
    name = query.question.name
    bad = a(name, "198.51.100.66")
    true = reply(query, bad)
    pointers = write_message(reply(query))[:-2]  # without the count of additional records
    head = write_message(reply(query, bad))
    loop = bytearray(write_message(reply(query)))
    loop[6:8] = b"\0\1"
    at = len(loop)
    return {
        "another id": true._replace(id=query.message.id ^ 1),
        "no response": true._replace(flags=true.flags & ~dns.RESPONSE),
        "another opcode": true._replace(flags=true.flags | 0x2000),
        "another name": reply(query, bad, questions=[DnsQuestion("b.test", 1)]),
        "another type": reply(query, bad, questions=[DnsQuestion(name, 28)]),
        "another class": reply(query, bad, questions=[DnsQuestion(name, 1, 3)]),
        "no question": reply(query, bad, questions=[]),
        "no question, no such name": reply(query, rcode=3, questions=[]),
        "two questions": reply(query, bad, questions=[*query.message.questions, *query.message.questions]),
        "nothing": b"",
        "half a header": write_message(true)[:7],
        "half a record": write_message(true)[:-3],
        "bytes behind": write_message(true) + b"\0",
        "noise": bytes(range(256)),
        "the count is wrong": pointers,
        "a pointer to itself": bytes(loop) + (0xC000 | at).to_bytes(2, "big") + b"\0\1\0\1\0\0\0\x3c\0\4abcd",
        "a pointer forward": bytes(loop) + (0xC000 | at + 2).to_bytes(2, "big") + b"\0\1\0\1\0\0\0\x3c\0\4abcd",
        "an address of five bytes": head[:-6] + b"\0\5abcde",
        "65000 records": head[:6] + b"\xff\xff" + head[8:],
    }


LIES = list(lies(Query(DnsMessage(1, 0, [DnsQuestion("a.test", 1)]), False, None)))


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_passed_over_and_the_truth_behind_it_counts(lie: str) -> None:
    async with serving(lambda query: [lies(query)[lie], good(query)]) as peer:
        assert await soon(resolver(peer.address).resolve("a.test")) == ["192.0.2.1"]
        assert len(peer.asked) == 1


async def test_nothing_but_lies_is_no_answer() -> None:
    async with serving(lambda query: list(lies(query).values())) as peer:
        with pytest.raises(ResolveTimeout):
            await soon(resolver(peer.address, limits=QUICK).resolve("a.test"))
        await eventually(lambda: len(peer.asked) == 2)


@pytest.mark.parametrize("lie", [lie for lie in LIES if lie not in ("half a header",)])
async def test_lies_by_tcp(lie: str) -> None:
    """There is one reply to a connection: who lies there does not answer, and the next server is asked."""
    async with serving(lambda query: lies(query)[lie]) as liar, serving(good) as peer:
        asker = resolver(liar.address, peer.address, use_tcp=True)
        assert await soon(asker.resolve("a.test")) == ["192.0.2.1"]
        assert len(liar.asked) == len(peer.asked) == 1


async def test_wrong_case_with_random_case() -> None:
    def answer(query: Query) -> list[DnsMessage]:
        name = query.question.name
        wrong = [DnsQuestion(name.swapcase(), 1)]
        return [reply(query, a(name, "198.51.100.66"), questions=wrong), good(query)]

    async with serving(answer) as peer:
        name = "abcdefghijkl.test"
        assert await soon(resolver(peer.address, random_case=True).resolve(name)) == ["192.0.2.1"]
        assert await soon(resolver(peer.address).resolve(name)) == ["198.51.100.66"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
async def test_a_reply_from_elsewhere(host: str) -> None:
    """From another port, and from another address: the kernel does not even pass it on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((host, 0))

        def answer(query: Query) -> DnsMessage:
            other.sendto(write_message(reply(query, a("a.test", "198.51.100.66"))), query.client)
            return good(query)

        async with serving(answer) as peer:
            assert await soon(resolver(peer.address).resolve("a.test")) == ["192.0.2.1"]


async def test_duplicates_do_no_harm() -> None:
    async with serving(lambda query: [good(query)] * 5) as peer:
        asker = resolver(peer.address)
        for name in ("a.test", "b.test", "c.test"):
            assert await soon(asker.resolve(name)) == ["192.0.2.1"]


async def test_a_flood_of_lies_does_not_stop_the_loop() -> None:
    """``sock_recv()`` takes what has arrived without a turn of the loop: the time-out would not be noticed."""
    turns = taken = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def take(data: bytes) -> bytes | None:
        nonlocal taken
        taken += 1
        if taken == 1:  # the others, all at once
            for _ in range(99):
                peer.transport.sendto(b"lie", peer.asked[0].client)
        return data if taken == 100 else None

    async with serving(lambda query: b"lie") as peer:
        counting = asyncio.create_task(count())
        question = write_query(1, DnsQuestion("a.test", RecordType.A))
        await soon(ask_datagram(server_address(peer.address), question, take, timeout=20))
        counting.cancel()
    assert turns >= 90


# -- what does not fit ------------------------------------------------------------------------------------------------


def truncated(query: Query) -> DnsMessage:
    return reply(query, flags=dns.TRUNCATED)


def long(query: Query) -> DnsMessage:
    return reply(query, *(a(query.question.name, f"192.0.{n // 250}.{n % 250}") for n in range(900)))


async def test_truncated_is_asked_again_by_tcp() -> None:
    async with serving(lambda query: long(query) if query.is_tcp else truncated(query)) as peer:
        assert len(await soon(resolver(peer.address).resolve("a.test"))) == 900
        assert peer.words == ["udp A a.test", "tcp A a.test"]


async def test_truncated_in_the_middle_of_a_record() -> None:
    def answer(query: Query) -> Any:
        if query.is_tcp:
            return long(query)
        cut = bytearray(write_message(reply(query, a("a.test"), a("a.test"), flags=dns.TRUNCATED)))
        return bytes(cut[:-9])

    async with serving(answer) as peer:
        assert len(await soon(resolver(peer.address).resolve("a.test"))) == 900
        assert peer.words == ["udp A a.test", "tcp A a.test"]


async def test_more_than_we_said_that_we_take() -> None:
    async with serving(long) as peer:
        assert len(await soon(resolver(peer.address).resolve("a.test"))) == 900


async def test_tcp_refused() -> None:
    async with serving(truncated, tcp=False) as cutting, serving(good) as peer:
        assert await soon(resolver(cutting.address, peer.address).resolve("a.test")) == ["192.0.2.1"]
        with pytest.raises(ResolveFailed) as caught:
            await soon(resolver(cutting.address).resolve("a.test"))
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)


@pytest.mark.parametrize("sent", [b"", b"\0", b"\0\x40", b"\0\x40half a message"])
async def test_tcp_closed_early(sent: bytes) -> None:
    async def close(query: Query, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)

    async with serving(truncated) as cutting, serving(good) as peer:
        cutting.on_tcp = close
        assert await soon(resolver(cutting.address, peer.address).resolve("a.test")) == ["192.0.2.1"]
        with pytest.raises(ResolveFailed, match="closed before the reply was complete"):
            await soon(resolver(cutting.address).resolve("a.test"))


@pytest.mark.parametrize("size", [0, 5, 65535])
async def test_tcp_with_a_wrong_length(size: int) -> None:
    async def send(query: Query, writer: asyncio.StreamWriter) -> None:
        writer.write(size.to_bytes(2, "big") + write_message(good(query)))

    async with serving(truncated) as cutting:
        cutting.on_tcp = send
        with pytest.raises(ResolveFailed):
            await soon(resolver(cutting.address).resolve("a.test"))


async def test_tcp_byte_by_byte() -> None:
    async def drip(query: Query, writer: asyncio.StreamWriter) -> None:
        data = write_message(good(query))
        for byte in len(data).to_bytes(2, "big") + data:
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0.001)

    async with serving(truncated) as peer:
        peer.on_tcp = drip
        assert await soon(resolver(peer.address).resolve("a.test")) == ["192.0.2.1"]


@pytest.mark.parametrize("drips", [False, True])
async def test_tcp_that_does_not_come_to_an_end(drips: bool) -> None:
    async def hang(query: Query, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\xff\xff")
        while True:
            await asyncio.sleep(0.01)
            if drips:
                writer.write(b"\0")

    async with serving(truncated) as peer:
        peer.on_tcp = hang
        begun = time.monotonic()
        with pytest.raises(ResolveTimeout):
            await soon(resolver(peer.address, limits=QUICK).resolve("a.test"))
        assert time.monotonic() - begun < 15 and peer.connections


# -- servers that cannot help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rcode", [1, 2, 4, 5, 9, 15])
async def test_the_next_server_is_asked(rcode: int) -> None:
    async with serving(lambda query: reply(query, rcode=rcode)) as useless, serving(good) as peer:
        assert await soon(resolver(useless.address, peer.address).resolve("a.test")) == ["192.0.2.1"]
        assert len(useless.asked) == (2 if rcode in (1, 4) else 1) and len(peer.asked) == 1
        with pytest.raises(ResolveFailed) as caught:
            await soon(resolver(useless.address).resolve("a.test"))
        assert type(caught.value) is ResolveFailed and caught.value.rcode == rcode and caught.value.name == "a.test"
        assert isinstance(caught.value, OSError) and "cannot resolve a.test" in str(caught.value)


async def test_a_refusal_may_come_without_the_question() -> None:
    async with serving(lambda query: reply(query, rcode=5, questions=[])) as useless, serving(good) as peer:
        assert await soon(resolver(useless.address, peer.address).resolve("a.test")) == ["192.0.2.1"]


async def test_the_upper_bits_of_the_response_code() -> None:
    """BADVERS is 16: without the bits of the OPT record it would be "no error", and nothing there."""
    edns = DnsRecord("", RecordType.OPT, b"", 1 << 24, 1232)
    async with serving(lambda query: reply(query, additionals=[edns])) as useless, serving(good) as peer:
        assert await soon(resolver(useless.address, peer.address).resolve("a.test")) == ["192.0.2.1"]
        with pytest.raises(ResolveFailed, match="response code 16") as caught:
            await soon(resolver(useless.address).resolve("a.test"))
        assert caught.value.rcode == 16


@pytest.mark.parametrize("rcode", [dns.FORMAT_ERROR, dns.NOT_IMPLEMENTED])
async def test_a_server_that_does_not_know_edns(rcode: int) -> None:
    async with serving(lambda query: reply(query, rcode=rcode) if query.has_edns else good(query)) as peer:
        assert await soon(resolver(peer.address).resolve("a.test")) == ["192.0.2.1"]
        assert [query.has_edns for query in peer.asked] == [True, False]


async def test_a_silent_server_then_one_that_answers() -> None:
    async with serving(lambda query: None) as silent, serving(good) as peer:
        assert await soon(resolver(silent.address, peer.address, limits=STUBBORN).resolve("a.test")) == ["192.0.2.1"]


async def test_nobody_at_the_port() -> None:
    """The system says so at once: that server is not waited for."""
    async with serving(good) as peer:
        asker = resolver(f"127.0.0.1:{free_udp_port()}", peer.address)
        begun = time.monotonic()
        assert await soon(asker.resolve("a.test")) == ["192.0.2.1"]
        assert time.monotonic() - begun < 15
    with pytest.raises(ResolveFailed, match="refused") as caught:
        await soon(resolver(f"127.0.0.1:{free_udp_port()}").resolve("a.test"))
    assert not isinstance(caught.value, TimeoutError)


async def test_no_answer_is_asked_again_and_ends() -> None:
    async with serving(lambda query: None) as peer:
        begun = time.monotonic()
        with pytest.raises(ResolveTimeout) as caught:
            await soon(resolver(peer.address, limits=QUICK).resolve("a.test"))
        assert 0.19 <= time.monotonic() - begun < 15
        await eventually(lambda: len(peer.asked) == 2)
        assert isinstance(caught.value, TimeoutError) and isinstance(caught.value, ResolveFailed)
        assert len({query.message.id for query in peer.asked}) + len({query.client for query in peer.asked}) > 2


async def test_the_time_for_everything() -> None:
    async with serving(lambda query: None) as peer:
        limits = DnsLimits(timeout=0.2, try_timeout=10.0, max_tries=50)
        begun = time.monotonic()
        with pytest.raises(ResolveTimeout):
            await soon(resolver(peer.address, peer.address, limits=limits, search=["a", "b"]).resolve("x"))
        assert 0.19 <= time.monotonic() - begun < 8


async def test_an_answer_counts_more_than_silence() -> None:
    """The server that said something is told, whichever was last."""
    async with serving(lambda query: None) as silent, serving(lambda query: reply(query, rcode=2)) as failing:
        limits = DnsLimits(timeout=20.0, try_timeout=0.3, max_tries=3)
        for servers in ((silent, failing), (failing, silent)):
            with pytest.raises(ResolveFailed, match="server failure") as caught:
                await soon(resolver(*(peer.address for peer in servers), limits=limits).resolve("a.test"))
            assert caught.value.rcode == 2


async def test_a_lost_question_is_asked_again() -> None:
    async with serving(once(lambda query: None, good)) as peer:
        assert await soon(resolver(peer.address, limits=STUBBORN).resolve("a.test")) == ["192.0.2.1"]
        assert len(peer.asked) >= 2


async def test_a_late_reply_is_none_to_the_next_try() -> None:
    """It has another id, and it goes to a port that is closed."""
    late: list[Query] = []

    def answer(query: Query) -> Any:
        late.append(query)
        if len(late) == 1:
            return None
        return [reply(late[0], a("a.test", "198.51.100.66")), good(query)]

    async with serving(answer) as peer:
        assert await soon(resolver(peer.address, limits=STUBBORN).resolve("a.test")) == ["192.0.2.1"]


# -- what is not there ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rcode", [0, 3])
@pytest.mark.parametrize("has_soa", [True, False])
async def test_what_is_not_there(rcode: int, has_soa: bool) -> None:
    """It is kept only where the server says for how long (RFC 2308 section 5)."""
    authorities = [soa()] if has_soa else []
    async with (
        serving(lambda query: reply(query, rcode=rcode, authorities=authorities)) as peer,
        serving(good) as other,
    ):
        asker = resolver(peer.address, other.address)
        for _ in range(3):
            with pytest.raises(NameNotFound) as caught:
                await soon(asker.resolve("a.test", "MX"))
            assert caught.value.rcode == rcode and caught.value.name == "a.test"
        assert len(peer.asked) == (1 if has_soa else 3) and other.asked == []


async def test_nothing_at_the_end_of_an_alias() -> None:
    async with serving(zone(cname("a.test", "b.test"), a("c.test"))) as peer:
        with pytest.raises(NameNotFound) as caught:
            await soon(resolver(peer.address).resolve("a.test"))
        assert caught.value.rcode == 3 and len(peer.asked) == 1


# -- the configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ndots", "asked"),
    [
        ("x", 1, ["x.one.test", "x.two.test", "x"]),
        ("x.y", 1, ["x.y", "x.y.one.test", "x.y.two.test"]),
        ("x.y", 2, ["x.y.one.test", "x.y.two.test", "x.y"]),
        ("x", 0, ["x", "x.one.test", "x.two.test"]),
        ("x.", 1, ["x"]),
        ("x.y.", 5, ["x.y"]),
    ],
)
async def test_search(name: str, ndots: int, asked: list[str]) -> None:
    async with serving(zone(a("other.test"))) as peer:
        asker = resolver(peer.address, search=["one.test", "two.test"], ndots=ndots)
        with pytest.raises(NameNotFound):
            await soon(asker.resolve(name))
        assert [query.question.name for query in peer.asked] == asked


async def test_search_ends_where_something_is_found() -> None:
    async with serving(zone(a("x.two.test"))) as peer:
        asker = resolver(peer.address, search=["one.test", "two.test", "three.test"])
        told = await soon(asker.resolve("x"))
        assert told == ["192.0.2.1"] and told.name == "x.two.test" and len(peer.asked) == 2


async def test_search_tells_that_the_name_is_there() -> None:
    async with serving(zone(a("x.one.test"))) as peer:
        with pytest.raises(NameNotFound) as caught:
            await soon(resolver(peer.address, search=["one.test", "two.test"]).resolve("x", "MX"))
        assert caught.value.rcode == 0 and caught.value.name == "x.one.test"


async def test_search_domains_that_do_not_fit_are_left_out() -> None:
    long_name = ".".join(["x" * 60] * 4)
    async with serving(zone(a(long_name))) as peer:
        asker = resolver(peer.address, search=["much.too.long.test", "a..b", "y"], ndots=15)
        assert await soon(asker.resolve(long_name)) == ["192.0.2.1"]
        assert [query.question.name for query in peer.asked] == [f"{long_name}.y", long_name]


@pytest.mark.parametrize("rotate", [False, True])
async def test_rotate(rotate: bool) -> None:
    async with serving(good) as one, serving(good) as two:
        asker = resolver(one.address, two.address, rotate=rotate)
        for number in range(6):
            await soon(asker.resolve(f"n{number}.test"))
        assert (len(one.asked), len(two.asked)) == ((3, 3) if rotate else (6, 0))


async def test_no_servers() -> None:
    stub = StubResolver(ResolvConf, PATIENT, read_message)
    with pytest.raises(ResolveFailed, match="no name servers"):
        await soon(stub.query("a.test", RecordType.A, time.monotonic() + 20))


async def test_cancelling_closes_the_socket() -> None:
    async with serving(lambda query: None) as peer:
        asker = resolver(peer.address, limits=DnsLimits(timeout=300.0, try_timeout=300.0))
        asked = asyncio.create_task(asker.resolve("a.test"))
        async with asyncio.timeout(30):
            while not peer.asked:
                await asyncio.sleep(0.001)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        async with asyncio.timeout(30):
            while any(task.get_name().startswith("asyncmg-resolve") for task in asyncio.all_tasks()):
                await asyncio.sleep(0.001)
        # Its port is free again.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", peer.asked[0].client[1]))
