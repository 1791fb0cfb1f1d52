"""application/x-www-form-urlencoded (WHATWG URL section 5), as it comes in."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from asyncmg.errors import LimitExceeded, ProtocolError
from asyncmg.limits import FormLimits
from asyncmg.queries import decode_text

from .events import PART_END, FormEvent, PartBegin


class UrlencodedParser:
    """Take an urlencoded form apart as it comes in, without I/O; it is used as MultipartParser.

    Every pair is a part: PartBegin, its value decoded as bytes (unless it is empty), PartEnd. Nothing is malformed, as
    in browsers; see :func:`asyncmg.queries.query_pairs`. It holds one pair at most.

    The iteration raises LimitExceeded (wire_code 400 or 413, as in FormLimits), which is final. The sizes of fields are
    counted as they are sent; empty pairs count as pairs.

    Args:
        limits: of the form.

    Attributes:
        is_complete: :meth:`receive_end` has been called, and was right.
    """

    __slots__ = (
        "_buffer",
        "_count",
        "_error",
        "_fields_size",
        "_is_over",
        "_limits",
        "_scanned",
        "_total",
        "is_complete",
    )

    def __init__(self, limits: FormLimits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._scanned = 0  # no "&" in front of it
        self._count = 0
        self._fields_size = 0
        self._total = 0
        self._is_over = False
        self._error: ProtocolError | None = None
        self.is_complete = False

    def receive_data(self, data: bytes) -> None:
        """Take in a piece of any size. Nothing is parsed before the iteration."""
        room = self._limits.max_total - self._total
        self._total += len(data)
        if len(data) > room:
            self._is_over = True  # told when what was allowed has been handled
            data = data[: max(room, 0)]
        self._buffer += data

    def receive_end(self) -> None:
        """Tell that no data follows: the last pair is complete, and the next iteration returns it."""
        if self._error is not None:
            raise self._error
        self.is_complete = True

    def __iter__(self) -> Iterator[FormEvent]:
        if self._error is not None:
            raise self._error
        try:
            yield from self._events()
            if self._is_over:
                raise self._over("the form", "max_total", self._total)
        except ProtocolError as exc:
            self._error = exc
            self._buffer.clear()
            raise

    def _events(self) -> Iterator[FormEvent]:
        while (piece := self._next_piece()) is not None:
            if not piece:
                continue
            name, _, value = piece.partition(b"=")
            yield PartBegin(decode_text(name))
            if value:
                yield unquote_to_bytes(value.replace(b"+", b" "))
            yield PART_END

    def _next_piece(self) -> bytes | None:
        """Return the next pair as it was sent; None: more data is needed."""
        end = self._buffer.find(b"&", self._scanned)
        is_last = end < 0 and self.is_complete and bool(self._buffer)
        size = end if end >= 0 else len(self._buffer)
        left = self._limits.max_fields_size - self._fields_size
        if size > min(self._limits.max_field, left):  # the smaller one, which comes first however the data is split
            if self._limits.max_field <= left:
                raise self._over("a field", "max_field", size)
            raise self._over("all fields together", "max_fields_size", self._fields_size + size)
        if end < 0 and not is_last:
            self._scanned = size
            return None
        self._count += 1
        if self._count > self._limits.max_parts:
            raise self._over("the number of fields", "max_parts", self._count, 400)
        piece = bytes(self._buffer[:size])
        del self._buffer[: size + 1]
        self._scanned = 0
        self._fields_size += size
        return piece

    def _over(self, what: str, limit: str, actual: int, wire_code: int = 413) -> LimitExceeded:
        value = getattr(self._limits, limit)
        return LimitExceeded(f"{what} is too large", limit=f"{limit}={value}", actual=actual, wire_code=wire_code)
