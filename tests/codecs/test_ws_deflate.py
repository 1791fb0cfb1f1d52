"""permessage-deflate: negotiation and content (RFC 7692)."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncmg import Deflate, LimitExceeded, RemoteProtocolError
from asyncmg.codecs.ws_deflate import NAME, MessageDeflate

Parameters = list[tuple[str, str | None]]


def accept(options: Deflate, *offers: Parameters) -> str | None:
    accepted = options.accept((NAME, offer) for offer in offers)
    return accepted[0] if accepted else None


WIDE = Deflate(window_bits=15, peer_window_bits=15)


@pytest.mark.parametrize(
    ("options", "offer", "answer"),
    [
        (WIDE, [], NAME),
        (WIDE, [("client_max_window_bits", None)], NAME),
        (WIDE, [("client_max_window_bits", "10")], f"{NAME}; client_max_window_bits=10"),
        (WIDE, [("server_max_window_bits", "10")], f"{NAME}; server_max_window_bits=10"),
        (WIDE, [("server_max_window_bits", "15")], f"{NAME}; server_max_window_bits=15"),
        (WIDE, [("server_max_window_bits", "8")], None),
        (WIDE, [("server_max_window_bits", None)], None),
        (WIDE, [("server_max_window_bits", "16")], None),
        (WIDE, [("server_max_window_bits", "010")], None),
        (WIDE, [("client_max_window_bits", "7")], None),
        (WIDE, [("client_max_window_bits", "x")], None),
        (WIDE, [("client_no_context_takeover", "1")], None),
        (WIDE, [("client_no_context_takeover", None), ("client_no_context_takeover", None)], None),
        (WIDE, [("unknown", None)], None),
        (WIDE, [("client_no_context_takeover", None)], f"{NAME}; client_no_context_takeover"),
        (WIDE, [("server_no_context_takeover", None)], f"{NAME}; server_no_context_takeover"),
        (Deflate(), [], f"{NAME}; server_max_window_bits=12"),
        (
            Deflate(),
            [("client_max_window_bits", None)],
            f"{NAME}; server_max_window_bits=12; client_max_window_bits=12",
        ),
        (
            Deflate(context_takeover=False, peer_context_takeover=False, window_bits=15, peer_window_bits=15),
            [],
            f"{NAME}; server_no_context_takeover; client_no_context_takeover",
        ),
    ],
)
def test_what_a_server_answers(options: Deflate, offer: Parameters, answer: str | None) -> None:
    assert accept(options, offer) == answer


def test_the_first_offer_that_will_do() -> None:
    assert (
        accept(WIDE, [("unknown", None)], [("server_max_window_bits", "9")], []) == f"{NAME}; server_max_window_bits=9"
    )
    assert WIDE.accept([("x-webkit-deflate-frame", [])]) is None


@pytest.mark.parametrize(
    ("options", "answer", "is_agreed"),
    [
        (WIDE, [], True),
        (WIDE, [("server_max_window_bits", "10"), ("client_max_window_bits", "9")], True),
        (WIDE, [("client_max_window_bits", "8")], False),
        (WIDE, [("client_max_window_bits", None)], False),
        (WIDE, [("unknown", None)], False),
        (Deflate(), [], True),  # we have asked for a window of 12 bits: a wish
        (Deflate(), [("server_max_window_bits", "12")], True),
        (Deflate(), [("server_max_window_bits", "13")], False),
        (Deflate(peer_window_bits=15, peer_context_takeover=False), [], False),
        (Deflate(peer_window_bits=15, peer_context_takeover=False), [("server_no_context_takeover", None)], True),
    ],
)
def test_what_a_client_accepts(options: Deflate, answer: Parameters, is_agreed: bool) -> None:
    assert (options.agree(NAME, answer) is not None) == is_agreed
    assert options.agree("another", answer) is None


def test_what_a_client_offers() -> None:
    assert Deflate().offer() == f"{NAME}; server_max_window_bits=12; client_max_window_bits=12"
    assert WIDE.offer() == f"{NAME}; client_max_window_bits"
    assert Deflate(
        context_takeover=False, peer_context_takeover=False, window_bits=15, peer_window_bits=15
    ).offer() == (f"{NAME}; server_no_context_takeover; client_no_context_takeover; client_max_window_bits")


@pytest.mark.parametrize(
    "values",
    [
        {"window_bits": 8},
        {"window_bits": 16},
        {"peer_window_bits": 0},
        {"level": 0},
        {"memory_level": 10},
        {"threshold": -1},
    ],
)
def test_values_that_cannot_be(values: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        Deflate(**values)  # type: ignore[arg-type]


def pair(options: Deflate = WIDE) -> tuple[MessageDeflate, MessageDeflate]:
    agreed = options.accept([(NAME, [("client_max_window_bits", None)])])
    assert agreed is not None
    client = options.agree(NAME, [("server_max_window_bits", str(options.window_bits))])
    assert client is not None
    return agreed[1], client


@given(
    st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=4), max_size=6),
    st.sampled_from([9, 12, 15]),
    st.booleans(),
    st.randoms(),
)
def test_round_trip(messages: list[list[bytes]], bits: int, takeover: bool, random: object) -> None:
    options = Deflate(bits, bits, takeover, True)
    sender = MessageDeflate(options, bits, takeover, bits, takeover)
    receiver = MessageDeflate(options, bits, takeover, bits, takeover)
    for fragments in messages:
        out = b""
        for i, fragment in enumerate(fragments):
            is_last = i == len(fragments) - 1
            data = sender.compress(fragment, is_last=is_last)
            cut = random.randint(0, len(data))  # type: ignore[attr-defined]
            out += receiver.decompress(data[:cut], 1 << 20, is_last=False)
            out += receiver.decompress(data[cut:], 1 << 20, is_last=is_last)
        assert out == b"".join(fragments)


def test_examples_of_the_rfc() -> None:
    """RFC 7692 section 7.2.3."""
    _, receiver = pair()
    hello = bytes.fromhex("f248cdc9c90700")
    assert receiver.decompress(hello, 5, is_last=True) == b"Hello"
    assert (
        receiver.decompress(bytes.fromhex("f200110000"), 5, is_last=True) == b"Hello"
    )  # with the context of the first
    assert receiver.decompress(bytes.fromhex("000500faff48656c6c6f00"), 5, is_last=True) == b"Hello"  # not compressed
    assert receiver.decompress(bytes.fromhex("f348cdc9c9070000"), 5, is_last=True) == b"Hello"  # BFINAL
    assert receiver.decompress(hello, 5, is_last=True) == b"Hello"
    assert receiver.decompress(bytes.fromhex("f248050000 00ffffcac9c90700"), 5, is_last=True) == b"Hello"  # two blocks
    assert receiver.decompress(b"\x00", 5, is_last=True) == b""


def test_room() -> None:
    sender, receiver = pair()
    data = sender.compress(bytes(1000))
    assert receiver.decompress(data, 1000, is_last=True) == bytes(1000)
    sender, receiver = pair()
    with pytest.raises(LimitExceeded) as caught:
        receiver.decompress(sender.compress(bytes(1000)), 999, is_last=True)
    assert caught.value.wire_code == 1009 and caught.value.actual == 1000


def test_room_across_final_blocks() -> None:
    _, receiver = pair()
    stream = zlib.compress(bytes(600), wbits=-15)
    with pytest.raises(LimitExceeded):
        receiver.decompress(stream * 3, 1000, is_last=True)


@given(st.binary(max_size=200))
def test_only_documented_errors(data: bytes) -> None:
    _, receiver = pair()
    try:
        outcome: int = len(receiver.decompress(data, 1000, is_last=True))
    except RemoteProtocolError as exc:  # a LimitExceeded is one
        outcome = -exc.wire_code
    assert outcome <= 1000
    assert outcome >= 0 or outcome in (-1007, -1009)


def test_final_blocks_are_not_for_nothing() -> None:
    _, receiver = pair()
    for _ in range(3):  # the limit is for each message
        assert receiver.decompress(b"\x03\x00" * 10 + b"\x00", 9, is_last=True) == b""
    with pytest.raises(RemoteProtocolError) as caught:
        receiver.decompress(b"\x03\x00" * 17, 9, is_last=False)
    assert caught.value.wire_code == 1008


def test_nothing_to_flush() -> None:
    """Behind a fragment, an empty last one: zlib has nothing to flush."""
    sender, receiver = pair()
    out = receiver.decompress(sender.compress(b"x", is_last=False), 9, is_last=False)
    out += receiver.decompress(sender.compress(b"", is_last=True), 9, is_last=True)
    assert out == b"x"
    assert receiver.decompress(sender.compress(b"y"), 9, is_last=True) == b"y"
