"""A Unix socket: a server that answers lines, and with --send a client for it.

Try: python examples/unix_echo.py /tmp/echo.sock, and in another terminal:
     python examples/unix_echo.py /tmp/echo.sock --send hello
"""

import argparse
import asyncio

import asyncmg
from asyncmg import MG_EV_READ, Manager


async def session(conn):
    waiting = b""
    async for ev, _ in conn:
        if ev == MG_EV_READ:
            waiting += conn.read()
            *lines, waiting = waiting.split(b"\n")
            for line in lines:
                conn.send(b"echo: " + line + b"\n")


async def serve(path):
    async with Manager(session) as manager:
        manager.listen(f"unix://{path}")
        print(f"unix://{path}", flush=True)
        await manager.serve_forever()


async def send(path, text):
    async with asyncmg.connect(f"unix://{path}") as conn:
        conn.send(text + "\n")
        async for ev, _ in conn:
            if ev == MG_EV_READ and conn.recv_data().endswith(b"\n"):
                print(conn.read().decode(), end="", flush=True)
                break


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="absolute path of the socket")
    parser.add_argument("--send", metavar="TEXT", help="be the client: send this line and print the answer")
    options = parser.parse_args()
    asyncio.run(serve(options.path) if options.send is None else send(options.path, options.send))
