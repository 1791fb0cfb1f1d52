"""Read tests/vectors/mqtt_*.txt: the format is described at the top of mqtt_valid.txt."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from asyncmg.codecs import mqtt
from asyncmg.codecs.http import Role
from asyncmg.codecs.mqtt import MqttCodec, MqttCodecFactory, Packet
from asyncmg.codecs.mqtt_native import NativeMqttCodec
from asyncmg.codecs.mqtt_portable import PortableMqttCodec
from asyncmg.codecs.mqtt_properties import Property
from asyncmg.core import status
from asyncmg.errors import ProtocolError
from asyncmg.limits import MqttLimits
from tests.codecs.vector_file import VECTORS

#: The codecs that obey the contract in asyncmg/codecs/mqtt.py: every test of a codec runs on each of them.
MQTT_CODECS: dict[str, MqttCodecFactory] = {"portable": PortableMqttCodec}
if status().available or os.environ.get("ASYNCMG_REQUIRE_CORE") == "1":
    MQTT_CODECS["native"] = NativeMqttCodec

_TOKEN = re.compile(r'\{([^{}*]+)\*([0-9]+)\}|(s?)"([^"]*)"|(p\(\s*)|(\))|([0-9a-f]{2})|\s+')


def variable(number: int) -> bytes:
    out = []
    while True:
        number, low = divmod(number, 128)
        out.append(low | (128 if number else 0))
        if not number:
            return bytes(out)


def assemble(text: str, version: int) -> bytes:
    """Assemble bytes from the tokens that mqtt_valid.txt describes."""
    parts: list[list[bytes]] = [[]]
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        assert match, text[position:]
        position = match.end()
        repeated, times, counted, quoted, opened, closed, hexes = match.groups()
        if repeated:
            parts[-1].append(assemble(repeated, version) * int(times))
        elif quoted is not None:
            raw = quoted.encode()
            parts[-1].append(len(raw).to_bytes(2, "big") + raw if counted else raw)
        elif opened:
            parts.append([])
        elif closed:
            inside = b"".join(parts.pop())
            assert version == 5 or not inside, "no properties in 3.1.1"
            parts[-1].append(variable(len(inside)) + inside if version == 5 else b"")
        elif hexes:
            parts[-1].append(bytes.fromhex(hexes))
    assert len(parts) == 1, text
    return b"".join(parts[0])


def frame(first: int, body: bytes) -> bytes:
    return bytes([first]) + variable(len(body)) + body


@dataclass
class MqttVector:
    """One stanza, in one of its versions."""

    name: str = ""
    version: int = 5
    role: Role = Role.SERVER
    is_new: bool = False
    limits: MqttLimits = field(default_factory=MqttLimits)
    data: bytes = b""
    packets: list[Packet] = field(default_factory=list)
    code: int = 0
    rule: str = ""  # of an error: a statement or a section; of a limit: its name
    buffered: int = 0

    def __str__(self) -> str:
        return f"{self.name} ({'3.1.1' if self.version == 4 else '5.0'})"


def greeting(role: Role, version: int) -> bytes:
    """What comes first from a peer."""
    text = f's"MQTT" 0{version} 02 0000 p() s"peer"' if role is Role.SERVER else "00 00 p()"
    return frame(0x10 if role is Role.SERVER else 0x20, assemble(text, version))


def ping(role: Role) -> tuple[bytes, Packet]:
    """A packet that may come at any time."""
    return (b"\xc0\0", mqtt.PING_REQUEST) if role is Role.SERVER else (b"\xd0\0", mqtt.PING_RESPONSE)


def make_codec(name: str, vector: MqttVector) -> MqttCodec:
    """Make a codec, and greet it unless the vector does."""
    codec = MQTT_CODECS[name](vector.role, vector.limits, 0 if vector.role is Role.SERVER else vector.version)
    if not vector.is_new:
        assert len(codec.receive_data(greeting(vector.role, vector.version))) == 1
    return codec


def feed(codec: MqttCodec, pieces: Iterable[bytes]) -> tuple[list[Packet], ProtocolError | None]:
    packets: list[Packet] = []
    for piece in pieces:
        packets += codec.receive_data(piece)
        if codec.error is not None:
            break
    return packets, codec.error


def _read_stanza(lines: list[str], version: int) -> MqttVector:
    vector = MqttVector(version=version)
    for line in lines:
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if key == "name":
            vector.name = value
        elif key == "role":
            vector.role = Role(value)
        elif key == "state":
            assert value == "new"
            vector.is_new = True
        elif key == "limits":
            vector.limits = MqttLimits(**{name: int(n) for name, n in re.findall(r"(\w+)=(\d+)", value)})
        elif key == "packet":
            vector.data += frame(int(value[:2], 16), assemble(value[2:], version))
        elif key == "in":
            vector.data += assemble(value, version)
        elif key == "expect":
            vector.packets.append(eval(value, {**vars(mqtt), "V": version, "P": Property}))
        elif key == "buffered":
            vector.buffered = int(value)
        elif key == "error":
            code, *rules = value.split()
            vector.code, vector.rule = int(code, 16), rules[0 if version == 4 else -1]
        else:
            assert key == "version", line
    assert vector.name and vector.data and (vector.packets or vector.code or vector.buffered), lines
    return vector


def read_mqtt_vectors() -> list[MqttVector]:
    vectors = []
    for path in sorted(VECTORS.glob("mqtt_*.txt")):
        for stanza in path.read_text(encoding="utf-8").split("\n\n"):
            lines = [line for line in stanza.split("\n") if line and not line.startswith("#")]
            if lines:
                versions = next((line[9:] for line in lines if line.startswith("version: ")), "4 5")
                vectors += [_read_stanza(lines, int(version)) for version in versions.split()]
    names = [str(vector) for vector in vectors]
    assert len(set(names)) == len(names), "names are unique"
    return vectors
