"""CORS: preflight requests and grants."""

from __future__ import annotations

from typing import Any

import pytest

from asyncmg.handlers.cors import cors

from .fakes import FakeConnection, give, request

PAGE = "https://page.example"


def inner(conn: Any, ev: int, data: Any) -> None:
    if not conn.replies:
        conn.reply(200, "inner", {"Vary": "Accept", "ETag": '"1"'})


async def ask(handler: Any, method: str = "GET", **fields: str) -> dict[str, str]:
    message = request("/", method, *((name.replace("_", "-"), value) for name, value in fields.items()))
    draft = await give(handler, FakeConnection(), message)
    assert draft is not None
    names = ("Vary", "Content-Type", "ETag")
    kept = {name: value for name, value in draft.headers if name.startswith("Access-Control-") or name == "Vary"}
    assert all(name in names or name in kept for name, _ in draft.headers)
    return {"status": str(draft.status), **kept}


async def test_a_listed_origin() -> None:
    handler = cors(inner, [PAGE, "http://localhost:3000"], expose=["ETag", "X-Total"])
    for origin in (PAGE, "http://localhost:3000"):
        assert await ask(handler, Origin=origin) == {
            "status": "200",
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": "ETag, X-Total",
            "Vary": "Accept, Origin",
        }


@pytest.mark.parametrize(
    "origin", ["https://other.example", "https://page.example.evil", "null", "HTTPS://page.example"]
)
async def test_another_origin_is_told_nothing(origin: str) -> None:
    handler = cors(inner, PAGE)
    assert await ask(handler, Origin=origin) == {"status": "200", "Vary": "Accept, Origin"}
    preflight = await ask(handler, "OPTIONS", Origin=origin, Access_Control_Request_Method="PUT")
    assert preflight == {"status": "204", "Vary": "Origin"}


async def test_no_origin_varies_as_well() -> None:
    assert await ask(cors(inner, PAGE)) == {"status": "200", "Vary": "Accept, Origin"}


async def test_every_origin() -> None:
    for fields in ({}, {"Origin": PAGE}):
        assert await ask(cors(inner, "*"), **fields) == {
            "status": "200",
            "Access-Control-Allow-Origin": "*",
            "Vary": "Accept",
        }


async def test_preflight() -> None:
    handler = cors(inner, PAGE, methods=["GET", "PUT"], headers=["X-A", "X-B"], credentials=True, max_age=60)
    assert await ask(handler, "OPTIONS", Origin=PAGE, Access_Control_Request_Method="PUT") == {
        "status": "204",
        "Access-Control-Allow-Origin": PAGE,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Allow-Methods": "GET, PUT",
        "Access-Control-Allow-Headers": "X-A, X-B",
        "Access-Control-Max-Age": "60",
        "Vary": "Origin",
    }
    granted = await ask(cors(inner, "*", headers="*"), "OPTIONS", Origin=PAGE, Access_Control_Request_Method="PUT")
    assert granted["Access-Control-Allow-Headers"] == "*"
    assert granted["Access-Control-Allow-Origin"] == "*"


async def test_other_options_requests_reach_the_handler() -> None:
    handler = cors(inner, PAGE)
    assert (await ask(handler, "OPTIONS", Origin=PAGE))["status"] == "200"
    assert (await ask(handler, "OPTIONS", Access_Control_Request_Method="PUT"))["status"] == "200"
    assert (await ask(handler, "PUT", Origin=PAGE, Access_Control_Request_Method="PUT"))["status"] == "200"


def test_what_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="credentials"):
        cors(inner, "*", credentials=True)
    with pytest.raises(ValueError, match="credentials"):
        cors(inner, [PAGE, "*"], credentials=True)
    for origin in ("page.example", "https://page.example/", "https://Page.example", "https://a b", "null", ""):
        with pytest.raises(ValueError, match="origin"):
            cors(inner, [origin])

    async def session(conn: Any) -> None: ...

    with pytest.raises(TypeError):
        cors(session, "*")
