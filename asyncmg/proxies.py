"""HTTP proxies: which one the environment names, and the tunnel through it (CONNECT, RFC 9110 section 9.3.6)."""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from urllib.request import getproxies, proxy_bypass

from .errors import HandshakeFailed, InvalidUrl
from .urls import Url

_MAX_ANSWER = 16 << 10
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: ([^\r\n]*))?\r\n")


class Proxy:
    """An HTTP proxy.

    Args:
        url: ``http://host:port``, with user and password for Basic authentication if needed.

    Raises:
        InvalidUrl: another scheme: proxies are spoken to in the clear, what goes through the tunnel may be TLS.
    """

    __slots__ = ("url",)

    def __init__(self, url: str) -> None:
        self.url = Url.parse(url)
        if self.url.scheme != "http":
            raise InvalidUrl(f"not a proxy that asyncmg can use: {url!r}: expected http://host:port")

    def __repr__(self) -> str:
        return f"<Proxy {self.url.host}:{self.url.port}>"

    def request(self, target: str) -> bytes:
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if self.url.user:
            token = base64.b64encode(f"{self.url.user}:{self.url.password}".encode()).decode()
            lines.append(f"Proxy-Authorization: Basic {token}")
        return "\r\n".join([*lines, "\r\n"]).encode("ascii")


def proxy_for(url: Url) -> Proxy | None:
    """Return the proxy that the environment names for a URL (``https_proxy``, ``http_proxy``, ``all_proxy``), or None.

    ``no_proxy`` names the hosts that are reached directly.

    Raises:
        InvalidUrl: it is one that we cannot use.
    """
    proxies = getproxies()
    found = proxies.get("https" if url.is_tls else "http") or proxies.get("all")
    if not found or url.scheme == "unix" or proxy_bypass(f"{url.host}:{url.port}"):
        return None
    return Proxy(found if "://" in found else f"http://{found}")


async def open_tunnel(sock: socket.socket, proxy: Proxy, target: str) -> None:
    """Ask a proxy, to which the socket is connected, for a connection to ``host:port``.

    Cancelling leaves the socket in a state of no use.

    Raises:
        HandshakeFailed: the proxy refuses, or does not answer like one.
        OSError: the connection to it is lost.
    """
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, proxy.request(target))
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = await loop.sock_recv(sock, 4096)
        answer += data
        if not data or len(answer) > _MAX_ANSWER:
            raise HandshakeFailed(f"no answer of a proxy from {proxy.url.host}:{proxy.url.port}")
    head, _, rest = answer.partition(b"\r\n\r\n")
    match = _STATUS_LINE.match(head + b"\r\n")
    status = int(match[1]) if match else 0
    if not 200 <= status < 300:
        reason = (match[2] or b"").decode("latin-1") if match else "not HTTP"
        raise HandshakeFailed(
            f"proxy {proxy.url.host}:{proxy.url.port} has answered {status or ''} {reason}".replace("  ", " "),
            status=status,
        )
    if rest:  # through the tunnel the client speaks first
        raise HandshakeFailed(f"proxy {proxy.url.host}:{proxy.url.port} has sent more than its answer", status=status)
