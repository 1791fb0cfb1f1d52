"""TlsTransport: in memory with a loop turned by hand, and on real sockets with asyncio's own TLS as the peer."""

from __future__ import annotations

import asyncio
import datetime
import gc
import random
import ssl
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
import trustme
import uvloop

from asyncmg.errors import DeadlineExceeded, TlsError
from asyncmg.tls import TlsOpts
from asyncmg.transports.tls import TlsTransport
from tests.transports.conftest import (
    Certificates,
    ManualLoop,
    MemoryTransport,
    Splitter,
    at_random,
    byte_by_byte,
    memory_pair,
    whole,
)


class App(asyncio.Protocol):
    """An application's protocol that writes everything down."""

    def __init__(self, *, keep_open: bool = False) -> None:
        self.received: list[bytes] = []
        self.calls: list[str] = []
        self.keep_open = keep_open
        self.exc: Exception | None = None
        self.failure: TlsError | None = None
        self.on_data: Callable[[bytes], None] = self.received.append
        self.on_lost: Callable[[Exception | None], None] = lambda exc: None

    @property
    def data(self) -> bytes:
        return b"".join(self.received)

    def handshake(self) -> None:
        self.calls.append("handshake")

    def fail(self, failure: TlsError) -> None:
        self.calls.append("failure")
        self.failure = failure

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes and 0 < len(data) <= 64 << 10
        self.on_data(data)

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")
        self.exc = exc
        self.on_lost(exc)


def tls_over(
    raw: asyncio.Transport, app: App, context: ssl.SSLContext, loop: Any, server_side: bool, **kwargs: Any
) -> TlsTransport:
    settings = {
        "server_hostname": None if server_side else "localhost",
        "handshake_timeout": 10.0,
        "shutdown_timeout": 5.0,
        "on_handshake": app.handshake,
        "on_failure": app.fail,
    }
    return TlsTransport(raw, app, context, loop=loop, server_side=server_side, **{**settings, **kwargs})


class Pair:
    """A client and a server in memory."""

    def __init__(
        self,
        loop: ManualLoop,
        server: ssl.SSLContext,
        client: ssl.SSLContext,
        *,
        split: Splitter = whole,
        window: int = 1 << 20,
        hostname: str = "localhost",
        keep_open: bool = False,
    ) -> None:
        self.loop = loop
        self.client_raw, self.server_raw = memory_pair(loop, split, window)
        self.client_app, self.server_app = App(keep_open=keep_open), App(keep_open=keep_open)
        self.client = tls_over(self.client_raw, self.client_app, client, loop, False, server_hostname=hostname)
        self.server = tls_over(self.server_raw, self.server_app, server, loop, True)

    def start(self) -> Pair:
        self.server.start()
        self.client.start()
        return self

    def run(self) -> Pair:
        self.start()
        self.loop.run()
        return self

    def finish(self) -> None:
        self.client.close()
        self.server.close()
        self.loop.run()
        assert self.client_app.calls[-1] == self.server_app.calls[-1] == "lost"


@pytest.fixture
def pair(manual_loop: ManualLoop, certificates: Certificates) -> Pair:
    return Pair(manual_loop, certificates.server(), certificates.client())


# Handshake.


@pytest.mark.parametrize("split", [whole, byte_by_byte, at_random(1)])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_exchange(
    manual_loop: ManualLoop, certificates: Certificates, split: Splitter, version: ssl.TLSVersion
) -> None:
    server = certificates.server()
    server.maximum_version = version
    pair = Pair(manual_loop, server, certificates.client(), split=split)
    assert pair.client.get_extra_info("peercert", "none yet") == "none yet"
    pair.client.write(b"early ")
    pair.client.writelines([b"bird", bytearray(b"!"), memoryview(b"?")])
    assert pair.client.get_write_buffer_size() == 12
    pair.run()
    assert pair.server_app.data == b"early bird!?"
    assert pair.client.get_write_buffer_size() == 0
    pair.server.write(bytearray(b"worm"))
    pair.server.write(b"")
    manual_loop.run()
    assert pair.client_app.data == b"worm"
    assert pair.client.get_extra_info("ssl_object").version() == ("TLSv1.2" if "2" in version.name else "TLSv1.3")
    assert pair.client.get_extra_info("sslcontext").check_hostname
    assert pair.client.get_extra_info("peercert")["subjectAltName"][0] == ("DNS", "localhost")
    assert pair.client.get_extra_info("cipher")[2] >= 128
    assert pair.client.get_extra_info("compression") is None
    assert pair.client.get_extra_info("peername") == ("memory", 0)
    assert pair.client.get_extra_info("nothing", 7) == 7
    assert pair.client.get_raw() is pair.client_raw
    pair.finish()
    assert pair.client_app.calls == ["handshake", "eof", "lost"] or pair.client_app.calls == ["handshake", "lost"]
    assert pair.server_app.calls[0] == "handshake"
    assert pair.client_app.exc is pair.server_app.exc is None


