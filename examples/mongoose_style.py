"""A program as written for Mongoose: a plain handler and a loop of poll(). No asyncio in sight.

Try: curl http://127.0.0.1:8000/
"""

import argparse

from asyncmg import MG_EV_HTTP_MSG, Manager


def handler(conn, ev, data):
    if ev == MG_EV_HTTP_MSG:
        conn.reply(200, f"You asked for {data.uri}\n")
        conn.drain()  # flush, then close


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    mgr = Manager(handler)
    listener = mgr.listen(f"http://127.0.0.1:{parser.parse_args().port}", http=True)
    print(f"http://127.0.0.1:{listener.port}", flush=True)
    try:
        while True:
            mgr.poll(100)
    except KeyboardInterrupt:
        mgr.close()
