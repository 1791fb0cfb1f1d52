"""Every program in examples/ runs, does over real connections what it says, and stops cleanly."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import http.client
import json
import re
import signal
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

import asyncmg
import asyncmg.core
from asyncmg.transports.choice import chosen_backend
from tests.resolver import dns_peer
from tests.resolver.mdns_peers import free_port

from .program import ROOT, Program

EXAMPLES = ROOT / "examples"
TESTS: dict[str, Callable[[Path], None]] = {}


def example(test: Callable[[Path], None]) -> Callable[[Path], None]:
    """Register the test of the example that has its name: ``http_hello`` tests ``http_hello.py``."""
    TESTS[test.__name__] = test
    return test


@contextmanager
def running(name: str, *arguments: str) -> Iterator[tuple[Program, str]]:
    """Run an example on a free port; yield it and its URL; stop it with SIGINT: exit code 0, nothing on stderr."""
    with Program(EXAMPLES / f"{name}.py", *arguments) as program:
        yield program, program.line()
        program.stop_cleanly()


def fetch(url: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Make one request; a refusal is an answer as well."""
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    return parts.hostname, parts.port


@example
def http_hello(tmp_path: Path) -> None:
    with running("http_hello", "--port", "0") as (_, url):
        assert fetch(f"{url}/?name=a+b") == (200, b"Hello, a b!\n")
        assert fetch(url) == (200, b"Hello, world!\n")


@example
def ws_echo(tmp_path: Path) -> None:
    with running("ws_echo", "--port", "0") as (_, url):
        assert fetch(url.replace("ws:", "http:").removesuffix("/ws")) == (200, b"a WebSocket is at /ws\n")
        assert fetch(url.replace("ws:", "http:"))[0] == 426
        with Program(EXAMPLES / "ws_client.py", url) as client:
            told = [client.line() for _ in range(3)]
            assert told == ["received hello", "received b'\\x00\\x01'", "latency below a second: True"]
            pieces = ""
            while (line := client.line()).startswith("piece "):
                pieces += ast.literal_eval(line.removeprefix("piece "))
            assert pieces == "line 0\nline 1\nline 2\n"
            assert line == "closed with 1000"


@example
def ws_client(tmp_path: Path) -> None:
    ws_echo(tmp_path)


@example
def ws_chat(tmp_path: Path) -> None:
    async def talk(url: str) -> list[str | bytes]:
        async with asyncmg.ws_connect(url) as first:
            told = [await first.recv()]
            async with asyncmg.ws_connect(url) as second:
                told += [await second.recv(), await first.recv()]
                await second.send("hi")
                told += [await first.recv(), await second.recv()]
            told.append(await first.recv())
        return told

    with running("ws_chat", "--port", "0") as (_, url):
        assert asyncio.run(asyncio.wait_for(talk(url), 20)) == ["1 here", "2 here", "2 here", "hi", "hi", "1 here"]


@example
def ws_feed(tmp_path: Path) -> None:
    async def serve() -> None:
        calls = 0

        async def handler(ws: asyncmg.WebSocket) -> None:
            nonlocal calls
            calls += 1
            await ws.send(f"message {calls}")
            if calls == 1:
                ws.conn.protocol.abort()

        async with asyncmg.ws_serve(handler, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.port}"
            with Program(EXAMPLES / "ws_feed.py", url, "--count", "1") as program:
                lines = [await asyncio.to_thread(program.line)]
                while not lines[-1].startswith("message"):
                    lines.append(await asyncio.to_thread(program.line))
            assert lines[0] == "connected" and lines.count("connected") <= 2

    asyncio.run(asyncio.wait_for(serve(), 40))


