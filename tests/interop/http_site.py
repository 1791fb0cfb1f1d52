"""A server for real HTTP clients, in the process of the test: it notes what they ask, so that tests can look."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from asyncmg import (
    MG_EV_HTTP_HDRS,
    Connection,
    Cookie,
    Form,
    HttpMessage,
    Limits,
    Manager,
    Router,
    StaticFiles,
    UploadedFile,
    compress,
    require_basic,
)

TEXT = "".join(f"line {number}: the quick brown fox\n" for number in range(3000))
PIECES = [b"%06d " % number * 500 for number in range(2000)]  # 7 MB
LINES = [{"number": number, "text": "grüße\n"} for number in range(500)]


class Site:
    """A server that is running.

    Attributes:
        url: without a slash at its end.
        seen: every request whose head has come, in order.
    """

    def __init__(self, url: str, seen: list[HttpMessage]) -> None:
        self.url = url
        self.seen = seen

    def sent(self, name: str) -> list[str | None]:
        """Return the values of a header field, of one request after the other."""
        return [message.header(name) for message in self.seen]


@asynccontextmanager
async def serving(handler: Any, backend: str, *, limits: Limits | None = None) -> AsyncIterator[Site]:
    """Run a server; at the end no handler may have raised.

    Args:
        handler: ``async def handler(conn, ev, data)``.
        backend: that the environment asks for, and that has to be the one.
        limits: default: the default ones.
    """
    errors: list[Exception] = []
    seen: list[HttpMessage] = []

    async def noted(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_HDRS:
            seen.append(data)
        await handler(conn, ev, data)

    async with Manager(noted, error_handler=errors.append, limits=limits or Limits()) as manager:
        listener = manager.listen("http://127.0.0.1:0")
        assert manager.backend == backend
        yield Site(f"http://127.0.0.1:{listener.port}", seen)
        await manager.shutdown(1)
    assert errors == []


def described(form: Form) -> dict[str, list[Any]]:
    """Tell what came in a form: the text of fields; file name, type, size and digest of files."""
    told: dict[str, list[Any]] = {}
    for name, value in form.pairs:
        if isinstance(value, UploadedFile):
            digest = hashlib.sha256(value.read()).hexdigest()
            told.setdefault(name, []).append([value.filename, value.content_type, value.size, digest])
        else:
            told.setdefault(name, []).append(value)
    return told


def site(root: Path) -> Any:
    """Return the handler of a site that has a bit of everything. Files are those below ``root``."""
    router = Router()
    router.mount("/files", StaticFiles(root, prefix="/files", listing=True))

    @router.get("/text")
    def text(conn: Connection, message: HttpMessage) -> None:
        conn.reply(200, TEXT, {"ETag": '"text"'})

    @router.get("/stream")
    def stream(conn: Connection, message: HttpMessage) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for piece in PIECES:
                yield piece

        conn.reply(200, pieces(), {"Content-Type": "application/octet-stream"})

    @router.get("/lines")
    async def lines(conn: Connection, message: HttpMessage) -> None:
        conn.reply_stream("application/x-ndjson")
        for line in LINES:
            conn.http_ndjson(line)
            await conn.flush()
        conn.http_end({"X-Count": len(LINES)})

    @router.route("/echo", ("GET", "POST", "PUT"))
    def echo(conn: Connection, message: HttpMessage) -> None:
        conn.reply(200, {"method": message.method, "query": message.query, "body": message.body_text})

    @router.put("/upload/{name}", stream=True)
    async def upload(conn: Connection, message: HttpMessage) -> None:
        digest, size = hashlib.sha256(), 0
        async for piece in message.stream():
            digest.update(piece)
            size += len(piece)
        conn.reply(201, {"name": message.params["name"], "size": size, "sha256": digest.hexdigest()})

    @router.post("/form")
    def whole_form(conn: Connection, message: HttpMessage) -> None:
        with message.form() as form:
            conn.reply(200, described(form))

    @router.post("/form-stream", stream=True)
    async def streamed_form(conn: Connection, message: HttpMessage) -> None:
        with await message.read_form() as form:
            conn.reply(200, described(form))

    _add_cookies_and_redirects(router)
    guarded = Router()

    @guarded.get("/private")
    def private(conn: Connection, message: HttpMessage) -> None:
        conn.reply(200, f"hello {message.params['user']}\n")

    router.mount("/private", require_basic(guarded, {"ännchen": "geheim: ü"}))
    return compress(router)


def _add_cookies_and_redirects(router: Router) -> None:
    @router.get("/cookies/set")
    def set_cookies(conn: Connection, message: HttpMessage) -> None:
        conn.reply(
            200,
            "set\n",
            cookies={
                "plain": "1",
                "long": Cookie("2", max_age=3600, http_only=True, same_site="Strict"),
                "deep": Cookie("3", path="/cookies/deep", max_age=3600),
                "safe": Cookie("4", secure=True, max_age=3600),
                "other": Cookie("5", domain="example.com"),
            },
        )

    @router.get("/cookies/delete")
    def delete_cookies(conn: Connection, message: HttpMessage) -> None:
        conn.reply(200, "deleted\n", cookies={"plain": None, "long": None})

    @router.get("/cookies/{where:path}")
    def show_cookies(conn: Connection, message: HttpMessage) -> None:
        conn.reply(200, message.cookies)

    @router.route("/moved/{status}", ("GET", "POST"))
    def moved(conn: Connection, message: HttpMessage) -> None:
        conn.redirect(f"/echo?from={message.params['status']}", int(message.params["status"]))
