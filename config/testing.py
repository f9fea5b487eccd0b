"""Test defaults: few threads, short timeouts and leases, high limits."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from config.base import Settings


class Testing(Settings):
    environment: ClassVar[str] = "testing"
    overrides: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "web_concurrency": 1,
            "threads": 8,
            "model_timeout": 10.0,
            "model_connect_timeout": 1.0,
            "model_retries": 2,
            "model_max_connections": 64,
            "breaker_recovery": 0.5,
            "graceful_timeout": 5,
            "run_timeout": 30.0,
            "heartbeat_seconds": 0.5,
            "lease_seconds": 2.0,
            "sweep_seconds": 0.5,
            "limit_login": "1000/minute",
            "limit_session": "100000/minute",
            "limit_writes": "100000/minute",
            "limit_reads": "100000/minute",
            "limit_refused": "100000/minute",
        }
    )
