"""Every event loop that the project promises, and both DNS codecs."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

import asyncmg.core

_LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"stdlib": asyncio.SelectorEventLoop}
if sys.platform != "win32":
    import uvloop

    _LOOPS["uvloop"] = uvloop.new_event_loop


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every async test here runs on each loop."""
    return _LOOPS


@pytest.fixture(params=["portable", "native"])
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs with each codec, in the resolvers that it makes."""
    name: str = request.param
    if name == "native" and asyncmg.core.load() is None:
        if os.environ.get("ASYNCMG_REQUIRE_CORE") == "1":
            pytest.fail(f"no C core: {asyncmg.core.status().reason}")
        pytest.skip("no C core")
    monkeypatch.setenv("ASYNCMG_DNS_CODEC", name)
    return name
