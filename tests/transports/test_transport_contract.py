"""asyncio's contract of stream transports and protocols: kept by asyncio's own, and by the native backend's."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import resource
import socket
import sys
import tempfile
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncmg.limits import DEFAULT_LIMITS, NetLimits
from asyncmg.transports.backend import AsyncioBackend
from tests.transports.conftest import (
    TIMEOUT,
    end_backend,
    eventually,
    make_native,
    open_descriptors,
    require_core,
    reset,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the engine is for POSIX")

BIG = bytes(range(256)) * 40_960  # 10 MB
KINDS = ["socketpair", "tcp4", "tcp6", "unix"]


class Recorder(asyncio.Protocol):
    """Writes down what it is told; ``on[name]`` is called then, with the recorder."""

    def __init__(self, *, keep_open: bool = False, **on: Callable[[Recorder], Any]) -> None:
        self.calls: list[str] = []
        self.received = bytearray()
        self.exc: BaseException | None = None
        self.keep_open = keep_open
        self.on = on
        self.transport: Any = None

    def told(self, name: str) -> None:
        self.calls.append(name)
        if name in self.on:
            self.on[name](self)

    def count(self, name: str) -> int:
        return self.calls.count(name)

    @property
    def is_lost(self) -> bool:
        return "lost" in self.calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.told("made")

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes and data
        self.received += data
        self.told("data")

    def eof_received(self) -> bool:
        self.told("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self.told("pause")

    def resume_writing(self) -> None:
        self.told("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.exc = exc
        self.told("lost")


class Sockets:
    """Makes connected sockets, and closes what is left of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._open: list[socket.socket] = []

    def pair(self, kind: str = "tcp4") -> tuple[socket.socket, socket.socket]:
        if kind == "socketpair":
            pair = socket.socketpair()
        elif kind == "unix":
            path = str(self.directory / f"s{len(self._open)}")
            pair = self._connect(socket.AF_UNIX, path)
        elif kind == "tcp6":
            try:
                pair = self._connect(socket.AF_INET6, ("::1", 0))
            except OSError:
                pytest.skip("no IPv6 here")
        else:
            pair = self._connect(socket.AF_INET, ("127.0.0.1", 0))
        for sock in pair:
            sock.setblocking(False)
        self._open.extend(pair)
        return pair

    def listener(self, family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0)) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        self._open.append(sock)
        sock.bind(address)
        sock.listen(100)
        sock.setblocking(False)
        return sock

    def client(self, listener: socket.socket) -> socket.socket:
        sock = socket.socket(listener.family, socket.SOCK_STREAM)
        self._open.append(sock)
        sock.connect(listener.getsockname())
        sock.setblocking(False)
        return sock

    def _connect(self, family: int, address: Any) -> tuple[socket.socket, socket.socket]:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.bind(address)
            listener.listen()
            client = socket.socket(family, socket.SOCK_STREAM)
            client.connect(listener.getsockname())
            return client, listener.accept()[0]

    def end(self) -> None:
        for sock in self._open:
            sock.close()


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with tempfile.TemporaryDirectory(
        dir="/tmp"
    ) as directory:  # a short path: the name of a Unix socket has little room
        made = Sockets(Path(directory))
        yield made
        made.end()


@pytest.fixture
async def loop_errors() -> AsyncIterator[list[dict[str, Any]]]:
    """What the loop's exception handler is told."""
    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: told.append(context))
    yield told
    loop.set_exception_handler(None)


async def connect(
    backend: Any, sockets: Sockets, recorder: Recorder | None = None, kind: str = "tcp4"
) -> tuple[Recorder, socket.socket]:
    """One end with the backend and a recorder, the other a plain socket."""
    ours, peer = sockets.pair(kind)
    recorder = recorder or Recorder()
    await backend.open_stream(ours, recorder)
    await eventually(lambda: recorder.calls)
    return recorder, peer


async def read_exactly(peer: socket.socket, n: int) -> bytes:
    data = bytearray()
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(TIMEOUT):
        while len(data) < n:
            piece = await loop.sock_recv(peer, min(n - len(data), 1 << 16))
            assert piece, f"ended after {len(data)} of {n} bytes"
            data += piece
    return bytes(data)


async def read_all(peer: socket.socket) -> bytes:
    data = bytearray()
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(TIMEOUT):
        while piece := await loop.sock_recv(peer, 1 << 16):
            data += piece
    return bytes(data)


async def send_all(peer: socket.socket, data: bytes) -> None:
    async with asyncio.timeout(TIMEOUT):
        await asyncio.get_running_loop().sock_sendall(peer, data)


async def turns(n: int = 5) -> None:
    """Let the loop turn, and the kernel carry what has been sent."""
    for _ in range(n):
        await asyncio.sleep(0.002)


def ended(transport: Any, recorder: Recorder) -> Any:
    transport.abort()
    return eventually(lambda: recorder.is_lost)


# -- making and ending ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_from_beginning_to_end(backend: Any, sockets: Sockets, kind: str) -> None:
    recorder, peer = await connect(backend, sockets, kind=kind)
    assert recorder.transport.get_protocol() is recorder
    assert not recorder.transport.is_closing() and recorder.transport.is_reading()
    await send_all(peer, b"question")
    await eventually(lambda: recorder.received == b"question")
    recorder.transport.write(b"answer")
    assert await read_exactly(peer, 6) == b"answer"
    recorder.transport.close()
    assert recorder.transport.is_closing() and not recorder.transport.is_reading()
    assert await read_all(peer) == b""
    await eventually(lambda: recorder.is_lost)
    await turns()
    assert recorder.calls == ["made", "data", "lost"]
    assert recorder.exc is None


async def test_writes_keep_their_order(backend: Any, sockets: Sockets) -> None:
    recorder, peer = await connect(backend, sockets)
    expected = b""
    for i in range(500):
        piece = f"{i},".encode() * (i % 7 + 1)
        expected += piece
        recorder.transport.write((bytes, bytearray, memoryview)[i % 3](piece))
        if i % 50 == 0:
            recorder.transport.writelines([b"a", b"", b"b"])
            expected += b"ab"
            await asyncio.sleep(0)
    assert await read_exactly(peer, len(expected)) == expected
    await ended(recorder.transport, recorder)


