"""Random requests against the laws of serving files: paths, conditions, ranges; needs nothing but the package.

    python tests/fuzz/fuzz_files.py --seconds 10 --seed 1

The laws, each a function ``law_*`` that raises AssertionError:

* no spelling of a path, and no link, gets at a file outside the root or at a hidden one; a redirect stays on the host;
* a range is exactly what RFC 9110 section 14.1.2 says, as a slow and simple reading of it has it;
* entity tags and dates are read as a character-wise reading, and email.utils, have them;
* whatever the header fields are, there is a reply, its content is what its fields say, and no file stays open.

tests/properties/test_files.py holds them with hypothesis.
"""

from __future__ import annotations

import argparse
import collections
import email.utils
import os
import random
import re
import sys
import tempfile
import time
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[2]))

from asyncmg.files.conditions import parse_entity_tags, parse_http_date
from asyncmg.files.ranges import MAX_RANGES, parse_range
from asyncmg.files.reply import StaticFolder
from tests.files.served import body_of, fields_of, message, open_descriptors

SECRET = b"SECRET"
DATA = bytes(range(256)) * 4
MODIFIED = 784111777

# -- the grammar: mostly valid, each choice with a few that are wrong ------------------------------------------------

PARTS = ["a", "sub", "deep.txt", "page.html", "index.html", "data.bin", "page.html.gz", "", ".", "...", "%2e%2e", "a b"]
PARTS += ["out", "outdir", "secret", "within", "dirwithin", "loop", ".hidden", ".git", "config", ".well-known", "fifo"]
PARTS += ["root", "etc", "passwd", "evil.example", "gr\xfcn", "C:", "~", "a:b", "x" * 300, "static", "nothing"]
BAD_PARTS = ["..", "..", "..", "\\", "..\\..", "a\0", "a\n", "\x7f", "\u2025", "\x85"]

SPECS = ["0-0", "0-9", "5-", "-5", "-0", "0-", "1000-", "1023-", "1024-", "100-199", "150-160", "", " 7-8 ", "00-01"]
SPECS += ["999999999999999999999-", "-999999999999999999999", "0-999999999999999999999"]
BAD_SPECS = ["9-0", "-", "x", "1", "1-2-3", "+1-2", "1 -2", "0x1-2"]
UNITS = ["bytes="] * 12 + ["Bytes=", "bytes", "bytes =", "items=", "", "bytes==", "bytes=\t"]

TAG_PIECES = ['"', '"', "W/", ",", ", ", " ", "\t", "*", "abc", "x,y", "\\", "\xe4", "\x7f", "!", "w/", '""', "\udcff"]

DATE_PIECES = ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
DATE_PIECES += ["Sun, 06 Nov 1994 08:49:36 GMT", "Sun, 06 Nov 2094 08:49:37 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"]

CODINGS = [
    "gzip",
    "br",
    "br;q=0",
    "gzip;q=0.5",
    "*",
    "*;q=0",
    "identity",
    "identity;q=0",
    "x-gzip",
    "q",
    ";q=",
    "br;q=9",
]
ACCEPTS = ["text/html", "application/json", "*/*", "application/*;q=0.5", "text/html;q=0", "/", "application/json;q=x"]


def make_path(chance: random.Random) -> str:
    """Make a request-target of parts of which each may be spelt in several ways."""
    out = []
    for _ in range(chance.choice([1, 1, 2, 2, 3, 4, 6])):
        out.append(_spell(chance, chance.choice(PARTS if chance.random() < 0.9 else BAD_PARTS)))
    slash = [chance.choice(["/"] * 12 + ["//", "/./", "%2f", "%5c", "\\"]) for _ in out]
    path = "".join(separator + part for separator, part in zip(slash, out, strict=True))
    path += chance.choice(["", "", "", "/", "/", "/.", "?a=b", "/?sort=size&order=desc", "/?sort=%00", "%00", "%0d%0a"])
    return "/" + path if chance.random() < 0.9 else path


