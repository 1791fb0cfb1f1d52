"""Domain names as text, and messages that are written: what they are, and what is refused."""

from __future__ import annotations

import pytest

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
    fold_name,
    same_name,
    show_address,
    show_label,
    split_name,
    write_message,
    write_query,
)
from asyncmg.errors import LocalProtocolError
from tests.codecs.dns_vector_file import DNS_CODECS, assemble, read_dns_vectors

# -- names --------------------------------------------------------------------------------------------------------

NAMES = [
    ("", []),
    (".", []),
    ("a", [b"a"]),
    ("a.", [b"a"]),
    ("www.example.com", [b"www", b"example", b"com"]),
    (r"first\.last.example.", [b"first.last", b"example"]),
    (r"a\\.b", [b"a\\", b"b"]),
    (r"a\.", [b"a."]),
    (r"a\\.", [b"a\\"]),
    (r"a\..", [b"a."]),
    (r"\000\255\065", [b"\0\xffA"]),
    (r"\0651", [b"A1"]),
    (r"\a\ \-", [b"a -"]),
    ("\\é", ["é".encode()]),
    ("\\\n", [b"\n"]),
    ("Küche.local", ["Küche".encode(), b"local"]),
    ("\udcff", [b"\xff"]),
    ("a" * 63, [b"a" * 63]),
    (r"\097" * 63, [b"a" * 63]),
    (".".join(["a" * 63] * 3 + ["b" * 61]), [b"a" * 63] * 3 + [b"b" * 61]),
    (".".join("a" * 127), [b"a"] * 127),
]


@pytest.mark.parametrize(("name", "labels"), NAMES)
def test_names(name: str, labels: list[bytes]) -> None:
    assert split_name(name) == labels


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("..", "empty label"),
        (".a", "empty label"),
        ("a..", "empty label"),
        ("a..b", "empty label"),
        (r"..\a", "empty label"),
        (r"\a..", "empty label"),
        ("\\", "escape"),
        ("a\\", "escape"),
        (r"\1", "escape"),
        (r"\25", "escape"),
        (r"\25a", "escape"),
        (r"\256", "escape"),
        (r"\999", "escape"),
        ("a" * 64, "too long"),
        (r"\097" * 64, "too long"),
        (".".join(["a" * 63] * 3 + ["b" * 62]), "too long"),
        (".".join("a" * 128), "too long"),
        ("\ud800", "not a domain name"),
        (chr(0xDC41), "not a domain name"),
    ],
)
def test_what_is_no_name(name: str, reason: str) -> None:
    with pytest.raises(LocalProtocolError, match=reason):
        split_name(name)
    with pytest.raises(LocalProtocolError, match=reason):
        write_query(1, DnsQuestion(name, 1))


def test_every_byte_in_a_label() -> None:
    for byte in range(256):
        for label in (bytes([byte]), b"a" + bytes([byte]) + b"1"):
            text = show_label(label)
            assert split_name(text) == [label]
            assert text.isprintable() or byte >= 0x80
            assert "\0" not in text


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("", ".", True),
        ("a", "A", True),
        ("www.Example.COM.", "WWW.example.com", True),
        ("a.b", "a.c", False),
        (r"a\.", "a", False),
        (r"a\.", r"a\..", True),
        (r"a\\", r"a\\.", True),
        (r"a\\\.", r"a\\", False),
        ("é", "É", False),  # ASCII alone is folded (RFC 4343)
        ("[", "{", False),
        ("K", "\N{KELVIN SIGN}", False),
    ],
)
def test_equal_names(one: str, other: str, same: bool) -> None:
    assert same_name(one, other) is same_name(other, one) is same
    assert (fold_name(one) == fold_name(other)) is same
    assert fold_name(fold_name(one)) == fold_name(one)


def test_addresses() -> None:
    assert show_address(b"\xc0\0\2\1") == "192.0.2.1"
    assert show_address(bytes(16)) == "::"
    assert show_address(bytes(10) + b"\xff\xff\xc0\0\2\1") == "::ffff:192.0.2.1"
    with pytest.raises(ValueError, match="3"):
        show_address(b"abc")


# -- messages -----------------------------------------------------------------------------------------------------

VALID = [vector for vector in read_dns_vectors() if vector.message is not None]


@pytest.mark.parametrize("vector", VALID, ids=str)
def test_what_was_read_can_be_written(vector) -> None:
    data = write_message(vector.message)
    for read in DNS_CODECS.values():
        assert read(data) == vector.message


def test_names_are_compressed() -> None:
    """Whole names, their ends, those of data; not the targets of SRV (RFC 2782); letters of another case are others."""
    message = DnsMessage(
        7,
        0x8180,
        [DnsQuestion("www.example.com", 1)],
        [
            DnsRecord("www.example.com", 5, "web.example.com", 1),
            DnsRecord("WEB.example.com", 15, MxData(1, "web.example.com"), 1),
            DnsRecord("", 33, SrvData(1, 2, 3, "web.example.com"), 1),
            DnsRecord("com", 6, SoaData("example.com", "a.com", 1, 2, 3, 4, 5), 1),
        ],
    )
    content = """
        n"www.example.com" 0001 0001
        c00c 0005 0001 00000001 d(s"web" c010)
        s"WEB" c010 000f 0001 00000001 d(0001 c02d)
        00 0021 0001 00000001 d(0001 0002 0003 n"web.example.com")
        c018 0006 0001 00000001 d(c010 s"a" c018 00000001 00000002 00000003 00000004 00000005)
    """
    assert write_message(message) == bytes.fromhex("000781800001000400000000") + assemble(content.strip())


