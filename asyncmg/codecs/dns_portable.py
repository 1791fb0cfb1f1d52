"""The portable DNS codec (RFC 1035 section 4): a reader of messages in Python alone.

A compression pointer may lead only to a place before the name in which it stands, each further one to a place before
that, and there are no more of them than labels: no message makes the reader go in circles, or for long.
"""

from __future__ import annotations

import ipaddress
from struct import Struct
from typing import Final

from . import dns
from .dns import (
    HEADER,
    IN,
    MAX_NAME,
    MAX_POINTERS,
    MAX_RECORDS,
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
    show_label,
)

_FIXED: Final = Struct(">HHIH")
_SRV: Final = Struct(">3H")
_SOA: Final = Struct(">5I")

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
    questions = []
    for _ in range(counts[0]):
        name, at = _read_name(data, at)
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
            record, at = _read_record(data, at)
            section.append(record)
        sections.append(section)
    if at != len(data):
        raise refuse(dns.TRAILING)
    return DnsMessage(number, flags, questions, *sections)


def _read_record(data: bytes, at: int) -> tuple[DnsRecord, int]:
    name, at = _read_name(data, at)
    if at + _FIXED.size > len(data):
        raise refuse(dns.TRUNCATED_MESSAGE)
    kind, class_, ttl, size = _FIXED.unpack_from(data, at)
    at += _FIXED.size
    end = at + size
    if end > len(data):
        raise refuse(dns.TRUNCATED_MESSAGE)
    if ttl > 0x7FFFFFFF and kind != RecordType.OPT:
        ttl = 0  # RFC 2181 section 8
    content = _read_data(data, at, end, kind) if class_ & ~dns.TOP_BIT == IN else data[at:end]
    return DnsRecord(name, kind, content, ttl, class_), end


def _read_data(data: bytes, at: int, end: int, kind: int) -> RecordData:
    """Read what a record holds; names in it may point to what is before it, and must end where it ends."""
    result: RecordData
    if kind in (_A, _AAAA):
        if end - at != (4 if kind == _A else 16):
            raise refuse(dns.DATA_SIZE)
        return str(ipaddress.ip_address(data[at:end]))
    if kind in _NAMES:
        result, at = _read_name(data, at)
    elif kind == _MX:
        preference = int.from_bytes(data[at : at + 2], "big")
        exchange, at = _read_name(data, at + 2)
        result = MxData(preference, exchange)
    elif kind == _TXT:
        return _read_strings(data, at, end)
    elif kind == _SRV_TYPE:
        if end - at < _SRV.size:
            raise refuse(dns.DATA_SIZE)
        priority, weight, port = _SRV.unpack_from(data, at)
        target, at = _read_name(data, at + _SRV.size)
        result = SrvData(priority, weight, port, target)
    elif kind == _SOA_TYPE:
        primary, at = _read_name(data, at)
        mailbox, at = _read_name(data, at)
        if end - at != _SOA.size:
            raise refuse(dns.DATA_SIZE)
        return SoaData(primary, mailbox, *_SOA.unpack_from(data, at))
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


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    """Read the name that begins at a place; return it, and the place behind it."""
    labels: list[str] = []
    size = 1
    begin = at  # a pointer must lead to a place before this
    behind = -1  # of the name, once a pointer has been followed
    hops = 0
    while True:
        if at >= len(data):
            raise refuse(dns.TRUNCATED_MESSAGE)
        length = data[at]
        if length == 0:
            return ".".join(labels), (at + 1 if behind < 0 else behind)
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
        begin = at = target
