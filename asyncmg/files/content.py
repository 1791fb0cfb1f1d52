"""The bytes of an open file, or of parts of it, in bounded pieces: never the whole file in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence

from asyncmg.errors import AsyncmgError

_AT_ONCE = 256 << 10  # bytes that leave in one piece
_TAIL = 64 << 10  # bytes that wait until the file has been looked at again

Segment = bytes | tuple[int, int]  # bytes as they are, or offset and length in the file


class FileChanged(AsyncmgError):
    """A file became shorter, or was written to, while it was being sent: the connection is the only way to tell."""


def _seek_and_read(fd: int, length: int, offset: int) -> bytes:
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, length)


_pread = getattr(os, "pread", _seek_and_read)  # Windows has none


class OpenFile:
    """A descriptor that is closed when nobody uses it any more: bytes of it may still be on their way."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class FileContent:
    """What is to be sent of a file; owns its descriptor from its creation on.

    Args:
        fd: of a regular file.
        info: what fstat() said about it when the reply was made up.
        segments: in order; by default the whole file.

    Attributes:
        file: the open file.
        length: bytes in all.
    """

    __slots__ = ("_info", "_next", "_segments", "file", "length")

    def __init__(self, fd: int, info: os.stat_result, segments: Sequence[Segment] | None = None) -> None:
        self.file: OpenFile | None = OpenFile(fd)
        self._info = info
        self._segments = [(0, info.st_size)] if segments is None else list(segments)
        self._next = 0
        self.length = sum(len(part) if isinstance(part, bytes) else part[1] for part in self._segments)

    def next_segment(self, limit: int) -> Segment | None:
        """Return what is to be sent next: bytes, or offset and length (at most ``limit``) in the file; None at the end.

        Of what does not leave at once the last part is looked after: it goes out only if the file is still the same.

        Raises:
            FileChanged: it is not.
        """
        while self._next < len(self._segments):
            segment = self._segments[self._next]
            is_last = self._next == len(self._segments) - 1
            if isinstance(segment, bytes):
                if is_last:
                    self._check()
                self._next += 1
                return segment
            offset, length = segment
            if is_last and _AT_ONCE < length <= limit:
                limit = length - _TAIL
            if length > limit:
                self._segments[self._next] = (offset + limit, length - limit)
                return offset, limit
            if is_last:
                self._check()
            self._next += 1
            if length:
                return offset, length
        return None

    def read(self, offset: int, length: int) -> bytes:
        """Read a segment.

        Raises:
            FileChanged: the file ends before it.
            OSError: the system cannot read it.
        """
        assert self.file is not None
        data = _pread(self.file.fd, length, offset)
        while len(data) < length:
            more = _pread(self.file.fd, length - len(data), offset + len(data))
            if not more:
                raise FileChanged("the file became shorter while it was being sent")
            data += more
        return data

    def read_whole(self) -> bytes:
        """Read all of a small file.

        Raises:
            FileChanged: it was written to meanwhile.
            OSError: the system cannot read it.
        """
        data = self.read(0, self.length)
        self._check()
        return data

    def _check(self) -> None:
        """Nothing was written over what has been sent: a file that only grew is still what was announced."""
        assert self.file is not None
        now, then = os.fstat(self.file.fd), self._info
        if now.st_size < then.st_size or (now.st_size == then.st_size and now.st_mtime_ns != then.st_mtime_ns):
            raise FileChanged("the file was changed while it was being sent")

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        self.file = None
