"""One HTTP server for the benchmarks: ``http_peers.py NAME PORT``. All reply 13 bytes with Date and Server.

No server closes a connection that is idle or has had many requests: the limits that would are raised.
A name of asyncmg says what runs: ``native`` and ``asyncio`` are the Manager's backends, both with the codec in C;
``portable`` is the asyncio backend under ASYNCMG_CORE=off. Then come the kind of handler, with ``msg`` when only
MG_EV_HTTP_MSG is asked for (all events otherwise), and the loop: ``stdlib`` (also where none is named), ``uvloop``, or
``run()``, outside asyncio.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from email.utils import formatdate
from typing import Any, Literal

BODY = b"Hello, World!"
HOST = "127.0.0.1"
IDLE_TIMEOUT = 24 * 3600
MANY = 10**9  # requests on one connection
MAX_CONNECTIONS = 50_000
PACKAGES = ("aiohttp", "cymongoose", "granian", "h11", "httptools", "uvicorn", "uvloop")

Family = Literal["native", "asyncio", "portable"]
Serve = Callable[[int], None]

NGINX_CONF = """
daemon off;
master_process off;
worker_processes 1;
pid nginx.pid;
error_log stderr;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    default_type text/plain;
    keepalive_timeout {idle}s;
    keepalive_requests {many};
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    scgi_temp_path scgi;
    uwsgi_temp_path uwsgi;
    server {{
        listen {host}:{port} backlog=1024;
        {directives}
    }}
}}
"""


def run_loop(main: Coroutine[Any, Any, None], loop: str) -> None:
    loop_factory = None
    if loop == "uvloop":
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main)


def choose_core(family: Family) -> None:
    """Load the core, or none: without it, only ``portable`` is what it says."""
    os.environ["ASYNCMG_CORE"] = "off" if family == "portable" else "require"
    from asyncmg import core

    core.load()


def run_manager(handler: Any, family: Family, loop: str, port: int, events: Sequence[int] | None) -> None:
    """Serve for ever; ``events`` are those that the handler gets, None: all. To be called after ``choose_core``."""
    from asyncmg import HttpLimits, Limits, Manager, NetLimits

    http = HttpLimits(max_requests=MANY, keepalive_timeout=IDLE_TIMEOUT)
    options: dict[str, Any] = {
        "backend": "native" if family == "native" else "asyncio",
        "limits": Limits(net=NetLimits(max_connections=MAX_CONNECTIONS), http=http),
    }
    if events is not None:
        options["events"] = events

    async def main() -> None:
        async with Manager(handler, **options) as manager:
            manager.listen(f"http://{HOST}:{port}")
            await manager.serve_forever()

    if loop == "run()":
        manager = Manager(handler, **options)
        manager.listen(f"http://{HOST}:{port}")
        manager.run()
    else:
        run_loop(main(), loop)


def _asyncmg(family: Family, kind: str, loop: str) -> Serve:
    def serve(port: int) -> None:
        choose_core(family)
        from asyncmg import MG_EV_HTTP_MSG

        def handler(conn: Any, ev: int, data: Any) -> None:
            if ev == MG_EV_HTTP_MSG:
                conn.reply(200, BODY)

        async def async_handler(conn: Any, ev: int, data: Any) -> None:
            if ev == MG_EV_HTTP_MSG:
                conn.reply(200, BODY)

        events = [MG_EV_HTTP_MSG] if kind.endswith(" msg") else None
        run_manager(async_handler if kind.startswith("async") else handler, family, loop, port, events)

    return serve


def run_nginx(port: int, directives: str) -> None:
    """Become nginx, as one process, in the current folder.

    Args:
        directives: of its server.
    """
    path = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if path is None:
        sys.exit("not installed: nginx (Debian: apt-get install nginx-light)")
    # Slots are reserved for every possible connection at the start: no more than there can be.
    connections = min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    config = NGINX_CONF.format(
        host=HOST, port=port, directives=directives, idle=IDLE_TIMEOUT, many=MANY, connections=connections
    )
    with open("nginx.conf", "w") as file:
        file.write(config)
    os.execv(path, [path, "-p", os.getcwd(), "-c", os.path.abspath("nginx.conf")])


def nginx(port: int) -> None:
    run_nginx(port, f'location / {{ return 200 "{BODY.decode()}"; }}')


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """The same ASGI application for uvicorn and granian."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def granian(port: int) -> None:
    """A server in Rust; one worker process below one that watches it."""
    import uvloop  # noqa: F401  # said here, not in a worker, when it is missing
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces, Loops
    from granian.http import HTTP1Settings

    Granian(
        "http_peers:asgi_app",
        address=HOST,
        port=port,
        interface=Interfaces.ASGI,
        workers=1,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        log_enabled=False,
        backpressure=MAX_CONNECTIONS,  # counts connections; 1024 unless told
        http1_settings=HTTP1Settings(header_read_timeout=IDLE_TIMEOUT * 1000),
    ).serve()


def _uvicorn(http: Literal["h11", "httptools"]) -> Serve:
    def serve(port: int) -> None:
        import uvicorn

        uvicorn.run(
            asgi_app,
            host=HOST,
            port=port,
            http=http,
            loop="uvloop",
            log_level="error",
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=IDLE_TIMEOUT,
        )

    return serve


