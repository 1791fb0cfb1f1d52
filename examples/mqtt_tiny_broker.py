"""A tiny MQTT broker in a handler, as Mongoose users write it: raw events, answered by verbs. QoS 0, no sessions.

Try: python examples/mqtt_tiny_broker.py
     mosquitto_sub -t 'room/#' -v
     mosquitto_pub -t room/temperature -m 21.5

For a whole broker see examples/mqtt_broker.py.
"""

import argparse
from contextlib import suppress

from asyncmg import MG_EV_CLOSE, MG_EV_MQTT_CMD, MG_EV_MQTT_MSG, AsyncmgError, Manager
from asyncmg.codecs.mqtt import CONNECT, PINGREQ, SUBSCRIBE, UNSUBSCRIBE
from asyncmg.codecs.mqtt_topics import matches

subscriptions = {}  # by connection: topic filters


def handler(conn, ev, data):
    if ev == MG_EV_MQTT_CMD:
        if data.cmd == CONNECT:
            subscriptions[conn] = set()
            conn.mqtt_connack()
        elif data.cmd == SUBSCRIBE:
            subscriptions[conn] |= {topic_filter for topic_filter, _ in data.filters}
            conn.mqtt_suback(data.id, [0] * len(data.filters))  # QoS 0 is granted
        elif data.cmd == UNSUBSCRIBE:
            subscriptions[conn] -= {topic_filter for topic_filter, _ in data.filters}
            conn.mqtt_unsuback(data.id, [0] * len(data.filters))
        elif data.cmd == PINGREQ:
            conn.mqtt_pong()
    elif ev == MG_EV_MQTT_MSG:
        for client, filters in subscriptions.items():
            if any(matches(topic_filter, data.topic) for topic_filter in filters):
                with suppress(AsyncmgError):  # it is about to leave, or does not take so much
                    client.mqtt_pub(data.topic, data.data)
    elif ev == MG_EV_CLOSE:
        subscriptions.pop(conn, None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=1883, help="0: any free one")
    mgr = Manager(handler)
    listener = mgr.mqtt_listen(f"mqtt://127.0.0.1:{parser.parse_args().port}")
    print(f"mqtt://127.0.0.1:{listener.port}", flush=True)
    try:
        while True:
            mgr.poll(100)
    except KeyboardInterrupt:
        mgr.close()
