"""The opening handshake (RFC 6455 section 4): a server's answer, a client's request and the check of its answer."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from asyncmg.errors import LocalProtocolError, RemoteProtocolError
from asyncmg.messages import HttpMessage

from .http import HeadersArgument, encode_fields
from .ws_deflate import Deflate, MessageDeflate

VERSION: Final = "13"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_IS_TOKEN = re.compile(_TOKEN)
_EXTENSION = re.compile(
    rf"[ \t]*({_TOKEN})((?:[ \t]*;[ \t]*{_TOKEN}(?:[ \t]*=[ \t]*(?:{_TOKEN}|\"{_TOKEN}\"))?)*)[ \t]*"
)
_PARAMETER = re.compile(rf"({_TOKEN})(?:[ \t]*=[ \t]*(?:({_TOKEN})|\"({_TOKEN})\"))?")

# Of the handshake's own header fields: a user's headers may not name them.
_OWN_FIELDS = frozenset(
    {
        b"connection",
        b"host",
        b"upgrade",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
    }
)


@dataclass(frozen=True, slots=True)
class WsOptions:
    """What we offer (client) or accept (server) in an opening handshake.

    Args:
        subprotocols: in the order of preference.
        deflate: None: no compression.
        origins: server: values of Origin that are served, None among them stands for requests without one; an empty
            sequence: all.
        origin: client: what Origin says; "": no such field.
    """

    subprotocols: Sequence[str] = ()
    deflate: Deflate | None = None
    origins: Sequence[str | None] = ()
    origin: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.subprotocols, str) or isinstance(self.origins, str):
            raise TypeError("subprotocols and origins are sequences of str, not one str")
        for name in self.subprotocols:
            if not _IS_TOKEN.fullmatch(name):
                raise ValueError(f"not a subprotocol's name: {name!r}")


@dataclass(frozen=True, slots=True)
class Agreed:
    """What an opening handshake has come to."""

    subprotocol: str = ""
    deflate: MessageDeflate | None = None


NOTHING_AGREED: Final = Agreed()


def accept_value(key: str) -> str:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key (section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()).decode()


def _values(message: HttpMessage, name: str) -> list[str]:
    """Return the values of all fields with this name."""
    return [value for field, value in message.headers() if field.lower() == name]


def _elements(message: HttpMessage, name: str) -> list[str]:
    """Return the elements of a list-valued field (RFC 9110 section 5.6.1)."""
    return [part.strip(" \t") for value in _values(message, name) for part in value.split(",") if part.strip(" \t")]


def _extensions(message: HttpMessage) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Parse Sec-WebSocket-Extensions (section 9.1).

    Raises:
        ValueError: it is malformed.
    """
    for element in _elements(message, "sec-websocket-extensions"):
        match = _EXTENSION.fullmatch(element)
        if match is None:
            raise ValueError(f"malformed Sec-WebSocket-Extensions: {element!r}")
        parameters = [(name, value or quoted or None) for name, value, quoted in _PARAMETER.findall(match[2])]
        yield match[1], parameters


def _has_token(message: HttpMessage, name: str, token: str) -> bool:
    return any(element.lower() == token for element in _elements(message, name))


# -- server ----------------------------------------------------------------------------------------------------------


class Refusal(RemoteProtocolError):
    """A request that is answered with an error instead of a 101.

    Attributes:
        wire_code: the status.
        headers: what the response says beside it.
    """

    def __init__(self, message: str, status: int, section: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message, wire_code=status, section=f"RFC 6455 section {section}" if section else "")
        self.headers = headers or {}


