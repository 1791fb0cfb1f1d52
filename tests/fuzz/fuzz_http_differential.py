"""The native HTTP codec against the portable one: the same input, cut in the same places, has the same outcome.

    python tests/fuzz/fuzz_http_differential.py --inputs 1000000 --seed 1

Inputs are the vectors and generated messages, spliced and damaged. After each piece are compared: the records, the
status of an error (and which limit it was, and by how much), what is still buffered, whether the codec is between two
messages; and in the end, or behind one of the messages, what is left for the protocol that follows.
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[2]))

from asyncmg.codecs.http import HttpCodec, Role
from asyncmg.codecs.http_native import NativeHttpCodec
from asyncmg.codecs.http_portable import PortableHttpCodec
from asyncmg.errors import LimitExceeded, RemoteProtocolError
from asyncmg.limits import HttpLimits
from tests.codecs.codec_list import Normal, drain, normal_records, one_by_one, split_at
from tests.codecs.vector_file import read_vectors
from tests.fuzz.fuzz_http_portable import TIGHT, make_chunks, make_input, mutate

MAX_INPUT = 3000  # longer vectors are left to the tests that read vectors
FILES = {Role.SERVER: "http_requests.txt", Role.CLIENT: "http_responses.txt"}
CORPUS = {
    role: [vector.data for vector in read_vectors(name) if len(vector.data) <= MAX_INPUT]
    for role, name in FILES.items()
}

WORDS = """
Host:|host: a|Content-Length:|content-length: 5|Content-Length : 5|Content-Length: 5, 5|Content-Length: 0
Transfer-Encoding: chunked|Transfer-Encoding: gzip|Transfer-Encoding:|Connection: close|Connection: keep-alive
Upgrade: x|Connection: upgrade|Connection: close, upgrade|Connection: ,\tUPGRADE ,|Upgrade:
Expect: 100-continue|Expect: x|Expect:
HTTP/1.1|HTTP/1.0|HTTP/1.2|HTTP/2.0|HTTP/0.9|CONNECT|OPTIONS|HEAD|GET|CONNECT a:80 HTTP/1.1|GET http://[::1]/ HTTP/1.1
Host: [::1]|Host: [1:2:3:4:5:6:7:8]:80|Host: [::ffff:1.2.3.4]|Host: [fe80::1%25eth0]|Host: [1::2::3]|Host: a:b|::|%25|[
999999999999999999|1000000000000000000|18446744073709551616|fffffffffffffff|1000000000000000|7fffffff|;a=b|;|0\r\n\r\n
\r\n|\r\n\r\n|\r|\n|\r\n |\r\n\t|\x00|\x0b|\x0c|\x7f|\x80|\xff|\x01| |\t|:|,|/|*|#|@|?|200 OK|204|304|100|101|099|199
HTTP/1.1 200 OK\r\n|HTTP/1.1 101 \r\n\r\n|HTTP/1.1 100 Continue\r\n\r\n|X: y\r\n|A: b\r\nC: d\r\n|5\r\nhello\r\n
0\r\nT: u\r\n\r\n|GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: b\r\n\r\n
"""
DICTIONARY = [
    word.encode("latin-1").decode("unicode_escape").encode("latin-1")
    for line in WORDS.strip("\n").split("\n")
    for word in line.split("|")
]
SIZES = ["max_request_line", "max_field_line", "max_header_size", "max_fields"]
SIZES += ["max_chunk_line", "max_chunk_extensions", "max_trailer_size"]
STATUSES = [200, 200, 200, 100, 101, 103, 199, 204, 304, 404, 500, 999]


def make_response(chance: random.Random) -> bytes:
    fields = [b"A: b", b"E:", b"S: \xe4 x", b"Connection: close", b"Connection: keep-alive"]
    lines = [chance.choice(fields) for _ in range(chance.randrange(3))]
    content = chance.choice([b"", b"hello", b"\r\n\r\n\0", b"x" * 50])
    kind = chance.randrange(4)
    if kind == 0:
        lines.append(b"Content-Length: %d" % len(content))
    elif kind == 1:
        lines.append(b"Transfer-Encoding: chunked")
        content = make_chunks(chance).encode("latin-1")
    elif kind == 2:
        lines.append(chance.choice(DICTIONARY))
    reason = chance.choice([b"", b" ", b" OK", b" not OK\xff"])
    version = chance.choice([b"1.1", b"1.1", b"1.1", b"1.0", b"1.3"])
    head = b"HTTP/%b %d%b" % (version, chance.choice(STATUSES), reason)
    return b"\r\n".join([head, *lines, b"", content])


TARGETS = [
    "GET /",
    "GET /a?b",
    "POST /",
    "HEAD /x",
    "OPTIONS *",
    "CONNECT a:1",
    "CONNECT [::1]:65536",
    "GET http://a:1/",
]
FIELDS = ["A: b", "C:", "D: \t e \t", "Connection: close", "connection: Upgrade", "Upgrade: x", "Expect: 100-Continue"]
FIELDS += ["Connection: a, keep-alive ,b", "UPGRADE:", "Expect:", "F: \x01\xff", "Content-Lengths: 5", "X-Host: b"]


def make_host(chance: random.Random) -> str:
    """Mostly what looks like an IPv6 address."""
    if chance.random() < 0.3:
        return chance.choice(["a", "a:80", "", ":", "1.2.3.4:5", "a%41", "a%4", "a b", "[", "[]", "[::]x", "[::1]:8a"])
    groups = [chance.choice(["0", "1", "ab", "FFFF", "12345", "", "1.2.3.4", "g"][: chance.choice([4, 6, 8])])]
    for _ in range(chance.choice([1, 2, 3, 6, 7, 7, 8])):
        groups.append(
            chance.choice(["0", "1", "2", "3", "4", "ff", "0db8", "", "1.2.3.4", "1.02.3.4", "1.2.3.256", ":"])
        )
    zone = chance.choice([""] * 6 + ["%25eth0", "%25", "%eth0", "%25a%25b"])
    return f"[{':'.join(groups)}{zone}]{chance.choice(['', '', ':1', ':'])}"


def make_sound_request(chance: random.Random) -> bytes:
    """A request that is probably right."""
    version = chance.choice(["1.1"] * 8 + ["1.0", "1.0", "1.7"])
    host = make_host(chance) if chance.random() < 0.4 else "a"
    lines = [f"Host: {host}", *chance.sample(FIELDS, chance.choice([0, 0, 1, 1, 2, 4]))]
    content = chance.choice(["", "", "hello", "\r\n\r\n", "x" * 100])
    kind = chance.randrange(4)
    if kind == 1:
        lines.append(f"Content-Length: {len(content):0{chance.choice([1, 1, 18, 19])}}")
    elif kind == 2:
        lines.append("Transfer-Encoding: chunked")
        chunks = [f"{size:x}{chance.choice(['', '', ';a', ' ;b=c'])}\r\n{'y' * size}\r\n" for size in (1, 12, 3)]
        content = "".join(chunks[: chance.randrange(4)]) + "0\r\n" + chance.choice(["", "T: u\r\n"]) + "\r\n"
    elif kind == 3:
        content = ""
    chance.shuffle(lines)
    return "\r\n".join([f"{chance.choice(TARGETS)} HTTP/{version}", *lines, "", content]).encode("latin-1")


def make(chance: random.Random, role: Role) -> bytes:
    """An input: of the corpus, or generated; perhaps spliced with another, perhaps damaged."""

    def one() -> bytes:
        if chance.random() < 0.3:
            return chance.choice(CORPUS[role])
        if role is Role.CLIENT:
            return make_response(chance)
        return make_input(chance) if chance.random() < 0.3 else make_sound_request(chance)

    data = one()
    if chance.random() < 0.3:
        data += one()
    if chance.random() < 0.15:
        other = one()
        data = data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]
    for _ in range(chance.choice([0, 0, 0, 1, 1, 2])):
        word = chance.choice(DICTIONARY)
        ends = [place + 2 for place in range(len(data)) if data.startswith(b"\r\n", place)]
        if ends and chance.random() < 0.7:  # a line of its own
            place = end = chance.choice(ends)
            word += b"\r\n"
        else:
            place = chance.randrange(len(data) + 1)
            end = place + chance.choice([0, 0, 0, 1, 4])
        data = data[:place] + word + data[end:]
    if chance.random() < 0.15:
        data = mutate(chance, data)
    return data[:MAX_INPUT]


def make_limits(chance: random.Random) -> HttpLimits:
    kind = chance.randrange(4)
    if kind < 2:
        return HttpLimits()
    if kind == 2:
        return TIGHT
    name = chance.choice(SIZES)
    return replace(HttpLimits(), **{name: chance.choice([1, 2, 3, 4, 5, 7, 8, 16, 30, 60])})


def may_switch(record: Normal) -> bool:
    """Behind this record another protocol may begin."""
    kind = record[0]
    return kind == "end" or (kind == "request" and (record[1] == "CONNECT" or bool(record[9])))


def leave_behind(codec: HttpCodec, messages: int) -> list[Any]:
    """Read so many messages, then leave HTTP: the records, and the rest."""
    records: list[Normal] = []
    while messages:
        try:
            record = codec.next_event()
        except RemoteProtocolError as error:
            return [records, error.wire_code]
        if record is None:
            break
        records += normal_records(record)
        messages -= may_switch(records[-1])
    return [records, codec.take_rest(), codec.buffered, codec.is_between_messages]


def describe(codec: HttpCodec, pieces: Sequence[bytes], *, eof: bool) -> list[Any]:
    """Everything about a codec that can be seen from outside, piece by piece."""
    seen: list[Any] = []
    for piece in [*pieces, None]:
        if piece is None:
            if not eof:
                break
            codec.receive_eof()
        else:
            codec.receive_data(piece)
        records: list[Normal] = []
        error = drain(codec, records)
        if error is None:
            seen.append((records, codec.buffered, codec.is_between_messages))
            continue
        limit = error.limit if isinstance(error, LimitExceeded) else ""
        # The portable codec counts the extensions of a refused line as often as it is asked.
        actual = error.actual if isinstance(error, LimitExceeded) and "extensions" not in limit else 0
        seen.append((records, error.wire_code, limit, actual, codec.buffered, codec.is_between_messages))
        break
    seen.append(codec.take_rest())
    return seen


class Case:
    """One input, and how it is fed."""

    def __init__(self, chance: random.Random) -> None:
        self.role = chance.choice([Role.SERVER, Role.SERVER, Role.CLIENT])
        self.data = make(chance, self.role)
        self.limits = make_limits(chance)
        self.eof = chance.random() < 0.3
        methods = chance.choice([[], ["GET"], ["GET"] * 3, ["HEAD", "GET"], ["CONNECT"], ["GET", "CONNECT", "HEAD"]])
        self.methods = methods if self.role is Role.CLIENT else []
        kind = chance.random()
        if kind < 0.4:
            self.pieces = [self.data]
        elif kind < 0.5 and len(self.data) < 600:
            self.pieces = one_by_one(self.data)
        else:
            self.pieces = split_at(
                self.data, [chance.randrange(len(self.data) + 1) for _ in range(chance.randrange(1, 6))]
            )

        self.messages = chance.randrange(1, 4) if chance.random() < 0.2 else 0

    def outcome(self, codec: HttpCodec) -> list[Any]:
        for method in self.methods:
            codec.expect(method)
        if self.messages:
            for piece in self.pieces:
                codec.receive_data(piece)
            return leave_behind(codec, self.messages)
        return describe(codec, self.pieces, eof=self.eof)

    def difference(self, seen: collections.Counter[str]) -> str:
        """What the codecs do not agree about, "" when they do; seen counts what was met."""
        portable = self.outcome(PortableHttpCodec(self.role, self.limits))
        try:
            native = self.outcome(NativeHttpCodec(self.role, self.limits))
        except Exception as error:  # a codec raises nothing but ProtocolErrors, and these are caught
            return f"native raises {error!r}"
        for step in portable:
            if isinstance(step, tuple):
                seen.update(f"{self.role} {record[0]}" for record in step[0])
                if len(step) > 3:
                    seen[f"{self.role} {step[1]}"] += 1
        if portable == native:
            return ""
        for place, (ours, theirs) in enumerate(zip(native, portable, strict=False)):
            if ours != theirs:
                return f"piece {place}: native {ours}, portable {theirs}"
        return f"native {native}, portable {portable}"

    def __str__(self) -> str:
        limits = {name: getattr(self.limits, name) for name in HttpLimits.__slots__ if name.startswith("max_")}
        asked = f"eof={self.eof} methods={self.methods} messages={self.messages}"
        return f"{self.role} {self.pieces!r} {asked} limits={limits}"


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
        difference = case.difference(seen)
        seen["inputs"] += 1
        if difference:
            seen["disagreements"] += 1
            print(f"seed {options.seed}/{number}: {difference}\n    {case}", flush=True)
        if not options.quiet and (number + 1) % 20_000 == 0:
            rate = (number + 1) / (time.monotonic() - began)
            print(f"{number + 1} inputs, {seen['disagreements']} disagreements, {rate:.0f}/s", flush=True)
    return seen


if __name__ == "__main__":
    counted = main(sys.argv[1:])
    print(dict(counted))
    sys.exit(1 if counted["disagreements"] else 0)
