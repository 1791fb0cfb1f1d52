"""The portable HTTP/1.1 codec (RFC 9112): heads are parsed by h11, strictness and content framing are ours.

h11 reads heads leniently in places (bare LF, obs-fold, repeated equal Content-Length), and reading chunks through its
state machine costs some 20 us each; so every head is checked before h11 sees it, and content is framed here. What this
codec accepts h11 accepts as well, with the same result: the tests hold it to that.
"""

from __future__ import annotations

import re
from enum import StrEnum

import h11

from asyncmg.errors import RemoteProtocolError
from asyncmg.limits import HttpLimits
from asyncmg.messages import Field

from .http import (
    NO_TRAILERS,
    EndOfMessage,
    Framing,
    Record,
    RequestHead,
    ResponseHead,
    Role,
    over_limit,
    refuse,
    request_head,
    response_head,
)


class _State(StrEnum):
    HEAD = "head"
    LENGTH = "length"
    CHUNKS = "chunks"
    TRAILERS = "trailers"
    CLOSE = "until close"
    END = "end"  # the content is complete, EndOfMessage is due
    SWITCHED = "switched"  # after 101, or 2xx to CONNECT: the bytes belong to another protocol
    EOF = "eof"
    FAILED = "failed"  # an error was raised; it is final


_AFTER_HEAD = {
    Framing.NONE: _State.END,
    Framing.LENGTH: _State.LENGTH,
    Framing.CHUNKED: _State.CHUNKS,
    Framing.CLOSE: _State.CLOSE,
}

