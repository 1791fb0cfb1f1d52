"""Laws of the MQTT codecs, whatever bytes they are fed, and round trips through what we encode ourselves."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncmg.codecs import mqtt as m
from asyncmg.codecs.http import Role
from asyncmg.codecs.mqtt import Publish
from asyncmg.codecs.mqtt_encode import encode_publish, publish_prefix
from asyncmg.codecs.mqtt_properties import (
    MAX_VARIABLE,
    RULES,
    Property,
    parse_properties,
    read_properties,
    read_variable,
    write_properties,
    write_variable,
)
from asyncmg.errors import InvalidPacket, LimitExceeded, RemoteProtocolError
from asyncmg.limits import MqttLimits
from tests.codecs.codec_list import one_by_one, split_at
from tests.codecs.mqtt_vector_file import MQTT_CODECS, MqttVector, feed, frame, greeting, make_codec
from tests.fuzz.fuzz_mqtt import CODES, LIMITS, encode, make_first, make_packet, make_properties

SEEDS = st.integers(0, 2**48)
ROLES = st.sampled_from(list(Role))
VERSIONS = st.sampled_from([4, 5])
CUTS = st.lists(st.integers(0, 1000), max_size=8)
FIRST = st.sampled_from(
    [*range(0x30, 0x3E), 0x10, 0x20, 0x40, 0x50, 0x62, 0x70, 0x82, 0x90, 0xA2, 0xB0, 0xC0, 0xE0, 0xF0]
)
FRAMES = st.lists(st.builds(frame, FIRST, st.binary(max_size=40)), max_size=6).map(b"".join)
GARBAGE = st.one_of(st.binary(max_size=200), FRAMES)
TOPIC = st.text(st.characters(exclude_characters="\0+#", exclude_categories=("Cs",)), min_size=1, max_size=40)

codecs = pytest.mark.parametrize("name", MQTT_CODECS)


def opposite(role: Role) -> Role:
    return Role.CLIENT if role is Role.SERVER else Role.SERVER


@codecs
@given(role=ROLES, version=VERSIONS, limits=st.sampled_from(LIMITS), greeted=st.booleans(), data=GARBAGE, cuts=CUTS)
def test_where_garbage_is_split_does_not_matter(
    name: str, role: Role, version: int, limits: MqttLimits, greeted: bool, data: bytes, cuts: list[int]
) -> None:
    if greeted:
        data = greeting(role, version) + data
    outcomes = []
    for pieces in ([data], split_at(data, cuts), one_by_one(data)):
        codec = MQTT_CODECS[name](role, limits, version)
        packets, error = feed(codec, pieces)
        outcomes.append((packets, str(error), codec.buffered, codec.version))
        if error is not None:
            assert isinstance(error, RemoteProtocolError)
            assert error.wire_code in CODES
            assert isinstance(error, LimitExceeded) or error.section.startswith("MQTT ")
            assert not codec.receive_data(data)
            assert codec.error is error
    assert outcomes[0] == outcomes[1] == outcomes[2]


@pytest.mark.skipif("native" not in MQTT_CODECS, reason="no C core")
@given(role=ROLES, version=VERSIONS, limits=st.sampled_from(LIMITS), greeted=st.booleans(), data=GARBAGE, cuts=CUTS)
def test_the_codecs_agree_about_garbage(
    role: Role, version: int, limits: MqttLimits, greeted: bool, data: bytes, cuts: list[int]
) -> None:
    if greeted:
        data = greeting(role, version) + data
    native, portable = (MQTT_CODECS[name](role, limits, version) for name in ("native", "portable"))
    for piece in split_at(data, cuts):
        assert [*native.receive_data(piece)] == [*portable.receive_data(piece)]
        assert repr(native.error) == repr(portable.error)
        assert (native.version, native.buffered) == (portable.version, portable.buffered)


@codecs
@given(role=ROLES, version=VERSIONS, seed=SEEDS, cuts=CUTS)
def test_packets_round_trip(name: str, role: Role, version: int, seed: int, cuts: list[int]) -> None:
    chance = random.Random(seed)
    sender = opposite(role)
    packets = [make_first(chance, version, sender)]
    packets += [make_packet(chance, version, sender) for _ in range(4)]
    packets = [packet for packet in packets if packet.type != m.DISCONNECT] + [m.Disconnect()]
    if version == 4 and sender is Role.SERVER:
        packets.pop()
    data = b"".join(encode(packet, version, sender) for packet in packets)
    seen, error = feed(MQTT_CODECS[name](role, MqttLimits(), version), split_at(data, cuts))
    assert error is None
    assert seen == packets


@codecs
@given(
    version=VERSIONS,
    topic=TOPIC,
    payload=st.binary(max_size=300),
    qos=st.integers(0, 2),
    retain=st.booleans(),
    dup=st.booleans(),
    packet_id=st.integers(1, 65535),
)
def test_publish_round_trips(
    name: str, version: int, topic: str, payload: bytes, qos: int, retain: bool, dup: bool, packet_id: int
) -> None:
    if not qos:
        dup, packet_id = False, 0
    data = encode_publish(version, topic, payload, qos, retain, dup, packet_id)
    codec = make_codec(name, MqttVector(version=version))
    assert codec.receive_data(data) == [Publish(topic, payload, qos, retain, dup, packet_id)]
    if qos:
        before, behind = publish_prefix(version, topic, payload, qos, retain, dup)
        assert before + packet_id.to_bytes(2, "big") + behind == data


@given(kind=st.sampled_from(range(16)), role=ROLES, seed=SEEDS)
def test_properties_round_trip(kind: int, role: Role, seed: int) -> None:
    properties = make_properties(random.Random(seed), kind, role)
    raw = write_properties(properties, kind)
    framed = write_variable(len(raw)) + raw
    assert read_properties(framed + b"behind", 0, len(framed), kind, 100) == (properties, len(framed))
    assert parse_properties(raw, 0, len(raw), kind, 100) == properties


@given(
    kind=st.sampled_from(range(16)),
    raw=st.one_of(
        st.binary(max_size=60),
        st.lists(
            st.tuples(st.sampled_from(sorted(RULES)).map(lambda name: bytes([name])), st.binary(max_size=6)).map(
                b"".join
            )
        ).map(b"".join),
    ),
)
def test_properties_are_read_or_refused(kind: int, raw: bytes) -> None:
    """What is read can be written, and is the same then; nothing but refusals is raised."""
    try:
        properties = parse_properties(raw, 0, len(raw), kind, 3)
    except RemoteProtocolError:
        return
    again = write_properties(properties, kind)
    assert parse_properties(again, 0, len(again), kind, 3) == properties
    assert len(again) == len(raw)
    assert all(type(name) is Property for name in properties)


@given(st.integers(0, MAX_VARIABLE))
def test_variable_byte_integers_round_trip(number: int) -> None:
    data = write_variable(number)
    assert len(data) == 1 + (number > 127) + (number > 16383) + (number > 2097151)
    assert read_variable(data + b"\xff", 0, len(data)) == (number, len(data))


@given(version=VERSIONS, topic=st.text(max_size=6), qos=st.integers(-1, 4), packet_id=st.integers(-1, 70000))
def test_what_is_encoded_is_valid(version: int, topic: str, qos: int, packet_id: int) -> None:
    try:
        data = encode_publish(version, topic, b"x", qos, packet_id=packet_id)
    except InvalidPacket:
        return
    codec = make_codec("portable", MqttVector(version=version))
    assert codec.receive_data(data) == [Publish(topic, b"x", qos, False, False, packet_id)]
