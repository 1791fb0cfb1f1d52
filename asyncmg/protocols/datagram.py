"""Datagrams: UDP sockets, listening (many peers) or connected (one)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from typing import Any, cast

from asyncmg.dispatch import EventSink
from asyncmg.errors import ConnectionClosed
from asyncmg.events import MG_EV_CLOSE, MG_EV_CONNECT, MG_EV_ERROR, MG_EV_READ, MG_EV_WRITE
from asyncmg.limits import DEFAULT_LIMITS, Limits


class DatagramProtocol(asyncio.DatagramProtocol):
    """Delivers one datagram per MG_EV_READ.

    While that event is being handled, ``peek`` and ``read`` return the datagram and ``send`` answers its sender.
    Datagrams that arrive while ``max_datagrams`` are waiting are dropped, and counted in ``dropped``.
    """

    is_tls = False
    tls_is_due = is_opening = False
    is_full = False
    is_draining = False

    def __init__(
        self,
        sink: EventSink,
        *,
        is_client: bool,
        limits: Limits = DEFAULT_LIMITS,
        loop: asyncio.AbstractEventLoop | None = None,
        sock: socket.socket | None = None,
    ) -> None:
        self.sink = sink
        self.is_client = is_client
        self.limits = limits
        self.loop = loop if loop is not None else asyncio.get_running_loop()
        self.transport: asyncio.DatagramTransport | None = None
        self._sock = sock  # tells our address before the endpoint is ready
        self.peer: Any = None  # socket address of the current datagram's sender
        self.dropped = 0
        self.is_closing = False
        self._is_lost = False
        self._waiting: deque[tuple[bytes, Any]] = deque()
        self._current = b""
        self._is_delivering = False
        self._early: list[tuple[bytes, Any]] = []  # sent before the endpoint was ready

    @property
    def recv_len(self) -> int:
        return len(self._current)

    @property
    def send_len(self) -> int:
        return self.transport.get_write_buffer_size() if self.transport is not None else 0  # type: ignore[attr-defined]  # documented on every loop's datagram transport

    @property
    def is_connected(self) -> bool:
        return self.transport is not None

    @property
    def is_writable(self) -> bool:
        return not self.is_closing and self.send_len < self.limits.buffers.send_high_water

    @property
    def sockname(self) -> Any:
        if self.transport is not None:
            return self.transport.get_extra_info("sockname")
        return self._sock.getsockname() if self._sock is not None else None

    @property
    def peername(self) -> Any:
        if self.is_client and self.transport is not None:
            return self.transport.get_extra_info("peername")
        return self.peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)
        if self.is_closing:
            self.transport.abort()
            return
        if self.is_client:
            self.sink.handle_event(MG_EV_CONNECT, None)
        early, self._early = self._early, []
        for data, peer in early:
            self._send_to(data, peer)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if len(self._waiting) >= self.limits.buffers.max_datagrams:
            self.dropped += 1
            return
        self._waiting.append((data, addr))
        if not self._is_delivering:
            self._deliver_next()

    def _deliver_next(self) -> None:
        """Deliver datagrams one by one, each when the one before has been handled."""
        self._is_delivering = bool(self._waiting) and not self.is_closing
        if not self._is_delivering:
            self._current = b""
            return
        self._current, self.peer = self._waiting.popleft()
        self.sink.handle_event(MG_EV_READ, len(self._current))
        self.sink.when_handled(self._deliver_soon)

    def _deliver_soon(self) -> None:
        # Not at once: a burst must not become a recursion, nor keep the loop from its other work.
        self.loop.call_soon(self._deliver_next)

    def error_received(self, exc: Exception) -> None:
        """ICMP told that a datagram was not delivered. A connected socket ends; a listening one serves others too."""
        if self.is_client and not self.is_closing:
            self.fail(_as_closed(exc))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_lost:  # it was closed, and told so, while it was being opened
            return
        self._is_lost = True
        self.is_closing = True
        if exc is not None:
            self.sink.handle_event(MG_EV_ERROR, _as_closed(exc))
        self.sink.handle_event(MG_EV_CLOSE, None)

    def peek(self, n: int = -1) -> bytes:
        """Return the current datagram, or its first n bytes."""
        return self._current if n < 0 else self._current[:n]

    def read(self, n: int = -1) -> bytes:
        """Return the current datagram, or its first n bytes, and forget the whole of it."""
        data = self.peek(n)
        self._current = b""
        return data

    def send(self, data: bytes) -> None:
        """Send one datagram: to the peer of a client, to the sender of the current datagram on a listener.

        Raises:
            ConnectionClosed: the socket is closed, or there is nobody to answer yet.
        """
        if self.is_closing:
            raise ConnectionClosed("Connection has been closed")
        if not self.is_client and self.peer is None:
            raise ConnectionClosed("no datagram has been received yet: there is nobody to answer")
        peer = None if self.is_client else self.peer
        if self.transport is None:
            self._early.append((data, peer))
        else:
            self._send_to(data, peer)

    def _send_to(self, data: bytes, peer: Any) -> None:
        assert self.transport is not None
        if self.send_len > self.limits.buffers.max_send_buffer:
            self.dropped += 1
            return
        if data:
            self.transport.sendto(data, peer)
        else:
            self._send_empty(peer)
        self.sink.handle_event(MG_EV_WRITE, len(data))

    def _send_empty(self, peer: Any) -> None:
        # An empty datagram is one (RFC 768), but transports drop it: asyncio's before Python 3.13, and uvloop's.
        assert self.transport is not None
        fileno = os.dup(self.transport.get_extra_info("socket").fileno())
        with socket.socket(fileno=fileno) as sock, contextlib.suppress(OSError):
            if peer is None:
                sock.send(b"")
            else:
                sock.sendto(b"", peer)

    def fail(self, error: Exception) -> None:
        """MG_EV_ERROR, then close."""
        if not self.is_closing:
            self.sink.handle_event(MG_EV_ERROR, error)
            self.close()

    def unsent(self, n: int = -1) -> bytes:
        """A datagram is handed over at once: there is nothing to look at."""
        return b""

    async def flush(self) -> None:
        """Return at once: a datagram is handed over or dropped."""

    def drain(self) -> None:
        """Close; the loop's transport sends what it holds first."""
        self.close()

    def shutdown(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        if self.is_closing:
            return
        self.is_closing = True
        if self.transport is not None:
            self.transport.close()
        else:
            self.loop.call_soon(self.connection_lost, None)

    def abort(self) -> None:
        if self.transport is not None:
            self.is_closing = True
            self.transport.abort()
        else:
            self.close()


def _as_closed(error: Exception) -> ConnectionClosed:
    closed = ConnectionClosed(f"datagram socket failed: {error}")
    closed.__cause__ = error
    return closed
