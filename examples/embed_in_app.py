"""A Manager inside an asyncio program that has other work: the loop is the program's, the server is a guest.

Try: curl http://127.0.0.1:8000/
"""

import argparse
import asyncio
import signal

from asyncmg import MG_EV_HTTP_MSG, Manager


class Thermometer:
    """Stands for the program: something that goes on by itself."""

    def __init__(self):
        self.readings = 0

    async def measure(self):
        while True:
            self.readings += 1
            await asyncio.sleep(0.01)


async def main(port):
    thermometer = Thermometer()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):  # the program's own way to stop
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)

    async def handler(conn, ev, data):
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, {"readings": thermometer.readings})

    async with asyncio.TaskGroup() as tasks, Manager(handler) as manager:
        measuring = tasks.create_task(thermometer.measure())
        listener = manager.listen(f"http://127.0.0.1:{port}")  # it serves from now on; there is nothing to run
        print(f"http://127.0.0.1:{listener.port}", flush=True)
        await stopped.wait()
        measuring.cancel()
    # Leaving the Manager has let the requests under way finish.


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    asyncio.run(main(parser.parse_args().port))
