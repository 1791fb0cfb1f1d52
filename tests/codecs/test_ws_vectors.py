"""Every vector of tests/vectors/ws_frames.txt, on every codec, in both roles, fed in every way."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator

import pytest

from asyncmg.codecs.http import Role
from asyncmg.codecs.ws import CLOSE, FIN, PING
from asyncmg.errors import LimitExceeded
from tests.codecs.ws_codec_list import WS_CODECS, assert_reads_nothing, feed, one_by_one, run, split_at
from tests.codecs.ws_vector_file import WsVector, encode_frame, read_ws_vectors

VECTORS = read_ws_vectors()
CASES = [
    pytest.param(name, role, vector, id=f"{name}-{role}: {vector.name}")
    for name in WS_CODECS
    for vector in VECTORS
    for role in vector.roles
    if name != "wsproto" or not vector.wsproto
]
RANDOM_SPLITS = 6
MOST_STEPS = 3000  # longer input is not fed byte by byte


def check(name: str, role: Role, vector: WsVector, pieces: list[bytes]) -> None:
    codec = WS_CODECS[name](role, vector.limits, vector.deflate)
    records, error = feed(codec, pieces)
    assert records == vector.records
    assert (0 if error is None else error.wire_code) == vector.error, error
    if error is not None:
        assert error.section.startswith("RFC 6455") or isinstance(error, LimitExceeded)
    if error is not None or (records and records[-1][0] == FIN | CLOSE):
        assert_reads_nothing(codec)


@pytest.mark.parametrize(("name", "role", "vector"), CASES)
def test_whole(name: str, role: Role, vector: WsVector) -> None:
    check(name, role, vector, [vector.data(role)])


@pytest.mark.parametrize(("name", "role", "vector"), CASES)
def test_byte_by_byte(name: str, role: Role, vector: WsVector) -> None:
    data = vector.data(role)
    if len(data) <= MOST_STEPS:
        check(name, role, vector, one_by_one(data))
        check(name, role, vector, [piece for byte in one_by_one(data) for piece in (byte, b"")])
    else:
        step = len(data) // MOST_STEPS + 1
        check(name, role, vector, split_at(data, range(0, len(data), step)))


def splits(data: bytes) -> Iterator[list[bytes]]:
    chance = random.Random(zlib.crc32(data))
    for _ in range(RANDOM_SPLITS):
        yield split_at(data, [chance.randrange(len(data) + 1) for _ in range(chance.randrange(1, 8))])
    # The first bytes hold a header, the last ones may be half of something.
    for place in (1, 2, 3, 4, 7, 9, 11, 13, 14, len(data) - 1, len(data) - 2):
        yield split_at(data, [place])


@pytest.mark.parametrize(("name", "role", "vector"), CASES)
def test_split_anywhere(name: str, role: Role, vector: WsVector) -> None:
    for pieces in splits(vector.data(role)):
        check(name, role, vector, pieces)


def can_be_followed(vector: WsVector) -> bool:
    """Its input ends with a whole frame, and more may come."""
    if vector.error or any(option == "in" or "length=" in option for option, _ in vector.frames):
        return False
    return not any(flags == FIN | CLOSE for flags, _ in vector.records)


@pytest.mark.parametrize(("name", "role", "vector"), [case for case in CASES if can_be_followed(case.values[2])])
def test_with_a_frame_behind(name: str, role: Role, vector: WsVector) -> None:
    """It is there already, or comes by itself: it changes nothing, and it is read after."""
    data = vector.data(role)
    ping = encode_frame(FIN | PING, b"behind", b"\1\2\3\4" if role is Role.SERVER else b"")
    for pieces in ([data + ping], [data, ping], [data + ping[:1], ping[1:]], [data, *one_by_one(ping)]):
        records, code = run(name, role, pieces, limits=vector.limits, compressed=vector.deflate)
        assert (records, code) == ([*vector.records, (FIN | PING, b"behind")], 0)


@pytest.mark.parametrize(("name", "role", "vector"), [case for case in CASES if case.values[2].error])
def test_an_error_is_told_once_and_is_final(name: str, role: Role, vector: WsVector) -> None:
    behind = encode_frame(0x81, b"behind", b"\1\2\3\4" if role is Role.SERVER else b"")
    codec = WS_CODECS[name](role, vector.limits, vector.deflate)
    records, error = feed(codec, [vector.data(role) + behind])
    assert error is not None
    assert error.wire_code == vector.error
    assert records == vector.records
    assert_reads_nothing(codec)


def test_there_are_enough_vectors() -> None:
    assert len(VECTORS) >= 220
    assert sum(bool(vector.wsproto) for vector in VECTORS) <= 20
    errors = {vector.error for vector in VECTORS}
    assert errors == {0, 1002, 1007, 1008, 1009}
