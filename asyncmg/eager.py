"""Coroutines that begin at once and get a task only when they suspend: async handlers at the cost of plain ones.

A task waits, without work, for a coroutine that suspends. Until then coroutines are begun in its name, so that
``asyncio.current_task()``, and with it ``asyncio.timeout()`` and TaskGroup, work from their first line on; the one that
suspends is given to it and goes on in it. A new task then waits for the next one.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any


class Steps:
    """A coroutine that is run in a context of its own; to be awaited once.

    Args:
        coro: the coroutine.
        context: where it runs.
        pending: when its first step has been taken: a list of what it has yielded, a future or None.
    """

    __slots__ = ("_cancellation", "_context", "_coro", "_pending")

    def __init__(self, coro: Coroutine[Any, Any, Any], context: Context, pending: list[Any] | None = None) -> None:
        self._coro = coro
        self._context = context
        self._pending = pending
        self._cancellation: asyncio.CancelledError | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        coro, run = self._coro, self._context.run
        try:
            if self._cancellation is not None:
                pending = run(coro.throw, self._cancellation)
            else:
                pending = self._pending[0] if self._pending else run(coro.send, None)
            while True:
                try:
                    yield pending
                except BaseException as exc:
                    pending = run(coro.throw, exc)
                else:
                    pending = run(coro.send, None)
        except StopIteration as stop:
            return stop.value

    def cancel(self, error: asyncio.CancelledError) -> None:
        """The task was cancelled before it got here: what the coroutine waits for is cancelled, or its wait ends so."""
        pending = self._pending[0] if self._pending else None
        if pending is None or not pending.cancel(*error.args):
            self._cancellation = error


class Carrier:
    """A task that waits for a coroutine that has suspended.

    Attributes:
        task: the task.
        is_waiting: it can take one.
    """

    __slots__ = ("_finish", "_loop", "_rest", "_work", "is_waiting", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self.is_waiting = False
        self._loop = loop
        self._work: asyncio.Future[None] = loop.create_future()
        self._rest: Steps | None = None
        self._finish: Callable[[Any], Coroutine[Any, Any, None]] | None = None
        self.task = loop.create_task(self._run(), name=name)

    async def _run(self) -> None:
        self.is_waiting = True
        try:
            await self._work
        except asyncio.CancelledError as exc:
            if self._rest is None:
                raise
            self._rest.cancel(exc)  # by the coroutine itself, before it had suspended
        finally:
            self.is_waiting = False
        assert self._finish is not None
        await self._finish(self._rest)

    def begin(self, coro: Coroutine[Any, Any, Any], context: Context) -> list[Any] | BaseException | None:
        """Take a coroutine's first step in the name of the task.

        Returns:
            None when it is complete, a list of what it has yielded when it has suspended, or what it has raised.
        """
        loop, task = self._loop, self.task
        try:
            _enter_task(loop, task)
        except RuntimeError:  # an event that another task has caused
            return self._begin_inside(coro, context)
        self.is_waiting = False  # an event that this step causes is for another one
        try:
            return [context.run(coro.send, None)]
        except StopIteration:  # not kept: with its traceback it would be dearer than all the rest
            return None
        except BaseException as exc:
            return exc
        finally:
            _leave_task(loop, task)
            # Has the coroutine cancelled "its" task, no other one may have it.
            self.is_waiting = not (task.cancelling() or self._work.done())

    def _begin_inside(self, coro: Coroutine[Any, Any, Any], context: Context) -> list[Any] | BaseException | None:
        current = asyncio.current_task(self._loop)
        assert current is not None
        _leave_task(self._loop, current)
        try:
            return self.begin(coro, context)
        finally:
            _enter_task(self._loop, current)

    def take(self, rest: Steps, finish: Callable[[Any], Coroutine[Any, Any, None]], name: str) -> None:
        """Go on with a coroutine that has suspended, in the task.

        Args:
            finish: called with ``rest``, which is to be awaited; the coroutine that it returns is the rest of the task.
        """
        self.is_waiting = False
        self._rest = rest
        self._finish = finish
        self.task.set_name(name)
        if not self._work.done():
            self._work.set_result(None)
