"""Looking names up side by side: CPU microseconds per look-up.

    make bench        # or: .venv/bin/python benchmarks/dns.py --workload one

Each resolver is a process pinned to one core; a small name server in C, which answers anything with one address, to
another. CPU time is user and system, of all threads. ``one`` and ``many64`` look up another name each time, so that no
cache helps, one or 64 at once; ``cached`` the same name again and again. Rounds are interleaved, the tables show
medians; ratios below 1.00 are cheaper than the peer at the column's head.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.dns_peers import RESOLVERS
from servers.options import add_workloads, make_parser, parse_options
from servers.rounds import Row, chosen, head_of_ratios, ratios, run_workloads
from servers.running import HOST, START_TIMEOUT, CannotRun

SERVERS = Path(__file__).parent / "servers"
WORKLOADS = {"one": 1, "many64": 64, "cached": 0}  # look-ups under way at once
REFERENCES: dict[str, str | tuple[str, ...]] = {
    "aiodns": ("aiodns stdlib", "aiodns uvloop"),
    "dnspython": ("dnspython stdlib", "dnspython uvloop"),
}
QUICK = {"rounds": 1, "seconds": 0.05}
_QUERY = b"\0\1\1\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1"


@dataclass(frozen=True, slots=True)
class Round:
    """One resolver, once."""

    cpu_us: float  # per look-up
    rate: float  # look-ups per second, the start of the process included


@contextmanager
def responder(core: int) -> Iterator[int]:
    """Compile and run the name server; yield its port."""
    compiler = shutil.which("cc")
    if compiler is None:
        sys.exit("not installed: cc")
    with tempfile.TemporaryDirectory(prefix="asyncmg-bench-") as folder:
        program = f"{folder}/dns_responder"
        subprocess.run([compiler, "-O2", "-o", program, str(SERVERS / "dns_responder.c")], check=True)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((HOST, 0))
            port = int(sock.getsockname()[1])
        process = subprocess.Popen([program, str(port)], preexec_fn=lambda: os.sched_setaffinity(0, {core}))
        try:
            _wait_until_up(port)
            yield port
        finally:
            process.kill()
            process.wait()


def _wait_until_up(port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.1)
        sock.connect((HOST, port))
        while time.monotonic() < deadline:
            try:
                sock.send(_QUERY)
                if sock.recv(512)[:2] == _QUERY[:2]:
                    return
            except OSError:
                time.sleep(0.02)
    sys.exit("the name server does not answer")


def measure(name: str, workload: int, args: argparse.Namespace, port: int) -> Round:
    count = max(round(args.seconds * (3000 if workload else 20_000)), 100)
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(SERVERS / "dns_peers.py"), name, str(port), str(count), str(workload)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=lambda: os.sched_setaffinity(0, {args.server_core}),
    )
    if done.returncode:
        raise CannotRun((done.stderr.strip().splitlines() or ["it said nothing"])[-1])
    return Round(float(done.stdout) / count * 1e6, count / (time.monotonic() - begun))


def print_table(rows: dict[str, Row[Round]], name: str, args: argparse.Namespace) -> None:
    what = {0: "one name, from the cache", 1: "one look-up at once"}.get(WORKLOADS[name], "64 look-ups at once")
    print(f"\n{name}: {what}; {args.rounds} rounds")
    print(f"{'':30} {'CPU us/look-up':>14} {'look-ups/s':>10}" + head_of_ratios(REFERENCES))
    cost = {peer: row.median(lambda r: r.cpu_us) for peer, row in rows.items()}
    for peer, row in rows.items():
        line = f"{peer:30} {cost[peer]:14.2f} {row.median(lambda r: r.rate):10.0f}"
        print(line + ratios(cost, peer, REFERENCES) + row.note())


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__, rounds=3, seconds=2.0, warm_up=0.0)
    add_workloads(parser, WORKLOADS)
    parser.add_argument("--quick", action="store_true", help="one short round: for a trial")
    args = parse_options(parser, WORKLOADS)
    if args.quick:
        vars(args).update(QUICK)
    return args


def main() -> None:
    args = parse_arguments()
    with responder(args.load_core) as port:

        def measure_one(name: str, workload: int, args: argparse.Namespace) -> Round:
            return measure(name, workload, args, port)

        run_workloads(args, WORKLOADS, lambda _: chosen(RESOLVERS, args.only), measure_one, print_table)


if __name__ == "__main__":
    main()