_MISPLACED = re.compile(rb"\r(?!\n)|(?<!\r)\n|\x00")
_MISPLACED_BEFORE_END = re.compile(rb"\r(?!\n|\Z)|(?<!\r)\n|\x00")  # a CR at the end may still get its LF
_FOLD = re.compile(rb"\r\n[ \t]")
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length[ \t]*:", re.IGNORECASE)
_CONTENT_LENGTH_LIST = re.compile(rb"\r\ncontent-length[ \t]*:[^\r]*,", re.IGNORECASE)
_VERSION = re.compile(rb"HTTP/([0-9])\.[0-9]")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})([ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_TRAILER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")
_MAX_EMPTY_LINES = 2  # RFC 9112 section 2.2: at least one before a request line should be ignored

# A client's h11 object reads a 1xx or 101 only after a request that allows it. The request is never sent.
_ANY_REQUEST = h11.Request(
    method="GET", target="/", headers=[("host", "-"), ("connection", "upgrade"), ("upgrade", "any")]
)


class PortableHttpCodec:
    """Reads requests (role SERVER) or responses (CLIENT). The contract is :class:`asyncmg.codecs.http.HttpCodec`."""

    __slots__ = (
        "_buffer",
        "_empty_lines",
        "_extensions",
        "_has_eof",
        "_limits",
        "_methods",
        "_needs_crlf",
        "_remaining",
        "_role",
        "_scanned",
        "_state",
    )

    def __init__(self, role: Role, limits: HttpLimits) -> None:
        self._role = role
        self._limits = limits
        self._buffer = bytearray()
        self._scanned = 0  # bytes of the buffer that hold no end of a head or trailer section
        self._state = _State.HEAD
        self._remaining = 0  # bytes of content, or of the current chunk
        self._needs_crlf = False  # the CRLF behind a chunk is due
        self._extensions = 0  # bytes of chunk extensions of this message
        self._empty_lines = 0
        self._methods: list[str] = []
        self._has_eof = False

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    @property
    def is_between_messages(self) -> bool:
        return self._state is _State.HEAD and not self._buffer

    def expect(self, method: str) -> None:
        self._methods.append(method)

    def receive_data(self, data: bytes) -> None:
        if self._state is not _State.FAILED:
            self._buffer += data

    def receive_eof(self) -> None:
        self._has_eof = True

    def take_rest(self) -> bytes:
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._state = _State.SWITCHED
        return rest

    def next_event(self) -> Record | None:
        try:
            return self._next_event()
        except RemoteProtocolError:
            self._state = _State.FAILED
            self._buffer.clear()
            raise

    def _next_event(self) -> Record | None:
        state = self._state
        if state is _State.HEAD:
            return self._read_head()
        if state is _State.LENGTH:
            return self._read_length()
        if state is _State.CHUNKS:
            return self._read_chunks()
        if state is _State.TRAILERS:
            return self._read_trailers()
        if state is _State.END:
            self._state = _State.HEAD
            return NO_TRAILERS
        if state is _State.CLOSE:
            return self._read_until_close()
        return None

    # -- heads ---------------------------------------------------------------------------------------------------

    def _read_head(self) -> Record | None:
        buffer = self._buffer
        if not buffer:
            return None
        while buffer.startswith(b"\r\n") and self._role is Role.SERVER and self._empty_lines < _MAX_EMPTY_LINES:
            del buffer[:2]
            self._empty_lines += 1
        end = buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if end < 0:
            self._check_incomplete_head()
            return None
        head = bytes(buffer[: end + 4])
        del buffer[: end + 4]
        self._scanned = self._empty_lines = self._extensions = 0
        self._check_head(head)
        result = self._parse_request(head) if self._role is Role.SERVER else self._parse_response(head)
        self._state = _AFTER_HEAD[result.framing]
        self._remaining = result.content_length
        self._needs_crlf = False
        if isinstance(result, ResponseHead) and result.status < 200:
            self._state = _State.SWITCHED if result.status == 101 else _State.HEAD
        elif isinstance(result, ResponseHead) and result.method == "CONNECT" and result.status < 300:
            self._state = _State.SWITCHED
        return result

    def _check_incomplete_head(self) -> None:
        """Refuse what cannot become a head any more, so that it is told at once and memory stays bounded."""
        buffer = self._buffer
        if _MISPLACED_BEFORE_END.search(buffer, max(0, self._scanned - 1)):
            raise refuse("bare CR, bare LF or NUL in the header", "9112 section 2.2")
        self._check_sizes(buffer)
        self._scanned = len(buffer)
        if self._has_eof and buffer:
            raise refuse("closed in the middle of a header", "9112 section 8")

    def _check_head(self, head: bytes) -> None:
        if _MISPLACED.search(head):
            raise refuse("bare CR, bare LF or NUL in the header", "9112 section 2.2")
        self._check_sizes(head)
        if _FOLD.search(head):
            raise refuse("line folding in the header", "9112 section 5.2")
        # h11 hides equal repeated values; intermediaries may not.
        if len(_CONTENT_LENGTH.findall(head)) > 1 or _CONTENT_LENGTH_LIST.search(head):
            raise refuse("malformed or repeated Content-Length", "9112 section 6.3")

    def _check_sizes(self, head: bytes | bytearray) -> None:
        """Hold a head, whole or not, against the limits."""
        limits = self._limits
        line_end = head.find(b"\r\n")
        # A CR at the end of an unfinished head belongs to the line end.
        line = line_end if line_end >= 0 else len(head) - head.endswith(b"\r")
        if line > limits.max_request_line:
            status = 414 if self._role is Role.SERVER else 0
            raise over_limit("request line", "max_request_line", limits.max_request_line, line, status)
        section = len(head) - line
        if section > limits.max_header_size:
            raise over_limit("header section", "max_header_size", limits.max_header_size, section, 431)
        if section > limits.max_field_line:
            longest = max(map(len, head[line + 2 :].removesuffix(b"\r").split(b"\r\n")))
            if longest > limits.max_field_line:
                raise over_limit("field line", "max_field_line", limits.max_field_line, longest, 431)
        # Line ends: one behind the first line, one behind each field, one more when the head is whole.
        fields = head.count(b"\r\n") - 1 - head.endswith(b"\r\n\r\n")
        if fields > limits.max_fields:
            raise over_limit("number of fields", "max_fields", limits.max_fields, fields, 431)

    def _parse_request(self, head: bytes) -> RequestHead:
        version = _VERSION.fullmatch(head[: head.index(b"\r\n")].rpartition(b" ")[2])
        if version is not None and version[1] != b"1":
            raise refuse("HTTP version other than 1.0 and 1.1", "9110 section 15.6.6", 505)
        event = self._parse(h11.Connection(h11.SERVER, max_incomplete_event_size=len(head) + 1), head)
        if not isinstance(event, h11.Request):
            raise refuse("malformed request head", "9112 section 3")
        proto = "HTTP/1.0" if event.http_version == b"1.0" else "HTTP/1.1"
        fields = event.headers.raw_items()
        return request_head(event.method.decode("ascii"), event.target.decode("ascii"), proto, fields)

    def _parse_response(self, head: bytes) -> ResponseHead:
        if not self._methods:
            raise refuse("response without a request", "9112 section 9.2")
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=len(head) + 1)
        connection.send(_ANY_REQUEST)
        event = self._parse(connection, head)
        if not isinstance(event, h11.Response | h11.InformationalResponse):
            raise refuse("malformed response head", "9112 section 4")
        if event.http_version[:1] != b"1":
            raise refuse("HTTP version other than 1.0 and 1.1", "9112 section 2.3")
        proto = "HTTP/1.0" if event.http_version == b"1.0" else "HTTP/1.1"
        # Only the final response uses the request up.
        method = self._methods[0] if event.status_code < 200 else self._methods.pop(0)
        reason = bytes(event.reason).decode("utf-8", "surrogateescape")
        return response_head(method, event.status_code, reason, proto, event.headers.raw_items())

    def _parse(self, connection: h11.Connection, head: bytes) -> object:
        connection.receive_data(head)
        try:
            return connection.next_event()
        except h11.RemoteProtocolError as exc:
            error = RemoteProtocolError(str(exc), wire_code=exc.error_status_hint, section="RFC 9112")
            raise error from exc

    # -- content -------------------------------------------------------------------------------------------------

    def _read_length(self) -> Record | None:
        buffer = self._buffer
        if not buffer:
            self._check_eof()
            return None
        if len(buffer) <= self._remaining:
            data = bytes(buffer)
            buffer.clear()
        else:
            data = bytes(buffer[: self._remaining])
            del buffer[: self._remaining]
        self._remaining -= len(data)
        if not self._remaining:
            self._state = _State.END
        return data

    def _read_until_close(self) -> Record | None:
        if self._buffer:
            data = bytes(self._buffer)
            self._buffer.clear()
            return data
        if self._has_eof:
            self._state = _State.EOF
            return NO_TRAILERS
        return None

    def _check_eof(self) -> None:
        """More content is needed: will it come?"""
        if self._has_eof:
            raise refuse("closed in the middle of the content", "9112 section 8")

    def _read_chunks(self) -> Record | None:
        """Read all chunks that are there, as one piece: a thousand chunks of one byte cost one record."""
        buffer = self._buffer
        pieces: list[bytes | bytearray] = []
        position = 0
        error: RemoteProtocolError | None = None
        try:
            while self._state is _State.CHUNKS:
                if self._remaining:
                    piece = buffer[position : position + self._remaining]
                    if not piece:
                        break
                    pieces.append(piece)
                    position += len(piece)
                    self._remaining -= len(piece)
                    self._needs_crlf = not self._remaining
                    continue
                end = self._read_chunk_line(position)
                if end < 0:
                    break
                position = end
        except RemoteProtocolError as exc:
            error = exc
        del buffer[:position]
        if pieces:
            # An error is met again, at the same place, by the next call.
            return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
        if error is not None:
            raise error
        if self._state is _State.TRAILERS:
            return self._read_trailers()
        self._check_eof()
        return None

    def _read_chunk_line(self, position: int) -> int:
        """Read the end of the chunk before and one chunk line; return the position behind it, -1 when incomplete."""
        buffer = self._buffer
        if self._needs_crlf:
            if len(buffer) - position < 2:
                if len(buffer) > position and buffer[position] != 13:
                    raise refuse("no CRLF behind a chunk", "9112 section 7.1")
                return -1
            if buffer[position : position + 2] != b"\r\n":
                raise refuse("no CRLF behind a chunk", "9112 section 7.1")
            position += 2
        limit = self._limits.max_chunk_line
        end = buffer.find(b"\r\n", position, position + limit + 2)
        if end < 0:
            size = len(buffer) - position - buffer.endswith(b"\r")
            if size > limit:
                raise over_limit("chunk line", "max_chunk_line", limit, size, 400)
            if _MISPLACED_BEFORE_END.search(buffer, position):
                raise refuse("bare CR or LF in a chunk line", "9112 section 7.1")
            return -1
        match = _CHUNK_SIZE.fullmatch(buffer, position, end)
        if match is None:
            raise refuse("malformed chunk size", "9112 section 7.1")
        self._extensions += match.end(2) - match.start(2)
        if self._extensions > self._limits.max_chunk_extensions:
            limit = self._limits.max_chunk_extensions
            raise over_limit("chunk extensions", "max_chunk_extensions", limit, self._extensions, 400)
        self._remaining = int(match[1], 16)
        self._needs_crlf = False
        if not self._remaining:
            self._state = _State.TRAILERS
            self._scanned = 0
            return end  # the line end stays, so that trailers always end with an empty line
        return end + 2

    def _read_trailers(self) -> Record | None:
        buffer = self._buffer
        limits = self._limits
        end = buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        # Behind an unfinished section CR LF CR may be there already.
        size = end if end >= 0 else len(buffer) - 3
        if size > limits.max_trailer_size:
            raise over_limit("trailer section", "max_trailer_size", limits.max_trailer_size, size, 400)
        if end < 0:
            if _MISPLACED_BEFORE_END.search(buffer, max(0, self._scanned - 1)):
                raise refuse("bare CR, bare LF or NUL in the trailers", "9112 section 7.1.2")
            self._scanned = len(buffer)
            self._check_eof()
            return None
        section = bytes(buffer[2:end])
        del buffer[: end + 4]
        self._scanned = 0
        self._state = _State.HEAD
        if not section:
            return NO_TRAILERS
        lines = section.split(b"\r\n")
        if len(lines) > limits.max_fields:
            raise over_limit("number of trailer fields", "max_fields", limits.max_fields, len(lines), 400)
        trailers: list[Field] = []
        for line in lines:
            match = _TRAILER.fullmatch(line)
            if match is None:
                raise refuse("malformed trailer field", "9112 section 7.1.2")
            trailers.append((match[1], match[2]))
        return EndOfMessage(trailers)
