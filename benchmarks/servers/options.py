"""The options that the programs share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from fnmatch import fnmatch


def make_parser(description: str | None, *, rounds: int, seconds: float, warm_up: float) -> argparse.ArgumentParser:
    """Return a parser with the options of rounds, cores, servers and output.

    Args:
        description: of the program, as it is to be shown.
        rounds: the default, as ``seconds`` of one and ``warm_up`` before it are. Whole seconds where ``seconds`` is an
            int: wrk knows no others.
    """
    cores = sorted(os.sched_getaffinity(0))
    number = int if isinstance(seconds, int) else float
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seconds", type=number, default=seconds, help=f"of one load (default: {seconds:g})")
    parser.add_argument("--warm-up", type=number, default=warm_up, help=f"seconds before it (default: {warm_up:g})")
    parser.add_argument("--server-core", type=int, default=cores[0])
    parser.add_argument("--load-core", type=int, default=cores[-1])
    parser.add_argument("--only", help="servers whose name contains one of these strings, separated by commas")
    parser.add_argument("--json", action="store_true", help="print the raw rounds instead of tables")
    return parser


def add_workloads(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """Add ``--workload``."""
    parser.add_argument("--workload", help=f"some of {','.join(names)}, or patterns with * (default: all)")


def parse_options(parser: argparse.ArgumentParser, workloads: Iterable[str] = ()) -> argparse.Namespace:
    """Parse and check what ``make_parser`` and ``add_workloads`` have added; ``args.workload`` is a list of names."""
    args = parser.parse_args()
    if args.rounds < 1 or args.seconds <= 0 or args.warm_up < 0:
        parser.error("--rounds is at least 1, --seconds above 0, --warm-up at least 0")
    names = list(workloads)
    if names:
        patterns = args.workload.split(",") if args.workload else ["*"]
        if unknown := [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in names)]:
            parser.error(f"no such workload: {', '.join(unknown)}; there are {', '.join(names)}")
        args.workload = [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]
    if args.server_core == args.load_core:
        print("server and load share a core: the rates say little", file=sys.stderr)
    return args
