"""A WebSocket client that sends each message back: the program that `autobahn.py` tests.

The fuzzing server is asked how many cases there are; each is a connection; at the end it is told to write its report.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import urllib.parse

CASE_TIMEOUT = 1200.0  # more than the suite gives any case


async def run(url: str, agent: str) -> None:
    from asyncmg import AsyncmgError, BufferLimits, Limits, WsLimits, ws_connect

    ws_limits = WsLimits(max_message=64 << 20, max_fragments=1 << 20, max_control_frames=1_000_000, ping_interval=0)
    limits = Limits(ws=ws_limits, buffers=BufferLimits(max_send_buffer=256 << 20))
    name = urllib.parse.quote(agent)

    async with ws_connect(f"{url}/getCaseCount", limits=limits) as ws:
        count = int(await ws.recv())
    for number in range(1, count + 1):
        # What the server does wrong on purpose ends the connection; the verdict is the server's.
        with contextlib.suppress(AsyncmgError):
            async with asyncio.timeout(CASE_TIMEOUT):
                case_url = f"{url}/runCase?case={number}&agent={name}"
                async with ws_connect(case_url, compression=True, limits=limits) as ws:
                    async for message in ws:
                        await ws.send(message)
    # It closes the connection when the report is written.
    async with asyncio.timeout(CASE_TIMEOUT), ws_connect(f"{url}/updateReports?agent={name}", limits=limits) as ws:
        async for _ in ws:
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="of the fuzzing server, without a path")
    parser.add_argument("--agent", required=True, help="our name in the report")
    parser.add_argument("--codec", choices=["auto", "native", "portable", "wsproto"], default="auto")
    parser.add_argument("--backend", choices=["auto", "native", "asyncio"], default="auto")
    options = parser.parse_args()
    os.environ["ASYNCMG_WS_CODEC"] = options.codec
    os.environ["ASYNCMG_BACKEND"] = options.backend
    asyncio.run(run(options.url, options.agent))


if __name__ == "__main__":
    main()
