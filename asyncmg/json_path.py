"""Values of a JSON document by their path, as they stand there (RFC 8259): the ``json_get`` functions of Mongoose.

A value is looked for, the document is not kept: what stands before it is passed over by the scanner of :mod:`json`, in
C where Python has it, and what stands behind it is not read. What is read has to be JSON. The time grows with the size
of what is read.
"""

from __future__ import annotations

import json
import re
from typing import Final, NoReturn

MAX_NESTING: Final = 128  # arrays and objects within each other, in a value; in Mongoose 30


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"not JSON: {constant}")  # NaN, Infinity and -Infinity, which json takes by default


# Numbers that are passed over are not converted: that takes quadratic time.
_DECODER: Final = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=_refuse)

_SPACE: Final = re.compile(r"[ \t\n\r]*+")
_COLON: Final = re.compile(r"[ \t\n\r]*+:[ \t\n\r]*+")
_COMMA: Final = re.compile(r"[ \t\n\r]*+,[ \t\n\r]*+")
_NO_OUTLINE: Final = bytes(byte for byte in range(256) if byte not in b'[]{}"\\')
_ALIKE: Final = bytes.maketrans(b"{}", b"[]")
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_ENDS: Final = frozenset(" \t\n\r,]}")  # what may follow a value: of 01, the 0 is none

_INDEX: Final = re.compile(r"\[([0-9]{1,9})\]")
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}")
_MAX_LONG: Final = 2**63


def json_get(data: str | bytes, path: str) -> str | None:
    """Return the value at a path as it stands in the document: ``'"Alice"'``, ``'30'``, ``'[1, 2.5]'``, ``'null'``.

    ::

        json_get('{"a": {"b": [1, {"c": true}]}}', "$.a.b[1]")  # '{"c": true}'

    Args:
        data: the document; bytes are UTF-8, and what is not becomes surrogates.
        path: ``$`` is the whole document, ``.name`` a member, ``[0]`` an element; nothing is quoted. A name is compared
            as it is decoded, and may have dots and brackets: of all members the first whose name begins the rest of the
            path, up to its end or to a dot or a bracket, is taken.

    Returns:
        None when there is no such value, when the path is none, or when the document is not JSON as far as it was read:
        up to the end of the value. Values with more than MAX_NESTING containers within each other count as such.

    Raises:
        TypeError: data is neither str nor bytes, or the path is no str.
    """
    text = _text(data)
    if not isinstance(path, str):
        raise TypeError(f"expected str, got {type(path).__name__}")
    if not path.startswith("$"):
        return None
    try:
        return _token(text, path)
    except ValueError:
        return None
    except RecursionError:
        if text.count("[") + text.count("{") > MAX_NESTING:
            return None
        raise  # the caller has no stack left


def json_get_num(data: str | bytes, path: str, default: float | None = None) -> float | None:
    """Return the number at a path, or ``default`` when there is none; otherwise as :func:`json_get`.

    What a float cannot hold is infinite, as it is to ``json.loads``.
    """
    token = json_get(data, path)
    return float(token) if token is not None and token[0] in "-0123456789" else default


def json_get_bool(data: str | bytes, path: str, default: bool | None = None) -> bool | None:
    """Return whether ``true`` stands at a path, or ``default`` unless that or ``false`` does; see :func:`json_get`."""
    token = json_get(data, path)
    return token == "true" if token in ("true", "false") else default


def json_get_long(data: str | bytes, path: str, default: int = 0) -> int:
    """Return the number at a path without its fraction, or ``default`` when there is none; see :func:`json_get`.

    Integers of 64 bits are exact. One that needs more is not taken: ``default``.
    """
    token = json_get(data, path)
    if token is None or token[0] not in "-0123456789":
        return default
    if _INTEGER.fullmatch(token):
        number = int(token)
    else:
        value = float(token)
        if not -_MAX_LONG <= value < _MAX_LONG:
            return default
        number = int(value)
    return number if -_MAX_LONG <= number < _MAX_LONG else default


def json_get_str(data: str | bytes, path: str) -> str | None:
    """Return the string at a path, decoded, or None when there is no string; otherwise as :func:`json_get`."""
    token = json_get(data, path)
    return str(json.loads(token)) if token is not None and token.startswith('"') else None


def _text(data: str | bytes) -> str:
    if isinstance(data, str):
        return data
    return bytes(memoryview(data)).decode("utf-8", "surrogateescape")  # bytes(5) would be five zero bytes


def _is_too_deep(text: str, begin: int, end: int) -> bool:
    """Tell whether a value has more than MAX_NESTING containers within each other."""
    if text.count("[", begin, end) + text.count("{", begin, end) <= MAX_NESTING:
        return False
    outline = text[begin:end].encode("utf-8", "surrogatepass").translate(_ALIKE, _NO_OUTLINE)
    outline = _STRING.sub(b"", outline) if b"\\" in outline else b"".join(outline.split(b'"')[::2])
    for _ in range(MAX_NESTING):
        outline = outline.replace(b"[]", b"")  # one level less: in JSON, every end is in its place
        if not outline:
            return False
    return True


def _token(text: str, path: str) -> str | None:
    """Find the value.

    Raises:
        ValueError: it is not JSON.
    """
    position, at = _behind(_SPACE, text, 0), 1
    while at < len(path):
        opening = text[position : position + 1]
        if path[at] == "." and opening == "{":
            position, at = _find_member(text, position, path, at + 1)
        elif path[at] == "[" and opening == "[" and (index := _INDEX.match(path, at)) is not None:
            position, at = _find_element(text, position, int(index[1])), index.end()
        else:
            return None
        if position < 0:
            return None
    end = _value_end(text, position)
    return text[position:end] if end == len(text) or text[end] in _ENDS else None


def _behind(pattern: re.Pattern[str], text: str, position: int) -> int:
    """Return where a separator at a position ends; -1: there is none."""
    found = pattern.match(text, position)
    return found.end() if found is not None else -1


def _find_member(text: str, position: int, path: str, at: int) -> tuple[int, int]:
    """Find the member that the path names in the object at a position.

    Returns:
        where its value begins, and where the path goes on; -1: there is none.
    """
    position = _behind(_SPACE, text, position + 1)
    while text.startswith('"', position):
        name, end = _DECODER.raw_decode(text, position)
        position = _behind(_COLON, text, end)
        if position < 0:
            break
        rest = at + len(name)
        if path.startswith(name, at) and (rest == len(path) or path[rest] in ".["):
            return position, rest
        position = _behind(_COMMA, text, _value_end(text, position))
        if position < 0:
            break
    return -1, at


def _find_element(text: str, position: int, index: int) -> int:
    """Find where an element of the array at a position begins; -1: there is none."""
    position = _behind(_SPACE, text, position + 1)
    for _ in range(index):
        position = _behind(_COMMA, text, _value_end(text, position))
        if position < 0:
            break
    return position


def _value_end(text: str, position: int) -> int:
    """Find the end of the value that begins at a position.

    Raises:
        ValueError: none begins there, it is not JSON, or it is nested too deep.
    """
    end = _DECODER.raw_decode(text, position)[1]
    if end - position > MAX_NESTING and _is_too_deep(text, position, end):
        raise ValueError("more than MAX_NESTING containers within each other")
    return end
