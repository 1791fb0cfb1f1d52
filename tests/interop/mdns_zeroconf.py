"""python-zeroconf in a process of its own, on the loopback interface: ``browse TYPE`` or ``serve TYPE NAME HOST PORT``.

Not a test: test_mdns.py runs it, by the Python of an environment that has python-zeroconf. A line on stdin ends it.
"""

import asyncio
import json
import socket
import sys

from zeroconf import ServiceStateChange
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

HERE = "127.0.0.1"


def tell(*words):
    print(json.dumps(words), flush=True)


async def browse(zeroconf, kind):
    tasks = set()

    async def look(name):
        info = AsyncServiceInfo(kind, name)
        if await info.async_request(zeroconf.zeroconf, 20_000):
            texts = {key.decode(): value and value.decode() for key, value in info.properties.items()}
            tell("resolved", info.get_name(), info.server, info.parsed_addresses(), info.port, texts)
        else:
            tell("not resolved", name)

    def changed(zeroconf, service_type, name, state_change):
        if state_change is ServiceStateChange.Added:
            tasks.add(asyncio.ensure_future(look(name)))
        elif state_change is ServiceStateChange.Removed:
            tell("removed", name)

    browser = AsyncServiceBrowser(zeroconf.zeroconf, kind, handlers=[changed])
    tell("browsing")
    await asyncio.to_thread(sys.stdin.readline)
    await browser.async_cancel()


async def serve(zeroconf, kind, name, host, port):
    info = AsyncServiceInfo(
        kind,
        f"{name}.{kind}",
        addresses=[socket.inet_aton("192.0.2.77")],
        port=int(port),
        properties={"path": "/z", "flag": None},
        server=f"{host}.local.",
    )
    await zeroconf.async_register_service(info)
    tell("serving")
    await asyncio.to_thread(sys.stdin.readline)
    await zeroconf.async_unregister_service(info)


async def main(what, kind, *arguments):
    async with AsyncZeroconf(interfaces=[HERE]) as zeroconf:
        await {"browse": browse, "serve": serve}[what](zeroconf, kind, *arguments)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
