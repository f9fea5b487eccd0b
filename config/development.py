"""Development defaults: embedded parts, a well-known sign-in, the cheapest model, code reload."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from config.base import Settings

DEMO_USERNAME = "demo"
DEMO_PASSWORD = "demo-password"
CHEAPEST = "claude-haiku-5-5"  # of service/usage/prices.yaml, for tiers `medium` and `complex` too


class Development(Settings):
    environment: ClassVar[str] = "development"
    overrides: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "bootstrap_username": DEMO_USERNAME,
            "bootstrap_password": DEMO_PASSWORD,
            "model_medium": CHEAPEST,
            "model_complex": CHEAPEST,
            "cache_ttl_seconds": 300,
            "budget_user_day_usd": "1000.00",
            "budget_service_day_usd": "10000.00",
            "log_level": "DEBUG",
            "reload": True,
        }
    )
