"""How replies are framed (RFC 9112 section 6, RFC 9110 section 8.6): the one place that decides it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from email.utils import formatdate
from enum import StrEnum
from typing import Any

from asyncmg.codecs.http import (
    Framing,
    HeadersArgument,
    RequestHead,
    WholeRequest,
    encode_fields,
    encode_response_head,
)
from asyncmg.errors import InvalidHeader

SERVER_LINE = b"Server: asyncmg\r\n"

_JSON = b"Content-Type: application/json\r\n"
_HTML = b"Content-Type: text/html; charset=utf-8\r\n"
_TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_CLOSE = b"Connection: close\r\n"
_KEEP_ALIVE = b"Connection: keep-alive\r\n"
_EVENT_STREAM = b"content-type: text/event-stream"

# What a recipient needs to know before the content (RFC 9110 section 6.5.1).
_NO_TRAILERS = frozenset(
    b"authorization cache-control connection content-encoding content-length content-range content-type expect host"
    b" keep-alive max-forwards pragma proxy-authenticate proxy-authorization range set-cookie te trailer"
    b" transfer-encoding upgrade www-authenticate".split()
)

# Lines that a user may name but that are ours to write.
_FRAMING_FIELDS = frozenset({b"content-length", b"transfer-encoding", b"connection"})


class ReplyFraming(StrEnum):
    """How the content of a reply that has been begun goes on."""

    WHOLE = "whole"  # it is all there
    LENGTH = "length"  # a given number of bytes follows
    CHUNKED = "chunked"
    CLOSE = "close"  # HTTP/1.0: until the connection closes
    SILENT = "silent"  # the reply to HEAD: what the user streams is not sent


class FramedReply:
    """Head and content of one reply."""

    __slots__ = ("body", "closes", "framing", "head", "is_event_stream", "status")

    def __init__(self, status: int, head: bytes, body: bytes, framing: ReplyFraming, closes: bool) -> None:
        self.status = status
        self.head = head
        self.body = body
        self.framing = framing
        self.closes = closes  # the connection ends behind this reply
        self.is_event_stream = False  # what streams is text/event-stream


class _Second:
    """What holds for a second: the Date field line (RFC 9110 section 6.6.1), and heads that have it in them.

    Attributes:
        end: when it ends (seconds since the epoch).
        heads: of plain replies, by status, Content-Type line and length of the content.
    """

    __slots__ = ("_line", "end", "heads")

    def __init__(self) -> None:
        self.end = 0.0
        self.heads: dict[tuple[int, bytes, int], bytes] = {}
        self._line = b""

    def begin(self, now: float) -> None:
        second = int(now)
        self.end = second + 1.0
        self.heads.clear()
        self._line = b"Date: " + formatdate(second, usegmt=True).encode() + b"\r\n"

    def date_line(self) -> bytes:
        now = time.time()
        # The clock may have been set back.
        if not self.end - 1.0 <= now < self.end:
            self.begin(now)
        return self._line


NO_REQUEST = RequestHead("GET", "/", "HTTP/1.1", [], Framing.NONE, 0, True, False, "")

_second = _Second()
_MAX_HEADS = 256  # kept per second


def encode_body(body: Any) -> tuple[bytes, bytes]:
    """Turn a reply's body into bytes and the Content-Type line that goes with it.

    dict, list and tuple become JSON; a str becomes HTML when it starts like an HTML document, otherwise plain text;
    bytes stay as they are and count as plain text, as in Mongoose.

    Raises:
        TypeError: another type, or a dict or list that JSON cannot express.
    """
    if isinstance(body, bytes):
        return body, _TEXT
    if isinstance(body, str):
        start = body[:64].lstrip().lower()
        is_html = start.startswith(("<!doctype html", "<html"))
        return body.encode("utf-8", "surrogateescape"), _HTML if is_html else _TEXT
    if isinstance(body, dict | list | tuple):
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape"), _JSON
    if isinstance(body, bytearray | memoryview):
        return bytes(body), _TEXT
    if body is None:
        return b"", _TEXT
    raise TypeError(f"a body is bytes, str, dict or list, not {type(body).__name__}")


def plain_reply(status: int, body: Any) -> tuple[bytes, bytes]:
    """Frame a reply without headers of the user's to a request that takes it, with a head made before if there is one.

    Returns:
        head and content; an empty head when it is not plain: see :func:`frame_reply`.
    """
    data, content_type = (body, _TEXT) if type(body) is bytes else encode_body(body)
    now = time.time()
    if not _second.end - 1.0 <= now < _second.end:
        _second.begin(now)
    key = (status, content_type, len(data))
    head = _second.heads.get(key)
    if head is None:
        if status in (204, 304) or not data:
            return b"", b""
        head = frame_reply(NO_REQUEST, status, data, (), closes=False, content_type=content_type).head
        if len(_second.heads) < _MAX_HEADS:
            _second.heads[key] = head
    return head, data


def frame_reply(
    request: RequestHead | WholeRequest,
    status: int,
    body: Any,
    headers: HeadersArgument,
    *,
    closes: bool,
    stream_length: int | None = None,
    streams: bool = False,
    content_type: bytes = b"",
) -> FramedReply:
    """Frame a reply.

    Args:
        request: what it answers.
        status: 200 to 599 (other three-digit codes are allowed).
        body: see :func:`encode_body`; of a streamed reply its first piece.
        headers: the user's; Content-Length, Transfer-Encoding and Connection are read, not copied.
        closes: the connection ends behind the reply whatever the headers say.
        stream_length: number of bytes that will follow, when known.
        content_type: line that goes with a body that is encoded already.
        streams: content will follow; implied by ``Transfer-Encoding: chunked``, and by ``text/event-stream`` without
            a body.

    Raises:
        ValueError: the status is not a final one.
        InvalidHeader: an illegal header, a Content-Length that is not the body's, another Transfer-Encoding.
    """
    if not 200 <= status <= 999:
        raise ValueError(f"not a final status code: {status}")
    if content_type:
        data = body
    else:
        data, content_type = encode_body(body)
    fields = encode_fields(headers)
    lines: list[bytes] = []
    names: set[bytes] = set()
    declared = declared_length(fields)
    for name, line in fields:
        names.add(name)
        if name not in _FRAMING_FIELDS:
            lines.append(line)
        elif name == b"connection" and b"close" in line.lower():
            closes = True
        elif name == b"connection" and b"keep-alive" not in line.lower():
            lines.append(line)  # other options, such as Upgrade behind a 426
    streams = streams_by_headers(fields, data) or streams
    is_head = request.method == "HEAD"
    # RFC 9110 sections 8.6 and 9.3.6: no content, no length in a 2xx to CONNECT.
    has_content = status not in (204, 304) and not (request.method == "CONNECT" and status < 300)
    if b"content-type" not in names and has_content and (data or streams):
        lines.append(content_type)
    if not has_content:
        data, framing = b"", ReplyFraming.WHOLE
        if status == 304 and declared is not None:
            lines.append(b"Content-Length: %d\r\n" % declared)
    elif streams:
        framing = _stream_framing(request, stream_length, lines)
        closes = closes or framing is ReplyFraming.CLOSE
        if is_head:
            framing = ReplyFraming.SILENT
    else:
        if declared is not None and declared != len(data) and not (is_head and not data):
            raise InvalidHeader(f"Content-Length {declared} for {len(data)} bytes of body")
        lines.append(b"Content-Length: %d\r\n" % (len(data) if declared is None else declared))
        framing = ReplyFraming.WHOLE
    if closes:
        lines.append(_CLOSE)
    elif request.proto == "HTTP/1.0":
        lines.append(_KEEP_ALIVE)
    if b"date" not in names:
        lines.append(_second.date_line())
    if b"server" not in names:
        lines.append(SERVER_LINE)
    framed = FramedReply(status, encode_response_head(status, lines), b"" if is_head else data, framing, closes)
    framed.is_event_stream = _is_event_stream(fields)
    return framed


def streams_by_headers(fields: Iterable[tuple[bytes, bytes]], data: bytes) -> bool:
    """Whether a user's headers say that content will follow the one that is there.

    Raises:
        InvalidHeader: a Transfer-Encoding other than chunked.
    """
    codings = [line.partition(b":")[2].strip().lower() for name, line in fields if name == b"transfer-encoding"]
    if any(coding != b"chunked" for coding in codings):
        raise InvalidHeader("Transfer-Encoding can only be chunked")
    return bool(codings) or (not data and _is_event_stream(fields))


def _is_event_stream(fields: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name == b"content-type" and line.lower().startswith(_EVENT_STREAM) for name, line in fields)


def declared_length(fields: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Return what a user's Content-Length says, None without one.

    Raises:
        InvalidHeader: it is not a number.
    """
    for name, line in fields:
        if name == b"content-length":
            value = line.partition(b":")[2].strip()
            if not value.isdigit():
                raise InvalidHeader(f"Content-Length is not a number: {value!r}")
            return int(value)
    return None


