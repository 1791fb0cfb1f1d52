"""resolv.conf(5) and hosts(5): every shape they come in, and what happens when they change."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncmg.resolver.config import (
    Hosts,
    ResolvConf,
    WatchedFile,
    fixed,
    parse_resolv_conf,
    server_address,
    system_hosts_path,
    system_servers_path,
)

LOOPBACK = socket.if_indextoname(1)


def v4(address: str, port: int = 53) -> tuple[int, tuple[str, int]]:
    return socket.AF_INET, (address, port)


def v6(address: str, port: int = 53, scope: int = 0) -> tuple[int, tuple[str, int, int, int]]:
    return socket.AF_INET6, (address, port, 0, scope)


# -- addresses of servers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", v4("192.0.2.1")),
        ("192.0.2.1:5353", v4("192.0.2.1", 5353)),
        ("2001:db8::1", v6("2001:db8::1")),
        ("[2001:db8::1]", v6("2001:db8::1")),
        ("[2001:db8::1]:65535", v6("2001:db8::1", 65535)),
        ("fe80::1%7", v6("fe80::1", scope=7)),
        (f"[fe80::1%{LOOPBACK}]:54", v6("fe80::1", 54, 1)),
    ],
)
def test_addresses_of_servers(text: str, address: object) -> None:
    assert server_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name.test",
        "192.0.2",
        "192.0.2.1:",
        "192.0.2.1:0",
        "192.0.2.1:65536",
        "192.0.2.1:5_3",
        "192.0.2.1:x",
        "192.0.2.1: 53",
        "[2001:db8::1",
        "[2001:db8::1]53",
        "[2001:db8::1]:",
        "2001:db8::g",
        "fe80::1%no-such-interface",
        "fe80::1%a\0b",
        f"fe80::1%{1 << 32}",
        "fe80::1%²",
        "[192.0.2.1",
    ],
)
def test_what_is_no_address_of_a_server(text: str) -> None:
    if text == "[2001:db8::1]:":
        assert server_address(text) == v6("2001:db8::1")
        return
    with pytest.raises(ValueError):
        server_address(text)


def test_another_default_port() -> None:
    assert server_address("192.0.2.1", 5353) == v4("192.0.2.1", 5353)


# -- resolv.conf ------------------------------------------------------------------------------------------------------


def test_all_of_resolv_conf() -> None:
    conf = parse_resolv_conf(
        "# comment\n; another\n\n"
        "nameserver 192.0.2.1\n"
        "nameserver\t2001:db8::1   # behind\n"
        "search one.test two.test.\n"
        "options ndots:2 timeout:3 attempts:4 rotate use-vc edns0 no-such-option:x\n"
        "sortlist 130.155.160.0/255.255.240.0\n"
    )
    assert conf == ResolvConf(
        (v4("192.0.2.1"), v6("2001:db8::1")),
        ("one.test", "two.test"),
        ndots=2,
        timeout=3.0,
        attempts=4,
        rotate=True,
        use_tcp=True,
    )


def test_an_empty_file_means_the_server_of_this_machine() -> None:
    for text in ("", "\n\n", "nameserver\n", "nameserver nonsense\n", "# nameserver 192.0.2.1\n", "\0\0\0"):
        assert parse_resolv_conf(text) == ResolvConf((v4("127.0.0.1"),))


def test_the_first_three_servers_count() -> None:
    conf = parse_resolv_conf("".join(f"nameserver 192.0.2.{n}\n" for n in range(1, 9)))
    assert conf.servers == (v4("192.0.2.1"), v4("192.0.2.2"), v4("192.0.2.3"))


def test_a_server_that_cannot_be_used_is_passed_over() -> None:
    conf = parse_resolv_conf("nameserver fe80::1%no-such-if\nnameserver nonsense\nnameserver 192.0.2.9\n")
    assert conf.servers == (v4("192.0.2.9"),)


@pytest.mark.parametrize(
    ("text", "search"),
    [
        ("search a.test b.test", ("a.test", "b.test")),
        ("search a.test\nsearch b.test", ("b.test",)),
        ("domain a.test", ("a.test",)),
        ("domain a.test b.test", ("a.test",)),
        ("search a.test\ndomain b.test", ("b.test",)),
        ("domain b.test\nsearch a.test c.test", ("a.test", "c.test")),
        ("search .", ()),
        ("search ... a.test", ("a.test",)),
        ("search", ()),
        ("search a b c d e f g h", ("a", "b", "c", "d", "e", "f")),
        ("  search a.test", ("a.test",)),
    ],
)
def test_search_domains(text: str, search: tuple[str, ...]) -> None:
    assert parse_resolv_conf(text).search == search


@pytest.mark.parametrize(
    ("options", "ndots", "timeout", "attempts"),
    [
        ("ndots:0 timeout:0 attempts:0", 0, 0, 0),
        ("ndots:99 timeout:99 attempts:99", 15, 30, 5),  # as in glibc
        ("ndots timeout attempts", 1, 0, 0),
        ("ndots:x timeout:-1 attempts:²", 1, 0, 0),
        ("ndots:999999999999", 1, 0, 0),
        ("ndots:1 ndots:3", 3, 0, 0),
    ],
)
def test_options(options: str, ndots: int, timeout: float, attempts: int) -> None:
    conf = parse_resolv_conf(f"options {options}\n")
    assert (conf.ndots, conf.timeout, conf.attempts) == (ndots, timeout, attempts)


def test_options_of_several_lines_add_up() -> None:
    conf = parse_resolv_conf("options rotate\noptions usevc\n")
    assert conf.rotate and conf.use_tcp


@given(st.text() | st.text("nameserver search options:.%[]#;0123456789\n ndots rotate", max_size=200))
def test_no_text_is_too_much(text: str) -> None:
    conf = parse_resolv_conf(text)
    assert 1 <= len(conf.servers) <= 3 and 0 <= conf.ndots <= 15
    Hosts(text)


def test_fixed() -> None:
    conf = fixed(["192.0.2.1", "[::1]:54"], ["a.test"], ndots=3, rotate=True, use_tcp=True)()
    assert conf == ResolvConf((v4("192.0.2.1"), v6("::1", 54)), ("a.test",), 3, rotate=True, use_tcp=True)
    with pytest.raises(ValueError, match="no name servers"):
        fixed([], [], ndots=1, rotate=False, use_tcp=False)
    with pytest.raises(ValueError):
        fixed(["name.test"], [], ndots=1, rotate=False, use_tcp=False)


# -- hosts ------------------------------------------------------------------------------------------------------------

HOSTS = """\
127.0.0.1\tlocalhost
# 192.0.2.1 commented
192.0.2.2 Printer.test printer   # behind
192.0.2.3\tprinter
2001:DB8::2 printer.test
fe80::1%eth0 linked
not-an-address name
192.0.2.4
192.0.2.300 wrong
 192.0.2.5  indented
