"""MQTT clients side by side: CPU microseconds per message that they publish or receive.

    make bench        # or: .venv/bin/python benchmarks/mqtt_clients.py --workload "publish-*" --only "asyncmg,gmqtt"

Each client is a process that is pinned to one core; what it talks to (``loads/mqtt_stub.c``, a broker that answers and
nothing else) to another, so that the client is what is busy. CPU time is that of the client, user and system. Messages
that are received count when the application has had them. Rounds are interleaved, the tables show medians; the ratios
are of CPU time: below 1.00 is cheaper than the peer at the column's head.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loads.mqtt_load import compiled, running_stub
from servers.mqtt_client_peers import CLIENTS
from servers.mqtt_running import prepare
from servers.options import add_workloads, make_parser, parse_options
from servers.rounds import Row, chosen, head_of_ratios, ratios, run_workloads
from servers.running import CannotRun

PROGRAM = Path(__file__).parent / "servers" / "mqtt_client_peers.py"
REFERENCES: dict[str, str | tuple[str, ...]] = {
    "gmqtt": ("gmqtt uvloop", "gmqtt stdlib"),
    "paho": "paho",
    "aiomqtt": "aiomqtt uvloop",
    "amqtt": "amqtt",
}
BUSY = 0.9  # of the time
SHARED = 0.1
QUICK = {"rounds": 1, "seconds": 0.5, "warm_up": 0.1}


@dataclass(frozen=True, slots=True)
class Workload:
    mode: Literal["publish", "each", "receive"]
    qos: int
    size: int  # bytes of a payload

    def __str__(self) -> str:
        what = {"publish": "publish", "each": "publish, each waited for,", "receive": "receive"}
        return f"{what[self.mode]} at QoS {self.qos}, {self.size} bytes"


WORKLOADS = {
    f"{mode}-qos{qos}-{label}": Workload(mode, qos, size)
    for label, size in (("64b", 64), ("4k", 4096))
    for mode in ("publish", "each", "receive")
    for qos in (0, 1, 2)
    if mode != "each" or qos  # at QoS 0 there is nothing to wait for
}


@dataclass(frozen=True, slots=True)
class Round:
    """One client under one workload, once. Shares are of the time; delayed is who had to wait for its core."""

    cpu_us: float  # per message
    rate: float  # messages per second
    client_share: float
    client_delayed: float
    load_share: float
    load_delayed: float


@contextmanager
def running_client(
    name: str, port: int, workload: Workload, args: argparse.Namespace
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a client, end it.

    Raises:
        CannotRun: something failed, and the client has ended: with the last line of what it said.
    """
    options = [workload.mode, args.version, workload.qos, workload.size, args.window]
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), name, str(port), *map(str, options)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            preexec_fn=lambda: os.sched_setaffinity(0, {args.server_core}),
        )
        try:
            yield process
        except CannotRun:
            stderr.seek(0)
            lines = [line.strip() for line in stderr.read().decode(errors="replace").splitlines() if line.strip()]
            if lines and process.poll() is not None:
                raise CannotRun(lines[-1]) from None
            raise
        finally:
            process.send_signal(signal.SIGKILL)  # it would go on for ever
            process.wait()


def measure(name: str, workload: Workload, args: argparse.Namespace) -> Round:
    """Start a client and what it talks to, and measure.

    Raises:
        CannotRun: the client does not start, sends something that is wrong, or no message comes.
    """
    stub_mode: Literal["publish", "receive"] = "receive" if workload.mode == "receive" else "publish"
    with running_stub(
        stub_mode,
        qos=workload.qos,
        size=workload.size,
        seconds=args.seconds,
        warm_up=args.warm_up,
        core=args.load_core,
        window=args.window,
    ) as stub:
        with running_client(name, stub.port, workload, args) as process:
            result = stub.measure([process.pid])
            if result.errors:
                raise CannotRun(result.error)
    return Round(
        cpu_us=result.server_cpu / result.messages * 1e6,
        rate=result.messages / result.seconds,
        client_share=result.server_cpu / result.seconds,
        client_delayed=result.server_delayed / result.seconds,
        load_share=result.load_cpu / result.seconds,
        load_delayed=result.load_delayed / result.seconds,
    )


def bottleneck(row: Row[Round], workload: Workload) -> str:
    """Return what kept the client from being busy, for the end of its row; empty when nothing did."""
    client = row.median(lambda r: r.client_share + r.client_delayed)
    load = row.median(lambda r: r.load_share + r.load_delayed)
    if client < BUSY and load > max(client, BUSY):
        return "  THE LOAD WAS THE BOTTLENECK"
    if row.median(lambda r: max(r.client_delayed, r.load_delayed)) > SHARED:
        return "  others used the cores"
    return "  neither was busy" if client < BUSY and workload.mode != "each" else ""


def print_table(rows: dict[str, Row[Round]], name: str, args: argparse.Namespace) -> None:
    rounds = f"{args.rounds} round{'s' * (args.rounds > 1)} of {args.seconds:g} s"
    version = "5.0" if args.version == 5 else "3.1.1"
    print(f"\n{name}: {WORKLOADS[name]}, MQTT {version}, {args.window} on their way; {rounds}")
    header = f"{'client':30} {'CPU us/msg':>10} {'msg/s':>8} {'client %':>8} {'load %':>6}"
    print(header + head_of_ratios(REFERENCES))
    cost = {client: row.median(lambda r: r.cpu_us) for client, row in rows.items()}
    for client, row in rows.items():
        line = f"{client:30} {cost[client]:10.2f} {row.median(lambda r: r.rate):8.0f}"
        line += f" {row.median(lambda r: r.client_share) * 100:8.0f} {row.median(lambda r: r.load_share) * 100:6.0f}"
        print(line + ratios(cost, client, REFERENCES) + bottleneck(row, WORKLOADS[name]) + row.note())


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__, rounds=3, seconds=2.0, warm_up=0.5)
    add_workloads(parser, WORKLOADS)
    parser.add_argument("--window", type=int, default=20, help="messages that are not acknowledged (default: 20)")
    parser.add_argument("--version", type=int, choices=(4, 5), default=4, help="4: MQTT 3.1.1 (default); 5: 5.0")
    parser.add_argument("--quick", action="store_true", help="one short round: for a trial")
    args = parse_options(parser, WORKLOADS)
    if not 1 <= args.window <= 60_000:
        parser.error("--window is from 1 to 60000")
    if args.quick:
        vars(args).update(QUICK)
    return args


def main() -> None:
    args = parse_arguments()
    compiled("mqtt_stub")
    clients = chosen(CLIENTS, args.only)
    if args.version == 5:
        clients = [name for name in clients if name != "amqtt"]  # it has 3.1.1 only
    for name in clients:
        prepare(name)
    run_workloads(args, WORKLOADS, lambda _: clients, measure, print_table)


if __name__ == "__main__":
    main()
