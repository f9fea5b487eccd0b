"""API keys: `slp_` and 48 characters, shown once; the database holds an HMAC under a pepper derived from SECRET_KEY.

A retry under the same `Idempotency-Key` must return the same key. So the idempotency record holds the key encrypted
for that day (Fernet, under its own secret derived from SECRET_KEY): a copy of the database alone reveals no key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from service.audit.record import Action, record
from service.auth.key_cache import Found, KeyCache
from service.auth.rates import checked_rate, limit_told
from service.auth.revocation import Revocations
from service.auth.users import Role
from service.errors import Conflict, InvalidToken, NotFound, fault
from service.ids import new_id
from service.infra.redis import RedisStore
from service.infra.sealing import Seal
from service.store import keys as rows
from service.store import run_limits
from service.store import users as user_rows
from service.store.database import Database, Row, Transaction
from service.store.token_families import Revoked
from service.store.visibility import AGENTS
from service.types import Caller, now_ms, public_fields

PREFIX = "slp_"
MAX_NAME = 128  # characters
NAME = re.compile(rf"[^\x00-\x1f\x7f\ud800-\udfff]{{1,{MAX_NAME}}}")
_CHECK_LENGTH = 8  # last characters, an HMAC: made-up keys are refused without a lookup
_PREFIX_DIGITS = 8  # characters of a key that lists show
USE_PRECISION_MS = 60_000  # of `last_used_at`
MAX_NOTED = 5_000  # keys of one statement
_SHOWN = (
    "id name prefix scopes created_at expires_at last_used_at previous_expires_at "
    "limit_runs limit_runs_until limit_runs_after"
)
_LENGTH = len(PREFIX) + 40 + _CHECK_LENGTH


class NewKey(NamedTuple):
    """Secret of a new key, and its row."""

    row: dict[str, Any]
    key: str


class KeyService:
    """API keys: creation, lookup, rotation, revocation. A key acts as its user, restricted where it has scopes."""

    def __init__(self, db: Database, redis_store: RedisStore, revocations: Revocations, secret: str) -> None:
        self._db = db
        self._cache = KeyCache(redis_store, revocations)
        self._revocations = revocations
        self._pepper = hmac.digest(secret.encode(), b"slipway api keys", "sha256")
        self._seal = Seal(secret, b"slipway api keys shown again")
        self._used: set[str] = set()  # ids of keys, since `note_uses`
        self._next_note = 0.0  # time.monotonic()

    def create(
        self,
        user_id: str,
        name: str,
        scopes: tuple[str, ...] = (),
        expires_at: int | None = None,
        limit_runs: str | None = None,
    ) -> dict[str, Any]:
        """Create a key; the result holds its secret, which is never shown again. `expires_at` is in ms."""
        new_key = self.new(user_id, name, scopes, expires_at, limit_runs)
        return self._db.transact(lambda tx: self.insert(tx, new_key))

    def new(
        self,
        user_id: str,
        name: str,
        scopes: tuple[str, ...] = (),
        expires_at: int | None = None,
        limit_runs: str | None = None,
    ) -> NewKey:
        """Generate a key without inserting its row. `expires_at` is in ms. Raises `Invalid`."""
        if NAME.fullmatch(name) is None:
            raise fault("/name", f"Use 1 to {MAX_NAME} characters, none of them a control character.")
        key, stored = self._new_secret()
        row = {
            **dict.fromkeys(_SHOWN.split()),
            "id": new_id("key"),
            "user_id": user_id,
            "name": name,
            **stored,
            "scopes": list(scopes),
            "created_at": now_ms(),
            "expires_at": expires_at,
            "limit_runs": checked_rate(limit_runs or "") or None,
        }
        return NewKey(row, key)

    def _new_secret(self) -> tuple[str, dict[str, str]]:
        """Generate a secret; return it, and what is stored of it."""
        body = secrets.token_hex(20)
        key = PREFIX + body + self._checksum(body)
        return key, {"digest": self._digest(key), "prefix": key[: len(PREFIX) + _PREFIX_DIGITS]}

    def insert(self, tx: Transaction, new_key: NewKey) -> dict[str, Any]:
        """Insert the row; return the public key object with the secret."""
        rows.insert(tx, new_key.row)
        _record(tx, Action.KEY_CREATED, new_key.row["id"], new_key.row["user_id"], **_granted(new_key.row))
        return {**_public(new_key.row), "key": new_key.key}

    def sealed(self, shown: dict[str, Any]) -> dict[str, Any]:
        """Encrypt the secret in a result of `insert`, for the idempotency record."""
        return {**shown, "key": self._seal.close(shown["key"])}

    def unsealed(self, record: dict[str, Any]) -> dict[str, Any]:
        """Decrypt a `sealed` result. Raises `Conflict` when SECRET_KEY has changed since: the key is void."""
        key = self._seal.open(record["key"])
        if key is None:
            raise Conflict("This key was made under another SECRET_KEY, and is void: make a new one.")
        return {**record, "key": key}

    def page(
        self, user_id: str, *, limit: int, after: str | None, only: str | None = None
    ) -> list[dict[str, Any]]:
        """List a user's keys, oldest first, after the id `after`; `only`: the key with that id."""
        found = self._db.query(lambda tx: rows.page(tx, user_id, limit=limit, after=after, only=only))
        return [_public(row) for row in found]

    def revoke(self, key_id: str, user_id: str) -> None:
        """Revoke a key at once, on every worker. Raises `NotFound` when the user has no such key."""

        def work(tx: Transaction) -> list[str]:
            if digests := rows.revoke(tx, key_id, user_id):
                _record(tx, Action.KEY_REVOKED, key_id, user_id)
            return digests

        digests = self._db.transact(work)
        if not digests:
            raise NotFound("There is no such key.")
        self._revocations.publish(Revoked([], digests))

    def get(self, key_id: str, user_id: str) -> dict[str, Any]:
        """Find a user's key. Raises `NotFound`."""
        found = self.page(user_id, limit=1, after=None, only=key_id)
        if not found:
            raise NotFound("There is no such key.")
        return found[0]

    def limit(
        self,
        key_id: str,
        user_id: str,
        limit_runs: str | None,
        until: int | None = None,
        also: Callable[[Transaction], object] = lambda tx: None,
    ) -> dict[str, Any]:
        """Set a key's own limit on runs, "" for none, or override it `until` a time (ms); return the public key object.

        None leaves it. `also` writes in the same transaction. Raises `Invalid`, and `NotFound` when the user has no
        such key.
        """
        rate = checked_rate(limit_runs or "") or None

        def work(tx: Transaction) -> None:
            if limit_runs is not None:
                row = rows.change(tx, key_id, user_id, run_limits.of_key(rate, until))
                if row is None:
                    raise NotFound("There is no such key.")
                _record(tx, Action.KEY_LIMIT, key_id, user_id, **limit_told(rate, until))
                tx.after_commit(partial(self._revocations.publish, Revoked([], rows.digests_of(row))))
            also(tx)

        self._db.transact(work)
        return self.get(key_id, user_id)

    def rotation(
        self, key_id: str, user_id: str, overlap_seconds: int
    ) -> Callable[[Transaction], dict[str, Any]]:
        """Build the write that gives a key another secret, and returns the public key object with it.

        The old secret works for `overlap_seconds` more; one that was rotated before ends now. Raises `NotFound` when
        the user has no such key.
        """
        now = now_ms()
        key, stored = self._new_secret()
        secret = {**stored, "changed_at": now, "previous_expires_at": now + overlap_seconds * 1000}

        def work(tx: Transaction) -> dict[str, Any]:
            rotated = rows.rotate(tx, key_id, user_id, secret)
            if rotated is None:
                raise NotFound("There is no such key.")
            row, old = rotated
            _record(tx, Action.KEY_ROTATED, key_id, user_id, overlap_seconds=overlap_seconds)
            tx.after_commit(partial(self._revocations.publish, Revoked([], old)))
            return {**_public(row), "key": key}

        return work

    def caller(self, key: str) -> Caller:
        """Authenticate a key. Raises `InvalidToken`; `DatabaseUnavailable` when the key is not cached."""
        if not self._has_valid_checksum(key):
            raise InvalidToken("The API key is not valid.")
        digest = self._digest(key)
        found = self._cache.find(digest, partial(self._look_up, digest))
        if found is None:
            raise InvalidToken("The API key is not valid.")
        caller, expires_at = found
        if expires_at is not None and expires_at <= now_ms():
            error = InvalidToken("The API key has expired.")
            error.expired = True
            raise error
        self._used.add(caller.key_id or "")
        return caller

    def note_uses(self) -> None:
        """Write which keys were used since the last time, once in `USE_PRECISION_MS`; a use may be lost."""
        if not self._used or time.monotonic() < self._next_note:
            return
        self._next_note = time.monotonic() + USE_PRECISION_MS / 1000
        used, self._used = self._used, set()
        noted = partial(rows.used, key_ids=sorted(used)[:MAX_NOTED], at=now_ms(), precision=USE_PRECISION_MS)
        self._db.transact(noted, patience=1)

    def _has_valid_checksum(self, key: str) -> bool:
        if len(key) != _LENGTH or not key.isascii():
            return False
        return hmac.compare_digest(key[-_CHECK_LENGTH:], self._checksum(key[len(PREFIX) : -_CHECK_LENGTH]))

    def _look_up(self, digest: str) -> tuple[Found, list[int]]:
        """Find a key for `KeyCache.find`, which must not prolong an override of its limit."""
        row = self._db.query(lambda tx: rows.by_digest(tx, digest))
        if row is None or row["revoked_at"] is not None or row["refused"]:
            return None, []
        return (caller_of(row), _ends_at(row, digest)), run_limits.unchanged_ms(row, ("", "key_"))

    def _digest(self, key: str) -> str:
        return hmac.digest(self._pepper, key.encode(), "sha256").hex()

    def _checksum(self, body: str) -> str:
        return hmac.digest(self._pepper, b"check " + body.encode(), hashlib.sha256).hex()[:_CHECK_LENGTH]


