"""What is the native MQTT codec's own: the C functions below it, what it holds, records of the engine's, threads."""

from __future__ import annotations

import ctypes
import os
import random
import re
import sys
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import asyncmg.core
from asyncmg.codecs import mqtt as m
from asyncmg.codecs import mqtt_native
from asyncmg.codecs.http import Role
from asyncmg.codecs.mqtt import Packet, Publish
from asyncmg.codecs.mqtt_encode import encode_ack, encode_connack, encode_connect, encode_publish, encode_subscribe
from asyncmg.codecs.mqtt_native import ERRORS, NativeMqttCodec, mqtt_error
from asyncmg.codecs.mqtt_portable import PortableMqttCodec
from asyncmg.codecs.mqtt_properties import RULES, Property, parse_properties
from asyncmg.core import Core
from asyncmg.core.records import (
    AMG_CLIENT,
    AMG_MQTT_SAME_TOPIC,
    AMG_SERVER,
    MQTT_CONNECT,
    MQTT_FILTER,
    MQTT_LIMITS,
    MQTT_PROPERTY,
    MQTT_RECORD,
    MQTT_STATE,
    mqtt_limits,
)
from asyncmg.errors import LimitExceeded
from asyncmg.limits import MqttLimits
from tests.codecs.codec_list import one_by_one, split_at
from tests.codecs.mqtt_vector_file import MQTT_CODECS, MqttVector, feed, greeting, make_codec, read_mqtt_vectors
from tests.fuzz.fuzz_mqtt import encode, make_connect, make_packet

CONNECT = encode_connect(5, "id")
HELLO = encode_publish(5, "a/b", b"hello")
MESSAGE = Publish("a/b", b"hello")
LIMITS = MqttLimits()


@pytest.fixture(autouse=True)
def core() -> Core:
    if "native" not in MQTT_CODECS:
        pytest.skip(f"no C core: {asyncmg.core.status().reason}")
    found = asyncmg.core.load()
    if found is None:
        assert os.environ.get("ASYNCMG_REQUIRE_CORE") != "1", asyncmg.core.status().reason
        pytest.skip("the C core is switched off")
    return found


def server(data: bytes = CONNECT, limits: MqttLimits = LIMITS) -> NativeMqttCodec:
    codec = NativeMqttCodec(Role.SERVER, limits)
    assert len(codec.receive_data(data)) == 1
    return codec


class Reader:
    """amg_mqtt_read, bare."""

    def __init__(self, core: Core, role: int = AMG_SERVER, limits: MqttLimits = LIMITS, room: int = 8) -> None:
        self.core = core
        self.limits = mqtt_limits(limits)
        self.state = ctypes.create_string_buffer(MQTT_STATE.size)
        self.records = ctypes.create_string_buffer(MQTT_RECORD.size * room)
        self.room = room
        self.position = ctypes.c_size_t()
        self.whole = ctypes.c_size_t()
        core.mqtt.init(ctypes.addressof(self.state), role, 5)

    def read(self, data: bytes, position: int = 0) -> list[Any]:
        self.position.value = position
        count = self.core.mqtt.read(
            ctypes.addressof(self.state),
            self.limits,
            data,
            len(data),
            ctypes.addressof(self.position),
            ctypes.addressof(self.records),
            self.room,
            ctypes.addressof(self.whole),
        )
        return list(MQTT_RECORD.iter_unpack(self.records.raw[: count * MQTT_RECORD.size]))


# -- the C functions ----------------------------------------------------------------------------------------------


def test_what_a_call_leaves(core: Core) -> None:
    reader = Reader(core, room=2)
    assert len(reader.read(CONNECT + HELLO * 3)) == 2
    assert (reader.position.value, reader.whole.value) == (len(CONNECT + HELLO), 0)
    data = b"behind" + HELLO + HELLO[:7]
    ((first, _, packet_id, begin, topic_end, properties, payload, end),) = reader.read(data, 6)
    assert (first, packet_id) == (0x30, 0)
    assert (data[begin:topic_end], data[payload:end], properties) == (b"a/b", b"hello", payload)
    assert (reader.position.value, reader.whole.value) == (6 + len(HELLO), len(HELLO))
    assert reader.read(b"\x30\x80\x80") == []
    assert (reader.position.value, reader.whole.value) == (0, 0)


