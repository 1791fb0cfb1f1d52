"""Forms: fields and uploaded files by name, of a whole body or of one that comes in; or part by part."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol

from asyncmg.errors import LimitExceeded, RemoteProtocolError
from asyncmg.fields import header_parameter
from asyncmg.limits import FormLimits
from asyncmg.pairs import Pairs

from .events import FormEvent, PartBegin, close_chunks
from .multipart import MultipartParser, boundary_of
from .uploads import MAX_IN_MEMORY, StrPath, TemporaryFile, UploadedFile, UploadWriter, safe_filename, target_of
from .urlencoded import UrlencodedParser

# Charsets that browsers know and that a form may name (RFC 7578 section 4.6), as Python calls them. Not everything that
# Python can decode: some codecs take quadratic time, some are no charsets at all.
_CHARSETS = {
    "us-ascii": "ascii",
    "iso-8859-1": "cp1252",  # WHATWG encoding: as everybody means it
    "shift_jis": "cp932",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    **{name: name for name in ("big5", "euc-jp", "euc-kr", "gb18030", "koi8-r", "koi8-u", "utf-8")},
    **{f"iso-8859-{number}": f"iso-8859-{number}" for number in range(2, 17) if number not in (9, 12)},
    **{f"windows-125{digit}": f"cp125{digit}" for digit in range(9)},
}


class Form(Pairs[str | UploadedFile]):
    """What a form has sent, in order: a str for a field, an :class:`UploadedFile` for a file.

    It is a mapping to the first value by name; ``all(name)`` returns every one. A file input for which no file was
    chosen is left out. Close it when you have saved what you want, or use it as a context manager::

        with message.form() as form:
            form["picture"].save("pictures")
    """

    __slots__ = ()

    @property
    def fields(self) -> Pairs[str]:
        """The fields alone."""
        return Pairs([(name, value) for name, value in self.pairs if isinstance(value, str)])

    @property
    def files(self) -> Pairs[UploadedFile]:
        """The files alone."""
        return Pairs([(name, value) for name, value in self.pairs if isinstance(value, UploadedFile)])

    def close(self) -> None:
        """Remove the files that were not saved; a second call does nothing."""
        for _, value in self.pairs:
            if isinstance(value, UploadedFile):
                value.close()

    def __enter__(self) -> Form:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def form_of(content_type: str, body: bytes, limits: FormLimits) -> Form:
    """Parse a whole body as a form; its files stay in memory.

    Args:
        content_type: the value of the field: multipart/form-data or application/x-www-form-urlencoded.
        body: the content.
        limits: of the form.

    Raises:
        RemoteProtocolError: it is no form (wire_code 415), or a broken one (400; 415 when a part is transfer-encoded).
        LimitExceeded: more than ``limits`` allow (400 or 413).
    """
    builder = _FormBuilder(content_type, limits, None, len(body), len(body))
    builder.receive_data(body)
    return builder.complete()


async def read_form(
    content_type: str, chunks: AsyncIterator[bytes], limits: FormLimits, folder: StrPath | None = None
) -> Form:
    """Read a form as it comes in.

    Files above 64 KiB go to temporary files; so do smaller ones when there is much in memory already
    (``max_fields_size``, counted for itself).

    Whatever ends it early removes them: an error, a peer that has gone away, cancelling.

    Args:
        content_type, limits: as in :func:`form_of`.
        chunks: the content in pieces of any size; when it raises, so does this.
        folder: an existing one for temporary files, best on the file system where they are to be saved; None: the
            system's.

    Raises:
        RemoteProtocolError, LimitExceeded: as :func:`form_of`.
        OSError: the system cannot write a file.
    """
    try:
        builder = _FormBuilder(content_type, limits, folder, MAX_IN_MEMORY, limits.max_fields_size)
        try:
            async for data in chunks:
                builder.receive_data(data)
            return builder.complete()
        except BaseException:
            builder.discard()
            raise
    finally:
        await close_chunks(chunks)


async def parts_of(content_type: str, chunks: AsyncIterator[bytes], limits: FormLimits) -> AsyncIterator[FormPart]:
    """Read a form part by part as it comes in; nothing is kept::

        async for part in parts_of(...):
            if part.is_file:
                await part.save("pictures")

    Going on to the next part discards what was not read of the one before. Cancelling ends the iteration: the rest of
    the content cannot be read any more.

    Args:
        content_type, chunks, limits: as in :func:`read_form`.

    Raises:
        RemoteProtocolError, LimitExceeded: as :func:`form_of`, also while a part is read.
    """
    try:
        source = _PartSource(_parser_of(content_type, limits), chunks, limits)
        while (begin := await source.next_part()) is not None:
            yield FormPart(begin, source)
    finally:
        await close_chunks(chunks)


class FormPart:
    """One part of a form: an async iterator over the pieces of its content.

    Attributes:
        name, filename, is_file, content_type, headers: as of PartBegin.
    """

    __slots__ = ("_source", "content_type", "filename", "headers", "is_file", "name")

    def __init__(self, begin: PartBegin, source: _PartSource) -> None:
        self.name = begin.name
        self.filename = begin.filename
        self.is_file = begin.is_file
        self.content_type = begin.content_type
        self.headers = begin.headers
        self._source = source
        source.current = self

    def __repr__(self) -> str:
        return f"<FormPart {self.name!r} filename={self.filename!r} {self.content_type}>"

    @property
    def safe_filename(self) -> str:
        """``filename``, made safe by :func:`asyncmg.forms.uploads.safe_filename`."""
        return safe_filename(self.filename)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data = await self._source.next_piece(self)
        if data is None:
            raise StopAsyncIteration
        return data

    async def read(self, max_size: int | None = None) -> bytes:
        """Return what is left of the content.

        Args:
            max_size: in bytes; default: ``max_field`` of the limits, for files too.

        Raises:
            LimitExceeded: it is larger (wire_code 413).
            RemoteProtocolError: as :func:`parts_of`.
        """
        limit = self._source.limits.max_field if max_size is None else max_size
        data = bytearray()
        async for piece in self:
            data += piece
            if len(data) > limit:
                raise LimitExceeded("a part is too large", limit=f"max_size={limit}", actual=len(data), wire_code=413)
        return bytes(data)

    async def text(self, max_size: int | None = None) -> str:
        """Return what is left of the content as text. The rest is as in :meth:`read`."""
        return _text(await self.read(max_size), _charset_of(self.content_type) or "utf-8")

    async def save(self, path: StrPath, *, overwrite: bool = False, mode: int = 0o600) -> Path:
        """Write what is left of the content to a file, as it comes in.

        It appears at ``path`` when it is complete. Whatever ends this early leaves nothing there: an error, a peer that
        has gone away, cancelling.

        Args:
            path, overwrite, mode: as in :meth:`UploadedFile.save`.

        Returns:
            the path of the file.

        Raises:
            FileExistsError: there is something at ``path``.
            OSError: the system cannot do it.
            RemoteProtocolError, LimitExceeded: as :func:`parts_of`.
        """
        target = target_of(path, self.filename, overwrite)
        file = TemporaryFile(target.parent)
        try:
            async for data in self:
                file.write(data)
            file.place(target, overwrite, mode)
        finally:
            file.remove()
        return target


class _FormParser(Protocol):
    """What both parsers are."""

    def receive_data(self, data: bytes) -> None: ...

    def receive_end(self) -> None: ...

    def __iter__(self) -> Iterator[FormEvent]: ...


def _parser_of(content_type: str, limits: FormLimits) -> _FormParser:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/x-www-form-urlencoded":
        return UrlencodedParser(limits)
    if media_type == "multipart/form-data":
        return MultipartParser(boundary_of(content_type), limits)
    raise RemoteProtocolError(f"not a form: {media_type[:100]!r}", wire_code=415, section="RFC 9110 section 15.5.16")


class _FormBuilder:
    """Makes a Form of what the parser returns.

    Args:
        content_type, limits, folder: as of read_form.
        max_in_memory: bytes of one file.
        memory: bytes of all files together.
    """

    __slots__ = ("_folder", "_limits", "_max_in_memory", "_memory_left", "_parser", "_part", "_values", "_writer")

    def __init__(
        self, content_type: str, limits: FormLimits, folder: StrPath | None, max_in_memory: int, memory: int
    ) -> None:
        self._parser = _parser_of(content_type, limits)
        self._limits = limits
        self._folder = folder
        self._max_in_memory = max_in_memory
        self._memory_left = memory
        # Text is decoded at the end: only then is it sure what `_charset_` says.
        self._values: list[tuple[PartBegin, bytes | UploadedFile]] = []
        self._part = PartBegin("")
        self._writer = UploadWriter(self._part, folder, max_in_memory)

    def receive_data(self, data: bytes) -> None:
        self._parser.receive_data(data)
        self._take_events()

    def complete(self) -> Form:
        self._parser.receive_end()
        self._take_events()
        return Form(_with_text(self._values))

    def discard(self) -> None:
        self._writer.discard()
        for _, value in self._values:
            if isinstance(value, UploadedFile):
                value.close()

    def _take_events(self) -> None:
        for event in self._parser:
            if isinstance(event, bytes):
                self._writer.write(event)
            elif isinstance(event, PartBegin):
                self._part = event
                # The parser sees to it that fields fit into memory.
                max_file = min(self._max_in_memory, self._memory_left)
                max_in_memory = max_file if event.is_file else self._limits.max_field
                self._writer = UploadWriter(event, self._folder, max_in_memory)
            elif not self._part.is_file:
                self._values.append((self._part, self._writer.complete().read()))
            elif self._part.filename or self._writer.size:  # otherwise no file was chosen
                file = self._writer.complete()
                self._values.append((self._part, file))
                if file.path is None:
                    self._memory_left -= file.size


class _PartSource:
    """Reads the parts of a form one after the other, for parts_of and for the part that is current."""

    __slots__ = ("_chunks", "_events", "_has_ended", "_parser", "current", "limits")

    def __init__(self, parser: _FormParser, chunks: AsyncIterator[bytes], limits: FormLimits) -> None:
        self._parser = parser
        self._events = iter(parser)
        self._chunks = chunks
        self._has_ended = False
        self.limits = limits
        self.current: FormPart | None = None

    async def next_part(self) -> PartBegin | None:
        self.current = None
        while (event := await self._next_event()) is not None:
            if isinstance(event, PartBegin):
                return event
        return None

    async def next_piece(self, part: FormPart) -> bytes | None:
        """Return a piece of the content of ``part``; None at its end, and when it is not the current one any more."""
        if part is not self.current:
            return None
        event = await self._next_event()
        if isinstance(event, bytes):
            return event
        self.current = None
        return None

    async def _next_event(self) -> FormEvent | None:
        while True:
            for event in self._events:
                return event
            if self._has_ended:
                return None
            data = await anext(self._chunks, None)
            if data is None:
                self._parser.receive_end()
                self._has_ended = True
            else:
                self._parser.receive_data(data)
            self._events = iter(self._parser)


def _with_text(values: list[tuple[PartBegin, bytes | UploadedFile]]) -> Iterator[tuple[str, str | UploadedFile]]:
    """Decode the fields: by the charset of the part, by what the field ``_charset_`` says (RFC 7578 section 4.6)."""
    default = "utf-8"
    for part, value in values:
        if part.name == "_charset_" and isinstance(value, bytes):
            default = _CHARSETS.get(value.decode("latin-1").strip().lower(), default)
    for part, value in values:
        if isinstance(value, bytes):
            yield part.name, _text(value, _charset_of(part.content_type) or default)
        else:
            yield part.name, value


def _charset_of(content_type: str) -> str:
    """Return the codec for what a Content-Type says; "" when it says nothing that is known."""
    return _CHARSETS.get((header_parameter(content_type, "charset") or "").lower(), "")


def _text(data: bytes, charset: str) -> str:
    """Decode text; what is malformed becomes surrogates, from which it can be had back."""
    return data.decode(charset, "surrogateescape")
