"""Real loopback connections, on every event loop that the project promises."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import asyncmg.core
from asyncmg import Limits, Listener, Manager

_LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"stdlib": asyncio.SelectorEventLoop}
if sys.platform != "win32":
    import uvloop

    _LOOPS["uvloop"] = uvloop.new_event_loop

TIMEOUT = 10.0

# Codecs and backends, as the environment chooses them.
_VARIANTS = {
    "portable": {"ASYNCMG_CORE": "off", "ASYNCMG_BACKEND": "asyncio"},
    "native-codec": {"ASYNCMG_BACKEND": "asyncio"},
    "native": {"ASYNCMG_BACKEND": "native"},
}


@pytest.fixture(autouse=True, params=_VARIANTS)
def variant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test here runs with both sets of codecs and on both backends."""
    name: str = request.param
    if name != "portable":
        monkeypatch.delenv("ASYNCMG_CORE", raising=False)
        core = asyncmg.core.load()
        if core is None or (name == "native" and core.engine is None):
            if os.environ.get("ASYNCMG_REQUIRE_CORE") == "1":
                pytest.fail(f"no C core: {asyncmg.core.status().reason}")
            pytest.skip("no C core")
    for key, value in _VARIANTS[name].items():
        monkeypatch.setenv(key, value)
    return name


# Every codec, backend and loop is in one of the pairs that are left; with ASYNCMG_ALL_PAIRS=1 all are run.
_LEFT_OUT = {("portable", "uvloop"), ("native-codec", "stdlib")}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("ASYNCMG_ALL_PAIRS") == "1" or asyncmg.core.load() is None:
        return
    left_out = []
    for item in items:
        if Path(__file__).parent in item.path.parents and isinstance(item, pytest.Function):
            given = set(item.callspec.id.split("-")) if hasattr(item, "callspec") else set()
            words = given | ({"native-codec"} if {"native", "codec"} <= given else set())
            if any(pair[0] in words and pair[1] in words for pair in _LEFT_OUT):
                left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every async test here runs on each loop."""
    return _LOOPS


class RawPeer:
    """A peer that speaks bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes | str) -> None:
        self.writer.write(data.encode("latin-1") if isinstance(data, str) else data)

    def send_eof(self) -> None:
        self.writer.write_eof()

    async def read_until(self, separator: bytes) -> bytes:
        async with asyncio.timeout(TIMEOUT):
            return await self.reader.readuntil(separator)

    async def read_exactly(self, n: int) -> bytes:
        async with asyncio.timeout(TIMEOUT):
            return await self.reader.readexactly(n)

    async def read_all(self) -> bytes:
        """Read to the orderly end; a reset is an error."""
        async with asyncio.timeout(TIMEOUT):
            return await self.reader.read(-1)

    async def read_reply(self, *, head: bool = False) -> tuple[int, dict[str, str], bytes]:
        """Read one response with its content."""
        raw = (await self.read_until(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = raw[:-4].split("\r\n")
        status = int(status_line.split()[1])
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if head or status < 200 or status in (204, 304):
            return status, fields, b""
        if fields.get("transfer-encoding") == "chunked":
            return status, fields, await self._read_chunks()
        if "content-length" in fields:
            return status, fields, await self.read_exactly(int(fields["content-length"]))
        return status, fields, await self.read_all()

    async def _read_chunks(self) -> bytes:
        content = b""
        while size := int(await self.read_until(b"\r\n"), 16):
            content += await self.read_exactly(size)
            assert await self.read_exactly(2) == b"\r\n"
        assert await self.read_exactly(2) == b"\r\n"
        return content

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass

    def reset(self) -> None:
        """Vanish: the other side gets a reset."""
        import socket
        import struct

        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Harness:
    """Makes managers and peers, and ends them all."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self._managers: list[Manager] = []
        self._peers: list[RawPeer] = []

    def manager(self, handler: Any = None, **kwargs: Any) -> Manager:
        kwargs.setdefault("error_handler", self.errors.append)
        manager = Manager(handler, **kwargs)
        self._managers.append(manager)
        return manager

    def serve(
        self, handler: Any, url: str = "http://127.0.0.1:0", *, limits: Limits | None = None, **kw: Any
    ) -> Listener:
        manager = self.manager(handler, **({"limits": limits} if limits else {}))
        listener = manager.listen(url, **kw)
        assert isinstance(listener, Listener)
        return listener

    async def peer(self, port: int, **kwargs: Any) -> RawPeer:
        peer = RawPeer(*await asyncio.open_connection("127.0.0.1", port, **kwargs))
        self._peers.append(peer)
        return peer

    async def ask(self, port: int, data: bytes | str) -> bytes:
        """Send bytes, read everything until the server closes."""
        peer = await self.peer(port)
        peer.send(data)
        return await peer.read_all()

    async def end(self) -> None:
        for peer in self._peers:
            peer.writer.transport.abort()
        for manager in self._managers:
            await manager.shutdown(0)


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    harness = Harness()
    try:
        yield harness
    finally:
        await harness.end()


async def eventually(condition: Callable[[], Any]) -> None:
    """Give the loop turns until a condition holds; fail when it does not come true in time."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.001)


async def soon(awaitable: Awaitable[Any]) -> Any:
    """Await with the tests' time-out."""
    async with asyncio.timeout(TIMEOUT):
        return await awaitable
