"""Every Python block of README.md and docs/ is run, in a process of its own, with warnings as errors.

An HTML comment before a block tells how:

* none: a program; it ends by itself with exit code 0.
* ``run: async``: it stands inside a coroutine, with ``manager`` at hand, and ends by itself.
* ``run: server``: a program that serves until SIGINT, then ends with exit code 0.
* ``run: handler``: it defines ``handler``; an HTTP server on port 8000 is put round it. Otherwise as ``server``.
* ``run: client``: a program; the last server or handler block above it on its page is running meanwhile.

Lines that follow in the comment are requests, ``METHOD URL-OR-PATH [BODY] => STATUS TEXT``: TEXT is found in what comes
back. What a program prints on stdout is compared with the ``text`` block behind ``<!-- output -->``, when there is one.
Nothing may be printed on stderr. Ports are replaced, see run_snippet.py. Blocks are run in a folder that holds
``server.crt`` and ``server.key`` for localhost, ``ca.crt``, and ``site/index.html``.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.examples.program import heed_interrupts

from .pages import ROOT, Block, blocks

TIMEOUT = 10
PYTHON = blocks("python")
SHELL = blocks("sh")
STEP = re.compile(r"(?P<method>[A-Z]+) (?P<url>\S+)(?: (?P<body>.*?))? => (?P<status>\d+)(?: (?P<text>.*))?")
SERVERS = ("server", "handler")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that blocks run in."""
    path = tmp_path_factory.mktemp("snippets")
    ca = trustme.CA()
    leaf = ca.issue_cert("localhost", "127.0.0.1")
    ca.cert_pem.write_to_path(str(path / "ca.crt"))
    for blob in leaf.cert_chain_pems:
        blob.write_to_path(str(path / "server.crt"), append=True)
    leaf.private_key_pem.write_to_path(str(path / "server.key"))
    (path / "site").mkdir()
    (path / "site" / "index.html").write_text("<!doctype html><title>site</title>\n")
    return path


def kind_of(block: Block) -> str:
    return block.comment.removeprefix("run:").split("\n")[0].strip() or "program"


def command(block: Block, folder: Path) -> list[str]:
    path = folder / f"{block.page.stem}_{block.line}.py"
    path.write_text(block.code, encoding="utf-8")
    return [sys.executable, "-W", "error", str(Path(__file__).with_name("run_snippet.py")), kind_of(block), str(path)]


def environment(report: int, ports: dict[int, int]) -> dict[str, str]:
    told = " ".join(f"{named}:{actual}" for named, actual in ports.items())
    return {**os.environ, "PYTHONPATH": str(ROOT), "SNIPPET_REPORT": str(report), "SNIPPET_PORTS": told}


def run_program(block: Block, folder: Path, ports: dict[int, int]) -> None:
    """Run a block that ends by itself."""
    with open(os.devnull, "wb") as nowhere:
        done = subprocess.run(
            command(block, folder),
            cwd=folder,
            env=environment(nowhere.fileno(), ports),
            pass_fds=[nowhere.fileno()],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    if block.expected is not None:
        assert done.stdout == block.expected


@contextlib.contextmanager
def running(block: Block, folder: Path) -> Iterator[dict[int, int]]:
    """Run a block that serves; yield its ports, by their names in the text. SIGINT at the end must stop it."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        command(block, folder),
        cwd=folder,
        env=environment(writer, {}),
        pass_fds=[writer],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], TIMEOUT)
        told = os.read(reader, 1000).decode() if ready else ""
        if not told:
            process.kill()
            pytest.fail(f"the block listens on nothing: {process.communicate()[1]}")
        yield {int(named): int(actual) for named, actual in (line.split() for line in told.splitlines())}
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=TIMEOUT)
        assert (process.returncode, stderr) == (0, "")
        if block.expected is not None:
            assert stdout == block.expected
    finally:
        os.close(reader)
        if process.poll() is None:
            process.kill()
        process.communicate()


def ask(step: str, ports: dict[int, int], folder: Path) -> None:
    """Make one request and compare what comes back; a stream is read as far as the text that is looked for."""
    match = STEP.fullmatch(step)
    assert match, f"not a step: {step!r}"
    url = match["url"] if "://" in match["url"] else "http://127.0.0.1:8000" + match["url"]
    url = re.sub(r":(\d+)", lambda port: f":{ports[int(port[1])]}", url, count=1)
    body = match["body"]
    request = urllib.request.Request(url, None if body is None else body.encode(), method=match["method"])
    context = ssl.create_default_context(cafile=folder / "ca.crt") if url.startswith("https") else None
    wanted, seen = (match["text"] or "").encode(), b""
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT, context=context)
    except urllib.error.HTTPError as refusal:
        response = refusal
    with response:
        while wanted not in seen and (data := response.read1(65536)):
            seen += data
        assert (response.status, wanted in seen) == (int(match["status"]), True), (step, response.status, seen)


def server_above(block: Block) -> Block:
    above = [b for b in PYTHON if b.page == block.page and b.line < block.line and kind_of(b) in SERVERS]
    assert above, "there is no server above this client"
    return above[-1]


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.id)
def test_python_block(block: Block, folder: Path) -> None:
    kind = kind_of(block)
    steps = block.comment.split("\n")[1:]
    if kind in SERVERS:
        assert steps, "say in the comment what the server is asked"
        with running(block, folder) as ports:
            for step in steps:
                ask(step, ports, folder)
    elif kind == "client":
        with running(server_above(block), folder) as ports:
            run_program(block, folder, ports)
    else:
        assert kind in ("program", "async"), f"unknown kind {kind!r}"
        assert not steps
        run_program(block, folder, {})


def test_every_page_has_blocks_that_are_run() -> None:
    named = {block.page.name for block in PYTHON}
    assert {"http-files.md", "http-forms.md", "http-streams.md", "http-routes.md"} <= named
    assert {"README.md", "tutorial.md", "http.md", "core.md", "protocols-alone.md", "migrating.md"} <= named


def test_no_fence_is_missed() -> None:
    """Every line that opens or closes a fence belongs to a block that was found, and every block says its language."""
    known = ("python", "sh", "text")
    for page in {block.page for block in blocks(*known)}:
        text = page.read_text(encoding="utf-8")
        found = [block for block in blocks(*known) if block.page == page]
        fences = len(re.findall(r"^\s*```", text, re.MULTILINE))
        assert fences == 2 * len(found) + 2 * sum(block.expected is not None for block in found), page.name
    assert not blocks("")


# -- shell ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.id)
def test_shell_block_is_marked(block: Block) -> None:
    """``demo``: its URLs are those of the demo. ``shown``: nothing of it is checked; it may name no server of ours."""
    assert block.comment in ("demo", "shown")
    assert block.comment == "demo" or "127.0.0.1:8000" not in block.code


def test_urls_in_shell_blocks_are_in_the_demo() -> None:
    code = "".join(block.code for block in SHELL if block.comment == "demo")
    urls = set(re.findall(r"http://127\.0\.0\.1:8000([^\s']*)", code))
    assert len(urls) >= 5
    process = subprocess.Popen(
        [sys.executable, "-m", "asyncmg", "demo", "--port", "0"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    try:
        base = process.stdout.readline().split()[2].removesuffix("/")
        for url in sorted(urls):
            try:
                with urllib.request.urlopen(base + url, timeout=TIMEOUT) as response:
                    status = response.status
            except urllib.error.HTTPError as refusal:
                with refusal:
                    status = refusal.code
            assert status in (200, 405), url  # 405: it is there for POST
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT)
