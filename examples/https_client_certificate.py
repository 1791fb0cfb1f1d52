"""Mutual TLS: the server asks for a certificate of the client and serves only those of its own authority.

Server: python examples/https_client_certificate.py --cert server.crt --key server.key --ca clients-ca.crt
Client: python examples/https_client_certificate.py --cert client.crt --key client.key --ca server-ca.crt \\
            --connect https://localhost:8443/
"""

import argparse
import asyncio
import sys
from urllib.parse import urlsplit

import asyncmg
from asyncmg import MG_EV_ERROR, MG_EV_HTTP_MSG, Manager, TlsOpts


def handler(conn, ev, data):
    if ev == MG_EV_HTTP_MSG:  # who has no certificate has not come so far
        conn.reply(200, f"{data.method} by a client with a certificate\n")
    elif ev == MG_EV_ERROR:
        print("refused", flush=True)


async def serve(port, tls):
    async with Manager(handler) as manager:
        listener = manager.listen(f"https://127.0.0.1:{port}", tls=tls)
        print(f"https://localhost:{listener.port}/", flush=True)
        await manager.serve_forever()


async def fetch(url, tls):
    parts = urlsplit(url)
    try:
        async with asyncmg.connect(url, tls=tls) as conn:
            conn.send(f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n")
            async for ev, data in conn:
                if ev == MG_EV_HTTP_MSG:
                    print(data.status(), data.body_text.strip(), flush=True)
                    return 0
                if ev == MG_EV_ERROR:
                    print("error:", data, file=sys.stderr)
                    return 1
    except (asyncmg.ConnectFailed, asyncmg.ConnectionClosed) as exc:
        print("error:", exc, file=sys.stderr)
        return 1
    # With TLS 1.3 the server's refusal of the certificate comes after the client's side of the handshake.
    print("error: closed by the server", file=sys.stderr)
    return 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8443, help="0: any free one")
    parser.add_argument("--cert", help="PEM file with the certificate chain")
    parser.add_argument("--key", help="PEM file with the key")
    parser.add_argument("--ca", required=True, help="PEM file with the authority of the other side")
    parser.add_argument("--connect", metavar="URL", help="be a client")
    options = parser.parse_args()
    opts = TlsOpts(ca=options.ca, cert=options.cert, key=options.key)
    if options.connect:
        sys.exit(asyncio.run(fetch(options.connect, opts)))
    asyncio.run(serve(options.port, opts))
