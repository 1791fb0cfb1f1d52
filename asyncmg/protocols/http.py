"""HTTP/1.1 over a connection's life (RFC 9112): keep-alive, pipelining, streaming, upgrade, refusals, time-outs.

What is received is handled in :mod:`.http_exchanges`, this module sends; replies get their framing in
:mod:`.http_reply`.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from typing import Any

from asyncmg.codecs.http import (
    LAST_CHUNK,
    NO_CODEC,
    Framing,
    HeadersArgument,
    Role,
    encode_chunk,
    encode_fields,
    header_pairs,
    reason_phrase,
)
from asyncmg.errors import (
    ConnectionClosed,
    LocalProtocolError,
    RemoteProtocolError,
)
from asyncmg.files.reply import FileReply, StaticFolder
from asyncmg.messages import HttpMessage

from .base import BaseProtocol, Phase
from .http_exchanges import HttpExchanges
from .http_filters import ReplyFilter
from .http_reply import declared_length, encode_sse, encode_trailers, upgrade_head
from .http_small import SMALL_REPLIES
from .http_source import AsyncSource, ContentSource, FileSource, IteratorSource
from .http_states import RECEIVE, Receiving, Sending, require_due

# Members looked up once: through their class that takes Python 3.11 75 ns each.
_OPEN = Phase.OPEN
_R_COMPLETE = Receiving.COMPLETE
_S_DUE = Sending.DUE
_BODY_TYPES = frozenset({bytes, str, dict, list, tuple, bytearray, memoryview, type(None)})


class HttpProtocol(HttpExchanges):
    """One HTTP/1.1 connection.

    Events: MG_EV_HTTP_HDRS when a head is complete, MG_EV_HTTP_MSG when the whole message is. Requests of a connection
    are handled one after the other: the next one is read when the reply to the one before is complete.

    Args:
        codec: makes the objects that read messages; default: the native codec where there is one.
        sink, role, limits, loop, ...: see :class:`BaseProtocol`.
    """

    __slots__ = ()

    alpn = ("http/1.1",)

    # -- replying ------------------------------------------------------------------------------------------------

    def reply(self, status: int, body: Any = b"", headers: HeadersArgument = None) -> None:
        """Reply to the current request, whole, or begin a stream (see :func:`frame_reply`).

        A body that is an iterator or an async iterator is sent piece by piece, as fast as the peer takes it. When its
        Content-Length is among the headers, another number of bytes cuts the connection, so that the peer notices.
        """
        if type(body) not in _BODY_TYPES and (source := self._source_of(body)) is not None:
            self._reply_source(status, source, headers)
            return
        sender = self._sender
        if (
            headers is None
            and self._receiving is _R_COMPLETE
            and sender.state is _S_DUE
            and self.phase is _OPEN
            and sender.reply_plainly(status, body)
        ):
            self.handle_reply_end()
            return
        self._require_open()
        sender.reply(status, body, headers, self._receiving is not _R_COMPLETE and self._must_close())

    def _source_of(self, body: Any) -> ContentSource | None:
        if hasattr(body, "__aiter__"):
            chunks: AsyncIterator[bytes | str] = aiter(body)
            return AsyncSource(chunks, self.sink.spawn)
        return IteratorSource(body) if isinstance(body, Iterator) else None

    def _reply_source(
        self, status: int, source: ContentSource, headers: HeadersArgument, length: int | None = None
    ) -> None:
        try:
            self._require_open()
            if length is None:
                length = declared_length(encode_fields(headers))
        except BaseException:
            source.close()
            raise
        self._sender.reply_source(status, source, headers, length, closes=self._must_close())

    def serve_folder(self, folder: StaticFolder, message: HttpMessage, extra_headers: str) -> None:
        """Reply with what a request finds in a folder."""
        sender = self._sender
        raw = message.raw
        if raw and self._receiving is _R_COMPLETE and self.phase is _OPEN and sender.takes_plain_reply:
            key = (folder, extra_headers, raw)
            framed = SMALL_REPLIES.find(key)
            if framed is None:
                reply = folder.reply_to(message)
                framed = SMALL_REPLIES.keep(key, reply, extra_headers)
            if framed is not None:
                sender.reply_framed(*framed)
                return
        else:
            self._require_open()
            reply = folder.reply_to(message)
        self.reply_found(reply, extra_headers)

    def reply_found(self, reply: FileReply, extra_headers: str) -> None:
        """Reply with what has been found on the disk."""
        headers = [*reply.headers, *header_pairs(extra_headers)] if extra_headers else reply.headers
        if reply.content is None:
            self.reply(reply.status, reply.body, headers)
        else:
            self._reply_source(reply.status, FileSource(reply.content), headers, reply.content.length)

    def reply_stream(self, status: int, content_type: str, headers: HeadersArgument = None) -> None:
        """Begin a stream that the user goes on with; ``multipart/...`` gets a boundary of its own."""
        self._require_open()
        if content_type.lower().startswith("multipart/"):
            self._sender.begin_multipart(status, content_type, headers, self._must_close())
        else:
            pairs = [("Content-Type", content_type), *header_pairs(headers)]
            self._sender.reply(status, b"", pairs, self._must_close(), streams=True)

    def add_reply_filter(self, reply_filter: ReplyFilter) -> None:
        """Let somebody look at the reply to the current request before it is framed, and when it is over.

        Raises:
            LocalProtocolError: there is no request, or its reply has begun.
        """
        self._require_open()
        self._sender.add_filter(reply_filter)

    def _must_close(self) -> bool:
        """Whether the connection ends behind the reply that begins now."""
        content_is_due = self._receiving in (Receiving.HANDLING, Receiving.CONTENT)
        # The rest of a content that nobody has taken will not be read.
        return content_is_due and self._request.framing is not Framing.NONE and not self._content.has_reader

    def _require_open(self) -> None:
        if self.phase is not _OPEN:
            raise ConnectionClosed("Connection has been closed")

    def handle_handler_error(self, error: Exception) -> None:
        if self.role is Role.CLIENT or self.phase is not _OPEN:
            return
        self._content.give_up_reader()
        if self._sender.state is Sending.DUE:
            status = 500
            # What was wrong with the request itself, a form for example, is the peer's fault.
            if isinstance(error, RemoteProtocolError) and error.request is self._message and error.wire_code:
                status = error.wire_code
            try:
                self.reply(status, f"{status} {reason_phrase(status)}\n")
            except LocalProtocolError as exc:  # a reply filter has made something that cannot be sent
                self.loop.call_exception_handler({"message": "no reply could be made", "exception": exc})
                self.abort()
        elif self._sender.is_answering:
            # The reply cannot be completed: cutting it short is the only honest sign (RFC 9112 section 8).
            self._content.fail(ConnectionClosed("closed because a handler raised"))
            if self._sender.is_close_delimited:
                self.end_with_reset()
            self.abort()

    def http_chunk(self, data: bytes) -> bool:
        """Send one piece of a streamed reply; empty data ends it. False: the slow-client policy has dropped it.

        Raises:
            LocalProtocolError: no streamed reply has been begun.
            ConnectionClosed: the connection is closed.
        """
        if not data:
            self.http_end()
            return True
        self._require_open()
        if self._sender.state is Sending.RAW:
            return self.send(encode_chunk(data))
        stream = self._sender.stream
        is_admitted = self.admit()
        if is_admitted:
            stream.write_content(data)
        return is_admitted

    def http_end(self, trailers: HeadersArgument = None) -> None:
        """End a streamed reply; of a multipart stream with its last delimiter.

        Raises:
            LocalProtocolError: no streamed reply has been begun.
            ConnectionClosed: the connection is closed.
        """
        self._require_open()
        if self._sender.state is Sending.RAW:
            self.send(LAST_CHUNK)
        else:
            self._sender.stream.finish(encode_trailers(trailers))

    def http_sse(
        self, event_type: str, data: str | None, event_id: str = "", retry: int | None = None, comment: str = ""
    ) -> bool:
        """Send one server-sent event on a streamed reply."""
        return self.http_chunk(encode_sse(event_type, data, event_id, retry, comment))

    def http_part(self, data: bytes, headers: HeadersArgument, *, goes_ahead: bool) -> bool:
        """Send one part of a multipart stream (see :meth:`PartFraming.part`).

        Raises:
            LocalProtocolError: no multipart stream has been begun.
            ConnectionClosed: the connection is closed.
        """
        self._require_open()
        stream = self._sender.stream
        if stream.parts is None:
            raise LocalProtocolError("begin a stream of parts first: reply_stream() with multipart/...")
        head = b"".join(line for name, line in encode_fields(headers) if name != b"content-length")
        is_admitted = self.admit()
        if is_admitted:
            stream.write_content(stream.parts.part(head, data, goes_ahead=goes_ahead))
        return is_admitted

    def handle_writable(self) -> None:
        self._sender.produce()
        if self.role is Role.SERVER and self._receiving in (Receiving.IDLE, Receiving.HEAD):
            self._await_next()
            self._pump()  # it waited for room

    def drain(self) -> None:
        """Flush, then close; a reply that has not left yet tells the peer so (RFC 9112 section 9.6)."""
        if self.phase is _OPEN and self.role is Role.SERVER:
            self._sender.announce_close()
            if self._sender.is_producing:
                return  # the connection ends when the content that is being sent is complete
            self._sender.stop_pings()
        super().drain()

    # -- raw bytes -----------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> bool:
        """Send bytes as they are: a client's request, or a reply that the user frames.

        Raises:
            LocalProtocolError: a reply is being made of an iterator: they would get into the middle of it.
        """
        if self._sender.is_producing:
            raise LocalProtocolError("this request is being replied to with an iterator")
        if not super().send(data):
            return False
        if self.role is Role.CLIENT:
            self._read_own_requests(data)
        else:
            self._sender.note_raw(data)
        return True

    def _read_own_requests(self, data: bytes) -> None:
        was_readable = not self._sent_requests.is_unreadable
        methods = self._sent_requests.read(data)
        if methods and self._codec is NO_CODEC:
            self._codec = self._make_codec(self.role, self.limits.http)
        for method in methods:
            self._codec.expect(method)
        self._outstanding += len(methods)
        if was_readable and self._sent_requests.is_unreadable:
            self._outstanding += 1  # its responses are read as those to GET
        if self._receiving is Receiving.IDLE and self._outstanding:
            self._await_response()

    def http_basic_auth(self, username: str, password: str) -> None:
        """Send an Authorization field line (RFC 7617); the user is in the middle of a request's header."""
        self.send(f"Authorization: {basic_authorization(username, password)}\r\n".encode())

    # -- upgrade -------------------------------------------------------------------------------------------------

    def upgrade(self, successor: BaseProtocol, headers: HeadersArgument = None, token: str = "") -> None:
        """Hand the connection to another protocol, with the bytes already received (RFC 9110 section 7.8).

        A server replies 101 with the token, or what the request asked for; a client has received a 101.

        Raises:
            LocalProtocolError: the request asks for no upgrade, is not complete, or has its reply.
        """
        self._require_open()
        if self.role is Role.SERVER:
            require_due(self._sender.state)
            if self._receiving is not _R_COMPLETE:
                raise LocalProtocolError("upgrade before the request is complete: wait for MG_EV_HTTP_MSG")
            if not self._request.upgrade:
                raise LocalProtocolError("the request asks for no upgrade")
            self._sender.begin_upgrade(upgrade_head(token or self._request.upgrade, headers))
        elif self._receiving is not Receiving.SWITCHED:
            raise LocalProtocolError("the server has not switched protocols")
        rest = self._codec.take_rest()
        self._receiving = RECEIVE[self._receiving, "stop"]
        self.hand_over(successor, rest)
        if self._is_stopping:
            successor.shutdown()


def basic_authorization(username: str, password: str) -> str:
    """Value of Authorization for Basic authentication (RFC 7617)."""
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"
