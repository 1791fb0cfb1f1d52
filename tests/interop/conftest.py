"""What peers talk to: the demo, running; and which backend serves them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

import asyncmg.core
from tests.examples.program import Program


@pytest.fixture(params=["native", "asyncio"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs once on each backend, its programs included."""
    name: str = request.param
    core = asyncmg.core.load()
    if name == "native" and (core is None or core.engine is None):
        if os.environ.get("ASYNCMG_REQUIRE_CORE") == "1":
            pytest.fail(f"no C core: {asyncmg.core.status().reason}")
        pytest.skip("no C core")
    monkeypatch.setenv("ASYNCMG_BACKEND", name)
    return name


@pytest.fixture
def demo_url() -> Iterator[str]:
    """URL of a demo of its own; at the end it has to stop cleanly, with nothing on stderr."""
    with Program("-m", "asyncmg", "demo", "--port", "0") as program:
        match = re.search(r"http://\S+:\d+", program.line())
        assert match
        yield match[0]
        program.stop_cleanly()
