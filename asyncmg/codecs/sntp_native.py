"""The native SNTP codec (RFC 5905 section 7.3): amg_sntp.c of the C core reads packets.

It is not what is taken by default (see :mod:`asyncmg.codecs.choice`); it holds the core against the portable one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from struct import Struct
from typing import Any, Final

from asyncmg.core import CoreUnavailable, load, status
from asyncmg.core.records import SNTP_PACKET

from . import sntp
from .sntp import SntpPacket, refuse

# AMG_SNTP_E_ in the order of amg.h.
ERRORS: Final = {
    "AMG_SNTP_E_TOO_SHORT": sntp.TOO_SHORT,
    "AMG_SNTP_E_VERSION": sntp.BAD_VERSION,
    "AMG_SNTP_E_TAIL": sntp.BAD_TAIL,
    "AMG_SNTP_E_TOO_LONG": sntp.TOO_LONG,
    "AMG_SNTP_E_NOT_A_REPLY": sntp.NOT_A_REPLY,
    "AMG_SNTP_E_WRONG_VERSION": sntp.WRONG_VERSION,
    "AMG_SNTP_E_WRONG_ORIGIN": sntp.WRONG_ORIGIN,
    "AMG_SNTP_E_KISS": sntp.KISS,
    "AMG_SNTP_E_NOT_SYNCHRONIZED": sntp.NOT_SYNCHRONIZED,
    "AMG_SNTP_E_STRATUM": sntp.BAD_STRATUM,
    "AMG_SNTP_E_NO_TIME": sntp.NO_TIME,
    "AMG_SNTP_E_TOO_UNSURE": sntp.TOO_UNSURE,
    "AMG_SNTP_E_TIME_RUNS_BACK": sntp.TIME_RUNS_BACK,
}
_ERRORS = (sntp.TOO_SHORT, *ERRORS.values())  # by number

#: An amg_sntp_packet as the fields of SntpPacket; tail and reserved are left out.
_unpack: Callable[[Any], tuple[Any, ...]] = Struct("=4Bbb2xiI4s4x4Q").unpack


class _Workspace:
    """What a call of the core works in. A call takes one for itself: threads never share one."""

    __slots__ = ("at", "packet", "read")

    def __init__(self) -> None:
        core = load()
        if core is None:
            raise CoreUnavailable(f"the native codec needs the C core: {status().reason}")
        self.read: Callable[[bytes, int, int], int] = core.sntp.read
        self.packet = ctypes.create_string_buffer(SNTP_PACKET.size)
        self.at: int = ctypes.addressof(self.packet)


_spare: list[_Workspace] = []


def read_packet(data: bytes) -> SntpPacket:
    """Read one packet: :data:`asyncmg.codecs.sntp.SntpReader`. Extension fields and a MAC behind it are not looked at.

    Raises:
        RemoteProtocolError: it is none.
        CoreUnavailable: there is no C core.
    """
    try:
        workspace = _spare.pop()
    except IndexError:
        workspace = _Workspace()
    number = workspace.read(data, len(data), workspace.at)
    fields = _unpack(workspace.packet)
    _spare.append(workspace)
    if number:
        raise refuse(_ERRORS[number])
    return SntpPacket._make(fields)
