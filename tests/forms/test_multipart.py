"""multipart/form-data (RFC 7578): read with the loop of the seeds, and as it comes in."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from asyncmg.errors import LimitExceeded, RemoteProtocolError
from asyncmg.forms.events import PartBegin
from asyncmg.forms.multipart import MultipartParser, boundary_of, http_parse_multipart
from asyncmg.limits import FormLimits


def parts_of(body: Any) -> list[tuple[str, str, bytes]]:
    parts = []
    offset = 0
    while True:
        before = offset
        offset, part = http_parse_multipart(body, offset)
        if part is None:
            break
        assert offset > before, "the loop must come to an end"
        parts.append((part["name"], part["filename"], part["body"]))
    assert offset == 0
    return parts


def encode(*parts: tuple[str, bytes], boundary: str = "b0", end: str = "--\r\n") -> bytes:
    out = []
    for disposition, body in parts:
        head = f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: text/plain\r\n\r\n"
        out += [head.encode(), body, b"\r\n"]
    return b"".join(out) + f"--{boundary}{end}".encode()


def test_fields_and_files() -> None:
    body = encode(('name="a"', b"1"), ('name="f"; filename="x.txt"', b"line\r\nline\r\n"), ('name="c"', b"3"))
    assert parts_of(body) == [("a", "", b"1"), ("f", "x.txt", b"line\r\nline\r\n"), ("c", "", b"3")]


@pytest.mark.parametrize(
    "end", ["--", "--\r\n", "--\r\n\r\n", "-- \r\n", "--\r\nepilogue", "--\r\nan\r\n\r\nepilogue\r\n"]
)
def test_ends(end: str) -> None:
    assert parts_of(encode(('name="a"', b"1"), end=end)) == [("a", "", b"1")]


def test_the_epilogue_is_ignored() -> None:
    """RFC 2046 section 5.1.1."""
    phantom = '--\r\nContent-Disposition: form-data; name="phantom"\r\n\r\n2\r\n--b0--\r\n'
    assert parts_of(encode(('name="a"', b"1"), end=phantom)) == [("a", "", b"1")]


@pytest.mark.parametrize(
    ("disposition", "name", "filename"),
    [
        ("name=a; filename=b.txt", "a", "b.txt"),
        ('filename="b.txt"; name="a"', "a", "b.txt"),
        ('NAME="a"', "a", ""),
        ('name="a;b"; filename="c;d=\\"e\\".txt"', "a;b", 'c;d="e".txt'),
        ('name="a"; filename="../../etc/passwd"', "a", "../../etc/passwd"),
        ('name="a"; filename="\xe4\u20ac.txt"', "a", "\xe4\u20ac.txt"),
        ('name="a filename=evil"', "a filename=evil", ""),
        ('name="a; filename=evil"', "a; filename=evil", ""),
        ('name=""; filename=""', "", ""),
        ("", "", ""),
    ],
)
def test_names(disposition: str, name: str, filename: str) -> None:
    assert parts_of(encode((disposition, b"x"))) == [(name, filename, b"x")]


def test_names_that_are_not_utf8() -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="\xe4"\r\n\r\n\xff\r\n--b--'
    assert parts_of(body) == [("\udce4", "", b"\xff")]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n",
        b"\r\n\r\n",
        b"x--b0",
        b"x--b0--\r\n",
        b"\n--b0\n",
        b"\r--b0",
        b"\r\n--b",
        b"\r\n-b0",
        b"\r\n --b0",
        b"\r\n\r\n--\r\n",
        b"\r",
        b"\0\xff\r\n\x00",
        bytes(range(256)),
        b"Content-Disposition: x\r\n\r\ny",
    ],
)
def test_binary_content(content: bytes) -> None:
    assert parts_of(encode(('name="a"', content), ('name="b"', b"2"))) == [("a", "", content), ("b", "", b"2")]


def test_part_without_headers() -> None:
    assert parts_of(b"--b\r\n\r\nbody\r\n--b--") == [("", "", b"body")]


def test_case_and_spaces_of_header_lines() -> None:
    body = b'--b\r\nX: y\r\ncontent-disposition:form-data;name="a"\r\nZ:\r\n\r\n1\r\n--b--'
    assert parts_of(body) == [("a", "", b"1")]


def test_white_space_behind_a_boundary() -> None:
    body = b'--b \t\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b \r\n\r\n2\r\n--b--'
    assert parts_of(body) == [("a", "", b"1"), ("", "", b"2")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--",
        b"\r\n",
        b"--b",
        b"--b\r\n",
        b"--b\r\n\r\n",
        b"--b\r\nX: y",
        b"--b\r\nX: y\r\n\r\nno end",
        b"--b--\r\n",
        b"--\r\n\r\nx\r\n--\r\n",
        b"b\r\n\r\nx\r\nb",
        b"a=1&b=2",
        b"--" + b"b" * 71 + b"\r\n\r\nx\r\n--" + b"b" * 71 + b"--",
    ],
)
def test_no_part(body: bytes) -> None:
    assert http_parse_multipart(body) == (0, None)


def test_the_longest_boundary() -> None:
    assert parts_of(encode(('name="a"', b"1"), boundary="b" * 70)) == [("a", "", b"1")]


def test_the_last_boundary_is_missing() -> None:
    body = encode(('name="a"', b"1"), ('name="b"', b"2"))
    assert parts_of(body[: body.rindex(b"\r\n--b0")]) == [("a", "", b"1")]


@pytest.mark.parametrize("offset", [-1, -1000, 1, 3, 10_000, 1 << 70])
def test_offsets_that_are_none(offset: int) -> None:
    assert http_parse_multipart(encode(('name="a"', b"1")), offset) == (0, None)


def test_the_body_may_be_a_str_or_a_bytearray() -> None:
    body = encode(('name="a"', "\xe4".encode()), ('name="b"', b"2"))
    expected = [("a", "", "\xe4".encode()), ("b", "", b"2")]
    assert parts_of(body.decode()) == expected
    assert parts_of(bytearray(body)) == expected
    assert parts_of(memoryview(body)) == expected


def test_every_cut_is_survived() -> None:
    body = encode(('name="a"', b"1"), ('name="f"; filename="x"', b"2"))
    whole = parts_of(body)
    for end in range(len(body)):
        found = parts_of(body[:end])
        assert found == whole[: len(found)]


def test_ten_thousand_parts_take_linear_time() -> None:
    def seconds(count: int) -> float:
        body = encode(*[('name="a"', b"1")] * count)
        best = []
        for _ in range(3):
            start = time.process_time()
            assert len(parts_of(body)) == count
            best.append(time.process_time() - start)
        return min(best)

    assert seconds(10_000) < 10 * 4 * max(seconds(1_000), 0.005)


# -- the push parser -------------------------------------------------------------------------------------------------

LIMITS = FormLimits()
Parsed = list[tuple[str, str, bytes]]


def parse(pieces: Iterable[bytes], boundary: str = "b0", limits: FormLimits = LIMITS) -> Parsed:
    """Return name, filename and content of all parts."""
    parser = MultipartParser(boundary, limits)
    parts: Parsed = []
    begun: list[PartBegin] = []
    content = bytearray()
    for data in pieces:
        parser.receive_data(data)
        for event in parser:
            if isinstance(event, PartBegin):
                assert not begun
                begun.append(event)
            elif isinstance(event, bytes):
                assert begun and event
                content += event
            else:
                part = begun.pop()
                parts.append((part.name, part.filename, bytes(content)))
                content.clear()
    parser.receive_end()
    assert parser.is_complete and not begun
    return parts


def splits(body: bytes) -> list[list[bytes]]:
    """The body whole, byte by byte, and cut in two at every place."""
    return [
        [body],
        [body[i : i + 1] for i in range(len(body))],
        *([body[:i], body[i:]] for i in range(1, len(body))),
    ]


def part_of(header: str, content: bytes = b"x") -> PartBegin:
    parser = MultipartParser("b0", LIMITS)
    parser.receive_data(b"--b0\r\n" + header.encode("utf-8", "surrogateescape") + b"\r\n\r\n" + content + b"\r\n--b0--")
    (begin, *_) = parser
    parser.receive_end()
    assert isinstance(begin, PartBegin)
    return begin


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n",
        b"\r\n\r\n",
        b"\r\r\n",
        b"x--b0",
        b"x--b0--\r\n",
        b"\n--b0\n",
        b"\r--b0",
        b"\r\n--b",
        b"\r\n--b\r\n--b\r\n-",
        b"\r\n-b0",
        b"\r\n --b0",
        b"\r\n\r\n--\r\n",
        b"\r",
        b"\0\xff\r\n\x00",
        bytes(range(256)),
    ],
)
def test_content_in_any_split(content: bytes) -> None:
    body = encode(('name="a"', content), ('name="f"; filename="x"', b"2"), ('name="c"', content))
    for pieces in splits(body):
        assert parse(pieces) == [("a", "", content), ("f", "x", b"2"), ("c", "", content)]


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        (b"--b0--", []),
        (b"--b0--\r\n", []),
        (b"\r\n--b0--", []),
        (b"preamble\r\nof lines\r\n--b0--epilogue\r\n--b0\r\n", []),
        (b"--b0 \t \r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b0\t--", [("a", "", b"1")]),
        # RFC 2046 section 5.1.1: a part may end without content, with the CRLF of its header.
        (b"--b0\r\nContent-Disposition: form-data; name=a\r\n\r\n--b0--", [("a", "", b"")]),
        (
            b"--b0\r\nContent-Disposition: form-data; name=a\r\n\r\n--b0\r\n"
            b"Content-Disposition: form-data; name=b\r\n\r\n--b\r\n--b0--",
            [("a", "", b""), ("b", "", b"--b")],
        ),
    ],
)
def test_boundaries_in_any_split(body: bytes, parts: Parsed) -> None:
    for pieces in splits(body):
        assert parse(pieces) == parts


@pytest.mark.parametrize(
    ("disposition", "name", "filename"),
    [
        ("name=a; filename=b.txt", "a", "b.txt"),
        ('filename="b.txt";name="a"', "a", "b.txt"),
        ('NAME="a"', "a", None),
        ('name=""; filename=""', "", ""),
        ('name="a;b"; filename="c;d=\\"e\\".txt"', "a;b", 'c;d="e".txt'),
        ('name="a%22%0D%0Ab%0a%25"', 'a"\r\nb%0a%25', None),
        ('name="a"; filename="C:\\dir\\b.txt"', "a", "C:\\dir\\b.txt"),
        ('name="a"; filename="\\\\server\\\\x"', "a", "\\server\\x"),
        ('name="a"; filename="../../etc/passwd"', "a", "../../etc/passwd"),
        ('name="\xe4"; filename="\u20ac \U0001f600.txt"', "\xe4", "\u20ac \U0001f600.txt"),
        ('name="\udcff"', "\udcff", None),
        ("name=a; filename*=UTF-8'en'%e2%82%ac%20rates", "a", "\u20ac rates"),
        ("name=a; filename*=iso-8859-1''%A3", "a", "\xa3"),
        ("name=a; filename*=UTF-8''b; filename=c", "a", "c"),
        ("name=a; x=y; filename=b", "a", "b"),
    ],
)
def test_dispositions(disposition: str, name: str, filename: str | None) -> None:
    part = part_of(f"Content-Disposition: form-data; {disposition}")
    assert (part.name, part.filename, part.is_file) == (name, filename or "", filename is not None)


def test_headers_of_a_part() -> None:
    part = part_of("X-A: 1\r\ncontent-type:image/png \r\nCONTENT-DISPOSITION: Form-Data; name=a\r\nx-a: 2")
    assert part.content_type == "image/png"
    assert part.headers == [
        ("x-a", "1"),
        ("content-type", "image/png"),
        ("content-disposition", "Form-Data; name=a"),
        ("x-a", "2"),
    ]
    assert part_of("Content-Disposition: form-data; name=a").content_type == "text/plain"
    assert repr(part) == "<PartBegin 'a' filename='' image/png>"


HEAD = b"--b0\r\nContent-Disposition: form-data; name=a\r\n"


@pytest.mark.parametrize(
    ("body", "wire_code", "rule"),
    [
        (b"", 400, "RFC 2046"),
        (b"--b0", 400, "RFC 2046"),
        (b"--b0-", 400, "RFC 2046"),
        (b"--b0\r\n", 400, "RFC 2046"),
        (b"x--b0--", 400, "RFC 2046"),
        (b"\n--b0--", 400, "RFC 2046"),
        (HEAD + b"\r\n1", 400, "RFC 2046"),
        (HEAD + b"\r\n1\r\n--b0\r\n", 400, "RFC 2046"),
        (HEAD + b"\r\n1\n--b0--", 400, "RFC 2046"),
        (HEAD + b"\r\n1\r\n--b0x--", 400, "RFC 2046"),
        (HEAD + b"\r\n1\r\n--b0-x", 400, "RFC 2046"),
        (HEAD + b"\r\n1\r\n--b0 x", 400, "RFC 2046"),
        (HEAD + b"\r\n1\r\n--b0\n--b0--", 400, "RFC 2046"),
        (HEAD + b"\r\n1\r\n--b0\rx", 400, "RFC 2046"),
        (b"--b0\r\n\r\nno header\r\n--b0--", 400, "RFC 7578 section 4.2"),
        (b"--b0\r\nContent-Disposition: attachment; name=a\r\n\r\n1\r\n--b0--", 400, "RFC 7578 section 4.2"),
        (b"--b0\r\nContent-Disposition: form-data\r\n\r\n1\r\n--b0--", 400, "RFC 7578 section 4.2"),
        (b"--b0\r\nContent-Disposition: form-data; filename=a\r\n\r\n1\r\n--b0--", 400, "RFC 7578 section 4.2"),
        (HEAD + HEAD[6:] + b"\r\n1\r\n--b0--", 400, "RFC 7578 section 4.8"),
        (HEAD + b"X y\r\n\r\n1\r\n--b0--", 400, "RFC 7578 section 4.8"),
        (HEAD + b"X : y\r\n\r\n1\r\n--b0--", 400, "RFC 7578 section 4.8"),
        (HEAD + b" folded\r\n\r\n1\r\n--b0--", 400, "RFC 7578 section 4.8"),
        (HEAD + b"X: a\nb\r\n\r\n1\r\n--b0--", 400, "RFC 7578 section 4.8"),
        (HEAD + b"X: \0\r\n\r\n1\r\n--b0--", 400, "RFC 7578 section 4.8"),
        (HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n1\r\n--b0--", 415, "RFC 7578 section 4.7"),
    ],
)
def test_what_is_malformed_in_any_split(body: bytes, wire_code: int, rule: str) -> None:
    for pieces in splits(body):
        with pytest.raises(RemoteProtocolError) as caught:
            parse(pieces)
        assert (type(caught.value), caught.value.wire_code) == (RemoteProtocolError, wire_code)
        assert caught.value.section.startswith(rule)


@pytest.mark.parametrize(
    "parameters",
    [
        "name=a; name=b",
        "name=a; filename=b; FILENAME=c",
        'name="a',
        'name="a\\"',
        'name="a"b',
        "name=a;",
        "name",
        "name=",
        "name = a",
        "name=a b",
        "=a",
        "name=a filename=b",
        "name=a; filename*=b",
        "name=a; filename*=UTF-8''%ff",
        "name=a; filename*=UTF-8''%zz",
        "name=a; filename*=koi8-r''a",
    ],
)
def test_malformed_dispositions(parameters: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        part_of(f"Content-Disposition: form-data; {parameters}")
    assert caught.value.wire_code == 400


def test_content_transfer_encodings_that_encode_nothing() -> None:
    for encoding in ("7bit", "8BIT", "binary"):
        assert part_of(f"Content-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: {encoding}").name == "a"


@pytest.mark.parametrize(
    ("limits", "body", "wire_code", "limit"),
    [
        ({"max_parts": 2}, encode(*[('name="a"', b"1")] * 3), 400, "max_parts=2"),
        ({"max_part_header": 100}, HEAD + b"X: " + b"y" * 100 + b"\r\n\r\n1\r\n--b0--", 400, "max_part_header=100"),
        ({"max_part_header": 100}, HEAD + b"X: " + b"y" * 1000, 400, "max_part_header=100"),
        ({"max_part_header": 100}, b"x" * 101 + b"\r\n--b0--", 400, "max_part_header=100"),
        ({"max_part_header": 100}, b"--b0--" + b"x" * 101, 400, "max_part_header=100"),
        ({"max_part_header": 100}, b"--b0" + b" " * 101 + b"--", 400, "max_part_header=100"),
        ({"max_field": 5}, encode(('name="a"', b"123456")), 413, "max_field=5"),
        ({"max_fields_size": 6}, encode(('name="a"', b"12"), ('name="b"', b"345")), 413, "max_fields_size=6"),
        ({"max_fields_size": 2}, encode(('name="abc"', b"")), 413, "max_fields_size=2"),
        ({"max_file": 5}, encode(('name="a"; filename=""', b"123456")), 413, "max_file=5"),
        ({"max_total": 100}, encode(('name="a"', b"1" * 50)), 413, "max_total=100"),
        ({"max_total": 8}, b"--b0--" + b"xyz", 413, "max_total=8"),
        ({"max_total": 4}, b"--b0 malformed", 413, "max_total=4"),  # and not: malformed, when it comes as a whole
    ],
)
def test_limits_in_any_split(limits: dict[str, int], body: bytes, wire_code: int, limit: str) -> None:
    for pieces in splits(body):
        with pytest.raises(LimitExceeded) as caught:
            parse(pieces, limits=replace(LIMITS, **limits))
        assert (caught.value.wire_code, caught.value.limit) == (wire_code, limit)
        assert caught.value.actual > int(limit.partition("=")[2])


def test_preamble_and_epilogue_are_counted_for_themselves() -> None:
    fifty = b" " * 50
    body = fifty + b"\r\n--b0" + fifty + b"\r\n" + HEAD[6:] + b"\r\n\r\n--b0" + fifty + b"--" + fifty
    for pieces in splits(body):
        assert parse(pieces, limits=FormLimits(max_part_header=60)) == [("a", "", b"")]


def test_exactly_at_the_limits() -> None:
    body = encode(('name="a"', b"12345"), ('name="f"; filename="x"', b"1" * 7), ('name="b"', b"123"))
    header_size = len(b'Content-Disposition: form-data; name="f"; filename="x"\r\nContent-Type: text/plain')
    limits = FormLimits(
        max_parts=3, max_part_header=header_size, max_field=5, max_fields_size=10, max_file=7, max_total=len(body)
    )
    for pieces in splits(body):
        assert len(parse(pieces, limits=limits)) == 3
    for name in ("max_parts", "max_part_header", "max_field", "max_fields_size", "max_file", "max_total"):
        with pytest.raises(LimitExceeded) as caught:
            parse([body], limits=replace(limits, **{name: getattr(limits, name) - 1}))
        assert caught.value.limit.startswith(name + "=")


def test_errors_are_final() -> None:
    parser = MultipartParser("b0", LIMITS)
    parser.receive_data(b"--b0x")
    errors = []
    for _ in range(3):
        with pytest.raises(RemoteProtocolError) as caught:
            list(parser)
        errors.append(caught.value)
        parser.receive_data(b"\r\n--b0--")
    with pytest.raises(RemoteProtocolError) as caught:
        parser.receive_end()
    assert {*errors, caught.value} == {errors[0]}
    assert not parser.is_complete


@pytest.mark.parametrize("boundary", ["", " ", "a ", "a" * 71, "a\r", "a*", "\xe4", 'a"'])
def test_boundaries_against_the_grammar(boundary: str) -> None:
    with pytest.raises(ValueError, match="boundary"):
        MultipartParser(boundary, LIMITS)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=b0", "b0"),
        ('Multipart/Form-Data;charset=x; Boundary="a b:(c)"', "a b:(c)"),
        ("multipart/form-data; boundary=" + "a" * 70, "a" * 70),
        (
            "multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
            "----WebKitFormBoundary7MA4YWxkTrZu0gW",
        ),
    ],
)
def test_boundaries_of_content_types(content_type: str, boundary: str) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    ("content_type", "wire_code"),
    [
        ("", 415),
        ("text/plain; boundary=b", 415),
        ("multipart/mixed; boundary=b", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ('multipart/form-data; boundary="a "', 400),
        ("multipart/form-data; boundary=" + "a" * 71, 400),
    ],
)
def test_content_types_without_a_boundary(content_type: str, wire_code: int) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        boundary_of(content_type)
    assert caught.value.wire_code == wire_code


def test_content_is_handed_out_at_once() -> None:
    """No more than a boundary is held back."""
    parser = MultipartParser("b0", LIMITS)
    parser.receive_data(HEAD + b"\r\n")
    assert len(list(parser)) == 1
    for data in (b"y", b"x" * 10_000):
        parser.receive_data(data)
        assert list(parser) == [data]
    parser.receive_data(b"z\r\n--b")
    assert list(parser) == [b"z"]
    parser.receive_data(b"1")
    assert list(parser) == [b"\r\n--b1"]
    assert list(parser) == []


@pytest.mark.parametrize("unit", [b"\r", b"\n", b"-", b"\r\n", b"\r\n--b", b"x", b"\r\n--b0\r\n", b"\r\n-"])
@pytest.mark.parametrize("prefix", [b"", b"--b0", b"--b0\r\n", HEAD, HEAD + b"\r\n", b"--b0--"])
@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_any_input_in_any_split_takes_linear_time(unit: bytes, prefix: bytes, size: int) -> None:
    limits = FormLimits(max_part_header=1 << 20, max_field=1 << 22)

    def seconds(count: int) -> float:
        body = prefix + unit * (count // len(unit))
        best = []
        for _ in range(3):
            start = time.process_time()
            parser = MultipartParser("b0", limits)
            try:
                for position in range(0, len(body), size):
                    parser.receive_data(body[position : position + size])
                    for _ in parser:
                        pass
            except RemoteProtocolError:
                pass
            best.append(time.process_time() - start)
        return min(best)

    assert seconds(40_000) < 10 * 4 * max(seconds(4_000), 0.002)
