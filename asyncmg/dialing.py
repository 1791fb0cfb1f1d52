"""Giving protocol objects their transports: accepted sockets, outgoing connections, UDP sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any

from asyncmg.connection import Connection
from asyncmg.errors import ConnectFailed
from asyncmg.events import MG_EV_RESOLVE
from asyncmg.limits import NetLimits
from asyncmg.protocols.base import BaseProtocol
from asyncmg.protocols.datagram import DatagramProtocol
from asyncmg.proxies import Proxy, open_tunnel
from asyncmg.transports.backend import Backend
from asyncmg.transports.sockets import SockAddr, connect_fastest, resolve_host, unix_address
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
    conn: Connection, protocol: BaseProtocol, url: Url, limits: NetLimits, backend: Backend, proxy: Proxy | None = None
) -> None:
    """Resolve, connect, and give the socket to the protocol; what fails, fails the protocol. Cancelling closes."""
    peer = proxy.url if proxy is not None else url
    sock: socket.socket | None = None
    try:
        async with asyncio.timeout(limits.connect_timeout):
            addresses: list[SockAddr]
            if url.scheme == "unix":
                addresses = [(socket.AF_UNIX, unix_address(url.host))]
            else:
                addresses = await resolve_host(peer.host, peer.port, socket.SOCK_STREAM)
            conn.handle_event(MG_EV_RESOLVE, None)
            sock = await connect_fastest(addresses, limits.connect_attempt_delay)
            if proxy is not None:
                await open_tunnel(sock, proxy, url.host_and_port)
        await backend.open_stream(sock, protocol)
    except (OSError, UnicodeError) as exc:  # UnicodeError: of a name that cannot be looked up
        if sock is not None and not protocol.has_been_made:
            sock.close()
        protocol.fail(_failure(exc, peer, limits))
    except asyncio.CancelledError:
        _end_cancelled(protocol, sock)
        raise


async def dial_datagram(
    conn: Connection, protocol: DatagramProtocol, url: Url, limits: NetLimits, backend: Backend
) -> None:
    """Resolve and open a connected UDP socket. Cancelling closes."""
    try:
        async with asyncio.timeout(limits.connect_timeout):
            family, address = (await resolve_host(url.host, url.port, socket.SOCK_DGRAM))[0]
        conn.handle_event(MG_EV_RESOLVE, None)
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setblocking(False)
        try:
            sock.connect(address)
            await backend.open_datagram(sock, protocol)
        except BaseException:
            sock.close()
            raise
    except (OSError, UnicodeError) as exc:
        protocol.fail(_failure(exc, url, limits))
    except asyncio.CancelledError:
        protocol.close()
        raise


def _end_cancelled(protocol: BaseProtocol, sock: socket.socket | None) -> None:
    if protocol.has_been_made:
        # uvloop reports no connection_lost here; where it comes as well, the second one does nothing.
        protocol.loop.call_soon(protocol.connection_lost, None)
        return
    if sock is not None:
        sock.close()
    protocol.abort()


def _failure(error: OSError | UnicodeError, url: Url, limits: NetLimits) -> ConnectFailed:
    if isinstance(error, ConnectFailed):
        return error
    if isinstance(error, UnicodeError):
        failure = ConnectFailed(f"cannot connect to {url}: {error}")
    elif isinstance(error, TimeoutError):
        failure = ConnectFailed(error.errno, f"cannot connect to {url}: no answer in {limits.connect_timeout} s")
    else:
        failure = ConnectFailed(error.errno, f"cannot connect to {url}: {error.strerror or error}")
    failure.__cause__ = error
    return failure
