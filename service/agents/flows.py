"""Flows of an agent: untrusted text that a tool may follow without a person, and its links."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from service.agents.definitions import AgentDefinition, Finding
from service.agents.spec import AgentSpec
from service.guardrails import taint
from service.guardrails.hosts import EVERY_HOST, Hosts, hosts_in
from service.guardrails.taint import Taint
from service.text.suggest import did_you_mean
from service.tools import Tool

Said = Callable[[Mapping[str, Any]], bool]
PROVIDER_TOOLS = ("web_search", "web_fetch", "code_execution")  # run by the model's provider


def uncovered(
    agent: AgentDefinition,
    tool: Tool | None,
    sources: Sequence[str],
    arguments: Mapping[str, Any],
    said: Said,
) -> tuple[str, ...]:
    """Return the sources of untrusted text that no flow lets the tool follow. A `danger` tool follows none.

    A tool that only reads needs no flow where its arguments are `said` by the user, or its policy names the hosts.
    """
    if tool is None or (not tool.changes and (_is_bounded(agent, tool, arguments) or said(arguments))):
        return ()
    allowed = agent.flows.get(tool.name, ()) if tool.risk != "danger" else ()
    return tuple(source for source in sources if source not in allowed)


def _is_bounded(agent: AgentDefinition, tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Return whether the policy of the tool says to which hosts its texts may go."""
    policy = agent.policies.get(tool.name)
    texts = {name for name, value in arguments.items() if not isinstance(value, int | float)}
    return policy is not None and texts <= policy.allowed_domains.keys()


def link_hosts(agent: AgentDefinition, run_taint: Taint) -> Hosts:
    """Return the hosts that answers may link to: listed, in the user's words, in the agent's prompt and documents.

    Its skills are documents. A model that is asked as it is may link to any: what its answers are shown in is its
    client's.
    """
    if agent.is_model:
        return EVERY_HOST
    documents = agent.knowledge.hosts if agent.knowledge is not None else frozenset[str]()
    return Hosts.of(agent.links).plus(run_taint.hosts, hosts_in(agent.prompt), documents, agent.skill_hosts)


def flow_findings(spec: AgentSpec, available: Mapping[str, Tool]) -> Iterator[Finding]:
    """Find flows of unknown tools and sources; warn of those without effect."""
    for name, sources in spec.flows.items():
        if name not in spec.tools:
            hint = did_you_mean(name, spec.tools)
            yield Finding(("flows", name), f"{name!r} is not one of this agent's tools{hint}")
        elif name in available and available[name].risk == "danger":
            yield Finding(("flows", name), "has no effect: a person decides about each call", "warning")
        elif name in available and not available[name].acts:
            yield Finding(("flows", name), "has no effect: the tool only reads", "warning")
        known = (*spec.tools, *taint.SOURCES, *PROVIDER_TOOLS)
        for number, source in enumerate(sources):
            if source not in known:
                detail = f"there is no source {source!r}{did_you_mean(source, known)}"
                yield Finding(("flows", name, number), detail)
