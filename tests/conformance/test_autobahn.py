"""Autobahn|Testsuite: every case OK or INFORMATIONAL, as server and client, with each codec.

`make conformance` runs all cases; here the long ones about sizes and compression are a cut.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from asyncmg import core
from tests.interop.peers import missing

from .autobahn import QUICK, Agent, Role, our_agent, run, selection
from .suite import Kind, Suite, SuiteUnavailableError, install

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

# One case of each kind: what a conversion can get wrong is bytes.
SAMPLE = selection(
    "1.1.*,1.2.*,2.*,3.3,5.19,5.20,6.2.*,6.3.*,6.4.2,6.4.3,6.22.*,7.*,9.1.2,9.3.4,9.7.1,10.*,12.1.2,13.5.2"
)
# What depends on when a handler or a transport has its turn.
CUT = selection("1.*,2.*,3.*,4.*,5.*,6.4.*,7.*,9.1.4,9.2.4,9.6.4,10.*,12.2.4")


def suite(kind: Kind | None = None) -> Suite:
    try:
        return install(kind or "auto")
    except SuiteUnavailableError as error:
        missing(f"no Autobahn|Testsuite: {error}")


def require(codec: str) -> None:
    if codec == "native" and core.load() is None:
        if os.environ.get("ASYNCMG_REQUIRE_CORE") == "1":
            pytest.fail(f"no C core: {core.status().reason}")
        pytest.skip("no C core")
    if codec == "wsproto":
        pytest.importorskip("wsproto")


@pytest.mark.parametrize(
    ("role", "codec"), [("server", "native"), ("server", "portable"), ("client", "native"), ("client", "portable")]
)
def test_conforms(role: Role, codec: str, tmp_path: Path) -> None:
    require(codec)
    outcome = run(suite(), our_agent(role, codec), QUICK, timeout=600, reports=tmp_path)
    print(outcome.table())
    assert outcome.passed, outcome.table()


@pytest.mark.parametrize(("codec", "face"), [("wsproto", None), ("native", "serve"), ("native", "async")])
def test_conforms_in_other_ways(codec: str, face: str | None, tmp_path: Path) -> None:
    require(codec)
    outcome = run(suite(), our_agent("server", codec, face=face), CUT, timeout=300, reports=tmp_path)
    assert outcome.passed, outcome.table()


@pytest.mark.parametrize("backend", ["asyncio", "native"])
def test_conforms_on_each_backend(backend: str, tmp_path: Path) -> None:
    require("native")
    outcome = run(suite(), our_agent("server", "native", backend), CUT, timeout=300, reports=tmp_path)
    assert outcome.passed, outcome.table()


@pytest.mark.parametrize("role", ["server", "client"])
def test_the_converted_suite_says_the_same(role: Role, tmp_path: Path) -> None:
    # It stands in for the original where there is no Python 2.7, and is not to rot where there is one.
    require("native")
    outcome = run(suite("converted"), our_agent(role, "native"), SAMPLE, timeout=300, reports=tmp_path)
    assert outcome.passed, outcome.table()


DEAF = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    listener.accept()[0].close()
"""


def test_a_server_that_does_not_answer_fails(tmp_path: Path) -> None:
    outcome = run(suite(), Agent("deaf", "server", (sys.executable, "-c", DEAF)), ["1.1.*"], 60, tmp_path)
    assert len(outcome.cases) == 8
    assert [result.behavior for result in outcome.failed] == ["FAILED"] * 8
    assert not outcome.passed and "never completed" in outcome.table()


@pytest.mark.parametrize(
    ("program", "problem"),
    [("print('no port')", "did not print its port"), ("raise SystemExit(3)", "did not print its port")],
)
def test_a_server_that_does_not_start_fails(program: str, problem: str, tmp_path: Path) -> None:
    outcome = run(suite(), Agent("broken", "server", (sys.executable, "-c", program)), ["1.1.1"], 60, tmp_path)
    assert not outcome.passed and problem in outcome.table()


def test_a_client_that_skips_its_cases_fails(tmp_path: Path) -> None:
    outcome = run(suite(), Agent("lazy", "client", (sys.executable, "-c", "")), ["1.1.*"], 60, tmp_path)
    assert not outcome.passed and len(outcome.missing) == 8


def test_a_client_that_hangs_is_ended(tmp_path: Path) -> None:
    program = "import time; time.sleep(1000)"
    outcome = run(suite(), Agent("idle", "client", (sys.executable, "-c", program)), ["1.1.*"], 5, tmp_path)
    assert not outcome.passed and "not done in time" in outcome.table()


def test_patterns_of_cases() -> None:
    assert selection("quick") == QUICK
    assert selection("1.*, 12.1.3") == ["1.*", "12.1.3"]
    with pytest.raises(ValueError, match="not a case"):
        selection("1.*;rm")
