"""Sockets of mDNS (RFC 6762 sections 3, 11 and 15): one for each interface and family, for asking or for answering."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

from asyncmg.errors import ListenFailed

from .interfaces import Interface

PORT: Final = 5353
GROUPS: Final = {socket.AF_INET: "224.0.0.251", socket.AF_INET6: "ff02::fb"}
MAX_MESSAGE: Final = 1400  # bytes of a message that fits in one Ethernet frame, with room for headers (section 17)

_CLOSE_TIMEOUT = 5.0
_HOPS = 255  # who is not on the link sees less (section 11)
# Of Linux, and not in Python's socket module: only datagrams to the groups that this socket has joined, on the
# interface where it has joined them.
_IP_MULTICAST_ALL = 49
_IPV6_MULTICAST_ALL = 29

Received = Callable[[bytes, Any, "Endpoint"], None]  # datagram, source, where it came in


class Endpoint:
    """One socket: an interface and a family.

    Attributes:
        interface: it sends and listens there.
        group: socket address of the group.
    """

    __slots__ = ("_sock", "_transport", "failed", "family", "group", "interface")

    def __init__(self, interface: Interface, family: int, port: int, sock: socket.socket) -> None:
        self.interface = interface
        self.family = family
        self.failed: OSError | None = None
        group = GROUPS[socket.AddressFamily(family)]
        self.group: Any = (group, port) if family == socket.AF_INET else (group, port, 0, interface.number)
        self._sock = sock
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self, make: Callable[[], _Inbox]) -> _Inbox:
        self._transport, inbox = await asyncio.get_running_loop().create_datagram_endpoint(make, sock=self._sock)
        return inbox

    def send(self, data: bytes, peer: Any = None) -> bool:
        """Send one datagram, to the group or to somebody; False: the system would not, ``failed`` says why."""
        # By the socket itself: what loops do with a send that fails differs, and a datagram may get lost anyway.
        try:
            self._sock.sendto(data, self.group if peer is None else peer)
        except OSError as exc:
            self.failed = exc
            return False
        return True

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        else:
            self._sock.close()


class _Inbox(asyncio.DatagramProtocol):
    def __init__(self, endpoint: Endpoint, received: Received) -> None:
        self._endpoint = endpoint
        self._received = received
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._received(data, addr, self._endpoint)

    def error_received(self, exc: Exception) -> None:
        """ICMP: somebody who was answered has gone. It concerns nobody else."""

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)


class MdnsSockets:
    """The sockets of one asker or responder. Made by :meth:`open`; an async context manager that closes them.

    Attributes:
        port: of the group.
    """

    def __init__(self, interfaces: Sequence[Interface], port: int) -> None:
        self.port = port
        self.endpoints: list[Endpoint] = []
        self._inboxes: list[_Inbox] = []
        self._networks = [address.network for interface in interfaces for address in interface.addresses]
        self._own = {address.ip for interface in interfaces for address in interface.addresses}

    @classmethod
    async def open(cls, interfaces: Sequence[Interface], port: int, received: Received, *, shared: bool) -> Self:
        """Open the sockets.

        Args:
            port: of the group.
            received: called with each datagram.
            shared: bind the group's port, which others of this machine may have too, and join the group; otherwise
                each socket has a random port of its own, to which answers come.

        Raises:
            ListenFailed: not one socket can be opened.
        """
        sockets = cls(interfaces, port)
        failure: OSError | None = None
        try:
            for interface in interfaces:
                for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
                    if not interface.of_version(version):
                        continue
                    try:
                        sock = _open(interface, family, port, shared=shared)
                    except OSError as exc:
                        failure = failure or exc
                        continue
                    await sockets._start(Endpoint(interface, family, port, sock), received)
        except BaseException:
            await sockets.close()
            raise
        if not sockets.endpoints:
            told = failure.strerror if failure is not None else "no interface"
            raise ListenFailed(failure.errno if failure is not None else None, f"no multicast: {told}") from failure
        return sockets

    async def _start(self, endpoint: Endpoint, received: Received) -> None:
        self.endpoints.append(endpoint)
        self._inboxes.append(await endpoint.start(lambda: _Inbox(endpoint, received)))

    def is_near(self, source: Any) -> bool:
        """Whether a datagram comes from this machine or from a network of its interfaces (RFC 6762 section 11)."""
        ip = _ip_of(source)
        return ip.is_loopback or ip.is_link_local or any(ip in network for network in self._networks)

    def is_own(self, source: Any) -> bool:
        """Whether a datagram comes from an address of this machine."""
        ip = _ip_of(source)
        return ip.is_loopback or ip in self._own

    def send(self, data: bytes) -> bool:
        """Send one datagram to the group, on all interfaces; False: on none of them it could be."""
        sent = [endpoint.send(data) for endpoint in self.endpoints]  # on each, whatever the one before did
        return any(sent)

    async def close(self) -> None:
        """Close all sockets. Cancelling is safe: they close all the same."""
        for endpoint in self.endpoints:
            endpoint.close()
        pending = [inbox.lost for inbox in self._inboxes if not inbox.lost.done()]
        if pending:
            await asyncio.wait(pending, timeout=_CLOSE_TIMEOUT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _ip_of(source: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(source[0].partition("%")[0])


def _open(interface: Interface, family: int, port: int, *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "SO_REUSEPORT"):
                # Some kernels know the constant only.
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        set_up = _set_up_inet if family == socket.AF_INET else _set_up_inet6
        set_up(sock, interface, port if shared else 0)
    except BaseException:
        sock.close()
        raise
    return sock


def _set_up_inet(sock: socket.socket, interface: Interface, port: int) -> None:
    address = interface.of_version(4)[0].ip.packed
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, address)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _HOPS)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, _HOPS)
    sock.bind(("" if port else str(interface.of_version(4)[0].ip), port))
    if port:
        if sys.platform == "linux":
            sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        group = socket.inet_aton(GROUPS[socket.AF_INET])
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + address)


def _set_up_inet6(sock: socket.socket, interface: Interface, port: int) -> None:
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface.number)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOPS)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, _HOPS)
    sock.bind(("::", port))
    if port:
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # since Linux 4.20
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
        group = socket.inet_pton(socket.AF_INET6, GROUPS[socket.AF_INET6])
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + struct.pack("@I", interface.number))
