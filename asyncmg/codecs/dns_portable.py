"""The portable DNS codec (RFC 1035 section 4): a reader of messages in Python alone.

A compression pointer may lead only to a place before the name in which it stands, each further one to a place before
that, and there are no more of them than labels; and no way is gone twice: no message makes the reader go in circles, or
for long.
"""

from __future__ import annotations

from . import dns
from .dns import (
    HEADER,
    IN,
    MAX_NAME,
    MAX_POINTERS,
    MAX_RECORDS,
    RECORD_HEAD,
    SOA_TAIL,
    SRV_HEAD,
    DnsMessage,
    DnsQuestion,
    DnsRecord,
    MxData,
    RecordData,
    RecordType,
    SoaData,
    SrvData,
    TxtData,
    refuse,
    show_address,
    show_label,
)

_A, _AAAA = int(RecordType.A), int(RecordType.AAAA)
_NAMES = frozenset(map(int, (RecordType.NS, RecordType.CNAME, RecordType.PTR)))
_MX, _TXT, _SRV_TYPE, _SOA_TYPE = map(int, (RecordType.MX, RecordType.TXT, RecordType.SRV, RecordType.SOA))


def read_message(data: bytes) -> DnsMessage:
    """Read one message: all of it, and nothing but it.

    Raises:
        RemoteProtocolError: it is malformed, or has more than MAX_RECORDS records.
    """
    if len(data) < HEADER.size:
        raise refuse(dns.TRUNCATED_MESSAGE)
    number, flags, *counts = HEADER.unpack_from(data)
    if sum(counts) > MAX_RECORDS:
        raise refuse(dns.TOO_MANY)
    at = HEADER.size
    names = _Names(data)
    questions = []
    for _ in range(counts[0]):
        name, at = names.read(at)
        if at + 4 > len(data):
            raise refuse(dns.TRUNCATED_MESSAGE)
        questions.append(
            DnsQuestion(name, int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 2 : at + 4], "big"))
        )
        at += 4
    sections: list[list[DnsRecord]] = []
    for count in counts[1:]:
        section = []
        for _ in range(count):
            record, at = _read_record(names, data, at)
            section.append(record)
        sections.append(section)
    if at != len(data):
        raise refuse(dns.TRAILING)
    return DnsMessage(number, flags, questions, *sections)


def _read_record(names: _Names, data: bytes, at: int) -> tuple[DnsRecord, int]:
    name, at = names.read(at)
    if at + RECORD_HEAD.size > len(data):
        raise refuse(dns.TRUNCATED_MESSAGE)
    kind, class_, ttl, size = RECORD_HEAD.unpack_from(data, at)
    at += RECORD_HEAD.size
    end = at + size
    if end > len(data):
        raise refuse(dns.TRUNCATED_MESSAGE)
    if ttl > 0x7FFFFFFF and kind != RecordType.OPT:
        ttl = 0  # RFC 2181 section 8
    content = _read_data(names, data, at, end, kind) if class_ & ~dns.TOP_BIT == IN else data[at:end]
    return DnsRecord(name, kind, content, ttl, class_), end


def _read_data(names: _Names, data: bytes, at: int, end: int, kind: int) -> RecordData:
    """Read what a record holds; names in it may point to what is before it, and must end where it ends."""
    result: RecordData
    if kind in (_A, _AAAA):
        if end - at != (4 if kind == _A else 16):
            raise refuse(dns.DATA_SIZE)
        return show_address(data[at:end])
    if kind in _NAMES:
        result, at = names.read(at)
    elif kind == _MX:
        if end - at < 2:
            raise refuse(dns.DATA_SIZE)
        preference = int.from_bytes(data[at : at + 2], "big")
        exchange, at = names.read(at + 2)
        result = MxData(preference, exchange)
    elif kind == _TXT:
        return _read_strings(data, at, end)
    elif kind == _SRV_TYPE:
        if end - at < SRV_HEAD.size:
            raise refuse(dns.DATA_SIZE)
        priority, weight, port = SRV_HEAD.unpack_from(data, at)
        target, at = names.read(at + SRV_HEAD.size)
        result = SrvData(priority, weight, port, target)
    elif kind == _SOA_TYPE:
        primary, at = names.read(at)
        mailbox, at = names.read(at)
        if end - at != SOA_TAIL.size:
            raise refuse(dns.DATA_SIZE)
        return SoaData(primary, mailbox, *SOA_TAIL.unpack_from(data, at))
    else:
        return data[at:end]
    if at != end:
        raise refuse(dns.DATA_SIZE)
    return result


def _read_strings(data: bytes, at: int, end: int) -> TxtData:
    strings = []
    while at < end:
        following = at + 1 + data[at]
        if following > end:
            raise refuse(dns.DATA_SIZE)
        strings.append(data[at + 1 : following])
        at = following
    if not strings:
        raise refuse(dns.DATA_SIZE)  # one or more (RFC 1035 section 3.3.14)
    return TxtData(strings)


#: Of a name's labels: those from a place in it on, how many bytes they have there, and how many pointers lie behind.
_Known = tuple[list[str], int, int, int]


class _Names:
    """Reads the names of a message. What it has walked on it knows: thousands of pointers to a long way cost little."""

    __slots__ = ("_data", "_known")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._known: dict[int, _Known] = {}  # by the place where they begin

    def read(self, at: int) -> tuple[str, int]:
        """Read the name that begins at a place; return it, and the place behind it."""
        data, known = self._data, self._known
        labels: list[str] = []
        size = 1
        begin = at  # a pointer must lead to a place before this
        behind = -1  # of the name, once a pointer has been followed
        hops = 0
        passed = [(at, 0, size, hops)]
        while True:
            if at >= len(data):
                raise refuse(dns.TRUNCATED_MESSAGE)
            length = data[at]
            if length == 0:
                at += 1
                break
            if length < 64:
                if at + 1 + length > len(data):
                    raise refuse(dns.TRUNCATED_MESSAGE)
                size += length + 1
                if size > MAX_NAME:
                    raise refuse(dns.NAME_SIZE)
                labels.append(show_label(data[at + 1 : at + 1 + length]))
                at += 1 + length
                continue
            if length < 0xC0:
                raise refuse(dns.BAD_LABEL)
            if at + 2 > len(data):
                raise refuse(dns.TRUNCATED_MESSAGE)
            target = (length & 0x3F) << 8 | data[at + 1]
            if behind < 0:
                behind = at + 2
            hops += 1
            if target >= begin or target < HEADER.size or hops > MAX_POINTERS:
                raise refuse(dns.BAD_POINTER)
            found = known.get(target)
            # Otherwise it is walked on, to see which of the two limits is broken first.
            if found is not None and size + found[2] <= MAX_NAME and hops + found[3] <= MAX_POINTERS:
                labels += found[0][found[1] :]
                size += found[2]
                hops += found[3]
                break
            begin = at = target
            passed.append((at, len(labels), size, hops))
        for place, index, size_before, hops_before in passed:
            known[place] = (labels, index, size - size_before, hops - hops_before)
        return ".".join(labels), (at if behind < 0 else behind)
