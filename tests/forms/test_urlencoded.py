"""application/x-www-form-urlencoded as it comes in."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

import pytest

from asyncmg.errors import LimitExceeded
from asyncmg.forms.events import PartBegin
from asyncmg.forms.urlencoded import UrlencodedParser
from asyncmg.limits import FormLimits

LIMITS = FormLimits()


def parse(pieces: Iterable[bytes], limits: FormLimits = LIMITS) -> list[tuple[str, bytes]]:
    parser = UrlencodedParser(limits)
    events = []
    for data in pieces:
        parser.receive_data(data)
        events += list(parser)
    parser.receive_end()
    events += list(parser)
    assert list(parser) == []
    pairs: list[tuple[str, bytes]] = []
    for event in events:
        if isinstance(event, PartBegin):
            assert (event.filename, event.is_file, event.content_type) == ("", False, "text/plain")
            pairs.append((event.name, b""))
        elif isinstance(event, bytes):
            assert event
            pairs[-1] = (pairs[-1][0], event)
    return pairs


def splits(body: bytes) -> list[list[bytes]]:
    return [[body], [body[i : i + 1] for i in range(len(body))], *([body[:i], body[i:]] for i in range(len(body)))]


@pytest.mark.parametrize(
    ("body", "pairs"),
    [
        (b"", []),
        (b"&", []),
        (b"a=1&b=2&a=3", [("a", b"1"), ("b", b"2"), ("a", b"3")]),
        (b"a=1&&b=2&", [("a", b"1"), ("b", b"2")]),
        (b"a&b=", [("a", b""), ("b", b"")]),
        (b"=1", [("", b"1")]),
        (b"a+b%3d=%26+%2B=", [("a b=", b"& +=")]),
        (b"%C3%A4=%C3%A4%ff", [("\xe4", b"\xc3\xa4\xff")]),
        (b"%ff=%zz%4", [("\udcff", b"%zz%4")]),
        (b"\x00\xff=\r\n", [("\x00\udcff", b"\r\n")]),
    ],
)
def test_pairs_in_any_split(body: bytes, pairs: list[tuple[str, bytes]]) -> None:
    for pieces in splits(body):
        assert parse(pieces) == pairs


@pytest.mark.parametrize(
    ("limits", "body", "wire_code", "limit"),
    [
        ({"max_parts": 2}, b"a=1&b=2&c=3", 400, "max_parts=2"),
        ({"max_parts": 2}, b"&&&&", 400, "max_parts=2"),
        ({"max_field": 5}, b"a=1&a=1234", 413, "max_field=5"),
        ({"max_field": 5}, b"a=1234&a=1", 413, "max_field=5"),
        ({"max_fields_size": 5}, b"a=1&a=1", 413, "max_fields_size=5"),
        ({"max_total": 5}, b"a=1&a=", 413, "max_total=5"),
        ({"max_total": 3, "max_parts": 1}, b"a=1&b&c", 413, "max_total=3"),
    ],
)
def test_limits_in_any_split(limits: dict[str, int], body: bytes, wire_code: int, limit: str) -> None:
    for pieces in splits(body):
        with pytest.raises(LimitExceeded) as caught:
            parse(pieces, replace(LIMITS, **limits))
        assert (caught.value.wire_code, caught.value.limit) == (wire_code, limit)
        assert caught.value.actual > int(limit.partition("=")[2])


def test_exactly_at_the_limits() -> None:
    limits = FormLimits(max_parts=2, max_field=5, max_fields_size=8, max_total=9)
    for pieces in splits(b"a=123&b=4"):
        assert parse(pieces, limits) == [("a", b"123"), ("b", b"4")]


def test_errors_are_final() -> None:
    parser = UrlencodedParser(FormLimits(max_parts=1))
    parser.receive_data(b"a&b&c")
    errors = []
    for _ in range(2):
        with pytest.raises(LimitExceeded) as caught:
            list(parser)
        errors.append(caught.value)
    with pytest.raises(LimitExceeded) as caught:
        parser.receive_end()
    assert {*errors, caught.value} == {errors[0]}
    assert not parser.is_complete


@pytest.mark.parametrize("unit", [b"a", b"&", b"%41", b"+", b"=", b"a=1&"])
@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_any_input_in_any_split_takes_linear_time(unit: bytes, size: int) -> None:
    limits = FormLimits(max_parts=1 << 20)

    def seconds(count: int) -> float:
        body = unit * (count // len(unit))
        best = []
        for _ in range(3):
            start = time.process_time()
            parse((body[position : position + size] for position in range(0, len(body), size)), limits)
            best.append(time.process_time() - start)
        return min(best)

    assert seconds(40_000) < 10 * 4 * max(seconds(4_000), 0.002)
