"""Socket addresses between the C engine, which speaks struct sockaddr, and Python, which speaks tuples."""

from __future__ import annotations

import os
import socket
import struct
import sys
from typing import Any

# The BSDs have a length byte in front of a family of one byte, others a family of two.
_HAS_LENGTH = sys.platform.startswith(("darwin", "freebsd", "openbsd", "netbsd", "dragonfly"))
_AF_UNIX = getattr(socket, "AF_UNIX", None)


def decode_sockaddr(raw: bytes) -> Any:
    """Return what ``socket.getpeername()`` would: ``(ip, port)``, ``(ip, port, flow, scope)``, a path or ``""``."""
    if len(raw) < 2:
        return ""
    family = raw[1] if _HAS_LENGTH else struct.unpack_from("=H", raw)[0]
    if family == socket.AF_INET:
        return socket.inet_ntop(family, raw[4:8]), struct.unpack_from(">H", raw, 2)[0]
    if family == socket.AF_INET6:
        port, flow = struct.unpack_from(">HI", raw, 2)
        return socket.inet_ntop(family, raw[8:24]), port, flow, struct.unpack_from("=I", raw, 24)[0]
    path = raw[2:]
    if path.startswith(b"\0") and sys.platform == "linux":
        return path  # an abstract name
    return os.fsdecode(path.partition(b"\0")[0])


def encode_sockaddr(family: int, address: Any) -> bytes:
    """Return the struct of a tuple for IPv4 or IPv6.

    Raises:
        OSError: the address is not numeric, or its scope is no interface.
        OverflowError: the port is out of range.
    """
    if not 0 <= address[1] <= 0xFFFF:
        raise OverflowError(f"port must be 0-65535, not {address[1]}")
    size = 16 if family == socket.AF_INET else 28
    prefix = struct.pack("BB", size, family) if _HAS_LENGTH else struct.pack("=H", family)
    if family == socket.AF_INET:
        return prefix + struct.pack(">H", address[1]) + socket.inet_pton(family, address[0]) + bytes(8)
    flow, scope = (*address[2:], 0, 0)[:2]
    host, _, name = address[0].partition("%")
    ip = socket.inet_pton(family, host)
    if name:
        scope = int(name) if name.isdecimal() else socket.if_nametoindex(name)
    return prefix + struct.pack(">HI", address[1], flow) + ip + struct.pack("=I", scope)
