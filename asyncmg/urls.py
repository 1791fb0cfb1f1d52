"""URLs of listen() and connect(): scheme, host, port, request-target (RFC 3986, RFC 6874 for IPv6 zones)."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from urllib.parse import quote, unquote

from .errors import InvalidUrl

#: scheme -> (default port, TLS); 0: there is no default port, None: there are no ports
_SCHEMES: dict[str, tuple[int | None, bool]] = {
    "tcp": (0, False),
    "udp": (0, False),
    "http": (80, False),
    "https": (443, True),
    "ws": (80, False),
    "wss": (443, True),
    "mqtt": (1883, False),
    "mqtts": (8883, True),
    "sntp": (123, False),
    "unix": (None, False),
}

_HTTP_SCHEMES = frozenset({"http", "https", "ws", "wss"})

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?:(?P<user>[^:@/?#\[\]]*)(?::(?P<password>[^@/?#]*))?@)?"
    r"(?P<host>\[[^\]/?#@]*\]|[^:/?#\[\]@]*)"
    r"(?::(?P<port>[0-9]{0,9}))?"
    r"(?P<target>[/?][^#\s\x00-\x1f\x7f]*)?(?:#.*)?"
)
_PRINTABLE = "".join(map(chr, range(33, 127)))
_HOST = re.compile(r"[A-Za-z0-9._~!$&'()+,;=%\u0080-\U0010ffff-]*")


class Url:
    """A parsed URL.

    Attributes:
        scheme: lower case.
        host: without brackets; ``""`` when absent; the socket path for ``unix``.
        port: the given port or the scheme's default; 0 lets the system choose (listening only); 0 for ``unix``.
        target: path and query as written, ``"/"`` when absent.
        user, password: percent-decoded, ``""`` when absent.
        is_tls: the scheme stands for TLS.
    """

    __slots__ = ("host", "is_tls", "password", "port", "scheme", "target", "user")

    def __init__(
        self, scheme: str, host: str, port: int, target: str, user: str = "", password: str = "", *, is_tls: bool
    ) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.target = target
        self.user = user
        self.password = password
        self.is_tls = is_tls

    @property
    def is_http(self) -> bool:
        """The scheme speaks HTTP, WebSocket included."""
        return self.scheme in _HTTP_SCHEMES

    @property
    def host_and_port(self) -> str:
        """``host:port``, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def authority(self) -> str:
        """What the Host field says: without the port where it is the scheme's default, and without an IPv6 zone."""
        host = self.host.partition("%")[0]
        host = f"[{host}]" if ":" in host else host
        return host if self.port == _SCHEMES[self.scheme][0] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"unix://{self.host}" if self.scheme == "unix" else f"{self.scheme}://{self.host_and_port}{self.target}"

    @classmethod
    def parse(cls, url: str, *, listening: bool = False) -> Url:
        """Parse a URL of listen() or connect().

        Args:
            url: such as ``http://127.0.0.1:8000``, ``tcp://[::1]:0``, ``unix:///run/app.sock``.
            listening: port 0 and an empty host (all IPv4 addresses) are allowed.

        Raises:
            TypeError: url is not a str.
            InvalidUrl: the URL does not parse, its scheme is unknown, or its port is missing or outside 0..65535.
        """
        if not isinstance(url, str):
            raise TypeError(f"expected str, got {type(url).__name__}")
        if url.startswith("unix:"):
            path = url.removeprefix("unix:").removeprefix("//")
            if not path or "\x00" in path:
                raise InvalidUrl(f"no socket path in {url!r}")
            return cls("unix", path, 0, "/", is_tls=False)
        match = _URL.fullmatch(url)
        if match is None:
            raise InvalidUrl(f"cannot parse URL {url!r}: expected scheme://host:port")
        scheme = match["scheme"].lower()
        known = _SCHEMES.get(scheme)
        if known is None:
            raise InvalidUrl(f"unknown scheme in {url!r}: expected one of {', '.join(_SCHEMES)}")
        host = match["host"]
        if host.startswith("["):
            host = host[1:-1].replace("%25", "%")
            try:
                IPv6Address(host)
            except ValueError:
                raise InvalidUrl(f"not an IPv6 address in {url!r}") from None
        elif not _HOST.fullmatch(host):
            raise InvalidUrl(f"invalid host in {url!r}")
        elif not host.isascii():
            if len(host) > 253:  # RFC 1035 section 2.3.4; to encode a long one takes quadratic time
                raise InvalidUrl(f"invalid host in {url!r}: longer than a domain name can be")
            try:
                host = host.encode("idna").decode()  # what is looked up, named in Host, and found in certificates
            except UnicodeError as exc:
                raise InvalidUrl(f"invalid host in {url!r}: {exc}") from exc
        default_port, is_tls = known
        port = int(match["port"]) if match["port"] else default_port or 0
        if port > 65535:
            raise InvalidUrl(f"port out of range in {url!r}: 0 to 65535")
        if match["port"] is None and not default_port:
            raise InvalidUrl(f"no port in {url!r}")
        if not listening and (not host or port == 0):
            raise InvalidUrl(f"no host or no port to connect to in {url!r}")
        target = quote(match["target"] or "/", safe=_PRINTABLE)  # RFC 3987 section 3.1
        if target.startswith("?"):
            target = "/" + target
        return cls(
            scheme, host, port, target, unquote(match["user"] or ""), unquote(match["password"] or ""), is_tls=is_tls
        )
