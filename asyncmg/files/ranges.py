"""Ranges of bytes (RFC 9110 section 14) and multipart/byteranges (section 14.6)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from asyncmg.files.content import Segment

#: More ranges than this in one request are not looked at: the whole is sent (RFC 9110 section 17.15).
MAX_RANGES = 32

_SET = re.compile(r"bytes=(.*)", re.IGNORECASE | re.DOTALL)
_SPEC = re.compile(r"([0-9]*)-([0-9]*)")
_HUGE = 10**18

Range = tuple[int, int]  # offset and length


def parse_range(value: str, size: int) -> list[Range] | None:
    """Find the ranges that a Range field asks for.

    Args:
        value: of the field.
        size: of the selected representation, in bytes.

    Returns:
        offsets and lengths, each at least 1 and within ``size``, in the order of the request; when some overlap, they
        are sorted and joined. None: the field is to be ignored (another unit, bad syntax, more than
        :data:`MAX_RANGES`). []: no range can be satisfied (416).
    """
    found = _SET.fullmatch(value)
    if found is None:
        return None
    specs = [spec for spec in (item.strip(" \t") for item in found[1].split(",", 2 * MAX_RANGES)) if spec]
    if not 0 < len(specs) <= MAX_RANGES:
        return None
    ranges = []
    for spec in specs:
        parsed = _parse_spec(spec, size)
        if parsed is None:
            return None
        if parsed[1] > 0:
            ranges.append(parsed)
        elif size == 0 and spec[0] == "-" and spec.strip("-0"):
            return None  # the end of nothing can be had, but Content-Range has no words for it
    return _join_overlapping(ranges)


def _parse_spec(spec: str, size: int) -> Range | None:
    """Return offset and length of one range, the length 0 when it cannot be satisfied; None when it is malformed."""
    found = _SPEC.fullmatch(spec)
    if found is None:
        return None
    first, last = (_number(digits) for digits in found.groups())
    if first is None:
        if last is None:
            return None
        last = min(last, size)
        return size - last, last
    if last is not None and last < first:
        return None
    end = size if last is None else min(last + 1, size)
    return first, max(0, end - first)


def _number(digits: str) -> int | None:
    if not digits:
        return None
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= 18 else _HUGE


def _join_overlapping(ranges: list[Range]) -> list[Range]:
    """Leave ranges as they are when none overlap; otherwise sort them and join those that overlap or touch."""
    joined: list[Range] = []
    overlap = False
    for offset, length in sorted(ranges):
        if joined and offset <= sum(joined[-1]):
            before, before_length = joined[-1]
            overlap = overlap or offset < before + before_length
            joined[-1] = (before, max(before_length, offset + length - before))
        else:
            joined.append((offset, length))
    return joined if overlap else ranges


def content_range(offset: int, length: int, size: int) -> str:
    """Return the value of Content-Range for one range (RFC 9110 section 14.4)."""
    return f"bytes {offset}-{offset + length - 1}/{size}"


def multipart_of(ranges: Sequence[Range], size: int, content_type: str) -> tuple[str, list[Segment]]:
    """Make up multipart/byteranges.

    Args:
        ranges: at least two, from :func:`parse_range`.
        size: of the selected representation, in bytes.
        content_type: of the selected representation; every part names it.

    Returns:
        the Content-Type of the reply, with a random boundary, and what a FileContent is made of.
    """
    boundary = os.urandom(16).hex()
    segments: list[Segment] = []
    delimiter = f"--{boundary}\r\n"
    for offset, length in ranges:
        head = (
            f"{delimiter}Content-Type: {content_type}\r\nContent-Range: {content_range(offset, length, size)}\r\n\r\n"
        )
        segments += [head.encode("utf-8"), (offset, length)]
        delimiter = f"\r\n--{boundary}\r\n"
    segments.append(f"\r\n--{boundary}--\r\n".encode())
    return f"multipart/byteranges; boundary={boundary}", segments
