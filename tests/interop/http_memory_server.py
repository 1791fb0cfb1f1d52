"""A server in a process of its own, so that its memory can be looked at. Arguments: the file that it serves."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from typing import Any

from asyncmg import (
    MG_EV_HTTP_HDRS,
    MG_EV_HTTP_MSG,
    BufferLimits,
    Connection,
    ConnectionClosed,
    HttpMessage,
    Limits,
    Manager,
    NetLimits,
)

ZEROS = bytes(1 << 20)
PIECE = 16 << 10  # of the endless streams
_FILLER = b"." * (PIECE - 17) + b"\n"


def marks(data: bytes | bytearray, start: int) -> list[int]:
    """Return where there is something other than zeros in a piece of content that begins at ``start``."""
    if data == ZEROS[: len(data)]:
        return []
    return [start + found.start() for found in re.finditer(rb"[^\0]", data)]


def piece(number: int) -> bytes:
    """Return a piece of the endless streams. Each is made anew: none shares its memory with another."""
    return b"%015d\n%b" % (number, _FILLER)


class Server:
    """Serves one file, takes uploads, and streams without an end.

    Attributes:
        streams: endless ones that somebody reads.
        produced: their pieces so far.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self.streams = 0
        self.produced = 0

    async def __call__(self, conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_HDRS and data.uri == "/upload":
            await self._receive(conn, data)
        elif ev == MG_EV_HTTP_MSG and data.uri == "/file":
            conn.serve_file(data, self._file)
        elif ev == MG_EV_HTTP_MSG and data.uri == "/iterator":
            conn.reply(200, self._endless())
        elif ev == MG_EV_HTTP_MSG and data.uri == "/chunks":
            await self._send_endlessly(conn)
        elif ev == MG_EV_HTTP_MSG:
            conn.reply(200, {"streams": self.streams, "produced": self.produced})

    async def _receive(self, conn: Connection, message: HttpMessage) -> None:
        found: list[int] = []
        size = 0
        async for data in message.stream():
            found += marks(data, size)
            size += len(data)
        conn.reply(200, {"size": size, "marks": found})

    async def _endless(self) -> AsyncIterator[bytes]:
        self.streams += 1
        try:
            number = 0
            while True:
                yield piece(number)
                number += 1
                self.produced += 1
        finally:
            self.streams -= 1

    async def _send_endlessly(self, conn: Connection) -> None:
        conn.reply_stream("text/plain")
        try:
            async for data in self._endless():
                conn.http_chunk(data)
                await conn.flush()
        except ConnectionClosed:
            pass  # what they all come to


async def main() -> None:
    # A machine that stops for seconds must not look like a peer that is too slow.
    limits = Limits(
        net=NetLimits(linger_timeout=60, linger_idle_timeout=60), buffers=BufferLimits(stall_timeout=120, min_rate=0)
    )
    async with Manager(Server(sys.argv[1]), limits=limits) as manager:
        listener = manager.listen("http://127.0.0.1:0")
        print(listener.port, manager.backend, flush=True)
        await manager.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
