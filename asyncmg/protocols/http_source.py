"""Content of a reply that is produced while it is being sent, no faster than the peer takes it.

A source gives its pieces to the :class:`ContentSink` that it is produced for: the one place that counts, encodes and
frames them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Protocol

from asyncmg.errors import AsyncmgError
from asyncmg.files.content import FileContent, OpenFile

_TURN_BUDGET = 256 << 10  # bytes per loop turn: then it is the others' turn
_PIECE_COST = 1 << 10  # bytes that a piece counts for, beside its own: many small ones take time as well
_FILE_PIECE = 64 << 10  # bytes read at once
_FILE_SEGMENT = 16 << 20  # bytes that a transport which sends files gets at once


Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


class ContentSink(Protocol):
    """Where a source's content goes."""

    def write_content(self, data: bytes | str) -> None:
        """Take one piece.

        Raises:
            LocalProtocolError: it is more than was announced.
            TypeError: it is not made of bytes.
        """

    @property
    def sends_files(self) -> bool:
        """Whether ``send_file`` may be called."""

    def send_file(self, file: OpenFile, offset: int, length: int) -> None:
        """Let the system send a part of a file, without reading it."""

    async def wait_for_room(self) -> None:
        """Wait while the peer is behind."""

    def end_content(self, error: Exception | None) -> None:
        """There is no more, or, with an error, there cannot be: only for sources that run by themselves."""


class ContentSource:
    """Produces content; this one has none, and stands where nothing is being produced."""

    __slots__ = ()

    def produce(self, sink: ContentSink) -> bool | None:
        """Give the pieces for one loop turn; return whether they were the last, None when it goes on by itself.

        Raises:
            Exception: whatever the content's origin raises.
        """
        return None

    def close(self) -> None:
        """Nobody wants the rest."""


NO_SOURCE = ContentSource()


class IteratorSource(ContentSource):
    """Content from an iterator of bytes or str; its ``close()``, when it has one, is called whatever happens."""

    __slots__ = ("_chunks",)

    def __init__(self, chunks: Iterator[bytes | str]) -> None:
        self._chunks = chunks

    def produce(self, sink: ContentSink) -> bool:
        taken = 0
        while taken < _TURN_BUDGET:
            try:
                piece = next(self._chunks)
            except StopIteration:
                return True
            sink.write_content(piece)
            taken += len(piece) + _PIECE_COST
        return False

    def close(self) -> None:
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()


class AsyncSource(ContentSource):
    """Content from an async iterator, taken by a task of its own that waits while the peer is behind.

    Cancelled, with the iterator's ``aclose()`` awaited, when the connection ends early.

    Args:
        chunks: the iterator.
        spawn: runs the task, and owns it.
    """

    __slots__ = ("_chunks", "_is_closed", "_spawn", "_task")

    def __init__(self, chunks: AsyncIterator[bytes | str], spawn: Spawn) -> None:
        self._chunks = chunks
        self._spawn = spawn
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def produce(self, sink: ContentSink) -> None:
        if self._task is None:
            self._task = self._spawn(self._run(sink), "asyncmg-content")

    async def _run(self, sink: ContentSink) -> None:
        error: Exception | None = None
        try:
            try:
                async for piece in self._chunks:
                    sink.write_content(piece)
                    await sink.wait_for_room()
            finally:
                await self._close_chunks()
        except asyncio.CancelledError as exc:
            if self._is_closed:
                raise
            # Not ours: of something that the iterator has awaited, or of somebody who ends all tasks.
            error = AsyncmgError("the content's iterator was cancelled")
            error.__cause__ = exc
        except Exception as exc:
            if self._is_closed:
                raise  # nobody waits for the content: who owns the task reports it
            error = exc
        sink.end_content(error)

    async def _close_chunks(self) -> None:
        aclose = getattr(self._chunks, "aclose", None)
        if aclose is not None:
            await aclose()

    def close(self) -> None:
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
        elif hasattr(self._chunks, "aclose"):
            self._spawn(self._close_chunks(), "asyncmg-content-close")


class FileSource(ContentSource):
    """Content from a file: sent by the system where the transport can let it, otherwise read in pieces."""

    __slots__ = ("_content",)

    def __init__(self, content: FileContent) -> None:
        self._content = content

    def produce(self, sink: ContentSink) -> bool:
        content = self._content
        limit = _FILE_SEGMENT if sink.sends_files else _FILE_PIECE
        taken = 0
        while taken < _TURN_BUDGET:
            segment = content.next_segment(limit)
            if segment is None:
                return True
            if isinstance(segment, bytes):
                sink.write_content(segment)
                taken += len(segment)
            elif sink.sends_files:
                assert content.file is not None
                sink.send_file(content.file, *segment)
                taken += segment[1]
            else:
                sink.write_content(content.read(*segment))
                taken += segment[1]
        return False

    def close(self) -> None:
        self._content.close()
