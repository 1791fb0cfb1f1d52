"""Router: which handler gets what."""

from __future__ import annotations

from typing import Any

import pytest

from asyncmg.events import MG_EV_CLOSE, MG_EV_HTTP_HDRS, MG_EV_HTTP_MSG, MG_EV_READ, MG_EV_WS_MSG
from asyncmg.handlers.router import Router

from .fakes import FakeConnection, call, give, request


def router_of(*patterns: str) -> Router:
    """A router whose routes reply with the pattern and the parameters."""
    router = Router()
    for pattern in patterns:

        @router.get(pattern)
        def answer(conn: Any, message: Any, pattern: str = pattern) -> None:
            conn.reply(200, f"{pattern} {message.params}")

    return router


async def answer_to(router: Any, target: str, method: str = "GET") -> str:
    draft = await give(router, FakeConnection(), request(target, method))
    assert draft is not None
    return draft.body.decode() if draft.status == 200 else str(draft.status)


@pytest.mark.parametrize(
    ("pattern", "target", "params"),
    [
        ("/", "/", {}),
        ("/a b", "/a%20b?c=d", {}),
        ("/users/{id}", "/users/7", {"id": "7"}),
        ("/users/{id}", "/%75sers/a%2Fb%20c", {"id": "a/b c"}),
        ("/users/{id}", "/users/%252F", {"id": "%2F"}),
        ("/users/{id}", "/users/%C3%A4%FF", {"id": "ä\udcff"}),
        ("/users/{id}/posts/{post}", "/users/7/posts/8", {"id": "7", "post": "8"}),
        ("/{name}.json", "/a.b.json", {"name": "a.b"}),
        ("/files/{rest:path}", "/files/a/b%2Fc", {"rest": "a/b/c"}),
        ("/files/{rest:path}", "/files/", {"rest": ""}),
        ("/{rest:path}/edit", "/a/edit/edit", {"rest": "a/edit"}),
        ("/v?/*/#", "/v1/b/c/d", {"1": "1", "2": "b", "3": "c/d"}),
        ("/*/{id}", "/a/b", {"1": "a", "id": "b"}),
        ("#", "/any/thing", {"1": "/any/thing"}),
    ],
)
async def test_patterns(pattern: str, target: str, params: dict[str, str]) -> None:
    conn, seen = FakeConnection(), []
    router = Router()

    @router.get(pattern)
    def route(conn: Any, message: Any) -> None:
        seen.append(message.params)
        conn.reply(200, "")

    await give(router, conn, request(target))
    assert seen == [params]


@pytest.mark.parametrize(
    ("pattern", "target"),
    [
        ("/a/b", "/a%2Fb"),
        ("/users/{id}", "/users/"),
        ("/users/{id}", "/users/7/"),
        ("/users/{id}", "/users/7/posts"),
        ("/users/{id}", "/Users/7"),
        ("/a/*", "/a/b/c"),
        ("/a", "/a/"),
        ("/a", "//a"),
    ],
)
async def test_no_route(pattern: str, target: str) -> None:
    assert await answer_to(router_of(pattern), target) == "404"


@pytest.mark.parametrize("pattern", ["", "users", "{id}", "/{", "/}", "/{}", "/{1}", "/{a b}", "/{a:int}", "/{a}/{a}"])
def test_patterns_that_cannot_be_read(pattern: str) -> None:
    with pytest.raises(ValueError):
        Router().get(pattern)


async def test_the_first_one_wins() -> None:
    router = router_of("/users/{id}", "/users/me", "/me", "/{any}", "/them")
    assert await answer_to(router, "/users/me") == "/users/{id} {'id': 'me'}"
    assert await answer_to(router, "/me") == "/me {}"
    assert await answer_to(router, "/them") == "/{any} {'any': 'them'}"


async def test_methods() -> None:
    router = Router()
    seen: list[tuple[str, str]] = []

    def note(name: str) -> Any:
        async def handler(conn: Any, message: Any) -> None:
            seen.append((name, message.method))
            conn.reply(200, name)

        return handler

    for register in (router.get, router.post, router.put, router.patch, router.delete):
        register("/x")(note(register.__name__))
    router.route("/y", ("PROPFIND", "OPTIONS"))(note("dav"))
    router.get("/{z}")(note("other"))
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        assert await answer_to(router, "/x", method) == ("get" if method == "HEAD" else method.lower())
    assert await answer_to(router, "/y", "OPTIONS") == "dav"
    assert await answer_to(router, "/y") == "other", "a path may have routes of its own and fit others"

    draft = await give(router, FakeConnection(), request("/x", "TRACE"))
    assert draft is not None and draft.status == 405
    assert draft.header("Allow") == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    draft = await give(router, FakeConnection(), request("/x", "OPTIONS"))
    assert draft is not None and (draft.status, draft.body) == (204, b"")
    assert draft.header("Allow") == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    draft = await give(router, FakeConnection(), request("/y", "DELETE"))
    assert draft is not None and draft.header("Allow") == "PROPFIND, OPTIONS, GET, HEAD"
    assert await answer_to(router, "/none/here", "OPTIONS") == "404"
    assert await answer_to(router, "*", "OPTIONS") == "204"


