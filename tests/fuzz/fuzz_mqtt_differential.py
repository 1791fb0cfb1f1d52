"""The native and the portable MQTT codec: the same input has the same outcome.

    python tests/fuzz/fuzz_mqtt_differential.py --inputs 1000000 --seed 1

Inputs are those of fuzz_mqtt.py. After each piece both have to agree: the packets, the words of an error, its reason
code, the version, and what is kept.
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[2]))

from asyncmg.codecs.mqtt import MqttCodec, Packet
from tests.fuzz.fuzz_mqtt import Case

Seen = tuple[Sequence[Packet], str, int, int]


def describe(codec: MqttCodec, pieces: Sequence[bytes]) -> list[Seen]:
    """Everything about a codec that can be seen from outside, piece by piece."""
    seen: list[Seen] = []
    for piece in pieces:
        packets = [*codec.receive_data(piece)]
        error = "" if codec.error is None else f"{codec.error.wire_code:#x} {codec.error!r}"
        seen.append((packets, error, codec.version, codec.buffered))
    return seen


def difference(case: Case, seen: collections.Counter[str]) -> str:
    """What the codecs do not agree about, "" when they do; seen counts what was met."""
    portable: list[Seen] = []
    for pieces in case.cuts:
        portable = describe(case.make("portable"), pieces)
        native = describe(case.make("native"), pieces)
        if native != portable:
            place = next(i for i, (ours, theirs) in enumerate(zip(native, portable, strict=True)) if ours != theirs)
            return f"piece {place} of {len(pieces)}: native {native[place]}, portable {portable[place]}"
    seen.update(f"packet {packet.type}" for packets, *_ in portable for packet in packets)
    seen[f"error {portable[-1][1].partition(' ')[0]}" if portable[-1][1] else "no error"] += 1
    seen[portable[-1][1]] += 1
    return ""


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
    print({name: count for name, count in sorted(counted.items()) if "(" not in name and ":" not in name})
    sys.exit(1 if counted["disagreements"] else 0)
