"""Construction of the sign-in services: users, tokens, API keys, revocation, the first admin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

from service.auth.keys import KeyService
from service.auth.revocation import Revocations
from service.auth.tokens import SigningKey, TokenService
from service.auth.users import UserService
from service.infra.backends import Infra

if TYPE_CHECKING:
    from config.base import Settings
    from service.auth.oidc.identities import Identities


@dataclass(frozen=True, slots=True)
class AuthServices:
    users: UserService
    tokens: TokenService
    keys: KeyService
    revocations: Revocations
    identities: Identities | None  # of the issuer, where one is configured
    first_admin: Callable[[], object]  # raises `DatabaseUnavailable`: call again later


def build(settings: Settings, infra: Infra) -> AuthServices:
    db, redis_store = infra.db, infra.redis_store
    secret, pem = settings.secret_key.get_secret_value(), settings.jwt_private_key.get_secret_value()
    access_seconds = settings.access_token_minutes * 60
    revocations = Revocations(redis_store, db, access_seconds=access_seconds)
    users = UserService(db, redis_store, revocations, secret)
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
            SigningKey.of(secret, pem),
            access_seconds=access_seconds,
            refresh_seconds=settings.refresh_token_days * 86_400,
        ),
        keys=KeyService(db, redis_store, revocations, secret),
        revocations=revocations,
        identities=identities,
        first_admin=cache(bootstrap),  # once a process: users deleted later bring back no admin
    )
