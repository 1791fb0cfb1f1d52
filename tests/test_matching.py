"""match(): the wildcards of Mongoose, and that no input makes it slow."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncmg.matching import Glob, Wildcard, match


@pytest.mark.parametrize(
    ("text", "pattern", "captures"),
    [
        ("", "", []),
        ("/", "/", []),
        ("/api/users", "/api/users", []),
        ("/api/users", "/api/*", ["users"]),
        ("/api/users/7", "/api/*/*", ["users", "7"]),
        ("/api/users/7", "/api/#", ["users/7"]),
        ("/api/", "/api/*", [""]),
        ("/api/", "/api/#", [""]),
        ("/a.shtml", "#.shtml", ["/a"]),
        ("/v1", "/v?", ["1"]),
        ("a/b", "a?b", ["/"]),
        ("a/b/c/d", "#/#", ["a", "b/c/d"]),
        ("abc", "*?", ["ab", "c"]),
        ("abc", "**", ["", "abc"]),
        ("/x/a/b/c", "#/*/c", ["/x/a", "b"]),
        ("/\u00e4/\udcff", "/?/?", ["\u00e4", "\udcff"]),
        ("a\nb", "#", ["a\nb"]),
        ("a*b", "a*b", ["*"]),
    ],
)
def test_matches(text: str, pattern: str, captures: list[str]) -> None:
    assert match(text, pattern) == (True, captures)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("/api/users/7", "/api/*"),
        ("/API", "/api"),
        ("", "?"),
        ("a", ""),
        ("/api", "/api/#"),
        ("a/b", "*"),
        ("ab", "a?c"),
        ("aab", "a*a"),
        ("a,b", "a,b|c"),
        ("/x/a/b", "*/b"),
    ],
)
def test_does_not_match(text: str, pattern: str) -> None:
    assert match(text, pattern) == (False, [])


def by_backtracking(text: str, pattern: str) -> tuple[bool, list[str]]:
    expression = "".join({"?": "(.)", "*": "([^/]*?)", "#": "(.*?)"}.get(c, re.escape(c)) for c in pattern)
    found = re.fullmatch(expression, text, re.DOTALL)
    return found is not None, list(found.groups()) if found else []


def test_every_short_pattern_does_as_backtracking_does() -> None:
    texts = ["".join(text) for size in range(5) for text in itertools.product("ab/", repeat=size)]
    for size in range(4):
        for pattern in map("".join, itertools.product("?*#a/", repeat=size)):
            for text in texts:
                assert match(text, pattern) == by_backtracking(text, pattern), (text, pattern)


@given(st.text("ab/", max_size=14), st.text("?*#ab/", max_size=9))
def test_does_as_backtracking_does(text: str, pattern: str) -> None:
    assert match(text, pattern) == by_backtracking(text, pattern)


class CountingGlob(Glob):
    """Counts its steps: each looks for one place where a wildcard may end."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.steps = 0

    def _end(self, *args: object) -> int:
        self.steps += 1
        return super()._end(*args)  # type: ignore[arg-type]


@pytest.mark.parametrize("unit", ["*a", "#a", "*?", "?*", "#*", "*#", "#a*a?", "**"])
@pytest.mark.parametrize("text", ["a" * 500, "a/" * 250, "ab" * 250])
def test_steps_are_bounded(unit: str, text: str) -> None:
    pattern = unit * 30 + "x"
    glob = CountingGlob.parse(pattern)
    assert isinstance(glob, CountingGlob)
    assert glob.captures(text) is None
    wildcards = sum(pattern.count(sign) for sign in "?*#")
    assert glob.steps <= 2 * (len(text) + 1) * wildcards, "a place is found, and fails, at most once for each wildcard"


def test_names_are_not_empty() -> None:
    glob = Glob("/", [(Wildcard.NAME, "."), (Wildcard.NAME, "")])
    assert glob.captures("/a.b") == ["a", "b"]
    assert glob.captures("/.a.b") == [".a", "b"], "the first dot cannot be the one between them"
    for text in ("/.b", "/a.", "/a/b.c", "/a.b/c", "a.b", "/"):
        assert glob.captures(text) is None


def test_many_wildcards() -> None:
    assert match("a" * 3000, "?" * 3000) == (True, ["a"] * 3000)  # 20 are too many for cymongoose
