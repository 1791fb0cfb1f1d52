"""Connecting, and connecting anew: what is told, what is given up, keep-alive, authentication, orderly ends."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

import asyncmg
from asyncmg import (
    BusyError,
    ConnectFailed,
    ConnectionClosed,
    DeadlineExceeded,
    InvalidUrl,
    Limits,
    LocalProtocolError,
    MqttLimits,
    MqttRefused,
    MqttWill,
)
from asyncmg.codecs import mqtt as m
from asyncmg.codecs.http import Role
from asyncmg.codecs.mqtt_encode import encode_auth, encode_disconnect
from asyncmg.codecs.mqtt_properties import Property
from asyncmg.errors import InvalidPacket
from asyncmg.mqtt_face import MqttClient

from .conftest import FakeBroker, eventually, running, soon

VERSIONS = pytest.mark.parametrize("version", [4, 5])


async def enter(url: str, **kwargs: Any) -> MqttClient:
    return await asyncmg.mqtt_connect(url, **kwargs)


@VERSIONS
async def test_connect_says_all_that_was_given(broker: FakeBroker, version: int) -> None:
    five = version == 5
    will = MqttWill("will", "gone", 1, True, delay=7 if five else 0)
    work = running(
        enter(
            broker.url.replace("//", "//user:p%40ss@"),
            client_id="me",
            version=version,
            clean_start=False,
            keep_alive=77,
            will=will,
            **({"session_expiry": 9, "properties": {"user_property": [("k", "v")]}} if five else {}),
        )
    )
    peer = await broker.peer()
    connect = await peer.accept(True)
    told = (connect.version, connect.client_id, connect.clean_start, connect.keep_alive, connect.username)
    assert told == (version, "me", False, 77, "user") and connect.password == b"p@ss"
    assert (connect.will_topic, connect.will_payload, connect.will_qos, connect.will_retain) == (
        "will",
        b"gone",
        1,
        True,
    )
    if five:
        assert connect.will_properties == {Property.WILL_DELAY_INTERVAL: 7}
        assert connect.properties[Property.SESSION_EXPIRY_INTERVAL] == 9
        assert connect.properties[Property.USER_PROPERTY] == [("k", "v")]
    mq = await soon(work)
    assert mq.session_present and mq.is_connected and mq.client_id == "me"
    await soon(mq.disconnect())
    await peer.expect(m.Disconnect)
    await peer.expect_end()
    assert not mq.is_connected


async def test_wrong_arguments_are_told_at_once() -> None:
    for url in ("http//x", "tcp2://localhost"):
        with pytest.raises(InvalidUrl):
            asyncmg.mqtt_connect(url)
    for arguments in (
        {"keep_alive": 70000},
        {"version": 3},
        {"version": 4, "properties": {"user_property": [("a", "b")]}},
        {"version": 4, "clean_start": False},
        {"version": 4, "authenticate": ("x", bytes)},
        {"will": MqttWill("a/#")},
        {"properties": {"receive_maximum": 7}},
        {"properties": {"topic_alias": 7}},
    ):
        with pytest.raises(InvalidPacket):
            asyncmg.mqtt_connect("mqtt://localhost", **arguments)
    with pytest.raises(ValueError):
        asyncmg.mqtt_connect("mqtt://localhost", queue_policy="other")  # type: ignore[arg-type]


async def test_nobody_listens() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"mqtt://127.0.0.1:{sock.getsockname()[1]}"
        with pytest.raises(ConnectFailed):
            async with asyncmg.mqtt_connect(url):
                pass


@pytest.mark.parametrize(("version", "code", "meaning"), [(5, 0x86, 0x86), (5, 0x9D, 0x9D), (4, 5, 0x87), (4, 3, 0x88)])
async def test_refused(broker: FakeBroker, version: int, code: int, meaning: int) -> None:
    work = running(enter(broker.url, version=version))
    peer = await broker.peer()
    await peer.refuse(code, {Property.REASON_STRING: "no", Property.SERVER_REFERENCE: "b"} if version == 5 else {})
    with pytest.raises(MqttRefused) as caught:
        await soon(work)
    assert caught.value.code == meaning
    if version == 5:
        assert (caught.value.reason, caught.value.server_reference) == ("no", "b")
    await peer.expect_end()


async def test_no_connack(broker: FakeBroker) -> None:
    for arguments in ({"timeout": 0.5}, {"limits": Limits(mqtt=MqttLimits(connect_timeout=0.5))}):
        work = running(enter(broker.url, **arguments))
        peer = await broker.peer()
        await peer.expect(m.Connect)
        with pytest.raises(ConnectFailed, match=r"CONNACK"):
            await soon(work)
        await peer.expect_end()


async def test_cancelled_while_connecting(broker: FakeBroker) -> None:
    work = running(enter(broker.url))
    peer = await broker.peer()
    await peer.expect(m.Connect)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await peer.expect_end()


async def test_garbage_for_a_connack(broker: FakeBroker) -> None:
    for answer in (b"\x00\x00", b"\x30\x03\x00\x01a", b"HTTP/1.1 400 Bad Request\r\n\r\n"):
        work = running(enter(broker.url))
        peer = await broker.peer()
        await peer.expect(m.Connect)
        peer.send(answer)
        with pytest.raises((ConnectFailed, asyncmg.ProtocolError)):
            await soon(work)
        await peer.expect_end()


async def test_a_session_that_nobody_asked_for(broker: FakeBroker) -> None:
    work = running(enter(broker.url))
    peer = await broker.peer()
    await peer.accept(session_present=True)
    with pytest.raises(asyncmg.RemoteProtocolError, match=r"3\.2\.2-2"):
        await soon(work)


async def test_entered_twice(broker: FakeBroker) -> None:
    connector = asyncmg.mqtt_connect(broker.url)
    entering = running(connector.__aenter__())
    peer = await broker.peer()
    await peer.accept()
    await soon(entering)
    with pytest.raises(BusyError):
        await connector.__aenter__()
    await soon(connector.__aexit__(None, None, None))
    await peer.expect(m.Disconnect)


# -- connecting anew ---------------------------------------------------------------------------------------------------


async def test_the_second_connect(broker: FakeBroker) -> None:
    """It does not ask for a clean start, and uses the identifier that was assigned."""
    mq, peer = await broker.connect({Property.ASSIGNED_CLIENT_IDENTIFIER: "assigned"}, session_expiry=50)
    assert mq.client_id == "assigned"
    peer.cut()
    peer = await broker.peer()
    connect = await peer.accept()
    assert (connect.client_id, connect.clean_start) == ("assigned", False)
    await soon(mq.wait_connected())


async def test_a_clean_session_of_3_1_1_stays_clean(broker: FakeBroker) -> None:
    mq, peer = await broker.connect(version=4)
    await peer.end()
    connect = await (peer := await broker.peer()).accept()
    assert connect.clean_start and connect.client_id == ""
    await soon(mq.wait_connected(5))


async def test_tries_go_on(broker: FakeBroker) -> None:
    """No connection, a server that is busy, one that hangs up, one that talks nonsense: then it works."""
    mq, peer = await broker.connect(limits=Limits(mqtt=MqttLimits(connect_timeout=1.0)))
    peer.cut()
    await (await broker.peer()).refuse(m.SERVER_BUSY)
    (await broker.peer()).cut()
    (await broker.peer()).send(b"\0\0")
    peer = await broker.peer()
    await peer.expect(m.Connect)  # no answer
    await soon(peer.expect_end())
    with pytest.raises(DeadlineExceeded):
        await mq.wait_connected(0.0)
    await broker.again()
    await soon(mq.wait_connected())


@pytest.mark.parametrize("code", [m.SESSION_TAKEN_OVER, m.NOT_AUTHORIZED, m.SERVER_MOVED])
async def test_a_disconnect_that_is_final(broker: FakeBroker, code: int) -> None:
    mq, peer = await broker.connect()
    waiting = [running(mq.publish("a", b"", 1)), running(mq.subscribe("a")), running(anext(aiter(mq)))]
    await asyncio.sleep(0)
    peer.send(encode_disconnect(5, code, {Property.REASON_STRING: "because"}, Role.SERVER))
    for task in waiting:
        with pytest.raises(MqttRefused, match="because") as caught:
            await soon(task)
        assert caught.value.code == code
    for work in (mq.wait_connected(), mq.publish("a"), mq.publish("a", b"", 1), mq.ping(), mq.subscribe("a")):
        with pytest.raises(MqttRefused, match="because"):
            await soon(work)
    with pytest.raises(MqttRefused):
        mq.publish_soon("a")


async def test_a_connack_that_is_final(broker: FakeBroker) -> None:
    mq, peer = await broker.connect()
    work = running(mq.publish("a", b"", 1))
    peer.cut()
    await (await broker.peer()).refuse(m.BANNED)
    with pytest.raises(MqttRefused):
        await soon(work)


async def test_a_disconnect_that_is_not_final(broker: FakeBroker) -> None:
    mq, peer = await broker.connect()
    peer.send(encode_disconnect(5, m.SERVER_SHUTTING_DOWN, {}, Role.SERVER))
    await broker.again()
    await soon(mq.wait_connected())


async def test_without_reconnecting(broker: FakeBroker) -> None:
    mq, peer = await broker.connect(reconnect=False)
    reading = running(anext(aiter(mq)))
    await asyncio.sleep(0)
    peer.cut()
    with pytest.raises(ConnectionClosed):
        await soon(reading)
    with pytest.raises(ConnectionClosed):
        await soon(mq.publish("a", b"", 1))


async def test_keep_alive(broker: FakeBroker) -> None:
    """The server's value counts; a server that does not answer is left."""
    _, peer = await broker.connect({Property.SERVER_KEEP_ALIVE: 1})
    await peer.expect_ping()
    await peer.expect_ping()
    mq, peer = await broker.connect({Property.SERVER_KEEP_ALIVE: 1}, limits=Limits(mqtt=MqttLimits(ping_timeout=0.2)))
    peer.is_muted = True
    await peer.expect_end()
    await broker.again()
    await soon(mq.wait_connected())


