"""Estimates of runs before they begin: the ceiling, what is left under the caps, and what runs like it have cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from service.runs.budget_waits import scopes_of_run
from service.runs.ceiling import Ceilings, ceiling, public
from service.runs.guardrails import Guardrails
from service.runs.new_run import NewRuns
from service.sessions import Sessions
from service.store import messages, run_costs
from service.store.database import Database
from service.store.visibility import visible_to
from service.types import DEFAULT_WORKSPACE, Caller, Run, RunRequest, usd
from service.usage.budgets import Budgets
from service.usage.caps import NO_LIMIT
from service.usage.reservation import Spending

LIKE_IT = 200  # of a user's last runs of the agent


@dataclass(frozen=True, slots=True)
class Estimates:
    """Estimates, one per process."""

    db: Database
    new_runs: NewRuns
    sessions: Sessions
    budgets: Budgets
    spending: Spending
    ceilings: Ceilings
    guardrails: Guardrails

    def of(self, caller: Caller, request: RunRequest) -> dict[str, Any]:
        """Estimate a run. Raises `PriceUnknown`, `NotFound` and `Invalid`, as its start would."""
        run = self.new_runs.make(caller, request, "wait", "")
        agent, size = self.new_runs.agent_of(run), 0
        agent = replace(agent, guardrails=self.guardrails.rail(run, agent))
        if request.session_id is not None:
            session = self.sessions.get(caller, request.session_id, own=True)
            size = self.db.query(partial(messages.size, session_id=session["id"]))
        steps = self.ceilings.steps(agent, run.request, size)
        costs = self.db.query(partial(run_costs.recent, user_id=run.user_id, agent=run.agent, limit=LIKE_IT))
        return {
            "ceiling_usd": usd(ceiling(steps, self.spending.remaining_budget(run))),
            "steps": [public(step) for step in steps],
            "left": self._left(caller, run),
            "like_it": {"median_usd": _at(costs, 50), "p95_usd": _at(costs, 95), "runs": len(costs)},
        }

    def _left(self, caller: Caller, run: Run) -> dict[str, str]:
        """Return what is left under each cap on the run that the caller may see, in dollars."""
        visible = visible_to(caller)
        hidden = [] if caller.workspace_id == DEFAULT_WORKSPACE else ["service", "agent"]
        if visible.user_id is not None:  # others would reveal what other users spend …
            hidden = ["service", "agent", "workspace"]
        if visible.scopes:  # … and for a key for some agents, what is spent on other agents
            hidden = ["service", "agent", "workspace", "user"]
        scopes = [scope for scope in scopes_of_run(run) if scope.partition(":")[0] not in hidden]
        states = [state for state in self.budgets.of(scopes) if state.cap.amount < NO_LIMIT]
        return {state.cap.id: usd(state.left // 1_000 * 1_000) for state in states}


def _at(costs: Sequence[int], percent: int) -> str | None:
    """Return the percentile of sorted costs by nearest rank, in dollars; None of none."""
    return usd(costs[-(-len(costs) * percent // 100) - 1]) if costs else None
