"""HTTP servers side by side: CPU microseconds per request, and requests per second.

    make bench        # or: .venv/bin/python benchmarks/http_server.py --workload one --only "asyncmg,nginx"

Each server is pinned to one core and the load (wrk) to another. Rounds are interleaved: every server once, then again,
so that a machine that changes its speed changes it for all. The tables show medians of the rounds. CPU time is that of
all processes of the server, user and system, which survives a noisy neighbour better than the rate; the ratios are of
CPU time: below 1.00 is cheaper than the peer at the column's head.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from loads.wrk import require_wrk, run_wrk
from servers.http_peers import SERVERS
from servers.http_running import HttpServer
from servers.options import add_workloads, make_parser, parse_options
from servers.rounds import Row, chosen, head_of_ratios, ratios, run_workloads

# Ratios are against these, where they ran.
REFERENCES = {
    "nginx": "nginx",
    "cymongoose": "cymongoose",
    "uvicorn": "uvicorn httptools uvloop",
    "constant": "constant reply uvloop",
}


@dataclass(frozen=True, slots=True)
class Workload:
    connections: int
    depth: int = 1  # requests in flight on each connection


WORKLOADS = {
    "keepalive64": Workload(64),
    "one": Workload(1),
    "many256": Workload(256),
    "pipelined16": Workload(64, depth=16),
}


@dataclass(frozen=True, slots=True)
class Round:
    """One server under one workload, once."""

    cpu_us: float  # per request
    rate: float  # requests per second
    p50_us: float
    errors: int


def measure(name: str, workload: Workload, args: argparse.Namespace) -> Round:
    """Start a server, warm it up, load it.

    Raises:
        CannotRun: it does not start, a reply before or after the load is not what it should be, or wrk got none.
    """
    load = {"connections": workload.connections, "depth": workload.depth, "core": args.load_core}
    with HttpServer(name, args.server_core) as server:
        server.check(workload.depth)
        if args.warm_up:
            run_wrk(server.port, seconds=args.warm_up, **load)
        before = server.cpu_seconds()
        result = run_wrk(server.port, seconds=args.seconds, **load)
        used = server.cpu_seconds() - before
        server.check(workload.depth)
    return Round(used / result.requests * 1e6, result.rate, result.p50_us, result.errors)


def print_table(rows: dict[str, Row[Round]], name: str, args: argparse.Namespace) -> None:
    workload = WORKLOADS[name]
    flight = f", {workload.depth} requests in flight on each" if workload.depth > 1 else ""
    print(
        f"\n{name}: {workload.connections} connection{'s' * (workload.connections > 1)}{flight};"
        f" {args.rounds} round{'s' * (args.rounds > 1)} of {args.seconds} s"
    )
    with_latency = workload.connections == 1
    header = f"{'server':30} {'CPU us/req':>10} {'req/s':>8}"
    header += f" {'p50 us':>8}" if with_latency else ""
    print(header + head_of_ratios(REFERENCES))
    cost = {server: row.median(lambda r: r.cpu_us) for server, row in rows.items()}
    for server, row in rows.items():
        line = f"{server:30} {cost[server]:10.2f} {row.median(lambda r: r.rate):8.0f}"
        if with_latency:
            line += f" {row.median(lambda r: r.p50_us):8.1f}"
        print(line + ratios(cost, server, REFERENCES) + row.note())


def main() -> None:
    parser = make_parser(__doc__, rounds=5, seconds=3, warm_up=1)
    add_workloads(parser, WORKLOADS)
    args = parse_options(parser, WORKLOADS)
    require_wrk()
    servers = chosen(SERVERS, args.only)
    run_workloads(args, WORKLOADS, lambda workload: servers, measure, print_table)


if __name__ == "__main__":
    main()