@example
def http_session(tmp_path: Path) -> None:
    with running("http_session", "--port", "0") as (program, url):
        client = http.client.HTTPConnection(*address(url), timeout=10)
        told = []
        for path in ("/a", "/b"):
            client.request("GET", path)
            told.append(json.load(client.getresponse()))
        assert [answer["visited"] for answer in told] == [["/a"], ["/a", "/b"]]
        client.close()
        assert program.line() == f"connection {told[0]['connection']} made 2 requests"
        assert json.loads(fetch(f"{url}/c")[1])["visited"] == ["/c"]


@example
def http_json_api(tmp_path: Path) -> None:
    with running("http_json_api", "--port", "0") as (_, url):
        assert fetch(f"{url}/api/users/1")[0] == 404
        assert fetch(f"{url}/api/users", b"not JSON")[0] == 400
        status, body = fetch(f"{url}/api/users", '{"name": "Åse"}'.encode())
        assert status == 201 and json.loads(body) == {"id": "1", "name": "Åse"}
        assert json.loads(fetch(f"{url}/api/users/1")[1]) == {"id": "1", "name": "Åse"}
        assert json.loads(fetch(f"{url}/api/users?prefix=%C3%85")[1]) == [{"id": "1", "name": "Åse"}]
        assert json.loads(fetch(f"{url}/api/users?prefix=B")[1]) == []
        told = json.loads(fetch(f"{url}/api/request?x=1", b"body", **{"X-Test": "yes"})[1])
        assert (told["method"], told["uri"], told["query"], told["body"]) == ("POST", "/api/request", "x=1", "body")
        assert ["X-Test", "yes"] in told["headers"]
        assert fetch(f"{url}/other")[0] == 404


