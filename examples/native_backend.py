"""Serve over the sockets of the C engine where there is one, ask once, tell which backend it was, and end.

Try: python examples/native_backend.py, then with --backend asyncio, or with ASYNCMG_CORE=off in the environment.
"""

import argparse
import asyncio

import asyncmg
from asyncmg import MG_EV_ERROR, MG_EV_HTTP_MSG, Manager


async def handler(conn, ev, data):
    if ev == MG_EV_HTTP_MSG:
        conn.reply(200, f"You asked for {data.uri}")


async def ask(url, path):
    async with asyncmg.connect(url) as conn:
        conn.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async for ev, data in conn:
            if ev == MG_EV_HTTP_MSG:
                return f"{data.status()} {data.body_text}"
            if ev == MG_EV_ERROR:
                raise data
    raise ConnectionError("closed without a response")


async def main(backend):
    # Few events: only for these, and for MG_EV_CLOSE, is the handler called.
    async with Manager(handler, backend=backend, events=[MG_EV_HTTP_MSG]) as manager:
        listener = manager.listen("http://127.0.0.1:0")  # the first listener or connection decides what "auto" is
        print(f"served by the {manager.backend} backend", flush=True)
        print(await ask(f"http://127.0.0.1:{listener.port}", "/hello"), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["auto", "native", "asyncio"], default="auto")
    asyncio.run(main(parser.parse_args().backend))
