"""What is the native DNS codec's own: the C functions below it, texts that do not fit, threads."""

from __future__ import annotations

import ctypes
import os
import random
import sys
import threading
from typing import Any

import pytest

import asyncmg.core
from asyncmg.codecs import dns, dns_native, dns_portable, sntp, sntp_native
from asyncmg.codecs.dns import DnsMessage, DnsQuestion, DnsRecord, RecordType, TxtData, write_message, write_query
from asyncmg.core import Core, CoreUnavailable
from asyncmg.core.records import (
    AMG_DNS_ADDRESS,
    AMG_DNS_BYTES,
    AMG_DNS_MAX_RECORDS,
    AMG_DNS_MX,
    AMG_DNS_NAME,
    AMG_DNS_NAME_TEXT,
    AMG_DNS_NO_ROOM,
    AMG_DNS_QUESTIONS,
    AMG_DNS_REFUSED,
    AMG_DNS_SOA,
    AMG_DNS_SRV,
    AMG_DNS_STRINGS,
    DNS_CALL,
    DNS_HEADER,
    DNS_RECORD,
)
from asyncmg.errors import LocalProtocolError
from tests.codecs.dns_vector_file import DNS_CODECS, read_dns_vectors

VECTORS = read_dns_vectors()
VALID = [vector for vector in VECTORS if vector.message is not None]
NUMBERS = [None, *dns_native.ERRORS.values()]


@pytest.fixture(autouse=True)
def core() -> Core:
    if "native" not in DNS_CODECS:
        pytest.skip(f"no C core: {asyncmg.core.status().reason}")
    found = asyncmg.core.load()
    if found is None:
        assert os.environ.get("ASYNCMG_REQUIRE_CORE") != "1", asyncmg.core.status().reason
        pytest.skip("the C core is switched off")
    return found


def read(core: Core, data: bytes, room: int = AMG_DNS_MAX_RECORDS) -> tuple[int, tuple[int, ...], list[Any]]:
    """amg_dns_read, bare: the error, the header, the records."""
    header = ctypes.create_string_buffer(DNS_HEADER.size)
    records = ctypes.create_string_buffer(DNS_RECORD.size * room + 1)
    error = core.dns.read(data, len(data), ctypes.addressof(header), ctypes.addressof(records), room)
    fields = DNS_HEADER.unpack(header.raw)
    count = 0 if error else sum(fields[2:])
    return error, fields, list(DNS_RECORD.iter_unpack(records.raw[: count * DNS_RECORD.size]))


def name_at(core: Core, data: bytes, offset: int, room: int = AMG_DNS_NAME_TEXT) -> tuple[int, bytes, int]:
    """amg_dns_name, bare: the error, the text, the place behind."""
    out = ctypes.create_string_buffer(max(room, 1))
    end = ctypes.c_size_t(4711)
    error = core.dns.name(data, len(data), offset, ctypes.addressof(out), room, ctypes.addressof(end))
    return error, out.value, end.value


# -- the C functions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_records_and_names_of_the_core(core: Core, vector: Any) -> None:
    """They tell what the portable codec makes of the same message."""
    data = vector.data
    error, header, records = read(core, data)
    assert NUMBERS[error] == vector.fault
    if error:
        return
    message = vector.message
    assert header == (*message[:2], *map(len, message[2:]))
    wanted = [(0, question) for question in message.questions]
    wanted += [(section, record) for section in (1, 2, 3) for record in message[section + 2]]
    end = dns.HEADER.size
    for raw, (section, item) in zip(records, wanted, strict=True):
        name, ttl, offset, length, kind, class_, _, _, _, its_section, shape = raw
        assert (its_section, kind, class_) == (section, item.type, item.class_)
        assert name == end
        failed, text, end = name_at(core, data, name)
        assert (failed, text.decode("utf-8", "surrogateescape")) == (0, item.name)
        if section == AMG_DNS_QUESTIONS:
            assert (ttl, offset, length, shape) == (0, 0, 0, AMG_DNS_BYTES)
            end += 4
        else:
            assert (ttl, offset) == (item.ttl, end + 10)
            end = offset + length
            assert SHAPES[type(item.data)] == shape or (shape == AMG_DNS_ADDRESS and kind in (1, 28))
    assert end == len(data)


SHAPES = {
    bytes: AMG_DNS_BYTES,
    str: AMG_DNS_NAME,
    dns.MxData: AMG_DNS_MX,
    TxtData: AMG_DNS_STRINGS,
    dns.SrvData: AMG_DNS_SRV,
    dns.SoaData: AMG_DNS_SOA,
}


