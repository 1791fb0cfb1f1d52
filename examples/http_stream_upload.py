"""An upload of any size, read piece by piece: memory stays small, and the client is slowed to our pace.

Try: head -c 1000000000 /dev/zero | curl -T - -X POST http://127.0.0.1:8000/
"""

import argparse
import asyncio
import hashlib

from asyncmg import MG_EV_HTTP_HDRS, MG_EV_HTTP_MSG, Manager, RemoteProtocolError


async def handler(conn, ev, data):
    if ev == MG_EV_HTTP_HDRS and data.method in ("POST", "PUT"):
        # The headers are here, the content is not. Who takes the stream gets it all, and no MG_EV_HTTP_MSG.
        size, digest = 0, hashlib.sha256()
        try:
            async for chunk in data.stream():
                size += len(chunk)
                digest.update(chunk)
        except RemoteProtocolError:
            return  # a broken request: it has been refused with a 400 already
        conn.reply(200, {"size": size, "sha256": digest.hexdigest()})
    elif ev == MG_EV_HTTP_MSG:
        conn.reply(405, "POST or PUT some data\n", headers={"Allow": "POST, PUT"})


async def main(port):
    async with Manager(handler) as manager:
        listener = manager.listen(f"http://127.0.0.1:{port}")
        print(f"http://127.0.0.1:{listener.port}", flush=True)
        await manager.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    asyncio.run(main(parser.parse_args().port))
