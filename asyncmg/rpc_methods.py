"""The methods of a JSON-RPC server: found by name or by pattern, the one added last first."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from .matching import Glob
from .rpc_messages import INVALID_PARAMS, RpcError, RpcReq

_MAX_NAME = 1000  # characters of a name that is held against patterns: peers choose it, up to max_frame

RpcHandler = Callable[[RpcReq], Any]
F = TypeVar("F", bound=Callable[..., Any])


class Method(NamedTuple):
    """One of them.

    Attributes:
        number: the highest that fits is called.
        null_is_result: a handler that returns None has answered with null.
    """

    number: int
    pattern: str
    glob: Glob
    handler: RpcHandler
    is_async: bool
    null_is_result: bool


class Methods:
    """All of them."""

    __slots__ = ("_all", "_exact", "_globs")

    def __init__(self) -> None:
        self._all: list[Method] = []
        self._exact: dict[str, Method] = {}
        self._globs: list[Method] = []  # the newest first

    @property
    def patterns(self) -> list[str]:
        """Names and patterns, the newest first."""
        return [method.pattern for method in reversed(self._all)]

    @property
    def takes_answers(self) -> bool:
        """Whether there is a method without a name: Mongoose gives it the answers that come."""
        return "" in self._exact

    def add(self, pattern: str, handler: RpcHandler) -> None:
        """Register a handler that gets the RpcReq.

        Raises:
            TypeError: the pattern is not a str, or the handler is not callable.
        """
        self._register(pattern, handler, handler, null_is_result=False)

    def bind(self, name: str, function: F) -> F:
        """Register a function that gets the parameters.

        Raises:
            TypeError: it is not callable.
        """
        if not callable(function):
            raise TypeError(f"a method is a function, not {type(function).__name__}")
        try:
            signature = inspect.signature(function)
        except ValueError:  # of some that are written in C
            signature = None

        def call(req: RpcReq) -> Any:
            params = req.params
            args, named = ((), params) if isinstance(params, dict) else (params or (), {})
            if not isinstance(args, list | tuple):
                raise RpcError(INVALID_PARAMS, "Invalid params", "neither an array nor an object")
            try:
                return function(*args, **named)
            except TypeError:
                # About the parameters, or about what the function has done with them? To ask before each call would
                # cost more than the call.
                misfit = _misfit(signature, args, named)
                if misfit:
                    raise RpcError(INVALID_PARAMS, "Invalid params", misfit) from None
                raise

        self._register(name, call, function, null_is_result=True)
        return function

    def _register(
        self, pattern: str, handler: RpcHandler, function: Callable[..., Any], *, null_is_result: bool
    ) -> None:
        if not isinstance(pattern, str):
            raise TypeError(f"the name of a method is a str, not {type(pattern).__name__}")
        if not callable(handler):
            raise TypeError(f"a handler must be callable, not {type(handler).__name__}")
        while isinstance(function, functools.partial):
            function = function.func
        is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
        method = Method(len(self._all), pattern, Glob.parse(pattern), handler, is_async, null_is_result)
        self._all.append(method)
        if any(sign in pattern for sign in "?*#"):
            self._globs.insert(0, method)
        else:
            self._exact[pattern] = method

    def find(self, name: str) -> tuple[Method | None, list[str]]:
        """Return the method to be called, None when there is none, and what its wildcards stand for."""
        exact = self._exact.get(name)
        for method in self._globs if len(name) <= _MAX_NAME else ():
            if exact is not None and method.number < exact.number:
                break
            captures = method.glob.captures(name)
            if captures is not None:
                return method, captures
        return exact, []


def _misfit(signature: inspect.Signature | None, args: Sequence[Any], named: dict[str, Any]) -> str:
    """Why parameters do not fit a function; "" when they do."""
    if signature is not None:
        try:
            signature.bind(*args, **named)
        except TypeError as exc:
            return str(exc)
    return ""
