"""permessage-deflate (RFC 7692): what two peers agree on, and the compressed content of messages, never beyond a bound.

The zlib of the standard library does the work, for all codecs: a codec's records are compressed pieces of messages.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from asyncmg.errors import LimitExceeded, RemoteProtocolError

from .ws import INVALID_DATA, POLICY_VIOLATION, TOO_BIG

NAME: Final = "permessage-deflate"

_TAIL = b"\x00\x00\xff\xff"  # RFC 7692 section 7.2.1: left out on the wire
_MAX_BITS = 15
_MAX_FINALS = 16  # final blocks in one message: each of them costs a decompressor, and takes two bytes of input


@dataclass(frozen=True, slots=True)
class Deflate:
    """How WebSocket messages may be compressed. The defaults are frugal: some 24 KiB a connection and direction.

    Args:
        window_bits: 9 to 15: our compressor remembers 2**window_bits bytes of what it has sent.
        peer_window_bits: 9 to 15: what the peer's compressor is asked to be content with.
        context_takeover: our compressor remembers across messages: better compression, memory held while idle.
        peer_context_takeover: likewise the peer's.
        level: 1 (fast) to 9 (small).
        memory_level: 1 to 9: of our compressor.
        threshold: bytes below which a message is sent as it is.
    """

    window_bits: int = 12
    peer_window_bits: int = 12
    context_takeover: bool = True
    peer_context_takeover: bool = True
    level: int = 6
    memory_level: int = 5
    threshold: int = 64

    def __post_init__(self) -> None:
        for name in ("window_bits", "peer_window_bits"):
            if not 9 <= getattr(self, name) <= _MAX_BITS:
                raise ValueError(f"Deflate.{name} must be 9 to 15, not {getattr(self, name)!r}")
        for name in ("level", "memory_level"):
            if not 1 <= getattr(self, name) <= 9:
                raise ValueError(f"Deflate.{name} must be 1 to 9, not {getattr(self, name)!r}")
        if self.threshold < 0:
            raise ValueError(f"Deflate.threshold must not be negative: {self.threshold!r}")

    # -- negotiation (section 7.1) -----------------------------------------------------------------------------------

    def offer(self) -> str:
        """What a client puts into Sec-WebSocket-Extensions."""
        parts = [NAME]
        if not self.peer_context_takeover:
            parts.append("server_no_context_takeover")
        if not self.context_takeover:
            parts.append("client_no_context_takeover")
        if self.peer_window_bits < _MAX_BITS:
            parts.append(f"server_max_window_bits={self.peer_window_bits}")
        parts.append("client_max_window_bits" + (f"={self.window_bits}" if self.window_bits < _MAX_BITS else ""))
        return "; ".join(parts)

    def accept(self, offers: Iterable[tuple[str, list[tuple[str, str | None]]]]) -> tuple[str, MessageDeflate] | None:
        """Choose among a client's offers, as a server.

        Returns:
            what the server puts into Sec-WebSocket-Extensions, and what is agreed; None: no offer can be accepted.
        """
        for name, parameters in offers:
            given = _given(parameters) if name == NAME else None
            if given is None:
                continue
            our_bits = min(self.window_bits, int(given.get("server_max_window_bits") or _MAX_BITS))
            if our_bits < 9:
                continue  # zlib cannot compress with a window of 256 bytes
            answer = [NAME]
            our_takeover = self.context_takeover and "server_no_context_takeover" not in given
            if not our_takeover:
                answer.append("server_no_context_takeover")
            peer_takeover = self.peer_context_takeover and "client_no_context_takeover" not in given
            if not peer_takeover:
                answer.append("client_no_context_takeover")
            if our_bits < _MAX_BITS or "server_max_window_bits" in given:  # section 7.1.2.1: it has to be told
                answer.append(f"server_max_window_bits={our_bits}")
            peer_bits = _MAX_BITS
            if "client_max_window_bits" in given:  # otherwise the client does not know the parameter
                peer_bits = min(self.peer_window_bits, int(given["client_max_window_bits"] or _MAX_BITS))
                if peer_bits < _MAX_BITS:
                    answer.append(f"client_max_window_bits={peer_bits}")
            return "; ".join(answer), MessageDeflate(self, our_bits, our_takeover, peer_bits, peer_takeover)
        return None

    def agree(self, name: str, parameters: list[tuple[str, str | None]]) -> MessageDeflate | None:
        """Hold a server's answer against our offer, as a client; None: it is not one that we can live with."""
        given = _given(parameters) if name == NAME else None
        if given is None:
            return None
        our_bits, peer_bits = self.window_bits, _MAX_BITS
        if "client_max_window_bits" in given:
            our_bits = min(our_bits, int(given["client_max_window_bits"] or 0))
        if "server_max_window_bits" in given:
            peer_bits = int(given["server_max_window_bits"] or 0)
            if peer_bits > self.peer_window_bits:
                return None
        # A server that does not answer our wish keeps its whole window: many do, and it costs us memory only.
        if our_bits < 9:
            return None
        peer_takeover = "server_no_context_takeover" not in given
        if peer_takeover and not self.peer_context_takeover:
            return None
        our_takeover = self.context_takeover and "client_no_context_takeover" not in given
        return MessageDeflate(self, our_bits, our_takeover, peer_bits, peer_takeover)


