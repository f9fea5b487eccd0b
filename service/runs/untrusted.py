"""Untrusted text of a run: taken in from its request, its session and its steps; and its answers without links.

Nothing of it is stored with a run: each attempt finds it again in what is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from service.agents.definitions import AgentDefinition
from service.agents.flows import link_hosts
from service.guardrails import taint
from service.guardrails.hosts import Hosts
from service.guardrails.links import without_links
from service.guardrails.taint import Taint, text_in
from service.history import History
from service.llm.client import ModelReply, ModelRequest
from service.text import exact_json
from service.tools import ToolResult
from service.types import Answer, RunRequest


def taint_of(request: RunRequest) -> Taint:
    """Return the untrusted text of a request."""
    found = Taint()
    found.add_turn(request.messages)
    if request.context not in (None, "{}"):
        data = exact_json.loads(request.context.encode())
        found.add(taint.CONTEXT, f"{request.context}\n{text_in(data)}")
    return found


def add_history(found: Taint, past: History) -> None:
    """Add the earlier turns of a session whose runs held untrusted text, as their answers may repeat it."""
    for row in (*past.older, *past.recent):
        message = {"role": row["role"], "content": row["content"]}
        if row["role"] == "user":
            found.add_turn([message])
            continue
        for source in (taint.SESSION,) if row["untrusted"] is None else row["untrusted"]:
            found.add(source, text_in(row["content"]))
    if past.summary:
        for source in (taint.SESSION,) if past.untrusted is None else past.untrusted:
            found.add(source, past.summary)


def noting(agent: AgentDefinition, found: Taint) -> AgentDefinition:
    """Return an agent for its pattern: untrusted passages that it reads, not by a tool, are added."""
    if agent.knowledge is None:
        return agent
    return replace(agent, knowledge=agent.knowledge.for_pattern(partial(found.add, taint.KNOWLEDGE)))


def add_results(
    found: Taint, agent: AgentDefinition, reply: ModelReply, results: Sequence[ToolResult]
) -> None:
    """Add results that may not be trusted, and the addresses that calls have read.

    Those are the results of tools that are not declared `trusted`, and of ones that have read untrusted documents.
    """
    for use, result in zip(reply.tool_uses, results, strict=True):
        tool = agent.tools.get(use["name"])
        if tool is not None and tool.sends and result.ok:
            found.read.update(value for value in use["input"].values() if isinstance(value, str))
        if tool is not None and (result.untrusted or not tool.trusted):
            found.add(tool.name, result.content)


def hosts_of(found: Taint, agent: AgentDefinition, request: ModelRequest) -> Hosts | None:
    """Return the hosts that a reply may link to; None: any, as the run holds no untrusted text.

    Tools of the model's provider put some into the very reply that is to come.
    """
    if not found and all("input_schema" in tool for tool in request.tools):
        return None
    return link_hosts(agent, found)


def answer_hosts(found: Taint, agent: AgentDefinition) -> Hosts | None:
    """Return the hosts that an answer may link to; None: any, as the run holds no untrusted text."""
    return link_hosts(agent, found) if found else None


def clean(text: str, found: Taint, agent: AgentDefinition) -> str:
    """Take links out of a text that no model wrote."""
    return without_links(text, link_hosts(agent, found)) if found else text


def answer_without_links(answer: Answer, found: Taint, agent: AgentDefinition) -> Answer:
    """Take links out of an answer and its sources, as far as they are not from replies without any.

    The address of a page that was read stays in its source: its call was allowed.
    """
    if not found:
        return answer
    hosts = link_hosts(agent, found)
    sources = [
        {
            name: text if name == "uri" and text in found.read else without_links(text, hosts)
            for name, text in source.items()
        }
        for source in answer.sources
    ]
    output, untold = without_links(answer.output, hosts), without_links(answer.untold, hosts)
    return replace(answer, output=output, untold=untold, sources=tuple(sources))
