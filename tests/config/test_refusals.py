"""Refusals of `config.load`: their words, and what they must not contain."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from config import ConfigError, Settings, load
from config.base import DEVELOPMENT_SECRET
from tests.config.serving import faults, pem, serving

NUMBERS = [
    *(name.upper() for name, field in Settings.model_fields.items() if field.annotation in (int, float)),
    *("BUDGET_USER_DAY_USD", "BUDGET_SERVICE_DAY_USD", "BUDGET_RUN_USD", "LIMIT_CONCURRENT_RUNS"),
]


def test_unknown_environment_is_refused_listing_the_four() -> None:
    with pytest.raises(ConfigError, match="APP_ENV: is not one of development, testing, staging, production"):
        load({"APP_ENV": "prod"})


@pytest.mark.parametrize("environment", ["staging", "production"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", ""),
        ("SECRET_KEY", DEVELOPMENT_SECRET),
        ("SECRET_KEY", "x" * 31),
        ("SECRET_KEY", "x" * 31 + " " * 31),
        ("BOOTSTRAP_USERNAME", "demo"),
        ("BOOTSTRAP_PASSWORD", "demo-password"),
        ("DATABASE_URL", ""),
        ("DATABASE_URL", "sqlite:////data/slipway.db"),
        ("REDIS_URL", ""),
        ("ANTHROPIC_API_KEY", ""),
        ("ANTHROPIC_API_KEY", "offline"),
        ("OIDC_ISSUER", "http://127.0.0.1:9000"),
        ("PUBLIC_URL", "http://localhost:8000"),
        ("DEBUG", "true"),
        ("RELOAD", "true"),
    ],
)
def test_staging_and_production_refuse_development_settings(environment: str, name: str, value: str) -> None:
    first_user = {"BOOTSTRAP_USERNAME": "ada", "BOOTSTRAP_PASSWORD": "another-password"}
    assert set(faults({**serving(environment), **first_user, name: value})) == {name}


def test_all_faults_are_reported_at_once() -> None:
    environ = {
        "APP_ENV": "production",
        "PORT": "many",
        "LIMIT_LOGIN": "often",
        "DEBUG": "1",
        "LOG_LEVEL": "LOUD",
    }
    with pytest.raises(ConfigError) as caught:
        load(environ)
    wrong = {
        "PORT",
        "LIMIT_LOGIN",
        "DEBUG",
        "LOG_LEVEL",
        "SECRET_KEY",
        "DATABASE_URL",
        "REDIS_URL",
        "ANTHROPIC_API_KEY",
    }
    assert set(caught.value.faults) == wrong
    lines = str(caught.value).splitlines()
    assert lines[0] == "Slipway cannot start: 8 settings are wrong (APP_ENV=production)."
    assert {line.strip().split(":")[0] for line in lines[1:]} == wrong


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("THREADS", "2"),
        ("HEARTBEAT_SECONDS", "16"),
        ("SESSION_CONFLICT", "shrug"),
        ("DATABASE_URL", "mysql://db/slipway"),
        ("REDIS_URL", "amqp://queue"),
        ("ANTHROPIC_BASE_URL", "api.example.com"),
        ("LIMIT_RUNS", "sixty a minute"),
        ("REDIS_URL", "redis://redis/first"),
        ("REDIS_URL", "redis://redis:many/0"),
        ("DATABASE_URL", "postgresql://u:p#w@db/slipway"),
        ("BROKER_URL", "amqp://queue:many/"),
        ("SEMANTIC_CACHE_URL", "embeddings.example.com"),
        ("ANTHROPIC_BASE_URL", "http://"),
        ("ANTHROPIC_BASE_URL", "https://user:p4ssw0rd@proxy.example.com"),
        ("SEMANTIC_CACHE_URL", "https://user:p4ssw0rd@host/v1/embeddings"),
        ("BUDGET_WEBHOOK_URL", "https://user:p4ssw0rd@host/in"),
        ("OIDC_ISSUER", "https://user:p4ssw0rd@login.example.com"),
        ("PUBLIC_URL", "https://user:p4ssw0rd@agents.example.com"),
        ("ANTHROPIC_API_KEY", "sk-ant-…"),
        ("HOST", "http://127.0.0.1"),
        ("SLIPWAY_HOME", "~nobody-of-that-name/slipway"),
        ("BUDGET_USER_DAY_USD", "lots"),
        ("LIMIT_CONCURRENT_RUNS", "0"),
        ("METRICS_ENABLED", "perhaps"),
        *((name, value) for value in ("٨٠٠٠", "８０", "²") for name in NUMBERS),
        ("LIMIT_RUNS", "٦٠/minute"),
        ("LIMIT_RUNS", "６０/minute"),
        ("BUDGET_RUN_USD", "1_000"),
        ("REDIS_URL", "redis://redis:٦٣٧٩/0"),
        ("REDIS_URL", "redis://redis:6379/١"),
        ("REDIS_URL", "redis://redis:6379?db=１"),
        ("REDIS_URL", "redis+sentinel://a:1,b:²/mymaster/1"),
        ("REDIS_URL", "redis+sentinel://a:1,b:2/mymaster/١"),
        ("REDIS_URL", "redis+cluster://a:1,b:２"),
        ("REDIS_URL", "rediss+sentinel://a:1,b:²/mymaster/1"),
        ("REDIS_URL", "rediss+cluster://a:1?ssl_ca_certs=/nowhere/ca.pem"),
        ("REDIS_URL", "rediss://a?ssl_certfile=/etc/hostname"),
        ("REDIS_URL", "rediss://a?ssl_cert_reqs=perhaps"),
        ("REDIS_URL", "rediss://a?ssl_ca_cert=/etc/hostname"),
        ("REDIS_URL", "redis://a?ssl_ca_certs=/etc/hostname"),
        ("REDIS_URL", "redis://a?databse=1"),
        ("REDIS_URL", "redis://a?sentinel_password=p"),
        ("REDIS_URL", "redis+sentinel://a/main?sentinal_password=p"),
        ("BROKER_URL", "redis://a?databse=1"),
        ("BROKER_URL", "amqps://a?ssl_ca_certs=/nowhere/ca.pem"),
        ("BROKER_URL", "redis+cluster://a:1"),
        ("DATABASE_URL", "postgresql://u:p@db:٥٤٣٢/slipway"),
        ("DATABASE_URL", "postgresql+psycopg://db:５４３２/slipway"),
        ("DATABASE_URL", "postgresql://u:p@a:5432,b:٥٤٣٢/slipway"),
        ("BROKER_URL", "amqp://u:p@queue:٥٦٧٢"),
        ("BROKER_URL", "redis://queue/١"),
        ("ANTHROPIC_BASE_URL", "http://model:８０"),
        ("SEMANTIC_CACHE_URL", "https://host:٤٤٣/v1/embeddings"),
        ("BUDGET_WEBHOOK_URL", "https://host:４４３/in"),
        ("JWT_PRIVATE_KEY", "not a key"),
        ("JWT_PRIVATE_KEY", pem(ec.generate_private_key(ec.SECP256R1()))),
    ],
)
def test_invalid_values_are_refused_in_every_environment(name: str, value: str) -> None:
    assert set(faults({name: value})) == {name}


def test_faults_never_contain_values() -> None:
    wrong = {
        "SECRET_KEY": "short-secret",
        "DATABASE_URL": "mysql://u:db-password@db/x",
        "REDIS_URL": "amqp://:queue-password@queue",
        "JWT_PRIVATE_KEY": "half-a-key",
        "PORT": "secret-port",
        "DEBUG": "secret-debug",
    }
    with pytest.raises(ConfigError) as caught:
        load(serving("production", **wrong))
    assert set(caught.value.faults) == set(wrong)
    for value in (
        "short-secret",
        "db-password",
        "queue-password",
        "half-a-key",
        "secret-port",
        "secret-debug",
    ):
        assert value not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PORT", "many", "must be a whole number ≥ 0 and ≤ 65535"),
        ("PORT", "65536", "must be a whole number ≥ 0 and ≤ 65535"),
        ("MODEL_TIMEOUT", "0", "must be a number > 0"),
        ("MODEL_TIMEOUT", "nan", "must be a number > 0"),
        ("CACHE_ENABLED", "maybe", "must be true or false"),
        ("LOG_LEVEL", "warn", "must be one of DEBUG, INFO, WARNING, ERROR; did you mean WARNING?"),
        ("LOG_LEVEL", "info", "must be one of DEBUG, INFO, WARNING, ERROR; did you mean INFO?"),
        ("SESSION_CONFLICT", "shrug", "must be one of reject, queue, interrupt"),
        (
            "APP_ENV",
            "Production",
            "is not one of development, testing, staging, production; did you mean production?",
        ),
    ],
)
def test_faults_describe_valid_values(name: str, value: str, said: str) -> None:
    assert faults({name: value})[name] == said


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LIMIT_RUN", "LIMIT_RUNS"),
        ("BUDGET_USER_DAY_USB", "BUDGET_USER_DAY_USD"),
        ("BROKER_URI", "BROKER_URL"),
        ("secret_key", "SECRET_KEY"),
        ("SECRET_KEYFILE", "SECRET_KEY_FILE"),
    ],
)
def test_misspelt_name_is_reported(name: str, meant: str) -> None:
    assert faults({name: "60/minute"}) == {name: f"is no setting; did you mean {meant}?"}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "PATH",
            "HOSTNAME",
            "HOSTTYPE",
            "LOGNAME",
            "http_proxy",
            "DEBUGINFOD_URLS",
            "PGHOST",
            "LOGLEVEL",
            "REDIS_URI",
            "DATABASE_URI",
            "DATABASE_PORT",
        ),
        *(
            "SLIPWAY_PORT",
            "SLIPWAY_TAG",
            "SLIPWAY_SERVICE_HOST",
            "REDIS_PORT",
            "REDIS_HOST",
            "POSTGRES_PASSWORD",
        ),
        *("OFFLINE_MODEL_HOST", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_MODEL"),
        *("WEB_PORT", "FLASK_DEBUG", "FLASK_SKIP_DOTENV", "GUNICORN_CMD_ARGS", "FORWARDED_ALLOW_IPS"),
    ],
)
def test_other_programs_variables_are_ignored(name: str) -> None:
    assert load({name: "8080"}) == load({})
