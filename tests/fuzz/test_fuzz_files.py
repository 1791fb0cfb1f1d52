"""The fuzzer, for two seconds: it finds no broken law, and every outcome of each law is met."""

from __future__ import annotations

from tests.fuzz.fuzz_files import main

OUTCOMES = ["path 200", "path 301", "path 400", "path 404", "tags", "no tags", "date", "no date"]
OUTCOMES += ["range ignored", "range satisfiable", "range not satisfiable"]
OUTCOMES += [f"reply {status}" for status in (200, 204, 206, 304, 405, 412, 416)]


def test_two_seconds_of_random_requests() -> None:
    seen = main(["--seconds", "2", "--seed", "7"])
    assert seen["inputs"] > 100
    assert [outcome for outcome in OUTCOMES if not seen[outcome]] == []
