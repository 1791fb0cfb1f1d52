"""Stop without losing a request: SIGTERM closes the port, what is under way is replied to, idle clients are let go.

Try: curl http://127.0.0.1:8000/3 & sleep 1; kill -TERM $(pgrep -f graceful_drain)
"""

import argparse
import asyncio

from asyncmg import MG_EV_CLOSE, MG_EV_HTTP_MSG, Limits, Manager, NetLimits

replied = 0


async def handler(conn, ev, data):
    global replied
    if ev == MG_EV_HTTP_MSG:
        try:
            seconds = min(float(data.uri[1:] or 0), 60.0)
        except ValueError:
            conn.reply(404, "ask for a number of seconds\n")
            return
        print(f"working for {seconds:g} s", flush=True)
        await asyncio.sleep(seconds)  # the work
        conn.reply(200, "done\n")  # while stopping with "Connection: close"
        replied += 1
    elif ev == MG_EV_CLOSE:
        conn.userdata = None  # the place to give back what the connection held


async def main(port, grace):
    limits = Limits(net=NetLimits(graceful_timeout=grace))
    async with Manager(handler, limits=limits) as manager:
        listener = manager.listen(f"http://127.0.0.1:{port}")
        print(f"http://127.0.0.1:{listener.port}", flush=True)
        await manager.serve_forever()  # until SIGINT or SIGTERM; a second one does not wait
    print(f"stopped after {replied} replies", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--grace", type=float, default=30.0, help="seconds for requests under way")
    options = parser.parse_args()
    asyncio.run(main(options.port, options.grace))
