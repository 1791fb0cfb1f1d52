"""Laws of forms, queries, cookies and field values (the law_* functions of tests/fuzz), and round trips."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from email.parser import BytesParser
from email.policy import HTTP
from urllib.parse import urlencode

from hypothesis import example, given
from hypothesis import strategies as st

from asyncmg.cookies import Cookie, parse_cookies, set_cookie_headers
from asyncmg.errors import InvalidHeader
from asyncmg.fields import header_parameter, list_items, parse_header_line, parse_header_parameters, quality_values
from asyncmg.forms.form import form_of, read_form
from asyncmg.forms.uploads import safe_filename
from asyncmg.limits import FormLimits
from asyncmg.queries import decode_percent_encoding, query_pairs
from tests.fuzz.fuzz_forms import (
    TIGHT,
    encode_multipart,
    law_bounded,
    law_cookies,
    law_fields,
    law_loop,
    law_query_errors,
    law_round_trip,
    law_split,
    law_urllib,
    make_multipart,
    make_urlencoded,
)

CUTS = st.lists(st.integers(0, 500), max_size=8)
SEEDS = st.integers(0, 2**48)
KINDS = st.sampled_from(["multipart", "urlencoded"])
LIMITS = st.sampled_from([FormLimits(), TIGHT])
GARBAGE = st.one_of(
    st.binary(max_size=200),
    st.text('-b0\r\n :;="\\%&a+\0\x80', max_size=200).map(lambda text: text.encode("latin-1")),
    SEEDS.map(lambda seed: make_multipart(random.Random(seed))),
    SEEDS.map(lambda seed: make_urlencoded(random.Random(seed))),
)
# What the encoding of browsers can tell apart, and what is allowed in a header.
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\\%\0"), max_size=20)
CONTENTS = st.one_of(
    st.binary(max_size=100), st.text("-b\r\n0x", max_size=30).map(lambda text: text.encode().replace(b"--b0", b"-b0"))
).filter(lambda content: b"--b0" not in content)
PARTS = st.lists(st.tuples(NAMES, st.none() | NAMES, CONTENTS), max_size=5)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = st.text(st.sampled_from('",;= \\aQq0.1*/\t\xe4'), max_size=40)


@given(KINDS, GARBAGE, CUTS, LIMITS)
def test_nothing_depends_on_the_split(kind: str, data: bytes, cuts: list[int], limits: FormLimits) -> None:
    parts, error = law_split(kind, data, cuts, limits)
    law_bounded(kind, data, cuts, limits)
    if kind == "multipart" and error is None:
        law_loop(data, parts)


@given(PARTS, CUTS)
@example([("a", None, b"\r")], [])
@example([("a", None, b"\r\n--b")], [60])
def test_what_a_browser_sends_is_returned_as_it_was(
    parts: list[tuple[str, str | None, bytes]], cuts: list[int]
) -> None:
    law_round_trip(parts, cuts)


@given(st.lists(st.tuples(st.sampled_from(["a", "b\xe4"]), st.text("x\r\n- \xe4", max_size=30)), max_size=5))
def test_contents_are_what_the_standard_library_finds(fields: list[tuple[str, str]]) -> None:
    body = encode_multipart([(name, None, content.encode()) for name, content in fields])
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: multipart/form-data; boundary=b0\r\n\r\n" + body)
    found = [part.get_payload(decode=True) for part in message.iter_parts()] if fields else []
    form = form_of("multipart/form-data; boundary=b0", body, FormLimits())
    assert [str(value).encode() for _, value in form.pairs] == found


@given(st.binary(max_size=100) | st.text("a=&%4+", max_size=40).map(str.encode))
def test_queries_mean_what_they_mean_to_urllib(data: bytes) -> None:
    law_urllib(data)
    law_query_errors(data)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=8))
def test_queries_round_trip(pairs: list[tuple[str, str]]) -> None:
    encoded = urlencode(pairs)
    assert query_pairs(encoded) == pairs
    assert form_of("application/x-www-form-urlencoded", encoded.encode(), FormLimits()).pairs == pairs


@given(st.binary(max_size=50))
def test_percent_encoding_round_trips(data: bytes) -> None:
    assert decode_percent_encoding("".join(f"%{byte:02x}" for byte in data)) == data


@given(st.lists(st.tuples(NAMES, st.none() | NAMES, CONTENTS), max_size=5), st.integers(1, 100))
async def test_a_form_is_the_same_whole_and_in_pieces(parts: list[tuple[str, str | None, bytes]], size: int) -> None:
    body = encode_multipart(parts)

    async def pieces() -> AsyncIterator[bytes]:
        for position in range(0, len(body), size):
            yield body[position : position + size]

    content_type = "multipart/form-data; boundary=b0"
    whole = form_of(content_type, body, FormLimits())
    streamed = await read_form(content_type, pieces(), FormLimits())
    assert whole.fields.pairs == streamed.fields.pairs
    assert [(file.filename, file.read()) for file in whole.files.values()] == [
        (file.filename, file.read()) for file in streamed.files.values()
    ]
    assert len(whole.pairs) == len([part for part in parts if part[1] != "" or part[2]])


@given(st.text(max_size=300) | st.text("./\\ :aCON1\0\u202e", max_size=30))
@example("a" * 198 + ".con")
@example("con" + " " * 300)
def test_safe_filenames(filename: str) -> None:
    name = safe_filename(filename)
    assert 0 < len(name.encode()) <= 201
    assert not set(name) & set('/\\:*?"<>|\0\r\n')
    assert name[0] not in ". " and name[-1] not in ". "
    assert safe_filename(name) == name or len(name.encode()) == 201


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=10), st.text(max_size=10))
def test_cookies_round_trip_or_are_refused(name: str, value: str, path: str, domain: str) -> None:
    try:
        header = Cookie(value, path=path, domain=domain).header(name)
    except InvalidHeader:
        return
    assert header.isascii() and header.isprintable()
    first, *attributes = header.split("; ")
    assert parse_cookies(first) == {name: value.strip('"')}
    assert len(attributes) == bool(path) + bool(domain)


@given(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.from_regex(r"[!#-+\--:<-\[\]-~]{0,20}", fullmatch=True))
def test_cookies_that_may_be_sent(name: str, value: str) -> None:
    ((field, header),) = set_cookie_headers({name: value})
    assert field == "Set-Cookie"
    assert parse_cookies(header.partition(";")[0]) == {name: value}


@given(st.text(max_size=60) | st.text('a=;" \t\\', max_size=60))
def test_cookies_of_any_kind_are_read(value: str) -> None:
    law_cookies(value)


@given(VALUES | st.text(max_size=40))
def test_field_values_of_any_kind_are_read(value: str) -> None:
    law_fields(value)


@given(st.lists(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=10), max_size=5))
def test_quoted_strings_round_trip(values: list[str]) -> None:
    quoted = ['"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values]
    assert list_items(", ".join(quoted)) == quoted
    parameters = "; ".join(f"p{number}={text}" for number, text in enumerate(quoted))
    assert parse_header_parameters(parameters) == {f"p{number}": value for number, value in enumerate(values)}
    for number, value in enumerate(values):
        assert header_parameter(parameters, f"P{number}") == value


@given(st.lists(st.tuples(st.sampled_from(["gzip", "br", "*", "a/b;c=d"]), st.integers(0, 1000)), max_size=5))
def test_weights_round_trip(items: list[tuple[str, int]]) -> None:
    value = ", ".join(f"{name};q={weight / 1000:.3f}" for name, weight in items)
    assert quality_values(value) == [(name, weight / 1000) for name, weight in items]


@given(st.text(max_size=30) | st.binary(max_size=30))
def test_header_lines_of_any_kind(line: str | bytes) -> None:
    try:
        name, value = parse_header_line(line)
    except ValueError:
        return
    assert name == name.lower() and value == value.strip(" \t")
    assert not set(value) & set("\r\n\0")
