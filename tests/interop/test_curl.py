"""curl against the demo."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from .peers import peer


def curl(*arguments: str, stdin: bytes | None = None) -> tuple[str, str]:
    """Run curl; return its output and what ``-v`` tells. It has to succeed."""
    command = [peer("curl"), "-sS", "-v", "--max-time", "20", "--noproxy", "*", *arguments]
    result = subprocess.run(command, input=stdin, capture_output=True, timeout=30, check=False)
    told = result.stderr.decode("utf-8", "replace")
    assert result.returncode == 0, told
    return result.stdout.decode("utf-8", "replace"), told


def curl_json(*arguments: str, stdin: bytes | None = None) -> Any:
    return json.loads(curl(*arguments, stdin=stdin)[0])


def statuses(told: str) -> list[int]:
    return [int(status) for status in re.findall(r"^< HTTP/1\.[01] (\d+)", told, re.MULTILINE)]


def test_get_and_post(demo_url: str) -> None:
    assert curl_json(f"{demo_url}/api/echo?a=b")["query"] == "a=b"
    told = curl_json("-d", "name=value", f"{demo_url}/api/echo")
    assert (told["method"], told["body"]) == ("POST", "name=value")


def test_head(demo_url: str) -> None:
    out, _ = curl("-I", f"{demo_url}/files/hello.txt")
    body, _ = curl(f"{demo_url}/files/hello.txt")
    assert out.startswith("HTTP/1.1 200") and f"Content-Length: {len(body)}\r\n" in out
    for path in ("/events", "/stream"):  # streams that HEAD must not wait for
        out, _ = curl("-I", demo_url + path)
        assert out.startswith("HTTP/1.1 200") and out.endswith("\r\n\r\n")


def test_keep_alive_and_next(demo_url: str) -> None:
    urls = [f"{demo_url}/api/echo?n={n}" for n in range(3)]
    _, told = curl(urls[0], "--next", "-sS", "-v", urls[1], "--next", "-sS", "-v", "-d", "x", urls[2])
    assert statuses(told) == [200, 200, 200]
    assert told.count("Re-using existing connection") == 2


def test_http_1_0(demo_url: str) -> None:
    out, told = curl("--http1.0", f"{demo_url}/stream")
    assert out.splitlines()[-1] == "chunk 10 of 10"
    assert "Transfer-Encoding" not in told
    assert curl_json("--http1.0", "-d", "x", f"{demo_url}/api/echo")["body"] == "x"


def test_chunked_upload(demo_url: str) -> None:
    data = bytes(range(256)) * 1000
    for arguments in (["-T", "-", "-X", "POST"], ["-H", "Transfer-Encoding: chunked", "--data-binary", "@-"]):
        told = curl_json(*arguments, f"{demo_url}/upload", stdin=data)
        assert (told["size"], told["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert curl_json(*arguments, f"{demo_url}/api/echo", stdin=data)["body_size"] == len(data)


def test_expect_100_continue(demo_url: str) -> None:
    data = b"x" * 100_000
    for path in ("/api/echo", "/upload"):
        out, told = curl("-H", "Expect: 100-continue", "--data-binary", "@-", demo_url + path, stdin=data)
        assert statuses(told) == [100, 200]
        answer = json.loads(out)
        assert answer.get("size", answer.get("body_size")) == len(data)


def test_big_upload(demo_url: str, tmp_path: Path) -> None:
    data = bytes(range(256)) * 200_000  # 51 MB
    file = tmp_path / "big"
    file.write_bytes(data)
    told = curl_json("-T", str(file), f"{demo_url}/upload")
    assert (told["size"], told["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_early_reject(demo_url: str, tmp_path: Path) -> None:
    """A body that is too big is refused before it is sent, or while it is: curl sees the 413, not a reset."""
    file = tmp_path / "big"
    file.write_bytes(bytes(20 << 20))
    for expect in ("Expect: 100-continue", "Expect:"):
        out, told = curl("-H", expect, "--data-binary", f"@{file}", f"{demo_url}/api/echo")
        assert statuses(told) == [413]
        assert "413" in out
    out, told = curl("-T", "-", "-X", "POST", f"{demo_url}/api/echo", stdin=bytes(5 << 20))  # chunked: no announcement
    assert statuses(told)[-1] == 413


def test_events(demo_url: str) -> None:
    command = [peer("curl"), "-sSN", "--noproxy", "*", f"{demo_url}/events"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        names = []
        while len(names) < 3:
            line = process.stdout.readline()
            assert line
            if line.startswith(b"event: "):
                names.append(line[7:].strip())
        process.terminate()
    assert names == [b"begin", b"tick", b"tick"]


def test_conditional_get(demo_url: str, tmp_path: Path) -> None:
    etags = tmp_path / "etag"
    curl("--etag-save", str(etags), f"{demo_url}/style.css")
    out, told = curl("--etag-compare", str(etags), f"{demo_url}/style.css")
    assert (out, statuses(told)) == ("", [304])