def test_ciphertext_received_before_start_counts(pair: Pair) -> None:
    pair.client.start()
    hello = pair.client_raw.writes[0]
    pair.server_raw.take()
    pair.server_raw.pause_reading()  # and has paused
    pair.server.start(hello[:7] + hello[7:])
    pair.client.write(b"x")
    pair.loop.run()
    assert pair.server_app.data == b"x"
    pair.finish()


def test_queued_writes_leave_with_the_handshake_in_one_write(pair: Pair) -> None:
    pair.start()
    pair.client.write(b"a")
    pair.client.write(b"b" * 100_000)
    pair.loop.run()
    assert len(pair.client_raw.writes) == 2  # the hello, then everything
    assert pair.server_app.data == b"a" + b"b" * 100_000
    pair.finish()


def test_one_write_is_one_raw_write(pair: Pair) -> None:
    pair.run()
    before = len(pair.client_raw.writes)
    pair.client.writelines([b"x" * 300_000, b"y"])
    assert len(pair.client_raw.writes) == before + 1
    pair.loop.run()
    assert len(pair.server_app.data) == 300_001
    pair.finish()


@pytest.mark.parametrize("side", ["client", "server"])
def test_handshake_timeout(pair: Pair, side: str) -> None:
    tls, app = (pair.client, pair.client_app) if side == "client" else (pair.server, pair.server_app)
    tls.start()
    pair.loop.advance(9.9)
    assert app.calls == []
    pair.loop.advance(0.2)
    assert app.calls == ["failure", "lost"]
    assert str(app.failure) == "TLS handshake timed out after 10 s"
    assert app.failure is not None and isinstance(app.failure.__cause__, DeadlineExceeded)
    assert app.exc is app.failure


def test_handshake_in_time(pair: Pair) -> None:
    pair.run()
    pair.loop.advance(11)
    assert pair.client_app.calls == pair.server_app.calls == ["handshake"]
    pair.finish()


def check_refused(pair: Pair, client: str | None, server: str | None) -> None:
    """Run until both ends are closed; the texts are what the failures must contain, None: the handshake succeeded."""
    pair.run()
    for app, text in ((pair.client_app, client), (pair.server_app, server)):
        assert app.calls.count("lost") == 1
        assert app.received == []
        if text is None:
            assert app.failure is None and app.calls[0] == "handshake"
        else:
            assert app.calls == ["failure", "lost"]
            assert app.exc is app.failure
            assert text in str(app.failure)


def test_wrong_ca(manual_loop: ManualLoop, certificates: Certificates) -> None:
    client = TlsOpts(ca=trustme.CA().cert_pem.bytes()).client_context()
    pair = Pair(manual_loop, certificates.server(), client)
    check_refused(pair, "certificate is refused: unable to get local issuer certificate", "unknown ca")
    assert pair.client_app.failure is not None
    assert isinstance(pair.client_app.failure.__cause__, ssl.SSLCertVerificationError)


def test_wrong_host_name(manual_loop: ManualLoop, certificates: Certificates) -> None:
    pair = Pair(manual_loop, certificates.server(), certificates.client(), hostname="example.com")
    check_refused(pair, "certificate is not valid for 'example.com'", "the peer refused: bad certificate")


def test_wrong_address(manual_loop: ManualLoop, certificates: Certificates) -> None:
    pair = Pair(manual_loop, certificates.server(), certificates.client(), hostname="127.0.0.2")
    check_refused(pair, "certificate is not valid for '127.0.0.2'", "the peer refused: bad certificate")


def test_expired_certificate(manual_loop: ManualLoop, certificates: Certificates) -> None:
    now = datetime.datetime.now(datetime.UTC)
    leaf = certificates.ca.issue_cert(
        "localhost", not_before=now - datetime.timedelta(days=2), not_after=now - datetime.timedelta(days=1)
    )
    pair = Pair(manual_loop, certificates.server(leaf), certificates.client())
    check_refused(pair, "certificate has expired", "certificate expired")


