"""Every public name and call of cymongoose 0.2.5 is here, too: compared with its stub file, which is read, not run."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import inspect
from pathlib import Path
from typing import Any

import pytest

import asyncmg
from tests.docs.pages import ROOT

from .peers import missing

VERSION = "0.2.5"

# What differs by choice: the name, and why. docs/migrating.md has to tell it as well.
CHOSEN = {
    "MG_EV_USER": "it has moved between releases of Mongoose: only MG_EV_USER + n is promised",
}

# What is not looked at.
LEFT_OUT = {"asgi": "the adapters are a matter of their own", "wsgi": "likewise"}

# Values of the constants: the stub has their names only.
VALUES = {
    **{
        f"MG_EV_{name}": number
        for number, name in enumerate(
            [
                "ERROR",
                "OPEN",
                "POLL",
                "RESOLVE",
                "CONNECT",
                "ACCEPT",
                "TLS_HS",
                "READ",
                "WRITE",
                "CLOSE",
                "HTTP_HDRS",
                "HTTP_MSG",
                "WS_OPEN",
                "WS_MSG",
                "WS_CTL",
                "MQTT_CMD",
                "MQTT_MSG",
                "MQTT_OPEN",
                "SNTP_TIME",
                "WAKEUP",
            ]
        )
    },
    "MG_EV_USER": 23,
    "WEBSOCKET_OP_TEXT": 1,
    "WEBSOCKET_OP_BINARY": 2,
    "WEBSOCKET_OP_PING": 9,
    "WEBSOCKET_OP_PONG": 10,
    **{
        f"MG_LL_{name}": number
        for number, name in enumerate(
            [
                "NONE",
                "ERROR",
                "INFO",
                "DEBUG",
                "VERBOSE",
            ]
        )
    },
    **{
        f"MQTT_PROP_TYPE_{name}": number
        for number, name in enumerate(
            [
                "BYTE",
                "STRING",
                "STRING_PAIR",
                "BINARY_DATA",
                "VARIABLE_INT",
                "INT",
                "SHORT",
            ]
        )
    },
}

_NOTHING = inspect.Parameter.empty
_BY_POSITION = inspect.Parameter.POSITIONAL_OR_KEYWORD
_BY_NAME = inspect.Parameter.KEYWORD_ONLY


def folder() -> Path | None:
    """Where cymongoose is installed; it is not imported."""
    try:
        if importlib.metadata.version("cymongoose") != VERSION:
            return None
    except importlib.metadata.PackageNotFoundError:
        return None
    spec = importlib.util.find_spec("cymongoose")
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


FOLDER = folder()


def public_names() -> list[str]:
    """``__all__`` of the package."""
    if FOLDER is None:
        return []
    for node in ast.parse((FOLDER / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def definitions() -> dict[str, ast.stmt]:
    """What the stub, and the module of AsyncManager, define at their top."""
    found: dict[str, ast.stmt] = {}
    for name in ("_mongoose.pyi", "aio.py") if FOLDER is not None else ():
        assert FOLDER is not None
        for node in ast.parse((FOLDER / name).read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[node.name] = node
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found[node.target.id] = node
    return found


NAMES = public_names()
DEFINED = definitions()
CLASSES = {name: node for name, node in DEFINED.items() if isinstance(node, ast.ClassDef)}


def members() -> dict[str, ast.stmt]:
    """``Class.member`` -> its definition, of public ones and of ``__init__`` and context managers."""
    found: dict[str, ast.stmt] = {}
    for class_name, node in CLASSES.items():
        for item in node.body:
            name = getattr(item, "name", "") or getattr(getattr(item, "target", None), "id", "")
            special = name in ("__init__", "__enter__", "__exit__", "__aenter__", "__aexit__", "__bool__", "__repr__")
            if name and (special or not name.startswith("_")):
                found.setdefault(f"{class_name}.{name}", item)
    return found


MEMBERS = members()


@pytest.fixture(autouse=True)
def present() -> None:
    if FOLDER is None:
        missing(f"cymongoose {VERSION} is not installed")


def default_of(node: ast.expr | None) -> Any:
    if node is None:
        return _NOTHING
    return getattr(asyncmg, node.id) if isinstance(node, ast.Name) else ast.literal_eval(node)


def differences(theirs: ast.FunctionDef | ast.AsyncFunctionDef, ours: Any, *, is_method: bool) -> list[str]:
    """Name every call that they accept and ours does not."""
    signature = inspect.signature(ours)
    mine = list(signature.parameters.values())[is_method:]
    args = theirs.args
    theirs_positional = args.args[is_method:]
    defaults = [None] * (len(args.args) - len(args.defaults)) + list(args.defaults)
    found = []
    for index, (arg, default) in enumerate(zip(theirs_positional, defaults[is_method:], strict=True)):
        if index >= len(mine) or mine[index].name != arg.arg or mine[index].kind is not _BY_POSITION:
            found.append(f"parameter {index + 1} is not {arg.arg}: {signature}")
        else:
            found += default_difference(mine[index], default_of(default))
    named = {parameter.name: parameter for parameter in mine if parameter.kind in (_BY_POSITION, _BY_NAME)}
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        if arg.arg not in named:
            found.append(f"no keyword {arg.arg}: {signature}")
        else:
            found += default_difference(named[arg.arg], default_of(default))
    known = {arg.arg for arg in [*theirs_positional, *args.kwonlyargs]}
    for parameter in named.values():
        if parameter.name not in known and parameter.default is _NOTHING and args.vararg is None:
            found.append(f"{parameter.name} is required: {signature}")
    if args.kwarg is not None and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in mine):
        found.append(f"no **{args.kwarg.arg}: {signature}")
    if args.vararg is not None:  # only of __exit__ and __aexit__
        signature.bind(*[None] * (3 + is_method))
    return found


def default_difference(mine: inspect.Parameter, theirs: Any) -> list[str]:
    if theirs is _NOTHING or (mine.default == theirs and type(mine.default) is type(theirs)):
        return []
    if isinstance(theirs, int | float) and mine.default == theirs:  # 30 and 30.0, 1 and an IntEnum's member
        return []
    return [f"the default of {mine.name} is {mine.default!r}, not {theirs!r}"]


def test_the_stub_has_been_read() -> None:
    assert len(NAMES) == 75 and set(NAMES) <= set(DEFINED), "what is looked at is what is there"
    assert len(CLASSES) == 10 and len(MEMBERS) > 100
    assert set(VALUES) == {name for name in NAMES if name.startswith(("MG_", "WEBSOCKET_", "MQTT_"))}


@pytest.mark.parametrize("name", NAMES)
def test_name(name: str) -> None:
    assert hasattr(asyncmg, name), f"asyncmg.{name} is missing"
    assert name in asyncmg.__all__
    ours, node = getattr(asyncmg, name), DEFINED[name]
    if isinstance(node, ast.FunctionDef):
        assert differences(node, ours, is_method=False) == []
    elif isinstance(node, ast.ClassDef):
        assert inspect.isclass(ours)
    elif name not in CHOSEN:
        assert isinstance(ours, int) and ours == VALUES[name]


@pytest.mark.parametrize("name", MEMBERS)
def test_member(name: str) -> None:
    class_name, _, member = name.partition(".")
    if name in CHOSEN:
        pytest.skip(CHOSEN[name])
    kind = getattr(asyncmg, class_name)
    node = MEMBERS[name]
    if isinstance(node, ast.AnnAssign) or any(getattr(d, "id", "") == "property" for d in node.decorator_list):  # type: ignore[attr-defined]
        # A property, a slot, or an attribute that __init__ sets.
        holder = kind if hasattr(kind, member) else kind()
        assert hasattr(holder, member), f"{name} is missing"
        assert not inspect.isroutine(getattr(holder, member)), f"{name} is a method"
        return
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    if member == "__bool__":
        return  # every object has a truth value; ours is always True
    assert hasattr(kind, member), f"{name} is missing"
    ours = getattr(kind, member)
    assert inspect.iscoroutinefunction(ours) == isinstance(node, ast.AsyncFunctionDef)
    if member != "__repr__":
        assert differences(node, ours, is_method=True) == []


@pytest.mark.parametrize("name", CHOSEN)
def test_what_differs_by_choice_is_documented(name: str) -> None:
    assert name in VALUES or name in MEMBERS or name in NAMES, "there is no such thing any more"
    text = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
    assert f"`{name.rpartition('.')[2]}" in text


def test_submodules_are_accounted_for() -> None:
    assert FOLDER is not None
    modules = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "aio"}
    assert modules == set(LEFT_OUT)


# The comparison itself.


def function(text: str) -> ast.FunctionDef:
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.FunctionDef)
    return node


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        ("def f(a, b=1, *, c=None): ...", lambda a, b=1, *, c=None, d=5: None, []),
        ("def f(a, *, c=None): ...", lambda a, c=None: None, []),
        ("def f(a): ...", lambda a=5: None, []),
        ("def f(a): ...", lambda b: None, ["parameter 1 is not a", "b is required"]),
        ("def f(a, b): ...", lambda a: None, ["parameter 2 is not b"]),
        ("def f(a, b): ...", lambda a, *, b: None, ["parameter 2 is not b"]),
        ("def f(a=1): ...", lambda a: None, ["the default of a"]),
        ("def f(a=1): ...", lambda a="1": None, ["the default of a is '1', not 1"]),
        ("def f(a=b''): ...", lambda a="": None, ["the default of a"]),
        ("def f(*, a=1): ...", lambda a=2: None, ["the default of a"]),
        ("def f(*, a=1): ...", lambda **kw: None, ["no keyword a"]),
        ("def f(a): ...", lambda a, b: None, ["b is required"]),
        ("def f(a, **kw): ...", lambda a: None, ["no **kw"]),
        ("def f(op=WEBSOCKET_OP_TEXT): ...", lambda op=1: None, []),
    ],
)
def test_differences_are_found(theirs: str, ours: Any, expected: list[str]) -> None:
    found = differences(function(theirs), ours, is_method=False)
    assert len(found) == len(expected)
    assert all(wanted in said for wanted, said in zip(expected, found, strict=True)), found