async def test_a_buffer_may_change_behind_write(backend: Any, sockets: Sockets) -> None:
    recorder, peer = await connect(backend, sockets)
    buffer = bytearray(b"first")
    recorder.transport.write(buffer)
    buffer[:] = b"later"
    assert await read_exactly(peer, 5) == b"first"
    await ended(recorder.transport, recorder)


@pytest.mark.parametrize("nonsense", ["text", 7])
async def test_write_takes_only_bytes(
    request: pytest.FixtureRequest, backend: Any, sockets: Sockets, nonsense: Any
) -> None:
    recorder, peer = await connect(backend, sockets)
    with pytest.raises(TypeError):
        recorder.transport.write(nonsense)
    recorder.transport.write(b".")
    assert await read_exactly(peer, 1) == b"."
    await ended(recorder.transport, recorder)


@pytest.mark.parametrize("data", [b"x", b"x" * 100_000, BIG], ids=["1", "100k", "10M"])
async def test_close_sends_what_is_buffered(backend: Any, sockets: Sockets, data: bytes) -> None:
    recorder, peer = await connect(backend, sockets)
    recorder.transport.write(data)
    recorder.transport.close()
    if backend.name == "native":  # asyncio's own go on writing while there is something buffered
        recorder.transport.write(b"too late")
    recorder.transport.close()
    assert await read_all(peer) == data
    await eventually(lambda: recorder.is_lost)
    await turns()
    assert recorder.count("lost") == 1 and recorder.exc is None


async def test_abort_drops_what_is_buffered(backend: Any, sockets: Sockets) -> None:
    recorder, peer = await connect(backend, sockets)
    recorder.transport.write(BIG)
    await asyncio.sleep(0)
    recorder.transport.abort()
    recorder.transport.abort()
    assert recorder.transport.is_closing()
    await eventually(lambda: recorder.is_lost)
    await turns()
    assert recorder.count("lost") == 1 and recorder.exc is None
    assert recorder.transport.get_write_buffer_size() == 0
    peer.setblocking(True)
    got = 0
    while piece := peer.recv(1 << 20):
        got += len(piece)
    assert got < len(BIG)


async def test_abort_behind_close(backend: Any, sockets: Sockets) -> None:
    recorder, _ = await connect(backend, sockets)
    recorder.transport.write(BIG)
    recorder.transport.close()
    await turns()
    assert not recorder.is_lost
    await ended(recorder.transport, recorder)
    assert recorder.count("lost") == 1


async def test_nothing_is_received_behind_close(backend: Any, sockets: Sockets) -> None:
    recorder, peer = await connect(backend, sockets)
    recorder.transport.write(BIG)
    await turns()
    recorder.transport.close()
    await send_all(peer, b"ignored")
    await turns()
    assert recorder.count("data") == 0
    await ended(recorder.transport, recorder)


async def test_reset_by_the_peer(backend: Any, sockets: Sockets) -> None:
    recorder, peer = await connect(backend, sockets)
    reset(peer)
    await eventually(lambda: recorder.is_lost)
    await turns()
    assert isinstance(recorder.exc, ConnectionResetError)
    assert recorder.calls == ["made", "lost"]
    assert recorder.transport.is_closing()
    if backend.name == "native":  # uvloop raises
        recorder.transport.write(b"nobody")
    recorder.transport.close()


async def test_writing_to_a_peer_that_has_gone(backend: Any, sockets: Sockets) -> None:
    recorder, peer = await connect(backend, sockets)
    recorder.transport.pause_reading()
    await turns()
    reset(peer)
    await turns()
    for _ in range(3):
        if not recorder.is_lost:  # uvloop raises
            recorder.transport.write(b"nobody")
        await turns()
    await eventually(lambda: recorder.is_lost)
    assert isinstance(recorder.exc, ConnectionError)
    assert recorder.count("lost") == 1


async def test_reset_while_the_rest_is_being_sent(backend: Any, sockets: Sockets) -> None:
    recorder, peer = await connect(backend, sockets)
    recorder.transport.write(BIG)
    recorder.transport.close()
    await turns()
    reset(peer)
    await eventually(lambda: recorder.is_lost)
    await turns()
    assert recorder.count("lost") == 1


# -- flow control ----------------------------------------------------------------------------------------------------


async def test_a_slow_reader_pauses_the_writer(backend: Any, sockets: Sockets) -> None:
    sizes: list[tuple[str, int]] = []
    recorder = Recorder(
        pause=lambda it: sizes.append(("pause", it.transport.get_write_buffer_size())),
        resume=lambda it: sizes.append(("resume", it.transport.get_write_buffer_size())),
    )
    await connect(backend, sockets, recorder)
    peer = sockets._open[-1]
    transport = recorder.transport
    low, high = transport.get_write_buffer_limits()
    assert 0 < low < high
    assert transport.get_write_buffer_size() == 0
    seen = [0]
    for start in range(0, len(BIG), 1 << 20):
        transport.write(BIG[start : start + (1 << 20)])
        seen.append(transport.get_write_buffer_size())
    assert recorder.count("pause") == 1 and recorder.count("resume") == 0
    assert seen[-1] > seen[-2] > high
    assert await read_exactly(peer, 5 << 20) == BIG[: 5 << 20]
    await turns()
    assert transport.get_write_buffer_size() < seen[-1]
    assert await read_exactly(peer, len(BIG) - (5 << 20)) == BIG[5 << 20 :]
    await eventually(lambda: recorder.count("resume"))
    assert transport.get_write_buffer_size() == 0
    for _ in range(4):
        transport.write(BIG)
        assert recorder.calls[-1] == "pause"
        assert await read_exactly(peer, len(BIG)) == BIG
        await eventually(lambda: recorder.calls[-1] == "resume")
    flow = [call for call in recorder.calls if call in ("pause", "resume")]
    assert flow == ["pause", "resume"] * 5
    assert all(size > high if what == "pause" else size <= low for what, size in sizes)
    await ended(transport, recorder)


