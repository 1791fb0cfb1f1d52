"""Query strings: leniently as browsers read them, and strictly as uHTTP does."""

from __future__ import annotations

from typing import Any

import pytest

from asyncmg.errors import LimitExceeded, RemoteProtocolError
from asyncmg.queries import MAX_PAIRS, decode_percent_encoding, http_var, parse_query, parse_url, query_pairs


@pytest.mark.parametrize(
    ("raw", "pairs"),
    [
        ("", []),
        ("a=1&b=2&a=3", [("a", "1"), ("b", "2"), ("a", "3")]),
        ("a", [("a", "")]),
        ("=", [("", "")]),
        ("&&a=1&&", [("a", "1")]),
        ("a+b=c%20d%2B", [("a b", "c d+")]),
        ("a=b=c", [("a", "b=c")]),
        ("%61=%C3%A4", [("a", "\xe4")]),
        ("a=%zz&b=%&c=%4", [("a", "%zz"), ("b", "%"), ("c", "%4")]),
        ("a=%ff", [("a", "\udcff")]),
        (b"a=\xff", [("a", "\udcff")]),
        ("a=\xe4\udcff", [("a", "\xe4\udcff")]),
        ("a;b=1", [("a;b", "1")]),
    ],
)
def test_pairs(raw: str | bytes, pairs: list[tuple[str, str]]) -> None:
    assert query_pairs(raw) == pairs


def test_pairs_are_bounded() -> None:
    assert len(query_pairs("&".join(["a=1"] * MAX_PAIRS))) == MAX_PAIRS
    for raw in ("&".join(["a=1"] * (MAX_PAIRS + 1)), "&" * MAX_PAIRS):
        for parse in (query_pairs, parse_query):
            with pytest.raises(LimitExceeded) as caught:
                parse(raw)
            assert (caught.value.wire_code, caught.value.actual) == (400, MAX_PAIRS + 1)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"~%21%40+%2B%2b", b"~!@ ++"),
        ("a%C3%A1\xe4", b"a\xc3\xa1\xc3\xa4"),
        ("".join(f"%{number:02X}" for number in range(256)), bytes(range(256))),
        (b"", b""),
    ],
)
def test_percent_encoding(data: str | bytes, expected: bytes) -> None:
    assert decode_percent_encoding(data) == expected


@pytest.mark.parametrize("data", ["%", "a%4", "%zz", "%+1", "% 1", "%%41"])
def test_malformed_percent_encoding(data: str) -> None:
    with pytest.raises(ValueError, match="percent-encoding"):
        decode_percent_encoding(data)
    for parse in (parse_query, parse_url):
        with pytest.raises(RemoteProtocolError) as caught:
            parse(data)
        assert caught.value.wire_code == 400


@pytest.mark.parametrize(
    ("raw", "query"),
    [
        (b"", {}),
        (b"aa", {"aa": None}),
        (b"aa&aa", {"aa": [None, None]}),
        ("cc=xyz&&cc=pqr", {"cc": ["xyz", "pqr"]}),
        (b"aa&aa=xyz", {"aa": [None, "xyz"]}),
        (b"aa=xyz&aa", {"aa": ["xyz", None]}),
        (b"a=1&a=2&a=3&b=+", {"a": ["1", "2", "3"], "b": " "}),
        ("a=", {"a": ""}),
    ],
)
def test_queries_as_in_uhttp(raw: str | bytes, query: dict[str, Any]) -> None:
    assert parse_query(raw) == query


def test_a_query_is_added_to_a_dict() -> None:
    query: dict[str, Any] = {"a": "0"}
    assert parse_query("a=1&b", query) is query
    assert query == {"a": ["0", "1"], "b": None}


def test_a_query_that_is_not_utf8() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_query("a=%ff")
    assert (caught.value.wire_code, caught.value.section) == (400, "RFC 3986 section 2.1")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/", ("/", None)),
        (b"/a%20b+c?x=1+2&y", ("/a b+c", {"x": "1 2", "y": None})),
        ("/a?", ("/a", {})),
        ("/a?b?c=d", ("/a", {"b?c": "d"})),
        ("/../x://y", ("/../x://y", None)),
        ("*", ("*", None)),
    ],
)
def test_targets(url: str | bytes, expected: tuple[str, Any]) -> None:
    assert parse_url(url) == expected


def test_a_url_is_no_target() -> None:
    with pytest.raises(ValueError, match="origin-form"):
        parse_url("http://localhost/")


@pytest.mark.parametrize(
    ("buf", "name", "value"),
    [
        ("a=1&b=2&a=3", "a", "1"),
        ("a=1&b=2", "B", "2"),
        ("A=1", "a", "1"),
        ("a=%41+x", "a", "%41+x"),
        ("%61=1", "a", None),
        ("a", "a", ""),
        ("a=", "a", ""),
        ("a==1", "a", "=1"),
        ("aa=1&a=2", "a", "2"),
        ("=1", "", "1"),
        ("&&", "", None),
        ("", "", None),
        ("a=1;b=2", "b", None),
        ("\xe4=\u20ac", "\xe4", "\u20ac"),
        ("\xc4=1", "\xe4", None),
        (b"a=\xff", "a", "\udcff"),
        (bytearray(b"a=1"), "a", "1"),
    ],
)
def test_http_var(buf: Any, name: str, value: str | None) -> None:
    assert http_var(buf, name) == value


@pytest.mark.parametrize(("buf", "name"), [(5, "a"), (None, "a"), ("a=1", b"a"), ("a=1", None), ([1], "a")])
def test_http_var_of_other_types(buf: Any, name: Any) -> None:
    with pytest.raises(TypeError):
        http_var(buf=buf, name=name)
