"""Cookies of the server (RFC 6265)."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from http.cookies import SimpleCookie
from typing import Any

import pytest

from asyncmg.cookies import MAX_COOKIE_SIZE, MAX_COOKIES, Cookie, parse_cookies, set_cookie_headers
from asyncmg.errors import InvalidHeader, LimitExceeded

NEW_YEAR = datetime(2030, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        (Cookie("v"), "n=v; Path=/"),
        (Cookie("", path=""), "n="),
        (Cookie('"v"', path="/a b", domain="example.org"), 'n="v"; Path=/a b; Domain=example.org'),
        (Cookie("v", max_age=0), "n=v; Path=/; Max-Age=0"),
        (Cookie("v", expires=NEW_YEAR), "n=v; Path=/; Expires=Tue, 01 Jan 2030 00:00:00 GMT"),
        (Cookie("v", expires=0), "n=v; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT"),
        (
            Cookie("v", secure=True, http_only=True, same_site="None", partitioned=True),
            "n=v; Path=/; Secure; HttpOnly; SameSite=None; Partitioned",
        ),
        (Cookie("v", same_site="Lax"), "n=v; Path=/; SameSite=Lax"),
        (Cookie.expired(), "n=; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"),
        (
            Cookie.expired("/x", "a.b", secure=True, partitioned=True),
            "n=; Path=/x; Domain=a.b; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Secure; Partitioned",
        ),
    ],
)
def test_headers(cookie: Cookie, expected: str) -> None:
    assert cookie.header("n") == expected


def test_all_attributes_are_read_by_the_standard_library() -> None:
    cookie = Cookie(
        "v", path="/p", domain="a.b", max_age=5, expires=NEW_YEAR, secure=True, http_only=True, same_site="Strict"
    )
    morsel = SimpleCookie(cookie.header("n"))["n"]
    assert morsel.value == "v"
    assert {key: value for key, value in morsel.items() if value} == {
        "path": "/p",
        "domain": "a.b",
        "max-age": "5",
        "expires": "Tue, 01 Jan 2030 00:00:00 GMT",
        "secure": True,
        "httponly": True,
        "samesite": "Strict",
    }


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a;", "\xe4", "a\r\nX: y", "a\n"])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(InvalidHeader):
        Cookie("v").header(name)


@pytest.mark.parametrize(
    "arguments",
    [
        {"value": "a b"},
        {"value": "a;b"},
        {"value": "a,b"},
        {"value": 'a"b'},
        {"value": '"a'},
        {"value": "a\\b"},
        {"value": "a\r\nSet-Cookie: x=y"},
        {"value": "a\n"},
        {"value": "\xe4"},
        {"value": "a" * MAX_COOKIE_SIZE},
        {"path": "a"},
        {"path": "/;Secure"},
        {"path": "/\n"},
        {"domain": "a b"},
        {"domain": ".a"},
        {"domain": "a;b"},
        {"domain": "a\n"},
        {"max_age": -1},
        {"max_age": 1.5},
        {"max_age": True},
        {"same_site": "lax"},
        {"same_site": "None"},
        {"partitioned": True},
        {"expires": datetime(2030, 1, 1)},
        {"expires": 1e30},
        {"expires": float("nan")},
        {"expires": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))},
    ],
)
def test_attributes_that_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidHeader):
        Cookie(**{"value": "v", **arguments}).header("n")


@pytest.mark.parametrize(
    ("name", "arguments", "is_allowed"),
    [
        ("__Secure-a", {"secure": True}, True),
        ("__Secure-a", {}, False),
        ("__secure-a", {}, False),
        ("__Host-a", {"secure": True}, True),
        ("__Host-a", {}, False),
        ("__Host-a", {"secure": True, "path": "/x"}, False),
        ("__Host-a", {"secure": True, "path": ""}, False),
        ("__HOST-a", {"secure": True, "domain": "a.b"}, False),
    ],
)
def test_prefixes(name: str, arguments: dict[str, Any], is_allowed: bool) -> None:
    cookie = Cookie("v", **arguments)
    if is_allowed:
        assert cookie.header(name).startswith(f"{name}=v; Path=/; Secure")
    else:
        with pytest.raises(InvalidHeader, match=r"prefix|__Host-"):
            cookie.header(name)


def test_a_value_is_not_shown() -> None:
    assert "secret" not in repr(Cookie("secret"))


def test_set_cookie_headers() -> None:
    now = datetime.now(UTC)
    headers = set_cookie_headers({"a": "1", "b": Cookie("2", expires=now), "c": None, "__Host-d": None})
    assert [name for name, _ in headers] == ["Set-Cookie"] * 4
    assert [value.partition(";")[0] for _, value in headers] == ["a=1", "b=2", "c=", "__Host-d="]
    assert headers[0][1] == "a=1; Path=/"
    assert "Max-Age=0" in headers[2][1] and "Secure" not in headers[2][1]
    assert "Max-Age=0" in headers[3][1] and "Secure" in headers[3][1]
    with pytest.raises(TypeError, match="int"):
        set_cookie_headers({"a": 1})  # type: ignore[dict-item]
    with pytest.raises(InvalidHeader):
        set_cookie_headers({"a": "1;2"})


@pytest.mark.parametrize(
    ("value", "cookies"),
    [
        ("", {}),
        ("a=1", {"a": "1"}),
        ("a=1; b=2", {"a": "1", "b": "2"}),
        ("a=1;b=2;", {"a": "1", "b": "2"}),
        ("a=1; a=2", {"a": "1"}),
        ('a="b c"; d="', {"a": "b c", "d": '"'}),
        ("a=b=c", {"a": "b=c"}),
        ("a; =b; ;c=", {"c": ""}),
        ("a = b , c", {"a": "b , c"}),
        ("a=%20\xe4", {"a": "%20\xe4"}),
        ('a="x;y"', {"a": '"x'}),  # a semicolon ends it, as in browsers
    ],
)
def test_parsing(value: str, cookies: dict[str, str]) -> None:
    assert parse_cookies(value) == cookies


def test_parsing_is_bounded() -> None:
    assert len(parse_cookies(";".join(f"c{number}=" for number in range(MAX_COOKIES)))) == MAX_COOKIES
    with pytest.raises(LimitExceeded) as caught:
        parse_cookies(";" * MAX_COOKIES)
    assert caught.value.wire_code == 400


def test_a_long_value_takes_little_time() -> None:
    start = time.process_time()
    parse_cookies("a=" * 1_000_000)
    parse_cookies('"' * 2_000_000)
    assert time.process_time() - start < 1
