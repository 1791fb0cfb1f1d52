"""WebSocket conformance (RFC 6455, RFC 7692): Autobahn|Testsuite against programs of ours.

    python tests/conformance/autobahn.py [server] [client] [--cases quick] [--codec native] ...

For a server the suite is the client, and the other way round. Ends with 1 when a case is anything but OK or
INFORMATIONAL, in its behaviour or in how the connection was closed, or when its result is missing.
Reports of the suite stay under ``build/autobahn/reports``.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

if __name__ == "__main__":
    # This folder has a module named as the suite's own library.
    sys.path[0] = str(Path(__file__).parents[2])

from tests.conformance.suite import HOME, Kind, Suite, SuiteUnavailableError, install

Role = Literal["server", "client"]

HERE = Path(__file__).parent
REPORTS = HOME / "reports"
PASSED = frozenset({"OK", "INFORMATIONAL"})
START_TIMEOUT = 60.0
STOP_TIMEOUT = 15.0

FULL = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.*", "13.*"]
# All but most of the compression: there each kind of payload and each set of parameters, with and without fragments.
QUICK = [
    *["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"],
    *["12.1.4", "12.1.11", "12.2.3", "12.2.11", "12.3.6", "12.4.2", "12.5.7"],
    *["13.1.2", "13.2.3", "13.2.11", "13.3.3", "13.3.6", "13.4.4", "13.4.12", "13.5.3", "13.5.11", "13.6.4"],
    *["13.7.3", "13.7.11"],
]
SELECTIONS = {"quick": QUICK, "full": FULL}
# The suite has time-outs of its own for each case (up to 1000 s for some); these are for all of them together.
TIMEOUTS = {"quick": 600.0, "full": 5400.0}


@dataclass(frozen=True, slots=True)
class Agent:
    """A program under test.

    Attributes:
        name: stands in the reports.
        command: a server prints its port on a line; a client takes ``--url URL --agent NAME`` in addition.
    """

    name: str
    role: Role
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CaseResult:
    case: str
    behavior: str
    behavior_close: str
    seconds: float
    remote_close_code: int | None
    details: str

    @property
    def passed(self) -> bool:
        return self.behavior in PASSED and self.behavior_close in PASSED


@dataclass(slots=True)
class Outcome:
    """What the suite said about one agent."""

    agent: Agent
    seconds: float = 0.0
    cases: list[str] = field(default_factory=list)
    results: dict[str, CaseResult] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def missing(self) -> list[str]:
        return [case for case in self.cases if case not in self.results]

    @property
    def failed(self) -> list[CaseResult]:
        return [result for result in self.results.values() if not result.passed]

    @property
    def passed(self) -> bool:
        return bool(self.cases) and not (self.failed or self.missing or self.problems)

    def table(self) -> str:
        """Return the counts, each case that did not pass, and where the time went."""
        lines = [
            f"{self.agent.role} {self.agent.name}: {len(self.results)} of {len(self.cases)} cases, "
            f"{self.seconds:.1f} s, {'passed' if self.passed else 'FAILED'}"
        ]
        if self.results:
            lines += self._counts()
        for result in self.failed:
            lines.append(f"  {result.case:<9} {result.behavior} / {result.behavior_close}: {result.details}")
        if self.missing:
            lines.append(f"  without a result: {' '.join(self.missing)}")
        lines += [f"  {problem}" for problem in self.problems]
        return "\n".join(lines)

    def _counts(self) -> list[str]:
        lines = []
        results = self.results.values()
        for title, counts in (
            ("behavior", Counter(result.behavior for result in results)),
            ("behaviorClose", Counter(result.behavior_close for result in results)),
        ):
            lines.append(f"  {title:<14}" + ", ".join(f"{name} {count}" for name, count in counts.most_common()))
        by_group: defaultdict[str, float] = defaultdict(float)
        for result in results:
            by_group[result.case.partition(".")[0]] += result.seconds
        lines.append("  seconds       " + ", ".join(f"{group}.* {by_group[group]:.1f}" for group in by_group))
        slowest = sorted(results, key=lambda result: -result.seconds)[:5]
        lines.append("  slowest       " + ", ".join(f"{result.case} {result.seconds:.1f}" for result in slowest))
        return lines


def selection(text: str) -> list[str]:
    """Return the suite's patterns for ``quick``, ``full`` or a list with commas."""
    patterns = SELECTIONS.get(text) or [pattern.strip() for pattern in text.split(",")]
    for pattern in patterns:
        if not re.fullmatch(r"\d+(\.\d+)*(\.\*)?", pattern):
            raise ValueError(f"not a case or a pattern of cases: {pattern!r}")
    return patterns


