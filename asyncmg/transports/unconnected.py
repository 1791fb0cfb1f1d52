"""The transport of a connection that has none yet, or none any more."""

from __future__ import annotations

import asyncio


class UnconnectedTransport(asyncio.Transport):
    """Takes and gives nothing. It stands where a real transport will be, so that nobody has to ask for None."""

    __slots__ = ()

    def is_closing(self) -> bool:
        return False

    def is_reading(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """There is nothing to pause."""

    def resume_reading(self) -> None:
        """There is nothing to resume."""

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        """It is as closed as it can be."""

    def abort(self) -> None:
        """It is as closed as it can be."""


UNCONNECTED = UnconnectedTransport()
