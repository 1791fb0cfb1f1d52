"""curl, wget, requests and aiohttp against a site with files, uploads, forms, cookies, compression and streams."""

from __future__ import annotations

import asyncio
import base64
import email.parser
import email.policy
import gzip
import hashlib
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncmg import MG_EV_HTTP_HDRS, AsyncmgError, Connection, RemoteProtocolError

from .http_site import LINES, PIECES, TEXT, Site, serving, site
from .peers import peer

try:
    import aiohttp
    import brotli
    import requests
except ImportError as error:  # they are among the test dependencies
    if os.environ.get("ASYNCMG_REQUIRE_PEERS") == "1":
        raise
    pytest.skip(f"not installed: {error.name}", allow_module_level=True)

TIMEOUT = 30
CONTENT = b"".join(b"%07d\n" % number for number in range(400_000))  # 3.2 MB: every place looks different
SMALL = CONTENT[:10_000]
STYLE = b"p { color: red }\n" * 500
OLD = 1_000_000_000  # 2001-09-09T01:46:40Z

# Names that have to be encoded in a URL, escaped in a page, or both.
NAMES = ["plain.txt", "with space & <b>.txt", "50% #1?.txt", "grüße €.txt", "a+b=c;d.txt", 'it\'s "quoted".txt']


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    root.mkdir()
    (root / "content.bin").write_bytes(CONTENT)
    (root / "small.txt").write_bytes(SMALL)
    (root / "style.css").write_bytes(STYLE)
    (root / "style.css.gz").write_bytes(gzip.compress(STYLE))
    (root / "style.css.br").write_bytes(brotli.compress(STYLE))
    (root / "empty").touch()
    for folder in (root / "tree", root / "tree" / "sub folder", root / "tree" / "sub folder" / "ü"):
        folder.mkdir()
        for name in NAMES:
            (folder / name).write_text(f"{folder.name} {name}\n" * 100)
    for path in root.rglob("*"):
        os.utime(path, (OLD, OLD))
    return root


@pytest.fixture
async def server(root: Path, backend: str) -> AsyncIterator[Site]:
    async with serving(site(root), backend) as running:
        yield running


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def run(command: list[str], stdin: bytes | None = None, cwd: Path | None = None) -> tuple[int, bytes, str]:
    """Run a client while the server goes on; return its exit code, stdout and stderr."""
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    result = await asyncio.to_thread(
        subprocess.run,
        command,
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
        cwd=cwd,
        env={**clean, "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"},
    )
    return result.returncode, result.stdout, result.stderr.decode("utf-8", "replace")


# -- curl --------------------------------------------------------------------------------------------------------------


async def curl(*arguments: str | Path, stdin: bytes | None = None, code: int = 0) -> tuple[bytes, str]:
    """Run curl; return its output and what ``-v`` tells. Its exit code has to be ``code``."""
    command = [peer("curl"), "-q", "-sS", "-v", "--max-time", "20", *map(os.fspath, arguments)]
    ended, out, told = await run(command, stdin)
    assert ended == code, told
    return out, told


def statuses(told: str) -> list[int]:
    return [int(status) for status in re.findall(r"^< HTTP/1\.[01] (\d+)", told, re.MULTILINE)]


def received(told: str, name: str) -> list[str]:
    """Return the values of a field in curl's account."""
    return re.findall(rf"^< {name}: (.*?)\r?$", told, re.MULTILINE | re.IGNORECASE)


async def test_curl_resumes(server: Site, tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    for there, expected in ((1_234_567, [206]), (0, [200]), (len(CONTENT) - 1, [206]), (len(CONTENT), [416])):
        partial.write_bytes(CONTENT[:there])
        _, told = await curl("-C", "-", "-o", partial, f"{server.url}/files/content.bin")
        assert statuses(told) == expected
        assert partial.read_bytes() == CONTENT
    assert server.sent("Range") == ["bytes=1234567-", None, f"bytes={len(CONTENT) - 1}-", f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("100-199", slice(100, 200)),
        ("-100", slice(-100, None)),
        ("3000000-", slice(3_000_000, None)),
        ("0-0", slice(1)),
    ],
)
async def test_curl_gets_one_range(server: Site, asked: str, expected: slice) -> None:
    out, told = await curl("--range", asked, f"{server.url}/files/content.bin")
    assert statuses(told) == [206] and out == CONTENT[expected]
    first, last, _ = expected.indices(len(CONTENT))
    assert received(told, "Content-Range") == [f"bytes {first}-{last - 1}/{len(CONTENT)}"]
    assert received(told, "Content-Length") == [str(last - first)]


