"""Listings: what is in them, in which order, and that no name can do harm."""

from __future__ import annotations

import html.parser
import json
import os
import urllib.parse
from pathlib import Path

import pytest

import asyncmg.files.listing
from asyncmg.files.listing import prefers_json, read_folder, readable_size, sort_entries
from asyncmg.files.reply import FileReply, StaticFolder
from tests.files.served import body_of, fields_of, message

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


class Page(html.parser.HTMLParser):
    """What a browser sees: links with their texts, and all tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: dict[str, str] = {}
        self.tags: set[str] = set()
        self.text = ""
        self._href = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._href = dict(attrs).get("href") or "" if tag == "a" else ""
        assert {name for name, _ in attrs} <= {
            "aria-sort", "charset", "content", "href", "lang", "name", "scope", "value",
        }  # fmt: skip

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._href:
            self.links[self._href] = data
            self._href = ""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "Another").mkdir()
    for name, size, modified in (("b.txt", 3000, 1000), ("A.txt", 20, 3000), ("c.txt", 100, 2000)):
        (root / name).write_bytes(b"x" * size)
        os.utime(root / name, (modified, modified))
    (root / ".hidden").write_text("secret")
    (tmp_path / "outside").write_text("secret")
    return root


def listed(root: Path, target: str = "/", accept: str = "", **options: bool) -> FileReply:
    folder = StaticFolder(root, listing=True, **options)  # type: ignore[arg-type]  # only flags are given
    return folder.reply_to(message(target, Accept=accept))


def names(root: Path, target: str = "/", **options: bool) -> list[str]:
    return [entry["name"] for entry in json.loads(body_of(listed(root, target, "application/json", **options)))]


def page(root: Path, target: str = "/", **options: bool) -> Page:
    return Page(body_of(listed(root, target, **options)).decode())


def test_the_page(root: Path) -> None:
    reply = listed(root)
    assert reply.status == 200
    fields = fields_of(reply)
    assert fields["content-type"] == "text/html; charset=utf-8"
    assert fields["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert fields["vary"] == "Accept"
    shown = page(root)
    assert "script" not in shown.tags and {"html", "title", "table", "thead", "tbody", "th", "time"} <= shown.tags
    assert shown.links["folder/"] == "folder/" and shown.links["A.txt"] == "A.txt"
    assert "../" not in shown.links
    assert "2.9 KiB" in shown.text and "100 B" in shown.text and "1970-01-01T00:33:20Z" in shown.text
    assert "secret" not in shown.text and ".hidden" not in shown.text
    assert "Index of /" in shown.text
    below = page(root, "/folder/")
    assert below.links["../"] == "../" and "Index of /folder/" in below.text


def test_json(root: Path) -> None:
    reply = listed(root, accept="application/json")
    assert fields_of(reply)["content-type"] == "application/json"
    entries = json.loads(body_of(reply))
    assert {entry["name"]: entry for entry in entries}["b.txt"] == {
        "name": "b.txt",
        "type": "file",
        "size": 3000,
        "mtime": "1970-01-01T00:16:40Z",
    }
    folder = {entry["name"]: entry for entry in entries}["folder"]
    assert (folder["type"], folder["size"]) == ("directory", None)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", False),
        ("*/*", False),
        (BROWSER, False),
        ("application/json", True),
        ("Application/JSON", True),
        ("application/json, text/plain, */*", True),
        ("application/*, text/html;q=0.5", True),
        ("application/json;q=0.5, text/html", False),
        ("application/json;q=0.5, text/html;q=0.4", True),
        ("application/json, text/html", False),
        ("application/json;q=0, */*", False),
        ("application/json;q=0", False),
        ("text/html;q=0, */*", True),
        ("application/json;charset=utf-8", True),
        ("text/*", False),
        ("x", False),
        ("application/json;q=x", False),
    ],
)
def test_which_form_is_preferred(accept: str, expected: bool) -> None:
    assert prefers_json(accept) is expected


@pytest.mark.parametrize(
    ("query", "order"),
    [
        ("", ["Another", "folder", "A.txt", "b.txt", "c.txt"]),
        ("?sort=name", ["Another", "folder", "A.txt", "b.txt", "c.txt"]),
        ("?sort=name&order=desc", ["folder", "Another", "c.txt", "b.txt", "A.txt"]),
        ("?sort=size", ["Another", "folder", "A.txt", "c.txt", "b.txt"]),
        ("?sort=size&order=desc", ["folder", "Another", "b.txt", "c.txt", "A.txt"]),
        ("?order=asc&sort=size&x", ["Another", "folder", "A.txt", "c.txt", "b.txt"]),
        ("?sort=nothing&order=up", ["Another", "folder", "A.txt", "b.txt", "c.txt"]),
    ],
)
def test_order(root: Path, query: str, order: list[str]) -> None:
    assert names(root, f"/{query}") == order


def test_order_by_date(root: Path) -> None:
    assert [name for name in names(root, "/?sort=date") if "." in name] == ["b.txt", "c.txt", "A.txt"]
    assert [name for name in names(root, "/?sort=date&order=desc") if "." in name] == ["A.txt", "c.txt", "b.txt"]


def test_the_links_of_the_columns(root: Path) -> None:
    assert {"?sort=name&order=desc", "?sort=size&order=asc", "?sort=date&order=asc"} <= set(page(root).links)
    assert {"?sort=name&order=asc", "?sort=size&order=desc"} <= set(page(root, "/?sort=size").links)
    assert "?sort=size&order=asc" in page(root, "/?sort=size&order=desc").links


HOSTILE = [
    "<script>alert(1)</script>",
    '"onmouseover="x',
    "'x",
    "&lt;b&gt;",
    "javascript:alert(1)",
    "a b",
    "a?b#c",
    "%2e%2e",
    "100%",
    "+",
    "evil.example:80",
    "grün €\U0001f600",
    "\u202etxt.exe",
]
HOSTILE[0] = HOSTILE[0].replace("/", "")


def test_names_do_no_harm_and_their_links_work(root: Path) -> None:
    for name in HOSTILE:
        (root / "folder" / name).write_text(name)
    reply = listed(root, "/folder/")
    assert b"<script" not in body_of(reply)
    shown = page(root, "/folder/")
    assert "script" not in shown.tags
    for name in HOSTILE:
        assert name in shown.links.values()
        href = next(href for href, text in shown.links.items() if text == name)
        target = urllib.parse.urlsplit(urllib.parse.urljoin("http://h/folder/", href))
        assert target.netloc == "h" and not target.query and not target.fragment
        assert body_of(StaticFolder(root).reply_to(message(target.path))) == name.encode()
    assert set(names(root, "/folder/")) == set(HOSTILE)


def test_the_title_is_escaped(root: Path) -> None:
    (root / "<b>&").mkdir()
    shown = page(root, "/%3Cb%3E&/")
    assert "b" not in shown.tags and "Index of /<b>&/" in shown.text


def test_names_that_are_not_utf8(root: Path) -> None:
    try:
        (root / "folder" / os.fsdecode(b"a\xffb")).write_text("x")
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    assert page(root, "/folder/").links["a%FFb"] == "a\\xffb"
    assert names(root, "/folder/") == ["a\\xffb"]


def test_names_that_cannot_be_requested_are_not_listed(root: Path) -> None:
    for name in ("a\nb", "a\\b", "a\x7f", "a\x1bb"):
        (root / "folder" / name).write_text("x")
    assert names(root, "/folder/", hidden=True) == []


def test_hidden_names(root: Path) -> None:
    (root / ".well-known").mkdir()
    assert ".hidden" not in names(root) and ".well-known" not in names(root)
    assert ".hidden" in names(root, hidden=True)


def test_links_are_listed_when_they_are_served(root: Path) -> None:
    folder = root / "folder"
    (folder / "file").symlink_to("../b.txt")
    (folder / "sub").symlink_to("../Another")
    (folder / "out").symlink_to("../../outside")
    (folder / "outdir").symlink_to("../..")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nothing")
    assert names(root, "/folder/") == []
    assert names(root, "/folder/", follow_symlinks=True) == ["sub", "file"]
    reply = listed(root, "/folder/", "application/json", follow_symlinks=True)
    assert [entry["size"] for entry in json.loads(body_of(reply))] == [None, 3000]


def test_special_files_are_not_listed(root: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no FIFOs here")
    os.mkfifo(root / "folder" / "fifo")
    assert names(root, "/folder/") == []


def test_a_folder_with_too_many_entries(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncmg.files.listing, "MAX_ENTRIES", 3)
    for number in range(3):
        (root / "folder" / str(number)).write_text("x")
    assert "listing-truncated" not in fields_of(listed(root, "/folder/"))
    (root / "folder" / "3").write_text("x")
    reply = listed(root, "/folder/")
    assert "listing-truncated" in fields_of(reply)
    assert b"more than 3 entries" in body_of(reply)
    assert len(names(root, "/folder/")) == 3


def test_an_index_goes_before_the_listing(root: Path) -> None:
    assert b"Index of" in body_of(listed(root, "/folder/"))
    (root / "folder" / "index.html").write_text("index")
    assert body_of(listed(root, "/folder/")) == b"index"


def test_strange_times(root: Path) -> None:
    os.utime(root / "b.txt", (0, -5_000_000))
    try:
        os.utime(root / "c.txt", (0, 10**12))
    except (OSError, OverflowError):
        pass
    assert "b.txt" in names(root) and "b.txt" in page(root).links


def test_an_entry_that_vanishes_meanwhile(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "folder" / "link").symlink_to("../b.txt")

    def vanish(*_: object) -> os.stat_result:
        raise FileNotFoundError

    monkeypatch.setattr(asyncmg.files.listing, "_stat_link", vanish)
    assert read_folder(root, ["folder"], follow_symlinks=True).entries == []


def test_sorting_tells_what_it_did(root: Path) -> None:
    entries = read_folder(root, []).entries
    assert sort_entries(entries, "sort=date&order=desc")[1:] == ("date", True)
    assert sort_entries(entries, "")[1:] == ("name", False)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (1024**2, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (2**63 - 1, "8.0 EiB"),
    ],
)
def test_readable_size(size: int, text: str) -> None:
    assert readable_size(size) == text
