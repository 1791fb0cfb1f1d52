"""aiomqtt as publisher or subscriber."""

import asyncio
import json
import ssl
import sys
from typing import Any

import aiomqtt


async def receive(client: aiomqtt.Client, job: dict[str, Any], received: list[list[Any]]) -> None:
    async for message in client.messages:
        assert isinstance(message.payload, bytes)
        received.append([str(message.topic), message.payload.decode(), message.qos, message.retain])
        if len(received) == job["count"]:
            return


async def main() -> None:
    job: dict[str, Any] = json.loads(sys.stdin.readline())
    is_websocket = job["transport"].startswith("ws")
    async with aiomqtt.Client(
        job["host"],
        job["port"],
        identifier=job["id"],
        protocol=aiomqtt.ProtocolVersion(job["version"]),
        transport="websockets" if is_websocket else "tcp",
        websocket_path=job["path"] if is_websocket else None,
        tls_context=ssl.create_default_context(cafile=job["ca"]) if job["transport"] in ("tls", "wss") else None,
        timeout=job["timeout"],
    ) as client:
        if job["role"] == "subscribe":
            await client.subscribe(job["topic"], qos=max(job["qos"]))
            print("ready", flush=True)
            received: list[list[Any]] = []
            try:
                await asyncio.wait_for(receive(client, job, received), job["timeout"])
            except TimeoutError:
                pass
            print(json.dumps({"received": received}))
        else:
            count = 0
            for qos in job["qos"]:
                for text in job["payloads"]:
                    await client.publish(job["topic"], text, qos=qos)
                    count += 1
            print(json.dumps({"published": count}))


asyncio.run(main())
