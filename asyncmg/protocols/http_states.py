"""States of an HTTP/1.1 connection, one table a direction. A pair that is absent is a protocol error of ours.

Receiving and sending are independent: a server may answer before it has read the content, and a client may still be
sending while the response arrives.
"""

from __future__ import annotations

from enum import StrEnum

from asyncmg.errors import LocalProtocolError


class Receiving(StrEnum):
    """What is being received: requests (server) or responses (client)."""

    IDLE = "idle"  # no byte of the next message yet
    HEAD = "head"  # a head is incomplete
    HANDLING = "handling"  # MG_EV_HTTP_HDRS is being handled: how the content is taken is not known yet
    CONTENT = "content"
    COMPLETE = "complete"  # server: the next request waits for the reply
    SWITCHED = "switched"  # a 101 was received: what follows belongs to another protocol
    ENDED = "ended"  # nothing more is read


class Sending(StrEnum):
    """The reply to the current request (server)."""

    IDLE = "idle"  # no request
    DUE = "due"  # the request has no reply yet
    STREAMING = "streaming"  # head sent, content follows by http_chunk() or from an iterator
    RAW = "raw"  # the user sends the reply's bytes
    DONE = "done"


RECEIVE: dict[tuple[Receiving, str], Receiving] = {
    (Receiving.IDLE, "bytes"): Receiving.HEAD,
    (Receiving.IDLE, "head"): Receiving.HANDLING,
    (Receiving.HEAD, "head"): Receiving.HANDLING,
    (Receiving.HANDLING, "handled"): Receiving.CONTENT,
    (Receiving.CONTENT, "end"): Receiving.COMPLETE,
    (Receiving.CONTENT, "switch"): Receiving.SWITCHED,
    (Receiving.COMPLETE, "next"): Receiving.IDLE,
    **{(state, "stop"): Receiving.ENDED for state in Receiving},
}

SEND: dict[tuple[Sending, str], Sending] = {
    (Sending.IDLE, "request"): Sending.DUE,
    (Sending.IDLE, "refuse"): Sending.DONE,
    (Sending.DUE, "refuse"): Sending.DONE,
    (Sending.DUE, "reply"): Sending.DONE,
    (Sending.DUE, "stream"): Sending.STREAMING,
    (Sending.DUE, "raw"): Sending.RAW,
    (Sending.STREAMING, "end"): Sending.DONE,
    (Sending.RAW, "end"): Sending.DONE,
    (Sending.DONE, "next"): Sending.IDLE,
}

_NO_REPLY = {
    Sending.IDLE: "there is no request to reply to",
    Sending.STREAMING: "this request is being replied to already",
    Sending.RAW: "this request is being replied to by raw send() already",
    Sending.DONE: "this request has been replied to",
}


def require_due(state: Sending) -> None:
    """Check that a reply may begin.

    Raises:
        LocalProtocolError: there is no request, or it has its reply.
    """
    if state is not Sending.DUE:
        raise LocalProtocolError(_NO_REPLY[state])
