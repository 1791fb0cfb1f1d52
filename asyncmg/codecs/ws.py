"""WebSocket frames (RFC 6455 section 5): the contract of the codecs, and how both roles frame what they send.

A codec reads one side of a connection that has been upgraded. ``receive_data`` takes bytes as they come and returns the
pieces of frames in them, as far as they go: nothing is kept back but an incomplete frame header and the payload of an
incomplete control frame. Putting pieces together is done in :mod:`.ws_messages`, for all codecs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from asyncmg.errors import LimitExceeded, ProtocolError, RemoteProtocolError
from asyncmg.limits import WsLimits

from .http import Role

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

# Flags of a record and of a frame that is sent, beside its opcode.
FIN: Final = 0x80  # the message is complete
RSV1: Final = 0x40  # the message is compressed (RFC 7692 section 6): on its first piece
END_OF_FRAME: Final = 0x20  # records only: a frame, but not its message, ends with this piece

#: Flags and payload. A control frame is one record: FIN | opcode. A message is one or more: the first has opcode TEXT
#: or BINARY, further ones CONTINUATION, the last one FIN. A whole message in one piece is FIN | TEXT or FIN | BINARY.
#: Pieces are not empty unless they end a frame. (In the first record of a message no piece has gone before, even when
#: the frame's payload is still to come.)
WsRecord = tuple[int, bytes]

# Close codes (RFC 6455 section 7.4.1 and the registry it created).
NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
NO_STATUS: Final = 1005  # never on the wire: the close frame has no code
ABNORMAL: Final = 1006  # never on the wire: there was no close frame
INVALID_DATA: Final = 1007
POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011
TRY_AGAIN_LATER: Final = 1013

MAX_CONTROL_PAYLOAD: Final = 125  # RFC 6455 section 5.5


class WsCodec(Protocol):
    """What WsProtocol needs from a codec; one object reads one direction of one connection.

    Attributes:
        error: None until the peer has broken the RFC or a limit; ``wire_code`` is the close code for it. Final: the
            records before it have been returned, and nothing more is read. Likewise nothing is read behind a close
            frame.
    """

    error: ProtocolError | None

    def receive_data(self, data: bytes) -> Sequence[WsRecord]:
        """Read what has come in.

        The codec holds frames against RFC 6455: masking by role (section 5.1), reserved bits and opcodes (5.2; RSV1
        only where compression has been negotiated, on the first frame of a message), lengths in their shortest form,
        control frames of at most 125 bytes in one piece (5.5), order of fragments (5.4), close codes and reasons
        (5.5.1, 7.4); and text that is not compressed against UTF-8 (8.1), as early as an invalid byte comes in.

        Limits: ``max_frame``, ``max_message`` (the payloads of its frames together; as soon as a frame's header tells
        it) and ``max_fragments``.
        """

    def mask(self, payload: bytes, key: bytes) -> bytes:
        """Mask a payload (RFC 6455 section 5.3) with a key of four bytes."""

    def export(self) -> bytes:
        """Return what a transport that reads frames needs to go on in the codec's place; b"": none can, or there is no
        need to any more.
        """

    def fail(self, number: int, value: int) -> None:
        """Set ``error`` to what such a transport has found: AMG_WS_E_ of the C core, and what went over a limit."""


#: Makes a codec: role (which side *we* are), limits, and whether compression has been negotiated.
WsCodecFactory = Callable[[Role, WsLimits, bool], WsCodec]


# -- refusals: every codec says the same -----------------------------------------------------------------------------


def refuse(message: str, section: str, code: int = PROTOCOL_ERROR) -> RemoteProtocolError:
    return RemoteProtocolError(message, wire_code=code, section=f"RFC 6455 section {section}")


def over_limit(what: str, name: str, value: int, actual: int) -> LimitExceeded:
    """``max_frame`` and ``max_message`` are close code 1009, ``max_fragments`` is 1008."""
    code = POLICY_VIOLATION if name == "max_fragments" else TOO_BIG
    return LimitExceeded(f"{what} too large", limit=f"{name}={value}", actual=actual, wire_code=code)


def max_frame(limits: WsLimits) -> int:
    """The limit of one frame: ``max_frame``, or ``max_message`` where that is 0."""
    return limits.max_frame or limits.max_message


def is_valid_close_code(code: int) -> bool:
    """Whether a close frame may carry this code (RFC 6455 section 7.4)."""
    return 3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in (1004, NO_STATUS, ABNORMAL))


def check_close(payload: bytes) -> RemoteProtocolError | None:
    """Hold a close frame's payload against RFC 6455 section 5.5.1; return what is wrong with it."""
    if not payload:
        return None
    if len(payload) == 1:
        return refuse("close frame with half a code", "5.5.1")
    code = payload[0] << 8 | payload[1]
    if not is_valid_close_code(code):
        return refuse(f"invalid close code {code}", "7.4")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return refuse("close reason is not UTF-8", "5.5.1", INVALID_DATA)
    return None


# -- sending ---------------------------------------------------------------------------------------------------------

_LENGTH_16 = struct.Struct(">BBH").pack
_LENGTH_64 = struct.Struct(">BBQ").pack

#: Headers of unmasked frames of up to 125 bytes, by flags and opcode, then by length.
SHORT_HEADERS: Final = {
    flags: tuple(bytes((flags, length)) for length in range(126))
    for flags in (FIN | TEXT, FIN | BINARY, FIN | CLOSE, FIN | PING, FIN | PONG)
}


def frame_header(flags: int, length: int, key: bytes = b"") -> bytes:
    """Encode a frame's header, with the masking-key when there is one (a client's frames have one)."""
    mask = 0x80 if key else 0
    if length < 126:
        return bytes((flags, mask | length)) + key
    if length < 65536:
        return _LENGTH_16(flags, mask | 126, length) + key
    return _LENGTH_64(flags, mask | 127, length) + key


def close_payload(code: int, reason: str = "") -> bytes:
    """Encode the payload of a close frame.

    Raises:
        ValueError: a code that may not be sent, a reason of more than 123 bytes, or one without a code.
    """
    if code == NO_STATUS and not reason:
        return b""
    if not is_valid_close_code(code):
        raise ValueError(f"not a close code that can be sent: {code}")
    encoded = reason.encode()
    if len(encoded) > MAX_CONTROL_PAYLOAD - 2:
        raise ValueError(f"a close reason has at most 123 bytes, this one {len(encoded)}")
    return code.to_bytes(2, "big") + encoded
