"""Laws of the HTTP codecs (the law_* functions of tests/fuzz), and round trips through what we frame ourselves."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncmg.codecs.http import (
    LAST_CHUNK,
    Framing,
    RequestHead,
    Role,
    encode_chunk,
    encode_fields,
    encode_response_head,
)
from asyncmg.errors import InvalidHeader
from asyncmg.limits import HttpLimits
from asyncmg.protocols.http_reply import ReplyFraming, frame_reply
from tests.codecs.codec_list import CODECS, run, split_at
from tests.fuzz.fuzz_http_portable import TIGHT, law_bounded, law_final, law_h11, law_split, make_input, mutate

CUTS = st.lists(st.integers(0, 1000), max_size=8)
SEEDS = st.integers(0, 2**48)
GARBAGE = st.one_of(
    st.binary(max_size=300),
    st.text("GET/HTP1.0 :\r\n\t;,aX\0\x80", max_size=200).map(lambda text: text.encode("latin-1")),
)
REQUESTS = SEEDS.map(lambda seed: make_input(random.Random(seed)))


def make_responses(seed: int) -> bytes:
    chance = random.Random(seed)
    out = []
    for _ in range(chance.choice([1, 1, 2, 3])):
        content = chance.choice([b"", b"hello", b"\r\n\r\n\0", b"x" * 200])
        status = chance.choice([200, 200, 200, 100, 103, 204, 304, 404, 500, 101, 999])
        lines = [chance.choice([b"A: b\r\n", b"E:\r\n", b"S: \xe4 x\r\n"]) for _ in range(chance.randrange(3))]
        kind = chance.randrange(4)
        if kind == 0:
            lines.append(b"Content-Length: %d\r\n" % len(content))
        elif kind == 1:
            lines.append(b"Transfer-Encoding: chunked\r\n")
            content = (encode_chunk(content) if content else b"") + LAST_CHUNK
        elif kind == 2:
            lines.append(b"Connection: close\r\n")
        out.append(encode_response_head(status, lines) + content)
    data = b"".join(out)
    return mutate(chance, data) if chance.random() < 0.5 else data


RESPONSES = SEEDS.map(make_responses)
BOTH_ROLES = st.one_of(
    st.tuples(st.just(Role.SERVER), st.one_of(REQUESTS, GARBAGE)),
    st.tuples(st.just(Role.CLIENT), st.one_of(RESPONSES, GARBAGE)),
)

codecs = pytest.mark.parametrize("codec_name", CODECS)


@codecs
@given(case=BOTH_ROLES, cuts=CUTS, eof=st.booleans())
def test_where_the_input_is_split_does_not_matter(
    codec_name: str, case: tuple[Role, bytes], cuts: list[int], eof: bool
) -> None:
    role, data = case
    for limits in (HttpLimits(), TIGHT):
        law_split(codec_name, data, cuts, eof=eof, role=role, limits=limits)


@codecs
@given(case=BOTH_ROLES)
@example(case=(Role.SERVER, b"GET / HTTP/1.1\r\nbroken\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"))
def test_only_protocol_errors_are_raised_and_they_are_final(codec_name: str, case: tuple[Role, bytes]) -> None:
    role, data = case
    law_final(codec_name, data, role=role)


@codecs
@given(case=BOTH_ROLES, cuts=CUTS)
def test_memory_is_bounded(codec_name: str, case: tuple[Role, bytes], cuts: list[int]) -> None:
    role, data = case
    law_bounded(codec_name, data, cuts, role=role)


ENDLESS = [
    (b"", b"GET /"),
    (b"GET / HTTP/1.1\r\n", b"X"),
    (b"GET / HTTP/1.1\r\n", b"X: y\r\n"),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1", b";a"),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;a\r\nx\r\n"),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X"),
]


@codecs
@pytest.mark.parametrize(("start", "more"), ENDLESS)
def test_what_never_ends_is_refused(codec_name: str, start: bytes, more: bytes) -> None:
    _, status = run(codec_name, Role.SERVER, [start] + [more] * 40_000)
    assert status in (400, 414, 431)


@codecs
@given(data=REQUESTS)
def test_agreement_with_h11(codec_name: str, data: bytes) -> None:
    law_h11(codec_name, data)


@codecs
@given(data=GARBAGE)
def test_agreement_with_h11_on_garbage(codec_name: str, data: bytes) -> None:
    law_h11(codec_name, b"POST / HTTP/1.1\r\nHost: h\r\n" + data)


# -- what we frame, read by the client role ------------------------------------------------------------------------

TOKENS = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=12).filter(
    lambda name: name.lower() not in ("content-length", "transfer-encoding", "connection", "content-type")
)
# A tab and what is visible; no white space at the ends, which is not part of a value.
VALUES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], include_characters="\t"), max_size=40
).map(lambda value: value.strip(" \t"))
HEADERS = st.lists(st.tuples(TOKENS, VALUES), max_size=6)
METHODS = st.sampled_from(["GET", "HEAD", "POST"])
PROTOS = st.sampled_from(["HTTP/1.1", "HTTP/1.0"])
FINAL = st.one_of(st.sampled_from([200, 204, 304, 404, 205, 500, 999]), st.integers(200, 999))
PIECES = st.lists(st.binary(min_size=1, max_size=60), max_size=5)


def request(method: str, proto: str = "HTTP/1.1") -> RequestHead:
    return RequestHead(method, "/", proto, [], Framing.NONE, 0, proto != "HTTP/1.0", False, "")


def parse(codec_name: str, method: str, wire: bytes, *, closed: bool) -> tuple[Any, bytes]:
    """Read one response, cut in two; return its head and content. Nothing may be left over."""
    pieces = split_at(wire, [len(wire) // 2])
    records, error = run(codec_name, Role.CLIENT, pieces, eof=closed, expect=[method])
    assert error is None, f"{error}: {wire!r}"
    heads = [record for record in records if record[0] == "response"]
    assert len(heads) == 1, records
    if records[0][6] is not Framing.CLOSE or closed:
        assert records[-1] == ("end", ())
    return heads[0], b"".join(record[1] for record in records if record[0] == "body")


def check_head(head: Any, status: int, headers: list[tuple[str, str]], proto: str, closes: bool) -> None:
    assert head[2] == status
    wanted = [(name.encode(), value.encode()) for name, value in headers]
    assert [field for field in head[5] if field in wanted] == wanted
    if proto == "HTTP/1.1":
        assert head[8] == (not closes)
    names = [name.lower() for name, _ in head[5]]
    for name in (b"content-length", b"transfer-encoding", b"connection"):
        assert names.count(name) <= 1
    for name in (b"date", b"server"):
        assert names.count(name) == max(1, sum(given.lower().encode() == name for given, _ in headers))


@codecs
@given(method=METHODS, proto=PROTOS, status=FINAL, headers=HEADERS, body=st.binary(max_size=200), closes=st.booleans())
def test_replies_round_trip(
    codec_name: str, method: str, proto: str, status: int, headers: list[tuple[str, str]], body: bytes, closes: bool
) -> None:
    reply = frame_reply(request(method, proto), status, body, headers, closes=closes)
    head, content = parse(codec_name, method, reply.head + reply.body, closed=False)
    check_head(head, status, headers, proto, closes)
    empty = method == "HEAD" or status in (204, 304)
    assert content == (b"" if empty else body)
    assert reply.framing is ReplyFraming.WHOLE
    assert reply.closes == closes
    lengths = [value for name, value in head[5] if name == b"Content-Length"]
    assert lengths == ([] if status in (204, 304) else [b"%d" % len(body)])


@codecs
@given(
    method=METHODS,
    proto=PROTOS,
    status=st.sampled_from([200, 204, 304, 404]),
    headers=HEADERS,
    pieces=PIECES,
    first=st.sampled_from([b"", b"first"]),
    known=st.booleans(),
    closes=st.booleans(),
)
def test_streams_round_trip(
    codec_name: str,
    method: str,
    proto: str,
    status: int,
    headers: list[tuple[str, str]],
    pieces: list[bytes],
    first: bytes,
    known: bool,
    closes: bool,
) -> None:
    content = first + b"".join(pieces)
    length = len(content) if known else None
    reply = frame_reply(
        request(method, proto), status, first, headers, closes=closes, streams=True, stream_length=length
    )
    wire = reply.head
    rest = [reply.body, *pieces] if reply.body else pieces
    if reply.framing is ReplyFraming.CHUNKED:
        wire += b"".join(map(encode_chunk, rest)) + LAST_CHUNK
    elif reply.framing in (ReplyFraming.LENGTH, ReplyFraming.CLOSE):
        wire += b"".join(rest)
    else:
        assert method == "HEAD" or status in (204, 304)
        assert not reply.body
    head, got = parse(codec_name, method, wire, closed=reply.closes)
    check_head(head, status, headers, proto, reply.closes)
    assert got == (b"" if method == "HEAD" or status in (204, 304) else content)
    if proto == "HTTP/1.0" and not known and status == 200:
        assert reply.closes


@given(status=st.integers(200, 299))
def test_a_2xx_reply_to_connect_has_no_length(status: int) -> None:
    """RFC 9110 section 8.6: MUST NOT; the client takes what follows for the tunnel."""
    reply = frame_reply(request("CONNECT"), status, b"", None, closes=False)
    assert b"content-length" not in reply.head.lower()
    assert b"transfer-encoding" not in reply.head.lower()


ANY_TEXT = st.one_of(
    st.text(max_size=20), st.text("a:\r\n \t\0\x0b\x0c\x85\u2028\ud800\udc0a\udc0d\u010a\u010d", max_size=8)
)


@given(pairs=st.lists(st.tuples(ANY_TEXT, ANY_TEXT), max_size=4), form=st.sampled_from(["pairs", "mapping", "string"]))
@example(pairs=[("X", "\ud800")], form="pairs")
@example(pairs=[("X", "\udc0a")], form="mapping")
@example(pairs=[("X: y\r\nZ", "a")], form="pairs")
def test_header_fields_never_become_more_lines(pairs: list[tuple[str, str]], form: str) -> None:
    headers: Any = dict(pairs) if form == "mapping" else pairs
    if form == "string":
        headers = "".join(f"{name}: {value}\r\n" for name, value in pairs)
    try:
        encoded = encode_fields(headers)
    except InvalidHeader:
        return
    if form != "string":
        assert len(encoded) == len(headers)
    for name, line in encoded:
        assert line.endswith(b"\r\n")
        assert not any(byte in line[:-2] for byte in b"\r\n\0")
        assert line.partition(b":")[0].lower() == name
        assert name
        assert not set(name) & set(b" \t:\0\x0b\x7f")


@given(headers=HEADERS)
def test_the_three_forms_of_headers_say_the_same(headers: list[tuple[str, str]]) -> None:
    pairs = encode_fields(headers)
    assert [line for _, line in pairs] == [f"{name}: {value}\r\n".encode() for name, value in headers]
    assert encode_fields("".join(f"{name}: {value}\r\n" for name, value in headers)) == pairs
    if len(dict(headers)) == len(headers):
        assert encode_fields(dict(headers)) == pairs
