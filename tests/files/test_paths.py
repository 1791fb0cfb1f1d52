"""What a request path opens: no spelling and no link leads out of the root."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

import asyncmg.files.paths
from asyncmg.files.paths import is_hidden, open_below, open_file, scan_below, split_path
from asyncmg.files.reply import FileReply, StaticFolder
from tests.files.served import body_of, fields_of, message, open_descriptors

SECRET = "secret.txt"


@pytest.fixture(params=["step by step", "look first"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to open: with openat, and that of systems without it."""
    if request.param == "look first":
        monkeypatch.setattr(asyncmg.files.paths, "_GOES_STEP_BY_STEP", False)
    elif not asyncmg.files.paths._GOES_STEP_BY_STEP:
        pytest.skip("no openat here")
    return str(request.param)


@pytest.fixture
def root(tmp_path: Path, way: str) -> Path:
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
    (root / "sub" / "more").mkdir()
    (root / "sub" / "more" / "deep.txt").write_text("deep")
    (root / "%2e%2e").write_text("literal")
    (root / "a..").write_text("dots")
    (root / ".hidden").write_text("secret")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("secret")
    (root / ".well-known").mkdir()
    (root / ".well-known" / "token").write_text("known")
    (root / "sub" / ".well-known").mkdir()
    (root / "sub" / ".well-known" / "token").write_text("secret")
    (root / "a\nb").write_text("secret")
    (root / "out").symlink_to(tmp_path / SECRET)
    (root / "outdir").symlink_to(tmp_path)
    (root / "beside").symlink_to(tmp_path / "rootbeside")
    (root / "parent").symlink_to("../rootbeside")
    (root / "within").symlink_to(root / "page.html")
    (root / "relative").symlink_to("sub/more/deep.txt")
    (root / "dirwithin").symlink_to(root / "sub")
    (root / "loop").symlink_to(root / "loop")
    (root / "dangling").symlink_to(root / "nothing")
    return root


def served(target: str, root: Path, **options: bool) -> bytes | FileReply:
    """What a request for target gets: the content of a file, or the reply without one."""
    before = open_descriptors()
    reply = StaticFolder(root, **options).reply_to(message(target))  # type: ignore[arg-type]  # only flags are given
    result = body_of(reply) if reply.content is not None else reply
    assert open_descriptors() == before
    return result


@pytest.mark.parametrize("follow_symlinks", [False, True])
@pytest.mark.parametrize(
    ("target", "content"),
    [
        ("/page.html", b"<p>page"),
        ("/page.html?x=../..", b"<p>page"),
        ("/%70age.html", b"<p>page"),
        ("//page.html", b"<p>page"),
        ("/./sub/./index.html", b"<p>sub"),
        ("/sub%2findex.html", b"<p>sub"),
        ("/sub/more/deep.txt", b"deep"),
        ("/", b"<p>index"),
        ("/?q", b"<p>index"),
        ("/sub/", b"<p>sub"),
        ("http://h/sub/", b"<p>sub"),
        ("/a..", b"dots"),
        ("/%252e%252e", b"literal"),
        ("/.well-known/token", b"known"),
    ],
)
def test_what_is_served(root: Path, target: str, content: bytes, follow_symlinks: bool) -> None:
    assert served(target, root, follow_symlinks=follow_symlinks) == content


FOLLOWED = [
    ("/within", b"<p>page"),
    ("/relative", b"deep"),
    ("/dirwithin/", b"<p>sub"),
    ("/dirwithin/more/deep.txt", b"deep"),
]


@pytest.mark.parametrize(("target", "content"), FOLLOWED)
def test_links_within_the_root_are_followed_when_wanted(root: Path, target: str, content: bytes) -> None:
    reply = served(target, root)
    assert isinstance(reply, FileReply) and reply.status == 404
    assert served(target, root, follow_symlinks=True) == content


ESCAPES = [
    f"{up}{SECRET}"
    for up in (
        "/../", "/sub/../../", "/%2e%2e/", "/%2E%2e/", "/.%2e/", "/..%2f", "/..%5c", "/..\\", "\\..\\", "/%5c..%5c",
        "/%252e%252e/", "/%252e%252e%252f", "/..%252f", "/%c0%ae%c0%ae/", "/..;/", "/.../", "/%2e%2e%00/", "/./.././",
        "//../", "/sub//..//../", "/outdir/", "/beside/", "/parent/", "/outdir/rootbeside/", "/sub/%2e%2e/%2e%2e/",
        "../", "..%2f", "/page.html/../../", "/dirwithin/../../", "/..%00/", "/%u002e%u002e/", "/\u2025/", "/outdir//",
        "/%0a../", "/..%0a/", "/..%0d%0a/", "/%7f../", "/sub/more/../../../", "/proc/self/root/", "/%2e%2e%5c",
    )
]  # fmt: skip
ESCAPES += [
    "/out",
    "/out/",
    "/..",
    "/%2e%2e",
    "/../",
    "/outdir",
    "/outdir/",
    "/parent/",
    "/../rootbeside/" + SECRET,
    "http://h/../" + SECRET,
]


