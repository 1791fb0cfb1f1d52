"""Laws of the WebSocket codecs, whatever bytes they are fed, and round trips through what we frame ourselves."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncmg.codecs.http import Role
from asyncmg.codecs.ws import (
    BINARY,
    CLOSE,
    CONTINUATION,
    END_OF_FRAME,
    FIN,
    PING,
    PONG,
    TEXT,
    WsRecord,
    close_payload,
    frame_header,
    is_valid_close_code,
)
from asyncmg.limits import WsLimits
from tests.codecs.ws_codec_list import WS_CODECS, assert_reads_nothing, feed, run, split_at
from tests.fuzz.fuzz_ws_differential import TIGHT, TINY, by_characters, make_frames

CUTS = st.lists(st.integers(0, 1000), max_size=8)
SEEDS = st.integers(0, 2**48)
LIMITS = st.sampled_from([WsLimits(), TIGHT, TINY])
ROLES = st.sampled_from(list(Role))
HEADS = st.tuples(
    st.sampled_from([0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8A, 0xC1, 0x42]),
    st.sampled_from([0, 1, 5, 125, 126, 127, 0x80, 0x81, 0x85, 0xFE, 0xFF]),
).map(bytes)
GARBAGE = st.one_of(st.binary(max_size=300), st.lists(st.one_of(HEADS, st.binary(max_size=12))).map(b"".join))

codecs = pytest.mark.parametrize("name", WS_CODECS)


def make_input(role: Role, compressed: bool, seed: int) -> bytes:
    return make_frames(random.Random(seed), role, compressed)


@codecs
@given(role=ROLES, limits=LIMITS, compressed=st.booleans(), data=st.one_of(SEEDS, GARBAGE), cuts=CUTS)
@example(role=Role.CLIENT, limits=WsLimits(), compressed=False, data=b"\x81\x7f\0\0\0\0\0\1\0\0\xed", cuts=[3])
def test_where_the_input_is_split_does_not_matter(
    name: str, role: Role, limits: WsLimits, compressed: bool, data: bytes | int, cuts: list[int]
) -> None:
    if isinstance(data, int):
        data = make_input(role, compressed, data)
    outcomes = []
    for pieces in ([data], split_at(data, cuts), split_at(data, range(len(data)))):
        records, code = run(name, role, pieces, limits=limits, compressed=compressed)
        # wsproto gives texts out by characters: what there is of the last frame may lack one.
        outcomes.append((by_characters(records, code), code))
    assert outcomes[0] == outcomes[1] == outcomes[2]


@codecs
@given(role=ROLES, limits=LIMITS, compressed=st.booleans(), data=GARBAGE, cuts=CUTS)
def test_only_protocol_errors_come_and_they_are_final(
    name: str, role: Role, limits: WsLimits, compressed: bool, data: bytes, cuts: list[int]
) -> None:
    codec = WS_CODECS[name](role, limits, compressed)
    records, error = feed(codec, split_at(data, cuts))
    if error is not None:
        assert error.wire_code in (1002, 1007, 1008, 1009)
        assert str(error)
    if error is not None or (records and records[-1][0] == FIN | CLOSE):
        assert_reads_nothing(codec)


@codecs
@given(role=ROLES, data=SEEDS, limits=LIMITS)
def test_limits_hold(name: str, role: Role, data: int, limits: WsLimits) -> None:
    records, _ = run(name, role, [make_input(role, True, data)], limits=limits, compressed=True)
    size = fragments = 0
    for flags, payload in records:
        opcode = flags & 15
        if opcode >= CLOSE:
            assert len(payload) <= 125
            continue
        size, fragments = (len(payload), 1) if opcode else (size + len(payload), fragments + 1)
        assert size <= limits.max_message
        assert fragments <= limits.max_fragments
        assert len(payload) <= (limits.max_frame or limits.max_message)


# -- what we frame, read by the other side -------------------------------------------------------------------------

PAYLOADS = st.one_of(
    st.binary(max_size=300), st.integers(0, 66_000).map(lambda size: bytes(range(256)) * (size // 256))
)
TEXTS = st.text(max_size=80).map(str.encode)
MESSAGES = st.one_of(
    st.tuples(st.just(BINARY), PAYLOADS),
    st.tuples(st.just(TEXT), TEXTS),
    st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125)),
)


def encode(name: str, role: Role, flags: int, payload: bytes, key: bytes) -> bytes:
    """Frame a payload as the peer of a codec with this role does."""
    if role is Role.CLIENT:
        return frame_header(flags, len(payload)) + payload
    masked = WS_CODECS[name](Role.CLIENT, WsLimits(), False).mask(payload, key)
    return frame_header(flags, len(payload), key) + masked


@codecs
@given(role=ROLES, messages=st.lists(MESSAGES, max_size=6), seed=SEEDS, cuts=CUTS)
def test_messages_round_trip(
    name: str, role: Role, messages: list[tuple[int, bytes]], seed: int, cuts: list[int]
) -> None:
    chance = random.Random(seed)
    frames = [encode(name, role, FIN | opcode, payload, chance.randbytes(4)) for opcode, payload in messages]
    expected = [(FIN | opcode, payload) for opcode, payload in messages]
    assert run(name, role, split_at(b"".join(frames), cuts)) == (expected, 0)
    codec = WS_CODECS[name](role, WsLimits(), False)
    for frame, record in zip(frames, expected, strict=True):
        assert [*codec.receive_data(frame)] == [record], "a whole frame is one record"


@codecs
@given(role=ROLES, text=TEXTS, cuts=CUTS, pings=st.lists(st.binary(max_size=125), max_size=5), seed=SEEDS)
def test_fragments_round_trip(
    name: str, role: Role, text: bytes, cuts: list[int], pings: list[bytes], seed: int
) -> None:
    chance = random.Random(seed)
    pieces = split_at(text, cuts) or [b""]
    expected: list[WsRecord] = []
    for number, piece in enumerate(pieces):
        opcode = CONTINUATION if number else TEXT
        expected.append((opcode | (FIN if number == len(pieces) - 1 else END_OF_FRAME), piece))
        if pings and chance.random() < 0.5:
            expected.append((FIN | PING, pings.pop()))
    wire = b"".join(
        encode(name, role, flags & ~END_OF_FRAME, payload, chance.randbytes(4)) for flags, payload in expected
    )
    for feeding in ([wire], split_at(wire, cuts)):
        records, code = run(name, role, feeding)
        assert code == 0
        assert by_characters(records, 0) == by_characters(expected, 0)


@codecs
@given(
    role=ROLES,
    code=st.one_of(st.just(1005), st.integers(0, 65535).filter(is_valid_close_code)),
    reason=st.text(max_size=30),
)
def test_close_frames_round_trip(name: str, role: Role, code: int, reason: str) -> None:
    payload = close_payload(code, "" if code == 1005 else reason)
    wire = encode(name, role, FIN | CLOSE, payload, b"\1\2\3\4")
    assert run(name, role, [wire, wire]) == ([(FIN | CLOSE, payload)], 0)


@codecs
@given(role=ROLES, code=st.integers(0, 65535).filter(lambda code: not is_valid_close_code(code)))
def test_other_close_codes_are_refused(name: str, role: Role, code: int) -> None:
    wire = encode(name, role, FIN | CLOSE, code.to_bytes(2, "big"), b"\1\2\3\4")
    assert run(name, role, [wire]) == ([], 1002)


@codecs
@given(payload=PAYLOADS, key=st.binary(min_size=4, max_size=4))
def test_masking_twice_is_nothing(name: str, payload: bytes, key: bytes) -> None:
    codec = WS_CODECS[name](Role.SERVER, WsLimits(), False)
    masked = codec.mask(payload, key)
    assert len(masked) == len(payload)
    assert all(masked[place] == payload[place] ^ key[place % 4] for place in range(0, len(payload), 97))
    assert codec.mask(masked, key) == payload
