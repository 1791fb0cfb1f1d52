"""The C core: its sources (``amg.h`` is its whole API) and this loader, which binds the library with ctypes.

Import :func:`load` for the core itself and :func:`status` to tell a person about it. Nothing is loaded before the first
call. Without ``ctypes``, or where the library is missing, broken or of another ABI, asyncmg works with its portable
codecs. The environment variable ``ASYNCMG_CORE`` decides: ``auto`` (default) uses the core when it can be loaded,
``off`` does not look for it, ``require`` makes its absence an error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, cast

from asyncmg.errors import AsyncmgError

from .records import STRUCTS

ABI: Final = 7  # AMG_ABI of the amg.h that this file is written for
UTF8_ACCEPT: Final = 0  # AMG_UTF8_ACCEPT
UTF8_REJECT: Final = 1  # AMG_UTF8_REJECT

_SUFFIXES = {"win32": "dll", "cygwin": "dll", "darwin": "dylib"}
LIBRARY_NAME: Final = f"libamg.{_SUFFIXES.get(sys.platform, 'so')}"


class CoreUnavailable(AsyncmgError, ImportError):
    """The C core cannot be used. The message says why.

    Attributes:
        abi: the ABI number of a library that was loaded and refused, else None.
    """

    def __init__(self, message: str, *, abi: int | None = None) -> None:
        super().__init__(message)
        self.abi = abi


@dataclass(frozen=True, slots=True)
class CoreStatus:
    """What became of the C core.

    Attributes:
        available: whether :func:`load` returns a core.
        path: the library that was found, also when it could not be used.
        abi: the library's ABI number, None when it could not be asked.
        reason: why the core is not available; empty when it is.
    """

    available: bool
    path: str | None
    abi: int | None
    reason: str


class Http1Functions:
    """``amg_http1_*``, typed for ctypes. Addresses are ints; bytes may stand for const pointers."""

    __slots__ = ("init", "read", "whole")

    def __init__(self, ctypes: Any, library: Any) -> None:
        address, size, u8 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint8
        self.init = _typed(library.amg_http1_init, None, address, u8)
        self.read = _typed(
            library.amg_http1_read, size, address, address, address, size, ctypes.c_int, address, address, size, address
        )
        self.whole = _typed(library.amg_http1_whole, size, address, address, size, address)


class WsFunctions:
    """``amg_ws_*``, typed for ctypes. Addresses are ints; bytes may stand for const pointers."""

    __slots__ = ("init", "read", "read_call")

    def __init__(self, ctypes: Any, library: Any) -> None:
        address, size, u8 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint8
        self.init = _typed(library.amg_ws_init, None, address, u8, u8)
        self.read = _typed(library.amg_ws_read, size, address, address, address, size, address, address, size, address)
        self.read_call = _typed(library.amg_ws_read_call, size, address, address, size)


class MqttFunctions:
    """``amg_mqtt_*``, typed for ctypes. Addresses are ints; bytes may stand for const pointers.

    Attributes:
        read_call: has no types, because to convert its arguments costs as much as the call itself. It takes ``byref()``
            of an amg_mqtt_call, bytes, and their number, below 2^31.
    """

    __slots__ = ("connect_fields", "init", "next_filter", "next_property", "read", "read_call")

    def __init__(self, ctypes: Any, library: Any) -> None:
        address, size, u8, u32 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint8, ctypes.c_uint32
        integer = ctypes.c_int
        self.init = _typed(library.amg_mqtt_init, None, address, u8, u8)
        self.read = _typed(
            library.amg_mqtt_read, size, address, address, address, size, address, address, size, address
        )
        library.amg_mqtt_read_call.restype = size
        self.read_call = cast(Callable[..., int], library.amg_mqtt_read_call)
        self.next_property = _typed(library.amg_mqtt_next_property, integer, address, address, u32, address)
        self.next_filter = _typed(library.amg_mqtt_next_filter, integer, address, address, address, address)
        self.connect_fields = _typed(library.amg_mqtt_connect_fields, integer, address, address, address)


class DnsFunctions:
    """``amg_dns_*``, typed for ctypes. Addresses are ints; bytes may stand for const pointers.

    Attributes:
        read_call: has no types, as MqttFunctions.read_call. It takes ``byref()`` of an amg_dns_call, bytes, and their
            number, below 2^31.
    """

    __slots__ = ("name", "query", "read", "read_call")

    def __init__(self, ctypes: Any, library: Any) -> None:
        address, size, u16, u32 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint16, ctypes.c_uint32
        self.read = _typed(library.amg_dns_read, u32, address, size, address, address, size)
        self.name = _typed(library.amg_dns_name, u32, address, size, size, address, size, address)
        library.amg_dns_read_call.restype = u32
        self.read_call = cast(Callable[..., int], library.amg_dns_read_call)
        self.query = _typed(library.amg_dns_query, size, address, size, u16, ctypes.c_char_p, u16, u16, u16)


class SntpFunctions:
    """``amg_sntp_*``, typed for ctypes. Addresses are ints; bytes may stand for const pointers."""

    __slots__ = ("check", "from_timestamp", "offset_and_delay", "read", "to_timestamp", "write")

    def __init__(self, ctypes: Any, library: Any) -> None:
        address, size, u32 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32
        u64, i64 = ctypes.c_uint64, ctypes.c_int64
        self.read = _typed(library.amg_sntp_read, u32, address, size, address)
        self.write = _typed(library.amg_sntp_write, None, address, address)
        self.check = _typed(library.amg_sntp_check, u32, address, u64, ctypes.c_uint8)
        self.to_timestamp = _typed(library.amg_sntp_to_timestamp, u64, i64)
        self.from_timestamp = _typed(library.amg_sntp_from_timestamp, i64, u64, i64)
        self.offset_and_delay = _typed(library.amg_sntp_offset_and_delay, None, i64, i64, i64, i64, address, address)


class EngineFunctions:
    """``amg_engine_*``, typed for ctypes. Addresses are ints; bytes may stand for const pointers."""

    __slots__ = (
        "adopt",
        "arena",
        "completions",
        "connect",
        "fd",
        "free",
        "new",
        "notices",
        "poll",
        "socket",
        "submit",
        "unsent",
        "wait",
    )

    def __init__(self, ctypes: Any, library: Any) -> None:
        address, size, integer = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        u32, u64, i64 = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64
        self.new = _typed(library.amg_engine_new, address, address)
        self.free = _typed(library.amg_engine_free, None, address)
        self.completions = _typed(library.amg_engine_completions, address, address)
        self.arena = _typed(library.amg_engine_arena, address, address)
        self.notices = _typed(library.amg_engine_notices, address, address)
        self.fd = _typed(library.amg_engine_fd, integer, address)
        self.poll = _typed(library.amg_engine_poll, u32, address, integer)
        self.wait = _typed(library.amg_engine_wait, integer, address)
        self.submit = _typed(library.amg_engine_submit, u32, address, address, size)
        self.adopt = _typed(library.amg_engine_adopt, i64, address, integer, u32)
        self.connect = _typed(library.amg_engine_connect, i64, address, address, u32)
        self.socket = _typed(library.amg_engine_socket, integer, address, u32)
        self.unsent = _typed(library.amg_engine_unsent, u64, address, u32)


def _typed(function: Any, result: Any, *arguments: Any) -> Callable[..., Any]:
    function.restype, function.argtypes = result, arguments
    return cast(Callable[..., Any], function)


class Core:
    """The functions of one loaded library. ``amg.h`` holds their contracts.

    Args:
        path: the library.

    Raises:
        CoreUnavailable: no ctypes, no loadable library, a function is missing, or another ABI.
    """

    __slots__ = (
        "_address",
        "_byte",
        "_char",
        "_mask",
        "_utf8",
        "abi",
        "address_of",
        "bytes_offset",
        "dns",
        "engine",
        "http1",
        "mqtt",
        "path",
        "sntp",
        "ws",
    )

    def __init__(self, path: str) -> None:
        try:
            import ctypes
        except ImportError as error:
            raise CoreUnavailable(f"this Python has no ctypes ({error})") from error
        try:
            # PyDLL keeps the GIL: these calls are shorter than handing it over, and to get it back from a busy thread
            # may take the whole switch interval (5 ms).
            library = ctypes.PyDLL(path)
            library.amg_abi.argtypes, library.amg_abi.restype = (), ctypes.c_uint32
            self.abi: int = library.amg_abi()
        except (OSError, AttributeError) as error:
            raise CoreUnavailable(f"cannot load the library: {error}") from error
        if self.abi != ABI:
            message = f"the library has ABI {self.abi}, this asyncmg needs {ABI}; install it anew"
            raise CoreUnavailable(message, abi=self.abi)
        try:
            mask, utf8, sizeof = library.amg_mask, library.amg_utf8, library.amg_sizeof
            self.http1 = Http1Functions(ctypes, library)
            self.ws = WsFunctions(ctypes, library)
            self.mqtt = MqttFunctions(ctypes, library)
            self.dns = DnsFunctions(ctypes, library)
            self.sntp = SntpFunctions(ctypes, library)
            #: Where the bytes of a bytes object lie: they stay there for as long as it lives.
            self.address_of = _typed(ctypes.pythonapi.PyBytes_AsString, ctypes.c_void_p, ctypes.py_object)
            # id() is the address of an object: its bytes lie so far behind it.
            probe = b"bytes"
            self.bytes_offset: int = self.address_of(probe) - id(probe)
            self.engine = EngineFunctions(ctypes, library) if hasattr(library, "amg_engine_new") else None
        except AttributeError as error:
            raise CoreUnavailable(f"cannot load the library: {error}") from error
        sizeof.argtypes, sizeof.restype = (ctypes.c_uint32,), ctypes.c_size_t
        for number, (name, layout) in enumerate(STRUCTS.items()):
            if sizeof(number) != layout.size:
                raise CoreUnavailable(
                    f"{name} has {sizeof(number)} bytes in the library, {layout.size} here", abi=self.abi
                )
        self.path = path
        # c_void_p takes bytes as they are, and byref() of a byte that lies in a bytearray: no copy either way.
        mask.argtypes, mask.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t), None
        utf8.argtypes, utf8.restype = (ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t), ctypes.c_uint32
        self._mask = cast(Callable[[object, int, bytes, int], None], mask)
        self._utf8 = cast(Callable[[int, object, int], int], utf8)
        self._char: Any = ctypes.c_char
        self._byte = ctypes.c_char.from_buffer
        self._address = ctypes.byref

    def view(self, address: int, size: int) -> memoryview:
        """Return memory of the library's as bytes to look at; it must not be used when the library has freed it."""
        return memoryview((self._char * size).from_address(address)).cast("B")

    def characters(self, address: int, size: int) -> Any:
        """Return memory of the library's as an array whose slices are bytes; cheaper than to cut them out of a view."""
        return (self._char * size).from_address(address)

    def mask(self, data: bytearray, key: bytes, offset: int = 0) -> None:
        """Mask or unmask WebSocket payload in place (RFC 6455 section 5.3).

        Args:
            data: the payload, or a piece of it.
            key: the four bytes of the masking-key.
            offset: how many bytes of the frame's payload went before ``data``.

        Raises:
            ValueError: the key is not four bytes long.
        """
        if len(key) != 4:
            raise ValueError(f"a masking-key has 4 bytes, not {len(key)}")
        if data:
            self._mask(self._address(self._byte(data)), len(data), key, offset & 3)

    def utf8(self, state: int, data: bytes | bytearray) -> int:
        """Validate UTF-8 (RFC 3629) in pieces cut anywhere.

        Args:
            state: ``UTF8_ACCEPT`` at the start of a text, then what the last call returned.
            data: the next piece.

        Returns:
            ``UTF8_ACCEPT`` (valid, at the end of a character), ``UTF8_REJECT`` (invalid, for good), or another number:
            valid so far, inside a character.
        """
        if isinstance(data, bytes):
            return self._utf8(state, data, len(data))
        if not data:
            return self._utf8(state, None, 0)
        return self._utf8(state, self._address(self._byte(data)), len(data))


