"""Looking at replies, and changing them, before they are framed: what compression, CORS and access logs are made of."""

from __future__ import annotations

from typing import Protocol

from asyncmg.messages import HttpMessage


class ContentEncoder(Protocol):
    """Changes the content of a streamed reply on its way."""

    def encode(self, data: bytes) -> bytes:
        """Encode one piece; everything that has come in must go out, so that a stream of events stays one."""

    def finish(self) -> bytes:
        """Return what ends the content."""


class ReplyDraft:
    """A reply that is about to be framed; a filter may change what is not marked as fixed.

    Attributes:
        status: final status code.
        headers: pairs of name and value; Content-Type is among them when the reply has content; Content-Length,
            Transfer-Encoding, Date and Server are added later.
        body: the whole content; b"" when it streams. Of a HEAD request, what GET would get.
        streams: content follows in pieces, or comes from an iterator or a file (fixed).
        length: bytes that will follow, when it streams and that is known, otherwise None (fixed).
        is_file: it streams from a file (fixed): no encoder may be set.
        encoder: what the pieces of a streamed reply go through; the length is then not known.
    """

    __slots__ = ("body", "encoder", "headers", "is_file", "length", "status", "streams")

    def __init__(
        self,
        status: int,
        headers: list[tuple[str, str]],
        body: bytes,
        *,
        streams: bool = False,
        length: int | None = None,
        is_file: bool = False,
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.streams = streams
        self.length = length
        self.is_file = is_file
        self.encoder: ContentEncoder | None = None

    def header(self, name: str) -> str | None:
        """Return the first field with this name, or None."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)

    def set_header(self, name: str, value: str) -> None:
        """Set a field instead of all that have this name."""
        wanted = name.lower()
        self.headers = [pair for pair in self.headers if pair[0].lower() != wanted]
        self.headers.append((name, value))

    def add_vary(self, name: str) -> None:
        """Let caches know that the reply depends on this field of the request (RFC 9110 section 12.5.5)."""
        told = self.header("Vary")
        names = [item.strip().lower() for item in told.split(",")] if told else []
        if "*" not in names and name.lower() not in names:
            self.set_header("Vary", f"{told}, {name}" if told else name)


class ReplyFilter(Protocol):
    """Looks at the reply to one request. What its methods raise is reported, and stops nothing."""

    def begin_reply(self, message: HttpMessage, draft: ReplyDraft) -> None:
        """The reply is about to be framed. The filter added last is asked first."""

    def end_reply(self, message: HttpMessage, status: int, size: int, is_complete: bool) -> None:
        """The reply has been handed over, or never will be.

        Args:
            status: 0 when there was none.
            size: bytes of content.
            is_complete: False when the connection ended in the middle of it.
        """
