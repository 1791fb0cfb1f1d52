"""WebSocket verbs of a connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from asyncmg.codecs.http import HeadersArgument
from asyncmg.codecs.ws import NORMAL
from asyncmg.codecs.ws_deflate import Deflate
from asyncmg.codecs.ws_handshake import WsOptions
from asyncmg.errors import ConnectionClosed, LocalProtocolError
from asyncmg.messages import HttpMessage
from asyncmg.protocols.http import HttpProtocol
from asyncmg.protocols.ws import WsProtocol
from asyncmg.protocols.ws_opening import accept_upgrade

#: Opcodes of ws_send() and of WsMessage.flags & 15 (RFC 6455 section 11.8).
WEBSOCKET_OP_CONTINUE: Final = 0
WEBSOCKET_OP_TEXT: Final = 1
WEBSOCKET_OP_BINARY: Final = 2
WEBSOCKET_OP_CLOSE: Final = 8
WEBSOCKET_OP_PING: Final = 9
WEBSOCKET_OP_PONG: Final = 10


def deflate_of(compression: bool | Deflate) -> Deflate | None:
    """What ``compression=`` stands for: True is the frugal default."""
    if isinstance(compression, bool):
        return Deflate() if compression else None
    if not isinstance(compression, Deflate):
        raise TypeError(f"compression is a bool or a Deflate, not {type(compression).__name__}")
    return compression


class WsVerbs:
    """``ws_upgrade``, ``ws_send``, ``ws_ping``, ``ws_close``; mixed into Connection."""

    __slots__ = ()

    protocol: Any

    def _ws(self) -> WsProtocol:
        protocol = self.protocol
        if not isinstance(protocol, WsProtocol):
            if getattr(self, "is_closing", False):
                raise ConnectionClosed("Connection has been closed")
            raise LocalProtocolError("not a WebSocket connection: MG_EV_WS_OPEN has not come")
        return protocol

    def ws_upgrade(
        self,
        message: HttpMessage,
        extra_headers: HeadersArgument = None,
        *,
        subprotocols: Sequence[str] = (),
        origins: Sequence[str | None] = (),
        compression: bool | Deflate = False,
        fragments: bool = False,
    ) -> bool:
        """Switch from HTTP to WebSocket (RFC 6455 section 4.2), in MG_EV_HTTP_MSG or later; MG_EV_WS_OPEN follows.

        A request that asks for no such thing, or in the wrong way, is answered with 426, 400 or 403 and the connection
        closes behind that.

        Args:
            message: the request.
            extra_headers: of the 101, as in :meth:`reply`.
            subprotocols: that we speak, the preferred one first: the first one that the client offers is chosen.
            origins: values of Origin that are served (None: requests without one); empty: all. Whoever relies on
                cookies needs it: browsers let any page open a WebSocket to any server.
            compression: accept permessage-deflate (RFC 7692).
            fragments: MG_EV_WS_MSG for each piece of a message, as it comes: see :class:`WsProtocol`.

        Returns:
            whether it is a WebSocket connection now.

        Raises:
            ConnectionClosed: the connection is closed.
            LocalProtocolError: not an HTTP connection, or not the request that is to be answered.
            InvalidHeader: an illegal header.
        """
        http = self.protocol
        if not isinstance(http, HttpProtocol):
            if getattr(self, "is_closing", False):
                raise ConnectionClosed("Connection has been closed")
            if isinstance(http, WsProtocol):
                raise LocalProtocolError("this connection is a WebSocket already")
            raise LocalProtocolError("not an HTTP connection: listen with http://, https://, ws:// or wss://")
        options = WsOptions(subprotocols, deflate_of(compression), origins)
        return accept_upgrade(http, message, options, extra_headers, fragments=fragments) is not None

    def ws_send(self, data: str | bytes, op: int = WEBSOCKET_OP_TEXT) -> None:
        """Send a WebSocket message, or a control frame. All that one loop turn sends leaves in one write.

        Args:
            data: a str is sent as UTF-8; bytes sent as text must be UTF-8.
            op: WEBSOCKET_OP_TEXT, _BINARY, _PING, _PONG; _CLOSE begins the closing handshake with ``data`` as payload.

        Raises:
            ConnectionClosed: the connection is closed, or the closing handshake has begun.
            LocalProtocolError: not a WebSocket connection; more than 125 bytes in a control frame.
            ValueError: text that is not UTF-8; another opcode.
        """
        protocol = self.protocol
        if type(protocol) is not WsProtocol:
            protocol = self._ws()
        protocol.send_message(data, op)

    def ws_ping(self, data: bytes = b"") -> None:
        """Send a ping; ``latency`` is new when its pong has come (MG_EV_WS_CTL). Keep-alive pings need no call.

        Raises:
            as :meth:`ws_send`.
        """
        self._ws().ping(data)

    def ws_close(self, code: int = NORMAL, reason: str = "") -> None:
        """Begin the closing handshake (RFC 6455 section 7); MG_EV_CLOSE follows, at the latest after ``close_timeout``.

        Args:
            code: 1000 to 1014 without 1004 to 1006, 3000 to 4999; 1005 for a close frame without one.
            reason: at most 123 bytes of UTF-8.

        Raises:
            LocalProtocolError: not a WebSocket connection.
            ValueError: of code or reason.
        """
        self._ws().begin_close(code, reason)

    @property
    def latency(self) -> float:
        """Seconds that the last answered ping of a WebSocket connection took; 0.0 before that, and of others."""
        return float(getattr(self.protocol, "latency", 0.0))

    @property
    def subprotocol(self) -> str:
        """What a WebSocket handshake has agreed upon; "" when there is none."""
        return str(getattr(self.protocol, "subprotocol", ""))
