"""Messages from pieces (RFC 6455 section 5.4): a codec's records put together, decompressed and validated."""

from __future__ import annotations

import codecs

from asyncmg.errors import LimitExceeded

from .ws import CONTINUATION, END_OF_FRAME, FIN, INVALID_DATA, RSV1, TEXT, TOO_BIG, refuse
from .ws_deflate import MessageDeflate

_MAX_PIECES = 256  # small ones are joined now and then: an object for every byte would cost forty times its size
_new_decoder = codecs.getincrementaldecoder("utf-8")


class Assembly:
    """One message that comes in pieces, compressed or not.

    Args:
        first: flags of its first record.
        max_message: bytes of it when it is decompressed.
        deflate: None: it is not compressed.
        keeps: keep its pieces for :meth:`take`; otherwise they are handed out one by one.
    """

    __slots__ = ("_decoder", "_deflate", "_joined", "_keeps", "_max_message", "_opcode", "_pieces", "_size")

    def __init__(self, first: int, max_message: int, deflate: MessageDeflate | None, *, keeps: bool) -> None:
        self._opcode = first & 15
        self._max_message = max_message
        self._deflate = deflate if first & RSV1 else None
        # What is not compressed the codec has validated.
        self._decoder = _new_decoder() if self._deflate is not None and self._opcode == TEXT else None
        self._keeps = keeps
        self._pieces: list[bytes] = []
        self._joined = 0  # pieces at the beginning that have been joined from others
        self._size = 0

    def receive(self, flags: int, payload: bytes) -> bytes:
        """Take the payload of a record; return it, decompressed.

        Raises:
            LimitExceeded: 1009; RemoteProtocolError: 1007.
        """
        if self._deflate is not None:
            room = self._max_message - self._size
            try:
                payload = self._deflate.decompress(payload, room, is_last=bool(flags & FIN))
            except LimitExceeded as exc:
                raise LimitExceeded(
                    "decompressed message too large",
                    limit=f"max_message={self._max_message}",
                    actual=self._size + exc.actual,
                    wire_code=TOO_BIG,
                ) from None
            if self._decoder is not None:
                try:
                    self._decoder.decode(payload, bool(flags & FIN))
                except UnicodeDecodeError:
                    raise refuse("text is not UTF-8", "8.1", INVALID_DATA) from None
        self._size += len(payload)
        if self._keeps and payload:
            self._pieces.append(payload)
            if len(self._pieces) - self._joined >= _MAX_PIECES:
                self._pieces[self._joined :] = [b"".join(self._pieces[self._joined :])]
                self._joined += 1
        return payload

    def take(self) -> tuple[int, bytes]:
        """The last piece has been received: return flags and content of the whole message."""
        return FIN | self._opcode, b"".join(self._pieces)

    def piece_flags(self, flags: int) -> int:
        """Flags of a piece that is handed out: of the first one its opcode, then CONTINUATION; FIN of the last one."""
        opcode, self._opcode = self._opcode, CONTINUATION
        return opcode | flags & (FIN | END_OF_FRAME)
