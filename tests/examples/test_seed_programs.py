"""Programs written for pymongoose and cymongoose run with only their import (and ports and paths) changed.

They are driven as their users drive them, by ``manager.poll(100)`` in a thread of its own; the other side is a real
client or server. Behind them: the HTTP programs of the design's one-screen surface.
"""

from __future__ import annotations

import asyncio
import http.client
import http.server
import json
import os
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

import asyncmg
from asyncmg import (
    MG_EV_ACCEPT,
    MG_EV_CLOSE,
    MG_EV_CONNECT,
    MG_EV_ERROR,
    MG_EV_HTTP_MSG,
    MG_EV_WS_MSG,
    MG_EV_WS_OPEN,
    WEBSOCKET_OP_BINARY,
    WEBSOCKET_OP_TEXT,
    Manager,
    TlsOpts,
    http_parse_multipart,
)


@contextmanager
def polling(manager: Manager) -> Iterator[None]:
    """``while True: manager.poll(100)`` in a thread; closes the manager at the end."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def loop() -> None:
        try:
            while not stop.is_set():
                manager.poll(100)
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive(), "poll() did not return"
        manager.close()
    assert errors == []


@contextmanager
def serving(handler: Callable[..., Any], scheme: str = "http") -> Iterator[int]:
    """Serve with the handler of a seed; yield the port. An exception in the handler fails the test."""
    errors: list[Exception] = []
    manager = Manager(handler, error_handler=errors.append)
    listener = manager.listen(f"{scheme}://127.0.0.1:0", http=True)
    with polling(manager):
        yield listener.local_addr[1]
    assert errors == []


def fetch(port: int, path: str, data: bytes | None = None, **headers: str) -> tuple[int, Any, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


# -- HTTP server ----------------------------------------------------------------------------------------------------


def test_basic_server(capsys: pytest.CaptureFixture[str]) -> None:
    def handler(conn, ev, data):
        if ev == MG_EV_HTTP_MSG:
            # Access request
            print(f"{data.method} {data.uri}")

            # Send response
            conn.reply(200, b'{"status": "ok"}', headers={"Content-Type": "application/json"})
            conn.drain()

    with serving(handler) as port:
        status, headers, body = fetch(port, "/path")
        assert (status, headers["Content-Type"], body) == (200, "application/json", b'{"status": "ok"}')
        assert headers["Connection"] == "close"
    assert capsys.readouterr().out == "GET /path\n"


def test_quick_start_without_drain_keeps_the_connection() -> None:
    def handler(conn, event, data):
        if event == MG_EV_HTTP_MSG:
            conn.reply(200, "Hello, World!")

    with serving(handler) as port:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        client.connect()
        sock = client.sock
        for _ in range(3):
            client.request("GET", "/")
            assert client.getresponse().read() == b"Hello, World!"
            assert client.sock is sock
        client.close()


def test_request_data() -> None:
    seen: dict[str, Any] = {}

    def handler(conn, ev, data):
        if ev == MG_EV_HTTP_MSG:
            seen.update(
                method=data.method,
                uri=data.uri,
                query=data.query,
                user_id=data.query_var("id"),
                content_type=data.header("Content-Type"),
                auth=data.header("Authorization"),
                body_bytes=data.body_bytes,
                body_text=data.body_text,
            )
            # All headers
            for name, value in data.headers():
                seen[name] = value
            conn.reply(200, b"")
            conn.drain()

    with serving(handler) as port:
        sent = {"Content-Type": "text/plain", "Authorization": "Bearer x", "X-Own": "1"}
        fetch(port, "/api/users/123?id=123&name=foo", "naïve".encode(), **sent)
    assert seen["method"] == "POST"
    assert seen["uri"] == "/api/users/123"
    assert seen["query"] == "id=123&name=foo"
    assert seen["user_id"] == "123"
    assert (seen["content_type"], seen["auth"]) == ("text/plain", "Bearer x")
    assert (seen["body_bytes"], seen["body_text"]) == ("naïve".encode(), "naïve")
    assert seen["X-Own"] == "1"


def test_routing() -> None:
    def handle_get_user(conn, user_id):
        conn.reply(200, json.dumps({"id": user_id}).encode(), headers={"Content-Type": "application/json"})

    def handle_create_user(conn, body):
        conn.reply(201, b'{"id": 123}')

    def handler(conn, ev, data):
        if ev == MG_EV_HTTP_MSG:
            method = data.method
            uri = data.uri

            # Route handlers
            if method == "GET" and uri == "/":
                conn.reply(200, b"Home page")

            elif method == "GET" and uri.startswith("/api/users/"):
                user_id = uri.split("/")[-1]
                handle_get_user(conn, user_id)

            elif method == "POST" and uri == "/api/users":
                handle_create_user(conn, data.body_text)

            else:
                conn.reply(404, b'{"error": "Not found"}', headers={"Content-Type": "application/json"})

            conn.drain()

    with serving(handler) as port:
        assert fetch(port, "/")[::2] == (200, b"Home page")
        assert fetch(port, "/api/users/7")[::2] == (200, b'{"id": "7"}')
        assert fetch(port, "/api/users", b"{}")[::2] == (201, b'{"id": 123}')
        assert fetch(port, "/nowhere")[::2] == (404, b'{"error": "Not found"}')


def test_static_files(tmp_path: Path) -> None:
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "page.html").write_text("<p>static</p>")
    (tmp_path / "favicon.ico").write_bytes(b"icon")
    root = str(tmp_path)

    def handler(conn, ev, data):
        if ev == MG_EV_HTTP_MSG:
            if data.uri.startswith("/static/"):
                # Serve from ./public directory
                conn.serve_dir(data, root, extra_headers="Cache-Control: max-age=3600")
            elif data.uri == "/favicon.ico":
                conn.serve_file(data, f"{root}/favicon.ico")
            else:
                # Dynamic response
                conn.reply(200, b"Hello!")
                conn.drain()

    with serving(handler) as port:
        status, headers, body = fetch(port, "/static/page.html")
        assert (status, headers["Cache-Control"], body) == (200, "max-age=3600", b"<p>static</p>")
        assert headers["Content-Type"].startswith("text/html")
        assert fetch(port, "/static/none")[0] == 404
        assert fetch(port, "/favicon.ico")[::2] == (200, b"icon")
        assert fetch(port, "/")[::2] == (200, b"Hello!")


def test_serve_dir_with_a_keyword(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>index</p>")

    def handler(conn, event, data):
        if event == MG_EV_HTTP_MSG:
            conn.serve_dir(data, root_dir=str(tmp_path))

    with serving(handler) as port:
        assert fetch(port, "/")[::2] == (200, b"<p>index</p>")


def test_html_response_and_headers() -> None:
    html = b"<html><body><h1>Hello, World!</h1></body></html>"

    def handler(conn, ev, data):
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, html, headers={"Content-Type": "text/html", "X-Request-ID": "12345"})

    with serving(handler) as port:
        status, headers, body = fetch(port, "/")
        assert (status, headers["Content-Type"], headers["X-Request-ID"]) == (200, "text/html", "12345")
        assert body == html


def test_simple_response_and_one_with_headers() -> None:
    def handler(conn, ev, data):
        if ev == MG_EV_HTTP_MSG and data.uri == "/simple":
            conn.reply(200, b"OK")
        elif ev == MG_EV_HTTP_MSG:
            conn.reply(
                200,
                b'{"status": "ok"}',
                headers={
                    "Content-Type": "application/json",
                    "X-Request-ID": "12345",
                },
            )

    with serving(handler) as port:
        assert fetch(port, "/simple")[::2] == (200, b"OK")
        status, headers, body = fetch(port, "/")
        assert (status, body) == (200, b'{"status": "ok"}')
        assert (headers["Content-Type"], headers["X-Request-ID"]) == ("application/json", "12345")


def test_json_response() -> None:
    users = [{"name": "Alice"}, {"name": "Bob"}]

    def handler(conn, ev, data):
        if ev == MG_EV_HTTP_MSG:
            response_data = {"users": users, "count": len(users)}
            conn.reply(200, json.dumps(response_data).encode(), headers={"Content-Type": "application/json"})

    with serving(handler) as port:
        status, headers, body = fetch(port, "/")
        assert (status, headers["Content-Type"]) == (200, "application/json")
        assert json.loads(body) == {"users": users, "count": 2}


@pytest.mark.parametrize("status", [200, 201, 204, 400, 401, 403, 404, 500, 503])
def test_status_codes(status: int) -> None:
    def handler(conn, ev, data):
        if ev == MG_EV_HTTP_MSG:
            conn.reply(status, b"" if status == 204 else b"text")

    with serving(handler) as port:
        assert fetch(port, "/")[::2] == (status, b"" if status == 204 else b"text")


def test_chunked_transfer_encoding() -> None:
    def handler(conn, ev, data):
        if ev == MG_EV_HTTP_MSG:
            # Start chunked response
            conn.reply(200, "", headers={"Transfer-Encoding": "chunked"})

            # Send chunks
            for i in range(100):
                chunk = f"Chunk {i}\n"
                conn.http_chunk(chunk)

            # End chunking
            conn.http_chunk("")  # Empty chunk signals end

    with serving(handler) as port:
        status, headers, body = fetch(port, "/")
        assert (status, headers["Transfer-Encoding"]) == (200, "chunked")
        assert body == "".join(f"Chunk {i}\n" for i in range(100)).encode()


def test_server_sent_events_with_a_timer() -> None:
    # Track SSE connections
    sse_clients: list[Any] = []

    def handler(conn, ev, data):
        if ev == MG_EV_HTTP_MSG and data.uri == "/events":
            # Start SSE stream
            conn.reply(200, "", headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
            sse_clients.append(conn)

    def broadcast_event(event_type, event_data):
        """Send event to all connected clients."""
        for client in sse_clients[:]:
            try:
                client.http_sse(event_type, event_data)
            except RuntimeError:
                sse_clients.remove(client)

    manager = Manager(handler)
    listener = manager.listen("http://127.0.0.1:0", http=True)
    # Use with timer
    manager.timer_add(20, lambda: broadcast_event("update", "..."), repeat=True)
    with polling(manager):
        url = f"http://127.0.0.1:{listener.local_addr[1]}/events"
        with urllib.request.urlopen(url, timeout=10) as stays:
            with urllib.request.urlopen(url, timeout=10) as leaves:
                leaves.read(1)
                assert len(sse_clients) == 2
            while len(sse_clients) == 2:  # the broken one is found by the RuntimeError
                assert stays.readline() == b"event: update\n"
                assert stays.readline() == b"data: ...\n"
                assert stays.readline() == b"\n"


def test_multipart_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)

    def handler(conn, ev, data):
        if ev == MG_EV_HTTP_MSG and data.method == "POST":
            os.makedirs("uploads", exist_ok=True)  # as it is in the seed

            offset = 0
            while True:
                offset, part = http_parse_multipart(data.body_bytes, offset)
                if part is None:
                    break

                if part["filename"]:
                    # File upload
                    filename = part["filename"]
                    filepath = os.path.join("uploads", filename)

                    with open(filepath, "wb") as f:
                        f.write(part["body"])

                    print(f"Uploaded: {filepath}")

            conn.reply(200, b'{"status": "uploaded"}')
            conn.drain()

    content = bytes(range(256)) * 100
    body = (
        b'--b0undary\r\nContent-Disposition: form-data; name="title"\r\n\r\nmine\r\n'
        b'--b0undary\r\nContent-Disposition: form-data; name="f"; filename="one.bin"\r\n\r\n' + content + b"\r\n"
        b'--b0undary\r\nContent-Disposition: form-data; name="f"; filename="two.txt"\r\n\r\ntext\r\n--b0undary--\r\n'
    )
    with serving(handler) as port:
        kind = {"Content-Type": "multipart/form-data; boundary=b0undary"}
        assert fetch(port, "/upload", body, **kind)[::2] == (200, b'{"status": "uploaded"}')
    uploads = tmp_path / "uploads"
    assert {path.name: path.read_bytes() for path in uploads.iterdir()} == {"one.bin": content, "two.txt": b"text"}
    assert capsys.readouterr().out == "Uploaded: uploads/one.bin\nUploaded: uploads/two.txt\n"


# -- HTTP client ----------------------------------------------------------------------------------------------------


class _Origin(http.server.BaseHTTPRequestHandler):
    """A server that is not ours."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(f"got {self.path}".encode())

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def origin(tls: ssl.SSLContext | None = None) -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Origin) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join(10)


