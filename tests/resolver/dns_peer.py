"""A name server for tests: on loopback, by UDP and TCP, as honest as the test wants it to be."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from asyncmg.codecs import dns
from asyncmg.codecs.dns import DnsMessage, DnsQuestion, DnsRecord, RecordType, SoaData, fold_name, write_message
from asyncmg.codecs.dns_portable import read_message

TIMEOUT = 30.0
SOA = SoaData("ns.test", "admin.test", 1, 3600, 600, 86400, 60)


async def soon(awaitable: Awaitable[Any]) -> Any:
    """Await with the tests' time-out."""
    async with asyncio.timeout(TIMEOUT):
        return await awaitable


async def eventually(condition: Callable[[], Any]) -> None:
    """Give the loop turns until a condition holds; fail when it does not come true in time."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.001)


@dataclass(frozen=True, slots=True)
class Query:
    """What was asked."""

    message: DnsMessage
    is_tcp: bool
    client: Any

    @property
    def question(self) -> DnsQuestion:
        return self.message.questions[0]

    @property
    def has_edns(self) -> bool:
        return any(record.type == RecordType.OPT for record in self.message.additionals)

    def __str__(self) -> str:
        kind = RecordType(self.question.type).name
        return f"{'tcp' if self.is_tcp else 'udp'} {kind} {fold_name(self.question.name)}"


Reply = DnsMessage | bytes
Answer = Callable[[Query], Reply | Sequence[Reply] | None]  # of a sequence each is sent


def reply(query: Query, *answers: DnsRecord, rcode: int = 0, flags: int = 0, **kwargs: Any) -> DnsMessage:
    """Make a reply as a recursive server does; keywords: other members of the message."""
    flags |= dns.RESPONSE | dns.RECURSION_DESIRED | dns.RECURSION_AVAILABLE | rcode
    return DnsMessage(query.message.id, flags, query.message.questions, answers)._replace(**kwargs)


def a(name: str, address: str = "192.0.2.1", ttl: int = 60) -> DnsRecord:
    return DnsRecord(name, RecordType.A, address, ttl)


def aaaa(name: str, address: str = "2001:db8::1", ttl: int = 60) -> DnsRecord:
    return DnsRecord(name, RecordType.AAAA, address, ttl)


def cname(name: str, target: str, ttl: int = 60) -> DnsRecord:
    return DnsRecord(name, RecordType.CNAME, target, ttl)


def soa(name: str = "test", ttl: int = 60, minimum: int = 60) -> DnsRecord:
    return DnsRecord(name, RecordType.SOA, SOA._replace(minimum=minimum), ttl)


def zone(*records: DnsRecord) -> Answer:
    """Make an honest server's answers: records, the aliases that lead to them, and the SOA where there is nothing."""

    def answer(query: Query) -> DnsMessage:
        name, kind = query.question.name, query.question.type
        told: list[DnsRecord] = []
        while True:
            here = [record for record in records if fold_name(record.name) == fold_name(name)]
            found = [record for record in here if record.type == kind]
            aliases = [record for record in here if record.type == RecordType.CNAME]
            told += found or aliases
            if found or not aliases:
                break
            name = str(aliases[0].data)
        if found:
            return reply(query, *told)
        return reply(query, *told, rcode=0 if here else dns.NAME_ERROR, authorities=[soa()])

    return answer


class DnsPeer(asyncio.DatagramProtocol):
    """The server.

    Attributes:
        answer: what it says; None: silence.
        on_tcp: what it does with a connection instead, called with the query and the stream.
        asked: the queries, in order.
        address: ``host:port``, with brackets for IPv6.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.on_tcp: Callable[[Query, asyncio.StreamWriter], Awaitable[None]] | None = None
        self.asked: list[Query] = []
        self.connections = 0
        self.address = ""
        self.transport: asyncio.DatagramTransport

    @property
    def words(self) -> list[str]:
        """The queries in words."""
        return [str(query) for query in self.asked]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        for item in self._replies(Query(read_message(data), False, addr)):
            self.transport.sendto(item, addr)

    def _replies(self, query: Query) -> Iterable[bytes]:
        self.asked.append(query)
        answer = self.answer(query)
        if answer is None:
            return []
        items = [answer] if isinstance(answer, DnsMessage | bytes) else answer
        return [item if isinstance(item, bytes) else write_message(item) for item in items]

    async def serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(2), "big")
                query = Query(read_message(await reader.readexactly(size)), True, writer.get_extra_info("peername"))
                if self.on_tcp is not None:
                    self.asked.append(query)
                    await self.on_tcp(query, writer)
                    return
                for item in self._replies(query):
                    writer.write(len(item).to_bytes(2, "big") + item)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(answer: Answer, host: str = "127.0.0.1", *, tcp: bool = True) -> AsyncIterator[DnsPeer]:
    """Run a server on one free port for both UDP and TCP."""
    peer = DnsPeer(answer)
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await peer.serve_stream(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            tasks.discard(task)

    stream, datagram = _bind_both(host)
    if tcp:
        server = await asyncio.start_server(serve, sock=stream)
    else:
        stream.close()
    transport, _ = await loop.create_datagram_endpoint(lambda: peer, sock=datagram)
    name = transport.get_extra_info("sockname")
    peer.address = f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
    try:
        yield peer
    finally:
        transport.close()
        if tcp:
            server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


def _bind_both(host: str) -> tuple[socket.socket, socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(50):
        stream = socket.socket(family, socket.SOCK_STREAM)
        datagram = socket.socket(family, socket.SOCK_DGRAM)
        stream.setblocking(False)
        datagram.setblocking(False)
        stream.bind((host, 0))
        with contextlib.suppress(OSError):
            datagram.bind(stream.getsockname()[:2])
            return stream, datagram
        stream.close()
        datagram.close()
    raise OSError("no port that is free for both")


def free_udp_port(host: str = "127.0.0.1") -> int:
    """Return a port at which nobody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])
