"""Resolver: names to records, from whatever knows them: hosts file, cache, mDNS, aiodns or our own stub resolver."""

from __future__ import annotations

import asyncio
import os
import random
import time
import weakref
from collections.abc import Callable, Coroutine, Sequence
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self

from asyncmg.codecs.choice import dns_codec
from asyncmg.codecs.dns import RecordType, fold_name, split_name
from asyncmg.errors import InvalidUrl, LocalProtocolError, NameNotFound, ResolveFailed
from asyncmg.limits import DnsLimits

from .answer import DnsAnswer, Found, in_order, not_found, record_type, reverse_name
from .cache import Cache, Key
from .config import Hosts, ResolvConf, WatchedFile, fixed, parse_resolv_conf, system_hosts_path, system_servers_path
from .known import as_ascii, is_mdns_name, known_answer, literal_address
from .mdns import query_mdns
from .stub import StubResolver
from .system import SystemResolver

ResolverBackend = Literal["auto", "aiodns", "stub", "system"]

_DEFAULT_LIMITS: Final = DnsLimits()
_IN_ORDER: Final = (RecordType.MX, RecordType.SRV)  # types that say in which order their records are to be used
_BACKENDS: Final = ("auto", "aiodns", "stub", "system")


class Asker(Protocol):
    """Asks for one absolute name."""

    async def query(self, name: str, kind: int, deadline: float) -> Found: ...


