"""Define the settings of outside identity: an OpenID Connect issuer, and what its claims mean here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from config import checks
from config.rules import Rules


class Identity(Rules):
    """Fields of `config.base.Settings`, and their validators: each field is checked with those before it."""

    public_url: str = Field(
        "",
        description="The service's own address as browsers see it, such as `https://agents.example.com`; needed for "
        "OIDC_CLIENT_ID",
    )
    oidc_issuer: str = Field(
        "",
        description="OpenID Connect issuer, such as `https://login.example.com/realms/main`, exactly as its tokens "
        "name it; see docs/identity.md; empty: none",
    )
    oidc_audience: str = Field(
        "",
        description="Audience of the issuer's access tokens that the API takes as bearers; empty: it takes none",
    )
    oidc_client_id: str = Field(
        "", description="Client at the issuer for sign-in on the web page; empty: by password only"
    )
    oidc_client_secret: SecretStr = Field(
        SecretStr(""), description="Secret of that client; empty: a public client, with PKCE alone"
    )
    oidc_create_users: bool = Field(
        False,
        description="Make a user for an identity that has none; off: `flask users link` links it to one",
    )
    oidc_role_claim: str = Field(
        "roles", description="Claim with the roles of an identity, or a path such as `realm_access.roles`"
    )
    oidc_roles: str = Field(
        "",
        description="Roles by values of that claim, such as `slipway-admins:admin,slipway-operators:operator`; any "
        "other value is `user`; empty: roles are set in Slipway alone",
    )
    oidc_workspace_claim: str = Field(
        "", description="Claim with the name of an identity's workspace; empty: new users are in `default`"
    )

    @field_validator("public_url")
    @classmethod
    def _own_address(cls, url: str) -> str:
        return checks.own_address(url)

    @field_validator("oidc_issuer")
    @classmethod
    def _issuer(cls, url: str) -> str:
        return checks.issuer(url)

    @field_validator("oidc_audience", "oidc_client_id")
    @classmethod
    def _needs_issuer(cls, text: str, info: ValidationInfo) -> str:
        return checks.with_others(text, info.data, "oidc_issuer")

    @field_validator("oidc_client_id")
    @classmethod
    def _client(cls, text: str, info: ValidationInfo) -> str:
        # By its audience an ID token, which is the client's, is told from an access token.
        if text and text == info.data.get("oidc_audience"):
            raise ValueError("must differ from OIDC_AUDIENCE, or ID tokens would pass as access tokens")
        return checks.with_others(text, info.data, "public_url")

    @field_validator("oidc_client_secret")
    @classmethod
    def _client_secret(cls, secret: SecretStr, info: ValidationInfo) -> SecretStr:
        checks.with_others(secret.get_secret_value(), info.data, "oidc_client_id")
        return checks.header(secret)

    @field_validator("oidc_roles")
    @classmethod
    def _roles(cls, text: str) -> str:
        roles_in(text)
        return text

    @property
    def roles_of_claims(self) -> Mapping[str, Literal["user", "operator", "admin"]]:
        """Roles by values of the claim OIDC_ROLE_CLAIM."""
        return roles_in(self.oidc_roles)


def roles_in(text: str) -> Mapping[str, Any]:
    """Parse `value:role,…`; a value may hold colons. Raises ValueError."""
    found = {}
    for part in filter(None, map(str.strip, text.split(","))):
        value, _, role = part.rpartition(":")
        if not value or role not in ("user", "operator", "admin"):
            raise ValueError("is not a list such as slipway-admins:admin,slipway-operators:operator")
        found[value] = role
    return MappingProxyType(found)
