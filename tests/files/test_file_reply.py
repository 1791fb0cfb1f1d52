"""Replies with files: status, fields, what of the file is sent; nothing is left open."""

from __future__ import annotations

import errno
import gzip
import os
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

import asyncmg.files.paths
import asyncmg.files.reply
from asyncmg.files.reply import FileReply, StaticFolder, file_reply
from tests.files.served import body_of, fields_of, message, open_descriptors

PAGE = b"<p>page"
MODIFIED = 1_000_000_000
SAME = "Sun, 09 Sep 2001 01:46:40 GMT"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "page.html").write_bytes(PAGE)
    (root / "empty.txt").touch()
    (root / "data.bin").write_bytes(bytes(range(256)) * 40)
    for path in root.iterdir():
        os.utime(path, (MODIFIED, MODIFIED))
    return root


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before


def get(root: Path, target: str, method: str = "GET", *fields: tuple[str, str], **headers: str) -> FileReply:
    return StaticFolder(root).reply_to(message(target, method, *fields, **headers))


def etag_of(root: Path, target: str, **headers: str) -> str:
    reply = get(root, target, **headers)
    reply.close()
    return fields_of(reply)["etag"]


# -- one file ------------------------------------------------------------------------------------------------------


def test_reply(root: Path) -> None:
    path = root / "page.html"
    os.utime(path, (MODIFIED + 0.5, MODIFIED + 0.5))
    reply = file_reply(message("/page.html"), path)
    assert reply.status == 200 and reply.content is not None and reply.content.length == 7
    fields = fields_of(reply)
    assert set(fields) == {"etag", "last-modified", "accept-ranges", "content-type"}
    assert fields["last-modified"] == SAME
    assert fields["content-type"] == "text/html; charset=utf-8"
    assert fields["accept-ranges"] == "bytes"
    assert fields["etag"].startswith('"') and fields["etag"].endswith('"')
    assert body_of(reply) == PAGE
    assert "200" in repr(reply)


def test_mime_types(root: Path) -> None:
    reply = file_reply(message("/"), root / "page.html", "html=x/y")
    reply.close()
    assert fields_of(reply)["content-type"] == "x/y"
    reply = StaticFolder(root, mime_types="html=x/z").reply_to(message("/page.html"))
    reply.close()
    assert fields_of(reply)["content-type"] == "x/z"


def test_the_etag_changes_with_the_file(root: Path) -> None:
    path = root / "page.html"
    before = etag_of(root, "/page.html")
    assert etag_of(root, "/page.html") == before
    path.write_text("<p>longer page")
    assert etag_of(root, "/page.html") != before


def test_head(root: Path) -> None:
    reply = get(root, "/page.html", "HEAD", Range="bytes=0-0")
    assert reply.status == 200  # RFC 9110 section 14.2: Range is for GET
    assert body_of(reply) == PAGE


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "get", "PATCH", "CONNECT", "TRACE"])
def test_other_methods(root: Path, method: str) -> None:
    for reply in (get(root, "/page.html", method), file_reply(message("/", method), root / "page.html")):
        assert (reply.status, reply.content) == (405, None)
        assert fields_of(reply) == {"allow": "GET, HEAD, OPTIONS"}


def test_options(root: Path) -> None:
    for reply in (get(root, "*", "OPTIONS"), file_reply(message("/", "OPTIONS"), root / "page.html")):
        assert (reply.status, reply.body, reply.headers) == (204, "", [("Allow", "GET, HEAD, OPTIONS")])


def test_devices_and_directories_are_not_served(root: Path) -> None:
    for path in (os.devnull, root / "sub", root / "nothing", "a\x00b", ""):
        assert file_reply(message("/"), path).status == 404


def test_a_file_that_the_program_names_may_be_a_link(root: Path) -> None:
    (root / "link").symlink_to("page.html")
    assert body_of(file_reply(message("/"), root / "link")) == PAGE


def test_an_empty_file(root: Path) -> None:
    assert body_of(get(root, "/empty.txt")) == b""
    assert get(root, "/empty.txt", Range="bytes=0-").status == 416
    assert body_of(get(root, "/empty.txt", Range="bytes=-1")) == b""


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (errno.EMFILE, 503),
        (errno.ENFILE, 503),
        (errno.EACCES, 403),
        (errno.EPERM, 403),
        (errno.ENOENT, 404),
        (errno.EIO, 404),
        (errno.ENAMETOOLONG, 404),
        (errno.ENXIO, 404),
    ],
)
def test_errors_of_the_file_system(root: Path, monkeypatch: pytest.MonkeyPatch, code: int, status: int) -> None:
    def fail(*_: Any, **__: Any) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(asyncmg.files.paths.os, "open", fail)
    folder = StaticFolder(root, listing=True, index=())
    replies = [file_reply(message("/"), root / "page.html"), folder.reply_to(message("/page.html"))]
    replies.append(folder.reply_to(message("/")))
    for reply in replies:
        assert (reply.status, reply.content) == (status, None)
        assert fields_of(reply) == ({"retry-after": "1"} if status == 503 else {})


