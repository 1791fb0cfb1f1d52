"""Drives ``mqtt_load.c`` and ``mqtt_stub.c``, each pinned to one core; compiles them before their first use."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from servers.running import CannotRun

HERE = Path(__file__).parent
HEADER = HERE / "mqtt_wire.h"
BUILD = Path(__file__).resolve().parents[2] / "build"
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra")
SPARE = 150  # seconds a load may take longer than it should, before it is given up


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What ``mqtt_load.c`` counted while it measured.

    Attributes:
        seconds: how long it measured.
        clients: publishers and subscribers; ``alive`` of them had a connection at the end.
        deliveries: messages that subscribers received.
        published: messages that publishers sent.
        lost: deliveries that had not come when it ended.
        errors: connections that ended, or on which something came that should not, and messages missing at the end.
        error: what the first of them was.
        pings: PINGRESP packets that came.
        p50_us, p99_us: from a message's sending until the last of its subscribers had it.
        load_cpu, server_cpu: seconds of CPU time.
        load_delayed, server_delayed: seconds in which they had something to do, and another process had their core.
    """

    seconds: float
    clients: int
    alive: int
    deliveries: int
    published: int
    lost: int
    errors: int
    error: str
    pings: int
    p50_us: float
    p99_us: float
    load_cpu: float
    load_delayed: float
    server_cpu: float
    server_delayed: float


@dataclass(frozen=True, slots=True)
class StubResult:
    """What ``mqtt_stub.c`` counted while it measured a client.

    Attributes:
        messages: that the client published, or has told that it had.
        server_cpu, server_delayed: of the client, as in LoadResult; the others are of the stub.
    """

    seconds: float
    messages: int
    errors: int
    error: str
    load_cpu: float
    load_delayed: float
    server_cpu: float
    server_delayed: float


def compiled(name: Literal["mqtt_load", "mqtt_stub"]) -> Path:
    """Return the path of a compiled program. Exit with a word where there is no compiler, or it fails."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        sys.exit("a C compiler is missing, which the load needs: install one (Debian: apt-get install gcc libc6-dev)")
    if sys.platform != "linux":
        sys.exit("the load needs Linux: it is written on epoll")
    source = HERE / f"{name}.c"
    digest = hashlib.sha256(source.read_bytes() + HEADER.read_bytes() + " ".join(FLAGS).encode())
    program = BUILD / "benchmarks" / f"{name}-{digest.hexdigest()[:16]}"
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:
        made = Path(folder, name)
        done = subprocess.run([compiler, *FLAGS, "-o", str(made), str(source)], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{compiler} cannot compile {source.name}: {done.stderr.strip()}")
        made.replace(program)  # in one step: another process may be making it, too
    return program


def _command(
    name: Literal["mqtt_load", "mqtt_stub"], options: dict[str, object], pids: Sequence[int] = ()
) -> list[str]:
    named = [f"{key}={value}" for key, value in options.items()]
    return [str(compiled(name)), *named, *(f"pid={pid}" for pid in pids)]


def _pinned(core: int) -> Callable[[], None]:
    return lambda: os.sched_setaffinity(0, {core})


def run_load(
    port: int,
    pids: Sequence[int],
    *,
    publishers: int,
    subscribers: int,
    qos: int,
    size: int,
    seconds: float,
    core: int,
    window: int = 20,
    warm_up: float = 0.0,
    version: Literal[4, 5] = 4,
    messages: int = 0,
) -> LoadResult:
    """Load a broker on this port of 127.0.0.1. See ``mqtt_load.c`` for who gets what.

    Args:
        pids: the processes of the broker.
        qos: of publications and subscriptions.
        size: bytes of a payload, at least 8.
        seconds: of the measurement, after ``warm_up`` seconds of the same load.
        core: where the load runs.
        window: messages that a publisher is ahead at most.
        version: 4 for MQTT 3.1.1, 5 for 5.0.
        messages: of each publisher, which take as long as they take, ``seconds`` at most; 0: as many as go.

    Raises:
        CannotRun: the load failed, or no message was delivered.
    """
    options: dict[str, object] = {
        "mode": "load",
        "port": port,
        "version": version,
        "publishers": publishers,
        "subscribers": subscribers,
        "qos": qos,
        "size": size,
        "window": window,
        "seconds": seconds,
        "warm_up": warm_up,
        "messages": messages,
    }
    done = subprocess.run(
        _command("mqtt_load", options, pids),
        capture_output=True,
        text=True,
        timeout=seconds + warm_up + SPARE,
        preexec_fn=_pinned(core),
    )
    if done.returncode != 0:
        raise CannotRun(f"the load failed: {done.stderr.strip() or f'status {done.returncode}'}")
    result = LoadResult(**json.loads(done.stdout))
    if result.deliveries == 0:
        raise CannotRun(f"no message was delivered{': ' * bool(result.error)}{result.error}")
    return result


class IdleLoad:
    """Clients that a process of their own holds connected; it sends pings."""

    def __init__(self, process: subprocess.Popen[str], count: int) -> None:
        self._process = process
        self._count = count

    def since(self) -> LoadResult:
        """Return what was counted since the last call.

        Raises:
            CannotRun: not all clients are connected.
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
            raise CannotRun(f"cannot hold {self._count} clients: {self._process.stderr.read().strip()}")
        result = LoadResult(**json.loads(line))
        if result.alive != self._count:
            raise CannotRun(f"only {result.alive} of {self._count} clients stayed connected: {result.error}")
        return result


