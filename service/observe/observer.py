"""Observer of runs, steps, model attempts, tool calls and settlements, to which metrics and logs subscribe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from service.types import Run, Usage

CALLER_LEFT = "caller_left"  # error code of an attempt that was given up here: no fault of the model
# `started` and `over` delimit an execution in this process, whatever its outcome. In between: `ended` (see its status),
# `failed` by an internal error, waiting for an approval, a batch or money, `paused` as its agent is stopped, or
# `released` to another worker.
RunPhase = Literal[
    "started",
    "ended",
    "failed",
    "waits_for_approval",
    "waits_for_batch",
    "waits_for_budget",
    "paused",
    "released",
    "over",
]


@dataclass(frozen=True, slots=True)
class ModelAttempt:
    """Outcome of one attempt at a model call."""

    model: str
    attempt: int  # counted from 1
    ok: bool
    ms: float
    usage: Usage | None  # of a failed attempt: what it had reported before it broke off
    error_code: str | None
    stream: bool
    breaker_open: bool = False  # after this attempt
    provider: str = ""  # that was asked
    first_ms: float | None = None  # to its first text, where it was streamed
    headroom: tuple[
        tuple[str, float], ...
    ] = ()  # shares of the provider's rate limits that are left, by kind


class Settled(NamedTuple):
    """Settlement of a model call that is committed. Money is nano-dollars."""

    hold_id: str
    agent: str
    model: str
    usage: Usage
    cost: int
    held: int
    saved: int = 0  # by the provider's prompt cache, less the cost of writing it
    batch_saved: int = 0  # by the Batches API


class Observer:
    """Notifies its subscribers, in order, in the thread in which the event happens.

    A subscriber is an observer that overrides the methods it needs, and has none of its own.
    """

    _subscribers: tuple[Observer, ...] = ()

    def __init__(self, *subscribers: Observer) -> None:
        self._subscribers = subscribers

    def run(self, run: Run, phase: RunPhase, error: Exception | None = None) -> None:
        """Handle a new phase of a run. `error`: its failure, or the reason for its release."""
        for each in self._subscribers:
            each.run(run, phase, error)

    def step(self, run: Run, kind: str, name: str) -> None:
        """Handle a finished step, which the run's next transaction stores. `kind` is `model` or `tools`."""
        for each in self._subscribers:
            each.step(run, kind, name)

    def attempt(self, attempt: ModelAttempt) -> None:
        for each in self._subscribers:
            each.attempt(attempt)

    def context(self, agent: str, model: str, share: float) -> None:
        """Handle a prompt that was read: the share of the agent's context window that it fills."""
        for each in self._subscribers:
            each.context(agent, model, share)

    def first_text(self, agent: str, seconds: float) -> None:
        """Handle the first text of a run that is streamed, that long after its creation; told when the run ends."""
        for each in self._subscribers:
            each.first_text(agent, seconds)

    def escalated(self, agent: str) -> None:
        """Handle a run that asks a person to decide, for the first time."""
        for each in self._subscribers:
            each.escalated(agent)

    def tool(self, name: str, ok: bool, ms: float) -> None:
        for each in self._subscribers:
            each.tool(name, ok, ms)

    def guardrail(self, where: str, kind: str, action: str) -> None:
        """Handle a guardrail that acted. `kind` is one that is built in, or a rule's name."""
        for each in self._subscribers:
            each.guardrail(where, kind, action)

    def settlement(self, settled: Settled) -> None:
        for each in self._subscribers:
            each.settlement(settled)

    def budget_refused(self, scope: str) -> None:
        """Handle a model call that did not fit a cap. `scope` is only the kind, such as `user`, without an id."""
        for each in self._subscribers:
            each.budget_refused(scope)

    def budget_warning(self, scope: str, percent: int, public: Mapping[str, Any]) -> None:
        """Handle a cap that passed 50, 80 or 100 percent. `public` describes the cap, with its whole scope."""
        for each in self._subscribers:
            each.budget_warning(scope, percent, public)
