"""Content types by name: the same everywhere."""

from __future__ import annotations

import mimetypes
from pathlib import Path

import pytest

from asyncmg.files.mime import _standard_types, _type_of_suffix, content_type_of


@pytest.mark.parametrize(
    ("name", "mime_types", "expected"),
    [
        ("a.html", "", "text/html; charset=utf-8"),
        ("a.HTML", "", "text/html; charset=utf-8"),
        ("a.js", "", "text/javascript; charset=utf-8"),
        ("a.mjs", "", "text/javascript; charset=utf-8"),
        ("a.css", "", "text/css; charset=utf-8"),
        ("a.txt", "", "text/plain; charset=utf-8"),
        ("a.json", "", "application/json; charset=utf-8"),
        ("a.svg", "", "image/svg+xml; charset=utf-8"),
        ("a.md", "", "text/markdown; charset=utf-8"),
        ("a.xml", "", "text/xml; charset=utf-8"),
        ("a.wasm", "", "application/wasm"),
        ("a.png", "", "image/png"),
        ("a.webp", "", "image/webp"),
        ("a.woff2", "", "font/woff2"),
        ("a.mp4", "", "video/mp4"),
        ("a.pdf", "", "application/pdf"),
        ("a.tar.gz", "", "application/gzip"),
        ("a.tgz", "", "application/gzip"),
        ("a.br", "", "application/octet-stream"),
        ("a.unknown", "", "application/octet-stream"),
        ("a", "", "application/octet-stream"),
        ("a.", "", "application/octet-stream"),
        (".html", "", "application/octet-stream"),
        ("dir.html/a", "", "application/octet-stream"),
        ("a.foo", "foo=x/y", "x/y"),
        ("a.foo", "bar=a/b, .FOO=x/y", "x/y"),
        ("a.html", "html=x/y;a=b", "x/y;a=b"),
        ("a.foo", "bar=a/b", "application/octet-stream"),
        ("a.foo", "foo", "application/octet-stream"),
        ("a", "=x/y", "application/octet-stream"),
    ],
)
def test_content_type(name: str, mime_types: str, expected: str) -> None:
    assert content_type_of(name, mime_types) == expected
    assert content_type_of(Path(name), mime_types) == expected


def test_the_tables_of_the_machine_do_not_count() -> None:
    _standard_types.cache_clear()
    _type_of_suffix.cache_clear()
    mimetypes.init()
    mimetypes.add_type("x/machine", ".machine")
    mimetypes.add_type("x/machine", ".html")
    try:
        assert content_type_of("a.machine") == "application/octet-stream"
        assert content_type_of("a.html") == "text/html; charset=utf-8"
    finally:
        mimetypes.init()


def test_python_knows_the_rest() -> None:
    assert content_type_of("a.sh") == "application/x-sh"
