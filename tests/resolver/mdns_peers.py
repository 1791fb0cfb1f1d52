"""What mDNS tests talk to: somebody on the loopback interface's group, and sockets that only remember."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from asyncmg.codecs import dns
from asyncmg.codecs.dns import DnsMessage, DnsQuestion, DnsRecord, write_message
from asyncmg.codecs.dns_portable import read_message
from asyncmg.resolver.interfaces import Interface, chosen_interfaces
from asyncmg.resolver.mdns_socket import Endpoint, MdnsSockets

HERE = "127.0.0.1"
REPLY = dns.RESPONSE | dns.AUTHORITATIVE
UNIQUE = dns.IN | dns.TOP_BIT
GENEROUS = 30.0


def free_port() -> int:
    """A port for a group of our own: free, and none of those that the system gives to somebody the next moment."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                sock.bind(("", port))
            except OSError:
                continue
            return port


async def soon(condition: Callable[[], Any]) -> Any:
    """Wait until a condition holds."""
    async with asyncio.timeout(GENEROUS):
        while not (found := condition()):
            await asyncio.sleep(0.005)
    return found


class Member:
    """Somebody in the group: hears everything, says what it is told to."""

    def __init__(self) -> None:
        self.heard: list[tuple[DnsMessage, Any]] = []
        self.answer: Callable[[DnsMessage], Sequence[DnsRecord | bytes]] = lambda message: ()
        self.sockets: Any = None
        self.flags = REPLY

    def receive(self, data: bytes, source: Any, endpoint: Endpoint) -> None:
        message = read_message(data)
        self.heard.append((message, source))
        if message.is_response:
            return
        for item in self.answer(message):
            reply = item if isinstance(item, bytes) else write_message(DnsMessage(message.id, self.flags, (), [item]))
            endpoint.send(reply, source)

    def say(self, message: DnsMessage) -> None:
        assert self.sockets.send(write_message(message))

    def ask(self, name: str, kind: int, class_: int = dns.IN, known: Sequence[DnsRecord] = ()) -> None:
        self.say(DnsMessage(0, 0, [DnsQuestion(name, kind, class_)], known))

    def records(self) -> list[DnsRecord]:
        """All records of the responses heard."""
        return [
            record
            for message, _ in self.heard
            if message.is_response
            for record in (*message.answers, *message.additionals)
        ]

    def questions(self) -> list[DnsQuestion]:
        return [question for message, _ in self.heard if not message.is_response for question in message.questions]

    def of(self, name: str, kind: int) -> list[DnsRecord]:
        return [record for record in self.records() if record.name == name and record.type == kind]


@asynccontextmanager
async def member(port: int, *, shared: bool = True) -> AsyncIterator[Member]:
    peer = Member()
    async with await MdnsSockets.open(chosen_interfaces(HERE), port, peer.receive, shared=shared) as sockets:
        peer.sockets = sockets
        yield peer


class FakeEndpoint:
    """Remembers what is sent, and when; nothing leaves."""

    def __init__(self, interface: Interface) -> None:
        self.interface = interface
        self.sent: list[tuple[DnsMessage, Any, float]] = []  # peer None: to the group

    def send(self, data: bytes, peer: Any = None) -> bool:
        self.sent.append((read_message(data), peer, asyncio.get_running_loop().time()))
        return True

    def answers(self) -> list[tuple[DnsRecord, Any, float]]:
        return [(record, peer, at) for message, peer, at in self.sent for record in message.answers]


class FakeSockets:
    def __init__(self, endpoint: FakeEndpoint) -> None:
        self.endpoints = [endpoint]
        self.near = True
        self.own = False
        self.closed = False

    def is_near(self, source: Any) -> bool:
        return self.near

    def is_own(self, source: Any) -> bool:
        return self.own

    async def close(self) -> None:
        self.closed = True
