"""DNS messages (RFC 1035 section 4): the contract of the codecs, records, names, and how messages are written.

A codec reads one whole message, as one datagram holds it. Writing exists once, here. A domain name is a str without a
dot at its end, the root is "" (RFC 1035 section 5.1): a dot or backslash inside a label has a backslash in front, a
control character is ``\\DDD``; bytes that are not UTF-8 are surrogates. Case is kept, and means nothing
(:func:`same_name`).
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Callable, Sequence
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

from asyncmg.errors import LocalProtocolError, RemoteProtocolError

MAX_NAME: Final = 255  # bytes of a name on the wire (RFC 1035 section 2.3.4)
MAX_LABEL: Final = 63
MAX_POINTERS: Final = 127  # in one name: as many as it can have labels
MAX_RECORDS: Final = 1000  # of one message, questions included; more is refused
MAX_MESSAGE: Final = 65535  # bytes, whatever carries it (RFC 1035 section 4.2.2)
UDP_SIZE: Final = 1232  # what we tell by EDNS that we take: no fragments on any path (RFC 9715)

# Bits of the header (RFC 1035 section 4.1.1).
RESPONSE: Final = 0x8000
OPCODE: Final = 0x7800
AUTHORITATIVE: Final = 0x0400
TRUNCATED: Final = 0x0200
RECURSION_DESIRED: Final = 0x0100
RECURSION_AVAILABLE: Final = 0x0080
RCODE: Final = 0x000F

# Response codes.
NO_ERROR: Final = 0
FORMAT_ERROR: Final = 1
SERVER_FAILURE: Final = 2
NAME_ERROR: Final = 3  # NXDOMAIN
NOT_IMPLEMENTED: Final = 4
REFUSED: Final = 5

IN: Final = 1  # the class: the Internet
TOP_BIT: Final = 0x8000  # of a class in mDNS: unicast answer wanted, or cache to be flushed (RFC 6762 section 18.12)


class RecordType(IntEnum):
    """Types of records."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    MX = 15
    TXT = 16
    AAAA = 28
    SRV = 33
    OPT = 41
    NSEC = 47
    ANY = 255


class MxData(NamedTuple):
    """Where mail goes (RFC 1035 section 3.3.9); the lowest preference first."""

    preference: int
    exchange: str

    def __str__(self) -> str:
        return f"{self.preference} {self.exchange or '.'}"


class SrvData(NamedTuple):
    """Where a service is (RFC 2782); the lowest priority first, among equals by weight. Target "": there is none."""

    priority: int
    weight: int
    port: int
    target: str

    def __str__(self) -> str:
        return f"{self.priority} {self.weight} {self.port} {self.target or '.'}"


class SoaData(NamedTuple):
    """Start of a zone (RFC 1035 section 3.3.13). Times in seconds; minimum: how long there being nothing is kept."""

    primary: str
    mailbox: str
    serial: int
    refresh: int
    retry: int
    expire: int
    minimum: int

    def __str__(self) -> str:
        return " ".join(str(value) for value in (self.primary or ".", self.mailbox or ".", *self[2:]))


class TxtData(tuple[bytes, ...]):
    """The strings of a TXT record (RFC 1035 section 3.3.14), bytes each."""

    __slots__ = ()

    @property
    def text(self) -> str:
        """The strings joined, as UTF-8."""
        return b"".join(self).decode("utf-8", "replace")

    @property
    def attributes(self) -> dict[str, bytes | None]:
        """``key=value`` strings of a service (RFC 6763 section 6): the first of a key counts; None: without ``=``."""
        found: dict[str, bytes | None] = {}
        for item in self:
            key, equals, value = item.partition(b"=")
            if key:
                found.setdefault(key.decode("ascii", "replace").lower(), value if equals else None)
        return found

    def __str__(self) -> str:
        return " ".join('"{}"'.format(item.decode("utf-8", "replace").replace('"', '\\"')) for item in self)


RecordData = str | MxData | SrvData | SoaData | TxtData | bytes


class DnsRecord(NamedTuple):
    """One resource record (RFC 1035 section 4.1.3).

    Attributes:
        data: by type: A, AAAA: the address as str; NS, CNAME, PTR: the name; MX: MxData; TXT: TxtData; SRV: SrvData;
            SOA: SoaData; anything else, and any class but IN: the bytes as they are.
        ttl: seconds for which it may be kept.
    """

    name: str
    type: int
    data: RecordData
    ttl: int = 0
    class_: int = IN


class DnsQuestion(NamedTuple):
    """What is asked (RFC 1035 section 4.1.2)."""

    name: str
    type: int
    class_: int = IN