def test_client_get() -> None:
    responses: list[tuple[int, str]] = []
    closed = threading.Event()

    def client_handler(conn, ev, data):
        if ev == MG_EV_CONNECT:
            # Send GET request
            conn.send(b"GET /api/data HTTP/1.1\r\nHost: api.example.com\r\n\r\n")

        elif ev == MG_EV_HTTP_MSG:
            # Response received
            status = data.status()
            body = data.body_text
            responses.append((status, body))

            conn.close()

        elif ev == MG_EV_CLOSE:
            closed.set()

    with origin() as port:
        manager = Manager(client_handler)
        manager.connect(f"http://127.0.0.1:{port}", http=True)
        with polling(manager):
            assert closed.wait(10)
    assert responses == [(200, "got /api/data")]


def test_client_post() -> None:
    bodies: list[str] = []
    answered = threading.Event()

    def client_handler(conn, ev, data):
        if ev == MG_EV_CONNECT:
            payload = json.dumps({"name": "Alice"}).encode()

            request = (
                b"POST /api/users HTTP/1.1\r\n"
                b"Host: api.example.com\r\n"
                b"Content-Type: application/json\r\n"
                + f"Content-Length: {len(payload)}\r\n".encode()
                + b"\r\n"
                + payload
            )
            conn.send(request)
        elif ev == MG_EV_HTTP_MSG:
            bodies.append(data.body_text)
            answered.set()

    with origin() as port:
        manager = Manager(client_handler)
        with polling(manager):
            manager.connect(f"http://127.0.0.1:{port}", http=True)  # from another thread than the one that polls
            assert answered.wait(10)
    assert bodies == ['{"name": "Alice"}']


