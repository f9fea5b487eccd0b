"""Agents in the banner."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.development import Development
from launcher import banner
from tests.agents.house import GOOD, load, write


def agents_line(home: Path) -> str:
    """Empty where there is none."""
    text = banner.text(Development(slipway_home=home), 8000, ["web"], "")
    return next((line.strip() for line in text.splitlines() if line.startswith("  agents: ")), "")


def test_banner_counts_served_agents_and_shows_faults(tmp_path: Path) -> None:
    agents, summary = tmp_path / "agents", Development(slipway_home=tmp_path).agents_summary
    write(agents, "good", agent_yaml=GOOD, prompt_md="x")
    load(agents).write_summary(summary)
    assert agents_line(tmp_path) == "agents: 1 served"
    write(agents, "bad", agent_yaml="description: x\npattern: sinlge\n", prompt_md="x")
    load(agents).write_summary(summary)
    why = f"{agents}/bad/agent.yaml:2: pattern: there is no pattern 'sinlge'; did you mean 'single'?"
    assert agents_line(tmp_path) == f"agents: 1 served, 1 left out ({why})"


def test_banner_shows_a_few_faults_and_the_command_for_more(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path / "agents", f"bad{number}", agent_yaml=GOOD)
    load(tmp_path / "agents").write_summary(tmp_path / "agents.json")
    line = agents_line(tmp_path)
    assert line.startswith("agents: 0 served, 5 left out (") and line.count("prompt.md: is missing") == 3
    assert line.endswith("; `flask agents check` names the others)")


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"served": "x", "left_out": []}'])
def test_banner_without_a_summary_omits_agents(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "agents.json").write_text(text)
    assert agents_line(tmp_path) == ""


@pytest.mark.parametrize(("folders", "tried"), [(["zoo", "desk"], "desk"), (["desk", "support"], "support")])
def test_banner_tries_an_agent_that_is_there(tmp_path: Path, folders: list[str], tried: str) -> None:
    for name in folders:
        write(tmp_path / "agents", name, agent_yaml=GOOD, prompt_md="x")
    settings = Development(slipway_home=tmp_path, agents_dir=tmp_path / "agents")
    assert f"/v1/agents/{tried}/invoke" in banner.text(settings, 8000, ["web"], "")
