"""Look up records, like a small dig: those of a name, or the names of an address.

Try: python dns_lookup.py example.org MX --server 192.0.2.53
"""

import argparse
import asyncio
import sys
import time
from itertools import pairwise

from asyncmg import AsyncmgError, Resolver, SrvData, TxtData

TYPES = ("A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT")


async def main(name, kind, servers, tcp):
    async with Resolver(servers or None, use_tcp=tcp) as resolver:
        begun = time.monotonic()
        answer = await resolver.resolve(name, kind)
        took = time.monotonic() - begun
    for alias, target in pairwise((*answer.aliases, answer.name)):
        print(f"{alias} CNAME {target}")
    for data in answer:
        print(f"{answer.name} {answer.ttl:.0f} {kind} {data}")
        if isinstance(data, TxtData) and data.attributes:
            print(f"; {', '.join(data.attributes)}")
        elif isinstance(data, SrvData):
            print(f"; connect to {data.target} port {data.port}")
    print(f"; {len(answer)} records in {took * 1000:.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("type", nargs="?", type=str.upper, choices=TYPES, default="A")
    parser.add_argument(
        "--server", action="append", metavar="HOST[:PORT]", help="default: the system's; several may be given"
    )
    parser.add_argument("--tcp", action="store_true", help="with --server: ask by TCP only")
    arguments = parser.parse_args()
    try:
        asyncio.run(main(arguments.name, arguments.type, arguments.server, arguments.tcp))
    except AsyncmgError as error:
        sys.exit(f"{type(error).__name__}: {error}")
