"""Read tests/vectors/ws_frames.txt, which describes its format at its top."""

from __future__ import annotations

import random
import re
import zlib
from dataclasses import dataclass, field

from asyncmg.codecs.http import Role
from asyncmg.codecs.ws import BINARY, CLOSE, CONTINUATION, END_OF_FRAME, FIN, PING, PONG, RSV1, TEXT, WsRecord
from asyncmg.limits import WsLimits
from tests.codecs.vector_file import VECTORS, unescape

OPCODES = {"continuation": CONTINUATION, "text": TEXT, "binary": BINARY, "close": CLOSE, "ping": PING, "pong": PONG}


def encode_frame(first: int, payload: bytes, key: bytes, *, form: int = 0, length: int | None = None) -> bytes:
    """Encode any frame, however wrong, in a way that owes nothing to asyncmg.

    Args:
        key: empty: the frame is not masked.
        form: bits of the length: 8, 16 or 64; 0: the shortest form.
        length: what the header says; default: the truth.
    """
    size = len(payload) if length is None else length
    mask_bit = 128 if key else 0
    form = form or (8 if size < 126 else 16 if size < 65536 else 64)
    header = bytes([first, mask_bit | (size if form == 8 else 126 if form == 16 else 127)])
    if form > 8:
        header += size.to_bytes(form // 8, "big")
    if not key:
        return header + payload
    masked = bytearray(payload)
    for place in range(4):
        table = bytes(byte ^ key[place] for byte in range(256))
        masked[place::4] = masked[place::4].translate(table)
    return header + key + bytes(masked)


@dataclass
class WsVector:
    name: str = ""
    ref: str = ""
    roles: tuple[Role, ...] = tuple(Role)
    deflate: bool = False
    limits: WsLimits = field(default_factory=WsLimits)
    frames: list[tuple[str, bytes]] = field(default_factory=list)  # options and content; of bytes as they are: "in"
    records: list[WsRecord] = field(default_factory=list)
    error: int = 0
    wsproto: str = ""

    def data(self, role: Role) -> bytes:
        """Encode the input for a codec of this role."""
        chance = random.Random(zlib.crc32(self.name.encode()))
        out = []
        for options, content in self.frames:
            key = chance.randbytes(4)
            if options == "in":
                out.append(content)
                continue
            masked, form, length = role is Role.SERVER, 0, None
            for option in options.split("/")[1:]:
                if option in ("masked", "unmasked"):
                    masked = option == "masked"
                elif option.startswith("length="):
                    length = int(option.removeprefix("length="))
                else:
                    form = int(option)
            out.append(encode_frame(content[0], content[1:], key if masked else b"", form=form, length=length))
        return b"".join(out)


def _flags_of(words: list[str]) -> int:
    flags = OPCODES[words[0]]
    assert set(words[1:]) <= {"more", "part", "rsv1"}, words
    if "rsv1" in words:
        flags |= RSV1
    if "part" in words:
        return flags
    return flags | (END_OF_FRAME if "more" in words else FIN)


def _read_stanza(lines: list[str]) -> WsVector:
    vector = WsVector()
    for line in lines:
        key, colon, value = line.partition(":")
        assert colon, line
        value = value.removeprefix(" ")
        key, _, times = key.partition("*")
        if key in ("name", "ref", "wsproto"):
            setattr(vector, key, value)
        elif key == "role":
            vector.roles = (Role(value),)
        elif key == "deflate":
            vector.deflate = value == "yes"
        elif key == "limits":
            pairs = (item.split("=") for item in value.split())
            vector.limits = WsLimits(**{name: int(number) for name, number in pairs})
        elif key == "in":
            vector.frames.append(("in", unescape(value)))
        elif re.match("frame(/|$)", key):
            first, _, payload = value.partition(" ")
            frame = (key, bytes([int(first, 16)]) + unescape(payload))
            vector.frames += [frame] * int(times or 1)
        elif key == "error":
            vector.error = int(value)
        else:
            vector.records += [(_flags_of(key.split()), unescape(value))] * int(times or 1)
    assert vector.name and vector.ref and vector.frames, lines
    return vector


def read_ws_vectors() -> list[WsVector]:
    text = (VECTORS / "ws_frames.txt").read_text(encoding="ascii")
    stanzas = [
        [line for line in stanza.split("\n") if line and not line.startswith("#")] for stanza in text.split("\n\n")
    ]
    vectors = [_read_stanza(lines) for lines in stanzas if lines]
    assert len({vector.name for vector in vectors}) == len(vectors), "names are unique"
    return vectors
