"""Tokens: short-lived access tokens and refresh tokens that can be spent once.

Every log-in begins a family, and a refresh token belongs to it. Spending one twice means that it was stolen
or that an answer was lost, and which of the two cannot be known: the whole family ends.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from jwt.utils import base64url_decode

from service.audit.record import Action, record
from service.auth.rates import is_rate
from service.auth.revocation import Revocations
from service.auth.signing_keys import SigningKey, SigningKeys
from service.auth.users import USERNAME, Role, User, user_of
from service.errors import InvalidCredentials, InvalidToken
from service.ids import new_id
from service.store import token_families as rows
from service.store.actor import Actor
from service.store.database import Database, Transaction
from service.types import DEFAULT_WORKSPACE, Caller, now_ms

ISSUER = AUDIENCE = "slipway"
LEEWAY = 5  # seconds
ROLES = get_args(Role)
Kind = Literal["access", "refresh"]
_FORMS = {  # of the claims of both kinds
    "aud": re.compile(AUDIENCE),
    "sub": re.compile(r"usr_[0-9a-z]{1,32}"),
    "fam": re.compile(r"fam_[0-9a-z]{1,32}"),
    "jti": re.compile(r"[A-Za-z0-9_-]{1,64}"),
}
_WORKSPACE = re.compile(r"wsp_[0-9a-z]{1,32}")  # claim `wsp`, if there is one
_LATEST_MS = 2**53  # of a date in a token
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Pair:
    """Token pair, the response of a log-in or a refresh."""

    access_token: str
    refresh_token: str
    expires_in: int

    def public(self) -> dict[str, Any]:
        return {**asdict(self), "token_type": "Bearer"}


class TokenService:
    """Begins, renews and ends log-ins. Signatures are verified in the web layer, by Flask-JWT-Extended."""

    def __init__(
        self,
        db: Database,
        revocations: Revocations,
        keys: SigningKeys,
        *,
        access_seconds: int,
        refresh_seconds: int,
    ) -> None:
        self.keys = keys
        self._db = db
        self._revocations = revocations
        self._access_seconds = access_seconds
        self._refresh_seconds = refresh_seconds

    def begin(self, user: User) -> Pair:
        """Begin a token family for a user who has just signed in. Raises `InvalidCredentials` if they no longer may."""
        # First: `SigningKeys` takes a log-in that is older than any key for an upgrade's.
        key = self.keys.current()
        family, jti, now = new_id("fam"), _jti(), now_ms()
        ends = now + self._refresh_seconds * 1000

        def work(tx: Transaction) -> User:
            row = rows.insert(tx, family, user.id, jti, now=now, expires_at=ends)
            if row is None or row["password_hash"] != user.password_hash:
                raise InvalidCredentials()
            record(tx, Action.SIGN_IN, f"user:{user.id}", workspace_id=user.workspace_id, login=family)
            return user_of(row)

        return self._pair(key, self._db.transact(work), family, jti)

    def renew(self, claims: Mapping[str, Any]) -> Pair:
        """Exchange the refresh token with these verified claims for a new pair. Raises `InvalidToken`.

        A token that is spent ends its family, while that lives. The new refresh
        token lives as long as the family: a log-in is not prolonged by using it.
        """
        key = self.keys.current()  # before the token is spent, as this may fail
        family, spent, fresh = str(claims["fam"]), str(claims["jti"]), _jti()

        def work(tx: Transaction) -> tuple[User | None, bool]:
            row = rows.owner(tx, family)
            if row is not None and not row["refused"] and rows.rotate(tx, family, spent, fresh):
                return user_of(row), False
            return None, rows.is_live(tx, family)

        user, reused = self._db.transact(work)
        if reused:
            self._revocations.end(family, Action.REFRESH_REUSED)
        if user is None:
            raise InvalidToken("This refresh token is spent; sign in again.")
        return self._pair(key, user, family, fresh, refresh_until=int(claims["exp"]))

    def accepts(self, claims: Mapping[str, Any]) -> bool:
        """Return whether verified claims have the form and at most the lifetime of tokens signed by `_pair` today.

        An access token that lives longer would outlive its entry in `Revocations`. Raises `LookupError` or `TypeError`
        for claims that are not there, or of another type.
        """
        longest = {"access": self._access_seconds, "refresh": self._refresh_seconds}.get(claims["type"], 0)
        if not all(form.fullmatch(claims[name]) for name, form in _FORMS.items()):
            return False
        if not _WORKSPACE.fullmatch(claims.get("wsp", DEFAULT_WORKSPACE)):
            return False
        issued, ends = claims["iat"], claims["exp"]
        return type(issued) is int and type(ends) is int and 0 < ends - issued <= longest

    def _pair(
        self, key: SigningKey, user: User, family: str, jti: str, refresh_until: int | None = None
    ) -> Pair:
        now = int(time.time())
        common: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": user.id, "fam": family, "iat": now}
        if user.workspace_id != DEFAULT_WORKSPACE:
            common["wsp"] = user.workspace_id
        access = common | {"type": "access", "jti": _jti(), "exp": now + self._access_seconds}
        access |= {"role": user.role, "name": user.username}
        if user.limit_runs:
            access["lim"] = user.limit_runs
        if user.limit_runs_until:
            access |= {"lim_until": user.limit_runs_until, "lim_after": user.limit_runs_after}
        ends = refresh_until or now + self._refresh_seconds
        refresh = common | {"type": "refresh", "jti": jti, "exp": ends}
        return Pair(key.sign(access), key.sign(refresh), self._access_seconds)


def refuse_ambiguous(token: str) -> None:
    """Raise `ValueError` for padding, a list of tokens, or a name given twice: parsers differ in what they read."""
    if _COMPACT.fullmatch(token) is None:
        raise ValueError("not three parts in base64url (RFC 7515, 7.1)")
    for segment in token.split(".")[:2]:
        json.loads(base64url_decode(segment).decode(), object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice")
    return found


def actor_of(claims: Mapping[str, Any]) -> Actor:
    """Build the actor of a token's verified claims."""
    return Actor("user", str(claims["sub"]), workspace_id=str(claims.get("wsp", DEFAULT_WORKSPACE)))


