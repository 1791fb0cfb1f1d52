"""Digests, checksums, base64 and random data under the names of Mongoose; the work is the standard library's."""

from __future__ import annotations

import binascii
import hashlib
import hmac
import os
import string
import time
import zlib
from typing import Final

_ALPHABET: Final = (string.ascii_letters + string.digits).encode()
_EVEN: Final = 256 // len(_ALPHABET) * len(_ALPHABET)  # above it, some characters would come more often than others
_CHARACTER_OF: Final = bytes(_ALPHABET[byte % len(_ALPHABET)] for byte in range(256))
_LEFT_OUT: Final = bytes(range(_EVEN, 256))


def md5(data: str | bytes) -> bytes:
    """Return the MD5 digest (RFC 1321), 16 bytes: for old protocols and files, not for security.

    Args:
        data: a str counts as UTF-8; anything with a buffer will do.

    Raises:
        TypeError: data is something else.
        ValueError: data is a str with surrogates (UnicodeEncodeError).
    """
    return hashlib.md5(_bytes(data), usedforsecurity=False).digest()


def sha1(data: str | bytes) -> bytes:
    """Return the SHA-1 digest (RFC 3174), 20 bytes: for old protocols, not for security. Otherwise as :func:`md5`."""
    return hashlib.sha1(_bytes(data), usedforsecurity=False).digest()


def sha256(data: str | bytes) -> bytes:
    """Return the SHA-256 digest (FIPS 180-4), 32 bytes; arguments and errors as of :func:`md5`."""
    return hashlib.sha256(_bytes(data)).digest()


def hmac_sha256(key: str | bytes, data: str | bytes) -> bytes:
    """Return the HMAC with SHA-256 (RFC 2104), 32 bytes; arguments and errors as of :func:`md5`.

    Compare it with :func:`asyncmg.same_secret`.
    """
    return hmac.digest(_bytes(key), _bytes(data), "sha256")


def base64_encode(data: str | bytes) -> str:
    """Encode as base64 with padding (RFC 4648 section 4); arguments and errors as of :func:`md5`."""
    return binascii.b2a_base64(_bytes(data), newline=False).decode("ascii")


def base64_decode(data: str) -> bytes:
    """Decode base64 with padding (RFC 4648 section 4).

    Returns:
        b"" for everything else: another alphabet, white space, no padding, padding in the middle.

    Raises:
        TypeError: data is no str.
    """
    if not isinstance(data, str):
        raise TypeError(f"expected str, got {type(data).__name__}")
    if len(data) % 4 or data.endswith("==="):  # Python 3.11 overlooks padding behind a complete quantum
        return b""
    try:
        return binascii.a2b_base64(data, strict_mode=True)
    except ValueError:  # binascii.Error is one, and so is what comes of characters beyond ASCII
        return b""


def crc32(data: str | bytes, initial: int = 0) -> int:
    """Return the CRC-32 of zlib and Ethernet (RFC 1952 section 8), 0 to 2**32 - 1; otherwise as :func:`md5`.

    Args:
        data: as of :func:`md5`.
        initial: the checksum of what stands before the data.

    Raises:
        OverflowError: ``initial`` is no unsigned number of 32 bits.
    """
    if not 0 <= initial < 2**32:
        raise OverflowError(f"not an unsigned number of 32 bits: {initial}")
    return zlib.crc32(_bytes(data), initial)


def random_bytes(length: int) -> bytes:
    """Return random bytes of the operating system, fit for keys and tokens.

    Raises:
        TypeError, ValueError: length is no int, or is negative.
    """
    return os.urandom(length)


def random_str(length: int) -> str:
    """Return random letters and digits, A-Z, a-z, 0-9, each as likely as the others (5.95 bits), fit for tokens.

    Raises:
        TypeError, ValueError: length is no int, or is negative.
    """
    found = os.urandom(length).translate(_CHARACTER_OF, _LEFT_OUT)
    while len(found) < length:
        found += os.urandom(length - len(found)).translate(_CHARACTER_OF, _LEFT_OUT)
    return found.decode("ascii")


def millis() -> int:
    """Return milliseconds of a clock that never goes back; where it began is the system's affair (Linux: at boot)."""
    return time.monotonic_ns() // 1_000_000


def _bytes(data: str | bytes) -> bytes | memoryview:
    if isinstance(data, str):
        return data.encode()
    view = memoryview(data)  # bytes(5) would be five zero bytes
    return view if view.c_contiguous else view.tobytes()
