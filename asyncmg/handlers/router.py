"""Routes: which handler serves which method and path (RFC 9110 sections 9 and 15.5)."""

from __future__ import annotations

import heapq
import inspect
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes
from weakref import WeakKeyDictionary

from asyncmg.connection import Connection, Handler
from asyncmg.events import MG_EV_CLOSE, MG_EV_ERROR, MG_EV_HTTP_HDRS
from asyncmg.matching import Glob, Wildcard
from asyncmg.messages import HttpMessage

from .wrapping import Marks, is_request, require_plain

RouteHandler = Callable[[Connection, HttpMessage], Any]
R = TypeVar("R", bound=RouteHandler)

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(:path)?\}|[?*#{}]")
# Stands for an encoded slash while a decoded path is matched: it separates nothing. No decoded text holds it.
_SLASH = "\udc2f"


class Router:
    """Gives each request to the first route that its method and path fit; an async handler::

        router = Router()

        @router.get("/users/{id}")
        async def user(conn, message):
            conn.reply(200, {"id": message.params["id"]})

        manager.listen("http://127.0.0.1:8000", router)

    A pattern is decoded text with parameters, which ``message.params`` has afterwards: ``{name}`` is one segment or a
    part of one, ``{name:path}`` whatever is left (it may hold ``..``). The wildcards of :func:`asyncmg.match` work too;
    what they stand for is ``params["1"]``, ``params["2"]`` and so on. A parameter that is there already, such as the
    user whom require_basic has let in, stays. An encoded slash belongs to its parameter.

    A path without a route is answered with 404, one whose routes have other methods with 405 and Allow, both before the
    content is read. GET routes serve HEAD as well; OPTIONS is answered unless it has a route of its own.

    Args:
        fallback: gets all other events, and requests whose path fits no route: ``handler(conn, ev, data)``, plain or
            async. The events of a WebSocket connection are among them: a route that upgrades one may use
            ``conn.set_handler`` instead.

    Raises:
        TypeError: the fallback is a session.
    """

    __slots__ = ("__weakref__", "_entries", "_fallback", "_literals", "_mounted", "_patterns", "_streaming")

    def __init__(self, fallback: Handler | None = None) -> None:
        if fallback is not None:
            require_plain(fallback)
        self._fallback = fallback
        self._entries = 0
        self._literals: dict[str, list[_Route]] = {}
        self._patterns: list[_Route] = []
        self._streaming = Marks()  # requests whose route has been called with the head
        self._mounted: WeakKeyDictionary[Connection, Handler] = WeakKeyDictionary()  # whose request is a mount's

    def route(self, pattern: str, methods: Collection[str] = ("GET",), *, stream: bool = False) -> Callable[[R], R]:
        """Register the decorated function, called as ``handler(conn, message)``, plain or async.

        Args:
            pattern: see :class:`Router`.
            methods: in capitals. HEAD is added to GET.
            stream: call it with the head (MG_EV_HTTP_HDRS), so that it can take the content by ``message.stream()``;
                otherwise it is called when the content is there.

        Raises:
            ValueError: the pattern or the methods cannot be read.
        """
        names = [methods] if isinstance(methods, str) else list(methods)
        if not names or any(name != name.upper() for name in names):
            raise ValueError(f"methods are named in capitals, unlike {names!r}")
        if "GET" in names and "HEAD" not in names:
            names.insert(names.index("GET") + 1, "HEAD")
        glob, parameters = _parse(pattern)

        def register(handler: R) -> R:
            if not callable(handler):
                raise TypeError(f"a route is a function, not {type(handler).__name__}")
            self._register(_Route(self._entries, pattern, glob, parameters, names, handler, stream))
            return handler

        return register

    def get(self, pattern: str, *, stream: bool = False) -> Callable[[R], R]:
        """Register for GET and HEAD; see :meth:`route`."""
        return self.route(pattern, ("GET",), stream=stream)

    def post(self, pattern: str, *, stream: bool = False) -> Callable[[R], R]:
        """Register for POST; see :meth:`route`."""
        return self.route(pattern, ("POST",), stream=stream)

    def put(self, pattern: str, *, stream: bool = False) -> Callable[[R], R]:
        """Register for PUT; see :meth:`route`."""
        return self.route(pattern, ("PUT",), stream=stream)

    def patch(self, pattern: str, *, stream: bool = False) -> Callable[[R], R]:
        """Register for PATCH; see :meth:`route`."""
        return self.route(pattern, ("PATCH",), stream=stream)

    def delete(self, pattern: str, *, stream: bool = False) -> Callable[[R], R]:
        """Register for DELETE; see :meth:`route`."""
        return self.route(pattern, ("DELETE",), stream=stream)

    def mount(self, prefix: str, handler: Handler) -> None:
        """Give a handler all requests below a path, whatever their methods.

        It is called as ``handler(conn, ev, data)``, plain or async, with every event of the connection from the
        MG_EV_HTTP_HDRS of its request on, until another request comes; so it can be anything that serves a listener
        alone. (MG_EV_ERROR and MG_EV_CLOSE go to the fallback as well.) The path of its requests stays whole.

        Args:
            prefix: decoded, such as ``"/static"``, which stands for itself and what begins with ``/static/``, also as
                ``//static``, ``/./static`` and with ``%2F``, because a handler may read them so; ``"/"``: for all.

        Raises:
            TypeError: the handler is a session.
            ValueError: the prefix does not begin with a slash.
        """
        require_plain(handler)
        if not prefix.startswith("/"):
            raise ValueError(f"a prefix begins with a slash, unlike {prefix!r}")
        self._register(_Route(self._entries, f"{_collapsed(prefix)}/", None, [], [], handler, True))

    def _register(self, route: _Route) -> None:
        self._entries += 1
        if route.glob is None or route.parameters:
            self._patterns.append(route)
        else:
            self._literals.setdefault(route.pattern, []).append(route)

    async def __call__(self, conn: Connection, ev: int, data: Any) -> None:
        """Take one event, as every handler does."""
        if is_request(ev, data):
            await self._serve(conn, ev, data)
            return
        mounted = self._mounted.get(conn) if self._mounted else None
        if mounted is not None:
            await _call(mounted, conn, ev, data)
        if self._fallback is not None and (mounted is None or ev in (MG_EV_ERROR, MG_EV_CLOSE)):
            await _call(self._fallback, conn, ev, data)

    async def _serve(self, conn: Connection, ev: int, message: HttpMessage) -> None:
        if self._mounted:
            self._mounted.pop(conn, None)
        route, allowed = self._find(message)
        if route is None:
            if self._fallback is not None and not allowed:
                await _call(self._fallback, conn, ev, message)
            else:
                _refuse(conn, message, allowed)
        elif route.glob is None:
            self._mounted[conn] = route.handler
            await _call(route.handler, conn, ev, message)
        elif ev != MG_EV_HTTP_HDRS:
            if not self._streaming.take(conn, ev, message):
                await _call(route.handler, conn, message)
        elif route.streams:
            self._streaming.note(conn, ev, message)
            await _call(route.handler, conn, message)

    def _find(self, message: HttpMessage) -> tuple[_Route | None, list[str]]:
        """Return the route of a request, with its parameters set; without one, the methods that have a route."""
        path = _decoded(message.uri)
        method = message.method
        allowed: dict[str, None] = {}
        for route in self._candidates(path):
            captures = route.captures(path)
            if captures is None:
                continue
            if route.methods and method not in route.methods:
                allowed.update(dict.fromkeys(route.methods))
                continue
            for name, value in zip(route.parameters, captures, strict=True):
                message.params.setdefault(name, value.replace(_SLASH, "/"))
            return route, []
        return None, list(allowed)

    def _candidates(self, path: str) -> Iterator[_Route]:
        """Yield the routes that the path may fit, in the order in which they were registered."""
        literals = self._literals.get(path, [])
        if not literals or not self._patterns:
            yield from literals or self._patterns
        else:
            yield from heapq.merge(literals, self._patterns, key=_number)


class _Route:
    """What serves a pattern; without a Glob and without methods: everything below a path (a mount)."""

    __slots__ = ("glob", "handler", "methods", "number", "parameters", "pattern", "streams")

    def __init__(
        self,
        number: int,
        pattern: str,
        glob: Glob | None,
        parameters: list[str],
        methods: list[str],
        handler: Callable[..., Any],
        streams: bool,
    ) -> None:
        self.number = number
        self.pattern = pattern
        self.glob = glob
        self.parameters = parameters
        self.methods = methods
        self.handler = handler
        self.streams = streams

    def captures(self, path: str) -> list[str] | None:
        if self.glob is not None:
            return self.glob.captures(path)
        return [] if f"{_collapsed(path)}/".startswith(self.pattern) else None


def _number(route: _Route) -> int:
    return route.number


def _parse(pattern: str) -> tuple[Glob, list[str]]:
    """Take a pattern apart; return it with the names of its parameters."""
    if pattern[:1] not in ("/", "*", "#"):
        raise ValueError(f"a pattern begins with a slash, unlike {pattern!r}")
    texts, signs, names = [], [], []
    position = unnamed = 0
    for found in _PARAMETER.finditer(pattern):
        if found[0] in "{}":
            raise ValueError(f"a parameter looks like {{name}} or {{name:path}}, unlike those of {pattern!r}")
        texts.append(pattern[position : found.start()])
        position = found.end()
        if found[1]:
            signs.append(Wildcard.ANY if found[2] else Wildcard.NAME)
            names.append(found[1])
        else:
            unnamed += 1
            signs.append(Wildcard(found[0]))
            names.append(str(unnamed))
    texts.append(pattern[position:])
    if len(set(names)) < len(names):
        raise ValueError(f"two parameters of {pattern!r} have one name")
    return Glob(texts[0], list(zip(signs, texts[1:], strict=True))), names


def _decoded(uri: str) -> str:
    """Decode a path segment by segment, so that an encoded slash does not end one."""
    if "%" not in uri:
        return uri
    segments = [unquote_to_bytes(segment).decode("utf-8", "surrogateescape") for segment in uri.split("/")]
    return "/".join([segment.replace("/", _SLASH) for segment in segments])


def _collapsed(path: str) -> str:
    """Read a path as the most generous reader does, without a slash at its end.

    What guards a mount must not be passed by on another way to the same file: ``//``, ``/./``, an encoded slash.
    """
    segments = path.replace(_SLASH, "/").split("/")
    return "".join([f"/{segment}" for segment in segments if segment not in ("", ".")])


def _refuse(conn: Connection, message: HttpMessage, allowed: list[str]) -> None:
    """Reply to a request that no route serves, or to OPTIONS."""
    if message.method == "OPTIONS" and (allowed or message.uri == "*"):
        conn.reply(204, b"", {"Allow": ", ".join([*allowed, "OPTIONS"])})
    elif allowed:
        also = [] if "OPTIONS" in allowed else ["OPTIONS"]
        conn.reply(405, "405 Method Not Allowed\n", {"Allow": ", ".join([*allowed, *also])})
    else:
        conn.reply(404, "404 Not Found\n")


async def _call(handler: Callable[..., Any], *args: Any) -> None:
    outcome = handler(*args)
    if inspect.isawaitable(outcome):
        await outcome
