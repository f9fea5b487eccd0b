"""The rehearsal: production's rules and production's limits."""

from __future__ import annotations

from typing import ClassVar

from config.production import Production


class Staging(Production):
    environment: ClassVar[str] = "staging"
