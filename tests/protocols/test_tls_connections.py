"""TLS on real connections: set up at listen, in ACCEPT and CONNECT, verified by default, never in the clear."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from asyncmg import (
    MG_EV_ACCEPT,
    MG_EV_CLOSE,
    MG_EV_CONNECT,
    MG_EV_ERROR,
    MG_EV_HTTP_MSG,
    MG_EV_OPEN,
    MG_EV_READ,
    MG_EV_TLS_HS,
    ConnectFailed,
    Connection,
    Limits,
    NetLimits,
    TlsError,
    TlsOpts,
)

from .conftest import Harness, eventually, soon

HTTPS = "https://127.0.0.1:0"
GET = "GET {} HTTP/1.1\r\nHost: x\r\n\r\n"


class Certificates:
    """A CA with a server's and a client's certificate."""

    def __init__(self) -> None:
        self.ca = trustme.CA()
        self.ca_pem = self.ca.cert_pem.bytes()
        self.server = self.options("localhost", "127.0.0.1")

    def options(self, *names: str, ca: bytes | None = None) -> TlsOpts:
        cert = self.ca.issue_cert(*names)
        chain = b"".join(blob.bytes() for blob in cert.cert_chain_pems)
        return TlsOpts(cert=chain, key=cert.private_key_pem.bytes(), ca=ca)

    def client(self, **kwargs: Any) -> TlsOpts:
        return TlsOpts(ca=self.ca_pem, **kwargs)

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.ca_pem.decode())


@pytest.fixture(scope="module")
def certs() -> Certificates:
    return Certificates()


class Recorder:
    def __init__(self) -> None:
        self.events: list[tuple[int, Any]] = []
        self.conns: list[Connection] = []

    def __call__(self, conn: Connection, ev: int, data: Any) -> None:
        if not conn.is_listening:
            self.conns.append(conn)
            self.events.append((ev, data))

    @property
    def names(self) -> list[int]:
        return [ev for ev, _ in self.events]

    def error(self) -> Any:
        return next((data for ev, data in self.events if ev == MG_EV_ERROR), None)


def reply(conn: Connection, ev: int, data: Any) -> None:
    if ev == MG_EV_HTTP_MSG:
        conn.reply(200, data.body_bytes or data.uri)


def echo(conn: Connection, ev: int, data: Any) -> None:
    if ev == MG_EV_READ:
        conn.send(conn.read())


async def failure_of(conn: Connection) -> ConnectFailed:
    with pytest.raises(ConnectFailed) as caught:
        await soon(conn.connected())
    return caught.value


async def test_https_keep_alive_and_pipelining(harness: Harness, certs: Certificates) -> None:
    listener = harness.serve(reply, HTTPS, tls=certs.server)
    peer = await harness.peer(listener.port, ssl=certs.context(), server_hostname="localhost")
    for n in range(3):
        peer.send(GET.format(f"/{n}"))
        assert (await peer.read_reply())[2] == f"/{n}".encode()
    peer.send("".join(GET.format(f"/{n}") for n in range(50)))
    for n in range(50):
        assert (await peer.read_reply())[2] == f"/{n}".encode()


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", HTTPS])
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_tls_init_in_the_first_event(harness: Harness, certs: Certificates, kind: str, url: str) -> None:
    server, client = Recorder(), Recorder()

    def serve(conn: Connection, ev: int, data: Any) -> None:
        server(conn, ev, data)
        if ev == MG_EV_ACCEPT:
            conn.tls_init(certs.server)
        (reply if url == HTTPS else echo)(conn, ev, data)

    def connect(conn: Connection, ev: int, data: Any) -> None:
        client(conn, ev, data)
        if ev == MG_EV_CONNECT:
            conn.tls_init(certs.client(name="localhost"))
            conn.send("hello" if url != HTTPS else GET.format("/hello"))

    def either(handler: Any) -> Any:
        async def slow(conn: Connection, ev: int, data: Any) -> None:
            if ev in (MG_EV_ACCEPT, MG_EV_CONNECT):
                await asyncio.sleep(0.02)  # the ClientHello is here before TLS is set up
            handler(conn, ev, data)

        return handler if kind == "sync" else slow

    listener = harness.serve(either(serve), url)
    scheme = url.split(":")[0]
    conn = harness.manager(either(connect)).connect(f"{scheme}://127.0.0.1:{listener.port}")
    if url == HTTPS:
        await eventually(lambda: MG_EV_HTTP_MSG in client.names)
    else:
        await eventually(lambda: conn.recv_len == 5)
        assert conn.read() == b"hello"
    assert conn.is_tls and server.conns[-1].is_tls
    for recorder in (server, client):
        assert recorder.names.count(MG_EV_TLS_HS) == 1
        assert recorder.error() is None
    assert harness.errors == []


@pytest.mark.parametrize("kind", ["sync", "async", "session"])
async def test_an_https_listener_without_certificate_never_talks_in_the_clear(harness: Harness, kind: str) -> None:
    recorder = Recorder()

    def handler(conn: Connection, ev: int, data: Any) -> None:
        recorder(conn, ev, data)
        if ev == MG_EV_ACCEPT:
            conn.send(b"secret")

    async def handler_async(conn: Connection, ev: int, data: Any) -> None:
        handler(conn, ev, data)

    async def session(conn: Connection) -> None:
        async for ev, data in conn:
            handler(conn, ev, data)

    chosen = {"sync": handler, "async": handler_async, "session": session}[kind]
    listener = harness.serve(chosen, HTTPS)
    peer = await harness.peer(listener.port)
    assert await peer.read_all() == b""
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    assert recorder.names == [MG_EV_OPEN, MG_EV_ACCEPT, MG_EV_ERROR, MG_EV_CLOSE]
    assert isinstance(recorder.error(), TlsError) and "certificate" in str(recorder.error())


async def test_https_client_verifies_by_default(harness: Harness, certs: Certificates) -> None:
    server = Recorder()
    listener = harness.serve(server, HTTPS, tls=certs.server)
    client = Recorder()
    conn = harness.manager(client).connect(f"https://localhost:{listener.port}")
    conn.send(GET.format("/secret"))
    error = await failure_of(conn)
    assert isinstance(error.__cause__, TlsError) and isinstance(error.__cause__.__cause__, ssl.SSLCertVerificationError)
    await eventually(lambda: MG_EV_CLOSE in client.names and MG_EV_CLOSE in server.names)
    assert MG_EV_HTTP_MSG not in server.names and isinstance(server.error(), TlsError)
    assert client.names[-2:] == [MG_EV_ERROR, MG_EV_CLOSE] and MG_EV_TLS_HS not in client.names


@pytest.mark.parametrize(
    ("kwargs", "works"),
    [
        ({}, True), ({"name": "localhost"}, True), ({"name": "wrong.example"}, False),
        ({"name": "wrong.example", "skip_verification": True}, True),
    ],
)  # fmt: skip
async def test_names(harness: Harness, certs: Certificates, kwargs: dict[str, Any], works: bool) -> None:
    listener = harness.serve(reply, HTTPS, tls=certs.server)
    conn = harness.manager().connect(f"https://127.0.0.1:{listener.port}", tls=certs.client(**kwargs))
    if works:
        await soon(conn.connected())
        assert conn.is_tls and conn.protocol.transport.get_extra_info("ssl_object") is not None
    else:
        assert "wrong.example" in str(await failure_of(conn))


async def test_skip_verification_without_a_ca(harness: Harness, certs: Certificates) -> None:
    listener = harness.serve(reply, HTTPS, tls=certs.server)
    conn = harness.manager().connect(f"https://127.0.0.1:{listener.port}", tls=TlsOpts(skip_verification=True))
    await soon(conn.connected())


async def test_an_ssl_context_is_used_as_it_is(harness: Harness, certs: Certificates) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certs.ca.issue_cert("localhost").configure_cert(context)
    listener = harness.serve(reply, HTTPS, tls=context)
    conn = harness.manager().connect(f"https://localhost:{listener.port}", tls=certs.context())
    await soon(conn.connected())
    assert conn.protocol.transport.get_extra_info("peercert")


async def test_a_plain_client_to_a_tls_port(harness: Harness, certs: Certificates) -> None:
    recorder = Recorder()
    listener = harness.serve(recorder, HTTPS, tls=certs.server)
    peer = await harness.peer(listener.port)
    peer.send(GET.format("/"))
    answer = await peer.read_all()
    assert b"HTTP" not in answer
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    assert "plain HTTP" in str(recorder.error()) and MG_EV_HTTP_MSG not in recorder.names


async def test_mutual_tls(harness: Harness, certs: Certificates) -> None:
    recorder = Recorder()

    def handler(conn: Connection, ev: int, data: Any) -> None:
        recorder(conn, ev, data)
        reply(conn, ev, data)

    listener = harness.serve(handler, HTTPS, tls=certs.options("localhost", ca=certs.ca_pem))
    url = f"https://localhost:{listener.port}"
    conn = harness.manager(answers := Recorder()).connect(url, tls=certs.options("client", ca=certs.ca_pem))
    conn.send(GET.format("/"))
    await eventually(lambda: MG_EV_HTTP_MSG in answers.names)

    nobody = harness.manager(refused := Recorder()).connect(url, tls=certs.client())
    nobody.send(GET.format("/"))
    await eventually(lambda: MG_EV_CLOSE in refused.names)
    assert MG_EV_HTTP_MSG not in refused.names and "certificate" in str(recorder.error())


async def test_certificates_are_reloaded(harness: Harness, certs: Certificates, tmp_path: Path) -> None:
    def write() -> None:
        certs.ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "pem"))

    async def serial() -> str:
        peer = await harness.peer(listener.port, ssl=certs.context(), server_hostname="localhost")
        return str(peer.writer.get_extra_info("peercert")["serialNumber"])

    write()
    opts = TlsOpts(cert=tmp_path / "pem")
    listener = harness.serve(reply, HTTPS, tls=opts)
    first = await serial()
    assert await serial() == first
    write()
    opts.reload()
    assert await serial() != first


async def test_tls_init_of_a_listener(harness: Harness, certs: Certificates) -> None:
    listener = harness.serve(reply, HTTPS)
    listener.tls_init(certs.server)
    peer = await harness.peer(listener.port, ssl=certs.context(), server_hostname="localhost")
    peer.send(GET.format("/late"))
    assert (await peer.read_reply())[2] == b"/late"


async def test_big_transfers_both_ways(harness: Harness, certs: Certificates) -> None:
    async def session(conn: Connection) -> None:
        conn.tls_init(certs.server)
        async for ev, _ in conn:
            if ev == MG_EV_READ:
                conn.send(conn.read())
                await conn.flush()

    listener = harness.serve(session, "tcp://127.0.0.1:0")
    peer = await harness.peer(listener.port, ssl=certs.context(), server_hostname="localhost")
    data = os.urandom(1 << 20) * 6
    peer.send(data)
    assert await peer.read_exactly(len(data)) == data
    peer.send(b"end")
    assert await peer.read_exactly(3) == b"end"


async def test_back_pressure_over_tls(harness: Harness, certs: Certificates) -> None:
    conns: list[Connection] = []

    def handler(conn: Connection, ev: int, _: Any) -> None:
        if ev == MG_EV_ACCEPT:
            conn.tls_init(certs.server)
            conns.append(conn)

    listener = harness.serve(handler, "tcp://127.0.0.1:0")
    peer = await harness.peer(listener.port, ssl=certs.context(), server_hostname="localhost")
    conn = conns[0]
    sent = 0
    while True:
        conn.send(bytes(1 << 16))
        sent += 1 << 16
        try:
            await asyncio.wait_for(conn.flush(), 0.1)
        except TimeoutError:
            break
    assert not conn.is_writable
    assert await peer.read_exactly(sent) == bytes(sent)
    await soon(conn.flush())
    peer.send(bytes(4 << 20))
    await eventually(lambda: conn.is_full)
    got = 0
    while got < 4 << 20:
        await eventually(lambda: conn.recv_len)
        got += len(conn.read())
    assert got == 4 << 20


async def test_drain_and_connection_close_over_tls(harness: Harness, certs: Certificates) -> None:
    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.reply(200, bytes(3 << 20))
            conn.drain()

    listener = harness.serve(handler, HTTPS, tls=certs.server)

    def ask() -> bytes:
        # A blocking peer: what it misses was not sent.
        with socket.create_connection(("127.0.0.1", listener.port), timeout=5) as plain:
            with certs.context().wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as sock:
                sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nxxunread input: no reset for it")
                answer = b""
                while piece := sock.recv(1 << 16):
                    answer += piece
                return answer

    head, _, body = (await soon(asyncio.to_thread(ask))).partition(b"\r\n\r\n")
    assert len(body) == 3 << 20 and b"Connection: close" in head


async def test_the_handshake_has_a_time_limit(harness: Harness, certs: Certificates) -> None:
    recorder = Recorder()
    limits = Limits(net=NetLimits(tls_handshake_timeout=0.05))
    listener = harness.serve(recorder, HTTPS, tls=certs.server, limits=limits)
    peer = await harness.peer(listener.port)
    await eventually(lambda: MG_EV_CLOSE in recorder.names)
    assert isinstance(recorder.error(), TlsError) and "timed out" in str(recorder.error())
    assert await peer.read_all() == b""


async def test_client_handshake_time_limit(harness: Harness) -> None:
    listener = harness.serve(lambda *_: None, "tcp://127.0.0.1:0")
    manager = harness.manager(limits=Limits(net=NetLimits(tls_handshake_timeout=0.05)))
    error = await failure_of(manager.connect(f"https://127.0.0.1:{listener.port}"))
    assert "timed out" in str(error)


async def test_a_peer_that_vanishes_in_the_handshake(harness: Harness, certs: Certificates) -> None:
    recorder = Recorder()
    listener = harness.serve(recorder, HTTPS, tls=certs.server)
    for end in ("close", "reset"):
        recorder.events.clear()
        peer = await harness.peer(listener.port)
        peer.send(b"\x16\x03\x01")
        await eventually(lambda: MG_EV_ACCEPT in recorder.names)
        await peer.close() if end == "close" else peer.reset()
        await eventually(lambda: MG_EV_CLOSE in recorder.names)
        assert isinstance(recorder.error(), TlsError)


async def test_tls_init_twice_and_without_options_is_refused(harness: Harness, certs: Certificates) -> None:
    caught: list[Exception] = []

    def handler(conn: Connection, ev: int, _: Any) -> None:
        if ev == MG_EV_ACCEPT:
            for opts in (None, TlsOpts(), certs.server, certs.server):
                try:
                    conn.tls_init(opts)
                except Exception as exc:
                    caught.append(exc)

    listener = harness.serve(handler, "tcp://127.0.0.1:0")
    await harness.peer(listener.port, ssl=certs.context(), server_hostname="localhost")
    assert [isinstance(exc, TlsError) for exc in caught] == [True, True, False]
    assert isinstance(caught[2], RuntimeError) and "already" in str(caught[2])
