"""The differential fuzzer, for a few seconds: the codecs agree, and all that matters is met."""

from __future__ import annotations

import pytest

from tests.codecs.codec_list import CODECS
from tests.fuzz.fuzz_http_differential import main


@pytest.mark.skipif("native" not in CODECS, reason="no C core")
def test_some_thousand_inputs() -> None:
    seen = main(["--inputs", "12000", "--seed", "3", "--quiet"])
    assert seen["disagreements"] == 0
    for what in ("request", "body", "end", 400, 414, 417, 431, 501, 505):
        assert seen[f"server {what}"] > 10, f"hardly met: {what}"
    for what in ("response", "body", "end", 0, 400, 431, 501):
        assert seen[f"client {what}"] > 10, f"hardly met: {what}"
