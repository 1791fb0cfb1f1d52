"""Which codec reads a protocol: the native one where the C core loads, otherwise the portable one.

Nothing of the others is imported: a native install needs no h11 and no wsproto, a portable one no C core.

The environment variable ``ASYNCMG_WS_CODEC`` selects the one for WebSocket: ``auto`` (default) as above, ``native``,
``portable``, or ``wsproto``, which is slower and there to be compared with. ``ASYNCMG_MQTT_CODEC``,
``ASYNCMG_DNS_CODEC`` and ``ASYNCMG_SNTP_CODEC`` select those for MQTT, DNS and SNTP: ``auto``, ``native`` or
``portable``.

For SNTP ``auto`` is the portable one, with the C core too: it is the faster one. A packet is 48 bytes of one form, one
call of ``struct``: 0.6 us in all, and 1.0 us through the core (CPython 3.11).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal, cast

from asyncmg.core import CoreUnavailable, load, status
from asyncmg.limits import HttpLimits

from .dns import DnsReader
from .http import HttpCodec, Role
from .mqtt import MqttCodecFactory
from .sntp import SntpReader
from .ws import WsCodecFactory

CodecFactory = Callable[[Role, HttpLimits], HttpCodec]


def http_codec() -> CodecFactory:
    """Return the class of the HTTP codec.

    Raises:
        CoreUnavailable: ``ASYNCMG_CORE`` is ``require`` and there is no C core.
    """
    if load() is not None:
        from .http_native import NativeHttpCodec

        return NativeHttpCodec
    from .http_portable import PortableHttpCodec

    return PortableHttpCodec


def ws_codec() -> WsCodecFactory:
    """Return the class of the WebSocket codec.

    Raises:
        CoreUnavailable: ``ASYNCMG_WS_CODEC`` is ``native``, or ``ASYNCMG_CORE`` is ``require``, and there is no C core.
        ValueError: ``ASYNCMG_WS_CODEC`` has another value than ``auto``, ``native``, ``portable`` and ``wsproto``.
    """
    name = _ws_codec_name()
    if name == "wsproto":
        from .ws_wsproto import WsprotoCodec

        return WsprotoCodec
    if name == "portable":
        from .ws_portable import PortableWsCodec

        return PortableWsCodec
    from .ws_native import NativeWsCodec

    return NativeWsCodec


def _ws_codec_name() -> Literal["native", "portable", "wsproto"]:
    name = os.environ.get("ASYNCMG_WS_CODEC") or "auto"
    if name not in ("auto", "native", "portable", "wsproto"):
        raise ValueError(f"ASYNCMG_WS_CODEC must be 'auto', 'native', 'portable' or 'wsproto', not {name!r}")
    if name == "auto":
        return "portable" if load() is None else "native"
    if name == "native" and load() is None:
        raise CoreUnavailable(f"ASYNCMG_WS_CODEC=native, but there is no C core: {status().reason}")
    return cast(Literal["native", "portable", "wsproto"], name)


def mqtt_codec() -> MqttCodecFactory:
    """Return the class of the MQTT codec.

    Raises:
        CoreUnavailable: ``ASYNCMG_MQTT_CODEC`` is ``native``, or ``ASYNCMG_CORE`` is ``require``, and there is no C
            core.
        ValueError: ``ASYNCMG_MQTT_CODEC`` has another value than ``auto``, ``native`` and ``portable``.
    """
    if _is_native("ASYNCMG_MQTT_CODEC"):
        from .mqtt_native import NativeMqttCodec

        return NativeMqttCodec
    from .mqtt_portable import PortableMqttCodec

    return PortableMqttCodec


def dns_codec() -> DnsReader:
    """Return what reads DNS messages.

    Raises:
        CoreUnavailable: ``ASYNCMG_DNS_CODEC`` is ``native``, or ``ASYNCMG_CORE`` is ``require``, and there is no C
            core.
        ValueError: ``ASYNCMG_DNS_CODEC`` has another value than ``auto``, ``native`` and ``portable``.
    """
    if _is_native("ASYNCMG_DNS_CODEC"):
        from . import dns_native

        return dns_native.read_message
    from . import dns_portable

    return dns_portable.read_message


def sntp_codec() -> SntpReader:
    """Return what reads SNTP packets.

    Raises:
        CoreUnavailable: ``ASYNCMG_SNTP_CODEC`` is ``native``, or ``ASYNCMG_CORE`` is ``require``, and there is no C
            core.
        ValueError: ``ASYNCMG_SNTP_CODEC`` has another value than ``auto``, ``native`` and ``portable``.
    """
    if _is_native("ASYNCMG_SNTP_CODEC", auto=False):
        from . import sntp_native

        return sntp_native.read_packet
    from . import sntp_portable

    return sntp_portable.read_packet


def _is_native(variable: str, *, auto: bool = True) -> bool:
    """Whether the native codec is taken; auto: whether ``auto`` takes it where the core loads."""
    name = os.environ.get(variable) or "auto"
    if name not in ("auto", "native", "portable"):
        raise ValueError(f"{variable} must be 'auto', 'native' or 'portable', not {name!r}")
    if name == "portable" or (name == "auto" and not auto):
        return False
    if load() is not None:
        return True
    if name == "native":
        raise CoreUnavailable(f"{variable}=native, but there is no C core: {status().reason}")
    return False
