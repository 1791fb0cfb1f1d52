"""mDNS with python-zeroconf and avahi, on the loopback interface and the real port: they find us, and we find them.

Names and types are random: others of this machine may be doing the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from asyncmg import ListenFailed, MdnsService, mdns_browse, mdns_serve, mdns_types
from asyncmg.codecs.choice import dns_codec
from asyncmg.codecs.dns import RecordType
from asyncmg.limits import DnsLimits
from asyncmg.resolver.mdns import query_mdns
from benchmarks.servers import installs

from .peers import missing

HERE = "127.0.0.1"
PROGRAM = Path(__file__).with_name("mdns_zeroconf.py")
LIMITS = DnsLimits(mdns_timeout=20.0)


@pytest.fixture(scope="module")
def zeroconf_python() -> Path:
    try:
        return installs.zeroconf_python()
    except installs.NotInstallable as exc:
        missing(str(exc))


@pytest.fixture
def word() -> str:
    """For names that nobody else has."""
    return uuid.uuid4().hex[:8]


class Zeroconf:
    """The program above, running."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def told(self, what: str) -> list[Any]:
        """Wait for a line that begins with a word; return the rest of it."""
        assert self._process.stdout is not None
        async with asyncio.timeout(40):
            while line := await self._process.stdout.readline():
                first, *rest = json.loads(line)
                if first == what:
                    return rest
        raise AssertionError(f"it has ended, {what!r} was not told")

    async def end(self) -> None:
        """Let it end in good order."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        async with asyncio.timeout(40):
            assert await self._process.wait() == 0


@asynccontextmanager
async def zeroconf(python: Path, *arguments: str) -> AsyncIterator[Zeroconf]:
    process = await asyncio.create_subprocess_exec(
        str(python),
        str(PROGRAM),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=installs.end_with_parent,
    )
    try:
        yield Zeroconf(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.sleep(0)


async def test_zeroconf_finds_us(zeroconf_python: Path, word: str) -> None:
    kind = f"_a{word}._tcp"
    async with zeroconf(zeroconf_python, "browse", f"{kind}.local.") as peer:
        await peer.told("browsing")
        page = MdnsService(kind, 8000, f"Mr. {word}", {"path": "/x", "flag": None})
        async with mdns_serve(f"h{word}", services=[page], interface=HERE):
            name, server, addresses, port, texts = await peer.told("resolved")
            assert (name, server, addresses, port) == (f"Mr. {word}", f"h{word}.local.", [HERE], 8000)
            assert texts == {"path": "/x", "flag": None}
        assert await peer.told("removed") == [f"Mr. {word}.{kind}.local."], "we have said goodbye"
        await peer.end()


async def test_zeroconf_finds_who_was_there_before(zeroconf_python: Path, word: str) -> None:
    kind = f"_a{word}._tcp"
    async with mdns_serve(f"h{word}", services=[MdnsService(kind, 8000, word)], interface=HERE):
        async with zeroconf(zeroconf_python, "browse", f"{kind}.local.") as peer:
            name, *_ = await peer.told("resolved")
            assert name == word
            await peer.end()


async def test_we_find_zeroconf(zeroconf_python: Path, word: str) -> None:
    kind, host = f"_b{word}._udp", f"z{word}"
    async with zeroconf(zeroconf_python, "serve", f"{kind}.local.", f"Its {word}", host, "999") as peer:
        await peer.told("serving")
        (found,) = await mdns_browse(kind, f"Its {word}", timeout=20, interface=HERE)
        told = {"path": b"/z", "flag": None}
        assert found == MdnsService(kind, 999, f"Its {word}", told, f"{host}.local", ("192.0.2.77",))
        await eventually(lambda: mdns_browse(kind, timeout=1.0, interface=HERE), lambda listed: listed == [found])
        await eventually(lambda: mdns_types(timeout=1.0, interface=HERE), lambda types: kind in types)
        answer = await query_mdns(f"{host}.local", RecordType.A, LIMITS, dns_codec(), interface=HERE)
        assert [record.data for record in answer.records] == ["192.0.2.77"]
        # It does not defend the name of its host, but that of its service.
        mine = MdnsService(kind, 80, f"Its {word}")
        with pytest.raises(ListenFailed, match="another host has the name"):
            async with mdns_serve(f"h{word}", services=[mine], interface=HERE, rename=False):
                pass
        # The same probe once more it would not look at: it takes it for a duplicate.
        async with mdns_serve(f"i{word}", services=[mine], interface=HERE) as shown:
            assert shown.hostname == f"i{word}.local" and shown.service_names == [f"Its {word}-2"]
        await peer.end()


async def eventually(search: Callable[[], Any], is_found: Callable[[Any], bool]) -> None:
    """Search again until it is found."""
    async with asyncio.timeout(40):
        while not is_found(await search()):
            pass


# -- avahi ----------------------------------------------------------------------------------------------------------

AVAHI_CONF = """\
[server]
host-name={host}
allow-interfaces=lo
use-ipv6=no
enable-dbus=no
[publish]
publish-workstation=no
"""
SERVICE = """\
<?xml version="1.0" standalone='no'?><!DOCTYPE service-group SYSTEM "avahi-service.dtd">
<service-group><name>Its {host}</name>
<service><type>{kind}</type><port>77</port><txt-record>k=v</txt-record></service></service-group>
"""
# In a mount namespace with an /etc and a /run for it alone: it wants a user of its own, reads its services from
# /etc/avahi/services only, and must not meet another avahi.
START = """\
set -e
mount --bind "$1/etc" /etc
mount -t tmpfs none /run
exec env LD_LIBRARY_PATH="$2" "$3" -f /etc/avahi/avahi-daemon.conf \\
    --no-drop-root --no-chroot --no-rlimits --no-proc-title
