"""The functions of an agent's `tools.py`, as a source of tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.tools.sources.author import AuthorTools
from service.tools.sources.base import SourceFault
from tests.agents.house import TOOLS


def test_a_folder_without_tools_has_none(tmp_path: Path) -> None:
    assert AuthorTools().tools(tmp_path) == {}


def test_each_reading_imports_the_module_anew(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text(TOOLS)
    first, second = (AuthorTools().tools(tmp_path) for _ in range(2))
    assert list(first) == list(second) == ["look", "send"]
    assert first["look"] is not second["look"]


def test_a_fault_names_the_file_and_the_line(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text("import json\n\njson.loads('hush')\n")
    with pytest.raises(SourceFault, match=r"^JSONDecodeError$") as caught:
        AuthorTools().tools(tmp_path)
    assert (caught.value.file, caught.value.line) == ("tools.py", 3)
