"""The places for accepted connections of a Manager, which its listeners share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Places:
    """Counts accepted connections, and those that listeners may accept without asking again.

    Args:
        count: how many there are.

    Attributes:
        listeners: how many share them.
    """

    __slots__ = ("_changed", "_free", "listeners")

    def __init__(self, count: int) -> None:
        self.listeners = 0
        self._free = count
        self._changed = asyncio.Event()

    def take(self, count: int = 1) -> None:
        self._free -= count

    def give_back(self, count: int = 1) -> None:
        self._free += count
        self._changed.set()

    def wake(self) -> None:
        """A listener's own bound has changed."""
        self._changed.set()

    async def wait(self, own: Callable[[], int]) -> int:
        """Wait until a connection may be accepted; return how many may, other listeners left their share.

        Args:
            own: tells how many the listener itself has room for.
        """
        while (room := min(self._free, own())) <= 0:
            self._changed.clear()
            await self._changed.wait()
        return max(1, room // max(1, self.listeners))