@contextmanager
def idle_load(
    port: int, pids: Sequence[int], count: int, core: int, seconds: float, *, version: Literal[4, 5] = 4, ping: float
) -> Iterator[IdleLoad]:
    """Hold clients connected, each with one subscription.

    Args:
        seconds: after which the process ends in any case.
        ping: seconds from one PINGREQ of a client to the next; 0: none.

    Raises:
        CannotRun: they could not all be connected.
    """
    options: dict[str, object] = {
        "mode": "idle",
        "port": port,
        "version": version,
        "subscribers": count,
        "seconds": seconds,
        "ping": ping,
    }
    process = subprocess.Popen(
        _command("mqtt_load", options, pids),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_pinned(core),
    )
    with process:  # closes its pipes, and waits
        try:
            load = IdleLoad(process, count)
            load.answer()
            yield load
        finally:
            process.terminate()


class Stub:
    """The C program that is the broker of one client, running.

    Attributes:
        port: of 127.0.0.1.
    """

    def __init__(self, process: subprocess.Popen[str], seconds: float) -> None:
        self._process = process
        self._seconds = seconds
        self.port = int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            raise CannotRun(f"the stub failed: {self._process.stderr.read().strip()}")
        return line

    def measure(self, pids: Sequence[int]) -> StubResult:
        """Measure a client, which runs and has connected, or will.

        Args:
            pids: its processes.

        Raises:
            CannotRun: it does not connect, or no message comes.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, pids)) + "\n")
        self._process.stdin.flush()
        result: dict[str, Any] = json.loads(self._line())
        if result["messages"] == 0:
            raise CannotRun(f"no message came{': ' * bool(result['error'])}{result['error']}")
        return StubResult(**result)


@contextmanager
def running_stub(
    mode: Literal["publish", "receive"],
    *,
    qos: int,
    size: int,
    seconds: float,
    core: int,
    window: int = 20,
    ahead: int = 1000,
    warm_up: float = 0.0,
) -> Iterator[Stub]:
    """Run the broker of one client.

    Args:
        mode: what the client does.
        qos: of the messages that it receives.
        size: bytes of a payload.
        seconds: of the measurement, after ``warm_up`` seconds of the same.
        core: where the stub runs.
        window: messages that are sent to a client and not acknowledged.
        ahead: messages that are sent to it and that it has not told of.
    """
    options: dict[str, object] = {
        "mode": mode,
        "qos": qos,
        "size": size,
        "window": window,
        "ahead": ahead,
        "seconds": seconds,
        "warm_up": warm_up,
    }
    process = subprocess.Popen(
        _command("mqtt_stub", options),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_pinned(core),
    )
    with process:
        try:
            yield Stub(process, seconds)
        finally:
            process.terminate()
