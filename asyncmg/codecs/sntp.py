"""SNTP packets (RFC 4330, RFC 5905 section 7.3): the contract of the codecs, timestamps, and what makes a reply valid.

A codec reads one datagram. Writing and checking exist once, here. Times are nanoseconds since 1970, UTC, as ints, as
``time.time_ns()`` tells them; on the wire they are 64-bit fixed-point numbers of seconds since an era's beginning.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from struct import Struct, error
from typing import Final, NamedTuple

from asyncmg.errors import KissOfDeath, LocalProtocolError, RemoteProtocolError

PACKET_SIZE: Final = 48  # bytes without extension fields and MAC
VERSION: Final = 4

# Association modes (RFC 5905 figure 10).
CLIENT: Final = 3
SERVER: Final = 4

UNSYNCHRONIZED: Final = 3  # leap indicator: the clock is not set
MAX_STRATUM: Final = 15  # of a synchronized clock; 0: kiss-o'-death
MAX_ROOT_DISTANCE: Final = 16.0  # seconds; MAXDISP of RFC 5905: a server that is less sure knows nothing

EPOCH_OFFSET: Final = 2_208_988_800  # seconds from 1900, when era 0 began, to 1970
_ERA: Final = 1 << 32  # seconds
_SECOND: Final = 1_000_000_000

PACKET: Final = Struct(">BBbbiI4s4Q")


class SntpPacket(NamedTuple):
    """One packet.

    Attributes:
        leap: 0 no warning, 1 the last minute of the day has 61 seconds, 2 it has 59, 3 unsynchronized.
        stratum: 1 with a reference clock, 2 to 15 behind a server; 0 in requests, and kiss-o'-death in replies.
        poll, precision: exponents of two, in seconds.
        root_delay, root_dispersion: to the reference clock, in 1/65536 s.
        reference_id: four bytes: of the reference clock (ASCII), or of the server's server.
        reference, originate, receive, transmit: 64-bit timestamps as they are on the wire; 0: not known.
    """

    leap: int = 0
    version: int = VERSION
    mode: int = CLIENT
    stratum: int = 0
    poll: int = 0
    precision: int = 0
    root_delay: int = 0
    root_dispersion: int = 0
    reference_id: bytes = b"\x00\x00\x00\x00"
    reference: int = 0
    originate: int = 0
    receive: int = 0
    transmit: int = 0

    @property
    def kiss_code(self) -> str:
        """The four letters of a kiss-o'-death packet (RFC 5905 section 7.4); "" of any other."""
        if self.stratum or self.mode != SERVER:
            return ""
        return self.reference_id.rstrip(b"\x00").decode("ascii", "replace") or "?"

    @property
    def reference_text(self) -> str:
        """What the server is synchronized to: ``GPS``, ``127.0.0.1``, of an IPv6 server some hash as an address."""
        if self.stratum > 1:
            return str(ipaddress.ip_address(self.reference_id))
        return self.reference_id.rstrip(b"\x00").decode("ascii", "replace")


#: Reads one datagram. Raises RemoteProtocolError for anything that is not an SNTP packet.
SntpReader = Callable[[bytes], SntpPacket]

# What is wrong with a datagram, in the order of AMG_SNTP_E_.
TOO_SHORT: Final = ("packet of less than 48 bytes", "RFC 5905 section 7.3")
BAD_VERSION: Final = ("version other than 1 to 4", "RFC 5905 section 7.3")
BAD_TAIL: Final = ("extension fields or MAC cut off", "RFC 7822 section 3")
MAX_SIZE: Final = 1024  # bytes of a datagram with everything behind the packet
TOO_LONG: Final = ("packet of more than 1024 bytes", "RFC 7822 section 3")

# What makes a reply invalid, in the order of the tests (RFC 4330 section 5, RFC 5905 section 8).
NOT_A_REPLY: Final = ("mode other than server", "RFC 4330 section 5")
WRONG_VERSION: Final = ("version other than asked in", "RFC 4330 section 5")
WRONG_ORIGIN: Final = ("originate timestamp is not the request's: spoofed or late", "RFC 5905 section 8")
KISS: Final = ("kiss-o'-death", "RFC 5905 section 7.4")
NOT_SYNCHRONIZED: Final = ("the server's clock is not synchronized", "RFC 4330 section 5")
BAD_STRATUM: Final = ("stratum above 15", "RFC 4330 section 5")
NO_TIME: Final = ("no transmit or receive timestamp", "RFC 4330 section 5")
TOO_UNSURE: Final = ("the server's root distance is 16 s or more", "RFC 5905 section 11.2.2")
TIME_RUNS_BACK: Final = ("transmitted before it was received", "RFC 5905 section 8")


