"""A server of the benchmarks in processes of its own: started, accounted for, ended. Subclasses check its replies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

HOST = "127.0.0.1"
START_TIMEOUT = 20.0
STOP_TIMEOUT = 3.0
SETTLE_TIMEOUT = 5.0
_TICK = os.sysconf("SC_CLK_TCK")


class CannotRun(Exception):
    """The server could not be started, or does not reply as it should. The message says why."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that the processes of a server have in memory.

    Attributes:
        rss: resident; pages that processes share are counted in each.
        uss: resident and nobody else's.
    """

    rss: int
    uss: int


class RunningServer:
    """One server, pinned to one core, in a session and a folder of its own. A context manager.

    Everything that the server starts is in its session: that is how it is found in ``/proc``.

    Attributes:
        program: started as ``program NAME PORT ARGUMENTS``; a subclass names it.
        folder: the server's current one; it vanishes with the server.

    Args:
        name: of the program's ``SERVERS``.
        core: where all its threads run.
        arguments: further ones of the program.
        below: where its folder is made; None: where temporary files are.

    Raises:
        CannotRun: entering the context, when it does not come up, with the last line of what it said.
    """

    program: ClassVar[Path]

    def __init__(self, name: str, core: int, *arguments: str, below: str | None = None) -> None:
        self.name = name
        self.core = core
        self.arguments = arguments
        self.port = _free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="asyncmg-bench-", dir=below)
        self.folder = Path(self._folder.name)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, str(self.program), self.name, str(self.port), *self.arguments]
        with open(self.folder / "stderr", "wb") as stderr:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                cwd=self.folder,
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, {self.core}),
            )
        try:
            self._wait_until_up()
            self.check()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def _started(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "used outside its context"
        return self._process

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self._started().poll() is not None:
                raise CannotRun(self._last_words())
            try:
                socket.create_connection((HOST, self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise CannotRun(f"did not come up within {START_TIMEOUT:g} s: {self._last_words()}")

    def _last_words(self) -> str:
        text = (self.folder / "stderr").read_text(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"

    def _stop(self) -> None:
        process = self._started()
        deadline = time.monotonic() + STOP_TIMEOUT
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.pids():
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
            while self.pids() and time.monotonic() < deadline:
                process.poll()
                time.sleep(0.01)
        process.wait()
        self._folder.cleanup()

    def _stats(self) -> dict[int, list[str]]:
        """Return the fields of ``/proc/PID/stat`` from ``state`` on, of every process of the session that is alive."""
        session = str(self._started().pid)
        found = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[3] == session and fields[0] not in "ZX":
                found[int(path.parent.name)] = fields
        return found

    def pids(self) -> list[int]:
        """Return the processes of the server that are alive."""
        return list(self._stats())

    def cpu_seconds(self) -> float:
        """Return user and system time of all threads of all processes, ended and waited-for children included."""
        return sum(int(ticks) for fields in self._stats().values() for ticks in fields[11:15]) / _TICK

    def memory(self) -> Memory:
        """Return what all processes have in memory now."""
        totals = {"Rss:": 0, "Private_Clean:": 0, "Private_Dirty:": 0}
        for pid in self.pids():
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                continue
            for line in lines:
                key, value, *_ = line.split()
                if key in totals:
                    totals[key] += int(value) * 1024
        return Memory(rss=totals["Rss:"], uss=totals["Private_Clean:"] + totals["Private_Dirty:"])

    def peak_memory(self) -> int:
        """Return the bytes that its processes had resident at most, each in its own time."""
        total = 0
        for pid in self.pids():
            try:
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                continue
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
        return total

    def settled_memory(self) -> Memory:
        """Return the memory once it has stopped changing."""
        deadline = time.monotonic() + SETTLE_TIMEOUT
        last = self.memory()
        while time.monotonic() < deadline:
            time.sleep(0.3)
            now = self.memory()
            if now == last:
                break
            last = now
        return last

    def check(self) -> None:
        """Raise CannotRun unless the server replies as it should."""
        raise NotImplementedError


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])
