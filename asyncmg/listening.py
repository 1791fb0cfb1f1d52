"""The listening half of Manager: ``listen``, ``http_listen``, ``mqtt_listen``, ``sntp_listen``."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable
from typing import Any

from .codecs.http import Role
from .connection import Connection, Handler
from .dialing import adopt
from .dispatch import handler_kind
from .errors import InvalidUrl, ListenFailed
from .events import MG_EV_OPEN
from .listener import Listener, ListenerRoom
from .manager_parts import ManagerParts
from .protocols.base import BaseProtocol, TlsArgument
from .protocols.datagram import DatagramProtocol
from .protocols.http import HttpProtocol
from .protocols.mqtt_events import make_mqtt_events
from .protocols.sntp import SntpServerProtocol, SntpSource
from .transports.backend import Accepted
from .transports.sockets import bind_inet, bind_unix
from .urls import Url


class Listeners(ManagerParts):
    """Mixed into Manager, which has the rest."""

    def listen(
        self, url: str, handler: Handler | None = None, *, http: bool | None = None, tls: TlsArgument | None = None
    ) -> Listener | Connection:
        """Listen; the socket is bound when this returns.

        Args:
            url: ``tcp udp sntp http https ws wss mqtt mqtts`` with host and port (port 0: the system chooses), or
                ``unix:///path``. An empty host is all IPv4 addresses, ``[::]`` all addresses of both families.
            handler: of accepted connections; default: the Manager's.
            http: speak HTTP; default: by the scheme.
            tls: certificate of ``https`` and ``wss``. Without it a handler calls ``conn.tls_init()`` in MG_EV_ACCEPT;
                a connection for which neither is done is closed, never served in the clear.

        Returns:
            A Listener; for ``udp`` and ``sntp`` a Connection.

        Raises:
            InvalidUrl, ListenFailed (both are RuntimeErrors, too), ManagerClosed.
        """
        host = self._require_host()
        handler_kind(handler)  # a TypeError now, before there is a socket
        parsed = Url.parse(url, listening=True)
        return host.call(lambda: self._listen(parsed, handler, http, tls))

    def mqtt_listen(self, url: str, handler: Handler | None = None, *, tls: TlsArgument | None = None) -> Listener:
        """Listen for MQTT; the handler is the broker: it answers what comes as MG_EV_MQTT_CMD and MG_EV_MQTT_MSG.

        For a whole broker see :class:`asyncmg.MqttBroker`.

        Args:
            url: ``mqtt``, ``mqtts`` or ``tcp`` with host and port, or ``unix:///path``; see :meth:`listen`.

        Raises:
            as :meth:`listen`.
        """
        if Url.parse(url, listening=True).is_http:
            raise InvalidUrl(f"not a URL of an MQTT listener: {url!r}")
        return self.listen_with(url, make_mqtt_events, handler, tls=tls)

    def listen_with(
        self,
        url: str,
        make: Callable[..., BaseProtocol],
        handler: Handler | None = None,
        *,
        tls: TlsArgument | None = None,
        probably_http: bool = False,
    ) -> Listener:
        """Listen for connections with protocol objects of your own.

        Args:
            url: see :meth:`listen`; not ``udp``.
            make: called with what :class:`BaseProtocol` takes.
            probably_http: what connections send is likely to be HTTP requests.

        Raises:
            as :meth:`listen`.
        """
        host = self._require_host()
        handler_kind(handler)
        parsed = Url.parse(url, listening=True)
        if parsed.scheme in ("udp", "sntp"):
            raise InvalidUrl(f"streams only, not {url!r}")
        return host.call(lambda: self._listen_stream(parsed, handler, make, tls, probably_http=probably_http))

    def sntp_listen(self, url: str, handler: Handler | None = None, *, source: SntpSource | None = None) -> Connection:
        """Tell the time to SNTP clients (RFC 4330 section 6).

        Only well-formed requests of clients are answered, each with 48 bytes, never more than it had: nothing can be
        amplified. Who asks more often than ``limits.sntp.max_rate`` gets kiss-o'-death RATE, then silence.

        Args:
            url: ``sntp://127.0.0.1:1123`` (default port 123) or ``udp://...``.
            handler: gets MG_EV_READ and MG_EV_WRITE of answered requests; not of those that come while it is busy.
            source: which time, and what is said of it; default: this machine's clock, as one of stratum 10.

        Raises:
            as :meth:`listen`.
        """
        host = self._require_host()
        handler_kind(handler)
        parsed = Url.parse(url, listening=True)
        if parsed.scheme not in ("sntp", "udp"):
            raise InvalidUrl(f"not a URL of an SNTP server: {url!r}")
        make = functools.partial(SntpServerProtocol, source=source if source is not None else SntpSource())
        return host.call(lambda: self._open_datagram(parsed, handler, make))

    def http_listen(self, url: str, handler: Handler | None = None, *, tls: TlsArgument | None = None) -> Listener:
        """Listen for HTTP; see :meth:`listen`."""
        listener = self.listen(url, handler, http=True, tls=tls)
        if not isinstance(listener, Listener):
            listener.close()
            raise InvalidUrl("HTTP needs a stream: not udp")
        return listener

    def _listen(
        self, url: Url, handler: Handler | None, http: bool | None, tls: TlsArgument | None
    ) -> Listener | Connection:
        if url.scheme == "udp":
            return self._open_datagram(url, handler, DatagramProtocol)
        if url.scheme == "sntp":
            return self._open_datagram(url, handler, SntpServerProtocol)
        if http is None and url.scheme in ("mqtt", "mqtts"):
            return self._listen_stream(url, handler, make_mqtt_events, tls)
        protocol_class, options = self._protocol_class(url, http)
        make = functools.partial(protocol_class, **options)
        return self._listen_stream(url, handler, make, tls, probably_http=protocol_class is HttpProtocol)

    def _listen_stream(
        self,
        url: Url,
        handler: Handler | None,
        make: Callable[..., BaseProtocol],
        tls: TlsArgument | None,
        *,
        probably_http: bool = False,
    ) -> Listener:
        host = self._require_host()
        net = self.limits.net
        backend = self._require_backend()  # before there is a socket
        if url.scheme == "unix":
            sock = bind_unix(url.host, backlog=net.backlog)
        else:
            sock = bind_inet(url.host, url.port, socket.SOCK_STREAM, backlog=net.backlog)

        def make_protocol(conn: Connection, listener: Listener) -> BaseProtocol:
            return make(
                conn,
                role=Role.SERVER,
                limits=self.limits,
                loop=host.loop,
                tls_required=url.is_tls,
                tls=listener.tls,
            )

        listener = Listener(self, self._take_id(), handler, sock, make_protocol, tls)  # type: ignore[arg-type]  # Manager is an Owner
        try:
            accepting = backend.accept_on(
                sock,
                lambda accepted: self._accept(listener, accepted),
                ListenerRoom(listener, self._places),
                listener.fail,
                net,
                http=probably_http and not url.is_tls,
            )
        except OSError as exc:
            sock.close()
            raise ListenFailed(exc.errno, f"cannot listen on {url}: {exc.strerror}") from exc
        self._connections[listener.id] = listener
        self._places.listeners += 1
        listener.start(accepting, self._places.wake)
        return listener

    def _accept(self, listener: Listener, accepted: Accepted) -> None:
        queued = listener.queues_connections
        conn = Connection(self, self._take_id(), listener.handler, queued=queued)  # type: ignore[arg-type]  # Manager is an Owner
        protocol = listener.make_protocol(conn, listener)
        self._connections[conn.id] = conn
        self._places.take()
        conn.attach(protocol)
        if queued:
            listener.hand_out(conn)
        work = accepted.give_to(protocol)
        if work is not None:
            task = self.spawn(adopt(work, protocol), f"asyncmg-adopt-{conn.id}")

            def close_unseen(task: asyncio.Task[Any]) -> None:
                """Cancelled before its first turn it has not seen the socket."""
                if task.cancelled() and not protocol.has_been_made:
                    work.close()
                    accepted.close()

            task.add_done_callback(close_unseen)
            conn.attach(protocol, task)

    def _open_datagram(self, url: Url, handler: Handler | None, make: Callable[..., DatagramProtocol]) -> Connection:
        host = self._require_host()
        self._require_backend()  # before there is a socket
        sock = bind_inet(url.host, url.port, socket.SOCK_DGRAM, backlog=0)
        conn = Connection(self, self._take_id(), handler)  # type: ignore[arg-type]  # Manager is an Owner
        protocol = make(conn, is_client=False, limits=self.limits, loop=host.loop, sock=sock)
        self._connections[conn.id] = conn
        conn.attach(protocol)
        conn.handle_event(MG_EV_OPEN, None)
        opening = self.spawn(self._require_backend().open_datagram(sock, protocol), f"asyncmg-udp-{conn.id}")
        opening.add_done_callback(lambda task: sock.close() if task.cancelled() else None)
        return conn
