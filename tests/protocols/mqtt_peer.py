"""MQTT peers that speak packets, right or wrong ones, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from asyncmg import Limits, MqttBroker, MqttLimits
from asyncmg.codecs import mqtt as m
from asyncmg.codecs.http import Role
from asyncmg.codecs.mqtt_encode import (
    encode_ack,
    encode_connect,
    encode_disconnect,
    encode_publish,
    encode_subscribe,
    encode_unsubscribe,
)
from asyncmg.codecs.mqtt_portable import PortableMqttCodec

from .conftest import TIMEOUT, Harness, RawPeer

P = TypeVar("P")


class MqttPeer:
    """A client of a broker."""

    def __init__(self, peer: RawPeer, version: int = 5) -> None:
        self.peer = peer
        self.version = version
        self._codec = PortableMqttCodec(Role.CLIENT, MqttLimits(), version)
        self._packets: list[m.Packet] = []
        self._last_id = 0

    def send(self, data: bytes) -> None:
        self.peer.send(data)

    async def packet(self) -> m.Packet:
        """Return the next packet."""
        async with asyncio.timeout(TIMEOUT):
            while not self._packets:
                data = await self.peer.reader.read(65536)
                if not data:
                    raise EOFError("the broker has closed")
                self._packets += self._codec.receive_data(data)
                assert self._codec.error is None, self._codec.error
        return self._packets.pop(0)

    async def expect(self, kind: type[P]) -> P:
        packet = await self.packet()
        assert isinstance(packet, kind), packet
        return packet

    async def expect_nothing(self) -> None:
        """There is nothing before the answer to a ping."""
        self.send(b"\xc0\x00")
        packet = await self.packet()
        assert packet is m.PING_RESPONSE, packet

    async def expect_end(self) -> None:
        """The broker closes, without a further packet."""
        async with asyncio.timeout(TIMEOUT):
            try:
                rest = await self.peer.reader.read(-1)
            except ConnectionResetError:
                rest = b""
        assert rest == b"" and not self._packets

    async def expect_disconnect(self, code: int) -> m.Disconnect:
        packet = await self.expect(m.Disconnect)
        assert packet.reason_code == code, packet
        await self.expect_end()
        return packet

    async def connect(self, client_id: str = "", **kwargs: Any) -> m.Connack:
        """Send CONNECT; return its answer."""
        self.send(encode_connect(self.version, client_id, **kwargs))
        return await self.expect(m.Connack)

    async def subscribe(self, *filters: str | tuple[str, int], properties: Any = m.NO_PROPERTIES) -> list[int]:
        """Subscribe (a filter alone: with QoS 2); return the reason codes."""
        self._last_id += 1
        pairs = [item if isinstance(item, tuple) else (item, 2) for item in filters]
        self.send(encode_subscribe(self.version, self._last_id, pairs, properties))
        packet = await self.expect(m.Suback)
        assert packet.packet_id == self._last_id
        return list(packet.reason_codes)

    async def unsubscribe(self, *filters: str) -> list[int]:
        self._last_id += 1
        self.send(encode_unsubscribe(self.version, self._last_id, filters))
        return list((await self.expect(m.Unsuback)).reason_codes)

    def publish_now(self, topic: str, payload: bytes = b"", qos: int = 0, packet_id: int = 0, **kwargs: Any) -> None:
        self.send(encode_publish(self.version, topic, payload, qos, packet_id=packet_id, **kwargs))

    async def publish(self, topic: str, payload: bytes = b"", qos: int = 0, **kwargs: Any) -> int:
        """Publish; return the reason code of the acknowledgement. With QoS 0 the broker is done with it, too."""
        if not qos:
            self.publish_now(topic, payload, **kwargs)
            await self.expect_nothing()
            return 0
        self._last_id += 1
        number = self._last_id
        self.publish_now(topic, payload, qos, number, **kwargs)
        code = (await self.expect_ack(m.PUBACK if qos == 1 else m.PUBREC, number)).reason_code
        if qos == 2 and code < 0x80:
            self.send(encode_ack(self.version, m.PUBREL, number))
            await self.expect_ack(m.PUBCOMP, number)
        return code

    async def expect_ack(self, kind: int, packet_id: int) -> m.Ack:
        packet = await self.expect(m.Ack)
        assert (packet.type, packet.packet_id) == (kind, packet_id)
        return packet

    async def message(self, *, acknowledges: bool = True) -> m.Publish:
        """Return the next message, acknowledged as its QoS asks for."""
        packet = await self.expect(m.Publish)
        if acknowledges and packet.qos:
            await self.acknowledge(packet)
        return packet

    async def acknowledge(self, packet: m.Publish) -> None:
        if packet.qos == 1:
            self.send(encode_ack(self.version, m.PUBACK, packet.packet_id))
        elif packet.qos == 2:
            self.send(encode_ack(self.version, m.PUBREC, packet.packet_id))
            between = []
            while not isinstance(following := await self.packet(), m.Ack):
                between.append(following)
            assert (following.type, following.packet_id) == (m.PUBREL, packet.packet_id)
            self._packets[:0] = between
            self.send(encode_ack(self.version, m.PUBCOMP, packet.packet_id))

    async def disconnect(self, code: int = 0, properties: Any = m.NO_PROPERTIES) -> None:
        self.send(encode_disconnect(self.version, code, properties))
        await self.expect_end()
        await self.peer.close()

    def vanish(self) -> None:
        self.peer.reset()


class BrokerHarness:
    """A broker on a port of its own, and clients."""

    def __init__(self, harness: Harness, broker: MqttBroker, port: int) -> None:
        self._harness = harness
        self.broker = broker
        self.port = port

    async def peer(self, version: int = 5) -> MqttPeer:
        """Return a client that has not sent CONNECT."""
        return MqttPeer(await self._harness.peer(self.port), version)

    async def client(self, client_id: str = "", version: int = 5, **kwargs: Any) -> MqttPeer:
        """Return a client that is connected."""
        peer = await self.peer(version)
        connack = await peer.connect(client_id, **kwargs)
        assert connack.reason_code == 0, connack
        return peer


@asynccontextmanager
async def serving(
    harness: Harness, *, mqtt: MqttLimits | None = None, limits: Limits | None = None, **kwargs: Any
) -> AsyncIterator[BrokerHarness]:
    """Run a broker, without statistics unless they are asked for."""
    kwargs.setdefault("sys_interval", 0)
    kwargs.setdefault("error_handler", harness.errors.append)
    limits = limits or Limits(mqtt=mqtt or MqttLimits())
    broker = MqttBroker(limits=limits, **kwargs)
    try:
        listener = broker.listen("mqtt://127.0.0.1:0")
        yield BrokerHarness(harness, broker, listener.port)
    finally:
        await broker.shutdown(0)
    assert [error for error in harness.errors if isinstance(error, AssertionError)] == []
