"""Who gives protocol objects their transports: what a backend is, and the one on asyncio's own transports."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from asyncmg.limits import NetLimits

from .sockets import AcceptLoop, Room


class Accepted(Protocol):
    """An accepted connection that nobody has yet."""

    def give_to(self, protocol: asyncio.Protocol) -> Coroutine[Any, Any, None] | None:
        """Make the protocol's connection; when that takes time, return a coroutine that does it.

        The coroutine raises OSError when the connection was lost meanwhile. Cancelling it closes the connection.
        """

    def close(self) -> None:
        """Nobody wants it, or the coroutine was cancelled before it had begun."""


class Accepting(Protocol):
    """Accepts the connections of one listening socket."""

    async def run(self) -> None:
        """Accept until cancelled. Cancelling is safe: an accepted connection has been handed over or does not exist."""

    def close(self) -> None:
        """Close the socket; remove a Unix socket's path if it is still ours. ``run`` must have ended."""


class Backend(Protocol):
    """Gives sockets to protocol objects.

    Attributes:
        name: as in ``Manager(backend=...)``.
    """

    name: str

    def accept_on(
        self,
        sock: socket.socket,
        accepted: Callable[[Accepted], None],
        room: Room,
        failed: Callable[[Exception], None],
        limits: NetLimits,
        *,
        http: bool,
    ) -> Accepting:
        """Prepare to accept; see :class:`AcceptLoop`.

        Args:
            http: what the connections receive is probably HTTP requests in the clear.
        """

    async def open_stream(self, sock: socket.socket, protocol: asyncio.Protocol) -> None:
        """Give a connected socket to its protocol. Cancelling closes it."""

    async def open_datagram(self, sock: socket.socket, protocol: asyncio.DatagramProtocol) -> None:
        """Give a bound or connected datagram socket to its protocol. Cancelling closes it."""

    def close(self) -> None:
        """Free what the backend holds, as soon as its last connection has ended."""

    def free(self) -> None:
        """Free it at once: the loop is about to be closed."""


class AcceptedSocket:
    """An accepted socket for an asyncio transport."""

    __slots__ = ("_sock",)

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def give_to(self, protocol: asyncio.Protocol) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, self._sock)
        except OSError:  # the peer reset the connection while it waited
            self._sock.close()
            raise

    def close(self) -> None:
        self._sock.close()


class AsyncioBackend:
    """Transports of the running loop, whichever it is."""

    name = "asyncio"

    def accept_on(
        self,
        sock: socket.socket,
        accepted: Callable[[Accepted], None],
        room: Room,
        failed: Callable[[Exception], None],
        limits: NetLimits,
        *,
        http: bool,
    ) -> Accepting:
        return AcceptLoop(sock, lambda sock: accepted(AcceptedSocket(sock)), room, failed, limits)

    async def open_stream(self, sock: socket.socket, protocol: asyncio.Protocol) -> None:
        await asyncio.get_running_loop().create_connection(lambda: protocol, sock=sock)

    async def open_datagram(self, sock: socket.socket, protocol: asyncio.DatagramProtocol) -> None:
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: protocol, sock=sock)

    def close(self) -> None:
        """The loop owns its transports."""

    def free(self) -> None:
        """There is nothing."""
