"""Validators and conditional requests (RFC 9110 sections 8.8 and 13)."""

from __future__ import annotations

import calendar
import datetime
import functools
import os
import re
import time
from collections.abc import Mapping
from email.utils import formatdate

# RFC 9110 section 8.8.3: a quoted string without escapes; commas are ordinary characters in it.
_ENTITY_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\U0010ffff]*"'
_LIST_MEMBER = re.compile(rf"[ \t]*+(?:({_ENTITY_TAG})[ \t]*+)?(,|\Z)")

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CLOCK = r"(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9]):(?P<second>[0-5][0-9]|60)"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_DAY = "Mon|Tue|Wed|Thu|Fri|Sat|Sun"
# RFC 9110 section 5.6.7: IMF-fixdate, and what must be understood still.
_DATES = (
    re.compile(rf"(?:{_DAY}), (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_CLOCK} GMT"),
    re.compile(
        rf"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_CLOCK} GMT"
    ),
    re.compile(rf"(?:{_DAY}) {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_CLOCK} (?P<year>[0-9]{{4}})"),
)


def entity_tag(info: os.stat_result, coding: str = "") -> str:
    """Return the strong entity tag of a file: of its size and of its time in nanoseconds.

    Args:
        info: what stat() says about the file that is sent.
        coding: content coding; every coding has a tag of its own (RFC 9110 section 8.8.3.3).
    """
    return f'"{info.st_mtime_ns:x}-{info.st_size:x}{"-" if coding else ""}{coding}"'


def last_modified(info: os.stat_result) -> int:
    """Return the time of a file for Last-Modified, in seconds since 1970: never in the future (section 8.8.2.1)."""
    return max(0, min(info.st_mtime_ns // 10**9, int(time.time())))


@functools.lru_cache(maxsize=1024)
def format_http_date(seconds: int) -> str:
    """Return a time, in seconds since 1970, as IMF-fixdate."""
    return formatdate(seconds, usegmt=True)


def parse_http_date(value: str) -> int | None:
    """Parse one of the three forms of a date (RFC 9110 section 5.6.7).

    Returns:
        seconds since 1970, possibly negative; None when it is not a date. The name of the day is not compared.
    """
    for form in _DATES:
        found = form.fullmatch(value)
        if found is not None:
            break
    else:
        return None
    year, month, day = int(found["year"]), _MONTHS.index(found["month"]) + 1, int(found["day"])
    if len(found["year"]) == 2:
        # Two digits that would be more than 50 years ahead mean the past.
        this_year = time.gmtime().tm_year
        year += this_year - this_year % 100
        if year > this_year + 50:
            year -= 100
    try:
        datetime.date(year, month, day)
    except ValueError:
        return None
    return calendar.timegm((year, month, day, int(found["hour"]), int(found["minute"]), int(found["second"])))


def parse_entity_tags(value: str) -> list[str]:
    """Parse the list of If-Match and If-None-Match; [] when one member is no entity tag, ``*`` included."""
    tags, position = [], 0
    while True:
        found = _LIST_MEMBER.match(value, position)
        if found is None:
            return []
        if found[1]:
            tags.append(found[1])
        if not found[2]:
            return tags
        position = found.end()


def check_preconditions(method: str, fields: Mapping[str, str], etag: str, modified: int) -> int:
    """Evaluate the conditions of a request for something that exists, in the order of RFC 9110 section 13.2.2.

    Args:
        method: of the request.
        fields: header fields by lower-case name; several lines of one name joined with commas.
        etag: strong entity tag of the selected representation.
        modified: its Last-Modified, in seconds since 1970.

    Returns:
        0: go on; 304: what the client has is fresh; 412: a condition failed.
    """
    is_read = method in ("GET", "HEAD")
    value = fields.get("if-match")
    if value is not None:
        if value != "*" and etag not in parse_entity_tags(value):  # strong comparison: a weak tag equals none
            return 412
    else:
        since = parse_http_date(fields.get("if-unmodified-since", ""))
        if since is not None and modified > since:
            return 412
    value = fields.get("if-none-match")
    if value is not None:
        if value == "*" or etag in [tag.removeprefix("W/") for tag in parse_entity_tags(value)]:
            return 304 if is_read else 412
    elif is_read:
        since = parse_http_date(fields.get("if-modified-since", ""))
        if since is not None and modified <= since:
            return 304
    return 0


def range_applies(fields: Mapping[str, str], etag: str, modified: int) -> bool:
    """Evaluate If-Range (RFC 9110 section 13.1.5): without it, or when it holds, Range counts. Arguments as above."""
    value = fields.get("if-range")
    if value is None or value == etag:
        return True
    # A date is a strong validator only when its second is over (section 8.8.2.2): more may be written within it.
    return parse_http_date(value) == modified and modified < int(time.time())
