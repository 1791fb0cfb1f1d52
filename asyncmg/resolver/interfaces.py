"""The machine's network interfaces and their addresses, asked of the system by ``getifaddrs(3)``."""

from __future__ import annotations

import ipaddress
import socket
import sys
from typing import Final, NamedTuple

IpInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_IFF_UP: Final = 0x1
_IFF_LOOPBACK: Final = 0x8
_IFF_MULTICAST: Final = 0x1000 if sys.platform == "linux" else 0x8000


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


def own_interfaces() -> list[Interface]:
    """Return the interfaces that are up and have an address.

    Where the system does not tell (Windows, or a Python without ctypes) there is one without a name, with the addresses
    of the host's name.
    """
    found: dict[str, tuple[int, list[IpInterface]]] = {}
    try:
        from .getifaddrs import all_addresses

        for name, flags, address in all_addresses():
            if flags & _IFF_UP:
                found.setdefault(name, (flags, []))[1].append(address)
    except (ImportError, OSError, AttributeError, TypeError):
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


def _unknown_interface() -> Interface:
    # The prefixes are not known: every IPv4 source counts as near, of IPv6 those of the usual /64.
    addresses = [ipaddress.ip_interface("127.0.0.1/8")]
    for *_, address in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_DGRAM):
        ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
        addresses.append(ipaddress.ip_interface(f"{ip}/{0 if ip.version == 4 else 64}"))
    return Interface("", 0, tuple(dict.fromkeys(addresses)), is_loopback=False, has_multicast=True)
