"""Downloads and uploads of large files, one after the other on each connection; in a process pinned to one core.

wrk would be the bottleneck: it reads 8 KiB at a time. This takes as much as there is, up to 1 MiB, and sends with
sendfile. Contents that come are counted and dropped without a copy (MSG_TRUNC, see tcp(7)): a load that is slower than
the server also does a part of its work, as what a full socket holds back is sent when the peer's acknowledgement comes,
in the peer's time. What is begun is finished, so that all bytes that are counted are whole files.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from servers.running import HOST, CannotRun

STALL_TIMEOUT = 30.0
_BENCHMARKS = Path(__file__).resolve().parents[1]
_BUFFER = 1 << 20
_MAX_HEAD = 32 << 10


@dataclass(frozen=True, slots=True)
class TransferResult:
    """What was transferred.

    Attributes:
        transfers: whole files.
        bytes: of their contents.
        seconds: from the first request to the end of the last reply.
        cpu_seconds: of the load.
    """

    transfers: int
    bytes: int
    seconds: float
    cpu_seconds: float


def run_downloads(port: int, *, path: str, size: int, connections: int, seconds: float, core: int) -> TransferResult:
    """Download a file again and again.

    Args:
        port: of 127.0.0.1.
        path: of the requests.
        size: bytes of the file; another length fails.
        connections: kept alive all the time, each with one request in flight.
        seconds: after which no download is begun; each connection does one in any case.
        core: where the load runs.

    Raises:
        CannotRun: a reply is not what it should be, or nothing comes for ``STALL_TIMEOUT`` seconds.
    """
    return _run(["get", str(port), path, str(size), str(seconds), str(connections)], seconds, core)


def run_uploads(port: int, *, path: str, file: Path, seconds: float, core: int) -> TransferResult:
    """Upload a file again and again with PUT, on one connection; the rest as for downloads."""
    return _run(["put", str(port), path, str(file.stat().st_size), str(seconds), str(file)], seconds, core)


def _run(arguments: list[str], seconds: float, core: int) -> TransferResult:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "loads.transfers", *arguments],
            cwd=_BENCHMARKS,
            capture_output=True,
            text=True,
            timeout=seconds + 4 * STALL_TIMEOUT,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    except subprocess.TimeoutExpired as exc:
        raise CannotRun(f"transfers did not end within {exc.timeout:g} s") from exc
    if done.returncode != 0:
        raise CannotRun((done.stderr.strip().splitlines() or ["the load failed"])[-1])
    return TransferResult(**json.loads(done.stdout))


# -- the process -------------------------------------------------------------------------------------------------------


def _content_length(head: bytes, statuses: tuple[bytes, ...]) -> int:
    """Return what the head of a reply says, 0 where it says nothing.

    Raises:
        ValueError: it has another status.
    """
    start, *lines = head.split(b"\r\n")
    if start.split(b" ")[1:2] not in [[status] for status in statuses]:
        raise ValueError(f"replied {start[:80].decode('latin-1')!r} under load")
    for name, _, value in (line.partition(b":") for line in lines):
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


class _Download:
    """One connection, with one request in flight after ``begin``."""

    def __init__(self, port: int, path: str, size: int) -> None:
        self.sock = socket.create_connection((HOST, port), 5)
        self._request = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
        self._size = size
        self._head = b""
        self._left = 0

    def begin(self) -> None:
        self.sock.sendall(self._request)  # it fits: nothing else is on its way
        self._head, self._left = b"", -1

    def receive(self, buffer: bytearray) -> bool:
        """Take what there is; return whether the reply is complete."""
        count = self.sock.recv_into(buffer, 0, socket.MSG_TRUNC if self._left > 0 else 0)
        if count == 0:
            raise ValueError("closed the connection within a reply")
        if self._left < 0:
            self._head += buffer[:count]
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                if len(head) > _MAX_HEAD:
                    raise ValueError("replied with a head without an end")
                return False
            if (length := _content_length(head, (b"200",))) != self._size:
                raise ValueError(f"replied with Content-Length {length} under load, expected {self._size}")
            self._left, count = self._size, len(rest)
        self._left -= count
        if self._left < 0:
            raise ValueError(f"sent {-self._left} bytes more than its Content-Length")
        return self._left == 0


def _download(port: int, path: str, size: int, seconds: float, connections: int) -> int:
    """Return how many downloads there were."""
    buffer = bytearray(_BUFFER)
    selector = selectors.DefaultSelector()
    downloads = [_Download(port, path, size) for _ in range(connections)]
    deadline = time.monotonic() + seconds
    for download in downloads:
        download.begin()
        selector.register(download.sock, selectors.EVENT_READ, download)
    done = 0
    while selector.get_map():
        ready = selector.select(STALL_TIMEOUT)
        if not ready:
            raise ValueError(f"sent nothing for {STALL_TIMEOUT:g} s")
        for key, _ in ready:
            if not key.data.receive(buffer):
                continue
            done += 1
            if time.monotonic() < deadline:
                key.data.begin()
            else:
                selector.unregister(key.fileobj)
    return done


def _upload(port: int, path: str, size: int, seconds: float, name: str) -> int:
    """Return how many uploads there were."""
    request = f"PUT {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {size}\r\n\r\n".encode()
    deadline = time.monotonic() + seconds
    done = 0
    with open(name, "rb") as file, socket.create_connection((HOST, port), STALL_TIMEOUT) as sock:
        while done == 0 or time.monotonic() < deadline:
            sock.sendall(request)
            sock.sendfile(file, 0, size)
            data = b""
            while b"\r\n\r\n" not in data:
                data += _some(sock)
            head, _, rest = data.partition(b"\r\n\r\n")
            length = _content_length(head, (b"200", b"201", b"204"))
            while len(rest) < length:
                rest += _some(sock)
            done += 1
    return done


def _some(sock: socket.socket) -> bytes:
    data = sock.recv(_MAX_HEAD)
    if not data:
        raise ValueError("closed the connection instead of a reply to an upload")
    return data


def main() -> None:
    kind, port, path, size, seconds, last = sys.argv[1:]
    begin = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF)
    try:
        if kind == "get":
            done = _download(int(port), path, int(size), float(seconds), int(last))
        else:
            done = _upload(int(port), path, int(size), float(seconds), last)
    except (OSError, ValueError) as exc:
        sys.exit(str(exc) or type(exc).__name__)
    after = resource.getrusage(resource.RUSAGE_SELF)
    result = TransferResult(
        transfers=done,
        bytes=done * int(size),
        seconds=time.monotonic() - begin,
        cpu_seconds=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    )
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
