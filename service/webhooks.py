"""Webhooks: signed POST to a run's `callback_url`, or of a budget notice; retried for a day, at least once.

The delivery row is written in the transaction of what it tells (outbox), so no crash loses it. Each attempt is
claimed by one conditional update, so one process makes it; after a crash the delivery is due again. A receiver may
therefore get a delivery twice, with the same `webhook-id`. Headers and signatures are those of Standard Webhooks
(standardwebhooks.com).
"""

from __future__ import annotations

import hmac
import logging
import random
import threading
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from service.errors import DatabaseUnavailable, fault
from service.infra.backends import Infra
from service.infra.http import AddressRefused, NoAnswer, SafeClient, address_fault
from service.observe import genai, tracing
from service.observe.tracing import Span, Tracer
from service.store import runs
from service.store import webhooks as rows
from service.store.database import Database, Transaction
from service.store.webhooks import Due
from service.types import Run, now_ms, public_fields

if TYPE_CHECKING:
    from config.base import Settings

log = logging.getLogger("slipway.webhooks")
FIRST_DELAY, MAX_DELAY = 5.0, 3600.0  # seconds between attempts: 5, 15, 45, … 3600, 3600, …
MAX_ATTEMPTS = 31  # a day, with these delays
BUDGET_SIGNER = "budgets"  # signs budget notices; a user's id signs the webhooks of their runs
MAX_SENDERS = 8  # concurrent deliveries per process


def build(settings: Settings, infra: Infra) -> Webhooks:
    """Build the webhook sender of this process."""
    secret, url = settings.secret_key.get_secret_value(), settings.budget_webhook_url
    private, tracer = settings.webhook_allow_private, infra.tracer
    return Webhooks(infra.db, secret, allow_private=private, budget_url=url, tracer=tracer)


