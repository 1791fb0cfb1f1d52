"""Messages that come with events. Each owns its bytes: it stays valid after the handler returns or awaits."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Protocol, Self
from urllib.parse import unquote_to_bytes

from .cookies import parse_cookies
from .errors import BusyError, LocalProtocolError, RemoteProtocolError
from .fields import header_parameter
from .forms.form import Form, FormPart, form_of, parts_of, read_form
from .limits import DEFAULT_LIMITS, FormLimits
from .pairs import Pairs
from .queries import query_pairs

Field = tuple[bytes, bytes]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _nothing() -> None:
    """There is nobody to tell."""


class ContentReader:
    """Takes the content of one HTTP message as a stream; one of them is alive while somebody means to read on."""

    __slots__ = ("_content",)

    def __init__(self, content: Content) -> None:
        self._content = content

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        data = await self._content.take_piece()
        if not data:
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        """Read no further."""
        self._content.forget_reader(self)

    def __del__(self) -> None:
        # Not left to the event loop, as the end of a generator would be: a reply that comes next has to know.
        self._content.forget_reader(self)


class Content:
    """The content of one HTTP message while it is being received: buffered, or taken as a stream.

    The protocol calls ``receive``, ``receive_end`` and ``fail``; who takes the stream has a :class:`ContentReader`.
    """

    __slots__ = (
        "_chunks",
        "_error",
        "_on_begin",
        "_on_left",
        "_on_taken",
        "_reader",
        "_waiter",
        "forms",
        "has_ended",
        "held",
        "high_water",
        "is_taken",
        "total",
    )

    def __init__(
        self,
        high_water: int,
        on_begin: Callable[[], None],
        on_taken: Callable[[], None],
        on_left: Callable[[], None] = _nothing,
        forms: FormLimits = DEFAULT_LIMITS.forms,
    ) -> None:
        self.forms = forms
        self._chunks: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._on_begin = on_begin  # somebody wants the content as a stream
        self._on_taken = on_taken  # the reader has taken what was held
        self._on_left = on_left  # the reader will take no more
        self._reader = 0  # the id() of who reads, 0: nobody (a reference would keep it alive)
        self.high_water = high_water
        self.is_taken = False
        self.has_ended = False
        self.held = 0  # bytes received and not yet taken
        self.total = 0  # bytes received

    @property
    def has_reader(self) -> bool:
        """Somebody means to read on."""
        return self._reader != 0

    @property
    def is_full(self) -> bool:
        """A reader has the stream and is behind: receiving should pause."""
        return self.is_taken and self.held >= self.high_water

    def receive(self, data: bytes) -> None:
        self._chunks.append(data)
        self.held += len(data)
        self.total += len(data)
        self._wake()

    def receive_end(self) -> None:
        self.has_ended = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """End the content early; who reads the stream gets ``error`` after what was received."""
        if not self.has_ended and self._error is None:
            self._error = error
            self._wake()

    def begin_stream(self, message: HttpMessage) -> AsyncIterator[bytes]:
        if self._waiter is not None:
            raise BusyError("the content of this message is being read already")
        reader = ContentReader(self)
        self._reader = id(reader)
        if not self.is_taken:
            self.is_taken = True
            self._on_begin()
        return reader

    def give_up_reader(self) -> None:
        """Whoever reads will not go on, although its exception still holds what it reads with."""
        if self._reader:
            self._reader = 0
            if not self.has_ended and self._error is None:
                self._on_left()

    def forget_reader(self, reader: ContentReader) -> None:
        if self._reader == id(reader):
            self.give_up_reader()

    def take_all(self) -> bytes:
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self.held = 0
        return data

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def take_piece(self) -> bytes:
        """Wait for the next piece; b"" at the end. Cancelling is safe: no byte is lost.

        Raises:
            BusyError: another task is waiting.
            Exception: what :meth:`fail` was given.
        """
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.has_ended:
                return b""
            if self._waiter is not None:
                raise BusyError("the content of this message is being read already")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = self.take_all()
        self._on_taken()
        return data


class Framing(StrEnum):
    """How the end of a message's content is known (RFC 9112 section 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


_METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE")}


# Flags of a WholeRequest: AMG_HTTP_10 and AMG_HTTP_KEEP_ALIVE of amg.h.
HTTP_1_0 = 1
KEEP_ALIVE = 2


