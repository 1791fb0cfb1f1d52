"""The sending side of a connection: what one loop turn wants to send leaves in one write, and somebody must take it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from asyncmg.errors import ConnectionClosed, DeadlineExceeded, LimitExceeded
from asyncmg.files.content import OpenFile
from asyncmg.limits import BufferLimits
from asyncmg.transports.native_sockets import NativeTransport, gathers
from asyncmg.transports.sockets import unsent_bytes
from asyncmg.transports.unconnected import UNCONNECTED

from .deadlines import Deadlines

_LARGE = 16 << 10  # bytes of a piece that is better not copied
_MEDIUM = 1 << 10  # the same, of many pieces on average, where they can be told of at once


class OutputOwner(Protocol):
    """The protocol object whose output it is."""

    def handle_flushed(self, size: int) -> None:
        """So many bytes have been handed over, 0 when there was nothing."""

    def handle_stall(self, error: Exception) -> None:
        """The connection must end: the peer does not take our output."""


class Output:
    """Collects output, hands it to the transport, and watches whether the peer takes it.

    Args:
        loop: for the flush at the end of a turn.
        limits: high-water mark, bounds, and the pace that a peer must keep.
        deadlines: of the connection; the name "write" is ours.
        owner: told what becomes of the output.
    """

    __slots__ = (
        "_base",
        "_deadlines",
        "_flush_is_due",
        "_limits",
        "_loop",
        "_owner",
        "_waiters",
        "dropped",
        "high_water",
        "in_turn",
        "is_held",
        "is_paused",
        "pieces",
        "size",
        "tells_owner",
        "transport",
        "written",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: BufferLimits,
        deadlines: Deadlines,
        owner: OutputOwner,
    ) -> None:
        self.transport: asyncio.Transport = UNCONNECTED
        self.is_held = True  # nothing may leave: there is no connection, or no TLS yet
        self.is_paused = False  # the transport holds more than the high-water mark
        self.tells_owner = True  # its handle_flushed() has something to do
        self.dropped = 0  # messages not sent because of slow_client="drop"
        self.high_water = limits.send_high_water
        self._loop = loop
        self._limits = limits
        self._deadlines = deadlines
        self._owner = owner
        self.pieces: list[bytes] = []  # collected in this turn
        self.size = 0  # bytes in them
        self.in_turn = False  # set by the owner while it handles input: collect until end_turn()
        self._flush_is_due = False
        self._waiters: Sequence[asyncio.Future[None]] = ()
        self.written = 0  # bytes handed to the transport
        self._base = (0, 0.0)  # bytes that the peer had taken, and when, at the last look

    @property
    def unsent(self) -> int:
        """Bytes that the kernel has not taken."""
        return self.size + self.transport.get_write_buffer_size()

    def peek(self, n: int = -1) -> bytes:
        """Return up to n of the bytes collected in this turn."""
        data = b"".join(self.pieces)
        return data if n < 0 else data[:n]

    def end_turn(self) -> None:
        """Hand over what was collected since ``in_turn`` was set."""
        self.in_turn = False
        pieces = self.pieces
        if self._flush_is_due or self.is_held:
            return
        if len(pieces) != 1 or self.tells_owner:
            self.flush()
            return
        # The short way of flush(): one reply to one request.
        piece = pieces.pop()
        self.size = 0
        self.written += len(piece)
        self.transport.write(piece)
        if self._waiters and not self.is_paused:
            self.wake()

    def write(self, data: bytes) -> None:
        """Collect a piece."""
        if data:
            self.pieces.append(data)
            self.size += len(data)
            if not self.in_turn:
                self.flush_soon()

    def write_pair(self, head: bytes, content: bytes) -> None:
        """Collect two pieces, of which the second one is large and others' as well: it is copied as late as can be."""
        self.pieces += (head, content)
        self.size += len(head) + len(content)
        if not self.in_turn:
            self.flush_soon()

    def amend(self, place: int, replacement: bytes) -> None:
        """Replace a piece that has not left: ``written`` is what it was when the piece was collected."""
        self.size += len(replacement) - len(self.pieces[place])
        self.pieces[place] = replacement

    def flush_soon(self) -> None:
        """Flush at the end of this loop turn."""
        if not self.in_turn and not self._flush_is_due:
            self._flush_is_due = True
            transport = self.transport
            if type(transport) is NativeTransport and transport.backend.in_turn:
                transport.backend.endings.append(self._flush_later)  # of many connections, in one submission
            else:
                self._loop.call_soon(self._flush_later)

    def _flush_later(self) -> None:
        self._flush_is_due = False
        self.flush()

    def flush(self) -> None:
        """Hand over what has been collected."""
        if self.is_held:
            return
        pieces, size = self.pieces, self.size
        if pieces:
            self.size = 0
            self.written += size
            if len(pieces) == 1:
                self.transport.write(pieces.pop())
            elif size < _LARGE:
                self.pieces = []
                self.transport.write(b"".join(pieces))
            else:
                self.pieces = []
                self._write_pieces(pieces)
            if self._waiters and not self.is_paused:
                self.wake()
        if self.tells_owner:
            self._owner.handle_flushed(size)

    def _write_pieces(self, pieces: list[bytes]) -> None:
        """Write many bytes; of large pieces no more copies are made than that takes.

        Not by writelines(): in CPython 3.13.0 asyncio's does not pause the protocol above the high-water mark.
        """
        transport = self.transport
        if type(transport) is NativeTransport and self._mean_size(pieces) >= _MEDIUM:
            transport.write_pieces(pieces)
            return
        write = transport.write
        is_gathered = gathers(self.transport)
        run: list[bytes] = []
        for piece in pieces:
            if len(piece) >= _LARGE and is_gathered:
                if run:
                    write(b"".join(run))
                    run.clear()
                write(piece)
            else:
                run.append(piece)
                if len(piece) >= _LARGE:
                    write(b"".join(run))
                    run.clear()
        if run:
            write(b"".join(run))

    @staticmethod
    def _mean_size(pieces: list[bytes]) -> float:
        return sum(map(len, pieces)) / len(pieces)

    @property
    def sends_files(self) -> bool:
        """Whether the transport can send a file without our reading it."""
        return type(self.transport) is NativeTransport

    def send_file(self, file: OpenFile, offset: int, length: int) -> None:
        """Hand over what has been collected, and a part of a file behind it; only when ``sends_files``."""
        self.flush()
        transport = self.transport
        assert isinstance(transport, NativeTransport)
        self.written += length
        transport.send_file(file, offset, length)
        if self.tells_owner:
            self._owner.handle_flushed(length)

    def tell(self, size: int) -> None:
        """So many bytes have been handed to the transport by somebody else."""
        self._owner.handle_flushed(size)

    def discard(self) -> None:
        """Forget what has not been handed over."""
        self.pieces.clear()
        self.size = 0

    def move_to(self, successor: Output) -> None:
        """Give what is collected, and the state of the transport, to the output of another protocol."""
        successor.transport = self.transport
        successor.is_held = self.is_held
        successor.is_paused = self.is_paused
        successor._waiters, self._waiters = self._waiters, ()
        if successor.is_paused:
            successor.pause()
        for piece in self.pieces:
            successor.write(piece)
        self.discard()
        self.transport = UNCONNECTED

    def pause(self) -> None:
        """The transport holds more than it should: watch whether the peer takes it."""
        self.is_paused = True
        self._watch()

    def resume(self) -> None:
        """The transport has room again."""
        self.is_paused = False
        self._deadlines.clear("write")
        self.wake()

    # -- flow control --------------------------------------------------------------------------------------------

    def admit(self) -> bool:
        """Decide whether one more message may be collected; False: the slow-client policy drops it.

        Raises:
            LimitExceeded: the peer is so far behind that the connection must end.
        """
        limits = self._limits
        unsent = self.size + (self.transport.get_write_buffer_size() if self.is_paused else 0)
        if unsent < limits.send_high_water:
            return True
        if self.is_paused and limits.slow_client == "drop":
            self.dropped += 1
            return False
        limit, name = limits.max_send_buffer, "max_send_buffer"
        if self.is_paused and limits.slow_client == "close":
            limit, name = limits.send_high_water, "send_high_water"
        if unsent > limit:
            raise LimitExceeded("peer does not take our output", limit=f"{name}={limit}", actual=unsent)
        return True

    async def wait(self) -> bool:
        """Wait until there is room; return whether there was need to wait. Cancelling is safe.

        Raises:
            ConnectionClosed: the connection ended meanwhile; its cause is chained.
        """
        if self.is_paused or self.size >= self._limits.send_high_water:
            waiter = self._loop.create_future()
            self._waiters = (*self._waiters, waiter)
            await waiter
            return True
        return False

    def wake(self, error: Exception | None = None) -> None:
        """There is room, or, with an error, there will never be."""
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                closed = ConnectionClosed("Connection has been closed")
                closed.__cause__ = error
                waiter.set_exception(closed)

    # -- pace ----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Look after a peer that does not take our output: no byte for stall_timeout, or fewer than min_rate."""
        now = self._loop.time()
        self._deadlines.set("write", now + min(self._limits.rate_grace, self._limits.stall_timeout), self._check)
        self._base = (self._taken(), now)

    def _taken(self) -> int:
        return self.written - self.transport.get_write_buffer_size() - unsent_bytes(self.transport)

    def _check(self) -> None:
        limits = self._limits
        now = self._loop.time()
        taken = self._taken()
        before, since = self._base
        if taken > before and taken - before >= limits.min_rate * (now - since):
            self._base = (taken, now)
        elif taken > before or now - since >= limits.stall_timeout:
            name = "min_rate" if taken > before else "stall_timeout"
            self._owner.handle_stall(DeadlineExceeded(f"peer does not take our output ({name})", limit=name))
            return
        wait = min(limits.rate_grace, max(0.01, limits.stall_timeout - (now - self._base[1])))
        self._deadlines.set("write", now + wait, self._check)
