"""Header field lines and values (RFC 9110 section 5). ``header_parameter`` is tested in test_messages.py."""

from __future__ import annotations

import time

import pytest

from asyncmg.fields import list_items, parse_header_line, parse_header_parameters, quality_values


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"Content-Length: 123", ("content-length", "123")),
        ("X-A:b", ("x-a", "b")),
        (b"X: y\r\n", ("x", "y")),
        ("X:", ("x", "")),
        ("X:  \t a b \t ", ("x", "a b")),
        ("X: a: b", ("x", "a: b")),
        (b"X: \xc3\xa4\xff", ("x", "\xe4\udcff")),
    ],
)
def test_header_lines(line: str | bytes, expected: tuple[str, str]) -> None:
    assert parse_header_line(line) == expected


@pytest.mark.parametrize(
    "line",
    ["", "X", ":", ": x", "X : y", " X: y", "X\t: y", "X y: z", "\xe4: x", "X: a\rb", "X: a\nb", "X: \0", "X: y\n"],
)
def test_malformed_header_lines(line: str) -> None:
    with pytest.raises(ValueError, match="malformed header line"):
        parse_header_line(line)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("xyz=123;abcd=efgh; ijkl=mnop", {"xyz": "123", "abcd": "efgh", "ijkl": "mnop"}),
        ('form-data; name="a;b"; filename="\\"c\\""', {"form-data": None, "name": "a;b", "filename": '"c"'}),
        ("text/html; Charset = utf-8", {"text/html": None, "Charset": "utf-8"}),
        ("a=1; a=2;; b ;", {"a": "2", "b": None}),
        ("", {}),
        ('a="', {"a": '"'}),
        ('a="b;c', {"a": '"b;c'}),
    ],
)
def test_header_parameters(value: str, expected: dict[str, str | None]) -> None:
    assert parse_header_parameters(value) == expected


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ("a, b,c", ["a", "b", "c"]),
        (",, a ,\t,", ["a"]),
        ("", []),
        ('W/"a,b", "c\\",d", *', ['W/"a,b"', '"c\\",d"', "*"]),
        ('a, "b, c', ["a", '"b, c']),
        ('a, "b\\', ["a", '"b\\']),
    ],
)
def test_lists(value: str, items: list[str]) -> None:
    assert list_items(value) == items


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("gzip, br", [("gzip", 1.0), ("br", 1.0)]),
        ("GZIP;q=0.5, *;q=0, identity ; Q = 1.000", [("gzip", 0.5), ("*", 0.0), ("identity", 1.0)]),
        ("text/html;level=1; q=0.3;x=y, */*;q=0.", [("text/html;level=1", 0.3), ("*/*", 0.0)]),
        ('a/b; x="1,2;q=0"', [('a/b;x="1,2;q=0"', 1.0)]),
        ("a;q=0.12345", [("a", 0.12345)]),
        ("a;q=2, b;q=-1, c;q=x, d;q=, e;q=nan, f;q=1e0, g;q=.5, h;q=1.1, i", [("i", 1.0)]),
        (";q=1, ,", []),
        ("", []),
    ],
)
def test_weights(value: str, expected: list[tuple[str, float]]) -> None:
    assert quality_values(value) == expected


@pytest.mark.parametrize("unit", ['"', "\\", '"\\', ",", ";", '",', '"a\\"', " ", "a"])
def test_long_values_take_linear_time(unit: str) -> None:
    def seconds(count: int) -> float:
        best = []
        for _ in range(3):
            start = time.process_time()
            list_items(unit * count)
            quality_values('"' + unit * count)
            parse_header_parameters(unit * count)
            best.append(time.process_time() - start)
        return min(best)

    assert seconds(100_000) < 10 * 4 * max(seconds(10_000), 0.005)
