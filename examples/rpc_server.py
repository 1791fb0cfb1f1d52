"""JSON-RPC over WebSocket and HTTP: methods by name and by pattern, plain and async, and a room for notifications.

Try: curl -H 'Content-Type: application/json' -d '{"id": 1, "method": "sum", "params": [1, 2, 3]}' http://127.0.0.1:8000/
     python examples/rpc_client.py ws://127.0.0.1:8000/ws
"""

import argparse
import asyncio
import json

from asyncmg import MG_EV_CLOSE, MG_EV_HTTP_MSG, MG_EV_WS_OPEN, Manager, Rpc, RpcError

rpc = Rpc()
watching = set()


@rpc.method("sum")
def add_all(*numbers):
    return sum(numbers)


@rpc.method
async def sleep(seconds=0.1):
    await asyncio.sleep(min(seconds, 10))
    return f"slept {seconds} s"


@rpc.method
def divide(dividend, divisor):
    if divisor == 0:
        raise RpcError(1, "division by zero", {"dividend": dividend})
    return dividend / divisor


def led(req):
    """In the manner of Mongoose: a pattern, and the answer as JSON text."""
    number, state = req.captures
    if state not in ("on", "off"):
        req.err(-32602, "on or off")
        return
    req.ok(json.dumps({"led": number, "state": state}))
    event = json.dumps({"jsonrpc": "2.0", "method": "changed", "params": {"led": number, "state": state}})
    for conn in watching:
        if conn.is_writable:
            conn.ws_send(event)


rpc.add("led.*.*", led)
rpc.add("rpc.list", lambda req: rpc.methods)


def handler(conn, ev, data):
    if ev == MG_EV_HTTP_MSG and data.uri == "/ws":
        conn.ws_upgrade(data)
        return
    if ev == MG_EV_WS_OPEN:
        watching.add(conn)
    elif ev == MG_EV_CLOSE:
        watching.discard(conn)
    rpc.serve(conn, ev, data)


async def main(port):
    async with Manager(handler) as manager:
        listener = manager.listen(f"http://127.0.0.1:{port}")
        print(f"http://127.0.0.1:{listener.port}", flush=True)
        await manager.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    asyncio.run(main(parser.parse_args().port))
