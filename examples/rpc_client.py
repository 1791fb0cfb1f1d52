"""JSON-RPC client: calls, several at once, notifications, a batch; over WebSocket the server's notifications as well.

Try: python examples/rpc_server.py & python examples/rpc_client.py ws://127.0.0.1:8000/ws
"""

import argparse
import asyncio

from asyncmg import Rpc, RpcClient, RpcError

mine = Rpc()
changed = asyncio.Event()


@mine.method("changed")
def note_change(led, state):
    print(f"led {led} is {state}", flush=True)
    changed.set()


async def main(url):
    async with RpcClient(url, rpc=mine, timeout=10) as client:
        print("sum:", await client.call("sum", 1, 2, 3))
        print("by name:", await client.call("divide", dividend=1, divisor=4))
        try:
            await client.call("divide", 1, 0)
        except RpcError as exc:
            print("error:", exc.code, exc.message, exc.data)
        slow, quick = client.call("sleep", 0.3), client.call("sum", 4)
        print("at the same time:", await asyncio.gather(slow, quick))
        await client.notify("led.1.on")
        if url.startswith("ws"):
            async with asyncio.timeout(10):
                await changed.wait()
        for result in await client.batch([("sum", [1, 1]), ("no.such", []), "rpc.list"]):
            print("batch:", result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="ws://127.0.0.1:8000/ws")
    asyncio.run(main(parser.parse_args().url))
