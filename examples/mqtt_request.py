"""Request and response over MQTT 5: a service that others call, and a client that calls it.

Try: python examples/mqtt_request.py mqtt://localhost, with any broker for MQTT 5. Without an argument it brings one
along.
"""

import argparse
import asyncio
from contextlib import AsyncExitStack

import asyncmg


async def serve(mq, requests):
    """Answer requests until it is cancelled."""
    async for request in requests:
        try:
            answer = str(int(request.text) ** 2)
        except ValueError:
            answer = f"not a number: {request.text}"
        await mq.respond(request, answer, qos=1)


async def call(mq):
    for number in ("7", "12", "x"):
        response = await mq.request("example/square", number, qos=1, timeout=5)
        print(f"{number} squared: {response.text}")

    responses = await asyncio.gather(*(mq.request("example/square", str(number)) for number in range(5)))
    print("at the same time:", *(response.text for response in responses))

    try:
        await mq.request("example/nobody", "hello", timeout=0.2)
    except TimeoutError as error:
        print("no response:", error)


async def main(url):
    async with AsyncExitStack() as stack:
        if not url:
            broker = await stack.enter_async_context(asyncmg.MqttBroker())
            url = f"mqtt://127.0.0.1:{broker.listen('mqtt://127.0.0.1:0').port}"
        service = await stack.enter_async_context(asyncmg.mqtt_connect(url))
        client = await stack.enter_async_context(asyncmg.mqtt_connect(url))
        requests = await stack.enter_async_context(service.subscription("example/square", qos=1))
        serving = asyncio.create_task(serve(service, requests))
        await call(client)
        serving.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="")
    asyncio.run(main(parser.parse_args().url))
