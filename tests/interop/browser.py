"""A headless Chromium, driven over its DevTools pipe: JSON messages that end with NUL, on descriptors 3 and 4."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]


def _high_pipe() -> tuple[int, int]:
    """Make a pipe whose descriptors are out of the way of 3 and 4."""
    pair = os.pipe()
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in pair]
    for fd in pair:
        os.close(fd)
    return high[0], high[1]


class Browser:
    """One page of one browser. Every wait has a deadline.

    Args:
        program: path of Chromium.
        profile: an empty folder for its user data.
        url: the page to open.
        size: of the window, in CSS pixels.
        dark: prefer a dark colour scheme.
    """

    def __init__(
        self, program: str, profile: Path, url: str, size: tuple[int, int] = (1200, 1000), dark: bool = False
    ) -> None:
        self._last_id = 0
        self._session: str | None = None
        self._received = b""
        theirs_in, self._out = _high_pipe()
        self._in, theirs_out = _high_pipe()
        place = (
            f"import os, sys; os.dup2({theirs_in}, 3); os.dup2({theirs_out}, 4); os.execv(sys.argv[1], sys.argv[1:])"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", place, program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        width, height = size
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._out)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._in)

    def call(self, method: str, timeout: float = 20, **params: Any) -> dict[str, Any]:
        """Send one command and return its result."""
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        deadline = time.monotonic() + timeout
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._last_id:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._received:
            readable, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, "the browser did not answer in time"
            data = os.read(self._in, 1 << 20)
            assert data, "the browser has ended"
            self._received += data
        line, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def evaluate(self, expression: str, timeout: float = 20) -> Any:
        """Evaluate JavaScript in the page; wait for it when it is a promise."""
        outcome = self.call(
            "Runtime.evaluate", timeout, expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in outcome, outcome["exceptionDetails"]
        return outcome["result"].get("value")

    def wait_for(self, condition: str, timeout: float = 20) -> Any:
        """Wait until a JavaScript expression is truthy; return its value.

        The page looks each time that it paints: nothing is waited for longer than it takes.
        """
        # The page may still be about to be loaded: then the promise dies with the old document, and a new one is made.
        deadline = time.monotonic() + timeout
        script = f"""new Promise((found) => {{
            const look = () => {{
                let value = null;
                try {{ value = {condition}; }} catch (error) {{ value = null; }}
                if (value) found(value); else setTimeout(look, 20);
            }};
            look();
        }})"""
        while True:
            try:
                return self.evaluate(script, deadline - time.monotonic())
            except AssertionError as error:
                if "context" not in str(error) and "navigated" not in str(error):
                    raise

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Save what the page looks like as PNG: the window, or the whole page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))