async def test_curl_gets_several_ranges(server: Site) -> None:
    out, told = await curl("--range", "0-9,100-109,-5", f"{server.url}/files/content.bin")
    assert statuses(told) == [206]
    assert received(told, "Content-Length") == [str(len(out))]
    (kind,) = received(told, "Content-Type")
    assert kind.startswith("multipart/byteranges; boundary=")
    head = f"MIME-Version: 1.0\r\nContent-Type: {kind}\r\n\r\n".encode()
    whole = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + out)
    assert whole.is_multipart() and not whole.defects
    total = len(CONTENT)
    assert [(part["Content-Range"], part.get_payload(decode=True)) for part in whole.get_payload()] == [
        (f"bytes 0-9/{total}", CONTENT[:10]),
        (f"bytes 100-109/{total}", CONTENT[100:110]),
        (f"bytes {total - 5}-{total - 1}/{total}", CONTENT[-5:]),
    ]


async def test_curl_asks_for_a_range_that_is_not_there(server: Site) -> None:
    _, told = await curl("--range", "99999999-", f"{server.url}/files/content.bin")
    assert statuses(told) == [416] and received(told, "Content-Range") == [f"bytes */{len(CONTENT)}"]


async def test_curl_uploads_a_file(server: Site, root: Path) -> None:
    """curl waits for the 100 before it sends a large body; where nobody takes it, it does not send it at all."""
    out, told = await curl("-T", root / "content.bin", f"{server.url}/upload/")
    assert statuses(told) == [100, 201]
    assert json.loads(out) == {"name": "content.bin", "size": len(CONTENT), "sha256": digest(CONTENT)}
    out, told = await curl("-H", "Expect: 100-continue", "-T", root / "empty", f"{server.url}/upload/")
    assert statuses(told)[-1] == 201 and json.loads(out)["size"] == 0
    _, told = await curl("-T", root / "content.bin", f"{server.url}/nowhere/")
    assert statuses(told) == [404]
    assert server.sent("Expect")[0] == server.sent("Expect")[-1] == "100-continue"


@pytest.mark.parametrize("expect", ["Expect: 100-continue", "Expect:"])
async def test_curl_uploads_what_has_no_length(server: Site, expect: str) -> None:
    out, told = await curl("-H", expect, "-T", "-", f"{server.url}/upload/pipe", stdin=CONTENT)
    assert statuses(told) == ([100, 201] if expect[-1] == "e" else [201])
    assert json.loads(out) == {"name": "pipe", "size": len(CONTENT), "sha256": digest(CONTENT)}
    assert server.sent("Transfer-Encoding") == ["chunked"]


@pytest.mark.parametrize("where", ["form", "form-stream"])
async def test_curl_sends_a_form(server: Site, root: Path, tmp_path: Path, where: str) -> None:
    strange = tmp_path / 'ü "a".txt'
    strange.write_bytes(b"x\r\n--boundary\r\n")
    out, _ = await curl(
        *("--form-string", "name=Grüße; und mehr"),
        *("-F", "name=again"),
        *("-F", "empty="),
        *("-F", f"picture=@{root}/small.txt;type=image/x-test"),
        *("-F", f'strange=@"{tmp_path}/ü \\"a\\".txt"'),
        *("-F", f"text=<{root}/style.css"),
        *("-F", f"renamed=@{root}/empty;filename=nothing.bin"),
        f"{server.url}/{where}",
    )
    assert json.loads(out) == {
        "name": ["Grüße; und mehr", "again"],
        "empty": [""],
        "picture": [["small.txt", "image/x-test", len(SMALL), digest(SMALL)]],
        "strange": [['ü "a".txt', "text/plain", 15, digest(b"x\r\n--boundary\r\n")]],
        "text": [STYLE.decode()],
        "renamed": [["nothing.bin", "application/octet-stream", 0, digest(b"")]],
    }


