"""The native and the portable DNS codec: the same input has the same outcome, and what is read can be written again.

    python tests/fuzz/fuzz_dns_differential.py --inputs 1000000 --seed 1

Inputs are messages of our own with damage in them, vectors with damage, messages put together from pieces that mean
something (counts, pointers, labels, records), and bytes at random. Both have to agree: the message, or the words of the
refusal. Nothing but RemoteProtocolError may be raised.
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import time
from functools import cache
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[2]))

from asyncmg.codecs import dns
from asyncmg.codecs.dns import (
    DnsMessage,
    DnsQuestion,
    DnsRecord,
    MxData,
    RecordData,
    RecordType,
    SoaData,
    SrvData,
    TxtData,
    show_address,
    show_label,
    write_message,
)
from asyncmg.errors import RemoteProtocolError
from tests.codecs.dns_vector_file import DNS_CODECS, read_dns_vectors

TYPES = tuple(kind.value for kind in RecordType if kind not in (RecordType.ANY, RecordType.NSEC, RecordType.OPT))
MAX_TIME = 0.5  # seconds of CPU for one input


def make_name(chance: random.Random, known: list[str]) -> str:
    """A name; often one that was there before, or longer by a label."""
    if known and chance.random() < 0.5:
        name = chance.choice(known)
        if chance.random() < 0.5:
            return name
    else:
        name = chance.choice(["", "com", "example.com", "local", "_tcp.local", "Example.COM"])
    for _ in range(chance.choice([0, 1, 1, 1, 2, 9])):
        size = chance.choice([1, 1, 3, 3, 10, 63])
        if chance.random() < 0.8:
            label = bytes(chance.choices(b"abcdefgXYZ-_019", k=size))
        else:
            label = bytes(chance.choices([*b"a.\\\0\x1f\x7f\x80\xc3\xa9\xff ", *range(256)], k=size))
        longer = show_label(label) + ("." + name if name else "")
        if sum(map(len, dns.split_name(name))) + len(dns.split_name(name)) + size + 2 > dns.MAX_NAME:
            break
        name = longer
    known.append(name)
    return name


def make_data(chance: random.Random, kind: int, known: list[str]) -> RecordData:
    if kind == RecordType.A:
        return show_address(chance.randbytes(4))
    if kind == RecordType.AAAA:
        groups = [chance.choice([b"\0\0", b"\0\0", b"\xff\xff", b"\0\1", chance.randbytes(2)]) for _ in range(8)]
        return show_address(b"".join(groups))
    if kind in (RecordType.NS, RecordType.CNAME, RecordType.PTR):
        return make_name(chance, known)
    if kind == RecordType.MX:
        return MxData(chance.randrange(65536), make_name(chance, known))
    if kind == RecordType.TXT:
        sizes = [chance.choice([0, 1, 9, 255]) for _ in range(chance.randrange(1, 4))]
        return TxtData(chance.randbytes(size) for size in sizes)
    if kind == RecordType.SRV:
        numbers = [chance.randrange(65536) for _ in range(3)]
        return SrvData(*numbers, make_name(chance, known))
    if kind == RecordType.SOA:
        numbers = [chance.getrandbits(32) for _ in range(5)]
        return SoaData(make_name(chance, known), make_name(chance, known), *numbers)
    return chance.randbytes(chance.choice([0, 1, 4, 30]))


def make_record(chance: random.Random, known: list[str], with_bytes: bool) -> DnsRecord:
    kind = chance.choice(TYPES)
    class_ = dns.IN
    if with_bytes:
        kind = chance.choice((*TYPES, *TYPES, 41, 47, 99, 65535))
        class_ = chance.choice([dns.IN] * 6 + [dns.IN | dns.TOP_BIT, 3, 65535])
    name = make_name(chance, known)
    if class_ & ~dns.TOP_BIT != dns.IN:
        return DnsRecord(name, kind, chance.randbytes(chance.randrange(20)), chance.getrandbits(31), class_)
    return DnsRecord(name, kind, make_data(chance, kind, known), chance.getrandbits(31), class_)


def make_message(chance: random.Random, with_bytes: bool = True) -> DnsMessage:
    """A valid message, as a reader should return it; with_bytes: also what is not looked into."""
    known: list[str] = []
    questions = [
        DnsQuestion(make_name(chance, known), chance.choice([1, 28, 255]), chance.choice([1, 1, 0x8001]))
        for _ in range(chance.choice([0, 1, 1, 1, 2]))
    ]
    sections = [
        [make_record(chance, known, with_bytes) for _ in range(chance.choice([0, 0, 1, 2, 5]))] for _ in range(3)
    ]
    return DnsMessage(chance.getrandbits(16), chance.getrandbits(16), questions, *sections)


@cache
def seeds() -> list[bytes]:
    """The vectors that are not large."""
    return [vector.data for vector in read_dns_vectors() if len(vector.data) < 700]


def damage(chance: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        at = chance.randrange(len(damaged) + 1)
        match chance.randrange(7):
            case 0 if at < len(damaged):
                damaged[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(damaged):
                damaged[at] = chance.choice(b"\0\1\2\4\x10\x1c\x21\x3f\x40\xbf\xc0\xff")
            case 2:
                target = chance.choice([at, abs(at - 1), 12, 11, chance.randrange(1 << 14)])
                damaged[at : at + 2] = (0xC000 | target).to_bytes(2, "big")
            case 3:
                del damaged[at : at + chance.choice([1, 2, 4, 10])]
            case 4:
                damaged[at:at] = chance.randbytes(chance.choice([1, 2, 4]))
            case 5:
                del damaged[at:]
            case _:
                count = 4 + 2 * chance.randrange(4)
                damaged[count : count + 2] = chance.choice([0, 1, 2, 3, 1000, 65535]).to_bytes(2, "big")
    return bytes(damaged)


def make_pieces(chance: random.Random) -> bytes:
    """A message of pieces, each of which could be one: names that point anywhere, sizes that are a bit wrong."""
    counts = [chance.choice([0, 1, 1, 2, 4]) for _ in range(4)]
    data = bytearray(dns.HEADER.pack(1, dns.RESPONSE, *counts))

    def name() -> bytes:
        made = b""
        while chance.random() < 0.6:
            label = chance.choice([b"a", b"bc", b".", b"\0", b"\xc3", b"x" * 63])
            made += bytes([len(label)]) + label
        if chance.random() < 0.6:
            target = chance.choice([12, max(12, len(data) - chance.randrange(40)), chance.randrange(12, len(data) + 9)])
            return made + (0xC000 | target).to_bytes(2, "big")
        return made + b"\0"

    for section, count in enumerate(counts):
        for _ in range(count):
            data += name()
            data += chance.choice(TYPES).to_bytes(2, "big") + chance.choice([b"\0\1", b"\0\1", b"\x80\1", b"\0\3"])
            if section:
                content = chance.choice(
                    [b"", b"\0", bytes(4), bytes(16), name(), bytes(6) + name(), b"\0\1" + name(), name() + name()]
                )
                content += chance.choice([b"", b"", bytes(20)])
                size = max(0, len(content) + chance.choice([0, 0, 0, 0, 0, 1, -1]))
                data += chance.randbytes(4) + size.to_bytes(2, "big") + content
    return bytes(data)


def make_input(chance: random.Random) -> bytes:
    match chance.randrange(10):
        case 0:
            return write_message(make_message(chance))
        case 1 | 2 | 3:
            return damage(chance, write_message(make_message(chance)))
        case 4 | 5:
            return damage(chance, chance.choice(seeds()))
        case 6 | 7 | 8:
            return make_pieces(chance)
        case _:
            head = dns.HEADER.pack(1, 0, *(chance.randrange(3) for _ in range(4)))
            return chance.choice([b"", head]) + chance.randbytes(chance.randrange(60))


def outcome(name: str, data: bytes) -> DnsMessage | str:
    try:
        return DNS_CODECS[name](data)
    except RemoteProtocolError as exc:
        return f"{exc!r} {exc.section}"


def difference(data: bytes, seen: collections.Counter[str]) -> str:
    """What is wrong with the codecs about this input, "" when nothing is; seen counts what was met."""
    began = time.process_time()
    portable, native = outcome("portable", data), outcome("native", data)
    if time.process_time() - began > MAX_TIME:
        return "it took too long"
    if repr(portable) != repr(native) or portable != native:
        return f"native {native}, portable {portable}"
    if isinstance(portable, str):
        seen[portable] += 1
        return ""
    seen["messages"] += 1
    seen.update(f"type {record.type}" for section in portable[3:] for record in section if record.type in TYPES)
    again = DNS_CODECS["portable"](write_message(portable))
    return "" if again == portable else f"written and read again: {again}, not {portable}"


def main(arguments: list[str]) -> collections.Counter[str]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options = parser.parse_args(arguments)
    seen: collections.Counter[str] = collections.Counter()
    began = time.monotonic()
    for number in range(options.inputs):
        data = make_input(random.Random(f"{options.seed}/{number}"))
        try:
            what = difference(data, seen)
        except Exception as error:  # a codec raises RemoteProtocolError, nothing else
            what = f"raised {error!r}"
        seen["inputs"] += 1
        if what:
            seen["disagreements"] += 1
            print(f"seed {options.seed}/{number}: {what}\n    {data.hex()}", flush=True)
        if not options.quiet and (number + 1) % 20_000 == 0:
            rate = (number + 1) / (time.monotonic() - began)
            print(f"{number + 1} inputs, {seen['disagreements']} disagreements, {rate:.0f}/s", flush=True)
    return seen


if __name__ == "__main__":
    counted = main(sys.argv[1:])
    print(dict(sorted(counted.items())))
    sys.exit(1 if counted["disagreements"] else 0)
