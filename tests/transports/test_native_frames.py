"""WebSocket frames that the engine reads for a native transport: order, pauses, and the switch from bytes to frames."""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from asyncmg.codecs.http import Role
from asyncmg.codecs.ws import CLOSE, FIN, PING, TEXT
from asyncmg.codecs.ws_native import NativeWsCodec, ws_error
from asyncmg.limits import WsLimits
from tests.codecs.ws_codec_list import Frames
from tests.codecs.ws_vector_file import encode_frame
from tests.fuzz.fuzz_ws_differential import make_frames
from tests.transports.conftest import TIMEOUT, eventually

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the engine is for POSIX")

KEY = b"\x37\xfa\x21\x3d"
HELLO = encode_frame(0x81, b"Hello", KEY)
WHOLE = (FIN | TEXT, b"Hello")
MARK = b"\n"  # bytes up to here are not frames


class Reader(asyncio.Protocol):
    """Reads a line, then frames: with a codec until the engine does."""

    def __init__(self, limits: WsLimits | None = None) -> None:
        self.limits = limits or WsLimits()
        self.codec = NativeWsCodec(Role.SERVER, self.limits, False)
        self.line = b""
        self.is_reading_frames = False
        self.begins_at_once = True
        self.frames = Frames()
        self.calls: list[str] = []
        self.sizes: list[int] = []
        self.error: Any = None
        self.transport: Any = None
        self.on_frames: Any = lambda: None
        self.on_data: Any = lambda: None

    @property
    def records(self) -> list[tuple[int, bytes]]:
        return self.frames.records

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.calls.append("data")
        if not self.is_reading_frames:
            line, mark, data = data.partition(MARK)
            self.line += line + mark
            if mark:
                self.is_reading_frames = True
                if self.begins_at_once:
                    self.transport.begin_frames(self.codec.export)
        if data:
            self.frames.receive(self.codec.receive_data(data))
            self.error = self.codec.error
        self.on_data()

    def frames_received(self, records: Any, size: int, error: int, value: int) -> None:
        self.calls.append("frames")
        assert self.error is None or not (records or error)
        self.sizes.append(size)
        self.frames.receive(records)
        if error:
            self.error = ws_error(error, value, self.limits)
        self.on_frames()

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")


@pytest.fixture
async def errors() -> AsyncIterator[list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: told.append(context))
    yield told
    loop.set_exception_handler(None)


@pytest.fixture
def peers() -> Any:
    made: list[socket.socket] = []
    yield made
    for sock in made:
        sock.close()


async def connect(
    native: Any, peers: list[socket.socket], reader: Reader | None = None
) -> tuple[Reader, socket.socket]:
    ours, peer = socket.socketpair()
    peers.append(peer)
    for sock in (ours, peer):
        sock.setblocking(False)
    reader = reader or Reader()
    await native.open_stream(ours, reader)
    await eventually(lambda: reader.transport is not None)
    return reader, peer


async def send(peer: socket.socket, data: bytes) -> None:
    async with asyncio.timeout(TIMEOUT):
        await asyncio.get_running_loop().sock_sendall(peer, data)


async def connect_frames(native: Any, peers: list[socket.socket], reader: Reader | None = None) -> Any:
    """A connection whose input the engine reads already."""
    reader, peer = await connect(native, peers, reader)
    await send(peer, MARK)
    await eventually(lambda: reader.calls == ["data"])
    await eventually(lambda: reader.transport._export is None)
    reader.calls.clear()
    return reader, peer


async def test_one_frame_and_many(native: Any, peers: Any) -> None:
    reader, peer = await connect_frames(native, peers)
    await send(peer, HELLO)
    await eventually(lambda: reader.records == [WHOLE])
    assert reader.sizes == [len(HELLO)]
    await send(peer, HELLO * 500)
    await eventually(lambda: len(reader.records) == 501)
    assert reader.records == [WHOLE] * 501
    assert set(reader.calls) == {"frames"}
    assert sum(reader.sizes) == 501 * len(HELLO)


async def test_what_came_before_is_read_before(native: Any, peers: Any) -> None:
    """Frames in the same read as the line, wherever that read ends."""
    data = HELLO + encode_frame(0x89, b"ping", KEY) + encode_frame(0x01, b"\xe2\x82", KEY)
    rest = encode_frame(0x80, b"\xac", KEY) + HELLO
    expected = [WHOLE, (FIN | PING, b"ping"), (0x21, b"\xe2\x82"), (0x80, b"\xac"), WHOLE]
    for cut in range(len(data + rest) + 1):
        reader, peer = await connect(native, peers)
        await send(peer, b"line" + MARK + (data + rest)[:cut])
        await eventually(lambda reader=reader: reader.calls)
        await eventually(lambda reader=reader: reader.transport._export is None)
        await send(peer, (data + rest)[cut:] + HELLO)
        await eventually(lambda reader=reader: len(reader.records) == len(expected) + 1)
        assert reader.records == [*expected, WHOLE]
        assert reader.calls.count("data") == 1
        assert reader.calls[1:]
        assert set(reader.calls[1:]) == {"frames"}
        reader.transport.abort()


