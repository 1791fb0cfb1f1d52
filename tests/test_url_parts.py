"""The url_ functions: any text is taken apart, none refused."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncmg.errors import InvalidUrl
from asyncmg.url_parts import url_encode, url_host, url_is_ssl, url_pass, url_port, url_uri, url_user
from asyncmg.urls import Url

FUNCTIONS = (url_port, url_host, url_user, url_pass, url_uri, url_is_ssl)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://h", (80, "h", "", "", "/", False)),
        ("https://h:1/x", (1, "h", "", "", "/x", True)),
        ("http://u:p@h:80/p?q#f", (80, "h", "u", "p", "/p?q#f", False)),
        ("http://u@h/", (80, "h", "u", "", "/", False)),
        ("http://u:@h", (80, "h", "u", "", "/", False)),
        ("http://:p@h", (80, "h", "", "p", "/", False)),
        ("http://u:p:q@h/", (80, "h", "u", "p:q", "/", False)),
        ("http://u%40:p%3A@h/%20", (80, "h", "u%40", "p%3A", "/%20", False)),
        ("ws://h", (80, "h", "", "", "/", False)),
        ("wss://h", (443, "h", "", "", "/", True)),
        ("mqtt://h", (1883, "h", "", "", "/", False)),
        ("mqtts://h", (8883, "h", "", "", "/", True)),
        ("tls://h", (0, "h", "", "", "/", True)),
        ("ssl://h:5", (5, "h", "", "", "/", True)),
        ("tcp://h", (0, "h", "", "", "/", False)),
        ("udp://:1234", (1234, "", "", "", "/", False)),
        ("unix:///a/b", (0, "", "", "", "/a/b", False)),
        ("http://[::1]:81/x", (81, "[::1]", "", "", "/x", False)),
        ("http://u:p@[fe80::1%25eth0]", (80, "[fe80::1%25eth0]", "u", "p", "/", False)),
        ("http://h/a@b:80", (80, "h", "", "", "/a@b:80", False)),
        ("http://h/a://b", (80, "h", "", "", "/a://b", False)),
        ("http://\xe4/\xfc", (80, "\xe4", "", "", "/\xfc", False)),
        ("//h:7/x", (7, "h", "", "", "/x", False)),
        ("h:80", (80, "h", "", "", "/", False)),
        ("[::1]:80", (80, "[::1]", "", "", "/", False)),
        ("", (0, "", "", "", "/", False)),
        # Where Mongoose is wrong:
        ("HTTPS://H", (443, "H", "", "", "/", True)),
        ("http://h?q", (80, "h", "", "", "/?q", False)),
        ("http://h#f", (80, "h", "", "", "/#f", False)),
        ("http://u:p@q@h/", (80, "h", "u", "p@q", "/", False)),
        ("u:p@h", (0, "h", "u", "p", "/", False)),
        ("h/x", (0, "h", "", "", "/x", False)),
        ("/path", (0, "", "", "", "/path", False)),
        ("https:", (0, "https", "", "", "/", False)),
        ("http://u:p/x@h/", (0, "u", "", "", "/x@h/", False)),
        ("http://h\0x/y", (80, "h\0x", "", "", "/y", False)),
        ("http://h:", (80, "h", "", "", "/", False)),
        ("http://[::1", (0, "", "", "", "/", False)),
        ("http://[::1]x:80", (0, "", "", "", "/", False)),
    ]
    + [(f"http://h:{port}/", (0, "h", "", "", "/", False)) for port in ("99999", "65536", "8x", "-1", "+1", " 1", "x")]
    + [(f"http://h:{port}/", (0, "h", "", "", "/", False)) for port in ("1:2", "\u0661", "9" * 5000, "0")]
    + [("http://h:00080", (80, "h", "", "", "/", False)), ("http://h:65535", (65535, "h", "", "", "/", False))],
)
def test_parts(url: str, parts: tuple[object, ...]) -> None:
    assert tuple(function(url) for function in FUNCTIONS) == parts


@pytest.mark.parametrize("function", [*FUNCTIONS, url_encode])
@pytest.mark.parametrize("wrong", [None, b"http://h", 5])
def test_other_types(function: Any, wrong: Any) -> None:
    with pytest.raises(TypeError):
        function(wrong)


def test_encode() -> None:
    safe = "ABCXYZabcxyz0189-._~"
    assert url_encode(data=safe) == safe
    assert url_encode("a b/?&=+%") == "a%20b%2f%3f%26%3d%2b%25"
    assert url_encode("\xe4\u20ac\0\n") == "%c3%a4%e2%82%ac%00%0a"
    with pytest.raises(ValueError):
        url_encode("\udcff")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_encoding_can_be_undone(text: str) -> None:
    encoded = url_encode(text)
    assert unquote(encoded) == text
    assert encoded.isascii() and encoded.isprintable() and not set(encoded) & set(" /?#&=+@:[]")


def test_an_address_has_no_at_sign() -> None:
    """RFC 6874 section 2; otherwise one would see a zone where the other sees a user."""
    assert url_host("tcp://u@[fe80::1%2@h]:80/") == "h]"
    with pytest.raises(InvalidUrl):
        Url.parse("tcp://u@[fe80::1%2@h]:80/")


def test_no_long_names_are_encoded() -> None:
    with pytest.raises(InvalidUrl, match="longer than a domain name"):
        Url.parse("http://" + "\xe4" * 254)


URLS = st.text(st.sampled_from("htpsw:/@?#[]%.aA1 -\0\xe4"), max_size=25)


@given(st.sampled_from(["", "http://", "wss://", "tcp://", "mqtts://"]), URLS)
def test_what_a_url_says(scheme: str, rest: str) -> None:
    """Url.parse() and these functions do not send anybody to two different hosts."""
    url = scheme + rest
    for function in FUNCTIONS:
        function(url)
    try:
        parsed = Url.parse(url, listening=True)
    except InvalidUrl:
        return
    if parsed.scheme == "unix":
        return
    host = url_host(url)
    if host.isascii():
        assert host.strip("[]").replace("%25", "%") == parsed.host
    assert (url_port(url), url_is_ssl(url)) == (parsed.port, parsed.is_tls)
    assert (unquote(url_user(url)), unquote(url_pass(url))) == (parsed.user, parsed.password)
