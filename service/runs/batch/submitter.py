"""Submitter of batch steps: sends them to the Batches API, and fetches their answers.

Any process may do any part of the work: it claims each part first, by a conditional update in the database. A batch is
recorded before it is sent. A worker that dies in between leaves one without the provider's id; the provider's batches
since that moment are then searched for its steps, which are sent again only if no batch has them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from functools import partial
from operator import itemgetter
from typing import Any

from service.errors import ModelKeyRefused, ModelRejected, SlipwayError
from service.ids import new_id
from service.llm.batch import BatchClient, of_json
from service.llm.client import ModelCall
from service.runs.batch.steps import BatchSteps
from service.runs.billing import LATE
from service.runs.journal_codec import encode_reply
from service.store import batches
from service.store.database import Database, Row
from service.types import now_ms

log = logging.getLogger("slipway.batch")
CALL_SECONDS = 60.0  # limit for one call of the Batches API
LOST_AFTER = 2 * CALL_SECONDS  # the sender is dead by then, or has given up
CLOCKS_APART = 60_000  # ms by which the provider's clock may differ from ours
MIN_LOOK, MAX_LOOK = 1.0, 60.0  # seconds between polls of a batch: a tenth of its age, within these
GIVEN_UP_AFTER = 25 * 3_600_000  # ms; the provider ends every batch within 24 hours
CHUNK = 100  # answers per transaction


class BatchSubmitter:
    """Submits a batch when `max_size` steps wait, or one has waited for `max_wait` seconds. One per process."""

    def __init__(
        self, db: Database, client: BatchClient, steps: BatchSteps, *, max_size: int, max_wait: float
    ) -> None:
        self._db = db
        self._client = client
        self._steps = steps
        self._size = max_size
        self._wait = max_wait
        self._busy = threading.Lock()

    def tick_in_background(self) -> None:
        """Tick in a new thread: the provider may be slow, and the supervisor must not wait for it."""
        if not self._busy.locked():
            threading.Thread(target=self._guarded, name="batches", daemon=True).start()

    def tick(self) -> None:
        """Send a batch if one is due, poll sent ones, wake runs with answers. Raises a `SlipwayError`."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            for row in self._db.query(batches.of_ended_runs):
                self._steps.forget(row)
            self._send()
            for batch in self._db.query(batches.due):
                claim = partial(batches.claim, batch=batch, next_at=_next_look(batch))
                if self._db.transact(claim):
                    self._look(batch)
            self._db.transact(batches.wake)
        finally:
            self._busy.release()

    def close(self) -> None:
        self._client.close()

    def _guarded(self) -> None:
        try:
            self.tick()
        except SlipwayError as error:
            log.warning("batches_wait", extra={"error_code": error.code})
        except Exception:
            log.exception("batch_submitter_failed")

    def _send(self) -> None:
        count, since = self._db.query(batches.waiting)
        if not count or (count < self._size and now_ms() - since < self._wait * 1000):
            return
        name, give_up = new_id("bat"), now_ms() + int(LOST_AFTER * 1000)
        began = time.monotonic()
        rows = self._db.transact(lambda tx: batches.collect(tx, name, self._size, give_up))
        hung = time.monotonic() - began > LATE
        if hung and self._db.query(lambda tx: batches.any_stopped(tx, name)):
            self._db.transact(lambda tx: batches.release(tx, name))
        elif rows:
            self._submit(name, rows)

    def _submit(self, name: str, rows: Iterable[Row]) -> None:
        requests = {row["id"]: of_json(row["request"]) for row in rows}
        call = _call()
        try:
            upstream = self._client.submit(requests, call)
        except (ModelRejected, ModelKeyRefused):
            # Called directly instead, each may succeed or get its own error.
            self._db.transact(lambda tx: batches.close(tx, name))
        except SlipwayError:
            if not call.progress.billable:  # the request never arrived
                self._db.transact(lambda tx: batches.release(tx, name))
            raise
        else:
            soon = now_ms() + int(MIN_LOOK * 1000)
            self._db.transact(lambda tx: batches.sent(tx, name, upstream, soon))
            about = {"batch": name, "upstream": upstream, "size": len(requests)}
            log.info("batch_sent", extra=about)

    def _look(self, batch: Row) -> None:
        if now_ms() - batch["created_at"] > GIVEN_UP_AFTER:
            self._db.transact(lambda tx: batches.close(tx, batch["id"]))
            log.warning("batch_given_up", extra={"batch": batch["id"]})
            return
        upstream = batch["upstream_id"] or self._find(batch)
        if upstream is None or not self._client.batch(upstream, _call()).ended:
            return
        answers = self._client.results(upstream, _call())
        chunk: list[tuple[str, dict[str, Any] | None]] = []
        for name, reply in answers:
            chunk.append((name, None if reply is None else encode_reply(reply)))
            if len(chunk) == CHUNK:
                self._store(chunk)
                chunk = []
        self._store(chunk)
        self._db.transact(lambda tx: batches.close(tx, batch["id"]))
        about = {"batch": batch["id"], "upstream": upstream, "size": batch["size"]}
        log.info("batch_ended", extra=about)

    def _store(self, chunk: list[tuple[str, dict[str, Any] | None]]) -> None:
        def work(tx: Any) -> None:
            for name, reply in sorted(chunk, key=itemgetter(0)):  # lock order of all writers
                batches.store_reply(tx, name, reply)

        self._db.transact(work)

    def _find(self, batch: Row) -> str | None:
        """Find a batch whose sender died: its id at the provider if it arrived; otherwise its steps wait again."""
        known, ours = self._db.query(
            lambda tx: (batches.upstream_ids(tx), set(batches.of_batch(tx, batch["id"])))
        )
        undecided = False
        for state in self._client.batches_since(batch["created_at"] - CLOCKS_APART, _call()):
            if state.id in known or state.size != batch["size"]:
                continue
            if not state.ended:
                undecided = True  # only its answers show whether it is this batch
                continue
            first = next(self._client.results(state.id, _call()), None)
            if first is not None and first[0] in ours:
                self._db.transact(
                    lambda tx: batches.sent(tx, batch["id"], state.id, _next_look(batch))  # noqa: B023
                )
                log.warning("batch_found", extra={"batch": batch["id"], "upstream": state.id})
                return state.id
        if not undecided:
            self._db.transact(lambda tx: batches.release(tx, batch["id"]))
            log.warning("batch_never_sent", extra={"batch": batch["id"]})
        return None


def _next_look(batch: Row) -> int:
    """Return when to poll next, in ms; late enough for a batch still being sent that polls do not overlap."""
    now = now_ms()
    seconds = min(max((now - batch["created_at"]) / 10_000, MIN_LOOK), MAX_LOOK)
    return now + int(seconds * 1000)


def _call() -> ModelCall:
    return ModelCall(time.monotonic() + CALL_SECONDS)
