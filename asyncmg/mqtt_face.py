"""An MQTT client as coroutines use it: what ``mqtt_connect`` gives."""

from __future__ import annotations

import asyncio
import functools
import itertools
import secrets
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

from .codecs import mqtt as m
from .codecs.mqtt_encode import encode_disconnect, encode_unsubscribe
from .codecs.mqtt_properties import Property, PropertyValue
from .codecs.mqtt_topics import filter_fault
from .errors import BusyError, InvalidPacket, LocalProtocolError
from .mqtt_message import MqttMessage
from .mqtt_options import MqttOptions, PropertiesArgument, properties_of
from .mqtt_publishing import MqttPublisher, Payload, within
from .protocols.mqtt_auth import AuthenticationHook
from .protocols.mqtt_client import Request
from .protocols.mqtt_inbox import MessageQueue
from .protocols.mqtt_session import refusal

#: A topic filter, or several; with a QoS of its own as a pair.
Filters = str | tuple[str, int] | Sequence[str | tuple[str, int]]


class MqttClient(MqttPublisher):
    """A client of an MQTT broker. Made by :func:`mqtt_connect`.

    ``async for message in mq`` yields the messages that no :meth:`subscription` of its own gets, until
    :meth:`disconnect`.

    While the connection is lost it connects anew, after random pauses of at most 1 second at first and 60 seconds in
    the end. What was published with QoS 1 or 2 goes on where it was, subscriptions are renewed when the broker has lost
    them. Where that makes no sense (bad credentials, not authorized, banned, taken over, ...) everything that waits
    raises the MqttRefused that told it.
    """

    def __init__(self, url: str, options: MqttOptions, **rest: Any) -> None:
        super().__init__(url, options, **rest)
        self._response_lock = asyncio.Lock()
        self._responses: dict[bytes, asyncio.Future[MqttMessage]] = {}
        self._correlations: Callable[[], int] = itertools.count(1).__next__

    # -- subscribing -------------------------------------------------------------------------------------------------

    async def subscribe(
        self,
        filters: Filters,
        qos: int = 0,
        *,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
        identifier: int | None = None,
        properties: PropertiesArgument = None,
        timeout: float | None = None,
    ) -> tuple[int, ...]:
        """Subscribe to topic filters; their messages come to ``async for message in mq``.

        Without a connection wait for one. When the broker loses the session the subscriptions are made again.

        Args:
            filters: one, or several; each may be a pair with a QoS of its own.
            qos: the highest QoS that messages are sent with.
            no_local: not what this client publishes itself (5.0).
            retain_as_published: keep the retain flag as it was published (5.0).
            retain_handling: retained messages are sent: 0: now, 1: if the subscription is new, 2: not (5.0).
            identifier: told with each message: 1 to 268435455 (5.0).
            properties: further ones of the SUBSCRIBE (5.0).
            timeout: seconds; None: for as long as connecting anew makes sense.

        Returns:
            for each filter the granted QoS, or the reason code of a refusal.

        Cancelling is safe; whether the broker has subscribed is not known then.

        Raises:
            MqttRefused: the broker has refused all of them.
            InvalidPacket, LocalProtocolError: the protocol, or the broker by its CONNACK, allows no such subscription.
            DeadlineExceeded: the time-out.
            ConnectionClosed, MqttRefused, StoreFailed: the client has ended.
        """
        flags = m.OPTION_NO_LOCAL if no_local else 0
        flags |= (m.OPTION_RETAIN_AS_PUBLISHED if retain_as_published else 0) | retain_handling << 4
        pairs = [
            (item, qos | flags) if isinstance(item, str) else (item[0], item[1] | flags) for item in _listed(filters)
        ]
        found = dict(properties_of(properties))
        if identifier is not None:
            found[Property.SUBSCRIPTION_IDENTIFIER] = [identifier]
        request = self._subscribing(pairs, found)
        request.encode(self._options.version, 1)  # what it cannot carry is told now
        answer: m.Suback = await within(timeout, self._ask(request), "subscribe()")
        codes = tuple(answer.reason_codes)
        for (topic_filter, options), code in zip(pairs, codes, strict=True):
            if code < m.UNSPECIFIED_ERROR:
                self._subscriptions[topic_filter] = (options, found)
        if min(codes) >= m.UNSPECIFIED_ERROR:
            what = f"the broker has refused the subscription to {pairs[0][0]!r}"
            raise refusal(what, codes[0], answer.properties)
        return codes

    async def unsubscribe(self, *filters: str, timeout: float | None = None) -> tuple[int, ...]:
        """Unsubscribe; return for each filter 0, or 0x11 when there was no such subscription; nothing in 3.1.1.

        Cancelling is safe; whether the broker has unsubscribed is not known then.

        Args:
            timeout: seconds; None: for as long as connecting anew makes sense.

        Raises:
            MqttRefused: the broker has refused all of them.
            InvalidPacket, DeadlineExceeded, ConnectionClosed, MqttRefused, StoreFailed: as :meth:`subscribe`.
        """
        request = self._unsubscribing(filters)
        answer: m.Unsuback = await within(timeout, self._ask(request), "unsubscribe()")
        codes = tuple(answer.reason_codes)
        if codes and min(codes) >= m.UNSPECIFIED_ERROR:
            raise refusal(f"the broker goes on with the subscription to {filters[0]!r}", codes[0], answer.properties)
        return codes

    def _unsubscribing(self, filters: Sequence[str]) -> Request:
        request = Request(
            m.UNSUBACK,
            [(item, 0) for item in filters],
            lambda version, number: encode_unsubscribe(version, number, filters),
            lambda link: None,
            self._loop.create_future(),
        )
        request.encode(self._options.version, 1)
        for item in filters:
            self._subscriptions.pop(item, None)
        return request

    async def _ask(self, request: Request) -> m.Suback | m.Unsuback:
        """Send a request now or as soon as there is a connection, and wait for its answer."""
        self._check_alive()
        self._begin_request(request)
        try:
            return await request.outcome
        finally:
            self._requests.pop(request, None)

    def _begin_request(self, request: Request) -> None:
        self._requests[request] = None
        if self.link is not None:
            self.link.ask(request)

    def _forget_request(self, request: Request, outcome: asyncio.Future[m.Suback | m.Unsuback]) -> None:
        """Nobody wants to know how it went."""
        self._requests.pop(request, None)
        if not outcome.cancelled():
            outcome.exception()

    def subscription(
        self,
        filters: Filters,
        qos: int = 0,
        *,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
        identifier: int | None = None,
    ) -> MqttSubscription:
        """Subscribe with a reader of its own::

            async with mq.subscription("sensors/#", qos=1) as messages:
                async for message in messages:
                    ...

        Its messages come to this iteration, and not to ``async for message in mq``. It has a queue of its own.

        Args:
            filters, qos, no_local, retain_as_published, retain_handling: as :meth:`subscribe`.
            identifier: default: one that is free, where the broker takes them (5.0).

        Cancelling is safe. Leaving it unsubscribes.

        Raises (when entered):
            BusyError: one of the filters, or the identifier, has a reader already.
            (otherwise) as :meth:`subscribe`.
        """
        options = {
            "no_local": no_local,
            "retain_as_published": retain_as_published,
            "retain_handling": retain_handling,
        }
        return MqttSubscription(self, _listed(filters), qos, identifier, options)

    # -- receiving ---------------------------------------------------------------------------------------------------

    def __aiter__(self) -> MessageQueue:
        return self._inbox.general

    def __anext__(self) -> Awaitable[MqttMessage]:
        return self._inbox.general.__anext__()

    @property
    def dropped(self) -> int:
        """How many received messages of QoS 0 were dropped because nobody took them."""
        return self._inbox.dropped

    # -- request and response ------------------------------------------------------------------------------------------

    async def request(
        self,
        topic: str,
        payload: Payload = b"",
        *,
        qos: int = 0,
        properties: PropertiesArgument = None,
        timeout: float = 10.0,
    ) -> MqttMessage:
        """Publish a request and return the response to it (MQTT 5.0 section 4.10).

        Responses come to a topic of this client alone, which is subscribed to by the first request: below the broker's
        response information, when CONNACK has told one, otherwise below ``asyncmg/response/``.

        Args:
            topic, payload, qos, properties: as :meth:`publish`.
            timeout: seconds until the response has come.

        Cancelling is safe.

        Raises:
            LocalProtocolError: 3.1.1 has no such thing.
            DeadlineExceeded: there is no response in time.
            (otherwise) as :meth:`publish` and :meth:`subscribe`.
        """
        if self._options.version != 5:
            raise LocalProtocolError("MQTT 3.1.1 has no response topics")
        return await within(timeout, self._request(topic, payload, qos, properties), "request()")  # type: ignore[no-any-return]  # it is what that returns

    async def _request(self, topic: str, payload: Payload, qos: int, properties: PropertiesArgument) -> MqttMessage:
        async with self._response_lock:
            if not self._inbox.response_topic:
                base = self.connack.properties.get(Property.RESPONSE_INFORMATION) or "asyncmg/response"
                own = f"{base}/{secrets.token_hex(12)}"
                await self.subscribe(own, qos=1)
                self._inbox.expect_responses(own, self._handle_response)
        data = self._correlations().to_bytes(8, "big")
        found: dict[Property, PropertyValue] = dict(properties_of(properties))
        found[Property.RESPONSE_TOPIC] = self._inbox.response_topic
        found[Property.CORRELATION_DATA] = data
        response: asyncio.Future[MqttMessage] = self._loop.create_future()
        self._responses[data] = response
        try:
            await self.publish(topic, payload, qos, False, found)
            return await response
        finally:
            del self._responses[data]

    def _handle_response(self, packet: m.Publish) -> None:
        if packet.qos:
            self._session.take(packet)
        data = packet.properties().get(Property.CORRELATION_DATA)
        response = self._responses.get(data) if isinstance(data, bytes) else None
        if response is not None and not response.done():
            response.set_result(MqttMessage(packet))

    async def respond(
        self,
        request: MqttMessage,
        payload: Payload = b"",
        *,
        qos: int = 0,
        properties: PropertiesArgument = None,
        timeout: float | None = None,
    ) -> int:
        """Publish the response to a request: to its response topic, with its correlation data.

        Raises:
            LocalProtocolError: the message asks for no response.
            (otherwise) as :meth:`publish`.
        """
        asked = request.property_map
        topic = asked.get(Property.RESPONSE_TOPIC)
        if not isinstance(topic, str) or not topic:
            raise LocalProtocolError("the message has no response topic")
        found = dict(properties_of(properties))
        if Property.CORRELATION_DATA in asked:
            found[Property.CORRELATION_DATA] = asked[Property.CORRELATION_DATA]
        return await self.publish(topic, payload, qos, False, found, timeout=timeout)

    # -- the connection ----------------------------------------------------------------------------------------------

    async def ping(self, timeout: float | None = None) -> float:
        """Send PINGREQ and return how many seconds its answer took. Keep-alive pings need no call.

        Cancelling is safe.

        Args:
            timeout: seconds; default: ``ping_timeout``.

        Raises:
            DeadlineExceeded: no answer, or no connection, in time.
            ConnectionClosed: the connection was lost meanwhile.
        """
        if timeout is None:
            timeout = self._limits.mqtt.ping_timeout
        return float(await within(timeout, self._ping(), "ping()"))

    async def _ping(self) -> float:
        link = await self._wait_open()
        begun = self._loop.time()
        await link.ping()
        return self._loop.time() - begun

    async def reauthenticate(self, timeout: float | None = None) -> None:
        """Authenticate anew on this connection (MQTT 5.0 section 4.12.1), by the hook given to ``mqtt_connect``.

        Args:
            timeout: seconds; default: ``connect_timeout`` of MqttLimits.

        Raises:
            LocalProtocolError: there is no such hook.
            BusyError: it is under way already.
            DeadlineExceeded: the broker was not content in time.
            ConnectionClosed: the connection has ended: the broker was not content at all.
        """
        hook = self._hook
        if hook is None:
            raise LocalProtocolError("mqtt_connect() was given no authenticate=")
        if timeout is None:
            timeout = self._limits.mqtt.connect_timeout
        await within(timeout, self._reauthenticate(hook), "reauthenticate()")

    async def _reauthenticate(self, hook: AuthenticationHook) -> None:
        answer = hook(None)
        data = answer if isinstance(answer, bytes) else await answer
        link = await self._wait_open()
        await link.reauthenticate(data)

    @property
    def is_connected(self) -> bool:
        """There is a connection, and the broker has accepted it."""
        return self.link is not None

    @property
    def session_present(self) -> bool:
        """The broker went on with a session that it had, when it accepted the last connection."""
        return self.connack.session_present

    @property
    def client_id(self) -> str:
        """The client identifier, the one that the broker has assigned included."""
        return self._client_id

    async def disconnect(self, reason_code: int = m.SUCCESS, properties: PropertiesArgument = None) -> None:
        """Say DISCONNECT and end: iterations end, what waits raises ConnectionClosed.

        What is in a ``store`` stays there.

        Args:
            reason_code: 0x04 has the broker publish the will (5.0).
            properties: of the DISCONNECT (5.0).

        Raises:
            InvalidPacket: not a reason code, or properties, of a DISCONNECT.
        """
        found = properties_of(properties)
        if self._options.version == 5:
            encode_disconnect(5, reason_code, found)  # what it cannot carry is told now
        await self._end(reason_code, found)

    async def close(self) -> None:
        """Wait for what is under way, as long as there is a connection and at most ``graceful_timeout``; disconnect."""
        attempt = self._attempt
        flushing = self._loop.create_task(self._flush(), name="asyncmg-mqtt-flush")
        try:
            if self.link is not None:
                timeout = self._limits.net.graceful_timeout
                await asyncio.wait({flushing, attempt.closed}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            flushing.cancel()
            await self.disconnect()
            await asyncio.wait({flushing})
            if not flushing.cancelled():
                flushing.exception()  # that the client has ended is no news here


def _listed(filters: Filters) -> Sequence[str | tuple[str, int]]:
    """Return the filters of an argument that may be a single one."""
    if isinstance(filters, str):
        return (filters,)
    listed: list[Any] = list(filters)
    if len(listed) == 2 and isinstance(listed[1], int):
        return ((listed[0], listed[1]),)
    return listed


class MqttSubscription(MessageQueue):
    """Messages of one subscription: see :meth:`MqttClient.subscription`.

    Attributes:
        codes: for each filter the granted QoS, or the reason code of a refusal.
    """

    __slots__ = ("_client", "_options", "_pairs", "_qos", "codes")

    def __init__(
        self,
        client: MqttClient,
        filters: Sequence[str | tuple[str, int]],
        qos: int,
        identifier: int | None,
        options: dict[str, Any],
    ) -> None:
        names = [item if isinstance(item, str) else item[0] for item in filters]
        for name in names:
            fault = filter_fault(name, client._options.version)
            if fault is not None:
                raise InvalidPacket(f"{fault.message}: {name:.60}")
        super().__init__(client._inbox, names)
        self._client = client
        self._pairs = filters
        self._qos = qos
        self._options = options
        self.identifier = identifier or 0
        self.codes: tuple[int, ...] = ()

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        client, inbox = self._client, self._client._inbox
        for name in self.filters:
            if self in (queues := inbox.queues_of(name)) or queues != [inbox.general]:
                raise BusyError(f"a subscription to {name!r} has a reader already")
        if self.identifier and inbox.has_identifier(self.identifier):
            raise BusyError(f"the subscription identifier {self.identifier} is another's")
        if client._options.version == 5 and not self.identifier:
            available = client.connack.properties.get(Property.SUBSCRIPTION_IDENTIFIER_AVAILABLE, 1)
            self.identifier = inbox.free_identifier() if available else 0
        inbox.add(self)
        try:
            self.codes = await client.subscribe(
                self._pairs, self._qos, identifier=self.identifier or None, **self._options
            )
        except BaseException:
            inbox.remove(self)
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        client = self._client
        try:
            if client._error is None:
                request = client._unsubscribing([item if isinstance(item, str) else item[0] for item in self._pairs])
                request.outcome.add_done_callback(functools.partial(client._forget_request, request))
                client._begin_request(request)
                if client.link is not None:  # messages that are on their way still come here
                    await asyncio.wait({request.outcome}, timeout=client._limits.mqtt.connect_timeout)
        finally:
            client._inbox.remove(self)
