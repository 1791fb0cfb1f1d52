"""The benchmarks run: a figure that nobody can reproduce is none."""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from asyncmg.core import load

from .peers import peer

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
BRIEF = ["--rounds", "1", "--seconds", "1", "--warm-up", "0"]
# How busy a server was is not for a test to say.
NOTES = re.compile("  (THE LOAD WAS THE BOTTLENECK|neither was busy|others used the cores)")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def run(program: str, *options: str) -> str:
    peer("wrk")
    return run_program(program, *BRIEF, *options)


def run_program(program: str, *options: str) -> str:
    command = [sys.executable, str(BENCHMARKS / program), *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def may_be_left_out(server: str, reason: str) -> bool:
    """Peers may be missing; ours only where there is no core."""
    if server.startswith(("asyncmg portable", "asyncmg wsproto", "floor uvloop", "floor os.write")):
        return False
    core = load()
    if server.startswith("asyncmg asyncio"):
        return core is None
    if server.startswith(("asyncmg native", "floor native")):
        return core is None or core.engine is None
    if server == "cymongoose" and reason.startswith("cannot: Mongoose holds the whole content in memory"):
        return True  # an upload of 64 MiB
    return reason.startswith("not installed")


def check_tables(out: str, servers: set[str], tables: int) -> None:
    """Every server is a row without errors in each table, or was left out for a good reason."""
    rows: list[str] = []
    for line in out.splitlines():
        server, separator, reason = line.partition(": left out: ")
        if separator and server in servers:  # --only takes parts of names: others may be there as well
            assert may_be_left_out(server, reason), line
            rows.append(server)
        elif line[:30].strip() in servers:
            figures = NOTES.sub("", line[30:]).split()
            assert "ERRORS" not in line and "FAILED" not in line, line
            # A difference of two measurements may be below zero: what a few connections take is less than the noise.
            assert all(figure == "-" or math.isfinite(float(figure)) for figure in figures), line
            assert float(figures[0]) > 0, line
            rows.append(line[:30].strip())
    assert sorted(rows) == sorted([*servers] * tables), out


def listed(program: str, *mode: str) -> set[str]:
    return set(run_program(f"servers/{program}", *mode).splitlines())


def test_every_server() -> None:
    servers = listed("http_peers.py")
    assert {"nginx", "cymongoose", "granian asgi uvloop", "h11 bare uvloop"} < servers
    check_tables(run("http_server.py", "--workload", "keepalive64"), servers, tables=1)


def test_every_workload() -> None:
    workloads = ["keepalive64", "one", "many256", "pipelined16"]
    raw = json.loads(run("http_server.py", "--json", "--only", "portable async uvloop,h11 bare"))
    assert list(raw) == workloads
    for servers in raw.values():
        assert set(servers) == {"asyncmg portable async uvloop", "h11 bare uvloop"}
        for [figures] in servers.values():
            assert figures["errors"] == 0
            assert figures["cpu_us"] > 0 and figures["rate"] > 0
            assert figures["p50_us"] >= 0  # wrk tells none for pipelined requests


def test_idle_connections() -> None:
    servers = {
        "asyncmg native async uvloop",
        "asyncmg native sync run()",
        "asyncmg asyncio async uvloop",
        "asyncmg portable async uvloop",
        "nginx",
        "granian asgi uvloop",
        "cymongoose",
        "uvicorn httptools uvloop",
        "aiohttp uvloop",
    }
    out = run("http_idle.py", "--connections", "50", "--idle", "50", "--only", ",".join(servers))
    check_tables(out, servers, tables=2)
    assert "memory of 50 idle connections" in out and "alone and beside 50 idle ones" in out


def test_no_such_server() -> None:
    command = [sys.executable, str(BENCHMARKS / "http_server.py"), "--only", "no such server"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 1
    assert "no server has a name" in result.stderr


# -- files -------------------------------------------------------------------------------------------------------------


def test_every_server_of_files() -> None:
    servers = listed("file_peers.py", "files")
    assert {"nginx", "cymongoose", "uvicorn starlette uvloop", "aiohttp stdlib"} < servers
    assert all(len(name) <= 30 for name in servers)
    check_tables(run("http_files.py", "--workload", "get-100k"), servers, tables=1)


def test_every_server_of_a_large_file() -> None:
    check_tables(run("http_files.py", "--workload", "get-64m"), listed("file_peers.py", "files"), tables=1)


def test_every_upload() -> None:
    servers = listed("file_peers.py", "upload")
    assert servers < listed("file_peers.py") and len(servers) >= 11
    check_tables(run("http_files.py", "--workload", "put-*"), servers, tables=1)


def test_every_workload_of_files() -> None:
    raw = json.loads(run("http_files.py", "--json", "--only", "asyncmg portable"))
    assert list(raw) == ["get-1k", "get-100k", "get-64m", "put-64m"]
    for name, servers in raw.items():
        kind = "async" if name == "put-64m" else "sync"
        assert list(servers) == [f"asyncmg portable {kind} uvloop"]
        for [figures] in servers.values():
            assert figures["errors"] == 0
            assert figures["cpu_us"] > 0 and figures["rate"] > 0
            assert figures["server_share"] > 0 and figures["load_share"] > 0
            assert figures["peak_rss"] > 2**20


SIZE = 100_000


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * SIZE, ""),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 100000\r\n\r\n" + b"x" * SIZE, "404 Not Found"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + b"x" * SIZE, "Content-Length 99999"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * (SIZE + 1), "1 bytes more"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * (SIZE - 1), "closed the connection"),
        (b"x" * SIZE, "without an end"),
    ],
)
async def test_downloads_see_what_is_wrong(reply: bytes, error: str) -> None:
    await check_transfer(["get", "/f", str(SIZE), "0", "2"], reply, error)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok", ""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n", "413 Content Too Large"),
        (b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\no", "closed the connection"),
    ],
)
async def test_uploads_see_what_is_wrong(reply: bytes, error: str, tmp_path: Path) -> None:
    file = tmp_path / "upload"
    file.write_bytes(b"x" * SIZE)
    await check_transfer(["put", "/f", str(SIZE), "0", str(file)], reply, error)


