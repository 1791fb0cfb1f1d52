"""``MqttBroker``: an MQTT broker inside an asyncio program, with or without sockets."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from importlib.metadata import version
from types import TracebackType
from typing import Any, Literal, Self

from .broker.core import Broker
from .broker.hooks import Answer, BrokerClient, ConnectAttempt, Hooks
from .broker.link import Link
from .broker.message import Message
from .broker.statistics import BrokerStatistics, statistics_of, sys_topics
from .broker.store import BrokerStore
from .codecs import mqtt as m
from .codecs.choice import http_codec
from .codecs.http import Role
from .codecs.mqtt_properties import NO_PROPERTIES, Properties, write_properties, write_text
from .codecs.mqtt_topics import filter_fault, topic_fault
from .codecs.ws_handshake import WsOptions
from .connection import Connection, Handler
from .dispatch import EventSink
from .errors import BusyError, InvalidPacket, LocalProtocolError
from .events import MG_EV_HTTP_MSG
from .handlers.wrapping import wrap
from .limits import DEFAULT_LIMITS, Limits
from .listener import Listener
from .manager import Manager
from .messages import HttpMessage
from .mqtt_message import MqttMessage
from .protocols.base import TlsArgument
from .protocols.first_bytes import FirstBytes
from .protocols.http import HttpProtocol
from .protocols.mqtt import MqttProtocol
from .protocols.ws_opening import accept_upgrade
from .protocols.ws_tunnel import WsTunnel
from .urls import Url

logger = logging.getLogger("asyncmg.mqtt")

_DEFAULT_QUEUE = 1000  # messages that a subscription inside the program holds
_MAX_MESSAGE = (256 << 20) - 4096  # bytes; what a remaining length can tell, but for what surrounds a message


class MqttBroker:
    """An MQTT broker, 3.1.1 and 5::

        async with asyncmg.MqttBroker() as broker:
            broker.listen("mqtt://127.0.0.1:1883")
            broker.publish("greeting", "hello", retain=True)
            await broker.serve_forever()

    Sessions, retained messages and wills live as long as the broker, or in a store. Without ``authenticate`` anybody
    may connect; listen on a loopback address then.

    Args:
        manager: whose loop, limits and connections it uses; default: one of its own.
        authenticate: decides about a :class:`ConnectAttempt`: True, False, or a reason code; may be async. A
            :class:`PasswordFile`, for example. Until it has said True nothing is touched: no session, no will.
        authorize_publish: called with the client and each message (and with a will when the client connects).
        authorize_subscribe: called with the client, the topic filter and the QoS.
        authorize_delivery: called with the client and each message that it is about to get.
            These three may be async, and answer as ``authenticate`` does.
        store: keeps sessions, their messages and retained ones; default: they end with the broker.
        sys_interval: seconds between two looks at the statistics, whose $SYS topics are published when they have
            changed; 0: there are no $SYS topics.
        origins: values of Origin that are served by WebSocket (None: requests without one); empty: all.
        limits, backend, error_handler: as in :class:`Manager`, for a manager of its own.

    Raises:
        RuntimeError: no event loop is running.
    """

    def __init__(
        self,
        manager: Manager | None = None,
        *,
        authenticate: Callable[[ConnectAttempt], Answer] | None = None,
        authorize_publish: Callable[[BrokerClient, Message], Answer] | None = None,
        authorize_subscribe: Callable[[BrokerClient, str, int], Answer] | None = None,
        authorize_delivery: Callable[[BrokerClient, Message], Answer] | None = None,
        store: BrokerStore | None = None,
        sys_interval: float = 10.0,
        origins: Sequence[str | None] = (),
        limits: Limits = DEFAULT_LIMITS,
        backend: Literal["auto", "asyncio", "native"] = "auto",
        error_handler: Callable[[Exception], Any] | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._owns_manager = manager is None
        if manager is None:
            manager = Manager(limits=limits, backend=backend, error_handler=error_handler)
        self._manager = manager
        self._error_handler = error_handler
        self._origins = origins
        self._limits = manager.limits
        self._loop = loop
        self._started = loop.time()
        hooks = Hooks(authenticate, authorize_publish, authorize_subscribe, authorize_delivery)
        self._broker = Broker(loop, manager.limits, hooks, store, manager.spawn, self._report)
        self._make_http = functools.partial(HttpProtocol, codec=http_codec())
        self._listeners: list[Listener] = []
        self._inside: set[BrokerSubscription] = set()
        self._flush_is_due = False
        self._told: dict[str, str] = {}
        self._sys_interval = sys_interval
        self._sys_timer: asyncio.TimerHandle | None = None
        self._has_ended = False
        if sys_interval > 0:
            self._tell_statistics()

    def __repr__(self) -> str:
        return f"<MqttBroker {self._broker.connected} clients, {len(self._broker.sessions)} sessions>"

    def _report(self, error: Exception) -> None:
        if self._error_handler is not None:
            self._error_handler(error)
        else:
            logger.error("a hook of the MQTT broker failed", exc_info=error)

    # -- life --------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.shutdown(None if exc_type is None else 0)

    async def serve_forever(self) -> None:
        """Wait until SIGINT, SIGTERM or the manager's ``stop()``, then stop gracefully. Cancelling is safe."""
        await self._manager.serve_forever()
        await self.shutdown(0)

    async def shutdown(self, timeout: float | None = None) -> None:
        """Stop: tell all clients so (reason code 0x8B), and close their connections.

        Args:
            timeout: seconds; default: ``limits.net.graceful_timeout``.
        """
        if self._has_ended:
            return
        self._has_ended = True
        if self._sys_timer is not None:
            self._sys_timer.cancel()
        for listener in self._listeners:
            listener.close()
        for link in tuple(self._broker.links):
            link.handle_shutdown()
        self._broker.close()
        for subscription in tuple(self._inside):
            subscription.close()
        if self._owns_manager:
            await self._manager.shutdown(timeout)

    @property
    def manager(self) -> Manager:
        """The Manager below."""
        return self._manager

    # -- connections -------------------------------------------------------------------------------------------------

    def listen(self, url: str, handler: Handler | None = None, *, tls: TlsArgument | None = None) -> Listener:
        """Listen for clients; the socket is bound when this returns.

        Args:
            url: ``mqtt`` or ``mqtts`` with host and port, ``unix:///path``; ``ws`` or ``wss`` for MQTT in WebSocket
                (any path), or ``http`` or ``https``: HTTP, WebSocket and MQTT on one port, by the first byte.
            handler: of HTTP events, plain or async: ``http`` and ``https`` only. Requests to upgrade to the WebSocket
                subprotocol ``mqtt`` do not come to it.
            tls: certificate of ``mqtts``, ``wss`` and ``https``.

        Raises:
            InvalidUrl, ListenFailed, ManagerClosed.
            TypeError: the handler is a session: ``async def handler(conn)``.
        """
        parsed = Url.parse(url, listening=True)
        if not parsed.is_http:
            listener = self._manager.listen_with(url, self._make_mqtt, _be_quiet, tls=tls)
        elif parsed.scheme in ("ws", "wss"):
            listener = self._manager.listen_with(
                url, self._make_http, wrap(_find_nothing, self._look), tls=tls, probably_http=True
            )
        else:
            make = functools.partial(FirstBytes, make_http=self._make_http, make_mqtt=self._make_mqtt)
            listener = self._manager.listen_with(
                url, make, wrap(handler or _find_nothing, self._look), tls=tls, probably_http=True
            )
        self._listeners.append(listener)
        return listener

    def _make_mqtt(self, sink: EventSink, **kwargs: Any) -> MqttProtocol:
        sink.wants = 0
        protocol = MqttProtocol(sink, **kwargs)
        link = Link(self._broker, protocol)
        protocol.user = link
        return protocol

    def _look(self, conn: Connection, ev: int, message: HttpMessage) -> bool:
        """Take the requests that are for MQTT; the others go on to the handler."""
        if not is_mqtt_upgrade(message):
            return True
        if ev == MG_EV_HTTP_MSG:
            self.accept(conn, message)
        return False

    def accept(self, conn: Connection, message: HttpMessage) -> bool:
        """Take over an HTTP connection that asks to upgrade to WebSocket with the subprotocol ``mqtt``.

        For programs that route their requests themselves: call it in MG_EV_HTTP_MSG.

        Returns:
            whether it is the broker's now; otherwise the request has been answered with an error.

        Raises:
            ConnectionClosed, LocalProtocolError: as :meth:`Connection.ws_upgrade`.
        """
        http = conn.protocol
        if not isinstance(http, HttpProtocol):
            raise LocalProtocolError("not an HTTP connection")
        if not is_mqtt_upgrade(message):
            conn.reply(400, "expected a request for WebSocket with the subprotocol mqtt\n")
            return False
        inner = functools.partial(self._make_mqtt, role=Role.SERVER, limits=self._limits, loop=self._loop)
        tunnel = WsTunnel(inner, conn)
        options = WsOptions(("mqtt",), None, self._origins)
        make = lambda _, **outer: tunnel.outer(**outer)  # noqa: E731
        return accept_upgrade(http, message, options, None, fragments=True, make=make) is not None

    # -- inside the program ------------------------------------------------------------------------------------------

    def publish(
        self,
        topic: str,
        payload: bytes | str,
        qos: int = 0,
        retain: bool = False,
        properties: Properties = NO_PROPERTIES,
    ) -> int:
        """Publish a message; it waits for nobody.

        Args:
            topic: without wildcards; ``$`` topics are allowed.
            payload: a str is sent as UTF-8.
            properties: of MQTT 5.

        Returns:
            the number of sessions, shared subscriptions and receivers that it went to.

        Raises:
            InvalidPacket: an argument that no PUBLISH can carry.
        """
        fault = topic_fault(topic)
        if fault is not None or len(write_text(topic)) - 2 > self._limits.mqtt.max_topic_length:
            raise InvalidPacket(f"{fault.message if fault else 'too long'}: {topic:.60}")
        if qos not in (0, 1, 2):
            raise InvalidPacket(f"not a QoS: {qos}")
        raw = write_properties(properties, m.PUBLISH) if properties else b""
        data = payload.encode() if isinstance(payload, str) else bytes(memoryview(payload))
        message = Message(topic, data, qos, retain, raw)
        if message.size > _MAX_MESSAGE:
            raise InvalidPacket(f"a message of {message.size} bytes: no packet can carry it")
        message.start_expiry(self._loop.time())
        count = self._broker.publish(message)
        if self._broker.fan_out.messages and not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)
        return count

    def _flush(self) -> None:
        self._flush_is_due = False
        self._broker.fan_out.flush()

    def subscribe(self, topic_filter: str, *, max_queued: int = _DEFAULT_QUEUE) -> BrokerSubscription:
        """Subscribe inside the program: ``async for message in broker.subscribe("sensors/#")``.

        The iteration ends with the broker. Whoever leaves it before ends the subscription by ``close()`` or ``with``.

        Args:
            topic_filter: may have wildcards; no ``$share``.
            max_queued: messages held, at least 1; above it the oldest is dropped.

        Raises:
            InvalidPacket: not a topic filter.
            ValueError: ``max_queued``.
        """
        fault = filter_fault(topic_filter)
        if fault is not None or topic_filter.startswith("$share/"):
            raise InvalidPacket(
                f"{fault.message if fault else 'shared subscription inside the program'}: {topic_filter}"
            )
        if max_queued < 1:
            raise ValueError(f"max_queued must be at least 1, not {max_queued}")
        subscription = BrokerSubscription(self._broker, topic_filter, max_queued, self._inside.discard)
        if self._has_ended:
            subscription.close()
        else:
            self._inside.add(subscription)
        return subscription

    def retained(self, topic_filter: str = "#") -> list[MqttMessage]:
        """Return the retained messages whose topics match; those of $ topics need a filter that begins so."""
        return [_as_mqtt(message) for message in self._broker.retained.match(topic_filter, self._loop.time())]

    # -- administration ----------------------------------------------------------------------------------------------

    def statistics(self) -> BrokerStatistics:
        """Return figures of now."""
        return statistics_of(self._broker, self._loop.time() - self._started)

    def clients(self) -> list[BrokerClient]:
        """Return who is connected."""
        sessions = self._broker.sessions.values()
        return [session.client for session in sessions if session.link is not None and session.client is not None]

    def disconnect(self, client_id: str, reason_code: int = m.ADMINISTRATIVE_ACTION) -> bool:
        """End a client's connection; return whether there was one. Its will is published.

        Args:
            reason_code: of the DISCONNECT that a client with MQTT 5 gets.

        Raises:
            InvalidPacket: not a reason code of a server's DISCONNECT.
        """
        if reason_code not in m.REASON_CODES_OF[m.DISCONNECT, Role.SERVER]:
            raise InvalidPacket(f"not a reason code of a server's DISCONNECT: {reason_code:#04x}")
        session = self._broker.sessions.get(client_id)
        link = session.link if session is not None else None
        if not isinstance(link, Link):
            return False
        link.end(reason_code)
        return True

    def _tell_statistics(self) -> None:
        topics = {"$SYS/broker/version": _version(), **sys_topics(self.statistics())}
        for topic, text in topics.items():
            if self._told.get(topic) != text:
                self._told[topic] = text
                self.publish(topic, text, retain=True)
        self._sys_timer = self._loop.call_later(self._sys_interval, self._tell_statistics)


