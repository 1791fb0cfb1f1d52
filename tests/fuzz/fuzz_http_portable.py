"""Random requests against the laws of the HTTP codecs, with h11 as the oracle; needs nothing but the package.

    python tests/fuzz/fuzz_http_portable.py --seconds 10 --seed 1

The laws, each a function ``law_*`` that raises AssertionError:

* the records do not depend on where the input was split;
* whatever the bytes are, only RemoteProtocolErrors are raised, and they are final;
* memory stays bounded while a head, a chunk line or a trailer section is incomplete;
* what the codec accepts, h11 accepts with the same result, but for H11_STRICTER;
* what h11 accepts and the codec refuses falls under a rule of STRICTER.

tests/properties/test_http_codec.py holds them with hypothesis.
"""

from __future__ import annotations

import argparse
import collections
import ipaddress
import random
import re
import sys
import time
from pathlib import Path

import h11

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[2]))

from asyncmg.codecs.http import Role
from asyncmg.errors import RemoteProtocolError
from asyncmg.limits import HttpLimits
from tests.codecs.codec_list import (
    CODECS,
    Normal,
    assert_stays_failed,
    drain,
    make,
    normal_fields,
    normal_records,
    run,
    split_at,
)

# -- the grammar: mostly valid, each choice with a few that are wrong ------------------------------------------------

METHODS = ["GET", "GET", "POST", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "M-X", "", "G(T", "get"]
TARGETS = ["/", "/a?b=c", "//x", "/%41", "*", "http://h/p", "http://h", "http://h?q", "h:80", "[::1]:1", "x", "/#f"]
TARGETS += [
    "/\xe4",
    "/a b",
    "http://u@h/",
    "http:///",
    "/\x7f",
    "h:",
    ":80",
    "http://[::1]:8/",
    "http://[x]/",
    "h:99999",
]
VERSIONS = ["HTTP/1.1"] * 12 + ["HTTP/1.0", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "http/1.1", "HTTP/1.10", ""]
HOSTS = [
    "h",
    "h",
    "h:80",
    "[::1]",
    "",
    "a.b:",
    "1.2.3.4:5",
    "a/b",
    "h h",
    "u@h",
    "[::1",
    "[1:2]",
    "\xe4",
    "h:x",
    "%41",
    "%4",
]
NAMES = ["X", "x-y", "Accept", "Cookie", "X!#$%&'*+.^_`|~9", "", "X ", "X(", " X", "\xe4", "X\t"]
VALUES = [
    "",
    "a",
    "a b",
    "\ta\t",
    '"q,\\"r"',
    "gr\xfc\xdfe",
    "a\x01b",
    "a\x0bb",
    "a\x7f",
    "a\0",
    ":",
    "a\r\n b",
    "x" * 300,
]
LENGTHS = ["+5", "-5", "5,5", "5, 5", "5,6", "", "0x5", "5 5", "1" * 19, "9" * 25, "05", "5\t", "5_0"]
CODINGS = [
    "chunked",
    "chunked",
    "Chunked",
    "gzip, chunked",
    "chunked, chunked",
    "identity",
    "xchunked",
    "",
    "chunked;q=1",
]
CONNECTIONS = ["close", "keep-alive", "Upgrade", "close, x", "x,CLOSE", "closer", "", ", ,"]
EXPECTS = ["100-continue", "100-Continue", "200-ok", ""]
EXTENSIONS = [""] * 6 + [";a", ";a=b", ' ;a="b"', "; a = \xe4", " ", "\t", ";a\x01", ";a\r", ";a\n", ";", "x"]
TRAILERS = [
    "X: y",
    "E:",
    "X:\t a \t",
    "x: \xe4",
    "X : y",
    " f",
    ": y",
    "X: \x01",
    "X: a\r\n b",
    "Content-Length: x",
    "nope",
]
TRAILERS += ["Transfer-Encoding: gzip", "Content-Length: 5, 5", "X: a\x0bb"]
EOLS = ["\r\n"] * 60 + ["\n", "\r", "\r\r\n", "\n\r", ""]


def _usually(chance: random.Random, good: str, all_: list[str]) -> str:
    return good if chance.random() < 0.8 else chance.choice(all_)


def make_chunks(chance: random.Random) -> str:
    out = []
    for _ in range(chance.randrange(4)):
        data = chance.choice(["a", "hello", "\r\n0\r\n\r\n", "\0\xff", "x" * 40])
        size = chance.choice([f"{len(data):x}", f"{len(data):X}", f"{len(data):04x}"])
        if chance.random() < 0.06:
            size = chance.choice(
                ["-1", "+1", "0x1", "", "g", f"{len(data) + 1:x}", f"{len(data):018x}", " 1", "1" * 21]
            )
        ending = "\r\n" if chance.random() < 0.97 else chance.choice(EOLS)
        out.append(f"{size}{_usually(chance, '', EXTENSIONS)}{chance.choice(EOLS)}{data}{ending}")
    out.append(f"{chance.choice(['0', '0', '000'])}{_usually(chance, '', EXTENSIONS)}\r\n")
    for _ in range(chance.choice([0, 0, 0, 1, 2])):
        out.append(_usually(chance, "T: u", TRAILERS) + chance.choice(EOLS))
    return "".join(out) + chance.choice(EOLS)


