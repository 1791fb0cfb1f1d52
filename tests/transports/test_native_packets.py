"""MQTT packets that the engine reads for a native transport: order, pauses, and the switch from bytes to packets."""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from asyncmg.codecs import mqtt as m
from asyncmg.codecs.http import Role
from asyncmg.codecs.mqtt import Packet, Publish
from asyncmg.codecs.mqtt_encode import PINGREQ_BYTES, encode_ack, encode_connack, encode_connect, encode_publish
from asyncmg.codecs.mqtt_native import NativeMqttCodec
from asyncmg.codecs.mqtt_properties import Property
from asyncmg.limits import MqttLimits
from tests.fuzz.fuzz_mqtt import encode, make_first, make_packet
from tests.transports.conftest import TIMEOUT, eventually

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the engine is for POSIX")

CONNECT = encode_connect(5, "id")
HELLO = encode_publish(5, "a/b", b"hello")
MESSAGE = Publish("a/b", b"hello")
LARGE = encode_publish(5, "large", b"x" * 300_000, 1, packet_id=7)
ACK = encode_ack(5, m.PUBACK, 9)


class Reader(asyncio.Protocol):
    """Reads bytes with a codec, packets from when the first one has been read."""

    def __init__(self, role: Role = Role.SERVER, limits: MqttLimits | None = None) -> None:
        self.codec = NativeMqttCodec(role, limits or MqttLimits(), 5)
        self.packets: list[Packet] = []
        self.calls: list[str] = []
        self.size = 0
        self.begins = True
        self.transport: Any = None
        self.on_packets: Any = lambda: None

    @property
    def error(self) -> Any:
        return self.codec.error

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.calls.append("data")
        self.size += len(data)
        self.packets += self.codec.receive_data(data)
        if self.begins and self.packets:
            self.begins = False
            self.transport.begin_packets(self.codec.export)
        self.on_packets()

    def packets_received(self, records: Any, arena: Any, size: int) -> None:
        self.calls.append("packets")
        assert self.codec.buffered == 0
        self.size += size
        self.packets += self.codec.take(records, arena)
        self.on_packets()

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")


@pytest.fixture
async def errors() -> AsyncIterator[list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: told.append(context))
    yield told
    loop.set_exception_handler(None)


@pytest.fixture
def peers() -> Any:
    made: list[socket.socket] = []
    yield made
    for sock in made:
        sock.close()


async def connect(
    native: Any, peers: list[socket.socket], reader: Reader | None = None
) -> tuple[Reader, socket.socket]:
    ours, peer = socket.socketpair()
    peers.append(peer)
    for sock in (ours, peer):
        sock.setblocking(False)
    reader = reader or Reader()
    await native.open_stream(ours, reader)
    await eventually(lambda: reader.transport is not None)
    return reader, peer


async def send(peer: socket.socket, data: bytes) -> None:
    async with asyncio.timeout(TIMEOUT):
        await asyncio.get_running_loop().sock_sendall(peer, data)


async def connect_packets(native: Any, peers: list[socket.socket], reader: Reader | None = None) -> Any:
    """A connection whose input the engine reads already."""
    reader, peer = await connect(native, peers, reader)
    first = CONNECT if reader.codec._role is Role.SERVER else encode_connack(5, False, 0)
    await send(peer, first)
    await eventually(lambda: reader.packets and reader.transport._export is None)
    reader.packets.clear()
    reader.calls.clear()
    reader.size = 0
    return reader, peer


async def test_one_packet_and_many(native: Any, peers: Any) -> None:
    reader, peer = await connect_packets(native, peers)
    await send(peer, HELLO)
    await eventually(lambda: reader.packets == [MESSAGE])
    assert reader.size == len(HELLO)
    await send(peer, HELLO * 400 + ACK)
    await eventually(lambda: len(reader.packets) == 402)
    assert reader.packets == [MESSAGE] * 401 + [m.Ack(m.PUBACK, 9)]
    assert set(reader.calls) == {"packets"}
    assert reader.size == 401 * len(HELLO) + len(ACK)