async def test_curl_sends_a_large_file_in_a_form(server: Site, root: Path) -> None:
    for source in ("@-", f"@{root}/content.bin"):
        out, told = await curl("-F", f"file={source}", f"{server.url}/form-stream", stdin=CONTENT)
        (((_, _, size, sha256),),) = json.loads(out).values()
        assert (size, sha256) == (len(CONTENT), digest(CONTENT))
        assert statuses(told) == [100, 200]


async def test_curl_sends_an_urlencoded_form(server: Site) -> None:
    for where in ("form", "form-stream"):
        out, _ = await curl("--data-urlencode", "a=ü &=+", "-d", "b=1&b=2+3", f"{server.url}/{where}")
        assert json.loads(out) == {"a": ["ü &=+"], "b": ["1", "2 3"]}
    out, _ = await curl("-G", "--data-urlencode", "q=a b&c", f"{server.url}/echo")
    assert json.loads(out)["query"] in ("q=a%20b%26c", "q=a+b%26c")


async def test_curl_takes_compressed_replies(server: Site) -> None:
    compressed = {"/text": TEXT.encode(), "/lines": b"".join(json_line(line) for line in LINES)}
    for path, plain in compressed.items():
        out, told = await curl("--compressed", server.url + path)
        assert received(told, "Content-Encoding") == ["br"] and out == plain
        out, told = await curl("--compressed", "-H", "Accept-Encoding: gzip", server.url + path)
        assert received(told, "Content-Encoding") == ["gzip"] and out == plain
        assert received(told, "Vary") == ["Accept-Encoding"]
        out, told = await curl(server.url + path)
        assert received(told, "Content-Encoding") == [] and out == plain
        assert received(told, "Vary") == ["Accept-Encoding"]
    _, told = await curl("--compressed", server.url + "/text")
    assert received(told, "ETag") == ['W/"text"']


def json_line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


async def test_curl_takes_compressed_files(server: Site) -> None:
    url = f"{server.url}/files/style.css"
    for accepted, coding in (("gzip", "gzip"), ("gzip, br", "br"), ("gzip, br;q=0.1", "gzip"), ("br;q=0", "")):
        out, told = await curl("--compressed", "-H", f"Accept-Encoding: {accepted}", url)
        assert received(told, "Content-Encoding") == ([coding] if coding else [])
        assert received(told, "Content-Type") == ["text/css; charset=utf-8"]
        assert received(told, "Vary") == ["Accept-Encoding"]
        assert out == STYLE
    # A range is one of the compressed bytes.
    out, told = await curl("-H", "Accept-Encoding: gzip", "--range", "0-1", url)
    assert (statuses(told), received(told, "Content-Encoding"), out) == ([206], ["gzip"], b"\x1f\x8b")
    # Without a compressed one beside it a file is sent as it is.
    out, told = await curl("--compressed", f"{server.url}/files/small.txt")
    assert received(told, "Content-Encoding") == [] and out == SMALL


async def test_curl_asks_for_heads(server: Site) -> None:
    urls = [f"{server.url}/{path}" for path in ("files/content.bin", "text", "stream", "files/", "files/none")]
    for url in urls:
        head, told = await curl("-I", url)
        _, whole = await curl("-o", os.devnull, url)
        assert statuses(told) == statuses(whole) and head.endswith(b"\r\n\r\n") and head.count(b"\r\n\r\n") == 1
        for name in ("Content-Length", "Content-Type", "Transfer-Encoding", "ETag", "Last-Modified", "Accept-Ranges"):
            assert received(told, name) == received(whole, name)
    # All of them on one connection: no head has brought content along.
    _, told = await curl("-I", *urls)
    assert statuses(told) == [200, 200, 200, 200, 404]
    assert told.count("Re-using existing connection") == 4


