"""What wrapped handlers have in common."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from asyncmg.codecs.http import Framing, ResponseHead
from asyncmg.dispatch import HandlerKind, handler_kind
from asyncmg.errors import ConnectionClosed
from asyncmg.events import MG_EV_HTTP_HDRS, MG_EV_HTTP_MSG, MG_EV_READ
from asyncmg.handlers.auth import require_basic
from asyncmg.handlers.compress import compress
from asyncmg.handlers.cors import cors
from asyncmg.handlers.wrapping import wrap
from asyncmg.messages import NO_CONTENT, HttpMessage

from .fakes import FakeConnection, call, give, request


class AsyncCallable:
    async def __call__(self, conn: Any, ev: int, data: Any) -> None: ...


async def takes_more(prefix: str, conn: Any, ev: int, data: Any) -> None: ...


def plain(conn: Any, ev: int, data: Any) -> None: ...


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (plain, HandlerKind.SYNC),
        (AsyncCallable(), HandlerKind.ASYNC),
        (functools.partial(takes_more, "x"), HandlerKind.ASYNC),
        (compress(plain), HandlerKind.SYNC),
        (compress(AsyncCallable()), HandlerKind.ASYNC),
    ],
)
def test_a_wrapper_is_what_its_handler_is(handler: Any, kind: HandlerKind) -> None:
    assert handler_kind(cors(handler, "*")) is kind


async def test_responses_that_a_client_gets_are_none_of_our_business() -> None:
    seen: list[int] = []
    handler = require_basic(lambda conn, ev, data: seen.append(ev), {})
    head = ResponseHead("GET", 200, "OK", "HTTP/1.1", [], Framing.NONE, 0, True)
    for ev in (MG_EV_HTTP_HDRS, MG_EV_HTTP_MSG):
        await call(handler, FakeConnection(), ev, HttpMessage(head, NO_CONTENT))
    assert seen == [MG_EV_HTTP_HDRS, MG_EV_HTTP_MSG]


async def test_a_request_whose_connection_has_gone_still_reaches_its_handler() -> None:
    seen: list[int] = []

    class Gone(FakeConnection):
        def add_reply_filter(self, reply_filter: Any) -> None:
            raise ConnectionClosed("Connection has been closed")

    await give(compress(lambda conn, ev, data: seen.append(ev)), Gone(), request())
    assert seen == [MG_EV_HTTP_HDRS, MG_EV_HTTP_MSG]


async def test_only_a_plain_yes_goes_on() -> None:
    seen: list[int] = []
    answers: dict[int, Any] = {MG_EV_HTTP_HDRS: "yes", MG_EV_HTTP_MSG: True}
    handler = wrap(lambda conn, ev, data: seen.append(ev), lambda conn, ev, message: answers[ev])
    await give(handler, FakeConnection(), request())
    await call(handler, FakeConnection(), MG_EV_READ, 1)
    assert seen == [MG_EV_HTTP_MSG, MG_EV_READ]
