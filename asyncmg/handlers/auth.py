"""Authentication: Basic (RFC 7617) and bearer tokens (RFC 6750)."""

from __future__ import annotations

import base64
import hmac
import inspect
import re
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from asyncmg.codecs.http import reason_phrase
from asyncmg.connection import Connection, Handler
from asyncmg.dispatch import HandlerKind, handler_kind
from asyncmg.messages import HttpMessage

from .wrapping import Marks, require_plain, wrap

#: What a check tells: whether the request may go on, or the name of its user (and it may).
Verdict = bool | str | None
PasswordCheck = Callable[[str, str], Verdict | Awaitable[Verdict]]
TokenCheck = Callable[[str], Verdict | Awaitable[Verdict]]

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]++=*+")  # RFC 6750 section 2.1
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def same_secret(given: str, expected: str) -> bool:
    """Compare two secrets; how long it takes depends on the length of the given one only, not on where they differ."""
    return hmac.compare_digest(_bytes(expected), _bytes(given))


def basic_credentials(message: HttpMessage) -> tuple[str, str] | None:
    """Return user and password of ``Authorization: Basic`` (RFC 7617 section 2), as UTF-8; None: there are none.

    Bytes that are not UTF-8 become surrogates. Malformed credentials count as none.
    """
    scheme, rest = _split(message)
    try:
        decoded = base64.b64decode(rest if scheme == "basic" else "", validate=True)
    except ValueError:  # binascii.Error is one
        return None
    user, colon, password = decoded.decode("utf-8", "surrogateescape").partition(":")
    return (user, password) if colon and not _CONTROL.search(user + password) else None


def bearer_token(message: HttpMessage) -> str | None:
    """Return the token of ``Authorization: Bearer`` (RFC 6750 section 2.1); None: there is none, or it is malformed."""
    scheme, token = _split(message)
    return token if scheme == "bearer" and _TOKEN.fullmatch(token) else None


def require_basic(handler: Handler, users: Mapping[str, str] | PasswordCheck, realm: str = "asyncmg") -> Handler:
    """Let only requests with the right user and password through to a handler; others are answered with 401.

    The check is made with the head, before the content is read: a refused request's content reaches nobody. The user's
    name is in ``message.params["user"]`` afterwards. Passwords cross the network readable: use TLS.

    Args:
        handler: plain or async, ``handler(conn, ev, data)``.
        users: passwords by user name, looked at anew for each request; or ``check(user, password)``, plain or async:
            true when they are right. With an async check the new handler is async.
        realm: what the browser shows to its user; printable ASCII.

    Returns:
        a handler.

    Raises:
        TypeError: the handler is a session, or ``users`` is something else.
        ValueError: of the realm.
    """
    challenge = f'Basic realm={_quoted(realm)}, charset="UTF-8"'

    def refuse(conn: Connection, message: HttpMessage) -> None:
        _reply(conn, 401, challenge)

    check = _check_of_users(users) if isinstance(users, Mapping) else users
    return _guard(handler, basic_credentials, check, refuse)


def require_bearer(handler: Handler, tokens: Collection[str] | TokenCheck, realm: str = "asyncmg") -> Handler:
    """Let only requests with a right bearer token through to a handler (RFC 6750); see :func:`require_basic`.

    Refused are: no token, 401; another token, 401 with ``invalid_token``; a malformed one, 400 with
    ``invalid_request``.

    Args:
        handler: plain or async, ``handler(conn, ev, data)``.
        tokens: the right ones, looked at anew for each request and all of them: for more than a few hundred give a
            check. Of a mapping from tokens to users, the user is in ``message.params["user"]``. Or ``check(token)``,
            plain or async: true, or the user's name, when it is right.
        realm: printable ASCII.

    Returns:
        a handler.

    Raises:
        TypeError: the handler is a session, or ``tokens`` is something else, such as one str.
        ValueError: of the realm.
    """
    challenge = f"Bearer realm={_quoted(realm)}"

    def read(message: HttpMessage) -> tuple[str] | None:
        token = bearer_token(message)
        return None if token is None else (token,)

    def refuse(conn: Connection, message: HttpMessage) -> None:
        if read(message):
            _reply(conn, 401, f'{challenge}, error="invalid_token"')
        elif _split(message)[0] == "bearer":
            _reply(conn, 400, f'{challenge}, error="invalid_request"')
        else:
            _reply(conn, 401, challenge)  # RFC 6750 section 3.1: no error code where there are no credentials

    check = _check_of_tokens(tokens) if isinstance(tokens, Collection) and not isinstance(tokens, str) else tokens
    return _guard(handler, read, check, refuse)