def test_plain_http_on_a_tls_port(pair: Pair) -> None:
    pair.server.start()
    pair.client_raw.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    pair.loop.run()
    assert pair.server_app.calls == ["failure", "lost"]
    assert str(pair.server_app.exc) == "TLS handshake failed: the peer speaks plain HTTP, not TLS"
    assert isinstance(cast(Exception, pair.server_app.exc).__cause__, ssl.SSLError)


def test_plain_text_to_a_client_and_a_peer_that_stays(pair: Pair) -> None:
    pair.client.start()
    pair.server_raw.set_protocol(App(keep_open=True))
    pair.server_raw.write(b"220 mail.example.com ESMTP ready\r\n")
    pair.loop.run()
    assert pair.client_app.calls == ["failure"]
    assert "does not speak TLS" in str(pair.client_app.failure)
    pair.loop.advance(5.1)  # the alert has been sent; the peer does not close
    assert pair.client_app.calls == ["failure", "lost"]
    assert pair.client_app.exc is pair.client_app.failure


def test_old_client_is_refused(manual_loop: ManualLoop, certificates: Certificates) -> None:
    leaf = certificates.leaf
    server = TlsOpts(cert=leaf.cert_chain_pems[0].bytes(), key=leaf.private_key_pem.bytes()).server_context()
    client = certificates.client()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    client.set_ciphers("ALL:@SECLEVEL=0")
    check_refused(Pair(manual_loop, server, client), "protocol version", "version is too old")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_mutual_tls(manual_loop: ManualLoop, certificates: Certificates, version: ssl.TLSVersion) -> None:
    leaf, ca = certificates.leaf, certificates.ca.cert_pem.bytes()
    identity: dict[str, Any] = {"cert": leaf.cert_chain_pems[0].bytes(), "key": leaf.private_key_pem.bytes()}
    server = TlsOpts(ca=ca, **identity).server_context()
    server.maximum_version = version
    pair = Pair(manual_loop, server, TlsOpts(ca=ca, **identity).client_context()).run()
    assert pair.server.get_extra_info("peercert")["subjectAltName"][0] == ("DNS", "localhost")
    pair.finish()
    # Without a certificate. In TLS 1.3 the client learns of it after its own side of the handshake.
    pair = Pair(manual_loop, server, TlsOpts(ca=ca).client_context())
    if version is ssl.TLSVersion.TLSv1_2:
        check_refused(pair, "the peer refused: handshake failure", "gave no certificate")
    else:
        check_refused(pair, None, "gave no certificate")
        assert str(pair.client_app.exc) == "TLS failed: the peer refused: certificate required"


@pytest.mark.parametrize(("end", "text"), [("eof", "the peer closed the connection"), ("cut", "connection was lost")])
def test_end_in_the_handshake(pair: Pair, end: str, text: str) -> None:
    pair.client.start()
    if end == "eof":
        pair.server_raw.close()
    else:
        pair.client_raw.cut(ConnectionResetError("reset"))
    pair.loop.run()
    assert pair.client_app.calls == ["failure", "lost"]
    assert text in str(pair.client_app.failure)


@pytest.mark.parametrize("how", ["close", "abort"])
def test_our_own_end_in_the_handshake_is_no_failure(pair: Pair, how: str) -> None:
    pair.start()
    getattr(pair.client, how)()
    assert pair.client.is_closing() and not pair.client.is_reading()
    pair.loop.run()
    assert pair.client_app.calls == ["lost"] and pair.client_app.exc is None


def test_close_in_the_handshake_sends_what_was_written(pair: Pair) -> None:
    pair.client.write(b"last words")
    pair.client.close()
    pair.client.write(b"too late")
    pair.run()
    assert pair.server_app.data == b"last words"
    assert pair.server_app.calls == ["handshake", "eof", "lost"]
    assert pair.server.get_extra_info("tls_truncated") is False
    assert pair.client_app.calls == ["handshake", "lost"]


def test_name_that_cannot_be_used(manual_loop: ManualLoop, certificates: Certificates) -> None:
    raw = memory_pair(manual_loop)[0]
    for name in (None, "", ".example.com", "example\0.com"):
        with pytest.raises(TlsError, match="TLS cannot be used"):
            tls_over(raw, App(), certificates.client(), manual_loop, False, server_hostname=name)


