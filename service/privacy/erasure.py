"""Erasure of one person's data, everywhere but for ids in the ledger and the audit.

The user is deleted first, so nothing new begins; then passes erase what there is, until one finds nothing. Each batch
is a transaction of its own, and a row of `erasures` says what is left to do: after a crash another worker goes on. A
run, publication or answer that was under way may end after that, so a last pass looks again once `QUIET_MS` are over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import redis

from service.auth.users import UserService
from service.errors import DatabaseUnavailable, NotFound, RunFinished
from service.infra.redis import RedisStore
from service.privacy import redis_keys
from service.privacy.keyring import Keyring
from service.runs.cancel import Cancellation
from service.runs.queries import RunQueries
from service.store import erasures, files, ownership, personal_erasure, runs, session_expiry
from service.store.database import Database, Row, Transaction
from service.store.personal_data import ERASED
from service.types import now_ms, public_fields

log = logging.getLogger("slipway.privacy")
BATCH = 100  # rows per transaction
CLAIM_MS = 300_000  # of one pass, or of removing dead rows; a worker that dies is replaced after that
# Time after which a request admitted at the last moment has begun its run, and all short-lived keys have expired.
QUIET_MS = 120_000
PASSES_SECONDS = 20.0  # of passes in a row; the next sweep goes on
SETTLE_SECONDS = 0.5  # between two passes: what was just cancelled ends
WAIT_SECONDS = 15.0  # a request waits for its erasure
ANSWERS_READ = 500  # idempotency keys read at once


@dataclass(frozen=True, slots=True)
class Erasures:
    """Erasures of users' data. One per process, which erases for one user at a time."""

    db: Database
    redis_store: RedisStore
    users: UserService
    queries: RunQueries
    cancellation: Cancellation
    keyring: Keyring | None
    _repeated: threading.Event = field(default_factory=threading.Event)
    _busy: threading.Lock = field(default_factory=threading.Lock)

    def erase(self, user_id: str, within: str | None = None) -> dict[str, Any]:
        """Begin an erasure, once, and wait a while for it; return its state. `within`: as in `UserService.change`.

        Raises `NotFound`.
        """
        if not self._state(user_id, within):
            self.users.begin_erasure(user_id, within)
        begun = self._state(user_id, within)
        if any(row["erased_at"] is None for row in begun):
            self._begin_thread(lambda: begun).join(WAIT_SECONDS)
        [row] = self._state(user_id, within)
        return _public(row)

    def go_on_in_background(self) -> None:
        """Go on with erasures that are due, in a new thread: the supervisor must not wait for it."""
        if not self._busy.locked():
            self._begin_thread(self._due)

    def go_on(self, those: Callable[[], Sequence[Row]] | None = None) -> None:
        """Go on with erasures, by default those that are due. Raises `DatabaseUnavailable` and `redis.RedisError`."""
        with self._busy:
            for row in (those or self._due)():
                until = now_ms() + CLAIM_MS
                if self.db.transact(partial(erasures.claim, erasure=row, next_at=until)):
                    self._passes({**row, "next_at": until})

    def repeat_in_background(self) -> None:
        """Once in a process, begin the erasures of users anew who are back, with an older database."""
        if self.keyring is not None and not self._repeated.is_set() and not self._busy.locked():
            self._begin_thread(self._repeat)

    def _repeat(self) -> list[Row]:
        """Begin the erasures of users whose keys are destroyed, where there is none; a later sweep goes on."""
        for page in self.keyring.erased() if self.keyring else ():
            for user_id in self.db.query(partial(erasures.not_begun, user_ids=page)):
                self.users.begin_erasure(user_id)
                log.warning("erasure_repeated", extra={"user_id": user_id})
        self._repeated.set()
        return []

    def _due(self) -> list[Row]:
        return self.db.query(lambda tx: erasures.due(tx, now_ms(), BATCH))

    def _begin_thread(self, those: Callable[[], Sequence[Row]]) -> threading.Thread:
        thread = threading.Thread(target=self._guarded, args=(those,), name="erasures", daemon=True)
        thread.start()
        return thread

    def _guarded(self, those: Callable[[], Sequence[Row]]) -> None:
        try:
            self.go_on(those)
        except (DatabaseUnavailable, redis.RedisError) as error:  # due again when the claim ends
            log.warning("erasure_interrupted", extra={"error": type(error).__name__})

    def _state(self, user_id: str, within: str | None) -> list[Row]:
        return self.db.query(lambda tx: erasures.of_user(tx, user_id, within))

    def _passes(self, row: Row) -> None:
        """Erase until a pass finds nothing, or time is up."""
        user_id, began_at, found = row["user_id"], now_ms(), 0
        end = time.monotonic() + PASSES_SECONDS
        while left := self._pass(user_id):
            found += left
            if time.monotonic() > end:
                return self._set(row, next_at=now_ms())
            time.sleep(SETTLE_SECONDS)
        if self.keyring is not None:
            self.keyring.destroy(user_id)
        row = self._claimed_anew(row)
        if found or row["erased_at"] is None:
            self.db.vacuum(sorted(ERASED))
            self.redis_store.attempt(redis_keys.rewrite_files)
        now, quiet_at = now_ms(), row["asked_at"] + QUIET_MS
        verified = began_at >= quiet_at
        self._set(
            row,
            erased_at=row["erased_at"] or now,
            verified_at=now if verified else None,
            next_at=None if verified else max(now, quiet_at),
        )
        log.info("user_erased", extra={"user_id": user_id, "verified": verified})

    def _claimed_anew(self, row: Row) -> Row:
        """Prolong a claim, for the longest part of a pass."""
        until = now_ms() + CLAIM_MS
        claimed = self.db.transact(partial(erasures.claim, erasure=row, next_at=until))
        return {**row, "next_at": until} if claimed else row

    def _set(self, row: Row, **changes: int | None) -> None:
        """Write the outcome of a claimed pass; nothing where another worker has claimed it since."""
        self.db.transact(lambda tx: erasures.finish(tx, row, changes))

    def _pass(self, user_id: str) -> int:
        """Erase what there is; return how much was found, with runs that have yet to end."""
        found = self._cancel_runs(user_id)
        found += self.db.transact(partial(personal_erasure.clear_account, user_id=user_id))
        found += self._in_batches(user_id, "schedules", personal_erasure.delete_schedules)
        found += self._in_batches(user_id, "notes", personal_erasure.delete_notes)
        found += self._in_batches(user_id, "runs", self._delete_runs)
        found += self._in_batches(user_id, "sessions", self._delete_sessions)
        found += self._in_batches(user_id, "files", files.delete_of_user)
        found += self._in_batches(user_id, "idempotency_keys", personal_erasure.delete_idempotency)
        found += self._in_batches(user_id, "comments", personal_erasure.clear_comments)
        found += self._answers_about(user_id)
        erased = self.redis_store.attempt(lambda client: redis_keys.erase(client, user_id, self._known))
        self._count(user_id, "answers", erased.answers)
        return found + sum(erased)

    def _cancel_runs(self, user_id: str) -> int:
        """Cancel runs that have not ended; return how many there were."""
        unfinished = self.db.query(lambda tx: personal_erasure.unfinished_runs(tx, user_id, BATCH))
        for run_id in unfinished:
            with suppress(NotFound, RunFinished):
                self.cancellation.cancel(self.queries.get(run_id))
        return len(unfinished)

    def _in_batches(self, user_id: str, kind: str, delete: Callable[[Transaction, str, int], int]) -> int:
        total = 0
        while True:
            began = time.monotonic()
            deleted = self.db.transact(lambda tx: delete(tx, user_id, BATCH))
            total += deleted
            if deleted < BATCH:
                break
            time.sleep(time.monotonic() - began)  # lets others write
        self._count(user_id, kind, total)
        return total

    def _delete_runs(self, tx: Transaction, user_id: str, limit: int) -> int:
        ids = personal_erasure.ended_runs(tx, user_id, limit)
        return runs.delete(tx, ids)

    def _delete_sessions(self, tx: Transaction, user_id: str, limit: int) -> int:
        ids = personal_erasure.sessions_of(tx, user_id, limit)
        return session_expiry.clear(tx, ids, limit) if ids else 0

    def _answers_about(self, user_id: str) -> int:
        """Delete answers to other callers that name the user, such as that of their creation; return how many."""
        after: tuple[str, str] | None = ("", "")
        total = 0
        while after is not None:
            read = partial(personal_erasure.answers_about, user_id=user_id, after=after, limit=ANSWERS_READ)
            found, after = self.db.query(read)
            for key in found:
                total += self.db.transact(partial(personal_erasure.delete_answer, user_id=key[0], key=key[1]))
        self._count(user_id, "idempotency_keys", total)
        return total

    def _known(self, run_ids: Sequence[str]) -> set[str]:
        return set(self.db.query(lambda tx: ownership.running(tx, run_ids)))

    def _count(self, user_id: str, kind: str, erased: int) -> None:
        if erased:
            self.db.transact(partial(erasures.count, user_id=user_id, kind=kind, erased=erased))


def _public(row: Row) -> dict[str, Any]:
    status = "erasing" if row["erased_at"] is None else "erased"
    shown = public_fields(row, "user_id asked_at erased_at verified_at")
    return {**shown, "status": status, "erased": row["counts"]}