class DnsMessage(NamedTuple):
    """One message. OPT records (RFC 6891) are in ``additionals``; their class is the sender's UDP size."""

    id: int
    flags: int
    questions: Sequence[DnsQuestion] = ()
    answers: Sequence[DnsRecord] = ()
    authorities: Sequence[DnsRecord] = ()
    additionals: Sequence[DnsRecord] = ()

    @property
    def is_response(self) -> bool:
        return bool(self.flags & RESPONSE)

    @property
    def is_truncated(self) -> bool:
        return bool(self.flags & TRUNCATED)

    @property
    def rcode(self) -> int:
        return self.flags & RCODE


#: Reads one message. Raises RemoteProtocolError, with the section, for anything that is not one.
DnsReader = Callable[[bytes], DnsMessage]

HEADER: Final = Struct(">6H")
RECORD_HEAD: Final = Struct(">HHIH")  # of a record, behind its name
SRV_HEAD: Final = Struct(">3H")  # before its target
SOA_TAIL: Final = Struct(">5I")  # behind its two names

# What is wrong with a message, in the order of AMG_DNS_E_: what is told, and where the rule stands.
TRUNCATED_MESSAGE: Final = ("message ends too early", "RFC 1035 section 4.1")
BAD_LABEL: Final = ("reserved label type", "RFC 1035 section 4.1.4")
BAD_POINTER: Final = ("compression pointer that does not lead back", "RFC 1035 section 4.1.4")
NAME_SIZE: Final = ("name of more than 255 bytes", "RFC 1035 section 2.3.4")
TOO_MANY: Final = (f"more than {MAX_RECORDS} records", "RFC 1035 section 4.1.1")
DATA_SIZE: Final = ("record data of the wrong length", "RFC 1035 section 3.2.1")
TRAILING: Final = ("bytes behind the message", "RFC 1035 section 4.1")


def refuse(fault: tuple[str, str]) -> RemoteProtocolError:
    """Make the exception of one of the faults above."""
    return RemoteProtocolError(fault[0], section=fault[1])


# -- names ----------------------------------------------------------------------------------------------------------

_SPECIAL = re.compile(rb"[\x00-\x1f\x7f.\\]")
_PIECE = re.compile(rb"(?P<text>[^.\\]+)|(?P<dot>\.)|\\(?:(?P<number>[0-9]{3})|(?P<character>[^0-9]))", re.DOTALL)
_LOWER = {letter: letter + 32 for letter in range(65, 91)}  # ASCII only (RFC 4343 section 3)


def show_label(label: bytes) -> str:
    """Return a label as it stands in a name."""
    if _SPECIAL.search(label):
        label = _SPECIAL.sub(_escape, label)
    return label.decode("utf-8", "surrogateescape")


def _escape(match: re.Match[bytes]) -> bytes:
    character = match[0]
    return b"\\" + character if character in b".\\" else b"\\%03d" % ord(character)


def split_name(name: str) -> list[bytes]:
    """Take a name apart into its labels; a dot at the end is allowed.

    Raises:
        LocalProtocolError: no domain name: an empty label, one of more than 63 bytes, more than 255 in all, a backslash
            that stands for nothing.
    """
    try:
        raw = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as exc:
        raise LocalProtocolError(f"not a domain name: {name!r}") from exc
    if raw in (b"", b"."):
        return []
    labels = raw.removesuffix(b".").split(b".") if b"\\" not in raw else _split_escaped(raw, name)
    if not all(labels):
        raise LocalProtocolError(f"empty label in the domain name {name!r}")
    if max(map(len, labels)) > MAX_LABEL or sum(map(len, labels)) + len(labels) + 1 > MAX_NAME:
        raise LocalProtocolError(f"domain name too long: {name!r}")
    return labels


def _split_escaped(raw: bytes, name: str) -> list[bytes]:
    labels = [b""]
    at = 0
    while at < len(raw):
        piece = _PIECE.match(raw, at)
        if piece is None or (piece["number"] and int(piece["number"]) > 255):
            raise LocalProtocolError(f"unfinished or invalid escape in the domain name {name!r}")
        at = piece.end()
        if piece["dot"]:
            if at < len(raw):
                labels.append(b"")
        elif piece["number"]:
            labels[-1] += bytes((int(piece["number"]),))
        else:
            labels[-1] += piece["text"] or piece["character"]
    return labels


def fold_name(name: str) -> str:
    """Return a name so that equal ones are equal strings: ASCII letters in lower case (RFC 4343), no dot at the end."""
    if name.endswith("."):
        rest = name[:-1]
        if (len(rest) - len(rest.rstrip("\\"))) % 2 == 0:  # otherwise the dot belongs to the label
            name = rest
    return name.lower() if name.isascii() else name.translate(_LOWER)


def same_name(one: str, other: str) -> bool:
    """Whether two names are the same, whatever the case of their letters."""
    return fold_name(one) == fold_name(other)


