"""Weak secrets are refused in staging and production, good ones accepted."""

from __future__ import annotations

import base64
import random
import re

import pytest

from config import checks, load, secrets
from service.auth import passwords, users
from tests.config.serving import SERVING, faults, serving
from tests.conftest import ROOT

GUESSED = [
    "change-me",
    "change-me-please-change-me-please-now",
    "changeme-changeme-changeme-1234567890",
    "replace-this-with-a-real-secret-of-your-own",
    "your-secret-here",
    "your-secret-key-goes-here-and-is-long-enough",
    "my-secret-key-which-is-long-enough-for-it",
    "<a random string of 32 characters or more>",
    "${SECRET_KEY}",
    "secret",
    "secretsecretsecretsecretsecretsecret",
    "a",
    "a" * 64,
    "ab" * 32,
    "abcdefghi" * 8,
    "0123456789" * 4,
    "abcdefghijklmnopqrstuvwxyz0123456789",
    "0123456789abcdefghijklmnopqrstuvwxyz",
    "qwertyuiopasdfghjklzxcvbnm1234567890",
    "Xk2mQ9vLr4Zt" * 4,
    "example-secret-key-of-the-documentation",
    "an-ellipsis-stands-for-the-rest-of-it…",
    "TODO-set-a-real-one-before-the-first-deploy",
    "dev-secret-key-do-not-use-in-production-0",
    "generate-with-openssl-rand-base64-48",
    "fill-me-in-with-32-random-characters!!!!",
    "${SECRET_KEY:-please-set-a-long-one-here}",
    " " * 40,
]


@pytest.mark.parametrize("environment", ["staging", "production"])
@pytest.mark.parametrize("secret", GUESSED)
def test_guessable_key_is_refused(environment: str, secret: str) -> None:
    told = faults(serving(environment, SECRET_KEY=secret))
    assert set(told) == {"SECRET_KEY"}
    assert "openssl rand" in told["SECRET_KEY"] and (len(secret) < 3 or secret not in told["SECRET_KEY"])


@pytest.mark.parametrize("environment", ["staging", "production"])
@pytest.mark.parametrize(
    "password",
    [
        "password1234",
        "p@ssw0rd1234",
        "aaaaaaaaaaaa",
        "bootstrap-password",
        "change-me-now",
        "short-one",
        "ada-lovelace",
        "administrator1",
    ],
)
def test_guessable_bootstrap_password_is_refused(environment: str, password: str) -> None:
    pair = {"BOOTSTRAP_USERNAME": "ada-lovelace", "BOOTSTRAP_PASSWORD": password}
    assert set(faults(serving(environment, **pair))) == {"BOOTSTRAP_PASSWORD"}


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (name, address.replace("PASSWORD", password))
        for name, address in (
            ("DATABASE_URL", "postgresql://slipway:PASSWORD@db/slipway"),
            ("REDIS_URL", "redis://:PASSWORD@redis:6379/0"),
            ("REDIS_URL", "redis+sentinel://:PASSWORD@one:26379,two:26379/main"),
            ("REDIS_URL", "redis+sentinel://one,two/main?sentinel_password=PASSWORD"),
            ("BROKER_URL", "amqp://queue:PASSWORD@rabbit/"),
        )
        for password in (
            "postgres",
            "password",
            "changeme",
            "your-password",
            "aaaa",
            "secret1",
            "123456",
            "foobared",
        )
    ]
    + [
        ("DATABASE_URL", "postgresql://harbor:harbor@db/slipway"),
        ("DATABASE_URL", "postgresql://db/slipway?user=harbor&password=harbor"),
        ("DATABASE_URL", "postgresql://harbor@db/slipway?password=changeme"),
        ("BROKER_URL", "amqp://guest:guest@rabbit/"),
        ("ANTHROPIC_API_KEY", "sk-ant-api03-xxxxxxxxxxxxxxxx"),
        ("SECRET_KEY", "TODO-TODO-set-this-to-something-random"),
        ("ANTHROPIC_API_KEY", "sk-ant-your-key-here-your-api-key"),
        ("ANTHROPIC_API_KEY", "sk-ant-…"),
        ("ANTHROPIC_API_KEY", "sk-ant-"),
        ("ANTHROPIC_API_KEY", "sk-ant-" + "x" * 16),
        ("ANTHROPIC_API_KEY", "sk-ant-api03-0000000000000000"),
        ("ANTHROPIC_API_KEY", "sk-ant-your-key-here"),
        ("ANTHROPIC_API_KEY", "dummy"),
        ("SEMANTIC_CACHE_KEY", "your-key-here"),
        ("SEMANTIC_CACHE_KEY", "change-me"),
    ],
)
def test_placeholder_passwords_in_urls_are_refused(name: str, address: str) -> None:
    told = faults(serving("production", **{name: address}))
    assert set(told) == {name} and address not in told[name]


def test_urls_without_password_are_accepted() -> None:
    urls = {"DATABASE_URL": "postgresql:///slipway?host=/run/postgresql", "REDIS_URL": "redis://redis:6379/0"}
    assert load(serving("production", **urls)).redis_url == urls["REDIS_URL"]


def test_development_accepts_guessable_secrets() -> None:
    assert load({"SECRET_KEY": "secret"}).secret_key.get_secret_value() == "secret"


def test_random_secrets_are_accepted() -> None:
    chance = random.Random(4711)
    for _ in range(3000):
        secrets.key(base64.b64encode(chance.randbytes(48)).decode())
        secrets.key(chance.randbytes(24).hex())
        secrets.password(base64.b64encode(chance.randbytes(18)).decode())
        secrets.url(f"postgresql://slipway:{chance.randbytes(24).hex()}@db/slipway")


def test_secrets_from_the_docs_are_refused() -> None:
    pages = [ROOT / "README.md", ROOT / ".env.example", *(ROOT / "docs").rglob("*.md")]
    said = [
        (name, value)
        for page in pages
        for name, value in re.findall(
            r"\b(SECRET_KEY|ANTHROPIC_API_KEY|BOOTSTRAP_PASSWORD)=(\S*)", page.read_text()
        )
        if not value.startswith(("$(", "/"))
    ]
    assert len(said) > 3
    for name, value in said:
        pair = {"BOOTSTRAP_USERNAME": "ada"} if name == "BOOTSTRAP_PASSWORD" else {}
        assert name in faults(serving("production", **pair, **{name: value.rstrip("`")})), (name, value)


def test_user_name_and_password_rules_match_the_service() -> None:
    assert checks.USERNAME.pattern == users.USERNAME.pattern
    assert (checks.MIN_PASSWORD, checks.MAX_PASSWORD) == (
        passwords.MIN_PASSWORD,
        passwords.MAX_PASSWORD,
    )
    for pair in ({"BOOTSTRAP_USERNAME": "a b", "BOOTSTRAP_PASSWORD": "long-enough"},):
        assert set(faults({"APP_ENV": "testing", **pair})) == {"BOOTSTRAP_USERNAME"}
    short = {"BOOTSTRAP_USERNAME": "ada", "BOOTSTRAP_PASSWORD": "short"}
    assert set(faults({"APP_ENV": "testing", **short})) == {"BOOTSTRAP_PASSWORD"}


def test_settings_of_the_other_tests_are_accepted() -> None:
    assert load({"APP_ENV": "production", **SERVING}).environment == "production"
