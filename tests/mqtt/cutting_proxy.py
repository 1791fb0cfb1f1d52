"""A proxy that cuts connections after so many bytes, in one direction or the other, orderly or with a reset."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple


class Cut(NamedTuple):
    """When a connection ends.

    Attributes:
        to_broker: whether it is the client's bytes that are counted, or the broker's.
        count: bytes that pass behind CONNECT or CONNACK, whichever goes the same way.
        resets: it ends with a reset.
    """

    to_broker: bool
    count: int
    resets: bool


class CuttingProxy:
    """Stands between clients and a broker.

    Args:
        port: of the broker.
        cuts: one for each connection; when there are no more, connections last.
    """

    def __init__(self, port: int, cuts: Iterator[Cut]) -> None:
        self.port = port
        self.cuts = cuts
        self._server: asyncio.Server | None = None
        self.transports: set[asyncio.Transport] = set()
        self.cut_count = 0

    async def __aenter__(self) -> CuttingProxy:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Near(self), "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        for transport in tuple(self.transports):
            transport.abort()
        async with asyncio.timeout(10):
            while self.transports:
                await asyncio.sleep(0.001)
            await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"mqtt://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"


class _Side(asyncio.Protocol):
    """One side of a connection through the proxy."""

    def __init__(self, proxy: CuttingProxy, cut: Cut | None, *, is_client: bool) -> None:
        self.proxy = proxy
        self.cut = cut
        self.is_client = is_client
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self.left = cut.count if cut is not None and cut.to_broker is is_client else -1
        self.first: bytearray | None = bytearray()  # the first packet passes whole: what is behind it is tried
        self.early = bytearray()  # received before the other side was there
        self.is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.proxy.transports.add(self.transport)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        if self.other is None or self.other.transport is None:
            self.early += data
            return
        if self.is_over:
            return
        if self.left < 0:
            self.other.write(data)
            return
        if self.first is not None:
            self.first += data
            size = _packet_size(self.first)
            if size is None or len(self.first) < size:
                return
            self.other.write(bytes(self.first[:size]))
            data, self.first = bytes(self.first[size:]), None
        passing = data[: self.left]
        self.other.write(passing)
        self.left -= len(passing)
        if self.left == 0:
            self.is_over = True
            self.proxy.cut_count += 1
            asyncio.get_running_loop().call_later(0.001, self.end)  # let them act on what has passed

    def write(self, data: bytes) -> None:
        if self.transport is not None and not self.is_over:
            self.transport.write(data)

    def end(self) -> None:
        for side in (self, self.other):
            if side is None or side.transport is None:
                continue
            side.is_over = True
            if self.cut is not None and self.cut.resets:
                sock = side.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                side.transport.abort()
            else:
                side.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        assert self.transport is not None
        self.proxy.transports.discard(self.transport)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()
        self.transport = None


class _Near(_Side):
    """The client's side, which connects to the broker."""

    def __init__(self, proxy: CuttingProxy) -> None:
        super().__init__(proxy, next(proxy.cuts, None), is_client=True)
        self.connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        far = _Side(self.proxy, self.cut, is_client=False)
        try:
            await asyncio.get_running_loop().create_connection(lambda: far, "127.0.0.1", self.proxy.port)
        except OSError:
            if self.transport is not None:
                self.transport.abort()
            return
        if self.transport is None:
            if far.transport is not None:
                far.transport.abort()
            return
        self.other, far.other = far, self
        for side in (self, far):
            early, side.early = bytes(side.early), bytearray()
            if early:
                side.data_received(early)


def _packet_size(data: bytearray) -> int | None:
    """Return the size of the packet that begins here; None: it cannot be told yet."""
    size = shift = 0
    for place, byte in enumerate(data[1:5], 2):
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return place + size
    return None
