"""Multicast DNS (RFC 6762): one-shot questions (section 5.1), for names of ``.local`` and for services (RFC 6763)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final

from asyncmg.codecs import dns
from asyncmg.codecs.dns import DnsMessage, DnsQuestion, DnsReader, DnsRecord, RecordType, same_name, write_message
from asyncmg.errors import LocalProtocolError, RemoteProtocolError, ResolveFailed
from asyncmg.limits import DnsLimits

from .answer import Found
from .interfaces import chosen_interfaces
from .mdns_socket import PORT, Endpoint, MdnsSockets
from .mdns_zone import Key, denies, identity

FIRST_INTERVAL: Final = 1.0  # seconds until the question is asked again; twice as long before each further time
MAX_RECORDS: Final = 2000  # kept of one question's answers; more are passed over
_MAX_QUESTIONS: Final = 30  # of one message


class Ears:
    """What responders have said since we asked.

    Attributes:
        records: all believed, classes without the cache-flush bit, link-local IPv6 addresses with their zone.
        heard: set by each message that is believed.
        ignored: datagrams that were not.
    """

    def __init__(self, read: DnsReader, number: int) -> None:
        self.records: dict[Key, DnsRecord] = {}
        self.heard = asyncio.Event()
        self.ignored = 0
        self.sockets: MdnsSockets | None = None
        self._read = read
        self._number = number

    def receive(self, data: bytes, source: Any, endpoint: Endpoint) -> None:
        """Take one datagram. What is not a response from a responder on the link is passed over in silence."""
        message = self._believed(data, source)
        if message is None:
            self.ignored += 1
            return
        for record in (*message.answers, *message.additionals):
            if record.class_ & ~dns.TOP_BIT == dns.IN:
                self._keep(_with_zone(record._replace(class_=dns.IN), endpoint.interface.name))
        self.heard.set()

    def _believed(self, data: bytes, source: Any) -> DnsMessage | None:
        assert self.sockets is not None
        if source[1] != self.sockets.port or not self.sockets.is_near(source):  # sections 6 and 11
            return None
        try:
            message = self._read(data)
        except RemoteProtocolError:
            return None
        # A responder gives the number back to who asks from another port than its own (section 6.7).
        is_ours = message.is_response and message.id == self._number
        return message if is_ours and not message.flags & (dns.OPCODE | dns.RCODE) else None

    def _keep(self, record: DnsRecord) -> None:
        key = identity(record)
        if record.ttl == 0:  # it says goodbye (section 10.1)
            self.records.pop(key, None)
        elif key in self.records or len(self.records) < MAX_RECORDS:
            self.records[key] = record

    def of(self, name: str, kind: int) -> list[DnsRecord]:
        """Return the records of a name and a type."""
        return [record for record in self.records.values() if record.type == kind and same_name(record.name, name)]

    def denial(self, name: str, kind: int) -> DnsRecord | None:
        """Return the record that says that a name has nothing of a type."""
        return next((record for record in self.of(name, RecordType.NSEC) if denies(record, kind)), None)


async def ask(
    step: Callable[[Ears], Sequence[DnsQuestion] | None],
    read: DnsReader,
    *,
    timeout: float,
    interface: str = "",
    port: int = PORT,
) -> Ears:
    """Ask by multicast, until it is enough or the time is over.

    The questions leave at once, after a second, after two more, and so on; new ones leave when they come up. Cancelling
    is safe.

    Args:
        step: called at the beginning and after each message: what is still to be asked; None: it is enough.
        timeout: seconds.
        interface: as of :func:`chosen_interfaces`.
        port: of the group.

    Raises:
        ValueError: no such interface.
        ListenFailed: there is no socket to be had.
        OSError: no question could be sent.
    """
    number = secrets.randbits(16)
    ears = Ears(read, number)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    async with await MdnsSockets.open(chosen_interfaces(interface), port, ears.receive, shared=False) as sockets:
        ears.sockets = sockets
        asked: set[DnsQuestion] = set()
        interval, again = FIRST_INTERVAL, loop.time()
        while (questions := step(ears)) is not None:
            now = loop.time()
            if now >= deadline:
                break
            if now >= again:
                asked.clear()
                again = now + interval
                interval *= 2
            fresh = [question for question in questions if question not in asked]
            if fresh:
                asked.update(fresh)
                _send(sockets, number, fresh)
            ears.heard.clear()
            try:
                async with asyncio.timeout_at(min(deadline, again)):
                    await ears.heard.wait()
            except TimeoutError:
                continue
    return ears


def _send(sockets: MdnsSockets, number: int, questions: Sequence[DnsQuestion]) -> None:
    # No known answers (section 7.1): those who ask like this get TTLs too short to count as known.
    for start in range(0, len(questions), _MAX_QUESTIONS):
        data = write_message(DnsMessage(number, 0, questions[start : start + _MAX_QUESTIONS]))
        if not sockets.send(data):
            failure = next(endpoint.failed for endpoint in sockets.endpoints if endpoint.failed is not None)
            raise failure


async def query_mdns(
    name: str, kind: int, limits: DnsLimits, read: DnsReader, *, interface: str = "", port: int = PORT
) -> Found:
    """Look up one name of ``.local``, aliases followed. The first responder that has records of the type counts.

    Cancelling is safe.

    Args:
        limits: ``mdns_timeout`` and ``max_cnames``.
        interface: name or address of the network interface to ask on; "": all that can multicast.
        port: of the group.

    Returns:
        What was found; after ``mdns_timeout`` without an answer: that there is no such name.

    Raises:
        ResolveFailed: there is no way to ask, or the answer is no use.
        LocalProtocolError: ``name`` is no domain name.
    """
    found: list[Found] = []

    def step(ears: Ears) -> Sequence[DnsQuestion] | None:
        message = DnsMessage(0, dns.RESPONSE, answers=list(ears.records.values()))
        current = Found(message, name, kind, limits.max_cnames)
        found[:] = [current]
        if current.records:
            current.records.sort(key=_is_link_local)  # whom everybody can reach comes first
            return None
        denial = ears.denial(current.name, kind)
        if denial is not None:
            current.negative_ttl = float(denial.ttl)
            return None
        return [DnsQuestion(current.name, kind)]

    try:
        await ask(step, read, timeout=limits.mdns_timeout, interface=interface, port=port)
    except LocalProtocolError:
        raise
    except (OSError, ValueError, RemoteProtocolError) as exc:
        raise ResolveFailed(f"cannot resolve {name}: {exc}", name=name) from exc
    answer = found[0]
    if not answer.records and answer.negative_ttl < 0 and not answer.aliases:
        answer.rcode = dns.NAME_ERROR  # nobody has said so: mDNS has no other way
    return answer


def _with_zone(record: DnsRecord, zone: str) -> DnsRecord:
    """Put the zone behind a link-local IPv6 address: without it nobody can connect there (RFC 4007 section 11)."""
    if _is_link_local(record) and isinstance(record.data, str) and zone:
        return record._replace(data=f"{record.data}%{zone}")
    return record


def _is_link_local(record: DnsRecord) -> bool:
    return record.type == RecordType.AAAA and str(record.data).startswith(("fe8", "fe9", "fea", "feb"))
