"""Every vector of tests/vectors/sntp.txt: packets on every codec; replies and times in Python and in the C core."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest

import asyncmg.core
from asyncmg.codecs import sntp
from asyncmg.codecs.sntp import SntpPacket, SntpReader
from asyncmg.codecs.sntp_native import ERRORS
from asyncmg.core.records import SNTP_PACKET
from asyncmg.errors import KissOfDeath, LocalProtocolError, RemoteProtocolError
from tests.codecs.sntp_vector_file import (
    GOOD_REPLY,
    SNTP_CODECS,
    Fault,
    PacketVector,
    ReplyVector,
    TimeVector,
    read_sntp_vectors,
)

VECTORS = read_sntp_vectors()
PACKETS = [vector for vector in VECTORS if isinstance(vector, PacketVector)]
REPLIES = [vector for vector in VECTORS if isinstance(vector, ReplyVector)]
TIMES = [vector for vector in VECTORS if isinstance(vector, TimeVector)]

Check = Callable[[SntpPacket, int, int], Fault | None]


def check_by_the_core(reply: SntpPacket, transmitted: int, version: int) -> Fault | None:
    core = asyncmg.core.load()
    assert core is not None
    fields = (*reply[:6], 0, *reply[6:8], *reply.reference_id, *bytes(4), *reply[9:])
    number = core.sntp.check(SNTP_PACKET.pack(*fields), transmitted, version)
    return [None, *ERRORS.values()][number]


CHECKS: dict[str, Check] = {"portable": sntp.reply_fault}
if "native" in SNTP_CODECS:
    CHECKS["native"] = check_by_the_core

codecs = pytest.mark.parametrize("read", SNTP_CODECS.values(), ids=SNTP_CODECS)


def fault_of(read: SntpReader, data: bytes) -> Fault:
    with pytest.raises(RemoteProtocolError) as caught:
        read(data)
    assert type(caught.value) is RemoteProtocolError
    return str(caught.value).removesuffix(f" ({caught.value.section})"), caught.value.section


@codecs
@pytest.mark.parametrize("vector", PACKETS, ids=lambda vector: vector.name)
def test_packets(read: SntpReader, vector: PacketVector) -> None:
    if vector.fault is not None:
        assert fault_of(read, vector.data) == vector.fault
        return
    packet = read(vector.data)
    assert packet == vector.packet
    assert type(packet) is SntpPacket
    assert [type(value) for value in packet] == [type(value) for value in SntpPacket()]
    assert sntp.write_packet(packet) == vector.data[: sntp.PACKET_SIZE]


@codecs
def test_every_length(read: SntpReader) -> None:
    packet = sntp.write_packet(GOOD_REPLY)
    for size in range(1100):
        data = packet.ljust(size, b"\1")[:size]
        if 48 <= size <= 1024 and size % 4 == 0:
            assert read(data) == GOOD_REPLY
        else:
            wanted = sntp.TOO_SHORT if size < 48 else sntp.TOO_LONG if size > 1024 else sntp.BAD_TAIL
            assert fault_of(read, data) == wanted


@codecs
def test_every_first_byte(read: SntpReader) -> None:
    for first in range(256):
        data = bytes([first]) + bytes(47)
        if 1 <= first >> 3 & 7 <= 4:
            assert read(data)[:3] == (first >> 6, first >> 3 & 7, first & 7)
        else:
            assert fault_of(read, data) == sntp.BAD_VERSION


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("vector", REPLIES, ids=lambda vector: vector.name)
def test_replies(check: Check, vector: ReplyVector) -> None:
    assert check(vector.reply, vector.transmitted, vector.version) == vector.fault


@pytest.mark.parametrize("vector", REPLIES, ids=lambda vector: vector.name)
def test_replies_that_are_refused(vector: ReplyVector) -> None:
    if vector.fault is None:
        sntp.check_reply(vector.reply, vector.transmitted, vector.version)
        return
    with pytest.raises(RemoteProtocolError) as caught:
        sntp.check_reply(vector.reply, vector.transmitted, vector.version)
    assert str(caught.value).startswith(vector.fault[0])
    assert caught.value.section == vector.fault[1]
    if vector.fault is sntp.KISS:
        assert isinstance(caught.value, KissOfDeath)
        assert caught.value.code == (vector.reply.reference_id.decode().rstrip("\0") or "?") in vector.name + "?"


def test_every_fault_is_met() -> None:
    faults = {value for value in vars(sntp).values() if isinstance(value, tuple) and str(value[-1]).startswith("RFC ")}
    assert {vector.fault for vector in (*PACKETS, *REPLIES)} - {None} == faults == set(ERRORS.values())


@pytest.mark.parametrize("vector", TIMES, ids=lambda vector: vector.name)
def test_timestamps(vector: TimeVector) -> None:
    core = asyncmg.core.load()
    assert sntp.to_timestamp(vector.ns) == vector.timestamp
    if core is not None:
        assert core.sntp.to_timestamp(vector.ns) == vector.timestamp
    half_an_era = (1 << 31) * 1_000_000_000
    for shift in (0, 1, -1, half_an_era - 10**9, 10**9 - half_an_era, 10**18, -(10**18)):
        around = vector.ns + shift
        assert sntp.from_timestamp(vector.timestamp, around) == vector.ns
        if core is not None and abs(around) < 1 << 63:
            assert core.sntp.from_timestamp(vector.timestamp, around) == vector.ns


def test_an_era_away() -> None:
    """A clock that is wrong by more than 68 years is taken by its word."""
    era = (1 << 32) * 1_000_000_000
    for vector in TIMES:
        assert sntp.from_timestamp(vector.timestamp, vector.ns + era) == vector.ns + era
        assert sntp.from_timestamp(vector.timestamp, vector.ns - era // 2 - 10**9) == vector.ns - era


OFFSETS = [
    ((0, 0, 0, 0), (0, 0)),
    ((100, 150, 160, 120), (45, 10)),  # RFC 5905 section 8: ((150 - 100) + (160 - 120)) / 2, (120 - 100) - (160 - 150)
    ((1000, 400, 500, 1100), (-600, 0)),
    ((0, 1, 1, 1), (0, 1)),  # rounded down
    ((1, 0, 0, 0), (-1, -1)),
    ((0, -3, 0, 0), (-2, -3)),
    ((0, 1, 1, 0), (1, 0)),  # two halves
    ((1, 0, 0, 1), (-1, 0)),
    ((10**18, 2 * 10**18, 2 * 10**18 + 5, 10**18 + 10), (10**18 - 3, 5)),
]


@pytest.mark.parametrize(("times", "wanted"), OFFSETS)
def test_offset_and_delay(times: tuple[int, int, int, int], wanted: tuple[int, int]) -> None:
    assert sntp.offset_and_delay(*times) == wanted
    core = asyncmg.core.load()
    if core is not None:
        offset, delay = ctypes.c_int64(), ctypes.c_int64()
        core.sntp.offset_and_delay(*times, ctypes.byref(offset), ctypes.byref(delay))
        assert (offset.value, delay.value) == wanted


@pytest.mark.parametrize(
    "changes",
    [
        {"leap": 4},
        {"leap": -1},
        {"version": 8},
        {"mode": 8},
        {"stratum": 256},
        {"poll": 128},
        {"precision": -129},
        {"root_delay": 1 << 31},
        {"root_dispersion": -1},
        {"transmit": 1 << 64},
    ],
    ids=str,
)
def test_values_that_do_not_fit(changes: dict[str, int]) -> None:
    with pytest.raises(LocalProtocolError, match="SNTP packet cannot be written"):
        sntp.write_packet(SntpPacket()._replace(**changes))  # type: ignore[arg-type]


def test_what_a_server_tells_of_its_clock() -> None:
    assert GOOD_REPLY._replace(reference_id=b"\x7f\0\0\1").reference_text == "127.0.0.1"
    assert GOOD_REPLY._replace(stratum=1, reference_id=b"GPS\0").reference_text == "GPS"
    assert GOOD_REPLY._replace(stratum=1, reference_id=b"\xff\0\0\0").reference_text == "\N{REPLACEMENT CHARACTER}"
    assert GOOD_REPLY.kiss_code == SntpPacket().kiss_code == ""
    assert GOOD_REPLY._replace(stratum=0, reference_id=b"RATE").kiss_code == "RATE"
