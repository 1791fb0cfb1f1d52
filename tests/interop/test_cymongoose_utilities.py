"""The utilities beside those of cymongoose 0.2.5, over generated inputs: the same, but for what the docs list.

cymongoose runs in a process of its own that is fed lines of JSON: wrong arguments may crash it.
"""

from __future__ import annotations

import importlib.util
import json
import math
import random
import re
import string
import subprocess
import sys
from typing import Any

import pytest

from asyncmg import hashing, json_path, logs, matching, mqtt_message, queries, url_parts
from asyncmg.forms.multipart import http_parse_multipart

from .peers import missing

COUNT = 3000  # inputs of each kind

PEER = """
import json, sys
import cymongoose

def packed(value):
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, dict):
        return {"dict": {name: packed(item) for name, item in value.items()}}
    if isinstance(value, float):
        return {"float": value.hex()}
    return [packed(item) for item in value] if isinstance(value, (list, tuple)) else value

for line in sys.stdin:
    name, *arguments = json.loads(line)
    if name == "constant":
        print(json.dumps(getattr(cymongoose, arguments[0])))
        continue
    arguments = [bytes.fromhex(item["bytes"]) if isinstance(item, dict) else item for item in arguments]
    print(json.dumps(packed(getattr(cymongoose, name)(*arguments))))
"""

Call = tuple[Any, ...]


def packed(value: Any) -> Any:
    return {"bytes": value.hex()} if isinstance(value, bytes) else value


def unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [unpacked(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "bytes" in value:
        return bytes.fromhex(value["bytes"])
    if "float" in value:
        return float.fromhex(value["float"])
    return {name: unpacked(item) for name, item in value["dict"].items()}


def ask_cymongoose(calls: list[Call]) -> list[Any]:
    """Return what cymongoose returns for calls: the name of a function and its arguments."""
    if importlib.util.find_spec("cymongoose") is None:
        missing("not installed: cymongoose")
    lines = "".join(json.dumps([name, *map(packed, arguments)]) + "\n" for name, *arguments in calls)
    result = subprocess.run([sys.executable, "-c", PEER], input=lines, capture_output=True, text=True, timeout=50)
    assert result.returncode == 0, result.stderr
    results = [unpacked(json.loads(line)) for line in result.stdout.splitlines()]
    assert len(results) == len(calls)
    return results


def compare(module: Any, calls: list[Call]) -> None:
    """All results are the same, and of the same type."""
    for (name, *arguments), theirs in zip(calls, ask_cymongoose(calls), strict=True):
        ours = getattr(module, name)(*arguments)
        assert (type(ours), ours) == (type(theirs), theirs), (name, arguments)


def random_data(chance: random.Random) -> bytes | str:
    size = chance.choice([0, 1, 2, 3, 55, 56, 63, 64, 65, chance.randrange(300)])
    if chance.random() < 0.5:
        return chance.randbytes(size)
    return "".join(chance.choices("aZ0\n\xe4\u20ac\U0001f600", k=size))


def test_constants() -> None:
    names = [name for name in dir(logs) if name.startswith("MG_LL_")]
    names += [name for name in dir(mqtt_message) if name.startswith("MQTT_PROP_TYPE_")]
    assert len(names) == 12
    theirs = ask_cymongoose([("constant", name) for name in names])
    assert theirs == [getattr(logs, name, None) or getattr(mqtt_message, name, 0) for name in names]


def test_digests() -> None:
    chance = random.Random(1)
    calls: list[Call] = []
    for _ in range(COUNT):
        data = random_data(chance)
        calls += [(name, data) for name in ("md5", "sha1", "sha256", "crc32", "base64_encode")]
        calls.append(("crc32", data, chance.getrandbits(32)))
        key = random_data(chance)
        if len(key if isinstance(key, bytes) else key.encode()) != 64:  # which it hashes: RFC 2104 section 2 does not
            calls.append(("hmac_sha256", key, data))
    compare(hashing, calls)


def test_base64() -> None:
    chance = random.Random(2)
    calls = [("base64_decode", hashing.base64_encode(random_data(chance))) for _ in range(COUNT)]
    compare(hashing, [call for call in calls if call[1]])
    nonsense: list[Call] = [
        ("base64_decode", "".join(chance.choices("QUJDAAAA+/=- \n", k=chance.randrange(13)))) for _ in range(COUNT)
    ]
    for call, theirs in zip(nonsense, ask_cymongoose(nonsense), strict=True):
        assert hashing.base64_decode(call[1]) in (theirs, b""), call  # part of it is as good as nothing


def test_random_data() -> None:
    sizes = [0, 1, 2, 10, 1000]
    for name in ("random_bytes", "random_str"):
        for size, theirs in zip(sizes, ask_cymongoose([(name, size) for size in sizes]), strict=True):
            ours = getattr(hashing, name)(size)
            assert type(ours) is type(theirs) and len(ours) == len(theirs) == size
            if name == "random_str":
                assert set(theirs) | set(ours) <= set(string.ascii_letters + string.digits)
    [theirs] = ask_cymongoose([("millis",)])
    assert type(theirs) is int and theirs > 0


def test_log_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_level", logs._level)
    calls: list[Call] = [("log_get",)]
    for level in (3, 0, -1, 100, 2**31 - 1, 2):
        calls += [("log_set", level), ("log_get",)]
    before = logs._logger.level
    try:
        compare(logs, calls)
    finally:
        logs._logger.setLevel(before)


def random_url(chance: random.Random) -> str:
    scheme = chance.choice(["http", "https", "ws", "wss", "mqtt", "mqtts", "tcp", "udp", "tls", "ssl", "x+y", "httpss"])
    user = chance.choice(["", "", "u@", "u:p@", "u:p:q@", ":p@", "u:@", "u%40:p%3a@"])
    host = chance.choice(["h", "example.com", "10.0.0.1", "[::1]", "[fe80::1%25eth0]", "\xe4", ""])
    port = chance.choice(["", "", ":0", ":1", ":080", ":8000", ":65535"])
    path = "".join(chance.choices("abc/?#:@=&%20", k=chance.randrange(8)))
    return f"{scheme}://{user}{host}{port}" + (f"/{path}" if chance.random() < 0.7 else "")


def test_urls() -> None:
    chance = random.Random(3)
    names = ("url_port", "url_host", "url_user", "url_pass", "url_uri", "url_is_ssl")
    compare(url_parts, [(name, url) for url in [random_url(chance) for _ in range(COUNT)] for name in names])
    texts = [
        "".join(chr(chance.choice([chance.randrange(128), chance.randrange(0xD800)])) for _ in range(9))
        for _ in "a" * COUNT
    ]
    compare(url_parts, [("url_encode", text) for text in texts])


def test_http_var() -> None:
    chance = random.Random(4)
    calls: list[Call] = []
    for _ in range(COUNT * 2):
        buf: str | bytes = "".join(chance.choices("aAbB=&&%+\xe4\0;", k=chance.randrange(12)))
        if isinstance(buf, str) and chance.random() < 0.5:
            buf = buf.encode() + chance.choice([b"", b"\xff"])
        calls.append(("http_var", buf, chance.choice(["a", "B", "ab", "", "\xe4", "\xc4", "%", "a+"])))
    compare(queries, calls)


def random_pattern(chance: random.Random, signs: str) -> str:
    """Wildcards of one kind, none beside another, at most ten: what Mongoose is sure about."""
    literals = ["".join(chance.choices("ab/", k=chance.choice([1, 1, 2]))) for _ in range(chance.randrange(11))]
    pattern = signs.join(literals)
    return chance.choice(["", signs]) + pattern if pattern else chance.choice(["", signs])


def test_match() -> None:
    chance = random.Random(5)
    calls: list[Call] = []
    for _ in range(COUNT * 2):
        pattern = random_pattern(chance, chance.choice("?*#"))
        text = "".join(chance.choice(["a", "b", "/", "ab", ""]) if sign in "?*#" else sign for sign in pattern)
        if chance.random() < 0.3:
            text = "".join(chance.choices("ab/", k=chance.randrange(8)))
        calls.append(("match", text, pattern))
    matched = crossed = 0
    for (_, text, pattern), theirs in zip(calls, ask_cymongoose(calls), strict=True):
        ours = matching.match(text, pattern)
        if "*" in pattern and any("/" in capture for capture in theirs[1]):
            crossed += 1  # what "*" stands for has no slash
            assert ours == (False, [])
        else:
            assert ours == tuple(theirs), (text, pattern)
            matched += ours[0]
    assert matched > COUNT / 2 and crossed < COUNT / 10


def random_value(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.randrange(6 if depth > 4 else 10)
    if kind == 0:
        return chance.choice([None, True, False])
    if kind in (1, 2):
        return chance.choice([0, -1, chance.randrange(-(2**53), 2**53)])
    if kind == 3:
        return chance.choice([0.0, -0.5, 1e300, 1.5e-7, chance.uniform(-1000, 1000)])
    if kind in (4, 5):
        return "".join(chance.choices('abc[]{}:," \n\t\\\xe4\u20ac', k=chance.randrange(6)))
    if kind < 8:
        return [random_value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {chance.choice(["a", "b", "c d", "\xe4", "e1"]): random_value(chance, depth + 1) for _ in range(3)}


def paths_of(value: Any, path: str = "$") -> list[str]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    steps = [(f".{key}" if isinstance(value, dict) else f"[{key}]", item) for key, item in inner]
    return [path] + [found for step, item in steps for found in paths_of(item, path + step)]


def test_json() -> None:
    chance = random.Random(6)
    calls: list[Call] = []
    for _ in range(COUNT // 3):
        value = random_value(chance)
        text = json.dumps(value, ensure_ascii=False, indent=chance.choice([None, None, 1]))
        paths = paths_of(value)
        for path in [
            *chance.sample(paths, min(len(paths), 5)),
            chance.choice(paths) + chance.choice([".x", "[7]", "x"]),
        ]:
            data = text.encode() if chance.random() < 0.3 else text
            calls += [(f"json_get{kind}", data, path) for kind in ("", "_num", "_bool", "_long", "_str")]
    found = 0
    for (name, *arguments), theirs in zip(calls, ask_cymongoose(calls), strict=True):
        ours = getattr(json_path, name)(*arguments)
        assert type(ours) is type(theirs), (name, arguments)
        found += ours is not None
        if isinstance(ours, float):
            assert math.isclose(ours, theirs, rel_tol=1e-14), arguments  # it computes a little beside
        elif name == "json_get_long" and abs(ours) > 2**62:
            assert theirs == -(2**63) or math.isclose(ours, theirs, rel_tol=1e-14), arguments
        elif name == "json_get_long" and ours != theirs:
            assert float(json_path.json_get_num(*arguments) or 0) > 2**63 or abs(ours) > 2**53, arguments
        else:
            assert ours == theirs, (name, arguments)
    assert found > COUNT


def test_json_that_is_none() -> None:
    """What is found in it is the same, or nothing."""
    chance = random.Random(7)
    calls: list[Call] = []
    for _ in range(COUNT * 2):
        pieces = ["{", "}", "[", "]", ",", ":", '"a"', '"b"', "1", "01", "true", "nul", " ", '"', "-", "1."]
        text = "".join(chance.choices(pieces, k=chance.randrange(12)))
        path = chance.choice(["$", "$.a", "$[0]", "$[1]", "$.a[0]", "$.a.b", "$[0].a"])
        if chance.random() < 0.7:
            value = random_value(chance)
            text, path = json.dumps(value), chance.choice(paths_of(value))
            at = chance.randrange(len(text) + 1)
            text = text[:at] + chance.choice(pieces) + text[at + chance.randrange(3) :]
        if "\\" not in text and not re.search("[0-9]e[0-9+-]", text):  # it reads exponents of four digits at most
            calls.append(("json_get", text, path))
    found = 0
    for (name, *arguments), theirs in zip(calls, ask_cymongoose(calls), strict=True):
        ours = getattr(json_path, name)(*arguments)
        assert ours in (None, theirs), arguments
        found += ours is not None
    assert found > COUNT / 10


def test_multipart() -> None:
    chance = random.Random(8)
    for _ in range(30):
        out = []
        for number in range(chance.randrange(1, 5)):
            name = chance.choice(["a", "\xe4", "a b"])
            line = f'Content-Disposition: form-data; name="{name}{number}"'
            line += chance.choice(["", '; filename="x.txt"'])
            head = f"--b0\r\n{line}\r\n" + chance.choice(["", "Content-Type: text/plain\r\n"])
            out += [
                head.encode(),
                b"\r\n",
                chance.choice([b"", b"1", b"\r\nx\r\n", b"--b", bytes(range(256))]),
                b"\r\n",
            ]
        body = b"".join(out) + b"--b0--\r\n"
        offset, part = http_parse_multipart(body)
        calls: list[Call] = [("http_parse_multipart", body, 0)]
        results: list[Any] = [[offset, part]]
        while part is not None:
            calls.append(("http_parse_multipart", body, offset))
            offset, part = http_parse_multipart(body, offset)
            results.append([offset, part])
        assert ask_cymongoose(calls) == results
