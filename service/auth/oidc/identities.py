"""Users of an issuer: found by (issuer, subject), made at first sight where allowed, with the role of a claim."""

from __future__ import annotations

import re
import secrets
import time
import unicodedata
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from service.audit.record import Action, record
from service.auth.oidc.issuer import Issuer
from service.auth.oidc.sign_in import SignIn
from service.auth.oidc.tokens import LEEWAY, Claims, access_claims, family_of, is_subject, issuer_named_by
from service.auth.revocation import Revocations
from service.auth.users import Role, User, UserService, user_of
from service.errors import Conflict, Invalid, InvalidToken, UnknownIdentity
from service.ids import new_id
from service.store import identities as rows
from service.store import token_families as families
from service.store import users as user_rows
from service.store import workspaces
from service.store.actor import Actor, act_as
from service.store.database import Database, Row, Transaction
from service.store.identities import Identity
from service.types import DEFAULT_WORKSPACE, Caller, now_ms

_RANK: Mapping[Role, int] = {"user": 0, "operator": 1, "admin": 2}
_NAME_LETTERS = 64  # of a name that the issuer gives; a suffix makes it unique
_TRIES = 5  # names for one new user


class Rules(NamedTuple):
    """Mapping of claims to users. `roles`: of values of the claim; without any, roles are set in Slipway alone.

    `trusted_seconds`: until a token that this process has verified is verified again. No longer than an access token of
    Slipway's lives, as `Revocations` forgets the token's end after that.
    """

    audience: str
    creates_users: bool
    role_claim: str
    roles: Mapping[str, Role]
    workspace_claim: str
    trusted_seconds: float


class Identities:
    """Callers and users by an issuer's tokens. `page` is the web page's sign-in, where it is configured.

    Each bearer token is a token family of its own, made when it is first seen: what ends a user's log-ins (disabling,
    deletion, another role) ends it too, at once and on every worker.
    """

    def __init__(
        self,
        issuer: Issuer,
        rules: Rules,
        users: UserService,
        db: Database,
        revocations: Revocations,
        page: SignIn | None,
    ) -> None:
        self.issuer = issuer
        self.page = page
        self._rules = rules
        self._users = users
        self._db = db
        self._revocations = revocations

    def takes(self, token: str) -> bool:
        """Return whether a bearer token is for this verifier: it says that it is of the issuer."""
        return bool(self._rules.audience) and issuer_named_by(token) == self.issuer.url

    def caller(self, token: str) -> tuple[Caller, float]:
        """Authenticate an access token; return its caller, and until when (time.time()) it need not be verified again.

        Raises `Forged`, `InvalidToken` for one that has expired or was ended here, also before it was seen,
        `UnknownIdentity` and `IdentityUnavailable`.
        """
        claims, family = access_claims(self.issuer, token, self._rules.audience), family_of(token)
        state = self._db.query(partial(_state, family=family))
        if state == "ended":
            raise InvalidToken("This log-in has ended.")
        user = self._user(claims, changes_role=state == "new")
        if state == "new":
            self._db.transact(partial(_begin, family=family, user_id=user.id, claims=claims))
        until = min(claims.expires_at + LEEWAY, time.time() + self._rules.trusted_seconds)
        if user.limit_runs_until is not None:
            until = min(until, user.limit_runs_until / 1000)
        caller = Caller(
            user.id,
            user.username,
            user.role,
            family=family,
            limit_runs=user.limit_runs,
            workspace_id=user.workspace_id,
        )
        return caller, until

    def user(self, claims: Claims) -> User:
        """Find or make the user of a sign-in, from now on the actor. Raises `InvalidToken` and `UnknownIdentity`."""
        return self._user(claims, changes_role=True)

    def link(self, user: User, subject: str, issuer: str = "") -> None:
        """Give an identity to a user. The log-ins of the one who had it end. Raises `Invalid` and `Conflict`."""
        if not is_subject(subject):
            raise Invalid("A subject has 1 to 255 printable ASCII characters.")
        identity, marker, now = Identity(issuer or self.issuer.url, subject), new_id("fam"), now_ms()
        former = user.id

        def work(tx: Transaction) -> families.Revoked:
            nonlocal former
            owner = rows.owner(tx, identity)
            # Where the answer to an earlier commit was lost, the identity is the user's already.
            former = former if owner is None or owner == user.id else owner
            user_rows.lock(tx, {user.id, former})  # before the identity, in the order of all locks
            rows.link(tx, identity, user.id, owner)
            record(tx, Action.IDENTITY_LINKED, f"user:{user.id}", workspace_id=user.workspace_id)
            if former == user.id:
                return families.Revoked([], [])
            return families.revoke_all(tx, former, marker, now)

        self._revocations.publish(self._db.transact(work))

    def _user(self, claims: Claims, *, changes_role: bool) -> User:
        identity = Identity(self.issuer.url, claims.subject)
        row = self._db.query(lambda tx: rows.find(tx, identity))
        workspace_id = self._workspace(claims)
        if row is None:
            row = self._created(identity, claims, workspace_id or DEFAULT_WORKSPACE)
        if row["refused"]:
            raise InvalidToken("The token is not valid, or no longer.")
        _refuse_ended(row, claims)
        if workspace_id is not None and workspace_id != row["workspace_id"]:
            raise UnknownIdentity("This identity's user is in another workspace.")
        act_as(Actor("user", row["id"], workspace_id=row["workspace_id"]))
        return self._with_role(row, identity, claims) if changes_role else user_of(row)

    def _workspace(self, claims: Claims) -> str | None:
        """Return the id of the workspace that the claim names; None: no claim decides. Raises `UnknownIdentity`."""
        if not self._rules.workspace_claim:
            return None
        name = claim(claims.all, self._rules.workspace_claim)
        row = self._db.query(lambda tx: workspaces.by_name(tx, name)) if isinstance(name, str) else None
        if row is None or row["disabled"]:
            raise UnknownIdentity("The token names no workspace of this service.")
        return str(row["id"])

    def _created(self, identity: Identity, claims: Claims, workspace_id: str) -> Row:
        """Make a user; their name is the issuer's, with a suffix where it is taken. Raises `UnknownIdentity`."""
        if not self._rules.creates_users:
            raise UnknownIdentity("Nobody here has this identity; an operator can link it to a user.")
        name, row = username_of(claims.all), None
        act_as(Actor("user", user_id := new_id("usr"), workspace_id=workspace_id))
        for attempt in range(_TRIES):
            user = {
                "id": user_id,
                "workspace_id": workspace_id,
                "username": f"{name}-{secrets.token_hex(4)}" if attempt else name,
                "password_hash": "",  # no password fits
                "role": self._role(claims) or "user",
                "disabled": False,
                "limit_runs": None,
                "created_at": now_ms(),
            }
            at = claims.issued_at * 1000
            try:
                row = self._db.transact(partial(self._create, identity=identity, user=user, roles_at=at))
                break
            except Conflict:  # the name is taken, or the identity has a user since a moment ago
                continue
        if row is None:
            raise Conflict("That username is taken.")
        return row

    def _create(self, tx: Transaction, identity: Identity, user: dict[str, Any], roles_at: int) -> Row:
        """Insert a user with this identity, or return the user that it has.

        Raises `Conflict` when the name is taken, or another process has just made a user for the identity.
        """
        found = rows.find(tx, identity)
        if found is None:
            self._users.insert(tx, user)
            rows.insert(tx, identity, user["id"], roles_at)
            found = rows.find(tx, identity)
            if found is None or found["id"] != user["id"]:
                raise Conflict("This identity has a user already.")
        return found

    def _with_role(self, row: Row, identity: Identity, claims: Claims) -> User:
        """Apply the role that a token gives, unless a newer token has given one."""
        role, at = self._role(claims), claims.issued_at * 1000
        if role is None or at < row["roles_at"]:
            return user_of(row)
        if at > row["roles_at"]:
            self._db.transact(partial(rows.keep_roles_at, identity=identity, at=at))
        return user_of(row) if role == row["role"] else self._changed(row["id"], role, at)

    def _changed(self, user_id: str, role: Role, at: int) -> User:
        """Change a role by a token issued `at` (ms). Raises `UnknownIdentity` for the last admin of a workspace."""
        try:
            return self._users.take_role(user_id, role, at)
        except Conflict:
            raise UnknownIdentity("Your role is changed; another admin is needed first.") from None

    def _role(self, claims: Claims) -> Role | None:
        """Return the highest role of the claim's values, `user` without one; None where Slipway alone sets roles."""
        if not self._rules.roles:
            return None
        found = claim(claims.all, self._rules.role_claim)
        values = [found] if isinstance(found, str) else found if isinstance(found, list) else []
        granted = [
            self._rules.roles[one] for one in values if isinstance(one, str) and one in self._rules.roles
        ]
        highest: Role = max(granted, key=_RANK.__getitem__, default="user")
        return highest


