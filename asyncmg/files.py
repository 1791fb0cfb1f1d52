"""Files as HTTP replies: which file a path means, its type, its validators (RFC 9110 sections 8.8 and 13)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from email.utils import formatdate, parsedate_to_datetime
from mimetypes import guess_type
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from .messages import HttpMessage

_PIECE = 64 << 10
_TEXT_TYPES = frozenset({"application/javascript", "application/json", "application/xml", "image/svg+xml"})
# What the system's table may lack or get wrong, and a browser needs right.
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".md": "text/markdown"}


class FileReply:
    """What to reply: a short body, or the pieces of a file."""

    __slots__ = ("body", "chunks", "header_lines", "length", "status")

    def __init__(
        self,
        status: int,
        body: str = "",
        header_lines: str = "",
        chunks: Iterator[bytes] | None = None,
        length: int = 0,
    ) -> None:
        self.status = status
        self.body = body
        self.header_lines = header_lines
        self.chunks = chunks
        self.length = length


def _not_found() -> FileReply:
    return FileReply(404, "404 Not Found\n")


def map_path(message: HttpMessage, root_dir: str | os.PathLike[str]) -> Path | FileReply:
    """Map a request's path to a path under the root; a FileReply when the path may not be served.

    Decoded once. Refused: NUL, a backslash, ``..``, and whatever a symbolic link leads out of the root.
    """
    path = message.path
    if "\x00" in path or "\\" in path:
        return FileReply(400, "400 Bad Request\n")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        return FileReply(400, "400 Bad Request\n")
    try:
        root = Path(root_dir).resolve(strict=True)
        target = root.joinpath(*parts).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return _not_found()
    if not target.is_relative_to(root):
        return _not_found()
    if target.is_dir():
        if not path.endswith("/"):
            query = f"?{message.query}" if message.query else ""
            location = "/" + quote("/".join(parts), errors="surrogateescape") + "/" + query
            return FileReply(301, "", f"Location: {location}\r\n")
        try:
            target = (target / "index.html").resolve(strict=True)
        except (OSError, RuntimeError):
            return _not_found()
        return target if target.is_relative_to(root) else _not_found()
    return target if not path.endswith("/") else _not_found()


def content_type_of(path: Path, mime_types: str = "") -> str:
    """Content-Type of a file by its name; text gets a charset."""
    suffix = path.suffix.lower()
    for pair in mime_types.split(","):
        extension, equals, given = pair.strip().partition("=")
        if equals and "." + extension.lower().lstrip(".") == suffix:
            return given
    found = _TYPES.get(suffix) or guess_type(path.name)[0] or "application/octet-stream"
    return f"{found}; charset=utf-8" if found.startswith("text/") or found in _TEXT_TYPES else found


def file_reply(
    message: HttpMessage, path: str | os.PathLike[str], mime_types: str = "", *, status: int = 200
) -> FileReply:
    """Prepare the reply to GET or HEAD for a file: 200, 304, 404 or 405."""
    if message.method not in ("GET", "HEAD"):
        return FileReply(405, "405 Method Not Allowed\n", "Allow: GET, HEAD\r\n")
    path = Path(path)
    try:
        # O_NONBLOCK: opening a FIFO must not wait for its writer.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(path, flags), "rb")
    except (OSError, ValueError):
        return _not_found()
    info = os.fstat(file.fileno())
    if not stat.S_ISREG(info.st_mode):
        file.close()
        return _not_found()
    etag = f'"{info.st_mtime_ns:x}-{info.st_size:x}"'
    lines = f"ETag: {etag}\r\nLast-Modified: {formatdate(int(info.st_mtime), usegmt=True)}\r\n"
    if status == 200 and _is_unchanged(message, etag, int(info.st_mtime)):
        file.close()
        return FileReply(304, "", lines)
    lines += f"Content-Type: {content_type_of(path, mime_types)}\r\n"
    return FileReply(status, "", lines, FilePieces(file, info.st_size), info.st_size)


def _is_unchanged(message: HttpMessage, etag: str, modified: int) -> bool:
    """RFC 9110 section 13.2.2: If-None-Match decides alone when it is there."""
    wanted = message.header("If-None-Match")
    if wanted is not None:
        return wanted.strip() == "*" or etag in [item.strip().removeprefix("W/") for item in wanted.split(",")]
    since = message.header("If-Modified-Since")
    if since is None:
        return False
    try:
        return modified <= parsedate_to_datetime(since).timestamp()
    except (OverflowError, TypeError, ValueError):
        return False


class FilePieces:
    """The bytes of an open file in bounded pieces; owns the file from its creation on."""

    __slots__ = ("_file", "_left")

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size  # a file that grows meanwhile is sent as it was announced

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data = self._file.read(min(_PIECE, self._left))
        if not data:
            self._file.close()
            raise StopIteration
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()
