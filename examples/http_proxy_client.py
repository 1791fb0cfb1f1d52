"""HTTP through a proxy by raw events: absolute-form for http (RFC 9112 section 3.2.2), CONNECT and TLS for https.

Try: python examples/http_proxy_client.py 127.0.0.1:3128 http://example.com/
     python examples/http_proxy_client.py 127.0.0.1:3128 https://example.com/
"""

import argparse
import sys
from urllib.parse import urlsplit

from asyncmg import (
    MG_EV_CLOSE,
    MG_EV_CONNECT,
    MG_EV_ERROR,
    MG_EV_HTTP_MSG,
    MG_EV_TLS_HS,
    HttpProtocol,
    Manager,
    Role,
    TlsOpts,
)


class Fetch:
    """One request; ``result`` is the exit code when it is over."""

    def __init__(self, url, ca):
        self.url = urlsplit(url)
        self.ca = ca
        self.is_https = self.url.scheme == "https"
        self.tunnel_is_open = False
        self.result = None
        default = 443 if self.is_https else 80
        host = f"[{self.url.hostname}]" if ":" in self.url.hostname else self.url.hostname
        self.authority = f"{host}:{self.url.port or default}"

    def request(self, target):
        return f"GET {target} HTTP/1.1\r\nHost: {self.url.netloc}\r\nConnection: close\r\n\r\n"

    def handler(self, conn, ev, data):
        path = (self.url.path or "/") + (f"?{self.url.query}" if self.url.query else "")
        if ev == MG_EV_CONNECT:
            if self.is_https:
                conn.send(f"CONNECT {self.authority} HTTP/1.1\r\nHost: {self.authority}\r\n\r\n")
            else:
                conn.send(self.request(f"http://{self.url.netloc}{path}"))
        elif ev == MG_EV_HTTP_MSG and self.is_https and not self.tunnel_is_open:
            if data.status() != 200:
                self.end(conn, f"the proxy refuses: {data.status()}")
                return
            self.tunnel_is_open = True
            conn.protocol.upgrade(HttpProtocol(conn, role=Role.CLIENT))  # HTTP begins anew in the tunnel
            conn.tls_init(TlsOpts(ca=self.ca, name=self.url.hostname))  # from here on it is the server that we talk to
        elif ev == MG_EV_TLS_HS:
            conn.send(self.request(path))
        elif ev == MG_EV_HTTP_MSG:
            print(data.status(), data.body_text, flush=True)
            self.end(conn)
        elif ev == MG_EV_ERROR:
            self.end(conn, str(data))
        elif ev == MG_EV_CLOSE and self.result is None:
            self.end(conn, "closed before the response")

    def end(self, conn, error=""):
        if self.result is None:
            self.result = int(bool(error))
            if error:
                print("error:", error, file=sys.stderr)
        conn.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proxy", help="host:port")
    parser.add_argument("url")
    parser.add_argument("--ca", help="PEM file with the certificates to trust (default: the system's)")
    options = parser.parse_args()
    fetch = Fetch(options.url, options.ca)
    with Manager() as mgr:
        mgr.http_connect(f"http://{options.proxy}", fetch.handler)
        while fetch.result is None:
            mgr.poll(100)
    sys.exit(fetch.result)
