"""Messages with QoS 0 from one connection to the same many others: collected for a turn, and handed over at once."""

from __future__ import annotations

from typing import Any

from asyncmg.protocols.output import Output
from asyncmg.transports.native_sockets import NativeTransport, fan_out

from .message import Message
from .routes import Route

_LARGE = 256 << 10  # bytes that are collected at most


class FanOut:
    """What one route's subscribers are to be sent.

    Each packet is encoded once for each version; on the native backend all receivers share one copy of the bytes, in
    one submission, and their kernels get them in one call each.

    Attributes:
        route, messages: collected; the broker flushes before it sends anything else, so that the order is kept.
    """

    __slots__ = ("_size", "messages", "route")

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.route: Route | None = None
        self._size = 0

    def add(self, route: Route, message: Message) -> None:
        self.route = route
        self.messages.append(message)
        self._size += len(message.payload)
        if self._size > _LARGE:
            self.flush()

    def flush(self) -> None:
        """Hand over what was collected."""
        messages, route = self.messages, self.route
        if not messages or route is None:
            return
        self.messages = []
        self.route = None
        self._size = 0
        joined: dict[int, bytes] = {}
        native: dict[tuple[Any, int], tuple[list[NativeTransport], list[Output]]] = {}
        for target in route.targets:
            link = target.session.link
            if link is None:
                continue
            if not link.is_plain or link.is_paused:
                for message in messages:
                    link.send_plain(message, False, ())
                continue
            version = link.version
            output = link.output
            data = joined.get(version)
            if data is None:
                data = joined[version] = b"".join(
                    [part for message in messages for part in message.parts(version, 0, False)]
                )
            transport = output.transport
            if type(transport) is NativeTransport and not output.pieces and not output.is_held:
                key = (transport.backend, version)
                group = native.get(key)
                if group is None:
                    group = native[key] = ([], [])
                group[0].append(transport)
                group[1].append(output)
                output.written += len(data)
            else:
                output.write(data)
        for (_, version), (transports, outputs) in native.items():
            data = joined[version]
            fan_out(transports, data)
            for output in outputs:
                if output.tells_owner:
                    output.tell(len(data))
