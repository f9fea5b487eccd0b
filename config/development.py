"""A developer's machine: everything embedded, and a sign-in that everybody knows."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from config.base import Settings

DEMO_USERNAME = "demo"
DEMO_PASSWORD = "demo-password"


class Development(Settings):
    environment: ClassVar[str] = "development"
    changed: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "reload": True,
            "bootstrap_username": DEMO_USERNAME,
            "bootstrap_password": DEMO_PASSWORD,
            "budget_user_day_usd": "1000.00",
            "budget_service_day_usd": "10000.00",
        }
    )
