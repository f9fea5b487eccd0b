"""Attempt at a fork: its agent, the record of calls, and the conversation that it continues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from service.agents.definitions import AgentDefinition
from service.errors import NotForkable
from service.guardrails.policy import stricter
from service.history import History
from service.runs.attempt import Attempt
from service.runs.call_record import CallRecord, record_of
from service.runs.journal import PATIENCE, Journal
from service.store import runs, steps, tool_calls
from service.store.database import Database, Transaction
from service.types import Run, RunRequest

GONE = "The run that this is a fork of is gone."
# For code that knows no forks: it takes none of an agent's tools to be permitted, so it calls none.
NO_TOOLS = ("tools:none",)


def prepare(db: Database, agent: AgentDefinition, attempt: Attempt) -> AgentDefinition:
    """Read the record of a fork, and return its agent with the fork's own prompt. Raises `NotForkable`."""
    fork = attempt.run.request.fork
    if fork is None:
        return agent
    sources = {fork["run_id"], fork.get("turn", fork["run_id"])}

    def read(tx: Transaction) -> CallRecord | None:
        if any(runs.get(tx, run_id) is None for run_id in sources):
            return None
        return record_of(steps.of_run(tx, fork["run_id"]), tool_calls.of_run(tx, fork["run_id"]))

    attempt.record = db.query(read, patience=PATIENCE)
    if attempt.record is None:
        raise NotForkable(GONE)
    prompt = fork.get("prompt")
    return agent if prompt is None else replace(agent, prompt=prompt)


def guarded_today(agent: AgentDefinition, current: AgentDefinition | None, run: Run) -> AgentDefinition:
    """Return the agent of a run; of a fork, whose version may be an old one, with the guardrails of today too."""
    if run.request.fork is None or current is None or current.version == agent.version:
        return agent
    return replace(agent, guardrails=stricter(agent.guardrails, current.guardrails))


def scopes_of(request: RunRequest) -> Sequence[str]:
    """Return the scopes of the key with which a run was started that are about tools; none: all are permitted."""
    found = request.tool_scopes if request.fork is None else request.fork.get("tool_scopes")
    return found or ()


def continues_session(run: Run) -> bool:
    """Return whether a run continues the turns of a session: its own, or as a fork those before the forked turn."""
    return run.request.session_id is not None or "session_id" in (run.request.fork or {})


def as_kept(run: Run, journal: Journal, past: History, summarise: str) -> tuple[History, bool]:
    """Return the history, and whether the model is asked to summarise it, in the step `summarise`.

    A fork with steps has what these say: the session may have gone on, with a summary of its own.
    """
    if run.request.fork is None or not journal.known_steps:
        return past, bool(past.older)
    if journal.is_stored("model", summarise):
        return past, True
    return past._replace(older=(), recent=(*past.older, *past.recent)), False