# Data and flow control.


@pytest.mark.parametrize("seed", range(6))
def test_big_transfers_with_random_pauses(manual_loop: ManualLoop, certificates: Certificates, seed: int) -> None:
    rng = random.Random(seed)
    pair = Pair(manual_loop, certificates.server(), certificates.client(), split=at_random(seed), window=300_000)
    payloads = [rng.randbytes(rng.randrange(3 << 20, 5 << 20)) for _ in range(2)]

    def pauses_at_random(tls: TlsTransport, app: App) -> Callable[[bytes], None]:
        def take(data: bytes) -> None:
            assert tls.is_reading(), "delivered while paused"
            app.received.append(data)
            if rng.random() < 0.3:
                tls.pause_reading()
                manual_loop.call_soon(manual_loop.call_soon, tls.resume_reading)
            if rng.random() < 0.1:  # in the same turn
                tls.pause_reading()
                tls.resume_reading()

        return take

    pair.client_app.on_data = pauses_at_random(pair.client, pair.client_app)
    pair.server_app.on_data = pauses_at_random(pair.server, pair.server_app)
    pair.start()
    for tls, payload in zip((pair.client, pair.server), payloads, strict=True):
        offset = 0
        while offset < len(payload):
            size = rng.choice((1, 100, 16384, 16385, 500_000))
            tls.write(payload[offset : offset + size])
            offset += size
    manual_loop.run()
    assert pair.server_app.data == payloads[0]
    assert pair.client_app.data == payloads[1]
    for app in (pair.client_app, pair.server_app):
        marks = [call for call in app.calls if call in ("pause", "resume")]
        assert marks[:2] == ["pause", "resume"] and len(marks) % 2 == 0
        assert all(marks[i] != marks[i + 1] for i in range(len(marks) - 1))
    pair.finish()


def test_one_received_buffer_is_joined_up_to_64_kib(pair: Pair) -> None:
    pair.run()
    pair.client.writelines([b"x" * 10] * 10)
    for _ in range(20):
        pair.client.write(b"y" * 1000)
    ciphertext = pair.server_raw.take()
    cast(asyncio.Protocol, pair.server_raw.protocol).data_received(ciphertext)
    assert [len(data) for data in pair.server_app.received] == [20_100]
    pair.server_app.received.clear()
    pair.client.write(b"z" * 200_000)
    pair.loop.run()
    assert sum(map(len, pair.server_app.received)) == 200_000
    assert len(pair.server_app.received) <= 5
    pair.finish()


def test_end_of_stream_waits_while_paused(pair: Pair) -> None:
    pair.server_app.keep_open = True
    pair.run()
    pair.server.pause_reading()
    assert not pair.server.is_reading()
    pair.client.write(b"data")
    pair.client.close()
    ciphertext = pair.server_raw.take()
    protocol = cast(asyncio.Protocol, pair.server_raw.protocol)
    protocol.data_received(ciphertext)  # a transport may still have had it in its hands
    protocol.eof_received()
    pair.loop.run()
    assert pair.server_app.received == [] and "eof" not in pair.server_app.calls
    pair.server.resume_reading()
    assert pair.server_app.received == []  # a later turn
    pair.loop.run()
    assert pair.server_app.data == b"data" and pair.server_app.calls == ["handshake", "eof"]
    assert pair.server.get_extra_info("tls_truncated") is False
    pair.finish()


def test_pause_before_the_handshake(pair: Pair) -> None:
    pair.server.pause_reading()
    pair.client.write(b"data")
    pair.run()
    assert pair.server_app.calls == ["handshake"] and pair.server_app.received == []
    assert pair.server_raw.paused
    pair.server.resume_reading()
    pair.loop.run()
    assert pair.server_app.data == b"data"
    pair.finish()


def test_a_resumption_is_not_lost_with_the_connection(pair: Pair) -> None:
    pair.run()
    pair.server.pause_reading()
    pair.client.write(b"data")
    protocol = cast(asyncio.Protocol, pair.server_raw.protocol)
    protocol.data_received(pair.server_raw.take())
    pair.server.resume_reading()
    protocol.connection_lost(ConnectionResetError())
    pair.server_raw.cut(None)
    assert pair.server_app.data == b"data"
    assert isinstance(pair.server_app.exc, ConnectionResetError)
    assert pair.server.get_extra_info("tls_truncated") is True
    pair.loop.run()
    pair.finish()


