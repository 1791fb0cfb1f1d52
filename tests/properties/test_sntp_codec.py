"""Laws of the SNTP codecs: packets and times go there and back, whatever they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncmg.codecs import sntp
from asyncmg.codecs.sntp import SntpPacket
from asyncmg.errors import RemoteProtocolError
from tests.codecs.sntp_vector_file import SNTP_CODECS

U8, S8, U64 = st.integers(0, 255), st.integers(-128, 127), st.integers(0, (1 << 64) - 1)
PACKET = st.builds(
    SntpPacket,
    leap=st.integers(0, 3),
    version=st.integers(1, 4),
    mode=st.integers(0, 7),
    stratum=U8,
    poll=S8,
    precision=S8,
    root_delay=st.integers(-(1 << 31), (1 << 31) - 1),
    root_dispersion=st.integers(0, (1 << 32) - 1),
    reference_id=st.binary(min_size=4, max_size=4),
    reference=U64,
    originate=U64,
    receive=U64,
    transmit=U64,
)
NS = st.integers(-(1 << 66), 1 << 66)  # years 1 to 4300, about
SECOND = 1_000_000_000

codecs = pytest.mark.parametrize("read", SNTP_CODECS.values(), ids=SNTP_CODECS)


@codecs
@given(packet=PACKET, tail=st.binary(max_size=24))
def test_packets_round_trip(read, packet: SntpPacket, tail: bytes) -> None:
    data = sntp.write_packet(packet)
    assert len(data) == sntp.PACKET_SIZE
    assert read(data) == packet
    if len(tail) % 4 == 0:
        assert read(data + tail) == packet
    else:
        with pytest.raises(RemoteProtocolError, match="cut off"):
            read(data + tail)


@codecs
@given(data=st.binary(max_size=80))
def test_garbage(read, data: bytes) -> None:
    try:
        packet = read(data)
    except RemoteProtocolError:
        assert len(data) < 48 or len(data) % 4 or not 1 <= data[0] >> 3 & 7 <= 4
        return
    assert sntp.write_packet(packet) == data[:48]


@given(packet=PACKET, transmitted=U64, version=st.integers(1, 4))
def test_a_reply_that_does_not_echo_is_never_taken(packet: SntpPacket, transmitted: int, version: int) -> None:
    fault = sntp.reply_fault(packet, transmitted, version)
    if packet.originate != transmitted or packet.mode != sntp.SERVER or packet.version != version:
        assert fault in (sntp.NOT_A_REPLY, sntp.WRONG_VERSION, sntp.WRONG_ORIGIN)
    if fault is None:
        sntp.check_reply(packet, transmitted, version)
    else:
        with pytest.raises(RemoteProtocolError):
            sntp.check_reply(packet, transmitted, version)


@given(ns=NS, wrong=st.integers(-67 * 31_556_952 * SECOND, 67 * 31_556_952 * SECOND))
def test_times_go_there_and_back(ns: int, wrong: int) -> None:
    timestamp = sntp.to_timestamp(ns)
    assert 0 <= timestamp < 1 << 64
    assert sntp.from_timestamp(timestamp, ns + wrong) == ns


@given(timestamp=U64, near=NS)
def test_the_nearest_era_is_taken(timestamp: int, near: int) -> None:
    ns = sntp.from_timestamp(timestamp, near)
    assert abs(ns - near) <= ((1 << 31) + 1) * SECOND
    assert sntp.to_timestamp(ns) >> 32 == timestamp >> 32
    assert 0 <= timestamp - sntp.to_timestamp(ns) + 5 <= 10


@given(sent=NS, theirs=st.integers(0, 10**12), ours=st.integers(0, 10**12), offset=st.integers(-(10**15), 10**15))
def test_offset_and_delay(sent: int, theirs: int, ours: int, offset: int) -> None:
    """Of a way that takes as long there and back, the offset is told exactly, and the delay is both ways."""
    received = sent + ours + offset
    found = sntp.offset_and_delay(sent, received, received + theirs, sent + 2 * ours + theirs)
    assert found == (offset, 2 * ours)