_FLAGS = frozenset({"server_no_context_takeover", "client_no_context_takeover"})
_BITS = frozenset({"server_max_window_bits", "client_max_window_bits"})


def _given(parameters: list[tuple[str, str | None]]) -> dict[str, str | None] | None:
    """Return the parameters by name; None when one is unknown, repeated, or has a value that it cannot have."""
    given: dict[str, str | None] = {}
    for name, value in parameters:
        if name in given:
            return None
        if name in _FLAGS:
            if value is not None:
                return None
        elif name in _BITS:
            if value is None:
                if name != "client_max_window_bits":
                    return None
            elif not (value.isascii() and value.isdigit() and value[0] != "0" and 8 <= int(value) <= _MAX_BITS):
                return None
        else:
            return None
        given[name] = value
    return given


# -- content -----------------------------------------------------------------------------------------------------------


class MessageDeflate:
    """Compresses and decompresses the messages of one connection, as agreed.

    Attributes:
        threshold: messages shorter than this are not worth compressing.
    """

    __slots__ = (
        "_compressor",
        "_decompressor",
        "_finals",
        "_level",
        "_memory_level",
        "_our_bits",
        "_our_takeover",
        "_peer_bits",
        "_peer_takeover",
        "threshold",
    )

    def __init__(
        self, options: Deflate, our_bits: int, our_takeover: bool, peer_bits: int, peer_takeover: bool
    ) -> None:
        self.threshold = max(1, options.threshold)  # an empty message has nothing to compress
        self._level = options.level
        self._memory_level = options.memory_level
        self._our_bits = our_bits
        self._our_takeover = our_takeover
        self._peer_bits = peer_bits
        self._peer_takeover = peer_takeover
        # Made when they are needed: most connections of a chat never send a long message.
        self._compressor: zlib._Compress | None = None
        self._decompressor: zlib._Decompress | None = None
        self._finals = 0  # final blocks in the message that is being decompressed

    def compress(self, payload: bytes, *, is_last: bool = True) -> bytes:
        """Compress a message, or a fragment of one (section 7.2.1)."""
        compressor = self._compressor
        if compressor is None:
            compressor = self._compressor = zlib.compressobj(
                self._level, zlib.DEFLATED, -self._our_bits, self._memory_level
            )
        data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
        if not is_last:
            return data
        if not self._our_takeover:
            self._compressor = None
        # A flush that had nothing to flush has written nothing: RFC 7692 section 7.2.3.6 has an empty block for that.
        return data[:-4] if data.endswith(_TAIL) else data + b"\x00"

    def decompress(self, piece: bytes, room: int, *, is_last: bool) -> bytes:
        """Decompress a piece of a message (section 7.2.2).

        Args:
            room: bytes that may come out.
            is_last: the message ends with this piece.

        Raises:
            LimitExceeded: more than room would come out; its ``actual`` is not what would have.
            RemoteProtocolError: this is not compressed data.
        """
        out = b""
        for data in (piece, _TAIL) if is_last else (piece,):
            while data:
                if self._decompressor is None:
                    self._decompressor = zlib.decompressobj(-self._peer_bits)
                try:
                    out += self._decompressor.decompress(data, room + 1 - len(out))
                except zlib.error as exc:
                    raise RemoteProtocolError(
                        f"compressed message: {exc}", wire_code=INVALID_DATA, section="RFC 7692 section 7.2.2"
                    ) from exc
                if len(out) > room:
                    raise LimitExceeded("message too large", limit="max_message", actual=len(out), wire_code=TOO_BIG)
                # Behind a final block (section 7.2.3.4) the rest is a stream of its own.
                data = self._decompressor.unused_data if self._decompressor.eof else b""
                if self._decompressor.eof:
                    self._decompressor = None
                    self._finals += 1
                    if self._finals > _MAX_FINALS:
                        raise RemoteProtocolError(
                            f"more than {_MAX_FINALS} final blocks in a compressed message",
                            wire_code=POLICY_VIOLATION,
                            section="RFC 7692 section 7.2.3.4",
                        )
        if is_last:
            self._finals = 0
        if is_last and not self._peer_takeover:
            self._decompressor = None
        return out
