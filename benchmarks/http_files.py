"""Servers of files side by side: CPU microseconds per request of small files, per MiB of large ones and of uploads.

    make bench        # or: .venv/bin/python benchmarks/http_files.py --workload get-1k,put-64m --only "asyncmg,nginx"

Each server is pinned to one core and the load to another: wrk for small files, ``loads/transfers.py`` for large ones.
Files and what is uploaded are in memory (/dev/shm) where there is room: the disk is not measured. Rounds are
interleaved: every server once, then again, so that a machine that changes its speed changes it for all. The tables show
medians of the rounds. CPU time is that of all processes and threads of the server, user and system; the ratios are of
CPU time: below 1.00 is cheaper than the peer at the column's head. ``best nginx`` is the cheaper one of its two rows,
``best Python`` the cheapest of uvicorn with Starlette and aiohttp. ``server %`` and ``load %`` say how busy the two
cores were with it. ``peak MiB`` is what the server had resident at most. What it replies, and what it stores, is
checked before and after the load, to the last byte.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial

from loads.transfers import run_downloads, run_uploads
from loads.wrk import require_wrk, run_wrk
from servers.file_peers import SERVERS, Mode, all_names
from servers.file_running import SIZES, Files, FileServer, made_files
from servers.options import add_workloads, make_parser, parse_options
from servers.rounds import Row, chosen, head_of_ratios, ratios, run_workloads

# Ratios are against these, where they ran; of several, against the cheapest.
REFERENCES: dict[str, str | tuple[str, ...]] = {
    "best nginx": ("nginx", "nginx sendfile off"),
    "cymongoose": "cymongoose",
    "best Python": ("uvicorn starlette uvloop", "aiohttp uvloop", "aiohttp stdlib"),
}
LARGE = 1 << 20  # bytes; from there on the cost is per MiB
BUSY = 0.9  # of the time


@dataclass(frozen=True, slots=True)
class Workload:
    file: str
    connections: int
    mode: Mode = "files"

    @property
    def is_large(self) -> bool:
        return SIZES[self.file] >= LARGE

    @property
    def unit(self) -> str:
        return "MiB" if self.is_large else "req"

    def __str__(self) -> str:
        size = SIZES[self.file]
        shown = f"{size >> 20} MiB" if self.is_large else f"{size >> 10} KiB"
        kind = "upload" if self.mode == "upload" else "file"
        return f"{kind} of {shown}, {self.connections} connection{'s' * (self.connections > 1)}"


WORKLOADS = {
    "get-1k": Workload("1k.bin", 32),
    "get-100k": Workload("100k.bin", 32),
    "get-64m": Workload("64m.bin", 4),
    "put-64m": Workload("64m.bin", 1, "upload"),
}


@dataclass(frozen=True, slots=True)
class Round:
    """One server under one workload, once. Shares are of the time."""

    cpu_us: float  # per request, or per MiB
    rate: float  # requests, or MiB, per second
    server_share: float
    load_share: float
    peak_rss: int  # bytes
    errors: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load did: requests or MiB."""

    done: float
    seconds: float
    cpu_seconds: float
    errors: int = 0


def load(server: FileServer, workload: Workload, seconds: int, core: int) -> Loaded:
    """Load a server.

    Raises:
        CannotRun: a reply is not what it should be, or none comes.
    """
    if not workload.is_large:
        result = run_wrk(
            server.port, connections=workload.connections, depth=1, seconds=seconds, core=core, path=server.path
        )
        return Loaded(result.requests, result.seconds, result.cpu_seconds, result.errors)
    if workload.mode == "upload":
        file = server.files.folder / workload.file
        moved = run_uploads(server.port, path=server.path, file=file, seconds=seconds, core=core)
    else:
        moved = run_downloads(
            server.port,
            path=server.path,
            size=SIZES[workload.file],
            connections=workload.connections,
            seconds=seconds,
            core=core,
        )
    return Loaded(moved.bytes / 2**20, moved.seconds, moved.cpu_seconds)


def measure(name: str, workload: Workload, args: argparse.Namespace, files: Files) -> Round:
    """Start a server, check it, warm it up, load it, check it again.

    Raises:
        CannotRun: it does not start, a reply before or after the load is not what it should be, it has not stored what
            it was sent, or the load got no reply.
    """
    with FileServer(name, args.server_core, files, workload.file, workload.mode) as server:  # checks it
        if args.warm_up:
            load(server, workload, args.warm_up, args.load_core)
        before = server.cpu_seconds()
        loaded = load(server, workload, args.seconds, args.load_core)
        used = server.cpu_seconds() - before
        peak = server.peak_memory()
        if workload.mode == "upload":
            server.check_stored()
        server.check()
    return Round(
        cpu_us=used / loaded.done * 1e6,
        rate=loaded.done / loaded.seconds,
        server_share=used / loaded.seconds,
        load_share=loaded.cpu_seconds / loaded.seconds,
        peak_rss=peak,
        errors=loaded.errors,
    )


def bottleneck(row: Row[Round]) -> str:
    """Return what kept the server from being busy, for the end of its row; empty when it was busy."""
    server = row.median(lambda r: r.server_share)
    if server >= BUSY:
        return ""
    load_share = row.median(lambda r: r.load_share)
    return "  THE LOAD WAS THE BOTTLENECK" if load_share > BUSY else "  neither was busy"


def print_table(rows: dict[str, Row[Round]], name: str, args: argparse.Namespace) -> None:
    workload = WORKLOADS[name]
    print(f"\n{name}: {workload}; {args.rounds} round{'s' * (args.rounds > 1)} of {args.seconds} s")
    header = f"{'server':30} {'CPU us/' + workload.unit:>10} {workload.unit + '/s':>8}"
    print(header + f" {'server %':>8} {'load %':>6} {'peak MiB':>8}" + head_of_ratios(REFERENCES))
    cost = {server: row.median(lambda r: r.cpu_us) for server, row in rows.items()}
    for server, row in rows.items():
        line = f"{server:30} {cost[server]:10.2f} {row.median(lambda r: r.rate):8.0f}"
        line += f" {row.median(lambda r: r.server_share) * 100:8.0f} {row.median(lambda r: r.load_share) * 100:6.0f}"
        line += f" {row.median(lambda r: r.peak_rss) / 2**20:8.1f}"
        print(line + ratios(cost, server, REFERENCES) + bottleneck(row) + row.note())


def main() -> None:
    parser = make_parser(__doc__, rounds=5, seconds=3, warm_up=1)
    add_workloads(parser, WORKLOADS)
    args = parse_options(parser, WORKLOADS)
    if not all(WORKLOADS[name].is_large for name in args.workload):
        require_wrk()
    servers = chosen(all_names(), args.only)

    def able(workload: Workload) -> list[str]:
        return [server for server in SERVERS[workload.mode] if server in servers]

    with made_files() as files:
        run_workloads(args, WORKLOADS, able, partial(measure, files=files), print_table)


if __name__ == "__main__":
    main()
