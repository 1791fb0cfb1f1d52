"""The records that an mDNS responder has, and which of them answer a question (RFC 6762 section 6, RFC 6763)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from asyncmg.codecs import dns
from asyncmg.codecs.dns import (
    DnsMessage,
    DnsQuestion,
    DnsRecord,
    RecordData,
    RecordType,
    SrvData,
    TxtData,
    fold_name,
    show_label,
    split_name,
    write_message,
)

from .answer import reverse_name

HOST_TTL: Final = 120  # seconds, of records that hang on the host's name or address (RFC 6762 section 10)
OTHER_TTL: Final = 4500
TYPES_NAME: Final = "_services._dns-sd._udp.local"  # RFC 6763 section 9
ANY_CLASS: Final = 255

_UNIQUE: Final = dns.IN | dns.TOP_BIT  # whoever has older ones drops them (RFC 6762 section 10.2)
_NAMES: Final = frozenset((RecordType.PTR, RecordType.CNAME, RecordType.NS))
_NUMBERED = re.compile(rb"(?P<stem>.*)-(?P<number>[0-9]{1,6})", re.DOTALL)

Key = tuple[str, int, RecordData]


class Offer(NamedTuple):
    """A service of this host.

    Attributes:
        type: such as ``_http._tcp``.
        label: the instance's, as bytes; dots in it are no separators.
        txt: not empty: without attributes it is one empty string (RFC 6763 section 6.1), and so it comes back.
    """

    type: str
    label: bytes
    port: int
    txt: TxtData
    priority: int = 0
    weight: int = 0

    @property
    def type_name(self) -> str:
        return f"{self.type}.local"

    @property
    def name(self) -> str:
        return f"{show_label(self.label)}.{self.type_name}"


def identity(record: DnsRecord) -> Key:
    """Return what makes a record the same as another one: all but its TTL, its class, and the case of names."""
    data = record.data
    if isinstance(data, SrvData):
        data = data._replace(target=fold_name(data.target))
    elif isinstance(data, str) and record.type in _NAMES:
        data = fold_name(data)
    return fold_name(record.name), record.type, data


def data_bytes(record: DnsRecord) -> bytes:
    """Return a record's data as on the wire, without compression: what probes are compared by (section 8.2.1)."""
    plain = DnsRecord("", record.type, record.data, 0, dns.IN)
    return write_message(DnsMessage(0, 0, answers=[plain]))[dns.HEADER.size + 11 :]


def negative(name: str, types: Iterable[int]) -> DnsRecord:
    """Make the NSEC record that says: the name has these types and no others (section 6.1)."""
    bitmap = bytearray(32)
    for kind in types:
        if kind < 256:
            bitmap[kind >> 3] |= 0x80 >> (kind & 7)
    short = bytes(bitmap).rstrip(b"\0")
    wire = b"".join(bytes((len(label),)) + label for label in split_name(name)) + b"\0"
    return DnsRecord(name, RecordType.NSEC, wire + bytes((0, len(short))) + short, HOST_TTL, _UNIQUE)


def denies(record: DnsRecord, kind: int) -> bool:
    """Whether an NSEC record says that its name has nothing of a type. One that is not understood says nothing."""
    data = record.data
    if record.type != RecordType.NSEC or not isinstance(data, bytes):
        return False
    at = 0
    while at < len(data) and 0 < data[at] < 0xC0:
        at += 1 + data[at]
    at += 2 if at < len(data) and data[at] else 1  # a pointer to the name, or its end
    block = data[at:]
    # Only types below 256 can be told about here (RFC 6762 section 6.1).
    if len(block) < 3 or block[0] != 0 or len(block) != 2 + block[1] or kind > 255:
        return False
    byte = block[2 + (kind >> 3)] if kind >> 3 < block[1] else 0
    return not byte & (0x80 >> (kind & 7))


