"""How replies are framed, byte for byte; tests/properties/test_http_codec.py reads them back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asyncmg.codecs.http import Framing, RequestHead, encode_fields, reason_phrase
from asyncmg.errors import InvalidHeader, LocalProtocolError
from asyncmg.protocols.http_reply import (
    FramedReply,
    ReplyFraming,
    closing_head,
    encode_body,
    encode_sse,
    frame_reply,
    upgrade_head,
)


def frame(
    status: int = 200,
    body: Any = b"",
    headers: Any = None,
    *,
    method: str = "GET",
    proto: str = "HTTP/1.1",
    closes: bool = False,
    **options: Any,
) -> FramedReply:
    request = RequestHead(method, "/", proto, [], Framing.NONE, 0, True, False, "")
    return frame_reply(request, status, body, headers, closes=closes, **options)


def lines(reply: FramedReply) -> list[bytes]:
    assert reply.head.endswith(b"\r\n\r\n")
    return reply.head[:-4].split(b"\r\n")


def values(reply: FramedReply, name: bytes) -> list[bytes]:
    split = [line.split(b": ", 1) for line in lines(reply)[1:]]
    return [value for found, value in split if found.lower() == name.lower()]


def test_plain_reply() -> None:
    reply = frame(200, "hello")
    assert lines(reply)[0] == b"HTTP/1.1 200 OK"
    assert values(reply, b"content-type") == [b"text/plain; charset=utf-8"]
    assert values(reply, b"content-length") == [b"5"]
    assert values(reply, b"connection") == []
    assert len(values(reply, b"date")) == len(values(reply, b"server")) == 1
    assert (reply.body, reply.framing, reply.closes) == (b"hello", ReplyFraming.WHOLE, False)


@pytest.mark.parametrize(
    ("body", "data", "content_type"),
    [
        (b"\xff", b"\xff", b"text/plain"),
        (bytearray(b"a"), b"a", b"text/plain"),
        (memoryview(b"a"), b"a", b"text/plain"),
        ("\xe4", "\xe4".encode(), b"text/plain"),
        ("\udcff", b"\xff", b"text/plain"),
        ("", b"", b"text/plain"),
        (None, b"", b"text/plain"),
        ("<html>", b"<html>", b"text/html"),
        (" \n<!DOCTYPE html><p>", b" \n<!DOCTYPE html><p>", b"text/html"),
        ("<p>", b"<p>", b"text/plain"),
        ("a<html>", b"a<html>", b"text/plain"),
        ({"a": ["\xe4", None, True]}, '{"a":["\xe4",null,true]}'.encode(), b"application/json"),
        ([], b"[]", b"application/json"),
        ((1, 2), b"[1,2]", b"application/json"),
    ],
)
def test_bodies(body: Any, data: bytes, content_type: bytes) -> None:
    encoded, line = encode_body(body)
    assert encoded == data
    assert type(encoded) is bytes
    assert line.startswith(b"Content-Type: " + content_type) and line.endswith(b"\r\n")
    if content_type == b"application/json":
        json.loads(encoded)


@pytest.mark.parametrize("body", [1, 1.5, object(), {"a": object()}, [b"x"], {1, 2}])
def test_bodies_of_other_types(body: Any) -> None:
    with pytest.raises(TypeError):
        encode_body(body)


@pytest.mark.parametrize("status", [-1, 0, 99, 100, 101, 199, 1000])
def test_only_final_statuses(status: int) -> None:
    with pytest.raises(ValueError):
        frame(status)


def test_an_unknown_status_has_an_empty_reason() -> None:
    assert lines(frame(499))[0] == b"HTTP/1.1 499 "
    assert (reason_phrase(499), reason_phrase(404), reason_phrase(413)) == ("", "Not Found", "Content Too Large")


@pytest.mark.parametrize("status", [204, 304])
def test_no_content(status: int) -> None:
    for options in ({}, {"streams": True}, {"streams": True, "stream_length": 5}):
        reply = frame(status, "ignored", **options)
        assert reply.body == b"" and reply.framing is ReplyFraming.WHOLE
        for name in (b"content-length", b"transfer-encoding", b"content-type"):
            assert values(reply, name) == []


def test_304_may_tell_a_length() -> None:
    assert values(frame(304, None, {"Content-Length": 500}), b"content-length") == [b"500"]
    assert values(frame(204, None, {"Content-Length": 0}), b"content-length") == []


def test_head() -> None:
    reply = frame(200, "hello", method="HEAD")
    assert (reply.body, values(reply, b"content-length")) == (b"", [b"5"])
    assert values(frame(200, None, {"Content-Length": 7}, method="HEAD"), b"content-length") == [b"7"]
    reply = frame(200, "x", {"Transfer-Encoding": "chunked"}, method="HEAD")
    assert (reply.body, reply.framing) == (b"", ReplyFraming.SILENT)
    assert values(reply, b"transfer-encoding") == [b"chunked"]


def test_streams() -> None:
    reply = frame(streams=True)
    assert reply.framing is ReplyFraming.CHUNKED and values(reply, b"transfer-encoding") == [b"chunked"]
    reply = frame(streams=True, stream_length=9)
    assert reply.framing is ReplyFraming.LENGTH and values(reply, b"content-length") == [b"9"]
    assert values(reply, b"transfer-encoding") == []
    assert frame(headers={"transfer-encoding": "Chunked"}).framing is ReplyFraming.CHUNKED
    assert frame(headers={"Content-Type": "text/event-stream"}).framing is ReplyFraming.CHUNKED
    assert frame(200, "data: x\n\n", {"Content-Type": "text/event-stream"}).framing is ReplyFraming.WHOLE


def test_http_1_0() -> None:
    reply = frame(proto="HTTP/1.0")
    assert values(reply, b"connection") == [b"keep-alive"] and not reply.closes
    reply = frame(proto="HTTP/1.0", streams=True)
    assert (reply.framing, reply.closes) == (ReplyFraming.CLOSE, True)
    assert values(reply, b"connection") == [b"close"]
    assert values(reply, b"transfer-encoding") == values(reply, b"content-length") == []
    reply = frame(proto="HTTP/1.0", streams=True, stream_length=3)
    assert (reply.framing, reply.closes) == (ReplyFraming.LENGTH, False)


def test_closing() -> None:
    assert values(frame(closes=True), b"connection") == [b"close"]
    reply = frame(headers={"Connection": "Close"})
    assert reply.closes and values(reply, b"connection") == [b"close"]
    reply = frame(headers={"Connection": "keep-alive"})
    assert not reply.closes and values(reply, b"connection") == []


def test_fields_of_the_user() -> None:
    reply = frame(200, "x", [("X-A", 1), ("x-a", None), ("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")])
    assert values(reply, b"x-a") == [b"1", b"None"]
    assert values(reply, b"set-cookie") == [b"a=b", b"c=d"]
    reply = frame(200, "x", {"content-type": "a/b", "DATE": "then", "server": "mine"})
    for name, value in ((b"content-type", b"a/b"), (b"date", b"then"), (b"server", b"mine")):
        assert values(reply, name) == [value]


def test_content_length_of_the_user() -> None:
    assert values(frame(200, "abc", {"Content-Length": 3}), b"content-length") == [b"3"]
    for value in (2, 4, -3, "3, 3", "0x3", "", "3a"):
        with pytest.raises(InvalidHeader):
            frame(200, "abc", {"Content-Length": value})


@pytest.mark.parametrize("value", ["gzip", "gzip, chunked", "identity", ""])
def test_other_transfer_encodings_of_the_user(value: str) -> None:
    with pytest.raises(InvalidHeader):
        frame(200, "abc", {"Transfer-Encoding": value})


INJECTIONS: list[Any] = [
    {"X": "a\r\nY: b"},
    {"X": "a\nY: b"},
    {"X": "a\rY: b"},
    {"X": "a\0"},
    {"X": "a\r\n\r\n<script>"},
    {"X\r\nY": "a"},
    {"X: a\r\nY": "b"},
    {"X:": "a"},
    {"X: a": "b"},
    {"X ": "a"},
    {" X": "a"},
    {"": "a"},
    {"X\0": "a"},
    {"\xe4": "a"},
    {"X": "\ud800"},
    {"X": "\udc0a"},
    [("X", "a\nb")],
    "X: a\rY: b\r\n",
    "X Y: a\r\n",
    "X: a\0\r\n",
    " folded: a\r\n",
]


@pytest.mark.parametrize("headers", INJECTIONS)
def test_headers_that_would_become_something_else(headers: Any) -> None:
    for call in (
        lambda: encode_fields(headers),
        lambda: frame(200, "x", headers),
        lambda: upgrade_head("websocket", headers),
    ):
        with pytest.raises(InvalidHeader) as caught:
            call()
        assert isinstance(caught.value, ValueError | LocalProtocolError)


def test_headers_as_a_string_of_lines() -> None:
    lines_ = [line for _, line in encode_fields("A: b\r\nC:d\nE:\r\n\r\n")]
    assert lines_ == [b"A: b\r\n", b"C: d\r\n", b"E: \r\n"]
    assert encode_fields(None) == encode_fields("") == encode_fields({}) == []


def test_closing_head_and_upgrade_head() -> None:
    assert closing_head(b"HTTP/1.1 400 \r\nA: b\r\n\r\n") == b"HTTP/1.1 400 \r\nA: b\r\nConnection: close\r\n\r\n"
    head = upgrade_head("websocket", {"Sec-WebSocket-Accept": "x="})
    assert head == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: x=\r\n\r\n"
    )


# -- server-sent events --------------------------------------------------------------------------------------------


def read_events(text: str) -> list[dict[str, str]]:
    """What a browser reads (HTML standard, section 9.2.6)."""
    events: list[dict[str, str]] = []
    current: dict[str, str] = {}
    data: list[str] = []
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line:
            if data:
                events.append({**current, "data": "\n".join(data)})
            current, data = {}, []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name:
            current[name] = value
    return events


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        ("hello", "hello"),
        ("", ""),
        (" two  spaces ", " two  spaces "),
        ("a\nb", "a\nb"),
        ("a\r\nb", "a\nb"),
        ("a\rb", "a\nb"),
        ("a\n\rb", "a\n\nb"),
        ("a\n", "a\n"),
        ("\n\n", "\n\n"),
        ("x\n\nevent: evil\ndata: y", "x\n\nevent: evil\ndata: y"),
        ("x\r\revent: evil\rdata: y", "x\n\nevent: evil\ndata: y"),
        (": comment", ": comment"),
        ("data: data", "data: data"),
        ("\u2028\x0b\x85\xe4", "\u2028\x0b\x85\xe4"),
    ],
)
def test_sse_data(data: str, seen: str) -> None:
    encoded = encode_sse("", data)
    assert encoded.endswith(b"\n\n")
    assert read_events(encoded.decode()) == [{"data": seen}]


def test_sse_fields() -> None:
    encoded = encode_sse("update", "x", "7", 1500)
    assert read_events(encoded.decode()) == [{"event": "update", "id": "7", "retry": "1500", "data": "x"}]
    assert read_events(encode_sse("", "x", retry=0).decode()) == [{"retry": "0", "data": "x"}]


@pytest.mark.parametrize(
    ("event_type", "event_id"), [("a\nb", ""), ("a\rb", ""), ("a\r\n\r\n", ""), ("", "1\n"), ("", "1\r"), ("", "1\0")]
)
def test_sse_injection(event_type: str, event_id: str) -> None:
    with pytest.raises(InvalidHeader):
        encode_sse(event_type, "x", event_id)
