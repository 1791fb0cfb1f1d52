"""MQTT over loopback: a broker that says what a test tells it to, in any order, and a client of ours."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

import asyncmg.core
from asyncmg import mqtt_connect
from asyncmg.codecs import mqtt as m
from asyncmg.codecs.http import Role
from asyncmg.codecs.mqtt_encode import encode_ack, encode_connack, encode_publish, encode_suback, encode_unsuback
from asyncmg.codecs.mqtt_portable import PortableMqttCodec
from asyncmg.codecs.mqtt_properties import NO_PROPERTIES, Properties
from asyncmg.limits import MqttLimits
from asyncmg.mqtt_face import MqttClient
from tests.protocols.conftest import TIMEOUT, eventually, pytest_asyncio_loop_factories, soon, variant

__all__ = ["TIMEOUT", "FakeBroker", "Peer", "eventually", "pytest_asyncio_loop_factories", "soon", "variant"]

# Every codec, backend and loop is in one of the pairs that are left; with ASYNCMG_ALL_PAIRS=1 all are run.
_LEFT_OUT = {("portable", "uvloop"), ("native-codec", "stdlib")}

P = TypeVar("P", bound=m.Packet)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("ASYNCMG_ALL_PAIRS") == "1" or asyncmg.core.load() is None:
        return
    left_out = []
    for item in items:
        if (
            Path(__file__).parent in item.path.parents
            and isinstance(item, pytest.Function)
            and hasattr(item, "callspec")
        ):
            words = "-" + item.callspec.id.replace("native-codec", "native_codec") + "-"
            if any(f"-{a.replace('-', '_')}-" in words and f"-{b}-" in words for a, b in _LEFT_OUT):
                left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


class Peer:
    """The broker's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._codec = PortableMqttCodec(Role.SERVER, MqttLimits())
        self._packets: list[m.Packet] = []
        self.is_muted = False  # pings are not answered

    @property
    def version(self) -> int:
        return self._codec.version

    async def _next(self, *, pings: bool = False) -> m.Packet | None:
        """Return the next packet, PINGREQ only when it is asked for; None: the client has ended."""
        while True:
            while self._packets:
                packet = self._packets.pop(0)
                if pings or not isinstance(packet, m.Pingreq):
                    return packet
                if not self.is_muted:
                    self.send(b"\xd0\x00")
            data = await self._reader.read(1 << 16)
            if not data:
                return None
            self._packets += self._codec.receive_data(data)
            assert self._codec.error is None, self._codec.error

    async def expect(self, kind: type[P]) -> P:
        """Return the next packet, which has to be of this class."""
        async with asyncio.timeout(TIMEOUT):
            packet = await self._next()
        assert isinstance(packet, kind), packet
        return packet

    async def expect_ack(self, kind: int, packet_id: int, code: int = 0) -> None:
        packet = await self.expect(m.Ack)
        assert (packet.type, packet.packet_id, packet.reason_code) == (kind, packet_id, code), packet

    async def expect_end(self) -> None:
        async with asyncio.timeout(TIMEOUT):
            try:
                packet = await self._next()
            except ConnectionError:
                return
        assert packet is None, packet

    async def expect_ping(self) -> None:
        """The next packet is a PINGREQ: answer it."""
        async with asyncio.timeout(TIMEOUT):
            packet = await self._next(pings=True)
        assert isinstance(packet, m.Pingreq), packet
        self.send(b"\xd0\x00")

    async def drain(self) -> None:
        """Read on and on."""
        while await self._next() is not None:
            pass

    def send(self, *packets: bytes) -> None:
        self._writer.write(b"".join(packets))

    def ack(self, kind: int, packet_id: int, code: int = 0, properties: Properties = NO_PROPERTIES) -> None:
        self.send(encode_ack(self.version, kind, packet_id, code, properties))

    def publish(self, topic: str, payload: bytes = b"", *args: Any, **kwargs: Any) -> None:
        self.send(encode_publish(self.version, topic, payload, *args, **kwargs))

    async def accept(self, session_present: bool = False, properties: Properties = NO_PROPERTIES) -> m.Connect:
        connect = await self.expect(m.Connect)
        self.send(encode_connack(self.version, session_present, 0, properties))
        return connect

    async def refuse(self, code: int, properties: Properties = NO_PROPERTIES) -> None:
        await self.expect(m.Connect)
        self.send(encode_connack(self.version, False, code, properties))

    async def grant(self, *codes: int) -> m.Subscribe:
        packet = await self.expect(m.Subscribe)
        granted = bytes(codes) or bytes(options & 3 for _, options in packet.filters)
        self.send(encode_suback(self.version, packet.packet_id, granted))
        return packet

    async def release(self, *codes: int) -> m.Unsubscribe:
        packet = await self.expect(m.Unsubscribe)
        told = (bytes(codes) or bytes(len(packet.filters))) if self.version == 5 else b""
        self.send(encode_unsuback(self.version, packet.packet_id, told))
        return packet

    def cut(self) -> None:
        """Vanish."""
        self._writer.transport.abort()

    async def end(self) -> None:
        """End in good order."""
        self._writer.close()


class FakeBroker:
    """Listens; a test plays each of its connections."""

    def __init__(self) -> None:
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()
        self._all: list[Peer] = []
        self._clients: list[MqttClient] = []
        self._server: asyncio.Server | None = None
        self.url = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"mqtt://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self._all.append(peer)
        self._peers.put_nowait(peer)

    async def peer(self) -> Peer:
        """Return the next connection."""
        return await soon(self._peers.get())

    async def connect(
        self, properties: Properties = NO_PROPERTIES, *, session_present: bool = False, **kwargs: Any
    ) -> tuple[MqttClient, Peer]:
        """Connect a client."""
        connecting = asyncio.ensure_future(_connected(self.url, **kwargs))
        peer = await self.peer()
        await peer.accept(session_present, properties)
        client: MqttClient = await soon(connecting)
        self._clients.append(client)
        return client, peer

    async def again(self, session_present: bool = True, properties: Properties = NO_PROPERTIES) -> Peer:
        """Accept the connection that follows one that was lost."""
        peer = await self.peer()
        await peer.accept(session_present, properties)
        return peer

    async def stop(self) -> None:
        for client in self._clients:
            await soon(client.disconnect())
        for peer in self._all:
            peer.cut()
        assert self._server is not None
        self._server.close()


async def _connected(url: str, **kwargs: Any) -> MqttClient:
    return await mqtt_connect(url, **kwargs)


@pytest.fixture
async def broker(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeBroker]:
    monkeypatch.setattr("asyncmg.mqtt_keeping._FIRST_DELAY", 0.01)
    monkeypatch.setattr("asyncmg.mqtt_keeping._MAX_DELAY", 0.05)
    found = FakeBroker()
    await found.start()
    try:
        yield found
    finally:
        await found.stop()


def running(work: Any) -> asyncio.Task[Any]:
    """Run something, and see to it that its first step is done."""
    return asyncio.ensure_future(work)
