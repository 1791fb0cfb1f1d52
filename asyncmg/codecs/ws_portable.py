"""The portable WebSocket codec (RFC 6455 section 5): a frame reader in Python alone.

Whole short messages, one behind the other, are read by a loop of their own; anything else a frame at a time. Kept
between two calls is an incomplete header, or an incomplete control frame with its header: at most 131 bytes, which are
read again with what comes next.
"""

from __future__ import annotations

from codecs import utf_8_decode
from collections.abc import Sequence
from typing import Final

from asyncmg.errors import ProtocolError, RemoteProtocolError
from asyncmg.limits import WsLimits

from .http import Role
from .ws import (
    BINARY,
    CLOSE,
    CONTINUATION,
    END_OF_FRAME,
    FIN,
    INVALID_DATA,
    MAX_CONTROL_PAYLOAD,
    PONG,
    RSV1,
    TEXT,
    WsRecord,
    check_close,
    max_frame,
    over_limit,
    refuse,
)

_CONTROL: Final = 8  # this bit of an opcode: a control frame
_NO_RECORDS: Final = ()

_Fault = tuple[str, str]  # what is told, and the section


def _fault(first: int, *, compressed: bool, in_message: bool) -> _Fault | None:
    """Tell what is wrong with the first byte of a frame."""
    opcode = first & 15
    begins = opcode in (TEXT, BINARY)
    if first & 0x30 or (first & RSV1 and not (compressed and begins)):
        return "reserved bit set", "5.2"
    if BINARY < opcode < CLOSE or opcode > PONG:
        return "reserved opcode", "5.2"
    if opcode & _CONTROL:
        return None if first & FIN else ("fragmented control frame", "5.5")
    if begins and in_message:
        return "new message inside a fragmented one", "5.4"
    if opcode == CONTINUATION and not in_message:
        return "continuation without a message", "5.4"
    return None


# By whether compression has been negotiated, whether a message is going on, and first byte.
_FAULTS: Final = tuple(
    tuple(
        tuple(_fault(first, compressed=compressed, in_message=in_message) for first in range(256))
        for in_message in (False, True)
    )
    for compressed in (False, True)
)

_BLOCK: Final = 2048  # payload that is unmasked as one number; the cost per byte of longer ones rises
_LARGE: Final = _BLOCK * 2


def unmask(payload: bytes, key: bytes) -> bytes:
    """Mask or unmask a payload (RFC 6455 section 5.3)."""
    size = len(payload)
    number = int.from_bytes
    if size <= _LARGE:
        return (number(payload, "big") ^ number((key * ((size + 3) >> 2))[:size], "big")).to_bytes(size, "big")
    mask = number(key * (_BLOCK >> 2), "big")
    rest = size % _BLOCK
    blocks = [
        (number(payload[place : place + _BLOCK], "big") ^ mask).to_bytes(_BLOCK, "big")
        for place in range(0, size - rest, _BLOCK)
    ]
    if rest:
        blocks.append(unmask(payload[-rest:], key))
    return b"".join(blocks)


