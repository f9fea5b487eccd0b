"""Authentication: the caller of a request, by access token or API key."""

from __future__ import annotations

import time
from typing import Any

from flask import Flask
from flask_jwt_extended import JWTManager, get_jwt, verify_jwt_in_request
from flask_jwt_extended.exceptions import JWTExtendedException
from jwt import ExpiredSignatureError, InvalidTokenError, PyJWTError

from service.auth.keys import PREFIX as KEY_PREFIX
from service.auth.oidc.refusals import Forged
from service.auth.run_tokens import PREFIX as RUN_PREFIX
from service.auth.signing_keys import ALGORITHMS
from service.auth.tokens import (
    AUDIENCE,
    ISSUER,
    LEEWAY,
    Kind,
    caller_of,
    constant_until,
    refuse_ambiguous,
)
from service.errors import InvalidToken, Unauthenticated
from service.infra.redis_trip import Trip
from service.store.actor import Actor, act_as
from service.types import Caller
from service.web import request_span
from service.web.current import Request, current

# Verified access tokens cached by this process: verification takes 0.7 ms with HS256 and 1.3 ms with EdDSA (2026-11-29,
# two busy cores); a lookup takes a thousandth of that.
_KNOWN_MOST = 4096
RUN_ROUTES = ("/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions", "/v1/responses")
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
    """Configure Flask-JWT-Extended: one algorithm for each key, Slipway's issuer and audience."""
    app.config.update(
        JWT_DECODE_ALGORITHMS=ALGORITHMS,
        JWT_DECODE_ISSUER=ISSUER,
        JWT_DECODE_AUDIENCE=AUDIENCE,
        JWT_DECODE_LEEWAY=LEEWAY,
    )
    jwt = JWTManager(app)

    @jwt.token_verification_loader
    def accepted(header: dict[str, Any], claims: dict[str, Any]) -> bool:
        return bool(app.extensions["slipway"].auth.tokens.accepts(claims))

    @jwt.decode_key_loader
    def checking_key(header: dict[str, Any], claims: dict[str, Any]) -> Any:
        if "type" not in claims:  # Flask-JWT-Extended would accept it as an access token
            raise InvalidTokenError("no type")
        return app.extensions["slipway"].auth.tokens.keys.verifying(header)


def bearer(authorization: str) -> str:
    """Return the token of an `Authorization` header. Raises `Unauthenticated` without one."""
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if not token or scheme.lower() != "bearer":
        raise Unauthenticated("Send `Authorization: Bearer …` or `x-api-key: slp_…`.")
    return token


def checked_claims(kind: Kind, token: str | None = None) -> dict[str, Any]:
    """Verify a token: its signature, dates, issuer, audience, kind, and the checks of `install`.

    `token` is the request's bearer token by default. Raises `Unauthenticated` and `InvalidToken`; `DatabaseUnavailable`
    when a key has to be looked up. Revocation is checked in the request's trip.
    """
    request = current()
    sent = request.environ
    token = token or bearer(sent.get("HTTP_AUTHORIZATION", ""))
    # Flask-JWT-Extended reads the header only, and with no other scheme than `Bearer`, in this very case.
    sent["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    try:
        refuse_ambiguous(token)
        verify_jwt_in_request(refresh=kind == "refresh", skip_revocation_check=True)
        claims: dict[str, Any] = get_jwt()
        return claims
    except ExpiredSignatureError:  # genuine but expired: not counted as forged
        raise InvalidToken("The token is not valid, or no longer.") from None
    except _WRONG:
        pass
    request.made_up = True
    raise InvalidToken("The token is not valid, or no longer.")


def identify(request: Request) -> Caller:
    """Authenticate the request, set its caller and actor, and begin its trip with the check of its log-in.

    Raises `Unauthenticated` and `InvalidToken`; sending the trip raises `InvalidToken` for a log-in that has ended.
    """
    services, sent = request.services, request.environ
    request.trip = Trip(services.infra.redis_store)
    key, authorization = sent.get("HTTP_X_API_KEY"), sent.get("HTTP_AUTHORIZATION", "")
    if key is not None and authorization[:7].lower() != "bearer ":
        token = key.strip()
        caller = _of_run(request, token) if token.startswith(RUN_PREFIX) else _of_key(request, token)
    elif (token := bearer(authorization)).startswith(RUN_PREFIX):
        caller = _of_run(request, token)
    elif token.startswith(KEY_PREFIX):
        caller = _of_key(request, token)
    else:
        caller = _signed(request, token)
        if caller.family is not None:
            request.trip.add(services.auth.revocations.call(caller.family))
    request.caller = caller
    act_as(Actor.of_request(caller))
    return caller


def _of_key(request: Request, key: str) -> Caller:
    """Find the caller of an API key. Raises `InvalidToken`."""
    request.key = key
    try:
        return request.services.auth.keys.caller(key)
    except InvalidToken as error:
        request.made_up = not error.expired
        raise


def _of_run(request: Request, token: str) -> Caller:
    """Find the run of a token, which is good at `RUN_ROUTES` only. Raises `InvalidToken` and `AgentStopped`."""
    if str(request.url_rule) not in RUN_ROUTES:
        raise InvalidToken("The token of a run is good for model calls only.")
    try:
        request.grant = request.services.auth.run_tokens.find(token)
    except InvalidToken as error:
        request.made_up = not error.expired
        raise
    request_span.of_run(request)
    return request.grant.caller


def _signed(request: Request, token: str) -> Caller:
    """Return the caller of an access token, verified once per process."""
    known = request.services.auth.tokens.keys.verified  # another dict once the keys have changed
    caller, until = known.get(token, (None, 0.0))
    if caller is not None and time.time() < until:
        return caller
    identities = request.services.auth.identities
    if identities is not None and identities.takes(token):
        try:
            caller, until = identities.caller(token)
        except Forged as refused:
            request.made_up = True
            raise refused.answer from None
    else:
        claims = checked_claims("access", token)
        caller, until = caller_of(claims), constant_until(claims)
    if len(known) >= _KNOWN_MOST:
        known.clear()
    known[token] = (caller, until)
    return caller