def test_the_same_topic_is_told(core: Core) -> None:
    reader = Reader(core)
    other = encode_publish(5, "a/c", b"")
    ping = b"\xc0\0"
    records = reader.read(CONNECT + HELLO + HELLO + other + ping + other + other)
    told = [reason for first, reason, *_ in records if first == 0x30]
    assert told == [0, AMG_MQTT_SAME_TOPIC, 0, 0, AMG_MQTT_SAME_TOPIC]
    assert reader.read(HELLO)[0][1] == 0, "not from call to call"


def read_all(size: int, step: Any) -> list[bytes]:
    memory = ctypes.create_string_buffer(size)
    found = []
    while step(ctypes.addressof(memory)):
        found.append(memory.raw)
    return found


def test_fields_by_the_functions_of_the_core(core: Core) -> None:
    """They tell what the readers in Python make of the same packets."""
    chance = random.Random(2)
    for _ in range(300):
        packet = make_connect(chance, 5)
        data = encode(packet, 5, Role.CLIENT)
        ((*record, properties, payload, end),) = Reader(core).read(data)
        raw = MQTT_RECORD.pack(*record, properties, payload, end)
        memory = ctypes.create_string_buffer(MQTT_CONNECT.size)
        assert core.mqtt.connect_fields(data, raw, ctypes.addressof(memory))
        version, flags, keep_alive, *places = MQTT_CONNECT.unpack(memory.raw)
        pairs = list(zip(places[::2], places[1::2], strict=True))
        client_id, topic, message, user, password = [data[at : at + size] for at, size in (pairs[0], *pairs[2:])]
        assert (version, keep_alive, client_id.decode()) == (5, packet.keep_alive, packet.client_id)
        assert (flags & 4 != 0, topic) == (packet.will_topic is not None, (packet.will_topic or "").encode())
        assert (message, user, password) == (
            packet.will_payload,
            (packet.username or "").encode(),
            packet.password or b"",
        )
        assert parse_properties(data, *pairs[1], 0, 100) == packet.will_properties
        position = ctypes.c_uint32(properties)
        seen = read_all(
            MQTT_PROPERTY.size,
            lambda at, data=data, position=position, payload=payload: core.mqtt.next_property(
                data, ctypes.addressof(position), payload, at
            ),
        )
        assert position.value == payload
        numbers = {number: value for number, value, *_ in map(MQTT_PROPERTY.unpack, seen)}
        assert set(numbers) == set(packet.properties)
        for name, value in packet.properties.items():
            if isinstance(value, int):
                assert numbers[name] == value


def test_filters_by_the_functions_of_the_core(core: Core) -> None:
    filters = [("a/+", 1), ("$share/g/#", 0x18), ("\u00e4", 0x2E)]
    data = encode_subscribe(5, 3, filters)
    reader = Reader(core)
    reader.read(CONNECT)
    (record,) = reader.read(data)
    position = ctypes.c_uint32(record[6])
    raw = MQTT_RECORD.pack(*record)
    seen = read_all(MQTT_FILTER.size, lambda at: core.mqtt.next_filter(data, raw, ctypes.addressof(position), at))
    told = [(data[at : at + size].decode(), options) for at, size, options in map(MQTT_FILTER.unpack, seen)]
    assert told == filters


# -- errors and limits --------------------------------------------------------------------------------------------


def test_errors_are_those_of_the_header() -> None:
    header = (Path(asyncmg.core.__file__).parent / "amg.h").read_text(encoding="utf-8")
    assert list(ERRORS) == re.findall(r"^    (AMG_MQTT_E_\w+)", header, re.MULTILINE)
    for number, found in enumerate(ERRORS.values(), 1):
        value = next(iter(found)) if isinstance(found, dict) else 7
        for version in (4, 5):
            assert str(mqtt_error(number, value, LIMITS, version))


def test_limits_are_packed_once() -> None:
    assert MQTT_LIMITS.unpack(mqtt_limits(LIMITS)) == (1 << 20, 100_000, 10_000, 1024, 128, 256, 100, 0)
    assert mqtt_limits(MqttLimits()) is mqtt_limits(MqttLimits())
    high = replace(LIMITS, max_packet=2**70, max_topic_levels=2**32)
    assert MQTT_LIMITS.unpack(mqtt_limits(high))[0] == 2**32 - 1


