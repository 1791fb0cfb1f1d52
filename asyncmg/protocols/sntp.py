"""SNTP over UDP (RFC 4330): a client's requests as events, and a server."""

from __future__ import annotations

import asyncio
import operator
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from asyncmg.codecs import sntp
from asyncmg.codecs.choice import sntp_codec
from asyncmg.codecs.sntp import SntpPacket, from_timestamp, offset_and_delay, to_timestamp, write_packet
from asyncmg.dispatch import EventSink
from asyncmg.errors import ConnectFailed, DeadlineExceeded, RemoteProtocolError
from asyncmg.events import MG_EV_READ, MG_EV_SNTP_TIME, MG_EV_WRITE

from .datagram import DatagramProtocol

_RATE_INTERVAL: Final = 1.0  # seconds between two kiss-o'-death packets to one address


class SntpSample:
    """A request on its way, and what its reply says of the clock.

    Attributes:
        reply: a valid one.
        offset, delay: nanoseconds; how far our clock is behind the server's, and the round trip.
        time: nanoseconds since 1970, of the server's clock when the reply arrived.
        arrived: when that was, in nanoseconds of ``time.monotonic_ns()``.
    """

    __slots__ = ("_begun", "_sent", "_transmitted", "_version", "arrived", "delay", "offset", "reply", "time")

    def __init__(self, version: int = sntp.VERSION) -> None:
        # Random, not our time: nobody off the path can guess it, and it tells nothing of us.
        self._transmitted = secrets.randbits(64) | 1
        self._version = version
        self._sent = 0
        self._begun = 0
        self.reply = SntpPacket()
        self.offset = self.delay = self.time = self.arrived = 0

    def request(self) -> bytes:
        """Return the request; to be called when it leaves."""
        packet = write_packet(SntpPacket(version=self._version, transmit=self._transmitted))
        self._sent, self._begun = time.time_ns(), time.monotonic_ns()
        return packet

    def take(self, reply: SntpPacket) -> bool:
        """Take a packet; to be called when it has come. False: it is no reply to the request, nothing is known of it.

        Raises:
            KissOfDeath, RemoteProtocolError: the server's reply to this request says that it cannot tell the time.
        """
        # The clock may be set meanwhile, by whoever asked for the time: that is not part of the round trip.
        self.arrived = time.monotonic_ns()
        arrived = self._sent + self.arrived - self._begun
        if sntp.reply_fault(reply, self._transmitted, self._version) in _NOT_OURS:
            return False
        sntp.check_reply(reply, self._transmitted, self._version)
        received, replied = from_timestamp(reply.receive, arrived), from_timestamp(reply.transmit, arrived)
        self.reply = reply
        self.offset, self.delay = offset_and_delay(self._sent, received, replied, arrived)
        self.delay = max(self.delay, 0)
        self.time = arrived + self.offset
        return True


_NOT_OURS = (sntp.NOT_A_REPLY, sntp.WRONG_VERSION, sntp.WRONG_ORIGIN)  # spoofed, late, or another's


