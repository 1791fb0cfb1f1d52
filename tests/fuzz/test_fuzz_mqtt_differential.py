"""The differential fuzzer, for a few seconds: the codecs agree, and all that matters is met."""

from __future__ import annotations

import pytest

from tests.codecs.mqtt_vector_file import MQTT_CODECS
from tests.fuzz.fuzz_mqtt import CODES
from tests.fuzz.fuzz_mqtt_differential import main


@pytest.mark.skipif("native" not in MQTT_CODECS, reason="no C core")
def test_some_thousand_inputs() -> None:
    seen = main(["--inputs", "8000", "--seed", "5", "--quiet"])
    assert seen["disagreements"] == 0
    for code in CODES:
        assert seen[f"error {code:#x}"] > 1, f"hardly met: {code:#x}"
    assert seen["no error"] > 1000
    for kind in range(1, 16):
        assert seen[f"packet {kind}"] > 40, f"hardly met: {kind}"
    texts = [name for name in seen if "MQTT 5.0" in name or "MQTT 3.1.1" in name]
    assert len(texts) > 90, "many different refusals"
