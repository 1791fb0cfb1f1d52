"""examples/c/hello_http.c: built as its first comment says, asked by http.client, ended by SIGTERM."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

import asyncmg.core

SOURCES = Path(asyncmg.core.__file__).parent
EXAMPLE = Path(__file__).parents[2] / "examples" / "c" / "hello_http.c"
WARNINGS = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
SANITIZERS = ["-g", "-O1", "-fno-sanitize-recover=all", "-fsanitize=address,undefined"]

pytestmark = pytest.mark.skipif(sys.platform in ("win32", "cygwin"), reason="the engine is for POSIX")


@pytest.fixture(scope="module", params=["as documented", "sanitizers"])
def program(request: pytest.FixtureRequest, compiler, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("example")
    sources = sorted(map(str, SOURCES.glob("amg_*.c")))
    if not sources:
        pytest.skip("an installed package carries no C sources")
    match = re.search(r"^ \*     cc (.*)$", EXAMPLE.read_text(), re.MULTILINE)
    assert match is not None
    documented = shlex.split(match[1])
    assert documented == [
        *["-Os", "-I", "asyncmg/core", "-o", "hello_http", "examples/c/hello_http.c", "asyncmg/core/amg_*.c"],
    ]
    flags = ["-Os"]
    if request.param == "sanitizers":
        flags = SANITIZERS
        if not compiler.can_build(directory, *SANITIZERS):
            if os.environ.get("ASYNCMG_REQUIRE_CORE") == "1":
                pytest.fail("the sanitizers do not link")
            pytest.skip("the sanitizers do not link")
    compiler.build([*WARNINGS, *flags, "-I", str(SOURCES), str(EXAMPLE), *sources], directory / "hello_http")
    return directory / "hello_http"


@pytest.fixture
def port(program: Path) -> Iterator[int]:
    """The running example; afterwards it is told to end, and must end well."""
    # The leak check cannot run below a debugger.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    with subprocess.Popen(
        [program, "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            yield int(line.rpartition(":")[2])
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=20)
            assert (process.returncode, out, err) == (0, "", "")
        finally:
            process.kill()


def ask(port: int, request: bytes) -> bytes:
    """Send some bytes and return all that comes until the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_requests_on_one_connection(port: int) -> None:
    client = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        client.connect()
        connection = client.sock
        for method, body in [("GET", None), ("POST", b"content"), ("HEAD", None), ("GET", None)] * 5:
            client.request(method, "/any", body)
            response = client.getresponse()
            assert response.status == 200
            assert response.read() == (b"" if method == "HEAD" else b"hello\n")
        assert client.sock is connection
    finally:
        client.close()


def test_more_clients_than_connections(port: int) -> None:
    for _ in range(3):
        clients = [HTTPConnection("127.0.0.1", port, timeout=20) for _ in range(7)]
        try:
            for client in clients:
                client.request("GET", "/")
            for client in clients:
                assert client.getresponse().read() == b"hello\n"
        finally:
            for client in clients:
                client.close()


def test_pipelined_and_in_pieces(port: int) -> None:
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    last = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 56\r\n\r\n" + 2 * request
    assert len(2 * request) == 56 - 2
    last = last.replace(b"56", b"54")
    assert ask(port, 20 * request + last).count(b"hello\n") == 21
    # Content that looks like requests is content, however it is cut.
    for cut in range(1, len(last)):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(request + last[:cut])
            assert client.recv(65536).count(b"hello\n") >= 1
            client.sendall(last[cut:])
            answer = b"".join(iter(lambda: client.recv(65536), b""))
            assert answer.count(b"hello\n") == 1


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\x05hello\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /" + 300 * b"a" + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + 40 * b"A: b\r\n" + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + 15 * (b"A: " + 60 * b"b" + b"\r\n"), 431),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", 417),
    ],
    ids=lambda value: value if isinstance(value, int) else "",
)
def test_refused(port: int, request_: bytes, status: int) -> None:
    answer = ask(port, request_)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"\r\nConnection: close\r\n" in answer
