"""URLs of listen() and connect()."""

from __future__ import annotations

import pytest

from asyncmg.errors import InvalidUrl
from asyncmg.urls import Url

GOOD = [
    ("http://127.0.0.1:8000", "http", "127.0.0.1", 8000, "/", False),
    ("http://example.com", "http", "example.com", 80, "/", False),
    ("https://example.com", "https", "example.com", 443, "/", True),
    ("ws://example.com/ws", "ws", "example.com", 80, "/ws", False),
    ("wss://example.com:9443/ws?a=b", "wss", "example.com", 9443, "/ws?a=b", True),
    ("HTTP://example.com", "http", "example.com", 80, "/", False),
    ("tcp://localhost:1", "tcp", "localhost", 1, "/", False),
    ("udp://localhost:65535", "udp", "localhost", 65535, "/", False),
    ("http://[::1]:8000/x", "http", "::1", 8000, "/x", False),
    ("http://[fe80::1%25eth0]:80/", "http", "fe80::1%eth0", 80, "/", False),
    ("http://a?x=/y", "http", "a", 80, "/?x=/y", False),
    ("http://a/p?x=http://b/#frag", "http", "a", 80, "/p?x=http://b/", False),
    ("http://a:/x", "http", "a", 80, "/x", False),
    ("unix:///run/app.sock", "unix", "/run/app.sock", 0, "/", False),
    ("unix:app.sock", "unix", "app.sock", 0, "/", False),
]

BAD = [
    "",
    "http",
    "http:",
    "//a",
    "example.com:80",
    "http://",
    "http://:80",
    "http:///x",
    "ftp://a:21",
    "tcp://a",
    "udp://a",
    "http://a:0",
    "http://a:65536",
    "http://a:99999999999999999999",
    "http://a:-1",
    "http://a:+1",
    "http://a:b",
    "http://a:80:81",
    "http://a:\u0661",
    "http://a b/",
    "http://a/b c",
    "http://a/\r\nHost: b",
    "http://a/\x00",
    "http://a/\x01",
    "http://a/\x7f",
    "http://a\r\n:80",
    "http://a\x00:80",
    "http://a<b>:80",
    "http://[::1",
    "http://::1:80",
    "http://[]:80",
    "http://[1]:80",
    "http://[zz::1]:80",
    "http://[::1\r\nX: y]:80",
    "http://[1:::2]:80",
    "unix:",
    "unix://",
    "unix:///a\x00b",
]


@pytest.mark.parametrize(("text", "scheme", "host", "port", "target", "is_tls"), GOOD, ids=[row[0] for row in GOOD])
def test_good_urls(text: str, scheme: str, host: str, port: int, target: str, is_tls: bool) -> None:
    url = Url.parse(text)
    assert (url.scheme, url.host, url.port, url.target, url.is_tls) == (scheme, host, port, target, is_tls)
    assert url.is_http == (scheme in ("http", "https", "ws", "wss"))


@pytest.mark.parametrize("text", BAD)
def test_bad_urls(text: str) -> None:
    with pytest.raises(InvalidUrl):
        Url.parse(text)


def test_a_port_of_thousands_of_digits_is_an_invalid_url() -> None:
    with pytest.raises(InvalidUrl):
        Url.parse("http://a:" + "9" * 5000)


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_the_errors_that_seeds_expect(error: type[Exception]) -> None:
    with pytest.raises(error):
        Url.parse("nonsense")


@pytest.mark.parametrize("value", [None, 80, b"http://a"])
def test_only_a_str_is_a_url(value: object) -> None:
    with pytest.raises(TypeError):
        Url.parse(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["tcp://127.0.0.1:0", "http://:8000", "http://:0", "udp://:0"])
def test_listening_needs_no_host_and_may_leave_the_port_to_the_system(text: str) -> None:
    url = Url.parse(text, listening=True)
    assert url.host in ("", "127.0.0.1")
    with pytest.raises(InvalidUrl):
        Url.parse(text)


def test_listening_still_needs_a_port() -> None:
    with pytest.raises(InvalidUrl):
        Url.parse("tcp://127.0.0.1", listening=True)


def test_user_and_password() -> None:
    url = Url.parse("http://us%65r:p%40ss%3A@a:80/")
    assert (url.user, url.password, url.host) == ("user", "p@ss:", "a")
    assert (Url.parse("http://user@a").user, Url.parse("http://user@a").password) == ("user", "")
    assert (Url.parse("http://a").user, Url.parse("http://a").password) == ("", "")


@pytest.mark.parametrize("text", [row[0] for row in GOOD])
def test_str_parses_again_to_the_same(text: str) -> None:
    url = Url.parse(text)
    again = Url.parse(str(url))
    assert [getattr(again, name) for name in Url.__slots__] == [getattr(url, name) for name in Url.__slots__]


def test_str_does_not_show_the_password() -> None:
    assert "secret" not in str(Url.parse("http://user:secret@a/"))
