"""An SNTP server that tells this machine's time, and a client of it in the manner of Mongoose.

Try: python sntp_clock.py 127.0.0.1:1123
"""

import argparse

from asyncmg import MG_EV_ERROR, MG_EV_SNTP_TIME, Manager


def client(conn, ev, data):
    if ev == MG_EV_SNTP_TIME:
        print(f"milliseconds since 1970: {data}", flush=True)
    elif ev == MG_EV_ERROR:
        print(f"no time: {data}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=1123, help="0: any free one")
    mgr = Manager()
    server = mgr.listen(f"sntp://127.0.0.1:{parser.parse_args().port}", lambda conn, ev, data: None)
    url = f"sntp://{server.local_addr}"
    print(url, flush=True)
    mgr.sntp_connect(url, client)
    mgr.run()  # until Ctrl-C
