"""Slow work in a thread: the request waits for its reply, the loop does not.

Manager.wakeup() may be called from any thread; its data comes as MG_EV_WAKEUP to the connection.

Try: curl http://127.0.0.1:8000/30
"""

import argparse
import queue
import threading

from asyncmg import MG_EV_HTTP_MSG, MG_EV_WAKEUP, Manager

jobs = queue.SimpleQueue()


def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def work(manager):
    while (job := jobs.get()) is not None:
        conn_id, n = job
        # False when the client has left meanwhile: nothing to do about it.
        manager.wakeup(conn_id, f"fibonacci({n}) = {fibonacci(n)}\n".encode())


def handler(conn, ev, data):
    if ev == MG_EV_HTTP_MSG:
        number = data.uri[1:]
        if number.isdecimal() and int(number) <= 32:
            jobs.put((conn.id, int(number)))  # the reply comes later
        else:
            conn.reply(400, "ask for a number up to 32\n")
    elif ev == MG_EV_WAKEUP:
        conn.reply(200, data)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    mgr = Manager(handler, enable_wakeup=True)
    listener = mgr.listen(f"http://127.0.0.1:{parser.parse_args().port}")
    print(f"http://127.0.0.1:{listener.port}", flush=True)
    worker = threading.Thread(target=work, args=(mgr,), daemon=True)
    worker.start()
    mgr.run()  # until Ctrl-C
    jobs.put(None)
    worker.join(5)
