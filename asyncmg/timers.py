"""Timers of a Manager: drift-free, cancellable from any thread, with plain or async callbacks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol


class TimerOwner(Protocol):
    """What a timer needs from its Manager."""

    def spawn(self, coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]: ...

    def report_callback_error(self, error: Exception) -> None: ...

    def forget_timer(self, timer: Timer) -> None: ...

    def note_activity(self) -> None: ...


class Timer:
    """A timer made by Manager.timer_add.

    A repeating timer keeps to its grid: a late call does not move the next one, calls that were missed are not made up
    for. While an async callback is still running, its next call is skipped.

    Attributes:
        skipped: calls left out, for either reason.
    """

    __slots__ = (
        "_callback",
        "_handle",
        "_interval",
        "_is_active",
        "_loop",
        "_next",
        "_owner",
        "_repeat",
        "_task",
        "skipped",
    )

    def __init__(
        self,
        owner: TimerOwner,
        loop: asyncio.AbstractEventLoop,
        interval: float,
        callback: Callable[[], Any],
        *,
        repeat: bool,
        run_now: bool,
    ) -> None:
        self._owner = owner
        self._loop = loop
        self._interval = interval
        self._callback = callback
        self._repeat = repeat
        self._is_active = True
        self._task: asyncio.Task[Any] | None = None
        self.skipped = 0
        self._next = loop.time() + interval
        if run_now:
            loop.call_soon(self._run_now)
        self._handle: asyncio.TimerHandle = loop.call_at(self._next, self._fire)

    def __repr__(self) -> str:
        return f"<Timer every {self._interval} s>" if self._is_active else "<Timer inactive>"

    @property
    def active(self) -> bool:
        """Whether the callback will be called again."""
        return self._is_active

    def cancel(self) -> None:
        """Stop the timer; from any thread. A callback that is running already goes on."""
        if not self._is_active:
            return
        self._is_active = False
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop or not self._loop.is_running():
            self._retire()
        else:
            self._loop.call_soon_threadsafe(self._retire)

    def _retire(self) -> None:
        self._is_active = False
        self._handle.cancel()
        self._owner.forget_timer(self)

    def _run_now(self) -> None:
        if self._is_active:
            self._call()

    def _fire(self) -> None:
        if not self._is_active:
            return
        if self._repeat:
            now = self._loop.time()
            # An interval of 0 means once a loop turn: there is no grid to keep to.
            missed = int((now - self._next) / self._interval) if self._interval else 0
            self.skipped += missed
            self._next = self._next + (missed + 1) * self._interval if self._interval else now
            self._handle = self._loop.call_at(self._next, self._fire)
        else:
            self._retire()
        self._call()

    def _call(self) -> None:
        self._owner.note_activity()
        if self._task is not None and not self._task.done():
            self.skipped += 1
            return
        try:
            result = self._callback()
        except Exception as exc:
            self._owner.report_callback_error(exc)
            return
        if isinstance(result, Awaitable):
            self._task = self._owner.spawn(self._finish(result), "asyncmg-timer")

    async def _finish(self, result: Awaitable[Any]) -> None:
        try:
            await result
        except Exception as exc:
            self._owner.report_callback_error(exc)