class Zone:
    """The names and services of one host. It does not change: another name makes another zone.

    Args:
        label: of the host's name, without ``.local``.
        addresses: by scope, which is the name of an interface: what is told there.
        offers: services.
    """

    def __init__(self, label: bytes, addresses: Mapping[str, Sequence[str]], offers: Sequence[Offer]) -> None:
        self.label = label
        self.addresses = {scope: tuple(told) for scope, told in addresses.items()}
        self.offers = tuple(offers)
        self.host = f"{show_label(label)}.local"
        # Those that somebody else may want too: they are probed, and defended.
        self.contested = {fold_name(self.host), *(fold_name(offer.name) for offer in offers)}
        self._by_name: dict[str, dict[str, list[DnsRecord]]] = {}
        self._keys: set[Key] = set()
        for scope in self.addresses:
            names = self._by_name[scope] = {}
            for record in self._make(scope):
                names.setdefault(fold_name(record.name), []).append(record)
                self._keys.add(identity(record))

    def _make(self, scope: str) -> Iterator[DnsRecord]:
        for address in self.addresses[scope]:
            kind = RecordType.AAAA if ":" in address else RecordType.A
            yield DnsRecord(self.host, kind, address, HOST_TTL, _UNIQUE)
            yield DnsRecord(reverse_name(address), RecordType.PTR, self.host, HOST_TTL, _UNIQUE)
        for offer in self.offers:
            service = SrvData(offer.priority, offer.weight, offer.port, self.host)
            yield DnsRecord(offer.name, RecordType.SRV, service, HOST_TTL, _UNIQUE)
            yield DnsRecord(offer.name, RecordType.TXT, offer.txt, OTHER_TTL, _UNIQUE)
            yield DnsRecord(offer.type_name, RecordType.PTR, offer.name, OTHER_TTL)
        for name in dict.fromkeys(offer.type_name for offer in self.offers):
            yield DnsRecord(TYPES_NAME, RecordType.PTR, name, OTHER_TTL)

    def records(self, scope: str) -> list[DnsRecord]:
        """Return all records, those that are told on an interface."""
        return [record for records in self._by_name[scope].values() for record in records]

    def claims(self, scope: str, name: str) -> list[DnsRecord]:
        """Return the records of a name, as a probe shows them: without the cache-flush bit (section 10.2)."""
        return [record._replace(class_=dns.IN) for record in self._by_name[scope].get(fold_name(name), ())]

    def answers(self, question: DnsQuestion, scope: str) -> list[DnsRecord]:
        """Return the records that answer a question; an NSEC record where a name of ours has nothing of the type."""
        records = self._by_name[scope].get(fold_name(question.name))
        if not records or question.class_ & ~dns.TOP_BIT not in (dns.IN, ANY_CLASS):
            return []
        if question.type == RecordType.ANY:
            return list(records)
        found = [record for record in records if record.type == question.type]
        return found or self._negative(records)

    @staticmethod
    def _negative(records: Sequence[DnsRecord]) -> list[DnsRecord]:
        # Of a shared name somebody else may have more.
        first = records[0]
        return [negative(first.name, {r.type for r in records})] if first.class_ & dns.TOP_BIT else []

    def additionals(self, answers: Sequence[DnsRecord], scope: str) -> list[DnsRecord]:
        """Return what who gets these answers will ask next (RFC 6763 section 12)."""
        found: dict[Key, DnsRecord] = {}
        waiting = list(answers)
        seen = {identity(record) for record in answers}
        while waiting:
            record = waiting.pop(0)
            for name, kinds in _next(record):
                for kind in kinds:
                    for more in self.answers(DnsQuestion(name, kind), scope):
                        key = identity(more)
                        if key not in seen:
                            seen.add(key)
                            found[key] = more
                            waiting.append(more)
        return list(found.values())

    def conflicts(self, record: DnsRecord, *, any_type: bool) -> bool:
        """Whether somebody else's record contradicts ours (section 9); any_type: its name is enough (section 8.1)."""
        key = identity(record)
        if key[0] not in self.contested or key in self._keys or record.type == RecordType.NSEC:
            return False
        return any_type or any(key[:2] == own[:2] for own in self._keys)

    def loses(self, theirs: Sequence[DnsRecord], name: str, scope: str) -> bool:
        """Whether another host's probe for a name goes before ours (section 8.2)."""
        if all(identity(record) in self._keys for record in theirs):
            return False  # it is our own, perhaps from another interface
        return _ranks(theirs) > _ranks(self.claims(scope, name))

    def renamed(self, names: Iterable[str]) -> Zone:
        """Return the zone with other names for those given: ``name-2``, then ``name-3``."""
        lost = {fold_name(name) for name in names}
        label = next_label(self.label) if fold_name(self.host) in lost else self.label
        offers = [
            offer._replace(label=next_label(offer.label)) if fold_name(offer.name) in lost else offer
            for offer in self.offers
        ]
        return Zone(label, self.addresses, offers)


def next_label(label: bytes) -> bytes:
    """Return the label to try when this one is taken."""
    numbered = _NUMBERED.fullmatch(label)
    stem, number = (numbered["stem"], int(numbered["number"]) + 1) if numbered else (label, 2)
    ending = b"-%d" % number
    # No half of a character at the cut.
    return stem[: dns.MAX_LABEL - len(ending)].decode("utf-8", "ignore").encode() + ending


def _next(record: DnsRecord) -> Iterator[tuple[str, tuple[int, ...]]]:
    if record.type == RecordType.PTR and isinstance(record.data, str):
        is_reverse = fold_name(record.name).endswith(".arpa")
        yield record.data, (RecordType.A, RecordType.AAAA) if is_reverse else (RecordType.SRV, RecordType.TXT)
    elif record.type == RecordType.SRV and isinstance(record.data, SrvData):
        yield record.data.target, (RecordType.A, RecordType.AAAA)
    elif record.type in (RecordType.A, RecordType.AAAA):
        yield record.name, (RecordType.A, RecordType.AAAA)


def _ranks(records: Sequence[DnsRecord]) -> list[tuple[int, int, bytes]]:
    return sorted((record.class_ & ~dns.TOP_BIT, record.type, data_bytes(record)) for record in records)
