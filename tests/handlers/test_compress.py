"""Compression: what is compressed, how it is negotiated, and what is said about it."""

from __future__ import annotations

import gzip
import random
import sys
import types
import zlib
from typing import Any

import pytest

from asyncmg.fields import accepted_codings
from asyncmg.handlers.compress import compress
from asyncmg.protocols.http_filters import ReplyDraft

from .fakes import FakeConnection, request

TEXT = b"a text that repeats itself. " * 100
NOISE = random.Random(1).randbytes(2000)
HTML = ("Content-Type", "text/html; charset=utf-8")


@pytest.fixture(autouse=True)
def no_brotli(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is installed must not matter here."""
    for name in ("brotli", "brotlicffi"):
        monkeypatch.setitem(sys.modules, name, None)


def reply(
    headers: list[tuple[str, str]] | None = None,
    body: bytes = TEXT,
    status: int = 200,
    *,
    accept: str | None = "gzip",
    fields: tuple[tuple[str, str], ...] = (),
    is_file: bool = False,
    streams: bool = False,
    **options: Any,
) -> ReplyDraft:
    """Let a reply pass through compress()."""
    conn = FakeConnection()
    if accept is not None:
        fields = (("Accept-Encoding", accept), *fields)
    conn.message = request("/", "GET", *fields)
    compress(lambda conn, ev, data: None, **options)(conn, 10, conn.message)
    draft = ReplyDraft(status, [HTML] if headers is None else headers, body, streams=streams, is_file=is_file)
    return conn.send_draft(draft)


def test_a_whole_body() -> None:
    draft = reply([HTML, ("ETag", '"1"'), ("Vary", "Accept")])
    assert gzip.decompress(draft.body) == TEXT
    assert draft.headers == [
        HTML,
        ("Vary", "Accept, Accept-Encoding"),
        ("Content-Encoding", "gzip"),
        ("ETag", 'W/"1"'),
    ]
    assert reply([HTML, ("ETag", 'W/"1"')]).header("ETag") == 'W/"1"'


@pytest.mark.parametrize(
    ("accept", "offered", "coding"),
    [
        ("", "br gzip", ""),
        ("gzip", "br gzip", "gzip"),
        ("GZIP", "gzip", "gzip"),
        ("x-gzip", "gzip", "gzip"),
        ("gzip, deflate, br, zstd", "br gzip", "br"),
        ("gzip, deflate, br, zstd", "gzip", "gzip"),
        ("gzip;q=1.0, br;q=0.9", "br gzip", "gzip"),
        ("gzip;q=0", "gzip", ""),
        ("gzip;q=0.000, *", "gzip", ""),
        ("gzip;q=0, *", "br gzip", "br"),
        ("*", "br gzip", "br"),
        ("*;q=0", "br gzip", ""),
        ("br;q=0, *;q=0.1", "br gzip", "gzip"),
        ("identity", "gzip", ""),
        ("identity;q=0", "gzip", ""),
        ("identity, gzip;q=0.5", "gzip", ""),
        ("identity;q=0.5, gzip;q=0.5", "gzip", "gzip"),
        ("gzip;q=0.001", "gzip", "gzip"),
        ("gzip;q=2", "gzip", ""),
        ("gzipx", "gzip", ""),
        (",, gzip ,", "gzip", "gzip"),
    ],
)
def test_negotiation(accept: str, offered: str, coding: str) -> None:
    assert "".join(accepted_codings(accept, offered.split())[:1]) == coding


def test_several_lines_of_accept_encoding() -> None:
    assert reply(accept="deflate", fields=(("accept-encoding", "gzip"),)).header("Content-Encoding") == "gzip"
    assert reply(accept=None).header("Content-Encoding") is None


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "TEXT/CSS;charset=utf-8",
        "application/json",
        "application/problem+json",
        "image/svg+xml",
        "application/javascript",
        "application/wasm",
    ],
)
def test_what_is_compressed(media_type: str) -> None:
    assert reply([("Content-Type", media_type)]).header("Content-Encoding") == "gzip"


@pytest.mark.parametrize("media_type", ["image/png", "application/octet-stream", "video/mp4", "text", "", "text/a/b"])
def test_other_types(media_type: str) -> None:
    draft = reply([("Content-Type", media_type)])
    assert (draft.body, draft.headers) == (TEXT, [("Content-Type", media_type)])
    assert reply([]).headers == []
    assert reply([("Content-Type", "image/png")], types="image/*").header("Content-Encoding") == "gzip"
    assert reply([("Content-Type", "image/png")], types=["image/*"]).header("Content-Encoding") == "gzip"
    assert reply(types=["image/*"]).header("Content-Encoding") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"status": 204},
        {"status": 206},
        {"status": 304},
        {"is_file": True, "streams": True, "body": b""},
        {"headers": [HTML, ("content-encoding", "br")]},
        {"headers": [HTML, ("Cache-Control", "max-age=1, No-Transform")]},
        {"headers": [HTML, ("Cache-Control", "private"), ("Cache-Control", "no-transform")]},
    ],
)
def test_what_stays_as_it_is(changes: dict[str, Any]) -> None:
    draft = reply(**changes)
    assert draft.body == changes.get("body", TEXT)
    assert draft.headers == changes.get("headers", [HTML])
    assert draft.encoder is None


@pytest.mark.parametrize(
    "changes",
    [{"accept": None}, {"accept": "identity"}, {"body": b"x" * 511}, {"body": NOISE}],
)
def test_what_might_have_been_compressed_varies(changes: dict[str, Any]) -> None:
    draft = reply(**changes)
    assert draft.body == changes.get("body", TEXT)
    assert draft.headers == [HTML, ("Vary", "Accept-Encoding")]


def test_the_smallest_size() -> None:
    assert reply(body=b"x" * 512).header("Content-Encoding") == "gzip"
    assert reply(body=b"x" * 30, min_size=30).header("Content-Encoding") == "gzip"


def test_a_304_names_what_the_client_has() -> None:
    headers = [("ETag", '"1"')]
    draft = reply(list(headers), b"", 304, fields=(("If-None-Match", '"0", W/"1"'),))
    assert draft.headers == [("ETag", 'W/"1"'), ("Vary", "Accept-Encoding")]
    assert reply(list(headers), b"", 304, fields=(("If-None-Match", '"1"'),)).headers == headers


def test_each_piece_of_a_stream_leaves_at_once() -> None:
    draft = reply([("Content-Type", "text/event-stream")], b"", streams=True)
    encoder = draft.encoder
    assert encoder is not None and draft.body == b"" and draft.header("Content-Encoding") == "gzip"
    decoder = zlib.decompressobj(31)
    for piece in (b"data: 1\n\n", b"data: 2\n\n" * 1000):
        assert decoder.decompress(encoder.encode(piece)) == piece
    assert decoder.decompress(encoder.finish()) == b""
    assert decoder.eof and not decoder.unused_data


class FakeBrotli:
    """Something that looks like brotli, and can be told from it."""

    class Compressor:
        def __init__(self, **options: Any) -> None:
            assert options["quality"] == 3
            self.held = b""

        def process(self, data: bytes) -> bytes:
            self.held += data
            return b"["

        def flush(self) -> bytes:
            held, self.held = self.held, b""
            return held

        def finish(self) -> bytes:
            return b"]"

    @staticmethod
    def compress(data: bytes, quality: int) -> bytes:
        assert quality == 3
        return b"br"


@pytest.mark.parametrize("name", ["brotli", "brotlicffi"])
def test_brotli_when_it_is_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType(name)
    vars(module).update(Compressor=FakeBrotli.Compressor, compress=FakeBrotli.compress)
    monkeypatch.setitem(sys.modules, name, module)
    draft = reply(accept="gzip, br", level=3)
    assert (draft.body, draft.header("Content-Encoding")) == (b"br", "br")
    assert reply(accept="gzip", level=3).header("Content-Encoding") == "gzip"
    encoder = reply(accept="br", level=3, streams=True, body=b"").encoder
    assert encoder is not None
    assert encoder.encode(b"one") + encoder.encode(b"two") + encoder.finish() == b"[one[two]"


@pytest.mark.parametrize("name", ["brotli", "brotlicffi"])
def test_brotli_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, name)
    module = pytest.importorskip(name)
    draft = reply(accept="br")
    assert draft.header("Content-Encoding") == "br" and module.decompress(draft.body) == TEXT
    encoder = reply(accept="br", streams=True, body=b"").encoder
    assert encoder is not None
    pieces = [encoder.encode(TEXT), encoder.encode(b"more"), encoder.finish()]
    decoder = module.Decompressor()
    at_once = decoder.process(pieces[0]) + decoder.process(b"")  # brotlicffi may want a second call
    assert at_once == TEXT, "the piece is complete before the next one comes"
    assert module.decompress(b"".join(pieces)) == TEXT + b"more"


@pytest.mark.parametrize("level", [0, 10, -1])
def test_levels(level: int) -> None:
    with pytest.raises(ValueError, match="level"):
        compress(lambda conn, ev, data: None, level=level)
