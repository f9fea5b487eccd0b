"""API keys: `slp_` and 48 characters, shown once. Kept is an HMAC under a pepper made from SECRET_KEY.

Whoever makes one under an `Idempotency-Key` and gets no answer asks again, and must get the same key. So the answer
that is kept for that day holds the key encrypted (AES-128-CBC with an HMAC, under a secret of its own made from
SECRET_KEY): a copy of the database alone gives no key away.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from service.auth.revocation import COMPLETE, KEY_CACHE_SECONDS, PROVES_WRITES, Revocations
from service.auth.revocation import KEY as DISTRUSTED
from service.auth.users import Role
from service.errors import Conflict, InvalidToken, NotFound
from service.infra.redis import RedisStore
from service.infra.redis_client import answered
from service.store import keys as rows
from service.store.database import Database, Row, Transaction
from service.store.token_families import Revoked
from service.store.visibility import allows
from service.types import Caller, new_id, now_ms, rfc3339

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

PREFIX = "slp_"
_CHECK = 8  # characters at the end that only we can compute: made-up keys never reach a store
_SHOWN = 8  # characters of a key that its list shows
_LENGTH = len(PREFIX) + 40 + _CHECK


class FreshKey(NamedTuple):
    """A key and the row it is known by."""

    row: dict[str, Any]
    key: str


class KeyService:
    """Makes, knows and ends API keys. A key is its user, with fewer rights where it has scopes."""

    def __init__(self, db: Database, redis_store: RedisStore, revocations: Revocations, secret: str) -> None:
        self._db = db
        self._redis_store = redis_store
        self._revocations = revocations
        self._pepper = hmac.digest(secret.encode(), b"slipway api keys", "sha256")
        self._seal_key = hmac.digest(secret.encode(), b"slipway api keys shown again", "sha256")

    def create(
        self, user_id: str, name: str, scopes: tuple[str, ...] = (), expires_at: int | None = None
    ) -> dict[str, Any]:
        """A new key with its secret, which is never shown again. `expires_at` is in ms."""
        fresh = self.new(user_id, name, scopes, expires_at)
        return self._db.transact(lambda tx: self.insert(tx, fresh))

    def new(
        self, user_id: str, name: str, scopes: tuple[str, ...] = (), expires_at: int | None = None
    ) -> FreshKey:
        """A key that is not kept yet."""
        body = secrets.token_hex(20)
        key = PREFIX + body + self._check(body)
        row = {
            "id": new_id("key"),
            "user_id": user_id,
            "name": name,
            "digest": self._digest(key),
            "prefix": key[: len(PREFIX) + _SHOWN],
            "scopes": list(scopes),
            "created_at": now_ms(),
            "expires_at": expires_at,
        }
        return FreshKey(row, key)

    def insert(self, tx: Transaction, fresh: FreshKey) -> dict[str, Any]:
        """Keep it; how it is shown, this once."""
        rows.insert(tx, fresh.row)
        return {**_public(fresh.row), "key": fresh.key}

    def sealed(self, shown: dict[str, Any]) -> dict[str, Any]:
        """What `insert` has returned, as it may be kept."""
        return {**shown, "key": self._seal.encrypt(shown["key"].encode()).decode()}

    def unsealed(self, kept: dict[str, Any]) -> dict[str, Any]:
        """The inverse. Raises `Conflict` where SECRET_KEY was changed meanwhile: the key is good for nothing now."""
        from cryptography.fernet import InvalidToken as NotOurs

        try:
            return {**kept, "key": self._seal.decrypt(kept["key"]).decode()}
        except NotOurs:
            raise Conflict(
                "This key was made under another SECRET_KEY, and is void: make a new one."
            ) from None

    @cached_property
    def _seal(self) -> Fernet:
        from cryptography.fernet import Fernet  # only here: slow to import, and seldom wanted

        return Fernet(base64.urlsafe_b64encode(self._seal_key))

    def page(
        self, user_id: str, *, limit: int, after: str | None, only: str | None = None
    ) -> list[dict[str, Any]]:
        """List a user's keys, or the `only` one of them, oldest first, after the id `after`."""
        found = self._db.query(lambda tx: rows.page(tx, user_id, limit=limit, after=after, only=only))
        return [_public(row) for row in found]

    def revoke(self, key_id: str, user_id: str) -> None:
        """End a key at once. Raises `NotFound` when the user has no such key."""
        digest = self._db.transact(lambda tx: rows.revoke(tx, key_id, user_id))
        if digest is None:
            raise NotFound("There is no such key.")
        self._revocations.tell(Revoked([], [digest]))

    def caller(self, key: str) -> Caller:
        """Who a key speaks for. Raises `InvalidToken`; `DatabaseUnavailable` when nothing is known of it."""
        if not self._is_ours(key):
            raise InvalidToken("The API key is not valid.")
        digest = self._digest(key)
        known, distrusted, complete = self._redis_store.call(
            partial(_look_up, digest=digest), (None, None, None)
        )
        if known and distrusted is None and self._revocations.trusted(complete):
            found = _remembered(known)
        else:
            row = self._db.query(lambda tx: rows.by_digest(tx, digest))
            valid = row is not None and row["revoked_at"] is None and not row["disabled"]
            found = (_caller(row), row["expires_at"]) if row is not None and valid else None
            if distrusted is None:
                self._remember(digest, found)
        if found is None:
            raise InvalidToken("The API key is not valid.")
        caller, expires_at = found
        if expires_at is not None and expires_at <= now_ms():
            raise InvalidToken("The API key has expired.")
        return caller

    def _is_ours(self, key: str) -> bool:
        if len(key) != _LENGTH or not key.isascii():
            return False
        return hmac.compare_digest(key[-_CHECK:], self._check(key[len(PREFIX) : -_CHECK]))

    def _remember(self, digest: str, found: tuple[Caller, int | None] | None) -> None:
        """Remember a key, or that it is not valid: a revoked one, sent on and on, costs no query each time."""
        value = orjson.dumps(found and [list(found[0]), found[1]])  # orjson knows no named tuples
        self._redis_store.call(
            lambda client: client.set(_cache_key(digest), value, ex=KEY_CACHE_SECONDS), None
        )

    def _digest(self, key: str) -> str:
        return hmac.digest(self._pepper, key.encode(), "sha256").hex()

    def _check(self, body: str) -> str:
        return hmac.digest(self._pepper, b"check " + body.encode(), hashlib.sha256).hex()[:_CHECK]


