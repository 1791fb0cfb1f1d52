"""SNTP servers and clients of the benchmarks: ``sntp_peers.py NAME PORT`` runs a server.

``sntp_peers.py NAME PORT COUNT`` runs a client, which prints the CPU seconds that COUNT requests took.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.servers import installs  # noqa: E402

WARM_UP = 200


def asyncmg_server(port: int, backend: str, *, uvloop: bool) -> None:
    import asyncmg

    limits = asyncmg.Limits(sntp=asyncmg.SntpLimits(max_rate=1e9))  # all of the load comes from one address

    async def main() -> None:
        async with asyncmg.Manager(backend=backend, limits=limits) as manager:  # type: ignore[arg-type]
            manager.sntp_listen(f"sntp://127.0.0.1:{port}", lambda conn, ev, data: None)
            await manager.serve_forever()

    _run(main(), uvloop=uvloop)


def chronyd(port: int) -> None:
    folder = Path.cwd()
    config = folder / "chrony.conf"
    config.write_text(
        f"port {port}\nbindaddress 127.0.0.1\nlocal stratum 8\nallow 127.0.0.0/8\ncmdport 0\nbindcmdaddress /\n"
        f"pidfile {folder}/chronyd.pid\ndriftfile {folder}/drift\n"
    )
    program = installs.installed("time") / "chrony/usr/sbin/chronyd"
    os.execv(program, [str(program), "-x", "-d", "-u", "root", "-f", str(config)])


def _run(coro: Any, *, uvloop: bool) -> None:
    if uvloop:
        import uvloop as uv

        uv.run(coro)
    else:
        asyncio.run(coro)


SERVERS: dict[str, Callable[[int], None]] = {
    "asyncmg native stdlib": lambda port: asyncmg_server(port, "native", uvloop=False),
    "asyncmg native uvloop": lambda port: asyncmg_server(port, "native", uvloop=True),
    "asyncmg asyncio stdlib": lambda port: asyncmg_server(port, "asyncio", uvloop=False),
    "asyncmg asyncio uvloop": lambda port: asyncmg_server(port, "asyncio", uvloop=True),
    "chronyd": chronyd,
}


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def sntp_time_client(port: int, count: int, *, uvloop: bool) -> None:
    import asyncmg

    async def main() -> None:
        begun = 0.0
        for number in range(count + WARM_UP):
            if number == WARM_UP:
                begun = cpu_seconds()
            await asyncmg.sntp_time(f"127.0.0.1:{port}")
        print(cpu_seconds() - begun)

    _run(main(), uvloop=uvloop)


def events_client(port: int, count: int, backend: str) -> None:
    import asyncmg

    async def main() -> None:
        done = asyncio.get_running_loop().create_future()
        seen = 0
        begun = 0.0

        def handler(conn: Any, ev: int, data: Any) -> None:
            nonlocal seen, begun
            if ev == asyncmg.MG_EV_SNTP_TIME:
                seen += 1
                if seen == WARM_UP:
                    begun = cpu_seconds()
                if seen < count + WARM_UP:
                    conn.sntp_request()
                else:
                    done.set_result(None)
            elif ev == asyncmg.MG_EV_ERROR:
                done.set_exception(data)

        async with asyncmg.Manager(handler, backend=backend) as manager:  # type: ignore[arg-type]
            manager.sntp_connect(f"sntp://127.0.0.1:{port}")
            await done
            print(cpu_seconds() - begun)

    asyncio.run(main())


def ntplib_client(port: int, count: int) -> None:
    try:
        import ntplib
    except ImportError:
        sys.exit("not installed: ntplib")
    client = ntplib.NTPClient()
    begun = 0.0
    for number in range(count + WARM_UP):
        if number == WARM_UP:
            begun = cpu_seconds()
        client.request("127.0.0.1", port=port, version=4)
    print(cpu_seconds() - begun)


CLIENTS: dict[str, Callable[[int, int], None]] = {
    "asyncmg events native": lambda port, count: events_client(port, count, "native"),
    "asyncmg events asyncio": lambda port, count: events_client(port, count, "asyncio"),
    "asyncmg sntp_time stdlib": lambda port, count: sntp_time_client(port, count, uvloop=False),
    "asyncmg sntp_time uvloop": lambda port, count: sntp_time_client(port, count, uvloop=True),
    "ntplib": ntplib_client,
}


if __name__ == "__main__":
    if len(sys.argv) == 1:
        print(*SERVERS, *CLIENTS, sep="\n")
        sys.exit()
    name, port = sys.argv[1], int(sys.argv[2])
    if len(sys.argv) > 3:
        CLIENTS[name](port, int(sys.argv[3]))
    else:
        SERVERS[name](port)
