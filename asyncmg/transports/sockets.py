"""Sockets: bound for listening, connected to the fastest address (RFC 8305), accepted without hurting anybody."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import struct
import sys
from collections.abc import Callable
from typing import Any, Protocol

from asyncmg.errors import ConnectFailed, ListenFailed
from asyncmg.limits import NetLimits

try:  # how much the kernel still has to send; Linux and the BSDs tell
    import fcntl
    import termios

    _TIOCOUTQ = getattr(termios, "TIOCOUTQ", None)
except ImportError:  # Windows
    _TIOCOUTQ = None

SockAddr = tuple[int, Any]  # (family, what connect() and bind() take)

_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_ACCEPT_BURST = 64  # accepts in a row before other work of the loop goes on


def unsent_bytes(transport: asyncio.BaseTransport) -> int:
    """Bytes that the kernel holds and the peer has not acknowledged; 0 where the system does not tell."""
    if _TIOCOUTQ is None:
        return 0
    try:
        fd = transport.get_extra_info("fileno")  # of the engine: its transports make a duplicate for a socket
        if fd is None:
            sock = transport.get_extra_info("socket")
            if sock is None:
                return 0
            fd = sock.fileno()
        return int(struct.unpack("i", fcntl.ioctl(fd, _TIOCOUTQ, b"\0\0\0\0"))[0])
    except (OSError, ValueError):
        return 0


# -- listening ------------------------------------------------------------------------------------------------------


def bind_inet(host: str, port: int, kind: socket.SocketKind, *, backlog: int) -> socket.socket:
    """Bind a TCP (and listen) or UDP socket. ``""`` is all IPv4 addresses, ``::`` all IPv6 and IPv4 ones.

    A name is resolved by the system, which may block: name an address or ``localhost``.

    Raises:
        ListenFailed: it cannot be resolved, bound or listened to.
    """
    sock: socket.socket | None = None
    try:
        family, address = _listen_address(host or "0.0.0.0", port, kind)
        sock = socket.socket(family, kind)
        sock.setblocking(False)
        if kind is socket.SOCK_STREAM and os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        sock.bind(address)
        if kind is socket.SOCK_STREAM:
            sock.listen(backlog)
    except OSError as exc:
        if sock is not None:
            sock.close()
        raise ListenFailed(exc.errno, f"cannot listen on {host or '0.0.0.0'} port {port}: {exc.strerror}") from exc
    return sock


def _listen_address(host: str, port: int, kind: socket.SocketKind) -> SockAddr:
    found = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)
    # One listener is one socket: for a name with both families IPv4 is taken, as programs for Mongoose expect.
    found.sort(key=lambda item: item[0] != socket.AF_INET)
    return found[0][0], found[0][4]


def unix_address(path: str) -> str:
    """Turn a path into what bind() and connect() take: ``@name`` is a Linux abstract socket."""
    return "\0" + path[1:] if path.startswith("@") and sys.platform == "linux" else path


def bind_unix(path: str, *, backlog: int) -> socket.socket:
    """Bind a Unix stream socket and listen. A path left behind by a dead listener is replaced, a live one is not.

    Raises:
        ListenFailed: the path is in use, too long, not a socket, or may not be written.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise ListenFailed(errno.EAFNOSUPPORT, "this system has no Unix sockets")
    address = unix_address(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        if address == path:
            _remove_stale(path)
        sock.bind(address)
        sock.listen(backlog)
    except OSError as exc:
        sock.close()
        raise ListenFailed(exc.errno, f"cannot listen on {path}: {exc.strerror or exc}") from exc
    return sock


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return  # bind() will say what is wrong
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            return


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Room(Protocol):
    """How many more connections may be accepted."""

    async def wait(self) -> int:
        """Wait until one may; return how many may: no more than this listener's share."""

    def reserve(self, count: int) -> None:
        """So many will be accepted without a further question; negative: so many will not."""


class SocketPath:
    """The path of a listening Unix socket, which is removed with it, unless somebody has put another in its place."""

    __slots__ = ("_inode", "_path")

    def __init__(self, sock: socket.socket) -> None:
        self._path = ""
        self._inode = (0, 0)
        if hasattr(socket, "AF_UNIX") and sock.family == socket.AF_UNIX:
            name = sock.getsockname()
            if isinstance(name, str) and name:
                status = os.stat(name)
                self._path, self._inode = name, (status.st_dev, status.st_ino)

    def remove(self) -> None:
        """Remove it; called again it does nothing."""
        path, self._path = self._path, ""
        if path:
            with contextlib.suppress(OSError):
                status = os.stat(path)
                if (status.st_dev, status.st_ino) == self._inode:
                    os.unlink(path)


class AcceptLoop:
    """Accepts connections of one listening socket, one task a listener, on any event loop.

    Args:
        sock: listening, non-blocking; owned from now on.
        accepted: called with each connected socket.
        room: awaited before each accept; while it waits, nobody but the waiting peers notices.
        failed: told what ends the loop early.
    """

    def __init__(
        self,
        sock: socket.socket,
        accepted: Callable[[socket.socket], None],
        room: Room,
        failed: Callable[[Exception], None],
        limits: NetLimits,
    ) -> None:
        self._sock = sock
        self._accepted = accepted
        self._room = room
        self._failed = failed
        self._limits = limits
        self._path = SocketPath(sock)

    async def run(self) -> None:
        """Accept until cancelled. Cancelling is safe: an accepted socket has been handed over or does not exist."""
        loop = asyncio.get_running_loop()
        burst = 0
        while True:
            await self._room.wait()
            try:
                sock = await self._accept_one(loop)
            except (ConnectionAbortedError, InterruptedError):
                continue  # the peer went away while it waited
            except OSError as exc:
                if exc.errno not in _OUT_OF_RESOURCES:
                    self._failed(exc)
                    return
                # Out of descriptors or memory: the connections that exist go on; waiting ones stay in the backlog.
                await asyncio.sleep(self._limits.accept_retry_delay)
                continue
            self._accepted(sock)
            burst += 1
            if burst >= _ACCEPT_BURST:
                burst = 0
                await asyncio.sleep(0)

    async def _accept_one(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        # Not loop.sock_accept(): cancelled in the turn in which it succeeds, that loses the connection.
        while True:
            try:
                sock, _ = self._sock.accept()
            except BlockingIOError:
                pass
            else:
                sock.setblocking(False)
                return sock
            readable: asyncio.Future[None] = loop.create_future()
            try:
                loop.add_reader(self._sock, _set_done, readable)
            except NotImplementedError:  # Windows' proactor
                return (await loop.sock_accept(self._sock))[0]
            try:
                await readable
            finally:
                loop.remove_reader(self._sock)

    def close(self) -> None:
        """Close the socket; remove a Unix socket's path if it is still ours. The task must have been cancelled."""
        self._sock.close()
        self._path.remove()


def max_descriptors() -> int:
    """The process's open file limit; a large number where there is none."""
    try:
        import resource
    except ImportError:  # Windows
        return 1 << 20
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 20


# -- connecting -----------------------------------------------------------------------------------------------------


def interleave(addresses: list[SockAddr]) -> list[SockAddr]:
    """Let the families of addresses take turns (RFC 8305 section 4), that of the first one first."""
    first = [item for item in addresses if item[0] == addresses[0][0]]
    other = [item for item in addresses if item[0] != addresses[0][0]]
    return [
        item
        for index in range(max(len(first), len(other)))
        for item in (*first[index : index + 1], *other[index : index + 1])
    ]


async def connect_fastest(
    addresses: list[SockAddr], attempt_delay: float, late: asyncio.Future[list[SockAddr]] | None = None
) -> socket.socket:
    """Connect to the address that answers first, each with a head start before the next (RFC 8305 section 5).

    Cancelling is safe: all attempts end and their sockets are closed.

    Args:
        addresses: in order of preference, not empty.
        attempt_delay: head start in seconds; an attempt that fails lets the next begin at once.
        late: brings further addresses, which take turns with those not tried yet; that it fails does not matter.

    Raises:
        ConnectFailed: every attempt failed; the message tells each failure, the first one is the cause.
    """
    loop = asyncio.get_running_loop()
    if len(addresses) == 1 and late is None:
        try:
            return await _connect_one(loop, addresses[0])
        except OSError as exc:
            raise _connect_failed([(addresses[0], exc)]) from exc
    attempts: dict[asyncio.Task[socket.socket], SockAddr] = {}
    failures: list[tuple[SockAddr, OSError]] = []
    waiting = list(addresses)
    next_attempt = 0.0  # not before, unless an attempt has failed: late addresses do not take the head start away
    try:
        while waiting or attempts or late is not None:
            if waiting and (not attempts or loop.time() >= next_attempt):
                address = waiting.pop(0)
                next_attempt = loop.time() + attempt_delay
                attempts[loop.create_task(_connect_one(loop, address), name=f"asyncmg-connect {address}")] = address
            pending: list[asyncio.Future[Any]] = [*attempts, late] if late is not None else [*attempts]
            await asyncio.wait(
                pending,
                timeout=max(next_attempt - loop.time(), 0.0) if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if late is not None and late.done():
                if not late.cancelled() and late.exception() is None and late.result():
                    waiting = interleave([*late.result(), *waiting])
                late = None
            failed = len(failures)
            winner = _winner(attempts, failures)
            if winner is not None:
                return winner
            if len(failures) > failed:
                next_attempt = 0.0
    finally:
        for task in attempts:
            task.cancel()
            task.add_done_callback(_close_loser)
    raise _connect_failed(failures) from failures[0][1]


def _winner(
    attempts: dict[asyncio.Task[socket.socket], SockAddr], failures: list[tuple[SockAddr, OSError]]
) -> socket.socket | None:
    """Take out the attempts that are done; return the first that is connected, close others, note failures."""
    winner: socket.socket | None = None
    for task in [task for task in attempts if task.done()]:
        address = attempts.pop(task)
        error = task.exception()
        if error is None and winner is None:
            winner = task.result()
        elif error is None:
            task.result().close()
        elif isinstance(error, OSError):
            failures.append((address, error))
        else:
            raise error
    return winner


def _close_loser(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _connect_failed(failures: list[tuple[SockAddr, OSError]]) -> ConnectFailed:
    told = "; ".join(f"{_show(address)}: {error.strerror or error}" for address, error in failures)
    return ConnectFailed(failures[0][1].errno, f"cannot connect to {told}")


def _show(address: SockAddr) -> str:
    return f"{address[1][0]} port {address[1][1]}" if isinstance(address[1], tuple) else str(address[1])


async def _connect_one(loop: asyncio.AbstractEventLoop, address: SockAddr) -> socket.socket:
    family, sockaddr = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        await loop.sock_connect(sock, sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock
