"""The differential fuzzer of SNTP, for a few seconds: both agree, and every fault is met."""

from __future__ import annotations

import pytest

from asyncmg.codecs.sntp_native import ERRORS
from tests.codecs.sntp_vector_file import SNTP_CODECS
from tests.fuzz.fuzz_sntp_differential import main


@pytest.mark.skipif("native" not in SNTP_CODECS, reason="no C core")
def test_some_thousand_inputs() -> None:
    seen = main(["--inputs", "10000", "--seed", "5"])
    assert seen["disagreements"] == 0
    for text, section in ERRORS.values():
        met = sum(count for name, count in seen.items() if text in name and section in name)
        assert met > 20, f"hardly met: {text}"
    assert seen["None"] > 100
