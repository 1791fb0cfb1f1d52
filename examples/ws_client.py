"""A WebSocket client: messages, a ping, a message in fragments, and how it ended.

Try: python examples/ws_echo.py, then python examples/ws_client.py ws://127.0.0.1:8000/ws
"""

import argparse
import asyncio

import asyncmg


async def lines():
    for number in range(3):
        await asyncio.sleep(0.01)  # from a file, a sensor, another connection ...
        yield f"line {number}\n"


async def main(url):
    async with asyncmg.ws_connect(url) as ws:
        await ws.send("hello")
        print("received", await ws.recv())

        await ws.send(b"\x00\x01")
        print("received", await ws.recv())

        pong = await ws.ping()
        print(f"latency below a second: {await pong < 1}")

        await ws.send(lines())  # one message, sent as it is made
        async for piece in ws.recv_stream():  # and received as it comes
            print("piece", repr(piece))

    print("closed with", ws.close_code)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="ws://127.0.0.1:8000/ws")
    asyncio.run(main(parser.parse_args().url))
