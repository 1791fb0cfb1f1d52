"""The demo, running, for peers to talk to."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.examples.program import Program


@pytest.fixture
def demo_url() -> Iterator[str]:
    """URL of a demo of its own; at the end it has to stop cleanly, with nothing on stderr."""
    with Program("-m", "asyncmg", "demo", "--port", "0") as program:
        match = re.search(r"http://\S+:\d+", program.line())
        assert match
        yield match[0]
        program.stop_cleanly()
