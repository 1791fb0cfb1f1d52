"""python -m asyncmg: demo, serve and info, as programs of their own."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import asyncmg
import asyncmg.cli.demo
import asyncmg.cli.serving
import asyncmg.core
from asyncmg.__main__ import COMMANDS, main
from asyncmg.cli import topics
from asyncmg.codecs.choice import http_codec
from asyncmg.codecs.mqtt import Publish
from tests.examples.program import Program


@contextmanager
def demo(*arguments: str) -> Iterator[tuple[Program, str, int]]:
    """Run the demo; yield it with its URL and port."""
    with Program("-m", "asyncmg", "demo", *(arguments or ("--port", "0"))) as program:
        match = re.search(r"http://\S+:(\d+)/", program.line())
        assert match
        yield program, match[0].rstrip("/"), int(match[1])


def fetch(url: str, data: bytes | None = None, **headers: str) -> tuple[int, Any, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def test_demo_serves_every_url() -> None:
    with demo() as (program, url, _):
        status, headers, page = fetch(url)
        assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8" and b"EventSource" not in page
        links = set(re.findall(r'(?:href|src)="(/[^"#]*)"', page.decode()))
        assert {"/style.css", "/app.js", "/files/hello.txt", "/events", "/stream"} <= links
        for link in links - {"/events"}:
            status, headers, body = fetch(url + link)
            assert status == 200 and body, link
        assert fetch(f"{url}/favicon.ico")[1]["Content-Type"].startswith("image/svg+xml")
        assert (
            b"http://" not in page.replace(b"http://127.0.0.1:8000", b"") and b"https://" not in page
        )  # self-contained

        told = json.loads(fetch(f"{url}/api/status")[2])
        assert told["asyncmg"] == asyncmg.__version__ and told["process"]["connections"] >= 1
        told = json.loads(fetch(f"{url}/api/echo?x=1", b"abc\xff", **{"X-Test": "yes"})[2])
        assert (told["method"], told["query"], told["body_size"], told["body"]) == ("POST", "x=1", 4, "abc�")
        assert ["X-Test", "yes"] in told["headers"]
        assert json.loads(fetch(f"{url}/api/echo")[2])["method"] == "GET"

        lines = fetch(f"{url}/stream")[2].splitlines()
        assert (lines[0], lines[-1], len(lines)) == (b"chunk 1 of 10", b"chunk 10 of 10", 10)
        for missing in ("/nothing", "/files/nothing", "/files/../demo.py", "/files/%2e%2e/app.py"):
            assert fetch(url + missing)[0] in (400, 404), missing
        assert fetch(f"{url}/upload")[0] == 405
        program.stop_cleanly()


def test_demo_streams_an_upload_without_buffering_it() -> None:
    data = bytes(range(256)) * 80_000  # 20 MB; max_body is 1 MiB
    with demo() as (program, url, _):
        told = json.loads(fetch(f"{url}/upload", data)[2])
        assert (told["size"], told["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        program.stop_cleanly()


def test_demo_page_names_the_events_as_they_are() -> None:
    site = Path(asyncmg.__file__).parent / "cli" / "site"
    rows = re.findall(r"<td>(MG_EV_\w+)</td><td>(\d+)</td>", (site / "index.html").read_text())
    assert len(rows) >= 13
    assert all(asyncmg.Event[name] == int(number) for name, number in rows)
    assert json.loads((site / "files" / "events.json").read_text()) == {event.name: event for event in asyncmg.Event}


def read_event(response: http.client.HTTPResponse) -> tuple[str, Any]:
    """Read one server-sent event: its name, and its data as JSON."""
    name, data = "", None
    while line := response.readline().rstrip(b"\n"):
        field, _, value = line.partition(b": ")
        if field == b"event":
            name = value.decode()
        elif field == b"data":
            data = json.loads(value)
    return name, data


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_stops_within_a_second_whatever_is_under_way(number: signal.Signals) -> None:
    with demo() as (program, url, port):
        events = http.client.HTTPConnection("127.0.0.1", port, timeout=10)  # keep-alive, as a browser does
        events.request("GET", "/events")
        stream = events.getresponse()
        assert stream.headers["Content-Type"] == "text/event-stream"
        assert read_event(stream)[0] == "begin"
        name, figures = read_event(stream)
        assert name == "tick" and figures["subscribers"] == 1 and figures["connections"] >= 1

        upload = socket.create_connection(("127.0.0.1", port), timeout=10)
        upload.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n" + bytes(100_000))
        slow = socket.create_connection(("127.0.0.1", port), timeout=10)
        slow.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert slow.recv(100)
        client = socket.create_connection(("127.0.0.1", port), timeout=10)
        client.sendall(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c")  # CONNECT
        assert client.recv(10) == b"\x20\x02\x00\x00"
        assert json.loads(fetch(f"{url}/api/status")[2])["process"]["connections"] == 5

        code, seconds = program.stop(number)
        assert code == 0
        assert seconds < 1, f"it took {seconds:.2f} s"
        assert program.stderr == ""
        stream.read()  # no IncompleteRead: the stream has been ended, not cut
        received = b""
        while data := slow.recv(4096):
            received += data
        assert received.endswith(b"0\r\n\r\n")
        for sock in (events, upload, slow, client):
            sock.close()


def broker_of(url: str) -> dict[str, Any]:
    """What the demo tells of its broker."""
    told: dict[str, Any] = json.loads(fetch(f"{url}/api/mqtt")[2])
    return told


def test_demo_is_an_mqtt_broker() -> None:
    async def talk(url: str, urls: list[str]) -> None:
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(
                    asyncmg.mqtt_connect(mqtt, client_id=f"c{number}", version=4 + number % 2)
                )
                for number, mqtt in enumerate(urls)
            ]
            for client in clients:
                await client.subscribe("room/+", 1)
            for number, client in enumerate(clients):
                await client.publish(f"room/{number}", f"from {number}", qos=1, retain=True)
            for client in clients:
                got = {(message.topic, message.text) for message in [await anext(client) for _ in clients]}
                assert got == {(f"room/{number}", f"from {number}") for number in range(len(clients))}
            # HTTP goes on meanwhile, and publishes as well.
            status, _, body = await asyncio.to_thread(fetch, f"{url}/api/publish?topic=room/web&qos=1", b"\x00\xff")
            assert (status, json.loads(body)) == (200, {"topic": "room/web", "receivers": 1 + len(clients)})
            for client in clients:
                message = await anext(client)
                assert (message.topic, message.payload, message.qos) == ("room/web", b"\x00\xff", 1)
            told = await asyncio.to_thread(broker_of, url)
            assert [(client["client_id"], client["version"]) for client in told["clients"]] == [
                ("c0", "3.1.1"),
                ("c1", "5.0"),
                ("c2", "3.1.1"),
                ("c3", "5.0"),
            ]
            assert told["statistics"]["subscriptions"] == 4 and told["statistics"]["messages_received"] == 4
            rows = {row["topic"]: row for row in told["topics"]}
            shown = rows["room/1"]
            assert (shown["text"], shown["size"], shown["qos"], shown["retain"], shown["count"]) == (
                "from 1",
                6,
                1,
                True,
                1,
            )
            assert (rows["room/web"]["text"], rows["room/web"]["size"]) == (None, 2)

    with demo("--port", "0", "--mqtt-port", "0") as (program, url, port):
        raw, shared = broker_of(url)["urls"]
        assert shared == f"mqtt://127.0.0.1:{port}" and raw != shared
        tunnels = [f"ws://127.0.0.1:{port}/{path}" for path in ("mqtt", "any/other")]
        asyncio.run(asyncio.wait_for(talk(url, [raw, shared, *tunnels]), 40))
        program.stop_cleanly()


def test_demo_tells_its_topics_live() -> None:
    async def watch(url: str) -> None:
        seen: dict[str, Any] = {}
        clients: list[str] = []
        async with (
            asyncmg.ws_connect(url.replace("http", "ws", 1) + "/live") as feed,
            asyncmg.mqtt_connect(url.replace("http", "mqtt", 1), client_id="watched") as mq,
        ):
            for number in range(1000):
                mq.publish_soon("busy", str(number), 1 if number == 999 else 0)
            await mq.flush()
            while seen.get("busy", {}).get("count") != 1000 or "demo/time" not in seen or "watched" not in clients:
                told = json.loads(await feed.recv())
                seen |= {row["topic"]: row for row in told.get("topics", [])}
                clients += [client["client_id"] for client in told.get("mqtt", {}).get("clients", [])]
        assert (seen["busy"]["text"], seen["busy"]["qos"]) == ("999", 1)
        # Who comes later gets the same.
        async with asyncmg.ws_connect(url.replace("http", "ws", 1) + "/live") as feed:
            later: dict[str, Any] = {}
            while later.get("busy", {}).get("count") != 1000:
                told = json.loads(await feed.recv())
                later |= {row["topic"]: row for row in told.get("topics", [])}

    with demo() as (program, url, _):
        asyncio.run(asyncio.wait_for(watch(url), 40))
        program.stop_cleanly()


def test_demo_refuses_what_it_does_not_publish() -> None:
    with demo() as (program, url, port):
        assert fetch(f"{url}/api/publish?topic=a")[0] == 405
        for query in (
            "",
            "?topic=",
            "?topic=a/%23",
            "?topic=a&qos=3",
            "?topic=a&qos=x",
            "?topic=$SYS/a",
            "?topic=a%00",
        ):
            status, _, body = fetch(f"{url}/api/publish{query}", b"x")
            assert status == 400 and json.loads(body)["error"], query
        # Pages from elsewhere neither publish nor connect.
        elsewhere = {"Origin": "http://evil.example"}
        assert fetch(f"{url}/api/publish?topic=a", b"x", **elsewhere)[0] == 403
        assert fetch(f"{url}/api/publish?topic=a", b"x", Origin=url)[0] == 200
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Protocol": "mqtt",
        }
        for origin, expected in (({}, 101), ({"Origin": url}, 101), (elsewhere, 403)):
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            client.request("GET", "/mqtt", headers={**upgrade, **origin})
            assert client.getresponse().status == expected, origin
            client.close()
        program.stop_cleanly()


def test_demo_tells_its_mqtt_clients_that_it_stops() -> None:
    async def wait(program: Program, url: str) -> None:
        mq = await asyncmg.mqtt_connect(url, reconnect=False)
        ended = asyncio.ensure_future(anext(mq))
        code, _ = await asyncio.to_thread(program.stop)
        assert (code, program.stderr) == (0, "")
        with pytest.raises(asyncmg.AsyncmgError):
            await ended
        await mq.close()

    with demo() as (program, url, _):
        asyncio.run(asyncio.wait_for(wait(program, broker_of(url)["urls"][0]), 40))


def test_demo_does_without_a_port_for_mqtt_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def serve() -> str:
        serving = asyncio.create_task(asyncmg.cli.demo._serve("127.0.0.1", 0, None))
        said = ""
        while "MQTT, 3.1.1 and 5: " not in said:
            await asyncio.sleep(0.01)
            said += capsys.readouterr().out
        serving.cancel()
        await asyncio.wait([serving])
        return said

    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(asyncmg.cli.demo, "MQTT_PORT", taken.getsockname()[1])
        monkeypatch.setattr(asyncmg.cli.serving, "_PORTS_TRIED", 1)
        said = asyncio.run(asyncio.wait_for(serve(), 30))
    url = said.split()[2].rstrip("/")
    assert f"MQTT, 3.1.1 and 5: {url.replace('http', 'mqtt')}; in WebSocket: {url.replace('http', 'ws')}/mqtt\n" in said


def test_demo_says_that_the_mqtt_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Program("-m", "asyncmg", "demo", "--port", "0", "--mqtt-port", str(port)) as program:
            assert program.process.wait(15) == 1
            assert "in use" in program.stderr and str(port) in program.stderr
            assert "Traceback" not in program.stderr


def test_previews() -> None:
    assert topics.preview(b"") == "" and topics.preview("grüße\n".encode()) == "grüße\n"
    assert topics.preview(b"\xff") is None and topics.preview(b"a\x00b") is None and topics.preview(b"a\xc3") is None
    assert topics.preview("ü".encode() * 1000) == "ü" * topics.MAX_PREVIEW + "…"
    for size in range(390, 410):  # wherever it is cut
        assert topics.preview(b"x" * (size % 4) + "𝄞".encode() * size) is not None
    assert topics.preview(b"x" * 300 + b"\xff" * 300) is None


def test_the_board_of_topics_is_bounded() -> None:
    def published(topic: str) -> asyncmg.MqttMessage:
        return asyncmg.MqttMessage(Publish(topic, b"x", 0, False))

    async def fill() -> None:
        async with asyncmg.MqttBroker() as broker:
            board = topics.TopicBoard(broker)
            assert board.portions() == [[]]
            for number in range(topics.MAX_TOPICS + 50):
                board.note(published(f"t/{number}"))
                board.note(published("always"))
            assert len(board.rows()) == topics.MAX_TOPICS and board.forgotten == 51
            assert board.rows()[-1]["topic"] == "always" and board.rows()[0]["topic"] == "t/51"
            told = [board.take_changed() for _ in range(1 + topics.MAX_TOPICS // topics.MAX_ROWS)]
            assert [len(rows) for rows in told] == [*[topics.MAX_ROWS] * (len(told) - 1), 0]
            board.note(published("t/60"))
            assert [(row["topic"], row["count"]) for row in board.take_changed()] == [("t/60", 2)]

    asyncio.run(fill())


@pytest.mark.slow
def test_demo_forgets_subscribers_that_leave() -> None:
    with demo() as (program, url, port):
        for _ in range(3):
            leaves = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            leaves.request("GET", "/events")
            assert read_event(leaves.getresponse())[0] == "begin"
            leaves.close()
        with urllib.request.urlopen(f"{url}/events", timeout=10) as stays:
            seen = -1
            while seen != 1:
                seen = read_event(stays)[1]["subscribers"]
        program.stop_cleanly()


def test_demo_says_that_a_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Program("-m", "asyncmg", "demo", "--port", str(port)) as program:
            assert program.process.wait(15) == 1
            assert "in use" in program.stderr and str(port) in program.stderr
            assert "Traceback" not in program.stderr


def test_demo_takes_the_next_free_port() -> None:
    with demo("--host", "127.0.0.1") as (first, _, one), demo("--host", "127.0.0.1") as (second, url, two):
        assert two > one >= 8000
        assert fetch(f"{url}/api/status")[0] == 200
        second.stop_cleanly()
        first.stop_cleanly()


def test_serve(tmp_path: Path) -> None:
    (tmp_path / "a b.txt").write_text("text")
    (tmp_path / "index.html").write_text("<p>index</p>")
    with Program("-m", "asyncmg", "serve", tmp_path, "--port", "0") as program:
        match = re.search(r"http://\S+:\d+", program.line())
        assert match
        assert fetch(f"{match[0]}/a%20b.txt")[2] == b"text"
        assert '"GET /a%20b.txt HTTP/1.1" 200 4' in program.line()
        assert fetch(match[0])[2] == b"<p>index</p>"
        assert fetch(f"{match[0]}/none")[0] == 404
        program.stop_cleanly()


def test_serve_lists(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / ".hidden").write_text("x")
    for options, listed, hidden in (([], 200, False), (["--no-listing"], 404, False), (["--hidden"], 200, True)):
        with Program("-m", "asyncmg", "serve", tmp_path, "--port", "0", "--log", "json", *options) as program:
            match = re.search(r"http://\S+:\d+", program.line())
            assert match
            status, _, body = fetch(match[0])
            assert (status, b"folder/" in body, b".hidden" in body) == (listed, listed == 200, hidden)
            assert json.loads(program.line())["status"] == listed
            program.stop_cleanly()


def test_serve_refuses_what_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path / "none")]) == 1
    assert "not a folder" in capsys.readouterr().err


def info(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, str], dict[str, Any]]:
    """What `info` tells people, by name, and programs."""
    assert main(["info"]) == 0
    lines = {line[:12].rstrip(): line[12:] for line in capsys.readouterr().out.splitlines()}
    assert main(["info", "--json"]) == 0
    return lines, json.loads(capsys.readouterr().out)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Neither of the two variables is set."""
    monkeypatch.delenv("ASYNCMG_CORE", raising=False)
    monkeypatch.delenv("ASYNCMG_BACKEND", raising=False)
    return monkeypatch


