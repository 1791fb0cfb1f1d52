"""Forms and uploads over real connections: whole, as they come in, part by part, by offset, and cut off."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from asyncmg import (
    MG_EV_HTTP_HDRS,
    MG_EV_HTTP_MSG,
    Connection,
    ConnectionClosed,
    FormLimits,
    HttpMessage,
    LimitExceeded,
    Limits,
    LocalProtocolError,
    RemoteProtocolError,
    UploadedFile,
)

from .conftest import Harness, RawPeer, eventually

BOUNDARY = "XX0123456789"
LARGE = os.urandom(300_000)


def part(name: str, content: bytes, filename: str = "") -> bytes:
    more = f'; filename="{filename}"\r\nContent-Type: application/octet-stream' if filename else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + content + b"\r\n"


BODY = (
    part("title", "ü & more".encode())
    + part("file", b"small", "a.txt")
    + part("file", LARGE, "../../b.bin")
    + part("empty", b"")
    + f"--{BOUNDARY}--\r\n".encode()
)


def post(body: bytes, content_type: str = f"multipart/form-data; boundary={BOUNDARY}", target: str = "/") -> bytes:
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def told(form: Any) -> list[Any]:
    return [(name, v if isinstance(v, str) else (v.filename, v.safe_filename, v.size)) for name, v in form.pairs]


EXPECTED = [
    ("title", "ü & more"),
    ("file", ("a.txt", "a.txt", 5)),
    ("file", ("../../b.bin", "b.bin", len(LARGE))),
    ("empty", ""),
]


async def test_a_form_that_is_all_there(harness: Harness) -> None:
    seen: list[Any] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_HDRS and data.method == "POST":
            with pytest.raises(LocalProtocolError, match="not complete"):
                data.form()
        elif ev == MG_EV_HTTP_MSG:
            with data.form() as form:
                seen.append(told(form))
                file = form.all("file")[-1] if data.query else ""
                conn.reply(200, file.read() if isinstance(file, UploadedFile) else b"")

    peer = await harness.peer(harness.serve(handler).port)
    for chunk in (BODY, b"a=1&b=%C3%BC+x&a=2"):
        is_multipart = chunk is BODY
        kind = f"multipart/form-data; boundary={BOUNDARY}" if is_multipart else "application/x-www-form-urlencoded"
        peer.send(post(chunk, kind, "/?file" if is_multipart else "/"))
        status, _, body = await peer.read_reply()
        assert (status, body) == (200, LARGE if is_multipart else b"")
    assert seen == [EXPECTED, [("a", "1"), ("b", "ü x"), ("a", "2")]]


async def read_slowly(peer: RawPeer, data: bytes, size: int) -> None:
    for start in range(0, len(data), size):
        peer.send(data[start : start + size])
        await asyncio.sleep(0)


@pytest.mark.parametrize("piece", [997, 1 << 20])
async def test_a_form_as_it_comes_in(harness: Harness, tmp_path: Path, piece: int) -> None:
    spool, kept = tmp_path / "spool", tmp_path / "kept"
    spool.mkdir()
    kept.mkdir()

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_HDRS:
            with await data.read_form(spool) as form:
                large = form.all("file")[1]
                assert isinstance(large, UploadedFile) and len(list(spool.iterdir())) == 1
                large.save(kept)
                conn.reply(200, {"told": told(form)})

    peer = await harness.peer(harness.serve(handler).port)
    await read_slowly(peer, post(BODY), piece)
    status, _, body = await peer.read_reply()
    assert status == 200 and b"b.bin" in body
    assert (kept / "b.bin").read_bytes() == LARGE
    assert list(spool.iterdir()) == [] and not harness.errors


async def test_a_form_part_by_part(harness: Harness, tmp_path: Path) -> None:
    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_HDRS:
            seen = []
            async for item in data.parts():
                if item.filename == "../../b.bin":
                    seen.append([item.name, (await item.save(tmp_path)).name])
                elif item.is_file:
                    seen.append([item.name, "skipped"])
                else:
                    seen.append([item.name, await item.text()])
            conn.reply(200, seen)

    peer = await harness.peer(harness.serve(handler).port)
    peer.send(post(BODY))
    status, _, body = await peer.read_reply()
    assert (status, body.decode()) == (
        200,
        '[["title","ü & more"],["file","skipped"],["file","b.bin"],["empty",""]]',
    )
    assert (tmp_path / "b.bin").read_bytes() == LARGE


@pytest.mark.parametrize("way", ["form", "parts"])
@pytest.mark.parametrize("end", ["reset", "eof", "shutdown"])
async def test_nothing_is_left_when_the_client_goes_away(harness: Harness, tmp_path: Path, way: str, end: str) -> None:
    failures: list[BaseException] = []

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev != MG_EV_HTTP_HDRS:
            return
        try:
            if way == "form":
                await data.read_form(tmp_path)
            else:
                async for item in data.parts():
                    await item.save(tmp_path / "saved", overwrite=True)
        except BaseException as exc:
            failures.append(exc)
            raise

    listener = harness.serve(handler)
    peer = await harness.peer(listener.port)
    peer.send(post(BODY)[:-100_000])
    await eventually(lambda: list(tmp_path.iterdir()))  # the large one is on its way to the disk
    if end == "reset":
        peer.reset()
    elif end == "eof":
        peer.send_eof()
    else:
        await harness.end()
    await eventually(lambda: failures)
    left = [path.name for path in tmp_path.iterdir()]
    assert left in ([], ["saved"]), left
    if left:  # a whole one that came before
        assert (tmp_path / "saved").read_bytes() in (b"small", "ü & more".encode())


async def test_what_is_no_form_or_too_much(harness: Harness) -> None:
    seen: list[Any] = []

    def handler(conn: Connection, ev: int, data: HttpMessage) -> None:
        if ev == MG_EV_HTTP_MSG:
            try:
                data.form()
            except RemoteProtocolError as exc:
                seen.append(type(exc))
                conn.reply(exc.wire_code, f"{exc}\n")
            else:
                conn.reply(200)

    limits = Limits(forms=FormLimits(max_parts=3, max_field=10, max_file=200_000))
    peer = await harness.peer(harness.serve(handler, limits=limits).port)
    urlencoded = "application/x-www-form-urlencoded"
    for request, status, error in (
        (post(b"{}", "application/json"), 415, RemoteProtocolError),
        (post(BODY), 413, LimitExceeded),
        (post(BODY[:-20]), 413, LimitExceeded),
        (post(part("a", b"")[:-3]), 400, RemoteProtocolError),
        (post(b"a&b&c&d", urlencoded), 400, LimitExceeded),
        (post(b"a=012345678", urlencoded), 413, LimitExceeded),
        (post(b"a=01234567", urlencoded), 200, None),
        (post(b"", "multipart/form-data"), 400, RemoteProtocolError),
    ):
        peer.send(request)
        assert (await peer.read_reply())[0] == status, request[:200]
        assert (seen.pop() if seen else None) is error


async def test_a_form_that_was_taken_as_a_stream(harness: Harness) -> None:
    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_HDRS:
            assert b"".join([piece async for piece in data.stream()]) == b"a=1"
            with pytest.raises(LocalProtocolError, match="stream"):
                data.form()
            conn.reply(200, "fine")

    peer = await harness.peer(harness.serve(handler).port)
    peer.send(post(b"a=1", "application/x-www-form-urlencoded"))
    assert (await peer.read_reply())[2] == b"fine"


@pytest.mark.parametrize("streams", [False, True])
async def test_uploads_by_offset(harness: Harness, tmp_path: Path, streams: bool) -> None:
    sizes: list[int] = []

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if streams and ev == MG_EV_HTTP_HDRS:
            sizes.append(await conn.http_upload_stream(data, tmp_path, 1000))
        elif ev == MG_EV_HTTP_MSG:
            sizes.append(conn.http_upload(data, tmp_path, 1000))

    listener = harness.serve(handler)
    pieces = [b"a" * 400, b"b" * 400, b"c" * 200]
    for query, body, status, answer in (
        ("file=up.bin&offset=0", pieces[0], 200, b"400"),
        ("file=up.bin&offset=400", pieces[1], 200, b"800"),
        ("file=up.bin&offset=400", pieces[1], 400, None),
        ("file=up.bin&offset=800", pieces[2] + b"d", 413, None),
        ("file=up.bin&offset=800", pieces[2], 200, b"1000"),
        ("file=../up.bin&offset=0", b"x", 400, None),
        ("offset=0", b"x", 400, None),
        ("file=x&offset=-1", b"x", 400, None),
    ):
        peer = await harness.peer(listener.port)
        peer.send(post(body, "application/octet-stream", f"/upload?{query}"))
        got_status, _, got = await peer.read_reply()
        assert got_status == status and (answer is None or got == answer), query
    assert (tmp_path / "up.bin").read_bytes() == b"".join(pieces)
    assert sizes == [400, 800, -1, -1, 1000, -1, -1, -1]
    assert [path.name for path in tmp_path.iterdir()] == ["up.bin"]


async def test_what_has_arrived_is_what_an_upload_resumes_from(harness: Harness, tmp_path: Path) -> None:
    ended: list[str] = []

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_HDRS:
            try:
                await conn.http_upload_stream(data, tmp_path, 1 << 20)
            finally:
                ended.append(data.url)

    listener = harness.serve(handler)
    peer = await harness.peer(listener.port)
    peer.send(post(LARGE, "application/octet-stream", "/?file=up.bin&offset=0")[:200_000])
    await eventually(lambda: (tmp_path / "up.bin").exists() and (tmp_path / "up.bin").stat().st_size > 100_000)
    peer.reset()
    await eventually(lambda: ended)
    size = (tmp_path / "up.bin").stat().st_size
    assert LARGE.startswith((tmp_path / "up.bin").read_bytes())
    peer = await harness.peer(listener.port)
    peer.send(post(LARGE[size:], "application/octet-stream", f"/?file=up.bin&offset={size}"))
    assert (await peer.read_reply())[2] == str(len(LARGE)).encode()
    assert (tmp_path / "up.bin").read_bytes() == LARGE


@pytest.mark.parametrize("way", ["upload", "form", "raises", "break", "uncaught"])
async def test_a_reply_before_the_content_is_read_closes_at_once(harness: Harness, tmp_path: Path, way: str) -> None:
    """Whoever has taken the content and does not go on: the client is told, and does not wait for a time-out."""

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev != MG_EV_HTTP_HDRS:
            return
        if way == "upload":
            await conn.http_upload_stream(data, tmp_path, 1000)
        elif way == "form":
            try:
                await data.read_form(tmp_path, FormLimits(max_file=1000))
            except LimitExceeded as exc:
                conn.reply(exc.wire_code, "too much")
        elif way == "uncaught":
            await data.read_form(tmp_path, FormLimits(max_file=1000))
        else:
            async for _ in data.stream():
                if way == "raises":
                    raise ValueError
                break
            conn.reply(413, "too much")

    peer = await harness.peer(harness.serve(handler).port)
    head = post(b"", target="/?file=x&offset=0").replace(b"Content-Length: 0", b"Content-Length: 1000000000")
    peer.send(head + BODY[:-100_000])
    status, fields, _ = await peer.read_reply()
    assert (status, fields.get("connection")) == (500 if way == "raises" else 413, "close")
    await peer.read_all()  # the end comes by itself, and in order


async def test_a_reply_within_the_loop_over_the_content_ends_it(harness: Harness) -> None:
    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_HDRS:
            async for _ in data.stream():
                conn.reply(413, "too much")  # somebody still reads: the reply cannot know
                return

    peer = await harness.peer(harness.serve(handler).port)
    peer.send(post(b"").replace(b"Content-Length: 0", b"Content-Length: 1000000000") + bytes(1000))
    assert (await peer.read_reply())[0] == 413
    await peer.read_all()


async def test_whoever_expects_a_100_and_gets_a_reply_is_not_waited_for(harness: Harness) -> None:
    seen: list[Any] = []

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_HDRS:
            conn.reply(403, "no")
            try:
                seen.append([piece async for piece in data.stream()])
            except ConnectionClosed as exc:
                seen.append(type(exc))

    peer = await harness.peer(harness.serve(handler).port)
    peer.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
    assert (await peer.read_reply())[0] == 403
    await peer.read_all()
    await eventually(lambda: seen)
    assert seen == [ConnectionClosed]


async def test_what_another_peer_did_is_not_the_clients_fault(harness: Harness) -> None:
    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            raise RemoteProtocolError("of a server that the handler has asked", wire_code=400)

    peer = await harness.peer(harness.serve(handler).port)
    peer.send(post(b"a=1"))
    assert (await peer.read_reply())[0] == 500


async def test_a_form_that_nobody_has_caught_is_the_clients_fault(harness: Harness) -> None:
    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            data.form()

    peer = await harness.peer(harness.serve(handler).port)
    peer.send(post(b"{}", "application/json"))
    assert (await peer.read_reply())[0] == 415
    assert [type(error) for error in harness.errors] == [RemoteProtocolError]
