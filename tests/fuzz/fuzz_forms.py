"""Random forms, queries, cookies and field values against the laws of their parsers; needs nothing but the package.

    python tests/fuzz/fuzz_forms.py --seconds 10 --seed 1

The laws, each a function ``law_*`` that raises AssertionError:

* what a parser of forms returns, and the error in which it ends, do not depend on where the input was split;
* whatever the bytes are, only RemoteProtocolErrors with a documented wire_code are raised, and they are final;
* memory stays bounded: a boundary, or the header of a part, or one urlencoded pair;
* what a browser encodes is returned as it was;
* http_parse_multipart finds the same parts in what the push parser accepts;
* urlencoded forms and queries mean what they mean to urllib;
* cookies and field values are split without loss, and raise nothing but their documented errors.

tests/properties/test_forms.py holds them with hypothesis.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[2]))

from asyncmg.cookies import MAX_COOKIES, parse_cookies
from asyncmg.errors import LimitExceeded, RemoteProtocolError
from asyncmg.fields import list_items, parse_header_parameters, quality_values
from asyncmg.forms.events import PartBegin
from asyncmg.forms.multipart import MultipartParser, http_parse_multipart
from asyncmg.forms.urlencoded import UrlencodedParser
from asyncmg.limits import FormLimits
from asyncmg.queries import MAX_PAIRS, parse_query, query_pairs

BOUNDARY = "b0"
TIGHT = FormLimits(max_parts=3, max_part_header=120, max_field=30, max_fields_size=50, max_file=40, max_total=500)

Parser = MultipartParser | UrlencodedParser
PartResult = tuple[str, str, bool, str, bytes]
Outcome = tuple[list[PartResult], tuple[type[Exception], int, str] | None]


def make(kind: str, limits: FormLimits) -> Parser:
    return MultipartParser(BOUNDARY, limits) if kind == "multipart" else UrlencodedParser(limits)


def split_at(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(ends)]


def error_of(call: Callable[[], object]) -> RemoteProtocolError | None:
    try:
        call()
    except RemoteProtocolError as exc:
        return exc
    return None


def run(kind: str, pieces: list[bytes], limits: FormLimits) -> Outcome:
    """Return the parts that are complete, and the error."""
    parser = make(kind, limits)
    parts: list[PartResult] = []
    begin = PartBegin("")
    content = bytearray()

    def take() -> None:
        nonlocal begin
        for event in parser:
            if isinstance(event, PartBegin):
                begin = event
                content.clear()
            elif isinstance(event, bytes):
                content.extend(event)
            else:
                parts.append((begin.name, begin.filename, begin.is_file, begin.content_type, bytes(content)))

    def feed() -> None:
        for data in pieces:
            parser.receive_data(data)
            take()
        parser.receive_end()
        take()

    error = error_of(feed)
    if error is None:
        assert parser.is_complete
        return parts, None
    assert error.wire_code in (400, 413, 415), error
    parser.receive_data(b"--b0--\r\n")
    assert error_of(lambda: list(parser)) is error_of(parser.receive_end) is error, "errors are final"
    limit = error.limit if isinstance(error, LimitExceeded) else error.section
    return parts, (type(error), error.wire_code, limit)


def law_split(kind: str, data: bytes, cuts: list[int], limits: FormLimits) -> Outcome:
    whole = run(kind, [data], limits)
    assert run(kind, split_at(data, cuts), limits) == whole
    assert run(kind, [data[i : i + 1] for i in range(len(data))], limits) == whole
    return whole


def law_bounded(kind: str, data: bytes, cuts: list[int], limits: FormLimits) -> None:
    parser = make(kind, limits)
    bound = limits.max_part_header + 7 if kind == "multipart" else limits.max_field
    try:
        for piece in split_at(data, cuts):
            parser.receive_data(piece)
            for _ in parser:
                pass
            held = len(parser._buffer) - (parser._position if isinstance(parser, MultipartParser) else 0)
            assert held <= bound, f"{held} bytes held"
    except RemoteProtocolError:
        assert len(parser._buffer) == 0


def law_loop(data: bytes, parts: list[PartResult]) -> bool:
    """The loop of the seeds takes the boundary from the first line: it must be the one of the parser."""
    if data[:4] != b"--b0" or data.partition(b"\r\n")[0].rstrip(b" \t") != b"--b0":
        return False
    found = []
    offset, part = http_parse_multipart(data)
    while part is not None:
        found.append(part["body"])
        offset, part = http_parse_multipart(data, offset)
    assert found == [content for *_, content in parts]
    return True


def encode_multipart(parts: list[tuple[str, str | None, bytes]]) -> bytes:
    """Encode as HTML wants it of browsers."""

    def escaped(text: str) -> str:
        return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")

    out = []
    for name, filename, content in parts:
        header = f'--b0\r\nContent-Disposition: form-data; name="{escaped(name)}"'
        if filename is not None:
            header += f'; filename="{escaped(filename)}"\r\nContent-Type: application/octet-stream'
        out += [header.encode("utf-8", "surrogateescape"), b"\r\n\r\n", content, b"\r\n"]
    return b"".join(out) + b"--b0--\r\n"


def law_round_trip(parts: list[tuple[str, str | None, bytes]], cuts: list[int]) -> None:
    """Names must not hold what the encoding cannot tell apart: backslashes, and the escapes themselves."""
    data = encode_multipart(parts)
    found, error = run("multipart", split_at(data, cuts), FormLimits())
    assert error is None
    assert [part[:3] + part[4:] for part in found] == [
        (name, filename or "", filename is not None, content) for name, filename, content in parts
    ]


def law_urllib(data: bytes) -> bool:
    """parse_qsl is for ASCII."""
    if not data.isascii():
        return False
    text = data.decode("ascii")
    expected = parse_qsl(text, keep_blank_values=True, errors="surrogateescape")
    found, error = run("urlencoded", [data], FormLimits())
    assert error is None
    assert [(name, content.decode("utf-8", "surrogateescape")) for name, *_, content in found] == expected
    assert query_pairs(text) == query_pairs(data) == expected
    refusal = error_of(lambda: parse_query(data))
    if refusal is not None:
        assert refusal.wire_code == 400
        return False
    strict = parse_query(data)
    flat = {name: value if isinstance(value, list) else [value] for name, value in strict.items()}
    assert {name: [value or "" for value in values] for name, values in flat.items()} == {
        name: [value for key, value in expected if key == name] for name, _ in expected
    }
    return True


def law_query_errors(data: bytes) -> None:
    error = error_of(lambda: query_pairs(data))
    assert (error is not None) == (data.count(b"&") >= MAX_PAIRS)
    assert error is None or error.wire_code == 400


def law_cookies(value: str) -> None:
    error = error_of(lambda: parse_cookies(value))
    assert (error is not None) == (value.count(";") >= MAX_COOKIES)
    if error is not None:
        assert error.wire_code == 400
        return
    cookies = parse_cookies(value)
    for name, content in cookies.items():
        assert name and name == name.strip(" \t") and "=" not in name and ";" not in name + content
        assert name in value and content in value
    assert list(parse_cookies("; ".join(f'{name}="{content}"' for name, content in cookies.items())).items()) == list(
        cookies.items()
    )


def law_fields(value: str) -> None:
    items = list_items(value)
    assert all(item and item == item.strip() for item in items)
    if value.count('"') == value.count('\\"') == 0 and "\\" not in value:
        assert items == [item.strip() for item in value.split(",") if item.strip()]
    assert sum(map(len, items)) <= len(value)
    for name, weight in quality_values(value):
        assert name == name.lower() and 0 <= weight <= 1
    assert all(name == name.strip() for name in parse_header_parameters(value))


# -- inputs: mostly valid ---------------------------------------------------------------------------------------------

LINES = [
    'Content-Disposition: form-data; name="a"',
    'Content-Disposition: form-data; name="a"',
    'content-disposition:form-data;name=a;filename="x.txt"',
    'Content-Disposition: form-data; name="\xe4%22\\"\\\\"; filename=""',
    "Content-Disposition: form-data; name=a; filename*=UTF-8''%e2%82%ac",
    "Content-Disposition: attachment; name=a",
    "Content-Type: text/plain; charset=x",
    "Content-Transfer-Encoding: binary",
    "Content-Transfer-Encoding: base64",
    "X: y",
    "X:" + "y" * 100,
    " folded",
    "broken",
]
CONTENTS = [
    b"",
    b"1",
    b"\r\n",
    b"\r",
    b"\r\n--b",
    b"--b0",
    b"\r\n-",
    b"\r\n--\r\n",
    b"x" * 35,
    b"\0\xff",
    b"\r\n\r\n--b\r\n--b",
]
NOISE = [b"", b"", b"", b"preamble\r\n", b"\r\n", b"x" * 130 + b"\r\n"]
PAIRS = [b"a=1", b"a=1", b"b", b"", b"=", b"a=%41+%zz", b"%ff=\xff", b"a=b=c", b"x=" + b"y" * 40, b"\xc3\xa4=%C3%A4"]
COOKIES = ["a=1", "b=2", "a", "", '="', 'c="x y"', "d=e=f", " g = h ", 'i="', "\xe4=\udcff", "j=1,2"]
VALUES = ["gzip", ";q=0.5", ";q=", ",", " ", '"a,b;c"', '"\\"', '"', "\\", "a=b", ";", "*", "\xe4", "=", "0.1", "A/B"]


def mutate(chance: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 4])):
        at = chance.randrange(len(out) + 1)
        what = chance.randrange(4)
        if what == 0:
            del out[at : at + chance.choice([1, 2, 10])]
        elif what == 1:
            out[at:at] = chance.choice(
                [b"\r\n", b"\r", b"\n", b"-", b"--b0", b"\r\n--b0", b" ", b'"', b"\0", b"%", b";"]
            )
        elif what == 2:
            out[at : at + 1] = bytes([chance.randrange(256)])
        else:
            other = chance.randrange(len(out) + 1)
            out[at:at] = out[other : other + chance.choice([1, 10, 50])]
    return bytes(out)


def make_multipart(chance: random.Random) -> bytes:
    out = [chance.choice(NOISE)]
    for _ in range(chance.randrange(5)):
        lines = [LINES[0]] if chance.random() < 0.6 else chance.choices(LINES, k=chance.randrange(4))
        end = chance.choice([b"\r\n", b"\r\n", b"\r\n", b" \t\r\n"])
        header = "".join(line + "\r\n" for line in lines).encode()
        out += [b"--b0", end, header, b"\r\n", chance.choice(CONTENTS), b"\r\n"]
    out += [b"--b0--", chance.choice([b"", b"\r\n", b"\r\nepilogue"])]
    data = b"".join(out)
    return mutate(chance, data) if chance.random() < 0.5 else data


def make_urlencoded(chance: random.Random) -> bytes:
    data = b"&".join(chance.choices(PAIRS, k=chance.randrange(6)))
    return mutate(chance, data) if chance.random() < 0.3 else data


def make_parts(chance: random.Random) -> list[tuple[str, str | None, bytes]]:
    names = ["a", "", "\xe4\u20ac", 'q"q', "a\r\nb", "\udcff", ";", "%41"]
    contents = [content for content in CONTENTS if BOUNDARY.encode() not in content]  # browsers see to it
    return [
        (chance.choice(names), chance.choice([None, None, "", "x.txt", 'y";', "../z"]), chance.choice(contents))
        for _ in range(chance.randrange(5))
    ]


def main(arguments: list[str] | None = None) -> collections.Counter[str]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    seen: collections.Counter[str] = collections.Counter()
    number = 0
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        chance = random.Random(f"{options.seed} {number}")
        data = {"multipart": make_multipart(chance), "urlencoded": make_urlencoded(chance)}
        text = chance.choice(["; ", ";"]).join(chance.choices(COOKIES, k=chance.randrange(6)))
        value = "".join(chance.choices(VALUES, k=chance.randrange(8)))
        cuts = [chance.randrange(200) for _ in range(chance.choice([1, 3, 10]))]
        try:
            for kind, body in data.items():
                for limits in (FormLimits(), TIGHT):
                    parts, error = law_split(kind, body, cuts, limits)
                    law_bounded(kind, body, cuts, limits)
                    seen[f"{kind}: " + ("accepted" if error is None else str(error[1]))] += 1
                    if kind == "multipart" and error is None and law_loop(body, parts):
                        seen["compared with the loop"] += 1
            law_round_trip(make_parts(chance), cuts)
            seen["compared with urllib"] += law_urllib(data["urlencoded"])
            law_query_errors(data["urlencoded"])
            law_cookies(text)
            law_fields(value)
        except Exception as exc:
            exc.add_note(
                f"seed {options.seed}, input {number}: {data!r} cut at {cuts}, cookies {text!r}, value {value!r}"
            )
            raise
        number += 1
    seen["inputs"] = number
    return seen


if __name__ == "__main__":
    for what, count in main().most_common():
        print(f"{count:8} {what}")
