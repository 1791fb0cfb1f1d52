"""JSON-RPC 2.0 messages, and those of Mongoose: the same without the member ``jsonrpc``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .errors import AsyncmgError, LocalProtocolError

#: Error codes (JSON-RPC 2.0 section 5.1).
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
BUSY: Final = -32000  # one of those left to implementations: too many calls wait

MAX_ECHO: Final = 1000  # characters of a frame that cannot be read that Mongoose's answer repeats
ABSENT: Final = object()  # a member that is not there, where None is a value


class RpcError(AsyncmgError):
    """A JSON-RPC error: raised by a method to be the answer, and by a client when it is.

    Attributes:
        code: -32700 and -32600 to -32603 are those of the specification, -32000 to -32099 the server's; the others
            are yours.
        message: one sentence.
        data: anything more that JSON can carry; None: nothing.
    """

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.data = data

    @classmethod
    def of(cls, error: Any) -> RpcError:
        """Make one of the member ``error`` of an answer, whatever the peer has put there."""
        if not isinstance(error, Mapping):
            return cls(INTERNAL_ERROR, f"not an error object: {encode(error)[:MAX_ECHO]}")
        code, message = error.get("code"), error.get("message")
        code = code if isinstance(code, int) and not isinstance(code, bool) else INTERNAL_ERROR
        return cls(code, message if isinstance(message, str) else "", error.get("data"))


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def encode(value: Any) -> str:
    """Make JSON. What is not ASCII leaves as escapes: a lone surrogate that a peer has sent can be sent back.

    Raises:
        TypeError, ValueError: JSON cannot carry it.
    """
    try:
        return f"{value}" if type(value) is int else _encode(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def decode(text: str, max_depth: int) -> Any:
    """Parse JSON (RFC 8259), without the extensions that Python knows (NaN, Infinity).

    Raises:
        ValueError: it is none, or arrays and objects are nested deeper than ``max_depth``.
    """
    try:
        value = _decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # Without so many brackets it cannot be that deep: nearly always.
    if text.count("[") + text.count("{") > max_depth and _is_deeper(value, max_depth):
        raise ValueError(f"nested deeper than max_depth={max_depth}")
    return value


def _is_deeper(value: Any, limit: int) -> bool:
    level = [value] if type(value) is dict or type(value) is list else []
    for _ in range(limit):
        if not level:
            return False
        level = [
            item
            for holder in level
            for item in (holder.values() if type(holder) is dict else holder)
            if type(item) is dict or type(item) is list
        ]
    return bool(level)


def text_of(frame: str | bytes | bytearray | memoryview) -> str:
    """Decode a frame.

    Raises:
        TypeError: it is neither text nor bytes.
        ValueError: it is not UTF-8.
    """
    return frame if isinstance(frame, str) else bytes(memoryview(frame)).decode()


def result_frame(id_: str, is_2: bool, result: str) -> str:
    """An answer (section 5).

    Args:
        id_: as JSON.
        is_2: the request has said that it is JSON-RPC 2.0.
        result: as JSON.
    """
    return f'{{"jsonrpc":"2.0","id":{id_},"result":{result}}}' if is_2 else f'{{"id":{id_},"result":{result}}}'


def error_frame(id_: str, is_2: bool, code: int, message: str, data: str = "") -> str:
    """An error (section 5.1).

    Args:
        id_: as JSON; "": not known, which is null in JSON-RPC 2.0 and left out by Mongoose.
        data: as JSON; "": none.
    """
    error = f'{{"code":{code:d},"message":{encode(message)}' + (f',"data":{data}}}' if data else "}")
    if is_2:
        return f'{{"jsonrpc":"2.0","id":{id_ or "null"},"error":{error}}}'
    return f'{{"id":{id_},"error":{error}}}' if id_ else f'{{"error":{error}}}'


def unreadable(text: str, reason: str) -> str:
    """The answer to what is not JSON: in words of the specification, or by repeating it as Mongoose does."""
    if '"jsonrpc"' in text:
        return error_frame("", True, PARSE_ERROR, "Parse error", encode(reason))
    return error_frame("", False, PARSE_ERROR, text[:MAX_ECHO])


def is_response(message: Any) -> bool:
    """Whether a message is an answer, which nobody may answer: two servers would never stop."""
    return isinstance(message, dict) and "method" not in message and ("result" in message or "error" in message)


def request_frame(method: str, params: Sequence[Any] | Mapping[str, Any], id_: int | None) -> str:
    """A request (section 4), a notification without id.

    Raises:
        TypeError, ValueError: the parameters cannot be JSON.
    """
    members = [f'"jsonrpc":"2.0","method":{encode(method)}']
    if params:
        members.append(f'"params":{encode(dict(params) if isinstance(params, Mapping) else list(params))}')
    if id_ is not None:
        members.append(f'"id":{id_}')
    return "{" + ",".join(members) + "}"


class RpcReq:
    """One call, as its handler gets it. Answer it by :meth:`ok`, :meth:`err`, a returned value or a raised RpcError.

    Attributes:
        method: its name.
        params: a list, a dict, or None without any. (Without ``"jsonrpc":"2.0"`` anything that JSON knows.)
        captures: what the wildcards of the handler's pattern stand for.
        is_notification: the caller wants no answer and gets none.
        conn: the connection that it came by; None: given to :meth:`Rpc.process`.
    """

    __slots__ = (
        "_answer",
        "_frame",
        "_id",
        "_is_2",
        "_is_over",
        "_message",
        "captures",
        "conn",
        "is_notification",
        "method",
        "params",
    )

    def __init__(
        self, message: dict[str, Any], frame: str, method: str, captures: list[str], conn: Any, id_: str, is_2: bool
    ) -> None:
        self.method = method
        self.params = message.get("params")
        self.captures = captures
        self.conn = conn
        self.is_notification = not id_
        self._message = message
        self._frame = frame
        self._id = id_
        self._is_2 = is_2
        self._answer: str | None = None
        self._is_over = False

    def __repr__(self) -> str:
        return f"<RpcReq {self.method!r} id={self._id or None}>"

    @property
    def frame(self) -> str:
        """The request as it came; of a batch this request alone. It stays valid."""
        return self._frame or encode(self._message)

    @property
    def is_answered(self) -> bool:
        """Whether :meth:`ok` or :meth:`err` has been called."""
        return self._answer is not None

    def ok(self, result_json: str) -> None:
        """Answer with a result.

        Args:
            result_json: as JSON text. To answer with a value return it from the handler.

        Raises:
            LocalProtocolError: the call has its answer, or its handler has returned. (It is a RuntimeError.)
            ValueError: it is not JSON, so that nobody could read the answer.
            TypeError: it is not a str.
        """
        self._require_open()
        if not isinstance(result_json, str):
            raise TypeError(f"the result is JSON text, not {type(result_json).__name__}: return it instead")
        try:
            _decode(result_json)
            result_json.encode()
        except (ValueError, RecursionError) as exc:
            raise ValueError(f"the result is not JSON: {exc}") from None
        self._answer = result_frame(self._id, self._is_2, result_json)

    def err(self, code: int, message: str, data: Any = None) -> None:
        """Answer with an error.

        Args:
            code: see :class:`RpcError`.
            message: one sentence.
            data: anything more that JSON can carry.

        Raises:
            LocalProtocolError: as :meth:`ok`.
            TypeError, ValueError: of an argument that cannot be sent.
        """
        self._require_open()
        for value, kind in ((code, int), (message, str)):
            if not isinstance(value, kind):
                raise TypeError(f"a code is an int and a message a str, not {type(value).__name__}")
        self._answer = error_frame(self._id, self._is_2, code, message, "" if data is None else encode(data))

    def _require_open(self) -> None:
        if self._is_over:
            raise LocalProtocolError("RpcReq is no longer valid")
        if self._answer is not None:
            raise LocalProtocolError("Response already sent")

    def settle(self, result: Any) -> None:
        """The handler has returned a value.

        Raises:
            TypeError, ValueError: JSON cannot carry it.
        """
        if self._answer is None:
            self._answer = result_frame(self._id, self._is_2, encode(result))

    def fail(self, code: int, message: str, data: Any = None) -> None:
        """The handler has failed; an answer that it has given before stays."""
        if self._answer is None:
            self._answer = error_frame(self._id, self._is_2, code, message, "" if data is None else encode(data))

    def end(self) -> str:
        """The handler is done: return the answer, "" for a notification."""
        self._is_over = True
        if self.is_notification:
            return ""
        return self._answer or error_frame(self._id, self._is_2, INTERNAL_ERROR, "handler produced no response")
