"""Uploads that resume: each request adds a piece where the file ends, and the reply is the file's new size.

Try: curl -T big.iso "http://127.0.0.1:8000/up?file=big.iso&offset=0"
     and, after it broke off: tail -c +$((SIZE + 1)) big.iso | curl -T - "http://127.0.0.1:8000/up?file=big.iso&offset=SIZE"
"""

import argparse
import asyncio
from pathlib import Path

from asyncmg import Manager, Router, StaticFiles


def make_router(folder, max_size):
    router = Router()

    @router.route("/up", methods=["POST", "PUT"], stream=True)
    async def upload(conn, message):
        await conn.http_upload_stream(message, folder, max_size)

    router.mount("/files", StaticFiles(folder, prefix="/files", listing=True))  # HEAD tells the size to go on from
    return router


async def main(port, folder, max_size):
    folder.mkdir(parents=True, exist_ok=True)
    async with Manager(make_router(folder, max_size)) as manager:
        listener = manager.listen(f"http://127.0.0.1:{port}")
        print(f"http://127.0.0.1:{listener.port}/", flush=True)
        await manager.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--folder", type=Path, default=Path("uploads"), help="where files are kept")
    parser.add_argument("--max-size", type=int, default=1 << 40, help="bytes of one file")
    options = parser.parse_args()
    asyncio.run(main(options.port, options.folder, options.max_size))
