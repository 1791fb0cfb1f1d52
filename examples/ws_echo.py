"""WebSocket echo on the port of an HTTP server: the request for /ws is upgraded, everything else is answered.

Try: python examples/ws_client.py ws://127.0.0.1:8000/ws
"""

import argparse
import asyncio

from asyncmg import MG_EV_HTTP_MSG, MG_EV_WS_MSG, Manager


async def handler(conn, ev, data):
    if ev == MG_EV_HTTP_MSG and data.uri == "/ws":
        conn.ws_upgrade(data, compression=True)  # a request that asks for something else is answered with 426
    elif ev == MG_EV_HTTP_MSG:
        conn.reply(200, "a WebSocket is at /ws\n")
    elif ev == MG_EV_WS_MSG:
        conn.ws_send(data.data, data.flags & 15)  # text as text, binary as binary


async def main(port):
    async with Manager(handler) as manager:
        listener = manager.listen(f"http://127.0.0.1:{port}")
        print(f"ws://127.0.0.1:{listener.port}/ws", flush=True)
        await manager.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    asyncio.run(main(parser.parse_args().port))
