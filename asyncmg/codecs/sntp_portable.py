"""The portable SNTP codec (RFC 5905 section 7.3): a reader of packets in Python alone."""

from __future__ import annotations

from . import sntp
from .sntp import PACKET, PACKET_SIZE, SntpPacket, refuse

_new = tuple.__new__  # a third of the time goes without a NamedTuple's own


def read_packet(data: bytes) -> SntpPacket:
    """Read one packet. Extension fields and a MAC behind it are not looked at.

    Raises:
        RemoteProtocolError: it is none.
    """
    size = len(data)
    if size < PACKET_SIZE:
        raise refuse(sntp.TOO_SHORT)
    if size > sntp.MAX_SIZE:
        raise refuse(sntp.TOO_LONG)
    if size % 4:
        raise refuse(sntp.BAD_TAIL)
    fields = PACKET.unpack_from(data)
    first = fields[0]
    version = first >> 3 & 7
    if not 1 <= version <= sntp.VERSION:
        raise refuse(sntp.BAD_VERSION)
    return _new(SntpPacket, (first >> 6, version, first & 7, *fields[1:]))
