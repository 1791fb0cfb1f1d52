"""Parts of a URL as they stand there (RFC 3986 section 3): the ``url_`` functions of Mongoose.

They take any text apart and never refuse one; :class:`asyncmg.urls.Url` is what listen() and connect() use, and is
strict. Nothing is decoded. What is missing is "", and so is a host that cannot be one.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import quote

_DEFAULT_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443, "mqtt": 1883, "mqtts": 8883}
_TLS_SCHEMES: Final = frozenset({"https", "wss", "mqtts", "ssl", "tls"})

_URL: Final = re.compile(
    r"(?:(?P<scheme>[^:/?#@\[\]]*+):)?+//(?P<authority>[^/?#]*+)"
    r"|(?P<bare>[^/?#]*+)",  # without "//", Mongoose takes it for the authority as well
)
_PORT: Final = re.compile("[0-9]{1,20}")
_ESCAPE: Final = re.compile("%[0-9A-F]{2}")


class _Parts(NamedTuple):
    scheme: str
    user: str
    password: str
    host: str
    port: str
    uri: str


def _split(url: str) -> _Parts:
    if not isinstance(url, str):
        raise TypeError(f"expected str, got {type(url).__name__}")
    found = _URL.match(url)
    assert found is not None  # it matches the empty text
    authority = found["authority"] if found["bare"] is None else found["bare"]
    userinfo, _, place = authority.rpartition("@")  # the last one, as browsers do: the host is what is connected to
    user, _, password = userinfo.partition(":")
    if place.startswith("["):
        host, bracket, port = place.partition("]")
        host += bracket
        if not bracket or (port and port[0] != ":"):
            host, port = "", ":-"
        port = port[1:]
    else:
        host, _, port = place.partition(":")
    uri = url[found.end() :]
    return _Parts((found["scheme"] or "").lower(), user, password, host, port, uri if uri[:1] == "/" else "/" + uri)


def url_port(url: str) -> int:
    """Return the port, else the default port of http, ws, https, wss, mqtt or mqtts; else, or if it is none, 0.

    Raises:
        TypeError: url is no str (all functions here).
    """
    parts = _split(url)
    if not parts.port:  # RFC 3986 section 3.2.3: "http://host:" has the default one
        return _DEFAULT_PORTS.get(parts.scheme, 0)
    port = int(parts.port) if _PORT.fullmatch(parts.port) else 0
    return port if port < 65536 else 0


def url_host(url: str) -> str:
    """Return the host as it stands there, an IPv6 address with its brackets."""
    return _split(url).host


def url_user(url: str) -> str:
    """Return the user name as it stands there, percent-encoded."""
    return _split(url).user


def url_pass(url: str) -> str:
    """Return the password as it stands there, percent-encoded."""
    return _split(url).password


def url_uri(url: str) -> str:
    """Return everything behind host and port: path, query, and the fragment if there is one; at least ``/``."""
    return _split(url).uri


def url_is_ssl(url: str) -> bool:
    """Tell whether the scheme stands for TLS: https, wss, mqtts, ssl, tls; its case does not matter."""
    return _split(url).scheme in _TLS_SCHEMES


def url_encode(data: str) -> str:
    """Percent-encode everything but letters, digits, ``-``, ``.``, ``_`` and ``~`` (RFC 3986 section 2.3).

    Args:
        data: counts as UTF-8. The digits of escapes are lower case, as in Mongoose.

    Raises:
        TypeError: data is no str.
        ValueError: data has surrogates (UnicodeEncodeError).
    """
    if not isinstance(data, str):
        raise TypeError(f"expected str, got {type(data).__name__}")
    return _ESCAPE.sub(lambda escape: escape[0].lower(), quote(data, safe=""))
