"""Laws of serving files (the law_* functions of tests/fuzz), and round trips."""

from __future__ import annotations

import random
import string
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncmg.files.conditions import format_http_date, parse_entity_tags, parse_http_date
from asyncmg.files.paths import is_hidden, split_path
from asyncmg.files.ranges import content_range, multipart_of, parse_range
from tests.fuzz.fuzz_files import (
    law_date,
    law_path,
    law_range,
    law_reply,
    law_tags,
    make_date,
    make_fields,
    make_path,
    make_range,
    make_root,
    make_tags,
)

SEEDS = st.integers(0, 2**48)
LATEST = 253402300799  # 9999-12-31T23:59:59Z


def made_by(maker: object) -> st.SearchStrategy[str]:
    return SEEDS.map(lambda seed: maker(random.Random(seed)))  # type: ignore[operator]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("files"))


@given(target=st.one_of(made_by(make_path), st.text(string.printable, max_size=30).map(lambda text: "/" + text)))
@example(target="/outdir/secret")
@example(target="/outdir/")
@example(target="/static/../.git/config")
@example(target="/%2e%2e/secret")
def test_no_path_gets_at_a_secret(root: Path, target: str) -> None:
    law_path(root, target)


@given(target=SEEDS, method=st.sampled_from(["GET", "HEAD", "POST", "OPTIONS"]))
def test_there_is_always_a_reply(root: Path, target: int, method: str) -> None:
    chance = random.Random(target)
    law_reply(root, method, chance.choice(["/data.bin", "/page.html", "/"]), make_fields(chance, '"2e-7"'))


@given(value=st.one_of(made_by(make_range), st.text("bytes=0123456789-, \t", max_size=40)), size=st.integers(0, 2000))
@example(value="bytes=-1", size=0)
@example(value="bytes=0-", size=0)
def test_ranges(value: str, size: int) -> None:
    law_range(value, size)


SPANS = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 40)), min_size=2, max_size=12)


@given(spans=SPANS, size=st.integers(1, 256))
def test_parts_of_a_multipart_are_parts_of_the_file(spans: list[tuple[int, int]], size: int) -> None:
    data = bytes(range(256))[:size]
    ranges = parse_range("bytes=" + ",".join(f"{first}-{first + length - 1}" for first, length in spans), size)
    assert ranges is not None
    if len(ranges) < 2:
        return
    content_type, segments = multipart_of(ranges, size, "a/b")
    boundary = content_type.partition("boundary=")[2]
    assert boundary.encode() not in data
    expected = b""
    for offset, length in ranges:
        head = f"\r\n--{boundary}\r\nContent-Type: a/b\r\nContent-Range: {content_range(offset, length, size)}\r\n\r\n"
        expected += head.encode() + data[offset : offset + length]
    expected += f"\r\n--{boundary}--\r\n".encode()
    sent = b"".join(part if isinstance(part, bytes) else data[part[0] : sum(part)] for part in segments)
    assert sent == expected.removeprefix(b"\r\n")


TAGS = st.builds(
    lambda weak, opaque: f'{weak}"{opaque}"',
    st.sampled_from(["", "W/"]),
    st.text(st.characters(min_codepoint=0x21, exclude_characters='"\x7f'), max_size=12),
)


@given(tags=st.lists(TAGS, min_size=1, max_size=6), separator=st.sampled_from([",", ", ", "\t, ", ",,", " , ,"]))
def test_entity_tags_that_are_written_are_read(tags: list[str], separator: str) -> None:
    assert parse_entity_tags(separator.join(tags)) == tags


@given(value=st.one_of(made_by(make_tags), st.text('W/"", \tabc\x7f\xe4*', max_size=20)))
def test_entity_tags(value: str) -> None:
    law_tags(value)


@given(seconds=st.integers(0, LATEST))
def test_dates_that_are_written_are_read(seconds: int) -> None:
    assert parse_http_date(format_http_date(seconds)) == seconds


@given(value=st.one_of(made_by(make_date), st.text("SunNov, 0123456789:-GMT", max_size=40)))
def test_dates(value: str) -> None:
    law_date(value)


NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="/\\"), min_size=1, max_size=10)


@given(parts=st.lists(NAMES.filter(lambda name: name not in (".", "..")), max_size=5))
def test_a_path_that_is_written_is_read(parts: list[str]) -> None:
    assert split_path("/" + "/".join(parts)) == parts
    assert split_path("//./" + "/./".join(parts) + "/") == parts
    # Encoded once more it is another path, and stays one.
    assert split_path("/" + "/".join(quote(part, safe="") for part in parts)) is not None


@given(path=st.text(st.characters(max_codepoint=0x2100), max_size=20))
def test_the_parts_of_any_path_are_names(path: str) -> None:
    parts = split_path(path)
    if parts is not None:
        assert all(part and part not in (".", "..") and not set(part) & set("/\\\0\n\r") for part in parts)
        assert isinstance(is_hidden(parts), bool)