def make_request(chance: random.Random) -> bytes:
    method = _usually(chance, "POST", METHODS)
    good = {"CONNECT": "h:80", "OPTIONS": "*"}.get(method, "/")
    line = f"{method} {_usually(chance, good, TARGETS)} {_usually(chance, 'HTTP/1.1', VERSIONS)}"
    lines = [f"Host: {_usually(chance, 'h', HOSTS)}"] if chance.random() < 0.97 else []
    if chance.random() < 0.03:
        lines.append("Host: h")
    for _ in range(chance.choice([0, 0, 1, 1, 2, 3])):
        if chance.random() < 0.6:
            lines.append(f"{chance.choice(NAMES[:5])}: {chance.choice(VALUES[:6])}")
        elif chance.random() < 0.3:
            lines.append(f"{chance.choice(NAMES)}:{chance.choice(VALUES)}")
    if chance.random() < 0.2:
        lines.append(f"Connection: {chance.choice(CONNECTIONS)}")
    if chance.random() < 0.1:
        lines.append(f"Expect: {_usually(chance, '100-continue', EXPECTS)}")
    if chance.random() < 0.1:
        lines.append("Upgrade: websocket")
    content = ""
    kind = chance.random()
    if kind < 0.35:
        content = chance.choice(["", "hello", "\r\n\r\n\0", "GET / HTTP/1.1\r\n"])
        lines.append(f"Content-Length: {len(content) if chance.random() < 0.85 else chance.choice(LENGTHS)}")
        if chance.random() < 0.05:
            lines.append(f"content-length: {chance.choice([str(len(content)), '7'])}")
    elif kind < 0.7:
        content = make_chunks(chance)
        lines.append(f"Transfer-Encoding: {_usually(chance, 'chunked', CODINGS)}")
        if chance.random() < 0.05:
            lines.append(chance.choice(["Content-Length: 5", "Transfer-Encoding: chunked", "content-length: 0"]))
    chance.shuffle(lines)
    if chance.random() < 0.02:
        lines.append("P: " + "p" * chance.choice([8188, 8189, 8190]))
    if chance.random() < 0.02:
        lines += ["N: n"] * chance.choice([98, 99, 100, 101])
    head = "".join(item + chance.choice(EOLS) for item in [line, *lines]) + chance.choice(EOLS)
    return (chance.choice([""] * 20 + ["\r\n", "\r\n\r\n", "\n"]) + head + content).encode("latin-1")


