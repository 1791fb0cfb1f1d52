"""A web page that people on the same network find by itself: its host and service are shown by mDNS.

Try: python mdns_service.py --name kitchen, then open http://kitchen.local:8000/ on another machine, or
python mdns_service.py --browse _http._tcp
"""

import argparse
import asyncio
import contextlib

import asyncmg
from asyncmg import MG_EV_HTTP_MSG, Manager, MdnsService


def handler(conn, ev, data):
    if ev == MG_EV_HTTP_MSG:
        conn.reply(200, "found\n")


async def serve(name, port, where):
    async with Manager(handler) as manager:
        listener = manager.listen(f"http://0.0.0.0:{port}")
        service = MdnsService("_http._tcp", listener.local_addr.port, "A page of asyncmg", {"path": "/"})
        async with asyncmg.mdns_serve(name, services=[service], **where) as shown:
            print(f"http://{shown.hostname}:{service.port}/", flush=True)
            await shown.serve_forever()


async def browse(kind, where):
    for service in await asyncmg.mdns_browse(kind, **where):
        addresses = ", ".join(service.addresses)
        print(f"{service.name}: {service.host} ({addresses}) port {service.port}, path {service.text('path', '-')}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="", help="of the host; default: the machine's")
    parser.add_argument("--port", type=int, default=8000, help="of the web page; 0: any free one")
    parser.add_argument("--browse", metavar="TYPE", help="look for services instead, such as _http._tcp")
    parser.add_argument("--interface", default="", help="network interface; default: all")
    parser.add_argument("--mdns-port", type=int, default=5353, help="for tests")
    arguments = parser.parse_args()
    where = {"interface": arguments.interface, "port": arguments.mdns_port}
    if arguments.browse:
        asyncio.run(browse(arguments.browse, where))
    else:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(arguments.name, arguments.port, where))