async def test_when_routes_are_called() -> None:
    conn, seen = FakeConnection(), []
    router = Router()

    @router.post("/whole")
    def whole(conn: Any, message: Any) -> None:
        seen.append("whole")

    @router.post("/stream/{name}", stream=True)
    async def stream(conn: Any, message: Any) -> None:
        seen.append(f"stream {message.params['name']}")

    message = request("/whole", "POST")
    await call(router, conn, MG_EV_HTTP_HDRS, message)
    assert seen == []
    await call(router, conn, MG_EV_HTTP_MSG, message)
    assert seen == ["whole"]

    message = request("/stream/a", "POST")
    await call(router, conn, MG_EV_HTTP_HDRS, message)
    assert seen == ["whole", "stream a"]
    await call(router, conn, MG_EV_HTTP_MSG, message)
    assert seen == ["whole", "stream a"], "once is enough"
    await call(router, conn, MG_EV_HTTP_MSG, request("/stream/b", "POST"))
    assert seen == ["whole", "stream a", "stream b"], "whoever is asked for MG_EV_HTTP_MSG only gets it as well"


async def test_what_no_route_fits_is_refused_before_its_content() -> None:
    for target, status in (("/no", 404), ("/yes", 405)):
        conn = FakeConnection()
        conn.message = message = request(target, "POST")
        await call(router_of("/yes"), conn, MG_EV_HTTP_HDRS, message)
        assert [draft.status for draft in conn.replies] == [status]


async def test_fallback_gets_everything_else() -> None:
    seen: list[tuple[int, Any]] = []

    def fallback(conn: Any, ev: int, data: Any) -> None:
        seen.append((ev, getattr(data, "uri", data)))

    async def fallback_async(conn: Any, ev: int, data: Any) -> None:
        fallback(conn, ev, data)

    for handler in (fallback, fallback_async):
        seen.clear()
        router = Router(handler)
        router.get("/mine")(lambda conn, message: conn.reply(200, "mine"))
        conn = FakeConnection()
        await give(router, conn, request("/mine"))
        await give(router, conn, request("/mine", "POST"))
        await give(router, conn, request("/yours"))
        await call(router, conn, MG_EV_READ, 5)
        assert seen == [(MG_EV_HTTP_HDRS, "/yours"), (MG_EV_HTTP_MSG, "/yours"), (MG_EV_READ, 5)]
        assert [draft.status for draft in conn.replies] == [200, 405]


@pytest.mark.parametrize("prefix", ["/app", "/app/"])
async def test_mount(prefix: str) -> None:
    seen: list[tuple[str, int]] = []

    def fallback(conn: Any, ev: int, data: Any) -> None:
        seen.append(("fallback", ev))

    async def app(conn: Any, ev: int, data: Any) -> None:
        seen.append(("app", ev))

    router = Router(fallback)
    router.get("/app/mine")(lambda conn, message: conn.reply(200, "mine"))
    router.mount(prefix, app)
    router.get("/app/late")(lambda conn, message: conn.reply(200, "late"))
    conn = FakeConnection()
    for target in ("/app", "/app/", "/app/late", "/%61pp/x?y"):
        seen.clear()
        await give(router, conn, request(target))
        assert seen == [("app", MG_EV_HTTP_HDRS), ("app", MG_EV_HTTP_MSG)], target
    seen.clear()
    await call(router, conn, MG_EV_WS_MSG, None)
    assert seen == [("app", MG_EV_WS_MSG)]
    await call(router, conn, MG_EV_CLOSE, None)
    assert seen[1:] == [("app", MG_EV_CLOSE), ("fallback", MG_EV_CLOSE)]
    seen.clear()
    assert await give(router, conn, request("/app/mine")) is not None
    await call(router, conn, MG_EV_READ, 1)
    assert seen == [("fallback", MG_EV_READ)]
    for target in ("/app%2Fx", "//app/x", "/./app", "/%2e//app//x"):
        seen.clear()
        await give(router, conn, request(target))
        assert {name for name, _ in seen} == {"app"}, f"{target} must not go round what guards a mount"
    for target in ("/application", "/", "/x/app"):
        seen.clear()
        await give(router, conn, request(target))
        assert {name for name, _ in seen} == {"fallback"}, target
    await give(router, conn, request("/app/mine", "POST"))
    assert seen[-1] == ("app", MG_EV_HTTP_MSG), "a mount takes every method"


async def test_routers_in_routers_and_what_is_there_already() -> None:
    inner = router_of("/api/{user}")
    outer = Router()
    outer.mount("/", inner)
    assert await answer_to(outer, "/api/x") == "/api/{user} {'user': 'x'}"
    message = request("/api/x")
    message.params["user"] = "admitted"
    draft = await give(outer, FakeConnection(), message)
    assert draft is not None and draft.body == b"/api/{user} {'user': 'admitted'}"


def test_what_cannot_be_registered() -> None:
    async def session(conn: Any) -> None: ...

    with pytest.raises(TypeError):
        Router(session)
    with pytest.raises(TypeError):
        Router().mount("/", session)
    with pytest.raises(ValueError):
        Router().mount("app", lambda conn, ev, data: None)
    for methods in ((), ("get",), "post"):
        with pytest.raises(ValueError, match="methods"):
            Router().route("/", methods)
    with pytest.raises(TypeError):
        Router().get("/")("no function")  # type: ignore[type-var]


async def test_one_method_as_a_str() -> None:
    router = Router()
    router.route("/", "POST")(lambda conn, message: conn.reply(200, "posted"))
    assert await answer_to(router, "/", "POST") == "posted"