async def test_high_water_0(backend: Any, sockets: Sockets) -> None:
    recorder, peer = await connect(backend, sockets)
    transport = recorder.transport
    transport.set_write_buffer_limits(high=0)
    assert transport.get_write_buffer_limits() == (0, 0)
    transport.write(BIG)
    transport.get_write_buffer_size()
    assert recorder.calls == ["made", "pause"]
    assert await read_exactly(peer, len(BIG)) == BIG
    await eventually(lambda: recorder.count("resume"))
    assert transport.get_write_buffer_size() == 0
    await ended(transport, recorder)


async def test_limits_set_below_what_is_buffered(backend: Any, sockets: Sockets) -> None:
    recorder, peer = await connect(backend, sockets)
    transport = recorder.transport
    transport.set_write_buffer_limits(high=1 << 30)
    transport.write(BIG)
    await turns()
    assert recorder.calls == ["made"]
    size = transport.get_write_buffer_size()
    assert size > 0
    transport.set_write_buffer_limits(high=size - 1)
    assert recorder.calls == ["made", "pause"]
    transport.set_write_buffer_limits(low=10)
    assert transport.get_write_buffer_limits() == (10, 40)
    assert await read_exactly(peer, len(BIG)) == BIG
    await eventually(lambda: recorder.count("resume"))
    assert recorder.calls == ["made", "pause", "resume"]
    await ended(transport, recorder)


async def test_impossible_limits(request: pytest.FixtureRequest, backend: Any, sockets: Sockets) -> None:
    recorder, _ = await connect(backend, sockets)
    with pytest.raises(ValueError):
        recorder.transport.set_write_buffer_limits(high=10, low=11)
    with pytest.raises(ValueError):
        recorder.transport.set_write_buffer_limits(high=-1)
    await ended(recorder.transport, recorder)


async def test_pause_is_not_told_again_when_more_is_written(backend: Any, sockets: Sockets) -> None:
    recorder, _ = await connect(backend, sockets)
    for _ in range(3):
        recorder.transport.write(BIG)
        await turns()
    assert recorder.calls == ["made", "pause"]
    await ended(recorder.transport, recorder)
    assert recorder.count("resume") == 0


@pytest.mark.parametrize("what", ["pause", "resume"])
async def test_what_flow_control_callbacks_raise_hurts_nobody(
    request: pytest.FixtureRequest, backend: Any, sockets: Sockets, loop_errors: list[dict[str, Any]], what: str
) -> None:

    def fail(recorder: Recorder) -> None:
        raise LookupError(what)

    bad, bad_peer = await connect(backend, sockets, Recorder(**{what: fail}))
    good, good_peer = await connect(backend, sockets)
    # Below the mark of one turn's output: what the kernel does not take is told at the end of the turn.
    bad.transport.set_write_buffer_limits(high=0)
    good.transport.set_write_buffer_limits(high=0)
    for _ in range(400):
        bad.transport.write(b"b" * 20_000)
        good.transport.write(b"g" * 20_000)
        await asyncio.sleep(0)
    assert good.count("pause") == 1
    assert set(await read_exactly(good_peer, 400 * 20_000)) == {ord("g")}
    await eventually(lambda: good.count("resume"))
    try:
        await read_exactly(bad_peer, 400 * 20_000)
    except (AssertionError, OSError):
        assert bad.is_lost
    await eventually(lambda: loop_errors)
    assert {type(context.get("exception")) for context in loop_errors} == {LookupError}
    await ended(bad.transport, bad)
    await ended(good.transport, good)


# -- the peer's end, and ours -----------------------------------------------------------------------------------------


async def test_eof_closes(backend: Any, sockets: Sockets) -> None:
    recorder, peer = await connect(backend, sockets)
    peer.sendall(b"last words")
    peer.shutdown(socket.SHUT_WR)
    await eventually(lambda: recorder.is_lost)
    assert recorder.received == b"last words"
    assert recorder.calls[-2:] == ["eof", "lost"] and recorder.exc is None
    assert await read_all(peer) == b""


async def test_half_closed_by_the_peer(backend: Any, sockets: Sockets) -> None:
    recorder, peer = await connect(backend, sockets, Recorder(keep_open=True))
    peer.shutdown(socket.SHUT_WR)
    await eventually(lambda: recorder.count("eof"))
    await turns()
    assert recorder.calls == ["made", "eof"] and not recorder.transport.is_closing()
    recorder.transport.write(BIG)
    assert await read_exactly(peer, len(BIG)) == BIG
    recorder.transport.close()
    assert await read_all(peer) == b""
    await eventually(lambda: recorder.is_lost)
    assert recorder.count("eof") == 1 and recorder.exc is None


async def test_write_eof(backend: Any, sockets: Sockets) -> None:
    recorder, peer = await connect(backend, sockets)
    transport = recorder.transport
    assert transport.can_write_eof()
    transport.write(BIG)
    transport.write_eof()
    transport.write_eof()
    with pytest.raises(RuntimeError):
        transport.write(b"too late")
    assert await read_all(peer) == BIG
    assert not transport.is_closing()
    await send_all(peer, b"answer")
    await eventually(lambda: recorder.received == b"answer")
    peer.close()
    await eventually(lambda: recorder.is_lost)
    assert recorder.calls[-2:] == ["eof", "lost"] and recorder.exc is None


async def test_write_eof_in_the_turn_of_close(backend: Any, sockets: Sockets) -> None:
    recorder, peer = await connect(backend, sockets)
    recorder.transport.write(b"all")
    recorder.transport.write_eof()
    recorder.transport.close()
    assert await read_all(peer) == b"all"
    await eventually(lambda: recorder.is_lost)


# -- pausing ----------------------------------------------------------------------------------------------------------


async def test_nothing_comes_while_paused(backend: Any, sockets: Sockets) -> None:
    recorder = Recorder(data=lambda it: it.transport.pause_reading())
    _, peer = await connect(backend, sockets, recorder)
    sent = asyncio.create_task(send_all(peer, BIG[: 1 << 20]))
    sent.add_done_callback(lambda _: peer.shutdown(socket.SHUT_WR))
    while len(recorder.received) < 1 << 20:
        count = recorder.count("data")
        await eventually(lambda: recorder.count("data") > count)  # noqa: B023
        assert not recorder.transport.is_reading()
        await turns(2)
        assert recorder.count("data") == count + 1 and recorder.count("eof") == 0
        recorder.transport.resume_reading()
        assert recorder.transport.is_reading()
    await sent
    await eventually(lambda: recorder.is_lost)
    assert bytes(recorder.received) == BIG[: 1 << 20]
    assert recorder.calls[-2:] == ["eof", "lost"]


