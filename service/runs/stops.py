"""Kill switch of agents.

The database refuses the holds and claims of a stopped agent, so none of its calls begins once the stop is committed, in
whatever process. An answer from the cache needs no database: for it Redis holds a mark of the agent, among the
revocations, with all that `service.auth.revocation` does for these while Redis is away, wiped or behind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from service.audit.record import Action, record
from service.auth.revocation import COMPLETE, KEY, LOOK_UP, Revocations
from service.errors import AgentStopped, NotFound, fault
from service.infra.redis_trip import ScriptCall
from service.store import agent_stops as rows
from service.store.database import Database, Row, Transaction
from service.store.token_families import Revoked
from service.types import now_ms, public_fields

MAX_REASON = 500  # characters
REASON = re.compile(rf"[^\x00\ud800-\udfff]{{1,{MAX_REASON}}}")


@dataclass(frozen=True, slots=True)
class AgentStops:
    """Stops and releases agents. One per process."""

    db: Database
    revocations: Revocations
    has_agent: Callable[[str], bool]

    def stop(self, tx: Transaction, agent: str, reason: str) -> dict[str, Any]:
        """Stop an agent, for all workspaces, also one that is gone and has runs; return its state.

        A second stop changes nothing. Raises `NotFound`, and `Invalid` for a reason that cannot be kept.
        """
        if REASON.fullmatch(reason) is None:
            raise fault("/reason", f"Use 1 to {MAX_REASON} characters of text.")
        if not self.has_agent(agent) and not rows.has_run(tx, agent):
            raise NotFound(f"There is no agent named {agent}.")
        row = {"agent": agent, "reason": reason, "stopped_by": tx.actor.user_id, "stopped_at": now_ms()}
        if rows.stop(tx, row):
            record(tx, Action.AGENT_STOPPED, f"agent:{agent}")
        tx.after_commit(lambda: self.revocations.publish(Revoked([rows.mark(agent)], [])))
        return public(agent, rows.get(tx, agent))

    def release(self, agent: str) -> dict[str, Any]:
        """Let an agent go on, also one that is gone; return its state. Raises `NotFound` for one that never was."""
        mark = rows.mark(agent)
        seen = self.revocations.value_of(mark)
        if not self.has_agent(agent) and self.db.query(lambda tx: rows.get(tx, agent)) is None:
            raise NotFound(f"There is no agent named {agent}.")

        def work(tx: Transaction) -> None:
            if rows.release(tx, agent):
                record(tx, Action.AGENT_RELEASED, f"agent:{agent}")

        self.db.transact(work)
        if seen is not None:
            self.revocations.withdraw(mark, seen)
        return public(agent, None)

    def every(self) -> list[dict[str, Any]]:
        """List the agents that are stopped, by name."""
        return [public(row["agent"], row) for row in self.db.query(rows.every)]

    def call(self, agent: str) -> ScriptCall:
        """Build a trip's call that comes before a look-up in the cache: the trip raises `AgentStopped`."""

        def read(seen: Sequence[bytes | None] | None) -> None:
            if seen is None:  # nor is an answer found
                return
            found, complete = seen
            if found is None and self.revocations.trusted(complete):
                return
            if self.db.query(lambda tx: rows.get(tx, agent)) is not None:
                raise AgentStopped(f"The agent {agent} is stopped.")
            if found is not None:
                self.revocations.withdraw(rows.mark(agent), found)

        return ScriptCall(LOOK_UP, (KEY,), (rows.mark(agent), COMPLETE), read)


def public(agent: str, row: Row | None) -> dict[str, Any]:
    """Return the API's view of an agent's kill switch."""
    none = {"reason": None, "stopped_by": None, "stopped_at": None}
    return {"agent": agent, "stopped": row is not None} | (
        public_fields(row, " ".join(none)) if row is not None else none
    )
