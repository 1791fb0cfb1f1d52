"""What the transport tests share: a loop that is turned by hand, a pair of transports in memory, certificates, and the
two backends on every event loop that the project promises."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import os
import random
import socket
import ssl
import struct
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import pytest
import trustme

import asyncmg.core
from asyncmg.limits import DEFAULT_LIMITS
from asyncmg.transports.backend import AsyncioBackend

Splitter = Callable[[bytes], list[bytes]]


class ManualLoop:
    """The part of an event loop that a transport needs; the test turns it and sets its clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ready: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self.errors: list[dict[str, Any]] = []
        self._order = itertools.count()

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        self.ready.append((callback, args))

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(self.now + delay, callback, args, cast(asyncio.AbstractEventLoop, self))
        heapq.heappush(self.timers, (handle.when(), next(self._order), handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self.timers = [timer for timer in self.timers if timer[2] is not handle]

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)

    def run(self) -> None:
        """Turn until nothing is left to do now."""
        while self.ready:
            callback, args = self.ready.popleft()
            callback(*args)

    def advance(self, seconds: float) -> None:
        """Let the time pass."""
        self.now += seconds
        while self.timers and self.timers[0][0] <= self.now:
            handle = heapq.heappop(self.timers)[2]
            handle._run()
            self.run()
        self.run()


class MemoryTransport(asyncio.Transport):
    """One end of a pair: what is written is split, and delivered to the other end in later turns of the loop."""

    def __init__(self, loop: ManualLoop, split: Splitter, window: int) -> None:
        super().__init__(extra={"peername": ("memory", 0)})
        self.loop = loop
        self.split = split
        self.window = window  # bytes on their way to the peer; more waits in our buffer
        self.peer = self
        self.protocol: asyncio.BaseProtocol = asyncio.Protocol()
        self.writes: list[bytes] = []
        self.buffer = bytearray()
        self.arrived: deque[bytes] = deque()
        self.arrived_size = 0
        self.paused = self.closing = self.lost = self.eof_written = self.eof_sent = self.eof_arrived = False
        self.write_paused = False
        self.limits = (16 << 10, 64 << 10)
        self.scheduled = False

    def write(self, data: Any) -> None:
        assert not self.eof_written, "write() after write_eof()"
        assert type(data) is bytes and data
        if self.closing:
            return
        self.writes.append(data)
        self.buffer += data
        self._pump()
        if len(self.buffer) > self.limits[1] and not self.write_paused:
            self.write_paused = True
            self.protocol.pause_writing()

    def _pump(self) -> None:
        room = self.window - self.peer.arrived_size
        if room >= self.window // 2 and self.buffer and not self.lost:  # in big pieces, as TCP does
            chunk = bytes(self.buffer[:room])
            del self.buffer[:room]
            self.peer.arrived.extend(self.split(chunk))
            self.peer.arrived_size += len(chunk)
            self.peer.schedule()
        if self.write_paused and len(self.buffer) <= self.limits[0]:
            self.write_paused = False
            self.protocol.resume_writing()
        if not self.buffer and self.closing:
            self._lose(None)
        elif not self.buffer and self.eof_written:
            self._send_eof()

    def schedule(self) -> None:
        if not self.scheduled:
            self.scheduled = True
            self.loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self.scheduled = False
        if self.paused or self.lost:
            return
        protocol = cast(asyncio.Protocol, self.protocol)
        if self.arrived:
            data = self.arrived.popleft()
            self.arrived_size -= len(data)
            if not self.closing:
                protocol.data_received(data)
            self.peer._pump()
            self.schedule()
        elif self.eof_arrived:
            self.eof_arrived = False
            if not self.closing and not protocol.eof_received():
                self.close()

    def _lose(self, exc: Exception | None) -> None:
        if not self.lost:
            self.closing = self.lost = True
            self.loop.call_soon(self._connection_lost, exc)
            self._send_eof()

    def _send_eof(self) -> None:
        if not self.eof_sent:
            self.eof_sent = self.peer.eof_arrived = True
            self.peer.schedule()

    def _connection_lost(self, exc: Exception | None) -> None:
        protocol, self.protocol = self.protocol, asyncio.Protocol()
        protocol.connection_lost(exc)

    def take(self) -> bytes:
        """Take out what has arrived, as if somebody else had received it."""
        data = b"".join(self.arrived)
        self.arrived.clear()
        self.arrived_size = 0
        return data

    def cut(self, exc: Exception | None) -> None:
        """Lose the connection, as a reset does."""
        self._lose(exc)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof_written = True
        self._pump()

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self._pump()

    def abort(self) -> None:
        self.buffer.clear()
        self._lose(None)

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        self.schedule()

    def is_reading(self) -> bool:
        return not self.paused and not self.closing

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_write_buffer_size(self) -> int:
        return len(self.buffer)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self.limits

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        high = 64 << 10 if high is None else high
        self.limits = (high // 4 if low is None else low, high)


def whole(data: bytes) -> list[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def at_random(seed: int) -> Splitter:
    rng = random.Random(seed)

    def split(data: bytes) -> list[bytes]:
        cuts = sorted({0, len(data), *(rng.randrange(len(data)) for _ in range(rng.randrange(8)))})
        return [data[a:b] for a, b in itertools.pairwise(cuts)]

    return split


def memory_pair(
    loop: ManualLoop, split: Splitter = whole, window: int = 1 << 20
) -> tuple[MemoryTransport, MemoryTransport]:
    one, two = MemoryTransport(loop, split, window), MemoryTransport(loop, split, window)
    one.peer, two.peer = two, one
    return one, two


class Certificates:
    """A certificate authority, and contexts that use it."""

    def __init__(self) -> None:
        self.ca = trustme.CA()
        self.leaf = self.ca.issue_cert("localhost", "127.0.0.1")

    def server(self, leaf: trustme.LeafCert | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (leaf or self.leaf).configure_cert(context)
        return context

    def client(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.ca.configure_trust(context)
        return context


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    return Certificates()


@pytest.fixture
def manual_loop() -> Iterator[ManualLoop]:
    loop = ManualLoop()
    yield loop
    assert not loop.timers, "a timer was left behind"
    assert not loop.errors, loop.errors


# -- the two backends -----------------------------------------------------------------------------------------------

TIMEOUT = 8.0

_LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"stdlib": asyncio.SelectorEventLoop}
if sys.platform != "win32":
    import uvloop

    _LOOPS["uvloop"] = uvloop.new_event_loop


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every async test here runs on each loop."""
    return _LOOPS


def require_core() -> asyncmg.core.Core:
    """The core with its engine; what is missing skips the test, and fails it under ASYNCMG_REQUIRE_CORE=1."""
    path = asyncmg.core._find(asyncmg.core.__path__)
    core = asyncmg.core.Core(path) if path is not None else None
    if core is None or core.engine is None:
        if os.environ.get("ASYNCMG_REQUIRE_CORE") == "1":
            pytest.fail("the C core was not built, or has no engine")
        pytest.skip("no C core with an engine")
    return core


def make_native(limits: Any = DEFAULT_LIMITS) -> Any:
    """A native backend in the running loop that counts its turns."""
    core = require_core()
    from asyncmg.transports.native import NativeBackend

    class CountingBackend(NativeBackend):
        turns = 0

        def _turn(self) -> None:
            self.turns += 1
            super()._turn()

    return CountingBackend(core, asyncio.get_running_loop(), limits)


@pytest.fixture
async def native() -> AsyncIterator[Any]:
    """The native backend alone, for what is its own."""
    backend = make_native()
    yield backend
    await end_backend(backend)


@pytest.fixture(params=["asyncio", "native"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Each backend, held to one contract."""
    backend = make_native() if request.param == "native" else AsyncioBackend()
    yield backend
    await end_backend(backend)


async def end_backend(backend: Any) -> None:
    """Close it, and let what is left end."""
    backend.close()
    if backend.name == "native":
        await eventually(lambda: backend._engine is None)
    for _ in range(3):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], Any]) -> None:
    """Give the loop turns until a condition holds; fail when it does not come true in time."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.001)


def open_descriptors() -> int:
    """How many descriptors this process has."""
    return len(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"))


def reset(sock: socket.socket) -> None:
    """Close a TCP socket so that its peer gets a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