@example
def http_chunked(tmp_path: Path) -> None:
    with running("http_chunked", "--port", "0") as (_, url):
        with urllib.request.urlopen(f"{url}/?lines=250", timeout=10) as response:
            assert response.headers["Transfer-Encoding"] == "chunked"
            assert response.read() == b"".join(b"line %d\n" % n for n in range(250))
        assert fetch(f"{url}/?lines=many")[0] == 400
        # A client that leaves in the middle is no error: the example's stderr stays empty.
        with socket.create_connection(address(url), timeout=10) as sock:
            sock.sendall(b"GET /?lines=1000000 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(100)
        status, body = fetch(f"{url}/?lines=200000")
        assert status == 200 and body.endswith(b"line 199999\n")


@example
def http_sse(tmp_path: Path) -> None:
    with running("http_sse", "--port", "0", "--interval", "20") as (program, url):
        with urllib.request.urlopen(url, timeout=10) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            for _ in range(3):
                assert response.readline() == b"event: tick\n"
                assert response.readline().startswith(b"data: ")
                assert response.readline() == b"\n"
            program.process.send_signal(signal.SIGINT)
            response.read()  # the stream has its end: no IncompleteRead
        assert program.process.wait(10) == 0


@example
def http_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0123456789")
    with running("http_files", "--port", "0", str(tmp_path)) as (_, url):
        assert b'href="a.txt"' in fetch(url)[1]
        assert fetch(f"{url}a.txt", Range="bytes=2-4") == (206, b"234")
        assert fetch(f"{url}../x")[0] == 400


@example
def http_upload_form(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    form = (
        b'--XX\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
        b'--XX\r\nContent-Disposition: form-data; name="file"; filename="../a.bin"\r\n\r\n%b\r\n--XX--\r\n' % content
    )
    kind = {"Content-Type": "multipart/form-data; boundary=XX"}
    with running("http_upload_form", "--port", "0", "--folder", str(tmp_path / "in")) as (_, url):
        assert b"<form" in fetch(url)[1]
        status, body = fetch(url, form, **kind)
        assert (status, json.loads(body)) == (200, {"note": "hello", "saved": ["a.bin"]})
        assert (tmp_path / "in" / "a.bin").read_bytes() == content
        assert fetch(url, form, **kind)[0] == 409
        assert fetch(url, form[:-10], **kind)[0] == 400
        assert fetch(url, b"{}", **{"Content-Type": "application/json"})[0] == 415
        assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.bin"]


@example
def http_upload_resume(tmp_path: Path) -> None:
    with running("http_upload_resume", "--port", "0", "--folder", str(tmp_path), "--max-size", "10") as (_, url):
        assert fetch(f"{url}up?file=a.bin&offset=0", b"01234") == (200, b"5")
        assert fetch(f"{url}up?file=a.bin&offset=4", b"01234")[0] == 400
        assert fetch(f"{url}up?file=a.bin&offset=5", b"56789") == (200, b"10")
        assert fetch(f"{url}up?file=a.bin&offset=10", b"x")[0] == 413
        assert fetch(f"{url}files/a.bin") == (200, b"0123456789")


@example
def http_mjpeg(tmp_path: Path) -> None:
    with Program(EXAMPLES / "http_mjpeg.py", "--port", "0", "--rate", "100") as program:
        url = program.line()
        assert b"<img" in fetch(url)[1]
        with urllib.request.urlopen(f"{url}stream", timeout=10) as response:
            boundary = response.headers["Content-Type"].partition("boundary=")[2].encode()
            assert response.headers["Content-Type"].startswith("multipart/x-mixed-replace")
            delimiter, data = b"--" + boundary, b""
            while data.count(delimiter) < 4:
                data += response.read1(65536)
            head = b"\r\nContent-Type: image/png\r\n\r\n"
            pictures = {part.removeprefix(head) for part in data.split(delimiter)[1:4] if part.startswith(head)}
            assert len(pictures) == 3 and all(one.startswith(b"\x89PNG") for one in pictures)
        program.stop_cleanly()


@example
def http_router(tmp_path: Path) -> None:
    right = {"Authorization": "Bearer secret"}

    def ask(method: str, url: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                assert method != "OPTIONS" or response.headers["Access-Control-Allow-Origin"] == "https://app.example"
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    with running("http_router", "--port", "0") as (program, url):
        assert ask("GET", f"{url}notes")[0] == 401
        assert ask("PUT", f"{url}notes/1", b'{"text": "milk"}', **right)[0] == 201
        assert ask("PUT", f"{url}notes/1", b"[]", **right)[0] == 400
        assert ask("GET", f"{url}notes/1", **right) == (200, b'{"text":"milk"}')
        assert ask("GET", f"{url}notes?contains=bread", **right) == (200, b"{}")
        assert ask("POST", f"{url}notes/1", b"", **right)[0] == 405
        preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "PUT"}
        assert ask("OPTIONS", f"{url}notes/1", **preflight)[0] == 204
        assert ask("DELETE", f"{url}notes/1", **right)[0] == 204
        entry = json.loads(program.line())
        assert (entry["method"], entry["target"], entry["status"]) == ("GET", "/notes", 401)


@example
def http_ndjson(tmp_path: Path) -> None:
    with running("http_ndjson", "--port", "0", "--pause", "0.01") as (_, url):
        status, body = fetch(f"{url}?count=5")
        assert status == 200
        assert [json.loads(line)["square"] for line in body.splitlines()] == [0, 1, 4, 9, 16]
        assert fetch(f"{url}?count=many")[0] == 400


@example
def http_upload_multipart(tmp_path: Path) -> None:
    def form(*files: tuple[str, bytes]) -> bytes:
        parts = [
            b'--XX\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n%s\r\n'
            % (name.encode(), content)
            for name, content in files
        ]
        return b"".join(parts) + b"--XX--\r\n"

    kind = {"Content-Type": "multipart/form-data; boundary=XX"}
    with running("http_upload_multipart", "--port", "0", "--folder", str(tmp_path / "in")) as (_, url):
        assert b"<form" in fetch(url)[1]
        content = bytes(range(256)) * 10
        status, body = fetch(url, form(("a.bin", content), (r"C:\\dir\\b c.txt", b"text")), **kind)
        assert status == 200, body
        assert [item["name"] for item in json.loads(body)["saved"]] == ["a.bin", "b c.txt"]
        assert (tmp_path / "in" / "a.bin").read_bytes() == content
        assert fetch(url, form(("a.bin", b"other")), **kind)[0] == 409
        for name in ("..", ".hidden", "../", "a\x00b", "con.", "%2e%2e"):
            assert fetch(url, form((name, b"evil")), **kind)[0] == 400, name
        assert fetch(url, form(("../../evil.txt", b"kept inside")), **kind)[0] == 200
        assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")) == [
            "in/a.bin",
            "in/b c.txt",
            "in/evil.txt",
        ]


@example
def http_stream_upload(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000  # 10 MB: far above max_body
    with running("http_stream_upload", "--port", "0") as (_, url):
        told = json.loads(fetch(url, data)[1])
        assert told == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        client = http.client.HTTPConnection(*address(url), timeout=10)
        pieces = [data[:5], data[5:70_000], data[70_000:70_001]]
        for _ in range(2):  # keep-alive
            client.request("PUT", "/", body=iter(pieces), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
            assert json.load(client.getresponse())["sha256"] == hashlib.sha256(b"".join(pieces)).hexdigest()
        client.close()
        assert fetch(url)[0] == 405


@example
def http_client(tmp_path: Path) -> None:
    with running("http_json_api", "--port", "0") as (_, url):
        with Program(EXAMPLES / "http_client.py", url) as client:
            assert client.rest() == ['POST 201 {"id":"1","name":"Alice"}', 'GET 200 {"id":"1","name":"Alice"}']
            assert client.process.wait(10) == 0
            assert client.stderr == ""


@contextmanager
def certificates(tmp_path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield paths of CA, certificate and key."""
    ca, paths = trustme.CA(), [str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem")]
    leaf = ca.issue_cert("localhost")
    ca.cert_pem.write_to_path(paths[0])
    for blob in leaf.cert_chain_pems:
        blob.write_to_path(paths[1], append=True)
    leaf.private_key_pem.write_to_path(paths[2])
    yield paths[0], paths[1], paths[2]


@example
def https_server(tmp_path: Path) -> None:
    with (
        certificates(tmp_path) as (ca, cert, key),
        running("https_server", "--port", "0", "--cert", cert, "--key", key) as (program, url),
    ):
        context = ssl.create_default_context(cafile=ca)
        with urllib.request.urlopen(url, timeout=10, context=context) as response:
            assert response.read() == b"Secure hello! TLS: True\n"
        assert program.line().endswith("handshake complete")


@example
def https_client(tmp_path: Path) -> None:
    with (
        certificates(tmp_path) as (ca, cert, key),
        running("https_server", "--port", "0", "--cert", cert, "--key", key) as (_, url),
    ):
        with Program(EXAMPLES / "https_client.py", url, "--ca", ca) as client:
            assert client.rest() == ["200 Secure hello! TLS: True", ""]
            assert client.process.wait(10) == 0
        with Program(EXAMPLES / "https_client.py", url) as client:  # the system does not know this CA
            assert client.rest() == []
            assert client.process.wait(10) == 1
            assert "certificate" in client.stderr


@example
def mongoose_style(tmp_path: Path) -> None:
    with running("mongoose_style", "--port", "0") as (_, url):
        assert fetch(f"{url}/path") == (200, b"You asked for /path\n")


@example
def tcp_echo(tmp_path: Path) -> None:
    with running("tcp_echo", "--port", "0") as (_, url):
        data = bytes(range(256)) * 8000
        with socket.create_connection(address(url), timeout=10) as sock:
            received, sent = b"", 0
            while len(received) < len(data):
                sent += sock.send(data[sent : sent + 100_000]) if sent < len(data) else 0
                received += sock.recv(1 << 20)
        assert received == data


@example
def udp_echo(tmp_path: Path) -> None:
    with running("udp_echo", "--port", "0") as (_, url):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.connect(address(url))
            for datagram in (b"one", b"x" * 8000):
                sock.send(datagram)
                assert sock.recv(65536) == datagram


@example
def mqtt_client(tmp_path: Path) -> None:
    with Program(EXAMPLES / "mqtt_client.py") as program:
        assert program.rest() == [
            "subscribed, QoS 1",
            "example/temperature/kitchen: 18.5 degrees, QoS 0",
            "example/temperature/cellar: 19.5 degrees, QoS 1",
            "example/temperature/last: 20.5 degrees, QoS 2",
            "100 delivered",
            "state: here",
            "latency below a second: True",
        ]
        assert program.process.wait(10) == 0
        assert program.stderr == ""


@example
def mqtt_request(tmp_path: Path) -> None:
    with Program(EXAMPLES / "mqtt_request.py") as program:
        assert program.rest() == [
            "7 squared: 49",
            "12 squared: 144",
            "x squared: not a number: x",
            "at the same time: 0 1 4 9 16",
            "no response: request() has taken more than 0.2 s",
        ]
        assert program.process.wait(10) == 0
        assert program.stderr == ""


@example
def mqtt_broker(tmp_path: Path) -> None:
    async def talk(url: str) -> None:
        pages = url.replace("mqtt", "http")
        async with (
            asyncmg.mqtt_connect(url, client_id="ann's", username="ann", password="right") as mq,
            asyncmg.mqtt_connect(url.replace("mqtt", "ws"), username="bob", password="also right", version=4) as other,
        ):
            await other.subscribe("users/ann/#", 1)
            await mq.publish("users/ann/state", "here", qos=1, retain=True)
            assert (await anext(other)).text == "here"
            with pytest.raises(asyncmg.MqttRefused) as refused:
                await mq.publish("users/bob/state", "away", qos=1)
            assert refused.value.code == 0x87
            assert b"broker" in (await asyncio.to_thread(fetch, pages))[1]
            topics = json.loads((await asyncio.to_thread(fetch, f"{pages}/topics"))[1])
            assert topics == {"users/ann/state": "here"}
            clients = json.loads((await asyncio.to_thread(fetch, f"{pages}/clients"))[1])
            assert {"id": "ann's", "user": "ann"} in clients and len(clients) == 2
            statistics = json.loads((await asyncio.to_thread(fetch, f"{pages}/statistics"))[1])
            assert statistics["unauthorized"] == 1
        for user in ({"username": "ann", "password": "wrong"}, {}):
            with pytest.raises(asyncmg.MqttRefused):
                await asyncmg.mqtt_connect(url, **user)

    users = tmp_path / "users.txt"
    asyncmg.PasswordFile(users).set("ann", "right")
    asyncmg.PasswordFile(users).set("bob", "also right")
    with running("mqtt_broker", "--port", "0", "--users", str(users)) as (_, url):
        asyncio.run(asyncio.wait_for(talk(url), 40))

    async def come_unknown(url: str) -> None:
        async with asyncmg.mqtt_connect(url) as mq:
            assert await mq.publish("a", "b", qos=2) == 0x10  # nobody has subscribed

    with running("mqtt_broker", "--port", "0") as (_, url):
        asyncio.run(asyncio.wait_for(come_unknown(url), 40))


@example
def mqtt_gateway(tmp_path: Path) -> None:
    async def talk(url: str) -> None:
        async with (
            asyncmg.ws_connect(url.replace("http", "ws", 1) + "/watch/house/%23") as watching,
            asyncmg.mqtt_connect(url.replace("http", "mqtt", 1)) as mq,
        ):
            status, body = await asyncio.to_thread(fetch, f"{url}/topics/room/1/temperature", b"20")
            assert (status, json.loads(body)) == (200, {"receivers": 1})
            assert json.loads(await watching.recv()) == {"topic": "house/temperature", "text": "20.00"}
            await mq.publish("room/2/temperature", "unknown")
            await mq.publish("room/2/temperature", "23", qos=1)
            assert json.loads(await watching.recv())["text"] == "21.50"
            await mq.subscribe("house/+")
            message = await anext(mq)
            assert (message.text, message.retain) == ("21.50", True)
        assert await asyncio.to_thread(fetch, f"{url}/topics/house/temperature") == (200, b"21.50")
        for path, expected in (("topics/house/other", 404), ("topics/%23", 404), ("watch/a%23", 400), ("watch/a", 426)):
            assert (await asyncio.to_thread(fetch, f"{url}/{path}"))[0] == expected, path
        assert (await asyncio.to_thread(fetch, f"{url}/topics/a%2B", b"x"))[0] == 400
        # Who still watches is told the end, and does not hold it up.
        async with asyncmg.ws_connect(url.replace("http", "ws", 1) + "/watch/silent") as watching:
            await asyncio.to_thread(program.stop)
            with pytest.raises(asyncmg.ConnectionClosedOK):
                await watching.recv()

    with running("mqtt_gateway", "--port", "0") as (program, url):
        asyncio.run(asyncio.wait_for(talk(url), 40))


@example
def mqtt_tiny_broker(tmp_path: Path) -> None:
    async def talk(url: str) -> None:
        async with (
            asyncmg.mqtt_connect(url, version=4) as one,
            asyncmg.mqtt_connect(url, version=5) as two,
        ):
            for client in (one, two):
                assert await client.subscribe([("room/#", 2), ("a/+", 0), ("last", 0)]) == (0, 0, 0)
                await client.unsubscribe("a/+")
                assert await client.ping() < 20
            for publisher in (one, two):
                await publisher.publish("room/1", "warm", qos=2)
                await publisher.publish("a/b", "nobody hears this", qos=1)
                await publisher.publish("last", "end")
                for client in (one, two):
                    assert [(await anext(client)).text for _ in range(2)] == ["warm", "end"]

    with running("mqtt_tiny_broker", "--port", "0") as (_, url):
        asyncio.run(asyncio.wait_for(talk(url), 40))


@example
def unix_echo(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with running("unix_echo", path) as (_, url):
        assert url == f"unix://{path}"
        with Program(EXAMPLES / "unix_echo.py", path, "--send", "hello") as client:
            assert client.rest() == ["echo: hello"]
            assert client.process.wait(10) == 0


@example
def wakeup_thread(tmp_path: Path) -> None:
    with running("wakeup_thread", "--port", "0") as (_, url):
        assert fetch(f"{url}/20") == (200, b"fibonacci(20) = 6765\n")
        assert fetch(f"{url}/x")[0] == 400


@example
def embed_in_app(tmp_path: Path) -> None:
    with running("embed_in_app", "--port", "0") as (_, url):
        first = json.loads(fetch(url)[1])["readings"]
        while json.loads(fetch(url)[1])["readings"] == first:  # the app's own task goes on beside the server
            pass


@example
def protocol_alone(tmp_path: Path) -> None:
    with running("protocol_alone", "--port", "0") as (_, url):
        assert json.loads(fetch(f"{url}/p", b"x")[1]) == {"method": "POST", "uri": "/p"}


@example
def native_backend(tmp_path: Path) -> None:
    core = asyncmg.core.load()
    served = ["asyncio", "auto"] if core is None or core.engine is None else ["asyncio", "native", "auto"]
    for backend in served:
        with Program(EXAMPLES / "native_backend.py", "--backend", backend) as program:
            expected = chosen_backend(backend)
            if expected == "auto":
                expected = "native" if "native" in served else "asyncio"
            assert program.rest() == [f"served by the {expected} backend", "200 You asked for /hello"]
            assert program.process.wait(10) == 0
            assert program.stderr == ""


@example
def sntp_server(tmp_path: Path) -> None:
    with running("sntp_server", "--port", "0") as (program, url):
        before, _, milliseconds = program.line().rpartition(" ")
        assert before == "milliseconds since 1970:" and abs(int(milliseconds) - time.time() * 1000) < 60_000
        with Program(EXAMPLES / "sntp_clock.py", url, "--times", "2", "--interval", "0.1") as clock:
            for line in clock.rest():
                assert re.fullmatch(
                    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}  offset [+-]\d+\.\d{6} s  delay \d+\.\d{6} s  "
                    r"stratum 10 \(127\.127\.1\.1\)  127\.0\.0\.1:\d+",
                    line,
                )
            assert clock.process.wait(10) == 0 and clock.stderr == ""


@example
def sntp_clock(tmp_path: Path) -> None:
    """A server that is not there; one that is: see ``sntp_server``."""
    with Program(EXAMPLES / "sntp_clock.py", "nowhere.invalid", "--times", "1") as clock:
        assert clock.rest() == ["nowhere.invalid:123: no such name: nowhere.invalid"]
        assert clock.process.wait(10) == 0 and clock.stderr == ""


@example
def dns_lookup(tmp_path: Path) -> None:
    records = [
        dns_peer.cname("www.test", "web.test"),
        dns_peer.a("web.test", ttl=300),
        dns_peer.DnsRecord("_s._tcp.test", 33, asyncmg.SrvData(1, 2, 443, "web.test"), 5),
        dns_peer.DnsRecord("web.test", 16, asyncmg.TxtData([b"path=/a", b"v"]), 5),
    ]

    async def ask(*arguments: str) -> tuple[list[str], int, str]:
        async with dns_peer.serving(dns_peer.zone(*records)) as peer:
            with Program(EXAMPLES / "dns_lookup.py", *arguments, "--server", peer.address) as program:
                lines = await asyncio.to_thread(program.rest)
                return lines, await asyncio.to_thread(program.process.wait, 10), program.stderr

    lines, code, errors = asyncio.run(ask("www.test"))
    assert lines[:-1] == ["www.test CNAME web.test", "web.test 60 A 192.0.2.1"] and (code, errors) == (0, "")
    assert re.fullmatch(r"; 1 records in \d+\.\d ms", lines[-1])
    lines, code, _ = asyncio.run(ask("_s._tcp.test", "srv", "--tcp"))
    assert lines[:-1] == ["_s._tcp.test 5 SRV 1 2 443 web.test", "; connect to web.test port 443"] and code == 0
    lines, code, _ = asyncio.run(ask("web.test", "TXT"))
    assert lines[:-1] == ['web.test 5 TXT "path=/a" "v"', "; path, v"] and code == 0
    assert asyncio.run(ask("none.test")) == ([], 1, "NameNotFound: no such name: none.test\n")


@example
def mdns_service(tmp_path: Path) -> None:
    where = ("--interface", "127.0.0.1", "--mdns-port", str(free_port()))
    with running("mdns_service", "--name", "kitchen", "--port", "0", *where) as (_, url):
        assert re.fullmatch(r"http://kitchen\.local:\d+/", url)
        assert fetch(url.replace("kitchen.local", "127.0.0.1")) == (200, b"found\n")
        for _ in range(5):  # on a machine that stands still two seconds may be too short
            with Program(EXAMPLES / "mdns_service.py", "--browse", "_http._tcp", *where) as browsing:
                found = browsing.rest()
                assert browsing.process.wait(10) == 0 and browsing.stderr == ""
            if found:
                break
        port = urlsplit(url).port
        assert found == [f"A page of asyncmg: kitchen.local (127.0.0.1) port {port}, path /"]


def test_every_example_has_a_test() -> None:
    from .test_ported_programs import PORTED  # it uses what is above

    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(TESTS) | set(PORTED)


@pytest.mark.parametrize("name", sorted(TESTS))
def test_example(name: str, tmp_path: Path) -> None:
    TESTS[name](tmp_path)
