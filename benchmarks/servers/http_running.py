"""An HTTP server of the benchmarks, running: how its replies are checked."""

from __future__ import annotations

import socket
from pathlib import Path

from .http_peers import BODY
from .running import HOST, START_TIMEOUT, CannotRun, RunningServer

_REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class HttpServer(RunningServer):
    """A server of ``http_peers.py``."""

    program = Path(__file__).with_name("http_peers.py")

    def check(self, depth: int = 1) -> None:
        """Send ``depth`` requests at once and look at every reply: status 200, Date, Server, the body.

        Raises:
            CannotRun: a reply is not what it should be, or none comes.
        """
        try:
            with socket.create_connection((HOST, self.port), 5) as sock:
                sock.settimeout(START_TIMEOUT)
                sock.sendall(_REQUEST * depth)
                data = b""
                for _ in range(depth):
                    data = _take_reply(sock, data)
        except OSError as exc:
            raise CannotRun(f"no reply: {exc}") from exc
        if data:
            raise CannotRun(f"bytes after the last reply: {data[:80]!r}")


def _take_reply(sock: socket.socket, data: bytes) -> bytes:
    """Receive one reply, check it, return the bytes after it."""
    fields, data = take_head(sock, data, ("200",))
    if fields.get("content-length") != str(len(BODY)):
        raise CannotRun(f"replied with Content-Length {fields.get('content-length')}, expected {len(BODY)}")
    while len(data) < len(BODY):
        data += receive(sock)
    if not data.startswith(BODY):
        raise CannotRun(f"replied {data[: len(BODY)]!r}, expected {BODY!r}")
    return data[len(BODY) :]


def take_head(sock: socket.socket, data: bytes, statuses: tuple[str, ...]) -> tuple[dict[str, str], bytes]:
    """Receive the head of a reply, check it, return its fields by lower-case name and the bytes after it.

    Args:
        data: what has been received already.
        statuses: that are right.

    Raises:
        CannotRun: it has another status, no Date, no Server, or does not come.
    """
    while b"\r\n\r\n" not in data:
        data += receive(sock)
    head, _, data = data.partition(b"\r\n\r\n")
    start, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if start.split(" ")[1:2] not in [[status] for status in statuses]:
        raise CannotRun(f"replied {start!r}")
    if "date" not in fields or "server" not in fields:
        raise CannotRun(f"replied without Date or Server: {sorted(fields)}")
    return fields, data


def receive(sock: socket.socket) -> bytes:
    """Return what has come.

    Raises:
        CannotRun: the end of the connection has.
    """
    data = sock.recv(65536)
    if not data:
        raise CannotRun("closed the connection instead of a reply")
    return data
