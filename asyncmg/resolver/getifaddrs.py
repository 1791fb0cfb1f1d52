"""``getifaddrs(3)`` by ctypes: addresses and netmasks of all network interfaces."""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import sys
from collections.abc import Iterator
from typing import Final

_HAS_LENGTH: Final = sys.platform != "linux"  # the BSDs' socket addresses begin with their length


class _IfAddrs(ctypes.Structure):
    pass


_IfAddrs._fields_ = [
    ("next", ctypes.POINTER(_IfAddrs)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
    ("netmask", ctypes.c_void_p),
    ("destination", ctypes.c_void_p),
    ("data", ctypes.c_void_p),
]


def all_addresses() -> Iterator[tuple[str, int, ipaddress.IPv4Interface | ipaddress.IPv6Interface]]:
    """Yield name and flags of an interface, and one of its addresses with the prefix of its network.

    Raises:
        OSError, AttributeError, TypeError: the system does not tell.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    first = ctypes.POINTER(_IfAddrs)()
    if libc.getifaddrs(ctypes.byref(first)) != 0:
        raise OSError(ctypes.get_errno(), "getifaddrs")
    try:
        entry = first
        while bool(entry):  # a null pointer is false
            item = entry.contents
            address = _read_address(item.address)
            if address is not None:
                mask = _read_address(item.netmask, address.version)
                bits = int(mask).bit_count() if mask is not None else address.max_prefixlen
                yield item.name.decode("utf-8", "replace"), item.flags, ipaddress.ip_interface(f"{address}/{bits}")
            entry = item.next
    finally:
        libc.freeifaddrs(first)


def _read_address(where: int | None, version: int = 0) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read a ``struct sockaddr``; version: of a netmask, which on the BSDs need not tell it, and may be cut short."""
    if not where:
        return None
    head = ctypes.string_at(where, 2)
    family = head[1] if _HAS_LENGTH else int.from_bytes(head, sys.byteorder)
    size = head[0] if _HAS_LENGTH else 28
    if family == socket.AF_INET or version == 4:
        return ipaddress.IPv4Address(ctypes.string_at(where, min(size, 8))[4:].ljust(4, b"\0"))
    if family == socket.AF_INET6 or version == 6:
        packed = bytearray(ctypes.string_at(where, min(size, 24))[8:].ljust(16, b"\0"))
        if _HAS_LENGTH and packed[:2] == b"\xfe\x80":
            packed[2:4] = b"\0\0"  # where the BSDs' kernels keep the zone
        return ipaddress.IPv6Address(bytes(packed))
    return None
