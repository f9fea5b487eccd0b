"""`Idempotency-Key`: what a caller asks twice is done once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Response, request

from service.errors import Invalid
from service.runs.idempotency import LIFE_MS, Key, fingerprint
from service.store import idempotency as rows
from service.store.base import Transaction
from service.types import now_ms
from service.web.guards import current_caller, services
from service.web.schemas import json_response, raw_json

SECRET = "password"  # a field that is left out of fingerprints, which are kept for a day


def idempotency_key() -> Key | None:
    """The caller's `Idempotency-Key` with the fingerprint of this request, if one was sent."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not (1 <= len(key) <= 255 and all("!" <= letter <= "~" for letter in key)):
        raise Invalid("`Idempotency-Key` is 1 to 255 visible ASCII characters.")
    body = raw_json()
    if isinstance(body, dict):
        body = {name: value for name, value in body.items() if name != SECRET}
    return Key(current_caller().user_id, key, fingerprint(f"{request.method} {request.path}", body))


def once(work: Callable[[Transaction], Any], status: int) -> Response:
    """What `work` returns, as JSON; under a key that was used before, the first answer again.

    Work and answer are one transaction: a second request with the key waits for the first one's commit in
    the database, and a first one that failed or crashed has left nothing. Raises `IdempotencyMismatch`.
    """
    key = idempotency_key()

    def whole(tx: Transaction) -> tuple[int, Any, bool]:
        if key is None:
            return status, work(tx), False
        first = rows.claim(tx, key.user_id, key.key, key.fingerprint, None, now_ms() + LIFE_MS)
        if first is not None:
            key.check(first["fingerprint"])
            return first["status"], first["body"], True
        body = work(tx)
        rows.answer(tx, key.user_id, key.key, status, body)
        return status, body, False

    status, body, replayed = services().db.transact(whole)
    return json_response(body, status, {"Idempotency-Replayed": "true"} if replayed else None)
