"""wrk against the demo: load, and not one error."""

from __future__ import annotations

import re
import subprocess

import pytest

from .peers import peer


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/api/echo?x=1", "/files/hello.txt"])
def test_two_seconds_without_an_error(demo_url: str, path: str) -> None:
    command = [peer("wrk"), "-t1", "-c32", "-d2s", demo_url + path]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    match = re.search(r"(\d+) requests in", result.stdout)
    assert match and int(match[1]) > 100, result.stdout
    # wrk prints these lines only when there is something to tell.
    assert "Socket errors" not in result.stdout, result.stdout
    assert "Non-2xx" not in result.stdout, result.stdout
