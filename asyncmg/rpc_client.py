"""JSON-RPC 2.0 clients over WebSocket, which the server may call as well, and over HTTP."""

from __future__ import annotations

import asyncio
import itertools
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from .codecs.http import HeadersArgument, encode_fields, header_pairs
from .connection import Connection
from .errors import (
    BusyError,
    ConnectionClosed,
    DeadlineExceeded,
    InvalidUrl,
    ProtocolError,
)
from .events import MG_EV_CLOSE, MG_EV_ERROR, MG_EV_HTTP_MSG
from .limits import DEFAULT_LIMITS, Limits
from .manager import Manager
from .protocols.base import TlsArgument
from .protocols.http import basic_authorization
from .rpc import Rpc
from .rpc_lane import Lane
from .rpc_messages import RpcError, decode, is_response, request_frame
from .urls import Url
from .websocket import WebSocket
from .ws_client import ws_connect

logger = logging.getLogger("asyncmg.rpc")

Params = Sequence[Any] | Mapping[str, Any]
#: A call of a batch: the name of a method, or the name and its parameters.
Call = str | tuple[str, Params]

_MAX_DEPTH = 64  # of what a server sends
_MAX_CONNECTIONS = 16  # HTTP calls at the same time; the others wait
_MAX_IDLE = 4  # HTTP connections kept for the next call
_IDLE_TIME = 4.0  # seconds that one is kept: less than servers do, whose close would meet the next call


