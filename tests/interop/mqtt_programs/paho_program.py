"""paho-mqtt as publisher or subscriber."""

import json
import sys
import threading
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

job: dict[str, Any] = json.loads(sys.stdin.readline())
received: list[list[Any]] = []
subscribed, done = threading.Event(), threading.Event()


def on_connect(client: Client, userdata: Any, flags: Any, reason_code: Any, properties: Any) -> None:
    assert not reason_code.is_failure, reason_code
    if job["role"] == "subscribe":
        client.subscribe(job["topic"], qos=max(job["qos"]))
    else:
        subscribed.set()


def on_subscribe(client: Client, userdata: Any, mid: int, reason_codes: Any, properties: Any) -> None:
    assert not any(code.is_failure for code in reason_codes), reason_codes
    subscribed.set()


def on_message(client: Client, userdata: Any, message: Any) -> None:
    received.append([message.topic, message.payload.decode(), message.qos, message.retain])
    if len(received) == job["count"]:
        done.set()


transport = "websockets" if job["transport"].startswith("ws") else "tcp"
version = MQTTProtocolVersion(job["version"])
client = Client(CallbackAPIVersion.VERSION2, job["id"], protocol=version, transport=transport)  # type: ignore[arg-type]
client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
if transport == "websockets":
    client.ws_set_options(path=job["path"])
if job["transport"] in ("tls", "wss"):
    client.tls_set(job["ca"])
client.connect(job["host"], job["port"])
client.loop_start()
assert subscribed.wait(job["timeout"]), "no CONNACK or SUBACK"
if job["role"] == "subscribe":
    print("ready", flush=True)
    done.wait(job["timeout"])
    print(json.dumps({"received": received}))
else:
    pending = [client.publish(job["topic"], text, qos) for qos in job["qos"] for text in job["payloads"]]
    for info in pending:
        info.wait_for_publish(job["timeout"])
    print(json.dumps({"published": sum(info.is_published() for info in pending)}))
client.disconnect()
client.loop_stop()
