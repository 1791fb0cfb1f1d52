"""The C core in a C program, without Python: compiled with every warning, run under the sanitizers where they link."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

import asyncmg.core

HERE = Path(__file__).parent
SOURCES = Path(asyncmg.core.__file__).parent
WARNINGS = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
SANITIZERS = ["-g", "-O1", "-fno-sanitize-recover=all", "-fsanitize=address,undefined"]


@pytest.mark.parametrize("flags", [["-O2"], ["-Os"], SANITIZERS], ids=["O2", "Os", "sanitizers"])
def test_c_program(compiler, tmp_path: Path, flags: list[str]) -> None:
    sources = sorted(SOURCES.glob("amg_*.c"))
    if not sources:
        pytest.skip("an installed package carries no C sources")
    if flags is SANITIZERS and not compiler.can_build(tmp_path, *SANITIZERS):
        if os.environ.get("ASYNCMG_REQUIRE_CORE") == "1":
            pytest.fail("the sanitizers do not link")
        pytest.skip("the sanitizers do not link")
    program = tmp_path / "program"
    compiler.build([*WARNINGS, *flags, f"-I{SOURCES}", str(HERE / "c_program.c"), *map(str, sources)], program)
    # Nothing is allocated by the core, and the leak check cannot run below a debugger.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    result = subprocess.run([program], capture_output=True, text=True, timeout=50, check=False, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert int(result.stdout.split()[0]) > 100_000


def test_the_loader_is_written_for_this_header() -> None:
    header = (SOURCES / "amg.h").read_text()
    constants = dict(re.findall(r"^#define (AMG_\w+) (\d+)u$", header, re.MULTILINE))
    assert int(constants["AMG_ABI"]) == asyncmg.core.ABI
    assert int(constants["AMG_UTF8_ACCEPT"]) == asyncmg.core.UTF8_ACCEPT
    assert int(constants["AMG_UTF8_REJECT"]) == asyncmg.core.UTF8_REJECT
