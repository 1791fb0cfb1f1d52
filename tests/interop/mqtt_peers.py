"""MQTT programs of others for the interop tests: brokers that run, clients that publish or subscribe, certificates."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import trustme

from benchmarks.servers.installs import NotInstallable, node_modules, peers_python

from .peers import missing, peer

HOST = "localhost"
TIMEOUT = 30.0
PROGRAMS = Path(__file__).with_name("mqtt_programs")
AEDES = Path(__file__).parents[2] / "benchmarks" / "servers" / "mqtt_aedes.mjs"

Transport = Literal["tcp", "tls", "ws", "wss"]


@dataclass(frozen=True)
class Certificates:
    """Files of a certificate authority of our own, and of what it has signed for localhost and 127.0.0.1."""

    ca: Path
    cert: Path
    key: Path


def make_certificates(folder: Path) -> Certificates:
    """Write them to this folder."""
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    files = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(str(files.ca))
    files.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(str(files.key))
    return files


# -- processes ---------------------------------------------------------------------------------------------------------


class PeerProcess:
    """A program of others; what it says on stderr is part of every complaint."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Any) -> None:
        self._process = process
        self._errors = errors

    async def line(self) -> str:
        """Return the next line that it prints; AssertionError when there is none in time."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(TIMEOUT):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise AssertionError(f"it printed nothing in time: {self.errors()}") from None
        assert line, f"it has ended: {self.errors()}"
        return line.decode().rstrip("\n")

    async def wait_for(self, word: str) -> None:
        """Read lines until one contains this."""
        while word not in await self.line():
            pass

    async def end(self) -> int:
        """Wait for its end; return its exit code."""
        async with asyncio.timeout(TIMEOUT):
            return await self._process.wait()

    def errors(self) -> str:
        self._errors.seek(0)
        text: str = self._errors.read().decode(errors="replace")
        return text

    async def rest(self) -> list[str]:
        """Wait for its end, which has to be a good one; return the lines that have not been read."""
        assert self._process.stdout is not None
        async with asyncio.timeout(TIMEOUT):
            text = (await self._process.stdout.read()).decode()
        code = await self.end()
        assert code == 0, f"exit code {code}: {self.errors()}"
        return text.splitlines()


@asynccontextmanager
async def running(
    *command: str | Path, stdin: str | None = None, cwd: Path | None = None
) -> AsyncIterator[PeerProcess]:
    """Run a program, feed it, kill it at the end if it still runs.

    Args:
        stdin: what it reads; None: nothing.
    """
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            *map(os.fspath, command),
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=cwd,
            limit=1 << 22,
        )
        try:
            if stdin is not None:
                assert process.stdin is not None
                process.stdin.write(stdin.encode())
                try:
                    await process.stdin.drain()
                except (BrokenPipeError, ConnectionResetError):
                    pass  # it has ended: its exit code is looked at
                process.stdin.close()
            yield PeerProcess(process, errors)
        finally:
            if process.returncode is None:
                try:
                    process.send_signal(signal.SIGKILL)
                except ProcessLookupError:
                    pass
            assert process.stdout is not None
            await process.stdout.read()  # to its end: or else its transport is not closed
            await process.wait()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses now, below those that the system gives to others meanwhile."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20_000, 32_000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        if port not in found:
            found.append(port)
    return found


# -- clients -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What a client of others does.

    Attributes:
        role: publish, or subscribe.
        port: of localhost.
        version: 4 for MQTT 3.1.1, 5 for 5.0.
        ca: file with the authority, with ``tls`` and ``wss``.
        path: of WebSocket.
        topic: topic name, or topic filter.
        qos: publisher: sends all payloads at each of these, one after the other; subscriber: asks for the highest.
        payloads: that are published, as text.
        count: of messages that a subscriber waits for.
        id: the client identifier.
    """

    role: Literal["publish", "subscribe"]
    port: int
    version: int = 4
    transport: Transport = "tcp"
    ca: str | None = None
    path: str = "/mqtt"
    topic: str = "interop/a"
    qos: tuple[int, ...] = (0, 1, 2)
    payloads: tuple[str, ...] = ()
    count: int = 0
    id: str = "peer"
    host: str = HOST
    timeout: float = 20.0