def refuse(fault: tuple[str, str]) -> RemoteProtocolError:
    """Make the exception of one of the faults above."""
    return RemoteProtocolError(fault[0], section=fault[1])


# -- time -----------------------------------------------------------------------------------------------------------


def to_timestamp(ns: int) -> int:
    """Turn a time into a 64-bit NTP timestamp; the era is left away (RFC 5905 section 6)."""
    seconds, rest = divmod(ns, _SECOND)
    # Rounded up, so that from_timestamp() gives the nanosecond back.
    return (seconds + EPOCH_OFFSET) % _ERA << 32 | -(-(rest << 32) // _SECOND)


def from_timestamp(timestamp: int, near: int) -> int:
    """Turn a 64-bit NTP timestamp into a time: that in the era which brings it nearest to ``near``.

    The first era ends on 7 February 2036; a clock that is right by less than 68 years tells eras apart.

    Args:
        near: a time that is about right, such as our clock's.
    """
    seconds = (timestamp >> 32) - EPOCH_OFFSET
    eras = (near // _SECOND - seconds + _ERA // 2) // _ERA
    return (seconds + eras * _ERA) * _SECOND + ((timestamp & 0xFFFFFFFF) * _SECOND >> 32)


def offset_and_delay(sent: int, received: int, replied: int, arrived: int) -> tuple[int, int]:
    """Return the clock offset and the round-trip delay (RFC 5905 section 8), in nanoseconds.

    Args:
        sent, arrived: when the request left and its reply came, by our clock.
        received, replied: when the request came and its reply left, by the server's clock.
    """
    return ((received - sent) + (replied - arrived)) // 2, (arrived - sent) - (replied - received)


# -- writing and checking -------------------------------------------------------------------------------------------


def write_packet(packet: SntpPacket) -> bytes:
    """Write a packet, without extension fields and MAC.

    Raises:
        LocalProtocolError: a value does not fit.
    """
    leap, version, mode, *rest = packet
    try:
        if not (0 <= leap <= 3 and 0 <= version <= 7 and 0 <= mode <= 7):
            raise error("leap, version or mode out of range")
        return PACKET.pack(leap << 6 | version << 3 | mode, *rest)
    except error as exc:
        raise LocalProtocolError(f"SNTP packet cannot be written: {exc}") from exc


def check_reply(reply: SntpPacket, transmitted: int, version: int = VERSION) -> None:
    """Refuse a packet that is no valid reply to a request (RFC 4330 section 5).

    Kiss-o'-death packets are refused as such only when they echo the request: a spoofed one must not silence a client.

    Args:
        transmitted: the transmit timestamp of the request. A random one cannot be guessed by anybody off the path.
        version: of the request.

    Raises:
        KissOfDeath: the server asks to be left alone.
        RemoteProtocolError: it is invalid, with the section; its text is one of the faults above.
    """
    fault = reply_fault(reply, transmitted, version)
    if fault is KISS:
        raise KissOfDeath(reply.kiss_code)
    if fault is not None:
        raise refuse(fault)


def reply_fault(reply: SntpPacket, transmitted: int, version: int = VERSION) -> tuple[str, str] | None:
    """Tell what makes a packet no valid reply, as one of the faults above; None: nothing. See :func:`check_reply`."""
    if reply.mode != SERVER:
        return NOT_A_REPLY
    if reply.version != version:
        return WRONG_VERSION
    if reply.originate != transmitted:
        return WRONG_ORIGIN
    if reply.stratum == 0:
        return KISS
    if reply.leap == UNSYNCHRONIZED:
        return NOT_SYNCHRONIZED
    if reply.stratum > MAX_STRATUM:
        return BAD_STRATUM
    if not reply.transmit or not reply.receive:
        return NO_TIME
    if reply.root_delay / 2 + reply.root_dispersion >= MAX_ROOT_DISTANCE * 65536:
        return TOO_UNSURE
    if (reply.transmit - reply.receive) & 1 << 63:
        return TIME_RUNS_BACK
    return None
