"""The exceptions of asyncmg.

Where programs written for pymongoose or cymongoose expect another type (RuntimeError, ValueError), ours inherits from
it.
"""

from __future__ import annotations


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


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol.

    Attributes:
        section: where the rule stands, such as ``"RFC 9112 section 6.3"``.
    """

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
    """The connection is closed: nothing more can be sent or received on it."""


class ConnectFailed(AsyncmgError, OSError):
    """A connection could not be made: name resolution, TCP, Unix socket or TLS. The cause is chained."""


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
