"""``asyncmg serve``: the files of a folder over HTTP."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from asyncmg import MG_EV_HTTP_MSG, Connection, Limits, Manager, NetLimits

from . import serving

LIMITS = Limits(net=replace(NetLimits(), graceful_timeout=3.0))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", nargs="?", default=".", help="the folder (default: this one)")
    serving.add_address_arguments(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="do not print a line per request")


def run(options: argparse.Namespace) -> int:
    root = Path(options.directory)
    if not root.is_dir():
        print(f"asyncmg: not a folder: {root}", file=sys.stderr)
        return 1
    return serving.run(_serve(root.resolve(), options.host, options.port, options.quiet))


async def _serve(root: Path, host: str, port: int | None, quiet: bool) -> None:
    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.serve_dir(data, root, extra_headers="Cache-Control: no-cache\r\n")
            if not quiet:
                print(f"{conn.remote_addr} {data.method} {ascii(data.uri)[1:-1]}", flush=True)

    async with Manager(limits=LIMITS) as manager:
        listener = serving.listen(manager, host, port, handler)
        print(f"serving {root} on {serving.url_of(listener)}/ (Ctrl-C stops)", flush=True)
        await serving.serve_until_signal(manager, lambda: print("stopping", flush=True))
