"""The smallest HTTP server: one async handler for all connections.

Try: curl 'http://127.0.0.1:8000/?name=you'
"""

import argparse
import asyncio

from asyncmg import MG_EV_HTTP_MSG, Manager


async def handler(conn, ev, data):
    if ev == MG_EV_HTTP_MSG:
        await asyncio.sleep(0)  # ask a database, another server, ...: other connections go on meanwhile
        conn.reply(200, f"Hello, {data.query_var('name') or 'world'}!\n")


async def main(port):
    async with Manager(handler) as manager:
        listener = manager.listen(f"http://127.0.0.1:{port}")
        print(f"http://127.0.0.1:{listener.port}", flush=True)
        await manager.serve_forever()  # until Ctrl-C


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    asyncio.run(main(parser.parse_args().port))
