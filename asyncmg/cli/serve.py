"""``asyncmg serve``: the files of a folder over HTTP."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

from asyncmg import Handler, Limits, Manager, NetLimits, StaticFiles, access_log

from . import serving

LIMITS = Limits(net=replace(NetLimits(), graceful_timeout=3.0))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", nargs="?", default=".", help="the folder (default: this one)")
    serving.add_address_arguments(parser)
    parser.add_argument("--no-listing", action="store_true", help="do not list folders that have no index.html")
    parser.add_argument("--hidden", action="store_true", help="serve and list names that begin with a dot")
    parser.add_argument("--follow-symlinks", action="store_true", help="follow links that stay within the folder")
    parser.add_argument(
        "--log", choices=["common", "combined", "json"], default="common", help="format of the log (default: common)"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="do not print a line per request")


def run(options: argparse.Namespace) -> int:
    root = Path(options.directory)
    if not root.is_dir():
        print(f"asyncmg: not a folder: {root}", file=sys.stderr)
        return 1
    root = root.resolve()
    handler: Handler = StaticFiles(
        root,
        listing=not options.no_listing,
        hidden=options.hidden,
        follow_symlinks=options.follow_symlinks,
        cache_control="no-cache",
    )
    if not options.quiet:
        handler = access_log(handler, options.log, _logger())
    return serving.run(_serve(root, options.host, options.port, handler))


def _logger() -> logging.Logger:
    """Log lines as they are, on stdout."""
    logger = logging.Logger("asyncmg.serve")  # of its own: nobody else's configuration shows
    logger.addHandler(logging.StreamHandler(sys.stdout))
    return logger


async def _serve(root: Path, host: str, port: int | None, handler: Handler) -> None:
    async with Manager(limits=LIMITS) as manager:
        listener = serving.listen(lambda url: manager.http_listen(url, handler), host, port)
        print(f"serving {root} on {serving.url_of(listener)}/ (Ctrl-C stops)", flush=True)
        await serving.serve_until_signal(manager, lambda: print("stopping", flush=True))
