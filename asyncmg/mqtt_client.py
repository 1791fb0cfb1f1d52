"""``mqtt_connect``: an MQTT client that stays connected and loses nothing, as an async context manager."""

from __future__ import annotations

import os
from collections.abc import Generator
from types import TracebackType
from typing import Any

from .errors import BusyError
from .limits import DEFAULT_LIMITS, Limits
from .mqtt_face import MqttClient
from .mqtt_message import MqttWill
from .mqtt_options import MqttOptions, PropertiesArgument, properties_of
from .mqtt_store import MqttStore, SqliteStore
from .protocols.base import TlsArgument
from .protocols.mqtt_auth import AuthenticationHook
from .protocols.mqtt_inbox import QueuePolicy
from .urls import Url


class MqttConnector:
    """What :func:`mqtt_connect` returns: to be entered or awaited."""

    def __init__(self, url: str, options: MqttOptions, **rest: Any) -> None:
        self._url = url
        self._options = options
        self._rest = rest
        self._client: MqttClient | None = None

    async def _connect(self) -> MqttClient:
        client = MqttClient(self._url, self._options, **self._rest)
        await client.start()
        return client

    def __await__(self) -> Generator[Any, Any, MqttClient]:
        return self._connect().__await__()

    async def __aenter__(self) -> MqttClient:
        if self._client is not None:
            raise BusyError("this mqtt_connect() has been entered already")
        self._client = await self._connect()
        return self._client

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        if exc_type is None:
            await client.close()
        else:
            await client.disconnect()


def mqtt_connect(
    url: str,
    *,
    client_id: str = "",
    username: str | None = None,
    password: str | bytes | None = None,
    version: int = 5,
    clean_start: bool = True,
    session_expiry: int = 0,
    keep_alive: int = 60,
    will: MqttWill | None = None,
    properties: PropertiesArgument = None,
    authenticate: tuple[str, AuthenticationHook] | None = None,
    store: str | os.PathLike[str] | MqttStore | None = None,
    reconnect: bool = True,
    aliases: bool = False,
    queue_policy: QueuePolicy = "wait",
    tls: TlsArgument | None = None,
    timeout: float | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> MqttConnector:
    """Connect to an MQTT broker (MQTT 5.0 and 3.1.1)::

        async with asyncmg.mqtt_connect("mqtt://localhost") as mq:
            await mq.subscribe("sensors/#", qos=1)
            await mq.publish("sensors/1", "21.5", qos=1)
            async for message in mq:
                print(message.topic, message.text)

    Leaving it without an exception waits for what is under way (:meth:`MqttClient.close`). It can also be awaited, for
    a client that you close yourself.

    Args:
        url: ``mqtt mqtts ws wss`` with host and port (default 1883, 8883, 80, 443), or ``unix:///path``.
        client_id: default: the broker assigns one.
        username, password: default: those in the URL.
        version: 5, or 4 for 3.1.1.
        clean_start: begin with a new session. In 3.1.1 such a session ends with each connection.
        session_expiry: seconds that the broker keeps the session without a connection (5.0).
        keep_alive: seconds without a packet before a ping, 0 to 65535; 0: no pings. The broker may tell another value.
        will: published by the broker when the connection ends without DISCONNECT.
        properties: further ones of the CONNECT (5.0), by identifier or name.
        authenticate: enhanced authentication (5.0 section 4.12): its method, and a hook, plain or async, that is called
            with None for the data of CONNECT, and then with what the broker sends for the answer to it; also with the
            data of its CONNACK or last AUTH. When it raises the connection is given up.
        store: a file (see :class:`SqliteStore`), or a :class:`MqttStore`, for messages that must survive the program.
        reconnect: connect anew when the connection is lost; the first one has to succeed.
        aliases: use topic aliases as far as the broker takes them (5.0).
        queue_policy: what happens at ``max_received`` messages that a reader has not taken: "wait": reading stops,
            unless an acknowledgement is awaited; "drop_oldest", "drop_newest": messages of QoS 0 are dropped.
        tls: options for ``mqtts`` and ``wss``; default: verification against the system's roots.
        timeout: seconds that one attempt to connect may take; default: the sum of its parts, ``connect_timeout`` of
            NetLimits and that of MqttLimits among them.
        limits: see :class:`MqttLimits`.

    Cancelling is safe: the connection is closed.

    Raises:
        InvalidUrl, InvalidPacket (a ValueError): of the arguments.
        ConnectFailed (when entered or awaited): there is no connection. (It is an OSError.)
        MqttRefused (likewise): the broker does not want it.
        RemoteProtocolError (likewise): what it says is not MQTT.
        StoreFailed, ValueError (likewise): the store cannot be read, or is another client's.
    """
    parsed = Url.parse(url)
    if queue_policy not in ("wait", "drop_oldest", "drop_newest"):
        raise ValueError(f"queue_policy must be 'wait', 'drop_oldest' or 'drop_newest', not {queue_policy!r}")
    secret = password if password is not None else parsed.password or None
    options = MqttOptions(
        version=version,
        client_id=client_id,
        username=username if username is not None else parsed.user or None,
        password=secret.encode() if isinstance(secret, str) else secret,
        clean_start=clean_start,
        session_expiry=session_expiry,
        keep_alive=keep_alive,
        will=will,
        properties=properties_of(properties),
        method=authenticate[0] if authenticate is not None else "",
        aliases=aliases and version == 5,
    )
    options.connect_packet(client_id, clean_start, limits.mqtt)
    return MqttConnector(
        url,
        options,
        hook=authenticate[1] if authenticate is not None else None,
        store=SqliteStore(store) if isinstance(store, str | os.PathLike) else store,
        reconnect=reconnect,
        queue_policy=queue_policy,
        tls=tls,
        timeout=timeout,
        limits=limits,
    )
