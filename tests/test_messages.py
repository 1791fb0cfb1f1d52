"""HttpMessage: what handlers read of a request or response."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asyncmg.codecs.http import Framing, RequestHead, ResponseHead
from asyncmg.errors import BusyError, RemoteProtocolError
from asyncmg.fields import header_parameter
from asyncmg.messages import Content, HttpMessage


def message(target: str = "/", fields: Any = (), *, method: str = "GET", status: int = 0) -> HttpMessage:
    content = Content(1 << 16, lambda: None, lambda: None)
    if status:
        return HttpMessage(ResponseHead("GET", status, "", "HTTP/1.1", list(fields), Framing.NONE, 0, True), content)
    return HttpMessage(request_head(method, target, list(fields)), content)


def request_head(method: str, target: str, fields: Any = ()) -> RequestHead:
    return RequestHead(method, target, "HTTP/1.1", fields, Framing.NONE, 0, True, False, "")


@pytest.mark.parametrize(
    ("target", "uri", "query", "host"),
    [
        ("/", "/", "", "field"),
        ("/a%20b?c=d?e", "/a%20b", "c=d?e", "field"),
        ("/?", "/", "", "field"),
        ("*", "*", "", "field"),
        ("//x/y", "//x/y", "", "field"),
        ("/go?to=http://b/c", "/go", "to=http://b/c", "field"),
        ("http://h", "/", "", "h"),
        ("http://h:8/a/b?c", "/a/b", "c", "h:8"),
        ("http://h?q", "/", "q", "h"),
        ("http://h?q=/a/b", "/", "q=/a/b", "h"),
        ("http://h/?u=http://x/y", "/", "u=http://x/y", "h"),
        ("http://h/a?u=b/c?d", "/a", "u=b/c?d", "h"),
        ("HTTPS://[::1]:1//a", "//a", "", "[::1]:1"),
    ],
)
def test_request_target(target: str, uri: str, query: str, host: str) -> None:
    request = message(target, [(b"Host", b"field")])
    assert (request.uri, request.query, request.host) == (uri, query, host)


def test_host_is_empty_without_a_field() -> None:
    assert message().host == ""


@pytest.mark.parametrize(
    ("target", "path"),
    [("/a%20b%2Fc", "/a b/c"), ("/a+b", "/a+b"), ("/%c3%a4", "/\xe4"), ("/%ff", "/\udcff"), ("/%zz%4", "/%zz%4")],
)
def test_path_is_decoded_once(target: str, path: str) -> None:
    assert message(target).path == path
    assert message("/%2541").path == "/%41"


def test_header_and_headers() -> None:
    fields = [(b"Host", b"a"), (b"X-Y", b"1"), (b"x-y", b"2"), (b"U", "\xe4".encode()), (b"L", b"\xe4"), (b"E", b"")]
    request = message("/", fields)
    assert request.header("x-Y") == "1"
    assert request.header("nope") is None
    assert request.header("nope", "default") == "default"
    assert request.header("u") == "\xe4"
    assert request.header("l") == "\udce4"
    assert request.header("E", "default") == ""
    assert request.headers() == [("Host", "a"), ("X-Y", "1"), ("x-y", "2"), ("U", "\xe4"), ("L", "\udce4"), ("E", "")]


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        ("id=123", "id", "123"),
        ("a=1&b=2&a=3", "a", "1"),
        ("a=1&b=2", "b", "2"),
        ("a=1&b=2", "c", None),
        ("a", "a", ""),
        ("a=", "a", ""),
        ("a=b=c", "a", "b=c"),
        ("x=a+b%20c%2B", "x", "a b c+"),
        ("a%20b=c", "a b", "c"),
        ("a+b=c", "a b", "c"),
        ("x=%c3%a4", "x", "\xe4"),
        ("x=%ff", "x", "\udcff"),
        ("x=%zz", "x", "%zz"),
        ("xid=1", "id", None),
        ("ID=1", "id", None),
        ("&&a=1&", "a", "1"),
        ("a=1;b=2", "b", None),
        ("", "a", None),
    ],
)
def test_query_var(query: str, name: str, value: str | None) -> None:
    assert message(f"/?{query}").query_var(name) == value


@pytest.mark.parametrize(
    ("header", "name", "value"),
    [
        ("multipart/form-data; boundary=abc", "boundary", "abc"),
        ("multipart/form-data;boundary=abc;x=y", "BOUNDARY", "abc"),
        ('multipart/form-data; boundary="a b;c,d"', "boundary", "a b;c,d"),
        (r'form-data; name="a\"b\\c"; filename=x', "name", r'a"b\c'),
        (r'form-data; name="a\"; filename=evil"', "filename", None),
        ('form-data; name="a; filename=evil"', "filename", None),
        ('form-data; name="a filename=evil"', "filename", None),
        ('form-data; name="x"; filename="a filename=evil.txt"', "filename", "a filename=evil.txt"),
        ('Digest username="Mufasa", realm="a@b", nc=1', "username", "Mufasa"),
        ('Digest username="Mufasa", realm="a@b", nc=1', "realm", "a@b"),
        ('Digest username="Mufasa", realm="a@b", nc=1', "nc", "1"),
        ('Basic realm="x"', "realm", "x"),
        ("a=1; b=2", "a", "1"),
        ("text/html; charset=", "charset", ""),
        ('text/html; charset=""', "charset", ""),
        ("text/html; charset", "charset", None),
        ("text/html", "charset", None),
        ("xcharset=1", "charset", None),
        ('x; a="open; b=c', "b", None),
        ("", "a", None),
        ('x; a="', "a", '"'),
    ],
)
def test_header_var(header: str, name: str, value: str | None) -> None:
    assert message("/", [(b"H", header.encode())]).header_var("h", name) == value
    assert header_parameter(header, name) == value


def test_header_var_of_a_header_that_is_not_there() -> None:
    assert message().header_var("Content-Type", "boundary") is None


def test_header_var_takes_linear_time() -> None:
    assert header_parameter("a;" * 100_000 + '"\\' * 50_000, "x") is None


def test_body_and_json() -> None:
    request = message()
    request.body_bytes = b'{"a": ["\xc3\xa4", 1]}'
    assert request.body_text == '{"a": ["\xe4", 1]}'
    assert request.json() == {"a": ["\xe4", 1]}
    request.body_bytes = b"\xff"
    assert request.body_text == "\udcff"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"a=b"])
def test_json_that_is_none(body: bytes) -> None:
    request = message()
    request.body_bytes = body
    with pytest.raises(ValueError):
        request.json()


def test_status() -> None:
    assert message().status() == 0
    response = message("404", method="HTTP/1.1", status=404)
    assert (response.status(), response.uri, response.method) == (404, "404", "HTTP/1.1")


async def test_stream_of_content_that_is_still_coming() -> None:
    taken = []
    content = Content(4, lambda: None, lambda: taken.append(1))
    request = HttpMessage(request_head("POST", "/"), content)
    stream = request.stream()
    content.receive(b"ab")
    assert not content.is_full
    content.receive(b"cd")
    assert content.is_full
    assert await anext(stream) == b"abcd"
    assert not content.is_full and taken == [1]
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    with pytest.raises(BusyError):
        request.stream()
    content.receive(b"e")
    assert await waiting == b"e"
    content.receive_end()
    assert [piece async for piece in stream] == []


async def test_cancelling_a_stream_loses_nothing() -> None:
    content = Content(4, lambda: None, lambda: None)
    request = HttpMessage(request_head("POST", "/"), content)
    waiting = asyncio.ensure_future(anext(request.stream()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    content.receive(b"ab")
    content.receive_end()
    assert [piece async for piece in request.stream()] == [b"ab"]


async def test_a_failed_stream_gives_what_was_received_first() -> None:
    content = Content(4, lambda: None, lambda: None)
    request = HttpMessage(request_head("POST", "/"), content)
    content.receive(b"ab")
    content.fail(RemoteProtocolError("closed"))
    stream = request.stream()
    assert await anext(stream) == b"ab"
    with pytest.raises(RemoteProtocolError):
        await anext(stream)


async def test_stream_of_a_buffered_message() -> None:
    request = message()
    request.body_bytes = b"abc"
    assert [piece async for piece in request.stream()] == [b"abc"]
    assert [piece async for piece in request.stream()] == [b"abc"]
