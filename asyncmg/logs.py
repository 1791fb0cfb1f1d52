"""The log level of Mongoose, told to the loggers of asyncmg."""

from __future__ import annotations

import logging
import operator
from typing import Final

MG_LL_NONE: Final = 0
MG_LL_ERROR: Final = 1
MG_LL_INFO: Final = 2
MG_LL_DEBUG: Final = 3
MG_LL_VERBOSE: Final = 4

_SILENT: Final = logging.CRITICAL + 10
_LEVELS: Final = {
    MG_LL_NONE: _SILENT,
    MG_LL_ERROR: logging.ERROR,
    MG_LL_INFO: logging.INFO,
    MG_LL_DEBUG: logging.DEBUG,
    MG_LL_VERBOSE: 1,
}
_logger = logging.getLogger("asyncmg")
_level = MG_LL_NONE


def log_set(level: int) -> None:
    """Set the level of the logger ``asyncmg``, and with it of those below it that have none of their own.

    MG_LL_ERROR lets errors through, MG_LL_INFO warnings and informations as well, MG_LL_DEBUG and MG_LL_VERBOSE
    everything, MG_LL_NONE nothing. Where messages go is for :mod:`logging` to say: without a handler it shows warnings
    and errors. A program that never calls this one has the levels that it has set there.

    Args:
        level: any number; below MG_LL_NONE it counts as that, above MG_LL_VERBOSE likewise.

    Raises:
        TypeError: level is no int.
    """
    global _level
    _level = operator.index(level)
    _logger.setLevel(_LEVELS[min(max(_level, MG_LL_NONE), MG_LL_VERBOSE)])


def log_get() -> int:
    """Return what :func:`log_set` was called with last; MG_LL_NONE before the first call, as in Mongoose."""
    return _level
