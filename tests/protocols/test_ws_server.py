"""WebSocket servers as events: the handshake, messages, control frames, the closing handshake, refusals."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import pytest

from asyncmg import (
    MG_EV_CLOSE,
    MG_EV_ERROR,
    MG_EV_HTTP_MSG,
    MG_EV_READ,
    MG_EV_WS_CTL,
    MG_EV_WS_MSG,
    MG_EV_WS_OPEN,
    WEBSOCKET_OP_BINARY,
    WEBSOCKET_OP_CLOSE,
    WEBSOCKET_OP_PING,
    WEBSOCKET_OP_PONG,
    WEBSOCKET_OP_TEXT,
    Connection,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    Deflate,
    Limits,
    LocalProtocolError,
    RemoteProtocolError,
    WsLimits,
    WsMessage,
)

from .conftest import Harness, RawPeer, eventually
from .ws_peer import (
    KEY,
    WHOLE_BINARY,
    WHOLE_CLOSE,
    WHOLE_PING,
    WHOLE_PONG,
    WHOLE_TEXT,
    Frame,
    expect_close,
    masked,
    plain,
    read_frame,
    request,
    shake_hands,
)


class Echo:
    """Upgrades, sends back what it gets, and remembers."""

    def __init__(self, headers: Any = None, **options: Any) -> None:
        self.headers = headers
        self.options = options
        self.events: list[int] = []
        self.errors: list[Exception] = []
        self.controls: list[WsMessage] = []
        self.messages: list[WsMessage] = []
        self.conns: list[Connection] = []
        self.upgraded: list[bool] = []

    def __call__(self, conn: Connection, ev: int, data: Any) -> None:
        self.events.append(ev)
        if ev == MG_EV_ERROR:
            self.errors.append(data)
        elif ev == MG_EV_HTTP_MSG:
            self.upgraded.append(conn.ws_upgrade(data, self.headers, **self.options))
        elif ev == MG_EV_WS_OPEN:
            self.conns.append(conn)
        elif ev == MG_EV_WS_MSG:
            self.messages.append(data)
            if not self.options.get("fragments"):
                conn.ws_send(data.data, data.flags & 15)
        elif ev == MG_EV_WS_CTL:
            self.controls.append(data)


async def open_peer(harness: Harness, echo: Any, *lines: str, limits: Limits | None = None) -> RawPeer:
    listener = harness.serve(echo, limits=limits)
    peer = await harness.peer(listener.port)
    await shake_hands(peer, *lines)
    return peer


async def test_echo(harness: Harness) -> None:
    echo = Echo()
    peer = await open_peer(harness, echo)
    for flags, payload in [
        (WHOLE_TEXT, "grüße".encode()),
        (WHOLE_BINARY, bytes(range(256))),
        (WHOLE_TEXT, b""),
        (WHOLE_BINARY, b"x" * 125),
        (WHOLE_BINARY, b"x" * 126),
        (WHOLE_BINARY, b"x" * 65535),
        (WHOLE_BINARY, b"x" * 65536),
        (WHOLE_TEXT, b"x" * 300_000),
    ]:
        peer.send(masked(flags, payload))
        assert await read_frame(peer) == Frame(flags, payload)
    assert echo.messages[0].text == "grüße"
    assert echo.messages[0].flags == WHOLE_TEXT and echo.messages[0].opcode == WEBSOCKET_OP_TEXT
    assert echo.messages[1].data == bytes(range(256)) and echo.messages[1].code == 0
    [conn] = echo.conns
    assert conn.is_websocket and conn.subprotocol == "" and conn.is_writable and not conn.is_client


async def test_order_of_events(harness: Harness) -> None:
    echo = Echo()
    peer = await open_peer(harness, echo)
    peer.send(masked(WHOLE_TEXT, b"a") + masked(WHOLE_CLOSE, b"\x03\xe8"))
    await read_frame(peer)
    await expect_close(peer, 1000)
    await eventually(lambda: MG_EV_CLOSE in echo.events)
    wanted = [MG_EV_HTTP_MSG, MG_EV_WS_OPEN, MG_EV_WS_MSG, MG_EV_WS_CTL, MG_EV_CLOSE]
    assert [ev for ev in echo.events if ev in wanted] == wanted
    assert echo.events.index(MG_EV_READ, echo.events.index(MG_EV_WS_OPEN)) > echo.events.index(MG_EV_WS_MSG)
    assert not echo.errors


async def test_frames_in_the_segment_of_the_request(harness: Harness) -> None:
    """wsproto drops them."""
    echo = Echo()
    peer = await harness.peer(harness.serve(echo).port)
    await shake_hands(peer, behind=masked(WHOLE_TEXT, b"early") + masked(WHOLE_TEXT, b"bird"))
    assert await read_frame(peer) == Frame(WHOLE_TEXT, b"early")
    assert await read_frame(peer) == Frame(WHOLE_TEXT, b"bird")


async def test_replies_to_one_segment_leave_together(harness: Harness) -> None:
    echo = Echo()
    peer = await open_peer(harness, echo)
    peer.send(masked(WHOLE_TEXT, b"x") * 100)
    assert await peer.read_exactly(300) == plain(WHOLE_TEXT, b"x") * 100


async def test_more_messages_than_one_turn_handles(harness: Harness) -> None:
    echo = Echo()
    peer = await open_peer(harness, echo)
    peer.send(b"".join(masked(WHOLE_TEXT, b"%d" % i) for i in range(3000)) + masked(WHOLE_CLOSE))
    assert [await read_frame(peer) for _ in range(3000)] == [Frame(WHOLE_TEXT, b"%d" % i) for i in range(3000)]
    assert await read_frame(peer) == Frame(WHOLE_CLOSE, b"")


async def test_fragments(harness: Harness) -> None:
    echo = Echo()
    peer = await open_peer(harness, echo)
    peer.send(masked(1, b"\xc3") + masked(WHOLE_PING, b"between") + masked(0, b"\xbc") + masked(0x80, b"!"))
    assert await read_frame(peer) == Frame(WHOLE_PONG, b"between")
    assert await read_frame(peer) == Frame(WHOLE_TEXT, "ü!".encode())


async def test_fragments_as_they_come(harness: Harness) -> None:
    echo = Echo(fragments=True)
    peer = await open_peer(harness, echo)
    peer.send(masked(1, b"a") + masked(0, b"b") + masked(0x80, b"") + masked(WHOLE_BINARY, b"c"))
    await eventually(lambda: len(echo.messages) == 4)
    assert [(message.flags & 0x8F, message.data) for message in echo.messages] == [
        (1, b"a"),
        (0, b"b"),
        (0x80, b""),
        (WHOLE_BINARY, b"c"),
    ]
    peer.send(masked(WHOLE_BINARY, b"x" * 1000)[:500])  # a frame that is not all there
    await eventually(lambda: len(echo.messages) == 5)
    assert echo.messages[4].flags & 0x8F == 2 and set(echo.messages[4].data) == {ord("x")}


async def test_control_frames(harness: Harness) -> None:
    echo = Echo()
    peer = await open_peer(harness, echo)
    peer.send(masked(WHOLE_PING, b"p") + masked(WHOLE_PONG, b"unasked"))
    assert await read_frame(peer) == Frame(WHOLE_PONG, b"p")
    await eventually(lambda: len(echo.controls) == 2)
    assert [(control.flags & 15, control.data) for control in echo.controls] == [
        (WEBSOCKET_OP_PING, b"p"),
        (WEBSOCKET_OP_PONG, b"unasked"),
    ]
    [conn] = echo.conns
    assert conn.latency == 0.0
    conn.ws_ping(b"q")
    assert await read_frame(peer) == Frame(WHOLE_PING, b"q")
    peer.send(masked(WHOLE_PONG, b"q"))
    await eventually(lambda: conn.latency > 0)
    conn.ws_send(b"r", WEBSOCKET_OP_PING)
    conn.ws_send(b"s", WEBSOCKET_OP_PONG)
    assert await read_frame(peer) == Frame(WHOLE_PING, b"r")
    assert await read_frame(peer) == Frame(WHOLE_PONG, b"s")


@pytest.mark.parametrize(
    ("payload", "answer", "code", "reason"),
    [
        (b"\x03\xe8bye", b"\x03\xe8", 1000, "bye"),
        (b"", b"", 1005, ""),
        (b"\x0f\xa0", b"\x0f\xa0", 4000, ""),
    ],
)
async def test_peer_closes(harness: Harness, payload: bytes, answer: bytes, code: int, reason: str) -> None:
    echo = Echo()
    peer = await open_peer(harness, echo)
    peer.send(masked(WHOLE_CLOSE, payload) + masked(WHOLE_TEXT, b"too late"))
    assert await read_frame(peer) == Frame(WHOLE_CLOSE, answer)
    assert await peer.read_all() == b""
    await eventually(lambda: MG_EV_CLOSE in echo.events)
    assert not echo.errors and not echo.messages
    [control] = echo.controls
    assert (control.code, control.reason) == (code, reason)
    with pytest.raises(ConnectionClosed):
        echo.conns[0].ws_send("x")


async def test_we_close(harness: Harness) -> None:
    echo = Echo()
    peer = await open_peer(harness, echo)
    [conn] = echo.conns
    conn.ws_send("last")
    conn.ws_close(3001, "enough")
    assert conn.is_draining and not conn.is_writable
    with pytest.raises(ConnectionClosed) as caught:
        conn.ws_send("x")
    assert caught.value.sent == (3001, "enough") and caught.value.received is None and caught.value.code == 1006
    conn.ws_close(1000)  # it has begun already
    assert await read_frame(peer) == Frame(WHOLE_TEXT, b"last")
    assert await read_frame(peer) == Frame(WHOLE_CLOSE, b"\x0b\xb9enough")
    peer.send(masked(WHOLE_TEXT, b"still") + masked(WHOLE_CLOSE, b"\x0b\xb9"))
    assert await peer.read_all() == b""
    await eventually(lambda: MG_EV_CLOSE in echo.events)
    assert not echo.errors
    assert not any(message.data == b"x" for message in echo.messages)


@pytest.mark.parametrize("how", ["drain", "close", "send"])
async def test_other_ways_to_close(harness: Harness, how: str) -> None:
    echo = Echo()
    peer = await open_peer(harness, echo)
    [conn] = echo.conns
    if how == "send":
        conn.ws_send(b"\x03\xe8", WEBSOCKET_OP_CLOSE)
    else:
        getattr(conn, how)()
    assert await read_frame(peer) == Frame(WHOLE_CLOSE, b"\x03\xe8")
    if how != "close":
        assert MG_EV_CLOSE not in echo.events
        peer.send(masked(WHOLE_CLOSE, b"\x03\xe8"))
    assert await peer.read_all() == b""
    await eventually(lambda: MG_EV_CLOSE in echo.events)
    assert not echo.errors


async def test_peer_vanishes(harness: Harness) -> None:
    echo = Echo()
    peer = await open_peer(harness, echo)
    peer.send_eof()
    await eventually(lambda: MG_EV_CLOSE in echo.events)
    [error] = echo.errors
    assert isinstance(error, ConnectionClosedError)
    assert (error.code, error.reason, error.received, error.sent) == (1006, "", None, None)


async def test_peer_resets(harness: Harness) -> None:
    echo = Echo()
    peer = await open_peer(harness, echo)
    peer.reset()
    await eventually(lambda: MG_EV_CLOSE in echo.events)
    [error] = echo.errors
    assert isinstance(error, ConnectionClosed)


async def test_graceful_stop(harness: Harness) -> None:
    manager = harness.manager(echo := Echo())
    listener = manager.listen("http://127.0.0.1:0")
    peer = await harness.peer(listener.port)  # type: ignore[union-attr]
    await shake_hands(peer)
    stopping = asyncio.create_task(manager.shutdown(10))
    assert await read_frame(peer) == Frame(WHOLE_CLOSE, b"\x03\xe9")
    peer.send(masked(WHOLE_CLOSE, b"\x03\xe9"))
    await stopping
    assert MG_EV_CLOSE in echo.events and not echo.errors


BROKEN = {
    "not masked": (plain(WHOLE_TEXT, b"x"), 1002),
    "reserved opcode": (masked(0x83, b"x"), 1002),
    "reserved bit": (masked(WHOLE_TEXT | 0x20, b"x"), 1002),
    "compressed without agreement": (masked(WHOLE_TEXT | 0x40, b"x"), 1002),
    "continuation of nothing": (masked(0x80, b"x"), 1002),
    "new message within a message": (masked(1, b"x") + masked(WHOLE_TEXT, b"y"), 1002),
    "fragmented control frame": (masked(9, b"x"), 1002),
    "long control frame": (masked(WHOLE_PING, b"x" * 126), 1002),
    "close code 1005": (masked(WHOLE_CLOSE, b"\x03\xed"), 1002),
    "half a close code": (masked(WHOLE_CLOSE, b"\x03"), 1002),
    "text that is not UTF-8": (masked(WHOLE_TEXT, b"\xff"), 1007),
    "text cut in a character": (masked(1, b"\xc3") + masked(0x80, b""), 1007),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_broken_frames(harness: Harness, name: str) -> None:
    data, code = BROKEN[name]
    echo = Echo()
    peer = await open_peer(harness, echo)
    peer.send(masked(WHOLE_TEXT, b"before") + data + masked(WHOLE_TEXT, b"behind"))
    assert await read_frame(peer) == Frame(WHOLE_TEXT, b"before")
    assert await expect_close(peer, code)
    await eventually(lambda: MG_EV_CLOSE in echo.events)
    [error] = echo.errors
    assert isinstance(error, RemoteProtocolError) and error.wire_code == code and error.section.startswith("RFC 6455")
    assert [message.data for message in echo.messages] == [b"before"]


REFUSED = {
    "no upgrade": ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 426),
    "upgrade to something else": (request("Upgrade: h2c"), 426),
    "another version": (request("Sec-WebSocket-Version: 8"), 426),
    "no version": (request(leave_out="Sec-WebSocket-Version"), 426),
    "no key": (request(leave_out="Sec-WebSocket-Key"), 400),
    "short key": (request("Sec-WebSocket-Key: AAAA"), 400),
    "key that is not base64": (request("Sec-WebSocket-Key: %%%%%%%%%%%%%%%%%%%%%%%%"), 400),
    "two keys": (request(*[f"Sec-WebSocket-Key: {KEY}"] * 2), 400),
    "post": (request().replace("GET", "POST"), 400),
    "malformed extension": (request("Sec-WebSocket-Extensions: a;;"), 400),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused_handshakes(harness: Harness, name: str) -> None:
    data, status = REFUSED[name]
    echo = Echo()
    peer = await harness.peer(harness.serve(echo).port)
    peer.send(data)
    got, fields, _ = await peer.read_reply()
    assert got == status
    if status == 426:
        assert fields["sec-websocket-version"] == "13" and fields["upgrade"] == "websocket"
    assert await peer.read_all() == b""
    assert echo.upgraded == [False] and MG_EV_WS_OPEN not in echo.events


@pytest.mark.parametrize(
    ("lines", "is_served"),
    [
        (["Origin: https://good.example"], True),
        (["Origin: https://evil.example"], False),
        (["Origin: https://good.example", "Origin: https://evil.example"], False),
        ([], False),
    ],
)
async def test_origins(harness: Harness, lines: list[str], is_served: bool) -> None:
    echo = Echo(origins=["https://good.example"])
    peer = await harness.peer(harness.serve(echo).port)
    peer.send(request(*lines))
    status, _, _ = await peer.read_reply()
    assert status == (101 if is_served else 403)


async def test_no_origin_where_that_is_served(harness: Harness) -> None:
    await open_peer(harness, Echo(origins=["https://good.example", None]))


@pytest.mark.parametrize(("offered", "chosen"), [("b, a", "a"), ("c", None), ("c,b", "b"), ("", None)])
async def test_subprotocols(harness: Harness, offered: str, chosen: str | None) -> None:
    echo = Echo(subprotocols=["a", "b"])
    peer = await harness.peer(harness.serve(echo).port)
    fields = await shake_hands(peer, *([f"Sec-WebSocket-Protocol: {offered}"] if offered else []))
    assert fields.get("sec-websocket-protocol") == chosen
    assert echo.conns[0].subprotocol == (chosen or "")


async def test_extra_headers(harness: Harness) -> None:
    echo = Echo(headers={"Set-Cookie": "a=b"})
    peer = await harness.peer(harness.serve(echo).port)
    assert (await shake_hands(peer))["set-cookie"] == "a=b"


async def test_headers_of_the_handshake_cannot_be_given(harness: Harness) -> None:
    peer = await harness.peer(harness.serve(Echo(headers={"Sec-WebSocket-Accept": "mine"})).port)
    peer.send(request())
    assert (await peer.read_reply())[0] == 500
    [error] = harness.errors
    assert isinstance(error, LocalProtocolError)


async def test_what_cannot_be_sent(harness: Harness) -> None:
    echo = Echo()
    peer = await open_peer(harness, echo)
    [conn] = echo.conns
    with pytest.raises(ValueError):
        conn.ws_send("x", 3)
    with pytest.raises(ValueError):
        conn.ws_send(b"\xff", WEBSOCKET_OP_TEXT)
    with pytest.raises(TypeError):
        conn.ws_send(7)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError):
        conn.ws_send(b"x" * 126, WEBSOCKET_OP_PING)
    with pytest.raises(ValueError):
        conn.ws_close(1005, "no code can have no reason")
    with pytest.raises(ValueError):
        conn.ws_close(1006)
    with pytest.raises(ValueError):
        conn.ws_close(1000, "x" * 124)
    with pytest.raises(LocalProtocolError):
        conn.reply(200, "no longer HTTP")
    conn.ws_send(bytearray(b"still alive"), WEBSOCKET_OP_BINARY)
    assert await read_frame(peer) == Frame(WHOLE_BINARY, b"still alive")


async def test_websocket_verbs_on_http(harness: Harness) -> None:
    caught: list[Exception] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            for verb in (lambda: conn.ws_send("x"), conn.ws_ping, conn.ws_close):
                with pytest.raises(LocalProtocolError) as info:
                    verb()
                caught.append(info.value)
            assert not conn.is_websocket and conn.latency == 0.0
            conn.reply(200, "ok")

    peer = await harness.peer(harness.serve(handler).port)
    peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await peer.read_reply())[0] == 200
    assert len(caught) == 3


async def test_upgrade_by_an_async_handler_that_waits(harness: Harness) -> None:
    got: list[str] = []

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            await asyncio.sleep(0)
            assert conn.ws_upgrade(data)
        elif ev == MG_EV_WS_MSG:
            await asyncio.sleep(0)
            got.append(data.text)
            conn.ws_send(data.text)

    peer = await harness.peer(harness.serve(handler).port)
    await shake_hands(peer, behind=b"".join(masked(WHOLE_TEXT, b"%d" % i) for i in range(300)))
    for i in range(300):
        assert await read_frame(peer) == Frame(WHOLE_TEXT, b"%d" % i)
    assert got == [str(i) for i in range(300)]


async def test_session_that_iterates(harness: Harness) -> None:
    async def session(conn: Connection) -> None:
        async for ev, data in conn:
            if ev == MG_EV_HTTP_MSG:
                conn.ws_upgrade(data)
            elif ev == MG_EV_WS_MSG:
                conn.ws_send(data.text)

    peer = await open_peer(harness, session)
    peer.send(masked(WHOLE_TEXT, b"a"))
    assert await read_frame(peer) == Frame(WHOLE_TEXT, b"a")
    peer.send(masked(WHOLE_CLOSE))
    assert await read_frame(peer) == Frame(WHOLE_CLOSE, b"")


async def test_a_handler_that_raises_ends_nothing(harness: Harness) -> None:
    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.ws_upgrade(data)
        elif ev == MG_EV_WS_MSG:
            if data.text == "bad":
                raise KeyError(data.text)
            conn.ws_send(data.text)

    peer = await open_peer(harness, handler)
    peer.send(masked(WHOLE_TEXT, b"bad") + masked(WHOLE_TEXT, b"good"))
    assert await read_frame(peer) == Frame(WHOLE_TEXT, b"good")
    assert [type(error) for error in harness.errors] == [KeyError]


def deflated(payload: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-12)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


async def test_compression(harness: Harness) -> None:
    echo = Echo(compression=True)
    peer = await harness.peer(harness.serve(echo).port)
    fields = await shake_hands(peer, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
    assert fields["sec-websocket-extensions"] == (
        "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"
    )
    text = b"again and again " * 50
    peer.send(masked(WHOLE_TEXT | 0x40, deflated(text)))
    frame = await read_frame(peer)
    assert frame.flags == WHOLE_TEXT | 0x40 and len(frame.payload) < 100
    assert zlib.decompressobj(-12).decompress(frame.payload + b"\x00\x00\xff\xff") == text
    peer.send(masked(WHOLE_TEXT, b"short and plain"))
    assert await read_frame(peer) == Frame(WHOLE_TEXT, b"short and plain")


async def test_ping_between_compressed_fragments(harness: Harness) -> None:
    """It corrupts what follows in wsproto."""
    echo = Echo(compression=Deflate(peer_context_takeover=False))
    peer = await open_peer(harness, echo, "Sec-WebSocket-Extensions: permessage-deflate")
    text = bytes(range(32, 127)) * 20
    data = deflated(text)
    peer.send(masked(0x41, data[:20]) + masked(WHOLE_PING, b"p") + masked(0x80, data[20:]))
    assert await read_frame(peer) == Frame(WHOLE_PONG, b"p")
    await read_frame(peer)
    assert echo.messages[0].data == text


async def test_garbage_instead_of_compressed_data(harness: Harness) -> None:
    echo = Echo(compression=True)
    peer = await open_peer(harness, echo, "Sec-WebSocket-Extensions: permessage-deflate")
    peer.send(masked(WHOLE_BINARY | 0x40, b"\xff\xff\xff"))
    await expect_close(peer, 1007)


async def test_compressed_text_that_is_not_utf8(harness: Harness) -> None:
    echo = Echo(compression=True)
    peer = await open_peer(harness, echo, "Sec-WebSocket-Extensions: permessage-deflate")
    peer.send(masked(WHOLE_TEXT | 0x40, deflated(b"abc\xff" * 20)))
    await expect_close(peer, 1007)


async def test_closed_says_ok_after_an_orderly_end(harness: Harness) -> None:
    echo = Echo()
    peer = await open_peer(harness, echo)
    peer.send(masked(WHOLE_CLOSE, b"\x03\xe9"))
    await expect_close(peer, 1001)
    await eventually(lambda: MG_EV_CLOSE in echo.events)
    closed = echo.conns[0].protocol.closed()
    assert isinstance(closed, ConnectionClosedOK) and closed.code == 1001


async def test_limits_of_messages(harness: Harness) -> None:
    limits = Limits(ws=WsLimits(max_message=1000, max_frame=600, max_fragments=4))
    for data, code in [
        (masked(WHOLE_TEXT, b"x" * 601), 1009),
        (masked(1, b"x" * 600) + masked(0, b"x" * 401)[:8], 1009),
        (masked(1, b"x") + masked(0, b"x") * 3 + masked(0x80, b"x"), 1008),
    ]:
        echo = Echo()
        peer = await open_peer(harness, echo, limits=limits)
        peer.send(data)
        await expect_close(peer, code)
        assert not echo.messages