def mutate(chance: random.Random, data: bytes) -> bytes:
    """Change, insert, remove, repeat or cut a few bytes."""
    out = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 4])):
        place = chance.randrange(len(out) + 1)
        kind = chance.randrange(5)
        if kind == 0:
            out[place : place + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            out[place:place] = chance.choice(
                [b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b",", b"0", b";", b"\x80"]
            )
        elif kind == 2:
            del out[place : place + chance.choice([1, 1, 2, 5])]
        elif kind == 3:
            end = place + chance.randrange(1, 30)
            out[place:place] = out[place:end]
        else:
            del out[chance.randrange(len(out) + 1) :]
    return bytes(out)


def make_input(chance: random.Random) -> bytes:
    data = b"".join(make_request(chance) for _ in range(chance.choice([1, 1, 2, 3])))
    return mutate(chance, data) if chance.random() < 0.4 else data


# -- laws that need no oracle ----------------------------------------------------------------------------------------


TIGHT = HttpLimits(
    max_request_line=40,
    max_field_line=60,
    max_header_size=120,
    max_fields=5,
    max_chunk_line=16,
    max_chunk_extensions=24,
    max_trailer_size=50,
)


def law_split(
    name: str, data: bytes, cuts: list[int], *, eof: bool, role: Role = Role.SERVER, limits: HttpLimits | None = None
) -> None:
    """Same records, and an error or none, wherever the input is split. (Of two faults either may be told.)"""
    expect = ["GET", "HEAD", "GET"] if role is Role.CLIENT else []
    whole, error = run(name, role, [data], eof=eof, expect=expect, limits=limits)
    parts, split_error = run(name, role, split_at(data, cuts), eof=eof, expect=expect, limits=limits)
    assert whole == parts, f"split matters: {whole} {parts}"
    assert (error is None) == (split_error is None), f"split decides about the error: {error} {split_error}"


def law_final(name: str, data: bytes, *, role: Role = Role.SERVER) -> None:
    """Nothing but RemoteProtocolErrors, and nothing comes from behind one."""
    codec = make(name, role, expect=["GET"] * 5 if role is Role.CLIENT else [])
    codec.receive_data(data)
    error = drain(codec, [])
    if error is not None:
        assert error.wire_code in (400, 414, 417, 431, 501, 505) or role is Role.CLIENT, error
        assert_stays_failed(codec, b"GET / HTTP/1.1\r\nHost: h\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def law_bounded(name: str, data: bytes, cuts: list[int], *, role: Role = Role.SERVER) -> None:
    """What is held between two calls is within the limits, an error apart; only what one call brought comes on top."""
    codec = make(name, role, TIGHT, expect=["GET"] * 5 if role is Role.CLIENT else [])
    bound = TIGHT.max_request_line + TIGHT.max_header_size + 4
    for piece in split_at(data, cuts):
        codec.receive_data(piece)
        assert codec.buffered <= bound + len(piece), "more held than received"
        records: list[Normal] = []
        if drain(codec, records) is not None:
            return
        if records and records[-1][0] == "response" and records[-1][2] == 101:
            return  # what follows is for another protocol to take
        assert codec.buffered <= bound, f"{codec.buffered} bytes are held"


# -- h11 as the oracle -----------------------------------------------------------------------------------------------

Message = tuple[Normal, bytes, tuple[tuple[bytes, bytes], ...], int]  # head, content, trailers, bytes consumed


def read_one(name: str, data: bytes) -> Message | str:
    """Read one request with our codec: the message, or "incomplete", or "refused"."""
    codec = make(name, Role.SERVER)
    codec.receive_data(data)
    records: list[Normal] = []
    try:
        while not records or records[-1][0] != "end":
            record = codec.next_event()
            if record is None:
                return "incomplete"
            records += normal_records(record)
    except RemoteProtocolError:
        return "refused"
    content = b"".join(record[1] for record in records if record[0] == "body")
    return records[0], content, records[-1][1], len(data) - codec.buffered


def read_one_h11(data: bytes) -> Message | str:
    """The same with h11."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    head: Normal = ()
    content: list[bytes] = []
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                fields = normal_fields(event.headers.raw_items())
                head = (event.method.decode(), event.target.decode(), fields)
            elif isinstance(event, h11.Data):
                content.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                rest = connection.trailing_data[0]
                return head, b"".join(content), normal_fields(event.headers.raw_items()), len(data) - len(rest)
            else:
                return "incomplete"
    except h11.RemoteProtocolError:
        return "refused"


_HOST_NAME = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*(:[0-9]*)?")
_HOST_BRACKETS = re.compile(rb"\[([0-9A-Fa-f:.]+)\](:[0-9]*)?")


def is_host(value: bytes) -> bool:
    match = _HOST_BRACKETS.fullmatch(value)
    if match is None:
        return _HOST_NAME.fullmatch(value) is not None
    try:
        ipaddress.IPv6Address(match[1].decode())
    except ValueError:
        return False
    return True


def is_target(method: bytes, target: bytes) -> bool:
    if b"#" in target:
        return False
    if method == b"CONNECT":
        host, _, port = target.rpartition(b":")
        return bool(host) and is_host(host) and not host.endswith(b":") and port.isdigit() and int(port) < 65536
    if target == b"*":
        return method == b"OPTIONS"
    match = re.fullmatch(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#@:]|\[)([^/?#@]*)(?:[/?].*)?", target)
    return target.startswith(b"/") or (match is not None and is_host(match[1] + match[2]))


def stricter_rules(data: bytes) -> set[str]:
    """Which of our strictness rules does this message break? h11 accepts it; data ends where the message ends.

    Written without the codec: by the RFC and the limits, on what h11 took for the head, chunk lines and trailers.
    """
    rules = set()
    match = re.search(rb"\n\r?\n", data)
    assert match is not None
    head, content = data[: match.end()], data[match.end() :]
    if re.search(rb"(?<!\r)\n", head):
        rules.add("bare LF")
    lines = head.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n")
    if any(line.startswith((b" ", b"\t")) for line in lines[1:]):
        rules.add("obs-fold")
    method, target, version = lines[0].split(b" ")
    fields = [(name.lower(), value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines[1:])]
    lengths = [value for name, value in fields if name == b"content-length"]
    coded = any(name == b"transfer-encoding" for name, _ in fields)
    hosts = [value for name, value in fields if name == b"host"]
    if len(lengths) > 1 or any(b"," in value for value in lengths):
        rules.add("repeated Content-Length")
    if any(len(value) > 18 for value in lengths):
        rules.add("long Content-Length")
    if coded and lengths:
        rules.add("TE+CL")
    if coded and version == b"HTTP/1.0":
        rules.add("TE in HTTP/1.0")
    if not version.startswith(b"HTTP/1."):
        rules.add("version")
    if not is_target(method, target):
        rules.add("target")
    if not all(map(is_host, hosts)) or (not hosts and version != b"HTTP/1.0"):
        rules.add("Host")
    if any(name == b"expect" and value.lower() not in (b"100-continue", b"") for name, value in fields):
        rules.add("Expect")
    if len(lines) > 101 or len(lines[0]) > 8190 or len(head) > 32768 or any(len(line) > 8192 for line in lines[1:]):
        rules.add("limit")
    if coded:
        rules |= stricter_chunk_rules(content)
    return rules


def stricter_chunk_rules(content: bytes) -> set[str]:
    rules = set()
    position = 0
    while True:
        end = content.index(b"\r\n", position)
        line = content[position:end]
        size, _, extension = line.partition(b";")
        if re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", extension):
            rules.add("control character in a chunk extension")
        if not extension and line != line.rstrip(b" \t"):
            rules.add("white space behind a chunk size")
        if len(size.strip()) > 15:
            rules.add("long chunk size")
        if len(line) > 4096:
            rules.add("limit")
        length = int(size, 16)
        if not length:
            break
        position = end + 2 + length + 2
    trailers = content[end + 2 :]
    if re.search(rb"(?<!\r)\n", trailers):
        rules.add("bare LF")
    if re.search(rb"\n[ \t]", trailers):
        rules.add("obs-fold")
    if re.search(rb"[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f]", trailers):
        rules.add("control character in a trailer")
    return rules


def h11_stricter_rules(data: bytes) -> set[str]:
    """Where we are right and h11 refuses."""
    rules = set()
    if data.startswith(b"\r\n"):
        rules.add("empty line before the request line")  # RFC 9112 section 2.2: SHOULD be ignored
    if re.search(rb"\r\n[0-9A-Fa-f]+[ \t]+;", data):
        rules.add("white space before a chunk extension")  # RFC 9112 section 7.1.1: MUST be parsed
    content = data.partition(b"\r\n\r\n")[2]
    if re.search(rb"\r\n(content-length|transfer-encoding):", content, re.IGNORECASE):
        rules.add("framing field in the trailers")  # RFC 9110 section 6.5.1: kept apart, without effect
    return rules


def law_h11(name: str, data: bytes, seen: collections.Counter[str] | None = None) -> None:
    """Message by message: the codec and h11 agree, or a named rule says why not."""
    seen = collections.Counter() if seen is None else seen
    while data:
        ours, theirs = read_one(name, data), read_one_h11(data)
        if isinstance(ours, tuple):
            head, content, trailers, consumed = ours
            excuse = h11_stricter_rules(data[:consumed])
            if isinstance(theirs, tuple):
                assert theirs[1:] == (content, trailers, consumed) or excuse, f"{ours} {theirs}"
                assert theirs[0] == (head[1], head[2], head[4]), f"{ours} {theirs}"
                seen["both accept"] += 1
            else:
                assert excuse, f"accepted, but h11: {theirs}: {ours}"
                seen.update(f"h11 stricter: {rule}" for rule in excuse)
            data = data[consumed:]
            continue
        if isinstance(theirs, tuple):
            assert ours == "refused", f"{ours}, but h11 has read {theirs}"
            rules = stricter_rules(data[: theirs[3]])
            assert rules, f"refused without a rule; h11: {theirs}"
            seen.update(f"stricter: {rule}" for rule in rules)
        else:
            seen[f"ours {ours}, h11 {theirs}"] += 1
        return


def main(arguments: list[str] | None = None) -> collections.Counter[str]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    seen: collections.Counter[str] = collections.Counter()
    deadline = time.monotonic() + options.seconds
    number = 0
    while time.monotonic() < deadline:
        chance = random.Random(f"{options.seed}-{number}")
        data = make_input(chance)
        cuts = [chance.randrange(len(data) + 1) for _ in range(chance.choice([1, 3, 10]))]
        for name in CODECS:
            try:
                for limits in (HttpLimits(), TIGHT):
                    law_split(name, data, cuts, eof=chance.random() < 0.5, limits=limits)
                law_final(name, data)
                law_bounded(name, data, cuts)
                law_h11(name, data, seen)
            except Exception as exc:
                exc.add_note(f"seed {options.seed}, input {number}, codec {name}: {data!r} cut at {cuts}")
                raise
        number += 1
    seen["inputs"] = number
    return seen


if __name__ == "__main__":
    for what, count in main().most_common():
        print(f"{count:8} {what}")