def test_http_listen_and_http_connect() -> None:
    """The calls of the reference in the overview."""
    bodies: list[str] = []
    answered = threading.Event()

    def serve(conn, ev, data):
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, f"Hello {data.query_var('name')}")

    def client(conn, ev, data):
        if ev == MG_EV_CONNECT:
            conn.send(b"GET /?name=you HTTP/1.1\r\nHost: a\r\n\r\n")
        elif ev == MG_EV_HTTP_MSG:
            bodies.append(data.body_text)
            answered.set()

    mgr = Manager(handler=None, enable_wakeup=False)
    listener = mgr.http_listen("http://127.0.0.1:0", handler=serve)
    ip, port = listener.local_addr  # (ip, port) tuple
    mgr.http_connect(f"http://{ip}:{port}", handler=client)
    with polling(mgr):
        assert answered.wait(10)
    assert bodies == ["Hello you"]


def test_client_error_is_an_event() -> None:
    seen: list[int] = []
    closed = threading.Event()

    def client_handler(conn, ev, data):
        seen.append(ev)
        if ev == MG_EV_CLOSE:
            closed.set()

    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    manager = Manager(client_handler)
    manager.connect(f"http://127.0.0.1:{port}", http=True)
    with polling(manager):
        assert closed.wait(10)
    assert seen[-2:] == [MG_EV_ERROR, MG_EV_CLOSE]


