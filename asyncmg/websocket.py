"""WebSocket as coroutines use it: what ``ws_connect`` and ``ws_serve`` give."""

from __future__ import annotations

import asyncio
import codecs
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, Self

from .addresses import Address
from .codecs.ws import BINARY, INTERNAL_ERROR, NORMAL, TEXT
from .connection import Connection
from .errors import (
    BusyError,
    ConnectionClosed,
    ConnectionClosedOK,
)
from .events import (
    MG_EV_CLOSE,
    MG_EV_ERROR,
    MG_EV_HTTP_MSG,
    MG_EV_WS_MSG,
    MG_EV_WS_OPEN,
    event_mask,
)
from .messages import HttpMessage, WsMessage
from .protocols.base import Pause
from .protocols.ws import WsProtocol

#: The events that a Manager has to give out below a WebSocket.
WS_EVENTS = (MG_EV_HTTP_MSG, MG_EV_WS_OPEN, MG_EV_WS_MSG, MG_EV_ERROR)
_WS_MSG = int(MG_EV_WS_MSG)
_PAUSE_EVENTS = Pause.EVENTS
_MAX_RUN = 1 << 20  # bytes that one sends without waiting, then it is the others' turn
_WHOLE_TEXT, _FIN = 0x81, 0x80
_WHOLE = frozenset({0x81, 0x82})

Data = str | bytes | bytearray | memoryview


