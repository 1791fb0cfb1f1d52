"""HTTP/1.1 messages (RFC 9112): the contract of the codecs, and how both roles frame what they send.

A codec reads one side of a connection. ``receive_data`` takes bytes as they come, ``next_event`` returns what can be
read from them so far, one record at a time: a head, then pieces of content, then EndOfMessage, then the next head; or
a WholeRequest in place of these three. None says that more data is needed. A ProtocolError is final: the records before
it have been returned before, so that a pipelined request in front of a broken one is still answered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from http import HTTPStatus
from ipaddress import IPv6Address
from typing import Protocol

from asyncmg.errors import InvalidHeader, LimitExceeded, RemoteProtocolError
from asyncmg.messages import Field
from asyncmg.messages import Framing as Framing  # re-exported: they belong to the contract
from asyncmg.messages import WholeRequest as WholeRequest
from asyncmg.messages import split_fields as split_fields


class Role(StrEnum):
    """Which side of a connection an object plays."""

    CLIENT = "client"
    SERVER = "server"


class RequestHead:
    """Request line and header section."""

    __slots__ = (
        "content_length",
        "expects_continue",
        "fields",
        "framing",
        "keep_alive",
        "method",
        "proto",
        "target",
        "upgrade",
    )

    def __init__(
        self,
        method: str,
        target: str,
        proto: str,
        fields: list[Field],
        framing: Framing,
        content_length: int,
        keep_alive: bool,
        expects_continue: bool,
        upgrade: str,
    ) -> None:
        self.method = method
        self.target = target
        self.proto = proto
        self.fields = fields
        self.framing = framing
        self.content_length = content_length  # 0 unless framing is LENGTH
        self.keep_alive = keep_alive
        self.expects_continue = expects_continue
        self.upgrade = upgrade  # value of Upgrade when Connection names it, otherwise ""

    status = 0
    reason = ""
    takes_plain_reply = False  # what a WholeRequest may be


class ResponseHead:
    """Status line and header section."""

    __slots__ = ("content_length", "fields", "framing", "keep_alive", "method", "proto", "reason", "status")

    target = ""
    expects_continue = False
    takes_plain_reply = False

    def __init__(
        self,
        method: str,
        status: int,
        reason: str,
        proto: str,
        fields: list[Field],
        framing: Framing,
        content_length: int,
        keep_alive: bool,
    ) -> None:
        self.method = method  # of the request that this answers
        self.status = status
        self.reason = reason
        self.proto = proto
        self.fields = fields
        self.framing = framing
        self.content_length = content_length
        self.keep_alive = keep_alive


class EndOfMessage:
    """The message is complete. ``trailers`` are those of a chunked one."""

    __slots__ = ("trailers",)

    def __init__(self, trailers: list[Field]) -> None:
        self.trailers = trailers


Record = RequestHead | WholeRequest | ResponseHead | bytes | EndOfMessage
NO_TRAILERS = EndOfMessage([])


class HttpCodec(Protocol):
    """What HttpProtocol needs from a codec; one object reads one direction of one connection."""

    @property
    def buffered(self) -> int:
        """Bytes received and not yet returned in a record."""

    @property
    def is_between_messages(self) -> bool:
        """No byte of a further message has been received."""

    def expect(self, method: str) -> None:
        """Tell a client codec that a request with this method has been sent (it decides the response's framing)."""

    def receive_data(self, data: bytes) -> None: ...

    def receive_eof(self) -> None: ...

    def next_event(self) -> Record | None:
        """Return the next record, or None when more data is needed.

        Raises:
            RemoteProtocolError: the peer broke RFC 9112; final. LimitExceeded when it was a limit.
        """

    def take_rest(self) -> bytes:
        """Return and forget the bytes behind the last record (for the protocol that follows an upgrade)."""


class NoCodec:
    """Stands where a codec is not needed yet: nothing has been received."""

    __slots__ = ()

    buffered = 0
    is_between_messages = True

    def expect(self, method: str) -> None:
        """It reads no responses."""

    def receive_data(self, data: bytes) -> None:
        """It reads nothing."""

    def receive_eof(self) -> None:
        """Nothing has been received, so nothing is cut off."""

    def next_event(self) -> None:
        """There is nothing."""

    def take_rest(self) -> bytes:
        return b""


NO_CODEC = NoCodec()


# -- what a header section says about its message -----------------------------------------------------------------

_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]+(?:%25[\w.~-]+)?\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?"
)
_TARGET_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#@]+)(?:[/?][^#]*)?")
_CONTENT_LENGTH = re.compile(rb"[0-9]{1,18}")
_LIST_SEPARATOR = re.compile(rb"[ \t]*,[ \t]*")


