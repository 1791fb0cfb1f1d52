"""Basic and bearer authentication."""

from __future__ import annotations

import base64
import hmac
from typing import Any

import pytest

from asyncmg.dispatch import HandlerKind, handler_kind
from asyncmg.events import MG_EV_CLOSE, MG_EV_HTTP_HDRS, MG_EV_HTTP_MSG, MG_EV_READ
from asyncmg.handlers.auth import basic_credentials, bearer_token, require_basic, require_bearer, same_secret

from .fakes import FakeConnection, call, give, request


def basic(credentials: str | bytes) -> tuple[str, str]:
    raw = credentials.encode() if isinstance(credentials, str) else credentials
    return "Authorization", f"Basic {base64.b64encode(raw).decode()}"


@pytest.mark.parametrize(
    ("value", "credentials"),
    [
        ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", ("Aladdin", "open sesame")),  # RFC 7617 section 2
        ("Basic dGVzdDoxMjPCow==", ("test", "123£")),  # RFC 7617 section 2.1
        ("bAsIc   YTpiOmM=", ("a", "b:c")),
        ("Basic Og==", ("", "")),
        ("Basic YTr/", ("a", "\udcff")),
        ("Basic YQ==", None),  # no colon
        ("Basic YTpi!", None),
        ("Basic YTp", None),  # padding is missing
        ("Basic YTpi\nYTpi", None),
        ("Basic YTpiCg==", None),  # a line feed in the password
        ("Basic AGE6Yg==", None),  # NUL in the name
        ("Basic ä", None),
        ("Basic", None),
        ("BasicYTpi", None),
        ("Bearer YTpi", None),
        ("", None),
    ],
)
def test_basic_credentials(value: str, credentials: tuple[str, str] | None) -> None:
    assert basic_credentials(request("/", "GET", ("authorization", value))) == credentials


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("Bearer mF_9.B5f-4.1JqM", "mF_9.B5f-4.1JqM"),  # RFC 6750 section 2.1
        ("bearer  a~+/b== ", "a~+/b=="),
        ("Bearer a=b", None),
        ("Bearer a b", None),
        ("Bearer =", None),
        ("Bearer", None),
        ("Basic YTpi", None),
    ],
)
def test_bearer_token(value: str, token: str | None) -> None:
    assert bearer_token(request("/", "GET", ("Authorization", value))) == token


def test_no_authorization() -> None:
    assert basic_credentials(request()) is None
    assert bearer_token(request()) is None


def test_same_secret() -> None:
    assert same_secret("a£\udcff", "a£\udcff")
    assert not same_secret("a", "b")
    assert not same_secret("a", "ab")
    assert not same_secret("", "a")


class Seen:
    """A handler, plain or async, that replies with the user."""

    def __init__(self, is_async: bool) -> None:
        self.events: list[int] = []
        self.handler: Any = self.later if is_async else self.take

    def take(self, conn: Any, ev: int, data: Any) -> None:
        self.events.append(ev)
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, data.params.get("user", "nobody"))

    async def later(self, conn: Any, ev: int, data: Any) -> None:
        self.take(conn, ev, data)


@pytest.mark.parametrize("is_async", [False, True])
async def test_require_basic(is_async: bool) -> None:
    seen = Seen(is_async)
    users = {"me": "secret", "grüß": "Gott"}
    handler = require_basic(seen.handler, users, 'the "realm"\\')
    assert handler_kind(handler) is (HandlerKind.ASYNC if is_async else HandlerKind.SYNC)
    conn = FakeConnection()
    for fields in [
        [],
        [basic("me:wrong")],
        [basic("me:")],
        [basic("you:secret")],
        [("Authorization", "Bearer secret")],
    ]:
        draft = await give(handler, conn, request("/", "POST", *fields, body=b"mine"))
        assert draft is not None and draft.status == 401
        assert draft.header("WWW-Authenticate") == 'Basic realm="the \\"realm\\"\\\\", charset="UTF-8"'
        assert seen.events == []
    for name, password in users.items():
        draft = await give(handler, conn, request("/", "GET", basic(f"{name}:{password}")))
        assert draft is not None and (draft.status, draft.body.decode()) == (200, name)
    assert seen.events == [MG_EV_HTTP_HDRS, MG_EV_HTTP_MSG] * 2
    users["you"] = "new"
    assert (draft := await give(handler, conn, request("/", "GET", basic("you:new")))) and draft.status == 200
    for ev in (MG_EV_READ, MG_EV_CLOSE):
        await call(handler, conn, ev, 1)
        assert seen.events[-1] == ev


