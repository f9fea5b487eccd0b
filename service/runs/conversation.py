"""Conversation that a run's pattern is given: the turns of its session, and its own."""

from __future__ import annotations

from service.agents.definitions import AgentDefinition
from service.agents.pattern import Events, Prompt
from service.history import SUMMARISE, alternating
from service.runs.attempt import Attempt
from service.runs.forked import as_kept, continues_session
from service.runs.steps import RunSteps
from service.runs.turn import with_context
from service.runs.untrusted import add_history
from service.sessions import Sessions
from service.types import Message

SUMMARY = "summarise"  # step that shortens the history of a session


def conversation(
    sessions: Sessions, agent: AgentDefinition, attempt: Attempt, steps: RunSteps
) -> Events[tuple[Message, ...]]:
    """Return the messages of the session, older ones summarised where they do not fit, and this turn's."""
    run = attempt.run
    turn = with_context(run.request, instructed=not agent.is_model)
    if not continues_session(run):
        return alternating(turn)
    past = sessions.history(run, agent.history_tokens)
    past, summarised = as_kept(run, attempt.journal, past, SUMMARY)
    add_history(attempt.taint, past)
    attempt.rails.vault.take(past.placeholders)
    if summarised:
        prompt = Prompt(
            system=SUMMARISE,
            messages=past.summary_request(),
            tier="simple",
            max_tokens=sessions.summary_limit(agent.history_tokens),
            publish=False,
        )
        reply = yield from steps.model(SUMMARY, prompt, counts=False)
        summary = reply.text if reply.stop_reason != "refusal" else ""
        if summary and past.older:
            attempt.summary = (past.older[-1]["seq"], summary)
        past = past.summarised(summary)
    return past.conversation(turn)
