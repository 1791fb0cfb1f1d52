"""One HTTP/1.1 exchange after the other (RFC 9112): what is received, when, and what is refused.

Server and client are one class: receiving is the same, a server also owes replies. Bytes become records in a codec
(:mod:`asyncmg.codecs.http`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from asyncmg.codecs.choice import CodecFactory, http_codec
from asyncmg.codecs.http import (
    CONTINUE,
    NO_CODEC,
    NO_TRAILERS,
    EndOfMessage,
    Framing,
    HttpCodec,
    Record,
    RequestHead,
    ResponseHead,
    Role,
    WholeRequest,
    over_limit,
    reason_phrase,
)
from asyncmg.dispatch import EventSink
from asyncmg.errors import (
    ConnectionClosed,
    DeadlineExceeded,
    ProtocolError,
    RemoteProtocolError,
)
from asyncmg.events import MG_EV_ERROR, MG_EV_HTTP_HDRS, MG_EV_HTTP_MSG, MG_EV_READ
from asyncmg.limits import FormLimits
from asyncmg.messages import KEEP_ALIVE, NO_CONTENT, Content, HttpMessage, replay

from .base import BaseProtocol, Pause, Phase
from .http_raw import NOTHING_SENT, SentRequests
from .http_reply import NO_REQUEST
from .http_sender import ReplySender
from .http_states import RECEIVE, Receiving, Sending

# Members looked up once: through their class that takes Python 3.11 75 ns each.
_OPEN, _CLOSED = Phase.OPEN, Phase.CLOSED
_SERVER, _CLIENT = Role.SERVER, Role.CLIENT
_R_IDLE, _R_HEAD, _R_HANDLING, _R_CONTENT, _R_COMPLETE, _R_SWITCHED, _R_ENDED = Receiving
_S_IDLE, _S_DUE, _S_STREAMING, _S_RAW, _S_DONE = Sending
_HTTP_HDRS = 1 << MG_EV_HTTP_HDRS
_READ = 1 << MG_EV_READ


class HttpExchanges(BaseProtocol):
    """The messages that a connection receives, one exchange after the other; what it sends is HttpProtocol's part."""

    __slots__ = (
        "_closes",
        "_codec",
        "_content",
        "_content_since",
        "_idle_is_watched",
        "_idle_since",
        "_is_pumping",
        "_is_stopping",
        "_make_codec",
        "_max_requests",
        "_message",
        "_messages",
        "_outstanding",
        "_read_size",
        "_receiving",
        "_request",
        "_sender",
        "_sent_requests",
        "_unread_records",
        "_unread_since",
    )

    def __init__(self, sink: EventSink, *, codec: CodecFactory | None = None, **kwargs: Any) -> None:
        super().__init__(sink, **kwargs)
        codec = codec or http_codec()
        self._make_codec = codec
        self._codec: HttpCodec = NO_CODEC
        self._sent_requests = SentRequests(codec, self.limits.http) if self.role is _CLIENT else NOTHING_SENT
        self._receiving = _R_IDLE
        self._sender = ReplySender(self.output, self.limits, codec, self.loop, self.deadlines, self)
        self._message: HttpMessage | None = None
        self._content = NO_CONTENT
        self._request: RequestHead | WholeRequest = NO_REQUEST
        self._unread_records: tuple[Record, ...] = ()  # of a WholeRequest that is handled in the three steps of others
        self._idle_since = 0.0
        self._idle_is_watched = False  # the deadline "read" is that of an idle connection
        self._messages = 0
        self._max_requests = self.limits.http.max_requests
        self._outstanding = 0  # client: requests without their response
        self._closes = False  # client: the connection ends behind the current response
        self._is_stopping = False
        self._is_pumping = False
        self._content_since = 0.0  # when the content began, moved by the time that we did not read
        self._unread_since = 0.0
        self._read_size = 0  # bytes not yet told by MG_EV_READ

    # -- receiving -----------------------------------------------------------------------------------------------

    @property
    def recv_len(self) -> int:
        return self._codec.buffered

    @property
    def message(self) -> HttpMessage | None:
        """The message that is being received or, by a server, answered."""
        return self._message

    def when_handled(self, callback: Callable[[], None]) -> None:
        """Call back when the sink has handled every event given so far."""
        self.sink.when_handled(callback)

    @property
    def lingers(self) -> bool:
        return self.role is _SERVER

    @property
    def is_answering(self) -> bool:
        """Server: a request has arrived whose reply is not complete."""
        return self._sender.is_answering

    @property
    def reply_is_due(self) -> bool:
        """Server: a request is complete, and its reply has not been begun."""
        return self._receiving is _R_COMPLETE and self._sender.state is _S_DUE

    def handle_ready(self) -> None:
        if self.role is _SERVER:
            self._await_head()

    def receive_data(self, data: bytes) -> None:
        if self._receiving is _R_ENDED:
            return
        self._read_size += len(data)
        if self._codec is NO_CODEC:
            self._codec = self._make_codec(self.role, self.limits.http)
        if self._sent_requests.is_unreadable and self._receiving is _R_IDLE and self._codec.is_between_messages:
            self._codec.expect("GET")
        self._codec.receive_data(data)
        self._pump()

    def request_received(self, request: WholeRequest) -> None:
        """Like ``data_received``, of a transport that has read a whole request; when busy we take it as mere bytes."""
        output = self.output
        if (
            self._receiving is not _R_IDLE
            or self._paused
            or output.is_paused
            or self.phase is not _OPEN
            or not (self._codec is NO_CODEC or self._codec.is_between_messages)
        ):
            self.data_received(request.raw)
            return
        self._codec = NO_CODEC
        self._is_pumping = output.in_turn = True
        try:
            self._handle_whole(request)
        finally:  # also when the handler exits
            self._is_pumping = output.in_turn = False
        output.in_turn = True
        if self._unread_records:
            self._read_size += len(request.raw)  # told when what there is has been handled
            self._pump()
        elif self.sink.wants & _READ and not self.is_closing:
            self.emit(MG_EV_READ, len(request.raw))
        output.end_turn()

    def handle_eof(self) -> None:
        self._codec.receive_eof()
        if self._receiving is _R_IDLE and self._codec.is_between_messages and not self.is_answering:
            if self._outstanding:
                self.fail(ConnectionClosed("closed by the peer before the response"))
            else:
                self.drain()
            return
        self._pump()

    def _pump(self) -> None:
        """Read records and act on them, as far as what is under way allows."""
        if self._is_pumping:
            return
        self._is_pumping = True
        before = self._messages
        codec = self._codec
        try:
            while self._may_read():
                if self._messages - before >= self.limits.http.max_pipelined:
                    self._continue_later()
                    break
                record: Record | None
                if self._unread_records:
                    record, *rest = self._unread_records
                    self._unread_records = tuple(rest)
                else:
                    record = codec.next_event()
                if record is None:
                    self._await_more()
                    break
                if type(record) is WholeRequest:
                    self._handle_whole(record)
                else:
                    self._handle_record(record)
            else:
                if self._receiving in (_R_IDLE, _R_HEAD) and self.output.is_paused:
                    # Not idle: the peer's pace is watched by the output.
                    self._clear_read_deadline()
                    self.pause_reading(Pause.BUSY)
                elif self._codec.buffered > self.limits.buffers.max_turn_input:
                    self.pause_reading(Pause.BUSY)
        except ProtocolError as exc:
            self._refuse(exc)
        finally:
            self._is_pumping = False
        if self._read_size and self._receiving is not _R_HANDLING and self.phase is not _CLOSED:
            size, self._read_size = self._read_size, 0
            self.report_read(size)

    def _may_read(self) -> bool:
        if self.phase is not _OPEN:
            return False
        receiving = self._receiving
        if receiving is _R_CONTENT:
            return not self._content.is_full
        return (receiving is _R_IDLE or receiving is _R_HEAD) and not self._is_behind()

    def _is_behind(self) -> bool:
        """Server: the peer does not take its replies, so it gets no more of them; handle_writable goes on."""
        if self.role is _CLIENT:
            return False
        if not self.is_writable:
            self.output.flush()
        return self.output.is_paused or self.phase is not _OPEN

    def _continue_later(self) -> None:
        """Enough for this loop turn: others wait."""
        self.pause_reading(Pause.BUSY)
        self.loop.call_soon(self._pump)

    def _await_more(self) -> None:
        self.resume_reading(Pause.BUSY)
        if self._receiving is _R_IDLE:
            if not self._codec.is_between_messages:
                self._receiving = RECEIVE[self._receiving, "bytes"]
                if self.role is _SERVER and self._messages:
                    self._await_head()
        elif self._receiving is _R_CONTENT:
            self._await_content()
        elif self.role is _CLIENT:
            self._await_response()

    def _handle_record(self, record: Record) -> None:
        if isinstance(record, bytes):
            self._handle_content(record)
        elif isinstance(record, EndOfMessage):
            self._handle_end(record)
        elif isinstance(record, RequestHead):
            self._handle_request(record)
        elif isinstance(record, ResponseHead):
            self._handle_response(record)

    def _handle_request(self, head: RequestHead) -> None:
        self._request = head
        self._sender.begin_request(
            head, not head.keep_alive or self._is_stopping or self._messages + 1 >= self._max_requests
        )
        self._begin_message(HttpMessage(head, self._begin_content()))

    def _handle_response(self, head: ResponseHead) -> None:
        if head.status < 200 and head.status != 101:
            return  # interim responses are not the answer (RFC 9110 section 15.2)
        if head.framing is Framing.CLOSE and self.is_tls and self.peer_has_closed:
            self._require_whole_tls()
        self._closes = self._closes or not head.keep_alive
        self._request = RequestHead(
            head.method, "", head.proto, head.fields, head.framing, head.content_length, head.keep_alive, False, ""
        )
        self._begin_message(HttpMessage(head, self._begin_content()))

    def _handle_whole(self, request: WholeRequest) -> None:
        """Handle a request that is all there in one go; what its handler makes unusual goes the way of all others."""
        self._messages += 1
        self._request = request
        self._content = NO_CONTENT
        sender = self._sender
        sender.begin_request(
            request, not request.flags & KEEP_ALIVE or self._is_stopping or self._messages >= self._max_requests
        )
        if not self._idle_is_watched:
            self.deadlines.clear("read")
        self._message = message = HttpMessage(request, self)
        self._receiving = _R_HANDLING  # as the table has it: the steps from "head" to "end" are taken here
        sink = self.sink
        if sink.wants & _HTTP_HDRS and not sink.handle_event(MG_EV_HTTP_HDRS, message):
            if self._receiving is _R_HANDLING and not self._unread_records:
                self._take_apart(request)
            sink.when_handled(self._handle_headers_handled)
            return
        if self._receiving is not _R_HANDLING or self._unread_records or self.phase is not _OPEN:
            return  # its content is taken as a stream, or the connection ends
        length = request.content_length if sender.state is _S_DUE else -1
        if length:
            if length < 0 or length > self.limits.http.max_body:
                self._take_apart(request)
                self._handle_headers_handled()
                return
            message.body_bytes = request.content
        self._receiving = _R_COMPLETE
        sink.handle_event(MG_EV_HTTP_MSG, message)

    def _take_apart(self, request: WholeRequest) -> None:
        """Go on with a WholeRequest as with one that comes in pieces."""
        self._clear_read_deadline()
        message = self._message
        assert message is not None
        message.content = self._begin_content()
        self._unread_records = (request.content, NO_TRAILERS) if request.content_length else (NO_TRAILERS,)

    @property
    def forms(self) -> FormLimits:
        return self.limits.forms

    def begin_stream(self, message: HttpMessage) -> AsyncIterator[bytes]:
        """Make the content of a WholeRequest a stream, when somebody asks for that (see :class:`Streamable`)."""
        if message is not self._message or self._receiving is not _R_HANDLING:
            return replay(b"")
        assert isinstance(self._request, WholeRequest)
        self._take_apart(self._request)
        return self._content.begin_stream(message)

    def _begin_content(self) -> Content:
        high_water = self.limits.buffers.send_high_water
        self._content = Content(
            high_water,
            self._handle_headers_handled,
            self._handle_content_taken,
            self._handle_content_left,
            self.limits.forms,
        )
        return self._content

    def _begin_message(self, message: HttpMessage) -> None:
        self._messages += 1
        self._message = message
        self._receiving = RECEIVE[self._receiving, "head"]
        self._clear_read_deadline()
        self.emit(MG_EV_HTTP_HDRS, message)
        self.when_handled(self._handle_headers_handled)

    def _handle_headers_handled(self) -> None:
        """MG_EV_HTTP_HDRS has been handled: the content is buffered, unless somebody has taken it."""
        if self._receiving is not _R_HANDLING or self.phase is not _OPEN:
            return
        self._receiving = RECEIVE[self._receiving, "handled"]
        head = self._request
        limit = self.limits.http.max_body
        if head.content_length > limit and not self._content.is_taken and not self._discards_content:
            self._refuse(over_limit("content", "max_body", limit, head.content_length, 413))
            return
        sender = self._sender
        is_done = self._discards_content and sender.state is _S_DONE
        if is_done and sender.closes and head.framing is not Framing.NONE:
            self._stop_reading()
            return
        if head.expects_continue and not self._codec.buffered:
            if sender.state is _S_DONE:  # whoever waits for a 100 sends no content behind this reply
                self._stop_reading()
                return
            if sender.state is _S_DUE:
                self.output.write(CONTINUE)
        self._content_since = self.loop.time()
        if self.role is _CLIENT and self._message is not None and self._is_switching(self._message.status()):
            self._receiving = RECEIVE[self._receiving, "switch"]
            self._outstanding = max(0, self._outstanding - 1)
            self.emit(MG_EV_HTTP_MSG, self._message)
            return
        self._pump()

    def _is_switching(self, status: int) -> bool:
        """Client: what follows this response is not HTTP (RFC 9110 sections 15.2.2 and 9.3.6)."""
        return status == 101 or (self._request.method == "CONNECT" and 200 <= status < 300)

    @property
    def _discards_content(self) -> bool:
        """Server: the reply has begun while the content was not complete; nobody wants the rest of it."""
        return self.role is _SERVER and self._sender.state is not _S_DUE and not self._content.is_taken

    def _handle_content(self, data: bytes) -> None:
        content = self._content
        if self._discards_content:
            content.total += len(data)  # dropped, but it counts for its pace
            return
        limit = self.limits.http.max_body
        if not content.is_taken and content.total + len(data) > limit:
            raise over_limit("content", "max_body", limit, content.total + len(data), 413)
        content.receive(data)
        if content.is_full:
            # Not at once: a reader who waits for it takes it before anything more is received.
            self.loop.call_soon(self._pause_while_full)

    def _pause_while_full(self) -> None:
        if self._receiving is _R_CONTENT and self._content.is_full and not self._paused & Pause.CONTENT:
            self._unread_since = self.loop.time()
            self._clear_read_deadline()
            self.pause_reading(Pause.CONTENT)

    def _handle_content_taken(self) -> None:
        """The reader of a streamed content has taken what was there."""
        if self._receiving is not _R_CONTENT:
            return
        if self._paused & Pause.CONTENT:
            self._content_since += self.loop.time() - self._unread_since
            self.resume_reading(Pause.CONTENT)
        self._pump()  # what has come with it waits in the codec

    def _handle_content_left(self) -> None:
        """The reader of a streamed content will take no more."""
        self.loop.call_soon(self._stop_unless_read)

    def _stop_unless_read(self) -> None:
        """When the reply is complete nobody waits for the rest of the content."""
        is_done = self.role is _SERVER and self._sender.state is _S_DONE
        if is_done and self._receiving is _R_CONTENT and not self._content.has_reader and self.phase is _OPEN:
            self._stop_reading()

    def _handle_end(self, record: EndOfMessage) -> None:
        message = self._message
        assert message is not None
        if self._request.framing is Framing.CLOSE and self.is_tls:
            self._require_whole_tls()
        self._receiving = RECEIVE[self._receiving, "end"]
        self._clear_read_deadline()
        self.deadlines.clear("unread")
        if record.trailers:
            message.add_trailers(record.trailers)
        content = self._content
        content.receive_end()
        if not content.is_taken:
            message.body_bytes = content.take_all()
            if not self._discards_content:
                self.emit(MG_EV_HTTP_MSG, message)
        if self.role is _CLIENT:
            self._outstanding = max(0, self._outstanding - 1)
            self._next_message()
        elif self._sender.state is _S_DONE:
            self._next_message()

    def _require_whole_tls(self) -> None:
        """The end of the stream is the end of the content: it must be the peer's (RFC 9112 section 9.8)."""
        if self.transport.get_extra_info("tls_truncated"):
            raise RemoteProtocolError("TLS stream cut off", section="RFC 9112 section 9.8")

    def _next_message(self) -> None:
        """Message and reply are complete."""
        if self._receiving is not _R_COMPLETE:
            return
        self._receiving = RECEIVE[self._receiving, "next"]
        self._message = None
        self._request = NO_REQUEST
        if self._closes and self._outstanding:
            self.fail(ConnectionClosed("closed by the server before the next response"))
            return
        closes = self._closes or self._is_stopping
        if self.role is _SERVER:
            closes = closes or self._sender.closes
            self._sender.begin_next()
        if closes or (self.peer_has_closed and self._codec.is_between_messages):
            self.drain()
            return
        if self.role is _SERVER:
            self._await_next()
        elif self._outstanding:
            self._await_response()
        self._pump()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.role is _SERVER and self._receiving in (_R_IDLE, _R_HEAD):
            self._clear_read_deadline()  # not idle: the peer's pace is watched by the output; handle_writable goes on

    # -- time ----------------------------------------------------------------------------------------------------

    def _clear_read_deadline(self) -> None:
        self._idle_is_watched = False
        self.deadlines.clear("read")

    def _await_next(self) -> None:
        if self._receiving is _R_HEAD or not self._messages:
            self._await_head()
            return
        self._idle_since = now = self.loop.time()
        if not self._idle_is_watched:
            self._idle_is_watched = True
            self.deadlines.set("read", now + self.limits.http.keepalive_timeout, self._handle_idle)

    def _handle_idle(self) -> None:
        """The connection may have been idle for too long: requests that came meanwhile did not move the deadline."""
        self._idle_is_watched = False
        if self._receiving is not _R_IDLE:
            return
        due = self._idle_since + self.limits.http.keepalive_timeout
        if due <= self.loop.time() + 0.001:
            self.drain()
        else:
            self._idle_is_watched = True
            self.deadlines.set("read", due, self._handle_idle)

    def _await_head(self) -> None:
        self._idle_is_watched = False
        when = self.loop.time() + self.limits.http.header_timeout
        self.deadlines.set("read", when, self._handle_late_head)

    def _handle_late_head(self) -> None:
        limit = self.limits.http.header_timeout
        self._refuse_late(DeadlineExceeded(f"no request in {limit} s", limit="header_timeout", wire_code=408))

    def _await_content(self) -> None:
        buffers = self.limits.buffers
        allowed = max(buffers.rate_grace, self._content.total / buffers.min_rate if buffers.min_rate else 1e9)
        when = min(self.loop.time() + buffers.stall_timeout, self._content_since + allowed)
        if self.role is _CLIENT and self._content.is_taken:
            when = self.loop.time() + buffers.stall_timeout  # a stream of events may be slow for good reason
        self.deadlines.set("read", when, self._handle_late_content)

    def _handle_late_content(self) -> None:
        error = DeadlineExceeded("content comes too slowly", limit="min_rate, stall_timeout", wire_code=408)
        self._refuse_late(error)

    def _await_response(self) -> None:
        when = self.loop.time() + self.limits.buffers.stall_timeout
        self.deadlines.set("read", when, self._handle_late_response)

    def _handle_late_response(self) -> None:
        limit = self.limits.buffers.stall_timeout
        self.fail(DeadlineExceeded(f"no response in {limit} s", limit="stall_timeout"))

    def _refuse_late(self, error: DeadlineExceeded) -> None:
        if self.role is _CLIENT:
            self._content.fail(error)
            self.fail(error)
        else:
            self._refuse(error)

    # -- refusing ------------------------------------------------------------------------------------------------

    def _refuse(self, error: ProtocolError | DeadlineExceeded) -> None:
        """The peer broke the protocol or went over a limit: tell it with one clean reply, then close."""
        self._receiving = RECEIVE[self._receiving, "stop"]
        self._clear_read_deadline()
        self._content.fail(error)
        if self.role is _CLIENT:
            self.fail(error)
            return
        if self._sender.state in (_S_IDLE, _S_DUE):
            status = error.wire_code if error.wire_code >= 400 else 400
            self._sender.refuse(status, f"{status} {reason_phrase(status)}\n")
            self.emit(MG_EV_ERROR, error)
            self.drain()
        elif self._sender.state is _S_DONE:  # answered before its content was complete
            self.emit(MG_EV_ERROR, error)
            self.drain()
        else:
            self.fail(error)

    def handle_lost(self, error: Exception | None) -> Exception | None:
        under_way = self._receiving in (_R_HEAD, _R_CONTENT) or self._outstanding or self.is_answering
        lost = error or ConnectionClosed("closed in the middle of a message")
        self._content.fail(lost)
        self._sender.give_up()
        self._receiving = RECEIVE[self._receiving, "stop"]
        return error if under_way else None

    def shutdown(self) -> None:
        self._is_stopping = self._sender.closes = True
        if self.role is _CLIENT:
            if not self._outstanding:
                self.drain()
        elif self._receiving is _R_IDLE and not self.is_answering and self.phase is _OPEN:
            self.output.flush()
            if self.transport.get_write_buffer_size():
                self.drain()  # the peer is still taking the last reply
            elif self.phase is _OPEN:
                self._finish()  # nothing is under way: there is no last reply that a reset could eat

    # -- the end of a reply ----------------------------------------------------------------------------------------

    def handle_reply_end(self) -> None:
        """The reply is complete: so is the exchange, when the request is."""
        if self._receiving is _R_COMPLETE:
            sender = self._sender
            if self._is_pumping and self._idle_is_watched and not (sender.closes or self.peer_has_closed):
                # The short way of _next_message(): whoever pumps goes on.
                sender.begin_next()
                self._receiving = _R_IDLE
                self._message = None
                self._request = NO_REQUEST
                self._idle_since = self.loop.time()
            else:
                self._next_message()
        elif self._receiving is _R_CONTENT and self._content.has_reader:
            # The reply is complete before the content is: its reader may go on, but not for ever.
            self.deadlines.set("unread", self.loop.time() + self.limits.buffers.stall_timeout, self._stop_reading)
        elif self._receiving is _R_CONTENT and self._sender.closes:
            self._stop_reading()

    def handle_reply_failure(self, error: Exception) -> None:
        """The reply cannot be completed."""
        if self.phase is _OPEN:
            if self._sender.is_close_delimited:
                self.end_with_reset()  # an orderly end would be that of the content
            self.fail(error)

    def _stop_reading(self) -> None:
        """Leave the rest of the content unread and end the connection."""
        self._receiving = RECEIVE[self._receiving, "stop"]
        self._content.fail(ConnectionClosed("the reply was complete before the content was read"))
        self.drain()
