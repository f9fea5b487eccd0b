"""Production checks: no guessable secret, nothing embedded, no offline model, no debug mode, no reloading."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import SecretStr, ValidationInfo, field_validator

from config import derived, secrets
from config.base import DEVELOPMENT_SECRET, Settings
from config.development import DEMO_PASSWORD, DEMO_USERNAME


class Production(Settings):
    environment: ClassVar[str] = "production"
    overrides: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "limit_runs": "60/minute",
            "limit_writes": "120/minute",
            "limit_reads": "1200/minute",
            "cache_ttl_seconds": 86_400,
            "log_level": "WARNING",
        }
    )

    @field_validator("secret_key")
    @classmethod
    def _own_secret(cls, key: SecretStr) -> SecretStr:
        if key.get_secret_value() == DEVELOPMENT_SECRET:
            raise ValueError(f"is the default of development; set a random one ({secrets.ADVICE})")
        secrets.key(key.get_secret_value())
        return key

    @field_validator("bootstrap_username")
    @classmethod
    def _own_first_user(cls, name: str) -> str:
        if name == DEMO_USERNAME:
            raise ValueError("is the first user of development; choose another name")
        return name

    @field_validator("bootstrap_password")
    @classmethod
    def _own_first_password(cls, password: SecretStr, info: ValidationInfo) -> SecretStr:
        text = password.get_secret_value()
        if text == DEMO_PASSWORD:
            raise ValueError("is the password of development, which everybody knows")
        if text:
            secrets.password(text, info.data.get("bootstrap_username", ""))
        return password

    @field_validator("database_url")
    @classmethod
    def _real_database(cls, url: str) -> str:
        if url.startswith("sqlite"):
            raise ValueError("is empty or SQLite; set postgresql://…")
        return secrets.url(url)

    @field_validator("redis_url")
    @classmethod
    def _real_redis(cls, url: str, info: ValidationInfo) -> str:
        if "slipway_home" in info.data and url == derived.embedded_redis_url(info.data["slipway_home"]):
            raise ValueError("is empty or the embedded Redis; set redis://…")
        return secrets.url(url)

    @field_validator("broker_url")
    @classmethod
    def _real_broker(cls, url: str) -> str:
        return secrets.url(url)

    @field_validator("anthropic_api_key")
    @classmethod
    def _real_model(cls, key: SecretStr, info: ValidationInfo) -> SecretStr:
        if "anthropic" not in str(info.data.get("model_providers")):
            return key
        if derived.is_offline(key.get_secret_value()):
            raise ValueError("is empty, and the offline model is no model; set a key")
        secrets.provider_key(key.get_secret_value())
        return key

    @field_validator("semantic_cache_key", "knowledge_embeddings_key")
    @classmethod
    def _real_embeddings(cls, key: SecretStr) -> SecretStr:
        secrets.provider_key(key.get_secret_value())
        return key

    @field_validator("oidc_issuer", "public_url")
    @classmethod
    def _over_tls(cls, url: str) -> str:
        if url.startswith("http:"):
            raise ValueError("must begin with https://")
        return url

    @field_validator("oidc_client_secret")
    @classmethod
    def _real_client(cls, secret: SecretStr) -> SecretStr:
        secrets.provider_key(secret.get_secret_value())
        return secret

    @field_validator("webhook_allow_private")
    @classmethod
    def _public_webhooks(cls, allowed: bool) -> bool:
        if allowed:
            raise ValueError("must be off: users choose where webhooks go")
        return allowed

    @field_validator("debug", "reload")
    @classmethod
    def _off(cls, on: bool) -> bool:
        if on:
            raise ValueError("must be off")
        return on