async def test_eof_waits_while_paused(backend: Any, sockets: Sockets) -> None:
    recorder, peer = await connect(backend, sockets)
    recorder.transport.pause_reading()
    await turns()
    peer.sendall(b"data")
    peer.shutdown(socket.SHUT_WR)
    await turns()
    assert recorder.calls == ["made"]
    recorder.transport.resume_reading()
    await eventually(lambda: recorder.is_lost)
    assert recorder.received == b"data" and recorder.calls[-2:] == ["eof", "lost"]


async def test_pause_and_resume_in_one_turn(backend: Any, sockets: Sockets) -> None:
    def waver(recorder: Recorder) -> None:
        for _ in range(5):
            recorder.transport.pause_reading()
            recorder.transport.resume_reading()
            recorder.transport.resume_reading()

    recorder, peer = await connect(backend, sockets, Recorder(data=waver))
    waver(recorder)
    for i in range(300):
        await send_all(peer, b"%d," % i * 50)
        if i % 10 == 0:
            waver(recorder)
            await asyncio.sleep(0)
    expected = b"".join(b"%d," % i * 50 for i in range(300))
    await eventually(lambda: len(recorder.received) == len(expected))
    assert recorder.received == expected
    recorder.transport.pause_reading()
    recorder.transport.pause_reading()
    await turns()
    await send_all(peer, b"!")
    await turns()
    assert not recorder.received.endswith(b"!")
    recorder.transport.resume_reading()
    await eventually(lambda: recorder.received.endswith(b"!"))
    await ended(recorder.transport, recorder)


async def test_pausing_in_the_turn_in_which_data_comes(backend: Any, sockets: Sockets) -> None:
    recorder, peer = await connect(backend, sockets)
    for i in range(50):
        peer.sendall(b"%d," % i)
        recorder.transport.pause_reading()
        if i % 2:
            await asyncio.sleep(0)
        recorder.transport.resume_reading()
        if i % 3:
            await asyncio.sleep(0)
    await eventually(lambda: recorder.received == b"".join(b"%d," % i for i in range(50)))
    await ended(recorder.transport, recorder)


async def test_reset_while_paused_is_seen_behind_resume(backend: Any, sockets: Sockets) -> None:
    recorder, peer = await connect(backend, sockets)
    recorder.transport.pause_reading()
    await turns()
    reset(peer)
    await turns()
    recorder.transport.resume_reading()
    await eventually(lambda: recorder.is_lost)
    assert isinstance(recorder.exc, ConnectionResetError)


# -- what callbacks may do ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["close", "abort", "write", "write_eof", "pause_reading"])
@pytest.mark.parametrize("where", ["made", "data", "eof", "pause", "resume", "lost"])
async def test_any_call_in_any_callback(
    backend: Any, sockets: Sockets, loop_errors: list[dict[str, Any]], where: str, verb: str
) -> None:
    done: list[str] = []
    if backend.name == "asyncio" and where in ("made", "resume") and verb in ("close", "abort"):
        pytest.skip("a bug of asyncio's (resume) or uvloop's (made)")

    def act(recorder: Recorder) -> None:
        if where not in done:
            done.append(where)
            getattr(recorder.transport, verb)(*([b"x"] if verb == "write" else []))

    recorder, peer = await connect(backend, sockets, Recorder(**{where: act}))
    try:
        if where in ("pause", "resume"):
            recorder.transport.write(BIG)
            if where == "resume":
                await read_exactly(peer, len(BIG))
        elif where == "data":
            await send_all(peer, b"data")
        elif where == "eof":
            peer.shutdown(socket.SHUT_WR)
        elif where == "lost":
            recorder.transport.close()
        await eventually(lambda: done)
        await turns()
    finally:
        recorder.transport.abort()
        await eventually(lambda: recorder.is_lost)
    await turns()
    assert recorder.count("made") == recorder.count("lost") == 1 and recorder.calls[-1] == "lost"
    assert not loop_errors


async def test_another_protocol_in_the_middle(backend: Any, sockets: Sockets) -> None:
    second = Recorder()

    def switch(recorder: Recorder) -> None:
        recorder.transport.set_protocol(second)
        second.transport = recorder.transport

    first, peer = await connect(backend, sockets, Recorder(data=switch))
    await send_all(peer, b"first")
    await eventually(lambda: first.received == b"first")
    assert first.transport.get_protocol() is second
    await send_all(peer, b"second")
    await eventually(lambda: second.received == b"second")
    second.transport.write(BIG)
    assert await read_exactly(peer, len(BIG)) == BIG
    peer.close()
    await eventually(lambda: second.is_lost)
    assert first.calls == ["made", "data"]
    assert [call for call in second.calls if call != "data"] == ["pause", "resume", "eof", "lost"]


async def test_a_protocol_that_raises_costs_only_its_own_connection(
    backend: Any, sockets: Sockets, loop_errors: list[dict[str, Any]]
) -> None:
    def fail(recorder: Recorder) -> None:
        raise LookupError("a bug")

    pairs = [await connect(backend, sockets, Recorder(data=fail) if i == 2 else None) for i in range(5)]
    for _, peer in pairs:
        peer.sendall(b"all at once")
    time.sleep(0.01)
    good = [recorder for i, (recorder, _) in enumerate(pairs) if i != 2]
    await eventually(lambda: all(recorder.received == b"all at once" for recorder in good))
    bad = pairs[2][0]
    await eventually(lambda: loop_errors)
    assert [type(context["exception"]) for context in loop_errors] == [LookupError]
    if not isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop) and backend.name == "asyncio":
        bad.transport.abort()  # uvloop only reports
    await eventually(lambda: bad.is_lost)
    assert not any(recorder.is_lost for recorder in good)
    for recorder in good:
        await ended(recorder.transport, recorder)