async def test_ping(broker: FakeBroker) -> None:
    mq, peer = await broker.connect()
    pinged = running(mq.ping())
    await peer.expect_ping()
    assert 0 <= await soon(pinged) < 10
    with pytest.raises(DeadlineExceeded):
        await mq.ping(timeout=0.01)
    work = running(mq.ping())
    await asyncio.sleep(0)
    peer.cut()
    with pytest.raises(ConnectionClosed):
        await soon(work)


async def test_disconnect_with_will(broker: FakeBroker) -> None:
    mq, peer = await broker.connect()
    with pytest.raises(InvalidPacket):
        await mq.disconnect(0x10)
    mq, peer = await broker.connect()
    await soon(mq.disconnect(0x04, {"user_property": [("a", "b")]}))
    packet = await peer.expect(m.Disconnect)
    assert (packet.reason_code, packet.properties) == (4, {Property.USER_PROPERTY: [("a", "b")]})
    await soon(mq.disconnect())  # again: nothing


async def test_an_exception_in_the_body(broker: FakeBroker) -> None:
    async def use() -> None:
        async with asyncmg.mqtt_connect(broker.url) as mq:
            mq.publish_soon("a", b"", 1)
            raise KeyError

    work = running(use())
    peer = await broker.peer()
    await peer.accept()
    await peer.expect(m.Publish)
    await peer.expect(m.Disconnect)  # without waiting
    with pytest.raises(KeyError):
        await soon(work)


