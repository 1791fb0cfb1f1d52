"""Interleaved rounds: every server once, then again, so that a machine that changes its speed changes it for all."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .running import CannotRun

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
W = TypeVar("W")


def chosen(servers: Iterable[str], only: str | None, default: list[str] | None = None) -> list[str]:
    """Return the names that contain one of these strings, which commas separate; without any, the default or all."""
    names = list(servers)
    if not only:
        return default or names
    wanted = [part.strip() for part in only.split(",") if part.strip()]
    found = [name for name in names if any(part in name for part in wanted)]
    if not found:
        sys.exit(f"no server has a name with {only!r}; there are: {', '.join(names)}")
    return found


@dataclass(slots=True)
class Row(Generic[T]):
    """The rounds of one server, and why others are missing."""

    rounds: list[T] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def median(self, figure: Callable[[T], float]) -> float:
        """Return the median of what ``figure`` makes of each round."""
        return statistics.median(figure(r) for r in self.rounds)

    def note(self) -> str:
        """Return what is wrong with the row, for its end; empty when nothing is."""
        errors = sum(getattr(r, "errors", 0) for r in self.rounds)
        notes = [f"{errors} ERRORS"] if errors else []
        notes += [f"A ROUND FAILED: {failure}" for failure in self.failures]
        return "".join(f"  {note}" for note in notes)


def run_rounds(measure: Callable[[str], T], servers: Iterable[str], rounds: int) -> dict[str, Row[T]]:
    """Measure all servers in each round. One that fails in its first is not tried again."""
    rows: dict[str, Row[T]] = {name: Row() for name in servers}
    for _ in range(rounds):
        for name, row in rows.items():
            if row.failures and not row.rounds:
                continue
            try:
                row.rounds.append(measure(name))
            except CannotRun as exc:
                row.failures.append(str(exc))
    return rows


def report(
    measured: dict[str, Row[T]], print_table: Callable[[dict[str, Row[T]]], None], *, as_json: bool
) -> dict[str, list[dict[str, Any]]]:
    """Print the table of what ran, unless ``as_json``, and a line about each server left out; return the raw rounds."""
    rows = {name: row for name, row in measured.items() if row.rounds}
    if rows and not as_json:
        print_table(rows)
    for name, row in measured.items():
        if not row.rounds:
            print(f"{name}: left out: {row.failures[0]}", file=sys.stderr if as_json else sys.stdout)
    sys.stdout.flush()
    return {name: [asdict(r) for r in row.rounds] for name, row in rows.items()}


def head_of_ratios(references: Iterable[str]) -> str:
    """Return the heads of the columns of ratios."""
    return "".join(f" {'/ ' + label:>12}" for label in references)


def ratios(cost: Mapping[str, float], server: str, references: Mapping[str, str | tuple[str, ...]]) -> str:
    """Return the columns of one server: what it costs, by what the cheapest server of each reference does."""
    line = ""
    for peers in references.values():
        costs = [cost[peer] for peer in ((peers,) if isinstance(peers, str) else peers) if cost.get(peer)]
        line += f" {cost[server] / min(costs):12.2f}" if costs else f" {'-':>12}"
    return line


def run_workloads(
    args: argparse.Namespace,
    workloads: Mapping[str, W],
    servers_of: Callable[[W], Iterable[str]],
    measure: Callable[..., T],
    print_table: Callable[..., None],
) -> None:
    """Measure and report ``args.workload``, one after the other.

    Args:
        args: of ``parse_options``.
        workloads: by name.
        servers_of: returns the names of those that can do a workload.
        measure: called with a server's name, ``workload`` and ``args``.
        print_table: called with the rows, ``name`` of the workload and ``args``.
    """
    raw = {}
    for name in args.workload:
        workload = workloads[name]
        measured = run_rounds(partial(measure, workload=workload, args=args), servers_of(workload), args.rounds)
        raw[name] = report(measured, partial(print_table, name=name, args=args), as_json=args.json)
    finish(raw, args)


def finish(raw: Mapping[str, Mapping[str, list[dict[str, Any]]]], args: argparse.Namespace) -> None:
    """Print what was measured, with ``--json``. Exit with a word when that is nothing."""
    if args.json:
        print(json.dumps(raw))
    if not any(raw.values()):
        sys.exit("no server ran")
