"""A small JSON API: routing by hand, and everything that a request tells.

Try: curl -d '{"name": "Alice"}' http://127.0.0.1:8000/api/users
     curl http://127.0.0.1:8000/api/users/1
     curl 'http://127.0.0.1:8000/api/users?prefix=A'
     curl -u me:secret http://127.0.0.1:8000/api/request
"""

import argparse
import asyncio

from asyncmg import MG_EV_HTTP_MSG, Manager

users = {}


def get_user(conn, user_id):
    user = users.get(user_id)
    if user is None:
        conn.reply(404, {"error": f"no user {user_id}"})
    else:
        conn.reply(200, user)


def create_user(conn, message):
    try:
        name = message.json()["name"]
    except (ValueError, KeyError, TypeError):
        conn.reply(400, {"error": 'send JSON such as {"name": "Alice"}'})
        return
    user = {"id": str(len(users) + 1), "name": name}
    users[user["id"]] = user
    conn.reply(201, user, headers={"Location": f"/api/users/{user['id']}"})


def tell_request(conn, message):
    conn.reply(
        200,
        {
            "method": message.method,
            "uri": message.uri,  # as on the wire; message.path is decoded
            "query": message.query,
            "proto": message.proto,
            "host": message.header("Host"),
            "headers": message.headers(),  # all of them, in order
            "body": message.body_text,
        },
    )


async def handler(conn, ev, data):
    if ev != MG_EV_HTTP_MSG:
        return
    route = (data.method, data.uri)
    if route == ("POST", "/api/users"):
        create_user(conn, data)
    elif route == ("GET", "/api/users"):
        prefix = data.query_var("prefix") or ""
        conn.reply(200, [user for user in users.values() if user["name"].startswith(prefix)])
    elif data.method == "GET" and data.uri.startswith("/api/users/"):
        get_user(conn, data.uri.rpartition("/")[2])
    elif data.uri == "/api/request":
        tell_request(conn, data)
    else:
        conn.reply(404, {"error": "not found"})


async def main(port):
    async with Manager(handler) as manager:
        listener = manager.listen(f"http://127.0.0.1:{port}")
        print(f"http://127.0.0.1:{listener.port}", flush=True)
        await manager.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    asyncio.run(main(parser.parse_args().port))
