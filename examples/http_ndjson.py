"""A reply that is made while it is sent: an async iterator as body, one JSON value per line.

Try: curl -N "http://127.0.0.1:8000/?count=5"
"""

import argparse
import asyncio
import json

from asyncmg import MG_EV_HTTP_MSG, Manager


async def squares(count, pause):
    for number in range(count):
        yield json.dumps({"number": number, "square": number * number}) + "\n"
        await asyncio.sleep(pause)


def make_handler(pause):
    def handler(conn, ev, data):
        if ev == MG_EV_HTTP_MSG:
            count = data.query_params.get("count", "10")
            if not count.isdecimal():
                conn.reply(400, "count is a number\n")
                return
            # When the client leaves, the iterator is closed; while the client is slow, it waits.
            conn.reply(200, squares(int(count), pause), {"Content-Type": "application/x-ndjson"})

    return handler


async def main(port, pause):
    async with Manager(make_handler(pause)) as manager:
        listener = manager.listen(f"http://127.0.0.1:{port}")
        print(f"http://127.0.0.1:{listener.port}/", flush=True)
        await manager.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between two lines")
    options = parser.parse_args()
    asyncio.run(main(options.port, options.pause))
