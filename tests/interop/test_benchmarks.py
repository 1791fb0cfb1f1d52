"""The benchmarks run: a figure that nobody can reproduce is none."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from asyncmg.core import load

from .peers import peer

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
BRIEF = ["--rounds", "1", "--seconds", "1", "--warm-up", "0"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def run(program: str, *options: str) -> str:
    peer("wrk")
    command = [sys.executable, str(BENCHMARKS / program), *BRIEF, *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def may_be_left_out(server: str, reason: str) -> bool:
    """Peers may be missing; ours only where there is no core."""
    if server.startswith("asyncmg portable"):
        return False
    core = load()
    if server.startswith("asyncmg asyncio"):
        return core is None
    if server.startswith("asyncmg native"):
        return core is None or core.engine is None
    return reason.startswith("not installed")


def check_tables(out: str, servers: set[str], tables: int) -> None:
    """Every server is a row without errors in each table, or was left out for a good reason."""
    rows: list[str] = []
    for line in out.splitlines():
        server, separator, reason = line.partition(": left out: ")
        if separator:
            assert may_be_left_out(server, reason), line
            rows.append(server)
        elif line[:30].strip() in servers:
            figures = line[30:].split()
            assert "ERRORS" not in line and "FAILED" not in line, line
            # A difference of two measurements may be below zero: what a few connections take is less than the noise.
            assert all(figure == "-" or math.isfinite(float(figure)) for figure in figures), line
            assert float(figures[0]) > 0, line
            rows.append(line[:30].strip())
    assert sorted(rows) == sorted([*servers] * tables), out


def test_every_server() -> None:
    listed = subprocess.run(
        [sys.executable, str(BENCHMARKS / "servers" / "http_peers.py")], capture_output=True, text=True, check=True
    )
    servers = set(listed.stdout.splitlines())
    assert {"nginx", "cymongoose", "granian asgi uvloop", "h11 bare uvloop"} < servers
    check_tables(run("http_server.py", "--workload", "keepalive64"), servers, tables=1)


def test_every_workload() -> None:
    workloads = ["keepalive64", "one", "many256", "pipelined16"]
    raw = json.loads(run("http_server.py", "--json", "--only", "portable async uvloop,h11 bare"))
    assert list(raw) == workloads
    for servers in raw.values():
        assert set(servers) == {"asyncmg portable async uvloop", "h11 bare uvloop"}
        for [figures] in servers.values():
            assert figures["errors"] == 0
            assert figures["cpu_us"] > 0 and figures["rate"] > 0
            assert figures["p50_us"] >= 0  # wrk tells none for pipelined requests


def test_idle_connections() -> None:
    servers = {
        "asyncmg native async uvloop",
        "asyncmg native sync run()",
        "asyncmg asyncio async uvloop",
        "asyncmg portable async uvloop",
        "nginx",
        "granian asgi uvloop",
        "cymongoose",
        "uvicorn httptools uvloop",
        "aiohttp uvloop",
    }
    out = run("http_idle.py", "--connections", "50", "--idle", "50", "--only", ",".join(servers))
    check_tables(out, servers, tables=2)
    assert "memory of 50 idle connections" in out and "alone and beside 50 idle ones" in out


def test_no_such_server() -> None:
    command = [sys.executable, str(BENCHMARKS / "http_server.py"), "--only", "no such server"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 1
    assert "no server has a name" in result.stderr
