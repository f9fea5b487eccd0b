"""Users and their passwords (argon2id, OWASP's 19 MiB profile)."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from service.auth.login_throttle import LoginAttempt, LoginThrottle
from service.auth.revocation import Revocations
from service.errors import InvalidCredentials, NotFound, Overloaded, fault
from service.infra.redis import RedisStore
from service.store import sign_in_addresses
from service.store import token_families as token_rows
from service.store import users as rows
from service.store.actor import Actor, act_as
from service.store.database import Database, Row, Transaction
from service.types import new_id, now_ms, public_fields

log = logging.getLogger("slipway.auth")

Role = Literal["user", "operator", "admin"]
USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
MIN_PASSWORD, MAX_PASSWORD = 8, 256  # characters
_HASH_CONCURRENCY = 2  # per process: 19 MiB each, and 30 ms of one core
_HASH_TIMEOUT = 3.0  # seconds a log-in waits for a hashing slot
_ADDRESS_REFRESH_MS = 86_400_000  # an address in daily use is written once a day
_RATE = re.compile(r"[1-9][0-9]{0,8}/(?:[1-9][0-9]{0,4} ?)?(?:second|minute|hour|day)s?")


_FIELDS = "id username role disabled limit_runs created_at"


@dataclass(frozen=True, slots=True)
class User:
    id: str
    username: str
    role: Role
    disabled: bool
    limit_runs: str | None
    created_at: int

    def public(self) -> dict[str, Any]:
        return public_fields(asdict(self), _FIELDS)


def user_of(row: Row) -> User:
    return User(**{name: row[name] for name in _FIELDS.split()})


class UserService:
    """User accounts: sign-in, creation, change, deletion. Loss of rights applies at once, on every worker."""

    def __init__(self, db: Database, redis_store: RedisStore, revocations: Revocations, secret: str) -> None:
        self._db = db
        self._revocations = revocations
        self._throttle = LoginThrottle(redis_store)
        self._pepper = hmac.digest(secret.encode(), b"slipway addresses", "sha256")
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._hash_slots = threading.BoundedSemaphore(_HASH_CONCURRENCY)
        self._dummy_hash = self._hasher.hash("nobody has this password")

    def sign_in(self, username: str, password: str, address: str) -> User:
        """Verify a password and return the user, from now on the actor.

        Raises `InvalidCredentials` (constant work: users that are unknown or have no password cost the same hash) and
        `RateLimited`, see `service.auth.login_throttle`.
        """
        network = network_of(address)
        digest = hmac.digest(self._pepper, network.encode(), "sha256").hex()
        row, seen_at = self._db.query(partial(_look_up, username=username, digest=digest))
        attempt = LoginAttempt(username, network, known=seen_at is not None)
        self._throttle.begin(attempt)
        stored = row["password_hash"] if row else ""  # empty too for users of an issuer
        right = self._matches(stored or self._dummy_hash, password)
        if row is None or not stored or not right or row["disabled"]:
            self._throttle.failed(attempt)
            raise InvalidCredentials()
        self._throttle.succeeded(attempt)
        act_as(Actor("user", row["id"]))
        now = now_ms()
        if seen_at is None or seen_at < now - _ADDRESS_REFRESH_MS:
            self._db.transact(partial(sign_in_addresses.remember, user_id=row["id"], digest=digest, now=now))
        return user_of(row)

    def create(
        self, username: str, password: str, role: Role = "user", limit_runs: str | None = None
    ) -> User:
        """Create a user. Raises `Invalid`, or `Conflict` when the name is taken."""
        row = self.new_row(username, password, role, limit_runs)
        return self._db.transact(lambda tx: self.insert(tx, row))

    def insert(self, tx: Transaction, row: dict[str, Any]) -> User:
        """Insert a row of `new_row`. Raises `Conflict` when the name is taken."""
        rows.insert(tx, row)
        return user_of(row)

    def bootstrap(self, username: str, password: str) -> User | None:
        """Create the first admin, only while the table is empty; safe when many processes start at once."""
        if not username or self._db.query(rows.any_exists):
            return None
        row = self.new_row(username, password, "admin", None)
        return user_of(row) if self._db.transact(lambda tx: rows.insert_first(tx, row)) else None

    def get(self, user_id: str) -> User:
        """Find a user by id. Raises `NotFound`."""
        row = self._db.query(lambda tx: rows.get(tx, user_id))
        if row is None:
            raise NotFound("There is no such user.")
        return user_of(row)

    def by_name(self, username: str) -> User | None:
        row = self._db.query(lambda tx: rows.by_name(tx, username))
        return user_of(row) if row else None

    def page(self, *, limit: int, after: str | None) -> list[User]:
        """List users, oldest first, after the id `after`."""
        return [user_of(row) for row in self._db.query(partial(rows.page, limit=limit, after=after))]

    def change(
        self,
        user_id: str,
        *,
        password: str | None = None,
        role: Role | None = None,
        disabled: bool | None = None,
        limit_runs: str | None = None,
    ) -> User:
        """Change the given fields; `limit_runs=""` restores the setting's limit. Ends the user's log-ins.

        Role and limit are claims of the tokens, so changing either must revoke them too.
        """
        changes: dict[str, Any] = {"role": role, "disabled": disabled}
        changes = {key: value for key, value in changes.items() if value is not None}
        if password is not None:
            changes["password_hash"] = self._hash(password)
        if limit_runs is not None:
            changes["limit_runs"] = _checked_rate(limit_runs) or None
        if changes:
            self._end_logins(user_id, partial(rows.update, user_id=user_id, changes=changes))
        return self.get(user_id)

    def delete(self, user_id: str) -> None:
        """Delete a user; the ledger keeps their spending. Raises `NotFound`."""
        self._end_logins(user_id, partial(rows.forget, user_id=user_id))

    def _end_logins(self, user_id: str, change: Any) -> None:
        marker, now = new_id("fam"), now_ms()

        def work(tx: Transaction) -> token_rows.Revoked:
            # With the marker, it was this change that deleted the user: the answer to an earlier commit was lost.
            if not change(tx) and token_rows.owner(tx, marker) is None:
                raise NotFound("There is no such user.")
            return token_rows.revoke_all(tx, user_id, marker, now)

        self._revocations.publish(self._db.transact(work))

    def new_row(self, username: str, password: str, role: Role, limit_runs: str | None) -> dict[str, Any]:
        """Build a validated `users` row without inserting. Raises `Invalid`."""
        if not USERNAME.fullmatch(username):
            raise fault("/username", "Use 1 to 128 of A-Z a-z 0-9 . _ @ + -, a letter or digit first.")
        return {
            "id": new_id("usr"),
            "username": username,
            "password_hash": self._hash(password),
            "role": role,
            "disabled": False,
            "limit_runs": _checked_rate(limit_runs) if limit_runs else None,
            "created_at": now_ms(),
        }

    def _hash(self, password: str) -> str:
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise fault("/password", f"Use {MIN_PASSWORD} to {MAX_PASSWORD} characters.")
        with self._hash_slot():
            return self._hasher.hash(password)

    def _matches(self, password_hash: str, password: str) -> bool:
        with self._hash_slot():
            try:
                return self._hasher.verify(password_hash, password)
            except (VerificationError, InvalidHashError):
                return False

    @contextmanager
    def _hash_slot(self) -> Iterator[None]:
        if not self._hash_slots.acquire(timeout=_HASH_TIMEOUT):
            raise Overloaded("Too many log-ins at once.", retry_after=2)
        try:
            yield
        finally:
            self._hash_slots.release()


def network_of(address: str) -> str:
    """Rate-limit key of an address: an IPv4 address itself, the /64 of an IPv6 one (one customer's block)."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(parsed) >> 64 << 64)}/64"


def _look_up(tx: Transaction, username: str, digest: str) -> tuple[Row | None, int | None]:
    """Return the user's row and their last sign-in from this address (ms); unknown names cost the same queries."""
    row = rows.by_name(tx, username if USERNAME.fullmatch(username) else "")
    return row, sign_in_addresses.seen_at(tx, row["id"] if row else "", digest)


def _checked_rate(rate: str) -> str:
    if rate and not _RATE.fullmatch(rate):
        raise fault("/limit_runs", "Use a rate such as 60/minute.")
    return rate
