"""A small JSON API: routes, a token, pages of another origin, compression, an access log.

Try: curl -H "Authorization: Bearer secret" -X PUT -d '{"text": "milk"}' http://127.0.0.1:8000/notes/1
     curl -H "Authorization: Bearer secret" http://127.0.0.1:8000/notes
"""

import argparse
import asyncio
import logging
import sys

from asyncmg import Manager, Router, access_log, compress, cors, require_bearer

notes = {}
router = Router()


@router.get("/notes")
def every_note(conn, message):
    wanted = message.query_params.get("contains", "")
    conn.reply(200, {name: note for name, note in notes.items() if wanted in note["text"]})


@router.get("/notes/{name}")
def one_note(conn, message):
    note = notes.get(message.params["name"])
    if note is None:
        conn.reply(404, {"error": "no such note"})
    else:
        conn.reply(200, note)


@router.put("/notes/{name}")
def keep_note(conn, message):
    try:
        text = str(message.json()["text"])
    except (KeyError, TypeError, ValueError):
        conn.reply(400, {"error": 'expected {"text": ...}'})
        return
    is_new = message.params["name"] not in notes
    notes[message.params["name"]] = {"text": text}
    conn.reply(201 if is_new else 200, {"kept": message.params["name"]})


@router.delete("/notes/{name}")
def forget_note(conn, message):
    conn.reply(204 if notes.pop(message.params["name"], None) else 404)


def make_handler(token, origin):
    handler = require_bearer(router, [token])
    handler = compress(handler)
    handler = cors(handler, [origin])  # in front of the token: a preflight request has none
    return access_log(handler, "json")


async def main(port, token, origin):
    async with Manager(make_handler(token, origin)) as manager:
        listener = manager.listen(f"http://127.0.0.1:{port}")
        print(f"http://127.0.0.1:{listener.port}/", flush=True)
        await manager.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--token", default="secret")
    parser.add_argument("--origin", default="https://app.example", help="whose pages may use it")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    asyncio.run(main(options.port, options.token, options.origin))
