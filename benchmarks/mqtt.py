"""MQTT brokers side by side: CPU microseconds per delivery, deliveries per second, latency.

    make bench        # or: .venv/bin/python benchmarks/mqtt.py --workload "*-qos1-64b" --only "asyncmg,mosquitto"

Each broker is pinned to one core and the load (``loads/mqtt_load.c``) to another. Rounds are interleaved: every broker
once, then again, so that a machine that changes its speed changes it for all. The tables show medians of the rounds.
CPU time is that of all processes of the broker, user and system, by messages that subscribers have received; the ratios
are of CPU time: below 1.00 is cheaper than the peer at the column's head. ``broker %`` and ``load %`` say how busy the
two cores were with it. Latency is from a message's sending until the last of its subscribers had it: with ``--window``
messages on their way.

Every delivery is looked at, and none may be missing: a broker that loses one has that said at the end of its row. The
clients are measured by ``mqtt_clients.py``, memory by ``mqtt_idle.py``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from loads.mqtt_load import compiled, run_load
from servers.mqtt_peers import SERVERS
from servers.mqtt_running import MqttServer, prepare
from servers.options import add_workloads, make_parser, parse_options
from servers.rounds import Row, chosen, head_of_ratios, ratios, run_workloads

# Ratios are against these, where they ran.
REFERENCES = {"mosquitto": "mosquitto", "aedes": "aedes", "amqtt": "amqtt"}
BUSY = 0.9  # of the time
SHARED = 0.1
QUICK = {"rounds": 1, "seconds": 0.5, "warm_up": 0.1}


@dataclass(frozen=True, slots=True)
class Workload:
    publishers: int
    subscribers: int
    qos: int
    size: int  # bytes of a payload

    def __str__(self) -> str:
        return f"{self.publishers} to {self.subscribers}, QoS {self.qos}, {self.size} bytes"


WORKLOADS = {
    f"{publishers}-{subscribers}-qos{qos}-{label}": Workload(publishers, subscribers, qos, size)
    for label, size in (("64b", 64), ("4k", 4096))
    for publishers, subscribers in ((1, 1), (10, 10), (1, 100))
    for qos in (0, 1, 2)
}


@dataclass(frozen=True, slots=True)
class Round:
    """One broker under one workload, once. Shares are of the time; delayed is who had to wait for its core."""

    cpu_us: float  # per delivery
    load_us: float
    rate: float  # deliveries per second
    p50_us: float
    p99_us: float
    broker_share: float
    broker_delayed: float
    load_share: float
    load_delayed: float
    lost: int
    errors: int


def measure(name: str, workload: Workload, args: argparse.Namespace) -> Round:
    """Start a broker, check it, load it, check it again.

    Raises:
        CannotRun: it does not start, what it delivers before or after the load is not what it should be, or the load
            got nothing.
    """
    with MqttServer(name, args.server_core) as server:
        result = run_load(
            server.port,
            server.pids(),
            publishers=workload.publishers,
            subscribers=workload.subscribers,
            qos=workload.qos,
            size=workload.size,
            seconds=args.seconds,
            warm_up=args.warm_up,
            core=args.load_core,
            window=args.window,
            version=args.version,
        )
        server.check()
    return Round(
        cpu_us=result.server_cpu / result.deliveries * 1e6,
        load_us=result.load_cpu / result.deliveries * 1e6,
        rate=result.deliveries / result.seconds,
        p50_us=result.p50_us,
        p99_us=result.p99_us,
        broker_share=result.server_cpu / result.seconds,
        broker_delayed=result.server_delayed / result.seconds,
        load_share=result.load_cpu / result.seconds,
        load_delayed=result.load_delayed / result.seconds,
        lost=result.lost,
        errors=result.errors,
    )


def bottleneck(row: Row[Round]) -> str:
    """Return what kept the broker from being busy, for the end of its row; empty when nothing did."""
    broker = row.median(lambda r: r.broker_share + r.broker_delayed)
    load = row.median(lambda r: r.load_share + r.load_delayed)
    if broker < BUSY and load > max(broker, BUSY):
        return "  THE LOAD WAS THE BOTTLENECK"
    if row.median(lambda r: max(r.broker_delayed, r.load_delayed)) > SHARED:
        return "  others used the cores"
    return "  neither was busy" if broker < BUSY else ""


def print_table(rows: dict[str, Row[Round]], name: str, args: argparse.Namespace) -> None:
    rounds = f"{args.rounds} round{'s' * (args.rounds > 1)} of {args.seconds:g} s"
    version = "5.0" if args.version == 5 else "3.1.1"
    print(f"\n{name}: {WORKLOADS[name]}, MQTT {version}, {args.window} on their way; {rounds}")
    header = f"{'broker':30} {'CPU us/msg':>10} {'msg/s':>8} {'p50 us':>8} {'p99 us':>8} {'broker %':>8} {'load %':>6}"
    print(header + head_of_ratios(REFERENCES))
    cost = {broker: row.median(lambda r: r.cpu_us) for broker, row in rows.items()}
    for broker, row in rows.items():
        line = f"{broker:30} {cost[broker]:10.2f} {row.median(lambda r: r.rate):8.0f}"
        line += f" {row.median(lambda r: r.p50_us):8.1f} {row.median(lambda r: r.p99_us):8.1f}"
        line += f" {row.median(lambda r: r.broker_share) * 100:8.0f} {row.median(lambda r: r.load_share) * 100:6.0f}"
        lost = sum(r.lost for r in row.rounds)
        print(line + ratios(cost, broker, REFERENCES) + bottleneck(row) + f"  {lost} LOST" * bool(lost) + row.note())


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__, rounds=3, seconds=2.0, warm_up=0.5)
    add_workloads(parser, WORKLOADS)
    parser.add_argument("--window", type=int, default=20, help="messages that a publisher is ahead (default: 20)")
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
    compiled("mqtt_load")
    servers = chosen(SERVERS, args.only)
    if args.version == 5:
        servers = [name for name in servers if name not in ("aedes", "amqtt")]  # they have 3.1.1 only
    for name in servers:
        prepare(name)
    run_workloads(args, WORKLOADS, lambda _: servers, measure, print_table)


if __name__ == "__main__":
    main()