def caller_of(row: Row) -> Caller:
    """Return the caller that a key stands for, of its row with its user."""
    # A key for some agents only calls them: the user's operator or admin role does not apply.
    scopes = tuple(row["scopes"])
    role: Role = "user" if any(scope.startswith(AGENTS) for scope in scopes) else row["role"]
    return Caller(
        row["user_id"],
        row["username"],
        role,
        scopes,
        key_id=row["id"],
        limit_runs=run_limits.in_force(row)["limit_runs"],
        workspace_id=row["workspace_id"],
        key_limit_runs=run_limits.in_force(row, "key_")["limit_runs"],
    )


def _public(row: Row) -> dict[str, Any]:
    return public_fields({**row, **run_limits.in_force(row)}, _SHOWN)


def _ends_at(row: Row, digest: str) -> int | None:
    """Return when a secret ends: the key's own, or the one before."""
    ends = [row["expires_at"], None if row["digest"] == digest else row["previous_expires_at"]]
    return min((end for end in ends if end is not None), default=None)


def _granted(row: Row) -> dict[str, Any]:
    """Return what the audit says of a new key: not its name, which people write."""
    return {name: row[name] for name in ("scopes", "limit_runs", "expires_at")}


def _record(tx: Transaction, action: Action, key_id: str, user_id: str, **told: Any) -> None:
    """Record an action on a key, in the workspace of its user."""
    workspace_id = user_rows.workspace_of(tx, user_id)
    record(tx, action, f"key:{key_id}", workspace_id=workspace_id, user=user_id, **told)
