"""Peers that cannot live in our environment, installed below ``build``: ``installs.py [KIND]...``; the kinds:

``npm``: mqtt.js, aedes and ws, by npm. ``python``: a virtual environment with amqtt, which pins an old ``websockets``,
and gmqtt, whose package brings a ``tests`` that would hide ours. ``time``: chrony, ntpsec and openntpd, unpacked from
Debian's packages, which cannot be installed side by side. ``zeroconf``: an environment with python-zeroconf. ``avahi``:
its daemon, unpacked, since installed it would be started. Each is made at its first use, by whichever of several
processes comes first; without arguments, all. Nothing but Python's own library is needed here.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

BUILD = Path(__file__).resolve().parents[2] / "build"
TIMEOUT = 600.0
_PR_SET_PDEATHSIG = 1
PYTHON = "python"
PACKAGES = ("amqtt==0.12.1", "gmqtt==0.8.0", "uvloop>=0.23")
ZEROCONF = "zeroconf==0.154.0"
AVAHI_PACKAGES = ("avahi-daemon", "libavahi-core7", "libavahi-common3", "libdaemon0", "libdbus-1-3", "libexpat1")
TIME_PACKAGES = ("chrony", "ntpsec", "openntpd")
MODULES = {"mqtt": "5.16.0", "ws": "8.23.0"}
AEDES = (20, "1.2.0", "0.51.3")  # what its newer release needs of Node.js, that release, and one for all before


class NotInstallable(Exception):
    """A peer cannot be had here. The message says why."""


def node_modules() -> Path:
    """Return the folder whose ``node_modules`` hold mqtt.js, aedes and ws.

    Raises:
        NotInstallable: there is no Node.js, no npm, or no network.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NotInstallable("node and npm (Debian: apt-get install nodejs npm)")
    needed, new, old = AEDES
    major = int(_run([node, "--print", "process.versions.node"]).partition(".")[0])
    modules = MODULES | {"aedes": new if major >= needed else old}

    def build(folder: Path) -> None:
        (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": modules}))
        _run([npm, "install", "--no-audit", "--no-fund", "--no-update-notifier", "--prefix", str(folder)], cwd=folder)

    return _cached("npm", json.dumps(modules), build)


def peers_python() -> Path:
    """Return the Python of the environment with amqtt and gmqtt; it is the same Python as ours.

    Raises:
        NotInstallable: there is no network, or no module ``venv``.
    """

    return _environment(PYTHON, PACKAGES)


def zeroconf_python() -> Path:
    """Return the Python of the environment with python-zeroconf; it is the same Python as ours.

    Raises:
        NotInstallable: there is no network, or no module ``venv``.
    """
    return _environment("zeroconf", (ZEROCONF,))


def _environment(name: str, packages: Sequence[str]) -> Path:
    def build(folder: Path) -> None:
        _run([sys.executable, "-m", "venv", str(folder)])
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        _run([*pip, "install", *packages])

    return _cached(name, " ".join((sys.version, sys.base_prefix, *packages)), build) / "bin" / "python"


def time_daemons() -> Path:
    """Return the folder in which chronyd, ntpsec's and openntpd's ntpd are, each below the name of its package.

    Raises:
        NotInstallable: this is no Debian, or there is no network.
    """
    return _unpacked("time", TIME_PACKAGES)


def avahi() -> Path:
    """Return the folder in which avahi-daemon and its libraries are, each below the name of its package.

    Raises:
        NotInstallable: this is no Debian, or there is no network.
    """
    return _unpacked("avahi", AVAHI_PACKAGES)


def _unpacked(kind: str, packages: Sequence[str]) -> Path:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise NotInstallable("apt-get and dpkg-deb: Debian's packages are unpacked")

    def build(folder: Path) -> None:
        _run(["apt-get", "-qq", "download", *packages], cwd=folder)
        for name in packages:
            archive = next(folder.glob(f"{name}_*.deb"))
            _run(["dpkg-deb", "--extract", str(archive), str(folder / name)])

    return _cached(kind, " ".join(packages), build)


def _cached(name: str, recipe: str, build: Callable[[Path], None]) -> Path:
    """Return the folder that ``build`` made for this recipe; one that it did not finish is made anew."""
    BUILD.mkdir(parents=True, exist_ok=True)
    folder = BUILD / f"peers-{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    finished = folder / ".finished"
    with (BUILD / f"peers-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():  # not renamed when it is done: an environment knows its own path
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            build(folder)
            finished.touch()
    return folder


def _run(command: list[str], cwd: Path | None = None) -> str:
    # A file, not a pipe: a grandchild that stays would keep a pipe open.
    with tempfile.TemporaryFile("w+") as errors:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                timeout=TIMEOUT,
                cwd=cwd,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise NotInstallable(f"{os.path.basename(command[0])}: {exc}") from exc
        if done.returncode == 0:
            return done.stdout
        errors.seek(0)
        lines = [line.strip() for line in errors.read().splitlines() if line.strip()]
        raise NotInstallable(f"{' '.join(command[:3])} failed: {lines[-1] if lines else done.returncode}")


KINDS = {"npm": node_modules, PYTHON: peers_python, "time": time_daemons, "zeroconf": zeroconf_python, "avahi": avahi}


def installed(kind: str) -> Path:
    """Return what the function of this kind does, or exit with a word."""
    try:
        return KINDS[kind]()
    except NotInstallable as exc:
        sys.exit(f"not installed: {exc}")


def become_peers_python() -> None:
    """Run this program anew by the Python of ``peers_python``, or return when that is what runs it."""
    if f"peers-{PYTHON}-" not in sys.prefix:
        python = str(installed(PYTHON))
        os.execv(python, [python, *sys.argv])


def end_with_parent() -> None:
    """Have the kernel kill this process, and what it becomes, when its parent ends: also one that was killed itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    for kind in sys.argv[1:] or KINDS:
        print(installed(kind))


if __name__ == "__main__":
    main()