# -- HTTPS ----------------------------------------------------------------------------------------------------------


class Certificates:
    def __init__(self) -> None:
        self.authority = trustme.CA()
        self.leaf = self.authority.issue_cert("example.com")
        self.ca = self.authority.cert_pem.bytes()
        self.cert = b"".join(blob.bytes() for blob in self.leaf.cert_chain_pems)
        self.key = self.leaf.private_key_pem.bytes()


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


def test_https_server(certificates: Certificates) -> None:
    cert, key = certificates.cert, certificates.key

    def handler(conn, ev, data):
        if ev == MG_EV_ACCEPT:
            # Initialize TLS on new connections
            opts = TlsOpts(cert=cert, key=key)
            conn.tls_init(opts)

        elif ev == MG_EV_HTTP_MSG:
            conn.reply(200, b"Secure Hello!")
            conn.drain()

    context = ssl.create_default_context(cadata=certificates.ca.decode())
    with serving(handler, "https") as port:
        for _ in range(2):
            with (
                socket.create_connection(("127.0.0.1", port), timeout=10) as sock,
                context.wrap_socket(sock, server_hostname="example.com") as tls,
            ):
                tls.sendall(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
                answer = b""
                while data := tls.recv(4096):
                    answer += data
            assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\nSecure Hello!")


def test_https_client(certificates: Certificates) -> None:
    ca = certificates.ca
    bodies: list[str] = []
    closed = threading.Event()

    def client_handler(conn, ev, data):
        if ev == MG_EV_CONNECT:
            # Initialize TLS
            opts = TlsOpts(ca=ca, name="example.com")
            conn.tls_init(opts)

            # Send request after TLS handshake
            conn.send(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")

        elif ev == MG_EV_HTTP_MSG:
            bodies.append(data.body_text)
            conn.close()

        elif ev == MG_EV_CLOSE:
            closed.set()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates.leaf.configure_cert(context)
    with origin(context) as port:
        manager = Manager(client_handler)
        manager.connect(f"https://127.0.0.1:{port}", http=True)
        with polling(manager):
            assert closed.wait(10)
    assert bodies == ["got /"]


# -- the one-screen surface of the design -----------------------------------------------------------------------------


async def _get(port: int, path: str) -> tuple[int, Any, bytes]:
    return await asyncio.get_running_loop().run_in_executor(None, fetch, port, path)


async def test_surface_1_async_handler() -> None:
    class Database:
        async def fetch(self, key: str) -> dict[str, str]:
            await asyncio.sleep(0)
            return {"id": key}

    db = Database()

    async def handler(conn, ev, data):
        if ev == MG_EV_HTTP_MSG:
            user = await db.fetch(data.query_var("id"))
            conn.reply(200, {"user": user})  # dict and list become JSON, str becomes text or HTML, bytes as they are

    async with Manager(handler) as mgr:
        listener = mgr.listen("http://127.0.0.1:0")  # bound when it returns; errors are raised here
        serving = asyncio.create_task(mgr.serve_forever(handle_signals=False))
        status, headers, body = await _get(listener.port, "/?id=7")
        assert (status, headers["Content-Type"], body) == (200, "application/json", b'{"user":{"id":"7"}}')
        mgr.stop()
        await asyncio.wait_for(serving, 10)


async def test_surface_2_session() -> None:
    ended = asyncio.Event()

    async def session(conn):
        async for ev, data in conn:
            if ev == MG_EV_HTTP_MSG and data.uri == "/ws":
                conn.reply(200, "a WebSocket, later")
            elif ev == MG_EV_HTTP_MSG:
                conn.reply(404)
        # the iterator ends after MG_EV_CLOSE
        ended.set()

    async with Manager(session) as mgr:
        listener = mgr.listen("http://127.0.0.1:0")
        assert (await _get(listener.port, "/ws"))[::2] == (200, b"a WebSocket, later")
        await asyncio.wait_for(ended.wait(), 10)
        assert (await _get(listener.port, "/"))[0] == 404


def test_surface_4_poll() -> None:
    def sync_handler(conn, ev, data):
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, "polled")

    mgr = Manager(sync_handler)
    listener = mgr.listen("http://0.0.0.0:0", http=True)
    with polling(mgr):
        assert fetch(listener.local_addr[1], "/")[::2] == (200, b"polled")


# -- WebSocket: pymongoose's echo server, and programs for the package websockets with their module changed -----------


def test_websocket_echo_server() -> None:
    def handler(conn, event, data):
        if event == MG_EV_HTTP_MSG:
            conn.ws_upgrade(data)  # Upgrade HTTP to WebSocket
        elif event == MG_EV_WS_MSG:
            conn.ws_send(data.text)  # Echo back

    async def connect_to_server(port: int) -> list[str | bytes]:
        uri = f"ws://localhost:{port}"
        async with asyncmg.ws_connect(uri) as websocket:
            # Send message
            await websocket.send("Hello, Server!")
            # Receive message
            responses = [await websocket.recv()]
            # Send JSON data, receive and parse
            await websocket.send(json.dumps({"type": "chat", "text": "Hello!"}))
            responses.append(json.loads(await websocket.recv())["text"])
            return responses

    with serving(handler) as port:
        assert asyncio.run(connect_to_server(port)) == ["Hello, Server!", "Hello!"]


def test_websocket_client_as_events() -> None:
    """``manager.ws_connect`` and ``poll()``, in the thread that has neither loop nor task."""
    seen: list[Any] = []

    def server(conn, ev, data):
        if ev == MG_EV_HTTP_MSG:
            conn.ws_upgrade(data)
        elif ev == MG_EV_WS_MSG:
            conn.ws_send(data.data, WEBSOCKET_OP_BINARY)

    def client(conn, ev, data):
        if ev == MG_EV_WS_OPEN:
            seen.append(data.status())
            conn.ws_send("hello", WEBSOCKET_OP_TEXT)
        elif ev == MG_EV_WS_MSG:
            seen.append((data.data, data.flags & 15))
            conn.close()

    with serving(server) as port:
        manager = Manager()
        conn = manager.ws_connect(f"ws://127.0.0.1:{port}/", client)
        for _ in range(200):
            manager.poll(50)
            if conn.is_closing:
                break
        manager.close()
    assert seen == [101, (b"hello", WEBSOCKET_OP_BINARY)]


def test_websockets_server_and_robust_client() -> None:
    async def echo_handler(websocket, path):
        """Echo server - sends back what it receives."""
        async for message in websocket:
            await websocket.send(f"Echo: {message}")

    async def robust_client(uri: str) -> str | bytes:
        """WebSocket client with error handling."""
        try:
            async with asyncmg.ws_connect(uri, timeout=10) as ws:
                await ws.send("Hello!")
                return await asyncio.wait_for(ws.recv(), timeout=5.0)
        except asyncmg.ConnectionClosed:
            return "Connection closed"

    async def main() -> None:
        server = await asyncmg.ws_serve(echo_handler, "localhost", 0)
        assert await robust_client(f"ws://localhost:{server.port}") == "Echo: Hello!"
        server.close()
        await server.wait_closed()

    asyncio.run(main())
