"""Agent folders written by a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from service.agents.definitions import FolderFault
from tests.agents import house
from tests.agents.house import GOOD, load

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes an agent's folder below tmp_path; a file given as None is left out."""

    def make(name: str = "probe", **files: str | bytes | None) -> Path:
        content = {"agent_yaml": GOOD, "prompt_md": "Be good.", **files}
        return house.write(tmp_path, name, **content)

    return make


def only_fault(agents_dir: Path) -> FolderFault:
    catalog = load(agents_dir)
    assert len(catalog.faults) == 1, catalog.faults
    assert not catalog.agents
    return catalog.faults[0]