@pytest.mark.parametrize(
    "data",
    [
        encode_publish(5, "t", b"", 2, True, True, 65535, {Property.TOPIC_ALIAS: 3}),
        encode_ack(5, m.PUBREC, 3, 0x87, {Property.REASON_STRING: "no"}),
        encode_ack(5, m.PUBREL, 3, 0x92),
        PINGREQ_BYTES,
        b"\x82\x07\x00\x01\x00\x00\x01a\x2a",
        b"\xa2\x06\x00\x02\x00\x00\x01#",
        b"\xe0\x01\x04",
        b"\xf0\x06\x18\x04\x15\x00\x01m",
    ],
    ids=lambda data: f"type {data[0] >> 4}",
)
async def test_every_type_alone_and_among_others(native: Any, peers: Any, data: bytes) -> None:
    for before in (0, 2):
        reader, peer = await connect_packets(native, peers)
        other = NativeMqttCodec(Role.SERVER, MqttLimits(), 0)
        other.receive_data(CONNECT)
        wire = HELLO * before + data
        expected = other.receive_data(wire)
        await send(peer, wire)
        await eventually(lambda reader=reader, wire=wire: reader.size == len(wire))
        assert reader.packets == expected
        assert len(expected) == before + 1
        assert reader.calls == ["packets"]


async def test_a_packet_in_pieces_among_whole_ones(native: Any, peers: Any) -> None:
    reader, peer = await connect_packets(native, peers)
    await send(peer, HELLO + LARGE + HELLO + LARGE[:2])
    await eventually(lambda: len(reader.packets) == 3)
    assert reader.packets == [MESSAGE, Publish("large", b"x" * 300_000, 1, packet_id=7), MESSAGE]
    assert reader.calls[0] == "packets"
    assert "data" in reader.calls
    for place in range(2, 20):  # of the incomplete fixed header the engine tells nothing
        await send(peer, LARGE[place : place + 1])
    await send(peer, LARGE[20:] + HELLO)
    await eventually(lambda: len(reader.packets) == 5)
    assert reader.packets[3:] == reader.packets[1:3]
    assert reader.size == 2 * len(LARGE) + 3 * len(HELLO)
    assert reader.codec.buffered == 0


@pytest.mark.parametrize("kept", [1, 2, 3, 4, 5, 100, 200_000, len(LARGE) - 1])
async def test_the_switch_in_the_middle_of_a_packet(native: Any, peers: Any, kept: int) -> None:
    reader, peer = await connect(native, peers)
    await send(peer, CONNECT + LARGE[:kept])
    await eventually(lambda: reader.size == len(CONNECT) + kept and reader.transport._export is None)
    await send(peer, LARGE[kept:] + HELLO * 3)
    await eventually(lambda: len(reader.packets) == 5)
    assert reader.packets[1:] == [Publish("large", b"x" * 300_000, 1, packet_id=7), *[MESSAGE] * 3]


async def test_a_client(native: Any, peers: Any) -> None:
    reader, peer = await connect_packets(native, peers, Reader(Role.CLIENT))
    await send(peer, ACK + HELLO)
    await eventually(lambda: len(reader.packets) == 2)
    assert reader.packets == [m.Ack(m.PUBACK, 9), MESSAGE]


async def test_before_the_first_packet_the_input_stays_bytes(native: Any, peers: Any) -> None:
    reader, peer = await connect(native, peers)
    reader.begins = False
    reader.transport.begin_packets(reader.codec.export)
    await eventually(lambda: reader.transport._export is None)
    await send(peer, CONNECT)
    await eventually(lambda: reader.packets)
    reader.transport.begin_packets(reader.codec.export)
    await eventually(lambda: reader.transport._export is None)
    await send(peer, HELLO)
    await eventually(lambda: reader.packets[1:] == [MESSAGE])
    assert reader.calls == ["data", "packets"]


async def test_reading_is_paused_in_the_middle(native: Any, peers: Any) -> None:
    reader, peer = await connect_packets(native, peers)
    reader.on_packets = lambda: reader.transport.pause_reading()
    await send(peer, HELLO)
    await eventually(lambda: reader.packets)
    await send(peer, HELLO + ACK)
    for _ in range(3):
        await asyncio.sleep(0)
    assert reader.packets == [MESSAGE]
    reader.transport.resume_reading()
    await eventually(lambda: len(reader.packets) == 3)
    assert reader.packets == [MESSAGE, MESSAGE, m.Ack(m.PUBACK, 9)]
    reader.transport.abort()  # while reading is paused the end is not seen


