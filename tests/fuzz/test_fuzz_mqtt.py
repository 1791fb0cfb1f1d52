"""The fuzzer of the MQTT codecs, for a few seconds: nothing is wrong, and all that matters is met."""

from __future__ import annotations

from tests.fuzz.fuzz_mqtt import CODES, main


def test_some_thousand_inputs() -> None:
    seen = main(["--inputs", "10000", "--seed", "3", "--quiet"])
    assert seen["faults"] == 0
    for code in CODES:
        assert seen[f"error {code:#x}"] > 3, f"hardly met: {code:#x}"
    assert seen["no error"] > 1500
    for kind in range(1, 16):
        assert seen[f"packet {kind}"] > 50, f"hardly met: {kind}"
