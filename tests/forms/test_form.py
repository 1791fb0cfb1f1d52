"""Forms and uploaded files: whole, as they come in, and part by part."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from asyncmg.errors import LimitExceeded, RemoteProtocolError
from asyncmg.forms.events import PartBegin
from asyncmg.forms.form import _CHARSETS, Form, form_of, parts_of, read_form
from asyncmg.forms.uploads import MAX_IN_MEMORY, TemporaryFile, UploadedFile, safe_filename
from asyncmg.limits import FormLimits

LIMITS = FormLimits()
MULTIPART = "multipart/form-data; boundary=b0"
URLENCODED = "application/x-www-form-urlencoded; charset=UTF-8"
LARGE = bytes(range(256)) * 1024


def encode(*parts: tuple[str, bytes], end: str = "--b0--\r\n") -> bytes:
    out = [
        f"--b0\r\nContent-Disposition: form-data; {header}\r\n\r\n".encode() + content + b"\r\n"
        for header, content in parts
    ]
    return b"".join(out) + end.encode()


BODY = encode(
    ('name="a"', b"1"),
    ('name="small"; filename="s.txt"\r\nContent-Type: text/x-small', b"small"),
    ('name="large"; filename="l.bin"', LARGE),
    ('name="none"; filename=""\r\nContent-Type: application/octet-stream', b""),
    ('name="a"', b"2"),
)


class Break(Exception):
    """The connection breaks."""


async def pieces(data: bytes, size: int = 10_000, error: BaseException | None = None) -> AsyncIterator[bytes]:
    for position in range(0, len(data), size):
        yield data[position : position + size]
        await asyncio.sleep(0)
    if error is not None:
        raise error


# -- form_of ---------------------------------------------------------------------------------------------------------


def test_a_multipart_form() -> None:
    with form_of(MULTIPART, BODY, LIMITS) as form:
        assert [name for name, _ in form.pairs] == ["a", "small", "large", "a"]
        assert form["a"] == "1" and form.all("a") == ["1", "2"]
        assert form.fields.pairs == [("a", "1"), ("a", "2")]
        assert list(form.files) == ["small", "large"]
        assert "none" not in form  # no file was chosen
        small, large = form.files["small"], form.files["large"]
        assert (small.name, small.filename, small.content_type, small.size) == ("small", "s.txt", "text/x-small", 5)
        assert ("content-type", "text/x-small") in small.headers
        assert small.read() == b"small" and large.read() == LARGE
        assert small.path is None and large.path is None  # a body that is in memory stays there
        with small.open() as file:
            assert file.read(2) == b"sm"
        assert repr(small) == "<UploadedFile 'small' filename='s.txt' 5 bytes>"
    with pytest.raises(ValueError, match="closed"):
        small.read()
    form.close()


def test_an_urlencoded_form() -> None:
    form = form_of(URLENCODED, b"a=1&b=%C3%A4+b&a=2&c=%ff", LIMITS)
    assert form.pairs == [("a", "1"), ("b", "\xe4 b"), ("a", "2"), ("c", "\udcff")]
    assert not form.files


def test_an_empty_form() -> None:
    assert form_of(URLENCODED, b"", LIMITS).pairs == []
    assert form_of(MULTIPART, b"--b0--\r\n", LIMITS).pairs == []


def test_a_file_without_a_name_is_one() -> None:
    form = form_of(MULTIPART, encode(('name="a"; filename=""', b"x")), LIMITS)
    assert form.files["a"].read() == b"x" and form.files["a"].safe_filename == "upload"


@pytest.mark.parametrize("content_type", ["", "text/plain", "multipart/mixed; boundary=b0", "application/json"])
async def test_what_is_no_form(content_type: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        form_of(content_type, b"", LIMITS)
    assert caught.value.wire_code == 415
    with pytest.raises(RemoteProtocolError):
        await read_form(content_type, pieces(b""), LIMITS)
    with pytest.raises(RemoteProtocolError):
        await anext(parts_of(content_type, pieces(b""), LIMITS))


def test_broken_and_large_forms() -> None:
    with pytest.raises(RemoteProtocolError) as broken:
        form_of(MULTIPART, BODY[:-10], LIMITS)
    assert broken.value.wire_code == 400
    with pytest.raises(LimitExceeded) as large:
        form_of(MULTIPART, BODY, FormLimits(max_file=1000))
    assert large.value.wire_code == 413


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([('name="t"', "\xe4\u20ac".encode())], "\xe4\u20ac"),
        ([('name="t"', b"\xe4")], "\udce4"),
        ([('name="t"\r\nContent-Type: text/plain; charset=ISO-8859-1', b"\xe4\x80")], "\xe4\u20ac"),
        ([('name="t"\r\nContent-Type: text/plain; charset="windows-1251"', b"\xe4")], "\u0434"),
        ([('name="t"', b"\xe4"), ('name="_charset_"', b"Windows-1251")], "\u0434"),
        ([('name="_charset_"', b"shift_jis"), ('name="t"', "\u65e5".encode("shift_jis"))], "\u65e5"),
        ([('name="_charset_"', b"koi8-r"), ('name="t"\r\nContent-Type: a/b; charset=utf-8', b"\xc3\xa4")], "\xe4"),
        ([('name="_charset_"', b"unicode_escape"), ('name="t"', b"\\x41")], "\\x41"),
        ([('name="t"\r\nContent-Type: text/plain; charset=utf-7', b"+ADw-")], "+ADw-"),
    ],
)
def test_charsets(parts: list[tuple[str, bytes]], text: str) -> None:
    """RFC 7578 section 4.6; only charsets, not all codecs of Python."""
    assert form_of(MULTIPART, encode(*parts), LIMITS)["t"] == text


def test_no_charset_raises() -> None:
    data = (
        os.urandom(5000) + bytes(range(256)) + b"".join(bytes([high, low]) for high in range(256) for low in range(256))
    )
    for name in _CHARSETS:
        body = encode(('name="_charset_"', name.encode()), ('name="t"', data.replace(b"\r\n--b0", b"")))
        assert form_of(MULTIPART, body, LIMITS)["t"]


# -- read_form -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 10_000, 1 << 20])
async def test_a_form_that_comes_in(tmp_path: Path, size: int) -> None:
    with await read_form(MULTIPART, pieces(BODY, size), LIMITS, tmp_path) as form:
        assert form.fields.pairs == [("a", "1"), ("a", "2")]
        small, large = form.files["small"], form.files["large"]
        assert small.path is None and small.read() == b"small"
        assert large.path is not None and large.path.parent == tmp_path and large.size == len(LARGE)
        assert stat.S_IMODE(large.path.stat().st_mode) == 0o600
        assert large.read() == LARGE
        with large.open() as file:
            assert file.read(256) == LARGE[:256]
        assert list(tmp_path.iterdir()) == [large.path]
    assert list(tmp_path.iterdir()) == []
    assert large.path is None
    with pytest.raises(ValueError, match="closed"):
        large.open()


async def test_small_files_stay_in_memory(tmp_path: Path) -> None:
    for size in (MAX_IN_MEMORY, MAX_IN_MEMORY + 1):
        body = encode(('name="f"; filename="x"', b"x" * size))
        with await read_form(MULTIPART, pieces(body), LIMITS, tmp_path) as form:
            assert (form.files["f"].path is None) == (size == MAX_IN_MEMORY)


async def test_fields_stay_in_memory(tmp_path: Path) -> None:
    text = "x" * (MAX_IN_MEMORY + 1)
    form = await read_form(MULTIPART, pieces(encode(('name="t"', text.encode()))), LIMITS, tmp_path / "nowhere")
    assert form["t"] == text


async def test_many_small_files_do_not_stay_in_memory(tmp_path: Path) -> None:
    body = encode(*[('name="f"; filename="x"', b"x" * 1000)] * 10)
    with await read_form(MULTIPART, pieces(body), FormLimits(max_fields_size=5000), tmp_path) as form:
        assert sum(file.path is None for file in form.all("f") if isinstance(file, UploadedFile)) == 5
        assert len(list(tmp_path.iterdir())) == 5
        assert [file.read() for file in form.all("f") if isinstance(file, UploadedFile)] == [b"x" * 1000] * 10
    assert list(tmp_path.iterdir()) == []


async def test_an_urlencoded_form_that_comes_in() -> None:
    form = await read_form(URLENCODED, pieces(b"a=1&b=+2", 1), LIMITS)
    assert form.pairs == [("a", "1"), ("b", " 2")]


@pytest.mark.parametrize(
    ("body", "error", "expected"),
    [
        (BODY[:-300], Break(), Break),
        (BODY[: len(LARGE)], Break(), Break),
        (BODY[: len(LARGE)], None, RemoteProtocolError),
        (BODY[:-10], None, RemoteProtocolError),
        (BODY[:-10] + b"malformed", None, RemoteProtocolError),
        (encode(('name="f"; filename="x"', LARGE * 2)), None, LimitExceeded),
    ],
)
async def test_errors_remove_the_files(
    tmp_path: Path, body: bytes, error: BaseException | None, expected: type[Exception]
) -> None:
    with pytest.raises(expected):
        await read_form(MULTIPART, pieces(body, error=error), FormLimits(max_file=len(LARGE)), tmp_path)
    assert list(tmp_path.iterdir()) == []


async def wait_for_file(folder: Path) -> None:
    for _ in range(100_000):
        if any(folder.iterdir()):
            return
        await asyncio.sleep(0)
    raise AssertionError("no file appears")


async def stalling(data: bytes) -> AsyncIterator[bytes]:
    yield data
    await asyncio.Event().wait()


async def test_cancelling_removes_the_files(tmp_path: Path) -> None:
    task = asyncio.create_task(read_form(MULTIPART, stalling(BODY[:-300]), LIMITS, tmp_path))
    await wait_for_file(tmp_path)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(tmp_path.iterdir()) == []


async def test_the_garbage_collector_removes_the_files(tmp_path: Path) -> None:
    """Without a ResourceWarning: warnings are errors."""
    form = await read_form(MULTIPART, pieces(BODY), LIMITS, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    del form
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_the_end_of_the_program_removes_the_files_and_a_forked_child_does_not(tmp_path: Path) -> None:
    program = """
