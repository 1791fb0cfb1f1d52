"""What the program around a broker decides: who may connect, publish, subscribe and be sent what. All may await."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from asyncmg.codecs import mqtt as m

from .message import Message

#: True: yes, False: not authorized (0x87); or a reason code, 0 or 0x80 and above. Or an awaitable of that.
Verdict = bool | int
Answer = Verdict | Awaitable[Verdict]

#: What a hook may raise; CancelledError is that of something it has asked for its result.
HOOK_ERRORS: Final = (Exception, asyncio.CancelledError)


@dataclass(frozen=True, slots=True)
class BrokerClient:
    """A client of the broker.

    Attributes:
        client_id: also one that the broker has chosen.
        username: None: it has given none.
        address: of its end of the connection; None of a Unix socket.
        version: 4 (3.1.1) or 5.
        is_tls: its connection is protected.
    """

    client_id: str
    username: str | None
    address: Any
    version: int
    is_tls: bool


@dataclass(slots=True)
class ConnectAttempt:
    """What ``authenticate`` decides about.

    Attributes:
        client: who wants to connect.
        password: None: it has given none.
        connect: the whole packet.
        method, data: of enhanced authentication (5.0 section 4.12); "" and b"" without it.
        challenge: sends the client data in an AUTH packet and returns, when awaited, the data of its answer.
        reply: set it to data that the client is sent with the success.
    """

    client: BrokerClient
    password: bytes | None
    connect: m.Connect
    method: str
    data: bytes
    challenge: Callable[[bytes], Awaitable[bytes]]
    reply: bytes = b""


@dataclass(frozen=True, slots=True)
class Hooks:
    """None: everybody may."""

    authenticate: Callable[[ConnectAttempt], Answer] | None = None
    publish: Callable[[BrokerClient, Message], Answer] | None = None
    subscribe: Callable[[BrokerClient, str, int], Answer] | None = None
    deliver: Callable[[BrokerClient, Message], Answer] | None = None


def reason_code(verdict: Verdict, refusal: int = m.NOT_AUTHORIZED) -> int:
    """Return the reason code for an answer.

    Raises:
        TypeError: it is neither a bool nor an int.
        ValueError: it is a number that refuses nothing, such as a QoS.
    """
    if verdict is True:
        return m.SUCCESS
    if verdict is False:
        return refusal
    if not isinstance(verdict, int):
        raise TypeError(f"a hook returns a bool or a reason code, not {verdict!r:.60}")
    if verdict != m.SUCCESS and not m.UNSPECIFIED_ERROR <= verdict <= 0xFF:
        raise ValueError(f"a hook returns 0 or a reason code of 0x80 and above, not {verdict:#x}")
    return verdict


def is_being_cancelled() -> bool:
    """Whether somebody cancels this task itself, and not something that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def refusal_for(kind: int, code: int) -> int:
    """Return a reason code that this type of packet has: the code itself, or "not authorized"."""
    return code if code in m.REASON_CODES[kind] else m.NOT_AUTHORIZED


async def awaited(answer: Answer) -> Verdict:
    return await answer if inspect.isawaitable(answer) else answer
