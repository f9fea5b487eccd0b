"""Agents of the catalog that run elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from service.agents.catalog import AgentCatalog
from service.agents.elsewhere import addresses_of
from service.agents.patterns import PATTERNS
from service.agents.spec import PatternOptions, Spec
from tests.agents.folders import Write
from tests.agents.folders import write as write  # fixture
from tests.agents.house import AVAILABLE, REACT, TOOLS, load

ADDRESS = "http://pieces:9100/probe"


class Address(Spec):
    url: str


class Options(PatternOptions):
    remote: Address | None = None


def check(*facts: Any) -> Iterator[Any]:
    yield from ()


def catalog(folder: Path, setting: str) -> AgentCatalog:
    patterns: Any = {**PATTERNS, "remote": SimpleNamespace(Options=Options, check=check)}
    return AgentCatalog(folder, replace(AVAILABLE, patterns=patterns, addresses=addresses_of(setting)))


def test_agent_is_asked_at_its_address_and_is_otherwise_what_its_folder_says(write: Write) -> None:
    folder = write(agent_yaml=REACT + "tools: [look]\nlimits: {steps: 3}\n", tools_py=TOOLS)
    here, there = load(folder).agents["probe"], catalog(folder, f"probe={ADDRESS}").agents["probe"]
    assert there.pattern == "remote" and there.options == Options(remote=Address(url=ADDRESS))
    assert there.public() == {**here.public(), "pattern": "remote"}
    assert (there.public()["tools"], there.cache, there.version) == (["look"], here.cache, here.version)


def test_other_agents_stay(write: Write) -> None:
    write()
    folder = write("other")
    agents = catalog(folder, f"probe={ADDRESS}").agents
    assert (agents["probe"].pattern, agents["other"].pattern) == ("remote", "single")


def test_address_of_no_folder_is_a_fault(write: Write) -> None:
    (fault,) = catalog(write(), f"prob={ADDRESS}").faults
    assert str(fault) == "REMOTE_AGENTS: prob: there is no folder of this agent"


def test_host_that_the_operator_has_not_named_is_a_warning(write: Write) -> None:
    text = f"description: Answers elsewhere.\npattern: remote\nremote: {{url: {ADDRESS}}}\n"
    folder = write(agent_yaml=text)
    hosts: list[tuple[set[str], int]] = [
        ({"pieces:9100"}, 0),
        ({"pieces"}, 0),
        ({"pieces:9101"}, 1),
        (set(), 1),
    ]
    for allowed, warnings in hosts:
        found = AgentCatalog(folder, replace(AVAILABLE, patterns=PATTERNS, hosts=frozenset(allowed)))
        assert found.faults == () and len(found.warnings) == warnings, allowed
    (warning,) = found.warnings
    assert (warning.line, warning.field) == (3, "remote.url")
    assert warning.detail == "REMOTE_HOSTS does not name pieces:9100: every run fails until it does"


def test_address_of_the_operators_at_a_host_that_is_not_named_is_a_warning_too(write: Write) -> None:
    available = replace(
        AVAILABLE, patterns=PATTERNS, addresses={"probe": ADDRESS}, hosts=frozenset({"other:9100"})
    )
    (warning,) = AgentCatalog(write(), available).warnings
    assert "REMOTE_HOSTS does not name pieces:9100" in str(warning)
