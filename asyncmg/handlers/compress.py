"""Compression of replies that programs make (RFC 9110 sections 8.4 and 12.5.3). Files have compressed siblings."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Collection
from typing import Any

from asyncmg.connection import Connection, Handler
from asyncmg.fields import accepted_codings, list_items
from asyncmg.matching import Glob
from asyncmg.messages import HttpMessage
from asyncmg.protocols.http_filters import ReplyDraft

from .wrapping import add_filter, wrap

#: Media types that shrink; the wildcards are those of :func:`asyncmg.match`.
COMPRESSIBLE_TYPES = (
    "text/*",
    "application/json",
    "application/x-ndjson",
    "application/javascript",
    "application/xml",
    "application/wasm",
    "*/*+json",
    "*/*+xml",
)

_NEVER = frozenset({204, 206, 304})  # no content, or a part of one
_SPOILED = ("Content-Encoding", "Content-Digest", "Content-MD5", "Digest")  # what would not be true of it any more


def compress(
    handler: Handler, min_size: int = 512, level: int = 5, types: Collection[str] = COMPRESSIBLE_TYPES
) -> Handler:
    """Compress what a handler replies, if the client accepts it: gzip, or br where brotli or brotlicffi is installed.

    Whole bodies are compressed in one go, in the loop's thread. Each piece of a stream leaves at once, so that a stream
    of events stays one. ETags become weak. Files stay as they are, and so do replies that have a Content-Encoding or
    say ``no-transform``. Do not compress pages that hold a secret next to what an attacker can choose (BREACH).

    Args:
        handler: plain or async, ``handler(conn, ev, data)``.
        min_size: bytes from which on a whole body is compressed.
        level: 1 (fast) to 9 (small).
        types: media types, such as ``"text/*"``.

    Returns:
        a handler.

    Raises:
        TypeError: the handler is a session.
        ValueError: of the level.
    """
    if not 1 <= level <= 9:
        raise ValueError(f"level is 1 to 9, not {level}")
    listed = [types] if isinstance(types, str) else types
    compressor = _Compressor(min_size, level, [Glob.parse(pattern.lower()) for pattern in listed])

    def look(conn: Connection, ev: int, message: HttpMessage) -> bool:
        add_filter(conn, compressor)
        return True

    return wrap(handler, look)


class _GzipStream:
    """Encodes piece by piece."""

    __slots__ = ("_encoder",)

    def __init__(self, level: int) -> None:
        # 64 KiB instead of 256: there may be many streams, and they may last.
        self._encoder = zlib.compressobj(level, zlib.DEFLATED, 16 + 13, 6)

    def encode(self, data: bytes) -> bytes:
        return self._encoder.compress(data) + self._encoder.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._encoder.flush()


class _BrotliStream:
    """Encodes piece by piece."""

    __slots__ = ("_encoder",)

    def __init__(self, brotli: Any, level: int) -> None:
        self._encoder = brotli.Compressor(quality=level, lgwin=16)  # the default window takes megabytes

    def encode(self, data: bytes) -> bytes:
        return bytes(self._encoder.process(data) + self._encoder.flush())

    def finish(self) -> bytes:
        return bytes(self._encoder.finish())


class _Compressor:
    """The filter: decides, compresses, and says so in the headers."""

    __slots__ = ("_brotli", "_level", "_min_size", "_offered", "_types")

    def __init__(self, min_size: int, level: int, types: list[Glob]) -> None:
        self._min_size = min_size
        self._level = level
        self._types = types
        self._brotli = _find_brotli()
        # The one that we prefer, when the client has no preference, comes first.
        self._offered = ["gzip"] if self._brotli is None else ["br", "gzip"]

    def begin_reply(self, message: HttpMessage, draft: ReplyDraft) -> None:
        if draft.status == 304:
            _name_as_stored(message, draft)
        if not self._is_compressible(draft):
            return
        draft.add_vary("Accept-Encoding")
        if not draft.streams and len(draft.body) < self._min_size:
            return
        accepted = accepted_codings(_joined(message.headers(), "accept-encoding"), self._offered)
        if not accepted:
            return
        coding = accepted[0]
        if draft.streams:
            is_br = coding == "br"
            draft.encoder = _BrotliStream(self._brotli, self._level) if is_br else _GzipStream(self._level)
        else:
            body = self._compressed(draft.body, coding)
            if len(body) >= len(draft.body):
                return
            draft.body = body
        draft.set_header("Content-Encoding", coding)
        etag = draft.header("ETag")
        if etag is not None and not etag.startswith("W/"):
            draft.set_header("ETag", f"W/{etag}")  # other bytes, the same meaning (RFC 9110 section 8.8.1)

    def end_reply(self, message: HttpMessage, status: int, size: int, is_complete: bool) -> None:
        """Nothing to do."""

    def _is_compressible(self, draft: ReplyDraft) -> bool:
        if draft.is_file or draft.status in _NEVER or any(draft.header(name) is not None for name in _SPOILED):
            return False
        if "no-transform" in list_items(_joined(draft.headers, "cache-control").lower()):
            return False  # RFC 9111 section 5.2.2.6
        media_type = (draft.header("Content-Type") or "").partition(";")[0].strip().lower()
        return any(pattern.captures(media_type) is not None for pattern in self._types)

    def _compressed(self, body: bytes, coding: str) -> bytes:
        if coding == "br":
            return bytes(self._brotli.compress(body, quality=self._level))
        return zlib.compress(body, self._level, wbits=31)


def _name_as_stored(message: HttpMessage, draft: ReplyDraft) -> None:
    """Use the weak ETag in a 304 when that is what the client has: a strong one would be another's (RFC 9111 4.3.4)."""
    etag = draft.header("ETag")
    if etag is not None and f"W/{etag}" in _joined(message.headers(), "if-none-match"):
        draft.set_header("ETag", f"W/{etag}")
        draft.add_vary("Accept-Encoding")


def _joined(headers: list[tuple[str, str]], name: str) -> str:
    """Value of a field that may stand on several lines (RFC 9110 section 5.3)."""
    return ", ".join(value for key, value in headers if key.lower() == name)


def _find_brotli() -> Any:
    for name in ("brotli", "brotlicffi"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None
