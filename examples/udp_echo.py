"""UDP echo: one MG_EV_READ per datagram; send() answers its sender.

Try: nc -u 127.0.0.1 9000
"""

import argparse
import asyncio

from asyncmg import MG_EV_READ, Manager


def handler(conn, ev, data):
    if ev == MG_EV_READ:
        conn.send(conn.read())


async def main(port):
    async with Manager(handler) as manager:
        conn = manager.listen(f"udp://127.0.0.1:{port}")  # of UDP a Connection: it serves all peers
        print(f"udp://{conn.local_addr}", flush=True)
        await manager.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9000, help="0: any free one")
    asyncio.run(main(parser.parse_args().port))