def our_agent(role: Role, codec: str, backend: str = "auto", face: str | None = None) -> Agent:
    """Return our echo program with one codec. A server has several faces: see `echo_server.py`."""
    name = "-".join(["asyncmg", codec, *([backend] if backend != "auto" else []), *([face] if face else [])])
    options = ["--codec", codec, "--backend", backend, *(["--face", face] if face else [])]
    return Agent(name, role, (sys.executable, str(HERE / f"echo_{role}.py"), *options))


def run(suite: Suite, agent: Agent, patterns: Sequence[str], timeout: float, reports: Path = REPORTS) -> Outcome:
    """Run the suite against one agent; whatever happens, it ends within the time-out and some seconds."""
    folder = reports / f"{agent.role}-{agent.name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    outcome = Outcome(agent)
    began = time.monotonic()
    try:
        if agent.role == "server":
            _run_server(suite, agent, patterns, folder, began + timeout, outcome)
        else:
            _run_client(suite, agent, patterns, folder, began + timeout, outcome)
    except _TroubleError as trouble:
        outcome.problems.append(f"{trouble} (see {folder})")
    outcome.seconds = time.monotonic() - began
    _read(folder, agent, outcome)
    for pattern in patterns:
        matcher = re.compile(re.escape(pattern).replace(r"\*", ".*"))
        if outcome.cases and not any(matcher.fullmatch(case) for case in outcome.cases):
            outcome.problems.append(f"the suite has no case {pattern}")
    return outcome


class _TroubleError(Exception):
    """The run as a whole went wrong."""