BROKEN = [vector for vector in read_mqtt_vectors() if vector.code]


@pytest.mark.parametrize("vector", [pytest.param(vector, id=str(vector)) for vector in BROKEN])
def test_errors_are_told_in_the_same_words(vector: MqttVector) -> None:
    told = []
    for name in ("native", "portable"):
        codec = make_codec(name, vector)
        _, error = feed(codec, [vector.data])
        assert error is not None
        actual = error.actual if isinstance(error, LimitExceeded) else 0
        told.append((type(error), str(error), error.wire_code, actual, codec.version, codec.buffered))
    assert told[0] == told[1]


def test_each_error_is_met(core: Core) -> None:
    numbers, properties, types = set(), set(), set()
    for vector in BROKEN:
        reader = Reader(core, AMG_SERVER if vector.role is Role.SERVER else AMG_CLIENT, vector.limits, room=99)
        core.mqtt.init(ctypes.addressof(reader.state), reader.state.raw[4], vector.version)
        if not vector.is_new:
            reader.read(greeting(vector.role, vector.version))
        *_, (first, _, number, value, *_) = reader.read(vector.data)
        assert first == 0
        numbers.add(number)
        if number == list(ERRORS).index("AMG_MQTT_E_PROPERTY_RANGE") + 1:
            properties.add(value)
        if number == list(ERRORS).index("AMG_MQTT_E_BAD_REASON_CODE") + 1:
            types.add(value)
    assert numbers == set(range(1, len(ERRORS) + 1))
    assert properties == {number for number, rule in RULES.items() if rule.least or (rule.type == 1 and rule.most == 1)}
    assert types == set(m.BAD_REASON_CODE)


def assert_agreement(role: Role, version: int, data: bytes) -> None:
    outcomes = []
    for codec in (NativeMqttCodec(role, LIMITS, version), PortableMqttCodec(role, LIMITS, version)):
        packets, error = feed(codec, [data])
        outcomes.append((packets, str(error), codec.buffered, codec.version))
    assert outcomes[0] == outcomes[1], data.hex(" ")


@pytest.mark.parametrize("kind", [m.CONNACK, m.PUBACK, m.PUBREC, m.PUBREL, m.PUBCOMP, m.SUBACK, m.UNSUBACK, 14, 15])
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("version", [4, 5])
def test_every_reason_code(kind: int, role: Role, version: int) -> None:
    """Of every packet, from each side: allowed by both codecs or by none."""
    first = kind << 4 | (2 if kind == m.PUBREL else 0)
    before = b"" if kind == m.CONNACK else greeting(role, version)
    for code in range(256):
        body = bytes((0, code)) if kind == m.CONNACK else bytes((code,)) if kind > 13 else bytes((0, 1, code))
        if version == 5:
            extra = {m.CONNACK: b"\0", m.AUTH: b"\4\x15\0\1m"}
            body += extra.get(kind, b"")
            body = bytes((0, 1, 0, code)) if kind in (m.SUBACK, m.UNSUBACK) else body
        data = before + bytes((first, len(body))) + body
        assert_agreement(role, version, data)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("version", [4, 5])
def test_every_first_byte(role: Role, version: int) -> None:
    for before in (b"", greeting(role, version)):
        for first in range(256):
            for behind in (b"", b"\0", b"\2\0\1", b"\3\0\1a", b"\4\0\1a\0", b"\xff\xff\xff\xff"):
                assert_agreement(role, version, before + bytes((first,)) + behind)


@pytest.mark.parametrize("version", [4, 5])
def test_every_connect_flags_and_options(version: int) -> None:
    properties = b"\0" if version == 5 else b""
    for byte in range(256):
        for fields in range(5):
            body = b"\0\4MQTT" + bytes((version, byte, 0, 9)) + properties + b"\0\0" + properties + b"\0\1w" * fields
            assert_agreement(Role.SERVER, version, bytes((0x10, len(body))) + body)
        for name in (b"\0\1a", b"\0\x0a$share/g/a", b"\0\7$share/", b"\0\6$share"):
            body = b"\0\1" + properties + name + bytes((byte,))
            assert_agreement(Role.SERVER, version, greeting(Role.SERVER, version) + bytes((0x82, len(body))) + body)


