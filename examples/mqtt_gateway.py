"""A broker inside a program: topics for HTTP and WebSocket clients, and a task that reads and publishes by itself.

Try: python examples/mqtt_gateway.py
     curl -d 21.5 http://127.0.0.1:8000/topics/room/1/temperature
     curl http://127.0.0.1:8000/topics/house/temperature
     mosquitto_sub -p 8000 -t '#' -v

In the console of a browser at http://127.0.0.1:8000/ :
     ws = new WebSocket("ws://127.0.0.1:8000/watch/house/%23"); ws.onmessage = (event) => console.log(event.data)
"""

import argparse
import asyncio
import json
from contextlib import suppress

import asyncmg

MAX_BEHIND = 100  # messages that wait for a WebSocket client; the oldest is dropped


async def average(broker):
    """Read the rooms' temperatures, publish their average: no socket in between."""
    rooms = {}
    async for message in broker.subscribe("room/+/temperature"):
        try:
            rooms[message.topic] = float(message.text)
        except ValueError:
            continue
        broker.publish("house/temperature", f"{sum(rooms.values()) / len(rooms):.2f}", retain=True)


async def forward(conn, messages):
    """Send what is published to a WebSocket client until the subscription ends."""
    with suppress(asyncmg.ConnectionClosed):
        async for message in messages:
            conn.ws_send(json.dumps({"topic": message.topic, "text": message.text}))
            await conn.flush()


def make_routes(broker, tasks):
    router = asyncmg.Router()

    @router.post("/topics/{topic:path}")
    def publish(conn, request):
        try:
            count = broker.publish(request.params["topic"], request.body_bytes, retain=True)
        except asyncmg.InvalidPacket as error:
            conn.reply(400, {"error": str(error)})
        else:
            conn.reply(200, {"receivers": count})

    @router.get("/topics/{topic:path}")
    def read(conn, request):
        topic = request.params["topic"]
        found = broker.retained(topic) if "+" not in topic and "#" not in topic else []
        conn.reply(200, found[0].payload) if found else conn.reply(404, "nothing is retained there\n")

    @router.get("/watch/{topic_filter:path}")
    async def watch(conn, request):
        try:
            messages = broker.subscribe(request.params["topic_filter"], max_queued=MAX_BEHIND)
        except asyncmg.InvalidPacket as error:
            conn.reply(400, {"error": str(error)})
            return
        conn.set_handler(lambda conn, ev, data: messages.close() if ev == asyncmg.MG_EV_CLOSE else None)
        if conn.ws_upgrade(request, origins=[f"http://{request.host}", None]):
            tasks.create_task(forward(conn, messages))

    return router


async def main(port):
    async with asyncmg.MqttBroker() as broker, asyncio.TaskGroup() as tasks:
        averaging = tasks.create_task(average(broker))
        listener = broker.listen(f"http://127.0.0.1:{port}", make_routes(broker, tasks))
        print(f"http://127.0.0.1:{listener.port}", flush=True)
        await broker.serve_forever()
        averaging.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    asyncio.run(main(parser.parse_args().port))
