"""Every vector of tests/vectors/http_*.txt, on every codec, fed in every way."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator

import pytest

from asyncmg.codecs.http import Role
from tests.codecs.codec_list import (
    CODECS,
    Normal,
    assert_stays_failed,
    drain,
    feed,
    make,
    one_by_one,
    split_at,
)
from tests.codecs.vector_file import Vector, matches_head, read_vectors

FILES = {Role.SERVER: "http_requests.txt", Role.CLIENT: "http_responses.txt"}
CASES = [
    pytest.param(role, vector, id=f"{role}: {vector.name}") for role in Role for vector in read_vectors(FILES[role])
]
RANDOM_SPLITS = 5
FURTHER = {
    Role.SERVER: b"GET /further HTTP/1.1\r\nHost: further\r\n\r\n",
    Role.CLIENT: b"HTTP/1.1 299 Further\r\nContent-Length: 0\r\n\r\n",
}

pytestmark = pytest.mark.parametrize("codec_name", CODECS)


def compare(vector: Vector, records: list[Normal]) -> None:
    assert len(records) == len(vector.records), records
    for expected, normal in zip(vector.records, records, strict=True):
        if expected.kind == "head":
            assert normal[0] in ("request", "response")
            assert matches_head(expected, normal, vector.expect) == ""
        elif expected.kind == "body":
            assert normal == ("body", expected.data)
        else:
            assert normal == ("end", tuple(expected.fields))


def check(codec_name: str, role: Role, vector: Vector, pieces: list[bytes]) -> list[Normal]:
    codec = make(codec_name, role, expect=vector.expect)
    records, error = feed(codec, pieces, eof=vector.eof)
    compare(vector, records)
    assert (error is not None) == bool(vector.error), error
    if error is not None:
        assert vector.error in ("any", str(error.wire_code)), error
    if vector.rest is not None:
        assert not codec.is_between_messages
        assert codec.take_rest() == vector.rest
        assert codec.buffered == 0
    return records


def splits(data: bytes) -> Iterator[list[bytes]]:
    chance = random.Random(zlib.crc32(data))
    for _ in range(RANDOM_SPLITS):
        yield split_at(data, [chance.randrange(len(data) + 1) for _ in range(chance.randrange(1, 8))])
    # The last bytes of a line are where a limit or a CR without its LF could be misread.
    ends = [place for place in range(len(data)) if data[place : place + 1] in b"\r\n"]
    for place in chance.sample(ends, min(len(ends), 12)):
        yield split_at(data, [place, place + 1])


@pytest.mark.parametrize(("role", "vector"), CASES)
def test_whole(codec_name: str, role: Role, vector: Vector) -> None:
    check(codec_name, role, vector, [vector.data])


@pytest.mark.parametrize(("role", "vector"), CASES)
def test_byte_by_byte(codec_name: str, role: Role, vector: Vector) -> None:
    check(codec_name, role, vector, one_by_one(vector.data))


@pytest.mark.parametrize(("role", "vector"), CASES)
def test_split_anywhere(codec_name: str, role: Role, vector: Vector) -> None:
    for pieces in splits(vector.data):
        check(codec_name, role, vector, pieces)


def can_be_followed(vector: Vector) -> bool:
    if vector.eof:
        return False
    return bool(vector.error) or (vector.rest is None and vector.records[-1].kind == "end")


@pytest.mark.parametrize(("role", "vector"), [case for case in CASES if can_be_followed(case.values[1])])
def test_with_trailing_bytes(codec_name: str, role: Role, vector: Vector) -> None:
    """The next message is there already: it changes nothing, and it is read after."""
    further = FURTHER[role]
    for pieces in ([vector.data + further], one_by_one(vector.data + further)):
        codec = make(codec_name, role, expect=[*vector.expect, "GET"] if not vector.error else vector.expect)
        records, error = feed(codec, pieces)
        if vector.error:
            compare(vector, records)
            assert error is not None
            assert vector.error in ("any", str(error.wire_code)), error
            continue
        assert error is None
        assert [normal[0] for normal in records[-2:]] == ["request" if role is Role.SERVER else "response", "end"]
        assert b"urther" in repr(records[-2]).encode()
        compare(vector, records[:-2])
        assert codec.is_between_messages


@pytest.mark.parametrize(("role", "vector"), [case for case in CASES if case.values[1].error])
def test_an_error_is_final(codec_name: str, role: Role, vector: Vector) -> None:
    for pieces in ([vector.data], one_by_one(vector.data), [vector.data + FURTHER[role]]):
        codec = make(codec_name, role, expect=[*vector.expect, *["GET"] * vector.expect.count("GET")])
        _, error = feed(codec, pieces, eof=vector.eof)
        if error is not None:  # a response without a request is asked for here
            assert_stays_failed(codec, FURTHER[role])


@pytest.mark.parametrize(("role", "vector"), CASES)
def test_one_call_of_receive_data_may_bring_nothing(codec_name: str, role: Role, vector: Vector) -> None:
    pieces = [piece for byte in split_at(vector.data, range(0, len(vector.data), 7)) for piece in (byte, b"")]
    codec = make(codec_name, role, expect=vector.expect)
    records: list[Normal] = []
    error = None
    for piece in pieces:
        codec.receive_data(piece)
        error = drain(codec, records)
        if error:
            break
    if not vector.eof:
        assert (error is not None) == bool(vector.error)
        compare(vector, records)


def test_there_are_enough_vectors(codec_name: str) -> None:
    assert len(read_vectors(FILES[Role.SERVER])) >= 120
    assert len(read_vectors(FILES[Role.CLIENT])) >= 50
    assert codec_name in CODECS
