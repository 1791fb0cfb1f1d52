"""The native, the portable and the wsproto codec for WebSocket: the same input has the same outcome.

    python tests/fuzz/fuzz_ws_differential.py --inputs 1000000 --seed 1

Inputs are the vectors and generated frames, spliced and damaged, cut anywhere. Native and portable have to agree after
each piece: the records, the words of an error. wsproto has to agree about the frames in the end, and about the close
code of an error; it may tell one later (see asyncmg/codecs/ws_wsproto.py), but no more than LATE bytes.
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import time
from codecs import utf_8_decode
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[2]))

from asyncmg.codecs.http import Role
from asyncmg.codecs.ws import BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RSV1, TEXT, WsCodec, WsRecord
from asyncmg.codecs.ws_native import NativeWsCodec
from asyncmg.codecs.ws_portable import PortableWsCodec
from asyncmg.codecs.ws_wsproto import WsprotoCodec
from asyncmg.limits import WsLimits
from tests.codecs.ws_codec_list import ENDS, Frames, one_by_one, split_at
from tests.codecs.ws_vector_file import encode_frame, read_ws_vectors

LATE = 16  # a whole header, and one byte of payload
MAX_INPUT = 3000  # longer vectors are left to the tests that read vectors

VECTORS = [
    (role, vector.data(role)) for vector in read_ws_vectors() for role in vector.roles if len(vector.data(role)) < 600
]
CORPUS = {role: [data for its_role, data in VECTORS if its_role is role] for role in Role}
TIGHT = WsLimits(max_frame=130, max_message=300, max_fragments=4)
TINY = WsLimits(max_message=12, max_fragments=2)

CHARACTERS = ["a", "hello ", "\0", "\x7f", "\x80", "\u00e4", "\u07ff", "\u0800", "\u20ac", "\ud7ff", "\ue000", "\uffff"]
CHARACTERS += ["\U00010000", "\U0001f600", "\U0010ffff", "0123456789" * 3]
INVALID = [
    b"\x80",
    b"\xbf",
    b"\xc0\x80",
    b"\xc1\xbf",
    b"\xe0\x9f\xbf",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf0\x8f\xbf",
]
INVALID += [
    b"\xf4\x90\x80\x80",
    b"\xf5",
    b"\xff",
    b"\xc3",
    b"\xe2\x82",
    b"\xf0\x9f\x98",
    b"\xe1\x80a",
    b"\xf1\x80\x80a",
]
CODES = [1000, 1001, 1003, 1004, 1005, 1006, 1007, 1011, 1013, 1014, 1015, 1016, 999, 0, 2999, 3000, 4999, 5000, 65535]


def make_text(chance: random.Random) -> bytes:
    text = "".join(chance.choice(CHARACTERS) for _ in range(chance.choice([0, 1, 1, 2, 3, 8, 40]))).encode()
    if chance.random() < 0.12:
        place = chance.randrange(len(text) + 1)
        text = text[:place] + chance.choice(INVALID) + text[place:]
    return text


def make_payload(chance: random.Random) -> bytes:
    kind = chance.random()
    if kind < 0.5:
        return make_text(chance)
    if kind < 0.9:
        return chance.randbytes(chance.choice([0, 1, 2, 3, 4, 5, 8, 13, 60]))
    return chance.randbytes(chance.choice([124, 125, 126, 127, 128, 129, 130, 131, 300, 301]))


def make_control(chance: random.Random) -> tuple[int, bytes]:
    opcode = chance.choice([PING, PING, PONG, PONG, PONG, CLOSE])
    if opcode != CLOSE:
        return opcode, make_payload(chance)[: chance.choice([125, 125, 125, 125, 130])]
    if chance.random() < 0.2:
        return opcode, chance.choice([b"", b"", b"\x03"])
    reason = make_text(chance)[:123] if chance.random() < 0.5 else b""
    return opcode, chance.choice(CODES).to_bytes(2, "big") + reason


def make_frames(chance: random.Random, role: Role, compressed: bool) -> bytes:
    """Frames that are mostly in order."""
    out = []
    rest = b""  # of the payload of the message that goes on
    in_message = False
    for _ in range(chance.choice([1, 1, 2, 3, 4, 6])):
        if chance.random() < 0.25:
            opcode, payload = make_control(chance)
            first = FIN | opcode
        elif in_message:
            cut = chance.randrange(len(rest) + 1)
            is_last = chance.random() < 0.4
            payload, rest = (rest, b"") if is_last else (rest[:cut], rest[cut:])
            first = CONTINUATION | (FIN if is_last else 0)
            in_message = not is_last
        else:
            first = chance.choice([TEXT, TEXT, BINARY])
            payload = make_text(chance) if first == TEXT and chance.random() < 0.8 else make_payload(chance)
            if compressed and chance.random() < 0.5:
                first |= RSV1
            in_message = chance.random() < 0.5
            if in_message:
                cut = chance.randrange(len(payload) + 1)
                payload, rest = payload[:cut], payload[cut:]
            else:
                first |= FIN
        key = chance.choice([chance.randbytes(4), b"\0\0\0\0"]) if role is Role.SERVER else b""
        form, length = 0, None
        if chance.random() < 0.06:
            fault = chance.randrange(5)
            if fault == 0:
                first ^= chance.choice([0x10, 0x20, 0x40, 0x80, 0x01, 0x02, 0x04, 0x08])
            elif fault == 1:
                key = b"" if key else b"\1\2\3\4"
            elif fault == 2:
                form = chance.choice([16, 64])
            elif fault == 3:
                form, length = 64, chance.choice([2**63, 2**63 - 1, 2**64 - 1, 65536, 2**20, 2**20 + 1])
            else:
                length = min(len(payload) + chance.choice([1, 2, 7]), 65535)
        out.append(encode_frame(first, payload, key, form=form, length=length))
    return b"".join(out)


class Case:
    """One input, and how it is fed."""

    def __init__(self, chance: random.Random) -> None:
        self.role = chance.choice([Role.SERVER, Role.SERVER, Role.CLIENT])
        self.compressed = chance.random() < 0.3
        self.limits = chance.choice([WsLimits(), WsLimits(), WsLimits(), TIGHT, TINY])
        data = make_frames(chance, self.role, self.compressed)
        if chance.random() < 0.15:
            data += chance.choice(CORPUS[self.role])
        if chance.random() < 0.1:
            other = chance.choice(CORPUS[self.role])
            data = data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]
        if data and chance.random() < 0.1:
            place = chance.randrange(len(data))
            data = data[:place] + chance.randbytes(chance.choice([0, 1, 1, 2])) + data[place + 1 :]
        if chance.random() < 0.1:
            data = data[: chance.randrange(len(data) + 1)]
        data = data[:MAX_INPUT]
        kind = chance.random()
        if kind < 0.4:
            self.pieces = [data]
        elif kind < 0.5 and len(data) < 600:
            self.pieces = one_by_one(data)
        else:
            self.pieces = split_at(data, [chance.randrange(len(data) + 1) for _ in range(chance.randrange(1, 6))])

    def make(self, kind: type[NativeWsCodec] | type[PortableWsCodec] | type[WsprotoCodec]) -> WsCodec:
        return kind(self.role, self.limits, self.compressed)

    def __str__(self) -> str:
        limits = f"{self.limits.max_frame} {self.limits.max_message} {self.limits.max_fragments}"
        return f"{self.role} compressed={self.compressed} limits={limits} {[piece.hex(' ') for piece in self.pieces]}"


def describe(codec: WsCodec, pieces: Sequence[bytes]) -> list[tuple[list[WsRecord], str]]:
    """Everything about a codec that can be seen from outside, piece by piece."""
    seen = []
    for piece in pieces:
        records = [*codec.receive_data(piece)]
        seen.append((records, "" if codec.error is None else f"{codec.error.wire_code} {codec.error!r}"))
    return seen


def by_characters(frames: Sequence[WsRecord], error: int) -> list[WsRecord]:
    """Frames of texts as wsproto tells them: a character that is cut belongs to the frame where it ends."""
    out: list[WsRecord] = []
    is_text, tail = False, b""
    for flags, payload in frames:
        opcode = flags & 15
        if opcode < CLOSE:
            if opcode:
                is_text, tail = flags & (RSV1 | 15) == TEXT, b""
            if is_text and not flags & FIN:
                payload = tail + payload
                used = utf_8_decode(payload, "strict", False)[1]
                payload, tail = payload[:used], payload[used:]
            elif is_text:
                payload, tail = tail + payload, b""
            if not (payload or flags & ENDS):
                continue
        out.append((flags, payload))
    return out


def compare_wsproto(case: Case, records: list[WsRecord], error: int) -> str:
    """Tell what wsproto does not agree about, "" when it does."""
    codec = case.make(WsprotoCodec)
    frames = Frames()
    for piece in case.pieces:
        frames.receive(codec.receive_data(piece))
    theirs = 0 if codec.error is None else codec.error.wire_code
    seen = frames.take(codec.error)  # type: ignore[arg-type]
    if error and not theirs:
        # Where exactly did ours tell it?
        exact = case.make(PortableWsCodec)
        data = b"".join(case.pieces)
        place = next(i for i in range(len(data)) if exact.receive_data(data[i : i + 1]) is None or exact.error)
        if len(data) - place > LATE:
            return f"wsproto has no error, portable {error} at {place}"
        if seen and not seen[-1][0] & ENDS and error == 1007:
            seen = seen[:-1]
    elif error != theirs:
        return f"wsproto {theirs} {codec.error}, portable {error}"
    expected = by_characters(records, error)
    return "" if seen == expected else f"wsproto {seen}, portable {expected}"


def difference(case: Case, seen: collections.Counter[str]) -> str:
    """What the codecs do not agree about, "" when they do; seen counts what was met."""
    codec = case.make(PortableWsCodec)
    portable = describe(codec, case.pieces)
    frames = Frames()
    for records, _ in portable:
        frames.receive(records)
        seen.update(f"record {flags:02x}" for flags, _ in records)
    error = 0 if codec.error is None else codec.error.wire_code
    seen[f"error {error}"] += 1
    native = describe(case.make(NativeWsCodec), case.pieces)
    if native != portable:
        place = next(i for i, (ours, theirs) in enumerate(zip(native, portable, strict=True)) if ours != theirs)
        return f"piece {place}: native {native[place]}, portable {portable[place]}"
    return compare_wsproto(case, frames.take(codec.error), error)  # type: ignore[arg-type]


def main(arguments: list[str]) -> collections.Counter[str]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options = parser.parse_args(arguments)
    seen: collections.Counter[str] = collections.Counter()
    began = time.monotonic()
    for number in range(options.inputs):
        case = Case(random.Random(f"{options.seed}/{number}"))
        try:
            what = difference(case, seen)
        except Exception as error:  # a codec raises nothing at all
            what = f"raised {error!r}"
        seen["inputs"] += 1
        if what:
            seen["disagreements"] += 1
            print(f"seed {options.seed}/{number}: {what}\n    {case}", flush=True)
        if not options.quiet and (number + 1) % 20_000 == 0:
            rate = (number + 1) / (time.monotonic() - began)
            print(f"{number + 1} inputs, {seen['disagreements']} disagreements, {rate:.0f}/s", flush=True)
    return seen


if __name__ == "__main__":
    counted = main(sys.argv[1:])
    print(dict(counted))
    sys.exit(1 if counted["disagreements"] else 0)
