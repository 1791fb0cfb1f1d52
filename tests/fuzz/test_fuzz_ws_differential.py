"""The differential fuzzer, for a few seconds: the codecs agree, and all that matters is met."""

from __future__ import annotations

import pytest

from tests.codecs.ws_codec_list import WS_CODECS
from tests.fuzz.fuzz_ws_differential import main


@pytest.mark.skipif("native" not in WS_CODECS, reason="no C core")
def test_some_thousand_inputs() -> None:
    seen = main(["--inputs", "12000", "--seed", "3", "--quiet"])
    assert seen["disagreements"] == 0
    for code in (0, 1002, 1007, 1008, 1009):
        assert seen[f"error {code}"] > 100, f"hardly met: {code}"
    # Whole messages, fragments, pieces of frames, compressed ones, control frames.
    for flags in (0x81, 0x82, 0x21, 0x22, 0x20, 0x80, 0x00, 0x01, 0x02, 0xC1, 0xC2, 0x61, 0x62, 0x88, 0x89, 0x8A):
        assert seen[f"record {flags:02x}"] > 50, f"hardly met: {flags:02x}"
