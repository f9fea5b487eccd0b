"""Signing keys of tokens: Ed25519 pairs in the database, shared by all processes, rotated without a restart.

A new key signs only once every process has read it, and the one before verifies until its last token has expired. Each
process reads the keys at start, at every sweep, and when a token names one that it does not know. While the database is
away it goes on with those it has. A key that was sealed under another SECRET_KEY neither signs nor verifies.

Tokens of releases before were signed with HMAC under SECRET_KEY, or with JWT_PRIVATE_KEY. The first start takes that
key over, and the replicas of both releases take each other's tokens meanwhile.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import OKPAlgorithm

from service.audit.record import Action, record
from service.errors import Conflict, DatabaseUnavailable
from service.infra.sealing import Seal
from service.store import signing_keys as rows
from service.store import token_families
from service.store.connections import AWAY
from service.store.database import Database, Row, Transaction
from service.types import Caller, now_ms

ALGORITHMS = ("EdDSA", "HS256")  # HS256 only for tokens of a release before
_KID = re.compile(r"[0-9a-f]{16}")
_LOOK_UP_PAUSE = 1.0  # seconds between two look-ups of unknown keys
_LOOK_UP_TIMEOUT = 1.0  # seconds that a request waits for another's look-up
_DEPLOY_MS = 3_600_000  # an upgrade from HMAC: old replicas may serve beside new ones for so long
_SLACK_MS = 60_000  # clock skew between replicas


class Lifetimes(NamedTuple):
    """Seconds: until all processes know a new key, and until the last token of a key that signs no more expires."""

    lead: float
    tokens: float


@dataclass(frozen=True, slots=True)
class SigningKey:
    """Key with its one algorithm. Times are in ms. `kid` is empty for HMAC: those tokens name no key."""

    kid: str
    algorithm: str
    signing: Ed25519PrivateKey | str
    verifying: Ed25519PublicKey | str
    signs_from: int
    verifies_until: int | None

    @property
    def header(self) -> dict[str, str]:
        """Return the header of its tokens; no other is accepted."""
        named = {"kid": self.kid} if self.kid else {}
        return {"typ": "JWT", "alg": self.algorithm, **named}

    def sign(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self.signing, self.algorithm, headers=self.header)

    def verifies(self, now: int) -> bool:
        return self.verifies_until is None or now < self.verifies_until


class SigningKeys:
    """Keys of this process. `imported`: a private key (PEM) that becomes the first one of an empty table."""

    def __init__(self, db: Database, secret: str, imported: str, lifetimes: Lifetimes) -> None:
        self._db = db
        self._secret = secret
        self._seal = Seal(secret, b"slipway signing keys")
        self._imported = imported
        self._lead_ms = int(lifetimes.lead * 1000)
        self._life_ms = int(lifetimes.tokens * 1000) + _SLACK_MS
        self._lock = threading.Lock()  # of reading
        self._rows: list[Row] = []
        self._keys: dict[str, SigningKey] = {}  # by kid, oldest first
        self._away = True  # whether the last reading failed
        self._next_look_up = 0.0  # time.monotonic()
        # Callers of verified access tokens, each until a time (s): forgotten with the keys that verified them.
        self.verified: dict[str, tuple[Caller, float]] = {}

    def refresh(self) -> None:
        """Read the keys; make the first. Raises `DatabaseUnavailable`: call again later."""
        with self._lock:
            self._read()

    def current(self) -> SigningKey:
        """Return the key that signs now. Raises `DatabaseUnavailable` while there is none."""
        if not self._keys:
            self.refresh()
        now = now_ms()
        keys = [key for key in self._keys.values() if key.verifies(now)]
        begun = [key for key in keys if key.signs_from <= now]
        if not keys:
            raise DatabaseUnavailable(AWAY)
        return begun[-1] if begun else keys[0]

    def verifying(self, header: Mapping[str, Any]) -> Ed25519PublicKey | str:
        """Return the key that verifies a token with this header.

        Raises `jwt.InvalidTokenError` for any header but the one that the key writes itself, so that each key has one
        algorithm; `DatabaseUnavailable` when an unknown key cannot be looked up.
        """
        kid = header.get("kid", "")
        if kid not in self._keys and (_KID.fullmatch(kid) or not self._keys):
            self._look_up(kid)
        key = self._keys.get(kid)
        if key is None or header != key.header or not key.verifies(now_ms()):
            raise jwt.InvalidTokenError("signed with another key, or for another purpose")
        return key.verifying

    def jwks(self) -> dict[str, Any]:
        """Return the public keys that verify tokens, or will (RFC 7517). Raises `DatabaseUnavailable`."""
        self.current()
        now = now_ms()
        valid = [key for key in self._keys.values() if key.verifies(now)]
        return {"keys": [_jwk(key, key.verifying) for key in valid if not isinstance(key.verifying, str)]}

    def unreadable(self) -> int:
        """Count the keys in the table that SECRET_KEY does not open, and add none. Raises `DatabaseUnavailable`."""
        return sum(self._seal.open(row["sealed"]) is None for row in self._db.query(rows.listed, patience=0))

    def rotate(self, *, stolen: bool = False) -> SigningKey:
        """Add a key, which signs soon. Raises `Conflict` when another was added at the same time.

        `stolen`: it signs at once, and no other key verifies any more.
        """
        now = now_ms()
        starts = now if stolen else now + self._lead_ms
        until = now if stolen else starts + self._life_ms
        self.refresh()  # takes over the key of a release before, if this comes before the first start
        row = self._row(_number_after(self._rows), Ed25519PrivateKey.generate(), starts)

        def work(tx: Transaction) -> bool:
            added = rows.insert(tx, row)
            if added:
                rows.retire(tx, row["number"], until)
                action = Action.SIGNING_KEYS_ENDED if stolen else Action.SIGNING_KEY_ROTATED
                record(tx, action, f"signing_key:{row['kid']}")
            return added

        if not self._db.transact(work):
            raise Conflict("Another key was added at the same time.")
        return self._opened([row])[row["kid"]]

    def _look_up(self, kid: str) -> None:
        """Read the keys for one that is not known, once in a while: a forged token costs no statement each time."""
        if not self._lock.acquire(timeout=_LOOK_UP_TIMEOUT):
            raise DatabaseUnavailable(AWAY)
        try:
            now = time.monotonic()
            if kid in self._keys:
                return
            if now >= self._next_look_up:
                self._next_look_up = now + _LOOK_UP_PAUSE
                self._read()
            elif self._away:
                raise DatabaseUnavailable(AWAY)
        finally:
            self._lock.release()

    def _read(self) -> None:
        self._away = True
        found = self._db.query(rows.listed, patience=0)
        if found != self._rows or not self._keys:
            keys = self._opened(found)
            if not keys:
                self._add_first(found)
                found = self._db.query(rows.listed, patience=0)
                keys = self._opened(found)
            self._rows, self._keys = found, keys
            self.verified = {}
        self._away = False

    def _opened(self, found: list[Row]) -> dict[str, SigningKey]:
        opened = {}
        for row in found:
            private = self._seal.open(row["sealed"])
            if private is None:
                continue
            signing: Ed25519PrivateKey | str = self._secret
            verifying: Ed25519PublicKey | str = self._secret
            if row["algorithm"] == "EdDSA":
                signing = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(private))
                verifying = signing.public_key()
            times = row["signs_from"], row["verifies_until"]
            opened[row["kid"]] = SigningKey(row["kid"], row["algorithm"], signing, verifying, *times)
        return opened

    def _add_first(self, found: list[Row]) -> None:
        """Add the first key for this SECRET_KEY; safe when many processes start at once."""
        now = now_ms()

        def work(tx: Transaction) -> None:
            private, starts, number = Ed25519PrivateKey.generate(), now, _number_after(found)
            if not found and self._imported:
                private = private_key(self._imported)
            elif not found and token_families.any_live(tx):
                starts = now + _DEPLOY_MS
                hmac_row = {"number": number, "kid": "", "algorithm": "HS256", "sealed": self._seal.close("")}
                until = starts + self._life_ms
                rows.insert(tx, hmac_row | {"created_at": now, "signs_from": 0, "verifies_until": until})
                number += 1
            rows.insert(tx, self._row(number, private, starts))

        self._db.transact(work, patience=0)

    def _row(self, number: int, private: Ed25519PrivateKey, signs_from: int) -> dict[str, Any]:
        return {
            "number": number,
            "kid": hashlib.sha256(private.public_key().public_bytes_raw()).hexdigest()[:16],
            "algorithm": "EdDSA",
            "sealed": self._seal.close(private.private_bytes_raw().hex()),
            "created_at": now_ms(),
            "signs_from": signs_from,
            "verifies_until": None,
        }


def private_key(pem: str) -> Ed25519PrivateKey:
    """Read a private key. Raises `ValueError` when the PEM is none of Ed25519."""
    private = load_pem_private_key(pem.encode(), password=None)
    if not isinstance(private, Ed25519PrivateKey):
        raise ValueError("JWT_PRIVATE_KEY must be an Ed25519 private key")
    return private


def _number_after(found: list[Row]) -> int:
    return found[-1]["number"] + 1 if found else 1


def _jwk(key: SigningKey, public: Ed25519PublicKey) -> dict[str, Any]:
    return {**OKPAlgorithm.to_jwk(public, as_dict=True), "kid": key.kid, "alg": key.algorithm, "use": "sig"}
