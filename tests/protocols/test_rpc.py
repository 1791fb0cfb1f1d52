"""JSON-RPC over connections: serve() on WebSocket and HTTP, RpcClient on both."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable
from typing import Any

import pytest

from asyncmg import (
    MG_EV_CLOSE,
    MG_EV_HTTP_MSG,
    MG_EV_WS_MSG,
    MG_EV_WS_OPEN,
    BufferLimits,
    BusyError,
    ConnectFailed,
    Connection,
    ConnectionClosed,
    DeadlineExceeded,
    InvalidHeader,
    InvalidUrl,
    Limits,
    ProtocolError,
    WebSocket,
    WsMessage,
    ws_connect,
    ws_serve,
)
from asyncmg.rpc import Rpc
from asyncmg.rpc_client import RpcClient
from asyncmg.rpc_messages import RpcError

from .conftest import Harness, eventually, soon


class Service:
    """Methods, and what has become of their calls."""

    def __init__(self, **options: Any) -> None:
        self.rpc = Rpc(**options)
        self.gate = asyncio.Event()
        self.log: list[Any] = []
        self.conns: list[Connection] = []
        self.running = 0
        self.most = 0
        for function in (self.add, self.hold, self.note, self.fail, self.big):
            self.rpc.method(function)
        self.rpc.add("who.*", lambda req: [req.captures, req.conn is self.conns[-1]])

    def add(self, a: int, b: int) -> int:
        return a + b

    async def hold(self, value: Any = None) -> Any:
        """Wait until the gate is open."""
        self.running += 1
        self.most = max(self.most, self.running)
        self.log.append(("begin", value))
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.log.append(("cancelled", value))
            raise
        finally:
            self.running -= 1
        return value

    def note(self, value: Any) -> Any:
        self.log.append(value)
        return value

    async def fail(self) -> None:
        await asyncio.sleep(0)
        raise RpcError(42, "no", [1])

    def big(self, size: int) -> str:
        return "x" * size

    def handler(self, conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG and data.uri == "/ws":
            conn.ws_upgrade(data)
        else:
            if ev in (MG_EV_HTTP_MSG, MG_EV_WS_OPEN):
                self.conns.append(conn)
            self.rpc.serve(conn, ev, data)

    async def async_handler(self, conn: Connection, ev: int, data: Any) -> None:
        await asyncio.sleep(0)
        self.handler(conn, ev, data)

    async def session(self, conn: Connection) -> None:
        async for ev, data in conn:
            self.handler(conn, ev, data)


def frame(method: str, params: Any = (), id_: Any = 1) -> str:
    message = {"jsonrpc": "2.0", "method": method, "params": params}
    return json.dumps(message | ({"id": id_} if id_ is not None else {}))


def post(body: str, path: str = "/", kind: str = "application/json") -> str:
    return (
        f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}"
    )


@pytest.fixture(params=["plain", "async", "session"])
def kind(request: pytest.FixtureRequest) -> str:
    """How the handler is written that calls serve()."""
    return str(request.param)


def serve(harness: Harness, service: Service, kind: str = "plain", **options: Any) -> int:
    handlers: dict[str, Callable[..., Any]] = {
        "plain": service.handler,
        "async": service.async_handler,
        "session": service.session,
    }
    port = harness.serve(handlers[kind], **options).port
    return int(port)


# -- serve(): WebSocket ---------------------------------------------------------------------------------------------


async def test_websocket(harness: Harness, kind: str) -> None:
    service = Service()
    port = serve(harness, service, kind)
    async with ws_connect(f"ws://127.0.0.1:{port}/ws") as ws:
        await ws.send(frame("add", [1, 2]))
        assert json.loads(await soon(ws.recv())) == {"jsonrpc": "2.0", "id": 1, "result": 3}
        await ws.send(b'{"id":2,"method":"add","params":{"a":1,"b":2}}')  # Mongoose's, in bytes
        assert await soon(ws.recv()) == '{"id":2,"result":3}'
        await ws.send(frame("note", ["unanswered"], None))
        await ws.send(f"[{frame('add', [1, 1])},{frame('note', [5], None)},{frame('add', [2, 2], 2)}]")
        assert [answer["result"] for answer in json.loads(await soon(ws.recv()))] == [2, 4]
        assert service.log == ["unanswered", 5]
        await ws.send("no json")
        assert json.loads(await soon(ws.recv()))["error"]["code"] == -32700
        await ws.send(frame("who.me"))
        assert json.loads(await soon(ws.recv()))["result"] == [["me"], True]
    assert harness.errors == []


async def test_answers_that_nobody_asked_for_are_not_answered(harness: Harness) -> None:
    service = Service()
    port = serve(harness, service)
    async with ws_connect(f"ws://127.0.0.1:{port}/ws") as ws:
        for answer in ('{"id":1,"result":3}', '{"error":{"code":-32700,"message":""}}', '[{"id":1,"result":3}]'):
            await ws.send(answer)
        await ws.send(frame("add", [1, 2], 9))
        assert json.loads(await soon(ws.recv()))["id"] == 9


async def test_slow_methods_hold_up_nobody(harness: Harness, kind: str) -> None:
    service = Service()
    port = serve(harness, service, kind)
    async with ws_connect(f"ws://127.0.0.1:{port}/ws") as ws, ws_connect(f"ws://127.0.0.1:{port}/ws") as other:
        for n in range(3):
            await ws.send(frame("hold", [n], n))
        await ws.send(frame("add", [1, 2], "quick"))
        assert json.loads(await soon(ws.recv()))["id"] == "quick"
        await other.send(frame("add", [1, 2], "other"))
        assert json.loads(await soon(other.recv()))["id"] == "other"
        assert service.log == [("begin", 0), ("begin", 1), ("begin", 2)]
        service.gate.set()
        assert sorted([json.loads(await soon(ws.recv()))["id"] for _ in range(3)]) == [0, 1, 2]
    assert harness.errors == []


async def test_calls_begin_in_their_order_and_only_so_many_run(harness: Harness, kind: str) -> None:
    service = Service(max_concurrent=4)
    port = serve(harness, service, kind)
    async with ws_connect(f"ws://127.0.0.1:{port}/ws") as ws:
        for n in range(10):
            await ws.send(frame("hold", [n], n))
        await ws.send(frame("note", ["last"], "last"))
        await eventually(lambda: service.running == 4)
        await asyncio.sleep(0.05)  # more would begin by now
        assert service.log == [("begin", n) for n in range(4)]
        service.gate.set()
        ids = [json.loads(await soon(ws.recv()))["id"] for _ in range(11)]
        assert sorted(ids, key=str) == [*range(10), "last"] and service.most == 4
        assert [entry for entry in service.log if entry != "last"] == [("begin", n) for n in range(10)]
        await ws.send(f"[{','.join(frame('hold', [n], n) for n in range(10))}]")
        assert [answer["result"] for answer in json.loads(await soon(ws.recv()))] == list(range(10))
        assert service.most == 4


async def test_reading_stops_while_calls_wait(harness: Harness, kind: str) -> None:
    service = Service(max_concurrent=2)
    port = serve(harness, service, kind)
    async with ws_connect(f"ws://127.0.0.1:{port}/ws") as ws:
        await ws.send(frame("hold", [0]))
        await ws.send(frame("hold", [1]))
        await eventually(lambda: service.running == 2)
        assert not service.conns[0].is_full
        await ws.send(frame("hold", [2]))
        await eventually(lambda: service.conns[0].is_full)
        service.gate.set()
        assert sorted([json.loads(await soon(ws.recv()))["result"] for _ in range(3)]) == [0, 1, 2]
        await eventually(lambda: not service.conns[0].is_full)


async def test_too_many_calls_are_refused(harness: Harness) -> None:
    service = Service(max_concurrent=1)
    port = serve(harness, service)
    async with ws_connect(f"ws://127.0.0.1:{port}/ws") as ws:
        await ws.send(frame("hold", [], "first"))
        await eventually(lambda: service.running == 1)
        frames = [frame("add", [1, 1], n) for n in range(1000)]
        frames += [frame("add", [1, 1], "over"), frame("add", [1, 1], None), "no json", f"[{frame('hold', [], 'o')}]"]
        for text in frames:  # as if all had come in one read
            service.rpc.serve(service.conns[0], MG_EV_WS_MSG, WsMessage(text.encode(), 0x81))
        refused = json.loads(await soon(ws.recv()))
        assert (refused["id"], refused["error"]["code"]) == ("over", -32000)
        refused = json.loads(await soon(ws.recv()))[0]
        assert (refused["id"], refused["error"]["code"]) == ("o", -32000)
        service.gate.set()
        assert [json.loads(await soon(ws.recv()))["id"] for _ in range(1001)] == ["first", *range(1000)]
    assert harness.errors == []


async def test_calls_that_wait_have_a_limit_of_size(harness: Harness) -> None:
    """A peer whose calls cannot be stopped, as those of a client's server, must not fill the memory."""
    service = Service(max_concurrent=1, max_frame=1000)
    port = serve(harness, service)
    async with ws_connect(f"ws://127.0.0.1:{port}/ws") as ws:
        await ws.send(frame("hold", [], "first"))
        await eventually(lambda: service.running == 1)
        for n in range(10):
            text = frame("note", ["x" * 850], n)
            service.rpc.serve(service.conns[0], MG_EV_WS_MSG, WsMessage(text.encode(), 0x81))
        refused = [json.loads(await soon(ws.recv())) for _ in range(6)]
        assert [(answer["id"], answer["error"]["code"]) for answer in refused] == [(n, -32000) for n in range(4, 10)]
        service.gate.set()
        assert [json.loads(await soon(ws.recv()))["id"] for _ in range(5)] == ["first", 0, 1, 2, 3]
        await ws.send(frame("add", [1, 1], "again"))
        assert json.loads(await soon(ws.recv()))["result"] == 2
    assert harness.errors == []


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_connections_are_forgotten_without_being_told_of_their_end(harness: Harness, scheme: str) -> None:
    """Handlers that pass on nothing but messages are as easily written."""
    service = Service()

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG and data.uri == "/ws":
            conn.ws_upgrade(data)
        elif ev in (MG_EV_HTTP_MSG, MG_EV_WS_MSG):
            service.rpc.serve(conn, ev, data)

    service.gate.set()
    port = harness.serve(handler).port
    for _ in range(3):
        async with RpcClient(f"{scheme}://127.0.0.1:{port}/{'ws' if scheme == 'ws' else ''}") as client:
            assert await soon(client.call("hold", 1)) == 1
            assert len(service.rpc._lanes) == 1

        def count() -> int:
            gc.collect()
            return len(service.rpc._lanes)

        await eventually(lambda count=count: count() == 0)
    assert harness.errors == []


