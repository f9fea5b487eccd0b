"""Users: sign-in, creation, change, deletion."""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

from service.audit.record import Action, Refusals, record
from service.auth.login_throttle import LoginAttempt, LoginThrottle, network_of
from service.auth.passwords import Passwords
from service.auth.rates import checked_rate
from service.auth.revocation import Revocations
from service.auth.user_actions import actions_of, record_creation
from service.auth.workspaces import DEFAULT_NAME, NAME, no_workspace
from service.errors import Conflict, InvalidCredentials, InvalidToken, NotFound, Overloaded, fault
from service.ids import new_id
from service.infra.redis import RedisStore
from service.store import credentials, erasures, run_limits, sign_in_addresses, workspaces
from service.store import token_families as token_rows
from service.store import users as rows
from service.store.actor import Actor, act_as
from service.store.database import Database, Row, Transaction
from service.store.run_limits import NewLimit
from service.types import DEFAULT_WORKSPACE, now_ms, public_fields

log = logging.getLogger("slipway.auth")

Role = Literal["user", "operator", "admin"]
USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
_ADDRESS_REFRESH_MS = 86_400_000  # an address in daily use is written once a day

_FIELDS = "id workspace_id username role disabled created_at limit_runs limit_runs_until limit_runs_after"


@dataclass(frozen=True, slots=True)
class User:
    id: str
    workspace_id: str
    username: str
    role: Role
    disabled: bool
    created_at: int
    limit_runs: str | None
    # As it was when the user was read: a log-in begins only while it holds.
    password_hash: str = field(repr=False)
    limit_runs_until: int | None = None
    limit_runs_after: str | None = None

    def public(self) -> dict[str, Any]:
        return public_fields(asdict(self), _FIELDS)


def user_of(row: Row) -> User:
    found = {**row, **run_limits.in_force(row)}
    return User(password_hash=row["password_hash"], **{name: found[name] for name in _FIELDS.split()})


