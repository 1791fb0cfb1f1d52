"""A WebSocket peer that speaks frames, right or wrong ones."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from asyncmg.codecs.ws import BINARY, CLOSE, FIN, PING, PONG, TEXT, frame_header

from .conftest import RawPeer

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455 section 1.3, with its answer
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
WHOLE_TEXT, WHOLE_BINARY = FIN | TEXT, FIN | BINARY
WHOLE_CLOSE, WHOLE_PING, WHOLE_PONG = FIN | CLOSE, FIN | PING, FIN | PONG


class Frame(NamedTuple):
    flags: int
    payload: bytes


def request(*lines: str, target: str = "/", leave_out: str = "") -> str:
    """A handshake; a line of the same name replaces one of ours."""
    own = {
        "Host": "x",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    own.pop(leave_out, None)
    for line in lines:
        own.pop(line.partition(":")[0], None)
    fields = [f"{name}: {value}" for name, value in own.items()]
    return "\r\n".join([f"GET {target} HTTP/1.1", *fields, *lines, "\r\n"])


def masked(flags: int, payload: bytes = b"", key: bytes = b"\x01\x02\x03\x04") -> bytes:
    """A client's frame."""
    return frame_header(flags, len(payload), key) + bytes(byte ^ key[i & 3] for i, byte in enumerate(payload))


def plain(flags: int, payload: bytes = b"") -> bytes:
    """A server's frame."""
    return frame_header(flags, len(payload)) + payload


async def read_frame(peer: RawPeer) -> Frame:
    """Read one frame, masked or not."""
    flags, length = await peer.read_exactly(2)
    has_mask, length = bool(length & 0x80), length & 0x7F
    if length >= 126:
        length = int.from_bytes(await peer.read_exactly(2 if length == 126 else 8), "big")
    key = await peer.read_exactly(4) if has_mask else bytes(4)
    payload = await peer.read_exactly(length)
    return Frame(flags, bytes(byte ^ key[i & 3] for i, byte in enumerate(payload)) if has_mask else payload)


async def shake_hands(peer: RawPeer, *lines: str, target: str = "/", behind: bytes = b"") -> dict[str, str]:
    """Send a handshake, and bytes in the same segment; return the fields of the 101."""
    peer.send(request(*lines, target=target).encode() + behind)
    status, fields, _ = await peer.read_reply()
    assert status == 101
    assert fields["sec-websocket-accept"] == ACCEPT
    return fields


async def expect_close(peer: RawPeer, code: int) -> str:
    """The next frame but pings is a close frame with this code, and the end follows; return the reason."""
    async with asyncio.timeout(10):
        while (frame := await read_frame(peer)).flags == WHOLE_PING:
            pass
    assert frame.flags == WHOLE_CLOSE, frame
    assert int.from_bytes(frame.payload[:2], "big") == code, frame
    assert await peer.read_all() == b""
    peer.writer.close()  # nobody has to linger
    return frame.payload[2:].decode()