async def test_begun_outside_of_a_turn(native: Any, peers: Any) -> None:
    reader = Reader()
    reader.begins_at_once = False
    reader, peer = await connect(native, peers, reader)
    await send(peer, MARK + HELLO + HELLO[:5])
    await eventually(lambda: reader.records == [WHOLE])
    await send(peer, HELLO[5:] + HELLO[:3])  # perhaps received before the switch, perhaps behind it
    reader.transport.begin_frames(reader.codec.export)
    await send(peer, HELLO[3:])
    await eventually(lambda: len(reader.records) == 3)
    await send(peer, HELLO)
    await eventually(lambda: len(reader.records) == 4)
    assert reader.records == [WHOLE] * 4
    assert reader.calls[-1] == "frames"


async def test_one_connection_begins_another_s(native: Any, peers: Any) -> None:
    """Bytes of the other may lie behind in the same turn: they come first, as bytes."""
    first, first_peer = await connect(native, peers)
    others = [await connect(native, peers) for _ in range(5)]
    for reader, _ in others:
        reader.begins_at_once = False
        reader.is_reading_frames = True

    def begin_all() -> None:
        for reader, _ in others:
            reader.transport.begin_frames(reader.codec.export)

    first.on_data = begin_all
    # All in one turn: nothing here lets the loop go on.
    for _, peer in others[:2]:
        peer.send(HELLO[:4])
    first_peer.send(b"now")
    for _, peer in others[2:]:
        peer.send(HELLO[:4])
    await eventually(lambda: first.calls)
    await eventually(lambda: all(reader.transport._export is None for reader, _ in others))
    for reader, peer in others:
        assert reader.calls == ["data"]
        await send(peer, HELLO[4:])
        await eventually(lambda reader=reader: reader.records)
        assert reader.calls == ["data", "frames"]
        assert reader.records == [WHOLE]


async def test_a_pause_holds_frames_back(native: Any, peers: Any) -> None:
    reader, peer = await connect_frames(native, peers)
    reader.transport.pause_reading()
    await send(peer, HELLO * 3)
    await asyncio.sleep(0.02)
    assert not reader.calls
    reader.transport.resume_reading()
    await eventually(lambda: len(reader.records) == 3)


async def test_what_is_received_in_the_turn_of_a_pause(native: Any, peers: Any) -> None:
    """It is held, and comes in order when reading goes on: bytes, then frames, then the end."""
    one, one_peer = await connect_frames(native, peers)
    two, two_peer = await connect_frames(native, peers)
    # Whoever comes first in a turn pauses the other, whose frames the engine has received already.
    one.on_frames = lambda: two.transport.pause_reading()
    two.on_frames = lambda: one.transport.pause_reading()
    one_peer.send(HELLO)
    two_peer.send(HELLO * 2)
    await eventually(lambda: one.calls or two.calls)
    paused, peer = (two, two_peer) if one.calls else (one, one_peer)
    one.on_frames = two.on_frames = lambda: None
    assert paused.calls == []
    await send(peer, HELLO + encode_frame(0x88, b"", KEY))
    peer.shutdown(socket.SHUT_WR)
    await asyncio.sleep(0.02)
    assert paused.calls == []
    paused.transport.resume_reading()
    await eventually(lambda: "lost" in paused.calls)
    count = 3 if paused is two else 2
    assert paused.records == [*[WHOLE] * count, (FIN | CLOSE, b"")]
    assert paused.calls[-2:] == ["eof", "lost"]


async def test_the_switch_waits_for_what_is_held(native: Any, peers: Any) -> None:
    one, one_peer = await connect(native, peers)
    two, two_peer = await connect(native, peers)
    for reader, other in ((one, two), (two, one)):
        reader.begins_at_once = False
        reader.is_reading_frames = True
        reader.on_data = other.transport.pause_reading
    one_peer.send(HELLO[:5])
    two_peer.send(HELLO[:5])
    await eventually(lambda: one.calls or two.calls)
    paused, peer = (two, two_peer) if one.calls else (one, one_peer)
    one.on_data = two.on_data = lambda: None
    assert paused.transport._held
    paused.transport.begin_frames(paused.codec.export)
    await asyncio.sleep(0.02)
    assert paused.transport._export is not None
    assert paused.calls == []
    await send(peer, HELLO[5:] + HELLO)
    paused.transport.resume_reading()
    await eventually(lambda: len(paused.records) == 2)
    assert paused.calls[0] == "data"
    assert paused.calls[-1] == "frames"


