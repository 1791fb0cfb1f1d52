"""What idle MQTT clients cost a broker: memory of each, and CPU time of a keep-alive ping.

    make bench        # or: .venv/bin/python benchmarks/mqtt_idle.py --clients 1000 --only "asyncmg,mosquitto"

N clients connect, each subscribes to a topic of its own, then does nothing but send its pings. Memory: how much the
processes of the broker have grown by after some of these pings. RSS is what is resident, USS what is resident and
shared with nobody; the kernel's share of a connection is not in it, and is the same for all. CPU: that of the broker in
``--seconds``, by the pings that it answered in them.

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

from loads.mqtt_load import compiled, idle_load
from servers.mqtt_peers import SERVERS
from servers.mqtt_running import MqttServer, prepare
from servers.rounds import Row, chosen, report, run_rounds
from servers.running import CannotRun

FIRST_CHECKS = 50  # so that what a broker makes once, at its first connections, is not counted
LONGEST = 120.0  # to connect all clients and let the memory settle, beside --seconds


@dataclass(frozen=True, slots=True)
class Round:
    """Bytes before and with the clients; pings in so many seconds, and the broker's CPU time in them."""

    clients: int
    rss_before: int
    rss_with: int
    uss_before: int
    uss_with: int
    pings: int
    seconds: float
    cpu_seconds: float


def measure(name: str, args: argparse.Namespace) -> Round:
    with MqttServer(name, args.server_core) as server:
        for _ in range(FIRST_CHECKS):
            server.check()
        before = server.settled_memory()
        with idle_load(
            server.port,
            server.pids(),
            args.clients,
            args.load_core,
            LONGEST + 2 * args.seconds,
            version=args.version,
            ping=args.ping_interval,
        ) as clients:
            server.settled_memory()  # what came with the clients is done
            clients.since()
            time.sleep(args.seconds)
            result = clients.since()
            after = server.memory()
        if not result.pings:
            raise CannotRun(f"answered no ping in {args.seconds:g} s")
    return Round(
        args.clients, before.rss, after.rss, before.uss, after.uss, result.pings, result.seconds, result.server_cpu
    )


def print_table(rows: dict[str, Row[Round]], args: argparse.Namespace) -> None:
    rounds = f"{args.rounds} round{'s' * (args.rounds > 1)} of {args.seconds:g} s"
    print(f"\n{args.clients} idle clients, a ping of each every {args.ping_interval:g} s; {rounds}")
    columns = ("before MiB", "with MiB", "RSS B/client", "USS B/client", "CPU us/ping", "pings/s")
    print(f"{'broker':30}" + "".join(f" {column:>14}" for column in columns))
    for name, row in rows.items():
        figures = (
            f"{row.median(lambda r: r.rss_before) / 2**20:14.1f}",
            f"{row.median(lambda r: r.rss_with) / 2**20:14.1f}",
            f"{row.median(lambda r: (r.rss_with - r.rss_before) / r.clients):14.0f}",
            f"{row.median(lambda r: (r.uss_with - r.uss_before) / r.clients):14.0f}",
            f"{row.median(lambda r: r.cpu_seconds / r.pings) * 1e6:14.1f}",
            f"{row.median(lambda r: r.pings / r.seconds):14.0f}",
        )
        print(" ".join([f"{name:30}", *figures]) + row.note())


def parse_arguments() -> argparse.Namespace:
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--ping-interval", type=float, default=5.0, help="seconds between pings (default: 5)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="in which pings are counted (default: 20)")
    parser.add_argument("--server-core", type=int, default=cores[0])
    parser.add_argument("--load-core", type=int, default=cores[-1])
    parser.add_argument("--version", type=int, choices=(4, 5), default=4, help="4: MQTT 3.1.1 (default); 5: 5.0")
    parser.add_argument("--only", help="brokers whose name contains one of these strings, separated by commas")
    parser.add_argument("--json", action="store_true", help="print the raw rounds instead of tables")
    args = parser.parse_args()
    if min(args.rounds, args.clients) < 1 or args.ping_interval <= 0:
        parser.error("--rounds and --clients are at least 1, --ping-interval is above 0")
    if args.seconds < 2 * args.ping_interval:
        parser.error("--seconds has to hold at least two of --ping-interval")
    return args


def main() -> None:
    args = parse_arguments()
    compiled("mqtt_load")
    servers = chosen(SERVERS, args.only)
    if args.version == 5:
        servers = [name for name in servers if name not in ("aedes", "amqtt")]  # they have 3.1.1 only
    for name in servers:
        prepare(name)
    measured = run_rounds(partial(measure, args=args), servers, args.rounds)
    raw = report(measured, partial(print_table, args=args), as_json=args.json)
    if args.json:
        print(json.dumps(raw))
    if not raw:
        sys.exit("no server ran")


if __name__ == "__main__":
    main()
