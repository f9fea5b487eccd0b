"""Log-in, log-out and API keys."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from flask import Blueprint, Response
from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from service import errors
from service.auth.build import JWKS_SECONDS
from service.auth.keys import MAX_NAME
from service.auth.permissions import check_scope
from service.auth.tokens import actor_of
from service.store.actor import act_as
from service.store.database import Transaction
from service.usage.caps import Period, nano_of
from service.web.admission import guard, public
from service.web.authentication import checked_claims
from service.web.current import current_caller, services
from service.web.idempotency import once
from service.web.limits import limit_refresh
from service.web.openapi import api
from service.web.paging import PAGE, page, page_arguments
from service.web.schemas import (
    Amount,
    Body,
    BudgetList,
    KeyPage,
    KeyView,
    RateText,
    Shape,
    Until,
    budget_list,
    json_response,
)
from service.web.sign_in import Login, sign_in
from service.web.validation import check_override, parse

blueprint = Blueprint("auth", __name__)
DAY_SECONDS = 86_400
_MAX_LIFE = timedelta(days=3660)


def _expiry(moment: datetime) -> datetime:
    if not datetime.now(UTC) < moment < datetime.now(UTC) + _MAX_LIFE:
        raise ValueError("must be in the future, ten years at most")
    return moment


class TokenPair(Shape):
    access_token: str
    refresh_token: str
    token_type: str
    expires_in: int


class Me(Shape):
    id: str
    workspace_id: str
    username: str
    role: str
    scopes: list[str]
    limits: dict[str, str]
    budget: BudgetList


class NewKey(Body):
    """New API key. `scopes` such as `agents:support`, `actions:runs:*` or `models:*`; of a kind without any, all."""

    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=r"^[^\x00-\x1f\x7f]+$")]
    scopes: Annotated[
        tuple[Annotated[str, Field(max_length=160), AfterValidator(check_scope)], ...], Field(max_length=50)
    ] = ()
    expires_at: Annotated[AwareDatetime, AfterValidator(_expiry)] | None = None
    limit_runs: RateText | None = None
    cap_usd: Amount | None = None
    period: Period = "month"


class KeyChange(Body):
    """Limits of an API key, within its user's. `limit_runs`: "" lifts it. A cap that is set may only be lowered.

    At `limit_runs_until` the limit before `limit_runs` comes back.
    """

    limit_runs: RateText | None = None
    limit_runs_until: Until | None = None
    cap_usd: Amount | None = None
    period: Period = "month"

    @model_validator(mode="after")
    def _something(self) -> KeyChange:
        check_override(self.limit_runs, self.limit_runs_until)
        if self.limit_runs is None and self.cap_usd is None:
            raise ValueError("send `limit_runs` or `cap_usd`")
        return self


class Rotation(Body):
    """Other secret of an API key. `overlap_seconds`: for how long the old one still works; a day."""

    overlap_seconds: Annotated[int, Field(ge=0, le=30 * DAY_SECONDS)] = DAY_SECONDS


class KeyShown(KeyView):
    key: str


class KeySet(Shape):
    keys: list[dict[str, str]]


@blueprint.post("/v1/auth/login")
@api("Sign in", body=Login, returns={200: TokenPair}, errors=[errors.InvalidCredentials, errors.RateLimited])
@public
def login() -> Response:
    return json_response(services().auth.tokens.begin(sign_in()).public())


@blueprint.post("/v1/auth/refresh")
@api(
    "Exchange a refresh token for a new token pair",
    returns={200: TokenPair},
    errors=[errors.InvalidToken, errors.RateLimited],
)
@public
def refresh() -> Response:
    """Renew a token pair, authenticated by the refresh token itself, which is the bearer."""
    claims = checked_claims("refresh")
    act_as(actor_of(claims))
    limit_refresh(str(claims["sub"]))
    return json_response(services().auth.tokens.renew(claims).public())


@blueprint.post("/v1/auth/logout")
@api("Sign out: revoke this log-in on all workers at once", returns={204: None}, errors=[errors.Forbidden])
@guard(counts="end")
def logout() -> Response:
    services().auth.revocations.end(current_caller().family or "")
    return Response(status=204)


@blueprint.get("/v1/auth/me")
@api("Get the caller, with scopes and budget", returns={200: Me})
@guard()
def me() -> Response:
    caller = current_caller()
    settings = services().settings
    limits = {"runs": caller.limit_runs or settings.limit_runs, "key_runs": caller.key_limit_runs or ""}
    limits |= {"session": settings.limit_session}
    limits |= {"writes": settings.limit_writes, "reads": settings.limit_reads}
    limits = {name: rate for name, rate in limits.items() if rate}
    about = {"id": caller.user_id, "workspace_id": caller.workspace_id}
    about |= {"username": caller.username, "role": caller.role}
    budget = budget_list(services().usage.budgets.of_caller(caller))
    return json_response({**about, "scopes": caller.scopes, "limits": limits, "budget": budget})


@blueprint.post("/v1/auth/keys")
@api(
    "Create an API key; the key is shown only once",
    body=NewKey,
    returns={201: KeyShown},
    errors=[errors.Forbidden, errors.Conflict, errors.TooMany, errors.IdempotencyMismatch],
    headers=["Idempotency-Replayed"],
)
@guard()
def create_key() -> Response:
    body, keys = parse(NewKey), services().auth.keys
    ends = int(body.expires_at.timestamp() * 1000) if body.expires_at else None
    caller = current_caller()
    created = keys.new(caller.user_id, body.name, body.scopes, ends, body.limit_runs)

    def work(tx: Transaction) -> dict[str, Any]:
        shown = keys.insert(tx, created)
        if body.cap_usd is not None:
            cap = (f"key:{shown['id']}", body.period, nano_of(body.cap_usd))
            services().usage.budgets.put_first(tx, *cap, caller.workspace_id)
        return shown

    return once(work, 201, seal=keys.sealed, unseal=keys.unsealed)


@blueprint.get("/v1/auth/keys")
@api(
    "List own API keys; a key with scopes lists only itself",
    returns={200: KeyPage},
    errors=[errors.Invalid],
    query=PAGE,
)
@guard()
def list_keys() -> Response:
    """List keys; a key with scopes sees only itself, since others may reveal agents it must not know."""
    (limit, after), caller = page_arguments(), current_caller()
    only = caller.key_id if caller.scopes else None
    found = services().auth.keys.page(caller.user_id, limit=limit + 1, after=after, only=only)
    return json_response(page(found, limit))


@blueprint.patch("/v1/auth/keys/<key_id>")
@api(
    "Limit an API key: its runs, and what it spends",
    body=KeyChange,
    returns={200: KeyView},
    errors=[errors.NotFound, errors.Forbidden, errors.Invalid],
)
@guard()
def change_key(key_id: str) -> Response:
    """Change a key's limits, all of them or none."""
    body, keys, user_id = parse(KeyChange), services().auth.keys, current_caller().user_id
    keys.get(key_id, user_id)
    set_cap = _setting(key_id, body)
    return json_response(keys.limit(key_id, user_id, body.limit_runs, body.limit_runs_until, set_cap))


