"""``ws_serve``: a WebSocket server that calls a coroutine function for every connection."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from .codecs.http import HeadersArgument
from .codecs.ws import GOING_AWAY, INTERNAL_ERROR, NORMAL
from .codecs.ws_deflate import Deflate
from .codecs.ws_handshake import user_fields
from .connection import Connection
from .errors import ConnectionClosed
from .events import MG_EV_HTTP_MSG, MG_EV_WS_OPEN
from .limits import DEFAULT_LIMITS, Limits
from .manager import Manager
from .messages import HttpMessage
from .protocols.base import TlsArgument
from .protocols.http import HttpProtocol
from .websocket import WS_EVENTS, WebSocket


class WsServer:
    """What :func:`ws_serve` returns: to be entered or awaited.

    Attributes:
        connections: the open ones.
    """

    def __init__(
        self,
        handler: Callable[..., Awaitable[Any]],
        url: str,
        process_request: Callable[[Connection, HttpMessage], Any] | None,
        manager: Manager,
        tls: TlsArgument | None,
        **options: Any,
    ) -> None:
        self._handler = handler
        self._takes_path = _takes_path(handler)
        self._process_request = process_request
        self._manager = manager
        self._options = options
        self._closed = asyncio.Event()
        self.connections: set[WebSocket] = set()
        self._listener = manager.http_listen(url, self._handle, tls=tls)

    def __repr__(self) -> str:
        return f"<WsServer {self._listener.local_addr} {len(self.connections)} connections>"

    @property
    def port(self) -> int:
        """The bound port."""
        return self._listener.port

    @property
    def manager(self) -> Manager:
        """The Manager below."""
        return self._manager

    def _handle(self, conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            outcome = self._process_request(conn, data) if self._process_request is not None else None
            if inspect.isawaitable(outcome):
                self._manager.spawn(self._upgrade_later(outcome, conn, data), f"asyncmg-ws-request-{conn.id}")
            else:
                self._upgrade(conn, data)
        elif ev == MG_EV_WS_OPEN:
            ws = WebSocket(conn, data)
            self.connections.add(ws)
            self._manager.spawn(self._serve(ws), f"asyncmg-ws-{conn.id}")

    async def _upgrade_later(self, outcome: Awaitable[Any], conn: Connection, request: HttpMessage) -> None:
        try:
            await outcome
            self._upgrade(conn, request)
        except Exception as exc:
            self._manager.report(exc, conn)
            if not conn.is_closing:
                conn.protocol.handle_handler_error(exc)

    def _upgrade(self, conn: Connection, request: HttpMessage) -> None:
        protocol = conn.protocol
        if isinstance(protocol, HttpProtocol) and not conn.is_closing and protocol.reply_is_due:
            conn.ws_upgrade(request, fragments=True, **self._options)

    async def _serve(self, ws: WebSocket) -> None:
        code = NORMAL
        try:
            await (self._handler(ws, ws.path) if self._takes_path else self._handler(ws))
        except ConnectionClosed as exc:  # that is how most handlers learn of the end; but it may be another's
            if ws.is_open:
                code = INTERNAL_ERROR
                self._manager.report(exc, ws.conn)
        except asyncio.CancelledError:
            code = GOING_AWAY
            raise
        except Exception as exc:
            code = INTERNAL_ERROR
            self._manager.report(exc, ws.conn)
        finally:
            self.connections.discard(ws)
            ws.protocol.begin_close(code)
            ws.abandon()

    async def serve_forever(self) -> None:
        """Wait until SIGINT, SIGTERM or :meth:`close`, then stop gracefully (close code 1001)."""
        await self._manager.serve_forever()
        self._closed.set()

    def close(self) -> None:
        """Begin to stop gracefully: accept nothing new, close connections with 1001."""
        if not self._manager.has_ended:
            self._manager.spawn(self._shut_down(None), "asyncmg-ws-close")

    async def _shut_down(self, timeout: float | None) -> None:
        await self._manager.shutdown(timeout)
        self._closed.set()

    async def wait_closed(self) -> None:
        """Wait until the server has stopped. Cancelling is safe."""
        await self._closed.wait()

    def __await__(self) -> Generator[Any, Any, Self]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._shut_down(None if exc_type is None else 0)


def _takes_path(handler: Callable[..., Any]) -> bool:
    """Whether it is one of the old kind, ``handler(ws, path)``."""
    if not callable(handler):
        raise TypeError(f"handler must be callable, not {type(handler).__name__}")
    try:
        inspect.signature(handler).bind(None)
    except TypeError:
        return True
    except ValueError:
        return False
    return False


def ws_serve(
    handler: Callable[..., Awaitable[Any]],
    host: str = "",
    port: int = 0,
    *,
    subprotocols: Sequence[str] = (),
    origins: Sequence[str | None] = (),
    compression: bool | Deflate = True,
    extra_headers: HeadersArgument = None,
    process_request: Callable[[Connection, HttpMessage], Any] | None = None,
    tls: TlsArgument | None = None,
    limits: Limits = DEFAULT_LIMITS,
    backend: Literal["auto", "asyncio", "native"] = "auto",
    error_handler: Callable[[Exception], Any] | None = None,
) -> WsServer:
    """Serve WebSocket connections, each by a call of a coroutine function::

        async def echo(ws):
            async for message in ws:
                await ws.send(message)

        async with asyncmg.ws_serve(echo, "127.0.0.1", 8000) as server:
            await server.serve_forever()

    The socket is bound when this returns. When the handler returns, the connection is closed with 1000; when it raises,
    with 1011. For HTTP and WebSocket on one port use a Manager and ``conn.ws_upgrade()``.

    Args:
        handler: ``handler(ws)``, or ``handler(ws, path)``.
        host: "" is all IPv4 addresses, ``::`` all of both families.
        port: 0: the system chooses; see :attr:`WsServer.port`.
        subprotocols, origins, compression, extra_headers: as in :meth:`Connection.ws_upgrade`.
        process_request: called with the connection and every request, may be async; when it has replied
            (``conn.reply``), that is the answer.
        tls: certificate: ``wss`` is served.
        limits: see :class:`WsLimits`.
        backend, error_handler: as in :class:`Manager`.

    Raises:
        ListenFailed, InvalidUrl, TypeError.
        InvalidHeader, LocalProtocolError: of extra_headers.
        RuntimeError: no event loop is running.
    """
    asyncio.get_running_loop()  # a server belongs to the loop that it is made in: a RuntimeError when there is none
    user_fields(extra_headers)
    manager = Manager(limits=limits, backend=backend, events=WS_EVENTS, error_handler=error_handler)
    name = f"[{host}]" if ":" in host else host
    return WsServer(
        handler,
        f"{'ws' if tls is None else 'wss'}://{name}:{port}",
        process_request,
        manager,
        tls,
        subprotocols=subprotocols,
        origins=origins,
        compression=compression,
        extra_headers=extra_headers,
    )
