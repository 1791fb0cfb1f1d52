"""One uploaded file: in memory while it is small, in a temporary file otherwise."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import tempfile
import unicodedata
import weakref
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from .events import PartBegin

StrPath = str | os.PathLike[str]

MAX_IN_MEMORY = 64 << 10  # a larger file goes to the disk
_MAX_NAME = 200  # bytes; file systems take 255
_BUFFER_SIZE = 64 << 10

_NOT_IN_NAMES = re.compile(r'[<>:"|?*]')  # Windows; the colon also begins a stream of NTFS
_DEVICE = re.compile(r"\A(?:con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(?:\.|\Z)", re.IGNORECASE)


def safe_filename(filename: str) -> str:
    """Make a name for a file, in one folder, of what a client calls it; ``"upload"`` when nothing is left.

    The last component remains, without control characters and characters that change the direction of text, without
    dots and spaces at its ends. What Windows does not allow becomes ``_``, names of its devices get one in front. At
    most 200 bytes, the extension kept. Two files may get the same name.
    """
    name = filename.replace("\\", "/").rpartition("/")[2]
    name = "".join(
        "_" if "\ud800" <= character <= "\udfff" else character
        for character in name
        if unicodedata.category(character) not in ("Cc", "Cf", "Zl", "Zp")
    )
    name = _NOT_IN_NAMES.sub("_", name).lstrip(". ").rstrip(". ")
    name = _DEVICE.sub(r"_\g<0>", name)
    if len(name.encode()) > _MAX_NAME:
        stem, dot, extension = name.rpartition(".")
        if not dot or len(extension.encode()) > 20:
            stem, extension = name, ""
        tail = dot + extension if extension else ""
        stem = stem.encode()[: _MAX_NAME - len(tail.encode())].decode(errors="ignore").rstrip(". ")
        name = _DEVICE.sub(r"_\g<0>", stem + tail)  # what was cut off may have made the difference
    return name or "upload"


class TemporaryFile:
    """A file being written, which nobody else can open; it is removed unless it is placed somewhere.

    ``remove()`` removes it; so do the garbage collector and the end of the program.

    Args:
        folder: an existing one; None: the system's for temporary files.

    Raises:
        OSError: the system cannot make the file.
    """

    __slots__ = ("__weakref__", "_file", "_finalizer", "path")

    def __init__(self, folder: StrPath | None) -> None:
        fd, path = tempfile.mkstemp(prefix=".upload-", dir=folder)  # mode 0600, does not follow links
        self._file = os.fdopen(fd, "wb", _BUFFER_SIZE)
        self.path = Path(path)
        self._finalizer = weakref.finalize(self, _discard, self._file, path, os.getpid())

    def write(self, data: bytes | bytearray) -> None:
        self._file.write(data)

    def complete(self) -> None:
        """Write what is in the buffer. Nothing can be written any more."""
        self._file.close()

    def place(self, target: Path, overwrite: bool, mode: int) -> None:
        """Make it the file ``target``, on the same file system, as a whole. See :meth:`UploadedFile.save`."""
        self._file.close()
        os.chmod(self.path, mode)
        if overwrite:
            os.replace(self.path, target)
        else:
            _link_or_rename(self.path, target)
        self._finalizer()  # removes the first name of what was linked

    def remove(self) -> None:
        """Close and remove it; a second call does nothing."""
        self._finalizer()


def _discard(file: BinaryIO, path: str, pid: int) -> None:
    try:
        file.close()
    except OSError:
        pass  # what cannot be written is not wanted
    if os.getpid() == pid:  # a forked child must not take away its parent's files
        try:
            os.unlink(path)
        except OSError:
            pass  # it was moved, or somebody else has removed it


def _link_or_rename(source: Path, target: Path) -> None:
    """Give a file another name, unless something has that name: rename() would replace it."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError as exc:
        if exc.errno == errno.EXDEV:
            raise
        # A file system without hard links: take the name first, then rename.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            os.replace(source, target)
        except OSError:
            os.unlink(target)
            raise


