"""The system's own resolver, where name servers are named in no file: ``getaddrinfo()`` in the loop's thread pool."""

from __future__ import annotations

import asyncio
import socket
import time

from asyncmg.codecs import dns
from asyncmg.codecs.dns import DnsMessage, DnsRecord, RecordType
from asyncmg.errors import ResolveFailed, ResolveTimeout
from asyncmg.limits import DnsLimits

from .answer import Found

_FAMILIES = {RecordType.A: socket.AF_INET, RecordType.AAAA: socket.AF_INET6}
_ABSENT = frozenset((socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)))


class SystemResolver:
    """Asks the system for addresses; it cannot be asked for anything else, and tells no time to live."""

    def __init__(self, limits: DnsLimits) -> None:
        self._limits = limits

    async def query(self, name: str, kind: int, deadline: float) -> Found:
        """Look up one name; as :meth:`StubResolver.query`. The thread goes on when this is cancelled."""
        family = _FAMILIES.get(RecordType(kind))
        if family is None:
            raise ResolveFailed(f"the system's resolver knows addresses only: no {RecordType(kind).name}", name=name)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                found = await loop.getaddrinfo(name, None, family=family, type=socket.SOCK_STREAM)
        except socket.gaierror as exc:
            if exc.errno not in _ABSENT:
                raise ResolveFailed(f"cannot resolve {name}: {exc.strerror}", name=name) from exc
            return Found(DnsMessage(0, dns.RESPONSE | dns.NAME_ERROR), name, kind, self._limits.max_cnames)
        except TimeoutError as exc:
            raise ResolveTimeout(f"cannot resolve {name}: the system has not answered", name=name) from exc
        records = [DnsRecord(name, kind, str(item[4][0])) for item in found]
        return Found(DnsMessage(0, dns.RESPONSE, answers=records), name, kind, self._limits.max_cnames)
