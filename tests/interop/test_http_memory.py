"""Gigabytes out and in, and many slow readers, while the memory of the server stays what it was."""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.examples.program import Program

from .http_memory_server import PIECE, ZEROS, marks, piece

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells how much memory a process has"),
]

MIB = 1 << 20
TIMEOUT = 60
SIZE = (4 << 30) + 11  # nothing that counts to 32 bits gets it right
MARKS = [0, 1, (1 << 31) - 1, 1 << 31, 3_333_333_333, (1 << 32) - 1, 1 << 32, SIZE - 1]
MAX_GROWTH = 16 * MIB


class MeasuredServer:
    """The server program, and how much memory it has."""

    def __init__(self, program: Program, backend: str) -> None:
        self.port, name = program.line().split()
        assert name == backend
        self._pid = program.process.pid
        self._before = 0

    def _memory(self, field: str) -> int:
        for line in Path(f"/proc/{self._pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) << 10
        raise AssertionError(f"no {field}")

    def begin(self) -> None:
        """Take the memory that it has now as the beginning."""
        assert self.ask()["streams"] == 0  # what a first request takes is there
        Path(f"/proc/{self._pid}/clear_refs").write_text("5")  # the highest so far is forgotten
        self._before = self._memory("VmRSS")

    def growth(self) -> int:
        """Return by how many bytes it had grown when it was largest."""
        return self._memory("VmHWM") - self._before

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        """Connect; receiving has a deadline, and can all the same wait for a buffer to be full (MSG_WAITALL)."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", TIMEOUT, 0))
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.connect(("127.0.0.1", int(self.port)))
        return sock

    def ask(self) -> dict[str, int]:
        with closing(self.connect()) as sock:
            sock.sendall(b"GET /state HTTP/1.0\r\n\r\n")
            _, status, body = read_reply(sock)
            assert status == 200
            told: dict[str, int] = json.loads(body)
            return told


@pytest.fixture
def large_file(tmp_path: Path) -> Iterator[Path]:
    """A file with zeros that are not on the disk, and a byte here and there."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(SIZE)
        for place in MARKS:
            os.pwrite(file.fileno(), b"\x01", place)
    yield path
    path.unlink()  # what has been read of it is in the page cache


@pytest.fixture
def server(backend: str, large_file: Path) -> Iterator[MeasuredServer]:
    with Program("-m", "tests.interop.http_memory_server", large_file) as program:
        yield MeasuredServer(program, backend)
        program.stop_cleanly()


def read_head(sock: socket.socket) -> tuple[dict[str, str], int, bytes]:
    """Return header fields, status and what has come behind the head."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = sock.recv(4096)
        assert data, received
        received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines)
    return fields, int(status_line.split()[1]), rest


def read_reply(sock: socket.socket) -> tuple[dict[str, str], int, bytes]:
    """Read a reply and the orderly end of the connection."""
    fields, status, body = read_head(sock)
    while data := sock.recv(MIB):
        body += data
    if "content-length" in fields:
        assert len(body) == int(fields["content-length"])
    return fields, status, body


def test_a_large_file_is_served(server: MeasuredServer) -> None:
    server.begin()
    with closing(server.connect()) as sock:
        sock.sendall(b"GET /file HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        fields, status, rest = read_head(sock)
        assert (status, fields["content-length"]) == (200, str(SIZE))
        size, found = len(rest), marks(rest, 0)
        buffer = bytearray(len(ZEROS))
        while count := sock.recv_into(buffer, 0, socket.MSG_WAITALL):
            data = buffer if count == len(buffer) else buffer[:count]
            found += marks(data, size)
            size += count
    assert (size, found) == (SIZE, MARKS)
    assert server.growth() < MAX_GROWTH
    with closing(server.connect()) as sock:
        sock.sendall(b"GET /file HTTP/1.1\r\nHost: x\r\nConnection: close\r\nRange: bytes=4294967290-\r\n\r\n")
        fields, status, body = read_reply(sock)
    assert (status, fields["content-range"]) == (206, f"bytes 4294967290-{SIZE - 1}/{SIZE}")
    assert marks(body, 4294967290) == MARKS[-3:] and len(body) == SIZE - 4294967290


def test_a_large_upload_is_received(server: MeasuredServer, large_file: Path) -> None:
    server.begin()
    with closing(server.connect()) as sock, large_file.open("rb") as file:
        sock.sendall(b"PUT /upload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % SIZE)
        assert sock.sendfile(file) == SIZE
        _, status, body = read_reply(sock)
    assert (status, json.loads(body)) == (200, {"size": SIZE, "marks": MARKS})
    assert server.growth() < MAX_GROWTH


READERS, ROUNDS, AT_ONCE = 200, 10, 2 * PIECE
# What a reader that is behind keeps at most: send_high_water and one piece more. It may be there twice, as it was
# produced and as it waits in the transport; and a connection, its tasks and its iterator take a few KiB.
MAX_READERS_GROWTH = READERS * (2 * ((64 << 10) + PIECE) + (24 << 10)) + MAX_GROWTH


@pytest.mark.parametrize("uri", ["/iterator", "/chunks"])
def test_slow_readers_of_an_endless_stream(server: MeasuredServer, uri: str) -> None:
    """Each takes a bit when it is its turn. What nobody has taken is not produced."""
    server.begin()
    expected = b"".join(piece(number) for number in range(ROUNDS * AT_ONCE // PIECE))
    with ExitStack() as stack:
        readers = []
        for _ in range(READERS):
            sock = stack.enter_context(closing(server.connect(receive_buffer=4096)))
            # HTTP/1.0 knows no chunks: what comes is the content.
            sock.sendall(f"GET {uri} HTTP/1.0\r\n\r\n".encode())
            readers.append(sock)
        heads = [read_head(sock) for sock in readers]
        assert {status for _, status, _ in heads} == {200}
        taken = [rest for _, _, rest in heads]
        before = -1
        while (produced := server.ask()["produced"]) != before:  # each answer takes turns of the server's loop
            before = produced  # the kernels take some megabytes for each
        for number in range(1, ROUNDS + 1):
            for index, sock in enumerate(readers):
                taken[index] += sock.recv(number * AT_ONCE - len(taken[index]), socket.MSG_WAITALL)
            assert server.ask()["streams"] == READERS
        assert all(data == expected for data in taken)
        assert server.growth() < MAX_READERS_GROWTH
    while server.ask()["streams"]:
        pass  # all are ended when their readers have left


UPLOAD = 64 * MIB  # of which 1 MiB would be taken


def send_all(sock: socket.socket, is_chunked: bool) -> None:
    for _ in range(UPLOAD // MIB):
        sock.sendall(b"%x\r\n%b\r\n" % (MIB, ZEROS) if is_chunked else ZEROS)
    if is_chunked:
        sock.sendall(b"0\r\n\r\n")


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("manners", ["reads at the end", "reads meanwhile", "stops at the reply"])
def test_an_upload_that_is_refused_early(server: MeasuredServer, framing: str, manners: str) -> None:
    """The client sees the reply and an orderly end, not a reset, whether or not it stops sending."""
    server.begin()
    field = b"Transfer-Encoding: chunked" if framing == "chunked" else b"Content-Length: %d" % UPLOAD
    with closing(server.connect()) as sock:
        sock.sendall(b"PUT /refused HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % field)
        if manners == "stops at the reply":
            if framing == "chunked":  # of which nobody knows the size until it is too large
                sock.sendall(b"%x\r\n%b\r\n" % (MIB, ZEROS) * 2)
            fields, status, _ = read_reply(sock)
        elif manners == "reads at the end":
            send_all(sock, framing == "chunked")
            fields, status, _ = read_reply(sock)
        else:
            failures: list[OSError] = []

            def send() -> None:
                try:
                    send_all(sock, framing == "chunked")
                except OSError as error:
                    failures.append(error)

            sender = threading.Thread(target=send)
            sender.start()
            fields, status, _ = read_reply(sock)
            sender.join()
            assert failures == []
    assert (status, fields["connection"]) == (413, "close")
    assert server.growth() < MAX_GROWTH