async def test_a_peer_that_takes_no_answers_is_not_served_on(harness: Harness) -> None:
    service = Service()
    limits = Limits(buffers=BufferLimits(send_high_water=16 << 10, min_rate=0))
    port = serve(harness, service, limits=limits)
    async with ws_connect(f"ws://127.0.0.1:{port}/ws") as ws:
        ws.conn.protocol.pause_reading(1 << 10)  # a reason of the test's own
        calls = 400
        sent = asyncio.create_task(send_all(ws, [frame("big", [100_000], n) for n in range(calls)]))
        await eventually(lambda: service.conns and service.conns[0].is_full)
        assert service.conns[0].send_len < 10 << 20
        ws.conn.protocol.resume_reading(1 << 10)
        for n in range(calls):
            assert json.loads(await soon(ws.recv()))["id"] == n  # none lost, all in order
        await soon(sent)
    assert harness.errors == []


async def send_all(ws: WebSocket, frames: list[str]) -> None:
    for text in frames:
        await ws.send(text)


async def test_closing_cancels_what_is_under_way(harness: Harness, kind: str) -> None:
    service = Service(max_concurrent=3)
    port = serve(harness, service, kind)
    ws = await ws_connect(f"ws://127.0.0.1:{port}/ws")
    await ws.send(f"[{frame('hold', [0])},{frame('hold', [1])}]")
    await ws.send(frame("hold", [2]))
    await eventually(lambda: service.running == 3)
    await ws.close()
    await eventually(lambda: service.running == 0)
    await eventually(lambda: len(service.log) == 6)
    assert sorted(service.log[3:]) == [("cancelled", n) for n in (0, 1, 2)]
    assert harness.errors == []


