"""Laws of the DNS codecs: what is written is read again, names go there and back, garbage is refused as documented."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncmg.codecs import dns
from asyncmg.codecs.dns import (
    DnsMessage,
    DnsQuestion,
    DnsRecord,
    MxData,
    RecordType,
    SoaData,
    SrvData,
    TxtData,
    show_address,
    show_label,
    split_name,
    write_message,
    write_query,
)
from asyncmg.errors import LocalProtocolError, RemoteProtocolError
from tests.codecs.dns_vector_file import DNS_CODECS
from tests.fuzz.fuzz_dns_differential import make_input, make_message

U8, U16, U32 = st.integers(0, 255), st.integers(0, 65535), st.integers(0, 0xFFFFFFFF)
LABEL = st.one_of(
    st.binary(min_size=1, max_size=63), st.text("abcXYZ-_.\\\0é", min_size=1, max_size=20).map(str.encode)
)


def fits(labels: list[bytes]) -> bool:
    return sum(map(len, labels)) + len(labels) < dns.MAX_NAME


LABELS = st.lists(LABEL, max_size=6).filter(fits)
NAME = LABELS.map(lambda labels: ".".join(map(show_label, labels)))
TTL = st.integers(0, 0x7FFFFFFF)
CLASS = st.sampled_from([dns.IN, dns.IN | dns.TOP_BIT])
DATA = {
    RecordType.A: st.binary(min_size=4, max_size=4).map(show_address),
    RecordType.AAAA: st.binary(min_size=16, max_size=16).map(show_address),
    RecordType.NS: NAME,
    RecordType.CNAME: NAME,
    RecordType.PTR: NAME,
    RecordType.MX: st.builds(MxData, U16, NAME),
    RecordType.TXT: st.lists(st.binary(max_size=255), min_size=1, max_size=4).map(TxtData),
    RecordType.SRV: st.builds(SrvData, U16, U16, U16, NAME),
    RecordType.SOA: st.builds(SoaData, NAME, NAME, U32, U32, U32, U32, U32),
}
RECORD = st.one_of(
    *(st.builds(DnsRecord, NAME, st.just(int(kind)), data, TTL, CLASS) for kind, data in DATA.items()),
    st.builds(DnsRecord, NAME, st.integers(256, 65535), st.binary(max_size=40), TTL, U16),
    st.builds(DnsRecord, NAME, U16, st.binary(max_size=40), TTL, st.sampled_from([3, 254, 255])),
    st.builds(DnsRecord, st.just(""), st.just(41), st.binary(max_size=40), U32, U16.filter(lambda size: size != 1)),
)
SECTION = st.lists(RECORD, max_size=4)
# OPT may have any time to live, other records of its type number none above 2^31 - 1: those are other types.
MESSAGE = st.builds(
    DnsMessage, U16, U16, st.lists(st.builds(DnsQuestion, NAME, U16, U16), max_size=3), SECTION, SECTION, SECTION
)
SEEDS = st.integers(0, 2**48)

FAULTS = [value for value in vars(dns).values() if isinstance(value, tuple) and "RFC " in str(value[-1])]

codecs = pytest.mark.parametrize("read", DNS_CODECS.values(), ids=DNS_CODECS)


@codecs
@given(message=MESSAGE)
def test_messages_round_trip(read, message: DnsMessage) -> None:
    assert read(write_message(message)) == message


@codecs
@given(seed=SEEDS)
def test_messages_with_many_equal_names_round_trip(read, seed: int) -> None:
    message = make_message(random.Random(seed))
    data = write_message(message)
    assert read(data) == message
    assert write_message(read(data)) == data


@codecs
@given(number=U16, name=NAME, kind=U16, class_=U16, flags=U16, udp_size=U16)
def test_queries_round_trip(read, number: int, name: str, kind: int, class_: int, flags: int, udp_size: int) -> None:
    question = DnsQuestion(name, kind, class_)
    message = read(write_query(number, question, flags=flags, udp_size=udp_size))
    edns = [DnsRecord("", 41, b"", 0, udp_size)] if udp_size else []
    assert message == DnsMessage(number, flags, [question], [], [], edns)


@given(labels=LABELS)
def test_names_round_trip(labels: list[bytes]) -> None:
    name = ".".join(map(show_label, labels))
    assert split_name(name) == labels
    assert split_name(name + ".") == labels
    assert dns.same_name(name, name + ".")
    assert "\0" not in name


@given(text=st.one_of(st.text(max_size=30), st.text("a.\\0129é", max_size=12)))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        labels = split_name(text)
    except LocalProtocolError:
        return
    shown = ".".join(map(show_label, labels))
    assert split_name(shown) == labels
    assert fits(labels)


@codecs
@given(seed=SEEDS)
def test_garbage_is_refused_as_documented(read, seed: int) -> None:
    data = make_input(random.Random(seed))
    try:
        message = read(data)
    except RemoteProtocolError as exc:
        refused = exc
    else:
        assert read(write_message(message)) == message
        return
    assert refused.section in {section for _, section in FAULTS}
    assert str(refused).removesuffix(f" ({refused.section})") in {text for text, _ in FAULTS}


@codecs
@given(data=st.binary(max_size=80), count=st.integers(0, 3))
def test_bytes_at_random(read, data: bytes, count: int) -> None:
    for candidate in (data, dns.HEADER.pack(1, 0, 0, count, 0, 0) + data):
        try:
            message = read(candidate)
        except RemoteProtocolError:
            continue
        assert sum(map(len, message[2:])) <= dns.MAX_RECORDS
        assert read(write_message(message)) == message


@pytest.mark.skipif("native" not in DNS_CODECS, reason="no C core")
@given(seed=SEEDS)
def test_the_codecs_agree(seed: int) -> None:
    data = make_input(random.Random(seed))
    outcomes = []
    for read in DNS_CODECS.values():
        try:
            outcomes.append(repr(read(data)))
        except RemoteProtocolError as exc:
            outcomes.append(repr(exc))
    assert outcomes[0] == outcomes[1]
