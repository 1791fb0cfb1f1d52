"""Raw MQTT events: clients and brokers that a handler makes, in the manner of Mongoose; and MQTT through WebSocket."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asyncmg import (
    MG_EV_CLOSE,
    MG_EV_CONNECT,
    MG_EV_ERROR,
    MG_EV_HTTP_HDRS,
    MG_EV_HTTP_MSG,
    MG_EV_MQTT_CMD,
    MG_EV_MQTT_MSG,
    MG_EV_MQTT_OPEN,
    MG_EV_OPEN,
    MG_EV_RESOLVE,
    BusyError,
    ConnectFailed,
    Connection,
    ConnectionClosed,
    InvalidUrl,
    Limits,
    LocalProtocolError,
    Manager,
    MqttLimits,
    MqttWill,
)
from asyncmg.codecs import mqtt as m
from asyncmg.codecs.mqtt_encode import encode_connack, encode_connect, encode_publish, encode_unsubscribe
from asyncmg.codecs.mqtt_properties import InvalidPacket, Property

from .conftest import Harness, RawPeer, eventually, soon
from .mqtt_peer import MqttPeer, serving
from .ws_peer import WHOLE_BINARY, WHOLE_TEXT, expect_close, masked, read_frame, shake_hands

CONNACK = encode_connack(4, False, 0)


class Log:
    """A handler that notes what it sees."""

    def __init__(self) -> None:
        self.events: list[tuple[int, Any]] = []

    def __call__(self, conn: Connection, ev: int, data: Any) -> None:
        self.events.append((ev, data))

    def of(self, *wanted: int) -> list[Any]:
        return [data for ev, data in self.events if ev in wanted]

    def commands(self) -> list[int]:
        return [data.cmd for data in self.of(MG_EV_MQTT_CMD)]


class FakeBroker:
    """Accepts one client, and lets a test speak to it."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[RawPeer] = asyncio.Queue()
        self.server: asyncio.Server | None = None
        self._peers: list[RawPeer] = []

    async def __aenter__(self) -> FakeBroker:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peer = RawPeer(reader, writer)
            self._peers.append(peer)
            self.accepted.put_nowait(peer)

        self.server = await asyncio.start_server(accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self.server is not None
        self.server.close()
        for peer in self._peers:
            peer.writer.transport.abort()
        await asyncio.sleep(0)

    @property
    def url(self) -> str:
        assert self.server is not None
        return f"mqtt://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("version", [4, 5])
async def test_events_of_a_client(harness: Harness, version: int) -> None:
    async with serving(harness) as served:
        log = Log()
        manager = harness.manager(log, events=(1, 3, 4, 0, 9, 15, 16, 17))
        conn = manager.mqtt_connect(f"mqtt://127.0.0.1:{served.port}", version=version)
        await soon(conn.connected())
        assert [ev for ev, _ in log.events] == [
            MG_EV_OPEN,
            MG_EV_RESOLVE,
            MG_EV_CONNECT,
            MG_EV_MQTT_OPEN,
            MG_EV_MQTT_CMD,
        ]
        assert (log.of(MG_EV_MQTT_OPEN), log.commands()) == ([0], [m.CONNACK])
        number = conn.mqtt_sub("a/#", 2)
        await eventually(lambda: m.SUBACK in log.commands())
        suback = log.of(MG_EV_MQTT_CMD)[-1]
        assert (suback.id, suback.data) == (number, b"\x02")
        assert conn.mqtt_pub("a/0", "zerö") == 0
        numbers = [conn.mqtt_pub("a/1", b"one", 1), conn.mqtt_pub("a/2", b"two", 2, retain=True)]
        assert len({number, *numbers}) == 3
        await eventually(lambda: m.PUBCOMP in log.commands() and len(log.of(MG_EV_MQTT_MSG)) == 3)
        messages = log.of(MG_EV_MQTT_MSG)
        assert [(item.topic, item.text, item.qos, item.cmd) for item in messages] == [
            ("a/0", "zerö", 0, 3),
            ("a/1", "one", 1, 3),
            ("a/2", "two", 2, 3),
        ]
        acks = [item for item in log.of(MG_EV_MQTT_CMD) if item.cmd in (m.PUBACK, m.PUBCOMP)]
        assert [(item.id, item.ack) for item in acks] == [(numbers[0], 0), (numbers[1], 0)]
        conn.mqtt_ping()
        await eventually(lambda: m.PINGRESP in log.commands())
        conn.mqtt_unsub("a/#")
        await eventually(lambda: m.UNSUBACK in log.commands())
        assert served.broker.retained("a/2")[0].payload == b"two"
        conn.mqtt_disconnect()
        await eventually(lambda: MG_EV_CLOSE in [ev for ev, _ in log.events])
        with pytest.raises(ConnectionClosed):
            conn.mqtt_pub("a", "x")


async def test_a_refused_client(harness: Harness) -> None:
    async with serving(harness, authenticate=lambda attempt: attempt.client.username == "u") as served:
        log = Log()
        manager = harness.manager(log)
        conn = manager.mqtt_connect(f"mqtt://127.0.0.1:{served.port}", version=5)
        with pytest.raises(ConnectFailed):
            await soon(conn.connected())
        await eventually(lambda: conn.is_ended)
        assert log.of(MG_EV_MQTT_OPEN) == [m.BAD_USER_OR_PASSWORD]
        for conn in (
            manager.mqtt_connect(f"mqtt://u:p@127.0.0.1:{served.port}"),
            manager.mqtt_connect(f"mqtt://127.0.0.1:{served.port}", username="u", password=b"\xff"),
        ):
            await soon(conn.connected())


async def test_a_client_has_a_will(harness: Harness) -> None:
    async with serving(harness) as served:
        manager = harness.manager(Log())
        will = MqttWill("w", "gone", 1, True, properties={Property.CONTENT_TYPE: "t"})
        conn = manager.mqtt_connect(f"mqtt://127.0.0.1:{served.port}", version=5, will=will)
        await soon(conn.connected())
        conn.close()
        await eventually(lambda: served.broker.retained("w"))
        message = served.broker.retained("w")[0]
        assert (message.text, message.property_map) == ("gone", {Property.CONTENT_TYPE: "t"})
        assert message.properties() == [{"id": 3, "iv": 0, "key": "", "val": b"t"}]


async def test_verbs_need_an_open_mqtt_connection(harness: Harness) -> None:
    async with FakeBroker() as fake:
        manager = harness.manager(Log())
        conn = manager.mqtt_connect(fake.url)
        with pytest.raises(LocalProtocolError, match="not open yet"):
            conn.mqtt_pub("a", "x")
        peer = await soon(fake.accepted.get())
        await peer.read_exactly(14)
        peer.send(CONNACK)
        await soon(conn.connected())
        for wrong in (
            lambda: conn.mqtt_pub("a/#", "x"),
            lambda: conn.mqtt_pub("a", "x", 3),
            lambda: conn.mqtt_pub("a", "x", properties={Property.CONTENT_TYPE: "t"}),
            lambda: conn.mqtt_sub("a/#/b"),
            lambda: conn.mqtt_unsub(""),
            lambda: manager.mqtt_connect(fake.url, client_id="a\0"),
            lambda: manager.mqtt_connect(fake.url, keepalive=70_000),
        ):
            with pytest.raises(InvalidPacket):
                wrong()
        with pytest.raises(LocalProtocolError, match="no CONNECT"):
            conn.mqtt_connack()
        tcp = manager.connect(fake.url.replace("mqtt", "tcp"))
        with pytest.raises(LocalProtocolError, match="not an MQTT connection"):
            tcp.mqtt_pub("a", "x")
        for url in ("http://127.0.0.1:1", "tcp://127.0.0.1:1"):
            if url.startswith("tcp"):
                with pytest.raises(InvalidUrl):
                    manager.mqtt_connect(url)
            else:
                with pytest.raises(InvalidUrl):
                    manager.mqtt_listen(url)
        with pytest.raises(InvalidUrl, match="mqtt_connect"):
            manager.connect("mqtt://127.0.0.1")


async def test_a_client_pings_and_notices_silence(harness: Harness) -> None:
    async with FakeBroker() as fake:
        log = Log()
        manager = harness.manager(log, limits=Limits(mqtt=MqttLimits(ping_timeout=0.2)))
        conn = manager.mqtt_connect(fake.url, client_id="c", keepalive=1)
        peer = await soon(fake.accepted.get())
        await peer.read_exactly(15)
        peer.send(CONNACK)
        assert await peer.read_exactly(2) == b"\xc0\x00"
        peer.send(b"\xd0\x00")
        assert await peer.read_exactly(2) == b"\xc0\x00"
        await eventually(lambda: conn.is_ended)
        assert [type(error) for error in log.of(MG_EV_ERROR)] == [__import__("asyncmg").DeadlineExceeded]


async def test_a_broker_that_does_not_answer(harness: Harness) -> None:
    async with FakeBroker() as fake:
        log = Log()
        manager = harness.manager(log, limits=Limits(mqtt=MqttLimits(connect_timeout=0.1)))
        conn = manager.mqtt_connect(fake.url)
        with pytest.raises(ConnectFailed, match="CONNACK"):
            await soon(conn.connected())


async def test_messages_above_the_receive_maximum_wait(harness: Harness) -> None:
    async with FakeBroker() as fake:
        manager = harness.manager(Log(), limits=Limits(mqtt=MqttLimits(max_queued=2)))
        conn = manager.mqtt_connect(fake.url, client_id="c", version=5)
        peer = await soon(fake.accepted.get())
        await peer.read_exactly(24)
        peer.send(encode_connack(5, False, 0, {Property.RECEIVE_MAXIMUM: 1, Property.MAXIMUM_PACKET_SIZE: 30}))
        await soon(conn.connected())
        numbers = [conn.mqtt_pub("a", b"%d" % number, 1) for number in range(3)]
        with pytest.raises(BusyError):
            conn.mqtt_pub("a", "x", 1)
        with pytest.raises(LocalProtocolError, match="30 at most"):
            conn.mqtt_pub("a", b"x" * 40, 1)
        for number in range(3):
            wanted = encode_publish(5, "a", b"%d" % number, 1, packet_id=numbers[number])
            assert await peer.read_exactly(len(wanted)) == wanted
            peer.send(b"\x40\x02" + numbers[number].to_bytes(2, "big"))


async def test_a_broker_that_breaks_the_protocol(harness: Harness) -> None:
    for wrong in (b"\x30\x00", b"\xf1\x00", b"\x82\x06\x00\x01\x00\x01a\x00"):
        async with FakeBroker() as fake:
            log = Log()
            manager = harness.manager(log)
            conn = manager.mqtt_connect(fake.url, client_id="c", version=5)
            peer = await soon(fake.accepted.get())
            await peer.read_exactly(24)
            peer.send(encode_connack(5, False, 0) + wrong)
            await eventually(lambda log=log: MG_EV_CLOSE in [ev for ev, _ in log.events])
            assert conn.is_ended and len(log.of(MG_EV_ERROR)) == 1
            told = await peer.read_all()
            assert told[0] == 0xE0


# -- a broker in a handler ---------------------------------------------------------------------------------------------


class TinyBroker:
    """All that raw events leave to a handler."""

    def __init__(self) -> None:
        self.clients: dict[Connection, list[str]] = {}
        self.connects: list[Any] = []

    def __call__(self, conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_MQTT_CMD:
            if data.cmd == m.CONNECT:
                self.connects.append(data.packet)
                self.clients[conn] = []
                conn.mqtt_connack(m.SUCCESS if data.packet.username != "bad" else m.BAD_USER_OR_PASSWORD)
            elif data.cmd == m.SUBSCRIBE:
                self.clients[conn] += [topic_filter for topic_filter, _ in data.filters]
                conn.mqtt_suback(data.id, [options & 3 for _, options in data.filters])
            elif data.cmd == m.UNSUBSCRIBE:
                conn.mqtt_unsuback(data.id, [0] * len(data.filters) if data.packet else ())
            elif data.cmd == m.PINGREQ:
                conn.mqtt_pong()
        elif ev == MG_EV_MQTT_MSG:
            for client, filters in self.clients.items():
                if data.topic in filters:
                    client.mqtt_pub(data.topic, data.data, data.qos)
        elif ev == MG_EV_CLOSE:
            self.clients.pop(conn, None)


@pytest.mark.parametrize("version", [4, 5])
async def test_a_broker_made_of_events(harness: Harness, version: int) -> None:
    broker = TinyBroker()
    listener = harness.manager(broker).mqtt_listen("mqtt://127.0.0.1:0")
    peer = MqttPeer(await harness.peer(listener.port), version)
    connack = await peer.connect("c", username="u", password=b"p", will_topic="w", will_payload=b"x", keep_alive=9)
    told = {Property.RECEIVE_MAXIMUM: 100, Property.MAXIMUM_PACKET_SIZE: 1 << 20} if version == 5 else {}
    assert connack == m.Connack(False, 0, told)
    connect = broker.connects[0]
    assert (connect.client_id, connect.username, connect.password) == ("c", "u", b"p")
    assert (connect.will_topic, connect.will_payload, connect.keep_alive) == ("w", b"x", 9)
    assert await peer.subscribe(("a", 2), ("b", 1)) == [2, 1]
    for qos in range(3):
        peer.publish_now("a", b"%d" % qos, qos, qos and 7)
        if qos:
            await peer.expect_ack(m.PUBACK if qos == 1 else m.PUBREC, 7)
        message = await peer.message()
        assert (message.payload, message.qos) == (b"%d" % qos, qos)
    await peer.expect_nothing()
    await peer.disconnect()
    await eventually(lambda: not broker.clients)
    bad = MqttPeer(await harness.peer(listener.port), version)
    assert (await bad.connect(username="bad")).reason_code == (m.BAD_USER_OR_PASSWORD if version == 5 else 4)
    await bad.expect_end()


async def test_a_connack_as_bytes_is_seen(harness: Harness) -> None:
    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_MQTT_CMD and data.cmd == m.CONNECT:
            conn.send(encode_connack(4, False, 0 if data.packet.client_id == "good" else 5))
        elif ev == MG_EV_MQTT_CMD and data.cmd == m.PINGREQ:
            conn.mqtt_pong()

    manager = harness.manager(handler, limits=Limits(mqtt=MqttLimits(connect_timeout=0.3)))
    listener = manager.listen("mqtt://127.0.0.1:0")
    peer = MqttPeer(await harness.peer(listener.port), 4)
    assert (await peer.connect("good")).reason_code == 0
    bad = MqttPeer(await harness.peer(listener.port), 4)
    assert (await bad.connect("bad")).reason_code == 5
    await bad.expect_end()
    await asyncio.sleep(0.5)
    await peer.expect_nothing()


async def test_an_async_session_is_a_broker(harness: Harness) -> None:
    seen: list[str] = []

    async def session(conn: Connection) -> None:
        async for ev, data in conn:
            if ev == MG_EV_MQTT_CMD and data.cmd == m.CONNECT:
                await asyncio.sleep(0.01)
                conn.mqtt_connack()
            elif ev == MG_EV_MQTT_MSG:
                await asyncio.sleep(0)
                seen.append(data.text)
                if data.text == "last":
                    conn.mqtt_disconnect(m.ADMINISTRATIVE_ACTION)

    listener = harness.manager(session).mqtt_listen("tcp://127.0.0.1:0")
    peer = MqttPeer(await harness.peer(listener.port))
    await peer.connect()
    for number in range(200):
        peer.publish_now("a", b"%d" % number, number % 2, number % 2 and number)
    peer.publish_now("a", b"last")
    await eventually(lambda: seen and seen[-1] == "last")
    assert seen == [*map(str, range(200)), "last"]


async def test_topic_aliases_of_raw_clients(harness: Harness) -> None:
    broker = TinyBroker()
    listener = harness.manager(broker).mqtt_listen("mqtt://127.0.0.1:0")
    peer = MqttPeer(await harness.peer(listener.port))
    await peer.connect()
    await peer.subscribe(("a/b", 0))
    peer.publish_now("a/b", b"1", properties={Property.TOPIC_ALIAS: 1})
    peer.publish_now("", b"2", properties={Property.TOPIC_ALIAS: 1})
    assert [(await peer.message()).payload for _ in range(2)] == [b"1", b"2"]
    peer.publish_now("", b"2", properties={Property.TOPIC_ALIAS: 9})
    await peer.expect_disconnect(m.PROTOCOL_ERROR)


# -- through WebSocket, and beside HTTP --------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["ws", "http"])
@pytest.mark.parametrize("version", [4, 5])
async def test_mqtt_in_websocket(harness: Harness, scheme: str, version: int) -> None:
    async with serving(harness) as served:
        port = served.broker.listen(f"{scheme}://127.0.0.1:0").port
        log = Log()
        conn = harness.manager(log).mqtt_connect(f"ws://127.0.0.1:{port}/any", version=version)
        await soon(conn.connected())
        conn.mqtt_sub("a", 2)
        payloads = [b"x" * size for size in (0, 1, 200, 70_000, 300_000)]
        await eventually(lambda: m.SUBACK in log.commands())
        for place, payload in enumerate(payloads):
            conn.mqtt_pub("a", payload, place % 3)
        await eventually(lambda: len(log.of(MG_EV_MQTT_MSG)) == len(payloads))
        assert [item.data for item in log.of(MG_EV_MQTT_MSG)] == payloads
        conn.mqtt_disconnect()
        await eventually(lambda: conn.is_ended and not served.broker.clients())
        assert log.of(MG_EV_ERROR) == []


async def test_websocket_peers_of_the_broker(harness: Harness) -> None:
    async with serving(harness) as served:
        port = served.broker.listen("ws://127.0.0.1:0").port
        peer = await harness.peer(port)
        fields = await shake_hands(peer, "Sec-WebSocket-Protocol: other, mqtt")
        assert fields["sec-websocket-protocol"] == "mqtt"
        connect = encode_connect(4, "c")
        for place in range(len(connect)):  # packets and messages need not be the same [MQTT-6.0.0-2]
            peer.send(masked(WHOLE_BINARY, connect[place : place + 1]))
        frame = await read_frame(peer)
        assert (frame.flags, frame.payload) == (WHOLE_BINARY, CONNACK)
        peer.send(masked(WHOLE_TEXT, b"\xc0\x00".decode("latin-1").encode()))
        await expect_close(peer, 1003)
        await eventually(lambda: not served.broker.clients())
        peer = await harness.peer(port)
        peer.send("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        assert (await peer.read_reply())[0] == 404


async def test_a_browser_of_another_origin(harness: Harness) -> None:
    async with serving(harness, origins=["https://ours.example"]) as served:
        port = served.broker.listen("ws://127.0.0.1:0").port
        peer = await harness.peer(port)
        await shake_hands(peer, "Sec-WebSocket-Protocol: mqtt", "Origin: https://ours.example")
        from .ws_peer import request

        peer = await harness.peer(port)
        peer.send(request("Sec-WebSocket-Protocol: mqtt", "Origin: https://theirs.example"))
        assert (await peer.read_reply())[0] == 403


async def test_three_protocols_on_one_port(harness: Harness) -> None:
    def pages(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, f"page {data.uri}")

    async with serving(harness) as served:
        port = served.broker.listen("http://127.0.0.1:0", pages).port
        http = await harness.peer(port)
        for uri in ("/a", "/b"):
            http.send(f"GET {uri} HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await http.read_reply())[2] == f"page {uri}".encode()
        bytewise = await harness.peer(port)
        for char in "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n":
            bytewise.send(char)
            await asyncio.sleep(0)
        assert (await bytewise.read_reply())[2] == b"page /slow"
        mqtt = MqttPeer(await harness.peer(port))
        await mqtt.connect()
        await mqtt.subscribe(("a", 0))
        tunnel = await harness.peer(port)
        await shake_hands(tunnel, "Sec-WebSocket-Protocol: mqtt")
        tunnel.send(masked(WHOLE_BINARY, encode_connect(4, "t") + encode_publish(4, "a", b"x")))
        assert (await read_frame(tunnel)).payload == CONNACK
        assert (await mqtt.message()).payload == b"x"
        # A payload that looks like a request stays a payload.
        mqtt.publish_now("a", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await mqtt.message()).payload == b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        mqtt.send(b"\x30\x1f\x00\x01a\x00")
        await asyncio.sleep(0.05)
        mqtt.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[:27])
        assert (await mqtt.message()).payload == b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[:27]


async def test_an_async_handler_beside_mqtt(harness: Harness) -> None:
    seen: list[str] = []

    async def pages(conn: Connection, ev: int, data: Any) -> None:
        if ev in (MG_EV_HTTP_HDRS, MG_EV_HTTP_MSG):
            seen.append(data.uri)
        if ev == MG_EV_HTTP_MSG:
            await asyncio.sleep(0)
            conn.reply(200, f"page {data.uri}")

    async def session(conn: Connection) -> None:
        """Takes its events itself: nobody could take MQTT's requests out of them."""

    async with serving(harness) as served:
        port = served.broker.listen("http://127.0.0.1:0", pages).port
        http = await harness.peer(port)
        http.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await http.read_reply())[2] == b"page /a"
        tunnel = await harness.peer(port)
        await shake_hands(tunnel, "Sec-WebSocket-Protocol: mqtt")
        tunnel.send(masked(WHOLE_BINARY, encode_connect(4, "t")))
        assert (await read_frame(tunnel)).payload == CONNACK
        assert seen == ["/a", "/a"]
        with pytest.raises(TypeError, match="plain or async"):
            served.broker.listen("http://127.0.0.1:0", session)


async def test_acknowledgements_of_a_handler_fit_the_version(harness: Harness) -> None:
    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_MQTT_CMD and data.cmd == m.CONNECT:
            conn.mqtt_connack()
        elif ev == MG_EV_MQTT_CMD and data.cmd == m.SUBSCRIBE:
            conn.mqtt_suback(data.id, [1, m.NOT_AUTHORIZED])
        elif ev == MG_EV_MQTT_CMD and data.cmd == m.UNSUBSCRIBE:
            conn.mqtt_unsuback(data.id, [0, m.NO_SUBSCRIPTION_EXISTED])

    listener = harness.manager(handler).mqtt_listen("mqtt://127.0.0.1:0")
    for version, refused, gone in ((5, m.NOT_AUTHORIZED, [0, m.NO_SUBSCRIPTION_EXISTED]), (4, m.UNSPECIFIED_ERROR, [])):
        peer = MqttPeer(await harness.peer(listener.port), version)
        await peer.connect()
        assert await peer.subscribe(("a", 1), ("b", 0)) == [1, refused]
        peer.send(encode_unsubscribe(version, 7, ("a", "b")))
        assert list((await peer.expect(m.Unsuback)).reason_codes) == gone


async def test_nothing_at_all_on_a_shared_port(harness: Harness) -> None:
    from asyncmg import HttpLimits

    async with serving(harness, limits=Limits(http=HttpLimits(header_timeout=0.1))) as served:
        port = served.broker.listen("http://127.0.0.1:0").port
        assert await (await harness.peer(port)).read_all() == b""


async def test_a_broker_on_a_manager_of_the_program(harness: Harness) -> None:
    holder: list[Any] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG and data.uri == "/mqtt":
            holder[0].accept(conn, data)
        elif ev == MG_EV_HTTP_MSG:
            conn.reply(200, "page")

    from asyncmg import MqttBroker

    manager: Manager = harness.manager(handler)
    async with MqttBroker(manager, sys_interval=0) as broker:
        holder.append(broker)
        port = manager.listen("http://127.0.0.1:0").port  # type: ignore[union-attr]
        tunnel = await harness.peer(port)
        await shake_hands(tunnel, "Sec-WebSocket-Protocol: mqtt", target="/mqtt")
        tunnel.send(masked(WHOLE_BINARY, encode_connect(4, "t")))
        assert (await read_frame(tunnel)).payload == CONNACK
        plain = await harness.peer(port)
        plain.send("GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await plain.read_reply())[0] == 400
    other = await harness.peer(port)
    other.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await other.read_reply())[2] == b"page"
