"""Small files that are asked for again and again: replies kept for the second that their Date names.

The same bytes of a request mean the same reply, as long as the file on the disk is the same: that is looked at each
time. What else could change the answer (another index, a pre-compressed file that has come) is seen a second later.
"""

from __future__ import annotations

import os
from time import time

from asyncmg.codecs.http import header_pairs
from asyncmg.files.content import FileChanged
from asyncmg.files.reply import FileReply

from .http_reply import NO_REQUEST, ReplyFraming, frame_reply

_MAX_FILE = 128 << 10  # bytes of a file that is small
_MAX_SIZE = 2 << 20  # bytes kept in all
_MAX_REQUEST = 2 << 10  # bytes of a request that is remembered

Key = tuple[object, str, bytes]  # the folder, further headers, the request


class _SmallReply:
    __slots__ = ("head_length", "path", "piece", "signature")

    def __init__(self, path: str, info: os.stat_result, head: bytes, content: bytes) -> None:
        self.path = path
        self.signature = _signature(info)
        self.head_length = len(head)
        self.piece = head + content


def _signature(info: os.stat_result) -> tuple[int, int, int, int, int]:
    return info.st_mtime_ns, info.st_size, info.st_ino, info.st_ctime_ns, info.st_dev


class SmallReplies:
    """Replies of the current second."""

    __slots__ = ("_end", "_replies", "_size")

    def __init__(self) -> None:
        self._end = 0.0
        self._size = 0
        self._replies: dict[Key, _SmallReply] = {}

    def find(self, key: Key) -> tuple[bytes, int] | None:
        """Return the reply's bytes and how many of them are its head; None when it must be made anew."""
        kept = self._replies.get(key)
        if kept is None or not self._end - 1.0 <= time() < self._end:
            return None
        try:
            info = os.stat(kept.path)
        except OSError:
            return None
        return (kept.piece, kept.head_length) if _signature(info) == kept.signature else None

    def keep(self, key: Key, reply: FileReply, extra_headers: str) -> tuple[bytes, int] | None:
        """Frame the reply to a request that takes a plain one, and keep it; None: it is nothing for us."""
        content, info = reply.content, reply.info
        if content is None or info is None or content.length > _MAX_FILE or len(key[2]) > _MAX_REQUEST:
            return None
        now = time()
        if not self._end - 1.0 <= now < self._end:
            self._replies.clear()
            self._size = 0
            self._end = int(now) + 1.0
        try:
            data = content.read_whole()
        except (OSError, FileChanged):
            return None  # the long way tells the peer
        headers = [*reply.headers, *header_pairs(extra_headers)]
        framed = frame_reply(NO_REQUEST, reply.status, data, headers, closes=False)
        if framed.closes or framed.framing is not ReplyFraming.WHOLE:
            return None
        kept = _SmallReply(reply.path, info, framed.head, data)
        self._size += len(kept.piece) + len(key[2])
        if self._size <= _MAX_SIZE:
            self._replies[key] = kept
        return kept.piece, kept.head_length


#: Of the process: it holds for every connection.
SMALL_REPLIES = SmallReplies()