def _guard(
    handler: Handler,
    read: Callable[[HttpMessage], tuple[str, ...] | None],
    check: Any,
    refuse: Callable[[Connection, HttpMessage], None],
) -> Handler:
    """Make a handler that lets a request through once ``check`` has said yes to what ``read`` finds in it."""
    if not callable(check):
        raise TypeError(f"a collection of secrets or a check is needed, not {type(check).__name__}")
    is_async = require_plain(handler) or handler_kind(check) is not HandlerKind.SYNC
    admitted = Marks()

    def admit(conn: Connection, ev: int, message: HttpMessage, user: str, verdict: Verdict) -> bool:
        if not verdict:
            refuse(conn, message)
            return False
        if isinstance(verdict, str):
            user = verdict
        if user:
            message.params["user"] = user
        admitted.note(conn, ev, message)
        return True

    async def admit_later(
        conn: Connection, ev: int, message: HttpMessage, user: str, verdict: Awaitable[Verdict]
    ) -> bool:
        return admit(conn, ev, message, user, await verdict)

    def look(conn: Connection, ev: int, message: HttpMessage) -> bool | Awaitable[bool]:
        if admitted.take(conn, ev, message):
            return True
        credentials = read(message)
        if credentials is None:
            return admit(conn, ev, message, "", False)
        user = credentials[0] if len(credentials) == 2 else ""  # a token names nobody
        verdict = check(*credentials)
        if not inspect.isawaitable(verdict):
            return admit(conn, ev, message, user, verdict)
        if not is_async:
            if inspect.iscoroutine(verdict):
                verdict.close()
            raise TypeError("a plain handler cannot await a check: declare one of them with async def")
        return admit_later(conn, ev, message, user, verdict)

    return wrap(handler, look, is_async=is_async)


def _check_of_users(users: Mapping[str, str]) -> PasswordCheck:
    nobody = secrets.token_hex(16)

    def check(user: str, password: str) -> bool:
        expected = users.get(user)
        # The same work for a user that does not exist: how long it takes must not tell who does.
        is_right = same_secret(password, nobody if expected is None else expected)
        return is_right and expected is not None

    return check


def _check_of_tokens(tokens: Collection[str]) -> TokenCheck:
    def check(token: str) -> Verdict:
        found: list[str] = []
        for expected in tokens:  # to the end, whichever it is
            if same_secret(token, expected):
                found.append(expected)
        if not found or not isinstance(tokens, Mapping):
            return bool(found)
        return str(tokens[found[0]]) or True

    return check


def _split(message: HttpMessage) -> tuple[str, str]:
    """Split Authorization into the scheme, in lower case, and what follows it (RFC 9110 section 11.4)."""
    scheme, _, rest = (message.header("Authorization") or "").partition(" ")
    return scheme.lower(), rest.strip(" ")


def _reply(conn: Connection, status: int, challenge: str) -> None:
    conn.reply(status, f"{status} {reason_phrase(status)}\n", {"WWW-Authenticate": challenge})


def _quoted(realm: str) -> str:
    """Write a quoted-string (RFC 9110 section 5.6.4)."""
    if not realm.isascii() or not realm.isprintable():
        raise ValueError(f"a realm is printable ASCII, not {realm!r}")
    return '"' + realm.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
