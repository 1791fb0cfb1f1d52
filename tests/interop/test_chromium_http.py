"""Streams, files and forms in a headless Chromium: media that is sought in, MJPEG, EventSource, uploads, listings."""

from __future__ import annotations

import array
import asyncio
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asyncmg import Connection, HttpMessage, Router, StaticFiles

from .browser import Browser
from .http_site import described, serving
from .peers import peer
from .test_chromium import colours

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

TIMEOUT = 90


async def browse(url: str, profile: Path, steps: Callable[[Browser], None]) -> None:
    """Open a page in a browser and run a function with it, in a thread of its own: it waits while the server works."""
    program = peer("chromium", "chromium-browser", "google-chrome")

    def begin() -> None:
        with Browser(program, profile, url) as browser:
            steps(browser)

    async with asyncio.timeout(TIMEOUT):
        await asyncio.to_thread(begin)


def page(router: Router, body: str = "") -> None:
    """Let a router serve a page at ``/``."""

    @router.get("/")
    def show(conn: Connection, message: HttpMessage) -> None:
        conn.reply(200, f"<!doctype html><meta charset=utf-8><link rel=icon href='data:,'><title>test</title>{body}")


# -- media -------------------------------------------------------------------------------------------------------------

RATE, SECONDS = 48_000, 60


def wave() -> bytes:
    """Return a minute of a tone, as WAV: 16 bits, two channels, 11.5 MB."""
    one_second = array.array("h")
    for number in range(RATE):
        one_second.extend([int(8000 * math.sin(2 * math.pi * 440 * number / RATE))] * 2)
    if sys.byteorder == "big":
        one_second.byteswap()
    data = one_second.tobytes() * SECONDS
    numbers = ((16, 4), (1, 2), (2, 2), (RATE, 4), (RATE * 4, 4), (4, 2), (16, 2))
    about = b"WAVEfmt " + b"".join(number.to_bytes(size, "little") for number, size in numbers)
    rest = about + b"data" + len(data).to_bytes(4, "little") + data
    return b"RIFF" + len(rest).to_bytes(4, "little") + rest


async def test_media_that_is_sought_in(backend: str, tmp_path: Path) -> None:
    """The browser reads the beginning only, and a range from where it is told to go on."""
    (tmp_path / "site").mkdir()
    media = wave()
    (tmp_path / "site" / "tone.wav").write_bytes(media)
    router = Router()
    page(router, "<audio id=a src=/media/tone.wav preload=metadata></audio>")
    router.mount("/media", StaticFiles(tmp_path / "site", prefix="/media"))
    audio = "document.getElementById('a')"

    def steps(browser: Browser) -> None:
        browser.wait_for(f"{audio} && {audio}.readyState >= 1")
        assert abs(browser.evaluate(f"{audio}.duration") - SECONDS) < 0.1
        assert browser.evaluate(f"{audio}.seekable.end(0)") == pytest.approx(SECONDS, abs=0.1)
        for place in (50, 20):
            browser.evaluate(
                f"""new Promise((done, fail) => {{
                    {audio}.onseeked = done;
                    {audio}.onerror = () => fail({audio}.error.message);
                    {audio}.currentTime = {place};
                }}).then(() => null)"""
            )
            assert browser.evaluate(f"{audio}.currentTime") == pytest.approx(place, abs=0.1)
            browser.evaluate(f"{audio}.play()")
            browser.wait_for(f"{audio}.currentTime > {place} + 0.3")
            browser.evaluate(f"{audio}.pause()")
            assert browser.evaluate(f"{audio}.error === null && {audio}.currentTime < {place} + 30")

    async with serving(router, backend) as server:
        await browse(server.url, tmp_path / "profile", steps)
    ranges = [message.header("Range") or "" for message in server.seen if message.path == "/media/tone.wav"]
    assert ranges[0] == "bytes=0-"
    starts = [int(asked.removeprefix("bytes=").partition("-")[0]) for asked in ranges]
    # Where second 50 is, or a bit before it.
    assert any(0.5 * len(media) < start <= len(media) * 50 / SECONDS + 1000 for start in starts), ranges