def show_address(packed: bytes) -> str:
    """Return the address that 4 or 16 bytes stand for as text (RFC 5952).

    An IPv4-mapped one is ``::ffff:192.0.2.1`` (section 5), as Python's ipaddress has it only since 3.13.
    """
    if len(packed) == 4:
        return ".".join(map(str, packed))
    address = ipaddress.IPv6Address(packed)
    mapped = address.ipv4_mapped
    return str(address) if mapped is None else f"::ffff:{mapped}"


# -- writing --------------------------------------------------------------------------------------------------------


# What the data of a record may be, other than bytes as they are.
_DATA: Final[dict[int, type]] = {
    RecordType.A: str,
    RecordType.AAAA: str,
    RecordType.NS: str,
    RecordType.CNAME: str,
    RecordType.PTR: str,
    RecordType.MX: MxData,
    RecordType.TXT: TxtData,
    RecordType.SRV: SrvData,
    RecordType.SOA: SoaData,
}


class _Writer:
    """A message on its way to the wire. Names that came before are pointed to (RFC 1035 section 4.1.4)."""

    __slots__ = ("_known", "data")

    def __init__(self) -> None:
        self.data = bytearray()
        self._known: dict[tuple[bytes, ...], int] = {}

    def name(self, name: str, *, compress: bool = True) -> None:
        labels = tuple(split_name(name))
        for index in range(len(labels)):
            rest = labels[index:]
            known = self._known.get(rest) if compress else None
            if known is not None:
                self.data += (0xC000 | known).to_bytes(2, "big")
                return
            if len(self.data) < 0x4000:
                self._known.setdefault(rest, len(self.data))
            self.data.append(len(labels[index]))
            self.data += labels[index]
        self.data.append(0)

    def record(self, record: DnsRecord) -> None:
        self.name(record.name)
        at = len(self.data)
        self.data += RECORD_HEAD.pack(record.type, record.class_, record.ttl, 0)
        self._content(record)
        self.data[at + 8 : at + 10] = (len(self.data) - at - 10).to_bytes(2, "big")

    def _content(self, record: DnsRecord) -> None:
        data = record.data
        if isinstance(data, bytes):
            self.data += data
            return
        if record.class_ & ~TOP_BIT != IN or not isinstance(data, _DATA.get(record.type, bytes)):
            raise LocalProtocolError(
                f"{type(data).__name__} is no data of a record of type {record.type:d} and class {record.class_}"
            )
        if isinstance(data, TxtData):
            for item in data or (b"",):
                self.data += bytes((len(item),)) + item
        elif isinstance(data, MxData):
            self.data += data.preference.to_bytes(2, "big")
            self.name(data.exchange)
        elif isinstance(data, SrvData):
            self.data += SRV_HEAD.pack(data.priority, data.weight, data.port)
            self.name(data.target, compress=False)  # RFC 2782
        elif isinstance(data, SoaData):
            self.name(data.primary)
            self.name(data.mailbox)
            self.data += SOA_TAIL.pack(*data[2:])
        elif record.type == RecordType.A:
            self.data += ipaddress.IPv4Address(data).packed
        elif record.type == RecordType.AAAA:
            self.data += ipaddress.IPv6Address(data).packed
        else:
            self.name(data)


def write_message(message: DnsMessage) -> bytes:
    """Write a message.

    Raises:
        LocalProtocolError: a name or a value in it cannot be written, a record's data is not that of its type and
            class, or the message would have more than 65535 bytes.
    """
    writer = _Writer()
    sections = (message.answers, message.authorities, message.additionals)
    try:
        writer.data += HEADER.pack(message.id, message.flags, len(message.questions), *map(len, sections))
        for question in message.questions:
            writer.name(question.name)
            writer.data += question.type.to_bytes(2, "big") + question.class_.to_bytes(2, "big")
        for section in sections:
            for record in section:
                writer.record(record)
    except LocalProtocolError:
        raise
    except (ValueError, OverflowError, ArithmeticError, struct.error) as exc:
        raise LocalProtocolError(f"DNS message cannot be written: {exc}") from exc
    if len(writer.data) > MAX_MESSAGE:
        raise LocalProtocolError(f"DNS message of {len(writer.data)} bytes: {MAX_MESSAGE} are the most")
    return bytes(writer.data)


def write_query(
    number: int, question: DnsQuestion, *, flags: int = RECURSION_DESIRED, udp_size: int = UDP_SIZE
) -> bytes:
    """Write a query.

    Args:
        number: the message's id, 0 to 65535.
        udp_size: told by EDNS (RFC 6891); 0: without EDNS.
    """
    edns = [DnsRecord("", RecordType.OPT, b"", 0, udp_size)] if udp_size else []
    return write_message(DnsMessage(number, flags, [question], additionals=edns))
