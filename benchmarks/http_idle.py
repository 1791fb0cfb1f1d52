"""What idle keep-alive connections cost HTTP servers: memory, and CPU of the one that is active beside them.

    make bench        # or: .venv/bin/python benchmarks/http_idle.py --memory --connections 1000 --only "asyncmg,nginx"

Memory: how much the processes of a server grow by while N connections are opened, of which each does one request, then
nothing. RSS is what is resident, USS what is resident and shared with nobody. The kernel's share of a connection is not
in it; it is the same for all. Nor is what a server reserves for all connections at its start: see the columns in MiB.

Active: CPU microseconds per request of one busy connection (wrk), alone and beside M idle ones, and their ratio.

Rounds are interleaved, the tables show medians.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loads.wrk import require_wrk, run_wrk
from servers.http_peers import SERVERS
from servers.http_running import HttpServer
from servers.options import make_parser, parse_options
from servers.rounds import Row, chosen, finish, report, run_rounds
from servers.running import CannotRun

IDLE = Path(__file__).resolve().parent / "loads" / "idle.py"
DEFAULT_SERVERS = [
    "asyncmg native async stdlib",
    "asyncmg native sync stdlib",
    "asyncmg native sync run()",
    "asyncmg asyncio async uvloop",
    "asyncmg asyncio sync uvloop",
    "nginx",
    "granian asgi uvloop",
    "cymongoose",
    "uvicorn httptools uvloop",
    "aiohttp uvloop",
]
FIRST_REQUESTS = 200  # so that what a server makes once, at its first requests, is not counted


@dataclass(frozen=True, slots=True)
class MemoryRound:
    """Bytes before and with the connections."""

    connections: int
    rss_before: int
    rss_with: int
    uss_before: int
    uss_with: int


@dataclass(frozen=True, slots=True)
class ActiveRound:
    """CPU microseconds per request of one connection, without and with idle ones beside it."""

    alone_us: float
    beside_us: float
    alone_p50_us: float
    beside_p50_us: float
    errors: int


class IdleConnections:
    """Connections that a process of their own holds open."""

    def __init__(self, process: subprocess.Popen[str], count: int) -> None:
        self._process = process
        self._count = count

    def answer(self) -> tuple[str, int]:
        assert self._process.stdout is not None
        word, _, number = self._process.stdout.readline().partition(" ")
        if not number:
            assert self._process.stderr is not None
            last = self._process.stderr.read().strip().splitlines()[-1:]
            raise CannotRun(f"cannot hold {self._count} connections: {last[0] if last else 'the client ended'}")
        return word, int(number)

    def require_alive(self) -> None:
        """Raise CannotRun unless all are still open."""
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), b"\n")  # no buffer, whose rest close() would try again
        except BrokenPipeError:
            pass  # it has ended: no answer will come
        _, alive = self.answer()
        if alive != self._count:
            raise CannotRun(f"only {alive} of {self._count} connections stayed open")


@contextmanager
def idle_connections(port: int, count: int, core: int) -> Iterator[IdleConnections]:
    """Hold connections open, each after one request.

    Raises:
        CannotRun: they could not all be opened.
    """
    process = subprocess.Popen(
        [sys.executable, str(IDLE), str(port), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    with process:  # closes its pipes, and waits
        try:
            connections = IdleConnections(process, count)
            connections.answer()
            yield connections
        finally:
            process.terminate()


def measure_memory(name: str, args: argparse.Namespace) -> MemoryRound:
    with HttpServer(name, args.server_core) as server:
        for _ in range(FIRST_REQUESTS):
            server.check()
        before = server.settled_memory()
        with idle_connections(server.port, args.connections, args.load_core) as connections:
            after = server.settled_memory()
            connections.require_alive()
    return MemoryRound(args.connections, before.rss, after.rss, before.uss, after.uss)


def measure_active(name: str, args: argparse.Namespace) -> ActiveRound:
    figures = []
    errors = 0

    def load(server: HttpServer) -> None:
        nonlocal errors
        before = server.cpu_seconds()
        result = run_wrk(server.port, connections=1, depth=1, seconds=args.seconds, core=args.load_core)
        errors += result.errors
        figures.append(((server.cpu_seconds() - before) / result.requests * 1e6, result.p50_us))

    with HttpServer(name, args.server_core) as server:
        if args.warm_up:
            run_wrk(server.port, connections=1, depth=1, seconds=args.warm_up, core=args.load_core)
        load(server)
        with idle_connections(server.port, args.idle, args.load_core) as connections:
            server.settled_memory()  # what came with the connections is done
            load(server)
            connections.require_alive()
            server.check()
    (alone, alone_p50), (beside, beside_p50) = figures
    return ActiveRound(alone, beside, alone_p50, beside_p50, errors)


def print_memory(rows: dict[str, Row[MemoryRound]], args: argparse.Namespace) -> None:
    print(f"\nmemory of {args.connections} idle connections; {args.rounds} round{'s' * (args.rounds > 1)}")
    columns = ("before MiB", "with MiB", "RSS bytes/conn", "USS bytes/conn")
    print(f"{'server':30}" + "".join(f" {column:>14}" for column in columns))
    for name, row in rows.items():
        before = row.median(lambda r: r.rss_before) / 2**20
        total = row.median(lambda r: r.rss_with) / 2**20
        rss = row.median(lambda r: (r.rss_with - r.rss_before) / r.connections)
        uss = row.median(lambda r: (r.uss_with - r.uss_before) / r.connections)
        print(f"{name:30} {before:14.1f} {total:14.1f} {rss:14.0f} {uss:14.0f}{row.note()}")


def print_active(rows: dict[str, Row[ActiveRound]], args: argparse.Namespace) -> None:
    rounds = f"{args.rounds} round{'s' * (args.rounds > 1)} of {args.seconds} s"
    print(f"\none active connection, alone and beside {args.idle} idle ones; {rounds}")
    columns = ("CPU us alone", "CPU us beside", "ratio", "p50 us alone", "p50 us beside")
    print(f"{'server':30}" + "".join(f" {column:>13}" for column in columns))
    for name, row in rows.items():
        # The ratio is of pairs from one process each: that survives a machine that changes its speed.
        figures = (
            f"{row.median(lambda r: r.alone_us):13.1f}",
            f"{row.median(lambda r: r.beside_us):13.1f}",
            f"{row.median(lambda r: r.beside_us / r.alone_us):13.2f}",
            f"{row.median(lambda r: r.alone_p50_us):13.1f}",
            f"{row.median(lambda r: r.beside_p50_us):13.1f}",
        )
        print(" ".join([f"{name:30}", *figures]) + row.note())


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__, rounds=3, seconds=3, warm_up=1)
    parser.add_argument("--memory", action="store_true", help="only the memory")
    parser.add_argument("--active", action="store_true", help="only the active connection")
    parser.add_argument("--connections", type=int, default=10_000, help="of the memory's table (default: 10000)")
    parser.add_argument("--idle", type=int, default=5_000, help="beside the active one (default: 5000)")
    args = parse_options(parser)
    if min(args.connections, args.idle) < 1:
        parser.error("--connections and --idle are at least 1")
    if not args.memory and not args.active:
        args.memory = args.active = True
    return args


def main() -> None:
    args = parse_arguments()
    if args.active:
        require_wrk()
    servers = chosen(SERVERS, args.only, DEFAULT_SERVERS)
    raw = {}
    if args.memory:
        memory = run_rounds(partial(measure_memory, args=args), servers, args.rounds)
        raw["memory"] = report(memory, partial(print_memory, args=args), as_json=args.json)
    if args.active:
        active = run_rounds(partial(measure_active, args=args), servers, args.rounds)
        raw["active"] = report(active, partial(print_active, args=args), as_json=args.json)
    finish(raw, args)


if __name__ == "__main__":
    main()
