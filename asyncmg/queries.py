"""Query strings: the parameters of a request-target (WHATWG URL section 5.1), and uHTTP's functions for them."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from asyncmg.errors import LimitExceeded, RemoteProtocolError

MAX_PAIRS = 1000  # parameters of one query: 400

QueryValue = str | None | list[str | None]

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://")


def query_pairs(raw: str | bytes) -> list[tuple[str, str]]:
    """Parse a query string into pairs of names and values, in order, repeated ones kept.

    Nothing is malformed here, as in browsers: ``+`` is a space, a percent sign that begins no escape stays one, bytes
    that are not UTF-8 become surrogates, and what has no ``=`` is a name with the value "".

    Args:
        raw: without the ``?``.

    Raises:
        LimitExceeded: more than MAX_PAIRS parameters (wire_code 400).
    """
    pairs = []
    for piece in _pieces(_bytes(raw)):
        name, _, value = piece.partition(b"=")
        pairs.append((decode_text(name), decode_text(value)))
    return pairs


def decode_text(data: bytes) -> str:
    """Decode one name or value of a query or of an urlencoded form, as :func:`query_pairs` does."""
    data = data.replace(b"+", b" ")
    if b"%" in data:
        data = unquote_to_bytes(data)
    return data.decode("utf-8", "surrogateescape")


def decode_percent_encoding(data: bytes | str) -> bytes:
    """Decode ``%xx``, and ``+`` as a space, strictly, as uHTTP does.

    Raises:
        ValueError: a percent sign is not followed by two hexadecimal digits.
    """
    return _decode_escapes(_bytes(data).replace(b"+", b" "))


def parse_query(raw_query: str | bytes, query: dict[str, QueryValue] | None = None) -> dict[str, QueryValue]:
    """Parse a query string into a dict, strictly, as uHTTP does.

    A name that is repeated gets a list of its values; one without ``=`` has the value None::

        parse_query("a=1&b&a=2")  # {"a": ["1", "2"], "b": None}

    Args:
        raw_query: without the ``?``.
        query: a dict to add to; by default a new one.

    Returns:
        ``query``, or the new dict.

    Raises:
        RemoteProtocolError: a malformed escape, or one that is not UTF-8 (wire_code 400).
        LimitExceeded: more than MAX_PAIRS parameters (wire_code 400).
    """
    if query is None:
        query = {}
    for piece in _pieces(_bytes(raw_query)):
        raw_name, equals, raw_value = piece.replace(b"+", b" ").partition(b"=")
        name = _strict_text(raw_name, "query")
        value = _strict_text(raw_value, "query") if equals else None
        if name not in query:
            query[name] = value
            continue
        known = query[name]
        if isinstance(known, list):
            known.append(value)
        else:
            query[name] = [known, value]
    return query


def parse_url(url: str | bytes) -> tuple[str, dict[str, QueryValue] | None]:
    """Split a request-target in origin-form (RFC 9112 section 3.2.1) into its path and its query, both decoded.

    As in uHTTP, but that a ``+`` in the path stays one: it is a space in queries only. The path is what the peer sent,
    ``..`` included: never use it as the path of a file without checking it.

    Returns:
        the path, and the query as of :func:`parse_query`; None when there is no ``?``.

    Raises:
        ValueError: the argument is a URL with a scheme.
        RemoteProtocolError, LimitExceeded: as :func:`parse_query`, for the path too.
    """
    target = _bytes(url)
    if _SCHEME.match(target):
        raise ValueError(f"not a request-target in origin-form: {url!r}")
    path, mark, query = target.partition(b"?")
    return _strict_text(path, "path"), parse_query(query) if mark else None


def http_var(buf: str | bytes, name: str) -> str | None:
    """Return the first value of a name in a query or an urlencoded form, as it stands there: nothing is decoded.

    As in Mongoose. :func:`query_pairs`, and ``query_var`` of a message, decode.

    Args:
        buf: the query, without the ``?``, or the form.
        name: as it is written there; the case of A to Z does not matter.

    Returns:
        None when there is no such name; "" when it has no value. Bytes that are not UTF-8 become surrogates.

    Raises:
        TypeError: buf is neither str nor bytes, or name is no str.
    """
    data = buf.encode("utf-8", "surrogateescape") if isinstance(buf, str) else bytes(memoryview(buf))
    if not isinstance(name, str):
        raise TypeError(f"expected str, got {type(name).__name__}")
    wanted = name.encode("utf-8", "surrogateescape").lower()
    for piece in data.split(b"&"):
        key, _, value = piece.partition(b"=")
        if piece and key.lower() == wanted:
            return value.decode("utf-8", "surrogateescape")
    return None


def _pieces(raw: bytes) -> list[bytes]:
    """Split at ``&``; empty pieces mean nothing, yet they count."""
    count = raw.count(b"&") + 1
    if count > MAX_PAIRS:
        raise LimitExceeded("too many query parameters", limit=f"max_pairs={MAX_PAIRS}", actual=count, wire_code=400)
    return [piece for piece in raw.split(b"&") if piece]


def _decode_escapes(data: bytes) -> bytes:
    bad = _BAD_ESCAPE.search(data)
    if bad is not None:
        raise ValueError(f"malformed percent-encoding at position {bad.start()}")
    return unquote_to_bytes(data)


def _strict_text(data: bytes, what: str) -> str:
    try:
        return _decode_escapes(data).decode()
    except ValueError as exc:  # UnicodeDecodeError is one
        raise RemoteProtocolError(f"malformed {what}: {exc}", wire_code=400, section="RFC 3986 section 2.1") from exc


def _bytes(data: str | bytes) -> bytes:
    return data.encode("utf-8", "surrogateescape") if isinstance(data, str) else bytes(data)