async def test_an_answer_for_a_closed_connection_is_dropped(harness: Harness) -> None:
    service = Service()

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev != MG_EV_CLOSE:  # so nothing is cancelled
            service.handler(conn, ev, data)

    port = harness.serve(handler).port
    ws = await ws_connect(f"ws://127.0.0.1:{port}/ws")
    await ws.send(frame("hold", [0]))
    peer = await harness.peer(port)
    peer.send(post(frame("hold", [1])))
    await eventually(lambda: service.running == 2)
    await ws.close()
    peer.reset()
    await eventually(lambda: all(conn.is_ended for conn in service.conns))
    service.gate.set()
    await eventually(lambda: service.running == 0)
    await asyncio.sleep(0.01)
    assert harness.errors == []


# -- serve(): HTTP ----------------------------------------------------------------------------------------------------


async def test_http(harness: Harness, kind: str) -> None:
    service = Service()
    port = serve(harness, service, kind)
    service.gate.set()
    peer = await harness.peer(port)
    for method, params in (("add", [1, 2]), ("hold", [3])):
        peer.send(post(frame(method, params), kind="application/json; charset=utf-8"))
        status, fields, body = await peer.read_reply()
        assert (status, fields["content-type"]) == (200, "application/json")
        assert json.loads(body) == {"jsonrpc": "2.0", "id": 1, "result": 3}
    for method in ("add", "hold"):
        peer.send(post(frame(method, [1], None)))
        assert (await peer.read_reply())[0] == 204
    peer.send(post(f"[{frame('hold', [1])},{frame('add', [1, 1], None)}]"))
    assert [answer["result"] for answer in json.loads((await peer.read_reply())[2])] == [1]
    peer.send(post("no json"))
    status, _, body = await peer.read_reply()
    assert (status, json.loads(body)["error"]["code"]) == (200, -32700)
    peer.send(post(frame("fail")))
    assert json.loads((await peer.read_reply())[2])["error"] == {"code": 42, "message": "no", "data": [1]}
    assert harness.errors == []


