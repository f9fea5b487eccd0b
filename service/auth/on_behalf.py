"""Rights of a user who is not there: of a schedule, at the time of its run."""

from __future__ import annotations

from service.auth.keys import caller_of
from service.errors import InvalidToken
from service.store import keys, users
from service.store.database import Transaction
from service.types import Caller, now_ms


def present_caller(tx: Transaction, user_id: str, key_id: str | None) -> Caller:
    """Return a user, or their API key, with the rights of now.

    Raises `InvalidToken` where the user or their workspace is disabled or deleted, or the key has ended.
    """
    if key_id is None:
        return _signed_in(tx, user_id)
    row = keys.by_id(tx, key_id)
    if row is None or row["revoked_at"] is not None or row["refused"]:
        raise InvalidToken("The API key is not valid.")
    if row["expires_at"] is not None and row["expires_at"] <= now_ms():
        raise InvalidToken("The API key has expired.")
    return caller_of(row)


def _signed_in(tx: Transaction, user_id: str) -> Caller:
    row = users.admitted(tx, user_id)
    if row is None:
        raise InvalidToken("The user may not sign in.")
    return Caller(user_id, row["username"], row["role"], workspace_id=row["workspace_id"])
