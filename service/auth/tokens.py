"""Tokens: short-lived access tokens and refresh tokens that can be spent once.

Every log-in begins a family, and a refresh token belongs to it. Spending one twice means that it was stolen
or that an answer was lost, and which of the two cannot be known: the whole family ends.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from jwt.algorithms import OKPAlgorithm

from service.auth.revocation import Revocations
from service.auth.users import Role, User, user_of
from service.errors import InvalidToken
from service.store import token_families as rows
from service.store.database import Database, Transaction
from service.types import DEFAULT_WORKSPACE, Caller, new_id, now_ms

ISSUER = AUDIENCE = "slipway"
LEEWAY = 5  # seconds
ROLES = get_args(Role)
Kind = Literal["access", "refresh"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Token pair, the response of a log-in or a refresh."""

    access_token: str
    refresh_token: str
    expires_in: int

    def public(self) -> dict[str, Any]:
        return {**asdict(self), "token_type": "Bearer"}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """Key that signs and verifies tokens: HS256 with the secret, or EdDSA with a private key."""

    algorithm: str
    signing: str | Ed25519PrivateKey
    checking: str | Ed25519PublicKey
    key_id: str | None

    @classmethod
    def of(cls, secret: str, private_pem: str = "") -> SigningKey:
        """Create the key of these settings. Raises `ValueError` when the PEM is not an Ed25519 private key."""
        if not private_pem:
            return cls("HS256", secret, secret, None)
        private = load_pem_private_key(private_pem.encode(), password=None)
        if not isinstance(private, Ed25519PrivateKey):
            raise ValueError("JWT_PRIVATE_KEY must be an Ed25519 private key")
        public = private.public_key()
        raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return cls("EdDSA", private, public, hashlib.sha256(raw).hexdigest()[:16])

    def jwks(self) -> dict[str, Any]:
        """Return the public keys (RFC 7517); none when tokens are signed with the secret."""
        if isinstance(self.checking, str):
            return {"keys": []}
        public = OKPAlgorithm.to_jwk(self.checking, as_dict=True)
        return {"keys": [{**public, "kid": self.key_id, "alg": "EdDSA", "use": "sig"}]}


class TokenService:
    """Begins, renews and ends log-ins. Signatures are verified in the web layer, by Flask-JWT-Extended."""

    def __init__(
        self,
        db: Database,
        revocations: Revocations,
        key: SigningKey,
        *,
        access_seconds: int,
        refresh_seconds: int,
    ) -> None:
        self.key = key
        self._db = db
        self._revocations = revocations
        self._access_seconds = access_seconds
        self._refresh_seconds = refresh_seconds

    def begin(self, user: User) -> Pair:
        """Begin a token family for a user who has just signed in."""
        family, jti, now = new_id("fam"), _jti(), now_ms()
        ends = now + self._refresh_seconds * 1000
        self._db.transact(lambda tx: rows.insert(tx, family, user.id, jti, now=now, expires_at=ends))
        return self._pair(user, family, jti)

    def renew(self, claims: Mapping[str, Any]) -> Pair:
        """Exchange the refresh token with these verified claims for a new pair. Raises `InvalidToken`.

        The new refresh token lives as long as the family: a log-in is not prolonged by using it.
        """
        family, spent, fresh = str(claims["fam"]), str(claims["jti"]), _jti()

        def work(tx: Transaction) -> User | None:
            row = rows.owner(tx, family)
            if row is not None and not row["refused"] and rows.rotate(tx, family, spent, fresh):
                return user_of(row)
            return None

        user = self._db.transact(work)
        if user is None:
            self._revocations.end(family)
            raise InvalidToken("This refresh token is spent; sign in again.")
        return self._pair(user, family, fresh, refresh_until=int(claims["exp"]))

    def accepts(self, claims: Mapping[str, Any]) -> bool:
        """Return whether verified claims have the form and at most the lifetime of tokens signed by `_pair` today.

        An access token that lives longer would outlive its entry in `Revocations`.
        """
        longest = {"access": self._access_seconds, "refresh": self._refresh_seconds}.get(claims["type"], 0)
        if not all(isinstance(claims[name], str) for name in ("sub", "jti", "fam")):
            return False
        issued, ends = claims["iat"], claims["exp"]
        return type(issued) is int and type(ends) is int and 0 < ends - issued <= longest

    def _pair(self, user: User, family: str, jti: str, refresh_until: int | None = None) -> Pair:
        now = int(time.time())
        common = {"iss": ISSUER, "aud": AUDIENCE, "sub": user.id, "fam": family, "iat": now}
        access = common | {"type": "access", "jti": _jti(), "exp": now + self._access_seconds}
        access |= {"role": user.role, "name": user.username}
        if user.limit_runs:
            access["lim"] = user.limit_runs
        if user.workspace_id != DEFAULT_WORKSPACE:
            access["wsp"] = user.workspace_id
        ends = refresh_until or now + self._refresh_seconds
        refresh = common | {"type": "refresh", "jti": jti, "exp": ends}
        return Pair(self._signed(access), self._signed(refresh), self._access_seconds)

    def _signed(self, claims: dict[str, Any]) -> str:
        headers = {"kid": self.key.key_id} if self.key.key_id else None
        return jwt.encode(claims, self.key.signing, self.key.algorithm, headers=headers)


def caller_of(claims: Mapping[str, Any]) -> Caller:
    """Build the caller from an access token's verified claims. Raises `InvalidToken` for claims of another issuer."""
    role: Any = claims.get("role")
    name, limit, workspace = claims.get("name"), claims.get("lim"), claims.get("wsp", DEFAULT_WORKSPACE)
    if not isinstance(name, str) or not isinstance(workspace, str) or not isinstance(limit, str | None):
        raise InvalidToken()
    if role not in ROLES:
        raise InvalidToken()
    family = claims["fam"]
    return Caller(claims["sub"], name, role, family=family, limit_runs=limit, workspace_id=workspace)


def _jti() -> str:
    return secrets.token_urlsafe(16)
