"""Tools of several sources under one set of names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from service.tools import Tool
from service.tools.sources import SOURCES
from service.tools.sources.base import SourceFault, tools_of
from service.tools.sources.builtin import BUILTINS, calculator
from service.tools.sources.memory import MEMORY
from service.tools.sources.web import WebTools
from tests.agents.house import TOOLS


class Remote:
    """A source as a new module would bring one."""

    kind = "remote"
    file = "agent.yaml"

    def __init__(self, **tools: Tool) -> None:
        self._tools = tools

    def tools(self, folder: Path) -> Mapping[str, Tool]:
        return self._tools


def test_an_agent_has_the_tools_of_every_source(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text(TOOLS)
    found = tools_of([*SOURCES, Remote(sum=calculator)], tmp_path)
    assert list(found) == [*BUILTINS, *WebTools().tools(tmp_path), *MEMORY, "look", "send", "sum"]


def test_a_name_stands_for_one_tool(tmp_path: Path) -> None:
    again = tools_of([*SOURCES, Remote(calculator=calculator)], tmp_path)  # the same once more
    assert again == tools_of(SOURCES, tmp_path)
    (tmp_path / "tools.py").write_text(TOOLS)
    with pytest.raises(
        SourceFault, match=r"^'look' is the name of a tools.py tool: choose another$"
    ) as caught:
        tools_of([*SOURCES, Remote(look=calculator)], tmp_path)
    assert (caught.value.file, caught.value.line) == ("agent.yaml", 0)
