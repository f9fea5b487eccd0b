"""Attempt at a run: the state of one execution in this process. `service.types.Run`, the run's row, outlives it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from service.guardrails.in_force import NOTHING
from service.guardrails.keyed_vault import KeyedVault
from service.guardrails.taint import Taint
from service.observe.observer import Observer
from service.runs.call_record import CallRecord
from service.runs.journal import Journal
from service.runs.output_form import OutputForm
from service.runs.relayed_call import RelayedCall
from service.runs.run_rails import RunRails
from service.runs.slots import Handle
from service.runs.text_output import TextOutput
from service.runs.untrusted import taint_of
from service.store.holds import Hold
from service.tools import ToolResult
from service.types import Block, Run, ToolUse

StaleAnswer = dict[str, Any] | None  # from the cache, for use when the model is unavailable


@dataclass(slots=True)
class Attempt:
    """Execution of `run` by one worker. A resumed run gets another, with the stored steps in its journal."""

    run: Run
    journal: Journal
    handle: Handle  # stops it; holds its deadline and the model call under way
    stale_answer: StaleAnswer = None
    form: OutputForm | None = None  # of the answer
    summary: tuple[int, str] | None = None  # (number, text): summary of the session up to that message
    tools_used: list[ToolUse] = field(default_factory=list)
    lost_calls: list[ToolUse] = field(default_factory=list)  # of earlier attempts, whose end nobody was told
    model_seconds: float = 0.0  # spent waiting for the model
    tree: Hold | None = None  # of a sub-agent: the hold from which those of its calls are taken
    relayed: RelayedCall | None = None  # of a relayed run, in its first attempt
    record: CallRecord | None = None  # of a fork: the calls of the run that it is of
    clamped: int | None = None  # token limit of the most shortened answer, set by a spending cap
    text: TextOutput = field(init=False)
    rails: RunRails = field(init=False)
    taint: Taint = field(init=False)  # untrusted text in the run so far

    def __post_init__(self) -> None:
        self.rails = RunRails(self.run, NOTHING, KeyedVault(b""), self.journal, Observer())
        self.text = TextOutput(self.journal, self.rails)
        self.taint = taint_of(self.run.request)

    def guard(self, rails: RunRails) -> None:
        """Put all text of this attempt under guardrails."""
        self.rails = self.text.rails = rails
        if rails.in_force.acts_out:
            self.journal.events.shown = rails.event

    def add_use(self, use: Block, result: ToolResult) -> None:
        """Add a tool call that has ended, made now or by an earlier attempt."""
        self.tools_used.append(ToolUse(self.rails.shown(use["name"]), result.ok, round(result.ms)))
        if self.record is not None:
            self.record.take(use)
