"""Holds keep-alive connections: ``idle.py PORT COUNT``. Each does one request, then nothing.

Prints ``open N`` when it has them; after a line on its standard input ``alive N``, how many are still open, and ends.
"""

from __future__ import annotations

import resource
import select
import socket
import sys

REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
PER_ADDRESS = 20_000  # connections from one source address: there are 28,232 ports unless the system was told otherwise
SPARE = 50


def connect(port: int, number: int) -> socket.socket:
    """Connect, do one request, take its reply."""
    sock = socket.socket()
    sock.settimeout(20)
    if number >= PER_ADDRESS:
        sock.bind((f"127.0.0.{2 + number // PER_ADDRESS}", 0))
    sock.connect(("127.0.0.1", port))
    sock.sendall(REQUEST)
    data = b""
    while not data.endswith(b"\r\n\r\nHello, World!"):
        received = sock.recv(4096)
        if not received:
            raise OSError(f"connection {number} was closed instead of a reply")
        data += received
    if not data.startswith(b"HTTP/1.1 200 "):
        raise OSError(f"connection {number} got {data[:40]!r}")
    return sock


def main() -> None:
    port, count = int(sys.argv[1]), int(sys.argv[2])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and count + SPARE > hard:
        sys.exit(f"{count} connections need a higher limit of open files than {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        sockets = [connect(port, number) for number in range(count)]
    except OSError as exc:
        sys.exit(f"{exc}")
    print(f"open {len(sockets)}", flush=True)
    sys.stdin.readline()
    # A quiet connection has nothing to read: an event is its end, or a reply that nobody asked for.
    poll = select.poll()
    for sock in sockets:
        poll.register(sock, select.POLLIN)
    print(f"alive {count - len(poll.poll(0))}", flush=True)


if __name__ == "__main__":
    main()
