"""The differential fuzzer of DNS, for a few seconds: the codecs agree, and all that matters is met."""

from __future__ import annotations

import pytest

from asyncmg.codecs.dns_native import ERRORS
from tests.codecs.dns_vector_file import DNS_CODECS
from tests.fuzz.fuzz_dns_differential import TYPES, main


@pytest.mark.skipif("native" not in DNS_CODECS, reason="no C core")
def test_some_thousand_inputs() -> None:
    seen = main(["--inputs", "8000", "--seed", "5", "--quiet"])
    assert seen["disagreements"] == 0
    for text, section in ERRORS.values():
        met = sum(count for name, count in seen.items() if text in name and section in name)
        assert met > 20, f"hardly met: {text}"
    assert seen["messages"] > 1000
    for kind in TYPES:
        assert seen[f"type {kind}"] > 100, f"hardly met: {kind}"
