"""Settings of outside identity: addresses, what goes together, and roles by values of a claim."""

from __future__ import annotations

import pytest

from config import load
from config.checks import LOOPBACK
from tests.config.serving import faults, serving

RIGHT = {
    "OIDC_ISSUER": "https://login.example.com/realms/main",
    "OIDC_AUDIENCE": "https://agents.example.com",
    "OIDC_CLIENT_ID": "slipway",
    "PUBLIC_URL": "https://agents.example.com",
}


@pytest.mark.parametrize("environment", ["development", "testing", "staging", "production"])
def test_right_settings_are_accepted(environment: str) -> None:
    settings = load(serving(environment, **RIGHT))
    assert (settings.oidc_role_claim, settings.oidc_create_users, settings.roles_of_claims) == (
        "roles",
        False,
        {},
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OIDC_ISSUER", "login.example.com"),
        ("OIDC_ISSUER", "http://login.example.com"),
        ("OIDC_ISSUER", "https://user:word@login.example.com"),
        ("OIDC_ISSUER", "https://login.example.com/?x=1"),
        ("OIDC_ISSUER", "https://login.example.com/#x"),
        ("OIDC_ISSUER", "https://login.example.com/" + "x" * 255),
        ("OIDC_ISSUER", "https://login.exämple.com/"),
        ("PUBLIC_URL", "*"),
        ("PUBLIC_URL", "http://agents.example.com"),
        ("PUBLIC_URL", "https://agents.example.com/"),
        ("PUBLIC_URL", "https://agents.example.com/slipway"),
        ("OIDC_CLIENT_ID", RIGHT["OIDC_AUDIENCE"]),
        ("OIDC_ROLES", "admins"),
        ("OIDC_ROLES", "admins:root"),
        ("OIDC_ROLES", ":admin"),
        ("OIDC_ROLES", "admins:"),
        ("OIDC_CLIENT_SECRET", "with a blank"),
        ("OIDC_CREATE_USERS", "perhaps"),
    ],
)
def test_wrong_value_is_refused(name: str, value: str) -> None:
    assert set(faults({"APP_ENV": "testing", **RIGHT, name: value})) == {name}


@pytest.mark.parametrize(
    ("alone", "fault"),
    [
        ({"OIDC_AUDIENCE": "x"}, {"OIDC_AUDIENCE": "needs OIDC_ISSUER"}),
        ({"OIDC_CLIENT_SECRET": "x-secret"}, {"OIDC_CLIENT_SECRET": "needs OIDC_CLIENT_ID"}),
        (
            {"OIDC_CLIENT_ID": "x", "PUBLIC_URL": "https://agents.example.com"},
            {"OIDC_CLIENT_ID": "needs OIDC_ISSUER"},
        ),
        (
            {"OIDC_CLIENT_ID": "x", "OIDC_ISSUER": "https://login.example.com"},
            {"OIDC_CLIENT_ID": "needs PUBLIC_URL"},
        ),
    ],
)
def test_what_does_nothing_alone_is_refused(alone: dict[str, str], fault: dict[str, str]) -> None:
    assert faults({"APP_ENV": "testing", **alone}) == fault


@pytest.mark.parametrize("host", LOOPBACK)
def test_this_machine_needs_no_tls(host: str) -> None:
    host = f"[{host}]" if ":" in host else host
    assert load({"APP_ENV": "testing", "OIDC_ISSUER": f"http://{host}:9000"}).oidc_issuer


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_placeholder_is_no_client_secret(environment: str) -> None:
    told = faults(serving(environment, **RIGHT, OIDC_CLIENT_SECRET="change-me"))
    assert set(told) == {"OIDC_CLIENT_SECRET"} and "change-me" not in told["OIDC_CLIENT_SECRET"]


def test_roles_by_values() -> None:
    settings = load({"OIDC_ROLES": "a:admin, urn:x:operators:operator,b:user,"})
    assert settings.roles_of_claims == {"a": "admin", "urn:x:operators": "operator", "b": "user"}