def aiohttp(port: int) -> None:
    import uvloop
    from aiohttp import web

    async def hello(request: Any) -> Any:
        return web.Response(body=BODY, content_type="text/plain")

    app = web.Application()
    app.router.add_get("/", hello)
    web.run_app(
        app,
        host=HOST,
        port=port,
        print=lambda *_: None,
        access_log=None,
        keepalive_timeout=IDLE_TIMEOUT,
        loop=uvloop.new_event_loop(),
    )


def cymongoose(port: int) -> None:
    """Mongoose and its binding, polled without asyncio."""
    import cymongoose as mongoose

    # The time of the start: a header that changes would have to be made anew in Python.
    headers = {"Content-Type": "text/plain", "Date": formatdate(usegmt=True), "Server": "cymongoose"}

    def handler(conn: Any, ev: int, data: Any) -> None:
        if ev == mongoose.MG_EV_HTTP_MSG:
            conn.reply(200, BODY, headers=headers)

    manager = mongoose.Manager(handler)
    manager.listen(f"http://{HOST}:{port}", http=True)
    while True:
        manager.poll(1000)


async def _serve_protocol(factory: Callable[[], asyncio.Protocol], port: int) -> None:
    server = await asyncio.get_running_loop().create_server(factory, HOST, port, backlog=1024)
    await server.serve_forever()


def h11_bare(port: int) -> None:
    """The barest server on h11: parse, reply, next."""
    import h11

    made, date = 0, ""

    def fields() -> list[tuple[str, str]]:
        nonlocal made, date
        now = int(time.time())
        if now != made:
            made, date = now, formatdate(now, usegmt=True)
        length = str(len(BODY))
        return [("Content-Type", "text/plain"), ("Content-Length", length), ("Date", date), ("Server", "h11")]

    class Bare(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.h11 = h11.Connection(h11.SERVER)

        def data_received(self, data: bytes) -> None:
            connection = self.h11
            connection.receive_data(data)
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                if isinstance(event, h11.EndOfMessage):
                    parts = [
                        connection.send(h11.Response(status_code=200, headers=fields())),
                        connection.send(h11.Data(data=BODY)),
                        connection.send(h11.EndOfMessage()),
                    ]
                    self.transport.write(b"".join(part or b"" for part in parts))
                    connection.start_next_cycle()

    run_loop(_serve_protocol(Bare, port), "uvloop")


def _constant(loop: str) -> Serve:
    """A protocol that parses nothing: the floor of a loop."""

    def serve(port: int) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n" % len(BODY)
        reply = head + b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: constant\r\n\r\n" + BODY

        class Constant(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def data_received(self, data: bytes) -> None:
                self.transport.write(reply * data.count(b"\r\n\r\n"))

        run_loop(_serve_protocol(Constant, port), loop)

    return serve


SERVERS: dict[str, Serve] = {
    "asyncmg native async stdlib": _asyncmg("native", "async", "stdlib"),
    "asyncmg native sync stdlib": _asyncmg("native", "sync", "stdlib"),
    "asyncmg native async uvloop": _asyncmg("native", "async", "uvloop"),
    "asyncmg native sync uvloop": _asyncmg("native", "sync", "uvloop"),
    "asyncmg native async msg": _asyncmg("native", "async msg", "stdlib"),
    "asyncmg native sync msg": _asyncmg("native", "sync msg", "stdlib"),
    "asyncmg native sync run()": _asyncmg("native", "sync", "run()"),
    "asyncmg asyncio async uvloop": _asyncmg("asyncio", "async", "uvloop"),
    "asyncmg asyncio sync uvloop": _asyncmg("asyncio", "sync", "uvloop"),
    "asyncmg asyncio async stdlib": _asyncmg("asyncio", "async", "stdlib"),
    "asyncmg asyncio sync stdlib": _asyncmg("asyncio", "sync", "stdlib"),
    "asyncmg portable async uvloop": _asyncmg("portable", "async", "uvloop"),
    "asyncmg portable sync uvloop": _asyncmg("portable", "sync", "uvloop"),
    "asyncmg portable async stdlib": _asyncmg("portable", "async", "stdlib"),
    "asyncmg portable sync stdlib": _asyncmg("portable", "sync", "stdlib"),
    "nginx": nginx,
    "granian asgi uvloop": granian,
    "cymongoose": cymongoose,
    "uvicorn httptools uvloop": _uvicorn("httptools"),
    "uvicorn h11 uvloop": _uvicorn("h11"),
    "aiohttp uvloop": aiohttp,
    "h11 bare uvloop": h11_bare,
    "constant reply uvloop": _constant("uvloop"),
    "constant reply stdlib": _constant("stdlib"),
}


def start(serve: Callable[[], None], packages: Sequence[str]) -> None:
    """Serve, with as many open files as there may be; exit with a word where one of these packages is missing."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with contextlib.suppress(KeyboardInterrupt):
            serve()
    except ModuleNotFoundError as exc:
        if exc.name in packages:
            sys.exit(f"not installed: {exc.name}")
        raise


def main() -> None:
    if len(sys.argv) != 3:
        print("\n".join(SERVERS))
        return
    start(lambda: SERVERS[sys.argv[1]](int(sys.argv[2])), PACKAGES)


if __name__ == "__main__":
    main()
