"""Deadlines of one connection on a single loop timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    """Calls back at a time of the loop."""

    def call_at(self, when: float, callback: Callable[[], None], /) -> Timer: ...


class Deadlines:
    """Named deadlines of which at most one timer handle is armed.

    Moving a deadline further away, which every request does, costs a dictionary entry: the timer is armed again only
    when it fires too early.
    """

    __slots__ = ("_armed_at", "_due", "_handle", "_loop", "clock")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.clock: Clock = loop  # who arms the timer: the loop, or a transport that can
        self._due: dict[str, tuple[float, Callable[[], None]]] = {}
        self._handle: Timer | None = None
        self._armed_at = 0.0

    def set(self, name: str, when: float, callback: Callable[[], None]) -> None:
        """Call back at ``when`` (loop time), instead of what was set under this name."""
        self._due[name] = (when, callback)
        if self._handle is None:
            self._arm(when)
        elif when < self._armed_at:
            self._handle.cancel()
            self._arm(when)

    def clear(self, name: str) -> None:
        self._due.pop(name, None)

    def cancel(self) -> None:
        """Forget all deadlines and the timer."""
        self._due.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, when: float) -> None:
        self._armed_at = when
        self._handle = self.clock.call_at(when, self)

    def __call__(self) -> None:
        """The timer has fired. (It calls the object itself: a bound method would be one more per connection.)"""
        self._handle = None
        now = self._loop.time() + 0.001  # a timer may fire a clock tick early
        for name, entry in sorted(self._due.items(), key=lambda item: item[1][0]):
            # A callback before this one may have moved or cleared it.
            if entry[0] <= now and self._due.get(name) is entry:
                del self._due[name]
                entry[1]()
        if self._due and self._handle is None:
            self._arm(min(when for when, _ in self._due.values()))
