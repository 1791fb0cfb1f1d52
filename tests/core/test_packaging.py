"""What the installed distribution says about itself."""

from __future__ import annotations

import tomllib
from importlib import metadata, resources
from pathlib import Path

import asyncmg

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_one_version() -> None:
    assert metadata.version("asyncmg") == PROJECT["version"]
    assert getattr(asyncmg, "__version__", PROJECT["version"]) == PROJECT["version"]


def test_run_time_dependencies_are_h11_and_wsproto() -> None:
    needed = [line for line in metadata.requires("asyncmg") or [] if "extra ==" not in line]
    assert sorted(needed) == ["h11>=0.16", "wsproto>=1.2"]


def test_the_package_is_typed_and_carries_its_header() -> None:
    assert resources.files("asyncmg").joinpath("py.typed").is_file()
    assert "AMG_ABI" in resources.files("asyncmg.core").joinpath("amg.h").read_text(encoding="utf-8")