def load() -> Core | None:
    """Return the C core, or None when it is off or cannot be used; :func:`status` says why.

    Raises:
        CoreUnavailable: it cannot be used and ``ASYNCMG_CORE`` is ``require``. It is an ImportError.
        ValueError: ``ASYNCMG_CORE`` has another value than ``auto``, ``off`` and ``require``.
    """
    mode = _mode()
    if mode == "off":
        return None
    core, found = _open(tuple(__path__))
    if core is None and mode == "require":
        raise CoreUnavailable(f"ASYNCMG_CORE=require, but there is no C core: {found.reason}", abi=found.abi)
    return core


def status() -> CoreStatus:
    """Tell what became of the C core, also under ``ASYNCMG_CORE=require``.

    Raises:
        ValueError: ``ASYNCMG_CORE`` has another value than ``auto``, ``off`` and ``require``.
    """
    if _mode() == "off":
        return CoreStatus(available=False, path=None, abi=None, reason="switched off by ASYNCMG_CORE=off")
    return _open(tuple(__path__))[1]


def _mode() -> Literal["auto", "off", "require"]:
    mode = os.environ.get("ASYNCMG_CORE") or "auto"
    if mode not in ("auto", "off", "require"):
        raise ValueError(f"ASYNCMG_CORE must be 'auto', 'off' or 'require', not {mode!r}")
    return cast(Literal["auto", "off", "require"], mode)


@cache
def _open(directories: tuple[str, ...]) -> tuple[Core | None, CoreStatus]:
    """Load the library from the first directory that has it. The answer is kept: a library is not tried twice.

    The directories are this package's search path. An editable install has two: the sources, and one inside the virtual
    environment that holds what was compiled.
    """
    path = _find(directories)
    if path is None:
        reason = f"no {LIBRARY_NAME} in {' or '.join(directories)}: asyncmg was installed without a C compiler"
        return None, CoreStatus(available=False, path=None, abi=None, reason=reason)
    try:
        core = Core(path)
    except CoreUnavailable as error:
        return None, CoreStatus(available=False, path=path, abi=error.abi, reason=str(error))
    return core, CoreStatus(available=True, path=path, abi=core.abi, reason="")


def _find(directories: Iterable[str]) -> str | None:
    for directory in directories:
        path = Path(directory, LIBRARY_NAME)
        if path.is_file():
            return str(path)
    return None
