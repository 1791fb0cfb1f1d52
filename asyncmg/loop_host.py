"""The event loop that a Manager runs on: the running one, or, outside asyncio, one of its own driven by poll()."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from .errors import BusyError

T = TypeVar("T")


class LoopHost:
    """Knows whose the loop is.

    Inside asyncio the loop is the application's and nothing here runs it. Outside, ``poll`` runs a private loop for one
    round. Programs for Mongoose poll in a thread of their own and call listen() or close() from another: ``call``
    brings such calls into the loop's thread.
    """

    def __init__(self) -> None:
        try:
            self.loop = asyncio.get_running_loop()
            self.is_own = False
        except RuntimeError:
            self.loop = asyncio.new_event_loop()
            self.is_own = True
        self._lock = threading.RLock()  # held while the own loop runs, and by whoever works on it meanwhile
        self._poll_thread = 0
        self._stop_is_due = False
        self._stop_handle: asyncio.Handle | None = None

    @property
    def is_polling(self) -> bool:
        """A poll() is active."""
        return self._poll_thread != 0

    def check_current(self) -> None:
        """Refuse to be used inside another loop than ours."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not None and running is not self.loop:
            raise RuntimeError("this Manager belongs to another event loop")

    def call(self, function: Callable[[], T]) -> T:
        """Call a function where it may touch the loop: here, or in the thread that polls."""
        if not self.is_own or self._poll_thread == threading.get_ident():
            return function()
        outcome: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            if outcome.set_running_or_notify_cancel():
                try:
                    outcome.set_result(function())
                except BaseException as exc:
                    outcome.set_exception(exc)

        if self._lock.acquire(blocking=False):
            try:
                return function()
            finally:
                self._lock.release()
        self.loop.call_soon_threadsafe(run)
        while True:
            try:
                return outcome.result(timeout=0.1)
            except concurrent.futures.TimeoutError:
                # The poll may have ended before it came to us: then nobody else will call the function.
                if self._lock.acquire(blocking=False):
                    try:
                        if outcome.cancel():
                            return function()
                    finally:
                        self._lock.release()

    def poll(self, timeout: float) -> None:
        """Run the own loop until something has happened and been handled, at most ``timeout`` seconds.

        Raises:
            RuntimeError: called inside a running event loop.
            BusyError: another poll is active.
        """
        if not self.is_own:
            raise RuntimeError("poll() is for programs without asyncio: this Manager lives in a running event loop")
        if self._poll_thread:
            raise BusyError("poll() is not reentrant and must not be called concurrently")
        with self._lock:
            self._poll_thread = threading.get_ident()
            self._stop_is_due = False
            loop = self.loop
            if timeout > 0:
                handle: asyncio.Handle = loop.call_later(timeout, loop.stop)
            else:
                handle = loop.call_soon(self._stop_soon)
            try:
                with _deferred_interrupt(loop):
                    loop.run_forever()
            finally:
                handle.cancel()
                if self._stop_handle is not None:
                    self._stop_handle.cancel()
                self._poll_thread = 0

    def note_activity(self) -> None:
        """Something happened: an active poll returns after the loop turn that handles it."""
        if self._poll_thread and not self._stop_is_due:
            self._stop_soon()

    def _stop_soon(self) -> None:
        # One more turn, so that output queued now leaves before poll() returns.
        self._stop_is_due = True
        self._stop_handle = self.loop.call_soon(self.loop.stop)

    def close(self) -> None:
        """Close the own loop."""
        if self.is_own and not self.loop.is_closed():
            self.loop.close()


@contextlib.contextmanager
def _deferred_interrupt(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Let Ctrl-C stop the loop and raise KeyboardInterrupt behind it, not in the middle of a callback.

    Only where Python's own handler is in place, and in the main thread: elsewhere nothing changes.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    stops: list[asyncio.Handle] = []

    def note(*_: object) -> None:
        stops.append(loop.call_soon_threadsafe(loop.stop))

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for stop in stops:
            stop.cancel()  # it may have come too late for this round: the next one must not end by it
    if stops:
        raise KeyboardInterrupt