import os, sys
from asyncmg.forms.uploads import TemporaryFile
file = TemporaryFile(sys.argv[1])
file.write(b"x")
if os.fork() == 0:
    sys.exit(0)
os.wait()
print(file.path.exists())
"""
    if not hasattr(os, "fork"):
        pytest.skip("the system has no fork()")
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert (result.stdout, result.stderr) == ("True\n", "")
    assert list(tmp_path.iterdir()) == []


# -- save ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["small", "large"])
async def upload(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[UploadedFile]:
    (tmp_path / "spool").mkdir()
    with await read_form(MULTIPART, pieces(BODY), LIMITS, tmp_path / "spool") as form:
        yield form.files[request.param]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_save(upload: UploadedFile, tmp_path: Path) -> None:
    content = upload.read()
    folder = tmp_path / "target"
    folder.mkdir()
    saved = upload.save(folder)
    assert saved == folder / upload.safe_filename == upload.path
    assert saved.read_bytes() == content == upload.read()
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600 and saved.stat().st_nlink == 1
    upload.close()
    assert names(folder) == [saved.name], "what was saved stays"
    copy = upload.save(folder / "copy", mode=0o640)
    assert saved.read_bytes() == copy.read_bytes() == content
    assert stat.S_IMODE(copy.stat().st_mode) == 0o640
    assert names(folder) == sorted([saved.name, "copy"])


async def test_save_replaces_only_when_told(upload: UploadedFile, tmp_path: Path) -> None:
    content = upload.read()
    folder = tmp_path / "target"
    folder.mkdir()
    victim = tmp_path / "victim"
    victim.write_bytes(b"victim")
    (folder / "file").write_bytes(b"old")
    (folder / "link").symlink_to(victim)
    (folder / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link", "dangling"):
        with pytest.raises(FileExistsError):
            upload.save(folder / name)
    assert names(folder) == ["dangling", "file", "link"]
    assert upload.read() == content
    for name in ("link", "dangling", "file"):
        upload.save(folder / name, overwrite=True)
        assert (folder / name).read_bytes() == content and not (folder / name).is_symlink()
    assert victim.read_bytes() == b"victim" and not (tmp_path / "nowhere").exists()


async def test_save_into_no_folder(upload: UploadedFile, tmp_path: Path) -> None:
    content = upload.read()
    with pytest.raises(FileNotFoundError):
        upload.save(tmp_path / "nowhere" / "file")
    assert upload.read() == content


def refusing(number: int) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("overwrite", [False, True])
async def test_save_on_another_file_system(
    upload: UploadedFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    def within_one_folder(call: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        def checked(source: Any, target: Any) -> None:
            if Path(source).parent != Path(target).parent:
                raise OSError(errno.EXDEV, "another device")
            call(source, target)

        return checked

    monkeypatch.setattr(os, "link", within_one_folder(os.link))
    monkeypatch.setattr(os, "replace", within_one_folder(os.replace))
    content = upload.read()
    folder = tmp_path / "target"
    folder.mkdir()
    assert upload.save(folder / "file", overwrite=overwrite).read_bytes() == content
    assert names(folder) == ["file"]
    spooled = 1 if upload.name == "small" else 0  # the other file of the form
    assert len(names(tmp_path / "spool")) == spooled


async def test_save_without_hard_links(upload: UploadedFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    content = upload.read()
    folder = tmp_path / "target"
    folder.mkdir()
    (folder / "taken").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        upload.save(folder / "taken")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refusing(errno.EIO))
        with pytest.raises(OSError):
            upload.save(folder / "file")
    assert names(folder) == ["taken"] and (folder / "taken").read_bytes() == b"old"
    assert upload.save(folder / "file").read_bytes() == content
    assert names(folder) == ["file", "taken"]


def test_an_uploaded_file_is_a_context_manager(tmp_path: Path) -> None:
    file = TemporaryFile(tmp_path)
    file.write(b"x")
    file.complete()
    with UploadedFile(PartBegin("a"), file, 1) as upload:
        assert upload.read() == b"x"
    assert names(tmp_path) == []


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("a.txt", "a.txt"),
        ("\xe4 \u65e5.txt", "\xe4 \u65e5.txt"),
        ("", "upload"),
        ("/", "upload"),
        ("..", "upload"),
        (".", "upload"),
        ("../../etc/passwd", "passwd"),
        ("C:\\dir\\a.txt", "a.txt"),
        ("a/..\\b", "b"),
        (".htaccess", "htaccess"),
        (". .a", "a"),
        ("a. . ", "a"),
        ("a\0b\r\n\x7f\x85.txt", "ab.txt"),
        ("a\u202etxt.exe", "atxt.exe"),
        ('a:b*?<>|".txt', "a_b______.txt"),
        ("file::$DATA", "file__$DATA"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("com1 .x", "_com1 .x"),
        ("LPT\xb9", "_LPT\xb9"),
        ("console", "console"),
        ("com10", "com10"),
        ("con" + " " * 300 + "x", "_con"),
        ("\udcff\ud800.txt", "__.txt"),
        ("a" * 300 + ".txt", "a" * 196 + ".txt"),
        ("\xe4" * 300, "\xe4" * 100),
        ("a." + "b" * 300, "a." + "b" * 198),
    ],
)
def test_safe_filenames(filename: str, name: str) -> None:
    assert safe_filename(filename) == name
    assert safe_filename(name) == name
    assert UploadedFile(PartBegin("x", filename), b"", 0).safe_filename == name


# -- parts_of --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 10_000, 1 << 20])
async def test_parts(tmp_path: Path, size: int) -> None:
    found = []
    async for part in parts_of(MULTIPART, pieces(BODY, size), LIMITS):
        found.append((part.name, part.filename, part.is_file, await part.read()))
        assert await part.read() == b"", "read already"
    assert found == [
        ("a", "", False, b"1"),
        ("small", "s.txt", True, b"small"),
        ("large", "l.bin", True, LARGE),
        ("none", "", True, b""),
        ("a", "", False, b"2"),
    ]


async def test_pieces_of_a_part() -> None:
    async for part in parts_of(MULTIPART, pieces(BODY, 1000), LIMITS):
        if part.name == "large":
            content = [piece async for piece in part]
            assert len(content) > 200 and b"".join(content) == LARGE
            assert repr(part) == "<FormPart 'large' filename='l.bin' text/plain>"
            assert part.safe_filename == "l.bin" and part.headers[0][0] == "content-disposition"


async def test_what_is_not_read_is_discarded() -> None:
    kept = []
    async for part in parts_of(MULTIPART, pieces(BODY, 1000), LIMITS):
        kept.append(part)
        if part.name == "large":
            assert await anext(part)  # and no more of it
    assert [part.name for part in kept] == ["a", "small", "large", "none", "a"]
    for part in kept:
        assert await part.read() == b""


async def test_the_text_of_a_part() -> None:
    body = encode(
        ('name="a"', b"\xe4\xc3\xa4"), ('name="b"\r\nContent-Type: text/plain; charset=windows-1252', b"\x80")
    )
    texts = [await part.text() async for part in parts_of(MULTIPART, pieces(body), LIMITS)]
    assert texts == ["\udce4\xe4", "\u20ac"]


async def test_urlencoded_parts() -> None:
    found = [(part.name, await part.text()) async for part in parts_of(URLENCODED, pieces(b"a=1&b=+2&c", 1), LIMITS)]
    assert found == [("a", "1"), ("b", " 2"), ("c", "")]


async def test_reading_a_part_is_bounded() -> None:
    limits = FormLimits(max_field=1000)
    for max_size in (None, 1000, 10):
        with pytest.raises(LimitExceeded) as caught:
            async for part in parts_of(MULTIPART, pieces(BODY, 100), limits):
                await part.read(max_size) if part.name == "large" else None
        assert caught.value.wire_code == 413
    async for part in parts_of(MULTIPART, pieces(BODY, 100), limits):
        if part.name == "large":
            assert await part.read(len(LARGE)) == LARGE


async def test_saving_parts(tmp_path: Path) -> None:
    async for part in parts_of(MULTIPART, pieces(BODY), LIMITS):
        if part.filename:
            saved = await part.save(tmp_path, mode=0o640)
            assert saved == tmp_path / part.filename and stat.S_IMODE(saved.stat().st_mode) == 0o640
    assert names(tmp_path) == ["l.bin", "s.txt"]
    assert (tmp_path / "l.bin").read_bytes() == LARGE
    with pytest.raises(FileExistsError):
        async for part in parts_of(MULTIPART, pieces(BODY), LIMITS):
            await part.save(tmp_path / "l.bin")
    async for part in parts_of(MULTIPART, pieces(BODY), LIMITS):
        if part.name == "small":
            await part.save(tmp_path / "l.bin", overwrite=True)
    assert names(tmp_path) == ["l.bin", "s.txt"]
    assert (tmp_path / "l.bin").read_bytes() == b"small"


async def save_large(folder: Path, chunks: AsyncIterator[bytes]) -> None:
    async for part in parts_of(MULTIPART, chunks, LIMITS):
        if part.name == "large":
            await part.save(folder / "file")


async def test_nothing_stays_of_a_part_that_is_not_complete(tmp_path: Path) -> None:
    cut = BODY[: len(LARGE)]
    with pytest.raises(Break):
        await save_large(tmp_path, pieces(cut, error=Break()))
    with pytest.raises(RemoteProtocolError):
        await save_large(tmp_path, pieces(cut))
    assert names(tmp_path) == []
    task = asyncio.create_task(save_large(tmp_path, stalling(cut)))
    await wait_for_file(tmp_path)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(tmp_path) == []


async def test_an_incomplete_form_does_not_end_quietly() -> None:
    """Whoever goes on after the error gets it again."""
    source = parts_of(MULTIPART, pieces(BODY[: len(LARGE)]), LIMITS)
    async for part in source:
        if part.name == "large":
            for _ in range(2):
                with pytest.raises(RemoteProtocolError):
                    await part.read()
            break
    with pytest.raises(RemoteProtocolError):
        await anext(source)


def test_a_form_is_a_mapping() -> None:
    form = Form([("a", "1"), ("b", "2"), ("a", "3")])
    assert dict(form) == {"a": "1", "b": "2"}
    assert len(form) == 2 and form.get("c") is None
