"""Which codec reads WebSocket, MQTT, DNS and SNTP: what is there, and what the environment says."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import asyncmg.core
from asyncmg.codecs import dns_native, dns_portable, sntp_native, sntp_portable
from asyncmg.codecs.choice import dns_codec, mqtt_codec, sntp_codec, ws_codec
from asyncmg.codecs.http import Role
from asyncmg.codecs.mqtt_native import NativeMqttCodec
from asyncmg.codecs.mqtt_portable import PortableMqttCodec
from asyncmg.codecs.ws_native import NativeWsCodec
from asyncmg.codecs.ws_portable import PortableWsCodec
from asyncmg.codecs.ws_wsproto import WsprotoCodec
from asyncmg.core import CoreUnavailable
from asyncmg.limits import MqttLimits

needs_core = pytest.mark.skipif(
    not asyncmg.core.status().available and os.environ.get("ASYNCMG_REQUIRE_CORE") != "1", reason="no C core"
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASYNCMG_WS_CODEC", raising=False)
    monkeypatch.delenv("ASYNCMG_MQTT_CODEC", raising=False)
    monkeypatch.delenv("ASYNCMG_DNS_CODEC", raising=False)
    monkeypatch.delenv("ASYNCMG_SNTP_CODEC", raising=False)
    monkeypatch.delenv("ASYNCMG_CORE", raising=False)


@needs_core
@pytest.mark.parametrize("name", ["", "auto", "native"])
def test_native_where_the_core_loads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCMG_WS_CODEC", name)
    assert ws_codec() is NativeWsCodec


@pytest.mark.parametrize("name", ["", "auto", "portable"])
def test_portable_where_it_does_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCMG_CORE", "off")
    monkeypatch.setenv("ASYNCMG_WS_CODEC", name)
    assert ws_codec() is PortableWsCodec


def test_portable_and_wsproto_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCMG_WS_CODEC", "portable")
    assert ws_codec() is PortableWsCodec
    monkeypatch.setenv("ASYNCMG_WS_CODEC", "wsproto")
    assert ws_codec() is WsprotoCodec


def test_native_without_a_core_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCMG_CORE", "off")
    monkeypatch.setenv("ASYNCMG_WS_CODEC", "native")
    with pytest.raises(CoreUnavailable, match=r"ASYNCMG_WS_CODEC=native.*ASYNCMG_CORE=off"):
        ws_codec()


def test_a_value_that_means_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCMG_WS_CODEC", "Native")
    with pytest.raises(ValueError, match=r"'auto', 'native', 'portable' or 'wsproto', not 'Native'"):
        ws_codec()


@needs_core
@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("native", ["wsproto", "asyncmg.codecs.ws_portable", "asyncmg.codecs.ws_wsproto"]),
        ("portable", ["wsproto", "asyncmg.codecs.ws_native", "asyncmg.codecs.ws_wsproto"]),
        ("wsproto", ["asyncmg.codecs.ws_native", "asyncmg.codecs.ws_portable"]),
    ],
)
def test_nothing_of_the_others_is_imported(name: str, absent: list[str]) -> None:
    code = "import sys; from asyncmg.codecs.choice import ws_codec; ws_codec(); print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={**os.environ, "ASYNCMG_WS_CODEC": name},
    )
    assert not set(absent) & set(result.stdout.split())


# -- MQTT ---------------------------------------------------------------------------------------------------------


@needs_core
@pytest.mark.parametrize("name", ["", "auto", "native"])
def test_native_mqtt_where_the_core_loads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCMG_MQTT_CODEC", name)
    assert mqtt_codec() is NativeMqttCodec


@pytest.mark.parametrize("name", ["", "auto", "portable"])
def test_portable_mqtt_where_it_does_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCMG_CORE", "off")
    monkeypatch.setenv("ASYNCMG_MQTT_CODEC", name)
    assert mqtt_codec() is PortableMqttCodec


def test_portable_mqtt_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCMG_MQTT_CODEC", "portable")
    assert mqtt_codec() is PortableMqttCodec


def test_native_mqtt_without_a_core_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCMG_CORE", "off")
    monkeypatch.setenv("ASYNCMG_MQTT_CODEC", "native")
    with pytest.raises(CoreUnavailable, match=r"ASYNCMG_MQTT_CODEC=native.*ASYNCMG_CORE=off"):
        mqtt_codec()
    with pytest.raises(CoreUnavailable, match=r"ASYNCMG_CORE=off"):
        NativeMqttCodec(Role.SERVER, MqttLimits())


def test_a_value_that_means_nothing_for_mqtt_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCMG_MQTT_CODEC", "wsproto")
    with pytest.raises(ValueError, match=r"'auto', 'native' or 'portable', not 'wsproto'"):
        mqtt_codec()


@needs_core
@pytest.mark.parametrize(
    ("name", "absent"),
    [("native", "asyncmg.codecs.mqtt_portable"), ("portable", "asyncmg.codecs.mqtt_native")],
)
def test_nothing_of_the_other_mqtt_codec_is_imported(name: str, absent: str) -> None:
    code = "import sys; from asyncmg.codecs.choice import mqtt_codec; mqtt_codec(); print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={**os.environ, "ASYNCMG_MQTT_CODEC": name},
    )
    assert absent not in result.stdout.split()


# -- DNS and SNTP -------------------------------------------------------------------------------------------------


@needs_core
@pytest.mark.parametrize(
    ("name", "dns", "sntp"),
    [
        ("", dns_native.read_message, sntp_portable.read_packet),
        ("auto", dns_native.read_message, sntp_portable.read_packet),
        ("native", dns_native.read_message, sntp_native.read_packet),
        ("portable", dns_portable.read_message, sntp_portable.read_packet),
    ],
)
def test_readers_where_the_core_loads(name: str, dns: object, sntp: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCMG_DNS_CODEC", name)
    monkeypatch.setenv("ASYNCMG_SNTP_CODEC", name)
    assert dns_codec() is dns
    assert sntp_codec() is sntp


@pytest.mark.parametrize("name", ["", "auto", "portable"])
def test_portable_readers_where_it_does_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCMG_CORE", "off")
    monkeypatch.setenv("ASYNCMG_DNS_CODEC", name)
    monkeypatch.setenv("ASYNCMG_SNTP_CODEC", name)
    assert dns_codec() is dns_portable.read_message
    assert sntp_codec() is sntp_portable.read_packet


@pytest.mark.parametrize(("choose", "protocol"), [(dns_codec, "DNS"), (sntp_codec, "SNTP")])
def test_native_readers_without_a_core_are_an_error(choose, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCMG_CORE", "off")
    monkeypatch.setenv(f"ASYNCMG_{protocol}_CODEC", "native")
    with pytest.raises(CoreUnavailable, match=rf"ASYNCMG_{protocol}_CODEC=native.*ASYNCMG_CORE=off"):
        choose()
    monkeypatch.setenv(f"ASYNCMG_{protocol}_CODEC", "Native")
    with pytest.raises(ValueError, match=rf"ASYNCMG_{protocol}_CODEC must be 'auto', 'native' or 'portable'"):
        choose()


@needs_core
@pytest.mark.parametrize("name", ["native", "portable"])
def test_nothing_of_the_other_reader_is_imported(name: str) -> None:
    code = (
        "import sys; from asyncmg.codecs.choice import dns_codec as d, sntp_codec as s; d(); s(); print(*sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={**os.environ, "ASYNCMG_DNS_CODEC": name, "ASYNCMG_SNTP_CODEC": name},
    )
    other = {"native": "portable", "portable": "native"}[name]
    loaded = result.stdout.split()
    for protocol in ("dns", "sntp"):
        assert f"asyncmg.codecs.{protocol}_{name}" in loaded
        assert f"asyncmg.codecs.{protocol}_{other}" not in loaded
