"""Looking up names with a connection's events: ``resolve`` and ``resolve_cancel``."""

from __future__ import annotations

from typing import Any

from asyncmg.errors import ConnectionClosed, InvalidUrl
from asyncmg.url_parts import url_host, url_port


class ResolveVerbs:
    """Mixed into Connection."""

    __slots__ = ()

    _owner: Any

    def resolve(self, url: str) -> None:
        """Look up the host of a URL: MG_EV_RESOLVE brings its addresses, and ``remote_addr`` is the first of them.

        When it fails, MG_EV_ERROR tells why, and the connection closes, as in Mongoose: to look up names without a
        connection at stake, await :func:`asyncmg.resolve`. A look-up that is under way is cancelled.

        Args:
            url: of any scheme, or a host name alone; without a port the addresses have 0, or that of the scheme.

        Raises:
            ConnectionClosed: the connection is closed.
            InvalidUrl: there is no host in it.
        """
        if getattr(self, "is_closing", False):
            raise ConnectionClosed("Connection has been closed")
        host = url_host(url)
        if not host:
            raise InvalidUrl(f"no host in {url!r}")
        if host.startswith("["):
            host = host[1:-1].replace("%25", "%")  # RFC 6874
        self._owner.begin_resolving(self, host, url_port(url))

    def resolve_cancel(self) -> None:
        """Cancel the look-up that :meth:`resolve` has begun; nothing happens when there is none."""
        self._owner.end_resolving(self)
