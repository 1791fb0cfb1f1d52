"""Resolvers of the benchmark of DNS: ``dns_peers.py NAME PORT COUNT AT_ONCE`` looks COUNT names up.

It prints the CPU seconds of the process, all its threads included. AT_ONCE look-ups are under way at once; 0: the same
name each time, from the cache. Without arguments it prints the names of the resolvers.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

WARM_UP = 200
Resolve = Callable[[str], Awaitable[Any]]  # looks the A records of a name up


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure(resolve: Resolve, count: int, at_once: int) -> float:
    """Return the CPU seconds of ``count`` look-ups."""
    numbers = iter(range(count + WARM_UP))
    begun = 0.0

    async def work() -> None:
        nonlocal begun
        for number in numbers:
            if number == WARM_UP:
                begun = cpu_seconds()
            await resolve(f"n{number}.bench.test" if at_once else "bench.test")

    await asyncio.gather(*(work() for _ in range(max(at_once, 1))))
    return cpu_seconds() - begun


def asyncmg_resolver(port: int, backend: str) -> Any:
    import asyncmg

    return asyncmg.Resolver(
        [f"127.0.0.1:{port}"],
        hosts="",
        backend=backend,  # type: ignore[arg-type]
        limits=asyncmg.DnsLimits(max_queries=1000),
    )


async def with_asyncmg(stack: AsyncExitStack, port: int, backend: str) -> Resolve:
    resolver = await stack.enter_async_context(asyncmg_resolver(port, backend))
    return resolver.resolve  # type: ignore[no-any-return]


async def with_aiodns(stack: AsyncExitStack, port: int) -> Resolve:
    import aiodns

    resolver = aiodns.DNSResolver(nameservers=[f"127.0.0.1:{port}"])
    stack.push_async_callback(resolver.close)
    return lambda name: resolver.query_dns(name, "A")


async def with_dnspython(stack: AsyncExitStack, port: int, *, cached: bool) -> Resolve:
    import dns.asyncresolver

    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = port
    if cached:
        resolver.cache = dns.resolver.LRUCache()
    return lambda name: resolver.resolve(name, "A")


async def with_getaddrinfo(stack: AsyncExitStack, port: int) -> Resolve:
    """The system's servers cannot be chosen: names are from the hosts file, so this is a floor of what it costs."""
    loop = asyncio.get_running_loop()
    return lambda name: loop.getaddrinfo("localhost", None)


def run(make: Callable[..., Awaitable[Resolve]], *, uvloop: bool = False, **options: Any) -> Callable[..., float]:
    """Return what measures a resolver in a loop of its own."""

    async def main(port: int, count: int, at_once: int) -> float:
        if make is with_dnspython:
            options["cached"] = not at_once
        async with AsyncExitStack() as stack:
            resolve = await make(stack, port, **options)
            return await measure(resolve, count, at_once)

    def call(port: int, count: int, at_once: int) -> float:
        if uvloop:
            import uvloop as uv

            return float(uv.run(main(port, count, at_once)))
        return asyncio.run(main(port, count, at_once))

    return call


RESOLVERS: dict[str, Callable[..., float]] = {
    "asyncmg stub stdlib": run(with_asyncmg, backend="stub"),
    "asyncmg stub uvloop": run(with_asyncmg, backend="stub", uvloop=True),
    "asyncmg aiodns stdlib": run(with_asyncmg, backend="aiodns"),
    "aiodns stdlib": run(with_aiodns),
    "aiodns uvloop": run(with_aiodns, uvloop=True),
    "dnspython stdlib": run(with_dnspython),
    "dnspython uvloop": run(with_dnspython, uvloop=True),
    "getaddrinfo localhost": run(with_getaddrinfo),
}


def main() -> None:
    if len(sys.argv) == 1:
        print(*RESOLVERS, sep="\n")
        return
    name, port, count, at_once = sys.argv[1], *map(int, sys.argv[2:])
    try:
        print(RESOLVERS[name](port, count, at_once))
    except ImportError as exc:
        sys.exit(f"not installed: {exc.name or exc}")


if __name__ == "__main__":
    main()
