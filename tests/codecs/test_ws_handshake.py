"""The opening handshake without a connection: what a client asks for and what it accepts (RFC 6455 section 4)."""

from __future__ import annotations

import base64

import pytest

from asyncmg import Deflate, HttpMessage, InvalidHeader, LocalProtocolError, RemoteProtocolError
from asyncmg.codecs.http import response_head
from asyncmg.codecs.ws_handshake import WsOptions, accept_value, check_response, request
from asyncmg.messages import NO_CONTENT

NONCE = base64.b64decode("dGhlIHNhbXBsZSBub25jZQ==")
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
OWN = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": ACCEPT}


def answer(*more: tuple[str, str], leave_out: str = "") -> HttpMessage:
    fields = [(name, value) for name, value in OWN.items() if name != leave_out] + list(more)
    raw = [(name.encode(), value.encode()) for name, value in fields]
    return HttpMessage(response_head("GET", 101, "Switching Protocols", "HTTP/1.1", raw), NO_CONTENT)


def test_accept_value_of_the_rfc() -> None:
    assert accept_value("dGhlIHNhbXBsZSBub25jZQ==") == ACCEPT


def test_request() -> None:
    options = WsOptions(["a", "b"], Deflate(), origin="https://x.example")
    lines = request("/chat?x=y", "server.example", NONCE, options, {"X-A": "1"}).decode().split("\r\n")
    assert lines[0] == "GET /chat?x=y HTTP/1.1" and lines[-2:] == ["", ""]
    assert set(lines[1:-2]) == {
        "Host: server.example",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "Origin: https://x.example",
        "Sec-WebSocket-Protocol: a, b",
        "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
        "X-A: 1",
    }


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({"Sec-WebSocket-Key": "mine"}, LocalProtocolError),
        ({"host": "other"}, LocalProtocolError),
        ({"X": "a\r\nb"}, InvalidHeader),
    ],
)
def test_headers_that_cannot_be_given(headers: dict[str, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        request("/", "x", NONCE, WsOptions(), headers)


@pytest.mark.parametrize("options", [{"subprotocols": "chat"}, {"origins": "https://x.example"}])
def test_a_str_is_no_sequence(options: dict[str, str]) -> None:
    with pytest.raises(TypeError):
        WsOptions(**options)  # type: ignore[arg-type]


def test_subprotocol_that_is_no_token() -> None:
    with pytest.raises(ValueError):
        WsOptions(["a b"])


def test_good_answers() -> None:
    assert check_response(answer(), NONCE, WsOptions()).subprotocol == ""
    agreed = check_response(answer(("Sec-WebSocket-Protocol", "b")), NONCE, WsOptions(["a", "b"]))
    assert agreed.subprotocol == "b" and agreed.deflate is None
    extension = (
        "Sec-WebSocket-Extensions",
        'permessage-deflate; server_max_window_bits="10" ;client_no_context_takeover',
    )
    assert check_response(answer(extension), NONCE, WsOptions(deflate=Deflate())).deflate is not None


BAD = {
    "no upgrade": answer(leave_out="Upgrade"),
    "no connection": answer(leave_out="Connection"),
    "no accept": answer(leave_out="Sec-WebSocket-Accept"),
    "wrong accept": answer(("Sec-WebSocket-Accept", "x"), leave_out="Sec-WebSocket-Accept"),
    "two accepts": answer(("Sec-WebSocket-Accept", ACCEPT)),
    "subprotocol nobody offered": answer(("Sec-WebSocket-Protocol", "z")),
    "two subprotocols": answer(("Sec-WebSocket-Protocol", "a"), ("Sec-WebSocket-Protocol", "b")),
    "extension nobody offered": answer(("Sec-WebSocket-Extensions", "x-other")),
    "extension twice": answer(("Sec-WebSocket-Extensions", "permessage-deflate, permessage-deflate")),
    "window larger than asked": answer(("Sec-WebSocket-Extensions", "permessage-deflate; server_max_window_bits=15")),
    "malformed extension": answer(("Sec-WebSocket-Extensions", "permessage-deflate; =")),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_answers(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        check_response(BAD[name], NONCE, WsOptions(["a", "b"], Deflate()))


def test_compression_that_was_not_offered() -> None:
    with pytest.raises(RemoteProtocolError):
        check_response(answer(("Sec-WebSocket-Extensions", "permessage-deflate")), NONCE, WsOptions())