def test_no_pointer_beyond_its_reach() -> None:
    """Names behind 16383 are not pointed to."""
    records = [DnsRecord("", 99, bytes(16300))] + [DnsRecord(f"{number}.example", 99, b"") for number in range(20)] * 2
    message = DnsMessage(1, 0, [], records, [], [])
    for read in DNS_CODECS.values():
        assert read(write_message(message)) == message


def test_queries() -> None:
    plain = write_query(0x1234, DnsQuestion("example.com", RecordType.AAAA), udp_size=0)
    assert plain == bytes.fromhex("12340100000100000000000007") + b"example\3com\0\0\x1c\0\1"
    edns = write_query(0x1234, DnsQuestion("example.com", RecordType.AAAA))
    assert edns == plain[:11] + b"\1" + plain[12:] + bytes.fromhex("00002904d0000000000000")
    assert (
        write_query(0, DnsQuestion("", 255, 255), flags=0, udp_size=0) == bytes(5) + b"\1" + bytes(7) + b"\0\xff\0\xff"
    )


def test_texts_without_strings() -> None:
    """There is no such record: it has one, which is empty (RFC 6763 section 6.1)."""
    data = write_message(DnsMessage(1, 0, [], [DnsRecord("a", 16, TxtData())]))
    assert DNS_CODECS["portable"](data).answers == [DnsRecord("a", 16, TxtData([b""]))]


@pytest.mark.parametrize(
    "message",
    [
        DnsMessage(-1, 0),
        DnsMessage(65536, 0),
        DnsMessage(1, 65536),
        DnsMessage(1, 0, [DnsQuestion("a", 65536)]),
        DnsMessage(1, 0, [DnsQuestion("a", 1, -1)]),
        DnsMessage(1, 0, [DnsQuestion("a..b", 1)]),
        DnsMessage(1, 0, [], [DnsRecord("a" * 64, 1, b"")]),
        DnsMessage(1, 0, [], [DnsRecord("a", 1, "192.0.2.256")]),
        DnsMessage(1, 0, [], [DnsRecord("a", 1, "::1")]),
        DnsMessage(1, 0, [], [DnsRecord("a", 28, "192.0.2.1")]),
        DnsMessage(1, 0, [], [DnsRecord("a", 1, "192.0.2.1", -1)]),
        DnsMessage(1, 0, [], [DnsRecord("a", 1, "192.0.2.1", 1 << 32)]),
        DnsMessage(1, 0, [], [DnsRecord("a", 1, "192.0.2.1", 0, 3)]),
        DnsMessage(1, 0, [], [DnsRecord("a", 1, MxData(1, "a"))]),
        DnsMessage(1, 0, [], [DnsRecord("a", 5, "b..")]),
        DnsMessage(1, 0, [], [DnsRecord("a", 15, MxData(65536, "a"))]),
        DnsMessage(1, 0, [], [DnsRecord("a", 15, "a")]),
        DnsMessage(1, 0, [], [DnsRecord("a", 16, "text")]),
        DnsMessage(1, 0, [], [DnsRecord("a", 16, TxtData([b"x" * 256]))]),
        DnsMessage(1, 0, [], [DnsRecord("a", 33, SrvData(0, 0, 65536, "a"))]),
        DnsMessage(1, 0, [], [DnsRecord("a", 6, SoaData("a", "b", 1, 2, 3, 4, 1 << 32))]),
        DnsMessage(1, 0, [], [DnsRecord("a", 99, "b")]),
        DnsMessage(1, 0, [], [DnsRecord("a", 99, bytes(65536))]),
        DnsMessage(1, 0, [], [DnsRecord("a", 99, bytes(33000))] * 2),
        DnsMessage(1, 0, [DnsQuestion("", 1)] * 65536),
    ],
)
def test_what_cannot_be_written(message: DnsMessage) -> None:
    with pytest.raises(LocalProtocolError):
        write_message(message)


def test_the_largest_message() -> None:
    message = DnsMessage(1, 0, [], [DnsRecord("", 99, bytes(65535 - 12 - 11))], [], [])
    data = write_message(message)
    assert len(data) == dns.MAX_MESSAGE
    assert DNS_CODECS["portable"](data) == message


def test_how_data_is_shown() -> None:
    assert str(MxData(10, "mail.a")) == "10 mail.a"
    assert str(MxData(0, "")) == "0 ."
    assert str(SrvData(1, 2, 80, "")) == "1 2 80 ."
    assert str(SoaData("", "", 1, 2, 3, 4, 5)) == ". . 1 2 3 4 5"
    assert str(TxtData([b'say "hi"', b""])) == r'"say \"hi\"" ""'
    assert TxtData([b"caf\xc3", b"\xa9"]).text == "café"
    attributes = TxtData([b"Path=/a", b"path=/b", b"flag", b"=x", b"empty=", b"k=v=w"]).attributes
    assert attributes == {"path": b"/a", "flag": None, "empty": b"", "k": b"v=w"}


def test_flags_and_codes() -> None:
    message = DnsMessage(1, dns.RESPONSE | dns.TRUNCATED | dns.NAME_ERROR)
    assert (message.is_response, message.is_truncated, message.rcode) == (True, True, 3)
    assert DnsMessage(1, dns.RECURSION_DESIRED)[:2] == (1, 256)
    assert not DnsMessage(1, dns.RECURSION_DESIRED).is_response
