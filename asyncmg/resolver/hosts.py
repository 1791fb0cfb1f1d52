"""The socket addresses of a host that is to be connected to (RFC 8305 sections 3 and 4)."""

from __future__ import annotations

import asyncio
import socket

from asyncmg.errors import NameNotFound, ResolveFailed
from asyncmg.transports.sockets import SockAddr, interleave

from .known import literal_address
from .service import Resolver


class HostAddresses:
    """The addresses of a host: those that are known, and perhaps some that are still to come.

    Attributes:
        first: not empty; families interleaved, IPv6 first.
        late: brings those of the other family; None: there are no more to come. What it fails with does not count.
    """

    __slots__ = ("first", "late")

    def __init__(self, first: list[SockAddr], late: asyncio.Task[list[SockAddr]] | None = None) -> None:
        self.first = first
        self.late = late

    def close(self) -> None:
        """Nobody wants the rest."""
        if self.late is not None:
            self.late.cancel()


async def find_addresses(resolver: Resolver, host: str, port: int) -> HostAddresses:
    """Look up the addresses of a host, of both families at once.

    As soon as there are IPv6 addresses they are returned; IPv4 ones wait ``resolution_delay`` for them.

    Cancelling is safe.

    Raises:
        ResolveFailed: there are none.
        InvalidUrl, LocalProtocolError: it is no host name.
    """
    if host == "localhost":  # IPv4 first: that is where programs for Mongoose listen
        return HostAddresses([(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port, 0, 0))])
    if literal_address(host):
        return HostAddresses(_socket_addresses(literal_address(host), port))
    six, four = (
        asyncio.create_task(_look_up(resolver, host, port, version), name=f"asyncmg-resolve-{host}-v{version}")
        for version in (6, 4)
    )
    kept = None
    try:
        await asyncio.wait((six, four), return_when=asyncio.FIRST_COMPLETED)
        if not six.done() and _has_addresses(four):
            await asyncio.wait((six,), timeout=resolver.limits.resolution_delay)
        if not _has_addresses(six) and not _has_addresses(four):
            await asyncio.wait((six, four))
        if _has_addresses(six) and _has_addresses(four):
            return HostAddresses(interleave(six.result() + four.result()))
        for found, other in ((six, four), (four, six)):
            if _has_addresses(found):
                kept = other
                return HostAddresses(found.result(), None if other.done() else other)
        raise _worst(six.exception(), four.exception())
    finally:
        for task in (six, four):
            if task.done() and not task.cancelled():
                task.exception()
            elif task is not kept:
                task.cancel()
        if kept is not None:
            kept.add_done_callback(lambda task: task.cancelled() or task.exception())


def _has_addresses(task: asyncio.Task[list[SockAddr]]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None and bool(task.result())


def _worst(*errors: BaseException | None) -> BaseException:
    """Of two failures the one that says more: that a server fails before that there is nothing."""
    told = [error for error in errors if error is not None]
    for error in told:
        if not isinstance(error, NameNotFound):
            return error
    return told[0] if told else ResolveFailed("no addresses")


async def _look_up(resolver: Resolver, host: str, port: int, version: int) -> list[SockAddr]:
    addresses = await resolver.addresses(host, version)
    return [item for address in addresses for item in _socket_addresses(address, port)]


def _socket_addresses(address: str, port: int) -> list[SockAddr]:
    """Make what connect() takes; the system knows what an IPv6 zone stands for."""
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, ValueError) as exc:  # ValueError: a zone with a NUL in it
        raise ResolveFailed(f"cannot use the address {address!r}: {exc}", name=address) from exc
    return [(item[0], item[4]) for item in found]
