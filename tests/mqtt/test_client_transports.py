"""The client over every transport, against our broker: TCP, TLS, WebSocket, both, a Unix socket, IPv6."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
import trustme

from asyncmg import ConnectFailed, MqttBroker, TlsOpts, mqtt_connect

from .conftest import TIMEOUT


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("scheme", ["mqtt", "mqtts", "ws", "wss", "unix", "ipv6"])
async def test_transports(scheme: str, version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if scheme == "ipv6" and not has_ipv6():
        pytest.skip("no IPv6")
    monkeypatch.setattr("asyncmg.mqtt_keeping._FIRST_DELAY", 0.01)
    ca = trustme.CA()
    leaf = ca.issue_cert("localhost", "127.0.0.1")
    files = {name: tmp_path / name for name in ("ca", "cert", "key")}
    ca.cert_pem.write_to_path(str(files["ca"]))
    leaf.cert_chain_pems[0].write_to_path(str(files["cert"]))
    leaf.private_key_pem.write_to_path(str(files["key"]))
    is_tls = scheme in ("mqtts", "wss")
    served = TlsOpts(cert=files["cert"].read_bytes(), key=files["key"].read_bytes()) if is_tls else None
    trusted = TlsOpts(ca=files["ca"].read_bytes()) if is_tls else None
    async with asyncio.timeout(2 * TIMEOUT), MqttBroker(sys_interval=0) as broker:
        if scheme == "unix":
            url = f"unix://{tmp_path}/s"
            broker.listen(url)
        elif scheme == "ipv6":
            url = f"mqtt://[::1]:{broker.listen('mqtt://[::1]:0').port}"
        else:
            url = f"{scheme}://127.0.0.1:{broker.listen(f'{scheme}://127.0.0.1:0', tls=served).port}"
        if is_tls:
            with pytest.raises(ConnectFailed):  # nobody knows this CA
                async with mqtt_connect(url, version=version):
                    pass
        async with mqtt_connect(url, version=version, tls=trusted) as mq:
            await mq.subscribe("a", 2)
            for qos in (0, 1, 2):
                await mq.publish("a", bytes(100_000), qos)
                message = await anext(mq)
                assert (len(message.payload), message.qos) == (100_000, qos)
            assert mq.link is not None
            mq.link.protocol.abort()
            await mq.wait_connected()
            await mq.publish("a", b"again", 1)
            assert (await anext(mq)).text == "again"
