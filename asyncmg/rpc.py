"""JSON-RPC 2.0 servers: methods by name or pattern, over any connection or none; frames of Mongoose as well."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from .connection import Connection
from .errors import ConnectionClosed
from .events import MG_EV_CLOSE, MG_EV_HTTP_MSG, MG_EV_WS_MSG
from .messages import HttpMessage
from .rpc_lane import Lane, Work
from .rpc_messages import (
    ABSENT,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    MAX_ECHO,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    RpcError,
    RpcReq,
    decode,
    encode,
    error_frame,
    is_response,
    text_of,
    unreadable,
)
from .rpc_methods import Method, Methods, RpcHandler

logger = logging.getLogger("asyncmg.rpc")

F = TypeVar("F", bound=Callable[..., Any])
Frame = str | bytes | bytearray | memoryview

_CONTENT_TYPES = frozenset({"application/json", "application/json-rpc", "application/jsonrequest"})
_JSON = (("Content-Type", "application/json"),)


class Rpc:
    """Methods that can be called by JSON-RPC::

        rpc = Rpc()

        @rpc.method
        async def add(a, b):
            return a + b

        def handler(conn, ev, data):
            if ev == MG_EV_HTTP_MSG and data.uri == "/ws":
                conn.ws_upgrade(data)
            else:
                rpc.serve(conn, ev, data)

    An answer has ``"jsonrpc":"2.0"`` when the request has it; without it requests and answers are those of Mongoose.
    Notifications, which have no id, get no answer, not even an error.

    Args:
        max_frame: bytes of a frame: -32600.
        max_depth: arrays and objects within each other: -32700.
        max_batch: requests of a batch: -32600.
        max_concurrent: calls of one connection, or batch, that are under way at the same time; the others wait. (When
            1000 frames do, or four times ``max_frame``, because reading could not be stopped, further ones get -32000.)
        expose_errors: what a handler raises is told to the caller, as cymongoose does; otherwise it is logged and the
            caller is told "Internal error". (The texts of exceptions hold paths, queries and other people's data.)
        error_handler: called with every exception that a handler raises, but RpcError; default: they are logged.
    """

    __slots__ = (
        "__weakref__",
        "_error_handler",
        "_expose_errors",
        "_lanes",
        "_methods",
        "max_batch",
        "max_concurrent",
        "max_depth",
        "max_frame",
    )

    def __init__(
        self,
        *,
        max_frame: int = 1 << 20,
        max_depth: int = 64,
        max_batch: int = 100,
        max_concurrent: int = 16,
        expose_errors: bool = False,
        error_handler: Callable[[Exception], Any] | None = None,
    ) -> None:
        for name, value in (
            ("max_frame", max_frame),
            ("max_depth", max_depth),
            ("max_batch", max_batch),
            ("max_concurrent", max_concurrent),
        ):
            if value < 1:
                raise ValueError(f"{name} must be positive, not {value!r}")
        self.max_frame = max_frame
        self.max_depth = max_depth
        self.max_batch = max_batch
        self.max_concurrent = max_concurrent
        self._expose_errors = expose_errors
        self._error_handler = error_handler
        self._methods = Methods()
        self._lanes: WeakKeyDictionary[Connection, Lane] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<Rpc of {len(self.methods)} methods>"

    # -- methods -------------------------------------------------------------------------------------------------

    def add(self, method: str, handler: RpcHandler) -> None:
        """Register a handler, called as ``handler(req)``, plain or async.

        It answers by ``req.ok()`` or ``req.err()``, by returning a value other than None, or by raising RpcError.

        Args:
            method: a name, or a pattern of :func:`asyncmg.match`; ``req.captures`` has what its wildcards stand for.
                Of those that fit the one that was added last is called.
            handler: a plain one runs in the loop: it must not block.

        Raises:
            TypeError: the method is not a str, or the handler is not callable.
        """
        self._methods.add(method, handler)

    def method(self, function: F | str) -> Any:
        """Register the decorated function under its name, or under another: ``@rpc.method("math.add")``.

        It is called with the parameters of the call, by position or by name, plain or async; what it returns is the
        result. Parameters that do not fit get -32602.

        Raises:
            TypeError: it is not callable.
        """
        if isinstance(function, str):
            return functools.partial(self._methods.bind, function)
        return self._methods.bind(getattr(function, "__name__", ""), function)

    @property
    def methods(self) -> list[str]:
        """Names and patterns, the one added last first."""
        return self._methods.patterns

    # -- frames --------------------------------------------------------------------------------------------------

    def process(self, frame: Frame) -> str:
        """Call what a frame asks for; it may be a batch.

        Args:
            frame: a str, or UTF-8. Bytes that are no JSON are answered with an error as well: nothing is raised.

        Returns:
            the answer, "" when there is none because the frame has notifications only. An async method is not called:
            the answer is an error that says so.

        Raises:
            TypeError: the frame is neither a str nor bytes.
        """
        outcome = self.begin(frame, None, 0)
        assert isinstance(outcome, str)  # with no places nothing waits
        return outcome

    async def process_async(self, frame: Frame, conn: Connection | None = None) -> str:
        """The same for methods that may be async; those of a batch run at the same time.

        Cancelling it cancels the methods that are under way.

        Args:
            frame: as in :meth:`process`.
            conn: what ``req.conn`` will be.
        """
        outcome = self.begin(frame, conn, self.max_concurrent)
        return outcome if isinstance(outcome, str) else await outcome.answer

    def begin(self, frame: Frame, conn: Connection | None, places: int) -> str | Work:
        """Begin with a frame; what has to wait is returned as Work.

        Args:
            places: how many calls may wait at the same time; 0: none may.
        """
        try:
            text = text_of(frame)
            # Characters are at most as many as bytes.
            if len(text) > self.max_frame or (not text.isascii() and len(text.encode()) > self.max_frame):
                limit = f"larger than max_frame={self.max_frame}"
                return error_frame("", '"jsonrpc"' in text[:1000], INVALID_REQUEST, "Invalid Request", encode(limit))
            message = decode(text, self.max_depth)
        except UnicodeDecodeError as exc:
            return error_frame("", False, PARSE_ERROR, f"not UTF-8: {exc.reason}")
        except UnicodeEncodeError:
            return error_frame("", False, PARSE_ERROR, "not UTF-8: lone surrogates")
        except ValueError as exc:
            return unreadable(text, str(exc))
        if isinstance(message, list):
            return self._begin_batch(message, conn, places)
        if not isinstance(message, dict):
            return unreadable(text, "not an object")
        outcome = self._begin_call(message, text, conn, places)
        return outcome if isinstance(outcome, str) else Work(outcome, 1)

    def _begin_batch(self, messages: list[Any], conn: Connection | None, places: int) -> str | Work:
        """Batches (section 6): the answers in the order of the requests, whatever the order they are done in."""
        if not messages or len(messages) > self.max_batch:
            data = f"more than max_batch={self.max_batch}" if messages else "an empty batch"
            return error_frame("", True, INVALID_REQUEST, "Invalid Request", encode(data))
        if places:
            places = min(places, len(messages))
            return Work(self._answer_batch(messages, conn, places), places)
        answers = [self._begin_call(message, "", conn, 0) for message in messages]
        return _joined([answer for answer in answers if isinstance(answer, str)])

    async def _answer_batch(self, messages: list[Any], conn: Connection | None, workers: int) -> str:
        answers = [""] * len(messages)
        numbered = enumerate(messages)

        async def work(numbered: Iterator[tuple[int, Any]]) -> None:
            for number, message in numbered:
                outcome = self._begin_call(message, "", conn, 1)
                answers[number] = outcome if isinstance(outcome, str) else await outcome

        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work(numbered), name="asyncmg-rpc-batch")
        return _joined(answers)

    def _begin_call(
        self, message: Any, frame: str, conn: Connection | None, places: int
    ) -> str | Coroutine[Any, Any, str]:
        """Answer one request, or begin to.

        Args:
            frame: its text; "" in a batch.
        """
        if type(message) is not dict:
            return error_frame("", True, INVALID_REQUEST, "Invalid Request")
        method, id_ = message.get("method", ABSENT), message.get("id", ABSENT)
        id_json = "" if id_ is ABSENT else _id_json(id_)
        is_2 = "jsonrpc" in message
        if conn is not None and method is ABSENT and is_response(message) and not self._methods.takes_answers:
            return ""  # an answer: nobody here has asked
        if is_2:
            problem = _problem(message)
            if problem:
                if not isinstance(id_, str | int | float) or isinstance(id_, bool):
                    id_json = ""
                return error_frame(id_json, True, INVALID_REQUEST, "Invalid Request", encode(problem))
        elif not isinstance(method, str):
            if not frame:
                return error_frame("", True, INVALID_REQUEST, "Invalid Request")
            if method is not ABSENT or not is_response(message):
                return error_frame(id_json, False, PARSE_ERROR, frame[:MAX_ECHO])
            method = ""  # Mongoose: an answer is a call of the method without a name
        entry, captures = self._methods.find(method)
        if entry is None:
            text = "Method not found" if is_2 else f"{method} not found"
            return error_frame(id_json, is_2, METHOD_NOT_FOUND, text) if id_json else ""
        return self._call(entry, RpcReq(message, frame, method, captures, conn, id_json, is_2), places)

    def _call(self, entry: Method, req: RpcReq, places: int) -> str | Coroutine[Any, Any, str]:
        if entry.is_async and not places:
            req.fail(INTERNAL_ERROR, f"{entry.pattern} is async: it needs process_async() or serve()")
            return req.end()
        try:
            result = entry.handler(req)
            if result is not None and inspect.isawaitable(result):
                if places:
                    return self._finish(entry, req, result)
                if inspect.iscoroutine(result):
                    result.close()
                req.fail(INTERNAL_ERROR, f"{entry.pattern} is async: it needs process_async() or serve()")
            elif result is not None or entry.null_is_result:
                req.settle(result)
        except asyncio.CancelledError as exc:
            self._handle_failure(req, RuntimeError("a method asked for the result of something cancelled"), exc)
        except Exception as exc:
            self._handle_failure(req, exc)
        return req.end()

    async def _finish(self, entry: Method, req: RpcReq, awaited: Any) -> str:
        try:
            result = await awaited
            if result is not None or entry.null_is_result:
                req.settle(result)
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._handle_failure(req, RuntimeError("a method awaited something that was cancelled"), exc)
        except Exception as exc:
            self._handle_failure(req, exc)
        return req.end()

    def _handle_failure(self, req: RpcReq, error: Exception, cause: BaseException | None = None) -> None:
        if isinstance(error, RpcError):
            try:
                req.fail(error.code, error.message, error.data)
                return
            except (TypeError, ValueError) as exc:  # its data cannot be JSON
                error = exc
        if cause is not None:
            error.__cause__ = cause
        req.fail(INTERNAL_ERROR, str(error) if self._expose_errors else "Internal error")
        if self._error_handler is not None:
            try:
                self._error_handler(error)
                return
            except Exception as exc:
                logger.error("error_handler raised", exc_info=exc)
        logger.error("method %s raised: %s", req.method, error, exc_info=error)

    def refusal(self, frame: Frame, code: int, reason: str) -> str:
        """The answer to a frame whose methods are not called, because we cannot now."""
        try:
            message = decode(text_of(frame), self.max_depth)
        except ValueError:
            return ""
        messages = message if isinstance(message, list) else [message]
        if len(messages) > self.max_batch:
            return error_frame("", True, code, reason)
        answers = []
        for one in messages:
            if isinstance(one, dict) and "method" in one and "id" in one:
                answers.append(error_frame(_id_json(one["id"]), "jsonrpc" in one, code, reason))
        return _joined(answers) if isinstance(message, list) else "".join(answers)

    # -- connections ---------------------------------------------------------------------------------------------

    def serve(self, conn: Connection, ev: int, data: Any) -> bool:
        """Serve an event of a connection: to be called in a handler, plain or async, or to be one.

        Each MG_EV_WS_MSG is a frame; its answer is sent as text. MG_EV_HTTP_MSG with POST and JSON is replied to with
        200 and the answer, or 204 when there is none, another method with 405, another type with 415. (That a page of
        another origin cannot send JSON without asking first protects you from such pages; WebSockets need the
        ``origins`` of ``ws_upgrade``.)

        Plain methods are called in the order of their calls, and answered in it. Async ones begin in that order in the
        loop's next turn, run at the same time, ``max_concurrent`` of a connection, and answer when they are done.
        Reading stops while more wait, or while the peer does not take its answers. MG_EV_CLOSE cancels what is under
        way. Nothing is raised when the connection has closed meanwhile.

        Returns:
            whether the event was a message that is served by this. (Answers are no calls: they are dropped.)
        """
        if ev == MG_EV_WS_MSG:
            self._lane(conn).take(data.text if data.opcode == 1 else data.data)
            return True
        if ev == MG_EV_HTTP_MSG and not conn.is_client:
            self._serve_http(conn, data)
            return True
        if ev == MG_EV_CLOSE:
            lane = self._lanes.pop(conn, None)
            if lane is not None:
                lane.cancel()
        return False

    def _lane(self, conn: Connection) -> Lane:
        lane = self._lanes.get(conn)
        if lane is None:
            lane = self._lanes[conn] = Lane(self, conn)
        return lane

    def _serve_http(self, conn: Connection, request: HttpMessage) -> None:
        content_type = (request.header("Content-Type") or "").partition(";")[0].strip().lower()
        try:
            if request.method != "POST":
                conn.reply(405, "POST a JSON-RPC request\n", {"Allow": "POST"})
            elif content_type not in _CONTENT_TYPES:
                conn.reply(415, "the request is JSON: application/json\n", {"Accept-Post": "application/json"})
            else:
                outcome = self.begin(request.body_bytes, conn, self.max_concurrent)
                if isinstance(outcome, Work):
                    self._lane(conn).run(conn, outcome, functools.partial(_reply, conn))
                else:
                    _reply(conn, outcome)
        except ConnectionClosed:
            pass  # there is nobody to be told


def _reply(conn: Connection, answer: str) -> None:
    if answer:
        conn.reply(200, answer, _JSON)
    else:
        conn.reply(204)


def _joined(answers: list[str]) -> str:
    answers = [answer for answer in answers if answer]
    return f"[{','.join(answers)}]" if answers else ""


def _id_json(id_: Any) -> str:
    try:
        return encode(id_)
    except ValueError:  # a number such as 1e400
        return ""


def _problem(message: dict[str, Any]) -> str:
    """Why a message is no request of JSON-RPC 2.0 (section 4); "" when it is one."""
    if message["jsonrpc"] != "2.0":
        return "jsonrpc is not 2.0"
    if not isinstance(message.get("method"), str):
        return "method is not a string"
    id_ = message.get("id")
    if isinstance(id_, bool | list | dict) or (isinstance(id_, float) and not _id_json(id_)):
        return "id is neither a string nor a number"
    if "params" in message and not isinstance(message["params"], list | dict):
        return "params is neither an array nor an object"
    return ""
