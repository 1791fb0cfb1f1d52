"""Drives ``ws_load.c``, pinned to one core; compiles it before its first use."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from servers.running import CannotRun

SOURCE = Path(__file__).with_name("ws_load.c")
BUILD = Path(__file__).resolve().parents[2] / "build"
FLAGS = ("-O2", "-std=gnu11")


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What the load counted while it measured.

    Attributes:
        seconds: how long it measured.
        messages: that came back; of a broadcast, those of all receivers.
        errors: connections that ended, or on which something came that should not.
        error: what the first of them was.
        pings: that the server sent.
        load_cpu, server_cpu: seconds of CPU time.
        load_delayed, server_delayed: seconds in which they had something to do, and another process had their core.
    """

    connections: int
    alive: int
    seconds: float
    messages: int
    bytes: int
    errors: int
    error: str
    pings: int
    p50_us: float
    p99_us: float
    load_cpu: float
    load_delayed: float
    server_cpu: float
    server_delayed: float


def require_load() -> Path:
    """Return the path of the compiled program. Exit with a word where there is no compiler, or it fails."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        sys.exit("a C compiler is missing, which the load needs: install one (Debian: apt-get install gcc libc6-dev)")
    if sys.platform != "linux":
        sys.exit("the load needs Linux: it is written on epoll")
    name = f"ws_load-{hashlib.sha256(SOURCE.read_bytes() + ' '.join(FLAGS).encode()).hexdigest()[:16]}"
    program = BUILD / "benchmarks" / name
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:
        made = Path(folder, name)
        done = subprocess.run([compiler, *FLAGS, "-o", str(made), str(SOURCE)], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{compiler} cannot compile {SOURCE.name}: {done.stderr.strip()}")
        made.replace(program)  # in one step: another process may be making it, too
    return program


def _command(program: Path, pids: list[int], options: dict[str, object]) -> list[str]:
    named = [f"{name}={int(value) if isinstance(value, bool) else value}" for name, value in options.items()]
    return [str(program), *named, *(f"pid={pid}" for pid in pids)]


def run_load(
    port: int,
    pids: list[int],
    *,
    mode: Literal["echo", "broadcast"],
    connections: int,
    depth: int,
    size: int,
    seconds: float,
    warm_up: float,
    core: int,
    raw: bool = False,
    text: bool = False,
) -> LoadResult:
    """Load a server on this port.

    Args:
        port: of 127.0.0.1.
        pids: the processes of the server.
        mode: see ``ws_load.c``.
        connections: open all the time.
        depth: messages in flight on each.
        size: bytes of a message.
        seconds: of the measurement, after ``warm_up`` seconds of the same load.
        core: where the load runs.
        raw: frames come back as they were sent, masked.
        text: messages are text; otherwise binary.

    Raises:
        CannotRun: the load failed, or no message came back.
    """
    options: dict[str, object] = {
        "mode": mode,
        "port": port,
        "connections": connections,
        "depth": depth,
        "size": size,
        "seconds": seconds,
        "warm_up": warm_up,
        "raw": raw,
        "text": text,
    }
    done = subprocess.run(
        _command(require_load(), pids, options),
        capture_output=True,
        text=True,
        timeout=seconds + warm_up + 150,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    if done.returncode != 0:
        raise CannotRun(f"the load failed: {done.stderr.strip() or f'status {done.returncode}'}")
    result = LoadResult(**json.loads(done.stdout))
    if result.messages == 0:
        raise CannotRun(f"no message came back{': ' * bool(result.error)}{result.error}")
    return result


class IdleLoad:
    """Connections that a process of their own holds open; it replies to pings."""

    def __init__(self, process: subprocess.Popen[str], count: int) -> None:
        self._process = process
        self._count = count

    def since(self) -> LoadResult:
        """Return what was counted since the last call.

        Raises:
            CannotRun: not all connections are open.
        """
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), b"\n")  # no buffer, whose rest close() would try again
        except BrokenPipeError:
            pass  # it has ended: no answer will come
        return self.answer()

    def answer(self) -> LoadResult:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            raise CannotRun(f"cannot hold {self._count} connections: {self._process.stderr.read().strip()}")
        result = LoadResult(**json.loads(line))
        if result.alive != self._count:
            raise CannotRun(f"only {result.alive} of {self._count} connections stayed open: {result.error}")
        return result


@contextmanager
def idle_load(port: int, pids: list[int], count: int, core: int, seconds: float) -> Iterator[IdleLoad]:
    """Hold connections open, each after one echo.

    Args:
        seconds: after which the process ends in any case.

    Raises:
        CannotRun: they could not all be opened.
    """
    options: dict[str, object] = {"mode": "idle", "port": port, "connections": count, "seconds": seconds}
    process = subprocess.Popen(
        _command(require_load(), pids, options),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    with process:  # closes its pipes, and waits
        try:
            load = IdleLoad(process, count)
            load.answer()
            yield load
        finally:
            process.terminate()
