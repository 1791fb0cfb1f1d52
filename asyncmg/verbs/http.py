"""HTTP verbs of a connection."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from asyncmg.codecs.http import HeadersArgument, header_pairs
from asyncmg.cookies import Cookie, set_cookie_headers
from asyncmg.errors import ConnectionClosed, LocalProtocolError, ProtocolError
from asyncmg.files.reply import StaticFolder, file_reply
from asyncmg.forms.resumable import store_piece, store_stream
from asyncmg.messages import HttpMessage
from asyncmg.protocols.base import BaseProtocol
from asyncmg.protocols.http import HttpProtocol
from asyncmg.protocols.http_filters import ReplyFilter

Cookies = Mapping[str, str | Cookie | None]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PRINTABLE = "".join(map(chr, range(33, 127)))
_MAX_FOLDERS = 64  # whose options serve_dir() remembers


def _bytes(data: str | bytes) -> bytes:
    # memoryview refuses an int, of which bytes() would make as many NULs.
    return data.encode("utf-8", "surrogateescape") if isinstance(data, str) else bytes(memoryview(data))


class HttpVerbs:
    """``reply``, ``http_chunk``, ``http_sse``, ``serve_file`` ...; mixed into Connection."""

    __slots__ = ()

    protocol: Any

    def _http(self) -> HttpProtocol:
        protocol = self.protocol
        if not isinstance(protocol, HttpProtocol):
            if getattr(self, "is_closing", False):
                raise ConnectionClosed("Connection has been closed")
            raise LocalProtocolError("not an HTTP connection: listen or connect with http:// or http=True")
        return protocol

    def reply(
        self, status_code: int, body: Any = b"", headers: HeadersArgument = None, *, cookies: Cookies | None = None
    ) -> None:
        """Reply to the current HTTP request, at once or later, from anywhere.

        Args:
            status_code: a final status, 200 to 599.
            body: bytes as they are; str as UTF-8 text (as HTML when it starts like an HTML document); dict, list or
                tuple as JSON; an iterator or async iterator of bytes or str piece by piece, as fast as the client takes
                it. Dropped for 204 and 304; for HEAD only its length is told.
            headers: a mapping or pairs, or lines ``"Name: value\\r\\n"``. ``Transfer-Encoding: chunked``, or
                ``Content-Type: text/event-stream`` without a body, begins a stream: go on with :meth:`http_chunk` or
                :meth:`http_sse`. ``Connection: close`` ends the connection behind the reply. Content-Length, Date and
                Server are added.
            cookies: to set, by name: a str, a :class:`Cookie` with attributes, None to delete it.

        Raises:
            ConnectionClosed: the connection is closed.
            LocalProtocolError: there is no request, or it has its reply.
            InvalidHeader: a header with CR, LF or NUL, a Content-Length that is not the body's, or an illegal cookie.
            TypeError, ValueError: body or status cannot be sent.
        """
        protocol = self.protocol
        if type(protocol) is not HttpProtocol:
            protocol = self._http()
        protocol.reply(status_code, body, headers if cookies is None else _with_cookies(headers, cookies))

    def reply_json(
        self, data: Any, status_code: int = 200, headers: HeadersArgument = None, *, cookies: Cookies | None = None
    ) -> None:
        """Reply with ``data`` as JSON, whatever its type. The rest is as in :meth:`reply`."""
        pairs: list[tuple[str, object]] = [("Content-Type", "application/json")]
        pairs += [(name, value) for name, value in header_pairs(headers) if name.lower() != "content-type"]
        self.reply(status_code, _json(data), pairs, cookies=cookies)

    def redirect(
        self, url: str, status_code: int = 302, headers: HeadersArgument = None, *, cookies: Cookies | None = None
    ) -> None:
        """Reply with a redirect (RFC 9110 section 15.4).

        Args:
            url: absolute, or relative to the request's; what is not ASCII is percent-encoded.
            status_code: 301, 302, 303, 307 or 308.
            headers, cookies: as in :meth:`reply`.

        Raises:
            ValueError: another status.
            InvalidHeader: url has a control character.
            as :meth:`reply`.
        """
        if status_code not in _REDIRECTS:
            raise ValueError(f"not a redirect: {status_code}")
        location = "".join(c if c < " " or c == "\x7f" else quote(c, _PRINTABLE, errors="surrogateescape") for c in url)
        self.reply(status_code, b"", [("Location", location), *header_pairs(headers)], cookies=cookies)

    def reply_stream(
        self,
        content_type: str = "application/octet-stream",
        status_code: int = 200,
        headers: HeadersArgument = None,
        *,
        cookies: Cookies | None = None,
    ) -> None:
        """Begin a streamed reply: go on with http_chunk, http_sse, http_ndjson or http_part, and end it with http_end.

        ``await conn.flush()`` between the pieces waits while the client is behind; without it the slow-client policy
        decides (``BufferLimits.slow_client``). An event stream that is silent gets a comment every
        ``HttpLimits.sse_ping_interval`` seconds.

        Args:
            content_type: such as ``text/event-stream``, ``application/x-ndjson`` or ``multipart/x-mixed-replace``,
                which gets a boundary.
            status_code, headers, cookies: as in :meth:`reply`.

        Raises:
            as :meth:`reply`.
        """
        self._http().reply_stream(status_code, content_type, _with_cookies(headers, cookies))

    def http_chunk(self, data: str | bytes) -> bool:
        """Send one piece of a streamed reply; an empty one ends it. False: the slow-client policy has dropped it.

        Raises:
            ConnectionClosed: the connection is closed.
            LocalProtocolError: no stream has been begun.
        """
        return self._http().http_chunk(_bytes(data))

    def http_sse(
        self, event_type: str, data: str | None = None, event_id: str = "", retry: int | None = None, comment: str = ""
    ) -> bool:
        """Send one server-sent event on a stream of ``text/event-stream`` (HTML standard, section 9.2).

        Args:
            event_type: name of the event; "" for the default, ``message``.
            data: text; several lines stay several lines. None: no event, only what else is given.
            event_id: what the browser sends as Last-Event-ID when it reconnects.
            retry: milliseconds that the browser waits before it reconnects.
            comment: text that browsers ignore.

        Returns:
            False when the slow-client policy has dropped it.

        Raises:
            ConnectionClosed: the connection is closed.
            LocalProtocolError: no stream has been begun.
            InvalidHeader: a line break in the type or the id.
        """
        return self._http().http_sse(event_type, data, event_id, retry, comment)

    def http_ndjson(self, data: Any) -> bool:
        """Send one value as a line of newline-delimited JSON on a streamed reply. False: it was dropped.

        Raises:
            as :meth:`http_chunk`; TypeError when JSON cannot express it.
        """
        return self._http().http_chunk(_json(data) + b"\n")

    def http_part(self, data: str | bytes, content_type: str = "image/jpeg", headers: HeadersArgument = None) -> bool:
        """Send one part of a multipart stream, such as a frame of MJPEG. False: the slow-client policy has dropped it.

        Args:
            data: the part's content.
            content_type: of the part.
            headers: further ones of the part. None, for the first part: all parts have the same header, and that of
                the next one leaves together with each. Browsers show a picture only then; otherwise they are one late.

        Raises:
            ConnectionClosed: the connection is closed.
            LocalProtocolError: no multipart stream has been begun, or its parts have another header.
            InvalidHeader: as in :meth:`reply`.
        """
        pairs = [("Content-Type", content_type), *header_pairs(headers)]
        return self._http().http_part(_bytes(data), pairs, goes_ahead=headers is None)

    def http_end(self, trailers: HeadersArgument = None) -> None:
        """End a streamed reply.

        Args:
            trailers: field lines behind the content (RFC 9110 section 6.5); only a chunked reply has them.

        Raises:
            ConnectionClosed: the connection is closed.
            LocalProtocolError: no stream has been begun.
        """
        self._http().http_end(trailers)

    def add_reply_filter(self, reply_filter: ReplyFilter) -> None:
        """Let an object look at the reply to the current request: before it is framed, and when it is over.

        Adding the same object again changes nothing. The next request begins without any.

        Raises:
            ConnectionClosed: the connection is closed.
            LocalProtocolError: there is no request, or its reply has begun.
        """
        self._http().add_reply_filter(reply_filter)

    def http_basic_auth(self, username: str, password: str) -> None:
        """Send an ``Authorization: Basic`` line (RFC 7617) in the middle of a request header sent with ``send``."""
        self._http().http_basic_auth(username, password)

    def http_upgrade(self, make_protocol: Callable[..., BaseProtocol], headers: HeadersArgument = None) -> BaseProtocol:
        """Switch the connection to another protocol, with the bytes already received (RFC 9110 section 7.8).

        A server replies 101 with the token of the request's Upgrade field; a client calls this on a 101 response.

        Args:
            make_protocol: a subclass of BaseProtocol, or what makes one; called with ``sink``, and ``role``,
                ``limits`` and ``loop`` as keywords.
            headers: further header fields of the 101.

        Returns:
            the new protocol object.

        Raises:
            LocalProtocolError: the request asks for no upgrade, is not complete, or has its reply.
        """
        http = self._http()
        successor = make_protocol(http.sink, role=http.role, limits=http.limits, loop=http.loop)
        http.upgrade(successor, headers)
        return successor

    def serve_file(
        self, message: HttpMessage, path: str | os.PathLike[str], extra_headers: str = "", mime_types: str = ""
    ) -> None:
        """Reply with a file: GET and HEAD, conditional requests and ranges (RFC 9110 sections 13 and 14).

        The file is never in memory as a whole. One that is changed while it is being sent ends the connection.

        Args:
            message: the request.
            path: of a regular file; anything else is 404.
            extra_headers: lines ``"Name: value\\r\\n"``.
            mime_types: ``"ext=type,ext=type"``, over the built-in table.

        Raises:
            as :meth:`reply`.
        """
        self._http().reply_found(file_reply(message, path, mime_types), extra_headers)

    def serve_dir(
        self,
        message: HttpMessage,
        root_dir: str | os.PathLike[str],
        extra_headers: str = "",
        mime_types: str = "",
        page404: str = "",
        *,
        prefix: str = "",
        listing: bool = False,
        follow_symlinks: bool = False,
        index: Sequence[str] = ("index.html",),
        precompressed: bool = True,
        cache_control: str = "",
        hidden: bool = False,
    ) -> None:
        """Reply with the file under ``root_dir`` that the request's path names. Options as in :class:`StaticFiles`.

        No spelling of the path leaves the root.

        Args:
            message, extra_headers, mime_types: as in :meth:`serve_file`.
            root_dir: an existing folder.
            page404: a file to send, with status 404, instead of the plain one.
            prefix: of the request's path, to be left out.
            listing: show the content of folders without an index.
            follow_symlinks: as long as they stay within the root.
            index: what a folder is served by, the first one that is there.
            precompressed: send ``name.br`` or ``name.gz`` beside a file to clients that take it.
            cache_control: value of Cache-Control.
            hidden: serve and list names that begin with a dot.

        Raises:
            as :meth:`reply`.
        """
        folder = _folder(
            os.fspath(root_dir),
            mime_types=mime_types,
            page404=os.fspath(page404),
            prefix=prefix,
            listing=listing,
            follow_symlinks=follow_symlinks,
            index=index if isinstance(index, str) else tuple(index),
            precompressed=precompressed,
            cache_control=cache_control,
            hidden=hidden,
        )
        self.serve_folder(folder, message, extra_headers)

    def serve_folder(self, folder: StaticFolder, message: HttpMessage, extra_headers: str = "") -> None:
        """Reply with the file that the request's path names in a folder whose options are set up once.

        Raises:
            as :meth:`reply`.
        """
        protocol = self.protocol
        if type(protocol) is not HttpProtocol:
            protocol = self._http()
        protocol.serve_folder(folder, message, extra_headers)

    def http_upload(self, message: HttpMessage, folder: str | os.PathLike[str], max_size: int) -> int:
        """Append the content to a file and reply with its new size: uploads that resume, as Mongoose's helper does.

        The query names ``file`` and ``offset``: the content is added when the file has that size; 0 begins anew. For a
        complete request; see :meth:`http_upload_stream` for large ones.

        Args:
            message: the request.
            folder: an existing folder.
            max_size: of the file in bytes.

        Returns:
            the new size, -1 when the upload was refused (400 or 413, with the reason as text).

        Raises:
            OSError: the system cannot write the file.
            as :meth:`reply`.
        """
        try:
            size = store_piece(folder, *_place_of(message), message.body_bytes, max_size)
        except ProtocolError as exc:
            return self._refuse_upload(exc)
        self._http().reply(200, str(size))
        return size

    async def http_upload_stream(self, message: HttpMessage, folder: str | os.PathLike[str], max_size: int) -> int:
        """The same as the content comes in, of any size: for MG_EV_HTTP_HDRS.

        What has arrived stays when the client goes away, or when this is cancelled: that is what it resumes from.

        Raises:
            as :meth:`http_upload` and :meth:`HttpMessage.stream`.
        """
        try:
            size = await store_stream(folder, *_place_of(message), message.stream(), max_size)
        except ProtocolError as exc:
            return self._refuse_upload(exc)
        self._http().reply(200, str(size))
        return size

    def _refuse_upload(self, error: ProtocolError) -> int:
        self._http().reply(error.wire_code or 400, f"{error}\n")
        return -1


def _place_of(message: HttpMessage) -> tuple[str, str]:
    query = message.query_params
    return query.get("file", ""), query.get("offset", "0")


def _json(data: Any) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")


def _with_cookies(headers: HeadersArgument, cookies: Cookies | None) -> HeadersArgument:
    return [*header_pairs(headers), *set_cookie_headers(cookies)] if cookies else headers


_folder = functools.lru_cache(_MAX_FOLDERS)(StaticFolder)
