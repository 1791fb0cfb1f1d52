"""What the native backend gives protocol objects: the engine's streams and datagram sockets, as asyncio transports."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from asyncmg.core.records import (
    AMG_OP_ABORT,
    AMG_OP_CLOSE,
    AMG_OP_DEADLINE,
    AMG_OP_FANOUT,
    AMG_OP_MQTT,
    AMG_OP_PAUSE,
    AMG_OP_RESUME,
    AMG_OP_SEND,
    AMG_OP_SEND_FAR,
    AMG_OP_SEND_FILE,
    AMG_OP_SENDTO,
    AMG_OP_SHUTDOWN,
    AMG_OP_WS,
    SUBMISSION,
)
from asyncmg.files.content import OpenFile
from asyncmg.messages import WholeRequest

from .sockaddr import decode_sockaddr, encode_sockaddr

_FLUSH_LIMIT = 256 << 10  # output collected in a turn before it is handed over in the middle of it
_MIN_FAR = 16 << 10  # from here on bytes are sent from where they lie: to copy them would cost more
_MAX_WAIT = 0xFFFFFFFF  # milliseconds
_NO_CONN = 0xFFFFFFFF  # a number that the engine never gives: what is submitted for it is ignored

_pack = SUBMISSION.pack
_pack_far = struct.Struct("=QQ").pack


class Engine(Protocol):
    """What transports need from the backend.

    Attributes:
        loop: the event loop.
        bytes_offset: where bytes lie, from their id() on.
        endings: called when what has come in this turn is handled, before what was collected is handed over.
        batch: number of the submission that is being collected.
        polled: what it was when the engine was last polled.
        pieces: the submission, in pieces.
        far: what it sends from where it lies: to be kept until then.
        queued: bytes of output in it.
        in_turn: it will be handed over at the end of the turn.
    """

    loop: asyncio.AbstractEventLoop
    batch: int
    polled: int
    bytes_offset: int
    endings: deque[Callable[[], None]]
    pieces: list[bytes]
    far: list[object]
    queued: int
    in_turn: bool

    def submit(self, op: int, conn: int, arg: int = 0, payload: bytes = b"") -> None: ...

    def flush_soon(self) -> None: ...

    def flush(self) -> None: ...

    def fileno(self, conn: int) -> int: ...

    def switch_input(self, transport: NativeTransport) -> None: ...


Frames = Sequence[tuple[int, bytes]]  # as a codec's receive_data returns them
Records = Iterable[tuple[int, ...]]  # as a codec's take() expects them


class NativeTransport(asyncio.Transport):
    """A stream of the engine's. The interface is :class:`asyncio.Transport`, ``max_size`` and ``sendfile`` left out."""

    __slots__ = (
        "_backend",
        "_backlog",
        "_batch",
        "_conn",
        "_deadline",
        "_deadline_at",
        "_export",
        "_export_op",
        "_files",
        "_held",
        "_high",
        "_is_closing",
        "_is_ending",
        "_is_full",
        "_is_reading",
        "_low",
        "_noticed",
        "_peer",
        "_peername",
        "_pending",
        "_protocol",
        "_sock",
    )

    def __init__(self, backend: Engine, protocol: Any, peer: bytes, peername: Any = None) -> None:
        # asyncio.BaseTransport.__init__ would make a dictionary for every connection.
        self._backend = backend
        self._protocol = protocol
        self._conn = _NO_CONN
        self._peer = peer  # a sockaddr, decoded when it is asked for
        self._peername = peername
        self._sock: socket.socket | None = None  # a duplicate, for those who ask for it
        self._is_closing = False
        self._is_ending = False  # our side is shut, or about to be
        self._is_reading = True
        self._held: list[Any] | None = None  # received in the turn in which reading was paused
        self._backlog = 0  # bytes that the engine holds
        self._noticed = -1  # number of the submission that was told last
        self._pending = 0  # bytes collected for the submission number _batch
        self._batch = -1
        self._is_full = False  # the protocol was told to pause writing
        self._high = 64 << 10
        self._low = 16 << 10
        self._deadline: Callable[[], None] | None = None
        self._deadline_at = 0.0
        self._export: Callable[[], bytes] | None = None  # the input will be frames or packets
        self._export_op = 0
        self._files: tuple[OpenFile, ...] = ()  # that the engine may still be sending

    @property
    def backend(self) -> Engine:
        """Whose transport it is."""
        return self._backend

    def open(self, conn: int) -> None:
        """Begin: the engine has the socket under this number."""
        self._conn = conn
        self._protocol.connection_made(self)

    # -- what the engine tells ---------------------------------------------------------------------------------------

    def handle_request(self, request: WholeRequest) -> None:
        if not self._is_reading or self._held:
            self._hold(request.raw)
        elif not self._is_closing:
            self._protocol.request_received(request)

    def handle_data(self, data: bytes) -> None:
        if not self._is_reading or self._held:
            self._hold(data)
        elif not self._is_closing:
            self._protocol.data_received(data)

    def handle_frames(self, records: Frames, size: int, error: int = 0, value: int = 0) -> None:
        if not self._is_reading or self._held:
            self._hold((records, size, error, value))
        elif not self._is_closing:
            self._protocol.frames_received(records, size, error, value)

    def handle_packets(self, records: Records, arena: Any, start: int, size: int) -> None:
        if not self._is_reading or self._held:
            self._hold(arena[start : start + size])  # as bytes: the arena is written anew before they are delivered
        elif not self._is_closing:
            self._protocol.packets_received(records, arena, size)

    def handle_eof(self) -> None:
        if not self._is_reading or self._held:
            self._hold(None)
        elif not self._is_closing and not self._protocol.eof_received():
            self.close()

    def _hold(self, received: bytes | tuple[Frames, int, int, int] | None) -> None:
        """Keep what came in the turn in which reading was paused; None: the end."""
        if self._held is None:
            self._held = []
        self._held.append(received)

    def _deliver_held(self) -> None:
        held, self._held = self._held or [], None
        while held and self._is_reading and not self._is_closing:
            received = held.pop(0)
            try:
                if received is None:
                    self.handle_eof()
                elif type(received) is tuple:
                    self.handle_frames(*received)
                else:
                    self.handle_data(received)
            except Exception as exc:
                self._report(exc)
                self.abort()
            except BaseException:  # a handler exits: the rest is for the next turn
                self._held = held
                self._backend.loop.call_soon(self._deliver_held)
                raise
        if held and not self._is_closing:
            self._held = held
        else:
            if self._is_reading and not self._is_closing:
                self._backend.submit(AMG_OP_RESUME, self._conn)
            if self._export is not None:
                self._backend.switch_input(self)

    def begin_frames(self, export: Callable[[], bytes]) -> None:
        """Let the engine read WebSocket frames, soon.

        Until then the protocol's ``data_received`` may be called, with what has been received before; from then on its
        ``frames_received(records, size, error, value)``: flags and payload of each piece, as a codec returns
        them; how many bytes they have come in; AMG_WS_E_ of what was wrong behind them, or 0; and what went over
        a limit, or the close code. Behind an error or a close frame there are no more records.

        Args:
            export: called at the switch; returns the payload of AMG_OP_WS: limits, and the state of the codec that has
                read all that came before. b"": the input stays bytes.
        """
        self._begin(AMG_OP_WS, export)

    def begin_packets(self, export: Callable[[], bytes]) -> None:
        """Let the engine read MQTT packets, soon.

        From then on the protocol's ``packets_received(records, arena, size)`` is called: amg_mqtt_records as tuples and
        what their places are in, both for a codec's ``take()`` at once and not to be kept; and how many bytes they have
        come in. ``data_received`` is called as well: with what has been received before, with packets that do not come
        in one piece, and with what came while reading was paused. It is for the codec's ``receive_data``.

        Args:
            export: called at the switch; returns the payload of AMG_OP_MQTT: limits, and the state of the codec that
                has read all that came before. b"": the input stays bytes; begin again after more of them.
        """
        self._begin(AMG_OP_MQTT, export)

    def _begin(self, op: int, export: Callable[[], bytes]) -> None:
        self._export = export
        self._export_op = op
        if self._backend.in_turn:
            self._backend.switch_input(self)
        else:  # not now: it may be in the middle of what was held
            self._backend.loop.call_soon(self._backend.switch_input, self)

    def begin_now(self) -> None:
        """There are no completions that have not been handled."""
        if self._held is None and not self._is_closing and self._export is not None:
            export, self._export = self._export, None
            payload = export()
            if payload:
                self._backend.submit(self._export_op, self._conn, 0, payload)

    def handle_backlog(self, unsent: int) -> None:
        self._backlog = unsent
        self._noticed = self._backend.batch
        if unsent > self._high and not self._is_full:
            self._is_full = True
            self._tell(self._protocol.pause_writing)

    def handle_sent(self, unsent: int) -> None:
        if self._noticed > self._backend.polled:
            return  # what a submission in this turn has left behind is newer
        self._backlog = unsent
        if self._files and not unsent:
            self._files = ()
        if self._is_full and unsent <= self._low:
            self._is_full = False
            self._tell(self._protocol.resume_writing)

    def _tell(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as exc:
            self._report(exc)

    def _report(self, error: Exception) -> None:
        context = {"message": "a protocol raised", "exception": error, "transport": self, "protocol": self._protocol}
        self._backend.loop.call_exception_handler(context)

    def handle_timeout(self) -> None:
        callback, self._deadline = self._deadline, None
        if callback is None:
            return
        if self._deadline_at > self._backend.loop.time() + 0.001:  # it was further away than the engine can tell
            self.call_at(self._deadline_at, callback)
        else:
            callback()

    def handle_closed(self, error: int) -> None:
        self._is_closing = True
        self._conn = _NO_CONN  # the number may soon be another's
        self._backlog = 0
        self._deadline = None
        self._files = ()
        if self._sock is not None:
            self._sock.close()
        self._protocol.connection_lost(OSError(error, os.strerror(error)) if error else None)

    # -- asyncio.Transport -------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_ending or self._is_closing:
            if self._is_ending:
                raise RuntimeError("Cannot call write() after write_eof()")
            return
        if type(data) is not bytes:
            data = bytes(memoryview(data))  # bytes(7) would be seven NULs
        backend = self._backend
        length = len(data)
        if self._batch == backend.batch:
            self._pending += length
        else:
            self._batch = backend.batch
            self._pending = length
        if length < _MIN_FAR:
            backend.pieces.append(_pack(AMG_OP_SEND, 0, self._conn, length, 0))
            backend.pieces.append(data)
        else:
            backend.pieces.append(_pack(AMG_OP_SEND_FAR, 0, self._conn, 16, 0))
            backend.pieces.append(_pack_far(id(data) + backend.bytes_offset, length))
            backend.far.append(data)
        backend.queued += length
        if backend.in_turn:
            if backend.queued > _FLUSH_LIMIT:
                backend.flush()
        elif backend.queued > _FLUSH_LIMIT or self._backlog + self._pending > self._high:
            backend.flush()  # what the kernel does not take is told at once
        else:
            backend.flush_soon()

    def write_pieces(self, pieces: list[bytes]) -> None:
        """Write many pieces without copying them: worth it from some 1 KiB each."""
        if self._is_ending or self._is_closing:
            return
        backend = self._backend
        length = sum(map(len, pieces))
        if self._batch == backend.batch:
            self._pending += length
        else:
            self._batch = backend.batch
            self._pending = length
        offset = backend.bytes_offset
        far = [number for piece in pieces for number in (id(piece) + offset, len(piece))]
        backend.pieces.append(_pack(AMG_OP_SEND_FAR, 0, self._conn, 8 * len(far), 0))
        backend.pieces.append(struct.pack(f"={len(far)}Q", *far))
        backend.far += pieces
        backend.queued += length
        if backend.queued > _FLUSH_LIMIT:
            backend.flush()
        elif not backend.in_turn:
            backend.flush_soon()

    def send_file(self, file: OpenFile, offset: int, length: int) -> None:
        """Send a part of a file behind what has been written; its bytes count as unsent until the kernel has them.

        A file that ends before that breaks the connection.

        Args:
            file: a regular one; it is kept open as long as it takes.
            offset, length: in bytes; at most 2^31.
        """
        if self._is_ending or self._is_closing:
            return
        backend = self._backend
        if self._batch == backend.batch:
            self._pending += length
        else:
            self._batch = backend.batch
            self._pending = length
        backend.pieces.append(_pack(AMG_OP_SEND_FILE, 0, self._conn, 16, file.fd))
        backend.pieces.append(_pack_far(offset, length))
        if file not in self._files:
            self._files += (file,)
        if not backend.in_turn:
            backend.flush()

    def get_write_buffer_size(self) -> int:
        if self._batch == self._backend.batch:
            self._backend.flush()  # most of what is collected does not stay
        return self._backlog

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = 4 * low if low is not None else 64 << 10
        low = high // 4 if low is None else low
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high = high
        self._low = low
        if self.get_write_buffer_size() > high and not self._is_full:
            self._is_full = True
            self._tell(self._protocol.pause_writing)

    def pause_reading(self) -> None:
        if self._is_reading and not self._is_closing:
            self._is_reading = False
            if self._held is None:
                self._backend.submit(AMG_OP_PAUSE, self._conn)

    def resume_reading(self) -> None:
        if self._is_reading or self._is_closing:
            return
        self._is_reading = True
        if self._held is None:
            self._backend.submit(AMG_OP_RESUME, self._conn)
        else:
            self._backend.loop.call_soon(self._deliver_held)

    def is_reading(self) -> bool:
        return self._is_reading and not self._is_closing

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._is_ending and not self._is_closing:
            self._is_ending = True
            self._backend.submit(AMG_OP_SHUTDOWN, self._conn)

    def close(self) -> None:
        self._end(AMG_OP_CLOSE)

    def abort(self) -> None:
        self._end(AMG_OP_ABORT)

    def _end(self, op: int) -> None:
        if not self._is_closing or op == AMG_OP_ABORT:
            self._is_closing = True
            self._held = None
            self._backend.submit(op, self._conn)

    def is_closing(self) -> bool:
        return self._is_closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return ``peername``, ``sockname`` or ``socket`` (a duplicate, closed with the connection), or the default.

        ``fileno`` is the engine's descriptor, to look at.
        """
        if name == "peername":
            if self._peername is None:
                self._peername = decode_sockaddr(self._peer)
            return self._peername
        fd = self._backend.fileno(self._conn) if name in ("sockname", "socket", "fileno") else -1
        if fd < 0 or name == "fileno":
            return default if fd < 0 else fd
        if name == "sockname":
            borrowed = socket.socket(fileno=fd)
            try:
                return borrowed.getsockname()
            finally:
                borrowed.detach()
        if self._sock is None:
            self._sock = socket.socket(fileno=os.dup(fd))
        return self._sock

    def call_at(self, when: float, callback: Callable[[], None]) -> NativeTransport:
        """Call back at a time of the loop, instead of what was set before; the handle is the transport itself."""
        if self._conn != _NO_CONN:
            self._deadline = callback
            self._deadline_at = when
            wait = max(1, int((when - self._backend.loop.time()) * 1000) + 1)
            self._backend.submit(AMG_OP_DEADLINE, self._conn, min(wait, _MAX_WAIT))
        return self

    def cancel(self) -> None:
        """Forget what ``call_at`` has set; the engine's deadline may come, and does nothing."""
        self._deadline = None


def fan_out(transports: list[NativeTransport], data: bytes) -> None:
    """Write the same bytes to many transports of one backend: one submission, and one copy of the bytes for all."""
    backend = transports[0]._backend
    numbers = array("I", [transport._conn for transport in transports]).tobytes()
    backend.submit(AMG_OP_FANOUT, 0, len(transports), numbers + data)
    backend.flush()  # what the kernels of slow peers have not taken is told at once


def gathers(transport: asyncio.BaseTransport) -> bool:
    """Whether what is written to a transport in one loop turn leaves in one system call, piece by piece.

    Asyncio's own transports send at once what they are given: small pieces are better joined with large ones there.
    """
    return type(transport) is NativeTransport or type(transport).__module__ == "uvloop.loop"


class NativeDatagramTransport(asyncio.DatagramTransport):
    """A datagram socket of the engine's. The interface is :class:`asyncio.DatagramTransport`."""

    __slots__ = ("_backend", "_conn", "_family", "_is_closing", "_peername", "_protocol", "_sock", "_sockname")

    def __init__(self, backend: Engine, protocol: asyncio.DatagramProtocol, sock: socket.socket) -> None:
        self._backend = backend
        self._protocol = protocol
        self._conn = _NO_CONN
        self._family = sock.family
        self._is_closing = False
        self._sockname = sock.getsockname()
        self._sock = sock.dup()
        try:
            self._peername = sock.getpeername()
        except OSError:
            self._peername = None

    def open(self, conn: int) -> None:
        self._conn = conn
        self._protocol.connection_made(self)

    def handle_datagram(self, data: bytes, address: bytes) -> None:
        if not self._is_closing:
            self._protocol.datagram_received(data, decode_sockaddr(address) if address else self._peername)

    def handle_failure(self, error: int) -> None:
        if not self._is_closing:
            self._protocol.error_received(OSError(error, os.strerror(error)))

    def handle_closed(self, error: int) -> None:
        self._is_closing = True
        self._conn = _NO_CONN
        self._sock.close()
        self._protocol.connection_lost(OSError(error, os.strerror(error)) if error else None)

    def sendto(self, data: bytes | bytearray | memoryview, addr: Any = None) -> None:
        if self._is_closing:
            return
        address = b"" if addr is None else encode_sockaddr(self._family, addr)
        self._backend.submit(AMG_OP_SENDTO, self._conn, len(address), address + bytes(memoryview(data)))

    def get_write_buffer_size(self) -> int:
        return 0  # a datagram is taken by the kernel or dropped

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._backend.submit(AMG_OP_CLOSE, self._conn)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._is_closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return ``peername``, ``sockname`` or ``socket`` (a duplicate), or the default."""
        if name == "peername" and self._peername is not None:
            return self._peername
        return {"sockname": self._sockname, "socket": self._sock}.get(name, default)