def test_no_more_records_than_there_is_room_for(core: Core) -> None:
    data = write_message(DnsMessage(1, 0, [DnsQuestion("a", 1)], [DnsRecord("a", 1, "192.0.2.1")] * 2))
    assert [read(core, data, room)[0] for room in range(5)] == [5, 5, 5, 0, 0]
    assert NUMBERS[5] is dns.TOO_MANY


def test_no_data_at_all(core: Core) -> None:
    assert NUMBERS[core.dns.read(None, 0, None, None, 0)] is dns.TRUNCATED_MESSAGE
    assert NUMBERS[name_at(core, b"", 0)[0]] is dns.TRUNCATED_MESSAGE
    assert NUMBERS[name_at(core, b"\0", 1)[0]] is dns.TRUNCATED_MESSAGE
    assert NUMBERS[name_at(core, b"\0", 1 << 60)[0]] is dns.TRUNCATED_MESSAGE
    assert name_at(core, b"\0", 0) == (0, b"", 1)


def test_room_for_a_name(core: Core) -> None:
    """Each text needs its bytes and a NUL; of labels that could be escaped, as much as if they were."""
    data = b"\3a.b\1\0\0"
    assert name_at(core, data, 0) == (0, b"a\\.b.\\000", 7)
    for room in range(20):
        error, _, end = name_at(core, data, 0, room)
        assert (error, end) == ((AMG_DNS_NO_ROOM, 4711) if room < 4 * 3 + 2 else (0, 7))
    assert name_at(core, b"\0", 0, 0)[0] == AMG_DNS_NO_ROOM
    for byte in (b"a", b"\1", b".", b"\x7f"):
        longest = b"\x3f" + byte * 63 + b"\x3f" + byte * 63 + b"\x3f" + byte * 63 + b"\x3d" + byte * 61 + b"\0"
        error, text, end = name_at(core, longest, 0)
        assert (error, end) == (0, 255)
        assert len(text) == 250 * (4 if byte in b"\1\x7f" else 2 if byte == b"." else 1) + 3
    assert AMG_DNS_NAME_TEXT == 250 * 4 + 3 + 1


def test_queries_of_the_core(core: Core) -> None:
    """They are those that Python writes; what is no name to one is none to the other."""
    chance = random.Random(7)
    out = ctypes.create_string_buffer(300)
    names = [
        "",
        ".",
        "a",
        "a.",
        "a..",
        "..",
        ".a",
        "a..b",
        "\\",
        "a\\",
        "\\1",
        "\\25",
        "\\256",
        "\\255",
        "\\000",
        "\\..",
    ]
    names += [
        "\\a.\\\\",
        "a" * 63,
        "a" * 64,
        "a." * 127,
        "a." * 128,
        "a" + ".a" * 126,
        "\\046" * 63,
        "\\046" * 64,
        "é.ü",
    ]
    names += [".".join(["a" * 63] * 3 + ["a" * last]) for last in (60, 61, 62)]
    names += ["".join(chance.choices("ab.\\019", k=chance.randrange(12))) for _ in range(3000)]
    for name in names:
        for udp_size in (0, 1232):
            size = core.dns.query(out, 300, 0x1234, name.encode(), RecordType.AAAA, 0x0100, udp_size)
            try:
                wanted = write_query(0x1234, DnsQuestion(name, RecordType.AAAA), udp_size=udp_size)
            except LocalProtocolError:
                assert size == 0, name
                continue
            assert out.raw[:size] == wanted, name
            assert size <= 288
            assert core.dns.query(out, size - 1, 0x1234, name.encode(), RecordType.AAAA, 0x0100, udp_size) == 0
            assert core.dns.query(out, size, 0x1234, name.encode(), RecordType.AAAA, 0x0100, udp_size) == size


# -- the reader ---------------------------------------------------------------------------------------------------


def test_names_that_are_pointed_to_are_one_str() -> None:
    """They cost no memory of their own: of a large answer, each owner is the question's name."""
    message = DnsMessage(1, 0, [DnsQuestion("a.b", 1)], [DnsRecord("a.b", 1, "192.0.2.1")] * 400)
    found = dns_native.read_message(write_message(message))
    assert {id(record.name) for record in found.answers} == {id(found.questions[0].name)}


