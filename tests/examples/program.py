"""A program of ours in a process of its own: started, listened to, stopped; every wait is bounded."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[2]


def heed_interrupts() -> None:
    """In a child, before its program begins: undo what a background job inherits."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Program:
    """Runs ``python ARGUMENTS...``; what it prints is read line by line.

    Leaving the context kills what is still running. Warnings are errors in the program, too.
    """

    def __init__(self, *arguments: str | os.PathLike[str], cwd: Path | None = None) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed in __exit__
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", *map(os.fspath, arguments)],
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            cwd=cwd,
            text=True,
            # A shell that runs the tests in the background has them ignore SIGINT, and all that they start.
            preexec_fn=heed_interrupts if os.name == "posix" else None,
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(5)
        if exc is not None:
            exc.add_note(f"stderr of the program:\n{self.stderr}")
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._stderr.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    @property
    def stderr(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read().decode("utf-8", "replace")

    def line(self, timeout: float = 15) -> str:
        """Return the next line that it prints."""
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError("the program printed nothing in time") from None
        assert line is not None, "the program has ended"
        return line

    def rest(self) -> list[str]:
        """Wait for the end of its output; return the lines that have not been read."""
        lines = []
        while (line := self._lines.get(timeout=15)) is not None:
            lines.append(line)
        return lines

    def stop(self, number: signal.Signals = signal.SIGINT, timeout: float = 10) -> tuple[int, float]:
        """Send a signal; return the exit code and how many seconds it took to end."""
        began = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(timeout)
        return code, time.monotonic() - began

    def stop_cleanly(self) -> None:
        """Send SIGINT and expect exit code 0, and nothing on stderr."""
        code, _ = self.stop()
        assert self.stderr == ""
        assert code == 0
