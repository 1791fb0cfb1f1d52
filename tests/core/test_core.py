"""The loader of the C core, and the C functions against Python's own."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asyncmg.core
from asyncmg.core import ABI, UTF8_ACCEPT, UTF8_REJECT, Core, CoreUnavailable
from asyncmg.errors import AsyncmgError


@pytest.fixture
def mode(monkeypatch: pytest.MonkeyPatch):
    """Set ASYNCMG_CORE for one test."""
    return lambda value: monkeypatch.setenv("ASYNCMG_CORE", value)


@pytest.fixture
def library_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty directory where the loader looks, instead of the real one."""
    monkeypatch.setattr(asyncmg.core, "__path__", [str(tmp_path)])
    return tmp_path


# The functions


def masked(data: bytes, key: bytes, offset: int) -> bytes:
    return bytes(byte ^ key[(offset + i) % 4] for i, byte in enumerate(data))


def test_abi(core: Core) -> None:
    assert core.abi == ABI


@pytest.mark.parametrize("offset", range(9))
def test_mask_every_short_length(core: Core, offset: int) -> None:
    rng = random.Random(offset)
    for length in range(70):
        data, key = rng.randbytes(length), rng.randbytes(4)
        buffer = bytearray(data)
        core.mask(buffer, key, offset)
        assert buffer == masked(data, key, offset)


def test_mask_example_of_rfc6455_section_5_7(core: Core) -> None:
    buffer = bytearray.fromhex("7f9f4d5158")
    core.mask(buffer, bytes.fromhex("37fa213d"))
    assert buffer == b"Hello"


@settings(deadline=None)
@given(data=st.binary(max_size=400), key=st.binary(min_size=4, max_size=4), cut=st.integers(0, 400))
def test_mask_in_two_pieces(core: Core, data: bytes, key: bytes, cut: int) -> None:
    first, second = bytearray(data[:cut]), bytearray(data[cut:])
    core.mask(first, key)
    core.mask(second, key, len(first))
    assert first + second == masked(data, key, 0)


def test_mask_leaves_the_buffer_resizable(core: Core) -> None:
    buffer = bytearray(b"abc")
    core.mask(buffer, b"\0\0\0\0", 2**40 + 1)
    buffer.append(0)
    assert buffer == b"abc\0"


@pytest.mark.parametrize("key", [b"", b"abc", b"abcde"])
def test_mask_refuses_a_key_of_another_length(core: Core, key: bytes) -> None:
    with pytest.raises(ValueError, match="4 bytes"):
        core.mask(bytearray(b"x"), key)


def test_mask_refuses_bytes(core: Core) -> None:
    with pytest.raises(TypeError):
        core.mask(b"immutable", b"abcd")  # type: ignore[arg-type]


def utf8_by_python(data: bytes) -> str:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return "inside" if error.reason == "unexpected end of data" else "reject"
    return "accept"


def verdict(state: int) -> str:
    return {UTF8_ACCEPT: "accept", UTF8_REJECT: "reject"}.get(state, "inside")


UTF8_EDGES = {
    "empty": "",
    "last one-byte": "7f",
    "first two-byte": "c280",
    "first three-byte": "e0a080",
    "below the surrogates": "ed9fbf",
    "above the surrogates": "ee8080",
    "first four-byte": "f0908080",
    "U+10FFFF": "f48fbfbf",
    "overlong, two bytes": "c0af",
    "overlong, C1": "c1bf",
    "overlong, three bytes": "e09fbf",
    "overlong, four bytes": "f08fbfbf",
    "surrogate D800": "eda080",
    "surrogate DFFF": "edbfbf",
    "U+110000": "f4908080",
    "F5": "f5808080",
    "FF": "ff",
    "lone tail": "80",
    "truncated": "e282",
    "lead in place of a tail": "c3c3a9",
    "bad byte behind a word of ASCII": "61" * 17 + "ff" + "61" * 9,
}


@pytest.mark.parametrize("text", UTF8_EDGES.values(), ids=UTF8_EDGES)
def test_utf8_edges(core: Core, text: str) -> None:
    data = bytes.fromhex(text)
    assert verdict(core.utf8(UTF8_ACCEPT, data)) == utf8_by_python(data)


def test_utf8_every_two_bytes(core: Core) -> None:
    for first in range(256):
        for second in range(256):
            data = bytes((first, second))
            assert verdict(core.utf8(UTF8_ACCEPT, data)) == utf8_by_python(data), data.hex()


# Mostly valid text with damage in it: bytes at random are refused by the first few.
damaged_text = st.tuples(st.text(max_size=60), st.binary(max_size=3), st.text(max_size=60)).map(
    lambda parts: parts[0].encode("utf-8", "surrogatepass") + parts[1] + parts[2].encode("utf-8", "surrogatepass")
)


