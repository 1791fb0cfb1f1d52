"""The command line: ``python -m asyncmg demo | serve | info``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from asyncmg import __version__

# The modules in asyncmg.cli that hold the commands, each with what it is for. Each has add_arguments() and run().
COMMANDS = {
    "demo": "run a hub on this machine: a page, JSON, files, uploads and server-sent events over HTTP",
    "serve": "serve the files of a folder over HTTP",
    "info": "tell what this installation is made of: versions, event loop, codecs, C core",
}


def make_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """Make the parser; only the module of the chosen command is imported."""
    parser = argparse.ArgumentParser(
        prog="asyncmg",
        description="Event-driven networking for asyncio: HTTP, TCP, UDP, Unix sockets and TLS as MG_EV_* events.",
    )
    parser.add_argument("-V", "--version", action="version", version=f"asyncmg {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".")
        if name == chosen:
            import_module(f"asyncmg.cli.{name}").add_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
    options = make_parser(chosen).parse_args(arguments)
    try:
        code: int = import_module(f"asyncmg.cli.{options.command}").run(options)
    except KeyboardInterrupt:
        code = 130
    return code


if __name__ == "__main__":
    sys.exit(main())
