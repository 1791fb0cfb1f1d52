"""Every vector of tests/vectors/dns_*.txt, on every codec: whole, cut at every byte, and with bytes behind."""

from __future__ import annotations

import os
import time

import pytest

from asyncmg.codecs import dns
from asyncmg.codecs.dns import DnsMessage, DnsReader, DnsRecord
from asyncmg.errors import RemoteProtocolError
from tests.codecs.dns_vector_file import DNS_CODECS, DnsVector, chain, lead, read_dns_vectors

VECTORS = read_dns_vectors()
VALID = [vector for vector in VECTORS if vector.message is not None]
FAULTS = [value for value in vars(dns).values() if isinstance(value, tuple) and str(value[-1]).startswith("RFC ")]
CASES = [pytest.param(DNS_CODECS[name], vector, id=f"{name}: {vector}") for name in DNS_CODECS for vector in VECTORS]
# Sanitizers and machines shared with others make everything slower.
SLOWNESS = 10 if "libasan" in os.environ.get("LD_PRELOAD", "") else 1
codecs = pytest.mark.parametrize("read", DNS_CODECS.values(), ids=DNS_CODECS)


def fault_of(read: DnsReader, data: bytes) -> tuple[str, str]:
    with pytest.raises(RemoteProtocolError) as caught:
        read(data)
    assert type(caught.value) is RemoteProtocolError
    assert caught.value.wire_code == 0
    return str(caught.value).removesuffix(f" ({caught.value.section})"), caught.value.section


@pytest.mark.parametrize(("read", "vector"), CASES)
def test_whole(read: DnsReader, vector: DnsVector) -> None:
    if vector.fault is not None:
        assert fault_of(read, vector.data) == vector.fault
        return
    message = read(vector.data)
    assert message == vector.message
    assert type(message) is DnsMessage
    assert vector.message is not None
    sections = ("answers", "authorities", "additionals")
    for ours, wanted in zip(message[2:], vector.message[2:], strict=True):
        assert type(ours) is list
        for one, other in zip(ours, wanted, strict=True):
            assert type(one) is type(other)
    for name in sections:
        for one, other in zip(getattr(message, name), getattr(vector.message, name), strict=True):
            assert type(one) is DnsRecord
            assert type(one.data) is type(other.data)
            assert type(one.type) is type(one.class_) is type(one.ttl) is int


def some_places(size: int) -> list[int]:
    """All places in a message; of a large one, those near its ends and some between."""
    if size <= 1500:
        return list(range(size))
    return sorted({*range(300), *range(300, size - 300, size // 300), *range(size - 300, size)})


@pytest.mark.parametrize("vector", VALID, ids=str)
def test_cut_at_every_byte(vector: DnsVector) -> None:
    """Whatever is left is refused, by all codecs for the same reason."""
    for place in some_places(len(vector.data)):
        faults = {name: fault_of(read, vector.data[:place]) for name, read in DNS_CODECS.items()}
        assert len(set(faults.values())) == 1, (place, faults)


@pytest.mark.parametrize("vector", VALID, ids=str)
def test_with_bytes_behind(vector: DnsVector) -> None:
    for read in DNS_CODECS.values():
        for more in (b"\0", b"a", vector.data):
            assert fault_of(read, vector.data + more) == dns.TRAILING


@pytest.mark.parametrize("vector", [vector for vector in VECTORS if len(vector.data) <= 300], ids=str)
def test_every_byte_changed(vector: DnsVector) -> None:
    """The codecs agree about each message that differs from a vector in one byte."""
    if len(DNS_CODECS) < 2:
        pytest.skip("no C core")
    for place in range(len(vector.data)):
        for byte in (0, 1, 0x3F, 0x40, 0xC0, 0xFF, vector.data[place] ^ 1, vector.data[place] ^ 0x80):
            data = vector.data[:place] + bytes([byte]) + vector.data[place + 1 :]
            outcomes = []
            for read in DNS_CODECS.values():
                try:
                    outcomes.append(repr(read(data)))
                except RemoteProtocolError as exc:
                    outcomes.append(str(exc))
            assert outcomes[0] == outcomes[1], data.hex()


def test_every_fault_is_met() -> None:
    assert len(FAULTS) == 7
    assert {vector.fault for vector in VECTORS if vector.fault} == set(FAULTS)
    assert len(VECTORS) > 90
    sections = [record for vector in VALID for section in vector.message[3:] for record in section]
    assert {record.type for record in sections} >= set(dns.RecordType) - {dns.RecordType.ANY}


@codecs
@pytest.mark.parametrize("label", [b"", b"\1a", b"\1\1"])
def test_names_that_are_long_ways_take_little_time(read: DnsReader, label: bytes) -> None:
    """3,000 names of up to 126 pointers each: a third of a million steps, were each way gone every time."""
    content = chain(23, 126, label)
    message = dns.HEADER.pack(7, dns.RESPONSE, 0, 1000, 0, 0)
    message += b"\0\xff\xff\0\1" + bytes(4) + len(content).to_bytes(2, "big") + content
    for number in range(999):
        names = (label + lead(23, 126 - number % 7, label)) * 2
        data = names + bytes(20)
        message += label + lead(23, 126 - number % 20, label)
        message += b"\0\6\0\1" + bytes(4) + len(data).to_bytes(2, "big") + data
    began = time.process_time()
    found = read(message)
    took = time.process_time() - began
    assert len(found.answers) == 1000
    assert found.answers[1].name.count(".") == (126 if label else 0)
    assert took < 0.5 * SLOWNESS, "20 ms; gone every time it is a second"


@codecs
def test_a_large_message(read: DnsReader) -> None:
    """One of 64 KiB, and one of more than any transport carries."""
    for count in (1, 70):
        data = dns.HEADER.pack(7, dns.RESPONSE, 0, count, 0, 0)
        data += (b"\0\xff\xfe\0\1" + bytes(4) + b"\xff\xff" + bytes(65535)) * count
        assert read(data).answers == [DnsRecord("", 0xFFFE, bytes(65535))] * count
        assert fault_of(read, data + b"\0") == dns.TRAILING