async def test_curl_keeps_cookies(server: Site, tmp_path: Path) -> None:
    jar = tmp_path / "jar"
    _, told = await curl("-c", jar, f"{server.url}/cookies/set")
    assert received(told, "Set-Cookie") == [
        "plain=1; Path=/",
        "long=2; Path=/; Max-Age=3600; HttpOnly; SameSite=Strict",
        "deep=3; Path=/cookies/deep; Max-Age=3600",
        "safe=4; Path=/; Max-Age=3600; Secure",
        "other=5; Path=/; Domain=example.com",
    ]

    # domain, subdomains too, path, secure, expires, name, value; a session's cookie expires at 0.
    lines = [line.split("\t") for line in jar.read_text().splitlines() if line.count("\t") == 6]
    kept = {line[5]: line for line in lines}
    assert set(kept) == {"plain", "long", "deep", "safe"}  # example.com is not this host
    assert kept["plain"][:5] == ["127.0.0.1", "FALSE", "/", "FALSE", "0"]
    assert kept["long"][0] == "#HttpOnly_127.0.0.1" and int(kept["long"][4]) > 0
    assert kept["deep"][2] == "/cookies/deep"
    assert kept["safe"][3] == "TRUE"

    out, _ = await curl("-b", jar, f"{server.url}/cookies/")
    assert json.loads(out) == {"plain": "1", "long": "2", "safe": "4"}  # curl takes this host for a secure one
    out, _ = await curl("-b", jar, f"{server.url}/cookies/deep/er")
    assert json.loads(out)["deep"] == "3"
    out, _ = await curl("-b", 'a=b; quoted="x y"; a=c; =; d', f"{server.url}/cookies/")
    assert json.loads(out) == {"a": "b", "quoted": "x y"}
    # In one run, without a file: curl would read it again for every URL.
    out, _ = await curl("-b", "", *(f"{server.url}/cookies/{what}" for what in ("set", "delete", "deep/er")))
    assert json.loads(out.splitlines()[-1]) == {"deep": "3", "safe": "4"}


async def test_curl_asks_for_what_is_newer(server: Site, tmp_path: Path) -> None:
    url, copy = f"{server.url}/files/small.txt", tmp_path / "copy"
    _, told = await curl("-R", "-o", copy, url)  # with the time of the original
    assert received(told, "Last-Modified") == ["Sun, 09 Sep 2001 01:46:40 GMT"] and copy.stat().st_mtime == OLD
    for condition, expected in (
        (os.fspath(copy), [304]),
        ("Sun, 09 Sep 2001 01:46:39 GMT", [200]),
        ("Fri, 01 Jan 2021 00:00:00 GMT", [304]),
        ("-Sun, 09 Sep 2001 01:46:39 GMT", [412]),  # If-Unmodified-Since
        ("-Sun, 09 Sep 2001 01:46:41 GMT", [200]),
    ):
        out, told = await curl("-z", condition, url)
        assert (statuses(told), out == SMALL) == (expected, expected == [200])


async def test_curl_compares_etags(server: Site, root: Path, tmp_path: Path) -> None:
    url, etags = f"{server.url}/files/style.css", tmp_path / "etag"
    await curl("--etag-save", etags, url)
    out, told = await curl("--etag-compare", etags, url)
    assert (out, statuses(told)) == (b"", [304])
    out, told = await curl("--compressed", "--etag-compare", etags, url)  # other bytes, another tag
    assert (out, statuses(told)) == (STYLE, [200])
    (root / "style.css").write_bytes(STYLE + b"/* new */\n")
    out, told = await curl("--etag-compare", etags, url)
    assert (out, statuses(told)) == (STYLE + b"/* new */\n", [200])


async def test_curl_logs_in(server: Site) -> None:
    url = f"{server.url}/private"
    out, told = await curl("-u", "ännchen:geheim: ü", url)
    assert (out.decode(), statuses(told)) == ("hello ännchen\n", [200])
    out, told = await curl("--anyauth", "-u", "ännchen:geheim: ü", url)  # looks at the challenge first
    assert (out.decode(), statuses(told)) == ("hello ännchen\n", [401, 200])
    for user in ("ännchen:other", "nobody:geheim: ü"):
        _, told = await curl("-u", user, url)
        assert statuses(told) == [401]
        assert received(told, "WWW-Authenticate") == ['Basic realm="asyncmg", charset="UTF-8"']


async def test_curl_is_refused_before_it_uploads(server: Site, root: Path) -> None:
    """With Expect it sends no content; without, it sees the reply although its content is not read."""
    large = root / "large"
    with large.open("wb") as file:
        file.truncate(20 << 20)
    for path, expected in (("private", 401), ("text", 405), ("form", 413), ("nowhere", 404)):
        method = "POST" if path == "form" else "PUT"
        for expect in ("Expect: 100-continue", "Expect:"):
            _, told = await curl("-X", method, "-H", expect, "-T", large, f"{server.url}/{path}")
            assert statuses(told) == [expected] and received(told, "Connection") == ["close"]


