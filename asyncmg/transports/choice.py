"""Which backend moves the bytes: the native one where it can serve, otherwise asyncio's transports."""

from __future__ import annotations

import asyncio
import os

from asyncmg.core import CoreUnavailable, load, status
from asyncmg.limits import Limits

from .backend import AsyncioBackend, Backend

BACKENDS = ("auto", "asyncio", "native")


def chosen_backend(name: str) -> str:
    """Check a backend's name; "auto" is what ``ASYNCMG_BACKEND`` says.

    Raises:
        ValueError: there is no such backend.
        CoreUnavailable: the native one is asked for, and cannot be used here.
    """
    source = "backend"
    if name == "auto":
        name = os.environ.get("ASYNCMG_BACKEND") or "auto"
        source = "ASYNCMG_BACKEND"
    if name not in BACKENDS:
        raise ValueError(f"{source} must be 'auto', 'asyncio' or 'native', not {name!r}")
    if name == "native":
        core = load()
        if core is None:
            raise CoreUnavailable(f"no native backend: {status().reason}")
        if core.engine is None:
            raise CoreUnavailable("no native backend: the C engine needs a POSIX system")
    return name


def make_backend(name: str, loop: asyncio.AbstractEventLoop, limits: Limits) -> Backend:
    """Make the backend of a Manager.

    Raises:
        CoreUnavailable: "native" cannot serve.
        NotImplementedError: "native" in a loop without ``add_reader`` (Windows' proactor).
    """
    core = load() if name != "asyncio" else None
    if core is None or (core.engine is None and name == "auto"):
        return AsyncioBackend()
    from .native import NativeBackend

    try:
        return NativeBackend(core, loop, limits)
    except (CoreUnavailable, NotImplementedError):
        if name == "native":
            raise
        return AsyncioBackend()
