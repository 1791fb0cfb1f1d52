"""An MQTT client: subscriptions with a reader of their own, messages of each QoS, a will, a ping.

Try: python examples/mqtt_client.py mqtt://localhost, with any broker. Without an argument it brings one along.
"""

import argparse
import asyncio
from contextlib import AsyncExitStack

import asyncmg


async def read_temperatures(messages):
    async for message in messages:
        print(f"{message.topic}: {float(message.text):.1f} degrees, QoS {message.qos}")
        if message.topic.endswith("/last"):
            return


async def talk(url):
    will = asyncmg.MqttWill("example/state", "gone", qos=1)
    async with asyncmg.mqtt_connect(url, will=will) as mq:
        granted = await mq.subscribe("example/state", qos=1)
        print("subscribed, QoS", *granted)
        await mq.publish("example/state", "here", qos=1)

        async with mq.subscription("example/temperature/#", qos=2) as messages:
            reading = asyncio.create_task(read_temperatures(messages))
            for qos, room in enumerate(["kitchen", "cellar", "last"]):
                await mq.publish(f"example/temperature/{room}", f"{18.5 + qos}", qos)
            await reading

        # Many at once: nothing waits but for room, and for all of them in the end.
        deliveries = [mq.publish_soon("example/many", str(number), 1) for number in range(100)]
        for delivery in deliveries:
            await delivery
        print(len(deliveries), "delivered")

        async for message in mq:  # all that no subscription of its own has got
            print("state:", message.text)
            break
        print(f"latency below a second: {await mq.ping() < 1}")


async def main(url):
    async with AsyncExitStack() as stack:
        if not url:
            broker = await stack.enter_async_context(asyncmg.MqttBroker())
            url = f"mqtt://127.0.0.1:{broker.listen('mqtt://127.0.0.1:0').port}"
        await talk(url)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="")
    asyncio.run(main(parser.parse_args().url))
