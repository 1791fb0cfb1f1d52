"""A REST service with uploads and static files, as written for Mongoose: a plain handler and a loop of poll().

Try: curl -d '{"text": "milk"}' http://127.0.0.1:8000/api/notes
     curl http://127.0.0.1:8000/api/notes/1
     curl -X DELETE http://127.0.0.1:8000/api/notes/1
     curl -F file=@README.md http://127.0.0.1:8000/upload
     curl http://127.0.0.1:8000/files/README.md
"""

import argparse
import json
import os
import re

from asyncmg import MG_EV_HTTP_MSG, Manager, http_parse_multipart, match

notes = {}
last_id = 0


def serve_notes(conn, message):
    if message.method == "GET":
        conn.reply_json(notes)
    elif message.method == "POST":
        add_note(conn, message)
    else:
        conn.reply(405, "GET or POST\n", {"Allow": "GET, POST"})


def add_note(conn, message):
    global last_id
    try:
        text = json.loads(message.body_text)["text"]
    except (ValueError, TypeError, KeyError):
        text = None
    if not isinstance(text, str):
        conn.reply_json({"error": 'expected {"text": "..."}'}, 400)
        return
    last_id += 1
    notes[str(last_id)] = text
    conn.reply_json({"id": str(last_id)}, 201, {"Location": f"/api/notes/{last_id}"})


def serve_note(conn, message, note_id):
    if note_id not in notes:
        conn.reply_json({"error": "not found"}, 404)
    elif message.method == "GET":
        conn.reply_json({"id": note_id, "text": notes[note_id]})
    elif message.method == "DELETE":
        del notes[note_id]
        conn.reply(204)
    else:
        conn.reply(405, "GET or DELETE\n", {"Allow": "GET, DELETE"})


def save_files(conn, message, folder):
    saved, offset = [], 0
    while True:
        offset, part = http_parse_multipart(message.body_bytes, offset)
        if part is None:
            break
        if part["filename"]:
            # The name is the client's: nothing of it but harmless characters of its last part.
            name = re.sub(r"[^\w.-]", "_", re.split(r"[/\\]", part["filename"])[-1]).lstrip(".") or "unnamed"
            with open(os.path.join(folder, name), "wb") as file:
                file.write(part["body"])
            saved.append(name)
    conn.reply_json({"saved": saved}, 200 if saved else 400)


def make_handler(folder):
    def handler(conn, ev, data):
        if ev != MG_EV_HTTP_MSG:
            return
        is_note, captures = match(data.uri, "/api/notes/*")
        if data.uri == "/api/notes":
            serve_notes(conn, data)
        elif is_note:
            serve_note(conn, data, captures[0])
        elif data.uri == "/upload" and data.method == "POST":
            save_files(conn, data, folder)
        elif data.uri.startswith("/files/"):
            conn.serve_dir(data, folder, prefix="/files")
        else:
            conn.reply_json({"error": "not found"}, 404)

    return handler


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--folder", default="uploads")
    options = parser.parse_args()
    os.makedirs(options.folder, exist_ok=True)
    mgr = Manager(make_handler(options.folder))
    listener = mgr.listen(f"http://127.0.0.1:{options.port}", http=True)
    print(f"http://127.0.0.1:{listener.port}", flush=True)
    try:
        while True:
            mgr.poll(100)
    except KeyboardInterrupt:
        mgr.close()
