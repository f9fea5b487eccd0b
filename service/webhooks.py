"""Webhooks: a signed POST to the `callback_url` of a run that has ended, or of a notice; tried again for a day.

The delivery is due from the transaction on in which it came about, so no crash forgets it. Each attempt is claimed
with one conditional update, so one process makes it; a process that dies over it leaves it due again. A receiver
may therefore hear of the same twice, with the same `X-Slipway-Delivery`.
"""

from __future__ import annotations

import hmac
import logging
import random
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import orjson

from service.errors import DatabaseUnavailable, Invalid
from service.infra.http import AddressRefused, NoAnswer, SafeClient, fault
from service.store import webhooks as rows
from service.store.database import Database, Transaction
from service.store.webhooks import Due
from service.types import Run, now_ms, rfc3339

log = logging.getLogger("slipway.webhooks")
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 3600.0  # seconds between attempts: 5, 15, 45, … 3600, 3600, …
MOST_ATTEMPTS = 31  # with these pauses a day
BUDGET_SIGNER = "budgets"  # signs what is told of caps; a user's id signs what is told of their runs
SENDERS = 8  # deliveries under way at once, per process


class Webhooks:
    """One per process. Deliveries are sent by a few threads of its own, which end when nothing is due."""

    def __init__(
        self, db: Database, secret: str, *, allow_private: bool, budget_url: str | None = None
    ) -> None:
        self._db = db
        self._key = hmac.digest(secret.encode(), b"slipway webhooks", "sha256")
        self._allow_private = allow_private
        self._budget_url = budget_url
        self._client = SafeClient(allow_private=allow_private)
        self._free = threading.BoundedSemaphore(SENDERS)

    def check(self, url: str) -> None:
        """Raises `Invalid` for an address that we would not post to, as far as the URL shows it."""
        if wrong := fault(url, allow_private=self._allow_private):
            raise Invalid(
                "The request does not fit; see `errors`.",
                errors=[{"pointer": "/callback_url", "detail": wrong}],
            )

    def secret_of(self, signer: str) -> str:
        """What signs the deliveries of a user's runs. Its own for each: nobody can forge another's."""
        return f"whsec_{hmac.digest(self._key, signer.encode(), 'sha256').hex()}"

    def ended(self, tx: Transaction, run: Run) -> None:
        """Part of a run's last transaction: its webhook is due."""
        if run.request.callback_url is not None:
            rows.due_now(tx, run.id, run.request.callback_url, now_ms())
            tx.after_commit(self.send_due)

    def notice(self, tx: Transaction, name: str, url: str, signer: str, body: dict[str, Any]) -> None:
        """Part of the transaction in which something came about that is to be told, once for each `name`."""
        rows.notice(tx, name, url, signer, body, now_ms())
        tx.after_commit(self.send_due)

    def budget_warning(self, tx: Transaction, warning_id: str, public: Mapping[str, Any]) -> None:
        """Part of the transaction that notes a budget's warning: post it to `budget_url`, where there is one."""
        if self._budget_url:
            body = {"event": "budget_warning", **public}
            self.notice(tx, warning_id, self._budget_url, BUDGET_SIGNER, body)

    def of_run(self, run: Run) -> dict[str, Any] | None:
        """How the webhook of a run stands; None where nobody asked for one."""
        if run.request.callback_url is None:
            return None
        row = self._db.query(lambda tx: rows.of_run(tx, run.id))
        if row is None or not run.status.ended:
            row = {"url": run.request.callback_url, "status": "waiting", "attempts": 0}
        return {
            "url": row["url"],
            "status": row["status"],
            "attempts": row["attempts"],
            "next_at": rfc3339(row.get("next_at")),
            "last_error": row.get("last_error"),
            "delivered_at": rfc3339(row.get("delivered_at")),
        }

    def send_due(self) -> None:
        """Have a thread of ours send what is due, if one is free; one that is busy looks again by itself."""
        if self._free.acquire(blocking=False):
            threading.Thread(target=self._send_all, name="webhooks", daemon=True).start()

    def _send_all(self) -> None:
        try:
            while (due := self._claim()) is not None:
                self._send(due)
        except DatabaseUnavailable:  # said by `service.store.outages`; the next sweep tries again
            pass
        except Exception:
            log.exception("webhook_sender_failed")
        finally:
            self._free.release()

    def _claim(self) -> Due | None:
        found = self._db.query(lambda tx: rows.due(tx, now_ms(), 2 * SENDERS))
        random.shuffle(found)  # other threads have the same list
        for due in found:
            next_at = now_ms() + int(pause_after(due.attempts) * 1000)
            if self._db.transact(partial(rows.claim, due=due, next_at=next_at)):
                return due
        return None

    def _send(self, due: Due) -> None:
        body = orjson.dumps(due.body)
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "Slipway",
            "X-Slipway-Timestamp": timestamp,
            "X-Slipway-Signature": signature(self.secret_of(due.signer), timestamp, body),
            "X-Slipway-Delivery": due.name,
        }
        try:
            status = self._client.post(due.url, body, headers)
        except AddressRefused as refused:
            return self._missed(due, str(refused), final=True)
        except NoAnswer as nothing:
            return self._missed(due, str(nothing))
        if not 200 <= status < 300:
            return self._missed(due, f"Answered {status}.")
        self._db.transact(lambda tx: rows.delivered(tx, due, now_ms()))
        log.info("webhook_delivered", extra={f"{due.kind}_id": due.id, "attempt": due.attempts + 1})

    def _missed(self, due: Due, error: str, *, final: bool = False) -> None:
        attempt = due.attempts + 1
        final = final or attempt >= MOST_ATTEMPTS
        self._db.transact(lambda tx: rows.missed(tx, due, error, final=final))
        about = {f"{due.kind}_id": due.id, "attempt": attempt, "error": error, "final": final}
        log.warning("webhook_failed", extra=about)


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """`v1=` and the HMAC-SHA256 of `timestamp.body`, in hex."""
    return f"v1={hmac.digest(secret.encode(), timestamp.encode() + b'.' + body, 'sha256').hex()}"


def pause_after(attempts: int) -> float:
    """Seconds until the attempt after the next, when `attempts` have been made; a little random."""
    return float(min(LONGEST_PAUSE, FIRST_PAUSE * 3 ** min(attempts, 10)) * random.uniform(0.8, 1.2))