@pytest.fixture
def engine(environment: pytest.MonkeyPatch) -> asyncmg.core.Core:
    """A C core with an engine; without one the test is skipped, under ASYNCMG_REQUIRE_CORE=1 it fails."""
    core = asyncmg.core.load()
    if core is None or core.engine is None:
        if os.environ.get("ASYNCMG_REQUIRE_CORE") == "1":
            pytest.fail("no C core with an engine")
        pytest.skip("no C core with an engine")
    return core


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    lines, facts = info(capsys)
    names = ["asyncmg", "Python", "platform", "TLS", "event loop", "backend"]
    names += ["HTTP codec", "WS codec", "MQTT codec", "DNS codec", "SNTP codec", "C core"]
    assert list(lines) == names and "uvloop" in lines["event loop"]
    assert facts["asyncmg"] == asyncmg.__version__
    assert facts["backend"]["name"] and facts["backend"]["why"]
    assert facts["codecs"]["http"]["name"] and facts["codecs"]["http"]["why"]
    assert facts["core"]["available"] or facts["core"]["reason"]


async def chosen() -> tuple[str, str]:
    """The backend and the codec that a Manager takes."""
    async with asyncmg.Manager() as manager:
        manager.listen("http://127.0.0.1:0")
        codec = "native" if http_codec().__module__ == "asyncmg.codecs.http_native" else "portable"
        return manager.backend, codec