async def test_what_http_requests_are_refused(harness: Harness) -> None:
    port = serve(harness, Service())
    peer = await harness.peer(port)
    peer.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    status, fields, _ = await peer.read_reply()
    assert (status, fields["allow"]) == (405, "POST")
    for kind in ("text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"):
        peer.send(post(frame("add", [1, 2]), kind=kind))
        status, fields, _ = await peer.read_reply()
        assert (status, fields["accept-post"]) == (415, "application/json")


async def test_pipelined_http_calls_are_answered_in_order(harness: Harness) -> None:
    service = Service()
    port = serve(harness, service)
    peer = await harness.peer(port)
    peer.send(post(frame("hold", [1])) + post(frame("add", [1, 1])))
    await eventually(lambda: service.running == 1)
    other = await harness.peer(port)
    other.send(post(frame("add", [5, 5])))
    assert json.loads((await other.read_reply())[2])["result"] == 10
    service.gate.set()
    assert [json.loads((await peer.read_reply())[2])["result"] for _ in range(2)] == [1, 2]


async def test_a_client_that_leaves_cancels_its_call(harness: Harness) -> None:
    service = Service()
    port = serve(harness, service)
    peer = await harness.peer(port)
    peer.send(post(frame("hold", [1])))
    await eventually(lambda: service.running == 1)
    peer.reset()
    await eventually(lambda: service.log[-1] == ("cancelled", 1))
    assert harness.errors == []


# -- RpcClient --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["ws", "http"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_client(harness: Harness, scheme: str) -> None:
    service = Service()
    port = serve(harness, service)
    service.gate.set()
    async with RpcClient(
        f"{scheme}://127.0.0.1:{port}/ws" if scheme == "ws" else f"http://127.0.0.1:{port}/"
    ) as client:
        assert await soon(client.call("add", 1, 2)) == 3
        assert await soon(client.call("add", a=1, b=2)) == 3
        assert await soon(client.request("add", {"a": 1, "b": 3})) == 4
        assert await soon(client.call("note", None)) is None
        assert await soon(asyncio.gather(*[client.call("hold", n) for n in range(50)])) == list(range(50))
        assert await client.notify("note", value="told") is None
        await eventually(lambda: "told" in service.log)
        assert await soon(client.batch([])) == []
        results = await soon(client.batch([("add", [1, 2]), ("fail", []), ("add", {"a": 5, "b": 5}), "hold", "nope"]))
        assert results[0] == 3 and results[2:4] == [10, None]
        assert [error.code for error in (results[1], results[4])] == [42, -32601]
        with pytest.raises(RpcError, match="no") as caught:
            await soon(client.call("fail"))
        assert (caught.value.code, caught.value.message, caught.value.data) == (42, "no", [1])
        with pytest.raises(TypeError):
            await client.call("add", 1, b=2)
        with pytest.raises(TypeError):
            await client.notify("add", 1, b=2)
        with pytest.raises(TypeError):
            await client.call("add", {1, 2})
    assert harness.errors == []
    with pytest.raises(ConnectionClosed):
        await client.call("add", 1, 2)


