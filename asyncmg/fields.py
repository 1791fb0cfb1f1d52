"""Header field lines and values (RFC 9110 section 5): parameters, lists, weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # token, RFC 9110 section 5.6.2
_NOT_IN_VALUES = re.compile(r"[\r\n\0]")  # RFC 9110 section 5.5

# What matters where a value is split: separators, and quoted strings (RFC 9110 section 5.6.4), in which they do not
# count; a string that is not closed goes to the end. Possessive repetition: no input makes it go back.
_QUOTED = r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)?+'
_COMMA_OR_QUOTED = re.compile(rf",|{_QUOTED}", re.DOTALL)
_SEMICOLON_OR_QUOTED = re.compile(rf";|{_QUOTED}", re.DOTALL)

# The grammar allows three digits; more of them harm nobody.
_WEIGHT = re.compile(r"0(?:\.[0-9]*)?|1(?:\.0*)?")


def header_parameter(value: str, name: str) -> str | None:
    """Find ``name=value`` among the parameters of a field value (RFC 9110 section 5.6.6); quotes are removed."""
    wanted = name.lower()
    position, length = 0, len(value)
    while position < length:
        start = position
        quoted = False
        while position < length and (quoted or value[position] not in ";,"):
            if value[position] == '"':
                quoted = not quoted
            elif quoted and value[position] == "\\":
                position += 1
            position += 1
        # A parameter may follow white space only, as in `Basic realm="x"` and `Digest username="y"`.
        segment = value[start:position].strip()
        head, _, rest = segment.partition(" ")
        for candidate in (segment,) if "=" in head else (segment, rest):
            key, equals, raw = candidate.strip().partition("=")
            if equals and key.lower() == wanted:
                return _unquote(raw.strip())
        position += 1
    return None


def parse_header_line(line: str | bytes) -> tuple[str, str]:
    """Split a field line into its name, in lower case, and its value without white space round it (RFC 9112 section 5).

    Args:
        line: with or without the CRLF at its end; bytes count as UTF-8, what is not UTF-8 becomes surrogates.

    Raises:
        ValueError: there is no colon, the name is no token (white space before the colon included), or the value holds
            CR, LF or NUL.
    """
    text = line.decode("utf-8", "surrogateescape") if isinstance(line, bytes | bytearray) else line
    name, colon, value = text.removesuffix("\r\n").partition(":")
    if not colon or not _NAME.fullmatch(name) or _NOT_IN_VALUES.search(value):
        raise ValueError(f"malformed header line {text[:100]!r}")
    return name.lower(), value.strip(" \t")


def parse_header_parameters(value: str) -> dict[str, str | None]:
    """Split a field value at its semicolons into a dict of parameters, as uHTTP does.

    Quoted strings are honoured and lose their quotes. What has no ``=`` counts with the value None: the media type of
    Content-Type, or ``HttpOnly``. Names keep their case (:func:`header_parameter` ignores it); of repeated ones the
    last counts::

        parse_header_parameters('form-data; name="a;b"')  # {"form-data": None, "name": "a;b"}
    """
    parameters: dict[str, str | None] = {}
    for part in _split(value, _SEMICOLON_OR_QUOTED):
        name, equals, raw = part.partition("=")
        if equals:
            parameters[name.strip()] = _unquote(raw.strip())
        elif name:
            parameters[name] = None
    return parameters


def list_items(value: str) -> list[str]:
    """Split a field value at its commas (RFC 9110 section 5.6.1): items without white space round them, none empty.

    A comma within a quoted string does not count. Items keep their quotes. Not for entity tags, in which a backslash
    quotes nothing (RFC 9110 section 8.8.3).
    """
    return [item for item in _split(value, _COMMA_OR_QUOTED) if item]


def quality_values(value: str) -> list[tuple[str, float]]:
    """Parse Accept, Accept-Encoding and their like (RFC 9110 section 12.4.2).

    Args:
        value: of the field; of several field lines, joined with commas.

    Returns:
        items in lower case with their weights, 0.0 (not acceptable) to 1.0 (also: none given), in the order in which
        they were sent. Parameters in front of the weight belong to the item, without white space:
        ``"text/html;level=1"``; those behind it are dropped. An item with a malformed weight is left out.
    """
    items = []
    for item in list_items(value):
        name, *parameters = _split(item, _SEMICOLON_OR_QUOTED)
        weight = 1.0
        for parameter in parameters:
            key, _, raw = parameter.partition("=")
            if key.rstrip().lower() == "q":
                raw = raw.strip()
                weight = float(raw) if _WEIGHT.fullmatch(raw) else -1.0
                break
            name += ";" + parameter
        if name and weight >= 0:
            items.append((name.lower(), weight))
    return items


def accepted_codings(accept_encoding: str, offered: Sequence[str]) -> list[str]:
    """Return which content codings a client accepts, the one that it likes best first (RFC 9110 section 12.5.3).

    Args:
        accept_encoding: value of the field; "" when it is absent.
        offered: what we have, the one that we prefer first. What the client likes less than no coding is left out.
    """
    if not accept_encoding:
        return []
    # x-gzip is gzip (RFC 9110 section 8.4.1.3); of repeated ones the first counts.
    weights = {name.removeprefix("x-"): weight for name, weight in reversed(quality_values(accept_encoding))}
    # Without a weight of its own the identity is the last resort.
    least = weights.get("identity", 0.0)
    accepted = [(weights.get(coding, weights.get("*", 0.0)), coding) for coding in offered]
    accepted = [item for item in accepted if item[0] > 0 and item[0] >= least]
    accepted.sort(key=lambda item: -item[0])
    return [coding for _, coding in accepted]


def _split(value: str, pattern: re.Pattern[str]) -> Iterator[str]:
    """Split at the separators that ``pattern`` finds; it finds quoted strings too, to step over them."""
    start = 0
    for match in pattern.finditer(value):
        if match[0][0] != '"':
            yield value[start : match.start()].strip()
            start = match.end()
    yield value[start:].strip()


def _unquote(raw: str) -> str:
    if len(raw) < 2 or raw[0] != '"' or raw[-1] != '"':
        return raw
    out: list[str] = []
    escaped = False
    for character in raw[1:-1]:
        if character == "\\" and not escaped:
            escaped = True
        else:
            out.append(character)
            escaped = False
    return "".join(out)
