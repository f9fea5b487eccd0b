"""Agents of the catalog that run elsewhere: the folder stays, its pattern's steps are taken at an address."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import replace

from service.agents.definitions import AgentDefinition, Finding, FolderFault
from service.agents.pattern import PatternModule
from service.agents.remote_spec import is_allowed, names_of

REMOTE = "remote"  # the pattern that asks an address
SETTING = "REMOTE_AGENTS"


def addresses_of(setting: str) -> Mapping[str, str]:
    """Return the addresses by agent; the setting is `name=URL`, separated by commas."""
    return dict(one.split("=", 1) for one in setting.split(",") if one)


def elsewhere(agent: AgentDefinition, address: str, patterns: Mapping[str, PatternModule]) -> AgentDefinition:
    """Return the agent as one that is asked at an address; its tools, limits and cache stay what its folder says."""
    options = patterns[REMOTE].Options.model_validate({REMOTE: {"url": address}})
    return replace(agent, pattern=REMOTE, options=options, program=None)


def nowhere_faults(addresses: Mapping[str, str], folders: Collection[str]) -> Iterator[FolderFault]:
    """Find addresses of agents that have no folder."""
    for name in addresses.keys() - set(folders):
        yield FolderFault(name, SETTING, 0, name, "there is no folder of this agent")


def not_allowed(agent: AgentDefinition, hosts: Set[str]) -> Iterator[Finding]:
    """Warn of an agent at a host that the operator has not named: its runs fail before anything is sent."""
    url = agent.options.model_dump()[REMOTE]["url"] if agent.pattern == REMOTE else None
    if url is not None and not is_allowed(url, hosts):
        detail = f"REMOTE_HOSTS does not name {names_of(url)[0]}: every run fails until it does"
        yield Finding((REMOTE, "url"), detail, "warning")
