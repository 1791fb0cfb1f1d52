"""What the listening and the connecting half of Manager need from the whole."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any

from .codecs.choice import CodecFactory
from .connection import Connection
from .errors import InvalidUrl
from .limits import Limits
from .loop_host import LoopHost
from .places import Places
from .protocols.base import BaseProtocol
from .protocols.http import HttpProtocol
from .protocols.stream import StreamProtocol
from .transports.backend import Backend
from .urls import Url


class ManagerParts(ABC):
    """Base of both halves; Manager has the rest."""

    limits: Limits
    _connections: dict[int, Connection]
    _http_codec: CodecFactory
    _places: Places

    @abstractmethod
    def _require_host(self) -> LoopHost: ...

    @abstractmethod
    def _require_backend(self) -> Backend: ...

    @abstractmethod
    def _take_id(self) -> int: ...

    @abstractmethod
    def spawn(self, coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]: ...

    def _protocol_class(self, url: Url, http: bool | None) -> tuple[type[BaseProtocol], dict[str, Any]]:
        """Return the class of a connection's protocol objects, and what it takes beside what all take."""
        if url.is_http if http is None else http:
            return HttpProtocol, {"codec": self._http_codec}
        if url.scheme in ("mqtt", "mqtts"):
            raise InvalidUrl(f"for {url} call mqtt_connect() or mqtt_listen()")
        return StreamProtocol, {}
