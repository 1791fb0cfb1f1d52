"""The tables of the documentation agree with the code, its links lead somewhere, and no public name is left out."""

from __future__ import annotations

import ast
import re
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

import asyncmg
from asyncmg import (
    BufferLimits,
    Deflate,
    DnsLimits,
    Event,
    FormLimits,
    HttpLimits,
    Limits,
    MqttLimits,
    NetLimits,
    RemoteProtocolError,
    Role,
    SntpLimits,
    WsLimits,
)
from asyncmg.codecs.http_portable import PortableHttpCodec
from asyncmg.codecs.ws import WsCodecFactory
from asyncmg.codecs.ws_native import NativeWsCodec
from asyncmg.codecs.ws_portable import PortableWsCodec
from asyncmg.core import load

from .pages import PAGES, ROOT, table

DOCS = ROOT / "docs"
CODE = re.compile(r"`([^`]+)`")
GROUPS = [NetLimits, BufferLimits, HttpLimits, FormLimits, WsLimits, MqttLimits, DnsLimits, SntpLimits]


def first_code(cell: str) -> str:
    match = CODE.search(cell)
    assert match, cell
    return match[1]


@pytest.mark.parametrize("group", GROUPS)
def test_limits_table(group: type) -> None:
    rows = table(DOCS / "limits.md", group.__name__)
    told = [(first_code(row[0]), ast.literal_eval(first_code(row[1]))) for row in rows]
    assert told == [(field.name, field.default) for field in fields(group)]
    assert all(field.default is not MISSING for field in fields(group))
    assert all(len(row) == 4 and row[2] and row[3] for row in rows), "each limit has a meaning and a consequence"


def test_no_group_of_limits_is_left_out() -> None:
    groups = {field.default_factory for field in fields(Limits)}
    assert groups == set(GROUPS)


def test_events_table() -> None:
    rows = table(DOCS / "events.md", "All events")
    assert [(int(first_code(row[0])), first_code(row[1])) for row in rows] == [(int(ev), ev.name) for ev in Event]
    assert all(len(row) == 4 and row[2] and row[3] for row in rows)


def exported_errors() -> dict[str, type[BaseException]]:
    found = {name: getattr(asyncmg, name) for name in asyncmg.__all__}
    return {name: v for name, v in found.items() if isinstance(v, type) and issubclass(v, BaseException)}


def test_errors_table() -> None:
    rows = table(DOCS / "core.md", "Errors")
    assert {first_code(row[0]) for row in rows} == set(exported_errors())
    for row in rows:
        error = exported_errors()[first_code(row[0])]
        assert CODE.findall(row[1]) == [base.__name__ for base in error.__bases__], row[0]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes for the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists() and path.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(path), target


def test_every_page_is_linked_from_the_index() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    assert [page.name for page in DOCS.glob("*.md") if page.name != "index.md" and f"({page.name})" not in index] == []


def test_every_public_name_is_in_the_documentation() -> None:
    words = set(re.findall(r"\w+", "\n".join(page.read_text(encoding="utf-8") for page in PAGES)))
    assert sorted(set(asyncmg.__all__) - words) == []


def test_public_verbs_are_in_the_documentation() -> None:
    """The methods and properties of what users hold, but for the few that only the manager and protocols call."""
    words = set(re.findall(r"\w+", "\n".join(page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))))
    internal = {
        asyncmg.Connection: {"attach", "counts_as_accepted", "shutdown", "switch_protocol", "wants", "when_handled"}
        | {"spawn"},
        asyncmg.Manager: {"forget", "forget_timer", "note_activity", "report", "report_callback_error", "spawn"}
        | {"begin_resolving", "carrier", "end_resolving", "hand_over"},
        asyncmg.HttpMessage: {"add_trailers"},
        asyncmg.TlsOpts: set(),
        asyncmg.WebSocket: {"handle_event", "spawn", "switch_protocol", "wants", "when_handled"}
        | {"begin_reading", "end_reading", "next_piece", "note_stream", "take_partial"},
        asyncmg.WsMessage: set(),
        asyncmg.MqttBroker: set(),
        asyncmg.BrokerSubscription: set(),
        asyncmg.BrokerClient: set(),
        asyncmg.BrokerStatistics: set(),
        asyncmg.ConnectAttempt: set(),
        asyncmg.MqttMessage: set(),
        asyncmg.PasswordFile: set(),
        asyncmg.WsServer: set(),
        asyncmg.Form: set(),
        asyncmg.FormPart: set(),
        asyncmg.UploadedFile: set(),
        asyncmg.Router: set(),
        asyncmg.StaticFolder: set(),
        asyncmg.Timer: set(),
    }
    for kind, left_out in internal.items():
        names = {name for name in dir(kind) if not name.startswith("_")} - left_out
        assert sorted(names - words) == [], kind.__name__


@pytest.mark.parametrize("row", table(DOCS / "http.md", "What is refused"), ids=lambda row: row[0])
def test_refusals_table(row: list[str]) -> None:
    codec = PortableHttpCodec(Role.SERVER, HttpLimits())
    codec.receive_data(ast.literal_eval(first_code(row[1])))
    with pytest.raises(RemoteProtocolError) as caught:
        while codec.next_event() is not None:
            pass
    assert caught.value.wire_code == int(row[2])
    assert row[3] == caught.value.section or caught.value.section == "RFC 9112"  # what h11 finds has no section
    assert re.fullmatch(r"RFC \d+ section [\d.]+", row[3])


@pytest.mark.skipif(load() is None, reason="no C core")
@pytest.mark.parametrize("row", table(DOCS / "http.md", "What is refused"), ids=lambda row: row[0])
def test_refusals_table_with_the_native_codec(row: list[str]) -> None:
    from asyncmg.codecs.http_native import NativeHttpCodec

    codec = NativeHttpCodec(Role.SERVER, HttpLimits())
    codec.receive_data(ast.literal_eval(first_code(row[1])))
    with pytest.raises(RemoteProtocolError) as caught:
        while codec.next_event() is not None:
            pass
    assert caught.value.wire_code == int(row[2])


@pytest.mark.parametrize("make", [PortableWsCodec, *([NativeWsCodec] if load() is not None else [])])
@pytest.mark.parametrize("row", table(DOCS / "ws.md", "What is refused"), ids=lambda row: row[0])
def test_refused_frames_table(row: list[str], make: WsCodecFactory) -> None:
    codec = make(Role.SERVER, WsLimits(), False)
    assert list(codec.receive_data(ast.literal_eval(first_code(row[1])))) == []
    assert isinstance(codec.error, RemoteProtocolError)
    assert (codec.error.wire_code, codec.error.section) == (int(row[2]), row[3])


def test_deflate_table() -> None:
    rows = table(DOCS / "ws.md", "Compression")
    told = [(first_code(row[0]), ast.literal_eval(first_code(row[1]))) for row in rows]
    assert told == [(field.name, field.default) for field in fields(Deflate)]
