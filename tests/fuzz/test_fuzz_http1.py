"""The libFuzzer target of the C codec, for a few seconds, with the vectors as its corpus."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import asyncmg.core
from tests.codecs.vector_file import read_vectors

HERE = Path(__file__).parent
SOURCES = Path(asyncmg.core.__file__).parent
FLAGS = ["-std=c99", "-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
SECONDS = 4


def build(source: Path, *more: Path, output: Path) -> str:
    """Compile with clang; return what it says when it cannot."""
    clang = shutil.which("clang")
    if clang is None:
        return "no clang"
    command = [clang, *FLAGS, f"-I{SOURCES}", *map(str, (source, *more)), "-o", str(output)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    return result.stderr if result.returncode else ""


def write_corpus(directory: Path) -> int:
    """Each vector twice, with other choices in its first two bytes (see fuzz_http1.c)."""
    directory.mkdir()
    count = 0
    for role, name in enumerate(("http_requests.txt", "http_responses.txt")):
        for vector in read_vectors(name):
            if len(vector.data) > 2000:
                continue
            for first, second in ((role | 8 | 4 * vector.eof, 0), (role | 2 | 8, 0x83)):
                (directory / f"{count:04}").write_bytes(bytes([first, second]) + vector.data)
                count += 1
    return count


def test_some_seconds(tmp_path: Path) -> None:
    probe = tmp_path / "probe.c"
    probe.write_text(
        "int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n) { (void)d; return n > 9 ? 0 : 0; }\n"
    )
    if reason := build(probe, output=tmp_path / "probe"):
        pytest.skip(f"clang has no fuzzer runtime: {reason[:200]}")
    if not (SOURCES / "amg_http1.c").is_file():
        pytest.skip("an installed package carries no C sources")
    program, corpus = tmp_path / "fuzz_http1", tmp_path / "corpus"
    assert build(HERE / "fuzz_http1.c", SOURCES / "amg_http1.c", output=program) == ""
    assert write_corpus(corpus) > 500
    command = [
        program,
        f"-max_total_time={SECONDS}",
        "-max_len=600",
        "-seed=1",
        f"-artifact_prefix={tmp_path}/",
        corpus,
    ]
    # The leak check cannot run below a debugger.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, env=environment)
    assert result.returncode == 0, result.stderr[-4000:]
    runs = int(result.stderr.rpartition("Done ")[2].split()[0])
    assert runs > 2000
