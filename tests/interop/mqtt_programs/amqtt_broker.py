"""amqtt as broker: ``amqtt_broker.py TCP TLS WS CERT KEY``, three ports and two files; it prints ``ready``."""

import asyncio
import logging
import sys

from amqtt.broker import Broker


async def main() -> None:
    tcp, tls, ws, cert, key = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    common = {"max_connections": 100}
    broker = Broker(
        {
            "listeners": {
                "default": {"type": "tcp", "bind": f"127.0.0.1:{tcp}", **common},
                "tls": {"bind": f"127.0.0.1:{tls}", "ssl": True, "certfile": cert, "keyfile": key, **common},
                "ws": {"type": "ws", "bind": f"127.0.0.1:{ws}", **common},
            },
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await broker.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
