"""amqtt as publisher or subscriber, in an environment of its own. It has MQTT 3.1.1 only."""

import asyncio
import json
import logging
import sys
from typing import Any

from amqtt.client import MQTTClient

SCHEMES = {"tcp": "mqtt", "tls": "mqtts", "ws": "ws", "wss": "wss"}


async def receive(client: MQTTClient, job: dict[str, Any], received: list[list[Any]]) -> None:
    while len(received) < job["count"]:
        message = await client.deliver_message()
        assert message is not None
        packet = message.publish_packet
        received.append([message.topic, bytes(message.data).decode(), message.qos, packet.retain_flag])


async def main() -> None:
    job: dict[str, Any] = json.loads(sys.stdin.readline())
    logging.disable(logging.CRITICAL)
    path = job["path"] if job["transport"].startswith("ws") else ""
    client = MQTTClient(job["id"], {"auto_reconnect": False})
    uri = f"{SCHEMES[job['transport']]}://{job['host']}:{job['port']}{path}"
    await client.connect(uri, cafile=job["ca"])
    if job["role"] == "subscribe":
        await client.subscribe([(job["topic"], max(job["qos"]))])
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
                await client.publish(job["topic"], text.encode(), qos=qos)
                count += 1
        print(json.dumps({"published": count}))
    await client.disconnect()


asyncio.run(main())