@pytest.mark.parametrize("core", ["auto", "off"])
@pytest.mark.parametrize("backend", ["auto", "asyncio"])
def test_info_tells_what_a_manager_takes(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], core: str, backend: str
) -> None:
    environment.setenv("ASYNCMG_CORE", core)
    environment.setenv("ASYNCMG_BACKEND", backend)
    lines, facts = info(capsys)
    assert (facts["backend"]["name"], facts["codecs"]["http"]["name"]) == asyncio.run(chosen())
    assert lines["backend"].startswith(f"{facts['backend']['name']}: {facts['backend']['why']}")
    assert lines["HTTP codec"].startswith(f"{facts['codecs']['http']['name']}, on ")


@pytest.mark.parametrize("name", ["portable", "wsproto", "native", "nonsense"])
def test_info_tells_the_websocket_codec(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    environment.setenv("ASYNCMG_WS_CODEC", name)
    _, facts = info(capsys)
    is_there = name in ("portable", "wsproto") or (name == "native" and facts["core"]["available"])
    assert facts["codecs"]["ws"]["name"] == (name if is_there else "none")
    assert "ASYNCMG_WS_CODEC" in facts["codecs"]["ws"]["why"]


@pytest.mark.parametrize("protocol", ["mqtt", "dns", "sntp"])
@pytest.mark.parametrize("name", ["portable", "native", "nonsense"])
def test_info_tells_the_codec_of_other_protocols(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], protocol: str, name: str
) -> None:
    variable = f"ASYNCMG_{protocol.upper()}_CODEC"
    environment.setenv(variable, name)
    lines, facts = info(capsys)
    is_there = name == "portable" or (name == "native" and facts["core"]["available"])
    assert facts["codecs"][protocol]["name"] == (name if is_there else "none")
    assert variable in facts["codecs"][protocol]["why"]
    assert lines[f"{protocol.upper()} codec"].startswith(f"{facts['codecs'][protocol]['name']}: ")