def may_use(caller: Caller, scope: str) -> bool:
    """Whether a caller's key allows `scope`, such as `agents:support`."""
    return allows(caller.scopes, scope)


def _look_up(client: Any, digest: str) -> tuple[bytes | None, bytes | None, bytes | None]:
    asked = (("GET", _cache_key(digest)), ("HMGET", DISTRUSTED, digest, COMPLETE), PROVES_WRITES)
    known, (distrusted, complete), _ = answered(client, *asked)
    return known, distrusted, complete


def _cache_key(digest: str) -> str:
    return f"slipway:key:{digest}"


def _caller(row: Row) -> Caller:
    # A key with scopes is for calling agents: its user's office does not come with it.
    role: Role = "user" if row["scopes"] else row["role"]
    return Caller(
        row["user_id"],
        row["username"],
        role,
        tuple(row["scopes"]),
        key_id=row["id"],
        limit_runs=row["limit_runs"],
    )


def _remembered(value: bytes) -> tuple[Caller, int | None] | None:
    kept = orjson.loads(value)
    if kept is None:
        return None
    fields, expires_at = kept
    caller = Caller(*fields)
    return caller._replace(scopes=tuple(caller.scopes)), expires_at


def _public(row: Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": row["name"],
        "prefix": row["prefix"],
        "scopes": row["scopes"],
        "created_at": rfc3339(row["created_at"]),
        "expires_at": rfc3339(row["expires_at"]),
    }