class PortableWsCodec:
    """The contract is :class:`asyncmg.codecs.ws.WsCodec`."""

    __slots__ = (
        "_ends",
        "_faults",
        "_fragments",
        "_held",
        "_is_over",
        "_is_text",
        "_key",
        "_limits",
        "_mask_bit",
        "_opcode",
        "_remaining",
        "_short",
        "_size",
        "_states",
        "_tail",
        "error",
    )

    def __init__(self, role: Role, limits: WsLimits, compressed: bool) -> None:
        self.error: ProtocolError | None = None
        self._limits = limits
        self._mask_bit = FIN if role is Role.SERVER else 0  # of the frames that come in
        self._short = min(MAX_CONTROL_PAYLOAD, max_frame(limits), limits.max_message)
        self._states = _FAULTS[compressed]
        self._faults = self._states[False]  # what is wrong with a first byte now
        self._held = b""  # the beginning of a frame
        self._remaining = 0  # bytes of payload to come, of a data frame whose header has come
        self._key = b""  # for the next byte of it; empty when it is not masked
        self._ends = 0  # FIN or END_OF_FRAME: of its last piece
        self._opcode = 0  # of its next piece, with RSV1
        self._is_text = False  # the message is text that is not compressed
        self._tail = b""  # of the text: an incomplete character
        self._size = 0  # of the message's payload, as far as headers have told
        self._fragments = 0  # of the message
        self._is_over = False  # nothing more is read

    def mask(self, payload: bytes, key: bytes) -> bytes:
        return unmask(payload, key)

    def export(self) -> bytes:
        return b""

    def fail(self, number: int, value: int) -> None:
        raise AssertionError("no transport reads in place of this codec")

    def receive_data(self, data: bytes) -> Sequence[WsRecord]:
        if self._is_over:
            return _NO_RECORDS
        if self._held:
            data = self._held + data
            self._held = b""
        records: list[WsRecord] = []
        position = 0
        if self._remaining and data:
            position = self._read_payload(data, 0, records)
        while position < len(data) and not self._is_over:
            if self._faults is self._states[False]:
                position = self._read_messages(data, position, records)
                if position == len(data) or self._is_over:
                    break
            position = self._read_frame(data, position, records)
        return records

    def _fail(self, error: RemoteProtocolError) -> None:
        self.error = error
        self._is_over = True
        self._tail = b""

    def _read_messages(self, data: bytes, position: int, records: list[WsRecord]) -> int:
        """Read whole short messages of one frame, as many as there are; return how far that went."""
        size, short, mask_bit = len(data), self._short, self._mask_bit
        number, append = int.from_bytes, records.append
        to_payload = 6 if mask_bit else 2
        while (start := position + to_payload) <= size:
            first = data[position]
            length = data[position + 1] ^ mask_bit
            end = start + length
            if length > short or end > size or (first != 0x81 and first != 0x82):
                break
            payload = data[start:end]
            if mask_bit:
                mask = (data[start - 4 : start] * 32)[:length]
                payload = (number(payload, "big") ^ number(mask, "big")).to_bytes(length, "big")
            if first == 0x81 and not payload.isascii():
                try:
                    payload.decode()
                except UnicodeDecodeError:
                    self._fail(_not_utf8())
                    break
            append((first, payload))
            position = end
        return position

    def _read_frame(self, data: bytes, position: int, records: list[WsRecord]) -> int:
        """Read one frame as far as it has come, and keep its beginning if that is all there is of it."""
        size = len(data)
        first = data[position]
        fault = self._faults[first]
        if fault is not None:
            self._fail(refuse(*fault))
            return size
        start = position + 2
        if start > size:
            self._held = data[position:]
            return size
        length = data[position + 1] ^ self._mask_bit
        if length > 127:
            self._fail(
                refuse("unmasked frame from a client" if self._mask_bit else "masked frame from a server", "5.1")
            )
            return size
        if first & _CONTROL:
            return self._read_control(data, position, length, records)
        if length > MAX_CONTROL_PAYLOAD:
            width = 2 if length == 126 else 8
            start += width
            if start > size:
                self._held = data[position:]
                return size
            length = int.from_bytes(data[start - width : start], "big")
            if length >> 63:
                self._fail(refuse("length of more than 63 bits", "5.2"))
                return size
            if length < 126 or (width == 8 and length < 65536):
                self._fail(refuse("length not in its shortest form", "5.2"))
                return size
        if not self._is_within_limits(first, length):
            return size
        if self._mask_bit:
            start += 4
            if start > size:
                self._held = data[position:]
                return size
            self._key = data[start - 4 : start]
        self._begin_frame(first, length)
        return self._read_payload(data, start, records)

    def _is_within_limits(self, first: int, length: int) -> bool:
        """Hold the header of a data frame against the limits. Nothing is changed: it may be read again."""
        limits = self._limits
        before, fragments = (0, 1) if first & 15 else (self._size, self._fragments + 1)
        if fragments > limits.max_fragments:
            self._fail(over_limit("number of fragments", "max_fragments", limits.max_fragments, fragments))
        elif length > max_frame(limits):
            self._fail(over_limit("frame", "max_frame", max_frame(limits), length))
        elif before + length > limits.max_message:
            self._fail(over_limit("message", "max_message", limits.max_message, before + length))
        else:
            return True
        return False

    def _begin_frame(self, first: int, length: int) -> None:
        if first & 15:
            self._opcode = first & (RSV1 | 15)
            self._is_text = self._opcode == TEXT
            self._size, self._fragments = length, 1
        else:
            self._size += length
            self._fragments += 1
        self._faults = self._states[True]
        self._ends = FIN if first & FIN else END_OF_FRAME
        self._remaining = length

    def _read_payload(self, data: bytes, start: int, records: list[WsRecord]) -> int:
        """Read what there is of a data frame's payload; return how far that went."""
        end = min(start + self._remaining, len(data))
        payload = data[start:end]
        flags = self._opcode
        if self._remaining > len(payload):
            if not payload:
                return end
            self._remaining -= len(payload)
        else:
            self._remaining = 0
            flags |= self._ends
        if self._key:
            turn = len(payload) & 3
            payload = unmask(payload, self._key)
            self._key = self._key[turn:] + self._key[:turn] if self._remaining else b""
        if self._is_text and not self._is_utf8(payload, is_last=flags & FIN != 0):
            self._fail(_not_utf8())
            return len(data)
        self._opcode = CONTINUATION
        if flags & FIN:
            self._faults = self._states[False]
        records.append((flags, payload))
        return end

    def _is_utf8(self, payload: bytes, *, is_last: bool) -> bool:
        """Hold the next piece of a text against UTF-8, as far as its bytes tell."""
        if self._tail:
            payload = self._tail + payload
        elif payload.isascii():
            return True
        try:
            used = utf_8_decode(payload, "strict", is_last)[1]
        except UnicodeDecodeError:
            return False
        self._tail = tail = payload[used:]
        # Python waits for the third byte of a surrogate.
        return not (tail[:1] == b"\xed" and tail[1:] > b"\x9f")

    def _read_control(self, data: bytes, position: int, length: int, records: list[WsRecord]) -> int:
        if length > MAX_CONTROL_PAYLOAD:
            self._fail(refuse("control frame of more than 125 bytes", "5.5"))
            return len(data)
        start = position + (6 if self._mask_bit else 2)
        end = start + length
        if end > len(data):
            self._held = data[position:]
            return len(data)
        payload = data[start:end]
        if self._mask_bit:
            payload = unmask(payload, data[start - 4 : start])
        if data[position] & 15 == CLOSE:
            error = check_close(payload)
            if error is not None:
                self._fail(error)
                return len(data)
            self._is_over = True
        records.append((data[position], payload))
        return end


def _not_utf8() -> RemoteProtocolError:
    return refuse("text is not UTF-8", "8.1", INVALID_DATA)