class UserService:
    """User accounts: sign-in, creation, change, deletion. Loss of rights applies at once, on every worker."""

    def __init__(
        self,
        db: Database,
        redis_store: RedisStore,
        revocations: Revocations,
        secret: str,
        refusals: Refusals,
    ) -> None:
        self._db = db
        self._refusals = refusals
        self._revocations = revocations
        self._throttle = LoginThrottle(redis_store)
        self.refused: Callable[[], object] = lambda: None  # called once a user is disabled or deleted
        self._pepper = hmac.digest(secret.encode(), b"slipway addresses", "sha256")
        self._passwords = Passwords()

    def sign_in(self, username: str, password: str, address: str, workspace: str = DEFAULT_NAME) -> User:
        """Verify a password and return the user, from now on the actor. `workspace`: its name.

        Raises `InvalidCredentials` (constant work: users that are unknown or have no password, and unknown workspaces,
        cost the same hash), `Overloaded`, and `RateLimited`, see `service.auth.login_throttle`.
        """
        network = network_of(address)
        digest = hmac.digest(self._pepper, network.encode(), "sha256").hex()
        row, seen_at = self._db.query(
            partial(_look_up, username=username, workspace=workspace, digest=digest)
        )
        attempt = LoginAttempt(_account(username, workspace), network, known=seen_at is not None)
        self._throttle.begin(attempt)
        stored = row["password_hash"] if row else ""  # empty too for users of an issuer
        try:
            right = self._passwords.matches(stored or self._passwords.dummy, password)
        except Overloaded:
            self._throttle.refund(attempt)
            raise
        if row is None or not stored or not right or row["refused"]:
            self._throttle.failed(attempt)
            self._refuse(row)
            raise InvalidCredentials()
        self._throttle.succeeded(attempt)
        act_as(Actor("user", row["id"], workspace_id=row["workspace_id"]))
        now = now_ms()
        if seen_at is None or seen_at < now - _ADDRESS_REFRESH_MS:
            self._db.transact(partial(sign_in_addresses.remember, user_id=row["id"], digest=digest, now=now))
        return user_of(row)

    def _refuse(self, row: Row | None) -> None:
        """Record a refused sign-in; of a name that nobody has no word is kept, as people type passwords there."""
        subject, workspace_id = (f"user:{row['id']}", row["workspace_id"]) if row else ("user:unknown", None)
        self._refusals.record(Action.SIGN_IN, subject, workspace_id=workspace_id)

    def create(
        self,
        username: str,
        password: str,
        role: Role = "user",
        limit_runs: str | None = None,
        workspace_id: str = DEFAULT_WORKSPACE,
    ) -> User:
        """Create a user. Raises `Invalid`, `NotFound` without the workspace, or `Conflict` when the name is taken."""
        row = self.new_row(username, password, role, limit_runs, workspace_id)
        return self._db.transact(lambda tx: self.insert(tx, row))

    def insert(self, tx: Transaction, row: dict[str, Any]) -> User:
        """Insert a row of `new_row`. Raises `NotFound` without the workspace, or `Conflict` when the name is taken."""
        if not workspaces.keep(tx, row["workspace_id"]):
            raise no_workspace(row["workspace_id"])
        rows.insert(tx, row)
        record_creation(tx, row)
        return user_of(row)

    def bootstrap(self, username: str, password: str) -> User | None:
        """Create the first admin, only while the table is empty; safe when many processes start at once."""
        if not username or self._db.query(rows.any_exists):
            return None
        row = self.new_row(username, password, "admin")

        def work(tx: Transaction) -> bool:
            if first := rows.insert_first(tx, row):
                record_creation(tx, row)
            return first

        return user_of(row) if self._db.transact(work) else None

    def get(self, user_id: str, within: str | None = None) -> User:
        """Find a user by id; `within`: only a user of that workspace. Raises `NotFound`."""
        row = self._db.query(lambda tx: rows.get(tx, user_id))
        if row is None or within not in (None, row["workspace_id"]):
            raise NotFound("There is no such user.")
        return user_of(row)

    def by_name(self, username: str, workspace: str = DEFAULT_NAME) -> User | None:
        row = self._db.query(lambda tx: rows.by_name(tx, username, workspace))
        return user_of(row) if row else None

    def page(
        self, *, limit: int, after: str | None, workspace_id: str | None = None, username: str | None = None
    ) -> list[User]:
        """List users, or those of one workspace or name, oldest first, after the id `after`."""
        read = partial(rows.page, limit=limit, after=after, workspace_id=workspace_id, username=username)
        return [user_of(row) for row in self._db.query(read)]

    def change(
        self,
        user_id: str,
        within: str | None = None,
        *,
        password: str | None = None,
        role: Role | None = None,
        disabled: bool | None = None,
        limit: NewLimit | None = None,
    ) -> User:
        """Change the given fields; a `limit` of "" restores the setting's. Ends their log-ins.

        Role and limit are claims of the tokens, so changing either must revoke them too. `within`: only a user of that
        workspace. Raises `Invalid` and `NotFound`, and `Conflict` for the last admin of a workspace.
        """
        changes: dict[str, Any] = {"role": role, "disabled": disabled}
        changes = {key: value for key, value in changes.items() if value is not None}
        if password is not None:
            changes["password_hash"] = self._passwords.hash(password)
        if limit is not None:
            changes |= run_limits.of_user(checked_rate(limit.rate) or None, limit.until)
        if changes:
            change = partial(rows.update, user_id=user_id, changes=changes, workspace_id=within)
            self._end_logins(user_id, change, actions_of(changes))
        if disabled:
            self.refused()
        return self.get(user_id)

    def take_role(self, user_id: str, role: Role, issued_at: int) -> User:
        """Set the role that an issuer's token gives. Ends the user's log-ins, and tokens from before `issued_at` (ms).

        Raises `Conflict`, which is logged and audited, for the last admin of a workspace.
        """
        change = partial(rows.update, user_id=user_id, changes={"role": role})
        try:
            self._end_logins(user_id, change, actions_of({"role": role}), issued_at)
        except Conflict:
            log.warning("role_kept", extra={"user": user_id, "refused_role": role})
            self._refusals.record(Action.USER_ROLE, f"user:{user_id}", role=role)
            raise
        return self.get(user_id)

    def end_logins(self, user_id: str, within: str | None = None) -> None:
        """End all log-ins of a user, who may sign in again. `within`: as in `change`. Raises `NotFound`."""
        self.get(user_id, within)
        self._end_logins(user_id, lambda tx: True, {Action.USER_LOGINS: {}})

    def delete(self, user_id: str, within: str | None = None) -> None:
        """Delete a user, whose spending the ledger keeps. `within`: as in `change`. Raises `NotFound`."""
        change = partial(rows.forget, user_id=user_id, workspace_id=within)
        self._end_logins(user_id, change, {Action.USER_DELETED: {}})
        self.refused()

    def begin_erasure(self, user_id: str, within: str | None = None) -> None:
        """Delete a user, also one deleted before, and note that all they left is to be erased.

        `within`: as in `change`. Raises `NotFound`.
        """
        row = self._db.query(lambda tx: rows.get(tx, user_id))
        if row is not None and within in (None, row["workspace_id"]):
            workspace = self._db.query(lambda tx: workspaces.get(tx, row["workspace_id"]))
            self._throttle.forget(_account(row["username"], workspace["name"] if workspace else ""))
        now = now_ms()
        until = now + self._revocations.life_ms
        begin = partial(erasures.begin, user_id=user_id, now=now, log_ins_until=until, within=within)
        self._end_logins(user_id, begin, {Action.USER_ERASED: {}})

    def _end_logins(
        self,
        user_id: str,
        change: Callable[[Transaction], bool],
        told: dict[Action, dict[str, Any]],
        tokens_from: int | None = None,
    ) -> None:
        marker, now = new_id("fam"), now_ms()

        def work(tx: Transaction) -> token_rows.Revoked:
            # With the marker, this change was committed before, and its answer was lost.
            again = token_rows.owner(tx, marker) is not None
            if not again and not credentials.hold_before_change(tx, tx.actor, user_id):
                raise InvalidToken("This log-in has ended.")
            if not change(tx) and not again:
                raise NotFound("There is no such user.")
            workspace_id = rows.workspace_of(tx, user_id)
            for action, details in told.items():
                record(tx, action, f"user:{user_id}", workspace_id=workspace_id, **details)
            return token_rows.revoke_all(tx, user_id, marker, now, tokens_from=tokens_from)

        self._revocations.publish(self._db.transact(work))

    def new_row(
        self,
        username: str,
        password: str,
        role: Role,
        limit_runs: str | None = None,
        workspace_id: str = DEFAULT_WORKSPACE,
    ) -> dict[str, Any]:
        """Build a validated `users` row without inserting. Raises `Invalid`."""
        if not USERNAME.fullmatch(username):
            raise fault("/username", "Use 1 to 128 of A-Z a-z 0-9 . _ @ + -, a letter or digit first.")
        return {
            "id": new_id("usr"),
            "workspace_id": workspace_id,
            "username": username,
            "password_hash": self._passwords.hash(password),
            "role": role,
            "disabled": False,
            "limit_runs": checked_rate(limit_runs) if limit_runs else None,
            "created_at": now_ms(),
        }


def _account(username: str, workspace: str) -> str:
    """Name of an account for the throttle; neither name has a slash in it."""
    return username if workspace == DEFAULT_NAME else f"{workspace}/{username}"


def _look_up(tx: Transaction, username: str, workspace: str, digest: str) -> tuple[Row | None, int | None]:
    """Return the user's row and their last sign-in from this address (ms); unknown names cost the same queries."""
    fits = USERNAME.fullmatch(username) and NAME.fullmatch(workspace)
    row = rows.by_name(tx, username if fits else "", workspace if fits else "")
    return row, sign_in_addresses.seen_at(tx, row["id"] if row else "", digest)
