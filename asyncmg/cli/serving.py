"""What the commands that serve share: the address options, finding a port, running until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from asyncmg import Listener, ListenFailed, Manager
from asyncmg.signals import install_signal_handler

DEFAULT_PORT = 8000
_PORTS_TRIED = 20
_WILDCARDS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def add_address_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--host`` and ``--port``."""
    parser.add_argument(
        "--port",
        type=port_number,
        help=f"port to listen on, 0 for any free one (default: {DEFAULT_PORT}, or the next free one)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s, this machine only; 0.0.0.0 or :: for the whole network)",
    )


def port_number(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is not a port: 0 to 65535")
    return port


def listen(
    bind: Callable[[str], Listener], host: str, port: int | None, *, scheme: str = "http", default: int = DEFAULT_PORT
) -> Listener:
    """Listen on ``port``; without one on the first free port from ``default`` on.

    Args:
        bind: listens at a URL.

    Raises:
        ListenFailed: the port is taken, or the address cannot be used.
    """
    address = f"[{host}]" if ":" in host else host
    ports = range(default, default + _PORTS_TRIED) if port is None else [port]
    for candidate in ports:
        try:
            return bind(f"{scheme}://{address}:{candidate}")
        except ListenFailed as exc:
            if exc.errno != errno.EADDRINUSE or candidate == ports[-1]:
                raise
    raise AssertionError("no port was tried")


def url_of(listener: Listener, scheme: str = "http") -> str:
    """The URL, without a slash at its end, that reaches the listener from this machine."""
    address = listener.local_addr
    assert address is not None
    host = _WILDCARDS.get(address.ip, address.ip)
    return f"{scheme}://[{host}]:{address.port}" if ":" in host else f"{scheme}://{host}:{address.port}"


async def serve_until_signal(manager: Manager, on_stop: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM, call ``on_stop``, stop gracefully. A second signal stops at once."""

    def stop() -> None:
        on_stop()
        manager.stop()

    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                stack.callback(install_signal_handler(loop, number, stop))
        await manager.serve_forever(handle_signals=False)


def run(serving: Coroutine[Any, Any, None]) -> int:
    """Run a command that serves; Ctrl-C is its ordinary end. Return the exit code."""
    try:
        asyncio.run(serving)
    except ListenFailed as exc:
        print(f"asyncmg: {exc}", file=sys.stderr)
        if exc.errno == errno.EADDRINUSE:
            print("Choose another port, or leave the option out to get a free one.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the signal handlers were there
        pass
    return 0
