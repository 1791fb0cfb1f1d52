"""gmqtt as publisher or subscriber, in an environment of its own."""

import asyncio
import json
import ssl
import sys
from typing import Any

import gmqtt
from gmqtt.storage import PersistentStorage


async def main() -> None:
    job: dict[str, Any] = json.loads(sys.stdin.readline())
    received: list[list[Any]] = []
    connected, subscribed, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def on_message(client: Any, topic: str, payload: bytes, qos: int, properties: dict[str, Any]) -> int:
        received.append([topic, payload.decode(), qos, bool(properties["retain"])])
        if len(received) == job["count"]:
            done.set()
        return 0

    storage = PersistentStorage()
    client = gmqtt.Client(job["id"], persistent_storage=storage)
    client.on_message = on_message
    client.on_connect = lambda *_: connected.set()
    client.on_subscribe = lambda *_: subscribed.set()
    context = ssl.create_default_context(cafile=job["ca"]) if job["transport"] == "tls" else False
    await client.connect(job["host"], job["port"], ssl=context, version=job["version"])
    async with asyncio.timeout(job["timeout"]):
        await connected.wait()
    if job["role"] == "subscribe":
        client.subscribe(job["topic"], qos=max(job["qos"]))
        async with asyncio.timeout(job["timeout"]):
            await subscribed.wait()
        print("ready", flush=True)
        try:
            await asyncio.wait_for(done.wait(), job["timeout"])
        except TimeoutError:
            pass
        print(json.dumps({"received": received}))
    else:
        count = 0
        for qos in job["qos"]:
            for text in job["payloads"]:
                client.publish(job["topic"], text.encode(), qos=qos)
                count += 1
        async with asyncio.timeout(job["timeout"]):
            await storage.wait_empty()
        print(json.dumps({"published": count}))
    try:
        await client.disconnect()
    except ssl.SSLError as error:
        if "CLOSE_NOTIFY" not in str(error):  # its loop, about what came after the end of its own side
            raise


asyncio.run(main())
