"""What Python knows of the C core's API against amg.h, and what becomes of a program when the core cannot be loaded."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from struct import Struct, calcsize
from typing import Any

import pytest

import asyncmg.core
from asyncmg.codecs import dns, dns_native, http_native, mqtt_native, sntp, sntp_native, ws_native
from asyncmg.core import ABI, UTF8_ACCEPT, UTF8_REJECT, CoreUnavailable, records

SOURCES = Path(asyncmg.core.__file__).parent
HEADER = (SOURCES / "amg.h").read_text(encoding="utf-8")
CODE = re.sub(r"/\*.*?\*/", " ", HEADER, flags=re.DOTALL)  # without comments


def defines() -> dict[str, int]:
    """The numeric constants of the header."""
    found = re.findall(r"^#define (AMG_\w+) (0x[0-9a-fA-F]+|\d+)u?\s*$", CODE, re.MULTILINE)
    return {name: int(value, 0) for name, value in found}


def error_codes(prefix: str = "AMG_E_") -> list[str]:
    """The enum of AMG_E_, AMG_WS_E_, AMG_MQTT_E_, AMG_DNS_E_ or AMG_SNTP_E_, in order."""
    body = re.search(rf"enum \{{\s*({prefix}.*?)\}};", CODE, re.DOTALL)
    assert body is not None
    items = [item.strip() for item in body[1].split(",") if item.strip()]
    assert items[0].endswith("= 1")
    return [items[0].partition(" ")[0], *items[1:]]


def structs() -> dict[str, list[tuple[str, str, int]]]:
    """The structs of the header that it shows: members as (type, name, how many)."""
    found: dict[str, list[tuple[str, str, int]]] = {}
    for name, body in re.findall(r"typedef struct (amg_\w+) \{(.*?)\} \1;", CODE, re.DOTALL):
        members = []
        for declaration in body.split(";"):
            if declaration.strip():
                kind, _, names = declaration.strip().partition(" ")
                for item in names.split(","):
                    matched = re.fullmatch(r"\s*(\w+)(?:\[(\d+)\])?\s*", item)
                    assert matched is not None, item
                    members.append((kind, matched[1], int(matched[2] or 1)))
        found[name] = members
    return found


FORMATS = {
    "uint8_t": "B",
    "uint16_t": "H",
    "uint32_t": "I",
    "uint64_t": "Q",
    "int8_t": "b",
    "int32_t": "i",
    "amg_http1_limits": "32s",
}


def test_every_constant_is_the_header_s() -> None:
    header = {**defines(), "AMG_UTF8_ACCEPT": 0, "AMG_UTF8_REJECT": 1}
    ours = {name: value for name, value in vars(records).items() if name.startswith("AMG_")}
    assert {name: header.get(name) for name in ours} == ours
    assert len(ours) > 40
    assert header["AMG_ABI"] == ABI
    if "AMG_UTF8_ACCEPT" in defines():
        assert (defines()["AMG_UTF8_ACCEPT"], defines()["AMG_UTF8_REJECT"]) == (UTF8_ACCEPT, UTF8_REJECT)


def test_no_constant_is_forgotten() -> None:
    unused_by_python = {"AMG_ABI", "AMG_UTF8_ACCEPT", "AMG_UTF8_REJECT", "AMG_REUSEPORT"}
    assert set(defines()) - set(vars(records)) <= unused_by_python


def test_error_codes_are_in_the_header_s_order() -> None:
    assert list(http_native.ERRORS) == error_codes()
    assert len(http_native._ERRORS) == len(error_codes()) + 1
    assert list(ws_native.ERRORS) == error_codes("AMG_WS_E_")
    assert len(ws_native._ERRORS) == len(error_codes("AMG_WS_E_")) + 1
    assert list(mqtt_native.ERRORS) == error_codes("AMG_MQTT_E_")
    assert len(mqtt_native._ERRORS) == len(error_codes("AMG_MQTT_E_")) + 1
    assert list(dns_native.ERRORS) == error_codes("AMG_DNS_E_")
    assert len(dns_native._ERRORS) == len(error_codes("AMG_DNS_E_")) + 1
    assert list(sntp_native.ERRORS) == error_codes("AMG_SNTP_E_")
    assert len(sntp_native._ERRORS) == len(error_codes("AMG_SNTP_E_")) + 1


@pytest.mark.parametrize(("contract", "native"), [(dns, dns_native), (sntp, sntp_native)], ids=["dns", "sntp"])
def test_faults_are_in_the_order_of_the_contract(contract: Any, native: Any) -> None:
    faults = [value for value in vars(contract).values() if isinstance(value, tuple) and "RFC " in str(value[-1])]
    assert list(native.ERRORS.values()) == faults


def test_limits_of_the_codecs_are_the_header_s() -> None:
    assert records.AMG_DNS_MAX_RECORDS == dns.MAX_RECORDS
    assert records.AMG_SNTP_SIZE == sntp.PACKET_SIZE
    assert records.AMG_SNTP_MAX_SIZE == sntp.MAX_SIZE
    assert records.AMG_SNTP_VERSION == sntp.VERSION


def test_every_struct_of_the_header_is_known() -> None:
    assert list(records.STRUCTS) == list(structs())


def flat(members: list[tuple[str, str, int]]) -> str:
    return "".join((FORMATS[kind] if count == 1 else f"{count}{FORMATS[kind]}") for kind, _, count in members)


def expanded(layout: str) -> str:
    """A format without counts."""
    return re.sub(r"(\d+)([A-Zabd-rt-z])", lambda match: match[2] * int(match[1]), layout.lstrip("="))


@pytest.mark.parametrize("name", records.STRUCTS)
def test_formats_follow_the_members(name: str) -> None:
    layout: Struct = records.STRUCTS[name]
    assert expanded(layout.format) == expanded(flat(structs()[name]))


def test_layouts_are_the_compiler_s(compiler: Any, tmp_path: Path) -> None:
    lines = []
    for name, members in structs().items():
        lines.append(f'printf("{name} %zu", sizeof({name}));')
        lines += [f'printf(" %zu", offsetof({name}, {member}));' for _, member, _ in members]
        lines.append('printf("\\n");')
    lines += [f'printf("{name} %llu\\n", (unsigned long long){name});' for name in defines()]
    prefixes = ("AMG_E_", "AMG_WS_E_", "AMG_MQTT_E_", "AMG_DNS_E_", "AMG_SNTP_E_")
    errors = [name for prefix in prefixes for name in error_codes(prefix)]
    lines += [f'printf("{name} %llu\\n", (unsigned long long){name});' for name in errors]
    source = tmp_path / "layout.c"
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n#include <amg.h>\nint main(void) {\n"
        + "\n".join(lines)
        + "\nreturn 0; }\n"
    )
    program = tmp_path / "layout"
    compiler.build([f"-I{SOURCES}", str(source)], program)
    output = subprocess.run([program], capture_output=True, text=True, timeout=30, check=True).stdout
    told = {name: [int(number) for number in numbers] for name, *numbers in map(str.split, output.splitlines())}
    for name, members in structs().items():
        size, *offsets = told[name]
        layout = records.STRUCTS[name]
        assert layout.size == size, name
        # Without padding: each member begins where the format's prefix ends.
        expected = ["=" + flat(members[:i]) for i in range(len(members))]
        assert offsets == [calcsize(prefix) for prefix in expected], name
    for name, value in vars(records).items():
        if name.startswith("AMG_"):
            assert told[name] == [value]
    for codec in (http_native, ws_native, mqtt_native, dns_native, sntp_native):
        assert [told[name][0] for name in codec.ERRORS] == list(range(1, len(codec.ERRORS) + 1))


# -- the loader --------------------------------------------------------------------------------------------------------


def functions() -> list[str]:
    return re.findall(r"^AMG_API [^;(]*?(amg_\w+)\(", CODE, re.MULTILINE)


def fake_source(abi: int, sizes: list[int], missing: str = "") -> str:
    """A library with all the names of the header, that claims these sizes."""
    own = {"amg_abi", "amg_sizeof"}
    table = ", ".join(map(str, sizes))
    return "\n".join(
        [
            f"unsigned amg_abi(void) {{ return {abi}u; }}",
            f"static const unsigned long sizes[] = {{{table}}};",
            f"unsigned long amg_sizeof(unsigned n) {{ return n < {len(sizes)} ? sizes[n] : 0; }}",
            *(f"void {name}(void) {{}}" for name in functions() if name not in own and name != missing),
        ]
    )


SIZES = [layout.size for layout in records.STRUCTS.values()]


def fake_library(compiler: Any, directory: Path, source: str) -> Path:
    code = directory / "fake.c"
    code.write_text(source + "\n")
    path = directory / asyncmg.core.LIBRARY_NAME
    compiler.build(["-shared", "-fPIC", str(code)], path)
    return path


def test_a_library_that_fits(compiler: Any, tmp_path: Path) -> None:
    core = asyncmg.core.Core(str(fake_library(compiler, tmp_path, fake_source(ABI, SIZES))))
    assert core.abi == ABI
    assert core.engine is not None


def test_another_abi_is_refused(compiler: Any, tmp_path: Path) -> None:
    path = fake_library(compiler, tmp_path, fake_source(ABI + 1, SIZES))
    with pytest.raises(CoreUnavailable, match=f"ABI {ABI + 1}, this asyncmg needs {ABI}") as caught:
        asyncmg.core.Core(str(path))
    assert caught.value.abi == ABI + 1


@pytest.mark.parametrize("number", range(len(SIZES)))
def test_another_size_of_a_struct_is_refused(compiler: Any, tmp_path: Path, number: int) -> None:
    sizes = [size + 8 * (i == number) for i, size in enumerate(SIZES)]
    path = fake_library(compiler, tmp_path, fake_source(ABI, sizes))
    with pytest.raises(CoreUnavailable, match=f"{list(records.STRUCTS)[number]} has {sizes[number]} bytes") as caught:
        asyncmg.core.Core(str(path))
    assert caught.value.abi == ABI


@pytest.mark.parametrize(
    "name",
    [
        "amg_mask",
        "amg_utf8",
        "amg_sizeof",
        "amg_http1_read",
        "amg_ws_read",
        "amg_mqtt_read",
        "amg_dns_read_call",
        "amg_sntp_check",
        "amg_engine_submit",
    ],
)
def test_a_missing_function_is_refused(compiler: Any, tmp_path: Path, name: str) -> None:
    source = fake_source(ABI, SIZES, missing=name)
    if name == "amg_sizeof":
        source = re.sub(r"unsigned long amg_sizeof.*", "", source)
    path = fake_library(compiler, tmp_path, source)
    with pytest.raises(CoreUnavailable, match="cannot load the library"):
        asyncmg.core.Core(str(path))


def test_a_library_without_an_engine(compiler: Any, tmp_path: Path) -> None:
    source = "\n".join(line for line in fake_source(ABI, SIZES).splitlines() if "amg_engine_" not in line)
    core = asyncmg.core.Core(str(fake_library(compiler, tmp_path, source)))
    assert core.engine is None


# -- programs where the core is not to be had --------------------------------------------------------------------------

SERVE = """
import asyncio, os, sys
if "no ctypes" in sys.argv:
    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name in ("ctypes", "_ctypes"):
                raise ImportError("blocked")
    sys.meta_path.insert(0, Blocker())
