"""What idle WebSocket connections cost: memory of each, and CPU time of a keep-alive ping.

    make bench        # or: .venv/bin/python benchmarks/websocket_idle.py --connections 1000 --only "asyncmg,picows"

N connections are opened, each does one echo, then nothing but reply to the server's pings. Memory: how much the
processes of the server have grown by after some of these pings. RSS is what is resident, USS what is resident and
shared with nobody; the kernel's share of a connection is not in it, and is the same for all. CPU: that of the server in
``--seconds``, by the pings that came in them: sending a ping, taking its pong, and the timers of both.

Rounds are interleaved, the tables show medians.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from functools import partial

from loads.ws_load import idle_load, require_load
from servers.rounds import Row, chosen, report, run_rounds
from servers.running import CannotRun
from servers.ws_peers import SERVERS
from servers.ws_running import WsServer

DEFAULT_SERVERS = [
    "asyncmg native sync run()",
    "asyncmg native sync uvloop",
    "asyncmg native async for",
    "asyncmg asyncio sync uvloop",
    "asyncmg asyncio async for",
    "picows uvloop",
    "picows.websockets uvloop",
    "websockets uvloop",
    "websockets stdlib",
    "aiohttp uvloop",
]
FIRST_CHECKS = 50  # so that what a server makes once, at its first connections, is not counted
LONGEST = 120.0  # to open the connections and let the memory settle, beside --seconds


@dataclass(frozen=True, slots=True)
class Round:
    """Bytes before and with the connections; pings in so many seconds, and the server's CPU time in them."""

    connections: int
    rss_before: int
    rss_with: int
    uss_before: int
    uss_with: int
    pings: int
    seconds: float
    cpu_seconds: float


def measure(name: str, args: argparse.Namespace) -> Round:
    with WsServer(name, args.server_core, "ping", str(args.ping_interval)) as server:
        for _ in range(FIRST_CHECKS):
            server.check()
        before = server.settled_memory()
        with idle_load(
            server.port, server.pids(), args.connections, args.load_core, LONGEST + 2 * args.seconds
        ) as connections:
            server.settled_memory()  # what came with the connections is done
            connections.since()
            time.sleep(args.seconds)
            result = connections.since()
            after = server.memory()
        if not result.pings:
            raise CannotRun(f"sent no ping in {args.seconds:g} s")
    return Round(
        args.connections, before.rss, after.rss, before.uss, after.uss, result.pings, result.seconds, result.server_cpu
    )


def print_table(rows: dict[str, Row[Round]], args: argparse.Namespace) -> None:
    rounds = f"{args.rounds} round{'s' * (args.rounds > 1)} of {args.seconds:g} s"
    print(f"\n{args.connections} idle connections, a ping on each every {args.ping_interval:g} s; {rounds}")
    columns = ("before MiB", "with MiB", "RSS bytes/conn", "USS bytes/conn", "CPU us/ping", "pings/s")
    print(f"{'server':30}" + "".join(f" {column:>14}" for column in columns))
    for name, row in rows.items():
        figures = (
            f"{row.median(lambda r: r.rss_before) / 2**20:14.1f}",
            f"{row.median(lambda r: r.rss_with) / 2**20:14.1f}",
            f"{row.median(lambda r: (r.rss_with - r.rss_before) / r.connections):14.0f}",
            f"{row.median(lambda r: (r.uss_with - r.uss_before) / r.connections):14.0f}",
            f"{row.median(lambda r: r.cpu_seconds / r.pings) * 1e6:14.1f}",
            f"{row.median(lambda r: r.pings / r.seconds):14.0f}",
        )
        print(" ".join([f"{name:30}", *figures]) + row.note())


def parse_arguments() -> argparse.Namespace:
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--ping-interval", type=float, default=5.0, help="seconds between pings (default: 5)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="in which pings are counted (default: 20)")
    parser.add_argument("--server-core", type=int, default=cores[0])
    parser.add_argument("--load-core", type=int, default=cores[-1])
    parser.add_argument("--only", help="servers whose name contains one of these strings, separated by commas")
    parser.add_argument("--json", action="store_true", help="print the raw rounds instead of tables")
    args = parser.parse_args()
    if min(args.rounds, args.connections) < 1 or args.ping_interval <= 0:
        parser.error("--rounds and --connections are at least 1, --ping-interval is above 0")
    if args.seconds < 2 * args.ping_interval:
        parser.error("--seconds has to hold at least two of --ping-interval: pings may come in bursts")
    return args


def main() -> None:
    args = parse_arguments()
    require_load()
    measured = run_rounds(partial(measure, args=args), chosen(SERVERS, args.only, DEFAULT_SERVERS), args.rounds)
    raw = report(measured, partial(print_table, args=args), as_json=args.json)
    if args.json:
        print(json.dumps(raw))
    if not raw:
        sys.exit("no server ran")


if __name__ == "__main__":
    main()
