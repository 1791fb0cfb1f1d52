"""The connecting half of Manager: ``connect``, ``http_connect``, ``ws_connect``, ``mqtt_connect``, ``sntp_connect``."""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from .codecs.http import HeadersArgument, Role
from .codecs.mqtt_properties import NO_PROPERTIES, Properties
from .codecs.ws_deflate import Deflate
from .codecs.ws_handshake import WsOptions
from .connection import Connection, Handler
from .dialing import dial, dial_datagram, resolve_for
from .dispatch import EventSink
from .errors import InvalidUrl
from .events import MG_EV_OPEN
from .manager_parts import ManagerParts
from .mqtt_message import MqttWill
from .protocols.base import BaseProtocol, TlsArgument
from .protocols.datagram import DatagramProtocol
from .protocols.mqtt import MqttProtocol, MqttUser
from .protocols.mqtt_events import MqttEvents, connect_packet, limits_to_tell
from .protocols.sntp import SntpClientProtocol
from .protocols.ws_opening import WsOpening
from .protocols.ws_tunnel import WsTunnel
from .proxies import Proxy
from .resolver.service import Resolver, default_resolver
from .urls import Url
from .verbs.ws import deflate_of


class Connectors(ManagerParts):
    """Mixed into Manager, which has the rest."""

    _resolver: Resolver | None
    _resolving: dict[int, asyncio.Task[None]]  # by connection: what its resolve() has begun

    @property
    def resolver(self) -> Resolver:
        """Who looks up names for this Manager."""
        if self._resolver is None:
            self._resolver = default_resolver()
        return self._resolver

    def begin_resolving(self, conn: Connection, host: str, port: int) -> None:
        """Look up a host for ``conn.resolve()``."""
        loop_host = self._require_host()
        self.end_resolving(conn)
        task = loop_host.call(
            lambda: self.spawn(
                resolve_for(conn, host, port, self.limits.net, self.resolver), f"asyncmg-resolve-{conn.id}"
            )
        )
        self._resolving[conn.id] = task
        task.add_done_callback(lambda task: self._note_resolved(conn, task))

    def _note_resolved(self, conn: Connection, task: asyncio.Task[None]) -> None:
        if self._resolving.get(conn.id) is task:
            del self._resolving[conn.id]

    def end_resolving(self, conn: Connection) -> None:
        """Cancel what ``conn.resolve()`` has begun."""
        task = self._resolving.pop(conn.id, None)
        if task is not None:
            task.cancel()

    def connect(
        self, url: str, handler: Handler | None = None, *, http: bool | None = None, tls: TlsArgument | None = None
    ) -> Connection:
        """Begin to connect; MG_EV_CONNECT, or MG_EV_ERROR and MG_EV_CLOSE, tell how it went.

        In asyncio ``async with manager.connect(url) as conn`` waits until it is connected.

        Args:
            url: ``tcp udp sntp http https ws wss`` with host and port, or ``unix:///path``. ``ws`` and ``wss`` are HTTP
                here: see :meth:`ws_connect`; for ``mqtt`` and ``mqtts`` see :meth:`mqtt_connect`.
            handler: of this connection; default: the Manager's.
            http: speak HTTP; default: by the scheme.
            tls: options for ``https`` and ``wss``; default: TLS that verifies against the system's roots, begun when
                MG_EV_CONNECT has been handled and no handler has called ``conn.tls_init()``.

        Raises:
            InvalidUrl (a RuntimeError, too), ManagerClosed.
        """
        host = self._require_host()
        parsed = Url.parse(url)
        if parsed.scheme == "udp":
            return host.call(lambda: self._connect_datagram(parsed, handler))
        if parsed.scheme == "sntp":
            return self.sntp_connect(url, handler)
        make, options = self._protocol_class(parsed, http)
        return host.call(lambda: self._connect_stream(parsed, handler, make, tls=tls, **options))

    def http_connect(self, url: str, handler: Handler | None = None, *, tls: TlsArgument | None = None) -> Connection:
        """Connect for HTTP; see :meth:`connect`."""
        return self.connect(url, handler, http=True, tls=tls)

    def ws_connect(
        self,
        url: str,
        handler: Handler | None = None,
        *,
        subprotocols: Sequence[str] = (),
        compression: bool | Deflate = False,
        origin: str = "",
        headers: HeadersArgument = None,
        tls: TlsArgument | None = None,
        fragments: bool = False,
        proxy: Proxy | None = None,
    ) -> Connection:
        """Begin to connect for WebSocket (RFC 6455 section 4.1).

        MG_EV_WS_OPEN tells that the handshake is complete; MG_EV_ERROR (a HandshakeFailed when the server has refused)
        and MG_EV_CLOSE that it has failed. In asyncio ``async with manager.ws_connect(url) as conn`` waits for it.

        Args:
            url: ``ws://host:port/path`` or ``wss://...``; a user and password in it become an Authorization header.
            handler: of this connection; default: the Manager's.
            subprotocols: to be offered, the preferred one first.
            compression: offer permessage-deflate (RFC 7692).
            origin: value of Origin.
            headers: further ones of the request.
            tls: as in :meth:`connect`.
            fragments: MG_EV_WS_MSG for each piece of a message, as it comes: see :class:`WsProtocol`.
            proxy: connect through it.

        Raises:
            InvalidUrl (a RuntimeError, too), ManagerClosed, InvalidHeader.
        """
        host = self._require_host()
        parsed = Url.parse(url)
        if not parsed.is_http:
            raise InvalidUrl(f"not a WebSocket URL: {url!r}")
        options = WsOptions(subprotocols, deflate_of(compression), origin=origin)
        request = {"target": parsed.target, "host": parsed.authority, "options": options, "headers": headers}
        if parsed.user:
            request["basic_auth"] = (parsed.user, parsed.password)
        return host.call(
            lambda: self._connect_stream(
                parsed, handler, WsOpening, tls=tls, proxy=proxy, codec=self._http_codec, fragments=fragments, **request
            )
        )

    def mqtt_connect(
        self,
        url: str,
        handler: Handler | None = None,
        client_id: str = "",
        username: str = "",
        password: str | bytes = "",
        clean_session: bool = True,
        keepalive: int = 60,
        *,
        version: int = 4,
        will: MqttWill | None = None,
        properties: Properties = NO_PROPERTIES,
        tls: TlsArgument | None = None,
    ) -> Connection:
        """Begin to connect to an MQTT broker (MQTT 3.1.1 and 5.0 section 3.1), and send CONNECT.

        MG_EV_MQTT_OPEN tells the reason code of the broker's answer; unless it is 0 the connection is closed then.
        Messages come as MG_EV_MQTT_MSG, each control packet as MG_EV_MQTT_CMD. Acknowledgements and keep-alive pings
        need no doing. For a client that reconnects see :func:`asyncmg.mqtt_connect`.

        Args:
            url: ``mqtt mqtts ws wss`` with host and port (default 1883, 8883, 80, 443), or ``unix:///path``.
            handler: of this connection; default: the Manager's.
            client_id: default: a random one.
            username, password: "": none; default: those in the URL.
            clean_session: begin a new session.
            keepalive: seconds, 0 to 65535; 0: no pings.
            version: 4 (3.1.1) or 5.
            will: what the broker publishes when the connection ends without DISCONNECT.
            properties: of the CONNECT, 5.0 only. Receive maximum and maximum packet size are told without being named.
            tls: as in :meth:`connect`.

        Raises:
            InvalidUrl (a RuntimeError, too), ManagerClosed.
            InvalidPacket: an argument that no CONNECT can carry.
        """
        parsed = Url.parse(url)
        username = username or parsed.user
        password = password or parsed.password
        packet = connect_packet(
            version,
            client_id or f"asyncmg-{secrets.token_hex(6)}",
            clean_start=clean_session,
            keep_alive=keepalive,
            username=username or None,
            password=(password.encode() if isinstance(password, str) else password) or None,
            will=will,
            properties={**limits_to_tell(self.limits.mqtt, version), **properties},
        )
        return self.mqtt_open(
            url, lambda protocol: MqttEvents(protocol, packet, keepalive), version=version, handler=handler, tls=tls
        )

    def mqtt_open(
        self,
        url: str,
        make_user: Callable[[MqttProtocol], MqttUser],
        *,
        version: int,
        handler: Handler | None = None,
        tls: TlsArgument | None = None,
    ) -> Connection:
        """Begin to connect for MQTT; the packets are for the user that is made (:class:`MqttUser`).

        Args:
            url: see :meth:`mqtt_connect`.
            make_user: called with the connection's protocol object.

        Raises:
            InvalidUrl (a RuntimeError, too), ManagerClosed.
        """
        host = self._require_host()
        parsed = Url.parse(url)

        def make(sink: EventSink, **kwargs: Any) -> MqttProtocol:
            protocol = MqttProtocol(sink, version=version, **kwargs)
            protocol.user = make_user(protocol)
            return protocol

        if not parsed.is_http:
            if parsed.scheme not in ("mqtt", "mqtts", "unix"):
                raise InvalidUrl(f"not a URL of an MQTT broker: {url!r}")
            return host.call(lambda: self._connect_stream(parsed, handler, make, tls=tls))
        target = "/mqtt" if parsed.target == "/" else parsed.target
        options = WsOptions(("mqtt",))  # [MQTT-6.0.0-3]

        def make_opening(sink: EventSink, **kwargs: Any) -> WsOpening:
            inner = functools.partial(make, role=Role.CLIENT, limits=self.limits, loop=host.loop)
            tunnel = WsTunnel(inner, sink)
            return WsOpening(sink, make=lambda _, **outer: tunnel.outer(**outer), **kwargs)

        return host.call(
            lambda: self._connect_stream(
                parsed,
                handler,
                make_opening,
                tls=tls,
                codec=self._http_codec,
                target=target,
                host=parsed.authority,
                options=options,
            )
        )

    def sntp_connect(self, url: str, handler: Handler | None = None) -> Connection:
        """Ask a server for the time (SNTP, RFC 4330).

        MG_EV_SNTP_TIME brings it, in milliseconds since 1970, corrected by half the round trip; then the connection
        closes, unless :meth:`Connection.sntp_request` was called meanwhile. A server that does not answer, or does not
        know the time, is told by MG_EV_ERROR.

        For offset, delay and several servers see :func:`asyncmg.sntp_time`.

        Args:
            url: ``sntp://host`` or ``udp://host:port`` (default port 123).
            handler: of this connection; default: the Manager's.

        Raises:
            InvalidUrl (a RuntimeError, too), ManagerClosed.
        """
        host = self._require_host()
        parsed = Url.parse(url)
        if parsed.scheme not in ("sntp", "udp"):
            raise InvalidUrl(f"not a URL of an SNTP server: {url!r}")
        return host.call(lambda: self._connect_datagram(parsed, handler, SntpClientProtocol))

    def _connect_stream(
        self,
        url: Url,
        handler: Handler | None,
        make_protocol: Callable[..., BaseProtocol],
        *,
        proxy: Proxy | None = None,
        **options: Any,
    ) -> Connection:
        loop = self._require_host().loop
        backend = self._require_backend()
        conn = Connection(self, self._take_id(), handler)  # type: ignore[arg-type]  # Manager is an Owner
        protocol = make_protocol(
            conn,
            role=Role.CLIENT,
            limits=self.limits,
            loop=loop,
            tls_required=url.is_tls,
            server_name=url.host,
            **options,
        )
        return self._begin(conn, protocol, dial(conn, protocol, url, self.limits.net, backend, self.resolver, proxy))

    def _connect_datagram(
        self, url: Url, handler: Handler | None, make: Callable[..., DatagramProtocol] = DatagramProtocol
    ) -> Connection:
        loop = self._require_host().loop
        backend = self._require_backend()
        conn = Connection(self, self._take_id(), handler)  # type: ignore[arg-type]  # Manager is an Owner
        protocol = make(conn, is_client=True, limits=self.limits, loop=loop)
        return self._begin(conn, protocol, dial_datagram(conn, protocol, url, self.limits.net, backend, self.resolver))

    def _begin(
        self, conn: Connection, protocol: BaseProtocol | DatagramProtocol, work: Coroutine[Any, Any, None]
    ) -> Connection:
        self._connections[conn.id] = conn
        conn.attach(protocol)
        conn.handle_event(MG_EV_OPEN, None)
        task = self.spawn(work, f"asyncmg-connect-{conn.id}")
        conn.attach(protocol, task)
        if conn.is_closing:  # by the handler of MG_EV_OPEN
            task.cancel()
        return conn
