"""A byte stream in the binary messages of a WebSocket connection (MQTT 5.0 section 6): another protocol's transport."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, cast

from asyncmg.codecs.ws import BINARY
from asyncmg.dispatch import EventSink
from asyncmg.errors import ConnectionClosed, RemoteProtocolError
from asyncmg.events import MG_EV_CLOSE, MG_EV_ERROR, MG_EV_WS_CTL, MG_EV_WS_MSG, MG_EV_WS_OPEN, event_mask

from .base import BaseProtocol, Pause
from .ws import WsProtocol

_CLOSE = 8
_UNSUPPORTED_DATA = 1003


class WsTunnel(asyncio.Transport):
    """The transport of a protocol whose bytes go through a WebSocket connection, and the sink of that one's events.

    Args:
        make_inner: makes the protocol object that uses the tunnel, given its sink.
        sink: of the protocol inside.
    """

    wants = event_mask((MG_EV_WS_OPEN, MG_EV_WS_MSG, MG_EV_WS_CTL, MG_EV_ERROR, MG_EV_CLOSE))

    def __init__(self, make_inner: Callable[[EventSink], BaseProtocol], sink: EventSink) -> None:
        super().__init__()
        self._make_inner = make_inner
        self._sink = sink
        self._inner: BaseProtocol | None = None
        self._ws: WsProtocol | None = None
        self._error: Exception | None = None

    def outer(self, **kwargs: Any) -> WsProtocol:
        """Make the WebSocket protocol object around the tunnel; takes what :class:`WsProtocol` takes."""
        self._ws = ws = _TunnelledWs(self, **kwargs)
        return ws

    @property
    def ws(self) -> WsProtocol:
        assert self._ws is not None  # outer() comes first
        return self._ws

    # -- what the WebSocket connection tells ---------------------------------------------------------------------------

    def handle_event(self, ev: int, data: Any) -> bool:
        inner = self._inner
        if ev == MG_EV_WS_OPEN:
            self._inner = inner = self._make_inner(self._sink)
            inner.adopt(self)
        elif inner is None:
            if ev == MG_EV_CLOSE:  # it has not come to an opening
                self._sink.handle_event(ev, data)
        elif ev == MG_EV_WS_MSG:
            if data.flags & 15 == BINARY or not data.flags & 15:
                inner.data_received(data.data)
            else:
                error = RemoteProtocolError(
                    "text in a tunnel", wire_code=_UNSUPPORTED_DATA, section="MQTT 5.0 [MQTT-6.0.0-1]"
                )
                self.ws.refuse(error)
        elif ev == MG_EV_WS_CTL and data.flags & 15 == _CLOSE:
            inner.eof_received()
        elif ev == MG_EV_ERROR:
            self._error = data
        elif ev == MG_EV_CLOSE:
            inner.connection_lost(self._error)
        return True

    def when_handled(self, callback: Callable[[], None]) -> None:
        callback()

    def switch_protocol(self, protocol: Any) -> None:
        """The connection's user is shown the protocol inside, when it begins."""

    def spawn(self, coro: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._sink.spawn(coro, name)

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    # -- asyncio.Transport -------------------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        with contextlib.suppress(ConnectionClosed):  # then connection_lost() is on its way
            self.ws.send_message(data, BINARY)

    def get_write_buffer_size(self) -> int:
        return self.ws.send_len

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.ws.transport.set_write_buffer_limits(high, low)

    def pause_reading(self) -> None:
        self.ws.pause_reading(Pause.CONTENT)

    def resume_reading(self) -> None:
        self.ws.resume_reading(Pause.CONTENT)

    def is_closing(self) -> bool:
        return not self.ws.is_open

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.ws.drain()

    def abort(self) -> None:
        self.ws.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.ws.transport.get_extra_info(name, default)


class _TunnelledWs(WsProtocol):
    """A WebSocket connection that also tells when its output is stopped."""

    __slots__ = ()

    def admit(self) -> bool:
        """Its messages are pieces of a stream: none may be left out. The protocol inside deals with slow peers."""
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        cast(WsTunnel, self.sink).pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        cast(WsTunnel, self.sink).resume_writing()
