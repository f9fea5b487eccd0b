"""Field validators of the settings: accepted values, and defaults for empty ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationInfo, field_validator, model_validator

from config import checks, derived

LIMITS = (
    "limit_runs",
    "limit_login",
    "limit_invoke",
    "limit_stream",
    "limit_task",
    "limit_tool",
    "limit_tokens",
    "limit_session",
    "limit_writes",
    "limit_reads",
    "limit_refused",
)
BUDGETS = ("budget_user_day_usd", "budget_workspace_day_usd", "budget_service_day_usd", "budget_run_usd")


class Rules(BaseModel):
    """Validators of `config.base.Settings`. Faults never contain the value."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    overrides: ClassVar[Mapping[str, Any]] = MappingProxyType({})  # defaults that differ in this environment

    @model_validator(mode="before")
    @classmethod
    def _apply_overrides(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {**cls.overrides, **values}

    @field_validator("slipway_home", "agents_dir", check_fields=False)
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return checks.absolute(path)

    @field_validator("host", check_fields=False)
    @classmethod
    def _host(cls, host: str) -> str:
        return checks.host(host)

    @field_validator("database_url", check_fields=False)
    @classmethod
    def _database(cls, url: str, info: ValidationInfo) -> str:
        return checks.with_port(derived.database_url(url, _home(info)))

    @field_validator("keyring_url", check_fields=False)
    @classmethod
    def _keyring(cls, url: str, info: ValidationInfo) -> str:
        if not url:
            return url
        return checks.keyring(checks.with_port(derived.database_url(url, _home(info))), info.data)

    @field_validator("redis_url", check_fields=False)
    @classmethod
    def _redis(cls, url: str, info: ValidationInfo) -> str:
        return checks.redis_url(derived.redis_url(url, _home(info)))

    @field_validator("broker_url", check_fields=False)
    @classmethod
    def _broker(cls, url: str) -> str:
        return checks.broker_url(url)

    @field_validator(
        "anthropic_api_key", "semantic_cache_key", "knowledge_embeddings_key", check_fields=False
    )
    @classmethod
    def _header(cls, key: SecretStr) -> SecretStr:
        return checks.header(key)

    @field_validator("anthropic_base_url", check_fields=False)
    @classmethod
    def _model(cls, url: str, info: ValidationInfo) -> str:
        key = info.data.get("anthropic_api_key", SecretStr("")).get_secret_value()
        return derived.model_url(checks.http_url(url), key, info.data.get("offline_model_port", 8099))

    @field_validator(
        "semantic_cache_url", "knowledge_embeddings_url", "budget_webhook_url", check_fields=False
    )
    @classmethod
    def _other_services(cls, url: str) -> str:
        return checks.http_url(url)

    @field_validator("limit_concurrent_runs", "limit_queued_runs", mode="before", check_fields=False)
    @classmethod
    def _number_or_none(cls, value: Any) -> Any:
        return None if value in ("", "none") else value

    @field_validator(*LIMITS, check_fields=False)
    @classmethod
    def _limit(cls, text: str) -> str:
        return checks.rate_limit(text) if text and text != "none" else ""

    @field_validator(*BUDGETS, check_fields=False)
    @classmethod
    def _dollars(cls, text: str) -> str:
        return checks.dollars(text) if text and text != "none" else ""

    @field_validator("jwt_private_key", check_fields=False)
    @classmethod
    def _private_key(cls, pem: SecretStr) -> SecretStr:
        return checks.ed25519_key(pem)

    @field_validator("fetch_hosts", "remote_hosts", check_fields=False)
    @classmethod
    def _hosts(cls, text: str) -> str:
        return ",".join(checks.place(one) for one in map(str.strip, text.split(",")) if one)

    @field_validator("remote_agents", check_fields=False)
    @classmethod
    def _agents_elsewhere(cls, text: str) -> str:
        return ",".join(checks.agent_elsewhere(one) for one in map(str.strip, text.split(",")) if one)

    @field_validator("cors_origins", check_fields=False)
    @classmethod
    def _origins(cls, text: str) -> str:
        return ",".join(checks.origin(one) for one in map(str.strip, text.split(",")) if one)

    @field_validator("bootstrap_username", check_fields=False)
    @classmethod
    def _username(cls, name: str) -> str:
        return checks.username(name)

    @field_validator("bootstrap_password", check_fields=False)
    @classmethod
    def _bootstrap_pair(cls, password: SecretStr, info: ValidationInfo) -> SecretStr:
        username = info.data.get("bootstrap_username")  # None: it has a fault of its own
        if username is not None and bool(password.get_secret_value()) != bool(username):
            raise ValueError("goes together with BOOTSTRAP_USERNAME: set both or neither")
        return checks.password(password)


def _home(info: ValidationInfo) -> Path:
    """Return the state folder, or any folder if that setting is itself invalid."""
    return Path(info.data.get("slipway_home", "/"))
