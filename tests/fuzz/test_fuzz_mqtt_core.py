"""The libFuzzer target of the C packet reader, for a few seconds, with the vectors as its corpus."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from asyncmg.codecs.http import Role
from tests.codecs.mqtt_vector_file import greeting, read_mqtt_vectors
from tests.fuzz.test_fuzz_http1 import HERE, SOURCES, build

SECONDS = 4


def write_corpus(directory: Path) -> int:
    """Each vector, with other choices in its first two bytes (see fuzz_mqtt_core.c)."""
    directory.mkdir()
    count = 0
    for vector in read_mqtt_vectors():
        data = (b"" if vector.is_new else greeting(vector.role, vector.version)) + vector.data
        if len(data) > 600:
            continue
        first = (vector.role is Role.CLIENT) | 2 * (vector.version == 5)
        for choices in ((first, 0), (first | 8, 0x83), (first | 12, 2)):
            (directory / f"{count:04}").write_bytes(bytes(choices) + data)
            count += 1
    return count


def test_some_seconds(tmp_path: Path) -> None:
    probe = tmp_path / "probe.c"
    probe.write_text(
        "int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n) { (void)d; return n > 9 ? 0 : 0; }\n"
    )
    if reason := build(probe, output=tmp_path / "probe"):
        pytest.skip(f"clang has no fuzzer runtime: {reason[:200]}")
    if not (SOURCES / "amg_mqtt.c").is_file():
        pytest.skip("an installed package carries no C sources")
    program, corpus = tmp_path / "fuzz_mqtt_core", tmp_path / "corpus"
    sources = (SOURCES / "amg_mqtt.c", SOURCES / "amg_util.c")
    assert build(HERE / "fuzz_mqtt_core.c", *sources, output=program) == ""
    assert write_corpus(corpus) > 900
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
