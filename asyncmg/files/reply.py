"""Files as replies to GET and HEAD: which one, which part of it, in which coding, or why not."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from asyncmg.fields import accepted_codings
from asyncmg.files.conditions import check_preconditions, entity_tag, format_http_date, last_modified, range_applies
from asyncmg.files.content import FileContent, Segment
from asyncmg.files.listing import (
    CONTENT_SECURITY_POLICY,
    MAX_ENTRIES,
    html_listing,
    json_listing,
    prefers_json,
    read_folder,
)
from asyncmg.files.mime import content_type_of
from asyncmg.files.paths import is_hidden, open_below, open_file, split_path
from asyncmg.files.ranges import content_range, multipart_of, parse_range
from asyncmg.messages import HttpMessage

_ALLOWED = "GET, HEAD, OPTIONS"
_REASONS = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    412: "Precondition Failed",
    416: "Range Not Satisfiable",
    503: "Service Unavailable",
}
#: Header fields of the request that decide what is sent.
_FIELDS = frozenset(
    {
        "accept",
        "accept-encoding",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "range",
    }
)
#: Content codings and what the names of pre-compressed files end in, the better one first.
_CODINGS = {"br": ".br", "gzip": ".gz"}

Headers = list[tuple[str, str]]


class FileReply:
    """What to reply: a short body, or the content of a file.

    Attributes:
        status: final status code.
        body: of a reply without a file; "" otherwise.
        headers: Content-Type is among them when there is a file; Content-Length is not.
        content: to be closed by whoever gets the reply; also there for HEAD, for its length.
        path, info: of a whole file that was found below a root: where it is, and what fstat() said about it.
    """

    __slots__ = ("body", "content", "headers", "info", "path", "status")

    def __init__(
        self,
        status: int,
        body: bytes | str = "",
        headers: Headers | None = None,
        content: FileContent | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.headers = [] if headers is None else headers
        self.content = content
        self.path = ""
        self.info: os.stat_result | None = None

    def __repr__(self) -> str:
        return f"<FileReply {self.status} {self.headers}>"

    def close(self) -> None:
        """Close the file of a reply that is not sent."""
        if self.content is not None:
            self.content.close()


def file_reply(
    message: HttpMessage, path: str | os.PathLike[str], mime_types: str = "", *, status: int = 200
) -> FileReply:
    """Prepare the reply to a request for one file, which the program has chosen: its path is not checked.

    Args:
        message: the request. GET and HEAD are answered, conditions and ranges included; OPTIONS with 204; others 405.
        path: of a regular file; anything else is 404. Links are followed.
        mime_types: ``"ext=type,ext=type"``, over the built-in table.
        status: other than 200: the file is an error page: no conditions, no ranges, no validators.
    """
    if message.method not in ("GET", "HEAD"):
        return _other_method(message.method)
    try:
        fd, info = open_file(path)
    except (OSError, ValueError) as error:
        return _failure(error)
    content_type = content_type_of(path, mime_types)
    if status != 200:
        return FileReply(status, "", [("Content-Type", content_type)], FileContent(fd, info))
    return _selected(message.method, _fields_of(message), fd, info, content_type)


class StaticFolder:
    """The files below a root, as replies. It keeps nothing open, and nothing in memory.

    Args:
        root: a folder; that it exists is seen when a request comes. It may be or become a link.
        mime_types: ``"ext=type,ext=type"``, over the built-in table.
        page404: path of a file to send, with status 404, for what is not found.
        prefix: where in the request's path the root is: ``"/static"``. Other paths are not found.
        listing: folders without an index are listed, as HTML or JSON.
        follow_symlinks: links below the root are followed, as long as they lead to below the root.
        index: names of files that stand for their folder, the first one that is there.
        precompressed: send ``name.br`` or ``name.gz`` for ``name``, when it is there, not older, and accepted.
        cache_control: value of Cache-Control for the files.
        hidden: serve and list names that begin with a dot; ``/.well-known/`` is served always.
    """

    __slots__ = (
        "_cache_control",
        "_follow_symlinks",
        "_hidden",
        "_index",
        "_listing",
        "_mime_types",
        "_page404",
        "_precompressed",
        "_prefix",
        "_root",
    )

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        mime_types: str = "",
        page404: str | os.PathLike[str] = "",
        prefix: str = "",
        listing: bool = False,
        follow_symlinks: bool = False,
        index: Sequence[str] = ("index.html",),
        precompressed: bool = True,
        cache_control: str = "",
        hidden: bool = False,
    ) -> None:
        self._root = os.fspath(root)
        self._mime_types = mime_types
        self._page404 = os.fspath(page404)
        self._prefix = [part for part in prefix.split("/") if part]
        self._listing = listing
        self._follow_symlinks = follow_symlinks
        self._index = (index,) if isinstance(index, str) else tuple(index)
        self._precompressed = precompressed
        self._cache_control = cache_control
        self._hidden = hidden

    def reply_to(self, message: HttpMessage) -> FileReply:
        """Prepare the reply to a request. Never raises for anything that a request or the file system can do."""
        if message.method not in ("GET", "HEAD"):
            return _other_method(message.method)
        try:
            reply = self._find(message)
        except (OSError, ValueError) as error:
            reply = _failure(error)
        if reply.status == 404 and self._page404:
            page = file_reply(message, self._page404, self._mime_types, status=404)
            if page.content is not None:
                return page
        return reply

    def _find(self, message: HttpMessage) -> FileReply:
        path = message.path
        parts = split_path(path)
        if parts is None:
            return _plain(400)
        depth = len(self._prefix)
        below = parts[depth:]
        if parts[:depth] != self._prefix or (not self._hidden and is_hidden(below)):
            return _plain(404)
        if path.endswith("/"):
            return self._folder(message, parts, below)
        if not below:
            return _redirect(parts, message.query)
        try:
            return self._file(message, below)
        except IsADirectoryError:
            return _redirect(parts, message.query)

    def _folder(self, message: HttpMessage, parts: list[str], below: list[str]) -> FileReply:
        for name in self._index:
            try:
                return self._file(message, [*below, name])
            except (FileNotFoundError, IsADirectoryError):
                continue
        if not self._listing:
            return _plain(404)
        listing = read_folder(self._root, below, follow_symlinks=self._follow_symlinks, hidden=self._hidden)
        headers = [("Vary", "Accept"), ("X-Content-Type-Options", "nosniff")]
        if listing.is_cut:
            headers.append(("Listing-Truncated", str(MAX_ENTRIES)))
        if prefers_json(_fields_of(message).get("accept", "")):
            headers.append(("Content-Type", "application/json"))
            return FileReply(200, json_listing(listing, message.query), headers)
        headers.append(("Content-Type", "text/html; charset=utf-8"))
        headers.append(("Content-Security-Policy", CONTENT_SECURITY_POLICY))
        return FileReply(200, html_listing(listing, message.query, parts, has_parent=bool(below)), headers)

    def _file(self, message: HttpMessage, parts: list[str]) -> FileReply:
        fields = _fields_of(message)
        fd, info = open_below(self._root, parts, follow_symlinks=self._follow_symlinks)
        headers = [("Cache-Control", self._cache_control)] if self._cache_control else []
        coding = ""
        existing = self._compressed_siblings(parts) if self._precompressed else []
        if existing:
            headers.append(("Vary", "Accept-Encoding"))
            for candidate in accepted_codings(fields.get("accept-encoding", ""), existing):
                sibling = self._open_sibling(parts, _CODINGS[candidate], info)
                if sibling is not None:
                    os.close(fd)
                    fd, info = sibling
                    coding = candidate
                    break
        content_type = content_type_of(parts[-1], self._mime_types)
        reply = _selected(message.method, fields, fd, info, content_type, coding, headers)
        if reply.status == 200:
            reply.path = os.path.join(self._root, *parts) + _CODINGS.get(coding, "")
            reply.info = info
        return reply

    def _compressed_siblings(self, parts: list[str]) -> list[str]:
        """Return the codings that there may be a sibling for: a glance that costs little when there is none."""
        path = os.path.join(self._root, *parts)
        return [coding for coding, suffix in _CODINGS.items() if os.access(path + suffix, os.F_OK)]

    def _open_sibling(
        self, parts: list[str], suffix: str, original: os.stat_result
    ) -> tuple[int, os.stat_result] | None:
        try:
            fd, info = open_below(self._root, [*parts[:-1], parts[-1] + suffix], follow_symlinks=self._follow_symlinks)
        except OSError:
            return None
        if info.st_mtime_ns >= original.st_mtime_ns:
            return fd, info
        os.close(fd)
        return None


def _selected(
    method: str,
    fields: Mapping[str, str],
    fd: int,
    info: os.stat_result,
    content_type: str,
    coding: str = "",
    headers: Sequence[tuple[str, str]] = (),
) -> FileReply:
    """Reply with the selected representation, or what of it the request's conditions and ranges leave.

    Takes the descriptor over. ``headers``: those that a 304 has as well (RFC 9110 section 15.4.5).
    """
    etag, modified = entity_tag(info, coding), last_modified(info)
    out = [("ETag", etag), ("Last-Modified", format_http_date(modified)), *headers]
    failed = check_preconditions(method, fields, etag, modified)
    if failed:
        os.close(fd)
        return FileReply(304, "", out) if failed == 304 else _plain(412)
    out.append(("Accept-Ranges", "bytes"))
    size = info.st_size
    ranges = None
    # RFC 9110 section 14.2: Range means something for GET only.
    if "range" in fields and method == "GET" and range_applies(fields, etag, modified):
        ranges = parse_range(fields["range"], size)
    if ranges is not None and not ranges:
        os.close(fd)
        return _plain(416, ("Content-Range", f"bytes */{size}"), ("Accept-Ranges", "bytes"))
    # A coded multipart would be read as if the coding were round the whole: several ranges of it are not served.
    if ranges is None or (coding and len(ranges) > 1):
        status, segments = 200, None
    else:
        status, segments = 206, list[Segment](ranges)
        if len(ranges) > 1:
            content_type, segments = multipart_of(ranges, size, content_type)
        else:
            out.append(("Content-Range", content_range(*ranges[0], size)))
    out.append(("Content-Type", content_type))
    if coding:
        out.append(("Content-Encoding", coding))
    return FileReply(status, "", out, FileContent(fd, info, segments))


def _fields_of(message: HttpMessage) -> dict[str, str]:
    """Return the fields that count here by lower-case name, lines of one name joined (RFC 9110 section 5.3)."""
    fields: dict[str, str] = {}
    for name, value in message.headers():
        name = name.lower()
        if name in _FIELDS:
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def _plain(status: int, *headers: tuple[str, str]) -> FileReply:
    return FileReply(status, f"{status} {_REASONS[status]}\n", list(headers))


def _other_method(method: str) -> FileReply:
    if method == "OPTIONS":
        return FileReply(204, "", [("Allow", _ALLOWED)])
    return _plain(405, ("Allow", _ALLOWED))


def _failure(error: OSError | ValueError) -> FileReply:
    code = error.errno if isinstance(error, OSError) else 0
    if code in (errno.EMFILE, errno.ENFILE):
        return _plain(503, ("Retry-After", "1"))
    if code in (errno.EACCES, errno.EPERM):
        return _plain(403)
    return _plain(404)


def _redirect(parts: Sequence[str], query: str) -> FileReply:
    """Send to the same path with a slash behind it: one slash in front, so that it stays on this host."""
    path = quote("/" + "".join(f"{part}/" for part in parts), errors="surrogateescape")
    return FileReply(301, "", [("Location", f"{path}?{query}" if query else path)])
