"""Read tests/vectors/dns_*.txt: the format is described at the top of dns_valid.txt."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from asyncmg.codecs import dns, dns_native, dns_portable
from asyncmg.codecs.dns import DnsMessage, DnsQuestion, DnsReader, DnsRecord
from asyncmg.core import status
from tests.codecs.vector_file import VECTORS

#: The readers that obey the contract in asyncmg/codecs/dns.py: every test of a codec runs on each of them.
DNS_CODECS: dict[str, DnsReader] = {"portable": dns_portable.read_message}
if status().available or os.environ.get("ASYNCMG_REQUIRE_CORE") == "1":
    DNS_CODECS["native"] = dns_native.read_message

ID = 7
_CALL = r"(?:chain|lead)\((?:[^()]*)\)"
_TOKEN = re.compile(rf'\{{([^{{}}*]+)\*([0-9]+)\}}|({_CALL})|([sn]?)"([^"]*)"|(d\(\s*)|(\))|([0-9a-f]{{2}})|\s+')


def chain(place: int, count: int, label: bytes = b"") -> bytes:
    """A name that begins with the root; in front of it, further and further behind, count names that point back.

    Args:
        place: where it lies in the message.
        count: of the pointers that are followed from what :func:`lead` returns, which is one of them.
        label: in front of each pointer, and of the root.
    """
    made = label + b"\0"
    place_before = place
    for _ in range(count - 1):
        here = place + len(made)
        made += label + (0xC000 | place_before).to_bytes(2, "big")
        place_before = here
    return made


def lead(place: int, count: int, label: bytes = b"") -> bytes:
    """A pointer to the last name of a chain."""
    last = place + (len(label) + 1 + (len(label) + 2) * (count - 2) if count > 1 else 0)
    return (0xC000 | last).to_bytes(2, "big")


def wire_name(text: str) -> bytes:
    labels = [label.encode() for label in text.split(".") if text]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def assemble(text: str) -> bytes:
    """Assemble bytes from the tokens that dns_valid.txt describes."""
    parts: list[list[bytes]] = [[]]
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        assert match, text[position:]
        position = match.end()
        repeated, times, called, kind, quoted, opened, closed, hexes = match.groups()
        if repeated:
            parts[-1].append(assemble(repeated) * int(times))
        elif called:
            parts[-1].append(eval(called, {"chain": chain, "lead": lead}))
        elif quoted is not None:
            raw = quoted.encode()
            parts[-1].append(wire_name(quoted) if kind == "n" else bytes([len(raw)]) + raw if kind else raw)
        elif opened:
            parts.append([])
        elif closed:
            inside = b"".join(parts.pop())
            parts[-1].append(len(inside).to_bytes(2, "big") + inside)
        elif hexes:
            parts[-1].append(bytes.fromhex(hexes))
    assert len(parts) == 1, text
    return b"".join(parts[0])


@dataclass
class DnsVector:
    """One stanza."""

    name: str = ""
    data: bytes = b""
    message: DnsMessage | None = None
    fault: tuple[str, str] | None = None

    def __str__(self) -> str:
        return self.name


def _read_stanza(lines: list[str]) -> DnsVector:
    vector = DnsVector()
    flags, rule = 0, ""
    for line in lines:
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if key == "name":
            vector.name = value
        elif key == "rule":
            rule = value
        elif key == "head":
            first, *counts = value.split()
            flags = int(first, 16)
            vector.data = dns.HEADER.pack(ID, flags, *map(int, counts))
        elif key == "in":
            vector.data += assemble(value)
        elif key == "expect":
            names = {**vars(dns), "Q": DnsQuestion, "R": DnsRecord, "chain": chain}
            vector.message = DnsMessage(ID, flags, *eval(f"({value})", names))
        else:
            assert key == "error", line
            name, _, section = value.partition(" ")
            vector.fault = getattr(dns, name)
            assert vector.fault == (vector.fault[0], section), line
    assert vector.name and (vector.message is None) == (vector.fault is not None), lines
    assert bool(rule) == (vector.fault is None), lines
    return vector


def read_dns_vectors() -> list[DnsVector]:
    vectors = []
    for path in sorted(VECTORS.glob("dns_*.txt")):
        for stanza in path.read_text(encoding="utf-8").split("\n\n"):
            lines = [line for line in stanza.split("\n") if line and not line.startswith("#")]
            if lines:
                vectors.append(_read_stanza(lines))
    names = [str(vector) for vector in vectors]
    assert len(set(names)) == len(names), "names are unique"
    return vectors
