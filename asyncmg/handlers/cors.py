"""Cross-origin requests of browsers (the Fetch standard, section 3.2: the CORS protocol)."""

from __future__ import annotations

import re
from collections.abc import Collection

from asyncmg.connection import Connection, Handler
from asyncmg.messages import HttpMessage
from asyncmg.protocols.http_filters import ReplyDraft

from .wrapping import add_filter, wrap

# As browsers send it: no path, no slash at the end.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*+://[^/?#@\s,A-Z]+")


def cors(
    handler: Handler,
    origins: str | Collection[str],
    methods: Collection[str] = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
    headers: Collection[str] = ("Authorization", "Content-Type"),
    expose: Collection[str] = (),
    credentials: bool = False,
    max_age: int = 600,
) -> Handler:
    """Let pages of other origins use what a handler serves.

    Preflight requests are answered here (204) and do not reach the handler; whatever else it replies to says which
    origin may read it. An origin that is not allowed is told nothing, which makes its browser refuse. Requests are
    served all the same: CORS protects users of browsers, not the server.

    Args:
        handler: plain or async, ``handler(conn, ev, data)``.
        origins: such as ``"https://app.example"``, compared as they are; or ``"*"``: every one.
        methods: that a page may use, besides the ones that need no permission.
        headers: fields that a page may send, besides the ones that need no permission.
        expose: fields of replies that a page may read, besides the usual ones.
        credentials: a page may send the user's cookies and credentials.
        max_age: seconds for which a browser may remember the answer to a preflight request.

    Returns:
        a handler.

    Raises:
        TypeError: the handler is a session.
        ValueError: ``credentials`` with ``"*"``: every page on the web could act as its visitor; something that is no
            origin.
    """
    listed = [origins] if isinstance(origins, str) else list(origins)
    if credentials and "*" in listed:
        raise ValueError('credentials need a list of origins: with "*" every page could act as its visitor')
    for origin in listed:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(f"not an origin: {origin!r}; one looks like https://app.example or http://localhost:3000")
    grant = _Grant(frozenset(listed), _line(expose), credentials)
    answer = {
        "Access-Control-Allow-Methods": _line(methods),
        "Access-Control-Allow-Headers": _line(headers),
        "Access-Control-Max-Age": str(max_age),
    }

    def look(conn: Connection, ev: int, message: HttpMessage) -> bool:
        add_filter(conn, grant)
        is_preflight = (
            message.method == "OPTIONS"
            and message.header("Origin") is not None
            and message.header("Access-Control-Request-Method") is not None
        )
        if is_preflight:
            conn.reply(204, b"", answer if grant.admits(message) else None)
        return not is_preflight

    return wrap(handler, look)


def _line(names: Collection[str]) -> str:
    return names if isinstance(names, str) else ", ".join(names)


class _Grant:
    """Tells the browser that the page which asked may read the reply."""

    __slots__ = ("_credentials", "_expose", "_is_for_all", "_origins")

    def __init__(self, origins: frozenset[str], expose: str, credentials: bool) -> None:
        self._origins = origins
        self._is_for_all = "*" in origins
        self._expose = expose
        self._credentials = credentials

    def admits(self, message: HttpMessage) -> bool:
        return self._is_for_all or message.header("Origin") in self._origins

    def begin_reply(self, message: HttpMessage, draft: ReplyDraft) -> None:
        if self._is_for_all:
            draft.set_header("Access-Control-Allow-Origin", "*")
        else:
            # Whatever Origin was: without it, or with another one, the reply is another one.
            draft.add_vary("Origin")
            origin = message.header("Origin")
            if origin not in self._origins:
                return
            draft.set_header("Access-Control-Allow-Origin", origin)
            if self._credentials:
                draft.set_header("Access-Control-Allow-Credentials", "true")
        if self._expose:
            draft.set_header("Access-Control-Expose-Headers", self._expose)

    def end_reply(self, message: HttpMessage, status: int, size: int, is_complete: bool) -> None:
        """Nothing to do."""
