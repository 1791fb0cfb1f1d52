"""SNTP with chrony and ntpsec, on loopback: we ask them, and chrony asks us."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from asyncmg import (
    MG_EV_CLOSE,
    MG_EV_SNTP_TIME,
    KissOfDeath,
    Manager,
    SntpFailed,
    SntpLimits,
    SntpSource,
    SntpTime,
    sntp_time,
)
from benchmarks.servers import installs

from .peers import missing

QUICK = SntpLimits(try_timeout=1.0, retry_interval=0.1)


@pytest.fixture(scope="module")
def daemons() -> Path:
    """The folder with chrony and ntpsec in it."""
    try:
        return installs.time_daemons()
    except installs.NotInstallable as exc:
        missing(str(exc))


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def running(*command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=installs.end_with_parent,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def chronyd(daemons: Path, folder: Path, *lines: str) -> Iterator[str]:
    """Run a chronyd that serves its own clock; yield its address."""
    port = free_port()
    config = folder / "chrony.conf"
    config.write_text(
        f"port {port}\nbindaddress 127.0.0.1\nlocal stratum 8\nallow 127.0.0.0/8\ncmdport 0\nbindcmdaddress /\n"
        f"pidfile {folder}/chronyd.pid\ndriftfile {folder}/drift\n" + "".join(f"{line}\n" for line in lines)
    )
    # -x: it must not touch the machine's clock
    with running(daemons / "chrony/usr/sbin/chronyd", "-x", "-d", "-u", "root", "-f", config):
        yield f"127.0.0.1:{port}"


async def ask_until_there(server: str) -> SntpTime:
    """Ask a server that is starting."""
    async with asyncio.timeout(40):
        while True:
            try:
                return await sntp_time(server, limits=QUICK)
            except SntpFailed:
                await asyncio.sleep(0.2)


async def test_we_ask_chrony(daemons: Path, tmp_path: Path, backend: str) -> None:
    with chronyd(daemons, tmp_path) as server:
        told = await ask_until_there(server)
        assert told.stratum == 8 and told.reference == "127.127.1.1" and told.leap == 0
        assert abs(told.offset) < 1.0 and told.delay < 5.0, "it serves the clock that we have ourselves"
        events: list[tuple[int, Any]] = []
        async with Manager(lambda conn, ev, data: events.append((ev, data))) as manager:
            manager.sntp_connect(f"sntp://{server}")
            async with asyncio.timeout(30):
                while not any(ev == MG_EV_CLOSE for ev, _ in events):
                    await asyncio.sleep(0.01)
        times = [data for ev, data in events if ev == MG_EV_SNTP_TIME]
        assert len(times) == 1 and abs(times[0] - time.time() * 1000) < 30_000


async def test_chrony_asks_us(daemons: Path, tmp_path: Path, backend: str) -> None:
    """``chronyd -Q`` tells how wrong the clock is, by a server that is 1000 s ahead."""
    source = SntpSource(now=lambda: time.time_ns() + 1000 * 10**9, stratum=3)
    async with Manager() as manager:
        server = manager.sntp_listen("sntp://127.0.0.1:0", source=source)
        assert server.local_addr is not None
        asked = await asyncio.create_subprocess_exec(
            *map(str, (daemons / "chrony/usr/sbin/chronyd", "-x", "-Q", "-t", "30", "-u", "root")),
            f"server 127.0.0.1 port {server.local_addr.port} iburst maxsamples 1",
            f"pidfile {tmp_path}/chronyd.pid",
            "cmdport 0",
            "bindcmdaddress /",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output = (await asked.communicate())[0].decode()
        assert asked.returncode == 0, output
        wrong = re.search(r"System clock wrong by (-?[0-9.]+) seconds", output)
        assert wrong and abs(float(wrong[1]) - 1000) < 1.0, output
        assert server.protocol.answered


async def test_we_ask_ntpsec(daemons: Path, tmp_path: Path) -> None:
    """Its port cannot be chosen: it is 123, for root, if nobody else has it."""
    if os.getuid() != 0:
        pytest.skip("port 123 is root's")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(("127.0.0.1", 123))
        except OSError:
            pytest.skip("a time server is running here")
    config = tmp_path / "ntp.conf"
    config.write_text(
        "disable ntp\ninterface ignore wildcard\ninterface listen 127.0.0.1\ntos orphan 5 orphanwait 1\n"
        "server 127.127.1.0 minpoll 3 maxpoll 3\nfudge 127.127.1.0 stratum 9\n"
        f"restrict default kod limited\ndiscard average 3 minimum 1\ndriftfile {tmp_path}/drift\n"
    )
    with running(daemons / "ntpsec/usr/sbin/ntpd", "-n", "-c", config, "-l", tmp_path / "log", "-p", tmp_path / "pid"):
        told = await ask_until_there("127.0.0.1")
        assert abs(told.offset) < 1.0 and told.delay < 5.0 and 1 <= told.stratum <= 15
        codes = set()
        async with asyncio.timeout(30):
            while not codes:  # ask without a pause, until it says so
                try:
                    await sntp_time("127.0.0.1", limits=SntpLimits(try_timeout=0.2, max_tries=1))
                except SntpFailed as exc:
                    codes = {error.code for error in exc.failures.values() if isinstance(error, KissOfDeath)}
        assert codes == {"RATE"}
