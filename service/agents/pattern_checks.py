"""Checks that several patterns share: tools, and documents with the tool that searches them."""

from __future__ import annotations

from collections.abc import Iterator

from service.agents.definitions import Finding
from service.agents.spec import AgentSpec
from service.knowledge import Knowledge
from service.tools.skills import FOLDER
from service.tools.sources.builtin import calculator, search_knowledge
from service.tools.sources.skills import LOAD_SKILL


def tools_unused(spec: AgentSpec) -> Iterator[Finding]:
    """Warn of tools that the pattern never calls, and of skills, which are read by a tool."""
    if LOAD_SKILL in spec.tools:
        detail = f"pattern {spec.pattern} reads no skills: use react"
        yield Finding((), detail, "warning", FOLDER)
    if set(spec.tools) - {LOAD_SKILL}:
        detail = f"pattern {spec.pattern} calls no tools: use react, or leave them out"
        yield Finding(("tools",), detail, "warning")


def documents_unread(spec: AgentSpec, knowledge: Knowledge | None) -> Iterator[Finding]:
    """Warn of documents, for a pattern that reads none."""
    if knowledge is not None and knowledge.passages:
        tool = search_knowledge.name
        detail = f"pattern {spec.pattern} reads no documents: use router, or react with the tool {tool}"
        yield Finding((), detail, "warning", "knowledge")


def search_mismatch(spec: AgentSpec, knowledge: Knowledge | None) -> Iterator[Finding]:
    """Warn of a search without documents, and of documents that no tool reads."""
    if knowledge is None or not knowledge.passages:
        if search_knowledge.name in spec.tools:
            detail = f"{search_knowledge.name} has nothing to search: write knowledge/*.md"
            yield Finding(("tools", spec.tools.index(search_knowledge.name)), detail, "warning")
    elif not set(spec.tools) - {calculator.name, LOAD_SKILL}:  # the agent's own tools may search them
        detail = f"no tool reads these documents: list {search_knowledge.name} under `tools`"
        yield Finding((), detail, "warning", "knowledge")
