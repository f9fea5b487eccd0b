"""The rehearsal: production's rules and production's limits, with more in the log and answers kept for less long."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from config.production import Production


class Staging(Production):
    environment: ClassVar[str] = "staging"
    changed: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {**Production.changed, "cache_ttl_seconds": 3600, "log_level": "INFO"}
    )