async def test_unix_socket(broker: FakeBroker, tmp_path: Path) -> None:
    path = str(tmp_path / "broker")
    server = await asyncio.start_unix_server(broker._serve, path)
    work = running(enter(f"unix://{path}"))
    peer = await broker.peer()
    await peer.accept()
    mq = await soon(work)
    await mq.publish("a", b"x")
    assert (await peer.expect(m.Publish)).payload == b"x"
    await soon(mq.disconnect())
    server.close()


# -- enhanced authentication -------------------------------------------------------------------------------------------


def auth(code: int, data: bytes, method: str = "M") -> bytes:
    return encode_auth(
        5, code, {Property.AUTHENTICATION_METHOD: method, Property.AUTHENTICATION_DATA: data}, Role.SERVER
    )


@pytest.mark.parametrize("is_async", [False, True])
async def test_enhanced_authentication(broker: FakeBroker, is_async: bool) -> None:
    asked: list[bytes | None] = []

    def plain(data: bytes | None) -> bytes:
        asked.append(data)
        return b"begin" if data is None else b"answer to " + data

    async def hook(data: bytes | None) -> bytes:
        await asyncio.sleep(0)
        return plain(data)

    work = running(enter(broker.url, authenticate=("M", hook if is_async else plain)))
    peer = await broker.peer()
    connect = await peer.expect(m.Connect)
    assert connect.properties[Property.AUTHENTICATION_METHOD] == "M"
    assert connect.properties[Property.AUTHENTICATION_DATA] == b"begin"
    for challenge in (b"1", b"2"):
        peer.send(auth(m.CONTINUE_AUTHENTICATION, challenge))
        packet = await peer.expect(m.Auth)
        assert packet.reason_code == m.CONTINUE_AUTHENTICATION
        assert packet.properties[Property.AUTHENTICATION_DATA] == b"answer to " + challenge
    told = {Property.AUTHENTICATION_METHOD: "M", Property.AUTHENTICATION_DATA: b"last"}
    peer.send(m_connack(told))
    mq = await soon(work)
    again = running(mq.reauthenticate())
    packet = await peer.expect(m.Auth)
    assert (packet.reason_code, packet.properties[Property.AUTHENTICATION_DATA]) == (m.REAUTHENTICATE, b"begin")
    peer.send(auth(m.CONTINUE_AUTHENTICATION, b"3"))
    await peer.expect(m.Auth)
    peer.send(auth(m.SUCCESS, b"4"))
    await soon(again)
    await eventually(lambda: len(asked) == 7)
    assert asked == [None, b"1", b"2", b"last", None, b"3", b"4"]
    refused = running(mq.reauthenticate())
    await peer.expect(m.Auth)
    peer.send(encode_disconnect(5, m.NOT_AUTHORIZED, {}, Role.SERVER))
    with pytest.raises(ConnectionClosed):
        await soon(refused)
    await eventually(lambda: mq.pending == 0)
    await soon(mq.disconnect())


