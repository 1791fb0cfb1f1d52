"""Which codec reads a protocol: the native one where the C core loads, otherwise the portable one.

Nothing of the others is imported: a native install needs no h11 and no wsproto, a portable one no C core.

The environment variable ``ASYNCMG_WS_CODEC`` selects the one for WebSocket: ``auto`` (default) as above, ``native``,
``portable``, or ``wsproto``, which is slower and there to be compared with. ``ASYNCMG_MQTT_CODEC`` selects the one for
MQTT: ``auto``, ``native`` or ``portable``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal, cast

from asyncmg.core import CoreUnavailable, load, status
from asyncmg.limits import HttpLimits

from .http import HttpCodec, Role
from .mqtt import MqttCodecFactory
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
    name = os.environ.get("ASYNCMG_MQTT_CODEC") or "auto"
    if name not in ("auto", "native", "portable"):
        raise ValueError(f"ASYNCMG_MQTT_CODEC must be 'auto', 'native' or 'portable', not {name!r}")
    if name == "native" and load() is None:
        raise CoreUnavailable(f"ASYNCMG_MQTT_CODEC=native, but there is no C core: {status().reason}")
    if name == "portable" or load() is None:
        from .mqtt_portable import PortableMqttCodec

        return PortableMqttCodec
    from .mqtt_native import NativeMqttCodec

    return NativeMqttCodec
