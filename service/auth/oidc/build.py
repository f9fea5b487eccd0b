"""Construction of the outside identity's services."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.auth.oidc.identities import Identities, Rules
from service.auth.oidc.issuer import Issuer
from service.auth.oidc.sign_in import CALLBACK, Client, SignIn
from service.auth.revocation import Revocations
from service.auth.users import UserService
from service.infra.backends import Infra

if TYPE_CHECKING:
    from config.base import Settings

TRUSTED_SECONDS = 300  # see `Rules`


def build(settings: Settings, infra: Infra, users: UserService, revocations: Revocations) -> Identities:
    issuer, page = Issuer(settings.oidc_issuer), None
    if settings.oidc_client_id:
        client = Client(
            settings.oidc_client_id,
            settings.oidc_client_secret.get_secret_value(),
            settings.public_url + CALLBACK,
        )
        page = SignIn(issuer, client, infra.redis_store, settings.secret_key.get_secret_value())
    rules = Rules(
        audience=settings.oidc_audience,
        creates_users=settings.oidc_create_users,
        role_claim=settings.oidc_role_claim,
        roles=settings.roles_of_claims,
        workspace_claim=settings.oidc_workspace_claim,
        trusted_seconds=min(TRUSTED_SECONDS, settings.access_token_minutes * 60),
    )
    return Identities(issuer, rules, users, infra.db, revocations, page)
