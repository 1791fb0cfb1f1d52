"""The one rule about peer programs: a missing one skips its tests, and fails them under ASYNCMG_REQUIRE_PEERS=1."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skip, or fail where peers are required."""
    if os.environ.get("ASYNCMG_REQUIRE_PEERS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def peer(*names: str) -> str:
    """Return the path of the first of these programs that is installed."""
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return found
    missing(f"not installed: {' or '.join(names)}")
