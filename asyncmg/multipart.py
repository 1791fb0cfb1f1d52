"""multipart/form-data (RFC 7578): the parts of a body that is in memory."""

from __future__ import annotations

from typing import TypedDict

from .messages import header_parameter


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
    data = body.encode("utf-8", "surrogateescape") if isinstance(body, str) else bytes(body)
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