def _stream_framing(request: RequestHead | WholeRequest, length: int | None, lines: list[bytes]) -> ReplyFraming:
    if length is not None:
        lines.append(b"Content-Length: %d\r\n" % length)
        return ReplyFraming.LENGTH
    if request.proto == "HTTP/1.0":
        return ReplyFraming.CLOSE
    lines.append(_CHUNKED)
    return ReplyFraming.CHUNKED


def closing_head(head: bytes) -> bytes:
    """Add ``Connection: close`` to a head that does not say how the connection goes on."""
    return head[:-2] + _CLOSE + b"\r\n"


def upgrade_head(token: str, headers: HeadersArgument) -> bytes:
    """Encode the head of a 101 response (RFC 9110 section 7.8)."""
    lines: Iterable[bytes] = [line for _, line in encode_fields(headers)]
    return encode_response_head(
        101, [b"Upgrade: " + token.encode("latin-1") + b"\r\n", b"Connection: Upgrade\r\n", *lines]
    )


def encode_trailers(trailers: HeadersArgument) -> list[bytes]:
    """Encode trailer fields.

    Raises:
        InvalidHeader: one may not be a trailer (RFC 9110 section 6.5.1), or cannot be sent.
    """
    fields = encode_fields(trailers)
    for name, _ in fields:
        if name in _NO_TRAILERS:
            raise InvalidHeader(f"{name.decode()} cannot be a trailer: it says how the message is to be read")
    return [line for _, line in fields]


def encode_sse(
    event_type: str, data: str | None, event_id: str = "", retry: int | None = None, comment: str = ""
) -> bytes:
    """Encode one server-sent event (HTML standard, section 9.2): each line of data becomes a ``data:`` line.

    Args:
        event_type, event_id, retry, comment: left out when empty or None.
        data: None: no event is dispatched; what else there is, a comment for example, is all.

    Raises:
        InvalidHeader: event_type or event_id contains a line break (it would end the event), or event_id NUL.
    """
    if any(c in event_type or c in event_id for c in "\r\n") or "\x00" in event_id:
        raise InvalidHeader("line break in the type or id of an event")
    lines = [f": {line}\n" for line in _lines(comment)] if comment else []
    if event_type:
        lines.append(f"event: {event_type}\n")
    if event_id:
        lines.append(f"id: {event_id}\n")
    if retry is not None:
        lines.append(f"retry: {retry}\n")
    if data is not None:
        lines.extend(f"data: {line}\n" for line in _lines(data))
    lines.append("\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