# -- conditions ----------------------------------------------------------------------------------------------------


def test_if_none_match(root: Path) -> None:
    etag = etag_of(root, "/page.html")
    for value in (etag, f"W/{etag}", "*", f'"x", {etag}', f'"x",W/{etag} , "y"'):
        for method in ("GET", "HEAD"):
            reply = get(root, "/page.html", method, If_None_Match=value)
            assert (reply.status, reply.content, reply.body) == (304, None, "")
            assert fields_of(reply) == {"etag": etag, "last-modified": SAME}
    for value in ('"x"', etag.strip('"'), "", f"X{etag}"):
        assert body_of(get(root, "/page.html", If_None_Match=value)) == PAGE


def test_fields_on_several_lines(root: Path) -> None:
    etag = etag_of(root, "/page.html")
    assert get(root, "/page.html", "GET", ("If-None-Match", '"x"'), ("if-none-match", etag)).status == 304
    assert get(root, "/page.html", "GET", ("If-Match", '"x"'), ("IF-MATCH", '"y"')).status == 412
    reply = get(root, "/page.html", "GET", ("If-Modified-Since", SAME), ("If-Modified-Since", SAME))
    assert body_of(reply) == PAGE  # RFC 9110 section 13.1.3: more than one date is none
    reply = get(root, "/page.html", "GET", ("Range", "bytes=0-0"), ("Range", "bytes=1-1"))
    assert (reply.status, body_of(reply)) == (200, PAGE)


def test_if_modified_since(root: Path) -> None:
    for seconds, status in ((MODIFIED, 304), (MODIFIED + 1, 304), (MODIFIED - 1, 200)):
        reply = get(root, "/page.html", If_Modified_Since=formatdate(seconds, usegmt=True))
        reply.close()
        assert reply.status == status


def test_a_failed_precondition(root: Path) -> None:
    for headers in ({"If_Match": '"x"'}, {"If_Unmodified_Since": "Sun, 09 Sep 2001 01:46:39 GMT"}):
        reply = get(root, "/page.html", **headers)
        assert (reply.status, reply.content, reply.headers) == (412, None, [])


# -- ranges --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "content_range", "expected"),
    [
        ("bytes=0-2", "bytes 0-2/7", b"<p>"),
        ("bytes=3-", "bytes 3-6/7", b"page"),
        ("bytes=-2", "bytes 5-6/7", b"ge"),
        ("bytes=0-", "bytes 0-6/7", PAGE),
        ("bytes=5-,0-0,100-", None, None),
        ("bytes=3-4,5-,5-5", "bytes 3-6/7", b"page"),
        ("bytes=6-,100-", "bytes 6-6/7", b"e"),
    ],
)
def test_a_range(root: Path, value: str, content_range: str | None, expected: bytes | None) -> None:
    reply = get(root, "/page.html", Range=value)
    body = body_of(reply)
    fields = fields_of(reply)
    assert reply.status == 206
    assert fields["etag"] == etag_of(root, "/page.html") and fields["last-modified"] == SAME
    assert fields.get("content-range") == content_range
    if expected is not None:
        assert body == expected and fields["content-type"] == "text/html; charset=utf-8"
    else:
        boundary = fields["content-type"].removeprefix("multipart/byteranges; boundary=")
        head = "Content-Type: text/html; charset=utf-8\r\nContent-Range: bytes"
        assert body.decode() == (
            f"--{boundary}\r\n{head} 5-6/7\r\n\r\nge\r\n--{boundary}\r\n{head} 0-0/7\r\n\r\n<\r\n--{boundary}--\r\n"
        )


def test_no_range_can_be_satisfied(root: Path) -> None:
    reply = get(root, "/page.html", Range="bytes=7-")
    assert (reply.status, reply.content) == (416, None)
    assert fields_of(reply) == {"content-range": "bytes */7", "accept-ranges": "bytes"}


@pytest.mark.parametrize("value", ["bytes=x", "lines=1-2", "bytes=5-4", "bytes=" + ",".join(["0-0"] * 33)])
def test_ranges_that_are_ignored(root: Path, value: str) -> None:
    reply = get(root, "/page.html", Range=value)
    assert (reply.status, body_of(reply)) == (200, PAGE)


