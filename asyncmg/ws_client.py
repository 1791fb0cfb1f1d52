"""``ws_connect``: WebSocket clients as async context managers, and as iterators that connect anew."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Generator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal

from .codecs.http import HeadersArgument
from .codecs.ws_deflate import Deflate
from .connection import Connection
from .errors import BusyError, ConnectFailed, HandshakeFailed, InvalidUrl
from .events import MG_EV_CLOSE, MG_EV_WS_OPEN
from .limits import DEFAULT_LIMITS, Limits
from .manager import Manager
from .protocols.base import TlsArgument
from .proxies import Proxy, proxy_for
from .urls import Url
from .websocket import WS_EVENTS, WebSocket

logger = logging.getLogger("asyncmg.ws")

_FIRST_DELAY, _MAX_DELAY = 1.0, 60.0  # seconds before another try: between 0 and this, twice as much each time
_STEADY = 10.0  # a connection that has lasted so long begins anew with the first delay
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers after which another try makes sense


class WsConnector:
    """What :func:`ws_connect` returns: to be entered, awaited or iterated."""

    def __init__(self, url: str, limits: Limits, timeout: float | None, **options: Any) -> None:
        self._url = url
        self._limits = limits
        self._timeout = timeout
        self._options = options
        self._ws: WebSocket | None = None

    async def _connect(self) -> WebSocket:
        # The engine of a native backend is as large as the connections that it may have.
        net = replace(self._limits.net, max_connections=1)
        manager = Manager(limits=replace(self._limits, net=net), events=WS_EVENTS)
        opened: list[WebSocket] = []

        def handle(conn: Connection, ev: int, data: Any) -> None:
            if ev == MG_EV_WS_OPEN:
                opened.append(WebSocket(conn, data))
            elif ev == MG_EV_CLOSE:
                asyncio.get_running_loop().call_soon(manager.close)

        try:
            async with asyncio.timeout(self._timeout):
                conn = manager.ws_connect(self._url, handle, fragments=True, **self._options)
                await conn.connected()
        except TimeoutError as exc:
            await manager.shutdown(0)
            raise ConnectFailed(f"cannot connect to {self._url}: no WebSocket in {self._timeout} s") from exc
        except BaseException:
            await manager.shutdown(0)
            raise
        return opened[0]

    def __await__(self) -> Generator[Any, Any, WebSocket]:
        return self._connect().__await__()

    async def __aenter__(self) -> WebSocket:
        if self._ws is not None:
            raise BusyError("this ws_connect() has been entered already")
        self._ws = await self._connect()
        return self._ws

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        ws, self._ws = self._ws, None
        if ws is not None:
            await ws.close()

    async def __aiter__(self) -> AsyncIterator[WebSocket]:
        """Connect, again and again: each time that the body has ended, after a while when that was soon or failed."""
        loop = asyncio.get_running_loop()
        delay = _FIRST_DELAY
        while True:
            begun = loop.time()
            try:
                ws = await self._connect()
            except OSError as exc:
                if isinstance(exc, HandshakeFailed) and exc.status and exc.status not in _TRANSIENT:
                    raise
                logger.info("%s; trying again in at most %.0f s", exc, delay)
            else:
                try:
                    yield ws
                finally:
                    await ws.close()
            if loop.time() - begun >= _STEADY:
                delay = _FIRST_DELAY
            await asyncio.sleep(random.uniform(0, delay))
            delay = min(2 * delay, _MAX_DELAY)


def ws_connect(
    url: str,
    *,
    subprotocols: Sequence[str] = (),
    compression: bool | Deflate = True,
    origin: str = "",
    headers: HeadersArgument = None,
    tls: TlsArgument | None = None,
    proxy: str | Literal[True] | None = True,
    timeout: float | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> WsConnector:
    """Connect to a WebSocket server::

        async with asyncmg.ws_connect("ws://127.0.0.1:8000/feed") as ws:
            await ws.send("hello")
            print(await ws.recv())

    It can also be awaited, for a WebSocket that you close yourself, and iterated: ``async for ws in ws_connect(url)``
    connects anew whenever the body has ended, with growing, random pauses between failures; leave it with ``break``.

    Args:
        url: ``ws://`` or ``wss://``; a user and password in it become an Authorization header.
        subprotocols: to be offered, the preferred one first.
        compression: offer permessage-deflate (RFC 7692).
        origin: value of Origin.
        headers: further ones of the request.
        tls: options for ``wss``; default: verification against the system's roots.
        proxy: URL of an HTTP proxy, True: as the environment says (``https_proxy``, ``http_proxy``, ``all_proxy``,
            ``no_proxy``), None: none.
        timeout: seconds until the handshake is complete; default: ``connect_timeout`` and ``handshake_timeout``.
        limits: see :class:`WsLimits`.

    Cancelling is safe: the connection is closed.

    Raises:
        InvalidUrl: of url or proxy.
        HandshakeFailed (when entered or awaited): the server has not accepted.
        ConnectFailed (likewise): there is no connection. (Both are OSErrors.)
    """
    parsed = Url.parse(url)
    if not parsed.is_http:
        raise InvalidUrl(f"not a WebSocket URL: {url!r}")
    chosen = proxy_for(parsed) if proxy is True else Proxy(proxy) if proxy else None
    return WsConnector(
        url,
        limits,
        timeout,
        subprotocols=subprotocols,
        compression=compression,
        origin=origin,
        headers=headers,
        tls=tls,
        proxy=chosen,
    )
