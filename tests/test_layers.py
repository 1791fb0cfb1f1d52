"""Imports go one way, and modules and functions stay readable: the picture of the architecture, kept by a test."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import asyncmg.errors

PACKAGE = "asyncmg"

RULES = {
    # From top to bottom. A name stands for the module or the package with everything in it, PACKAGE for the package's
    # own __init__ alone, "*" for every other module at the top level (events, errors, limits, urls, ...).
    # A module may import from its own layer and from those below; no modules may import each other in a circle.
    "layers": [
        ["asyncmg.__main__", "asyncmg.cli"],
        ["asyncmg"],
        [
            "asyncmg.async_manager",
            "asyncmg.rpc_client",
            "asyncmg.ws_client",
            "asyncmg.ws_server",
            "asyncmg.mqtt_client",
            "asyncmg.mqtt_broker",
            "asyncmg.sntp_client",
            "asyncmg.mdns",
        ],
        ["asyncmg.websocket", "asyncmg.mqtt_face", "asyncmg.mqtt_publishing", "asyncmg.mqtt_keeping"],
        ["asyncmg.manager"],
        ["asyncmg.connecting", "asyncmg.listening", "asyncmg.mqtt_options"],
        ["asyncmg.manager_parts"],
        ["asyncmg.dialing"],
        ["asyncmg.handlers", "asyncmg.rpc", "asyncmg.rpc_lane"],
        ["asyncmg.broadcast", "asyncmg.listener", "asyncmg.connection"],
        ["asyncmg.verbs", "asyncmg.broker"],
        ["asyncmg.protocols"],
        ["asyncmg.resolver"],
        ["asyncmg.codecs"],
        ["asyncmg.transports"],
        ["asyncmg.core"],
        ["*"],
    ],
    # Codecs are sans-I/O: they may not even name these.
    "forbidden": {"asyncmg.codecs": ["asyncio", "socket", "ssl", "time"]},
    # The package's __init__ holds a docstring, imports and these names, nothing else.
    "root_names": ["__all__", "__version__"],
    "max_module_lines": 650,
    "max_function_lines": 70,  # from def to the last line, without the docstring
}

Tree = dict[str, ast.Module]


def read_tree(root: Path) -> tuple[Tree, dict[str, str]]:
    """Parse all modules below a package's folder; return the trees and the texts by module name."""
    texts = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        texts[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return {name: ast.parse(text, name) for name, text in texts.items()}, texts


def packages_of(root: Path) -> set[str]:
    return {".".join(path.parent.relative_to(root.parent).parts) for path in root.rglob("__init__.py")}


def imported_names(name: str, tree: ast.Module, is_package: bool) -> Iterator[tuple[str, int]]:
    """Yield what a module imports, at any depth, as absolute dotted names with the line: ``from a import b`` is a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = name.split(".")
                parents = parents[: len(parents) - node.level + is_package]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno


def module_of(imported: str, known: set[str]) -> str | None:
    """Reduce asyncmg.codecs.http.parse to the module asyncmg.codecs.http; None for what is not ours."""
    while imported:
        if imported in known:
            return imported
        imported = imported.rpartition(".")[0]
    return None


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def layer_of(name: str) -> int:
    for number, members in enumerate(RULES["layers"]):
        if any(is_within(name, member) if member != PACKAGE else name == PACKAGE for member in members):
            return number
    return next(number for number, members in enumerate(RULES["layers"]) if "*" in members)


def import_errors(root: Path) -> Iterator[str]:
    trees, _ = read_tree(root)
    packages, graph = packages_of(root), {}
    for name, tree in trees.items():
        graph[name] = set()
        forbidden = [
            module for package, all_ in RULES["forbidden"].items() if is_within(name, package) for module in all_
        ]
        for imported, line in imported_names(name, tree, name in packages):
            if any(is_within(imported, module) for module in forbidden):
                yield f"{name}:{line} imports {imported}, which is forbidden there"
            target = module_of(imported, set(trees))
            if target is None:
                continue
            if layer_of(target) < layer_of(name):
                yield f"{name}:{line} imports upwards: {target}"
            else:  # an import upwards mostly closes a circle as well: one message is enough
                graph[name].add(target)
    for circle in circles(graph):
        yield f"imports in a circle: {' > '.join(circle)}"


def circles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """Yield one circle for every module from which one is entered for the first time (depth first)."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> Iterator[list[str]]:
        if name in path:
            yield [*path[path.index(name) :], name]
        elif name not in done:
            for target in sorted(graph[name]):
                yield from visit(target, [*path, name])
            done.add(name)

    for name in sorted(graph):
        yield from visit(name, [])


def type_checking_errors(trees: Tree) -> Iterator[str]:
    for name, tree in trees.items():
        for node in ast.walk(tree):
            named = getattr(node, "id", None) or getattr(node, "attr", None)
            if named == "TYPE_CHECKING" or (isinstance(node, ast.alias) and node.name == "TYPE_CHECKING"):
                yield f"{name} uses TYPE_CHECKING: imports that go one way need none"
                break


def root_errors(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
        if not all(isinstance(target, ast.Name) and target.id in RULES["root_names"] for target in targets):
            yield f"{PACKAGE}/__init__.py:{node.lineno} does more than to re-export"


def size_errors(trees: Tree, texts: dict[str, str]) -> Iterator[str]:
    for name, tree in trees.items():
        lines = len(texts[name].splitlines())
        if lines > RULES["max_module_lines"]:
            yield f"{name} has {lines} lines, over {RULES['max_module_lines']}"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                documented = ast.get_docstring(node) is not None
                docstring = first.end_lineno - first.lineno + 1 if documented else 0
                length = node.end_lineno - node.lineno + 1 - docstring
                if length > RULES["max_function_lines"]:
                    yield f"{name}.{node.name} has {length} lines, over {RULES['max_function_lines']}"


def violations(root: Path) -> list[str]:
    """Name everything below a package's folder that breaks RULES."""
    trees, texts = read_tree(root)
    return [
        *import_errors(root),
        *type_checking_errors(trees),
        *root_errors(trees.get(PACKAGE, ast.Module([], []))),
        *size_errors(trees, texts),
    ]


def test_the_package_keeps_the_rules() -> None:
    root = Path(asyncmg.errors.__file__).parent
    trees, _ = read_tree(root)
    assert {"asyncmg.errors", "asyncmg.core"} <= set(trees)
    assert violations(root) == []


# The checks themselves, on a small tree: sound as it is, and with one thing wrong at a time.

SOUND = {
    "__init__.py": '"""A."""\nfrom asyncmg.manager import Manager\n__all__ = ["Manager"]\n__version__ = "1"\n',
    "__main__.py": "import asyncmg\nfrom asyncmg import Manager, cli\n",
    "cli/__init__.py": "from asyncmg.cli import demo\n",
    "cli/demo.py": "from asyncmg import Manager\n",
    "manager.py": "import asyncio\nfrom asyncmg.connection import Connection\nfrom asyncmg.protocols.http import H\n",
    "connection.py": "from .verbs import http as verbs\nfrom .events import Event\n",
    "verbs/http.py": "from ..protocols import http\n",
    "protocols/__init__.py": "",
    "protocols/http.py": "from asyncmg.protocols.base import Base\nfrom asyncmg.codecs.http import Codec\n",
    "protocols/base.py": "import asyncmg.transports.tcp\nimport asyncmg.core\n",
    "codecs/http.py": "from asyncmg.core import load\nimport datetime\nfrom asyncmg import errors\n",
    "transports/tcp.py": "import socket\nfrom asyncmg.limits import Limits\n",
    "core/__init__.py": "from asyncmg.errors import E\n",
    "errors.py": "",
    "events.py": "import asyncmg.errors\n",
    "limits.py": "",
}

LONG_FUNCTION = "def f():\n" + '    """' + "Text.\n" * 50 + '    """\n' + "    x = 1\n" * 68 + "{}"

BROKEN = [
    ("manager.py", "import asyncmg\n", "asyncmg.manager:1 imports upwards: asyncmg"),
    ("manager.py", "from asyncmg import cli\n", "asyncmg.manager:1 imports upwards: asyncmg.cli"),
    ("connection.py", "from asyncmg.manager import M\n", "imports upwards: asyncmg.manager"),
    ("verbs/http.py", "from .. import connection\n", "imports upwards: asyncmg.connection"),
    ("protocols/__init__.py", "from ..verbs.http import f\n", "imports upwards: asyncmg.verbs.http"),
    ("codecs/http.py", "def f():\n    import asyncmg.protocols.base\n", "imports upwards: asyncmg.protocols.base"),
    ("transports/tcp.py", "from asyncmg.codecs.http import Codec\n", "imports upwards: asyncmg.codecs.http"),
    ("core/__init__.py", "from asyncmg.transports import tcp\n", "imports upwards: asyncmg.transports.tcp"),
    ("errors.py", "import asyncmg.core\n", "asyncmg.errors:1 imports upwards: asyncmg.core"),
    (
        "errors.py",
        "from .limits import L\nfrom .events import E\n",
        "asyncmg.errors > asyncmg.events",
    ),
    ("protocols/base.py", "from asyncmg.protocols import http\n", "asyncmg.protocols.base > asyncmg.protocols.http"),
    ("limits.py", "import asyncmg.limits\n", "imports in a circle: asyncmg.limits > asyncmg.limits"),
    ("codecs/http.py", "import asyncio.streams\n", "imports asyncio.streams, which is forbidden"),
    ("codecs/http.py", "from socket import socket\n", "imports socket.socket, which is forbidden"),
    ("codecs/new/__init__.py", "import ssl\n", "asyncmg.codecs.new:1 imports ssl, which is forbidden"),
    ("codecs/http.py", "def f():\n    from time import monotonic\n", "imports time.monotonic, which is forbidden"),
    ("limits.py", "from typing import TYPE_CHECKING\n", "asyncmg.limits uses TYPE_CHECKING"),
    ("limits.py", "import typing\nif typing.TYPE_CHECKING:\n    pass\n", "asyncmg.limits uses TYPE_CHECKING"),
    ("__init__.py", "def f(): ...\n", "asyncmg/__init__.py:1 does more"),
    ("__init__.py", "x = 1\n", "asyncmg/__init__.py:1 does more"),
    ("limits.py", "\n" * 651, "asyncmg.limits has 651 lines"),
    ("limits.py", LONG_FUNCTION.format("    return x\n    pass\n"), "asyncmg.limits.f has 71 lines"),
    ("limits.py", "class A:\n    async def g(self):\n" + "        x = 1\n" * 70, "asyncmg.limits.g has 71 lines"),
]


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / PACKAGE


def test_a_sound_tree_is_accepted(tmp_path: Path) -> None:
    assert violations(write_tree(tmp_path, SOUND)) == []
    assert violations(write_tree(tmp_path, {"limits.py": LONG_FUNCTION.format("    return x\n")})) == []


@pytest.mark.parametrize(("name", "text", "expected"), BROKEN, ids=[expected for *_, expected in BROKEN])
def test_each_violation_is_found(tmp_path: Path, name: str, text: str, expected: str) -> None:
    found = violations(write_tree(tmp_path, {**SOUND, name: text}))
    assert len(found) == 1, found
    assert expected in found[0]
