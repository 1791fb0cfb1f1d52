"""A WebSocket server of the benchmarks, running: how its replies are checked."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

from .running import HOST, START_TIMEOUT, CannotRun, RunningServer
from .ws_peers import HANDSHAKE, has_raw_echo

_REQUEST = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_ACCEPT = HANDSHAKE.split()[-1]
_KEY = b"\x12\x34\x56\x78"
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10
_SIZES: Final = (1, 125, 126, 65535, 65536)


class WsServer(RunningServer):
    """A server of ``ws_peers.py``; ``arguments`` are its mode."""

    program = Path(__file__).with_name("ws_peers.py")

    def check(self) -> None:
        """Shake hands and look at what comes back: messages of each way to write a length, text, a pong.

        Raises:
            CannotRun: a reply is not what it should be, or none comes.
        """
        is_broadcast = self.arguments[:1] == ("broadcast",)
        try:
            with _Client(self.port) as first, _Client(self.port) as second:
                receivers = (first, second) if is_broadcast else (second,)
                for size in _SIZES[:2] if is_broadcast else _SIZES:
                    self._check_message(second, receivers, _BINARY, (b"0123456789abcdef" * (size // 16 + 1))[:size])
                if not is_broadcast:
                    self._check_message(second, receivers, _TEXT, "Grüße".encode())
                    if not has_raw_echo(self.name):
                        self._check_message(second, receivers, _PING, b"are you there?")
        except OSError as exc:
            raise CannotRun(f"no reply: {exc}") from exc

    def _check_message(self, sender: _Client, receivers: tuple[_Client, ...], opcode: int, payload: bytes) -> None:
        sender.send(opcode, payload)
        is_masked = has_raw_echo(self.name) and len(receivers) == 1
        expected = (_PONG if opcode == _PING else opcode, is_masked, payload)
        for receiver in receivers:
            if (message := receiver.message()) != expected:
                shown = [f"opcode {op}{', masked' * masked}, {data[:40]!r}" for op, masked, data in (message, expected)]
                raise CannotRun(f"replied {shown[0]} ({len(message[2])} bytes), expected {shown[1]}")


class _Client:
    """One connection. A context manager."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection((HOST, port), 5)
        self._data = b""
        self._sock.settimeout(START_TIMEOUT)
        self._sock.sendall(_REQUEST)
        while b"\r\n\r\n" not in self._data:
            self._receive()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 ") or _ACCEPT not in head:
            raise CannotRun(f"refused the handshake: {head[:80]!r}")

    def __enter__(self) -> _Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self.send(_CLOSE, b"\x03\xe8")
        except OSError:
            pass  # the server was faster
        self._sock.close()

    def _receive(self) -> None:
        data = self._sock.recv(65536)
        if not data:
            raise CannotRun("closed the connection instead of a reply")
        self._data += data

    def _take(self, size: int) -> bytes:
        while len(self._data) < size:
            self._receive()
        data, self._data = self._data[:size], self._data[size:]
        return data

    def send(self, opcode: int, payload: bytes) -> None:
        length = len(payload)
        if length < 126:
            head = bytes([0x80 | opcode, 0x80 | length])
        elif length < 65536:
            head = bytes([0x80 | opcode, 0x80 | 126]) + length.to_bytes(2, "big")
        else:
            head = bytes([0x80 | opcode, 0x80 | 127]) + length.to_bytes(8, "big")
        self._sock.sendall(head + _KEY + _masked(payload, _KEY))

    def message(self) -> tuple[int, bool, bytes]:
        """Return opcode, whether it was masked, and contents of the next message or pong."""
        opcode, parts, is_masked = 0, [], False
        while True:
            first, second = self._take(2)
            length = second & 127
            if length > 125:
                length = int.from_bytes(self._take(2 if length == 126 else 8), "big")
            is_masked = second > 127
            key = self._take(4) if is_masked else b""
            payload = _masked(self._take(length), key) if key else self._take(length)
            if first & 0x70:
                raise CannotRun("sent a frame with a reserved bit: compression was not offered")
            if first & 15 == _PING:
                self.send(_PONG, payload)
                continue
            opcode = first & 15 or opcode
            parts.append(payload)
            if first & 0x80:
                return opcode, is_masked, b"".join(parts)


def _masked(payload: bytes, key: bytes) -> bytes:
    size = len(payload)
    pad = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")