def accept(request: HttpMessage, options: WsOptions) -> tuple[list[tuple[str, str]], Agreed]:
    """Hold a request against section 4.2.1 and decide what is agreed, as a server.

    Returns:
        header fields of the 101 beside Upgrade and Connection, and what is agreed.

    Raises:
        Refusal: 400, 403 or 426.
    """
    versions = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": VERSION}
    if not (_has_token(request, "upgrade", "websocket") and _has_token(request, "connection", "upgrade")):
        raise Refusal("WS upgrade expected", 426, "4.2.1", versions)
    if request.method != "GET" or request.proto != "HTTP/1.1":
        raise Refusal("a WebSocket handshake is a GET of HTTP/1.1", 400, "4.1")
    if _values(request, "sec-websocket-version") != [VERSION]:
        raise Refusal("WebSocket version other than 13", 426, "4.2.2", versions)
    keys = _values(request, "sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        raise Refusal("malformed Sec-WebSocket-Key", 400, "4.2.1")
    if options.origins:
        origins = _values(request, "origin")
        if len(origins) > 1 or (origins[0] if origins else None) not in options.origins:
            raise Refusal("this origin is not served", 403, "4.2.2")
    headers = [("Sec-WebSocket-Accept", accept_value(keys[0]))]
    offered = _elements(request, "sec-websocket-protocol")
    subprotocol = next((name for name in options.subprotocols if name in offered), "")
    if subprotocol:
        headers.append(("Sec-WebSocket-Protocol", subprotocol))
    deflate = None
    try:
        extensions = list(_extensions(request))
    except ValueError as exc:
        raise Refusal(str(exc), 400, "9.1") from exc
    if options.deflate is not None:
        accepted = options.deflate.accept(extensions)
        if accepted is not None:
            answer, deflate = accepted
            headers.append(("Sec-WebSocket-Extensions", answer))
    return headers, Agreed(subprotocol, deflate)


def _is_key(value: str) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


# -- client ----------------------------------------------------------------------------------------------------------


def request(target: str, host: str, nonce: bytes, options: WsOptions, headers: HeadersArgument) -> bytes:
    """Encode a client's request (section 4.1).

    Args:
        target: the request-target.
        host: the value of Host.
        nonce: 16 random bytes.
        headers: further ones of the user's.

    Raises:
        InvalidHeader: an illegal header; LocalProtocolError: one of the handshake's own.
    """
    lines: list[tuple[str, str]] = [
        ("Host", host),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", base64.b64encode(nonce).decode()),
        ("Sec-WebSocket-Version", VERSION),
    ]
    if options.origin:
        lines.append(("Origin", options.origin))
    if options.subprotocols:
        lines.append(("Sec-WebSocket-Protocol", ", ".join(options.subprotocols)))
    if options.deflate is not None:
        lines.append(("Sec-WebSocket-Extensions", options.deflate.offer()))
    fields = [line for _, line in encode_fields(lines)] + user_fields(headers)
    return b"".join((b"GET ", target.encode("ascii", "strict"), b" HTTP/1.1\r\n", *fields, b"\r\n"))


def user_fields(headers: HeadersArgument) -> list[bytes]:
    """Encode a user's header fields for either side of a handshake.

    Raises:
        InvalidHeader: an illegal header; LocalProtocolError: one of the handshake's own.
    """
    fields: Iterable[tuple[bytes, bytes]] = encode_fields(headers)
    for name, _ in fields:
        if name in _OWN_FIELDS:
            raise LocalProtocolError(f"{name.decode()} is part of the WebSocket handshake: it cannot be given")
    return [line for _, line in fields]


def check_response(response: HttpMessage, nonce: bytes, options: WsOptions) -> Agreed:
    """Hold a server's 101 against section 4.1, as a client.

    Raises:
        RemoteProtocolError: it is not the answer to our request.
    """

    def refuse(message: str) -> RemoteProtocolError:
        return RemoteProtocolError(message, section="RFC 6455 section 4.1")

    if not (_has_token(response, "upgrade", "websocket") and _has_token(response, "connection", "upgrade")):
        raise refuse("the server has not switched to WebSocket")
    if _values(response, "sec-websocket-accept") != [accept_value(base64.b64encode(nonce).decode())]:
        raise refuse("wrong Sec-WebSocket-Accept")
    subprotocols = _values(response, "sec-websocket-protocol")
    if len(subprotocols) > 1 or (subprotocols and subprotocols[0] not in options.subprotocols):
        raise refuse(f"the server has chosen a subprotocol that was not offered: {', '.join(subprotocols)}")
    try:
        extensions = list(_extensions(response))
    except ValueError as exc:
        raise refuse(str(exc)) from exc
    deflate = None
    if extensions:
        if options.deflate is not None and len(extensions) == 1:
            deflate = options.deflate.agree(*extensions[0])
        if deflate is None:
            raise refuse(f"the server has chosen extensions that were not offered: {extensions[0][0]}")
    return Agreed(subprotocols[0] if subprotocols else "", deflate)
