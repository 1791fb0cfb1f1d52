"""Every vector of tests/vectors/mqtt_*.txt, on every codec, fed in every way; and what the codecs encode."""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable

import pytest

from asyncmg.codecs import mqtt, mqtt_encode, mqtt_properties, mqtt_topics
from asyncmg.codecs.http import Role
from asyncmg.codecs.mqtt import MqttCodec, Packet, Publish
from asyncmg.codecs.mqtt_properties import Fault, Property
from asyncmg.errors import InvalidPacket, LimitExceeded, LocalProtocolError, RemoteProtocolError
from asyncmg.limits import MqttLimits
from tests.codecs.codec_list import one_by_one, split_at
from tests.codecs.mqtt_vector_file import (
    MQTT_CODECS,
    MqttVector,
    feed,
    greeting,
    make_codec,
    ping,
    read_mqtt_vectors,
    variable,
)

VECTORS = read_mqtt_vectors()
CASES = [pytest.param(name, vector, id=f"{name}: {vector}") for name in MQTT_CODECS for vector in VECTORS]
MOST_STEPS = 3000  # longer input is not fed byte by byte


def check(name: str, vector: MqttVector, pieces: list[bytes]) -> MqttCodec:
    codec = make_codec(name, vector)
    packets, error = feed(codec, pieces)
    assert packets == vector.packets
    assert [type(packet) for packet in packets] == [type(packet) for packet in vector.packets]
    if not vector.code:
        assert error is None
        assert codec.buffered == vector.buffered
        return codec
    assert isinstance(error, RemoteProtocolError)
    assert error.wire_code == vector.code
    if vector.rule.startswith("max_"):
        assert isinstance(error, LimitExceeded)
        assert error.limit == f"{vector.rule}={getattr(vector.limits, vector.rule)}"
        assert error.actual > getattr(vector.limits, vector.rule)
    else:
        where = f"[MQTT-{vector.rule}]" if "-" in vector.rule else f"section {vector.rule}"
        level = "3.1.1" if codec.version == 4 else "5.0"
        assert error.section == f"MQTT {level} {where}"
    for more in (b"", b"\xc0\0", b"\x30\3\0\1a", b"\xff" * 9):
        assert not codec.receive_data(more)
        assert codec.error is error
    return codec


@pytest.mark.parametrize(("name", "vector"), CASES)
def test_whole(name: str, vector: MqttVector) -> None:
    check(name, vector, [vector.data])


