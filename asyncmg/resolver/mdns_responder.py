"""The mDNS responder (RFC 6762): probing, announcing, answering, and goodbye. Of one host and its services."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from asyncmg.codecs import dns
from asyncmg.codecs.dns import DnsMessage, DnsQuestion, DnsReader, DnsRecord, RecordType, fold_name, write_message
from asyncmg.errors import ListenFailed, RemoteProtocolError

from .interfaces import Interface
from .mdns_socket import MAX_MESSAGE, Endpoint, MdnsSockets
from .mdns_zone import Key, Zone, identity

T = TypeVar("T")

PROBES: Final = 3
PROBE_INTERVAL: Final = 0.25  # seconds (RFC 6762 section 8.1)
DEFER_INTERVAL: Final = 1.0  # after another host's probe has gone before ours (section 8.2)
MAX_CONFLICTS: Final = 15  # names taken, or probes lost, one after the other; then it is given up
ANNOUNCE_INTERVAL: Final = 1.0
RECORD_INTERVAL: Final = 1.0  # a record is multicast once in so long (section 6)
DEFENCE_INTERVAL: Final = 0.25  # when it answers a probe (section 6)
SHARED_DELAY: Final = (0.02, 0.12)  # for answers that others may have as well (section 6)
MORE_DELAY: Final = (0.4, 0.5)  # for questions whose known answers go on in the next packet (section 7.2)
LEGACY_TTL: Final = 10  # seconds, at most, for who does not keep up with us (section 6.7)
MAX_WAITING: Final = 256  # answers waiting for their time; more questions are passed over

_REPLY = dns.RESPONSE | dns.AUTHORITATIVE


class _Lane:
    """What is to be multicast, and has been, on one socket."""

    __slots__ = ("due", "last", "timer")

    def __init__(self) -> None:
        self.due: dict[Key, tuple[float, DnsRecord]] = {}
        self.last: dict[Key, float] = {}
        self.timer: asyncio.TimerHandle | None = None


class _Asked:
    """A question, with what its sender knows already."""

    __slots__ = ("endpoint", "known", "message", "source", "timer")

    def __init__(self, message: DnsMessage, source: Any, endpoint: Endpoint) -> None:
        self.message = message
        self.source = source
        self.endpoint = endpoint
        self.known: dict[Key, int] = {}
        self.timer: asyncio.TimerHandle | None = None

    def add_known(self, records: Iterable[DnsRecord]) -> None:
        for record in records:
            key = identity(record)
            self.known[key] = max(record.ttl, self.known.get(key, 0))


class Responder:
    """Has names, defends them, and answers for them.

    Args:
        zone: names and services.
        interfaces: where; their names are the zone's scopes.
        port: of the group.
        rename: take other names where these are taken.

    Attributes:
        zone: as it is now, with the names that it got.
        answered: messages sent with answers.
        ignored: datagrams that are malformed, not of this link, or came while too much was waiting.
        is_established: the names are ours.
    """

    def __init__(
        self, zone: Zone, interfaces: Sequence[Interface], port: int, read: DnsReader, *, rename: bool = True
    ) -> None:
        self.zone = zone
        self.answered = 0
        self.ignored = 0
        self.is_established = False
        self._interfaces = interfaces
        self._port = port
        self._read = read
        self._rename = rename
        self._loop = asyncio.get_running_loop()
        self._sockets = MdnsSockets(interfaces, port)
        self._lanes: dict[Endpoint, _Lane] = {}
        self._contested: set[str] = set()
        self._has_lost = False  # another host's probe goes before ours
        self._disturbed = asyncio.Event()
        self._held: dict[tuple[Any, Endpoint], _Asked] = {}  # their known answers go on
        self._replies: set[asyncio.TimerHandle] = set()

    # -- names ------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the sockets.

        Raises:
            ListenFailed: there is none to be had.
        """
        self._sockets = await MdnsSockets.open(self._interfaces, self._port, self._receive, shared=True)

    async def claim(self) -> None:
        """Probe the names, and take others where they are taken (RFC 6762 sections 8.1, 8.2 and 9); announce them.

        Raises:
            ListenFailed: they are taken and may not be others, or fifteen others are taken too.
        """
        before, self.is_established = self.zone if self.is_established else None, False
        conflicts = 0
        while not await self._probe():
            conflicts += 1
            taken = ", ".join(sorted(self._contested)) or self.zone.host
            if conflicts > MAX_CONFLICTS or (self._contested and not self._rename):
                raise ListenFailed(errno.EADDRINUSE, f"another host has the name {taken}")
            if self._contested:
                self.zone = self.zone.renamed(self._contested)
        self._contested.clear()
        self.is_established = True
        if before is not None and before is not self.zone:
            self._take_back(before)
        self._announce()

    async def keep(self) -> None:
        """Announce the names once more, and claim them again whenever somebody else uses one, until cancelled.

        Raises:
            ListenFailed: as :meth:`claim`.
        """
        while True:
            try:
                async with asyncio.timeout(ANNOUNCE_INTERVAL):
                    await self._disturbed.wait()
            except TimeoutError:
                self._announce()
                await self._disturbed.wait()
            await self.claim()

    async def _probe(self) -> bool:
        """Ask three times whether somebody has our names; whether nobody has."""
        self._contested.clear()
        self._has_lost = False
        self._disturbed.clear()
        if await self._is_disturbed(random.uniform(0, PROBE_INTERVAL)):
            return False
        for _ in range(PROBES):
            self._send_probe()
            if await self._is_disturbed(PROBE_INTERVAL):
                break
        else:
            return True
        if self._has_lost and not self._contested:
            # The other host gets the name meanwhile, and will say so when we ask again.
            self._disturbed.clear()
            await self._is_disturbed(DEFER_INTERVAL)
        return False

    async def _is_disturbed(self, timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                await self._disturbed.wait()
        except TimeoutError:
            return False
        return True

    def _send_probe(self) -> None:
        # Not for an answer by unicast (section 8.1): whoever else has this port on our machine might get it (section
        # 15.1).
        for endpoint in self._sockets.endpoints:
            scope = endpoint.interface.name

            def make(names: Sequence[str], scope: str = scope) -> DnsMessage:
                claims = [record for name in names for record in self.zone.claims(scope, name)]
                return DnsMessage(0, 0, [DnsQuestion(name, RecordType.ANY) for name in names], authorities=claims)

            for data in _written(sorted(self.zone.contested), make):
                endpoint.send(data)

    def _announce(self) -> None:
        for endpoint in self._sockets.endpoints:
            self._send_records(endpoint, self.zone.records(endpoint.interface.name))

    def _take_back(self, before: Zone) -> None:
        """Say goodbye for what only the zone before had and is shared: nobody else's announcement replaces it."""
        for endpoint in self._sockets.endpoints:
            scope = endpoint.interface.name
            kept = {identity(record) for record in self.zone.records(scope)}
            gone = [r for r in before.records(scope) if not r.class_ & dns.TOP_BIT and identity(r) not in kept]
            self._send_goodbye(endpoint, gone)

    def _send_goodbye(self, endpoint: Endpoint, records: Sequence[DnsRecord]) -> None:
        for data in _written([record._replace(ttl=0) for record in records], _reply):
            endpoint.send(data)

    async def close(self, *, goodbye: bool = True) -> None:
        """Say goodbye (section 10.1), and close the sockets. Cancelling is safe: they close all the same."""
        if goodbye and self.is_established:
            for endpoint in self._sockets.endpoints:
                self._send_goodbye(endpoint, self.zone.records(endpoint.interface.name))
        self.is_established = False
        for lane in self._lanes.values():
            if lane.timer is not None:
                lane.timer.cancel()
        for asked in self._held.values():
            if asked.timer is not None:
                asked.timer.cancel()
        for timer in self._replies:
            timer.cancel()
        self._lanes.clear()
        self._held.clear()
        self._replies.clear()
        await self._sockets.close()

    # -- what comes in ----------------------------------------------------------------------------------------------

    def _receive(self, data: bytes, source: Any, endpoint: Endpoint) -> None:
        if not self._sockets.is_near(source):
            self.ignored += 1
            return
        try:
            message = self._read(data)
        except RemoteProtocolError:
            self.ignored += 1
            return
        if message.flags & (dns.OPCODE | dns.RCODE):  # sections 18.3 and 18.11
            self.ignored += 1
        elif not message.is_response:
            self._take_query(message, source, endpoint)
        elif source[1] == self._port:  # section 6
            self._take_response(message)
        else:
            self.ignored += 1

    def _take_response(self, message: DnsMessage) -> None:
        for record in (*message.answers, *message.additionals):
            if record.ttl and self.zone.conflicts(record, any_type=not self.is_established):
                self._contested.add(fold_name(record.name))
                self._disturbed.set()

    def _take_query(self, message: DnsMessage, source: Any, endpoint: Endpoint) -> None:
        if not self.is_established:
            self._compare(message, endpoint)
            return
        held = self._held.get((source, endpoint))
        if held is not None:
            held.add_known(message.answers)
            if message.questions:
                questions = [*held.message.questions, *message.questions]
                held.message = held.message._replace(questions=questions[: dns.MAX_RECORDS])
            return
        if not message.questions:
            return
        asked = _Asked(message, source, endpoint)
        asked.add_known(message.answers)
        if not message.is_truncated or source[1] != self._port:
            self._answer(asked)
        elif len(self._held) < MAX_WAITING:
            self._held[source, endpoint] = asked
            asked.timer = self._loop.call_later(random.uniform(*MORE_DELAY), self._answer_held, asked)
        else:
            self.ignored += 1

    def _compare(self, message: DnsMessage, endpoint: Endpoint) -> None:
        """Another host may probe for the same name at the same time (section 8.2)."""
        theirs: dict[str, list[DnsRecord]] = {}
        for record in message.authorities:
            name = fold_name(record.name)
            if name in self.zone.contested:
                theirs.setdefault(name, []).append(record)
        for name, records in theirs.items():
            if self.zone.loses(records, name, endpoint.interface.name):
                self._has_lost = True
                self._disturbed.set()

    # -- answers ----------------------------------------------------------------------------------------------------

    def _answer_held(self, asked: _Asked) -> None:
        self._held.pop((asked.source, asked.endpoint), None)
        if self.is_established:
            self._answer(asked)

    def _answer(self, asked: _Asked) -> None:
        message, endpoint = asked.message, asked.endpoint
        scope = endpoint.interface.name
        direct: dict[Key, DnsRecord] = {}
        shared: dict[Key, DnsRecord] = {}  # with everybody: multicast
        for question in message.questions:
            for record in self.zone.answers(question, scope):
                key = identity(record)
                if asked.known.get(key, -1) * 2 < record.ttl:  # section 7.1
                    wants_direct = bool(question.class_ & dns.TOP_BIT) and self._is_recent(endpoint, key, record)
                    (direct if wants_direct else shared)[key] = record
        delay = 0.0
        if not message.authorities and any(not r.class_ & dns.TOP_BIT for r in (*direct.values(), *shared.values())):
            delay = random.uniform(*SHARED_DELAY)
        if asked.source[1] != self._port:
            self._reply_later(delay, self._reply_to_legacy, asked, [*direct.values(), *shared.values()])
            return
        if self._sockets.is_own(asked.source):
            # It shares the port with us, and the answer might come to ourselves (section 15.1).
            shared, direct = {**direct, **shared}, {}
        for key in shared:
            direct.pop(key, None)
        if direct:
            self._reply_later(delay, self._reply_directly, asked, list(direct.values()))
        if shared:
            interval = DEFENCE_INTERVAL if message.authorities else RECORD_INTERVAL
            self._multicast_later(endpoint, shared, delay, interval)

    def _is_recent(self, endpoint: Endpoint, key: Key, record: DnsRecord) -> bool:
        """Whether a record was multicast in the last quarter of its TTL; otherwise it is time again (section 5.4)."""
        lane = self._lanes.get(endpoint)
        last = lane.last.get(key) if lane is not None else None
        return last is not None and self._loop.time() - last < record.ttl / 4

    def _reply_later(
        self, delay: float, reply: Callable[[_Asked, list[DnsRecord]], None], asked: _Asked, records: list[DnsRecord]
    ) -> None:
        if not records:
            return
        if not delay:
            reply(asked, records)
            return
        if len(self._replies) >= MAX_WAITING:
            self.ignored += 1
            return

        def fire() -> None:
            self._replies.discard(timer)
            if self.is_established:
                reply(asked, records)

        timer = self._loop.call_later(delay, fire)
        self._replies.add(timer)

    def _reply_directly(self, asked: _Asked, records: list[DnsRecord]) -> None:
        more = self.zone.additionals(records, asked.endpoint.interface.name)
        for data in _with_more(records, more) or _written(records, _reply):
            self.answered += asked.endpoint.send(data, asked.source)

    def _reply_to_legacy(self, asked: _Asked, records: list[DnsRecord]) -> None:
        """Answer who does not know mDNS, as a name server does (section 6.7)."""
        questions = asked.message.questions
        answers = [_for_legacy(record) for record in records]
        more = [_for_legacy(record) for record in self.zone.additionals(records, asked.endpoint.interface.name)]
        flags = _REPLY
        data = write_message(DnsMessage(asked.message.id, flags, questions, answers, additionals=more))
        while len(data) > MAX_MESSAGE and (more or answers):
            if more:
                more = []
            else:
                answers, flags = answers[: len(answers) // 2], flags | dns.TRUNCATED
            data = write_message(DnsMessage(asked.message.id, flags, questions, answers))
        self.answered += asked.endpoint.send(data, asked.source)

    def _multicast_later(
        self, endpoint: Endpoint, records: dict[Key, DnsRecord], delay: float, interval: float
    ) -> None:
        lane = self._lanes.setdefault(endpoint, _Lane())
        now = self._loop.time()
        for key, record in records.items():
            due = max(now + delay, lane.last.get(key, float("-inf")) + interval)
            lane.due[key] = (min(due, lane.due[key][0]) if key in lane.due else due, record)
        self._set_timer(endpoint, lane)

    def _set_timer(self, endpoint: Endpoint, lane: _Lane) -> None:
        if lane.timer is not None:
            lane.timer.cancel()
            lane.timer = None
        if lane.due:
            first = min(due for due, _ in lane.due.values())
            lane.timer = self._loop.call_at(first, self._send_due, endpoint, lane)

    def _send_due(self, endpoint: Endpoint, lane: _Lane) -> None:
        lane.timer = None
        if not self.is_established:
            lane.due.clear()
            return
        # A timer may fire a clock tick early; what is due that soon goes with it.
        now = self._loop.time() + 0.001
        records = [record for due, record in lane.due.values() if due <= now]
        for record in records:
            del lane.due[identity(record)]
        if records:
            more = [
                record
                for record in self.zone.additionals(records, endpoint.interface.name)
                if now - lane.last.get(identity(record), float("-inf")) >= RECORD_INTERVAL
            ]
            self._send_records(endpoint, records, more)
        self._set_timer(endpoint, lane)

    def _send_records(self, endpoint: Endpoint, records: Sequence[DnsRecord], more: Sequence[DnsRecord] = ()) -> None:
        messages = _with_more(records, more) if more else []
        lane = self._lanes.setdefault(endpoint, _Lane())
        now = self._loop.time()
        for record in (*records, *more) if messages else records:
            lane.last[identity(record)] = now
        for data in messages or _written(records, _reply):
            self.answered += endpoint.send(data)


def _with_more(records: Sequence[DnsRecord], more: Sequence[DnsRecord]) -> list[bytes]:
    """Write one message with answers and additional records; [] when it does not fit into a packet."""
    data = write_message(DnsMessage(0, _REPLY, answers=records, additionals=more))
    return [data] if len(data) <= MAX_MESSAGE else []


def _reply(answers: Sequence[DnsRecord]) -> DnsMessage:
    return DnsMessage(0, _REPLY, answers=answers)


def _written(items: Sequence[T], make: Callable[[Sequence[T]], DnsMessage]) -> list[bytes]:
    """Write messages with all items: one, or as many as it takes so that each fits into a packet (section 17)."""
    if not items:
        return []
    data = write_message(make(items))
    if len(data) <= MAX_MESSAGE or len(items) == 1:
        return [data]
    half = len(items) // 2
    return _written(items[:half], make) + _written(items[half:], make)


def _for_legacy(record: DnsRecord) -> DnsRecord:
    return record._replace(ttl=min(record.ttl, LEGACY_TTL), class_=record.class_ & ~dns.TOP_BIT)
