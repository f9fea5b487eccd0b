"""Agents and tools of installed packages: only where the operator allows the package, and never in another's place."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from service.agents.catalog import AgentCatalog
from service.agents.loader import Available
from service.agents.packages import packaged_agents
from service.tools.sources import SOURCES
from service.tools.sources.packages import Packages, PackageTools
from tests.agents import house
from tests.agents.installed import AGENTS, STAMP, TOOLS, Install, add_agent, install

__all__ = ["install"]
ACME = {AGENTS: {"library": "acme_tools.library"}, TOOLS: {"stamp": "acme_tools.stamps:stamp"}}


def catalog(tmp_path: Path, names: str) -> AgentCatalog:
    """As `service.agents.build` makes it."""
    (tmp_path / "agents").mkdir(exist_ok=True)
    packages = Packages(names)
    tools = PackageTools(packages)
    available = Available(house.AVAILABLE.patterns, (tools, *SOURCES), house.MODELS, house.AVAILABLE.prices)
    return AgentCatalog(tmp_path / "agents", available, packaged_agents(packages, tools))


@pytest.fixture
def acme(install: Install, tmp_path: Path) -> None:
    install("acme-tools", ACME, stamps=STAMP)
    add_agent(tmp_path, "acme_tools")


@pytest.mark.usefixtures("acme")
def test_an_allowed_package_brings_its_agents_and_tools(tmp_path: Path) -> None:
    found = catalog(tmp_path, " Acme.Tools ,")  # names are compared as pip does
    assert found.faults == () and list(found.agents) == ["library"]
    assert list(found.agents["library"].tools) == ["look", "acme_tools_stamp"]
    assert (found.origin("library"), found.packaged.tool_origins) == (
        "acme-tools 1.2",
        {"acme_tools_stamp": "acme-tools 1.2"},
    )


@pytest.mark.usefixtures("acme")
def test_a_package_that_is_not_allowed_is_not_even_imported(tmp_path: Path) -> None:
    found = catalog(tmp_path, "")
    assert (dict(found.agents), found.faults, found.origin("library")) == ({}, (), None)
    assert not any(name.startswith("acme") for name in sys.modules)


@pytest.mark.usefixtures("acme")
def test_an_agent_of_the_operator_may_list_a_tool_of_a_package(tmp_path: Path) -> None:
    house.write(tmp_path / "agents", agent_yaml=f"{house.REACT}tools: [acme_tools_stamp]\n", prompt_md="x")
    assert list(catalog(tmp_path, "acme-tools").agents) == ["probe", "library"]
    [fault] = catalog(tmp_path, "").faults
    assert "there is no tool 'acme_tools_stamp'" in fault.detail


@pytest.mark.usefixtures("acme")
def test_a_folder_of_the_operator_is_served_in_place_of_a_package_s(tmp_path: Path) -> None:
    house.write(tmp_path / "agents", "library", agent_yaml=house.GOOD, prompt_md="x")
    found = catalog(tmp_path, "acme-tools")
    assert (found.agents["library"].pattern, found.origin("library")) == ("single", None)
    assert [str(fault) for fault in found.faults] == [
        f"{tmp_path}/agents/library: takes the place of the agent of package acme-tools 1.2: rename it"
    ]


@pytest.mark.usefixtures("acme")
def test_two_packages_with_one_name_bring_neither(install: Install, tmp_path: Path) -> None:
    own = {AGENTS: {"library": "acme.library"}, TOOLS: {"stamp": "acme.stamps:tools_stamp"}}
    install("acme", own, stamps=STAMP.replace("def stamp", "def tools_stamp"))
    add_agent(tmp_path, "acme")
    found = catalog(tmp_path, "acme,acme-tools")
    assert dict(found.agents) == {} and found.packaged.tool_origins == {}
    assert [str(fault) for fault in found.faults] == [
        "package acme-tools: entry point stamp: there is another tool 'acme_tools_stamp'",
        "package acme-tools: entry point library: acme 1.2 has an agent of this name",
    ]


@pytest.mark.parametrize(
    ("group", "value", "detail"),
    [
        (TOOLS, "acme.stamps:NO_TOOL", "BadTool: the entry point names no Tool: make one with @tool()"),
        (TOOLS, "acme.stamps:none", "AttributeError: 'none'"),
        (TOOLS, "acme.nothing:stamp", "ModuleNotFoundError: there is no module 'acme.nothing'"),
        (TOOLS, "acme.broken:stamp", "SystemExit"),
        (AGENTS, "acme.nothing", "'acme.nothing' is no folder of the package"),
        (AGENTS, "acme.stamps", "'acme.stamps' is no folder of the package"),
        (AGENTS, "acme.library:x", "'acme.library:x' is no folder of the package"),
        (AGENTS, "acme", "the folder is called 'acme': give the entry point the same name"),
        (AGENTS, "nowhere.library", "ModuleNotFoundError: there is no module 'nowhere'"),
    ],
)
def test_a_fault_names_package_and_entry_point(
    install: Install, tmp_path: Path, group: str, value: str, detail: str
) -> None:
    install("acme", {group: {"library": value}}, stamps=STAMP, broken="raise SystemExit('hush')")
    add_agent(tmp_path, "acme")
    [fault] = catalog(tmp_path, "acme").faults
    assert str(fault).startswith(f"package acme: entry point library: {detail}")
    assert "hush" not in str(fault)


def test_tool_with_the_name_of_a_built_in_one_is_a_fault(install: Install, tmp_path: Path) -> None:
    install(
        "search",
        {TOOLS: {"x": "search.stamps:knowledge"}},
        stamps=STAMP.replace("def stamp", "def knowledge"),
    )
    found = catalog(tmp_path, "search")
    [fault] = found.faults
    assert fault.detail == "there is another tool 'search_knowledge'" and found.packaged.tool_origins == {}


def test_a_package_that_is_not_installed_is_a_fault(tmp_path: Path) -> None:
    [fault] = catalog(tmp_path, "acme-nowhere").faults
    assert str(fault) == "package acme-nowhere: AGENT_PACKAGES names it, and it is not installed"


@pytest.mark.usefixtures("acme")
def test_a_fault_in_a_packaged_folder_has_its_line(tmp_path: Path) -> None:
    add_agent(tmp_path, "acme_tools", spec="description: x\npattern: none\n")
    [fault] = catalog(tmp_path, "acme-tools").faults
    assert str(fault).startswith(f"{tmp_path}/site/acme_tools/library/agent.yaml:2: pattern: there is no")
