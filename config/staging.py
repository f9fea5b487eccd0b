"""Staging defaults: production's checks and limits, with more verbose logs and a shorter cache TTL."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from config.production import Production


class Staging(Production):
    environment: ClassVar[str] = "staging"
    overrides: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {**Production.overrides, "cache_ttl_seconds": 3600, "log_level": "INFO"}
    )
