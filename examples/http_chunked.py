"""A reply of any length in chunks, made no faster than the client takes it.

Try: curl -N 'http://127.0.0.1:8000/?lines=1000000' | tail -1
"""

import argparse
import asyncio
from contextlib import suppress

from asyncmg import MG_EV_HTTP_MSG, ConnectionClosed, Manager


async def handler(conn, ev, data):
    if ev == MG_EV_HTTP_MSG:
        lines = data.query_var("lines") or "100"
        if not lines.isdecimal():
            conn.reply(400, "lines must be a number\n")
            return
        conn.reply(200, "", headers={"Transfer-Encoding": "chunked"})
        with suppress(ConnectionClosed):  # the client has gone: nobody wants the rest
            for start in range(0, int(lines), 100):
                numbers = range(start, min(start + 100, int(lines)))
                conn.http_chunk("".join(f"line {n}\n" for n in numbers))
                await conn.flush()  # waits while the client is behind: memory stays small
            conn.http_chunk("")  # the end


async def main(port):
    async with Manager(handler) as manager:
        listener = manager.listen(f"http://127.0.0.1:{port}")
        print(f"http://127.0.0.1:{listener.port}", flush=True)
        await manager.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    asyncio.run(main(parser.parse_args().port))
