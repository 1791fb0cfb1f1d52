"""One WebSocket message to many connections: serialised once, and no slow one stalls the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

from .codecs.ws import BINARY, FIN, TEXT, TRY_AGAIN_LATER, frame_header
from .protocols.output import Output
from .protocols.ws import WsProtocol, payload_of
from .protocols.ws_sender import SlowPolicy
from .transports.native_sockets import NativeTransport, fan_out


class Target(Protocol):
    """A Connection that is a WebSocket, or a WebSocket."""

    @property
    def protocol(self) -> object: ...


def broadcast(
    connections: Iterable[Target],
    data: str | bytes,
    op: int = 0,
    *,
    policy: Literal["drop_oldest", "drop_newest", "close"] = "drop_oldest",
) -> int:
    """Send one message to many WebSocket connections. It waits for nobody.

    The message is framed once, uncompressed, and goes to all connections of the native backend in one submission. For
    a connection whose peer does not take its output up to ``max_held`` broadcast messages are held; behind that the
    policy decides. ``protocol.sender.dropped`` counts what a connection did not get.

    Args:
        connections: what is not an open WebSocket connection is passed over.
        data: a str is sent as UTF-8.
        op: 1 text, 2 binary; default: by the type of data.
        policy: drop the oldest held message, drop this one, or close the connection with 1013.

    Returns:
        the number of connections that were passed the message, or hold it.

    Raises:
        ValueError: text that is not UTF-8; another opcode or policy.
    """
    slow_policy = SlowPolicy(policy)
    op = op or (TEXT if isinstance(data, str) else BINARY)
    if op not in (TEXT, BINARY):
        raise ValueError(f"not an opcode of a message: {op}")
    payload = payload_of(data, op)
    frame = frame_header(FIN | op, len(payload)) + payload
    size = len(frame)
    native: dict[object, tuple[list[NativeTransport], list[Output]]] = {}
    transports: list[NativeTransport] = []
    outputs: list[Output] = []
    backend: object = None
    count = 0
    for target in tuple(connections):  # a handler of what this causes may change them
        protocol = target.protocol
        if type(protocol) is not WsProtocol or not protocol.is_open:
            continue
        count += 1
        output = protocol.output
        transport = output.transport
        # Clients mask, each with a key of its own.
        own = protocol.sender.frame(FIN | op, payload) if protocol.is_client else frame
        if protocol.is_client or type(transport) is not NativeTransport or output.pieces or not protocol.sender.is_free:
            if not protocol.sender.publish(own, slow_policy):
                count -= 1
                protocol.begin_close(TRY_AGAIN_LATER, "too slow")
        else:
            if transport.backend is not backend:
                backend = transport.backend
                transports, outputs = native.setdefault(backend, ([], []))
            transports.append(transport)
            outputs.append(output)
            output.written += size
    for transports, outputs in native.values():
        fan_out(transports, frame)
        for output in outputs:
            if output.tells_owner:
                output.tell(size)
    return count
