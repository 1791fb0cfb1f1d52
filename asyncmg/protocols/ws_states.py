"""States of a WebSocket connection after its opening handshake (RFC 6455 section 7). An absent pair is our error."""

from __future__ import annotations

from enum import StrEnum


class WsState(StrEnum):
    """How far the closing handshake has come."""

    OPEN = "open"
    CLOSING = "closing"  # our close frame is sent, the peer's is awaited; messages still come in
    CLOSED = "closed"  # the handshake is complete, or has been given up: nothing more is sent or read


WS: dict[tuple[WsState, str], WsState] = {
    (WsState.OPEN, "send close"): WsState.CLOSING,
    (WsState.OPEN, "receive close"): WsState.CLOSED,  # answered at once
    (WsState.CLOSING, "receive close"): WsState.CLOSED,
    (WsState.OPEN, "fail"): WsState.CLOSED,
    (WsState.CLOSING, "fail"): WsState.CLOSED,
    (WsState.CLOSED, "fail"): WsState.CLOSED,
}
