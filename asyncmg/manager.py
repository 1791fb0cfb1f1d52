"""Manager: listeners, connections, timers and shutdown, inside a running event loop or outside one by poll()."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Literal, Self

from .codecs.choice import http_codec
from .connecting import Connectors
from .connection import Connection, Handler
from .dispatch import handler_kind
from .eager import Carrier
from .errors import ManagerClosed
from .events import DEFAULT_EVENT_MASK, MG_EV_POLL, MG_EV_WAKEUP, event_mask
from .limits import DEFAULT_LIMITS, Limits
from .listener import Listener
from .listening import Listeners
from .loop_host import LoopHost
from .places import Places
from .protocols.base import TlsArgument
from .resolver.service import Resolver
from .signals import install_signal_handler
from .timers import Timer
from .transports.backend import Backend
from .transports.choice import chosen_backend, make_backend
from .transports.sockets import max_descriptors

logger = logging.getLogger("asyncmg.manager")

_HANDLER_GRACE = 0.25  # for async handlers to take MG_EV_CLOSE before they are cancelled
_SETTLE_TIMEOUT = 1.0  # for transports to report their end after they were aborted


class Manager(Listeners, Connectors):
    """Owns connections, listeners and timers.

    Inside asyncio use it as an async context manager; leaving it stops gracefully::

        async with Manager(handler) as manager:
            manager.listen("http://127.0.0.1:8000")
            await manager.serve_forever()

    Outside asyncio call ``poll()`` in a loop, or ``run()``.

    Args:
        handler: default handler: ``handler(conn, ev, data)``, plain or async, or ``async handler(conn)``.
        enable_wakeup: :meth:`wakeup` works.
        error_handler: called with every exception that a handler or timer raises; default: they are logged.
        backend: "native" uses the sockets of the C engine, "asyncio" the running loop's transports; "auto" takes the
            native one where it can serve, unless the environment variable ``ASYNCMG_BACKEND`` names another.
        limits: see :mod:`asyncmg.limits`.
        events: the events to deliver; default: all but MG_EV_POLL. MG_EV_CLOSE is always delivered.
        resolver: looks up names; default: one that all Managers share.
    """

    def __init__(
        self,
        handler: Handler | None = None,
        enable_wakeup: bool = False,
        error_handler: Callable[[Exception], Any] | None = None,
        *,
        backend: Literal["auto", "asyncio", "native"] = "auto",
        limits: Limits = DEFAULT_LIMITS,
        events: Iterable[int] | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        self._resolver = resolver
        self._resolving: dict[int, asyncio.Task[None]] = {}
        self._backend_name = chosen_backend(backend)
        self._http_codec = http_codec()
        self._backend: Backend | None = None
        handler_kind(handler)
        self.default_handler = handler
        self.limits = limits
        self.event_mask = DEFAULT_EVENT_MASK if events is None else event_mask(events)
        self._error_handler = error_handler
        self._wakeup_is_enabled = enable_wakeup
        self._host: LoopHost | None = None
        self._host_lock = threading.Lock()
        self.has_ended = False
        self._next_id = 1
        self._connections: dict[int, Connection] = {}
        self._places = Places(min(limits.net.max_connections, max(1, int(0.8 * max_descriptors()))))
        self._empty = asyncio.Event()
        self._stop_requested = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timers: set[Timer] = set()
        self.spare: Carrier | None = None
        self.is_polled = False  # poll() has to know of every event

    def __repr__(self) -> str:
        return "<Manager closed>" if self.has_ended else f"<Manager {len(self._connections)} connections>"

    # -- life ----------------------------------------------------------------------------------------------------

    def _require_host(self) -> LoopHost:
        """Return the loop's host; the first call decides whose loop it is."""
        if self.has_ended:
            raise ManagerClosed("Manager has been freed")
        if self._host is None:
            with self._host_lock:  # a polling thread and another may both be the first
                if self._host is None:
                    self._host = LoopHost()
                    self.is_polled = self._host.is_own
        self._host.check_current()
        return self._host

    def _require_backend(self) -> Backend:
        if self._backend is None:
            self._backend = make_backend(self._backend_name, self._loop_host().loop, self.limits)
        return self._backend

    @property
    def backend(self) -> str:
        """``"asyncio"`` or ``"native"``; ``"auto"`` before the first listener or connection has decided it."""
        return self._backend.name if self._backend is not None else self._backend_name

    def _loop_host(self) -> LoopHost:
        assert self._host is not None  # there are connections and timers only where there is a loop
        return self._host

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        if self._require_host().is_own:
            raise RuntimeError("this Manager has been used outside asyncio: make a new one here")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.shutdown(None if exc_type is None else 0)

    def poll(self, timeout_ms: int = 0) -> None:
        """Handle what has happened; wait for it at most ``timeout_ms`` milliseconds. For programs without asyncio.

        Raises:
            ManagerClosed: the manager is closed.
            BusyError: called from a handler, or while another thread polls.
            RuntimeError: called inside a running event loop.
        """
        self._require_host().poll(timeout_ms / 1000)
        if self.event_mask >> MG_EV_POLL & 1:
            for conn in self.connections:
                conn.handle_event(MG_EV_POLL, None)

    def run(self, poll_ms: int = 100) -> None:
        """Serve until SIGINT or SIGTERM or :meth:`stop`, stop gracefully, close. For programs without asyncio.

        Args:
            poll_ms: longest time between two MG_EV_POLL events, when they are asked for.
        """
        host = self._require_host()
        if not host.is_own:
            raise RuntimeError("run() is for programs without asyncio: await serve_forever() instead")
        if self.event_mask >> MG_EV_POLL & 1:
            self.timer_add(poll_ms, self._emit_poll, repeat=True)
        try:
            host.loop.run_until_complete(self.serve_forever())
        finally:
            self.close()

    def _emit_poll(self) -> None:
        for conn in self.connections:
            conn.handle_event(MG_EV_POLL, None)

    async def serve_forever(self, *, handle_signals: bool = True) -> None:
        """Wait until SIGINT, SIGTERM or :meth:`stop`, then stop gracefully. A second signal stops at once.

        Cancelling is safe: the signal handlers are restored, the manager goes on until it is closed.

        Args:
            handle_signals: install handlers, as far as this is the main thread.
        """
        loop = self._require_host().loop
        with contextlib.ExitStack() as stack:
            if handle_signals and threading.current_thread() is threading.main_thread():
                for number in (signal.SIGINT, signal.SIGTERM):
                    stack.callback(install_signal_handler(loop, number, self.stop))
            await self._stop_requested.wait()
            await self.shutdown()

    def stop(self) -> None:
        """Let :meth:`serve_forever` or :meth:`run` stop gracefully; called again, at once. To be called in the loop."""
        if self._stop_requested.is_set():
            self._abort_all()
        self._stop_requested.set()

    async def shutdown(self, timeout: float | None = None) -> None:
        """Stop gracefully and close: accept nothing new, let what is under way finish, then abort the rest.

        Cancelling it closes at once.

        Args:
            timeout: seconds; default: ``limits.net.graceful_timeout``.
        """
        if self.has_ended:
            return
        if timeout is None:
            timeout = self.limits.net.graceful_timeout
        self._cancel_timers()
        try:
            try:
                if timeout > 0:
                    for conn in sorted(self.connections, key=lambda conn: not conn.is_listening):
                        conn.shutdown()
                    await self._wait_until_empty(timeout)
            finally:
                self._abort_all()
                self.has_ended = True
                self._cancel_timers()  # handlers have perhaps added some
            await self._wait_until_empty(_SETTLE_TIMEOUT)
            await self._cancel_tasks()
            if self._backend is not None:
                self._backend.close()
        except asyncio.CancelledError:
            for task in self._tasks - {asyncio.current_task()}:
                task.cancel()
            if self.spare is not None:
                self.spare.task.cancel()
            if self._backend is not None:
                self._backend.close()
            raise

    def _cancel_timers(self) -> None:
        for timer in tuple(self._timers):
            timer.cancel()

    async def _wait_until_empty(self, timeout: float) -> None:
        self._empty.clear()
        if self._connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), timeout)

    async def _cancel_tasks(self) -> None:
        """Let handlers see MG_EV_CLOSE and end by themselves, then cancel those that do not."""
        tasks = self._tasks - {asyncio.current_task()}
        if tasks:
            _, tasks = await asyncio.wait(tasks, timeout=_HANDLER_GRACE)
        if self.spare is not None and not self.spare.task.done():
            tasks.add(self.spare.task)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_SETTLE_TIMEOUT)

    def _abort_all(self) -> None:
        for conn in self.connections:
            conn.close()

    def close(self) -> None:
        """Close everything now; every connection gets MG_EV_CLOSE. May be called again.

        Inside a running loop the transports end in the loop's next turns: prefer ``await shutdown(0)`` there.

        Raises:
            RuntimeError: a poll() is active.
        """
        host = self._host
        if self.has_ended or host is None:
            self.has_ended = True
            if host is not None and host.is_own and not host.loop.is_running():
                host.close()
            return
        if not host.is_own:
            self._abort_all()
            self._cancel_timers()
            for task in self._tasks:
                task.cancel()
            if self.spare is not None:
                self.spare.task.cancel()
            if self._backend is not None:
                self._backend.close()
            self.has_ended = True
            return
        if host.is_polling or host.loop.is_running():
            raise RuntimeError(
                "Cannot close Manager while poll() is active. Stop all polling threads before calling close()."
            )
        host.loop.run_until_complete(self.shutdown(0))
        if self._backend is not None:
            self._backend.free()
        host.close()

    # -- timers and wakeup ---------------------------------------------------------------------------------------

    def timer_add(
        self, milliseconds: int, callback: Callable[[], Any], repeat: bool = False, run_now: bool = False
    ) -> Timer:
        """Call back after a time.

        Args:
            milliseconds: 0 or more.
            callback: without arguments; it may be async.
            repeat: again and again, without drift.
            run_now: also in the next loop turn.

        Raises:
            TypeError: callback is not callable, or milliseconds not a number.
            OverflowError: milliseconds is negative (as in cymongoose).
        """
        if not callable(callback):
            raise TypeError(f"callback must be callable, not {type(callback).__name__}")
        if not isinstance(milliseconds, int | float):
            raise TypeError(f"milliseconds must be a number, not {type(milliseconds).__name__}")
        if not 0 <= milliseconds < float("inf"):
            raise OverflowError("milliseconds must be finite and not negative")
        host = self._require_host()

        def add() -> Timer:
            timer = Timer(self, host.loop, milliseconds / 1000, callback, repeat=repeat, run_now=run_now)
            self._timers.add(timer)
            return timer

        return host.call(add)

    def forget_timer(self, timer: Timer) -> None:
        self._timers.discard(timer)

    @property
    def wakeup_id(self) -> int:
        """Not 0 when wakeup is enabled."""
        return int(self._wakeup_is_enabled)

    def wakeup(self, connection_id: int, data: bytes = b"") -> bool:
        """Send MG_EV_WAKEUP with data to a connection; from any thread. Any size, nothing lost.

        Returns:
            False when wakeup is not enabled or there is no such connection.

        Raises:
            TypeError: data is not bytes.
            ManagerClosed: the manager is closed.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"expected bytes, got {type(data).__name__}")
        if self.has_ended:
            raise ManagerClosed("Manager has been freed")
        conn = self._connections.get(connection_id)
        if not self._wakeup_is_enabled or conn is None or self._host is None:
            return False
        self._host.loop.call_soon_threadsafe(self._deliver_wakeup, connection_id, bytes(data))
        return True

    def _deliver_wakeup(self, connection_id: int, data: bytes) -> None:
        conn = self._connections.get(connection_id)
        if conn is not None:
            conn.handle_event(MG_EV_WAKEUP, data)

    # -- what connections and timers need ------------------------------------------------------------------------

    @property
    def connections(self) -> tuple[Connection, ...]:
        """A snapshot of all connections, listeners included."""
        return tuple(self._connections.values())

    def _take_id(self) -> int:
        taken = self._next_id
        self._next_id += 1
        return taken

    def spawn(self, coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run a coroutine as a task that the manager owns: what it raises is reported, close() cancels it."""
        # Also while closing: MG_EV_CLOSE may be the first event that an async handler gets.
        task = self._loop_host().loop.create_task(coro, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._handle_task_end)
        return task

    def carrier(self) -> Carrier | None:
        """Return a task that takes an async handler when it suspends; None: none is ready, or the loop does not run."""
        carrier = self.spare
        host = self._loop_host()
        if asyncio._get_running_loop() is not host.loop:
            return None
        if carrier is not None and carrier.is_waiting:
            return carrier
        if (carrier is None or carrier.task.done()) and not self.has_ended:
            self.spare = Carrier(host.loop, "asyncmg-spare")
        return None

    def hand_over(self, carrier: Carrier) -> None:
        """The carrier has taken a handler: its task is one like others, and a new one will be needed."""
        self._tasks.add(carrier.task)
        carrier.task.add_done_callback(self._handle_task_end)
        self.spare = None if self.has_ended else Carrier(self._loop_host().loop, "asyncmg-spare")

    def _handle_task_end(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            error = task.exception()
            if isinstance(error, Exception):
                self.report_callback_error(error)

    def report(self, error: Exception, conn: Connection) -> None:
        """A handler of this connection raised."""
        self._report(error, f"handler of connection {conn.id} raised")

    def report_callback_error(self, error: Exception) -> None:
        self._report(error, "callback raised")

    def _report(self, error: Exception, what: str) -> None:
        if self._error_handler is not None:
            try:
                self._error_handler(error)
                return
            except Exception as exc:
                logger.error("error_handler raised", exc_info=exc)
        logger.error("%s: %s", what, error, exc_info=error)

    def note_activity(self) -> None:
        if self._host is not None:
            self._host.note_activity()

    def forget(self, conn: Connection) -> None:
        """A connection has been told MG_EV_CLOSE."""
        if self._connections.pop(conn.id, None) is None:
            return
        if self._resolving:
            self.end_resolving(conn)
        if conn.counts_as_accepted:
            self._places.give_back()
        elif isinstance(conn, Listener):
            self._places.listeners -= 1
        if not self._connections:
            self._empty.set()


@contextlib.asynccontextmanager
async def connect(
    url: str,
    *,
    http: bool | None = None,
    tls: TlsArgument | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> AsyncIterator[Connection]:
    """Connect, iterate events, drain at the end; without a Manager of your own::

        async with asyncmg.connect("tcp://127.0.0.1:9000") as conn:
            conn.send(b"hello")
            async for ev, data in conn:
                ...

    Cancelling is safe: the connection is closed.

    Raises:
        ConnectFailed: the connection could not be made.
    """
    async with Manager(limits=limits) as manager, manager.connect(url, http=http, tls=tls) as conn:
        yield conn
