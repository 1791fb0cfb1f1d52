"""Reading what users of raw ``send`` write on an HTTP connection: the other role's messages, by the same codec."""

from __future__ import annotations

from asyncmg.codecs.choice import CodecFactory
from asyncmg.codecs.http import EndOfMessage, RequestHead, ResponseHead, Role, WholeRequest
from asyncmg.errors import ProtocolError
from asyncmg.limits import HttpLimits


class SentRequests:
    """Learns the methods of requests that a client's user writes: they decide the framing of the responses.

    A user may send what our own server would refuse; from there on ``is_unreadable`` says that methods are not known.
    """

    __slots__ = ("_codec", "is_unreadable")

    def __init__(self, make_codec: CodecFactory, limits: HttpLimits) -> None:
        self._codec = make_codec(Role.SERVER, limits)
        self.is_unreadable = False

    def read(self, data: bytes) -> list[str]:
        """Return the methods of the requests whose heads are complete now."""
        methods: list[str] = []
        if self.is_unreadable:
            return methods
        self._codec.receive_data(data)
        try:
            while (record := self._codec.next_event()) is not None:
                if isinstance(record, RequestHead | WholeRequest):
                    methods.append(record.method)
        except ProtocolError:
            self.is_unreadable = True
        return methods


class NothingSent(SentRequests):
    """Stands where there are no requests of ours: on a server."""

    __slots__ = ()

    def __init__(self) -> None:
        self.is_unreadable = False


NOTHING_SENT = NothingSent()


class SentReply:
    """Finds the end of a reply that a server's user writes, so that the connection can go on behind it.

    Attributes:
        has_ended: the reply is complete.
        keep_alive: the reply lets the connection go on.
        status: 0 before its head is complete.
        size: bytes of content so far.
    """

    __slots__ = ("_codec", "has_ended", "keep_alive", "size", "status")

    def __init__(self, make_codec: CodecFactory, limits: HttpLimits, method: str) -> None:
        self._codec = make_codec(Role.CLIENT, limits)
        self._codec.expect(method)
        self.has_ended = False
        self.keep_alive = True
        self.status = 0
        self.size = 0

    def read(self, data: bytes) -> None:
        self._codec.receive_data(data)
        try:
            while not self.has_ended and (record := self._codec.next_event()) is not None:
                if isinstance(record, ResponseHead):
                    self.keep_alive = record.keep_alive
                    self.status = record.status
                elif isinstance(record, bytes):
                    self.size += len(record)
                elif isinstance(record, EndOfMessage):
                    self.has_ended = True
        except ProtocolError:
            self.keep_alive = False  # not HTTP as we know it: only the user knows its end, and drains there