# -- MJPEG -------------------------------------------------------------------------------------------------------------


def grey_jpeg(size: int, level: int) -> bytes:
    """Return a square picture of one grey as baseline JPEG (ITU-T T.81).

    Args:
        size: of its sides; a multiple of 8.
        level: 0 (black) to 255 (white), not 128.
    """

    def segment(marker: int, content: bytes) -> bytes:
        return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content

    # Every coefficient is quantized by 8: so the DC coefficient of a block is what its grey is away from 128.
    value = level - 128
    category = abs(value).bit_length()
    bits = format(value if value > 0 else value + (1 << category) - 1, f"0{category}b")
    # DC: code 0 is "as the block before", 10 is a difference of `category` bits. AC: code 0 is the end of the block.
    coded = "10" + bits + "0" + "00" * ((size // 8) ** 2 - 1)
    coded += "1" * (-len(coded) % 8)
    scan = int(coded, 2).to_bytes(len(coded) // 8, "big").replace(b"\xff", b"\xff\x00")
    side = size.to_bytes(2, "big")
    return b"".join(
        [
            b"\xff\xd8",
            segment(0xDB, b"\x00" + bytes([8] * 64)),
            segment(0xC0, b"\x08" + side + side + b"\x01\x01\x11\x00"),
            segment(0xC4, b"\x00" + bytes([1, 1] + [0] * 14) + bytes([0, category])),
            segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\x00"),
            segment(0xDA, b"\x01\x01\x00\x00\x3f\x00"),
            scan,
            b"\xff\xd9",
        ]
    )


# What the middle of a picture looks like, and its width; null while there is none.
LOOK = """(() => {
    const picture = document.getElementById('picture'), canvas = document.createElement('canvas');
    canvas.width = canvas.height = 8;
    const context = canvas.getContext('2d');
    context.drawImage(picture, 0, 0, 8, 8);
    const [red, green, blue, alpha] = context.getImageData(4, 4, 1, 1).data;
    return alpha === 255 ? [picture.naturalWidth, red, green, blue] : null;
})()"""


FRAMES = [(64, 20), (64, 240), (128, 90), (32, 180)]  # width and grey: either changes alone, and both do
Viewer = Callable[[int], None]


async def watch(backend: str, tmp_path: Path, steps: Callable[[Browser, Viewer, Viewer], None]) -> None:
    """Run a function with a page that shows MJPEG, and two more: to send a frame, and to wait until it is seen."""
    viewers: list[Connection] = []
    router = Router()
    page(router, "<img id=picture src=/camera>")

    @router.get("/camera")
    def camera(conn: Connection, message: HttpMessage) -> None:
        conn.reply_stream("multipart/x-mixed-replace", headers={"Cache-Control": "no-store"})
        viewers.append(conn)

    @router.post("/send/{number}")
    def send(conn: Connection, message: HttpMessage) -> None:
        assert viewers[0].http_part(grey_jpeg(*FRAMES[int(message.params["number"])]))
        conn.reply(204)

    @router.post("/end")
    def end(conn: Connection, message: HttpMessage) -> None:
        viewers[0].http_end()
        conn.reply(204)

    def with_browser(browser: Browser) -> None:
        def send(number: int) -> None:
            browser.evaluate(f"fetch('/send/{number}', {{method: 'POST'}}).then(() => null)")

        def see(number: int) -> None:
            width, grey = FRAMES[number]
            is_it = f"seen && seen[0] === {width} && Math.abs(seen[1] - {grey}) <= 2"
            seen = browser.wait_for(f"(() => {{ const seen = {LOOK}; return {is_it} && seen; }})()")
            assert max(seen[1:]) - min(seen[1:]) <= 2

        browser.wait_for("document.getElementById('picture')")
        steps(browser, send, see)

    async with serving(router, backend) as server:
        await browse(server.url, tmp_path / "profile", with_browser)
    assert len(viewers) == 1


async def test_mjpeg(backend: str, tmp_path: Path) -> None:
    """Each frame is seen before the next one is sent; the last one stays when the stream has ended."""

    def steps(browser: Browser, send: Viewer, see: Viewer) -> None:
        for number in range(len(FRAMES)):
            send(number)
            see(number)
        browser.evaluate("fetch('/end', {method: 'POST'}).then(() => null)")
        see(len(FRAMES) - 1)
        browser.wait_for("document.getElementById('picture').complete")

    await watch(backend, tmp_path, steps)


# -- EventSource -------------------------------------------------------------------------------------------------------

LISTEN = """
    window.told = [];
    const source = window.source = new EventSource('/events');
    for (const name of ['message', 'tick', 'last'])
        source.addEventListener(name, (event) => told.push([name, event.data, event.lastEventId]));
    source.onopen = () => told.push(['open']);
    source.onerror = () => told.push(['error', source.readyState]);
"""


async def test_event_source(backend: str, tmp_path: Path) -> None:
    """Names, ids, several lines, comments, and a reconnection that goes on where the first one ended."""
    router = Router()
    page(router, f"<script>{LISTEN}</script>")
    asked: list[str | None] = []

    @router.get("/events")
    def events(conn: Connection, message: HttpMessage) -> None:
        last = message.header("Last-Event-ID")
        asked.append(last)
        if last == "ü-3":
            conn.reply(204)  # HTML standard, section 9.2.3: the browser is not to come again
            return
        conn.reply_stream("text/event-stream", headers={"Cache-Control": "no-store"})
        if last is None:
            conn.http_sse("", retry=10, comment="nobody sees this\nnor this")
            conn.http_sse("", "first\nsecond\r\nthird", event_id="1")
            conn.http_sse("tick", " a space: and a colon")
            conn.http_sse("unheard", "nobody listens")
            conn.http_sse("tick", "", event_id="2")
        else:
            conn.http_sse("", comment="again")
            conn.http_sse("last", "grüße €", event_id="ü-3")
        conn.http_end()

    def steps(browser: Browser) -> None:
        browser.wait_for("window.source && source.readyState === EventSource.CLOSED")
        assert browser.evaluate("told") == [
            ["open"],
            ["message", "first\nsecond\nthird", "1"],
            ["tick", " a space: and a colon", "1"],
            ["tick", "", "2"],
            ["error", 0],
            ["open"],
            ["last", "grüße €", "ü-3"],
            ["error", 0],
            ["error", 2],
        ]

    async with serving(router, backend) as server:
        await browse(server.url, tmp_path / "profile", steps)
    assert asked == [None, "2", "ü-3"]
    accepted = [message.header("Accept") for message in server.seen if message.path == "/events"]
    assert accepted == ["text/event-stream"] * 3


# -- forms -------------------------------------------------------------------------------------------------------------

UPLOAD = """(async () => {
    const bytes = new Uint8Array(%d).map((_, index) => index * index %% 251);
    const form = new FormData();
    form.append('na"me', 'Grüße\\nund mehr');
    form.append('many', '1');
    form.append('many', '2');
    form.append('file', new File([bytes], 'ü "quoted".bin', {type: 'image/x-test'}));
    form.append('file', new File([], 'empty'));
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
    const answer = await fetch('%s', {method: 'POST', body: form});
    return [await answer.json(), Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('')];
})()"""

FORM = """<form method=post action=/form enctype=multipart/form-data target=answer>
<input name=words value="a b"><input type=file name=none><textarea name=text>one
two</textarea><button id=send>send</button></form><iframe name=answer></iframe>"""


async def test_forms(backend: str, tmp_path: Path) -> None:
    """FormData by fetch, as a whole and as a stream; and a form that the page has."""
    router = Router()
    page(router, FORM)

    @router.post("/form")
    def whole(conn: Connection, message: HttpMessage) -> None:
        with message.form() as form:
            conn.reply(200, described(form))

    @router.post("/form-stream", stream=True)
    async def streamed(conn: Connection, message: HttpMessage) -> None:
        with await message.read_form(tmp_path) as form:
            conn.reply(200, described(form))

    def steps(browser: Browser) -> None:
        browser.wait_for("document.getElementById('send')")
        for where, size in (("/form", 100_000), ("/form-stream", 20_000_000)):
            told, digest = browser.evaluate(UPLOAD % (size, where), timeout=60)
            nothing = hashlib.sha256(b"").hexdigest()
            assert told == {
                'na"me': ["Grüße\r\nund mehr"],
                "many": ["1", "2"],
                "file": [
                    ['ü "quoted".bin', "image/x-test", size, digest],
                    ["empty", "application/octet-stream", 0, nothing],
                ],
            }
        browser.evaluate("document.getElementById('send').click()")
        shown = browser.wait_for(
            "frames[0].document.body.textContent.includes('words') && frames[0].document.body.textContent"
        )
        assert json.loads(shown) == {"words": ["a b"], "text": ["one\r\ntwo"]}  # no file was chosen

    async with serving(router, backend) as server:
        await browse(server.url, tmp_path / "profile", steps)
    assert [path for path in tmp_path.iterdir() if path.name != "profile"] == []  # no temporary file is left


# -- listings ----------------------------------------------------------------------------------------------------------

LINKS = "Array.from(document.querySelectorAll('tbody a'), (link) => link.textContent)"


async def test_listing(backend: str, tmp_path: Path) -> None:
    """Every link leads to its file, columns sort, and there is something to see."""
    root = tmp_path / "site"
    (root / "folder").mkdir(parents=True)
    names = ["a&b.txt", "c <b>.txt", "d%25 #1?.txt", "e ü€.txt", "javascript:alert(1).txt", '"quoted".txt']
    for number, name in enumerate(names):
        (root / name).write_text(f"{name}\n" * (number * 7 % 6 + 1), "utf-8")
        os.utime(root / name, (1e9 + number * 5 % 6 * 86_400,) * 2)
    (root / "folder" / "inside.txt").write_text("inside")
    sizes = sorted(names, key=lambda name: (root / name).stat().st_size)
    dates = sorted(names, key=lambda name: (root / name).stat().st_mtime)

    def steps(browser: Browser) -> None:
        url = f"{server.url}/"

        def goes_to(link: str, done: str) -> Any:
            browser.wait_for("document.readyState === 'complete'")
            # A click leaves the page: the answer comes before that.
            browser.evaluate(f"setTimeout(() => {link}.click()), null")
            return browser.wait_for(done)

        browser.wait_for(f"location.href === {url!r} && {LINKS}.length")
        assert browser.evaluate(LINKS) == ["folder/", *sorted(names)]
        assert browser.evaluate("getComputedStyle(document.querySelector('table')).borderCollapse") == "collapse"
        browser.screenshot(tmp_path / "listing.png")
        assert colours(tmp_path / "listing.png") > 50
        for column, order in (("size", sizes), ("date", dates), ("name", sorted(names))):
            head = f"document.querySelector('a[href^=\"?sort={column}\"]')"
            for direction, expected in (("asc", order), ("desc", order[::-1])):
                goes_to(head, f"location.search === '?sort={column}&order={direction}' && {LINKS}.length")
                assert browser.evaluate(LINKS) == ["folder/", *expected]
                state = browser.evaluate("document.querySelector('th[aria-sort]').getAttribute('aria-sort')")
                assert state == {"asc": "ascending", "desc": "descending"}[direction]
        for name in names:
            link = f"Array.from(document.links).find((link) => link.textContent === {json.dumps(name)})"
            text = "document.contentType === 'text/plain' && document.body.textContent"
            assert goes_to(link, text) == (root / name).read_text("utf-8")
            browser.evaluate("setTimeout(() => history.back()), null")
            browser.wait_for(f"document.contentType === 'text/html' && {LINKS}.length")
        folder = "Array.from(document.links).find((link) => link.textContent === 'folder/')"
        goes_to(folder, f"location.pathname === '/folder/' && {LINKS}.length")
        assert browser.evaluate(LINKS) == ["../", "inside.txt"]
        goes_to("document.querySelector('tbody a')", f"location.pathname === '/' && {LINKS}.length")

    async with serving(listed(root), backend) as server:
        await browse(f"{server.url}/", tmp_path / "profile", steps)


def listed(root: Path) -> Router:
    router = Router()
    router.mount("/", StaticFiles(root, listing=True))
    return router
