"""What every stream protocol shares: output that leaves once per loop turn, deadlines, TLS, orderly ends.

A protocol object owns the bytes of both directions over its transport and tells its sink what happens, as events. It
knows nothing of Manager and Connection; used alone it is an ordinary :class:`asyncio.Protocol`.

How a connection ends::

    drain()   output leaves -> _shut(): our side is ended -> lingering, when the protocol wants it -> _finish()
    close()   what the kernel takes at once leaves -> _finish(), or abort() when it does not take everything
    fail()    MG_EV_ERROR -> abort()
    abort()   nothing more leaves
    _finish() and abort() end the transport; connection_lost() then emits MG_EV_CLOSE, once.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from enum import StrEnum
from typing import Any, cast

from asyncmg.codecs.http import Role
from asyncmg.dispatch import EventSink
from asyncmg.errors import (
    AsyncmgError,
    ConnectFailed,
    ConnectionClosed,
    LimitExceeded,
    LocalProtocolError,
    TlsError,
)
from asyncmg.events import (
    MG_EV_ACCEPT,
    MG_EV_CLOSE,
    MG_EV_CONNECT,
    MG_EV_ERROR,
    MG_EV_OPEN,
    MG_EV_READ,
    MG_EV_TLS_HS,
    MG_EV_WRITE,
)
from asyncmg.limits import DEFAULT_LIMITS, Limits
from asyncmg.messages import WholeRequest
from asyncmg.tls import TlsOpts, client_context_of, server_context_of, server_name_of
from asyncmg.transports.native_sockets import NativeTransport
from asyncmg.transports.tls import TlsTransport
from asyncmg.transports.unconnected import UNCONNECTED

from .deadlines import Deadlines
from .output import Output

TlsArgument = TlsOpts | ssl.SSLContext

# Members looked up once: through their class that takes Python 3.11 75 ns each.
_SERVER, _CLIENT = Role.SERVER, Role.CLIENT
_READ = 1 << MG_EV_READ
_WRITE = 1 << MG_EV_WRITE


class Phase(StrEnum):
    """Life of a connection as its protocol sees it."""

    UNCONNECTED = "unconnected"
    OPEN = "open"
    DRAINING = "draining"  # what is buffered leaves, then the connection ends
    LINGERING = "lingering"  # our side is shut; input is thrown away until the peer has closed as well
    CLOSED = "closed"  # nothing more will be sent; connection_lost is due or has come


class Pause:
    """Why reading is paused, as bits. The transport reads when none is left. (An IntFlag would cost 0.5 us a look.)"""

    EVENTS = 1  # the event queue is full
    TLS = 2  # ACCEPT or CONNECT is being handled: it may set up TLS
    CONTENT = 4  # received content is not taken
    BUSY = 8  # a request is being answered, or it is the others' turn


_UNCONNECTED, _OPEN, _DRAINING, _LINGERING, _CLOSED = Phase


class BaseProtocol(asyncio.Protocol):
    """A stream protocol in either role.

    Args:
        sink: where events go.
        role: SERVER emits OPEN and ACCEPT when the connection is made, CLIENT emits CONNECT.
        limits: see :mod:`asyncmg.limits`.
        loop: default: the running loop.
        tls_required: the connection must not carry a byte in the clear.
        tls: what to start TLS with when no handler of ACCEPT or CONNECT does; for a client None means the defaults.
        server_name: host name that a client expects in the server's certificate.
    """

    __slots__ = (
        "_drain_is_due",
        "_early",
        "_is_lost",
        "_paused",
        "_server_name",
        "_tls",
        "_tls_required",
        "deadlines",
        "has_been_made",
        "limits",
        "loop",
        "output",
        "peer_has_closed",
        "phase",
        "role",
        "sink",
        "transport",
    )

    alpn: tuple[str, ...] = ()

    def __init__(
        self,
        sink: EventSink,
        *,
        role: Role = Role.SERVER,
        limits: Limits = DEFAULT_LIMITS,
        loop: asyncio.AbstractEventLoop | None = None,
        tls_required: bool = False,
        tls: TlsArgument | None = None,
        server_name: str = "",
    ) -> None:
        self.sink = sink
        self.role = role
        self.limits = limits
        self.loop = loop if loop is not None else asyncio.get_running_loop()
        self.transport: asyncio.Transport = UNCONNECTED
        self.phase = _UNCONNECTED
        self.deadlines = Deadlines(self.loop)
        self.output = Output(self.loop, limits.buffers, self.deadlines, self)
        self.output.tells_owner = bool(sink.wants & _WRITE)
        self.peer_has_closed = False
        self._is_lost = False
        self.has_been_made = False  # a transport owns the socket
        self._drain_is_due = False  # asked for before there was a connection
        self._tls_required = tls_required
        self._tls = tls
        self._server_name = server_name
        self._paused = 0
        self._early = b""  # ciphertext that came before TLS was set up

    # -- hooks for protocols -------------------------------------------------------------------------------------

    def handle_ready(self) -> None:
        """The connection can carry data (after TLS, when there is TLS)."""

    def receive_data(self, data: bytes) -> None:
        """Data came in while the connection is open or draining."""

    def handle_eof(self) -> None:
        """The peer will send nothing more. By default what is buffered leaves and the connection ends."""
        self.drain()

    def handle_lost(self, error: Exception | None) -> Exception | None:
        """The connection is gone. Return what user code should see as MG_EV_ERROR, None when it was an orderly end."""
        return error

    def handle_handler_error(self, error: Exception) -> None:
        """A handler raised; it has been reported already."""

    def shutdown(self) -> None:
        """Begin a graceful stop: finish what is under way, take on nothing new."""
        self.drain()

    @property
    def recv_len(self) -> int:
        """Bytes received and not yet taken."""
        return 0

    def peek(self, n: int = -1) -> bytes:
        """Return up to n received bytes (all by default) and keep them."""
        return b""

    def read(self, n: int = -1) -> bytes:
        """Take up to n received bytes (all by default); b"" when there are none."""
        raise LocalProtocolError("this connection's protocol takes its input itself: wait for its events")

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self.has_been_made = True
        if self.phase is _CLOSED:  # closed while it was being connected
            transport.abort()
            return
        self.transport = self.output.transport = transport
        self.phase = _OPEN
        transport.set_write_buffer_limits(high=self.limits.buffers.send_high_water)
        # asyncio's own transports read up to this much at once; 256 KiB is unfair to others, and slow to allocate.
        if hasattr(transport, "max_size"):
            transport.max_size = self.limits.buffers.max_turn_input
        if isinstance(transport, NativeTransport):
            self.deadlines.clock = transport
        if self._tls_required:
            self.pause_reading(Pause.TLS)
        else:
            self.output.is_held = False
            if self._paused:
                transport.pause_reading()
        self.output.in_turn = True
        try:
            if self.role is _SERVER:
                self.emit(MG_EV_OPEN)
                self.emit(MG_EV_ACCEPT)
            else:
                self.emit(MG_EV_CONNECT)
            if self._tls_required:
                self.sink.when_handled(self._require_tls)
            elif self.phase is _OPEN and not self.is_tls:
                self.handle_ready()
        finally:  # here and below: also when a handler exits
            self.output.end_turn()
        if self._drain_is_due:
            self.drain()

    def data_received(self, data: bytes) -> None:
        if self.phase is _LINGERING:
            self._extend_linger()
            return
        if self.phase is _CLOSED:
            return
        if self._paused & Pause.TLS:
            # uvloop begins to read behind connection_made even when that has paused it. Never in the clear.
            self._early += data
            self.transport.pause_reading()
            return
        self.output.in_turn = True
        try:
            self.receive_data(data)
        finally:
            self.output.end_turn()

    def request_received(self, request: WholeRequest) -> None:
        """A transport that reads requests has read one: bytes like others to who does not speak HTTP."""
        self.data_received(request.raw)

    def eof_received(self) -> bool:
        self.peer_has_closed = True
        if self.phase is _LINGERING:
            self._finish()
        elif self.phase is _OPEN:
            self.output.in_turn = True
            try:
                self.handle_eof()
            finally:
                self.output.end_turn()
        return True  # we close by ourselves

    def pause_writing(self) -> None:
        self.output.pause()

    def resume_writing(self) -> None:
        self.output.resume()
        if self.phase is _DRAINING:
            # Not at once: asyncio's transport would be closed below its own write, and say so twice.
            self.output.flush_soon()
        else:
            self.handle_writable()

    def handle_writable(self) -> None:
        """The send buffer has room again."""

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_lost:  # it was closed, and told so, while it was being connected
            return
        self._is_lost = True
        was_ending = self.phase in (_LINGERING, _CLOSED)
        self.phase = _CLOSED
        self.deadlines.cancel()
        self.output.discard()
        self.output.is_held = True
        error: Exception | None = None
        if exc is not None and not was_ending:
            error = exc if isinstance(exc, AsyncmgError) else ConnectionClosed(f"connection lost: {exc}")
            if error is not exc:
                error.__cause__ = exc
        error = self.handle_lost(error)
        self.output.wake(error or ConnectionClosed("Connection has been closed"))
        if error is not None and not was_ending:
            self.emit(MG_EV_ERROR, error)
        self.emit(MG_EV_CLOSE)
        self.transport = self.output.transport = UNCONNECTED

    # -- events --------------------------------------------------------------------------------------------------

    def emit(self, ev: int, data: Any = None) -> bool:
        """Give the sink an event; return whether it has been handled already."""
        return self.sink.handle_event(ev, data)

    def fail(self, error: Exception) -> None:
        """Report an error and end the connection at once: MG_EV_ERROR now, MG_EV_CLOSE when the transport is gone."""
        if self.phase is _CLOSED:
            return
        self.output.wake(error)
        self.emit(MG_EV_ERROR, error)
        self.abort()

    # -- state ---------------------------------------------------------------------------------------------------

    @property
    def is_client(self) -> bool:
        return self.role is _CLIENT

    @property
    def is_connected(self) -> bool:
        """There is, or was, a transport."""
        return self.phase is not _UNCONNECTED

    @property
    def is_draining(self) -> bool:
        return self.phase in (_DRAINING, _LINGERING) or (self._drain_is_due and self.phase is _UNCONNECTED)

    @property
    def is_closing(self) -> bool:
        return self.phase is _CLOSED

    @property
    def sockname(self) -> Any:
        return self.transport.get_extra_info("sockname")

    @property
    def peername(self) -> Any:
        return self.transport.get_extra_info("peername")

    # -- input ---------------------------------------------------------------------------------------------------

    def pause_reading(self, reason: int) -> None:
        if not self._paused and self.phase is not _LINGERING:
            self.transport.pause_reading()
        self._paused |= reason

    def resume_reading(self, reason: int) -> None:
        if self._paused & reason:
            self._paused &= ~reason
            if not self._paused and not self.transport.is_closing():
                self.transport.resume_reading()

    @property
    def is_full(self) -> bool:
        """Reading is paused because what was received is not taken."""
        return bool(self._paused & (Pause.EVENTS | Pause.CONTENT))

    # -- output --------------------------------------------------------------------------------------------------

    @property
    def send_len(self) -> int:
        """Bytes of output that the kernel has not taken yet."""
        return self.output.unsent

    @property
    def is_writable(self) -> bool:
        """More can be sent without waiting."""
        return self.phase is _OPEN and self.output.unsent < self.limits.buffers.send_high_water

    def unsent(self, n: int = -1) -> bytes:
        """Return up to n bytes of the output that this loop turn has collected and keep them."""
        return self.output.peek(n)

    def send(self, data: bytes) -> bool:
        """Send one message's bytes; False: the slow-client policy has dropped it."""
        is_admitted = self.admit()
        if is_admitted:
            self.output.write(data)
        return is_admitted

    def admit(self) -> bool:
        """Decide whether one more message may be sent (``slow_client``); False: drop it.

        Raises:
            ConnectionClosed: the connection is closed or draining, or is now, because the peer is too far behind.
        """
        if self.phase not in (_OPEN, _UNCONNECTED) or self._drain_is_due:
            raise ConnectionClosed("Connection has been closed")
        try:
            return self.output.admit()
        except LimitExceeded as exc:
            self.fail(exc)
            raise ConnectionClosed("Connection has been closed") from exc

    def handle_flushed(self, size: int) -> None:
        if size and self.sink.wants & _WRITE:
            self.emit(MG_EV_WRITE, size)
        if self.phase is _DRAINING and not self.output.peek(1):
            self._shut()

    async def flush(self) -> None:
        """Wait until the send buffer is below its high-water mark.

        Cancelling is safe: nothing is lost.

        Raises:
            ConnectionClosed: the connection ended meanwhile (or before); its cause is chained.
        """
        self.output.flush()
        if self.phase is _CLOSED:
            raise ConnectionClosed("Connection has been closed")
        if not await self.output.wait():
            await asyncio.sleep(0)  # a producer that is never slowed down must still let others in
            if self.is_closing:
                raise ConnectionClosed("Connection has been closed")

    def handle_stall(self, error: Exception) -> None:
        if self.phase is _CLOSED:  # the user has been told that it is over: only the transport is left
            self.transport.abort()
        else:
            self.fail(error)

    # -- TLS -----------------------------------------------------------------------------------------------------

    @property
    def tls_is_due(self) -> bool:
        """The connection must have TLS and its handshake is not complete."""
        return self._tls_required

    @property
    def is_opening(self) -> bool:
        """A client's connection is of no use yet: a handshake is under way."""
        return self._tls_required

    @property
    def is_tls(self) -> bool:
        return isinstance(self.transport, TlsTransport)

    def start_tls(self, tls: TlsArgument | None, received: bytes = b"") -> None:
        """Begin TLS on the connection; what is sent from now on leaves encrypted.

        Args:
            tls: options or an SSLContext; for a client None means verification against the system's roots.
            received: ciphertext that has come in already.

        Raises:
            LocalProtocolError: there is TLS already, or no connection.
            TlsError: the options cannot be used.
        """
        if self.is_tls or self.transport is UNCONNECTED:
            raise LocalProtocolError("TLS is set up already" if self.is_tls else "not connected yet")
        name: str | None = None
        if self.role is _SERVER:
            if tls is None:
                raise TlsError("a server needs a certificate")
            context = server_context_of(tls, self.alpn)
        else:
            context = client_context_of(tls, self.alpn)
            name = server_name_of(tls, self._server_name)
        net = self.limits.net
        transport = TlsTransport(
            self.transport,
            self,
            context,
            loop=self.loop,
            server_side=self.role is _SERVER,
            server_hostname=name,
            handshake_timeout=net.tls_handshake_timeout,
            shutdown_timeout=net.tls_shutdown_timeout,
            on_handshake=self._handle_handshake,
            on_failure=self._handle_tls_failure,
        )
        if not self.output.is_held:
            self.output.flush()  # what was sent before goes before
        self.transport = self.output.transport = transport
        self.output.is_held = False
        early, self._early = self._early, b""
        transport.start(received + early)
        self.resume_reading(Pause.TLS)

    def _require_tls(self) -> None:
        """ACCEPT or CONNECT has been handled: what no handler did about TLS is done now, never in the clear."""
        if self.is_tls or self.phase is _CLOSED:
            return
        if self._tls is None and self.role is _SERVER:
            reason = "no certificate: give tls= to listen(), or call conn.tls_init() in MG_EV_ACCEPT"
            self.fail(TlsError(reason))
            return
        try:
            self.start_tls(self._tls)
        except (TlsError, LocalProtocolError) as exc:
            self.fail(exc)

    def _handle_handshake(self) -> None:
        self._tls_required = False
        self.output.in_turn = True
        try:
            self.emit(MG_EV_TLS_HS)
            if self.phase is _OPEN:
                self.handle_ready()
        finally:
            self.output.end_turn()

    def _handle_tls_failure(self, error: TlsError) -> None:
        if self.role is _CLIENT:
            failure = ConnectFailed(str(error))
            failure.__cause__ = error
            self._report_failure(failure)
        else:
            self._report_failure(error)

    def _report_failure(self, error: Exception) -> None:
        """MG_EV_ERROR for a failure after which the transport closes by itself."""
        if self.phase is not _CLOSED:
            self.phase = _CLOSED
            self.emit(MG_EV_ERROR, error)

    # -- ends ----------------------------------------------------------------------------------------------------

    @property
    def lingers(self) -> bool:
        """Whether draining ends with a lingering close, so that unread input cannot reset our last bytes away."""
        return False

    def drain(self) -> None:
        """Flush, then close."""
        if self.phase is _UNCONNECTED:
            self._drain_is_due = True
        if self.phase is not _OPEN:
            return
        self.phase = _DRAINING
        self.output.tells_owner = True
        self.output.flush_soon()

    def _shut(self) -> None:
        """Everything is handed over: end our side, and the connection now or when the peer has ended as well."""
        if self.transport.get_write_buffer_size():
            # Wait until the transport is empty: the lingering clock is for the peer, not for our own queue.
            self.transport.set_write_buffer_limits(high=0)
            return
        if self.peer_has_closed or not self.lingers or not self.transport.can_write_eof():
            self._finish()
            return
        self.phase = _LINGERING
        self.deadlines.clear("read")
        net = self.limits.net
        now = self.loop.time()
        self.deadlines.set("linger", now + net.linger_timeout, self.abort)
        self._extend_linger()
        try:
            self.transport.write_eof()
        except OSError:  # the peer has reset the connection: nothing to wait for
            self.abort()
            return
        if self._paused:
            self._paused = 0
            self.transport.resume_reading()

    def _extend_linger(self) -> None:
        self.deadlines.set("read", self.loop.time() + self.limits.net.linger_idle_timeout, self.abort)

    def _finish(self) -> None:
        self.phase = _CLOSED
        self.output.is_held = True
        self.transport.close()  # flushes what the transport holds; the write deadline goes on watching

    def close(self) -> None:
        """Close now: what the kernel takes at once is still sent, the rest is dropped."""
        if self.phase is _CLOSED:
            return
        if self.phase is _OPEN:
            self.output.flush()
        if self.phase is _OPEN and not self.transport.get_write_buffer_size():
            self._finish()
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once and drop what has not been sent."""
        self._end_unconnected()
        self.phase = _CLOSED
        self.output.discard()
        self.output.is_held = True
        self.transport.abort()

    def end_with_reset(self) -> None:
        """Let the peer see, when the connection is aborted, that it was no orderly end."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                pass  # a Unix socket, or one that is gone

    def _end_unconnected(self) -> None:
        if self.phase is _UNCONNECTED:
            self.phase = _CLOSED
            self.loop.call_soon(self.connection_lost, None)

    # -- upgrade -------------------------------------------------------------------------------------------------

    def hand_over(self, successor: BaseProtocol, received: bytes) -> None:
        """Give transport, sink and the bytes already received to another protocol; no byte is lost or seen twice."""
        self.deadlines.cancel()
        transport = self.transport
        successor.transport = transport
        successor.phase = self.phase
        successor.peer_has_closed = self.peer_has_closed
        successor._paused = self._paused & Pause.EVENTS
        self.output.move_to(successor.output)
        self.transport = UNCONNECTED
        self.phase = _CLOSED
        successor.deadlines.clock = self.deadlines.clock
        transport.set_protocol(successor)
        successor.sink.switch_protocol(successor)
        if self._paused and not successor._paused:
            transport.resume_reading()
        successor.take_over(received)

    def adopt(self, transport: asyncio.Transport) -> None:
        """Begin on a transport inside another protocol's connection, whose beginning has been told already."""
        self.transport = self.output.transport = transport
        self.has_been_made = True
        self.phase = _OPEN
        self.output.is_held = False
        self.sink.switch_protocol(self)
        self.take_over(b"")

    def take_over(self, received: bytes) -> None:
        """Begin on a connection that another protocol has handed over."""
        self.output.in_turn = True
        try:
            if self.phase is _OPEN:
                self.handle_ready()
                if received:
                    self.receive_data(received)
                if self.peer_has_closed and self.phase is _OPEN:
                    self.handle_eof()
        finally:
            self.output.end_turn()

    def report_read(self, size: int) -> None:
        if self.sink.wants & _READ:
            self.emit(MG_EV_READ, size)
