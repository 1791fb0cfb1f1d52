"""``await asyncmg.sntp_time(host, ...)``: what time it is, asked of one server or of several (SNTP, RFC 4330)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from .addresses import Address, address_of
from .codecs.choice import sntp_codec
from .errors import AsyncmgError, InvalidUrl, KissOfDeath, RemoteProtocolError, SntpFailed
from .limits import SntpLimits
from .protocols.sntp import SntpSample
from .resolver.hosts import find_addresses
from .resolver.service import Resolver, default_resolver
from .transports.exchange import ask_datagram
from .transports.sockets import SockAddr
from .urls import Url

_DEFAULT_LIMITS = SntpLimits()
_LAGGARDS = 0.25  # seconds that the rest gets when half of the servers have answered


class SntpTime(NamedTuple):
    """The time that a server has told.

    Attributes:
        offset: seconds by which our clock is behind the server's; negative: ahead.
        delay: seconds of the round trip; the offset is right to half of it.
        ns: the server's time when its reply arrived, nanoseconds since 1970, UTC.
        server: who told it.
        stratum: 1 for a server with a reference clock, one more for each server between.
        leap: 0 none, 1 the last minute of the day has 61 seconds, 2 it has 59.
        reference: what the server's clock follows, such as ``GPS`` or an address.
        root_delay, root_dispersion: seconds from the server to its reference clock, and how far it may be wrong.
        precision: of the server's clock, seconds.
        arrived: ``time.monotonic_ns()`` when the reply arrived.
    """

    offset: float
    delay: float
    ns: int
    server: Address
    stratum: int
    leap: int
    reference: str
    root_delay: float
    root_dispersion: float
    precision: float
    arrived: int

    @property
    def datetime(self) -> datetime:
        """The server's time when its reply arrived, UTC."""
        return datetime.fromtimestamp(self.ns / 1e9, UTC)

    @property
    def root_distance(self) -> float:
        """Seconds by which the time may be wrong at most, as the server says (RFC 5905 appendix A.5.5.2)."""
        return self.delay / 2 + self.root_delay / 2 + self.root_dispersion + self.precision

    def now(self) -> int:
        """The time by now, nanoseconds since 1970, whatever has been done to our clock meanwhile."""
        return self.ns + time.monotonic_ns() - self.arrived


async def sntp_time(
    *servers: str,
    timeout: float | None = None,
    limits: SntpLimits = _DEFAULT_LIMITS,
    resolver: Resolver | None = None,
) -> SntpTime:
    """Ask servers for the time; return the best answer (RFC 4330 section 5).

    All addresses of all servers are asked at once, each again after a while when it is silent. Answers that most others
    contradict are dropped; of the rest the one with the shortest round trip is the best::

        told = await asyncmg.sntp_time("0.pool.ntp.org", "1.pool.ntp.org", "2.pool.ntp.org")
        print(told.datetime, told.offset)

    A reply counts only from the address and port that were asked, with the random timestamp of the request in it, and
    from a server whose clock is synchronized. A server that says kiss-o'-death is not asked again.

    Cancelling is safe.

    Args:
        servers: host names, ``host:port``, addresses (IPv6 in brackets when a port follows), or ``sntp://`` URLs.
        timeout: seconds in all; default: what tries and pauses of ``limits`` add up to.
        limits: tries and time-outs; ``max_addresses`` of each name are asked.
        resolver: looks up names; default: the one that all share.

    Raises:
        TypeError: no server is given.
        InvalidUrl: one of them is no server.
        SntpFailed: none has told the time; ``failures`` says why, server by server. It is an OSError.
    """
    if not servers:
        raise TypeError("sntp_time() needs at least one server")
    urls = [_server_url(server) for server in servers]
    deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
    failures: dict[str, Exception] = {}
    addresses = await _find_all(urls, failures, limits, resolver or default_resolver(), deadline)
    answers = await _ask_all(addresses, failures, limits, deadline)
    if not answers:
        told = "; ".join(f"{server}: {error}" for server, error in failures.items()) or "no answer in time"
        raise SntpFailed(f"no server has told the time: {told}", failures) from next(iter(failures.values()), None)
    return best_of(answers)


def _server_url(server: str) -> Url:
    if "://" not in server:
        server = f"sntp://[{server}]" if server.count(":") > 1 and not server.startswith("[") else f"sntp://{server}"
    url = Url.parse(server)
    if url.scheme not in ("sntp", "udp"):
        raise InvalidUrl(f"not an SNTP server: {server!r}")
    return url


