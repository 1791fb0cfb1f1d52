"""multipart/form-data (RFC 7578), read with the loop of the seeds."""

from __future__ import annotations

import time
from typing import Any

import pytest

from asyncmg.multipart import http_parse_multipart


def parts_of(body: Any) -> list[tuple[str, str, bytes]]:
    parts = []
    offset = 0
    while True:
        before = offset
        offset, part = http_parse_multipart(body, offset)
        if part is None:
            break
        assert offset > before, "the loop must come to an end"
        parts.append((part["name"], part["filename"], part["body"]))
    assert offset == 0
    return parts


def encode(*parts: tuple[str, bytes], boundary: str = "b0", end: str = "--\r\n") -> bytes:
    out = []
    for disposition, body in parts:
        head = f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: text/plain\r\n\r\n"
        out += [head.encode(), body, b"\r\n"]
    return b"".join(out) + f"--{boundary}{end}".encode()


def test_fields_and_files() -> None:
    body = encode(('name="a"', b"1"), ('name="f"; filename="x.txt"', b"line\r\nline\r\n"), ('name="c"', b"3"))
    assert parts_of(body) == [("a", "", b"1"), ("f", "x.txt", b"line\r\nline\r\n"), ("c", "", b"3")]


@pytest.mark.parametrize(
    "end", ["--", "--\r\n", "--\r\n\r\n", "-- \r\n", "--\r\nepilogue", "--\r\nan\r\n\r\nepilogue\r\n"]
)
def test_ends(end: str) -> None:
    assert parts_of(encode(('name="a"', b"1"), end=end)) == [("a", "", b"1")]


def test_the_epilogue_is_ignored() -> None:
    """RFC 2046 section 5.1.1."""
    phantom = '--\r\nContent-Disposition: form-data; name="phantom"\r\n\r\n2\r\n--b0--\r\n'
    assert parts_of(encode(('name="a"', b"1"), end=phantom)) == [("a", "", b"1")]


@pytest.mark.parametrize(
    ("disposition", "name", "filename"),
    [
        ("name=a; filename=b.txt", "a", "b.txt"),
        ('filename="b.txt"; name="a"', "a", "b.txt"),
        ('NAME="a"', "a", ""),
        ('name="a;b"; filename="c;d=\\"e\\".txt"', "a;b", 'c;d="e".txt'),
        ('name="a"; filename="../../etc/passwd"', "a", "../../etc/passwd"),
        ('name="a"; filename="\xe4\u20ac.txt"', "a", "\xe4\u20ac.txt"),
        ('name="a filename=evil"', "a filename=evil", ""),
        ('name="a; filename=evil"', "a; filename=evil", ""),
        ('name=""; filename=""', "", ""),
        ("", "", ""),
    ],
)
def test_names(disposition: str, name: str, filename: str) -> None:
    assert parts_of(encode((disposition, b"x"))) == [(name, filename, b"x")]


def test_names_that_are_not_utf8() -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="\xe4"\r\n\r\n\xff\r\n--b--'
    assert parts_of(body) == [("\udce4", "", b"\xff")]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n",
        b"\r\n\r\n",
        b"x--b0",
        b"x--b0--\r\n",
        b"\n--b0\n",
        b"\r--b0",
        b"\r\n--b",
        b"\r\n-b0",
        b"\r\n --b0",
        b"\r\n\r\n--\r\n",
        b"\r",
        b"\0\xff\r\n\x00",
        bytes(range(256)),
        b"Content-Disposition: x\r\n\r\ny",
    ],
)
def test_binary_content(content: bytes) -> None:
    assert parts_of(encode(('name="a"', content), ('name="b"', b"2"))) == [("a", "", content), ("b", "", b"2")]


def test_part_without_headers() -> None:
    assert parts_of(b"--b\r\n\r\nbody\r\n--b--") == [("", "", b"body")]


def test_case_and_spaces_of_header_lines() -> None:
    body = b'--b\r\nX: y\r\ncontent-disposition:form-data;name="a"\r\nZ:\r\n\r\n1\r\n--b--'
    assert parts_of(body) == [("a", "", b"1")]


def test_white_space_behind_a_boundary() -> None:
    body = b'--b \t\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b \r\n\r\n2\r\n--b--'
    assert parts_of(body) == [("a", "", b"1"), ("", "", b"2")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--",
        b"\r\n",
        b"--b",
        b"--b\r\n",
        b"--b\r\n\r\n",
        b"--b\r\nX: y",
        b"--b\r\nX: y\r\n\r\nno end",
        b"--b--\r\n",
        b"--\r\n\r\nx\r\n--\r\n",
        b"b\r\n\r\nx\r\nb",
        b"a=1&b=2",
        b"--" + b"b" * 71 + b"\r\n\r\nx\r\n--" + b"b" * 71 + b"--",
    ],
)
def test_no_part(body: bytes) -> None:
    assert http_parse_multipart(body) == (0, None)


def test_the_longest_boundary() -> None:
    assert parts_of(encode(('name="a"', b"1"), boundary="b" * 70)) == [("a", "", b"1")]


def test_the_last_boundary_is_missing() -> None:
    body = encode(('name="a"', b"1"), ('name="b"', b"2"))
    assert parts_of(body[: body.rindex(b"\r\n--b0")]) == [("a", "", b"1")]


@pytest.mark.parametrize("offset", [-1, -1000, 1, 3, 10_000, 1 << 70])
def test_offsets_that_are_none(offset: int) -> None:
    assert http_parse_multipart(encode(('name="a"', b"1")), offset) == (0, None)


def test_the_body_may_be_a_str_or_a_bytearray() -> None:
    body = encode(('name="a"', "\xe4".encode()), ('name="b"', b"2"))
    expected = [("a", "", "\xe4".encode()), ("b", "", b"2")]
    assert parts_of(body.decode()) == expected
    assert parts_of(bytearray(body)) == expected
    assert parts_of(memoryview(body)) == expected


def test_every_cut_is_survived() -> None:
    body = encode(('name="a"', b"1"), ('name="f"; filename="x"', b"2"))
    whole = parts_of(body)
    for end in range(len(body)):
        found = parts_of(body[:end])
        assert found == whole[: len(found)]


def test_ten_thousand_parts_take_linear_time() -> None:
    def seconds(count: int) -> float:
        body = encode(*[('name="a"', b"1")] * count)
        best = []
        for _ in range(3):
            start = time.process_time()
            assert len(parts_of(body)) == count
            best.append(time.process_time() - start)
        return min(best)

    assert seconds(10_000) < 10 * 4 * max(seconds(1_000), 0.005)
