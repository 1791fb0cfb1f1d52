"""Validators, dates, and the order of conditions (RFC 9110 sections 5.6.7, 8.8 and 13)."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from asyncmg.files.conditions import (
    check_preconditions,
    entity_tag,
    format_http_date,
    last_modified,
    parse_entity_tags,
    parse_http_date,
    range_applies,
)

ETAG = '"abc"'
MODIFIED = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT
SAME = "Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
AFTER = "Sun, 06 Nov 1994 08:49:38 GMT"


def check(method: str = "GET", **fields: str) -> int:
    return check_preconditions(
        method, {name.replace("_", "-"): value for name, value in fields.items()}, ETAG, MODIFIED
    )


def test_no_condition() -> None:
    assert check() == 0
    assert check("PUT") == 0


@pytest.mark.parametrize(
    ("value", "matches"),
    [
        (ETAG, True),
        ("*", True),
        ('"x", "abc"', True),
        ('"x","abc","y"', True),
        (', ,"abc" ,', True),
        ('W/"abc"', False),
        ('"x"', False),
        ('"x,abc"', False),
        ('"x, "abc""', False),
        ("abc", False),
        ("", False),
        ('"abc" "x"', False),
        ('*, "abc"', False),
        ('"abc", *', False),
        ('w/"abc"', False),
    ],
)
def test_if_match(value: str, matches: bool) -> None:
    """Section 13.1.1: strong comparison."""
    for method in ("GET", "HEAD", "PUT"):
        assert check(method, if_match=value) == (0 if matches else 412)


@pytest.mark.parametrize(
    ("value", "matches"),
    [
        (ETAG, True),
        ("*", True),
        ('W/"abc"', True),
        ('"x", W/"abc"', True),
        ('"x",W/"abc" , "y"', True),
        ('W/"x,y" ,, "abc"', True),
        ('"x"', False),
        ('"abc', False),
        ('abc"', False),
        ('"x\\"", "abc', False),
        ("", False),
        ('X"abc"', False),
        ('"x, "abc", y"', False),
        ('W/W/"abc"', False),
        ('"abc"; "x"', False),
    ],
)
def test_if_none_match(value: str, matches: bool) -> None:
    """Section 13.1.2: weak comparison."""
    assert check(if_none_match=value) == (304 if matches else 0)
    assert check("HEAD", if_none_match=value) == (304 if matches else 0)
    assert check("PUT", if_none_match=value) == (412 if matches else 0)


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        ('"a,b", "c"', ['"a,b"', '"c"']),
        ('""', ['""']),
        ('W/""', ['W/""']),
        ('"\\", "b"', ['"\\"', '"b"']),
        ('"\udce4"', ['"\udce4"']),
        ('"a b"', []),
        ("\t ", []),
        ("*", []),
    ],
)
def test_parse_entity_tags(value: str, tags: list[str]) -> None:
    assert parse_entity_tags(value) == tags


def test_long_lists_take_linear_time() -> None:
    started = time.process_time()
    for value in (" " * 60_000 + "x", '"a"' + " " * 60_000 + "x", "," * 60_000 + "x", '"' * 60_000, "W/" * 30_000):
        assert parse_entity_tags(value) == []
    assert time.process_time() - started < 5  # quadratic: minutes


@pytest.mark.parametrize(("value", "status"), [(SAME, 0), (AFTER, 0), (BEFORE, 412), ("yesterday", 0), ("", 0)])
def test_if_unmodified_since(value: str, status: int) -> None:
    for method in ("GET", "PUT"):
        assert check(method, if_unmodified_since=value) == status


@pytest.mark.parametrize(
    ("value", "status"), [(SAME, 304), (AFTER, 304), (BEFORE, 0), ("yesterday", 0), ("", 0), (f"{AFTER}, {AFTER}", 0)]
)
def test_if_modified_since(value: str, status: int) -> None:
    assert check(if_modified_since=value) == status
    assert check("HEAD", if_modified_since=value) == status
    assert check("PUT", if_modified_since=value) == 0


def test_the_order_of_conditions() -> None:
    """Section 13.2.2."""
    # 1. If-Match decides in place of If-Unmodified-Since.
    assert check(if_match=ETAG, if_unmodified_since=BEFORE) == 0
    assert check(if_match='"x"', if_unmodified_since=AFTER) == 412
    # 1. and 2. come before 3. and 4.
    assert check(if_match='"x"', if_none_match=ETAG) == 412
    assert check(if_match=ETAG, if_none_match=ETAG) == 304
    assert check(if_unmodified_since=BEFORE, if_none_match=ETAG) == 412
    assert check(if_unmodified_since=BEFORE, if_modified_since=AFTER) == 412
    # 3. If-None-Match decides in place of If-Modified-Since.
    assert check(if_none_match='"x"', if_modified_since=AFTER) == 0
    assert check(if_none_match=ETAG, if_modified_since=BEFORE) == 304
    assert check(if_match=ETAG, if_modified_since=AFTER) == 304


@pytest.mark.parametrize(
    ("value", "applies"),
    [
        (ETAG, True),
        (SAME, True),
        ("Sunday, 06-Nov-94 08:49:37 GMT", True),
        ('W/"abc"', False),
        ('"x"', False),
        (AFTER, False),
        (BEFORE, False),
        ("", False),
        (f"{ETAG}, {ETAG}", False),
        ("*", False),
    ],
)
def test_if_range(value: str, applies: bool) -> None:
    """Section 13.1.5: exact date, or strong comparison."""
    assert range_applies({"if-range": value}, ETAG, MODIFIED) is applies
    assert range_applies({}, ETAG, MODIFIED) is True


def test_if_range_with_the_date_of_this_second() -> None:
    """Section 8.8.2.2: what was written within this second may be written once more."""
    ahead = int(time.time()) + 100
    assert range_applies({"if-range": format_http_date(ahead)}, ETAG, ahead) is False
    assert range_applies({"if-range": ETAG}, ETAG, ahead) is True


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (SAME, MODIFIED),
        ("Sunday, 06-Nov-94 08:49:37 GMT", MODIFIED),
        ("Sun Nov  6 08:49:37 1994", MODIFIED),
        ("Sun Nov 06 08:49:37 1994", MODIFIED),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Wed, 31 Dec 1969 23:59:59 GMT", -1),
        ("Mon, 01 Jan 0001 00:00:00 GMT", -62135596800),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253402300799),
        ("Thu, 29 Feb 2024 00:00:00 GMT", 1709164800),
        ("Sat, 31 Dec 2016 23:59:60 GMT", 1483228800),
        ("Mon, 06 Nov 1994 08:49:37 GMT", MODIFIED),
    ],
)
def test_dates(value: str, seconds: int) -> None:
    assert parse_http_date(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        "yesterday",
        "0",
        "784111777",
        "Sun, 99 Sep 2001 01:46:40 GMT",
        "Sun, 29 Feb 2023 01:46:40 GMT",
        "Sun, 00 Sep 2001 01:46:40 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov  6 08:49:37 1994 GMT",
        "Sun, 09 Sep 99999999999999999999 01:46:40 GMT",
        "Sun, 0\u0666 Nov 1994 08:49:37 GMT",
        "\x00",
    ],
)
def test_what_is_no_date(value: str) -> None:
    assert parse_http_date(value) is None


def test_years_of_two_digits() -> None:
    """Section 5.6.7: more than 50 years ahead means the past."""
    this_year = time.gmtime().tm_year
    for year in range(this_year - 49, this_year + 51):
        parsed = parse_http_date(f"Sunday, 01-Mar-{year % 100:02} 00:00:00 GMT")
        assert parsed is not None
        found = time.gmtime(parsed).tm_year
        assert found % 100 == year % 100
        assert found <= this_year + 50


def test_formatted_dates() -> None:
    assert format_http_date(MODIFIED) == SAME
    assert format_http_date(0) == "Thu, 01 Jan 1970 00:00:00 GMT"


def test_validators_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 10)
    os.utime(path, ns=(10**18, 10**18 + 999_999_999))
    info = path.stat()
    assert last_modified(info) == 10**9
    tag = entity_tag(info)
    assert parse_entity_tags(tag) == [tag] and not tag.startswith("W/")
    assert len({tag, entity_tag(info, "br"), entity_tag(info, "gzip")}) == 3
    os.utime(path, ns=(0, 10**18 + 999_999_998))
    assert entity_tag(path.stat()) != tag
    os.utime(path, (0, 4_000_000_000))
    assert last_modified(path.stat()) <= int(time.time())  # section 8.8.2.1
    os.utime(path, (0, -10))
    assert last_modified(path.stat()) == 0
    assert parse_entity_tags(entity_tag(path.stat())) != []
