"""Socket addresses: what the C engine tells against what Python's own sockets say."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncmg.transports.sockaddr import decode_sockaddr, encode_sockaddr
from tests.transports.conftest import eventually

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the engine is for POSIX")

NATIVE_FAMILY = struct.Struct("=H")


@given(ip=st.ip_addresses(v=4), port=st.integers(0, 65_535))
def test_ipv4_there_and_back(ip: Any, port: int) -> None:
    raw = encode_sockaddr(socket.AF_INET, (str(ip), port))
    assert len(raw) == 16
    assert decode_sockaddr(raw) == (str(ip), port)


@given(
    ip=st.ip_addresses(v=6),
    port=st.integers(0, 65_535),
    flow=st.integers(0, 0xFFFFF),
    scope=st.integers(0, 0xFFFFFFFF),
)
def test_ipv6_there_and_back(ip: Any, port: int, flow: int, scope: int) -> None:
    raw = encode_sockaddr(socket.AF_INET6, (str(ip), port, flow, scope))
    assert len(raw) == 28
    host, *rest = decode_sockaddr(raw)
    assert socket.inet_pton(socket.AF_INET6, host) == ip.packed
    assert rest == [port, flow, scope]


def test_ipv6_without_flow_and_scope() -> None:
    for address in [("::1", 80), ("::1", 80, 0), ("::1", 80, 0, 0)]:
        assert decode_sockaddr(encode_sockaddr(socket.AF_INET6, address)) == ("::1", 80, 0, 0)
    assert decode_sockaddr(encode_sockaddr(socket.AF_INET6, ("::1", 80, 5))) == ("::1", 80, 5, 0)


def test_a_scope_by_name() -> None:
    try:
        number = socket.if_nametoindex("lo")
    except OSError:
        pytest.skip("no interface lo")
    assert decode_sockaddr(encode_sockaddr(socket.AF_INET6, ("fe80::1%lo", 80))) == ("fe80::1", 80, 0, number)


@pytest.mark.parametrize(
    ("family", "host"),
    [
        (socket.AF_INET, "localhost"),
        (socket.AF_INET, "::1"),
        (socket.AF_INET, ""),
        (socket.AF_INET, "1.2.3"),
        (socket.AF_INET6, "127.0.0.1"),
        (socket.AF_INET6, "example.org"),
        (socket.AF_INET6, ":::"),
    ],
)
def test_what_is_no_numeric_address(family: int, host: str) -> None:
    with pytest.raises(OSError):
        encode_sockaddr(family, (host, 80))


class Kernel:
    """What the kernel writes into a struct sockaddr, asked with ctypes: the truth to compare with."""

    def __init__(self) -> None:
        ctypes = pytest.importorskip("ctypes")
        self.ctypes = ctypes
        self.libc = ctypes.CDLL(None, use_errno=True)

    def ask(self, function: str, sock: socket.socket) -> bytes:
        buffer = self.ctypes.create_string_buffer(128)
        length = self.ctypes.c_uint(128)
        status = getattr(self.libc, function)(sock.fileno(), buffer, self.ctypes.byref(length))
        assert status == 0
        return buffer.raw[: length.value]


def assert_agrees(*sockets: socket.socket) -> None:
    kernel = Kernel()
    for sock in sockets:
        assert decode_sockaddr(kernel.ask("getsockname", sock)) == sock.getsockname()
        assert decode_sockaddr(kernel.ask("getpeername", sock)) == sock.getpeername()


def connected(family: int, address: Any) -> tuple[socket.socket, socket.socket]:
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind(address)
        listener.listen()
        client = socket.socket(family, socket.SOCK_STREAM)
        client.connect(listener.getsockname())
        return client, listener.accept()[0]


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["4", "6"])
def test_what_the_kernel_says_of_tcp(family: int, host: str) -> None:
    try:
        client, accepted = connected(family, (host, 0))
    except OSError:
        pytest.skip("no IPv6 here")
    with client, accepted:
        assert_agrees(client, accepted)
        if family == socket.AF_INET:
            name = client.getsockname()
            assert encode_sockaddr(family, name) == Kernel().ask("getsockname", client)


def test_what_the_kernel_says_of_a_scoped_address() -> None:
    own = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()] if linux() else []
    local = [(line[0], int(line[1], 16)) for line in own if line[0].startswith("fe80")]
    if not local:
        pytest.skip("no link-local address here")
    host = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(local[0][0]))
    try:
        client, accepted = connected(socket.AF_INET6, (host, 0, 0, local[0][1]))
    except OSError:
        pytest.skip("the link-local address cannot be used")
    with client, accepted:
        assert_agrees(client, accepted)


def linux() -> bool:
    return sys.platform == "linux"


def test_what_the_kernel_says_of_unix_sockets() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        for path in [f"{directory}/s", f"{directory}/ümläut", f"{directory}/" + "x" * (106 - len(directory))]:
            client, accepted = connected(socket.AF_UNIX, path)
            with client, accepted:
                assert client.getpeername() == path
                assert_agrees(client, accepted)
    one, two = socket.socketpair()
    with one, two:
        assert_agrees(one, two)


@pytest.mark.skipif(not linux(), reason="abstract sockets are Linux's")
@pytest.mark.parametrize("name", [b"\0asyncmg-%d", b"\0a\0b-%d\0\0", b"\0\xff\xfe%d", b"\0" + b"x" * 97 + b"%010d"])
def test_what_the_kernel_says_of_abstract_sockets(name: bytes) -> None:
    client, accepted = connected(socket.AF_UNIX, name % os.getpid())
    with client, accepted:
        assert type(client.getpeername()) is bytes
        assert_agrees(client, accepted)


@pytest.mark.skipif(not linux(), reason="abstract sockets are Linux's")
def test_an_abstract_name_of_nothing_but_nul() -> None:
    try:
        client, accepted = connected(socket.AF_UNIX, b"\0\0\0")
    except OSError:
        pytest.skip("somebody else has this name")
    with client, accepted:
        assert_agrees(client, accepted)


@given(raw=st.one_of(st.binary(max_size=1), st.binary(max_size=120).map(lambda rest: NATIVE_FAMILY.pack(77) + rest)))
def test_other_families_are_no_crash(raw: bytes) -> None:
    assert type(decode_sockaddr(raw)) in (str, bytes)


@pytest.mark.parametrize(("family", "size"), [(socket.AF_INET, 8), (socket.AF_INET6, 28)])
def test_what_is_cut_off(family: int, size: int) -> None:
    whole = encode_sockaddr(family, ("1.2.3.4", 80) if family == socket.AF_INET else ("::1", 80))
    for length in range(size):
        try:
            decode_sockaddr(whole[:length])
        except (ValueError, struct.error):
            assert length >= 2


async def test_a_scope_reaches_the_protocol(native: Any) -> None:
    # The engine's datagrams carry the sender's address as the kernel tells it.
    received: list[Any] = []

    class Protocol(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            received.append(addr)

    try:
        ours, peer = (socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(2))
        ours.bind(("::1", 0))
        peer.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    with peer:
        address = ours.getsockname()
        protocol = Protocol()
        made: list[Any] = []
        protocol.connection_made = made.append  # type: ignore[method-assign]
        await native.open_datagram(ours, protocol)
        peer.sendto(b"x", address)
        await eventually(lambda: received)
        assert received == [peer.getsockname()]
        made[0].close()
        await asyncio.sleep(0.01)
