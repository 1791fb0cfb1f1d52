"""Which backend a Manager takes: its argument, the environment, and what the library and the loop can do."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

import pytest

import asyncmg.core
from asyncmg import MG_EV_HTTP_MSG, Manager
from asyncmg.core import CoreUnavailable
from asyncmg.limits import DEFAULT_LIMITS
from asyncmg.transports.backend import AsyncioBackend
from asyncmg.transports.choice import chosen_backend, make_backend
from tests.transports.conftest import require_core

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the engine is for POSIX")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASYNCMG_BACKEND", raising=False)
    monkeypatch.delenv("ASYNCMG_CORE", raising=False)


@pytest.fixture
def no_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCMG_CORE", "off")


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core without an engine, as on Windows."""
    require_core()
    core = asyncmg.core.load()
    assert core is not None
    monkeypatch.setattr(core, "engine", None)


class LoopWithoutReaders(asyncio.SelectorEventLoop):
    """As Windows' proactor loop is."""

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> Any:
        raise NotImplementedError


def handler(conn: Any, ev: int, data: Any) -> None:
    if ev == MG_EV_HTTP_MSG:
        conn.reply(200, "ok")


async def serves(manager: Manager) -> str:
    """Listen, serve one request, and tell the backend's name."""
    async with manager:
        listener = manager.listen("http://127.0.0.1:0", handler)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"ok")
        writer.close()
        await writer.wait_closed()
        return manager.backend


@pytest.mark.parametrize(("value", "expected"), [("auto", "native"), ("native", "native"), ("asyncio", "asyncio")])
@pytest.mark.parametrize("how", ["argument", "environment"])
async def test_values(monkeypatch: pytest.MonkeyPatch, how: str, value: Any, expected: str) -> None:
    require_core()
    if how == "environment":
        monkeypatch.setenv("ASYNCMG_BACKEND", value)
    manager = Manager(backend=value) if how == "argument" else Manager()
    assert manager.backend == value
    assert await serves(manager) == expected
    assert manager.backend == expected


async def test_auto_is_told_apart_until_it_is_decided() -> None:
    require_core()
    async with Manager() as manager:
        assert manager.backend == "auto"
        manager.listen("tcp://127.0.0.1:0")
        assert manager.backend == "native"


async def test_a_connection_decides_as_well() -> None:
    require_core()
    async with Manager() as manager:
        manager.connect("tcp://127.0.0.1:9").close()
        assert manager.backend == "native"


async def test_the_argument_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCMG_BACKEND", "native")
    assert await serves(Manager(backend="asyncio")) == "asyncio"
    monkeypatch.setenv("ASYNCMG_BACKEND", "nonsense")
    assert await serves(Manager(backend="asyncio")) == "asyncio"


@pytest.mark.parametrize("value", ["", "auto"])
def test_an_environment_that_says_nothing(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ASYNCMG_BACKEND", value)
    assert chosen_backend("auto") == "auto"


@pytest.mark.parametrize("value", ["Native", "uvloop", "", " native", None])
def test_other_names_are_errors(value: Any) -> None:
    with pytest.raises(ValueError, match="backend must be 'auto', 'asyncio' or 'native'"):
        Manager(backend=value)


@pytest.mark.parametrize("value", ["Native", "uvloop", " native", "1"])
def test_other_names_in_the_environment_are_errors(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ASYNCMG_BACKEND", value)
    with pytest.raises(ValueError, match="ASYNCMG_BACKEND must be 'auto', 'asyncio' or 'native'"):
        Manager()


async def test_without_a_core(no_core: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await serves(Manager()) == "asyncio"
    with pytest.raises(CoreUnavailable, match=r"no native backend: .*ASYNCMG_CORE=off"):
        Manager(backend="native")
    monkeypatch.setenv("ASYNCMG_BACKEND", "native")
    with pytest.raises(CoreUnavailable, match="no native backend"):
        Manager()


async def test_without_an_engine(no_engine: None) -> None:
    assert await serves(Manager()) == "asyncio"
    assert await serves(Manager(backend="asyncio")) == "asyncio"
    with pytest.raises(CoreUnavailable, match="POSIX"):
        Manager(backend="native")
    with pytest.raises(CoreUnavailable, match="no engine"):
        make_backend("native", asyncio.get_running_loop(), DEFAULT_LIMITS)


def run_without_readers(main: Any) -> Any:
    with asyncio.Runner(loop_factory=LoopWithoutReaders) as runner:
        return runner.run(main)


def test_auto_in_a_loop_without_add_reader() -> None:
    require_core()

    async def choose() -> str:
        loop = asyncio.get_running_loop()
        backend = make_backend("auto", loop, DEFAULT_LIMITS)
        assert isinstance(backend, AsyncioBackend)
        manager = Manager()
        async with manager:
            manager.connect("tcp://127.0.0.1:9").close()
            return manager.backend

    assert run_without_readers(choose()) == "asyncio"


def test_native_in_a_loop_without_add_reader() -> None:
    require_core()

    async def choose() -> None:
        with pytest.raises(NotImplementedError):
            make_backend("native", asyncio.get_running_loop(), DEFAULT_LIMITS)
        manager = Manager(backend="native")
        with pytest.raises(NotImplementedError):
            manager.connect("tcp://127.0.0.1:9")
        with pytest.raises(NotImplementedError):
            manager.listen("tcp://127.0.0.1:0").close()
        with contextlib.suppress(Exception):
            manager.close()

    run_without_readers(choose())


def test_what_a_refused_backend_leaves_behind() -> None:
    # listen() and connect() have raised: the Manager has nothing to wait for or to close.
    require_core()

    async def choose() -> int:
        manager = Manager(backend="native")
        with pytest.raises(NotImplementedError):
            manager.listen("tcp://127.0.0.1:0")
        with pytest.raises(NotImplementedError):
            manager.connect("tcp://127.0.0.1:9")
        left = manager.connections
        for conn in left:
            if conn.is_listening:
                conn.close()
                conn._sock.close()  # type: ignore[attr-defined]
        return len(left)

    assert run_without_readers(choose()) == 0


async def test_the_system_refuses_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    require_core()
    core = asyncmg.core.load()
    assert core is not None and core.engine is not None
    monkeypatch.setattr(core.engine, "new", lambda config: None)
    loop = asyncio.get_running_loop()
    assert isinstance(make_backend("auto", loop, DEFAULT_LIMITS), AsyncioBackend)
    with pytest.raises(CoreUnavailable, match="refuses"):
        make_backend("native", loop, DEFAULT_LIMITS)
    assert await serves(Manager()) == "asyncio"


def test_a_manager_outside_asyncio() -> None:
    require_core()
    for value in ("native", "asyncio"):
        with Manager(handler, backend=value) as manager:  # type: ignore[arg-type]
            manager.listen("http://127.0.0.1:0")
            manager.poll(1)
            assert manager.backend == value