"""


@contextmanager
def avahi(folder: Path, host: str, kind: str) -> Iterator[Path]:
    """Run avahi-daemon on the loopback interface; yield the file with what it tells."""
    unshare = shutil.which("unshare")
    if unshare is None or os.getuid() != 0:
        pytest.skip("avahi needs root and unshare, to have an /etc of its own")
    if subprocess.run([unshare, "--mount", "true"], capture_output=True, timeout=20).returncode:
        pytest.skip("no mount namespaces here")
    try:
        installed = installs.avahi()
    except installs.NotInstallable as exc:
        missing(str(exc))
    (folder / "etc/avahi/services").mkdir(parents=True)
    (folder / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\navahi:x:0:0::/:/bin/false\n")
    (folder / "etc/group").write_text("root:x:0:\navahi:x:0:\nnetdev:x:0:\n")
    (folder / "etc/avahi/avahi-daemon.conf").write_text(AVAHI_CONF.format(host=host))
    (folder / "etc/avahi/services/one.service").write_text(SERVICE.format(host=host, kind=kind))
    libraries = ":".join(sorted({str(path.parent) for path in installed.rglob("*.so.*")}))
    daemon = installed / "avahi-daemon/usr/sbin/avahi-daemon"
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [unshare, "--mount", "sh", "-c", START, "start", folder, libraries, daemon],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=installs.end_with_parent,
        )
    try:
        yield log
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def told(log: Path, pattern: str) -> None:
    """Wait until avahi tells something."""
    end = time.monotonic() + 40
    while not re.search(pattern, log.read_text()):
        assert time.monotonic() < end, log.read_text()
        await asyncio.sleep(0.1)


async def test_we_find_avahi(tmp_path: Path, word: str) -> None:
    kind, host = f"_c{word}._tcp", f"v{word}"
    with avahi(tmp_path, host, kind) as log:
        await told(log, "successfully established")
        answer = await query_mdns(f"{host}.local", RecordType.A, LIMITS, dns_codec(), interface=HERE)
        assert [record.data for record in answer.records] == [HERE]
        (found,) = await mdns_browse(kind, f"Its {host}", timeout=20, interface=HERE)
        assert (found.port, found.txt, found.host) == (77, {"k": b"v"}, f"{host}.local") and HERE in found.addresses
        await eventually(lambda: mdns_types(timeout=1.0, interface=HERE), lambda types: kind in types)
        async with mdns_serve(host, ["192.0.2.1"], interface=HERE) as shown:
            assert shown.hostname == f"{host}-2.local"


async def test_avahi_gives_way_to_us(tmp_path: Path, word: str) -> None:
    kind, host = f"_c{word}._tcp", f"v{word}"
    mine = MdnsService(kind, 80, f"Its {host}")
    async with mdns_serve(host, ["192.0.2.1"], [mine], interface=HERE) as shown:
        with avahi(tmp_path, host, kind) as log:
            await told(log, f"Host name conflict, retrying with {host}-2")
            await told(log, "Service name conflict")
            answer = await query_mdns(f"{host}-2.local", RecordType.A, LIMITS, dns_codec(), interface=HERE)
            assert [record.data for record in answer.records] == [HERE]
        assert shown.hostname == f"{host}.local" and shown.service_names == [f"Its {host}"]
