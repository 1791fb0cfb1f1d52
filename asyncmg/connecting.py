"""The connecting half of Manager: ``connect``, ``http_connect``, ``ws_connect``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from .codecs.choice import CodecFactory
from .codecs.http import HeadersArgument, Role
from .codecs.ws_deflate import Deflate
from .codecs.ws_handshake import WsOptions
from .connection import Connection, Handler
from .dialing import dial, dial_datagram
from .errors import InvalidUrl
from .events import MG_EV_OPEN
from .limits import Limits
from .loop_host import LoopHost
from .protocols.base import BaseProtocol, TlsArgument
from .protocols.datagram import DatagramProtocol
from .protocols.http import HttpProtocol
from .protocols.stream import StreamProtocol
from .protocols.ws_opening import WsOpening
from .proxies import Proxy
from .transports.backend import Backend
from .urls import Url
from .verbs.ws import deflate_of


class Connectors(ABC):
    """Mixed into Manager, which has the rest."""

    limits: Limits
    _connections: dict[int, Connection]
    _http_codec: CodecFactory

    @abstractmethod
    def _require_host(self) -> LoopHost: ...

    @abstractmethod
    def _require_backend(self) -> Backend: ...

    @abstractmethod
    def _take_id(self) -> int: ...

    @abstractmethod
    def spawn(self, coro: Coroutine[Any, Any, Any], name: str) -> Any: ...

    def connect(
        self, url: str, handler: Handler | None = None, *, http: bool | None = None, tls: TlsArgument | None = None
    ) -> Connection:
        """Begin to connect; MG_EV_CONNECT, or MG_EV_ERROR and MG_EV_CLOSE, tell how it went.

        In asyncio ``async with manager.connect(url) as conn`` waits until it is connected.

        Args:
            url: ``tcp udp http https ws wss`` with host and port, or ``unix:///path``. ``ws`` and ``wss`` are HTTP
                here: see :meth:`ws_connect`.
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

    def _protocol_class(self, url: Url, http: bool | None) -> tuple[type[BaseProtocol], dict[str, Any]]:
        """Return the class of a connection's protocol objects, and what it takes beside what all take."""
        if url.is_http if http is None else http:
            return HttpProtocol, {"codec": self._http_codec}
        return StreamProtocol, {}

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
        return self._begin(conn, protocol, dial(conn, protocol, url, self.limits.net, backend, proxy))

    def _connect_datagram(self, url: Url, handler: Handler | None) -> Connection:
        loop = self._require_host().loop
        backend = self._require_backend()
        conn = Connection(self, self._take_id(), handler)  # type: ignore[arg-type]  # Manager is an Owner
        protocol = DatagramProtocol(conn, is_client=True, limits=self.limits, loop=loop)
        return self._begin(conn, protocol, dial_datagram(conn, protocol, url, self.limits.net, backend))

    def _begin(
        self, conn: Connection, protocol: BaseProtocol | DatagramProtocol, work: Coroutine[Any, Any, None]
    ) -> Connection:
        self._connections[conn.id] = conn
        conn.attach(protocol)
        conn.handle_event(MG_EV_OPEN, None)
        conn.attach(protocol, self.spawn(work, f"asyncmg-connect-{conn.id}"))
        return conn