@pytest.mark.parametrize("follow_symlinks", [False, True])
@pytest.mark.parametrize("target", ESCAPES)
def test_nothing_leads_out_of_the_root(root: Path, target: str, follow_symlinks: bool) -> None:
    reply = served(target, root, follow_symlinks=follow_symlinks, listing=True, hidden=True)
    assert isinstance(reply, FileReply), reply
    assert reply.status in (400, 404)


@pytest.mark.parametrize("follow_symlinks", [False, True])
def test_an_absolute_path_is_below_the_root(root: Path, tmp_path: Path, follow_symlinks: bool) -> None:
    for target in (
        f"/{tmp_path}/{SECRET}",
        f"{tmp_path}/{SECRET}",
        f"/%2f{tmp_path}/{SECRET}",
        f"file://{tmp_path}/{SECRET}",
    ):
        reply = served(target, root, follow_symlinks=follow_symlinks)
        assert isinstance(reply, FileReply) and reply.status == 404


@pytest.mark.parametrize("follow_symlinks", [False, True])
def test_index_html_that_links_out_of_the_root(root: Path, tmp_path: Path, follow_symlinks: bool) -> None:
    (root / "empty" / "index.html").symlink_to(tmp_path / SECRET)
    reply = served("/empty/", root, follow_symlinks=follow_symlinks)
    assert isinstance(reply, FileReply), reply
    assert reply.status == 404


def test_index_html_that_links_within_the_root(root: Path) -> None:
    (root / "empty" / "index.html").symlink_to(root / "page.html")
    assert served("/empty/", root, follow_symlinks=True) == b"<p>page"


@pytest.mark.parametrize("follow_symlinks", [False, True])
def test_the_root_may_be_a_link(root: Path, tmp_path: Path, follow_symlinks: bool) -> None:
    (tmp_path / "alias").symlink_to(root)
    assert served("/page.html", tmp_path / "alias", follow_symlinks=follow_symlinks) == b"<p>page"
    assert served("/sub/", tmp_path / "alias" / "outdir" / "root", follow_symlinks=follow_symlinks) == b"<p>sub"


def test_the_root_may_be_relative(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    assert served("/sub/more/deep.txt", Path("root")) == b"deep"
    monkeypatch.chdir(root)
    for here in ("", "."):
        reply = StaticFolder(here).reply_to(message("/page.html"))
        assert body_of(reply) == b"<p>page"


@pytest.mark.parametrize("target", ["/.hidden", "/.git/config", "/.git/", "/.git", "/sub/.well-known/token", "/..a"])
def test_hidden_names(root: Path, target: str) -> None:
    (root / "..a").write_text("secret")
    reply = served(target, root, listing=True)
    assert isinstance(reply, FileReply) and reply.status == 404
    shown = served(target, root, listing=True, hidden=True)
    assert shown == b"secret" or (isinstance(shown, FileReply) and shown.status in (200, 301))


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
        "/a" * 3000,
        "/%ff",
        "*",
    ],
)
@pytest.mark.parametrize("follow_symlinks", [False, True])
def test_not_found(root: Path, target: str, follow_symlinks: bool) -> None:
    reply = served(target, root, follow_symlinks=follow_symlinks)
    assert isinstance(reply, FileReply)
    assert reply.status == 404


def test_a_root_that_is_not_there(tmp_path: Path, way: str) -> None:
    reply = served("/x", tmp_path / "nothing", listing=True)
    assert isinstance(reply, FileReply) and reply.status == 404
    reply = served("/", tmp_path / "nothing", listing=True)
    assert isinstance(reply, FileReply) and reply.status == 404


@pytest.mark.parametrize(
    "target",
    [
        "/a\\b",
        "/%5c",
        "/a%00",
        "/%00",
        "/page.html%00.txt",
        "/sub/../page.html",
        "/a%0ab",
        "/a%0D",
        "/%09",
        "/%7f",
        "/%1b[2J",
        "/%c2%85",
        "/page.html%0a",
    ],
)
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
        ("/sub/more", "/sub/more/"),
        ("/a%20b%3fc%23d%25", "/a%20b%3Fc%23d%25/"),
        ("/.", "/"),
        ("/sub/.", "/sub/"),
    ],
)
def test_a_directory_without_its_slash_is_redirected(root: Path, target: str, location: str) -> None:
    reply = served(target, root)
    assert isinstance(reply, FileReply)
    assert (reply.status, reply.headers) == (301, [("Location", location)])