def _is_host(value: bytes) -> bool:
    """Hold a value against uri-host [ ":" port ] (RFC 3986 section 3.2.2)."""
    if not _HOST.fullmatch(value):
        return False
    if value.startswith(b"["):
        try:
            IPv6Address(value[1 : value.index(b"]")].partition(b"%")[0].decode())
        except ValueError:
            return False
    return True


def refuse(message: str, section: str, status: int = 400) -> RemoteProtocolError:
    return RemoteProtocolError(message, wire_code=status, section=f"RFC {section}")


def over_limit(what: str, name: str, value: int, actual: int, status: int) -> LimitExceeded:
    return LimitExceeded(f"{what} too large", limit=f"{name}={value}", actual=actual, wire_code=status)


class _Summary:
    """The fields that decide about framing and persistence, collected in one pass."""

    __slots__ = ("connection", "content_length", "expect", "hosts", "transfer_encoding", "upgrade")

    def __init__(self, fields: list[Field]) -> None:
        self.hosts: list[bytes] = []
        self.content_length: list[bytes] = []
        self.transfer_encoding: list[bytes] = []
        self.connection: set[bytes] = set()
        self.expect = b""
        self.upgrade = b""
        for name, value in fields:
            key = name.lower()
            if key == b"host":
                self.hosts.append(value)
            elif key == b"content-length":
                self.content_length.append(value)
            elif key == b"transfer-encoding":
                self.transfer_encoding.append(value)
            elif key == b"connection":
                self.connection.update(_LIST_SEPARATOR.split(value.lower()))
            elif key == b"expect":
                self.expect = value.lower()
            elif key == b"upgrade":
                self.upgrade = value

    def content_framing(self, proto: str) -> tuple[Framing | None, int]:
        """Decide the framing from the fields; None when they say nothing. What can be read in two ways is refused."""
        if self.transfer_encoding:
            if self.content_length:
                raise refuse("Transfer-Encoding with Content-Length", "9112 section 6.1")
            if proto == "HTTP/1.0":
                raise refuse("Transfer-Encoding in HTTP/1.0", "9112 section 6.1")
            if len(self.transfer_encoding) > 1 or self.transfer_encoding[0].lower() != b"chunked":
                raise refuse("Transfer-Encoding other than chunked", "9112 section 6.1", 501)
            return Framing.CHUNKED, 0
        if self.content_length:
            if len(self.content_length) > 1 or not _CONTENT_LENGTH.fullmatch(self.content_length[0]):
                raise refuse("malformed or repeated Content-Length", "9112 section 6.3")
            return Framing.LENGTH, int(self.content_length[0])
        return None, 0

    def keep_alive(self, proto: str) -> bool:
        """RFC 9112 section 9.3."""
        if b"close" in self.connection:
            return False
        return proto != "HTTP/1.0" or b"keep-alive" in self.connection


def _check_target(method: str, target: str) -> None:
    """Hold the request-target against its four forms (RFC 9112 section 3.2)."""
    if "#" in target:
        raise refuse("fragment in request-target", "9112 section 3.2")
    if method == "CONNECT":
        host, colon, port = target.rpartition(":")
        if not (
            colon and host and port.isdecimal() and len(port) <= 5 and int(port) <= 65535 and _is_host(target.encode())
        ):
            raise refuse("CONNECT without host:port", "9112 section 3.2.3")
    elif target == "*":
        if method != "OPTIONS":
            raise refuse("request-target * with a method other than OPTIONS", "9112 section 3.2.4")
    elif not target.startswith("/"):
        match = _TARGET_ABSOLUTE.fullmatch(target)
        if match is None or match[1].startswith(":") or not _is_host(match[1].encode()):
            raise refuse("malformed request-target", "9112 section 3.2")