def _spell(chance: random.Random, part: str) -> str:
    kind = chance.randrange(6)
    data = part.encode("utf-8", "surrogateescape")
    if kind == 0:
        return "".join(f"%{byte:02x}" for byte in data)
    if kind == 1:
        return "".join(f"%{byte:02X}" if chance.random() < 0.5 else chr(byte) for byte in data)
    if kind == 2:  # encoded twice
        return "".join(f"%25{byte:02x}" for byte in data)
    return "".join(chr(byte) if 33 <= byte < 127 else f"%{byte:02x}" for byte in data)


def make_range(chance: random.Random) -> str:
    specs = chance.choices(SPECS, k=chance.choice([1, 1, 1, 2, 3, 5, 31, 32, 33, 40]))
    if chance.random() < 0.1:
        specs.append(chance.choice(BAD_SPECS))
    return mutate(chance, chance.choice(UNITS) + ",".join(specs))


def make_tags(chance: random.Random, etag: str = '"abc"') -> str:
    if chance.random() < 0.5:
        items = [
            chance.choice([etag, f"W/{etag}", '"x"', '"a,b"', "", "*"]) for _ in range(chance.choice([1, 1, 2, 4]))
        ]
        return mutate(chance, chance.choice([",", ", ", " ,"]).join(items))
    return "".join(chance.choice(TAG_PIECES) for _ in range(chance.randrange(12)))


def make_date(chance: random.Random) -> str:
    return mutate(chance, chance.choice(DATE_PIECES))


def mutate(chance: random.Random, text: str) -> str:
    """Damage a text, or mostly not."""
    if not text or chance.random() < 0.7:
        return text
    position = chance.randrange(len(text))
    new = chance.choice(["", " ", "0", "9", ",", '"', "-", "=", "\xe4", "\u0661", text[position] * 2])
    return text[:position] + new + text[position + 1 :]


def make_fields(chance: random.Random, etag: str) -> list[tuple[str, str]]:
    makers = {
        "If-Match": lambda: make_tags(chance, etag),
        "If-None-Match": lambda: make_tags(chance, etag),
        "If-Modified-Since": lambda: make_date(chance),
        "If-Unmodified-Since": lambda: make_date(chance),
        "If-Range": lambda: chance.choice([etag, etag, make_tags(chance, etag), make_date(chance)]),
        "Range": lambda: make_range(chance),
        "Accept-Encoding": lambda: mutate(chance, ", ".join(chance.choices(CODINGS, k=chance.randrange(4)))),
        "Accept": lambda: mutate(chance, ", ".join(chance.choices(ACCEPTS, k=chance.randrange(4)))),
        "X-Other": lambda: "x",
    }
    names = chance.choices(list(makers), k=chance.choice([0, 1, 1, 2, 3, 5]))
    return [(name, makers[name]()) for name in names]


def make_root(folder: Path) -> Path:
    """Make a root with secrets beside and hidden in it, and links in both directions."""
    (folder / "secret").write_bytes(SECRET)
    (folder / "etc").mkdir()
    (folder / "etc" / "passwd").write_bytes(SECRET)
    root = folder / "root"
    for name in ("sub/.git", "a/.hidden", ".git", ".well-known", "evil.example", "a b"):
        (root / name).mkdir(parents=True)
    for name in (".git/config", "sub/.git/config", "a/.hidden/secret", ".hidden", "a\n"):
        (root / name).write_bytes(SECRET)
    for name in ("page.html", "index.html", "sub/index.html", "sub/deep.txt", ".well-known/a", "%2e%2e", "grün", "a:b"):
        (root / name).write_bytes(b"public")
    (root / "data.bin").write_bytes(DATA)
    (root / "page.html.gz").write_bytes(b"zipped")
    os.utime(root / "data.bin", (MODIFIED, MODIFIED))
    (root / "out").symlink_to(folder / "secret")
    (root / "outdir").symlink_to("..")
    (root / "within").symlink_to("page.html")
    (root / "dirwithin").symlink_to(root / "sub")
    (root / "loop").symlink_to("loop")
    if hasattr(os, "mkfifo"):
        os.mkfifo(root / "fifo")
    return root


