"""Listings of folders: a plain page, or JSON."""

from __future__ import annotations

import datetime
import html
import json
import os
import stat
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote

from asyncmg.fields import quality_values
from asyncmg.files.paths import open_below, scan_below, split_path

#: Entries that are looked at; a folder that has more is listed in part, and the listing says so.
MAX_ENTRIES = 10_000

#: The page needs its style and nothing else: no name of a file can make it load or run anything.
CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'"

_COLUMNS = {"name": "Name", "size": "Size", "date": "Modified"}
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.25rem; overflow-wrap: anywhere; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: .25rem .5rem; text-align: left; border-bottom: 1px solid #8884; }
td:first-child { overflow-wrap: anywhere; }
th:nth-child(2), td:nth-child(2) { text-align: right; }
td:nth-child(n+2), th { white-space: nowrap; font-variant-numeric: tabular-nums; }
a { text-decoration: none; }
a:hover { text-decoration: underline; }
"""


class Entry(NamedTuple):
    """A file or a folder that may be requested.

    Attributes:
        name: as the file system has it; bytes that are not UTF-8 are surrogates.
        size: in bytes; 0 of a folder.
        modified: seconds since 1970.
    """

    name: str
    is_folder: bool
    size: int
    modified: int


class Listing(NamedTuple):
    """What is in a folder. ``is_cut``: it has more than :data:`MAX_ENTRIES`."""

    entries: list[Entry]
    is_cut: bool


def read_folder(
    root: str | os.PathLike[str], parts: Sequence[str], *, follow_symlinks: bool = False, hidden: bool = False
) -> Listing:
    """Read what may be requested of a folder: no special files, no links that are not followed, no impossible names.

    Args:
        root, parts, follow_symlinks: as of :func:`asyncmg.files.paths.open_below`.
        hidden: names that begin with a dot count.

    Raises:
        OSError: there is no such folder, or it cannot be read.
    """
    entries: list[Entry] = []
    with scan_below(root, parts, follow_symlinks=follow_symlinks) as scanned:
        for number, found in enumerate(scanned):
            if number == MAX_ENTRIES:
                return Listing(entries, True)
            name = found.name
            if split_path(name) != [name] or (not hidden and name.startswith(".")):
                continue
            try:
                info = found.stat(follow_symlinks=False)
                if stat.S_ISLNK(info.st_mode) and follow_symlinks:
                    info = _stat_link(root, [*parts, name])
            except (OSError, ValueError):
                continue  # it has vanished, or leads to nowhere or out of the root
            if stat.S_ISDIR(info.st_mode):
                entries.append(Entry(name, True, 0, int(info.st_mtime)))
            elif stat.S_ISREG(info.st_mode):
                entries.append(Entry(name, False, info.st_size, int(info.st_mtime)))
    return Listing(entries, False)


def _stat_link(root: str | os.PathLike[str], parts: Sequence[str]) -> os.stat_result:
    """Return what a link leads to, when it may be followed."""
    try:
        fd, info = open_below(root, parts, follow_symlinks=True)
    except IsADirectoryError:
        return os.stat(os.path.join(root, *parts))
    os.close(fd)
    return info


def sort_entries(entries: Sequence[Entry], query: str) -> tuple[list[Entry], str, bool]:
    """Sort by what the query says: ``sort=name|size|date``, ``order=asc|desc``; folders come first always.

    Returns:
        the entries, the column that they are sorted by, and whether that goes down.
    """
    wanted = dict(pair.partition("=")[::2] for pair in query.split("&"))
    column = wanted.get("sort", "name")
    if column not in _COLUMNS:
        column = "name"
    is_down = wanted.get("order") == "desc"
    ordered = sorted(entries, key=lambda entry: (entry.name.casefold(), entry.name), reverse=is_down)
    if column == "size":
        ordered.sort(key=lambda entry: entry.size, reverse=is_down)
    elif column == "date":
        ordered.sort(key=lambda entry: entry.modified, reverse=is_down)
    ordered.sort(key=lambda entry: not entry.is_folder)
    return ordered, column, is_down


def prefers_json(accept: str) -> bool:
    """Tell whether the value of Accept prefers ``application/json`` to ``text/html`` (RFC 9110 section 12.5.1).

    Of two equal weights the one that is named beats the one that a wildcard covers.
    """
    weights = {item.partition(";")[0]: weight for item, weight in reversed(quality_values(accept))}

    def weight_of(media_type: str) -> tuple[float, int]:
        major = media_type.partition("/")[0]
        for rank, pattern in ((2, media_type), (1, f"{major}/*"), (0, "*/*")):
            if pattern in weights:
                return weights[pattern], rank
        return 0.0, 0

    as_json = weight_of("application/json")
    return as_json[0] > 0 and as_json > weight_of("text/html")


def json_listing(listing: Listing, query: str) -> str:
    """Return a JSON array of ``{"name", "type": "file" | "directory", "size": bytes or null, "mtime": ISO 8601}``."""
    entries, _, _ = sort_entries(listing.entries, query)
    return json.dumps(
        [
            {
                "name": _readable(entry.name),
                "type": "directory" if entry.is_folder else "file",
                "size": None if entry.is_folder else entry.size,
                "mtime": _iso_time(entry.modified),
            }
            for entry in entries
        ]
    )


def html_listing(listing: Listing, query: str, parts: Sequence[str], *, has_parent: bool) -> str:
    """Return the page.

    Args:
        listing: from :func:`read_folder`.
        query: of the request, raw.
        parts: of the request's path, for the title.
        has_parent: there is a folder above it to go to.
    """
    entries, sorted_by, is_down = sort_entries(listing.entries, query)
    title = html.escape(_readable("/" + "".join(f"{part}/" for part in parts)))
    heads = []
    for column, label in _COLUMNS.items():
        is_current = column == sorted_by
        order = "desc" if is_current and not is_down else "asc"
        state = f' aria-sort="{"descending" if is_down else "ascending"}"' if is_current else ""
        heads.append(f'<th scope="col"{state}><a href="?sort={column}&amp;order={order}">{label}</a></th>')
    rows = ['<tr><td><a href="../">../</a></td><td></td><td></td></tr>'] if has_parent else []
    rows += [_row(entry) for entry in entries]
    note = f"<p>Only a part: this folder has more than {MAX_ENTRIES:,} entries.</p>\n" if listing.is_cut else ""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>Index of {title}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>Index of {title}</h1>\n{note}<table>\n"
        f"<thead>\n<tr>{''.join(heads)}</tr>\n</thead>\n<tbody>\n{''.join(row + chr(10) for row in rows)}</tbody>\n"
        f"</table>\n</main>\n</body>\n</html>\n"
    )


def _row(entry: Entry) -> str:
    slash = "/" if entry.is_folder else ""
    # Every reserved character is encoded: a name with a colon must not become another scheme.
    href = quote(entry.name, safe="", errors="surrogateescape") + slash
    name = html.escape(_readable(entry.name)) + slash
    size = "" if entry.is_folder else f'<data value="{entry.size}">{readable_size(entry.size)}</data>'
    moment = _iso_time(entry.modified)
    return f'<tr><td><a href="{href}">{name}</a></td><td>{size}</td><td><time>{moment}</time></td></tr>'


def readable_size(size: int) -> str:
    """Return ``"1.5 KiB"`` for 1536."""
    if size < 1024:
        return f"{size} B"
    value = size / 1024
    units = iter(("KiB", "MiB", "GiB", "TiB", "PiB"))
    unit = next(units)
    while value >= 1023.95:  # what would be shown as 1024.0
        value /= 1024
        unit = next(units, "EiB")
    return f"{value:.1f} {unit}"


def _readable(name: str) -> str:
    """Show bytes that are not UTF-8 as ``\\xff``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _iso_time(seconds: int) -> str:
    last = 253402300799  # 9999-12-31T23:59:59Z
    moment = datetime.datetime.fromtimestamp(max(0, min(seconds, last)), datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