async def test_curl_notices_that_a_file_is_cut_off(server: Site, root: Path) -> None:
    """Less than was announced is an error for curl; a file that is replaced is sent as it was."""
    path, size = root / "changing", 64 << 20

    def fetch(change: Callable[[], None]) -> tuple[int, int]:
        with path.open("wb") as file:
            file.truncate(size)
        command = [peer("curl"), "-q", "-sS", "--noproxy", "*", "--max-time", "20", f"{server.url}/files/changing"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            count = len(process.stdout.read(100_000))  # it is in the middle of it: no buffer takes 64 MiB
            change()
            count += len(process.stdout.read())
            return process.wait(TIMEOUT), count

    code, count = await asyncio.to_thread(fetch, lambda: os.truncate(path, 1000))
    assert code in (18, 56) and 100_000 <= count < size  # CURLE_PARTIAL_FILE, CURLE_RECV_ERROR
    other = root / "other"
    other.write_bytes(b"other")
    assert await asyncio.to_thread(fetch, lambda: os.replace(other, path)) == (0, size)


async def test_curl_is_killed_while_it_uploads(backend: str, root: Path, tmp_path: Path) -> None:
    """What had come of its file does not stay."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    failures: list[Exception] = []

    async def handler(conn: Connection, ev: int, data: Any) -> None:
        if ev == MG_EV_HTTP_HDRS:
            try:
                await data.read_form(folder)
            except AsyncmgError as error:
                failures.append(error)

    async with serving(handler, backend) as server:
        command = [peer("curl"), "-q", "-sS", "--noproxy", "*", "--limit-rate", "500K", "-F", f"f=@{root}/content.bin"]
        with subprocess.Popen([*command, server.url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            async with asyncio.timeout(TIMEOUT):
                while not list(folder.iterdir()):
                    await asyncio.sleep(0.01)
                process.kill()
                while not failures:
                    await asyncio.sleep(0.01)
        assert [type(failure) for failure in failures] == [RemoteProtocolError]
        assert list(folder.iterdir()) == []


async def test_curl_follows_redirects(server: Site) -> None:
    for status in (301, 302, 303, 307, 308):
        out, told = await curl("-L", "-d", "body", f"{server.url}/moved/{status}")
        assert statuses(told) == [status, 200]
        keeps = status in (307, 308)
        method, body = ("POST", "body") if keeps else ("GET", "")
        assert json.loads(out) == {"method": method, "query": f"from={status}", "body": body}
    out, told = await curl("-L", f"{server.url}/files/tree")
    assert statuses(told) == [301, 200] and received(told, "Location") == ["/files/tree/"]
    assert b"Index of /files/tree/" in out


async def test_curl_takes_trailers_and_streams(server: Site) -> None:
    out, _ = await curl("-i", f"{server.url}/lines")
    head, *lines = out.partition(b"\r\n\r\n")
    assert b"X-Count" not in head and lines[-1].endswith(b"X-Count: %d\r\n" % len(LINES))
    assert [json.loads(line) for line in lines[-1].splitlines()[:-1]] == LINES
    for version in ("--http1.1", "--http1.0"):
        out, _ = await curl(version, f"{server.url}/stream")
        assert out == b"".join(PIECES)


# -- wget --------------------------------------------------------------------------------------------------------------


async def wget(*arguments: str | Path, cwd: Path, code: int = 0) -> str:
    """Run wget in a folder; return what it tells, with the server's headers. Its exit code has to be ``code``."""
    command = [peer("wget"), "--no-config", "--no-proxy", "-S", "-t", "1", "-T", "20", *map(os.fspath, arguments)]
    ended, _, told = await run(command, cwd=cwd)
    assert ended == code, told
    return told


def wget_statuses(told: str) -> list[int]:
    return [int(status) for status in re.findall(r"^  HTTP/1\.[01] (\d+)", told, re.MULTILINE)]


async def test_wget_resumes(server: Site, tmp_path: Path) -> None:
    partial = tmp_path / "content.bin"
    partial.write_bytes(CONTENT[:1_234_567])
    for expected in ([206], [416]):
        told = await wget("-c", f"{server.url}/files/content.bin", cwd=tmp_path)
        assert wget_statuses(told) == expected
        assert partial.read_bytes() == CONTENT and partial.stat().st_mtime == OLD
    assert server.sent("Range") == ["bytes=1234567-", f"bytes={len(CONTENT)}-"]


async def test_wget_mirrors_a_folder(server: Site, root: Path, tmp_path: Path) -> None:
    """It finds every file by the links of the listings, and gets the same bytes and times."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    no_listings = ["--reject-regex", "[?]", "-R", "index.html*"]  # read, but not kept
    command = ["-r", "-l", "inf", "-np", "-nH", "--cut-dirs=2", "--restrict-file-names=nocontrol", *no_listings]
    await wget(*command, f"{server.url}/files/tree/", cwd=mirror)

    def found(top: Path) -> dict[str, tuple[bytes, float]]:
        files = [path for path in top.rglob("*") if path.is_file()]
        return {os.fspath(path.relative_to(top)): (path.read_bytes(), path.stat().st_mtime) for path in files}

    assert len(found(mirror)) == 3 * len(NAMES)
    assert found(mirror) == found(root / "tree")


async def test_wget_as_a_spider(server: Site, tmp_path: Path) -> None:
    told = await wget("--spider", f"{server.url}/files/content.bin", cwd=tmp_path)
    assert wget_statuses(told) == [200] and "Remote file exists" in told
    told = await wget("--spider", f"{server.url}/files/none", cwd=tmp_path, code=8)
    assert wget_statuses(told) == [404]
    # Through the listings, without keeping anything: no link is broken.
    spider = ["--spider", "-r", "-l", "inf", "-np", "--reject-regex", "[?]"]
    told = await wget(*spider, f"{server.url}/files/tree/", cwd=tmp_path)
    assert "Found no broken links" in told
    assert {message.path for message in server.seen} >= {f"/files/tree/sub folder/ü/{name}" for name in NAMES}


async def test_wget_sends_and_takes_the_rest(server: Site, root: Path, tmp_path: Path) -> None:
    told = await wget("-O", "text", "--compression=gzip", f"{server.url}/text", cwd=tmp_path)
    assert "Content-Encoding: gzip" in told and (tmp_path / "text").read_text() == TEXT
    body = f"--body-file={root}/content.bin"
    await wget("-O", "answer", "--method=PUT", body, f"{server.url}/upload/x", cwd=tmp_path)
    assert json.loads((tmp_path / "answer").read_text())["sha256"] == digest(CONTENT)
    login = ["--user=ännchen", "--password=geheim: ü"]
    assert wget_statuses(await wget("-O", "private", *login, f"{server.url}/private", cwd=tmp_path)) == [401, 200]
    assert (tmp_path / "private").read_text() == "hello ännchen\n"
    await wget("-O", "stream", f"{server.url}/stream", cwd=tmp_path)
    assert (tmp_path / "stream").read_bytes() == b"".join(PIECES)
    told = await wget("-N", f"{server.url}/files/small.txt", f"{server.url}/files/small.txt", cwd=tmp_path)
    assert wget_statuses(told) == [200, 304]


# -- requests ----------------------------------------------------------------------------------------------------------


async def with_requests(steps: Callable[[requests.Session], None]) -> None:
    """Run a function with a session, in a thread of its own: it waits while the server works."""

    def begin() -> None:
        with requests.Session() as session:
            session.trust_env = False
            steps(session)

    async with asyncio.timeout(TIMEOUT):
        await asyncio.to_thread(begin)


@pytest.mark.parametrize("where", ["form", "form-stream"])
async def test_requests_uploads_files(server: Site, where: str) -> None:
    size = 900_000 if where == "form" else len(CONTENT)

    def steps(session: requests.Session) -> None:
        answer = session.post(
            f"{server.url}/{where}",
            data={"name": "Grüße", "many": ["1", "2"]},
            files=[
                ("file", ("ü.bin", CONTENT[:size], "image/png", {"X-Part": "yes"})),
                ("file", ("small", SMALL)),
            ],
            timeout=TIMEOUT,
        )
        assert answer.json() == {
            "name": ["Grüße"],
            "many": ["1", "2"],
            "file": [
                ["ü.bin", "image/png", size, digest(CONTENT[:size])],
                ["small", "text/plain", len(SMALL), digest(SMALL)],  # RFC 7578 section 4.4: the default
            ],
        }

    await with_requests(steps)


async def test_requests_streams_both_ways(server: Site) -> None:
    def pieces() -> Iterator[bytes]:
        yield from PIECES

    def steps(session: requests.Session) -> None:
        with session.get(f"{server.url}/stream", stream=True, timeout=TIMEOUT) as answer:
            assert b"".join(answer.iter_content(10_000)) == b"".join(PIECES)
        answer = session.put(f"{server.url}/upload/x", data=pieces(), timeout=TIMEOUT)
        assert answer.status_code == 201 and answer.json()["sha256"] == digest(b"".join(PIECES))
        with session.get(f"{server.url}/lines", stream=True, timeout=TIMEOUT) as answer:
            assert answer.headers["Content-Encoding"] in ("br", "gzip")
            assert [json.loads(line) for line in answer.iter_lines()] == LINES

    await with_requests(steps)
    assert server.sent("Transfer-Encoding") == [None, "chunked", None]


async def test_requests_keeps_a_session(server: Site) -> None:
    def steps(session: requests.Session) -> None:
        session.get(f"{server.url}/cookies/set", timeout=TIMEOUT)
        cookies = {cookie.name: cookie for cookie in session.cookies}
        assert set(cookies) == {"plain", "long", "deep", "safe"}
        assert cookies["plain"].expires is None and cookies["long"].expires
        assert cookies["long"].has_nonstandard_attr("HttpOnly") and cookies["deep"].path == "/cookies/deep"
        assert cookies["safe"].secure and not cookies["plain"].secure
        shown = session.get(f"{server.url}/cookies/deep", timeout=TIMEOUT).json()
        assert {"plain": "1", "long": "2", "deep": "3"}.items() <= shown.items()
        session.get(f"{server.url}/cookies/delete", timeout=TIMEOUT)
        assert {"plain", "long"}.isdisjoint(cookie.name for cookie in session.cookies)
        answer = session.post(f"{server.url}/moved/307", data="body", timeout=TIMEOUT)
        assert [old.status_code for old in answer.history] == [307] and answer.json()["body"] == "body"
        login = ("ännchen".encode(), "geheim: ü".encode())
        assert session.get(f"{server.url}/private", auth=login, timeout=TIMEOUT).text == "hello ännchen\n"

    await with_requests(steps)


async def test_requests_gets_ranges_and_codings(server: Site) -> None:
    url = f"{server.url}/files/content.bin"

    def steps(session: requests.Session) -> None:
        whole = session.get(url, timeout=TIMEOUT)
        assert whole.content == CONTENT
        etag = whole.headers["ETag"]
        for name, value, status in (
            ("If-Range", etag, 206),
            ("If-Range", '"other"', 200),
            ("If-Range", whole.headers["Last-Modified"], 206),
            ("If-Match", etag, 206),
            ("If-Match", '"other"', 412),
            ("If-None-Match", etag, 304),
            ("If-None-Match", '"a,b", "c"', 206),
        ):
            answer = session.get(url, headers={"Range": "bytes=5-9", name: value}, timeout=TIMEOUT)
            assert answer.status_code == status
            if status in (200, 206):
                assert answer.content == (CONTENT if status == 200 else CONTENT[5:10])
        for path, content in (("text", TEXT.encode()), ("files/style.css", STYLE)):
            for accepted in ("gzip", "br", "identity"):
                answer = session.get(f"{server.url}/{path}", headers={"Accept-Encoding": accepted}, timeout=TIMEOUT)
                assert answer.headers.get("Content-Encoding", "identity") == accepted
                assert answer.content == content
        names = session.get(f"{server.url}/files/tree/", headers={"Accept": "application/json"}, timeout=TIMEOUT).json()
        assert sorted(entry["name"] for entry in names) == sorted([*NAMES, "sub folder"])

    await with_requests(steps)


# -- aiohttp -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    # unsafe: cookies of an address, not of a name.
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=aiohttp.ClientTimeout(TIMEOUT)) as session:
        yield session


@pytest.mark.parametrize("where", ["form", "form-stream"])
async def test_aiohttp_uploads_files(server: Site, session: aiohttp.ClientSession, root: Path, where: str) -> None:
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("name", "Grüße")
    form.add_field("file", SMALL, filename="ü.bin", content_type="image/png")
    with (root / "style.css").open("rb") as file:
        form.add_field("other", file)
        async with session.post(f"{server.url}/{where}", data=form) as answer:
            assert await answer.json() == {
                "name": ["Grüße"],
                "file": [["ü.bin", "image/png", len(SMALL), digest(SMALL)]],
                "other": [["style.css", "text/css", len(STYLE), digest(STYLE)]],
            }
    if where == "form-stream":
        with aiohttp.MultipartWriter("form-data") as writer:  # chunked: nobody knows the length of a generator
            part = writer.append(pieces(), {"Content-Type": "video/x-test"})
            part.set_content_disposition("form-data", name="large", filename="large")
        async with session.post(f"{server.url}/{where}", data=writer, expect100=True) as answer:
            sent = b"".join(PIECES)
            assert await answer.json() == {"large": [["large", "video/x-test", len(sent), digest(sent)]]}


async def pieces() -> AsyncIterator[bytes]:
    for piece in PIECES:
        yield piece


async def test_aiohttp_streams_both_ways(server: Site, session: aiohttp.ClientSession) -> None:
    async with session.get(f"{server.url}/stream") as answer:
        assert b"".join([piece async for piece in answer.content.iter_chunked(10_000)]) == b"".join(PIECES)
    for expects in (False, True):
        async with session.put(f"{server.url}/upload/x", data=pieces(), expect100=expects) as answer:
            assert (await answer.json())["sha256"] == digest(b"".join(PIECES))
    async with session.put(f"{server.url}/upload/x", data=TEXT, compress="gzip") as answer:
        # Nobody has asked for the content to be decoded.
        assert (await answer.json())["size"] < len(TEXT)
    for coding in ("br", "gzip", "identity"):
        async with session.get(f"{server.url}/lines", headers={"Accept-Encoding": coding}) as answer:
            assert answer.headers.get("Content-Encoding", "identity") == coding
            assert [json.loads(line) async for line in answer.content] == LINES
    assert server.sent("Transfer-Encoding") == [None, "chunked", "chunked", "chunked", None, None, None]


async def test_aiohttp_keeps_a_session(server: Site, session: aiohttp.ClientSession) -> None:
    async def shown(path: str) -> dict[str, str]:
        async with session.get(f"{server.url}/cookies/{path}") as answer:
            told: dict[str, str] = await answer.json()
            return told

    async with session.get(f"{server.url}/cookies/set") as answer:
        assert answer.cookies["long"]["httponly"] and answer.cookies["long"]["samesite"] == "Strict"
        assert answer.cookies["long"]["max-age"] == "3600" and answer.cookies["safe"]["secure"]
    assert {"plain": "1", "long": "2"}.items() <= (await shown("")).items()
    assert (await shown("deep/er"))["deep"] == "3"
    async with session.get(f"{server.url}/cookies/delete"):
        pass
    assert {"plain", "long"}.isdisjoint(await shown(""))
    async with session.post(f"{server.url}/moved/308", data="body") as answer:
        assert [old.status for old in answer.history] == [308] and (await answer.json())["body"] == "body"
    token = base64.b64encode("ännchen:geheim: ü".encode()).decode()
    async with session.get(f"{server.url}/private", headers={"Authorization": f"Basic {token}"}) as answer:
        assert await answer.text() == "hello ännchen\n"


async def test_aiohttp_gets_ranges_and_codings(server: Site, session: aiohttp.ClientSession) -> None:
    for value, expected in (("bytes=10-19", CONTENT[10:20]), ("bytes=-7", CONTENT[-7:])):
        async with session.get(f"{server.url}/files/content.bin", headers={"Range": value}) as answer:
            assert answer.status == 206 and await answer.read() == expected
    async with session.get(f"{server.url}/files/content.bin", headers={"Range": "bytes=0-9,20-29"}) as answer:
        reader = aiohttp.MultipartReader.from_response(answer)
        ranges = [await part.read() async for part in reader]
        assert ranges == [CONTENT[:10], CONTENT[20:30]]
    for path, content in (("text", TEXT.encode()), ("files/style.css", STYLE)):
        for accepted in ("gzip", "br", "identity"):
            async with session.get(f"{server.url}/{path}", headers={"Accept-Encoding": accepted}) as answer:
                assert answer.headers.get("Content-Encoding", "identity") == accepted
                assert await answer.read() == content
