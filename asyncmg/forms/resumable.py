"""Uploads by offset, as the upload helper of Mongoose has them: a file grows piece by piece, one request for each.

A client sends a piece with its offset, which must be the size that the file has; 0 begins anew. When a connection
breaks, what has arrived stays: the client asks for the size and goes on from there.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import AsyncIterator
from pathlib import Path

from asyncmg.errors import LimitExceeded, RemoteProtocolError

from .events import close_chunks
from .uploads import StrPath, safe_filename

_OFFSET = re.compile(r"[0-9]{1,18}")

# A link is not followed, and a FIFO not waited for; where the system has no such flags, fstat() alone decides.
_FLAGS = (
    os.O_WRONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)


class OffsetMismatch(RemoteProtocolError):
    """A piece does not begin where the file ends.

    Attributes:
        size: of the file: the offset to go on from.
    """

    def __init__(self, size: int) -> None:
        super().__init__(f"offset mismatch: the file has {size} bytes", wire_code=400)
        self.size = size


def store_piece(folder: StrPath, name: str, offset: int | str, data: bytes, max_size: int, *, mode: int = 0o600) -> int:
    """Append a piece to a file, or begin it anew.

    Args:
        folder: an existing one.
        name: of the file, as the client says it: one plain component, which :func:`safe_filename` would not change.
        offset: where the piece belongs, an int or decimal digits; 0 makes the file, and empties one that is there.
        data: the piece; it may be empty.
        max_size: of the file, in bytes.
        mode: permissions of a new file.

    Returns:
        the new size of the file.

    Raises:
        OffsetMismatch: the size of the file is not ``offset``; it is 0 when there is none (wire_code 400).
        RemoteProtocolError: ``name`` or ``offset`` are malformed, or ``name`` is no regular file (400).
        LimitExceeded: the file would be larger than ``max_size`` (413); it is as it was.
        OSError: the system cannot write it.
    """
    position = _offset(offset)
    _check_size(position + len(data), max_size)
    fd = _open(folder, name, position, mode)
    try:
        return _append(fd, position, data)
    finally:
        os.close(fd)


async def store_stream(
    folder: StrPath, name: str, offset: int | str, chunks: AsyncIterator[bytes], max_size: int, *, mode: int = 0o600
) -> int:
    """Append to a file what comes in, or begin it anew.

    What has been written stays when this ends early, be it by an error, a peer that has gone away, or cancelling: that
    is what the client goes on from. When two do this to one file, the one that finds that the file has another size
    than it has given it ends with OffsetMismatch.

    Args:
        folder, name, offset, max_size, mode: as in :func:`store_piece`.
        chunks: the content in pieces of any size; when it raises, so does this.

    Returns:
        the new size of the file.

    Raises:
        as :func:`store_piece`; of a piece that would be too much nothing is written.
    """
    try:
        position = _offset(offset)
        _check_size(position, max_size)
        fd = _open(folder, name, position, mode)
        try:
            async for data in chunks:
                _check_size(position + len(data), max_size)
                position = _append(fd, position, data)
            return position
        finally:
            os.close(fd)
    finally:
        await close_chunks(chunks)


def stored_size(folder: StrPath, name: str) -> int:
    """Return how much of a file is there: what a client that goes on asks for. 0 when there is no such file.

    Raises:
        RemoteProtocolError: ``name`` is malformed, or no regular file (wire_code 400).
    """
    _check_name(name)
    try:
        info = os.lstat(Path(folder) / name)
    except FileNotFoundError:
        return 0
    if not stat.S_ISREG(info.st_mode):
        raise _invalid(name)
    return info.st_size


def _offset(offset: int | str) -> int:
    if isinstance(offset, str):
        if not _OFFSET.fullmatch(offset):
            raise RemoteProtocolError("invalid offset", wire_code=400)
        return int(offset)
    if offset < 0:
        raise RemoteProtocolError("invalid offset", wire_code=400)
    return offset


def _check_name(name: str) -> None:
    if not name:
        raise RemoteProtocolError("file required", wire_code=400)
    if name != safe_filename(name):
        raise _invalid(name)


def _check_size(size: int, max_size: int) -> None:
    if size > max_size:
        raise LimitExceeded("the file is too large", limit=f"max_size={max_size}", actual=size, wire_code=413)


def _invalid(name: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"invalid file {ascii(name)[:100]}", wire_code=400)


def _open(folder: StrPath, name: str, offset: int, mode: int) -> int:
    """Open the file for writing at ``offset``, emptied when that is 0; return its descriptor."""
    _check_name(name)
    path = Path(folder) / name
    # Not O_TRUNC: nothing is lost before it is known what this is.
    flags = _FLAGS | (0 if offset else os.O_CREAT)
    try:
        fd = os.open(path, flags, mode)
    except FileNotFoundError as exc:
        if offset and Path(folder).is_dir():
            raise OffsetMismatch(0) from exc
        raise
    except OSError as exc:
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            raise _invalid(name) from exc  # a link, a folder, a FIFO that nobody reads
        raise
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise _invalid(name)
        if not offset:
            os.ftruncate(fd, 0)
        elif info.st_size != offset:
            raise OffsetMismatch(info.st_size)
        return fd
    except BaseException:
        os.close(fd)
        raise


def _append(fd: int, position: int, data: bytes) -> int:
    """Write at the end of the file, which must be at ``position``; return where the end is then."""
    size = os.fstat(fd).st_size
    if size != position:
        raise OffsetMismatch(size)
    os.lseek(fd, position, os.SEEK_SET)
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
    return position + len(data)
