"""HTTP client, by hand: a GET with a handler as in Mongoose, a POST with ``async with`` and ``async for``.

Try: python examples/http_json_api.py, and in another terminal: python examples/http_client.py http://127.0.0.1:8000
"""

import argparse
import asyncio
import json
from urllib.parse import urlsplit

import asyncmg
from asyncmg import MG_EV_CLOSE, MG_EV_CONNECT, MG_EV_ERROR, MG_EV_HTTP_MSG, Manager


async def get(url, path):
    """GET with a handler: MG_EV_CONNECT sends the request, MG_EV_HTTP_MSG brings the response."""
    host = urlsplit(url).netloc
    outcome = asyncio.get_running_loop().create_future()

    def handler(conn, ev, data):
        if ev == MG_EV_CONNECT:
            conn.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
        elif ev == MG_EV_HTTP_MSG:
            outcome.set_result((data.status(), data.body_text))
            conn.close()
        elif ev in (MG_EV_ERROR, MG_EV_CLOSE) and not outcome.done():
            outcome.set_exception(data or ConnectionError("closed without a response"))

    async with Manager(handler) as manager:
        manager.connect(url)
        return await outcome


async def post(url, path, value):
    """POST with the connection as a context manager and an iterator."""
    payload = json.dumps(value).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    async with asyncmg.connect(url) as conn:
        conn.send(head.encode() + payload)
        async for ev, data in conn:
            if ev == MG_EV_HTTP_MSG:
                return data.status(), data.body_text
            if ev == MG_EV_ERROR:
                raise data
    raise ConnectionError("closed without a response")


async def main(url):
    status, body = await post(url, "/api/users", {"name": "Alice"})
    print("POST", status, body, flush=True)
    status, body = await get(url, "/api/users/1")
    print("GET", status, body, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8000")
    asyncio.run(main(parser.parse_args().url))
