"""A connection that remembers what was replied, and requests made of nothing."""

from __future__ import annotations

import inspect
from typing import Any

from asyncmg.codecs.http import Framing, RequestHead, header_pairs
from asyncmg.events import MG_EV_HTTP_HDRS, MG_EV_HTTP_MSG
from asyncmg.messages import NO_CONTENT, HttpMessage
from asyncmg.protocols.http_filters import ReplyDraft, ReplyFilter


def request(
    target: str = "/", method: str = "GET", *fields: tuple[str, str], body: bytes = b"", proto: str = "HTTP/1.1"
) -> HttpMessage:
    raw = [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in fields]
    message = HttpMessage(RequestHead(method, target, proto, raw, Framing.NONE, 0, True, False, ""), NO_CONTENT)
    message.body_bytes = body
    return message


class FakeConnection:
    """Has what handlers need; replies go through the filters as on a real one."""

    def __init__(self) -> None:
        self.id = 7
        self.is_client = False
        self.remote_addr = None
        self.protocol = None
        self.replies: list[ReplyDraft] = []
        self.filters: list[ReplyFilter] = []
        self.message: HttpMessage | None = None

    def add_reply_filter(self, reply_filter: ReplyFilter) -> None:
        if reply_filter not in self.filters:
            self.filters.append(reply_filter)

    def reply(self, status: int, body: Any = b"", headers: Any = None) -> None:
        data = body if isinstance(body, bytes) else str(body).encode()
        draft = ReplyDraft(status, [(name, str(value)) for name, value in header_pairs(headers)], data)
        if data and draft.header("Content-Type") is None:
            draft.set_header("Content-Type", "text/plain; charset=utf-8")
        self.send_draft(draft)

    def send_draft(self, draft: ReplyDraft) -> ReplyDraft:
        filters, self.filters = self.filters, []
        assert self.message is not None
        for reply_filter in reversed(filters):
            reply_filter.begin_reply(self.message, draft)
        self.replies.append(draft)
        for reply_filter in reversed(filters):
            reply_filter.end_reply(self.message, draft.status, len(draft.body), True)
        return draft


async def call(handler: Any, conn: FakeConnection, ev: int, data: Any) -> None:
    outcome = handler(conn, ev, data)
    if inspect.isawaitable(outcome):
        await outcome


async def give(handler: Any, conn: FakeConnection, message: HttpMessage) -> ReplyDraft | None:
    """Give a handler a request as a connection does: MG_EV_HTTP_MSG only while there is no reply."""
    conn.message = message
    conn.filters = []
    before = len(conn.replies)
    for ev in (MG_EV_HTTP_HDRS, MG_EV_HTTP_MSG):
        if len(conn.replies) == before:
            await call(handler, conn, ev, message)
    return conn.replies[-1] if len(conn.replies) > before else None