@pytest.mark.parametrize("where", ["eof", "lost"])
async def test_what_the_last_callbacks_raise_is_told(
    backend: Any, sockets: Sockets, loop_errors: list[dict[str, Any]], where: str
) -> None:
    def fail(recorder: Recorder) -> None:
        raise LookupError("a bug")

    recorder, peer = await connect(backend, sockets, Recorder(**{where: fail}))
    before = await connect(backend, sockets)
    peer.close()
    await eventually(lambda: loop_errors)
    assert isinstance(loop_errors[0]["exception"], LookupError)
    recorder.transport.abort()
    await eventually(lambda: recorder.is_lost)
    assert not before[0].is_lost
    await ended(before[0].transport, before[0])


async def test_calls_from_tasks(backend: Any, sockets: Sockets) -> None:
    recorder, peer = await connect(backend, sockets)

    async def write(i: int) -> None:
        for j in range(20):
            recorder.transport.write(b"%d:%d," % (i, j))
            await asyncio.sleep(0.0001 * (i % 3))

    async with asyncio.TaskGroup() as group:
        for i in range(10):
            group.create_task(write(i))
    recorder.transport.write(b"end")
    recorder.transport.close()
    data = (await read_all(peer)).decode()
    assert data.endswith("end")
    for i in range(10):
        own = [int(item.split(":")[1]) for item in data[:-3].split(",") if item.startswith(f"{i}:")]
        assert own == list(range(20))
    await eventually(lambda: recorder.is_lost)


async def test_many_connections_in_one_turn(backend: Any, sockets: Sockets) -> None:
    def echo(recorder: Recorder) -> None:
        recorder.transport.write(bytes(recorder.received))

    pairs = [await connect(backend, sockets, Recorder(data=echo), "socketpair") for _ in range(150)]
    for i, (_, peer) in enumerate(pairs):
        peer.sendall(b"%d" % i)
    for i, (_, peer) in enumerate(pairs):
        assert await read_exactly(peer, len(str(i))) == b"%d" % i
    for _, peer in pairs:
        peer.close()
    await eventually(lambda: all(recorder.is_lost for recorder, _ in pairs))
    assert all(recorder.calls == ["made", "data", "eof", "lost"] for recorder, _ in pairs)


async def test_one_callback_may_end_all_other_connections(backend: Any, sockets: Sockets) -> None:
    everybody: list[Recorder] = []

    def end_all(recorder: Recorder) -> None:
        for one in everybody:
            one.transport.abort()

    pairs = [await connect(backend, sockets, Recorder(data=end_all)) for _ in range(20)]
    everybody.extend(recorder for recorder, _ in pairs)
    for _, peer in pairs:
        peer.sendall(b"now")
    await eventually(lambda: all(recorder.is_lost for recorder in everybody))
    assert sum(recorder.count("data") for recorder in everybody) == 1
    assert all(recorder.count("lost") == 1 for recorder in everybody)


# -- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_addresses(backend: Any, sockets: Sockets, kind: str) -> None:
    ours, _ = sockets.pair(kind)
    peername, sockname, family = ours.getpeername(), ours.getsockname(), ours.family
    recorder = Recorder()
    await backend.open_stream(ours, recorder)
    await eventually(lambda: recorder.calls)
    transport = recorder.transport
    assert transport.get_extra_info("peername") == peername
    assert transport.get_extra_info("sockname") == sockname
    sock = transport.get_extra_info("socket")
    assert (sock.family, sock.type, sock.getsockname()) == (family, socket.SOCK_STREAM, sockname)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert transport.get_extra_info("sslcontext") is None
    assert transport.get_extra_info("nothing", 5) == 5
    await ended(transport, recorder)
    assert transport.get_extra_info("peername") == peername
    assert transport.get_extra_info("sockname", sockname) == sockname


async def test_the_own_address_behind_the_end(backend: Any, sockets: Sockets) -> None:
    ours, _ = sockets.pair("tcp4")
    sockname = ours.getsockname()
    recorder = Recorder(lost=lambda it: None)
    await backend.open_stream(ours, recorder)
    await eventually(lambda: recorder.calls)
    assert recorder.transport.get_extra_info("sockname") == sockname
    await ended(recorder.transport, recorder)
    # The native backend asks the kernel, and keeps nothing.
    assert recorder.transport.get_extra_info("sockname") == (None if backend.name == "native" else sockname)


