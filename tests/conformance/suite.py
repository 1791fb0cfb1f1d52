"""Autobahn|Testsuite (`wstest`), installed for us under ``build/autobahn``: nothing of it is kept in this project.

The suite is Python 2 code. Two ways to have it, the first that works is taken:

* ``python2``: the release from PyPI, unchanged, where a Python 2.7 with pip is installed.
* ``converted``: the two modes that we need, translated for the Python that runs us. Python 2's ``str`` becomes a
  ``str`` that holds one byte per character (Latin-1) everywhere in the test cases; a class between them and autobahn
  turns it into bytes and back. Both ways give the same verdicts; `test_autobahn.py` looks.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]
HOME = ROOT / "build" / "autobahn"
PIP_TIMEOUT = 600.0

Kind = Literal["python2", "converted"]

# The files that the conversion is written for.
TESTSUITE = "autobahntestsuite==25.10.1"
TESTSUITE_HASH = "sha256:b57ee6b22de624a03256878ad453c9897d2ad7ee08a4c38b35ee2847637e1383"
AUTOBAHN = "autobahn==0.10.9"
LIBRARIES = ["Twisted==25.5.0", "txaio==23.1.1", "six==1.17.0"]
ACCELERATOR = "wsaccel==0.6.7"
CONVERTER = "fissix==24.4.24"  # lib2to3, which Python 3.13 no longer has
FIXERS = ["except", "has_key", "import", "print", "raise", "unicode", "xrange"]

# The fuzzing server would listen on every interface.
RUN_PYTHON2 = (
    "import functools, site; site.addsitedir({folder!r}); from autobahntestsuite import fuzzing, wstest; "
    "fuzzing.listenWS = functools.partial(fuzzing.listenWS, interface='127.0.0.1'); wstest.run()"
)
RUN_CONVERTED = "import sys; sys.path.insert(0, {folder!r}); from autobahntestsuite import drive; drive.run()"


class SuiteUnavailableError(Exception):
    """The test suite cannot be had here; the text says why."""


@dataclass(frozen=True, slots=True)
class Suite:
    """An installed test suite.

    Attributes:
        kind: how it was made.
        command: what to put before ``-m fuzzingclient -s spec.json``.
    """

    kind: Kind
    command: tuple[str, ...]


def install(kind: Kind | Literal["auto"] = "auto") -> Suite:
    """Install the suite, or find it installed. Several processes may do that at once.

    Raises:
        SuiteUnavailableError: it cannot be installed, for example because there is no network.
    """
    if kind == "auto":
        python2 = find_python2()
        if python2 is None:
            return install("converted")
        try:
            return _install_python2(python2)
        except SuiteUnavailableError as error:
            print(f"autobahn: {python2} will not do, the converted suite then: {error}", file=sys.stderr)
            return install("converted")
    if kind == "python2":
        python2 = find_python2()
        if python2 is None:
            raise SuiteUnavailableError("no Python 2.7 with pip, ssl and zlib")
        return _install_python2(python2)
    recipe = sys.version.partition(" ")[0] + sys.platform + Path(__file__).read_text("utf-8")
    folder = _cached("converted", recipe, _convert)
    return Suite("converted", (sys.executable, "-s", "-c", RUN_CONVERTED.format(folder=str(folder))))


def find_python2() -> str | None:
    """Return a Python 2.7 that can install packages: the one of ASYNCMG_PYTHON2, of PATH, of pyenv."""
    named = os.environ.get("ASYNCMG_PYTHON2")
    installed = sorted((Path.home() / ".pyenv" / "versions").glob("2.7.*/bin/python2.7"), reverse=True)
    candidates = [named] if named else [*map(str, installed), "python2.7", "python2", "/usr/bin/python2.7"]
    # A shim may be on PATH for a Python that is not installed, and a Debian Python may have no pip: ask it.
    probe = "import sys, ssl, zlib, pip; print(sys.version_info[:2] == (2, 7) and sys.executable)"
    for candidate in candidates:
        try:
            answer = _run([candidate, "-s", "-c", probe], timeout=30).strip()
        except SuiteUnavailableError:
            continue
        if answer.startswith("/"):
            return answer
    return None


def _install_python2(python2: str) -> Suite:
    def build(folder: Path) -> None:
        pip = [python2, "-s", "-m", "pip", "--disable-pip-version-check", "--no-cache-dir", "--quiet"]
        _run([*pip, "install", "--target", str(folder), TESTSUITE])
        _run([python2, "-s", "-c", RUN_PYTHON2.format(folder=str(folder)), "-a"], timeout=60)

    folder = _cached("python2", python2 + TESTSUITE, build)
    return Suite("python2", (python2, "-s", "-c", RUN_PYTHON2.format(folder=str(folder))))


def _cached(name: str, recipe: str, build: Callable[[Path], None]) -> Path:
    """Return the folder that `build` made for this recipe; a build that fails or is killed leaves none."""
    HOME.mkdir(parents=True, exist_ok=True)
    folder = HOME / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with _locked(HOME / f"{name}.lock"):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=HOME) as building:
                target = Path(building) / "site"
                target.mkdir()
                print(f"autobahn: installing the {name} suite into {folder}", file=sys.stderr)
                build(target)
                target.rename(folder)
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str], timeout: float = PIP_TIMEOUT, constraint: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    # The sanitizers' runs preload a library that an older Python does not take.
    environment.pop("LD_PRELOAD", None)
    if constraint is not None:
        environment["PIP_CONSTRAINT"] = str(constraint)
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=timeout, env=environment, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SuiteUnavailableError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
        raise SuiteUnavailableError(f"{' '.join(command)[:300]} ended with {done.returncode}: {said[-600:]}")
    return done.stdout.decode("utf-8", "replace")


# The conversion.

_PROTOCOL = "autobahn/websocket/protocol.py"
_FUZZING = "autobahntestsuite/fuzzing.py"
_CASE12 = "autobahntestsuite/case/case12_x_x.py"

# What no fixer can know: (file, pattern, replacement). Each has to apply, or the conversion fails.
PATCHES: list[tuple[str, str, str]] = [
    # autobahn itself runs on both, but for this division.
    (_PROTOCOL, r"payload_len / len\(payload\)", "payload_len // len(payload)"),
    # No TLS here, no web page, no report in HTML; pkg_resources is gone from new Pythons.
    (_FUZZING, r"import reactor, ssl", "import reactor"),
    (_FUZZING, r"^from twisted\.web\..*$", ""),
    (_FUZZING, r"(?s)^from report import .*?JS_MASTER_REPORT$", ""),
    (_FUZZING, r"ssl\.ClientContextFactory\(\)", "None"),
    (_FUZZING, r"listenWS\(factory, sslContext\)", "listenWS(factory, sslContext, interface = '127.0.0.1')"),
    (_FUZZING, r"produceHtml = True", "produceHtml = False"),
    (_FUZZING, r", pkg_resources$", ""),
    (_CASE12, r", pkg_resources, hashlib, binascii$", ", hashlib"),
    (_CASE12, r"^from autobahn\.websocket\.compress import \*$", r"\g<0>\nfrom autobahntestsuite import pkg_resources"),
    # Bytes at the edges: what autobahn takes and gives.
    (_FUZZING, r"^(class Fuzzing(?:Server|Client)Protocol\()", r"\1Boundary, "),
    (_FUZZING, r"^(import os, json,) binascii,", r"from .boundary import Boundary, binascii\n\1"),
    (_FUZZING, r"dd\.decode\('utf8'", "dd.encode('latin-1').decode('utf8'"),
    (_FUZZING, r"(f\.write\(json\.dumps\(case,)", r"\1 default = Boundary.text,"),
    (_CASE12, r"^def onMessage\(self, msg, binary\):$", r"\g<0>\n   msg = msg.encode('latin-1')"),
    (_CASE12, r"binascii\.hexlify\(([\w.]+)\)", r"\1.hex()"),
    # Python 2 looked at the bytes of two pickles; equal strings may give different ones now.
    ("autobahntestsuite/case/case.py", r"pickle\.dumps\(obj1\) == pickle\.dumps\(obj2\)", "obj1 == obj2"),
    ("autobahntestsuite/case/case10_1_1.py", r"len\(self\.payload\) / self", "len(self.payload) // self"),
    # Not among the cases that are run, and of Python 2 through and through.
    ("autobahntestsuite/case/__init__.py", r"^from \.case9_9_1 import \*$", ""),
    (
        "autobahntestsuite/case/case6_x_x.py",
        r"from autobahn\.websocket\.utf8validator import Utf8Validator",
        "from autobahntestsuite.boundary import Utf8Validator",
    ),
]
# The same everywhere in the cases.
CASE_PATCHES: list[tuple[str, str]] = [
    (r"\(object, Case, ?\)", "(Case, )"),
    (r"^import binascii$", "from autobahntestsuite.boundary import binascii"),
]

BOUNDARY = '''
"""Between the test cases, whose strings hold one byte per character, and autobahn, which takes and gives bytes."""

import binascii as _binascii

from autobahn.websocket.utf8validator import Utf8Validator as _Utf8Validator


def octets(data):
    return data.encode("latin-1") if isinstance(data, str) else data


class binascii:
    @staticmethod
    def b2a_hex(data):
        return _binascii.b2a_hex(octets(data)).decode("ascii")


class Utf8Validator:
    def __init__(self):
        self._validator = _Utf8Validator()

    def reset(self):
        self._validator.reset()

    def validate(self, data):
        return self._validator.validate(octets(data))


class Boundary:
    @staticmethod
    def text(data):
        return bytes(data).decode("latin-1")

    # From the cases to the wire.

    def sendFrame(self, opcode, payload=b"", *args, **kwargs):
        return super().sendFrame(opcode, octets(payload), *args, **kwargs)

    def sendMessage(self, payload, *args, **kwargs):
        return super().sendMessage(octets(payload), *args, **kwargs)

    def sendMessageFrameData(self, payload, *args, **kwargs):
        return super().sendMessageFrameData(octets(payload), *args, **kwargs)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        return super().sendCloseFrame(code, octets(reasonUtf8), isReply)

    # From the wire to the cases.

    def onMessage(self, payload, isBinary):
        return super().onMessage(self.text(payload), isBinary)

    def onPong(self, payload):
        return super().onPong(self.text(payload))

    def logRxOctets(self, data):
        super().logRxOctets(self.text(data))

    def logTxOctets(self, data, sync):
        super().logTxOctets(self.text(data), sync)

    def logRxFrame(self, frameHeader, payload):
        super().logRxFrame(frameHeader, [self.text(b"".join(payload))])

    def logTxFrame(self, frameHeader, payload, *args):
        super().logTxFrame(frameHeader, self.text(payload), *args)
'''

PACKAGE = """
version = "{version}, converted"
"""

RESOURCES = """
import os


