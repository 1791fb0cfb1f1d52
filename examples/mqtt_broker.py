"""An MQTT broker and a page about it on one port: MQTT clients, in WebSocket as well, and browsers all come there.

Try: python examples/mqtt_broker.py --port 1883
     mosquitto_sub -t '#' -v
     mosquitto_pub -t room/temperature -m 21.5 -r
     curl http://127.0.0.1:1883/topics

With --users FILE clients need a user name and a password. So one gets into the file:
     python -c 'import asyncmg; asyncmg.PasswordFile("FILE").set("ann", "her password")'
"""

import argparse
import asyncio
from dataclasses import asdict

import asyncmg

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>broker</title>
<p>An MQTT broker. <a href="/topics">Retained messages</a>, <a href="/clients">clients</a>,
<a href="/statistics">statistics</a>.
"""


def may_publish(client, message):
    """What belongs to a user is below users/NAME, and nobody else publishes there."""
    level, _, rest = message.topic.partition("/")
    return level != "users" or rest.split("/")[0] == client.username


def make_pages(broker):
    router = asyncmg.Router()

    @router.get("/")
    def index(conn, request):
        conn.reply(200, PAGE)

    @router.get("/topics")
    def topics(conn, request):
        conn.reply(200, {message.topic: message.text for message in broker.retained("#")})

    @router.get("/clients")
    def clients(conn, request):
        conn.reply(200, [{"id": client.client_id, "user": client.username} for client in broker.clients()])

    @router.get("/statistics")
    def statistics(conn, request):
        conn.reply(200, asdict(broker.statistics()))

    return router


async def main(port, users):
    authenticate = asyncmg.PasswordFile(users) if users else None
    async with asyncmg.MqttBroker(authenticate=authenticate, authorize_publish=may_publish) as broker:
        listener = broker.listen(f"http://127.0.0.1:{port}", make_pages(broker))
        print(f"mqtt://127.0.0.1:{listener.port}", flush=True)
        await broker.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=1883, help="0: any free one")
    parser.add_argument("--users", help="a password file")
    options = parser.parse_args()
    asyncio.run(main(options.port, options.users))