async def test_time_outs_and_cancelling_disturb_no_other_call(harness: Harness, scheme: str) -> None:
    service = Service()
    port = serve(harness, service)
    url = f"{scheme}://127.0.0.1:{port}/" + ("ws" if scheme == "ws" else "")
    async with RpcClient(url, timeout=20) as client:
        kept = asyncio.create_task(client.call("hold", "kept"))
        cancelled = asyncio.create_task(client.call("hold", "cancelled"))
        await eventually(lambda: service.running == 2)
        with pytest.raises(DeadlineExceeded, match=r"no answer in 0\.05 s") as caught:
            await client.request("hold", ["late"], timeout=0.05)
        assert isinstance(caught.value, TimeoutError) and caught.value.limit == "timeout"
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        service.gate.set()
        assert await soon(kept) == "kept"  # answers to the two others are dropped
        assert await soon(client.call("add", 1, 2)) == 3
    client = RpcClient(url, timeout=0.05)
    service.gate.clear()
    async with client:
        with pytest.raises(DeadlineExceeded):
            await client.call("hold")
        with pytest.raises(DeadlineExceeded):
            await client.batch(["hold"])


async def test_the_end_of_the_connection_fails_every_call(harness: Harness, scheme: str) -> None:
    service = Service()
    port = serve(harness, service)
    url = f"{scheme}://127.0.0.1:{port}/" + ("ws" if scheme == "ws" else "")
    async with RpcClient(url) as client:
        calls = [asyncio.create_task(client.call("hold", n)) for n in range(3)]
        calls.append(asyncio.create_task(client.batch([("hold", [4]), ("hold", [5])])))
        await eventually(lambda: service.running == 5)
        for conn in service.conns:
            conn.close()
        outcomes = await soon(asyncio.gather(*calls, return_exceptions=True))
        assert all(isinstance(outcome, ConnectionClosed) for outcome in outcomes), outcomes
        if scheme == "ws":
            with pytest.raises(ConnectionClosed):
                await client.call("add", 1, 2)
        else:
            assert await soon(client.call("add", 1, 2)) == 3  # by another connection


async def test_http_connections_are_used_again(harness: Harness) -> None:
    service = Service()
    port = serve(harness, service)
    async with RpcClient(f"http://u:p@127.0.0.1:{port}/", headers={"X-A": "1"}) as client:
        for n in range(5):
            assert await soon(client.call("add", n, n)) == 2 * n
        assert len(set(service.conns)) == 1
        service.conns[0].close()  # an idle one that the server has closed is not used
        [(_, idle)] = client._link._idle  # type: ignore[attr-defined]
        await eventually(lambda: idle.is_closing)
        assert await soon(client.call("add", 1, 1)) == 2
        assert len(set(service.conns)) == 2


async def test_what_an_http_client_sends(harness: Harness) -> None:
    seen: list[Any] = []

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            seen.append(data)
            conn.reply(200, {"jsonrpc": "2.0", "id": data.json().get("id"), "result": data.json().get("params")})

    port = harness.serve(handler).port
    async with RpcClient(f"http://u:p@127.0.0.1:{port}/a?b=c", headers={"X-A": "1"}) as client:
        assert await soon(client.call("m", "ü", [1])) == ["ü", [1]]
    request = seen[0]
    assert (request.method, request.uri, request.query) == ("POST", "/a", "b=c")
    assert request.header("Content-Type") == "application/json" and request.header("Host") == f"127.0.0.1:{port}"
    assert request.header("Authorization") == "Basic dTpw" and request.header("X-A") == "1"


@pytest.mark.parametrize(
    "answer",
    ["", "<html>", "5", "[]", '{"jsonrpc":"2.0","id":99,"result":1}', '{"jsonrpc":"2.0","method":"x","id":1}'],
)
async def test_an_http_answer_that_is_none(harness: Harness, answer: str) -> None:
    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG:
            conn.reply(502, answer)

    port = harness.serve(handler).port
    async with RpcClient(f"http://127.0.0.1:{port}/") as client:
        with pytest.raises(ProtocolError) as caught:
            await soon(client.call("m"))
        assert caught.value.wire_code == 502


