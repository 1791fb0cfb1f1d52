"""The utility functions side by side: CPU microseconds per call of asyncmg, cymongoose, and the obvious standard way.

    make bench        # or: .venv/bin/python benchmarks/utilities.py --workload "json-*" --only "asyncmg,standard"

No network, one process, pinned to a core. A round calls one function of one peer for ``--seconds``; rounds are
interleaved, so that a machine that changes its speed changes it for all. The tables show medians of the rounds; what a
loop with an empty function costs is subtracted. The results of all peers are compared before anything is measured.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import importlib
import json
import os
import re
import secrets
import string
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from servers.options import add_workloads, make_parser, parse_options
from servers.rounds import Row, chosen, head_of_ratios, ratios, run_workloads
from servers.running import CannotRun

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import asyncmg
from asyncmg import hashing, json_path, matching, queries, url_parts

REFERENCES: dict[str, str | tuple[str, ...]] = {"cymongoose": "cymongoose", "standard": "standard"}
NAMES = ("asyncmg", "cymongoose", "standard")

SMALL = '{"id": 1, "method": "sum", "params": [1, 2], "user": {"name": "Alice", "age": 30}}'
LARGE = json.dumps(
    {"items": [{"id": number, "name": f"n{number}", "tags": ["a", "b"]} for number in range(200)], "last": 1}
)
URL = "https://user:secret@example.com:8443/path/to?query=1"
QUERY = "first=1&second=two&third=%33&name=value&last="
KIB = bytes(range(256)) * 4


@dataclass(frozen=True, slots=True)
class Workload:
    """One call: the name of a function of asyncmg and of cymongoose, its arguments, and how one does without them."""

    module: Any
    function: str
    arguments: tuple[Any, ...]
    standard: Callable[[], object] | None
    is_random: bool = False  # results differ

    def __str__(self) -> str:
        shown = ", ".join(repr(item) if len(repr(item)) < 30 else f"{len(item)} bytes" for item in self.arguments)
        return f"{self.function}({shown})"


_EXPRESSION = re.compile("/api/([^/]*)/posts/(.*)", re.DOTALL)
_ALPHABET = string.ascii_letters + string.digits


def _groups() -> tuple[bool, list[str]]:
    found = _EXPRESSION.fullmatch("/api/users/posts/7/x")
    return found is not None, list(found.groups()) if found else []


WORKLOADS = {
    "json-small": Workload(
        json_path, "json_get_str", (SMALL, "$.user.name"), lambda: json.loads(SMALL)["user"]["name"]
    ),
    "json-first": Workload(
        json_path, "json_get_long", (LARGE, "$.items[3].id"), lambda: json.loads(LARGE)["items"][3]["id"]
    ),
    "json-last": Workload(json_path, "json_get_long", (LARGE, "$.last"), lambda: json.loads(LARGE)["last"]),
    "url-host": Workload(url_parts, "url_host", (URL,), lambda: urlsplit(URL).hostname),
    "url-port": Workload(url_parts, "url_port", (URL,), lambda: urlsplit(URL).port),
    "url-encode": Workload(url_parts, "url_encode", ("a b/\xe4?",), lambda: quote("a b/\xe4?", safe="").lower()),
    "http-var": Workload(queries, "http_var", (QUERY, "name"), lambda: dict(parse_qsl(QUERY))["name"]),
    "match": Workload(matching, "match", ("/api/users/posts/7/x", "/api/*/posts/#"), _groups),
    "md5-1k": Workload(hashing, "md5", (KIB,), lambda: hashlib.md5(KIB).digest()),
    "sha256-1k": Workload(hashing, "sha256", (KIB,), lambda: hashlib.sha256(KIB).digest()),
    "hmac-1k": Workload(hashing, "hmac_sha256", (b"key", KIB), lambda: hmac.new(b"key", KIB, "sha256").digest()),
    "base64-1k": Workload(hashing, "base64_encode", (KIB,), lambda: base64.b64encode(KIB).decode()),
    "crc32-1k": Workload(hashing, "crc32", (KIB,), lambda: zlib.crc32(KIB)),
    "random-str": Workload(
        hashing, "random_str", (20,), lambda: "".join(secrets.choice(_ALPHABET) for _ in range(20)), is_random=True
    ),
}


@dataclass(frozen=True, slots=True)
class Round:
    cpu_us: float  # per call


def call_of(name: str, workload: Workload) -> Callable[[], object]:
    """Return the call, whose result has been compared with ours.

    Raises:
        CannotRun: cymongoose is not installed, or the result is another.
    """
    ours = partial(getattr(workload.module, workload.function), *workload.arguments)
    if name == "asyncmg":
        return ours
    if name == "standard":
        if workload.standard is None:
            raise CannotRun("cannot: there is no such function")
        call = workload.standard
    else:
        try:
            peer = importlib.import_module("cymongoose")
        except ImportError:
            raise CannotRun("not installed") from None
        call = partial(getattr(peer, workload.function), *workload.arguments)
    theirs = call()
    if theirs != ours() and not workload.is_random:
        raise CannotRun(f"another result: {theirs!r:.60}")
    return call


def cpu_us(call: Callable[[], object], seconds: float) -> float:
    """Return what a call takes, the loop included."""
    batch, done = 100, 0
    begin = now = time.process_time()
    while now - begin < seconds:
        for _ in range(batch):
            call()
        done += batch
        now = time.process_time()
    return (now - begin) / done * 1e6


def measure(name: str, workload: Workload, args: argparse.Namespace) -> Round:
    call = call_of(name, workload)
    if args.warm_up:
        cpu_us(call, args.warm_up)
    return Round(max(cpu_us(call, args.seconds) - cpu_us(lambda: None, min(args.seconds, 0.05)), 0.001))


def print_table(rows: dict[str, Row[Round]], name: str, args: argparse.Namespace) -> None:
    print(f"\n{name}: {WORKLOADS[name]}; {args.rounds} round{'s' * (args.rounds > 1)} of {args.seconds:g} s")
    print(f"{'':30} {'CPU us/call':>11}" + head_of_ratios(REFERENCES))
    cost = {peer: row.median(lambda r: r.cpu_us) for peer, row in rows.items()}
    for peer, row in rows.items():
        print(f"{peer:30} {cost[peer]:11.2f}" + ratios(cost, peer, REFERENCES) + row.note())


def main() -> None:
    parser = make_parser(__doc__, rounds=5, seconds=0.2, warm_up=0.05)
    add_workloads(parser, WORKLOADS)
    args = parse_options(parser, WORKLOADS)
    os.sched_setaffinity(0, {args.server_core})
    print(f"asyncmg {asyncmg.__version__}, Python {sys.version.split()[0]}", file=sys.stderr)
    names = chosen(NAMES, args.only)
    run_workloads(args, WORKLOADS, lambda workload: names, measure, print_table)


if __name__ == "__main__":
    main()