class Resolver:
    """Looks names up, and keeps the answers.

    In this order: addresses and ``localhost`` are answered at once, then the hosts file, the cache, mDNS for names of
    ``.local``, and at last name servers: by aiodns where it is installed, otherwise by the stub resolver.

    May be used by several event loops, one after the other. As an async context manager it is closed at the end.

    Args:
        servers: name servers to ask, such as ``["192.0.2.1", "[2001:db8::1]:5353"]``; default: those of the system.
        search: domains for names with less than ``ndots`` dots; this and the following with ``servers`` only, for the
            system's servers its resolv.conf(5) tells them.
        ndots: see ``search``.
        rotate: begin each look-up with another server.
        use_tcp: ask by TCP only.
        random_case: see :class:`StubResolver`.
        hosts: path of a hosts(5) file; default: the system's, "": none.
        backend: "aiodns", "stub", or "system", which is ``getaddrinfo()`` in the loop's thread pool and knows addresses
            only; "auto": what the environment variable ``ASYNCMG_RESOLVER`` names, otherwise as above, and "system" on
            systems that name their servers in no file.
        limits: of look-ups.

    Raises:
        ValueError: ``servers`` or ``backend`` cannot be used.
        ImportError: "aiodns" is asked for and not installed.
    """

    def __init__(
        self,
        servers: Sequence[str] | None = None,
        *,
        search: Sequence[str] = (),
        ndots: int = 1,
        rotate: bool = False,
        use_tcp: bool = False,
        random_case: bool = False,
        hosts: str | os.PathLike[str] | None = None,
        backend: ResolverBackend = "auto",
        limits: DnsLimits = _DEFAULT_LIMITS,
    ) -> None:
        self.limits = limits
        path = system_servers_path()
        self._config: Callable[[], ResolvConf] = ResolvConf
        if servers is not None:
            self._config = fixed(servers, search, ndots=ndots, rotate=rotate, use_tcp=use_tcp)
        elif path is not None:
            self._config = WatchedFile(path, parse_resolv_conf, time.monotonic).get
        self._hosts: Callable[[], Hosts] = Hosts
        if hosts != "":
            self._hosts = WatchedFile(hosts or system_hosts_path(), Hosts, time.monotonic).get
        self.backend = _chosen_backend(backend, has_servers=servers is not None or path is not None)
        self._random_case = random_case
        self._read = dns_codec()
        self._cache = Cache(limits.max_cached, limits.max_ttl, limits.max_negative_ttl)
        self._lives: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Life] = weakref.WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<Resolver {self.backend}, {len(self._cache)} answers kept>"

    def clear_cache(self) -> None:
        """Forget all answers."""
        self._cache.clear()

    async def close(self) -> None:
        """End what is under way in the running loop; who waits for it gets a ResolveFailed."""
        life = self._lives.pop(asyncio.get_running_loop(), None)
        if life is not None:
            await life.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def resolve(self, name: str, type: str | int = "A") -> DnsAnswer:
        """Look up the records of a name.

        Cancelling is safe; others who wait for the same answer get it.

        Args:
            name: a domain name; with a dot at its end no search domain is tried. PTR takes an address as well.
            type: A, AAAA, CNAME, MX, NS, PTR, SOA, SRV or TXT, or its number.

        Raises:
            ValueError: unknown type.
            NameNotFound: there is no such name, or it has no such records.
            ResolveTimeout, ResolveFailed: no server has answered, or not with what can be used.
            InvalidUrl, LocalProtocolError: ``name`` is no domain name.
        """
        kind = record_type(type)
        if "\0" in name:  # the system and c-ares would take the name to end there
            raise InvalidUrl(f"not a host name: {name!r}")
        if kind is RecordType.PTR and literal_address(name):
            name = reverse_name(literal_address(name))
        known = known_answer(name, kind, self._hosts())
        if known is not None:
            return known
        is_mdns = is_mdns_name(name)
        if not name.isascii() and not is_mdns:  # mDNS names are UTF-8 (RFC 6762 section 16)
            name = as_ascii(name)
            known = known_answer(name, kind, self._hosts())  # such as localhost in wide letters
            if known is not None:
                return known
        split_name(name)
        deadline = time.monotonic() + self.limits.timeout
        if is_mdns:
            return await self._shared(fold_name(name), kind, lambda: query_mdns(name, kind, self.limits, self._read))
        absent: NameNotFound | None = None  # there is always a candidate: the name itself is one
        for candidate in self._candidates(name):
            try:
                return await self._ask(candidate, kind, deadline)
            except NameNotFound as exc:
                # "It has no such records" says more than "there is no such name".
                absent = exc if absent is None or absent.rcode else absent
        assert absent is not None
        raise absent

    async def addresses(self, host: str, version: int) -> list[str]:
        """Look up the addresses of a host.

        Args:
            version: 4 or 6.

        Raises:
            as :meth:`resolve`.
        """
        return [str(item) for item in await self.resolve(host, "A" if version == 4 else "AAAA")]

    def _candidates(self, name: str) -> list[str]:
        """Return the absolute names to try, as resolv.conf(5) says."""
        if len(fold_name(name)) < len(name):  # a dot at the end that is none of the last label
            return [name[:-1]]
        config = self._config()
        searched = [f"{name}.{domain}" for domain in config.search if _is_name(f"{name}.{domain}")]
        return [name, *searched] if name.count(".") >= config.ndots else [*searched, name]

    async def _ask(self, name: str, kind: RecordType, deadline: float) -> DnsAnswer:
        asker = self._life().asker
        return await self._shared(name, kind, lambda: asker.query(name, kind, deadline))

    async def _shared(self, name: str, kind: RecordType, ask: Callable[[], Coroutine[Any, Any, Found]]) -> DnsAnswer:
        """Answer from the cache, or ask; those who want to know the same at the same time wait for one answer."""
        key = (fold_name(name), int(kind))
        kept = self._cache.get(key, time.monotonic())
        if isinstance(kept, NameNotFound):
            raise kept
        if kept is None:
            kept = (await self._life().share(key, lambda: self._ask_and_keep(key, name, kind, ask))).copy()
        if kind in _IN_ORDER:  # anew for each who asks: that is how services share the load
            kept[:] = in_order(kept, random.random)
        return kept

    async def _ask_and_keep(
        self, key: Key, name: str, kind: RecordType, ask: Callable[[], Coroutine[Any, Any, Found]]
    ) -> DnsAnswer:
        found = await ask()
        now = time.monotonic()
        if not found.records:
            if found.negative_ttl > 0:
                self._cache.put_absent(key, found.rcode, found.negative_ttl, now)
            raise not_found(name, kind, found.rcode)
        data = [record.data for record in found.records]
        answer = DnsAnswer(data, found.name, kind, found.ttl, found.aliases)
        self._cache.put(key, answer, now)
        return answer

    def _life(self) -> _Life:
        loop = asyncio.get_running_loop()
        life = self._lives.get(loop)
        if life is None:
            for other in [other for other in self._lives if other.is_closed()]:
                self._lives.pop(other, None)  # who asks there may hold it, and so itself
            life = self._lives[loop] = _Life(self._make_asker(), self.limits.max_queries)
        return life

    def _make_asker(self) -> Asker:
        if self.backend == "system":
            return SystemResolver(self.limits)
        stub = StubResolver(self._config, self.limits, self._read, random_case=self._random_case)
        if self.backend == "aiodns":
            from .ares import AresResolver

            return AresResolver(self._config, self.limits, stub)
        return stub


