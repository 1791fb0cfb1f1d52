"""One coroutine per connection: its local variables are the state of the session.

Try: curl http://127.0.0.1:8000/a --next http://127.0.0.1:8000/b    (two requests on one connection)
"""

import argparse
import asyncio

from asyncmg import MG_EV_CLOSE, MG_EV_HTTP_MSG, Manager


async def session(conn):
    visited = []
    async for ev, data in conn:
        if ev == MG_EV_HTTP_MSG:
            visited.append(data.uri)
            conn.reply(200, {"connection": conn.id, "visited": visited})
        elif ev == MG_EV_CLOSE:
            print(f"connection {conn.id} made {len(visited)} requests", flush=True)
    # The iteration ends after MG_EV_CLOSE.


async def main(port):
    async with Manager(session) as manager:
        listener = manager.listen(f"http://127.0.0.1:{port}")
        print(f"http://127.0.0.1:{listener.port}", flush=True)
        await manager.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    asyncio.run(main(parser.parse_args().port))
