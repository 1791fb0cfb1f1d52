"""How events reach user code: the sink that protocols feed, and the queue behind async handlers and iterators."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections import deque
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any, Protocol

from .errors import BusyError
from .events import MG_EV_CLOSE, MG_EV_READ, MG_EV_WRITE

_MAX_RUN = 64  # events that one reader takes without waiting, then others' turn comes
_COUNTED = frozenset({int(MG_EV_READ), int(MG_EV_WRITE)})


class EventSink(Protocol):
    """What a protocol object needs from whoever uses it: a place for its events.

    Attributes:
        wants: bit n: event n is asked for. Others may be left out, but for MG_EV_CLOSE.
    """

    wants: int

    def handle_event(self, ev: int, data: Any) -> bool:
        """Take one event; return whether user code has handled it, and all before it, already. Must not raise."""

    def when_handled(self, callback: Callable[[], None]) -> None:
        """Call back, once, when user code has handled every event given so far: at once if it has already."""

    def switch_protocol(self, protocol: Any) -> None:
        """Another protocol object has taken the connection over (upgrade)."""

    def spawn(self, coro: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a task for the protocol, and own it: what it raises is reported, and nobody forgets it."""


class HandlerKind(Enum):
    """What a handler is; decided once, when it is set."""

    NONE = "none"  # events are queued for an iterator
    SYNC = "sync"  # handler(conn, ev, data), called directly
    ASYNC = "async"  # async handler(conn, ev, data), run at once; it gets a task when it suspends
    SESSION = "session"  # async handler(conn), runs as the connection's task and iterates it


def handler_kind(handler: Callable[..., Any] | None) -> HandlerKind:
    """Tell what a handler is.

    Raises:
        TypeError: it is not callable.
    """
    if handler is None:
        return HandlerKind.NONE
    if not callable(handler):
        raise TypeError(f"handler must be callable, not {type(handler).__name__}")
    plain = handler
    while isinstance(plain, functools.partial):
        plain = plain.func
    # An object whose class has an async __call__ counts as well.
    if not inspect.iscoroutinefunction(plain) and not inspect.iscoroutinefunction(type(plain).__call__):
        return HandlerKind.SYNC
    try:
        inspect.signature(handler).bind(None)
    except TypeError:
        return HandlerKind.ASYNC
    return HandlerKind.SESSION


class EventQueue:
    """Events of one connection, in order, for one reader. Ends after MG_EV_CLOSE.

    Between two other events there is at most one MG_EV_READ and one MG_EV_WRITE: their byte counts add up. So a reader
    that is busy with a streamed body cannot be stopped by the events of that very body.

    ``on_low`` is called when a queue that was full has room again.
    """

    __slots__ = ("_barriers", "_counts", "_events", "_has_ended", "_is_full", "_limit", "_on_low", "_run", "_waiter")

    def __init__(self, limit: int, on_low: Callable[[], None]) -> None:
        self._events: deque[list[Any]] = deque()  # [ev, data]
        self._counts: dict[int, list[Any]] = {}  # the READ and the WRITE that further ones are added to
        self._barriers: deque[Callable[[], None]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._limit = limit
        self._on_low = on_low
        self._is_full = False
        self._has_ended = False
        self._run = 0  # events taken without waiting

    def put(self, ev: int, data: Any) -> bool:
        """Append an event; return whether the queue is full (it is taken all the same)."""
        if ev in _COUNTED:
            entry = self._counts.get(ev)
            if entry is not None:
                entry[1] += data
                return self._is_full
            entry = self._counts[ev] = [ev, data]
        else:
            entry = [ev, data]
            self._counts.clear()
        self._events.append(entry)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if len(self._events) >= self._limit:
            self._is_full = True
        return self._is_full

    def when_handled(self, callback: Callable[[], None]) -> None:
        if self._waiter is not None and not self._events:
            callback()
        else:
            self._barriers.append(callback)

    def release(self) -> None:
        """Call back whoever waits for events to be handled, although nobody takes any yet."""
        while self._barriers:
            self._barriers.popleft()()

    async def get(self) -> tuple[int, Any]:
        """Return the next event.

        Cancelling is safe: no event is lost.

        Raises:
            StopAsyncIteration: MG_EV_CLOSE has been returned before.
            BusyError: another task is waiting in get().
        """
        if self._waiter is not None:
            raise BusyError("another task is reading this connection")
        self._run += 1
        if self._run >= _MAX_RUN:
            self._run = 0
            await asyncio.sleep(0)  # one busy connection must not keep the others waiting
        while not self._events:
            if self._has_ended:
                raise StopAsyncIteration
            if self._barriers:
                self._barriers.popleft()()
                continue
            self._run = 0
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._take()

    async def get_waiting(self) -> tuple[int, Any] | None:
        """Return the next event, None when there is none and everybody who waited for that knows it."""
        self._run += 1
        if self._run >= _MAX_RUN:
            self._run = 0
            await asyncio.sleep(0)
        while not self._events:
            if not self._barriers:
                return None
            self._barriers.popleft()()
        return self._take()

    def _take(self) -> tuple[int, Any]:
        ev, data = self._events.popleft()
        if ev in _COUNTED:
            self._counts.clear()
        elif ev == MG_EV_CLOSE:
            self._has_ended = True
            self._barriers.clear()
        if self._is_full and len(self._events) <= self._limit // 2:
            self._is_full = False
            self._on_low()
        return ev, data


class CallbackSink:
    """Feeds events to a plain callable: what a protocol uses when it is used alone, without a Connection.

    Args:
        callback: called as ``callback(ev, data)``.
    """

    __slots__ = ("_callback", "_tasks", "wants")

    def __init__(self, callback: Callable[[int, Any], None]) -> None:
        self._callback = callback
        self._tasks: set[asyncio.Task[None]] = set()
        self.wants = -1

    def handle_event(self, ev: int, data: Any) -> bool:
        self._callback(ev, data)
        return True

    def when_handled(self, callback: Callable[[], None]) -> None:
        callback()

    def switch_protocol(self, protocol: Any) -> None:
        """The callback stays."""

    def spawn(self, coro: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
