"""The fuzzer, for two seconds: it finds no broken law, and both outcomes of each law are met."""

from __future__ import annotations

from tests.fuzz.fuzz_http_portable import main


def test_two_seconds_of_random_requests() -> None:
    seen = main(["--seconds", "2", "--seed", "7"])
    assert seen["inputs"] > 100
    assert seen["both accept"] > seen["inputs"] / 10
    assert seen["ours refused, h11 refused"] > seen["inputs"] / 10
    for rule in ("bare LF", "obs-fold", "repeated Content-Length", "TE+CL", "Host", "target"):
        assert seen[f"stricter: {rule}"], f"never met: {rule}"