# -- the laws --------------------------------------------------------------------------------------------------------


def law_path(root: Path, target: str) -> str:
    """Serve a path with every kind of folder; return what the strictest said."""
    said = ""
    before = open_descriptors()
    for options in ({}, {"listing": True}, {"follow_symlinks": True, "listing": True}, {"prefix": "/static"}):
        reply = StaticFolder(root, **options).reply_to(message(target))  # type: ignore[arg-type]
        body = body_of(reply)
        assert SECRET not in body, (target, options)
        assert reply.status in (200, 301, 400, 404), (target, options, reply.status)
        if reply.status == 301:
            location = fields_of(reply)["location"]
            assert re.fullmatch(r"/([\x21-\x5b\x5d-\x7e]*/)?(\?.*)?", location), location
            assert not location.startswith("//"), location
        said = said or f"path {reply.status}"
    assert open_descriptors() == before, target
    return said


def law_range(value: str, size: int) -> str:
    """Compare with a reading that goes through RFC 9110 section 14.1 word by word."""
    ranges = parse_range(value, size)
    expected = read_range_slowly(value, size)
    if expected is None:
        assert ranges is None, (value, size, ranges)
        return "range ignored"
    assert ranges is not None, (value, size, expected)
    assert len(ranges) <= MAX_RANGES
    sent = [position for offset, length in ranges for position in range(offset, offset + length)]
    assert len(sent) == len(set(sent)), (value, size, ranges)  # never a byte twice
    assert set(sent) == set().union(*expected), (value, size, ranges)
    assert all(length > 0 for _, length in ranges)
    if sum(map(len, expected)) == len(sent):  # none overlap: as asked for
        assert ranges == [(part.start, len(part)) for part in expected]
    return "range satisfiable" if ranges else "range not satisfiable"


def read_range_slowly(value: str, size: int) -> list[range] | None:
    unit, equals, listed = value.partition("=")
    specs = [spec.strip(" \t") for spec in listed.split(",")]
    specs = [spec for spec in specs if spec]
    if unit.lower() != "bytes" or not equals or not 0 < len(specs) <= MAX_RANGES or listed.count(",") > 60:
        return None
    out = []
    for spec in specs:
        first, dash, last = spec.partition("-")
        digits = set("0123456789")
        if not dash or not set(first) <= digits or not set(last) <= digits or not first + last:
            return None
        if first and last and int(last) < int(first):
            return None
        if first:
            out.append(range(min(int(first), size), min(int(last) + 1, size) if last else size))
        else:
            if size == 0 and int(last):
                return None
            out.append(range(size - min(int(last), size), size))
    return [part for part in out if part]


def law_tags(value: str) -> str:
    """Compare with a reading character by character (RFC 9110 sections 5.6.1 and 8.8.3)."""
    tags = parse_entity_tags(value)
    assert tags == read_tags_slowly(value), value
    return "tags" if tags else "no tags"


def read_tags_slowly(value: str) -> list[str]:
    out: list[str] = []
    text = value
    while True:
        text = text.lstrip(" \t")
        weak = text.startswith('W/"')
        if weak or text.startswith('"'):
            end = text.find('"', 3 if weak else 1)
            tag = text[: end + 1]
            opaque = tag.removeprefix("W/")[1:-1]
            if end < 0 or any(ord(mark) <= 32 or ord(mark) == 127 for mark in opaque):
                return []
            out.append(tag)
            text = text[end + 1 :].lstrip(" \t")
        if not text:
            return out
        if text[0] != ",":
            return []
        text = text[1:]


