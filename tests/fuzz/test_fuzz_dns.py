"""The libFuzzer targets of the C readers of DNS and SNTP, for a few seconds, with the vectors as their corpus."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from asyncmg.codecs import sntp
from tests.codecs.dns_vector_file import read_dns_vectors
from tests.codecs.sntp_vector_file import PacketVector, ReplyVector, TimeVector, read_sntp_vectors
from tests.fuzz.test_fuzz_http1 import HERE, SOURCES, build

SECONDS = 4


def dns_corpus() -> list[bytes]:
    """Each vector, with other choices in its first two bytes (see fuzz_dns.c)."""
    vectors = [vector.data for vector in read_dns_vectors() if len(vector.data) <= 700]
    return [choices + data for data in vectors for choices in (b"\0\0", b"\x40\3", b"\xff\x10")]


def sntp_corpus() -> list[bytes]:
    """Each vector behind two times (see fuzz_sntp.c)."""
    times = bytes(16)
    inputs = []
    for vector in read_sntp_vectors():
        if isinstance(vector, PacketVector):
            inputs.append(times + vector.data[:1100])
        elif isinstance(vector, ReplyVector):
            inputs.append(times + sntp.write_packet(vector.reply))
        elif isinstance(vector, TimeVector) and abs(vector.ns) < 1 << 63:
            inputs.append(vector.ns.to_bytes(8, "little", signed=True) + vector.timestamp.to_bytes(8, "little"))
    return inputs


@pytest.mark.parametrize(("protocol", "corpus"), [("dns", dns_corpus), ("sntp", sntp_corpus)], ids=["dns", "sntp"])
def test_some_seconds(tmp_path: Path, protocol: str, corpus) -> None:
    probe = tmp_path / "probe.c"
    probe.write_text(
        "int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n) { (void)d; return n > 9 ? 0 : 0; }\n"
    )
    if reason := build(probe, output=tmp_path / "probe"):
        pytest.skip(f"clang has no fuzzer runtime: {reason[:200]}")
    source = SOURCES / f"amg_{protocol}.c"
    if not source.is_file():
        pytest.skip("an installed package carries no C sources")
    program, directory = tmp_path / f"fuzz_{protocol}", tmp_path / "corpus"
    assert build(HERE / f"fuzz_{protocol}.c", source, output=program) == ""
    directory.mkdir()
    inputs = corpus()
    assert len(inputs) > 70
    for number, data in enumerate(inputs):
        (directory / f"{number:04}").write_bytes(data)
    command = [
        program,
        f"-max_total_time={SECONDS}",
        "-max_len=1200",
        "-seed=1",
        f"-artifact_prefix={tmp_path}/",
        directory,
    ]
    # The leak check cannot run below a debugger.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, env=environment)
    assert result.returncode == 0, result.stderr[-4000:]
    runs = int(result.stderr.rpartition("Done ")[2].split()[0])
    assert runs > 2000
