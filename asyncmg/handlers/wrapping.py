"""Handlers round handlers: what authentication, CORS, compression and access logs have in common."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

from asyncmg.connection import Connection, Handler
from asyncmg.dispatch import HandlerKind, handler_kind
from asyncmg.errors import ConnectionClosed
from asyncmg.events import MG_EV_ERROR, MG_EV_HTTP_HDRS, MG_EV_HTTP_MSG
from asyncmg.messages import HttpMessage
from asyncmg.protocols.http_filters import ReplyFilter

#: Called as ``look(conn, ev, message)``; tells whether the event goes on to the handler, at once or when it is awaited.
Look = Callable[[Connection, int, HttpMessage], bool | Awaitable[bool]]

_REQUEST_EVENTS = frozenset({int(MG_EV_HTTP_HDRS), int(MG_EV_HTTP_MSG)})


def is_request(ev: int, data: Any) -> bool:
    """Whether an event brings a request: its head, or the whole. Responses to a client do not count."""
    return ev in _REQUEST_EVENTS and not data.status()


def require_plain(handler: Handler) -> bool:
    """Check that a handler takes single events; return whether it is async.

    Raises:
        TypeError: it is none, or a session: ``async def handler(conn)`` takes its events itself.
    """
    kind = handler_kind(handler)
    if kind in (HandlerKind.NONE, HandlerKind.SESSION):
        raise TypeError("only handlers called as handler(conn, ev, data) can be wrapped, plain or async")
    return kind is HandlerKind.ASYNC


def wrap(
    handler: Handler,
    look: Look,
    *,
    is_async: bool = False,
    on_error: Callable[[Connection, Exception], None] | None = None,
) -> Handler:
    """Let somebody look at each request in front of a handler.

    Args:
        handler: plain or async; the new one is what it is.
        look: see :data:`Look`; called with MG_EV_HTTP_HDRS and MG_EV_HTTP_MSG of requests.
        is_async: what ``look`` returns has to be awaited: the new handler is async in any case.
        on_error: called in front of the handler with what MG_EV_ERROR brings.

    Raises:
        TypeError: see :func:`require_plain`.
    """

    def meet(conn: Connection, ev: int, data: Any) -> bool | Awaitable[bool]:
        if is_request(ev, data):
            return look(conn, ev, data)
        if on_error is not None and ev == MG_EV_ERROR:
            on_error(conn, data)
        return True

    def call(conn: Connection, ev: int, data: Any) -> Any:
        # Something to be awaited would count as true: it must not pass for a yes.
        return handler(conn, ev, data) if meet(conn, ev, data) is True else None

    async def call_async(conn: Connection, ev: int, data: Any) -> None:
        goes_on = meet(conn, ev, data)
        if goes_on if isinstance(goes_on, bool) else await goes_on:
            outcome = handler(conn, ev, data)
            if inspect.isawaitable(outcome):
                await outcome

    return call_async if require_plain(handler) or is_async else call


def add_filter(conn: Connection, reply_filter: ReplyFilter) -> None:
    """Add a filter to the reply to the current request, if there will ever be one."""
    try:
        conn.add_reply_filter(reply_filter)
    except ConnectionClosed:
        pass  # of an event that had to wait for its handler: it still goes on to it


class Marks:
    """Remembers one request of each connection from its MG_EV_HTTP_HDRS to its MG_EV_HTTP_MSG."""

    __slots__ = ("_messages",)

    def __init__(self) -> None:
        self._messages: WeakKeyDictionary[Connection, HttpMessage] = WeakKeyDictionary()

    def note(self, conn: Connection, ev: int, message: HttpMessage) -> None:
        """Mark a request; the mark of the one before is gone. With MG_EV_HTTP_MSG nothing has to be remembered."""
        if ev == MG_EV_HTTP_HDRS:
            self._messages[conn] = message

    def take(self, conn: Connection, ev: int, message: HttpMessage) -> bool:
        """Whether the request is marked; the mark is gone."""
        return ev == MG_EV_HTTP_MSG and self._messages.pop(conn, None) is message
