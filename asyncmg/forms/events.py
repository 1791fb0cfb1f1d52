"""What the parsers of forms return: the beginning of a part, pieces of its content as bytes, its end."""

from __future__ import annotations

from collections.abc import AsyncIterator


class PartBegin:
    """A part begins: a field, or a file.

    Attributes:
        name: of the field.
        filename: what the client says, "" when there is none: never use it as a path without checking it.
        is_file: the part has a file name, be it an empty one.
        content_type: ``text/plain`` when there is none (RFC 7578 section 4.4).
        headers: in order, names in lower case.
    """

    __slots__ = ("content_type", "filename", "headers", "is_file", "name")

    def __init__(
        self,
        name: str,
        filename: str = "",
        content_type: str = "text/plain",
        headers: list[tuple[str, str]] | None = None,
        *,
        is_file: bool = False,
    ) -> None:
        self.name = name
        self.filename = filename
        self.content_type = content_type
        self.headers = headers or []
        self.is_file = is_file

    def __repr__(self) -> str:
        return f"<PartBegin {self.name!r} filename={self.filename!r} {self.content_type}>"


class PartEnd:
    """The part that began last is complete."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<PartEnd>"


PART_END = PartEnd()

FormEvent = PartBegin | bytes | PartEnd


async def close_chunks(chunks: AsyncIterator[bytes]) -> None:
    """Read no further: whoever brings the content learns it now, not when an exception has been forgotten."""
    aclose = getattr(chunks, "aclose", None)
    if aclose is not None:
        await aclose()
