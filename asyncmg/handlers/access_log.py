"""Access logs: a line for each reply, in the formats of Apache, or as JSON."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from datetime import datetime

from asyncmg.connection import Connection, Handler
from asyncmg.messages import HttpMessage
from asyncmg.protocols.http_filters import ReplyDraft

from .wrapping import Marks, add_filter, wrap

# As Apache does it (ap_escape_logitem): nothing that a client sends begins a new line or ends a quoted item.
_UNSAFE = re.compile(r'[^ -~]|["\\]')
_ESCAPED = [chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in range(256)]
for _byte, _escape_sequence in zip(b'\b\n\r\t\v"\\', ("\\b", "\\n", "\\r", "\\t", "\\v", '\\"', "\\\\"), strict=True):
    _ESCAPED[_byte] = _escape_sequence

# strftime() names them in the language of the process.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def access_log(
    handler: Handler, format: str = "combined", logger: logging.Logger | None = None, *, level: int = logging.INFO
) -> Handler:
    """Log every reply to the requests that a handler gets, when it is over.

    Replies that a handler further in has made count too (401, preflight), so this one belongs outside. Requests that
    could not be read are logged with ``-`` in place of the request line, WebSocket upgrades with 101. A reply that the
    connection did not outlive has the bytes that were sent; one that never was has the status ``-``.

    Args:
        handler: plain or async, ``handler(conn, ev, data)``.
        format: ``"common"``, ``"combined"`` (with Referer and User-Agent), both as Apache has them; or ``"json"``:
            one object with ``time remote user method target proto status size duration_ms referer user_agent connection
            complete``.
        logger: default: ``asyncmg.access``. Nothing is done while its level is above ``level``.
        level: of the records.

    Returns:
        a handler.

    Raises:
        TypeError: the handler is a session.
        ValueError: of the format.
    """
    if format not in _FORMATS:
        raise ValueError(f"format is one of {', '.join(_FORMATS)}, not {format!r}")
    log = _Log(_FORMATS[format], logger or logging.getLogger("asyncmg.access"), level)
    return wrap(handler, log.look, on_error=log.look_at_error)


class _Log:
    """Makes an entry for each request."""

    __slots__ = ("_format", "_level", "_logged", "_logger")

    def __init__(self, format: Callable[[_Entry], str], logger: logging.Logger, level: int) -> None:
        self._format = format
        self._logger = logger
        self._level = level
        self._logged = Marks()

    def look(self, conn: Connection, ev: int, message: HttpMessage) -> bool:
        if self._logger.isEnabledFor(self._level) and not self._logged.take(conn, ev, message):
            self._logged.note(conn, ev, message)
            add_filter(conn, _Entry(self, conn))
        return True

    def look_at_error(self, conn: Connection, error: Exception) -> None:
        """Log a request that was refused before there was a message: of others the filter is told."""
        status = getattr(error, "wire_code", 0)
        is_status = 400 <= status < 600  # WebSocket's and MQTT's codes are others
        if is_status and not conn.is_client and getattr(conn.protocol, "message", None) is None:
            entry = _Entry(self, conn)
            entry.status = status
            self.write(entry)

    def write(self, entry: _Entry) -> None:
        if self._logger.isEnabledFor(self._level):
            self._logger.log(self._level, "%s", self._format(entry))


class _Entry:
    """One line: what is known when the request comes, and, as a reply filter, when its reply is over."""

    __slots__ = (
        "_log",
        "connection",
        "duration",
        "is_complete",
        "message",
        "remote",
        "size",
        "start",
        "status",
        "time",
    )

    def __init__(self, log: _Log, conn: Connection) -> None:
        address = conn.remote_addr
        self.remote = address.ip if address is not None else ""  # "" as well of a Unix socket without a name
        self.connection = conn.id
        self.time = time.time()
        self.start = time.perf_counter()
        self.message: HttpMessage | None = None
        self.status = 0
        self.size = 0
        self.duration = 0.0
        self.is_complete = True
        self._log = log

    def begin_reply(self, message: HttpMessage, draft: ReplyDraft) -> None:
        """Nothing to do."""

    def end_reply(self, message: HttpMessage, status: int, size: int, is_complete: bool) -> None:
        self.message, self.status, self.size, self.is_complete = message, status, size, is_complete
        self.duration = time.perf_counter() - self.start
        self._log.write(self)


def _common(entry: _Entry) -> str:
    """``%h %l %u %t "%r" %>s %b``."""
    message, user = entry.message, None
    if message is not None:
        user = message.params.get("user")
    who = "-" if user is None else _escape(user) or '""'
    request = "-" if message is None else _escape(f"{message.method} {message.url} {message.proto}")
    return (
        f"{_escape(entry.remote) or '-'} - {who} [{_apache_time(entry.time)}]"
        f' "{request}" {entry.status or "-"} {entry.size or "-"}'
    )


def _combined(entry: _Entry) -> str:
    """The same and ``"%{Referer}i" "%{User-Agent}i"``."""
    given = [_header(entry, name) for name in ("Referer", "User-Agent")]
    referer, user_agent = ["-" if value is None else _escape(value) for value in given]
    return f'{_common(entry)} "{referer}" "{user_agent}"'


def _json(entry: _Entry) -> str:
    message = entry.message
    return json.dumps(
        {
            "time": datetime.fromtimestamp(entry.time).astimezone().isoformat(timespec="milliseconds"),
            "remote": entry.remote or None,
            "user": None if message is None else message.params.get("user"),
            "method": None if message is None else message.method,
            "target": None if message is None else message.url,
            "proto": None if message is None else message.proto,
            "status": entry.status or None,
            "size": entry.size,
            "duration_ms": round(entry.duration * 1000, 3),
            "referer": _header(entry, "Referer"),
            "user_agent": _header(entry, "User-Agent"),
            "connection": entry.connection,
            "complete": entry.is_complete,
        }
    )


_FORMATS = {"combined": _combined, "common": _common, "json": _json}


def _header(entry: _Entry, name: str) -> str | None:
    return None if entry.message is None else entry.message.header(name)


def _escape(text: str) -> str:
    if _UNSAFE.search(text) is None:
        return text
    return "".join([_ESCAPED[byte] for byte in text.encode("utf-8", "surrogateescape")])


def _apache_time(when: float) -> str:
    """``10/Oct/2000:13:55:36 -0700``."""
    local = time.localtime(when)
    sign = "-" if local.tm_gmtoff < 0 else "+"
    hours, minutes = divmod(abs(local.tm_gmtoff) // 60, 60)
    return (
        f"{local.tm_mday:02}/{_MONTHS[local.tm_mon - 1]}/{local.tm_year}"
        f":{local.tm_hour:02}:{local.tm_min:02}:{local.tm_sec:02} {sign}{hours:02}{minutes:02}"
    )
