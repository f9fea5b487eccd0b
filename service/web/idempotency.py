"""`Idempotency-Key`: a request repeated with the same key is executed once."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Response

from service.errors import Invalid
from service.runs.idempotency import LIFE_MS, Key, fingerprint
from service.runs.result import shown
from service.store import idempotency as rows
from service.store.database import Transaction
from service.types import now_ms
from service.web.body import raw_json
from service.web.current import Request, current, services
from service.web.schemas import json_response

_VISIBLE = re.compile(r"[!-~]{1,255}")
SECRET = "password"  # field that is in fingerprints, which are stored for a day, as its HMAC
Change = Callable[[Any], Any]


def idempotency_key(request: Request, *, bodiless: bool = False) -> Key | None:
    """Read the caller's `Idempotency-Key`, with the fingerprint of the request. Raises `Invalid`.

    `bodiless`: the route reads no body, so a body makes no difference.
    """
    key = request.environ.get("HTTP_IDEMPOTENCY_KEY")
    if key is None:
        return None
    if not _VISIBLE.fullmatch(key):
        raise Invalid("`Idempotency-Key` is 1 to 255 visible ASCII characters.")
    body = None if bodiless else raw_json()
    if isinstance(body, dict) and SECRET in body:
        body = {**body, SECRET: _keyed(request, body[SECRET])}
    query = request.query_string.decode("latin-1")  # it may say whose note is changed
    target = f"{request.method} {request.path}{'?' if query else ''}{query}"
    return Key(request.caller.user_id, key, fingerprint(target, body))


def _keyed(request: Request, secret: Any) -> str:
    """Return the HMAC of a secret under SECRET_KEY: whoever reads the database cannot try passwords against it."""
    pepper = request.services.settings.secret_key.get_secret_value().encode()
    return hmac.digest(pepper, fingerprint("slipway idempotency", secret).encode(), "sha256").hex()


def once(
    work: Callable[[Transaction], Any],
    status: int,
    *,
    seal: Change = lambda body: body,
    unseal: Change = lambda body: body,
    bodiless: bool = False,
) -> Response:
    """Return the result of `work` as JSON; for a key used before, return the first response again.

    Work and response are one transaction: a second request with the key waits in the database for the first one's
    commit, and a first one that failed or crashed has left nothing. `seal` encrypts a secret in the response before it
    is stored, `unseal` reverses it. `bodiless`: as of `idempotency_key`. Raises `IdempotencyMismatch`.
    """
    key = idempotency_key(current(), bodiless=bodiless)

    def whole(tx: Transaction) -> tuple[int, Any, bool]:
        if key is None:
            return status, work(tx), False
        if (first := _taken(tx, key)) is not None:
            return first[0], unseal(first[1]), True
        body = work(tx)
        rows.answer(tx, key.user_id, key.key, status, seal(body))
        return status, body, False

    return _response(*services().infra.db.transact(whole))


def once_again(work: Callable[[], Any], status: int) -> Response:
    """Answer as `once` does, for a route without a body and for idempotent `work` that commits by itself.

    Two simultaneous requests with one key both execute it; a later one gets the first response. Raises
    `IdempotencyMismatch`.
    """
    key = idempotency_key(current(), bodiless=True)
    if key is None:
        return json_response(work(), status)
    if (first := services().infra.db.query(partial(_known, key=key))) is not None:
        return _response(*first, True)
    body = work()

    def keep(tx: Transaction) -> None:
        if _taken(tx, key) is None:
            rows.answer(tx, key.user_id, key.key, status, body)

    services().infra.db.transact(keep)
    return json_response(body, status)


def _taken(tx: Transaction, key: Key) -> tuple[int, Any] | None:
    """Claim the key. Return the response stored for it, or None for a new key."""
    first = rows.claim(tx, key.user_id, key.key, key.fingerprint, None, now_ms() + LIFE_MS)
    if first is None:
        return None
    key.check(first["fingerprint"])
    return first["status"], first["body"]


def _known(tx: Transaction, key: Key) -> tuple[int, Any] | None:
    first = rows.find(tx, key.user_id, key.key)
    if first is None or first["expires_at"] <= now_ms():
        return None
    key.check(first["fingerprint"])
    return first["status"], first["body"]


def _response(status: int, body: Any, replayed: bool) -> Response:
    headers = {"Idempotency-Replayed": "true"} if replayed else None
    if status == 204:
        return Response(status=status, headers=headers)
    return json_response(shown(body), status, headers)
