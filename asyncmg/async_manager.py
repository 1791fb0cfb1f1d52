"""AsyncManager: the name and calls of cymongoose's, which runs a thread beside asyncio; this one lives in the loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from .connection import Connection, Handler
from .errors import BusyError, ManagerClosed
from .events import DEFAULT_EVENT_MASK, MG_EV_POLL, event_mask
from .limits import DEFAULT_LIMITS, Limits
from .listener import Listener
from .manager import Manager
from .protocols.base import TlsArgument
from .resolver.service import Resolver
from .timers import Timer

T = TypeVar("T")


class AsyncManager:
    """A Manager for programs written for cymongoose's AsyncManager; in new ones use :class:`Manager` itself.

    ::

        async with AsyncManager(handler) as am:
            am.listen("http://127.0.0.1:8000")
            await asyncio.sleep(3600)

    There is no thread: handlers and timers run in the event loop, may be async, and must not block. All methods may be
    called from other threads as well; they wait for the loop then. It may be entered again after it has been left.

    Args:
        handler: default handler, plain or async; see :class:`Manager`.
        poll_interval: milliseconds between two MG_EV_POLL, when ``events`` asks for them.
        error_handler: called with every exception that a handler or timer raises; default: they are logged.
        shutdown_timeout: seconds that connections get to finish what is under way when it is left.
        backend, limits, events, resolver: see :class:`Manager`. Wakeup is enabled.
    """

    def __init__(
        self,
        handler: Handler | None = None,
        poll_interval: int = 100,
        error_handler: Callable[[Exception], Any] | None = None,
        shutdown_timeout: float = 30,
        *,
        backend: Literal["auto", "asyncio", "native"] = "auto",
        limits: Limits = DEFAULT_LIMITS,
        events: Iterable[int] | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        if poll_interval <= 0:
            raise ValueError(f"poll_interval must be positive, not {poll_interval!r}")
        if not 0 <= shutdown_timeout < float("inf"):
            raise ValueError(f"shutdown_timeout must be finite and not negative, not {shutdown_timeout!r}")
        chosen = None if events is None else tuple(events)
        self._poll_interval = poll_interval
        self._polls = bool((DEFAULT_EVENT_MASK if chosen is None else event_mask(chosen)) >> MG_EV_POLL & 1)
        self._shutdown_timeout = shutdown_timeout
        self._handler = handler
        self._error_handler = error_handler
        self._options: dict[str, Any] = {"backend": backend, "limits": limits, "events": chosen, "resolver": resolver}
        self._manager: Manager | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"<AsyncManager {self._manager!r}>" if self._manager is not None else "<AsyncManager not started>"

    # -- life ----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._manager is not None:
            raise BusyError("this AsyncManager has been entered already")
        self._loop = asyncio.get_running_loop()
        self._manager = await Manager(self._handler, True, self._error_handler, **self._options).__aenter__()
        if self._polls:
            self._manager.timer_add(self._poll_interval, self._emit_poll, repeat=True)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        manager = self._manager
        if manager is None:
            return
        try:
            # What is under way may still connect, schedule and set timers.
            await manager.shutdown(self._shutdown_timeout if exc_type is None else 0)
        finally:
            self._manager = self._loop = None

    def _emit_poll(self) -> None:
        for conn in self.manager.connections:
            conn.handle_event(MG_EV_POLL, None)

    @property
    def manager(self) -> Manager:
        """The Manager, which belongs to the loop's thread.

        Raises:
            ManagerClosed: it has not been entered. (It is a RuntimeError.)
        """
        if self._manager is None:
            raise ManagerClosed("AsyncManager is not started")
        return self._manager

    @property
    def running(self) -> bool:
        """Whether it has been entered and not left."""
        return self._manager is not None

    @property
    def connections(self) -> tuple[Connection, ...]:
        """A snapshot of all connections, listeners included."""
        return self.manager.connections

    def _call(self, function: Callable[[], T]) -> T:
        """Call a function in the loop's thread, and wait for it when that is another one."""
        loop = self._loop
        if self._manager is None or loop is None:
            raise ManagerClosed("AsyncManager is not started")
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is loop:
            return function()
        outcome: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            if outcome.set_running_or_notify_cancel():
                try:
                    outcome.set_result(function())
                except Exception as exc:
                    outcome.set_exception(exc)

        loop.call_soon_threadsafe(run)
        while True:
            try:
                return outcome.result(timeout=0.1)
            except concurrent.futures.TimeoutError:
                # It may have been left before it came to us: then nobody calls the function any more.
                if (not self.running or loop.is_closed()) and outcome.cancel():
                    raise ManagerClosed("AsyncManager is not started") from None

    # -- connections ---------------------------------------------------------------------------------------------

    def listen(
        self, url: str, handler: Handler | None = None, *, http: bool | None = None, tls: TlsArgument | None = None
    ) -> Listener | Connection:
        """Listen; see :meth:`Manager.listen`."""
        return self._call(lambda: self.manager.listen(url, handler, http=http, tls=tls))

    def connect(
        self, url: str, handler: Handler | None = None, *, http: bool | None = None, tls: TlsArgument | None = None
    ) -> Connection:
        """Begin to connect; see :meth:`Manager.connect`."""
        return self._call(lambda: self.manager.connect(url, handler, http=http, tls=tls))

    def http_listen(self, url: str, handler: Handler | None = None, *, tls: TlsArgument | None = None) -> Listener:
        """Listen for HTTP; see :meth:`Manager.listen`."""
        return self._call(lambda: self.manager.http_listen(url, handler, tls=tls))

    def http_connect(self, url: str, handler: Handler | None = None, *, tls: TlsArgument | None = None) -> Connection:
        """Begin to connect for HTTP; see :meth:`Manager.connect`."""
        return self._call(lambda: self.manager.http_connect(url, handler, tls=tls))

    def ws_connect(self, url: str, handler: Handler | None = None, **options: Any) -> Connection:
        """Begin to connect for WebSocket; options as in :meth:`Manager.ws_connect`."""
        return self._call(lambda: self.manager.ws_connect(url, handler, **options))

    def mqtt_connect(self, url: str, handler: Handler | None = None, **options: Any) -> Connection:
        """Begin to connect to an MQTT broker; options as in :meth:`Manager.mqtt_connect`."""
        return self._call(lambda: self.manager.mqtt_connect(url, handler, **options))

    def mqtt_listen(self, url: str, handler: Handler | None = None, *, tls: TlsArgument | None = None) -> Listener:
        """Listen for MQTT; see :meth:`Manager.mqtt_listen`."""
        return self._call(lambda: self.manager.mqtt_listen(url, handler, tls=tls))

    def sntp_connect(self, url: str, handler: Handler | None = None) -> Connection:
        """Open a connection to an SNTP server; see :meth:`Manager.sntp_connect`."""
        return self._call(lambda: self.manager.sntp_connect(url, handler))

    def wakeup(self, connection_id: int, data: bytes = b"") -> bool:
        """Send MG_EV_WAKEUP to a connection; see :meth:`Manager.wakeup`."""
        return self.manager.wakeup(connection_id, data)

    # -- timers and work -----------------------------------------------------------------------------------------

    def timer_add(self, ms: int, callback: Callable[..., Any], *, repeat: bool = False, run_now: bool = False) -> Timer:
        """Call back after ``ms`` milliseconds; see :meth:`Manager.timer_add`."""
        return self._call(lambda: self.manager.timer_add(ms, callback, repeat=repeat, run_now=run_now))

    def schedule(self, coro_or_callback: Coroutine[Any, Any, Any] | Callable[[], Any]) -> None:
        """Run a coroutine, or call a function (which may be async), in the loop, soon; from any thread.

        What it raises goes to the error handler. Leaving the AsyncManager cancels what is still running.

        Raises:
            TypeError: it is neither.
            ManagerClosed: the AsyncManager has not been entered.
        """
        loop, manager = self._loop, self._manager
        if loop is None or manager is None:
            if asyncio.iscoroutine(coro_or_callback):
                coro_or_callback.close()  # it will not be awaited
            raise ManagerClosed("AsyncManager is not started")
        if not asyncio.iscoroutine(coro_or_callback) and not callable(coro_or_callback):
            raise TypeError(f"neither a coroutine nor callable: {type(coro_or_callback).__name__}")
        loop.call_soon_threadsafe(_run, manager, coro_or_callback)


def _run(manager: Manager, work: Any) -> None:
    if manager.has_ended:
        if asyncio.iscoroutine(work):
            work.close()
        return
    try:
        outcome = work if asyncio.iscoroutine(work) else work()
    except Exception as exc:
        manager.report_callback_error(exc)
        return
    if isinstance(outcome, Awaitable):
        manager.spawn(_await(outcome), "asyncmg-scheduled")


async def _await(outcome: Awaitable[Any]) -> None:
    await outcome
