"""An MQTT broker of the benchmarks, running: how what it delivers is checked."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

from .installs import NotInstallable, node_modules, peers_python
from .running import HOST, START_TIMEOUT, CannotRun, RunningServer

_PAYLOAD: Final = b"is it there?"
_CONNACK, _PUBLISH, _PUBACK, _SUBACK = 0x20, 0x32, 0x40, 0x90


class MqttServer(RunningServer):
    """A broker of ``mqtt_peers.py``."""

    program = Path(__file__).with_name("mqtt_peers.py")

    def check(self) -> None:
        """Subscribe and publish at QoS 1 with MQTT 3.1.1, and look at all that comes.

        Raises:
            CannotRun: something is not what it should be, or does not come.
        """
        try:
            with socket.create_connection((HOST, self.port), 5) as sock:
                sock.settimeout(START_TIMEOUT)
                self._check(sock)
        except OSError as exc:
            raise CannotRun(f"no answer: {exc}") from exc

    def _check(self, sock: socket.socket) -> None:
        sock.sendall(_packet(0x10, _string(b"MQTT") + b"\x04\x02\x00\x00" + _string(b"check")))
        _expect(sock, _CONNACK, b"\x00\x00")
        sock.sendall(_packet(0x82, b"\x00\x01" + _string(b"check/+") + b"\x01"))
        _expect(sock, _SUBACK, b"\x00\x01\x01")
        sock.sendall(_packet(_PUBLISH, _string(b"check/it") + b"\x00\x02" + _PAYLOAD))
        seen = {}
        for _ in range(2):  # in either order
            first, body = _receive(sock)
            seen[first] = body
        if seen.get(_PUBACK) != b"\x00\x02":
            raise CannotRun(f"did not acknowledge: {seen}")
        topic, rest = _string(b"check/it"), seen.get(_PUBLISH, b"")
        if not rest.startswith(topic) or rest[len(topic) + 2 :] != _PAYLOAD:
            raise CannotRun(f"did not deliver what it got: {seen}")
        identifier = rest[len(topic) : len(topic) + 2]
        sock.sendall(_packet(_PUBACK, identifier) + _packet(0xE0, b""))


def prepare(name: str) -> None:
    """Install what a broker or client needs, so that its start does not wait for that. It will say what is missing."""
    try:
        if name.startswith("aedes"):
            node_modules()
        elif name.startswith(("amqtt", "gmqtt")):
            peers_python()
    except NotInstallable:
        pass


def _string(text: bytes) -> bytes:
    return len(text).to_bytes(2, "big") + text


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first, len(body))) + body


def _expect(sock: socket.socket, first: int, body: bytes) -> None:
    if (received := _receive(sock)) != (first, body):
        raise CannotRun(f"sent {received}, expected {(first, body)}")


def _receive(sock: socket.socket) -> tuple[int, bytes]:
    first, size = _receive_all(sock, 2)
    return first, _receive_all(sock, size)


def _receive_all(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        received = sock.recv(size - len(data))
        if not received:
            raise CannotRun("closed the connection")
        data += received
    return data