class _Process:
    """A child with its output in files."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.name = name
        self.output = folder / f"{name}.out"
        self.errors = folder / f"{name}.err"
        with self.output.open("wb") as output, self.errors.open("wb") as errors:
            environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
            # In a folder of its own: `python -c` finds modules in the current one.
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, cwd=folder, env=environment
            )

    def text(self) -> str:
        return self.output.read_text("utf-8", "replace")

    def trouble(self, what: str) -> _TroubleError:
        said = self.errors.read_text("utf-8", "replace").strip() or self.text().strip()
        return _TroubleError(f"{self.name} {what}: {said[-500:]}")

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait(self, deadline: float) -> int | None:
        """Return the exit code, or None at the deadline."""
        try:
            return self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if not self.running:
                return
            self.process.send_signal(number)
            if self.wait(time.monotonic() + STOP_TIMEOUT) is not None:
                return
        self.process.wait()


@contextmanager
def _process(name: str, command: Sequence[str], folder: Path) -> Iterator[_Process]:
    process = _Process(name, command, folder)
    try:
        yield process
    finally:
        process.stop()


def _wstest(suite: Suite, mode: str, spec: dict[str, object], folder: Path) -> _Process:
    path = folder / "spec.json"
    path.write_text(json.dumps({"outdir": str(folder), "exclude-cases": [], "exclude-agent-cases": {}, **spec}))
    webport = ["-u", "0"] if suite.kind == "python2" else []
    return _Process("wstest", [*suite.command, "-m", mode, "-s", str(path), *webport], folder)


def _read_cases(wstest: _Process, outcome: Outcome) -> None:
    found = re.search(r"^Cases = (\[.*\])$", wstest.text(), re.MULTILINE)
    if found is None:
        raise wstest.trouble("did not say which cases it runs")
    outcome.cases = list(ast.literal_eval(found[1]))


def _run_server(
    suite: Suite, agent: Agent, patterns: Sequence[str], folder: Path, deadline: float, outcome: Outcome
) -> None:
    with _process("program", agent.command, folder) as program:
        start = min(deadline, time.monotonic() + START_TIMEOUT)
        while not (found := re.match(r"\D*(\d+)\s*\n", program.text())):
            if not program.running or time.monotonic() > start:
                raise program.trouble("did not print its port")
            time.sleep(0.02)
        servers = [{"agent": agent.name, "url": f"ws://127.0.0.1:{found[1]}"}]
        wstest = _wstest(suite, "fuzzingclient", {"servers": servers, "cases": list(patterns)}, folder)
        try:
            code = wstest.wait(deadline)
        finally:
            wstest.stop()
        if code is None:
            # The reports are written at the end only; say where it was.
            _read_cases(wstest, outcome)
            raise _TroubleError(f"not done in time; the last line: {wstest.text().splitlines()[-1]}")
        _read_cases(wstest, outcome)
        if code != 0:
            raise wstest.trouble(f"ended with {code}")
        if not program.running:
            raise program.trouble("has ended by itself")


def _run_client(
    suite: Suite, agent: Agent, patterns: Sequence[str], folder: Path, deadline: float, outcome: Outcome
) -> None:
    wstest, url = _start_fuzzing_server(suite, patterns, folder, min(deadline, time.monotonic() + START_TIMEOUT))
    try:
        _read_cases(wstest, outcome)
        with _process("program", [*agent.command, "--url", url, "--agent", agent.name], folder) as program:
            code = program.wait(deadline)
        if code is None:
            raise _TroubleError(f"not done in time; the last line: {wstest.text().splitlines()[-1]}")
        if code != 0:
            raise program.trouble(f"ended with {code}")
    finally:
        wstest.stop()


def _start_fuzzing_server(suite: Suite, patterns: Sequence[str], folder: Path, deadline: float) -> tuple[_Process, str]:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        url = f"ws://127.0.0.1:{port}"
        wstest = _wstest(suite, "fuzzingserver", {"url": url, "cases": list(patterns)}, folder)
        while wstest.running and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
                continue
            # The port may have been taken by another program in between: then ours has ended, or will.
            if "Cases = " in wstest.text() and wstest.running:
                return wstest, url
            time.sleep(0.05)
        wstest.stop()
        if time.monotonic() > deadline or "CannotListenError" not in wstest.errors.read_text("utf-8", "replace"):
            raise wstest.trouble("does not listen")


def _read(folder: Path, agent: Agent, outcome: Outcome) -> None:
    try:
        index = json.loads((folder / "index.json").read_text("utf-8"))[agent.name]
    except (OSError, ValueError, KeyError) as error:
        outcome.problems.append(f"no report: {error!r}")
        return
    for case in sorted(index, key=lambda name: [int(part) for part in name.split(".")]):
        entry = index[case]
        details = ""
        if entry["behavior"] not in PASSED or entry["behaviorClose"] not in PASSED:
            report = json.loads((folder / entry["reportfile"]).read_text("utf-8"))
            details = f"{report['result']} {report['resultClose']} (close code {entry['remoteCloseCode']})"
        outcome.results[case] = CaseResult(
            case, entry["behavior"], entry["behaviorClose"], entry["duration"] / 1000, entry["remoteCloseCode"], details
        )


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Autobahn|Testsuite against asyncmg's WebSocket")
    parser.add_argument("roles", nargs="*", metavar="server|client", help="what asyncmg is; default: both, in turn")
    parser.add_argument("--cases", default="quick", help='quick (default), full, or patterns: "1.*,12.1.*"')
    parser.add_argument("--codec", type=_names, default=["native", "portable"], help="native,portable,wsproto")
    parser.add_argument("--backend", type=_names, default=["auto"], help="asyncio,native; default: auto")
    parser.add_argument("--face", type=_names, default=[None], help="of servers: plain,async,serve; default: async")
    parser.add_argument("--command", help="another program: prints its port, or takes --url URL --agent NAME")
    parser.add_argument("--suite", choices=["auto", *get_args(Kind)], default="auto")
    parser.add_argument("--timeout", type=float, help="seconds for one run; default: 600, full: 5400")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time; default: 1")
    parser.add_argument("--install", action="store_true", help="install the suite, and no more")
    options = parser.parse_args(arguments)
    try:
        patterns = selection(options.cases)
    except ValueError as error:
        parser.error(str(error))
    for role in options.roles:
        if role not in get_args(Role):
            parser.error(f"server or client, not {role}")
    roles: list[Role] = options.roles or ["server", "client"]
    try:
        suite = install(options.suite)
    except SuiteUnavailableError as error:
        print(f"the test suite is not available: {error}", file=sys.stderr)
        return 2
    print(f"suite: {suite.kind}, {suite.command[0]}", flush=True)
    if options.install:
        return 0
    if options.command:
        agents = [Agent("command", role, tuple(shlex.split(options.command))) for role in roles]
    else:
        agents = [
            our_agent(role, codec, backend, face)
            for role in roles
            for codec in options.codec
            for backend in options.backend
            for face in (options.face if role == "server" else [None])
        ]
    timeout = options.timeout or TIMEOUTS.get(options.cases, 3600.0)
    passed = True
    with ThreadPoolExecutor(options.jobs) as pool:
        for outcome in pool.map(lambda agent: run(suite, agent, patterns, timeout), agents):
            print(outcome.table(), flush=True)
            passed = passed and outcome.passed
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
