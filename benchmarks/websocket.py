"""WebSocket servers side by side: CPU microseconds per message, messages per second, latency.

    make bench        # or: .venv/bin/python benchmarks/websocket.py --workload "inflight*-64b" --only "asyncmg,picows"

Each server is pinned to one core and the load (``loads/ws_load.c``) to another. Rounds are interleaved: every server
once, then again, so that a machine that changes its speed changes it for all. The tables show medians of the rounds.
CPU time is that of all processes of the server, user and system; the ratios are of CPU time: below 1.00 is cheaper than
the peer at the column's head. ``server %`` and ``load %`` say how busy the two cores were with it: a server is measured
by a load that could do more, and a row for which that does not hold says so at its end.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Literal

from loads.ws_load import require_load, run_load
from servers.options import add_workloads, make_parser, parse_options
from servers.rounds import Row, chosen, head_of_ratios, ratios, run_workloads
from servers.ws_peers import BROADCAST_ONLY, SERVERS, has_raw_echo
from servers.ws_running import WsServer

# Ratios are against these, where they ran.
REFERENCES = {
    "picows": "picows uvloop",
    "websockets": "websockets uvloop",
    "aiohttp": "aiohttp uvloop",
    "floor": "floor uvloop",
}
BUSY = 0.9  # of the time
SHARED = 0.1
MOST = 1000  # connections of a workload


@dataclass(frozen=True, slots=True)
class Workload:
    size: int  # bytes of a message
    connections: int
    depth: int = 1  # messages in flight on each connection
    mode: Literal["echo", "broadcast"] = "echo"

    def __str__(self) -> str:
        if self.mode == "broadcast":
            return f"{self.size} bytes from one connection to {self.connections}, one after the other"
        connections = f"{self.connections} connection{'s' * (self.connections > 1)}"
        return f"{self.size} bytes, {connections}, {self.depth} in flight on each"


def _workloads() -> dict[str, Workload]:
    workloads = {}
    for label, size, depth in (("64b", 64, 64), ("1k", 1024, 64), ("64k", 65536, 8)):
        workloads[f"pingpong1-{label}"] = Workload(size, 1)
        workloads[f"pingpong64-{label}"] = Workload(size, 64)
        workloads[f"inflight1-{label}"] = Workload(size, 1, depth)
        workloads[f"inflight64-{label}"] = Workload(size, 64, depth)
    for label, size in (("64b", 64), ("1k", 1024)):
        workloads[f"broadcast-{label}"] = Workload(size, MOST, mode="broadcast")
    return workloads


WORKLOADS = _workloads()


@dataclass(frozen=True, slots=True)
class Round:
    """One server under one workload, once. Shares are of the time; delayed is who had to wait for its core."""

    cpu_us: float  # per message
    rate: float  # messages per second
    p50_us: float
    p99_us: float
    server_share: float
    server_delayed: float
    load_share: float
    load_delayed: float
    errors: int


def measure(name: str, workload: Workload, args: argparse.Namespace) -> Round:
    """Start a server, check it, load it, check it again.

    Raises:
        CannotRun: it does not start, what comes back before or after the load is not what it should be, or the load
            got nothing back.
    """
    with WsServer(name, args.server_core, workload.mode) as server:
        result = run_load(
            server.port,
            server.pids(),
            mode=workload.mode,
            connections=min(args.connections, workload.connections),
            depth=workload.depth,
            size=workload.size,
            seconds=args.seconds,
            warm_up=args.warm_up,
            core=args.load_core,
            raw=has_raw_echo(name),
            text=args.text and workload.mode == "echo",
        )
        server.check()
    return Round(
        cpu_us=result.server_cpu / result.messages * 1e6,
        rate=result.messages / result.seconds,
        p50_us=result.p50_us,
        p99_us=result.p99_us,
        server_share=result.server_cpu / result.seconds,
        server_delayed=result.server_delayed / result.seconds,
        load_share=result.load_cpu / result.seconds,
        load_delayed=result.load_delayed / result.seconds,
        errors=result.errors,
    )


def bottleneck(row: Row[Round], workload: Workload) -> str:
    """Return what kept the server from being busy, for the end of its row; empty when it was busy."""
    server = row.median(lambda r: r.server_share + r.server_delayed)
    load = row.median(lambda r: r.load_share + r.load_delayed)
    if server < BUSY and load > max(server, BUSY):
        return "  THE LOAD WAS THE BOTTLENECK"
    if row.median(lambda r: max(r.server_delayed, r.load_delayed)) > SHARED:
        return "  others used the cores"
    if server < BUSY and workload.connections * workload.depth > 1:  # a single message: each waits for the other
        return "  neither was busy"
    return ""


def print_table(rows: dict[str, Row[Round]], name: str, args: argparse.Namespace) -> None:
    workload = WORKLOADS[name]
    kind = "text, " if args.text and workload.mode == "echo" else ""
    of_all = f" (here at most {args.connections} connections)" if args.connections < workload.connections else ""
    print(f"\n{name}: {kind}{workload}{of_all}; {args.rounds} round{'s' * (args.rounds > 1)} of {args.seconds:g} s")
    header = f"{'server':30} {'CPU us/msg':>10} {'msg/s':>8} {'p50 us':>8} {'p99 us':>8} {'server %':>8} {'load %':>6}"
    print(header + head_of_ratios(REFERENCES))
    cost = {server: row.median(lambda r: r.cpu_us) for server, row in rows.items()}
    for server, row in rows.items():
        line = f"{server:30} {cost[server]:10.2f} {row.median(lambda r: r.rate):8.0f}"
        line += f" {row.median(lambda r: r.p50_us):8.1f} {row.median(lambda r: r.p99_us):8.1f}"
        line += f" {row.median(lambda r: r.server_share) * 100:8.0f} {row.median(lambda r: r.load_share) * 100:6.0f}"
        print(line + ratios(cost, server, REFERENCES) + bottleneck(row, workload) + row.note())


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__, rounds=3, seconds=2.0, warm_up=0.5)
    add_workloads(parser, WORKLOADS)
    parser.add_argument("--text", action="store_true", help="echo text instead of binary messages")
    parser.add_argument("--connections", type=int, default=MOST, help="at most so many: for a trial")
    args = parse_options(parser, WORKLOADS)
    if args.connections < 1:
        parser.error("--connections is at least 1")
    return args


def main() -> None:
    args = parse_arguments()
    require_load()
    servers = chosen(SERVERS, args.only)

    def able(workload: Workload) -> list[str]:
        return [server for server in servers if workload.mode == "broadcast" or server not in BROADCAST_ONLY]

    run_workloads(args, WORKLOADS, able, measure, print_table)


if __name__ == "__main__":
    main()