def test_error_of_the_application_after_a_resumption(pair: Pair) -> None:
    def explode(data: bytes) -> None:
        raise ZeroDivisionError

    pair.run()
    pair.server_app.on_data = explode
    pair.server.pause_reading()
    pair.client.write(b"data")
    cast(asyncio.Protocol, pair.server_raw.protocol).data_received(pair.server_raw.take())
    pair.server.resume_reading()
    pair.loop.run()
    assert isinstance(pair.loop.errors.pop()["exception"], ZeroDivisionError)
    pair.finish()


def test_write_flow_control(manual_loop: ManualLoop, certificates: Certificates) -> None:
    pair = Pair(manual_loop, certificates.server(), certificates.client(), window=20_000)
    pair.client.set_write_buffer_limits(high=50_000)
    assert pair.client.get_write_buffer_limits() == (12_500, 50_000)
    pair.client.write(b"x" * 60_000)  # before the handshake
    assert pair.client_app.calls == ["pause"]
    pair.run()
    assert pair.client_app.calls == ["pause", "handshake", "resume"]
    pair.server.pause_reading()
    pair.client.write(b"x" * 100_000)
    assert pair.client.get_write_buffer_size() > 50_000
    manual_loop.run()
    assert pair.client_app.calls[3:] == ["pause"]
    pair.server.resume_reading()
    manual_loop.run()
    assert pair.client_app.calls[3:] == ["pause", "resume"]
    assert len(pair.server_app.data) == 160_000
    pair.finish()


def test_set_protocol(pair: Pair) -> None:
    pair.run()
    upgraded = App()
    assert pair.server.get_protocol() is pair.server_app
    pair.server_app.on_data = lambda data: pair.server.set_protocol(upgraded)
    pair.client.write(b"1")
    pair.loop.run()
    pair.client.write(b"2")
    pair.loop.run()
    assert upgraded.data == b"2"
    pair.client.close()
    pair.server.close()
    pair.loop.run()
    assert upgraded.calls[-1] == "lost" and "lost" not in pair.server_app.calls


def test_wrong_calls(pair: Pair) -> None:
    pair.run()
    with pytest.raises(TypeError, match="str"):
        pair.client.write(cast(bytes, "text"))
    pair.client.write_eof()
    with pytest.raises(RuntimeError, match="write_eof"):
        pair.client.write(b"x")
    pair.finish()


# The end.


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("before_handshake", [True, False])
def test_half_close(
    manual_loop: ManualLoop, certificates: Certificates, version: ssl.TLSVersion, before_handshake: bool
) -> None:
    server = certificates.server()
    server.maximum_version = version
    pair = Pair(manual_loop, server, certificates.client(), keep_open=True)
    assert pair.client.can_write_eof()
    if not before_handshake:
        pair.run()
    pair.client.write(b"question")
    pair.client.write_eof()
    pair.client.write_eof()
    if before_handshake:
        pair.start()
    manual_loop.run()
    assert pair.server_app.data == b"question" and pair.server_app.calls == ["handshake", "eof"]
    assert pair.server.get_extra_info("tls_truncated") is False
    pair.server.write(b"answer" * 50_000)
    manual_loop.run()
    assert pair.client_app.data == b"answer" * 50_000
    pair.server.close()
    manual_loop.run()
    assert pair.client_app.calls == ["handshake", "eof"]
    pair.finish()


def test_half_close_keeps_what_is_still_to_be_delivered(pair: Pair) -> None:
    pair.run()
    answer = random.Random(7).randbytes(51_000)

    def pause_at_once(data: bytes) -> None:
        pair.client_app.received.append(data)
        pair.client.pause_reading()

    pair.client_app.on_data = pause_at_once
    pair.server.write(answer[:50_000])
    for i in range(50_000, 51_000, 10):  # whole records that the first delivery leaves to OpenSSL
        pair.server.write(answer[i : i + 10])
    pair.client_raw.arrived.append(pair.client_raw.take())
    pair.loop.run()
    assert [len(data) for data in pair.client_app.received] == [50_000]
    pair.client.write_eof()
    pair.client_app.on_data = pair.client_app.received.append
    pair.client.resume_reading()
    pair.loop.run()
    assert pair.client_app.data == answer
    pair.finish()


