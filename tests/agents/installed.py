"""Installed packages that a test makes: modules and `.dist-info` in a folder on the path."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agents import house

AGENTS, TOOLS = "slipway.agents", "slipway.tools"
LIBRARY = "description: A packaged agent.\npattern: react\ntools: [look, acme_tools_stamp]\n"
STAMP = """
from service.tools import tool

@tool(idempotent=True, risk="read")
def stamp(text: str) -> str:
    "Stamp a text."
    return f"stamped {text}"

NO_TOOL = 1
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package: its module, with files, and its entry points by group."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    before = set(sys.modules)

    def make(name: str, entry_points: dict[str, dict[str, str]], **files: str) -> None:
        info = site / f"{name.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        sections = (
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in found.items())
            for group, found in entry_points.items()
        )
        (info / "entry_points.txt").write_text("\n".join(sections))
        module = site / name.replace("-", "_")
        module.mkdir()
        for file, text in {"__init__": "", **files}.items():
            (module / f"{file}.py").write_text(text)

    yield make
    for name in set(sys.modules) - before:
        if name.partition(".")[0].startswith(("acme", "search")):
            del sys.modules[name]


def add_agent(tmp_path: Path, module: str, name: str = "library", spec: str = LIBRARY) -> None:
    """Write an agent's folder into an installed package."""
    house.write(tmp_path / "site" / module, name, agent_yaml=spec, prompt_md="Be good.", tools_py=house.TOOLS)
