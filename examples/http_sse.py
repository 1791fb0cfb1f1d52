"""Server-sent events: one timer serves everybody who listens.

Try: curl -N http://127.0.0.1:8000/events
"""

import argparse
import asyncio
import signal
import time

from asyncmg import MG_EV_CLOSE, MG_EV_HTTP_MSG, ConnectionClosed, Manager

subscribers = set()


async def handler(conn, ev, data):
    if ev == MG_EV_HTTP_MSG and data.uri == "/events":
        conn.reply(200, "", headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        subscribers.add(conn)
    elif ev == MG_EV_HTTP_MSG:
        conn.reply(404, "events are at /events\n")
    elif ev == MG_EV_CLOSE:
        subscribers.discard(conn)


def tick():
    for conn in tuple(subscribers):
        if conn.is_writable:  # who is behind misses this one; a broken connection is closed by its time-outs
            conn.http_sse("tick", time.strftime("%H:%M:%S"))


def end_streams():
    for conn in tuple(subscribers):
        try:
            conn.http_chunk("")  # the end of the reply: the connection can close in order
        except ConnectionClosed:
            subscribers.discard(conn)


async def main(port, interval):
    async with Manager(handler) as manager:
        listener = manager.listen(f"http://127.0.0.1:{port}")
        manager.timer_add(interval, tick, repeat=True)
        print(f"http://127.0.0.1:{listener.port}/events", flush=True)
        # Streams that never end by themselves would hold up a graceful stop: end them first.
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        await stopped.wait()
        end_streams()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--interval", type=int, default=1000, help="milliseconds between two events")
    options = parser.parse_args()
    asyncio.run(main(options.port, options.interval))