def test_every_property_in_every_packet() -> None:
    """With a value that it may have, and with one less and one more than its least and most."""
    values = [b"", b"\0", b"\1", b"\2", b"\0\0", b"\0\1", b"\xff\xff", b"\0\1a", b"\0\1+", b"\0\1\0", b"\0\1a\0\1b"]
    values += [b"\0\0\0\0", b"\0\0\0\1", b"\xff\xff\xff\xff", b"\x80\1", b"\x80\x80\x80\x80\1", b"\x80\0"]
    bodies = {
        0x10: (b"\0\4MQTT\5\2\0\0", b"\0\1a"),
        0x20: (b"\0\0", b""),
        0x30: (b"\0\1t", b"x"),
        0x40: (b"\0\1\0", b""),
        0x82: (b"\0\1", b"\0\1a\0"),
        0x90: (b"\0\1", b"\0"),
        0xA2: (b"\0\1", b"\0\1a"),
        0xB0: (b"\0\1", b"\0"),
        0xE0: (b"\0", b""),
        0xF0: (b"\x18", b""),
    }
    for role in Role:
        for first, (before, behind) in bodies.items():
            start = b"" if first in (0x10, 0x20) else greeting(role, 5)
            for number in range(46):
                for value in values:
                    raw = bytes((number,)) + value
                    for repeats in (1, 2):
                        body = before + bytes((len(raw) * repeats,)) + raw * repeats + behind
                        assert_agreement(role, 5, start + bytes((first, len(body))) + body)


def at_a_limit(name: str, size: int) -> bytes:
    """A packet that has just so much of what a limit is about."""
    if name == "max_packet":
        return encode_publish(5, "t", b"x" * (size - 6))
    if name == "max_connect":
        return encode_subscribe(5, 1, [("x" * (size - 8), 0)])
    if name == "max_small":
        return encode_ack(5, m.PUBACK, 1, 0x80, {Property.REASON_STRING: "x" * (size - 9)})
    if name == "max_client_id":
        return encode_connect(5, "x" * size)
    if name == "max_user_properties":
        return encode_publish(5, "t", b"", properties={Property.USER_PROPERTY: [("", "")] * size})
    topic = "x" * size if name == "max_topic_length" else "/" * (size - 1)
    return encode_publish(5, topic, b"") + encode_subscribe(5, 1, [(topic, 0)])


LIMIT_NAMES = list(MqttLimits.__slots__)
LIMIT_NAMES = LIMIT_NAMES[LIMIT_NAMES.index("max_packet") : LIMIT_NAMES.index("max_user_properties") + 1]


@pytest.mark.parametrize("codec_name", MQTT_CODECS)
@pytest.mark.parametrize("name", LIMIT_NAMES)
def test_a_limit_may_be_reached_and_no_more(codec_name: str, name: str) -> None:
    limits = replace(LIMITS, **{name: 40})
    for size, is_over in ((39, False), (40, False), (41, True)):
        data = at_a_limit(name, size)
        codec = MQTT_CODECS[codec_name](Role.SERVER, limits, 0)
        packets, error = feed(codec, [data if name == "max_client_id" else CONNECT, data])
        told = str(error)
        if name == "max_client_id" and not is_over:
            assert "second CONNECT" in told
        elif is_over:
            assert f"41 is over {name}=40" in told
        else:
            assert error is None
            assert packets[1:]


# -- the codec ----------------------------------------------------------------------------------------------------


def test_an_idle_codec_holds_nothing_of_its_own() -> None:
    codec, other = server(), server()
    for data in (HELLO, HELLO * 700, b"\xc0\0", encode_subscribe(5, 1, [("a", 0)])):
        for pieces in ([data], one_by_one(data) if len(data) < 100 else [data[:333], data[333:]]):
            _, error = feed(codec, pieces)
            assert error is None
            assert (codec._header, codec._body, codec.buffered) == (b"", None, 0)
            assert codec._state is other._state
            assert codec._spare is other._spare
    assert sys.getsizeof(codec) < 180


