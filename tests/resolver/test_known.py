"""Names that are answered without asking anybody (RFC 6761, RFC 7686), and addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import asyncmg
from asyncmg import InvalidUrl, LocalProtocolError, NameNotFound, Resolver
from asyncmg.codecs.dns import RecordType
from asyncmg.resolver.config import Hosts
from asyncmg.resolver.known import as_ascii, is_below, is_mdns_name, known_answer, literal_address

from .dns_peer import a, serving, soon, zone

HOSTS = "192.0.2.7 printer.test printer\n2001:db8::7 six.test\n192.0.2.9 xn--bcher-kva.test\n192.0.2.8 localhost\n"


def known(name: str, kind: str = "A", hosts: str = HOSTS) -> list[Any] | None:
    return known_answer(name, RecordType[kind], Hosts(hosts))


@pytest.mark.parametrize(
    ("name", "kind", "answer"),
    [
        ("192.0.2.1", "A", ["192.0.2.1"]),
        ("192.0.2.1.", "A", ["192.0.2.1"]),
        ("2001:db8::1", "AAAA", ["2001:db8::1"]),
        ("[2001:db8::1]", "AAAA", ["2001:db8::1"]),
        ("fe80::1%eth0", "AAAA", ["fe80::1%eth0"]),
        ("localhost", "AAAA", ["::1"]),
        ("LOCALHOST.", "AAAA", ["::1"]),
        ("a.b.localhost", "A", ["127.0.0.1"]),
        ("localhost", "A", ["192.0.2.8"]),  # the hosts file has the last word
        ("Printer.test", "A", ["192.0.2.7"]),
        ("six.test", "AAAA", ["2001:db8::7"]),
        ("7.2.0.192.in-addr.arpa", "PTR", ["printer.test", "printer"]),
        ("1.0.0.127.in-addr.arpa", "PTR", ["localhost"]),
        ("1." + "0." * 31 + "ip6.arpa.", "PTR", ["localhost"]),
    ],
)
def test_what_is_known(name: str, kind: str, answer: list[str]) -> None:
    assert known(name, kind) == answer


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [
        ("192.0.2.1", "AAAA", 0),
        ("2001:db8::1", "A", 0),
        ("192.0.2.1", "MX", 0),
        ("localhost", "MX", 0),
        ("localhost", "PTR", 0),
        ("x.invalid", "PTR", 3),
        ("printer.test", "AAAA", 0),
        ("nowhere.invalid", "A", 3),
        ("INVALID.", "MX", 3),
        ("abc.onion", "A", 3),
    ],
)
def test_where_it_is_known_that_there_is_nothing(name: str, kind: str, rcode: int) -> None:
    with pytest.raises(NameNotFound) as caught:
        known(name, kind)
    assert caught.value.rcode == rcode and caught.value.name == name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.test", "A"),
        ("printer.test", "MX"),
        ("1.2.0.192.in-addr.arpa", "PTR"),
        ("a.test", "PTR"),
        ("notlocalhost", "A"),
        ("localhost.test", "A"),
        ("validinvalid", "A"),
        ("", "NS"),
    ],
)
def test_what_has_to_be_asked(name: str, kind: str) -> None:
    assert known(name, kind) is None


@pytest.mark.parametrize("host", ["a.test", "", "[]", "[192.0.2.1", "192.0.2", "1.2.3.4.5", "::1::", "[a.test]", "."])
def test_what_is_no_address(host: str) -> None:
    assert literal_address(host) == ""


def test_below() -> None:
    assert is_below("a.LOCAL.", "local") and is_below("local", "local")
    assert not is_below("alocal", "local")


@pytest.mark.parametrize(
    ("name", "is_it"),
    [
        ("printer.local", True),
        ("Printer.LOCAL.", True),
        ("local", True),
        ("_http._tcp.local", True),
        ("My Printer._ipp._tcp.local", True),
        ("_services._dns-sd._udp.local", True),
        ("web.default.svc.cluster.local", False),
        ("pc.company.local", False),
        ("a.test", False),
        ("local.test", False),
    ],
)
def test_which_names_are_asked_by_multicast(name: str, is_it: bool) -> None:
    assert is_mdns_name(name) is is_it


def test_internationalized_names() -> None:
    assert as_ascii("Bücher.test") == "xn--bcher-kva.test"
    assert as_ascii("a.test.") == "a.test."
    for name in ("\ud800.test", "ü" * 64 + ".test", "ü..test"):
        with pytest.raises(InvalidUrl):
            as_ascii(name)


async def test_nothing_of_this_is_sent(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text(HOSTS)
    async with serving(zone(a("asked.test"))) as peer:
        resolver = Resolver([peer.address], hosts=tmp_path / "hosts", backend="stub")
        assert await soon(resolver.resolve("192.0.2.1")) == ["192.0.2.1"]
        assert await soon(resolver.resolve("192.0.2.7", "PTR")) == ["printer.test", "printer"]
        assert await soon(resolver.resolve("[2001:db8::7]", "PTR")) == ["six.test"]
        assert await soon(resolver.resolve("x.localhost", "A")) == ["127.0.0.1"]
        assert await soon(resolver.resolve("bücher.test")) == ["192.0.2.9"]
        assert await soon(resolver.resolve("１９２．0.2.1")) == ["192.0.2.1"]  # noqa: RUF001
        assert await soon(resolver.resolve("ｌocalhost", "AAAA")) == ["::1"]  # noqa: RUF001
        for name in ("nowhere.invalid", "nowhere。invalid", "six.test"):
            with pytest.raises(NameNotFound):
                await soon(resolver.resolve(name))
        for name in ("a..test", "x" * 64, ".".join(["x" * 50] * 6)):
            with pytest.raises(LocalProtocolError):
                await soon(resolver.resolve(name))
        for name in ("\ud800.test", "asked.test\0.test", "192.0.2.1\0"):
            with pytest.raises(InvalidUrl):
                await soon(resolver.resolve(name))
        with pytest.raises(ValueError, match="unknown record type"):
            await soon(resolver.resolve("a.test", "NOPE"))
        assert peer.asked == [] and await soon(resolver.resolve("asked.test")) == ["192.0.2.1"]
        assert peer.words == ["udp A asked.test"]


async def test_the_hosts_file_may_be_none(tmp_path: Path) -> None:
    async with serving(zone(a("printer.test"))) as peer:
        resolver = Resolver([peer.address], hosts="", backend="stub")
        assert await soon(resolver.resolve("printer.test")) == ["192.0.2.1"]
        resolver = Resolver([peer.address], hosts=tmp_path / "no-such-file", backend="stub")
        assert await soon(resolver.resolve("printer.test")) == ["192.0.2.1"]


async def test_without_a_resolver_of_ones_own() -> None:
    assert await soon(asyncmg.resolve("127.0.0.1")) == ["127.0.0.1"]
    assert await soon(asyncmg.resolve("x.localhost", "AAAA")) == ["::1"]
    with pytest.raises(NameNotFound):
        await soon(asyncmg.resolve("nowhere.invalid", "MX"))
