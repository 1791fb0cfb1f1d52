"""The usual programs for Mongoose, as examples of ours: each run on both backends, with peers that are not ours."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import select
import signal
import socket
import socketserver
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

import asyncmg.core

from .program import Program
from .test_examples import EXAMPLES, address, certificates, fetch, running

PORTED: dict[str, Callable[[Path], None]] = {}


def ported(test: Callable[[Path], None]) -> Callable[[Path], None]:
    """Register the test of the example that has its name."""
    PORTED[test.__name__] = test
    return test


def ask(method: str, url: str, data: bytes | None = None, **headers: str) -> tuple[int, Any]:
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            status, body = response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            status, body = error.code, error.read()
    return status, json.loads(body) if body.startswith((b"{", b"[")) else body


@ported
def mongoose_rest(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    with running("mongoose_rest", "--port", "0", "--folder", str(folder)) as (_, url):
        notes = f"{url}/api/notes"
        assert ask("POST", notes, b'{"text": "milk"}') == (201, {"id": "1"})
        assert ask("GET", f"{notes}/1") == (200, {"id": "1", "text": "milk"})
        assert ask("GET", notes) == (200, {"1": "milk"})
        for wrong in (b"", b"[]", b"{}", b'{"text": 5}'):
            assert ask("POST", notes, wrong)[0] == 400
        assert ask("PUT", f"{notes}/1", b"")[0] == 405
        assert ask("DELETE", f"{notes}/1")[0] == 204
        assert ask("GET", f"{notes}/1")[0] == 404
        content = bytes(range(256)) * 20
        body = b"".join(
            b'--XX\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n%s\r\n' % (name, content)
            for name in (b"a b.bin", b"../../evil.txt", b"..")
        )
        kind = {"Content-Type": "multipart/form-data; boundary=XX"}
        assert ask("POST", f"{url}/upload", body + b"--XX--\r\n", **kind) == (
            200,
            {"saved": ["a_b.bin", "evil.txt", "unnamed"]},
        )
        assert sorted(path.name for path in folder.iterdir()) == ["a_b.bin", "evil.txt", "unnamed"]
        assert [path.name for path in tmp_path.iterdir()] == ["in"]
        assert fetch(f"{url}/files/a_b.bin") == (200, content)
        assert ask("GET", f"{url}/files/none")[0] == 404
        assert ask("GET", f"{url}/nowhere") == (404, {"error": "not found"})


class _Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"{self.path} of {self.headers['Host']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


class _Proxy(socketserver.StreamRequestHandler):
    """A forward proxy as simple as can be; ``seen`` has the request lines."""

    seen: list[str] = []  # noqa: RUF012  # of one test

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.rfile.readline()
        line, rest = head.split(b"\r\n", 1)
        method, target, _ = line.decode().split()
        self.seen.append(f"{method} {target}")
        host, _, port = (target if method == "CONNECT" else target.split("/")[2]).partition(":")
        if host == "refused":
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection((host, int(port)), timeout=10) as upstream:
            if method == "CONNECT":
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                upstream.sendall(f"{method} /{target.split('/', 3)[3]} HTTP/1.1\r\n".encode() + rest)
            ends = [self.connection, upstream]
            while True:
                for sock in select.select(ends, [], [], 10)[0]:
                    data = sock.recv(65536)
                    if not data:
                        return
                    (upstream if sock is self.connection else self.connection).sendall(data)


@contextmanager
def threaded(server: socketserver.TCPServer) -> Iterator[int]:
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join(10)


class _Threads(socketserver.ThreadingTCPServer):
    daemon_threads = True


@ported
def http_proxy_client(tmp_path: Path) -> None:
    example = EXAMPLES / "http_proxy_client.py"
    with (
        certificates(tmp_path) as (ca, cert, key),
        threaded(_Threads(("127.0.0.1", 0), _Proxy)) as proxy,
        threaded(http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Origin)) as plain,
    ):
        secure_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Origin)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        secure_server.socket = context.wrap_socket(secure_server.socket, server_side=True)
        _Proxy.seen.clear()
        with threaded(secure_server) as secure:
            for url in (f"http://localhost:{plain}/a?b=c", f"https://localhost:{secure}/a?b=c"):
                with Program(example, f"127.0.0.1:{proxy}", url, "--ca", ca) as program:
                    assert program.rest() == [f"200 /a?b=c of {url.split('/')[2]}"]
                    assert program.process.wait(10) == 0
                    assert program.stderr == ""
        assert _Proxy.seen == [f"GET http://localhost:{plain}/a?b=c", f"CONNECT localhost:{secure}"]
        with Program(example, f"127.0.0.1:{proxy}", "https://refused:443/") as program:
            assert program.rest() == []
            assert program.process.wait(10) == 1
            assert "the proxy refuses: 403" in program.stderr


@ported
def https_client_certificate(tmp_path: Path) -> None:
    authorities = {name: trustme.CA() for name in ("servers", "clients", "strangers")}
    for name, authority in authorities.items():
        authority.cert_pem.write_to_path(str(tmp_path / f"{name}.ca"))
        leaf = authority.issue_cert("localhost")
        leaf.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / f"{name}.pem"))

    def options(name: str, ca: str) -> list[str]:
        own = ["--cert", str(tmp_path / f"{name}.pem"), "--key", str(tmp_path / f"{name}.pem")] if name else []
        return [*own, "--ca", str(tmp_path / f"{ca}.ca")]

    with running("https_client_certificate", "--port", "0", *options("servers", "clients")) as (server, url):
        example = EXAMPLES / "https_client_certificate.py"
        with Program(example, "--connect", url, *options("clients", "servers")) as client:
            assert client.rest() == ["200 GET by a client with a certificate"]
            assert client.process.wait(10) == 0
        for name, ca in (("strangers", "servers"), ("", "servers"), ("clients", "strangers")):
            with Program(example, "--connect", url, *options(name, ca)) as client:
                assert client.rest() == []
                assert client.process.wait(10) == 1
                assert "error:" in client.stderr
            assert server.line() == "refused"


@ported
def graceful_drain(tmp_path: Path) -> None:
    with Program(EXAMPLES / "graceful_drain.py", "--port", "0", "--grace", "60") as program:
        url = program.line()
        idle = http.client.HTTPConnection(*address(url), timeout=20)
        idle.request("GET", "/0")
        assert idle.getresponse().read() == b"done\n"
        assert program.line() == "working for 0 s"
        busy = http.client.HTTPConnection(*address(url), timeout=20)
        busy.request("GET", "/4")  # long enough for a machine that stops for a moment
        assert program.line() == "working for 4 s"
        program.process.send_signal(signal.SIGTERM)
        assert idle.sock.recv(1) == b""  # let go at once
        with pytest.raises(ConnectionRefusedError):
            for _ in range(1000):  # the port closes in the loop's next turn
                with contextlib.suppress(ConnectionResetError):  # of one that was in the backlog
                    socket.create_connection(address(url), timeout=20).close()
        response = busy.getresponse()
        assert (response.status, response.read()) == (200, b"done\n")
        assert response.headers["Connection"] == "close"
        assert program.rest() == ["stopped after 2 replies"]
        assert program.process.wait(20) == 0
        assert program.stderr == ""
        idle.close()
        busy.close()


@ported
def rpc_server(tmp_path: Path) -> None:
    kind = {"Content-Type": "application/json"}
    with running("rpc_server", "--port", "0") as (_, url):
        call = b'{"id": 1, "method": "sum", "params": [1, 2, 3]}'
        assert ask("POST", url, call, **kind) == (200, {"id": 1, "result": 6})
        call = b'{"jsonrpc": "2.0", "id": 1, "method": "sleep", "params": {"seconds": 0.01}}'
        assert ask("POST", url, call, **kind)[1]["result"] == "slept 0.01 s"
        call = b'{"id": 2, "method": "led.3.dim"}'
        assert ask("POST", url, call, **kind) == (200, {"id": 2, "error": {"code": -32602, "message": "on or off"}})
        assert ask("POST", url, b'{"method": "led.3.on"}', **kind) == (204, b"")
        assert ask("POST", url, call)[0] == 415
        assert ask("GET", url)[0] == 405


@ported
def rpc_client(tmp_path: Path) -> None:
    with running("rpc_server", "--port", "0") as (_, url):
        for target in (url.replace("http", "ws") + "/ws", url):
            with Program(EXAMPLES / "rpc_client.py", target) as client:
                lines = [
                    "sum: 6",
                    "by name: 0.25",
                    "error: 1 division by zero {'dividend': 1}",
                    "at the same time: ['slept 0.3 s', 4]",
                    "led 1 is on",
                    "batch: 2",
                    "batch: Method not found (-32601)",
                    "batch: ['rpc.list', 'led.*.*', 'divide', 'sleep', 'sum']",
                ]
                if target == url:
                    lines.remove("led 1 is on")
                assert client.rest() == lines
                assert client.process.wait(10) == 0
                assert client.stderr == ""


@pytest.mark.parametrize("backend", ["asyncio", "native"])
@pytest.mark.parametrize("name", sorted(PORTED))
def test_ported_program(name: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core = asyncmg.core.load()
    if backend == "native" and (core is None or core.engine is None):
        if os.environ.get("ASYNCMG_REQUIRE_CORE") == "1":
            pytest.fail(f"no C core: {asyncmg.core.status().reason}")
        pytest.skip("no C core")
    monkeypatch.setenv("ASYNCMG_BACKEND", backend)
    PORTED[name](tmp_path)
