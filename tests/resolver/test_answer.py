"""What one response says: aliases, times to live, the order of services, names of addresses."""

from __future__ import annotations

import copy
import pickle
import random
from collections import Counter
from typing import Any

import pytest

from asyncmg import DnsAnswer, MxData, NameNotFound, RemoteProtocolError, SrvData
from asyncmg.codecs import dns
from asyncmg.codecs.dns import DnsMessage, DnsRecord, RecordType
from asyncmg.resolver.answer import (
    Found,
    address_of_reverse_name,
    in_order,
    not_found,
    record_type,
    reverse_name,
)

from .dns_peer import a, cname, soa


def found(
    *answers: DnsRecord, name: str = "a.test", kind: int = RecordType.A, rcode: int = 0, cnames: int = 8, **kw: Any
) -> Found:
    return Found(DnsMessage(1, dns.RESPONSE | rcode, answers=answers, **kw), name, kind, cnames)


def test_records() -> None:
    told = found(a("A.Test", "192.0.2.1", 30), a("a.test", "192.0.2.2", 20), a("b.test"))
    assert [record.data for record in told.records] == ["192.0.2.1", "192.0.2.2"]
    assert told.ttl == 20 and told.is_final and told.aliases == [] and told.name == "a.test"


def test_records_of_other_names_types_and_classes_do_not_count() -> None:
    other = (a("b.test"), DnsRecord("a.test", RecordType.AAAA, "::1", 9), DnsRecord("a.test", 1, b"1234", 9, 3))
    told = found(*other)
    assert told.records == [] and told.is_final and told.negative_ttl == -1


def test_aliases_are_followed_whatever_their_order() -> None:
    chain = [cname("a.test", "b.test", 50), cname("b.test", "C.test", 40), a("c.test", ttl=45)]
    for answers in (chain, chain[::-1]):
        told = found(*answers)
        assert [record.data for record in told.records] == ["192.0.2.1"]
        assert told.aliases == ["a.test", "b.test"] and told.name == "C.test" and told.ttl == 40 and told.is_final


def test_an_alias_is_what_was_looked_for() -> None:
    told = found(cname("a.test", "b.test"), a("b.test"), kind=RecordType.CNAME)
    assert [record.data for record in told.records] == ["b.test"] and told.aliases == []


def test_an_alias_without_its_end_is_to_be_asked_again() -> None:
    told = found(cname("a.test", "b.test", 50))
    assert not told.is_final and told.name == "b.test" and told.ttl == 50
    assert found(cname("a.test", "b.test"), rcode=dns.NAME_ERROR).is_final
    assert found(cname("a.test", "b.test"), authorities=[soa()]).is_final


@pytest.mark.parametrize(
    "answers",
    [
        [cname("a.test", "a.test")],
        [cname("a.test", "b.test"), cname("b.test", "a.test")],
        [cname("a.test" if n == 0 else f"{n}.test", f"{n + 1}.test") for n in range(9)],
    ],
)
def test_loops_and_long_ways(answers: list[DnsRecord]) -> None:
    with pytest.raises(RemoteProtocolError, match="more than 8 aliases"):
        found(*answers)


def test_as_many_aliases_as_are_allowed() -> None:
    chain = [cname("a.test" if n == 0 else f"{n}.test", f"{n + 1}.test") for n in range(8)]
    assert len(found(*chain, a("8.test")).records) == 1


@pytest.mark.parametrize(("ttl", "minimum", "kept"), [(60, 30, 30), (20, 30, 20), (0, 30, 0), (60, 0, 0)])
def test_for_how_long_there_is_nothing(ttl: int, minimum: int, kept: float) -> None:
    told = found(rcode=dns.NAME_ERROR, authorities=[soa(ttl=ttl, minimum=minimum)])
    assert told.negative_ttl == kept and told.rcode == 3 and told.records == []


def test_nothing_at_the_end_of_an_alias_is_kept_no_longer_than_the_alias() -> None:
    told = found(cname("a.test", "b.test", 5), rcode=dns.NAME_ERROR, authorities=[soa()])
    assert told.negative_ttl == 5


