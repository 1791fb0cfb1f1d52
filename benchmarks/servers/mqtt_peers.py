"""One MQTT broker for the benchmarks: ``mqtt_peers.py NAME PORT``.

All let anybody in, keep nothing on disk, close nobody who is idle, and have queues that no load of ours overflows.

A name of asyncmg says what runs. ``native`` and ``asyncio`` are its backends, both with the codec in C; ``portable`` is
the asyncio backend with the codec in Python, under ASYNCMG_CORE=off. Then comes the loop: ``stdlib`` or ``uvloop``. It
is ``MqttBroker`` as it is, but for its limits: no hook is set.

Without a port it prints its names.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

# installs.py is imported where it is used: only this program runs there, whose folder is on the path, while the
# benchmarks import the names below.
HOST = "127.0.0.1"
MAX_CONNECTIONS = 50_000
PACKAGES = ("uvloop",)
AEDES = Path(__file__).with_name("mqtt_aedes.mjs")

# A value of 0 of these means no limit. Without set_tcp_nodelay its acknowledgements wait for the other side's.
MOSQUITTO_CONF = """
listener {port} {host}
allow_anonymous true
set_tcp_nodelay true
max_inflight_messages 0
max_queued_messages 0
max_queued_bytes 0
max_keepalive 65535
persistence false
log_type none
user {user}
"""

Serve = Callable[[int], None]
Family = Literal["native", "asyncio", "portable"]


def _asyncmg(family: Family, loop: str) -> Serve:
    def serve(port: int) -> None:
        os.environ["ASYNCMG_CORE"] = "off" if family == "portable" else "require"
        import asyncmg
        from asyncmg import core

        core.load()
        loop_factory: Callable[[], Any] | None = None
        if loop == "uvloop":
            import uvloop

            loop_factory = uvloop.new_event_loop

        async def main() -> None:
            limits = asyncmg.Limits(net=asyncmg.NetLimits(max_connections=MAX_CONNECTIONS))
            backend = "native" if family == "native" else "asyncio"
            async with asyncmg.MqttBroker(backend=backend, limits=limits) as broker:
                broker.listen(f"mqtt://{HOST}:{port}")
                await broker.serve_forever()

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())

    return serve


def mosquitto(port: int) -> None:
    """Become mosquitto, in the current folder."""
    path = shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if path is None:
        sys.exit("not installed: mosquitto (Debian: apt-get install mosquitto)")
    user = "root" if os.geteuid() == 0 else "mosquitto"  # who is not root stays who he is
    Path("mosquitto.conf").write_text(MOSQUITTO_CONF.format(host=HOST, port=port, user=user))
    os.execv(path, [path, "-c", "mosquitto.conf"])


def aedes(port: int) -> None:
    """Become Node.js with aedes, whose concurrency is raised as its own benchmarks do."""
    from installs import installed

    folder = installed("npm")
    node = shutil.which("node")
    assert node is not None
    os.execv(node, [node, str(AEDES), str(folder), "tcp", str(port)])


def amqtt(port: int) -> None:
    """Serve in the environment that has amqtt."""
    from installs import become_peers_python

    become_peers_python()
    from amqtt.broker import Broker

    logging.disable(logging.CRITICAL)
    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{port}", "max_connections": MAX_CONNECTIONS}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }

    async def main() -> None:
        await Broker(config).start()
        await asyncio.Event().wait()

    asyncio.run(main())


SERVERS: dict[str, Serve] = {
    "asyncmg native stdlib": _asyncmg("native", "stdlib"),
    "asyncmg native uvloop": _asyncmg("native", "uvloop"),
    "asyncmg asyncio uvloop": _asyncmg("asyncio", "uvloop"),
    "asyncmg asyncio stdlib": _asyncmg("asyncio", "stdlib"),
    "asyncmg portable uvloop": _asyncmg("portable", "uvloop"),
    "mosquitto": mosquitto,
    "aedes": aedes,
    "amqtt": amqtt,
}


def main() -> None:
    if len(sys.argv) < 3:
        print("\n".join(SERVERS))
        return
    from installs import end_with_parent

    end_with_parent()
    name, port = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with contextlib.suppress(KeyboardInterrupt):
            SERVERS[name](int(port))
    except ModuleNotFoundError as exc:
        if exc.name in PACKAGES:
            sys.exit(f"not installed: {exc.name}")
        raise


if __name__ == "__main__":
    main()
