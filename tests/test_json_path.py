"""json_get() and the functions on it: raw text by path, strictly JSON, in linear time."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncmg.json_path import MAX_NESTING, json_get, json_get_bool, json_get_long, json_get_num, json_get_str

DOCUMENT = (
    '{"a": {"b":[1,{"c":"x\\"y"},[2,3]]}, "d" : null ,"e":true,"f":-1.5e3,"g":"\xe4","":7,"k.l":8,"h[0]":9,'
    '"\\u006d":10,"a":11,"n":[ ],"o":{ }, "p":[[1, 2] , 3]}'
)


@pytest.mark.parametrize(
    ("path", "token"),
    [
        ("$", DOCUMENT),
        ("$.a", '{"b":[1,{"c":"x\\"y"},[2,3]]}'),
        ("$.a.b[0]", "1"),
        ("$.a.b[1]", '{"c":"x\\"y"}'),
        ("$.a.b[1].c", '"x\\"y"'),
        ("$.a.b[2][1]", "3"),
        ("$.a.b[002]", "[2,3]"),
        ("$.d", "null"),
        ("$.e", "true"),
        ("$.f", "-1.5e3"),
        ("$.g", '"\xe4"'),
        ("$.", "7"),
        ("$.k.l", "8"),
        ("$.h[0]", "9"),
        ("$.m", "10"),
        ("$.n", "[ ]"),
        ("$.o", "{ }"),
        ("$.p[0]", "[1, 2]"),
        ("$.p[1]", "3"),
    ],
)
def test_found(path: str, token: str) -> None:
    assert json_get(DOCUMENT, path) == token
    assert json_get(DOCUMENT.encode(), path) == token
    assert json_get(bytearray(DOCUMENT.encode()), path) == token  # type: ignore[arg-type]
    assert json_get(" \t\r\n" + DOCUMENT + "\n", path) == token


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        ".a",
        "$a",
        "$.x",
        "$.A",
        "$.a.x",
        "$.a.b[3]",
        "$.a.b[-1]",
        "$.a.b[",
        "$.a.b[]",
        "$.a.b[0",
        "$.a.b[x]",
        "$.a.b[ 0]",
        "$.a.b[0]x",
        "$.a.b[0].x",
        "$.a[0]",
        "$[0]",
        "$.e.x",
        "$.e[0]",
        "$..a",
        "$.*",
        '$["a"]',
        "$ .a",
        "$.n[0]",
        "$.o.x",
        "$.a.b[18446744073709551616]",
        "$.a.b[4294967296]",
        "$.a.b[\u0661]",
        "$.p[2]",
        "$.a.",
    ],
)
def test_not_found(path: str) -> None:
    assert json_get(DOCUMENT, path) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "+1",
        "NaN",
        "Infinity",
        "-Infinity",
        "nul",
        "true1",
        "'a'",
        '"a',
        '"a\nb"',
        '"\\x"',
        '"\\u12"',
        "[1,]",
        "[1,,2]",
        "[1 2]",
        "[1",
        '{"a":1,}',
        '{"a" 1}',
        "{a:1}",
        '{"a":}',
        '{"a":1',
        "[}",
        "\ufeff1",
        "\x0b1",
        "\xa01",
        "//\n1",
        "[01]",
        '["\t"]',
        "[NaN]",
        "]",
        "1x",
        '{"a":[}]}',
    ],
)
def test_malformed(text: str) -> None:
    assert json_get(text, "$") is None
    assert json_get(f"[{text}, 1]", "$[1]") is None or text.strip() == ""
    assert json_get(f'{{"x": {text}, "a": 1}}', "$.a") is None


def test_what_stands_behind_the_value_is_not_read() -> None:
    assert json_get('{"a": [1], "b": oops', "$.a") == "[1]"
    assert json_get("1 2", "$") == "1"
    assert json_get("[1, x", "$[0]") == "1"
    assert json_get("[1, x", "$[1]") is None


def test_the_first_of_two_members_counts() -> None:
    assert json_get('{"a":1,"a":2}', "$.a") == "1"
    assert json_get('{"a":1,"a.b":2}', "$.a.b") is None
    assert json_get('{"a.b":2,"a":{"b":1}}', "$.a.b") == "2"


@pytest.mark.parametrize("wrong", [None, 5, 1.5, [49], {"a": 1}])
def test_other_types(wrong: Any) -> None:
    for function in (json_get, json_get_num, json_get_bool, json_get_long, json_get_str):
        with pytest.raises(TypeError):
            function(wrong, "$")
        with pytest.raises(TypeError):
            function("1", wrong)


def test_bytes_that_are_not_utf8() -> None:
    assert json_get(b'["\xff"]', "$[0]") == '"\udcff"'
    assert json_get_str(b'["\xff"]', "$[0]") == "\udcff"


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
def test_nesting(opening: str) -> None:
    depth = MAX_NESTING // sum(sign in "[{" for sign in opening)
    closing = "".join({"[": "]", "{": "}"}[sign] for sign in reversed(opening) if sign in "[{")
    brackets = '"[[[[{{{{\\"["'
    deep = opening * depth + brackets + closing * depth
    assert json_get(deep, "$") == deep
    path = {"[": "[0]", '{"a":': ".a", '[{"a":': "[0].a"}[opening] * depth
    assert json_get_str(deep, "$" + path) == json.loads(brackets)
    for text in (f"[{deep}]", f'{{"a": {deep}}}', "[" * 100_000, '{"a":' * 100_000):
        assert json_get(text, "$") is None


def test_many_containers_beside_each_other() -> None:
    document = json.dumps([{"id": number, "of": [[]]} for number in range(1000)])
    assert json_get(document, "$[999].id") == "999"
    assert json_get(document[:-1], "$") is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1.0),
        ("-0", -0.0),
        ("1e3", 1000.0),
        ("-1.5E-2", -0.015),
        ("0.30000000000000004", 0.30000000000000004),
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ("5e-324", 5e-324),
        ("1e400", math.inf),
        ("9" * 400, math.inf),
    ],
)
def test_numbers(text: str, number: float) -> None:
    found = json_get_num(f'{{"a":{text}}}', "$.a")
    assert type(found) is float
    assert (found, math.copysign(1, found)) == (number, math.copysign(1, number))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("-7", -7),
        ("3.9", 3),
        ("-3.9", -3),
        ("2.5", 2),
        ("1e3", 1000),
        ("-0", 0),
        ("1e-3", 0),
        ("1e18", 10**18),
        ("9007199254740993", 9007199254740993),
        (str(2**63 - 1), 2**63 - 1),
        (str(-(2**63)), -(2**63)),
        (str(2**63), -5),
        (str(-(2**63) - 1), -5),
        ("1e19", -5),
        ("1e400", -5),
        ("9" * 5000, -5),
        ('"1"', -5),
        ("true", -5),
    ],
)
def test_integers(text: str, number: int) -> None:
    found = json_get_long(f"[{text}]", "$[0]", -5)
    assert (type(found), found) == (int, number)


def test_defaults() -> None:
    for text in ('"1"', "true", "null", "[1]", "{}"):
        assert json_get_num(text, "$") is None
        assert json_get_num(text, "$", default=1.5) == 1.5
        assert json_get_long(text, "$") == 0
    for text in ('"true"', "1", "null", "[true]"):
        assert json_get_bool(text, "$") is None
        assert json_get_bool(text, "$", default=True) is True
        assert json_get_bool(text, "$.a", False) is False
    assert json_get_bool("[true, false]", "$[0]") is True
    assert json_get_bool("[true, false]", "$[1]", True) is False


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('""', ""),
        ('"a"', "a"),
        ('"\\n\\t\\b\\f\\r\\/\\\\\\""', '\n\t\b\f\r/\\"'),
        ('"\\u00e9"', "\xe9"),
        ('"\\u20ac"', "\u20ac"),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"a\\u0000b"', "a\0b"),
        ('"\xe4\u20ac"', "\xe4\u20ac"),
        ('"\\udc00"', "\udc00"),
        ("1", None),
        ("null", None),
        ('["a"]', None),
        ('"\\q"', None),
        ('"a', None),
    ],
)
def test_strings(text: str, value: str | None) -> None:
    assert json_get_str(text, "$") == value


KEYS = st.text(st.sampled_from('ab"\\\xe4\u20ac /\n'), max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=15,
)


def paths_of(value: Any, path: str = "$") -> list[tuple[str, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    steps = [(f".{key}" if isinstance(value, dict) else f"[{key}]", item) for key, item in inner]
    return [(path, value)] + [found for step, item in steps for found in paths_of(item, path + step)]


@given(VALUES, st.sampled_from([None, 2, "\t"]), st.booleans())
def test_every_value_of_a_document_is_found(value: Any, indent: int | str | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    for path, expected in paths_of(value):
        token = json_get(text, path)
        assert token is not None
        assert json.loads(token) == expected
        assert token in text
