"""Construction of the sign-in services: users, tokens, API keys, revocation, the first admin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

from service.audit.record import Refusals
from service.auth.keys import KeyService
from service.auth.revocation import Revocations
from service.auth.run_tokens import RunTokens
from service.auth.signing_keys import Lifetimes, SigningKeys
from service.auth.tokens import TokenService
from service.auth.users import UserService
from service.auth.workspaces import WorkspaceService
from service.infra.backends import Infra

if TYPE_CHECKING:
    from config.base import Settings
    from service.auth.oidc.identities import Identities

JWKS_SECONDS = 15  # that others may keep the public keys, see `service.web.routes.auth`


@dataclass(frozen=True, slots=True)
class AuthServices:
    users: UserService
    tokens: TokenService
    keys: KeyService
    revocations: Revocations
    identities: Identities | None  # of the issuer, where one is configured
    workspaces: WorkspaceService
    run_tokens: RunTokens
    first_admin: Callable[[], object]  # raises `DatabaseUnavailable`: call again later


def build(settings: Settings, infra: Infra, refusals: Refusals) -> AuthServices:
    db, redis_store = infra.db, infra.redis_store
    secret, pem = settings.secret_key.get_secret_value(), settings.jwt_private_key.get_secret_value()
    access_seconds, refresh_seconds = settings.access_token_minutes * 60, settings.refresh_token_days * 86_400
    lead = JWKS_SECONDS + 4 * settings.sweep_seconds  # each process reads the keys at every sweep
    lifetimes = Lifetimes(lead, max(access_seconds, refresh_seconds))
    revocations = Revocations(redis_store, db, access_seconds=access_seconds)
    users = UserService(db, redis_store, revocations, secret, refusals)
    bootstrap = partial(
        users.bootstrap, settings.bootstrap_username, settings.bootstrap_password.get_secret_value()
    )
    identities = None
    if settings.oidc_issuer:
        from service.auth.oidc import build as oidc  # imported here: slow to load, and few have an issuer

        identities = oidc.build(settings, infra, users, revocations)
    return AuthServices(
        users=users,
        tokens=TokenService(
            db,
            revocations,
            SigningKeys(db, secret, pem, lifetimes),
            access_seconds=access_seconds,
            refresh_seconds=refresh_seconds,
        ),
        keys=KeyService(db, redis_store, revocations, secret),
        revocations=revocations,
        identities=identities,
        workspaces=WorkspaceService(db, revocations),
        run_tokens=RunTokens(db),
        first_admin=cache(bootstrap),  # once a process: users deleted later bring back no admin
    )
