"""Who may connect, publish, subscribe and be sent what: hooks of the broker, plain and async, right and wrong ones."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from asyncmg import BrokerClient, BrokerMessage, ConnectAttempt, MqttLimits, PasswordFile
from asyncmg.broker.passwords import check_password, hash_password
from asyncmg.codecs import mqtt as m
from asyncmg.codecs.http import Role
from asyncmg.codecs.mqtt_encode import encode_auth, encode_connect
from asyncmg.codecs.mqtt_properties import Property

from .conftest import Harness, eventually, soon
from .mqtt_peer import serving

FOREVER = {Property.SESSION_EXPIRY_INTERVAL: 1000}


def plain(verdict: Any) -> Any:
    return lambda *args: verdict


def later(verdict: Any) -> Any:
    async def hook(*args: Any) -> Any:
        await asyncio.sleep(0.01)
        return verdict

    return hook


BOTH = pytest.mark.parametrize("kind", [plain, later])


@BOTH
async def test_a_client_that_is_refused(harness: Harness, kind: Any) -> None:
    for verdict, code, old_code in (
        (False, m.BAD_USER_OR_PASSWORD, 4),
        (m.BANNED, m.BANNED, 5),
        (m.SERVER_BUSY, m.SERVER_BUSY, 3),
    ):
        async with serving(harness, authenticate=kind(verdict)) as served:
            for version, wanted in ((5, code), (4, old_code)):
                peer = await served.peer(version)
                assert (await peer.connect("c", username="u", password=b"p")).reason_code == wanted
                await peer.expect_end()
            assert served.broker.statistics().connects_refused == 2


async def test_what_a_hook_is_told(harness: Harness) -> None:
    attempts: list[ConnectAttempt] = []

    def authenticate(attempt: ConnectAttempt) -> bool:
        attempts.append(attempt)
        return attempt.password == b"p"

    async with serving(harness, authenticate=authenticate) as served:
        await served.client("c", 4, username="u", password=b"p", keep_alive=7)
        client = attempts[0].client
        assert (client.client_id, client.username, client.version, client.is_tls) == ("c", "u", 4, False)
        assert client.address[0] == "127.0.0.1"
        assert attempts[0].connect.keep_alive == 7


@BOTH
async def test_whoever_is_refused_touches_nothing(harness: Harness, kind: Any) -> None:
    verdicts = {"good": True, "bad": False}

    def authenticate(attempt: ConnectAttempt) -> Any:
        return kind(verdicts[attempt.client.username or ""])(attempt)

    async with serving(harness, authenticate=authenticate) as served:
        first = await served.client("c", username="good", properties=FOREVER)
        await first.subscribe(("#", 1))
        peer = await served.peer()
        connack = await peer.connect("c", clean_start=True, username="bad", will_topic="w", will_payload=b"x")
        assert connack.reason_code == m.BAD_USER_OR_PASSWORD
        await peer.expect_end()
        peer = await served.peer()
        peer.send(encode_connect(5, "c", username="bad", will_topic="w") + b"\x30\x03\x00\x01a\x00"[:2])
        peer.vanish()
        await first.expect_nothing()
        served.broker.publish("a", b"still there", 1)
        assert (await first.message()).payload == b"still there"


async def test_a_session_belongs_to_its_user(harness: Harness) -> None:
    async with serving(harness) as served:
        first = await served.client("c", username="u", properties=FOREVER)
        for username in ("v", None):
            peer = await served.peer()
            connack = await peer.connect("c", clean_start=False, username=username)
            assert connack.reason_code == m.CLIENT_IDENTIFIER_INVALID
        await first.expect_nothing()


async def test_a_hook_that_fails_lets_nobody_in(harness: Harness) -> None:
    async def fails(*args: Any) -> bool:
        raise RuntimeError("broken")

    def fails_at_once(*args: Any) -> bool:
        raise RuntimeError("broken")

    for hook in (fails, fails_at_once, plain("yes"), later(None)):
        async with serving(harness, authenticate=hook) as served:
            peer = await served.peer()
            assert (await peer.connect("c")).reason_code == m.SERVER_UNAVAILABLE
            await peer.expect_end()
            assert served.broker.statistics().sessions == 0
    assert [type(error) for error in harness.errors] == [RuntimeError, RuntimeError, TypeError, TypeError]


async def test_a_hook_that_does_not_answer(harness: Harness) -> None:
    async def never(*args: Any) -> bool:
        await asyncio.Event().wait()
        return True

    async with serving(harness, authenticate=never, mqtt=MqttLimits(authentication_timeout=0.1)) as served:
        peer = await served.peer()
        assert (await peer.connect("c")).reason_code == m.SERVER_UNAVAILABLE
        await peer.expect_end()
    assert [type(error) for error in harness.errors] == [TimeoutError]


async def test_a_client_that_leaves_while_it_is_judged(harness: Harness) -> None:
    gate = asyncio.Event()

    async def waits(attempt: ConnectAttempt) -> bool:
        await gate.wait()
        return True

    async with serving(harness, authenticate=waits) as served:
        peer = await served.peer()
        peer.send(encode_connect(5, "c", will_topic="w"))
        await asyncio.sleep(0.05)
        peer.vanish()
        await asyncio.sleep(0.05)
        gate.set()
        await asyncio.sleep(0.05)
        await eventually(lambda: not served.broker.clients())
        await served.client("d")


async def test_what_is_sent_behind_connect_waits_for_the_verdict(harness: Harness) -> None:
    async with serving(harness, authenticate=later(True)) as served:
        with served.broker.subscribe("#") as messages:
            peer = await served.peer()
            peer.send(encode_connect(5, "c"))
            for number in range(3):
                peer.publish_now("a", b"%d" % number, 1, number + 1)
            assert isinstance(await peer.packet(), m.Connack)
            for number in range(3):
                await peer.expect_ack(m.PUBACK, number + 1)
                assert (await soon(anext(messages))).payload == b"%d" % number


# -- passwords ---------------------------------------------------------------------------------------------------------


def test_hashes() -> None:
    hashed = hash_password("secret")
    assert hashed.startswith("$scrypt$ln=14,r=8,p=1$")
    assert check_password("secret", hashed) and check_password(b"secret", hashed)
    assert not check_password("Secret", hashed)
    for wrong in ("", "secret", "$scrypt$ln=99,r=8,p=1$AA$AA", "$argon2$ln=1$AA$AA", hashed.replace("ln", "x")):
        with pytest.raises(ValueError, match="scrypt"):
            check_password("secret", wrong)


async def test_a_password_file(harness: Harness, tmp_path: Path) -> None:
    path = tmp_path / "users"
    users = PasswordFile(path)
    users.set("ann", "secret")
    users.set("bob:with colon", b"\xff\x00")
    assert (path.stat().st_mode & 0o777, len(PasswordFile(path))) == (0o600, 2)
    async with serving(harness, authenticate=PasswordFile(path)) as served:
        await served.client(username="ann", password=b"secret")
        await served.client(username="ann", password=b"secret")
        await served.client(username="bob:with colon", password=b"\xff\x00")
        for username, password, code in (
            ("ann", b"wrong", m.BAD_USER_OR_PASSWORD),
            ("ann", None, m.BAD_USER_OR_PASSWORD),
            ("eve", b"secret", m.BAD_USER_OR_PASSWORD),
            ("ann", b"x" * 5000, m.BAD_USER_OR_PASSWORD),
            (None, None, m.NOT_AUTHORIZED),
        ):
            peer = await served.peer()
            assert (await peer.connect(username=username, password=password)).reason_code == code
        users.set("ann", "new")
        peer = await served.peer()
        assert (await peer.connect(username="ann", password=b"secret")).reason_code == m.BAD_USER_OR_PASSWORD
        await served.client(username="ann", password=b"new")
        users.set("ann", None)
        peer = await served.peer()
        assert (await peer.connect(username="ann", password=b"new")).reason_code == m.BAD_USER_OR_PASSWORD


def test_wrong_password_files(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("# comment\n\nann:plain\n")
    with pytest.raises(ValueError, match="line 3"):
        PasswordFile(path)
    users = PasswordFile(tmp_path / "others")
    for name in ("a\nb", "#a", "a\u2028b"):
        with pytest.raises(ValueError, match="user name"):
            users.set(name, "x")


async def test_anonymous_clients_beside_a_password_file(harness: Harness, tmp_path: Path) -> None:
    async with serving(harness, authenticate=PasswordFile(tmp_path / "users", anonymous=True)) as served:
        await served.client()
        peer = await served.peer()
        assert (await peer.connect(username="u", password=b"p")).reason_code == m.BAD_USER_OR_PASSWORD


# -- enhanced authentication -------------------------------------------------------------------------------------------


async def counting(attempt: ConnectAttempt) -> Any:
    """A method that asks for a number one higher, twice."""
    if attempt.method != "count":
        return m.BAD_AUTHENTICATION_METHOD
    number = int(attempt.data)
    for _ in range(2):
        answer = int(await attempt.challenge(b"%d" % number))
        if answer != number + 1:
            return False
        number = answer
    attempt.reply = b"done %d" % number
    return True


def auth(code: int, data: bytes, method: str = "count") -> bytes:
    properties = {Property.AUTHENTICATION_METHOD: method, Property.AUTHENTICATION_DATA: data}
    return encode_auth(5, code, properties, Role.CLIENT)


async def test_enhanced_authentication(harness: Harness) -> None:
    async with serving(harness, authenticate=counting) as served:
        peer = await served.peer()
        properties = {Property.AUTHENTICATION_METHOD: "count", Property.AUTHENTICATION_DATA: b"5"}
        peer.send(encode_connect(5, "c", properties=properties))
        for number in (5, 6):
            asked = await peer.expect(m.Auth)
            assert asked.reason_code == m.CONTINUE_AUTHENTICATION
            assert asked.properties[Property.AUTHENTICATION_DATA] == b"%d" % number
            peer.send(auth(m.CONTINUE_AUTHENTICATION, b"%d" % (number + 1)))
        connack = await peer.expect(m.Connack)
        assert connack.reason_code == 0
        assert connack.properties[Property.AUTHENTICATION_METHOD] == "count"
        assert connack.properties[Property.AUTHENTICATION_DATA] == b"done 7"
        # Again, while the connection goes on (section 4.12.1).
        peer.send(auth(m.REAUTHENTICATE, b"1"))
        for number in (1, 2):
            assert (await peer.expect(m.Auth)).properties[Property.AUTHENTICATION_DATA] == b"%d" % number
            peer.send(auth(m.CONTINUE_AUTHENTICATION, b"%d" % (number + 1)))
        assert (await peer.expect(m.Auth)).reason_code == m.SUCCESS
        await peer.expect_nothing()
        peer.send(auth(m.REAUTHENTICATE, b"1"))
        await peer.expect(m.Auth)
        peer.send(auth(m.CONTINUE_AUTHENTICATION, b"9"))
        await peer.expect_disconnect(m.NOT_AUTHORIZED)


async def test_enhanced_authentication_goes_wrong(harness: Harness) -> None:
    async with serving(harness, authenticate=counting) as served:
        properties = {Property.AUTHENTICATION_METHOD: "count", Property.AUTHENTICATION_DATA: b"5"}
        peer = await served.peer()
        peer.send(encode_connect(5, "c", properties=properties))
        await peer.expect(m.Auth)
        peer.send(auth(m.CONTINUE_AUTHENTICATION, b"5"))
        assert (await peer.expect(m.Connack)).reason_code == m.BAD_USER_OR_PASSWORD
        peer = await served.peer()
        peer.send(encode_connect(5, "c", properties=properties))
        await peer.expect(m.Auth)
        peer.send(auth(m.CONTINUE_AUTHENTICATION, b"6", "other"))
        assert (await peer.expect(m.Connack)).reason_code == m.BAD_AUTHENTICATION_METHOD
        peer = await served.peer()
        assert (
            await peer.connect(properties={Property.AUTHENTICATION_METHOD: "other"})
        ).reason_code == m.BAD_AUTHENTICATION_METHOD
        assert served.broker.statistics().sessions == 0
    async with serving(harness) as served:
        peer = await served.peer()
        assert (await peer.connect(properties=properties)).reason_code == m.BAD_AUTHENTICATION_METHOD
        peer = await served.client()
        peer.send(auth(m.REAUTHENTICATE, b"1"))
        await peer.expect_disconnect(m.PROTOCOL_ERROR)


# -- publishing, subscribing, delivering -------------------------------------------------------------------------------


@BOTH
async def test_publishing_what_one_may_not(harness: Harness, kind: Any) -> None:
    def authorize(client: BrokerClient, message: BrokerMessage) -> Any:
        return kind(message.topic.startswith(f"{client.client_id}/"))(client, message)

    async with serving(harness, authorize_publish=authorize) as served:
        watcher = await served.client("w")
        await watcher.subscribe("#")
        for version in (4, 5):
            peer = await served.client("c", version)
            for qos in range(3):
                wanted = m.NOT_AUTHORIZED if version == 5 and qos else 0
                assert await peer.publish("d/x", b"no", qos) == wanted
                assert await peer.publish("c/x", b"%d" % qos, qos) == 0
                assert (await watcher.message()).payload == b"%d" % qos
            await peer.disconnect()
        await watcher.expect_nothing()
        assert served.broker.statistics().unauthorized == 6


@BOTH
async def test_a_will_is_judged_when_its_client_connects(harness: Harness, kind: Any) -> None:
    async with serving(harness, authorize_publish=kind(False)) as served:
        peer = await served.peer()
        assert (await peer.connect(will_topic="w")).reason_code == m.NOT_AUTHORIZED
        await served.client()


@BOTH
async def test_subscribing_to_what_one_may_not(harness: Harness, kind: Any) -> None:
    def authorize(client: BrokerClient, topic_filter: str, qos: int) -> Any:
        return kind(topic_filter != "secret" and (qos < 2 or m.QUOTA_EXCEEDED))(client)

    async with serving(harness, authorize_subscribe=authorize) as served:
        for version, codes in ((5, [1, m.NOT_AUTHORIZED, m.QUOTA_EXCEEDED, 0]), (4, [1, 0x80, 0x80, 0])):
            peer = await served.client(version=version)
            assert await peer.subscribe(("a", 1), ("secret", 0), ("b", 2), ("c", 0)) == codes
            for topic in ("secret", "b", "c"):
                served.broker.publish(topic, b"x")
            assert (await peer.message()).topic == "c"
            await peer.disconnect()


@BOTH
async def test_delivering_what_one_may_not_see(harness: Harness, kind: Any) -> None:
    def authorize(client: BrokerClient, message: BrokerMessage) -> Any:
        return kind(client.client_id.encode() in message.payload)(client, message)

    async with serving(harness, authorize_delivery=authorize) as served:
        peers = [await served.client(name) for name in "abcdef"]
        for peer in peers:
            await peer.subscribe("t")
        for number in range(20):
            served.broker.publish("t", b"abc%d" % number if number % 2 else b"def%d" % number, number % 3)
        for place, peer in enumerate(peers):
            wanted = [number for number in range(20) if number % 2 == (place < 3)]
            assert [int((await peer.message()).payload[3:]) for _ in wanted] == wanted
            await peer.expect_nothing()


async def test_messages_wait_for_a_slow_hook_in_their_order(harness: Harness) -> None:
    async def authorize(client: BrokerClient, message: BrokerMessage) -> bool:
        await asyncio.sleep(0.02 if message.payload == b"0" else 0)
        return True

    async with serving(harness, authorize_publish=authorize) as served:
        watcher = await served.client()
        await watcher.subscribe(("#", 1))
        peer = await served.client()
        for number in range(10):
            peer.publish_now("a", b"%d" % number, number % 3, number + 1 if number % 3 else 0)
        assert [int((await watcher.message()).payload) for _ in range(10)] == list(range(10))


async def test_a_publish_hook_that_fails(harness: Harness) -> None:
    def authorize(client: BrokerClient, message: BrokerMessage) -> bool:
        raise RuntimeError("broken")

    async with serving(harness, authorize_publish=authorize) as served:
        other = await served.client()
        peer = await served.client()
        peer.publish_now("a", b"x")
        await peer.expect_disconnect(m.IMPLEMENTATION_ERROR)
        await other.expect_nothing()
    assert len(harness.errors) == 1
