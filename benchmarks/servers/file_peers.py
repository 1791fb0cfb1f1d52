"""One server of files for the benchmarks: ``file_peers.py NAME PORT files|upload``.

``files``: serves the folder ``www`` at ``/``. ``upload``: takes PUT of ``/up/upload.bin`` and writes its content to
that file as it comes, without a buffer of its own. Both folders are in the current one. All reply with Date and Server;
none closes a connection that is idle or has had many requests.

A name of asyncmg says what runs, as in ``http_peers.py``: family, kind of handler, loop. Files are served by a plain
handler that gets MG_EV_HTTP_MSG only; an upload is taken by an async one that gets MG_EV_HTTP_HDRS only.

Without a port it prints its names: all, or those of the mode that it is given.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .http_peers import Family, Serve

# What is shared with http_peers.py is imported where it is used: only this program runs there, whose folder is on the
# path, while the benchmarks import the names below.
Mode = Literal["files", "upload"]
FOLDER = "www"
UPLOAD = "up/upload.bin"
PACKAGES = ("aiohttp", "cymongoose", "httptools", "starlette", "uvicorn", "uvloop")

NGINX_FILES = """
        root www;
        sendfile on;
        tcp_nopush on;
"""
# Small files cost it less so: head and content leave in one write.
NGINX_WITHOUT_SENDFILE = """
        root www;
        sendfile off;
"""
# It stores the content in a file of its own (http_peers.py: client_body_temp_path) and renames that.
NGINX_UPLOAD = """
        root .;
        client_max_body_size 1g;
        client_body_buffer_size 128k;
        location /up/ { dav_methods PUT; }