Received = list[list[Any]]  # topic, payload, QoS, retain


@dataclass(frozen=True)
class PeerClient:
    """A client of others.

    Attributes:
        versions: that it speaks.
        transports: that it has.
        command: returns its command line for a job, and what it reads.
        parse: returns the messages of the lines that it prints.
    """

    name: str
    versions: tuple[int, ...]
    transports: tuple[Transport, ...]
    command: Callable[[Job], tuple[Sequence[str | Path], str]]
    ready: str = "ready"
    parse: Callable[[list[str]], Received] | None = None

    @asynccontextmanager
    async def subscriber(self, job: Job) -> AsyncIterator[Callable[[], Any]]:
        """Subscribe; then call what this yields, and await what it returns: the messages that came."""
        command, stdin = self.command(job)
        async with running(*command, stdin=stdin) as process:
            await process.wait_for(self.ready)

            async def received() -> Received:
                lines = await process.rest()
                if self.parse is not None:
                    return self.parse(lines)
                result: Received = json.loads(lines[-1])["received"]
                return result

            yield received

    async def publish(self, job: Job) -> None:
        """Publish, until all is acknowledged."""
        command, stdin = self.command(job)
        async with running(*command, stdin=stdin) as process:
            lines = await process.rest()
            if self.parse is None:
                assert json.loads(lines[-1]) == {"published": len(job.payloads) * len(job.qos)}


def _python(program: str, interpreter: Callable[[], Path]) -> Callable[[Job], tuple[Sequence[str | Path], str]]:
    return lambda job: ([interpreter(), PROGRAMS / program], json.dumps(asdict(job)) + "\n")


def _ours() -> Path:
    return Path(sys.executable)


def _theirs() -> Path:
    try:
        return peers_python()
    except NotInstallable as exc:
        missing(str(exc))


def npm_folder() -> Path:
    """Return the folder with node_modules."""
    try:
        return node_modules()
    except NotInstallable as exc:
        missing(str(exc))


def _npm(job: Job) -> tuple[Sequence[str | Path], str]:
    folder = npm_folder()
    return [peer("node"), PROGRAMS / "npm_program.mjs", folder], json.dumps(asdict(job)) + "\n"


def mosquitto_options(job: Job) -> list[str]:
    """Return what mosquitto_pub, _sub and _rr have in common."""
    options = ["-h", job.host, "-p", str(job.port), "-V", "mqttv5" if job.version == 5 else "mqttv311"]
    if job.ca is not None:
        options += ["--cafile", job.ca]
    return [*options, "-i", job.id]


def _mosquitto(job: Job) -> tuple[Sequence[str | Path], str]:
    """One publication of each payload for each QoS; or a subscription that prints JSON."""
    if job.role == "subscribe":
        # Line by line: it would keep "Subscribed" in its buffer.
        line_by_line = [peer("stdbuf"), "-oL", peer("mosquitto_sub"), *mosquitto_options(job)]
        count = ["-C", str(job.count), "-W", str(round(job.timeout))]
        return [*line_by_line, "-d", "-t", job.topic, "-q", str(max(job.qos)), *count, "-F", "%j"], ""
    [qos] = job.qos
    command = [peer("mosquitto_pub"), *mosquitto_options(job), "-t", job.topic, "-q", str(qos), "-l"]
    return command, "".join(f"{text}\n" for text in job.payloads)


def _mosquitto_received(lines: list[str]) -> Received:
    messages = [json.loads(line) for line in lines if line.startswith("{")]
    return [[m["topic"], m["payload"], m["qos"], bool(m["retain"])] for m in messages]


EVERYWHERE: tuple[Transport, ...] = ("tcp", "tls", "ws", "wss")
CLIENTS = [
    PeerClient("mosquitto", (4, 5), ("tcp", "tls"), _mosquitto, "Subscribed", _mosquitto_received),
    PeerClient("paho", (4, 5), EVERYWHERE, _python("paho_program.py", _ours)),
    PeerClient("aiomqtt", (4, 5), EVERYWHERE, _python("aiomqtt_program.py", _ours)),
    PeerClient("gmqtt", (4, 5), ("tcp", "tls"), _python("gmqtt_program.py", _theirs)),
    PeerClient("amqtt", (4,), EVERYWHERE, _python("amqtt_program.py", _theirs)),
    PeerClient("npm", (4, 5), EVERYWHERE, _npm),
]