class WholeRequest:
    """A request that is all there, in place of RequestHead, content and EndOfMessage. It asks for nothing special.

    Neither chunked, nor with Expect or an upgrade, nor CONNECT. Its parts are cut out of its bytes when they are asked
    for: most handlers look at one or two.

    Attributes:
        raw: head and content.
        flags: HTTP_1_0, KEEP_ALIVE.
        takes_plain_reply: HTTP/1.1, not HEAD, and the connection goes on.
    """

    __slots__ = (
        "_head_length",
        "_method_length",
        "_target_length",
        "content_length",
        "flags",
        "raw",
        "takes_plain_reply",
    )

    status = 0
    reason = ""
    expects_continue = False
    upgrade = ""

    def __init__(self, raw: bytes, head_length: int, method_length: int, target_length: int, flags: int) -> None:
        self.raw = raw
        self._head_length = head_length
        self._method_length = method_length
        self._target_length = target_length
        self.flags = flags
        self.content_length = len(raw) - head_length
        self.takes_plain_reply = flags == KEEP_ALIVE and (method_length != 4 or raw[0] != 72)  # H of HEAD

    @property
    def keep_alive(self) -> bool:
        return self.flags & KEEP_ALIVE != 0

    @property
    def method(self) -> str:
        method = self.raw[: self._method_length]
        return _METHODS.get(method) or method.decode("ascii")

    @property
    def target(self) -> str:
        start = self._method_length + 1
        return self.raw[start : start + self._target_length].decode("ascii")

    @property
    def proto(self) -> str:
        return "HTTP/1.0" if self.flags & HTTP_1_0 else "HTTP/1.1"

    @property
    def fields(self) -> list[Field]:
        # Behind the request line: " HTTP/1.1", CR and LF are 11 bytes.
        start = self._method_length + self._target_length + 12
        return split_fields(self.raw[start : self._head_length - 4])

    @property
    def framing(self) -> Framing:
        return Framing.LENGTH if self.content_length else Framing.NONE

    @property
    def content(self) -> bytes:
        return self.raw[self._head_length :]


def split_fields(section: bytes) -> list[Field]:
    """Split a header section that has been checked: without the CRLF behind the last field line."""
    if not section:
        return []
    lines = [line.partition(b":") for line in section.split(b"\r\n")]
    return [(name, value.strip(b" \t")) for name, _, value in lines]


#: Stands where no content is being received.
NO_CONTENT = Content(1, _nothing, _nothing)
NO_CONTENT.has_ended = True


class MessageHead(Protocol):
    """What a message shows of its head (the codecs' heads have it)."""

    @property
    def method(self) -> str: ...

    @property
    def target(self) -> str: ...

    @property
    def proto(self) -> str: ...

    @property
    def fields(self) -> list[Field]: ...

    @property
    def framing(self) -> Framing: ...

    @property
    def status(self) -> int: ...

    @property
    def reason(self) -> str: ...


class Streamable(Protocol):
    """Where a message gets its content from as a stream: its Content, or who makes one on demand."""

    @property
    def forms(self) -> FormLimits: ...

    def begin_stream(self, message: HttpMessage) -> AsyncIterator[bytes]: ...


