"""The WebSocket codecs that obey the contract in asyncmg/codecs/ws.py: every test of a codec runs on each of them.

``run`` feeds one and returns the frames that came out, in a form that does not depend on where the input was split.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from asyncmg.codecs.http import Role
from asyncmg.codecs.ws import (
    BINARY,
    CLOSE,
    CONTINUATION,
    END_OF_FRAME,
    FIN,
    INVALID_DATA,
    MAX_CONTROL_PAYLOAD,
    PING,
    PONG,
    RSV1,
    TEXT,
    WsCodec,
    WsCodecFactory,
    WsRecord,
)
from asyncmg.codecs.ws_native import NativeWsCodec
from asyncmg.codecs.ws_portable import PortableWsCodec
from asyncmg.codecs.ws_wsproto import WsprotoCodec
from asyncmg.core import status
from asyncmg.errors import RemoteProtocolError
from asyncmg.limits import WsLimits
from tests.codecs.codec_list import one_by_one as one_by_one
from tests.codecs.codec_list import split_at as split_at

WS_CODECS: dict[str, WsCodecFactory] = {"portable": PortableWsCodec, "wsproto": WsprotoCodec}
if status().available or os.environ.get("ASYNCMG_REQUIRE_CORE") == "1":
    WS_CODECS["native"] = NativeWsCodec

ENDS = FIN | END_OF_FRAME


class Frames:
    """Joins the pieces of each frame, and holds the records against what the contract says of their order."""

    def __init__(self) -> None:
        self.records: list[WsRecord] = []
        self._in_message = False
        self._in_frame = False

    def receive(self, records: Sequence[WsRecord]) -> None:
        for flags, payload in records:
            assert type(flags) is int
            assert type(payload) is bytes
            opcode = flags & 15
            if opcode in (CLOSE, PING, PONG):
                assert flags == FIN | opcode
                assert len(payload) <= MAX_CONTROL_PAYLOAD
                assert not self._in_frame, "a control frame inside another frame"
                self.records.append((flags, payload))
                continue
            assert flags & ~(FIN | RSV1 | END_OF_FRAME | 15) == 0
            assert flags & ENDS != ENDS
            assert payload or flags & ENDS, "an empty piece that ends nothing"
            if self._in_message:
                assert flags & (RSV1 | 15) == CONTINUATION
            else:
                assert opcode in (TEXT, BINARY)
            if self._in_frame:
                before, content = self.records.pop()
                self.records.append((before | flags, content + payload))
            else:
                self.records.append((flags, payload))
            self._in_message = not flags & FIN
            self._in_frame = not flags & ENDS

    def take(self, error: RemoteProtocolError | None) -> list[WsRecord]:
        """What there is of a frame whose text is invalid depends on how it came: it is left out."""
        if error is not None and error.wire_code == INVALID_DATA and self._in_frame:
            return self.records[:-1]
        return self.records


def feed(codec: WsCodec, pieces: Iterable[bytes]) -> tuple[list[WsRecord], RemoteProtocolError | None]:
    """Feed the pieces until there is an error; return the frames, and the error."""
    frames = Frames()
    for piece in pieces:
        frames.receive(codec.receive_data(piece))
        if codec.error is not None:
            break
    error = codec.error
    assert error is None or isinstance(error, RemoteProtocolError)
    return frames.take(error), error


def run(
    name: str, role: Role, pieces: Iterable[bytes], *, limits: WsLimits | None = None, compressed: bool = False
) -> tuple[list[WsRecord], int]:
    """Return the frames, and the close code of the error, 0 when there was none."""
    records, error = feed(WS_CODECS[name](role, limits or WsLimits(), compressed), pieces)
    return records, 0 if error is None else error.wire_code


def assert_reads_nothing(codec: WsCodec) -> None:
    """Behind an error or a close frame nothing comes, whatever is received."""
    error = codec.error
    for data in (b"", b"\x81\x00", b"\x81\x80\0\0\0\0", b"\xff" * 20, b"\x88\x00"):
        assert not codec.receive_data(data)
        assert codec.error is error
