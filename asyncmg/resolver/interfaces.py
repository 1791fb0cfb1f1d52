"""The machine's network interfaces and their addresses, asked of the system by ``getifaddrs(3)``."""

from __future__ import annotations

import ctypes
import ctypes.util
import ipaddress
import socket
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

IpInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_IFF_UP: Final = 0x1
_IFF_LOOPBACK: Final = 0x8
_IFF_MULTICAST: Final = 0x1000 if sys.platform == "linux" else 0x8000
_HAS_LENGTH: Final = sys.platform != "linux"  # the BSDs' socket addresses begin with their length


class Interface(NamedTuple):
    """A network interface that is up.

    Attributes:
        number: the system's, what IPv6 zones are told by.
        addresses: with the prefix of their network.
    """

    name: str
    number: int
    addresses: tuple[IpInterface, ...]
    is_loopback: bool
    has_multicast: bool

    def of_version(self, version: int) -> tuple[IpInterface, ...]:
        """Return the addresses of IPv4 or of IPv6."""
        return tuple(address for address in self.addresses if address.version == version)


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


def own_interfaces() -> list[Interface]:
    """Return the interfaces that are up and have an address.

    Where the system does not tell (Windows) there is one without a name, with the addresses of the host's name.
    """
    found: dict[str, tuple[int, list[IpInterface]]] = {}
    try:
        for name, flags, address in _addresses():
            if flags & _IFF_UP:
                found.setdefault(name, (flags, []))[1].append(address)
    except (OSError, AttributeError):
        return [_unknown_interface()]
    interfaces = []
    for name, (flags, addresses) in found.items():
        try:
            index = socket.if_nametoindex(name)
        except OSError:
            continue  # an alias, or it has just gone
        is_loopback, has_multicast = bool(flags & _IFF_LOOPBACK), bool(flags & _IFF_MULTICAST)
        interfaces.append(Interface(name, index, tuple(addresses), is_loopback, has_multicast))
    return interfaces


def chosen_interfaces(interface: str) -> list[Interface]:
    """Return the interfaces to speak multicast on.

    Args:
        interface: a name, or an address: that interface, and this address only. "": all that can multicast; the
            loopback one only where there is no other.

    Raises:
        ValueError: there is no such interface.
    """
    everything = own_interfaces()
    if not interface:
        usual = [item for item in everything if item.has_multicast and not item.is_loopback]
        return usual or everything
    for item in everything:
        if item.name == interface:
            return [item]
    try:
        ip = ipaddress.ip_address(interface.partition("%")[0])
    except ValueError:
        raise ValueError(f"no network interface {interface!r}") from None
    for item in everything:
        addresses = tuple(address for address in item.addresses if address.ip == ip)
        if addresses:
            return [item._replace(addresses=addresses)]
    raise ValueError(f"no network interface has the address {interface}")


def _addresses() -> Iterator[tuple[str, int, IpInterface]]:
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


def _unknown_interface() -> Interface:
    # The prefixes are not known: every IPv4 source counts as near, of IPv6 those of the usual /64.
    addresses = [ipaddress.ip_interface("127.0.0.1/8")]
    for *_, address in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_DGRAM):
        ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
        addresses.append(ipaddress.ip_interface(f"{ip}/{0 if ip.version == 4 else 64}"))
    return Interface("", 0, tuple(dict.fromkeys(addresses)), is_loopback=False, has_multicast=True)
