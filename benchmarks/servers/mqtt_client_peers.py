"""One MQTT client for the benchmarks: ``mqtt_client_peers.py NAME PORT publish|each|receive VERSION QOS SIZE WINDOW``.

``publish``: as fast as it goes, at most WINDOW messages that are not acknowledged; at QoS 0 the loop, or the thread
that writes, has its turn after each WINDOW messages. ``each``: each message is waited for before the next. ``receive``:
a subscription to ``load/in``; after each 250 messages that the application has had it publishes their number to
``load/seen``: that is how ``loads/mqtt_stub.c`` counts. VERSION is 4 (MQTT 3.1.1) or 5.

Each is written as its own documentation shows it: callbacks where these are what it has, `async for` where that is.
asyncmg has the codec in C with ``native`` and ``asyncio``, in Python with ``portable``.

Without a port it prints its names.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

HOST = "127.0.0.1"
TOPIC, SEEN, IN = "load/out", "load/seen", "load/in"
EVERY = 250
PACKAGES = ("aiomqtt", "gmqtt", "paho", "uvloop")


@dataclass(frozen=True, slots=True)
class Job:
    port: int
    mode: Literal["publish", "each", "receive"]
    version: int
    qos: int
    payload: bytes
    window: int


Run = Callable[[Job], None]


def _run(main: Coroutine[Any, Any, None], loop: str) -> None:
    loop_factory: Callable[[], Any] | None = None
    if loop == "uvloop":
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main)


def _asyncmg(family: Literal["native", "asyncio", "portable"], loop: str) -> Run:
    def run(job: Job) -> None:
        os.environ["ASYNCMG_CORE"] = "off" if family == "portable" else "require"
        os.environ["ASYNCMG_BACKEND"] = "native" if family == "native" else "asyncio"
        import asyncmg

        async def main() -> None:
            url = f"mqtt://{HOST}:{job.port}"
            async with asyncmg.mqtt_connect(url, client_id="asyncmg", version=job.version) as mq:
                if job.mode == "receive":
                    await mq.subscribe(IN, qos=job.qos)
                    count = 0
                    async for _ in mq:
                        count += 1
                        if count % EVERY == 0:
                            await mq.publish(SEEN, b"%d" % count)
                elif job.mode == "each":
                    while True:
                        await mq.publish(TOPIC, job.payload, qos=job.qos)
                elif job.qos == 0:
                    while True:
                        for _ in range(job.window):
                            await mq.publish(TOPIC, job.payload)
                        await asyncio.sleep(0)
                else:
                    pending: deque[Any] = deque()
                    while True:
                        if len(pending) == job.window:
                            await pending.popleft()
                        pending.append(mq.publish_soon(TOPIC, job.payload, qos=job.qos))

        _run(main(), loop)

    return run


def _gmqtt(loop: str) -> Run:
    """In an environment of its own, too.

    It has no way to wait for one message; its storage, which one may bring along, tells when none is left.
    """

    def run(job: Job) -> None:
        from installs import become_peers_python

        become_peers_python()
        import gmqtt
        from gmqtt.storage import PersistentStorage

        count = 0

        def on_message(client: Any, topic: str, payload: bytes, qos: int, properties: Any) -> int:
            nonlocal count
            count += 1
            if count % EVERY == 0:
                client.publish(SEEN, b"%d" % count)
            return 0

        async def main() -> None:
            storage = PersistentStorage()
            client = gmqtt.Client("gmqtt", persistent_storage=storage)
            connected = asyncio.Event()
            client.on_connect = lambda *_: connected.set()
            client.on_message = on_message
            await client.connect(HOST, job.port, version=job.version)
            await connected.wait()
            if job.mode == "receive":
                client.subscribe(IN, qos=job.qos)
                await asyncio.Event().wait()
            window = 1 if job.mode == "each" else job.window
            while True:
                for _ in range(window):
                    client.publish(TOPIC, job.payload, qos=job.qos)
                if job.qos:
                    await storage.wait_empty()
                else:
                    await asyncio.sleep(0)

        _run(main(), loop)

    return run


def paho(job: Job) -> None:
    """Its network thread, and the main one that publishes."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

    count = 0

    def on_message(client: Any, userdata: Any, message: Any) -> None:
        nonlocal count
        count += 1
        if count % EVERY == 0:
            client.publish(SEEN, b"%d" % count)

    def on_connect(client: Any, *_: Any) -> None:
        if job.mode == "receive":
            client.subscribe(IN, qos=job.qos)

    client = Client(CallbackAPIVersion.VERSION2, "paho", protocol=MQTTProtocolVersion(job.version))
    client.max_inflight_messages_set(job.window)
    client.on_message = on_message
    client.on_connect = on_connect
    client.connect(HOST, job.port)
    if job.mode == "receive":
        client.loop_forever()
    client.loop_start()
    window = 1 if job.mode == "each" else job.window
    pending: deque[Any] = deque()
    while True:
        if len(pending) == window:
            pending.popleft().wait_for_publish()
        pending.append(client.publish(TOPIC, job.payload, qos=job.qos))


