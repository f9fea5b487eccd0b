"""Policies in `agent.yaml`: loaded, and faults of those that would bound nothing."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from tests.agents.house import REACT, TOOLS, load, write

SEND = REACT + "tools: [send, look]\npolicies:\n"


def fault(agents_dir: Path) -> str:
    [found] = load(agents_dir).faults
    return str(found).removeprefix(f"{agents_dir}/probe/")


def test_policies_are_those_of_the_agent(tmp_path: Path) -> None:
    spec = SEND + '  send: {roles: [admin], allowed_domains: {to: [Example.org]}, max_amount: {to: "0.10"}}\n'
    catalog = load(write(tmp_path, agent_yaml=spec, prompt_md="x", tools_py=TOOLS))
    assert catalog.faults == ()
    policy = catalog.agents["probe"].policies["send"]
    assert (policy.roles, policy.allowed_domains["to"]) == (("admin",), ("example.org",))
    assert policy.max_amount["to"] == Decimal("0.10")


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (
            "  sent: {roles: [admin]}\n",
            "5: policies.sent: 'sent' is not one of this agent's tools; did you mean 'send'?",
        ),
        (
            "  send: {allowed_domains: {too: [example.org]}}\n",
            "5: policies.send.allowed_domains.too: 'send' has no argument 'too'; did you mean 'to'?",
        ),
        (
            '  send: {max_amount: {sum: "1"}}\n',
            "5: policies.send.max_amount.sum: 'send' has no argument 'sum'; there are: to",
        ),
        (
            "  send: {max_amount: {to: 99.95}}\n",
            '5: policies.send.max_amount.to: must be a decimal in quotation marks, such as "100.00"',
        ),
        (
            "  look: {roles: [admin]}\ncache: {ttl_seconds: 60, shared: true}\n",
            "6: cache.shared: must be off: not everybody may use 'look'",
        ),
    ],
)
def test_policy_without_effect_is_a_fault(tmp_path: Path, policy: str, said: str) -> None:
    tools = "tools: [look]" if "look" in policy else "tools: [send, look]"
    spec = (SEND + policy).replace("tools: [send, look]", tools)
    assert fault(write(tmp_path, agent_yaml=spec, prompt_md="x", tools_py=TOOLS)) == f"agent.yaml:{said}"


def test_tools_that_always_ask_are_among_the_approvals(tmp_path: Path) -> None:
    tools = TOOLS.replace("@tool()", '@tool(risk="danger")')
    for approvals in ("", "approvals: [send]\n", "approvals: [look]\n"):
        spec = f"{REACT}tools: [send, look]\n{approvals}"
        catalog = load(write(tmp_path, agent_yaml=spec, prompt_md="x", tools_py=tools))
        shown = catalog.agents["probe"].public()["approvals"]
        assert sorted(shown) == (["look", "send"] if "look" in approvals else ["send"])
