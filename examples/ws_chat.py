"""A chat room: what one says goes to all, and nobody's slow connection holds up the others.

Try in the consoles of two browsers:
     ws = new WebSocket("ws://127.0.0.1:8000/"); ws.onmessage = (event) => console.log(event.data); ws.send("hi")
"""

import argparse
import asyncio

import asyncmg

room = set()


async def chat(ws):
    room.add(ws)
    asyncmg.broadcast(room, f"{len(room)} here")
    try:
        async for message in ws:
            # Who does not read gets the newest messages when it reads again.
            asyncmg.broadcast(room, message, policy="drop_oldest")
    finally:
        room.discard(ws)
        asyncmg.broadcast(room, f"{len(room)} here")


async def main(port):
    async with asyncmg.ws_serve(chat, "127.0.0.1", port) as server:
        print(f"ws://127.0.0.1:{server.port}/", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    asyncio.run(main(parser.parse_args().port))
