"""Service on each database with its model, for the chaos tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.conftest import Model, RedisServer, Slipway


@dataclass
class House:
    """Service with its parts."""

    name: str
    server: Slipway
    model: Model
    redis: RedisServer
    lines: Path  # where the scribe's tool leaves its marks
