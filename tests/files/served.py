"""Requests without a connection, and what they get."""

from __future__ import annotations

import os

from asyncmg.codecs.http import Framing, RequestHead
from asyncmg.files.content import FileContent
from asyncmg.files.reply import FileReply
from asyncmg.messages import Content, HttpMessage


def message(target: str, method: str = "GET", *fields: tuple[str, str], **headers: str) -> HttpMessage:
    """Make a request; ``If_Match="x"`` or ``("If-Match", "x")`` is a field."""
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()] + list(fields)
    lines = [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in pairs]
    head = RequestHead(method, target, "HTTP/1.1", lines, Framing.NONE, 0, True, False, "")
    return HttpMessage(head, Content(1 << 16, lambda: None, lambda: None))


def read_content(content: FileContent) -> bytes:
    """Read what would be sent, and close the file."""
    data = b""
    while (segment := content.next_segment(1 << 16)) is not None:
        data += segment if isinstance(segment, bytes) else content.read(*segment)
    assert len(data) == content.length
    content.close()
    return data


def body_of(reply: FileReply) -> bytes:
    """Return what would be sent, and close the file."""
    if reply.content is not None:
        assert reply.body == ""
        return read_content(reply.content)
    return reply.body if isinstance(reply.body, bytes) else reply.body.encode("utf-8", "surrogateescape")


def fields_of(reply: FileReply) -> dict[str, str]:
    """Return the header fields; none may be repeated."""
    fields = {name.lower(): value for name, value in reply.headers}
    assert len(fields) == len(reply.headers)
    return fields


def open_descriptors(folder: object = "") -> int:
    """Count the descriptors of this process, or those of files in a folder; -1 where that cannot be told."""
    found = 0
    try:
        for fd in os.listdir("/proc/self/fd"):
            try:
                found += os.readlink(f"/proc/self/fd/{fd}").startswith(str(folder))
            except FileNotFoundError:
                pass  # that of the listing itself
    except OSError:
        return -1
    return found
