"""The C engine in a C program, without Python: every poller that the system has, optimised and under the sanitizers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import asyncmg.core

HERE = Path(__file__).parent
SOURCES = Path(asyncmg.core.__file__).parent
WARNINGS = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
SANITIZERS = ["-g", "-O1", "-fno-sanitize-recover=all", "-fsanitize=address,undefined"]
POLLERS = ["epoll" if sys.platform == "linux" else "kqueue", "poll"]

pytestmark = pytest.mark.skipif(sys.platform in ("win32", "cygwin"), reason="the engine is for POSIX")


@pytest.fixture(scope="module", params=[["-O2"], SANITIZERS], ids=["O2", "sanitizers"])
def program(request: pytest.FixtureRequest, compiler, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("engine")
    sources = sorted(SOURCES.glob("amg_*.c"))
    if not sources:
        pytest.skip("an installed package carries no C sources")
    if request.param is SANITIZERS and not compiler.can_build(directory, *SANITIZERS):
        if os.environ.get("ASYNCMG_REQUIRE_CORE") == "1":
            pytest.fail("the sanitizers do not link")
        pytest.skip("the sanitizers do not link")
    program = directory / "program"
    arguments = [*WARNINGS, *request.param, f"-I{SOURCES}", str(HERE / "engine_program.c"), *map(str, sources)]
    compiler.build(arguments, program)
    return program


@pytest.mark.parametrize("poller", POLLERS)
def test_engine_program(program: Path, poller: str, tmp_path: Path) -> None:
    # The leak check cannot run below a debugger; the program counts its descriptors itself.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    # The name of a Unix socket has room for about 100 bytes: the program goes to its directory by a short one.
    result = subprocess.run(
        [program, poller, "/proc/self/cwd" if sys.platform == "linux" else str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=environment,
        cwd=tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    assert int(result.stdout.split("\n")[-2].split()[0]) > 100_000