class WebSocket:
    """One WebSocket connection. Made by :func:`ws_connect` and :func:`ws_serve`.

    ``async for message in ws`` receives until the connection is closed in good order; a text message is a str, a binary
    one bytes.

    Attributes:
        conn: the connection below.
        request: the opening request (server), or the response to it (client).
        protocol: the protocol object.
    """

    __slots__ = (
        "__weakref__",
        "_barriers",
        "_ended",
        "_is_closing",
        "_is_full",
        "_is_reading",
        "_max_queued",
        "_messages",
        "_partial",
        "_send_lock",
        "_skips",
        "_stream",
        "_turn_is_over_at",
        "_waiter",
        "conn",
        "protocol",
        "request",
        "wants",
    )

    def __init__(self, conn: Connection, request: HttpMessage) -> None:
        self.conn = conn
        self.request = request
        self.protocol: WsProtocol = conn.protocol
        self.wants = event_mask(WS_EVENTS)
        self._max_queued = self.protocol.limits.ws.max_queued
        self._messages: deque[WsMessage] = deque()  # pieces of messages, or whole ones
        self._waiter: asyncio.Future[None] | None = None
        self._is_reading = False  # a coroutine is about to return a message
        self._is_full = False
        self._is_closing = False  # what still comes is not wanted
        self._partial: list[WsMessage] = []  # taken by a recv() that was cancelled
        self._skips = False  # the rest of a message that nobody has read to its end
        self._stream: MessageStream | None = None  # has taken a part of a message
        self._send_lock: asyncio.Lock | None = None  # while a fragmented message is being sent
        self._ended: asyncio.Future[None] | None = None
        self._barriers: list[Callable[[], None]] = []  # who waits for all messages to be handled
        self._turn_is_over_at = _MAX_RUN  # bytes sent
        self.protocol.sink = self

    def __repr__(self) -> str:
        return f"<WebSocket {self.conn!r}>"

    # -- being the protocol's sink ---------------------------------------------------------------------------------

    def handle_event(self, ev: int, data: Any) -> bool:
        """Take one event from the protocol."""
        if ev == _WS_MSG:
            if not self._is_closing:
                messages = self._messages
                messages.append(data)
                waiter = self._waiter
                if waiter is not None and not waiter.done():
                    waiter.set_result(None)
                if len(messages) >= self._max_queued and not self._is_full:
                    self._is_full = True
                    self.protocol.pause_reading(_PAUSE_EVENTS)
            return False
        handled = self.conn.handle_event(ev, data)
        if ev == MG_EV_CLOSE:
            for waiter in (self._waiter, self._ended):
                if waiter is not None and not waiter.done():
                    waiter.set_result(None)
        return handled

    def when_handled(self, callback: Callable[[], None]) -> None:
        """Call back when every message has been taken, and whoever has taken the last one wants another."""
        waiter = self._waiter
        if self._is_closing or (waiter is not None and not waiter.done() and not self._messages):
            callback()
        else:
            self._barriers.append(callback)

    def switch_protocol(self, protocol: Any) -> None:
        self.conn.switch_protocol(protocol)

    def spawn(self, coro: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self.conn.spawn(coro, name)

    # -- receiving ---------------------------------------------------------------------------------------------------

    async def recv(self) -> str | bytes:
        """Return the next message.

        Cancelling is safe: no message is lost.

        Raises:
            ConnectionClosedOK, ConnectionClosedError: the connection is closed and everything has been returned.
            BusyError: another coroutine is receiving.
        """
        self.begin_reading()
        try:
            while True:
                message = await self.next_piece()
                flags = message.flags
                if flags in _WHOLE and not self._partial:
                    return message.data.decode() if flags == _WHOLE_TEXT else message.data
                self._partial.append(message)
                if flags & _FIN:
                    pieces, self._partial = self._partial, []
                    data = b"".join([piece.data for piece in pieces])
                    return data.decode() if pieces[0].flags & 15 == TEXT else data
        finally:
            self.end_reading()

    def recv_stream(self) -> MessageStream:
        """Receive the next message in pieces, as they come in: ``async for piece in ws.recv_stream()``.

        ``max_message`` still holds; what is not taken is bounded by ``max_queued`` pieces of at most 64 KiB (as they
        come in, that is: before they are decompressed). Who leaves the iteration early drops the rest of the message,
        with the next ``recv`` or by ``aclose()``. Cancelling is safe: the iteration can go on.

        Raises:
            (while iterating) as :meth:`recv`.
        """
        return MessageStream(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        messages = self._messages
        # The short way of recv().
        if not (self._partial or self._is_reading or self._skips or self._stream is not None):
            if not messages and not self._barriers and not self.conn.is_ended:
                self._is_reading = True
                waiter = self._waiter = self.protocol.loop.create_future()
                try:
                    await waiter
                finally:
                    self._waiter = None
                    self._is_reading = False
            if messages and (flags := messages[0].flags) in _WHOLE:
                data = messages.popleft().data
                if self._is_full:
                    self._make_room()
                return data.decode() if flags == _WHOLE_TEXT else data
        try:
            return await self.recv()
        except ConnectionClosedOK:
            raise StopAsyncIteration from None

    def begin_reading(self, stream: MessageStream | None = None) -> None:
        """A coroutine begins to receive; a stream that another one has left is given up."""
        if self._is_reading:
            raise BusyError("another coroutine is receiving from this WebSocket")
        if self._stream is not None and self._stream is not stream:
            self._stream.leave()
        self._is_reading = True

    def end_reading(self) -> None:
        self._is_reading = False

    def note_stream(self, stream: MessageStream | None, *, skips: bool = False) -> None:
        """A stream has begun to take a message, or has ended.

        Args:
            skips: the rest of its message is not wanted.
        """
        self._stream = stream
        self._skips = self._skips or skips

    def take_partial(self) -> list[WsMessage]:
        """Take over what a recv() that was cancelled has left."""
        pieces, self._partial = self._partial, []
        return pieces

    def _make_room(self) -> None:
        if len(self._messages) <= self._max_queued // 4:
            self._is_full = False
            self.protocol.resume_reading(_PAUSE_EVENTS)

    def _release(self) -> None:
        while self._barriers:
            self._barriers.pop(0)()

    async def next_piece(self) -> WsMessage:
        """Wait for the next message, or piece of one; only between begin_reading() and end_reading()."""
        while True:
            while not self._messages:
                self._release()
                if self.conn.is_ended:  # when it is being closed the peer's close frame is awaited
                    raise self.protocol.closed()
                self._waiter = asyncio.get_running_loop().create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            message = self._messages.popleft()
            if self._is_full:
                self._make_room()
            if not self._skips:
                return message
            self._skips = not message.flags & _FIN

    # -- sending -----------------------------------------------------------------------------------------------------

    async def send(self, message: Data | Iterable[Data] | AsyncIterable[Data]) -> None:
        """Send a message; wait while the send buffer is above its high-water mark.

        Args:
            message: a str is sent as text, bytes as binary; an iterator, plain or async, of one of them as the
                fragments of one message; it may not send on this WebSocket itself.

        Cancelling is safe for a whole message: it is sent wholly or not at all. When it cuts fragments short the
        connection is closed with 1011, since their message cannot be completed.

        Raises:
            ConnectionClosedOK, ConnectionClosedError: the connection is closed, or the closing handshake has begun.
            TypeError: something else than str and bytes, or both in one message.
        """
        while self._send_lock is not None and self._send_lock.locked():  # a fragmented message is being sent
            async with self._send_lock:
                pass
        protocol = self.protocol
        try:
            if isinstance(message, str):
                protocol.send_message(message, TEXT)
            elif isinstance(message, bytes | bytearray | memoryview):
                protocol.send_message(message, BINARY)  # type: ignore[arg-type]  # it makes bytes of them
            else:
                await self._send_fragments(message)
        except ConnectionClosed:
            if protocol.is_draining and not self.conn.is_ended:  # how it ends is not known yet
                await self.wait_closed()
                raise protocol.closed() from None
            raise
        output = protocol.output
        if output.is_paused or output.size >= output.high_water:
            await self._flush()

    async def _flush(self) -> None:
        """Wait while the peer is behind; let others in now and then when it is not."""
        protocol, output = self.protocol, self.protocol.output
        output.flush()
        if not output.is_paused and output.written < self._turn_is_over_at:
            return
        self._turn_is_over_at = output.written + _MAX_RUN
        try:
            await protocol.flush()
        except ConnectionClosed as exc:
            raise protocol.closed() from exc.__cause__

    async def _send_fragments(self, fragments: Iterable[Data] | AsyncIterable[Data]) -> None:
        if not isinstance(fragments, AsyncIterable):
            if isinstance(fragments, dict) or not isinstance(fragments, Iterable):
                raise TypeError(f"a message is str, bytes, or an iterator of them, not {type(fragments).__name__}")
            fragments = _as_async(fragments)
        if self._send_lock is None:
            self._send_lock = asyncio.Lock()
        async with self._send_lock:
            opcode = 0
            try:
                async for fragment in fragments:
                    is_text = isinstance(fragment, str)
                    if opcode and is_text != (opcode == TEXT):
                        raise TypeError("the fragments of a message are all str or all bytes")
                    payload = fragment.encode() if isinstance(fragment, str) else bytes(memoryview(fragment))
                    opcode = TEXT if is_text else BINARY
                    self.protocol.send_fragment(payload, opcode, is_last=False)
                    await self._flush()
                if opcode:
                    self.protocol.send_fragment(b"", opcode, is_last=True)
            except BaseException:
                if opcode:
                    self.protocol.begin_close(INTERNAL_ERROR, "a fragmented message was cut short")
                raise

    async def ping(self, data: str | bytes = b"") -> asyncio.Future[float]:
        """Send a ping; ``latency = await (await ws.ping())`` waits for its pong.

        Keep-alive pings are sent without this.

        Args:
            data: at most 125 bytes; default: random ones.

        Returns:
            a future of the latency in seconds; it raises ConnectionClosed when the connection ends before.

        Raises:
            ConnectionClosedOK, ConnectionClosedError: the connection is closed.
            LocalProtocolError: too long, or a ping with this payload is unanswered.
        """
        waiter: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.protocol.ping(data.encode() if isinstance(data, str) else data, waiter)
        return waiter

    # -- the end -------------------------------------------------------------------------------------------------------

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Do the closing handshake (RFC 6455 section 7); wait for the end, at most ``close_timeout`` for the peer.

        What was received before can still be taken; what comes now is dropped. Cancelling is safe: the connection
        closes all the same.

        Args:
            code: 1000 to 1014 without 1004 to 1006, or 3000 to 4999.
            reason: at most 123 bytes of UTF-8.

        Raises:
            ValueError: of code or reason.
        """
        self.protocol.begin_close(code, reason)
        self.abandon()
        await self.wait_closed()

    def abandon(self) -> None:
        """Drop what comes in from now on, so that the peer's close frame can be read."""
        self._is_closing = True
        self._release()
        self.protocol.resume_reading(_PAUSE_EVENTS)

    async def wait_closed(self) -> None:
        """Wait until the connection has ended. Cancelling is safe."""
        if not self.conn.is_ended:
            if self._ended is None:
                self._ended = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._ended)

    # -- properties ----------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self.protocol.is_open

    @property
    def subprotocol(self) -> str:
        """What the handshake has agreed upon; "" when there is none."""
        return self.protocol.subprotocol

    @property
    def latency(self) -> float:
        """Seconds that the last answered ping took; 0.0 before that."""
        return self.protocol.latency

    @property
    def path(self) -> str:
        """Server: path and query of the request."""
        query = self.request.query
        return self.request.uri + (f"?{query}" if query else "")

    @property
    def close_code(self) -> int | None:
        """Code of the close frame received, 1006 when the connection has ended without one, None before."""
        received = self.protocol.received_close
        if received is not None:
            return received.code
        return 1006 if self.conn.is_ended else None

    @property
    def close_reason(self) -> str | None:
        """Reason of the close frame received, "" when the connection has ended without one, None before."""
        received = self.protocol.received_close
        if received is not None:
            return received.reason
        return "" if self.conn.is_ended else None

    @property
    def local_addr(self) -> Address | None:
        return self.conn.local_addr

    @property
    def remote_addr(self) -> Address | None:
        return self.conn.remote_addr


class MessageStream:
    """The pieces of one message, as they come in: what :meth:`WebSocket.recv_stream` returns."""

    __slots__ = ("_decoder", "_has_begun", "_has_ended", "_pieces", "_ws")

    def __init__(self, ws: WebSocket) -> None:
        self._ws = ws
        self._pieces: list[WsMessage] = []
        self._decoder: codecs.IncrementalDecoder | None = None  # of a text
        self._has_begun = False
        self._has_ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        if self._has_ended:
            raise StopAsyncIteration
        ws = self._ws
        ws.begin_reading(self)
        try:
            if not self._has_begun:
                self._pieces = ws.take_partial()
            while not self._has_ended:
                message = self._pieces.pop(0) if self._pieces else await ws.next_piece()
                if not self._has_begun:
                    self._has_begun = True
                    ws.note_stream(self)
                    if message.flags & 15 == TEXT:
                        self._decoder = codecs.getincrementaldecoder("utf-8")()
                if message.flags & _FIN:
                    self._has_ended = True
                    ws.note_stream(None)
                data: str | bytes = message.data
                if self._decoder is not None:
                    data = self._decoder.decode(message.data, self._has_ended)
                if data:
                    return data
        finally:
            ws.end_reading()
        raise StopAsyncIteration

    def leave(self) -> None:
        """Drop the rest of the message."""
        if not self._has_ended:
            self._has_ended = True
            self._ws.note_stream(None, skips=self._has_begun)

    async def aclose(self) -> None:
        """Drop the rest of the message."""
        self.leave()


async def _as_async(fragments: Iterable[Data]) -> AsyncIterator[Data]:
    for fragment in fragments:
        yield fragment
