"""`config.load`: accepted values and defaults."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from pydantic import ValidationError

from config import ENVIRONMENTS, Settings, load
from tests.config.serving import SECRET, faults, pem, serving


def test_development_needs_no_settings() -> None:
    settings = load({})
    assert settings.environment == "development"
    assert (settings.bootstrap_username, settings.bootstrap_password.get_secret_value()) == (
        "demo",
        "demo-password",
    )
    assert settings.offline and settings.embedded_redis
    assert settings.limit_runs == "600/minute"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_app_env_selects_the_environment(environment: str) -> None:
    settings = load(serving(environment))
    assert (settings.environment, type(settings)) == (environment, ENVIRONMENTS[environment])


def test_testing_has_shorter_timeouts() -> None:
    assert load({"APP_ENV": "testing"}).lease_seconds < load({}).lease_seconds


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_staging_and_production_limit_runs(environment: str) -> None:
    assert load(serving(environment)).limit_runs == "60/minute"
    assert load(serving(environment, LIMIT_RUNS="90/minute")).limit_runs == "90/minute"


def test_bootstrap_user_needs_name_and_password() -> None:
    assert set(faults({"APP_ENV": "testing", "BOOTSTRAP_USERNAME": "ada"})) == {"BOOTSTRAP_PASSWORD"}
    assert set(faults({"APP_ENV": "testing", "BOOTSTRAP_PASSWORD": "long-enough"})) == {"BOOTSTRAP_PASSWORD"}


def test_ed25519_key_is_accepted() -> None:
    key = pem(ed25519.Ed25519PrivateKey.generate())
    assert load({"JWT_PRIVATE_KEY": key}).jwt_private_key.get_secret_value() == key


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_may_come_from_a_file(name: str, tmp_path: Path) -> None:
    value = {
        "database_url": "sqlite:////x.db",
        "keyring_url": "sqlite:////keys.db",
        "redis_url": "redis://r",
        "anthropic_base_url": "http://model",
        "anthropic_bedrock_base_url": "http://bedrock",
        "anthropic_bedrock_mantle_base_url": "http://mantle/anthropic",
        "anthropic_vertex_base_url": "http://vertex/v1",
        "openai_base_url": "http://upstream/v1",
        "model_prices": __file__,
        "bedrock_models": "claude-haiku-5-5=anthropic.claude-haiku-5-5",
        "mantle_models": "claude-haiku-5-5=anthropic.claude-haiku-5-5",
        "vertex_models": "claude-haiku-4-5=claude-haiku-4-5@20251001",
        "broker_url": "amqp://queue",
        "budget_webhook_url": "https://alerts.example.com",
        "semantic_cache_url": "https://embeddings.example.com/v1",
        "knowledge_embeddings_url": "https://embeddings.example.com/v1",
        "budget_run_usd": "1.50",
        "budget_workspace_day_usd": "1.50",
        "cors_origins": "https://app.example.com",
        "remote_agents": "research=http://research:9100/research",
        "oidc_issuer": "https://login.example.com",
        "public_url": "https://agents.example.com",
        "oidc_roles": "admins:admin",
        "otel_exporter_otlp_endpoint": "http://collector:4318",
        "otel_exporter_otlp_headers": "x-key=secret",
        "otel_resource_attributes": "team=support",
    }.get(name)
    default = str(Settings.model_fields[name].get_default())
    if name.startswith("limit_") and not name.endswith("_runs"):
        value = "5/minute"
    if name == "jwt_private_key":
        value = pem(ed25519.Ed25519PrivateKey.generate()).strip()
    text = value or default or "something"
    file = tmp_path / name
    file.write_text(text + "\n")
    file.chmod(0o600)
    pair = {"BOOTSTRAP_USERNAME": "ada", "BOOTSTRAP_PASSWORD": "long-enough"}
    # Without these, others do nothing and are refused.
    pair |= {
        "OIDC_ISSUER": "https://login.example.com",
        "OIDC_CLIENT_ID": "page",
        "PUBLIC_URL": "https://x.example",
    }
    pair.pop(name.upper(), None)
    from_file = load({"APP_ENV": "testing", **pair, f"{name.upper()}_FILE": str(file)})
    assert getattr(from_file, name) == getattr(load({"APP_ENV": "testing", **pair, name.upper(): text}), name)


def test_setting_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SECRET)
    environ = {"SECRET_KEY": SECRET, "SECRET_KEY_FILE": str(tmp_path / "key")}
    assert faults(environ) == {"SECRET_KEY": "is set twice, as SECRET_KEY and as SECRET_KEY_FILE"}


def test_unreadable_file_is_reported_instead_of_the_missing_value(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    environ = serving("production", SECRET_KEY="", SECRET_KEY_FILE=str(missing))
    assert faults(environ) == {
        "SECRET_KEY": f"cannot be read from SECRET_KEY_FILE ({missing}): No such file or directory"
    }


@pytest.mark.parametrize(
    ("mode", "refused"), [(0o600, False), (0o640, False), (0o644, True), (0o604, True), (0o622, False)]
)
@pytest.mark.parametrize("name", ["SECRET_KEY", "DATABASE_URL", "ANTHROPIC_API_KEY"])
def test_secret_that_others_can_read_is_refused(name: str, mode: int, refused: bool, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("sqlite:////x.db" if name == "DATABASE_URL" else SECRET)
    file.chmod(mode)
    environ = {f"{name}_FILE": str(file)}
    if refused:
        assert faults(environ) == {name: f"can be read by every user of this machine in {file} (chmod 600)"}
    else:
        load(environ)


def test_other_settings_may_be_read_by_anyone(tmp_path: Path) -> None:
    file = tmp_path / "port"
    file.write_text("8123")
    file.chmod(0o644)
    assert load({"PORT_FILE": str(file)}).port == 8123


def test_byte_order_mark_is_stripped_from_a_setting(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{SECRET}\n", "utf-8-sig")
    (tmp_path / "key").chmod(0o600)
    assert load({"SECRET_KEY_FILE": str(tmp_path / "key")}).secret_key.get_secret_value() == SECRET


@pytest.mark.parametrize(
    "url",
    [
        "redis://:p%3F@redis:6379/0",
        "rediss://user:p%3Aw@[::1]:6380/2",
        "redis://[::1]",
        "redis://redis",
        "redis+sentinel://:pass@a:1,b:2/mymaster/1",
        "redis+sentinel://a,b/mymaster",
        "redis+cluster://a:1,b:2",
        "rediss+cluster://:pass@a:1,b:2?ssl_ca_certs=/etc/passwd&ssl_check_hostname=no",
        "rediss+sentinel://:pass@a:1,b:2/main?sentinel_username=u&sentinel_password=p%23&ssl_ca_certs=/etc/passwd",
        "unix:///run/redis.sock?db=2",
    ],
)
def test_redis_urls_are_validated(url: str) -> None:
    assert load({"REDIS_URL": url}).redis_url == url


def test_empty_variable_counts_as_unset() -> None:
    assert load({"PORT": "", "APP_ENV": "", "SECRET_KEY_FILE": ""}) == load({})


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(load({}), "port", 1)  # noqa: B010 - a plain assignment is refused by the type checker already


def test_unknown_field_is_refused_by_the_constructor() -> None:
    with pytest.raises(ValidationError, match="prot"):
        Settings(prot=8000)  # type: ignore[call-arg]


def test_repr_hides_secrets() -> None:
    key = pem(ed25519.Ed25519PrivateKey.generate())
    settings = load(
        serving(
            "production",
            JWT_PRIVATE_KEY=key,
            BOOTSTRAP_USERNAME="ada",
            BOOTSTRAP_PASSWORD="pass-ada-lovelace",
        )
    )
    for secret in (SECRET, "db-password", "redis-password", "sk-test", "pass-ada-lovelace", key):
        assert secret not in f"{settings!r}{settings}"


def test_budget_webhook_url_has_no_user_name() -> None:
    url = "https://alerts.example.com/slipway?team=1"
    assert load({"BUDGET_WEBHOOK_URL": url}).budget_webhook_url == url
    for wrong in (
        "alerts.example.com",
        "ftp://alerts.example.com",
        "https://",
        "https://ada:pass@alerts.example.com",
    ):
        told = faults({"BUDGET_WEBHOOK_URL": wrong})
        assert set(told) == {"BUDGET_WEBHOOK_URL"} and "pass" not in str(told)


def test_surrounding_space_is_stripped() -> None:
    settings = load(
        {"PORT": " 9000 ", "LIMIT_RUNS": "60/minute ", "APP_ENV": " testing\n", "LOG_LEVEL": "INFO "}
    )
    assert (settings.port, settings.limit_runs, settings.environment) == (9000, "60/minute", "testing")
    assert settings.log_level == "INFO"