def test_if_range(root: Path) -> None:
    etag = etag_of(root, "/page.html")
    for value, status in ((etag, 206), (SAME, 206), (f"W/{etag}", 200), ('"x"', 200), ("x", 200)):
        reply = get(root, "/page.html", Range="bytes=0-0", If_Range=value)
        reply.close()
        assert reply.status == status
    # Out of date, and not satisfiable: the whole, not 416.
    assert body_of(get(root, "/page.html", Range="bytes=100-", If_Range='"x"')) == PAGE


def test_conditions_come_before_ranges(root: Path) -> None:
    etag = etag_of(root, "/page.html")
    assert get(root, "/page.html", Range="bytes=100-", If_None_Match=etag).status == 304
    assert get(root, "/page.html", Range="bytes=0-0", If_Match='"x"').status == 412


def test_ranges_of_a_larger_file(root: Path) -> None:
    data = (root / "data.bin").read_bytes()
    reply = get(root, "/data.bin", Range="bytes=1000-9999")
    assert body_of(reply) == data[1000:10000]


# -- folders -------------------------------------------------------------------------------------------------------


def test_index_files(root: Path) -> None:
    (root / "sub" / "b.html").write_text("b")
    (root / "sub" / "a.html").mkdir()
    folder = StaticFolder(root, index=("nothing.html", "a.html", "b.html"))
    assert body_of(folder.reply_to(message("/sub/"))) == b"b"
    assert StaticFolder(root, index=()).reply_to(message("/sub/")).status == 404
    assert body_of(StaticFolder(root, index="b.html").reply_to(message("/sub/"))) == b"b"
    assert StaticFolder(root).reply_to(message("/sub/")).status == 404


def test_a_prefix(root: Path) -> None:
    (root / "index.html").write_text("index")
    (root / "static").mkdir()
    (root / "static" / "page.html").write_text("inner")
    for prefix in ("/static", "static", "/static/", "//static"):
        folder = StaticFolder(root, prefix=prefix)
        assert body_of(folder.reply_to(message("/static/page.html"))) == PAGE
        assert body_of(folder.reply_to(message("/%73tatic//page.html"))) == PAGE
        assert body_of(folder.reply_to(message("/static/"))) == b"index"
        assert body_of(folder.reply_to(message("/static/static/page.html"))) == b"inner"
        for target in ("/page.html", "/", "/staticpage.html", "/static-x/page.html", "/x/static/page.html"):
            assert folder.reply_to(message(target)).status == 404
        assert folder.reply_to(message("/static/../page.html")).status == 400
        assert folder.reply_to(message("/static")).headers == [("Location", "/static/")]
        assert folder.reply_to(message("/static/sub?x")).headers == [("Location", "/static/sub/?x")]
    assert body_of(StaticFolder(root, prefix="/a/.b").reply_to(message("/a/.b/page.html"))) == PAGE


def test_cache_control(root: Path) -> None:
    folder = StaticFolder(root, cache_control="max-age=60", listing=True)
    for headers, status in (({}, 200), ({"Range": "bytes=0-0"}, 206), ({"If_None_Match": "*"}, 304)):
        reply = folder.reply_to(message("/page.html", **headers))
        reply.close()
        assert (reply.status, fields_of(reply)["cache-control"]) == (status, "max-age=60")
    for target in ("/nothing", "/sub", "/sub/"):
        assert "cache-control" not in fields_of(folder.reply_to(message(target)))


def test_page404(root: Path) -> None:
    folder = StaticFolder(root, page404=root / "page.html", cache_control="max-age=60")
    for headers in ({}, {"If_None_Match": "*"}, {"Range": "bytes=0-0"}, {"If_Match": '"x"'}):
        reply = folder.reply_to(message("/nothing", **headers))
        assert (reply.status, body_of(reply)) == (404, PAGE)
        assert fields_of(reply) == {"content-type": "text/html; charset=utf-8"}
    assert folder.reply_to(message("/..")).status == 400
    assert folder.reply_to(message("/nothing", "POST")).status == 405
    for missing in (root / "nothing", root / "sub"):
        reply = StaticFolder(root, page404=missing).reply_to(message("/nothing"))
        assert (reply.status, reply.body) == (404, "404 Not Found\n")


def test_page404_that_cannot_be_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> tuple[int, os.stat_result]:
        raise PermissionError(errno.EACCES, path)

    monkeypatch.setattr(asyncmg.files.reply, "open_file", refuse)
    reply = StaticFolder(root, page404=root / "page.html").reply_to(message("/nothing"))
    assert (reply.status, reply.body) == (404, "404 Not Found\n")


# -- pre-compressed files ------------------------------------------------------------------------------------------


