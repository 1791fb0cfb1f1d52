"""The opening handshake of WebSocket over a connection's life (RFC 6455 section 4), in both roles.

A server has received a request on an HTTP connection: :func:`accept_upgrade`. A client's connection begins as
:class:`WsOpening`, which sends the request, holds the answer against it, and hands the connection over.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from asyncmg.codecs.http import HeadersArgument, header_pairs
from asyncmg.codecs.ws_handshake import Agreed, Refusal, WsOptions, accept, check_response, request, user_fields
from asyncmg.dispatch import EventSink
from asyncmg.errors import DeadlineExceeded, HandshakeFailed, LocalProtocolError, RemoteProtocolError
from asyncmg.events import MG_EV_HTTP_HDRS, MG_EV_HTTP_MSG
from asyncmg.messages import HttpMessage

from .http import HttpProtocol, basic_authorization
from .ws import WsProtocol

#: Takes what :class:`WsProtocol` takes.
Successor = Callable[..., WsProtocol]

_HANDSHAKE = frozenset({MG_EV_HTTP_HDRS, MG_EV_HTTP_MSG})


def accept_upgrade(
    http: HttpProtocol,
    message: HttpMessage,
    options: WsOptions,
    headers: HeadersArgument,
    *,
    fragments: bool,
    make: Successor = WsProtocol,
) -> WsProtocol | None:
    """Answer a request for WebSocket: with a 101, or with an error (426, 400, 403) behind which the connection ends.

    Args:
        http: the server's connection.
        message: the request that is to be answered.
        headers: further ones of the 101.
        fragments: see :class:`WsProtocol`.
        make: makes the protocol object.

    Returns:
        the protocol object that has the connection now; None: it was refused.

    Raises:
        LocalProtocolError: not the request that is to be answered; a header of the handshake's own.
        InvalidHeader, ConnectionClosed: as HttpProtocol.reply().
    """
    if message is not http.message:
        raise LocalProtocolError("this is not the request that is to be answered")
    further = user_fields(headers)
    try:
        fields, agreed = accept(message, options)
    except Refusal as exc:
        http.reply(exc.wire_code, f"{exc.args[0]}\n", exc.headers)
        http.drain()
        return None
    successor = _successor(http, agreed, message, fragments, make)
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    http.upgrade(successor, lines + b"".join(further).decode("utf-8", "surrogateescape"), "websocket")
    return successor


class WsOpening(HttpProtocol):
    """A client's connection until the handshake is complete. Its HTTP events are not told; MG_EV_WS_OPEN follows.

    Args:
        target, host: the request-target, and the value of Host.
        options: what is offered.
        headers: further ones of the request.
        basic_auth: user and password.
        fragments: see :class:`WsProtocol`.
        make: makes the protocol object that follows.
        sink, limits, loop, ...: see :class:`HttpProtocol`.
    """

    __slots__ = ("_answer", "_fragments", "_make", "_nonce", "_options", "_request_bytes")

    def __init__(
        self,
        sink: EventSink,
        *,
        target: str,
        host: str,
        options: WsOptions,
        headers: HeadersArgument = None,
        basic_auth: tuple[str, str] | None = None,
        fragments: bool = False,
        make: Successor = WsProtocol,
        **kwargs: Any,
    ) -> None:
        super().__init__(sink, **kwargs)
        self._options = options
        self._fragments = fragments
        self._make = make
        self._nonce = os.urandom(16)
        self._answer: HttpMessage | None = None
        pairs = list(header_pairs(headers))
        if basic_auth is not None:
            pairs.append(("Authorization", basic_authorization(*basic_auth)))
        self._request_bytes = request(target, host, self._nonce, options, pairs)

    @property
    def is_opening(self) -> bool:
        return True

    def handle_ready(self) -> None:
        super().handle_ready()
        limit = self.limits.ws.handshake_timeout
        self.deadlines.set("handshake", self.loop.time() + limit, self._handle_late)
        self.send(self._request_bytes)

    def _handle_late(self) -> None:
        limit = self.limits.ws.handshake_timeout
        self.fail(DeadlineExceeded(f"no WebSocket handshake in {limit} s", limit="handshake_timeout"))

    def when_handled(self, callback: Callable[[], None]) -> None:
        callback()  # nobody is told of what is received here

    def emit(self, ev: int, data: Any = None) -> bool:
        if ev not in _HANDSHAKE:
            return super().emit(ev, data)
        self._answer = data
        if ev == MG_EV_HTTP_MSG:
            self._handle_answer(data)
        return True

    def fail(self, error: Exception) -> None:
        if self._answer is not None and not isinstance(error, HandshakeFailed):  # its content is too long, or cut
            failure = self._failure(_refusal(self._answer), self._answer)
            failure.__cause__ = error
            error = failure
        super().fail(error)

    def shutdown(self) -> None:
        """A handshake is nothing that would have to be finished."""
        self.close()

    def _handle_answer(self, response: HttpMessage) -> None:
        if response.status() != 101:
            self.fail(self._failure(_refusal(response), response))
            return
        try:
            agreed = check_response(response, self._nonce, self._options)
        except RemoteProtocolError as exc:
            failure = self._failure(str(exc), response)
            failure.__cause__ = exc
            self.fail(failure)
            return
        self.upgrade(_successor(self, agreed, response, self._fragments, self._make))

    def _failure(self, message: str, response: HttpMessage) -> HandshakeFailed:
        text = f"WebSocket handshake failed: {message}"
        return HandshakeFailed(text, status=response.status(), headers=response.headers(), body=response.body_bytes)


def _successor(
    http: HttpProtocol, agreed: Agreed, opening: HttpMessage, fragments: bool, make: Successor
) -> WsProtocol:
    return make(
        http.sink,
        role=http.role,
        limits=http.limits,
        loop=http.loop,
        agreed=agreed,
        opening=opening,
        fragments=fragments,
    )


def _refusal(response: HttpMessage) -> str:
    return f"the server has answered {response.status()} {response.reason}".rstrip()
