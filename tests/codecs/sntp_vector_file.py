"""Read tests/vectors/sntp.txt: the format is described at its top."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime

from asyncmg.codecs import sntp, sntp_native, sntp_portable
from asyncmg.codecs.sntp import SntpPacket, SntpReader
from asyncmg.core import status
from tests.codecs.dns_vector_file import assemble
from tests.codecs.vector_file import VECTORS

#: The readers that obey the contract in asyncmg/codecs/sntp.py: every test of a codec runs on each of them.
SNTP_CODECS: dict[str, SntpReader] = {"portable": sntp_portable.read_packet}
if status().available or os.environ.get("ASYNCMG_REQUIRE_CORE") == "1":
    SNTP_CODECS["native"] = sntp_native.read_packet

Fault = tuple[str, str]
GOOD_REPLY = SntpPacket(0, 4, sntp.SERVER, 2, originate=1, receive=2, transmit=3)


@dataclass
class PacketVector:
    name: str
    data: bytes
    packet: SntpPacket | None
    fault: Fault | None


@dataclass
class ReplyVector:
    name: str
    reply: SntpPacket
    transmitted: int
    version: int
    fault: Fault | None


@dataclass
class TimeVector:
    name: str
    ns: int
    timestamp: int


def _fault(text: str) -> Fault:
    name, _, section = text.partition(" ")
    fault: Fault = getattr(sntp, name)
    assert fault[1] == section, text
    return fault


def _arguments(text: str) -> dict[str, object]:
    arguments: dict[str, object] = eval(f"dict({text})")
    return arguments


def _nanoseconds(text: str) -> int:
    date, rest = text.split()
    since = datetime.fromisoformat(date).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86400 + since.seconds) * 1_000_000_000 + int(rest)


def _read_stanza(stanza: dict[str, str]) -> PacketVector | ReplyVector | TimeVector:
    name = stanza.pop("name")
    if "in" in stanza:
        data = assemble(stanza.pop("in"))
        if "error" in stanza:
            return PacketVector(name, data, None, _fault(stanza.pop("error")))
        assert stanza.pop("rule")
        return PacketVector(name, data, eval(stanza.pop("expect"), vars(sntp)), None)
    if "time" in stanza:
        assert stanza.pop("rule")
        return TimeVector(name, _nanoseconds(stanza.pop("time")), int(stanza.pop("stamp"), 16))
    reply = GOOD_REPLY._replace(**_arguments(stanza.pop("reply")))  # type: ignore[arg-type]
    asked = {"transmitted": 1, "version": 4, **_arguments(stanza.pop("asked", ""))}
    fault = stanza.pop("fault")
    return ReplyVector(name, reply, fault=None if fault == "ok" else _fault(fault), **asked)  # type: ignore[arg-type]


def read_sntp_vectors() -> list[PacketVector | ReplyVector | TimeVector]:
    vectors = []
    for text in (VECTORS / "sntp.txt").read_text(encoding="utf-8").split("\n\n"):
        lines = [line for line in text.split("\n") if line and not line.startswith("#")]
        if lines:
            stanza = {key: value.removeprefix(" ") for key, _, value in (line.partition(":") for line in lines)}
            assert len(stanza) == len(lines), lines
            vectors.append(_read_stanza(stanza))
            assert not stanza, lines
    assert len({vector.name for vector in vectors}) == len(vectors), "names are unique"
    return vectors
