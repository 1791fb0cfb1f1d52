"""Enhanced authentication of an MQTT client (MQTT 5.0 section 4.12): AUTH packets, and who makes them up."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Final

from asyncmg.codecs import mqtt as m
from asyncmg.codecs.mqtt_encode import encode_auth
from asyncmg.codecs.mqtt_properties import Fault, Properties, Property, PropertyValue, refuse
from asyncmg.errors import BusyError, MqttRefused, ProtocolError

from .mqtt import MqttProtocol

UNASKED_AUTH: Final = Fault("AUTH that nobody has asked for", m.PROTOCOL_ERROR, "", "4.12.0-1")
OTHER_METHOD: Final = Fault("another authentication method", m.PROTOCOL_ERROR, "", "4.12.0-5")

#: Answers what the broker says in enhanced authentication; called with None for what CONNECT or AUTH begins with.
AuthenticationHook = Callable[[bytes | None], bytes | Awaitable[bytes]]


class Authentication:
    """The exchange of AUTH packets in one connection.

    Args:
        protocol: the connection.
        method: "": there is no enhanced authentication.
        hook: None likewise.
        handle_failure: called when the hook has raised: the server is not to be trusted.
    """

    __slots__ = ("_handle_failure", "_has_ended", "_hook", "_method", "_protocol", "_tasks", "_waiter")

    def __init__(
        self,
        protocol: MqttProtocol,
        method: str,
        hook: AuthenticationHook | None,
        handle_failure: Callable[[MqttRefused], None],
    ) -> None:
        self._protocol = protocol
        self._method = method
        self._hook = hook
        self._handle_failure = handle_failure
        self._waiter: asyncio.Future[None] | None = None  # for the end of a new authentication
        self._tasks: list[asyncio.Task[None]] = []
        self._has_ended = False

    @property
    def is_under_way(self) -> bool:
        """Authenticating anew has begun."""
        return self._waiter is not None and not self._waiter.done()

    def _properties(self, data: bytes) -> Properties:
        found: dict[Property, PropertyValue] = {Property.AUTHENTICATION_METHOD: self._method}
        if data:
            found[Property.AUTHENTICATION_DATA] = data
        return found

    def begin_anew(self, data: bytes) -> asyncio.Future[None]:
        """Authenticate anew (section 4.12.1); the future is done when the server is content.

        Raises:
            BusyError: it is under way already.
        """
        if self.is_under_way:
            raise BusyError("authenticating anew is under way already")
        self._waiter = done = self._protocol.loop.create_future()
        self._send(m.REAUTHENTICATE, data)
        return done

    def _send(self, code: int, data: bytes) -> None:
        if not self._has_ended:
            self._protocol.output.write(encode_auth(5, code, self._properties(data)))

    def handle_connack(self, packet: m.Connack) -> ProtocolError | None:
        """The connection has been accepted; return what is wrong with that."""
        if not self._method:
            return None
        if packet.properties.get(Property.AUTHENTICATION_METHOD, self._method) != self._method:
            return refuse(OTHER_METHOD, 5)
        data = packet.properties.get(Property.AUTHENTICATION_DATA)
        if isinstance(data, bytes):
            self._ask(data, answers=False)
        return None

    def handle_auth(self, packet: m.Auth, is_open: bool) -> ProtocolError | None:
        """Return what is wrong with an AUTH of the server; otherwise it is answered."""
        waiter = self._waiter
        if self._hook is None or (is_open and waiter is None):
            return refuse(UNASKED_AUTH, 5)
        if packet.properties.get(Property.AUTHENTICATION_METHOD, self._method) != self._method:
            return refuse(OTHER_METHOD, 5)
        data = packet.properties.get(Property.AUTHENTICATION_DATA, b"")
        assert isinstance(data, bytes)
        if packet.reason_code == m.CONTINUE_AUTHENTICATION:
            self._ask(data, answers=True)
            return None
        if waiter is None:
            return refuse(UNASKED_AUTH, 5)  # success comes as CONNACK
        self._waiter = None
        if data:
            self._ask(data, answers=False)
        if not waiter.done():
            waiter.set_result(None)
        return None

    def _ask(self, data: bytes, *, answers: bool) -> None:
        """Give data of the server to the hook, which may take its time, and send what it says."""
        if self._hook is not None:
            task = self._protocol.sink.spawn(self._run_hook(self._hook, data, answers), "asyncmg-mqtt-auth")
            self._tasks.append(task)
            task.add_done_callback(self._tasks.remove)

    async def _run_hook(self, hook: AuthenticationHook, data: bytes, answers: bool) -> None:
        try:
            answer = hook(data)
            if inspect.isawaitable(answer):
                answer = await answer
            if answers:
                self._send(m.CONTINUE_AUTHENTICATION, answer)
        except Exception as exc:  # whatever it is
            error = MqttRefused("authentication of the broker has failed", m.NOT_AUTHORIZED, str(exc))
            error.__cause__ = exc
            self._handle_failure(error)

    def end(self, error: Exception) -> None:
        """The connection is over."""
        self._has_ended = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        for task in tuple(self._tasks):
            task.cancel()