async def test_pausing_in_the_middle_of_what_was_held(native: Any, peers: Any) -> None:
    reader, _ = await connect_frames(native, peers)
    transport = reader.transport
    transport.pause_reading()
    # As the engine tells it, in the turn of the pause.
    transport.handle_frames((WHOLE,), 11)
    transport.handle_frames([WHOLE, WHOLE], 22)
    transport.handle_frames((), 3, 14, 0)
    reader.on_frames = transport.pause_reading
    for expected in (1, 3, 3):
        transport.resume_reading()
        await eventually(lambda expected=expected: len(reader.records) >= expected and not transport.is_reading())
        assert len(reader.records) == expected
    assert reader.sizes == [11, 22, 3]
    assert reader.error.wire_code == 1007
    transport.abort()


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (encode_frame(0x81, b"\xff", KEY), 1007, "not UTF-8"),
        (encode_frame(0x82, b"x", KEY, form=64, length=2**63 - 1), 1009, f"{2**63 - 1} is over max_frame="),
        (encode_frame(0x88, b"\x00\x07", KEY), 1002, "invalid close code 7"),
        (b"\xf0", 1002, "reserved bit"),
    ],
)
async def test_errors(native: Any, peers: Any, data: bytes, code: int, text: str) -> None:
    for before in (0, 1, 3):
        reader, peer = await connect_frames(native, peers)
        await send(peer, HELLO * before + data + HELLO)
        await eventually(lambda reader=reader: reader.error)
        assert reader.records == [WHOLE] * before
        assert reader.error.wire_code == code
        assert text in str(reader.error)
        await send(peer, HELLO)
        total = len(HELLO * before + data + HELLO * 2)
        await eventually(lambda reader=reader, total=total: sum(reader.sizes) == total)
        assert reader.records == [WHOLE] * before


async def test_a_codec_that_has_ended_is_not_taken_over(native: Any, peers: Any) -> None:
    reader, peer = await connect(native, peers)
    await send(peer, MARK + encode_frame(0x88, b"", KEY) + HELLO)
    await eventually(lambda: reader.transport._export is None and reader.calls)
    await send(peer, HELLO)
    await eventually(lambda: reader.calls == ["data", "data"])
    assert reader.records == [(FIN | CLOSE, b"")]


async def test_a_connection_that_is_closed_meanwhile(native: Any, peers: Any) -> None:
    reader, peer = await connect(native, peers)
    reader.transport.begin_frames(reader.codec.export)
    reader.transport.abort()
    await eventually(lambda: "lost" in reader.calls)
    reader.transport.begin_frames(reader.codec.export)
    await asyncio.sleep(0.01)
    again, peer = await connect_frames(native, peers)
    await send(peer, HELLO)
    await eventually(lambda: again.records == [WHOLE])


async def test_a_protocol_that_raises_loses_its_connection_only(native: Any, peers: Any, errors: Any) -> None:
    def fail() -> None:
        raise RuntimeError("mine")

    reader, peer = await connect_frames(native, peers)
    other, other_peer = await connect_frames(native, peers)
    reader.on_frames = fail
    await send(peer, HELLO)
    await send(other_peer, HELLO)
    await eventually(lambda: "lost" in reader.calls and other.records == [WHOLE])
    assert [context["exception"].args for context in errors] == [("mine",)]

    failing, _ = await connect(native, peers)
    failing.transport.begin_frames(fail)
    await eventually(lambda: "lost" in failing.calls)
    assert len(errors) == 2


async def test_agreement_with_the_codec(native: Any, peers: Any) -> None:
    """Whatever comes, however cut and paused, is what a codec makes of it."""
    chance = random.Random(9)
    for _ in range(60):
        data = b"".join(make_frames(chance, Role.SERVER, False) for _ in range(chance.choice([1, 3, 10])))
        codec = NativeWsCodec(Role.SERVER, WsLimits(), False)
        expected = Frames()
        expected.receive(codec.receive_data(data))
        reader, peer = await connect(native, peers)
        wire = MARK + data
        cuts = sorted(chance.randrange(len(wire) + 1) for _ in range(chance.choice([0, 1, 5])))
        for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True):
            await send(peer, wire[a:b])
            if chance.random() < 0.3:
                reader.transport.pause_reading()
            await asyncio.sleep(0)
            if chance.random() < 0.5:
                reader.transport.resume_reading()
        reader.transport.resume_reading()
        peer.shutdown(socket.SHUT_WR)
        await eventually(lambda reader=reader: "lost" in reader.calls)
        assert str(reader.error) == str(codec.error)
        assert reader.frames.take(reader.error) == expected.take(codec.error)  # type: ignore[arg-type]
