"""CPU time of one JSON-RPC call, without a network: ``Rpc.process`` beside cymongoose's and jsonrpcserver's.

    python benchmarks/rpc.py [--rounds 5] [--calls 20000]

Peers that are not installed are left out. Each runs in a process of its own; the figure is the best of the rounds, in
microseconds of CPU time per frame (a batch is one frame).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

FRAMES = {
    "sum of three, 2.0": '{"jsonrpc":"2.0","id":1,"method":"sum","params":[1,2,3]}',
    "sum of three, Mongoose": '{"id":1,"method":"sum","params":[1,2,3]}',
    "notification": '{"jsonrpc":"2.0","method":"sum","params":[1,2,3]}',
    "by a pattern": '{"jsonrpc":"2.0","id":1,"method":"led.7.on","params":[]}',
    "no such method": '{"jsonrpc":"2.0","id":1,"method":"nope"}',
    "10 KB of parameters": json.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": "length", "params": [[{"n": n, "s": "x" * 20} for n in range(250)]]}
    ),
    "batch of ten": "[" + ",".join(['{"jsonrpc":"2.0","id":1,"method":"sum","params":[1,2,3]}'] * 10) + "]",
}

Process = Callable[[str], object]


def asyncmg_methods() -> Process:
    """With functions that get the parameters."""
    from asyncmg import Rpc

    rpc = Rpc()
    rpc.method("sum")(lambda *numbers: sum(numbers))
    rpc.method("length")(len)
    rpc.add("led.*.*", lambda req: req.captures)
    return rpc.process


def _in_mongooses_way(rpc: object) -> Process:
    def add(req: object) -> None:
        params = json.loads(req.frame)["params"]  # type: ignore[attr-defined]
        req.ok(json.dumps(sum(params)))  # type: ignore[attr-defined]

    def length(req: object) -> None:
        req.ok(json.dumps(len(json.loads(req.frame)["params"][0])))  # type: ignore[attr-defined]

    rpc.add("sum", add)  # type: ignore[attr-defined]
    rpc.add("length", length)  # type: ignore[attr-defined]
    rpc.add("led.*.*", lambda req: req.ok('["7","on"]'))  # type: ignore[attr-defined]
    return rpc.process  # type: ignore[attr-defined, no-any-return]


def asyncmg_requests() -> Process:
    """With handlers word for word those for cymongoose, which parse the frame themselves."""
    from asyncmg import Rpc

    return _in_mongooses_way(Rpc())


def cymongoose() -> Process:
    """The same handlers."""
    from cymongoose import Rpc

    return _in_mongooses_way(Rpc())


def jsonrpcserver() -> Process:
    """Its own way: functions that return Success; no patterns, no frames of Mongoose."""
    from jsonrpcserver import Success, dispatch

    methods = {
        "sum": lambda *numbers: Success(sum(numbers)),
        "length": lambda items: Success(len(items)),
        "led.7.on": lambda: Success(["7", "on"]),
    }
    return lambda frame: dispatch(frame, methods=methods)


CONTENDERS = {"asyncmg": asyncmg_methods, "asyncmg (req)": asyncmg_requests, "cymongoose": cymongoose} | {
    "jsonrpcserver": jsonrpcserver
}


def measure(name: str, rounds: int, calls: int) -> dict[str, float]:
    """Return microseconds per frame, by the kind of frame."""
    process = CONTENDERS[name]()
    figures = {}
    for kind, frame in FRAMES.items():
        if name == "cymongoose" and frame.startswith("["):
            continue  # it refuses batches
        if name == "jsonrpcserver" and "Mongoose" in kind:
            continue
        count = max(1, calls // (1 + len(frame) // 100))
        best = float("inf")
        for _ in range(rounds):
            began = time.process_time()
            for _ in range(count):
                process(frame)
            best = min(best, (time.process_time() - began) / count)
        figures[kind] = best * 1e6
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=20_000, help="per round, fewer of long frames")
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.rounds, options.calls)))
        return
    results: dict[str, dict[str, float]] = {}
    for name in CONTENDERS:
        command = [sys.executable, __file__, "--one", name, "--rounds", str(options.rounds)]
        done = subprocess.run([*command, "--calls", str(options.calls)], capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name} is left out: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        else:
            results[name] = json.loads(done.stdout)
    print("us of CPU per frame".ljust(24) + "".join(name.rjust(16) for name in results))
    for kind in FRAMES:
        cells = [f"{figures[kind]:.2f}" if kind in figures else "-" for figures in results.values()]
        print(kind.ljust(24) + "".join(cell.rjust(16) for cell in cells))


if __name__ == "__main__":
    main()