class HttpMessage:
    """An HTTP request or response (RFC 9110).

    Attributes:
        body_bytes: the whole content; empty in MG_EV_HTTP_HDRS and when the content was taken by :meth:`stream`.
    """

    __slots__ = ("_authority", "_head", "_params", "_query", "_trailers", "_uri", "body_bytes", "content")

    def __init__(self, head: MessageHead, content: Streamable) -> None:
        self.body_bytes = b""
        self.content = content  # for the protocol
        self._head = head
        self._uri = ""  # cut out of the target when it is asked for
        self._trailers: Sequence[tuple[str, str]] = ()
        self._params: dict[str, str] | None = None

    def _split_target(self) -> str:
        target = self._head.target
        self._authority = ""
        if target[:1] not in ("/", "*", "") and "://" in target:  # absolute-form, RFC 9112 section 3.2.2
            rest, mark, query = target.partition("://")[2].partition("?")
            self._authority, _, path = rest.partition("/")
            target = "/" + path + mark + query
        self._uri, _, self._query = target.partition("?")
        return self._uri

    @property
    def method(self) -> str:
        """Request method; of a response its protocol version, as in Mongoose."""
        return self._head.proto if self._head.status else self._head.method

    @property
    def uri(self) -> str:
        """Path as on the wire (percent-encoded, without the query); of a response the status code, as in Mongoose."""
        return self._uri or (str(self._head.status) if self._head.status else self._split_target())

    @property
    def query(self) -> str:
        """Raw query without ``?``, ``""`` when absent."""
        if not self._uri:
            self._split_target()
        return self._query

    @property
    def query_params(self) -> Pairs[str]:
        """The query's parameters, decoded (``%xx`` and ``+``): the first value by name, and every one by ``all(name)``.

        Raises:
            LimitExceeded: more than 1000 of them.
        """
        with self._blamed():
            return Pairs(query_pairs(self.query))

    @property
    def raw(self) -> bytes:
        """The bytes of a request that came as a whole; b"" of others."""
        return self._head.raw if type(self._head) is WholeRequest else b""

    @property
    def url(self) -> str:
        """Path and query as on the wire."""
        return f"{self.uri}?{self.query}" if self.query else self.uri

    @property
    def cookies(self) -> dict[str, str]:
        """What the Cookie fields say (RFC 6265 section 5.4); of repeated names the first.

        Raises:
            LimitExceeded: more than 1000 of them.
        """
        value = "; ".join(value for name, value in self.headers() if name.lower() == "cookie")
        with self._blamed():
            return parse_cookies(value) if value else {}

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """Note in what is raised that this message is to blame: not what a handler hears from elsewhere meanwhile."""
        try:
            yield
        except RemoteProtocolError as exc:
            exc.request = self
            raise

    @property
    def params(self) -> dict[str, str]:
        """What handlers on the way have found out: the parameters of a Router's path, ``user`` of authentication."""
        if self._params is None:
            self._params = {}
        return self._params

    @property
    def proto(self) -> str:
        """``"HTTP/1.1"`` or ``"HTTP/1.0"``."""
        return self._head.proto

    @property
    def reason(self) -> str:
        """Reason phrase of a response, ``""`` of a request."""
        return self._head.reason

    @property
    def trailers(self) -> list[tuple[str, str]]:
        """Trailer fields of a chunked message, never merged into the headers."""
        return list(self._trailers)

    def add_trailers(self, trailers: list[Field]) -> None:
        self._trailers = [(name.decode("ascii"), value.decode("latin-1")) for name, value in trailers]

    def __repr__(self) -> str:
        return f"<HttpMessage {self.method} {self.uri}>"

    @property
    def body_text(self) -> str:
        """The content as UTF-8; bytes that are not UTF-8 become surrogates."""
        return _text(self.body_bytes)

    @property
    def path(self) -> str:
        """``uri``, percent-decoded."""
        return _text(unquote_to_bytes(self.uri))

    @property
    def host(self) -> str:
        """Host and port that the request was made for: of an absolute request-target, otherwise of the Host field."""
        if not self._uri:
            self._split_target()
        return self._authority or self.header("Host", "") or ""

    def status(self) -> int:
        """Status code of a response; 0 for a request."""
        return self._head.status

    def header(self, name: str, default: str | None = None) -> str | None:
        """Return the first field with this name (case-insensitive), or default."""
        wanted = name.encode("utf-8", "surrogateescape").lower()
        for field, value in self._head.fields:
            if field.lower() == wanted:
                return _text(value)
        return default

    def headers(self) -> list[tuple[str, str]]:
        """Return all fields in order, names as sent, repeated ones kept."""
        return [(_text(name), _text(value)) for name, value in self._head.fields]

    def query_var(self, name: str) -> str | None:
        """Return the first query parameter with this name, decoded (``%xx`` and ``+``), or None."""
        for pair in self.query.split("&"):
            key, _, value = pair.partition("=")
            if _text(unquote_to_bytes(key.replace("+", " "))) == name:
                return _text(unquote_to_bytes(value.replace("+", " ")))
        return None

    def header_var(self, header_name: str, var_name: str) -> str | None:
        """Return a parameter of a field, such as ``boundary`` of Content-Type, without its quotes, or None."""
        value = self.header(header_name)
        return None if value is None else header_parameter(value, var_name)

    def json(self) -> Any:
        """Parse the content as JSON.

        Raises:
            ValueError: the content is not JSON.
        """
        return json.loads(self.body_bytes)

    def form(self, limits: FormLimits | None = None) -> Form:
        """Parse the content as a form, multipart/form-data or application/x-www-form-urlencoded.

        For content that is all there; in MG_EV_HTTP_HDRS use :meth:`read_form` or :meth:`parts`.

        Args:
            limits: default: the Manager's.

        Raises:
            LocalProtocolError: the content is not complete, or was taken as a stream.
            RemoteProtocolError: it is no form (wire_code 415), or a broken one (400).
            LimitExceeded: more than is allowed (400 or 413).
        """
        content = self.content
        if isinstance(content, Content) and content.is_taken:
            raise LocalProtocolError("the content was taken as a stream")
        has_ended = isinstance(content, Content) and content.has_ended
        if not self.body_bytes and self._head.framing is not Framing.NONE and not has_ended:
            raise LocalProtocolError("the content is not complete: wait for MG_EV_HTTP_MSG, or use read_form()")
        with self._blamed():
            return form_of(self.header("Content-Type", "") or "", self.body_bytes, limits or content.forms)

    async def read_form(self, folder: str | os.PathLike[str] | None = None, limits: FormLimits | None = None) -> Form:
        """Take the content as a form, as it comes in; large files go to the disk.

        Cancelling, and whatever goes wrong, removes the files.

        Args:
            folder: for temporary files; default: the system's.
            limits: default: the Manager's.

        Raises:
            as :meth:`form` and :meth:`stream`.
        """
        content_type = self.header("Content-Type", "") or ""
        with self._blamed():
            return await read_form(content_type, self.stream(), limits or self.content.forms, folder)

    def parts(self, limits: FormLimits | None = None) -> AsyncIterator[FormPart]:
        """Take the content part by part, as it comes in; each part is an async iterator of bytes.

        Args:
            limits: default: the Manager's.

        Raises:
            as :meth:`form` and :meth:`stream`, while iterating.
        """
        return parts_of(self.header("Content-Type", "") or "", self.stream(), limits or self.content.forms)

    def stream(self) -> AsyncIterator[bytes]:
        """Take the content as a stream of byte chunks, with back-pressure and without the limit ``max_body``.

        Called in MG_EV_HTTP_HDRS it keeps the content from being buffered, and MG_EV_HTTP_MSG does not follow. Called
        in MG_EV_HTTP_MSG it yields the content that was buffered.

        Cancelling is safe: no chunk is lost; the iteration can go on with a new call.

        Raises:
            BusyError: another task is reading the content.
            RemoteProtocolError: (while iterating) the peer broke the message or closed in the middle of it.
        """
        if self.body_bytes:
            return replay(self.body_bytes)
        return self.content.begin_stream(self)