async def test_whoever_was_not_admitted_with_the_head_is_checked_with_the_message() -> None:
    seen = Seen(False)
    handler = require_basic(seen.handler, {"me": "secret"})
    conn = FakeConnection()
    good, bad = request("/", "GET", basic("me:secret")), request("/", "GET", basic("me:no"))
    conn.message = good
    await call(handler, conn, MG_EV_HTTP_MSG, good)
    conn.message = bad
    await call(handler, conn, MG_EV_HTTP_MSG, bad)
    assert [draft.status for draft in conn.replies] == [200, 401]
    # The admission of one request is none of another's, and is used up.
    await call(handler, conn, MG_EV_HTTP_HDRS, good)
    await call(handler, conn, MG_EV_HTTP_MSG, bad)
    await call(handler, FakeConnection(), MG_EV_READ, 1)
    assert [draft.status for draft in conn.replies] == [200, 401, 401]
    assert seen.events == [MG_EV_HTTP_MSG, MG_EV_HTTP_HDRS, MG_EV_READ]


@pytest.mark.parametrize("is_async", [False, True])
async def test_checks_of_the_user(is_async: bool) -> None:
    calls: list[tuple[str, str]] = []

    def check(user: str, password: str) -> Any:
        calls.append((user, password))
        return {"right": True, "named": "somebody", "wrong": False}.get(password)

    async def check_async(user: str, password: str) -> Any:
        return check(user, password)

    for handler in (
        require_basic(Seen(is_async).handler, check),
        require_basic(Seen(is_async).handler, check_async),
    ):
        calls.clear()
        answers = []
        for password in ("right", "named", "wrong", "unknown"):
            draft = await give(handler, FakeConnection(), request("/", "GET", basic(f"me:{password}")))
            assert draft is not None
            answers.append(draft.body.decode() if draft.status == 200 else draft.status)
        assert answers == ["me", "somebody", 401, 401]
        assert calls == [("me", password) for password in ("right", "named", "wrong", "unknown")], "once a request"
    assert handler_kind(require_basic(Seen(False).handler, check_async)) is HandlerKind.ASYNC


def test_a_check_that_is_not_awaited_is_no_yes() -> None:
    async def check(token: str) -> bool:
        return False

    seen = Seen(False)
    handler = require_bearer(seen.handler, lambda token: check(token))
    with pytest.raises(TypeError, match="async def"):
        handler(FakeConnection(), MG_EV_HTTP_HDRS, request("/", "GET", ("Authorization", "Bearer x")))
    assert seen.events == []


async def test_a_check_that_raises_admits_nobody() -> None:
    def check(token: str) -> bool:
        raise OSError("no database")

    seen = Seen(True)
    handler = require_bearer(seen.handler, check)
    with pytest.raises(OSError, match="no database"):
        await give(handler, FakeConnection(), request("/", "GET", ("Authorization", "Bearer x")))
    assert seen.events == []


@pytest.mark.parametrize(
    ("value", "status", "challenge"),
    [
        (None, 401, 'Bearer realm="asyncmg"'),
        ("Basic YTpi", 401, 'Bearer realm="asyncmg"'),
        ("Bearer other", 401, 'Bearer realm="asyncmg", error="invalid_token"'),
        ("Bearer", 400, 'Bearer realm="asyncmg", error="invalid_request"'),
        ("Bearer a b", 400, 'Bearer realm="asyncmg", error="invalid_request"'),
        ("Bearer good", 200, None),
        ("Bearer better", 200, None),
    ],
)
async def test_require_bearer(value: str | None, status: int, challenge: str | None) -> None:
    handler = require_bearer(Seen(False).handler, ["good", "better"])
    fields = [] if value is None else [("Authorization", value)]
    draft = await give(handler, FakeConnection(), request("/", "GET", *fields))
    assert draft is not None
    assert (draft.status, draft.header("WWW-Authenticate")) == (status, challenge)


async def test_users_of_tokens() -> None:
    for tokens, user in [({"good": "me"}, b"me"), ({"good"}, b"nobody"), (lambda token: "fn", b"fn")]:
        handler = require_bearer(Seen(False).handler, tokens)
        draft = await give(handler, FakeConnection(), request("/", "GET", ("Authorization", "Bearer good")))
        assert draft is not None and draft.body == user


async def test_the_work_does_not_depend_on_who_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    plain = hmac.compare_digest

    def compare(expected: bytes, given: bytes) -> bool:
        compared.append(len(given))
        return plain(expected, given)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    handler = require_basic(Seen(False).handler, {"me": "secret"})
    for user in ("me", "you"):
        await give(handler, FakeConnection(), request("/", "GET", basic(f"{user}:12345")))
    assert compared == [5, 5]
    compared.clear()
    handler = require_bearer(Seen(False).handler, ["12345", "abc", "12345"])
    for token in ("12345", "wrong"):
        await give(handler, FakeConnection(), request("/", "GET", ("Authorization", f"Bearer {token}")))
    assert compared == [5] * 6


def test_what_cannot_be_made() -> None:
    async def session(conn: Any) -> None: ...

    with pytest.raises(TypeError):
        require_basic(session, {})
    with pytest.raises(TypeError):
        require_basic(None, {})  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        require_basic(Seen(False).handler, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        require_bearer(Seen(False).handler, "secret")  # a str is a collection too, of its characters
    for realm in ("a\r\nb", "ä", "\0"):
        with pytest.raises(ValueError):
            require_basic(Seen(False).handler, {}, realm)