class RpcClient:
    """Calls methods of a JSON-RPC server::

        async with RpcClient("ws://127.0.0.1:8000/rpc") as client:
            print(await client.call("add", 1, 2))
            await client.notify("log", text="done")
            sums = await client.batch([("add", [1, 2]), ("add", {"a": 3, "b": 4})])

    Calls may be made at the same time; over WebSocket all use one connection, over HTTP each has its own for its time.
    There is no second try: what has been sent may have been done.

    Args:
        peer: ``ws://``, ``wss://``, ``http://`` or ``https://``, or a WebSocket that is open, of either side: then
            leaving the client does not close it. While the client is entered nobody else may receive from it.
        rpc: serves calls and notifications that the server sends, over WebSocket; default: it is told that there is no
            such method.
        timeout: seconds for each call.
        headers: further ones of the handshake, or of each HTTP request.
        tls: options for ``wss`` and ``https``; default: verification against the system's roots.
        limits: see :class:`Limits`. Answers are bounded by ``ws.max_message`` and ``http.max_body``.

    Raises:
        InvalidUrl, InvalidHeader.
        ConnectFailed (when it is entered): there is no WebSocket connection.
    """

    def __init__(
        self,
        peer: str | WebSocket,
        *,
        rpc: Rpc | None = None,
        timeout: float = 30.0,
        headers: HeadersArgument = None,
        tls: TlsArgument | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        if not 0 < timeout < float("inf"):
            raise ValueError(f"timeout must be positive and finite, not {timeout!r}")
        self.timeout = timeout
        self._ids = itertools.count(1)
        self._link: _Link
        if isinstance(peer, WebSocket):
            self._link = _WsLink(peer, rpc or Rpc())
        else:
            url = Url.parse(peer)
            if url.scheme in ("ws", "wss"):
                connecting = ws_connect(peer, headers=headers, tls=tls, limits=limits)
                self._link = _WsLink(connecting, rpc or Rpc())
            elif url.scheme in ("http", "https"):
                self._link = _HttpLink(url, headers, tls, limits)
            else:
                raise InvalidUrl(f"JSON-RPC needs a URL of ws, wss, http or https, not {peer!r}")

    def __repr__(self) -> str:
        return f"<RpcClient {self._link!r}>"

    async def __aenter__(self) -> Self:
        await self._link.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._link.close()

    async def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method with parameters by position or by name; return the result.

        Cancelling is safe: other calls go on; an answer that comes nevertheless is dropped.

        Raises:
            RpcError: the server has answered with an error.
            DeadlineExceeded: no answer in ``timeout`` seconds. (It is a TimeoutError.)
            ConnectionClosed: the connection is closed, or ends before the answer; the cause is chained.
            ConnectFailed, ProtocolError: over HTTP: there is no connection; the answer is none of JSON-RPC.
            TypeError: both kinds of parameters, or some that cannot be JSON.
        """
        if args and kwargs:
            raise TypeError("JSON-RPC has parameters by position or by name, not both")
        return await self.request(method, args or kwargs)

    async def request(self, method: str, params: Params = (), *, timeout: float | None = None) -> Any:
        """Call a method whose parameters you have in a list or dict.

        Args:
            timeout: seconds; default: the client's.

        Raises:
            as :meth:`call`.
        """
        id_ = next(self._ids)
        frame = request_frame(method, params, id_)
        result = (await self._exchange(frame, [id_], timeout))[0]
        if isinstance(result, RpcError):
            raise result
        return result

    async def notify(self, method: str, /, *args: Any, **kwargs: Any) -> None:
        """Send a notification: nobody tells what becomes of it. Over HTTP it waits until the server has taken it.

        Raises:
            as :meth:`call`, but for RpcError. (ProtocolError: over HTTP: the status is not 2xx.)
        """
        if args and kwargs:
            raise TypeError("JSON-RPC has parameters by position or by name, not both")
        await self._exchange(request_frame(method, args or kwargs, None), [], None)

    async def batch(self, calls: Sequence[Call], *, timeout: float | None = None) -> list[Any]:
        """Make several calls at once (section 6).

        Args:
            calls: names of methods, or pairs of a name and parameters.
            timeout: seconds for all of them; default: the client's.

        Returns:
            the results in the order of the calls; where one failed, its RpcError. Without calls nothing is sent.

        Raises:
            as :meth:`call`; RpcError only when the server refuses the whole batch.
        """
        if not calls:
            return []
        ids, frames = [], []
        for call in calls:
            method, params = (call, ()) if isinstance(call, str) else call
            ids.append(next(self._ids))
            frames.append(request_frame(method, params, ids[-1]))
        return await self._exchange(f"[{','.join(frames)}]", ids, timeout)

    async def _exchange(self, frame: str, ids: list[int], timeout: float | None) -> list[Any]:
        seconds = self.timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(seconds):
                return await self._link.exchange(frame, ids)
        except TimeoutError as exc:
            if isinstance(exc, DeadlineExceeded):
                raise
            raise DeadlineExceeded(f"no answer in {seconds} s", limit="timeout") from None


class _Link(ABC):
    """Brings frames to the server and answers back."""

    @abstractmethod
    async def open(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def exchange(self, frame: str, ids: list[int]) -> list[Any]:
        """Send a frame; return what the calls with these ids have come to: results and RpcErrors."""


def _closed(text: str, cause: Exception) -> ConnectionClosed:
    failure = ConnectionClosed(text if isinstance(cause, ConnectionClosed) else f"{text}: {cause}")
    failure.__cause__ = cause
    return failure


def _outcome(answer: dict[str, Any]) -> Any:
    return RpcError.of(answer["error"]) if answer.get("error") is not None else answer.get("result")


class _WsLink(_Link):
    """All calls share one WebSocket; a task receives."""

    def __init__(self, peer: Any, rpc: Rpc) -> None:
        self._connecting = None if isinstance(peer, WebSocket) else peer
        self._ws: WebSocket | None = peer if isinstance(peer, WebSocket) else None
        self._rpc = rpc
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._batches: dict[int, list[int]] = {}  # the ids of a call's frame by its first one
        self._task: asyncio.Task[None] | None = None
        self._end: Exception | None = None

    def __repr__(self) -> str:
        return repr(self._ws) if self._ws is not None else "not connected"

    async def open(self) -> None:
        if self._task is not None:
            raise BusyError("this RpcClient has been entered already")
        if self._ws is None:
            assert self._connecting is not None
            self._ws = await self._connecting
        self._task = asyncio.get_running_loop().create_task(self._receive(self._ws), name="asyncmg-rpc-client")

    async def close(self) -> None:
        task, ws = self._task, self._ws
        self._fail(ConnectionClosed("this RpcClient has been left"))
        try:
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        except asyncio.CancelledError:
            if ws is not None and self._connecting is not None:
                ws.conn.close()
            raise
        if ws is not None and self._connecting is not None:
            await ws.close()

    async def exchange(self, frame: str, ids: list[int]) -> list[Any]:
        if self._end is not None:
            raise _closed("Connection has been closed", self._end)
        if self._ws is None or self._task is None:
            raise ConnectionClosed("this RpcClient is not connected: enter it first")
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in ids]
        self._waiting.update(zip(ids, futures, strict=True))
        if ids:
            self._batches[ids[0]] = ids
        try:
            await self._ws.send(frame)
            return [await future for future in futures]
        finally:
            for id_, future in zip(ids, futures, strict=True):
                self._waiting.pop(id_, None)
                if not future.done():
                    future.cancel()
                elif not future.cancelled():
                    future.exception()  # of a batch only the first one is raised
            if ids:
                self._batches.pop(ids[0], None)

    async def _receive(self, ws: WebSocket) -> None:
        lane = Lane(self._rpc, ws.conn, pauses=False)
        try:
            while True:
                self._handle(await ws.recv(), lane)
        except Exception as exc:  # the end of the connection, or BusyError: somebody else receives from it
            self._fail(exc)
        finally:
            lane.cancel()

    def _handle(self, frame: str | bytes, lane: Lane) -> None:
        try:
            message = decode(frame if isinstance(frame, str) else frame.decode(), _MAX_DEPTH)
        except ValueError as exc:
            logger.warning("the server has sent what is not JSON: %s", exc)
            return
        answers = message if isinstance(message, list) and all(map(is_response, message)) else [message]
        if not all(map(is_response, answers)):
            lane.take(frame)
            return
        for answer in answers:
            self._settle(answer)

    def _settle(self, answer: dict[str, Any]) -> None:
        id_ = answer.get("id")
        if id_ is None:
            self._settle_unnamed(answer)
            return
        future = self._waiting.get(id_) if isinstance(id_, int) and not isinstance(id_, bool) else None
        # None: nobody waits any more, or nobody has asked.
        if future is not None and not future.done():
            future.set_result(_outcome(answer))

    def _settle_unnamed(self, answer: dict[str, Any]) -> None:
        """The server could not read a frame: it is clear which when there is only one."""
        if len(self._batches) != 1:
            logger.warning("an answer without id: %s", _outcome(answer))
            return
        for id_ in next(iter(self._batches.values())):
            future = self._waiting.get(id_)
            if future is not None and not future.done():
                outcome = _outcome(answer)
                if isinstance(outcome, RpcError):
                    future.set_exception(outcome)

    def _fail(self, error: Exception) -> None:
        self._end = self._end or error
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(_closed("the connection has ended before the answer", error))


class _HttpLink(_Link):
    """Each exchange is a POST (keep-alive)."""

    def __init__(self, url: Url, headers: HeadersArgument, tls: TlsArgument | None, limits: Limits) -> None:
        fields = list(header_pairs(headers))
        if url.user and not any(name.lower() == "authorization" for name, _ in fields):
            fields.append(("Authorization", basic_authorization(url.user, url.password)))
        lines = b"".join(line for _, line in encode_fields(fields))
        self._url = url
        self._head = (
            f"POST {url.target} HTTP/1.1\r\nHost: {url.authority}\r\nContent-Type: application/json\r\n"
            "Accept: application/json\r\n"
        ).encode() + lines
        self._tls = tls
        self._limits = replace(limits, net=replace(limits.net, max_connections=_MAX_CONNECTIONS))
        self._places = asyncio.Semaphore(_MAX_CONNECTIONS)
        self._manager: Manager | None = None
        self._idle: list[tuple[float, Connection]] = []

    def __repr__(self) -> str:
        return str(self._url)

    async def open(self) -> None:
        if self._manager is not None:
            raise BusyError("this RpcClient has been entered already")
        events = (MG_EV_HTTP_MSG, MG_EV_ERROR, MG_EV_CLOSE)
        self._manager = Manager(limits=self._limits, events=events)

    async def close(self) -> None:
        if self._manager is not None:
            await self._manager.shutdown(0)

    async def exchange(self, frame: str, ids: list[int]) -> list[Any]:
        async with self._places:
            status, body = await self._post(frame.encode())
        if not ids:
            if not 200 <= status < 300:
                raise ProtocolError(f"status {status}: the notification was not taken", wire_code=status)
            return []
        try:
            message = decode(body.decode(), _MAX_DEPTH)
        except ValueError as exc:
            raise ProtocolError(f"status {status}, and the answer is not JSON", wire_code=status) from exc
        answers = message if isinstance(message, list) else [message]
        if not answers or not all(map(is_response, answers)):
            raise ProtocolError(f"status {status}, and the answer is none of JSON-RPC", wire_code=status)
        outcomes = {
            answer.get("id"): _outcome(answer) for answer in answers if isinstance(answer.get("id"), int | None)
        }
        if None in outcomes and isinstance(outcomes[None], RpcError):
            raise outcomes[None]
        missing = [id_ for id_ in ids if id_ not in outcomes]
        if missing:
            raise ProtocolError(f"the answer leaves out the calls with ids {missing}", wire_code=status)
        return [outcomes[id_] for id_ in ids]

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        conn = await self._take_connection()
        is_reusable = False
        try:
            conn.send(b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body))
            error: Exception | None = None
            async for ev, data in conn:
                if ev == MG_EV_HTTP_MSG:
                    closes = (data.header("Connection") or "").lower() == "close" or data.proto == "HTTP/1.0"
                    is_reusable = not closes and not conn.is_closing
                    return data.status(), data.body_bytes
                if ev == MG_EV_ERROR:
                    error = data
            raise ConnectionClosed("the connection has ended before the answer") from error
        finally:
            if is_reusable and len(self._idle) < _MAX_IDLE:
                self._idle.append((asyncio.get_running_loop().time(), conn))
            else:
                conn.close()

    async def _take_connection(self) -> Connection:
        manager = self._manager
        if manager is None or manager.has_ended:
            raise ConnectionClosed("this RpcClient is not connected: enter it first")
        now = asyncio.get_running_loop().time()
        while self._idle:
            since, conn = self._idle.pop()
            if now - since < _IDLE_TIME and not conn.is_closing:
                return conn
            conn.close()
        conn = manager.http_connect(str(self._url), tls=self._tls)
        try:
            await conn.connected()
        except BaseException:
            conn.close()
            raise
        return conn
