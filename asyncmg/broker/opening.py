"""From CONNECT to CONNACK (MQTT 5.0 sections 3.1.4 and 4.12): until it is accepted, a client touches nothing."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Protocol, cast

from asyncmg.codecs import mqtt as m
from asyncmg.codecs.mqtt_encode import encode_auth
from asyncmg.codecs.mqtt_properties import Properties, Property, PropertyValue, write_properties
from asyncmg.errors import ConnectionClosed
from asyncmg.protocols.mqtt import MqttProtocol

from .core import Broker
from .hooks import Answer, BrokerClient, ConnectAttempt, Verdict, reason_code
from .message import Message
from .session import Session

_MESSAGE_PROPERTIES = frozenset(
    {
        Property.PAYLOAD_FORMAT_INDICATOR,
        Property.CONTENT_TYPE,
        Property.RESPONSE_TOPIC,
        Property.CORRELATION_DATA,
        Property.USER_PROPERTY,
        Property.MESSAGE_EXPIRY_INTERVAL,
    }
)


class OpeningLink(Protocol):
    """The connection that is being opened, or authenticated again."""

    protocol: MqttProtocol
    client: BrokerClient | None

    def ask(self, hook: Callable[[], Answer], then: Callable[[Verdict], None], *, blocks: bool = True) -> None: ...

    def begin(self, session: Session, client: BrokerClient, alias_maximum: int) -> None: ...

    def end_refused(self, code: int) -> None: ...

    def end_again(self, code: int) -> None: ...


class Opening:
    """Decides about one CONNECT, or about one request to authenticate again.

    Args:
        broker, link: whose.
        connect: the packet.
    """

    __slots__ = ("_answer", "_attempt", "_broker", "_client", "_connect", "_link", "_method")

    def __init__(self, broker: Broker, link: OpeningLink, connect: m.Connect) -> None:
        self._broker = broker
        self._link = link
        self._connect = connect
        self._method = cast(str, connect.properties.get(Property.AUTHENTICATION_METHOD, ""))
        self._attempt: ConnectAttempt | None = None
        self._answer: asyncio.Future[bytes] | None = None  # of the client, to a challenge
        protocol = link.protocol
        client_id = connect.client_id or f"auto-{secrets.token_hex(10)}"
        is_tls = protocol.transport.get_extra_info("ssl_object") is not None  # also of one around WebSocket
        self._client = BrokerClient(client_id, connect.username, protocol.peername, connect.version, is_tls)

    def begin(self) -> None:
        hook = self._broker.hooks.authenticate
        if hook is None:
            self._decide(True if not self._method else m.BAD_AUTHENTICATION_METHOD)
            return
        data = cast(bytes, self._connect.properties.get(Property.AUTHENTICATION_DATA, b""))
        attempt = self._attempt = ConnectAttempt(
            self._client, self._connect.password, self._connect, self._method, data, self._challenge
        )
        self._link.ask(lambda: hook(attempt), self._decide)

    async def _challenge(self, data: bytes) -> bytes:
        """Send AUTH with data; return those of the client's answer. Cancelling it ends the connection."""
        protocol = self._link.protocol
        if not self._method:
            raise ConnectionClosed("the client has not asked for enhanced authentication")
        properties: Properties = {
            Property.AUTHENTICATION_METHOD: self._method,
            Property.AUTHENTICATION_DATA: data,
        }
        protocol.send(encode_auth(5, m.CONTINUE_AUTHENTICATION, properties, protocol.role))
        self._answer = self._broker.loop.create_future()
        try:
            return await self._answer
        finally:
            self._answer = None

    def handle_auth(self, packet: m.Auth) -> None:
        answer, link = self._answer, self._link
        is_expected = answer is not None and not answer.done() and packet.reason_code == m.CONTINUE_AUTHENTICATION
        if answer is not None and is_expected and self._is_same_method(packet):
            answer.set_result(cast(bytes, packet.properties.get(Property.AUTHENTICATION_DATA, b"")))
        elif link.client is None:
            link.end_refused(m.BAD_AUTHENTICATION_METHOD if is_expected else m.PROTOCOL_ERROR)
        else:
            link.end_again(m.PROTOCOL_ERROR)  # [MQTT-4.12.1-1]: the method stays

    def begin_again(self, packet: m.Auth) -> None:
        """Ask the hook about a client that authenticates again."""
        hook = self._broker.hooks.authenticate
        link = self._link
        if hook is None or not self._is_same_method(packet):
            link.end_again(m.BAD_AUTHENTICATION_METHOD if hook is None else m.PROTOCOL_ERROR)
            return
        data = cast(bytes, packet.properties.get(Property.AUTHENTICATION_DATA, b""))
        client = link.client or self._client
        attempt = self._attempt = ConnectAttempt(client, None, self._connect, self._method, data, self._challenge)
        # The flow of other packets goes on meanwhile, by the authentication there was (section 4.12.1).
        link.ask(lambda: hook(attempt), lambda verdict: link.end_again(reason_code(verdict)), blocks=False)

    def _is_same_method(self, packet: m.Auth) -> bool:
        return packet.properties.get(Property.AUTHENTICATION_METHOD) == self._method

    def success(self) -> dict[Property, PropertyValue]:
        """Return what tells a client that it is authenticated by its method."""
        properties: dict[Property, PropertyValue] = {Property.AUTHENTICATION_METHOD: self._method}
        if self._attempt is not None and self._attempt.reply:
            properties[Property.AUTHENTICATION_DATA] = self._attempt.reply
        return properties

    def cancel(self) -> None:
        """The connection is gone."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionClosed("the client has gone"))

    def _decide(self, verdict: Verdict) -> None:
        link, broker, connect, client = self._link, self._broker, self._connect, self._client
        code = reason_code(verdict, m.BAD_USER_OR_PASSWORD)
        if code == m.SUCCESS:
            code = broker.may_open(client.client_id, client.username)
        if code == m.SUCCESS and connect.will_topic is not None and connect.will_topic[0] == "$":
            code = m.TOPIC_NAME_INVALID
        if code != m.SUCCESS:
            link.end_refused(code)
            return
        hook = broker.hooks.publish
        if connect.will_topic is not None and hook is not None:
            # A will is published when nobody can be asked any more.
            link.ask(lambda: hook(client, _will_of(connect, client.client_id)), self._decide_will)
        else:
            self._accept()

    def _decide_will(self, verdict: Verdict) -> None:
        code = reason_code(verdict)
        if code == m.SUCCESS:
            self._accept()
        else:
            self._link.end_refused(code)

    def _accept(self) -> None:
        link, broker, connect, client = self._link, self._broker, self._connect, self._client
        code = broker.may_open(client.client_id, client.username)  # again: a hook may have taken its time
        if code != m.SUCCESS:
            link.end_refused(code)
            return
        session, is_present = broker.open_session(client.client_id, client.username, clean=connect.clean_start)
        limits = broker.limits.mqtt
        version = connect.version
        if version == 5:
            asked = cast(int, connect.properties.get(Property.SESSION_EXPIRY_INTERVAL, 0))
        else:
            asked = 0 if connect.clean_start else 0xFFFFFFFF
        session.expiry = broker.granted_expiry(asked)
        session.flow.maximum = cast(int, connect.properties.get(Property.RECEIVE_MAXIMUM, 65535))
        session.will = None
        if connect.will_topic is not None:
            session.will = _will_of(connect, client.client_id)
            delay = cast(int, connect.will_properties.get(Property.WILL_DELAY_INTERVAL, 0))
            session.will_delay = min(delay, limits.max_will_delay)
        properties: dict[Property, PropertyValue] = {}
        aliases = 0
        if version == 5:
            if session.expiry != asked:
                properties[Property.SESSION_EXPIRY_INTERVAL] = int(session.expiry)
            if not connect.client_id:
                properties[Property.ASSIGNED_CLIENT_IDENTIFIER] = client.client_id
            properties[Property.RECEIVE_MAXIMUM] = limits.receive_maximum
            properties[Property.MAXIMUM_PACKET_SIZE] = limits.max_packet
            if limits.max_topic_aliases:
                properties[Property.TOPIC_ALIAS_MAXIMUM] = limits.max_topic_aliases
            if self._method:
                properties.update(self.success())
            offered = cast(int, connect.properties.get(Property.TOPIC_ALIAS_MAXIMUM, 0))
            aliases = min(offered, limits.max_topic_aliases)
        link.protocol.accept(is_present, properties, connect.keep_alive)
        link.begin(session, client, aliases)


def _will_of(connect: m.Connect, client_id: str) -> Message:
    """Return the will message of a CONNECT that has one; its expiry begins when it is published."""
    assert connect.will_topic is not None
    properties = {name: value for name, value in connect.will_properties.items() if name in _MESSAGE_PROPERTIES}
    raw = write_properties(properties, m.PUBLISH) if properties else b""
    return Message(
        connect.will_topic, connect.will_payload, connect.will_qos, connect.will_retain, raw, publisher=client_id
    )
