"""WebSocket over a connection's life (RFC 6455): messages, pings, the closing handshake, limits.

What is received becomes events here; what is sent is framed in :mod:`.ws_sender`. The opening handshake is
:mod:`.ws_opening`'s: it hands the connection over.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any

from asyncmg.codecs.choice import ws_codec
from asyncmg.codecs.http import Role
from asyncmg.codecs.ws import (
    BINARY,
    CLOSE,
    END_OF_FRAME,
    FIN,
    GOING_AWAY,
    INTERNAL_ERROR,
    MAX_CONTROL_PAYLOAD,
    NO_STATUS,
    NORMAL,
    PING,
    POLICY_VIOLATION,
    PONG,
    TEXT,
    WsCodecFactory,
    WsRecord,
    close_payload,
)
from asyncmg.codecs.ws_assembly import Assembly
from asyncmg.codecs.ws_handshake import NOTHING_AGREED, Agreed
from asyncmg.dispatch import EventSink
from asyncmg.errors import (
    CloseFrame,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    DeadlineExceeded,
    LimitExceeded,
    LocalProtocolError,
    ProtocolError,
)
from asyncmg.events import MG_EV_ERROR, MG_EV_WS_CTL, MG_EV_WS_MSG, MG_EV_WS_OPEN
from asyncmg.messages import HttpMessage, WsMessage
from asyncmg.transports.native_sockets import NativeTransport

from .base import BaseProtocol, Pause, Phase
from .ws_sender import WsSender
from .ws_states import WS, WsState

# Members looked up once: through their class that takes Python 3.11 75 ns each.
_PHASE_OPEN, _PHASE_LINGERING, _PHASE_CLOSED = Phase.OPEN, Phase.LINGERING, Phase.CLOSED
_OPEN, _CLOSING, _CLOSED = WsState
_WS_MSG = int(MG_EV_WS_MSG)
_EVENTS, _BUSY = Pause.EVENTS, Pause.BUSY

_MAX_RUN = 256  # records handled per loop turn, then it is the others' turn
_MAX_PINGS = 16  # unanswered; more of our own are an error
_ORDERLY = frozenset({NORMAL, GOING_AWAY, NO_STATUS})


class WsProtocol(BaseProtocol):
    """One WebSocket connection after its opening handshake.

    Events: MG_EV_WS_OPEN first, MG_EV_WS_MSG for every message, MG_EV_WS_CTL for ping, pong and close frames. Pings are
    answered, and a close frame is, without anybody's doing.

    Args:
        agreed: what the opening handshake has come to.
        opening: data of MG_EV_WS_OPEN.
        fragments: give messages out in pieces, as they come: WsMessage.flags has 0x80 in the last one, and the
            opcode in the first one only.
        codec: makes the object that reads frames; default: the native codec where there is one.
        sink, role, limits, loop, ...: see :class:`BaseProtocol`.

    Attributes:
        subprotocol: agreed upon; "" when there is none.
        latency: seconds from the last ping that was answered to its pong; 0.0 before the first one.
        received_close, sent_close: close frames; None: there was none.
        sender: frames what is sent.
    """

    __slots__ = (
        "_assembly",
        "_codec",
        "_controls",
        "_controls_since",
        "_deflate",
        "_discards",
        "_error",
        "_fragments",
        "_has_heard",
        "_is_watched",
        "_opening",
        "_pings",
        "_reads",
        "_state",
        "_unread",
        "latency",
        "received_close",
        "sender",
        "sent_close",
        "subprotocol",
    )

    is_websocket = True

    def __init__(
        self,
        sink: EventSink,
        *,
        agreed: Agreed = NOTHING_AGREED,
        opening: HttpMessage | None = None,
        fragments: bool = False,
        codec: WsCodecFactory | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(sink, **kwargs)
        self._codec = (codec or ws_codec())(self.role, self.limits.ws, agreed.deflate is not None)
        mask = self._codec.mask if self.role is Role.CLIENT else None
        self.sender = WsSender(self.output, mask, agreed.deflate, self.limits.ws.max_held)
        self.subprotocol = agreed.subprotocol
        self.latency = 0.0
        self.received_close: CloseFrame | None = None
        self.sent_close: CloseFrame | None = None
        self._deflate = agreed.deflate
        self._opening = opening
        self._fragments = fragments
        self._state = _OPEN
        self._reads = True  # what comes in is of interest
        self._discards = False  # but for messages
        self._error: Exception | None = None  # why the connection ended, when that was no closing handshake
        self._assembly: Assembly | None = None  # of a message of which not all has come
        self._unread: tuple[WsRecord, ...] = ()  # received, and left for a later loop turn
        self._pings: tuple[_Ping, ...] = ()  # unanswered, the oldest first
        self._is_watched = False  # a ping was sent, and it will be looked whether anything has come back:
        self._has_heard = False  # that
        self._controls = 0  # control frames received ...
        self._controls_since = 0.0  # ... since this time

    # -- receiving -----------------------------------------------------------------------------------------------

    def handle_ready(self) -> None:
        self._controls_since = self.loop.time()
        if self.limits.ws.ping_interval:
            self._plan_ping()
        opening, self._opening = self._opening, None
        if isinstance(self.transport, NativeTransport):
            self.transport.begin_frames(self._codec.export)
        self.emit(MG_EV_WS_OPEN, opening)

    @property
    def lingers(self) -> bool:
        return self.received_close is None  # behind a close frame nothing comes that could reset our last bytes away

    @property
    def is_open(self) -> bool:
        """Messages can be sent: no closing handshake has begun."""
        return self._state is _OPEN and self.phase is _PHASE_OPEN

    @property
    def is_writable(self) -> bool:
        return self._state is _OPEN and super().is_writable

    @property
    def is_draining(self) -> bool:
        return self._state is _CLOSING or super().is_draining

    def receive_data(self, data: bytes) -> None:
        self._has_heard = True
        records = self._codec.receive_data(data)
        if self._unread:  # the transport has not stopped at once
            self._unread += tuple(records)
        else:
            self._handle_records(records)
        if self.phase is not _PHASE_CLOSED:
            self.report_read(len(data))

    def frames_received(self, records: Sequence[WsRecord], size: int, error: int, value: int) -> None:
        """Like ``data_received``, of a transport that reads frames (:meth:`NativeTransport.begin_frames`)."""
        if self.phase is not _PHASE_OPEN:
            if self.phase is _PHASE_LINGERING:
                self._extend_linger()
            return
        self._has_heard = True
        output = self.output
        output.in_turn = True
        try:
            if len(records) == 1 and not error and self._assembly is None and self._reads and not self._unread:
                flags, payload = records[0]
                if (flags == 0x81 or flags == 0x82) and not self._discards:  # the short way of _handle_records()
                    self.sink.handle_event(_WS_MSG, WsMessage(payload, flags))
                else:
                    self._handle_records(records)
            else:
                if error:
                    self._codec.fail(error, value)
                if self._unread:
                    self._unread += tuple(records)
                else:
                    self._handle_records(records)
            if self.phase is not _PHASE_CLOSED:
                self.report_read(size)
        finally:
            output.end_turn()

    def _handle_records(self, records: Sequence[WsRecord]) -> None:
        """Act on records; more than enough for one turn are left for the next one."""
        if len(records) > _MAX_RUN:
            self._unread = tuple(records[_MAX_RUN:])
            records = records[:_MAX_RUN]
            self.pause_reading(_BUSY)
            self.loop.call_soon(self._continue)
        if self._discards:
            records = [record for record in records if record[0] & 8]
        handle_event = self.sink.handle_event
        for flags, payload in records:
            if not self._reads or self.phase is not _PHASE_OPEN:
                self._unread = ()
                return
            # A whole message of text or binary: nearly all are.
            if (flags == 0x81 or flags == 0x82) and self._assembly is None:
                handle_event(_WS_MSG, WsMessage(payload, flags))
            else:
                self._handle_record(flags, payload)
        if self._codec.error is not None and not self._unread and self._reads:
            self.refuse(self._codec.error)

    def _continue(self) -> None:
        """It is our turn again."""
        records, self._unread = self._unread, ()
        if not records or self.phase is not _PHASE_OPEN:
            return
        if self._paused & _EVENTS:
            self._unread = records  # resume_reading() goes on
            return
        self.output.in_turn = True
        try:
            self._handle_records(records)
        finally:
            self.output.end_turn()
        if not self._unread:
            self.resume_reading(_BUSY)

    def pause_reading(self, reason: int) -> None:
        if reason == _EVENTS and self._state is not _OPEN:
            # Only the peer's close frame is awaited: messages that nobody takes must not keep it from us.
            self._discards = True
            self.resume_reading(_EVENTS)
        else:
            super().pause_reading(reason)

    def admit(self) -> bool:
        try:
            return super().admit()
        except ConnectionClosed as exc:
            raise self.closed() from exc.__cause__

    def resume_reading(self, reason: int) -> None:
        if reason == _EVENTS and self._unread and self._paused & _EVENTS:
            self.loop.call_soon(self._continue)
        super().resume_reading(reason)

    def _handle_record(self, flags: int, payload: bytes) -> None:
        if flags & 8:
            self._handle_control(flags & 15, payload)
            return
        assembly = self._assembly
        if assembly is None:
            limit = self.limits.ws.max_message
            assembly = self._assembly = Assembly(flags, limit, self._deflate, keeps=not self._fragments)
        try:
            piece = assembly.receive(flags, payload)
        except ProtocolError as exc:
            self.refuse(exc)
            return
        if flags & FIN:
            self._assembly = None
        if self._fragments:
            if piece or flags & (FIN | END_OF_FRAME):
                self.emit(MG_EV_WS_MSG, WsMessage(piece, assembly.piece_flags(flags)))
        elif flags & FIN:
            flags, content = assembly.take()
            self.emit(MG_EV_WS_MSG, WsMessage(content, flags))

    def _handle_control(self, opcode: int, payload: bytes) -> None:
        self._controls += 1
        limit = self.limits.ws.max_control_frames
        if self._controls > limit:
            now = self.loop.time()
            if now - self._controls_since < 1.0:
                error = LimitExceeded(
                    "too many control frames",
                    limit=f"max_control_frames={limit}",
                    actual=self._controls,
                    wire_code=POLICY_VIOLATION,
                )
                self.refuse(error)
                return
            self._controls, self._controls_since = 1, now
        if opcode == PING:
            if self._state is _OPEN:
                self.sender.send_pong(payload)
        elif opcode == PONG:
            self._handle_pong(payload)
        else:
            code = int.from_bytes(payload[:2], "big") if payload else NO_STATUS
            self.received_close = CloseFrame(code, payload[2:].decode())
        self.emit(MG_EV_WS_CTL, WsMessage(payload, FIN | opcode))
        if opcode == CLOSE and self.phase is _PHASE_OPEN:
            self._handle_close(payload)

    # -- the end -------------------------------------------------------------------------------------------------

    def _handle_close(self, payload: bytes) -> None:
        """The peer's close frame: answer it, unless it is the answer (RFC 6455 section 5.5.1)."""
        if self._state is _OPEN:
            self._send_close(payload[:2])
        self._state = WS[self._state, "receive close"]
        self._reads = False
        self._stop_pinging()
        self._fail_pings()
        if self.role is Role.SERVER:
            self.deadlines.clear("close")
            super().drain()
        else:
            # Section 7.1.1: it is the server that closes the connection first.
            self.deadlines.set("close", self.loop.time() + self.limits.ws.close_timeout, super().drain)

    def _send_close(self, payload: bytes) -> None:
        code = int.from_bytes(payload[:2], "big") if payload else NO_STATUS
        self.sent_close = CloseFrame(code, payload[2:].decode())
        self.sender.send_close(payload)

    def begin_close(self, code: int = NORMAL, reason: str = "") -> None:
        """Begin the closing handshake; what is sent before leaves before. Nothing happens when it has begun already.

        Args:
            code: 1000 to 1014 without 1004 to 1006, 3000 to 4999; or 1005 for a frame without one.
            reason: at most 123 bytes of UTF-8.

        Raises:
            ValueError: of code or reason.
        """
        payload = close_payload(code, reason)
        if not self.is_open:
            return
        self._send_close(payload)
        self._state = WS[self._state, "send close"]
        self._stop_pinging()
        self.deadlines.set("close", self.loop.time() + self.limits.ws.close_timeout, self._handle_late_close)
        if self._paused & _EVENTS:  # the peer's close frame is behind messages that nobody takes
            self.pause_reading(_EVENTS)

    def _handle_late_close(self) -> None:
        limit = self.limits.ws.close_timeout
        self._give_up(DeadlineExceeded(f"no close frame in {limit} s", limit="close_timeout"))

    def refuse(self, error: ProtocolError) -> None:
        """The peer broke the protocol or went over a limit: fail the connection when what came before has been handled.

        A handler that is not done with that in ``close_timeout`` is not waited for.
        """
        self._reads = False

        def fail() -> None:
            if self._state is not _CLOSED and self.phase is _PHASE_OPEN:
                self._fail(error)

        self.deadlines.set("refuse", self.loop.time() + self.limits.ws.close_timeout, fail)
        self.sink.when_handled(fail)

    def _fail(self, error: Exception) -> None:
        """Fail the connection (RFC 6455 section 7.1.7): tell the peer why, in one close frame, and end."""
        if self._state is _OPEN:
            code = getattr(error, "wire_code", 0) or INTERNAL_ERROR
            text = str(error).encode()[: MAX_CONTROL_PAYLOAD - 2].decode(errors="ignore")
            self._send_close(close_payload(code, text))
        self._note_end(error)
        self.emit(MG_EV_ERROR, error)
        super().drain()

    def _give_up(self, error: Exception) -> None:
        """The peer does not answer any more: there is nobody to be told."""
        self._note_end(error)
        self.fail(error)

    def _note_end(self, error: Exception) -> None:
        self._error = self._error or error
        self._state = WS[self._state, "fail"]
        self._reads = False
        self._unread = ()
        self.deadlines.clear("refuse")
        self._stop_pinging()
        self._fail_pings()

    def fail(self, error: Exception) -> None:
        self._error = self._error or error
        super().fail(error)

    def drain(self) -> None:
        """Begin the closing handshake, with code 1000."""
        if self.phase is _PHASE_OPEN and self._state is not _CLOSED:
            self.begin_close()
        else:
            super().drain()

    def shutdown(self) -> None:
        self.begin_close(GOING_AWAY)

    def close(self) -> None:
        """Close now. The peer is told so by a close frame, whose answer is not awaited."""
        if self.is_open:
            self._send_close(close_payload(NORMAL))
        self._state = WS[self._state, "fail"]
        self._reads = False
        super().close()

    def handle_eof(self) -> None:
        if self._state is not _CLOSED:
            self._note_end(ConnectionClosedError("closed by the peer without a close frame"))
            self.emit(MG_EV_ERROR, self.closed())
        super().drain()

    def handle_lost(self, error: Exception | None) -> Exception | None:
        if self._state is not _CLOSED:
            self._note_end(error or ConnectionClosedError("connection lost"))
        self._fail_pings()
        self._assembly = None
        return error

    def closed(self) -> ConnectionClosed:
        """Return how the connection has ended, or is about to, as an exception."""
        received, sent = self.received_close, self.sent_close
        if received is not None and sent is not None and {received.code, sent.code} <= _ORDERLY:
            return ConnectionClosedOK(f"closed: {received}", received=received, sent=sent)
        if received is None and sent is None:
            message = "closed without a close frame"
        else:
            message = f"closed: received {received or 'no close frame'}, sent {sent or 'none'}"
        if self._error is not None and not isinstance(self._error, ConnectionClosed):
            message += f": {self._error}"
        closed = ConnectionClosedError(message, received=received, sent=sent)
        closed.__cause__ = self._error
        return closed

    # -- sending -------------------------------------------------------------------------------------------------

    def send_message(self, data: str | bytes, opcode: int = TEXT) -> None:
        """Send a message, or a control frame.

        Args:
            data: a str is sent as UTF-8.
            opcode: 1 text, 2 binary, 9 ping, 10 pong; 8 begins the closing handshake with ``data`` as payload.

        Raises:
            ConnectionClosed: the closing handshake has begun, or the connection is closed.
            LocalProtocolError: a fragmented message is being sent, or more than 125 bytes in a control frame.
            ValueError: text that is not UTF-8, or another opcode.
        """
        if self._state is not _OPEN or self.phase is not _PHASE_OPEN:
            raise self.closed()
        payload = payload_of(data, opcode)
        output = self.output
        if (output.is_paused or output.size >= output.high_water) and opcode <= BINARY and not self.admit():
            return
        if opcode in (BINARY, TEXT):
            self.sender.send(FIN | opcode, payload)
        elif opcode == CLOSE:
            self._begin_close_with(payload)
        elif opcode in (PING, PONG):
            self._send_control(opcode, payload)
        else:
            raise ValueError(f"not an opcode of a message: {opcode}")

    def send_fragment(self, payload: bytes, opcode: int, *, is_last: bool) -> None:
        """Send a fragment of a message (RFC 6455 section 5.4); until the last one is sent no other message can be.

        Args:
            payload: bytes of it; of text they may end inside a character.
            opcode: 1 text, 2 binary: the same for all fragments of a message.

        Raises:
            ConnectionClosed: as in :meth:`send_message`.
        """
        if not self.is_open:
            raise self.closed()
        self.sender.send_fragment(payload, opcode, is_last=is_last)

    def _begin_close_with(self, payload: bytes) -> None:
        if len(payload) == 1:
            raise ValueError("a close frame has a code of two bytes, or nothing")
        self.begin_close(int.from_bytes(payload[:2], "big") if payload else NO_STATUS, payload[2:].decode())

    def _send_control(self, opcode: int, payload: bytes) -> None:
        if len(payload) > MAX_CONTROL_PAYLOAD:
            raise LocalProtocolError(f"a control frame has at most {MAX_CONTROL_PAYLOAD} bytes, not {len(payload)}")
        if opcode == PING:
            self.ping(payload)
        else:
            self.sender.send(FIN | PONG, payload)

    def handle_writable(self) -> None:
        self.sender.release()

    # -- pings ---------------------------------------------------------------------------------------------------

    def ping(self, data: bytes = b"", waiter: asyncio.Future[float] | None = None) -> None:
        """Send a ping.

        Args:
            data: at most 125 bytes, not those of a ping that is unanswered; default: random ones.
            waiter: gets the latency in seconds when the pong comes, or ConnectionClosed.

        Raises:
            ConnectionClosed: as in :meth:`send_message`.
            LocalProtocolError: too long, used already, or too many pings are unanswered.
        """
        if not self.is_open:
            raise self.closed()
        if len(data) > MAX_CONTROL_PAYLOAD:
            raise LocalProtocolError(f"a control frame has at most {MAX_CONTROL_PAYLOAD} bytes, not {len(data)}")
        if len(self._pings) >= _MAX_PINGS:
            raise LocalProtocolError(f"{_MAX_PINGS} pings are unanswered")
        payload = bytes(memoryview(data)) or os.urandom(4)
        if any(payload == other.payload for other in self._pings):
            raise LocalProtocolError("a ping with this payload is unanswered")
        self._pings += (_Ping(payload, waiter),)
        self.sender.send(FIN | PING, payload)

    def _handle_pong(self, payload: bytes) -> None:
        """A pong answers the ping with its payload and all before that (RFC 6455 section 5.5.3)."""
        for place, ping in enumerate(self._pings):
            if ping.payload == payload:
                answered, self._pings = self._pings[: place + 1], self._pings[place + 1 :]
                now = time.perf_counter()
                self.latency = now - ping.sent_at
                for other in answered:
                    if other.waiter is not None and not other.waiter.done():
                        other.waiter.set_result(now - other.sent_at)
                return

    def _plan_ping(self) -> None:
        self.deadlines.set("ping", self.loop.time() + self.limits.ws.ping_interval, self._ping_idle)

    def _ping_idle(self) -> None:
        """It is time for a keep-alive ping, and to watch whether anything at all comes back."""
        if not self.is_open:
            return
        if len(self._pings) < _MAX_PINGS // 2:  # the others are the user's
            self.ping()
        if not self._is_watched:
            self._is_watched, self._has_heard = True, False
            self.deadlines.set("pong", self.loop.time() + self.limits.ws.ping_timeout, self._check_peer)
        self._plan_ping()

    def _check_peer(self) -> None:
        """Whoever has sent nothing at all since a ping is gone, unless it is us who do not read."""
        self._is_watched = False
        if self._has_heard or self._paused:
            return
        limit = self.limits.ws.ping_timeout
        self._fail(
            DeadlineExceeded(f"no answer to a ping in {limit} s", limit="ping_timeout", wire_code=INTERNAL_ERROR)
        )

    def _stop_pinging(self) -> None:
        self.deadlines.clear("ping")
        self.deadlines.clear("pong")

    def _fail_pings(self) -> None:
        """No pong will come any more."""
        pings, self._pings = self._pings, ()
        for ping in pings:
            if ping.waiter is not None and not ping.waiter.done():
                ping.waiter.set_exception(self.closed())
                ping.waiter.exception()  # somebody may have stopped waiting


class _Ping:
    """A ping that is unanswered."""

    __slots__ = ("payload", "sent_at", "waiter")

    def __init__(self, payload: bytes, waiter: asyncio.Future[float] | None) -> None:
        self.payload = payload
        self.sent_at = time.perf_counter()  # uvloop's time counts milliseconds
        self.waiter = waiter


def payload_of(data: Any, opcode: int) -> bytes:
    """Return the bytes of a message.

    Raises:
        TypeError: neither str nor bytes. (bytes() would make as many NULs of an int.)
        ValueError: text that is not UTF-8.
    """
    if isinstance(data, str):
        return data.encode()
    payload = data if type(data) is bytes else bytes(memoryview(data))
    if opcode == TEXT and not payload.isascii():
        payload.decode()
    return payload
