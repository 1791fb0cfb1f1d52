"""Random URLs, JSON documents and patterns against the laws of the utilities; needs nothing but the package.

    python tests/fuzz/fuzz_utilities.py --seconds 10 --seed 1

The laws, each a function ``law_*`` that raises AssertionError:

* the url_ functions take any text apart, and where Url.parse() accepts it they say the same as it;
* Url.parse() raises nothing but InvalidUrl, and what it returns can be parsed again;
* url_encode() can be undone;
* http_var() finds what a split at ``&`` and ``=`` finds;
* every value of a JSON document is found by its path, and is what json says it is; in any other text only values are
  found that json can read, and nothing is raised;
* match() finds what a regular expression with backtracking finds, whichever of its algorithms does it;
* base64_decode() raises nothing, and returns what base64_encode() was given.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import re
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[2]))

from asyncmg.errors import InvalidUrl
from asyncmg.hashing import base64_decode, base64_encode
from asyncmg.json_path import json_get, json_get_bool, json_get_long, json_get_num, json_get_str
from asyncmg.matching import Glob, match
from asyncmg.queries import http_var
from asyncmg.url_parts import url_encode, url_host, url_is_ssl, url_pass, url_port, url_uri, url_user
from asyncmg.urls import Url


def law_urls(url: str) -> str:
    parts = [url_host(url), url_user(url), url_pass(url), url_uri(url)]
    assert all(isinstance(part, str) for part in parts)
    assert url_uri(url).startswith("/")
    assert type(url_port(url)) is int and 0 <= url_port(url) < 65536
    assert type(url_is_ssl(url)) is bool
    assert all(part in url for part in parts[:3])
    try:
        parsed = Url.parse(url, listening=True)
    except InvalidUrl:
        return "refused"
    if parsed.scheme == "unix":
        return "unix"
    if parts[0].isascii():  # others are told as in the DNS
        assert parts[0].strip("[]").replace("%25", "%") == parsed.host
    assert (url_port(url), url_is_ssl(url)) == (parsed.port, parsed.is_tls)
    assert (unquote(url_user(url)), unquote(url_pass(url))) == (parsed.user, parsed.password)
    if parts[3].isascii() and "#" not in parts[3]:
        assert parts[3] == parsed.target
    again = Url.parse(str(parsed), listening=True)
    assert (again.scheme, again.host.lower(), again.port, again.target) == (
        parsed.scheme,
        parsed.host.lower(),
        parsed.port,
        parsed.target,
    )
    return "accepted"


def law_encode(text: str) -> None:
    encoded = url_encode(text)
    assert unquote(encoded) == text
    assert re.fullmatch(r"(?:[A-Za-z0-9._~-]|%[0-9a-f]{2})*", encoded)


def law_http_var(buf: str, name: str) -> None:
    def same(one: str, other: str) -> bool:
        return one.encode("utf-8", "surrogateescape").lower() == other.encode("utf-8", "surrogateescape").lower()

    pieces = [piece.partition("=") for piece in buf.split("&") if piece]
    values = [value for key, _, value in pieces if same(key, name)]
    assert http_var(buf, name) == (values[0] if values else None)


def paths_of(value: Any, path: str = "$") -> list[tuple[str, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    steps = [(f".{key}" if isinstance(value, dict) else f"[{key}]", item) for key, item in inner]
    return [(path, value)] + [found for step, item in steps for found in paths_of(item, path + step)]


def law_json_found(value: Any, text: str) -> None:
    for path, expected in paths_of(value):
        token = json_get(text, path)
        assert token is not None and token in text and json.loads(token) == expected, path
        is_number = isinstance(expected, int | float) and not isinstance(expected, bool)
        assert json_get_num(text, path) == (float(expected) if is_number else None)
        assert json_get_bool(text, path) is (expected if isinstance(expected, bool) else None)
        assert json_get_str(text, path) == (expected if isinstance(expected, str) else None)
        assert json_get_long(text, path, -5) == (int(expected) if is_number and abs(expected) < 2**63 else -5)


def law_json_any(text: str, path: str) -> bool:
    token = json_get(text, path)
    if token is None:
        return False
    json.loads(token, parse_constant=lambda name: 1 / 0)
    assert token in text
    for function in (json_get_num, json_get_bool, json_get_long, json_get_str):
        function(text, path)
    try:
        whole = json.loads(text)
    except ValueError:
        return True  # what is behind the value
    assert path != "$" or json.loads(token) == whole
    return True


def law_match(text: str, pattern: str) -> bool:
    expression = "".join({"?": "(.)", "*": "([^/]*?)", "#": "(.*?)"}.get(sign, re.escape(sign)) for sign in pattern)
    found = re.fullmatch(expression, text, re.DOTALL)
    expected = list(found.groups()) if found else None
    assert match(text, pattern) == (found is not None, expected or [])
    glob = Glob.parse(pattern)
    if text.startswith(glob._prefix):
        assert glob._captures_at_once(text) == expected
    return found is not None


def law_base64(data: bytes, text: str) -> None:
    assert base64_decode(base64_encode(data)) == data
    decoded = base64_decode(text)
    if decoded:
        assert len(decoded) == len(text) // 4 * 3 - text.count("=")


# -- inputs -----------------------------------------------------------------------------------------------------------

SCHEMES = ["http", "https", "HTTP", "ws", "wss", "mqtt", "mqtts", "tcp", "udp", "unix", "tls", "x"]
HOSTS = ["h", "a.b", "[::1]", "[fe80::1%25e]", "[", "]", "\xe4.de", "xn--4ca", "127.0.0.1", "", "%41", "a b"]
TAILS = ["", "/", "/p?q#f", "?q", "#f", "/a b", "/\xe4", "//", "/%zz", "\n", "/@x:5"]
JSON_PIECES = ["{", "}", "[", "]", ",", ":", '"a"', '"b"', "1", "01", "-1.5e3", "true", "null", "NaN", " ", '"', "\\"]
PATHS = ["$", "$.a", "$[0]", "$.a[0]", "$[1].a", "$.", "$.a.b", "", "$[", "$..", "$[9999999999]", "a", "$.a]"]


def make_url(chance: random.Random) -> str:
    user = chance.choice(["", "", "u@", "u:p@", "u:p:q@", "@", "u%40:p@", "a@b@"])
    port = chance.choice(["", ":1", ":80", ":", ":65535", ":65536", ":x", ":1:2", ":\u0661"])
    mark = chance.choice(["://", "://", "://", "://", ":", "//", ""])
    url = chance.choice(SCHEMES) + mark + user + chance.choice(HOSTS) + port + chance.choice(TAILS)
    return mutate(chance, url, ":/@?#[] %\0a") if chance.random() < 0.3 else url


def mutate(chance: random.Random, text: str, alphabet: str) -> str:
    for _ in range(chance.choice([1, 1, 2])):
        at = chance.randrange(len(text) + 1)
        text = text[:at] + chance.choice(["", chance.choice(alphabet)]) + text[at + chance.randrange(2) :]
    return text


def make_value(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.randrange(5 if depth > 5 else 8)
    if kind == 0:
        return chance.choice([None, True, False])
    if kind == 1:
        return chance.choice([0, -7, 2**53 + 1, 2**63 - 1, 2**63, 10**30, 0.5, -1e300, 1e-7])
    if kind < 5:
        return "".join(chance.choices('ab[]{}:,"\\ \n\x01\xe4\u20ac\U0001f600', k=chance.randrange(6)))
    if kind < 7:
        return [make_value(chance, depth + 1) for _ in range(chance.randrange(5))]
    return {
        chance.choice(["a", "b", "c d", "\xe4", 'q"', "\\", "\n", ""]): make_value(chance, depth + 1) for _ in "xyz"
    }


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
        url = make_url(chance)
        value = make_value(chance)
        document = json.dumps(value, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 1]))
        broken = mutate(chance, document, '{}[],:"1 \\')
        pieces = "".join(chance.choices(JSON_PIECES, k=chance.randrange(12)))
        path = chance.choice(PATHS)
        text = "".join(chance.choices("aab/", k=chance.randrange(16)))
        pattern = "".join(chance.choices("?*#aab/", k=chance.randrange(10)))
        try:
            seen[f"url: {law_urls(url)}"] += 1
            law_encode("".join(chr(chance.choice([chance.randrange(128), chance.randrange(0xD800)])) for _ in range(5)))
            law_http_var(
                "".join(chance.choices("aAb=&&%\xe4\0", k=chance.randrange(12))), chance.choice(["a", "b", ""])
            )
            law_json_found(value, document)
            seen["found in broken JSON"] += law_json_any(broken, chance.choice([path for path, _ in paths_of(value)]))
            seen["found in pieces"] += law_json_any(pieces, path)
            seen["matched"] += law_match(text, pattern)
            law_base64(chance.randbytes(chance.randrange(9)), "".join(chance.choices("QUJD+/= \n\xe4", k=8)))
        except Exception as exc:
            exc.add_note(
                f"seed {options.seed}, input {number}: {url!r}, {document!r}, {broken!r}, {pieces!r} at {path!r}, "
                f"{text!r} with {pattern!r}"
            )
            raise
        number += 1
    seen["inputs"] = number
    return seen


if __name__ == "__main__":
    for what, count in main().most_common():
        print(f"{count:8} {what}")
