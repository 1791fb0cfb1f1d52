"""Connection: what user code holds. It queues or delivers events and delegates its verbs to the protocol object."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from types import CoroutineType, TracebackType
from typing import Any, Protocol, Self

from .addresses import Address, address_of
from .dispatch import EventQueue, HandlerKind, handler_kind
from .eager import Carrier, Steps
from .errors import AsyncmgError, BusyError, ConnectFailed, ConnectionClosed, LocalProtocolError
from .events import (
    MG_EV_ACCEPT,
    MG_EV_CLOSE,
    MG_EV_CONNECT,
    MG_EV_ERROR,
    MG_EV_TLS_HS,
)
from .limits import Limits
from .protocols.base import BaseProtocol, Pause, TlsArgument
from .protocols.datagram import DatagramProtocol
from .protocols.stream import StreamProtocol
from .verbs.http import HttpVerbs
from .verbs.mqtt import MqttVerbs
from .verbs.resolve import ResolveVerbs
from .verbs.sntp import SntpVerbs
from .verbs.ws import WsVerbs

#: ``handler(conn, ev, data)``, plain or async, or ``async handler(conn)`` that iterates the connection.
Handler = Callable[..., Any]


class Owner(Protocol):
    """What a connection needs from its Manager."""

    has_ended: bool
    is_polled: bool
    spare: Carrier | None

    limits: Limits
    event_mask: int
    default_handler: Handler | None

    def spawn(self, coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]: ...

    def carrier(self) -> Carrier | None: ...

    def hand_over(self, carrier: Carrier) -> None: ...

    def begin_resolving(self, conn: Connection, host: str, port: int) -> None: ...

    def end_resolving(self, conn: Connection) -> None: ...

    def report(self, error: Exception, conn: Connection) -> None: ...

    def note_activity(self) -> None: ...

    def forget(self, conn: Connection) -> None: ...


# Members looked up once: through their class that takes Python 3.11 75 ns each.
_NONE, _SYNC, _ASYNC, _SESSION = HandlerKind


class Connection(HttpVerbs, WsVerbs, MqttVerbs, SntpVerbs, ResolveVerbs):
    """One connection: an accepted or outgoing stream, or a UDP socket.

    Made by Manager. Events go to the handler; without one, or once ``async for ev, data in conn`` has begun, they are
    queued for the iterator. As an async context manager it waits until it is connected, and drains at the end::

        async with manager.connect("tcp://127.0.0.1:9000") as conn:
            conn.send(b"hello")

    Attributes:
        id: positive, unique within the Manager.
        userdata: yours.
        protocol: the protocol object that the verbs delegate to.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_connecting",
        "_context",
        "_error",
        "_handler",
        "_is_beginning",
        "_is_connected",
        "_kind",
        "_owner",
        "_queue",
        "id",
        "protocol",
        "resolved",
        "userdata",
        "wants",
    )

    _owner: Owner

    def __init__(self, owner: Owner, conn_id: int, handler: Handler | None, *, queued: bool = False) -> None:
        self.id = conn_id
        self.userdata: Any = None
        self.protocol: Any = None  # given by the manager before anybody sees the connection
        self.wants = owner.event_mask
        self._owner = owner
        self._handler = handler
        self._kind = _NONE if queued else handler_kind(handler if handler is not None else owner.default_handler)
        self._queue: EventQueue | None = None
        self._context: Context | None = None  # of the async handler
        self._is_beginning = False  # an async handler is being run to its first suspension
        self._connecting: asyncio.Task[Any] | None = None
        self._is_connected: asyncio.Future[None] | None = None
        self._error: Exception | None = None  # data of MG_EV_ERROR
        self._closed = False
        self.resolved: Address | None = None  # what remote_addr is without a peer

    def __repr__(self) -> str:
        if self._closed:
            return "<Connection closed>"
        return f"<Connection id={self.id} {self.local_addr} - {self.remote_addr}>"

    # -- events: the sink of the protocol --------------------------------------------------------------------------

    def handle_event(self, ev: int, data: Any) -> bool:
        """Take one event from the protocol or the manager, bring it to user code, tell whether that is done with it."""
        owner = self._owner
        if owner.is_polled:
            owner.note_activity()
        if ev <= _LAST_LANDMARK and ev in _LANDMARKS:
            self._pass_landmark(ev, data)
        is_handled = True
        try:
            if self.wants >> ev & 1 or ev == MG_EV_CLOSE:
                queue = self._queue
                if queue is not None:
                    is_handled = False
                elif self._kind is _SYNC:
                    self._call_handler(ev, data)
                elif self._kind is not _ASYNC or not self._begin_handler(ev, data):
                    queue = self._begin_queue()
                    is_handled = False
                else:
                    is_handled = self._queue is None
                if queue is not None and queue.put(ev, data):
                    self._pause(True)
        finally:
            if ev == MG_EV_CLOSE:
                self._closed = True
                owner.forget(self)
        return is_handled

    def when_handled(self, callback: Callable[[], None]) -> None:
        waiter = self._is_connected
        if self._is_beginning and self._queue is None:
            self._begin_queue()
        if self._queue is None:
            callback()
        elif self._kind is _NONE and waiter is not None and not waiter.done():
            callback()  # whoever waits in connected() takes no events before it returns
        else:
            self._queue.when_handled(callback)

    def switch_protocol(self, protocol: Any) -> None:
        self.protocol = protocol
        waiter = self._is_connected
        if waiter is not None and not waiter.done() and not protocol.is_opening:
            waiter.set_result(None)

    def spawn(self, coro: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._owner.spawn(coro, f"{name}-{self.id}")

    def _call_handler(self, ev: int, data: Any) -> None:
        handler = self._handler or self._owner.default_handler
        if handler is None:
            return
        try:
            result = handler(self, ev, data)
            if result is not None and inspect.iscoroutine(result):
                result.close()
                raise TypeError("a plain handler returned a coroutine: declare it with async def")
        except asyncio.CancelledError as exc:  # of something that the handler asked for its result
            self._handle_handler_error(_as_handler_error(exc))
        except Exception as exc:
            if not self._is_the_end(exc):
                self._handle_handler_error(exc)

    def _is_the_end(self, error: Exception) -> bool:
        """Whether a handler was told that its connection ends: no fault of its own; MG_EV_CLOSE tells it as well."""
        return isinstance(error, ConnectionClosed) and (self.is_closing or bool(self.protocol.is_draining))

    def _handle_handler_error(self, error: Exception) -> None:
        self._owner.report(error, self)
        if isinstance(self.protocol, BaseProtocol):
            self.protocol.handle_handler_error(error)

    def _pass_landmark(self, ev: int, data: Any) -> None:
        """Note the events that ``connected()`` waits for, and the end."""
        waiter = self._is_connected
        if ev == MG_EV_ERROR:
            self._error = data
        if waiter is None or waiter.done():
            return
        if ev in (MG_EV_ERROR, MG_EV_CLOSE):
            waiter.set_exception(_as_connect_error(self._error))
            waiter.exception()  # somebody may have stopped waiting
        elif not self.protocol.is_opening:
            waiter.set_result(None)

    def _begin_queue(self) -> EventQueue:
        """Queue events from now on, for the connection's task or for an iterator."""
        self._queue = queue = EventQueue(self._owner.limits.buffers.max_queued_events, self._resume)
        if self._kind is _SESSION:
            self._owner.spawn(self._run_session(), f"asyncmg-conn-{self.id}")
        elif self._kind is _ASYNC and not self._is_beginning:
            self._owner.spawn(self._run_handler(queue), f"asyncmg-conn-{self.id}")
        return queue

    def _begin_handler(self, ev: int, data: Any) -> bool:
        """Run an async handler to its first suspension; False: it cannot begin now."""
        owner = self._owner
        if self._is_beginning:  # it has caused an event itself
            return False
        carrier = owner.spare
        if carrier is None or not carrier.is_waiting or owner.is_polled:
            carrier = owner.carrier()
            if carrier is None:
                return False
        handler = self._handler or owner.default_handler
        assert handler is not None
        context = self._context
        if context is None:
            context = self._context = copy_context()
        try:
            coro = handler(self, ev, data)
        except Exception as exc:
            coro = _wait_for(exc)
        if type(coro) is not CoroutineType:
            coro = _wait_for(coro)
        self._is_beginning = True
        outcome = carrier.begin(coro, context)
        self._is_beginning = False
        if outcome is None:
            pass
        elif isinstance(outcome, list):
            queue = self._queue
            if queue is None:
                queue = self._queue = EventQueue(owner.limits.buffers.max_queued_events, self._resume)
            rest = functools.partial(self._run_handler, queue)
            carrier.take(Steps(coro, context, outcome), rest, f"asyncmg-conn-{self.id}")
            owner.hand_over(carrier)
            return True
        elif isinstance(outcome, Exception | asyncio.CancelledError):
            self._handle_async_error(outcome)
        if self._queue is not None:  # it has caused events
            owner.spawn(self._run_handler(self._queue), f"asyncmg-conn-{self.id}")
        if outcome is not None and not isinstance(outcome, Exception | asyncio.CancelledError):
            raise outcome  # it wants the program to exit
        return True

    def _pause(self, paused: bool) -> None:
        if isinstance(self.protocol, BaseProtocol):
            if paused:
                self.protocol.pause_reading(Pause.EVENTS)
            else:
                self.protocol.resume_reading(Pause.EVENTS)

    def _resume(self) -> None:
        self._pause(False)

    async def _run_session(self) -> None:
        """The connection's one task, for a session."""
        handler = self._handler or self._owner.default_handler
        assert handler is not None
        await self._await_handler(_as_coroutine(handler, self))
        self.drain()

    async def _run_handler(self, queue: EventQueue, begun: Awaitable[Any] | None = None) -> None:
        """Serve an async handler with the events that came while it was busy, until there are none."""
        try:
            if begun is not None:
                await self._await_handler(begun)
            await self._serve(queue)
        except asyncio.CancelledError:
            if not self._owner.has_ended:  # somebody has cancelled this one handler: MG_EV_CLOSE is still to come
                self._owner.spawn(self._run_handler(queue), f"asyncmg-conn-{self.id}")
            raise

    async def _serve(self, queue: EventQueue) -> None:
        while (event := await queue.get_waiting()) is not None:
            handler = self._handler or self._owner.default_handler
            if handler is not None:
                if self._context is None:
                    self._context = copy_context()
                await self._await_handler(Steps(_as_coroutine(handler, self, *event), self._context))
        self._queue = None

    async def _await_handler(self, begun: Awaitable[Any]) -> None:
        """Wait for a handler; what it raises is reported."""
        try:
            await begun
        except asyncio.CancelledError as exc:
            if _is_being_cancelled():
                self.close()
                raise
            self._handle_async_error(exc)
        except Exception as exc:
            self._handle_async_error(exc)

    def _handle_async_error(self, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._handle_handler_error(_as_handler_error(error))
        elif isinstance(error, Exception) and not self._is_the_end(error):
            self._handle_handler_error(error)

    @property
    def handler(self) -> Handler | None:
        """The connection's own handler; None when the Manager's default serves it."""
        return self._handler

    def set_handler(self, handler: Handler | None) -> None:
        """Set the handler of this connection; None: the Manager's default.

        Raises:
            TypeError: it is not callable.
            BusyError: events are already queued for a session or an iterator, or the handler is a session and others
                have been served before it.
        """
        kind = handler_kind(handler if handler is not None else self._owner.default_handler)
        if self._queue is not None and self._kind in (_NONE, _SESSION):
            if kind is not _NONE and not self._closed:
                raise BusyError("this connection's events are read by an iterator")
        elif (self._queue is not None or self._context is not None) and kind is _SESSION:
            raise BusyError("an async handler is serving this connection: a session cannot take over")
        else:
            self._kind = kind
        self._handler = handler

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, Any]:
        """Return the next event as ``(ev, data)``; the iteration ends after MG_EV_CLOSE.

        From the first call on, events are queued for the iterator instead of being given to a handler. Leaving the
        loop closes nothing. Cancelling is safe: no event is lost.

        Raises:
            BusyError: another task is waiting for this connection's events.
        """
        queue = self._queue
        if queue is None:
            if self._closed:
                raise StopAsyncIteration
            self._kind = _NONE
            queue = self._begin_queue()
        return await queue.get()

    # -- being connected -------------------------------------------------------------------------------------------

    async def connected(self) -> None:
        """Wait until the connection is made, TLS and the WebSocket handshake included; at once when it is.

        Cancelling is safe; the connection goes on.

        Raises:
            ConnectFailed: it could not be made; the cause is chained.
        """
        if self._closed or self.protocol.is_closing:
            raise _as_connect_error(self._error)
        if self.protocol.is_opening or not self.protocol.is_connected:
            if self._is_connected is None:
                self._is_connected = asyncio.get_running_loop().create_future()
                if self._queue is not None and self._kind is _NONE:
                    self._queue.release()
            await asyncio.shield(self._is_connected)

    async def __aenter__(self) -> Self:
        try:
            await self.connected()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is None:
            self.drain()
        else:
            self.close()

    # -- properties --------------------------------------------------------------------------------------------------

    @property
    def is_listening(self) -> bool:
        """Whether this is a listener: of connections, or a UDP socket that serves many peers."""
        return isinstance(self.protocol, DatagramProtocol) and not self.protocol.is_client

    @property
    def is_client(self) -> bool:
        """Whether we made the connection."""
        return bool(self.protocol.is_client)

    @property
    def is_tls(self) -> bool:
        """Whether the connection is, or is about to be, protected by TLS."""
        return not self._closed and bool(self.protocol.is_tls or self.protocol.tls_is_due)

    @property
    def is_udp(self) -> bool:
        return isinstance(self.protocol, DatagramProtocol)

    @property
    def is_websocket(self) -> bool:
        """Whether the connection has been upgraded to WebSocket."""
        return bool(getattr(self.protocol, "is_websocket", False))

    @property
    def is_readable(self) -> bool:
        """Whether received bytes wait to be taken."""
        return not self._closed and self.protocol.recv_len > 0

    @property
    def is_writable(self) -> bool:
        """Whether more can be sent without going over the send buffer's high-water mark."""
        return not self._closed and bool(self.protocol.is_writable)

    @property
    def is_full(self) -> bool:
        """Whether reading is paused, because what was received is not taken."""
        return not self._closed and bool(self.protocol.is_full)

    @property
    def is_draining(self) -> bool:
        """Whether the connection closes as soon as its output has left."""
        return not self._closed and bool(self.protocol.is_draining)

    @property
    def is_ended(self) -> bool:
        """Whether MG_EV_CLOSE has come."""
        return self._closed

    @property
    def is_closing(self) -> bool:
        """Whether the connection is closed or about to be."""
        return self._closed or bool(self.protocol.is_closing)

    @property
    def local_addr(self) -> Address | None:
        """Our address as ``(ip, port)``; None before the connection is made and after it is closed."""
        return None if self._closed else address_of(self.protocol.sockname)

    @property
    def remote_addr(self) -> Address | None:
        """The peer's address as ``(ip, port)``; of a UDP listener the sender of the current datagram.

        Before there is a peer it is what MG_EV_RESOLVE has brought.
        """
        return None if self._closed else address_of(self.protocol.peername) or self.resolved

    @property
    def recv_len(self) -> int:
        """Received bytes that are not taken."""
        return 0 if self._closed else int(self.protocol.recv_len)

    @property
    def send_len(self) -> int:
        """Bytes to be sent that the kernel has not taken."""
        return 0 if self._closed else int(self.protocol.send_len)

    @property
    def recv_size(self) -> int:
        """Received bytes at which reading stops."""
        return 0 if self._closed else self._owner.limits.buffers.max_recv_buffer

    @property
    def send_size(self) -> int:
        """Unsent bytes at which the connection is given up."""
        return 0 if self._closed else self._owner.limits.buffers.max_send_buffer

    # -- verbs -------------------------------------------------------------------------------------------------------

    def recv_data(self, length: int = -1) -> bytes:
        """Look at received bytes, all by default, without taking them; b"" when closed."""
        return b"" if self._closed else bytes(self.protocol.peek(length))

    def read(self, length: int = -1) -> bytes:
        """Take received bytes, all by default; b"" when there are none. Of UDP: the current datagram.

        Raises:
            LocalProtocolError: the connection's protocol takes its input itself.
        """
        return b"" if self._closed else bytes(self.protocol.read(length))

    def send_data(self, length: int = -1) -> bytes:
        """Look at bytes that this loop turn has queued for sending; b"" when closed."""
        return b"" if self._closed else bytes(self.protocol.unsent(length))

    def send(self, data: str | bytes) -> None:
        """Send bytes (a str as UTF-8); of UDP: one datagram. Everything that one loop turn sends leaves together.

        Raises:
            ConnectionClosed: the connection is closed or draining.
        """
        if self._closed:
            raise ConnectionClosed("Connection has been closed")
        # memoryview refuses an int, of which bytes() would make as many NULs.
        self.protocol.send(
            data.encode("utf-8", "surrogateescape") if isinstance(data, str) else bytes(memoryview(data))
        )

    async def flush(self) -> None:
        """Wait until the send buffer is below its high-water mark.

        Cancelling is safe: nothing is lost.

        Raises:
            ConnectionClosed: the connection is closed, or ends while waiting; its cause is chained.
        """
        if self._closed:
            raise ConnectionClosed("Connection has been closed") from self._error
        await self.protocol.flush()

    def drain(self) -> None:
        """Send what is queued, then close. To wait for room in the send buffer, see :meth:`flush`."""
        if self._closed:
            return
        if self.protocol.is_connected or self.protocol.send_len:
            self.protocol.drain()
        else:
            self.close()

    def close(self) -> None:
        """Close now; MG_EV_CLOSE follows. Nothing happens when it is closed already."""
        # Once there is a transport it is the protocol's: cancelling would lose connection_lost (uvloop).
        if self._connecting is not None and not self.protocol.is_connected:
            self._connecting.cancel()
        if not self._closed:
            self.protocol.close()

    def error(self, message: str) -> None:
        """Emit MG_EV_ERROR with an exception whose text is ``message``, then close."""
        if self._closed:
            raise ConnectionClosed("Connection has been closed")
        self.protocol.fail(AsyncmgError(message))

    def tls_init(self, opts: TlsArgument | None = None) -> None:
        """Begin TLS: in MG_EV_ACCEPT with a certificate, in MG_EV_CONNECT with or without options.

        What is sent from now on leaves encrypted; MG_EV_TLS_HS tells when the handshake is complete.

        Raises:
            TlsError: the options cannot be used.
            LocalProtocolError: there is TLS already, or the connection cannot have it.
        """
        protocol = self._stream()
        received = protocol.read() if isinstance(protocol, StreamProtocol) else b""
        protocol.start_tls(opts, received)

    def tls_free(self) -> None:
        """Do nothing: TLS is freed with its connection. It is here for programs written for Mongoose."""

    def _stream(self) -> BaseProtocol:
        if self._closed:
            raise ConnectionClosed("Connection has been closed")
        if not isinstance(self.protocol, BaseProtocol):
            raise LocalProtocolError("not a stream connection")
        return self.protocol

    @property
    def counts_as_accepted(self) -> bool:
        """Whether the connection takes one of the places of max_connections."""
        return isinstance(self.protocol, BaseProtocol) and not self.protocol.is_client

    # -- for the manager ---------------------------------------------------------------------------------------------

    def attach(self, protocol: BaseProtocol | DatagramProtocol, connecting: asyncio.Task[Any] | None = None) -> None:
        """Give the connection its protocol object, and the task that connects it."""
        self.protocol = protocol
        self._connecting = connecting

    def shutdown(self) -> None:
        """Begin a graceful stop."""
        if self._connecting is not None and not self.protocol.is_connected:
            self.close()
        elif not self._closed:
            self.protocol.shutdown()


async def _wait_for(outcome: Any) -> None:
    if isinstance(outcome, Exception):
        raise outcome
    if isinstance(outcome, Awaitable):
        await outcome


def _as_coroutine(handler: Handler, *args: Any) -> Coroutine[Any, Any, Any]:
    """Call a handler; whatever it does and returns, the answer is a coroutine that has not begun."""
    try:
        outcome = handler(*args)
    except Exception as exc:
        outcome = exc
    return outcome if type(outcome) is CoroutineType else _wait_for(outcome)


_LANDMARKS = frozenset(map(int, (MG_EV_ACCEPT, MG_EV_CONNECT, MG_EV_TLS_HS, MG_EV_ERROR, MG_EV_CLOSE)))
_LAST_LANDMARK = max(_LANDMARKS)


def _is_being_cancelled() -> bool:
    """Whether a CancelledError is meant for the current task, and not the outcome of something it awaited."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _as_handler_error(error: asyncio.CancelledError) -> AsyncmgError:
    failure = AsyncmgError("a handler awaited something that was cancelled")
    failure.__cause__ = error
    return failure


def _as_connect_error(error: Exception | None) -> ConnectFailed:
    if isinstance(error, ConnectFailed):
        return error
    failure = ConnectFailed(str(error) if error is not None else "closed before it was connected")
    failure.__cause__ = error
    return failure
