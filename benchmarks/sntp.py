"""SNTP side by side: CPU microseconds per request, of servers and of clients.

    make bench        # or: .venv/bin/python benchmarks/sntp.py --workload server

Each server, or client, is a process pinned to one core; what it talks to (a sender of requests, or our native server)
to another. CPU time is user and system. The sender keeps a window of requests on their way, and counts a reply only
when its originate timestamp is that of a request. Rounds are interleaved, the tables show medians; ratios below 1.00
are cheaper than the peer at the column's head.
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from servers.options import add_workloads, make_parser, parse_options
from servers.rounds import Row, chosen, head_of_ratios, ratios, run_workloads
from servers.running import HOST, START_TIMEOUT, CannotRun, RunningServer
from servers.sntp_peers import CLIENTS, SERVERS

PEERS = Path(__file__).parent / "servers" / "sntp_peers.py"
WORKLOADS = {"server": 32, "client": 1}  # requests on their way
REFERENCES: dict[str, dict[str, str | tuple[str, ...]]] = {
    "server": {"chronyd": "chronyd"},
    "client": {"ntplib": "ntplib"},
}
QUICK = {"rounds": 1, "seconds": 0.5, "warm_up": 0.1}
_HEAD = b"\x23" + bytes(39)


class SntpServer(RunningServer):
    """A server of ``sntp_peers.py``."""

    program = PEERS

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self._started().poll() is not None:
                raise CannotRun(self._last_words())
            try:
                load(self.port, window=1, seconds=0.05)
                return
            except CannotRun:
                time.sleep(0.02)
        raise CannotRun(f"did not answer within {START_TIMEOUT:g} s: {self._last_words()}")

    def check(self) -> None:
        load(self.port, window=1, seconds=0.05)


@dataclass(frozen=True, slots=True)
class Round:
    """One server or client, once."""

    cpu_us: float  # per request
    rate: float  # requests per second


def load(port: int, *, window: int, seconds: float) -> int:
    """Send requests, keep ``window`` of them on their way; return the number of valid replies.

    Raises:
        CannotRun: there are none, or one is not a reply to a request.
    """
    replies = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.5)
        sock.connect((HOST, port))
        number = 0
        end = time.monotonic() + seconds
        try:
            for _ in range(window):
                number += 1
                sock.send(_HEAD + struct.pack(">Q", number))
            while time.monotonic() < end:
                reply = sock.recv(100)
                if (
                    len(reply) != 48
                    or reply[0] & 7 != 4
                    or not reply[1]
                    or not 0 < int.from_bytes(reply[24:32]) <= number
                ):
                    raise CannotRun(f"no valid reply: {reply.hex()}")
                replies += 1
                number += 1
                sock.send(_HEAD + struct.pack(">Q", number))
        except OSError as exc:
            if not replies:
                raise CannotRun(f"no reply: {exc}") from exc
    if not replies:
        raise CannotRun("no reply")
    return replies


def measure_server(name: str, args: argparse.Namespace) -> Round:
    with SntpServer(name, args.server_core) as server:
        if args.warm_up:
            load(server.port, window=WORKLOADS["server"], seconds=args.warm_up)
        before, begun = server.cpu_seconds(), time.monotonic()
        replies = load(server.port, window=WORKLOADS["server"], seconds=args.seconds)
        return Round((server.cpu_seconds() - before) / replies * 1e6, replies / (time.monotonic() - begun))


def measure_client(name: str, args: argparse.Namespace) -> Round:
    count = max(round(args.seconds * 2000), 500)
    with SntpServer("asyncmg native stdlib", args.load_core) as server:
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, str(PEERS), name, str(server.port), str(count)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            preexec_fn=lambda: os.sched_setaffinity(0, {args.server_core}),
        )
        if done.returncode:
            raise CannotRun((done.stderr.strip().splitlines() or ["it said nothing"])[-1])
        return Round(float(done.stdout) / count * 1e6, count / (time.monotonic() - begun))


def measure(name: str, workload: int, args: argparse.Namespace) -> Round:
    os.sched_setaffinity(0, {args.load_core})
    return measure_server(name, args) if name in SERVERS else measure_client(name, args)


def print_table(rows: dict[str, Row[Round]], name: str, args: argparse.Namespace) -> None:
    print(f"\n{name}: {WORKLOADS[name]} requests on their way; {args.rounds} rounds of {args.seconds:g} s")
    print(f"{name:30} {'CPU us/request':>14} {'requests/s':>10}" + head_of_ratios(REFERENCES[name]))
    cost = {peer: row.median(lambda r: r.cpu_us) for peer, row in rows.items()}
    for peer, row in rows.items():
        line = f"{peer:30} {cost[peer]:14.2f} {row.median(lambda r: r.rate):10.0f}"
        print(line + ratios(cost, peer, REFERENCES[name]) + row.note())


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__, rounds=3, seconds=2.0, warm_up=0.5)
    add_workloads(parser, WORKLOADS)
    parser.add_argument("--quick", action="store_true", help="one short round: for a trial")
    args = parse_options(parser, WORKLOADS)
    if args.quick:
        vars(args).update(QUICK)
    return args


def main() -> None:
    args = parse_arguments()
    peers = {1: CLIENTS, WORKLOADS["server"]: SERVERS}
    run_workloads(args, WORKLOADS, lambda window: chosen(peers[window], args.only), measure, print_table)


if __name__ == "__main__":
    main()
