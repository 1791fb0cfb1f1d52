"""Giving protocol objects their transports: accepted sockets, outgoing connections, UDP sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any

from asyncmg.addresses import address_of
from asyncmg.connection import Connection
from asyncmg.errors import AsyncmgError, ConnectFailed
from asyncmg.events import MG_EV_RESOLVE
from asyncmg.limits import NetLimits
from asyncmg.protocols.base import BaseProtocol
from asyncmg.protocols.datagram import DatagramProtocol
from asyncmg.proxies import Proxy, open_tunnel
from asyncmg.resolver.hosts import HostAddresses, find_addresses
from asyncmg.resolver.service import Resolver
from asyncmg.transports.backend import Backend
from asyncmg.transports.sockets import SockAddr, connect_fastest, unix_address
from asyncmg.urls import Url


async def adopt(adopting: Coroutine[Any, Any, None], protocol: BaseProtocol) -> None:
    """Wait until an accepted connection has its transport. Cancelling closes it."""
    try:
        await adopting
    except OSError as exc:  # the peer reset the connection while it waited
        protocol.fail(ConnectFailed(exc.errno, f"accepted connection failed: {exc}"))
    except asyncio.CancelledError:
        _end_cancelled(protocol, None)
        raise


async def dial(
    conn: Connection,
    protocol: BaseProtocol,
    url: Url,
    limits: NetLimits,
    backend: Backend,
    resolver: Resolver,
    proxy: Proxy | None = None,
) -> None:
    """Resolve, connect, and give the socket to the protocol; what fails, fails the protocol. Cancelling closes."""
    peer = proxy.url if proxy is not None else url
    sock: socket.socket | None = None
    found: HostAddresses | None = None
    try:
        async with asyncio.timeout(limits.connect_timeout):
            if url.scheme == "unix":
                found = HostAddresses([(socket.AF_UNIX, unix_address(url.host))])
            else:
                found = await find_addresses(resolver, peer.host, peer.port)
            _tell(conn, found)
            sock = await connect_fastest(found.first, limits.connect_attempt_delay, found.late)
            if proxy is not None:
                await open_tunnel(sock, proxy, url.host_and_port)
        await backend.open_stream(sock, protocol)
    except (OSError, AsyncmgError) as exc:  # AsyncmgError: of a name that cannot be looked up
        if sock is not None and not protocol.has_been_made:
            sock.close()
        protocol.fail(_failure(exc, f"connect to {peer}", limits))
    except asyncio.CancelledError:
        _end_cancelled(protocol, sock)
        raise
    finally:
        if found is not None:
            found.close()


async def dial_datagram(
    conn: Connection,
    protocol: DatagramProtocol,
    url: Url,
    limits: NetLimits,
    backend: Backend,
    resolver: Resolver,
) -> None:
    """Resolve and open a connected UDP socket. Cancelling closes."""
    try:
        async with asyncio.timeout(limits.connect_timeout):
            found = await find_addresses(resolver, url.host, url.port)
        found.close()
        _tell(conn, found)
        sock = _connected_datagram(found.first)
        try:
            await backend.open_datagram(sock, protocol)
        except BaseException:
            sock.close()
            raise
    except (OSError, AsyncmgError) as exc:
        protocol.fail(_failure(exc, f"connect to {url}", limits))
    except asyncio.CancelledError:
        protocol.close()
        raise


def _connected_datagram(addresses: list[SockAddr]) -> socket.socket:
    """Connect a UDP socket to the first address to which there is a way."""
    failure: OSError | None = None
    for family, address in addresses:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setblocking(False)
        try:
            sock.connect(address)
        except OSError as exc:
            sock.close()
            failure = failure or exc
        else:
            return sock
    assert failure is not None
    raise failure


async def resolve_for(conn: Connection, host: str, port: int, limits: NetLimits, resolver: Resolver) -> None:
    """Look up a host for ``Connection.resolve``: MG_EV_RESOLVE, or MG_EV_ERROR and the end."""
    try:
        async with asyncio.timeout(limits.connect_timeout):
            found = await find_addresses(resolver, host, port)
    except (OSError, AsyncmgError) as exc:
        if not conn.is_closing:
            conn.protocol.fail(_failure(exc, f"resolve {host}", limits))
    else:
        found.close()
        _tell(conn, found)


def _tell(conn: Connection, found: HostAddresses) -> None:
    """MG_EV_RESOLVE with the addresses; without a peer, ``remote_addr`` is the first of them."""
    addresses = [address for _, item in found.first if (address := address_of(item)) is not None]
    conn.resolved = addresses[0]
    conn.handle_event(MG_EV_RESOLVE, addresses)


def _end_cancelled(protocol: BaseProtocol, sock: socket.socket | None) -> None:
    if protocol.has_been_made:
        # uvloop reports no connection_lost here; where it comes as well, the second one does nothing.
        protocol.loop.call_soon(protocol.connection_lost, None)
        return
    if sock is not None:
        sock.close()
    protocol.abort()


def _failure(error: OSError | AsyncmgError, what: str, limits: NetLimits) -> ConnectFailed:
    if isinstance(error, ConnectFailed):
        return error
    if not isinstance(error, OSError):
        failure = ConnectFailed(f"cannot {what}: {error}")
    elif isinstance(error, TimeoutError):
        failure = ConnectFailed(error.errno, f"cannot {what}: no answer in {limits.connect_timeout} s")
    else:
        failure = ConnectFailed(error.errno, f"cannot {what}: {error.strerror or error}")
    failure.__cause__ = error
    return failure
