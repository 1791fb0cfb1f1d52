"""What keeps an MQTT client connected: connections, one after the other, and what is renewed in each."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from .codecs import mqtt as m
from .codecs.mqtt_encode import encode_subscribe
from .codecs.mqtt_properties import Properties, Property
from .connection import Connection
from .errors import AsyncmgError, ConnectFailed, ConnectionClosed, DeadlineExceeded, MqttRefused
from .events import MG_EV_CLOSE, MG_EV_ERROR
from .limits import Limits
from .manager import Manager
from .mqtt_options import MqttOptions
from .mqtt_store import MqttStore
from .protocols.base import TlsArgument
from .protocols.mqtt import MqttProtocol
from .protocols.mqtt_auth import AuthenticationHook
from .protocols.mqtt_client import ClientLink, Request
from .protocols.mqtt_inbox import Inbox, QueuePolicy
from .protocols.mqtt_session import ClientSession, refusal

logger = logging.getLogger("asyncmg.mqtt")

_FIRST_DELAY, _MAX_DELAY = 1.0, 60.0  # seconds before another try: between 0 and this, twice as much each time
_STEADY = 10.0  # a connection that has lasted so long begins anew with the first delay
_MAX_FILTERS = 64  # of one SUBSCRIBE that renews subscriptions

#: Reason codes after which the same CONNECT would fare no better: connecting anew is given up.
_FINAL: Final = frozenset(
    (
        m.UNSUPPORTED_VERSION,
        m.CLIENT_IDENTIFIER_INVALID,
        m.BAD_USER_OR_PASSWORD,
        m.NOT_AUTHORIZED,
        m.BANNED,
        m.BAD_AUTHENTICATION_METHOD,
        m.SESSION_TAKEN_OVER,
        m.USE_ANOTHER_SERVER,
        m.SERVER_MOVED,
    )
)
#: Those of a CONNACK that speak of the CONNECT itself, its will included.
_FINAL_IN_CONNACK: Final = _FINAL | {
    m.MALFORMED_PACKET,
    m.PROTOCOL_ERROR,
    m.TOPIC_NAME_INVALID,
    m.PACKET_TOO_LARGE,
    m.PAYLOAD_FORMAT_INVALID,
    m.RETAIN_NOT_SUPPORTED,
    m.QOS_NOT_SUPPORTED,
}


class _Attempt:
    """One connection, from its beginning to its end."""

    __slots__ = ("closed", "error", "link", "settled")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.settled: asyncio.Future[None] = loop.create_future()  # it is open, or will never be
        self.closed: asyncio.Future[None] = loop.create_future()
        self.link: ClientLink | None = None
        self.error: Exception | None = None

    def handle_event(self, conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_ERROR and self.error is None:
            self.error = data
        elif ev == MG_EV_CLOSE:
            for waiter in (self.settled, self.closed):
                if not waiter.done():
                    waiter.set_result(None)

    @property
    def failure(self) -> Exception:
        """Why it is not, or is no more."""
        told = self.link.error if self.link is not None else None
        return told or self.error or ConnectionClosed("the broker has closed the connection")


class MqttKeeper:
    """The part of a client that connects, and connects anew.

    Attributes:
        link: the connection; None: there is none now.
        connack: the server's last answer to a CONNECT.
    """

    def __init__(
        self,
        url: str,
        options: MqttOptions,
        *,
        hook: AuthenticationHook | None,
        store: MqttStore | None,
        reconnect: bool,
        queue_policy: QueuePolicy,
        tls: TlsArgument | None,
        timeout: float | None,
        limits: Limits,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._url = url
        self._options = options
        self._hook = hook
        self._store = store
        self._reconnects = reconnect
        self._tls = tls
        self._timeout = timeout
        self._limits = limits
        # The engine of a native backend is as large as the connections that it may have.
        self._manager = Manager(
            limits=replace(limits, net=replace(limits.net, max_connections=2)), events=(MG_EV_ERROR,)
        )
        self.link: ClientLink | None = None
        self.connack = m.Connack(False, m.SUCCESS)
        self._client_id = options.client_id
        self._session = ClientSession(self._loop, limits.mqtt, store, self._handle_store_failure)
        self._inbox = Inbox(self._loop, self._session, limits.mqtt.max_received, queue_policy, self._handle_room)
        self._error: Exception | None = None  # the client has ended
        self._has_been_open = False
        self._attempt = _Attempt(self._loop)
        self._keeping: asyncio.Task[None] | None = None
        self._open_waiters: list[asyncio.Future[None]] = []
        self._subscriptions: dict[str, tuple[int, Properties]] = {}  # granted ones
        self._requests: dict[Request, None] = {}  # not answered
        self._renewals: list[Request] = []  # those of them that nobody waits for

    # -- one connection ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect for the first time, and from now on whenever the connection is lost.

        Raises:
            ConnectFailed, MqttRefused, StoreFailed, ValueError.
        """
        try:
            if self._store is not None:
                self._client_id = self._session.load(self._client_id, self._options.version)
            await self._open()
        except BaseException as exc:
            self.finish(exc if isinstance(exc, AsyncmgError) else ConnectionClosed("the client has not been connected"))
            await self._manager.shutdown(0)
            raise
        self._keeping = self._loop.create_task(self._keep(), name="asyncmg-mqtt-keep")

    async def _open(self) -> None:
        """Connect.

        Raises:
            ConnectFailed: there is no connection, or no CONNACK in time.
            MqttRefused: the server does not want it.
            RemoteProtocolError: what it says is not MQTT.
        """
        data = await self._first_data() if self._hook is not None else b""
        options = self._options
        is_clean = options.clean_start and (not self._has_been_open or options.version == 4)
        packet = options.connect_packet(self._client_id, is_clean, self._limits.mqtt, data)
        attempt = self._attempt = _Attempt(self._loop)

        def make_link(protocol: MqttProtocol) -> ClientLink:
            attempt.link = ClientLink(
                protocol,
                self,
                self._session,
                self._inbox,
                packet,
                options.keep_alive,
                is_clean=is_clean,
                method=options.method,
                hook=self._hook,
                aliases=options.aliases,
            )
            return attempt.link

        conn = self._manager.mqtt_open(
            self._url, make_link, version=options.version, handler=attempt.handle_event, tls=self._tls
        )
        try:
            async with asyncio.timeout(self._timeout):
                await asyncio.shield(attempt.settled)
        except TimeoutError as exc:
            conn.close()
            raise ConnectFailed(f"cannot connect to {self._url}: no CONNACK in {self._timeout} s") from exc
        except BaseException:
            conn.close()
            raise
        if attempt.closed.done() or attempt.link is None or attempt.link.is_over:
            conn.drain()
            raise _as_connect_error(attempt.failure)

    async def _first_data(self) -> bytes:
        """Ask the hook for what enhanced authentication begins with.

        Raises:
            ConnectFailed: it has taken longer than ``authentication_timeout``.
        """
        assert self._hook is not None
        limit = self._limits.mqtt.authentication_timeout
        try:
            async with asyncio.timeout(limit):
                answer = self._hook(None)
                return answer if isinstance(answer, bytes) else await answer
        except TimeoutError as exc:
            raise ConnectFailed(f"the hook for authentication has not answered in {limit} s") from exc

    def handle_open(self, link: ClientLink) -> None:
        """CONNACK has told success, and the session has begun."""
        self.link = link
        connack = self.connack = link.connack
        assigned = link.told(Property.ASSIGNED_CLIENT_IDENTIFIER, "")
        if assigned:
            self._client_id = assigned
            self._session.note_name(assigned)
        if not connack.session_present and self._has_been_open:
            self._renew(link)
        self._has_been_open = True
        renewals = set(self._renewals)  # first: what was asked for since then has the last word
        for request in (*self._renewals, *(request for request in self._requests if request not in renewals)):
            link.ask(request)
        if not self._attempt.settled.done():
            self._attempt.settled.set_result(None)
        waiters, self._open_waiters = self._open_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def handle_ending(self, link: ClientLink) -> None:
        if self.link is link:
            self.link = None

    def _handle_room(self) -> None:
        if self.link is not None:
            self.link.consider_reading()

    def _handle_store_failure(self, error: Exception) -> None:
        """Nothing may be sent that is not on disk: the client ends."""
        link = self.link
        self.finish(error)
        if link is not None:
            link.protocol.give_up(error)

    # -- subscriptions -----------------------------------------------------------------------------------------------

    def _renew(self, link: ClientLink) -> None:
        """The server has no session any more: subscribe again."""
        for request in self._renewals:  # sent in vain
            self._requests.pop(request, None)
        self._renewals.clear()
        groups: dict[tuple[Any, ...], tuple[Properties, list[tuple[str, int]]]] = {}
        for topic_filter, (options, properties) in self._subscriptions.items():
            key = tuple((name, repr(value)) for name, value in properties.items())
            groups.setdefault(key, (properties, []))[1].append((topic_filter, options))
        for properties, filters in groups.values():
            for start in range(0, len(filters), _MAX_FILTERS):
                request = self._subscribing(filters[start : start + _MAX_FILTERS], properties)
                request.outcome.add_done_callback(functools.partial(self._check_renewal, request))
                self._requests[request] = None
                self._renewals.append(request)

    def _check_renewal(self, request: Request, outcome: asyncio.Future[m.Suback | m.Unsuback]) -> None:
        self._requests.pop(request, None)
        if request in self._renewals:
            self._renewals.remove(request)
        if outcome.cancelled():
            return
        failure = outcome.exception()
        codes: Sequence[int] = outcome.result().reason_codes if failure is None else [m.UNSPECIFIED_ERROR] * 255
        for (topic_filter, _), code in zip(request.filters, codes, strict=False):
            if code >= m.UNSPECIFIED_ERROR:
                self._subscriptions.pop(topic_filter, None)
                error = refusal(f"subscription to {topic_filter!r} not renewed", code)
                error.__cause__ = failure
                self._inbox.refuse(topic_filter, error)

    def _subscribing(self, filters: Sequence[tuple[str, int]], properties: Properties) -> Request:
        def check(link: ClientLink) -> None:
            link.check_filters(filters, properties)

        return Request(
            m.SUBACK,
            filters,
            lambda version, number: encode_subscribe(version, number, filters, properties),
            check,
            self._loop.create_future(),
        )

    # -- connections, one after the other ------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Connect anew whenever the connection is lost, until that makes no sense."""
        try:
            delay = _FIRST_DELAY
            while True:
                begun = self._loop.time()
                await asyncio.shield(self._attempt.closed)
                if self._error is not None:
                    return
                failure = self._attempt.failure
                if not self._reconnects or (isinstance(failure, MqttRefused) and failure.code in _FINAL):
                    self.finish(failure)
                    return
                if self._loop.time() - begun >= _STEADY:
                    delay = _FIRST_DELAY
                logger.info("%s: %s; connecting again", self._url, failure)
                delay = await self._open_again(delay)
        except AsyncmgError as exc:
            self.finish(exc)
        except Exception as exc:
            error = AsyncmgError(f"the client cannot go on: {exc}")
            error.__cause__ = exc
            self.finish(error)

    async def _open_again(self, delay: float) -> float:
        """Try until there is a connection; return the longest delay before the next try."""
        while True:
            await asyncio.sleep(random.uniform(0, delay))
            delay = min(2 * delay, _MAX_DELAY)
            try:
                await self._open()
                return delay
            except MqttRefused as exc:
                if exc.code in _FINAL_IN_CONNACK:
                    raise
                logger.info("%s; trying again in at most %.0f s", exc, delay)
            except AsyncmgError as exc:
                logger.info("%s; trying again in at most %.0f s", exc, delay)

    async def wait_connected(self, timeout: float | None = None) -> None:
        """Wait until there is a connection; at once when there is. Cancelling is safe.

        Args:
            timeout: seconds; None: for as long as connecting anew makes sense.

        Raises:
            DeadlineExceeded: there is none in time.
            ConnectionClosed, MqttRefused, StoreFailed: the client has ended.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._wait_open()
        except TimeoutError as exc:
            raise DeadlineExceeded(f"no connection in {timeout} s", limit="timeout") from exc

    async def _wait_open(self) -> ClientLink:
        while self.link is None:
            if self._error is not None:
                raise self._error.with_traceback(None)
            waiter = self._loop.create_future()
            self._open_waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._open_waiters:
                    self._open_waiters.remove(waiter)
        return self.link

    # -- the end -----------------------------------------------------------------------------------------------------

    def finish(self, error: Exception, *, in_order: bool = False) -> None:
        """The client has ended: whoever waits is told why.

        Args:
            in_order: it was asked to: iterations end without an error.
        """
        if self._error is not None:
            return
        self._error = error
        self.link = None
        try:
            self._session.close()
        except AsyncmgError as exc:
            if in_order:
                in_order, self._error = False, exc
        error = self._error
        self._session.abandon(error)
        self._inbox.end(None if in_order else error)
        waiters, self._open_waiters = self._open_waiters, []
        everybody: list[asyncio.Future[Any]] = [*waiters, *(request.outcome for request in self._requests)]
        for waiter in everybody:
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # nobody may wait for a renewal
        self._requests.clear()
        self._loop.call_soon(self._manager.close)

    async def _end(self, reason_code: int, properties: Properties) -> None:
        """Say DISCONNECT, and end."""
        link, attempt, keeping = self.link, self._attempt, self._keeping
        if keeping is not None:
            keeping.cancel()
        try:
            if link is not None:
                self._session.commit()
                link.disconnect(reason_code, properties)
                async with asyncio.timeout(self._limits.net.graceful_timeout):
                    await asyncio.shield(attempt.closed)
        except TimeoutError:
            pass  # the broker does not take our output
        finally:
            self.finish(ConnectionClosed("the client has disconnected"), in_order=True)
            await self._manager.shutdown(0)
            if keeping is not None:
                await asyncio.wait({keeping})


def _as_connect_error(error: Exception) -> Exception:
    """Return what a failed attempt raises."""
    if isinstance(error, AsyncmgError) and not isinstance(error, ConnectionClosed | DeadlineExceeded):
        return error
    failure = ConnectFailed(str(error))
    failure.__cause__ = error
    return failure
