"""SNTP verbs of a connection."""

from __future__ import annotations

from typing import Any

from asyncmg.errors import ConnectionClosed, LocalProtocolError
from asyncmg.protocols.sntp import SntpClientProtocol


class SntpVerbs:
    """``sntp_request``; mixed into Connection."""

    __slots__ = ()

    protocol: Any

    def sntp_request(self) -> None:
        """Ask the server for the time once more; MG_EV_SNTP_TIME brings it.

        The first request leaves by itself. The connection closes after MG_EV_SNTP_TIME, unless that event's handler has
        asked again. While a request is under way nothing happens.

        Raises:
            ConnectionClosed: the connection is closed.
            LocalProtocolError: it is no connection of ``sntp_connect()``.
        """
        if getattr(self, "is_closing", False):
            raise ConnectionClosed("Connection has been closed")
        if not isinstance(self.protocol, SntpClientProtocol):
            raise LocalProtocolError("not an SNTP connection: use sntp_connect()")
        self.protocol.request()