def caller_of(claims: Mapping[str, Any]) -> Caller:
    """Build the caller from an access token's verified claims. Raises `InvalidToken` for claims of another issuer."""
    name: Any
    role: Any = claims.get("role")
    name, workspace = claims.get("name"), claims.get("wsp", DEFAULT_WORKSPACE)
    limit = claims.get("lim" if _limit_end(claims) > now_ms() else "lim_after")
    if role not in ROLES or not _fits(USERNAME, name):
        raise InvalidToken()
    if limit is not None and not (isinstance(limit, str) and is_rate(limit)):
        raise InvalidToken()
    family = claims["fam"]
    return Caller(claims["sub"], name, role, family=family, limit_runs=limit, workspace_id=workspace)


def constant_until(claims: Mapping[str, Any]) -> float:
    """Return until when (time.time()) `caller_of` gives the same caller: the token's end, or that of its limit."""
    ends, limit_ends = float(claims["exp"] + LEEWAY), _limit_end(claims) / 1000
    return min(ends, limit_ends) if limit_ends > time.time() else ends


def _limit_end(claims: Mapping[str, Any]) -> float:
    """Return the end (ms) of the claim `lim`. Raises `InvalidToken` for claims of another issuer."""
    if "lim_until" not in claims:
        return math.inf
    end = claims["lim_until"]
    if type(end) is not int or not 0 < end < _LATEST_MS:
        raise InvalidToken()
    return end


def _fits(form: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None


def _jti() -> str:
    return secrets.token_urlsafe(16)
