"""The exceptions of asyncmg.

Where programs written for pymongoose or cymongoose expect another type (RuntimeError, ValueError), ours inherits from
it.
"""

from __future__ import annotations

from typing import NamedTuple


class CloseFrame(NamedTuple):
    """What a WebSocket close frame says (RFC 6455 section 5.5.1).

    Attributes:
        code: 1005 when the frame has none.
        reason: "" when the frame has none.
    """

    code: int
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.code} {self.reason}".rstrip()


class AsyncmgError(Exception):
    """Base of every exception that asyncmg raises on its own account."""


class ProtocolError(AsyncmgError):
    """A protocol was broken, by us or by the peer.

    Attributes:
        wire_code: what the peer is told: HTTP status, WebSocket close code or MQTT reason code; 0 when there is none.
    """

    def __init__(self, message: str, *, wire_code: int = 0) -> None:
        super().__init__(message)
        self.wire_code = wire_code


class LocalProtocolError(ProtocolError, RuntimeError):
    """We asked for something that the protocol forbids now, such as a second reply to one request."""


class InvalidHeader(LocalProtocolError, ValueError):
    """A header field given by the user has an illegal name, or a value with CR, LF or NUL (RFC 9110 section 5.5)."""


class InvalidPacket(LocalProtocolError, ValueError):
    """An argument given by the user that no MQTT control packet can carry, or not this one."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol.

    Attributes:
        section: where the rule stands, such as ``"RFC 9112 section 6.3"``.
        request: the HttpMessage whose content, query or cookies it is about; None: of no message that is there.
    """

    request: object = None

    def __init__(self, message: str, *, wire_code: int = 0, section: str = "") -> None:
        super().__init__(f"{message} ({section})" if section else message, wire_code=wire_code)
        self.section = section


class LimitExceeded(RemoteProtocolError):
    """The peer went over a documented limit.

    Attributes:
        limit: the limit's name and value, such as ``"max_body=1048576"``.
        actual: what was seen; it may be a lower bound, because we stop counting at the limit.
    """

    def __init__(self, message: str, *, limit: str, actual: int, wire_code: int = 0, section: str = "") -> None:
        super().__init__(f"{message}: {actual} is over {limit}", wire_code=wire_code, section=section)
        self.limit = limit
        self.actual = actual


class ConnectionClosed(AsyncmgError, RuntimeError):
    """The connection is closed: nothing more can be sent or received on it.

    Attributes:
        received, sent: close frames of a WebSocket connection; None: there was none.
        code, reason: of the frame received; 1006 and "" without one (RFC 6455 section 7.1.5).
    """

    def __init__(
        self,
        message: str = "Connection has been closed",
        *,
        received: CloseFrame | None = None,
        sent: CloseFrame | None = None,
    ) -> None:
        super().__init__(message)
        self.received = received
        self.sent = sent

    @property
    def code(self) -> int:
        return self.received.code if self.received is not None else 1006

    @property
    def reason(self) -> str:
        return self.received.reason if self.received is not None else ""


class ConnectionClosedOK(ConnectionClosed):
    """A WebSocket connection has ended by a closing handshake, with codes 1000, 1001 or none."""


class ConnectionClosedError(ConnectionClosed):
    """A WebSocket connection has ended with another code, or without a closing handshake. The cause is chained."""


class ConnectFailed(AsyncmgError, OSError):
    """A connection could not be made: name resolution, TCP, Unix socket or TLS. The cause is chained."""


class ResolveFailed(ConnectFailed):
    """A name could not be looked up: the servers do not answer, or not with what can be used. The cause is chained.

    Attributes:
        name: what was looked up.
        rcode: response code of the last server (RFC 1035 section 4.1.1); 0: there was none.
    """

    def __init__(self, message: str, *, name: str = "", rcode: int = 0) -> None:
        super().__init__(message)
        self.name = name
        self.rcode = rcode


class NameNotFound(ResolveFailed):
    """The name does not exist (rcode 3), or has no records of the type (rcode 0)."""


class ResolveTimeout(ResolveFailed, TimeoutError):
    """No name server has answered in time."""


class HandshakeFailed(ConnectFailed):
    """The server has not accepted a WebSocket handshake, or a proxy has not made the connection.

    Attributes:
        status: of its response; 0 when there is none, 101 when it was wrong.
        headers, body: of its response.
    """

    def __init__(
        self, message: str, *, status: int = 0, headers: list[tuple[str, str]] | None = None, body: bytes = b""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or []
        self.body = body


class MqttRefused(ProtocolError):
    """A broker has said no: a reason code of 0x80 or more (MQTT 5.0 section 2.4).

    Return codes of 3.1.1 are told as the reason codes that mean the same.

    Attributes:
        code: the reason code.
        reason: the broker's reason string; "" without one.
        server_reference: another server to use instead (section 4.11); "" without one.
    """

    def __init__(self, what: str, code: int, reason: str = "", server_reference: str = "") -> None:
        text = f"{what}: reason code {code:#04x}"
        super().__init__(f"{text} ({reason})" if reason else text, wire_code=code)
        self.code = code
        self.reason = reason
        self.server_reference = server_reference


class SntpFailed(AsyncmgError, OSError):
    """No server has told the time. What happened with the first one is chained.

    Attributes:
        failures: server -> what happened with it.
    """

    def __init__(self, message: str, failures: dict[str, Exception]) -> None:
        super().__init__(message)
        self.failures = failures


class KissOfDeath(RemoteProtocolError):
    """An SNTP server asks to be left alone (RFC 5905 section 7.4).

    Attributes:
        code: ``DENY`` and ``RSTR``: do not ask it again; ``RATE``: not so often; others are about its clock.
    """

    def __init__(self, code: str) -> None:
        super().__init__(f"kiss-o'-death {code}", section="RFC 5905 section 7.4")
        self.code = code


class StoreFailed(AsyncmgError, OSError):
    """What has to survive on disk could not be read or written. The cause is chained."""


class ListenFailed(AsyncmgError, OSError, RuntimeError):
    """A listener could not be bound. The cause is chained. (RuntimeError is what cymongoose raises.)"""


class InvalidUrl(AsyncmgError, ValueError, RuntimeError):
    """A URL given to listen() or connect() cannot be used. (RuntimeError is what cymongoose raises.)"""


class TlsError(AsyncmgError):
    """A TLS handshake failed, or a TLS connection was used without TLS having been set up. The cause is chained."""


class DeadlineExceeded(AsyncmgError, TimeoutError):
    """A time-out expired.

    Attributes:
        limit: the name of the limit, such as ``"header_timeout"``.
        wire_code: the HTTP status told to the peer, 0 when there is none.
    """

    def __init__(self, message: str, *, limit: str = "", wire_code: int = 0) -> None:
        super().__init__(message)
        self.limit = limit
        self.wire_code = wire_code


class BusyError(AsyncmgError, RuntimeError):
    """Two tasks read one connection, or poll() was entered twice."""


class ManagerClosed(AsyncmgError, RuntimeError):
    """The manager has been closed."""
