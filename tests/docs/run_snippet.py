"""Runs one code block of the documentation, word for word: ``python run_snippet.py KIND FILE``.

Not a test: test_snippets.py starts it. So that blocks can name ports, and still run side by side, every TCP or UDP
port that a block listens on is replaced by a free one; what connects to the named port is led to the replacement. The
replacements are written, a line ``NAMED ACTUAL`` each, to the file descriptor in SNIPPET_REPORT; SNIPPET_PORTS holds
those of a server in another process.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import socket
import sys
from pathlib import Path
from typing import Any

_ports = {int(named): int(actual) for named, actual in (p.split(":") for p in os.environ["SNIPPET_PORTS"].split())}


def replace_ports() -> None:
    bind, listen, connect = socket.socket.bind, socket.socket.listen, socket.socket.connect
    named: dict[int, int] = {}

    def report(sock: socket.socket) -> None:
        if sock.fileno() in named:
            os.write(int(os.environ["SNIPPET_REPORT"]), b"%d %d\n" % (named[sock.fileno()], sock.getsockname()[1]))

    def is_shared(sock: socket.socket) -> bool:
        """Whether others have the port too, and know its number: that of mDNS."""
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))

    def bind_free(sock: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[1] and not is_shared(sock):
            bind(sock, (address[0], 0, *address[2:]))
            named[sock.fileno()] = address[1]
            _ports[address[1]] = sock.getsockname()[1]
            if sock.type == socket.SOCK_DGRAM:
                report(sock)
        else:
            bind(sock, address)

    def listen_and_report(sock: socket.socket, *backlog: int) -> None:
        listen(sock, *backlog)
        report(sock)

    def connect_replaced(sock: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[1] in _ports:
            address = (address[0], _ports[address[1]], *address[2:])
        connect(sock, address)

    socket.socket.bind = bind_free  # type: ignore[method-assign]
    socket.socket.listen = listen_and_report  # type: ignore[method-assign]
    socket.socket.connect = connect_replaced  # type: ignore[method-assign]


def run(kind: str, path: Path) -> None:
    import asyncmg

    names: dict[str, Any] = {"__name__": "__main__"}
    if kind == "async":
        # The block stands inside a coroutine: it may await, and `manager` is there.
        code = compile(path.read_text(), path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

        async def main() -> None:
            async with asyncmg.Manager(enable_wakeup=True) as manager:
                names.update(manager=manager, asyncio=asyncio, asyncmg=asyncmg)
                result = eval(code, names)
                if inspect.isawaitable(result):
                    await result

        asyncio.run(main())
        return
    exec(compile(path.read_text(), path, "exec"), names)
    if kind == "handler":
        # The block defines `handler`; what serves with it is in the text around.
        manager = asyncmg.Manager(names["handler"])
        manager.listen("http://127.0.0.1:8000")
        manager.run()


if __name__ == "__main__":
    replace_ports()
    run(sys.argv[1], Path(sys.argv[2]))
