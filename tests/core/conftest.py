"""The C core and the C compiler: what is missing skips its tests, and fails them under ASYNCMG_REQUIRE_CORE=1."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

import asyncmg.core
from asyncmg.core import Core


def missing(reason: str) -> NoReturn:
    if os.environ.get("ASYNCMG_REQUIRE_CORE") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def core() -> Core:
    """The core of this installation, whatever ASYNCMG_CORE says about using it."""
    path = asyncmg.core._find(asyncmg.core.__path__)
    if path is None:
        missing(f"the C core was not built: no {asyncmg.core.LIBRARY_NAME}")
    return Core(path)


class Compiler:
    """A C compiler: the command, and how to use it."""

    def __init__(self, command: list[str]) -> None:
        self.command = command

    def build(self, arguments: list[str], output: Path) -> None:
        """Compile and link, and show what the compiler says when it cannot."""
        command = [*self.command, *arguments, "-o", str(output)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
        assert result.returncode == 0, result.stderr

    def can_build(self, directory: Path, *flags: str) -> bool:
        """Tell whether a program links with these flags."""
        source = directory / "probe.c"
        source.write_text("int main(void) { return 0; }\n")
        try:
            self.build([*flags, str(source)], directory / "probe")
        except (OSError, AssertionError):
            return False
        return True


@pytest.fixture(scope="session")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """A working compiler: $CC, or the first of cc, gcc and clang."""
    named = shlex.split(os.environ.get("CC", ""))
    commands = [named] if named else [[found] for name in ("cc", "gcc", "clang") if (found := shutil.which(name))]
    for candidate in map(Compiler, commands):
        if candidate.can_build(tmp_path_factory.mktemp("compiler")):
            return candidate
    missing("no working C compiler")
