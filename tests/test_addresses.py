"""Addresses: what the seeds unpack, and what cymongoose indexes."""

from __future__ import annotations

import pickle

import pytest

from asyncmg import Address
from asyncmg.addresses import address_of


@pytest.mark.parametrize(
    ("ip", "is_ipv6"),
    [
        ("127.0.0.1", False),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("/run/a:b.sock", False),
        ("@abstract:name", False),
        ("", False),
    ],
)
def test_two_members_and_a_third_index(ip: str, is_ipv6: bool) -> None:
    address = Address(ip, 80)
    unpacked_ip, unpacked_port = address  # the seeds: (ip, port)
    assert (unpacked_ip, unpacked_port) == (ip, 80)
    assert (address[0], address[1], address[2]) == (ip, 80, is_ipv6)  # cymongoose: (ip, port, is_ipv6)
    assert address[2] is address.is_ipv6 is is_ipv6


def test_the_third_index_is_no_member() -> None:
    address = Address("::1", 80)
    assert len(address) == 2 and list(address) == ["::1", 80]
    assert address[-1] == 80 and address[-2] == "::1" and address[:] == address[0:3] == ("::1", 80)
    assert address == ("::1", 80) and hash(address) == hash(("::1", 80))
    assert address != ("::1", 80, True)  # or equal values would have different hashes
    for index in (3, -3):
        with pytest.raises(IndexError):
            address[index]
    with pytest.raises(TypeError):
        address["ip"]  # type: ignore[index]
    copied = pickle.loads(pickle.dumps(address))
    assert copied == address and copied[2] is True


def test_text() -> None:
    assert [str(Address("127.0.0.1", 80)), str(Address("::1", 80))] == ["127.0.0.1:80", "[::1]:80"]


def test_of_a_socket() -> None:
    assert address_of(("::1", 80, 0, 0)) == ("::1", 80)
    assert address_of(("fe80::1", 80, 0, 3)) == ("fe80::1%3", 80)
    assert address_of(("fe80::1%eth0", 80, 0, 3)) == ("fe80::1%eth0", 80)
    assert address_of("/run/x") == ("/run/x", 0) and address_of(b"\0x") == ("@x", 0)
    assert address_of(None) is None