def large() -> tuple[bytes, DnsMessage]:
    """A message whose names do not fit into what is kept for them."""
    names = [f"{number}.{'a' * 60}.{chr(1) * 60}" for number in range(250)]
    shown = [name.replace(chr(1), "\\001") for name in names]
    records = [DnsRecord(name, RecordType.SOA, dns.SoaData(name, name, 1, 2, 3, 4, 5)) for name in shown]
    message = DnsMessage(3, dns.RESPONSE, [], records, [], [])
    return write_message(message), message


def test_texts_that_do_not_fit() -> None:
    data, message = large()
    spare = list(dns_native._spare)
    assert dns_native.read_message(data) == message == dns_portable.read_message(data)
    assert [item for item in dns_native._spare if item not in spare][1:] == [], "what was made for it is not kept"
    assert max(len(item.text) for item in dns_native._spare) == dns_native._TEXT


def test_texts_of_any_size(core: Core) -> None:
    """Whatever room there is: nothing is written behind it, and it is told when it is not enough."""
    vectors = [vector for vector in VALID if len(vector.data) <= 700]
    for vector in vectors:
        records = ctypes.create_string_buffer(DNS_RECORD.size * AMG_DNS_MAX_RECORDS)
        fitted = False
        for room in [*range(120), 500, 1500, 6000]:
            text = ctypes.create_string_buffer(b"\xee" * (room + 8), room + 8)
            call = DNS_CALL.pack(ctypes.addressof(records), AMG_DNS_MAX_RECORDS, ctypes.addressof(text), room)
            size = core.dns.read_call(call, vector.data, len(vector.data))
            assert text.raw[room:] == b"\xee" * 8
            assert size == AMG_DNS_NO_ROOM or size <= room
            assert not fitted or size != AMG_DNS_NO_ROOM
            fitted = size != AMG_DNS_NO_ROOM
            if fitted:
                assert size == 0 or text.raw[size - 1] == 0
                assert text.raw[size:] == b"\xee" * (room + 8 - size)
        assert fitted


def test_the_number_of_a_fault(core: Core) -> None:
    call = DNS_CALL.pack(0, 0, 0, 0)
    assert core.dns.read_call(call, b"", 0) == AMG_DNS_REFUSED | 1
    assert core.dns.read_call(call, bytes(13), 13) == AMG_DNS_REFUSED | 7
    assert core.dns.read_call(call, bytes(12), 12) == 0


def test_threads_do_not_disturb_each_other() -> None:
    """Readers in several threads, switched as often as can be: each gets its own message."""
    pairs = [(vector.data, vector.message) for vector in VALID if len(vector.data) < 2000] + [large()]
    wrong: list[object] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(400):
            data, message = chance.choice(pairs)
            if dns_native.read_message(data) != message:
                wrong.append(message)
            packet = sntp.SntpPacket(transmit=chance.getrandbits(64), stratum=chance.randrange(256))
            if sntp_native.read_packet(sntp.write_packet(packet)) != packet:
                wrong.append(packet)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []
    assert len(dns_native._spare) <= 7
    assert len(sntp_native._spare) <= 7


def test_without_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCMG_CORE", "off")
    monkeypatch.setattr(dns_native, "_spare", [])
    monkeypatch.setattr(sntp_native, "_spare", [])
    with pytest.raises(CoreUnavailable, match="ASYNCMG_CORE=off"):
        dns_native.read_message(bytes(12))
    with pytest.raises(CoreUnavailable, match="ASYNCMG_CORE=off"):
        sntp_native.read_packet(bytes(48))


def test_sntp_packets_of_the_core(core: Core) -> None:
    """What the core reads it writes again; of leap, version and mode the bits that have room."""
    chance = random.Random(3)
    packet = ctypes.create_string_buffer(asyncmg.core.records.SNTP_PACKET.size)
    out = ctypes.create_string_buffer(48)
    for _ in range(300):
        data = bytes([chance.randrange(256) & 0xC7 | chance.randrange(1, 5) << 3]) + chance.randbytes(47)
        tail = 4 * chance.randrange(5)
        assert core.sntp.read(data + bytes(tail), 48 + tail, ctypes.addressof(packet)) == 0
        assert asyncmg.core.records.SNTP_PACKET.unpack(packet.raw)[6] == tail
        core.sntp.write(ctypes.addressof(packet), ctypes.addressof(out))
        assert out.raw == data
    ctypes.memset(packet, 0xFF, 3)
    core.sntp.write(ctypes.addressof(packet), ctypes.addressof(out))
    assert out.raw[0] == 0xFF