def law_date(value: str) -> str:
    """What is a date to us is the same one to email.utils."""
    seconds = parse_http_date(value)
    if seconds is None:
        return "no date"
    parsed = email.utils.parsedate_tz(value)
    assert parsed is not None, value
    theirs = list(parsed[:6])
    if re.search(r"-[0-9]{2} ", value):  # theirs has a fixed turn of the century
        theirs[0] = time.gmtime(seconds).tm_year
        assert theirs[0] % 100 == parsed[0] % 100 and theirs[0] <= time.gmtime().tm_year + 50
    if theirs[5] == 60:
        theirs[5], seconds = 59, seconds - 1
    if time.gmtime(seconds).tm_year >= 1000:  # theirs takes the years before for abbreviated ones
        assert list(time.gmtime(seconds)[:6]) == theirs, value
    return "date"


def law_reply(root: Path, method: str, target: str, fields: list[tuple[str, str]]) -> str:
    """There is always a reply, and it is what it says it is."""
    before = open_descriptors()
    folder = StaticFolder(root, listing=True, cache_control="no-cache")
    reply = folder.reply_to(message(target, method, *fields))
    body = body_of(reply)
    # What the request would get without its conditions and ranges.
    whole = body_of(folder.reply_to(message(target, "GET", *[pair for pair in fields if "Accept" in pair[0]])))
    assert open_descriptors() == before
    told = fields_of(reply)
    assert reply.status in (200, 204, 206, 304, 405, 412, 416)
    assert all(re.fullmatch(r"[\x20-\x7e]*", value) for value in told.values()), told
    if reply.status == 206:
        assert method == "GET"
        assert body == (whole[span_of(told["content-range"])] if "content-range" in told else multipart(body, whole))
    elif reply.status == 200:
        assert body == whole
    elif reply.status == 304:
        assert body == b"" and "etag" in told and method in ("GET", "HEAD")
    elif reply.status == 416:
        assert told["content-range"] == f"bytes */{len(whole)}"
    return f"reply {reply.status}"


def span_of(content_range: str) -> slice:
    first, last, _ = (int(number) for number in re.findall(r"\d+", content_range))
    return slice(first, last + 1)


def multipart(body: bytes, whole: bytes) -> bytes:
    """Make a multipart body up anew out of its heads."""
    boundary = body.partition(b"\r\n")[0]
    heads = re.findall(rb"%s\r\n(Content-Type: [^\r]*\r\nContent-Range: ([^\r]*)\r\n\r\n)" % boundary, body)
    assert len(heads) > 1
    parts = [boundary + b"\r\n" + head + whole[span_of(value.decode())] + b"\r\n" for head, value in heads]
    return b"".join(parts) + boundary + b"--\r\n"


METHODS = ["GET"] * 12 + ["HEAD", "HEAD", "POST", "OPTIONS"]
TARGETS = ["/data.bin"] * 6 + ["/page.html", "/", "/evil.example/"]


def main(arguments: list[str] | None = None) -> collections.Counter[str]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    seen: collections.Counter[str] = collections.Counter()
    deadline = time.monotonic() + options.seconds
    number = 0
    with tempfile.TemporaryDirectory() as folder:
        root = make_root(Path(folder))
        probe = StaticFolder(root).reply_to(message("/data.bin"))
        probe.close()
        etag = fields_of(probe)["etag"]
        while time.monotonic() < deadline:
            chance = random.Random(f"{options.seed}-{number}")
            path, value, size = make_path(chance), make_range(chance), chance.choice([0, 1, 2, 100, 1024])
            tags, date, fields = make_tags(chance), make_date(chance), make_fields(chance, etag)
            method, target = chance.choice(METHODS), chance.choice(TARGETS)
            try:
                seen[law_path(root, path)] += 1
                seen[law_range(value, size)] += 1
                seen[law_tags(tags)] += 1
                seen[law_date(date)] += 1
                seen[law_reply(root, method, target, fields)] += 1
            except Exception as exc:
                exc.add_note(f"seed {options.seed}, input {number}: {path!r} {value!r} {size} {tags!r} {date!r}")
                exc.add_note(f"{method} {target} {fields!r}")
                raise
            number += 1
    seen["inputs"] = number
    return seen


if __name__ == "__main__":
    for what, count in main().most_common():
        print(f"{count:8} {what}")