@pytest.mark.parametrize("count", [2, 255, 256, 257, 512, 513, 20_000])
@pytest.mark.parametrize("tail", [b"", b"\x30", HELLO[:-1]])
def test_many_packets_at_once(count: int, tail: bytes) -> None:
    acks = [encode_ack(5, m.PUBACK, 1 + number % 60_000) for number in range(count)]
    codec = server()
    assert codec.receive_data(b"".join(acks) + tail) == [
        m.Ack(m.PUBACK, 1 + number % 60_000) for number in range(count)
    ]
    assert codec.buffered == len(tail)
    assert codec.receive_data(HELLO[len(tail) :] * (1 if tail else 0)) == ([MESSAGE] if tail else [])
    fresh = NativeMqttCodec(Role.SERVER, LIMITS)
    packets = fresh.receive_data(CONNECT + HELLO * count + tail)
    assert packets[1:] == [MESSAGE] * count
    assert fresh.buffered == len(tail)


def test_input_larger_than_one_call_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_native, "_MAX_INPUT", 50)
    codec = NativeMqttCodec(Role.SERVER, LIMITS)
    assert codec.receive_data(CONNECT + HELLO * 40)[1:] == [MESSAGE] * 40
    assert codec.receive_data(HELLO * 9 + HELLO[:3]) == [MESSAGE] * 9
    assert codec.receive_data(HELLO[3:] + HELLO * 9 + b"\0" + HELLO * 9) == [MESSAGE] * 10
    assert codec.error is not None
    assert codec.receive_data(HELLO * 9) == ()


def test_topics_are_remembered_within_bounds() -> None:
    mqtt_native._topics.clear()
    codec = server()
    most = mqtt_native._CACHED_TOPICS
    for number in range(2 * most + 5):
        (packet,) = codec.receive_data(encode_publish(5, f"t/{number}", b""))
        assert isinstance(packet, Publish)
        assert packet.topic == f"t/{number}"
        assert len(mqtt_native._topics) <= most
    known = len(mqtt_native._topics)
    long = "x" * 65
    assert codec.receive_data(encode_publish(5, long, b"")) == [Publish(long, b"")]
    assert len(mqtt_native._topics) == known
    (one,) = codec.receive_data(HELLO)
    (two,) = server().receive_data(HELLO)
    assert isinstance(one, Publish)
    assert isinstance(two, Publish)
    assert one.topic is two.topic
    alias = encode_publish(5, "", b"x", properties={Property.TOPIC_ALIAS: 1})
    assert [packet.topic for packet in codec.receive_data(alias + HELLO + alias)] == ["", "a/b", ""]  # type: ignore[union-attr]


def test_codecs_that_are_read_in_turn() -> None:
    """They work in one workspace: what one has begun does not reach another."""
    chance = random.Random(4)
    packets = [make_packet(chance, 5, Role.CLIENT) for _ in range(20)]
    packets = [packet for packet in packets if packet.type != m.DISCONNECT]
    data = b"".join(encode(packet, 5, Role.CLIENT) for packet in packets)
    codecs = [NativeMqttCodec(Role.SERVER, LIMITS) for _ in range(30)]
    inputs = [split_at(CONNECT + data, [chance.randrange(len(data)) for _ in range(9)]) for _ in codecs]
    seen: list[list[Packet]] = [[] for _ in codecs]
    for turn in range(11):
        for codec, pieces, found in zip(codecs, inputs, seen, strict=True):
            if turn < len(pieces):
                found += codec.receive_data(pieces[turn])
    for codec, found in zip(codecs, seen, strict=True):
        assert codec.error is None
        assert found[1:] == packets


def test_kinds_do_not_share_a_workspace() -> None:
    tight = server(limits=replace(LIMITS, max_packet=9))
    old = server(encode_connect(4, "id"))
    client = NativeMqttCodec(Role.CLIENT, LIMITS, 5)
    client.receive_data(encode_connack(5, False, 0))
    fresh = NativeMqttCodec(Role.SERVER, LIMITS)
    plain = server()
    for _ in range(2):
        assert plain.receive_data(HELLO) == [MESSAGE]
        assert client.receive_data(HELLO) == [MESSAGE]
        assert old.receive_data(encode_publish(4, "a/b", b"hello")) == [MESSAGE]
    assert tight.receive_data(HELLO) == []
    assert "max_packet=9" in str(tight.error)
    assert old.receive_data(b"\xf0\0") == []
    assert "MQTT 3.1.1" in str(old.error)
    assert fresh.receive_data(HELLO) == []
    assert "first packet is not a CONNECT" in str(fresh.error)
    assert plain.receive_data(HELLO) == [MESSAGE]


