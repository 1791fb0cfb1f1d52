"""The stub resolver: asks name servers, by UDP and where it must by TCP (RFC 1035, RFC 7766, RFC 6891).

What comes in is believed only when it comes from the server's address and port, to the port of this one question, with
its random id and its question, letter by letter where the letters' case is random.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from asyncmg.codecs import dns
from asyncmg.codecs.dns import DnsMessage, DnsQuestion, DnsReader, same_name, write_query
from asyncmg.errors import RemoteProtocolError, ResolveFailed, ResolveTimeout
from asyncmg.limits import DnsLimits
from asyncmg.transports.exchange import ask_datagram, ask_stream
from asyncmg.transports.sockets import SockAddr

from .answer import Found
from .config import ResolvConf

_SETTLED = frozenset((dns.NO_ERROR, dns.NAME_ERROR))  # response codes that are an answer
_WITHOUT_EDNS = frozenset((dns.FORMAT_ERROR, dns.NOT_IMPLEMENTED))  # of servers older than it (RFC 6891 section 7)

_RCODES = {1: "format error", 2: "server failure", 4: "not implemented", 5: "refused"}


class StubResolver:
    """Asks the name servers of a configuration.

    Args:
        config: called for each look-up.
        limits: time-outs and tries; those that the configuration tells count instead.
        read: the codec.
        random_case: ask with letters in random case ("0x20"), which a spoofed reply would have to guess. Some servers
            do not give the case back.
    """

    def __init__(
        self, config: Callable[[], ResolvConf], limits: DnsLimits, read: DnsReader, *, random_case: bool = False
    ) -> None:
        self._config = config
        self._limits = limits
        self._read = read
        self._random_case = random_case
        self._turn = 0

    async def query(self, name: str, kind: int, deadline: float) -> Found:
        """Look up one absolute name, aliases followed.

        Cancelling is safe.

        Args:
            deadline: of ``time.monotonic()``.

        Raises:
            ResolveTimeout: no server has answered.
            ResolveFailed: none has answered with what can be used.
        """
        aliases: list[str] = []
        ttl = float("inf")
        while True:
            message = await self._ask_servers(name, kind, deadline)
            try:
                found = Found(message, name, kind, self._limits.max_cnames - len(aliases))
            except RemoteProtocolError as exc:
                raise ResolveFailed(f"cannot resolve {(*aliases, name)[0]}: {exc}", name=name) from exc
            found.aliases[:0] = aliases
            found.ttl = ttl = min(ttl, found.ttl)
            if found.is_final or not found.aliases or same_name(found.name, name):
                return found
            aliases, name = found.aliases, found.name
            if len(aliases) > self._limits.max_cnames:
                raise ResolveFailed(f"cannot resolve {aliases[0]}: too many aliases", name=aliases[0])

    async def _ask_servers(self, name: str, kind: int, deadline: float) -> DnsMessage:
        """Ask each server in turn, in rounds, until one has answered with something that settles it."""
        config = self._config()
        servers = config.servers
        if not servers:
            raise ResolveFailed(f"cannot resolve {name}: there are no name servers", name=name)
        if config.rotate:
            self._turn += 1
            start = self._turn % len(servers)
            servers = servers[start:] + servers[:start]
        failure: Exception | None = None
        for _ in range(config.attempts or self._limits.max_tries):
            for server in servers:
                timeout = min(config.timeout or self._limits.try_timeout, deadline - time.monotonic())
                if timeout <= 0:
                    break
                try:
                    message = await self._ask(server, name, kind, timeout, use_tcp=config.use_tcp)
                except (OSError, RemoteProtocolError) as exc:
                    failure = failure if isinstance(exc, TimeoutError) and failure else exc
                    continue
                rcode = _full_rcode(message)
                if rcode in _SETTLED:
                    return message
                told = _RCODES.get(rcode, f"response code {rcode}")
                failure = ResolveFailed(f"cannot resolve {name}: {told}", name=name, rcode=rcode)
        if isinstance(failure, ResolveFailed):
            raise failure
        if failure is None or isinstance(failure, TimeoutError):
            raise ResolveTimeout(f"cannot resolve {name}: no name server has answered", name=name) from failure
        raise ResolveFailed(f"cannot resolve {name}: {failure}", name=name) from failure

    async def _ask(self, server: SockAddr, name: str, kind: int, timeout: float, *, use_tcp: bool) -> DnsMessage:
        """Ask one server once; without EDNS when it does not know that, by TCP when its answer does not fit."""
        end = time.monotonic() + timeout
        for udp_size in (dns.UDP_SIZE, 0):
            question = DnsQuestion(_random_case(name) if self._random_case else name, kind)
            number = secrets.randbits(16)
            request = write_query(number, question, udp_size=udp_size)
            if use_tcp:
                message = await self._ask_by_tcp(server, request, number, question, end)
            else:
                take = self._reply_to(number, question)
                message = await ask_datagram(server, request, take, timeout=end - time.monotonic())
                if message.is_truncated:
                    message = await self._ask_by_tcp(server, request, number, question, end)
            if message.rcode not in _WITHOUT_EDNS:
                break
        return message

    async def _ask_by_tcp(
        self, server: SockAddr, request: bytes, number: int, question: DnsQuestion, end: float
    ) -> DnsMessage:
        data = await ask_stream(server, request, timeout=end - time.monotonic())
        message = self._read(data)
        if not self._is_reply(message, number, question):
            raise RemoteProtocolError("reply to another question", section="RFC 5452 section 9.1")
        return message

    def _reply_to(self, number: int, question: DnsQuestion) -> Callable[[bytes], DnsMessage | None]:
        """Make what takes the reply to a question; anything else may be spoofed, and must not end the waiting."""

        def take(data: bytes) -> DnsMessage | None:
            try:
                message = self._read(data)
            except RemoteProtocolError:
                return self._cut_reply(data, number)
            return message if self._is_reply(message, number, question) else None

        return take

    @staticmethod
    def _cut_reply(data: bytes, number: int) -> DnsMessage | None:
        """A reply that is cut off in the middle of a record (RFC 2181 section 9): only that much is believed."""
        if len(data) < dns.HEADER.size:
            return None
        got, flags = dns.HEADER.unpack_from(data)[:2]
        is_cut = got == number and flags & dns.RESPONSE and flags & dns.TRUNCATED
        return DnsMessage(got, flags) if is_cut else None

    def _is_reply(self, message: DnsMessage, number: int, question: DnsQuestion) -> bool:
        """Whether a message is the reply to a question (RFC 5452 section 9.1)."""
        if message.id != number or not message.is_response or message.flags & dns.OPCODE:
            return False
        if not message.questions:
            # A server that refuses may leave the question away; no answer does.
            return message.rcode not in _SETTLED
        echoed = message.questions[0]
        is_same = echoed.name == question.name if self._random_case else same_name(echoed.name, question.name)
        return len(message.questions) == 1 and is_same and echoed[1:] == question[1:]


def _full_rcode(message: DnsMessage) -> int:
    """Return the response code, with the upper bits that EDNS has (RFC 6891 section 6.1.3)."""
    for record in message.additionals:
        if record.type == dns.RecordType.OPT:
            return record.ttl >> 24 << 4 | message.rcode
    return message.rcode


def _random_case(name: str) -> str:
    """Change the case of ASCII letters only (RFC 4343 section 3): that of others belongs to the name."""
    bits = secrets.randbits(len(name) + 1)
    return "".join(
        (letter.upper() if bits >> place & 1 else letter.lower()) if letter.isascii() else letter
        for place, letter in enumerate(name)
    )
