"""Verification of an issuer's tokens: access tokens as bearers, and ID tokens of a sign-in."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError, UnsupportedAlgorithmError
from joserfc.jws import JWSRegistry

from service.auth.oidc.issuer import Issuer, Known
from service.auth.oidc.refusals import Forged
from service.errors import InvalidToken

# All asymmetric. A public key is no secret: with an HMAC algorithm anybody could sign.
ALGORITHMS = frozenset(
    ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
)
LEEWAY = 30  # seconds between the clocks of the issuer and of this machine
MOST_LETTERS = 8192  # of a token
MOST_SECONDS = 30 * 86_400  # of a token's life
# Of ID tokens alone (OpenID Connect Core; RFC 8417 for logout tokens), and what some issuers write into each token.
_NO_ACCESS = ("nonce", "at_hash", "c_hash", "s_hash", "events")
_KINDS = {"typ": ("Bearer",), "token_use": ("access",)}  # Keycloak, Amazon Cognito
_ACCESS_TYPES = ("at+jwt", "application/at+jwt")  # RFC 9068
# Errors of a token that somebody made up, whose claims may be of any type.
_WRONG = (JoseError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


class Claims(NamedTuple):
    """Verified claims. `subject`, `issued_at` and `expires_at` (seconds) are checked for their form too."""

    subject: str
    issued_at: int
    expires_at: int
    all: dict[str, Any]


def issuer_named_by(token: str) -> str | None:
    """Read the issuer that a token claims to be of, to choose its verifier: nothing of it is trusted."""
    payload = token[:MOST_LETTERS].split(".")[1:2]
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(payload[0] + "=="))
        issuer = claims["iss"]
    except (ValueError, LookupError, TypeError):
        return None
    return issuer if isinstance(issuer, str) else None


def family_of(token: str) -> str:
    """Return the id of the token family that stands for a token.

    Of what is signed, and not of the signature: one of ECDSA can be rewritten, and is valid all the same.
    """
    digest = hashlib.sha256(token.rpartition(".")[0].encode()).digest()
    return f"fam_{base64.b32encode(digest)[:26].decode().lower()}"


def access_claims(issuer: Issuer, token: str, audience: str) -> Claims:
    """Verify an access token. Raises `Forged`, `InvalidToken` when it has expired, and `IdentityUnavailable`."""
    header, claims = _verified(issuer, token)
    _check(lambda: _check_access(header, claims, issuer.url, audience))
    return _formed(claims)


def id_claims(issuer: Issuer, token: str, client_id: str, nonce: str, access_token: str | None) -> Claims:
    """Verify the ID token of a sign-in. Raises as `access_claims` does."""
    header, claims = _verified(issuer, token)
    _check(lambda: _check_id(header, claims, issuer.url, (client_id, nonce, access_token)))
    return _formed(claims)


class _Registry(JWSRegistry):
    """Algorithms of this module only; joserfc warns of each token with `EdDSA`, the older name of Ed25519."""

    def __init__(self) -> None:
        super().__init__(algorithms=ALGORITHMS, strict_check_header=False)

    def get_alg(self, name: str) -> Any:
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[name]


_registry = _Registry()


def _verified(issuer: Issuer, token: str) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Verify the signature; return header and claims. The key is the issuer's: `jku`, `x5u` and `jwk` are ignored."""
    header = _header(token)
    known = issuer.known()
    if header.get("kid") is not None and not known.fitting(header):
        known = issuer.newer(known)
    found = _decoded(known, header, token)
    if found is None and header.get("kid") is None:  # nothing tells whether the issuer has a newer key
        found = _decoded(issuer.newer(known), header, token)
    if found is None:
        raise Forged()
    return found.header, found.claims


def _decoded(known: Known, header: Mapping[str, Any], token: str) -> jwt.Token | None:
    """Verify the signature with each key that fits; None: with none of them."""
    for candidate in known.fitting(header):
        try:
            return jwt.decode(token, candidate.key, registry=_registry)
        except _WRONG:
            continue
    return None


def _header(token: str) -> dict[str, Any]:
    """Read the header of a token that may be genuine. Raises `Forged`."""
    if len(token) > MOST_LETTERS or not token.isascii() or token.count(".") != 2:
        raise Forged()
    try:
        header = orjson.loads(base64.urlsafe_b64decode(token.partition(".")[0] + "=="))
        if header["alg"] in ALGORITHMS and isinstance(header.get("kid"), str | None):
            found: dict[str, Any] = header
            return found
    except (ValueError, LookupError, TypeError, AttributeError):
        pass
    raise Forged()


def _check(check: Callable[[], None]) -> None:
    """Run a check of verified claims. Raises `InvalidToken` for a token that has expired, else `Forged`."""
    try:
        check()
    except ExpiredTokenError:  # genuine, and not counted as forged
        raise InvalidToken("The token is not valid, or no longer.") from None
    except _WRONG:
        raise Forged() from None


def _required(issuer: str, audience: str) -> dict[str, Any]:
    needed = {name: {"essential": True} for name in ("sub", "exp", "iat")}
    return {
        **needed,
        "iss": {"essential": True, "value": issuer},
        "aud": {"essential": True, "value": audience},
    }


def _check_access(header: Mapping[str, Any], claims: dict[str, Any], issuer: str, audience: str) -> None:
    """Check an access token's claims, and that it is none of another kind. Raises an error of `_WRONG`."""
    jwt.JWTClaimsRegistry(leeway=LEEWAY, **_required(issuer, audience)).validate(claims)
    kind = str(header.get("typ", "JWT")).lower()
    if kind not in (*_ACCESS_TYPES, "jwt"):
        raise ValueError("typ")
    if kind == "jwt" and any(name in claims for name in _NO_ACCESS):
        raise ValueError("an ID token")
    if any(name in claims and claims[name] not in kinds for name, kinds in _KINDS.items()):
        raise ValueError("a token of another kind")
    party = claims.get("azp", claims.get("client_id"))
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if not isinstance(party, str) and (several or party is not None):
        raise ValueError("azp")


def _check_id(
    header: Mapping[str, Any], claims: dict[str, Any], issuer: str, sent: tuple[str, str, str | None]
) -> None:
    """Check an ID token's claims. Raises an error of `_WRONG`."""
    client_id, nonce, access_token = sent
    if str(header.get("typ", "JWT")).lower() != "jwt":
        raise ValueError("typ")
    if header["alg"] == "Ed25519":  # Authlib hashes for the older name only
        header = {**header, "alg": "EdDSA"}
    params = {"client_id": client_id, "nonce": nonce, "access_token": access_token}
    CodeIDToken(claims, header, _required(issuer, client_id), params).validate(leeway=LEEWAY)


def is_subject(text: str) -> bool:
    """Return whether a text may be the claim `sub`: OpenID Connect Core, 2."""
    return 0 < len(text) <= 255 and text.isascii() and text.isprintable()


def _formed(claims: dict[str, Any]) -> Claims:
    """Check the form of what is stored. Raises `Forged`."""
    subject, issued, ends = claims["sub"], int(claims["iat"]), int(claims["exp"])
    if not is_subject(subject):
        raise Forged()
    if not 0 < ends - issued <= MOST_SECONDS:
        raise Forged()
    return Claims(subject, issued, ends, claims)
