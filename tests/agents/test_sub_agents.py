"""Agents that call others: a tree without a bound, or of agents that are not there, is not served."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.agents.catalog import AgentCatalog
from tests.agents.house import GOOD, load, write

LEAD = """description: A lead.
pattern: orchestrator
agents: [one]
tree: {tasks: 2}
limits: {steps: 22}
"""


def catalog_of(folder: Path, lead: str, **others: str) -> AgentCatalog:
    for name, text in {"lead": lead, "one": GOOD, **others}.items():
        write(folder, name, agent_yaml=text, prompt_md="Be good.")
    return load(folder)


def test_lead_and_its_agents_are_served(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, LEAD)
    assert catalog.faults == () and set(catalog.agents) == {"lead", "one"}
    assert list(catalog.agents["lead"].options.sub_agents) == ["one"]


@pytest.mark.parametrize(
    ("lead", "field", "detail"),
    [
        (LEAD.replace("[one]", "[ohne]"), "agents", "there is no agent 'ohne'; did you mean 'one'?"),
        (LEAD.replace("[one]", "[lead]"), "agents", "'lead' has sub-agents itself"),
        (LEAD.replace("[one]", "[one, other]"), "agents", "'other' has sub-agents itself"),
        (LEAD + "writer: two\n", "agents", "there is no agent 'two'"),
        (LEAD.replace("22", "21"), "limits.steps", "must be at least 22"),
        (LEAD.replace("[one]", "[]"), "agents", "needs at least one"),
        (LEAD + "cache: {ttl_seconds: 60}\n", "cache.ttl_seconds", "must be 0"),
        (LEAD.replace("{tasks: 2}", "{tasks: 9}"), "tree.tasks", "less than or equal to 8"),
        (LEAD.replace("{tasks: 2}", '{tasks: 2, usd: "-1"}'), "tree.usd", "is negative"),
        (LEAD.replace("{tasks: 2}", "{tasks: 2, usd: 0.5}"), "tree.usd", "valid string"),
    ],
)
def test_lead_that_makes_no_bounded_tree_is_not_served(
    tmp_path: Path, lead: str, field: str, detail: str
) -> None:
    catalog = catalog_of(tmp_path, lead, other=LEAD)
    faults = [fault for fault in catalog.faults if fault.agent == "lead"]
    assert [fault.field for fault in faults] == [field] and detail in faults[0].detail
    assert set(catalog.agents) == {"one", "other"}


def test_lead_is_gone_with_its_agent_and_comes_back_with_it(tmp_path: Path) -> None:
    write(tmp_path, "lead", agent_yaml=LEAD, prompt_md="Be good.")
    catalog = load(tmp_path, reloads=True)
    assert not catalog.agents and [fault.agent for fault in catalog.faults] == ["lead"]
    write(tmp_path, "one", agent_yaml=GOOD, prompt_md="Be good.")
    catalog.refresh()
    assert set(catalog.agents) == {"lead", "one"} and catalog.faults == ()
