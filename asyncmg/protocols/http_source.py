"""Content of a reply that is produced while it is being sent, no faster than the peer takes it."""

from __future__ import annotations

from collections.abc import Iterator

from asyncmg.errors import LocalProtocolError

_TURN_BUDGET = 256 << 10  # bytes per loop turn: then it is the others' turn


class ContentSource:
    """An iterator of bytes with a length to keep to.

    Args:
        chunks: the content; its ``close()``, when it has one, is called at the end whatever happens.
        length: bytes in all, None when not known.
    """

    __slots__ = ("_chunks", "_left")

    def __init__(self, chunks: Iterator[bytes], length: int | None) -> None:
        self._chunks = chunks
        self._left = length

    def take(self) -> tuple[list[bytes], bool]:
        """Return the pieces for one loop turn, and whether they were the last.

        Raises:
            LocalProtocolError: more or less content than announced.
            Exception: whatever the iterator raises.
        """
        pieces: list[bytes] = []
        taken = 0
        while taken < _TURN_BUDGET:
            piece = next(self._chunks, None)
            if piece is None:
                if self._left:
                    raise LocalProtocolError(f"content ended {self._left} bytes before its announced length")
                return pieces, True
            if not isinstance(piece, bytes | bytearray | memoryview):
                raise TypeError(f"content is made of bytes, not {type(piece).__name__}")
            if not piece:
                continue
            taken += len(piece)
            if self._left is not None:
                self._left -= len(piece)
                if self._left < 0:
                    raise LocalProtocolError("more content than its announced length")
            pieces.append(piece)
        return pieces, False

    def close(self) -> None:
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()


class NoSource(ContentSource):
    """Stands where no content is being produced."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(iter(()), None)


NO_SOURCE = NoSource()
