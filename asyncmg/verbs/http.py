"""HTTP verbs of a connection."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from asyncmg.codecs.http import HeadersArgument, header_pairs
from asyncmg.errors import ConnectionClosed, LocalProtocolError
from asyncmg.files import FileReply, file_reply, map_path
from asyncmg.messages import HttpMessage
from asyncmg.protocols.base import BaseProtocol
from asyncmg.protocols.http import HttpProtocol


def _bytes(data: str | bytes) -> bytes:
    return data.encode("utf-8", "surrogateescape") if isinstance(data, str) else bytes(data)


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

    def reply(self, status_code: int, body: Any = b"", headers: HeadersArgument = None) -> None:
        """Reply to the current HTTP request, at once or later, from anywhere.

        Args:
            status_code: a final status, 200 to 599.
            body: bytes as they are; str as UTF-8 text (as HTML when it starts like an HTML document); dict, list or
                tuple as JSON. Dropped for 204 and 304; for HEAD only its length is told.
            headers: a mapping or pairs, or lines ``"Name: value\\r\\n"``. ``Transfer-Encoding: chunked``, or
                ``Content-Type: text/event-stream`` without a body, begins a stream: go on with :meth:`http_chunk` or
                :meth:`http_sse`. ``Connection: close`` ends the connection behind the reply. Content-Length, Date and
                Server are added.

        Raises:
            ConnectionClosed: the connection is closed.
            LocalProtocolError: there is no request, or it has its reply.
            InvalidHeader: a header with CR, LF or NUL, or a Content-Length that is not the body's.
            TypeError, ValueError: body or status cannot be sent.
        """
        protocol = self.protocol
        if type(protocol) is not HttpProtocol:
            protocol = self._http()
        protocol.reply(status_code, body, headers)

    def reply_json(self, data: Any, status_code: int = 200, headers: HeadersArgument = None) -> None:
        """Reply with ``data`` as JSON, whatever its type. The rest is as in :meth:`reply`."""
        body = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")
        pairs: list[tuple[str, object]] = [("Content-Type", "application/json")]
        pairs += [(name, value) for name, value in header_pairs(headers) if name.lower() != "content-type"]
        self._http().reply(status_code, body, pairs)

    def http_chunk(self, data: str | bytes) -> None:
        """Send one chunk of a streamed reply; an empty one ends it.

        Raises:
            ConnectionClosed: the connection is closed.
            LocalProtocolError: no stream has been begun.
        """
        self._http().http_chunk(_bytes(data))

    def http_sse(self, event_type: str, data: str, event_id: str = "", retry: int | None = None) -> None:
        """Send one server-sent event on a stream that ``reply`` has begun with ``text/event-stream``.

        Args:
            event_type: name of the event; "" for the default, ``message``.
            data: text; several lines stay several lines.
            event_id: what the browser sends as Last-Event-ID when it reconnects.
            retry: milliseconds that the browser waits before it reconnects.

        Raises:
            ConnectionClosed: the connection is closed.
            LocalProtocolError: no stream has been begun.
        """
        self._http().http_sse(event_type, data, event_id, retry)

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
        """Reply with a file, in bounded pieces: GET and HEAD, ETag, Last-Modified, If-None-Match, If-Modified-Since.

        Args:
            message: the request.
            path: of a regular file; anything else is 404.
            extra_headers: lines ``"Name: value\\r\\n"``.
            mime_types: ``"ext=type,ext=type"``, over the built-in table.

        Raises:
            as :meth:`reply`.
        """
        self._send_file(file_reply(message, path, mime_types), extra_headers)

    def serve_dir(
        self,
        message: HttpMessage,
        root_dir: str | os.PathLike[str],
        extra_headers: str = "",
        mime_types: str = "",
        page404: str = "",
    ) -> None:
        """Reply with the file under ``root_dir`` that the request's path names; ``index.html`` for a folder.

        No spelling of the path leaves the root, and symbolic links that do are not followed.

        Args:
            message, extra_headers, mime_types: as in :meth:`serve_file`.
            root_dir: an existing folder.
            page404: a file to send, with status 404, instead of the plain one.

        Raises:
            as :meth:`reply`.
        """
        path = map_path(message, root_dir)
        if isinstance(path, FileReply):
            reply = path
        else:
            reply = file_reply(message, path, mime_types)
        if reply.status == 404 and page404:
            reply = file_reply(message, page404, mime_types, status=404)
        self._send_file(reply, extra_headers)

    def _send_file(self, reply: FileReply, extra_headers: str) -> None:
        http = self._http()
        lines = reply.header_lines + extra_headers
        if reply.chunks is None:
            http.reply(reply.status, reply.body, lines)
        else:
            http.reply_chunks(reply.status, reply.chunks, lines, reply.length)
