"""match(): the wildcards of Mongoose, and that no input makes it slow."""

from __future__ import annotations

import itertools
import random
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncmg import matching
from asyncmg.errors import AsyncmgError
from asyncmg.matching import MAX_WILDCARDS, Glob, InvalidPattern, Wildcard, match


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


EXPRESSIONS = {Wildcard.ONE: "(.)", Wildcard.RUN: "([^/]*?)", Wildcard.NAME: "([^/]+?)", Wildcard.ANY: "(.*?)"}


@pytest.mark.parametrize("max_steps", [0, 1, 5, 200])
def test_both_algorithms_do_as_backtracking_does(max_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_MAX_STEPS", max_steps)
    chance = random.Random(max_steps)
    matched = 0
    for _ in range(5000):
        text = "".join(chance.choices("aab/", k=chance.randrange(14)))
        parts = [
            (chance.choice(list(Wildcard)), chance.choice(["", "", "a", "/", "ab"])) for _ in range(chance.randrange(6))
        ]
        prefix = chance.choice(["", "", "", "a"])
        expression = re.escape(prefix) + "".join(EXPRESSIONS[sign] + re.escape(literal) for sign, literal in parts)
        found = re.fullmatch(expression, text, re.DOTALL)
        matched += found is not None
        assert Glob(prefix, parts).captures(text) == (list(found.groups()) if found else None), (text, prefix, parts)
    assert 500 < matched < 4500


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
def test_steps_are_bounded(unit: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = unit * 30 + "x"
    glob = CountingGlob.parse(pattern)
    assert isinstance(glob, CountingGlob)
    assert glob.captures(text) is None
    assert glob.steps <= 200, "then the other algorithm takes over"
    monkeypatch.setattr(matching, "_MAX_STEPS", 10**9)
    assert glob.captures(text) is None
    wildcards = sum(pattern.count(sign) for sign in "?*#")
    assert glob.steps <= 200 + 2 * (len(text) + 1) * wildcards, "a place fails at most once for each wildcard"


def adversarial(unit: str, size: int) -> str:
    """As many wildcards as may be, the rest is text."""
    signs = sum(unit.count(sign) for sign in "?*#")
    count = min(MAX_WILDCARDS // signs, size // len(unit))
    return (unit + "a" * max((size // count - len(unit)) // 2, 0)) * count


def cpu_seconds(text: str, pattern: str) -> float:
    """The least of many tries: what else runs on the machine does not count."""
    best = 1.0
    for _ in range(20):
        begin = time.process_time()
        Glob.parse(pattern).captures(text)
        best = min(best, time.process_time() - begin)
    return best


@pytest.mark.parametrize("body", ["a", "a/", "aba/", "a" * 5000 + "/"])
@pytest.mark.parametrize("unit", ["*?", "*a", "#a", "*", "?#", "#a?a", "*a#b", "*b#a", "#/*a", "*/"])
def test_nothing_takes_long(unit: str, body: str) -> None:
    """10 KB of each: below 10 ms of CPU time. It is 3 to 8 on a slow machine; here the bound is for any machine."""
    pattern = adversarial(unit, 10_000)
    took = max(cpu_seconds((body * 10_000)[:9_999] + end, pattern) for end in "ab")
    begin = time.process_time()
    sum(number * number for number in range(100_000))  # 10 ms on a slow machine
    assert took < max(0.010, 3 * (time.process_time() - begin))


def test_names_are_not_empty() -> None:
    glob = Glob("/", [(Wildcard.NAME, "."), (Wildcard.NAME, "")])
    assert glob.captures("/a.b") == ["a", "b"]
    assert glob.captures("/.a.b") == [".a", "b"], "the first dot cannot be the one between them"
    for text in ("/.b", "/a.", "/a/b.c", "/a.b/c", "a.b", "/"):
        assert glob.captures(text) is None


def test_many_wildcards() -> None:
    assert match("a" * MAX_WILDCARDS, "?" * MAX_WILDCARDS) == (True, ["a"] * MAX_WILDCARDS)  # cymongoose: 20
    with pytest.raises(InvalidPattern, match="1001 wildcards are over max_wildcards=1000") as caught:
        match("a", "?" * (MAX_WILDCARDS + 1))
    assert isinstance(caught.value, AsyncmgError) and isinstance(caught.value, ValueError)


def test_long_patterns() -> None:
    literal = "a" * 1000
    assert match(f"{literal}/x", literal + "/*") == (True, ["x"])
    assert match(f"{literal}/x", literal + "/y*") == (False, [])
