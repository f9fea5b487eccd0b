"""Faults and warnings of the patterns `reflection` and `research`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agents.house import TOOLS, write
from tests.agents.test_checks import fault, warnings

REFLECTION = "description: A test agent.\npattern: reflection\n"
RESEARCH = "description: A test agent.\npattern: research\n"
DOCUMENT = {"knowledge__a_md": "# A\nText."}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (REFLECTION, []),
        (REFLECTION + "rounds: 1\nlimits: {steps: 3}\n", []),
        (
            REFLECTION + "rounds: 3\nlimits: {steps: 6}\n",
            ["agent.yaml:3: warning: rounds: 3 take 7 steps, and limits.steps is 6"],
        ),
        (
            REFLECTION + "tools: [look]\n",
            ["agent.yaml:3: warning: tools: pattern reflection calls no tools: use react, or leave them out"],
        ),
        (
            RESEARCH + "tools: [search_knowledge]\n",
            ["agent.yaml:3: warning: tools.0: search_knowledge has nothing to search: write knowledge/*.md"],
        ),
    ],
)
def test_settings_without_effect_are_warnings(tmp_path: Path, spec: str, said: list[str]) -> None:
    assert warnings(write(tmp_path, agent_yaml=spec, prompt_md="x", tools_py=TOOLS)) == said


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            REFLECTION,
            "pattern reflection reads no documents: use router, or react with the tool search_knowledge",
        ),
        (
            RESEARCH + "tools: [calculator]\n",
            "no tool reads these documents: list search_knowledge under `tools`",
        ),
        (RESEARCH + "tools: [search_knowledge]\n", ""),
    ],
)
def test_unread_documents_are_a_warning(tmp_path: Path, spec: str, said: str) -> None:
    found = warnings(write(tmp_path, agent_yaml=spec, prompt_md="x", **DOCUMENT))
    assert found == ([f"knowledge: warning: {said}"] if said else [])


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            REFLECTION + "limits:\n  steps: 2\n",
            "agent.yaml:4: limits.steps: pattern reflection needs at least 3: draft, critique, revision",
        ),
        (REFLECTION + "rounds: 6\n", "agent.yaml:3: rounds: Input should be less than or equal to 5"),
        (REFLECTION + "searches: 2\n", "agent.yaml:3: searches: pattern reflection has none"),
        (
            RESEARCH + "tools: [search_knowledge]\nlimits:\n  steps: 1\n",
            "agent.yaml:5: limits.steps: pattern research needs at least 2: a plan, then the answer",
        ),
        (RESEARCH, "agent.yaml:1: tools: pattern research needs one that searches, such as search_knowledge"),
        (RESEARCH + "pages: 0\n", "agent.yaml:3: pages: Input should be greater than or equal to 1"),
    ],
)
def test_faults_name_field_and_line(tmp_path: Path, spec: str, said: str) -> None:
    assert fault(write(tmp_path, agent_yaml=spec, prompt_md="x", **DOCUMENT)) == said


@pytest.mark.parametrize("tool", ["web_search", "web_fetch"])
def test_tools_of_the_model_itself_are_not_offered(tmp_path: Path, tool: str) -> None:
    """No hold covers what they may cost."""
    said = fault(write(tmp_path, agent_yaml=f"{RESEARCH}tools: [{tool}]\n", prompt_md="x"))
    assert said.startswith(f"agent.yaml:3: tools.0: there is no tool '{tool}'")