def request_head(method: str, target: str, proto: str, fields: list[Field]) -> RequestHead:
    """Check a request's fields against each other and decide its framing.

    Raises:
        RemoteProtocolError: with wire_code 400, 417 or 501.
    """
    _check_target(method, target)
    summary = _Summary(fields)
    if len(summary.hosts) > 1:
        raise refuse("more than one Host", "9112 section 3.2")
    if not summary.hosts:
        if proto != "HTTP/1.0":
            raise refuse("Host is missing", "9112 section 3.2")
    elif not _is_host(summary.hosts[0]):
        raise refuse("malformed Host", "9112 section 3.2")
    framing, length = summary.content_framing(proto)
    if framing is None or (framing is Framing.LENGTH and length == 0):
        framing = Framing.NONE
    expects_continue = False
    if summary.expect:
        if summary.expect != b"100-continue":
            raise refuse("Expect other than 100-continue", "9110 section 10.1.1", 417)
        # RFC 9110 section 10.1.1: to be ignored in HTTP/1.0 and when there is no content.
        expects_continue = proto != "HTTP/1.0" and framing is not Framing.NONE
    upgrade = summary.upgrade.decode("latin-1") if b"upgrade" in summary.connection and proto != "HTTP/1.0" else ""
    keep_alive = summary.keep_alive(proto)
    return RequestHead(method, target, proto, fields, framing, length, keep_alive, expects_continue, upgrade)


def response_head(method: str, status: int, reason: str, proto: str, fields: list[Field]) -> ResponseHead:
    """Decide the framing of a response to a request with this method (RFC 9112 section 6.3).

    Raises:
        RemoteProtocolError: the fields contradict each other.
    """
    summary = _Summary(fields)
    framing, length = summary.content_framing(proto)
    keep_alive = summary.keep_alive(proto)
    if status < 200 or status in (204, 304) or method == "HEAD" or (method == "CONNECT" and status < 300):
        framing, length = Framing.NONE, 0
    elif framing is None:
        framing, keep_alive = Framing.CLOSE, False
    elif framing is Framing.LENGTH and length == 0:
        framing = Framing.NONE
    return ResponseHead(method, status, reason, proto, fields, framing, length, keep_alive)


# -- sending --------------------------------------------------------------------------------------------------------

HeadersArgument = Mapping[str, object] | Iterable[tuple[str, object]] | str | None

_FIELD_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [^\x00\r\n]*")
_STATUS_LINES = {int(s): f"HTTP/1.1 {int(s)} {s.phrase}\r\n".encode() for s in HTTPStatus}
_STATUS_LINES[413] = b"HTTP/1.1 413 Content Too Large\r\n"
_STATUS_LINES[414] = b"HTTP/1.1 414 URI Too Long\r\n"
_STATUS_LINES[422] = b"HTTP/1.1 422 Unprocessable Content\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def reason_phrase(status: int) -> str:
    """The registered reason phrase, "" for an unknown status."""
    line = _STATUS_LINES.get(status)
    return line[13:-2].decode() if line else ""


def header_pairs(headers: HeadersArgument) -> Iterable[tuple[str, object]]:
    """Bring the forms in which users give headers to one: pairs. Only CR LF and LF end a line of a str.

    Raises:
        InvalidHeader: a line of a str has no colon.
    """
    if not headers:
        return []
    if isinstance(headers, str):
        lines = [line.partition(":") for line in headers.replace("\r\n", "\n").rstrip("\n").split("\n")]
        if not all(colon for _, colon, _ in lines):
            raise InvalidHeader(f"a line without a colon among the headers: {headers!r}")
        return [(name, value.lstrip(" \t")) for name, _, value in lines]
    if isinstance(headers, Mapping):
        return headers.items()
    return headers


def encode_fields(headers: HeadersArgument) -> list[tuple[bytes, bytes]]:
    """Encode field lines given by a user: ``(lower-case name, "Name: value\\r\\n")`` each.

    Args:
        headers: a mapping, pairs, or Mongoose's string of ``Name: value\\r\\n`` lines. Values are rendered by str().

    Raises:
        InvalidHeader: a name is not a token, or a value has CR, LF or NUL (RFC 9110 section 5.5).
    """
    if not headers:
        return []
    encoded = []
    for name, value in header_pairs(headers):
        try:
            line = f"{name}: {value}".encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as exc:
            raise InvalidHeader(f"header field cannot be encoded: {name!r}") from exc
        if not _FIELD_LINE.fullmatch(line) or ":" in name:
            raise InvalidHeader(f"Header name/value contains illegal character (CR, LF, or NUL): {name!r}: {value!r}")
        encoded.append((name.lower().encode(), line + b"\r\n"))
    return encoded


def encode_response_head(status: int, lines: Iterable[bytes]) -> bytes:
    """Join status line, field lines and the empty line."""
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    return b"".join((line, *lines, b"\r\n"))


def encode_chunk(data: bytes) -> bytes:
    """Frame one chunk (RFC 9112 section 7.1). Empty data would end the content, so it is refused by an assertion."""
    assert data
    return b"%x\r\n%b\r\n" % (len(data), data)
