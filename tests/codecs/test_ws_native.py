"""What is the native WebSocket codec's own: the C function below it, what it holds, threads."""

from __future__ import annotations

import ctypes
import os
import random
import re
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

import asyncmg.core
from asyncmg.codecs import ws_native
from asyncmg.codecs.http import Role
from asyncmg.codecs.ws import BINARY, CLOSE, END_OF_FRAME, FIN, PING, TEXT, frame_header
from asyncmg.codecs.ws_native import ERRORS, NativeWsCodec
from asyncmg.codecs.ws_portable import PortableWsCodec, unmask
from asyncmg.core import Core
from asyncmg.core.records import (
    AMG_CLIENT,
    AMG_SERVER,
    AMG_WS_ERROR,
    AMG_WS_HELD,
    WS_LIMITS,
    WS_RECORD,
    WS_STATE,
    ws_limits,
)
from asyncmg.errors import LimitExceeded
from asyncmg.limits import WsLimits
from tests.codecs.ws_codec_list import WS_CODECS, feed, one_by_one, split_at
from tests.codecs.ws_vector_file import WsVector, encode_frame, read_ws_vectors

KEY = b"\x37\xfa\x21\x3d"
HELLO = encode_frame(0x81, b"Hello", KEY)
WHOLE = (FIN | TEXT, b"Hello")


@pytest.fixture
def core() -> Core:
    if "native" not in WS_CODECS:
        pytest.skip(f"no C core: {asyncmg.core.status().reason}")
    found = asyncmg.core.load()
    if found is None:
        assert os.environ.get("ASYNCMG_REQUIRE_CORE") != "1", asyncmg.core.status().reason
        pytest.skip("the C core is switched off")
    return found


