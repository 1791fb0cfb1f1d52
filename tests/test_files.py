"""Files as replies: no spelling of a path leads out of the root; types and validators."""

from __future__ import annotations

import os
from email.utils import formatdate
from pathlib import Path

import pytest

from asyncmg.codecs.http import Framing, RequestHead
from asyncmg.files import FileReply, content_type_of, file_reply, map_path
from asyncmg.messages import Content, HttpMessage

SECRET = "secret.txt"


def message(target: str, method: str = "GET", **headers: str) -> HttpMessage:
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    head = RequestHead(method, target, "HTTP/1.1", fields, Framing.NONE, 0, True, False, "")
    return HttpMessage(head, Content(1 << 16, lambda: None, lambda: None))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a secret beside it, and links in both directions."""
    (tmp_path / SECRET).write_text("secret")
    (tmp_path / "rootbeside").mkdir()
    (tmp_path / "rootbeside" / SECRET).write_text("secret")
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "a b?c#d%").mkdir()
    (root / "page.html").write_text("<p>page")
    (root / "index.html").write_text("<p>index")
    (root / "sub" / "index.html").write_text("<p>sub")
    (root / "%2e%2e").write_text("literal")
    (root / "..a").write_text("dots")
    (root / "out").symlink_to(tmp_path / SECRET)
    (root / "outdir").symlink_to(tmp_path)
    (root / "beside").symlink_to(tmp_path / "rootbeside")
    (root / "within").symlink_to(root / "page.html")
    (root / "dirwithin").symlink_to(root / "sub")
    (root / "loop").symlink_to(root / "loop")
    (root / "dangling").symlink_to(root / "nothing")
    return root


def served(target: str, root: Path) -> bytes | FileReply:
    """What a request for target gets: the content of a file, or the reply without one."""
    path = map_path(message(target), root)
    if isinstance(path, FileReply):
        return path
    reply = file_reply(message(target), path)
    return b"".join(reply.chunks) if reply.chunks is not None else reply


@pytest.mark.parametrize(
    ("target", "content"),
    [
        ("/page.html", b"<p>page"),
        ("/page.html?x=../..", b"<p>page"),
        ("/%70age.html", b"<p>page"),
        ("//page.html", b"<p>page"),
        ("/./sub/./index.html", b"<p>sub"),
        ("/", b"<p>index"),
        ("/?q", b"<p>index"),
        ("/sub/", b"<p>sub"),
        ("http://h/sub/", b"<p>sub"),
        ("/dirwithin/", b"<p>sub"),
        ("/within", b"<p>page"),
        ("/..a", b"dots"),
        ("/%252e%252e", b"literal"),
    ],
)
def test_what_is_served(root: Path, target: str, content: bytes) -> None:
    assert served(target, root) == content


ESCAPES = [
    f"{up}{SECRET}"
    for up in (
        "/../", "/sub/../../", "/%2e%2e/", "/%2E%2e/", "/.%2e/", "/..%2f", "/..%5c", "/..\\", "\\..\\", "/%5c..%5c",
        "/%252e%252e/", "/%252e%252e%252f", "/..%252f", "/%c0%ae%c0%ae/", "/..;/", "/.../", "/%2e%2e%00/", "/./.././",
        "//../", "/sub//..//../", "/outdir/", "/beside/", "/outdir/rootbeside/", "/sub/%2e%2e/%2e%2e/", "../", "..%2f",
        "/page.html/../../", "/dirwithin/../../", "/..%00/", "/%u002e%u002e/", "/\u2025/", "/outdir//",
    )
]  # fmt: skip
ESCAPES += [
    "/out",
    "/..",
    "/%2e%2e",
    "/../",
    "/outdir",
    "/outdir/",
    "/../rootbeside/" + SECRET,
    "http://h/../" + SECRET,
]


@pytest.mark.parametrize("target", ESCAPES)
def test_nothing_leads_out_of_the_root(root: Path, target: str) -> None:
    reply = served(target, root)
    assert isinstance(reply, FileReply), reply
    assert reply.status in (400, 404)
    assert reply.chunks is None


def test_an_absolute_path_is_below_the_root(root: Path, tmp_path: Path) -> None:
    for target in (
        f"/{tmp_path}/{SECRET}",
        f"{tmp_path}/{SECRET}",
        f"/%2f{tmp_path}/{SECRET}",
        f"file://{tmp_path}/{SECRET}",
    ):
        reply = served(target, root)
        assert isinstance(reply, FileReply) and reply.status == 404


def test_index_html_that_links_out_of_the_root(root: Path, tmp_path: Path) -> None:
    (root / "empty" / "index.html").symlink_to(tmp_path / SECRET)
    reply = served("/empty/", root)
    assert isinstance(reply, FileReply), reply
    assert reply.status == 404


def test_index_html_that_links_within_the_root(root: Path) -> None:
    (root / "empty" / "index.html").symlink_to(root / "page.html")
    assert served("/empty/", root) == b"<p>page"


def test_the_root_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    assert served("/page.html", tmp_path / "alias") == b"<p>page"
    assert served("/within", tmp_path / "alias") == b"<p>page"


@pytest.mark.parametrize(
    "target",
    [
        "/nothing",
        "/page.html/",
        "/page.html/x",
        "/empty/",
        "/loop",
        "/loop/",
        "/dangling",
        "/" + "a" * 5000,
        "/%ff",
        "*",
    ],
)
def test_not_found(root: Path, target: str) -> None:
    reply = served(target, root)
    assert isinstance(reply, FileReply)
    assert reply.status == 404


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    reply = served("/x", tmp_path / "nothing")
    assert isinstance(reply, FileReply) and reply.status == 404


@pytest.mark.parametrize("target", ["/a\\b", "/%5c", "/a%00", "/%00", "/page.html%00.txt", "/sub/../page.html"])
def test_bad_request(root: Path, target: str) -> None:
    reply = served(target, root)
    assert isinstance(reply, FileReply) and reply.status == 400


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/sub", "/sub/"),
        ("/sub?a=b&c=%20", "/sub/?a=b&c=%20"),
        ("//sub", "/sub/"),
        ("/./sub", "/sub/"),
        ("/a%20b%3fc%23d%25", "/a%20b%3Fc%23d%25/"),
        ("/dirwithin", "/dirwithin/"),
    ],
)
def test_a_directory_without_its_slash_is_redirected(root: Path, target: str, location: str) -> None:
    reply = map_path(message(target), root)
    assert isinstance(reply, FileReply)
    assert (reply.status, reply.header_lines) == (301, f"Location: {location}\r\n")


def test_a_redirect_never_leads_to_another_host_or_line(root: Path) -> None:
    for name in ("evil.example", "a\r\nX: y"):
        (root / name).mkdir()
    reply = map_path(message("//evil.example"), root)
    assert isinstance(reply, FileReply) and reply.header_lines == "Location: /evil.example/\r\n"
    reply = map_path(message("/a%0d%0aX:%20y"), root)
    assert isinstance(reply, FileReply) and reply.header_lines.count("\r\n") == 1


def test_a_redirect_to_a_name_that_is_not_utf8(root: Path) -> None:
    try:
        os.mkdir(os.fsencode(root) + b"/d\xff")
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    reply = map_path(message("/d%ff"), root)
    assert isinstance(reply, FileReply)
    assert (reply.status, reply.header_lines) == (301, "Location: /d%FF/\r\n")


def test_a_fifo_does_not_block_and_is_not_served(root: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no FIFOs here")
    os.mkfifo(root / "fifo")
    reply = served("/fifo", root)
    assert isinstance(reply, FileReply) and reply.status == 404


def test_devices_and_directories_are_not_served(root: Path) -> None:
    for path in (os.devnull, root / "sub", root / "nothing", "a\x00b"):
        assert file_reply(message("/"), path).status == 404


# -- the reply itself ----------------------------------------------------------------------------------------------


def lines_of(reply: FileReply) -> dict[str, str]:
    assert reply.header_lines.endswith("\r\n")
    return dict(line.split(": ", 1) for line in reply.header_lines.removesuffix("\r\n").split("\r\n"))


def close(reply: FileReply) -> FileReply:
    if reply.chunks is not None:
        reply.chunks.close()  # type: ignore[attr-defined]
    return reply


def test_reply(root: Path) -> None:
    path = root / "page.html"
    os.utime(path, (1_000_000_000.5, 1_000_000_000.5))
    reply = file_reply(message("/page.html"), path)
    assert (reply.status, reply.length, reply.body) == (200, 7, "")
    lines = lines_of(reply)
    assert lines["Last-Modified"] == "Sun, 09 Sep 2001 01:46:40 GMT"
    assert lines["Content-Type"] == "text/html; charset=utf-8"
    assert lines["ETag"].startswith('"') and lines["ETag"].endswith('"')
    assert reply.chunks is not None
    assert b"".join(reply.chunks) == b"<p>page"


def test_the_etag_changes_with_the_file(root: Path) -> None:
    path = root / "page.html"
    before = lines_of(close(file_reply(message("/"), path)))["ETag"]
    assert lines_of(close(file_reply(message("/"), path)))["ETag"] == before
    path.write_text("<p>longer page")
    assert lines_of(close(file_reply(message("/"), path)))["ETag"] != before


def test_head(root: Path) -> None:
    reply = close(file_reply(message("/", "HEAD"), root / "page.html"))
    assert (reply.status, reply.length) == (200, 7)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get", "PATCH"])
def test_other_methods(root: Path, method: str) -> None:
    reply = file_reply(message("/", method), root / "page.html")
    assert (reply.status, reply.chunks) == (405, None)
    assert lines_of(reply) == {"Allow": "GET, HEAD"}


def test_if_none_match(root: Path) -> None:
    path = root / "page.html"
    etag = lines_of(close(file_reply(message("/"), path)))["ETag"]
    for value in (etag, f"W/{etag}", "*", f'"x", {etag}', f'"x",W/{etag} , "y"'):
        for method in ("GET", "HEAD"):
            reply = file_reply(message("/", method, If_None_Match=value), path)
            assert (reply.status, reply.chunks, reply.length) == (304, None, 0)
            assert lines_of(reply)["ETag"] == etag
    for value in ('"x"', etag.strip('"'), "", f"X{etag}"):
        assert close(file_reply(message("/", If_None_Match=value), path)).status == 200


def test_if_modified_since(root: Path) -> None:
    path = root / "page.html"
    os.utime(path, (1_000_000_000, 1_000_000_000))
    for seconds, status in ((1_000_000_000, 304), (1_000_000_001, 304), (999_999_999, 200)):
        since = formatdate(seconds, usegmt=True)
        assert close(file_reply(message("/", If_Modified_Since=since), path)).status == status


@pytest.mark.parametrize(
    "since",
    [
        "",
        "yesterday",
        "0",
        "Sun, 99 Sep 2001 01:46:40 GMT",
        "Sun, 09 Sep 99999999999999999999 01:46:40 GMT",
        "Mon, 01 Jan 0001 00:00:00 -0000",
        "Mon, 01 Jan 0001 00:00:00 +2359",
        "Sun, 09 Sep 2001 01:46:40 +99999999999999999999",
        "Sun, 09 Sep 2001 99999999999999999999:46:40 GMT",
        "\x00",
    ],
)
def test_if_modified_since_that_is_no_date_is_ignored(root: Path, since: str) -> None:
    """RFC 9110 section 13.1.3."""
    assert close(file_reply(message("/", If_Modified_Since=since), root / "page.html")).status == 200


def test_if_none_match_decides_alone(root: Path) -> None:
    """RFC 9110 section 13.2.2."""
    future = formatdate(4_000_000_000, usegmt=True)
    reply = file_reply(message("/", If_None_Match='"x"', If_Modified_Since=future), root / "page.html")
    assert close(reply).status == 200


def test_an_error_page_is_never_304(root: Path) -> None:
    reply = close(file_reply(message("/", If_None_Match="*"), root / "page.html", status=404))
    assert (reply.status, reply.length) == (404, 7)


@pytest.mark.parametrize(
    ("name", "mime_types", "expected"),
    [
        ("a.html", "", "text/html; charset=utf-8"),
        ("a.HTML", "", "text/html; charset=utf-8"),
        ("a.js", "", "text/javascript; charset=utf-8"),
        ("a.mjs", "", "text/javascript; charset=utf-8"),
        ("a.css", "", "text/css; charset=utf-8"),
        ("a.json", "", "application/json; charset=utf-8"),
        ("a.svg", "", "image/svg+xml; charset=utf-8"),
        ("a.wasm", "", "application/wasm"),
        ("a.png", "", "image/png"),
        ("a.unknown", "", "application/octet-stream"),
        ("a", "", "application/octet-stream"),
        (".html", "", "application/octet-stream"),
        ("a.foo", "foo=x/y", "x/y"),
        ("a.foo", "bar=a/b, .FOO=x/y", "x/y"),
        ("a.html", "html=x/y;a=b", "x/y;a=b"),
        ("a.foo", "bar=a/b", "application/octet-stream"),
        ("a.foo", "foo", "application/octet-stream"),
    ],
)
def test_content_type(name: str, mime_types: str, expected: str) -> None:
    assert content_type_of(Path(name), mime_types) == expected


def test_a_large_file_comes_in_pieces(root: Path) -> None:
    data = os.urandom(300_000)
    (root / "large.bin").write_bytes(data)
    reply = file_reply(message("/"), root / "large.bin")
    assert reply.chunks is not None and reply.length == len(data)
    pieces = list(reply.chunks)
    assert b"".join(pieces) == data
    assert len(pieces) > 1 and max(map(len, pieces)) <= 64 << 10
