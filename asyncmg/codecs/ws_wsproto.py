"""WebSocket frames (RFC 6455 section 5) read by wsproto's frame layer: selectable, and the oracle for the other codecs.

Of wsproto only the frame layer is used (FrameProtocol): its connection above would inflate without a limit, and a
control frame between two fragments of a compressed message goes through its decompressor. What it leaves out, an
extension object of ours does: limits, the order of fragments before any payload has come, surrogates before their last
byte has, close code 1014, and RSV1, which it claims for compressed messages, whose payload is passed on as it is. Where
this codec still differs from the others:

* a header is judged when the length in it is complete, a limit with the first byte of payload, later than need be;
* a character that is cut by the end of a piece, or of a frame, is told with the next one;
* the messages of errors are wsproto's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from wsproto.extensions import Extension
from wsproto.frame_protocol import (
    CloseReason,
    Frame,
    FrameDecoder,
    FrameProtocol,
    Opcode,
    ParseFailed,
    RsvBits,
    XorMaskerSimple,
)

from asyncmg.errors import ProtocolError, RemoteProtocolError
from asyncmg.limits import WsLimits

from .http import Role
from .ws import (
    CLOSE,
    CONTINUATION,
    END_OF_FRAME,
    FIN,
    INVALID_DATA,
    NO_STATUS,
    RSV1,
    TEXT,
    WsRecord,
    max_frame,
    over_limit,
    refuse,
)

_BAD_GATEWAY = 1014  # a close code that was registered later: wsproto does not know it
_NO_RSV = RsvBits(False, False, False)
_RSV1 = RsvBits(True, False, False)
_SURROGATE = re.compile(b"\xed[\xa0-\xbf]")  # Python's decoder waits for its third byte


class _Watcher(Extension):
    """What wsproto asks about each header and payload."""

    name = "watcher"

    def __init__(self, limits: WsLimits, compressed: bool) -> None:
        self.error: RemoteProtocolError | None = None
        self.flags = 0  # of the message: opcode and RSV1; 0 between messages
        self.close_code = 0  # of the close frame that has come, when wsproto was told another one
        self._limits = limits
        self._compressed = compressed
        self._opcode = Opcode.CONTINUATION  # of the current frame
        self._length = 0  # of it; of a control frame 0
        self._size = 0
        self._fragments = 0
        self._is_at_start = False  # no payload of the frame has come
        self._last = b""  # byte of the message

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return False

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        # An incomplete header is shown again.
        self._opcode = opcode
        self._is_at_start = True
        if opcode.iscontrol():
            return _NO_RSV
        if (opcode is Opcode.CONTINUATION) != bool(self.flags):
            what = "new message inside a fragmented one" if self.flags else "continuation without a message"
            self.error = refuse(what, "5.4")
            return CloseReason.PROTOCOL_ERROR
        self._length = payload_length
        return _RSV1 if rsv.rsv1 and self._compressed and not self.flags else _NO_RSV

    def begin_frame(self, has_rsv1: bool) -> CloseReason | None:
        """A data frame's header is complete and in order."""
        limits = self._limits
        if not self.flags:
            self.flags = int(self._opcode) | (RSV1 if has_rsv1 else 0)
            self._size = self._fragments = 0
            self._last = b""
        self._fragments += 1
        self._size += self._length
        if self._fragments > limits.max_fragments:
            self.error = over_limit("number of fragments", "max_fragments", limits.max_fragments, self._fragments)
            return CloseReason.POLICY_VIOLATION
        if self._length > max_frame(limits):
            self.error = over_limit("frame", "max_frame", max_frame(limits), self._length)
            return CloseReason.MESSAGE_TOO_BIG
        if self._size > limits.max_message:
            self.error = over_limit("message", "max_message", limits.max_message, self._size)
            return CloseReason.MESSAGE_TOO_BIG
        return None

    def frame_inbound_payload_data(self, proto: FrameDecoder | FrameProtocol, data: bytes) -> bytes | CloseReason:
        if self._opcode is Opcode.CLOSE and data[:2] == _BAD_GATEWAY.to_bytes(2, "big"):
            self.close_code = _BAD_GATEWAY
            return CloseReason.NORMAL_CLOSURE.to_bytes(2, "big") + data[2:]
        if self._opcode.iscontrol():
            return data
        if self._is_at_start:
            self._is_at_start = False
            assert isinstance(proto, FrameDecoder)
            assert proto.header is not None
            refusal = self.begin_frame(proto.header.rsv.rsv1)
            if refusal is not None:
                return refusal
        if self.flags == TEXT:
            if _SURROGATE.search(self._last + data):
                self.error = refuse("text is not UTF-8", "8.1", INVALID_DATA)
                return CloseReason.INVALID_FRAME_PAYLOAD_DATA
            self._last = data[-1:] or self._last
        if self.flags == RSV1 | TEXT:
            # wsproto takes it for text.
            return data.decode("latin-1").encode()
        return data


class WsprotoCodec:
    """The contract is :class:`asyncmg.codecs.ws.WsCodec`."""

    __slots__ = ("_is_first", "_is_over", "_protocol", "_watcher", "error")

    def __init__(self, role: Role, limits: WsLimits, compressed: bool) -> None:
        self.error: ProtocolError | None = None
        self._watcher = _Watcher(limits, compressed)
        self._protocol = FrameProtocol(role is Role.CLIENT, [self._watcher])
        self._is_first = True  # the next piece is the first one of its message
        self._is_over = False  # nothing more is read

    def mask(self, payload: bytes, key: bytes) -> bytes:
        return bytes(XorMaskerSimple(key).process(bytearray(payload)))

    def export(self) -> bytes:
        return b""

    def fail(self, number: int, value: int) -> None:
        raise AssertionError("no transport reads in place of this codec")

    def receive_data(self, data: bytes) -> Sequence[WsRecord]:
        records: list[WsRecord] = []
        if self._is_over:
            return records
        self._protocol.receive_bytes(data)
        try:
            for frame in self._protocol.received_frames():
                if frame.opcode.iscontrol():
                    records.append(self._take_control(frame))
                else:
                    self._take_data(frame, records)
        except ParseFailed as failed:
            error = self._watcher.error
            if error is None:
                error = RemoteProtocolError(f"wsproto: {failed}", wire_code=int(failed.code), section="RFC 6455")
            error.__cause__ = failed
            self.error = error
            self._is_over = True
        return records

    def _take_control(self, frame: Frame) -> WsRecord:
        payload = frame.payload
        if frame.opcode is not Opcode.CLOSE:
            assert isinstance(payload, bytes)
            return FIN | int(frame.opcode), payload
        self._is_over = True
        assert isinstance(payload, tuple)
        code, reason = payload
        if code == NO_STATUS:
            return FIN | CLOSE, b""
        return FIN | CLOSE, (self._watcher.close_code or int(code)).to_bytes(2, "big") + reason.encode()

    def _take_data(self, frame: Frame, records: list[WsRecord]) -> None:
        payload = frame.payload
        flags = self._watcher.flags
        if isinstance(payload, str):
            payload = payload.encode("latin-1" if flags & RSV1 else "utf-8")
        assert isinstance(payload, bytes)
        if not (payload or frame.frame_finished):
            return  # a part of a character: wsproto keeps it
        if not self._is_first:
            flags = CONTINUATION
        self._is_first = False
        if frame.message_finished:
            flags |= FIN
            self._is_first = True
            self._watcher.flags = 0
        elif frame.frame_finished:
            flags |= END_OF_FRAME
        records.append((flags, payload))