class Webhooks:
    """Webhook sender, one per process, with up to `MAX_SENDERS` threads, which end when nothing is due."""

    def __init__(
        self,
        db: Database,
        secret: str,
        *,
        allow_private: bool,
        budget_url: str | None = None,
        tracer: Tracer = tracing.OFF,
    ) -> None:
        self._db = db
        self._key = hmac.digest(secret.encode(), b"slipway webhooks", "sha256")
        self._allow_private = allow_private
        self._budget_url = budget_url
        self._tracer = tracer
        self._client = SafeClient(allow_private=allow_private)
        self._senders = threading.BoundedSemaphore(MAX_SENDERS)

    def check(self, url: str) -> None:
        """Validate a callback URL. Raises `Invalid` for an address that is refused already by its text."""
        if wrong := address_fault(url, allow_private=self._allow_private):
            raise fault("/callback_url", wrong)

    def secret_of(self, signer: str) -> str:
        """Derive the signing secret of a signer: one per user, so no user can forge another's deliveries."""
        return f"whsec_{b64encode(self._key_of(signer)).decode()}"

    def _key_of(self, signer: str) -> bytes:
        return hmac.digest(self._key, signer.encode(), "sha256")

    def schedule(self, tx: Transaction, run: Run) -> None:
        """Insert a run's delivery in its last transaction, or that in which it begins to wait for money.

        None without a `callback_url`.
        """
        if run.request.callback_url is not None:
            rows.schedule(tx, run, run.request.callback_url, now_ms())
            tx.after_commit(self.send_due)

    def approvals_required(self, tx: Transaction, run: Run, approval_ids: Sequence[str]) -> None:
        """Insert a delivery for each approval in the transaction that requests it, if a `callback_url` was given."""
        if run.request.callback_url is not None:
            for approval_id in approval_ids:
                rows.schedule_approval(tx, approval_id, run, run.request.callback_url, now_ms())
            tx.after_commit(self.send_due)

    def notice(self, tx: Transaction, name: str, url: str, signer: str, body: dict[str, Any]) -> None:
        """Insert a notice in the caller's transaction, once for each `name`."""
        rows.notice(tx, name, url, signer, body, now_ms())
        tx.after_commit(self.send_due)

    def budget_warning(self, tx: Transaction, warning_id: str, public: Mapping[str, Any]) -> None:
        """Insert the notice of a budget warning in the transaction that records it, if there is a `budget_url`."""
        if self._budget_url:
            body = {"event": "budget_warning", **public}
            self.notice(tx, warning_id, self._budget_url, BUDGET_SIGNER, body)

    def of_run(self, run: Run) -> dict[str, Any] | None:
        """Return the delivery state of a run's webhook; None: no `callback_url`."""
        if run.request.callback_url is None:
            return None
        row = self._db.query(lambda tx: rows.of_run(tx, run.id))
        if row is None or not run.status.ended:
            pending = {"next_at": None, "last_error": None, "delivered_at": None}
            row = {"url": run.request.callback_url, "status": "waiting", "attempts": 0, **pending}
        return public_fields(row, "url status attempts next_at last_error delivered_at")

    def send_due(self) -> None:
        """Start a sender thread, unless `MAX_SENDERS` are busy: those look for more by themselves."""
        if self._senders.acquire(blocking=False):
            try:
                threading.Thread(target=self._send_all, name="webhooks", daemon=True).start()
            except RuntimeError:  # the system's limit of threads is reached; the next sweep tries again
                self._senders.release()
                raise

    def _send_all(self) -> None:
        try:
            while (due := self._claim()) is not None:
                with tracing.Within(self._place_of(due)), tracing.span("POST webhook", "client") as span:
                    self._send(due, span)
        except DatabaseUnavailable:  # logged by `service.store.outages`; the next sweep tries again
            pass
        except Exception:
            log.exception("webhook_sender_failed")
        finally:
            self._senders.release()

    def _claim(self) -> Due | None:
        found = self._db.query(lambda tx: rows.due(tx, now_ms(), 2 * MAX_SENDERS))
        random.shuffle(found)  # other threads have the same list
        for due in found:
            next_at = now_ms() + int(retry_delay(due.attempts) * 1000)
            if self._db.transact(partial(rows.claim, due=due, next_at=next_at)):
                return due
        return None

    def _place_of(self, due: Due) -> Span | None:
        """Find the place of a delivery's run in its trace; None without one."""
        run_id = due.id if due.kind == "run" else due.body.get("data", {}).get("run_id")
        if not self._tracer.on or run_id is None:
            return None
        run = self._db.query(lambda tx: runs.get(tx, run_id))
        return None if run is None else self._tracer.at(run.request.trace)

    def _send(self, due: Due, span: Span | None = None) -> None:
        body = orjson.dumps(due.body)
        # Encoded, as an end user's name may not be ASCII.
        headers = signed_headers(self._key_of(due.signer), quote(due.name, safe=":/"), body)
        if trace := tracing.traceparent():
            headers["traceparent"] = trace
        if span is not None:
            span.set(
                {
                    genai.HTTP_METHOD: "POST",
                    genai.DELIVERY: due.kind,
                    genai.DELIVERY_ATTEMPT: due.attempts + 1,
                }
            )
        try:
            status = self._client.post(due.url, body, headers)
        except AddressRefused as refused:
            return self._failed(due, str(refused), final=True)
        except NoAnswer as error:
            return self._failed(due, str(error))
        if span is not None:
            span.set({genai.HTTP_STATUS: status})
        if not 200 <= status < 300:
            return self._failed(due, f"Answered {status}.")
        self._db.transact(lambda tx: rows.delivered(tx, due, now_ms()))
        log.info("webhook_delivered", extra={f"{due.kind}_id": due.id, "attempt": due.attempts + 1})

    def _failed(self, due: Due, error: str, *, final: bool = False) -> None:
        attempt = due.attempts + 1
        if (span := tracing.current()) is not None:
            span.fail("not_delivered")
        final = final or attempt >= MAX_ATTEMPTS
        self._db.transact(lambda tx: rows.attempt_failed(tx, due, error, final=final))
        about = {f"{due.kind}_id": due.id, "attempt": attempt, "error": error, "final": final}
        log.warning("webhook_failed", extra=about)


def signed_headers(key: bytes, delivery: str, body: bytes) -> dict[str, str]:
    """Return the headers of a delivery: `v1,` and the HMAC-SHA256 of `id.timestamp.body`, in base64."""
    timestamp = str(int(time.time()))
    signed = hmac.digest(key, f"{delivery}.{timestamp}.".encode() + body, "sha256")
    # Receivers of the release before have the same key in hex, as text, and know these headers only.
    before = hmac.digest(f"whsec_{key.hex()}".encode(), timestamp.encode() + b"." + body, "sha256")
    return {
        "Content-Type": "application/json",
        "User-Agent": "Slipway",
        "webhook-id": delivery,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{b64encode(signed).decode()}",
        "X-Slipway-Timestamp": timestamp,
        "X-Slipway-Signature": f"v1={before.hex()}",
        "X-Slipway-Delivery": delivery,
    }


def retry_delay(attempts: int) -> float:
    """Return the backoff in seconds after `attempts` attempts: exponential, with 20 % jitter."""
    return float(min(MAX_DELAY, FIRST_DELAY * 3 ** min(attempts, 10)) * random.uniform(0.8, 1.2))
