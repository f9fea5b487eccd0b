"""`config.load`: accepted values, defaults and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import ValidationError

from config import ENVIRONMENTS, ConfigError, Settings, load
from config.base import DEVELOPMENT_SECRET

SECRET = "a-secret-of-the-test-that-is-long-enough"
SERVING = {
    "SECRET_KEY": SECRET,
    "DATABASE_URL": "postgresql://slipway:db-password@db/slipway",
    "REDIS_URL": "redis://:redis-password@redis:6379/0",
    "ANTHROPIC_API_KEY": "sk-test",
}

NUMBERS = [
    *(name.upper() for name, field in Settings.model_fields.items() if field.annotation in (int, float)),
    *("BUDGET_USER_DAY_USD", "BUDGET_SERVICE_DAY_USD", "BUDGET_RUN_USD", "LIMIT_CONCURRENT_RUNS"),
]


def serving(environment: str, **changes: str) -> dict[str, str]:
    return {"APP_ENV": environment, **SERVING, **changes}


def faults(environ: dict[str, str]) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load(environ)
    return caught.value.faults


def pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


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


def test_unknown_environment_is_refused_listing_the_four() -> None:
    with pytest.raises(ConfigError, match="APP_ENV: is not one of development, testing, staging, production"):
        load({"APP_ENV": "prod"})


def test_testing_has_shorter_timeouts() -> None:
    assert load({"APP_ENV": "testing"}).lease_seconds < load({}).lease_seconds


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_staging_and_production_limit_runs(environment: str) -> None:
    assert load(serving(environment)).limit_runs == "60/minute"
    assert load(serving(environment, LIMIT_RUNS="90/minute")).limit_runs == "90/minute"


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
        "redis_url": "redis://r",
        "anthropic_base_url": "http://model",
        "broker_url": "amqp://queue",
        "budget_webhook_url": "https://alerts.example.com",
        "semantic_cache_url": "https://embeddings.example.com/v1",
        "budget_run_usd": "1.50",
    }.get(name)
    default = str(Settings.model_fields[name].get_default())
    if name.startswith("limit_") and name != "limit_concurrent_runs":
        value = "5/minute"
    if name == "jwt_private_key":
        value = pem(ed25519.Ed25519PrivateKey.generate()).strip()
    text = value or default or "something"
    file = tmp_path / name
    file.write_text(text + "\n")
    pair = {"BOOTSTRAP_USERNAME": "ada", "BOOTSTRAP_PASSWORD": "long-enough"}
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


def test_byte_order_mark_is_stripped_from_a_setting(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{SECRET}\n", "utf-8-sig")
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


def test_surrounding_space_is_stripped() -> None:
    settings = load(
        {"PORT": " 9000 ", "LIMIT_RUNS": "60/minute ", "APP_ENV": " testing\n", "LOG_LEVEL": "INFO "}
    )
    assert (settings.port, settings.limit_runs, settings.environment) == (9000, "60/minute", "testing")
    assert settings.log_level == "INFO"