async def test_what_came_in_the_turn_of_the_pause(native: Any, peers: Any) -> None:
    """As the engine tells it: it is kept as bytes, for the arena is written anew."""
    reader, peer = await connect_packets(native, peers)
    transport = reader.transport
    arena = b"..." + HELLO + ACK + HELLO
    codec = NativeMqttCodec(Role.SERVER, MqttLimits(), 0)
    codec.receive_data(CONNECT)
    transport.pause_reading()
    transport.handle_packets(iter([(0x30, 0, 0, 0, 0, 0, 0, 0)]), arena, 3, len(HELLO) + len(ACK))
    transport.handle_packets(((0x30, 0, 0, 0, 0, 0, 0, 0),), arena, 3 + len(HELLO) + len(ACK), 4)
    transport.handle_data(HELLO[4:])
    assert reader.packets == []
    transport.resume_reading()
    await eventually(lambda: len(reader.packets) == 3)
    assert reader.packets == [MESSAGE, m.Ack(m.PUBACK, 9), MESSAGE]
    await send(peer, HELLO)
    await eventually(lambda: len(reader.packets) == 4)
    assert reader.calls == ["data", "data", "data", "packets"]


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (b"\x30\x04\x00\x01+\x00", 0x90, "wildcard in a topic name"),
        (b"\x40\x02\x00\x00", 0x82, "packet identifier 0 acknowledged"),
        (b"\x30\xff\xff\xff\x7f", 0x95, f"{2**28 + 4} is over max_packet="),
        (b"\x36", 0x81, "QoS 3"),
    ],
)
async def test_errors(native: Any, peers: Any, data: bytes, code: int, text: str) -> None:
    for before in (0, 1, 3):
        reader, peer = await connect_packets(native, peers)
        await send(peer, HELLO * before + data + HELLO)
        await eventually(lambda reader=reader: reader.error)
        assert reader.packets == [MESSAGE] * before
        assert reader.error.wire_code == code
        assert text in str(reader.error)
        calls = len(reader.calls)
        await send(peer, HELLO)
        peer.shutdown(socket.SHUT_WR)
        await eventually(lambda reader=reader: "eof" in reader.calls)
        assert reader.calls[calls] == "eof", "behind an error nothing is told"


async def test_nothing_behind_a_disconnect(native: Any, peers: Any) -> None:
    for pieces in ([b"\xe0\x00" + HELLO], [b"\xe0", b"\x00" + HELLO], [b"\xe0\x00", HELLO]):
        reader, peer = await connect_packets(native, peers)
        for piece in pieces:
            await send(peer, piece)
            await asyncio.sleep(0.01)
        peer.shutdown(socket.SHUT_WR)
        await eventually(lambda reader=reader: "eof" in reader.calls)
        assert reader.packets == [m.Disconnect()]
        assert reader.codec.export() == b""
        assert reader.codec.take([(0xC0, 0, 0, 0, 0, 0, 0, 0)], b"") == []


async def test_a_connection_that_is_closed_meanwhile(native: Any, peers: Any) -> None:
    reader, peer = await connect(native, peers)
    reader.transport.begin_packets(reader.codec.export)
    reader.transport.abort()
    await eventually(lambda: "lost" in reader.calls)
    reader.transport.begin_packets(reader.codec.export)
    await asyncio.sleep(0.01)
    again, peer = await connect_packets(native, peers)
    await send(peer, HELLO)
    await eventually(lambda: again.packets == [MESSAGE])


async def test_a_protocol_that_raises_loses_its_connection_only(native: Any, peers: Any, errors: Any) -> None:
    def fail() -> None:
        raise RuntimeError("mine")

    reader, peer = await connect_packets(native, peers)
    other, other_peer = await connect_packets(native, peers)
    reader.on_packets = fail
    await send(peer, HELLO)
    await send(other_peer, HELLO)
    await eventually(lambda: "lost" in reader.calls and other.packets == [MESSAGE])
    assert [context["exception"].args for context in errors] == [("mine",)]


async def test_agreement_with_the_codec(native: Any, peers: Any) -> None:
    """Whatever comes, however cut and paused, is what a codec makes of it."""
    chance = random.Random(9)
    for number in range(60):
        role = chance.choice(list(Role))
        sender = Role.CLIENT if role is Role.SERVER else Role.SERVER
        packets = [make_packet(chance, 5, sender) for _ in range(chance.choice([1, 3, 30]))]
        first = make_first(chance, 5, sender)
        data = b"".join(encode(packet, 5, sender) for packet in [first, *packets])
        if number % 3 == 0:
            place = chance.randrange(len(data))
            data = data[:place] + chance.randbytes(1) + data[place + 1 :]
        codec = NativeMqttCodec(role, MqttLimits(), 5)
        expected = codec.receive_data(data)
        reader, peer = await connect(native, peers, Reader(role))
        cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice([0, 1, 5])))
        for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True):
            await send(peer, data[a:b])
            if chance.random() < 0.3:
                reader.transport.pause_reading()
            await asyncio.sleep(0)
            if chance.random() < 0.5:
                reader.transport.resume_reading()
        reader.transport.resume_reading()
        peer.shutdown(socket.SHUT_WR)
        await eventually(lambda reader=reader: "lost" in reader.calls)
        assert str(reader.error) == str(codec.error)
        assert reader.packets == expected