def m_connack(properties: Any) -> bytes:
    from asyncmg.codecs.mqtt_encode import encode_connack

    return encode_connack(5, False, 0, properties)


async def test_authentication_that_goes_wrong(broker: FakeBroker) -> None:
    def hook(data: bytes | None) -> bytes:
        if data == b"liar":
            raise KeyError("you are not who you say")
        return b"x"

    work = running(enter(broker.url, authenticate=("M", hook)))
    peer = await broker.peer()
    await peer.expect(m.Connect)
    peer.send(auth(m.CONTINUE_AUTHENTICATION, b"liar"))
    with pytest.raises(MqttRefused, match="you are not"):
        await soon(work)
    await peer.expect_end()
    work = running(enter(broker.url, authenticate=("M", hook)))
    peer = await broker.peer()
    await peer.expect(m.Connect)
    peer.send(auth(m.CONTINUE_AUTHENTICATION, b"1", "Other"))
    with pytest.raises(asyncmg.RemoteProtocolError, match="another authentication method"):
        await soon(work)
    work = running(enter(broker.url))
    peer = await broker.peer()
    await peer.expect(m.Connect)
    peer.send(auth(m.CONTINUE_AUTHENTICATION, b"1"))
    with pytest.raises(asyncmg.RemoteProtocolError, match="nobody has asked"):
        await soon(work)
    mq, peer = await broker.connect()
    with pytest.raises(LocalProtocolError):
        await mq.reauthenticate()


# -- request and response ----------------------------------------------------------------------------------------------


async def test_requests(broker: FakeBroker) -> None:
    mq, peer = await broker.connect({Property.RESPONSE_INFORMATION: "for/you"})
    work = [running(mq.request("rpc", str(n), properties={"content_type": "x"})) for n in range(3)]
    (own, options), *others = (await peer.grant()).filters
    assert own.startswith("for/you/") and options == 1 and not others
    asked = [await peer.expect(m.Publish) for _ in range(3)]
    numbers = []
    for n, packet in enumerate(asked):
        found = packet.properties()
        assert packet.payload == str(n).encode() and found[Property.RESPONSE_TOPIC] == own
        assert found[Property.CONTENT_TYPE] == "x"
        numbers.append(found[Property.CORRELATION_DATA])
    for n in (2, 0):
        peer.publish(own, b"r%d" % n, 1, packet_id=n + 1, properties={Property.CORRELATION_DATA: numbers[n]})
    peer.publish(own, b"nobody's", properties={Property.CORRELATION_DATA: b"?"})
    assert (await soon(work[2])).text == "r2"
    assert (await soon(work[0])).text == "r0"
    await peer.expect_ack(m.PUBACK, 3)
    await peer.expect_ack(m.PUBACK, 1)
    work[1].cancel()
    with pytest.raises(DeadlineExceeded):
        await mq.request("rpc", timeout=0.01)
    await peer.expect(m.Publish)
    peer.publish("other", b"1", properties={Property.RESPONSE_TOPIC: "back", Property.CORRELATION_DATA: b"7"})
    message = await soon(anext(aiter(mq)))
    await mq.respond(message, b"done")
    packet = await peer.expect(m.Publish)
    assert (packet.topic, packet.properties()) == ("back", {Property.CORRELATION_DATA: b"7"})
    peer.publish("other", b"2")
    with pytest.raises(LocalProtocolError):
        await mq.respond(await soon(anext(aiter(mq))), b"")


async def test_no_requests_in_3_1_1(broker: FakeBroker) -> None:
    mq, _ = await broker.connect(version=4)
    with pytest.raises(LocalProtocolError):
        await mq.request("a")
