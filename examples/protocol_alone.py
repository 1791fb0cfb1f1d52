"""The protocol class without Manager and Connection: an ordinary asyncio.Protocol for loop.create_server().

Try: curl http://127.0.0.1:8000/
"""

import argparse
import asyncio
import signal

from asyncmg import MG_EV_HTTP_MSG, CallbackSink, HttpProtocol


def make_protocol():
    def handle(ev, message):
        if ev == MG_EV_HTTP_MSG:
            protocol.reply(200, {"method": message.method, "uri": message.uri})

    protocol = HttpProtocol(CallbackSink(handle))
    return protocol


async def main(port):
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    server = await loop.create_server(make_protocol, "127.0.0.1", port)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await stopped.wait()
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    asyncio.run(main(parser.parse_args().port))