def _setting(key_id: str, change: KeyChange) -> Callable[[Transaction], object]:
    """Build the write of a key's cap, if one is sent."""
    if change.cap_usd is None:
        return lambda tx: None
    amount = nano_of(change.cap_usd)
    return services().usage.budgets.setting(f"key:{key_id}", change.period, amount, lower=True)


@blueprint.post("/v1/auth/keys/<key_id>/rotate")
@api(
    "Give an API key another secret, shown only once; the old one works for `overlap_seconds` more",
    body=Rotation,
    returns={200: KeyShown},
    errors=[errors.NotFound, errors.Forbidden, errors.Conflict, errors.IdempotencyMismatch],
    headers=["Idempotency-Replayed"],
)
@guard()
def rotate_key(key_id: str) -> Response:
    body, keys = parse(Rotation), services().auth.keys
    work = keys.rotation(key_id, current_caller().user_id, body.overlap_seconds)
    return once(work, 200, seal=keys.sealed, unseal=keys.unsealed)


@blueprint.delete("/v1/auth/keys/<key_id>")
@api("Revoke an API key at once", returns={204: None}, errors=[errors.NotFound, errors.Forbidden])
@guard(counts="end")
def revoke_key(key_id: str) -> Response:
    services().auth.keys.revoke(key_id, current_caller().user_id)
    return Response(status=204)


@blueprint.get("/.well-known/jwks.json")
@api("Get the public keys that verify access tokens (JWKS)", returns={200: KeySet})
@public
def jwks() -> Response:
    cached = {"Cache-Control": f"public, max-age={JWKS_SECONDS}"}
    return json_response(services().auth.tokens.keys.jwks(), headers=cached)
