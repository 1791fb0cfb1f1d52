"""HTTPS client: the server's certificate and name are verified, against the system's roots or a CA of your own.

Try: python examples/https_client.py https://localhost:8443/ --ca server.crt
"""

import argparse
import asyncio
import sys
from urllib.parse import urlsplit

import asyncmg
from asyncmg import MG_EV_ERROR, MG_EV_HTTP_MSG, ConnectFailed, TlsOpts


async def main(url, ca):
    parts = urlsplit(url)
    try:
        async with asyncmg.connect(url, tls=TlsOpts(ca=ca)) as conn:  # connected, and TLS complete
            conn.send(f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n")
            async for ev, data in conn:
                if ev == MG_EV_HTTP_MSG:
                    print(data.status(), data.body_text, flush=True)
                elif ev == MG_EV_ERROR:
                    print("error:", data, file=sys.stderr)
                    return 1
    except ConnectFailed as exc:
        print("error:", exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="https://localhost:8443/")
    parser.add_argument("--ca", help="PEM file with the certificates to trust (default: the system's)")
    options = parser.parse_args()
    sys.exit(asyncio.run(main(options.url, options.ca)))