import asyncmg, asyncmg.core
if sys.argv[1]:
    asyncmg.core.__path__ = [sys.argv[1]]
from asyncmg import MG_EV_HTTP_MSG, Manager

def handler(conn, ev, data):
    if ev == MG_EV_HTTP_MSG:
        conn.reply(200, "served")

async def main():
    async with Manager(handler) as manager:
        listener = manager.listen("http://127.0.0.1:0")
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        print(answer.rpartition(b"\\r\\n")[2].decode(), manager.backend, manager._http_codec.__name__)

asyncio.run(main())
"""

INFO = """
import sys
if "no ctypes" in sys.argv:
    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name in ("ctypes", "_ctypes"):
                raise ImportError("blocked")
    sys.meta_path.insert(0, Blocker())
import asyncmg.core
if sys.argv[1]:
    asyncmg.core.__path__ = [sys.argv[1]]
import runpy
sys.argv = ["asyncmg", "info", *sys.argv[3:]]
runpy.run_module("asyncmg", run_name="__main__")
"""

SITUATIONS = ["no ctypes", "no library", "text file", "off", "normal"]


def arguments_of(situation: str, directory: Path) -> tuple[list[str], dict[str, str]]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ASYNCMG_")}
    if situation == "text file":
        (directory / asyncmg.core.LIBRARY_NAME).write_text("this is no library\n")
    if situation == "off":
        environment["ASYNCMG_CORE"] = "off"
    other = str(directory) if situation in ("no library", "text file") else ""
    return [other, "no ctypes" if situation == "no ctypes" else "ctypes"], environment


def run(script: str, situation: str, directory: Path, *more: str, **extra: str) -> subprocess.CompletedProcess[str]:
    arguments, environment = arguments_of(situation, directory)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments, *more],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**environment, **extra},
    )


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_request_is_served_all_the_same(situation: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    result = run(SERVE, situation, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    if situation == "normal":
        request.getfixturevalue("core")
        assert result.stdout == "served native NativeHttpCodec\n"
    else:
        assert result.stdout == "served asyncio PortableHttpCodec\n"


@pytest.mark.parametrize("situation", ["no ctypes", "no library", "text file"])
def test_require_makes_it_an_error(situation: str, tmp_path: Path) -> None:
    result = run(SERVE, situation, tmp_path, ASYNCMG_CORE="require")
    assert result.returncode == 1
    assert "CoreUnavailable: ASYNCMG_CORE=require" in result.stderr


def test_require_with_a_core(core: Any, tmp_path: Path) -> None:
    result = run(SERVE, "normal", tmp_path, ASYNCMG_CORE="require")
    assert result.stdout == "served native NativeHttpCodec\n", result.stderr


@pytest.mark.parametrize("situation", ["no ctypes", "no library", "text file", "off"])
def test_native_is_an_error_then(situation: str, tmp_path: Path) -> None:
    result = run(SERVE, situation, tmp_path, ASYNCMG_BACKEND="native")
    assert result.returncode == 1
    assert "CoreUnavailable: no native backend" in result.stderr


@pytest.mark.parametrize("situation", SITUATIONS)
def test_info_in_every_situation(situation: str, tmp_path: Path) -> None:
    result = run(INFO, situation, tmp_path)
    assert result.returncode == 0, result.stderr
    result = run(INFO, situation, tmp_path, "--json")
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    if situation != "normal":
        assert (facts["backend"]["name"], facts["codecs"]["http"]["name"]) == ("asyncio", "portable")
        assert facts["core"]["available"] is False


@pytest.mark.parametrize("variable", ["ASYNCMG_CORE", "ASYNCMG_BACKEND"])
def test_info_with_a_value_that_means_nothing(variable: str, tmp_path: Path) -> None:
    assert run(INFO, "normal", tmp_path, **{variable: "nonsense"}).returncode == 0


def test_info_under_require_without_a_core(tmp_path: Path) -> None:
    assert run(INFO, "no library", tmp_path, ASYNCMG_CORE="require").returncode == 0
