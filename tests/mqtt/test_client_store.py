"""A client's session on disk: what a program that was killed has left goes on in the next one."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

import asyncmg
from asyncmg import ConnectionClosed, Limits, MqttLimits, SqliteStore, StoreFailed
from asyncmg.codecs import mqtt as m
from asyncmg.codecs.mqtt_properties import Property
from asyncmg.mqtt_face import MqttClient
from asyncmg.mqtt_store import Change, StoredMessage, StoredSession

from .conftest import FakeBroker, eventually, running, soon


class Killed(SqliteStore):
    """A store whose program is killed: what has not been written by then never is."""

    def kill(self) -> None:
        assert self._base is not None
        self._base.close()
        self._base = None

    def write(self, changes: Any) -> None:
        if self._base is not None:
            super().write(changes)


OPTIONS: dict[str, Any] = {"client_id": "me", "clean_start": False, "session_expiry": 1000}


async def test_what_was_under_way_goes_on(broker: FakeBroker, tmp_path: Path) -> None:
    path = tmp_path / "session"
    store = Killed(path)
    limits = Limits(mqtt=MqttLimits(max_inflight=4))
    mq, peer = await broker.connect(store=store, limits=limits, **OPTIONS)
    deliveries = [mq.publish_soon("a", str(n), qos) for n, qos in enumerate([1, 2, 1, 2, 1, 2])]
    numbers = [(await peer.expect(m.Publish)).packet_id for _ in range(4)]
    peer.ack(m.PUBACK, numbers[2])
    assert await soon(deliveries[2]) == 0
    assert (await peer.expect(m.Publish)).payload == b"4"
    peer.ack(m.PUBREC, numbers[1])
    await peer.expect_ack(m.PUBREL, numbers[1])  # what is sent has been written before
    store.kill()
    await soon(mq.disconnect())

    mq, peer = await broker.connect(store=path, session_present=True, limits=limits, **OPTIONS)
    assert mq.pending == 5
    await peer.expect_ack(m.PUBREL, numbers[1])
    told = [await peer.expect(m.Publish) for _ in range(3)]
    assert [(packet.payload, packet.dup) for packet in told] == [(b"0", True), (b"3", True), (b"4", True)]
    assert [packet.packet_id for packet in told[:2]] == [numbers[0], numbers[3]]
    peer.ack(m.PUBCOMP, numbers[1])
    last = await peer.expect(m.Publish)
    assert (last.payload, last.dup) == (b"5", False)
    for packet in (*told, last):
        if packet.qos == 1:
            peer.ack(m.PUBACK, packet.packet_id)
        else:
            peer.ack(m.PUBREC, packet.packet_id)
            await peer.expect_ack(m.PUBREL, packet.packet_id)
            peer.ack(m.PUBCOMP, packet.packet_id)
    await soon(mq.flush())
    await soon(mq.disconnect())
    store = SqliteStore(path)
    assert store.open("me", 5) == StoredSession("me", [], [])
    store.close()


async def test_a_session_that_the_broker_has_lost(broker: FakeBroker, tmp_path: Path) -> None:
    path = tmp_path / "session"
    mq, peer = await broker.connect(store=path, **OPTIONS)
    for n, qos in enumerate((1, 2)):
        mq.publish_soon("a", str(n), qos)
    number = [await peer.expect(m.Publish) for _ in range(2)][1].packet_id
    peer.ack(m.PUBREC, number)
    await peer.expect_ack(m.PUBREL, number)
    await soon(mq.disconnect())
    mq, peer = await broker.connect(store=str(path), session_present=False, **OPTIONS)
    packet = await peer.expect(m.Publish)
    assert (packet.payload, packet.dup) == (b"0", False)
    await eventually(lambda: mq.pending == 1)
    await soon(mq.disconnect())
    store = SqliteStore(path)
    [message] = store.open("me", 5).messages
    assert message.packet_id == packet.packet_id and not message.is_released
    store.close()


async def test_received_messages_of_qos_2_are_remembered(broker: FakeBroker, tmp_path: Path) -> None:
    path = tmp_path / "session"
    mq, peer = await broker.connect(store=path, **OPTIONS)
    for number in (5, 6):
        peer.publish("a", b"", 2, packet_id=number)
        await soon(anext(aiter(mq)))
        await peer.expect_ack(m.PUBREC, number)
    peer.ack(m.PUBREL, 6)
    await peer.expect_ack(m.PUBCOMP, 6)
    await soon(mq.disconnect())
    mq, peer = await broker.connect(store=path, session_present=True, **OPTIONS)
    peer.publish("a", b"again", 2, dup=True, packet_id=5)
    await peer.expect_ack(m.PUBREC, 5)
    peer.publish("a", b"new", 2, packet_id=6)
    assert (await soon(anext(aiter(mq)))).text == "new"
    await peer.expect_ack(m.PUBREC, 6)


async def test_a_withdrawn_message_is_gone(broker: FakeBroker, tmp_path: Path) -> None:
    path = tmp_path / "session"
    mq, peer = await broker.connect(store=path, limits=Limits(mqtt=MqttLimits(max_inflight=1)), **OPTIONS)
    mq.publish_soon("a", b"0", 1)
    with pytest.raises(TimeoutError):
        await mq.publish("a", b"1", 1, timeout=0.01)
    await peer.expect(m.Publish)
    await soon(mq.disconnect())
    store = SqliteStore(path)
    assert len(store.open("me", 5).messages) == 1
    store.close()


async def test_an_assigned_identifier_is_kept(broker: FakeBroker, tmp_path: Path) -> None:
    path = tmp_path / "session"
    mq, _ = await broker.connect({Property.ASSIGNED_CLIENT_IDENTIFIER: "given"}, store=path)
    await soon(mq.disconnect())
    connecting = running(enter(broker.url, store=path, clean_start=False))
    peer = await broker.peer()
    assert (await peer.accept()).client_id == "given"
    await soon((await soon(connecting)).disconnect())


async def enter(url: str, **kwargs: Any) -> MqttClient:
    return await asyncmg.mqtt_connect(url, **kwargs)


async def test_a_store_of_somebody_else(broker: FakeBroker, tmp_path: Path) -> None:
    path = tmp_path / "session"
    mq, peer = await broker.connect(store=path, **OPTIONS)
    with pytest.raises(StoreFailed):  # it is in use
        await enter(broker.url, store=path, **OPTIONS)
    mq.publish_soon("a", b"0", 1)
    await peer.expect(m.Publish)
    await soon(mq.disconnect())
    with pytest.raises(ValueError, match="not 'other'"):
        await enter(broker.url, store=path, client_id="other")
    with pytest.raises(ValueError, match="version"):
        await enter(broker.url, store=path, client_id="me", version=4)
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StoreFailed):
        await enter(broker.url, store=path)
    with pytest.raises(StoreFailed):
        await enter(broker.url, store=tmp_path / "no" / "folder")


class Broken:
    """A disk that is full."""

    def __init__(self) -> None:
        self.is_closed = False

    def open(self, client_id: str, version: int) -> StoredSession:
        return StoredSession(client_id)

    def write(self, changes: Any) -> None:
        if any(change is Change.ADD for change, _, _ in changes):
            raise sqlite3.OperationalError("disk full")

    def close(self) -> None:
        self.is_closed = True


async def test_a_store_that_fails(broker: FakeBroker) -> None:
    """Nothing is sent that is not written: the client ends."""
    store = Broken()
    mq, peer = await broker.connect(store=store)
    work = running(mq.publish("a", b"", 1))
    with pytest.raises(StoreFailed, match="disk full"):
        await soon(work)
    await peer.expect_end()
    with pytest.raises(StoreFailed):
        await anext(aiter(mq))
    assert store.is_closed


def test_all_or_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "session", is_synced=True)
    assert store.open("", 5) == StoredSession("", [], [])
    store.write([(Change.ADD, 1, b"x"), (Change.ADD, 2, b"y"), (Change.NUMBER, 2, 7), (Change.TAKE, 9, 0)])
    with pytest.raises(StoreFailed):
        store.write([(Change.DONE, 1, 0), (Change.ADD, 2, b"again")])
    with pytest.raises(StoreFailed):
        SqliteStore(tmp_path / "session").open("", 5)
    store.write([(Change.NAME, 0, "me")])
    store.close()
    store.close()
    with pytest.raises(StoreFailed):
        store.write([(Change.DONE, 1, 0)])
    found = SqliteStore(tmp_path / "session")
    assert found.open("", 5) == StoredSession(
        "me", [StoredMessage(1, 0, False, b"x"), StoredMessage(2, 7, False, b"y")], [9]
    )
    found.write([(Change.RELEASE, 2, 0)])
    found.write([(Change.RESTART, 0, 0), (Change.LET_GO, 9, 0)])
    found.close()
    found = SqliteStore(tmp_path / "session")
    assert found.open("me", 5) == StoredSession("me", [StoredMessage(1, 0, False, b"x")], [])
    found.close()
    assert "session" in repr(found)


async def test_without_a_connection_it_is_written(broker: FakeBroker, tmp_path: Path) -> None:
    path = tmp_path / "session"
    mq, peer = await broker.connect(store=path, **OPTIONS)
    peer.cut()
    await eventually(lambda: not mq.is_connected)
    delivery = mq.publish_soon("a", b"kept", 1)
    await soon(mq.disconnect())
    with pytest.raises(ConnectionClosed):
        await delivery
    store = SqliteStore(path)
    assert len(store.open("me", 5).messages) == 1
    store.close()