@pytest.fixture
def compressed(root: Path) -> Path:
    """page.html with both siblings, data.bin with one that is too old."""
    for name, modified in (("page.html.gz", MODIFIED), ("page.html.br", MODIFIED), ("data.bin.gz", MODIFIED - 1)):
        (root / name).write_bytes(gzip.compress(b"gz") if name.endswith("gz") else b"brotli")
        os.utime(root / name, (modified, modified))
    return root


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("gzip, deflate, br", "br"),
        ("br", "br"),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("GZIP", "gzip"),
        ("gzip;q=1, br;q=0.9", "gzip"),
        ("br;q=0, gzip", "gzip"),
        ("br;q=0, gzip;q=0", ""),
        ("*", "br"),
        ("*;q=0.5, br;q=0", "gzip"),
        ("gzip, *;q=0", "gzip"),
        ("*;q=0", ""),
        ("identity", ""),
        ("identity, gzip;q=0.5", ""),
        ("identity;q=0.5, gzip", "gzip"),
        ("deflate, zstd", ""),
        ("br;q=x", ""),
        ("", ""),
        ("gzipped", ""),
    ],
)
def test_which_coding_is_sent(compressed: Path, accept: str, coding: str) -> None:
    reply = get(compressed, "/page.html", Accept_Encoding=accept)
    fields = fields_of(reply)
    assert reply.status == 200
    assert fields.get("content-encoding", "") == coding
    assert fields["vary"] == "Accept-Encoding"
    assert fields["content-type"] == "text/html; charset=utf-8"
    expected = {"": PAGE, "br": b"brotli", "gzip": (compressed / "page.html.gz").read_bytes()}[coding]
    assert body_of(reply) == expected


def test_accept_encoding_on_several_lines(compressed: Path) -> None:
    reply = get(compressed, "/page.html", "GET", ("Accept-Encoding", "deflate"), ("Accept-Encoding", "gzip"))
    reply.close()
    assert fields_of(reply)["content-encoding"] == "gzip"


def test_without_a_sibling_nothing_varies(root: Path) -> None:
    reply = get(root, "/page.html", Accept_Encoding="gzip")
    reply.close()
    assert not {"vary", "content-encoding"} & set(fields_of(reply))


def test_siblings_that_are_not_sent(compressed: Path) -> None:
    (compressed / "empty.txt.gz").mkdir()
    (compressed / "sub" / "x").write_bytes(b"x")
    (compressed / "sub" / "x.gz").symlink_to("../page.html.gz")
    for target, expected in (("/data.bin", bytes(range(256)) * 40), ("/empty.txt", b""), ("/sub/x", b"x")):
        reply = get(compressed, target, Accept_Encoding="gzip")
        assert "content-encoding" not in fields_of(reply)
        assert body_of(reply) == expected
    off = StaticFolder(compressed, precompressed=False).reply_to(message("/page.html", Accept_Encoding="gzip"))
    assert body_of(off) == PAGE and "vary" not in fields_of(off)


def test_a_compressed_file_asked_for_by_name(compressed: Path) -> None:
    reply = get(compressed, "/page.html.gz", Accept_Encoding="gzip")
    assert fields_of(reply)["content-type"] == "application/gzip" and "content-encoding" not in fields_of(reply)
    assert body_of(reply) == (compressed / "page.html.gz").read_bytes()


def test_every_coding_has_its_validators(compressed: Path) -> None:
    tags = {accept: etag_of(compressed, "/page.html", Accept_Encoding=accept) for accept in ("", "gzip", "br")}
    assert len(set(tags.values())) == 3
    for accept, etag in tags.items():
        reply = get(compressed, "/page.html", Accept_Encoding=accept, If_None_Match=etag)
        assert reply.status == 304 and fields_of(reply)["vary"] == "Accept-Encoding"
    reply = get(compressed, "/page.html", Accept_Encoding="br", If_None_Match=tags["gzip"])
    assert body_of(reply) == b"brotli"


def test_ranges_of_a_coded_file(compressed: Path) -> None:
    reply = get(compressed, "/page.html", Accept_Encoding="br", Range="bytes=1-3")
    fields = fields_of(reply)
    assert (reply.status, body_of(reply)) == (206, b"rot")
    assert (fields["content-encoding"], fields["content-range"]) == ("br", "bytes 1-3/6")
    # A coded multipart would be ambiguous: the whole.
    reply = get(compressed, "/page.html", Accept_Encoding="br", Range="bytes=0-0,2-2")
    assert (reply.status, body_of(reply)) == (200, b"brotli")
    assert "content-range" not in fields_of(reply)


def test_an_index_may_be_compressed(root: Path) -> None:
    (root / "sub" / "index.html").write_text("index")
    (root / "sub" / "index.html.gz").write_bytes(b"zipped")
    reply = get(root, "/sub/", Accept_Encoding="gzip")
    assert body_of(reply) == b"zipped"
    assert fields_of(reply)["content-type"] == "text/html; charset=utf-8"
