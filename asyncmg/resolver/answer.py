"""What a look-up brings: the records' data, with where it comes from and for how long it may be kept."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence

from asyncmg.codecs import dns
from asyncmg.codecs.dns import DnsMessage, DnsRecord, MxData, RecordData, RecordType, SrvData, fold_name
from asyncmg.errors import NameNotFound, RemoteProtocolError


class DnsAnswer(list[RecordData]):
    """The data of the records found: see :class:`DnsRecord`. MX and SRV stand in the order in which to use them.

    Attributes:
        name: of the records, at the end of the aliases.
        type: of the records.
        ttl: seconds for which they may be kept.
        aliases: the names that led there (CNAME), the one looked up first.
    """

    __slots__ = ("aliases", "name", "ttl", "type")

    def __init__(
        self, data: Iterable[RecordData], name: str, type_: int, ttl: float = 0.0, aliases: Sequence[str] = ()
    ) -> None:
        super().__init__(data)
        self.name = name
        self.type = type_
        self.ttl = ttl
        self.aliases = tuple(aliases)

    def copy(self) -> DnsAnswer:
        return DnsAnswer(self, self.name, self.type, self.ttl, self.aliases)


def record_type(kind: str | int) -> RecordType:
    """Return the type that a name or a number stands for.

    Raises:
        ValueError: it is none that can be looked up.
    """
    try:
        found = RecordType[kind.upper()] if isinstance(kind, str) else RecordType(kind)
    except (KeyError, ValueError):
        raise ValueError(f"unknown record type {kind!r}") from None
    if found in (RecordType.OPT, RecordType.ANY):
        raise ValueError(f"no type to look up: {found.name}")  # ANY: RFC 8482
    return found


def not_found(name: str, kind: int, rcode: int) -> NameNotFound:
    """Make the exception of a name that is not there, or has nothing of the type."""
    text = f"no such name: {name}" if rcode else f"{name} has no {RecordType(kind).name} records"
    return NameNotFound(text, name=name, rcode=rcode)


class Found:
    """What one response says about a name.

    Attributes:
        records: of the type asked for.
        ttl: seconds for which they, and the aliases that lead to them, may be kept.
        aliases: names passed on the way, without the last one.
        name: the last one: of the records, or where to go on.
        is_final: there is nothing more to be asked.
        negative_ttl: seconds for which "there is none" may be kept (RFC 2308 section 5); -1: not at all.
    """

    __slots__ = ("aliases", "is_final", "name", "negative_ttl", "rcode", "records", "ttl")

    def __init__(self, message: DnsMessage, name: str, kind: int, max_cnames: int) -> None:
        self.rcode = message.rcode
        self.aliases: list[str] = []
        self.name = name
        ttls: list[int] = []
        by_name: dict[str, list[DnsRecord]] = {}
        for record in message.answers:
            if record.class_ == dns.IN:
                by_name.setdefault(fold_name(record.name), []).append(record)
        while True:
            here = by_name.get(fold_name(self.name), ())
            self.records = [record for record in here if record.type == kind]
            if self.records or kind == RecordType.CNAME:
                break
            alias = next((record for record in here if record.type == RecordType.CNAME), None)
            if alias is None or not isinstance(alias.data, str):
                break
            ttls.append(alias.ttl)
            self.aliases.append(self.name)
            self.name = alias.data
            if len(self.aliases) > max_cnames:
                raise RemoteProtocolError(f"more than {max_cnames} aliases", section="RFC 1034 section 3.6.2")
        self.ttl = float(min((*ttls, *(record.ttl for record in self.records)), default=0))
        self.negative_ttl = -1.0
        for record in message.authorities:
            if isinstance(record.data, dns.SoaData):
                self.negative_ttl = float(min((record.ttl, record.data.minimum, *ttls)))
        # An alias whose end is missing: a server that does not recurse that far leaves it to us.
        self.is_final = bool(self.records) or not self.aliases or self.rcode != 0 or self.negative_ttl >= 0


def in_order(data: Sequence[RecordData], random: Callable[[], float]) -> list[RecordData]:
    """Return the data of records in the order in which to use them.

    Args:
        data: of one type.
        random: returns numbers from 0 to 1, by which services of equal priority take turns according to their weights
            (RFC 2782).
    """
    if data and isinstance(data[0], MxData):
        return sorted(data, key=lambda item: item.preference if isinstance(item, MxData) else 0)
    services = [item for item in data if isinstance(item, SrvData)]
    if not services:
        return list(data)
    ordered: list[RecordData] = []
    for priority in sorted({service.priority for service in services}):
        left = sorted((s for s in services if s.priority == priority), key=lambda service: service.weight)
        while left:
            point = random() * sum(service.weight for service in left)
            chosen = left[-1]
            for service in left:
                point -= service.weight
                if point <= 0:
                    chosen = service
                    break
            left.remove(chosen)
            ordered.append(chosen)
    return ordered


def reverse_name(address: str) -> str:
    """Return the name under which an address has its PTR records (RFC 1035 section 3.5, RFC 3596 section 2.5)."""
    return ipaddress.ip_address(address.partition("%")[0]).reverse_pointer


def address_of_reverse_name(name: str) -> str | None:
    """Return the address that a name below in-addr.arpa or ip6.arpa stands for; None: it is none."""
    folded = fold_name(name)
    if folded.endswith(".in-addr.arpa"):
        text = ".".join(reversed(folded.removesuffix(".in-addr.arpa").split(".")))
    elif folded.endswith(".ip6.arpa"):
        nibbles = folded.removesuffix(".ip6.arpa").split(".")
        digits = "".join(reversed(nibbles)) if all(len(nibble) == 1 for nibble in nibbles) else ""
        text = ":".join(digits[index : index + 4] for index in range(0, len(digits), 4)) if len(digits) == 32 else ""
    else:
        return None
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