def test_truncation(pair: Pair) -> None:
    pair.run()
    pair.client.write(b"all of i")
    pair.client_raw.close()
    pair.loop.run()
    assert pair.server_app.data == b"all of i"
    assert pair.server_app.calls == ["handshake", "eof", "lost"]
    assert pair.server.get_extra_info("tls_truncated") is True


def test_bad_record(pair: Pair) -> None:
    pair.run()
    pair.client.write(b"good")
    pair.client_raw.write(b"\x17\x03\x03\x00\x20" + b"!" * 32)
    pair.server_raw.arrived.append(pair.server_raw.take())
    pair.loop.run()
    assert pair.server_app.data == b"good"
    assert pair.server_app.calls == ["handshake", "lost"]
    assert isinstance(pair.server_app.exc, TlsError) and isinstance(pair.server_app.exc.__cause__, ssl.SSLError)
    assert "bad record mac" in str(pair.server_app.exc)
    assert "bad record mac" in str(pair.client_app.exc)  # the alert has arrived


def test_close_notify_comes_first_and_later_data_is_ignored(pair: Pair) -> None:
    pair.server_app.keep_open = True
    pair.run()
    pair.client.close()
    pair.loop.run()
    protocol = cast(asyncio.Protocol, pair.server_raw.protocol)
    protocol.data_received(b"garbage")
    assert pair.server_app.calls == ["handshake", "eof"]
    pair.finish()


def test_shutdown_timeout(manual_loop: ManualLoop, certificates: Certificates) -> None:
    pair = Pair(manual_loop, certificates.server(), certificates.client(), window=10_000).run()
    pair.client_raw.pause_reading()
    pair.server.write(b"x" * 100_000)
    pair.server.close()
    manual_loop.run()
    assert "lost" not in pair.server_app.calls
    manual_loop.advance(5.1)
    assert pair.server_app.calls[-1] == "lost"
    assert "closing timed out after 5 s" in str(pair.server_app.exc)
    pair.client_raw.resume_reading()
    pair.finish()


def test_a_client_that_has_read_nothing_waits_for_the_end_of_the_peer(pair: Pair) -> None:
    pair.server_app.keep_open = True
    pair.run()
    pair.client.write(b"upload")
    pair.client.pause_reading()
    pair.client.close()
    pair.loop.run()
    assert "lost" not in pair.client_app.calls and pair.client_raw.eof_written
    pair.server.close()
    pair.loop.run()
    assert pair.client_app.calls == ["handshake", "lost"] and pair.client_app.exc is None


def test_abort(pair: Pair) -> None:
    pair.run()
    pair.client.abort()
    pair.client.abort()
    pair.client.close()
    pair.client.write(b"x")
    pair.loop.run()
    assert pair.client_app.calls == ["handshake", "lost"]
    assert pair.server.get_extra_info("tls_truncated") is True


@pytest.mark.parametrize("how", ["close", "abort"])
def test_close_in_data_received(pair: Pair, how: str) -> None:
    def close(data: bytes) -> None:
        pair.server_app.received.append(data)
        getattr(pair.server, how)()

    pair.server_app.on_data = close
    pair.client.write(b"x" * 500_000)
    pair.run()
    pair.finish()
    assert len(pair.server_app.received) == 1
    assert pair.server_app.calls == ["handshake", "lost"]


@pytest.mark.parametrize("end", ["close", "cut", "bad record", "bad certificate", "handshake timeout"])
def test_no_reference_cycle_is_left(manual_loop: ManualLoop, certificates: Certificates, end: str) -> None:
    hostname = "example.com" if end == "bad certificate" else "localhost"
    pair = Pair(manual_loop, certificates.server(), certificates.client(), hostname=hostname)
    pair.client_app.on_data = pair.client.write  # as every application's protocol, it knows its transport
    gc.collect()
    gc.disable()
    try:
        if end == "handshake timeout":
            pair.client.start()
            manual_loop.advance(11)
        else:
            pair.run()
        if end == "cut":
            pair.server_raw.cut(ConnectionResetError())
        elif end == "bad record":
            pair.server_raw.write(b"\x17\x03\x03\x00\x20" + b"!" * 32)
        manual_loop.run()
        pair.client.close()
        pair.server.close()
        manual_loop.run()
        assert pair.client_app.calls[-1] == "lost"
        references: list[weakref.ref[Any]] = [weakref.ref(pair.client), weakref.ref(pair.client_app)]
        pair.client_raw.peer = pair.server_raw.peer = cast(MemoryTransport, None)
        del pair
        assert [reference() for reference in references] == [None, None]
    finally:
        gc.enable()


