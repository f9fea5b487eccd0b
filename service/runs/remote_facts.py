"""Facts that a run's Slipway gives to an agent served alone: member `slipway` of the request."""

from __future__ import annotations

from typing import Any

from service.agents.definitions import AgentDefinition
from service.guardrails.taint import Taint


def facts_of(agent: AgentDefinition, taint: Taint) -> dict[str, Any]:
    """Return the tools that the run's user may use, the sources of untrusted text, and the user's own words.

    `agent` has permitted tools only, see `ToolExecution.permitted`.
    """
    return {"tools": list(agent.tools), "untrusted": list(taint.sources), "words": list(taint.words)}
