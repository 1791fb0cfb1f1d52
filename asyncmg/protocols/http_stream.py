"""The content of one streamed reply: counted, encoded, framed, and produced no faster than the peer takes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from asyncmg.codecs.http import LAST_CHUNK, encode_chunk
from asyncmg.errors import ConnectionClosed, LocalProtocolError
from asyncmg.files.content import OpenFile

from .deadlines import Deadlines
from .http_filters import ContentEncoder
from .http_reply import FramedReply, ReplyFraming
from .http_source import NO_SOURCE, ContentSource
from .output import Output

_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_PING = b":\n\n"  # a comment: browsers do nothing about it (HTML standard, section 9.2.7)


class StreamOwner(Protocol):
    """Whose content it is."""

    def handle_stream_end(self) -> None:
        """The content is complete."""

    def handle_stream_failure(self, error: Exception) -> None:
        """It cannot be completed: the connection must end."""


class PartFraming:
    """Delimiters and headers of a multipart stream (RFC 2046 section 5.1).

    Args:
        boundary: between the parts.
        replaces: multipart/x-mixed-replace: each part stands in place of the one before.
    """

    __slots__ = ("_boundary", "_head_ahead", "_is_begun", "_replaces")

    def __init__(self, boundary: bytes, replaces: bool) -> None:
        self._boundary = boundary
        self._replaces = replaces
        self._is_begun = False
        self._head_ahead = b""  # of the part that comes next, when it has been sent

    def part(self, head: bytes, data: bytes, *, goes_ahead: bool) -> bytes:
        """Frame one part.

        Args:
            head: its header lines.
            data: its content.
            goes_ahead: when parts replace each other, the delimiter behind it and the head of the next one, the same,
                leave together with it: browsers show a picture only when they have seen those. Decided by the first
                part.

        Raises:
            LocalProtocolError: the head that has gone ahead is another one.
        """
        if self._head_ahead:
            if self._head_ahead != head:
                raise LocalProtocolError("parts of this stream have the header of the first: give that one headers")
            return b"%b\r\n%b" % (data, self._open(head))
        is_first, self._is_begun = not self._is_begun, True
        if is_first and goes_ahead and self._replaces:
            self._head_ahead = head
            return b"%b%b\r\n%b" % (self._open(head), data, self._open(head))
        return b"%b%b\r\n" % (self._open(b"%bContent-Length: %d\r\n" % (head, len(data))), data)

    def _open(self, head: bytes) -> bytes:
        return b"--%b\r\n%b\r\n" % (self._boundary, head)

    def end(self) -> bytes:
        """Frame the end."""
        return b"%b--%b--\r\n" % (b"\r\n" if self._head_ahead else b"", self._boundary)


class ReplyStream:
    """Content that follows a head.

    Args:
        output: of the connection.
        loop: goes on producing content in its next turn.
        owner: told how it ends.
        framed: the head that has been written.
        length: bytes of content in all, before they are encoded; None: not known.
        source: produces it; NO_SOURCE: the user sends it piece by piece.
        encoder: what it goes through.

    Attributes:
        size: bytes of content sent, as they are on the wire, without chunk framing.
    """

    __slots__ = (
        "_encoder",
        "_framing",
        "_left",
        "_loop",
        "_output",
        "_owner",
        "_pinger",
        "_source",
        "parts",
        "size",
    )

    def __init__(
        self,
        output: Output,
        loop: asyncio.AbstractEventLoop,
        owner: StreamOwner,
        framed: FramedReply,
        length: int | None,
        source: ContentSource,
        encoder: ContentEncoder | None,
    ) -> None:
        self._output = output
        self._loop = loop
        self._owner = owner
        self._framing = framed.framing
        self._left = length
        self._source = source
        self._encoder = encoder
        self._pinger: Pinger | None = None
        self.parts: PartFraming | None = None  # of a multipart stream
        self.size = 0

    @property
    def is_producing(self) -> bool:
        """Content is being taken from a source."""
        return self._source is not NO_SOURCE

    @property
    def is_close_delimited(self) -> bool:
        """The end of the connection is the end of the content."""
        return self._framing is ReplyFraming.CLOSE

    # -- what sources and users call -------------------------------------------------------------------------------

    def write_content(self, data: bytes | str) -> None:
        if not isinstance(data, bytes):
            data = _as_bytes(data)
        if not data:
            return
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise LocalProtocolError("more content than its announced length")
        if self._pinger is not None:
            self._pinger.touch(data)
        if self._encoder is not None:
            data = self._encoder.encode(data)
            if not data:
                return
        self._write(data)

    def _write(self, data: bytes) -> None:
        if self._framing is ReplyFraming.SILENT:
            return
        self.size += len(data)
        self._output.write(encode_chunk(data) if self._framing is ReplyFraming.CHUNKED else data)

    @property
    def sends_files(self) -> bool:
        return self._framing is ReplyFraming.LENGTH and self._encoder is None and self._output.sends_files

    def send_file(self, file: OpenFile, offset: int, length: int) -> None:
        if self._left is not None:
            self._left -= length
        self.size += length
        self._output.send_file(file, offset, length)

    async def wait_for_room(self) -> None:
        self._output.flush()
        if not await self._output.wait():
            await asyncio.sleep(0)
        if not self.is_producing:
            raise ConnectionClosed("Connection has been closed")

    def end_content(self, error: Exception | None) -> None:
        if not self.is_producing:
            return  # the connection has ended meanwhile
        self._source = NO_SOURCE
        if error is None:
            try:
                self.finish()
                return
            except LocalProtocolError as exc:
                error = exc
        self._fail(error)

    # -- from beginning to end -------------------------------------------------------------------------------------

    def produce(self) -> None:
        """Take content from the source while the peer takes it, but no more than is fair in one turn."""
        output = self._output
        if not self.is_producing or output.is_paused or output.is_held:
            return
        try:
            is_last = self._source.produce(self)
            if is_last:
                self.stop_producing()
                self.finish()
        except Exception as exc:
            # Whatever the user's iterator raises: the head is out, so the connection is the only way to tell.
            self.stop_producing()
            self._fail(exc)
        else:
            if is_last is False:
                output.flush()
                self._loop.call_soon(self.produce)

    def _fail(self, error: Exception) -> None:
        failure = ConnectionClosed(f"content could not be produced: {error}")
        failure.__cause__ = error
        self._owner.handle_stream_failure(failure)

    def finish(self, trailers: Iterable[bytes] = ()) -> None:
        """Send what ends the content.

        Args:
            trailers: field lines; dropped unless the content is chunked.

        Raises:
            LocalProtocolError: less content than its announced length.
        """
        if self._left and self._framing is not ReplyFraming.SILENT:
            raise LocalProtocolError(f"content ended {self._left} bytes before its announced length")
        if self.parts is not None:
            self.write_content(self.parts.end())
        if self._encoder is not None:
            rest = self._encoder.finish()
            if rest:
                self._write(rest)
        if self._framing is ReplyFraming.CHUNKED:
            lines = b"".join(trailers)
            self._output.write(b"0\r\n%b\r\n" % lines if lines else LAST_CHUNK)
        self.stop_pings()
        self._owner.handle_stream_end()

    def stop_producing(self) -> None:
        """Close the source, if there is one."""
        source, self._source = self._source, NO_SOURCE
        try:
            source.close()
        except Exception as exc:
            # Of the user's iterator; the connection has to go on to its end all the same.
            self._loop.call_exception_handler({"message": "closing a reply's content raised", "exception": exc})

    # -- pings -----------------------------------------------------------------------------------------------------

    def ping_when_silent(self, deadlines: Deadlines, interval: float) -> None:
        """Send a comment whenever a stream of events has been silent for so many seconds.

        Proxies keep the connection, and a peer that is gone is noticed.
        """
        if self._left is None:  # a comment would count
            self._pinger = Pinger(self, deadlines, interval, self._loop)

    def stop_pings(self) -> None:
        if self._pinger is not None:
            self._pinger.stop()
            self._pinger = None

    def ping(self) -> None:
        if not self._output.is_paused:
            self.write_content(_PING)


class Pinger:
    """Watches the silence of a stream of events."""

    __slots__ = ("_deadlines", "_interval", "_is_between_events", "_last", "_loop", "_stream")

    def __init__(
        self, stream: ReplyStream, deadlines: Deadlines, interval: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._stream = stream
        self._deadlines = deadlines
        self._interval = interval
        self._loop = loop
        self._last = loop.time()
        self._is_between_events = True
        deadlines.set("ping", self._last + interval, self._look)

    def touch(self, data: bytes) -> None:
        """Something is being sent."""
        self._last = self._loop.time()
        # An event that comes in pieces must not get a comment into a line of its own.
        self._is_between_events = data.endswith(_EVENT_ENDS)

    def _look(self) -> None:
        now = self._loop.time()
        if now + 0.001 >= self._last + self._interval:
            self._last = now
            if self._is_between_events:
                self._stream.ping()
        self._deadlines.set("ping", self._last + self._interval, self._look)

    def stop(self) -> None:
        self._deadlines.clear("ping")


def _as_bytes(data: object) -> bytes:
    if isinstance(data, str):
        return data.encode("utf-8", "surrogateescape")
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"content is made of bytes or str, not {type(data).__name__}")