@pytest.mark.parametrize(("name", "vector"), CASES)
def test_byte_by_byte(name: str, vector: MqttVector) -> None:
    data = vector.data
    if len(data) <= MOST_STEPS:
        check(name, vector, one_by_one(data))
        check(name, vector, [piece for byte in one_by_one(data) for piece in (byte, b"")])
    else:
        check(name, vector, split_at(data, range(0, len(data), len(data) // MOST_STEPS + 1)))


@pytest.mark.parametrize(("name", "vector"), CASES)
def test_split_anywhere(name: str, vector: MqttVector) -> None:
    chance = random.Random(zlib.crc32(vector.data))
    size = len(vector.data)
    for _ in range(6):
        places = [chance.randrange(size + 1) for _ in range(chance.randrange(1, 8))]
        check(name, vector, split_at(vector.data, places))
    for place in (1, 2, 3, 4, 5, 6, size - 1, size - 2):
        check(name, vector, split_at(vector.data, [place]))


def is_over(vector: MqttVector) -> bool:
    return bool(vector.code or any(isinstance(packet, mqtt.Disconnect) for packet in vector.packets))


WHOLE = [case for case in CASES if not case.values[1].buffered]


@pytest.mark.parametrize(("name", "vector"), WHOLE)
def test_with_a_packet_behind(name: str, vector: MqttVector) -> None:
    """It changes nothing, and it is read after; unless there is an error or a DISCONNECT before it."""
    data, (behind, its_packet) = vector.data, ping(vector.role)
    packets = vector.packets if is_over(vector) else [*vector.packets, its_packet]
    for pieces in ([data + behind], [data, behind], [data + behind[:1], behind[1:]]):
        seen, error = feed(make_codec(name, vector), pieces)
        assert seen == packets
        assert (0 if error is None else error.wire_code) == vector.code


def all_faults() -> list[tuple[Fault, int]]:
    """Every fault, once for each version whose rules it breaks."""
    faults = {
        value
        for module in (mqtt, mqtt_properties, mqtt_topics)
        for value in vars(module).values()
        if isinstance(value, Fault)
    }
    faults |= set(mqtt.BAD_REASON_CODE.values())
    for rule in mqtt_properties.RULES.values():
        if rule.least or (rule.type == mqtt_properties.BYTE and rule.most == 1):
            faults.add(rule.fault)
    return sorted((fault, version) for fault in faults for version in (4, 5) if (fault.in_v4, fault.in_v5)[version - 4])


def test_every_fault_is_met() -> None:
    met = {}
    for vector in VECTORS:
        codec = make_codec("portable", vector)
        feed(codec, [vector.data])
        if codec.error is not None:
            met[str(codec.error)] = vector.name
    # These are told before a server knows the version, as of 5.0.
    early = {(fault, 4) for fault in (mqtt.NOT_CONNECT_FIRST, mqtt.BAD_PROTOCOL_NAME, mqtt.BAD_PROTOCOL_LEVEL)}
    wanted = [str(mqtt_properties.refuse(*pair)) for pair in all_faults() if pair not in early]
    assert [text for text in wanted if text not in met] == []
    assert len(VECTORS) >= 300


def test_every_limit_is_met() -> None:
    limits = {vector.rule for vector in VECTORS if vector.rule.startswith("max_")}
    names = MqttLimits.__slots__
    assert limits == set(names[names.index("max_packet") : names.index("max_user_properties") + 1])


@pytest.mark.parametrize("name", MQTT_CODECS)
def test_a_large_packet_in_small_pieces_takes_linear_time(name: str) -> None:
    """A byte at a time; what is kept stays below the limit, and no byte is handed out before its packet is whole."""
    size = 400_000
    data = b"\x30" + variable(size + 3) + b"\0\1a" + b"x" * size
    codec = MQTT_CODECS[name](Role.SERVER, MqttLimits(), 0)
    codec.receive_data(greeting(Role.SERVER, 4))
    began = time.perf_counter()
    for number in range(len(data) - 1):
        assert not codec.receive_data(data[number : number + 1])
        assert codec.buffered == number + 1
    assert time.perf_counter() - began < 5, "80 GB would have to be copied"
    assert codec.receive_data(data[-1:]) == [Publish("a", b"x" * size)]
    assert codec.buffered == 0


@pytest.mark.parametrize("name", MQTT_CODECS)
def test_the_version_is_known_from_the_connect(name: str) -> None:
    for version in (4, 5):
        codec = MQTT_CODECS[name](Role.SERVER, MqttLimits(), 0)
        data = greeting(Role.SERVER, version)
        codec.receive_data(data[:-1])
        assert codec.version == 0
        codec.receive_data(data[-1:])
        assert codec.version == version


@pytest.mark.parametrize("name", MQTT_CODECS)
def test_a_client_knows_its_version(name: str) -> None:
    with pytest.raises(ValueError):
        MQTT_CODECS[name](Role.CLIENT, MqttLimits(), 0)


def test_properties_of_a_publish_are_parsed_on_demand() -> None:
    wanted = {
        Property.TOPIC_ALIAS: 3,
        Property.USER_PROPERTY: [("a", "b"), ("a", "c")],
        Property.SUBSCRIPTION_IDENTIFIER: [1, 268_435_455],
    }
    raw = mqtt_properties.write_properties(wanted, mqtt.PUBLISH)
    packet = Publish("a", b"", raw_properties=raw)
    assert packet.properties() == wanted
    assert Publish("a", b"").properties() == {}


def test_packets_show_and_compare_their_fields() -> None:
    assert repr(mqtt.Disconnect(4)) == "Disconnect(properties=mappingproxy({}), reason_code=4)"
    assert mqtt.Disconnect(4) == mqtt.Disconnect(4, {})
    assert mqtt.Disconnect(4) != mqtt.Disconnect(0)
    assert mqtt.Disconnect(4) != mqtt.Auth(4)
    packets: list[Packet] = [mqtt.PING_REQUEST, mqtt.Ack(mqtt.PUBREL, 1), mqtt.Suback(1, b"\0")]
    assert [packet.type for packet in packets] == [mqtt.PINGREQ, mqtt.PUBREL, mqtt.SUBACK]


# -- what may not be encoded -----------------------------------------------------------------------------------------

P = Property
e = mqtt_encode
REFUSED: dict[str, Callable[[], object]] = {
    "version": lambda: e.encode_publish(3, "a", b""),
    "version of an ack": lambda: e.encode_ack(6, mqtt.PUBACK, 1, 0x80),
    "empty topic": lambda: e.encode_publish(4, "", b""),
    "empty topic without an alias": lambda: e.encode_publish(5, "", b"", properties={P.CONTENT_TYPE: "a"}),
    "empty topic without a raw alias": lambda: e.encode_publish(5, "", b"", properties=b"\1\0"),
    "wildcard": lambda: e.encode_publish(5, "a/+", b""),
    "long wildcard": lambda: e.encode_publish(5, "a" * 300 + "#", b""),
    "NUL": lambda: e.encode_publish(5, "a\0", b""),
    "surrogate": lambda: e.encode_publish(5, "\ud800", b""),
    "long topic": lambda: e.encode_publish(5, "a" * 65536, b""),
    "QoS": lambda: e.encode_publish(5, "a", b"", 3, packet_id=1),
    "DUP": lambda: e.encode_publish(5, "a", b"", 0, dup=True),
    "packet identifier with QoS 0": lambda: e.encode_publish(5, "a", b"", 0, packet_id=1),
    "packet identifier": lambda: e.encode_publish(5, "a", b"", 1),
    "large packet identifier": lambda: e.encode_publish(5, "a", b"", 1, packet_id=65536),
    "properties of 3.1.1": lambda: e.encode_publish(4, "a", b"", properties={P.TOPIC_ALIAS: 1}),
    "prefix with QoS 0": lambda: e.publish_prefix(5, "a", b"", 0),
    "topic alias": lambda: e.encode_publish(5, "a", b"", properties={P.TOPIC_ALIAS: 0}),
    "response topic": lambda: e.encode_publish(5, "a", b"", properties={P.RESPONSE_TOPIC: "+"}),
    "misplaced property": lambda: e.encode_publish(5, "a", b"", properties={P.MAXIMUM_QOS: 0}),
    "type of a property": lambda: e.encode_publish(5, "a", b"", properties={P.CONTENT_TYPE: 1}),
    "half a pair": lambda: e.encode_publish(5, "a", b"", properties={P.USER_PROPERTY: [("a",)]}),
    "no list": lambda: e.encode_publish(5, "a", b"", properties={P.SUBSCRIPTION_IDENTIFIER: 1}),
    "large variable": lambda: e.encode_publish(5, "a", b"", properties={P.SUBSCRIPTION_IDENTIFIER: [2**28]}),
    "large packet": lambda: mqtt_properties.write_variable(2**28),
    "two subscription identifiers": lambda: e.encode_subscribe(5, 1, [("a", 0)], {P.SUBSCRIPTION_IDENTIFIER: [1, 2]}),
    "authentication data": lambda: e.encode_connect(5, properties={P.AUTHENTICATION_DATA: b""}),
    "keep alive": lambda: e.encode_connect(5, keep_alive=65536),
    "client identifier": lambda: e.encode_connect(4, "", False),
    "password": lambda: e.encode_connect(4, "a", password=b""),
    "will QoS": lambda: e.encode_connect(4, "a", will_topic="a", will_qos=3),
    "will topic": lambda: e.encode_connect(4, "a", will_topic="#"),
    "will without a topic": lambda: e.encode_connect(4, "a", will_retain=True),
    "CONNACK": lambda: e.encode_connack(4, False, 0x80),
    "session of a refusal": lambda: e.encode_connack(5, True, 0x80),
    "type of an ack": lambda: e.encode_ack(5, mqtt.SUBACK, 1),
    "reason of 3.1.1": lambda: e.encode_ack(4, mqtt.PUBACK, 1, 0x80),
    "reason of a PUBREL": lambda: e.encode_ack(5, mqtt.PUBREL, 1, 0x80),
    "packet identifier of a SUBSCRIBE": lambda: e.encode_subscribe(5, 0, [("a", 0)]),
    "properties of a SUBSCRIBE of 3.1.1": lambda: e.encode_subscribe(4, 1, [("a", 0)], {P.USER_PROPERTY: [("a", "b")]}),
    "no filter": lambda: e.encode_subscribe(5, 1, []),
    "filter": lambda: e.encode_subscribe(5, 1, [("a+", 0)]),
    "options": lambda: e.encode_subscribe(5, 1, [("a", 3)]),
    "options of 5.0": lambda: e.encode_subscribe(4, 1, [("a", 4)]),
    "retain handling": lambda: e.encode_subscribe(5, 1, [("a", 0x30)]),
    "no local": lambda: e.encode_subscribe(5, 1, [("$share/a/b", 4)]),
    "no code": lambda: e.encode_suback(5, 1, b""),
    "code": lambda: e.encode_suback(4, 1, b"\x87"),
    "no filter to leave": lambda: e.encode_unsubscribe(5, 1, []),
    "UNSUBACK": lambda: e.encode_unsuback(5, 1),
    "UNSUBACK of 3.1.1": lambda: e.encode_unsuback(4, 1, b"\0"),
    "code of an UNSUBACK": lambda: e.encode_unsuback(5, 1, b"\1"),
    "DISCONNECT of 3.1.1": lambda: e.encode_disconnect(4, 4),
    "DISCONNECT of a server": lambda: e.encode_disconnect(5, 4, role=Role.SERVER),
    "expiry by a server": lambda: e.encode_disconnect(5, 0, {P.SESSION_EXPIRY_INTERVAL: 0}, Role.SERVER),
    "AUTH of 3.1.1": lambda: e.encode_auth(4, 0, {}, Role.SERVER),
    "AUTH": lambda: e.encode_auth(5, 0x18, {}),
    "code of an AUTH": lambda: e.encode_auth(5, 0x19, {P.AUTHENTICATION_METHOD: "m"}, Role.SERVER),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_forbidden_is_not_encoded(what: str) -> None:
    with pytest.raises(InvalidPacket) as caught:
        REFUSED[what]()
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, LocalProtocolError)


def test_one_payload_is_framed_for_many() -> None:
    for version, size in ((4, 3), (5, 300), (5, 20_000)):
        before, behind = mqtt_encode.publish_prefix(version, "a/b", b"x" * size, 1, True)
        for packet_id in (1, 77, 65535):
            whole = mqtt_encode.encode_publish(version, "a/b", b"x" * size, 1, True, packet_id=packet_id)
            assert before + packet_id.to_bytes(2, "big") + behind == whole
