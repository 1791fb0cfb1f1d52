"""The client against mosquitto, where it is installed: each QoS both ways, lost connections, a session that waits."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncmg import mqtt_connect
from asyncmg.codecs.mqtt_properties import Property

from .conftest import TIMEOUT, soon

VERSIONS = pytest.mark.parametrize("version", [4, 5])
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run mosquitto."""
    assert MOSQUITTO is not None
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    path: Path = tmp_path_factory.mktemp("mosquitto") / "conf"
    path.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\nlog_type none\n"
    )
    with subprocess.Popen([MOSQUITTO, "-c", path], stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(500):
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert process.poll() is None, "mosquitto has ended"
                    time.sleep(0.02)
            yield f"mqtt://127.0.0.1:{port}"
        finally:
            process.terminate()


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_many_messages(url: str, version: int, qos: int) -> None:
    count = 500
    async with asyncio.timeout(3 * TIMEOUT):
        async with mqtt_connect(url, version=version) as mq:
            assert await mq.subscribe(f"many/{qos}", qos) == (qos,)
            for number in range(count):
                if qos:
                    mq.publish_soon(f"many/{qos}", str(number), qos)
                else:
                    await mq.publish(f"many/{qos}", str(number))
            for number in range(count):
                message = await anext(mq)
                assert (message.text, message.qos) == (str(number), qos)
            await mq.flush()


@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
async def test_lost_connections(
    url: str, version: int, qos: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Publisher and subscriber lose their connections, again and again; the publisher's session is on disk."""
    monkeypatch.setattr("asyncmg.mqtt_keeping._FIRST_DELAY", 0.01)
    monkeypatch.setattr("asyncmg.mqtt_keeping._MAX_DELAY", 0.05)
    name = f"{tmp_path.name}-{version}-{qos}"
    kept = {"version": version, "clean_start": False, **({"session_expiry": 1000} if version == 5 else {})}
    count = 400
    async with asyncio.timeout(4 * TIMEOUT):
        async with (
            mqtt_connect(url, client_id=f"sub-{name}", **kept) as reader,  # type: ignore[arg-type]
            mqtt_connect(url, client_id=f"pub-{name}", store=tmp_path / "s", **kept) as writer,  # type: ignore[arg-type]
        ):
            await reader.subscribe(name, qos)
            got: list[int] = []

            async def read() -> None:
                async for message in reader:
                    got.append(int(message.text))
                    if got[-1] == count - 1:
                        return

            reading = asyncio.create_task(read())
            for number in range(count):
                await writer.wait_connected()
                writer.publish_soon(name, str(number), qos)
                for client, period in ((writer, 37), (reader, 53)):
                    if number % period == period - 1 and client.link is not None:
                        client.link.protocol.abort()
                if number % 10 == 0:
                    await asyncio.sleep(0.002)
            await writer.flush()
            await reading
    if qos == 2:
        assert got == list(range(count))
    else:
        assert list(dict.fromkeys(got)) == list(range(count))


async def test_a_session_waits(url: str, tmp_path: Path) -> None:
    name = tmp_path.name
    async with mqtt_connect(url, client_id=name, session_expiry=1000) as mq:
        await mq.subscribe(name, 1)
    async with mqtt_connect(url) as other:
        for number in range(50):
            await other.publish(name, str(number), 1)
    async with mqtt_connect(url, client_id=name, session_expiry=1000, clean_start=False) as mq:
        assert mq.session_present
        assert [(await soon(anext(mq))).text for _ in range(50)] == [str(number) for number in range(50)]


async def test_requests_aliases_and_identifiers(url: str) -> None:
    async with mqtt_connect(url, aliases=True) as client, mqtt_connect(url, aliases=True) as service:
        async with service.subscription("rpc/+", qos=1) as requests:

            async def serve() -> None:
                async for request in requests:
                    assert request.property_map[Property.SUBSCRIPTION_IDENTIFIER] == [1]
                    await service.respond(request, request.payload.upper(), qos=1)

            serving = asyncio.create_task(serve())
            responses = await soon(asyncio.gather(*(client.request(f"rpc/{n % 3}", f"a{n}") for n in range(30))))
            assert [response.text for response in responses] == [f"A{n}" for n in range(30)]
            serving.cancel()
