"""asyncio's contract of datagram transports and protocols: kept by asyncio's own, and by the native backend's."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.transports.conftest import eventually, make_native, open_descriptors

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the engine is for POSIX")


class Datagrams(asyncio.DatagramProtocol):
    """Writes down what it is told; ``on[name]`` is called then."""

    def __init__(self, **on: Callable[[Datagrams], Any]) -> None:
        self.calls: list[str] = []
        self.received: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []
        self.exc: BaseException | None = None
        self.on = on
        self.transport: Any = None

    def told(self, name: str) -> None:
        self.calls.append(name)
        if name in self.on:
            self.on[name](self)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.told("made")

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append((data, addr))
        self.told("datagram")

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)
        self.told("error")

    def connection_lost(self, exc: Exception | None) -> None:
        self.exc = exc
        self.told("lost")


class Sockets:
    def __init__(self) -> None:
        self._open: list[socket.socket] = []

    def bound(self, family: int = socket.AF_INET) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        self._open.append(sock)
        try:
            sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        sock.settimeout(5)
        return sock

    def ours(self, *, connected_to: Any = None, family: int = socket.AF_INET) -> socket.socket:
        sock = self.bound(family)
        sock.setblocking(False)
        if connected_to is not None:
            sock.connect(connected_to)
        return sock

    def end(self) -> None:
        for sock in self._open:
            sock.close()


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    made = Sockets()
    yield made
    made.end()


async def opened(backend: Any, sock: socket.socket, protocol: Datagrams | None = None) -> Datagrams:
    protocol = protocol or Datagrams()
    await backend.open_datagram(sock, protocol)
    await eventually(lambda: protocol.calls)
    return protocol


async def closed(protocol: Datagrams) -> None:
    protocol.transport.close()
    assert protocol.transport.is_closing()
    await eventually(lambda: "lost" in protocol.calls)
    assert protocol.calls.count("lost") == protocol.calls.count("made") == 1
    assert protocol.exc is None


FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])


@FAMILIES
async def test_a_server(backend: Any, sockets: Sockets, family: int) -> None:
    sock = sockets.ours(family=family)
    address = sock.getsockname()
    protocol = await opened(backend, sock)
    peers = [sockets.bound(family) for _ in range(3)]
    for i, peer in enumerate(peers):
        peer.sendto(b"%d" % i, address)
    await eventually(lambda: len(protocol.received) == 3)
    assert sorted(protocol.received) == [(b"%d" % i, peer.getsockname()) for i, peer in enumerate(peers)]
    for data, addr in protocol.received:
        protocol.transport.sendto(b"re:" + data, addr)
    await asyncio.sleep(0.01)
    for i, peer in enumerate(peers):
        assert peer.recvfrom(100) == (b"re:%d" % i, address)
    await closed(protocol)


@FAMILIES
async def test_a_client(backend: Any, sockets: Sockets, family: int) -> None:
    peer, stranger = sockets.bound(family), sockets.bound(family)
    sock = sockets.ours(connected_to=peer.getsockname(), family=family)
    address = sock.getsockname()
    protocol = await opened(backend, sock)
    protocol.transport.sendto(b"question")
    protocol.transport.sendto(bytearray(b"more"))
    protocol.transport.sendto(memoryview(b"even more"), None)
    await asyncio.sleep(0.01)
    assert [peer.recvfrom(100) for _ in range(3)] == [
        (b"question", address),
        (b"more", address),
        (b"even more", address),
    ]
    stranger.sendto(b"not for you", address)
    peer.sendto(b"answer", address)
    await eventually(lambda: protocol.received)
    assert protocol.received == [(b"answer", peer.getsockname())]
    await closed(protocol)


async def test_empty_datagrams_are_received(backend: Any, sockets: Sockets) -> None:
    peer = sockets.bound()
    server = sockets.ours()
    client = sockets.ours(connected_to=peer.getsockname())
    addresses = [server.getsockname(), client.getsockname()]
    protocols = [await opened(backend, server), await opened(backend, client)]
    for protocol, address in zip(protocols, addresses, strict=True):
        peer.sendto(b"", address)
        peer.sendto(b"x", address)
        await eventually(lambda: len(protocol.received) == 2)  # noqa: B023
        assert protocol.received == [(b"", peer.getsockname()), (b"x", peer.getsockname())]
        await closed(protocol)


async def test_empty_datagrams_are_sent(native: Any, sockets: Sockets) -> None:
    # As asyncio does since Python 3.13; before, it drops them.
    peer = sockets.bound()
    server = await opened(native, sockets.ours())
    client = await opened(native, sockets.ours(connected_to=peer.getsockname()))
    server.transport.sendto(b"", peer.getsockname())
    client.transport.sendto(b"")
    await asyncio.sleep(0.01)
    assert peer.recv(10) == peer.recv(10) == b""
    await closed(server)
    await closed(client)


@pytest.mark.parametrize("size", [1, 1472, 9000, 65_507])
async def test_sizes(backend: Any, sockets: Sockets, size: int) -> None:
    one, two = sockets.ours(), sockets.ours()
    address = two.getsockname()
    sender, receiver = await opened(backend, one), await opened(backend, two)
    data = bytes(i & 255 for i in range(size))
    for _ in range(3):
        sender.transport.sendto(data, address)
    await eventually(lambda: len(receiver.received) == 3)
    assert {received for received, _ in receiver.received} == {data}
    await closed(sender)
    await closed(receiver)


async def test_a_datagram_that_is_too_big(backend: Any, sockets: Sockets) -> None:
    peer = sockets.bound()
    protocol = await opened(backend, sockets.ours())
    protocol.transport.sendto(bytes(65_508), peer.getsockname())
    await eventually(lambda: protocol.errors)
    assert isinstance(protocol.errors[0], OSError)
    protocol.transport.sendto(b"small", peer.getsockname())
    await asyncio.sleep(0.01)
    assert peer.recv(10) == b"small"
    await closed(protocol)


async def test_nobody_there(backend: Any, sockets: Sockets) -> None:
    gone = sockets.bound()
    address = gone.getsockname()
    gone.close()
    protocol = await opened(backend, sockets.ours(connected_to=address))
    protocol.transport.sendto(b"hello?")
    await eventually(lambda: protocol.errors)
    assert isinstance(protocol.errors[0], ConnectionRefusedError)
    assert "lost" not in protocol.calls
    again = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sockets._open.append(again)
    again.bind(address)
    again.settimeout(5)
    protocol.transport.sendto(b"now")
    await asyncio.sleep(0.01)
    if not select_readable(again):  # the refusal of the first one may have taken the second one's place
        protocol.transport.sendto(b"now")
        await asyncio.sleep(0.01)
    _, sender = again.recvfrom(10)
    again.sendto(b"back", sender)
    await eventually(lambda: protocol.received)
    assert protocol.received == [(b"back", address)]
    await closed(protocol)


def select_readable(sock: socket.socket) -> bool:
    import select

    return bool(select.select([sock], [], [], 0.05)[0])


async def test_many_at_once(backend: Any, sockets: Sockets) -> None:
    one, two = sockets.ours(), sockets.ours()
    two.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    address = two.getsockname()
    sender, receiver = await opened(backend, one), await opened(backend, two)
    for i in range(100):
        sender.transport.sendto(b"%d" % i, address)
    await eventually(lambda: len(receiver.received) == 100)
    assert [data for data, _ in receiver.received] == [b"%d" % i for i in range(100)]
    await closed(sender)
    await closed(receiver)


async def test_close_sends_first_and_receives_no_more(backend: Any, sockets: Sockets) -> None:
    peer = sockets.bound()
    sock = sockets.ours()
    address = sock.getsockname()
    protocol = await opened(backend, sock)
    protocol.transport.sendto(b"last", peer.getsockname())
    peer.sendto(b"too late", address)
    await closed(protocol)
    if backend.name == "native":  # asyncio's own raise AttributeError
        protocol.transport.sendto(b"later", peer.getsockname())
    protocol.transport.close()
    if backend.name == "native":
        protocol.transport.abort()
    await asyncio.sleep(0.01)
    assert peer.recv(10) == b"last"
    peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.recv(10)
    assert protocol.calls == ["made", "lost"]


async def test_closing_in_a_callback(backend: Any, sockets: Sockets) -> None:
    for where in ("made", "datagram"):
        sock = sockets.ours()
        address = sock.getsockname()
        protocol = await opened(backend, sock, Datagrams(**{where: lambda it: it.transport.close()}))
        sockets.bound().sendto(b"x", address)
        sockets.bound().sendto(b"y", address)
        await eventually(lambda: "lost" in protocol.calls)  # noqa: B023
        await asyncio.sleep(0.01)
        assert protocol.calls == (["made", "lost"] if where == "made" else ["made", "datagram", "lost"])


async def test_a_protocol_that_raises_is_told_to_the_loop(native: Any, sockets: Sockets) -> None:
    told: list[dict[str, Any]] = []

    def fail(protocol: Datagrams) -> None:
        raise LookupError("a bug")

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    bad_sock, good_sock = sockets.ours(), sockets.ours()
    addresses = bad_sock.getsockname(), good_sock.getsockname()
    bad, good = await opened(native, bad_sock, Datagrams(datagram=fail)), await opened(native, good_sock)
    for address in addresses:
        sockets.bound().sendto(b"x", address)
    await eventually(lambda: told and good.received)
    assert isinstance(told[0]["exception"], LookupError)
    bad.transport.close()
    await eventually(lambda: "lost" in bad.calls)
    await closed(good)
    asyncio.get_running_loop().set_exception_handler(None)


@FAMILIES
async def test_addresses(backend: Any, sockets: Sockets, family: int) -> None:
    peer = sockets.bound(family).getsockname()
    for connected_to in (None, peer):
        sock = sockets.ours(family=family, connected_to=connected_to)
        own = sock.getsockname()
        protocol = await opened(backend, sock)
        transport = protocol.transport
        assert transport.get_extra_info("sockname") == own
        assert transport.get_extra_info("peername") == connected_to
        if backend.name == "native":
            assert transport.get_extra_info("peername", "nobody") == (connected_to or "nobody")
        assert transport.get_extra_info("socket").getsockname() == own
        assert transport.get_extra_info("nothing", 1) == 1
        await closed(protocol)
        if backend.name == "native":  # uvloop raises
            assert transport.get_extra_info("sockname") == own
            assert transport.get_extra_info("peername") == connected_to


async def test_a_scope_in_the_address(native: Any, sockets: Sockets) -> None:
    peer = sockets.bound(socket.AF_INET6)
    protocol = await opened(native, sockets.ours(family=socket.AF_INET6))
    host, port = peer.getsockname()[:2]
    for address in [(host, port), (host, port, 0), (host, port, 0, 0), (f"{host}%lo", port)]:
        protocol.transport.sendto(b"x", address)
        await asyncio.sleep(0.005)
        assert peer.recv(10) == b"x"
    await closed(protocol)


async def test_a_name_is_no_address(native: Any, sockets: Sockets) -> None:
    protocol = await opened(native, sockets.ours())
    with pytest.raises(OSError):
        protocol.transport.sendto(b"x", ("localhost", 9))
    await closed(protocol)


@pytest.mark.parametrize("port", [-1, 65_536])
async def test_a_port_out_of_range(native: Any, sockets: Sockets, port: int) -> None:
    # As socket.sendto() says it.
    protocol = await opened(native, sockets.ours())
    try:
        with pytest.raises(OverflowError):
            protocol.transport.sendto(b"x", ("127.0.0.1", port))
    finally:
        await closed(protocol)


@pytest.mark.parametrize("data", ["text", 7])
async def test_sendto_takes_only_bytes(backend: Any, sockets: Sockets, data: Any) -> None:
    protocol = await opened(backend, sockets.ours())
    try:
        with pytest.raises(TypeError):
            protocol.transport.sendto(data, ("127.0.0.1", 9))
    finally:
        await closed(protocol)


async def test_nothing_is_left_open(sockets: Sockets) -> None:
    before = open_descriptors()
    backend = make_native()
    protocol = await opened(backend, sockets.ours())
    await closed(protocol)
    backend.close()
    await eventually(lambda: open_descriptors() == before)


async def test_a_closed_backend_takes_no_socket(sockets: Sockets) -> None:
    backend = make_native()
    backend.close()
    before = open_descriptors()
    one = sockets.ours()
    with pytest.raises(OSError):
        await backend.open_datagram(one, Datagrams())
    assert one.fileno() == -1
    await eventually(lambda: open_descriptors() == before)


async def test_idle_costs_nothing(native: Any, sockets: Sockets) -> None:
    gone = sockets.bound()
    address = gone.getsockname()
    gone.close()
    protocol = await opened(native, sockets.ours(connected_to=address))
    protocol.transport.sendto(b"hello?")
    await eventually(lambda: protocol.errors)
    before = native.turns
    await asyncio.sleep(0.2)
    assert native.turns - before < 20
    await closed(protocol)
