"""A server of files for the benchmarks, running: what it serves, and how that and what it stores are checked."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .file_peers import FOLDER, UPLOAD, Mode
from .http_running import receive, take_head
from .running import HOST, START_TIMEOUT, CannotRun, RunningServer

SIZES = {"1k.bin": 1 << 10, "100k.bin": 100 << 10, "64m.bin": 64 << 20}
_MEMORY = "/dev/shm"
# The files, what a server stores, and the same once more, which nginx does not yet call by its name.
_SPACE = 4 * max(SIZES.values())


@dataclass(frozen=True, slots=True)
class Files:
    """What the servers serve and get: files of ``SIZES``, the same in every run.

    Attributes:
        folder: where they are.
        below: where the folders of the servers are made, in the same file system.
        digests: SHA-256 by name.
    """

    folder: Path
    below: str | None
    digests: dict[str, str]


@contextmanager
def made_files() -> Iterator[Files]:
    """Make the files, in memory where there is room: the disk is not what is measured."""
    below = None
    if os.path.isdir(_MEMORY) and os.access(_MEMORY, os.W_OK):
        found = os.statvfs(_MEMORY)
        below = _MEMORY if found.f_bavail * found.f_frsize >= _SPACE else None
    contents = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="asyncmg-bench-", dir=below) as folder:
        for name, size in SIZES.items():
            Path(folder, name).write_bytes(contents.randbytes(size))
        yield Files(Path(folder), below, {name: _digest(Path(folder, name)) for name in SIZES})


class FileServer(RunningServer):
    """A server of ``file_peers.py``.

    Args:
        name: as of every server.
        core: as of every server.
        files: what it serves.
        file: name of the one that is asked for, or uploaded.
        mode: of the program.
    """

    program = Path(__file__).with_name("file_peers.py")

    def __init__(self, name: str, core: int, files: Files, file: str, mode: Mode) -> None:
        super().__init__(name, core, mode, below=files.below)
        self.files = files
        self.file = file
        self.mode = mode
        self.stored = self.folder / UPLOAD
        self.stored.parent.mkdir()
        served = self.folder / FOLDER
        served.mkdir()
        for each in SIZES:
            os.link(files.folder / each, served / each)  # no copy: they are in one file system

    @property
    def path(self) -> str:
        """Of the requests."""
        return f"/{self.file}" if self.mode == "files" else f"/{UPLOAD}"

    def check(self) -> None:
        """Ask for the file, or upload it, and look at the reply: status, Date, Server, length, contents.

        Raises:
            CannotRun: something is not what it should be, or no reply comes.
        """
        try:
            with socket.create_connection((HOST, self.port), 5) as sock:
                sock.settimeout(START_TIMEOUT)
                if self.mode == "files":
                    self._check_download(sock)
                else:
                    self._check_upload(sock)
        except OSError as exc:
            raise CannotRun(f"no reply: {exc}") from exc

    def check_stored(self) -> None:
        """Raise CannotRun unless the file that was uploaded last is what was sent."""
        size = self.stored.stat().st_size if self.stored.exists() else -1
        if size != SIZES[self.file]:
            raise CannotRun(f"stored {size} bytes, was sent {SIZES[self.file]}" if size >= 0 else "stored nothing")
        if _digest(self.stored) != self.files.digests[self.file]:
            raise CannotRun("stored other contents than it was sent")

    def _check_download(self, sock: socket.socket) -> None:
        sock.sendall(f"GET {self.path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        fields, data = take_head(sock, b"", ("200",))
        size = SIZES[self.file]
        if fields.get("content-length") != str(size) or "content-encoding" in fields:
            raise CannotRun(f"replied with Content-Length {fields.get('content-length')}, expected {size}")
        digest, received = hashlib.sha256(data), len(data)
        while received < size:
            data = receive(sock)
            digest.update(data)
            received += len(data)
        if received > size:
            raise CannotRun(f"{received - size} bytes after the reply")
        if digest.hexdigest() != self.files.digests[self.file]:
            raise CannotRun(f"replied with other contents than those of {self.file}")

    def _check_upload(self, sock: socket.socket) -> None:
        self.stored.unlink(missing_ok=True)  # so that what is found is what was stored now
        size = SIZES[self.file]
        sock.sendall(f"PUT {self.path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {size}\r\n\r\n".encode())
        with open(self.files.folder / self.file, "rb") as file:
            sock.sendfile(file)
        take_head(sock, b"", ("200", "201", "204"))
        self.check_stored()


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
