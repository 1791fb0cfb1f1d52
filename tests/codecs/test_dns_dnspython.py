"""dnspython as an oracle: it reads what we write, and we read what it writes, and both mean the same."""

from __future__ import annotations

import ipaddress
import os
import random

import pytest

from asyncmg.codecs import dns as ours
from asyncmg.codecs.dns import (
    DnsMessage,
    DnsQuestion,
    DnsReader,
    DnsRecord,
    MxData,
    RecordType,
    SoaData,
    SrvData,
    TxtData,
    show_label,
    write_message,
)
from asyncmg.errors import RemoteProtocolError
from tests.codecs.dns_vector_file import DNS_CODECS, read_dns_vectors
from tests.fuzz.fuzz_dns_differential import make_message

if os.environ.get("ASYNCMG_REQUIRE_PEERS") != "1":
    pytest.importorskip("dns", reason="dnspython is not installed")

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdata
import dns.rrset

codecs = pytest.mark.parametrize("read", DNS_CODECS.values(), ids=DNS_CODECS)


def name_of(name: dns.name.Name) -> str:
    return ".".join(map(show_label, name.labels[:-1]))


def data_of(data: dns.rdata.Rdata) -> ours.RecordData:
    """What our codecs should make of the data of a record."""
    if data.rdclass == ours.IN:
        match data.rdtype:
            case RecordType.A | RecordType.AAAA:
                return ours.show_address(ipaddress.ip_address(data.address).packed)
            case RecordType.NS | RecordType.CNAME | RecordType.PTR:
                return name_of(data.target)
            case RecordType.MX:
                return MxData(data.preference, name_of(data.exchange))
            case RecordType.TXT:
                return TxtData(data.strings)
            case RecordType.SRV:
                return SrvData(data.priority, data.weight, data.port, name_of(data.target))
            case RecordType.SOA:
                numbers = (data.serial, data.refresh, data.retry, data.expire, data.minimum)
                return SoaData(name_of(data.mname), name_of(data.rname), *numbers)
    wire: bytes = data.to_wire()
    return wire


def message_of(message: dns.message.Message) -> DnsMessage:
    """What our codecs should make of a message that dnspython has read with ``one_rr_per_rrset``."""
    questions = [DnsQuestion(name_of(item.name), item.rdtype, item.rdclass) for item in message.question]
    sections = [
        [DnsRecord(name_of(item.name), item.rdtype, data_of(item[0]), item.ttl, item.rdclass) for item in section]
        for section in (message.answer, message.authority, message.additional)
    ]
    if message.opt is not None:
        for opt in message.opt:
            sections[2].append(DnsRecord("", RecordType.OPT, opt.to_wire(), message.opt.ttl, opt.payload))
    return DnsMessage(message.id, int(message.flags), questions, *sections)


def plain(message: DnsMessage) -> DnsMessage:
    """The message without what dnspython has another opinion of, such as several OPT records."""

    def kept(records: list[DnsRecord]) -> list[DnsRecord]:
        return [record for record in records if record.type != RecordType.OPT and record.class_ == ours.IN]

    sections = [kept(list(section)) for section in message[3:]]
    questions = [DnsQuestion(name, kind) for name, kind, _ in message.questions]
    flags = message.flags & ~ours.OPCODE & ~ours.RCODE
    sections[2].append(DnsRecord("", 41, b"\xfd\xe9\0\2ab", 0x8000, 1232))
    return DnsMessage(message.id, flags, questions, *sections)


@codecs
def test_what_we_write(read: DnsReader) -> None:
    for seed in range(400):
        message = plain(make_message(random.Random(f"ours/{seed}"), with_bytes=False))
        data = write_message(message)
        theirs = message_of(dns.message.from_wire(data, one_rr_per_rrset=True))
        assert theirs == read(data) == message, seed


@codecs
def test_what_dnspython_writes(read: DnsReader) -> None:
    """It compresses in its own way: a name that was there before is pointed to whatever the case of its letters."""
    for seed in range(400):
        message = plain(make_message(random.Random(f"theirs/{seed}"), with_bytes=False))
        data = dns.message.from_wire(write_message(message), one_rr_per_rrset=True).to_wire(max_size=65535)
        found = read(data)
        assert found == message_of(dns.message.from_wire(data, one_rr_per_rrset=True)), seed
        assert repr(found).lower() == repr(message).lower(), seed


@codecs
def test_what_dnspython_makes_of_text(read: DnsReader) -> None:
    """Records as a zone file has them."""
    zone = [
        ("a.example.", "A", "192.0.2.1"),
        ("a.example.", "AAAA", "2001:db8::1"),
        ("a.example.", "MX", "10 mail.example."),
        ("a.example.", "TXT", '"v=spf1" "\\255\\"x"'),
        ("_x._tcp.example.", "SRV", "1 2 80 a.example."),
        ("example.", "SOA", "ns.example. hostmaster.example. 1 2 3 4 5"),
        ("example.", "NS", "ns.example."),
        ("example.", "CAA", '0 issue "ca.example"'),
        ("1.2.0.192.in-addr.arpa.", "PTR", "a\\.b.example."),
        ("\\000\\065.example.", "CNAME", "."),
    ]
    wanted = [
        DnsRecord("a.example", 1, "192.0.2.1", 60),
        DnsRecord("a.example", 28, "2001:db8::1", 60),
        DnsRecord("a.example", 15, MxData(10, "mail.example"), 60),
        DnsRecord("a.example", 16, TxtData([b"v=spf1", b'\xff"x']), 60),
        DnsRecord("_x._tcp.example", 33, SrvData(1, 2, 80, "a.example"), 60),
        DnsRecord("example", 6, SoaData("ns.example", "hostmaster.example", 1, 2, 3, 4, 5), 60),
        DnsRecord("example", 2, "ns.example", 60),
        DnsRecord("example", 257, b"\0\5issueca.example", 60),
        DnsRecord("1.2.0.192.in-addr.arpa", 12, r"a\.b.example", 60),
        DnsRecord(r"\000A.example", 5, "", 60),
    ]
    query = dns.message.make_query("a.example.", "ANY", use_edns=0, payload=1400)
    response = dns.message.make_response(query)
    response.answer = [dns.rrset.from_text(name, 60, "IN", kind, data) for name, kind, data in zone]
    message = read(response.to_wire())
    assert message.answers == wanted
    assert message.questions == [DnsQuestion("a.example", 255)]
    assert (message.id, message.is_response) == (query.id, True)
    (opt,) = read(query.to_wire()).additionals
    assert (opt.name, opt.type, opt.class_) == ("", 41, 1400)


@codecs
def test_what_it_refuses_we_refuse(read: DnsReader) -> None:
    """Our invalid vectors, and what is cut off valid ones. What it takes and we do not is listed, with the reason."""
    taken = set()
    for vector in read_dns_vectors():
        places = [len(vector.data)] if vector.message is None else range(min(len(vector.data), 400))
        for place in places:
            data = vector.data[:place]
            try:
                dns.message.from_wire(data, one_rr_per_rrset=True)
            except (dns.exception.DNSException, ValueError):
                pass
            else:
                taken.add(vector.name)
            with pytest.raises(RemoteProtocolError):
                read(data)
    assert taken == TAKEN_BY_DNSPYTHON


TAKEN_BY_DNSPYTHON = {
    "1001 records that are all there",  # our limit
    "a pointer into the header",  # no name is there
    "a pointer to the beginning",
    "A of three bytes, of mDNS",  # it knows nothing of the top bit
}
