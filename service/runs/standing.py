"""Values of the metrics that stand in the database: see `service.store.standing`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from service.agents.catalog import AgentCatalog
from service.observe.stored_values import Values
from service.store import caps, standing
from service.store.database import Database, Transaction
from service.types import NANO, PRIORITIES, now_ms
from service.usage.budgets import Budgets
from service.usage.caps import window_start

MAX_AGENTS = 100  # whose caps are told
OVERSHOOT_SECONDS = 30.0  # for which `overshoot` is kept


@dataclass(frozen=True, slots=True)
class StandingValues:
    """Reader of these values, in one transaction. One per process."""

    db: Database
    budgets: Budgets
    agents: AgentCatalog

    def read(self) -> Values:
        """Raise `DatabaseUnavailable` at once while the database is away."""
        return self.db.query(self._read, patience=0)

    def overshoot(self) -> Values:
        """Read `cap_overshoot_usd`, which has to look at every counter of today."""
        at = now_ms()
        day, month = window_start("day", at), window_start("month", at)
        nano = self.db.query(lambda tx: standing.overshoot(tx, day, month), patience=0)
        return {"cap_overshoot_usd": [((), nano / NANO)]}

    def _read(self, tx: Transaction) -> Values:
        found = standing.read(tx)
        now, none = found.now, standing.Queue(0, None)
        tasks = {priority: found.tasks.get(priority, none) for priority in PRIORITIES}
        return {
            "unfinished_runs": [((status,), queue.size) for status, queue in found.runs.items()],
            "oldest_run_seconds": [((status,), queue.age(now)) for status, queue in found.runs.items()],
            "unfinished_run_tokens_max": [((), found.most_tokens)],
            "sessions_active": [((), found.sessions)],
            "tasks_waiting": [((priority,), queue.size) for priority, queue in tasks.items()],
            "oldest_task_seconds": [((priority,), queue.age(now)) for priority, queue in tasks.items()],
            "schedules_overdue": [((), found.schedules.size)],
            "schedule_overdue_seconds": [((), found.schedules.age(now))],
            "budget_used_ratio": self._budgets(tx),
            "holds": [((), found.holds.size)],
            "held_usd": [((), found.held_usd)],
            "oldest_hold_seconds": [((), found.holds.age(now))],
            "approvals_waiting": [((), found.approvals.size)],
            "oldest_approval_seconds": [((), found.approvals.age(now))],
            "processes": [((kind,), count) for kind, count in found.processes.items()],
            "audit_unlinked_seconds": [((), found.unlinked_seconds)],
        }

    def _budgets(self, tx: Transaction) -> list[tuple[tuple[str, ...], float]]:
        """Read the used shares of the caps of the service and of agents, of which there are few."""
        scopes = ["service", *(f"agent:{agent}" for agent in islice(self.agents.agents, MAX_AGENTS))]
        limited = [cap for cap in self.budgets.in_force.of_many(tx, scopes) if 0 < cap.amount < caps.NO_LIMIT]
        return [
            ((each.cap.scope, each.cap.period), (each.spent + each.held) / each.cap.amount)
            for each in self.budgets.standing(tx, limited)
        ]