class UploadedFile:
    """A file that was sent with a form.

    It is removed by ``close()``, by closing the Form that it belongs to, by the garbage collector, and at the end of
    the program, unless it was saved.

    Attributes:
        name: of the field.
        filename: what the client calls it: never use it as a path, see ``safe_filename``.
        content_type: what the client says that it is.
        headers: of its part, in order, names in lower case.
        size: in bytes.
    """

    __slots__ = ("_content", "content_type", "filename", "headers", "name", "size")

    def __init__(self, part: PartBegin, content: bytes | TemporaryFile, size: int) -> None:
        self.name = part.name
        self.filename = part.filename
        self.content_type = part.content_type
        self.headers = part.headers
        self.size = size
        self._content: bytes | TemporaryFile | Path | None = content  # a Path: saved there; None: closed

    def __repr__(self) -> str:
        return f"<UploadedFile {self.name!r} filename={self.filename!r} {self.size} bytes>"

    def __enter__(self) -> UploadedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def safe_filename(self) -> str:
        """``filename``, as :func:`safe_filename` makes it safe."""
        return safe_filename(self.filename)

    @property
    def path(self) -> Path | None:
        """Where the file is: a temporary one, then the one it was saved as; None while in memory, and when closed."""
        content = self._content
        return content.path if isinstance(content, TemporaryFile) else content if isinstance(content, Path) else None

    def open(self) -> BinaryIO:
        """Open the file for reading; the caller closes it.

        Raises:
            ValueError: the file has been closed without having been saved.
            OSError: the system cannot open it.
        """
        if isinstance(self._content, bytes):
            return io.BytesIO(self._content)
        if self.path is None:
            raise ValueError("this uploaded file has been closed")
        return self.path.open("rb")

    def read(self) -> bytes:
        """Return the whole content. Raises as :meth:`open`."""
        if isinstance(self._content, bytes):
            return self._content
        with self.open() as file:
            return file.read()

    def save(self, path: StrPath, *, overwrite: bool = False, mode: int = 0o600) -> Path:
        """Move the file to where it is to stay; copy it when it is in memory or on another file system.

        It appears at ``path`` as a whole, or not at all. A second call makes a copy.

        Args:
            path: of the file, or an existing folder, in which it gets its ``safe_filename``.
            overwrite: replace a file that is there; a symbolic link is replaced, not followed.
            mode: its permissions.

        Returns:
            the path of the file.

        Raises:
            FileExistsError: there is something at ``path``.
            ValueError: the file has been closed without having been saved.
            OSError: the system cannot do it.
        """
        target = target_of(path, self.filename, overwrite)
        if isinstance(self._content, TemporaryFile):
            try:
                self._content.place(target, overwrite, mode)
            except OSError as exc:
                if exc.errno != errno.EXDEV:
                    raise
                self._copy_to(target, overwrite, mode)
                self._content.remove()
        else:
            self._copy_to(target, overwrite, mode)
        self._content = target
        return target

    def _copy_to(self, target: Path, overwrite: bool, mode: int) -> None:
        with self.open() as source:
            copy = TemporaryFile(target.parent)
            try:
                shutil.copyfileobj(source, copy, _BUFFER_SIZE)
                copy.place(target, overwrite, mode)
            finally:
                copy.remove()

    def close(self) -> None:
        """Remove the file unless it was saved; a second call does nothing."""
        if isinstance(self._content, TemporaryFile):
            self._content.remove()
        if not isinstance(self._content, Path):
            self._content = None


def target_of(path: StrPath, filename: str, overwrite: bool) -> Path:
    """Return where a file is to be saved: at ``path``, or in it when it is a folder.

    Raises:
        FileExistsError: there is something already.
    """
    target = Path(path)
    if target.is_dir():
        target /= safe_filename(filename)
    if not overwrite and os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "there is such a file already", str(target))
    return target


class UploadWriter:
    """Collects the content of one file: in memory, and in a temporary file when it has become large.

    Args:
        part: that begins.
        folder: as of TemporaryFile.
        max_in_memory: bytes.
    """

    __slots__ = ("_data", "_file", "_folder", "_max_in_memory", "_part", "size")

    def __init__(self, part: PartBegin, folder: StrPath | None, max_in_memory: int) -> None:
        self._part = part
        self._folder = folder
        self._max_in_memory = max_in_memory
        self._data = bytearray()
        self._file: TemporaryFile | None = None
        self.size = 0

    def write(self, data: bytes) -> None:
        self.size += len(data)
        if self._file is not None:
            self._file.write(data)
            return
        self._data += data
        if self.size > self._max_in_memory:
            self._file = TemporaryFile(self._folder)
            self._file.write(self._data)
            self._data = bytearray()

    def complete(self) -> UploadedFile:
        if self._file is None:
            return UploadedFile(self._part, bytes(self._data), self.size)
        self._file.complete()
        return UploadedFile(self._part, self._file, self.size)

    def discard(self) -> None:
        if self._file is not None:
            self._file.remove()
