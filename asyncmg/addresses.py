"""Socket addresses as users see them."""

from __future__ import annotations

from typing import Any, NamedTuple, SupportsIndex


class Address(NamedTuple):
    """``(ip, port)``; ``is_ipv6`` tells the family. For a Unix socket: its path ("" when unnamed) and port 0.

    It has two members: ``ip, port = conn.remote_addr``. Index 2 is ``is_ipv6``, where cymongoose has it, although
    there is no third member: it is no part of the length, of iteration, slices or comparison.
    """

    ip: str
    port: int

    @property
    def is_ipv6(self) -> bool:
        """Whether the address is an IPv6 one."""
        return ":" in self.ip and not self.ip.startswith("@") and "/" not in self.ip

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        return self.is_ipv6 if index == 2 else tuple.__getitem__(self, index)

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.is_ipv6 else f"{self.ip}:{self.port}"


def address_of(sockaddr: Any) -> Address | None:
    """Turn what ``getsockname()`` and ``getpeername()`` return into an Address; None when there is none."""
    if isinstance(sockaddr, tuple) and len(sockaddr) >= 2:
        host, port = sockaddr[0], sockaddr[1]
        # A scope id other than 0 belongs to the address: without it a link-local one cannot be answered.
        if len(sockaddr) == 4 and sockaddr[3] and "%" not in host:
            host = f"{host}%{sockaddr[3]}"
        return Address(host, port)
    if isinstance(sockaddr, bytes):  # Linux abstract Unix socket
        return Address("@" + sockaddr[1:].decode("utf-8", "surrogateescape"), 0)
    if isinstance(sockaddr, str):
        return Address(sockaddr, 0)
    return None