def claim(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim by its name, or by a path such as `realm_access.roles`; None without one."""
    if name in claims:  # some names are URLs, with dots in them
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def username_of(claims: Mapping[str, Any]) -> str:
    """Build a username of what the issuer calls the user: unchecked there, so it decides nothing here."""
    for name in ("preferred_username", "email"):
        told = claims.get(name)
        if isinstance(told, str):
            ascii_only = unicodedata.normalize("NFKD", told[:1024]).encode("ascii", "ignore").decode()
            fitting = re.sub(r"[^A-Za-z0-9._@+-]+", "-", ascii_only).lstrip("._@+-")[:_NAME_LETTERS]
            if fitting:
                return fitting
    return "user"


def _state(tx: Transaction, family: str) -> str:
    """Return whether a token's family is `live`, has `ended`, or is `new`."""
    if families.is_live(tx, family):
        return "live"
    return "new" if families.owner(tx, family) is None else "ended"


def _refuse_ended(row: Row, claims: Claims) -> None:
    """Raise `InvalidToken` for a token issued before the last end of all log-ins of its user, or of their workspace.

    `iat` is in whole seconds: a token of the same second may be from before.
    """
    if claims.issued_at * 1000 < max(row["tokens_from"] or 0, row["changed_at"] or 0):
        raise InvalidToken("This log-in has ended.")


def _begin(tx: Transaction, family: str, user_id: str, claims: Claims) -> None:
    ends = (claims.expires_at + LEEWAY) * 1000
    row = families.insert(tx, family, user_id, "", now=now_ms(), expires_at=ends)
    if row is None:
        raise InvalidToken("This user may not sign in.")
    _refuse_ended(row, claims)
    record(tx, Action.SIGN_IN, f"user:{user_id}", login=family)
