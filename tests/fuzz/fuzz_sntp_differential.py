"""SNTP in Python and in the C core: the same packet, the same refusal, the same verdict on a reply, the same times.

python tests/fuzz/fuzz_sntp_differential.py --inputs 1000000 --seed 1
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import random
import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[2]))

from asyncmg.codecs import sntp
from asyncmg.codecs.sntp import SntpPacket
from asyncmg.codecs.sntp_native import ERRORS
from asyncmg.core import Core, CoreUnavailable, load
from asyncmg.core.records import SNTP_PACKET
from asyncmg.errors import RemoteProtocolError
from tests.codecs.sntp_vector_file import SNTP_CODECS

FAULTS = [None, *ERRORS.values()]
EDGES = (0, 1, 2, 0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF)


def make_number(chance: random.Random, bits: int) -> int:
    if chance.random() < 0.5:
        return chance.choice(EDGES) & (1 << bits) - 1
    return chance.getrandbits(chance.randrange(1, bits + 1))


def make_input(chance: random.Random) -> bytes:
    """A datagram: mostly one of a server, that is nearly right."""
    if chance.random() < 0.1:
        return chance.randbytes(chance.choice([0, 1, 47, 48, 49, 52, 68, 1024, 1028]))
    first = chance.choice([0x24, 0x24, 0x24, 0x1C, 0xE4, chance.randrange(256)])
    data = bytes([first, chance.choice([1, 2, 2, 15, 16, 0, 255])]) + chance.randbytes(2)
    data += chance.choice([bytes(8), bytes(8), chance.randbytes(8), bytes(1) + chance.randbytes(3) + bytes(4)])
    data += chance.choice([b"GPS\0", b"RATE", b"DENY", bytes(4), chance.randbytes(4)])
    near = chance.getrandbits(64)
    for _ in range(4):
        value = chance.choice([near, near + 1, near - 1, make_number(chance, 64)]) % (1 << 64)
        data += value.to_bytes(8, "big")
    return data + chance.choice([b"", b"", b"", bytes(20), b"\0", chance.randbytes(8)])


def outcome(name: str, data: bytes) -> SntpPacket | str:
    try:
        return SNTP_CODECS[name](data)
    except RemoteProtocolError as exc:
        return f"{exc!r} {exc.section}"


def difference(core: Core, chance: random.Random, seen: collections.Counter[str]) -> str:
    """What is wrong about one input, "" when nothing is; seen counts what was met."""
    data = make_input(chance)
    portable, native = outcome("portable", data), outcome("native", data)
    if repr(portable) != repr(native):
        return f"{data.hex()}: native {native}, portable {portable}"
    if isinstance(portable, str):
        seen[portable] += 1
    else:
        if sntp.write_packet(portable) != data[:48]:
            return f"{data.hex()}: written as {sntp.write_packet(portable).hex()}"
        memory = ctypes.create_string_buffer(SNTP_PACKET.size)
        core.sntp.read(data, len(data), ctypes.addressof(memory))
        transmitted = chance.choice([portable.originate, portable.originate, portable.originate, 1])
        version = chance.choice([portable.version, portable.version, 3])
        ours = sntp.reply_fault(portable, transmitted, version)
        theirs = FAULTS[core.sntp.check(memory.raw, transmitted, version)]
        if ours is not theirs:
            return f"{data.hex()}: the core tells {theirs}, Python {ours}"
        seen[str(ours)] += 1
    return times_differ(core, chance)


def times_differ(core: Core, chance: random.Random) -> str:
    limit = 1 << 62  # years 1823 to 2116: nothing is out of range
    ns, around = (chance.choice([chance.randrange(-limit, limit), chance.randrange(-(10**10), 10**10)]) for _ in "ab")
    timestamp = make_number(chance, 64)
    if core.sntp.to_timestamp(ns) != sntp.to_timestamp(ns):
        return f"to_timestamp({ns})"
    if core.sntp.from_timestamp(timestamp, around) != sntp.from_timestamp(timestamp, around):
        return f"from_timestamp({timestamp}, {around})"
    if sntp.from_timestamp(sntp.to_timestamp(ns), ns + chance.randrange(-(10**18), 10**18)) != ns:
        return f"there and back: {ns}"
    times = [around + chance.randrange(-(10**12), 10**12) for _ in range(4)]
    offset, delay = ctypes.c_int64(), ctypes.c_int64()
    core.sntp.offset_and_delay(*times, ctypes.byref(offset), ctypes.byref(delay))
    return "" if (offset.value, delay.value) == sntp.offset_and_delay(*times) else f"offset_and_delay{times}"


def main(arguments: list[str]) -> collections.Counter[str]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    core = load()
    if core is None:
        raise CoreUnavailable("there is nothing to compare with")
    seen: collections.Counter[str] = collections.Counter()
    for number in range(options.inputs):
        try:
            what = difference(core, random.Random(f"{options.seed}/{number}"), seen)
        except Exception as error:  # a codec raises RemoteProtocolError, nothing else
            what = f"raised {error!r}"
        seen["inputs"] += 1
        if what:
            seen["disagreements"] += 1
            print(f"seed {options.seed}/{number}: {what}", flush=True)
    return seen


if __name__ == "__main__":
    counted = main(sys.argv[1:])
    print(dict(sorted(counted.items())))
    sys.exit(1 if counted["disagreements"] else 0)
