"""The fuzzer, for two seconds: it finds no broken law, and all outcomes are met. And nothing that it tries is slow."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from asyncmg.forms.multipart import http_parse_multipart
from asyncmg.hashing import base64_decode
from asyncmg.json_path import json_get, json_get_long, json_get_num, json_get_str
from asyncmg.queries import http_var
from asyncmg.url_parts import url_encode, url_host
from asyncmg.urls import Url
from tests.fuzz.fuzz_utilities import main


def test_two_seconds_of_random_input() -> None:
    seen = main(["--seconds", "2", "--seed", "7"])
    assert seen["inputs"] > 100
    for outcome in ("url: accepted", "url: refused", "found in broken JSON", "found in pieces", "matched"):
        assert seen[outcome] > seen["inputs"] / 100, f"never met: {outcome}"
    assert seen["url: unix"]


def cpu_seconds(call: Callable[[], object]) -> float:
    """The least of many tries: what else runs on the machine does not count."""
    best = 1.0
    for _ in range(20):
        begin = time.process_time()
        try:
            call()
        except ValueError:  # what Url.parse() raises is one
            pass
        best = min(best, time.process_time() - begin)
    return best


DOCUMENTS: dict[str, Callable[[int], str]] = {
    "brackets": lambda size: "[" * size,
    "objects": lambda size: '{"a":' * (size // 5),
    "nested at the limit": lambda size: ("[" * 127 + "1" + "]" * 127 + ",") * (size // 256),
    "an array": lambda size: "[" + "1," * (size // 2),
    "empty containers": lambda size: "[" + "{}," * (size // 3),
    "members": lambda size: "{" + '"a":1,' * (size // 6),
    "a string": lambda size: '["' + "a" * size,
    "escapes": lambda size: '["' + "\\n" * (size // 2),
    "backslashes": lambda size: '{"' + "\\" * size,
    "quotes": lambda size: '[{"a":1},' + '"' * size,
    "digits": lambda size: "[" + "9" * size + "]",
    "a fraction": lambda size: "[0." + "9" * size + "]",
    "white space": lambda size: "[" + " " * size,
    "white space everywhere": lambda size: "[" + "1 ," * (size // 3),
    "strings and brackets": lambda size: "[" + '"[",[],' * (size // 7),
}
CALLS: list[tuple[Callable[[str, str], object], str]] = [
    (json_get, "$"),
    (json_get, "$[4000]"),
    (json_get, "$.b"),
    (json_get_num, "$[0]"),
    (json_get_long, "$[0]"),
    (json_get_str, "$[0]"),
]


def on_document(name: str, function: Callable[[str, str], object], path: str) -> Callable[[int], Callable[[], object]]:
    def prepare(size: int) -> Callable[[], object]:
        text = DOCUMENTS[name](size)
        return lambda: function(text, path)

    return prepare


LONG: dict[str, Callable[[int], Callable[[], object]]] = {
    **{
        f"{call.__name__} {path} of {name}": on_document(name, call, path) for name in DOCUMENTS for call, path in CALLS
    },
    "json_get of a long path": lambda size: lambda: json_get('{"a":1}', "$" + ".a" * (size // 2)),
    "url_host of a long one": lambda size: lambda: url_host("http://" + "a:@[]" * (size // 5)),
    "url_encode": lambda size: lambda: url_encode("\x00" * size),
    "Url.parse of a host": lambda size: lambda: Url.parse("http://" + "a." * (size // 2) + "\0"),
    "Url.parse of users": lambda size: lambda: Url.parse("http://" + "a:" * (size // 2) + "@"),
    "Url.parse of others": lambda size: lambda: Url.parse("http://" + "\xe4" * size),
    "Url.parse of a target": lambda size: lambda: Url.parse("http://h/" + "?" * size + "\0"),
    "http_var": lambda size: lambda: http_var("&a=" * (size // 3), "b"),
    "base64_decode": lambda size: lambda: base64_decode("QUJD" * (size // 4) + "="),
    "http_parse_multipart": lambda size: lambda: http_parse_multipart("--b\r\n\r\n\r\n" + "\r\n--" * (size // 4)),
}


@pytest.mark.parametrize("what", LONG)
def test_nothing_takes_long(what: str) -> None:
    """10 KB: below 10 ms of CPU time, and twice as much takes no more than three times as long."""
    begin = time.process_time()
    sum(number * number for number in range(100_000))  # 10 ms on a slow machine, so is the bound
    slow = max(0.010, time.process_time() - begin)
    took = cpu_seconds(LONG[what](10_000))
    assert took < slow
    assert cpu_seconds(LONG[what](20_000)) < max(3 * took, 0.001)