async def _find_all(
    urls: Sequence[Url],
    failures: dict[str, Exception],
    limits: SntpLimits,
    resolver: Resolver,
    deadline: float | None,
) -> list[SockAddr]:
    """Look up all servers; return their addresses, each once."""

    async def find(url: Url) -> list[SockAddr]:
        try:
            async with asyncio.timeout_at(deadline):
                found = await find_addresses(resolver, url.host, url.port)
        except (AsyncmgError, OSError) as exc:
            failures[url.host_and_port] = exc
            return []
        found.close()
        # localhost has two, and who serves the time there listens on one of them.
        return found.first[: limits.max_addresses]

    found = await asyncio.gather(*map(find, urls))
    return list(dict.fromkeys(address for addresses in found for address in addresses))


async def _ask_all(
    addresses: list[SockAddr], failures: dict[str, Exception], limits: SntpLimits, deadline: float | None
) -> list[SntpTime]:
    """Ask all addresses at once; when half of them have answered, the others get a little while."""
    answers: list[SntpTime] = []
    loop = asyncio.get_running_loop()
    tasks = {
        asyncio.create_task(_ask(address, limits), name=f"asyncmg-sntp {address[1][0]}"): str(address_of(address[1]))
        for address in addresses
    }
    pending = set(tasks)
    try:
        while pending:
            left = None if deadline is None else max(deadline - loop.time(), 0)
            done, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                for task in pending:
                    failures[tasks[task]] = TimeoutError("no answer in time")
                break
            for task in done:
                error = task.exception()
                if error is None:
                    answers.append(task.result())
                elif isinstance(error, (OSError, AsyncmgError)):
                    failures[tasks[task]] = error
                else:
                    raise error
            if pending and len(answers) * 2 >= len(tasks):
                soon = loop.time() + _LAGGARDS
                deadline = soon if deadline is None else min(soon, deadline)
    finally:
        for task in pending:
            task.cancel()
    return answers


async def _ask(server: SockAddr, limits: SntpLimits) -> SntpTime:
    """Ask one address, again when it is silent or nobody is there."""
    read = sntp_codec()
    pause = limits.retry_interval
    for attempt in range(1, limits.max_tries + 1):
        sample = SntpSample()

        def take(data: bytes, sample: SntpSample = sample) -> SntpTime | RemoteProtocolError | None:
            try:
                packet = read(data)
            except RemoteProtocolError:
                return None  # no SNTP: it may be spoofed
            try:
                return _told(sample, server) if sample.take(packet) else None
            except RemoteProtocolError as exc:  # an exception raised here would look like one of the socket
                return exc

        try:
            outcome = await ask_datagram(server, sample.request, take, timeout=limits.try_timeout)
        except OSError as exc:
            if attempt == limits.max_tries:
                if isinstance(exc, TimeoutError):
                    raise TimeoutError(f"no answer to {attempt} requests") from exc
                raise
        else:
            if isinstance(outcome, KissOfDeath) or (isinstance(outcome, Exception) and attempt == limits.max_tries):
                raise outcome
            if isinstance(outcome, SntpTime):
                return outcome
        await asyncio.sleep(pause)
        pause *= 2
    raise AssertionError("the last try has returned or raised")


def _told(sample: SntpSample, server: SockAddr) -> SntpTime:
    reply = sample.reply
    address = address_of(server[1])
    assert address is not None
    return SntpTime(
        sample.offset / 1e9,
        sample.delay / 1e9,
        sample.time,
        address,
        reply.stratum,
        reply.leap,
        reply.reference_text,
        reply.root_delay / 65536,
        reply.root_dispersion / 65536,
        2.0**reply.precision,
        sample.arrived,
    )


def best_of(answers: Sequence[SntpTime]) -> SntpTime:
    """Return the best of several answers: of those that agree, the one with the shortest round trip.

    Each answer stands for an interval: its offset, give or take its root distance. Those count that have a point in
    common with the most others (RFC 5905 section 11.2.1); where two groups are as large, the one that is less unsure.
    """
    # A microsecond more: of offsets of years, floats do not tell less apart.
    edges = sorted({answer.offset + side * answer.root_distance for answer in answers for side in (-1, 1)})
    groups = [[a for a in answers if abs(a.offset - edge) <= a.root_distance + 1e-6] for edge in edges]
    agreed = max(groups, key=lambda group: (len(group), -min(answer.root_distance for answer in group)))
    return min(agreed, key=lambda answer: (answer.delay, answer.stratum))
