"""Request paths and what they open below a root: no spelling and no symbolic link leads out of it.

Where the system has ``openat`` and ``O_NOFOLLOW``, a path is opened one part at a time, and no part may be a link:
there is no moment between looking and opening in which a link could be put in its place. Elsewhere (Windows) the path
is looked at first and opened then; who may write into the root can win that race.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

# NUL ends names in C, a backslash separates parts on Windows, and a name with a line break is an attack or an accident.
_REFUSED = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")

_GOES_STEP_BY_STEP = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW") and hasattr(os, "O_DIRECTORY")
_NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)
# O_PATH: a folder on the way needs the permission to pass, not the one to list.
_PASS: int = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | _NO_LINK
_LIST: int = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _NO_LINK
# O_NONBLOCK: opening a FIFO must not wait for its writer. O_NOCTTY: nor may a terminal become ours.
_READ: int = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)


def split_path(path: str) -> list[str] | None:
    """Split a decoded request path into its parts; empty ones and ``.`` are dropped (``//``, ``/./``).

    Args:
        path: decoded once, as :attr:`HttpMessage.path` is: an encoded percent sign stays a percent sign.

    Returns:
        None when the path may not be served: it has ``..``, a backslash or a control character.
    """
    if _REFUSED.search(path):
        return None
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return None if ".." in parts else parts


def is_hidden(parts: Sequence[str]) -> bool:
    """Tell whether a part begins with a dot; ``.well-known`` (RFC 8615) at the root is meant to be seen."""
    return any(part.startswith(".") and (number or part != ".well-known") for number, part in enumerate(parts))


def open_below(
    root: str | os.PathLike[str], parts: Sequence[str], *, follow_symlinks: bool = False
) -> tuple[int, os.stat_result]:
    """Open a regular file below a root.

    Args:
        root: an existing folder; may itself be a link, or lie behind one.
        parts: from :func:`split_path`.
        follow_symlinks: links are followed as long as what they lead to lies below the root.

    Returns:
        its descriptor, which the caller closes, and what fstat() says about it.

    Raises:
        IsADirectoryError: it is a folder.
        FileNotFoundError: there is nothing, or neither a file nor a folder, or a link that is not followed.
        OSError: the system refuses otherwise.
        ValueError: the name cannot be a name here.
    """
    if follow_symlinks or not _GOES_STEP_BY_STEP:
        root, parts = _resolve(root, parts, follow_symlinks)
    fd = _open_parts(root, parts, _READ | _NO_LINK) if _GOES_STEP_BY_STEP else _open_resolved(root, parts)
    return fd, _check_is_file(fd)


def open_file(path: str | os.PathLike[str]) -> tuple[int, os.stat_result]:
    """Open a regular file that the program names: links are followed. Result and errors as of :func:`open_below`."""
    fd = os.open(path, _READ)
    return fd, _check_is_file(fd)


@contextmanager
def scan_below(
    root: str | os.PathLike[str], parts: Sequence[str], *, follow_symlinks: bool = False
) -> Iterator[Iterator[os.DirEntry[str]]]:
    """Look into a folder below a root; arguments and errors as of :func:`open_below`.

    Yields:
        an iterator over the entries, valid within the ``with`` block; nothing is held in memory.
    """
    if follow_symlinks or not _GOES_STEP_BY_STEP:
        root, parts = _resolve(root, parts, follow_symlinks)
    if not _GOES_STEP_BY_STEP:
        with os.scandir(os.path.join(root, *parts)) as entries:
            yield entries
        return
    fd = _open_parts(root, parts, _LIST)
    try:
        with os.scandir(fd) as entries:
            yield entries
    finally:
        os.close(fd)


def _check_is_file(fd: int) -> os.stat_result:
    info = os.fstat(fd)
    if stat.S_ISREG(info.st_mode):
        return info
    os.close(fd)
    if stat.S_ISDIR(info.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise FileNotFoundError(errno.ENOENT, "not a regular file")


def _open_parts(root: str | os.PathLike[str], parts: Sequence[str], flags: int) -> int:
    """Go down from folder to folder, each opened in the one before, and open the last part with ``flags``."""
    if not parts:
        return os.open(root, flags & ~_NO_LINK)
    name = os.path.join(root, parts[0])
    folder: int | None = None
    try:
        for part in parts[1:]:
            deeper = os.open(name, _PASS, dir_fd=folder)
            if folder is not None:
                os.close(folder)
            folder, name = deeper, part
        return os.open(name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):  # what O_NOFOLLOW says to a link; the latter on FreeBSD
            raise FileNotFoundError(errno.ENOENT, "a link") from error
        raise
    finally:
        if folder is not None:
            os.close(folder)


def _resolve(root: str | os.PathLike[str], parts: Sequence[str], follow_symlinks: bool) -> tuple[str, Sequence[str]]:
    """Return the root and the parts behind it without links; FileNotFoundError when that is not below the root."""
    base = os.path.realpath(root, strict=True)
    literal = os.path.join(base, *parts)
    target = os.path.realpath(literal, strict=True)
    # On Windows a colon names a drive or a stream, and a name has other spellings (`GIT~1`, `a.txt.`): all refused.
    if not follow_symlinks and os.path.normcase(target) != os.path.normcase(literal):
        raise FileNotFoundError(errno.ENOENT, "a link, or another spelling of a name")
    below = os.path.relpath(target, base).split(os.sep)
    if below[0] == os.pardir or (os.name == "nt" and any(":" in part for part in parts)):
        raise FileNotFoundError(errno.ENOENT, "not below the root")
    return base, [] if below == [os.curdir] else below


def _open_resolved(root: str | os.PathLike[str], parts: Sequence[str]) -> int:
    path = os.path.join(root, *parts)
    if os.path.isdir(path):  # Windows does not open folders
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return os.open(path, _READ)
