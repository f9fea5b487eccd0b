"""Events, metrics and audit rows of guardrails that find something in the texts of a run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from service.audit.record import Action, record
from service.guardrails.injection import find_instructions
from service.guardrails.prompt_marker import without_prompt
from service.llm.client import ModelReply
from service.observe.observer import Observer
from service.runs.attempt import Attempt
from service.tools import ToolResult
from service.types import Event

MOST_SOURCES = 20  # of untrusted text in a request that are told


def tell(attempt: Attempt, observer: Observer, where: str, kind: str, action: str, **more: Any) -> None:
    """Tell clients with the next transaction, and write its audit row in it. `more`: ids and names, never texts."""
    journal, run = attempt.journal, attempt.run
    acted = {"where": where, "kind": kind, "action": action, **more}
    observer.guardrail(where, kind, action)
    journal.publish_after_commit(Event.GUARDRAIL, {"step": journal.steps + 1, **acted})
    journal.write_with_next(
        partial(record, action=Action.GUARDRAIL, subject=f"run:{run.id}", agent=run.agent, acted=[acted])
    )


def tell_prompt(attempt: Attempt, observer: Observer, reply: ModelReply, marker: str) -> None:
    """Tell of a system prompt that was cut out of the last reply, or is in its calls."""
    if attempt.text.gave_away or any(
        without_prompt(use["input"], marker) is not use["input"] for use in reply.tool_uses
    ):
        tell(attempt, observer, "output", "prompt", "removed")


def flag_input(attempt: Attempt, observer: Observer) -> None:
    """Flag instructions in the untrusted text of a request: its context, its files, turns that are not the user's."""
    sources = {source for source, text in attempt.taint.texts if find_instructions(text)}
    for source in sorted(sources)[:MOST_SOURCES]:
        tell(attempt, observer, "input", "injection", "flagged", source=source)


def flag_results(
    attempt: Attempt, observer: Observer, reply: ModelReply, results: Sequence[ToolResult]
) -> None:
    """Flag instructions in the results of tools."""
    for use, result in zip(reply.tool_uses, results, strict=True):
        if result.signs:
            tell(attempt, observer, "tool", "injection", "flagged", source=use["name"], call_id=use["id"])