192.0.2.2 printer.test
"""


def test_hosts() -> None:
    hosts = Hosts(HOSTS)
    assert hosts.addresses("localhost", 4) == ["127.0.0.1"]
    assert hosts.addresses("PRINTER.test.", 4) == ["192.0.2.2"]
    assert hosts.addresses("printer.test", 6) == ["2001:db8::2"]
    assert hosts.addresses("printer", 4) == ["192.0.2.2", "192.0.2.3"]
    assert hosts.addresses("printer", 6) == [], "it is there, with the other version only"
    assert hosts.addresses("linked", 6) == ["fe80::1%eth0"]
    assert hosts.addresses("indented", 4) == ["192.0.2.5"]
    for name in ("commented", "name", "wrong", "behind", "", "#"):
        assert hosts.addresses(name, 4) is None
    assert hosts.names("192.0.2.2") == ["Printer.test", "printer", "printer.test"]
    assert hosts.names("2001:db8::2") == ["printer.test"]
    assert hosts.names("192.0.2.4") is None
    assert Hosts().addresses("localhost", 4) is None


# -- files that change ------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def replace(path: Path, text: str) -> None:
    """Replace a file in one step, with another inode, as editors and DHCP clients do."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


def test_a_file_that_changes(tmp_path: Path) -> None:
    path, clock = tmp_path / "file", Clock()
    path.write_text("one")
    parsed: list[str] = []

    def parse(text: str) -> str:
        parsed.append(text)
        return text

    watched = WatchedFile(path, parse, clock)
    assert watched.get() == "one"
    replace(path, "two")
    clock.now += 4.9
    assert watched.get() == "one", "it is not looked at with each look-up"
    clock.now += 0.2
    assert watched.get() == "two"
    clock.now += 100
    assert watched.get() == "two"
    assert parsed == ["one", "two"], "it is not read again without need"
    path.unlink()
    clock.now += 6
    assert watched.get() == ""
    path.write_text("three")
    assert watched.get() == ""
    clock.now += 6
    assert watched.get() == "three"


def test_a_file_that_cannot_be_read_is_an_empty_one(tmp_path: Path) -> None:
    assert WatchedFile(tmp_path / "none", str, Clock()).get() == ""
    assert WatchedFile(tmp_path, str, Clock()).get() == ""
    (tmp_path / "binary").write_bytes(b"\xff\xfe 1\n127.0.0.1 here\n")
    assert WatchedFile(tmp_path / "binary", Hosts, Clock()).get().addresses("here", 4) == ["127.0.0.1"]


def test_only_the_first_megabyte_is_read(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"x" * (3 << 20))
    assert len(WatchedFile(tmp_path / "long", str, Clock()).get()) == 1 << 20


def test_where_the_files_are(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.name == "posix":
        assert system_hosts_path() == "/etc/hosts"
        monkeypatch.setattr("os.path.exists", lambda path: path == "/etc/resolv.conf")
        assert system_servers_path() == "/etc/resolv.conf"
        monkeypatch.setattr("os.path.exists", lambda path: False)
        assert system_servers_path() is None
