"""A Slipway on each database, with its model: what the chaos tests do their worst to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.conftest import Model, RedisServer, Slipway


@dataclass
class House:
    """One Slipway and the parts it stands on."""

    name: str
    server: Slipway
    model: Model
    redis: RedisServer
    lines: Path  # where the scribe's tool leaves its marks