def test_mail_exchanges_in_order() -> None:
    exchanges = [MxData(n, f"m{n}") for n in (20, 5, 10)]
    assert in_order(exchanges, random.random) == [MxData(n, f"m{n}") for n in (5, 10, 20)]
    assert in_order([], random.random) == [] and in_order(["b", "a"], random.random) == ["b", "a"]


def test_services_in_order_of_priority_and_weight() -> None:
    services = [SrvData(2, 0, 1, "last"), SrvData(1, 75, 1, "often"), SrvData(1, 25, 1, "seldom")]
    source = random.Random(1)
    first: Counter[str] = Counter()
    for _ in range(4000):
        targets = [item.target for item in in_order(services, source.random) if isinstance(item, SrvData)]
        assert targets[2] == "last" and sorted(targets[:2]) == ["often", "seldom"]
        first[targets[0]] += 1
    assert 2800 < first["often"] < 3200
    for point in (0.0, 0.5, 1.0):
        assert sorted(in_order(services, lambda point=point: point)) == sorted(services)


def test_each_place_is_drawn_anew() -> None:
    services = [SrvData(1, weight, 1, str(weight)) for weight in (1, 2, 3)]
    points = iter([0.9, 0.1, 0.5])
    assert [str(item.weight) for item in in_order(services, lambda: next(points)) if isinstance(item, SrvData)] == [
        "3",
        "1",
        "2",
    ]


def test_services_without_weights() -> None:
    services = [SrvData(1, 0, port, "t") for port in (1, 2, 3)]
    for point in (0.0, 0.3, 1.0):
        assert sorted(in_order(services, lambda point=point: point)) == services


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.1", "1.2.0.192.in-addr.arpa"),
        ("2001:db8::1", "1." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa"),
        ("::", "0." * 32 + "ip6.arpa"),
    ],
)
def test_names_of_addresses(address: str, name: str) -> None:
    assert reverse_name(address) == name
    for form in (name, name.upper(), f"{name}."):
        assert address_of_reverse_name(form) == address


def test_the_zone_does_not_count() -> None:
    assert reverse_name("fe80::1%eth0") == reverse_name("fe80::1")


@pytest.mark.parametrize(
    "name",
    [
        "a.test",
        "in-addr.arpa",
        ".in-addr.arpa",
        "2.0.192.in-addr.arpa",
        "1.1.2.0.192.in-addr.arpa",
        "300.2.0.192.in-addr.arpa",
        "x.2.0.192.in-addr.arpa",
        "ip6.arpa",
        "1.0.ip6.arpa",
        "g." + "0." * 31 + "ip6.arpa",
        "00." * 16 + "ip6.arpa",
    ],
)
def test_names_of_no_address(name: str) -> None:
    assert address_of_reverse_name(name) is None


@pytest.mark.parametrize("kind", ["aaaa", "AAAA", 28, RecordType.AAAA])
def test_types(kind: str | int) -> None:
    assert record_type(kind) is RecordType.AAAA


@pytest.mark.parametrize("kind", ["", "B", "ANY", "OPT", 255, 41, 0, 9999, "28", None])
def test_what_is_no_type(kind: Any) -> None:
    with pytest.raises(ValueError if kind is not None else (ValueError, TypeError)):
        record_type(kind)


def test_an_answer_is_a_list_with_more() -> None:
    answer = DnsAnswer(["192.0.2.1"], "b.test", 1, 30.0, ["a.test"])
    for other in (answer.copy(), copy.copy(answer), copy.deepcopy(answer), pickle.loads(pickle.dumps(answer))):
        assert other == answer == ["192.0.2.1"] and type(other) is DnsAnswer
        assert (other.name, other.type, other.ttl, other.aliases) == ("b.test", 1, 30.0, ("a.test",))


def test_what_is_not_found() -> None:
    error = not_found("a.test", 15, 0)
    assert isinstance(error, NameNotFound) and isinstance(error, OSError) and str(error) == "a.test has no MX records"
