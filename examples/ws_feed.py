"""Follow a WebSocket feed for as long as this runs: when the connection breaks, another one is made.

Try: python -m asyncmg demo, then python examples/ws_feed.py ws://127.0.0.1:8000/live
"""

import argparse
import asyncio

import asyncmg


async def main(url, count):
    async for ws in asyncmg.ws_connect(url):  # pauses grow while that fails: a second, two, four ... up to a minute
        print("connected", flush=True)
        try:
            async for message in ws:
                print(message, flush=True)
                count -= 1
                if count == 0:
                    return
        except asyncmg.ConnectionClosed as exc:
            print(exc, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="ws://127.0.0.1:8000/live")
    parser.add_argument("--count", type=int, default=0, help="messages after which it ends; 0: never")
    options = parser.parse_args()
    asyncio.run(main(options.url, options.count))
