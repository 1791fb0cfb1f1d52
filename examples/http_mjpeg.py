"""A moving picture in an <img>: each part of the stream replaces the one before. A camera would send JPEG.

Try: open http://127.0.0.1:8000/ in a browser
"""

import argparse
import asyncio
import struct
import zlib

from asyncmg import MG_EV_HTTP_MSG, Manager

WIDTH, HEIGHT = 320, 40


def picture(position):
    """Draw a PNG: a bar at a position."""
    row = bytes(60 if abs(x - position) < 12 else 220 for x in range(WIDTH))
    content = zlib.compress((b"\0" + row) * HEIGHT)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 0, 0, 0, 0)), (b"IDAT", content), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def make_handler(frames_per_second):
    async def handler(conn, ev, data):
        if ev != MG_EV_HTTP_MSG:
            return
        if data.uri != "/stream":
            conn.reply(200, '<!doctype html><title>moving</title><img src="/stream" alt="a bar that moves">')
            return
        conn.reply_stream("multipart/x-mixed-replace", headers={"Cache-Control": "no-store"})
        position = 0
        while not conn.is_draining:
            conn.http_part(picture(position), "image/png")
            await conn.flush()  # a slow client sees fewer pictures; one that has left ends this with ConnectionClosed
            position = (position + 8) % WIDTH
            await asyncio.sleep(1 / frames_per_second)

    return handler


async def main(port, frames_per_second):
    async with Manager(make_handler(frames_per_second)) as manager:
        listener = manager.listen(f"http://127.0.0.1:{port}")
        print(f"http://127.0.0.1:{listener.port}/", flush=True)
        await manager.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--rate", type=float, default=12.0, help="pictures per second")
    options = parser.parse_args()
    asyncio.run(main(options.port, options.rate))