class SntpClientProtocol(DatagramProtocol):
    """Asks when it is connected, again when nothing comes, and closes behind MG_EV_SNTP_TIME."""

    def __init__(self, sink: EventSink, **kwargs: Any) -> None:
        super().__init__(sink, **kwargs)
        self._read_packet = sntp_codec()
        self._sample: SntpSample | None = None  # of the request under way
        self._tries = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self.is_closing:
            self.request()

    def request(self) -> None:
        """Ask for the time, unless that is under way already, or will be when there is a connection."""
        if self._sample is None and self.transport is not None:
            self._tries = 0
            self._ask()

    def _ask(self) -> None:
        if self.is_closing:
            return
        limits = self.limits.sntp
        self._tries += 1
        self._sample = SntpSample()
        self._timer = self.loop.call_later(limits.try_timeout, self._handle_silence)
        self.send(self._sample.request())

    def _handle_silence(self) -> None:
        limits = self.limits.sntp
        if self._tries >= limits.max_tries:
            error = DeadlineExceeded(f"no answer to {self._tries} requests for the time", limit="max_tries")
            self.fail(error)
            return
        pause = limits.retry_interval * 2 ** (self._tries - 1)
        self._timer = self.loop.call_later(pause, self._ask)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        sample = self._sample
        if sample is None or self.is_closing:
            return
        try:
            packet = self._read_packet(data)
        except RemoteProtocolError:
            return  # no SNTP: not worth more than silence
        try:
            if not sample.take(packet):
                return
        except RemoteProtocolError as exc:
            self.fail(exc)
            return
        self._settle()
        self.sink.handle_event(MG_EV_SNTP_TIME, sample.time // 1_000_000)
        self.sink.handle_event(MG_EV_READ, len(data))
        self.sink.when_handled(self._close_when_done)

    def _settle(self) -> None:
        self._sample = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_when_done(self) -> None:
        if self._sample is None:
            self.close()

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there (ICMP): that may pass, so the next try is not called off."""
        if self._tries >= self.limits.sntp.max_tries:
            failure = ConnectFailed(f"no SNTP server: {exc}")
            failure.__cause__ = exc
            self.fail(failure)

    def close(self) -> None:
        self._settle()
        super().close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._settle()
        super().connection_lost(exc)


@dataclass(frozen=True, slots=True)
class SntpSource:
    """Which time a server tells, and what it says of it.

    Attributes:
        now: nanoseconds since 1970, UTC, as an int. A request is not answered when it raises; that is reported.
        stratum: 1 for a reference clock, 2 to 15 behind another server; the default is far away from any real one.
        reference_id: four bytes: ASCII for stratum 1 (``b"GPS"``), otherwise the address of the server's server.
        leap: 0 none, 1 the last minute of the day has 61 seconds, 2 it has 59, 3 the clock is not synchronized.
        root_delay, root_dispersion: seconds to the reference clock, and how far the time may be wrong.
        precision: of the clock, as an exponent of two in seconds.
    """

    now: Callable[[], int] = time.time_ns
    stratum: int = 10
    reference_id: bytes = b"\x7f\x7f\x01\x01"
    leap: int = 0
    root_delay: float = 0.0
    root_dispersion: float = 0.01
    precision: int = -20

    def __post_init__(self) -> None:
        if not 1 <= self.stratum <= sntp.MAX_STRATUM or not 0 <= self.leap <= 3:
            raise ValueError(f"stratum is 1 to {sntp.MAX_STRATUM} and leap 0 to 3")
        if len(self.reference_id) > 4 or not -128 <= self.precision <= 0:
            raise ValueError("reference_id has at most four bytes, precision is -128 to 0")
        if not 0 <= self.root_delay < 1 << 15 or not 0 <= self.root_dispersion < 1 << 16:
            raise ValueError("root_delay and root_dispersion are seconds, 0 or more and not days")


class SntpServerProtocol(DatagramProtocol):
    """Answers clients' requests; anything else, and who asks too often, gets nothing.

    Attributes:
        answered, refused: numbers of requests, since the beginning; refused: for their rate.
    """

    def __init__(self, sink: EventSink, *, source: SntpSource | None = None, **kwargs: Any) -> None:
        super().__init__(sink, **kwargs)
        self.source = source if source is not None else SntpSource()
        self.answered = self.refused = 0
        self._is_telling = False
        self._read_packet = sntp_codec()
        self._rates = _Rates(self.limits.sntp.max_rate, self.limits.sntp.max_clients)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        received = self._now()
        if self.is_closing or self.transport is None:
            return
        try:
            request = self._read_packet(data)
        except RemoteProtocolError:
            self.dropped += 1
            return
        if received is None:
            self.dropped += 1
            return
        # Never a reply to a reply: two servers, or one that is told to answer itself, would not find an end.
        if request.mode != sntp.CLIENT or addr[1] == 0:
            self.dropped += 1
            return
        verdict = self._rates.ask(addr[0], self.loop.time())
        if verdict is not _Verdict.ANSWER:
            self.refused += 1
            if verdict is _Verdict.REFUSE:
                self.transport.sendto(write_packet(self._kiss(request)), addr)
            return
        self.peer = addr
        reply = write_packet(self._reply(request, received))
        self.transport.sendto(reply, addr)
        self.answered += 1
        # Answers do not wait for the handler, so its events must not pile up while it is busy, or where there is none.
        if not self._is_telling:
            self._is_telling = True
            self.sink.handle_event(MG_EV_READ, len(data))
            self.sink.handle_event(MG_EV_WRITE, len(reply))
            self.sink.when_handled(self._handle_told)

    def _handle_told(self) -> None:
        self._is_telling = False

    def _reply(self, request: SntpPacket, received: int) -> SntpPacket:
        source = self.source
        return SntpPacket(
            source.leap,
            request.version,
            sntp.SERVER,
            source.stratum,
            request.poll,
            source.precision,
            round(source.root_delay * 65536),
            round(source.root_dispersion * 65536),
            source.reference_id.ljust(4, b"\x00"),
            to_timestamp(received),
            request.transmit,
            to_timestamp(received),
            to_timestamp(max(self._now() or received, received)),
        )

    def _now(self) -> int | None:
        """The time to be told; None: the source does not know it, which is reported. Clients hear nothing then."""
        try:
            return operator.index(self.source.now())
        except Exception as exc:
            self.sink.spawn(_raise(exc), "asyncmg-sntp-source")
            return None

    def _kiss(self, request: SntpPacket) -> SntpPacket:
        """Ask a client to slow down (RFC 5905 section 7.4); its own timestamp shows that this is for it."""
        return SntpPacket(
            sntp.UNSYNCHRONIZED, request.version, sntp.SERVER, reference_id=b"RATE", originate=request.transmit
        )


async def _raise(error: Exception) -> None:
    raise error


class _Verdict(Enum):
    """What a request gets."""

    ANSWER = "an answer"
    REFUSE = "kiss-o'-death"
    IGNORE = "silence"


class _Rates:
    """How often each address has asked lately: a token bucket each, two seconds' worth deep."""

    __slots__ = ("_clients", "_max_clients", "_rate")

    def __init__(self, rate: float, max_clients: int) -> None:
        self._rate = rate
        self._max_clients = max_clients
        self._clients: OrderedDict[str, list[float]] = OrderedDict()  # tokens, when counted, when last refused

    def ask(self, address: str, now: float) -> _Verdict:
        depth = max(2 * self._rate, 1.0)
        client = self._clients.get(address)
        if client is None:
            client = self._clients[address] = [depth, now, -_RATE_INTERVAL]
            if len(self._clients) > self._max_clients:
                self._clients.popitem(last=False)
        else:
            self._clients.move_to_end(address)
        tokens = min(depth, client[0] + (now - client[1]) * self._rate)
        client[1] = now
        client[0] = tokens - 1 if tokens >= 1 else tokens
        if tokens >= 1:
            return _Verdict.ANSWER
        if now - client[2] < _RATE_INTERVAL:
            return _Verdict.IGNORE
        client[2] = now
        return _Verdict.REFUSE
