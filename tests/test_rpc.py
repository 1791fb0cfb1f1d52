"""JSON-RPC frames: the specification's own examples, Mongoose's wire, limits, and what handlers may do."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncmg import AsyncmgError, LocalProtocolError
from asyncmg.rpc import Rpc
from asyncmg.rpc_messages import RpcError, RpcReq, decode, request_frame


def call(method: str, params: Any = None, id_: Any = 1, *, version: str | None = "2.0") -> str:
    message: dict[str, Any] = {"jsonrpc": version} if version else {}
    message |= {"method": method} | ({"params": params} if params is not None else {})
    return json.dumps(message | ({"id": id_} if id_ is not None else {}))


# -- JSON-RPC 2.0 -----------------------------------------------------------------------------------------------------


def specification() -> Rpc:
    """The server of the examples (section 7)."""
    rpc = Rpc()
    rpc.method(subtract)
    rpc.method("update")(lambda *numbers: None)
    rpc.method("notify_sum")(lambda *numbers: sum(numbers))
    rpc.method("notify_hello")(lambda *numbers: None)
    rpc.method("sum")(lambda *numbers: sum(numbers))
    rpc.method("get_data")(lambda: ["hello", 5])
    return rpc


def subtract(minuend: int, subtrahend: int) -> int:
    return minuend - subtrahend


PARSE = {"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": None}
INVALID = {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": None}


def no_method(id_: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": id_}


def result(value: Any, id_: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "result": value, "id": id_}


EXAMPLES = [
    ('{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}', result(19, 1)),
    ('{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}', result(-19, 2)),
    (
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
        result(19, 3),
    ),
    ('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None),
    ('{"jsonrpc": "2.0", "method": "foobar"}', None),
    ('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}', no_method("1")),
    ('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', PARSE),
    ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', INVALID),
    ('[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},{"jsonrpc": "2.0", "method"]', PARSE),
    ("[]", INVALID),
    ("[1]", [INVALID]),
    ("[1,2,3]", [INVALID, INVALID, INVALID]),
    (
        '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},'
        '{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},'
        '{"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},'
        '{"foo": "boo"},'
        '{"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},'
        '{"jsonrpc": "2.0", "method": "get_data", "id": "9"}]',
        [result(7, "1"), result(19, "2"), INVALID, no_method("5"), result(["hello", 5], "9")],
    ),
    (
        '[{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},'
        '{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]',
        None,
    ),
]


def without_data(answer: Any) -> Any:
    """The examples have no ``data`` in errors."""
    for one in answer if isinstance(answer, list) else [answer]:
        if isinstance(one, dict) and "error" in one:
            one["error"].pop("data", None)
    return answer


@pytest.mark.parametrize(("frame", "expected"), EXAMPLES, ids=[frame[:60] for frame, _ in EXAMPLES])
def test_examples_of_the_specification(frame: str, expected: Any) -> None:
    rpc = specification()
    for answer in (rpc.process(frame), rpc.process(frame.encode()), asyncio.run(rpc.process_async(frame))):
        assert (without_data(json.loads(answer)) if answer else None) == expected


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("jsonrpc", "1.0"),
        ("jsonrpc", 2.0),
        ("method", 5),
        ("method", None),
        ("params", 3),
        ("params", "text"),
        ("params", None),
        ("id", True),
        ("id", [1]),
        ("id", {}),
    ],
)
def test_what_is_no_request(member: str, value: Any) -> None:
    message = {"jsonrpc": "2.0", "method": "sum", "params": [1], "id": 7} | {member: value}
    answer = json.loads(specification().process(json.dumps(message)))
    assert answer["error"]["code"] == -32600
    assert answer["id"] == (None if member == "id" else 7)


@pytest.mark.parametrize("id_", [0, -5, 2**70, 1.5, "", 'a"b', "grüß", "\ud800"])
def test_ids_come_back(id_: Any) -> None:
    assert json.loads(specification().process(call("sum", [1, 2], id_))) == result(3, id_)


def test_null_is_an_id() -> None:
    assert json.loads(specification().process('{"jsonrpc":"2.0","method":"sum","id":null}')) == result(0, None)


def test_numbers_that_json_cannot_carry() -> None:
    rpc = specification()
    assert json.loads(rpc.process('{"jsonrpc":"2.0","method":"sum","id":1e400}'))["id"] is None
    for number in ("NaN", "Infinity", "-Infinity", "9" * 5000):
        frame = f'{{"jsonrpc":"2.0","method":"sum","params":[{number}],"id":1}}'
        assert json.loads(rpc.process(frame))["error"]["code"] == -32700


@pytest.mark.parametrize("params", [[1], [1, 2, 3], {"minuend": 1}, {"minuend": 1, "subtrahend": 2, "x": 3}, None])
def test_parameters_that_do_not_fit(params: Any) -> None:
    answer = json.loads(specification().process(call("subtract", params)))
    assert (answer["error"]["code"], answer["error"]["message"]) == (-32602, "Invalid params")
    assert isinstance(answer["error"]["data"], str)


def test_a_type_error_inside_a_method_is_not_about_parameters(caplog: pytest.LogCaptureFixture) -> None:
    answer = json.loads(specification().process(call("subtract", [1, "a"])))
    assert answer["error"] == {"code": -32603, "message": "Internal error"}
    assert "unsupported operand" in caplog.text


# -- Mongoose's wire: what cymongoose 0.2.5 has answered to these frames --------------------------------------------


def mongoose(**options: Any) -> Rpc:
    rpc = Rpc(**options)
    rpc.add("ok", lambda req: req.ok("5"))
    rpc.add("echo", lambda req: req.ok(json.dumps(req.frame)))
    rpc.add("er", lambda req: req.err(-5, 'bad "q" \n é'))
    rpc.add("silent", lambda req: None)
    rpc.add("boom", raise_boom)
    rpc.add("glob.*", lambda req: req.ok("5"))
    rpc.add("h#", lambda req: req.ok("5"))
    rpc.add("ok2", lambda req: req.ok('"first"'))
    rpc.add("ok2", lambda req: req.ok("5"))
    return rpc


def raise_boom(req: RpcReq) -> None:
    raise ValueError("boom")


ANSWERS = [
    ('{"id":1,"method":"ok"}', '{"id":1,"result":5}'),
    ('{"id":1,"method":"echo"}', '{"id":1,"result":"{\\"id\\":1,\\"method\\":\\"echo\\"}"}'),
    ('{"id":1,"method":"er"}', '{"id":1,"error":{"code":-5,"message":"bad \\"q\\" \\n \\u00e9"}}'),
    ('{"id":1,"method":"silent"}', '{"id":1,"error":{"code":-32603,"message":"handler produced no response"}}'),
    ('{"id":1,"method":"boom"}', '{"id":1,"error":{"code":-32603,"message":"boom"}}'),
    ('{"id":1,"method":"glob.x"}', '{"id":1,"result":5}'),
    ('{"id":1,"method":"glob.x/y"}', '{"id":1,"error":{"code":-32601,"message":"glob.x/y not found"}}'),
    ('{"id":1,"method":"hx/y"}', '{"id":1,"result":5}'),
    ('{"id":1,"method":"ok2"}', '{"id":1,"result":5}'),
    ('{"id":1,"method":"nope"}', '{"id":1,"error":{"code":-32601,"message":"nope not found"}}'),
    ('{"method":"ok"}', ""),
    ('{"id":null,"method":"ok"}', '{"id":null,"result":5}'),
    ('{"id":"a\\"b","method":"ok"}', '{"id":"a\\"b","result":5}'),
    ('{"id":true,"method":"ok"}', '{"id":true,"result":5}'),
    ('{"id":1,"method":"ok","params":3}', '{"id":1,"result":5}'),
    ('  {"id":1,"method":"ok"}', '{"id":1,"result":5}'),
    ("x", '{"error":{"code":-32700,"message":"x"}}'),
    ("", '{"error":{"code":-32700,"message":""}}'),
    ("5", '{"error":{"code":-32700,"message":"5"}}'),
    ('"x"', '{"error":{"code":-32700,"message":"\\"x\\""}}'),
    ('{"id":1}', '{"id":1,"error":{"code":-32700,"message":"{\\"id\\":1}"}}'),
    ('{"id":1,"method":5}', '{"id":1,"error":{"code":-32700,"message":"{\\"id\\":1,\\"method\\":5}"}}'),
    ('{"id":1,"method":""}', '{"id":1,"error":{"code":-32601,"message":" not found"}}'),
    ('{"id":1,"result":3}', '{"id":1,"error":{"code":-32601,"message":" not found"}}'),
]


@pytest.mark.parametrize(("frame", "expected"), ANSWERS, ids=[frame[:40] for frame, _ in ANSWERS])
def test_answers_of_mongoose(frame: str, expected: str) -> None:
    rpc = mongoose(expose_errors=True)
    assert rpc.process(frame) == expected
    assert rpc.process(bytearray(frame.encode())) == expected


def test_methods_the_newest_first() -> None:
    assert mongoose().methods == ["ok2", "ok2", "h#", "glob.*", "boom", "silent", "er", "echo", "ok"]


def test_a_notification_gets_no_answer_not_even_an_error() -> None:
    for method in ("ok", "er", "silent", "nope"):
        assert mongoose().process(call(method, id_=None, version=None)) == ""
        assert mongoose().process(call(method, id_=None)) == ""


def test_answers_can_be_given_to_a_method_without_a_name() -> None:
    rpc, taken = mongoose(), []
    rpc.add("", lambda req: taken.append(req.frame))
    rpc.process('{"id":1,"result":3}')
    assert taken == ['{"id":1,"result":3}']


def test_what_is_behind_a_frame_is_refused() -> None:
    assert json.loads(mongoose().process('{"id":1,"method":"ok"} rest'))["error"]["code"] == -32700


def test_only_the_beginning_of_what_cannot_be_read_comes_back() -> None:
    assert json.loads(mongoose().process("x" * 100_000))["error"]["message"] == "x" * 1000


# -- handlers ---------------------------------------------------------------------------------------------------------


def test_what_a_request_knows() -> None:
    seen: list[RpcReq] = []
    rpc = Rpc()
    rpc.add("a.*/#", seen.append)
    frame = '{"jsonrpc": "2.0", "method": "a.b/c/d", "params": {"x": 1}, "id": 4}'
    rpc.process(frame)
    rpc.process(f"[{frame}]")
    rpc.process(call("a.b/", id_=None))
    for req in seen[:2]:
        assert (req.method, req.params, req.captures, req.conn) == ("a.b/c/d", {"x": 1}, ["b", "c/d"], None)
        assert not req.is_notification and json.loads(req.frame) == json.loads(frame)
    assert seen[0].frame == frame
    assert seen[2].is_notification and seen[2].params is None
    assert "a.b/c/d" in repr(seen[0])


def test_a_request_is_answered_once() -> None:
    kept: list[RpcReq] = []

    def handler(req: RpcReq) -> None:
        kept.append(req)
        assert not req.is_answered
        req.ok('"first"')
        assert req.is_answered
        for again in (lambda: req.ok("2"), lambda: req.err(1, "x")):
            with pytest.raises(LocalProtocolError, match="Response already sent") as caught:
                again()
            assert isinstance(caught.value, RuntimeError)

    rpc = Rpc()
    rpc.add("m", handler)
    assert json.loads(rpc.process(call("m"))) == result("first", 1)
    with pytest.raises(RuntimeError, match="RpcReq is no longer valid"):
        kept[0].ok("1")
    with pytest.raises(RuntimeError, match="RpcReq is no longer valid"):
        kept[0].err(1, "x")
    assert kept[0].frame  # it owns its bytes


@pytest.mark.parametrize("text", ["{oops", "", "1 2", "NaN", "'a'", "[1,]", "[" * 100_000, '"\ud800"', "\x00"])
def test_what_is_not_json_is_not_sent(text: str) -> None:
    rpc = Rpc()

    def handler(req: RpcReq) -> None:
        with pytest.raises(ValueError):
            req.ok(text)
        req.ok('{"a": [1, "ü"]}')

    rpc.add("m", handler)
    assert rpc.process(call("m")) == '{"jsonrpc":"2.0","id":1,"result":{"a": [1, "ü"]}}'


def test_wrong_types_of_arguments() -> None:
    rpc = Rpc()

    def handler(req: RpcReq) -> None:
        for wrong in (lambda: req.ok(5), lambda: req.err("x", "y"), lambda: req.err(1, 2), lambda: req.ok(b"1")):  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                wrong()
        req.ok("1")

    rpc.add("m", handler)
    assert json.loads(rpc.process(call("m"))) == result(1, 1)
    for wrong in (5, None, [1]):
        with pytest.raises(TypeError):
            rpc.process(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        rpc.add(5, handler)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        rpc.add("x", 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        rpc.method(5)  # type: ignore[arg-type]
    for name in ("max_frame", "max_depth", "max_batch", "max_concurrent"):
        with pytest.raises(ValueError, match=name):
            Rpc(**{name: 0})


def test_a_handler_may_return_its_result() -> None:
    rpc = Rpc()
    rpc.add("list", lambda req: [req.params, "ü"])
    rpc.add("zero", lambda req: 0)
    rpc.method("null")(lambda: None)
    rpc.add("nothing", lambda req: None)
    rpc.add("not json", lambda req: {1, 2})
    rpc.add("nan", lambda req: float("nan"))
    assert json.loads(rpc.process(call("list", [3]))) == result([[3], "ü"], 1)
    assert json.loads(rpc.process(call("zero"))) == result(0, 1)
    assert json.loads(rpc.process(call("null"))) == result(None, 1)
    assert json.loads(rpc.process(call("nothing")))["error"]["code"] == -32603
    assert json.loads(rpc.process(call("not json")))["error"]["code"] == -32603
    assert json.loads(rpc.process(call("nan")))["error"]["code"] == -32603


def test_a_handler_may_raise_an_error() -> None:
    rpc = Rpc()

    def fail(req: RpcReq) -> None:
        raise RpcError(3, "no such user", {"user": 5})

    def fail_badly(req: RpcReq) -> None:
        raise RpcError(3, "x", {1, 2})

    rpc.add("fail", fail)
    rpc.add("badly", fail_badly)
    error = {"code": 3, "message": "no such user", "data": {"user": 5}}
    assert json.loads(rpc.process(call("fail")))["error"] == error
    assert json.loads(rpc.process(call("fail", version=None))) == {"id": 1, "error": error}
    assert json.loads(rpc.process(call("badly")))["error"]["code"] == -32603
    assert issubclass(RpcError, AsyncmgError)


def test_what_a_handler_raises_is_not_told_unless_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = []
    assert (
        json.loads(mongoose(error_handler=errors.append).process(call("boom")))["error"]["message"] == "Internal error"
    )
    assert [str(error) for error in errors] == ["boom"] and not caplog.records
    assert json.loads(mongoose(expose_errors=True).process(call("boom")))["error"]["message"] == "boom"
    assert "boom" in caplog.text
    caplog.clear()

    def fail(error: Exception) -> None:
        raise KeyError("also wrong")

    assert json.loads(mongoose(error_handler=fail).process(call("boom")))["error"]["code"] == -32603
    assert "also wrong" in caplog.text and "boom" in caplog.text
    assert all(record.levelno == logging.ERROR and record.name == "asyncmg.rpc" for record in caplog.records)


def test_the_method_that_was_added_last() -> None:
    rpc = Rpc()
    rpc.add("a.b", lambda req: 1)
    rpc.add("a.*", lambda req: 2)
    assert json.loads(rpc.process(call("a.b")))["result"] == 2
    rpc.add("a.b", lambda req: 3)
    assert [json.loads(rpc.process(call(name)))["result"] for name in ("a.b", "a.c")] == [3, 2]
    rpc.add("#", lambda req: 4)
    assert json.loads(rpc.process(call("a.b")))["result"] == 4


# -- async handlers ---------------------------------------------------------------------------------------------------


def test_process_tells_that_a_method_is_async() -> None:
    rpc = Rpc()
    began = []

    @rpc.method
    async def later(x: int) -> int:
        began.append(x)
        return x

    rpc.add("hidden", lambda req: later(5))  # a coroutine that nobody could see coming
    for frame in (call("later", [1]), call("hidden"), f"[{call('later', [1])}]"):
        answer = json.loads(rpc.process(frame))
        error = (answer[0] if isinstance(answer, list) else answer)["error"]
        assert error["code"] == -32603 and "process_async" in error["message"]
    assert began == []
    assert asyncio.run(later(2)) == 2  # what is decorated stays what it is


async def test_async_handlers() -> None:
    rpc = Rpc()

    class Later:
        async def __call__(self, req: RpcReq) -> int:
            return 7

    async def by_ok(req: RpcReq) -> None:
        await asyncio.sleep(0)
        req.ok('"done"')

    async def fail(req: RpcReq) -> None:
        await asyncio.sleep(0)
        raise RpcError(9, "nine")

    async def boom(req: RpcReq) -> None:
        raise ValueError("boom")

    async def cancelled(req: RpcReq) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    rpc.add("object", Later())
    rpc.add("ok", by_ok)
    rpc.add("fail", fail)
    rpc.add("boom", boom)
    rpc.add("cancelled", cancelled)
    assert json.loads(await rpc.process_async(call("object"))) == result(7, 1)
    assert json.loads(await rpc.process_async(call("ok"))) == result("done", 1)
    assert json.loads(await rpc.process_async(call("fail")))["error"] == {"code": 9, "message": "nine"}
    assert json.loads(await rpc.process_async(call("boom")))["error"]["code"] == -32603
    assert json.loads(await rpc.process_async(call("cancelled")))["error"]["code"] == -32603
    assert await rpc.process_async(call("ok", id_=None)) == ""


async def test_a_plain_method_that_asks_for_what_was_cancelled() -> None:
    rpc = Rpc()
    rpc.method("add")(lambda a, b: a + b)

    @rpc.method
    def cancelled() -> Any:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        return future.result()

    for answer in (rpc.process(call("cancelled")), await rpc.process_async(call("cancelled"))):
        assert json.loads(answer)["error"]["code"] == -32603
    both = f"[{call('cancelled', id_=1)},{call('add', [1, 2], id_=2)}]"
    for answer in (rpc.process(both), await rpc.process_async(both)):
        assert [one.get("result") for one in json.loads(answer)] == [None, 3]


async def test_cancelling_reaches_the_method() -> None:
    rpc, ended = Rpc(), []

    @rpc.method
    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    for frame in (call("wait"), f"[{call('wait')},{call('wait')}]"):
        ended.clear()
        task = asyncio.create_task(rpc.process_async(frame))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended and all(ended)


async def test_a_batch_runs_at_the_same_time_up_to_the_limit() -> None:
    rpc = Rpc(max_concurrent=3)
    running, most = 0, 0

    @rpc.method
    async def work(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (10 - n))
        running -= 1
        return n

    frame = f"[{','.join(call('work', [n], n) for n in range(10))}]"
    answers = json.loads(await rpc.process_async(frame))
    assert [answer["result"] for answer in answers] == list(range(10))  # in their order all the same
    assert most == 3


# -- limits -----------------------------------------------------------------------------------------------------------


def test_max_frame() -> None:
    rpc = Rpc(max_frame=60)
    fits = call("x", id_=1).ljust(60)
    assert json.loads(rpc.process(fits))["error"]["code"] == -32601
    for frame in (fits + " ", (fits + " ").encode(), '"' + "ü" * 30 + '"'):  # the last one has 32 characters, 62 bytes
        assert json.loads(rpc.process(frame))["error"]["code"] == -32600


def test_max_depth() -> None:
    rpc = Rpc(max_depth=5)
    rpc.method("m")(lambda *a: len(a))
    assert json.loads(rpc.process(call("m", [[[[]]]])))["result"] == 1
    assert json.loads(rpc.process(call("m", [[[[[]]]]])))["error"]["code"] == -32700
    assert json.loads(rpc.process(call("m", ["[[[[[[[["])))["result"] == 1  # in a string they do not count
    assert json.loads(rpc.process(call("m", [[]] * 50)))["result"] == 50
    for deep in ("[" * 200_000, "[" * 200_000 + "]" * 200_000, '{"a":' * 200_000):
        answer = json.loads(Rpc().process(deep))
        assert (answer[0] if isinstance(answer, list) else answer)["error"]["code"] == -32700


def test_what_is_nested_too_deeply_to_be_sent() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    def fail(req: RpcReq) -> None:
        raise RpcError(1, "deep", deep)

    def err(req: RpcReq) -> None:
        with pytest.raises(ValueError, match="deeply"):
            req.err(1, "deep", deep)
        req.ok("1")

    rpc = Rpc()
    rpc.add("value", lambda req: deep)
    rpc.add("fail", fail)
    rpc.add("err", err)
    assert [json.loads(rpc.process(call(name)))["error"]["code"] for name in ("value", "fail")] == [-32603, -32603]
    assert json.loads(rpc.process(call("err")))["result"] == 1
    with pytest.raises(ValueError, match="deeply"):
        request_frame("m", [deep], 1)


def test_long_names_are_not_held_against_patterns() -> None:
    """Peers choose them: a name of 1 MB would hold up everybody for as long as there are patterns."""
    rpc = Rpc()
    rpc.add("#", lambda req: len(req.method))
    long = "x" * 5000
    rpc.add(long, lambda req: "by name")
    assert json.loads(rpc.process(call("x" * 1000)))["result"] == 1000
    assert json.loads(rpc.process(call("x" * 1001)))["error"]["code"] == -32601
    assert json.loads(rpc.process(call(long)))["result"] == "by name"


def test_a_refusal_is_not_larger_than_what_is_refused() -> None:
    rpc = Rpc(max_batch=10)
    one = '{"method":"a","id":1}'
    assert len(json.loads(rpc.refusal(f"[{','.join([one] * 10)}]", -32000, "busy"))) == 10
    answer = json.loads(rpc.refusal(f"[{','.join([one] * 11)}]", -32000, "busy"))
    assert (answer["id"], answer["error"]["code"]) == (None, -32000)


def test_max_batch() -> None:
    rpc = Rpc(max_batch=2)
    rpc.add("m", lambda req: 1)
    assert len(json.loads(rpc.process(f"[{call('m')},{call('m')}]"))) == 2
    assert json.loads(rpc.process(f"[{call('m')},{call('m')},{call('m')}]"))["error"]["code"] == -32600


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
MEMBERS = st.dictionaries(st.sampled_from(["jsonrpc", "method", "params", "id", "result", "error"]), JSON)


@given(
    st.text()
    | st.binary()
    | MEMBERS.map(json.dumps)
    | st.lists(MEMBERS | JSON, max_size=4).map(json.dumps)
    | MEMBERS.map(lambda m: json.dumps(m | {"jsonrpc": "2.0", "method": "m"}))
)
def test_every_frame_has_an_answer_that_is_json_or_none(frame: str | bytes) -> None:
    rpc = Rpc(error_handler=lambda error: None)
    rpc.add("m", lambda req: req.params)
    answer = rpc.process(frame)
    if answer:
        for one in (lambda a: a if isinstance(a, list) else [a])(decode(answer, 10_000)):
            assert ("result" in one) != ("error" in one)
    answer.encode()  # it can be sent
    assert asyncio.run(rpc.process_async(frame)) == answer