def resource_filename(package, name):
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
"""

DRIVE = """
import json
import sys


def run():
    import txaio

    txaio.use_twisted()
    from twisted.internet import reactor

    from autobahntestsuite import fuzzing

    _, minus_m, mode, minus_s, path = sys.argv
    assert (minus_m, minus_s) == ("-m", "-s")
    with open(path) as file:
        spec = json.load(file)
    if mode == "fuzzingclient":
        fuzzing.startClient(spec)
    elif mode == "fuzzingserver":
        fuzzing.startServer(spec, 0)
    else:
        raise SystemExit("only fuzzingclient and fuzzingserver")
    reactor.run()
"""


def _convert(folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        constraint = work / "constraints.txt"
        constraint.write_text("setuptools<81\n")  # builds autobahn's sdist, which is of 2015
        _run([*pip, "install", "--target", str(folder), *LIBRARIES])
        _run([*pip, "install", "--target", str(folder), "--no-deps", AUTOBAHN], constraint=constraint)
        _run([*pip, "install", "--target", str(work / "fissix"), CONVERTER])
        try:  # faster masks and UTF-8 checks: without them the suite itself takes much of the time
            _run([*pip, "install", "--target", str(folder), "--no-deps", "--only-binary=:all:", ACCELERATOR])
        except SuiteUnavailableError as error:
            print(f"autobahn: without wsaccel: {error}", file=sys.stderr)
        requirement = work / "testsuite.txt"
        requirement.write_text(f"{TESTSUITE} --hash={TESTSUITE_HASH}\n")
        python2 = ["--python-version", "2.7", "--implementation", "py", "--abi", "none", "--platform", "any"]
        download = ["download", "--no-deps", "--only-binary=:all:", *python2, "--dest", str(work)]
        _run([*pip, *download, "--require-hashes", "-r", str(requirement)])
        (wheel,) = work.glob("autobahntestsuite-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(work / "wheel")
        _copy_package(work / "wheel" / "autobahntestsuite", folder / "autobahntestsuite")
        _translate(folder / "autobahntestsuite", work / "fissix")
    _patch(folder)
    _run(
        [
            sys.executable,
            "-s",
            "-c",
            f"import sys; sys.path.insert(0, {str(folder)!r}); from autobahntestsuite import fuzzing",
        ]
    )


def _copy_package(source: Path, package: Path) -> None:
    package.mkdir()
    for name in ("fuzzing.py", "caseset.py"):
        shutil.copy(source / name, package / name)
    for name in ("case", "testdata"):
        shutil.copytree(source / name, package / name)
    for path in [*package.glob("*.py"), *package.glob("case/*.py")]:
        # Read as Latin-1, each byte of a literal becomes one character: what Python 2 made of it.
        text = path.read_bytes().decode("latin-1")
        path.write_text(re.sub(r"\A# *coding=utf-8\r?\n", "", text), encoding="utf-8")
    version = TESTSUITE.partition("==")[2]
    (package / "__init__.py").write_text(PACKAGE.format(version=version))
    (package / "boundary.py").write_text(BOUNDARY)
    (package / "pkg_resources.py").write_text(RESOURCES)
    (package / "drive.py").write_text(DRIVE)


def _translate(package: Path, fissix: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(fissix)!r}); from fissix.main import main; "
        "sys.exit(main('fissix.fixes', sys.argv[1:]))"
    )
    fixers = [part for name in FIXERS for part in ("-f", name)]
    files = [package / "fuzzing.py", package / "caseset.py", *sorted(package.glob("case/*.py"))]
    options = ["--write", "--nobackups", "--no-diffs", "--processes", "1"]
    _run([sys.executable, "-W", "ignore", "-c", program, *options, *fixers, *map(str, files)])


def _patch(folder: Path) -> None:
    def substitute(path: Path, pattern: str, replacement: str) -> int:
        text, count = re.subn(pattern, replacement, path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        path.write_text(text, encoding="utf-8")
        return count

    for name, pattern, replacement in PATCHES:
        if not substitute(folder / name, pattern, replacement):
            raise SuiteUnavailableError(f"the conversion does not fit: no {pattern!r} in {name}")
    for pattern, replacement in CASE_PATCHES:
        cases = sorted((folder / "autobahntestsuite" / "case").glob("*.py"))
        if not sum(substitute(path, pattern, replacement) for path in cases):
            raise SuiteUnavailableError(f"the conversion does not fit: no {pattern!r} in the cases")
