"""Access logs: the lines."""

from __future__ import annotations

import json
import logging
import re
import time
from types import SimpleNamespace
from typing import Any

import pytest

from asyncmg.addresses import Address
from asyncmg.errors import AsyncmgError, DeadlineExceeded, RemoteProtocolError
from asyncmg.events import MG_EV_ERROR, MG_EV_HTTP_HDRS, MG_EV_HTTP_MSG
from asyncmg.handlers.access_log import access_log

from .fakes import FakeConnection, call, give, request

WHEN = 971211336.5  # 10 October 2000, 13:55:36 -0700, as in Apache's manual


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "UTC+7")
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: WHEN)
    ticks = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks) * 0.0125)
    yield
    monkeypatch.undo()
    time.tzset()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "asyncmg.access"]


def connection() -> Any:
    conn = FakeConnection()
    conn.remote_addr = Address("127.0.0.1", 50000)  # type: ignore[assignment]
    return conn


def hello(conn: Any, ev: int, data: Any) -> None:
    if ev == MG_EV_HTTP_MSG:
        data.params["user"] = "frank"
        conn.reply(200, b"x" * 2326)


PICTURE = request(
    "/apache_pb.gif?a=b",
    "GET",
    ("Referer", "http://www.example.com/start.html"),
    ("User-agent", "Mozilla/4.08 [en] (Win98; I ;Nav)"),
    proto="HTTP/1.0",
)
COMMON = '127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /apache_pb.gif?a=b HTTP/1.0" 200 2326'


@pytest.mark.parametrize("is_async", [False, True])
async def test_common_and_combined(caplog: pytest.LogCaptureFixture, is_async: bool) -> None:
    async def hello_async(conn: Any, ev: int, data: Any) -> None:
        hello(conn, ev, data)

    caplog.set_level(logging.INFO)
    inner = hello_async if is_async else hello
    await give(access_log(inner, "common"), connection(), PICTURE)
    await give(access_log(inner), connection(), PICTURE)
    combined = f'{COMMON} "http://www.example.com/start.html" "Mozilla/4.08 [en] (Win98; I ;Nav)"'
    assert lines(caplog) == [COMMON, combined]


async def test_json(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await give(access_log(hello, "json"), connection(), PICTURE)
    [line] = lines(caplog)
    assert json.loads(line) == {
        "time": "2000-10-10T13:55:36.500-07:00",
        "remote": "127.0.0.1",
        "user": "frank",
        "method": "GET",
        "target": "/apache_pb.gif?a=b",
        "proto": "HTTP/1.0",
        "status": 200,
        "size": 2326,
        "duration_ms": 12.5,
        "referer": "http://www.example.com/start.html",
        "user_agent": "Mozilla/4.08 [en] (Win98; I ;Nav)",
        "connection": 7,
        "complete": True,
    }


async def test_what_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    handler = access_log(lambda conn, ev, data: conn.reply(204))
    await give(handler, FakeConnection(), request())
    conn = FakeConnection()
    conn.remote_addr = Address("", 0)  # type: ignore[assignment]  # a Unix socket without a name
    await give(handler, conn, request("/", "GET", ("Referer", "")))
    time_and_request = '[10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 204 -'
    assert lines(caplog) == [f'- - - {time_and_request} "-" "-"', f'- - - {time_and_request} "" "-"']


async def test_nothing_that_a_client_sends_makes_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def handler(conn: Any, ev: int, data: Any) -> None:
        data.params["user"] = 'a"\n\udcff'
        conn.reply(200)

    evil = '"\\\t\b\n\r\v\x1b[2J\x7f\u2028ä\udcfe'
    for format in ("combined", "json"):
        await give(access_log(handler, format), connection(), request('/"', "GET", ("User-Agent", evil)))
    combined, as_json = lines(caplog)
    assert combined.startswith('127.0.0.1 - a\\"\\n\\xff [')
    assert '"GET /\\" HTTP/1.1" 200 - "-"' in combined
    assert combined.endswith(' "\\"\\\\\\t\\b\\n\\r\\v\\x1b[2J\\x7f\\xe2\\x80\\xa8\\xc3\\xa4\\xfe"')
    assert json.loads(as_json)["user_agent"] == evil
    for line in (combined, as_json):
        assert re.fullmatch("[ -~]+", line)


async def test_a_reply_that_does_not_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    conn = connection()
    message = request()
    for format, status, size in [("common", 200, 5), ("common", 0, 0), ("json", 0, 0), ("json", 200, 5)]:
        await call(access_log(lambda conn, ev, data: None, format), conn, MG_EV_HTTP_HDRS, message)
        conn.filters.pop().end_reply(message, status, size, False)
    first, second, third, fourth = lines(caplog)
    assert first.endswith('"GET / HTTP/1.1" 200 5')
    assert second.endswith('"GET / HTTP/1.1" - -')
    third, fourth = json.loads(third), json.loads(fourth)
    assert (third["status"], third["complete"]) == (None, False)
    assert (fourth["status"], fourth["size"], fourth["complete"]) == (200, 5, False)


async def test_requests_that_were_no_message(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    seen: list[Exception] = []

    def inner(conn: Any, ev: int, data: Any) -> None:
        if ev == MG_EV_ERROR:
            seen.append(data)

    conn = connection()
    conn.protocol = SimpleNamespace(message=None)
    errors = [
        RemoteProtocolError("bad", wire_code=400),
        DeadlineExceeded("late", wire_code=408),
        AsyncmgError("no status"),
        RemoteProtocolError("of a WebSocket", wire_code=1002),
    ]
    for format in ("combined", "json"):
        for error in errors:
            await call(access_log(inner, format), conn, MG_EV_ERROR, error)
    assert seen == errors * 2, "the handler gets them all"
    first, second, third, _ = lines(caplog)
    assert first == '127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "-" 400 - "-" "-"'
    assert '"-" 408' in second
    assert json.loads(third)["status"] == 400 and json.loads(third)["target"] is None

    caplog.clear()
    conn.protocol = SimpleNamespace(message=request())
    await call(access_log(inner), conn, MG_EV_ERROR, errors[0])
    conn.protocol, conn.is_client = SimpleNamespace(message=None), True
    await call(access_log(inner), conn, MG_EV_ERROR, errors[0])
    assert lines(caplog) == []


async def test_loggers_and_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    conn = connection()
    logger = logging.getLogger("asyncmg.access")
    logger.setLevel(logging.WARNING)
    try:
        await give(access_log(hello), conn, PICTURE)
        await give(access_log(hello, level=logging.WARNING), conn, PICTURE)
    finally:
        logger.setLevel(logging.NOTSET)
    await give(access_log(hello, logger=logging.getLogger("mine"), level=logging.DEBUG), conn, PICTURE)
    assert [(record.name, record.levelname) for record in caplog.records] == [
        ("asyncmg.access", "WARNING"),
        ("mine", "DEBUG"),
    ]


def test_what_cannot_be_made() -> None:
    async def session(conn: Any) -> None: ...

    with pytest.raises(ValueError, match="format"):
        access_log(hello, "apache")
    with pytest.raises(TypeError):
        access_log(session)