def test_threads_do_not_disturb_each_other() -> None:
    failures: list[object] = []

    def work(number: int) -> None:
        topic, payload = f"t/{number}", b"%d" % number * 40
        one = encode_publish(5, topic, payload, 1, packet_id=number + 1)
        data = one + encode_ack(5, m.PUBACK, number + 7) * 3 + one * 3
        expected = [Publish(topic, payload, 1, packet_id=number + 1), *[m.Ack(m.PUBACK, number + 7)] * 3]
        expected += expected[:1] * 3
        codec = server()
        for round_number in range(300):
            cut = round_number % len(data)
            packets, _ = feed(codec, [data[:cut], data[cut:]])
            if packets != expected:
                failures.append(packets)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failures == []


# -- records of the engine's --------------------------------------------------------------------------------------


def records_of(core: Core, codec: NativeMqttCodec, data: bytes) -> Iterable[Any]:
    """What an engine would tell that has taken over from a codec."""
    reader = Reader(core, room=99)
    exported = codec.export()
    assert exported[: MQTT_LIMITS.size] == reader.limits
    reader.state.raw = exported[MQTT_LIMITS.size :]
    found = reader.read(data)
    assert reader.position.value == len(data)
    return found


def test_records_become_packets(core: Core) -> None:
    chance = random.Random(8)
    for _ in range(50):
        packets = [make_packet(chance, 5, Role.CLIENT) for _ in range(12)]
        data = b"...." + b"".join(encode(packet, 5, Role.CLIENT) for packet in packets)
        ends = [number for number, packet in enumerate(packets) if packet.type == m.DISCONNECT]
        codec = server()
        reader = Reader(core, room=99)
        reader.state.raw = codec.export()[MQTT_LIMITS.size :]
        arena = (ctypes.c_char * len(data)).from_buffer_copy(data)
        assert codec.take(reader.read(data, 4), arena) == (packets[: ends[0] + 1] if ends else packets)


def test_what_is_exported(core: Core) -> None:
    fresh = NativeMqttCodec(Role.SERVER, LIMITS)
    assert fresh.export() == b""
    codec = server(encode_connect(5, "id", properties={Property.SESSION_EXPIRY_INTERVAL: 5}))
    state = MQTT_STATE.unpack(codec.export()[MQTT_LIMITS.size :])
    assert state == (0, AMG_SERVER, 5, 1, 1, 0, *bytes(7))
    client = NativeMqttCodec(Role.CLIENT, LIMITS, 4)
    assert client.export() == b""
    client.receive_data(encode_connack(4, False, 0))
    assert MQTT_STATE.unpack(client.export()[MQTT_LIMITS.size :])[:5] == (0, AMG_CLIENT, 4, 1, 0)


def test_the_engine_goes_on_in_the_middle_of_a_packet(core: Core) -> None:
    large = encode_publish(5, "a/b", b"x" * 300)
    codec = server()
    codec.receive_data(large[:50])
    missing, *_ = MQTT_STATE.unpack(codec.export()[MQTT_LIMITS.size :])
    assert missing == len(large) - 50
    assert codec.receive_data(large[50:]) == [Publish("a/b", b"x" * 300)]
    codec.receive_data(large[:2])
    assert codec.buffered == 2
    state = MQTT_STATE.unpack(codec.export()[MQTT_LIMITS.size :])
    assert (state[0], state[5], bytes(state[6:10])) == (0, 2, large[:2] + b"\0\0")
    assert codec.buffered == 0, "the engine has them now"
    assert codec.take(records_of(core, codec, HELLO), HELLO) == [MESSAGE]


def test_an_error_among_the_records_is_final(core: Core) -> None:
    codec = server()
    data = HELLO + b"\x40\x02\0\0" + HELLO
    assert codec.take(records_of(core, codec, data), data) == [MESSAGE]
    assert codec.error is not None
    assert codec.error.wire_code == 0x82
    assert codec.export() == b""
    assert codec.take([(0x30, 0, 0, 0, 0, 0, 0, 0)], b"") == []
    assert codec.receive_data(HELLO) == ()
    assert codec.buffered == 0
