"""The demo's page in a headless Chromium: it works, and it shows something."""

from __future__ import annotations

import asyncio
import struct
import zlib
from pathlib import Path

import pytest

import asyncmg

from .browser import Browser
from .peers import peer

LIVE = "document.getElementById('link').textContent === 'live'"
RESULT = "document.getElementById('result').textContent"


def colours(path: Path) -> int:
    """Count the different colours of a PNG with 8-bit RGB or RGBA samples, roughly: filters are undone by row."""
    data, chunks, position = path.read_bytes(), b"", 8
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    assert depth == 8 and kind in (2, 6)
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        if data[position + 4 : position + 8] == b"IDAT":
            chunks += data[position + 8 : position + 8 + length]
        position += length + 12
    raw = zlib.decompress(chunks)
    row = width * (3 if kind == 2 else 4) + 1
    assert len(raw) == row * height
    # A blank page compresses to rows that are all alike; ours has many different ones.
    return len({raw[at : at + row] for at in range(0, len(raw), row)})


def look_at_topics(browser: Browser, url: str) -> None:
    """Topics come live; the form publishes; whatever they say is shown as text."""
    rows = (
        "[...document.getElementById('topic-rows').rows].map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    browser.wait_for(f"{rows}.some((row) => row[0] === 'demo/time' && Number(row[4]) > 1)")
    evil = "<img src=x onerror=\"document.title = 'pwned'\">"

    async def publish() -> None:
        async with asyncmg.mqtt_connect(url.replace("http", "mqtt", 1), client_id=evil) as mq:
            for number in range(300):
                mq.publish_soon(f"many/{number}", b"\0" * number)
            await mq.publish(f"room/{evil}", evil, qos=1, retain=True)
            who = "document.getElementById('mqtt-who').textContent"
            await asyncio.to_thread(browser.wait_for, f"{who}.includes('onerror')")

    asyncio.run(asyncio.wait_for(publish(), 60))
    # No more rows than can be looked at, and a filter, in either notation, for the others.
    browser.wait_for(f"{rows}.length === 200")
    browser.evaluate("document.getElementById('filter').value = 'many/+'")
    browser.evaluate("document.getElementById('filter').dispatchEvent(new Event('input'))")
    browser.wait_for("document.getElementById('topics-more').textContent.includes('and 100 more')")
    browser.evaluate("document.getElementById('filter').value = 'onerror'")
    browser.evaluate("document.getElementById('filter').dispatchEvent(new Event('input'))")
    (row,) = browser.wait_for(f"{rows}.length === 1 && {rows}")
    assert row[:5] == [f"room/{evil}", evil, "1", "yes", "1"]
    # The form.
    for name, value in (("topic", "from/page"), ("payload", "grüße"), ("qos", "2")):
        browser.evaluate(f"document.getElementById('publish-{name}').value = {value!r}")
    browser.evaluate("document.getElementById('filter').value = 'from/#'")
    browser.evaluate("document.querySelector('#publish button').click()")
    (row,) = browser.wait_for(f"{rows}[0][0] === 'from/page' && {rows}")
    assert row[:5] == ["from/page", "grüße", "2", "", "1"]
    browser.wait_for("document.getElementById('published').value === 'published, 0 receivers'")
    browser.evaluate("document.getElementById('publish-topic').value = 'no/#'")
    browser.evaluate("document.querySelector('#publish button').click()")
    browser.wait_for("document.getElementById('published').value.includes('wildcard')")
    assert browser.evaluate("document.title") == "asyncmg demo"


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("size", "dark"), [((1200, 1000), False), ((1200, 1000), True), ((390, 844), False)])
def test_the_page_works(demo_url: str, tmp_path: Path, size: tuple[int, int], dark: bool) -> None:
    with Browser(peer("chromium", "chromium-browser", "google-chrome"), tmp_path, demo_url, size, dark) as browser:
        # The live panel is fed by server-sent events.
        browser.wait_for(LIVE)
        requests = "Number(document.getElementById('requests').value)"
        before = browser.wait_for(requests)
        browser.wait_for("document.getElementById('line').getAttribute('d')")
        # The buttons talk to the server.
        for action, shown in (
            ("echo", "asyncmg"),
            ("upload", "The browser computes the same digest."),
            ("stream", "end of the stream"),
            ("burst", "100 of 100 answered"),
        ):
            browser.evaluate(f"document.querySelector('[data-action={action}]').click()")
            browser.wait_for(f"{RESULT}.includes({shown!r})")
        browser.wait_for(f"{requests} >= {before} + 103")
        # Every event comes over a WebSocket, and what is said to all.
        feed = "document.getElementById('feed').textContent"
        browser.wait_for(f"{feed}.includes('MG_EV_HTTP_MSG')")
        browser.evaluate("document.getElementById('words').value = 'hello, all'")
        browser.evaluate("document.querySelector('#say button').click()")
        browser.wait_for(f"{feed}.includes('hello, all')")
        browser.wait_for("document.getElementById('facts').children.length > 4")
        look_at_topics(browser, demo_url)
        # It fits, and it is not blank.
        assert browser.evaluate("document.documentElement.scrollWidth") == size[0]
        background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(15, 21, 25)") == dark
        picture = tmp_path / "page.png"
        browser.screenshot(picture)
        assert picture.read_bytes().startswith(b"\x89PNG") and colours(picture) > 100


@pytest.mark.slow
def test_the_page_reconnects_when_the_demo_is_back(tmp_path: Path) -> None:
    from tests.examples.program import Program

    with Program("-m", "asyncmg", "demo", "--port", "0") as first:
        url = first.line().split()[2]
        with Browser(peer("chromium", "chromium-browser", "google-chrome"), tmp_path, url) as browser:
            browser.wait_for(LIVE)
            first.stop_cleanly()
            browser.wait_for("document.getElementById('link').textContent === 'reconnecting'")
            port = url.rstrip("/").rpartition(":")[2]
            with Program("-m", "asyncmg", "demo", "--port", port) as second:
                second.line()
                browser.wait_for(LIVE)
                second.stop_cleanly()
