"""Signal handlers that can be put back."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any


def install_signal_handler(
    loop: asyncio.AbstractEventLoop, number: signal.Signals, callback: Callable[[], None]
) -> Callable[[], None]:
    """Call back in the loop on a signal; return what restores the handler that was there. Main thread only."""
    before = signal.getsignal(number)
    try:
        loop.add_signal_handler(number, callback)
    except NotImplementedError:  # Windows
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(callback))
        return lambda: _restore(number, before)

    def restore() -> None:
        loop.remove_signal_handler(number)
        _restore(number, before)

    return restore


def _restore(number: signal.Signals, handler: Any) -> None:
    if handler is not None:  # None: it was not installed from Python, and cannot be put back
        signal.signal(number, handler)
