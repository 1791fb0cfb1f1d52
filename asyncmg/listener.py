"""Listener: what Manager.listen returns for TCP, TLS and Unix sockets."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Self

from .addresses import Address, address_of
from .connection import Connection, Handler, Owner
from .dispatch import HandlerKind, handler_kind
from .errors import BusyError, LocalProtocolError
from .events import MG_EV_CLOSE, MG_EV_ERROR, MG_EV_OPEN
from .places import Places
from .protocols.base import TlsArgument
from .transports.backend import Accepting


class Listener(Connection):
    """A bound socket that accepts connections.

    Its handler serves the accepted connections. Without one, and without a default handler, they wait for
    ``async for conn in listener``, at most ``max_accept_queue`` of them; then accepting pauses.

    Attributes:
        make_protocol: makes the protocol object of an accepted connection.
        tls: what https and wss connections start TLS with.
    """

    __slots__ = (
        "_accept_task",
        "_is_iterated",
        "_resume",
        "_sock",
        "_waiter",
        "_waiting",
        "make_protocol",
        "tls",
    )

    def __init__(
        self,
        owner: Owner,
        conn_id: int,
        handler: Handler | None,
        sock: socket.socket,
        make_protocol: Callable[[Connection, Listener], Any],
        tls: TlsArgument | None,
    ) -> None:
        super().__init__(owner, conn_id, handler)
        self.make_protocol = make_protocol
        self.tls = tls
        self._sock = sock
        self._waiting: deque[Connection] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._resume: Callable[[], None] = _nothing
        self._is_iterated = False
        self._accept_task: asyncio.Task[Any] | None = None
        self.protocol = _ListeningProtocol(self)

    def __repr__(self) -> str:
        return "<Listener closed>" if self._closed else f"<Listener id={self.id} {self.local_addr}>"

    def start(self, accepting: Accepting, resume: Callable[[], None]) -> None:
        """Begin accepting: called by the manager once the listener is known."""
        self._resume = resume
        self.handle_event(MG_EV_OPEN, None)
        self._accept_task = self._owner.spawn(accepting.run(), f"asyncmg-accept-{self.id}")
        # The socket may only be closed once the loop no longer watches it.
        self._accept_task.add_done_callback(lambda _: accepting.close())

    def fail(self, error: Exception) -> None:
        """Accepting failed for good: MG_EV_ERROR, or a report where no plain handler would see it; then the end."""
        if self._kind is HandlerKind.SYNC:
            self.handle_event(MG_EV_ERROR, error)
        else:
            self._owner.report(error, self)
        self.close()

    # -- accepted connections --------------------------------------------------------------------------------------

    @property
    def queues_connections(self) -> bool:
        """Accepted connections wait for an iterator."""
        return self._is_iterated or (self._handler is None and self._owner.default_handler is None)

    @property
    def room(self) -> int:
        """Connections that may be accepted as far as the iterator is concerned."""
        return self._owner.limits.net.max_accept_queue - len(self._waiting)

    def hand_out(self, conn: Connection) -> None:
        """Give an accepted connection to the iterator."""
        self._waiting.append(conn)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> Self:
        self._is_iterated = True
        return self

    async def __anext__(self) -> Connection:  # type: ignore[override]  # a listener yields connections, not events
        """Return the next accepted connection; the iteration ends when the listener is closed.

        Cancelling is safe: no connection is lost.

        Raises:
            BusyError: another task is waiting for this listener's connections.
        """
        if self._waiter is not None:
            raise BusyError("another task is waiting for this listener's connections")
        while True:
            if self._waiting:
                conn = self._waiting.popleft()
                self._resume()
                return conn
            if self._closed:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def set_handler(self, handler: Handler | None) -> None:
        """Set the handler of connections accepted from now on; None: the Manager's default."""
        self._kind = handler_kind(handler if handler is not None else self._owner.default_handler)
        self._handler = handler

    # -- being a connection ------------------------------------------------------------------------------------------

    def handle_event(self, ev: int, data: Any) -> bool:
        """The listener's own events go to a plain handler only: async ones belong to a connection."""
        self._owner.note_activity()
        if self._kind is HandlerKind.SYNC and self._owner.event_mask >> ev & 1:
            self._call_handler(ev, data)
        if ev == MG_EV_CLOSE:
            self._closed = True
            self._owner.forget(self)
        return True

    def _handle_handler_error(self, error: Exception) -> None:
        self._owner.report(error, self)

    @property
    def is_listening(self) -> bool:
        return not self._closed

    @property
    def local_addr(self) -> Address | None:
        """The bound address; its port is the real one when port 0 was asked for."""
        return None if self._closed else address_of(self._sock.getsockname())

    @property
    def port(self) -> int:
        """The bound port."""
        address = self.local_addr
        return address.port if address is not None else 0

    def close(self) -> None:
        """Stop accepting; the socket is closed in the loop's next turn. Accepted connections go on."""
        if self._closed:
            return
        if self._accept_task is not None:
            self._accept_task.cancel()
        while self._waiting:
            self._waiting.popleft().close()  # nobody has taken it
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self.handle_event(MG_EV_CLOSE, None)

    def drain(self) -> None:
        self.close()

    def shutdown(self) -> None:
        self.close()

    def tls_init(self, opts: TlsArgument | None = None) -> None:
        """Set the certificate that accepted connections use, those of https and wss listeners."""
        self.tls = opts


class ListenerRoom:
    """How many more connections a listener may accept (see :class:`asyncmg.transports.sockets.Room`)."""

    __slots__ = ("_listener", "_places")

    def __init__(self, listener: Listener, places: Places) -> None:
        self._listener = listener
        self._places = places

    async def wait(self) -> int:
        return await self._places.wait(lambda: self._listener.room)

    def reserve(self, count: int) -> None:
        if count > 0:
            self._places.take(count)
        else:
            self._places.give_back(-count)


def _nothing() -> None:
    """Stand in for a callback that is not known yet."""


class _ListeningProtocol:
    """What a listener's verbs delegate to: it carries no data."""

    is_client = is_tls = tls_is_due = is_opening = is_writable = is_full = is_draining = False
    is_connected = True
    recv_len = send_len = 0
    sockname = peername = None

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    @property
    def is_closing(self) -> bool:
        return not self._listener.is_listening

    def peek(self, n: int = -1) -> bytes:
        return b""

    read = unsent = peek

    def send(self, data: bytes) -> None:
        raise LocalProtocolError("a listener carries no data: send on the connections that it accepts")

    async def flush(self) -> None:
        """There is nothing to wait for."""

    def fail(self, error: Exception) -> None:
        self._listener.fail(error)
