"""multipart/form-data (RFC 7578): as it comes in, or the parts of a body that is in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import TypedDict
from urllib.parse import unquote_to_bytes

from asyncmg.errors import LimitExceeded, ProtocolError, RemoteProtocolError
from asyncmg.fields import header_parameter, parse_header_line
from asyncmg.limits import FormLimits

from .events import PART_END, FormEvent, PartBegin


class Part(TypedDict):
    """One part: ``name`` and ``filename`` are "" when absent."""

    name: str
    filename: str
    body: bytes


def http_parse_multipart(body: str | bytes, offset: int = 0) -> tuple[int, Part | None]:
    """Return the part at ``offset`` and the offset of the next one; ``(0, None)`` when there is no further part.

    The boundary is taken from the body itself, as in Mongoose::

        offset = 0
        while True:
            offset, part = http_parse_multipart(data.body_bytes, offset)
            if part is None:
                break

    A file name is what the client says: never use it as a path without checking it.

    Args:
        body: the whole body; a str counts as UTF-8.
        offset: 0, then what the call before returned.
    """
    data = body.encode("utf-8", "surrogateescape") if isinstance(body, str) else bytes(memoryview(body))
    line_end = data.find(b"\r\n", offset)
    if offset < 0 or line_end < 0 or not data.startswith(b"--", offset):
        return 0, None
    delimiter = data[offset:line_end].rstrip(b" \t")
    if len(delimiter) <= 2 or len(delimiter) > 72:  # RFC 2046 section 5.1.1: 1 to 70 characters
        return 0, None
    if offset and delimiter == data[: data.find(b"\r\n")].rstrip(b" \t") + b"--":
        return 0, None  # the last delimiter: what follows is the epilogue (RFC 2046 section 5.1.1)
    head_end = data.find(b"\r\n\r\n", line_end)
    end = data.find(b"\r\n" + delimiter, max(head_end, line_end) + 2) if head_end >= 0 else -1
    if end < 0 or head_end > end:
        return 0, None
    disposition = ""
    for line in data[line_end + 2 : head_end].split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            disposition = value.decode("utf-8", "surrogateescape").strip()
    part = Part(
        name=header_parameter(disposition, "name") or "",
        filename=header_parameter(disposition, "filename") or "",
        body=data[head_end + 4 : end],
    )
    return end + 2, part


_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046 section 5.1.1
_PADDING = re.compile(rb"[ \t]*+")

# One parameter of Content-Disposition: quoted, or a token that may have more characters than RFC 9110 allows.
_PARAMETER = re.compile(r';[ \t]*+([!#$%&\'*+.^_`|~0-9A-Za-z-]++)=(?:"((?:[^"\\]|\\.)*+)"|([^\s";,]++))[ \t]*+')
_QUOTED_PAIR = re.compile(r'\\(["\\])')  # browsers send other backslashes as they are
_BROWSER_ESCAPE = re.compile("%(22|0D|0A)")  # HTML, section "multipart form data"
_EXTENDED = re.compile(
    r"(utf-8|iso-8859-1)'[A-Za-z0-9-]*'((?:[!#$&+.^_`|~0-9A-Za-z-]|%[0-9A-Fa-f]{2})*+)", re.IGNORECASE
)


def boundary_of(content_type: str) -> str:
    """Return the boundary that a Content-Type names.

    Raises:
        RemoteProtocolError: it is not multipart/form-data (wire_code 415), or has no valid boundary (400).
    """
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        raise RemoteProtocolError("not multipart/form-data", wire_code=415, section="RFC 9110 section 15.5.16")
    boundary = header_parameter(content_type, "boundary") or ""
    if not _BOUNDARY.fullmatch(boundary):
        raise _malformed("no valid boundary", "RFC 2046 section 5.1.1")
    return boundary


class _State(StrEnum):
    PREAMBLE = "preamble"
    BOUNDARY = "boundary"  # behind one: is it the last?
    HEADER = "header"
    BEGIN = "begin"  # behind the CRLF of the last header line
    CONTENT = "content"
    EPILOGUE = "epilogue"


class MultipartParser:
    """Take multipart/form-data apart as it comes in, without I/O.

    Feed it with :meth:`receive_data`; then iterate over it for what has become complete: a PartBegin, pieces of the
    content as bytes, a PartEnd, and so on, until it needs more. Behind the last data call :meth:`receive_end`::

        for data in chunks:
            parser.receive_data(data)
            for event in parser:
                ...
        parser.receive_end()

    It is strict: CRLF at the end of lines, a name in every part, no folded lines, no header or parameter twice, nothing
    but white space behind a boundary. What it makes of the data does not depend on how the data was split. Besides what
    was received last it holds at most one boundary, or the header of one part.

    The iteration raises RemoteProtocolError (wire_code 400, or 415 for a part that is transfer-encoded) and
    LimitExceeded (400 or 413, as in FormLimits). Errors are final: they are raised again.

    Args:
        boundary: as :func:`boundary_of` returns it.
        limits: of the form.

    Raises:
        ValueError: a boundary against the grammar of RFC 2046 section 5.1.1.
    """

    __slots__ = (
        "_allowed",
        "_buffer",
        "_delimiter",
        "_error",
        "_fields_size",
        "_is_over",
        "_limits",
        "_part_size",
        "_parts",
        "_position",
        "_scanned",
        "_size_limit",
        "_skipped",
        "_state",
        "_total",
    )

    def __init__(self, boundary: str, limits: FormLimits) -> None:
        if not _BOUNDARY.fullmatch(boundary):
            raise ValueError(f"invalid boundary {boundary!r}: RFC 2046 section 5.1.1")
        self._limits = limits
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        # The first boundary has no CRLF in front of it: here is one.
        self._buffer: bytes | bytearray = b"\r\n"
        self._position = 0  # what is before it has been handled
        self._scanned = 0  # the end of the header is not before it
        self._state = _State.PREAMBLE
        self._error: ProtocolError | None = None
        self._skipped = 0  # bytes of preamble, epilogue or white space, in one run
        self._parts = 0
        self._part_size = 0
        self._allowed = 0  # what _part_size may become, and the limit that says so
        self._size_limit = ""
        self._fields_size = 0
        self._total = 0
        self._is_over = False

    @property
    def is_complete(self) -> bool:
        """The last boundary has been received."""
        return self._state is _State.EPILOGUE

    def receive_data(self, data: bytes) -> None:
        """Take in a piece of any size. Nothing is parsed before the iteration."""
        room = self._limits.max_total - self._total
        self._total += len(data)
        if len(data) > room:
            self._is_over = True  # told when what was allowed has been handled
            data = data[: max(room, 0)]
        if self._position == len(self._buffer):
            self._buffer = bytes(data)  # the usual case: no copy is made
        else:
            if isinstance(self._buffer, bytearray):
                del self._buffer[: self._position]
            else:
                self._buffer = bytearray(self._buffer[self._position :])
            self._buffer += data
        self._scanned = max(self._scanned - self._position, 0)
        self._position = 0

    def receive_end(self) -> None:
        """Tell that no data follows.

        Raises:
            RemoteProtocolError: the last boundary is missing (wire_code 400), or what the iteration has raised.
        """
        if self._error is None and not self.is_complete:
            self._error = _malformed("multipart content ends before its last boundary", "RFC 2046 section 5.1.1")
        if self._error is not None:
            raise self._error

    def __iter__(self) -> Iterator[FormEvent]:
        if self._error is not None:
            raise self._error
        try:
            while (event := self._next_event()) is not None:
                yield event
            if self._is_over:
                raise _over("multipart content", "max_total", self._limits.max_total, self._total)
        except ProtocolError as exc:
            self._error = exc
            self._buffer, self._position = b"", 0
            raise

    def _next_event(self) -> FormEvent | None:
        """Return the next event; None: more data is needed."""
        while True:
            state = self._state
            if state is _State.CONTENT:
                return self._read_content()
            if state is _State.HEADER:
                return self._read_header()
            if state is _State.BEGIN:
                proceeds = self._read_begin()
            elif state is _State.BOUNDARY:
                proceeds = self._read_behind_boundary()
            elif state is _State.PREAMBLE:
                proceeds = self._read_preamble()
            else:
                self._skip(len(self._buffer) - self._position, "epilogue")
                proceeds = False
            if not proceeds:
                return None

    def _find_delimiter(self) -> tuple[int, bool]:
        """Return where the content ends for now, and whether a whole delimiter is there."""
        buffer, delimiter = self._buffer, self._delimiter
        end = buffer.find(delimiter, self._position)
        if end >= 0:
            return end, True
        # A delimiter that has begun: CR is its first byte and none of the others.
        begun = buffer.rfind(b"\r", max(self._position, len(buffer) - len(delimiter) + 1))
        if begun >= 0 and delimiter.startswith(bytes(buffer[begun:])):
            return begun, False
        return len(buffer), False

    def _read_preamble(self) -> bool:
        end, is_whole = self._find_delimiter()
        self._skip(end - self._position, "preamble")
        if is_whole:
            self._position += len(self._delimiter)
            self._skipped = 0
            self._state = _State.BOUNDARY
        return is_whole

    def _read_behind_boundary(self) -> bool:
        """White space and CRLF: a part follows. Two dashes: it was the last boundary (RFC 2046 section 5.1.1)."""
        padding = _PADDING.match(self._buffer, self._position)
        if padding is not None:
            self._skip(len(padding[0]), "white space behind a boundary")
        rest = bytes(self._buffer[self._position : self._position + 2])
        if rest == b"\r\n":
            # It stays: a CRLF at once behind it is the end of an empty header.
            self._scanned = self._position
            self._state = _State.HEADER
        elif rest == b"--":
            self._position += 2
            self._state = _State.EPILOGUE
        elif rest in (b"", b"\r", b"-"):
            return False
        else:
            raise _malformed("a boundary is followed by something else", "RFC 2046 section 5.1.1")
        self._skipped = 0
        return True

    def _read_header(self) -> FormEvent | None:
        limit = self._limits.max_part_header
        start = self._position + 2
        end = self._buffer.find(b"\r\n\r\n", self._scanned)
        size = end - start if end >= 0 else len(self._buffer) - start - 3
        if size > limit:
            raise _over("the header of a part", "max_part_header", limit, size, 400)
        if end < 0:
            self._scanned = max(len(self._buffer) - 3, self._position)
            return None
        section = bytes(self._buffer[start:end])
        self._position = end + 2
        self._parts += 1
        if self._parts > self._limits.max_parts:
            raise _over("the number of parts", "max_parts", self._limits.max_parts, self._parts, 400)
        part = _part_of(section)
        self._begin_content(part)
        self._state = _State.BEGIN
        return part

    def _begin_content(self, part: PartBegin) -> None:
        limits = self._limits
        self._part_size = 0
        if part.is_file:
            self._size_limit, self._allowed = "max_file", limits.max_file
            return
        self._fields_size += len(part.name)
        left = limits.max_fields_size - self._fields_size
        if left < 0:
            raise _over("all fields together", "max_fields_size", limits.max_fields_size, self._fields_size)
        if limits.max_field <= left:
            self._size_limit, self._allowed = "max_field", limits.max_field
        else:
            self._size_limit, self._allowed = "max_fields_size", left

    def _read_begin(self) -> bool:
        """The CRLF behind the header belongs to a delimiter when a part has no content, not even the CRLF before it."""
        start = self._position
        begin = bytes(self._buffer[start : start + len(self._delimiter)])
        if begin != self._delimiter:
            if self._delimiter.startswith(begin):
                return False
            self._position += 2
        self._state = _State.CONTENT
        return True

    def _read_content(self) -> FormEvent | None:
        start = self._position
        end, is_whole = self._find_delimiter()
        if end > start:
            self._position = end  # the delimiter, if there is one, is found again at once
            self._part_size += end - start
            if self._part_size > self._allowed:
                limit = getattr(self._limits, self._size_limit)
                raise _over("a part", self._size_limit, limit, limit + self._part_size - self._allowed)
            return bytes(self._buffer[start:end])
        if not is_whole:
            return None
        if self._size_limit != "max_file":
            self._fields_size += self._part_size
        self._position += len(self._delimiter)
        self._state = _State.BOUNDARY
        return PART_END

    def _skip(self, count: int, what: str) -> None:
        self._position += count
        self._skipped += count
        if self._skipped > self._limits.max_part_header:
            raise _over(what, "max_part_header", self._limits.max_part_header, self._skipped, 400)


def _part_of(section: bytes) -> PartBegin:
    """Parse the header of a part (RFC 7578 section 4)."""
    headers = []
    for line in section.split(b"\r\n") if section else ():
        try:
            headers.append(parse_header_line(line))
        except ValueError as exc:
            raise _malformed(f"part: {exc}", "RFC 7578 section 4.8") from exc
    encoding = _only(headers, "content-transfer-encoding") or "binary"
    if encoding.lower() not in ("7bit", "8bit", "binary"):
        raise RemoteProtocolError(
            f"a part is transfer-encoded: {encoding[:40]!r}", wire_code=415, section="RFC 7578 section 4.7"
        )
    parameters = _disposition(_only(headers, "content-disposition") or "")
    if "name" not in parameters:
        raise _malformed("a part has no name", "RFC 7578 section 4.2")
    filename = parameters.get("filename")
    if filename is None and "filename*" in parameters:  # senders must not, some do
        filename = _extended_value(parameters["filename*"])
    return PartBegin(
        parameters["name"],
        filename or "",
        _only(headers, "content-type") or "text/plain",
        headers,
        is_file=filename is not None,
    )


def _only(headers: list[tuple[str, str]], name: str) -> str | None:
    values = [value for key, value in headers if key == name]
    if len(values) > 1:
        raise _malformed(f"a part has more than one {name}", "RFC 7578 section 4.8")
    return values[0] if values else None


def _disposition(value: str) -> dict[str, str]:
    """Parse Content-Disposition as browsers send it: the name of a file is as it is, but for quotes, CR and LF."""
    kind = value.partition(";")[0]
    if kind.strip().lower() != "form-data":
        raise _malformed(f"a part is no form-data: {kind[:40]!r}", "RFC 7578 section 4.2")
    parameters: dict[str, str] = {}
    position = len(kind)
    while position < len(value):
        match = _PARAMETER.match(value, position)
        key = match[1].lower() if match is not None else ""
        if match is None or key in parameters:
            raise _malformed(f"malformed Content-Disposition {value[:100]!r}", "RFC 7578 section 4.2")
        quoted: str | None = match[2]
        if quoted is None:
            parameters[key] = match[3]
        else:
            text = _QUOTED_PAIR.sub(r"\1", quoted)
            parameters[key] = _BROWSER_ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text)
        position = match.end()
    return parameters


def _extended_value(value: str) -> str:
    """Decode ``UTF-8'language'%e2%82%ac`` (RFC 8187 section 3.2)."""
    match = _EXTENDED.fullmatch(value)
    try:
        if match is not None:
            return unquote_to_bytes(match[2]).decode(match[1])
    except UnicodeDecodeError:
        pass  # told below
    raise _malformed(f"malformed file name {value[:100]!r}", "RFC 8187 section 3.2")


def _malformed(message: str, section: str) -> RemoteProtocolError:
    return RemoteProtocolError(message, wire_code=400, section=section)


def _over(what: str, limit: str, allowed: int, actual: int, wire_code: int = 413) -> LimitExceeded:
    return LimitExceeded(f"{what} is too large", limit=f"{limit}={allowed}", actual=actual, wire_code=wire_code)
