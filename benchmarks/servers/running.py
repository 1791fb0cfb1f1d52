"""A server of the benchmarks in processes of its own: started, checked, accounted for, ended."""

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
from typing import Self

from .http_peers import BODY, HOST

PROGRAM = Path(__file__).with_name("http_peers.py")
START_TIMEOUT = 20.0
STOP_TIMEOUT = 3.0
_TICK = os.sysconf("SC_CLK_TCK")
_REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


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

    Args:
        name: of ``http_peers.SERVERS``.
        core: where all its threads run.

    Raises:
        CannotRun: entering the context, when it does not come up, with the last line of what it said.
    """

    def __init__(self, name: str, core: int) -> None:
        self.name = name
        self.core = core
        self.port = _free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="asyncmg-bench-")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, str(PROGRAM), self.name, str(self.port)]
        with open(Path(self._folder.name, "stderr"), "wb") as stderr:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                cwd=self._folder.name,
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
        text = Path(self._folder.name, "stderr").read_text(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"

    def _stop(self) -> None:
        process = self._started()
        deadline = time.monotonic() + STOP_TIMEOUT
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self._pids():
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
            while self._pids() and time.monotonic() < deadline:
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

    def _pids(self) -> list[int]:
        return list(self._stats())

    def cpu_seconds(self) -> float:
        """Return user and system time of all threads of all processes, ended and waited-for children included."""
        return sum(int(ticks) for fields in self._stats().values() for ticks in fields[11:15]) / _TICK

    def memory(self) -> Memory:
        """Return what all processes have in memory now."""
        totals = {"Rss:": 0, "Private_Clean:": 0, "Private_Dirty:": 0}
        for pid in self._pids():
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                continue
            for line in lines:
                key, value, *_ = line.split()
                if key in totals:
                    totals[key] += int(value) * 1024
        return Memory(rss=totals["Rss:"], uss=totals["Private_Clean:"] + totals["Private_Dirty:"])

    def check(self, depth: int = 1) -> None:
        """Send ``depth`` requests at once and look at every reply: status 200, Date, Server, the body.

        Raises:
            CannotRun: a reply is not what it should be, or none comes.
        """
        try:
            with socket.create_connection((HOST, self.port), 5) as sock:
                sock.settimeout(START_TIMEOUT)
                sock.sendall(_REQUEST * depth)
                data = b""
                for _ in range(depth):
                    data = _take_reply(sock, data)
        except OSError as exc:
            raise CannotRun(f"no reply: {exc}") from exc
        if data:
            raise CannotRun(f"bytes after the last reply: {data[:80]!r}")


def _take_reply(sock: socket.socket, data: bytes) -> bytes:
    """Receive one reply, check it, return the bytes after it."""
    while b"\r\n\r\n" not in data:
        data += _receive(sock)
    head, _, data = data.partition(b"\r\n\r\n")
    start, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if start.split(" ")[1:2] != ["200"]:
        raise CannotRun(f"replied {start!r}")
    if "date" not in fields or "server" not in fields:
        raise CannotRun(f"replied without Date or Server: {sorted(fields)}")
    if fields.get("content-length") != str(len(BODY)):
        raise CannotRun(f"replied with Content-Length {fields.get('content-length')}, expected {len(BODY)}")
    while len(data) < len(BODY):
        data += _receive(sock)
    if not data.startswith(BODY):
        raise CannotRun(f"replied {data[: len(BODY)]!r}, expected {BODY!r}")
    return data[len(BODY) :]


def _receive(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    if not data:
        raise CannotRun("closed the connection instead of a reply")
    return data


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])