async def test_errors_without_an_id(harness: Harness, scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    """A server that cannot read a batch, as those of Mongoose, has no id to answer with."""
    refusal = '{"error":{"code":-32700,"message":"[..."}}'

    def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_MSG and scheme == "ws":
            conn.ws_upgrade(data)
        elif ev == MG_EV_HTTP_MSG:
            conn.reply(200, refusal)
        elif ev == MG_EV_WS_MSG:
            conn.ws_send("no json")
            conn.ws_send('{"id":1000,"result":5}')
            conn.ws_send('{"id":"a","error":5}')
            conn.ws_send(refusal)

    port = harness.serve(handler).port
    async with RpcClient(f"{scheme}://127.0.0.1:{port}/") as client:
        with pytest.raises(RpcError) as caught:
            await soon(client.batch(["a", "b"]))
        assert caught.value.code == -32700
        if scheme == "ws":
            assert "not JSON" in caplog.text
            calls = [asyncio.create_task(client.request("m")) for _ in range(2)]
            await eventually(lambda: caplog.text.count("an answer without id") == 2)
            assert not any(task.done() for task in calls)  # which of them it is about nobody knows
            for task in calls:
                task.cancel()
            await asyncio.gather(*calls, return_exceptions=True)


async def test_both_sides_call_each_other(harness: Harness) -> None:
    log: list[str] = []

    async def session(ws: WebSocket) -> None:
        rpc = Rpc()

        @rpc.method
        async def roundabout(n: int) -> Any:
            """Ask the caller back before answering."""
            return await peer.call("double", n) if n < 50 else None

        async with RpcClient(ws, rpc=rpc) as peer:
            await peer.notify("log", "hello")
            assert await peer.call("double", 4) == 8
            with pytest.raises(RpcError):
                await peer.call("nope")
            log.append("asked")
            await ws.wait_closed()

    client_rpc = Rpc(max_concurrent=2)
    client_rpc.method("double")(double)
    client_rpc.method("log")(log.append)
    async with ws_serve(session, "127.0.0.1", 0) as server:
        async with RpcClient(f"ws://127.0.0.1:{server.port}/", rpc=client_rpc) as client:
            answers = await soon(asyncio.gather(*[client.call("roundabout", n) for n in range(20)]))
            assert answers == [2 * n for n in range(20)]
            await eventually(lambda: log == ["hello", "asked"])


async def double(n: int) -> int:
    await asyncio.sleep(0)
    return 2 * n


async def test_a_websocket_that_is_there_already(harness: Harness) -> None:
    port = serve(harness, Service())
    async with ws_connect(f"ws://127.0.0.1:{port}/ws") as ws:
        async with RpcClient(ws) as client:
            assert await soon(client.call("add", 1, 2)) == 3
            with pytest.raises(BusyError):
                await ws.recv()
            with pytest.raises(BusyError):
                await client.__aenter__()
        assert ws.is_open
        await ws.send(frame("add", [2, 2]))
        assert json.loads(await soon(ws.recv()))["result"] == 4


async def test_somebody_else_receives_already(harness: Harness) -> None:
    port = serve(harness, Service())
    async with ws_connect(f"ws://127.0.0.1:{port}/ws") as ws:
        other = asyncio.create_task(ws.recv())
        await asyncio.sleep(0)
        async with RpcClient(ws) as client:
            with pytest.raises(ConnectionClosed) as caught:
                await soon(client.call("add", 1, 2))  # told now, not when the time is over
            assert isinstance(caught.value.__cause__, BusyError)
        other.cancel()


async def test_a_notification_that_an_http_server_does_not_take(harness: Harness) -> None:
    port = harness.serve(lambda conn, ev, data: conn.reply(503) if ev == MG_EV_HTTP_MSG else None).port
    async with RpcClient(f"http://127.0.0.1:{port}/") as client:
        with pytest.raises(ProtocolError) as caught:
            await soon(client.notify("m"))
        assert caught.value.wire_code == 503


async def test_wrong_arguments_of_a_client() -> None:
    for url in ("tcp://127.0.0.1:1", "nonsense"):
        with pytest.raises(InvalidUrl):
            RpcClient(url)
    with pytest.raises(ValueError, match="timeout"):
        RpcClient("http://127.0.0.1:1", timeout=0)
    with pytest.raises(InvalidHeader):
        RpcClient("http://127.0.0.1:1", headers={"A": "b\r\nc"})
    client = RpcClient("ws://127.0.0.1:1")
    with pytest.raises(ConnectionClosed, match="enter it first"):
        await client.call("a")
    with pytest.raises(ConnectFailed):
        async with client:
            pass
    http = RpcClient("http://127.0.0.1:1")
    with pytest.raises(ConnectionClosed, match="enter it first"):
        await http.call("a")
    async with http:
        with pytest.raises(ConnectFailed):
            await http.call("a")
        with pytest.raises(BusyError):
            await http.__aenter__()
    assert "127.0.0.1" in repr(http) and "RpcClient" in repr(client)