class BrokerSubscription:
    """Messages of a broker inside its program: an async iterator, and a context manager that ends it.

    Attributes:
        dropped: messages that nobody took in time.
    """

    def __init__(
        self, broker: Broker, topic_filter: str, max_queued: int, forget: Callable[[BrokerSubscription], None]
    ) -> None:
        self._broker = broker
        self._forget = forget
        self._topic_filter = topic_filter
        self._messages: deque[Message] = deque()
        self._max_queued = max_queued
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False
        self.dropped = 0
        self._receiver = self._receive
        broker.routes.add_receiver(topic_filter, self._receiver)

    def _receive(self, message: Message) -> None:
        if len(self._messages) >= self._max_queued:
            self._messages.popleft()
            self.dropped += 1
        self._messages.append(message)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """End the subscription; the iteration ends when what was received has been taken. May be called again."""
        if not self._is_closed:
            self._is_closed = True
            self._broker.routes.remove_receiver(self._topic_filter, self._receiver)
            self._forget(self)
            self._wake()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> MqttMessage:
        """Return the next message. Cancelling is safe: none is lost.

        Raises:
            BusyError: another task is waiting.
        """
        while not self._messages:
            if self._is_closed:
                raise StopAsyncIteration
            if self._waiter is not None:
                raise BusyError("another task is waiting for this subscription's messages")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return _as_mqtt(self._messages.popleft())


def is_mqtt_upgrade(message: HttpMessage) -> bool:
    """Whether a request asks for WebSocket with the subprotocol ``mqtt`` [MQTT-6.0.0-3]."""
    if (message.header("Upgrade") or "").lower() != "websocket":
        return False
    fields = [value for name, value in message.headers() if name.lower() == "sec-websocket-protocol"]
    return "mqtt" in [name.strip() for name in ",".join(fields).split(",")]


@functools.cache
def _version() -> str:
    return f"asyncmg {version('asyncmg')}"


def _as_mqtt(message: Message) -> MqttMessage:
    return MqttMessage(
        m.Publish(message.topic, message.payload, message.qos, message.retain, raw_properties=message.properties)
    )


def _find_nothing(conn: Connection, ev: int, data: Any) -> None:
    if ev == MG_EV_HTTP_MSG:
        conn.reply(404, "there is MQTT in WebSocket here\n")


def _be_quiet(conn: Connection, ev: int, data: Any) -> None:
    """Connections of the broker have nothing to tell a handler."""
