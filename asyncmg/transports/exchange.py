"""One question, one answer: a datagram or a length-prefixed message to a server, and what it replies.

Each question has a connected socket of its own: the system chooses a random port, and lets nothing in that does not
come from the server's address and port. The sockets work on any event loop, and need no transport.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import TypeVar

from .sockets import SockAddr

T = TypeVar("T")

MAX_DATAGRAM = 65_535


async def ask_datagram(
    server: SockAddr, request: bytes | Callable[[], bytes], take_reply: Callable[[bytes], T | None], *, timeout: float
) -> T:
    """Send one datagram and wait for its reply.

    Cancelling is safe: the socket is closed.

    Args:
        request: what to send; a function is called when the datagram is about to leave.
        take_reply: called at once with each datagram from the server; None: it is no reply, the waiting goes on.
        timeout: seconds.

    Raises:
        TimeoutError: there was no reply in time.
        OSError: the datagram could not be sent, or the system tells that nobody is there to take it.
    """
    loop = asyncio.get_running_loop()
    family, address = server
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(address)
        async with asyncio.timeout(timeout):
            await loop.sock_sendall(sock, request if isinstance(request, bytes) else request())
            while True:
                reply = take_reply(await loop.sock_recv(sock, MAX_DATAGRAM))
                if reply is not None:
                    return reply
                # sock_recv() takes what is there without a turn of the loop: a flood would hold up even the time-out.
                await asyncio.sleep(0)


async def ask_stream(server: SockAddr, request: bytes, *, timeout: float) -> bytes:
    """Send one message over TCP, with its length in two bytes in front, and return the one that comes back.

    Cancelling is safe: the socket is closed.

    Raises:
        TimeoutError: there was no whole reply in time.
        OSError: no connection, or it ended early.
    """
    loop = asyncio.get_running_loop()
    family, address = server
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        async with asyncio.timeout(timeout):
            await loop.sock_connect(sock, address)
            await loop.sock_sendall(sock, len(request).to_bytes(2, "big") + request)
            size = int.from_bytes(await _receive(loop, sock, 2), "big")
            return await _receive(loop, sock, size)


async def _receive(loop: asyncio.AbstractEventLoop, sock: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        piece = await loop.sock_recv(sock, size - len(received))
        if not piece:
            raise ConnectionResetError(errno.ECONNRESET, "connection closed before the reply was complete")
        received += piece
    return bytes(received)