"""


def _asyncmg_files(family: Family, loop: str) -> Serve:
    def serve(port: int) -> None:
        from http_peers import choose_core, run_manager

        choose_core(family)
        from asyncmg import MG_EV_HTTP_MSG

        def handler(conn: Any, ev: int, data: Any) -> None:
            if ev == MG_EV_HTTP_MSG:
                conn.serve_dir(data, FOLDER)

        run_manager(handler, family, loop, port, [MG_EV_HTTP_MSG])

    return serve


def _asyncmg_upload(family: Family, loop: str) -> Serve:
    def serve(port: int) -> None:
        from http_peers import choose_core, run_manager

        choose_core(family)
        from asyncmg import MG_EV_HTTP_HDRS

        async def handler(conn: Any, ev: int, data: Any) -> None:
            if ev == MG_EV_HTTP_HDRS:
                with open(UPLOAD, "wb", buffering=0) as file:
                    async for piece in data.stream():
                        file.write(piece)
                conn.reply(201)

        run_manager(handler, family, loop, port, [MG_EV_HTTP_HDRS])

    return serve


def _nginx(directives: str) -> Serve:
    def serve(port: int) -> None:
        from http_peers import run_nginx

        run_nginx(port, directives)

    return serve


def _starlette(app: Callable[[], Any]) -> Serve:
    def serve(port: int) -> None:
        import uvicorn
        from http_peers import HOST, IDLE_TIMEOUT

        uvicorn.run(
            app(),
            host=HOST,
            port=port,
            http="httptools",
            loop="uvloop",
            log_level="error",
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=IDLE_TIMEOUT,
        )

    return serve


def _starlette_files() -> Any:
    from starlette.staticfiles import StaticFiles

    return StaticFiles(directory=FOLDER)


def _starlette_upload() -> Any:
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    async def put(request: Any) -> Any:
        with open(UPLOAD, "wb", buffering=0) as file:
            async for piece in request.stream():
                file.write(piece)
        return Response(status_code=201)

    return Starlette(routes=[Route(f"/{UPLOAD}", put, methods=["PUT"])])


def _aiohttp(mode: Mode, loop: str) -> Serve:
    def serve(port: int) -> None:
        import asyncio

        from aiohttp import web
        from http_peers import HOST, IDLE_TIMEOUT

        async def put(request: Any) -> Any:
            with open(UPLOAD, "wb", buffering=0) as file:
                async for piece in request.content.iter_any():
                    file.write(piece)
            return web.Response(status=201)

        app = web.Application()
        if mode == "files":
            app.router.add_static("/", FOLDER)
        else:
            app.router.add_put(f"/{UPLOAD}", put)
        event_loop: asyncio.AbstractEventLoop
        if loop == "uvloop":
            import uvloop

            event_loop = uvloop.new_event_loop()
        else:
            event_loop = asyncio.new_event_loop()
        web.run_app(
            app,
            host=HOST,
            port=port,
            print=lambda *_: None,
            access_log=None,
            keepalive_timeout=IDLE_TIMEOUT,
            loop=event_loop,
        )

    return serve


def _cymongoose_files(port: int) -> None:
    import cymongoose as mongoose
    from http_peers import HOST

    # The time of the start: Mongoose sends none of its own.
    headers = f"Date: {formatdate(usegmt=True)}\r\nServer: cymongoose\r\n"

    def handler(conn: Any, ev: int, data: Any) -> None:
        if ev == mongoose.MG_EV_HTTP_MSG:
            conn.serve_dir(data, FOLDER, extra_headers=headers)

    manager = mongoose.Manager(handler)
    manager.listen(f"http://{HOST}:{port}", http=True)
    while True:
        manager.poll(1000)


def _cymongoose_upload(port: int) -> None:
    import cymongoose  # noqa: F401  # that it is missing is the better reason

    sys.exit("cannot: Mongoose holds the whole content in memory, and closes above 3 MiB (MG_MAX_RECV_SIZE)")


SERVERS: dict[str, dict[str, Serve]] = {
    "files": {
        "asyncmg native sync stdlib": _asyncmg_files("native", "stdlib"),
        "asyncmg native sync uvloop": _asyncmg_files("native", "uvloop"),
        "asyncmg native sync run()": _asyncmg_files("native", "run()"),
        "asyncmg asyncio sync uvloop": _asyncmg_files("asyncio", "uvloop"),
        "asyncmg asyncio sync stdlib": _asyncmg_files("asyncio", "stdlib"),
        "asyncmg portable sync uvloop": _asyncmg_files("portable", "uvloop"),
        "nginx": _nginx(NGINX_FILES),
        "nginx sendfile off": _nginx(NGINX_WITHOUT_SENDFILE),
        "cymongoose": _cymongoose_files,
        "uvicorn starlette uvloop": _starlette(_starlette_files),
        "aiohttp uvloop": _aiohttp("files", "uvloop"),
        "aiohttp stdlib": _aiohttp("files", "stdlib"),
    },
    "upload": {
        "asyncmg native async stdlib": _asyncmg_upload("native", "stdlib"),
        "asyncmg native async uvloop": _asyncmg_upload("native", "uvloop"),
        "asyncmg native async run()": _asyncmg_upload("native", "run()"),
        "asyncmg asyncio async uvloop": _asyncmg_upload("asyncio", "uvloop"),
        "asyncmg asyncio async stdlib": _asyncmg_upload("asyncio", "stdlib"),
        "asyncmg portable async uvloop": _asyncmg_upload("portable", "uvloop"),
        "nginx": _nginx(NGINX_UPLOAD),
        "cymongoose": _cymongoose_upload,
        "uvicorn starlette uvloop": _starlette(_starlette_upload),
        "aiohttp uvloop": _aiohttp("upload", "uvloop"),
        "aiohttp stdlib": _aiohttp("upload", "stdlib"),
    },
}


def all_names() -> list[str]:
    """Return the names of all servers, each once."""
    return list(dict.fromkeys(name for servers in SERVERS.values() for name in servers))


def main() -> None:
    if len(sys.argv) != 4:
        print("\n".join(SERVERS.get(sys.argv[1], {}) if len(sys.argv) == 2 else all_names()))
        return
    from http_peers import start

    name, port, mode = sys.argv[1:]
    start(lambda: SERVERS[mode][name](int(port)), PACKAGES)


if __name__ == "__main__":
    main()
