"""HTTPS server with a certificate of your own.

Make one:
    openssl req -x509 -newkey rsa:2048 -nodes -days 365 -keyout server.key -out server.crt \\
        -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1

Try: curl --cacert server.crt https://localhost:8443/
"""

import argparse
import asyncio

from asyncmg import MG_EV_HTTP_MSG, MG_EV_TLS_HS, Manager, TlsOpts


async def handler(conn, ev, data):
    if ev == MG_EV_TLS_HS:
        print(f"{conn.remote_addr}: handshake complete", flush=True)
    elif ev == MG_EV_HTTP_MSG:
        conn.reply(200, f"Secure hello! TLS: {conn.is_tls}\n")


async def main(port, cert, key):
    async with Manager(handler) as manager:
        listener = manager.listen(f"https://127.0.0.1:{port}", tls=TlsOpts(cert=cert, key=key))
        print(f"https://localhost:{listener.port}", flush=True)
        await manager.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8443, help="0: any free one")
    parser.add_argument("--cert", default="server.crt", help="PEM file with the certificate chain")
    parser.add_argument("--key", default="server.key", help="PEM file with the key")
    options = parser.parse_args()
    asyncio.run(main(options.port, options.cert, options.key))
