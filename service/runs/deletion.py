"""Deletion of a run at its user's wish: with its steps, events, approvals and feedback. The ledger keeps its cost."""

from __future__ import annotations

from dataclasses import dataclass

from service.infra.redis import RedisStore
from service.runs.events.event_stream import stream_key
from service.store import runs
from service.store.database import Database


@dataclass(frozen=True, slots=True)
class Deletion:
    """Deletes runs that have ended. One per process."""

    db: Database
    redis_store: RedisStore

    def delete(self, run_id: str) -> bool:
        """Delete a run. False: it has not ended, or is not there."""
        if not self.db.transact(lambda tx: runs.delete(tx, [run_id])):
            return False
        self.redis_store.call(lambda client: client.delete(stream_key(run_id)), default=0)
        return True
