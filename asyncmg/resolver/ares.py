"""Name servers asked by aiodns, which is c-ares: the extra ``asyncmg[dns]``."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiodns
import pycares

from asyncmg.codecs import dns
from asyncmg.codecs.dns import DnsMessage, DnsRecord, MxData, RecordData, RecordType, SoaData, SrvData, TxtData
from asyncmg.errors import RemoteProtocolError, ResolveFailed, ResolveTimeout
from asyncmg.limits import DnsLimits

from .answer import Found
from .config import ResolvConf
from .stub import StubResolver

_ABSENT = {pycares.errno.ARES_ENOTFOUND: dns.NAME_ERROR, pycares.errno.ARES_ENODATA: dns.NO_ERROR}
_RCODES = {
    pycares.errno.ARES_EFORMERR: dns.FORMAT_ERROR,
    pycares.errno.ARES_ESERVFAIL: dns.SERVER_FAILURE,
    pycares.errno.ARES_ENOTIMP: dns.NOT_IMPLEMENTED,
    pycares.errno.ARES_EREFUSED: dns.REFUSED,
}

_FROM_ARES: dict[int, Callable[[Any], RecordData]] = {
    RecordType.A: lambda data: str(data.addr),
    RecordType.AAAA: lambda data: str(data.addr),
    RecordType.CNAME: lambda data: _name(data.cname),
    RecordType.NS: lambda data: _name(data.nsdname),
    RecordType.PTR: lambda data: _name(data.dname),
    RecordType.MX: lambda data: MxData(data.priority, _name(data.exchange)),
    RecordType.SRV: lambda data: SrvData(data.priority, data.weight, data.port, _name(data.target)),
    RecordType.TXT: lambda data: TxtData([bytes(data.data)]),
    RecordType.SOA: lambda data: SoaData(
        _name(data.mname), _name(data.rname), data.serial, data.refresh, data.retry, data.expire, data.minimum
    ),
}


def _name(name: str) -> str:
    return name.removesuffix(".")


class AresResolver:
    """Asks the name servers of a configuration. To be used, and closed, in the loop in which it was made.

    Args:
        config: called for each look-up.
        limits: time-outs and tries; those that the configuration tells count instead.
        stub: asks for what c-ares does not tell as it is: TXT, whose strings it joins, and types unknown to it.
    """

    def __init__(self, config: Callable[[], ResolvConf], limits: DnsLimits, stub: StubResolver) -> None:
        self._stub = stub
        self._config = config
        self._limits = limits
        self._used = config()
        self._under_way: dict[aiodns.DNSResolver, int] = {}  # questions
        self._ares = self._make(self._used)

    def _make(self, config: ResolvConf) -> aiodns.DNSResolver:
        servers = [_server_text(address) for _, address in config.servers]
        options: dict[str, Any] = {"flags": pycares.ARES_FLAG_USEVC} if config.use_tcp else {}
        return aiodns.DNSResolver(
            nameservers=servers or None,
            timeout=config.timeout or self._limits.try_timeout,
            tries=config.attempts or self._limits.max_tries,
            rotate=config.rotate,
            **options,
        )

    async def query(self, name: str, kind: int, deadline: float) -> Found:
        """Look up one absolute name; as :meth:`StubResolver.query`."""
        config = self._config()
        if config != self._used:  # who has asked by the old one is answered by it, as long as it lives
            self._used, self._ares = config, self._make(config)
        if config.servers and (kind == RecordType.TXT or kind not in _FROM_ARES):
            return await self._stub.query(name, kind, deadline)
        ares = self._ares
        try:
            async with asyncio.timeout(deadline - time.monotonic()), self._asking(ares):
                result = await ares.query_dns(name, RecordType(kind).name)
        except ValueError as exc:
            raise ResolveFailed(f"aiodns cannot look up {RecordType(kind).name} records", name=name) from exc
        except aiodns.error.DNSError as exc:
            number = exc.args[0] if exc.args else 0
            if number in _ABSENT:
                return Found(DnsMessage(0, dns.RESPONSE | _ABSENT[number]), name, kind, self._limits.max_cnames)
            if number == pycares.errno.ARES_ETIMEOUT:
                raise ResolveTimeout(f"cannot resolve {name}: no name server has answered", name=name) from exc
            rcode = _RCODES.get(number, 0)
            raise ResolveFailed(f"cannot resolve {name}: {exc.args[-1]}", name=name, rcode=rcode) from exc
        except TimeoutError as exc:
            raise ResolveTimeout(f"cannot resolve {name}: no name server has answered", name=name) from exc
        records = [record for item in result.answer if (record := _record(item)) is not None]
        try:
            return Found(DnsMessage(0, dns.RESPONSE, answers=records), name, kind, self._limits.max_cnames)
        except RemoteProtocolError as exc:
            raise ResolveFailed(f"cannot resolve {name}: {exc}", name=name) from exc

    @contextlib.asynccontextmanager
    async def _asking(self, ares: aiodns.DNSResolver) -> AsyncIterator[None]:
        """Have c-ares forget what nobody waits for any more: it would answer into a loop that may be closed by then."""
        self._under_way[ares] = self._under_way.get(ares, 0) + 1
        try:
            yield
        except asyncio.CancelledError:  # a time-out as well
            if self._under_way[ares] == 1:  # a single question cannot be taken back
                ares.cancel()
            raise
        finally:
            self._under_way[ares] -= 1
            if not self._under_way[ares]:
                del self._under_way[ares]

    async def close(self) -> None:
        await self._ares.close()


def _server_text(address: tuple[Any, ...]) -> str:
    host, port = address[0], address[1]
    if len(address) == 4 and address[3]:
        host = f"{host}%{address[3]}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _record(item: Any) -> DnsRecord | None:
    convert = _FROM_ARES.get(item.type)
    return None if convert is None else DnsRecord(_name(item.name), int(item.type), convert(item.data), int(item.ttl))
