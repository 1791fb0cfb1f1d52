"""The JSON-RPC calls of one connection: begun in the order they came, so many at a time, with back-pressure."""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Protocol

from .connection import Connection
from .errors import ConnectionClosed
from .protocols.base import BaseProtocol, Pause
from .rpc_messages import BUSY

_MAX_WAITING = 1000  # frames: more than come between the order to stop reading and its effect
_MAX_WAITING_FRAMES = 4  # of the largest size: what all that wait may add up to


class Work(NamedTuple):
    """Calls that are under way.

    Attributes:
        answer: to be awaited.
        places: how many they are, at the most.
    """

    answer: Coroutine[Any, Any, str]
    places: int


class Callee(Protocol):
    """What a lane needs of the Rpc whose methods are called."""

    max_concurrent: int
    max_frame: int

    def begin(self, frame: str | bytes, conn: Connection | None, places: int) -> str | Work: ...

    def refusal(self, frame: str | bytes, code: int, reason: str) -> str: ...


class Lane:
    """Serves the frames that come by one WebSocket connection.

    Args:
        pauses: stop reading while frames wait. A peer that is called as well must go on reading: answers come, too.
    """

    __slots__ = (
        "_callee",
        "_conn",
        "_is_blocked",
        "_is_over",
        "_is_paused",
        "_pauses",
        "_running",
        "_tasks",
        "_waiting",
        "_waiting_size",
    )

    def __init__(self, callee: Callee, conn: Connection, *, pauses: bool = True) -> None:
        self._callee = callee
        # Rpc finds lanes by their connections: one that a lane held would never be forgotten.
        self._conn = weakref.ref(conn)
        self._pauses = pauses
        self._running = 0
        self._waiting: deque[str | bytes] = deque()
        self._waiting_size = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_paused = False
        self._is_blocked = False  # the peer does not take its answers
        self._is_over = False

    def take(self, frame: str | bytes) -> None:
        """Serve a frame, now or when there is a place."""
        conn = self._conn()
        if self._is_over or conn is None:
            return
        if not self._is_busy and not self._waiting:
            self._begin(conn, frame)
        elif self._waiting and self._is_full(len(frame)):
            # More came before reading stopped, or could not be stopped.
            self._send(conn, self._callee.refusal(frame, BUSY, "too many calls are waiting"))
        else:
            self._waiting.append(frame)
            self._waiting_size += len(frame)
            self._pause(conn)

    def _is_full(self, size: int) -> bool:
        max_size = _MAX_WAITING_FRAMES * self._callee.max_frame
        return len(self._waiting) >= _MAX_WAITING or self._waiting_size + size > max_size

    @property
    def _is_busy(self) -> bool:
        return self._is_blocked or self._running >= self._callee.max_concurrent

    def _begin(self, conn: Connection, frame: str | bytes) -> None:
        outcome = self._callee.begin(frame, conn, self._callee.max_concurrent - self._running)
        if isinstance(outcome, str):
            self._send(conn, outcome)
        else:
            self.run(conn, outcome, functools.partial(self._send, conn))

    def run(self, conn: Connection, work: Work, deliver: Callable[[str], None]) -> None:
        """Await work, then deliver its answer, unless the connection has closed."""
        self._running += work.places
        task = conn.spawn(_answer(work, deliver), "asyncmg-rpc")
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._end, work))

    def _end(self, work: Work, task: asyncio.Task[None]) -> None:
        work.answer.close()  # cancelled before its first step it has not been awaited
        self._tasks.discard(task)
        self._running -= work.places
        self._go_on()

    def _send(self, conn: Connection, answer: str) -> None:
        if not answer or conn.is_closing:
            return
        try:
            conn.ws_send(answer)
        except ConnectionClosed:
            return
        if not conn.is_writable and not self._is_blocked:
            self._is_blocked = True
            self._pause(conn)
            task = conn.spawn(_await_room(conn), "asyncmg-rpc-flush")
            self._tasks.add(task)
            task.add_done_callback(self._unblock)

    def _unblock(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._is_blocked = False
        self._go_on()

    def _go_on(self) -> None:
        conn = self._conn()
        if conn is None or conn.is_ended:
            self._waiting.clear()
            return
        while self._waiting and not self._is_busy:
            frame = self._waiting.popleft()
            self._waiting_size -= len(frame)
            self._begin(conn, frame)
        if self._is_paused and not self._waiting and not self._is_blocked:
            self._is_paused = False
            if isinstance(conn.protocol, BaseProtocol):
                conn.protocol.resume_reading(Pause.EVENTS)

    def _pause(self, conn: Connection) -> None:
        protocol = conn.protocol
        if self._pauses and isinstance(protocol, BaseProtocol) and not conn.is_ended:
            # Each time: an event queue that is no longer full has perhaps resumed it.
            self._is_paused = True
            protocol.pause_reading(Pause.EVENTS)

    def cancel(self) -> None:
        """The connection has closed: nobody waits for an answer."""
        self._is_over = True
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()


async def _await_room(conn: Connection) -> None:
    try:
        await conn.flush()
    except ConnectionClosed:
        pass  # MG_EV_CLOSE tells it


async def _answer(work: Work, deliver: Callable[[str], None]) -> None:
    answer = await work.answer
    try:
        deliver(answer)
    except ConnectionClosed:
        pass  # there is nobody to be told
