"""Ranges and multipart/byteranges (RFC 9110 section 14)."""

from __future__ import annotations

import email.parser
import email.policy
import time

import pytest

from asyncmg.files.ranges import MAX_RANGES, Range, content_range, multipart_of, parse_range

IGNORED = None
UNSATISFIABLE: list[Range] = []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-499", [(0, 500)]),
        ("bytes=500-999", [(500, 500)]),
        ("bytes=-500", [(9500, 500)]),
        ("bytes=9500-", [(9500, 500)]),
        ("bytes=0-0,-1", [(0, 1), (9999, 1)]),
        ("bytes= 0-0 , 2-2\t,4-4", [(0, 1), (2, 1), (4, 1)]),
        ("bytes=,0-0,,", [(0, 1)]),
        ("Bytes=0-0", [(0, 1)]),
        ("bytes=0-", [(0, 10000)]),
        ("bytes=0-99999", [(0, 10000)]),
        ("bytes=-99999", [(0, 10000)]),
        ("bytes=9999-9999", [(9999, 1)]),
        ("bytes=00-007", [(0, 8)]),
        ("bytes=0-" + "9" * 5000, [(0, 10000)]),
        ("bytes=-" + "9" * 5000, [(0, 10000)]),
        # some of several
        ("bytes=0-0,10000-", [(0, 1)]),
        ("bytes=10000-,-0,5-5", [(5, 1)]),
        # none
        ("bytes=10000-", UNSATISFIABLE),
        ("bytes=10000-20000", UNSATISFIABLE),
        ("bytes=-0", UNSATISFIABLE),
        ("bytes=" + "9" * 5000 + "-", UNSATISFIABLE),
        ("bytes=10000-,20000-", UNSATISFIABLE),
        # order is kept, unless some overlap
        ("bytes=100-199,0-9", [(100, 100), (0, 10)]),
        ("bytes=0-9,10-19", [(0, 10), (10, 10)]),
        ("bytes=0-9,5-19", [(0, 20)]),
        ("bytes=100-199,0-9,150-160", [(0, 10), (100, 100)]),
        ("bytes=0-9,0-9,0-9", [(0, 10)]),
        ("bytes=0-,0-,0-,0-", [(0, 10000)]),
        ("bytes=-10,9995-,0-0", [(0, 1), (9990, 10)]),
        # bad
        ("", IGNORED),
        ("bytes", IGNORED),
        ("bytes=", IGNORED),
        ("bytes=,", IGNORED),
        ("bytes=-", IGNORED),
        ("bytes=a-b", IGNORED),
        ("bytes=1", IGNORED),
        ("bytes=5-4", IGNORED),
        ("bytes=0-0,5-4", IGNORED),
        ("bytes=0-0,x", IGNORED),
        ("bytes=+1-2", IGNORED),
        ("bytes=1--2", IGNORED),
        ("bytes=--1", IGNORED),
        ("bytes=1-2-3", IGNORED),
        ("bytes=1 - 2", IGNORED),
        ("bytes =1-2", IGNORED),
        ("bytes:1-2", IGNORED),
        ("bytes=0x1-2", IGNORED),
        ("bytes=\u0661-\u0662", IGNORED),
        ("items=0-1", IGNORED),
        ("bytes=0-1, bytes=2-3", IGNORED),
        ("bytes=0-1\n", IGNORED),
    ],
)
def test_ranges_of_ten_thousand_bytes(value: str, expected: list[Range] | None) -> None:
    assert parse_range(value, 10000) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-", UNSATISFIABLE),
        ("bytes=0-0", UNSATISFIABLE),
        ("bytes=5-", UNSATISFIABLE),
        ("bytes=-0", UNSATISFIABLE),
        ("bytes=-1", IGNORED),
        ("bytes=0-,-1", IGNORED),
        ("bytes=x", IGNORED),
    ],
)
def test_ranges_of_nothing(value: str, expected: list[Range] | None) -> None:
    assert parse_range(value, 0) == expected


def test_too_many_ranges_are_ignored() -> None:
    def ranges(count: int) -> str:
        return "bytes=" + ",".join(f"{2 * n}-{2 * n}" for n in range(count))

    assert parse_range(ranges(MAX_RANGES), 10000) == [(2 * n, 1) for n in range(MAX_RANGES)]
    assert parse_range(ranges(MAX_RANGES + 1), 10000) is None
    assert parse_range(ranges(5000), 10000) is None
    started = time.process_time()
    assert parse_range("bytes=" + "," * 100_000, 10000) is None
    assert parse_range("bytes=" + "0-," * 100_000, 10000) is None
    assert parse_range("bytes=" + " " * 100_000 + "x", 10000) is None
    assert time.process_time() - started < 5


def test_content_range() -> None:
    assert content_range(0, 500, 1234) == "bytes 0-499/1234"


def test_multipart() -> None:
    data = bytes(range(256)) * 2
    content_type, segments = multipart_of([(0, 10), (500, 12)], len(data), "text/plain; charset=utf-8")
    body = b"".join(part if isinstance(part, bytes) else data[part[0] : part[0] + part[1]] for part in segments)
    raw = b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body
    parsed = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(raw)
    assert parsed.get_content_type() == "multipart/byteranges"
    first, second = parsed.iter_parts()
    assert first["Content-Range"] == "bytes 0-9/512"
    assert second["Content-Range"] == "bytes 500-511/512"
    assert body.count(b"\r\nContent-Type: text/plain; charset=utf-8\r\n") == 2
    assert first.get_payload(decode=True) == data[:10]
    assert second.get_payload(decode=True) == data[500:]
    boundary = content_type.partition("boundary=")[2]
    assert body.startswith(f"--{boundary}\r\n".encode()) and body.endswith(f"\r\n--{boundary}--\r\n".encode())
    assert boundary not in multipart_of([(0, 1), (2, 1)], 3, "a/b")[0]
