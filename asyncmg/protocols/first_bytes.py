"""Two protocols on one port: the first byte of a connection decides. An MQTT client begins with 0x10, CONNECT; no HTTP
request begins so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyncmg.dispatch import EventSink
from asyncmg.errors import DeadlineExceeded
from asyncmg.messages import WholeRequest

from .base import BaseProtocol

_CONNECT = 0x10

#: Takes what :class:`BaseProtocol` takes.
Maker = Callable[..., BaseProtocol]


class FirstBytes(BaseProtocol):
    """A server's connection until its first byte has come.

    Args:
        make_http, make_mqtt: make the protocol object that follows.
        sink, limits, loop, ...: see :class:`BaseProtocol`.
    """

    __slots__ = ("_make_http", "_make_mqtt")

    alpn = ("http/1.1", "mqtt")

    def __init__(self, sink: EventSink, *, make_http: Maker, make_mqtt: Maker, **kwargs: Any) -> None:
        super().__init__(sink, **kwargs)
        self._make_http = make_http
        self._make_mqtt = make_mqtt

    def handle_ready(self) -> None:
        limit = self.limits.http.header_timeout
        self.deadlines.set("first byte", self.loop.time() + limit, self._handle_late)

    def _handle_late(self) -> None:
        limit = self.limits.http.header_timeout
        self.fail(DeadlineExceeded(f"nothing received in {limit} s", limit="header_timeout"))

    def request_received(self, request: WholeRequest) -> None:
        successor = self._make(self._make_http)
        self.hand_over(successor, b"")
        successor.request_received(request)

    def receive_data(self, data: bytes) -> None:
        self.hand_over(self._make(self._make_mqtt if data[0] == _CONNECT else self._make_http), data)

    def _make(self, make: Maker) -> BaseProtocol:
        return make(self.sink, role=self.role, limits=self.limits, loop=self.loop)
