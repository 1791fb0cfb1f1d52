"""A folder over HTTP, with listings, ranges, conditional requests and pre-compressed files. No handler is written.

Try: curl -r 0-99 http://127.0.0.1:8000/README.md
"""

import argparse
import asyncio

from asyncmg import Manager, StaticFiles


async def main(port, folder):
    files = StaticFiles(folder, listing=True, cache_control="max-age=60")
    async with Manager(files) as manager:
        listener = manager.listen(f"http://127.0.0.1:{port}")
        print(f"http://127.0.0.1:{listener.port}/", flush=True)
        await manager.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("folder", nargs="?", default=".", help="what is served")
    options = parser.parse_args()
    asyncio.run(main(options.port, options.folder))