class WsMessage:
    """A WebSocket message, a piece of one, or a control frame (RFC 6455 section 5).

    Attributes:
        data: the content, as bytes.
        flags: the opcode in the low four bits: 1 text, 2 binary, 8 close, 9 ping, 10 pong; and 0x80: it is complete.
    """

    __slots__ = ("data", "flags")

    def __init__(self, data: bytes, flags: int) -> None:
        self.data = data
        self.flags = flags

    def __repr__(self) -> str:
        return f"<WsMessage opcode={self.flags & 15} {len(self.data)} bytes>"

    @property
    def opcode(self) -> int:
        return self.flags & 15

    @property
    def text(self) -> str:
        """The content as UTF-8: of a text message it has been validated; otherwise bad bytes become surrogates."""
        return self.data.decode("utf-8", "surrogateescape")

    @property
    def code(self) -> int:
        """Close code of a close frame (1005: it has none); 0 of everything else."""
        if self.flags & 15 != 8:
            return 0
        return int.from_bytes(self.data[:2], "big") if self.data else 1005

    @property
    def reason(self) -> str:
        """Reason of a close frame; "" of everything else."""
        return self.data[2:].decode("utf-8", "surrogateescape") if self.flags & 15 == 8 else ""


async def replay(data: bytes) -> AsyncIterator[bytes]:
    """Yield what is there already."""
    if data:
        yield data