def test_a_redirect_never_leads_to_another_host_or_line(root: Path) -> None:
    for name in ("evil.example", "a\r\nX: y"):
        (root / name).mkdir()
    for target in ("//evil.example", "///evil.example", "/.//evil.example", "/%2fevil.example", "/.%2f/evil.example"):
        reply = served(target, root)
        assert isinstance(reply, FileReply) and fields_of(reply) == {"location": "/evil.example/"}
    reply = served("/a%0d%0aX:%20y", root)
    assert isinstance(reply, FileReply) and (reply.status, reply.headers) == (400, [])


def test_a_name_that_is_not_utf8(root: Path) -> None:
    try:
        os.mkdir(os.fsencode(root) + b"/d\xff")
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    (root / os.fsdecode(b"d\xff") / "x").write_text("x")
    reply = served("/d%ff", root)
    assert isinstance(reply, FileReply)
    assert (reply.status, reply.headers) == (301, [("Location", "/d%FF/")])
    assert served("/d%ff/x", root) == b"x"


def test_what_is_no_file_is_not_served_and_does_not_block(root: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no FIFOs here")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.relpath(root / "sock"))
        for target in ("/fifo", "/sock", "/fifo/", "/fifo/x"):
            reply = served(target, root)
            assert isinstance(reply, FileReply) and reply.status == 404
    for path in (os.devnull, root / "fifo"):
        with pytest.raises(FileNotFoundError):
            open_file(path)


def test_a_folder_that_becomes_a_link_in_between(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race that looking first and opening then would lose: the link is put there before each step."""
    if not asyncmg.files.paths._GOES_STEP_BY_STEP:
        pytest.skip("documented: can be lost here")
    (root / "victim").mkdir()
    (root / "victim" / SECRET).write_text("public")
    real_open = os.open

    def swap(path: str, flags: int, *, dir_fd: int | None = None) -> int:
        if os.path.basename(path) == "victim" and not (root / "victim").is_symlink():
            (root / "victim").rename(root / "moved")
            (root / "victim").symlink_to(tmp_path)
        return real_open(path, flags, dir_fd=dir_fd)

    monkeypatch.setattr(asyncmg.files.paths.os, "open", swap)
    for follow_symlinks in (False, True):
        reply = served(f"/victim/{SECRET}", root, follow_symlinks=follow_symlinks)
        assert isinstance(reply, FileReply) and reply.status == 404
        (root / "victim").unlink()
        (root / "moved").rename(root / "victim")


def test_a_folder_that_may_be_passed_but_not_listed(root: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may do everything")
    if not hasattr(os, "O_PATH"):
        pytest.skip("no O_PATH here")
    (root / "sub").chmod(0o711)
    assert served("/sub/", root) == b"<p>sub"
    assert served("/sub/index.html", root) == b"<p>sub"
    (root / "sub" / "index.html").chmod(0)
    reply = served("/sub/", root)
    assert isinstance(reply, FileReply) and reply.status == 403
    (root / "sub").chmod(0o755)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/", []),
        ("", []),
        ("/a/b", ["a", "b"]),
        ("//a/./b//", ["a", "b"]),
        ("/...", ["..."]),
        ("/%2e%2e", ["%2e%2e"]),
        ("/..", None),
        ("/a/..", None),
        ("..", None),
        ("/a\\b", None),
        ("/\x1f", None),
        ("/\x9f", None),
        ("/\udcff", ["\udcff"]),
        ("/\u2028", ["\u2028"]),
    ],
)
def test_split_path(path: str, parts: list[str] | None) -> None:
    assert split_path(path) == parts


def test_is_hidden() -> None:
    assert is_hidden([".a"]) and is_hidden(["a", ".b", "c"]) and is_hidden(["a", ".well-known"])
    assert not is_hidden([]) and not is_hidden(["a.b"]) and not is_hidden([".well-known", "x"])


def test_the_errors_of_open_below(root: Path) -> None:
    for parts, error in (
        (["sub"], IsADirectoryError),
        ([], IsADirectoryError),
        (["nothing"], FileNotFoundError),
        (["out"], FileNotFoundError),
        (["page.html", "x"], NotADirectoryError),
        (["a\x00b"], ValueError),
    ):
        before = open_descriptors()
        with pytest.raises(error):
            open_below(root, parts)
        assert open_descriptors() == before
    fd, info = open_below(str(root), ["page.html"])
    os.close(fd)
    assert info.st_size == 7


def test_scan_below(root: Path, tmp_path: Path) -> None:
    before = open_descriptors()
    with scan_below(root, ["sub"]) as entries:
        assert {entry.name: entry.stat(follow_symlinks=False).st_size > 0 for entry in entries}["index.html"]
    with pytest.raises(OSError):
        with scan_below(root, ["outdir"]):
            pass
    with pytest.raises(OSError):
        with scan_below(root, ["dirwithin"]):
            pass
    with pytest.raises(FileNotFoundError):
        with scan_below(root, ["outdir"], follow_symlinks=True):
            pass
    with scan_below(root, ["dirwithin"], follow_symlinks=True) as entries:
        assert "index.html" in {entry.name for entry in entries}
    assert open_descriptors() == before