def _aiomqtt(loop: str) -> Run:
    """Its publish() waits, so that as many tasks publish as messages may be on their way."""

    def run(job: Job) -> None:
        import aiomqtt

        async def main() -> None:
            version = aiomqtt.ProtocolVersion(job.version)
            async with aiomqtt.Client(HOST, job.port, identifier="aiomqtt", protocol=version) as client:
                if job.mode == "receive":
                    await client.subscribe(IN, qos=job.qos)
                    count = 0
                    async for _ in client.messages:
                        count += 1
                        if count % EVERY == 0:
                            await client.publish(SEEN, b"%d" % count)

                client.pending_calls_threshold = job.window  # otherwise it warns of more than ten

                async def publish() -> None:
                    while True:
                        await client.publish(TOPIC, job.payload, qos=job.qos)
                        if not job.qos:
                            await asyncio.sleep(0)

                async with asyncio.TaskGroup() as tasks:
                    for _ in range(1 if job.mode == "each" else job.window):
                        tasks.create_task(publish())

        _run(main(), loop)

    return run


def amqtt(job: Job) -> None:
    """A client in the environment that has amqtt. It has MQTT 3.1.1 only."""
    from installs import become_peers_python

    become_peers_python()
    from amqtt.client import MQTTClient

    logging.disable(logging.CRITICAL)

    async def main() -> None:
        client = MQTTClient("amqtt", {"auto_reconnect": False})
        await client.connect(f"mqtt://{HOST}:{job.port}/")
        if job.mode == "receive":
            await client.subscribe([(IN, job.qos)])
            count = 0
            while True:
                await client.deliver_message()
                count += 1
                if count % EVERY == 0:
                    await client.publish(SEEN, b"%d" % count, qos=0)

        async def publish() -> None:
            while True:
                await client.publish(TOPIC, job.payload, qos=job.qos)
                if not job.qos:
                    await asyncio.sleep(0)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(1 if job.mode == "each" else job.window):
                tasks.create_task(publish())

    asyncio.run(main())


CLIENTS: dict[str, Run] = {
    "asyncmg native stdlib": _asyncmg("native", "stdlib"),
    "asyncmg native uvloop": _asyncmg("native", "uvloop"),
    "asyncmg asyncio uvloop": _asyncmg("asyncio", "uvloop"),
    "asyncmg portable uvloop": _asyncmg("portable", "uvloop"),
    "gmqtt uvloop": _gmqtt("uvloop"),
    "gmqtt stdlib": _gmqtt("stdlib"),
    "paho": paho,
    "aiomqtt uvloop": _aiomqtt("uvloop"),
    "amqtt": amqtt,
}


def main() -> None:
    if len(sys.argv) < 3:
        print("\n".join(CLIENTS))
        return
    from installs import end_with_parent

    end_with_parent()
    name, port, mode, version, qos, size, window = sys.argv[1:]
    job = Job(int(port), mode, int(version), int(qos), b"x" * int(size), int(window))  # type: ignore[arg-type]
    try:
        CLIENTS[name](job)
    except ModuleNotFoundError as exc:
        if exc.name is not None and exc.name.partition(".")[0] in PACKAGES:
            sys.exit(f"not installed: {exc.name}")
        raise
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
