"""Flows and links of an agent: which untrusted text a tool may follow, and their faults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from service.agents.definitions import AgentDefinition
from service.agents.flows import link_hosts, uncovered
from service.guardrails.taint import Taint
from tests.agents.house import REACT, load, write

TOOLS = '''
from service.tools import tool


@tool(risk="read")
def read_mail() -> str:
    """Read."""
    return ""


@tool()
def send_mail() -> str:
    """Send."""
    return ""


@tool(risk="read", sends=True)
def look_up(url: str, page: int = 0) -> str:
    """Look up."""
    return ""


@tool(risk="danger")
def drop() -> str:
    """Drop."""
    return ""
'''
SPEC = REACT + "tools: [read_mail, send_mail, look_up, drop]\n"


def agent_of(folder: Path, spec: str, **files: str) -> AgentDefinition:
    catalog = load(write(folder, agent_yaml=SPEC + spec, tools_py=TOOLS, **{"prompt_md": "x", **files}))
    assert catalog.faults == ()
    return catalog.agents["probe"]


def test_a_tool_follows_the_sources_that_its_flow_names(tmp_path: Path) -> None:
    agent = agent_of(tmp_path, "flows: {send_mail: [read_mail, context]}\n")
    send = agent.tools["send_mail"]
    assert uncovered(agent, send, ("context", "read_mail"), {}, Taint().is_said) == ()
    assert uncovered(agent, send, ("read_mail", "session"), {}, Taint().is_said) == ("session",)
    assert uncovered(agent, None, ("read_mail",), {}, Taint().is_said) == ()


def test_a_tool_that_sends_follows_the_users_own_words_and_bounded_hosts(tmp_path: Path) -> None:
    agent = agent_of(tmp_path, "policies: {look_up: {allowed_domains: {url: [harbor.test]}}}\n")
    free = replace(agent, policies={})
    tool, words = agent.tools["look_up"], Taint()
    words.trust("What does https://example.org/a say?")
    said, other = {"url": "https://example.org/a", "page": 2}, {"url": "https://evil.test/?secret"}
    assert uncovered(free, tool, ("read_mail",), said, words.is_said) == ()
    assert uncovered(free, tool, ("read_mail",), other, words.is_said) == ("read_mail",)
    assert uncovered(agent, tool, ("read_mail",), other, words.is_said) == ()  # refused by its policy


def test_a_tool_of_danger_follows_none(tmp_path: Path) -> None:
    agent = replace(agent_of(tmp_path, ""), flows={"drop": ("read_mail",)})
    assert uncovered(agent, agent.tools["drop"], ("read_mail",), {}, Taint().is_said) == ("read_mail",)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("flows: {send_mial: [context]}\n", "'send_mial' is not one of this agent's tools"),
        ("flows: {send_mail: [contxt]}\n", "there is no source 'contxt'; did you mean 'context'?"),
        ("links: ['https://example.org']\n", "links.0: must be a host without scheme and path"),
        ("links: ['*']\n", "links.0: "),
    ],
)
def test_unknown_names_are_faults(tmp_path: Path, spec: str, said: str) -> None:
    (found,) = load(write(tmp_path, agent_yaml=SPEC + spec, tools_py=TOOLS, prompt_md="x")).faults
    assert said in str(found)


@pytest.mark.parametrize(
    ("name", "why"), [("drop", "a person decides"), ("read_mail", "the tool only reads")]
)
def test_a_flow_without_effect_is_a_warning(tmp_path: Path, name: str, why: str) -> None:
    spec = SPEC + f"flows: {{{name}: [context]}}\n"
    (found,) = load(write(tmp_path, agent_yaml=spec, tools_py=TOOLS, prompt_md="x")).warnings
    assert why in str(found)


def test_answers_may_link_to_what_author_documents_and_user_name(tmp_path: Path) -> None:
    files = {"prompt_md": "Point to https://help.test/x.", "knowledge__a_md": "# A\nSee docs.test/a."}
    agent, taint = agent_of(tmp_path, "links: [good.test, '*.harbor.test']\n", **files), Taint()
    taint.trust("Is mine.test up?")
    taint.add("context", "evil.test")
    hosts = link_hosts(agent, taint)
    assert [
        name in hosts for name in ("good.test", "a.harbor.test", "help.test", "docs.test", "mine.test")
    ] == [True] * 5
    assert "evil.test" not in hosts
