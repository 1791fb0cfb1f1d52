"""The sending side of an HTTP/1.1 server connection: one reply at a time, whole, streamed, produced or raw."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Protocol

from asyncmg.codecs.choice import CodecFactory
from asyncmg.codecs.http import LAST_CHUNK, HeadersArgument, RequestHead, WholeRequest, encode_chunk
from asyncmg.errors import ConnectionClosed, LocalProtocolError
from asyncmg.limits import Limits

from .http_raw import SentReply
from .http_reply import NO_REQUEST, FramedReply, ReplyFraming, closing_head, frame_reply, plain_reply
from .http_source import NO_SOURCE, ContentSource
from .http_states import SEND, Sending, require_due
from .output import Output

# Members looked up once: through their class that takes Python 3.11 75 ns each.
_IDLE, _DUE, _DONE = Sending.IDLE, Sending.DUE, Sending.DONE
Request = RequestHead | WholeRequest


class ReplyOwner(Protocol):
    """The protocol object whose replies they are."""

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
        owner: told how replies end.

    Attributes:
        state: see :class:`Sending`.
        closes: the connection ends behind the current reply.
    """

    __slots__ = (
        "_framing",
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
        "_source",
        "closes",
        "state",
    )

    def __init__(
        self,
        output: Output,
        limits: Limits,
        make_codec: CodecFactory,
        loop: asyncio.AbstractEventLoop,
        owner: ReplyOwner,
    ) -> None:
        self.state = Sending.IDLE
        self.closes = False
        self._output = output
        self._limits = limits
        self._make_codec = make_codec
        self._loop = loop
        self._owner = owner
        self._request: Request = NO_REQUEST
        self._framing = ReplyFraming.WHOLE
        self._source: ContentSource = NO_SOURCE
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
        """Content is being taken from an iterator."""
        return self._source is not NO_SOURCE

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

    # -- replies ---------------------------------------------------------------------------------------------------

    def reply(self, status: int, body: Any, headers: HeadersArgument, closes: bool) -> None:
        """Send a whole reply, or begin a stream: what it is, :func:`frame_reply` decides."""
        if self.state is not _DUE:
            require_due(self.state)
        self._begin(frame_reply(self._request, status, body, headers, closes=closes or self.closes))

    def reply_plainly(self, status: int, body: Any) -> bool:
        """Send a whole reply without headers of the user's the short way; False: :meth:`reply` has to.

        The caller has seen to it that a reply is due and that the connection goes on, and handles the end of the reply.
        """
        if self.closes or not self._request.takes_plain_reply:
            return False
        head, content = plain_reply(status, body)
        if not head:
            return False
        output = self._output
        pieces = output.pieces
        piece = head + content
        self.state = _DONE
        self._head_length = len(head)
        self._head_since = output.written
        self._head_place = len(pieces)
        pieces.append(piece)
        output.size += len(piece)
        if not output.in_turn:
            output.flush_soon()
        return True

    def reply_chunks(
        self, status: int, chunks: Iterator[bytes], headers: HeadersArgument, length: int | None, *, closes: bool
    ) -> None:
        """Reply with content from an iterator, taken as fast as the peer takes it."""
        source = ContentSource(chunks, length)
        try:
            require_due(self.state)
            closes = closes or self.closes
            framed = frame_reply(self._request, status, b"", headers, closes=closes, stream_length=length, streams=True)
        except BaseException:
            source.close()
            raise
        if framed.framing in (ReplyFraming.SILENT, ReplyFraming.WHOLE):
            source.close()
            self._begin(framed)
            if self.state is Sending.STREAMING:
                self._end_stream()
        else:
            self._source = source
            self._begin(framed)
            self.produce()

    def _begin(self, framed: FramedReply) -> None:
        self.closes = framed.closes
        self._framing = framed.framing
        self._note_head(0 if framed.closes else len(framed.head))
        self._output.write(framed.head)
        if framed.framing is ReplyFraming.WHOLE:
            self.state = SEND[self.state, "reply"]
            self._output.write(framed.body)
            self._owner.handle_reply_end()
        else:
            self.state = SEND[self.state, "stream"]
            if framed.body:
                self._write_chunk(framed.body)

    def _note_head(self, length: int) -> None:
        """What is written next begins with a head of this length."""
        self._head_length = length
        self._head_since = self._output.written
        self._head_place = len(self._output.pieces)

    def refuse(self, status: int, body: str) -> None:
        """Reply to a request that cannot be read any further; the connection ends behind it."""
        # Of a request that broke in its head nothing is known, not even the method.
        request = NO_REQUEST if self.state is Sending.IDLE else self._request
        self.state = SEND[self.state, "refuse"]
        framed = frame_reply(request, status, body, None, closes=True)
        self.closes = True
        self._head_length = 0
        self._output.write(framed.head)
        self._output.write(framed.body)

    def begin_upgrade(self, head: bytes) -> None:
        """Send the head of a 101: what follows belongs to another protocol."""
        self.state = SEND[self.state, "reply"]
        self._output.write(head)

    def announce_close(self) -> None:
        """The connection ends behind this reply: tell the peer, if its head has not left (RFC 9112 section 9.6)."""
        self.closes = True
        length = self._head_length
        if length and self._output.written == self._head_since:
            piece = self._output.pieces[self._head_place]
            self._output.amend(self._head_place, closing_head(piece[:length]) + piece[length:])
            self._head_length = 0

    # -- streams ---------------------------------------------------------------------------------------------------

    def check_stream(self) -> None:
        """Check that chunks may be sent.

        Raises:
            LocalProtocolError: no streamed reply has been begun, or its content comes from an iterator.
        """
        if self.state is not Sending.STREAMING or self.is_producing:
            raise LocalProtocolError("begin a stream first: reply() with Transfer-Encoding: chunked")

    def send_chunk(self, data: bytes) -> None:
        """Send one chunk; empty data ends the stream."""
        if data:
            self._write_chunk(data)
        else:
            self._end_stream()

    def _write_chunk(self, data: bytes) -> None:
        if self._framing is ReplyFraming.CHUNKED:
            self._output.write(encode_chunk(data))
        elif self._framing is not ReplyFraming.SILENT:
            self._output.write(data)

    def _end_stream(self) -> None:
        if self._framing is ReplyFraming.CHUNKED:
            self._output.write(LAST_CHUNK)
        self.state = SEND[self.state, "end"]
        self._owner.handle_reply_end()

    def produce(self) -> None:
        """Take content from the iterator while the peer takes it, but no more than is fair in one turn."""
        source = self._source
        if source is NO_SOURCE or self._output.is_paused or self._output.is_held:
            return
        try:
            pieces, is_last = source.take()
        except Exception as exc:
            # Whatever the user's iterator raises: the head is out, so the connection is the only way to tell.
            failure = ConnectionClosed(f"content could not be produced: {exc}")
            failure.__cause__ = exc
            self.stop_producing()
            self._owner.handle_reply_failure(failure)
            return
        for piece in pieces:
            self._write_chunk(piece)
        if is_last:
            self.stop_producing()
            self._end_stream()
        else:
            self._output.flush()
            self._loop.call_soon(self.produce)

    def stop_producing(self) -> None:
        """Close the iterator, if there is one."""
        source, self._source = self._source, NO_SOURCE
        try:
            source.close()
        except Exception as exc:
            # Of the user's iterator; the connection has to go on to its end all the same.
            self._loop.call_exception_handler({"message": "closing a reply's content raised", "exception": exc})

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
            self._owner.handle_reply_end()
