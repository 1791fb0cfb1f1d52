"""The sending side of a WebSocket connection: frames, masks, compression, and what waits for a peer that is behind."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from asyncmg.codecs.ws import CLOSE, CONTINUATION, FIN, PONG, RSV1, SHORT_HEADERS, frame_header
from asyncmg.codecs.ws_deflate import MessageDeflate
from asyncmg.errors import LocalProtocolError

from .output import Output

_KEYS = 256  # bytes of randomness taken at a time for masking-keys


class SlowPolicy(StrEnum):
    """What a broadcast does about a connection whose queue is full."""

    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"
    CLOSE = "close"  # with close code 1013


_NOBODY: Final[deque[bytes]] = deque()  # of connections that hold nothing back; never changed


class WsSender:
    """Frames what is sent on one connection.

    Args:
        output: where frames go.
        mask: how a client masks; None: a server's frames are not masked.
        deflate: None: nothing is compressed.
        max_held: broadcast frames held for a peer that does not take its output.

    Attributes:
        dropped: broadcast messages that this peer did not get.
    """

    __slots__ = (
        "_deflate",
        "_held",
        "_in_message",
        "_keys",
        "_mask",
        "_max_held",
        "_max_plain",
        "_output",
        "_pong",
        "dropped",
    )

    def __init__(
        self,
        output: Output,
        mask: Callable[[bytes, bytes], bytes] | None,
        deflate: MessageDeflate | None,
        max_held: int,
    ) -> None:
        self._output = output
        self._mask = mask
        self._deflate = deflate
        # Frames with less payload than this are a header from a table, and the payload as it is.
        self._max_plain = 0 if mask is not None else min(126, deflate.threshold if deflate is not None else 126)
        self._max_held = max_held
        self._held = _NOBODY
        self._keys = b""
        self._pong: bytes | None = None  # owed to a peer that does not take its output
        self._in_message = False  # fragments of a message have been sent, but not the last one
        self.dropped = 0

    def send(self, flags: int, payload: bytes) -> None:
        """Send a frame that is a whole message, or a control frame."""
        if not flags & 8:  # control frames overtake everything
            if self._in_message:
                raise LocalProtocolError("a fragmented message is being sent")
            if self._held:
                self.release(everything=True)  # what was broadcast before goes before
        output = self._output
        length = len(payload)
        if length < self._max_plain:
            frame = SHORT_HEADERS[flags][length] + payload
        else:
            if self._deflate is not None and length >= self._deflate.threshold and not flags & 8:
                payload = self._deflate.compress(payload)
                flags |= RSV1
            if self._mask is None:  # header and payload apart: they are joined only where that is cheaper
                header = frame_header(flags, len(payload))
                output.pieces.append(header)
                output.size += len(header)
                frame = payload
            else:
                frame = self.frame(flags, payload)
        output.pieces.append(frame)
        output.size += len(frame)
        if not output.in_turn:
            output.flush_soon()

    def send_fragment(self, payload: bytes, opcode: int, *, is_last: bool) -> None:
        """Send a fragment of a message: compressed when long messages are, because its length is not known."""
        flags = CONTINUATION if self._in_message else opcode
        if self._deflate is not None:
            if not self._in_message:
                flags |= RSV1
            payload = self._deflate.compress(payload, is_last=is_last)
        if self._held and not self._in_message:
            self.release(everything=True)
        self._in_message = not is_last
        self._output.write(self.frame(flags | (FIN if is_last else 0), payload))
        if is_last and self._held:
            self.release()

    def frame(self, flags: int, payload: bytes) -> bytes:
        """Frame a payload, masked when we are a client."""
        if self._mask is None:
            return frame_header(flags, len(payload)) + payload
        if not self._keys:
            self._keys = os.urandom(_KEYS)
        key, self._keys = self._keys[:4], self._keys[4:]
        return frame_header(flags, len(payload), key) + self._mask(payload, key)

    def send_pong(self, payload: bytes) -> None:
        """Answer a ping; a peer that is behind gets the answer to the last one (RFC 6455 section 5.5.3)."""
        if self._output.is_paused:
            self._pong = payload
        else:
            self.send(FIN | PONG, payload)

    def send_close(self, payload: bytes) -> None:
        """Send a close frame, behind everything else; of a message that was begun the rest will not come."""
        self._pong = None
        if self._in_message:  # nothing but the close frame may follow
            self.dropped += len(self._held)
            self._held = _NOBODY
            self._in_message = False
        elif self._held:
            self.release(everything=True)
        self.send(FIN | CLOSE, payload)

    # -- broadcast -----------------------------------------------------------------------------------------------

    @property
    def is_free(self) -> bool:
        """A frame could leave at once: nothing is held back, and no message is half sent."""
        return not (self._held or self._in_message or self._output.is_paused)

    def publish(self, frame: bytes, policy: SlowPolicy) -> bool:
        """Send a frame that was made for many; hold it back while the peer does not take its output.

        Returns:
            False: the queue is full and the policy is CLOSE.
        """
        if self.is_free:
            self._output.write(frame)
            return True
        if self._held is _NOBODY:
            self._held = deque()
        if len(self._held) >= self._max_held:
            if policy is SlowPolicy.CLOSE:
                return False
            self.dropped += 1
            if policy is SlowPolicy.DROP_NEWEST:
                return True
            self._held.popleft()
        self._held.append(frame)
        return True

    def release(self, *, everything: bool = False) -> None:
        """Send what was held back, as far as there is room."""
        output = self._output
        if self._pong is not None and not output.is_paused:
            pong, self._pong = self._pong, None
            self.send(FIN | PONG, pong)
        held = self._held
        while held and (everything or not (self._in_message or output.is_paused)):
            output.write(held.popleft())
            if not everything and output.size >= output.high_water:
                output.flush()
        if not held:
            self._held = _NOBODY