def test_tls_in_tls(manual_loop: ManualLoop, certificates: Certificates) -> None:
    pair = Pair(manual_loop, certificates.server(), certificates.client(), split=at_random(3)).run()
    apps = App(), App()
    inner = [
        tls_over(pair.client, apps[0], certificates.client(), manual_loop, False),
        tls_over(pair.server, apps[1], certificates.server(), manual_loop, True),
    ]
    for tls in inner:
        tls.start()
    payload = random.Random(3).randbytes(1 << 20)
    inner[0].write(payload)
    manual_loop.run()
    assert apps[1].data == payload
    inner[0].close()
    manual_loop.run()
    assert apps[0].calls[-1] == apps[1].calls[-1] == "lost"
    assert apps[1].exc is None and inner[1].get_extra_info("tls_truncated") is False


# Real sockets, with asyncio's own TLS as the peer.


class Echo(asyncio.Protocol):
    """Starts TLS as soon as it is connected, and echoes what comes."""

    def __init__(self, context: ssl.SSLContext, done: asyncio.Future[TlsTransport]) -> None:
        self.context = context
        self.done = done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.raw = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        # The first bytes come to us; from then on to the TlsTransport, which gives us plaintext.
        app = App()
        self.app = app
        self.tls = tls_over(self.raw, app, self.context, asyncio.get_running_loop(), True)
        app.on_data = self.tls.write
        app.on_lost = lambda exc: self.done.set_result(self.tls)
        app.pause_writing = self.tls.pause_reading  # type: ignore[method-assign]
        app.resume_writing = self.tls.resume_reading  # type: ignore[method-assign]
        self.tls.start(data)


async def echo_with_asyncio_as_the_client(certificates: Certificates) -> None:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[TlsTransport] = loop.create_future()
    server = await loop.create_server(lambda: Echo(certificates.server(), done), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(host, port, ssl=certificates.client())
    payload = random.Random(1).randbytes(4 << 20)
    writer.write(payload)
    assert await reader.readexactly(len(payload)) == payload
    writer.close()
    await writer.wait_closed()
    tls = await done
    assert tls.get_extra_info("tls_truncated") is False
    server.close()
    await server.wait_closed()


async def echo_with_asyncio_as_the_server(certificates: Certificates) -> None:
    loop = asyncio.get_running_loop()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=certificates.server())
    host, port = server.sockets[0].getsockname()
    lost = loop.create_future()
    all_received = loop.create_future()
    app = App()
    payload = random.Random(2).randbytes(4 << 20)
    size = 0

    def take(data: bytes) -> None:
        nonlocal size
        app.received.append(data)
        size += len(data)
        if size == len(payload):
            all_received.set_result(None)

    app.on_data = take
    app.on_lost = lost.set_result
    raw, _ = await loop.create_connection(lambda: app, host, port)
    tls = tls_over(raw, app, certificates.client(), loop, False, server_hostname="127.0.0.1")
    tls.start()
    tls.write(payload)
    await all_received
    assert app.data == payload
    tls.close()
    assert await lost is None
    server.close()
    await server.wait_closed()


async def upload_and_close_at_once(certificates: Certificates) -> None:
    """Nothing is lost although the server's tickets arrive while the client closes."""
    loop = asyncio.get_running_loop()
    result = loop.create_future()

    async def sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            result.set_result(len(await reader.read(-1)))
        except OSError as error:
            result.set_exception(error)
        writer.close()

    server = await asyncio.start_server(sink, "127.0.0.1", 0, ssl=certificates.server(), limit=1 << 24)
    lost = loop.create_future()
    app = App()
    app.on_lost = lost.set_result
    raw, _ = await loop.create_connection(lambda: app, *server.sockets[0].getsockname())
    tls = tls_over(raw, app, certificates.client(), loop, False)
    tls.start()
    tls.write(b"x" * (8 << 20))
    tls.close()
    assert await result == 8 << 20
    assert await lost is None
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize(
    "scenario", [echo_with_asyncio_as_the_client, echo_with_asyncio_as_the_server, upload_and_close_at_once]
)
def test_sockets(
    certificates: Certificates,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    scenario: Callable[[Certificates], Awaitable[None]],
) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario(certificates)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(bounded())