async def check_transfer(arguments: list[str], reply: bytes, error: str) -> None:
    """Let the load transfer files with a server that gives this reply, then closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"PUT"):
            await reader.readexactly(SIZE)
        writer.write(reply)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        command = ["-m", "loads.transfers", arguments[0], str(port), *arguments[1:]]
        load = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=BENCHMARKS, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await load.communicate()
    assert error in err.decode()
    assert (load.returncode == 0) == (not error), err
    if not error:
        figures = json.loads(out)
        assert figures["transfers"] == (2 if arguments[0] == "get" else 1)
        assert figures["bytes"] == figures["transfers"] * SIZE


# -- WebSocket ---------------------------------------------------------------------------------------------------------

BRIEF_WS = ["--rounds", "1", "--seconds", "0.3", "--warm-up", "0", "--connections", "8"]
ECHOES = ("pingpong1", "pingpong64", "inflight1", "inflight64")


def run_ws(program: str, *options: str) -> str:
    peer("cc")
    return run_program(program, *options)


def test_every_websocket_server() -> None:
    servers = listed("ws_peers.py")
    assert {"picows uvloop", "websockets uvloop", "aiohttp uvloop", "wsproto bare uvloop", "cymongoose"} < servers
    assert all(len(name) <= 30 for name in servers)
    check_tables(
        run_ws("websocket.py", *BRIEF_WS, "--workload", "inflight64-64k"), servers - {"floor os.write"}, tables=1
    )


def test_every_broadcast() -> None:
    check_tables(run_ws("websocket.py", *BRIEF_WS, "--workload", "broadcast-64b"), listed("ws_peers.py"), tables=1)


def test_every_websocket_workload() -> None:
    workloads = [f"{kind}-{size}" for size in ("64b", "1k", "64k") for kind in ECHOES] + [
        "broadcast-64b",
        "broadcast-1k",
    ]
    raw = json.loads(run_ws("websocket.py", *BRIEF_WS, "--json", "--only", "portable sync uvloop,floor uvloop"))
    assert list(raw) == workloads
    for servers in raw.values():
        assert set(servers) == {"asyncmg portable sync uvloop", "floor uvloop"}
        for [figures] in servers.values():
            assert figures["errors"] == 0
            assert figures["cpu_us"] > 0 and figures["rate"] > 0
            assert 0 < figures["p50_us"] <= figures["p99_us"]
            assert 0 < figures["server_share"] < 1.1 and 0 < figures["load_share"] < 1.1


def test_text_messages() -> None:
    out = run_ws(
        "websocket.py",
        *BRIEF_WS,
        "--text",
        "--workload",
        "inflight1-1k",
        "--only",
        "portable sync uvloop,portable async",
    )
    check_tables(out, {"asyncmg portable sync uvloop", "asyncmg portable async for"}, tables=1)


def test_idle_websockets() -> None:
    servers = {
        "asyncmg native sync run()",
        "asyncmg native async for",
        "asyncmg asyncio sync uvloop",
        "asyncmg portable sync uvloop",
        "picows uvloop",
        "websockets uvloop",
        "aiohttp uvloop",
    }
    options = ["--rounds", "1", "--connections", "50", "--ping-interval", "0.3", "--seconds", "1"]
    # One that sends no ping would be left out.
    out = run_ws("websocket_idle.py", *options, "--only", ",".join(servers))
    check_tables(out, servers, tables=1)
    assert "50 idle connections, a ping on each every 0.3 s" in out


def test_no_such_websocket_server() -> None:
    peer("cc")
    command = [sys.executable, str(BENCHMARKS / "websocket.py"), "--only", "no such server"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "no server has a name" in result.stderr


def test_no_compiler(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "websocket.py"), "--only", "floor uvloop"]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={"PATH": str(tmp_path)}
    )
    assert result.returncode == 1
    assert "a C compiler is missing" in result.stderr


HANDSHAKE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (lambda payload: b"\x82\x40" + payload, ""),
        (lambda payload: b"\x02\x20" + payload[:32] + b"\x89\x01x" + b"\x80\x20" + payload[32:], ""),
        (lambda payload: b"\x82\x40" + payload[:-1] + b"?", "other contents"),
        (lambda payload: b"\x82\x3f" + payload[:-1], "shorter"),
        (lambda payload: b"\x82\x41" + payload + b"?", "longer"),
        (lambda payload: b"\x81\x40" + payload, "another type"),
        (lambda payload: b"\xc2\x40" + payload, "reserved bit"),
        (lambda payload: b"\x82\xc0\0\0\0\0" + payload, "masked"),
        (lambda payload: (b"\x82\x40" + payload) * 2, "other contents"),
        (lambda payload: b"\x88\x00", "closed a connection"),
    ],
)
async def test_load_sees_what_is_wrong(reply: Callable[[bytes], bytes], error: str) -> None:
    peer("cc")
    code = "from loads.ws_load import require_load; print(require_load())"
    program = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, check=True)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HANDSHAKE)
        try:
            while True:
                head = await reader.readexactly(2)
                size = head[1] & 127
                key = await reader.readexactly(4)
                payload = bytes(byte ^ key[i & 3] for i, byte in enumerate(await reader.readexactly(size)))
                if head == b"\x82\xc0":
                    writer.write(reply(payload))
                else:
                    assert (head[0], payload) == (0x8A, b"x")  # the pong
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        options = ["mode=echo", f"port={port}", "connections=1", "depth=1", "size=64", "seconds=0.2"]
        load = await asyncio.create_subprocess_exec(program.stdout.strip(), *options, stdout=subprocess.PIPE)
        out, _ = await load.communicate()
    assert load.returncode == 0
    figures = json.loads(out)
    assert error in figures["error"]
    assert figures["errors"] == bool(error)
    if not error:
        assert figures["messages"] > 0


# -- MQTT --------------------------------------------------------------------------------------------------------------

BRIEF_MQTT = ["--rounds", "1", "--seconds", "0.3", "--warm-up", "0"]


def run_mqtt(program: str, *options: str) -> str:
    peer("cc")
    return run_program(program, *BRIEF_MQTT, *options)


def test_every_mqtt_broker() -> None:
    servers = listed("mqtt_peers.py")
    assert {"asyncmg native stdlib", "asyncmg asyncio uvloop", "mosquitto", "aedes", "amqtt"} < servers
    check_tables(run_mqtt("mqtt.py", "--workload", "10-10-qos2-64b"), servers, tables=1)


def test_every_mqtt_workload() -> None:
    fans = [f"{fan}-qos{qos}" for fan in ("1-1", "10-10", "1-100") for qos in (0, 1, 2)]
    raw = json.loads(run_mqtt("mqtt.py", "--json", "--only", "asyncmg portable,mosquitto"))
    assert list(raw) == [f"{fan}-{size}" for size in ("64b", "4k") for fan in fans]
    for servers in raw.values():
        assert "asyncmg portable uvloop" in servers
        for [figures] in servers.values():
            assert figures["errors"] == figures["lost"] == 0
            assert figures["cpu_us"] > 0 and figures["load_us"] > 0 and figures["rate"] > 0
            assert 0 < figures["p50_us"] <= figures["p99_us"]
            assert 0 < figures["broker_share"] < 1.1 and 0 < figures["load_share"] < 1.1


def test_mqtt_5() -> None:
    out = run_mqtt("mqtt.py", "--version", "5", "--workload", "1-1-qos2-4k", "--only", "portable,mosquitto,aedes")
    check_tables(out, {"asyncmg portable uvloop", "mosquitto"}, tables=1)
    assert "MQTT 5.0" in out and "aedes:" not in out


def test_every_mqtt_client() -> None:
    clients = listed("mqtt_client_peers.py")
    assert {"asyncmg native stdlib", "gmqtt uvloop", "paho", "aiomqtt uvloop", "amqtt"} < clients
    out = run_mqtt("mqtt_clients.py", "--workload", "publish-qos1-64b,receive-qos1-64b")
    check_tables(out, clients, tables=2)


def test_every_workload_of_mqtt_clients() -> None:
    kinds = ["publish-qos0", "publish-qos1", "publish-qos2", "each-qos1", "each-qos2"]
    kinds += ["receive-qos0", "receive-qos1", "receive-qos2"]
    raw = json.loads(run_mqtt("mqtt_clients.py", "--json", "--version", "5", "--only", "asyncmg portable,aiomqtt"))
    assert list(raw) == [f"{kind}-{size}" for size in ("64b", "4k") for kind in kinds]
    for clients in raw.values():
        assert "asyncmg portable uvloop" in clients
        for [figures] in clients.values():
            assert figures["cpu_us"] > 0 and figures["rate"] > 0
            assert 0 < figures["client_share"] < 1.1 and 0 < figures["load_share"] < 1.1


def test_idle_mqtt_clients() -> None:
    servers = {"asyncmg native stdlib", "asyncmg asyncio uvloop", "asyncmg portable uvloop", "mosquitto", "aedes"}
    options = ["--rounds", "1", "--clients", "50", "--ping-interval", "0.3", "--seconds", "1"]
    peer("cc")
    out = run_program("mqtt_idle.py", *options, "--only", ",".join(servers))
    check_tables(out, servers, tables=1)
    assert "50 idle clients, a ping of each every 0.3 s" in out


def test_every_utility() -> None:
    raw = json.loads(run_program("utilities.py", "--rounds", "1", "--seconds", "0.02", "--warm-up", "0", "--json"))
    assert {"json-small", "url-host", "match", "sha256-1k"} <= set(raw)
    for rows in raw.values():
        assert "asyncmg" in rows and all(figures["cpu_us"] > 0 for [figures] in rows.values())


def test_rpc() -> None:
    out = run_program("rpc.py", "--rounds", "1", "--calls", "200").splitlines()
    assert any(line.startswith("us of CPU per frame") for line in out)
    rows = [line for line in out if line.startswith(("sum", "notification", "by a", "no such", "10 KB", "batch"))]
    assert len(rows) == 7
    assert all(float(figure) > 0 for line in rows for figure in line[28:].split() if figure != "-")


def test_every_sntp_server_and_client() -> None:
    out = run_program("sntp.py", "--quick")
    check_tables(out, listed("sntp_peers.py"), tables=1)
    assert "server: 32 requests" in out and "client: 1 requests" in out


def test_every_dns_resolver() -> None:
    peer("cc")
    out = run_program("dns.py", "--quick")
    check_tables(out, listed("dns_peers.py"), tables=3)
    assert "one: one look-up" in out and "many64: 64" in out and "cached: one name" in out


@pytest.mark.parametrize("program", ["mqtt.py", "mqtt_clients.py", "mqtt_idle.py"])
def test_no_such_mqtt_peer(program: str) -> None:
    peer("cc")
    command = [sys.executable, str(BENCHMARKS / program), "--only", "no such server"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "no server has a name" in result.stderr


class WrongBroker:
    """A broker for one publisher and one subscriber at QoS 1; what it delivers is for a test to say."""

    def __init__(self, deliver: Callable[[bytes, int], bytes]) -> None:
        self._deliver = deliver
        self._subscriber: asyncio.StreamWriter | None = None
        self._count = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                first, size = await reader.readexactly(2)
                body = await reader.readexactly(size)
                if first >> 4 == 1:
                    writer.write(b"\x20\x02\x00\x00")
                elif first >> 4 == 8:
                    self._subscriber = writer
                    writer.write(b"\x90\x03" + body[:2] + b"\x01")
                elif first >> 4 == 3:
                    assert self._subscriber is not None
                    writer.write(b"\x40\x02" + body[12:14])
                    self._subscriber.write(self._deliver(bytes((first, size)) + body, self._count))
                    self._count += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.mark.parametrize(
    ("deliver", "error"),
    [
        (lambda packet, number: packet, ""),
        (lambda packet, number: packet if number != 3 else b"", "a message was lost"),
        (lambda packet, number: packet * (2 if number == 3 else 1), "a message came twice"),
        (lambda packet, number: packet if number < 9 else b"", "not all messages arrived"),
        (lambda packet, number: packet[:-1] + b"?", "other contents"),
        (lambda packet, number: packet[:5] + b"?" + packet[6:], "another topic"),
        (lambda packet, number: b"\x34" + packet[1:], "other flags"),
        (lambda packet, number: b"\x33" + packet[1:], "other flags"),
        (lambda packet, number: packet[:1] + bytes((packet[1] + 1,)) + packet[2:] + b"?", "another length"),
        (lambda packet, number: packet[:1] + bytes((packet[1] - 1,)) + packet[2:-1], "another length"),
        (lambda packet, number: packet[:1] + bytes((packet[1] - 9,)) + packet[2:-9], "too short"),
        (lambda packet, number: b"\xe0\x00", "disconnected"),
        (lambda packet, number: b"\x62\x02\x00\x01", "PUBREL that was not waited for"),
        (lambda packet, number: b"\x40\x02\x00\x01", "not waited for"),
        (lambda packet, number: b"\x30\xff\xff\xff\xff", "no packet"),
    ],
)
async def test_load_of_brokers_sees_what_is_wrong(deliver: Callable[[bytes, int], bytes], error: str) -> None:
    peer("cc")
    code = "from loads.mqtt_load import compiled; print(compiled('mqtt_load'))"
    program = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    async with await asyncio.start_server(WrongBroker(deliver), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        # What does not come is waited for: not for long where that is the point.
        seconds = 1 if error.startswith("not all") else 30
        options = [f"port={port}", "qos=1", "size=64", "messages=10", f"seconds={seconds}", "window=10"]
        load = await asyncio.create_subprocess_exec(program.stdout.strip(), *options, stdout=subprocess.PIPE)
        out, _ = await load.communicate()
    assert load.returncode == 0
    figures = json.loads(out)
    assert error in figures["error"]
    assert figures["errors"] == bool(error)
    assert (figures["lost"] == 0) == (not error)
    assert (figures["deliveries"] == 10) == (not error)
