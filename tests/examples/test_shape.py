"""Examples stay small, pinned, and strangers to Slipway."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.examples.house import EXAMPLES

SERVED = [EXAMPLES / "langgraph", EXAMPLES / "pydantic_ai"]


def test_graph_has_about_60_lines_and_knows_nothing_of_slipway() -> None:
    text = (EXAMPLES / "langgraph" / "graph.py").read_text()
    assert len(text.splitlines()) <= 65
    assert not re.search(r"slipway|service|run_id|run_token", text, re.I)


@pytest.mark.parametrize("folder", SERVED, ids=lambda folder: folder.name)
def test_every_requirement_is_pinned(folder: Path) -> None:
    lines = (folder / "requirements.txt").read_text().split()
    assert lines and all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)


@pytest.mark.parametrize("folder", SERVED, ids=lambda folder: folder.name)
def test_example_imports_nothing_of_slipway(folder: Path) -> None:
    code = "".join(path.read_text() for path in folder.glob("*.py"))
    assert not re.search(r"^\s*(from|import) (service|config|client|launcher|tests)\b", code, re.M)


@pytest.mark.parametrize("folder", SERVED, ids=lambda folder: folder.name)
def test_agent_folder_names_a_remote_agent(folder: Path) -> None:
    (spec,) = (folder / "agent").glob("*/agent.yaml")
    told = yaml.safe_load(spec.read_text())
    assert told["pattern"] == "remote" and told["remote"]["url"].startswith("http://127.0.0.1:")


def test_image_is_not_run_as_root_and_holds_the_pinned_environment() -> None:
    lines = (EXAMPLES / "langgraph" / "Dockerfile").read_text().splitlines()
    assert any(re.fullmatch(r"USER \d+", line) for line in lines)
    assert any("-r requirements.txt" in line for line in lines)
