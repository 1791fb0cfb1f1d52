"""The native backend: sockets of the C engine (``core/amg.h``) as asyncio transports, inside any event loop.

The engine's descriptor is one reader of the loop. When it is readable, one call takes everything that has happened,
the protocol objects handle it, and one call hands all their output back: two calls into C per loop turn, whatever the
number of connections. No thread, and no transport of the loop's own.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from asyncmg.core import Core, CoreUnavailable
from asyncmg.core.records import (
    AMG_ACCEPTED,
    AMG_BROKEN,
    AMG_CLOSED,
    AMG_DATA,
    AMG_DATAGRAM,
    AMG_DATAGRAM_SOCKET,
    AMG_EOF,
    AMG_FAILED,
    AMG_FRAME,
    AMG_FRAMES,
    AMG_HTTP,
    AMG_LISTENER,
    AMG_OP_ABORT,
    AMG_OP_ACCEPT,
    AMG_OP_RELEASE,
    AMG_PACKET,
    AMG_PACKETS,
    AMG_POLLER_AUTO,
    AMG_REQUEST,
    AMG_SENT,
    AMG_STREAM,
    AMG_TIMEOUT,
    AMG_WS_ERROR,
    COMPLETION,
    ENGINE_CONFIG,
    MQTT_RECORD,
    NOTICE,
    SUBMISSION,
    WS_RECORD,
    http1_limits,
)
from asyncmg.limits import Limits, NetLimits
from asyncmg.messages import WholeRequest

from .backend import Accepted
from .native_sockets import Frames, NativeDatagramTransport, NativeTransport
from .sockets import Room, SocketPath, max_descriptors

_MAX_COMPLETIONS = 2048
_ARENA_SIZE = 1 << 20
_MIN_READ = 1024  # the engine's least for what it receives from one connection in a turn
_MAX_CONNS = 1 << 20  # the engine's most
_SPARE_SOCKETS = 1024  # beside accepted connections: listeners, outgoing ones, datagram sockets

_pack = SUBMISSION.pack


class NativeBackend:
    """An engine in a loop; the interface is :class:`asyncmg.transports.backend.Backend`.

    Raises:
        CoreUnavailable: the library has no engine, or the system refuses one.
        NotImplementedError: the loop has no ``add_reader``.
    """

    __slots__ = (
        "_arena",
        "_completions",
        "_engine",
        "_fd",
        "_flush_is_due",
        "_functions",
        "_is_closing",
        "_left",
        "_notices",
        "_open",
        "_sockets",
        "_switching",
        "_timer",
        "_timer_at",
        "_turn_is_due",
        "batch",
        "bytes_offset",
        "endings",
        "far",
        "in_turn",
        "loop",
        "pieces",
        "polled",
        "queued",
    )

    name = "native"

    def __init__(self, core: Core, loop: asyncio.AbstractEventLoop, limits: Limits) -> None:
        functions = core.engine
        if functions is None:
            raise CoreUnavailable("the library has no engine: this system is not POSIX")
        self.loop = loop
        self.batch = 0  # number of the submission that is being collected
        self.polled = 0  # what it was when the engine was last polled
        self.in_turn = False
        self._functions = functions
        self.pieces: list[bytes] = []
        self.far: list[object] = []
        self.bytes_offset = core.bytes_offset
        self.endings: deque[Callable[[], None]] = deque()  # to be called when a turn has been handled
        self.queued = 0
        self._flush_is_due = False
        self._turn_is_due = False
        self._is_closing = False
        self._left: list[tuple[Any, ...]] = []  # completions of a turn that was cut off
        self._open = 0  # sockets
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._sockets: list[Any] = []
        self._switching: list[NativeTransport] = []  # those whose input will be frames or packets
        max_conns = min(max_descriptors(), limits.net.max_connections + _SPARE_SOCKETS, _MAX_CONNS)
        self._engine: int | None = functions.new(
            ENGINE_CONFIG.pack(
                max_conns,
                _MAX_COMPLETIONS,
                _ARENA_SIZE,
                min(max(limits.buffers.max_turn_input, _MIN_READ), _ARENA_SIZE),
                limits.buffers.max_unsent,
                AMG_POLLER_AUTO,
                min(max(1, int(limits.net.accept_retry_delay * 1000)), 1 << 30),
                http1_limits(limits.http),
            )
        )
        if self._engine is None:
            raise CoreUnavailable("the system refuses an engine")
        self._fd = functions.fd(self._engine)
        if self._fd < 0:
            self.free()
            raise CoreUnavailable("this system has neither epoll nor kqueue: no loop can wait for the engine")
        self._arena = core.characters(functions.arena(self._engine), _ARENA_SIZE)
        self._completions = core.view(functions.completions(self._engine), _MAX_COMPLETIONS * COMPLETION.size)
        self._notices = core.view(functions.notices(self._engine), max_conns * NOTICE.size)
        try:
            loop.add_reader(self._fd, self._turn)
        except BaseException:
            self.free()
            raise

    def __del__(self) -> None:
        self.free()

    # -- turns -------------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Take what has happened, let the protocols handle it, hand over what they send."""
        self._turn_is_due = False
        if self._engine is None:
            return
        completions: Iterator[tuple[Any, ...]]
        if self._left:
            completions, self._left = iter(self._left), []
        else:
            self.polled = self.batch
            count = self._functions.poll(self._engine, 0)
            completions = COMPLETION.iter_unpack(self._completions[: count * COMPLETION.size])
        self.in_turn = True
        try:
            self._dispatch(completions)
            while self.endings:
                self._end(self.endings.popleft())
        except BaseException:
            # A handler has raised SystemExit, or the like: what it has cut off is for the next turn.
            self._left = list(completions)
            self._turn_soon()
            raise
        finally:
            self.in_turn = False
        if self._switching:
            self._switch()
        self.flush()
        self._plan_turn()

    def _end(self, callback: Callable[[], None]) -> None:
        """Call back whoever waits for the end of the turn."""
        try:
            callback()
        except Exception as exc:
            self.loop.call_exception_handler({"message": "a protocol raised", "exception": exc})

    def _dispatch(self, completions: Iterator[tuple[Any, ...]]) -> None:
        sockets, arena = self._sockets, self._arena
        for op, flags, conn, offset, length, head, method_length, target_length, error in completions:
            sock = sockets[conn] if op != AMG_ACCEPTED else sockets[head]
            try:
                if op == AMG_REQUEST:
                    sock.handle_request(
                        WholeRequest(arena[offset : offset + length], head, method_length, target_length, flags)
                    )
                elif op == AMG_DATA:
                    sock.handle_data(arena[offset : offset + length])
                elif op == AMG_PACKET:
                    first, before = flags & 255, flags >> 8
                    record = (first, 0, error, offset, length, head, method_length, target_length)
                    sock.handle_packets((record,), arena, offset - before, target_length - offset + before)
                elif op == AMG_PACKETS:
                    records = MQTT_RECORD.iter_unpack(arena[offset : offset + length])
                    sock.handle_packets(records, arena, method_length, head)
                elif op == AMG_FRAME and flags != AMG_WS_ERROR:
                    sock.handle_frames(((flags, arena[offset : offset + length]),), head)
                elif op == AMG_FRAME:
                    sock.handle_frames((), head, error, length << 32 | offset)
                elif op == AMG_FRAMES:
                    sock.handle_frames(*self._take_frames(arena[offset : offset + length], head))
                elif op == AMG_SENT:
                    sock.handle_sent(length)
                elif op == AMG_ACCEPTED:
                    sock.handle_accepted(conn, arena[offset : offset + length])
                elif op == AMG_CLOSED:
                    self._release(conn)
                    sock.handle_closed(error)
                elif op == AMG_EOF:
                    sock.handle_eof()
                elif op == AMG_DATAGRAM:
                    sock.handle_datagram(arena[offset + head : offset + length], arena[offset : offset + head])
                elif op == AMG_FAILED:
                    sock.handle_failure(error)
                elif op == AMG_TIMEOUT:
                    sock.handle_timeout()
            except Exception as exc:
                # A protocol's own bug: it must not cost the others their turn.
                self.loop.call_exception_handler({"message": "a protocol raised", "exception": exc, "transport": sock})
                if op != AMG_CLOSED:
                    self.submit(AMG_OP_ABORT, conn)

    def _take_frames(self, raw: bytes, size: int) -> tuple[Frames, int, int, int]:
        """Return what handle_frames() takes, from records in the arena."""
        arena = self._arena
        found = list(WS_RECORD.iter_unpack(raw))
        error = value = 0
        if found and found[-1][0] == AMG_WS_ERROR:
            _, low, high, error = found.pop()
            value = high << 32 | low
        records = [(flags, arena[offset : offset + length]) for flags, offset, length, _ in found]
        return records, size, error, value

    def switch_input(self, transport: NativeTransport) -> None:
        """Let the engine read frames or packets of a stream, when all that it has received is with the protocol."""
        self._switching.append(transport)
        if not self.in_turn and not self._left:
            self._switch()
            self.flush()  # before anything more is received

    def _switch(self) -> None:
        switching, self._switching = self._switching, []
        for transport in switching:
            try:
                transport.begin_now()
            except Exception as exc:
                context = {"message": "a protocol raised", "exception": exc, "transport": transport}
                self.loop.call_exception_handler(context)
                transport.abort()

    def _plan_turn(self) -> None:
        """Come back when the engine has something to do that no socket tells."""
        engine = self._engine
        if engine is None or self._turn_is_due:
            return
        wait = self._functions.wait(engine)
        if wait == 0:
            self._turn_soon()
        elif wait > 0:
            when = self.loop.time() + wait / 1000
            if self._timer is None or when < self._timer_at:
                if self._timer is not None:
                    self._timer.cancel()
                self._timer_at = when
                self._timer = self.loop.call_at(when, self._handle_timer)

    def _handle_timer(self) -> None:
        self._timer = None
        self._turn()

    def _turn_soon(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            self.loop.call_soon(self._turn)

    # -- submissions -------------------------------------------------------------------------------------------------

    def flush_soon(self) -> None:
        """Hand over what is collected in the loop's next turn."""
        if not self._flush_is_due:
            self._flush_is_due = True
            self.loop.call_soon(self._flush_and_plan)

    def submit(self, op: int, conn: int, arg: int = 0, payload: bytes = b"") -> None:
        """Collect another submission; what it leads to is taken in the next turn."""
        self.pieces.append(_pack(op, 0, conn, len(payload), arg))
        if payload:
            self.pieces.append(payload)
        if not self.in_turn:
            self.flush_soon()

    def _flush_and_plan(self) -> None:
        self.flush()
        self._plan_turn()

    def flush(self) -> None:
        """Hand over what is collected."""
        self._flush_is_due = False
        pieces = self.pieces
        if not pieces or self._engine is None:
            return
        data = b"".join(pieces)
        pieces.clear()
        self.queued = 0
        self.batch += 1
        count = self._functions.submit(self._engine, data, len(data))
        self.far.clear()
        if count:
            # A copy: what a protocol does about it may submit again.
            for conn, unsent in list(NOTICE.iter_unpack(self._notices[: count * NOTICE.size])):
                sock = self._sockets[conn]
                if unsent == AMG_BROKEN:
                    self._turn_soon()
                elif sock is not None:
                    sock.handle_backlog(unsent)

    # -- sockets -----------------------------------------------------------------------------------------------------

    def adopt(self, sock: socket.socket, kind: int, user: Any) -> int:
        """Give a socket to the engine, which closes it from now on; return its number.

        Args:
            user: what handles its completions.

        Raises:
            OSError: it cannot be taken; the socket is closed.
        """
        fd = sock.detach()
        conn = self._functions.adopt(self._engine, fd, kind) if self._engine is not None else -1
        if conn < 0:
            os.close(fd)
            raise OSError(-conn, os.strerror(-conn))
        self.register(conn, user)
        return int(conn)

    def register(self, conn: int, user: Any) -> None:
        """Make somebody the user of a socket."""
        sockets = self._sockets
        if conn >= len(sockets):
            sockets.extend([None] * (conn + 1 - len(sockets)))
        if sockets[conn] is None:
            self._open += 1
        sockets[conn] = user

    def _release(self, conn: int) -> None:
        self._sockets[conn] = None
        self._open -= 1
        self.submit(AMG_OP_RELEASE, conn)
        if self._is_closing and not self._open:
            self.loop.call_soon(self.free)

    def fileno(self, conn: int) -> int:
        """Return a socket's descriptor, -1 when it is closed."""
        return int(self._functions.socket(self._engine, conn)) if self._engine is not None else -1

    def accept_on(
        self,
        sock: socket.socket,
        accepted: Callable[[Accepted], None],
        room: Room,
        failed: Callable[[Exception], None],
        limits: NetLimits,
        *,
        http: bool,
    ) -> NativeAcceptLoop:
        return NativeAcceptLoop(self, sock, accepted, room, failed, http=http)

    async def open_stream(self, sock: socket.socket, protocol: asyncio.Protocol) -> None:
        try:
            peer = sock.getpeername()
        except OSError:
            sock.close()
            raise
        transport = NativeTransport(self, protocol, b"", peer)
        conn = self.adopt(sock, AMG_STREAM, transport)
        try:
            transport.open(conn)
        except BaseException:
            self.submit(AMG_OP_ABORT, conn)
            raise

    async def open_datagram(self, sock: socket.socket, protocol: asyncio.DatagramProtocol) -> None:
        transport = NativeDatagramTransport(self, protocol, sock)
        try:
            conn = self.adopt(sock, AMG_DATAGRAM_SOCKET, transport)
        except OSError:
            transport.get_extra_info("socket").close()
            raise
        transport.open(conn)

    def close(self) -> None:
        """Free the engine when no socket is left; otherwise when the last one has ended."""
        self._is_closing = True
        if not self._open:
            self.free()

    def free(self) -> None:
        """Free the engine at once, or at the end of its turn, and close what is left without a word."""
        if getattr(self, "in_turn", False):  # its memory is being read
            self.loop.call_soon(self.free)
            return
        engine, self._engine = getattr(self, "_engine", None), None
        if engine is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        if self._fd >= 0 and not self.loop.is_closed():
            self.loop.remove_reader(self._fd)
        # The arena and the tables go with the engine: views must not outlive it.
        self._arena = b""
        self._completions = self._notices = memoryview(b"")
        self._functions.free(engine)


class NativeAccepted:
    """An accepted connection of the engine's that nobody has yet."""

    __slots__ = ("_backend", "_conn", "_peer")

    def __init__(self, backend: NativeBackend, conn: int, peer: bytes) -> None:
        self._backend = backend
        self._conn = conn
        self._peer = peer

    def give_to(self, protocol: asyncio.Protocol) -> None:
        transport = NativeTransport(self._backend, protocol, self._peer)
        self._backend.register(self._conn, transport)
        transport.open(self._conn)

    def close(self) -> None:
        self._backend.submit(AMG_OP_ABORT, self._conn)


class NativeAcceptLoop:
    """Accepts connections of one listening socket; the interface is :class:`asyncmg.transports.backend.Accepting`."""

    def __init__(
        self,
        backend: NativeBackend,
        sock: socket.socket,
        accepted: Callable[[Accepted], None],
        room: Room,
        failed: Callable[[Exception], None],
        *,
        http: bool,
    ) -> None:
        self._backend = backend
        self._accepted = accepted
        self._room = room
        self._failed = failed
        self._credit = 0  # connections that the engine may still accept
        self._used_up: asyncio.Future[None] | None = None
        self._path = SocketPath(sock)
        self._sock = sock  # the engine gets a duplicate: the listener asks this one for its address
        self._conn = backend.adopt(sock.dup(), AMG_LISTENER | (AMG_HTTP if http else 0), self)
        self._is_closed = False

    async def run(self) -> None:
        """Accept until cancelled. Cancelling is safe: an accepted connection has been handed over or does not exist."""
        while True:
            self._change_credit(min(_MAX_CREDIT, await self._room.wait()))
            self._backend.submit(AMG_OP_ACCEPT, self._conn, self._credit)
            self._used_up = self._backend.loop.create_future()
            await self._used_up

    def _change_credit(self, credit: int) -> None:
        # One is not reserved: a listener to which nobody comes must not keep the last place from the others. So there
        # may be as many connections too many as there are other listeners, as on the asyncio backend.
        self._room.reserve(max(0, credit - 1) - max(0, self._credit - 1))
        self._credit = credit

    def handle_accepted(self, conn: int, peer: bytes) -> None:
        accepted = NativeAccepted(self._backend, conn, peer)
        self._backend.register(conn, self)  # until somebody has it
        if self._is_closed:
            accepted.close()
            return
        self._change_credit(self._credit - 1)
        self._accepted(accepted)
        if self._credit == 0 and self._used_up is not None and not self._used_up.done():
            self._used_up.set_result(None)

    def handle_failure(self, error: int) -> None:
        """One connection could not be accepted: the others can."""

    def handle_closed(self, error: int) -> None:
        if error and not self._is_closed:
            self._failed(OSError(error, os.strerror(error)))

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._change_credit(0)
            self._backend.submit(AMG_OP_ABORT, self._conn)
            self._sock.close()
            self._path.remove()


_MAX_CREDIT = 64