class Reader:
    """amg_ws_read, bare: it reads in place."""

    def __init__(self, core: Core, role: int = AMG_SERVER, limits: WsLimits | None = None, room: int = 8) -> None:
        self.core = core
        self.limits = ws_limits(limits or WsLimits())
        self.state = ctypes.create_string_buffer(WS_STATE.size)
        self.records = ctypes.create_string_buffer(WS_RECORD.size * room)
        self.room = room
        self.consumed = ctypes.c_size_t()
        core.ws.init(ctypes.addressof(self.state), role, False)

    def read(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return flags and payload of the records of one call; of an error its number."""
        memory = ctypes.create_string_buffer(data, len(data) + 1)
        count = self.core.ws.read(
            ctypes.addressof(self.state),
            self.limits,
            ctypes.addressof(memory),
            len(data),
            ctypes.addressof(memory),
            ctypes.addressof(self.records),
            self.room,
            ctypes.addressof(self.consumed),
        )
        assert count <= self.room
        found = []
        for flags, offset, length, error in WS_RECORD.iter_unpack(self.records.raw[: count * WS_RECORD.size]):
            if flags & AMG_WS_ERROR:
                found.append((flags, bytes([error])))
            elif flags & AMG_WS_HELD:
                found.append((flags, self.state.raw[-125:][:length]))
            else:
                assert offset + length <= len(data)
                found.append((flags, memory.raw[offset : offset + length]))
        return found


# -- amg_ws_read --------------------------------------------------------------------------------------------------


def test_in_place(core: Core) -> None:
    reader = Reader(core)
    assert reader.read(HELLO + encode_frame(0x89, b"", KEY) + HELLO) == [WHOLE, (FIN | PING, b""), WHOLE]
    assert reader.consumed.value == 2 * len(HELLO) + 6


def test_full_records_leave_the_rest(core: Core) -> None:
    reader = Reader(core, room=2)
    data = HELLO * 5 + HELLO[:3]
    seen = []
    while data:
        found = reader.read(data)
        seen.append(len(found))
        data = data[reader.consumed.value :]
    assert seen == [2, 2, 1]
    assert reader.read(HELLO[3:]) == [WHOLE]


def test_a_control_frame_in_pieces_is_held(core: Core) -> None:
    reader = Reader(core)
    ping = encode_frame(0x89, b"{a}" * 40, KEY)
    assert reader.read(ping[:50]) == []
    assert reader.read(ping[50:]) == [(FIN | PING | AMG_WS_HELD, b"{a}" * 40)]
    assert reader.read(HELLO) == [WHOLE]


def test_the_next_one_waits_for_its_place(core: Core) -> None:
    """A record that is held must not be overwritten in the same call."""
    reader = Reader(core)
    first, second = encode_frame(0x89, b"first", KEY), encode_frame(0x89, b"second", KEY)
    for cut in range(1, len(second)):
        assert reader.read(first[:9]) == []
        data = first[9:] + HELLO + second[:cut]
        assert reader.read(data) == [(FIN | PING | AMG_WS_HELD, b"first"), WHOLE]
        used = reader.consumed.value
        assert len(data) - used == max(0, cut - 6), "the payload, its header is taken"
        assert reader.read(data[used:]) == []
        assert reader.consumed.value == len(data) - used
        assert reader.read(second[cut:])[0][1] == b"second"


def test_behind_the_end_all_is_consumed(core: Core) -> None:
    for end, flags in ((encode_frame(0x88, b"", KEY), FIN | CLOSE), (b"\xff", AMG_WS_ERROR)):
        reader = Reader(core)
        data = HELLO + end + HELLO
        assert [record[0] for record in reader.read(data)] == [FIN | TEXT, flags]
        assert reader.consumed.value == len(data)
        assert reader.read(HELLO) == []
        assert reader.consumed.value == len(HELLO)


def test_unmasked_payloads_may_stay_where_they_are(core: Core) -> None:
    reader = Reader(core, AMG_CLIENT)
    data = encode_frame(0x81, b"a\xc3\xa4", b"") + encode_frame(0x82, b"b", b"")
    count = core.ws.read(
        ctypes.addressof(reader.state),
        reader.limits,
        data,
        len(data),
        None,
        ctypes.addressof(reader.records),
        8,
        ctypes.addressof(reader.consumed),
    )
    raw = WS_RECORD.iter_unpack(reader.records.raw[: count * WS_RECORD.size])
    assert [data[offset : offset + length] for _, offset, length, _ in raw] == [b"a\xc3\xa4", b"b"]


# -- errors and limits --------------------------------------------------------------------------------------------


def test_errors_are_those_of_the_header() -> None:
    header = (Path(asyncmg.core.__file__).parent / "amg.h").read_text(encoding="utf-8")
    assert list(ERRORS) == re.findall(r"^    (AMG_WS_E_\w+)", header, re.MULTILINE)
    for message, where, code in ERRORS.values():
        assert message
        assert re.fullmatch(r"[\d.]+", where) if code else hasattr(WsLimits(), where)


def test_limits_are_packed_once() -> None:
    assert WS_LIMITS.unpack(ws_limits(WsLimits())) == (1 << 20, 1 << 20, 16384, 0)
    assert ws_limits(WsLimits()) is ws_limits(WsLimits())
    high = WsLimits(max_frame=2**70, max_message=2**64, max_fragments=2**40)
    assert WS_LIMITS.unpack(ws_limits(high)) == (2**63 - 1, 2**63 - 1, 2**32 - 1, 0)


@pytest.mark.parametrize("vector", [pytest.param(v, id=v.name) for v in read_ws_vectors() if v.error])
def test_errors_are_told_in_the_same_words(core: Core, vector: WsVector) -> None:
    for role in vector.roles:
        told = []
        for codec in (NativeWsCodec, PortableWsCodec):
            _, error = feed(codec(role, vector.limits, vector.deflate), [vector.data(role)])
            assert error is not None
            actual = error.actual if isinstance(error, LimitExceeded) else 0
            told.append((type(error), str(error), error.section, error.wire_code, actual))
        assert told[0] == told[1]


def test_each_error_is_met(core: Core) -> None:
    numbers = set()
    for vector in read_ws_vectors():
        for role in vector.roles:
            if vector.error and not vector.deflate:
                reader = Reader(core, AMG_SERVER if role is Role.SERVER else AMG_CLIENT, vector.limits, room=99)
                *_, (flags, number) = reader.read(vector.data(role))
                assert flags == AMG_WS_ERROR
                numbers.add(number[0])
    assert numbers == set(range(1, len(ERRORS) + 1))


def test_a_length_that_no_limit_stops(core: Core) -> None:
    reader = Reader(core, limits=WsLimits(max_message=2**63 - 1))
    header = frame_header(FIN | BINARY, 2**63 - 1, KEY)
    assert reader.read(header) == []
    assert reader.read(b"abc")[0][0] == BINARY


# -- the codec ----------------------------------------------------------------------------------------------------


def held_by(codec: NativeWsCodec) -> int:
    """Bytes of a codec and of what is its own."""
    return sys.getsizeof(codec) + sum(sys.getsizeof(own) for own in (codec._state,) if own)


@pytest.mark.parametrize("role", Role)
def test_between_messages_nothing_is_held(core: Core, role: Role) -> None:
    key = KEY if role is Role.SERVER else b""
    codec = NativeWsCodec(role, WsLimits(), False)
    whole = encode_frame(0x81, b"Hello", key)
    fragments = encode_frame(0x01, b"He", key) + encode_frame(0x89, b"x", key) + encode_frame(0x80, b"llo", key)
    large = encode_frame(0x82, bytes(1 << 19), key)
    for data in (b"", whole, whole * 1000, fragments, large, encode_frame(0x8A, b"pong", key)):
        for pieces in ([data], [data[:3], data[3:]], split_at(data, range(0, len(data), len(data) // 50 + 1))):
            _, error = feed(codec, pieces)
            assert error is None
            assert codec._state is None
            assert held_by(codec) < 120
    codec.receive_data(large[:100_000])
    assert held_by(codec) < 400, "in the middle: the struct"


def test_scratch_does_not_stay_huge(core: Core) -> None:
    codec = NativeWsCodec(Role.SERVER, WsLimits(max_message=1 << 24), False)
    for size in (1 << 17, 3 << 20, 5):
        payload = os.urandom(size)
        assert codec.receive_data(encode_frame(0x82, payload, KEY)) in ([(0x82, payload)], ((0x82, payload),))
    (workspace,) = codec._spare
    assert len(workspace.scratch) == ws_native._SCRATCH
    assert workspace.call[ws_native._OUT] == ctypes.addressof(workspace.scratch)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 512, 513, 70_000])
def test_many_frames_at_once(core: Core, role: Role, count: int) -> None:
    key = KEY if role is Role.SERVER else b""
    frames = [encode_frame(0x82, b"%d" % number, key) for number in range(count)]
    expected = [(FIN | BINARY, b"%d" % number) for number in range(count)]
    for data, more in ((b"".join(frames), []), (b"".join(frames) + frames[0][:1], [(FIN | BINARY, b"0")])):
        codec = NativeWsCodec(role, WsLimits(), False)
        records = [*codec.receive_data(data)]
        if more:
            records += codec.receive_data(frames[0][1:])
        assert records == expected + more
        assert codec.error is None


def test_records_behind_a_control_frame_in_pieces(core: Core) -> None:
    ping = encode_frame(0x89, b"a ping", KEY)
    fragment = encode_frame(0x01, b"fragment", KEY)
    for further in (HELLO * 300, HELLO + ping[:8], fragment, encode_frame(0x88, b"", KEY), b"\xff"):
        for cut in range(1, len(ping)):
            once = NativeWsCodec(Role.SERVER, WsLimits(), False)
            codec = NativeWsCodec(Role.SERVER, WsLimits(), False)
            records = [*codec.receive_data(HELLO + ping[:cut]), *codec.receive_data(ping[cut:] + further)]
            assert records == [*once.receive_data(HELLO + ping + further)]
            assert str(codec.error) == str(once.error)


def test_codecs_that_are_read_in_turn(core: Core) -> None:
    """They work in one workspace: what one has begun does not reach another."""
    chance = random.Random(4)
    frames = [encode_frame(0x01, b"one\xe2\x82", KEY), encode_frame(0x80, b"\xac two", KEY), HELLO]
    frames.append(encode_frame(0x89, b"x" * 99, KEY))
    data = b"".join(frames)
    readers = [NativeWsCodec(Role.SERVER, WsLimits(), False) for _ in range(30)]
    inputs = [split_at(data, [chance.randrange(len(data)) for _ in range(9)]) for _ in readers]
    seen: list[list[tuple[int, bytes]]] = [[] for _ in readers]
    for turn in range(11):
        for codec, pieces, records in zip(readers, inputs, seen, strict=True):
            if turn < len(pieces):
                records += codec.receive_data(pieces[turn])
    for codec, records in zip(readers, seen, strict=True):
        assert codec.error is None
        text = b"".join(payload for flags, payload in records if flags & 15 in (0, TEXT))
        assert text == "one\u20ac twoHello".encode()
        assert records[-1] == (FIN | PING, b"x" * 99)


def test_kinds_do_not_share_a_workspace(core: Core) -> None:
    tight = replace(WsLimits(), max_message=3)
    refused = NativeWsCodec(Role.SERVER, tight, False)
    plain = NativeWsCodec(Role.SERVER, WsLimits(), False)
    compressed = NativeWsCodec(Role.SERVER, WsLimits(), True)
    frame = encode_frame(0xC1, b"\xff", KEY)
    assert [*compressed.receive_data(frame)] == [(0xC1, b"\xff")]
    assert not plain.receive_data(frame)
    assert plain.error is not None
    assert not refused.receive_data(HELLO)
    assert "max_frame=3" in str(refused.error)
    assert [*compressed.receive_data(HELLO)] == [WHOLE]


def test_threads_do_not_disturb_each_other(core: Core) -> None:
    failures: list[object] = []

    def work(number: int) -> None:
        word = b"%d" % number * 40
        data = b"".join(
            (
                encode_frame(0x01, word, KEY),
                encode_frame(0x89, word, KEY),
                encode_frame(0x80, word, KEY),
                encode_frame(0x82, word, KEY) * 3,
            )
        )
        expected = [(TEXT | END_OF_FRAME, word), (FIN | PING, word), (FIN, word), *[(FIN | BINARY, word)] * 3]
        codec = NativeWsCodec(Role.SERVER, WsLimits(), False)
        for round_number in range(300):
            cut = round_number % len(data)
            records, _ = feed(codec, [data[:cut], data[cut:]])
            if records != expected:
                failures.append(records)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failures == []


def test_byte_by_byte_costs_no_memory(core: Core) -> None:
    codec = NativeWsCodec(Role.SERVER, WsLimits(), False)
    data = encode_frame(0x81, "\u20ac".encode() * 3000, KEY)
    records = []
    for byte in one_by_one(data):
        records += codec.receive_data(byte)
        assert held_by(codec) < 400
    assert b"".join(payload for _, payload in records) == "\u20ac".encode() * 3000
    assert len(records) == 9000


# -- masking, of every codec --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WS_CODECS)
@pytest.mark.parametrize("size", [*range(10), 125, 126, 255, 256, 257, 1023, 4096, 4097, 6144, 10_001, 1 << 20])
def test_mask(name: str, size: int) -> None:
    codec = WS_CODECS[name](Role.CLIENT, WsLimits(), False)
    payload = random.Random(size).randbytes(size)
    masked = codec.mask(payload, KEY)
    assert type(masked) is bytes
    assert frame_header(FIN | BINARY, size, KEY) + masked == encode_frame(0x82, payload, KEY)
    assert codec.mask(masked, KEY) == payload
    assert unmask(payload, KEY) == masked
