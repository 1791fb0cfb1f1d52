"""Raw byte streams: TCP and Unix sockets, with or without TLS."""

from __future__ import annotations

from .base import BaseProtocol, Pause


class StreamProtocol(BaseProtocol):
    """Collects received bytes for the user: MG_EV_READ tells their number, ``peek`` looks at them, ``read`` takes them.

    Reading stops while ``max_recv_buffer`` bytes are not taken.
    """

    __slots__ = ("_input",)

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # the signature is BaseProtocol's
        self._input = bytearray()

    @property
    def recv_len(self) -> int:
        return len(self._input)

    def receive_data(self, data: bytes) -> None:
        self._input += data
        self.report_read(len(data))
        if len(self._input) >= self.limits.buffers.max_recv_buffer:
            self.pause_reading(Pause.CONTENT)

    def peek(self, n: int = -1) -> bytes:
        return bytes(self._input if n < 0 else self._input[:n])

    def read(self, n: int = -1) -> bytes:
        data = self.peek(n)
        del self._input[: len(data)]
        if len(self._input) < self.limits.buffers.max_recv_buffer:
            self.resume_reading(Pause.CONTENT)
        return data

    def handle_eof(self) -> None:
        """The peer has sent everything: when that has been handled, what the user has sent still leaves."""
        self.sink.when_handled(self.drain)
