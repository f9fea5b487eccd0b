"""Authentication: the caller of a request, by access token or API key."""

from __future__ import annotations

import time
from typing import Any

from flask import Flask, current_app, g, request
from flask_jwt_extended import JWTManager, get_jwt, verify_jwt_in_request
from flask_jwt_extended.exceptions import JWTExtendedException
from jwt import ExpiredSignatureError, InvalidTokenError, PyJWTError

from service.auth.keys import PREFIX as KEY_PREFIX
from service.auth.oidc.refusals import Forged
from service.auth.tokens import AUDIENCE, ISSUER, LEEWAY, Kind, caller_of
from service.errors import InvalidToken, Unauthenticated
from service.infra.redis_trip import Trip
from service.store.actor import Actor, act_as
from service.types import Caller
from service.web.current import services

# Verified access tokens cached by this process: verification takes 0.7 ms with HS256 and 1.3 ms with EdDSA (2026-11-29,
# two busy cores); a lookup takes a thousandth of that.
_KNOWN_MOST = 4096
# Errors a forged token may raise: its payload is parsed before its signature is checked.
_WRONG = (
    PyJWTError,
    JWTExtendedException,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def install(app: Flask) -> None:
    """Configure Flask-JWT-Extended: one algorithm, one key, Slipway's issuer and audience."""
    key = app.extensions["slipway"].auth.tokens.key
    app.config.update(
        JWT_ALGORITHM=key.algorithm,
        JWT_DECODE_ALGORITHMS=[key.algorithm],
        JWT_DECODE_ISSUER=ISSUER,
        JWT_DECODE_AUDIENCE=AUDIENCE,
        JWT_DECODE_LEEWAY=LEEWAY,
    )
    app.extensions["slipway_tokens"] = {}
    jwt = JWTManager(app)

    @jwt.token_verification_loader
    def accepted(header: dict[str, Any], claims: dict[str, Any]) -> bool:
        return bool(app.extensions["slipway"].auth.tokens.accepts(claims))

    @jwt.decode_key_loader
    def checking_key(header: dict[str, Any], claims: dict[str, Any]) -> Any:
        if header.get("kid") != key.key_id or header.get("typ") != "JWT":
            raise InvalidTokenError("signed with another key, or for another purpose")
        if "type" not in claims:  # Flask-JWT-Extended would accept it as an access token
            raise InvalidTokenError("no type")
        return key.checking


def bearer() -> str:
    """Return the request's bearer token. Raises `Unauthenticated` without one."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("Send `Authorization: Bearer …` or `x-api-key: slp_…`.")
    return token.strip()


def checked_claims(kind: Kind, token: str | None = None) -> dict[str, Any]:
    """Verify a token: its signature, dates, issuer, audience, kind, and the checks of `install`.

    `token` is the request's bearer token by default. Raises `Unauthenticated` and `InvalidToken`. Revocation is checked
    in the request's trip.
    """
    # Flask-JWT-Extended reads the header only, and with no other scheme than `Bearer`, in this very case.
    request.environ["HTTP_AUTHORIZATION"] = f"Bearer {token or bearer()}"
    try:
        verify_jwt_in_request(refresh=kind == "refresh", skip_revocation_check=True)
        claims: dict[str, Any] = get_jwt()
        return claims
    except ExpiredSignatureError:  # genuine but expired: not counted as forged
        raise InvalidToken("The token is not valid, or no longer.") from None
    except _WRONG:
        pass
    g.made_up = True
    raise InvalidToken("The token is not valid, or no longer.")


def identify() -> Caller:
    """Authenticate the request, set its `current_caller` and actor, and begin its trip with the check of its log-in.

    Raises `Unauthenticated` and `InvalidToken`; sending the trip raises `InvalidToken` for a log-in that has ended.
    """
    g.trip = Trip(services().infra.redis_store)
    key = request.headers.get("X-API-Key")
    if key is not None and request.headers.get("Authorization", "")[:7].lower() != "bearer ":
        caller = _of_key(key.strip())
    elif (token := bearer()).startswith(KEY_PREFIX):
        caller = _of_key(token)
    else:
        caller = _signed(token)
        if caller.family is not None:
            g.trip.add(services().auth.revocations.call(caller.family))
    g.caller = caller
    act_as(Actor.of(caller))
    return caller


def _of_key(key: str) -> Caller:
    """Find the caller of an API key. Raises `InvalidToken`."""
    try:
        return services().auth.keys.caller(key)
    except InvalidToken:
        g.made_up = True
        raise


def made_up() -> bool:
    """Return whether the request was refused for a forged key or token."""
    return bool(g.get("made_up"))


def _signed(token: str) -> Caller:
    """Return the caller of an access token, verified once per process."""
    known: dict[str, tuple[Caller, float]] = current_app.extensions["slipway_tokens"]
    caller, until = known.get(token, (None, 0.0))
    if caller is not None and time.time() < until:
        return caller
    identities = services().auth.identities
    if identities is not None and identities.takes(token):
        try:
            caller, until = identities.caller(token)
        except Forged as refused:
            g.made_up = True
            raise refused.answer from None
    else:
        claims = checked_claims("access", token)
        caller, until = caller_of(claims), claims["exp"] + LEEWAY
    if len(known) >= _KNOWN_MOST:
        known.clear()
    known[token] = (caller, until)
    return caller
