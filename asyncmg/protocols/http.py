"""HTTP/1.1 over a connection's life (RFC 9112): keep-alive, pipelining, streaming, upgrade, refusals, time-outs.

What is received is handled in :mod:`.http_exchanges`, this module sends; replies get their framing in
:mod:`.http_reply`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from asyncmg.codecs.http import (
    LAST_CHUNK,
    NO_CODEC,
    Framing,
    HeadersArgument,
    Role,
    encode_chunk,
)
from asyncmg.errors import (
    ConnectionClosed,
    LocalProtocolError,
)

from .base import BaseProtocol, Phase
from .http_exchanges import HttpExchanges
from .http_reply import encode_sse, upgrade_head
from .http_states import RECEIVE, Receiving, Sending, require_due

# Members looked up once: through their class that takes Python 3.11 75 ns each.
_OPEN = Phase.OPEN
_R_COMPLETE = Receiving.COMPLETE
_S_DUE = Sending.DUE


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
        """Reply to the current request, whole, or begin a stream (see :func:`frame_reply`)."""
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

    def reply_chunks(
        self, status: int, chunks: Iterator[bytes], headers: HeadersArgument = None, length: int | None = None
    ) -> None:
        """Reply with content from an iterator, taken as fast as the peer takes it.

        Args:
            status, headers: as in :meth:`reply`.
            chunks: yields bytes; closed when the connection ends early.
            length: number of bytes in all, when known; another number cuts the connection, so that the peer notices.
        """
        self._require_open()
        self._sender.reply_chunks(status, chunks, headers, length, closes=self._must_close())

    def _must_close(self) -> bool:
        """Whether the connection ends behind the reply that begins now."""
        content_is_due = self._receiving in (Receiving.HANDLING, Receiving.CONTENT)
        # The rest of a content that nobody has taken will not be read.
        return content_is_due and self._request.framing is not Framing.NONE and not self._content.is_taken

    def _require_open(self) -> None:
        if self.phase is not _OPEN:
            raise ConnectionClosed("Connection has been closed")

    def handle_handler_error(self, error: Exception) -> None:
        if self.role is Role.CLIENT or self.phase is not _OPEN:
            return
        if self._sender.state is Sending.DUE:
            self.reply(500, "500 Internal Server Error\n")
        elif self._sender.is_answering:
            # The reply cannot be completed: cutting it short is the only honest sign (RFC 9112 section 8).
            self._content.fail(ConnectionClosed("closed because a handler raised"))
            self.abort()

    def http_chunk(self, data: bytes) -> None:
        """Send one chunk of a streamed reply; empty data ends it.

        Raises:
            LocalProtocolError: no streamed reply has been begun.
            ConnectionClosed: the connection is closed.
        """
        self._require_open()
        sender = self._sender
        if sender.state is Sending.RAW:
            self.send(encode_chunk(data) if data else LAST_CHUNK)
            return
        sender.check_stream()
        if not data or self.admit():
            sender.send_chunk(data)

    def http_sse(self, event_type: str, data: str, event_id: str = "", retry: int | None = None) -> None:
        """Send one server-sent event on a streamed reply."""
        self.http_chunk(encode_sse(event_type, data, event_id, retry))

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
        super().drain()

    # -- raw bytes -----------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send bytes as they are: a client's request, or a reply that the user frames."""
        if not self.admit():
            return
        self.output.write(data)
        if self.role is Role.CLIENT:
            self._read_own_requests(data)
        else:
            self._sender.note_raw(data)

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
