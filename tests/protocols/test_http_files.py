"""Files over real connections: whole, in part, compressed, listed; files that change meanwhile; nothing stays open."""

from __future__ import annotations

import email.parser
import email.policy
import gzip
import json
import os
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from asyncmg import MG_EV_HTTP_HDRS, MG_EV_HTTP_MSG, Connection
from asyncmg.handlers.static import StaticFiles
from tests.files.served import open_descriptors

from .conftest import Harness, RawPeer, eventually

MODIFIED = 1_000_000_000
DATE = "Sun, 09 Sep 2001 01:46:40 GMT"
DATA = bytes(range(256)) * 4096  # 1 MiB
Handler = Callable[[Connection, int, Any], None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "page.html").write_bytes(b"<p>page")
    (root / "page.html.gz").write_bytes(gzip.compress(b"<p>page"))
    (root / "data.bin").write_bytes(DATA)
    (root / "empty.txt").touch()
    (root / "sub" / "a.txt").write_bytes(b"a")
    for path in root.iterdir():
        os.utime(path, (MODIFIED, MODIFIED))
    return root


def directory(root: Path, **options: Any) -> Handler:
    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.serve_dir(data, root, **options)

    return handler


class Client:
    """One kept connection."""

    def __init__(self, peer: RawPeer) -> None:
        self.peer = peer

    async def ask(self, target: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        self.peer.send(f"{method} {target} HTTP/1.1\r\nHost: x\r\n{lines}\r\n")
        return await self.peer.read_reply(head=method == "HEAD")


async def client(harness: Harness, handler: Any) -> Client:
    return Client(await harness.peer(harness.serve(handler).port))


async def test_one_connection_through_everything(harness: Harness, root: Path) -> None:
    """Each reply leaves the connection fit for the next: lengths and content agree."""
    user = await client(harness, directory(root, listing=True, cache_control="no-cache"))
    status, fields, body = await user.ask("/page.html")
    etag = fields["etag"]
    assert (status, body, fields["content-length"]) == (200, b"<p>page", "7")
    assert (fields["last-modified"], fields["accept-ranges"], fields["vary"]) == (DATE, "bytes", "Accept-Encoding")
    assert (fields["content-type"], fields["cache-control"]) == ("text/html; charset=utf-8", "no-cache")
    for _ in range(2):  # the second time it may come from memory
        status, fields, body = await user.ask("/page.html", Accept_Encoding="gzip")
        assert (status, gzip.decompress(body), fields["content-encoding"]) == (200, b"<p>page", "gzip")
        assert fields["etag"] != etag
    status, fields, _ = await user.ask("/page.html", "HEAD")
    assert (status, fields["content-length"], fields["etag"]) == (200, "7", etag)
    status, fields, _ = await user.ask("/page.html", If_None_Match=etag)
    assert (status, fields["etag"], fields["cache-control"]) == (304, etag, "no-cache")
    assert (await user.ask("/page.html", If_Match='"x"'))[0] == 412
    status, fields, body = await user.ask("/page.html", Range="bytes=1-1", If_Range=etag)
    assert (status, body, fields["content-range"]) == (206, b"p", "bytes 1-1/7")
    status, fields, body = await user.ask("/page.html", Range="bytes=7-")
    assert (status, fields["content-range"]) == (416, "bytes */7")
    assert (await user.ask("/empty.txt"))[::2] == (200, b"")
    assert (await user.ask("/data.bin"))[::2] == (200, DATA)
    status, fields, _ = await user.ask("/sub")
    assert (status, fields["location"]) == (301, "/sub/")
    status, fields, body = await user.ask("/sub/")
    assert status == 200 and b'<a href="a.txt">' in body
    assert "default-src 'none'" in fields["content-security-policy"]
    body = (await user.ask("/sub/", Accept="application/json"))[2]
    assert [entry["name"] for entry in json.loads(body)] == ["a.txt"]
    assert (await user.ask("/sub/", "HEAD"))[0] == 200
    assert (await user.ask("/../page.html"))[0] == 400
    assert (await user.ask("/nothing"))[0] == 404
    status, fields, _ = await user.ask("/page.html", "DELETE")
    assert (status, fields["allow"]) == (405, "GET, HEAD, OPTIONS")
    status, fields, body = await user.ask("*", "OPTIONS")
    assert (status, fields["allow"], body) == (204, "GET, HEAD, OPTIONS", b"")
    assert (await user.ask("/sub/a.txt"))[::2] == (200, b"a")


async def test_ranges_of_a_large_file(harness: Harness, root: Path) -> None:
    user = await client(harness, directory(root))
    for first, last in ((0, 0), (1000, 300_000), (len(DATA) - 1, len(DATA) - 1), (0, len(DATA) - 1)):
        status, fields, body = await user.ask("/data.bin", Range=f"bytes={first}-{last}")
        assert (status, fields["content-range"]) == (206, f"bytes {first}-{last}/{len(DATA)}")
        assert body == DATA[first : last + 1]
    status, fields, body = await user.ask("/data.bin", Range="bytes=-300000, 0-9, 1000-70000")
    assert status == 206 and "content-range" not in fields
    raw = f"Content-Type: {fields['content-type']}\r\n\r\n".encode() + body
    whole = email.parser.BytesParser(EmailMessage, policy=email.policy.HTTP).parsebytes(raw)
    parts = {str(part["Content-Range"]): part.get_payload(decode=True) for part in whole.iter_parts()}
    spans = [(len(DATA) - 300_000, len(DATA) - 1), (0, 9), (1000, 70000)]
    assert parts == {f"bytes {a}-{b}/{len(DATA)}": DATA[a : b + 1] for a, b in spans}
    assert (await user.ask("/page.html"))[0] == 200


async def test_pipelined_requests_for_files(harness: Harness, root: Path) -> None:
    peer = await harness.peer(harness.serve(directory(root)).port)
    targets = ["/page.html", "/data.bin", "/nothing", "/empty.txt", "/data.bin"] * 3
    peer.send("".join(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n" for target in targets))
    expected = {"/page.html": b"<p>page", "/data.bin": DATA, "/nothing": b"404 Not Found\n", "/empty.txt": b""}
    for target in targets:
        assert (await peer.read_reply())[2] == expected[target]


async def test_http_1_0(harness: Harness, root: Path) -> None:
    listener = harness.serve(directory(root))
    reply = await harness.ask(listener.port, "GET /data.bin HTTP/1.0\r\n\r\n")
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ") and f"Content-Length: {len(DATA)}".encode() in head
    assert body == DATA


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_serve_file(harness: Harness, root: Path, kind: str) -> None:
    def reply(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.serve_file(data, root / "page.html", "X-More: yes\r\n", "html=x/y")

    async def reply_async(conn: Connection, ev: int, data: Any) -> None:
        reply(conn, ev, data)

    user = await client(harness, reply if kind == "sync" else reply_async)
    for target in ("/", "/whatever/..", "/nothing"):
        status, fields, body = await user.ask(target)
        assert (status, fields["content-type"], fields["x-more"], body) == (200, "x/y", "yes", b"<p>page")
    status, fields, body = await user.ask("/", Range="bytes=-2")
    assert (status, body, fields["x-more"]) == (206, b"ge", "yes")
    status, fields, body = await user.ask("/", If_Modified_Since=DATE)
    assert (status, fields["x-more"]) == (304, "yes")


async def test_options_of_serve_dir(harness: Harness, root: Path) -> None:
    (root / "link").symlink_to("page.html")
    options = {"prefix": "/static", "index": ("page.html",), "precompressed": False, "follow_symlinks": True}
    user = await client(
        harness, directory(root, page404=str(root / "page.html"), extra_headers="X-More: yes\r\n", **options)
    )
    for target, expected in (("/static/page.html", 200), ("/static/", 200), ("/static/link", 200), ("/page.html", 404)):
        status, fields, body = await user.ask(target, Accept_Encoding="gzip")
        assert (status, body, fields["x-more"]) == (expected, b"<p>page", "yes")
        assert "content-encoding" not in fields


async def test_static_files_is_a_handler(harness: Harness, root: Path) -> None:
    user = await client(harness, StaticFiles(root, prefix="/s", listing=True, mime_types="bin=x/y"))
    assert (await user.ask("/s/page.html"))[::2] == (200, b"<p>page")
    status, fields, body = await user.ask("/s/data.bin")
    assert (status, fields["content-type"], body) == (200, "x/y", DATA)
    assert b"data.bin" in (await user.ask("/s/"))[2]
    assert (await user.ask("/data.bin"))[0] == 404
    assert (await user.ask("/s/page.html", "POST", Content_Length="0"))[0] == 405


async def test_a_file_that_changes_between_two_requests(harness: Harness, root: Path) -> None:
    user = await client(harness, directory(root))
    path = root / "sub" / "a.txt"
    for number in range(20):
        content = b"x" * number + b"."
        other = path.with_suffix(".new")
        other.write_bytes(content)
        other.replace(path)
        for _ in range(2):
            assert (await user.ask("/sub/a.txt"))[::2] == (200, content)
    path.unlink()
    assert (await user.ask("/sub/a.txt"))[0] == 404


def large(root: Path) -> Path:
    """Make a file far larger than every buffer between the two ends."""
    path = root / "large.bin"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    os.utime(path, (MODIFIED, MODIFIED))
    return path


def shorten(path: Path) -> None:
    os.truncate(path, 1000)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"new content")


@pytest.mark.parametrize("change", [shorten, overwrite])
@pytest.mark.parametrize("ranges", ["", "bytes=10-", "bytes=0-0,10-,5-5"])
async def test_a_file_that_changes_while_it_is_sent(
    harness: Harness, root: Path, change: Callable[[Path], None], ranges: str
) -> None:
    """The connection ends before the announced length: nobody takes half the old and half the new for a file."""
    path = large(root)
    peer = await harness.peer(harness.serve(directory(root)).port)
    field = f"Range: {ranges}\r\n" if ranges else ""
    peer.send(f"GET /large.bin HTTP/1.1\r\nHost: x\r\n{field}\r\n")
    head = (await peer.read_until(b"\r\n\r\n")).decode().lower()
    announced = int(head.partition("content-length: ")[2].split("\r\n")[0])
    assert announced > 60 << 20
    change(path)
    received = 0
    try:
        while data := await peer.reader.read(1 << 20):
            received += len(data)
    except ConnectionError:
        pass  # a reset is honest as well
    assert received < announced


async def test_a_file_that_grows_or_vanishes_while_it_is_sent(harness: Harness, root: Path) -> None:
    """What was announced is there still, and is sent."""
    path = large(root)
    user = await client(harness, directory(root))
    user.peer.send("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await user.peer.read_until(b"\r\n\r\n")
    assert f"Content-Length: {64 << 20}".encode() in head
    with path.open("ab") as file:
        file.write(b"more")
    path.unlink()
    left = 64 << 20
    while left:
        left -= len(await user.peer.read_exactly(min(left, 1 << 20)))
    assert (await user.ask("/large.bin"))[0] == 404


async def test_files_are_closed_when_the_peer_goes_away(harness: Harness, root: Path) -> None:
    large(root)
    listener = harness.serve(directory(root))
    for leave in ("close", "reset"):
        peer = await harness.peer(listener.port)
        peer.send("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        await peer.read_until(b"\r\n\r\n")
        assert open_descriptors(root) != 0
        if leave == "close":
            await peer.close()
        else:
            peer.reset()
        await eventually(lambda: open_descriptors(root) <= 0)


async def test_files_are_closed_behind_replies_without_content(harness: Harness, root: Path) -> None:
    user = await client(harness, directory(root))
    await user.ask("/page.html", "HEAD")
    for _ in range(20):
        await user.ask("/data.bin", "HEAD")
        await user.ask("/data.bin", If_None_Match="*")
        await user.ask("/data.bin", Range="bytes=99999999-")
        await user.ask("/data.bin", If_Match='"x"')
        await user.ask("/sub")
        await user.ask("/page.html", Accept_Encoding="gzip")
    await eventually(lambda: open_descriptors(root) <= 0)


async def test_a_request_with_content_gets_its_refusal(harness: Harness, root: Path) -> None:
    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_HDRS and data.method == "PUT":
            conn.serve_dir(data, root)

    reply = await harness.ask(
        harness.serve(handler).port, "PUT /page.html HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    )
    assert reply.startswith(b"HTTP/1.1 405 ") and b"Allow: GET, HEAD, OPTIONS" in reply


@pytest.mark.parametrize("name", ["/page.html", "/empty.txt", "/data.bin"])
async def test_further_headers_that_frame_the_reply(harness: Harness, root: Path, name: str) -> None:
    """Small files, which may come from memory, are framed as large ones are."""
    peer = await harness.peer(harness.serve(directory(root, extra_headers="Connection: close\r\n")).port)
    peer.send(f"GET {name} HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await peer.read_reply())[1]["connection"] == "close"
    assert await peer.read_all() == b""
    user = await client(harness, directory(root, extra_headers="Transfer-Encoding: chunked\r\n"))
    for _ in range(2):
        assert (await user.ask(name))[2] == (root / name[1:]).read_bytes()
    user = await client(harness, directory(root, mime_types="txt=text/event-stream"))
    assert (await user.ask("/empty.txt"))[2] == b""


async def test_downloads_take_few_descriptors(harness: Harness, root: Path) -> None:
    """A slow download has its socket and its file, nothing more."""
    with open(root / "large.bin", "wb") as file:
        file.truncate(64 << 20)
    listener = harness.serve(directory(root))
    peers = []
    for _ in range(10):
        peer = await harness.peer(listener.port, limit=1 << 10)
        peer.send("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        await peer.read_until(b"\r\n\r\n")
        peers.append(peer)
    assert open_descriptors(root) in (10, -1)  # one file each; and of sockets one for each side, and the listener
    assert open_descriptors("socket:") <= 2 * 10 + 10
    for peer in peers:
        peer.reset()