def _is_name(name: str) -> bool:
    """Whether a name with a search domain behind it is still one; it may have become too long."""
    try:
        split_name(name)
    except LocalProtocolError:
        return False
    return True


def _chosen_backend(backend: str, *, has_servers: bool) -> str:
    if backend == "auto":
        backend = os.environ.get("ASYNCMG_RESOLVER") or "auto"
    if backend not in _BACKENDS:
        raise ValueError(f"the resolver's backend must be one of {', '.join(_BACKENDS)}, not {backend!r}")
    if backend == "aiodns" and find_spec("aiodns") is None:
        raise ImportError("aiodns is not installed: pip install asyncmg[dns]")
    if backend != "auto":
        return backend
    if find_spec("aiodns") is not None:
        return "aiodns"
    return "stub" if has_servers else "system"


class _Life:
    """What a resolver has in one event loop: who asks, and what is being asked."""

    __slots__ = ("_places", "_under_way", "asker")

    def __init__(self, asker: Asker, max_queries: int) -> None:
        self.asker = asker
        self._places = asyncio.Semaphore(max_queries)
        self._under_way: dict[Key, _Question] = {}

    async def share(self, key: Key, ask: Callable[[], Coroutine[Any, Any, DnsAnswer]]) -> DnsAnswer:
        """Return the answer to a question, which is asked once however many wait for it, and ends with the last one."""
        question = self._under_way.get(key)
        if question is None:
            task = asyncio.create_task(self._ask(ask), name=f"asyncmg-resolve-{key[0]}")
            question = self._under_way[key] = _Question(task)
            task.add_done_callback(lambda _: self._end(key, question))
        question.waiting += 1
        try:
            return await asyncio.shield(question.task)
        except asyncio.CancelledError as exc:
            waiter = asyncio.current_task()
            if question.task.cancelled() and not (waiter and waiter.cancelling()):  # by close(), not who waits here
                raise ResolveFailed("the resolver has been closed", name=key[0]) from exc
            raise
        finally:
            question.waiting -= 1
            if not question.waiting and not question.task.done():
                self._end(key, question)
                question.task.cancel()

    def _end(self, key: Key, question: _Question) -> None:
        if self._under_way.get(key) is question:
            del self._under_way[key]
        if question.task.done() and not question.task.cancelled():
            question.task.exception()  # those who wait are told; there may be nobody left

    async def _ask(self, ask: Callable[[], Coroutine[Any, Any, DnsAnswer]]) -> DnsAnswer:
        async with self._places:
            return await ask()

    async def close(self) -> None:
        tasks = [question.task for question in self._under_way.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        close = getattr(self.asker, "close", None)
        if close is not None:
            await close()


class _Question:
    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Task[DnsAnswer]) -> None:
        self.task = task
        self.waiting = 0


_default: Resolver | None = None


def default_resolver() -> Resolver:
    """Return the resolver of everybody who has none of their own: the system's servers, one cache."""
    global _default
    if _default is None:
        _default = Resolver()
    return _default


async def resolve(name: str, type: str | int = "A") -> DnsAnswer:
    """Look up the records of a name, by the resolver that all share::

        for address in await asyncmg.resolve("example.com", "AAAA"):
            ...

    Arguments, exceptions and cancelling are those of :meth:`Resolver.resolve`.
    """
    return await default_resolver().resolve(name, type)
