"""Digests, checksums, base64, random data: what the standard library says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import string
import time
import zlib
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncmg.hashing import (
    base64_decode,
    base64_encode,
    crc32,
    hmac_sha256,
    md5,
    millis,
    random_bytes,
    random_str,
    sha1,
    sha256,
)


def test_known_digests() -> None:
    """RFC 1321 A.5, FIPS 180 examples, RFC 4231 case 2, the check value of CRC-32."""
    assert md5("abc").hex() == "900150983cd24fb0d6963f7d28e17f72"
    assert sha1("abc").hex() == "a9993e364706816aba3e25717850c26c9cd0d89d"
    assert sha256("abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert hmac_sha256("Jefe", "what do ya want for nothing?").hex() == expected
    assert crc32("123456789") == 0xCBF43926


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 200])
def test_keys_of_every_size(size: int) -> None:
    """One of exactly 64 bytes is not hashed (RFC 2104 section 2); Mongoose does."""
    key = bytes(range(size))
    assert hmac_sha256(key=key, data=b"data") == hmac.new(key, b"data", hashlib.sha256).digest()


@given(st.binary(max_size=200), st.integers(0, 2**32 - 1))
def test_any_data(data: bytes, initial: int) -> None:
    assert md5(data) == hashlib.md5(data).digest()
    assert sha1(data) == hashlib.sha1(data).digest()
    assert sha256(data) == hashlib.sha256(data).digest()
    assert crc32(data, initial) == zlib.crc32(data, initial)
    assert base64_encode(data) == base64.b64encode(data).decode()
    assert base64_decode(base64_encode(data)) == data


def test_what_counts_as_data() -> None:
    for function in (md5, sha1, sha256, base64_encode, crc32):
        call: Any = function
        assert call("\xe4") == call(b"\xc3\xa4") == call(bytearray(b"\xc3\xa4")) == call(memoryview(b"\xc3\xa4"))
        assert call(memoryview(b"axbx")[::2]) == call(b"ab")
        for wrong in (5, None, 1.5, [1, 2], True):
            with pytest.raises(TypeError):
                call(wrong)
        with pytest.raises(ValueError):
            call("\udcff")


def test_the_checksum_goes_on() -> None:
    assert crc32(b"world", initial=crc32(b"hello ")) == crc32(b"hello world")
    for initial in (-1, 2**32):
        with pytest.raises(OverflowError):
            crc32(b"a", initial)


@pytest.mark.parametrize(
    ("text", "data"),
    [("", b""), ("QQ==", b"A"), ("QUI=", b"AB"), ("QUJD", b"ABC"), ("+/+/", b"\xfb\xff\xbf")]
    + [
        (text, b"")
        for text in ("QQ", "QQ=", "Q", "=", "====", "A===", "QUJDRA", "QU!D", "QUJD!", "QUJD QUJD", "QUJD\n")
    ]
    + [
        (text, b"")
        for text in (
            "QQQQ==",
            "QQQQ====",
            "-_-_",
            "QQ==QQ==",
            "QQ==x",
            "AA=A",
            "A=AA",
            "QUJD\xe9",
            "\udcff",
            "QUJD\0QUJD",
        )
    ],
)
def test_base64(text: str, data: bytes) -> None:
    assert base64_decode(text) == data


def test_base64_is_a_str() -> None:
    wrong: Any
    for wrong in (b"QUJD", None, 5):
        with pytest.raises(TypeError):
            base64_decode(wrong)


def test_random_data() -> None:
    assert [len(random_bytes(size)) for size in (0, 1, 1000)] == [0, 1, 1000]
    assert [len(random_str(length=size)) for size in (0, 1, 2, 61, 1000)] == [0, 1, 2, 61, 1000]
    assert random_bytes(16) != random_bytes(16)
    assert random_str(16) != random_str(16)
    wrong: Any
    for wrong in (-1, None, "5", 1.5):
        for function in (random_bytes, random_str):
            with pytest.raises((TypeError, ValueError)):
                function(wrong)


def test_random_characters_are_even() -> None:
    """Each comes 10 000 times, give or take ten standard deviations: one run in 10**20 goes wrong."""
    found = Counter(random_str(620_000))
    assert set(found) == set(string.ascii_letters + string.digits)
    assert all(9_000 < count < 11_000 for count in found.values())


def test_millis() -> None:
    before, found, after = time.monotonic(), millis(), time.monotonic()
    assert type(found) is int
    assert before * 1000 - 1 <= found <= after * 1000
