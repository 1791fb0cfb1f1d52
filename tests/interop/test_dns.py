"""DNS with dnsmasq on loopback: by either codec, by aiodns, by UDP and TCP, we are told what dig is told."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import asyncmg.core
from asyncmg import (
    MG_EV_CONNECT,
    MG_EV_READ,
    DnsLimits,
    Manager,
    MxData,
    NameNotFound,
    ResolveFailed,
    Resolver,
    SoaData,
    SrvData,
    TxtData,
)
from benchmarks.servers import installs

from .peers import missing, peer

LIMITS = DnsLimits(timeout=25.0, try_timeout=5.0)
LONG = [f"{letter * 250}" for letter in "abc"]
MANY = [f"192.0.2.{number}" for number in range(1, 151)]


def wire(name: str) -> bytes:
    return b"".join(bytes((len(label),)) + label.encode() for label in name.split(".")) + b"\0"


NS = wire("ns.test")
SOA = wire("ns.test") + wire("admin.test") + b"".join(number.to_bytes(4, "big") for number in (7, 3600, 600, 86400, 60))
ZONE = f"""\
port={{port}}
listen-address=127.0.0.1
bind-interfaces
no-resolv
no-hosts
no-poll
keep-in-foreground
user=root
pid-file={{folder}}/pid
local=/test/
local=/arpa/
local-ttl=120
edns-packet-max=1232
host-record=a.test,192.0.2.1,2001:db8::1
host-record=four.test,192.0.2.4
host-record=here.test,127.0.0.1
host-record=six.test,2001:db8::6
host-record=xn--bcher-kva.test,192.0.2.5
host-record=below.empty.test,192.0.2.6
address=/wild.test/192.0.2.7
cname=first.test,second.test
cname=second.test,third.test
cname=third.test,a.test
mx-host=test,mail2.test,20
mx-host=test,mail1.test,10
txt-record=text.test,"v=spf1 -all"
txt-record=multi.test,one,two=2,"with spaces"
txt-record=long.test,{",".join(LONG)}
srv-host=_sip._tcp.test,a.test,5060,1,10
srv-host=_sip._tcp.test,four.test,5061,2,0
srv-host=_none._tcp.test
ptr-record=9.2.0.192.in-addr.arpa,nine.test
dns-rr=zone.test,2,{NS.hex()}
dns-rr=zone.test,6,{SOA.hex()}
{"".join(f"host-record=many.test,{address}{chr(10)}" for address in MANY)}"""

QUESTIONS: list[tuple[str, str, list[Any]]] = [
    ("a.test", "A", ["192.0.2.1"]),
    ("A.Test", "AAAA", ["2001:db8::1"]),
    ("first.test", "A", ["192.0.2.1"]),
    ("first.test", "AAAA", ["2001:db8::1"]),
    ("test", "MX", [MxData(10, "mail1.test"), MxData(20, "mail2.test")]),
    ("text.test", "TXT", [TxtData([b"v=spf1 -all"])]),
    ("multi.test", "TXT", [TxtData([b"one", b"two=2", b"with spaces"])]),
    ("long.test", "TXT", [TxtData([text.encode() for text in LONG])]),
    ("_sip._tcp.test", "SRV", [SrvData(1, 10, 5060, "a.test"), SrvData(2, 0, 5061, "four.test")]),
    ("192.0.2.1", "PTR", ["a.test"]),
    ("192.0.2.9", "PTR", ["nine.test"]),
    ("2001:db8::6", "PTR", ["six.test"]),
    ("zone.test", "NS", ["ns.test"]),
    ("zone.test", "SOA", [SoaData("ns.test", "admin.test", 7, 3600, 600, 86400, 60)]),
    ("bücher.test", "A", ["192.0.2.5"]),
    ("anything.wild.test", "A", ["192.0.2.7"]),
    ("many.test", "A", MANY),
]


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a dnsmasq with the zone."""
    program = peer("dnsmasq", "/usr/sbin/dnsmasq")
    folder = tmp_path_factory.mktemp("dnsmasq")
    port = free_port()
    config = folder / "dnsmasq.conf"
    config.write_text(ZONE.format(port=port, folder=folder))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, f"--conf-file={config}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=installs.end_with_parent,
        )
    try:
        asyncio.run(until_it_answers(f"127.0.0.1:{port}", process, folder))
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def until_it_answers(address: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    resolver = Resolver([address], hosts="", backend="stub", limits=DnsLimits(timeout=1.0, try_timeout=0.5))
    async with asyncio.timeout(30):
        while True:
            try:
                await resolver.resolve("a.test")
                return
            except ResolveFailed:
                assert process.poll() is None, (folder / "log").read_text()
                await asyncio.sleep(0.05)


@pytest.fixture(params=["portable", "native", "aiodns"])
def asker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who asks: the stub resolver by either codec, or aiodns."""
    name: str = request.param
    if name == "aiodns":
        try:
            import aiodns  # noqa: F401
        except ImportError:
            missing("not installed: aiodns")
        return name
    if name == "native" and asyncmg.core.load() is None:
        if os.environ.get("ASYNCMG_REQUIRE_CORE") == "1":
            pytest.fail(f"no C core: {asyncmg.core.status().reason}")
        pytest.skip("no C core")
    monkeypatch.setenv("ASYNCMG_DNS_CODEC", name)
    return "stub"


@pytest.fixture(params=["udp", "tcp"])
def transport(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def resolver(server: str, asker: str, transport: str = "udp") -> Resolver:
    return Resolver([server], hosts="", backend=asker, use_tcp=transport == "tcp", limits=LIMITS)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "kind", "expected"), QUESTIONS, ids=[f"{q[0]}-{q[1]}" for q in QUESTIONS])
async def test_every_type(server: str, asker: str, transport: str, name: str, kind: str, expected: list[Any]) -> None:
    async with resolver(server, asker, transport) as ask:
        told = await ask.resolve(name, kind)
    if name == "many.test":
        assert sorted(told) == sorted(expected)  # dnsmasq lets them take turns
    else:
        assert list(told) == expected
    assert 0 <= told.ttl <= 120
    if name == "first.test":
        assert told.aliases == ("first.test", "second.test", "third.test") and told.name == "a.test"


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [
        ("nowhere.test", "A", 3),
        ("four.test", "AAAA", 0),
        ("six.test", "A", 0),
        ("a.test", "MX", 0),
        ("first.test", "TXT", 0),
        ("empty.test", "A", 0),
        ("192.0.2.200", "PTR", 3),
    ],
)
async def test_what_is_not_there(server: str, asker: str, name: str, kind: str, rcode: int) -> None:
    async with resolver(server, asker) as ask:
        with pytest.raises(NameNotFound) as caught:
            await ask.resolve(name, kind)
        assert caught.value.rcode == rcode


async def test_a_service_that_is_not_there(server: str, asker: str) -> None:
    """Target ".", "" with us: the service is decidedly not available (RFC 2782)."""
    async with resolver(server, asker) as ask:
        (told,) = await ask.resolve("_none._tcp.test", "SRV")
        assert isinstance(told, SrvData) and told.target == ""


async def test_a_server_that_refuses(server: str, asker: str) -> None:
    """Names outside of its zone: it has nobody to ask."""
    async with resolver(server, asker) as ask:
        with pytest.raises(ResolveFailed) as caught:
            await ask.resolve("example.org")
        assert caught.value.rcode == 5


@pytest.mark.parametrize(("name", "kind"), [question[:2] for question in QUESTIONS])
async def test_dig_is_told_the_same(server: str, name: str, kind: str) -> None:
    dig = peer("dig")
    host, port = server.split(":")
    question = ["-x", name] if kind == "PTR" else [name.encode("idna").decode(), kind]
    options = ["+short", "+norec", "+tries=3", "+time=10"]
    process = await asyncio.create_subprocess_exec(
        dig, f"@{host}", "-p", port, *question, *options, stdout=asyncio.subprocess.PIPE
    )
    output = (await asyncio.wait_for(process.communicate(), 50))[0].decode()
    async with resolver(server, "stub") as ask:
        told = await ask.resolve(name, kind)
    lines = [" ".join(word.removesuffix(".") for word in line.split(" ")) for line in output.splitlines()]
    if told.aliases:
        assert lines[: len(told.aliases)] == [*told.aliases[1:], told.name]
        lines = lines[len(told.aliases) :]
    assert sorted(lines) == sorted(map(str, told))


async def test_search_domains(server: str, asker: str) -> None:
    async with Resolver(
        [server],
        search=["nowhere.test", "test"],
        hosts="",
        backend=asker,
        limits=LIMITS,  # type: ignore[arg-type]
    ) as ask:
        assert await ask.resolve("four") == ["192.0.2.4"]


async def test_a_connection_to_a_name(server: str, backend: str) -> None:
    done = asyncio.Event()

    def echo(conn: Any, ev: int, data: Any) -> None:
        if ev == MG_EV_READ:
            conn.send(conn.read())

    def client(conn: Any, ev: int, data: Any) -> None:
        if ev == MG_EV_CONNECT:
            conn.send(b"hello")
        elif ev == MG_EV_READ:
            done.set()

    async with resolver(server, "stub") as ask, Manager(client, resolver=ask) as manager:
        listener = manager.listen("tcp://127.0.0.1:0", echo)
        manager.connect(f"tcp://here.test:{listener.port}")
        await asyncio.wait_for(done.wait(), 30)