def test_info_with_the_core(engine: asyncmg.core.Core, capsys: pytest.CaptureFixture[str]) -> None:
    lines, facts = info(capsys)
    assert facts["core"] == {"available": True, "path": engine.path, "abi": engine.abi, "reason": ""}
    assert lines["C core"] == f"{engine.path} (ABI {engine.abi})"
    assert facts["codecs"]["http"]["name"] == "native" and "ABI" in facts["codecs"]["http"]["library"]
    assert facts["backend"]["name"] == "native"
    assert facts["backend"]["poller"] == ("epoll" if sys.platform == "linux" else "kqueue")
    assert lines["backend"].endswith(f"waits with {facts['backend']['poller']}")


@pytest.mark.parametrize("backend", ["asyncio", "native"])
def test_info_when_the_environment_names_a_backend(
    engine: asyncmg.core.Core, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], backend: str
) -> None:
    environment.setenv("ASYNCMG_BACKEND", backend)
    lines, facts = info(capsys)
    assert (facts["backend"]["name"], facts["backend"]["why"]) == (backend, f"ASYNCMG_BACKEND={backend}")
    assert ("waits with" in lines["backend"]) == (backend == "native")


def test_info_without_an_engine(
    engine: asyncmg.core.Core, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setattr(engine, "engine", None)  # as on Windows
    _, facts = info(capsys)
    assert (facts["backend"]["name"], facts["backend"]["poller"]) == ("asyncio", None)
    assert "no engine" in facts["backend"]["why"]
    assert facts["codecs"]["http"]["name"] == "native"


def test_info_when_the_system_refuses_an_engine(
    engine: asyncmg.core.Core, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setattr(engine.engine, "new", lambda config: None)
    _, facts = info(capsys)
    assert facts["backend"]["name"] == "asyncio" and "refuses" in facts["backend"]["why"]


def test_info_when_the_loop_has_no_add_reader(
    engine: asyncmg.core.Core, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class LoopWithoutReaders(asyncio.SelectorEventLoop):
        add_reader = asyncio.AbstractEventLoop.add_reader  # as Windows' proactor loop has it

    environment.setattr(asyncio, "new_event_loop", LoopWithoutReaders)
    lines, facts = info(capsys)
    assert facts["backend"]["name"] == "asyncio" and "add_reader" in facts["backend"]["why"]
    assert "LoopWithoutReaders" in lines["event loop"]


def test_info_without_the_core(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    environment.setenv("ASYNCMG_CORE", "off")
    lines, facts = info(capsys)
    assert facts["codecs"]["http"]["name"] == "portable" and facts["codecs"]["http"]["library"].startswith("h11 ")
    for name in ("backend", "HTTP codec", "C core"):
        assert "switched off by ASYNCMG_CORE=off" in lines[name]
    assert (facts["backend"]["name"], facts["backend"]["poller"]) == ("asyncio", None)


def test_info_when_no_manager_can_be_made(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    environment.setenv("ASYNCMG_CORE", "nonsense")
    lines, facts = info(capsys)
    assert facts["backend"]["name"] == facts["codecs"]["http"]["name"] == "none"
    assert all("ASYNCMG_CORE must be" in lines[name] for name in ("backend", "HTTP codec", "C core"))
    environment.setenv("ASYNCMG_CORE", "off")
    environment.setenv("ASYNCMG_BACKEND", "native")
    lines, facts = info(capsys)
    assert (facts["backend"]["name"], facts["codecs"]["http"]["name"]) == ("none", "portable")
    assert "ASYNCMG_BACKEND=native, but there is no native backend" in lines["backend"]
    environment.setenv("ASYNCMG_BACKEND", "nonsense")
    assert "ASYNCMG_BACKEND must be" in info(capsys)[0]["backend"]
    with pytest.raises(ValueError, match="ASYNCMG_BACKEND must be"):
        asyncmg.Manager()


@pytest.mark.parametrize("arguments", [["--help"], ["-V"], *([name, "--help"] for name in COMMANDS)])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert "asyncmg" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["demo", "--port", "70000"], ["demo", "--port", "x"], ["demo", "--mqtt-port", "x"]]
)
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_commands_are_imported_only_when_chosen() -> None:
    script = "import sys, asyncmg.__main__ as m; m.main(['info']); print([n for n in sys.modules if 'cli.' in n])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert result.stdout.splitlines()[-1] == "['asyncmg.cli.info']"
