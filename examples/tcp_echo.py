"""TCP echo: raw bytes in, the same bytes out, at the pace of the slower side.

Try: nc 127.0.0.1 9000
"""

import argparse
import asyncio

from asyncmg import MG_EV_READ, Manager


async def handler(conn, ev, data):
    if ev == MG_EV_READ:
        conn.send(conn.read())  # takes what has come in
        await conn.flush()  # waits while the peer is behind; reading pauses by itself meanwhile


async def main(port):
    async with Manager(handler) as manager:
        listener = manager.listen(f"tcp://127.0.0.1:{port}")
        print(f"tcp://127.0.0.1:{listener.port}", flush=True)
        await manager.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9000, help="0: any free one")
    asyncio.run(main(parser.parse_args().port))