@pytest.mark.parametrize("kind", ["tcp4", "tcp6", "unix"])
async def test_addresses_of_accepted_connections(backend: Any, sockets: Sockets, kind: str) -> None:
    if kind == "unix":
        listener = sockets.listener(socket.AF_UNIX, str(sockets.directory / "listener"))
    else:
        family = socket.AF_INET if kind == "tcp4" else socket.AF_INET6
        try:
            listener = sockets.listener(family, ("127.0.0.1" if kind == "tcp4" else "::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
    sockname = listener.getsockname()
    async with Accepting(backend, listener) as accepting:
        client = sockets.client(listener)
        await eventually(lambda: accepting.recorders and accepting.recorders[0].calls)
        transport = accepting.recorders[0].transport
        assert transport.get_extra_info("peername") == client.getsockname()
        assert transport.get_extra_info("sockname") == sockname
        assert transport.get_extra_info("socket").getpeername() == client.getsockname()


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
async def test_addresses_of_abstract_sockets(backend: Any, sockets: Sockets) -> None:
    name = b"\0asyncmg-%d" % os.getpid()
    listener = sockets.listener(socket.AF_UNIX, name)
    recorder = Recorder()
    await backend.open_stream(sockets.client(listener), recorder)
    await eventually(lambda: recorder.calls)
    assert recorder.transport.get_extra_info("peername") == name
    await ended(recorder.transport, recorder)


# -- accepting --------------------------------------------------------------------------------------------------------


class Allowance:
    """Room for so many connections."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.freed = asyncio.Event()

    async def wait(self) -> int:
        while self.places <= 0:
            self.freed.clear()
            await self.freed.wait()
        return self.places

    def reserve(self, count: int) -> None:
        """They are counted when they are accepted."""

    def free(self) -> None:
        self.places += 1
        self.freed.set()


class Accepting:
    """A listener with a backend, and the recorders of what it accepts."""

    def __init__(
        self,
        backend: Any,
        listener: socket.socket,
        *,
        places: int = 1000,
        http: bool = False,
        make: Callable[[], Any] = Recorder,
        limits: NetLimits = DEFAULT_LIMITS.net,
    ) -> None:
        self.recorders: list[Any] = []
        self.failures: list[Exception] = []
        self.room = Allowance(places)
        self.make = make
        self.accepting = backend.accept_on(listener, self._accepted, self.room, self.failures.append, limits, http=http)
        self.works: set[asyncio.Task[Any]] = set()

    def _accepted(self, accepted: Any) -> None:
        self.room.places -= 1
        recorder = self.make()
        self.recorders.append(recorder)
        work = accepted.give_to(recorder)
        if work is not None:
            self.works.add(asyncio.ensure_future(work))

    async def __aenter__(self) -> Accepting:
        self.task = asyncio.create_task(self.accepting.run())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        self.accepting.close()
        if self.works:
            await asyncio.wait(self.works)
        for recorder in self.recorders:
            if recorder.transport is not None:
                recorder.transport.abort()
        await eventually(lambda: all(recorder.is_lost for recorder in self.recorders))


async def test_accepting_stops_at_the_cap(backend: Any, sockets: Sockets) -> None:
    listener = sockets.listener()
    async with Accepting(backend, listener, places=3) as accepting:
        clients = [sockets.client(listener) for _ in range(6)]
        await eventually(lambda: len(accepting.recorders) == 3)
        await turns()
        assert len(accepting.recorders) == 3
        accepting.room.free()
        await eventually(lambda: len(accepting.recorders) == 4)
        await eventually(lambda: all(recorder.calls for recorder in accepting.recorders))
        for i, client in enumerate(clients[:4]):
            client.sendall(b"%d" % i)
        await eventually(lambda: [bytes(r.received) for r in accepting.recorders] == [b"0", b"1", b"2", b"3"])


async def test_a_closed_listener_leaves_its_port(backend: Any, sockets: Sockets) -> None:
    listener = sockets.listener()
    address = listener.getsockname()
    async with Accepting(backend, listener):
        pass
    await turns(1)
    sockets.listener(address=address)


async def test_connections_outlive_their_listener(backend: Any, sockets: Sockets) -> None:
    listener = sockets.listener()
    accepting = Accepting(backend, listener)
    async with accepting:
        client = sockets.client(listener)
        await eventually(lambda: accepting.recorders and accepting.recorders[0].calls)
        accepting.task.cancel()
        await asyncio.wait([accepting.task])
        accepting.accepting.close()
        await turns()
        client.sendall(b"still here")
        await eventually(lambda: accepting.recorders[0].received == b"still here")


# -- the native backend's own ------------------------------------------------------------------------------------------


class HttpRecorder(Recorder):
    """Takes whole requests, too, and notes where each call ended."""

    def __init__(self, **on: Callable[[Recorder], Any]) -> None:
        super().__init__(**on)
        self.pieces: list[tuple[str, bytes]] = []

    def request_received(self, request: Any) -> None:
        self.received += request.raw
        self.pieces.append(("request", request.raw))
        self.told("data")

    def data_received(self, data: bytes) -> None:
        self.pieces.append(("data", data))
        super().data_received(data)


def requests(n: int) -> list[bytes]:
    return [b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % i for i in range(n)]


async def test_requests_of_one_burst(native: Any, sockets: Sockets) -> None:
    listener = sockets.listener()
    async with Accepting(native, listener, http=True, make=HttpRecorder) as accepting:
        client = sockets.client(listener)
        client.sendall(b"".join(requests(10)) + b"GET /part")
        await eventually(lambda: accepting.recorders and accepting.recorders[0].count("data") == 11)
        assert accepting.recorders[0].pieces == [("request", raw) for raw in requests(10)] + [("data", b"GET /part")]


async def test_pausing_inside_a_burst_of_requests(native: Any, sockets: Sockets) -> None:
    listener = sockets.listener()

    def make() -> HttpRecorder:
        return HttpRecorder(data=lambda it: it.transport.pause_reading())

    async with Accepting(native, listener, http=True, make=make) as accepting:
        client = sockets.client(listener)
        client.sendall(b"".join(requests(10)))
        client.shutdown(socket.SHUT_WR)
        await eventually(lambda: accepting.recorders and accepting.recorders[0].calls)
        recorder = accepting.recorders[0]
        for i in range(1, 11):
            await eventually(lambda: recorder.count("data") == i)  # noqa: B023
            await turns(2)
            assert recorder.count("data") == i and recorder.count("eof") == 0
            recorder.transport.resume_reading()
        await eventually(lambda: recorder.is_lost)
        assert bytes(recorder.received) == b"".join(requests(10))
        assert recorder.calls[-2:] == ["eof", "lost"]


async def test_pausing_and_resuming_inside_a_burst_of_requests(native: Any, sockets: Sockets) -> None:
    def waver(recorder: Recorder) -> None:
        recorder.transport.pause_reading()
        if recorder.count("data") % 3:
            recorder.transport.resume_reading()
        else:
            asyncio.get_running_loop().call_soon(recorder.transport.resume_reading)

    listener = sockets.listener()
    async with Accepting(native, listener, http=True, make=lambda: HttpRecorder(data=waver)) as accepting:
        client = sockets.client(listener)
        client.sendall(b"".join(requests(50)))
        client.shutdown(socket.SHUT_WR)
        await eventually(lambda: accepting.recorders and accepting.recorders[0].is_lost)
        assert bytes(accepting.recorders[0].received) == b"".join(requests(50))


async def test_what_held_input_raises_ends_the_connection(
    native: Any, sockets: Sockets, loop_errors: list[dict[str, Any]]
) -> None:
    def act(recorder: Recorder) -> None:
        if recorder.count("data") == 1:
            recorder.transport.pause_reading()
        elif recorder.count("data") == 2:
            raise LookupError("a bug")

    listener = sockets.listener()
    async with Accepting(native, listener, http=True, make=lambda: HttpRecorder(data=act)) as accepting:
        client = sockets.client(listener)
        client.sendall(b"".join(requests(3)))
        await eventually(lambda: accepting.recorders and accepting.recorders[0].count("data"))
        recorder = accepting.recorders[0]
        recorder.transport.resume_reading()
        await eventually(lambda: loop_errors)
        async with asyncio.timeout(0.5):
            while not recorder.is_lost:
                await asyncio.sleep(0.001)


async def replaced(native: Any, sockets: Sockets) -> tuple[Recorder, Recorder]:
    """An ended connection, and another that has its number."""
    old, _ = await connect(native, sockets)
    number = old.transport._conn
    await ended(old.transport, old)
    await turns()
    new, _ = await connect(native, sockets)
    assert new.transport._conn == number
    return old, new


async def test_abort_behind_the_end_hurts_nobody(native: Any, sockets: Sockets) -> None:
    old, new = await replaced(native, sockets)
    old.transport.abort()
    await turns()
    assert not new.is_lost
    await ended(new.transport, new)


async def test_a_deadline_behind_the_end_hurts_nobody(native: Any, sockets: Sockets) -> None:
    old, new = await replaced(native, sockets)
    told: list[float] = []
    loop = asyncio.get_running_loop()
    start = loop.time()
    new.transport.call_at(start + 0.1, lambda: told.append(loop.time()))
    old.transport.call_at(start + 0.01, lambda: told.append(-1.0))
    await eventually(lambda: told)
    assert told[0] >= start + 0.1
    await ended(new.transport, new)


@pytest.mark.parametrize("name", ["sockname", "socket"])
async def test_an_ended_transport_does_not_show_anothers_socket(native: Any, sockets: Sockets, name: str) -> None:
    old, new = await replaced(native, sockets)
    shown = old.transport.get_extra_info(name)
    if name == "socket":
        assert shown is None or shown.fileno() < 0
    else:
        assert shown != new.transport.get_extra_info("sockname")
    await ended(new.transport, new)
    if name == "socket" and shown is not None:
        shown.close()


async def test_connection_lost_that_opens_another_and_raises(
    native: Any, sockets: Sockets, loop_errors: list[dict[str, Any]]
) -> None:
    # The number of the lost connection is free once it is handed over: what is aborted must not be its successor.
    ours, _ = sockets.pair()
    successor = Recorder()

    def act(recorder: Recorder) -> None:
        native.flush()
        try:
            native.open_stream(ours, successor).send(None)
        except StopIteration:
            pass
        raise LookupError("a bug")

    recorder, _ = await connect(native, sockets, Recorder(lost=act))
    recorder.transport.abort()
    await eventually(lambda: loop_errors)
    await turns()
    assert successor.calls == ["made"]
    await ended(successor.transport, successor)


async def test_connection_made_that_raises_leaves_nothing_open(native: Any, sockets: Sockets) -> None:
    def fail(recorder: Recorder) -> None:
        raise LookupError("a bug")

    ours, peer = sockets.pair()
    try:
        await native.open_stream(ours, Recorder(made=fail))
    except LookupError:
        pass
    async with asyncio.timeout(0.5):
        assert await asyncio.get_running_loop().sock_recv(peer, 1) == b""


async def test_open_stream_of_a_socket_that_is_not_connected(native: Any) -> None:
    before = open_descriptors()
    sock = socket.socket()
    with pytest.raises(OSError):
        await native.open_stream(sock, Recorder())
    assert sock.fileno() == -1 or sock.close() is None
    await eventually(lambda: open_descriptors() == before)


async def test_deadlines(native: Any, sockets: Sockets) -> None:
    recorder, _ = await connect(native, sockets)
    loop, transport = asyncio.get_running_loop(), recorder.transport
    told: list[str] = []
    start = loop.time()
    transport.call_at(start + 0.5, lambda: told.append("replaced"))
    transport.call_at(start + 0.03, lambda: told.append("due"))
    await eventually(lambda: told)
    assert told == ["due"] and loop.time() >= start + 0.03
    transport.call_at(start - 5, lambda: told.append("past"))
    await eventually(lambda: len(told) == 2)
    transport.call_at(loop.time() + 0.01, lambda: told.append("cancelled")).cancel()
    transport.cancel()
    await asyncio.sleep(0.05)
    assert told == ["due", "past"]
    transport.call_at(loop.time() + 0.01, lambda: told.append("ended"))
    await ended(transport, recorder)
    await asyncio.sleep(0.05)
    assert told == ["due", "past"]


async def test_a_deadline_in_two_months(native: Any, sockets: Sockets) -> None:
    recorder, _ = await connect(native, sockets)
    told: list[str] = []
    recorder.transport.call_at(asyncio.get_running_loop().time() + 60 * 86400, lambda: told.append("too early"))
    await turns()
    assert not told
    await ended(recorder.transport, recorder)


async def test_own_address_without_a_free_descriptor(native: Any, sockets: Sockets) -> None:
    recorder, _ = await connect(native, sockets)
    expected = recorder.transport.get_extra_info("socket").getsockname()
    other, other_peer = await connect(native, sockets)
    with few_descriptors():
        assert other.transport.get_extra_info("sockname") == other_peer.getpeername()
    assert expected
    await ended(recorder.transport, recorder)
    await ended(other.transport, other)


class few_descriptors:  # noqa: N801  # a context manager, named as one
    """No further descriptor can be opened."""

    def __enter__(self) -> None:
        self.limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in os.listdir("/dev/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, self.limits[1]))
        self.taken = []
        try:
            while True:
                self.taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass

    def __exit__(self, *exc: object) -> None:
        for fd in self.taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)


@pytest.mark.parametrize(
    "limits",
    [
        {"buffers": {"max_turn_input": 512}},
        pytest.param({"net": {"max_connections": 5_000_000}}),
        {"buffers": {"max_turn_input": 1 << 33}},
        {"net": {"accept_retry_delay": 1e7}},
        {"http": {"max_header_size": 1 << 33}},
    ],
    ids=str,
)
async def test_any_limits_make_a_backend(monkeypatch: pytest.MonkeyPatch, limits: dict[str, dict[str, Any]]) -> None:
    monkeypatch.setattr("asyncmg.transports.native.max_descriptors", lambda: 1 << 30)  # as in many containers
    groups = {name: dataclasses.replace(getattr(DEFAULT_LIMITS, name), **values) for name, values in limits.items()}
    backend = make_native(dataclasses.replace(DEFAULT_LIMITS, **groups))
    await end_backend(backend)


# -- descriptors, and an end ----------------------------------------------------------------------------------------


async def settled_descriptors() -> int:
    gc.collect()
    await turns()
    return open_descriptors()


@pytest.mark.parametrize("delay", [0, 5], ids=["in the same turn", "later"])
async def test_close_frees_everything(sockets: Sockets, delay: int) -> None:
    await asyncio.sleep(0)
    before = await settled_descriptors()
    backend = make_native()
    assert open_descriptors() > before
    ours, peer = sockets.pair()
    recorder = Recorder()
    await backend.open_stream(ours, recorder)
    recorder.transport.get_extra_info("socket")
    recorder.transport.abort()
    if delay:
        await eventually(lambda: recorder.is_lost)
        await turns(delay)
    backend.close()
    await eventually(lambda: recorder.is_lost and backend._engine is None)
    peer.close()
    await eventually(lambda: open_descriptors() == before)
    backend.close()


async def test_close_waits_for_open_connections(sockets: Sockets) -> None:
    before = await settled_descriptors()
    backend = make_native()
    recorder, peer = await connect(backend, sockets)
    listener = sockets.listener()
    accepting = Accepting(backend, listener)
    async with accepting:
        await turns()
    backend.close()
    await turns()
    assert not recorder.is_lost
    await send_all(peer, b"still here")
    await eventually(lambda: recorder.received == b"still here")
    peer.close()
    await eventually(lambda: recorder.is_lost)
    await turns()
    assert backend._engine is None
    await eventually(lambda: open_descriptors() == before)


async def test_close_in_the_last_callback(sockets: Sockets) -> None:
    before = await settled_descriptors()
    backend = make_native()
    recorder, peer = await connect(backend, sockets, Recorder(lost=lambda it: backend.close()))
    await connect(backend, sockets, Recorder(data=lambda it: backend.close()))
    last = sockets._open[-1]
    last.sendall(b"close")
    peer.close()
    await eventually(lambda: recorder.is_lost)
    last.close()
    await eventually(lambda: backend._engine is None)
    await eventually(lambda: open_descriptors() == before)


async def test_a_closed_backend_takes_no_socket(sockets: Sockets) -> None:
    backend = make_native()
    backend.close()
    ours, peer = sockets.pair()
    with pytest.raises(OSError):
        await backend.open_stream(ours, Recorder())
    assert peer.recv(1) == b""


@pytest.mark.parametrize("new_loop", ["stdlib", "uvloop"])
def test_a_backend_whose_loop_has_gone(sockets: Sockets, new_loop: str) -> None:
    import uvloop

    require_core()  # before there is a loop to be closed
    make_loop = asyncio.SelectorEventLoop if new_loop == "stdlib" else uvloop.new_event_loop
    make_loop().close()  # uvloop's first one opens what stays
    gc.collect()
    before = open_descriptors()
    loop = make_loop()

    async def begin() -> Any:
        backend = make_native()
        recorder, peer = await connect(backend, sockets)
        peer.close()
        recorder.transport.write(b"never sent")
        return weakref.ref(type(backend)), recorder.transport.get_extra_info("peername")

    loop.run_until_complete(begin())
    loop.close()
    del loop
    gc.collect()
    assert open_descriptors() == before


# -- no busy loop ------------------------------------------------------------------------------------------------------


async def idle_turns(backend: Any) -> int:
    """Turns in a fifth of a second of idleness."""
    await asyncio.sleep(0.05)
    before = backend.turns
    await asyncio.sleep(0.2)
    return int(backend.turns - before)


STATES = [
    "idle",
    "paused, peer reset",
    "paused with a backlog",
    "peer half-closed",
    "both half-closed",
    "half-closed, peer reset",
    "lingering",
    "far deadline",
]


@pytest.mark.parametrize("state", STATES)
async def test_idle_costs_nothing(native: Any, sockets: Sockets, state: str) -> None:
    recorder, peer = await connect(native, sockets, Recorder(keep_open=True))
    transport = recorder.transport
    if state == "paused, peer reset":
        transport.pause_reading()
        await turns()
        peer.sendall(b"unread")
        reset(peer)
    elif state == "paused with a backlog":
        transport.pause_reading()
        transport.write(BIG)
        peer.sendall(b"unread")
    elif state in ("peer half-closed", "both half-closed", "half-closed, peer reset"):
        peer.shutdown(socket.SHUT_WR)
        if state == "both half-closed":
            transport.write_eof()
        await eventually(lambda: recorder.count("eof"))
        if state == "half-closed, peer reset":
            reset(peer)
    elif state == "lingering":
        transport.write(BIG)
        transport.close()
        peer.sendall(b"unread")
    elif state == "far deadline":
        transport.call_at(asyncio.get_running_loop().time() + 1000, lambda: None)
    assert await idle_turns(native) < 20
    if not recorder.is_lost:
        await ended(transport, recorder)


@pytest.mark.parametrize("state", ["no credit", "at its cap", "never run"])
async def test_an_idle_listener_costs_nothing(native: Any, sockets: Sockets, state: str) -> None:
    listener = sockets.listener()
    accepting = Accepting(native, listener, places=0 if state == "no credit" else 2)
    if state == "never run":
        for _ in range(3):
            sockets.client(listener)
        assert await idle_turns(native) < 20
        accepting.accepting.close()
        return
    async with accepting:
        for _ in range(5):
            sockets.client(listener)
        assert await idle_turns(native) < 20
        assert len(accepting.recorders) == (0 if state == "no credit" else 2)


async def test_accepting_rests_when_descriptors_are_used_up(sockets: Sockets) -> None:
    net = dataclasses.replace(DEFAULT_LIMITS.net, accept_retry_delay=0.05)
    backend = make_native(dataclasses.replace(DEFAULT_LIMITS, net=net))
    listener = sockets.listener()
    client = sockets.client(listener)
    async with Accepting(backend, listener) as accepting:
        with few_descriptors():
            assert await idle_turns(backend) < 20
            assert not accepting.recorders
        await eventually(lambda: accepting.recorders)
        client.sendall(b"hello")
        await eventually(lambda: accepting.recorders[0].received == b"hello")
        assert not accepting.failures
    await end_backend(backend)


async def test_asyncio_backend_has_nothing_to_close() -> None:
    AsyncioBackend().close()
