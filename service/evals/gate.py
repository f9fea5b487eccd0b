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
    return [] if record is None else [*_changed_parts(agent, record), *_changed_cases(agent, record)]


def lost(agent: AgentDefinition) -> bool:
    """Return whether an agent has kept results and no cases any more."""
    return not agent.evals and results.kept_file(agent.folder).exists()


def _changed_parts(agent: AgentDefinition, record: Record) -> list[str]:
    now, then = parts_of(agent.folder), record.parts
    changed = [name for name in sorted(now.keys() | then.keys()) if now.get(name) != then.get(name)]
    return [f"{name} changed since its evals passed ({record.model} model)" for name in changed]


def _changed_cases(agent: AgentDefinition, record: Record) -> list[str]:
    asked, now = record.by_key, {case.key for case in agent.evals}
    offline = record.model == "offline"
    new = [case for case in agent.evals if case.key not in asked and not (offline and case.needs_real_model)]
    gone = [case for case in record.cases if case.key not in now]
    found = [f"evals.yaml has a case without results: {case.input[:80]!r}" for case in new]
    return [*found, *(f"evals.yaml lost a case that has results: {case.input[:80]!r}" for case in gone)]
