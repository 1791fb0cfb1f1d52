"""Feed the MQTT codec anything: it raises nothing, and what comes out does not depend on where the input was cut.

    python tests/fuzz/fuzz_mqtt.py --inputs 1000000 --seed 1

Inputs are packets that asyncmg encodes itself, and the vectors, spliced and damaged, cut anywhere. Checked is: errors
are documented ones and final; the outcome is the same for each cut; what is kept stays below the limits; packets that
have not been damaged come out as they went in; what comes out can be encoded and comes out once more.
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

from asyncmg.codecs import mqtt as m
from asyncmg.codecs import mqtt_encode as e
from asyncmg.codecs.http import Role
from asyncmg.codecs.mqtt import Packet
from asyncmg.codecs.mqtt_properties import (
    IN_WILL,
    PAIR,
    RULES,
    TEXT,
    Properties,
    Property,
    PropertyValue,
    Rule,
    write_properties,
)
from asyncmg.errors import LimitExceeded, RemoteProtocolError
from asyncmg.limits import MqttLimits
from tests.codecs.codec_list import one_by_one, split_at
from tests.codecs.mqtt_vector_file import MQTT_CODECS, feed, greeting, read_mqtt_vectors

CODES = {0x81, 0x82, 0x84, 0x85, 0x8F, 0x90, 0x94, 0x95, 0x97}
LIMITS = [MqttLimits()] * 4 + [
    MqttLimits(max_packet=60, max_connect=80, max_small=20),
    MqttLimits(max_topic_length=9, max_topic_levels=3, max_client_id=5, max_user_properties=1),
]
CORPUS: dict[tuple[Role, int], list[bytes]] = collections.defaultdict(list)
for vector in read_mqtt_vectors():
    if len(vector.data) < 300:
        first = b"" if vector.is_new else greeting(vector.role, vector.version)
        CORPUS[vector.role, vector.version].append(first + vector.data)

TEXTS = ["", "a", "k", "reply/to", "\u00e4\u20ac\U0001f600", "\ufeff", "x" * 70]
TOPICS = ["a", "a/b", "/", "$SYS/a", "sensors/kitchen/temperature", "\u00e4/\u20ac", "a" * 200]
FILTERS = ["a", "#", "+", "a/+/#", "+/+", "/", "$SYS/#", "$share/g/a/+", "$share/g/#", "\u00e4/+"]


def make_value(chance: random.Random, rule: Rule) -> PropertyValue:
    def single() -> PropertyValue:
        if rule.type == PAIR:
            return (chance.choice(TEXTS), chance.choice(TEXTS))  # type: ignore[return-value]
        if rule.type == TEXT:
            return chance.choice(TEXTS)
        if rule.most == 0:
            return chance.randbytes(chance.choice([0, 1, 5, 130]))
        return chance.choice([rule.least, rule.most, chance.randint(rule.least, min(rule.most, 300))])

    if not rule.may_repeat:
        return single()
    return [single() for _ in range(chance.choice([1, 1, 2, 3]))]  # type: ignore[return-value]


def make_properties(chance: random.Random, kind: int, sender: Role) -> Properties:
    found: dict[Property, PropertyValue] = {}
    if chance.random() < 0.4:
        return found
    allowed = [rule for rule in RULES.values() if kind in rule.packets]
    for rule in chance.sample(allowed, chance.randint(0, min(len(allowed), 6))):
        found[rule.property] = make_value(chance, rule)
    identifiers = found.get(Property.SUBSCRIPTION_IDENTIFIER)
    if isinstance(identifiers, list):
        if kind == m.PUBLISH and sender is Role.CLIENT:
            del found[Property.SUBSCRIPTION_IDENTIFIER]
        elif kind == m.SUBSCRIBE:
            del identifiers[1:]
    if Property.AUTHENTICATION_DATA in found:
        found[Property.AUTHENTICATION_METHOD] = "m"
    if kind == m.DISCONNECT:
        found.pop(Property.SESSION_EXPIRY_INTERVAL, None)
    return found


def make_connect(chance: random.Random, version: int) -> m.Connect:
    packet = m.Connect(version, chance.choice(["", "id", "\u00e4" * 30]), chance.random() < 0.5)
    packet.clean_start = packet.clean_start or not packet.client_id
    packet.keep_alive = chance.choice([0, 60, 65535])
    if version == 5:
        packet.properties = make_properties(chance, m.CONNECT, Role.CLIENT)
    if chance.random() < 0.5:
        packet.will_topic = chance.choice(TOPICS)
        packet.will_payload = chance.randbytes(chance.choice([0, 3, 150]))
        packet.will_qos = chance.randrange(3)
        packet.will_retain = chance.random() < 0.5
        if version == 5:
            packet.will_properties = make_properties(chance, IN_WILL, Role.CLIENT)
    if chance.random() < 0.5:
        packet.username = chance.choice(TEXTS)
    if chance.random() < 0.5 and (version == 5 or packet.username is not None):
        packet.password = chance.randbytes(4)
    return packet


def make_publish(chance: random.Random, version: int, sender: Role) -> m.Publish:
    qos = chance.randrange(3)
    packet = m.Publish(chance.choice(TOPICS), chance.randbytes(chance.choice([0, 1, 20, 130])), qos)
    packet.retain = chance.random() < 0.3
    if qos:
        packet.dup = chance.random() < 0.3
        packet.packet_id = chance.choice([1, 2, 256, 65535])
    if version == 5:
        properties = make_properties(chance, m.PUBLISH, sender)
        packet.raw_properties = write_properties(properties, m.PUBLISH)
        if Property.TOPIC_ALIAS in properties and chance.random() < 0.5:
            packet.topic = ""
    return packet


def make_packet(chance: random.Random, version: int, sender: Role) -> Packet:
    """Make a packet that this side may send at any time; DISCONNECT only seldom, because nothing is read behind it."""

    def properties(kind: int) -> Properties:
        return make_properties(chance, kind, sender) if version == 5 else {}

    packet_id = chance.choice([1, 2, 256, 65535])
    kind = chance.choice(
        [m.PUBLISH] * 6 + [m.PUBACK, m.PUBREC, m.PUBREL, m.PUBCOMP] + [8, 8, 10, 12, 8, 10, 12, 14, 15]
    )
    if kind == m.PUBLISH:
        return make_publish(chance, version, sender)
    if m.PUBACK <= kind <= m.PUBCOMP:
        code = chance.choice(sorted(m.REASON_CODES[kind])) if version == 5 else 0
        return m.Ack(kind, packet_id, code, properties(kind))
    if kind == m.DISCONNECT and chance.random() < 0.2 and (version == 5 or sender is Role.CLIENT):
        code = chance.choice(sorted(m.REASON_CODES_OF[kind, sender])) if version == 5 else 0
        return m.Disconnect(code, properties(kind))
    if kind == m.AUTH and version == 5:
        code = chance.choice(sorted(m.REASON_CODES_OF[kind, sender]))
        return m.Auth(code, {**properties(kind), Property.AUTHENTICATION_METHOD: "m"})
    if kind == m.SUBSCRIBE:
        if sender is Role.SERVER:
            codes = (m.REASON_CODES if version == 5 else m.REASON_CODES_V311)[m.SUBACK]
            return m.Suback(packet_id, bytes(chance.choices(sorted(codes), k=3)), properties(m.SUBACK))
        options = [0, 1, 2, 0x1A, 0x28] if version == 5 else [0, 1, 2]
        filters = [(chance.choice(FILTERS), chance.choice(options)) for _ in range(chance.choice([1, 1, 2, 5]))]
        return m.Subscribe(packet_id, filters, properties(m.SUBSCRIBE))
    if kind == m.UNSUBSCRIBE:
        if sender is Role.SERVER:
            codes = sorted(m.REASON_CODES[m.UNSUBACK])
            return m.Unsuback(
                packet_id, bytes(chance.choices(codes, k=2)) if version == 5 else b"", properties(m.UNSUBACK)
            )
        return m.Unsubscribe(packet_id, chance.choices(FILTERS, k=2), properties(m.UNSUBSCRIBE))
    return m.PING_RESPONSE if sender is Role.SERVER else m.PING_REQUEST


def make_first(chance: random.Random, version: int, sender: Role) -> Packet:
    if sender is Role.CLIENT:
        return make_connect(chance, version)
    code = chance.choice(sorted((m.REASON_CODES if version == 5 else m.REASON_CODES_V311)[m.CONNACK]))
    properties = make_properties(chance, m.CONNACK, sender) if version == 5 else {}
    return m.Connack(not code and chance.random() < 0.5, code, properties)


def encode(packet: Packet, version: int, sender: Role) -> bytes:
    """Encode any packet."""
    if isinstance(packet, m.Connect):
        return e.encode_connect(**{name: getattr(packet, name) for name in packet.__slots__})
    if isinstance(packet, m.Connack):
        return e.encode_connack(version, packet.session_present, packet.reason_code, packet.properties)
    if isinstance(packet, m.Publish):
        return e.encode_publish(
            version,
            packet.topic,
            packet.payload,
            packet.qos,
            packet.retain,
            packet.dup,
            packet.packet_id,
            packet.raw_properties,
        )
    if isinstance(packet, m.Ack):
        return e.encode_ack(version, packet.type, packet.packet_id, packet.reason_code, packet.properties)
    if isinstance(packet, m.Subscribe):
        return e.encode_subscribe(version, packet.packet_id, packet.filters, packet.properties)
    if isinstance(packet, m.Suback):
        return e.encode_suback(version, packet.packet_id, packet.reason_codes, packet.properties)
    if isinstance(packet, m.Unsubscribe):
        return e.encode_unsubscribe(version, packet.packet_id, packet.filters, packet.properties)
    if isinstance(packet, m.Unsuback):
        return e.encode_unsuback(version, packet.packet_id, packet.reason_codes, packet.properties)
    if isinstance(packet, m.Disconnect):
        return e.encode_disconnect(version, packet.reason_code, packet.properties, sender)
    if isinstance(packet, m.Auth):
        return e.encode_auth(version, packet.reason_code, packet.properties, sender)
    return e.PINGREQ_BYTES if packet.type == m.PINGREQ else e.PINGRESP_BYTES


class Case:
    """One input, and how it is cut."""

    def __init__(self, chance: random.Random) -> None:
        self.role = chance.choice(list(Role))
        self.version = chance.choice([4, 5])
        self.sender = Role.CLIENT if self.role is Role.SERVER else Role.SERVER
        self.limits = chance.choice(LIMITS)
        self.packets = [make_first(chance, self.version, self.sender)]
        self.packets += [make_packet(chance, self.version, self.sender) for _ in range(chance.choice([0, 1, 2, 5]))]
        data = b"".join(encode(packet, self.version, self.sender) for packet in self.packets)
        self.is_damaged = chance.random() < 0.7
        if self.is_damaged:
            data = damage(chance, data, CORPUS[self.role, self.version])
        self.data = data
        places = [chance.randrange(len(data) + 1) for _ in range(chance.randrange(1, 6))]
        self.cuts = [[data], split_at(data, places), one_by_one(data)]

    def make(self, name: str) -> m.MqttCodec:
        return MQTT_CODECS[name](self.role, self.limits, 0 if self.role is Role.SERVER else self.version)

    def __str__(self) -> str:
        return f"{self.role} version={self.version} {self.limits} {self.data.hex(' ')}"


def damage(chance: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    kind = chance.random()
    if kind < 0.4:
        return chance.choice(corpus) + data[chance.randrange(len(data) + 1) :]
    if kind < 0.5:
        return data[: chance.randrange(1, len(data) + 1)]
    for _ in range(chance.choice([1, 1, 2, 4])):
        place = chance.randrange(len(data))
        new = chance.choice([chance.randbytes(1), bytes([data[place] ^ 1 << chance.randrange(8)]), b"", b"\0", b"\xff"])
        data = data[:place] + new + data[place + 1 :]
        data = data or b"\0"
    return data


def run(case: Case, name: str, pieces: Sequence[bytes]) -> tuple[list[Packet], str, int]:
    """Feed a codec; return the packets, the error, and what is kept."""
    codec = case.make(name)
    packets, error = feed(codec, pieces)
    most = max(case.limits.max_packet, case.limits.max_connect, case.limits.max_small)
    assert codec.buffered <= most
    if error is not None:
        assert isinstance(error, RemoteProtocolError)
        assert error.wire_code in CODES, error
        assert isinstance(error, LimitExceeded) or error.section.startswith(
            f"MQTT {'3.1.1' if codec.version == 4 else '5.0'} "
        )
        assert not codec.receive_data(b"\xc0\0\xd0\0")
        assert codec.error is error
    return packets, "" if error is None else f"{error.wire_code:#x} {error}", codec.buffered


def fault_of(case: Case, name: str, seen: collections.Counter[str]) -> str:
    """What is wrong, "" when nothing is; seen counts what was met."""
    outcomes = [run(case, name, pieces) for pieces in case.cuts]
    packets, error, _ = outcomes[0]
    if not (outcomes[0] == outcomes[1] == outcomes[2]):
        return f"cuts matter: {outcomes}"
    seen.update(f"packet {packet.type}" for packet in packets)
    seen[f"error {error[:4]}" if error else "no error"] += 1
    if not case.is_damaged and not error:
        ends = [number for number, packet in enumerate(case.packets) if packet.type == m.DISCONNECT]
        if packets != (case.packets[: ends[0] + 1] if ends else case.packets):
            return f"went in: {case.packets}, came out: {packets}"
    version = next((packet.version for packet in packets if isinstance(packet, m.Connect)), case.version)
    again = b"".join(encode(packet, version, case.sender) for packet in packets)
    codec = MQTT_CODECS[name](case.role, MqttLimits(), 0 if case.role is Role.SERVER else case.version)
    if codec.receive_data(again) != packets or codec.error is not None:
        return f"encoded once more: {codec.error}, {again.hex(' ')}"
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
        for name in MQTT_CODECS:
            try:
                what = fault_of(case, name, seen)
            except Exception as error:  # a codec raises nothing at all
                what = f"raised {error!r}"
            seen["inputs"] += 1
            if what:
                seen["faults"] += 1
                print(f"seed {options.seed}/{number}, {name}: {what}\n    {case}", flush=True)
        if not options.quiet and (number + 1) % 20_000 == 0:
            rate = (number + 1) / (time.monotonic() - began)
            print(f"{number + 1} inputs, {seen['faults']} faults, {rate:.0f}/s", flush=True)
    return seen


if __name__ == "__main__":
    counted = main(sys.argv[1:])
    print(dict(sorted(counted.items())))
    sys.exit(1 if counted["faults"] else 0)
