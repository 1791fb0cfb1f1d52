"""The fuzzer, for two seconds: it finds no broken law, and all outcomes are met."""

from __future__ import annotations

from tests.fuzz.fuzz_forms import main


def test_two_seconds_of_random_forms() -> None:
    seen = main(["--seconds", "2", "--seed", "7"])
    assert seen["inputs"] > 100
    for kind, outcomes in {"multipart": ("accepted", "400", "413"), "urlencoded": ("accepted", "400", "413")}.items():
        for outcome in outcomes:
            assert seen[f"{kind}: {outcome}"] > seen["inputs"] / 50, f"never met: {kind} {outcome}"
    assert seen["multipart: 415"]
    assert seen["compared with the loop"] > seen["inputs"] / 20
    assert seen["compared with urllib"] > seen["inputs"] / 20
