"""The sending side of an HTTP/1.1 server connection: one reply at a time, whole, streamed, produced or raw."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, Protocol

from asyncmg.codecs.choice import CodecFactory
from asyncmg.codecs.http import HeadersArgument, RequestHead, WholeRequest, encode_fields, header_pairs
from asyncmg.errors import LocalProtocolError
from asyncmg.fields import header_parameter
from asyncmg.limits import Limits
from asyncmg.messages import HttpMessage

from .deadlines import Deadlines
from .http_filters import ContentEncoder, ReplyDraft, ReplyFilter
from .http_raw import SentReply
from .http_reply import (
    NO_REQUEST,
    FramedReply,
    ReplyFraming,
    closing_head,
    encode_body,
    frame_reply,
    plain_reply,
    streams_by_headers,
)
from .http_source import NO_SOURCE, ContentSource, FileSource
from .http_states import SEND, Sending, require_due
from .http_stream import PartFraming, ReplyStream
from .output import Output

# Members looked up once: through their class that takes Python 3.11 75 ns each.
_IDLE, _DUE, _DONE = Sending.IDLE, Sending.DUE, Sending.DONE
Request = RequestHead | WholeRequest


class ReplyOwner(Protocol):
    """The protocol object whose replies they are."""

    @property
    def message(self) -> HttpMessage | None:
        """The request that is being answered."""

    def handle_reply_end(self) -> None:
        """The reply is complete."""

    def handle_reply_failure(self, error: Exception) -> None:
        """The reply cannot be completed: the connection must end."""


class ReplySender:
    """Sends the reply to the current request; the one place that knows how far it is.

    Args:
        output: of the connection.
        limits: of the connection.
        make_codec: reads replies that the user writes raw.
        loop: goes on producing content in its next turn.
        deadlines: of the connection; the name "ping" is ours.
        owner: told how replies end.

    Attributes:
        state: see :class:`Sending`.
        closes: the connection ends behind the current reply.
    """

    __slots__ = (
        "_deadlines",
        "_filters",
        "_head_length",
        "_head_place",
        "_head_since",
        "_limits",
        "_loop",
        "_make_codec",
        "_output",
        "_owner",
        "_raw",
        "_request",
        "_status",
        "_stream",
        "closes",
        "state",
    )

    def __init__(
        self,
        output: Output,
        limits: Limits,
        make_codec: CodecFactory,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines,
        owner: ReplyOwner,
    ) -> None:
        self.state = Sending.IDLE
        self.closes = False
        self._output = output
        self._limits = limits
        self._make_codec = make_codec
        self._loop = loop
        self._deadlines = deadlines
        self._owner = owner
        self._request: Request = NO_REQUEST
        self._stream: ReplyStream | None = None
        self._status = 0  # of the current reply
        self._filters: tuple[ReplyFilter, ...] = ()  # of the current request
        # The head written last, which may still have to say "close": how long it is (0: there is none), its place in
        # the output, and what had left before it.
        self._head_length = 0
        self._head_place = 0
        self._head_since = 0
        self._raw: SentReply | None = None  # reads the reply that the user writes raw

    @property
    def is_answering(self) -> bool:
        """A request has arrived whose reply is not complete."""
        return self.state in (Sending.DUE, Sending.STREAMING, Sending.RAW)

    @property
    def is_producing(self) -> bool:
        """Content is being taken from a source."""
        return self._stream is not None and self._stream.is_producing

    @property
    def is_close_delimited(self) -> bool:
        """The end of the connection is the end of the content that is being sent."""
        return self._stream is not None and self._stream.is_close_delimited

    def begin_request(self, request: Request, closes: bool) -> None:
        """A request has arrived: a reply to it is due."""
        self.state = _DUE if self.state is _IDLE else SEND[self.state, "request"]
        self._request = request
        self.closes = closes

    def begin_next(self) -> None:
        """Request and reply are complete."""
        self.state = _IDLE if self.state is _DONE else SEND[self.state, "next"]
        self._raw = None
        self._request = NO_REQUEST  # an idle connection keeps nothing of it

    # -- filters ---------------------------------------------------------------------------------------------------

    def add_filter(self, reply_filter: ReplyFilter) -> None:
        """Let somebody look at the reply to the current request.

        Raises:
            LocalProtocolError: there is no request, or its reply has begun.
        """
        require_due(self.state)
        if reply_filter not in self._filters:
            self._filters += (reply_filter,)

    def end_filters(self, status: int, size: int, is_complete: bool) -> None:
        """Tell those who look that the reply is over; nothing happens when there are none."""
        filters, self._filters = self._filters, ()
        message = self._owner.message
        if message is None:
            return
        for reply_filter in reversed(filters):
            try:
                reply_filter.end_reply(message, status, size, is_complete)
            except Exception as exc:
                self._loop.call_exception_handler({"message": "a reply filter raised", "exception": exc})

    def _frame(
        self,
        status: int,
        body: Any,
        headers: HeadersArgument,
        *,
        closes: bool,
        streams: bool,
        length: int | None = None,
        is_file: bool = False,
    ) -> tuple[FramedReply, ContentEncoder | None]:
        """Frame a reply (see :func:`frame_reply`), behind those who look at it and change it."""
        request = self._request
        closes = closes or self.closes
        if not self._filters:
            framed = frame_reply(request, status, body, headers, closes=closes, streams=streams, stream_length=length)
            return framed, None
        data, content_type = encode_body(body)
        streams = streams_by_headers(encode_fields(headers), data) or streams
        pairs = [(name, str(value)) for name, value in header_pairs(headers)]
        draft = ReplyDraft(status, pairs, data, streams=streams, length=length, is_file=is_file)
        if (data or streams) and draft.header("Content-Type") is None:
            draft.headers.append(("Content-Type", content_type.partition(b": ")[2][:-2].decode()))
        self._ask_filters(draft)
        if draft.encoder is not None or draft.body is not data:
            length = None
            draft.headers = [pair for pair in draft.headers if pair[0].lower() != "content-length"]
        framed = frame_reply(
            request,
            draft.status,
            draft.body,
            draft.headers,
            closes=closes,
            streams=streams,
            stream_length=length,
            content_type=content_type,
        )
        return framed, draft.encoder

    def _ask_filters(self, draft: ReplyDraft) -> None:
        message = self._owner.message
        assert message is not None
        for reply_filter in reversed(self._filters):
            try:
                reply_filter.begin_reply(message, draft)
            except Exception as exc:
                self._loop.call_exception_handler({"message": "a reply filter raised", "exception": exc})

    # -- replies ---------------------------------------------------------------------------------------------------

    def reply(self, status: int, body: Any, headers: HeadersArgument, closes: bool, *, streams: bool = False) -> None:
        """Send a whole reply, or begin a stream: what it is, :func:`frame_reply` decides."""
        if self.state is not _DUE:
            require_due(self.state)
        framed, encoder = self._frame(status, body, headers, closes=closes, streams=streams)
        self._begin(framed, encoder=encoder)

    def reply_plainly(self, status: int, body: Any) -> bool:
        """Send a whole reply without headers of the user's the short way; False: :meth:`reply` has to.

        The caller has seen to it that a reply is due and that the connection goes on, and handles the end of the reply.
        """
        if self.closes or self._filters or not self._request.takes_plain_reply:
            return False
        head, content = plain_reply(status, body)
        if not head:
            return False
        self._send_plainly(head + content, len(head))
        return True

    @property
    def takes_plain_reply(self) -> bool:
        """A reply is due that may be sent the short way."""
        return self.state is _DUE and not self.closes and not self._filters and self._request.takes_plain_reply

    def reply_framed(self, piece: bytes, head_length: int) -> None:
        """Send a whole reply that has been framed before, to a request that takes a plain one."""
        self._send_plainly(piece, head_length)
        self._owner.handle_reply_end()

    def _send_plainly(self, piece: bytes, head_length: int) -> None:
        output = self._output
        pieces = output.pieces
        self.state = _DONE
        self._head_length = head_length
        self._head_since = output.written
        self._head_place = len(pieces)
        pieces.append(piece)
        output.size += len(piece)
        if not output.in_turn:
            output.flush_soon()

    def reply_source(
        self, status: int, source: ContentSource, headers: HeadersArgument, length: int | None, *, closes: bool
    ) -> None:
        """Reply with content from a source, taken as fast as the peer takes it."""
        try:
            require_due(self.state)
            is_file = isinstance(source, FileSource)
            framed, encoder = self._frame(
                status, b"", headers, closes=closes, streams=True, length=length, is_file=is_file
            )
        except BaseException:
            source.close()
            raise
        if framed.framing in (ReplyFraming.SILENT, ReplyFraming.WHOLE):
            source.close()
            self._begin(framed)
            if self._stream is not None:
                self._stream.finish()
        else:
            self._begin(framed, length, source, encoder)
            assert self._stream is not None
            self._stream.produce()

    def _begin(
        self,
        framed: FramedReply,
        length: int | None = None,
        source: ContentSource = NO_SOURCE,
        encoder: ContentEncoder | None = None,
    ) -> None:
        self.closes = framed.closes
        self._status = framed.status
        self._note_head(0 if framed.closes else len(framed.head))
        self._output.write(framed.head)
        if framed.framing is ReplyFraming.WHOLE:
            self.state = SEND[self.state, "reply"]
            self._output.write(framed.body)
            self._end(len(framed.body))
            return
        self.state = SEND[self.state, "stream"]
        self._stream = stream = ReplyStream(self._output, self._loop, self, framed, length, source, encoder)
        if framed.body:
            stream.write_content(framed.body)
        interval = self._limits.http.sse_ping_interval
        if framed.is_event_stream and interval and framed.framing is not ReplyFraming.SILENT:
            stream.ping_when_silent(self._deadlines, interval)

    def _end(self, size: int, is_complete: bool = True) -> None:
        """The reply is complete."""
        if self._filters:
            self.end_filters(self._status, size, is_complete)
        self._owner.handle_reply_end()

    def _note_head(self, length: int) -> None:
        """What is written next begins with a head of this length."""
        self._head_length = length
        self._head_since = self._output.written
        self._head_place = len(self._output.pieces)

    def refuse(self, status: int, body: str) -> None:
        """Reply to a request that cannot be read any further; the connection ends behind it."""
        # Of a request that broke in its head nothing is known, not even the method.
        request = NO_REQUEST if self.state is Sending.IDLE else self._request
        if self._filters and self.state is Sending.DUE:
            framed, _ = self._frame(status, body, None, closes=True, streams=False)
        else:
            framed = frame_reply(request, status, body, None, closes=True)
        self.state = SEND[self.state, "refuse"]
        self.closes = True
        self._head_length = 0
        self._output.write(framed.head)
        self._output.write(framed.body)
        self.end_filters(framed.status, len(framed.body), True)

    def begin_upgrade(self, head: bytes) -> None:
        """Send the head of a 101: what follows belongs to another protocol."""
        self.state = SEND[self.state, "reply"]
        self._output.write(head)
        self.end_filters(101, 0, True)

    def announce_close(self) -> None:
        """The connection ends behind this reply: tell the peer, if its head has not left (RFC 9112 section 9.6)."""
        self.closes = True
        length = self._head_length
        if length and self._output.written == self._head_since:
            piece = self._output.pieces[self._head_place]
            self._output.amend(self._head_place, closing_head(piece[:length]) + piece[length:])
            self._head_length = 0

    # -- streams ---------------------------------------------------------------------------------------------------

    @property
    def stream(self) -> ReplyStream:
        """What the user may send pieces on.

        Raises:
            LocalProtocolError: no streamed reply has been begun, or its content comes from an iterator.
        """
        stream = self._stream
        if stream is None or stream.is_producing:
            raise LocalProtocolError("begin a stream first: reply_stream(), or reply() with Transfer-Encoding: chunked")
        return stream

    def begin_multipart(self, status: int, content_type: str, headers: HeadersArgument, closes: bool) -> None:
        """Begin a stream of parts; without a boundary among the parameters, with one that no part can know."""
        boundary = header_parameter(content_type, "boundary") or ""
        if not boundary:
            boundary = secrets.token_hex(16)
            content_type = f"{content_type}; boundary={boundary}"
        pairs = [("Content-Type", content_type), *header_pairs(headers)]
        self.reply(status, b"", pairs, closes, streams=True)
        if self._stream is not None:
            replaces = content_type.lower().startswith("multipart/x-mixed-replace")
            self._stream.parts = PartFraming(boundary.encode(), replaces)

    def produce(self) -> None:
        """There is room: go on with content from a source."""
        if self._stream is not None:
            self._stream.produce()

    def stop_pings(self) -> None:
        """Nothing more is to be sent but what the user sends."""
        if self._stream is not None:
            self._stream.stop_pings()

    def handle_stream_end(self) -> None:
        stream, self._stream = self._stream, None
        assert stream is not None
        self.state = SEND[self.state, "end"]
        self._end(stream.size)

    def handle_stream_failure(self, error: Exception) -> None:
        self._owner.handle_reply_failure(error)

    def give_up(self) -> None:
        """The connection is gone: what the reply was made of is let go."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.stop_producing()
            stream.stop_pings()
        if self._filters:
            self.end_filters(self._status, stream.size if stream is not None else 0, False)

    # -- raw bytes -------------------------------------------------------------------------------------------------

    def note_raw(self, data: bytes) -> None:
        """The user has sent bytes as they are: they are, or belong to, the reply that is due."""
        if self.state is Sending.DUE:
            self.state = SEND[self.state, "raw"]
            self._head_length = 0  # that of the reply before is none of ours
            self._raw = SentReply(self._make_codec, self._limits.http, self._request.method)
        if self.state is not Sending.RAW or self._raw is None:
            return
        self._raw.read(data)
        self.closes = self.closes or not self._raw.keep_alive
        if self._raw.has_ended:
            self.state = SEND[self.state, "end"]
            self._status = self._raw.status
            self._end(self._raw.size)
