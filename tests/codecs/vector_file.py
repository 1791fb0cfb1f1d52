"""Read tests/vectors/http_*.txt: the format is described at the top of http_requests.txt."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parent.parent / "vectors"

_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|(.))")
_REPEAT = re.compile(r"\{(.+?)\*([0-9]+)\}")
_PLAIN = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}


def unescape(text: str) -> bytes:
    text = _REPEAT.sub(lambda match: match[1] * int(match[2]), text)
    out, position = [], 0
    for match in _ESCAPE.finditer(text):
        out.append(text[position : match.start()].encode("ascii"))
        out.append(bytes.fromhex(match[1]) if match[1] else _PLAIN[match[2]])
        position = match.end()
    return b"".join([*out, text[position:].encode("ascii")])


def _field(text: str) -> tuple[bytes, bytes]:
    name, _, value = unescape(text).partition(b":")
    return name, value.removeprefix(b" ")


@dataclass
class Expected:
    """One record that is to come: kind is head, body or end."""

    kind: str
    words: list[str] = field(default_factory=list)
    reason: str = ""
    data: bytes = b""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)  # of a head: empty when not compared


@dataclass
class Vector:
    name: str
    ref: str = ""
    data: bytes = b""
    eof: bool = False
    expect: list[str] = field(default_factory=list)
    records: list[Expected] = field(default_factory=list)
    error: str = ""
    rest: bytes | None = None


def _read_stanza(lines: list[str]) -> Vector:
    vector = Vector("")
    for line in lines:
        key, colon, value = line.partition(":")
        assert colon, line
        value = value.removeprefix(" ")
        key, _, times = key.partition("*")
        if key == "name":
            vector.name = value
        elif key == "ref":
            vector.ref = value
        elif key == "in":
            vector.data += unescape(value)
        elif key == "eof":
            vector.eof = value == "yes"
        elif key == "expect":
            vector.expect = value.split()
        elif key == "head":
            words, _, reason = value.partition("reason=")
            text = unescape(reason).decode("utf-8", "surrogateescape")
            vector.records.append(Expected("head", unescape(words).decode().split(), text))
        elif key == "body":
            vector.records.append(Expected("body", data=unescape(value)))
        elif key == "end":
            vector.records.append(Expected("end"))
        elif key in ("field", "trailer"):
            assert vector.records[-1].kind == ("head" if key == "field" else "end"), line
            vector.records[-1].fields += [_field(value)] * int(times or 1)
        elif key == "error":
            vector.error = value
        elif key == "rest":
            vector.rest = unescape(value)
        else:
            raise ValueError(f"unknown key in {vector.name!r}: {line}")
    assert vector.name and vector.ref and (vector.records or vector.error), lines
    return vector


def read_vectors(file_name: str) -> list[Vector]:
    text = (VECTORS / file_name).read_text(encoding="ascii")
    stanzas = [
        [line for line in stanza.split("\n") if line and not line.startswith("#")] for stanza in text.split("\n\n")
    ]
    vectors = [_read_stanza(lines) for lines in stanzas if lines]
    assert len({vector.name for vector in vectors}) == len(vectors), "names are unique"
    return vectors


def matches_head(expected: Expected, normal: tuple[Any, ...], methods: list[str]) -> str:
    """Return what differs between an expected head and a normalised one, "" when nothing does."""
    words = expected.words
    if normal[0] == "request":
        _, method, target, proto, fields, framing, length, keep_alive, expects, upgrade = normal
        seen = [method, target, proto]
        flags = words[3:]
        seen_flags = [f"upgrade={upgrade}"] * bool(upgrade) + ["expect"] * expects
    else:
        _, method, status, reason, proto, fields, framing, length, keep_alive = normal
        seen = [str(status), proto]
        flags = words[2:]
        seen_flags = []
        if reason != expected.reason:
            return f"reason {reason!r}"
        if method not in methods:
            return f"method {method!r}"
    if not keep_alive:
        seen_flags.append("close")
    seen_flags += {"none": [], "chunked": ["chunked"], "close": ["until-close"], "length": [f"length={length}"]}[
        framing
    ]
    if framing != "length" and length:
        return f"content_length {length} with framing {framing}"
    if words[: len(seen)] != seen or sorted(flags) != sorted(seen_flags):
        return f"{seen} {seen_flags}"
    if expected.fields and tuple(expected.fields) != fields:
        return f"fields {fields}"
    return ""
