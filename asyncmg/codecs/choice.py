"""Which codec reads HTTP/1.1: the native one where the C core loads, otherwise the portable one.

Nothing of the other one is imported: a native install needs no h11, a portable one no C core.
"""

from __future__ import annotations

from collections.abc import Callable

from asyncmg.core import load
from asyncmg.limits import HttpLimits

from .http import HttpCodec, Role

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
