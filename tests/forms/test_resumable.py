"""Uploads by offset."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncmg.errors import LimitExceeded, RemoteProtocolError
from asyncmg.forms.resumable import OffsetMismatch, store_piece, store_stream, stored_size

MAX = 100


async def pieces(*data: bytes, error: BaseException | None = None) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece
    if error is not None:
        raise error


def test_a_file_grows_piece_by_piece(tmp_path: Path) -> None:
    assert stored_size(tmp_path, "f.bin") == 0
    assert store_piece(tmp_path, "f.bin", 0, b"abc", MAX) == 3
    assert store_piece(tmp_path, "f.bin", "3", b"", MAX) == 3
    assert store_piece(tmp_path, "f.bin", "3", b"def", MAX) == 6 == stored_size(tmp_path, "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == b"abcdef"
    assert stat.S_IMODE((tmp_path / "f.bin").stat().st_mode) == 0o600
    assert store_piece(tmp_path, "f.bin", "0", b"x", MAX) == 1, "0 begins anew"
    assert (tmp_path / "f.bin").read_bytes() == b"x"


@pytest.mark.parametrize(("offset", "size"), [(1, 3), (4, 3), ("99", 3)])
def test_an_offset_that_is_not_the_size(tmp_path: Path, offset: int | str, size: int) -> None:
    store_piece(tmp_path, "f", 0, b"abc", MAX)
    with pytest.raises(OffsetMismatch, match="offset mismatch: the file has 3 bytes") as caught:
        store_piece(tmp_path, "f", offset, b"x", MAX)
    assert (caught.value.wire_code, caught.value.size) == (400, size)
    assert (tmp_path / "f").read_bytes() == b"abc"


def test_an_offset_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(OffsetMismatch) as caught:
        store_piece(tmp_path, "f", 1, b"x", MAX)
    assert caught.value.size == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("offset", [-1, "-1", "", "x", "1.0", "+1", " 1", "\u0661", "1" * 19])
async def test_invalid_offsets(tmp_path: Path, offset: int | str) -> None:
    with pytest.raises(RemoteProtocolError, match="invalid offset") as caught:
        store_piece(tmp_path, "f", offset, b"x", MAX)
    assert caught.value.wire_code == 400
    with pytest.raises(RemoteProtocolError, match="invalid offset"):
        await store_stream(tmp_path, "f", offset, pieces(b"x"), MAX)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/",
        "../f",
        "a/b",
        "a\\b",
        "/etc/passwd",
        "a\0b",
        "a\n",
        ".f",
        "f.",
        "f ",
        "CON",
        "a:b",
        "\udcff",
        "x" * 201,
    ],
)
def test_invalid_names(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for call in (lambda: store_piece(folder, name, 0, b"x", MAX), lambda: stored_size(folder, name)):
        with pytest.raises(RemoteProtocolError, match="invalid file" if name else "file required") as caught:
            call()
        assert caught.value.wire_code == 400
        assert str(caught.value).isascii()
    assert [*tmp_path.rglob("*")] == [folder]


def test_the_file_is_bounded(tmp_path: Path) -> None:
    assert store_piece(tmp_path, "f", 0, b"x" * 10, 10) == 10
    for offset, data in (("10", b"x"), (0, b"x" * 11), (10**17, b"")):
        with pytest.raises(LimitExceeded) as caught:
            store_piece(tmp_path, "f", offset, data, 10)
        assert caught.value.wire_code == 413
    assert stored_size(tmp_path, "f") == 10, "it is as it was"


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "fifo"])
@pytest.mark.parametrize("offset", [0, 6])
async def test_what_is_no_regular_file(tmp_path: Path, kind: str, offset: int) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    victim = tmp_path / "victim"
    victim.write_bytes(b"victim")
    if kind == "link":
        (folder / "f").symlink_to(victim)
    elif kind == "dangling":
        (folder / "f").symlink_to(tmp_path / "nowhere")
    elif kind == "folder":
        (folder / "f").mkdir()
    else:
        os.mkfifo(folder / "f")
    with pytest.raises(RemoteProtocolError, match="invalid file"):
        store_piece(folder, "f", offset, b"x", MAX)
    with pytest.raises(RemoteProtocolError, match="invalid file"):
        await store_stream(folder, "f", offset, pieces(b"x"), MAX)
    with pytest.raises(RemoteProtocolError, match="invalid file"):
        stored_size(folder, "f")
    assert victim.read_bytes() == b"victim" and not (tmp_path / "nowhere").exists()


def test_a_fifo_with_a_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    reader = os.open(tmp_path / "f", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(RemoteProtocolError, match="invalid file"):
            store_piece(tmp_path, "f", 0, b"x", MAX)
    finally:
        os.close(reader)


@pytest.mark.parametrize("offset", [0, 1])
def test_a_folder_that_is_not_there(tmp_path: Path, offset: int) -> None:
    with pytest.raises(FileNotFoundError):
        store_piece(tmp_path / "nowhere", "f", offset, b"x", MAX)


def test_a_system_that_writes_little_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, bytes(data)[:3]))
    assert store_piece(tmp_path, "f", 0, b"0123456789", MAX) == 10
    assert (tmp_path / "f").read_bytes() == b"0123456789"


async def test_a_stream(tmp_path: Path) -> None:
    assert await store_stream(tmp_path, "f", "0", pieces(b"abc", b"", b"def"), MAX) == 6
    assert await store_stream(tmp_path, "f", 6, pieces(b"g"), MAX) == 7
    assert (tmp_path / "f").read_bytes() == b"abcdefg"
    assert await store_stream(tmp_path, "f", 0, pieces(), MAX) == 0
    with pytest.raises(OffsetMismatch):
        await store_stream(tmp_path, "f", 6, pieces(b"x"), MAX)


async def test_what_has_arrived_stays(tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError):
        await store_stream(tmp_path, "f", 0, pieces(b"abc", b"def", error=ConnectionResetError()), MAX)
    assert stored_size(tmp_path, "f") == 6
    assert await store_stream(tmp_path, "f", 6, pieces(b"ghi"), MAX) == 9
    assert (tmp_path / "f").read_bytes() == b"abcdefghi"


async def test_cancelling_a_stream(tmp_path: Path) -> None:
    arrived = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield b"abc"
        arrived.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store_stream(tmp_path, "f", 0, stalling(), MAX))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (tmp_path / "f").read_bytes() == b"abc"


async def test_a_stream_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(LimitExceeded) as caught:
        await store_stream(tmp_path, "f", 0, pieces(b"x" * 6, b"x" * 5), 10)
    assert caught.value.wire_code == 413
    assert stored_size(tmp_path, "f") == 6, "nothing of the piece that was too much"


async def test_two_streams_to_one_file_do_not_mix(tmp_path: Path) -> None:
    """The client comes back while its old connection has not been noticed to be dead."""
    go_on, is_waiting = asyncio.Event(), asyncio.Event()

    async def old() -> AsyncIterator[bytes]:
        yield b"abc"
        is_waiting.set()
        await go_on.wait()
        yield b"OLD"

    task = asyncio.create_task(store_stream(tmp_path, "f", 0, old(), MAX))
    await is_waiting.wait()
    assert await store_stream(tmp_path, "f", 3, pieces(b"def"), MAX) == 6
    go_on.set()
    with pytest.raises(OffsetMismatch):
        await task
    assert (tmp_path / "f").read_bytes() == b"abcdef"


async def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("the system does not list descriptors")
    before = len(list(descriptors.iterdir()))
    store_piece(tmp_path, "f", 0, b"abc", MAX)
    with pytest.raises(OffsetMismatch):
        store_piece(tmp_path, "f", 1, b"x", MAX)
    with pytest.raises(ConnectionResetError):
        await store_stream(tmp_path, "f", 0, pieces(b"x", error=ConnectionResetError()), MAX)
    assert len(list(descriptors.iterdir())) == before
