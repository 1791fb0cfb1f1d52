"""Files from an HTML form (multipart/form-data), each under a name that is safe.

Try: curl -F file=@README.md http://127.0.0.1:8000/
"""

import argparse
import asyncio
import re
from pathlib import Path

from asyncmg import MG_EV_HTTP_MSG, Manager, http_parse_multipart

FORM = """<!doctype html>
<form method="post" enctype="multipart/form-data"><input type="file" name="file" multiple><button>Send</button></form>
"""


def safe_name(filename):
    """Return a name for a file in one folder, or None. What the client says is never a path."""
    name = re.split(r"[/\\]", filename)[-1]  # some clients send the whole path
    if not re.fullmatch(r"[\w][\w .()+-]{0,99}", name) or name.endswith((".", " ")):
        return None
    return name


def save_parts(body, folder):
    saved = []
    offset = 0
    while True:
        offset, part = http_parse_multipart(body, offset)
        if part is None:
            return saved
        if not part["filename"]:
            continue  # an ordinary field of the form
        name = safe_name(part["filename"])
        if name is None:
            raise ValueError(f"not a usable file name: {part['filename']!a}")
        with (folder / name).open("xb") as file:  # "x": never overwrite
            file.write(part["body"])
        saved.append({"name": name, "size": len(part["body"])})


def make_handler(folder):
    async def handler(conn, ev, data):
        if ev != MG_EV_HTTP_MSG:
            return
        if data.method != "POST":
            conn.reply(200, FORM)
            return
        try:
            conn.reply(200, {"saved": save_parts(data.body_bytes, folder)})
        except FileExistsError as exc:
            conn.reply(409, {"error": f"there is a file {Path(exc.filename).name} already"})
        except ValueError as exc:
            conn.reply(400, {"error": str(exc)})

    return handler


async def main(port, folder):
    folder.mkdir(parents=True, exist_ok=True)
    async with Manager(make_handler(folder)) as manager:
        listener = manager.listen(f"http://127.0.0.1:{port}")
        print(f"http://127.0.0.1:{listener.port}", flush=True)
        await manager.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--folder", type=Path, default=Path("uploads"), help="where files are kept")
    options = parser.parse_args()
    asyncio.run(main(options.port, options.folder))
