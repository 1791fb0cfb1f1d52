"""``asyncmg info``: what this installation is made of, and why."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import ssl
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import asyncmg
from asyncmg.codecs.choice import dns_codec, mqtt_codec, sntp_codec, ws_codec
from asyncmg.core import Core, CoreStatus, CoreUnavailable, load, status
from asyncmg.core.records import AMG_POLLER_EPOLL, AMG_POLLER_KQUEUE, AMG_POLLER_POLL, ENGINE_CONFIG, http1_limits
from asyncmg.limits import DEFAULT_LIMITS
from asyncmg.transports.choice import chosen_backend

# In the order in which the engine tries them.
_POLLERS = {"epoll": AMG_POLLER_EPOLL, "kqueue": AMG_POLLER_KQUEUE, "poll": AMG_POLLER_POLL}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(options: argparse.Namespace) -> int:
    facts = collect()
    if options.json:
        print(json.dumps(facts, indent=2))
    else:
        print("\n".join(f"{name:<12}{value}" for name, value in describe(facts)))
    return 0


def collect() -> dict[str, Any]:
    """Collect the facts as plain data. They describe this process: its loop, when one is running."""
    core = _core_status()
    try:
        library, failure = load(), ""
    except (CoreUnavailable, ValueError) as exc:  # ASYNCMG_CORE is "require" or means nothing: no Manager can be made
        library, failure = None, str(exc)
    return {
        "asyncmg": asyncmg.__version__,
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "executable": sys.executable,
        },
        "platform": platform.platform(),
        "tls": ssl.OPENSSL_VERSION,
        "event_loop": {"name": _loop_name(), "uvloop": _version_of("uvloop")},
        "backend": _backend(library, failure, core),
        "codecs": {
            "http": _http_codec(library, failure, core),
            "ws": _chosen_codec(ws_codec, "ws", failure),
            "mqtt": _chosen_codec(mqtt_codec, "mqtt", failure),
            "dns": _chosen_codec(dns_codec, "dns", failure),
            "sntp": _chosen_codec(sntp_codec, "sntp", failure),
        },
        "core": {"available": core.available, "path": core.path, "abi": core.abi, "reason": core.reason},
    }


def _http_codec(library: Core | None, failure: str, core: CoreStatus) -> dict[str, Any]:
    """The codec that a Manager takes; its name is "none" where that is an error."""
    if failure:
        return {"name": "none", "library": None, "why": failure}
    if library is not None:
        return {"name": "native", "library": f"the C core, ABI {library.abi}", "why": "the C core is loaded"}
    h11 = _version_of("h11") or "(missing)"
    return {"name": "portable", "library": f"h11 {h11}", "why": f"no C core: {core.reason}"}


def _chosen_codec(choose: Callable[[], Any], protocol: str, failure: str) -> dict[str, Any]:
    """The codec of another protocol; its name is "none" where there would be an error."""
    try:
        kind = choose()
    except (CoreUnavailable, ValueError) as exc:
        return {"name": "none", "why": failure or str(exc)}
    variable = f"ASYNCMG_{protocol.upper()}_CODEC"
    chosen = os.environ.get(variable)
    name = kind.__module__.rpartition(f"{protocol}_")[2]
    why = "the faster one for packets of 48 bytes" if protocol == "sntp" else "as the HTTP codec"
    return {"name": name, "why": f"{variable}={chosen}" if chosen else why}


def _backend(library: Core | None, failure: str, core: CoreStatus) -> dict[str, Any]:
    """The backend that ``Manager(backend="auto")`` takes; its name is "none" where that is an error."""
    poller = _poller(library)
    try:
        name = chosen_backend("auto")
    except CoreUnavailable as exc:
        failure = failure or f"ASYNCMG_BACKEND={os.environ['ASYNCMG_BACKEND']}, but there is {exc}"
    except ValueError as exc:
        failure = failure or str(exc)
    if failure:
        return {"name": "none", "why": failure, "poller": poller}
    if name != "auto":
        why = f"ASYNCMG_BACKEND={name}"
    elif library is None:
        name, why = "asyncio", f"no C core: {core.reason}"
    elif library.engine is None:
        name, why = "asyncio", "the C core has no engine: this system is not POSIX"
    elif not poller:
        name, why = "asyncio", "the system refuses an engine"
    elif not _loop_can_watch():
        name, why = "asyncio", "the event loop has no add_reader"
    else:
        name, why = "native", "the C core has an engine"
    return {"name": name, "why": why, "poller": poller}


def _poller(library: Core | None) -> str | None:
    """The poller that the engine takes by itself, None where there is no engine: asked by making small ones."""
    if library is None or library.engine is None:
        return None
    limits = http1_limits(DEFAULT_LIMITS.http)
    for name, number in _POLLERS.items():
        engine = library.engine.new(ENGINE_CONFIG.pack(1, 16, 2048, 1024, 0, number, 1, limits))
        if engine is not None:
            library.engine.free(engine)
            return name
    return None


def _loop_can_watch() -> bool:
    """Whether the loop lets the engine's descriptor be watched; Windows' proactor does not."""
    kind = _loop_class()
    return getattr(kind, "add_reader", None) is not asyncio.AbstractEventLoop.add_reader


def describe(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Say the same for people, as names and lines."""
    python, core, loop, http = facts["python"], facts["core"], facts["event_loop"], facts["codecs"]["http"]
    uvloop = f"uvloop {loop['uvloop']} is installed" if loop["uvloop"] else "uvloop is not installed"
    loaded = f"{core['path']} (ABI {core['abi']})" if core["available"] else f"not in use: {core['reason']}"
    backend = facts["backend"]
    poller = f"; the engine waits with {backend['poller']}" if backend["name"] == "native" else ""
    codec = f"{http['name']}, on {http['library']}" if http["library"] else http["name"]
    return [
        ("asyncmg", facts["asyncmg"]),
        ("Python", f"{python['version']} ({python['implementation']}), {python['executable']}"),
        ("platform", facts["platform"]),
        ("TLS", facts["tls"]),
        ("event loop", f"{loop['name']}; {uvloop}"),
        ("backend", f"{backend['name']}: {backend['why']}{poller}"),
        ("HTTP codec", f"{codec}: {http['why']}"),
        ("WS codec", f"{facts['codecs']['ws']['name']}: {facts['codecs']['ws']['why']}"),
        ("MQTT codec", f"{facts['codecs']['mqtt']['name']}: {facts['codecs']['mqtt']['why']}"),
        ("DNS codec", f"{facts['codecs']['dns']['name']}: {facts['codecs']['dns']['why']}"),
        ("SNTP codec", f"{facts['codecs']['sntp']['name']}: {facts['codecs']['sntp']['why']}"),
        ("C core", loaded),
    ]


def _core_status() -> CoreStatus:
    try:
        return status()
    except ValueError as exc:  # ASYNCMG_CORE has a value that means nothing
        return CoreStatus(available=False, path=None, abi=None, reason=str(exc))


def _loop_name() -> str:
    kind = _loop_class()
    return f"{kind.__module__.partition('.')[0]} {kind.__qualname__}"


def _loop_class() -> type[asyncio.AbstractEventLoop]:
    """The running loop's class, or that of the one that asyncio.run() would make."""
    try:
        return type(asyncio.get_running_loop())
    except RuntimeError:
        loop = asyncio.new_event_loop()
        loop.close()
        return type(loop)


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