# -- brokers -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PeerBroker:
    """A broker of others, running.

    Attributes:
        ports: of localhost, by transport.
        versions: that it speaks.
        raises_qos: it delivers with the QoS of the subscription, also what was published with a lower one.
    """

    name: str
    ports: dict[Transport, int]
    versions: tuple[int, ...]
    raises_qos: bool = False


MOSQUITTO_CONF = """
per_listener_settings false
allow_anonymous true
persistence false
log_type none
set_tcp_nodelay true
max_queued_messages 0
user {user}
listener {tcp} 127.0.0.1
listener {tls} 127.0.0.1
certfile {cert}
keyfile {key}
listener {ws} 127.0.0.1
protocol websockets
listener {wss} 127.0.0.1
protocol websockets
certfile {cert}
keyfile {key}
"""


@asynccontextmanager
async def mosquitto_broker(
    folder: Path, certificates: Certificates, more: str = "", ports: Sequence[int] = ()
) -> AsyncIterator[PeerBroker]:
    """Run mosquitto.

    Args:
        more: lines of its configuration, before those of its listeners.
        ports: of its four listeners; default: free ones.
    """
    path = shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if path is None:
        missing("not installed: mosquitto")
    tcp, tls, ws, wss = ports or free_ports(4)
    user = "root" if os.geteuid() == 0 else "mosquitto"  # it gives up its rights only as root: then to read the key
    config = MOSQUITTO_CONF.format(
        user=user, tcp=tcp, tls=tls, ws=ws, wss=wss, cert=certificates.cert, key=certificates.key
    )
    (folder / "mosquitto.conf").write_text(more + config)
    async with running(path, "-c", folder / "mosquitto.conf", cwd=folder) as process:
        await wait_until_open([tcp, tls, ws, wss], process)
        yield PeerBroker("mosquitto", {"tcp": tcp, "tls": tls, "ws": ws, "wss": wss}, (4, 5))


@asynccontextmanager
async def aedes_broker(folder: Path, certificates: Certificates) -> AsyncIterator[PeerBroker]:
    """Run aedes. It has MQTT 3.1.1 only."""
    tcp, tls, ws = free_ports(3)
    modules = npm_folder()
    environment = ["/usr/bin/env", f"CERT={certificates.cert}", f"KEY={certificates.key}"]
    listeners = ["tcp", str(tcp), "tls", str(tls), "ws", str(ws)]
    async with running(*environment, peer("node"), AEDES, modules, *listeners, cwd=folder) as process:
        await process.wait_for("ready")
        yield PeerBroker("aedes", {"tcp": tcp, "tls": tls, "ws": ws}, (4,))


@asynccontextmanager
async def amqtt_broker(folder: Path, certificates: Certificates) -> AsyncIterator[PeerBroker]:
    """Run amqtt. It has MQTT 3.1.1 only."""
    tcp, tls, ws = free_ports(3)
    arguments = [*map(str, (tcp, tls, ws)), certificates.cert, certificates.key]
    async with running(_theirs(), PROGRAMS / "amqtt_broker.py", *arguments, cwd=folder) as process:
        await process.wait_for("ready")
        yield PeerBroker("amqtt", {"tcp": tcp, "tls": tls, "ws": ws}, (4,), raises_qos=True)


async def wait_until_open(ports: Sequence[int], process: PeerProcess) -> None:
    """Wait until somebody listens on all of these."""
    try:
        async with asyncio.timeout(TIMEOUT):
            for port in ports:
                while True:
                    try:
                        _, writer = await asyncio.open_connection("127.0.0.1", port)
                    except OSError:
                        await asyncio.sleep(0.02)
                        continue
                    writer.close()
                    await writer.wait_closed()
                    break
    except TimeoutError:
        raise AssertionError(f"it did not come up: {process.errors()}") from None
