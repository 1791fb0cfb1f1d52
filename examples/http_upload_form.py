"""Files of any size from an HTML form: they go to the disk as they come in, and nothing is left of broken ones.

Try: curl -F note=hello -F file=@README.md http://127.0.0.1:8000/
"""

import argparse
import asyncio
from pathlib import Path

from asyncmg import MG_EV_HTTP_HDRS, FormLimits, Limits, Manager, RemoteProtocolError

PAGE = """<!doctype html>
<form method="post" enctype="multipart/form-data">
<input name="note"> <input type="file" name="file" multiple> <button>Send</button>
</form>
"""


def make_handler(folder):
    async def handler(conn, ev, data):
        if ev != MG_EV_HTTP_HDRS:
            return
        if data.method != "POST":
            conn.reply(200, PAGE)
            return
        try:
            with await data.read_form(folder) as form:
                saved = [file.save(folder).name for file in form.files.all("file")]
                conn.reply(200, {"note": form.get("note", ""), "saved": saved})
        except RemoteProtocolError as exc:
            conn.reply(exc.wire_code, {"error": str(exc)})
        except FileExistsError as exc:
            conn.reply(409, {"error": f"there is a file {Path(exc.filename).name} already"})

    return handler


async def main(port, folder):
    folder.mkdir(parents=True, exist_ok=True)
    limits = Limits(forms=FormLimits(max_file=4 << 30, max_total=5 << 30))
    async with Manager(make_handler(folder), limits=limits) as manager:
        listener = manager.listen(f"http://127.0.0.1:{port}")
        print(f"http://127.0.0.1:{listener.port}/", flush=True)
        await manager.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--folder", type=Path, default=Path("uploads"), help="where files are kept")
    options = parser.parse_args()
    asyncio.run(main(options.port, options.folder))
