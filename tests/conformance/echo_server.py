"""A WebSocket server that sends each message back: the program that `autobahn.py` tests. Prints its port."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncmg import Connection, Limits, WebSocket


def limits() -> Limits:
    """What the suite needs: messages of 16 MiB, in a quarter of a million fragments, and more pings than peers send."""
    from asyncmg import BufferLimits, Limits, WsLimits

    ws = WsLimits(max_message=64 << 20, max_fragments=1 << 20, max_control_frames=1_000_000, ping_interval=0)
    return Limits(ws=ws, buffers=BufferLimits(max_send_buffer=256 << 20))


async def run(face: str) -> None:
    from asyncmg import MG_EV_HTTP_MSG, MG_EV_WS_MSG, ConnectionClosed, Manager, ws_serve

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.ws_upgrade(data, compression=True)
        elif ev == MG_EV_WS_MSG:
            conn.ws_send(data.data, data.flags & 15)

    async def async_handler(conn: Connection, ev: int, data: Any) -> None:
        with contextlib.suppress(ConnectionClosed):
            handler(conn, ev, data)

    async def echo(ws: WebSocket) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in ws:
                await ws.send(message)

    if face == "serve":
        async with ws_serve(echo, "127.0.0.1", 0, compression=True, limits=limits()) as server:
            print(server.port, flush=True)
            await server.serve_forever()
    else:
        async with Manager(handler if face == "plain" else async_handler, limits=limits()) as manager:
            print(manager.http_listen("http://127.0.0.1:0").port, flush=True)
            await manager.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codec", choices=["auto", "native", "portable", "wsproto"], default="auto")
    parser.add_argument("--backend", choices=["auto", "native", "asyncio"], default="auto")
    parser.add_argument(
        "--face",
        choices=["plain", "async", "serve"],
        default="async",
        help="a plain handler of events, an async one (default), or ws_serve",
    )
    options = parser.parse_args()
    os.environ["ASYNCMG_WS_CODEC"] = options.codec
    os.environ["ASYNCMG_BACKEND"] = options.backend
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(options.face))


if __name__ == "__main__":
    main()
