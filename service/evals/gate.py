"""Gate for changed prompts: does the kept baseline tell of the agent as it is now?"""

from __future__ import annotations

from service.agents.definitions import AgentDefinition
from service.agents.files import parts_of
from service.evals import results
from service.evals.results import Record


def stale(agent: AgentDefinition) -> list[str]:
    """List what changed since the results were kept; nothing without a kept baseline. Raises `BadBaseline`.

    Results with a real model count for more: once there are any, those with the offline model alone do not do.
    """
    kept = results.kept(agent.folder)
    record = kept.find(agent.id, "real") or kept.find(agent.id, "offline")
    return [] if record is None else [*_changed_parts(agent, record), *_unasked(agent, record)]


def _changed_parts(agent: AgentDefinition, record: Record) -> list[str]:
    now, then = parts_of(agent.folder), record.parts
    changed = [name for name in sorted(now.keys() | then.keys()) if now.get(name) != then.get(name)]
    return [f"{name} changed since its evals passed ({record.model} model)" for name in changed]


def _unasked(agent: AgentDefinition, record: Record) -> list[str]:
    asked = record.by_key
    offline = record.model == "offline"
    new = [case for case in agent.evals if case.key not in asked and not (offline and case.needs_real_model)]
    return [f"evals.yaml has a case without results: {case.input[:80]!r}" for case in new]