@settings(deadline=None)
@given(
    data=st.one_of(st.text().map(str.encode), damaged_text, st.binary(max_size=6)), cuts=st.lists(st.integers(0, 200))
)
def test_utf8_agrees_with_python_however_it_is_cut(core: Core, data: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    state = UTF8_ACCEPT
    for i, (start, stop) in enumerate(pairwise(edges)):
        piece = data[start:stop]
        state = core.utf8(state, bytearray(piece) if i % 2 else piece)
    assert verdict(state) == utf8_by_python(data)
    assert verdict(core.utf8(UTF8_ACCEPT, data)) == utf8_by_python(data)


def test_utf8_nothing_changes_nothing(core: Core) -> None:
    for state in range(9):
        assert core.utf8(state, b"") == core.utf8(state, bytearray()) == state


def test_utf8_reject_is_for_good(core: Core) -> None:
    assert core.utf8(UTF8_REJECT, b"fine") == UTF8_REJECT


def test_utf8_unknown_state_is_refused(core: Core) -> None:
    assert core.utf8(9, b"fine") == core.utf8(2**32 - 1, b"fine") == UTF8_REJECT


# The loader


def test_auto_loads_what_was_built(core: Core, mode) -> None:
    mode("auto")
    loaded = asyncmg.core.load()
    assert loaded is not None
    assert loaded is asyncmg.core.load()
    assert loaded.path == core.path
    assert asyncmg.core.status() == asyncmg.core.CoreStatus(available=True, path=core.path, abi=ABI, reason="")


def test_empty_variable_means_auto(mode) -> None:
    mode("auto")
    status = asyncmg.core.status()
    mode("")
    assert asyncmg.core.status() == status


def test_off(mode) -> None:
    mode("off")
    assert asyncmg.core.load() is None
    status = asyncmg.core.status()
    assert (status.available, status.path, status.abi) == (False, None, None)
    assert "ASYNCMG_CORE=off" in status.reason


def test_require_returns_the_core(core: Core, mode) -> None:
    mode("require")
    assert asyncmg.core.load() is not None


@pytest.mark.parametrize("value", ["AUTO", "1", "never"])
def test_another_mode_is_an_error(mode, value: str) -> None:
    mode(value)
    with pytest.raises(ValueError, match="ASYNCMG_CORE must be"):
        asyncmg.core.load()
    with pytest.raises(ValueError, match="ASYNCMG_CORE must be"):
        asyncmg.core.status()


def assert_falls_back(mode, reason: str, *, path: Path | None, abi: int | None = None) -> None:
    """Auto goes on without a core and remembers why; require raises and says so."""
    mode("auto")
    assert asyncmg.core.load() is None
    status = asyncmg.core.status()
    assert (status.available, status.path, status.abi) == (False, path and str(path), abi)
    assert reason in status.reason
    mode("require")
    with pytest.raises(CoreUnavailable, match="ASYNCMG_CORE=require") as caught:
        asyncmg.core.load()
    assert status.reason in str(caught.value)
    assert caught.value.abi == abi
    assert isinstance(caught.value, ImportError)
    assert isinstance(caught.value, AsyncmgError)
    assert asyncmg.core.status() == status


def test_missing_library(mode, library_dir: Path) -> None:
    assert_falls_back(mode, "without a C compiler", path=None)


def test_broken_library(mode, library_dir: Path) -> None:
    path = library_dir / asyncmg.core.LIBRARY_NAME
    path.write_bytes(b"this is no library")
    assert_falls_back(mode, "cannot load the library", path=path)


@pytest.mark.parametrize(
    ("source", "reason", "abi"),
    [
        ("unsigned amg_abi(void) { return 4711u; }", "has ABI 4711", 4711),
        (f"unsigned amg_abi(void) {{ return {ABI}u; }}", "cannot load the library", None),
        ("int unrelated;", "cannot load the library", None),
    ],
    ids=["another ABI", "a function is missing", "no ABI number"],
)
def test_foreign_library(
    compiler, mode, library_dir: Path, tmp_path: Path, source: str, reason: str, abi: int | None
) -> None:
    code = tmp_path / "foreign.c"
    code.write_text(source + "\n")
    path = library_dir / asyncmg.core.LIBRARY_NAME
    compiler.build(["-shared", "-fPIC", str(code)], path)
    assert_falls_back(mode, reason, path=path, abi=abi)


def test_first_directory_with_a_library_wins(core: Core, mode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(asyncmg.core, "__path__", [str(tmp_path), str(Path(core.path).parent)])
    mode("auto")
    assert asyncmg.core.status().path == core.path


WITHOUT_CTYPES = """
import sys
sys.modules["ctypes"] = None  # importing it raises ImportError, as in a Python built without libffi
import asyncmg.core
asyncmg.core.__path__ = [sys.argv[1]]
print(asyncmg.core.load())
print(asyncmg.core.status().reason)
"""


def test_python_without_ctypes(tmp_path: Path) -> None:
    (tmp_path / asyncmg.core.LIBRARY_NAME).touch()
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_CTYPES, str(tmp_path)],
        env={**os.environ, "ASYNCMG_CORE": "auto"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.stderr == ""
    core, reason = result.stdout.splitlines()
    assert core == "None"
    assert "has no ctypes" in reason


def test_importing_loads_nothing() -> None:
    script = "import sys, asyncmg.core; assert asyncmg.core._open.cache_info().currsize == 0"
    subprocess.run([sys.executable, "-c", script], timeout=30, check=True)
